"""Every way a mail can go out keeps one contract; and what each refusal and each broken line means."""

import inspect
import io
import json
import re
import socket
import ssl
import threading
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest

from auth.testing import Mailbox
from tests.certificates import Authority
from tests.faults.chaos import DROP, HANG, Chaos
from tests.faults.conftest import chaos
from tests.serving import free_port, together
from tests.sink import Sink, parsed
from utils import remedies
from utils.mailer import (
    DEAD,
    HOLD,
    LOST,
    RETRY,
    Console,
    Fault,
    Message,
    Nowhere,
    Sender,
    Smtp,
    mail_transport,
)
from utils.replies import classify, kept, refused
from utils.resend import Resend
from utils.settings import check
from utils.smtp import Patience, verified

__all__ = ["chaos"]  # a fixture

ADA = "ada@example.org"
LOGIN = ("robot@example.com", "app-password-1")
KEY = "re_hidden_key_0123456789"
QUICK = Patience(connect=1, command=0.5, end=1)  # for servers that are meant to stay silent
HEADERS = {
    *("From", "To", "Subject", "Date", "Message-ID", "Reply-To", "MIME-Version", "Content-Type"),
    *("Auto-Submitted", "X-Auto-Response-Suppress", "X-Entity-Ref-ID"),
}


class Letter(NamedTuple):
    to: str = ADA
    subject: str = "Your sign-in code"
    text: str = "482913\n\nis your code.\n.\n..\n"
    html: str = "<p>482913</p>\n"


def message(number=1, sender=None, **letter):
    sender = sender or Sender("login@example.com", "Vestibule", "help@example.com")
    return Message(f"{number:032x}", 1_800_000_000, sender, Letter(**letter))


def fault_of(act, *given):
    with pytest.raises(Fault) as caught:
        act(*given)
    assert caught.value.what in (RETRY, HOLD, DEAD, LOST) and 0 < len(str(caught.value)) <= 200
    return caught.value


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


# ---- an HTTPS provider of ours
class Api:
    """Answers as Resend does; `say(status, body, headers)` is the next answer, for good."""

    def __init__(self, tls=None):
        self.requests, self.taken, self.lock = [], {}, threading.Lock()
        self.next, self.hang = None, threading.Event()
        self.hang.set()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(*api.took(self.path, dict(self.headers), json.loads(body)))

            def do_GET(self):
                self.answer(*api.took(self.path, dict(self.headers), None))

            def answer(self, status, body, headers=()):
                api.hang.wait(10)
                text = json.dumps(body).encode() if not isinstance(body, bytes) else body
                self.send_response(status)
                for name, value in (*headers, ("Content-Length", str(len(text)))):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *words): ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, address): ...  # a client that went away

        self.server = Server(("127.0.0.1", 0), Handler)
        if tls:
            self.server.socket = tls.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=[0.01], daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.hang.set()
        self.server.shutdown()
        self._thread.join(10)
        self.server.server_close()

    def say(self, status, body, *headers):
        self.next = (status, body, headers)

    def took(self, path, headers, body):
        with self.lock:
            self.requests.append((path, headers, body))
            if self.next:
                return self.next
            if headers.get("Authorization") != f"Bearer {KEY}":
                return 403, {"name": "invalid_api_key", "message": "API key is invalid"}
            if path == "/domains":
                return 200, {"data": [{"name": "example.com", "status": "verified"}]}
            first = self.taken.setdefault(headers["Idempotency-Key"], body)
            if first != body:
                return 409, {"name": "invalid_idempotent_request", "message": "another payload"}
            return 200, {"id": f"id-{len(self.taken)}"}


# ---- one contract
class Way(NamedTuple):
    """A transport, and what has come out at its other end: [(recipients, Message-ID)]."""

    transport: object
    arrived: object
    keeps_copies: bool = True  # a mail delivered twice is there twice


def _smtp_way(stack, tls, authority):
    context = authority.server("127.0.0.1") if tls else None
    sink = stack(Sink(tls=tls, context=context, login=LOGIN if tls else None))
    login = LOGIN if tls else ()
    smtp = Smtp(
        "127.0.0.1",
        sink.port,
        tls or "none",
        *login,
        **({"tls": authority.client()} if tls else {}),
    )
    return Way(smtp, lambda: [(to, parsed(raw)["Message-ID"]) for to, raw in sink.mails])


def _resend_way(stack, tls, authority):
    api = stack(Api(authority.server("127.0.0.1") if tls else None))
    return Way(
        Resend(KEY, api.url, authority.client()),
        lambda: [(body["to"], body["headers"]["Message-ID"]) for body in api.taken.values()],
        False,
    )


def _console_way():
    out = io.StringIO()
    return Way(
        Console(out), lambda: [([to], None) for to in re.findall("To: (.*?) +│", out.getvalue())]
    )


def _mailbox_way():
    box = Mailbox()
    return Way(
        box,
        lambda: [([m.letter.to], parsed(m.as_bytes())["Message-ID"]) for m in box.messages],
    )


@pytest.fixture(
    params=[
        *("console", "none", "smtp plain", "smtp starttls", "smtp tls", "smtp pipelined"),
        *("resend", "resend tls", "mailbox"),
    ]
)
def way(request, authority):
    entered = []

    def stack(server):
        entered.append(server)
        return server.__enter__()

    match request.param.split():
        case ["console"]:
            found = _console_way()
        case ["none"]:
            found = Way(Nowhere(), None)
        case ["mailbox"]:
            found = _mailbox_way()
        case ["resend", *tls]:
            found = _resend_way(stack, tls, authority)
        case ["smtp", "pipelined"]:
            post = stack(Chaos())
            found = Way(
                Smtp("127.0.0.1", post.port, "none"), lambda: [(m.to, m.id) for m in post.mails]
            )
        case ["smtp", tls]:
            found = _smtp_way(stack, tls.replace("plain", ""), authority)
    yield found
    found.transport.close()
    for server in entered:
        server.__exit__(None, None, None)


