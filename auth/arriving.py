"""THE RULES about the moment in which a challenge becomes a session. Codes and links both end here."""

import logging
from dataclasses import dataclass
from typing import Any

from auth import challenges, events, sessions, users
from auth.addresses import masked
from auth.challenges import Challenge
from auth.desk import Desk
from auth.events import Source
from auth.keys import digest
from auth.known import Browser
from auth.policy import Refused
from auth.typed import known_zone
from auth.users import User

log = logging.getLogger("auth.signin")


@dataclass(frozen=True)
class Arrival:
    """A sign-in that worked: the new session's token, and where the person wanted to go."""

    token: str
    user: User
    next_path: str
    device: str  # the browser's new device cookie; "" when it keeps the one it has


class Arriving(Desk):
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
