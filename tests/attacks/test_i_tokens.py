"""Attacks on what programs carry: forged, moved, kept too long, copied."""

import base64
import hashlib
import hmac
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from urllib.parse import urlsplit

import joserfc.jwk
import joserfc.jwt
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.errors import JoseError

from auth import admin_required, signed_in
from auth.events import Source
from auth.keys import Keys, digest
from auth.shapes import CALLS
from auth.tokens import MAX_TOKEN, AccessTokens
from tests.attacks.test_d_browser import snapshot, walk
from tests.conftest import ADMIN, BASE_URL, SECRET, START, Clock, environment
from tests.serving import Server, together, until

ADA, BOB = "ada@example.org", "bob@example.org"
OTHER = (
    "another-7d1e48f2a6b4c8d0e2f413573f9a0c5b"  # the SECRET_KEY of somewhere else, or the next one
)
OURS = {"Sec-Fetch-Site": "same-origin"}
DAY = 86400
BEARER = sorted((call.method, call.path) for call in CALLS if call.bearer)  # GET first
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's base point


def b64(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Forge:
    """A good access token, taken apart, and the tools to make others of it.

    `signed` uses the real key, which no attacker has: it must be refused for what it says.
    """

    def __init__(self, token, secret=SECRET):
        head, body, self.signature = token.split(".")
        self.token, self.named = token, f"{head}.{body}"
        self.header, self.claims = (json.loads(unb64(part)) for part in (head, body))
        keys = Keys(secret)
        self.key = Ed25519PrivateKey.from_private_bytes(keys.signing_seeds[keys.current])
        self.public, self.stranger = self.key.public_key(), Ed25519PrivateKey.generate()

    def made(self, sign, header=None, claims=None):
        """A token of a header and claims, dicts or any text, with sign(bytes) as its signature."""
        given = (
            self.header if header is None else header,
            self.claims if claims is None else claims,
        )
        texts = (part if isinstance(part, str) else json.dumps(part) for part in given)
        named = ".".join(b64(text.encode()) for text in texts)
        return f"{named}.{b64(sign(named.encode()))}"

    def signed(self, header=None, claims=None):
        return self.made(self.key.sign, header, claims)

    def heads(self, **changed):
        return self.signed(self.header | changed)

    def says(self, **changed):
        return self.signed(claims=self.claims | changed)

    def writes(self, name, text):
        """One claim, written as JSON by hand."""
        written = json.dumps(self.claims)
        assert written.count(f'"{name}": {json.dumps(self.claims[name])}') == 1
        return self.signed(
            claims=written.replace(
                f'"{name}": {json.dumps(self.claims[name])}', f'"{name}": {text}'
            )
        )

    def hashed(self, alg, secret, **head):
        how = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}[alg]
        header = self.header | {"alg": alg} | head
        return self.made(lambda named: hmac.digest(secret, named, how), header)


@pytest.fixture
def program(house, ada):
    program = house.program()
    program.sign_in(ada)
    return program


@pytest.fixture
def forge(program):
    return Forge(program.access_token)


@pytest.fixture
def twin(build, house):
    """The same app a second time on the same database: another process."""
    return build(clock=house.clock, mailbox=house.mailbox)


def at(house, program):
    """The same program, with what it holds, in front of another process."""
    other = house.program()
    other.address, other.access_token = program.address, program.access_token
    other.refresh_token, other.device_secret = program.refresh_token, program.device_secret
    return other


def told(answer):
    """All that an answer says about a token."""
    headers = answer.headers
    about = (headers.get(name) for name in ("content-type", "www-authenticate", "set-cookie"))
    return (answer.status_code, *about, answer.content)


def show(client, authorization, method="GET", path="/auth/me"):
    sent = {"Authorization": authorization.encode("utf-8", "surrogatepass")}
    body = {} if method == "GET" else {"json": {"tenant": "0" * 32}}
    return client.request(method, path, headers=sent, **body)


def let_through(client, tokens):
    """Which of these are not answered as if there were no token at all."""
    found = {}
    for n, (method, path) in enumerate(BEARER):
        nothing = told(client.request(method, path))
        assert nothing[:4] == (401, "application/problem+json", "Bearer", None)
        assert json.loads(nothing[4])["code"] == "invalid_token"
        # All on the first call, and some on the others, which ask in the same way.
        for name, token in list(tokens.items())[:: 8 if n else 1]:
            answer = told(show(client, f"Bearer {token}", method, path))
            if answer != nothing:
                found[f"{method} {path}: {name}"] = answer
    return found


def code_of(answer):
    return answer.status_code, answer.json().get("code") if answer.content else None


INVALID, REUSED = (401, "invalid_token"), (401, "token_reused")


# ---- I1: other algorithms, or none
def other_algorithms(forge):
    none = ("none", "None", "NONE", "nOnE", "none ", " none", "", "null", "nоne", None, False, 0)
    none += ([], ["none"], {}, ["EdDSA"])
    tokens = {}
    for alg in none:
        head = forge.header | {"alg": alg}
        tokens[f"{alg!r}, no signature"] = forge.made(lambda _: b"", head)
        tokens[f"{alg!r}, zeros"] = forge.made(lambda _: bytes(64), head)
        tokens[f"{alg!r}, a good signature"] = forge.heads(alg=alg)
    headless = {name: value for name, value in forge.header.items() if name != "alg"}
    tokens["no alg"] = forge.signed(headless)
    lies = "HS256 HS512 RS256 PS256 ES256 ES512 ES256K Ed25519 Ed448 eddsa EDDSA EdDSA\0 dir A256KW"
    tokens |= {f"really EdDSA, says {alg!r}": forge.heads(alg=alg) for alg in lies.split()}
    for alg, secret in product(("HS256", "HS384", "HS512"), ("", "secret", SECRET, "null", "0")):
        tokens[f"{alg} by {secret!r}"] = forge.hashed(alg, secret.encode())
    big, curve = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    others = {"RS256": big, "PS256": big, "ES256": curve, "EdDSA": ed448.Ed448PrivateKey.generate()}
    heads = {"typ": "at+jwt", "kid": forge.header["kid"]}
    for alg, key in others.items():
        tokens[f"{alg} by a stranger"] = jwt.encode(forge.claims, key, alg, heads)
    tokens["EdDSA by a stranger"] = forge.made(forge.stranger.sign)
    zeros = {"zeros": bytes(64), "the identity": b"\1" + bytes(63), "ones": b"\xff" * 64}
    tokens |= {f"EdDSA, {name}": forge.made(lambda _, raw=raw: raw) for name, raw in zeros.items()}
    tokens["EdDSA, nothing"] = f"{forge.named}."
    return tokens


def test_I1_one_algorithm_counts_however_the_others_are_written(program, forge):
    tokens = other_algorithms(forge)
    assert len(tokens) > 70
    assert let_through(program.client, tokens) == {}
    assert program.signed_in


# ---- I2: the public key as a secret
def public_as_secret(forge):
    key = forge.public
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ssh = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}
    whole = jwk | {"kid": forge.header["kid"], "use": "sig", "alg": "EdDSA"}
    secrets = [raw, raw.hex().encode(), b64(raw).encode(), base64.b64encode(raw)]
    secrets += [pem, pem.strip(), pem.replace(b"\n", b""), pem.splitlines()[1], ssh, ssh + b"\n"]
    secrets += [
        b"\n" + pem,
        b" " + ssh,
        pem.replace(b"-", b"", 1),
    ]  # what a check for PEM overlooks
    secrets += [key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)]
    for one in (jwk, whole, {"keys": [whole]}):
        secrets += [json.dumps(one).encode(), json.dumps(one, separators=(",", ":")).encode()]
    return {
        f"{alg} by public key, form {n}": forge.hashed(alg, secret)
        for alg in ("HS256", "HS384", "HS512")
        for n, secret in enumerate(secrets)
    }


def test_I2_the_public_key_is_no_secret_in_any_form(program, forge):
    tokens = public_as_secret(forge)
    jwks = program.get("/auth/jwks.json")
    tokens |= {alg: forge.hashed(alg, jwks.content) for alg in ("HS256", "HS512")}
    assert unb64(jwks.json()["keys"][0]["x"]) == forge.public.public_bytes(
        Encoding.Raw, PublicFormat.Raw
    )
    assert let_through(program.client, tokens) == {}
    assert program.signed_in


def test_I2_the_published_key_is_the_public_half_and_nothing_else(house, program):
    published = program.get("/auth/jwks.json").json()
    assert [set(key) for key in published["keys"]] == [{"kty", "crv", "x", "kid", "use", "alg"}]
    seeds = Keys(SECRET).signing_seeds.values()
    text = program.get("/auth/jwks.json").text + program.get("/openapi.json").text
    assert not any(b64(seed) in text or seed.hex() in text for seed in seeds)
    assert SECRET not in text


