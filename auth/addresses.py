"""What an e-mail address is, and its one canonical form. Pure: no database, no DNS.

Identity, limits and delivery all use the same canonical text, which is what closes the folding
attacks: an address that looks like another one is either the very same text or refused.
"""

import unicodedata

from email_validator import EmailNotValidError, validate_email

MAX_TYPED = 320  # nothing longer is looked at
MAX_LOCAL = 64
MAX_ADDRESS = 254  # RFC 5321 §4.5.3.1.3: a path is 256 with its angle brackets


def canonical(typed: str) -> str | None:
    """The canonical address, or None when it is not one that we can mail.

    Lower case; ASCII before the @ (no case or compatibility folding can then make two people one);
    the domain as IDNA 2008 A-labels; no quoted local parts, comments, IP literals, single-label or
    numeric domains. Dots and +tags mean what they say: we never guess a provider's rules.
    """
    text = typed.strip() if len(typed) <= MAX_TYPED else ""
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
