"""The one door to what is an organisation's: its name, members and events.

Whatever serves a page of one organisation reads and changes through it; each statement behind it names the
organisation. On PostgreSQL the database holds the same wall: see migrations/0011_walls.postgresql.sql.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from auth import events, invitations, tenants, users
from auth.events import Event
from auth.needs import Database
from auth.policy import Refused
from auth.tenants import Member, Tenant

SETTING = "vestibule.tenant"


@dataclass(frozen=True)
class Scope:
    """One organisation inside one transaction. `t` is for what belongs to nobody's organisation."""

    t: Any
    tenant: Tenant

    def rename(self, name: str) -> None:
        tenants.rename(self.t, self.tenant.id, name)

    def roles(self) -> list[str]:
        """Those that a member may have."""
        return users.roles(self.t)

    # ---- members
    def figures(self, since: int, now: int) -> dict[str, int]:
        """Of this organisation alone: members, recent (signed in since a time), invited (could accept)."""
        invited = invitations.open_in(self.t, self.tenant.id, now)
        return tenants.figures(self.t, self.tenant.id, since) | {"invited": invited}

    def count(self, query: str) -> int:
        return tenants.count_members(self.t, self.tenant.id, query)

    def members(self, query: str, sort: str, limit: int, offset: int) -> list[Member]:
        return tenants.members(self.t, self.tenant.id, query, sort, limit, offset)

    def member(self, user_id: str) -> Member:
        """Raises Refused `user_unknown`, also for somebody who is here, and not in it."""
        known = user_id.isalnum()
        found = tenants.member(self.t, self.tenant.id, user_id) if known else None
        if found is None:
            raise Refused("user_unknown")
        return found

    def role_of(self, user_id: str) -> str | None:
        return tenants.role_of(self.t, self.tenant.id, user_id)

    def put(self, user_id: str, role: str, now: int) -> None:
        """A member from now on, or with another role."""
        tenants.join(self.t, self.tenant.id, user_id, role, now)

    def remove(self, user_id: str) -> bool:
        return tenants.leave(self.t, self.tenant.id, user_id)

    # ---- events
    def about(self, address: str, limit: int) -> list[Event]:
        return events.about_in(self.t, self.tenant.id, address, limit)

    def reach(self, since: str, before: str, look: int) -> str:
        """As events.reach: where a look at so many ends."""
        return events.reach_in(self.t, self.tenant.id, since, before, look)

    def events(self, query: str, kind: str, since: str, before: str, limit: int) -> list[Event]:
        return events.search_in(self.t, self.tenant.id, query, kind, since, before, limit)


@contextmanager
def scoped(db: Database, id: str, lock: int | None = None) -> Iterator[Scope]:
    """A transaction inside one organisation. Raises Refused `tenant_unknown`."""
    # "" would take the wall down: without an organisation the database shows all of them.
    if not id.isalnum():
        raise Refused("tenant_unknown")
    with db.tx(lock=lock, settings={SETTING: id}) as t:
        found = tenants.by_id(t, id)
        if found is None:
            raise Refused("tenant_unknown")
        yield Scope(t, found)
