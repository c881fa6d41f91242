"""A mail server on loopback that misbehaves on demand and writes down all that it hears."""

import random
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.sink import code_in, parsed

HANG, DROP = "hang", "drop"
# Where something can go wrong, in the order of a delivery. body: after the 354, what comes is not
# read as a mail. dot: the mail has come, and is not kept. kept: it is, and nobody has been told so.
# after: its 250 is out.
PLACES = ("banner", "ehlo", "auth", "mail", "rcpt", "data", "body", "dot", "kept", "after")
# Below what the system gives to whoever asks for any port: a closed port stays ours to open again.
PORTS = range(20_000, 30_000)


@dataclass
class Connection:
    """One connection: when it came and went, and the commands on its wire."""

    number: int  # from 1
    opened_at: float
    closed_at: float | None = None
    lines: list[str] = field(default_factory=list)
    to: list[str] = field(default_factory=list)  # recipients of the mail under way
    mails: int = 0  # kept so far
    hanging: bool = False


@dataclass
class Received:
    """One mail that came whole. `told`: its 250 went out."""

    to: list[str]
    raw: bytes
    at: float
    connection: int
    told: bool = False

    @property
    def id(self):
        return parsed(self.raw)["Message-ID"]

    @property
    def code(self):
        return code_in(self.raw)


class Trouble(NamedTuple):
    what: str | float  # HANG, DROP, seconds to wait before going on, or a reply
    when: Callable[[Connection], bool]


class _Gone(Exception):
    """This connection is over."""


class Chaos:
    """`at(place, what)` makes trouble while it runs, `well()` ends it. Times are time.monotonic().

    pipelining: is it offered? tls: a server-side SSLContext, then STARTTLS is offered; login: is AUTH
    offered? Any password is right.
    """

    def __init__(self, pipelining=True, tls=None, login=False):
        self.changed = threading.Condition()
        self.mails: list[Received] = []
        self.connections: list[Connection] = []
        self.pipelining, self.tls, self.login = pipelining, tls, login
        self._by_address: dict[str, list[Received]] = {}
        self._troubles: dict[str, Trouble] = {}
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._stopped, self._let_go = False, 0
        self.port = 0

    def __enter__(self):
        for self.port in random.sample(PORTS, 50):
            with suppress(OSError):
                self.open_port()
                return self
        raise OSError("no port is free")

    def __exit__(self, *_):
        self._stopped = True
        self.close_port()

    # ---- trouble
    def at(self, place, what, when=lambda connection: True):
        """From now on: HANG, DROP, wait for seconds, or say a reply (after 421 it hangs up)."""
        assert place in PLACES
        self._troubles[place] = Trouble(what, when)

    def well(self, hang_up=True):
        """No more trouble. hang_up: what hangs is let go, as when a server is started again."""
        with self.changed:
            self._troubles = {}
            self._let_go += hang_up
            self.changed.notify_all()

    def close_port(self):
        """Nobody listens, and who was connected no longer is."""
        if self._listener:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self.changed:
            self._let_go += 1
            for s in self._sockets:
                with suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)
            self.changed.notify_all()

    def open_port(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self.port))
            listener.listen(64)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        threading.Thread(target=self._accept, args=[listener], daemon=True).start()

    @property
    def listening(self):
        return self._listener is not None

    # ---- for the tests
    def wait_for(self, true, seconds=15):
        """Until true() is; it is asked at each change. Raises AssertionError when it never is."""
        with self.changed:
            found = self.changed.wait_for(true, seconds)
            assert found, f"it did not happen: {self.story()}"
            return found

    def wait(self, count, seconds=15):
        """Until there are `count` mails; all of them."""
        self.wait_for(lambda: len(self.mails) >= count, seconds)
        return list(self.mails)

    def to(self, address):
        """The mails to this one recipient, oldest first."""
        return self._by_address.get(address, [])

    def code(self, address, number=1, seconds=15):
        """The code in the `number`-th mail to this address."""
        self.wait_for(lambda: len(self.to(address)) >= number, seconds)
        return self.to(address)[number - 1].code

    def heard(self, verb):
        """All commands that begin so."""
        return [line for c in self.connections for line in c.lines if line.upper().startswith(verb)]

    def story(self):
        told = [f"{len(self.mails)} mails, {len(self.connections)} connections"]
        for c in self.connections[-8:]:
            told.append(f"{c.number}: {c.mails} mails, at {c.opened_at:.1f}, {c.lines[-4:]}")
        return "; ".join(told)

    # ---- one connection
    def _accept(self, listener):
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            with self.changed:
                connection = Connection(len(self.connections) + 1, time.monotonic())
                self.connections.append(connection)
                self._sockets.add(s)
                self.changed.notify_all()
            threading.Thread(target=self._talk, args=[s, connection], daemon=True).start()

    def _talk(self, s, connection):
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        talk = _Talk(self, s, connection)
        # A client that goes away, or a handshake that it breaks off, ends only this connection.
        with suppress(_Gone, OSError, ValueError):
            talk.run()
        with self.changed:
            self._sockets.discard(s)
            connection.closed_at = time.monotonic()
            self.changed.notify_all()
        with suppress(OSError):
            talk.socket.close()

    def trouble(self, place, connection):
        trouble = self._troubles.get(place)
        return trouble.what if trouble and trouble.when(connection) else None

    def note(self, change):
        with self.changed:
            change()
            self.changed.notify_all()

    def keep(self, mail):
        with self.changed:
            self.mails.append(mail)
            self._by_address.setdefault(",".join(mail.to), []).append(mail)
            self.changed.notify_all()

    def hang(self, connection):
        """Until it is let go."""
        with self.changed:
            before, connection.hanging = self._let_go, True
            self.changed.notify_all()
            self.changed.wait_for(lambda: self._let_go != before)

    def pause(self, seconds):
        with self.changed:
            self.changed.wait_for(lambda: self._stopped, seconds)


