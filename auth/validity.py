"""What a challenge is worth at this moment: its code and link, and whether they still count. Pure."""

from dataclasses import dataclass

from auth.challenges import Challenge
from auth.keys import LONG_CODE_CHARS, Keys
from auth.policy import Policy, Refused


@dataclass(frozen=True)
class Pending:
    """What a page, or a program, may show of a challenge. Times in seconds from now."""

    id: str
    address: str
    code_length: int
    code_seconds: int
    expires_in: int
    resend_in: int | None  # None: no resend is left
    sure: bool  # is a mail certain? Only where everybody may sign up
    next_path: str  # where the person wanted to go
    exhausted: bool  # no try is left for the code that was mailed
    link_only: bool  # the mail has a link and no code; what may be typed is the link's long code
    owed: bool  # no mail has left for it yet, as this browser knows: it asked a moment ago
    sent_ago: int


@dataclass(frozen=True)
class Validity:
    keys: Keys
    policy: Policy

    # ---- its secrets, derived anew each time. None: the key is gone
    def code(self, challenge: Challenge) -> str | None:
        c = challenge
        digits = self.policy.code_length
        return self.keys.code(c.key_id, c.purpose, c.nonce, c.address, c.generation, digits)

    def long_code(self, challenge: Challenge) -> str | None:
        c = challenge
        return self.keys.long_code(c.key_id, c.purpose, c.nonce, c.address)

    def link(self, challenge: Challenge) -> str | None:
        c = challenge
        return self.keys.link(c.key_id, c.purpose, c.id, c.nonce, c.address)

    # ---- whether it counts
    def refuse_dead(self, challenge: Challenge, now: int) -> None:
        where = {"address": challenge.address, "next_path": challenge.next_path}
        if challenge.used_at is not None:
            raise Refused("code_used", **where)
        gone = self.code(challenge) is None
        if challenge.expires_at <= now or self.too_early(challenge, now) or gone:
            raise Refused("code_expired", **where)

    def too_early(self, challenge: Challenge, now: int) -> bool:
        return challenge.issued_at > now + self.policy.clock_skew

    def alive(self, challenge: Challenge, now: int) -> bool:
        """May something still be typed for it?"""
        live = challenge.used_at is None and challenge.expires_at > now
        return live and not self.exhausted(challenge) and not self.too_early(challenge, now)

    def linkable(self, challenge: Challenge, now: int) -> bool:
        """May its browser still use a link?"""
        live = challenge.used_at is None and challenge.link_expires_at > now
        return live and not self.too_early(challenge, now)

    def exhausted(self, challenge: Challenge) -> bool:
        return (
            challenge.code_tries >= self.policy.tries_per_code
            or challenge.total_tries >= self.policy.tries_per_challenge
        )

    # ---- its mails
    def mail_until(self, challenge: Challenge) -> int:
        """No mail after this: the code in it would be dead, or nearly so, when it is read."""
        return challenge.expires_at - min(self.policy.mail_margin, self.policy.code_seconds // 4)

    def resend_in(self, challenge: Challenge, now: int) -> int | None:
        """Seconds until the next resend may be asked for; None when there is none any more."""
        if challenge.resends >= len(self.policy.resend_waits) or now >= self.mail_until(challenge):
            return None
        return max(0, challenge.sent_at + self.policy.resend_waits[challenge.resends] - now)

    # ---- all of it, for a page
    def pending(self, challenge: Challenge, now: int) -> Pending:
        return Pending(
            id=challenge.id,
            address=challenge.address,
            code_length=LONG_CODE_CHARS if challenge.link_only else self.policy.code_length,
            code_seconds=challenge.expires_at - challenge.issued_at,
            expires_in=max(0, challenge.expires_at - now),
            resend_in=self.resend_in(challenge, now),
            sure=self.policy.signup == "open" and not self.policy.signup_domains,
            next_path=challenge.next_path,
            exhausted=self.exhausted(challenge),
            link_only=bool(challenge.link_only),
            owed=challenge.sent_at < challenge.issued_at,
            sent_ago=max(0, now - challenge.sent_at),
        )
