"""Who is signed in where: one row a browser, found by the digest of its cookie, or a program. SQL only."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from auth import users
from auth.purging import purge as walk
from auth.tenants import Membership
from auth.users import User

_FIND = (
    "select s.id as session_id, s.data as session_data, s.seen_at as session_seen_at,"
    " s.created_at as session_created_at, t.id as session_tenant, t.name as session_tenant_name,"
    " m.role as session_role, u.id, u.address, u.name, u.role, u.timezone, u.created_at,"
    " u.activated_at, u.signed_in_at, u.disabled_at from sessions s join users u on u.id = s.user_id"
    " left join tenants t on t.id = s.tenant"
    " left join memberships m on m.tenant_id = s.tenant and m.user_id = s.user_id"
    " where s.token = :token and s.expires_at > :now and s.seen_at > :idle and u.disabled_at is null"
)

# One row for each membership, and one for who has none.
_APP = (
    "select s.created_at as s_created_at, s.expires_at as s_expires_at, s.generation, s.key_id,"
    " s.rotated_at, s.tenant, m.tenant_id, m.role as m_role, t.name as t_name,"
    " u.id, u.address, u.name, u.role, u.timezone, u.created_at, u.activated_at, u.signed_in_at,"
    " u.disabled_at from sessions s join users u on u.id = s.user_id"
    " left join memberships m on m.user_id = s.user_id left join tenants t on t.id = m.tenant_id"
    " where s.id = :id and s.app = 1 and s.expires_at > :now and s.seen_at > :idle"
    " and u.disabled_at is null"
)


@dataclass(frozen=True)
class Session:
    id: str
    data: str
    seen_at: int
    created_at: int
    # Where they work, when they may; its role is "" for a site admin alone.
    tenant: Membership | None
    user: User


class Ended(NamedTuple):
    user_id: str
    data: str
    tenant: str
    seen_at: int
    expires_at: int

    def alive(self, now: int, idle_seconds: int) -> bool:
        return self.expires_at > now and self.seen_at > now - idle_seconds


@dataclass(frozen=True)
class Place:
    """Where somebody is signed in, as they may see it."""

    id: str
    app: int
    kind: str  # of device; "" for one we don't know
    network: str
    created_at: int
    seen_at: int


@dataclass(frozen=True)
class AppSession:
    """A program's session, with its person as they are at this moment."""

    id: str
    created_at: int
    expires_at: int
    generation: int  # of the refresh token that is next
    key_id: str  # what that one is derived with
    rotated_at: int
    tenant: str  # chosen last; "" for none
    memberships: tuple[Membership, ...]
    user: User

    def role_in(self, tenant: str) -> str | None:
        """The membership's; None: they are no member."""
        return next((m.role for m in self.memberships if m.tenant == tenant), None)


