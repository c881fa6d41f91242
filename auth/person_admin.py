"""HTTP for admins: one person, where they are signed in, what happened to them, the end. The rules are people.py's."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from auth.email_auth import EmailAuth
from auth.guards import admin_required, confirmed, redirect
from auth.policy import Refused
from auth.routes import answer, fields

PATH = "/admin/people/{id}"


def add_routes(app: Any, auth: EmailAuth) -> None:
    people, pages, run = auth.people, auth.templates, auth.db.run

    async def draw(request: Request, refused: Refused | None = None) -> Response:
        caller, id = request.scope["auth"], request.path_params["id"]
        try:
            found = await run(people.look, id, caller.session_id)
        except Refused:
            return auth.refuse(request, 404)
        bounces = bool(await run(auth.mailroom.bouncing, [found.user.address]))
        done = request.query_params.get("done", "")
        content = pages.person(found, caller, done, refused, bounces)
        return answer(auth, request, "People", content, refused, "wide")

    async def change(request: Request, act: Callable[..., Any], *args: Any, done: str) -> Response:
        id, user = request.path_params["id"], request.scope["auth"].user
        try:
            await run(act, user, id, *args, auth.source(request))
        except Refused as refused:
            return await draw(request, refused)
        return redirect(request, f"/admin/people/{id}?done={done}")

    @app.get(PATH, before=admin_required)
    async def admin_person(request: Request) -> Response:
        return await draw(request)

    @app.post(f"{PATH}/sessions/{{session}}/end", before=admin_required)
    async def admin_end_session(request: Request) -> Response:
        return await change(
            request, people.end_session, request.path_params["session"], done="ended"
        )

    @app.post(f"{PATH}/sign_out", before=admin_required)
    async def admin_sign_out(request: Request) -> Response:
        return await change(request, people.sign_out, done="signed_out")

    @app.post(f"{PATH}/delete", before=(admin_required, confirmed))
    async def admin_delete(request: Request) -> Response:
        id, caller = request.path_params["id"], request.scope["auth"]
        (sure,) = await fields(request, "sure")
        try:
            if sure != "yes":
                found = await run(people.look, id)
                content = pages.person_sure(found.user)
                page = pages.page("People", content, caller=caller, width="door")
                return HTMLResponse(page)
            await run(people.delete, caller.user, id, auth.source(request))
        except Refused as refused:
            return await draw(request, refused)
        return redirect(request, "/admin?done=deleted")
