"""HTTP for admins: the record of what happened, page by page and as CSV. The rules are audit.py's."""

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from auth.audit import Audit, Part, Wanted
from auth.email_auth import EmailAuth
from auth.guards import admin_required, confirmed
from auth.routes import answer, fields

PATH = "/admin/audit"


def add_routes(app: Any, auth: EmailAuth) -> None:
    audit, pages, run = auth.audit, auth.templates, auth.db.run
    pages.offer(PATH, "Audit")

    @app.get(PATH, before=admin_required)
    async def admin_audit(request: Request) -> Response:
        get, caller = request.query_params.get, request.scope["auth"]
        wanted = audit.tidy(get("q", ""), get("kind", ""), get("days", ""))
        found = await run(audit.look, wanted, get("before", ""))
        content = pages.audit_page(found, caller)
        return answer(auth, request, "Audit", content, width="wide")

    @app.post(f"{PATH}.csv", before=(admin_required, confirmed))
    async def admin_audit_csv(request: Request) -> Response:
        wanted = audit.tidy(*await fields(request, "q", "kind", "days"))
        # Before the answer begins: a database that can't serve is a 503, and no empty file.
        first = await run(audit.download, request.scope["auth"].user, wanted, auth.source(request))
        return csv_answer(auth, audit, wanted, first)


def csv_answer(auth: EmailAuth, audit: Audit, wanted: Wanted, first: Part) -> Response:
    """A file of these events, and of all that follow them."""
    pages, run = auth.templates, auth.db.run

    async def lines() -> AsyncIterator[str]:
        yield pages.audit_csv(None)
        part = first
        yield pages.audit_csv(part.rows)
        while part.before:
            part = await run(audit.step, wanted, part.before)
            yield pages.audit_csv(part.rows)

    headers = {"Content-Disposition": 'attachment; filename="audit.csv"'}
    return StreamingResponse(lines(), headers=headers, media_type="text/csv")
