"""The admins' page about mail in a browser: it looks again by itself, asks first, and does without scripts."""

import itertools
import sqlite3
import time

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Site, eventually
from tests.browser.test_accessible import inspect

pytestmark = pytest.mark.xdist_group("browser")

NUMBERS = itertools.count(1)
REPLY = "451 4.7.1 Greylisted, please try again in a few minutes: https://mail.example/help"
LATER = 3600


class Office(Site):
    """A server of its own, since a pause stops everybody's mail."""

    def put(self, state="queued", kind="code", to="x@example.org", tries=2, reply=REPLY, ago=0):
        """A mail as the outbox would have it, which no worker takes within this hour. Its id."""
        now = int(time.time()) - ago
        id = f"{now * 1000:012x}{next(NUMBERS):020x}"
        self.sql(
            "insert into outbox (id, kind, ref, state, created_at, not_after, next_at, tries, reply)"
            " values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(id, kind, self._ref(to), state, now, now + 900, now + LATER, tries, reply),
        )
        return id

    def _ref(self, address):
        """A challenge of this address, made as people make them."""
        with self._client() as client:
            client.post("/create_code", data={"email": address})
        found = "select id from challenges where address = ?"
        return self.look(found, address)[0][0]

    def clear(self):
        """No mail at all, once what is on its way has left."""
        busy = "select 1 from outbox where state in ('queued', 'sending') and next_at < ?"
        eventually(lambda: not self.look(busy, time.time() + 600), "rest")
        self.look("delete from outbox")

    def look(self, sql, *values):
        database = sqlite3.connect(self._folder / "vestibule.db", timeout=10)
        try:
            with database:
                return database.execute(sql, values).fetchall()
        finally:
            database.close()

    def state(self, id):
        return self.look("select state from outbox where id = ?", id)[0][0]


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    office = Office(tmp_path_factory.mktemp("office"))
    yield office.start()
    office.leave()


@pytest.fixture
def boss(office):
    return office.add("admin", word="boss")


@pytest.fixture
def waiting(office):
    """A mail that waits, alone."""
    ada = office.add()
    office.clear()
    yield office.put(to=ada)
    office.clear()


@pytest.fixture
def page(visit, office, boss, waiting):
    page = visit(boss, at=office)
    page.goto("/admin/mail?state=queued")
    return page


def no_news(answer):
    return "seen=" in answer.url and answer.status == 204


def rows(page):
    return page.locator("tbody tr")


def test_retry_says_so_and_takes_the_mail_along(page, office, waiting):
    row = rows(page).filter(has_text="a***@example.org")
    expect(row).to_contain_text("2 tries")
    expect(row).to_contain_text("4.7.1 Greylisted")
    row.get_by_role("button", name="Retry the mail to a***@example.org").click()
    notice = page.locator(".alert.ok[role=status]")
    expect(notice).to_contain_text("That mail is tried again at once.")
    expect(notice).to_be_focused()
    expect(page).to_have_url(f"{office.url}/admin/mail?state=queued")
    # A real worker takes it, and the page finds out by itself.
    expect(page.locator("#mail-live")).to_contain_text("There are no mails that are waiting.")
    assert office.state(waiting) == "accepted"


def test_dropping_asks_first_and_names_the_mail(page, office, waiting):
    page.watch.accept = False
    drop = page.get_by_role("button", name="Drop the mail to a***@example.org")
    drop.click()
    assert page.watch.dialogs[0].startswith("Drop this mail to a***@example.org?")
    assert office.state(waiting) == "queued"
    page.watch.accept = True
    drop.click()
    expect(page.locator(".alert.ok[role=status]")).to_contain_text("That mail is not sent.")
    expect(rows(page)).to_have_count(0)
    assert office.state(waiting) == "dead"


def test_a_pause_holds_everything_and_resuming_lets_it_out(page, office):
    page.watch.accept = True
    page.get_by_role("button", name="Pause mail").click()
    assert page.watch.dialogs[0].startswith("Pause all mail?")
    expect(page.locator(".health")).to_contain_text("Mail is paused by an admin.")
    address = office.add(word="late")
    with office._client() as client:
        client.post("/create_code", data={"email": address})
    # The outbox has looked, twice: it has found two mails, one after the other, whose time was over.
    for _ in range(2):
        over = office.put(ago=1000)
        eventually(lambda over=over: office.state(over) == "expired", "look of the outbox")
    assert office.codes_to(address) == []
    page.get_by_role("button", name="Resume mail").click()
    expect(page.get_by_role("button", name="Pause mail")).to_be_visible()
    office.code(address)


