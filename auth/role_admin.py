"""HTTP for admins: the roles that people may have. The rules are people.py's."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from auth.email_auth import EmailAuth
from auth.guards import admin_required, redirect
from auth.policy import Refused
from auth.routes import answer, fields

PATH = "/admin/roles"


def add_routes(app: Any, auth: EmailAuth) -> None:
    people, pages, run = auth.people, auth.templates, auth.db.run
    pages.offer(PATH, "Roles")

    async def draw(request: Request, refused: Refused | None = None) -> Response:
        done = request.query_params.get("done", "")
        content = pages.roles_page(await run(people.roles), done, refused)
        return answer(auth, request, "Roles", content, refused, "wide")

    async def change(request: Request, act: Callable[..., Any], *args: str, done: str) -> Response:
        try:
            await run(act, request.scope["auth"].user, *args, auth.source(request))
        except Refused as refused:
            refused.facts["typed"] = args  # nobody types it twice
            return await draw(request, refused)
        return redirect(request, f"{PATH}?done={done}")

    @app.get(PATH, before=admin_required)
    async def admin_roles(request: Request) -> Response:
        return await draw(request)

    @app.post(PATH, before=admin_required)
    async def admin_put_role(request: Request) -> Response:
        typed = await fields(request, "name", "description")
        return await change(request, people.put_role, *typed, done="saved")

    @app.post(f"{PATH}/delete", before=admin_required)
    async def admin_delete_role(request: Request) -> Response:
        (name,) = await fields(request, "name")
        return await change(request, people.delete_role, name, done="deleted")
