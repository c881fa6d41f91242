"""What an e-mail address is, and its one canonical form. Pure: no database, no DNS.

Identity, limits and delivery all use the same canonical text, which is what closes the folding
attacks: an address that looks like another one is either the very same text or refused.
"""

import re
import unicodedata

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

MAX_TYPED = 320  # nothing longer is looked at
MAX_LOCAL = 64
MAX_LABEL = 63
MAX_ADDRESS = 254  # RFC 5321 §4.5.3.1.3: a path is 256 with its angle brackets

# What nearly everybody types, of which the whole check would say what it is already: it is not asked, for
# it takes ten times as long. Single hyphens, so no A-labels; no domain that is for special use.
_PLAIN = re.compile(r"[a-z0-9_]+(?:[.+-][a-z0-9_]+)*@(?:[a-z0-9]+(?:-[a-z0-9]+)*\.)+([a-z]{2,63})")
_SPECIAL = {name.rpartition(".")[2] for name in SPECIAL_USE_DOMAIN_NAMES}


def canonical(typed: str) -> str | None:
    """The canonical address, or None when it is not one that we can mail.

    Lower case; ASCII before the @ (no case or compatibility folding can then make two people one);
    the domain as IDNA 2008 A-labels; no quoted local parts, comments, IP literals, single-label or
    numeric domains. Dots and +tags mean what they say: we never guess a provider's rules.
    """
    text = typed.strip() if len(typed) <= MAX_TYPED else ""
    return text if _is_plain(text) else _checked(text)


def _is_plain(text: str) -> bool:
    found = _PLAIN.fullmatch(text) if len(text) <= MAX_ADDRESS else None
    if not found or found[1] in _SPECIAL:
        return False
    local, _, domain = text.partition("@")
    return len(local) <= MAX_LOCAL and max(map(len, domain.split("."))) <= MAX_LABEL


def _checked(text: str) -> str | None:
    # NFKC would turn ＠ into @ and ﬁ into fi, IDNA turns 。 into a dot: what something would change
    # on the way is refused here, not repaired.
    if not text or unicodedata.normalize("NFKC", text) != text or "\u3002" in text:
        return None
    if not text.isprintable():
        return None
    try:
        valid = validate_email(
            text,
            check_deliverability=False,
            allow_smtputf8=False,
            allow_quoted_local=False,
            allow_domain_literal=False,
            test_environment=True,  # lets *.test through, which RFC 2606 reserves for trying out
        )
    except EmailNotValidError:
        return None
    address = (valid.ascii_email or "").lower()
    local, _, domain = text.rpartition("@")
    # RFC 5321 §4.5.3.1.1. An encoded word is decoded by some relay on the way, into another address.
    if len(local) > MAX_LOCAL or "=?" in local:
        return None
    if len(address) > MAX_ADDRESS or "." not in valid.ascii_domain:
        return None
    # IDNA's mapping drops characters that nobody sees (variation selectors, fillers).
    if domain.lower() not in (valid.domain, valid.ascii_domain.lower()):
        return None
    if any(_mixed_script(label) for label in valid.domain.split(".") if not label.isascii()):
        return None
    return address


def _mixed_script(label: str) -> bool:
    """Latin and Cyrillic in one label is how a copy of a well-known name is made (UTS 39 §5)."""
    scripts = {unicodedata.name(c, "?").split()[0] for c in label if c.isalpha()}
    # Japanese and Korean write several scripts in one word.
    scripts -= {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "KATAKANA-HIRAGANA"}
    return len(scripts) > 1


def masked(address: str) -> str:
    """ada@example.org → a***@example.org, for logs."""
    local, _, domain = address.partition("@")
    return f"{local[:1]}***@{domain}"
