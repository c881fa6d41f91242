"""Who is signed in where: one row a browser, found by the digest of its cookie. SQL only."""

from dataclasses import dataclass
from typing import Any

from auth.purging import purge as walk
from auth.users import User

_FIND = (
    "select s.id as session_id, s.data as session_data, s.seen_at as session_seen_at,"
    " u.id, u.address, u.name, u.role, u.timezone, u.created_at, u.activated_at, u.signed_in_at,"
    " u.disabled_at from sessions s join users u on u.id = s.user_id where s.token = :token"
    " and s.expires_at > :now and s.seen_at > :idle and u.disabled_at is null"
)


@dataclass(frozen=True)
class Session:
    id: str
    data: str
    seen_at: int
    user: User


def start(t: Any, id: str, token: str, user_id: str, now: int, expires_at: int) -> None:
    t.q(
        "insert into sessions (id, token, user_id, created_at, seen_at, expires_at)"
        " values (:id, :token, :user_id, :now, :now, :expires_at)",
        id=id,
        token=token,
        user_id=user_id,
        now=now,
        expires_at=expires_at,
    )


def find(t: Any, token: str, now: int, idle_seconds: int) -> Session | None:
    """The live session of a token's digest, with its user as they are at this moment.

    Read at each request, never cached: who is disabled, demoted or signed out is so at once.
    """
    rows = t.q(_FIND, token=token, now=now, idle=now - idle_seconds)
    if not rows:
        return None
    row = rows[0]
    id, data, seen_at = (row.pop(f"session_{name}") for name in ("id", "data", "seen_at"))
    return Session(id, data, seen_at, User(**row))


def touch(t: Any, id: str, now: int) -> None:
    t.q("update sessions set seen_at = :now where id = :id", id=id, now=now)


def save(t: Any, id: str, data: str) -> None:
    t.q("update sessions set data = :data where id = :id", id=id, data=data)


def end(t: Any, token: str) -> None:
    t.q("delete from sessions where token = :token", token=token)


def end_all(t: Any, user_id: str) -> None:
    t.q("delete from sessions where user_id = :user_id", user_id=user_id)


_LOOK = "select id as key from sessions where id > :after order by id limit :step"
_PURGE = (
    "delete from sessions where id > :start and id <= :after and expires_at <= :now returning id"
)


def purge(db: Any, now: int, step: int) -> int:
    """Delete what has ended. Says how many."""
    return walk(db, _LOOK, _PURGE, step, now=now)
