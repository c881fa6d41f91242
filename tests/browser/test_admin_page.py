"""The admin's list with htmx."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture
def page(visit, boss):
    page = visit(boss)
    page.goto("/admin")
    return page


def add(page, address, name):
    page.get_by_text("Add a person").click()
    page.get_by_label("Email address").fill(address)
    page.get_by_label("Name (optional)").fill(name)
    page.get_by_role("button", name="Add", exact=True).click()


def search(page, text):
    # What htmx has just drawn listens only when it has settled.
    busy = ".htmx-request, .htmx-swapping, .htmx-settling, .htmx-added"
    expect(page.locator(busy)).to_have_count(0)
    with page.expect_response(re.compile(r"/admin\?q=")):
        page.get_by_label("Search people").fill(text)


def test_the_search_answers_while_typing_and_can_be_shared(page, site, crowd):
    field = page.get_by_label("Search people")
    search(page, "guest 2")
    expect(page.locator("tbody tr")).to_have_count(10)
    expect(field).to_be_focused()
    expect(page).to_have_url(f"{site.url}/admin?q=guest%202")
    page.reload()
    expect(field).to_have_value("guest 2")
    expect(page.locator("tbody tr")).to_have_count(10)


def test_the_page_numbers_follow_the_search(page, crowd):
    numbers = page.get_by_role("navigation", name="Pages")
    expect(numbers).to_contain_text(re.compile(r"Page 1 of \d"))
    search(page, "guest 07")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(numbers).to_have_count(0)
    search(page, "guest")
    expect(numbers).to_contain_text("Page 1 of 2")
    numbers.get_by_role("link", name="Next").click()
    expect(page.locator("tbody tr")).to_have_count(5)


def test_a_search_for_nobody_says_so_and_shows_the_way_back(page):
    search(page, "<b>nobody</b>")
    empty = page.locator(".empty")
    expect(empty).to_contain_text("holds “<b>nobody</b>”")
    empty.get_by_role("link", name="Show everybody").click()
    expect(page.locator("tbody tr").first).to_be_visible()


def test_a_name_is_text_whatever_it_holds(page, boss):
    name = "<img src=x onerror=alert(1)>"
    add(page, f"xss-{boss}", name)
    expect(page.get_by_role("status").first).to_contain_text(f"xss-{boss} can sign in now.")
    search(page, f"xss-{boss}")
    expect(page.get_by_role("cell", name=name, exact=True)).to_be_visible()
    assert page.locator("img").count() == 0
    assert page.watch.dialogs == []


def test_adding_somebody_twice_is_refused_with_the_form_still_open(page, boss, ada):
    page.watch.allow(422)
    add(page, ada, "")
    expect(page.get_by_role("alert")).to_contain_text(f"{ada} is there already.")
    expect(page.get_by_role("alert")).to_be_focused()
    expect(page.get_by_label("Email address")).to_be_visible()


def test_a_new_role_counts_at_once(page, visit, site, ada):
    theirs = visit(ada)
    theirs.watch.allow(403)
    theirs.goto("/admin")
    expect(theirs.get_by_role("main")).to_contain_text(
        "You do not have permission to open this page"
    )
    expect(theirs).to_have_url(f"{site.url}/no_access_right")
    search(page, ada)
    page.get_by_label(f"Role of {ada}", exact=True).select_option("admin")
    page.get_by_role("button", name=f"Change the role of {ada}").click()
    expect(page.locator(".alert.ok")).to_contain_text(
        "has a new role. It counts from their next click."
    )
    theirs.goto("/admin")
    expect(theirs.get_by_role("heading", name="People")).to_be_visible()


def test_disabling_asks_first_and_names_the_person(page, ada):
    search(page, ada)
    row = page.get_by_role("row").filter(has_text=ada)
    page.watch.accept = False
    row.get_by_role("button", name=f"Disable {ada}").click()
    assert page.watch.dialogs[0].startswith(f"Disable {ada}?")
    expect(row.locator(".pill").last).to_have_text("invited")
    page.watch.accept = True
    row.get_by_role("button", name=f"Disable {ada}").click()
    expect(page.locator(".alert.ok")).to_contain_text("is disabled and signed out everywhere.")
    expect(row.locator(".pill").last).to_have_text("disabled")
    row.get_by_role("button", name=f"Enable {ada}").click()
    expect(page.locator(".alert.ok")).to_contain_text("can sign in again.")
    assert len(page.watch.dialogs) == 2


def test_one_s_own_row_offers_nothing_to_press(page, boss):
    search(page, boss)
    row = page.get_by_role("row").filter(has_text=boss)
    expect(row).to_contain_text("you")
    expect(row.get_by_role("button")).to_have_count(0)


def test_the_first_tab_stop_skips_to_the_content(page):
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    # Past the brand and the menu.
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")
