"""THE RULES of programs: a code or link on the device that asked, refreshing, tenants, the end. No HTTP, HTML or SQL.

A program holds a device_secret where a browser holds a cookie; all else about its sign-in is asking.py,
codes.py and links.py. Then it has a refresh token that changes with each use. One that was used before
was copied: the session ends, whoever shows it (RFC 9700 §4.14.2).
"""

from dataclasses import dataclass, replace
from typing import Any

from auth import events, reviewers, sessions
from auth.arriving import Arrival
from auth.challenges import Challenge
from auth.codes import Codes
from auth.events import Source
from auth.keys import same
from auth.known import Browser
from auth.links import Elsewhere, Links
from auth.networks import is_within
from auth.policy import Refused
from auth.reviewers import REVIEW
from auth.sessions import AppSession
from auth.tokens import Claims
from auth.typed import tidy_long_code


@dataclass(frozen=True)
class Renewed:
    session: AppSession
    refresh_token: str


class Apps(Codes, Links):
    # ---- signing in
    def verify_in_app(self, challenge: str, typed: str, browser: Browser) -> Arrival:
        """As verify_code, where both halves are the device's. A wrong half costs the right one no try."""
        own = self._of_browser(browser.signin)
        if not same(own.id, challenge):
            raise Refused("no_signin")
        return self._reviewed(own, typed, browser) or self.verify_code(typed, "", browser)

    def open_link_in_app(self, pasted: str, browser: Browser) -> Arrival:
        """As open_link, and never for a device that did not ask: there is no page to show a code on."""
        own, now = self._of_browser(browser.signin), int(self.clock())
        if not self.validity.linkable(own, now):
            used = own.used_at is not None
            raise Refused("link_used" if used else "link_expired", address=own.address)
        found = self.open_link(pasted, "", browser)
        if isinstance(found, Elsewhere):  # it was asked for another address
            raise Refused("no_signin")
        return found

    def _reviewed(self, own: Challenge, typed: str, browser: Browser) -> Arrival | None:
        """The sign-in of who tests the app for its store; None when it is not their code.

        60 bits need no count of guesses; and none is counted, so none is given back.
        """
        code, now = tidy_long_code(typed), int(self.clock())
        reviewer = reviewers.of_address(self.db, own.address, now) if code else None
        if not code or not reviewer or not is_within(browser.source.client, reviewer.network):
            return None
        key, nonce = reviewer.key_id, reviewer.nonce
        expected = self.keys.long_code(key, REVIEW, nonce, own.address)
        if not expected or not same(code, expected) or not self.validity.alive(own, now):
            return None
        return self._admit(own, None, "", browser, now, reviewer)

    # ---- afterwards
    def app_session_of(self, arrival: Arrival) -> AppSession:
        """The session that has just begun. Raises Refused `token_invalid` when it is over already."""
        now, idle = int(self.clock()), self.policy.refresh_idle_seconds
        found = sessions.app(self.db, arrival.session_id, now, idle)
        if found is None:
            raise Refused("token_invalid")
        return found

    def app_session(self, claims: Claims) -> AppSession | None:
        """The session of an access token, as the database says now; None when it is over in any way."""
        now, idle = int(self.clock()), self.policy.refresh_idle_seconds
        found = sessions.app(self.db, claims.session_id, now, idle)
        if found is None or found.user.id != claims.user_id:
            return None
        if not self._in(self.db, found, claims.tenant):
            return None
        # Of two tokens for two tenants each counts in its own.
        return replace(found, tenant=claims.tenant) if found.tenant != claims.tenant else found

    def refresh(self, token: str, browser: Browser) -> Renewed:
        """The next refresh token for this one: once, or again while its answer may be lost.

        Raises Refused `token_invalid`; `token_reused` when it was used before, and then its session is over.
        """
        named = self.keys.refreshes(token)
        if named is None:
            raise Refused("token_invalid")
        now, (id, generation) = int(self.clock()), named
        idle, key = self.policy.refresh_idle_seconds, self.keys.current
        with self.db.tx() as t:
            rotated = sessions.rotate(t, id, generation, key, now, idle)
            session = sessions.app(t, id, now, idle)
            if session is None:
                raise Refused("token_invalid")
            if generation > session.generation:  # ours, of a time that the database has lost
                raise Refused("token_invalid")
            good = rotated or self._again(session, generation, now)
            if not good and sessions.end_app(t, id):
                user, source = session.user, browser.source
                self._record(t, events.REFRESH_REUSED, user.address, source, user.id)
                self.known.tell_of_copy(t, user, browser, now)
            if good and not self._in(t, session, session.tenant):
                sessions.choose(t, id, "")
                session = replace(session, tenant="")
        if not good:  # after the commit: the end has to stay
            raise Refused("token_reused")
        made = self.keys.refresh_token(session.key_id, id, session.generation)
        if made is None:  # rotated with a key that this process does not have
            raise Refused("token_invalid")
        return Renewed(session, made)

    def _again(self, session: AppSession, generation: int, now: int) -> bool:
        """Is it the one just used, and is its successor still unused? Then its answer was lost on the way."""
        latest = session.rotated_at + self.policy.refresh_retry_seconds
        return generation == session.generation - 1 and now <= latest

    def choose_tenant(self, session: AppSession, tenant: str) -> AppSession:
        """Work in this tenant from now on. Raises Refused `tenant_unknown`, also for one of others."""
        now, idle = int(self.clock()), self.policy.refresh_idle_seconds
        if not tenant:
            raise Refused("tenant_unknown")
        with self.db.tx() as t:
            found = sessions.app(t, session.id, now, idle)
            if found is None:
                raise Refused("token_invalid")
            if not self._in(t, found, tenant):
                raise Refused("tenant_unknown")
            sessions.choose(t, session.id, tenant)
        return replace(found, tenant=tenant)

    def end_app(self, session: AppSession, source: Source) -> None:
        with self.db.tx() as t:
            if sessions.end_app(t, session.id):
                user = session.user
                self._record(t, events.LOGOUT, user.address, source, actor=user.id, detail="app")

    def _in(self, t: Any, session: AppSession, tenant: str) -> bool:
        """As _may_work_in, and mostly without asking: the session was read with its memberships."""
        if session.role_in(tenant) is not None:
            return True
        return self._may_work_in(t, session.user, tenant)
