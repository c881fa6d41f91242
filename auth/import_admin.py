"""HTTP for admins: many people at once, from a list that is pasted or a file. The rules are importing.py's."""

from dataclasses import replace
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from auth.email_auth import IMPORT, EmailAuth
from auth.guards import CONFIRM, admin_required, redirect
from auth.importing import MAX_FORM, Plan, batches, decoded, read
from auth.policy import Refused
from auth.routes import answer, fields


def add_routes(app: Any, auth: EmailAuth) -> None:
    rules, pages, run = auth.importing, auth.templates, auth.db.run

    async def draw(
        request: Request, typed: tuple[str, str, str] = ("", "", "user"), no: Refused | None = None
    ) -> Response:
        tenants, roles = await run(rules.choices)
        return answer(auth, request, "People", pages.import_page(tenants, roles, typed, no), no, "")

    # Both in steps, so that others are served in between.
    async def look(request: Request, plan: Plan) -> Response:
        rows = []
        for part in batches(plan.rows):
            rows += await run(rules.foresee, part, plan.tenant)
        content = pages.import_preview(replace(plan, rows=rows), request.scope["auth"])
        return answer(auth, request, "People", content, width="wide")

    async def act(request: Request, plan: Plan) -> Response:
        done, user, no = [], request.scope["auth"].user, None
        try:
            for part in batches(plan.rows):
                done += await run(rules.put, user, part, plan.tenant, auth.source(request))
        except Refused as refused:
            # What was done before it stays, and is told.
            no = refused
        content = pages.import_done(replace(plan, rows=done), no)
        return answer(auth, request, "People", content, no, "wide")

    async def page(request: Request) -> Response:
        return admin_required.check(request) or await draw(request)

    async def take(request: Request) -> Response:
        if refusal := admin_required.check(request):
            return refusal
        text = await uploaded(request)
        typed, tenant, role, sure = await fields(request, "text", "tenant", "role", "sure")
        text, role = text or typed, role or "user"
        try:
            found = await run(rules.tenant, tenant)
            plan = Plan(await run_in_threadpool(read, text, role), found, role, text)
        except Refused as refused:
            return await draw(request, (typed, tenant, role), refused)
        if sure != "yes":
            return await look(request, plan)
        if plan.admins and not request.scope["auth"].confirmed:
            return redirect(request, f"{CONFIRM}?next={IMPORT}")
        return await act(request, plan)

    # Plain routes: FastHTML would read the body, which is a large one here, before it asks the guard.
    app.router.routes[:0] = [
        Route(IMPORT, page, methods=["GET"]),
        Route(IMPORT, take, methods=["POST"]),
    ]


async def uploaded(request: Request) -> str:
    """The text of the file in this form, "" without one. What is read here, `fields` finds read."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return ""
    async with request.form(max_files=1, max_fields=50, max_part_size=MAX_FORM) as form:
        file = form.get("file")
        return decoded(await file.read()) if isinstance(file, UploadFile) else ""
