"""The developer's mailbox: keeps what is delivered in memory and shows it at /dev/mailbox. Not what it says.

For development only: its mails open doors. `main.py` opens it there and nowhere else.
"""

import threading
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from utils.mailer import Message, Transport
from utils.shield import CSP

PATH = "/dev/mailbox"
MOST = 50
# What proxies and tunnels write; one that writes nothing can't be told from a browser here.
PASSED_ON = {
    *("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"),
    *("cf-connecting-ip", "true-client-ip", "fly-client-ip", "ngrok-trace-id"),
}
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
# The page of one mail shows that mail's own HTML in a frame; no other page may show a frame.
MAIL_CSP = f"{CSP}; frame-src 'self'"
# Mail has inline style and nothing else. It is a stranger to our origin, and its links open outside.
FRAME_CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)


class Pages(Protocol):
    """What the mailbox needs of the words and pages. Messages in, HTML out."""

    def inbox(self, messages: list[Message]) -> str: ...

    def news(self, messages: list[Message]) -> str: ...

    def mail(self, message: Message) -> str: ...

    def frame(self, message: Message) -> str: ...

    def gone(self) -> str: ...


class Mailbox:
    """A transport that keeps the newest messages, and lets another one deliver them. For any thread."""

    def __init__(self, transport: Transport, most: int = MOST):
        self._transport, self._most = transport, most
        self._kept: dict[str, Message] = {}
        self._lock = threading.Lock()

    def deliver(self, message: Message) -> str:
        with self._lock:
            self._kept.pop(message.id, None)  # a mail that is tried again is one mail
            self._kept[message.id] = message
            while len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]
        return self._transport.deliver(message)

    def close(self) -> None:
        self._transport.close()

    def messages(self) -> list[Message]:
        """Newest first."""
        with self._lock:
            return list(reversed(self._kept.values()))

    def find(self, id: str) -> Message | None:
        with self._lock:
            return self._kept.get(id)


def open_mailbox(app: Any, transport: Transport, pages: Pages) -> Mailbox:
    """Add the pages to a Starlette app. Returns the transport to use in place of the one given."""
    box = Mailbox(transport)

    async def inbox(request: Request) -> Response:
        messages = box.messages()
        if request.headers.get("hx-request") != "true":
            return HTMLResponse(pages.inbox(messages))
        newest = messages[0].id if messages else ""
        if request.query_params.get("seen") == newest:
            return Response(status_code=204)  # nothing new, and nothing is drawn anew
        return HTMLResponse(pages.news(messages))

    async def mail(request: Request) -> Response:
        return shown(request, pages.mail, MAIL_CSP)

    async def frame(request: Request) -> Response:
        return shown(request, pages.frame, FRAME_CSP)

    def shown(request: Request, draw: Callable[[Message], str], csp: str) -> Response:
        message = box.find(request.path_params["id"])
        if message is None:
            return HTMLResponse(pages.gone(), 404)
        return HTMLResponse(draw(message), headers={"Content-Security-Policy": csp})

    for path, handler in (("", inbox), ("/{id}", mail), ("/{id}/html", frame)):
        app.router.routes.append(Route(PATH + path, _at_home(handler), methods=["GET"]))
    return box


def _at_home(handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """Only for a browser on this machine: a tunnel or a proxy to it would hand codes to everybody."""

    async def guarded(request: Request) -> Response:
        peer = request.client.host if request.client else ""
        forwarded = PASSED_ON & set(request.headers)
        if forwarded or request.url.hostname not in LOOPBACK_NAMES or not _is_loopback(peer):
            raise HTTPException(404)
        answer: Response = await handler(request)
        return answer

    return guarded


def _is_loopback(peer: str) -> bool:
    try:
        return ip_address(peer).is_loopback
    except ValueError:  # a Unix socket has no address
        return False
