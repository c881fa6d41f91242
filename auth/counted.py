"""How many people of each kind there were when they were last counted. SQL only; when that is is directory.py's affair."""

from collections.abc import Iterable
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """Who are alike in all that the list's filters know but the search."""

    role: str
    state: str  # a key of users.STATES
    recent: int  # 1: they signed in lately


def put(t: Any, found: Iterable[tuple[Kind, int]], now: int) -> None:
    """In place of the count before. In a transaction."""
    t.q("delete from counted")
    for kind, n in found:
        t.q(
            "insert into counted (role, state, recent, n, at) values (:role, :state, :recent, :n, :now)",
            n=n,
            now=now,
            **kind._asdict(),
        )


def last(t: Any) -> tuple[dict[Kind, int], int]:
    """How many of each, and when that was; ({}, 0) when nobody has counted yet."""
    rows = t.q("select role, state, recent, n, at from counted")
    found = {Kind(row["role"], row["state"], row["recent"]): int(row["n"]) for row in rows}
    return found, min((row["at"] for row in rows), default=0)
