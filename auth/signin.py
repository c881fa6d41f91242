"""THE RULES of signing in. All numbers are in Policy, every "no" is Refused. No HTTP, HTML or SQL.

A challenge is one attempt from one browser. Its code is derived when it is mailed and when it is
compared, and is stored nowhere. A guess is counted before it is compared; a code opens one session,
once, in the browser that asked.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from auth import budgets, challenges, devices, events, sessions, users
from auth.addresses import canonical, masked
from auth.challenges import Challenge
from auth.events import Source
from auth.keys import LONG_CODE_CHARS, Keys, digest, linked_id, same
from auth.known import Browser, KnownBrowsers
from auth.limits import Limits, Mail, Person, Reached
from auth.policy import Policy, Refused
from auth.typed import known_zone, safe_next, tidy_code, tidy_link, tidy_long_code
from auth.users import User

log = logging.getLogger("auth.signin")

SIGN_IN = "sign-in"  # a challenge's purpose; part of what its code is derived from
# Kinds of letters.
CODE_MAIL = "code"
NO_MAIL = "none"  # nothing is due; the same row and the same work as for a mail that is
KEPT_SECONDS = 86400  # how long a challenge is kept after its end, so that a late one is told


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
    link_only: bool  # the mail has a link and no code; what may be typed is the link's long code
    owed: bool  # no mail has left for it yet, as this browser knows: it asked a moment ago


@dataclass(frozen=True)
class Arrival:
    """A sign-in that worked: the new session's token, and where the person wanted to go."""

    token: str
    user: User
    next_path: str
    device: str  # the browser's new device cookie; "" when it keeps the one it has


