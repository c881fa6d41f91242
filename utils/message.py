"""One mail: who says what to whom, and how that is written down. Sends nothing."""

import base64
import re
from dataclasses import dataclass
from email.header import Header
from email.utils import formataddr, formatdate
from functools import lru_cache
from typing import Protocol

LINE = 900  # RFC 5322 §2.1.1: 998
# One mailbox and nothing else. A comma would make it two, an angle bracket or a blank another command.
_ADDRESS = re.compile(
    r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@([A-Za-z0-9-]{1,63}\.)*[A-Za-z0-9-]{1,63}", re.A
)


class Letter(Protocol):
    """What is to be said and to whom. `to` is one canonical ASCII address; `html` may be empty."""

    @property
    def to(self) -> str: ...

    @property
    def subject(self) -> str: ...

    @property
    def text(self) -> str: ...

    @property
    def html(self) -> str: ...


@dataclass(frozen=True)
class Sender:
    """Who says it: MAIL_FROM, MAIL_FROM_NAME, MAIL_REPLY_TO."""

    address: str
    name: str = ""
    reply_to: str | None = None

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]

    @property
    def written(self) -> str:
        """Name <address>, as the From header has it."""
        return _from(self.name, self.address)


@dataclass(frozen=True)
class Message:
    """A letter on its way. `id` stays the same through every retry, and so does the Message-ID."""

    id: str
    sent_at: float
    sender: Sender
    letter: Letter

    def headers(self) -> dict[str, str]:
        """Those beside From, To, Subject and Reply-To. Raises ValueError where one would break its line."""
        return {
            "Message-ID": _header(f"<{self.id}@{self.sender.domain}>"),
            "Auto-Submitted": "auto-generated",  # RFC 3834: nobody's robot answers this
            "X-Auto-Response-Suppress": "OOF, AutoReply",
            "X-Entity-Ref-ID": _header(
                self.id
            ),  # or Gmail folds a code into the thread of an older one
        }

    def as_bytes(self) -> bytes:
        """RFC 5322, CRLF line ends, text first and then HTML.

        Written out here because the library's generator takes 1.1 ms for a mail, longer than the
        whole of the rest of a sign-in. Raises ValueError for a header that would break its line and
        for an address that is not exactly one.
        """
        sender, letter, boundary = self.sender, self.letter, f"=_{self.id}"
        headers = {
            "From": sender.written,
            "To": mailbox(letter.to),
            "Subject": _header(letter.subject),
            "Date": formatdate(self.sent_at),
            **self.headers(),
            "MIME-Version": "1.0",
            "Content-Type": f'multipart/alternative; boundary="{boundary}"',
        }
        if sender.reply_to:
            headers["Reply-To"] = mailbox(sender.reply_to)
        lines = [f"{name}: {value}" for name, value in headers.items()]
        for subtype, body in (("plain", letter.text), ("html", letter.html)):
            if body:
                lines += ["", f"--{boundary}", *_part(subtype, body)]
        return "\r\n".join([*lines, "", f"--{boundary}--", ""]).encode("ascii")


def mailbox(address: str) -> str:
    """The address, when it is one and no more than one. Raises ValueError."""
    # The last gate before the wire, for a row that was poisoned in the database.
    if len(address) > 254 or "=?" in address or not _ADDRESS.fullmatch(address):
        raise ValueError("an address is not exactly one")
    return address


@lru_cache(64)
def _from(name: str, address: str) -> str:
    words = _header(name)
    if words == name:
        return formataddr((name, mailbox(address)))
    return f"{words} <{mailbox(address)}>"


def _header(value: str) -> str:
    # The gate against header injection: a line end in a value would start a header of its own.
    if not value.isprintable():
        raise ValueError("a mail header holds a control character")
    # "=?" is decoded by whoever reads it: to a line end (CVE-2024-6923), or to another name.
    if value.isascii() and "=?" not in value and len(value) < LINE:
        return value
    return Header(value, "utf-8").encode(linesep="\r\n")


def _part(subtype: str, body: str) -> list[str]:
    body = body.replace("\r\n", "\n")
    plain = body.isascii() and "\r" not in body and "\0" not in body
    plain = plain and max(map(len, body.split("\n"))) < LINE
    head = [
        f'Content-Type: text/{subtype}; charset="utf-8"',
        f"Content-Transfer-Encoding: {'7bit' if plain else 'base64'}",
        "",
    ]
    if plain:
        return [*head, body.rstrip("\n").replace("\n", "\r\n")]
    return [*head, base64.encodebytes(body.encode()).decode().rstrip("\n").replace("\n", "\r\n")]
