"""What people type or paste, tidied: a code, a link, a place to go, a time zone. Pure."""

import re
import unicodedata
from functools import cache
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from auth.keys import LONG_CODE_CHARS
from auth.policy import Refused

HOME = "/dashboard"
MAX_TYPED = 100
MAX_LINK = 2000
# Nobody wants to arrive at the door again, or at what only takes forms.
NO_PLACES = (
    "/login",
    "/create_code",
    "/verify_code",
    "/resend_code",
    "/link",
    "/undo_address",
    "/confirm",
    "/logout",
    "/logout_everywhere",
)


def tidy_code(typed: str, length: int) -> str:
    """The digits of what was typed. Raises Refused for what can't be a code.

    Spaces, line ends, dashes and digits of other scripts are how people and their keyboards write
    numbers; anything else is not repaired.
    """
    if not typed.strip():
        raise Refused("code_missing", length=length)
    code = _kept(typed)
    # fullmatch: `$` would let a trailing line end through.
    if not re.fullmatch(r"[0-9]+", code):
        raise Refused("code_malformed", length=length)
    if len(code) != length:
        raise Refused("code_length", length=length, typed=len(code))
    return code


def tidy_long_code(typed: str) -> str | None:
    """The 12 base32 characters (RFC 4648) that a link shows in another browser, or None.

    0, 1 and 8 are not among them, so they are O, I and B, misread.
    """
    code = _kept(typed).upper().translate(str.maketrans("018", "OIB"))
    return code if re.fullmatch(rf"[A-Z2-7]{{{LONG_CODE_CHARS}}}", code) else None


def _kept(typed: str) -> str:
    """What was typed without the ways in which people group it; "" when there is too much of it."""
    if len(typed) > MAX_TYPED:
        return ""
    if typed.isascii() and typed.isalnum():
        return typed
    text = unicodedata.normalize("NFKC", typed)
    kept = (c for c in text if not c.isspace() and unicodedata.category(c) not in ("Pd", "Cf"))
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in kept)


def tidy_link(pasted: str) -> str:
    """The secret of a link: what stands after its #, if all of it was pasted. Raises Refused."""
    if not pasted.strip():
        raise Refused("link_missing")
    return pasted.strip().rpartition("#")[2] if len(pasted) <= MAX_LINK else ""


def safe_next(path: str | None) -> str:
    """Where to go after signing in: a path on this site, or HOME.

    The same check for Location and HX-Redirect, which htmx assigns to location.href: there
    `javascript:` would run and `//evil` or `/\\evil` would leave.
    """
    path = path or ""
    if len(path) > 2000 or not re.fullmatch(r"/(?![/\\])[A-Za-z0-9\-._~/?=&%+]*", path):
        return HOME
    if re.match(r"/(%2f|%5c)", path, re.I) or re.search(r"%(0[0-9a-f]|1[0-9a-f]|7f)", path, re.I):
        return HOME
    parts = urlsplit(path)
    if parts.scheme or parts.netloc or parts.path in NO_PLACES:
        return HOME
    return path


def like(text: str) -> str:
    """The pattern of SQL's `like … escape '\\'` for whatever holds this text."""
    escaped = text.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def known_zone(name: str) -> str | None:
    """An IANA time zone name, or None."""
    return name if name in _zones() else None


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