class _Talk:
    """The dialogue with one client."""

    def __init__(self, chaos, s, connection):
        self.chaos, self.socket, self.connection = chaos, s, connection
        self.input, self.secure = s.makefile("rb"), False
        self.mail_from = False

    def run(self):
        self.answer("banner", "220 chaos.test ESMTP")
        while line := self.line():
            verb = line[:4].upper()
            if verb == "QUIT":
                self.say("221 2.0.0 bye")
                return
            act = getattr(self, f"do_{verb.lower()}", None)
            if act:
                act(line)
            else:
                self.say("250 2.0.0 ok" if verb in ("NOOP", "RSET") else "502 5.5.2 what?")

    # ---- commands
    def do_ehlo(self, line):
        offers = ["chaos.test", "8BITMIME", "ENHANCEDSTATUSCODES"]
        offers += ["PIPELINING"] if self.chaos.pipelining else []
        offers += ["STARTTLS"] if self.chaos.tls and not self.secure else []
        offers += ["AUTH PLAIN LOGIN"] if self.chaos.login else []
        self.answer("ehlo", [f"250-{o}" for o in offers[:-1]] + [f"250 {offers[-1]}"])

    do_helo = do_ehlo

    def do_star(self, line):
        if not self.chaos.tls or self.secure:
            self.say("502 5.5.1 no TLS")
            return
        self.say("220 2.0.0 go on")
        with self.chaos.changed:
            self.chaos._sockets.discard(self.socket)
            self.socket = self.chaos.tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
            self.chaos._sockets.add(self.socket)
        self.socket.do_handshake()
        self.input, self.secure = self.socket.makefile("rb"), True

    def do_auth(self, line):
        words = line.split()
        if len(words) < 3:  # the password comes in a line of its own
            for question in ("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6")[: 2 if "LOGIN" in line else 1]:
                self.say(question)
                self.line()
        self.answer("auth", "235 2.7.0 welcome")

    def do_mail(self, line):
        self.mail_from, self.connection.to = False, []
        self.mail_from = self.answer("mail", "250 2.1.0 ok")

    def do_rcpt(self, line):
        if not self.mail_from:
            self.say("503 5.5.1 MAIL first")
            return
        self.connection.to.append(re.search(r"<(.*?)>", line)[1])
        if not self.answer("rcpt", "250 2.1.5 ok"):
            self.connection.to.pop()

    def do_data(self, line):
        if not self.connection.to:
            self.say("503 5.5.1 no valid recipients")
            return
        if not self.answer("data", "354 go on"):
            return
        self.trip("body")
        raw = self.mail()
        reply = self.trip("dot")
        if reply:
            self.say(reply)
            return
        c = self.connection
        received = Received(list(c.to), raw, time.monotonic(), c.number)
        c.mails += 1
        self.chaos.keep(received)
        if self.answer("kept", "250 2.0.0 kept"):
            self.chaos.note(lambda: setattr(received, "told", True))
            self.trip("after")

    # ---- the wire
    def line(self):
        """The next command; "" at the end."""
        raw = self.input.readline(4096)
        if raw:
            text = raw.decode("utf-8", "replace").rstrip("\r\n")
            self.chaos.note(lambda: self.connection.lines.append(text))
            return text or " "
        return ""

    def mail(self):
        lines = []
        while (raw := self.input.readline()) != b".\r\n":
            if not raw:
                raise _Gone
            lines.append(raw[1:] if raw.startswith(b".") else raw)
        return b"".join(lines)

    def answer(self, place, good):
        """Say the good reply and be True; or what the trouble at this place wants."""
        bad = self.trip(place)
        self.say(bad or good)
        return not bad

    def trip(self, place):
        """The reply that trouble wants said here, if any; or this connection ends."""
        what = self.chaos.trouble(place, self.connection)
        if what is None or (isinstance(what, str) and what[0].isdigit()):
            return what
        if what == HANG:
            self.chaos.hang(self.connection)
        if what in (HANG, DROP):
            raise _Gone
        self.chaos.pause(what)
        return None

    def say(self, reply):
        lines = [reply] if isinstance(reply, str) else reply
        self.socket.sendall("".join(f"{line}\r\n" for line in lines).encode())
        if lines[-1].startswith("421"):
            self.hang_up()

    def hang_up(self):
        """Close so that the client still gets to read what was said: unread input would reset it."""
        self.socket.shutdown(socket.SHUT_WR)
        self.socket.settimeout(2)
        while self.socket.recv(65536):
            pass
        raise _Gone
