"""HTTP for admins: the organisations, and one of them, also for those who run it. The rules are organisations.py's
and members.py's."""

import logging
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from auth.admin import page_number
from auth.audit_admin import csv_answer
from auth.email_auth import EmailAuth
from auth.guards import admin_required, confirmed, redirect, tenant_admin_required, to_confirm
from auth.policy import Refused
from auth.routes import answer, fields
from auth.typed import HOME

log = logging.getLogger("auth.tenant_admin")

PATH, TITLE = "/admin/organisations", "Organisations"
ONE = f"{PATH}/{{id}}"
SOMEBODY = f"{ONE}/people/{{user}}"


def theirs(auth: EmailAuth) -> Callable[[Request], Any]:
    """What stands before each page of one organisation, behind the guard `tenant_admin_required`."""

    async def of_theirs(request: Request) -> Response | None:
        """Another organisation's id is answered as one that nobody has, and nothing was looked up."""
        caller, id = request.scope["auth"], request.path_params["id"]
        if caller.runs(id):
            return None
        # ASVS 16.3.3
        log.warning("%r refused to user %s, who runs %s", id, caller.user.id, caller.tenant)
        return auth.refuse(request, 404)

    return of_theirs


def title(request: Request) -> str:
    """As the menu has it: the list for some, the one for others."""
    return TITLE if request.scope["auth"].is_admin else "Organisation"


