"""HTTP for one's own account: name and zone, where one is signed in, one's data, the end. The rules are oneself.py's."""

import json
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from auth.email_auth import EmailAuth
from auth.guards import LOGIN, confirmed, redirect, signed_in
from auth.policy import Refused
from auth.routes import answer, fields
from auth.typed import safe_next

PATH = "/account"


def add_routes(app: Any, auth: EmailAuth) -> None:
    rules, pages, run = auth.signin, auth.templates, auth.db.run

    async def draw(request: Request, done: str = "", refused: Refused | None = None) -> Response:
        caller = request.scope["auth"]
        own = await run(rules.own, caller.user, caller.session_id)
        content = pages.account(own, caller, done, refused)
        return answer(auth, request, "Account", content, refused, "")

    async def change(request: Request, act: Callable[..., Any], *args: Any, done: str) -> Response:
        """Do it, then go to the page; what can't be done is drawn into it."""
        user = request.scope["auth"].user
        try:
            await run(act, user, *args, auth.source(request))
        except Refused as refused:
            return await draw(request, refused=refused)
        return redirect(request, f"{PATH}?done={done}")

    @app.get(PATH, before=signed_in)
    async def account(request: Request) -> Response:
        return await draw(request, request.query_params.get("done", ""))

    @app.post(f"{PATH}/name", before=signed_in)
    async def account_name(request: Request) -> Response:
        name, zone = await fields(request, "name", "zone")
        return await change(request, rules.rename, name, zone, done="saved")

    @app.post(f"{PATH}/sessions/{{id}}/end", before=signed_in)
    async def account_end_session(request: Request) -> Response:
        return await change(request, rules.end_one, request.path_params["id"], done="ended")

    @app.post(f"{PATH}/sessions/end_others", before=signed_in)
    async def account_end_others(request: Request) -> Response:
        here = request.scope["auth"].session_id
        return await change(request, rules.end_others, here, done="others")

    @app.post(f"{PATH}/tenant", before=signed_in)
    async def account_tenant(request: Request) -> Response:
        caller = request.scope["auth"]
        (tenant,) = await fields(request, "tenant")
        try:
            await run(rules.work_in, caller.user, caller.session_id, tenant)
        except Refused as refused:
            return await draw(request, refused=refused)
        return redirect(request, f"{PATH}?done=tenant")

    @app.post(f"{PATH}/leave", before=signed_in)
    async def account_leave(request: Request) -> Response:
        (tenant,) = await fields(request, "tenant")
        return await change(request, rules.leave, tenant, done="left")

    @app.post(f"{PATH}/data", before=confirmed)
    async def account_data(request: Request) -> Response:
        found = await run(rules.download, request.scope["auth"].user, auth.source(request))
        headers = {"Content-Disposition": 'attachment; filename="my-data.json"'}
        return Response(json.dumps(found, indent=1), headers=headers, media_type="application/json")

    @app.post(f"{PATH}/delete", before=confirmed)
    async def account_delete(request: Request) -> Response:
        caller = request.scope["auth"]
        (sure,) = await fields(request, "sure")
        if sure != "yes":
            content = pages.delete_sure(caller)
            return HTMLResponse(pages.page("Account", content, caller=caller, width="door"))
        try:
            await run(rules.delete, caller.user, auth.source(request))
        except Refused as refused:
            return await draw(request, refused=refused)
        response = redirect(request, LOGIN)
        auth.dismiss(response, everywhere=True)
        return response

    @app.get("/confirm", before=signed_in)
    async def confirm(request: Request) -> Response:
        """Before what can't be undone: a code, once more. It begins this person's session anew."""
        caller = request.scope["auth"]
        wanted = safe_next(request.query_params.get("next"))
        content = pages.confirm(caller.address, wanted)
        return HTMLResponse(pages.page("Is it you?", content, caller=caller, width="door"))
