"""HTTP for admins: figures and charts. The rules are overview.py's."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from auth.email_auth import EmailAuth
from auth.guards import admin_required
from auth.routes import answer

PATH = "/admin/overview"


def add_routes(app: Any, auth: EmailAuth) -> None:
    pages, run = auth.templates, auth.db.run
    pages.offer(PATH, "Overview")

    @app.get(PATH, before=admin_required)
    async def admin_overview(request: Request) -> Response:
        counts, counted_at = await run(auth.people.counts)
        days = await run(auth.overview.days)
        content = pages.overview(counts, counted_at, days, request.scope["auth"])
        return answer(auth, request, "Overview", content, width="wide")
