"""The JSON that programs send and get, declared once: what is checked, and what openapi.json says. No rules.

A body with a field that is unknown, missing or of another type is refused; so is one that names a field twice.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from auth.typed import MAX_LINK, MAX_TYPED

MAX_ADDRESS = 320  # longer ones are no address; see addresses.py
MAX_SECRET = 200
MAX_TOLD = 200  # of what is wrong with a body: it may name a field, which is the client's


class Malformed(ValueError):
    """A body that is no JSON object of ours. `code` is stable, the text is for developers."""

    def __init__(self, code: str, text: str):
        super().__init__(text)
        self.code = code


Address = Annotated[
    str,
    Meta(
        max_length=MAX_ADDRESS,
        description="An e-mail address",
        examples=["person@example.com"],
        extra_json_schema={"format": "email"},
    ),
]
DeviceSecret = Annotated[
    str,
    Meta(
        max_length=MAX_SECRET, description="What /auth/login gave this device; it never leaves it"
    ),
]
Role = Annotated[str, Meta(description="Inside the tenant; the site's where there is none")]
Tenant = Annotated[str | None, Meta(description="Id of the organisation that the person works in")]
Seconds = Annotated[int, Meta(ge=0, description="Seconds")]
Time = Annotated[int, Meta(ge=0, description="Seconds since 1970, UTC")]


# ---- what programs send
class Login(Struct, forbid_unknown_fields=True):
    """Ask for a code. With the device_secret of an earlier attempt the code of that one stays good while
    there is no room for the next mail."""

    email: Address
    device_secret: DeviceSecret | msgspec.UnsetType = msgspec.UNSET


class VerifyCode(Struct, forbid_unknown_fields=True):
    """The code from the mail, and the device's own half."""

    challenge: Annotated[str, Meta(max_length=MAX_SECRET, description="From /auth/login")]
    device_secret: DeviceSecret
    code: Annotated[
        str, Meta(max_length=MAX_TYPED, description="As typed; blanks and dashes are fine")
    ]


class VerifyLink(Struct, forbid_unknown_fields=True):
    """The part after # of the mailed link, and the device's own half."""

    token: Annotated[
        str, Meta(max_length=MAX_LINK, description="What stands after the # of the link")
    ]
    device_secret: DeviceSecret


class Refresh(Struct, forbid_unknown_fields=True):
    refresh_token: Annotated[str, Meta(max_length=MAX_SECRET, description="The newest one")]


class ChooseTenant(Struct, forbid_unknown_fields=True):
    tenant: Annotated[str, Meta(max_length=MAX_SECRET, description="Id of one of the memberships")]


# ---- what programs get
class Asked(Struct):
    """The same for every address."""

    message: Annotated[str, Meta(description="For the person")]
    challenge: str
    device_secret: Annotated[str, Meta(description="Keep it on the device; half of the sign-in")]
    expires_in: Seconds


class Person(Struct):
    id: str
    email: str
    role: Role
    tenant: Tenant


class Tokens(Struct):
    access_token: Annotated[str, Meta(description="JWT (RFC 9068), signed with EdDSA")]
    token_type: Annotated[str, Meta(pattern="^bearer$")]
    expires_in: Seconds
    refresh_token: Annotated[str, Meta(description="For /auth/refresh, once")]
    user: Person


class AccessToken(Struct):
    access_token: str
    token_type: Annotated[str, Meta(pattern="^bearer$")]
    expires_in: Seconds
    user: Person


class Profile(Person):
    name: str
    timezone: str


class Member(Struct):
    tenant: str
    name: str
    role: str


class SignedIn(Struct):
    id: str
    created_at: Time
    expires_at: Time


class Me(Struct):
    user: Profile
    memberships: list[Member]
    session: SignedIn


class Jwk(Struct):
    kty: str
    crv: str
    x: str
    kid: str
    use: str
    alg: str


class Jwks(Struct):
    keys: list[Jwk]


