"""Looking people up: the list, one person, the figures. It changes nobody. No HTTP, HTML or SQL."""

from dataclasses import dataclass
from typing import Any, Protocol

from auth import devices, events, roles, sessions, tenants, users
from auth.events import Event
from auth.office import PAGE_SIZE, Office, must, must_address, page_of, tidy_query
from auth.policy import Policy
from auth.roles import Role
from auth.sessions import Place
from auth.tenants import Membership
from auth.users import User

LATEST = 20  # events on the page of one person
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
    """One page of the list. `page` counts from 1."""

    users: list[User]
    total: int
    page: int
    pages: int
    query: str
    counts: dict[str, int]
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

    def find(self, query: str, page: int) -> PeoplePage:
        query = tidy_query(query)
        counts = self.counts()
        total = users.count(self.db, query) if query else counts["people"]
        page, pages, before = page_of(page, total)
        found = users.search(self.db, query, PAGE_SIZE, before)
        return PeoplePage(found, total, page, pages, query, counts, users.roles(self.db))

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
