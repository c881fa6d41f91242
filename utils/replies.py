"""What a refusal means: Fault, and how replies and broken connections become one. Pure; talks to nobody."""

import re
import socket
import ssl

# This mail again later; nothing at all for a while; never to this recipient; handed over, and then silence.
RETRY, HOLD, DEAD, LOST = "retry", "hold", "dead", "lost"

AUTH_SECONDS = 60  # a password does not get right by trying, and providers lock out who tries often
KEPT = 200

# RFC 3463, at the start of a reply. Some write #5.1.0 or [5.1.0].
_ENHANCED = re.compile(r"\s*[#(\[]?([45])\.(\d{1,3})\.(\d{1,3})\b")
_AT_THE_END = re.compile(r"\(#([45])\.(\d{1,3})\.(\d{1,3})\)\s*$")
_ADDRESS = re.compile(r"[^\s<>()\[\]:;,\"'`]+@[^\s<>()\[\]:;,\"'`]+")
_CODE = re.compile(r"\d{6,}")
_TOKEN = re.compile(r"\w{24,}")  # the secret of a link, a key
_PASSWORD = (530, 534, 535)
_SENDER = ("1.7", "1.8")  # its address is bad, or its domain
_QUOTA = "4.5"  # Google's, with a five before it
_CONGESTED = ("3.2", "4.5")
_ONE_MAILBOX = ("2.2", "2.3")  # full, or takes only smaller mails
_SAYS_NOTHING = ("0.0", "5.0", "5.2", "5.4")  # undefined, or syntax: the basic code says as much


class Fault(Exception):
    """A mail was not accepted. str(fault) is safe to keep: reply code, enhanced code and a short masked text.

    `what` is RETRY, HOLD, DEAD or LOST; `seconds` at least so long a HOLD should last (0: as the
    caller likes); `cause` is a word for whoever explains it (utils/remedies.py);
    `of_one` says that it may be one recipient's trouble and not everybody's.
    """

    def __init__(
        self, what: str, reply: str, seconds: int = 0, cause: str = "", of_one: bool = False
    ):
        super().__init__(reply)
        self.what, self.reply, self.seconds, self.cause = what, reply, seconds, cause
        self.of_one = of_one


def classify(stage: str, code: int, text: str) -> str:
    """What a refusal calls for. `stage`: banner, hello, tls, auth, mail, rcpt, data, end.

    By the enhanced code first: 550 5.4.5 begins with a five and is over tomorrow. What names one
    recipient is no HOLD, or whoever types a bad address would stop everybody's mail.
    """
    kind, detail = _enhanced(code, text)
    if code in (421, 454, *_PASSWORD) or stage not in ("rcpt", "data", "end"):
        return HOLD
    if detail in _SENDER:
        return HOLD
    if kind == 4:
        return HOLD if detail in _CONGESTED else RETRY
    if detail.startswith("1.") or detail == "2.1":
        return DEAD
    if detail in _ONE_MAILBOX:
        return RETRY
    if stage == "rcpt":
        if detail in ("", *_SAYS_NOTHING) and code in (501, 550, 551, 553, 555):
            return DEAD
        if detail.startswith("4.") and detail != _QUOTA:
            return RETRY  # no way to that recipient's host
    return HOLD


def refused(stage: str, code: int, text: str) -> Fault:
    """The server said no."""
    what, (_, detail) = classify(stage, code, text), _enhanced(code, text)
    cause = _cause(stage, code, detail, text, what)
    seconds = AUTH_SECONDS if cause in ("password", "app password", "login wanted") else 0
    of_one = cause in ("policy", "unclear") and stage in ("rcpt", "data", "end")
    return Fault(what, kept(f"{code} {text}"), seconds, cause, of_one)


def _cause(stage: str, code: int, detail: str, text: str, what: str) -> str:
    if what == RETRY:
        return "later"
    if what == DEAD:
        # "550 relay not permitted" looks the same as "550 no such user" to who can't read.
        sure = detail.startswith("1.") or detail == "2.1"
        return "recipient" if sure else "unclear"
    if code == 534 or detail == "7.9":
        return "app password"
    if code == 530:
        return "login wanted"
    if detail == _QUOTA or re.search(r"quota|daily|sending limit", text, re.I):
        return "quota"
    if stage == "tls":
        return "no tls"
    if code // 100 == 4:
        return "busy"
    if stage == "auth" or code == 535 or detail == "7.8":
        return "password"
    return "sender" if stage == "mail" or detail in (*_SENDER, "7.60") else "policy"


def _enhanced(code: int, text: str) -> tuple[int, str]:
    """550, "5.1.1 no such user" → (5, "1.1"). Without an enhanced code (5, "")."""
    found = _ENHANCED.match(text) or _AT_THE_END.search(text)
    return (int(found[1]), f"{int(found[2])}.{int(found[3])}") if found else (code // 100, "")


def broken(stage: str, error: OSError | ValueError) -> Fault:
    """The connection failed. After the last byte of a mail nobody knows whether it was taken."""
    cause, words = _words(stage, error)
    return Fault(LOST if stage == "end" else HOLD, f"{stage}: {words}", cause=cause)


def _words(stage: str, error: OSError | ValueError) -> tuple[str, str]:
    """(cause, what to write down). Our own words only: an error's text may quote what was sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        flaw = {10: "expired", 9: "not valid yet", 62: "of another name", 64: "of another name"}
        words = flaw.get(error.verify_code, "not trusted")
        return f"certificate {words}", f"the certificate is {words}"
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        reason = error.reason or ""
        if re.search("WRONG_VERSION_NUMBER|UNKNOWN_PROTOCOL|HTTP_REQUEST|RECORD", reason):
            return "not tls", "the server does not speak TLS on this port"
        if re.search("PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|INTERNAL_ERROR|HANDSHAKE", reason):
            return "old tls", "no TLS 1.2 or newer in common"
        return "tls", "TLS failed"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "dns", "no such host"
    if isinstance(error, TimeoutError):
        return (f"silent at {stage}" if stage in ("connect", "banner") else "silent"), "no answer"
    if isinstance(error, ConnectionRefusedError):
        return "refused", "connection refused"
    if isinstance(error, Garbled):
        return "garbled", str(error)
    if isinstance(error, ConnectionError | ssl.SSLEOFError):
        return "closed", "connection closed"
    return "no way", "no way to the server"


class Garbled(OSError):
    """An answer that is none. Says which rule it breaks, in our own words."""


def kept(text: str) -> str:
    """A reply as it may be kept: one short printable line without addresses, codes and secrets."""
    if not text.isprintable():
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if "@" in text:
        text = _ADDRESS.sub("…@…", text)
    return _CODE.sub("…", _TOKEN.sub("…", text))[:KEPT]
