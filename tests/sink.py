"""A real mail server on loopback: keeps what it accepts. Plain, STARTTLS or TLS."""

import email
import email.policy
import re
import ssl
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

from tests.serving import free_port


class Sink:
    """`mails` is a list of (envelope recipients, raw bytes), oldest first.

    tls: 'starttls' or 'tls' with `context`, a server-side SSLContext; `login` asks for (user, password).
    """

    def __init__(self, tls="", context=None, login=None):
        self.mails, self.changed = [], threading.Condition()
        self.sessions = set()
        self.refuse, self.refusals = None, 0  # answer for the next mails, such as "451 4.3.0 later"
        self.port = free_port()
        self._login, self.logins = login, []
        options = {"hostname": "sink.test", "ident": "sink", "enable_SMTPUTF8": True}
        if login:
            options |= {
                "authenticator": self._authenticate,
                "auth_required": True,
                "auth_require_tls": tls == "starttls",
            }
        if tls == "starttls":
            options |= {"tls_context": context, "require_starttls": True}
        sink = self

        class _Controller(Controller):
            def factory(self):
                return SMTP(sink, **options)

        self._controller = _Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            ssl_context=context if tls == "tls" else None,
        )

    def __enter__(self):
        self._controller.start()
        return self

    def __exit__(self, *_):
        self._controller.stop()

    def _authenticate(self, server, session, envelope, mechanism, data):
        given = (data.login.decode(), data.password.decode())
        self.logins.append(given)
        return AuthResult(success=given == self._login, handled=False)  # then it says 535

    async def handle_DATA(self, server, session, envelope):
        with self.changed:
            if self.refuse:
                self.refusals += 1
                self.changed.notify_all()
                return self.refuse
            self.sessions.add(id(session))
            self.mails.append(
                (list(envelope.rcpt_tos), envelope.original_content or envelope.content)
            )
            self.changed.notify_all()
        return "250 2.0.0 kept"

    # ---- for the tests
    def wait(self, count, seconds=15):
        """Until there are `count` mails; all of them. Raises AssertionError when they don't come."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.mails) >= count, seconds), self.mails
            return list(self.mails)

    def code(self, address, number=1, seconds=15):
        """The code in the `number`-th mail to this address."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self._to(address)) >= number, seconds), (
                self.mails
            )
            raw = self._to(address)[number - 1]
        return code_in(raw)

    def _to(self, address):
        return [raw for to, raw in self.mails if to == [address]]


def parsed(raw):
    return email.message_from_bytes(raw, policy=email.policy.default)


def code_in(raw):
    text = parsed(raw).get_body(("plain",)).get_content().replace("\r\n", "\n")
    return re.search(r"^[0-9]{6,10}$", text, re.MULTILINE)[0]


def server_context(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