def start(
    t: Any,
    id: str,
    token: str,
    user_id: str,
    kind: str,
    network: str,
    data: str,
    tenant: str,
    now: int,
    expires_at: int,
) -> None:
    t.q(
        "insert into sessions (id, token, user_id, kind, network, data, tenant, created_at, seen_at,"
        " expires_at) values (:id, :token, :user_id, :kind, :network, :data, :tenant, :now, :now,"
        " :expires_at)",
        tenant=tenant,
        kind=kind,
        network=network,
        data=data,
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
    user, role = users.of(row), row["session_role"]
    own = row["session_id"], row["session_data"], row["session_seen_at"], row["session_created_at"]
    tenant = None
    if row["session_tenant"] and (role or user.role == "admin"):
        tenant = Membership(row["session_tenant"], row["session_tenant_name"], role or "")
    return Session(*own, tenant, user)


def start_app(
    t: Any,
    id: str,
    user_id: str,
    key_id: str,
    tenant: str,
    kind: str,
    network: str,
    now: int,
    expires_at: int,
) -> None:
    """A program's session, with the refresh token of generation 0 next. No cookie is one: see 0006_apps.sql."""
    t.q(
        "insert into sessions (id, token, user_id, kind, network, created_at, seen_at, expires_at, app,"
        " key_id, tenant) values (:id, :id, :user_id, :kind, :network, :now, :now, :expires_at, 1,"
        " :key_id, :tenant)",
        kind=kind,
        network=network,
        id=id,
        user_id=user_id,
        key_id=key_id,
        tenant=tenant,
        now=now,
        expires_at=expires_at,
    )


def app(t: Any, id: str, now: int, idle_seconds: int) -> AppSession | None:
    """A program's live session. Read at each call, never cached, as `find` is."""
    rows = t.q(_APP, id=id, now=now, idle=now - idle_seconds)
    if not rows:
        return None
    r = rows[0]
    joined = (Membership(m["tenant_id"], m["t_name"], m["m_role"]) for m in rows if m["tenant_id"])
    memberships = tuple(sorted(joined, key=lambda m: (m.name, m.tenant)))
    own = r["s_created_at"], r["s_expires_at"], r["generation"], r["key_id"], r["rotated_at"]
    return AppSession(id, *own, r["tenant"], memberships, users.of(r))


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


def settle(t: Any, user_id: str, tenant: str) -> None:
    """In browsers where this person works nowhere yet they work here from now on. Programs choose themselves."""
    t.q(
        "update sessions set tenant = :tenant where user_id = :user_id and tenant = '' and app = 0",
        user_id=user_id,
        tenant=tenant,
    )


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


def end(t: Any, token: str) -> Ended | None:
    """The session of a token's digest; what it was."""
    rows = t.q(
        "delete from sessions where token = :token returning user_id, data, tenant, seen_at,"
        " expires_at",
        token=token,
    )
    return Ended(**rows[0]) if rows else None


def end_own(t: Any, id: str, user_id: str) -> bool:
    """One of this person's; False for one that is nobody's or another's."""
    rows = t.q(
        "delete from sessions where id = :id and user_id = :user_id returning id",
        id=id,
        user_id=user_id,
    )
    return bool(rows)


def end_others(t: Any, user_id: str, but: str) -> int:
    """All of this person's but one. Says how many."""
    rows = t.q(
        "delete from sessions where user_id = :user_id and id <> :but returning id",
        user_id=user_id,
        but=but,
    )
    return len(rows)


def end_every(t: Any) -> int:
    return len(t.q("delete from sessions returning id"))


def of_user(t: Any, user_id: str, now: int, idle: int, app_idle: int) -> list[Place]:
    """Where this person is signed in, the newest use first. Idle times in seconds."""
    rows = t.q(
        "select id, app, kind, network, created_at, seen_at from sessions where user_id = :user_id"
        " and expires_at > :now and seen_at > case when app = 1 then :app_idle else :idle end"
        " order by seen_at desc, id",
        user_id=user_id,
        now=now,
        idle=now - idle,
        app_idle=now - app_idle,
    )
    return [Place(**row) for row in rows]


def end_idlest(t: Any, user_id: str, new: str, most: int) -> None:
    """All but the new one and those that were used last, `most` together."""
    own = t.q("select count(*) as n from sessions where user_id = :user_id", user_id=user_id)
    if own[0]["n"] <= most:
        return
    t.q(
        "delete from sessions where user_id = :user_id and id <> :new and id not in (select id from"
        " sessions where user_id = :user_id and id <> :new order by seen_at desc, id limit :others)",
        user_id=user_id,
        new=new,
        others=most - 1,
    )


def end_all(t: Any, user_id: str) -> None:
    t.q("delete from sessions where user_id = :user_id", user_id=user_id)


_LOOK = "select id as key from sessions where id > :after order by id limit :step"
_PURGE = (
    "delete from sessions where id > :start and id <= :after and expires_at <= :now returning id"
)


def purge(db: Any, now: int, step: int) -> int:
    """Delete what has ended. Says how many."""
    return walk(db, _LOOK, _PURGE, step, now=now)
