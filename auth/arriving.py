"""THE RULES about the moment in which a challenge becomes a session. Codes and links both end here."""

import logging
from dataclasses import dataclass
from typing import Any

from auth import challenges, events, reviewers, sessions, tenants, users
from auth.addresses import masked
from auth.challenges import Challenge
from auth.desk import Desk
from auth.devices import Device
from auth.events import Source
from auth.keys import digest
from auth.known import Browser
from auth.policy import Refused
from auth.reviewers import Reviewer
from auth.typed import known_zone
from auth.users import User

log = logging.getLogger("auth.signin")


@dataclass(frozen=True)
class Arrival:
    """A sign-in that worked: the new session's token, and where the person wanted to go.

    A browser's token is its session cookie, a program's its first refresh token.
    """

    session_id: str
    token: str
    user: User
    next_path: str
    # The browser's new device cookie; "" when it keeps the one it has, and for a program.
    device: str


class Arriving(Desk):
    def _admit(
        self,
        challenge: Challenge,
        by_link: Challenge | None,
        timezone: str,
        browser: Browser,
        now: int,
        reviewer: Reviewer | None = None,
    ) -> Arrival | None:
        """Consume the challenge and start the session: both, or neither, and once.

        `by_link`: the browser's own challenge, when a link was used; it ends, too, and says where to go.
        `reviewer`: a code that stays the same was used; it opens only what has no rights, and not for long.
        """
        zone, source = known_zone(timezone), browser.source
        own, device = by_link or challenge, self.known.check(browser, now)
        with self.db.tx() as t:
            user = users.arrive(t, challenge.address, zone, now)
            if user is None and self._signs_up(t, challenge.address, now, source):
                user = users.arrive(t, challenge.address, zone, now)
            if user is None:
                return None
            # The person's row is held: whoever takes the code away or gives them rights waits, or was faster.
            if reviewer and not self._may_review(t, user, reviewer, now):
                raise Refused("code_expired", address=own.address, next_path=own.next_path)
            for id in sorted({challenge.id, own.id}):
                if not challenges.consume(t, id, now):
                    used = "link_used" if by_link else "code_used"
                    raise Refused(used, address=own.address, next_path=own.next_path)
            guessed = not by_link and not reviewer  # no other was counted
            self.limits.forgive(t, challenge, source, guessed, now)
            if browser.app:
                session, token, cookie = self._begin_app(t, user, browser, now)
            else:
                session, token, cookie = self._begin_here(t, user, device, browser, now)
            sessions.end_idlest(t, user.id, session, self.policy.sessions_per_person)
            if reviewer:
                sessions.end_by(t, session, reviewer.expires_at)
            way = "link" if by_link else "review" if reviewer else ""
            detail = f"{'app ' if browser.app else ''}{way}"
            took = max(0, now - own.issued_at)
            self._record(
                t, events.LOGIN_SUCCESS, user.address, source, user.id, detail.strip(), seconds=took
            )
        log.info("%s signed in", masked(challenge.address))
        return Arrival(session, token, user, own.next_path, cookie)

    def _begin_here(
        self, t: Any, user: User, device: Device | None, browser: Browser, now: int
    ) -> tuple[str, str, str]:
        """A browser's session: its id, and both cookies."""
        id, token = self.keys.new_id(), self.keys.new_token()
        data, tenant = "{}", self._only_tenant(t, user)
        if browser.session:  # ASVS 7.2.4: the old one ends when a new one begins
            ended = sessions.end(t, digest(browser.session))
            idle = self.policy.session_idle_seconds
            # Who confirms that it is them keeps what was there, unless it had ended by itself.
            if ended and ended.user_id == user.id and ended.alive(now, idle):
                data, tenant = ended.data, ended.tenant
        ends, kind, network = now + self.policy.session_max_seconds, *_place(browser)
        sessions.start(t, id, digest(token), user.id, kind, network, data, tenant, now, ends)
        return id, token, self.known.remember(t, user, device, browser, now)

    def _begin_app(self, t: Any, user: User, browser: Browser, now: int) -> tuple[str, str, str]:
        """A program's session: its id, and its first refresh token."""
        id, key = self.keys.new_id(), self.keys.current
        tenant = self._only_tenant(t, user)
        ends = now + self.policy.refresh_max_seconds
        kind, network = _place(browser)
        sessions.start_app(t, id, user.id, key, tenant, kind, network, now, ends)
        self.known.tell_of(t, user, browser, now)
        return id, self.keys.refresh_token(key, id, 0) or "", ""

    def _only_tenant(self, t: Any, user: User) -> str:
        """Where somebody works who is in one organisation; who is in several chooses."""
        joined = tenants.of_user(t, user.id)
        return joined[0].tenant if len(joined) == 1 else ""

    def _may_review(self, t: Any, user: User, reviewer: Reviewer, now: int) -> bool:
        if reviewers.of_address(t, user.address, now) != reviewer:
            return False
        return user.role == "user" and not tenants.of_user(t, user.id)

    def _signs_up(self, t: Any, address: str, now: int, source: Source) -> bool:
        """Add whoever may sign up; True when they may, also when another request was faster."""
        if not self._may_sign_up(t, address):
            return False
        if users.add(t, self.keys.new_id(), address, "", "user", now):
            self._record(t, events.USER_CREATED, address, source, detail="sign-up")
        return True


def _place(browser: Browser) -> tuple[str, str]:
    return browser.kind, browser.source.network
