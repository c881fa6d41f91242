"""For your tests: a browser that signs in through the real door, and the mailbox it reads its code from.

    mailbox = Mailbox()                       # give it to your outbox as its transport
    door = Door(asgi, mailbox, outbox.drain, "https://app.test")
    door.sign_in("ada@example.org")
    assert door.get("/reports").status_code == 200

Nothing is stubbed and no table is touched: what passes here passes for a person.
"""

import re
from collections.abc import Callable
from typing import Any

from starlette.testclient import TestClient


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
        self.client = TestClient(
            asgi,
            base_url=base_url,
            follow_redirects=False,
            raise_server_exceptions=False,
            client=(client, 50000),
        )
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
        self.client = TestClient(
            asgi,
            base_url=base_url,
            follow_redirects=False,
            raise_server_exceptions=False,
            client=(client, 50000),
        )

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
