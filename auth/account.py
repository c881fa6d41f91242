"""HTTP for one's own account: name and zone, address, where one is signed in, one's data, the end. The rules are
oneself.py's and moving.py's."""

import json
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from auth.email_auth import EmailAuth
from auth.gate import is_htmx
from auth.guards import LOGIN, confirmed, redirect, signed_in
from auth.policy import Refused
from auth.routes import answer, fields
from auth.typed import safe_next

PATH = "/account"
UNDO = "/undo_address"


def add_routes(app: Any, auth: EmailAuth) -> None:
    rules, pages, run = auth.signin, auth.templates, auth.db.run

    async def draw(
        request: Request,
        done: str = "",
        refused: Refused | None = None,
        place: str = "",
        typed: str = "",
    ) -> Response:
        """`place`: the form that was refused, where it draws that itself."""
        caller = request.scope["auth"]
        own = await run(rules.own, caller.user, caller.session_id)
        content = pages.account(own, caller, done, refused, place, typed)
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

    # ---- another address
    @app.post(f"{PATH}/address", before=confirmed)
    async def account_address(request: Request) -> Response:
        caller = request.scope["auth"]
        (email,) = await fields(request, "email")
        here = caller.session_id
        try:
            await run(rules.ask_to_move, caller.user, here, email, auth.browser(request))
        except Refused as refused:
            auth.failed(request, refused)
            return await draw(request, "", refused, "address", email)
        if is_htmx(request):
            return await draw(request, "asked")
        return redirect(request, f"{PATH}?done=asked")

    @app.post(f"{PATH}/address/code", before=signed_in)
    async def account_address_code(request: Request) -> Response:
        caller = request.scope["auth"]
        (code,) = await fields(request, "code")
        try:
            await run(rules.move, caller.user, caller.session_id, code, auth.browser(request))
        except Refused as refused:
            auth.failed(request, refused)
            return await draw(request, "", refused, "code")
        return redirect(request, f"{PATH}?done=moved")

    @app.get(UNDO)
    async def undo_page(request: Request) -> Response:
        """Draws only, as the page of a sign-in's link does: mail scanners open every link."""
        content = pages.page("Your address", pages.undo(), width="door")
        return HTMLResponse(content)

    @app.post(UNDO)
    async def undo_address(request: Request) -> Response:
        (pasted,) = await fields(request, "token")
        caller = request.scope["auth"]
        try:
            undone = await run(rules.undo_move, pasted, auth.source(request))
        except Refused as refused:
            auth.failed(request, refused)
            return answer(auth, request, "Your address", pages.undo(refused), refused)
        ended = caller is not None and caller.user.id == undone.user_id
        if ended:
            request.scope["auth"] = None  # or the page would have their menu
        response = answer(auth, request, "Your address", pages.undone(undone.address))
        if ended:
            auth.dismiss(response, everywhere=True)
        return response

    # ---- where one is signed in
    @app.post(f"{PATH}/sessions/{{id}}/end", before=signed_in)
    async def account_end_session(request: Request) -> Response:
        return await change(request, rules.end_one, request.path_params["id"], done="ended")

    @app.post(f"{PATH}/sessions/end_others", before=signed_in)
    async def account_end_others(request: Request) -> Response:
        here = request.scope["auth"].session_id
        return await change(request, rules.end_others, here, done="others")

    # ---- organisations
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
        caller = request.scope["auth"]
        tenant, sure = await fields(request, "tenant", "sure")
        if sure == "yes":
            return await change(request, rules.leave, tenant, done="left")
        try:
            found = await run(rules.membership, caller.user, tenant)
        except Refused as refused:
            return await draw(request, refused=refused)
        content = pages.leave_sure(found)
        return HTMLResponse(pages.page("Account", content, caller=caller, width="door"))

    # ---- one's data, and the end
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
        response = redirect(request, f"{LOGIN}?done=deleted")
        auth.dismiss(response, everywhere=True)
        return response

    @app.get("/confirm", before=signed_in)
    async def confirm(request: Request) -> Response:
        """Before what can't be undone: a code, once more. It begins this person's session anew."""
        caller = request.scope["auth"]
        wanted = safe_next(request.query_params.get("next"))
        content = pages.confirm(caller.address, wanted)
        return HTMLResponse(pages.page("Is it you?", content, caller=caller, width="door"))