def test_an_accepted_mail_has_a_short_reply_and_one_recipient(way):
    reply = way.transport.deliver(message())
    assert isinstance(reply, str) and 0 < len(reply) <= 200 and reply.isprintable()
    if way.arrived:
        assert [to for to, _ in way.arrived()] == [[ADA]]


def test_a_second_delivery_has_the_same_message_id(way):
    way.transport.deliver(message())
    way.transport.deliver(message())
    if way.arrived:
        found = way.arrived()
        assert len(found) == (2 if way.keeps_copies else 1)
        assert {id for _, id in found} <= {f"<{1:032x}@example.com>", None}


@pytest.mark.parametrize(
    "poison",
    [
        {"to": "a@b.org\r\nRCPT TO:<x@y.org>"},
        {"to": "a@b.org, x@y.org"},
        {"subject": "Hi\r\nBcc: x@y.org"},
    ],
)
def test_poison_is_refused_and_nothing_goes_out(way, poison):
    # auth/testing.py imports nothing of ours: its no is a ValueError, which the outbox takes alike.
    with pytest.raises((Fault, ValueError)) as caught:
        way.transport.deliver(message(**poison))
    if isinstance(caught.value, Fault):
        assert (caught.value.what, caught.value.cause) == (DEAD, "unwritten")
    assert isinstance(way.transport, Mailbox) == (caught.type is ValueError)
    assert not way.arrived or not way.arrived()
    way.transport.deliver(message())  # and it goes on


def test_it_may_be_closed_twice_and_used_again(way):
    way.transport.deliver(message(1))
    way.transport.close()
    way.transport.close()
    way.transport.deliver(message(2))
    assert not way.arrived or len(way.arrived()) == 2


def test_several_threads_at_once(way):
    def deliver(thread):
        for n in range(5):
            way.transport.deliver(message(100 * thread + n, to=f"p{thread}.{n}@example.org"))

    together(4, deliver)
    if way.arrived:
        wanted = [[f"p{thread}.{n}@example.org"] for thread in range(4) for n in range(5)]
        assert sorted(to for to, _ in way.arrived()) == sorted(wanted)


# ---- what a refusal means
REPLIES = [
    # Google
    ("end", 550, "5.4.5 Daily user sending limit exceeded. For more information on Gmail", HOLD),
    ("rcpt", 550, "5.4.5 Daily SMTP relay sending limit exceeded for customer", HOLD),
    ("auth", 454, "4.7.0 Too many login attempts, please try again later. - gsmtp", HOLD),
    ("banner", 421, "4.7.0 Try again later, closing connection. - gsmtp", HOLD),
    ("mail", 421, "4.7.0 Temporary System Problem.  Try again later (10). - gsmtp", HOLD),
    ("rcpt", 421, "4.7.28 Gmail has detected an unusual rate of mail from your IP", HOLD),
    ("end", 421, "4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred", HOLD),
    ("auth", 535, "5.7.8 Username and Password not accepted. For more information", HOLD),
    ("auth", 534, "5.7.9 Application-specific password required. Learn more", HOLD),
    ("auth", 534, "5.7.14 Please log in via your web browser and then try again", HOLD),
    ("mail", 530, "5.7.0 Authentication Required. Learn more at", HOLD),
    ("mail", 530, "5.7.0 Must issue a STARTTLS command first. - gsmtp", HOLD),
    (
        "rcpt",
        550,
        "5.1.1 The email account that you tried to reach does not exist.\n5.1.1 Please try",
        DEAD,
    ),
    ("rcpt", 550, "5.2.1 The email account that you tried to reach is inactive", DEAD),
    ("rcpt", 450, "4.2.1 The user you are trying to contact is receiving mail too quickly", RETRY),
    ("rcpt", 452, "4.2.2 The recipient's inbox is out of storage space", RETRY),
    ("rcpt", 552, "5.2.2 The recipient's inbox is out of storage space and inactive", RETRY),
    ("rcpt", 553, "5.1.3 The recipient address is not a valid RFC 5321 address", DEAD),
    ("rcpt", 555, "5.5.2 Syntax error, cannot decode response. - gsmtp", DEAD),
    ("end", 550, "5.7.1 Our system has detected that this message is likely spam", HOLD),
    ("end", 550, "5.7.26 This mail is unauthenticated, which poses a security risk", HOLD),
    ("end", 451, "4.3.0 Mail server temporarily rejected message. - gsmtp", RETRY),
    ("rcpt", 452, "4.5.3 Your message has too many recipients", RETRY),
    # Microsoft
    (
        "auth",
        535,
        "5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled",
        HOLD,
    ),
    ("end", 550, "5.7.60 SMTP; Client does not have permissions to send as this sender", HOLD),
    ("end", 554, "5.2.252 SendAsDenied; robot not allowed to send as login", HOLD),
    ("rcpt", 550, "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP", DEAD),
    ("rcpt", 550, "5.5.0 Requested action not taken: mailbox unavailable", DEAD),
    ("rcpt", 550, "5.4.1 Recipient address rejected: Access denied", RETRY),
    ("end", 432, "4.3.2 Concurrent connections limit exceeded", HOLD),
    # Postfix, Exim, Sendmail, Cisco
    ("rcpt", 554, "5.7.1 <a@b.org>: Relay access denied", HOLD),
    ("rcpt", 454, "4.7.1 <a@b.org>: Relay access denied", HOLD),
    ("rcpt", 451, "4.7.1 Greylisting in action, please come back later", RETRY),
    ("rcpt", 450, "4.7.1 <a@b.org>: Recipient address rejected: Greylisted for 5 minutes", RETRY),
    ("rcpt", 451, "Temporary local problem - please try later", RETRY),
    ("rcpt", 450, "4.1.2 <a@b.invalid>: Recipient address rejected: Domain not found", RETRY),
    ("rcpt", 550, "5.1.2 <a@b.invalid>: Recipient address rejected: Domain not found", DEAD),
    ("rcpt", 550, "No Such User Here", DEAD),
    ("rcpt", 550, "Unrouteable address", DEAD),
    ("rcpt", 553, "sorry, that domain isn't in my list of allowed rcpthosts", DEAD),
    ("rcpt", 551, "User not local; please try another path", DEAD),
    ("rcpt", 501, "Bad address syntax", DEAD),
    ("rcpt", 550, "#5.1.0 Address rejected.", DEAD),
    ("rcpt", 550, "[5.1.1] no mailbox here by that name", DEAD),
    ("mail", 553, "5.1.8 <login@x.invalid>: Sender address rejected: Domain not found", HOLD),
    ("rcpt", 553, "5.1.8 <login@x.invalid>: Sender address rejected: Domain not found", HOLD),
    ("rcpt", 450, "4.1.8 <login@x.org>: Sender address rejected: Domain not found", HOLD),
    ("rcpt", 553, "5.1.7 Sender address is not valid", HOLD),
    ("mail", 553, "5.7.1 <login@x.org>: Sender address rejected: not owned by user", HOLD),
    ("mail", 452, "4.3.1 Insufficient system storage", HOLD),
    ("mail", 552, "5.3.4 Message size exceeds fixed limit", HOLD),
    ("end", 552, "Message exceeds maximum fixed size", HOLD),
    ("end", 552, "spam score exceeded threshold", HOLD),
    ("data", 554, "5.5.1 Error: no valid recipients", HOLD),
    ("data", 451, "Local error in processing", RETRY),
    ("tls", 454, "4.7.0 TLS not available due to local problem", HOLD),
    ("hello", 550, "Access denied - Invalid HELO name", HOLD),
    ("banner", 554, "5.7.1 You are not allowed to connect from 192.0.2.1", HOLD),
    # Those who send for others
    ("end", 554, "Message rejected: Email address is not verified.", HOLD),
    ("end", 454, "Throttling failure: Maximum sending rate exceeded.", HOLD),
    ("end", 454, "Throttling failure: Daily message quota exceeded.", HOLD),
    ("end", 550, "The from address does not match a verified Sender Identity.", HOLD),
    ("auth", 451, "Authentication failed: Maximum credits exceeded", HOLD),
    ("mail", 550, "Unauthenticated senders not allowed", HOLD),
    ("mail", 501, "5.1.7 Bad sender address syntax", HOLD),
]