# ---- I3: what the header says of the key
KIDS = ["", " ", "../../../../dev/null", "/dev/null", "..\\..\\secret", "/etc/passwd"]
KIDS += ["file:///dev/null", "http://169.254.169.254/latest", "https://evil.example/key"]
KIDS += [
    "' or 1=1 --",
    "x' union select 'key' --",
    "1; drop table sessions",
    "|id",
    "$(id)",
    "{{7*7}}",
]
KIDS += ["0" * 12, "deadbeefcafe", "__proto__", "\0", "é", "\ud800", "k" * 10_000, "None", "null"]
KIDS += [None, 0, 1, 1.5, True, [], {}, [[]], {"a": 1}]


def odd_headers(forge):
    tokens, good = {}, forge.header["kid"]
    near = [good + " ", good.upper() + "A", good + "\0", good[:-1], [good], {good: good}]
    for kid in KIDS + near:
        name = str(kid)[:30]
        tokens[f"kid {name!r}, signed"] = forge.heads(kid=kid)
        tokens[f"kid {name!r}, by nothing"] = forge.hashed("HS512", b"", kid=kid)
        written = str(kid).encode("utf-8", "surrogatepass")
        tokens[f"kid {name!r}, by itself"] = forge.hashed("HS512", written, kid=kid)
    tokens["no kid"] = forge.signed({"alg": "EdDSA", "typ": "at+jwt"})
    raw = forge.stranger.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    theirs = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "kid": good}
    extras = [
        {"jku": "https://evil.example/jwks.json"},
        {"jku": f"{BASE_URL}/auth/jwks.json"},
        {"jku": "file:///dev/null"},
        {"x5u": "https://evil.example/cert.pem"},
        {"jwk": theirs},
        {"jwk": None},
        {"x5c": ["MIIB"]},
        {"x5t": "AA"},
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": None},
        {"crit": ["b64"], "b64": False},
        {"crit": ["http://example.invalid/UNDEFINED"], "http://example.invalid/UNDEFINED": True},
        {"b64": True},
        {"zip": "DEF"},
        {"cty": "JWT"},
        {"enc": "A256GCM"},
        {"nonce": "1"},
        {"ALG": "none"},
    ]
    for extra in extras:
        for whose, key in (("ours", forge.key), ("theirs", forge.stranger)):
            tokens[f"{json.dumps(extra)[:50]} by {whose}"] = forge.made(
                key.sign, forge.header | extra
            )
    whole = json.dumps(forge.header)
    texts = ["", "{", "[]", "{}", "null", "1", '"EdDSA"', whole + "x", "[" * 200]
    texts += [whole.replace('"EdDSA"', '"EdDSA", "alg": "none"'), whole.replace("}", ', "a": NaN}')]
    return tokens | {f"header {text[:60]}": forge.signed(text) for text in texts}


def test_I3_the_header_names_a_key_of_ours_and_nothing_else(program, forge):
    assert let_through(program.client, odd_headers(forge)) == {}
    assert program.signed_in


def test_I3_no_header_makes_us_open_a_file_or_a_connection(program, forge, monkeypatch):
    tokens, reached = odd_headers(forge), []
    assert program.signed_in  # whatever is read once is read

    def hear(name):
        def heard(*args, **_):
            reached.append((name, args))
            raise OSError(name)

        return heard

    monkeypatch.setattr("builtins.open", hear("open"))
    monkeypatch.setattr("os.open", hear("os.open"))
    monkeypatch.setattr("io.open", hear("io.open"))
    monkeypatch.setattr(socket.socket, "connect", hear("connect"))
    monkeypatch.setattr(socket, "getaddrinfo", hear("getaddrinfo"))
    statuses = {show(program.client, f"Bearer {token}").status_code for token in tokens.values()}
    monkeypatch.undo()
    assert statuses == {401} and reached == []


# ---- I4: other spellings, other claims, tokens of other kinds and places
def other_spellings(forge):
    token, last = forge.token, forge.token[-1]
    head, body, signature = token.split(".")
    chars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    tokens = {f"last character {c}": token[:-1] + c for c in chars if c != last}
    for blank in (" ", "\t", "\n", "\r\n", "\0", "\xa0", "\u200b", "%20", "%00", "+"):
        tokens |= {
            f"{blank!r} behind": token + blank,
            f"{blank!r} before": blank + token,
            f"{blank!r} inside": token[:-20] + blank + token[-20:],
            f"{blank!r} in the claims": f"{head}.{body[:9]}{blank}{body[9:]}.{signature}",
        }
    raw = unb64(signature)
    twisted = raw[:32] + (int.from_bytes(raw[32:], "little") + ORDER).to_bytes(32, "little")
    tokens |= {
        "no signature": forge.named,
        "an empty one": f"{forge.named}.",
        "another's": f"{forge.named}.{forge.heads(typ='JWT').rpartition('.')[2]}",
        "half of it": token[:-43],
        "S + L": f"{forge.named}.{b64(twisted)}",
        "padding": token + "==",
        "padding everywhere": "==.".join((head, body, signature)) + "==",
        "a part more": token + ".",
        "two parts more": f"{token}.a.b",
        "a part before": "." + token,
        "no claims": f"{head}..{signature}",
        "no header": f".{body}.{signature}",
        "twice": token + token,
        "twice, with a comma": f"{token},{token}",
        "quoted": f'"{token}"',
        "in brackets": f"<{token}>",
        "as JSON": json.dumps({"protected": head, "payload": body, "signature": signature}),
        "in upper case": token.upper(),
        "backwards": token[::-1],
        "wide digits": token.translate(str.maketrans("0123456789", "０１２３４５６７８９")),
        "the other alphabet": token.replace("-", "+").replace("_", "/") + "+",
        "nothing": "",
        "a dot": ".",
        "dots": "..",
        "long": "a" * MAX_TOKEN + token,
        "very long": f"{head}.{'a' * 60_000}.{signature}",
    }
    return tokens


def other_claims(forge, bob):
    """Each signed with the real key. `bob` is the Forge of somebody else's token."""
    tokens = {}
    for name, value in forge.claims.items():
        rest = {other: v for other, v in forge.claims.items() if other != name}
        tokens[f"no {name}"] = forge.signed(claims=rest)
        tokens[f"{name.upper()} for {name}"] = forge.signed(claims=rest | {name.upper(): value})
        for odd in (1.5, True, False, [], {}, [value], {"": value}, [None]):
            tokens[f"{name} {odd!r}"] = forge.says(**{name: odd})
        tokens[f"{name} 0"] = forge.says(**{name: 0})
        if name != "tenant":
            tokens[f"{name} null"] = forge.says(**{name: None})
            tokens[f"{name} twice, the last null"] = forge.signed(
                claims=json.dumps(forge.claims)[:-1] + f', "{name}": null}}'
            )
    for name in ("iss", "aud", "sub", "sid"):
        value = forge.claims[name]
        for odd in ("", value + " ", " " + value, value[:-1], value + "a", value.upper(), "%", "*"):
            tokens[f"{name} {odd!r}"] = forge.says(**{name: odd})
    theirs = bob.claims
    tokens |= {
        "somebody else's session": forge.says(sid=theirs["sid"]),
        "somebody else": forge.says(sub=theirs["sub"]),
        "a tenant that is not": forge.says(tenant="0" * 32),
        "a tenant like no id": forge.says(tenant="' or 1=1 --"),
        "a claim more": forge.says(admin=True),
        "two roles": forge.says(roles=["admin"]),
        "bound to another key": forge.says(cnf={"jkt": "AA"}),
        "a proto": forge.says(__proto__={"role": "admin"}),
        "two subjects": forge.signed(
            claims=json.dumps(forge.claims)[:-1] + f', "sub": "{theirs["sub"]}"}}'
        ),
    }
    whole = json.dumps(forge.claims)
    texts = ["", "{", "[]", "{}", "null", "1", '"x"', f"[{whole}]", whole + "x"]
    texts += ["[" * 1000, whole.replace("}", ', "x": NaN}')]
    tokens |= {f"claims {text[:40]}": forge.signed(claims=text) for text in texts}
    kinds = ("JWT", "jwt", "AT+JWT", "at+JWT", "application/at+jwt", "rt+jwt", "id+jwt", "at+jwt ")
    kinds += ("", "dpop+jwt", "logout+jwt", None, 1, True, [], ["at+jwt"], {})
    tokens |= {f"typ {typ!r}": forge.heads(typ=typ) for typ in kinds}
    tokens["no typ"] = forge.signed({"alg": "EdDSA", "kid": forge.header["kid"]})
    return tokens


