"""THE RULES about organisations and who is in them. No HTTP, HTML or SQL."""

from dataclasses import dataclass
from typing import Any

from auth import events, tenants, users
from auth.addresses import canonical
from auth.events import Source
from auth.office import (
    PAGE_SIZE,
    Office,
    keep_their_admins,
    must,
    page_of,
    review_ends,
    tidy_name,
    tidy_query,
)
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


class Organisations(Office):
    """An organisation begins with an admin of its own, and keeps one."""

    def find(self, query: str, number: int) -> TenantsPage:
        query = tidy_query(query)
        total = tenants.count(self.db, query)
        page, pages, before = page_of(number, total)
        rows = tenants.search(self.db, query, PAGE_SIZE, before)
        return TenantsPage(rows, total, page, pages, query)

    def look(self, id: str, number: int) -> MembersPage:
        """One organisation and who is in it. Raises Refused `tenant_unknown`."""
        tenant = self._tenant(self.db, id)
        total = tenants.in_all(self.db, id)
        page, pages, before = page_of(number, total)
        rows = tenants.members_of(self.db, id, PAGE_SIZE, before)
        return MembersPage(tenant, rows, total, page, pages, users.roles(self.db))

    def all(self) -> list[Tenant]:
        return tenants.every(self.db)

    def of(self, user: User) -> list[Membership]:
        return tenants.of_user(self.db, user.id)

    def create(self, actor: User | None, name: str, admin: str, source: Source) -> Tenant:
        """A new organisation, run by the person with the address `admin`."""
        name = tidy_name(name)
        with self._change(actor) as t:
            user, id = self._who(t, admin), self.keys.new_id()
            tenants.add(t, id, name, int(self.clock()))
            tenants.join(t, id, user.id, "admin", int(self.clock()))
            review_ends(t, user)
            self._record(t, events.TENANT_CREATED, actor, name, source, tenant=id)
            self._record(t, events.MEMBER_ADDED, actor, user.address, source, "admin", id)
            return self._tenant(t, id)

    def rename(self, actor: User | None, id: str, name: str, source: Source) -> Tenant:
        name = tidy_name(name)
        with self._change(actor) as t:
            before = self._tenant(t, id)
            if before.name == name:
                return before
            tenants.rename(t, id, name)
            self._record(t, events.TENANT_RENAMED, actor, name, source, f"was {before.name}", id)
            return self._tenant(t, id)

    def delete(self, actor: User | None, id: str, source: Source) -> None:
        with self._change(actor) as t:
            tenant = self._tenant(t, id)
            tenants.delete(t, id)
            self._record(t, events.TENANT_DELETED, actor, tenant.name, source, tenant=id)

    def join(
        self, actor: User | None, id: str, address: str, role: str, source: Source
    ) -> Membership:
        """A member from now on, or with another role. It counts at their next request."""
        with self._change(actor) as t:
            tenant, user = self._tenant(t, id), self._who(t, address)
            self._known_role(t, role)
            before = tenants.role_of(t, id, user.id)
            tenants.join(t, id, user.id, role, int(self.clock()))
            review_ends(t, user)
            keep_their_admins(t, [id])
            if before is None:
                self._record(t, events.MEMBER_ADDED, actor, user.address, source, role, id)
            elif before != role:
                change = f"{before} → {role}"
                self._record(t, events.ROLE_CHANGED, actor, user.address, source, change, id)
            return Membership(id, tenant.name, role)

    def leave(self, actor: User | None, id: str, address: str, source: Source) -> None:
        with self._change(actor) as t:
            self._tenant(t, id)
            user = self._who(t, address)
            if not tenants.leave(t, id, user.id):
                raise Refused("user_unknown")
            keep_their_admins(t, [id])
            self._record(t, events.MEMBER_REMOVED, actor, user.address, source, tenant=id)

    def remove(self, actor: User | None, id: str, user_id: str, source: Source) -> None:
        """As leave, for who is known by their id."""
        user = users.by_id(self.db, user_id) if user_id.isalnum() else None
        self.leave(actor, id, user.address if user else "", source)

    def _tenant(self, t: Any, id: str) -> Tenant:
        found = tenants.by_id(t, id) if id.isalnum() else None
        if found is None:
            raise Refused("tenant_unknown")
        return found

    def _who(self, t: Any, typed: str) -> User:
        address = canonical(typed)
        return must(users.by_address(t, address) if address else None)
