"""The developer's mailbox as a newcomer meets it, in a real browser."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import ADMIN, Site, ask
from tests.browser.test_accessible import inspect

pytestmark = pytest.mark.xdist_group("browser")


def row(page, address):
    return page.locator(".mail", has_text=address)


def open_mailbox(page):
    """By the link on the page, into a second tab."""
    with page.expect_popup() as opened:
        page.get_by_role("link", name="mailbox").click()
    opened.value.set_default_timeout(8000)
    return opened.value


@pytest.fixture
def fresh(tmp_path):
    """A clone that nobody has used yet."""
    site = Site(tmp_path).start()
    yield site
    site.leave()


def test_a_newcomer_signs_in_without_looking_at_the_terminal(visit, fresh):
    page = visit(at=fresh)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, ADMIN)
    mailbox = open_mailbox(page)
    expect(mailbox).to_have_title("Mailbox · Vestibule")
    expect(row(mailbox, ADMIN)).to_contain_text("Your Vestibule sign-in code")
    row(mailbox, ADMIN).get_by_role("button", name="Copy").click()
    expect(mailbox.get_by_role("button", name="Copied")).to_be_visible()
    page.bring_to_front()
    page.get_by_label("6-digit code").focus()
    page.keyboard.press("Control+V")
    expect(page).to_have_url(f"{fresh.url}/dashboard")
    expect(page.get_by_role("main")).to_contain_text(ADMIN)


def test_the_mailbox_that_waits_shows_a_mail_by_itself(visit, site, ada):
    waiting, page = visit(), visit()
    waiting.goto("/dev/mailbox")
    ask(page, ada)
    expect(row(waiting, ada)).to_be_visible()
    expect(row(waiting, ada)).to_contain_text(site.code(ada))
    expect(waiting.locator("#news")).to_have_text(f"New mail to {ada}: Your Vestibule sign-in code")


def test_no_news_leaves_the_page_alone_and_news_keep_the_focus(visit, site, ada):
    page, other = visit(), visit()
    ask(other, ada)
    site.code(ada)
    page.goto("/dev/mailbox")
    button = row(page, ada).get_by_role("button", name="Copy")
    button.focus()
    page.evaluate("document.querySelector('#mails').dataset.mark = 'here'")
    with page.expect_response(lambda r: "seen=" in r.url) as answer:
        pass
    assert answer.value.status == 204
    expect(page.locator("#mails[data-mark]")).to_be_visible()
    later = site.add()
    ask(other, later)
    expect(row(page, later)).to_be_visible()
    expect(page.locator("#mails[data-mark]")).to_have_count(0)
    expect(button).to_be_focused()


def test_the_link_signs_in_and_the_mailbox_stays(visit, site, ada):
    page = visit()
    ask(page, ada)
    mailbox = open_mailbox(page)
    with mailbox.expect_popup() as opened:
        row(mailbox, ada).get_by_role("link", name="Open the link").click()
    opened.value.get_by_role("button", name="Sign in").click()
    expect(opened.value).to_have_url(f"{site.url}/dashboard")
    expect(mailbox).to_have_url(f"{site.url}/dev/mailbox")
    expect(page).to_have_url(f"{site.url}/dashboard")  # the tab that waited moved on


def test_one_tab_for_the_mailbox(visit, ada):
    page = visit()
    page.goto("/login")
    open_mailbox(page)
    ask(page, ada)
    page.get_by_role("link", name="mailbox").click()
    expect(page.get_by_label("6-digit code")).to_be_visible()
    assert len(page.context.pages) == 2


def test_the_mail_is_shown_as_people_see_it_and_its_link_opens_outside(visit, site, ada):
    page = visit()
    ask(page, ada)
    mailbox = open_mailbox(page)
    row(mailbox, ada).get_by_role("link", name="Your Vestibule sign-in code").click()
    mail = mailbox.frame_locator("iframe")
    expect(mail.get_by_text(site.code(ada), exact=True)).to_be_visible()
    frame = mailbox.frames[1]
    assert frame.evaluate("window.origin") == "null"  # none of our cookies, none of our pages
    with mailbox.expect_popup() as opened:
        mail.get_by_role("link", name="this link").click()
    # With its cookie, as from a mail program: this browser asked.
    opened.value.get_by_role("button", name="Sign in").click()
    expect(opened.value).to_have_url(f"{site.url}/dashboard")
    mailbox.get_by_text("Headers and source").click()
    expect(mailbox.get_by_label("Source of the mail")).to_contain_text("Auto-Submitted:")


def test_only_what_was_copied_last_says_so(visit, ada, boss):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for address in (ada, boss):
        ask(page, address)
    page.goto("/dev/mailbox")
    for address, other in ((ada, boss), (boss, ada), (boss, ada)):
        row(page, address).get_by_role("button").click()
        expect(row(page, address).get_by_role("button", name="Copied")).to_be_visible()
        expect(row(page, other).get_by_role("button", name="Copy", exact=True)).to_be_visible()


def test_without_scripts_the_code_is_there_to_be_selected(visit, site, ada):
    page = visit(java_script_enabled=False)
    page.goto("/login")
    page.get_by_label("Email address").fill(ada)
    page.get_by_role("button", name="Email me a code").click()
    code = site.code(ada)
    mailbox = page.context.new_page()
    mailbox.goto("/dev/mailbox")
    expect(row(mailbox, ada)).to_contain_text(code)
    expect(row(mailbox, ada).get_by_role("button")).to_have_count(0)
    expect(mailbox.locator("noscript p")).to_be_visible()
    page.get_by_label("6-digit code").fill(code)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{site.url}/dashboard")


def test_the_mailbox_from_all_sides(visit, site):
    page = visit()
    page.watch.allow(404)
    long = site.add(word="an-address-that-does-not-fit-into-a-line-of-a-telephone-")
    ask(page, long)
    inspect(page)
    site.code(long)
    page.goto("/dev/mailbox")
    inspect(page)
    row(page, long).get_by_role("link", name="sign-in code").click()
    expect(page).to_have_url(re.compile(r"/dev/mailbox/\w+$"))
    page.get_by_text("Headers and source").click()
    inspect(page)
    page.goto("/dev/mailbox/0123")
    inspect(page)


def test_the_empty_mailbox_from_all_sides(visit, fresh):
    page = visit(at=fresh)
    page.goto("/dev/mailbox")
    expect(page.get_by_text("No mail yet")).to_be_visible()
    inspect(page)
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Ask for a code").click()
    ask(opened.value, ADMIN)
    expect(row(page, ADMIN)).to_be_visible()  # it waited, and needs no reload
