"""THE RULES about one's own account: name and zone, where one is signed in, one's data, the end. No HTTP, HTML or SQL."""

from dataclasses import asdict, dataclass
from typing import Any

from auth import devices, events, invitations, sessions, tenants, users
from auth.events import Source
from auth.moving import Moving
from auth.office import PEOPLE_LOCK, keep_an_admin, keep_their_admins, tidy_name
from auth.policy import Refused
from auth.sessions import Place
from auth.tenants import Membership
from auth.typed import known_zone
from auth.users import User
from auth.validity import Pending

MOST_EVENTS = 10_000  # in a download
# Since the newest of them under an address it is that of who has it now.
ADDRESS_KINDS = (events.ADDRESS_CHANGED, events.ADDRESS_RESTORED)


@dataclass(frozen=True)
class Own:
    """What the account page shows. `here`: the id of the session that looks."""

    user: User
    here: str
    places: list[Place]
    memberships: list[Membership]
    moving: Pending | None  # to another address


class Oneself(Moving):
    def own(self, user: User, here: str) -> Own:
        joined = tenants.of_user(self.db, user.id)
        return Own(user, here, self._places(user), joined, self.moving(here))

    def rename(self, user: User, name: str, timezone: str, source: Source) -> None:
        name, zone = tidy_name(name, optional=True), known_zone(timezone)
        if zone is None:
            raise Refused("zone_unknown")
        if (name, zone) == (user.name, user.timezone):
            return
        with self.db.tx() as t:
            users.rename(t, user.id, name, zone)
            self._record(t, events.USER_UPDATED, user.address, source, actor=user.id)

    # ---- where one is signed in
    def end_one(self, user: User, id: str, source: Source) -> None:
        """One of one's own sessions. Raises Refused `session_unknown`, also for another person's."""
        with self.db.tx() as t:
            if not id.isalnum() or not sessions.end_own(t, id, user.id):
                raise Refused("session_unknown")
            self._record(t, events.LOGOUT, user.address, source, user.id, "one of theirs")

    def end_others(self, user: User, here: str, source: Source) -> int:
        """All but the one that asks. How many there were."""
        with self.db.tx() as t:
            users.hold(t, user.id)
            ended = sessions.end_others(t, user.id, here)
            if ended:
                self._record(t, events.LOGOUT_OTHERS, user.address, source, user.id, str(ended))
        return ended

    def _places(self, user: User) -> list[Place]:
        now, idle = int(self.clock()), self.policy.session_idle_seconds
        return sessions.of_user(self.db, user.id, now, idle, self.policy.refresh_idle_seconds)

    # ---- organisations
    def work_in(self, user: User, here: str, tenant: str) -> None:
        """Work in this organisation from now on, or in none (""). Raises Refused `tenant_unknown`, also for
        one of others."""
        with self.db.tx() as t:
            if not self._may_work_in(t, user, tenant):
                raise Refused("tenant_unknown")
            sessions.choose(t, here, tenant)

    # ---- leaving
    def membership(self, user: User, tenant: str) -> Membership:
        """Raises Refused `tenant_unknown`."""
        found = next((m for m in tenants.of_user(self.db, user.id) if m.tenant == tenant), None)
        if found is None:
            raise Refused("tenant_unknown")
        return found

    def leave(self, user: User, tenant: str, source: Source) -> None:
        """Be no member any more. Raises Refused `tenant_unknown`, `last_tenant_admin`."""
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            if not tenant.isalnum() or not tenants.leave(t, tenant, user.id):
                raise Refused("tenant_unknown")
            keep_their_admins(t, [tenant])
            self._record(t, events.MEMBER_REMOVED, user.address, source, user.id, tenant=tenant)

    def download(self, user: User, source: Source) -> dict[str, Any]:
        """What is kept of a person, but for sign-ins that have only begun. Times in epoch seconds."""
        self._record(self.db, events.DATA_EXPORTED, user.address, source, user.id)
        return {
            "person": asdict(user),
            "memberships": [asdict(m) for m in tenants.of_user(self.db, user.id)],
            "invitations": invitations.kept_of(self.db, user.id),
            "sessions": [asdict(place) for place in self._places(user)],
            "known_browsers": devices.times_of(self.db, user.id),
            "events": self._told_of(user),
        }

    def _told_of(self, user: User) -> list[dict[str, Any]]:
        """The record of their address since it is theirs: whoever had it before has told them nothing."""
        since = self.keys.sorts_from(user.created_at)
        found = events.of_subject(self.db, user.address, since, MOST_EVENTS)
        came = (n for n, event in enumerate(found) if event["kind"] in ADDRESS_KINDS)
        return found[: next(came, len(found)) + 1]

    def delete(self, user: User, source: Source) -> None:
        """The person, their sessions and memberships. The audit record stays. Raises Refused `last_admin`,
        `last_tenant_admin`."""
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            joined = [m.tenant for m in tenants.of_user(t, user.id)]
            had_admin = users.active_admins(t)
            users.delete(t, user.id)
            if had_admin:
                keep_an_admin(t)
            keep_their_admins(t, joined, 0)
            self.end_all(t, user)
            self._record(t, events.USER_DELETED, user.address, source, user.id, "by themselves")
