"""THE RULES about how long the record is kept, and people who never came. No HTTP, HTML or SQL."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from auth import events, users
from auth.addresses import canonical
from auth.events import Source
from auth.office import Office
from auth.policy import DAY

LEAST_EVENT_DAYS = 90  # the database itself lets no younger event go, by a clock of its own
MOST_DAYS = 36_500
SKEW = 3600  # seconds that our clock may be ahead of that one
Bar = Callable[[int], AbstractContextManager[Any]]
PEOPLE_STEP = 50  # deleted in one transaction


class Retention(Office):
    def forget_events(self, days: int, bar: Bar, step: int = 500) -> int:
        """Delete what is older than so many days, at least LEAST_EVENT_DAYS. How many events.

        `bar(length)` shows how far it is: a context, whose `update(n)` is told of each step.
        """
        start = int(self.clock()) - days * DAY - SKEW
        until = self.keys.sorts_from(start)
        n = events.count_before(self.db, until)
        if n:
            # First, so that none goes without a word about it.
            when = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d %H:%M")
            detail = f"{n} until {when} UTC"
            self._record(self.db, events.EVENTS_PURGED, None, "", Source(), detail)
        with bar(n) as shown:
            return events.purge(self.db, until, step, shown.update)

    def forget_never_active(self, days: int, spared: Collection[str] = ()) -> int:
        """Delete people without rights who were added so many days ago and never signed in. How many.

        `spared`: addresses that stay, such as those of ADMIN_EMAILS.
        """
        stay = {canonical(typed) for typed in spared}
        now, gone, last = int(self.clock()), 0, ""
        before = now - days * DAY
        while found := users.never_came(self.db, last, before, now, PEOPLE_STEP):
            last = found[-1][0]
            with self._change(None) as t:
                for id, address in found:
                    if address not in stay and users.delete_never_came(t, id, before, now):
                        said = "never signed in"
                        self._record(t, events.USER_DELETED, None, address, Source(), said)
                        gone += 1
        return gone