def of_elsewhere(forge):
    """Made as we make them, by somebody else."""
    user, session = forge.claims["sub"], forge.claims["sid"]
    places = {
        "another key": (OTHER, BASE_URL),
        "another key that begins alike": (SECRET + "0", BASE_URL),
        "another origin": (SECRET, "https://staging.vestibule.test"),
        "the same name over http": (SECRET, "http://vestibule.test"),
        "another port": (SECRET, f"{BASE_URL}:8443"),
        "both": (OTHER, "https://staging.vestibule.test"),
    }
    tokens = {}
    for name, (secret, origin) in places.items():
        made = AccessTokens(Keys(secret), origin, 600)
        tokens[name] = made.issue(user, session, "admin", "", forge.claims["iat"])
    theirs = Ed25519PrivateKey.from_private_bytes(Keys(OTHER).signing_seeds[Keys(OTHER).current])
    return tokens | {"another key under the name of ours": forge.made(theirs.sign)}


@pytest.fixture
def bob(house):
    program = house.program()
    program.sign_in(house.add(BOB).address)
    return Forge(program.access_token)


def test_I4_one_token_has_one_spelling(program, forge):
    tokens = other_spellings(forge)
    assert len(tokens) > 100 and forge.token not in tokens.values()
    assert let_through(program.client, tokens) == {}
    assert program.signed_in


def test_I4_each_claim_must_be_there_and_be_what_it_was(program, forge, bob):
    assert let_through(program.client, other_claims(forge, bob)) == {}
    assert program.signed_in
    # The forge is not at fault: what it signs without a change is good.
    assert show(program.client, f"Bearer {forge.signed()}").status_code == 200


def test_I4_what_a_token_says_of_the_role_gives_no_right(house, program, forge):
    @house.app.get("/api/admins", before=admin_required)
    def admins(auth):
        return {"ok": True}

    token = forge.says(role="admin")
    me = show(program.client, f"Bearer {token}").json()
    assert me["user"]["role"] == "user"
    assert show(program.client, f"Bearer {token}", path="/api/admins").status_code == 403


def test_I4_a_token_of_another_environment_is_none(program, forge):
    assert let_through(program.client, of_elsewhere(forge)) == {}
    assert program.signed_in


def test_I4_what_is_for_something_else_is_no_access_token(house, program, forge):
    program.ask(ADA)
    code = program.read_code()
    link = house.mailbox.latest_link(ADA).rpartition("#")[2]
    door = house.door()
    door.sign_in(ADA)
    held = [program.refresh_token, program.device_secret, program.challenge, code, link]
    held += [door.cookie("session"), door.cookie("device")]
    held += program.refresh_token.split(".") + list(forge.claims.values()) + [SECRET]
    tokens = {str(n): str(value) for n, value in enumerate(held)}
    # And one that looks like the right one.
    head = forge.token.partition(".")[0]
    for n, value in enumerate(held):
        tokens[f"{n} as claims"] = f"{head}.{b64(str(value).encode())}.{forge.signature}"
    assert let_through(program.client, tokens) == {}


def test_I4_an_access_token_or_any_other_is_no_refresh_token(house, program, forge):
    program.ask(ADA)
    code = program.read_code()
    link = house.mailbox.latest_link(ADA).rpartition("#")[2]
    held = [forge.signature, forge.claims["sid"], program.device_secret, program.challenge, code]
    held += [link, forge.token[:200], forge.named[:200], ""]
    answers = {code_of(at(house, program).refresh(value)) for value in held if value}
    assert answers == {INVALID}
    assert program.refresh().status_code == 200


# ---- I5: times
def odd_times(forge):
    tokens = {}
    for name in ("iat", "nbf", "exp"):
        value = forge.claims[name]
        for odd in (float(value), value + 0.5, str(value), True, None, [value], {}, "", "never"):
            tokens[f"{name} {odd!r}"] = forge.says(**{name: odd})
        for text in ("1e400", "-1e400", f"{value}e0", f"{value}.0", "NaN", "Infinity", "-0.0"):
            tokens[f"{name} {text}"] = forge.writes(name, text)
    for name, huge in product(("iat", "nbf"), (2**31 - 1, 2**53, 2**64, 10**300)):
        tokens[f"{name} {huge:.0e}"] = forge.says(**{name: huge})
    now = forge.claims["iat"]
    tokens |= {f"exp {past}": forge.says(exp=past) for past in (0, -1, -(2**64), now - 1, now)}
    return tokens


def test_I5_times_are_whole_numbers_and_no_others(program, forge):
    assert let_through(program.client, odd_times(forge)) == {}
    assert program.signed_in


def test_I5_a_token_ends_to_the_second(house, program, forge, clock):
    assert (forge.claims["iat"], forge.claims["exp"]) == (START, START + 600)
    for now, status in ((599, 200), (599.9, 200), (600, 401), (601, 401), (631, 401)):
        clock.now = START + now
        assert program.get("/auth/me").status_code == status, now
    # One that was read before, and is remembered, ends as well.
    clock.now = START + 10 * DAY
    assert not program.signed_in


def test_I5_a_clock_that_is_thirty_seconds_behind_is_forgiven_and_no_more(program, forge, clock):
    for early, status in ((0, 200), (30, 200), (31, 401), (600, 401)):
        for names in (("iat", "nbf"), ("nbf",)):
            later = dict.fromkeys(names, START + early)
            token = forge.says(**later, exp=START + 1200)
            assert show(program.client, f"Bearer {token}").status_code == status, (names, early)
    clock.advance(-31)  # the very token of before, on a clock that went back too far
    assert not program.signed_in
    clock.advance(1)
    assert program.signed_in


@pytest.mark.parametrize(
    ("name", "value"),
    [("exp", 2**53), ("exp", 10**300), ("exp", START + 3601), ("iat", -1), ("nbf", -1), ("iat", 0)],
)
def test_I5_a_life_that_we_never_give_is_401(program, forge, name, value):
    assert show(program.client, f"Bearer {forge.says(**{name: value})}").status_code == 401


@pytest.mark.parametrize("odd", ["\0", "\ud800", "", "0" * 31, "0" * 33, "A" * 32])
def test_I4_an_id_that_is_none_is_401(program, forge, odd):
    for name in ("sid", "sub"):
        token = forge.says(**{name: odd})
        assert show(program.client, f"Bearer {token}").status_code == 401, name


def test_I4_a_claim_twice_is_401(program, forge):
    claims = '{"sub": "x", ' + json.dumps(forge.claims)[1:]
    assert show(program.client, f"Bearer {forge.signed(claims=claims)}").status_code == 401


def test_I7_guards_say_which_scheme(house, program):
    @house.app.get("/api/whoami", before=signed_in)
    def whoami(auth):
        return {}

    program.access_token = ""
    assert program.get("/api/whoami").headers["www-authenticate"] == "Bearer"


# ---- I6: who made it, and for whom
def test_I6_issuer_and_audience_are_equal_or_nothing(program, forge):
    whole, host = BASE_URL, BASE_URL.removeprefix("https://")
    odd = [f"{whole}.evil", f"{whole}/", f"{whole}:443", f"{whole}@evil.example", f"{whole}#", host]
    odd += [
        f"https://evil.example/{whole}",
        f"https://evil.{host}",
        whole[:-1],
        whole[8:],
        whole[0],
    ]
    odd += [whole.upper(), f"{whole}\0", f" {whole}", f"{whole}\n", whole.replace("https", "http")]
    odd += ["", "*", ".*", "https://*", "null", "e"]
    odd += [[whole], [whole, "https://evil.example"], [], {whole: 1}, {"": whole}, [[whole]], 0]
    tokens = {}
    for value in odd:
        tokens[f"iss {value!r}"] = forge.says(iss=value)
        tokens[f"aud {value!r}"] = forge.says(aud=value)
        tokens[f"both {value!r}"] = forge.says(iss=value, aud=value)
    assert let_through(program.client, tokens) == {}
    assert program.signed_in


