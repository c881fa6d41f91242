"""Delivers one mail: to the console, by SMTP, or nowhere. Does not know what is in it.

Each transport has `deliver(message) -> reply`, which returns what the server said when it took the
mail and raises when it did not.
"""

import base64
import re
import smtplib
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.header import Header
from email.utils import formataddr, formatdate
from typing import Protocol, TextIO

CONNECT_SECONDS = 10
COMMAND_SECONDS = 15
USES_PER_CONNECTION = 50
SECONDS_PER_CONNECTION = 60


class Letter(Protocol):
    """What is to be said and to whom. `to` is one canonical ASCII address."""

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


@dataclass(frozen=True)
class Message:
    """A letter on its way. `id` stays the same through every retry, and so does the Message-ID."""

    id: str
    sent_at: float
    sender: Sender
    letter: Letter

    def as_bytes(self) -> bytes:
        """RFC 5322, CRLF line ends, text first and then HTML.

        Written out here because the library's generator takes 1.1 ms for a mail, longer than the
        whole of the rest of a sign-in. Raises ValueError for a header that would break its line.
        """
        sender, letter, boundary = self.sender, self.letter, f"=_{self.id}"
        headers = {
            "From": formataddr((sender.name, sender.address)),
            "To": letter.to,
            "Subject": letter.subject,
            "Date": formatdate(self.sent_at),
            "Message-ID": f"<{self.id}@{sender.domain}>",
            "Auto-Submitted": "auto-generated",  # RFC 3834: nobody's robot answers this
            "X-Auto-Response-Suppress": "OOF, AutoReply",
            "X-Entity-Ref-ID": self.id,  # or Gmail folds one code into the thread of an older one
            "MIME-Version": "1.0",
            "Content-Type": f'multipart/alternative; boundary="{boundary}"',
        }
        if sender.reply_to:
            headers["Reply-To"] = sender.reply_to
        lines = [f"{name}: {_header(value)}" for name, value in headers.items()]
        for subtype, body in (("plain", letter.text), ("html", letter.html)):
            lines += ["", f"--{boundary}", *_part(subtype, body)]
        return "\r\n".join([*lines, "", f"--{boundary}--", ""]).encode("ascii")


def _header(value: str) -> str:
    # The gate against header injection: a line end in a value would start a header of its own.
    if not value.isprintable():
        raise ValueError("a mail header holds a control character")
    return value if value.isascii() else Header(value, "utf-8").encode(linesep="\r\n")


def _part(subtype: str, body: str) -> list[str]:
    plain = body.isascii() and max(map(len, body.split("\n"))) < 900  # RFC 5322 §2.1.1: 998
    head = [
        f'Content-Type: text/{subtype}; charset="utf-8"',
        f"Content-Transfer-Encoding: {'7bit' if plain else 'base64'}",
        "",
    ]
    if plain:
        return [*head, body.replace("\r\n", "\n").rstrip("\n").replace("\n", "\r\n")]
    return [*head, base64.encodebytes(body.encode()).decode().rstrip("\n").replace("\n", "\r\n")]


class Transport(Protocol):
    def deliver(self, message: Message) -> str: ...

    def close(self) -> None: ...


class Console:
    """Prints the mail in a box, decoded, so that a developer reads the code in the terminal."""

    def __init__(self, out: TextIO | None = None):
        self._out = out

    def deliver(self, message: Message) -> str:
        letter, out = message.letter, self._out or sys.stdout
        lines = [f"To: {letter.to}", f"Subject: {letter.subject}", "", *letter.text.split("\n")]
        width = max(map(len, lines))
        box = [f"│ {line:<{width}} │" for line in lines]
        edge = "─" * (width + 2)
        print(f"\n┌{edge}┐", *box, f"└{edge}┘\n", sep="\n", file=out, flush=True)
        return "printed"

    def close(self) -> None: ...


