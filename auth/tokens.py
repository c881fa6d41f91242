"""Access tokens: a program's proof, for ten minutes, of who it works for. Signed here, read here and elsewhere.

JWTs (RFC 9068) by EdDSA, so that other services check them with the public key alone (`jwks`). The key is
derived from the secret key; its id names which. What a token says is what was true when it was made: calls
to us ask the database as well. No HTTP, HTML or SQL.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from jwt.utils import base64url_decode

from auth.keys import Keys

ALGORITHM, TYPE = "EdDSA", "at+jwt"
SKEW = 30  # seconds that another machine's clock may be ahead (RFC 9068 §4 with RFC 7519 §4.1.4)
MAX_TOKEN = 2000
MAX_LIFE = 3600  # seconds, whatever is set
# Canonical base64url only: a decoder that passes over blanks, or over the spare bits of the last character,
# would take many spellings for one token.
_SHAPE = re.compile(r"[A-Za-z0-9_-]{1,300}\.[A-Za-z0-9_-]{1,1500}\.[A-Za-z0-9_-]{85}[AQgw]")
_TEXTS = ("iss", "aud", "sub", "sid", "jti", "role")
_TIMES = ("iat", "nbf", "exp")
_CLAIMS = frozenset((*_TEXTS, *_TIMES, "tenant"))


@dataclass(frozen=True)
class Claims:
    """What a good token says. Times in epoch seconds; `tenant` is "" for none."""

    user_id: str
    session_id: str
    tenant: str
    issued_at: int
    not_before: int
    expires_at: int


class AccessTokens:
    """`issuer` is the origin of this app, and the audience too: tokens are made for it."""

    def __init__(self, keys: Keys, issuer: str, seconds: int):
        self.issuer, self.seconds, self._new_id = issuer, seconds, keys.new_id
        self._keys = {
            id: Ed25519PrivateKey.from_private_bytes(seed)
            for id, seed in keys.signing_seeds.items()
        }
        self._public = {id: key.public_key() for id, key in self._keys.items()}
        self._current = keys.current
        # A signature that was good stays so; times and the session are looked at for each call.
        self._signed = lru_cache(4096)(self._verify)

    def issue(self, user_id: str, session_id: str, role: str, tenant: str, now: int) -> str:
        """A new token. `role` is the one inside `tenant`, or the site's where that is ""."""
        claims = {
            "iss": self.issuer,
            "aud": self.issuer,
            "sub": user_id,
            "sid": session_id,
            "jti": self._new_id(),
            "iat": now,
            "nbf": now,
            "exp": now + self.seconds,
            "role": role,
            "tenant": tenant or None,
        }
        headers = {"typ": TYPE, "kid": self._current}
        return jwt.encode(claims, self._keys[self._current], ALGORITHM, headers)

    def read(self, token: str, now: int) -> Claims | None:
        """The claims of a token that was made here and counts now; None for any other."""
        if len(token) > MAX_TOKEN or not _SHAPE.fullmatch(token):
            return None
        claims = self._signed(token)
        if claims is None or claims.expires_at <= now:
            return None
        early = claims.not_before > now + SKEW or claims.issued_at > now + SKEW
        return None if early else claims

    def _verify(self, token: str) -> Claims | None:
        """RFC 8725: the key by its id, of one kind, with the one algorithm; every claim, each of its type."""
        try:
            header = jwt.get_unverified_header(token)
            key = self._public.get(header["kid"]) if set(header) == {"alg", "typ", "kid"} else None
            # No `crit`, `jwk` or `x5u`, known or not: we never wrote one.
            if key is None or header["alg"] != ALGORITHM or header["typ"] != TYPE:
                return None
            jwt.decode(token, key, [ALGORITHM], {"verify_signature": True} | _TIMELESS)
            claims = json.loads(base64url_decode(token.split(".")[1]), object_pairs_hook=_once)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return _read(claims, self.issuer)

    def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517), the current one first."""
        ids = sorted(self._public, key=lambda id: id != self._current)
        return {"keys": [self._jwk(id) for id in ids]}

    def _jwk(self, id: str) -> dict[str, Any]:
        key: dict[str, Any] = OKPAlgorithm.to_jwk(self._public[id], as_dict=True)
        return {name: key[name] for name in ("kty", "crv", "x")} | {
            "kid": id,
            "use": "sig",
            "alg": ALGORITHM,
        }


# The library's own checks go by the machine's clock, and take "600" and 600.5 for a time.
_TIMELESS: Any = {
    f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")
}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Which of two claims of one name counts is not for us to guess (RFC 7519 §4)."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _read(claims: dict[str, Any], issuer: str) -> Claims | None:
    texts = all(type(claims.get(name)) is str for name in _TEXTS)
    times = all(type(claims.get(name)) is int for name in _TIMES)
    if not (texts and times):
        return None
    ids = all(re.fullmatch(r"[0-9a-f]{32}", claims[name]) for name in ("sub", "sid"))
    # No longer than any that we give, and none that began before it was made.
    times = 0 < claims["iat"] <= claims["nbf"] < claims["exp"] <= claims["iat"] + MAX_LIFE
    tenant = claims.get("tenant")
    known = set(claims) == _CLAIMS and (tenant is None or type(tenant) is str)
    # Equal, never "in": https://id.example is not https://id.example.evil.
    if not (ids and times and known and claims["iss"] == claims["aud"] == issuer):
        return None
    return Claims(
        claims["sub"], claims["sid"], tenant or "", claims["iat"], claims["nbf"], claims["exp"]
    )