# ---- I7: where a token stands
def test_I7_a_token_counts_in_the_authorization_header_and_nowhere_else(program):
    token, client = program.access_token, program.client
    nothing = told(client.get("/auth/me"))
    names = ("access_token", "token", "bearer", "Authorization", "authorization", "id_token")
    wrong = {}
    for name, value in product(names, (token, f"Bearer {token}")):
        wrong[f"query {name}"] = client.get("/auth/me", params={name: value})
        wrong[f"cookie {name}"] = client.get("/auth/me", headers={"Cookie": f"{name}={value}"})
    for name in ("session", "__Host-session", "__Host-access_token", "jwt"):
        wrong[f"cookie {name}"] = client.get("/auth/me", headers={"Cookie": f"{name}={token}"})
    for name in ("X-Authorization", "X-Access-Token", "X-Forwarded-Authorization", "Cookie2"):
        wrong[name] = client.get("/auth/me", headers={name: f"Bearer {token}"})
    wrong["proxy"] = client.get("/auth/me", headers={"Proxy-Authorization": f"Bearer {token}"})
    assert {name: told(a) for name, a in wrong.items() if told(a) != nothing} == {}
    nothing = told(client.post("/auth/logout"))
    sent = [
        client.post("/auth/logout", data={"access_token": token}),
        client.post("/auth/logout", json={"access_token": token}),
        client.post(f"/auth/logout?access_token={token}"),
        client.post("/auth/tenant", json={"tenant": "0" * 32, "access_token": token}),
        client.post("/auth/logout", content=f"Bearer {token}"),
    ]
    assert {told(answer) for answer in sent} == {nothing}
    assert program.signed_in


def test_I7_one_header_of_the_right_kind(program):
    token, client = program.access_token, program.client
    nothing = told(client.get("/auth/me"))
    basic = [base64.b64encode(text.encode()).decode() for text in (f":{token}", f"{token}:", token)]
    odd = [token, "Bearer", "Bearer ", f"Bearer  {token}", f"Bearer\t{token}", f" Bearer {token}"]
    odd += [f"Bearer {token},Bearer {token}", f"Bearer {token} {token}", f"Bearer: {token}"]
    odd += [f'Bearer "{token}"', f"Bearer={token}", f"Bearer{token}"]
    odd += [f"Bearer access_token={token}", f"Bearer\xa0{token}", f"Bеarer {token}"]
    odd += [f"{kind} {token}" for kind in ("Basic", "Token", "DPoP", "JWT", "Digest", "Bearer2")]
    odd += [f"Basic {one}" for one in basic]
    assert {one: a for one in odd if (a := told(show(client, one))) != nothing} == {}
    good, bad = f"Bearer {token}", "Bearer x"
    pairs = ((good, good), (good, bad), (bad, good), (good, ""), ("", good), (good, "Basic eA=="))
    for pair in pairs:
        headers = [("Authorization", value) for value in pair]
        assert told(client.get("/auth/me", headers=headers)) == nothing
    for scheme in ("bearer", "BEARER"):  # RFC 9110 §11.1
        assert show(client, f"{scheme} {token}").status_code == 200


def test_I7_an_access_token_opens_no_page(house, program):
    admin = house.program()
    admin.sign_in(ADMIN)
    id, before = house.auth.people.by_address(ADA).id, snapshot(house.db)
    bearer, door, asked = {"Authorization": f"Bearer {admin.access_token}"}, house.door(), 0
    forms = {"email": BOB, "role": "admin", "name": "x"}
    for path, methods in walk(house.app):
        if path.startswith(house.auth.programs) or path in ("/create_code", "/verify_code"):
            continue
        url = re.sub(r"\{[^}]+\}", id, path)
        for method in sorted(methods & {"GET", "POST"}):
            data = forms if method == "POST" else None
            plain = door.client.request(method, url, data=data, headers=OURS)
            token = door.client.request(method, url, data=data, headers=OURS | bearer)
            where = (method, url)
            assert token.status_code == plain.status_code, where
            assert token.headers.get("location") == plain.headers.get("location"), where
            assert token.headers.get("set-cookie") == plain.headers.get("set-cookie"), where
            assert ADMIN not in token.text, where
            asked += 1
    assert asked > 10 and snapshot(house.db) == before
    for path in ("/dashboard", "/admin"):
        assert door.get(path, headers=bearer).headers["location"] == f"/login?next={path}"


def test_I7_a_cookie_opens_nothing_for_programs(house, program):
    @house.app.get("/api/whoami", before=signed_in)
    def whoami(auth):
        return {"address": auth.address}

    door = house.door()
    door.sign_in(ADMIN)
    cookies = dict(door.client.cookies.items())
    assert len(cookies) >= 2
    for method, path in BEARER:
        answer = door.client.request(method, path, headers=OURS)
        assert code_of(answer) == INVALID and "set-cookie" not in answer.headers
    answer = door.get("/api/whoami", headers={"Accept": "text/html"})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    # And as a token: with its own name, and as it is.
    for value in cookies.values():
        for method, path in BEARER:
            assert code_of(show(door.client, f"Bearer {value}", method, path)) == INVALID
    assert door.signed_in


def test_I7_nothing_that_a_program_holds_is_a_cookie(house, program):
    program.ask(ADA)
    code, secret = program.read_code(), program.device_secret
    held = [program.access_token, *program.access_token.split("."), program.refresh_token]
    held += [*program.refresh_token.split("."), secret, secret.removeprefix("app_")]
    held += [secret[:43], secret[4:], program.challenge, digest(secret), digest(secret)[:43]]
    assert any(len(value) == 43 for value in held)  # as long as a cookie of ours
    names = ("__Host-session", "session", "__Host-signin", "signin", "__Host-device")
    for value, name in product(held, names):
        thief = house.door()
        headers = OURS | {"Cookie": f"{name}={value}"}
        assert thief.get("/dashboard", headers=headers).status_code == 303, name
        assert thief.get("/verify_code", headers=headers).status_code == 303, name
        answer = thief.client.post("/verify_code", data={"code": code}, headers=headers)
        assert answer.status_code in (410, 422) and "set-cookie" not in answer.headers, name
    assert program.enter(code).status_code == 200


def test_I7_a_browsers_cookie_is_no_device_secret(house, ada):
    door, thief = house.door(), house.program()
    door.ask(ada)
    code, link = door.read_code(), house.mailbox.latest_link(ada)
    (challenge,) = house.rows("challenges")
    cookie = door.cookie("signin")
    for secret in (cookie, f"app_{cookie}", f"__Host-signin={cookie}", challenge["browser"]):
        thief.challenge, thief.device_secret = challenge["id"], secret
        assert code_of(thief.enter(code)) == (401, "unknown_challenge")
        assert code_of(thief.open_link(link)) == (401, "unknown_challenge")
    assert house.rows("challenges")[0]["total_tries"] == 0
    assert door.enter(code).status_code == 303 and door.signed_in


# ---- I8: what ended is over at the next call, in every process
@pytest.fixture
def club(house, ada):
    rules = house.auth.organisations
    found = rules.create(None, "Chess club", ADMIN, Source())
    rules.join(None, found.id, ADA, "editor", Source())
    return found


@pytest.fixture
def roles(house):
    house.db.q("insert into roles (name) values ('editor') on conflict do nothing")


def everything_refused(house, program):
    """Nothing that this program holds works in front of this house."""
    mine = at(house, program)
    answers = [mine.get("/auth/me"), mine.post("/auth/tenant", tenant="0" * 32)]
    answers += [mine.post("/auth/logout"), mine.refresh()]
    return {code_of(answer) for answer in answers} == {INVALID}


def leave_by_api(house, program):
    assert at(house, program).post("/auth/logout").status_code == 204


def leave_everywhere(house, program):
    door = house.door()
    door.sign_in(program.address)
    assert door.post("/logout_everywhere").status_code == 303


def disable(house, program):
    door, id = house.door(), house.auth.people.by_address(program.address).id
    door.sign_in(ADMIN)
    assert door.post(f"/admin/people/{id}/disable").status_code == 303


def delete(house, program):
    people = house.auth.people
    people.delete(None, people.by_address(program.address).id, Source())


def disable_and_enable(house, program):
    people, id = house.auth.people, house.auth.people.by_address(program.address).id
    people.disable(None, id, Source())
    people.enable(None, id, Source())


def delete_and_add(house, program):
    delete(house, program)
    house.add(program.address)


def use_an_old_refresh_token(house, program):
    mine = at(house, program)
    mine.refresh()
    house.clock.advance(31)
    assert code_of(mine.refresh(program.refresh_token)) == REUSED


ENDS = (leave_by_api, leave_everywhere, disable, delete, disable_and_enable, delete_and_add)


@pytest.mark.parametrize("end", [*ENDS, use_an_old_refresh_token], ids=lambda f: f.__name__)
def test_I8_what_ended_in_one_process_is_over_in_the_other(house, twin, program, end):
    stays = house.program()
    stays.sign_in(ADMIN)
    for _ in range(3):  # read and remembered by both
        assert program.signed_in and at(twin, program).signed_in
    end(twin, program)
    assert everything_refused(house, program) and everything_refused(twin, program)
    assert stays.signed_in and at(twin, stays).signed_in


def test_I8_the_pages_of_the_app_forget_at_once_too(house, twin, program):
    for each in (house, twin):

        @each.app.get("/api/whoami", before=signed_in)
        def whoami(auth):
            return {"address": auth.address}

    assert program.get("/api/whoami").json() == {"address": ADA}
    disable(twin, program)
    assert program.get("/api/whoami").status_code == 401
    assert at(twin, program).get("/api/whoami").status_code == 401


