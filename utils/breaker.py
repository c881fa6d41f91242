"""Holds all mail back while its provider is in trouble, and lets one try now and then. Knows no mail."""

import random
from collections.abc import Callable

# Seconds between tries. Never more: people wait, and a mail may leave at most 45 s after recovery.
WAITS = (5, 10, 20)
JITTER = 0.2  # upwards only, so that there are never two tries within five seconds


class Breaker:
    """Closed: everything may pass. Open: one try at a time, when its moment has come.

    Not locked: whoever shares it, locks. `clock` gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._step, self._next_try = 0, 0.0
        self.why = ""  # the provider's words; "" while it is closed

    @property
    def open(self) -> bool:
        return bool(self.why)

    def allows(self) -> bool:
        """May one pass now?"""
        return not self.open or self._clock() >= self._next_try

    def passing(self) -> bool:
        """One passes. True when it is a try: the next has to wait."""
        if self.open:
            self._wait(0)
        return self.open

    def spared(self) -> None:
        """The try said nothing of the provider: another may be made at once."""
        if self.open:
            self._step, self._next_try = self._step - 1, self._clock()

    def fault(self, why: str, seconds: int = 0) -> bool:
        """The provider is in trouble, for `seconds` at least. True when that is news."""
        news, self.why = not self.open, why
        if news:
            self._step = 0
            self._wait(seconds)
        else:
            self._next_try = max(self._next_try, self._clock() + seconds)
        return news

    def good(self) -> bool:
        """Something got through. True when that is news."""
        news, self.why = self.open, ""
        return news

    def _wait(self, seconds: int) -> None:
        wait = WAITS[min(self._step, len(WAITS) - 1)] * random.uniform(1, 1 + JITTER)  # noqa: S311
        self._next_try = self._clock() + max(wait, seconds)
        self._step += 1
