"""Deletes what has ended, walking a table in short steps, so that nobody waits for it. Knows no table."""

from typing import Any


def purge(db: Any, look: str, delete: str, step: int, **params: Any) -> int:
    """How many rows went.

    look    the next `:step` keys after `:after`, in order, as `key`
    delete  what has ended of the keys in (`:start`, `:after`], returning them
    """
    gone, after = 0, ""
    while rows := db.q(look, after=after, step=step):
        start, after = after, rows[-1]["key"]
        gone += len(db.q(delete, start=start, after=after, **params))
    return gone
