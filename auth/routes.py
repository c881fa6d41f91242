"""HTTP for people: read the form, ask the rules, answer with a page. No rules here.

The routes are plain Starlette routes: they are called more often than any other page, and FastHTML's
way of finding parameters (cookies and headers before the form) is not theirs.
"""

from typing import Any
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from auth.email_auth import EmailAuth
from auth.gate import is_htmx, wants_json
from auth.guards import LOGIN, NO_ACCESS, redirect
from auth.links import Elsewhere
from auth.policy import Refused
from auth.typed import HOME, safe_next
from auth.validity import Pending

# The keys are the reasons of the rules; templates/words.py has a sentence for each (tested).
STATUS = {
    "email_missing": 422,
    "email_invalid": 422,
    "not_registered": 422,
    "code_missing": 422,
    "code_malformed": 422,
    "code_length": 422,
    "code_wrong": 422,
    "code_wrong_last": 422,
    "code_expired": 410,
    "code_used": 410,
    "no_signin": 410,
    "code_off": 422,
    "long_code_malformed": 422,
    "code_exhausted": 429,
    "link_missing": 422,
    "link_wrong": 422,
    "link_expired": 410,
    "link_used": 410,
    "too_many_starts": 429,
    "too_many_wrong": 429,
    "resend_wait": 429,
    "resend_spent": 429,
    "name_invalid": 422,
    "zone_unknown": 422,
    "session_unknown": 404,
    "user_exists": 422,
    "user_unknown": 404,
    "not_listed": 404,
    "role_unknown": 422,
    "role_invalid": 422,
    "role_used": 422,
    "role_self": 422,
    "disable_self": 422,
    "delete_self": 422,
    "last_admin": 422,
    "last_tenant_admin": 422,
    "tenant_unknown": 404,
    "invitation_unknown": 404,
    "invitation_over": 410,
    "invitations_full": 422,
    "member_already": 422,
    "too_many_invitations": 429,
    "import_empty": 422,
    "import_long": 422,
    "review_rights": 422,
    "review_network": 422,
    "review_days": 422,
    "not_admin": 403,
    "move_same": 422,
    "move_domain": 422,
    "move_over": 410,
    "move_code_long": 422,
    "address_taken": 422,
    "too_many_moves": 429,
    "undo_wrong": 422,
    "undo_over": 410,
    "undo_taken": 422,
}


async def fields(request: Request, *names: str) -> list[str]:
    """The named fields of the form body, '' when absent. Never a query, header or cookie.

    A field that comes twice counts as '': which of two values was meant is not for us to guess.
    Raises HTTPException 400 for what is no form of ours, files among it.
    """
    kind, _, more = request.headers.get("content-type", "").lower().partition(";")
    kind = kind.strip()
    if "charset" in more and "utf-8" not in more:
        raise HTTPException(400)  # no browser sends our forms in another, and some break text
    pairs: list[tuple[str, Any]] = []
    if kind == "multipart/form-data":
        pairs = list((await request.form(max_files=0, max_fields=50)).multi_items())
    elif kind == "application/x-www-form-urlencoded":
        # Starlette's parser for this is fed byte by byte, and takes ten times as long.
        body = (await request.body()).decode("utf-8", "replace")
        pairs = list(parse_qsl(body, keep_blank_values=True))
    found = []
    for name in names:
        values = [value for key, value in pairs if key == name]
        found.append(values[0] if len(values) == 1 and isinstance(values[0], str) else "")
    return found


def answer(
    auth: EmailAuth,
    request: Request,
    title: str,
    content: Any,
    refused: Refused | None = None,
    width: str = "door",
) -> Response:
    """The same content as a fragment for htmx and as a page without; status by the reason."""
    status = STATUS[refused.reason] if refused else 200
    title = f"Error: {title}" if refused else title
    # After "back" htmx asks for what it can't find in its history: then it wants all of the page.
    if is_htmx(request) and "hx-history-restore-request" not in request.headers:
        text = auth.templates.fragment(title, content)
    else:
        text = auth.templates.page(title, content, caller=request.scope.get("auth"), width=width)
    response = HTMLResponse(text, status)
    if refused and "retry_after" in refused.facts:
        response.headers["Retry-After"] = str(refused.facts["retry_after"])
    return response


