"""THE RULES about reading the record of what happened. Nobody can change it. No HTTP, HTML or SQL."""

from dataclasses import dataclass, field

from auth import events
from auth.events import Event, Source
from auth.office import Office, tidy_query
from auth.users import User

PAGE_SIZE = 50
MOST = 100_000  # events for the command line
STEP = 1000  # rows of a download that are read at once
PERIODS = {"1": 1, "7": 7, "30": 30, "all": 0}  # days; 0: from the beginning
USUAL_PERIOD = "7"


@dataclass(frozen=True)
class Wanted:
    """Which events: with `query` in the address, of one kind, of the last days. "" for any."""

    query: str = ""
    kind: str = ""
    period: str = USUAL_PERIOD


@dataclass(frozen=True)
class AuditPage:
    """One page, the newest first. `older`: where the next one begins, "" at the end."""

    rows: list[Event]
    wanted: Wanted
    older: str
    newest: bool  # is this the first page?
    kinds: tuple[str, ...] = field(default=events.KINDS)


class Audit(Office):
    def tidy(self, query: str, kind: str, period: str) -> Wanted:
        """What was asked for, without what nobody has."""
        kind = kind if kind in events.KINDS else ""
        return Wanted(tidy_query(query), kind, period if period in PERIODS else USUAL_PERIOD)

    def look(self, wanted: Wanted, before: str = "") -> AuditPage:
        """A page of them; `before`: the id that the page before ended with."""
        before = before if before.isalnum() else ""
        rows = self._read(wanted, before, PAGE_SIZE + 1)
        older = rows[PAGE_SIZE - 1].id if len(rows) > PAGE_SIZE else ""
        return AuditPage(rows[:PAGE_SIZE], wanted, older, not before)

    def download(self, actor: User, wanted: Wanted, source: Source) -> list[Event]:
        """The first step of all of them. That somebody did so is an event, too."""
        self._record(self.db, events.DATA_EXPORTED, actor, actor.address, source, "audit")
        return self.step(wanted)

    def step(self, wanted: Wanted, before: str = "") -> list[Event]:
        """The next ones of a download, [] at the end; `before`: the id that the step before ended with."""
        return self._read(wanted, before, STEP)

    def since(self, start: float, query: str = "") -> list[Event]:
        """All from a time on, the newest first; with `query` in the address."""
        return events.search(self.db, query, "", self.keys.sorts_from(start), "", MOST)

    def _read(self, wanted: Wanted, before: str, limit: int) -> list[Event]:
        since = self._since(wanted)
        return events.search(self.db, wanted.query, wanted.kind, since, before, limit)

    def _since(self, wanted: Wanted) -> str:
        """Ids begin with their time, so the primary key finds a period."""
        days = PERIODS[wanted.period]
        return self.keys.sorts_from(self.clock() - days * 86400) if days else ""
