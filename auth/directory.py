"""Looking people up: the list, one person, the figures. It changes nobody. No HTTP, HTML or SQL."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

from auth import devices, events, roles, sessions, tenants, users
from auth.addresses import canonical
from auth.counting import WEEK, Counted, Counting
from auth.events import Event
from auth.office import PAGE_SIZE, must, must_address, tidy_query
from auth.policy import Policy
from auth.roles import Role
from auth.sessions import Place
from auth.tenants import Membership
from auth.users import EVERYBODY, Spot, User, Wanted

LATEST = 20  # events on the page of one person
FEW = 4  # fewer than one of so many: found first, and sorted then
STEP = 1000  # people who are read at once where all are
# Of very many people (counting.MANY) no page reads all, and a search says how far it looked.
LOOK, LOOK_IN_INDEX = 20_000, 200_000  # people whom one page looks through
RARE = 400  # fewer than one of so many of them: not sought along an order, but all found first


@dataclass(frozen=True)
class PersonPage:
    """One person, as admins see them."""

    user: User
    places: list[Place]
    memberships: list[Membership]
    browsers: int  # that know them
    events: list[Event]  # about them, the newest first
    here: str  # the id of the session that looks


@dataclass(frozen=True)
class PeoplePage:
    """One page of the list. Of very many people not all is known."""

    users: list[User]
    wanted: Wanted
    total: int | None  # found, on all pages
    first: int | None  # which of them this page begins with, from 1
    after: str  # the id that the next page begins behind; "" on the last
    before: str  # the id that the page before ends in front of; "" on the first
    counts: dict[str, int]  # of everybody
    roles: list[str]
    here: Mapping[str, str] = field(default_factory=dict)  # this page, in a URL
    counted_at: int | None = None  # when, where that is not now
    looked_to: User | None = None  # up to whom these are all, where others may come behind


class SigningIn(Protocol):
    """What these rules need of those of signing in."""

    @property
    def policy(self) -> Policy: ...

    def mail_waiting(self, t: Any, address: str) -> None:
        """Whoever may sign in from now on gets the mail that they wait for."""

    def end_all(self, t: Any, user: User) -> None:
        """Sessions, known browsers and pending sign-ins of one person."""


@dataclass(frozen=True)
class Directory(Counting):
    """`look_at`, `look_in_index`: among how many people one page seeks where there are more than `many`."""

    signin: SigningIn
    look_at: int = LOOK
    look_in_index: int = LOOK_IN_INDEX

    ASKED: ClassVar = ("q", "role", "state", "seen", "sort", "after", "before")

    def tidy(
        self, query: str = "", role: str = "", state: str = "", seen: str = "", sort: str = ""
    ) -> Wanted:
        """What was asked for, without what nobody has."""
        return Wanted(
            tidy_query(query),
            role if role in users.roles(self.db) else "",
            state if state in users.STATES else "",
            seen if seen == users.SEEN else "",
            sort if sort.removeprefix("-") in users.SORTS else EVERYBODY.sort,
        )

    def page(self, asked: Mapping[str, str]) -> PeoplePage:
        """The page that a URL asks for."""
        *wanted, after, before = (asked.get(name, "") for name in self.ASKED)
        return self.find(self.tidy(*wanted), after, before)

    def find(self, wanted: Wanted = EVERYBODY, after: str = "", before: str = "") -> PeoplePage:
        """The page behind or in front of the person with this id; the first one when nobody has it."""
        spot, back = self._spot(before, wanted), True
        if not spot:
            spot, back = self._spot(after, wanted), False
        last = self.last_count()
        if last:
            found = self._find_in_many(wanted, spot, back, last)
        else:
            found = self._find_in_all(wanted, spot, back)
        here = {"before": before} if back else {"after": after}
        return replace(found, here=wanted.params() | (here if found.first != 1 else {}))

    def _find_in_all(self, wanted: Wanted, spot: Spot, back: bool) -> PeoplePage:
        since = int(self.clock()) - WEEK
        counts = users.found(self.db, wanted, since, spot, back)
        total, earlier = counts.pop("found"), counts.pop("earlier")
        # What fits on the first page is the first page, and behind the last there is none.
        if earlier <= PAGE_SIZE if back else earlier in (0, total):
            spot, back, earlier = (), False, 0
        few, most = total * FEW < counts["people"], PAGE_SIZE if back else PAGE_SIZE + 1
        rows = users.search(self.db, wanted, since, most, spot, back, few) if total else []
        if back:
            rows, earlier = rows[::-1], earlier - len(rows)
        more = back or len(rows) > PAGE_SIZE
        rows = rows[:PAGE_SIZE]
        return PeoplePage(
            users=rows,
            wanted=wanted,
            total=max(total, earlier + len(rows)),  # since they were counted some have come
            first=earlier + 1,
            after=rows[-1].id if more and rows else "",
            before=rows[0].id if spot and rows else "",
            counts=counts,
            roles=users.roles(self.db),
        )

    def _find_in_many(self, wanted: Wanted, spot: Spot, back: bool, last: Counted) -> PeoplePage:
        """The same where all are too many to be looked at."""
        rows, reach = self._near(wanted, spot, back, last)
        if back and len(rows) <= PAGE_SIZE:
            spot, back = (), False
            rows, reach = self._near(wanted, spot, back, last)
        more = back or len(rows) > PAGE_SIZE
        rows = rows[:PAGE_SIZE][:: -1 if back else 1]
        looked_to = users.at(self.db, wanted, reach) if reach and not more else None
        last_one = looked_to or (rows[-1] if more else None)
        whole = not spot and not last_one
        known = max(last.total(wanted), len(rows) + more)  # since it was counted some have come
        total = len(rows) if whole else None if wanted.query else known
        return PeoplePage(
            users=rows,
            wanted=wanted,
            total=total,
            first=None if spot else 1,
            after=last_one.id if last_one else "",
            before=rows[0].id if spot and rows else "",
            counts=last.counts(),
            roles=users.roles(self.db),
            counted_at=last.at,
            looked_to=looked_to,
        )

    def _near(
        self, wanted: Wanted, spot: Spot, back: bool, last: Counted
    ) -> tuple[list[User], Spot]:
        """The next of them; and up to where people were looked at, where others may come behind."""
        since, most, by = int(self.clock()) - WEEK, PAGE_SIZE + 1, wanted.by
        found = wanted.query and users.by_address(self.db, canonical(wanted.query) or "")
        if found and wanted == Wanted(wanted.query, sort=wanted.sort):
            # Who types a whole address seeks no other one that ends like it.
            return [] if spot else [found], ()
        # By an index, or because a walk would hardly meet one of them.
        among = last.total(Wanted(role=wanted.role if by in users.TOGETHER else ""))
        few = self._by_index(wanted, last) or last.total(wanted) * RARE < among
        open_to_all = not (wanted.query or wanted.state or wanted.seen)
        if few or (open_to_all and (not wanted.role or by in users.TOGETHER)):
            return users.search(self.db, wanted, since, most, spot, back, few), ()
        near = users.in_index(wanted)
        look = self.look_in_index if near else self.look_at
        reach = users.reach(self.db, wanted, look, spot, back)
        if near and (wanted.state or wanted.seen):
            narrow = users.reach(self.db, wanted, users.NEAR, spot, back, reach, True)
            reach = narrow or reach
        rows = users.search(self.db, wanted, since, most, spot, back, reach=reach, near=near)
        return rows, reach

    def _by_index(self, wanted: Wanted, last: Counted) -> bool:
        """Does an index find few enough to read and sort them all?"""
        disabled = wanted.state if wanted.state == "disabled" else ""
        role = wanted.role if wanted.by not in users.TOGETHER else ""
        indexed = [w for w in (Wanted(role=role), Wanted(state=disabled)) if w != EVERYBODY]
        return any(last.total(w) <= self.look_at // 2 for w in indexed)

    def each(self, query: str) -> Iterator[User]:
        """All of them with this in name or address, by address."""
        wanted, spot = self.tidy(query), Spot()
        while rows := users.search(self.db, wanted, 0, STEP, spot):
            yield from rows
            spot = (rows[-1].address,)

    def _spot(self, id: str, wanted: Wanted) -> Spot:
        return users.spot(self.db, id, wanted.by) if id.isalnum() else ()

    def counts(self) -> tuple[dict[str, int], int | None]:
        """Of everybody; and when that was, where it is not now."""
        last = self.last_count()
        if last:
            return last.counts(), last.at
        return users.counts(self.db, int(self.clock()) - WEEK), None

    def look(self, id: str, here: str = "") -> PersonPage:
        """Raises Refused `user_unknown`."""
        user, now = self._person(self.db, id), int(self.clock())
        p = self.signin.policy
        idle = p.session_idle_seconds, p.refresh_idle_seconds
        places = sessions.of_user(self.db, user.id, now, *idle)
        joined = tenants.of_user(self.db, user.id)
        browsers = len(devices.times_of(self.db, user.id))
        latest = events.about(self.db, user.address, LATEST)
        return PersonPage(user, places, joined, browsers, latest, here)

    def roles(self) -> list[Role]:
        return roles.every(self.db)

    def notice(self, done: str, id: str) -> tuple[str, str] | None:
        """(what was done, to whom), for the page after it."""
        user = users.by_id(self.db, id) if id.isalnum() else None
        return (done, user.address) if user else None

    def is_admin(self, id: str) -> bool:
        """Disabled or not."""
        user = users.by_id(self.db, id) if id.isalnum() else None
        return user is not None and user.role == "admin"

    def by_address(self, typed: str) -> User:
        return must(users.by_address(self.db, must_address(typed)))
