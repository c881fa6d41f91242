"""For your tests: a browser that signs in through the real door, and the mailbox it reads its code from.

    mailbox = Mailbox()                       # give it to your outbox as its transport
    door = Door(asgi, mailbox, outbox.drain, "https://app.test")
    door.sign_in("ada@example.org")
    assert door.get("/reports").status_code == 200

Nothing is stubbed and no table is touched: what passes here passes for a person.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, LifoQueue
from threading import Thread
from typing import Any

import httpx2


class Wire(httpx2.BaseTransport):
    """Hands a request to the app, in an event loop that waits in a thread of its own.

    As Starlette's TestClient, at a third of the price: that one starts a thread and a loop for each request.
    Requests of several threads at once have a loop each, so they meet as those of several processes do.
    """

    _idle: LifoQueue[asyncio.AbstractEventLoop] = LifoQueue()

    def __init__(self, asgi: Any, client: tuple[str, int]):
        self._asgi, self._client = asgi, client

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        try:
            loop = self._idle.get_nowait()
        except Empty:
            loop = asyncio.new_event_loop()
            Thread(target=loop.run_forever, daemon=True).start()
        try:
            return asyncio.run_coroutine_threadsafe(self._serve(request), loop).result()
        finally:
            self._idle.put(loop)

    async def _serve(self, request: httpx2.Request) -> httpx2.Response:
        sent, over, status, headers, body = False, asyncio.Event(), 500, [], bytearray()

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if sent:  # nobody hangs up before the answer is there
                await over.wait()
                return {"type": "http.disconnect"}
            sent = True
            return {"type": "http.request", "body": request.content}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], message["headers"]
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    over.set()

        with suppress(Exception):  # a server logs it and goes on
            await self._asgi(self._scope(request), receive, send)
        over.set()
        stream = httpx2.ByteStream(b"" if request.method == "HEAD" else bytes(body))
        return httpx2.Response(status, headers=list(headers), stream=stream, request=request)

    def _scope(self, request: httpx2.Request) -> dict[str, Any]:
        url = request.url
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "root_path": "",
            "query_string": url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": self._client,
            "server": (url.host, url.port or {"http": 80, "https": 443}[url.scheme]),
            "state": {},
        }


def client_of(asgi: Any, base_url: str, address: str) -> httpx2.Client:
    """An HTTP client with cookies, at this network address, that follows no redirect."""
    headers = {"User-Agent": "testclient"}
    return httpx2.Client(transport=Wire(asgi, (address, 50000)), base_url=base_url, headers=headers)


class Mailbox:
    """A mail transport that keeps what it delivers, newest last."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def deliver(self, message: Any) -> str:
        message.as_bytes()  # what can't be written on the wire must fail here, too
        self.messages.append(message)
        return "kept"

    def close(self) -> None: ...

    def to(self, address: str) -> list[Any]:
        """The letters to this address, oldest first: `to`, `subject`, `text`, `html`."""
        return [m.letter for m in self.messages if m.letter.to == address]

    def latest_letter(self, address: str) -> Any:
        """The newest mail to this address, whatever it says. Raises LookupError when there is none."""
        letters = self.to(address)
        if not letters:
            raise LookupError(f"no mail to {address}; is the outbox drained?")
        return letters[-1]

    def latest_code(self, address: str) -> str:
        """The code in the newest mail to this address that has one. Raises LookupError when there is none."""
        for letter in reversed(self.to(address)):
            if found := re.search(r"^[0-9]{6,10}$", letter.text, re.MULTILINE):
                return found[0]
        raise LookupError(f"no mail with a code to {address}")

    def latest_link(self, address: str) -> str:
        """The URL in the newest mail that has one. Raises LookupError when there is none."""
        for letter in reversed(self.to(address)):
            if found := re.search(r"^https?://\S+#\w+$", letter.text, re.MULTILINE):
                return found[0]
        raise LookupError(f"no mail with a link to {address}")


