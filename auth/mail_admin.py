"""HTTP for admins: the mail that waits, that left and that did not. The rules are mailroom.py's."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from auth.admin import page_number
from auth.email_auth import EmailAuth
from auth.gate import is_htmx
from auth.guards import admin_required, no_access, redirect
from auth.policy import Refused
from auth.routes import answer, fields

PATH = "/admin/mail"


def add_routes(app: Any, auth: EmailAuth) -> None:
    mail, pages, run = auth.mailroom, auth.templates, auth.db.run
    pages.offer(PATH, "Mail")

    async def draw(request: Request, state: str, number: str, done: str = "") -> Response:
        found, caller = await run(mail.look, state, page_number(number)), request.scope["auth"]
        if request.query_params.get("seen") == found.mark:
            return Response(status_code=204)  # for the page that looks by itself: it is up to date
        content = pages.mail_page(found, caller, done)
        return answer(auth, request, "Mail", content, width="wide")

    async def change(request: Request, act: Callable[..., str], *args: Any) -> Response:
        """Do it, then show the list as it was: the fragment for htmx, a 303 without."""
        state, number = await fields(request, "state", "page")
        try:
            done = await run(act, request.scope["auth"].user, *args, auth.source(request))
        except Refused:  # an admin no more, since a moment ago
            return no_access(request)
        if is_htmx(request):
            return await draw(request, state, number, done)
        where = {"state": state, "page": page_number(number), "done": done}
        return redirect(request, f"{PATH}?{urlencode(where)}")

    async def sure(request: Request) -> bool:
        """htmx has asked already; without it a page asks, and its form says so."""
        (said,) = await fields(request, "sure")
        return is_htmx(request) or said == "yes"

    async def ask(request: Request, action: str, row: Any = None) -> Response:
        state, number = await fields(request, "state", "page")
        place = {"state": state, "page": str(page_number(number))}
        caller = request.scope["auth"]
        content = pages.mail_sure(action, row, place, caller)
        return HTMLResponse(pages.page("Mail", content, caller=caller, width="door"))

    @app.get(PATH, before=admin_required)
    async def admin_mail(request: Request) -> Response:
        get = request.query_params.get
        return await draw(request, get("state", ""), get("page", ""), get("done", ""))

    @app.post(f"{PATH}/pause", before=admin_required)
    async def admin_mail_pause(request: Request) -> Response:
        if not await sure(request):
            return await ask(request, f"{PATH}/pause")
        return await change(request, mail.pause, True)

    @app.post(f"{PATH}/resume", before=admin_required)
    async def admin_mail_resume(request: Request) -> Response:
        return await change(request, mail.pause, False)

    @app.post(f"{PATH}/{{id}}/retry", before=admin_required)
    async def admin_mail_retry(request: Request) -> Response:
        return await change(request, mail.retry, request.path_params["id"])

    @app.post(f"{PATH}/{{id}}/drop", before=admin_required)
    async def admin_mail_drop(request: Request) -> Response:
        id = request.path_params["id"]
        if await sure(request):
            return await change(request, mail.drop, id)
        row = await run(mail.waiting, id)
        if row is None:
            return redirect(request, f"{PATH}?done=over")
        return await ask(request, f"{PATH}/{id}/drop", row)
