"""Who is asked into an organisation: by address, once, for some days. SQL only; the rules are inviting.py's."""

from dataclasses import dataclass
from typing import Any

from auth.purging import purge as walk

OPEN, ACCEPTED, DECLINED, WITHDRAWN = "open", "accepted", "declined", "withdrawn"

_ALL = (
    "select i.id, i.tenant_id as tenant, g.name as organisation, i.user_id, i.address, i.role,"
    " case when m.user_id is not null then b.address when b.role = 'admin' then '' else i.invited_by"
    " end as invited_by, i.created_at, i.expires_at, i.state"
    " from invitations i join tenants g on g.id = i.tenant_id"
    " left join users b on b.id = i.invited_by"
    " left join memberships m on m.tenant_id = i.tenant_id and m.user_id = i.invited_by"
)
_OF_TENANT = (
    _ALL + " where i.tenant_id = :tenant and i.state in ('open', 'declined')"
    " order by i.created_at desc, i.address limit :limit offset :offset"
)
_IN_TENANT = _ALL + " where i.tenant_id = :tenant and i.id = :id"
_OF_PERSON = (
    _ALL + " where i.user_id = :user_id and i.address = :address and i.state = 'open'"
    " and i.expires_at > :now order by g.name, i.id"
)
_TO_PERSON = _ALL + " where i.id = :id and i.user_id = :user_id and i.address = :address"
_LOOK = "select id as key from invitations where id > :after order by id limit :step"
_PURGE = (
    "delete from invitations where id > :start and id <= :after and expires_at <= :now returning id"
)


@dataclass(frozen=True)
class Invitation:
    id: str
    tenant: str
    organisation: str  # its name
    user_id: str
    address: str  # that they had when they were asked
    role: str  # that they will have there
    # An address, or the id of one who is gone; "" for the site: who its admins are is told to nobody.
    invited_by: str
    created_at: int
    expires_at: int
    state: str


def end_every(t: Any) -> None:
    """All that are open are withdrawn."""
    sql = "update invitations set state = :gone where state = :open"
    t.q(sql, gone=WITHDRAWN, open=OPEN)


# ---- of one organisation
def put(
    t: Any,
    id: str,
    tenant: str,
    user_id: str,
    address: str,
    role: str,
    by: str,
    now: int,
    ends: int,
) -> str:
    """A new invitation, or the open one of this person anew. Its id."""
    rows = t.q(
        "insert into invitations"
        " (id, tenant_id, user_id, address, role, invited_by, created_at, expires_at)"
        " values (:id, :tenant, :user_id, :address, :role, :by, :now, :ends)"
        " on conflict (tenant_id, user_id) where state = 'open' do update set"
        " address = excluded.address, role = excluded.role, invited_by = excluded.invited_by,"
        " created_at = excluded.created_at, expires_at = excluded.expires_at returning id",
        id=id,
        tenant=tenant,
        user_id=user_id,
        address=address,
        role=role,
        by=by,
        now=now,
        ends=ends,
    )
    return str(rows[0]["id"])


def of_tenant(t: Any, tenant: str, limit: int, offset: int) -> list[Invitation]:
    """Those that nobody has accepted or taken back, the newest first, one page of them."""
    rows = t.q(_OF_TENANT, tenant=tenant, limit=limit, offset=offset)
    return [Invitation(**row) for row in rows]


def in_all(t: Any, tenant: str) -> int:
    """How many of_tenant has."""
    sql = "select count(*) as n from invitations where tenant_id = :tenant and state in ('open', 'declined')"
    return int(t.q(sql, tenant=tenant)[0]["n"])


def open_in(t: Any, tenant: str, now: int) -> int:
    """How many could be accepted."""
    sql = (
        "select count(*) as n from invitations where tenant_id = :tenant and state = 'open'"
        " and expires_at > :now"
    )
    return int(t.q(sql, tenant=tenant, now=now)[0]["n"])


def waits(t: Any, tenant: str, user_id: str, address: str, now: int) -> bool:
    """Is there one that this person could accept?"""
    sql = (
        "select 1 as one from invitations where tenant_id = :tenant and user_id = :user_id"
        " and address = :address and state = 'open' and expires_at > :now"
    )
    return bool(t.q(sql, tenant=tenant, user_id=user_id, address=address, now=now))


def in_tenant(t: Any, tenant: str, id: str) -> Invitation | None:
    rows = t.q(_IN_TENANT, tenant=tenant, id=id)
    return Invitation(**rows[0]) if rows else None


def renew(t: Any, tenant: str, id: str, now: int, ends: int) -> bool:
    """An open one gets its whole time once more, also when it had run out."""
    sql = (
        "update invitations set created_at = :now, expires_at = :ends"
        " where tenant_id = :tenant and id = :id and state = 'open' returning id"
    )
    return bool(t.q(sql, tenant=tenant, id=id, now=now, ends=ends))


def end(t: Any, tenant: str, id: str, state: str, now: int) -> bool:
    """One that could be accepted becomes one that can't. Once: of several at a time one is told True."""
    sql = (
        "update invitations set state = :state where tenant_id = :tenant and id = :id"
        " and state = 'open' and expires_at > :now returning id"
    )
    return bool(t.q(sql, tenant=tenant, id=id, state=state, now=now))


# ---- of one person: bound to who it was and to the address, both
def of_person(t: Any, user_id: str, address: str, now: int) -> list[Invitation]:
    """What they may accept, by the organisation's name."""
    rows = t.q(_OF_PERSON, user_id=user_id, address=address, now=now)
    return [Invitation(**row) for row in rows]


def to_person(t: Any, id: str, user_id: str, address: str) -> Invitation | None:
    rows = t.q(_TO_PERSON, id=id, user_id=user_id, address=address)
    return Invitation(**rows[0]) if rows else None


def kept_of(t: Any, user_id: str) -> list[dict[str, Any]]:
    """All that is kept of them for one person, the newest first: organisation, address, role, state, times."""
    return list(
        t.q(
            "select g.name as organisation, i.address, i.role, i.state, i.created_at, i.expires_at"
            " from invitations i join tenants g on g.id = i.tenant_id where i.user_id = :user_id"
            " order by i.created_at desc, i.id",
            user_id=user_id,
        )
    )


def purge(db: Any, now: int, step: int) -> int:
    """Delete those whose time was over at `now`. Says how many."""
    return walk(db, _LOOK, _PURGE, step, now=now)
