"""What all rules of signing in share: their tools, who may sign in, whose challenge it is, the record.

It decides nothing about codes or links. Asking, entering and leaving are Desks (see signin.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from auth import challenges, events, tenants, users
from auth.events import Source
from auth.keys import Keys, digest
from auth.known import KnownBrowsers
from auth.limits import Limits, Person, Reached
from auth.policy import Policy, Refused
from auth.record import Record
from auth.users import User
from auth.validity import Validity


@dataclass(frozen=True)
class Desk:
    """All that the rules need, as parameters: time, chance and sending included.

    `send(t, kind, ref, not_after)` queues a mail in transaction t.
    """

    db: Any
    keys: Keys
    send: Callable[[Any, str, str, int], None]
    clock: Callable[[], float]
    policy: Policy = field(default_factory=Policy)

    @cached_property
    def _record(self) -> Record:
        return Record(self.keys, self.clock)

    @cached_property
    def limits(self) -> Limits:
        return Limits(self.keys, self.policy, self._limit_reached)

    @cached_property
    def known(self) -> KnownBrowsers:
        return KnownBrowsers(self.db, self.keys, self.policy, self.limits, self.send, self._record)

    @cached_property
    def validity(self) -> Validity:
        return Validity(self.keys, self.policy)

    def _of_browser(self, token: str | None, must: bool = True) -> Any:
        challenge = challenges.of_browser(self.db, digest(token)) if token else None
        if challenge is None and must:
            raise Refused("no_signin")
        return challenge

    # ---- who may sign in
    def _person(self, t: Any, address: str, device: str) -> Person:
        user = users.by_address(t, address)
        return Person(address, device, user is not None, self._welcome(user, address))

    def _may_sign_in(self, t: Any, address: str) -> bool:
        return self._welcome(users.by_address(t, address), address)

    def _welcome(self, user: User | None, address: str) -> bool:
        return user.disabled_at is None if user else self._may_sign_up(address)

    def _may_work_in(self, t: Any, user: User, tenant: str) -> bool:
        """Is it an organisation of theirs, or none ("")? Site admins pass everywhere, where there is a place."""
        if not tenant:
            return True
        if not tenant.isalnum() or not tenant.isascii():
            return False
        if tenants.role_of(t, tenant, user.id) is not None:
            return True
        return user.role == "admin" and tenants.by_id(t, tenant) is not None

    def _may_sign_up(self, address: str) -> bool:
        domain = address.rpartition("@")[2]
        domains = self.policy.signup_domains
        return self.policy.signup == "open" and (not domains or domain in domains)

    def _limit_reached(self, t: Any, reached: Reached, source: Source) -> None:
        self._record(t, events.LIMIT_REACHED, reached.subject, source, detail=reached.what)
