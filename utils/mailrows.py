"""The rows of the outbox: put, claimed, noted, looked at. SQL only; when and how often is outbox.py's affair."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from utils.database import Row

# Materialized: PostgreSQL is free to run a subquery again for each row, and would take more than `most`.
_CLAIM = """
with due as materialized (
    select id from outbox where state in ('queued', 'sending') and next_at <= :now
     order by {order} limit :most {skip})
update outbox set state = 'sending', tries = tries + 1, next_at = :lease
 where id in (select id from due) and state in ('queued', 'sending') and next_at <= :now
returning *
"""


@cache
def _claim_sql(skip_locked: str, order: str) -> str:
    return _CLAIM.format(skip=skip_locked, order=order)


def put(t: Any, row: Row) -> None:
    names = ("id", "kind", "ref", "state", "lane", "created_at", "not_after", "next_at", "tries")
    t.q(
        "insert into outbox (id, kind, ref, state, lane, created_at, not_after, next_at, tries)"
        " values (:id, :kind, :ref, :state, :lane, :created_at, :not_after, :next_at, :tries)",
        **{name: row[name] for name in names},
    )


def due(db: Any, now: int) -> bool:
    """Most looks find nothing, and a read needs no write lock."""
    sql = "select 1 from outbox where state in ('queued', 'sending') and next_at <= :now limit 1"
    return bool(db.q(sql, now=now))


def claim(
    t: Any, skip_locked: str, now: int, lease: int, most: int, fresh_first: bool = False
) -> list[Row]:
    """Take up to `most` rows that are due, or that a dead worker left behind: codes first, and of those
    the oldest or, `fresh_first`, the ones with the fewest tries.

    One statement, so that of several workers in several processes each gets others.
    """
    order = "lane, tries, next_at, id" if fresh_first else "lane, next_at, id"
    rows: list[Row] = t.q(_claim_sql(skip_locked, order), now=now, lease=lease, most=most)
    return rows


def renew(t: Any, ids: Sequence[str], lease: int) -> dict[str, int]:
    """These are still in our hands: those that are, with the tries that they have now."""
    keys, named = _named(ids)
    sql = (
        "update outbox set next_at = :lease where state = 'sending' and id in ({keys})"
        " returning id, tries"
    )
    return {row["id"]: row["tries"] for row in t.q(_with(sql, keys), lease=lease, **named)}


def note(t: Any, row: Row) -> None:
    """What became of a row that was claimed."""
    # `tries` is the fence: a worker that slept through its lease must not overwrite the next.
    t.q(
        "update outbox set state = :state, reply = :reply, next_at = :next_at, losses = :losses"
        " where id = :id and tries = :tries and state = 'sending'",
        **{k: row[k] for k in ("id", "tries", "state", "reply", "next_at", "losses")},
    )


def expire(db: Any, now: int) -> None:
    """Say so of those whose time is over while none may leave."""
    over = db.q("select 1 from outbox where state = 'queued' and not_after < :now limit 1", now=now)
    if over:
        sql = "update outbox set state = 'expired' where state = 'queued' and not_after < :now"
        db.q(sql, now=now)


def forget_workers(t: Any, before: int) -> None:
    """Those that died without a word."""
    t.q("delete from outbox_status where name like 'worker %' and at < :before", before=before)


def slow(db: Any, now: int, before: int) -> bool:
    """Does a mail wait since `before` for which somebody waits, and that may still leave?"""
    sql = (
        "select 1 from outbox where state in ('queued', 'sending') and lane = 0 and created_at < :before"
        " and not_after > :now limit 1"
    )
    return bool(db.q(sql, before=before, now=now))


# ---- for the operator
def counts(db: Any, now: int) -> tuple[dict[str, int], int]:
    """How many rows there are in each state, and for how many seconds the oldest open one waits. Of those that are
    over only the newest LOOK are looked at."""
    (over,) = db.q(_OVER, look=LOOK)
    waiting = {row["state"]: row["n"] for row in db.q(_OPEN)}
    sql = "select min(created_at) as at from outbox where state in ('queued', 'sending')"
    oldest = db.q(sql)[0]["at"]
    found = {name: int(n) for name, n in (waiting | over).items() if n}
    return found, max(0, now - oldest) if oldest else 0


# Nobody waits for a walk through millions. No index on the state: each mail would pay for it.
LOOK = 50_000
# In one walk, and without `group by`, for which SQLite sorts all rows first.
_OVER = (
    "select count(case when state = 'accepted' then 1 end) as accepted,"
    " count(case when state = 'void' then 1 end) as void,"
    " count(case when state = 'expired' then 1 end) as expired,"
    " count(case when state = 'dead' then 1 end) as dead"
    " from (select state from outbox order by id desc limit :look) as newest"
)
# By the index of those that are due, which has all that are open.
_OPEN = (
    "select state, count(*) as n from outbox where state in ('queued', 'sending') group by state"
)


def newest(db: Any, states: Sequence[str], limit: int, offset: int) -> list[Row]:
    """One page of the rows in these states; all when there are none. Of those that are over, as `counts`."""
    keys, named = _named(states)
    every = "select * from outbox order by id desc limit :limit offset :offset"
    waiting = (
        "select * from outbox where state in ('queued', 'sending') and state in ({keys})"
        " order by id desc limit :limit offset :offset"
    )
    some = (
        "select * from (select * from outbox order by id desc limit :look) as newest"
        " where state in ({keys}) order by id desc limit :limit offset :offset"
    )
    if not states:
        return list(db.q(every, limit=limit, offset=offset))
    if {*states} <= {"queued", "sending"}:
        return list(db.q(_with(waiting, keys), limit=limit, offset=offset, **named))
    return list(db.q(_with(some, keys), limit=limit, offset=offset, look=LOOK, **named))


def by_id(db: Any, id: str) -> Row | None:
    rows: list[Row] = db.q("select * from outbox where id = :id", id=id)
    return rows[0] if rows else None


def again(t: Any, id: str, now: int) -> bool:
    """Try it at once, if it may still leave."""
    return bool(
        t.q(
            "update outbox set state = 'queued', next_at = :now where id = :id"
            " and state in ('queued', 'dead') and not_after > :now returning id",
            id=id,
            now=now,
        )
    )


def drop(t: Any, id: str, reply: str) -> bool:
    """Never send it, and for good; who has it in hand at this moment does."""
    return bool(
        t.q(
            "update outbox set state = 'dead', not_after = 0, reply = :reply"
            " where id = :id and state = 'queued' returning id",
            id=id,
            reply=reply,
        )
    )


def void(t: Any, reply: str) -> None:
    """Of all that has not left nothing leaves any more."""
    t.q(
        "update outbox set state = 'void', reply = :reply where state in ('queued', 'sending')",
        reply=reply,
    )


def tell(t: Any, name: str, value: str, now: int) -> None:
    """What the workers, or an operator, want the others to know."""
    t.q(
        "insert into outbox_status (name, value, at) values (:name, :value, :now)"
        " on conflict (name) do update set value = excluded.value, at = excluded.at",
        name=name,
        value=value,
        now=now,
    )


def untell(t: Any, name: str) -> None:
    t.q("delete from outbox_status where name = :name", name=name)


def told(db: Any) -> dict[str, tuple[str, int]]:
    """name → (value, when)."""
    return {row["name"]: (row["value"], row["at"]) for row in db.q("select * from outbox_status")}


def tally(db: Any, since: str, until: str) -> list[tuple[int, str, int]]:
    """How many between two ids: (days since 1970, state, n)."""
    rows = db.q(
        "select created_at / 86400 as day, state, count(*) as n from outbox"
        " where id > :since and id < :until group by created_at / 86400, state",
        since=since,
        until=until,
    )
    return [(int(row["day"]), row["state"], int(row["n"])) for row in rows]


def purge(t: Any, before: str, after: str, step: int) -> list[str]:
    """Delete up to `step` rows that are over, with ids between these two, the oldest first. Says which."""
    rows = t.q(_PURGE, before=before, after=after, step=step)
    return sorted(row["id"] for row in rows)


_PURGE = (
    "delete from outbox where id in (select id from outbox where id > :after and id < :before"
    " and state not in ('queued', 'sending') order by id limit :step)"
    # Once more, for a row that somebody sends again at this moment: PostgreSQL asks only what is out here anew.
    " and state not in ('queued', 'sending') returning id"
)


def _with(sql: str, keys: str) -> str:
    return sql.replace("{keys}", keys)


def _named(values: Sequence[str]) -> tuple[str, dict[str, str]]:
    """What goes between the brackets of `in ()`, and its parameters."""
    named = {f"v{i}": value for i, value in enumerate(values)}
    return ", ".join(f":{name}" for name in named), named
