"""True in any app: settings, database, outbox, mail, logs, headers. Nothing here knows what a user or a code is."""
