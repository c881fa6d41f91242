"""THE RULES of entering a code: a guess is counted, committed, and only then compared. No HTTP, HTML or SQL."""

import logging
from typing import Any

from auth import challenges, events
from auth.addresses import masked
from auth.arriving import Arrival, Arriving
from auth.challenges import APP_SIGN_IN, SIGN_IN, Challenge
from auth.events import Source
from auth.keys import LONG_CODE_CHARS, digest, same
from auth.known import Browser
from auth.limits import Reached
from auth.policy import Refused
from auth.typed import tidy_code, tidy_long_code

log = logging.getLogger("auth.signin")

SIGN_INS = (SIGN_IN, APP_SIGN_IN)


class Codes(Arriving):
    def verify_code(self, typed: str, timezone: str, browser: Browser) -> Arrival:
        """Spend one guess; when it is right, the challenge becomes a session."""
        challenge, reached = self._guessed(typed, browser.signin, SIGN_INS, browser.source)
        arrival = self._admit(challenge, None, timezone, browser, int(self.clock()))
        # The right code of an address that may not sign in; nobody was mailed it.
        if arrival is None:
            raise self._wrong(challenge, reached, browser.source)
        return arrival

    def _guessed(
        self, typed: str, token: str | None, purposes: tuple[str, ...], source: Source
    ) -> tuple[Challenge, list[Reached]]:
        """The challenge of `token` whose code was typed, and what the guess would have reached.

        What a challenge is for is part of its code; one for something else counts the guess, and is wrong.
        """
        now = int(self.clock())
        long = tidy_long_code(typed)
        code = long or self._tidy(typed, token)  # what can't be a code costs no try
        if token is None:
            raise Refused("no_signin")
        # Not durable by itself: nothing is answered before the next commit, which is, and takes the count
        # along. Kill -9 can't undo it.
        with self.db.tx(durable=False) as t:
            challenge = self._spend(t, token, now, link_only=bool(long))
            reached = self.limits.guess(t, challenge, source, now) if challenge else None
            if challenge and reached is None:
                challenges.switch_to_link(t, challenge.id)
        if challenge is None:
            raise self._why_not(token, now, len(code))
        if reached is None:
            raise Refused("code_off", length=self.policy.code_length)
        # Committed, so counted. Only now is it compared.
        expected = self.validity.long_code(challenge) if long else self.validity.code(challenge)
        if expected is None:  # its key is gone
            raise Refused("code_expired", address=challenge.address, next_path=challenge.next_path)
        # Of a code that no mail could leave for, nobody knows: guesses cost their mail, too.
        known = challenge.purpose in purposes and (challenge.mailed or long)
        if not same(code, expected) or not known:
            raise self._wrong(challenge, reached, source)
        return challenge, reached

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

    def _wrong(self, challenge: Challenge, reached: list[Reached], source: Source) -> Refused:
        left = min(
            self.policy.tries_per_code - challenge.code_tries,
            self.policy.tries_per_challenge - challenge.total_tries,
        )
        kind = events.LOGIN_FAIL if left else events.LOGIN_FAIL_MAX
        lane = "long code" if challenge.link_only else "known browser" if challenge.device else ""
        self._record(self.db, kind, challenge.address, source, detail=lane)
        self.limits.say(self.db, reached, source)
        log.info("wrong code for %s, %d tries left", masked(challenge.address), left)
        return Refused("code_wrong" if left else "code_wrong_last", tries_left=left)

    def _why_not(self, token: str, now: int, typed: int) -> Refused:
        """Why no guess could be spent. Only the browser that holds the challenge gets here."""
        try:
            challenge = self._of_browser(token)
            self.validity.refuse_dead(challenge, now)
        except Refused as refused:
            return refused
        if challenge.link_only and typed != LONG_CODE_CHARS:
            return Refused("code_off", length=self.policy.code_length)
        if typed == LONG_CODE_CHARS and not challenge.link_only:
            return Refused("code_length", length=self.policy.code_length, typed=typed)
        wait = self.validity.resend_in(challenge, now)
        ends = max(1, challenge.expires_at - now)
        return Refused("code_exhausted", retry_after=ends if wait is None else max(1, wait))
