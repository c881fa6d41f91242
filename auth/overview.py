"""THE RULES about the figures of the last two weeks. No HTTP, HTML or SQL.

A day that can't change any more is counted once and kept (`close_days`); only what is newer is counted
when somebody looks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from auth import daily, events
from auth.mailroom import MailQueue
from auth.office import Office
from auth.policy import DAY

DAYS = 14
# Seconds. A code has left by then or never will; the few mails that may wait for longer are in no figure.
CLOSES_AFTER = DAY + 600
NAMES = {
    events.CODE_REQUESTED: "asked",
    events.LOGIN_SUCCESS: "signed_in",
    events.LOGIN_FAIL: "wrong",
    events.LOGIN_FAIL_MAX: "wrong",
}
MAILS = ("accepted", "expired", "dead")


@dataclass(frozen=True)
class Day:
    """One day in UTC, and what happened on it."""

    at: int  # when it begins
    asked: int = 0  # codes asked for
    signed_in: int = 0
    wrong: int = 0  # codes that were
    median: int = 0  # seconds from asking to being in: half were faster
    slow: int = 0  # nine of ten were faster
    accepted: int = 0  # mails
    expired: int = 0
    dead: int = 0


@dataclass(frozen=True)
class Overview(Office):
    """`queue` as in Mailroom."""

    queue: MailQueue | None

    def days(self) -> list[Day]:
        """The last two weeks, the oldest first, today among them."""
        today = int(self.clock()) // DAY
        wanted = range(today - DAYS + 1, today + 1)
        known = daily.since(self.db, wanted[0])
        known |= self._count([day for day in wanted if day not in known])
        return [Day(day * DAY, **known[day]) for day in wanted]

    def close_days(self) -> int:
        """Keep the figures of the days that are over. How many days those were."""
        last = (int(self.clock()) - CLOSES_AFTER) // DAY
        days = range(last - DAYS, last)
        known = daily.since(self.db, days[0])
        missing = [day for day in days if day not in known]
        for day in missing:  # one by one, so that nobody waits for two weeks of events
            figures = self._count([day])[day]
            with self.db.tx() as t:  # half of them would be taken for all
                daily.put(t, day, figures)
        return len(missing)

    def _count(self, days: list[int]) -> dict[int, dict[str, int]]:
        found = {day: {f.name: 0 for f in fields(Day) if f.name != "at"} for day in days}
        if not days:
            return found
        since, until = (self.keys.sorts_from(day * DAY) for day in (days[0], days[-1] + 1))
        took: dict[int, list[tuple[int, int]]] = {day: [] for day in days}
        for day, kind, seconds, n in events.tally(self.db, since, until, tuple(NAMES)):
            if day in found:
                found[day][NAMES[kind]] += n
                if kind == events.LOGIN_SUCCESS:
                    took[day].append((seconds, n))
        for day, state, n in self._mails(since, until):
            if day in found and state in MAILS:
                found[day][state] += n
        for day, all_of in took.items():
            found[day] |= {"median": _quantile(all_of, 0.5), "slow": _quantile(all_of, 0.9)}
        return found

    def _mails(self, since: str, until: str) -> Iterator[tuple[int, str, int]]:
        yield from self.queue.tally(since, until) if self.queue else ()


def _quantile(counted: list[tuple[int, int]], share: float) -> int:
    """Of (value, how often): the smallest value that at least this share is not above; 0 of none."""
    left = share * sum(n for _, n in counted)
    for value, n in sorted(counted):
        left -= n
        if left <= 0:
            return value
    return 0
