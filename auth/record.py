"""How the rules write down what happened: one call that knows the time and makes the id. No SQL."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from auth import events
from auth.events import Source
from auth.keys import Keys

Hear = Callable[[str, str], object]

# What was presented and signed nobody in. A slip that can't be a code is none of it, and costs no try either.
FAILED = (
    "code_wrong",
    "code_wrong_last",
    "code_exhausted",
    "code_expired",
    "code_used",
    "code_off",
    "no_signin",
    "link_wrong",
    "link_expired",
    "link_used",
    "undo_wrong",
    "too_many_starts",
    "too_many_wrong",
    "token_reused",
)
# Whose code it was, or that it was a long one: "" is six digits from a browser that nobody knows.
LANES = ("", "known browser", "long code")
LIMITS = (
    "wrong codes of one account",
    "wrong codes of the whole site",
    "mails of the whole site",
)
# All that `hear` is ever told, (what, how): words of ours, so that who counts them names no person.
HEARD = {
    events.CODE_REQUESTED: ("", "again"),
    events.LOGIN_SUCCESS: ("", "link", "app", "app link", "app review"),
    events.LOGIN_FAIL: LANES,
    events.LOGIN_FAIL_MAX: LANES,
    events.LIMIT_REACHED: LIMITS,
    events.REFRESH_REUSED: ("",),
    "failed": FAILED,
}


@dataclass(frozen=True)
class Record:
    keys: Keys
    clock: Callable[[], float]
    hear: Hear | None = None

    def __call__(
        self,
        t: Any,
        kind: str,
        subject: str,
        source: Source,
        actor: str = "",
        detail: str = "",
        tenant: str = "",
        seconds: int = 0,
    ) -> None:
        """An event in transaction t. `actor` and `tenant` are ids, or "" for a stranger, the command line, none;
        `seconds`: how long it took, where that says something."""
        now = self.clock()
        id = self.keys.new_sorted_id(now)
        events.record(t, id, int(now), kind, subject, source, actor, detail, tenant, seconds)
        hear = self.hear
        if hear and kind in HEARD:
            how = detail if detail in HEARD[kind] else ""
            # What is taken back has not happened. A database of others may not tell when it is done.
            later = getattr(t, "on_commit", None)
            if later:
                later(lambda: hear(kind, how))
            else:
                hear(kind, how)
