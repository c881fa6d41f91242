"""THE RULES of leaving: one session, or all that a person has; and what time has ended. No HTTP, HTML or SQL."""

from datetime import UTC, datetime
from typing import Any

from auth import (
    budgets,
    challenges,
    devices,
    events,
    invitations,
    moves,
    reviewers,
    sessions,
    users,
)
from auth.desk import Desk
from auth.events import Source
from auth.keys import digest
from auth.users import User

# A backup that is put back adds to these tables and takes nothing from them: what has happened stays in the
# record, what was counted stays counted.
MERGED = ("events", "counters", "challenges")
# What was done for a reason, and a backup takes back: whoever puts it back is told.
TAKEN_BACK = (
    events.USER_DISABLED,
    events.USER_DELETED,
    events.ROLE_CHANGED,
    events.ROLE_DELETED,
    events.ADDRESS_CHANGED,
    events.ADDRESS_RESTORED,
    events.MEMBER_REMOVED,
    events.TENANT_DELETED,
)
INVITED_SECONDS = 30 * 86400  # how long an invitation is told of after its end
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

    # ---- after a backup was put back
    def restored(self, t: Any, made_at: int) -> None:
        """In the same transaction: nothing that was ended, used or revoked since lives again.

        Nobody can know which of them were, so all end: sessions, known browsers, sign-ins, codes of reviewers,
        invitations.
        """
        self.limits.forget(t, challenges.end_every(t), int(self.clock()))
        sessions.end_every(t)
        devices.end_every(t)
        reviewers.end_every(t)
        invitations.end_every(t)
        when = datetime.fromtimestamp(made_at, UTC).strftime("%Y-%m-%d %H:%M")
        self._record(t, events.RESTORED, "", Source(), detail=f"as of {when} UTC")

    # ---- tidying up
    def purge(self, step: int = 1000) -> dict[str, int]:
        """Delete what has ended: counters, challenges, sessions, devices, reviewers, moves, invitations. How many.

        `step`: rows looked at in one statement, so that nobody waits for it.
        """
        now = int(self.clock())
        return {
            "counters": budgets.purge(self.db, now, step),
            "challenges": challenges.purge(self.db, now - KEPT_SECONDS, step),
            "sessions": sessions.purge(self.db, now, step),
            "devices": devices.purge(self.db, now, step),
            "reviewers": reviewers.purge(self.db, now),
            "invitations": invitations.purge(self.db, now - INVITED_SECONDS, step),
            "moves": moves.purge(self.db, now),
        }
