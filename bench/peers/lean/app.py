"""The floor: the least that a careful sign-in by code does on FastHTML. It is here to be measured, and no product.

The code is a row with a keyed digest that is bound to the address; tries are counted before they are compared; a code works once; the
session is a row with a digest; other sites can't post. The pages are drawn once, the routes are Starlette's own, the mail leaves over one
kept connection. There are no limits, no record, no roles, and a mail that was not sent when the process ends is lost.
"""

import asyncio
import hashlib
import hmac
import os
import re
import secrets
import time
from email.utils import formatdate
from html import escape
from urllib.parse import parse_qsl

import apsw
from fasthtml.common import (
    H1,
    Body,
    Button,
    FastHTML,
    Form,
    Head,
    Hidden,
    Html,
    Input,
    Main,
    P,
    Title,
    to_xml,
)
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

KEY = b"bench-0d9c2be1a76f4583-bench-0d9c"
MINUTES, TRIES, DAYS = 15, 5, 14
ORIGIN = f"http://127.0.0.1:{os.environ['PORT']}"
ADDRESS = re.compile(r"[^@\s]{1,64}@[a-z0-9.-]{1,190}")
DATABASE = apsw.Connection(os.environ["DATABASE"])
for statement in (
    "pragma journal_mode = wal",
    "pragma synchronous = full",
    "create table if not exists people (id integer primary key, email text not null unique)",
    "create table if not exists codes (email text primary key, digest blob, ends_at int, tries int) without rowid",
    "create table if not exists sessions (digest blob primary key, person int, ends_at int) without rowid",
):
    DATABASE.execute(statement)


def one(statement, *values):
    return DATABASE.execute(statement, values).fetchone()


def code_digest(email, code):
    return hmac.digest(KEY, f"{email}\n{code}".encode(), "sha256")


# ---- pages
def page(title, *content):
    return to_xml(Html(Head(Title(title)), Body(Main(H1(title), *content, cls="container"))))


ASK = page(
    "Sign in",
    Form(Input(name="email", type="email"), Button("Send a code"), action="/code", method="post"),
)
ENTER = page(
    "Look into your mail",
    P("If the address is known, a code is on its way."),
    Form(
        Hidden("{email}", name="email"),
        Input(name="code"),
        Button("Sign in"),
        action="/verify",
        method="post",
    ),
)
REFUSED = page("Sign in", P("The code is wrong or has ended."))
DASHBOARD = page("Dashboard", P("Signed in as {email}"))


def with_address(text, email):
    return HTMLResponse(text.replace("{email}", escape(email)))


# ---- routes
def foreign(request):
    heads = request.headers
    return heads.get("origin", ORIGIN) != ORIGIN or heads.get("sec-fetch-site", "none") not in (
        "none",
        "same-origin",
    )


async def form(request):
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > 4096:
            return {}
    return dict(parse_qsl(body.decode(errors="replace"), max_num_fields=8))


async def ask(request):
    return HTMLResponse(ASK)


async def code(request):
    if foreign(request):
        return Response(status_code=403)
    email = (await form(request)).get("email", "").strip().lower()
    if ADDRESS.fullmatch(email):
        made = f"{secrets.randbelow(10**6):06}"
        one(
            "replace into codes values (?, ?, ?, 0)",
            email,
            code_digest(email, made),
            int(time.time()) + MINUTES * 60,
        )
        if one("select 1 from people where email = ?", email):
            post.queue.put_nowait((email, made))
    return with_address(ENTER, email)


def session_for(email, entered, now):
    """The token of a new session, if the code is right."""
    with DATABASE:
        tried = one(
            "update codes set tries = tries + 1 where email = ? and ends_at > ? and tries < ? returning digest",
            email,
            now,
            TRIES,
        )
        if tried is None or not hmac.compare_digest(tried[0], code_digest(email, entered)):
            return None
        one("delete from codes where email = ?", email)
        person = one("select id from people where email = ?", email)
        token = secrets.token_urlsafe(32)
        if person:
            digest = hashlib.sha256(token.encode()).digest()
            one("insert into sessions values (?, ?, ?)", digest, person[0], now + DAYS * 86400)
        return person and token


async def verify(request):
    if foreign(request):
        return Response(status_code=403)
    fields = await form(request)
    token = session_for(
        fields.get("email", "").strip().lower(), fields.get("code", "").strip(), int(time.time())
    )
    if not token:
        return HTMLResponse(REFUSED)
    answer = RedirectResponse("/dashboard", 303)
    answer.set_cookie("session", token, DAYS * 86400, httponly=True, samesite="lax", secure=True)
    return answer


async def dashboard(request):
    digest = hashlib.sha256(request.cookies.get("session", "").encode()).digest()
    found = one(
        "select email, ends_at from sessions join people on id = person where digest = ?", digest
    )
    if not found or found[1] < time.time():
        return RedirectResponse("/", 303)
    return with_address(DASHBOARD, found[0])


# ---- mail
LETTER = (
    "From: noreply@example.com\r\nTo: {email}\r\nSubject: Your code to sign in\r\nDate: {date}\r\nMessage-ID: <{id}@example.com>\r\n"
    "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    "Your code to sign in is {code}\r\n\r\nIt works for 15 minutes. If you did not ask for it, ignore this mail.\r\n.\r\n"
)


class Smtp(asyncio.Protocol):
    """A kept connection that sends what can be sent together at once (RFC 2920)."""

    def connection_made(self, transport):
        self.transport, self.heard = transport, b""
        self.hears(1)

    def hears(self, answers):
        self.answers, self.future = answers, asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.heard += data
        if (
            len(re.findall(rb"(?m)^\d{3} ", self.heard)) == self.answers
            and self.heard.endswith(b"\n")
            and not self.future.done()
        ):
            self.future.set_result(self.heard)

    def connection_lost(self, error):
        if not self.future.done():
            self.future.set_exception(ConnectionError())

    async def say(self, text, answers, wanted):
        self.heard = b""
        self.hears(answers)
        self.transport.write(text.encode())
        if wanted not in await self.future:
            raise ConnectionError(self.heard)


class Post:
    def __init__(self):
        self.queue, self.smtp = asyncio.Queue(), None

    async def open(self):
        loop = asyncio.get_running_loop()
        _, self.smtp = await loop.create_connection(Smtp, "127.0.0.1", int(os.environ["SMTP_PORT"]))
        await self.smtp.future
        await self.smtp.say("EHLO localhost\r\n", 1, b"250")

    async def work(self):
        while True:
            email, made = await self.queue.get()
            for _ in range(3):
                try:
                    if self.smtp is None or self.smtp.transport.is_closing():
                        await self.open()
                    await self.smtp.say(
                        f"MAIL FROM:<noreply@example.com>\r\nRCPT TO:<{email}>\r\nDATA\r\n",
                        3,
                        b"354",
                    )
                    await self.smtp.say(
                        LETTER.format(
                            email=email, code=made, date=formatdate(), id=secrets.token_hex(12)
                        ),
                        1,
                        b"250",
                    )
                    break
                except OSError:
                    self.smtp = None


post = Post()


async def start():
    app.state.post = asyncio.create_task(post.work())


app = FastHTML(secret_key="bench-4f81", on_startup=[start])
app.router.routes[:0] = [
    Route("/", ask),
    Route("/code", code, methods=["POST"]),
    Route("/verify", verify, methods=["POST"]),
    Route("/dashboard", dashboard),
]
