"""HTTP for admins: organisations and who is in them. The rules are organisations.py's."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from auth.admin import page_number
from auth.email_auth import EmailAuth
from auth.guards import admin_required, confirmed, redirect
from auth.policy import Refused
from auth.routes import answer, fields

PATH, TITLE = "/admin/organisations", "Organisations"


def add_routes(app: Any, auth: EmailAuth) -> None:
    rules, pages, run = auth.organisations, auth.templates, auth.db.run
    pages.offer(PATH, TITLE)

    async def every(request: Request, refused: Refused | None = None) -> Response:
        get = request.query_params.get
        found = await run(rules.find, get("q", ""), page_number(get("page", "")))
        content = pages.tenants_page(found, get("done", ""), refused)
        return answer(auth, request, TITLE, content, refused, "wide")

    async def one(request: Request, refused: Refused | None = None) -> Response:
        get, id = request.query_params.get, request.path_params["id"]
        try:
            found = await run(rules.look, id, page_number(get("page", "")))
        except Refused as unknown:
            return await every(request, unknown)
        caller = request.scope["auth"]
        content = pages.tenant_page(found, caller, get("done", ""), refused)
        return answer(auth, request, TITLE, content, refused, "wide")

    async def change(request: Request, act: Callable[..., Any], *args: Any, done: str) -> Response:
        """Do it, then show the organisation."""
        id, user = request.path_params["id"], request.scope["auth"].user
        try:
            await run(act, user, id, *args, auth.source(request))
        except Refused as refused:
            return await one(request, refused)
        return redirect(request, f"{PATH}/{id}?done={done}")

    @app.get(PATH, before=admin_required)
    async def admin_tenants(request: Request) -> Response:
        return await every(request)

    @app.post(PATH, before=admin_required)
    async def admin_add_tenant(request: Request) -> Response:
        name, email = await fields(request, "name", "email")
        user = request.scope["auth"].user
        try:
            made = await run(rules.create, user, name, email, auth.source(request))
        except Refused as refused:
            refused.facts["typed"] = name, email  # nobody types it twice
            return await every(request, refused)
        return redirect(request, f"{PATH}/{made.id}?done=made")

    @app.get(f"{PATH}/{{id}}", before=admin_required)
    async def admin_tenant(request: Request) -> Response:
        return await one(request)

    @app.post(f"{PATH}/{{id}}/name", before=admin_required)
    async def admin_rename_tenant(request: Request) -> Response:
        (name,) = await fields(request, "name")
        return await change(request, rules.rename, name, done="renamed")

    @app.post(f"{PATH}/{{id}}/members", before=admin_required)
    async def admin_join(request: Request) -> Response:
        email, role = await fields(request, "email", "role")
        return await change(request, rules.join, email, role, done="joined")

    @app.post(f"{PATH}/{{id}}/members/{{user}}/remove", before=admin_required)
    async def admin_leave(request: Request) -> Response:
        return await change(request, rules.remove, request.path_params["user"], done="left")

    @app.post(f"{PATH}/{{id}}/delete", before=(admin_required, confirmed))
    async def admin_delete_tenant(request: Request) -> Response:
        id, caller = request.path_params["id"], request.scope["auth"]
        (sure,) = await fields(request, "sure")
        try:
            if sure != "yes":
                found = await run(rules.look, id, 1)
                return answer(auth, request, TITLE, pages.tenant_sure(found))
            await run(rules.delete, caller.user, id, auth.source(request))
        except Refused as refused:
            return await every(request, refused)
        return redirect(request, f"{PATH}?done=deleted")