class Nowhere:
    """MAIL_BACKEND=none: nothing is sent, and the pages say so."""

    def deliver(self, message: Message) -> str:
        return "mail is switched off"

    def close(self) -> None: ...


class Smtp:
    """One kept connection, used by one thread. Certificates are verified; no fallback to clear text."""

    def __init__(
        self,
        host: str,
        port: int,
        security: str,
        user: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._host, self._port, self._security = host, port, security
        self._login = (user, password) if user and password else None
        # Made once: loading the certificate store takes 17 ms. smtplib without a context of ours
        # would not check certificates at all.
        self._tls = tls or ssl.create_default_context()
        self._clock = clock
        self._connection: smtplib.SMTP | None = None
        self._uses, self._opened = 0, 0.0

    def deliver(self, message: Message) -> str:
        """Raises smtplib.SMTPException or OSError when the mail was not accepted."""
        kept = self._connection is not None
        try:
            return self._send(message)
        except smtplib.SMTPServerDisconnected:
            # A server may close a connection that was idle. The Message-ID makes the rare double,
            # accepted before the connection broke, recognisable.
            if not kept:
                raise
            return self._send(message)

    def _send(self, message: Message) -> str:
        try:
            connection = self._ready(message.sender.domain)
            self._uses += 1
            return self._say(connection, message)
        except BaseException:
            self._drop()
            raise

    def _say(self, connection: smtplib.SMTP, message: Message) -> str:
        """MAIL, RCPT and DATA in one go where the server allows it (RFC 2920): two waits in place of four.

        One recipient, named here and not read from a header: `To: a, b` can't become two.
        """
        sender, to, body = message.sender.address, message.letter.to, message.as_bytes()
        if not connection.has_extn("pipelining"):
            connection.sendmail(sender, [to], body)
            return "250 accepted"
        connection.send(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{to}>\r\nDATA\r\n".encode("ascii"))
        answers = [connection.getreply() for _ in range(3)]
        for (code, text), wanted in zip(answers, ((250,), (250, 251), (354,)), strict=True):
            if code not in wanted:
                raise smtplib.SMTPResponseException(code, text)
        # RFC 5321 §4.5.2: a line that begins with a dot gets another one.
        connection.send(re.sub(rb"(?m)^\.", b"..", body) + b".\r\n")
        code, text = connection.getreply()
        if code != 250:
            raise smtplib.SMTPDataError(code, text)
        return "250 accepted"

    def _ready(self, name: str) -> smtplib.SMTP:
        old = self._clock() - self._opened > SECONDS_PER_CONNECTION
        if self._connection and (old or self._uses >= USES_PER_CONNECTION):
            self.close()
        if not self._connection:
            self._connection, self._uses, self._opened = self._connect(name), 0, self._clock()
        return self._connection

    def _connect(self, name: str) -> smtplib.SMTP:
        connection: smtplib.SMTP
        if self._security == "tls":
            connection = smtplib.SMTP_SSL(
                self._host, self._port, name, timeout=CONNECT_SECONDS, context=self._tls
            )
        else:
            connection = smtplib.SMTP(self._host, self._port, name, timeout=CONNECT_SECONDS)
        try:
            if connection.sock:
                connection.sock.settimeout(COMMAND_SECONDS)
            if self._security == "starttls":
                connection.starttls(context=self._tls)  # raises when it is not offered
            if self._login:
                connection.login(*self._login)
            connection.ehlo_or_helo_if_needed()
        except BaseException:
            connection.close()
            raise
        return connection

    def _drop(self) -> None:
        """Hang up at once. A QUIT in the middle of a mail would be read as a part of it."""
        if self._connection:
            connection, self._connection = self._connection, None
            connection.close()

    def close(self) -> None:
        """Say good-bye; between two mails only."""
        if self._connection:
            try:
                self._connection.quit()
            except (smtplib.SMTPException, OSError):
                self._drop()
            self._connection = None
