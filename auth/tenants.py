"""Organisations, and who is in them with which role. SQL only; who may change them is organisations.py."""

from dataclasses import dataclass
from typing import Any

from auth.typed import like


@dataclass(frozen=True)
class Tenant:
    id: str
    name: str
    created_at: int


@dataclass(frozen=True)
class Membership:
    tenant: str
    name: str  # the tenant's
    role: str  # inside it


def add(t: Any, id: str, name: str, now: int) -> None:
    t.q(
        "insert into tenants (id, name, created_at) values (:id, :name, :now)",
        id=id,
        name=name,
        now=now,
    )


def by_id(t: Any, id: str) -> Tenant | None:
    rows = t.q("select id, name, created_at from tenants where id = :id", id=id)
    return Tenant(**rows[0]) if rows else None


def every(t: Any) -> list[Tenant]:
    return [
        Tenant(**row) for row in t.q("select id, name, created_at from tenants order by name, id")
    ]


@dataclass(frozen=True)
class Found:
    """An organisation in a list."""

    id: str
    name: str
    created_at: int
    members: int


@dataclass(frozen=True)
class Member:
    """A person inside one organisation."""

    user_id: str
    address: str
    name: str
    role: str  # inside it
    created_at: int  # of the membership
    signed_in_at: int | None
    disabled_at: int | None


def count(t: Any, text: str) -> int:
    sql = "select count(*) as n from tenants where lower(name) like :like escape '\\'"
    return int(t.q(sql, like=like(text))[0]["n"])


def search(t: Any, text: str, limit: int, offset: int) -> list[Found]:
    """Those with `text` in their name, by name, one page of them."""
    rows = t.q(
        "select t.id, t.name, t.created_at,"
        " (select count(*) from memberships m where m.tenant_id = t.id) as members from tenants t"
        " where lower(t.name) like :like escape '\\' order by t.name, t.id limit :limit offset :offset",
        like=like(text),
        limit=limit,
        offset=offset,
    )
    return [Found(**row) for row in rows]


_THERE = " from memberships m join users u on u.id = m.user_id where m.tenant_id = :tenant"
_MEMBER = (
    "select m.user_id, u.address, u.name, m.role, m.created_at, u.signed_in_at, u.disabled_at"
    + _THERE
)
_ONE = _MEMBER + " and m.user_id = :user_id"
_HOLDS = " and (:like = '' or u.sought like :like escape '\\')"
_SOME = _MEMBER + _HOLDS
_PAGE = " limit :limit offset :offset"
_SORTED = {
    "address": _SOME + " order by u.address" + _PAGE,
    "name": _SOME + " order by u.name = '', u.sought" + _PAGE,
    "role": _SOME + " order by m.role, u.address" + _PAGE,
    "since": _SOME + " order by m.created_at desc, u.address" + _PAGE,
}
SORTS = tuple(_SORTED)
_HOW_MANY = "select count(*) as n" + _THERE + _HOLDS
_FIGURES = (
    "select count(*) as members,"
    " coalesce(sum(case when u.signed_in_at >= :since then 1 else 0 end), 0) as recent" + _THERE
)


def members(t: Any, tenant: str, text: str, sort: str, limit: int, offset: int) -> list[Member]:
    """Who is in it with `text` in their address or name, "" for all, one page of them. `sort`: see SORTS."""
    found = {"like": like(text) if text else "", "limit": limit, "offset": offset}
    return [Member(**row) for row in t.q(_SORTED[sort], tenant=tenant, **found)]


def count_members(t: Any, tenant: str, text: str) -> int:
    rows = t.q(_HOW_MANY, tenant=tenant, like=like(text) if text else "")
    return int(rows[0]["n"])


def member(t: Any, tenant: str, user_id: str) -> Member | None:
    rows = t.q(_ONE, tenant=tenant, user_id=user_id)
    return Member(**rows[0]) if rows else None


def figures(t: Any, tenant: str, since: int) -> dict[str, int]:
    """How many are in it, and how many of them have signed in since a time."""
    (row,) = t.q(_FIGURES, tenant=tenant, since=since)
    return {name: int(n) for name, n in row.items()}


def in_all(t: Any, tenant: str) -> int:
    rows = t.q("select count(*) as n from memberships where tenant_id = :tenant", tenant=tenant)
    return int(rows[0]["n"])


def rename(t: Any, id: str, name: str) -> None:
    t.q("update tenants set name = :name where id = :id", id=id, name=name)


def delete(t: Any, id: str) -> None:
    t.q("delete from tenants where id = :id", id=id)


def of_user(t: Any, user_id: str) -> list[Membership]:
    rows = t.q(
        "select m.tenant_id as tenant, t.name, m.role from memberships m join tenants t"
        " on t.id = m.tenant_id where m.user_id = :user_id order by t.name, t.id",
        user_id=user_id,
    )
    return [Membership(**row) for row in rows]


def role_of(t: Any, tenant: str, user_id: str) -> str | None:
    rows = t.q(
        "select role from memberships where tenant_id = :tenant and user_id = :user_id",
        tenant=tenant,
        user_id=user_id,
    )
    return str(rows[0]["role"]) if rows else None


def join(t: Any, tenant: str, user_id: str, role: str, now: int) -> None:
    """A member from now on, or with another role."""
    t.q(
        "insert into memberships (tenant_id, user_id, role, created_at)"
        " values (:tenant, :user_id, :role, :now)"
        " on conflict (tenant_id, user_id) do update set role = excluded.role",
        tenant=tenant,
        user_id=user_id,
        role=role,
        now=now,
    )


def leave(t: Any, tenant: str, user_id: str) -> bool:
    rows = t.q(
        "delete from memberships where tenant_id = :tenant and user_id = :user_id returning role",
        tenant=tenant,
        user_id=user_id,
    )
    return bool(rows)


def admins(t: Any, tenant: str) -> int:
    """How many who may run it: its admins who are not disabled."""
    # `coalesce` keeps SQLite from the index of roles, which has the admins of all organisations.
    rows = t.q(
        "select count(*) as n from memberships m join users u on u.id = m.user_id"
        " where m.tenant_id = :tenant and coalesce(m.role, '') = 'admin' and u.disabled_at is null",
        tenant=tenant,
    )
    return int(rows[0]["n"])
