"""What happened, for whoever has to find out later. Append-only (a trigger refuses the rest); no secrets.

Kinds follow the OWASP logging vocabulary where it has a word.
"""

from dataclasses import dataclass
from typing import Any

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
TENANT_CREATED = "tenant_created"
TENANT_DELETED = "tenant_deleted"
MEMBER_ADDED = "member_added"
MEMBER_REMOVED = "member_removed"
MAIL_PAUSED = "sys_mail_paused"
MAIL_RESUMED = "sys_mail_resumed"
MAIL_RETRIED = "sys_mail_retried"
MAIL_DROPPED = "sys_mail_dropped"
MAIL_BOUNCED = "sys_mail_bounced"  # its subject does not exist, the provider says


@dataclass(frozen=True)
class Source:
    """Where a request came from. `client` is for counting only, and is stored nowhere."""

    network: str = ""  # the client's /24 or /48
    request_id: str = ""
    client: str = ""  # its /32 or /64


def record(
    t: Any,
    id: str,
    now: int,
    kind: str,
    subject: str,
    source: Source,
    actor: str = "",
    detail: str = "",
) -> None:
    t.q(
        "insert into events (id, at, kind, actor, subject, network, request_id, detail)"
        " values (:id, :now, :kind, :actor, :subject, :network, :request_id, :detail)",
        id=id,
        now=now,
        kind=kind,
        actor=actor,
        subject=subject,
        network=source.network,
        request_id=source.request_id,
        detail=detail,
    )


def of_subject(t: Any, subject: str, limit: int) -> list[dict[str, Any]]:
    """What is known of an address, the newest first: at, kind, network, detail."""
    return list(
        t.q(
            "select at, kind, network, detail from events where subject = :subject"
            " order by id desc limit :limit",
            subject=subject,
            limit=limit,
        )
    )
