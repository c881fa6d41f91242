"""All of it with scripts switched off."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import wrong

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture
def page(visit):
    return visit(java_script_enabled=False)


def test_scripts_are_off_here(page):
    page.goto("/login")
    assert page.evaluate("typeof htmx") == "undefined"


def test_sign_in_wrong_code_resend_and_sign_out(page, site, ada):
    page.watch.allow(422, 429)
    page.goto("/login")
    page.get_by_label("Email address").fill("nonsense")
    page.get_by_role("button", name="Email me a code").click()
    expect(page.get_by_role("alert")).to_contain_text("We can’t send mail to that.")
    page.get_by_label("Email address").fill(ada)
    page.get_by_role("button", name="Email me a code").click()
    expect(page).to_have_url(f"{site.url}/verify_code")

    code = site.code(ada)
    page.get_by_label("6-digit code").fill(wrong(code))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("You have 4 tries left.")
    expect(page).to_have_title("Error: Enter your code · Vestibule")

    page.get_by_role("button", name="Send the email again").click()
    expect(page.get_by_role("alert")).to_contain_text("Give the email a little time.")
    site.sql("update challenges set sent_at = sent_at - 61 where address = ?", ada)
    page.get_by_role("button", name="Send the email again").click()
    expect(page.locator(".alert.ok")).to_contain_text("We have sent the email again.")
    assert site.code(ada, mail=2) == code

    page.get_by_label("6-digit code").fill(f"{code[:3]} {code[3:]}")
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{site.url}/dashboard")
    expect(page.get_by_role("main")).to_contain_text(ada)
    expect(page.get_by_role("link", name="People")).to_have_count(0)
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page).to_have_url(f"{site.url}/login")
    page.goto("/dashboard")
    expect(page).to_have_url(re.compile(r"/login\?next=/dashboard$"))


def test_an_admin_adds_finds_changes_disables_and_enables(visit, site, boss):
    page = visit(boss, java_script_enabled=False)
    page.watch.allow(422)
    address = f"new-{boss}"
    page.goto("/dashboard")
    page.get_by_role("link", name="Admin pages").click()
    for notice in ("can sign in now.", None):
        page.get_by_text("Add a person").click()
        page.locator("#new-email").fill(address)
        page.locator("#new-name").fill("Grace Hopper")
        page.get_by_role("button", name="Add", exact=True).click()
        if notice:
            expect(page.get_by_role("status").first).to_contain_text(f"{address} {notice}")
            page.goto("/admin")
    expect(page.get_by_role("alert")).to_contain_text(f"{address} is there already.")
    expect(page.get_by_label("Email address")).to_be_visible()  # the form stays open

    page.get_by_label("Search people").fill(address.upper())
    page.get_by_role("button", name="Search").click()
    row = page.get_by_role("row").filter(has_text=address)
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(row).to_contain_text("Grace Hopper")
    expect(row.locator(".pill")).to_have_text(["user", "new"])
    row.get_by_label(f"Role of {address}", exact=True).select_option("admin")
    row.get_by_role("button", name=f"Change the role of {address}").click()
    page.goto(f"/admin?q={address}")
    expect(row.locator(".pill").first).to_have_text("admin")
    row.get_by_role("button", name=f"Disable {address}").click()
    expect(page.locator(".alert.ok")).to_contain_text("is disabled and signed out everywhere.")
    page.goto(f"/admin?q={address}")
    expect(row.locator(".pill").last).to_have_text("disabled")
    row.get_by_role("button", name=f"Enable {address}").click()
    expect(page.locator(".alert.ok")).to_contain_text("can sign in again.")


def test_a_long_list_has_pages_filters_and_orders(visit, site, boss, crowd):
    page = visit(boss, java_script_enabled=False)
    page.goto("/admin?q=guest")
    rows, found = page.locator("tbody tr"), page.locator(".found")
    expect(rows).to_have_count(25)
    page.get_by_role("link", name="Next").click()
    expect(rows).to_have_count(5)
    expect(found).to_have_text("26 to 30 of 30 people")
    page.get_by_role("link", name="Previous").click()
    expect(rows).to_have_count(25)
    page.get_by_label("State").select_option("invited")
    page.get_by_role("button", name="Search").click()
    expect(found).to_have_text("1 to 25 of 30 people")
    page.get_by_role("link", name="Name", exact=True).click()
    page.get_by_role("link", name="Name", exact=True).click()
    expect(rows.first).to_contain_text("Guest 29")
    expect(page.get_by_label("State")).to_have_value("invited")
