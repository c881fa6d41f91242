"""HTTP for programs: read the JSON, ask the rules, answer with JSON. No rules here.

Cookies mean nothing on these routes; whoever asks is known by a bearer token in the Authorization header and
by nothing else. So no other site can act through a browser, and a form can't either: it can't send JSON.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from auth.caller import Caller
from auth.email_auth import EmailAuth
from auth.gate import JSON, problem
from auth.policy import Refused
from auth.sessions import AppSession
from auth.shapes import (
    CALLS,
    AccessToken,
    Asked,
    ChooseTenant,
    Jwks,
    Login,
    Malformed,
    Me,
    Member,
    Person,
    Profile,
    Refresh,
    SignedIn,
    Tokens,
    VerifyCode,
    VerifyLink,
    openapi,
    read,
)

# reason of the rules → (status, code). The codes are what programs decide by, and stay as they are.
ANSWERS = {
    "email_missing": (422, "email_missing"),
    "email_invalid": (422, "email_invalid"),
    "not_registered": (422, "not_registered"),
    "code_missing": (422, "code_malformed"),
    "code_malformed": (422, "code_malformed"),
    "code_length": (422, "code_malformed"),
    "code_wrong": (401, "wrong_code"),
    "code_wrong_last": (401, "wrong_code"),
    "code_expired": (401, "expired"),
    "code_used": (401, "used"),
    "code_off": (401, "code_off"),
    "long_code_malformed": (422, "code_malformed"),
    "code_exhausted": (429, "too_many_tries"),
    "no_signin": (401, "unknown_challenge"),
    "link_missing": (422, "link_malformed"),
    "link_wrong": (401, "wrong_link"),
    "link_expired": (401, "expired"),
    "link_used": (401, "used"),
    "too_many_starts": (429, "too_many_requests"),
    "too_many_wrong": (429, "too_many_requests"),
    "token_invalid": (401, "invalid_token"),
    "token_reused": (401, "token_reused"),
    "tenant_unknown": (404, "tenant_unknown"),
}
MALFORMED = {"malformed_json": 400, "invalid_body": 422}

Handler = Callable[[Request], Awaitable[Response]]


def add_routes(app: Any, auth: EmailAuth) -> None:
    rules, run, tokens = auth.signin, auth.db.run, auth.tokens
    say = auth.templates.told

    def answered(handler: Handler) -> Handler:
        """Each "no" of the rules as a problem (RFC 9457) of ours."""

        @wraps(handler)
        async def answering(request: Request) -> Response:
            try:
                return await handler(request)
            except Malformed as bad:
                return problem(MALFORMED[bad.code], code=bad.code, detail=str(bad))
            except Refused as refused:
                auth.failed(request, refused)
                return refusal(refused)

        return answering

    def refusal(refused: Refused) -> Response:
        facts, headers = refused.facts, {}
        status, code = ANSWERS[refused.reason]
        if "retry_after" in facts:
            headers["Retry-After"] = str(facts["retry_after"])
        more = {name: facts[name] for name in ("tries_left",) if name in facts}
        return problem(status, headers, code, say(refused.reason, facts), **more)

    async def body(request: Request, *shapes: Any) -> Any:
        kind, _, more = request.headers.get("content-type", "").partition(";")
        charset = more.lower().replace('"', "").replace(" ", "")
        if kind.strip().lower() != JSON or charset not in ("", "charset=utf-8"):
            raise HTTPException(415)
        return read(await request.body(), shapes)

    async def caller(request: Request) -> AppSession:
        session = await auth.app_session(request)
        if session is None:
            raise Refused("token_invalid")
        return session

    def access(session: AppSession, now: int) -> tuple[str, Person]:
        who = Caller.of_app(session)
        token = tokens.issue(who.user.id, who.session_id, who.role, who.tenant, now)
        return token, Person(who.user.id, who.address, who.role, who.tenant or None)

    def begun(session: AppSession, refresh_token: str) -> Response:
        token, person = access(session, int(auth.clock()))
        return answer(Tokens(token, "bearer", tokens.seconds, refresh_token, person))

    @answered
    async def login(request: Request) -> Response:
        asked = await body(request, Login)
        secret = None if asked.device_secret is msgspec.UNSET else asked.device_secret
        secret, pending = await run(
            rules.create_code, asked.email, "", auth.program(request, secret)
        )
        # No word of the address in it: the same for every one.
        told = say("asked", {"code_seconds": pending.code_seconds})
        return answer(Asked(told, pending.id, secret, pending.expires_in), 202)

    @answered
    async def verify(request: Request) -> Response:
        given = await body(request, VerifyCode, VerifyLink)
        device = auth.program(request, given.device_secret)
        if isinstance(given, VerifyCode):
            arrival = await run(rules.verify_in_app, given.challenge, given.code, device)
        else:
            arrival = await run(rules.open_link_in_app, given.token, device)
        session = await run(rules.app_session_of, arrival)
        return begun(session, arrival.token)

    @answered
    async def refresh(request: Request) -> Response:
        given = await body(request, Refresh)
        renewed = await run(rules.refresh, given.refresh_token, auth.program(request, None))
        return begun(renewed.session, renewed.refresh_token)

    @answered
    async def tenant(request: Request) -> Response:
        session = await caller(request)
        given = await body(request, ChooseTenant)
        session = await run(rules.choose_tenant, session, given.tenant)
        token, person = access(session, int(auth.clock()))
        return answer(AccessToken(token, "bearer", tokens.seconds, person))

    @answered
    async def logout(request: Request) -> Response:
        session = await caller(request)
        await run(rules.end_app, session, auth.source(request))
        return Response(status_code=204)

    @answered
    async def me(request: Request) -> Response:
        session = await caller(request)
        who, user = Caller.of_app(session), session.user
        profile = Profile(
            user.id, user.address, who.role, who.tenant or None, user.name, user.timezone
        )
        members = [Member(m.tenant, m.name, m.role) for m in session.memberships]
        since = SignedIn(session.id, session.created_at, session.expires_at)
        return answer(Me(profile, members, since))

    # What never changes while the process runs.
    public = msgspec.json.encode(msgspec.convert(tokens.jwks(), Jwks))
    document = msgspec.json.encode(openapi(auth.name, tokens.issuer))

    async def jwks(request: Request) -> Response:
        return Response(public, media_type=JSON)

    async def described(request: Request) -> Response:
        return Response(document, media_type=JSON)

    handlers = {
        "login": login,
        "verify": verify,
        "refresh": refresh,
        "tenant": tenant,
        "logout": logout,
        "me": me,
        "jwks": jwks,
    }
    routes = {c.name: Route(c.path, handlers[c.name], methods=[c.method]) for c in CALLS}
    # Routes are tried one after another: what is called most first, the others after the pages.
    app.router.routes.insert(0, routes.pop("me"))
    app.router.routes += [*routes.values(), Route("/openapi.json", described, methods=["GET"])]


def answer(body: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type=JSON)
