"""The people: one row each. SQL only; who may change whom is people.py."""

from dataclasses import dataclass
from typing import Any

from auth.typed import like


@dataclass(frozen=True)
class User:
    id: str
    address: str
    name: str
    role: str
    timezone: str
    created_at: int
    activated_at: int | None
    signed_in_at: int | None
    disabled_at: int | None

    def __str__(self) -> str:
        return self.address


_FIELDS = tuple(User.__dataclass_fields__)


def of(row: dict[str, Any]) -> User:
    # By name: newer code, in a process beside this one, may have added columns.
    return User(*[row[name] for name in _FIELDS])


def by_address(t: Any, address: str) -> User | None:
    rows = t.q("select * from users where address = :address", address=address)
    return of(rows[0]) if rows else None


def by_id(t: Any, id: str) -> User | None:
    rows = t.q("select * from users where id = :id", id=id)
    return of(rows[0]) if rows else None


def add(t: Any, id: str, address: str, name: str, role: str, now: int) -> bool:
    """False when the address is there already."""
    return bool(
        t.q(
            "insert into users (id, address, name, role, created_at)"
            " values (:id, :address, :name, :role, :now) on conflict (address) do nothing returning id",
            id=id,
            address=address,
            name=name,
            role=role,
            now=now,
        )
    )


def arrive(t: Any, address: str, timezone: str | None, now: int) -> User | None:
    """Note a sign-in. None for an address that nobody has or that is disabled."""
    rows = t.q(
        "update users set signed_in_at = :now, activated_at = coalesce(activated_at, :now),"
        " timezone = case when zone_chosen = 1 then timezone else coalesce(:timezone, timezone) end"
        " where address = :address and disabled_at is null returning *",
        address=address,
        timezone=timezone,
        now=now,
    )
    return of(rows[0]) if rows else None


def hold(t: Any, id: str) -> None:
    """Let nobody else change this person, or sign in as them, until this transaction ends."""
    t.q("update users set id = id where id = :id", id=id)


def hold_every(t: Any) -> None:
    """The same for everybody."""
    t.q("update users set id = id")


def set_role(t: Any, id: str, role: str) -> None:
    t.q("update users set role = :role where id = :id", id=id, role=role)


def rename(t: Any, id: str, name: str, timezone: str) -> None:
    t.q(
        "update users set name = :name, timezone = :zone, zone_chosen = 1 where id = :id",
        id=id,
        name=name,
        zone=timezone,
    )


def disable(t: Any, id: str, now: int) -> None:
    t.q("update users set disabled_at = coalesce(disabled_at, :now) where id = :id", id=id, now=now)


def enable(t: Any, id: str) -> None:
    t.q("update users set disabled_at = null where id = :id", id=id)


def delete(t: Any, id: str) -> None:
    t.q("delete from users where id = :id", id=id)


def active_admins(t: Any) -> int:
    sql = "select count(*) as n from users where role = 'admin' and disabled_at is null"
    return int(t.q(sql)[0]["n"])


def roles(t: Any) -> list[str]:
    return [row["name"] for row in t.q("select name from roles order by name")]


def count(t: Any, text: str) -> int:
    """How many people have `text` in their address or name."""
    rows = t.q(
        "select count(*) as n from users"
        " where lower(address) like :like escape '\\' or lower(name) like :like escape '\\'",
        like=like(text),
    )
    return int(rows[0]["n"])


def search(t: Any, text: str, limit: int, offset: int) -> list[User]:
    """Those people, by address, one page of them."""
    rows = t.q(
        "select * from users"
        " where lower(address) like :like escape '\\' or lower(name) like :like escape '\\'"
        " order by address limit :limit offset :offset",
        like=like(text),
        limit=limit,
        offset=offset,
    )
    return [of(row) for row in rows]


def counts(t: Any, since: int) -> dict[str, int]:
    """How many people there are, active admins, disabled, and signed in since a time."""
    row = t.q(
        "select count(*) as people,"
        " coalesce(sum(case when role = 'admin' and disabled_at is null then 1 else 0 end), 0) as admins,"
        " coalesce(sum(case when disabled_at is not null then 1 else 0 end), 0) as disabled,"
        " coalesce(sum(case when signed_in_at >= :since then 1 else 0 end), 0) as recent from users",
        since=since,
    )[0]
    return {name: int(n) for name, n in row.items()}