class Problem(Struct):
    """RFC 9457. `code` is stable; the other words may change."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    tries_left: Annotated[int, Meta(ge=0, description="With wrong_code")] | msgspec.UnsetType = (
        msgspec.UNSET
    )


class Call(NamedTuple):
    """One operation. `bodies`: any of these; `statuses`: what else it may answer, all of them problems."""

    name: str
    method: str
    path: str
    summary: str
    bodies: tuple[type[Struct], ...]
    status: int
    answer: type[Struct] | None
    statuses: tuple[int, ...]
    bearer: bool = False


CALLS = (
    Call("login", "POST", "/auth/login", "Mail a code and a link", (Login,), 202, Asked, (422, 429)),
    Call("verify", "POST", "/auth/verify", "Turn code or link into tokens", (VerifyCode, VerifyLink), 200, Tokens, (401, 422, 429)),
    Call("refresh", "POST", "/auth/refresh", "New tokens for old", (Refresh,), 200, Tokens, (401, 422)),
    Call("tenant", "POST", "/auth/tenant", "An access token for another membership", (ChooseTenant,), 200, AccessToken, (401, 404, 422), True),
    Call("logout", "POST", "/auth/logout", "End the session and its tokens", (), 204, None, (401,), True),
    Call("me", "GET", "/auth/me", "Who the token is for", (), 200, Me, (401,), True),
    Call("jwks", "GET", "/auth/jwks.json", "The public keys of access tokens (RFC 7517)", (), 200, Jwks, ()),
)  # fmt: skip


def read(raw: bytes, bodies: Sequence[type[Struct]]) -> Any:
    """The body as the first of `bodies` whose fields it has. Raises Malformed `malformed_json`, `invalid_body`."""
    try:
        found = json.loads(raw, object_pairs_hook=_once, parse_constant=_none)
        # UTF-8 and nothing else, no half of a surrogate pair: stricter than the line above.
        msgspec.json.decode(raw)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed("malformed_json", "The body is no JSON in UTF-8.") from error
    named = set(found) if isinstance(found, dict) else set()
    fits = [body for body in bodies if set(body.__struct_fields__) & named - {"device_secret"}]
    try:
        return msgspec.convert(found, (fits or bodies)[0], strict=True)
    except msgspec.ValidationError as error:
        raise Malformed("invalid_body", f"{str(error)[:MAX_TOLD]}.") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Malformed("invalid_body", "The body names a field twice.")
    return found


def _none(name: str) -> None:
    raise ValueError(name)


# ---- openapi.json
def openapi(title: str, base_url: str) -> dict[str, Any]:
    """OpenAPI 3.1 of CALLS."""
    answers = [call.answer for call in CALLS if call.answer]
    shapes = [*(body for call in CALLS for body in call.bodies), *answers, Problem]
    _, components = msgspec.json.schema_components(
        shapes, ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = {}
    for call in CALLS:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{title} sign-in", "version": "1"},
        "servers": [{"url": base_url}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
    }


def _operation(call: Call) -> dict[str, Any]:
    good: dict[str, Any] = {"description": call.summary}
    if call.answer:
        good["content"] = {"application/json": {"schema": _named(call.answer)}}
    also = {400}  # another Host, or no JSON
    # Another site's page; too large. A GET may come from any page, and its body is not even read.
    also |= {403, 413} if call.method == "POST" else set()
    also |= {415} if call.bodies else set()
    also |= {503} if call.bodies or call.bearer else set()  # a database that can't serve
    statuses = sorted({*call.statuses, *also})
    problem = {"application/problem+json": {"schema": _named(Problem)}}
    operation: dict[str, Any] = {
        "operationId": call.name,
        "summary": call.summary,
        "responses": {
            str(call.status): good,
            **{str(n): {"description": "Refused", "content": problem} for n in statuses},
        },
    }
    if call.bodies:
        named = [_named(body) for body in call.bodies]
        schema = named[0] if len(named) == 1 else {"anyOf": named}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    if call.bearer:
        operation["security"] = [{"bearer": []}]
    return operation


def _named(shape: type[Struct]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}