def add_routes(app: Any, auth: EmailAuth) -> None:
    rules, pages, run = auth.organisations, auth.templates, auth.db.run
    pages.offer(PATH, TITLE)
    own = (tenant_admin_required, theirs(auth))

    def show(request: Request, content: Any, refused: Refused | None = None) -> Response:
        return answer(auth, request, title(request), content, refused, "wide")

    def ask(request: Request, content: Any) -> Response:
        """A page "are you sure?"."""
        caller = request.scope["auth"]
        return HTMLResponse(pages.page(title(request), content, caller=caller, width="door"))

    # ---- the list
    async def every(request: Request, refused: Refused | None = None) -> Response:
        get = request.query_params.get
        found = await run(rules.find, get("q", ""), page_number(get("page", "")))
        return show(request, pages.tenants_page(found, get("done", ""), refused), refused)

    @app.get(PATH, before=admin_required)
    async def admin_tenants(request: Request) -> Response:
        return await every(request)

    @app.post(PATH, before=(admin_required, confirmed))
    async def admin_add_tenant(request: Request) -> Response:
        name, email = await fields(request, "name", "email")
        user = request.scope["auth"].user
        try:
            made = await run(rules.create, user, name, email, auth.source(request))
        except Refused as refused:
            refused.facts["typed"] = name, email  # nobody types it twice
            return await every(request, refused)
        return redirect(request, f"{PATH}/{made.id}?done=made")

    # ---- one of them
    async def one(request: Request, refused: Refused | None = None) -> Response:
        get, caller = request.query_params.get, request.scope["auth"]
        wanted = get("q", ""), get("sort", ""), page_number(get("page", ""))
        try:
            found = await run(rules.look, caller.user, request.path_params["id"], *wanted)
        except Refused:
            return auth.refuse(request, 404)
        content = pages.tenant_page(found, caller, get("done", ""), refused)
        return show(request, content, refused)

    async def change(request: Request, act: Callable[..., Any], *args: Any, done: str) -> Response:
        """Do it, then show the organisation."""
        id, user = request.path_params["id"], request.scope["auth"].user
        try:
            await run(act, user, id, *args, auth.source(request))
        except Refused as refused:
            refused.facts["typed"] = args  # nobody types it twice
            return await one(request, refused)
        return redirect(request, f"{PATH}/{id}?done={done}")

    @app.get(ONE, before=own)
    async def admin_tenant(request: Request) -> Response:
        return await one(request)

    @app.post(f"{ONE}/name", before=own)
    async def admin_rename_tenant(request: Request) -> Response:
        (name,) = await fields(request, "name")
        return await change(request, rules.rename, name, done="renamed")

    @app.post(f"{ONE}/members", before=admin_required)
    async def admin_join(request: Request) -> Response:
        email, role = await fields(request, "email", "role")
        if role == "admin" and not request.scope["auth"].confirmed:
            return to_confirm(request)
        return await change(request, rules.add_member, email, role, done="joined")

    @app.post(f"{ONE}/delete", before=(admin_required, confirmed))
    async def admin_delete_tenant(request: Request) -> Response:
        id, caller = request.path_params["id"], request.scope["auth"]
        (sure,) = await fields(request, "sure")
        try:
            if sure != "yes":
                return ask(request, pages.tenant_sure(await run(rules.look, caller.user, id)))
            await run(rules.delete, caller.user, id, auth.source(request))
        except Refused:
            return auth.refuse(request, 404)
        return redirect(request, f"{PATH}?done=deleted")

    # ---- one of its people
    async def somebody(request: Request, refused: Refused | None = None) -> Response:
        caller, at = request.scope["auth"], request.path_params
        try:
            found = await run(rules.look_at, caller.user, at["id"], at["user"])
        except Refused:
            return auth.refuse(request, 404)
        done = request.query_params.get("done", "")
        return show(request, pages.member_page(found, caller, done, refused), refused)

    async def change_somebody(
        request: Request, act: Callable[..., Any], *args: Any, then: str
    ) -> Response:
        caller, at = request.scope["auth"], request.path_params
        try:
            await run(act, caller.user, at["id"], at["user"], *args, auth.source(request))
        except Refused as refused:
            return await somebody(request, refused)
        # Who has changed themselves may not come here any more.
        leaves = at["user"] == caller.user.id and not caller.is_admin
        return redirect(request, HOME if leaves else then)

    @app.get(SOMEBODY, before=own)
    async def admin_member(request: Request) -> Response:
        return await somebody(request)

    @app.post(f"{SOMEBODY}/role", before=own)
    async def admin_member_role(request: Request) -> Response:
        (role,) = await fields(request, "role")
        if role == "admin" and not request.scope["auth"].confirmed:
            return to_confirm(request)
        then = f"{request.url.path.removesuffix('/role')}?done=role"
        return await change_somebody(request, rules.set_role, role, then=then)

    @app.post(f"{SOMEBODY}/remove", before=own)
    async def admin_leave(request: Request) -> Response:
        caller, at = request.scope["auth"], request.path_params
        (sure,) = await fields(request, "sure")
        if sure == "yes":
            then = f"{PATH}/{at['id']}?done=left"
            return await change_somebody(request, rules.remove, then=then)
        try:
            found = await run(rules.look_at, caller.user, at["id"], at["user"])
        except Refused:
            return auth.refuse(request, 404)
        return ask(request, pages.member_sure(found, caller))

    # ---- what happened in it
    @app.get(f"{ONE}/audit", before=own)
    async def admin_tenant_audit(request: Request) -> Response:
        get, caller, id = request.query_params.get, request.scope["auth"], request.path_params["id"]
        audit = rules.audit(caller.user, id)
        wanted = audit.tidy(get("q", ""), get("kind", ""), get("days", ""))
        try:
            tenant = await run(rules.itself, caller.user, id)
            found = await run(audit.look, wanted, get("before", ""))
        except Refused:
            return auth.refuse(request, 404)
        return show(request, pages.audit_page(found, caller, tenant))

    @app.post(f"{ONE}/audit.csv", before=(*own, confirmed))
    async def admin_tenant_csv(request: Request) -> Response:
        user = request.scope["auth"].user
        audit = rules.audit(user, request.path_params["id"])
        wanted = audit.tidy(*await fields(request, "q", "kind", "days"))
        try:
            first = await run(audit.download, user, wanted, auth.source(request))
        except Refused:
            return auth.refuse(request, 404)
        return csv_answer(auth, audit, wanted, first)
