"""Sends mails by SMTP over a few kept connections. Verified TLS, no fallback to clear text.

Every failure is a Fault; what one means is decided in replies.py. Not how often or when to try again.
"""

import base64
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from utils.message import Message
from utils.replies import DEAD, HOLD, Fault, Garbled, broken, kept, refused

USES_PER_CONNECTION = 50
SECONDS_PER_CONNECTION = 60
MAX_REPLY = 64 * 1024  # bytes; a server that never ends its answer must not fill our memory

Step = Callable[[str, str], object]


class Patience(NamedTuple):
    """Seconds. RFC 5321 §4.5.3.2 has minutes; a code lives for fifteen, and the same mail is tried again."""

    connect: float = 10
    command: float = 15
    end: float = 35  # some servers scan a mail before they answer


class Smtp:
    """Delivers for any number of threads; each delivery has a connection of its own.

    `step(stage, text)` hears each answer, for an operator who watches.
    """

    def __init__(
        self,
        host: str,
        port: int,
        security: str,
        user: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
        patience: Patience | None = None,
        step: Step | None = None,
    ):
        self._host, self._port, self._security = host, port, security
        self._login = (user, password) if user and password else None
        # Made once: loading the certificate store takes 17 ms.
        self._tls = None if security == "none" else tls or verified()
        self._clock, self._patience = clock, patience or Patience()
        self._step = step
        self._lock, self._idle = threading.Lock(), list[_Line]()

    def deliver(self, message: Message) -> str:
        """What the server said when it took the mail. Raises Fault."""
        try:
            body = message.as_bytes()
        except ValueError as error:  # nothing goes on the wire
            raise Fault(DEAD, f"can't be written: {error}", cause="unwritten") from error
        sender, to = message.sender.address, message.letter.to
        line = self._take()
        if line:
            try:
                return self._send(line, sender, to, body)
            except Fault:
                # A server may close a connection that was idle, with or without a 421. Nothing was
                # handed over, so a new connection gets the mail without anybody noticing.
                if line.handed_over or not line.gone:
                    raise
        return self._send(self._open(message.sender.domain), sender, to, body)

    def check(self, domain: str) -> None:
        """Connect, greet, negotiate TLS and log in, and no more. Raises Fault."""
        self._open(domain).quit()

    def close(self) -> None:
        """Say good-bye on all idle connections. Those in use are closed by whoever uses them."""
        with self._lock:
            lines, self._idle = self._idle, []
        for line in lines:
            line.quit()

    def _take(self) -> "_Line | None":
        """The connection that was used last: the others grow old and are closed."""
        with self._lock:
            now, lines = self._clock(), self._idle
            old = [line for line in lines if now - line.opened_at > SECONDS_PER_CONNECTION]
            self._idle = [line for line in lines if line not in old]
            line = self._idle.pop() if self._idle else None
        for each in old:
            each.quit()
        return line

    def _send(self, line: "_Line", sender: str, to: str, body: bytes) -> str:
        try:
            return line.send(sender, to, body)
        finally:
            if not line.clean:
                line.hang_up()
            elif line.uses >= USES_PER_CONNECTION:
                line.quit()
            else:
                with self._lock:
                    self._idle.append(line)

    def _open(self, domain: str) -> "_Line":
        line = _Line(self._patience, self._step, self._clock())
        try:
            line.connect(self._host, self._port)
            if self._security == "tls":
                line.encrypt(self._tls, self._host)
            line.greet(domain)
            if self._security == "starttls":
                line.start_tls(self._tls, self._host, domain)
            if self._login:
                line.log_in(*self._login)
        except BaseException:
            line.hang_up()
            raise
        return line


