"""Browsers that have signed in before: a selector to find the row by, a verifier to prove it. SQL only.

A device is never a session: it says "this browser knows that person", and what follows from that is
the rules' affair. The verifier is stored as its SHA-256, and so is the one before it.
"""

from dataclasses import dataclass
from typing import Any

from auth.purging import purge as walk


@dataclass(frozen=True)
class Device:
    id: str
    user_id: str
    generation: int
    verifier: str
    previous: str
    rotated_at: int
    created_at: int
    expires_at: int
    address: str  # the person's


def find(t: Any, id: str, now: int) -> Device | None:
    rows = t.q(
        "select d.id, d.user_id, d.generation, d.verifier, d.previous, d.rotated_at, d.created_at,"
        " d.expires_at, u.address from devices d join users u on u.id = d.user_id"
        " where d.id = :id and d.expires_at > :now",
        id=id,
        now=now,
    )
    return Device(**rows[0]) if rows else None


def times_of(t: Any, user_id: str) -> list[dict[str, Any]]:
    """The browsers that know a person: since when, last rotated, until when."""
    sql = "select created_at, rotated_at, expires_at from devices where user_id = :id order by id"
    return list(t.q(sql, id=user_id))


def start(t: Any, id: str, verifier: str, user_id: str, now: int, expires_at: int) -> None:
    t.q(
        "insert into devices (id, user_id, verifier, rotated_at, created_at, expires_at)"
        " values (:id, :user_id, :verifier, :now, :now, :expires_at)",
        id=id,
        user_id=user_id,
        verifier=verifier,
        now=now,
        expires_at=expires_at,
    )


def rotate(t: Any, seen: Device, verifier: str, now: int, expires_at: int) -> None:
    """The next verifier, unless somebody else has changed it since it was `seen`."""
    t.q(
        "update devices set previous = verifier, verifier = :verifier, rotated_at = :now,"
        " generation = generation + 1, expires_at = :expires_at"
        " where id = :id and verifier = :seen",
        id=seen.id,
        seen=seen.verifier,
        verifier=verifier,
        now=now,
        expires_at=expires_at,
    )


def end(t: Any, id: str) -> bool:
    return bool(t.q("delete from devices where id = :id returning id", id=id))


def end_all(t: Any, user_id: str) -> None:
    t.q("delete from devices where user_id = :user_id", user_id=user_id)


def end_every(t: Any) -> None:
    t.q("delete from devices")


_LOOK = "select id as key from devices where id > :after order by id limit :step"
_PURGE = (
    "delete from devices where id > :start and id <= :after and expires_at <= :now returning id"
)


def purge(db: Any, now: int, step: int) -> int:
    """Delete what has ended. Says how many."""
    return walk(db, _LOOK, _PURGE, step, now=now)
