"""THE RULES about invitations: who may ask whom into an organisation, and who may accept. No HTTP, HTML or SQL.

An invitation is for one person and the address that they had; it is accepted in a session of theirs, so
a mail that is forwarded gives nobody anything. It is the organisation's, not the inviter's: it stands when
who sent it runs nothing any more, until somebody takes it back.
"""

from dataclasses import dataclass
from typing import Any

from auth import events, invitations, moves, sessions, tenants, users
from auth.events import Source
from auth.invitations import ACCEPTED, DECLINED, WITHDRAWN, Invitation
from auth.mailing import Mailing
from auth.members import Inside
from auth.office import (
    PAGE_SIZE,
    PEOPLE_LOCK,
    must,
    must_address,
    page_of,
    review_ends,
)
from auth.policy import DAY, Refused
from auth.scope import Scope
from auth.tenants import Tenant
from auth.users import User

INVITATION = "invitation"  # the kind of its letter


@dataclass(frozen=True)
class InvitationsPage:
    """One organisation, and one page of whom it has asked. `page` counts from 1."""

    tenant: Tenant
    rows: list[Invitation]
    total: int
    page: int
    pages: int
    roles: list[str]
    now: int


@dataclass(frozen=True)
class Inviting(Inside):
    """`actor` as in Office; it may be an admin of the organisation, too."""

    signin: Mailing

    # ---- for who runs the organisation
    def look(self, actor: User | None, tenant: str, number: int) -> InvitationsPage:
        """Raises Refused `tenant_unknown`."""
        with self._inside(actor, tenant) as s:
            total = invitations.in_all(s.t, tenant)
            page, pages, before = page_of(number, total)
            rows = invitations.of_tenant(s.t, tenant, PAGE_SIZE, before)
            now = int(self.clock())
            return InvitationsPage(s.tenant, rows, total, page, pages, s.roles(), now)

    def invite(
        self, actor: User | None, tenant: str, typed: str, role: str, source: Source
    ) -> None:
        """Whoever has this address may join from now on. They need not be known here: then they are added.

        The same for both, in all that the organisation's admin can see.
        """
        address = must_address(typed)
        # Not in the organisation's own transaction: whoever is added here is added to the site.
        with self._change(actor, tenant) as t:
            self.organisation(t, tenant)
            self._known_role(t, role)
            self._must_have_room(t, actor, tenant, fresh=True)
            id = self._keeper(t, actor, address)
            if not id:
                id, _ = self.person(t, actor, address, "", "user", source)
            if tenants.role_of(t, tenant, id) is not None:
                raise Refused("member_already", address=address)
            self.ask(t, actor, tenant, id, address, role, source)

    def _keeper(self, t: Any, actor: User | None, address: str) -> str:
        """Who may take this address back (see moving.py), or "". It is them whom an organisation's admin asks: a
        thief who runs one could else give the address to somebody new, and there would be no way back."""
        given = users.by_address(
            t, address
        )  # by an admin of the site: there is no way back already
        if actor is None or actor.role == "admin" or given:
            return ""
        return moves.kept(t, address, int(self.clock()))

    def again(self, actor: User | None, tenant: str, id: str, source: Source) -> None:
        """Its whole time once more, and a mail if there is room for one."""
        now, ends = self._times()
        with self._inside(actor, tenant, PEOPLE_LOCK) as s:
            found = self._of(s, id)
            # One that had run out is one more that is open.
            self._must_have_room(s.t, actor, tenant, fresh=found.expires_at <= now)
            if not invitations.renew(s.t, tenant, id, now, ends):
                raise Refused("invitation_over")
            self._note(s, events.INVITATION_SENT, actor, found.address, source, "again")
            self._mail(s.t, found.user_id, found.address, id, now, ends)

    def withdraw(self, actor: User | None, tenant: str, id: str, source: Source) -> None:
        with self._inside(actor, tenant, PEOPLE_LOCK) as s:
            found = self._of(s, id)
            if not invitations.end(s.t, tenant, id, WITHDRAWN, int(self.clock())):
                raise Refused("invitation_over")
            self._note(s, events.INVITATION_WITHDRAWN, actor, found.address, source)

    # ---- what an import does, too, in a transaction of its own
    def organisation(self, t: Any, id: str) -> Tenant:
        found = tenants.by_id(t, id) if id.isalnum() else None
        if found is None:
            raise Refused("tenant_unknown")
        return found

    def person(
        self, t: Any, actor: User | None, address: str, name: str, role: str, source: Source
    ) -> tuple[str, bool]:
        """The id of who has this address, and were they added just now?"""
        id = self.keys.new_id()
        if not users.add(t, id, address, name, role, int(self.clock())):
            return must(users.by_address(t, address)).id, False
        # Of no organisation: what its admins read must not tell who was here before.
        self._record(t, events.USER_CREATED, actor, address, source, role)
        self.signin.mail_waiting(t, address)
        return id, True

    def ask(
        self,
        t: Any,
        actor: User | None,
        tenant: str,
        user_id: str,
        address: str,
        role: str,
        source: Source,
    ) -> None:
        (now, ends), by = self._times(), actor.id if actor else ""
        row = self.keys.new_id(), tenant, user_id, address, role, by, now, ends
        id = invitations.put(t, *row)
        self._record(t, events.INVITATION_SENT, actor, address, source, role, tenant)
        self._mail(t, user_id, address, id, now, ends)

    # ---- for who is invited
    def mine(self, user: User) -> list[Invitation]:
        return invitations.of_person(self.db, user.id, user.address, int(self.clock()))

    def accept(self, user: User, here: str, id: str, source: Source) -> None:
        """Be a member from now on; once, of however many at a time. `here`: the session that asks.

        Raises Refused `invitation_unknown`, also for another person's, and `invitation_over`.
        """
        now = int(self.clock())
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            found = self._ended(t, user, id, ACCEPTED, now)
            tenants.join(t, found.tenant, user.id, found.role, now)
            review_ends(t, user)
            told = user.address, source, found.role, found.tenant
            self._record(t, events.INVITATION_ACCEPTED, user, *told)
            self._record(t, events.MEMBER_ADDED, user, *told)
            # As after a sign-in: who is in one organisation works there.
            if len(tenants.of_user(t, user.id)) == 1:
                sessions.choose(t, here, found.tenant)

    def decline(self, user: User, id: str, source: Source) -> None:
        """Raises Refused as accept."""
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            found = self._ended(t, user, id, DECLINED, int(self.clock()))
            told = user.address, source, "", found.tenant
            self._record(t, events.INVITATION_DECLINED, user, *told)

    def _ended(self, t: Any, user: User, id: str, state: str, now: int) -> Invitation:
        person = users.by_id(t, user.id)
        # As the database says now: who was disabled, or has another address since, is not meant.
        if person is None or person.disabled_at is not None or not id.isalnum():
            raise Refused("invitation_unknown")
        found = invitations.to_person(t, id, person.id, person.address)
        if found is None:
            raise Refused("invitation_unknown")
        if not invitations.end(t, found.tenant, id, state, now):
            raise Refused("invitation_over")
        return found

    # ---- the mail
    def letter(self, ref: str) -> tuple[str, str, int] | None:
        """(address, organisation, seconds that are left) of an invitation's mail; None when none is due."""
        user_id, _, id = ref.partition(":")
        user, now = users.by_id(self.db, user_id), int(self.clock())
        if user is None or user.disabled_at is not None:
            return None
        found = invitations.to_person(self.db, id, user.id, user.address)
        if found is None or found.state != invitations.OPEN or found.expires_at <= now:
            return None
        return found.address, found.organisation, found.expires_at - now

    def _mail(self, t: Any, user_id: str, address: str, id: str, now: int, ends: int) -> None:
        """Where mails to the address are spent the invitation is there, and nobody is told so."""
        if self.signin.limits.may_mail_invitation(t, address, now):
            # With less to live it is not worth a mail.
            until = ends - min(DAY, (ends - now) // 2)
            self.signin.send(t, INVITATION, f"{user_id}:{id}", until)

    # ---- how
    def _times(self) -> tuple[int, int]:
        now = int(self.clock())
        return now, now + self.signin.policy.invitation_seconds

    def _of(self, s: Scope, id: str) -> Invitation:
        found = invitations.in_tenant(s.t, s.tenant.id, id) if id.isalnum() else None
        if found is None:
            raise Refused("invitation_unknown")
        return found

    def _must_have_room(self, t: Any, actor: User | None, tenant: str, fresh: bool) -> None:
        """What an organisation's own admin may send: else they could mail the whole world in our name."""
        if actor is None or actor.role == "admin":
            return
        now, most = int(self.clock()), self.signin.policy.open_invitations
        if fresh and invitations.open_in(t, tenant, now) >= most:
            raise Refused("invitations_full")
        self.signin.limits.count_invitation(t, tenant, now)
