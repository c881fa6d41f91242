"""HTTP for admins: the list of people and what may be done with them. The rules are people.py's."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from auth.email_auth import EmailAuth
from auth.gate import is_htmx, wants_json
from auth.guards import Guard, admin_required, no_access, redirect, to_confirm
from auth.policy import Refused
from auth.routes import answer, fields


def page_number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 1


def to_own_part(request: Request) -> Response:
    """Who runs an organisation has a part of these pages."""
    caller = request.scope["auth"]
    if caller.runs(caller.tenant) and not wants_json(request):
        return redirect(request, f"/admin/organisations/{caller.tenant}")
    return no_access(request)


at_the_front = Guard("admin_required", lambda caller: caller.is_admin, to_own_part)


def add_routes(app: Any, auth: EmailAuth) -> None:
    people, pages, run = auth.people, auth.templates, auth.db.run

    async def draw(
        request: Request,
        asked: Mapping[str, str],
        refused: Refused | None = None,
        notice: tuple[str, str] | None = None,
    ) -> Response:
        found = await run(people.page, asked)
        bouncing = await run(auth.mailroom.bouncing, [user.address for user in found.users])
        caller = request.scope["auth"]
        content = pages.people(found, caller, refused, notice, bouncing)
        return answer(auth, request, "People", content, refused, "wide")

    async def change(request: Request, act: Callable[..., Any], *args: Any, done: str) -> Response:
        """Do it, then show the list as it was: the fragment for htmx, a 303 without."""
        # As a query of the list's own page: its filters have names that these forms use, too.
        (place,) = await fields(request, "list")
        asked = {k: v for k, v in parse_qsl(place) if k in people.ASKED}
        try:
            user = await run(act, request.scope["auth"].user, *args, auth.source(request))
        except Refused as refused:
            refused.facts["typed"] = args  # nobody types it twice
            return await draw(request, asked, refused)
        if is_htmx(request):
            return await draw(request, asked, notice=(done, user.address))
        return RedirectResponse(f"/admin?{urlencode(asked | {'done': done, 'id': user.id})}", 303)

    @app.get("/admin", before=at_the_front)
    async def admin_people(request: Request) -> Response:
        params = request.query_params
        notice = None
        if params.get("done") in ("added", "role", "disabled", "enabled"):
            notice = await run(people.notice, params["done"], params.get("id", ""))
        if params.get("done") == "deleted":
            notice = ("deleted", "")
        return await draw(request, params, notice=notice)

    @app.post("/admin/people", before=admin_required)
    async def admin_add(request: Request) -> Response:
        typed = await fields(request, "email", "name", "role")
        if typed[2] == "admin" and not request.scope["auth"].confirmed:
            return to_confirm(request)
        return await change(request, people.add, *typed, done="added")

    @app.post("/admin/people/{id}/role", before=admin_required)
    async def admin_role(request: Request) -> Response:
        (role,) = await fields(request, "role")
        if role == "admin" and not request.scope["auth"].confirmed:
            return to_confirm(request)
        return await change(request, people.set_role, request.path_params["id"], role, done="role")

    @app.post("/admin/people/{id}/disable", before=admin_required)
    async def admin_disable(request: Request) -> Response:
        return await change(request, people.disable, request.path_params["id"], done="disabled")

    @app.post("/admin/people/{id}/enable", before=admin_required)
    async def admin_enable(request: Request) -> Response:
        id = request.path_params["id"]
        if not request.scope["auth"].confirmed and await run(people.is_admin, id):
            return to_confirm(request)
        return await change(request, people.enable, id, done="enabled")
