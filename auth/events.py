"""What happened, for whoever has to find out later. Append-only (a trigger refuses the rest); no secrets.

Kinds follow the OWASP logging vocabulary where it has a word.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from auth.purging import purge as walk
from auth.typed import like

CODE_REQUESTED = "authn_code_requested"
LOGIN_SUCCESS = "authn_login_success"
LOGIN_FAIL = "authn_login_fail"
LOGIN_FAIL_MAX = "authn_login_fail_max"
LOGOUT_OTHERS = "authn_logout_others"
LIMIT_REACHED = "excess_rate_limit_exceeded"
DEVICE_ENDED = "authn_device_ended"
REFRESH_REUSED = "authn_token_reuse"
LOGOUT = "authn_logout"
USER_CREATED = "user_created"
USER_DELETED = "user_deleted"
USER_DISABLED = "user_disabled"
USER_ENABLED = "user_enabled"
REVIEW_ACCOUNT = "user_review_account"
USER_UPDATED = "user_updated"
ADDRESS_ASKED = "user_address_asked"
ADDRESS_CHANGED = "user_address_changed"
ADDRESS_RESTORED = "user_address_restored"
DATA_EXPORTED = "user_data_exported"
ROLE_CHANGED = "privilege_permissions_changed"
ROLE_SAVED = "role_saved"
ROLE_DELETED = "role_deleted"
TENANT_CREATED = "tenant_created"
TENANT_RENAMED = "tenant_renamed"
TENANT_DELETED = "tenant_deleted"
MEMBER_ADDED = "member_added"
MEMBER_REMOVED = "member_removed"
INVITATION_SENT = "invitation_sent"
INVITATION_ACCEPTED = "invitation_accepted"
INVITATION_DECLINED = "invitation_declined"
INVITATION_WITHDRAWN = "invitation_withdrawn"
MAIL_PAUSED = "sys_mail_paused"
MAIL_RESUMED = "sys_mail_resumed"
MAIL_RETRIED = "sys_mail_retried"
MAIL_DROPPED = "sys_mail_dropped"
EVENTS_PURGED = "sys_events_purged"
RESTORED = "sys_restored"
MAIL_BOUNCED = "sys_mail_bounced"  # its subject does not exist, the provider says

KINDS = (
    CODE_REQUESTED,
    LOGIN_SUCCESS,
    LOGIN_FAIL,
    LOGIN_FAIL_MAX,
    LOGOUT_OTHERS,
    LIMIT_REACHED,
    DEVICE_ENDED,
    REFRESH_REUSED,
    LOGOUT,
    USER_CREATED,
    USER_DELETED,
    USER_DISABLED,
    USER_ENABLED,
    REVIEW_ACCOUNT,
    USER_UPDATED,
    ADDRESS_ASKED,
    ADDRESS_CHANGED,
    ADDRESS_RESTORED,
    DATA_EXPORTED,
    ROLE_CHANGED,
    ROLE_SAVED,
    ROLE_DELETED,
    TENANT_CREATED,
    TENANT_RENAMED,
    TENANT_DELETED,
    MEMBER_ADDED,
    MEMBER_REMOVED,
    INVITATION_SENT,
    INVITATION_ACCEPTED,
    INVITATION_DECLINED,
    INVITATION_WITHDRAWN,
    MAIL_PAUSED,
    MAIL_RESUMED,
    MAIL_RETRIED,
    MAIL_DROPPED,
    EVENTS_PURGED,
    RESTORED,
    MAIL_BOUNCED,
)


@dataclass(frozen=True)
class Source:
    """Where a request came from. `client` is for counting only, and is stored nowhere."""

    network: str = ""  # the client's /24 or /48
    request_id: str = ""
    client: str = ""  # its /32 or /64


@dataclass(frozen=True)
class Event:
    id: str
    at: int
    kind: str
    actor: str  # the address of who did it, or the id of one who is gone; "" for a stranger, the command line
    subject: str
    network: str
    request_id: str
    detail: str
    tenant: str  # the id of the organisation it is about, "" for none
    organisation: str  # its name, or the id of one that is gone


def record(
    t: Any,
    id: str,
    now: int,
    kind: str,
    subject: str,
    source: Source,
    actor: str = "",
    detail: str = "",
    tenant: str = "",
    seconds: int = 0,
) -> None:
    t.q(
        "insert into events (id, at, kind, actor, subject, network, request_id, detail, tenant,"
        " seconds)"
        " values (:id, :now, :kind, :actor, :subject, :network, :request_id, :detail, :tenant,"
        " :seconds)",
        id=id,
        now=now,
        kind=kind,
        actor=actor,
        subject=subject,
        network=source.network,
        request_id=source.request_id,
        detail=detail,
        tenant=tenant,
        seconds=seconds,
    )


def count_before(t: Any, id: str) -> int:
    """How many are older than an id."""
    return int(t.q("select count(*) as n from events where id < :id", id=id)[0]["n"])


_LOOK = "select id as key from events where id > :after and id < :before order by id limit :step"
_PURGE = "delete from events where id > :start and id <= :after and id < :before returning id"


def purge(db: Any, before: str, step: int, told: Callable[[int], object]) -> int:
    """Delete those that are older than an id, and tell of each step. The trigger lets none go that is
    younger than 90 days."""
    return walk(db, _LOOK, _PURGE, step, told, before=before)


def tally(
    t: Any, since: str, until: str, kinds: tuple[str, ...]
) -> list[tuple[int, str, int, int]]:
    """How many of these four kinds between two ids: (days since 1970, kind, seconds that it took, n)."""
    a, b, c, d = kinds
    rows = t.q(
        "select at / 86400 as day, kind, seconds, count(*) as n from events where id > :since"
        " and id < :until and kind in (:a, :b, :c, :d) group by at / 86400, kind, seconds",
        since=since,
        until=until,
        a=a,
        b=b,
        c=c,
        d=d,
    )
    return [(int(r["day"]), r["kind"], int(r["seconds"]), int(r["n"])) for r in rows]


def about(t: Any, subject: str, limit: int) -> list[Event]:
    """What is known of one address, the newest first."""
    rows = t.q(_ABOUT, subject=subject, limit=limit)
    return [Event(**row) for row in rows]


def of_subject(t: Any, subject: str, since: str, limit: int) -> list[dict[str, Any]]:
    """What is known of an address since an id, the newest first: at, kind, network, detail, tenant."""
    return list(
        t.q(
            "select at, kind, network, detail, tenant from events where subject = :subject and id > :since"
            " order by id desc limit :limit",
            subject=subject,
            since=since,
            limit=limit,
        )
    )


_ALL = (
    "select e.id, e.at, e.kind, coalesce(u.address, e.actor) as actor, e.subject, e.network, e.request_id,"
    " e.detail, e.tenant, coalesce(g.name, e.tenant) as organisation from events e"
    " left join users u on u.id = e.actor left join tenants g on g.id = e.tenant"
)
_LAST = "z"  # greater than any id
_ABOUT = _ALL + " where e.subject = :subject order by e.id desc limit :limit"
# Index events_rare knows all but these, and only where a statement says so in its very words.
COMMON = (CODE_REQUESTED, LOGIN_SUCCESS, LOGIN_FAIL, LOGOUT)
_RARE = "e.kind = :kind and e.kind not in " + str(COMMON)
# One lower end, since an index takes no more: the period's, or where a look ends.
_BETWEEN = "e.id >= :since and e.id < :before"
_REACH = "select e.id from events e where {walk} order by e.id desc limit 1 offset :look"
_SEARCH = _ALL + " where {walk}{rest} order by e.id desc limit :limit"

# The same for who runs one organisation: of others' people and of the site's admins nothing.
_OWN = (
    "select e.id, e.at, e.kind, case when m.user_id is not null or u.address = e.subject then u.address"
    " when u.role = 'admin' then '' else e.actor end as actor, e.subject, case when m.user_id is null then ''"
    " else e.network end as network, e.request_id, e.detail, e.tenant, g.name as organisation"
    " from events e join tenants g on g.id = e.tenant"
    " left join users u on u.id = e.actor"
    " left join memberships m on m.tenant_id = e.tenant and m.user_id = e.actor"
    " where e.tenant = :tenant and e.tenant <> ''"
)
# Not by the index of organisations: of a large one all events would be walked through for one member.
_ABOUT_OWN = _OWN.replace("where e.tenant = :tenant", "where coalesce(e.tenant, '') = :tenant") + (
    " and e.subject = :subject order by e.id desc limit :limit"
)
_SEARCH_OWN = (
    _OWN + " and e.id >= :since and e.id < :before and (:kind = '' or e.kind = :kind)"
    " and (:like = '' or lower(e.subject) like :like escape '\\') order by e.id desc limit :limit"
)
_REACH_OWN = (
    "select e.id from events e where e.tenant = :tenant and e.tenant <> '' and e.id > :since"
    " and e.id < :before order by e.id desc limit 1 offset :look"
)


def about_in(t: Any, tenant: str, subject: str, limit: int) -> list[Event]:
    """What one organisation knows of an address, the newest first."""
    rows = t.q(_ABOUT_OWN, tenant=tenant, subject=subject, limit=limit)
    return [Event(**row) for row in rows]


def reach_in(t: Any, tenant: str, since: str, before: str, look: int) -> str:
    """As reach, of one organisation."""
    found = {"since": since, "before": before or _LAST, "look": look - 1}
    rows = t.q(_REACH_OWN, tenant=tenant, **found)
    return str(rows[0]["id"]) if rows else ""


def search_in(
    t: Any, tenant: str, query: str, kind: str, since: str, before: str, limit: int
) -> list[Event]:
    """As search, of one organisation."""
    params = {"kind": kind, "like": like(query) if query else "", "limit": limit}
    rows = t.q(_SEARCH_OWN, tenant=tenant, since=since, before=before or _LAST, **params)
    return [Event(**row) for row in rows]


@dataclass(frozen=True)
class Sought:
    """Which events. "" for any."""

    subject: str = ""  # exactly
    part: str = ""  # somewhere in their subject
    kind: str = ""

    @property
    def _walk(self) -> str:
        """What an index finds: those of one subject, of a kind that is rare, or all; the newest first."""
        if self.subject:
            return f"e.subject = :subject and {_BETWEEN}"
        return f"{_RARE} and {_BETWEEN}" if self._rare else _BETWEEN

    @property
    def _rest(self) -> str:
        """What each row is asked on that walk."""
        kind = " and e.kind = :kind" if self.kind and not self._rare else ""
        return kind + (" and lower(e.subject) like :like escape '\\'" if self.part else "")

    @property
    def _rare(self) -> bool:
        return bool(self.kind) and self.kind not in COMMON and not self.subject


def is_known(t: Any, subject: str) -> bool:
    """Has anything happened to exactly this one?"""
    sql = "select 1 from events where subject = :subject limit 1"
    return bool(t.q(sql, subject=subject))


def reach(t: Any, sought: Sought, since: str, before: str, look: int) -> str:
    """The last of `look` rows that a search would read; "" when it may read all."""
    if not sought._rest:
        return ""
    sql = _REACH.format(walk=sought._walk)
    rows = t.q(sql, look=look - 1, **_named(sought, since, before))
    return str(rows[0]["id"]) if rows else ""


def search(t: Any, sought: Sought, since: str, before: str, limit: int) -> list[Event]:
    """Those from one id on and before another ("": to the newest), the newest first."""
    sql = _SEARCH.format(walk=sought._walk, rest=sought._rest)
    rows = t.q(sql, limit=limit, **_named(sought, since, before))
    return [Event(**row) for row in rows]


def _named(sought: Sought, since: str, before: str) -> dict[str, str]:
    named = {"subject": sought.subject, "kind": sought.kind, "like": like(sought.part)}
    return named | {"since": since, "before": before or _LAST}
