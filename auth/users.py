"""The people: one row each. SQL only; who may change whom is people.py."""

from dataclasses import dataclass, replace
from typing import Any

from auth.counted import Kind
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


def move(t: Any, id: str, address: str, spare: str) -> bool:
    """Another address; False when somebody has it.

    `spare`, a new id, takes it first: an insert gives way to who was faster, where an update would fail.
    """
    if not add(t, spare, address, "", "user", 0):
        return False
    delete(t, spare)
    t.q("update users set address = :address where id = :id", id=id, address=address)
    return True


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


# People without rights who never came. Who has a role in an organisation stays, and who is asked into one or has a
# code for reviewing: they may come yet.
# `coalesce` keeps SQLite from the index of roles, by which it would read everybody for each step.
_NEVER_CAME = (
    "activated_at is null and disabled_at is null and coalesce(role, '') = 'user' and created_at < :before"
    " and not exists (select 1 from memberships m where m.user_id = users.id"
    " and m.role <> 'user')"
    " and not exists (select 1 from invitations i where i.user_id = users.id and i.state = 'open'"
    " and i.expires_at > :now)"
    " and not exists (select 1 from reviewers r where r.user_id = users.id and r.expires_at > :now)"
)
_NEVER_CAME_NEXT = (
    "select id, address from users where id > :after and {never_came} order by id limit :most"
).replace("{never_came}", _NEVER_CAME)
_NEVER_CAME_DELETE = "delete from users where id = :id and {never_came} returning id"
_NEVER_CAME_DELETE = _NEVER_CAME_DELETE.replace("{never_came}", _NEVER_CAME)


def never_came(t: Any, after: str, before: int, now: int, most: int) -> list[tuple[str, str]]:
    """People without rights who were added before a time and never signed in: the next (id, address)."""
    rows = t.q(_NEVER_CAME_NEXT, after=after, before=before, now=now, most=most)
    return [(row["id"], row["address"]) for row in rows]


def delete_never_came(t: Any, id: str, before: int, now: int) -> bool:
    """One of them, if that is still so."""
    return bool(t.q(_NEVER_CAME_DELETE, id=id, before=before, now=now))


def active_admins(t: Any) -> int:
    sql = "select count(*) as n from users where role = 'admin' and disabled_at is null"
    return int(t.q(sql)[0]["n"])


def roles(t: Any) -> list[str]:
    return [row["name"] for row in t.q("select name from roles order by name")]


@dataclass(frozen=True)
class Wanted:
    """Which people, and in which order. "" for any."""

    query: str = ""  # somewhere in name or address
    role: str = ""
    state: str = ""  # a key of STATES
    seen: str = ""  # SEEN: they signed in lately
    sort: str = "address"  # a key of SORTS, behind a - when it goes down

    @property
    def by(self) -> str:
        return self.sort.removeprefix("-")

    @property
    def down(self) -> bool:
        return self.sort.startswith("-")

    def params(self) -> dict[str, str]:
        """What it is in a URL."""
        usual = Wanted()
        return {
            ("q" if k == "query" else k): v
            for k, v in self.__dict__.items()
            if v != getattr(usual, k)
        }


EVERYBODY = Wanted()
SEEN = "week"
STATES = {
    "active": "activated_at is not null and disabled_at is null",
    "invited": "activated_at is null and disabled_at is null",
    "disabled": "disabled_at is not null",
}
# Each ends with what nobody shares, so that a page can begin behind a person. For each there is an index.
SORTS = {
    "address": ("address",),
    "name": ("sought",),
    "role": ("role", "address"),
    "seen": ("coalesce(signed_in_at, 0)", "id"),
    "added": ("created_at", "id"),
}
TOGETHER = ("address", "name", "role")  # orders in which an index has those of one role together
Spot = tuple[Any, ...]
ANY = "1 = 1"
NEAR = 2000  # of those that a search found in an index: who is looked at for the other filters
# Between the braces goes what is written in this file, and nothing that anybody typed.
_SPOT = "select {columns} from users where id = :id"
_SEARCH = "select * from users where {which} and {beyond} order by {order} limit :limit"
# Only who is found is read from the table: the rest is in an index.
_NEAR = (
    "select * from users where {key} in (select {key} from users where {like} and {beyond}"
    " order by {order} limit :near) and {which} order by {order} limit :limit"
)
_REACH = (
    "select {columns} from users where {which} and {beyond} order by {order} limit 1 offset :look"
)
_FIGURES = "select {sums} from users"
_ADMIN = "role = 'admin' and disabled_at is null"
_SUM = "coalesce(sum(case when {} then 1 else 0 end), 0) as {}"
_LIKE = "sought like :like escape '\\'"


