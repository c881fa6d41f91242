"""Who is signed in where: one row a browser, found by the digest of its cookie, or a program. SQL only."""

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

_APP = (
    "select s.id as session_id, s.created_at as session_created_at, s.expires_at as session_expires_at,"
    " s.generation as session_generation, s.key_id as session_key_id,"
    " s.rotated_at as session_rotated_at, s.tenant as session_tenant, m.role as session_role,"
    " u.id, u.address, u.name, u.role, u.timezone, u.created_at, u.activated_at, u.signed_in_at,"
    " u.disabled_at from sessions s join users u on u.id = s.user_id"
    " left join memberships m on m.tenant_id = {tenant} and m.user_id = s.user_id"
    " where s.id = :id and s.app = 1 and s.expires_at > :now and s.seen_at > :idle"
    " and u.disabled_at is null"
)
_APP_IN, _APP_LAST = _APP.format(tenant=":tenant"), _APP.format(tenant="s.tenant")


@dataclass(frozen=True)
class Session:
    id: str
    data: str
    seen_at: int
    user: User


@dataclass(frozen=True)
class AppSession:
    """A program's session, with its person as they are at this moment."""

    id: str
    created_at: int
    expires_at: int
    generation: int  # of the refresh token that is next
    key_id: str  # what that one is derived with
    rotated_at: int
    tenant: str  # "" for none
    role: str | None  # the membership's; None: they are no member
    user: User


_APP_FIELDS = tuple(name for name in AppSession.__dataclass_fields__ if name != "user")


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


def start_app(
    t: Any, id: str, user_id: str, key_id: str, tenant: str, now: int, expires_at: int
) -> None:
    """A program's session, with the refresh token of generation 0 next. No cookie is one: see 0006_apps.sql."""
    t.q(
        "insert into sessions (id, token, user_id, created_at, seen_at, expires_at, app, key_id, tenant)"
        " values (:id, :id, :user_id, :now, :now, :expires_at, 1, :key_id, :tenant)",
        id=id,
        user_id=user_id,
        key_id=key_id,
        tenant=tenant,
        now=now,
        expires_at=expires_at,
    )


def app(
    t: Any, id: str, now: int, idle_seconds: int, tenant: str | None = None
) -> AppSession | None:
    """A program's live session, with the role in `tenant`, or in the one that was chosen last (None).

    Read at each call, never cached, as `find` is.
    """
    sql = _APP_LAST if tenant is None else _APP_IN
    more = {} if tenant is None else {"tenant": tenant}
    rows = t.q(sql, id=id, now=now, idle=now - idle_seconds, **more)
    if not rows:
        return None
    row = rows[0]
    own = {name: row.pop(f"session_{name}") for name in _APP_FIELDS}
    if tenant is not None:
        own["tenant"] = tenant
    return AppSession(**own, user=User(**row))


def rotate(t: Any, id: str, generation: int, key_id: str, now: int, idle_seconds: int) -> bool:
    """The next generation of a live program's session, unless somebody else was faster."""
    rows = t.q(
        "update sessions set generation = generation + 1, key_id = :key_id, rotated_at = :now,"
        " seen_at = :now where id = :id and app = 1 and generation = :generation"
        " and expires_at > :now and seen_at > :idle returning id",
        id=id,
        generation=generation,
        key_id=key_id,
        now=now,
        idle=now - idle_seconds,
    )
    return bool(rows)


def choose(t: Any, id: str, tenant: str) -> None:
    t.q("update sessions set tenant = :tenant where id = :id", id=id, tenant=tenant)


def end_app(t: Any, id: str) -> bool:
    return bool(t.q("delete from sessions where id = :id and app = 1 returning id", id=id))


def end_by(t: Any, id: str, expires_at: int) -> None:
    """No later than this."""
    t.q(
        "update sessions set expires_at = :at where id = :id and expires_at > :at",
        id=id,
        at=expires_at,
    )


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