@pytest.mark.parametrize(("stage", "code", "text", "what"), REPLIES)
def test_each_reply_is_about_the_mail_the_provider_or_the_recipient(stage, code, text, what):
    assert classify(stage, code, text) == what
    fault = refused(stage, code, text)
    assert fault.what == what and fault.cause in remedies.WORDS
    password = code in (530, 534, 535) or (stage == "auth" and code >= 500)
    assert fault.seconds == (60 if password else 0)


def test_there_are_enough_of_them():
    assert len(REPLIES) >= 40
    assert {row[0] for row in REPLIES} == {
        *("banner", "hello", "tls", "auth", "mail", "rcpt", "data", "end")
    }


def test_a_kept_reply_holds_no_code_no_address_and_no_secret():
    text = (
        "554 5.7.1 <ada@example.org>: 482913 is your code\r\n\x1b[31m https://app.test/link#"
        + "AbCdEfGh" * 10
        + " \u202e12345678"
    )
    line = kept(text)
    assert "ada@" not in line and "AbCdEfGh" not in line and line.isprintable()
    assert not re.search(r"\d{6}", line) and line.startswith("554 5.7.1 ")
    assert len(kept("x " * 500)) == 200
    assert kept("250 2.0.0 Ok: queued as 4XkT5z1QzGz3h") == "250 2.0.0 Ok: queued as 4XkT5z1QzGz3h"


# ---- trouble on the wire
def smtp(server, patience=QUICK, **more):
    return Smtp("127.0.0.1", server.port, "none", patience=patience, **more)


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("place", ["banner", "ehlo", "mail", "rcpt", "data", "body", "dot", "kept"])
@pytest.mark.parametrize("what", [HANG, DROP])
def test_who_falls_silent_or_hangs_up_is_held_and_after_the_dot_lost(place, what, pipelining):
    with Chaos(pipelining) as chaos:
        chaos.at(place, what)
        fault = fault_of(smtp(chaos).deliver, message())
        lost = place in ("body", "dot", "kept")  # the last byte was sent
        if place != "body" or what == HANG:  # with DROP the last byte may not have left
            assert fault.what == (LOST if lost else HOLD)
        assert len(chaos.connections) == 1
        chaos.well()
        assert smtp(chaos).deliver(message()).startswith("250")


