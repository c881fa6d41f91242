"""uvicorn as this app wants it: an end to what comes too slowly or too long, and to no request that came in time."""

import asyncio
import ctypes
import os
import socket
import struct
import sys
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from utils.shield import HEADERS

MAX_HEAD = 64 * 1024
HEAD, BODY, NOTHING = "head", "body", ""
# In all, not from one byte to the next: a byte a minute would hold a connection for ever.
PATIENCE = {HEAD: 10.0, BODY: 30.0}
LAST_SECONDS = 2.0  # for a connection that came just before the end, until its request is here


class Protocol(HttpToolsProtocol):
    """A request line with its headers, or trailers: about MAX_HEAD at most, or 400 and good-bye; and
    each part within its PATIENCE, or good-bye.

    The parser keeps them in memory until they are whole, and has no limit of its own. What comes in
    the same read as the end is let through: memory is what is bounded here, to a read more.
    """

    patience = PATIENCE
    _pending = 0
    _awaited, _watched = NOTHING, NOTHING
    _watch: asyncio.TimerHandle | None = None
    last = False  # after this answer the connection is closed, and each answer says so

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._awaited = HEAD
        self._watch_over()

    def connection_lost(self, exc: Exception | None) -> None:
        self._awaited = NOTHING
        self._watch_over()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """uvicorn's own answer to what is no HTTP, with the headers of every answer."""
        headers = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        self.transport.write(
            f"HTTP/1.1 400 Bad Request\r\n{headers}cache-control: no-store\r\nconnection: close\r\n"
            f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(msg)}\r\n\r\n{msg}".encode()
        )
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """None: a stranger could fill the log with it, and it advises to install what nobody needs here."""

    def on_headers_complete(self) -> None:
        self._pending, self._awaited = 0, BODY
        super().on_headers_complete()
        if self.last:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._pending, self._awaited = 0, NOTHING
        self._watched = "another"  # the next one's time begins anew
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        if self._awaited == NOTHING:
            self._awaited = HEAD
        super().data_received(data)
        if self._pending > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("Too much before the body.")
        self._watch_over()

    def on_message_begin(self) -> None:
        self._awaited = HEAD
        super().on_message_begin()

    def _watch_over(self) -> None:
        """The time for what is awaited now. What comes in one piece, as most does, costs no timer."""
        if self._awaited == self._watched:
            return
        if self._watch:
            self._watch.cancel()
        self._watched, seconds = self._awaited, self.patience.get(self._awaited)
        self._watch = self.loop.call_later(seconds, self.transport.close) if seconds else None

    def shutdown(self) -> None:
        """The process ends. Whoever connected before it said so, and has asked nothing yet, may still."""
        if self.cycle is not None:
            return super().shutdown()
        self.last = True
        self.loop.call_later(LAST_SECONDS, self._leave)

    def _leave(self) -> None:
        if self.cycle is None:
            self.transport.close()


class Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn, and nobody is turned away who is connected already.

        A connection that the system has accepted and nobody took yet would be reset with the socket.
        The proxy before us takes a request that it has sent already to no other process, unless it
        only reads: people would see an error for each deployment.
        """
        # A second handle, or closing the server would close what still has to be emptied.
        doors = [
            socket.socket(fileno=os.dup(s.fileno()))
            for server in self.servers
            for s in server.sockets
        ]
        for server in self.servers:
            server.close()
        # From here on, also while those are taken who came last.
        for connection in self.server_state.connections:
            if isinstance(connection, Protocol):
                connection.last = True
        came = []
        for door in doors:
            _let_nobody_in(door)
            door.setblocking(False)
            with suppress(OSError):
                while True:
                    came.append(door.accept()[0])
            door.close()
        loop = asyncio.get_running_loop()
        for each in came:
            with suppress(OSError):
                await loop.connect_accepted_socket(self._protocol, each)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        protocol = Protocol(self.config, self.server_state, self.lifespan.state)
        protocol.last = True
        return protocol


def _let_nobody_in(door: socket.socket) -> None:
    """Or one could come between the last that is taken and the end. Whoever comes now gets no answer, asks again
    after a second, and is told then that nobody is here. Linux only; SO_ATTACH_FILTER, see socket(7)."""
    nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0 bytes
    with suppress(OSError):
        program = struct.pack("HP", 1, ctypes.addressof(nothing))
        door.setsockopt(socket.SOL_SOCKET, 26, program)


def serve(asgi: Any, host: str, port: int) -> None:
    """Listen until a signal says to stop; requests under way may take 20 seconds more."""
    config = uvicorn.Config(
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
    server = Server(config)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)
