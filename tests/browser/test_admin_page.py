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
    expect(page).to_have_url(f"{site.url}/admin?q=guest%202&role=&state=&seen=&sort=address")
    page.reload()
    expect(field).to_have_value("guest 2")
    expect(page.locator("tbody tr")).to_have_count(10)


def test_the_pages_follow_the_search(page, crowd):
    pages, told = page.get_by_role("navigation", name="Pages"), page.locator(".found")
    expect(told).to_contain_text(re.compile(r"1 to 25 of \d+ people"))
    search(page, "guest 07")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(pages).to_have_count(0)
    search(page, "guest")
    expect(told).to_have_text("1 to 25 of 30 people")
    pages.get_by_role("link", name="Next").click()
    expect(page.locator("tbody tr")).to_have_count(5)
    expect(told).to_have_text("26 to 30 of 30 people")
    pages.get_by_role("link", name="Previous").click()
    expect(told).to_have_text("1 to 25 of 30 people")


def test_filters_and_order_answer_at_once_and_stay_with_the_search(page, site, crowd):
    search(page, "guest")
    rows, cells = page.locator("tbody tr"), page.get_by_role("cell", name="Guest")
    with page.expect_response(lambda answer: "state=active" in answer.url):
        page.get_by_label("State").select_option("active")
    expect(page.locator(".empty")).to_contain_text("Nobody like that has “guest”")
    with page.expect_response(lambda answer: "state=invited" in answer.url):
        page.get_by_label("State").select_option("invited")
    expect(rows).to_have_count(25)
    page.get_by_role("link", name="Name", exact=True).click()
    expect(page.get_by_role("columnheader", name="Name")).to_have_attribute(
        "aria-sort", "ascending"
    )
    page.get_by_role("link", name="Name", exact=True).click()
    expect(cells.first).to_have_text("Guest 29")
    expect(page.get_by_label("Search people")).to_have_value("guest")
    expect(page.get_by_label("State")).to_have_value("invited")
    # And back: the list as it was, with its filters.
    page.go_back()
    expect(cells.first).to_have_text("Guest 00")
    # An act comes back to it.
    page.watch.accept = True
    page.get_by_role("button", name=f"Disable {crowd[0]}").click()
    expect(page.locator(".alert.ok")).to_contain_text("is disabled")
    expect(cells.first).to_have_text("Guest 01")
    expect(page.get_by_label("State")).to_have_value("invited")
    search(page, "guest 00")
    expect(page.locator(".empty")).to_be_visible()
    page.get_by_role("link", name="Search everybody").click()
    page.get_by_role("button", name=f"Enable {crowd[0]}").click()
    expect(page.locator(".alert.ok")).to_contain_text("can sign in again")


def test_a_small_screen_sorts_by_a_field(page, crowd):
    page.set_viewport_size({"width": 360, "height": 740})
    with page.expect_response(lambda answer: "sort=-name" in answer.url):
        page.get_by_label("Order").select_option("-name")
    names = page.locator('td[data-label="Name"]').all_inner_texts()
    assert len(names) == 25 and names == sorted(names, key=str.lower, reverse=True)


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
    page.watch.accept = True
    page.get_by_role("button", name=f"Change the role of {ada}").click()
    assert page.watch.dialogs[0].startswith(f"Change the role of {ada}, who is user now?")
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
    expect(row.locator(".pill").last).to_have_text("new")
    page.watch.accept = True
    row.get_by_role("button", name=f"Disable {ada}").click()
    expect(page.locator(".alert.ok")).to_contain_text("is disabled and signed out everywhere.")
    expect(row.locator(".pill").last).to_have_text("disabled")
    row.get_by_role("button", name=f"Enable {ada}").click()
    expect(page.locator(".alert.ok")).to_contain_text("can sign in again.")
    assert len(page.watch.dialogs) == 2


def test_who_does_not_see_the_list_hears_what_a_search_found(page, boss):
    heard = page.locator("#heard[role=status]")
    expect(heard).to_be_empty()
    search(page, boss)
    expect(heard).to_have_text("1 person")
    page.get_by_label("Search people").fill("nobody is called so")
    expect(heard).to_contain_text("name or address holds “nobody is called so”")


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