def test_I8_a_role_counts_at_the_very_next_call(house, twin, program):
    for each in (house, twin):

        @each.app.get("/api/admins", before=admin_required)
        def admins(auth):
            return {"ok": True}

    people, id = house.auth.people, house.auth.people.by_address(ADA).id
    both = (program, at(twin, program))
    for role, status in (("admin", 200), ("user", 403), ("admin", 200)):
        twin.auth.people.set_role(None, id, role, Source())
        assert [each.get("/api/admins").status_code for each in both] == [status, status]
        assert [each.get("/auth/me").json()["user"]["role"] for each in both] == [role, role]
    assert people.by_address(ADA).role == "admin"


@pytest.mark.parametrize("how", ["leave", "delete"])
def test_I8_a_token_for_an_organisation_ends_with_the_membership(house, twin, roles, club, how):
    program = house.program()
    program.sign_in(ADA)
    both = (program, at(twin, program))
    assert [each.get("/auth/me").json()["user"]["role"] for each in both] == ["editor", "editor"]
    rules = twin.auth.organisations
    rules.join(None, club.id, ADA, "admin", Source())
    assert [each.get("/auth/me").json()["user"]["role"] for each in both] == ["admin", "admin"]
    if how == "leave":
        rules.leave(None, club.id, ADA, Source())
    else:
        rules.delete(None, club.id, Source())
    for each in both:
        assert code_of(each.get("/auth/me")) == INVALID
        assert code_of(each.post("/auth/tenant", tenant=club.id)) == INVALID
    # The person stays, outside of it.
    user = program.refresh().json()["user"]
    assert (user["tenant"], user["role"]) == (None, "user")
    assert code_of(program.post("/auth/tenant", tenant=club.id)) == (404, "tenant_unknown")


class Twin(Server):
    """A second process under the name of the first, as behind a load balancer."""

    def __init__(self, env, folder, first):
        self.first = first
        super().__init__(env, folder)

    def _listen_on(self, port, env):
        super()._listen_on(port, env)
        self.env["BASE_URL"] = self.first.url
        self.client.headers["Host"] = urlsplit(self.first.url).netloc


@pytest.fixture
def beside(database_url, tmp_path):
    """beside(first, SECRET_KEY=…) → Twin."""
    twins = []

    def start(first, **more):
        twins.append(Twin(environment(database_url, tmp_path, **more), tmp_path, first))
        return twins[-1].start()

    yield start
    for each in twins:
        each.kill()


class Phone:
    """A program in front of several processes."""

    def __init__(self, sink, *servers):
        self.sink, self.servers, self.used = sink, servers, 0
        self.access = self.refresh_token = ""

    def post(self, path, body, at=0):
        headers = {"Authorization": f"Bearer {self.access}"} if self.access else {}
        return self.servers[at].client.post(path, json=body, headers=headers)

    def me(self, at=0):
        headers = {"Authorization": f"Bearer {self.access}"}
        return self.servers[at].client.get("/auth/me", headers=headers)

    def sign_in(self, email, number=1):
        self.asked = self.post("/auth/login", {"email": email}).json()
        self.code = self.sink.code(email, number)
        body = {name: self.asked[name] for name in ("challenge", "device_secret")}
        return self.keep(self.post("/auth/verify", body | {"code": self.code}))

    def refresh(self, at=0, token=None):
        return self.post("/auth/refresh", {"refresh_token": token or self.refresh_token}, at)

    def keep(self, answer):
        assert answer.status_code == 200, answer.text
        given = answer.json()
        self.access, self.refresh_token = given["access_token"], given["refresh_token"]
        return answer


def test_I8_I9_real_processes_agree_at_once(serve, beside, sink, build):
    here = serve(SMTP_PORT=sink.port, SIGNUP="open")
    there, desk = beside(here, SMTP_PORT=sink.port, SIGNUP="open"), build()
    phones = [Phone(sink, here, there) for _ in range(3)]
    for n, phone in enumerate(phones):
        phone.sign_in(f"p{n}@example.org")
        assert [phone.me(at).status_code for at in (0, 1)] == [200, 200]
    assert phones[0].post("/auth/logout", {}, at=1).status_code == 204
    people = desk.auth.people
    people.disable(None, people.by_address("p1@example.org").id, Source())
    for phone in phones[:2]:
        assert [code_of(phone.me(at)) for at in (0, 1)] == [INVALID, INVALID]
        assert [code_of(phone.refresh(at)) for at in (0, 1)] == [INVALID, INVALID]
    # Sixteen at once with one token: one successor.
    phone, first = phones[2], phones[2].refresh_token
    answers = together(16, lambda n: phone.refresh(at=n % 2))
    assert {answer.status_code for answer in answers} == {200}
    given = {answer.json()["refresh_token"] for answer in answers}
    assert len(given) == 1 and given != {first}
    (phone.refresh_token,) = given
    second = phone.refresh_token
    assert phone.keep(phone.refresh(at=1)).json()["refresh_token"] != second
    # And once its successor was used, the first one ends it all.
    assert code_of(phone.refresh(at=0, token=first)) == REUSED
    assert [code_of(phone.refresh(at)) for at in (0, 1)] == [INVALID, INVALID]
    assert [code_of(phone.me(at)) for at in (0, 1)] == [INVALID, INVALID]
    assert len(reuses(desk)) == 1


# ---- I9: a refresh token that was copied
def reuses(house):
    kind = "authn_token_reuse"
    return [row for row in house.rows("events") if row["kind"] == kind]


def notices(house, address=ADA):
    house.outbox.drain()
    return [m for m in house.mailbox.to(address) if "signed out" in m.subject]


def test_I9_an_old_refresh_token_ends_the_session_for_everybody(house, twin, program):
    first, access = program.refresh_token, program.access_token
    program.refresh()
    second = program.refresh_token
    program.refresh()
    third, before = program.refresh_token, len(house.rows("events"))
    assert len({first, second, third}) == 3 and program.signed_in
    thief = twin.program()
    assert code_of(thief.refresh(first)) == REUSED
    for token in (first, second, third):
        assert code_of(house.program().refresh(token)) == INVALID
        assert code_of(twin.program().refresh(token)) == INVALID
    for token in (access, program.access_token):
        assert code_of(show(thief.client, f"Bearer {token}")) == INVALID
    assert everything_refused(house, program)
    (event,) = reuses(house)
    assert event["subject"] == ADA and len(house.rows("events")) == before + 1
    assert event["network"] == "192.0.2.0/24" and event["request_id"]
    for part in (first, *first.split(".")[2:], program.access_token):
        assert part not in repr(house.rows("events"))
    assert [m.to for m in notices(house)] == [ADA]
    assert house.rows("sessions") == []


def test_I9_the_thief_who_was_first_is_out_when_the_owner_comes(house, twin, program):
    thief = at(twin, program)
    assert thief.refresh().status_code == 200
    assert thief.refresh().status_code == 200 and thief.signed_in
    assert code_of(program.refresh()) == REUSED  # the owner, with the only one they have
    assert code_of(thief.refresh()) == INVALID and not thief.signed_in
    assert len(reuses(house)) == 1 and len(notices(house)) == 1


def test_I9_an_unused_copy_is_noticed_after_the_retry_window(house, twin, program, clock):
    thief = at(twin, program)
    program.refresh()
    clock.advance(31)
    assert code_of(thief.refresh()) == REUSED
    assert everything_refused(house, program)


def test_I9_one_session_ends_and_no_other(house, program, bob):
    other, door = house.program(), house.door()
    other.sign_in(ADA)
    door.sign_in(ADA)
    old = program.refresh_token
    program.refresh()
    program.refresh()
    assert code_of(program.refresh(old)) == REUSED and not program.signed_in
    assert other.signed_in and door.signed_in
    assert other.refresh().status_code == 200
    assert show(other.client, f"Bearer {bob.token}").status_code == 200


def test_I9_people_are_told_once_a_day(house, ada, clock):
    def copied():
        program = house.program()
        program.sign_in(ada)
        old = program.refresh_token
        program.refresh()
        program.refresh()
        assert code_of(program.refresh(old)) == REUSED

    for n in range(3):
        copied()
        assert len(reuses(house)) == n + 1 and len(notices(house)) == 1
    clock.advance(DAY)
    copied()
    assert len(reuses(house)) == 4 and len(notices(house)) == 2


def test_I9_the_notice_names_no_token_and_holds_no_link(house, program):
    old = program.refresh_token
    program.refresh()
    program.refresh()
    program.refresh(old)
    (letter,) = notices(house)
    for text in (letter.subject, letter.text, letter.html):
        assert "/link#" not in text and not any(part in text for part in old.split(".")[::2])


