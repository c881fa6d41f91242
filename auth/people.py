"""THE RULES about people: who may be added, promoted, disabled. No HTTP, HTML or SQL."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from auth import devices, events, reviewers, roles, sessions, tenants, users
from auth.addresses import canonical
from auth.events import Event, Source
from auth.keys import Keys
from auth.networks import is_network
from auth.policy import Policy, Refused
from auth.reviewers import REVIEW, Reviewer
from auth.roles import Role
from auth.sessions import Place
from auth.tenants import Membership
from auth.users import User

MAX_NAME = 200
PAGE_SIZE = 25
LATEST = 20  # events on the page of one person
WEEK = 7 * 86400
MAX_REVIEW_DAYS = 90
KEPT_ROLES = ("admin", "user")
# Two admins who demote each other at the same moment must not both find the other still there.
PEOPLE_LOCK = 726355


def still_admin(t: Any, actor: User | None) -> None:
    """An admin who was demoted a moment ago may have a request under way. Raises Refused."""
    now = users.by_id(t, actor.id) if actor else None
    if actor and (now is None or now.role != "admin" or now.disabled_at is not None):
        raise Refused("not_admin")


@dataclass(frozen=True)
class PersonPage:
    """One person, as admins see them."""

    user: User
    places: list[Place]
    memberships: list[Membership]
    browsers: int  # that know them
    events: list[Event]  # about them, the newest first
    here: str  # the id of the session that looks


def review_ends(t: Any, user: User) -> None:
    """Somebody gets rights: a code that others know must not have them, nor what it has opened."""
    users.hold(
        t, user.id
    )  # a sign-in with that code which is under way is waited for, and ends here
    if reviewers.end(t, user.id):
        sessions.end_all(t, user.id)


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
class People:
    """`actor` is the user who asks, or None for the command line, which may do everything but end the last admin."""

    db: Any
    keys: Keys
    clock: Callable[[], float]
    signin: SigningIn

    def find(self, query: str, page: int) -> PeoplePage:
        query = query.strip()[:MAX_NAME].replace("\0", "")
        counts = self.counts()
        total = users.count(self.db, query) if query else counts["people"]
        pages = max(1, -(-total // PAGE_SIZE))
        page = max(1, min(page, pages))
        found = users.search(self.db, query, PAGE_SIZE, (page - 1) * PAGE_SIZE)
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

    def end_session(self, actor: User | None, id: str, session: str, source: Source) -> User:
        """One of theirs. Raises Refused `session_unknown`."""
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            user = self._person(t, id)
            if not session.isalnum() or not sessions.end_own(t, session, user.id):
                raise Refused("session_unknown")
            self._record(t, events.LOGOUT, actor, user.address, source, "one of theirs")
        return user

    def sign_out(self, actor: User | None, id: str, source: Source) -> User:
        """All sessions, known browsers and pending sign-ins of one person."""
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            user = self._person(t, id)
            users.hold(t, user.id)
            self.signin.end_all(t, user)
            self._record(t, events.LOGOUT, actor, user.address, source, "everywhere")
        return user

    def add(self, actor: User | None, typed: str, name: str, role: str, source: Source) -> User:
        address, name, role = canonical(typed), name.strip(), role or "user"
        if not typed.strip():
            raise Refused("email_missing")
        if address is None:
            raise Refused("email_invalid")
        if len(name) > MAX_NAME or not name.isprintable():
            raise Refused("name_invalid", most=MAX_NAME)
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            self._known_role(t, role)
            if not users.add(t, self.keys.new_id(), address, name, role, int(self.clock())):
                raise Refused("user_exists", address=address)
            self._record(t, events.USER_CREATED, actor, address, source, role)
            self.signin.mail_waiting(t, address)
            return self._must(users.by_address(t, address))

    def set_role(self, actor: User | None, id: str, role: str, source: Source) -> User:
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            self._known_role(t, role)
            user = self._person(t, id)
            if role != user.role:
                self._not_oneself(actor, user, "role_self")
                users.set_role(t, id, role)
                self._keep_an_admin(t)
                review_ends(t, user)
                self._record(
                    t, events.ROLE_CHANGED, actor, user.address, source, f"{user.role} → {role}"
                )
            return self._person(t, id)

    def disable(self, actor: User | None, id: str, source: Source) -> User:
        """No sign-in, no session, until enabled again."""
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            user = self._person(t, id)
            self._not_oneself(actor, user, "disable_self")
            users.disable(t, id, int(self.clock()))
            self._keep_an_admin(t)
            self._keep_their_admins(t, [m.tenant for m in tenants.of_user(t, id)], 1)
            self.signin.end_all(t, user)
            if user.disabled_at is None:
                self._record(t, events.USER_DISABLED, actor, user.address, source)
            return self._person(t, id)

    def enable(self, actor: User | None, id: str, source: Source) -> User:
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            user = self._person(t, id)
            users.enable(t, id)
            if user.disabled_at is not None:
                self._record(t, events.USER_ENABLED, actor, user.address, source)
                self.signin.mail_waiting(t, user.address)
            return self._person(t, id)

    def delete(self, actor: User | None, id: str, source: Source) -> None:
        """The row and all sessions. The same address, added again, is a new person without old rights."""
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            user = self._person(t, id)
            self._not_oneself(actor, user, "delete_self")
            joined = [m.tenant for m in tenants.of_user(t, id)]
            users.delete(t, id)
            self._keep_an_admin(t)
            self._keep_their_admins(t, joined, 0)
            self.signin.end_all(t, user)
            self._record(t, events.USER_DELETED, actor, user.address, source)

    def add_reviewer(
        self, actor: User | None, typed: str, days: float, network: str, source: Source
    ) -> tuple[User, str, int]:
        """Somebody who tests an app for its store: (the person, their code, when it ends).

        The code stays the same, since they can't read a mail. So it counts from one network only, for a
        person without any rights, and ends by itself. Once more makes a new one in place of the old.
        """
        address, now = self._must_address(typed), int(self.clock())
        if not 0 < days <= MAX_REVIEW_DAYS:  # also for what is no number
            raise Refused("review_days", most_days=MAX_REVIEW_DAYS)
        if not is_network(network):
            raise Refused("review_network")
        nonce, key, ends = self.keys.new_nonce(), self.keys.current, now + int(days * 86400)
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            users.add(t, self.keys.new_id(), address, "", "user", now)
            user = self._must(users.by_address(t, address))
            users.hold(
                t, user.id
            )  # a sign-in with the code before this one is waited for, or waits
            if user.role != "user" or tenants.of_user(t, user.id):
                raise Refused("review_rights")
            sessions.end_all(t, user.id)
            reviewers.put(t, Reviewer(user.id, nonce, key, network, now, ends))
            detail = f"{network} until {ends}"
            self._record(t, events.REVIEW_ACCOUNT, actor, address, source, detail)
        return user, self.keys.long_code(key, REVIEW, nonce, address) or "", ends

    # ---- roles
    def roles(self) -> list[Role]:
        return roles.every(self.db)

    def put_role(self, actor: User | None, name: str, description: str, source: Source) -> None:
        """A new role, or another description of one. What it may do is the app's to say."""
        name, description = name.strip(), description.strip()
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name):
            raise Refused("role_invalid")
        if len(description) > MAX_NAME or not description.isprintable():
            raise Refused("name_invalid", most=MAX_NAME)
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            roles.put(t, name, description)
            self._record(t, events.ROLE_SAVED, actor, name, source, description)

    def delete_role(self, actor: User | None, name: str, source: Source) -> None:
        """Only one that nobody has; `admin` and `user` stay."""
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            found = next((role for role in roles.every(t) if role.name == name), None)
            if found is None:
                raise Refused("role_unknown")
            if found.people or name in KEPT_ROLES:
                raise Refused("role_used", people=found.people)
            roles.delete(t, name)
            self._record(t, events.ROLE_DELETED, actor, name, source)

    def ensure_admins(self, addresses: tuple[str, ...]) -> None:
        """ADMIN_EMAILS: each is an active admin after the start, whatever it was before."""
        for typed in addresses:
            address = self._must_address(typed)
            with self.db.tx(lock=PEOPLE_LOCK) as t:
                user = users.by_address(t, address)
                if user and user.role == "admin" and user.disabled_at is None:
                    continue
                now = int(self.clock())
                users.add(t, self.keys.new_id(), address, "", "admin", now)
                found = self._must(users.by_address(t, address))
                users.set_role(t, found.id, "admin")
                users.enable(t, found.id)
                review_ends(t, found)
                self._record(t, events.ROLE_CHANGED, None, address, Source(), "ADMIN_EMAILS")

    def notice(self, done: str, id: str) -> tuple[str, str] | None:
        """(what was done, to whom), for the page after it."""
        user = users.by_id(self.db, id) if id.isalnum() else None
        return (done, user.address) if user else None

    def is_admin(self, id: str) -> bool:
        """Disabled or not."""
        user = users.by_id(self.db, id) if id.isalnum() else None
        return user is not None and user.role == "admin"

    def by_address(self, typed: str) -> User:
        return self._must(users.by_address(self.db, self._must_address(typed)))

    def _must_address(self, typed: str) -> str:
        address = canonical(typed)
        if address is None:
            raise Refused("email_invalid")
        return address

    def _person(self, t: Any, id: str) -> User:
        return self._must(users.by_id(t, id) if id.isalnum() else None)

    def _must(self, user: User | None) -> User:
        if user is None:
            raise Refused("user_unknown")
        return user

    def _known_role(self, t: Any, role: str) -> None:
        if role not in users.roles(t):
            raise Refused("role_unknown")

    def _not_oneself(self, actor: User | None, user: User, reason: str) -> None:
        if actor and actor.id == user.id:
            raise Refused(reason)

    def _keep_an_admin(self, t: Any) -> None:
        """After the change and before the commit: raising takes the change back."""
        if not users.active_admins(t):
            raise Refused("last_admin")

    def _keep_their_admins(self, t: Any, joined: list[str], besides: int) -> None:
        """The same for the organisations that they are in; one without other people goes on as it is."""
        if any(not tenants.admins(t, id) and tenants.in_all(t, id) > besides for id in joined):
            raise Refused("last_tenant_admin")

    def _record(
        self, t: Any, kind: str, actor: User | None, subject: str, source: Source, detail: str = ""
    ) -> None:
        now = self.clock()
        by = actor.id if actor else ""
        id = self.keys.new_sorted_id(now)
        events.record(t, id, int(now), kind, subject, source, by, detail)
