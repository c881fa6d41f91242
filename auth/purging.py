"""Deletes what has ended, walking a table in short steps, so that nobody waits for it. Knows no table."""

import time
from collections.abc import Callable
from typing import Any

SECONDS = 0.005  # for which one step keeps others from writing
REST = 5  # times as long
FEWEST = 50  # rows


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
    step    how many keys at most, and fewer where the disk is slow
    """
    gone, after, now = 0, "", min(FEWEST, step)
    # A database of others may have nothing of the kind to do.
    settle = getattr(db, "settle", lambda: None)
    while rows := db.q(look, after=after, step=now, **params):
        start, after = after, rows[-1]["key"]
        # Not durable: nobody waits for the disk, and what a power cut brings back goes the next time.
        with db.tx(durable=False) as t:
            # From here on others wait. Before, we waited for them, and that is no reason to be slower.
            began = time.monotonic()
            ended = len(t.q(delete, start=start, after=after, **params))
        took, gone = time.monotonic() - began, gone + ended
        if ended:
            settle()
        # Who waits for SQLite's write lock only looks now and then whether it is free: mostly it is to be.
        rest(took)
        told(len(rows))
        now = next_step(now, took, step)
    return gone


def rest(took: float) -> None:
    """After a step, for others."""
    time.sleep(REST * took)


def next_step(step: int, took: float, most: int) -> int:
    """So many that the next one takes about SECONDS."""
    fits = int(step * min(2.0, SECONDS / max(took, 0.001)))
    return max(min(FEWEST, most), min(fits, most))