def test_I9_sixteen_old_ones_at_once_are_one_event_and_one_mail(house, twin, program):
    old = program.refresh_token
    program.refresh()
    program.refresh()
    clients = [at(house if n % 2 else twin, program) for n in range(16)]
    answers = [code_of(a) for a in together(16, lambda n: clients[n].refresh(old))]
    assert REUSED in answers and set(answers) <= {REUSED, INVALID}
    assert len(reuses(house)) == 1 and len(notices(house)) == 1
    assert house.rows("sessions") == []


# ---- I10: an answer that was lost
def test_I10_a_lost_answer_is_given_again_for_thirty_seconds(house, twin, program, clock):
    first = program.refresh_token
    second = at(house, program).refresh(first).json()["refresh_token"]
    assert second != first
    for wait in (0, 5, 25):  # at 0, 5 and 30 seconds
        clock.advance(wait)
        for where in (house, twin):
            again = at(where, program).refresh(first)
            assert again.status_code == 200 and again.json()["refresh_token"] == second
            assert show(program.client, f"Bearer {again.json()['access_token']}").status_code == 200
    assert reuses(house) == []
    clock.advance(1)
    assert code_of(at(twin, program).refresh(first)) == REUSED
    assert code_of(at(house, program).refresh(second)) == INVALID
    assert len(reuses(house)) == 1


def test_I10_asking_again_does_not_make_the_window_longer(house, program, clock):
    first = program.refresh_token
    for _ in range(5):
        assert at(house, program).refresh(first).status_code == 200
        clock.advance(6)
    assert at(house, program).refresh(first).status_code == 200  # 30
    clock.advance(1)
    assert code_of(at(house, program).refresh(first)) == REUSED


def test_I10_no_answer_is_given_again_once_its_successor_was_used(house, program):
    first = program.refresh_token
    program.refresh()
    program.refresh()
    assert code_of(at(house, program).refresh(first)) == REUSED  # in the very same second
    assert everything_refused(house, program)


def test_I10_the_successor_is_good_after_the_window_too(house, program, clock):
    program.refresh()
    for _ in range(3):
        clock.advance(3600)
        assert program.refresh().status_code == 200 and program.signed_in
    assert reuses(house) == []


def test_I10_sixteen_refreshes_at_once_get_one_successor(house, twin, program):
    clients = [at(house if n % 2 else twin, program) for n in range(16)]
    answers = together(16, lambda n: clients[n].refresh())
    assert [answer.status_code for answer in answers] == [200] * 16
    (successor,) = {answer.json()["refresh_token"] for answer in answers}
    assert successor != program.refresh_token
    tokens = {answer.json()["access_token"] for answer in answers}
    assert len(tokens) == 16  # each of its own
    assert [row["generation"] for row in house.rows("sessions")] == [1]
    assert reuses(house) == [] and program.refresh(successor).status_code == 200


def stored(house):
    """Every value of every row of every table."""
    tables = snapshot(house.db)
    return [v for table in tables for row in house.rows(table) for v in row.values()]


def test_I10_the_database_holds_nothing_of_a_refresh_token(house, program, tmp_path):
    tokens = [program.refresh_token]
    for _ in range(3):
        program.refresh()
        tokens.append(program.refresh_token)
    id, _, _ = tokens[0].split(".")
    keys = Keys(SECRET)
    tokens.append(keys.refresh_token(keys.current, id, 4))  # the one that comes next
    text = repr(stored(house)).encode()
    text += b"".join(path.read_bytes() for path in tmp_path.glob("vestibule.db*"))
    assert id.encode() in text  # the part that is no secret: this looks at the right place
    for token in (*tokens, program.access_token):
        for part in (token, token.rpartition(".")[2], token.rpartition(".")[0]):
            if part.startswith(id) and len(part) < 40:
                continue  # session and generation
            raw = part.encode()
            forms = [raw, unb64(part.rpartition(".")[2]), b64(raw).encode()]
            for name in ("md5", "sha1", "sha256", "sha512"):
                hashed = hashlib.new(name, raw).digest()
                forms += [hashed, hashed.hex().encode(), base64.b64encode(hashed)]
            assert not any(form in text for form in forms), part
            assert digest(part).encode() not in text


def test_I10_no_stored_value_is_a_token(house, program):
    id, generation, _ = program.refresh_token.split(".")
    values = {str(value) for value in stored(house) if value not in ("", None)}
    assert len(values) > 20
    client = house.program().client
    for value in values:
        for token in (
            value,
            f"{id}.{generation}.{value}",
            f"{id}.{value}",
            f"{value}.0.{'A' * 43}",
        ):
            answer = client.post("/auth/refresh", json={"refresh_token": token[:200]})
            assert code_of(answer) == INVALID
        assert code_of(show(client, f"Bearer {value}")) == INVALID
    # And none is the key of one.
    for value in values:
        found = Keys(value)
        made = found.refresh_token(found.current, id, int(generation))
        assert code_of(client.post("/auth/refresh", json={"refresh_token": made})) == INVALID
    assert program.refresh().status_code == 200 and reuses(house) == []


# ---- I11: nothing is for ever
def test_I11_daily_refreshes_end_at_day_ninety(house, program, clock):
    for day in range(1, 90):
        clock.advance(DAY)
        assert program.refresh().status_code == 200, day
    clock.now = START + 90 * DAY - 1
    assert program.refresh().status_code == 200 and program.signed_in
    clock.advance(1)
    assert not program.signed_in  # its access token has nine minutes left
    assert code_of(program.refresh()) == INVALID
    program.sign_in(ADA)
    assert program.signed_in


def test_I11_thirty_days_unused_are_the_end(house, program, clock):
    clock.advance(30 * DAY - 1)
    assert program.refresh().status_code == 200
    clock.advance(30 * DAY - 1)
    assert program.refresh().status_code == 200  # the use in between counted
    clock.advance(30 * DAY)
    assert code_of(program.refresh()) == INVALID
    assert not program.signed_in and reuses(house) == []


def test_I11_lost_answers_keep_nothing_alive(house, program, clock):
    clock.advance(30 * DAY - 20)
    first = program.refresh_token
    program.refresh()
    clock.advance(30)
    assert at(house, program).refresh(first).status_code == 200
    clock.advance(30 * DAY - 30)  # thirty days after it was used, not after it was asked for again
    assert code_of(program.refresh()) == INVALID


def test_I11_the_settings_are_kept_to(build):
    house = build(REFRESH_TOKEN_EXPIRE_DAYS=0.5, ACCESS_TOKEN_EXPIRE_MINUTES=2.5)
    house.add(ADA)
    program, clock = house.program(), house.clock
    assert program.sign_in(ADA).json()["expires_in"] == 150
    assert Forge(program.access_token).claims["exp"] == START + 150
    clock.advance(149)
    assert program.signed_in
    clock.advance(1)
    assert not program.signed_in
    assert program.refresh().json()["expires_in"] == 150
    session = program.get("/auth/me").json()["session"]
    assert session["expires_at"] - session["created_at"] == 1.5 * DAY
    clock.advance(DAY / 2 - 1)
    assert program.refresh().status_code == 200
    clock.advance(DAY / 2)
    assert code_of(program.refresh()) == INVALID  # unused for too long
    program.sign_in(ADA)
    for _ in range(5):
        clock.advance(DAY / 4)
        assert program.refresh().status_code == 200
    clock.advance(DAY / 4)
    assert code_of(program.refresh()) == INVALID  # a day and a half, however much it was used


# ---- I12: refresh tokens that were moved
def test_I12_parts_of_two_refresh_tokens_make_no_third(house, program):
    other = house.program()
    other.sign_in(house.add(BOB).address)
    first = program.refresh_token.split(".")
    program.refresh()
    mixed = zip(
        first, program.refresh_token.split("."), other.refresh_token.split("."), strict=True
    )
    good = {".".join(first), program.refresh_token, other.refresh_token}
    tokens = [token for parts in product(*mixed) if (token := ".".join(parts)) not in good]
    assert len(tokens) > 8
    id, n, proof = program.refresh_token.split(".")
    odd = [
        f"{id}.{more}.{proof}" for more in ("2", "01", "+1", "1 ", "-1", "1e0", "١", "999999999")
    ]
    odd += [f"{id.upper()}.{n}.{proof}", f"{id}.{n}.{proof}=", f"{id}.{n}.{proof} ", f"{id}.{n}"]
    odd += [f" {id}.{n}.{proof}", f"{id}.{n}.{proof}\n", f"{id}.{n}.", f"{id}..{proof}", proof]
    odd += [f"{id}.{n}.{proof[:-1]}", f"{id}.{n}.{proof}A", f"{id}.{n}.{proof}.{proof}", f"{id}\0"]
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    odd += [f"{id}.{n}.{proof[:-1]}{c}" for c in last if c != proof[-1]]  # one spelling only
    client = house.program().client
    for token in tokens + odd:
        answer = client.post("/auth/refresh", json={"refresh_token": token})
        assert code_of(answer) == INVALID, token
    assert reuses(house) == []  # nobody ends a session by guessing
    assert program.refresh().status_code == 200 and other.refresh().status_code == 200


