"""Delivers one mail: to the console, by SMTP, over HTTPS, or nowhere. Does not know what is in it.

The door to its neighbours: message.py writes a mail down, smtp.py and resend.py send it, replies.py
says what a refusal means.
"""

import sys
from typing import TYPE_CHECKING, Protocol, TextIO

from utils.message import Letter, Message, Sender
from utils.replies import DEAD, HOLD, LOST, RETRY, Fault
from utils.smtp import Smtp, Step

if TYPE_CHECKING:
    from utils.settings import Settings

__all__ = [
    "DEAD",
    "HOLD",
    "LOST",
    "RETRY",
    "Console",
    "Fault",
    "Letter",
    "Message",
    "Nowhere",
    "Sender",
    "Smtp",
    "Transport",
    "mail_transport",
]


class Transport(Protocol):
    """Used by several threads at once."""

    def deliver(self, message: Message) -> str:
        """The provider's short reply, safe to keep. Raises Fault, and nothing else."""
        ...

    def close(self) -> None: ...


class Console:
    """Prints the mail in a box, decoded, so that a developer reads the code in the terminal."""

    def __init__(self, out: TextIO | None = None):
        self._out = out

    def deliver(self, message: Message) -> str:
        _writable(message)
        letter, out = message.letter, self._out or sys.stdout
        words = [f"To: {letter.to}", f"Subject: {letter.subject}", "", *letter.text.split("\n")]
        width = max(map(len, words))
        box = [f"│ {line:<{width}} │" for line in words]
        edge = "─" * (width + 2)
        lines = [f"\n┌{edge}┐", *box, f"└{edge}┘\n\n"]
        try:  # one write: mails of several threads must not get into each other
            print("\n".join(lines), end="", file=out, flush=True)
        except (OSError, ValueError) as error:
            raise Fault(HOLD, "the terminal takes nothing", cause="no terminal") from error
        return "printed"

    def close(self) -> None: ...


class Nowhere:
    """MAIL_BACKEND=none: nothing is sent, and the pages say so."""

    def deliver(self, message: Message) -> str:
        _writable(message)
        return "mail is switched off"

    def close(self) -> None: ...


def _writable(message: Message) -> None:
    """What could not be written on the wire must fail here, too."""
    try:
        message.as_bytes()
    except ValueError as error:
        raise Fault(DEAD, f"can't be written: {error}", cause="unwritten") from error


def mail_transport(settings: "Settings", step: Step | None = None) -> Transport:
    """What MAIL_BACKEND names. `step(stage, text)` hears each answer of a mail server."""
    s = settings
    if s.mail_backend == "smtp":
        login = (s.smtp_user, s.smtp_password)
        return Smtp(s.smtp_host, s.smtp_port, s.smtp_security, *login, step=step)
    if s.mail_backend == "resend":
        from utils.resend import Resend  # an HTTP client takes 0.1 s to load

        return Resend(s.resend_api_key, s.resend_api_url, step=step)
    return Console() if s.mail_backend == "console" else Nowhere()
