"""THE RULES of signing in. All numbers are in Policy, every "no" is Refused. No HTTP, HTML or SQL.

A challenge is one attempt from one browser. Its code is derived when it is mailed and when it is
compared, and is stored nowhere. A guess is counted before it is compared; a code opens one session,
once, in the browser that asked.
"""

import logging
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from auth import challenges, events, sessions, users
from auth.addresses import canonical, masked
from auth.challenges import Challenge
from auth.events import Source
from auth.keys import Keys, digest, same
from auth.users import User

log = logging.getLogger("auth.signin")

SIGN_IN = "sign-in"  # a challenge's purpose; part of what its code is derived from
CODE_MAIL = "code"  # the kind of letter that carries it
HOME = "/dashboard"
MAX_TYPED_CODE = 100
# Nobody wants to arrive at the door again, or at what only takes forms.
NO_PLACES = (
    "/login",
    "/create_code",
    "/verify_code",
    "/resend_code",
    "/logout",
    "/logout_everywhere",
)


@dataclass(frozen=True)
class Policy:
    """Every number and choice of signing in, with its source."""

    code_length: int = 6  # ASVS 6.5.3: at least 20 bits
    code_seconds: int = 15 * 60
    tries_per_code: int = 5
    tries_per_challenge: int = 10  # over all codes of one challenge (SP 800-63B-4 §3.1.3)
    resend_waits: tuple[int, ...] = (60, 120)  # seconds before each resend; as many as there are
    mail_margin: int = 60  # seconds: a code with less to live is not mailed any more
    clock_skew: int = 60  # seconds a clock may have gone back
    session_idle_seconds: int = 7 * 86400
    session_max_seconds: int = 30 * 86400  # SP 800-63B-4 §2.1.3
    seen_every_seconds: int = 300  # how exactly "last use" is kept; a write a request is too much
    session_data_bytes: int = 4096
    signup: str = "closed"  # closed: only addresses an admin added; open: all of signup_domains
    signup_domains: tuple[str, ...] = ()
    reveal_unregistered: bool = False


class Refused(Exception):
    """The one way to say no. `reason` is a key of the words and of the statuses; `facts` fill them."""

    def __init__(self, reason: str, **facts: Any):
        super().__init__(reason)
        self.reason, self.facts = reason, facts


@dataclass(frozen=True)
class Pending:
    """What a page may show of a challenge. Times in seconds from now."""

    address: str
    code_length: int
    code_seconds: int
    expires_in: int
    resend_in: int | None  # None: no resend is left
    sure: bool  # is a mail certain? Only where everybody may sign up
    next_path: str  # where the person wanted to go
    exhausted: bool  # no try is left for the code that was mailed


@dataclass(frozen=True)
class Arrival:
    """A sign-in that worked: the new session's token, and where the person wanted to go."""

    token: str
    user: User
    next_path: str


