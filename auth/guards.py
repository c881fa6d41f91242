"""Who may pass: signed_in, admin_required, role_required("editor").

Each is used as `before=` of a route, or as a decorator under the route's own:

    @app.get("/reports", before=admin_required)
    def reports(auth): ...

    @app.get("/reports")
    @admin_required
    def reports(auth): ...
"""

import asyncio
import inspect
import logging
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from auth.caller import Caller
from auth.gate import is_htmx, problem, wants_json
from auth.typed import safe_next

log = logging.getLogger("auth.guards")

LOGIN = "/login"
NO_ACCESS = "/no_access_right"
CONFIRM = "/confirm"


_REQUEST = inspect.Parameter("guard_request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)


class Guard:
    """One condition, in both of its uses. `allows(caller)` decides; who is asking was found before.

    `refuse(request)` answers whoever is signed in and must not pass.
    """

    def __init__(
        self,
        name: str,
        allows: Callable[[Caller], bool],
        refuse: Callable[[Request], Response] | None = None,
    ):
        self.__name__, self._allows, self._refuse = name, allows, refuse
        # FastHTML reads the parameters of a `before` from this, and moves what does not look async
        # to a thread, which costs more than the check.
        self.__signature__ = inspect.Signature([_REQUEST])
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)
        else:
            self._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]

    def __call__(self, handler: Any = None, *, guard_request: Request | None = None) -> Any:
        return self._before(guard_request) if guard_request else self._decorate(handler)

    async def _before(self, request: Request) -> Response | None:
        return self.check(request)

    def check(self, request: Request) -> Response | None:
        """None to let the request pass, or the answer that it gets instead."""
        caller: Caller | None = request.scope.get("auth")
        if caller is None:
            return to_login(request)
        return None if self._allows(caller) else (self._refuse or no_access)(request)

    def _decorate(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        if hasattr(handler, "__routename__"):
            # The route is registered already, with the handler as it was: unguarded.
            raise TypeError(f"@{self.__name__} must stand below the route decorator, not above it")
        signature = inspect.signature(handler)
        for parameter in signature.parameters.values():
            if parameter.kind not in (_REQUEST.kind, parameter.POSITIONAL_OR_KEYWORD):
                raise TypeError(
                    f"@{self.__name__}: handlers take named parameters, not {parameter}"
                )
            if parameter.name == "session" and parameter.annotation is dict:
                # FastHTML fills a dict from the request: what the client sent would be believed.
                raise TypeError(
                    f"@{self.__name__}: write `session` without a type, or `SessionData`"
                )
        stacked = _REQUEST.name in signature.parameters

        @wraps(handler)
        async def guarded(*args: Any, **kw: Any) -> Any:
            request = kw[_REQUEST.name] if stacked else kw.pop(_REQUEST.name)
            refusal = self.check(request)
            if refusal is not None:
                return refusal
            if inspect.iscoroutinefunction(handler):
                return await handler(*args, **kw)
            return await run_in_threadpool(handler, *args, **kw)

        # The handler need not ask for the request itself; a guard below this one did already.
        parameters = [*signature.parameters.values(), *([] if stacked else [_REQUEST])]
        guarded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return guarded


def role_required(name: str) -> Guard:
    """Those with this role, on the site or in the organisation that they work in; and the site's admins."""

    def allows(caller: Caller) -> bool:
        return caller.is_admin or name in (caller.user.role, caller.role)

    return Guard(f"role_required({name!r})", allows)


def to_confirm(request: Request) -> Response:
    """To a fresh code, and back to the page from which this was asked."""
    if wants_json(request):
        return problem(403, code="confirmation_needed")
    came = request.headers.get("hx-current-url") or request.headers.get("referer", "")
    page = _path_of(came) if request.method not in ("GET", "HEAD") else _page_of(request)
    if page == request.url.path and request.method == "POST":
        # From the page "are you sure?", which is the answer to a POST: back to where that was asked.
        page = page.rpartition("/")[0]
    page = quote(page, safe="/?=&%+")
    return redirect(
        request, f"{CONFIRM}?next={quote(page)}" if safe_next(page) == page else CONFIRM
    )


signed_in = Guard("signed_in", lambda caller: True)
admin_required = Guard("admin_required", lambda caller: caller.is_admin)
# Of the site, or of the organisation that they work in. Which one a page is about is the page's to ask: see
# Caller.runs.
tenant_admin_required = Guard(
    "tenant_admin_required", lambda caller: caller.is_admin or caller.tenant_role == "admin"
)
# Before what can't be undone: a code was entered in this session within the last 15 minutes.
confirmed = Guard("confirmed", lambda caller: caller.confirmed, to_confirm)


def redirect(request: Request, path: str) -> Response:
    """303, or HX-Redirect for htmx: XHR would follow a 303 and draw the page into a corner of this one."""
    if is_htmx(request):
        return Response(headers={"HX-Redirect": path})
    return RedirectResponse(path, 303)


def to_login(request: Request) -> Response:
    """To the door, and back here afterwards."""
    if wants_json(request):
        return problem(401)
    # `10:30` and `(a)` are as good as `10%3A30` and `%28a%29`, and these pass the strict check.
    page = quote(_page_of(request), safe="/?=&%+")
    return redirect(request, f"{LOGIN}?next={quote(page)}" if safe_next(page) == page else LOGIN)


def no_access(request: Request) -> Response:
    if wants_json(request):
        return problem(403)
    caller: Caller = request.scope["auth"]
    # ASVS 16.3.2
    log.warning("%s refused to user %s", request.url.path, caller.user.id)
    return RedirectResponse(NO_ACCESS, 303)


def _page_of(request: Request) -> str:
    """The page the person looks at: for a fragment or a form it is not the URL that was asked for."""
    if request.method not in ("GET", "HEAD") and not is_htmx(request):
        return ""
    # As it was sent: decoded, a path with ä or a space in it would not be one any more.
    scope = request.scope
    sent = scope.get("raw_path", b"") + (
        b"?" + scope["query_string"] if scope["query_string"] else b""
    )
    return _path_of(request.headers.get("hx-current-url") or sent.decode("latin1"))


def _path_of(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # `http://[`: the header is the client's
        return ""
    return parts.path + (f"?{parts.query}" if parts.query else "")
