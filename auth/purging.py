"""Deletes what has ended, walking a table in short steps, so that nobody waits for it. Knows no table."""

import time
from collections.abc import Callable
from typing import Any


def purge(
    db: Any,
    look: str,
    delete: str,
    step: int,
    told: Callable[[int], object] = lambda looked: None,
    **params: Any,
) -> int:
    """How many rows went.

    look    the next `:step` keys after `:after`, in order, as `key`
    delete  what has ended of the keys in (`:start`, `:after`], returning them
    """
    gone, after = 0, ""
    while rows := db.q(look, after=after, step=step, **params):
        start, after = after, rows[-1]["key"]
        began = time.monotonic()
        gone += len(db.q(delete, start=start, after=after, **params))
        # As long a rest: who waits for SQLite's write lock only looks now and then whether it is free.
        time.sleep(time.monotonic() - began)
        told(len(rows))
    return gone