@pytest.mark.parametrize("place", ["banner", "ehlo", "mail", "rcpt", "data", "dot"])
def test_a_421_holds_all_mail_wherever_it_comes(chaos, place):
    chaos.at(place, "421 4.7.0 Try again later")
    fault = fault_of(smtp(chaos).deliver, message())
    assert (fault.what, str(fault), fault.cause) == (HOLD, "421 4.7.0 Try again later", "busy")
    assert len(chaos.connections) == 1  # no storm


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(
    ("place", "reply", "what"),
    [
        ("mail", "550 5.1.8 who are you", HOLD),
        ("rcpt", "550 5.1.1 nobody there", DEAD),
        ("rcpt", "450 4.2.1 too many", RETRY),
        ("data", "451 4.3.0 not now", RETRY),
        ("dot", "550 5.4.5 quota", HOLD),
        ("kept", "452 4.2.2 full", RETRY),
    ],
)
def test_the_command_that_was_refused_decides_and_the_connection_goes_on(
    place, reply, what, pipelining
):
    with Chaos(pipelining) as chaos:
        transport = smtp(chaos)
        chaos.at(place, reply)
        fault = fault_of(transport.deliver, message(1))
        assert (fault.what, str(fault)) == (what, reply)
        before = len(chaos.mails)
        chaos.well()
        assert transport.deliver(message(2)).startswith("250")
        assert len(chaos.mails) == before + 1 and chaos.mails[-1].to == [ADA]
        assert len(chaos.connections) == 1


def test_a_slow_yes_is_a_yes(chaos):
    chaos.at("kept", 0.7)
    assert smtp(chaos).deliver(message()).startswith("250")
    assert len(chaos.mails) == 1
    assert Patience()[:2] == (10, 15) and Patience().end > 30  # a yes after 30 seconds is one, too


def test_who_waits_is_not_waited_for_by_others(chaos):
    transport = smtp(chaos, Patience(end=8))
    chaos.at("dot", HANG, lambda connection: connection.number == 1)
    stuck = threading.Thread(target=lambda: fault_of(transport.deliver, message(1)))
    stuck.start()
    chaos.wait_for(lambda: chaos.connections and chaos.connections[0].hanging)
    for n in range(2, 5):
        transport.deliver(message(n))
    assert [c.mails for c in chaos.connections] == [0, 3]
    chaos.well()
    stuck.join(20)
    assert not stuck.is_alive()


# ---- kept connections
def test_connections_are_kept_for_fifty_mails_or_a_minute(chaos):
    now = [0.0]
    transport = smtp(chaos, clock=lambda: now[0])
    for n in range(60):
        transport.deliver(message(n))
    assert [c.mails for c in chaos.connections] == [50, 10]
    now[0] = 61
    transport.deliver(message(60))
    assert [c.mails for c in chaos.connections] == [50, 10, 1]
    assert not chaos.connections[1].lines[-1].startswith("MAIL")
    transport.close()
    chaos.wait_for(lambda: all(c.closed_at for c in chaos.connections))
    assert [c.lines[-1] for c in chaos.connections] == ["QUIT"] * 3


def test_as_many_connections_as_threads_and_the_last_used_first(chaos):
    transport = smtp(chaos, Patience())
    together(4, lambda i: transport.deliver(message(i)))
    assert len(chaos.connections) <= 4
    opened, before = len(chaos.connections), {c.number: c.mails for c in chaos.connections}
    for n in range(6):
        transport.deliver(message(10 + n))
    grown = [c.number for c in chaos.connections if c.mails > before.get(c.number, 0)]
    assert len(chaos.connections) == opened and len(grown) == 1
    transport.close()


@pytest.mark.parametrize("how", ["closed", "421", "421 at data"])
def test_an_idle_connection_that_is_gone_is_replaced_in_silence(chaos, how):
    transport = smtp(chaos)
    transport.deliver(message(1))
    first = chaos.connections[0]
    if how == "closed":
        chaos.close_port()  # and everybody on it
        chaos.wait_for(lambda: first.closed_at)
        chaos.open_port()
    else:
        place = "data" if "data" in how else "mail"
        chaos.at(place, "421 4.4.2 idle for too long", lambda c: c.number == 1)
    assert transport.deliver(message(2)).startswith("250")
    assert [c.mails for c in chaos.connections] == [1, 1]


def test_it_is_replaced_once_and_not_again(chaos):
    transport = smtp(chaos)
    transport.deliver(message(1))
    chaos.at("mail", "421 4.7.0 go away")
    assert fault_of(transport.deliver, message(2)).what == HOLD
    assert len(chaos.connections) == 2


def test_what_was_handed_over_is_not_sent_again_by_itself(chaos):
    transport = smtp(chaos)
    transport.deliver(message(1))
    chaos.at("kept", DROP)
    assert fault_of(transport.deliver, message(2)).what == LOST
    chaos.at("dot", "421 4.7.0 later")
    fault_of(transport.deliver, message(3))
    assert len(chaos.mails) == 2


# ---- a server that follows a script
@contextmanager
def scripted(*script):
    """A server that says the script's lines, each after one line of the client; the first at once,
    and hangs up at None. Yields (port, what it heard)."""
    listener, heard = socket.create_server(("127.0.0.1", 0)), []

    def talk():
        try:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                connection.settimeout(10)
                for number, text in enumerate(script):
                    if number:
                        line = lines.readline()
                        heard.append(line)
                        if not line:
                            return
                    if text is None:
                        return
                    connection.sendall(text)
                heard.extend(lines)
        except OSError:
            pass

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], heard
    finally:
        listener.close()
        thread.join(12)


HELLO = b"250-x\r\n250-PIPELINING\r\n250 AUTH PLAIN LOGIN\r\n"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n"], "not SMTP"),
        ([b"220-" + b"x" * 1000 + b"\r\n"] + [b""] * 0, "no answer"),
        ([b"220 " + b"x" * 70_000], "no end"),
        ([b"220 x\r\n", b"250\xff\xfe\r\n"], "not SMTP"),
    ],
)
def test_what_is_no_mail_server_is_held(script, words):
    with scripted(*script) as (port, _):
        transport = Smtp("127.0.0.1", port, "none", patience=QUICK)
        fault = fault_of(transport.deliver, message())
        assert fault.what == HOLD and words in str(fault)