def spot(t: Any, id: str, by: str) -> Spot:
    """Where a person stands in this order; () for one who is not there."""
    sql = _SPOT.format(columns=_columns(by))
    rows = t.q(sql, id=id)
    return tuple(rows[0].values()) if rows else ()


def search(
    t: Any,
    wanted: Wanted,
    since: int,
    limit: int,
    spot: Spot = (),
    back: bool = False,
    few: bool = False,
    reach: Spot = (),
    near: bool = False,
) -> list[User]:
    """The next of those people behind a spot, or in front of it, the nearest first; none behind `reach`.

    No page has a number in it: to leave out 99,975 people takes as long as to read them. `few`: better
    to find all and sort them than to walk along an order past everybody else. `near`: see in_index.
    """
    down = wanted.down != back
    which, named = _which(replace(wanted, query="") if near else wanted, since, few)
    keys = tuple(f"coalesce({key}, {key})" for key in SORTS[wanted.by]) if few else SORTS[wanted.by]
    sql = (_NEAR if near else _SEARCH).format(
        key=keys[0],
        like=_LIKE,
        which=which,
        beyond=_beyond(keys, down, named, spot, reach),
        order=_order(keys, down),
    )
    if near:
        named |= {"like": like(wanted.query), "near": NEAR if which != ANY else limit}
    return [of(row) for row in t.q(sql, limit=limit, **named)]


def in_index(wanted: Wanted) -> bool:
    """Is all that is searched in an index that has this order?"""
    return bool(wanted.query) and wanted.by in ("address", "name") and not wanted.role


def reach(
    t: Any,
    wanted: Wanted,
    look: int,
    spot: Spot = (),
    back: bool = False,
    within: Spot = (),
    found: bool = False,
) -> Spot:
    """The spot behind so many people, along the order that is wanted; () when there are not so many.

    Of all people, or of a role that this order has together; `found`: of those whom a search finds, `within` a reach.
    """
    down, keys = wanted.down != back, SORTS[wanted.by]
    together = replace(wanted, state="", seen="")
    if not found:
        together = replace(together, query="")
    if wanted.by not in TOGETHER:
        together = replace(together, role="")
    which, named = _which(together, 0, few=False)
    sql = _REACH.format(
        columns=_columns(wanted.by),
        which=which,
        beyond=_beyond(keys, down, named, spot, within),
        order=_order(keys, down),
    )
    rows = t.q(sql, look=look - 1, **named)
    return tuple(rows[0].values()) if rows else ()


def at(t: Any, wanted: Wanted, place: Spot) -> User | None:
    """Who stands at this spot of the order, or nearest in front of it where they have just gone elsewhere."""
    named: dict[str, Any] = {}
    down, keys = wanted.down, SORTS[wanted.by]
    sql = _SEARCH.format(
        which=ANY, beyond=_beyond(keys, down, named, (), place), order=_order(keys, not down)
    )
    rows = t.q(sql, limit=1, **named)
    return of(rows[0]) if rows else None


def more_than(t: Any, n: int) -> bool:
    """Are there more people than this?"""
    return bool(t.q("select 1 from users order by address limit 1 offset :n", n=n))


def kinds(t: Any, since: int, place: Spot, step: int) -> tuple[dict[Kind, int], Spot]:
    """How many of each kind there are among the next people who were added, and behind whom the next step begins;
    () after the last."""
    behind = dict(zip(("at", "id"), place, strict=True))
    rows = t.q(_KINDS, since=since, step=step, **behind)
    found = {Kind(row["role"], row["state"], row["recent"]): int(row["n"]) for row in rows}
    last = t.q(_KINDS_TO, skip=step - 1, **behind)
    return found, tuple(last[0].values()) if last else ()


