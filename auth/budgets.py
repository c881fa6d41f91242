"""How often something has happened: a row for each (limit, window, subject). SQL only; the numbers come in.

A window begins with the first thing it counts and ends as a whole. Subjects are HMACs, so the table
says nothing about whom it counts, and an IP address is nowhere in it.
"""

from collections.abc import Collection
from functools import cache
from typing import Any, NamedTuple

from auth.purging import purge as walk

_ROWS = "insert into counters (key, n, most, ends_at) values {rows}"
_TAKE = (
    " on conflict (key) do update set"
    " n = case when counters.ends_at <= :now then 0 else counters.n end + excluded.n,"
    " ends_at = case when counters.ends_at <= :now then excluded.ends_at else counters.ends_at end,"
    " most = excluded.most"
    " where counters.ends_at <= :now or excluded.n = 0 or counters.n + excluded.n <= excluded.most"
    " returning key, n, ends_at"
)
_GIVE_BACK = (
    " on conflict (key) do update set"
    " n = case when counters.n > excluded.n then counters.n - excluded.n else 0 end"
    " where counters.ends_at > :now"
)
_LOOK = "select key from counters where key > :after order by key limit :step"


class Count(NamedTuple):
    """One counter: at most `most` in `seconds`. With 0 `units` it is touched, counts nothing and needs
    no room: who does not count must not be told from who does by the rows that they wait for."""

    key: str
    most: int
    seconds: int
    units: int = 1


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
    if not counts:
        return {}
    rows = t.q(_sql(_TAKE, len(counts)), now=now, **_params(counts, now))
    return {row["key"]: Taken(row["n"], row["ends_at"]) for row in rows}


def give_back(t: Any, counts: Collection[Count], now: int) -> None:
    """Undo `take` for what turned out not to count, by the units of each. What has ended stays so."""
    if counts:
        # A row that is gone comes back as one that has ended.
        t.q(_sql(_GIVE_BACK, len(counts)), now=now, **_params(counts, now, lasting=False))


def full(t: Any, counts: Collection[Count], now: int) -> dict[str, int]:
    """Those that have no room now: key → when their window ends."""
    if not counts:
        return {}
    keys = {f"key{i}": count.key for i, count in enumerate(counts)}
    rows = t.q(_full_sql(len(counts)), now=now, **keys)
    most = {count.key: count.most for count in counts}
    return {row["key"]: row["ends_at"] for row in rows if row["n"] >= most[row["key"]]}


def purge(db: Any, now: int, step: int) -> int:
    """Delete counters whose window has ended. Says how many."""
    return walk(db, _LOOK, _purge_sql(db.skip_locked), step, now=now)


def _params(counts: Collection[Count], now: int, lasting: bool = True) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for i, (key, most, seconds, units) in enumerate(sorted(counts)):
        params[f"key{i}"], params[f"n{i}"], params[f"most{i}"] = key, units, most
        params[f"ends{i}"] = now + seconds if lasting else now
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
    # A counter that is being taken at this moment is not waited for, or the two could wait for each
    # other.
    return (
        "delete from counters where key in (select key from counters where key > :start"
        " and key <= :after and ends_at <= :now order by key {skip}) returning key"
    ).replace("{skip}", skip_locked)
