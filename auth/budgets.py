"""How often something has happened: a row for each (limit, window, subject). SQL only; the numbers come in.

A window begins with the first thing it counts and ends as a whole. Keys are HMACs, so the table says
nothing about whom it counts, and an IP address is nowhere in it.
"""

from collections.abc import Collection
from functools import cache
from typing import Any, NamedTuple

_ROWS = "insert into counters (key, n, most, ends_at) values {rows}"
_TAKE = (
    " on conflict (key) do update set"
    " n = case when counters.ends_at <= :now then 1 else counters.n + 1 end,"
    " ends_at = case when counters.ends_at <= :now then excluded.ends_at else counters.ends_at end,"
    " most = excluded.most"
    " where counters.ends_at <= :now or counters.n < excluded.most returning key, n, ends_at"
)
_GIVE_BACK = (
    " on conflict (key) do update set n = counters.n - :units"
    " where counters.n >= :units and counters.ends_at > :now"
)


class Count(NamedTuple):
    """One counter: at most `most` in `seconds`."""

    key: str
    most: int
    seconds: int


class Taken(NamedTuple):
    """A counter that had room: how many it holds now, and until when."""

    n: int
    ends_at: int


def take(t: Any, counts: Collection[Count], now: int) -> dict[str, Taken]:
    """Count one more on each that has room; those, by key.

    One statement, with the limit in it: of a hundred who come at once through several processes,
    exactly as many get through as there is room for. Keys in order, or two who take the same rows
    could wait for each other.
    """
    rows = t.q(_sql(_TAKE, len(counts)), now=now, **_params(counts, 1, now))
    return {row["key"]: Taken(row["n"], row["ends_at"]) for row in rows}


def give_back(t: Any, counts: Collection[Count], now: int, units: int = 1) -> None:
    """Undo `take` for what turned out not to count. A window that has ended stays ended."""
    if counts:
        params = _params(counts, 0, now) | {"units": units, "now": now}
        t.q(_sql(_GIVE_BACK, len(counts)), **params)


def full_until(t: Any, counts: Collection[Count], now: int) -> int | None:
    """When the last of those that are full ends; None when all have room."""
    keys = {f"key{i}": count.key for i, count in enumerate(counts)}
    rows = t.q(_full_sql(len(counts)), now=now, **keys)
    most = {count.key: count.most for count in counts}
    full = [row["ends_at"] for row in rows if row["n"] >= most[row["key"]]]
    return max(full, default=None)


def purge(db: Any, now: int, limit: int) -> int:
    """Delete counters whose window has ended, at most `limit`. Says how many."""
    return len(db.q(_purge_sql(db.skip_locked), now=now, limit=limit))


def _params(counts: Collection[Count], n: int, now: int) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for i, count in enumerate(sorted(counts)):
        params[f"key{i}"], params[f"most{i}"] = count.key, count.most
        params[f"n{i}"], params[f"ends{i}"] = n, now + count.seconds
    return params


@cache
def _sql(action: str, rows: int) -> str:
    values = ", ".join(f"(:key{i}, :n{i}, :most{i}, :ends{i})" for i in range(rows))
    return _ROWS.replace("{rows}", values) + action


@cache
def _full_sql(rows: int) -> str:
    keys = ", ".join(f":key{i}" for i in range(rows))
    sql = "select key, n, ends_at from counters where key in ({keys}) and ends_at > :now"
    return sql.replace("{keys}", keys)


@cache
def _purge_sql(skip_locked: str) -> str:
    # A counter that is being taken again at this moment is not waited for, or the two could wait for
    # each other.
    return (
        "delete from counters where key in (select key from counters where ends_at <= :now"
        " order by ends_at limit :limit {skip}) returning key"
    ).replace("{skip}", skip_locked)