_STATE = "case when disabled_at is not null then 'disabled' when activated_at is null then 'invited' else 'active' end"
_KINDS = (
    "select role, {state} as state, case when signed_in_at >= :since then 1 else 0 end as recent,"
    " count(*) as n from (select * from users where (created_at, id) > (:at, :id)"
    " order by created_at, id limit :step) as step group by 1, 2, 3"
).replace("{state}", _STATE)
_KINDS_TO = (
    "select created_at, id from users where (created_at, id) > (:at, :id)"
    " order by created_at, id limit 1 offset :skip"
)


def found(
    t: Any, wanted: Wanted, since: int, spot: Spot = (), back: bool = False
) -> dict[str, int]:
    """The figures of `counts`; how many are `found`, and how many of them come `earlier`: up to the spot,
    or in front of it when one goes `back`. All of it in one walk through the table.
    """
    which, named = _which(wanted, since, few=True)
    earlier = "1 = 0"
    if spot:
        side = (">" if wanted.down else "<") + ("" if back else "=")
        keys = ", ".join(SORTS[wanted.by])
        earlier = f"{which} and ({keys}) {side} ({_put(named, spot)})"
    more = _SUM.format(which, "found"), _SUM.format(earlier, "earlier")
    return _figures(t, *more, **named | {"since": since})


def counts(t: Any, since: int) -> dict[str, int]:
    """How many people there are, active admins, disabled, and signed in since a time."""
    return _figures(t, since=since)


def _figures(t: Any, *more: str, **named: Any) -> dict[str, int]:
    sums = (
        "count(*) as people",
        _SUM.format(_ADMIN, "admins"),
        _SUM.format("disabled_at is not null", "disabled"),
        _SUM.format("signed_in_at >= :since", "recent"),
        *more,
    )
    sql = _FIGURES.format(sums=", ".join(sums))
    return {name: int(n) for name, n in t.q(sql, **named)[0].items()}


def _which(wanted: Wanted, since: int, few: bool) -> tuple[str, dict[str, Any]]:
    """The condition, and its parameters."""
    clauses: list[str] = []
    named: dict[str, Any] = {}
    if wanted.query:
        clauses.append(_LIKE)
        named["like"] = like(wanted.query)
    if wanted.state:
        clauses.append(STATES[wanted.state])
    if wanted.seen:
        clauses.append("coalesce(signed_in_at, 0) >= :since")
        named["since"] = since
    if wanted.role:
        # SQLite would take the index of roles in any case, and then sort all who have the role.
        # Most are `user`; those of another role are few.
        helps = wanted.role != "user" if few else wanted.by in TOGETHER
        clauses.append("role = :role" if helps else "coalesce(role, '') = :role")
        named["role"] = wanted.role
    return " and ".join(clauses) or ANY, named


def _columns(by: str) -> str:
    return ", ".join(f"{key} as k{i}" for i, key in enumerate(SORTS[by]))


def _order(keys: Spot, down: bool) -> str:
    return ", ".join(f"{key} desc" if down else key for key in keys)


def _beyond(keys: Spot, down: bool, named: dict[str, Any], spot: Spot, reach: Spot) -> str:
    """Behind the one and not behind the other, in this order."""
    side, clauses = "<" if down else ">", []
    if spot:
        clauses.append(f"({', '.join(keys)}) {side} ({_put(named, spot)})")
    if reach:
        other = ">" if down else "<"
        clauses.append(f"({', '.join(keys)}) {other}= ({_put(named, reach, 'r')})")
    return " and ".join(clauses) or ANY


def _put(named: dict[str, Any], spot: Spot, letter: str = "k") -> str:
    """The place as parameters of a statement."""
    keys = {f"{letter}{i}": value for i, value in enumerate(spot)}
    named |= keys
    return ", ".join(f":{key}" for key in keys)
