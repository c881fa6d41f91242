"""Who is asking, and what the server keeps for them: the `auth` and `session` of a handler."""

import json
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from auth.sessions import AppSession, Session
from auth.users import User

RESERVED = ("auth", "role", "center", "timezone")


@dataclass(frozen=True)
class Caller:
    """Who is asking, as the database says at this request."""

    user: User
    session_id: str
    tenant: str = ""
    tenant_role: str = ""  # the membership's; "" where they have none there, as a site admin may
    tenant_name: str = ""  # of a browser's; programs ask /auth/me
    confirmed: bool = False  # was a code entered for this session within the last minutes?

    @classmethod
    def __from_request__(cls, request):  # type: ignore[no-untyped-def]
        """For `auth: Caller`: without this FastHTML would make one from what the client sent."""
        return request.scope.get("auth")

    @classmethod
    def of_session(cls, session: Session, confirmed: bool) -> "Caller":
        """Whom a browser works for."""
        at = session.tenant
        if at is None:
            return cls(session.user, session.id, confirmed=confirmed)
        return cls(session.user, session.id, at.tenant, at.role, at.name, confirmed)

    @classmethod
    def of_app(cls, session: AppSession) -> "Caller":
        """Whom a program works for."""
        return cls(session.user, session.id, session.tenant, session.role_in(session.tenant) or "")

    @property
    def address(self) -> str:
        return self.user.address

    @property
    def role(self) -> str:
        """The one inside the tenant, or the site's where there is none. Site admins are admins everywhere."""
        return self.user.role if self.is_admin or not self.tenant else self.tenant_role

    @property
    def timezone(self) -> str:
        return self.user.timezone

    def runs(self, tenant: str) -> bool:
        """May they manage this organisation? Site admins any; its own admins while they work in it."""
        return self.is_admin or (self.tenant == tenant != "" and self.tenant_role == "admin")

    @property
    def is_admin(self) -> bool:
        """Of the site, not of one tenant."""
        return self.user.role == "admin"


class SessionData(MutableMapping[str, Any]):
    """A dict kept on the server with the session row.

    `auth`, `role`, `center` and `timezone` are read from the database at each request and refuse to
    be written: a role that a handler could put here would be believed somewhere. Before sign-in
    there is no row, and so nothing may be kept.
    """

    @classmethod
    def __from_request__(cls, request):  # type: ignore[no-untyped-def]
        """For `session: SessionData`, as with Caller."""
        return request.scope["session"]

    def __init__(self, caller: Caller | None, stored: str = "{}"):
        self._stored = stored
        self._live = caller and {
            "auth": caller.address,
            "role": caller.role,
            "center": caller.tenant,
            "timezone": caller.timezone,
        }

    @cached_property
    def _own(self) -> dict[str, Any]:
        return json.loads(self._stored)  # type: ignore[no-any-return]

    def __getitem__(self, key: str) -> Any:
        return self._live[key] if self._live and key in RESERVED else self._own[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._own[self._writable(key)] = value

    def __delitem__(self, key: str) -> None:
        del self._own[self._writable(key)]

    def _writable(self, key: str) -> str:
        if self._live is None:
            raise TypeError("nobody is signed in, so there is no session to write to")
        if key in RESERVED:
            raise TypeError(f"session[{key!r}] is read from the database and can't be written")
        return key

    def __iter__(self) -> Iterator[str]:
        return iter([*(self._live or ()), *self._own])

    def __len__(self) -> int:
        return len(self._live or ()) + len(self._own)

    def clear(self) -> None:
        """Forget the app's own keys; the live ones stay."""
        self._own.clear()

    def changed(self, most: int) -> str | None:
        """The JSON to store, or None when nothing changed. Raises ValueError over `most` bytes."""
        if "_own" not in self.__dict__:  # nobody looked
            return None
        text = json.dumps(self._own, separators=(",", ":"))
        if len(text) > most:
            raise ValueError(f"the session holds more than {most} bytes; keep less in it")
        return None if json.loads(self._stored) == self._own else text
