"""The plug: who is asking, and where a session begins and ends in the browser.

`EmailAuth(app, db, templates, send, base_url=…, secret_key=…)` adds the sign-in routes to a FastHTML
app and gives each handler `auth` (a Caller, or None) and `session` (a dict kept on the server).
"""

import logging
from collections.abc import Callable, Sequence
from time import time
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match

from auth import sessions
from auth.agents import AN_APP, kind_of
from auth.arriving import Arrival
from auth.audit import Audit
from auth.caller import Caller, SessionData
from auth.events import Source
from auth.gate import PROGRAMS, Gate, cookies, is_htmx, problem, wants_json
from auth.importing import MAX_FORM, Importing
from auth.inviting import Inviting
from auth.keys import Keys, digest, looks_like_device_secret, looks_like_token, split_device
from auth.known import Browser
from auth.letters import PATIENT, Letters
from auth.mailroom import MailQueue, Mailroom
from auth.needs import Database, Templates
from auth.networks import Network, address_of, client_of, networks_of
from auth.organisations import Organisations
from auth.overview import Overview
from auth.people import People
from auth.policy import DAY, Policy, Refused
from auth.record import FAILED, Hear
from auth.signin import SignIn
from auth.tokens import AccessTokens

log = logging.getLogger("auth")

IMPORT = "/admin/people/import"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class EmailAuth:
    """Sign-in by e-mailed code for one FastHTML app.

    app         a FastHTML app (never `fast_app()`, which serves the working directory)
    db          q, tx, run (see Database); the tables of auth/migrations must be there
    templates   every page and mail (see Templates)
    send        send(t, kind, ref, not_after): queue a mail in transaction t
    base_url    the origin people open, https:// or loopback
    secret_key  at least 32 characters; previous_key is still accepted for codes on their way
    secure      production: `__Host-` cookies, Secure. False only in development
    trusted_proxies  networks whose X-Forwarded-For is believed; none unless named
    name        the app's, for openapi.json
    app_link_url  where links lead that a program asked for: what opens it; else as those of browsers
    cors_origins  origins whose scripts may call /auth and /api; none unless named
    mail_slow   is any mail late? The waiting page then says so, to everybody
    mail        the queue behind `send` (see MailQueue), for the admins' page; without it there is none
    on_event    on_event(what, how): signing in, for who counts (see record.HEARD). It must not raise
    """

    def __init__(
        self,
        app: Any,
        db: Database,
        templates: Templates,
        send: Callable[[Any, str, str, int], None],
        *,
        base_url: str,
        secret_key: str,
        previous_key: str | None = None,
        secure: bool = True,
        trusted_proxies: Sequence[Network] = (),
        name: str = "Vestibule",
        app_link_url: str | None = None,
        cors_origins: Sequence[str] = (),
        mail_slow: Callable[[], bool] = lambda: False,
        mail: MailQueue | None = None,
        on_event: Hear | None = None,
        policy: Policy | None = None,
        clock: Callable[[], float] = time,
        keys: Keys | None = None,
    ):
        from auth import (  # they import this file
            account,
            admin,
            api,
            audit_admin,
            import_admin,
            invite_admin,
            mail_admin,
            overview_admin,
            person_admin,
            role_admin,
            routes,
            tenant_admin,
        )

        keys = keys or Keys(secret_key, previous_key)
        self.db, self.templates, self.clock = db, templates, clock
        self.mail_slow = mail_slow
        self.policy = policy or Policy()
        self.keys = keys
        self.on_event = on_event
        self.signin = SignIn(db, keys, send, clock, self.policy, on_event)
        self.audit = Audit(db, keys, clock)
        self.overview = Overview(db, keys, clock, mail)
        self.organisations = Organisations(db, keys, clock)
        self.people = People(db, keys, clock, self.signin)
        self.inviting = Inviting(db, keys, clock, self.signin)
        self.importing = Importing(db, keys, clock, self.inviting)
        self.mailroom = Mailroom(db, keys, clock, self.signin.limits, mail)
        self._secure, self._proxies, self._told = secure, tuple(trusted_proxies), False
        prefix = "__Host-" if secure else ""
        self.session_cookie, self.signin_cookie = f"{prefix}session", f"{prefix}signin"
        self.device_cookie = f"{prefix}device"
        self.programs, self.large = PROGRAMS, {IMPORT: MAX_FORM}
        self.cookies = (self.session_cookie, self.signin_cookie, self.device_cookie)
        self.letters = Letters(templates, self.signin, self.inviting, base_url, app_link_url)
        self.name, self.cors_origins = name, frozenset(cors_origins)
        self.tokens = AccessTokens(keys, base_url, self.policy.access_seconds)
        self.origins = {base_url}
        if not secure:
            port = urlsplit(base_url).port
            usual = f":{port}" if port else ""
            self.origins |= {f"http://{name}{usual}" for name in LOOPBACK_NAMES}
        app.add_middleware(Gate, auth=self)
        for room in (
            routes,
            api,
            account,
            admin,
            import_admin,
            person_admin,
            tenant_admin,
            invite_admin,
            role_admin,
            audit_admin,
            overview_admin,
        ):
            room.add_routes(app, self)
        if mail is not None:
            mail_admin.add_routes(app, self)

    notices = PATIENT

    def letter(self, kind: str, ref: str) -> Any:
        """The mail of one outbox row, made at the moment of sending; None when none is due."""
        letter = self.letters.letter(kind, ref)
        return None if letter and self.mailroom.bouncing([letter.to]) else letter

    def undeliverable(self, kind: str, ref: str) -> None:
        """The recipient of that row does not exist, the provider says: no mail to them for a day."""
        self.mailroom.bounced(kind, ref)

    # ---- who is asking
    def cookie(self, request: Request, name: str) -> str | None:
        """The token in a cookie, if it could be one of ours."""
        found = cookies(request.scope, self.cookies).get(name, [])
        return found[0] if len(found) == 1 and looks_like_token(found[0]) else None

    async def recognise(self, request: Request) -> tuple[Caller | None, SessionData]:
        """Who is asking, by the session cookie; read from the database at every request."""
        token = self.cookie(request, self.session_cookie)
        found = await self.db.run(self._find, token) if token else None
        if found is None:
            return None, SessionData(None)
        age = int(self.clock()) - found.created_at
        fresh = -self.policy.clock_skew <= age <= self.policy.confirmed_seconds
        caller = Caller.of_session(found, fresh)
        return caller, SessionData(caller, found.data)

    def _find(self, token: str) -> sessions.Session | None:
        now = int(self.clock())
        found = sessions.find(self.db, digest(token), now, self.policy.session_idle_seconds)
        if found and now - found.seen_at >= self.policy.seen_every_seconds:
            sessions.touch(self.db, found.id, now)
        return found

    def source(self, request: Request) -> Source:
        peer = request.client.host if request.client else ""
        forwarded = request.headers.getlist("x-forwarded-for")
        if forwarded and not self._proxies and not self._told:
            self._told = True
            log.warning(
                "X-Forwarded-For from %s is not believed: if that is your proxy, name it in"
                " TRUSTED_PROXIES, or all people share one client's limits",
                networks_of(peer)[1],
            )
        client, network = networks_of(client_of(peer, forwarded, self._proxies))
        return Source(network, request.state.id, client)

    def failed(self, request: Request, refused: Refused) -> None:
        """One line for each verification that failed, in a form that stays (docs/observe.md): for fail2ban.

        The only place where a whole client address is written down, since it is what has to be shut out.
        """
        if refused.reason in FAILED:
            peer = request.client.host if request.client else ""
            forwarded = request.headers.getlist("x-forwarded-for")
            client = address_of(client_of(peer, forwarded, self._proxies))
            log.warning("Authentication failed: %s - IP: %s", refused.reason, client)
            if self.on_event:
                self.on_event("failed", refused.reason)

    def spent(self) -> dict[str, bool]:
        """Which shares of the whole site are spent (see Limits.spent)."""
        return self.signin.limits.spent(self.db, int(self.clock()))

    def browser(self, request: Request) -> Browser:
        device = cookies(request.scope, self.cookies).get(self.device_cookie, [])
        return Browser(
            self.cookie(request, self.signin_cookie),
            self.cookie(request, self.session_cookie),
            device[0] if len(device) == 1 and split_device(device[0]) else None,
            self.source(request),
            kind_of(request.headers.get("user-agent", "")),
        )

    async def app_session(self, request: Request) -> sessions.AppSession | None:
        """The live session of the bearer token in the Authorization header; None without a good one."""
        given = request.headers.getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        claims = self.tokens.read(token, int(self.clock())) if scheme.lower() == "bearer" else None
        return await self.db.run(self.signin.app_session, claims) if claims else None

    def program(self, request: Request, secret: str | None) -> Browser:
        """Who asks, where it is a program: what a browser has in cookies it sends itself, or not at all."""
        kind = kind_of(request.headers.get("user-agent", "")) or AN_APP
        own = secret if secret and looks_like_device_secret(secret) else None
        return Browser(own, source=self.source(request), kind=kind, app=True)

    # ---- begin and end
    def set_signin(self, response: Response, token: str) -> None:
        # An hour longer than code and link, so that a late one is told that it ran out; the link of an
        # address whose mails are spent may live for a day.
        longest = max(self.policy.code_seconds, self.policy.link_seconds, DAY)
        self._set_cookie(response, self.signin_cookie, token, longest + 3600)

    def admit(self, response: Response, arrival: Arrival) -> None:
        """Begin a session in this browser, with a token that did not exist before (no fixation)."""
        self._set_cookie(
            response, self.session_cookie, arrival.token, self.policy.session_max_seconds
        )
        self._drop_cookie(response, self.signin_cookie)
        if arrival.device:
            seconds = self.policy.device_seconds
            self._set_cookie(response, self.device_cookie, arrival.device, seconds)

    def dismiss(self, response: Response, everywhere: bool = False) -> None:
        """Take the session cookie out of this browser; it stays a known one unless `everywhere`."""
        self._drop_cookie(response, self.session_cookie)
        if everywhere:
            self._drop_cookie(response, self.device_cookie)
        response.headers["Clear-Site-Data"] = '"storage"'

    def _set_cookie(self, response: Response, name: str, token: str, seconds: int) -> None:
        # Lax, not Strict: Strict would drop the cookie when people come from the link in a mail.
        # Nothing in it needs quoting: the names are ours, a token is URL-safe base64.
        flags = "; Secure" if self._secure else ""
        cookie = f"{name}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{flags}"
        response.headers.append("Set-Cookie", cookie)

    def _drop_cookie(self, response: Response, name: str) -> None:
        self._set_cookie(response, name, "", 0)

    # ---- housekeeping
    def tidy(self) -> dict[str, int]:
        """Delete rows that have ended, in small steps; how many of each. Call it now and then."""
        self.overview.close_days()  # before its mails are deleted
        gone = self.signin.purge()
        self.people.count()
        return gone

    # ---- the gate before every handler
    def refuse(self, request: Request, status: int, what: str = "") -> Response:
        """A whole answer for an error: a page, or problem+json (RFC 9457) for programs.

        `what` names the words where the status alone does not say what happened.
        """
        headers = {"Retry-After": "5"} if status == 503 else {}
        if wants_json(request):
            return problem(status, headers)
        if is_htmx(request):
            return HTMLResponse(self.templates.sorry(what or status), status, headers)
        caller = request.scope.get("auth")
        page = self.templates.problem(what or status, getattr(request.state, "id", ""), caller)
        return HTMLResponse(page, status, headers)

    async def on_error(self, request: Request, error: Exception) -> Response:
        """For `app.add_exception_handler`: errors in the same shell as every page."""
        response = self.refuse(request, getattr(error, "status_code", 500))
        response.headers.update(getattr(error, "headers", None) or {})
        if response.status_code == 405:
            # Starlette names the methods of the first route of this path; a path may have several.
            fits = (r for r in request.app.routes if r.matches(request.scope)[0] is not Match.NONE)
            methods = {method for route in fits for method in getattr(route, "methods", None) or ()}
            if methods:
                response.headers["Allow"] = ", ".join(sorted(methods))
        return response
