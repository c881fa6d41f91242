"""Looking people up: the list, one person, the figures. It changes nobody. No HTTP, HTML or SQL."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from auth import devices, events, roles, sessions, tenants, users
from auth.events import Event
from auth.office import PAGE_SIZE, Office, must, must_address, tidy_query
from auth.policy import Policy
from auth.roles import Role
from auth.sessions import Place
from auth.tenants import Membership
from auth.users import EVERYBODY, Spot, User, Wanted

LATEST = 20  # events on the page of one person
FEW = 4  # fewer than one of so many: found first, and sorted then
STEP = 1000  # people who are read at once where all are
WEEK = 7 * 86400


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
    """One page of the list."""

    users: list[User]
    wanted: Wanted
    total: int  # found, on all pages
    first: int  # which of them this page begins with, from 1
    after: str  # the id that the next page begins behind; "" on the last
    before: str  # the id that the page before ends in front of; "" on the first
    here: dict[str, str]  # this page, in a URL
    counts: dict[str, int]  # of everybody
    roles: list[str]


class SigningIn(Protocol):
    """What these rules need of those of signing in."""

    @property
    def policy(self) -> Policy: ...

    def mail_waiting(self, t: Any, address: str) -> None:
        """Whoever may sign in from now on gets the mail that they wait for."""

    def end_all(self, t: Any, user: User) -> None:
        """Sessions, known browsers and pending sign-ins of one person."""


@dataclass(frozen=True)
class Directory(Office):
    signin: SigningIn

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
        since = int(self.clock()) - WEEK
        spot, back = self._spot(before, wanted), True
        if not spot:
            spot, back = self._spot(after, wanted), False
        counts = users.found(self.db, wanted, since, spot, back)
        total, earlier = counts.pop("found"), counts.pop("earlier")
        # What fits on the first page is the first page, and behind the last there is none.
        if earlier <= PAGE_SIZE if back else earlier == total:
            spot, back, earlier = (), False, 0
        few, most = total * FEW < counts["people"], PAGE_SIZE if back else PAGE_SIZE + 1
        rows = users.search(self.db, wanted, since, most, spot, back, few) if total else []
        if back:
            rows, earlier = rows[::-1], earlier - len(rows)
        more = back or len(rows) > PAGE_SIZE
        rows = rows[:PAGE_SIZE]
        here = {"before": before} if back else {"after": after} if spot else {}
        return PeoplePage(
            users=rows,
            wanted=wanted,
            total=total,
            first=earlier + 1,
            after=rows[-1].id if more and rows else "",
            before=rows[0].id if spot and rows else "",
            here=wanted.params() | here,
            counts=counts,
            roles=users.roles(self.db),
        )

    def each(self, query: str) -> Iterator[User]:
        """All of them with this in name or address, by address."""
        wanted, spot = self.tidy(query), Spot()
        while rows := users.search(self.db, wanted, 0, STEP, spot):
            yield from rows
            spot = (rows[-1].address,)

    def _spot(self, id: str, wanted: Wanted) -> Spot:
        return users.spot(self.db, id, wanted.by) if id.isalnum() else ()

    def counts(self) -> dict[str, int]:
        return users.counts(self.db, int(self.clock()) - WEEK)

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
