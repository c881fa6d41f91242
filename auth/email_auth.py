"""The plug: who is asking, and where a session begins and ends in the browser.

`EmailAuth(app, db, templates, send, base_url=…, secret_key=…)` adds the sign-in routes to a FastHTML
app and gives each handler `auth` (a Caller, or None) and `session` (a dict kept on the server).
"""

import json
import logging
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from time import time
from typing import Any, Protocol
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Match

from auth import sessions
from auth.events import Source
from auth.keys import Keys, digest, looks_like_token
from auth.people import People
from auth.signin import CODE_MAIL, Arrival, Policy, SignIn
from auth.users import User

log = logging.getLogger("auth")

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
RESERVED = ("auth", "role", "center", "timezone")


class Database(Protocol):
    """What auth needs of a database: one statement, several as one, and from async code."""

    Unavailable: type[Exception]

    def q(self, sql: str, **params: Any) -> list[dict[str, Any]]: ...

    def tx(self, lock: int | None = None) -> AbstractContextManager[Any]: ...

    async def run(self, f: Callable[..., Any], *args: Any, **kw: Any) -> Any: ...


class Templates(Protocol):
    """What auth needs of the words and pages. Data in; HTML, or what renders to it, out."""

    def page(self, title: str, *content: Any, caller: Any = None, width: str = "") -> str: ...

    def fragment(self, title: str, *content: Any) -> str: ...

    def login(self, next_path: str, address: str = "", refused: Any = None) -> Any: ...

    def code(self, pending: Any, refused: Any = None, notice: str = "") -> Any: ...

    def code_over(self, address: str, refused: Any) -> Any: ...

    def again(self, pending: Any) -> Any: ...

    def no_access(self) -> Any: ...

    def problem(self, status: int, request_id: str = "", caller: Any = None) -> Any: ...

    def people(self, page: Any, caller: Any, refused: Any = None, notice: Any = None) -> Any: ...

    def code_letter(self, address: str, code: str) -> Any: ...


@dataclass(frozen=True)
class Caller:
    """Who is asking, as the database says at this request."""

    user: User
    session_id: str
    tenant: str = ""

    @property
    def address(self) -> str:
        return self.user.address

    @property
    def role(self) -> str:
        return self.user.role

    @property
    def timezone(self) -> str:
        return self.user.timezone

    @property
    def is_admin(self) -> bool:
        return self.user.role == "admin"


class SessionData(MutableMapping[str, Any]):
    """A dict kept on the server with the session row.

    `auth`, `role`, `center` and `timezone` are read from the database at each request and refuse to
    be written: a role that a handler could put here would be believed somewhere. Before sign-in
    there is no row, and so nothing may be kept.
    """

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


class EmailAuth:
    """Sign-in by e-mailed code for one FastHTML app.

    app         a FastHTML app (never `fast_app()`, which serves the working directory)
    db          q, tx, run (see Database); the tables of auth/migrations must be there
    templates   every page and mail (see Templates)
    send        send(t, kind, ref, not_after): queue a mail in transaction t
    base_url    the origin people open, https:// or loopback
    secret_key  at least 32 characters; previous_key is still accepted for codes on their way
    secure      production: `__Host-` cookies, Secure. False only in development
    """

    def __init__(
        self,
        app: Any,
        db: Database,
        templates: Templates,
        send: Callable[[Any, str, str, int], None],
        *,
        base_url: str,
        secret_key: str,
        previous_key: str | None = None,
        secure: bool = True,
        policy: Policy | None = None,
        clock: Callable[[], float] = time,
        keys: Keys | None = None,
    ):
        from auth import admin, routes  # they import this file

        keys = keys or Keys(secret_key, previous_key)
        self.db, self.templates, self.clock = db, templates, clock
        self.policy = policy or Policy()
        self.keys = keys
        self.signin = SignIn(db, keys, send, clock, self.policy)
        self.people = People(db, keys, clock)
        self._secure = secure
        prefix = "__Host-" if secure else ""
        self.session_cookie, self.signin_cookie = f"{prefix}session", f"{prefix}signin"
        self._origins = {base_url}
        if not secure:
            port = urlsplit(base_url).port
            self._origins |= {f"http://{name}:{port}" for name in LOOPBACK_NAMES}
        app.add_middleware(_Recognise, auth=self)
        routes.add_routes(app, self)
        admin.add_routes(app, self)

    def letter(self, kind: str, ref: str) -> Any:
        """The mail of one outbox row, made at the moment of sending; None when none is due."""
        if kind != CODE_MAIL:
            raise ValueError(f"no letter of kind {kind}")
        found = self.signin.mail(ref)
        return self.templates.code_letter(*found) if found else None

    # ---- who is asking
    def cookie(self, request: Request, name: str) -> str | None:
        """The token in a cookie, if it could be one of ours."""
        found = _values(request.scope, name)
        return found[0] if len(found) == 1 and looks_like_token(found[0]) else None

    async def recognise(self, request: Request) -> tuple[Caller | None, SessionData]:
        """Who is asking, by the session cookie; read from the database at every request."""
        token = self.cookie(request, self.session_cookie)
        found = await self.db.run(self._find, token) if token else None
        if found is None:
            return None, SessionData(None)
        caller = Caller(found.user, found.id)
        return caller, SessionData(caller, found.data)

    def _find(self, token: str) -> sessions.Session | None:
        now = int(self.clock())
        found = sessions.find(self.db, digest(token), now, self.policy.session_idle_seconds)
        if found and now - found.seen_at >= self.policy.seen_every_seconds:
            sessions.touch(self.db, found.id, now)
        return found

    def source(self, request: Request) -> Source:
        return Source(network_of(request.client.host if request.client else ""), request.state.id)

    # ---- begin and end
    def set_signin(self, response: Response, token: str) -> None:
        # An hour longer than the code, so that a late one is told that it ran out.
        self._set_cookie(response, self.signin_cookie, token, self.policy.code_seconds + 3600)

    def admit(self, response: Response, arrival: Arrival) -> None:
        """Begin a session in this browser, with a token that did not exist before (no fixation)."""
        self._set_cookie(
            response, self.session_cookie, arrival.token, self.policy.session_max_seconds
        )
        self._drop_cookie(response, self.signin_cookie)

    def dismiss(self, response: Response) -> None:
        """Take the session cookie out of this browser."""
        self._drop_cookie(response, self.session_cookie)
        response.headers["Clear-Site-Data"] = '"storage"'

    def _set_cookie(self, response: Response, name: str, token: str, seconds: int) -> None:
        # Lax, not Strict: Strict would drop the cookie when people come from the link in a mail.
        # Nothing in it needs quoting: the names are ours, a token is URL-safe base64.
        flags = "; Secure" if self._secure else ""
        cookie = f"{name}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{flags}"
        response.headers.append("Set-Cookie", cookie)

    def _drop_cookie(self, response: Response, name: str) -> None:
        self._set_cookie(response, name, "", 0)

    # ---- the gate before every handler
    def same_origin(self, method: str, headers: dict[bytes, bytes]) -> bool:
        """May this request change something? (Go 1.25's CrossOriginProtection; OWASP CSRF.)

        Browsers name the relation in Sec-Fetch-Site; older ones only an Origin. `same-site` is not
        ours: a neighbour on a sibling domain is a stranger.
        """
        if method in SAFE_METHODS:
            return True
        site = headers.get(b"sec-fetch-site")
        if site is not None:
            return site in (b"same-origin", b"none")
        return headers.get(b"origin", b"").decode("latin1") in self._origins

    def refuse(self, request: Request, status: int) -> Response:
        """A whole answer for an error: a page, or problem+json (RFC 9457) for programs."""
        headers = {"Retry-After": "5"} if status == 503 else {}
        if wants_json(request):
            return problem(status, headers)
        caller = request.scope.get("auth")
        page = self.templates.problem(status, getattr(request.state, "id", ""), caller)
        return HTMLResponse(page, status, headers)

    async def on_error(self, request: Request, error: Exception) -> Response:
        """For `app.add_exception_handler`: errors in the same shell as every page."""
        response = self.refuse(request, getattr(error, "status_code", 500))
        response.headers.update(getattr(error, "headers", None) or {})
        if response.status_code == 405:
            # Starlette names the methods of the first route of this path; a path may have several.
            fits = (r for r in request.app.routes if r.matches(request.scope)[0] is not Match.NONE)
            methods = {method for route in fits for method in getattr(route, "methods", None) or ()}
            if methods:
                response.headers["Allow"] = ", ".join(sorted(methods))
        return response


