"""Every derivation and every random value: codes, digests, tokens, ids.

Nothing else imports hmac, hashlib or secrets, so this file is the whole of the cryptography.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable

TOKEN_CHARS = 43  # 32 bytes in URL-safe base64


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
        for text in filter(None, (previous, secret)):
            master = text.encode()
            self.current = hkdf(master, "key id").hex()[:12]
            self._code_keys[self.current] = hkdf(master, "code")

    def new_nonce(self) -> str:
        return self._random(32).hex()

    def new_token(self) -> str:
        """An opaque bearer token, 256 bits (ASVS 7.2.3 asks for 128). Only its digest is stored."""
        return _base64url(self._random(32))

    def new_id(self) -> str:
        """An opaque id, 128 bits: says nothing about how many there are, can't be counted up."""
        return self._random(16).hex()

    def new_sorted_id(self, now: float) -> str:
        """An id that sorts by time, for what is only ever read in order."""
        return f"{int(now * 1000):012x}{self._random(10).hex()}"

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


def digest(token: str) -> str:
    """What the database keeps of a token. No salt or stretching: 256 random bits can't be searched."""
    return hashlib.sha256(token.encode()).hexdigest()


def looks_like_token(text: str) -> bool:
    """Could it be one of ours? What could not is not even looked up."""
    return len(text) == TOKEN_CHARS and text.isascii()


def same(one: str, other: str) -> bool:
    """Equal, in a time that does not tell at which character they part (ASVS 11.2.4)."""
    return hmac.compare_digest(one.encode(), other.encode())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
