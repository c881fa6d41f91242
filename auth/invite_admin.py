"""HTTP of invitations: an organisation's, for who runs it, and one's own. The rules are inviting.py's."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from auth.admin import page_number
from auth.email_auth import EmailAuth
from auth.guards import CONFIRM, redirect, signed_in, tenant_admin_required
from auth.letters import INVITATIONS
from auth.policy import Refused
from auth.routes import answer, fields
from auth.tenant_admin import theirs, title

PATH = "/admin/organisations/{id}/invitations"


def add_routes(app: Any, auth: EmailAuth) -> None:
    rules, pages, run = auth.inviting, auth.templates, auth.db.run
    own = (tenant_admin_required, theirs(auth))

    # ---- for who runs an organisation
    async def draw(request: Request, refused: Refused | None = None) -> Response:
        get, caller = request.query_params.get, request.scope["auth"]
        tenant = request.path_params["id"]
        try:
            found = await run(rules.look, caller.user, tenant, page_number(get("page", "")))
        except Refused:
            return auth.refuse(request, 404)
        content = pages.invitations_page(found, caller, get("done", ""), refused)
        return answer(auth, request, title(request), content, refused, "wide")

    async def change(request: Request, act: Callable[..., Any], *args: Any, done: str) -> Response:
        """Do it, and show the list. An invitation that is not theirs is one that does not exist."""
        tenant, user = request.path_params["id"], request.scope["auth"].user
        try:
            await run(act, user, tenant, *args, auth.source(request))
        except Refused as refused:
            if refused.reason == "invitation_unknown":
                return auth.refuse(request, 404)
            # Nobody types it twice.
            refused.facts["typed"] = args
            return await draw(request, refused)
        return redirect(request, f"{PATH.format(id=tenant)}?done={done}")

    @app.get(PATH, before=own)
    async def admin_invitations(request: Request) -> Response:
        return await draw(request)

    @app.post(PATH, before=own)
    async def admin_invite(request: Request) -> Response:
        email, role = await fields(request, "email", "role")
        if role == "admin" and not request.scope["auth"].confirmed:
            back = PATH.format(id=quote(request.path_params["id"], safe=""))
            return redirect(request, f"{CONFIRM}?next={quote(back)}")
        return await change(request, rules.invite, email, role, done="sent")

    @app.post(f"{PATH}/{{invitation}}/again", before=own)
    async def admin_invite_again(request: Request) -> Response:
        return await change(request, rules.again, request.path_params["invitation"], done="again")

    @app.post(f"{PATH}/{{invitation}}/withdraw", before=own)
    async def admin_withdraw(request: Request) -> Response:
        id = request.path_params["invitation"]
        return await change(request, rules.withdraw, id, done="withdrawn")

    # ---- for who is invited: shown to nobody but the address that they were mailed to, once it is proved
    async def mine(request: Request, refused: Refused | None = None) -> Response:
        caller = request.scope["auth"]
        found = await run(rules.mine, caller.user)
        done = request.query_params.get("done", "")
        content = pages.own_invitations(found, caller, done, refused)
        return answer(auth, request, "Invitations", content, refused, "")

    async def decide(request: Request, act: Callable[..., Any], *args: Any, done: str) -> Response:
        try:
            await run(act, request.scope["auth"].user, *args, auth.source(request))
        except Refused as refused:
            return await mine(request, refused)
        return redirect(request, f"{INVITATIONS}?done={done}")

    @app.get(INVITATIONS, before=signed_in)
    async def invitations(request: Request) -> Response:
        return await mine(request)

    @app.post(f"{INVITATIONS}/{{id}}/accept", before=signed_in)
    async def accept_invitation(request: Request) -> Response:
        here, id = request.scope["auth"].session_id, request.path_params["id"]
        return await decide(request, rules.accept, here, id, done="accepted")

    @app.post(f"{INVITATIONS}/{{id}}/decline", before=signed_in)
    async def decline_invitation(request: Request) -> Response:
        return await decide(request, rules.decline, request.path_params["id"], done="declined")
