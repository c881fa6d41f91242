"""What the benchmark stands on: a light HTTP client, an SMTP sink, and the CPU of a process tree. Linux only."""

import asyncio
import json
import os
import time
from urllib.parse import urlencode


# ---- SMTP
class Sink:
    """Takes every mail on loopback and hands each that is `wanted` to whoever waits for its recipient."""

    def __init__(self):
        self.waiting, self.wanted = {}, bool
        self.mails = self.connections = 0

    async def listen(self):
        """Returns the port."""
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: _Smtp(self), "127.0.0.1", 0, backlog=512)
        return self.server.sockets[0].getsockname()[1]

    def expect(self, recipient):
        """A future of the next mail to `recipient`."""
        future = asyncio.get_running_loop().create_future()
        self.waiting[recipient] = future
        return future

    def take(self, recipient, raw):
        self.mails += 1
        # A notice to the same person may come in between.
        future = self.waiting.pop(recipient, None) if self.wanted(raw) else None
        if future and not future.done():
            future.set_result(raw)


class _Smtp(asyncio.Protocol):
    EHLO = b"250-sink\r\n250-SIZE 33554432\r\n250-8BITMIME\r\n250-PIPELINING\r\n250 SMTPUTF8\r\n"

    def __init__(self, sink):
        self.sink, self.buffer, self.in_data, self.recipient = sink, b"", False, ""

    def connection_made(self, transport):
        self.transport = transport
        self.sink.connections += 1
        transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data):
        self.buffer += data
        while True:
            end_mark = b"\r\n.\r\n" if self.in_data else b"\r\n"
            piece, found, rest = self.buffer.partition(end_mark)
            if not found:
                return
            self.buffer = rest
            if self.in_data:
                self.in_data = False
                self.transport.write(b"250 2.0.0 queued\r\n")
                self.sink.take(self.recipient, piece)
            else:
                self.command(piece)

    def command(self, line):
        verb = line[:4].upper()
        if verb == b"RCPT":
            self.recipient = line.partition(b"<")[2].partition(b">")[0].decode().lower()
        self.in_data = verb == b"DATA"
        answers = {b"EHLO": self.EHLO, b"DATA": b"354 go\r\n", b"QUIT": b"221 2.0.0 bye\r\n"}
        self.transport.write(answers.get(verb, b"250 2.0.0 ok\r\n"))
        if verb == b"QUIT":
            self.transport.close()


# ---- HTTP
class _Http(asyncio.Protocol):
    """One connection, one request at a time; answers have a Content-Length or come in chunks."""

    def __init__(self):
        self.buffer, self.closed, self.future = b"", False, None

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        self.closed = True
        if self.future and not self.future.done():
            self.future.set_exception(ConnectionError("closed before the answer was whole"))

    def data_received(self, data):
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin1").split("\r\n")
        headers = [
            (name.lower(), value.strip()) for name, _, value in (x.partition(":") for x in lines)
        ]
        known = dict(headers)
        if "chunked" in known.get("transfer-encoding", ""):
            body = joined(body)
        if body is None or len(body) < int(known.get("content-length", 0)):
            return
        self.buffer = b""
        # The next request opens a new one, even when the server has not yet closed this one.
        self.closed = known.get("connection", "").lower() == "close"
        self.future.set_result((int(first.split(" ", 2)[1]), headers, body))


def joined(chunks):
    """The body that came in chunks; None while some are missing."""
    body = b""
    while True:
        size, found, rest = chunks.partition(b"\r\n")
        length = int(size.split(b";")[0], 16) if found else -1
        if length < 0 or len(rest) < length + 2:
            return None
        if not length:
            return body
        body, chunks = body + rest[:length], rest[length + 2 :]


class Browser:
    """One connection, one cookie jar, and what it keeps of answers."""

    def __init__(self, port):
        self.port, self.http, self.cookies, self.kept = port, None, {}, {}

    def forget(self):
        """A new browser on the same connection."""
        self.cookies, self.kept = {}, {}

    def close(self):
        if self.http:
            self.http.transport.close()

    async def get(self, path, headers=None):
        return await self.request("GET", path, headers or {}, b"")

    async def post(self, path, form, headers=None):
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self.request("POST", path, kind | (headers or {}), urlencode(form).encode())

    async def post_json(self, path, body, headers=None):
        kind = {"Content-Type": "application/json"}
        return await self.request("POST", path, kind | (headers or {}), json.dumps(body).encode())

    async def request(self, method, path, headers, body):
        """(status, body as text). Cookies are kept."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "User-Agent: bench"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if self.cookies:
            lines.append("Cookie: " + "; ".join(f"{k}={v}" for k, v in self.cookies.items()))
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        loop = asyncio.get_running_loop()
        if self.http is None or self.http.closed:
            _, self.http = await loop.create_connection(_Http, "127.0.0.1", self.port)
        self.http.future = loop.create_future()
        self.http.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        status, answered, text = await asyncio.wait_for(self.http.future, 60)
        for name, value in answered:
            if name == "set-cookie":
                pair = value.partition(";")[0].partition("=")
                self.cookies[pair[0]] = pair[2]
                if "max-age=0" in value.lower():
                    del self.cookies[pair[0]]
        return status, text.decode()


# ---- accounting
def tree(pid):
    """`pid` and its descendants."""
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as children:
                for child in children.read().split():
                    found += tree(int(child))
    except FileNotFoundError:
        pass
    return found


def cpu_seconds(pid):
    """User and system time of the process tree, by each process's own CPU clock (nanoseconds)."""
    total = 0.0
    for process in tree(pid):
        try:
            total += time.clock_gettime((~process << 3) | 2)
        except OSError:  # it has ended
            continue
    return total


def memory_mb(pid):
    """Resident memory of the process tree; what two of them share is counted in both."""
    total = 0
    for process in tree(pid):
        with open(f"/proc/{process}/status") as status:
            total += sum(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return total / 1024