def test_a_refused_recipient_whose_server_waits_for_the_mail_all_the_same_gets_none():
    """RFC 2920 lets it say 354 then. Whatever came next would be a mail."""
    replies = b"250 ok\r\n550 5.1.1 nobody\r\n354 go on\r\n"
    with scripted(b"220 x\r\n", HELLO, replies) as (port, heard):
        fault = fault_of(smtp_at(port).deliver, message())
        assert (fault.what, str(fault)) == (DEAD, "550 5.1.1 nobody")
    assert [line[:4] for line in heard] == [b"EHLO", b"MAIL", b"RCPT", b"DATA"]


def test_a_refusal_counts_even_when_the_server_hangs_up_after_it():
    first = [b"250 ok\r\n250 ok\r\n354 go on\r\n", b"", b""]  # MAIL, RCPT, DATA come at once
    mail = [b""] * (message().as_bytes().count(b"\r\n") - 1)
    refusal = [b"250 ok\r\n550 5.1.1 nobody\r\n503 no\r\n", b"", b""]
    script = [b"220 x\r\n", HELLO, *first, *mail, b"", b"250 kept\r\n", *refusal, None]
    with scripted(*script) as (port, heard):
        transport = smtp_at(port)
        assert transport.deliver(message(1)) == "250 kept"
        fault = fault_of(transport.deliver, message(2))
        assert (fault.what, str(fault)) == (DEAD, "550 5.1.1 nobody")
    assert [line[:4] for line in heard[-4:]] == [b"MAIL", b"RCPT", b"DATA", b"RSET"]


def smtp_at(port, *login):
    return Smtp("127.0.0.1", port, "none", *login, patience=QUICK)


def test_the_password_is_tried_once_and_never_repeated():
    user, password = "robot", "hidden-words"
    echo = b"535 5.7.8 hidden-words AHJvYm90AGhpZGRlbi13b3Jkcw== robot\r\n"
    with scripted(b"220 x\r\n", HELLO, echo) as (port, heard):
        fault = fault_of(smtp_at(port, user, password).deliver, message())
    assert (fault.what, fault.seconds, fault.cause) == (HOLD, 60, "password")
    assert str(fault) == "535 5.7.8 … … …"
    assert heard[1:] == [b"AUTH PLAIN AHJvYm90AGhpZGRlbi13b3Jkcw==\r\n"]


def test_a_log_in_question_by_question():
    """How Microsoft wants it, and the old way to offer it."""
    hello = b"250-x\r\n250-PIPELINING\r\n250 AUTH=LOGIN\r\n"
    script = [b"220 x\r\n", hello, b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n"]
    with scripted(*script, b"235 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"452 4.2.2 x\r\n") as (
        port,
        heard,
    ):
        assert fault_of(smtp_at(port, "robot", "wörd").deliver, message()).what == RETRY
    assert heard[1:4] == [b"AUTH LOGIN\r\n", b"cm9ib3Q=\r\n", b"d8O2cmQ=\r\n"]


@pytest.mark.parametrize("hello", [b"250 x\r\n", b"250 AUTH XOAUTH2\r\n"])
def test_no_log_in_offered_means_nothing_said(hello):
    with scripted(b"220 x\r\n", hello) as (port, heard):
        fault = fault_of(smtp_at(port, "u", "p").deliver, message())
        assert (fault.what, fault.cause) == (HOLD, "no auth")
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("host", "cause"),
    [("no-such-host.invalid", "dns"), ("x" * 70 + ".test", "dns"), ("127.0.0.1", "refused")],
)
def test_no_way_to_the_server_is_held(host, cause):
    fault = fault_of(Smtp(host, free_port(), "none", patience=QUICK).deliver, message())
    assert (fault.what, fault.cause) == (HOLD, cause)


