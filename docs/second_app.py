"""A second app with the same sign-in: editors keep drafts. docs/reuse.md goes through it.

.venv/bin/python -m docs.second_app       # http://localhost:5002, sign in as admin@example.com
"""

import time
from pathlib import Path
from types import SimpleNamespace

from fasthtml.common import H1, Button, FastHTML, Form, Input, Li, P, Ul
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from auth import MIGRATIONS, EmailAuth, role_required, signed_in
from templates import STATIC, Templates, head
from templates.layout import post
from utils.chores import with_chore
from utils.database import connect, migrate
from utils.mailer import Console, Sender
from utils.outbox import Outbox, purge
from utils.server import serve
from utils.settings import new_secret
from utils.shield import Shield

OUTBOX_MIGRATIONS = Path(__file__).resolve().parent.parent / "utils" / "migrations"


def create(database_url, base_url, secret_key, transport, secure=True, clock=time.time):
    """Five lines of sign-in between the app and its pages."""
    db = connect(database_url)
    migrate(db, MIGRATIONS, OUTBOX_MIGRATIONS)
    outbox = Outbox(db, transport, Sender("drafts@example.com", "Drafts"), clock)
    alive = with_chore(outbox.lifespan, 600, lambda: (auth.tidy(), purge(db, clock())))
    static = [Mount("/static", StaticFiles(directory=STATIC))]
    look = {"default_hdrs": False, "hdrs": (head(),), "canonical": False, "routes": static}
    app = FastHTML(**look, sess_cls=None, secret_key=secret_key, lifespan=alive)
    templates = Templates("Drafts", base_url)
    known = {"base_url": base_url, "secret_key": secret_key, "secure": secure, "clock": clock}
    auth = EmailAuth(app, db, templates, outbox.put, **known)
    outbox.render = auth.letter
    outbox.patient = auth.notices
    db.q("insert into roles (name) values ('editor') on conflict (name) do nothing")

    @app.get("/")
    async def home():
        return RedirectResponse("/dashboard", 303)

    @app.get("/dashboard", before=signed_in)
    async def dashboard(auth):
        return templates.page("Dashboard", H1("Welcome"), P(auth.address), caller=auth)

    @app.get("/drafts", before=role_required("editor"))
    async def drafts(auth, session):
        titles = Ul(*[Li(title) for title in session.get("drafts", [])])
        form = Form(Input(name="title", aria_label="Title"), Button("Keep"), **post("/drafts"))
        return templates.page("Drafts", H1("Drafts"), titles, form, caller=auth)

    @app.post("/drafts", before=role_required("editor"))
    async def keep(request: Request, session):
        form = await request.form()
        session["drafts"] = [*session.get("drafts", []), str(form.get("title", ""))[:80]]
        return RedirectResponse("/drafts", 303)

    async def ready():
        return outbox.alive()

    paths = {"private": ["/link", "/undo_address"], "large": auth.large}
    asgi = Shield(app, base_url, templates.problem, ready, not secure, **paths)
    return SimpleNamespace(asgi=asgi, auth=auth, db=db, outbox=outbox)


if __name__ == "__main__":
    url = "http://localhost:5002"
    house = create("sqlite:///data/second.db", url, new_secret(), Console(), secure=False)
    house.auth.people.ensure_admins(("admin@example.com",))
    print(f"Drafts: open {url}/login", flush=True)
    serve(house.asgi, "127.0.0.1", 5002)
