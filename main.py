"""The front door: settings, database, app, sign-in, and your own pages."""

import logging
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from fasthtml.common import FastHTML
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from auth import HEARD, MIGRATIONS, EmailAuth, Policy, Refused, signed_in
from templates import STATIC, Templates, assets, head
from utils.chores import with_chore
from utils.database import Unavailable, connect, migrate
from utils.logs import setup
from utils.mailbox import open_mailbox
from utils.mailer import Sender, mail_transport
from utils.metrics import Metrics
from utils.outbox import Outbox, purge
from utils.server import serve
from utils.settings import EX_CONFIG, Settings, advice, load
from utils.shield import Shield

OUTBOX_MIGRATIONS = Path(__file__).parent / "utils" / "migrations"


def add_pages(app, templates):
    """Your own pages. A guard in `before=`, `auth` and `session` as parameters, a page as the answer."""

    @app.get("/")
    async def home(auth):
        return templates.home(auth)

    # The page that is opened most, as a plain Starlette route: at half the price.
    async def dashboard(request):
        refusal = signed_in.check(request)
        return refusal or HTMLResponse(templates.dashboard(request.scope["auth"]))

    app.router.routes.insert(0, Route("/dashboard", dashboard, methods=["GET"]))


def build(settings: Settings, clock=time.time, transport=None) -> SimpleNamespace:
    """Introduce the rooms to each other. Returns them; `.asgi` is what a server runs."""
    db = connect(settings.database_url)
    migrate(db, MIGRATIONS, OUTBOX_MIGRATIONS)
    sender = Sender(settings.mail_from or "", settings.mail_from_name, settings.mail_reply_to)
    outbox = Outbox(db, transport or mail_transport(settings), sender, clock, settings.mail_rate)
    policy = policy_of(settings)
    templates = Templates(
        settings.app_name,
        settings.base_url,
        policy.code_seconds,
        settings.code_in_subject,
        settings.mail_backend,
        settings.mail_origin_bound,
    )
    app = FastHTML(  # not fast_app(): it serves the working directory and what lies above it
        title=settings.app_name,
        default_hdrs=False,
        hdrs=(head(),),
        htmlkw={"lang": "en"},
        canonical=False,  # it would copy a whole URL, with whatever is in it, into the page
        sess_cls=None,  # sessions are rows on the server
        secret_key=settings.secret_key,
        lifespan=with_chore(outbox.lifespan, 600, lambda: (auth.tidy(), purge(db, clock()))),
        routes=[Mount("/static", StaticFiles(directory=STATIC))],
    )
    metrics = Metrics(settings.metrics_token, HEARD) if settings.metrics_token else None
    auth = EmailAuth(
        app,
        metrics.timed(db) if metrics else db,
        templates,
        outbox.put,
        base_url=settings.base_url,
        secret_key=settings.secret_key,
        previous_key=settings.secret_key_previous,
        secure=not settings.development,
        trusted_proxies=settings.trusted_proxies,
        name=settings.app_name,
        app_link_url=settings.app_link_url,
        cors_origins=settings.cors_origins,
        mail_slow=outbox.slow,
        mail=outbox,
        on_event=metrics.heard if metrics else None,
        policy=policy,
        clock=clock,
    )
    outbox.render, outbox.refused = auth.letter, auth.undeliverable
    outbox.patient = auth.notices
    if settings.development and settings.mail_backend == "console":
        outbox.transport = open_mailbox(app, outbox.transport, templates.mailbox)
    auth.people.ensure_admins(settings.admin_emails)
    for kind in (HTTPException, 404, 500):
        app.add_exception_handler(kind, auth.on_error)
    add_pages(app, templates)

    url, dev, ready = settings.base_url, settings.development, outbox.ready
    paths = ["/link", "/undo_address"], auth.programs, auth.large
    asgi = Shield(app, url, templates.problem, ready, dev, assets(), *paths)
    if metrics:
        asgi = metrics.watch(app, asgi, outbox.queue, auth.spent)
    return SimpleNamespace(app=app, asgi=asgi, auth=auth, db=db, outbox=outbox, templates=templates)


def policy_of(s: Settings) -> Policy:
    return Policy(
        code_length=s.code_length,
        code_seconds=round(s.code_ttl_minutes * 60),
        session_idle_seconds=round(s.session_idle_days * 86400),
        session_max_seconds=round(s.session_max_days * 86400),
        access_seconds=round(s.access_token_expire_minutes * 60),
        refresh_idle_seconds=round(s.refresh_token_expire_days * 86400),
        refresh_max_seconds=round(s.refresh_token_expire_days * 3 * 86400),
        magic_links=s.magic_links,
        link_seconds=max(60, 60 * round(s.magic_link_expire_days * 1440)),  # 0.0104 is 15 minutes
        signup=s.signup,
        signup_domains=s.signup_domains,
        reveal_unregistered=s.reveal_unregistered,
        starts_per_ip=s.limit_starts_per_ip,
        mails_per_address=s.limit_mails_per_address,
        wrong_per_ip=s.limit_wrong_per_ip,
        wrong_per_account=s.limit_wrong_per_account,
        wrong_fleet=s.limit_wrong_fleet,
        mails_fleet=s.limit_mails_fleet,
    )


if __name__ == "__main__":
    settings = load()  # a bad setting ends the process here, before anything listens
    setup(settings.log_level, settings.log_format)
    for name, remark in advice(settings):
        logging.getLogger("settings").warning("%s: %s", name, remark)
    try:
        house = build(settings)
    except (Unavailable, RuntimeError) as error:
        sys.exit(f"DATABASE_URL: {error}")
    except Refused:
        bad = "ADMIN_EMAILS: holds an address that can't be mailed; mend or remove it"
        print(bad, file=sys.stderr)
        sys.exit(EX_CONFIG)
    print(f"{settings.app_name}: open {settings.base_url}/login", flush=True)
    serve(house.asgi, settings.host, settings.port)
    house.db.close()