def test_it_looks_again_by_itself_and_moves_nothing_without_news(page, office, waiting):
    with page.expect_response(no_news, timeout=20_000):  # the newest mail has left by then
        page.get_by_role("button", name="Retry the mail to").focus()
    page.evaluate("document.querySelector('tbody tr').id = 'drawn-before'")
    with page.expect_response(no_news, timeout=20_000):
        pass
    expect(page.locator("#drawn-before")).to_have_count(1)
    expect(page.get_by_role("button", name="Retry the mail to")).to_be_focused()
    office.sql("update outbox set tries = 3 where id = ?", waiting)
    expect(rows(page)).to_contain_text("3 tries")
    expect(page.locator("#drawn-before")).to_have_count(0)
    # What is drawn anew keeps the hand where it was.
    expect(page.get_by_role("button", name="Retry the mail to")).to_be_focused()
    office.sql("update outbox set state = 'accepted' where id = ?", waiting)
    expect(page.locator(".health")).to_contain_text("All is well.")
    expect(page.locator("[hx-trigger^=every]")).to_have_count(0)


def test_the_figures_lead_to_their_mails(page, office, waiting):
    office.put("dead", reply="550 5.1.1 no such user")
    page.goto("/admin/mail")
    given_up = page.get_by_role("link", name="given up")
    expect(given_up).to_contain_text("no such mailbox")
    given_up.click()
    expect(page).to_have_url(f"{office.url}/admin/mail?state=dead")
    expect(given_up).to_have_attribute("aria-current", "true")
    expect(rows(page)).to_have_count(1)
    page.get_by_role("link", name="Show all mails").click()
    expect(rows(page).nth(1)).to_be_visible()


def test_all_of_it_works_without_scripts(visit, office, boss, waiting):
    page = visit(boss, at=office, java_script_enabled=False)
    page.goto("/admin/mail?state=queued")
    expect(page.locator("#mail-live noscript p")).to_be_visible()
    page.get_by_role("button", name="Drop the mail to").click()
    expect(page.get_by_role("heading", name="Drop this mail to a***@example.org?")).to_be_visible()
    page.get_by_role("link", name="Keep it").click()
    expect(page).to_have_url(f"{office.url}/admin/mail?state=queued&page=1")
    page.get_by_role("button", name="Pause mail").click()
    page.get_by_role("button", name="Pause mail").click()
    expect(page.locator(".health")).to_contain_text("Mail is paused by an admin.")
    page.get_by_role("button", name="Resume mail").click()
    expect(page.get_by_role("button", name="Pause mail")).to_be_visible()
    page.get_by_role("button", name="Drop the mail to").click()
    page.get_by_role("button", name="Drop it").click()
    expect(page.locator(".alert.ok[role=status]")).to_contain_text("That mail is not sent.")
    assert office.state(waiting) == "dead"


def test_every_state_is_accessible_and_fits(visit, office, boss, waiting):
    page = visit(boss, at=office)
    for n, state in enumerate(("sending", "accepted", "expired", "dead", "void")):
        kind = ("code", "none", "new_device", "device_ended", "something_of_tomorrow")[n]
        office.put(state, kind, f"{'long' * 12}@{'label.' * 20}example.org", 7, "x" * 199, 90 * n)
    for n in range(30):
        office.put("accepted", "code", tries=1, reply="250 2.0.0 OK", ago=1000 + n)
    for query in ("", "?state=queued", "?state=accepted&page=2", "?done=over"):
        page.goto(f"/admin/mail{query}")
        inspect(page)
    held = "535 5.7.8 Username and Password not accepted: https://mail.example/?" + "p" * 120
    office.sql("insert into outbox_status values ('worker x', ?, ?)", held, int(time.time()) + 600)
    page.goto("/admin/mail?state=expired")
    expect(page.locator(".health")).to_contain_text("Mail is held up.")
    inspect(page)
    office.sql("delete from outbox_status where name = 'worker x'")


def test_the_empty_page_and_the_questions_are_accessible(visit, office, boss, waiting):
    page = visit(boss, at=office, java_script_enabled=True)
    for path in ("pause", f"{waiting}/drop"):
        page.goto("/admin/mail")
        # As a browser without scripts does: the plain form.
        page.evaluate(
            "path => { const form = document.querySelector(`form[action='${path}']`);"
            " HTMLFormElement.prototype.submit.call(form); }",
            f"/admin/mail/{path}",
        )
        expect(page.locator("main.door h1")).to_contain_text("?")
        inspect(page)
    page.goto("/admin/mail?state=expired")
    expect(page.locator(".empty")).to_be_visible()
    inspect(page)
    office.clear()
    page.goto("/admin/mail")
    expect(page.locator(".empty")).to_contain_text("No mail yet")
    inspect(page)
