"""What all rules of admins share: their tools, who may ask, the last admin, names, pages of a list.

It changes nobody. People, organisations, mail and the audit are Offices.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from auth import reviewers, sessions, tenants, users
from auth.addresses import canonical
from auth.events import Source
from auth.keys import Keys
from auth.policy import Refused
from auth.record import Record
from auth.users import User

MAX_NAME = 200
PAGE_SIZE = 25
# Two admins who demote each other at the same moment must not both find the other still there.
PEOPLE_LOCK = 726355


def tidy_name(typed: str, optional: bool = False) -> str:
    """A name of a person or an organisation. Raises Refused `name_invalid`."""
    name = typed.strip()
    if len(name) > MAX_NAME or not name.isprintable() or not (name or optional):
        raise Refused("name_invalid", most=MAX_NAME)
    return name


def tidy_query(typed: str) -> str:
    """What to search for; PostgreSQL has no NUL."""
    return typed.strip()[:MAX_NAME].replace("\0", "")


def page_of(number: int, total: int, size: int = PAGE_SIZE) -> tuple[int, int, int]:
    """(the page that there is, how many there are, how many rows stand before it). Pages count from 1."""
    pages = max(1, -(-total // size))
    page = max(1, min(number, pages))
    return page, pages, (page - 1) * size


def keep_an_admin(t: Any) -> None:
    """After the change and before the commit: raising takes the change back."""
    if not users.active_admins(t):
        raise Refused("last_admin")


def keep_their_admins(t: Any, joined: Iterable[str], alone: int | None = None) -> None:
    """The same for organisations. Where a member goes for good or is disabled, one in which no more than
    `alone` people are left goes on without."""
    for id in joined:
        if not tenants.admins(t, id) and (alone is None or tenants.in_all(t, id) > alone):
            raise Refused("last_tenant_admin")


def review_ends(t: Any, user: User) -> None:
    """Somebody gets rights: a code that others know must not have them, nor what it has opened."""
    # A sign-in with that code which is under way is waited for, and ends here.
    users.hold(t, user.id)
    if reviewers.end(t, user.id):
        sessions.end_all(t, user.id)


def still_admin(t: Any, actor: User | None, tenant: str = "") -> None:
    """An admin who was demoted a moment ago may have a request under way. Raises Refused.

    `tenant`: an admin of this organisation will do.
    """
    if actor is None:
        return
    now = users.by_id(t, actor.id)
    if now is None or now.disabled_at is not None:
        raise Refused("not_admin")
    if now.role != "admin" and not (tenant and tenants.role_of(t, tenant, now.id) == "admin"):
        raise Refused("not_admin")


def must(user: User | None) -> User:
    if user is None:
        raise Refused("user_unknown")
    return user


def must_address(typed: str) -> str:
    address = canonical(typed)
    if address is None:
        raise Refused("email_invalid" if typed.strip() else "email_missing")
    return address


@dataclass(frozen=True)
class Office:
    """`actor` is the user who asks, or None for the command line, which may do everything but end the last admin."""

    db: Any
    keys: Keys
    clock: Callable[[], float]

    @cached_property
    def record(self) -> Record:
        return Record(self.keys, self.clock)

    @contextmanager
    def _change(self, actor: User | None, tenant: str = "") -> Iterator[Any]:
        """A transaction in which people are changed, one after another on every machine; by an admin of the
        site, or of `tenant` when one is named."""
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            still_admin(t, actor, tenant)
            yield t

    def _person(self, t: Any, id: str) -> User:
        return must(users.by_id(t, id) if id.isalnum() else None)

    def _known_role(self, t: Any, role: str) -> None:
        if role not in users.roles(t):
            raise Refused("role_unknown")

    def _record(
        self,
        t: Any,
        kind: str,
        actor: User | None,
        subject: str,
        source: Source,
        detail: str = "",
        tenant: str = "",
    ) -> None:
        self.record(t, kind, subject, source, actor.id if actor else "", detail, tenant)