def test_I12_a_refresh_token_of_another_installation_is_none(house, build, program):
    id, generation, _ = program.refresh_token.split(".")
    theirs = Keys(OTHER)
    made = theirs.refresh_token(theirs.current, id, int(generation))
    assert code_of(at(house, program).refresh(made)) == INVALID
    other = build(clock=house.clock, SECRET_KEY=OTHER)  # even on the same database
    assert code_of(at(other, program).refresh()) == INVALID
    assert program.refresh().status_code == 200 and reuses(house) == []


def test_I12_a_refresh_token_counts_in_its_field_only(house, program):
    token, client = program.refresh_token, house.program().client
    nothing = (422, "invalid_body")
    sent = {"headers": {"Authorization": f"Bearer {token}", "Cookie": f"refresh_token={token}"}}
    assert code_of(client.post("/auth/refresh", json={}, **sent)) == nothing
    assert code_of(client.post(f"/auth/refresh?refresh_token={token}", json={}, **sent)) == nothing
    assert client.post("/auth/refresh", data={"refresh_token": token}).status_code == 415
    assert client.get(f"/auth/refresh?refresh_token={token}").status_code == 405
    for odd in ([token], {"refresh_token": token}, None, 1, True):
        assert code_of(client.post("/auth/refresh", json={"refresh_token": odd})) == nothing
    twice = f'{{"refresh_token": "x", "refresh_token": "{token}"}}'
    kind = {"Content-Type": "application/json"}
    assert code_of(client.post("/auth/refresh", content=twice, headers=kind)) == nothing
    assert program.refresh().json()["refresh_token"].split(".")[1] == "1"


def test_I12_another_persons_bearer_beside_it_changes_nothing(house, program, bob):
    headers = {"Authorization": f"Bearer {bob.token}"}
    body = {"refresh_token": program.refresh_token}
    answer = house.program().client.post("/auth/refresh", json=body, headers=headers)
    assert answer.json()["user"]["email"] == ADA
    assert Forge(answer.json()["access_token"]).claims["sub"] != bob.claims["sub"]


def test_I12_the_organisation_is_read_anew_at_each_refresh(house, twin, roles, club):
    program = house.program()
    rules = twin.auth.organisations

    def said():
        user = program.refresh().json()["user"]
        claims = Forge(program.access_token).claims
        assert (claims["tenant"], claims["role"]) == (user["tenant"], user["role"])
        return user["tenant"], user["role"]

    program.sign_in(ADA)
    assert said() == (club.id, "editor")
    rules.join(None, club.id, ADA, "user", Source())
    assert said() == (club.id, "user")
    rules.leave(None, club.id, ADA, Source())
    assert said() == (None, "user")
    rules.join(None, club.id, ADA, "editor", Source())
    assert said() == (None, "user")  # nobody is put back to work there without asking
    assert program.post("/auth/tenant", tenant=club.id).status_code == 200
    assert said() == (club.id, "editor")
    rules.delete(None, club.id, Source())
    assert said() == (None, "user")


# ---- I13: another secret key
def rotating(build, house, **keys):
    return build(clock=house.clock, mailbox=house.mailbox, **keys)


def test_I13_the_old_keys_tokens_go_on_while_it_is_named(build, house, program):
    old = Forge(program.access_token)
    new = rotating(build, house, SECRET_KEY=OTHER, SECRET_KEY_PREVIOUS=SECRET)
    moved = at(new, program)
    assert moved.signed_in
    kids = [key["kid"] for key in moved.get("/auth/jwks.json").json()["keys"]]
    assert kids == [Keys(OTHER).current, Keys(SECRET).current]  # the current one first
    assert moved.refresh().status_code == 200 and moved.signed_in
    assert Forge(moved.access_token, OTHER).header["kid"] == Keys(OTHER).current
    # The old key is removed: what it made is nothing any more.
    last = rotating(build, house, SECRET_KEY=OTHER)
    assert [key["kid"] for key in last.program().get("/auth/jwks.json").json()["keys"]] == kids[:1]
    assert let_through(last.program().client, {"old": old.token, "anew": old.signed()}) == {}
    assert code_of(at(last, program).refresh(program.refresh_token)) == INVALID
    assert reuses(house) == []
    after = at(last, moved)
    assert after.signed_in and after.refresh().status_code == 200 and after.signed_in


def test_I13_who_did_not_refresh_in_time_signs_in_again(build, house, program):
    last = rotating(build, house, SECRET_KEY=OTHER)
    moved = at(last, program)
    assert not moved.signed_in and code_of(moved.refresh()) == INVALID
    moved.sign_in(ADA)
    assert moved.signed_in and moved.refresh().status_code == 200


def test_I13_a_lost_answer_is_the_same_across_a_rotation(build, house, program):
    new = rotating(build, house, SECRET_KEY=OTHER, SECRET_KEY_PREVIOUS=SECRET)
    for first, again in ((house, new), (new, new)):
        token = program.refresh_token
        made = at(first, program).refresh(token).json()["refresh_token"]
        for _ in range(2):
            assert at(again, program).refresh(token).json()["refresh_token"] == made
        program.refresh_token = made
    last = rotating(build, house, SECRET_KEY=OTHER)
    assert at(last, program).refresh().status_code == 200 and reuses(house) == []


def test_I13_one_key_does_not_sign_for_the_other(build, house, program, forge):
    new = rotating(build, house, SECRET_KEY=OTHER, SECRET_KEY_PREVIOUS=SECRET)
    theirs = at(new, program)
    theirs.refresh()
    newer = Forge(theirs.access_token, OTHER)
    tokens = {
        "the old key under the new name": forge.heads(kid=newer.header["kid"]),
        "the new key under the old name": newer.heads(kid=forge.header["kid"]),
    }
    assert let_through(new.program().client, tokens) == {}
    id, _, proof = program.refresh_token.split(".")
    other = Keys(OTHER).refresh_token(Keys(OTHER).current, id, 0).rpartition(".")[2]
    assert other != proof and theirs.signed_in


def test_I13_a_rotation_step_by_step_loses_nobody(build, house):
    """The new key is made known first, used next, and the old one forgotten last."""
    steps = (
        {"SECRET_KEY": SECRET},
        {"SECRET_KEY": SECRET, "SECRET_KEY_PREVIOUS": OTHER},
        {"SECRET_KEY": OTHER, "SECRET_KEY_PREVIOUS": SECRET},
    )
    houses = [rotating(build, house, **keys) for keys in steps]
    programs = []
    for n in range(4):
        program = house.program()
        program.sign_in(house.add(f"p{n}@example.org").address)
        programs.append(program)
    for pair in ((0, 0), (0, 1), (1, 1), (1, 2), (2, 2)):
        for one, two in (pair, pair[::-1], pair):
            for program in programs:
                moved = at(houses[one], program)
                assert moved.refresh().status_code == 200
                assert at(houses[two], moved).signed_in and at(houses[one], moved).signed_in
                program.access_token, program.refresh_token = (
                    moved.access_token,
                    moved.refresh_token,
                )
    assert reuses(house) == []


def test_I13_real_processes_rotate_under_load(serve, beside, sink):
    more = {"SMTP_PORT": sink.port, "SIGNUP": "open"}
    old = serve(**more)
    live, phones, failed, over = [old], [Phone(sink, old) for _ in range(4)], [], False
    for n, phone in enumerate(phones):
        phone.sign_in(f"p{n}@example.org")

    def use(phone):
        while not over and not failed:
            phone.servers = served = tuple(live)  # whichever is there, as a load balancer does it
            at = phone.used % len(served)
            for answer in (phone.refresh(at), phone.me(at - 1)):
                if answer.status_code != 200:
                    failed.append(answer.text)
            phone.keep(phone.refresh(at))  # the same again, as if the answer had been lost
            phone.used += 1

    def go_on():
        before = [phone.used for phone in phones]
        until(lambda: failed or all(p.used > n + 2 for p, n in zip(phones, before, strict=True)))

    with ThreadPoolExecutor(len(phones)) as pool:
        working = [pool.submit(use, phone) for phone in phones]
        try:
            for current, other in ((SECRET, OTHER), (OTHER, SECRET)):
                keys = {"SECRET_KEY": current, "SECRET_KEY_PREVIOUS": other}
                live.append(beside(old, **more, **keys))
                go_on()  # while both serve
                live[:] = live[-1:]
                go_on()
        finally:
            over = True
    assert failed == [] and [each.result() for each in working] == [None] * len(phones)
    assert {Forge(phone.access, OTHER).header["kid"] for phone in phones} == {Keys(OTHER).current}


