"""THE RULES about people: who may be added, promoted, disabled. No HTTP, HTML or SQL."""

import re

from auth import events, reviewers, roles, sessions, tenants, users
from auth.directory import Directory
from auth.events import Source
from auth.networks import is_network
from auth.office import (
    keep_an_admin,
    keep_their_admins,
    must,
    must_address,
    review_ends,
    tidy_name,
)
from auth.policy import Refused
from auth.reviewers import REVIEW, Reviewer
from auth.users import User

MAX_REVIEW_DAYS = 90
KEPT_ROLES = ("admin", "user")


class People(Directory):
    """Directory looks up, and this one changes. `actor` as in Office."""

    def end_session(self, actor: User | None, id: str, session: str, source: Source) -> User:
        """One of theirs. Raises Refused `session_unknown`."""
        with self._change(actor) as t:
            user = self._person(t, id)
            if not session.isalnum() or not sessions.end_own(t, session, user.id):
                raise Refused("session_unknown")
            self._record(t, events.LOGOUT, actor, user.address, source, "one of theirs")
        return user

    def sign_out(self, actor: User | None, id: str, source: Source) -> User:
        """All sessions, known browsers and pending sign-ins of one person."""
        with self._change(actor) as t:
            user = self._person(t, id)
            users.hold(t, user.id)
            self.signin.end_all(t, user)
            self._record(t, events.LOGOUT, actor, user.address, source, "everywhere")
        return user

    def add(self, actor: User | None, typed: str, name: str, role: str, source: Source) -> User:
        address, name, role = must_address(typed), tidy_name(name, optional=True), role or "user"
        with self._change(actor) as t:
            self._known_role(t, role)
            if not users.add(t, self.keys.new_id(), address, name, role, int(self.clock())):
                raise Refused("user_exists", address=address)
            self._record(t, events.USER_CREATED, actor, address, source, role)
            self.signin.mail_waiting(t, address)
            return must(users.by_address(t, address))

    def set_role(self, actor: User | None, id: str, role: str, source: Source) -> User:
        with self._change(actor) as t:
            self._known_role(t, role)
            user = self._person(t, id)
            if role != user.role:
                self._not_oneself(actor, user, "role_self")
                users.set_role(t, id, role)
                keep_an_admin(t)
                review_ends(t, user)
                self._record(
                    t, events.ROLE_CHANGED, actor, user.address, source, f"{user.role} → {role}"
                )
            return self._person(t, id)

    def disable(self, actor: User | None, id: str, source: Source) -> User:
        """No sign-in, no session, until enabled again."""
        with self._change(actor) as t:
            user = self._person(t, id)
            self._not_oneself(actor, user, "disable_self")
            users.disable(t, id, int(self.clock()))
            keep_an_admin(t)
            keep_their_admins(t, [m.tenant for m in tenants.of_user(t, id)], 1)
            self.signin.end_all(t, user)
            if user.disabled_at is None:
                self._record(t, events.USER_DISABLED, actor, user.address, source)
            return self._person(t, id)

    def enable(self, actor: User | None, id: str, source: Source) -> User:
        with self._change(actor) as t:
            user = self._person(t, id)
            users.enable(t, id)
            if user.disabled_at is not None:
                self._record(t, events.USER_ENABLED, actor, user.address, source)
                self.signin.mail_waiting(t, user.address)
            return self._person(t, id)

    def delete(self, actor: User | None, id: str, source: Source) -> None:
        """The row and all sessions. The same address, added again, is a new person without old rights."""
        with self._change(actor) as t:
            user = self._person(t, id)
            self._not_oneself(actor, user, "delete_self")
            joined = [m.tenant for m in tenants.of_user(t, id)]
            users.delete(t, id)
            keep_an_admin(t)
            keep_their_admins(t, joined, 0)
            self.signin.end_all(t, user)
            self._record(t, events.USER_DELETED, actor, user.address, source)

    def add_reviewer(
        self, actor: User | None, typed: str, days: float, network: str, source: Source
    ) -> tuple[User, str, int]:
        """Somebody who tests an app for its store: (the person, their code, when it ends).

        The code stays the same, since they can't read a mail. So it counts from one network only, for a
        person without any rights, and ends by itself. Once more makes a new one in place of the old.
        """
        address, now = must_address(typed), int(self.clock())
        if not 0 < days <= MAX_REVIEW_DAYS:  # also for what is no number
            raise Refused("review_days", most_days=MAX_REVIEW_DAYS)
        if not is_network(network):
            raise Refused("review_network")
        nonce, key, ends = self.keys.new_nonce(), self.keys.current, now + int(days * 86400)
        with self._change(actor) as t:
            users.add(t, self.keys.new_id(), address, "", "user", now)
            user = must(users.by_address(t, address))
            # A sign-in with the code before this one is waited for, or waits.
            users.hold(t, user.id)
            if user.role != "user" or tenants.of_user(t, user.id):
                raise Refused("review_rights")
            sessions.end_all(t, user.id)
            reviewers.put(t, Reviewer(user.id, nonce, key, network, now, ends))
            detail = f"{network} until {ends}"
            self._record(t, events.REVIEW_ACCOUNT, actor, address, source, detail)
        return user, self.keys.long_code(key, REVIEW, nonce, address) or "", ends

    # ---- roles
    def put_role(self, actor: User | None, name: str, description: str, source: Source) -> None:
        """A new role, or another description of one. What it may do is the app's to say."""
        name, description = name.strip(), tidy_name(description, optional=True)
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name):
            raise Refused("role_invalid")
        with self._change(actor) as t:
            roles.put(t, name, description)
            self._record(t, events.ROLE_SAVED, actor, name, source, description)

    def delete_role(self, actor: User | None, name: str, source: Source) -> None:
        """Only one that nobody has; `admin` and `user` stay."""
        with self._change(actor) as t:
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
            address = must_address(typed)
            with self._change(None) as t:
                user = users.by_address(t, address)
                if user and user.role == "admin" and user.disabled_at is None:
                    continue
                now = int(self.clock())
                users.add(t, self.keys.new_id(), address, "", "admin", now)
                found = must(users.by_address(t, address))
                users.set_role(t, found.id, "admin")
                users.enable(t, found.id)
                review_ends(t, found)
                self._record(t, events.ROLE_CHANGED, None, address, Source(), "ADMIN_EMAILS")

    def _not_oneself(self, actor: User | None, user: User, reason: str) -> None:
        if actor and actor.id == user.id:
            raise Refused(reason)
