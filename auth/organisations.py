"""THE RULES about organisations and who is in them. No HTTP, HTML or SQL."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from auth import events, tenants, users
from auth.addresses import canonical
from auth.events import Source
from auth.keys import Keys
from auth.people import MAX_NAME, PAGE_SIZE, PEOPLE_LOCK, review_ends, still_admin
from auth.policy import Refused
from auth.tenants import Found, Member, Membership, Tenant
from auth.users import User


@dataclass(frozen=True)
class TenantsPage:
    """One page of the list. `page` counts from 1."""

    rows: list[Found]
    total: int
    page: int
    pages: int
    query: str


@dataclass(frozen=True)
class MembersPage:
    """One organisation, and one page of who is in it."""

    tenant: Tenant
    rows: list[Member]
    total: int
    page: int
    pages: int
    roles: list[str]


def _page(number: int, total: int) -> tuple[int, int]:
    """(the page that there is, how many there are)."""
    pages = max(1, -(-total // PAGE_SIZE))
    return max(1, min(number, pages)), pages


@dataclass(frozen=True)
class Organisations:
    """`actor` is the site admin who asks, or None for the command line.

    An organisation begins with an admin of its own, and keeps one.
    """

    db: Any
    keys: Keys
    clock: Callable[[], float]

    def find(self, query: str, number: int) -> TenantsPage:
        query = query.strip()[:MAX_NAME].replace("\0", "")
        total = tenants.count(self.db, query)
        page, pages = _page(number, total)
        rows = tenants.search(self.db, query, PAGE_SIZE, (page - 1) * PAGE_SIZE)
        return TenantsPage(rows, total, page, pages, query)

    def look(self, id: str, number: int) -> MembersPage:
        """One organisation and who is in it. Raises Refused `tenant_unknown`."""
        tenant = self._tenant(self.db, id)
        total = tenants.in_all(self.db, id)
        page, pages = _page(number, total)
        rows = tenants.members_of(self.db, id, PAGE_SIZE, (page - 1) * PAGE_SIZE)
        return MembersPage(tenant, rows, total, page, pages, users.roles(self.db))

    def all(self) -> list[Tenant]:
        return tenants.every(self.db)

    def of(self, user: User) -> list[Membership]:
        return tenants.of_user(self.db, user.id)

    def create(self, actor: User | None, name: str, admin: str, source: Source) -> Tenant:
        """A new organisation, run by the person with the address `admin`."""
        name = self._name(name)
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            user, id = self._person(t, admin), self.keys.new_id()
            tenants.add(t, id, name, int(self.clock()))
            tenants.join(t, id, user.id, "admin", int(self.clock()))
            review_ends(t, user)
            self._record(t, events.TENANT_CREATED, actor, name, source, id)
            self._record(t, events.MEMBER_ADDED, actor, user.address, source, f"{id} admin")
            return self._tenant(t, id)

    def rename(self, actor: User | None, id: str, name: str, source: Source) -> Tenant:
        name = self._name(name)
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            before = self._tenant(t, id)
            if before.name == name:
                return before
            tenants.rename(t, id, name)
            self._record(t, events.TENANT_RENAMED, actor, name, source, f"{id} was {before.name}")
            return self._tenant(t, id)

    def delete(self, actor: User | None, id: str, source: Source) -> None:
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            tenant = self._tenant(t, id)
            tenants.delete(t, id)
            self._record(t, events.TENANT_DELETED, actor, tenant.name, source, id)

    def join(
        self, actor: User | None, id: str, address: str, role: str, source: Source
    ) -> Membership:
        """A member from now on, or with another role. It counts at their next request."""
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            tenant, user = self._tenant(t, id), self._person(t, address)
            if role not in users.roles(t):
                raise Refused("role_unknown")
            before = tenants.role_of(t, id, user.id)
            tenants.join(t, id, user.id, role, int(self.clock()))
            review_ends(t, user)
            self._keep_an_admin(t, id)
            if before is None:
                self._record(t, events.MEMBER_ADDED, actor, user.address, source, f"{id} {role}")
            elif before != role:
                change = f"{id} {before} → {role}"
                self._record(t, events.ROLE_CHANGED, actor, user.address, source, change)
            return Membership(id, tenant.name, role)

    def leave(self, actor: User | None, id: str, address: str, source: Source) -> None:
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor)
            self._tenant(t, id)
            user = self._person(t, address)
            if not tenants.leave(t, id, user.id):
                raise Refused("user_unknown")
            self._keep_an_admin(t, id)
            self._record(t, events.MEMBER_REMOVED, actor, user.address, source, id)

    def remove(self, actor: User | None, id: str, user_id: str, source: Source) -> None:
        """As leave, for who is known by their id."""
        user = users.by_id(self.db, user_id) if user_id.isalnum() else None
        self.leave(actor, id, user.address if user else "", source)

    def _name(self, name: str) -> str:
        name = name.strip()
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise Refused("name_invalid", most=MAX_NAME)
        return name

    def _keep_an_admin(self, t: Any, id: str) -> None:
        """After the change and before the commit: raising takes the change back."""
        if not tenants.admins(t, id):
            raise Refused("last_tenant_admin")

    def _tenant(self, t: Any, id: str) -> Tenant:
        found = tenants.by_id(t, id) if id.isalnum() else None
        if found is None:
            raise Refused("tenant_unknown")
        return found

    def _person(self, t: Any, typed: str) -> User:
        address = canonical(typed)
        user = users.by_address(t, address) if address else None
        if user is None:
            raise Refused("user_unknown")
        return user

    def _record(
        self, t: Any, kind: str, actor: User | None, subject: str, source: Source, detail: str
    ) -> None:
        now = self.clock()
        id = self.keys.new_sorted_id(now)
        events.record(t, id, int(now), kind, subject, source, actor.id if actor else "", detail)
