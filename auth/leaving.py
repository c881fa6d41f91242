"""THE RULES of leaving: one session, or all that a person has; and what time has ended. No HTTP, HTML or SQL."""

from typing import Any

from auth import budgets, challenges, devices, events, reviewers, sessions, users
from auth.desk import Desk
from auth.events import Source
from auth.keys import digest
from auth.users import User

KEPT_SECONDS = 86400  # how long a challenge is kept after its end, so that a late one is told


class Leaving(Desk):
    def end_session(self, token: str, user: User, source: Source) -> None:
        with self.db.tx() as t:
            sessions.end(t, digest(token))
            self._record(t, events.LOGOUT, user.address, source, actor=user.id)

    def end_everything(self, user: User, source: Source) -> None:
        """All sessions, known browsers and pending sign-ins of one person."""
        with self.db.tx() as t:
            # The person first, as a sign-in does: one that is under way is waited for here, and its
            # session ended after it has begun.
            users.hold(t, user.id)
            self.end_all(t, user)
            self._record(t, events.LOGOUT, user.address, source, actor=user.id, detail="everywhere")

    def end_everybody(self, source: Source) -> int:
        """All sessions, known browsers and pending sign-ins that there are. How many sessions."""
        with self.db.tx() as t:
            users.hold_every(t)  # as above, and in the order of a sign-in
            self.limits.forget(t, challenges.end_every(t), int(self.clock()))
            ended = sessions.end_every(t)
            devices.end_every(t)
            self._record(t, events.LOGOUT, "", source, detail="everybody")
        return ended

    def end_all(self, t: Any, user: User) -> None:
        """Sessions, known browsers and pending sign-ins; their mails are as if they had not been asked for, or
        who spent them would have locked the person out."""
        self.limits.forget(t, challenges.end_all(t, user.address), int(self.clock()))
        sessions.end_all(t, user.id)
        devices.end_all(t, user.id)

    # ---- tidying up
    def purge(self, step: int = 1000) -> dict[str, int]:
        """Delete what has ended: counters, challenges, sessions, devices, reviewers. How many of each.

        `step`: rows looked at in one statement, so that nobody waits for it.
        """
        now = int(self.clock())
        return {
            "counters": budgets.purge(self.db, now, step),
            "challenges": challenges.purge(self.db, now - KEPT_SECONDS, step),
            "sessions": sessions.purge(self.db, now, step),
            "devices": devices.purge(self.db, now, step),
            "reviewers": reviewers.purge(self.db, now),
        }
