"""Takes the pictures of docs/: a fresh house with some people in it, each page light and dark. `make pictures`.

Needs Chromium; makes the files smaller where pngquant is installed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))
PORT = 5093
URL = f"http://localhost:{PORT}"
WIDTH, HEIGHT = 1100, 760
FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
PEOPLE = (
    ("ada@example.org", "Ada Lovelace"),
    ("grace@example.org", "Grace Hopper"),
    ("katherine@example.org", "Katherine Johnson"),
    ("hedy@example.org", "Hedy Lamarr"),
    ("dilek@example.org", "Dilek Ünal"),
)
# Name of the picture → path. PERSON and TENANT are ids.
PAGES = {
    "dashboard": "/dashboard",
    "account": "/account",
    "people": "/admin",
    "person": "/admin/people/PERSON",
    "organisations": "/admin/organisations",
    "organisation": "/admin/organisations/TENANT",
    "invitations": "/admin/organisations/TENANT/invitations",
    "import": "/admin/people/import",
    "roles": "/admin/roles",
    "audit": "/admin/audit",
    "overview": "/admin/overview",
    "mail": "/admin/mail",
}


def take() -> None:
    folder = Path(tempfile.mkdtemp(prefix="pictures-"))
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env = kept | {"APP_ENV": "development", "ADMIN_EMAILS": "admin@example.com", "PORT": str(PORT)}
    log = folder / "log"

    def manage(*words: str) -> str:
        command = [sys.executable, str(ROOT / "manage.py"), *words]
        return subprocess.run(
            command, cwd=folder, env=env, check=True, capture_output=True, text=True
        ).stdout.strip()

    manage("add-user", "admin@example.com", "--role", "admin", "--name", "Ursula Admin")
    for address, name in PEOPLE:
        manage("add-user", address, "--name", name)
    tenant = manage("add-tenant", "Chess club", "--admin", "ada@example.org")
    manage("join", tenant, "grace@example.org")
    manage("join", tenant, "admin@example.com")
    manage("disable", "hedy@example.org")
    fill_two_weeks(folder / "data" / "vestibule.db")
    with log.open("wb") as out:
        app = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py")], cwd=folder, env=env, stdout=out, stderr=out
        )
        try:
            wait_for(f"{URL}/readyz")
            with sync_playwright() as playwright:
                found = shutil.which("chromium") or shutil.which("google-chrome")
                browser = playwright.chromium.launch(executable_path=found, args=FLAGS.split())
                shoot(browser, log, tenant)
                browser.close()
        finally:
            app.terminate()
            app.wait()
            shutil.rmtree(folder)


def shoot(browser, log: Path, tenant: str) -> None:
    page = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}).new_page()
    page.goto(f"{URL}/login")
    both(page, "signin")
    sign_in(page, log, "ada@example.org")
    page.goto(f"{URL}/account")
    page.get_by_role("button", name="Sign out", exact=True).first.click()
    sign_in(page, log, "admin@example.com")
    page.goto(f"{URL}/admin")
    person = (
        page.locator("tr", has_text="ada@example.org")
        .get_by_role("link")
        .first.get_attribute("href")
    )
    for name, path in PAGES.items():
        path = path.replace("/admin/people/PERSON", person).replace("TENANT", tenant)
        page.goto(URL + path)
        both(page, name)
    page.goto(f"{URL}/dev/mailbox")
    both(page, "mailbox")


def sign_in(page, log: Path, address: str) -> None:
    page.goto(f"{URL}/login")
    page.fill("#email", address)
    page.click("#submit-btn")
    page.wait_for_selector("input[name=code]")
    page.fill("input[name=code]", newest_code(log, address))
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard")


def newest_code(log: Path, address: str) -> str:
    """From the mail that the app has printed last, if it is theirs."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        _, _, mail = log.read_text().rpartition(address)
        if found := re.search(r"^│ ([0-9]{6}) +│$", mail, re.MULTILINE):
            return found[1]
        time.sleep(0.05)
    raise SystemExit("no mail was printed")


def both(page, name: str) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        path = HERE / f"{name}-{scheme}.png"
        page.screenshot(path=path)
        if shutil.which("pngquant"):
            subprocess.run(
                ["pngquant", "--force", "--ext", ".png", "--speed", "1", path], check=False
            )


def wait_for(url: str) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            urlopen(url, timeout=1)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


def fill_two_weeks(path: Path) -> None:
    """What the charts show: made up, and always the same."""
    import random
    import sqlite3

    chance, now = random.Random(7), int(time.time())
    with sqlite3.connect(path) as db:
        for day in range(13, -1, -1):
            for n in range(chance.randrange(12, 70)):
                at, id = (
                    now - day * 86400 - chance.randrange(3000),
                    f"{chance.getrandbits(80):020x}",
                )
                kinds = [("authn_code_requested", 0)]
                if chance.random() < 0.9:
                    kinds.append(("authn_login_success", int(chance.lognormvariate(3.2, 0.7))))
                if chance.random() < 0.15:
                    kinds.append(("authn_login_fail", 0))
                for i, (kind, seconds) in enumerate(kinds):
                    row = (f"{at * 1000:012x}{id}{i:x}", at, kind, PEOPLE[n % 5][0], seconds)
                    db.execute(
                        "insert into events (id, at, kind, subject, seconds) values (?, ?, ?, ?, ?)",
                        row,
                    )
                if day < 7:
                    state = chance.choices(["accepted", "expired", "dead"], [95, 3, 2])[0]
                    row = (f"{at * 1000:012x}{id}", state, at, at + 900, at, 1)
                    db.execute(
                        "insert into outbox (id, kind, ref, state, created_at, not_after, next_at, tries)"
                        " values (?, 'code', 'x', ?, ?, ?, ?, ?)",
                        row,
                    )


if __name__ == "__main__":
    take()
