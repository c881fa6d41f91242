"""Every derivation and every random value: codes, digests, tokens, ids.

Nothing else imports hmac, hashlib or secrets, so this file is the whole of the cryptography.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from itertools import count

TOKEN_CHARS = 43  # 32 bytes in URL-safe base64
SELECTOR_CHARS = 32  # of a device: 16 bytes in hex
LONG_CODE_CHARS = 12  # 60 bits
LINK_ID_CHARS, LINK_CHARS = 26, 78  # 16 and 16 + 32 bytes in letters
APP_PREFIX = "app_"  # of a device_secret: no cookie of ours looks like that

# base32 without its digits: a mail has one number in it, which is the code.
_LETTERS = str.maketrans("234567", "abcdef")
_BASE32 = str.maketrans("abcdef", "234567")


def hkdf(secret: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose from the one secret (RFC 5869, SHA-256, a single block)."""
    extracted = hmac.digest(b"vestibule", secret, "sha256")
    return hmac.digest(extracted, purpose.encode() + b"\x01", "sha256")


class Keys:
    """The secret key, and the one before it while a rotation lasts.

    Each derivation has a sub-key of its own, so that no output for one purpose says anything about
    another. `random_bytes(n)` is a parameter so that tests can decide what chance does.
    """

    def __init__(
        self,
        secret: str,
        previous: str | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ):
        self._random = random_bytes
        self._code_keys: dict[str, bytes] = {}
        self._link_keys: dict[str, bytes] = {}
        self._refresh_keys: dict[str, bytes] = {}
        self.signing_seeds: dict[str, bytes] = {}  # of Ed25519 keys, see tokens.py
        for text in filter(None, (previous, secret)):
            master = text.encode()
            self.current = hkdf(master, "key id").hex()[:12]
            self._code_keys[self.current] = hkdf(master, "code")
            self._link_keys[self.current] = hkdf(master, "link")
            self._refresh_keys[self.current] = hkdf(master, "refresh")
            self.signing_seeds[self.current] = hkdf(master, "access token")
        self._made = count()
        self._counter_key, self._device_key = hkdf(master, "counter"), hkdf(master, "device")

    def new_nonce(self) -> str:
        return self._random(32).hex()

    def new_token(self) -> str:
        """An opaque bearer token, 256 bits (ASVS 7.2.3 asks for 128). Only its digest is stored."""
        return _base64url(self._random(32))

    def new_device_secret(self) -> str:
        """A program's half of a sign-in: what a browser's cookie is, and can't be used as one."""
        return APP_PREFIX + self.new_token()

    def new_id(self) -> str:
        """An opaque id, 128 bits: says nothing about how many there are, can't be counted up."""
        return self._random(16).hex()

    def new_sorted_id(self, now: float) -> str:
        """An id that sorts by time, and within a millisecond as they were made in this process."""
        return f"{int(now * 1000):012x}{next(self._made) & 0xFFFFFF:06x}{self._random(7).hex()}"

    def sorts_from(self, now: float) -> str:
        """What every id of new_sorted_id from this time on is greater than."""
        return f"{int(now * 1000):012x}"

    def code(
        self, key_id: str, purpose: str, nonce: str, address: str, generation: int, digits: int
    ) -> str | None:
        """The code of one challenge: derived, never stored. None when the key is gone.

        256 bits modulo 10^digits: the bias is below 2^-220. The parts hold no NUL, so no two
        different challenges share an input.
        """
        key = self._code_keys.get(key_id)
        if key is None:
            return None
        message = "\0".join((purpose, nonce, address, str(generation)))
        number = int.from_bytes(hmac.digest(key, message.encode(), "sha256"), "big")
        return f"{number % 10**digits:0{digits}d}"

    def long_code(self, key_id: str, purpose: str, nonce: str, address: str) -> str | None:
        """12 base32 characters, 60 bits, for where a few digits would be guessed. Derived, too."""
        key = self._code_keys.get(key_id)
        if key is None:
            return None
        message = "\0".join((purpose, nonce, address, "long"))
        raw = hmac.digest(key, message.encode(), "sha256")
        return base64.b32encode(raw).decode()[:LONG_CODE_CHARS]

    def link(self, key_id: str, purpose: str, id: str, nonce: str, address: str) -> str | None:
        """The secret of a challenge's link, 78 letters: which challenge, and 256 bits that prove it."""
        key = self._link_keys.get(key_id)
        if key is None:
            return None
        message = "\0".join((purpose, id, nonce, address))
        proof = hmac.digest(key, message.encode(), "sha256")
        return _letters(bytes.fromhex(id)) + _letters(proof)

    def refresh_token(self, key_id: str, session: str, generation: int) -> str | None:
        """The refresh token of one generation of a session: derived, so that a lost answer can be given again."""
        key = self._refresh_keys.get(key_id)
        if key is None:
            return None
        named = f"{session}.{generation}"
        return f"{named}.{_base64url(hmac.digest(key, named.encode(), 'sha256'))}"

    def refreshes(self, token: str) -> tuple[str, int] | None:
        """(session, generation) of a refresh token that was really made here; None for any other."""
        found = re.fullmatch(r"([0-9a-f]{32})\.(0|[1-9][0-9]{0,8})\.[A-Za-z0-9_-]{43}", token)
        if not found:
            return None
        session, generation = found[1], int(found[2])
        made = (self.refresh_token(key_id, session, generation) for key_id in self._refresh_keys)
        good = [same(token, one) for one in made if one]
        return (session, generation) if any(good) else None

    def subject(self, text: str) -> str:
        """Whom a counter counts, as 96 bits that say nothing about them."""
        return _base64url(hmac.digest(self._counter_key, text.encode(), "sha256")[:12])

    def verifier(self, selector: str, generation: int) -> str:
        """What a known browser proves itself with: derived, so that a lost answer can be given again."""
        message = f"{selector}\0{generation}".encode()
        return _base64url(hmac.digest(self._device_key, message, "sha256"))


def digest(token: str) -> str:
    """What the database keeps of a token. No salt or stretching: 256 random bits can't be searched."""
    return hashlib.sha256(token.encode()).hexdigest()


def linked_id(link: str) -> str | None:
    """Which challenge a link's secret names; None when it can't be one. It proves nothing yet."""
    if not re.fullmatch(rf"[A-Za-f]{{{LINK_CHARS}}}", link):
        return None
    return base64.b32decode(link[:LINK_ID_CHARS].translate(_BASE32) + "======").hex()


def split_device(cookie: str | None) -> tuple[str, str] | None:
    """(selector, verifier) of a device cookie; None when it can't be one of ours."""
    pattern = rf"([0-9a-f]{{{SELECTOR_CHARS}}})([A-Za-z0-9_-]{{{TOKEN_CHARS}}})"
    found = re.fullmatch(pattern, cookie or "")
    return (found[1], found[2]) if found else None


def looks_like_token(text: str) -> bool:
    """Could it be one of ours? What could not is not even looked up."""
    return len(text) == TOKEN_CHARS and text.isascii()


def looks_like_device_secret(text: str) -> bool:
    return text.startswith(APP_PREFIX) and looks_like_token(text.removeprefix(APP_PREFIX))


def same(one: str, other: str) -> bool:
    """Equal, in a time that does not tell at which character they part (ASVS 11.2.4)."""
    return hmac.compare_digest(one.encode(), other.encode())


def _letters(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").translate(_LETTERS)


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
