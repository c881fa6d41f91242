"""Addresses that people have left: one row a change, for as long as it can be taken back. SQL only."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Move:
    id: str
    user_id: str
    n: int  # a person's first, second, …
    old_address: str
    new_address: str
    key_id: str
    moved_at: int
    expires_at: int
    ended_at: int | None

    def alive(self, now: int) -> bool:
        """May it still be taken back?"""
        return self.ended_at is None and self.expires_at > now


_FIELDS = tuple(Move.__dataclass_fields__)


def add(
    t: Any, id: str, user_id: str, old: str, new: str, key_id: str, now: int, expires_at: int
) -> None:
    """For who holds the person's row: two at once would get the same number."""
    t.q(
        "insert into moves (id, user_id, n, old_address, new_address, key_id, moved_at, expires_at)"
        " select :id, :user_id, coalesce(max(n), 0) + 1, :old, :new, :key_id, :now, :expires_at"
        " from moves where user_id = :user_id",
        id=id,
        user_id=user_id,
        old=old,
        new=new,
        key_id=key_id,
        now=now,
        expires_at=expires_at,
    )


def by_id(t: Any, id: str) -> Move | None:
    rows = t.q("select * from moves where id = :id", id=id)
    return Move(*[rows[0][name] for name in _FIELDS]) if rows else None


def kept(t: Any, address: str, now: int, but: str = "") -> str:
    """The id of somebody, other than `but`, who left this address so lately that they may take it back; or ""."""
    rows = t.q(
        "select user_id from moves where old_address = :address and user_id <> :but"
        " and ended_at is null and expires_at > :now limit 1",
        address=address,
        but=but,
        now=now,
    )
    return str(rows[0]["user_id"]) if rows else ""


def back(t: Any, user_id: str, address: str, now: int) -> int:
    """The number of the first move with which this person left this address, and that may still be taken back; or 0."""
    rows = t.q(
        "select coalesce(min(n), 0) as n from moves where user_id = :user_id"
        " and old_address = :address and ended_at is null and expires_at > :now",
        user_id=user_id,
        address=address,
        now=now,
    )
    return int(rows[0]["n"])


def end_from(t: Any, user_id: str, n: int, now: int) -> None:
    """This one can't be taken back any more, nor can those that came after it."""
    t.q(
        "update moves set ended_at = :now where user_id = :user_id and n >= :n and ended_at is null",
        user_id=user_id,
        n=n,
        now=now,
    )


def purge(t: Any, now: int) -> int:
    """Delete those whose time is over. Says how many."""
    return len(t.q("delete from moves where expires_at <= :now returning id", now=now))
