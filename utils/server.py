"""uvicorn as this app wants it, and its HTTP protocol with an end to what comes before and after a body."""

from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from utils.shield import HEADERS

MAX_HEAD = 64 * 1024


class Protocol(HttpToolsProtocol):
    """A request line with its headers, or trailers: about MAX_HEAD at most, or 400 and good-bye.

    The parser keeps them in memory until they are whole, and has no limit of its own. What comes in
    the same read as the end is let through: memory is what is bounded here, to a read more.
    """

    _pending = 0

    def send_400_response(self, msg: str) -> None:
        """uvicorn's own answer to what is no HTTP, with the headers of every answer."""
        headers = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        self.transport.write(
            f"HTTP/1.1 400 Bad Request\r\n{headers}cache-control: no-store\r\nconnection: close\r\n"
            f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(msg)}\r\n\r\n{msg}".encode()
        )
        self.transport.close()

    def on_headers_complete(self) -> None:
        self._pending = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._pending = 0
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        super().data_received(data)
        if self._pending > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("Too much before the body.")


def serve(asgi: Any, host: str, port: int) -> None:
    """Listen until a signal says to stop; requests under way may take 20 seconds more."""
    uvicorn.run(
        asgi,
        host=host,
        port=port,
        log_config=None,
        access_log=False,  # its line prints query strings
        proxy_headers=False,  # or whoever connects from this machine chooses their own address
        server_header=False,
        http=Protocol,
        ws="none",  # no page of ours has a socket; yours may, then write "auto"
        timeout_graceful_shutdown=20,
    )
