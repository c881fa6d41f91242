"""THE RULES about reading the record of what happened. Nobody can change it. No HTTP, HTML or SQL."""

from dataclasses import dataclass, field
from typing import NamedTuple

from auth import events
from auth.addresses import canonical
from auth.events import Event, Sought, Source
from auth.office import Office, tidy_query
from auth.users import User

PAGE_SIZE = 50
MOST = 100_000  # events for the command line
LOOK = 50_000  # rows that are read for one page, or one step of a download
# Those of one address lie far apart, and PostgreSQL may read all of them before it sorts.
LOOK_AT_ONE = 2000
STEP = 1000  # rows of a download that are read at once
PERIODS = {"1": 1, "7": 7, "30": 30, "all": 0}  # days; 0: from the beginning
USUAL_PERIOD = "7"


@dataclass(frozen=True)
class Wanted:
    """Which events: with `query` in the address, of one kind, of the last days. "" for any."""

    query: str = ""
    kind: str = ""
    period: str = USUAL_PERIOD


class Part(NamedTuple):
    """Some of them, the newest first. Where that is not all of them, what comes next is older than `before`."""

    rows: list[Event]
    before: str = ""
    looked_to: int = 0  # the time up to which nothing more was found, 0 when there was more


def part_of(rows: list[Event], limit: int, reach: str = "") -> Part:
    """Of one row more than `limit`; `reach`: the id at which the look ended, "" for the beginning."""
    if len(rows) > limit:
        return Part(rows[:limit], rows[limit - 1].id)
    # Ids begin with their time, see new_sorted_id.
    return Part(rows, reach, int(reach[:12], 16) // 1000 if reach else 0)


@dataclass(frozen=True)
class AuditPage:
    """One page, the newest first. `older`: where the next one begins, "" at the end."""

    rows: list[Event]
    wanted: Wanted
    older: str
    newest: bool  # is this the first page?
    looked_to: int  # as in Part
    kinds: tuple[str, ...] = field(default=events.KINDS)


class Audit(Office):
    def tidy(self, query: str, kind: str, period: str) -> Wanted:
        """What was asked for, without what nobody has."""
        kind = kind if kind in events.KINDS else ""
        return Wanted(tidy_query(query), kind, period if period in PERIODS else USUAL_PERIOD)

    def look(self, wanted: Wanted, before: str = "") -> AuditPage:
        """A page of them; `before`: the id that the page before ended with."""
        before = before if before.isalnum() else ""
        part = self._read(wanted, before, PAGE_SIZE)
        return AuditPage(part.rows, wanted, part.before, not before, part.looked_to)

    def download(self, actor: User, wanted: Wanted, source: Source) -> Part:
        """The first step of all of them. That somebody did so is an event, too."""
        self._record(self.db, events.DATA_EXPORTED, actor, actor.address, source, "audit")
        return self.step(wanted)

    def step(self, wanted: Wanted, before: str = "") -> Part:
        """The next ones of a download, perhaps none; it goes on while there is a `before`."""
        return self._read(wanted, before, STEP)

    def since(self, start: float, query: str = "") -> list[Event]:
        """All from a time on, the newest first; with `query` in the address."""
        sought = self._sought(Wanted(query))
        return events.search(self.db, sought, self.keys.sorts_from(start), "", MOST)

    def _read(self, wanted: Wanted, before: str, limit: int) -> Part:
        """Up to `limit` of them, from no more than LOOK rows: nobody waits for a walk through millions."""
        sought, since = self._sought(wanted), self._since(wanted)
        look = LOOK_AT_ONE if sought.subject else LOOK
        reach = events.reach(self.db, sought, since, before, look)
        start = reach or since
        return part_of(events.search(self.db, sought, start, before, limit + 1), limit, reach)

    def _sought(self, wanted: Wanted) -> Sought:
        """By a whole address there is an index, and no need to look at others."""
        address = canonical(wanted.query) if wanted.query else None
        if address and events.is_known(self.db, address):
            return Sought(subject=address, kind=wanted.kind)
        return Sought(part=wanted.query, kind=wanted.kind)

    def _since(self, wanted: Wanted) -> str:
        """Ids begin with their time, so the primary key finds a period."""
        days = PERIODS[wanted.period]
        return self.keys.sorts_from(self.clock() - days * 86400) if days else ""
