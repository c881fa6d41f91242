"""THE RULES about the figures of the last two weeks. No HTTP, HTML or SQL.

A day that can't change any more is counted once and kept (`close_days`), and so are each ten minutes of the days that
are not over yet; only what is newer is counted when somebody looks.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import groupby
from typing import NamedTuple

from auth import daily, events
from auth.mailroom import OPEN, MailQueue
from auth.office import Office
from auth.policy import DAY

DAYS = 14
# Seconds. A code has left by then or never will; the few mails that may wait for longer are in no figure.
CLOSES_AFTER = DAY + 600
SPAN = 600
# And once all its mails are over. That an admin may try one again is in no figure, either.
SPAN_CLOSES_AFTER = 60
SPANS = DAY // SPAN
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


class Figures(NamedTuple):
    """What happened in some time."""

    n: Counter[str]  # by the names of Day, and mails that are not over by their state
    took: Counter[int]  # seconds to sign in: how often

    @property
    def settled(self) -> bool:
        return not any(self.n[state] for state in OPEN)

    def day(self) -> dict[str, int]:
        found = {f.name: self.n[f.name] for f in fields(Day) if f.name != "at"}
        counted = list(self.took.items())
        return found | {"median": _quantile(counted, 0.5), "slow": _quantile(counted, 0.9)}

    def kept(self) -> str:
        return json.dumps([self.n, list(self.took.items())])


def _of(kept: str) -> Figures:
    n, took = json.loads(kept)
    return Figures(Counter(n), Counter(dict(took)))


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
        self._close_spans(last * SPANS)
        return len(missing)

    def _close_spans(self, first: int) -> None:
        """The same for the spans from this one on."""
        over = (int(self.clock()) - SPAN_CLOSES_AFTER) // SPAN
        known = daily.spans(self.db, first)
        missing = [span for span in range(first, over) if span not in known]
        found = {span: self._tally(span, span + 1)[span // SPANS] for span in missing}
        with self.db.tx() as t:
            for span, figures in found.items():
                if figures.settled:
                    daily.put_span(t, span, figures.kept())
            daily.drop_spans(t, first)

    def _count(self, days: list[int]) -> dict[int, dict[str, int]]:
        if not days:
            return {}
        first, end = days[0] * SPANS, (days[-1] + 1) * SPANS
        known = daily.spans(self.db, first)
        found = {day: Figures(Counter(), Counter()) for day in days}
        parts = [{span // SPANS: _of(kept)} for span, kept in known.items() if span < end]
        for kept, spans in groupby(range(first, end), known.__contains__):
            if not kept:
                parts.append(self._tally(*_ends(spans)))
        for part in parts:
            for day in found.keys() & part.keys():
                found[day].n.update(part[day].n)
                found[day].took.update(part[day].took)
        return {day: figures.day() for day, figures in found.items()}

    def _tally(self, first: int, end: int) -> dict[int, Figures]:
        """What happened from one span on and before another, by days."""
        since, until = (self.keys.sorts_from(span * SPAN) for span in (first, end))
        days = range(first // SPANS, (end - 1) // SPANS + 1)
        found = {day: Figures(Counter(), Counter()) for day in days}
        for day, kind, seconds, n in events.tally(self.db, since, until, tuple(NAMES)):
            if day in found:
                found[day].n[NAMES[kind]] += n
                if kind == events.LOGIN_SUCCESS:
                    found[day].took[seconds] += n
        for day, state, n in self._mails(since, until):
            if day in found and state in (*MAILS, *OPEN):
                found[day].n[state] += n
        return found

    def _mails(self, since: str, until: str) -> Iterator[tuple[int, str, int]]:
        yield from self.queue.tally(since, until) if self.queue else ()


def _ends(spans: Iterator[int]) -> tuple[int, int]:
    """Of spans that follow each other: the first, and the one behind the last."""
    all_of = list(spans)
    return all_of[0], all_of[-1] + 1


def _quantile(counted: list[tuple[int, int]], share: float) -> int:
    """Of (value, how often): the smallest value that at least this share is not above; 0 of none."""
    left = share * sum(n for _, n in counted)
    for value, n in sorted(counted):
        left -= n
        if left <= 0:
            return value
    return 0
