"""What all rules of signing in share: their tools, who may sign in, whose challenge it is, the record.

It decides nothing about codes or links. Asking, entering and leaving are Desks (see signin.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from auth import challenges, events, moves, tenants, users
from auth.events import Source
from auth.keys import Keys, digest
from auth.known import KnownBrowsers
from auth.limits import Limits, Person, Reached
from auth.policy import Policy, Refused
from auth.record import Hear, Record
from auth.users import User
from auth.validity import Validity


@dataclass(frozen=True)
class Desk:
    """All that the rules need, as parameters: time, chance and sending included.

    `send(t, kind, ref, not_after)` queues a mail in transaction t. `hear(what, how)` is told what happened
    (see record.HEARD), once it is committed; it must not raise.
    """

    db: Any
    keys: Keys
    send: Callable[[Any, str, str, int], None]
    clock: Callable[[], float]
    policy: Policy = field(default_factory=Policy)
    hear: Hear | None = None

    @cached_property
    def _record(self) -> Record:
        return Record(self.keys, self.clock, self.hear)

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
        return Person(address, device, user is not None, self._welcome(t, user, address))

    def _may_sign_in(self, t: Any, address: str) -> bool:
        return self._welcome(t, users.by_address(t, address), address)

    def _welcome(self, t: Any, user: User | None, address: str) -> bool:
        new = self._may_sign_up(t, address)  # asked for everybody: the same work
        return user.disabled_at is None if user else new

    def _may_work_in(self, t: Any, user: User, tenant: str) -> bool:
        """Is it an organisation of theirs, or none ("")? Site admins pass everywhere, where there is a place."""
        if not tenant:
            return True
        if not tenant.isalnum() or not tenant.isascii():
            return False
        if tenants.role_of(t, tenant, user.id) is not None:
            return True
        return user.role == "admin" and tenants.by_id(t, tenant) is not None

    def _may_sign_up(self, t: Any, address: str) -> bool:
        if self.policy.signup != "open" or not self._of_our_domains(address):
            return False
        # Whose account was moved to another address would make a new one here, and could not take the
        # old one back.
        return not moves.kept(t, address, int(self.clock()))

    def _of_our_domains(self, address: str) -> bool:
        domains = self.policy.signup_domains
        return not domains or address.rpartition("@")[2] in domains

    def _limit_reached(self, t: Any, reached: Reached, source: Source) -> None:
        self._record(t, events.LIMIT_REACHED, reached.subject, source, detail=reached.what)