@dataclass(frozen=True)
class SignIn:
    """The rules, with all they need as parameters: time, chance and sending included.

    `send(t, kind, ref, not_after)` queues a mail in transaction t.
    """

    db: Any
    keys: Keys
    send: Callable[[Any, str, str, int], None]
    clock: Callable[[], float]
    policy: Policy = field(default_factory=Policy)

    # ---- asking
    def create_code(
        self, typed: str, next_path: str, old_token: str | None, source: Source
    ) -> tuple[str, Pending]:
        """Start a sign-in: the browser's new token, and what to show.

        No look at the users on the way: what is done, and how long it takes, is the same for every
        address because it is the same work. Whether a mail leaves is decided when it would.
        """
        if not typed.strip():
            raise Refused("email_missing")
        address = canonical(typed)
        if address is None:
            raise Refused("email_invalid")
        if self.policy.reveal_unregistered and not self._may_sign_in(self.db, address):
            raise Refused("not_registered", address=address)
        now, token = int(self.clock()), self.keys.new_token()
        challenge = Challenge(
            id=self.keys.new_id(),
            browser=digest(token),
            purpose=SIGN_IN,
            address=address,
            nonce=self.keys.new_nonce(),
            key_id=self.keys.current,
            generation=0,
            code_tries=0,
            total_tries=0,
            resends=0,
            next_path=safe_next(next_path),
            issued_at=now,
            sent_at=now,
            expires_at=now + self.policy.code_seconds,
            used_at=None,
        )
        with self.db.tx() as t:
            if old_token:
                challenges.end_of_browser(t, digest(old_token))
            challenges.create(t, challenge)
            self.send(t, CODE_MAIL, challenge.id, self._mail_until(challenge))
            self._record(t, events.CODE_REQUESTED, address, source)
        return token, self._pending(challenge, now)

    def resend_code(self, token: str | None, source: Source) -> Pending:
        """Mail the code once more. The same code, unless its tries are used up: then the next one.

        The count over the whole challenge goes on (SP 800-63B-4 §3.1.3: a new secret does not reset
        the count of failures).
        """
        now, seen = int(self.clock()), self._of_browser(token)
        self._refuse_dead(seen, now)
        wait = self._resend_in(seen, now)
        if wait is None or seen.total_tries >= self.policy.tries_per_challenge:
            raise Refused("resend_spent", retry_after=max(1, seen.expires_at - now))
        if wait > 0:
            raise Refused("resend_wait", retry_after=wait)
        with self.db.tx() as t:
            new_code = seen.code_tries >= self.policy.tries_per_code
            if not challenges.resend(t, seen, now, new_code):
                raise Refused("resend_wait", retry_after=1)  # the same click, twice
            self.send(t, CODE_MAIL, seen.id, self._mail_until(seen))
            self._record(t, events.CODE_REQUESTED, seen.address, source, detail="again")
        return self.pending(token) or self._pending(seen, now)

    def pending(self, token: str | None) -> Pending | None:
        """The browser's live sign-in, if it has one."""
        now, challenge = int(self.clock()), self._of_browser(token, must=False)
        live = challenge and challenge.used_at is None and challenge.expires_at > now
        return self._pending(challenge, now) if challenge and live else None

    def mail(self, ref: str) -> tuple[str, str] | None:
        """(address, code) for the mail of one challenge, made at the moment of sending.

        None when nothing is to be said: the code was used or has run out, or the address may not
        sign in here. It goes to the stored address, which is the canonical one.
        """
        challenge = challenges.by_id(self.db, ref)
        if not challenge or challenge.used_at is not None:
            return None
        if challenge.expires_at <= self.clock():
            return None
        if not self._may_sign_in(self.db, challenge.address):
            return None
        code = self._code(challenge)
        return (challenge.address, code) if code else None

    # ---- entering
    def verify_code(
        self, token: str | None, typed: str, timezone: str, old_session: str | None, source: Source
    ) -> Arrival:
        """Spend one guess; when it is right, the challenge becomes a session."""
        code = tidy_code(typed, self.policy.code_length)  # what can't be a code costs no try
        if token is None:
            raise Refused("no_signin")
        now = int(self.clock())
        challenge = challenges.spend(
            self.db,
            digest(token),
            now,
            self.policy.tries_per_code,
            self.policy.tries_per_challenge,
            self.policy.clock_skew,
        )
        if challenge is None:
            raise self._why_not(token, now)
        expected = self._code(challenge)
        if expected is None:  # its key is gone
            raise Refused("code_expired", address=challenge.address, next_path=challenge.next_path)
        if not same(code, expected):
            raise self._wrong(challenge, source)
        arrival = self._admit(challenge, known_zone(timezone), old_session, now, source)
        # The right code of an address that may not sign in; nobody was mailed it.
        if arrival is None:
            raise self._wrong(challenge, source)
        log.info("%s signed in", masked(challenge.address))
        return arrival

    def _admit(
        self,
        challenge: Challenge,
        zone: str | None,
        old_session: str | None,
        now: int,
        source: Source,
    ) -> Arrival | None:
        """Consume the challenge and start the session: both, or neither, and once."""
        token = self.keys.new_token()
        with self.db.tx() as t:
            user = users.arrive(t, challenge.address, zone, now)
            if user is None and self._signs_up(t, challenge.address, now, source):
                user = users.arrive(t, challenge.address, zone, now)
            if user is None:
                return None
            if not challenges.consume(t, challenge.id, now):
                raise Refused("code_used", address=challenge.address, next_path=challenge.next_path)
            if old_session:  # ASVS 7.2.4: the old one ends when a new one begins
                sessions.end(t, digest(old_session))
            ends = now + self.policy.session_max_seconds
            sessions.start(t, self.keys.new_id(), digest(token), user.id, now, ends)
            self._record(t, events.LOGIN_SUCCESS, user.address, source, actor=user.id)
        return Arrival(token, user, challenge.next_path)

    def _signs_up(self, t: Any, address: str, now: int, source: Source) -> bool:
        """Add whoever may sign up; True when they may, also when another request was faster."""
        if not self._may_sign_up(address):
            return False
        if users.add(t, self.keys.new_id(), address, "", "user", now):
            self._record(t, events.USER_CREATED, address, source, detail="sign-up")
        return True

    def _wrong(self, challenge: Challenge, source: Source) -> Refused:
        left = min(
            self.policy.tries_per_code - challenge.code_tries,
            self.policy.tries_per_challenge - challenge.total_tries,
        )
        kind = events.LOGIN_FAIL if left else events.LOGIN_FAIL_MAX
        self._record(self.db, kind, challenge.address, source)
        log.info("wrong code for %s, %d tries left", masked(challenge.address), left)
        return Refused("code_wrong" if left else "code_wrong_last", tries_left=left)

    def _why_not(self, token: str, now: int) -> Refused:
        """Why no guess could be spent. Only the browser that holds the challenge gets here."""
        try:
            challenge = self._of_browser(token)
            self._refuse_dead(challenge, now)
        except Refused as refused:
            return refused
        wait = self._resend_in(challenge, now)
        ends = max(1, challenge.expires_at - now)
        return Refused("code_exhausted", retry_after=ends if wait is None else max(1, wait))

    # ---- leaving
    def end_session(self, token: str, user: User, source: Source) -> None:
        with self.db.tx() as t:
            sessions.end(t, digest(token))
            self._record(t, events.LOGOUT, user.address, source, actor=user.id)

    def end_everything(self, user: User, source: Source) -> None:
        """All sessions and all pending sign-ins of one person."""
        with self.db.tx() as t:
            # In the order in which a sign-in writes them: one that is under way is waited for here,
            # and its session ended after it has begun.
            challenges.end_all(t, user.address)
            sessions.end_all(t, user.id)
            self._record(t, events.LOGOUT, user.address, source, actor=user.id, detail="everywhere")

    # ---- what the above have in common
    def _of_browser(self, token: str | None, must: bool = True) -> Any:
        challenge = challenges.of_browser(self.db, digest(token)) if token else None
        if challenge is None and must:
            raise Refused("no_signin")
        return challenge

    def _refuse_dead(self, challenge: Challenge, now: int) -> None:
        where = {"address": challenge.address, "next_path": challenge.next_path}
        if challenge.used_at is not None:
            raise Refused("code_used", **where)
        early = challenge.issued_at > now + self.policy.clock_skew
        if challenge.expires_at <= now or early or self._code(challenge) is None:
            raise Refused("code_expired", **where)

    def _pending(self, challenge: Challenge, now: int) -> Pending:
        return Pending(
            address=challenge.address,
            code_length=self.policy.code_length,
            code_seconds=self.policy.code_seconds,
            expires_in=max(0, challenge.expires_at - now),
            resend_in=self._resend_in(challenge, now),
            sure=self.policy.signup == "open" and not self.policy.signup_domains,
            next_path=challenge.next_path,
            exhausted=challenge.code_tries >= self.policy.tries_per_code
            or challenge.total_tries >= self.policy.tries_per_challenge,
        )

    def _mail_until(self, challenge: Challenge) -> int:
        """No mail after this: the code in it would be dead, or nearly so, when it is read."""
        return challenge.expires_at - min(self.policy.mail_margin, self.policy.code_seconds // 4)

    def _resend_in(self, challenge: Challenge, now: int) -> int | None:
        """Seconds until the next resend may be asked for; None when there is none any more."""
        if challenge.resends >= len(self.policy.resend_waits) or now >= self._mail_until(challenge):
            return None
        return max(0, challenge.sent_at + self.policy.resend_waits[challenge.resends] - now)

    def _code(self, challenge: Challenge) -> str | None:
        c = challenge
        digits = self.policy.code_length
        return self.keys.code(c.key_id, c.purpose, c.nonce, c.address, c.generation, digits)

    def _may_sign_in(self, t: Any, address: str) -> bool:
        user = users.by_address(t, address)
        return user.disabled_at is None if user else self._may_sign_up(address)

    def _may_sign_up(self, address: str) -> bool:
        domain = address.rpartition("@")[2]
        domains = self.policy.signup_domains
        return self.policy.signup == "open" and (not domains or domain in domains)

    def _record(
        self, t: Any, kind: str, subject: str, source: Source, actor: str = "", detail: str = ""
    ) -> None:
        now = self.clock()
        id = self.keys.new_sorted_id(now)
        events.record(t, id, int(now), kind, subject, source, actor, detail)


def tidy_code(typed: str, length: int) -> str:
    """The digits of what was typed. Raises Refused for what can't be a code.

    Spaces, line ends, dashes and digits of other scripts are how people and their keyboards write
    numbers; anything else is not repaired.
    """
    if not typed.strip():
        raise Refused("code_missing", length=length)
    if len(typed) > MAX_TYPED_CODE:
        raise Refused("code_malformed", length=length)
    text = unicodedata.normalize("NFKC", typed)
    kept = (c for c in text if not c.isspace() and unicodedata.category(c) not in ("Pd", "Cf"))
    code = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in kept)
    # fullmatch: `$` would let a trailing line end through.
    if not re.fullmatch(r"[0-9]+", code):
        raise Refused("code_malformed", length=length)
    if len(code) != length:
        raise Refused("code_length", length=length, typed=len(code))
    return code


def safe_next(path: str | None) -> str:
    """Where to go after signing in: a path on this site, or HOME.

    The same check for Location and HX-Redirect, which htmx assigns to location.href: there
    `javascript:` would run and `//evil` or `/\\evil` would leave.
    """
    path = path or ""
    if len(path) > 2000 or not re.fullmatch(r"/(?![/\\])[A-Za-z0-9\-._~/?=&%+]*", path):
        return HOME
    if re.match(r"/(%2f|%5c)", path, re.I) or re.search(r"%(0[0-9a-f]|1[0-9a-f]|7f)", path, re.I):
        return HOME
    parts = urlsplit(path)
    if parts.scheme or parts.netloc or parts.path in NO_PLACES:
        return HOME
    return path


def known_zone(name: str) -> str | None:
    """An IANA time zone name, or None."""
    return name if name in _zones() else None


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
