"""How many people there are, where they are too many to be counted for each page. No HTTP, HTML or SQL."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from auth import counted, users
from auth.counted import Kind
from auth.office import Office
from auth.purging import rest
from auth.users import EVERYBODY, Spot, Wanted

MANY = 100_000  # people; of more than these no page counts all
EVERY, FOR = 500, 3600  # seconds: how often they are counted, and how long that is believed
STEP = 1000
LOCK = 726356  # a number of our own, beside office.PEOPLE_LOCK
WEEK = 7 * 86400


@dataclass(frozen=True)
class Counted:
    """How many people there were at a time."""

    kinds: dict[Kind, int]
    at: int

    def total(self, wanted: Wanted = EVERYBODY) -> int:
        """All that pass these filters; a search counts for none."""
        return sum(
            n
            for kind, n in self.kinds.items()
            if wanted.role in ("", kind.role)
            and wanted.state in ("", kind.state)
            and (kind.recent or not wanted.seen)
        )

    def counts(self) -> dict[str, int]:
        """As users.counts."""
        admins = self.total(Wanted(role="admin")) - self.total(
            Wanted(role="admin", state="disabled")
        )
        return {
            "people": self.total(),
            "admins": admins,
            "disabled": self.total(Wanted(state="disabled")),
            "recent": self.total(Wanted(seen=users.SEEN)),
        }


@dataclass(frozen=True)
class Counting(Office):
    """`many`: more people than these are counted now and then."""

    many: int = field(default=MANY, kw_only=True)

    def last_count(self) -> Counted | None:
        """Where there are very many people, how many they were lately."""
        last = Counted(*counted.last(self.db))
        fresh = self.clock() - FOR < last.at <= self.clock()
        return last if fresh and last.total() > self.many else None

    def count(self) -> bool:
        """Count very many people, in short steps, unless somebody just did. For the app to call now and then."""
        now, found = int(self.clock()), Counter[Kind]()
        if self._counted_lately(self.db, now):
            return False
        place: Spot = (-1, "") if users.more_than(self.db, self.many) else ()
        while place:
            began = time.monotonic()
            some, place = users.kinds(self.db, now - WEEK, place, STEP)
            found.update(some)
            rest(time.monotonic() - began)
        # Of several processes that count at the same time one keeps what it found.
        with self.db.tx(lock=LOCK) as t:
            if self._counted_lately(t, now):
                return False
            counted.put(t, found.items(), now)
        return bool(found)

    def _counted_lately(self, t: Any, now: int) -> bool:
        # The clock may have gone back.
        return now - EVERY < counted.last(t)[1] <= now