class _Recognise:
    """ASGI middleware: refuses cross-site changes, says who is asking, saves the session."""

    def __init__(self, app: Any, auth: EmailAuth):
        self._app, self._auth = app, auth

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or scope["path"].startswith("/static/"):
            await self._app(scope, receive, send)
            return
        auth, headers = self._auth, dict(scope["headers"])
        if scope["type"] == "websocket":
            # A browser lets any site open a socket here with our cookies; only Origin tells.
            if headers.get(b"origin", b"").decode("latin1") not in auth._origins:
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self._app(scope | {"auth": None, "session": {}}, receive, send)
            return
        request = Request(scope, receive)
        request.state.id = auth.keys.new_id()[:16]
        if not auth.same_origin(scope["method"], headers):
            log.warning("cross-site %s %s refused", scope["method"], scope["path"])
            await auth.refuse(request, 403)(scope, receive, send)
            return
        # Two of one name: one was planted, and which is which can't be told.
        if any(len(_values(scope, n)) > 1 for n in (auth.session_cookie, auth.signin_cookie)):
            await auth.refuse(request, 400)(scope, receive, send)
            return
        started = False

        async def saving(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                text = session.changed(auth.policy.session_data_bytes)
                if text is not None and caller:
                    await auth.db.run(sessions.save, auth.db, caller.session_id, text)
                started = True
            await send(message)

        try:
            caller, session = await auth.recognise(request)
            scope["auth"], scope["session"] = caller, session
            await self._app(scope, receive, saving)
        except auth.db.Unavailable as error:
            if started:
                raise
            log.error("the database can't serve: %s", error)
            await auth.refuse(request, 503)(scope, receive, send)


def _values(scope: Any, name: str) -> list[str]:
    """The values of the cookies with exactly this name.

    Not `request.cookies`: it trims as Python does, NEL and NBSP included, so that `\\xa0__Host-session`
    would count as ours, which a neighbour on a sibling domain may set.
    """
    raw = b";".join(value for key, value in scope["headers"] if key == b"cookie")
    if name.encode() not in raw:
        return []
    pairs = (part.partition(b"=") for part in raw.split(b";"))
    own = (value for key, _, value in pairs if key.strip(b" \t") == name.encode())
    return [value.strip(b" \t").decode("latin1") for value in own]


@lru_cache(1024)
def network_of(client: str) -> str:
    """The client's /24 or /48: enough to tell neighbours from strangers, not enough to find a person."""
    try:
        address = ip_address(client)
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return str(ip_network(f"{address}/{24 if address.version == 4 else 48}", strict=False))


def problem(status: int, headers: dict[str, str] | None = None) -> Response:
    """An error for programs (RFC 9457). `code` is stable: the status's name in snake case."""
    title = HTTPStatus(status).phrase
    code = title.lower().replace(" ", "_")
    body = {"type": "about:blank", "title": title, "status": status, "detail": title, "code": code}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def wants_json(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept
