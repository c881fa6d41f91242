"""THE RULES inside one organisation, for its own admins and those of the site. No HTTP, HTML or SQL.

What is read and changed here goes through the organisation's door, scope.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from auth import events
from auth.audit import LOOK, Audit, Part, Wanted, part_of
from auth.events import Event, Source
from auth.office import (
    PAGE_SIZE,
    PEOPLE_LOCK,
    Office,
    keep_their_admins,
    page_of,
    still_admin,
    tidy_name,
    tidy_query,
)
from auth.policy import DAY
from auth.scope import Scope, scoped
from auth.tenants import SORTS, Member, Tenant
from auth.users import User

LATEST = 20  # events on the page of one member
WEEK = 7 * DAY


@dataclass(frozen=True)
class MembersPage:
    """One organisation, and one page of who is in it. `page` counts from 1."""

    tenant: Tenant
    rows: list[Member]
    total: int
    page: int
    pages: int
    query: str
    sort: str
    figures: dict[str, int]
    roles: list[str]


@dataclass(frozen=True)
class MemberPage:
    """One member, as those who run the organisation see them: nothing of other ones, or of the site."""

    tenant: Tenant
    member: Member
    events: list[Event]  # of this organisation about them, the newest first
    roles: list[str]


class Inside(Office):
    """Offices whose rules are about one organisation."""

    @contextmanager
    def _inside(
        self, actor: User | None, id: str, lock: int | None = None, site: bool = False
    ) -> Iterator[Scope]:
        """What an admin of the organisation may see and change; with `site` one of the site only.

        Raises Refused `tenant_unknown`, `not_admin`.
        """
        with scoped(self.db, id, lock) as s:
            # Asked in the transaction that reads: who was removed a moment ago gets no last look.
            still_admin(s.t, actor, "" if site else id)
            yield s

    def _note(
        self,
        s: Scope,
        kind: str,
        actor: User | None,
        subject: str,
        source: Source,
        detail: str = "",
    ) -> None:
        self._record(s.t, kind, actor, subject, source, detail, s.tenant.id)


class Members(Inside):
    def itself(self, actor: User | None, id: str) -> Tenant:
        with self._inside(actor, id) as s:
            return s.tenant

    def look(
        self, actor: User | None, id: str, query: str = "", sort: str = "", number: int = 1
    ) -> MembersPage:
        query, sort = tidy_query(query), sort if sort in SORTS else SORTS[0]
        with self._inside(actor, id) as s:
            now = int(self.clock())
            figures = s.figures(now - WEEK, now)
            total = s.count(query) if query else figures["members"]
            page, pages, before = page_of(number, total)
            rows = s.members(query, sort, PAGE_SIZE, before)
            return MembersPage(s.tenant, rows, total, page, pages, query, sort, figures, s.roles())

    def look_at(self, actor: User | None, id: str, user_id: str) -> MemberPage:
        """Raises Refused `user_unknown`, too."""
        with self._inside(actor, id) as s:
            member = s.member(user_id)
            return MemberPage(s.tenant, member, s.about(member.address, LATEST), s.roles())

    def rename(self, actor: User | None, id: str, name: str, source: Source) -> Tenant:
        name = tidy_name(name)
        with self._inside(actor, id, PEOPLE_LOCK) as s:
            if s.tenant.name != name:
                s.rename(name)
                was = f"was {s.tenant.name}"
                self._note(s, events.TENANT_RENAMED, actor, name, source, was)
            return Tenant(id, name, s.tenant.created_at)

    def set_role(
        self, actor: User | None, id: str, user_id: str, role: str, source: Source
    ) -> None:
        """Another role inside it. It counts at their next request."""
        with self._inside(actor, id, PEOPLE_LOCK) as s:
            member = s.member(user_id)
            self._known_role(s.t, role)
            if role == member.role:
                return
            s.put(member.user_id, role, int(self.clock()))
            keep_their_admins(s.t, [id])
            change = f"{member.role} → {role}"
            self._note(s, events.ROLE_CHANGED, actor, member.address, source, change)

    def remove(self, actor: User | None, id: str, user_id: str, source: Source) -> None:
        with self._inside(actor, id, PEOPLE_LOCK) as s:
            member = s.member(user_id)
            s.remove(member.user_id)
            keep_their_admins(s.t, [id])
            self._note(s, events.MEMBER_REMOVED, actor, member.address, source)

    def audit(self, actor: User | None, id: str) -> "OwnAudit":
        return OwnAudit(self.db, self.keys, self.clock, actor, id)


@dataclass(frozen=True)
class OwnAudit(Inside, Audit):
    """As Audit, of one organisation: events that name another one, or none, are not in it."""

    asks: User | None
    tenant: str

    def download(self, actor: User, wanted: Wanted, source: Source) -> Part:
        with self._inside(self.asks, self.tenant) as s:
            # One of the site's is named to nobody here.
            about = actor.address if s.role_of(actor.id) is not None else ""
            self._note(s, events.DATA_EXPORTED, actor, about, source, "audit")
        return self.step(wanted)

    def _read(self, wanted: Wanted, before: str, limit: int) -> Part:
        with self._inside(self.asks, self.tenant) as s:
            since = self._since(wanted)
            rare = wanted.query or wanted.kind
            reach = s.reach(since, before, LOOK) if rare else ""
            rows = s.events(wanted.query, wanted.kind, reach or since, before, limit + 1)
        return part_of(rows, limit, reach)