def verified() -> ssl.SSLContext:
    """Certificates and names are checked; TLS 1.2 or newer."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _Line:
    """One connection. `clean`: it may carry another mail. `gone`: the server ended it."""

    def __init__(self, patience: Patience, step: Step | None, opened_at: float):
        self._patience, self._step = patience, step
        self.opened_at, self.uses = opened_at, 0
        self.clean = self.handed_over = self.gone = False
        self._socket: socket.socket | None = None
        self._unread, self._offers = b"", dict[str, str]()

    # ---- from the connection to the log-in
    def connect(self, host: str, port: int) -> None:
        try:
            self._socket = _connected(host, port, self._patience.connect)
        except (OSError, ValueError) as error:  # IDNA refuses some names before DNS does
            raise broken("connect", error) from error
        # What is written is written whole; waiting for more would cost 40 ms a command.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tell("connect", f"{host}:{port}")

    def encrypt(self, tls: ssl.SSLContext | None, host: str) -> None:
        assert tls and self._socket
        try:
            self._socket.settimeout(self._patience.command)
            self._socket = encrypted = tls.wrap_socket(self._socket, server_hostname=host)
        except (OSError, ValueError) as error:
            raise broken("tls", error) from error
        self._tell("tls", encrypted.version() or "")

    def greet(self, domain: str) -> None:
        self._expect("banner", 220)
        self._ask_what(domain)

    def start_tls(self, tls: ssl.SSLContext | None, host: str, domain: str) -> None:
        # Somebody on the way may have taken the offer out: then nothing is said at all.
        if "STARTTLS" not in self._offers:
            raise Fault(HOLD, "tls: the server does not offer STARTTLS", cause="no tls")
        self._say("tls", b"STARTTLS\r\n")
        self._expect("tls", 220)
        if self._unread:  # what was slipped in before the encryption must not be read after it
            raise broken("tls", Garbled("the server spoke before TLS began"))
        self.encrypt(tls, host)
        self._ask_what(domain)

    def log_in(self, user: str, password: str) -> None:
        """One mechanism, one try: providers count failures."""
        offered = self._offers.get("AUTH", "").split()
        if "PLAIN" in offered:
            answers = [b"AUTH PLAIN " + _base64(f"\0{user}\0{password}")]
        elif "LOGIN" in offered:
            answers = [b"AUTH LOGIN", _base64(user), _base64(password)]
        else:
            raise Fault(HOLD, "auth: the server offers no log-in with a password", cause="no auth")
        for number, answer in enumerate(answers, 1):
            self._say("auth", answer + b"\r\n")
            code, text = self._reply("auth", self._patience.command)
            # Some servers repeat what they were told.
            for secret in (answer.decode("ascii").split()[-1], user, password):
                text = text.replace(secret, "…")
            if code != (235 if number == len(answers) else 334):
                raise refused("auth", code, text)
        self._tell("auth", f"{code} {text}")

    def _ask_what(self, domain: str) -> None:
        self._say("hello", f"EHLO {domain}\r\n".encode("ascii"))
        text = self._expect("hello", 250)
        # AUTH=PLAIN is how old servers write it.
        lines = [line.upper().replace("=", " ").split(None, 1) for line in text.split("\n")[1:]]
        self._offers = {line[0]: " ".join(line[1:]) for line in lines if line}

    # ---- one mail
    def send(self, sender: str, to: str, body: bytes) -> str:
        """The server's words when it took the mail.

        One recipient, named here and not read from a header: `To: a, b` can't become two.
        """
        self.uses, self.clean, self.handed_over = self.uses + 1, False, False
        self._envelope(
            ("mail", f"MAIL FROM:<{sender}>\r\n".encode("ascii"), (250,)),
            ("rcpt", f"RCPT TO:<{to}>\r\n".encode("ascii"), (250, 251)),
            ("data", b"DATA\r\n", (354,)),
        )
        # RFC 5321 §4.5.2: a line that begins with a dot gets another one.
        self._say("body", body.replace(b"\n.", b"\n..") + b".\r\n")  # the first line is a header
        self.handed_over = True
        code, text = self._reply("end", self._patience.end)
        self.clean = code != 421
        if code != 250:
            raise refused("end", code, text)
        return kept(f"{code} {text}")

    def _envelope(self, *commands: tuple[str, bytes, tuple[int, ...]]) -> None:
        """In one go where the server allows it (RFC 2920): two waits a mail in place of four."""
        together = "PIPELINING" in self._offers
        if together:
            self._say("mail", b"".join(command for _, command, _ in commands))
        for number, (stage, command, good) in enumerate(commands, 1):
            if not together:
                self._say(stage, command)
            code, text = self._reply(stage, self._patience.command)
            if code not in good:
                unheard = len(commands) - number if together else 0
                self.clean = code != 421 and self._tidied(unheard)
                self.gone = code == 421  # whatever came after the answer that counts
                raise refused(stage, code, text)

    def _tidied(self, unheard: int) -> bool:
        """May the session go on after a refusal? Hears the answers to what was said along with it."""
        with suppress(Fault):
            codes = [self._reply("data", self._patience.command)[0] for _ in range(unheard)]
            if 354 in codes:  # it waits for a mail, and whatever we say would be one
                return False
            self._say("data", b"RSET\r\n")
            return self._reply("data", self._patience.command)[0] == 250
        return False

    # ---- the wire
    def _expect(self, stage: str, good: int) -> str:
        code, text = self._reply(stage, self._patience.command)
        if code != good:
            raise refused(stage, code, text)
        return text

    def _tell(self, stage: str, words: str) -> None:
        if self._step:
            self._step(stage, kept(words))

    def _say(self, stage: str, data: bytes) -> None:
        assert self._socket
        try:
            self._socket.settimeout(self._patience.command)
            self._socket.sendall(data)
        except OSError as error:
            raise self._failed(stage, error) from error

    def _reply(self, stage: str, seconds: float) -> tuple[int, str]:
        """The code, and the text of all lines. All of it within `seconds`."""
        deadline, lines = time.monotonic() + seconds, []
        try:
            more = b"-"
            while more == b"-":
                line = self._read_line(deadline)
                code, more = line[:3], line[3:4]
                if len(code) != 3 or not code.isdigit() or more not in (b"-", b" ", b""):
                    raise Garbled("the answer is not SMTP")
                lines.append(line[4:].decode("utf-8", "replace"))
        except OSError as error:
            raise self._failed(stage, error) from error
        text = "\n".join(lines)
        self.gone = code == b"421"
        if stage != "auth":  # told there, without what must not be told
            self._tell(stage, f"{code.decode()} {text}")
        return int(code), text

    def _read_line(self, deadline: float) -> bytes:
        assert self._socket
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(8192)
            if not data:
                raise ConnectionResetError
            self._unread += data
            if len(self._unread) > MAX_REPLY:
                raise Garbled("the answer has no end")
        line, _, self._unread = self._unread.partition(b"\n")
        return line.rstrip(b"\r")

    def _failed(self, stage: str, error: OSError) -> Fault:
        fault = broken(stage, error)
        self.gone = fault.cause == "closed"
        return fault

    def quit(self) -> None:
        """Say good-bye and don't wait for the answer. Between two mails only: else it is a part of one."""
        with suppress(Fault):
            self._say("quit", b"QUIT\r\n")
        self.hang_up()

    def hang_up(self) -> None:
        if self._socket:
            self._socket.close()


def _connected(host: str, port: int, seconds: float) -> socket.socket:
    """The first of the host's addresses that answers; all of them share the time."""
    deadline, failures = time.monotonic() + seconds, list[OSError]()
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for left, (family, kind, protocol, _, address) in zip(
        range(len(found), 0, -1), found, strict=True
    ):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(max(0.1, (deadline - time.monotonic()) / left))
            connection.connect(address)
            return connection
        except OSError as error:
            connection.close()
            failures.append(error)
    # A time-out says more than that there is no IPv6 here.
    raise next((e for e in failures if isinstance(e, TimeoutError)), failures[-1])


def _base64(text: str) -> bytes:
    return base64.b64encode(text.encode())
