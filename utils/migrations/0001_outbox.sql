-- What must be sent until it is accepted. A row names its subject (`kind`, `ref`), never the words:
-- they are made at the moment of sending, so nothing that lies here can sign anybody in.
create table outbox (
    id         text primary key,
    kind       text not null,
    ref        text not null,
    state      text not null check (state in ('queued', 'sending', 'accepted', 'void', 'expired', 'dead')),
    created_at bigint not null,
    not_after  bigint not null,             -- never sent later than this
    next_at    bigint not null,             -- not tried again, or taken from a dead worker, before this
    tries      bigint not null default 0,
    reply      text not null default ''     -- what the mail server said last
) without rowid;
create index outbox_due on outbox (next_at) where state in ('queued', 'sending');