def add_routes(app: Any, auth: EmailAuth) -> None:
    rules, pages, run = auth.signin, auth.templates, auth.db.run

    async def login(request: Request) -> Response:
        wanted = safe_next(request.query_params.get("next"))
        if request.scope["auth"]:
            return redirect(request, wanted)
        content = pages.login(wanted, done=request.query_params.get("done", ""))
        return HTMLResponse(pages.page("Sign in", content, width="door"))

    async def create_code(request: Request) -> Response:
        email, wanted = await fields(request, "email", "next")
        try:
            token, pending = await run(rules.create_code, email, wanted, auth.browser(request))
        except Refused as refused:
            auth.failed(request, refused)
            content = pages.login(safe_next(wanted), email, refused)
            return answer(auth, request, "Sign in", content, refused)
        if is_htmx(request):
            response = answer(auth, request, "Enter your code", pages.code(pending))
            response.headers["HX-Push-Url"] = "/verify_code"
        else:
            response = redirect(request, "/verify_code")
        auth.set_signin(response, token)
        return response

    async def code_page(request: Request) -> Response:
        pending = await run(rules.pending, auth.cookie(request, auth.signin_cookie))
        wanted = request.query_params.get("next")
        if is_htmx(request) and wanted:  # the waiting page asks: did another tab sign in?
            moved = pending is None and request.scope["auth"]
            return redirect(request, safe_next(wanted)) if moved else Response(status_code=204)
        if pending is None:
            return redirect(request, LOGIN)
        content = pages.code(pending)
        if pending.exhausted:
            content = pages.code_over(pending.address, pending.next_path, Refused("code_exhausted"))
        return HTMLResponse(pages.page("Enter your code", content, width="door"))

    async def verify_code(request: Request) -> Response:
        code, timezone = await fields(request, "code", "timezone")
        browser = auth.browser(request)
        try:
            arrival = await run(rules.verify_code, code, timezone, browser)
        except Refused as refused:
            if refused.reason in ("no_signin", "code_used") and request.scope["auth"]:
                # Another tab, or the first of two clicks, was faster.
                return redirect(request, HOME)
            auth.failed(request, refused)
            return await refuse_code(request, browser.signin, refused)
        response = redirect(request, arrival.next_path)
        auth.admit(response, arrival)
        return response

    async def resend_code(request: Request) -> Response:
        browser = auth.browser(request)
        try:
            pending = await run(rules.resend_code, browser)
        except Refused as refused:
            return await refuse_code(request, browser.signin, refused)
        return answer(auth, request, "Enter your code", pages.code(pending, notice="resent"))

    async def again(request: Request) -> Response:
        """The side road "send again" as it stands now; the page fetches it when the wait is over."""
        if not is_htmx(request):
            return redirect(request, "/verify_code")
        pending = await run(rules.pending, auth.cookie(request, auth.signin_cookie))
        # Of all mail, never of this one: what became of it would tell who is registered.
        slow = await run(auth.mail_slow)
        return HTMLResponse(pages.fragment("", pages.again(pending, slow)))

    async def refuse_code(request: Request, token: str | None, refused: Refused) -> Response:
        """The refusal inside the form it belongs to; where no code will work, the way to a new one."""
        pending: Pending | None = await run(rules.pending, token)
        if pending and not pending.exhausted:
            content = pages.code(pending, refused)
        else:
            known = pending.__dict__ if pending else refused.facts
            content = pages.code_over(known.get("address", ""), known.get("next_path", ""), refused)
        return answer(auth, request, "Enter your code", content, refused)

    async def link_page(request: Request) -> Response:
        """Draws only: mail scanners open every link, and some run its scripts."""
        address = await run(rules.link_for, auth.cookie(request, auth.signin_cookie))
        content = pages.link(address, request.scope["auth"])
        return HTMLResponse(pages.page("Sign in", content, width="door"))

    async def open_link(request: Request) -> Response:
        pasted, timezone = await fields(request, "token", "timezone")
        browser = auth.browser(request)
        try:
            found = await run(rules.open_link, pasted, timezone, browser)
        except Refused as refused:
            if refused.reason == "link_used" and request.scope["auth"]:
                return redirect(request, HOME)
            auth.failed(request, refused)
            if refused.reason in ("link_missing", "link_wrong", "too_many_wrong"):
                address = await run(rules.link_for, browser.signin)
                content = pages.link(address, request.scope["auth"], refused)
            else:
                known = refused.facts
                where = known.get("address", ""), known.get("next_path", "")
                content = pages.code_over(*where, refused, "Sign in")
            return answer(auth, request, "Sign in", content, refused)
        if isinstance(found, Elsewhere):
            return answer(auth, request, "Sign in", pages.elsewhere(found))
        response = redirect(request, found.next_path)
        auth.admit(response, found)
        return response

    async def logout(request: Request) -> Response:
        caller, token = request.scope["auth"], auth.cookie(request, auth.session_cookie)
        if caller and token:
            await run(rules.end_session, token, caller.user, auth.source(request))
        response = redirect(request, LOGIN)
        auth.dismiss(response)
        return response

    async def logout_everywhere(request: Request) -> Response:
        caller = request.scope["auth"]
        if caller:
            await run(rules.end_everything, caller.user, auth.source(request))
        response = redirect(request, LOGIN)
        auth.dismiss(response, everywhere=True)
        return response

    async def no_access_right(request: Request) -> Response:
        if wants_json(request):
            return auth.refuse(request, 403)
        page = pages.page(
            "No access", pages.no_access(), caller=request.scope["auth"], width="door"
        )
        # htmx follows a guard's 303 by itself and would draw this page into a corner of the last one.
        headers = {"HX-Redirect": NO_ACCESS} if is_htmx(request) else {}
        return HTMLResponse(page, 403, headers)

    # In front of all others, and of these the busiest first: routes are tried one after another.
    app.router.routes[:0] = [
        Route(path, endpoint, methods=[method])
        for path, endpoint, method in (
            ("/create_code", create_code, "POST"),
            ("/verify_code", verify_code, "POST"),
            ("/verify_code", code_page, "GET"),
            (LOGIN, login, "GET"),
            ("/resend_code", resend_code, "POST"),
            ("/resend_code", again, "GET"),
            ("/link", link_page, "GET"),
            ("/link", open_link, "POST"),
            ("/logout", logout, "POST"),
            ("/logout_everywhere", logout_everywhere, "POST"),
            (NO_ACCESS, no_access_right, "GET"),
        )
    ]