def test_no_answer_to_a_connection_is_held_in_time():
    """What a host that blocks mail looks like: packets go out, and nothing comes back."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # it answers one or two, and the next one never
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        fault = fault_of(smtp_at(full.getsockname()[1]).deliver, message())
        assert (fault.what, fault.cause) == (HOLD, "silent at connect")
        for filler in fillers:
            filler.close()


# ---- L7: encryption
@pytest.mark.parametrize("login", [LOGIN, ()])
def test_no_starttls_no_word(chaos, authority, login):
    """Somebody on the way took the offer out of the answer."""
    chaos.login = bool(login)
    transport = Smtp("127.0.0.1", chaos.port, "starttls", *login, tls=authority.client())
    fault = fault_of(transport.deliver, message())
    assert (fault.what, fault.cause) == (HOLD, "no tls")
    assert {line[:4] for c in chaos.connections for line in c.lines} == {"EHLO"}


FLAWS = {
    "expired": ("127.0.0.1", -1, "certificate expired"),
    "wrong name": ("other.test", 30, "certificate of another name"),
    "stranger's authority": ("127.0.0.1", 30, "certificate not trusted"),
    "TLS 1.0": ("127.0.0.1", 30, "old tls"),
}


def flawed(flaw, authority, tmp_path):
    """A server-side context that no client of ours may accept, and what it is to be called."""
    host, days, cause = FLAWS[flaw]
    context = (Authority(tmp_path) if "stranger" in flaw else authority).server(host, days)
    if flaw == "TLS 1.0":
        with warnings.catch_warnings(action="ignore"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context, cause


@pytest.mark.parametrize("flaw", FLAWS)
def test_bad_tls_gets_neither_password_nor_recipient(authority, tmp_path, flaw):
    context, cause = flawed(flaw, authority, tmp_path)
    with Chaos(tls=context, login=True) as chaos:
        transport = Smtp("127.0.0.1", chaos.port, "starttls", *LOGIN, tls=authority.client())
        fault = fault_of(transport.deliver, message())
        assert (fault.what, fault.cause) == (HOLD, cause)
        said = {line[:4] for c in chaos.connections for line in c.lines}
        assert said == {"EHLO", "STAR"} and not chaos.mails
    if flaw != "TLS 1.0":  # the sink talks to itself first, and refuses
        with Sink(tls="tls", context=context, login=LOGIN) as sink:
            transport = Smtp("127.0.0.1", sink.port, "tls", *LOGIN, tls=authority.client())
            fault = fault_of(transport.deliver, message())
            assert (fault.what, fault.cause) == (HOLD, cause)
            assert not sink.logins and not sink.mails
    with Api(context) as api:
        fault = fault_of(Resend(KEY, api.url, authority.client()).deliver, message())
        assert (fault.what, fault.cause) == (HOLD, cause)
        assert not api.requests


def test_the_system_s_certificates_and_no_old_tls():
    context = verified()
    assert context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_the_wrong_kind_of_tls_for_the_port(chaos, authority):
    tls = {"tls": authority.client(), "patience": QUICK}
    fault = fault_of(Smtp("127.0.0.1", chaos.port, "tls", **tls).deliver, message())
    assert (fault.what, fault.cause) == (HOLD, "not tls")
    with Sink(tls="tls", context=authority.server("127.0.0.1")) as sink:
        fault = fault_of(Smtp("127.0.0.1", sink.port, "starttls", **tls).deliver, message())
        assert (fault.what, fault.cause) == (HOLD, "silent at banner")


def test_what_was_slipped_in_before_the_encryption_is_not_read(authority):
    hello = b"250-x\r\n250 STARTTLS\r\n"
    slipped = b"220 go on\r\n250-x\r\n250 AUTH PLAIN\r\n"
    with scripted(b"220 x\r\n", hello, slipped) as (port, heard):
        tls = {"tls": authority.client(), "patience": QUICK}
        fault = fault_of(Smtp("127.0.0.1", port, "starttls", *LOGIN, **tls).deliver, message())
        assert fault.what == HOLD and "before TLS" in str(fault)
    assert [line[:4] for line in heard] == [b"EHLO", b"STAR"]


# ---- F3, T15: nothing gets a header or a command of its own
ENDS = ["\r\n", "\n", "\r", "\0", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\t", "\x7f"]
TAILS = [
    "RCPT TO:<evil@evil.test>",
    "Bcc: evil@evil.test",
    ".\r\nMAIL FROM:<evil@evil.test>",
    "DATA",
    " folded",
]
WORDS = [
    "=?UTF-8?Q?=0A?=Bcc: evil@evil.test",
    "=?utf-8?b?DQpCY2M6IGV2aWxAZXZpbC50ZXN0?=",
    "a@b.org, evil@evil.test",
    "a@b.org;evil@evil.test",
    "a@b.org evil@evil.test",
    "<a@b.org>,<evil@evil.test>",
    "alice@example.org)bob@evil.test",
    "a@b.org> RCPT TO:<evil@evil.test",
    "a@b.org> SIZE=1",
    '"a@b.org"@evil.test',
    "a(comment)@b.org",
    "a@b.org\\",
    "@evil.test:a@b.org",
    "a@[192.0.2.1]",
    "",
    "@",
    "x" * 1000,
    "x" * 1000 + "@b.org",
    "ä" * 400,
    "\ud800",
    "\u202eevil",
    ".",
    "..",
    "undisclosed: a@b.org;",
]
VECTORS = WORDS + [f"a@b.org{end}{tail}" for end in ENDS for tail in TAILS]
FIELDS = ("to", "subject", "reply_to", "name", "address")


def test_there_are_two_hundred_vectors():
    assert len(VECTORS) * len(FIELDS) >= 200


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("field", FIELDS)
def test_no_value_gets_a_header_or_a_recipient_of_its_own(field, pipelining):
    with Chaos(pipelining) as chaos:
        transport = smtp(chaos)
        for number, vector in enumerate(VECTORS):
            sender = {"address": "login@example.com", "name": "V", "reply_to": None}
            letter = {}
            (letter if field in ("to", "subject") else sender)[field] = vector
            before = sum(len(c.lines) for c in chaos.connections), len(chaos.mails)
            try:
                transport.deliver(message(number, Sender(**sender), **letter))
            except Fault as fault:
                assert (fault.what, fault.cause) == (DEAD, "unwritten")
                assert before == (sum(len(c.lines) for c in chaos.connections), len(chaos.mails))
                continue
            one_mail(chaos, before[0], letter.get("to", ADA), vector)
        assert field in ("to", "address") or chaos.mails
        assert all(line.isprintable() for c in chaos.connections for line in c.lines)


def one_mail(chaos, heard_before, to, vector):
    lines = [line for c in chaos.connections for line in c.lines][heard_before:]
    commands = [line for line in lines if not line.startswith("EHLO")]
    assert [line[:4] for line in commands] == ["MAIL", "RCPT", "DATA"], vector
    assert commands[1] == f"RCPT TO:<{to}>" and " " not in commands[0][5:].strip("FROM:"), vector
    raw = chaos.mails[-1].raw
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\x00", raw) and raw.isascii(), vector
    assert all(len(line) <= 998 for line in raw.split(b"\r\n")), vector
    head = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
    names = [line.partition(b":")[0].decode() for line in head if line[:1] not in b" \t"]
    assert set(names) <= HEADERS and len(names) == len(set(names)), vector
    assert f"To: {to}".encode() in head, vector
    assert not any(re.match(rb"(?i)bcc|cc", line.lstrip()) for line in head), vector


def test_a_body_can_not_end_the_mail_nor_break_its_lines(chaos):
    text = "a\r\n.\r\nMAIL FROM:<evil@evil.test>\r\n..\n.\nb\rc\n\0d"
    smtp(chaos).deliver(message(text=text, html="<p>x</p>\n.\n"))
    mail = chaos.mails[0]
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\x00", mail.raw)
    assert chaos.heard("MAIL") == ["MAIL FROM:<login@example.com>"]
    kept_text = parsed(mail.raw).get_body(("plain",)).get_payload(decode=True).decode()
    assert kept_text.splitlines() == text.splitlines()
    html = parsed(mail.raw).get_body(("html",)).get_content()
    assert html.splitlines() == ["<p>x</p>", "."]


@pytest.mark.parametrize(
    "name", ["Gong & Söhne", '"Quote" <x@y>', "=?utf-8?q?hidden?=", "日" * 100]
)
def test_a_name_is_read_as_it_was_written(name):
    raw = message(sender=Sender("login@example.com", name)).as_bytes()
    sender = parsed(raw)["From"].addresses
    # The library's reader puts blanks between encoded words, where RFC 2047 §6.2 wants none.
    read = [(a.addr_spec, "".join(a.display_name.split())) for a in sender]
    assert read == [("login@example.com", "".join(name.split()))]


def test_a_letter_may_have_words_only():
    mail = parsed(message(html="").as_bytes())
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain"]


# ---- Resend
@pytest.fixture
def api():
    with Api() as running:
        yield running


def test_what_resend_is_sent(api):
    transport = Resend(KEY, api.url)
    transport.deliver(message(sender=Sender("login@example.com", 'Gong "& Söhne', "help@x.org")))
    path, headers, body = api.requests[0]
    assert path == "/emails" and headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Idempotency-Key"] == f"{1:032x}"
    assert body == {
        "from": '"Gong \\"& Söhne" <login@example.com>',
        "to": [ADA],
        "subject": "Your sign-in code",
        "text": Letter().text,
        "html": Letter().html,
        "reply_to": "help@x.org",
        "headers": {
            "Message-ID": f"<{1:032x}@example.com>",
            "Auto-Submitted": "auto-generated",
            "X-Auto-Response-Suppress": "OOF, AutoReply",
            "X-Entity-Ref-ID": f"{1:032x}",
        },
    }


INVALID_TO = "Invalid `to` field. The email address needs to follow the format"


@pytest.mark.parametrize(
    ("status", "name", "text", "what", "seconds", "cause"),
    [
        (401, "missing_api_key", "Missing API key", HOLD, 60, "key"),
        (401, "restricted_api_key", "restricted to only send emails", HOLD, 60, "key"),
        (403, "invalid_api_key", "API key is invalid", HOLD, 60, "key"),
        (403, "validation_error", "The example.com domain is not verified.", HOLD, 60, "domain"),
        (403, "validation_error", "You can only send testing emails to you", HOLD, 60, "domain"),
        (403, "", "", HOLD, 60, "key"),
        (400, "validation_error", INVALID_TO, DEAD, 0, "recipient"),
        (422, "validation_error", INVALID_TO, DEAD, 0, "recipient"),
        (422, "invalid_from_address", "Invalid `from` field.", HOLD, 0, "sender"),
        (422, "validation_error", "`from` and `to` are the same", HOLD, 0, "sender"),
        (422, "missing_required_field", "Missing `subject` field.", HOLD, 0, "policy"),
        (400, "invalid_idempotency_key", "must be between 1-256 chars", HOLD, 0, "policy"),
        (409, "concurrent_idempotent_requests", "still in progress", RETRY, 0, "later"),
        (429, "rate_limit_exceeded", "Too many requests", HOLD, 2, "busy"),
        (429, "daily_quota_exceeded", "You have reached your daily quota", HOLD, 2, "quota"),
        (429, "monthly_quota_exceeded", "monthly quota", HOLD, 2, "quota"),
        (404, "not_found", "no such endpoint", HOLD, 2, "not the api"),
        (451, "security_error", "a security issue", HOLD, 2, "not the api"),
        (500, "application_error", "An unexpected error", HOLD, 2, "busy"),
        (503, "", "", HOLD, 2, "busy"),
    ],
)
def test_what_resend_refuses(api, status, name, text, what, seconds, cause):
    api.say(status, {"name": name, "message": text}, ("Retry-After", "2"))
    fault = fault_of(Resend(KEY, api.url).deliver, message())
    wanted = (what, cause)
    assert (fault.what, fault.cause) == wanted and str(fault).startswith(f"{status}")
    assert fault.seconds == (seconds or 2) and cause in remedies.WORDS


def test_a_long_wait_is_cut(api):
    for asked, wait in (("86400", 60), ("soon", 0), ("-5", 0), ("99999999999", 0)):
        api.say(429, {"name": "rate_limit_exceeded"}, ("Retry-After", asked))
        assert fault_of(Resend(KEY, api.url).deliver, message()).seconds == wait


def test_a_retry_with_other_words_is_no_second_mail(api):
    transport = Resend(KEY, api.url)
    transport.deliver(message(text="for 15 minutes"))
    assert transport.deliver(message(text="for 14 minutes")).startswith("409")
    assert len(api.taken) == 1


@pytest.mark.parametrize("body", [b"<html>sign in to the hotel</html>", {}, [], b"", {"id": ""}])
def test_a_yes_that_is_not_resend_s_is_none(api, body):
    api.say(200, body)
    assert fault_of(Resend(KEY, api.url).deliver, message()).what == HOLD


def test_no_answer_after_the_mail_was_sent_is_asked_for_again_under_the_same_key(api):
    transport = Resend(KEY, api.url, patience=QUICK)
    api.hang.clear()
    fault = fault_of(transport.deliver, message())
    assert (fault.what, len(api.requests)) == (HOLD, 1)
    api.hang.set()
    assert transport.deliver(message()).startswith("200") and len(api.taken) == 1


def test_no_way_to_resend_is_held():
    fault = fault_of(Resend(KEY, f"http://127.0.0.1:{free_port()}").deliver, message())
    assert (fault.what, fault.cause) == (HOLD, "refused")
    fault = fault_of(Resend(KEY, "https://no-such-host.invalid").deliver, message())
    assert (fault.what, fault.cause) == (HOLD, "dns")


def test_the_key_goes_nowhere_else(api, monkeypatch):
    with Api() as other:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, other.url)
        api.say(307, b"", ("Location", f"{other.url}/emails"))
        fault = fault_of(Resend(KEY, api.url).deliver, message())
        assert (fault.what, fault.cause) == (HOLD, "not the api")
        assert len(api.requests) == 1 and not other.requests


def test_the_key_is_checked_without_a_mail(api):
    transport = Resend(KEY, api.url)
    transport.check("example.com")
    assert fault_of(transport.check, "other.org").cause == "domain"
    assert fault_of(Resend("re_other_key", api.url).check, "example.com").cause == "key"
    api.say(401, {"name": "restricted_api_key", "message": "only send"})
    transport.check("other.org")  # it may send and no more: as it should be
    assert {path for path, *_ in api.requests} == {"/domains"} and not api.taken


# ---- the door
@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ({}, Console),
        ({"MAIL_BACKEND": "none"}, Nowhere),
        ({"MAIL_BACKEND": "smtp"}, Smtp),
        ({"MAIL_BACKEND": "resend", "RESEND_API_KEY": KEY}, Resend),
    ],
)
def test_the_settings_choose_the_way(written, kind):
    settings, faults = check({"APP_ENV": "development"} | written)
    assert not faults and type(mail_transport(settings)) is kind


ONLY_SMTP = {
    "unclear",
    "silent at banner",
    "no tls",
    "no auth",
    "password",
    "app password",
    "login wanted",
}


def explained(cause, **written):
    settings, faults = check({"APP_ENV": "development", "RESEND_API_KEY": KEY} | written)
    assert not faults
    return " ".join(remedies.explain(Fault(HOLD, "x", cause=cause), settings))


def test_every_cause_has_a_reason_and_a_remedy():
    source = "".join(inspect.getsource(inspect.getmodule(each)) for each in (Fault, Smtp, Resend))
    named = set(re.findall(r'cause="([^"]+)"', source)) | {c for _, _, c in map(_causes, REPLIES)}
    assert named <= set(remedies.WORDS) and len(named) >= 10
    plain = {re.sub(" (gmail|resend)$", "", cause) for cause in remedies.WORDS}
    for cause in {*named, *plain, "never heard of"}:
        for host in ("smtp.gmail.com", "mail.example.org"):
            words = explained(cause, MAIL_BACKEND="smtp", SMTP_HOST=host)
            assert len(words) > 30 and "{" not in words, cause
        words = explained(cause, MAIL_BACKEND="resend")
        assert "{" not in words and (cause in ONLY_SMTP or not re.search("SMTP_|587", words)), cause


def _causes(row):
    fault = refused(*row[:3])
    return fault.what, fault.seconds, fault.cause


@pytest.mark.parametrize(
    ("cause", "written", "says"),
    [
        ("password", {"SMTP_HOST": "smtp.gmail.com"}, "Google .* app password"),
        ("app password", {"SMTP_HOST": "smtp.gmail.com"}, "app password .* 2-Step"),
        ("password", {"SMTP_HOST": "mail.example.org"}, "mail.example.org .* SMTP_PASSWORD"),
        ("silent at connect", {}, "Railway.* MAIL_BACKEND=resend"),
        ("silent at banner", {}, "465 with tls"),
        (
            "certificate of another name",
            {"SMTP_HOST": "mail.x.org"},
            "mail.x.org; write .* SMTP_HOST",
        ),
        ("quota", {"SMTP_HOST": "smtp.gmail.com"}, "500 mails"),
        ("no tls", {}, "STARTTLS"),
        ("dns", {"SMTP_HOST": "smpt.gmail.com"}, "no host smpt.gmail.com.* SMTP_HOST"),
    ],
)
def test_what_an_operator_is_told(cause, written, says):
    assert re.search(says.replace("; ", " "), explained(cause, MAIL_BACKEND="smtp", **written))


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"MAIL_BACKEND": "none"}, ["MAIL_BACKEND"]),
        ({"MAIL_FROM": "a@x.org"}, ["MAIL_FROM"]),
        ({"SMTP_HOST": "mail.x.org", "MAIL_FROM": "a@gmail.com"}, ["MAIL_FROM"]),
        ({"SMTP_USER": "a@gmail.com", "SMTP_PASSWORD": "abcd efgh ijkl mnop"}, []),
        ({"SMTP_USER": "a@gmail.com", "SMTP_PASSWORD": "secret"}, ["SMTP_PASSWORD"]),
        (
            {
                "SMTP_USER": "a@gmail.com",
                "SMTP_PASSWORD": "abcdefghijklmnop",
                "MAIL_FROM": "b@x.org",
            },
            ["MAIL_FROM", "MAIL_FROM"],
        ),
        (
            {"SMTP_PORT": "587", "SMTP_SECURITY": "tls", "MAIL_FROM": "a@gmail.com"},
            ["SMTP_SECURITY"],
        ),
    ],
)
def test_what_no_server_tells_is_said_in_advance(written, says):
    settings, faults = check({"APP_ENV": "development", "MAIL_BACKEND": "smtp"} | written)
    assert not faults
    assert [name for name, _ in remedies.reminders(settings)] == says
    assert "secret" not in repr(remedies.reminders(settings))
