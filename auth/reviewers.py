"""People who test an app for its store, with a code that stays the same for a while. SQL only."""

from dataclasses import dataclass
from typing import Any

REVIEW = "review"  # what their code is derived for


@dataclass(frozen=True)
class Reviewer:
    user_id: str
    nonce: str
    key_id: str
    network: str
    created_at: int
    expires_at: int


_FIELDS = tuple(Reviewer.__dataclass_fields__)


def put(t: Any, reviewer: Reviewer) -> None:
    """The reviewer's row, in place of an earlier one."""
    t.q(
        "insert into reviewers (user_id, nonce, key_id, network, created_at, expires_at)"
        " values (:user_id, :nonce, :key_id, :network, :created_at, :expires_at)"
        " on conflict (user_id) do update set nonce = excluded.nonce, key_id = excluded.key_id,"
        " network = excluded.network, created_at = excluded.created_at, expires_at = excluded.expires_at",
        **reviewer.__dict__,
    )


def of_address(t: Any, address: str, now: int) -> Reviewer | None:
    rows = t.q(
        "select r.* from reviewers r join users u on u.id = r.user_id"
        " where u.address = :address and r.expires_at > :now",
        address=address,
        now=now,
    )
    return Reviewer(*[rows[0][name] for name in _FIELDS]) if rows else None


def end(t: Any, user_id: str) -> bool:
    sql = "delete from reviewers where user_id = :user_id returning user_id"
    return bool(t.q(sql, user_id=user_id))


def end_every(t: Any) -> None:
    t.q("delete from reviewers")


def purge(t: Any, now: int) -> int:
    """Delete those whose time is over. Says how many."""
    return len(t.q("delete from reviewers where expires_at <= :now returning user_id", now=now))
