"""The outermost layer of any app: what every answer carries and no request gets past.

It stands outside FastHTML because Starlette's own 500 and 413 answers are made outside its
middleware, and would leave without these headers.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from utils.logs import scope_now

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("shield")

MAX_BODY = 64 * 1024
MAX_FIELDS = 50
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    # Not no-referrer: under that a browser sends `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
PRIVATE = [(b"referrer-policy", b"no-referrer"), (b"x-robots-tag", b"noindex")]
HSTS = {"strict-transport-security": "max-age=63072000; includeSubDomains"}
PAGES = {
    400: "Bad Request",
    405: "Method Not Allowed",
    413: "Content Too Large",
    500: "Internal Server Error",
}


class Shield:
    """ASGI in, ASGI out. Headers, the Host check, body limits, /healthz and /readyz.

    base_url   the one origin that the app answers to; any loopback name too when `development`
    page       (status) → HTML, for the answers that are made here
    ready      can the app serve? For /readyz
    assets     URLs, with their ?v=, that a browser may keep for ever
    private    paths whose pages are named to nobody: no Referer, no search engine
    programs   how paths begin whose errors are JSON (RFC 9457) and no pages
    large      paths that take more: how many bytes each. There the body is not read here, and must say its length
    max_body   bytes; max_fields  of one form. More is 413
    """

    def __init__(
        self,
        app: Asgi,
        base_url: str,
        page: Callable[[int], str],
        ready: Callable[[], Awaitable[bool]],
        development: bool = False,
        assets: Collection[str] = (),
        private: Collection[str] = (),
        programs: tuple[str, ...] = (),
        large: Mapping[str, int] | None = None,
        max_body: int = MAX_BODY,
        max_fields: int = MAX_FIELDS,
    ):
        self._app, self._page, self._ready = app, page, ready
        self._private, self._programs, self._large = set(private), programs, large or {}
        # Requests that may come under another Host: from within, where the origin's name leads elsewhere.
        self.welcome: Callable[[Scope], bool] = lambda scope: False
        self._assets, self._max_body, self._max_fields = set(assets), max_body, max_fields
        parts = urlsplit(base_url)
        self._scheme = parts.scheme
        default = f":{443 if parts.scheme == 'https' else 80}"
        self._hosts = {parts.netloc.lower(), parts.netloc.lower().removesuffix(default)}
        if development:
            self._hosts |= {f"{name}:{parts.port or 80}" for name in LOOPBACK}
        headers = HEADERS | (HSTS if parts.scheme == "https" else {})
        self._headers = [(k.encode(), v.encode()) for k, v in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] == "http":
            # Behind a proxy that ends TLS every request looks like plain http; redirects go by this.
            scope["scheme"] = self._scheme
            scope_now.set(scope)
        path = scope["path"]
        # Only under the hash of its content: in the middle of a deployment another process may serve
        # an older file under the newer one's URL.
        cached = f"{path}?{scope.get('query_string', b'').decode('latin1')}" in self._assets

        async def armed(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = [*message.get("headers", ()), *(PRIVATE if path in self._private else ())]
                message["headers"] = self._arm(given, cached and message["status"] in (200, 304))
            await send(message)

        if scope["type"] == "http" and path in ("/healthz", "/readyz"):
            return await self._health(scope, armed)
        if not self._host_is_ours(scope) and not self.welcome(scope):
            return await self._refuse(scope, send, armed, 400)
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            # A GET has no body for us: starlette would keep all of what was sent in memory.
            return await self._app(
                scope, _replay(b"", receive) if scope["type"] == "http" else receive, armed
            )
        if path in self._large:
            # Not kept in memory for whoever sends it: the app reads it once it knows who that is.
            length = _declared(scope)
            if length > self._large[path]:
                return await self._refuse(scope, send, armed, 413)
            return await self._app(scope, receive if length else _replay(b"", receive), armed)
        body = await _read(scope, receive, self._max_body)
        if body is None or _fields(scope, body) > self._max_fields:
            return await self._refuse(scope, send, armed, 413)
        await self._app(scope, _replay(body, receive), armed)

    def _arm(self, given: Any, cached: bool) -> list[tuple[bytes, bytes]]:
        headers = [h for h in given if h[0].lower() != b"cache-control"]
        present = {name.lower() for name, _ in headers}
        headers += [h for h in self._headers if h[0] not in present]
        rule = b"public, max-age=31536000, immutable" if cached else b"no-store"
        return [*headers, (b"cache-control", rule)]

    def _host_is_ours(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        return len(hosts) == 1 and hosts[0].decode("latin1").lower() in self._hosts

    async def _health(self, scope: Scope, send: Send) -> None:
        # Under any Host: a platform's health check names its own.
        if scope["method"] not in ("GET", "HEAD"):
            return await _answer(scope, send, 405, b"", b"text/plain", [(b"allow", b"GET, HEAD")])
        good = scope["path"] == "/healthz" or await self._ready()
        body = b'{"status":"ok"}' if good else b'{"status":"unavailable"}'
        extra = [] if good else [(b"retry-after", b"5")]
        await _answer(scope, send, 200 if good else 503, body, b"application/json", extra)

    async def _refuse(self, scope: Scope, send: Send, armed: Send, status: int) -> None:
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        # After a 413, or a client could go on sending into a connection where nobody listens.
        close = [(b"connection", b"close")] if status == 413 else []
        kind, body = b"text/html; charset=utf-8", b""
        if scope["path"].startswith(self._programs):
            kind, body = b"application/problem+json", _problem(status)
        await _answer(scope, armed, status, body or self._page(status).encode(), kind, close)


def _problem(status: int) -> bytes:
    title = PAGES[status]
    code = title.lower().replace(" ", "_")
    told = {"type": "about:blank", "title": title, "status": status, "detail": title, "code": code}
    return json.dumps(told).encode()


async def _answer(
    scope: Scope,
    send: Send,
    status: int,
    body: bytes,
    kind: bytes,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> None:
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        *(extra or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _declared(scope: Scope) -> float:
    """How long the body says that it is: the parser of the server lets no more through. In chunks it might be
    endless; without a length there is none."""
    given = [v for n, v in scope["headers"] if n in (b"content-length", b"transfer-encoding")]
    good = len(given) == 1 and given[0].isdigit() and len(given[0]) <= 9
    return int(given[0]) if good else float("inf") if given else 0


async def _read(scope: Scope, receive: Receive, most: int) -> bytes | None:
    """The body, or None as soon as it is known to be too large."""
    for name, value in scope["headers"]:
        if name == b"content-length" and (
            not value.isdigit() or len(value) > 9 or int(value) > most
        ):
            return None
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            return None
    return body


def _fields(scope: Scope, body: bytes) -> int:
    """How many fields a form in this body has; at least, where it is odd."""
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"").lower()
    if kind.startswith(b"application/x-www-form-urlencoded"):
        return body.count(b"&") + 1
    if kind.startswith(b"multipart/form-data"):
        return body.lower().count(b"content-disposition:")
    return 0


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> dict[str, Any]:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
