"""A real Chromium before a real server. Whatever a browser complains of fails the test."""

import itertools
import re
import shutil
import sqlite3
import sys
import threading
import time

import httpx2
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.conftest import WIDE
from tests.serving import ROOT, Server

ADMIN = "admin@example.com"
ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
MAIL = re.compile(r"^│ To: (\S+) +│\n(?:│.*\n)*?│ ([0-9]{6}) +│$", re.MULTILINE)
REPORT_CSP = """document.addEventListener('securitypolicyviolation', function (event) {
  console.error('CSP: ' + event.violatedDirective + ' ' + event.blockedURI);
});"""


def eventually(probe, what):
    """What the probe finds, as soon as it finds something: another process is at work."""
    deadline, pause = time.monotonic() + 10, threading.Event()
    while not (found := probe()):
        assert time.monotonic() < deadline, f"no {what} within 10 s"
        pause.wait(0.01)
    return found


class Site:
    """A development server with SQLite and console mail, and what an admin and a mail reader do there."""

    def __init__(self, folder, **more):
        env = {
            "APP_ENV": "development",
            "BASE_URL": "",  # becomes the loopback address that the server listens on
            "DATA_DIR": str(folder),
            "DATABASE_URL": f"sqlite:///{folder}/vestibule.db",
            "MAIL_BACKEND": "console",
            "ADMIN_EMAILS": ADMIN,
        }
        self.server = Server(env | WIDE | more, folder)
        self.server.words = (sys.executable, ROOT / "main.py")
        self.url = self.server.url
        self._folder, self._numbers, self._admin = folder, itertools.count(1), None

    def start(self):
        self.server.start()
        return self

    def codes_to(self, address):
        """The codes that were mailed to one address, oldest first."""
        return [code for to, code in MAIL.findall(self.server.log) if to == address]

    def code(self, address, mail=1):
        """The code in the first (or another) mail to an address, which may be on its way yet."""
        return eventually(lambda: self.codes_to(address)[mail - 1 : mail], f"mail to {address}")[0]

    def session(self, address):
        """The token of a new session of this person, without a browser."""
        seen = len(self.codes_to(address))
        with self._client() as client:
            client.post("/create_code", data={"email": address})
            client.post("/verify_code", data={"code": self.code(address, seen + 1)})
            return client.cookies["session"]

    def _client(self, **more):
        headers = {"Origin": self.url, "Accept": "text/html"}
        return httpx2.Client(base_url=self.url, headers=headers, trust_env=False, **more)

    def add(self, role="user", name="", word="ada"):
        """A person that nobody else uses; their address."""
        self._admin = self._admin or self._client(cookies={"session": self.session(ADMIN)})
        address = f"{word}{next(self._numbers)}@example.org"
        form = {"email": address, "name": name, "role": role}
        assert self._admin.post("/admin/people", data=form).status_code == 303
        return address

    def sql(self, statement, *values):
        """Time passes here: what takes minutes is written into the rows."""
        database = sqlite3.connect(self._folder / "vestibule.db", timeout=10)
        try:
            with database:
                assert database.execute(statement, values).rowcount
        finally:
            database.close()

    def leave(self):
        if self._admin:
            self._admin.close()
        self.server.kill()


class Watch:
    """All that one browser context complained of, beside what a test provokes on purpose."""

    def __init__(self, context, origin):
        self._origin, self._allowed, self._heard = origin, [], []
        self.dialogs, self.accept = [], None
        context.add_init_script(REPORT_CSP)
        context.on("console", self._console)
        context.on("weberror", lambda event: self._heard.append(f"page error: {event.error}"))
        context.on("request", self._request)
        context.on("dialog", self._dialog)

    def allow(self, *statuses, text=None):
        """The browser reports each answer over 399 as an error; these statuses are what is tested."""
        self._allowed += [
            rf"^error: Failed to load resource: the server responded with a status of {status} \("
            for status in statuses
        ]
        self._allowed += [text] if text else []

    def complaints(self):
        return [h for h in self._heard if not any(re.search(a, h) for a in self._allowed)]

    def _console(self, message):
        if message.type in ("error", "warning", "assert"):
            self._heard.append(f"{message.type}: {message.text}")

    def _request(self, request):
        if not request.url.startswith(self._origin + "/"):
            self._heard.append(f"request: {request.url}")

    def _dialog(self, dialog):
        self.dialogs.append(dialog.message)
        if self.accept is None:
            self._heard.append(f"dialog: {dialog.message}")
        dialog.accept() if self.accept else dialog.dismiss()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site"))
    yield site.start()
    site.leave()


@pytest.fixture(scope="session")
def crowd(site):
    """More people than fit on one page of the list."""
    return [site.add(name=f"Guest {n:02}", word="guest") for n in range(30)]


@pytest.fixture(scope="session")
def chromium():
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    assert path, "there is no Chromium on PATH; install Debian's `chromium`, or Google Chrome"
    expect.set_options(timeout=8000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(site, chromium):
    """visit(user=…, at=…, …) → a page in a browser of its own. All complaints fail the test."""
    opened = []

    def open_page(user=None, at=site, **options):
        context = chromium.new_context(base_url=at.url, **options)
        context.set_default_timeout(8000)
        page = context.new_page()
        page.watch = Watch(context, at.url)
        opened.append((context, page.watch))
        if user:
            cookie = {"name": "session", "value": at.session(user), "url": at.url}
            context.add_cookies([cookie])
        return page

    yield open_page
    for context, _ in opened:
        context.close()
    assert [complaint for _, watch in opened for complaint in watch.complaints()] == []


@pytest.fixture
def page(visit):
    return visit()


@pytest.fixture
def ada(site):
    """An ordinary person who was added, and has not been here yet."""
    return site.add()


@pytest.fixture
def boss(site):
    """An admin of one's own."""
    return site.add("admin", word="boss")


def ask(page, address, path="/login"):
    """Type an address, press Enter, and see the code form."""
    page.goto(path)
    page.get_by_label("Email address").fill(address)
    page.get_by_label("Email address").press("Enter")
    expect(page.get_by_label("6-digit code")).to_be_focused()


def paste(page, text):
    """From the clipboard into what has the focus, by the keyboard."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.bring_to_front()  # the clipboard is for the page that has the focus
    page.evaluate("text => navigator.clipboard.writeText(text)", text)
    page.keyboard.press("Control+V")


def wrong(code):
    """As long, and another."""
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}}"


def posts_to(page, path):
    """A list that grows with each POST to the path."""
    seen = []
    page.on("request", lambda r: r.method == "POST" and r.url.endswith(path) and seen.append(r))
    return seen


def settled(page):
    """Everything the page did until now has reached the server: one trip after it."""
    page.evaluate(
        "fetch('/healthz', {signal: AbortSignal.timeout(9000)}).then(answer => answer.text())"
    )