class Door:
    """One browser: it has its own cookies, and sends what a browser sends."""

    def __init__(
        self,
        asgi: Any,
        mailbox: Mailbox,
        drain: Callable[[], object],
        base_url: str,
        htmx: bool = False,
        client: str = "192.0.2.1",
    ):
        self.mailbox, self.drain, self.address = mailbox, drain, ""
        self.client = client_of(asgi, base_url, client)
        self.client.headers["Accept"] = "text/html"
        if htmx:
            self.client.headers["HX-Request"] = "true"

    # ---- what a browser does
    def get(self, path: str, **more: Any) -> Any:
        return self.client.get(path, **more)

    def post(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> Any:
        """Send a form, as a page of ours would."""
        sent = {"Sec-Fetch-Site": "same-origin"} | (headers or {})
        return self.client.post(path, data=fields, headers=sent)

    # ---- what a person does
    def ask(self, email: str, next: str = "") -> Any:
        """Type an address and press the button."""
        self.address = email.strip().lower()
        return self.post("/create_code", email=email, next=next)

    def read_code(self) -> str:
        """Open the mailbox and read the newest code."""
        self.drain()
        return self.mailbox.latest_code(self.address)

    def enter(self, code: str, timezone: str = "") -> Any:
        return self.post("/verify_code", code=code, timezone=timezone)

    def sign_in(self, email: str, next: str = "") -> Any:
        """All of it. Raises AssertionError when it does not end in a session."""
        self.ask(email, next)
        answer = self.enter(self.read_code())
        if not self.signed_in:
            raise AssertionError(f"{email} was not signed in: {answer.status_code}")
        return answer

    @property
    def signed_in(self) -> bool:
        """Does the server still know this browser?"""
        # Not as htmx, for which a redirect is a 200, too.
        answer = self.client.get("/dashboard", headers={"HX-Request": "false"})
        return bool(answer.status_code == 200)

    def cookie(self, name: str) -> str | None:
        """A cookie by its short name, with or without `__Host-`."""
        jar = self.client.cookies
        return jar.get(f"__Host-{name}") or jar.get(name)


class Program:
    """An app on a phone, or another program: it speaks JSON, and keeps what it is given itself.

    program.sign_in("ada@example.org")
    assert program.get("/api/reports").status_code == 200
    """

    def __init__(
        self,
        asgi: Any,
        mailbox: Mailbox,
        drain: Callable[[], object],
        base_url: str,
        client: str = "192.0.2.1",
    ):
        self.mailbox, self.drain, self.address = mailbox, drain, ""
        self.challenge = self.device_secret = self.access_token = self.refresh_token = ""
        self.client = client_of(asgi, base_url, client)

    # ---- what a program sends
    def get(self, path: str, **more: Any) -> Any:
        """With the access token, when there is one."""
        return self.client.get(path, headers=self._bearer(), **more)

    def post(self, path: str, **body: Any) -> Any:
        return self.client.post(path, json=body, headers=self._bearer())

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"} if self.access_token else {}

    # ---- what a person does with it
    def ask(self, email: str) -> Any:
        self.address = email.strip().lower()
        answer = self.client.post("/auth/login", json={"email": email})
        if answer.status_code == 202:
            given = answer.json()
            self.challenge, self.device_secret = given["challenge"], given["device_secret"]
        return answer

    def read_code(self) -> str:
        self.drain()
        return self.mailbox.latest_code(self.address)

    def enter(self, code: str) -> Any:
        body = {"challenge": self.challenge, "device_secret": self.device_secret, "code": code}
        return self._keep(self.client.post("/auth/verify", json=body))

    def open_link(self, link: str) -> Any:
        """A link that the phone gave to the app: what stands after its # proves that the mail was read."""
        body = {"token": link.rpartition("#")[2], "device_secret": self.device_secret}
        return self._keep(self.client.post("/auth/verify", json=body))

    def refresh(self, token: str = "") -> Any:
        body = {"refresh_token": token or self.refresh_token}
        return self._keep(self.client.post("/auth/refresh", json=body))

    def sign_in(self, email: str) -> Any:
        """All of it. Raises AssertionError when it does not end in a session."""
        self.ask(email)
        answer = self.enter(self.read_code())
        if not self.signed_in:
            raise AssertionError(f"{email} was not signed in: {answer.status_code} {answer.text}")
        return answer

    @property
    def signed_in(self) -> bool:
        return bool(self.get("/auth/me").status_code == 200)

    def _keep(self, answer: Any) -> Any:
        if answer.status_code == 200:
            given = answer.json()
            self.access_token = given["access_token"]
            self.refresh_token = given["refresh_token"]
        return answer
