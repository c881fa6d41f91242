"""Another address, and back, in a real browser: with scripts and without, from all sides."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import eventually, wrong
from tests.browser.test_accessible import inspect

pytestmark = pytest.mark.xdist_group("browser")

WIDE = {"width": 1200, "height": 900}
UNDO = r"^│ To: {} +│\n(?:│.*\n)*?│ (http\S+/undo_address#[A-Za-f]{{78}}) +│$"


def undo_link(site, address):
    pattern = re.compile(UNDO.format(re.escape(address)), re.MULTILINE)
    return eventually(lambda: pattern.findall(site.server.log), f"notice to {address}")[-1]


@pytest.mark.parametrize("scripts", [True, False])
def test_one_changes_one_s_address_and_takes_it_back(visit, site, ada, scripts):
    page, new = visit(ada, java_script_enabled=scripts), f"new-{ada}"
    page.watch.allow(422)
    look = inspect if scripts else (lambda page: None)
    page.goto("/account")
    page.get_by_label("New email address").fill("ada at example.org")
    page.get_by_role("button", name="Send the code").click()
    expect(page.get_by_role("alert")).to_contain_text("can’t send mail")
    expect(page.get_by_label("New email address")).to_have_value("ada at example.org")
    look(page)
    page.set_viewport_size(WIDE)
    page.get_by_label("New email address").fill(new)
    page.get_by_role("button", name="Send the code").click()
    expect(page.get_by_label("Code from the email")).to_be_focused()
    page.get_by_text("Nothing arrived, or another address?").click()
    look(page)
    page.set_viewport_size(WIDE)
    code = site.code(new)
    page.get_by_label("Code from the email").fill(wrong(code))
    page.get_by_role("button", name="Change my address").click()
    expect(page.get_by_role("alert")).to_contain_text("You have 4 tries left.")
    look(page)
    page.set_viewport_size(WIDE)
    page.get_by_label("Code from the email").fill(code)
    page.get_by_role("button", name="Change my address").click()
    expect(page).to_have_url(f"{site.url}/account?done=moved")
    expect(page.get_by_role("status").first).to_contain_text("your address now")
    expect(page.locator("#address")).to_contain_text(new)
    # Somebody else's browser, with the mail to the old address.
    other = visit(java_script_enabled=scripts)
    other.watch.allow(410)
    link = undo_link(site, ada)
    other.goto(link)
    if scripts:
        expect(other.get_by_label("The link from the email")).to_be_hidden()
        assert other.url == f"{site.url}/undo_address"
    else:
        other.get_by_label("The link from the email").fill(link)
    look(other)
    other.get_by_role("button", name="Undo the change").click()
    expect(other.get_by_role("heading", name="It is undone")).to_be_visible()
    look(other)
    other.goto("/undo_address")
    other.goto(link)
    if not scripts:
        other.get_by_label("The link from the email").fill(link)
    other.get_by_role("button", name="Undo the change").click()
    expect(other.get_by_role("alert")).to_contain_text("used already")
    look(other)
    page.goto("/account")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@pytest.mark.parametrize("scripts", [True, False])
def test_leaving_an_organisation_is_asked_once_more(visit, site, ada, boss, scripts):
    page = visit(ada, java_script_enabled=scripts)
    id = f"{int.from_bytes(ada.encode()[:6]) + scripts:032x}"
    site.sql("insert into tenants values (?, ?, 0)", id, f"Club of {ada}")
    add = "insert into memberships select ?, id, ?, 0 from users where address = ?"
    site.sql(add, id, "user", ada)
    site.sql(add, id, "admin", boss)
    page.goto("/account")
    page.get_by_role("button", name="Leave").click()
    expect(page.get_by_role("heading", name="Leave this organisation?")).to_be_visible()
    if scripts:
        inspect(page)
        page.set_viewport_size(WIDE)
    page.get_by_role("link", name="Stay").click()
    page.get_by_role("button", name="Leave").click()
    page.get_by_role("button", name="Leave it").click()
    expect(page.get_by_role("status").first).to_contain_text("not in that organisation")
