"""What happened, for whoever has to find out later. Append-only (a trigger refuses the rest); no secrets.

Kinds follow the OWASP logging vocabulary where it has a word.
"""

from dataclasses import dataclass
from typing import Any

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
DATA_EXPORTED = "user_data_exported"
ROLE_CHANGED = "privilege_permissions_changed"
ROLE_SAVED = "role_saved"
ROLE_DELETED = "role_deleted"
TENANT_CREATED = "tenant_created"
TENANT_RENAMED = "tenant_renamed"
TENANT_DELETED = "tenant_deleted"
MEMBER_ADDED = "member_added"
MEMBER_REMOVED = "member_removed"
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
    DATA_EXPORTED,
    ROLE_CHANGED,
    ROLE_SAVED,
    ROLE_DELETED,
    TENANT_CREATED,
    TENANT_RENAMED,
    TENANT_DELETED,
    MEMBER_ADDED,
    MEMBER_REMOVED,
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
# One statement for all that may be asked for: the primary key finds the period, and "" asks for nothing.
_SEARCH = (
    _ALL + " where e.id > :since and e.id < :before and (:kind = '' or e.kind = :kind)"
    " and (:like = '' or lower(e.subject) like :like escape '\\') order by e.id desc limit :limit"
)


_OWN = " where e.tenant = :tenant and e.tenant <> ''"
_ABOUT_OWN = _ALL + _OWN + " and e.subject = :subject order by e.id desc limit :limit"
_SEARCH_OWN = (
    _ALL + _OWN + " and e.id > :since and e.id < :before and (:kind = '' or e.kind = :kind)"
    " and (:like = '' or lower(e.subject) like :like escape '\\') order by e.id desc limit :limit"
)


def about_in(t: Any, tenant: str, subject: str, limit: int) -> list[Event]:
    """What one organisation knows of an address, the newest first."""
    rows = t.q(_ABOUT_OWN, tenant=tenant, subject=subject, limit=limit)
    return [Event(**row) for row in rows]


def search_in(
    t: Any, tenant: str, query: str, kind: str, since: str, before: str, limit: int
) -> list[Event]:
    """As search, of one organisation."""
    params = {"kind": kind, "like": like(query) if query else "", "limit": limit}
    rows = t.q(_SEARCH_OWN, tenant=tenant, since=since, before=before or _LAST, **params)
    return [Event(**row) for row in rows]


def search(t: Any, query: str, kind: str, since: str, before: str, limit: int) -> list[Event]:
    """Those with `query` in their subject, of one kind, with ids between, the newest first. "" for any."""
    params = {"kind": kind, "like": like(query) if query else "", "limit": limit}
    rows = t.q(_SEARCH, since=since, before=before or _LAST, **params)
    return [Event(**row) for row in rows]