# ---- others who verify with the published key alone
@pytest.fixture
def today(build):
    """A house on this machine's time, which is what other services go by."""
    house = build(clock=Clock(int(time.time())))
    house.add(ADA)
    program = house.program()
    program.sign_in(ADA)
    return program


def pyjwt_reads(token, jwks, origin=BASE_URL):
    """What another service writes who has PyJWT and the URL of our keys."""
    key = jwt.PyJWKSet.from_dict(jwks)[jwt.get_unverified_header(token)["kid"]]
    must = ["iss", "aud", "sub", "iat", "exp", "jti"]
    found = jwt.decode_complete(
        token, key, ["EdDSA"], {"require": must}, audience=origin, issuer=origin
    )
    if found["header"]["typ"] != "at+jwt":
        raise jwt.InvalidTokenError("typ")
    return found["payload"]


def test_I13_pyjwt_verifies_with_the_published_keys_alone(today, build):
    jwks, forge = today.get("/auth/jwks.json").json(), Forge(today.access_token)
    claims = pyjwt_reads(today.access_token, jwks)
    me = today.get("/auth/me").json()
    assert (claims["sub"], claims["sid"]) == (me["user"]["id"], me["session"]["id"])
    assert (claims["role"], claims["tenant"]) == ("user", None)
    assert claims["exp"] - claims["iat"] == 600
    now = claims["iat"]
    bad = [forge.heads(typ="JWT"), forge.heads(alg="none"), forge.made(forge.stranger.sign)]
    bad += [forge.says(iss="https://evil.example"), forge.says(aud="https://evil.example")]
    bad += [forge.says(exp=now - 1), forge.says(nbf=now + 600), of_elsewhere(forge)["another key"]]
    bad += [of_elsewhere(forge)["another origin"], *public_as_secret(forge).values()]
    for token in bad:
        with pytest.raises((jwt.PyJWTError, KeyError)):
            pyjwt_reads(token, jwks)


# RFC 9864 prefers the name Ed25519 for what nearly everybody still calls EdDSA.
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
def test_I13_joserfc_verifies_with_the_published_keys_alone(build, house, program, forge):
    def reads(token, jwks, now=START):
        keys = joserfc.jwk.KeySet.import_key_set(jwks)
        found = joserfc.jwt.decode(token, keys, algorithms=["EdDSA"])
        must = {name: {"essential": True} for name in ("sub", "iat", "exp", "jti", "nbf")}
        must |= {name: {"essential": True, "value": BASE_URL} for name in ("iss", "aud")}
        joserfc.jwt.JWTClaimsRegistry(now=now, **must).validate(found.claims)
        if found.header["typ"] != "at+jwt":
            raise JoseError("typ")
        return found.claims

    jwks = program.get("/auth/jwks.json").json()
    claims = reads(program.access_token, jwks)
    assert claims == forge.claims and claims["sub"] == house.auth.people.by_address(ADA).id
    bad = [forge.heads(typ="JWT"), forge.heads(alg="none"), forge.made(forge.stranger.sign)]
    bad += [forge.says(iss="https://evil.example"), forge.says(aud="https://evil.example")]
    bad += [*of_elsewhere(forge).values(), *public_as_secret(forge).values()]
    for token in bad:
        with pytest.raises((JoseError, ValueError)):
            reads(token, jwks)
    for now in (START + 601, START - 31):
        with pytest.raises(JoseError):
            reads(program.access_token, jwks, now)
    # While a rotation lasts both keys are there, and each token finds its own.
    new = rotating(build, house, SECRET_KEY=OTHER, SECRET_KEY_PREVIOUS=SECRET)
    moved = at(new, program)
    moved.refresh()
    both = moved.get("/auth/jwks.json").json()
    for token in (program.access_token, moved.access_token):
        assert reads(token, both)["sub"] == claims["sub"]


# ---- in front of a real process
def test_I1_I6_no_forged_token_passes_a_real_process_or_stands_in_its_log(serve, sink):
    server = serve(SMTP_PORT=sink.port, SIGNUP="open", LOG_LEVEL="debug")
    phone, theirs = Phone(sink, server), Phone(sink, server)
    phone.sign_in(ADA)
    theirs.sign_in(BOB)
    first, forge = phone.refresh_token, Forge(phone.access)
    made = [other_algorithms(forge), public_as_secret(forge), odd_headers(forge), odd_times(forge)]
    made += [other_spellings(forge), other_claims(forge, Forge(theirs.access)), of_elsewhere(forge)]
    tokens = {f"{n} {name}": token for n, part in enumerate(made) for name, token in part.items()}
    # What HTTP itself trims or refuses never gets here.
    fit = {n: t for n, t in tokens.items() if t and t == t.strip() and t.isprintable()}
    assert len(fit) > 500
    nothing = told(server.client.get("/auth/me"))
    passed = {}
    for name, token in fit.items():
        answer = told(show(server.client, f"Bearer {token}"))
        if answer != nothing and len(token) < 30_000:  # the web server itself says no to those
            passed[name] = answer
        assert 400 <= answer[0] < 500
    assert passed == {} and phone.me().status_code == 200
    server.client.get(f"/auth/me?access_token={forge.token}", headers={"Accept": "text/html"})
    server.client.get(f"/dashboard?refresh_token={first}")
    phone.keep(phone.refresh())
    phone.keep(phone.refresh())
    assert code_of(phone.refresh(token=first)) == REUSED
    server.stop()
    secrets = [first, phone.refresh_token, phone.access, theirs.refresh_token, phone.code, SECRET]
    secrets += [phone.asked["device_secret"], *fit.values()]
    secrets += [part for secret in fit.values() for part in secret.split(".") if len(part) > 40]
    assert [
        secret for secret in secrets if secret and len(secret) > 4 and secret in server.log
    ] == []
    assert "Traceback" not in server.log and ADA not in server.log


# ---- known vulnerabilities elsewhere
@pytest.mark.parametrize("end", [disable, delete], ids=lambda f: f.__name__)
def test_V21_who_is_removed_is_out_with_every_kind_of_token(house, twin, program, end):
    door = house.door()
    door.sign_in(ADA)
    pending = house.program()
    pending.ask(ADA)
    code = pending.read_code()
    assert door.signed_in and program.signed_in
    end(twin, program)
    assert not door.signed_in and everything_refused(house, program)
    # Neither a code that is out nor the secret of a device brings them back.
    assert pending.enter(code).status_code == 401


def test_V22_what_was_good_a_moment_ago_is_not_remembered_as_good(house, twin, program):
    page = house.door()
    page.sign_in(ADA)
    people, id = twin.auth.people, twin.auth.people.by_address(ADA).id
    people.set_role(None, id, "admin", Source())
    for _ in range(50):
        assert program.get("/auth/me").json()["user"]["role"] == "admin"
        assert page.get("/admin").status_code == 200
    people.set_role(None, id, "user", Source())
    assert program.get("/auth/me").json()["user"]["role"] == "user"
    assert page.get("/admin").status_code == 303
    people.disable(None, id, Source())
    assert not program.signed_in and not page.signed_in


def test_V23_parallel_refreshes_rotate_once_and_a_late_one_ends_the_session(house, twin, program):
    first = program.refresh_token
    clients = [at(house if n % 2 else twin, program) for n in range(32)]
    answers = together(32, lambda n: clients[n].refresh(first))
    (second,) = {answer.json()["refresh_token"] for answer in answers}
    assert [row["generation"] for row in house.rows("sessions")] == [1]
    house.clock.advance(31)
    assert code_of(clients[0].refresh(first)) == REUSED
    assert code_of(clients[1].refresh(second)) == INVALID and len(reuses(house)) == 1


def test_V19_nothing_that_began_before_the_address_was_proved_is_a_session(build):
    house = build(SIGNUP="open")
    early, owner = house.program(), house.program()
    early.ask(ADA)  # somebody else, who can't read the mail
    house.clock.advance(1)  # so that the owner's mail is the newest
    assert code_of(early.get("/auth/me")) == INVALID and house.rows("sessions") == []
    owner.sign_in(ADA)
    assert code_of(early.get("/auth/me")) == INVALID
    assert [row["user_id"] for row in house.rows("sessions")] == [
        house.auth.people.by_address(ADA).id
    ]
