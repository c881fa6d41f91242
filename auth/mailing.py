"""THE RULES about what is mailed for a challenge, and until when. The words are not made here."""

from typing import Any, NamedTuple

from auth import challenges, users
from auth.agents import LABELS
from auth.challenges import APP_SIGN_IN, Challenge
from auth.desk import Desk
from auth.limits import Mail

# Kinds of letters.
CODE_MAIL = "code"
MOVE_MAIL = "move"  # the code that makes an address a person's
# Notices of a change of address: to the one before, and to the new one.
MOVED, ARRIVED = "address_changed", "address_new"
NO_MAIL = "none"  # nothing is due; the same row and the same work as for a mail that is


class CodeMail(NamedTuple):
    """What the mail of one challenge says. `code` or `link` is "" when it is not in this mail."""

    address: str
    code: str
    link: str
    link_seconds: int  # that the link still works
    asked_at: int
    timezone: str  # the person's, UTC when they have none yet
    asked_by: str  # the kind of device, one of agents.LABELS, or ""
    app: bool  # a program asked: the link leads there, and the code is typed there


class Mailing(Desk):
    def _mail_it(self, t: Any, challenge: Challenge, mail: Mail) -> None:
        """A row in the outbox in any case: the same work whether a mail leaves or not."""
        until = self.validity.mail_until(challenge)
        if mail.link_until:  # its link is the only one for a while: better late than never
            until = max(until, mail.link_until - self.policy.mail_margin)
        self.send(t, CODE_MAIL if mail.sent else NO_MAIL, challenge.id, until)

    def _linked(self, mail: Mail) -> bool:
        """Where links are off there is one in the mail that has to do for a while."""
        return self.policy.magic_links or mail.link_only or bool(mail.link_until)

    def mail(self, ref: str) -> CodeMail | None:
        """What to say in the mail of one challenge, made at the moment of sending.

        None when nothing is to be said: it was used or has run out, or the address may not sign in
        here. It goes to the stored address, which is the canonical one.
        """
        challenge, now = challenges.by_id(self.db, ref), int(self.clock())
        if not challenge or challenge.used_at is not None:
            return None
        user = users.by_address(self.db, challenge.address)
        # Nobody waits for this one, so no more is asked than is needed.
        new = user is None and self._may_sign_up(self.db, challenge.address)
        if not new and (user is None or user.disabled_at is not None):
            return None
        coded = not challenge.link_only and challenge.expires_at > now
        linked = challenge.linked and challenge.link_expires_at > now
        code = self.validity.code(challenge) if coded else ""
        link = self.validity.link(challenge) if linked else ""
        if code is None or link is None or not (code or link):  # None: its key is gone
            return None
        return CodeMail(
            challenge.address,
            code,
            link,
            challenge.link_expires_at - now,
            challenge.sent_at,  # of several requests for one code, the newest
            user.timezone if user else "UTC",
            # Checked once more: whatever wrote this row, no text of a stranger's gets into a mail.
            challenge.asked_by if challenge.asked_by in LABELS else "",
            challenge.purpose == APP_SIGN_IN,
        )

    def mail_waiting(self, t: Any, address: str) -> None:
        """Somebody may sign in from now on: mail them what they asked for before, if it is alive.

        Their mails were counted as everybody's are, and may be spent: without this one they would
        wait for a day, for mails that never left.
        """
        challenge, now = challenges.newest(t, address), int(self.clock())
        if challenge and challenge.link_expires_at > now + self.policy.mail_margin:
            until = challenge.link_expires_at - self.policy.mail_margin
            self.send(t, CODE_MAIL, challenge.id, until)
