"""THE RULES about organisations, as the site's admins have them; inside one: members.py. No HTTP, HTML or SQL."""

from dataclasses import dataclass
from typing import Any

from auth import events, sessions, tenants, users
from auth.addresses import canonical
from auth.events import Source
from auth.members import Members
from auth.office import (
    PAGE_SIZE,
    PEOPLE_LOCK,
    keep_their_admins,
    must_address,
    page_of,
    review_ends,
    tidy_name,
    tidy_query,
)
from auth.policy import Refused
from auth.tenants import Found, Membership, Tenant
from auth.users import User


@dataclass(frozen=True)
class TenantsPage:
    """One page of the list. `page` counts from 1."""

    rows: list[Found]
    total: int
    page: int
    pages: int
    query: str


class Organisations(Members):
    """An organisation begins with an admin of its own, and keeps one.

    Whoever comes into their first one works there from now on, as after a sign-in.
    """

    def find(self, query: str, number: int) -> TenantsPage:
        query = tidy_query(query)
        total = tenants.count(self.db, query)
        page, pages, before = page_of(number, total)
        rows = tenants.search(self.db, query, PAGE_SIZE, before)
        return TenantsPage(rows, total, page, pages, query)

    def all(self) -> list[Tenant]:
        return tenants.every(self.db)

    def of(self, user: User) -> list[Membership]:
        return tenants.of_user(self.db, user.id)

    def create(self, actor: User | None, name: str, admin: str, source: Source) -> Tenant:
        """A new organisation, run by the person with the address `admin`."""
        name = tidy_name(name)
        with self._change(actor) as t:
            user, id, now = self._who(t, admin), self.keys.new_id(), int(self.clock())
            tenants.add(t, id, name, now)
            first = not tenants.of_user(t, user.id)
            tenants.join(t, id, user.id, "admin", now)
            review_ends(t, user)
            if first:
                sessions.settle(t, user.id, id)
            self._record(t, events.TENANT_CREATED, actor, name, source, tenant=id)
            self._record(t, events.MEMBER_ADDED, actor, user.address, source, "admin", id)
        return Tenant(id, name, now)

    def delete(self, actor: User | None, id: str, source: Source) -> None:
        with self._inside(actor, id, PEOPLE_LOCK, site=True) as s:
            tenants.delete(s.t, id)
            self._note(s, events.TENANT_DELETED, actor, s.tenant.name, source)

    def join(
        self,
        actor: User | None,
        id: str,
        address: str,
        role: str,
        source: Source,
        again: bool = True,
    ) -> Membership:
        """A member from now on, or with another role. It counts at their next request.

        Without `again` nobody who is in it already gets another role: Refused `member_already`.
        """
        # Before the door, behind which there are no other organisations to be in.
        known = users.by_address(self.db, canonical(address) or "")
        first = known is not None and not tenants.of_user(self.db, known.id)
        with self._inside(actor, id, PEOPLE_LOCK, site=True) as s:
            user = self._who(s.t, address)
            self._known_role(s.t, role)
            before = s.role_of(user.id)
            if before is not None and not again:
                raise Refused("member_already", address=user.address)
            s.put(user.id, role, int(self.clock()))
            review_ends(s.t, user)
            if first:
                sessions.settle(s.t, user.id, id)
            keep_their_admins(s.t, [id])
            if before is None:
                self._note(s, events.MEMBER_ADDED, actor, user.address, source, role)
            elif before != role:
                change = f"{before} → {role}"
                self._note(s, events.ROLE_CHANGED, actor, user.address, source, change)
            return Membership(id, s.tenant.name, role)

    def add_member(
        self, actor: User | None, id: str, address: str, role: str, source: Source
    ) -> Membership:
        """Somebody new in it: who adds an address must not demote whoever has it, unasked."""
        return self.join(actor, id, address, role, source, again=False)

    def leave(self, actor: User | None, id: str, address: str, source: Source) -> None:
        """As remove, for who is known by their address."""
        with self._inside(actor, id, PEOPLE_LOCK, site=True) as s:
            user = self._who(s.t, address)
            if not s.remove(user.id):
                raise Refused("user_unknown")
            keep_their_admins(s.t, [id])
            self._note(s, events.MEMBER_REMOVED, actor, user.address, source)

    def _who(self, t: Any, typed: str) -> User:
        address = must_address(typed)
        user = users.by_address(t, address)
        if user is None:
            raise Refused("not_listed", address=address)
        return user