@dataclass(frozen=True)
class Elsewhere:
    """A good link, opened in a browser that did not ask: what to type in the one that did."""

    address: str
    code: str | None  # None: there is nothing more to type there
    code_seconds: int


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

    @cached_property
    def limits(self) -> Limits:
        return Limits(self.keys, self.policy, self._limit_reached)

    @cached_property
    def known(self) -> KnownBrowsers:
        return KnownBrowsers(self.db, self.keys, self.policy, self.limits, self.send, self._record)

    # ---- asking
    def create_code(self, typed: str, next_path: str, browser: Browser) -> tuple[str, Pending]:
        """Start a sign-in: the browser's new token, and what to show.

        What is done, and how long it takes, is the same for every address because it is the same
        work: each start is counted, has a challenge, and has a row in the outbox. Whether a mail
        leaves shows nowhere but in the mailbox.
        """
        if not typed.strip():
            raise Refused("email_missing")
        address = canonical(typed)
        if address is None:
            raise Refused("email_invalid")
        now, token = int(self.clock()), self.keys.new_token()
        known = self.known.device_of(browser, address, now)
        with self.db.tx() as t:
            old = challenges.hold(t, digest(browser.signin)) if browser.signin else None
            who = self._person(t, address, known)
            mail = self.limits.start(t, who, browser.source, now)
            told = self.policy.reveal_unregistered and not who.mailable
            if not told:
                challenge = self._begin(
                    t, old, address, known, token, safe_next(next_path), mail, now
                )
                self._mail_it(t, challenge, mail)
                self._record(t, events.CODE_REQUESTED, address, browser.source)
        if told:  # after the commit: asking has to be counted here, too
            raise Refused("not_registered", address=address)
        return token, self._pending(challenge, now)

    def _begin(
        self,
        t: Any,
        old: Challenge | None,
        address: str,
        device: str,
        token: str,
        next_path: str,
        mail: Mail,
        now: int,
    ) -> Challenge:
        """A new challenge; or the browser's old one, when its mail is the newest that there will be."""
        if old and not mail.room and old.address == address and self._alive(old, now):
            challenges.renew(t, old.id, digest(token), next_path)
            return replace(old, next_path=next_path)
        # A code whose tries are gone, and no room yet for the next mail: that one has to be asked for.
        soon = old and old.sent_at < now < old.sent_at + self.policy.resend_waits[0]
        owed = soon and not mail.room and old and old.address == address
        if old:
            challenges.leave(t, old.id)
        link_ends = max(now + self.policy.link_seconds, mail.link_until)
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
            next_path=next_path,
            issued_at=now,
            sent_at=old.sent_at if old and owed else now,
            expires_at=link_ends if mail.link_only else now + self.policy.code_seconds,
            used_at=None,
            device=device,
            link_only=int(mail.link_only),
            mails=int(mail.sent),
            mailed=int(mail.sent),
            linked=int(self._linked(mail)),
            link_expires_at=link_ends,
        )
        challenges.create(t, challenge)
        return challenge

    def resend_code(self, browser: Browser) -> Pending:
        """Mail the code once more. The same code, unless its tries are used up: then the next one.

        The count over the whole challenge goes on (SP 800-63B-4 §3.1.3: a new secret does not reset
        the count of failures).
        """
        now, seen = int(self.clock()), self._of_browser(browser.signin)
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
            who = self._person(t, seen.address, seen.device)
            mail = self.limits.resend(t, who, browser.source, now)
            if mail.link_only and not seen.link_only:
                challenges.switch_to_link(t, seen.id)
            if mail.room:
                linked, ends = bool(seen.linked) or self._linked(mail), seen.link_expires_at
                challenges.mailed(t, seen.id, mail.sent, linked, max(ends, mail.link_until))
            self._mail_it(t, seen, mail)
            self._record(t, events.CODE_REQUESTED, seen.address, browser.source, detail="again")
        return self.pending(browser.signin) or self._pending(seen, now)

    def pending(self, token: str | None) -> Pending | None:
        """The browser's live sign-in, if it has one."""
        now, challenge = int(self.clock()), self._of_browser(token, must=False)
        live = challenge and challenge.used_at is None and challenge.expires_at > now
        return self._pending(challenge, now) if challenge and live else None

    def mail(self, ref: str) -> tuple[str, str, str, int] | None:
        """(address, code, link, seconds that the link works) for the mail of one challenge.

        Made at the moment of sending; code or link is "" when it is not in this mail. None when nothing
        is to be said: it was used or has run out, or the address may not sign in here. It goes to the
        stored address, which is the canonical one.
        """
        challenge, now = challenges.by_id(self.db, ref), int(self.clock())
        if not challenge or challenge.used_at is not None:
            return None
        if not self._may_sign_in(self.db, challenge.address):
            return None
        coded = not challenge.link_only and challenge.expires_at > now
        linked = challenge.linked and challenge.link_expires_at > now
        code = self._code(challenge) if coded else ""
        link = self._link(challenge) if linked else ""
        if code is None or link is None or not (code or link):  # None: its key is gone
            return None
        return challenge.address, code, link, challenge.link_expires_at - now

    def mail_waiting(self, t: Any, address: str) -> None:
        """Somebody may sign in from now on: mail them what they asked for before, if it is alive.

        Their mails were counted as everybody's are, and may be spent: without this one they would
        wait for a day, for mails that never left.
        """
        challenge, now = challenges.newest(t, address), int(self.clock())
        if challenge and challenge.link_expires_at > now + self.policy.mail_margin:
            until = challenge.link_expires_at - self.policy.mail_margin
            self.send(t, CODE_MAIL, challenge.id, until)

    # ---- entering
    def verify_code(self, typed: str, timezone: str, browser: Browser) -> Arrival:
        """Spend one guess; when it is right, the challenge becomes a session."""
        token, now = browser.signin, int(self.clock())
        long = tidy_long_code(typed)
        code = long or self._tidy(typed, token)  # what can't be a code costs no try
        if token is None:
            raise Refused("no_signin")
        # Not durable by itself: nothing is answered before the next commit, which is, and takes the count
        # along. Kill -9 can't undo it.
        with self.db.tx(durable=False) as t:
            challenge = self._spend(t, token, now, link_only=bool(long))
            reached = self.limits.guess(t, challenge, browser.source, now) if challenge else None
            if challenge and reached is None:
                challenges.switch_to_link(t, challenge.id)
        if challenge is None:
            raise self._why_not(token, now, len(code))
        if reached is None:
            raise Refused("code_off", length=self.policy.code_length)
        # Committed, so counted. Only now is it compared.
        expected = self._long_code(challenge) if long else self._code(challenge)
        if expected is None:  # its key is gone
            raise Refused("code_expired", address=challenge.address, next_path=challenge.next_path)
        # Of a code that no mail could leave for, nobody knows: guesses cost their mail, too.
        if not same(code, expected) or not (challenge.mailed or long):
            raise self._wrong(challenge, reached, browser.source)
        arrival = self._admit(challenge, None, timezone, browser, now)
        # The right code of an address that may not sign in; nobody was mailed it.
        if arrival is None:
            raise self._wrong(challenge, reached, browser.source)
        return arrival

    def _tidy(self, typed: str, token: str | None) -> str:
        try:
            return tidy_code(typed, self.policy.code_length)
        except Refused as refused:
            challenge = self._of_browser(token, must=False)
            if challenge and challenge.link_only:
                raise Refused("long_code_malformed", length=LONG_CODE_CHARS) from refused
            raise

    def _spend(self, t: Any, token: str, now: int, link_only: bool) -> Challenge | None:
        p = self.policy
        return challenges.spend(
            t,
            digest(token),
            now,
            p.tries_per_code,
            p.tries_per_challenge,
            p.clock_skew,
            link_only,
        )

    def open_link(self, pasted: str, timezone: str, browser: Browser) -> Arrival | Elsewhere:
        """Use a link: a session in a browser that asked for this address; elsewhere only what to type.

        Never a session for the browser that asked when another one opens the link: whoever is
        talked into a click would sign a stranger in (SP 800-63B-4 §3.1.3.1). A browser that asked
        for the same address may use any of its links: then strangers who spend the address's mails
        leave its owner the link in the last one.
        """
        now = int(self.clock())
        # Before the link's: of two clicks at once the slower one then finds the link used.
        own = self._of_browser(browser.signin, must=False)
        challenge = self._by_link(tidy_link(pasted))
        if challenge is None or not self._may_sign_in(self.db, challenge.address):
            with self.db.tx() as t:
                self.limits.wrong_link(t, browser.source, now)
            raise Refused("link_wrong")
        # Who holds the secret reads the mailbox, and may be told the truth.
        if challenge.used_at is not None:
            raise Refused("link_used")
        if challenge.link_expires_at <= now or self._too_early(challenge, now):
            raise Refused("link_expired", address=challenge.address)
        if own and own.address == challenge.address and self._linkable(own, now):
            arrival = self._admit(challenge, own, timezone, browser, now)
            if arrival is None:
                raise Refused("link_wrong")
            return arrival
        return self._elsewhere(challenge, now)

    def link_for(self, token: str | None) -> str | None:
        """The masked address for which a link signs in here; None in a browser that did not ask."""
        own = self._of_browser(token, must=False)
        return masked(own.address) if own and self._linkable(own, int(self.clock())) else None

    def _by_link(self, link: str) -> Challenge | None:
        """The challenge of a link, if it is really one of its own."""
        id = linked_id(link)
        challenge = challenges.by_id(self.db, id) if id else None
        expected = self._link(challenge) if challenge else None
        return challenge if expected and same(link, expected) else None

    def _elsewhere(self, challenge: Challenge, now: int) -> Elsewhere:
        c = challenge
        if not c.link_only and self.limits.link_only(self.db, c.address, c.device, now):
            # Its six digits would be compared with nothing.
            challenges.switch_to_link(self.db, c.id)
            c = replace(c, link_only=1, code_tries=0)
        typed_here = c.browser != c.id and self._alive(c, now)  # else no browser waits for it
        code = self._long_code(c) if c.link_only else self._code(c)
        return Elsewhere(masked(c.address), code if typed_here else None, c.expires_at - now)

    def _admit(
        self,
        challenge: Challenge,
        by_link: Challenge | None,
        timezone: str,
        browser: Browser,
        now: int,
    ) -> Arrival | None:
        """Consume the challenge and start the session: both, or neither, and once.

        `by_link`: the browser's own challenge, when a link was used; it ends, too, and says where to go.
        """
        token, zone, source = self.keys.new_token(), known_zone(timezone), browser.source
        own, device = by_link or challenge, self.known.check(browser, now)
        with self.db.tx() as t:
            user = users.arrive(t, challenge.address, zone, now)
            if user is None and self._signs_up(t, challenge.address, now, source):
                user = users.arrive(t, challenge.address, zone, now)
            if user is None:
                return None
            for id in sorted({challenge.id, own.id}):
                if not challenges.consume(t, id, now):
                    used = "link_used" if by_link else "code_used"
                    raise Refused(used, address=own.address, next_path=own.next_path)
            self.limits.forgive(t, challenge, source, not by_link, now)
            if browser.session:  # ASVS 7.2.4: the old one ends when a new one begins
                sessions.end(t, digest(browser.session))
            ends = now + self.policy.session_max_seconds
            sessions.start(t, self.keys.new_id(), digest(token), user.id, now, ends)
            cookie = self.known.remember(t, user, device, browser, now)
            detail = "link" if by_link else ""
            self._record(t, events.LOGIN_SUCCESS, user.address, source, user.id, detail)
        log.info("%s signed in", masked(challenge.address))
        return Arrival(token, user, own.next_path, cookie)

    def _signs_up(self, t: Any, address: str, now: int, source: Source) -> bool:
        """Add whoever may sign up; True when they may, also when another request was faster."""
        if not self._may_sign_up(address):
            return False
        if users.add(t, self.keys.new_id(), address, "", "user", now):
            self._record(t, events.USER_CREATED, address, source, detail="sign-up")
        return True

    def _wrong(self, challenge: Challenge, reached: list[Reached], source: Source) -> Refused:
        left = min(
            self.policy.tries_per_code - challenge.code_tries,
            self.policy.tries_per_challenge - challenge.total_tries,
        )
        kind = events.LOGIN_FAIL if left else events.LOGIN_FAIL_MAX
        self._record(self.db, kind, challenge.address, source)
        self.limits.say(self.db, reached, source)
        log.info("wrong code for %s, %d tries left", masked(challenge.address), left)
        return Refused("code_wrong" if left else "code_wrong_last", tries_left=left)

    def _why_not(self, token: str, now: int, typed: int) -> Refused:
        """Why no guess could be spent. Only the browser that holds the challenge gets here."""
        try:
            challenge = self._of_browser(token)
            self._refuse_dead(challenge, now)
        except Refused as refused:
            return refused
        if challenge.link_only and typed != LONG_CODE_CHARS:
            return Refused("code_off", length=self.policy.code_length)
        if typed == LONG_CODE_CHARS and not challenge.link_only:
            return Refused("code_length", length=self.policy.code_length, typed=typed)
        wait = self._resend_in(challenge, now)
        ends = max(1, challenge.expires_at - now)
        return Refused("code_exhausted", retry_after=ends if wait is None else max(1, wait))

    # ---- leaving
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
            self.limits.forget(t, challenges.end_all(t, user.address), int(self.clock()))
            sessions.end_all(t, user.id)
            devices.end_all(t, user.id)
            self._record(t, events.LOGOUT, user.address, source, actor=user.id, detail="everywhere")

    # ---- tidying up
    def purge(self, step: int = 1000) -> dict[str, int]:
        """Delete what has ended: counters, challenges, sessions, devices. How many of each.

        `step`: rows looked at in one statement, so that nobody waits for it.
        """
        now = int(self.clock())
        return {
            "counters": budgets.purge(self.db, now, step),
            "challenges": challenges.purge(self.db, now - KEPT_SECONDS, step),
            "sessions": sessions.purge(self.db, now, step),
            "devices": devices.purge(self.db, now, step),
        }

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
        gone = self._code(challenge) is None
        if challenge.expires_at <= now or self._too_early(challenge, now) or gone:
            raise Refused("code_expired", **where)

    def _too_early(self, challenge: Challenge, now: int) -> bool:
        return challenge.issued_at > now + self.policy.clock_skew

    def _alive(self, challenge: Challenge, now: int) -> bool:
        """May something still be typed for it?"""
        live = challenge.used_at is None and challenge.expires_at > now
        return live and not self._exhausted(challenge) and not self._too_early(challenge, now)

    def _linkable(self, challenge: Challenge, now: int) -> bool:
        """May its browser still use a link?"""
        live = challenge.used_at is None and challenge.link_expires_at > now
        return live and not self._too_early(challenge, now)

    def _exhausted(self, challenge: Challenge) -> bool:
        return (
            challenge.code_tries >= self.policy.tries_per_code
            or challenge.total_tries >= self.policy.tries_per_challenge
        )

    def _pending(self, challenge: Challenge, now: int) -> Pending:
        return Pending(
            address=challenge.address,
            code_length=LONG_CODE_CHARS if challenge.link_only else self.policy.code_length,
            code_seconds=challenge.expires_at - challenge.issued_at,
            expires_in=max(0, challenge.expires_at - now),
            resend_in=self._resend_in(challenge, now),
            sure=self.policy.signup == "open" and not self.policy.signup_domains,
            next_path=challenge.next_path,
            exhausted=self._exhausted(challenge),
            link_only=bool(challenge.link_only),
            owed=challenge.sent_at < challenge.issued_at,
        )

    def _mail_it(self, t: Any, challenge: Challenge, mail: Mail) -> None:
        """A row in the outbox in any case: the same work whether a mail leaves or not."""
        until = self._mail_until(challenge)
        if mail.link_until:  # its link is the only one for a while: better late than never
            until = max(until, mail.link_until - self.policy.mail_margin)
        self.send(t, CODE_MAIL if mail.sent else NO_MAIL, challenge.id, until)

    def _linked(self, mail: Mail) -> bool:
        """Where links are off there is one in the mail that has to do for a while."""
        return self.policy.magic_links or mail.link_only or bool(mail.link_until)

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

    def _long_code(self, challenge: Challenge) -> str | None:
        c = challenge
        return self.keys.long_code(c.key_id, c.purpose, c.nonce, c.address)

    def _link(self, challenge: Challenge) -> str | None:
        c = challenge
        return self.keys.link(c.key_id, c.purpose, c.id, c.nonce, c.address)

    def _person(self, t: Any, address: str, device: str) -> Person:
        user = users.by_address(t, address)
        return Person(address, device, user is not None, self._welcome(user, address))

    def _may_sign_in(self, t: Any, address: str) -> bool:
        return self._welcome(users.by_address(t, address), address)

    def _welcome(self, user: User | None, address: str) -> bool:
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

    def _limit_reached(self, t: Any, reached: Reached, source: Source) -> None:
        self._record(t, events.LIMIT_REACHED, reached.subject, source, detail=reached.what)
