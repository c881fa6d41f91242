"""How the rules write down what happened: one call that knows the time and makes the id. No SQL."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from auth import events
from auth.events import Source
from auth.keys import Keys


@dataclass(frozen=True)
class Record:
    keys: Keys
    clock: Callable[[], float]

    def __call__(
        self,
        t: Any,
        kind: str,
        subject: str,
        source: Source,
        actor: str = "",
        detail: str = "",
        tenant: str = "",
    ) -> None:
        """An event in transaction t. `actor` and `tenant` are ids, or "" for a stranger, the command line, none."""
        now = self.clock()
        id = self.keys.new_sorted_id(now)
        events.record(t, id, int(now), kind, subject, source, actor, detail, tenant)
