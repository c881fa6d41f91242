"""Before every handler: refuses cross-site changes, says who is asking, keeps the session.

Plain ASGI, since it has to see every request of the app, and to write before an answer leaves.
"""

import logging
from collections.abc import Collection
from http import HTTPStatus
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from auth import sessions
from auth.caller import Caller, SessionData

log = logging.getLogger("auth.gate")

JSON = "application/json"
# Where programs ask: bearer tokens only, cookies mean nothing, errors are problem+json.
PROGRAMS = ("/auth/", "/api/", "/openapi.json")

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Gate:
    """ASGI middleware; `auth` is the EmailAuth that it works for."""

    def __init__(self, app: Any, auth: Any):
        self._app, self._auth = app, auth
        # Never with credentials: a token is sent by the program itself, and no cookie counts there.
        self._shared = CORSMiddleware(
            self._answer_program,
            allow_origins=auth.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After", "WWW-Authenticate"],
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or scope["path"].startswith("/static/"):
            await self._app(scope, receive, send)
            return
        auth, headers = self._auth, _once(scope["headers"])
        if scope["type"] == "websocket":
            # A browser lets any site open a socket here with our cookies; only Origin tells.
            if headers.get(b"origin", b"").decode("latin1") not in auth.origins:
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self._app(scope | {"auth": None, "session": {}}, receive, send)
            return
        request = Request(scope, receive)
        request.state.id = auth.keys.new_id()[:16]
        if scope["path"].startswith(PROGRAMS):
            await self._serve_program(request, headers, send)
            return
        if not same_origin(scope["method"], headers, auth.origins):
            log.warning("cross-site %s %s refused", scope["method"], scope["path"])
            await auth.refuse(request, 403, "cross_site")(scope, receive, send)
            return
        # Two of one name: one was planted, and which is which can't be told.
        if any(len(values) > 1 for values in cookies(scope, auth.cookies).values()):
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

    async def _serve_program(
        self, request: Request, headers: dict[bytes, bytes], send: Any
    ) -> None:
        """No cookie is read, so there is nothing for another site to ride on; what comes from one is refused all
        the same. Programs say no origin at all."""
        auth, scope, receive = self._auth, request.scope, request.receive
        scope["program"], scope["auth"], scope["session"] = True, None, SessionData(None)
        shared = headers.get(b"origin", b"").decode("latin1") in auth.cors_origins
        told = b"origin" in headers or b"sec-fetch-site" in headers
        if told and not shared and not same_origin(scope["method"], headers, auth.origins):
            log.warning("cross-site %s %s refused", scope["method"], scope["path"])
            await problem(403, code="cross_site")(scope, receive, send)
            return
        await (self._shared if shared else self._answer_program)(scope, receive, send)

    async def _answer_program(self, scope: Any, receive: Any, send: Any) -> None:
        auth = self._auth
        try:
            if scope["path"].startswith("/api/"):
                session = await auth.app_session(Request(scope, receive))
                scope["auth"] = session and Caller.of_app(session)
            await self._app(scope, receive, send)
        except auth.db.Unavailable as error:
            log.error("the database can't serve: %s", error)
            await auth.refuse(Request(scope, receive), 503)(scope, receive, send)


def _once(given: Collection[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """By name. What says where a request comes from is as good as empty where it stands twice: one of the two
    is a lie, and which, nobody can tell."""
    headers = dict(given)
    if len(headers) < len(given):
        for name in (b"origin", b"sec-fetch-site"):
            if sum(name == one for one, _ in given) > 1:
                headers[name] = b""
    return headers


def same_origin(method: str, headers: dict[bytes, bytes], origins: set[str]) -> bool:
    """May this request change something? (Go 1.25's CrossOriginProtection; OWASP CSRF.)

    Browsers name the relation in Sec-Fetch-Site; older ones only an Origin. `same-site` is not
    ours: a neighbour on a sibling domain is a stranger.
    """
    if method in SAFE_METHODS:
        return True
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site in (b"same-origin", b"none")
    return headers.get(b"origin", b"").decode("latin1") in origins


def cookies(scope: Any, names: Collection[str]) -> dict[str, list[str]]:
    """The values of the cookies with exactly these names, by name; of those that came. Read once a request.

    Not `request.cookies`: it trims as Python does, NEL and NBSP included, so that `\\xa0__Host-session`
    would count as ours, which a neighbour on a sibling domain may set.
    """
    if "auth.cookies" in scope:
        return scope["auth.cookies"]  # type: ignore[no-any-return]
    found: dict[str, list[str]] = {}
    scope["auth.cookies"] = found
    for line in [value for key, value in scope["headers"] if key == b"cookie"]:
        for pair in line.decode("latin1").split(";"):
            name, _, value = pair.partition("=")
            if name.strip(" \t") in names:
                found.setdefault(name.strip(" \t"), []).append(value.strip(" \t"))
    return found


# What RFC 9110 calls them; older Pythons have older names, and the code must not change with them.
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}


def problem(
    status: int,
    headers: dict[str, str] | None = None,
    code: str = "",
    detail: str = "",
    **more: Any,
) -> Response:
    """An error for programs (RFC 9457). `code` is stable; where none is given, the status's name in snake case."""
    title = _TITLES.get(status) or HTTPStatus(status).phrase
    code = code or title.lower().replace(" ", "_")
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail or title}
    body |= {"code": code, **more}
    if status == 401:
        headers = {"WWW-Authenticate": "Bearer"} | (headers or {})  # RFC 9110 §15.5.2
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def wants_json(request: Request) -> bool:
    if request.scope.get("program"):
        return True
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept


def is_htmx(request: Request) -> bool:
    return request.headers.get("hx-request") == "true"
