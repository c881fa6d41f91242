"""Signing in with keyboard, clipboard and clock."""

import re
import signal
from datetime import datetime, timedelta

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Site, ask, paste, posts_to, settled, wrong

pytestmark = pytest.mark.xdist_group("browser")


def test_the_first_field_has_the_focus_and_the_keyboard_is_enough(page, site, ada):
    page.goto("/login")
    expect(page.get_by_label("Email address")).to_be_focused()
    page.keyboard.type(ada)
    page.keyboard.press("Enter")
    expect(page.get_by_label("6-digit code")).to_be_focused()
    expect(page).to_have_title("Enter your code · Vestibule")
    expect(page).to_have_url(f"{site.url}/verify_code")
    page.keyboard.type(site.code(ada))
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.url}/dashboard")
    expect(page.get_by_role("main")).to_contain_text(f"You are signed in as {ada}.")


def test_the_sixth_typed_digit_sends_nothing_and_the_button_does(page, site, ada):
    ask(page, ada)
    posts = posts_to(page, "/verify_code")
    page.get_by_label("6-digit code").press_sequentially(site.code(ada))
    settled(page)
    assert posts == []
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{site.url}/dashboard")
    assert len(posts) == 1


@pytest.mark.parametrize(
    "text",
    [
        "{a}{b}",
        "{a} {b}",
        "{a}-{b}",
        "  {a}{b}\n",
        "{a}{b} is your Vestibule sign-in code. It works for 15 minutes.",
    ],
)
def test_a_pasted_code_is_sent_by_itself_once(page, site, ada, text):
    ask(page, ada)
    posts, code = posts_to(page, "/verify_code"), site.code(ada)
    paste(page, text.format(a=code[:3], b=code[3:]))
    expect(page).to_have_url(f"{site.url}/dashboard")
    assert len(posts) == 1


def test_a_pasted_text_without_a_code_is_not_sent(page, site, ada):
    ask(page, ada)
    posts = posts_to(page, "/verify_code")
    paste(page, "call 030 1234 or 5678")
    settled(page)
    assert posts == []
    expect(page.get_by_label("6-digit code")).to_have_value("call 030 1234 or 5678")


def test_a_wrong_code_is_said_once_and_the_right_one_still_works(page, site, ada):
    page.watch.allow(422)
    ask(page, ada)
    posts, code = posts_to(page, "/verify_code"), site.code(ada)
    paste(page, wrong(code))
    alert = page.get_by_role("alert")
    expect(alert).to_have_text(
        "That code is not right. Check the newest email. You have 4 tries left."
    )
    expect(alert).to_be_focused()
    expect(page).to_have_title("Error: Enter your code · Vestibule")
    field = page.get_by_label("6-digit code")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_value("")
    field.focus()
    paste(page, code)  # after an error people look before they send
    expect(field).to_have_value(code)
    settled(page)
    assert len(posts) == 1
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.url}/dashboard")


def test_what_is_no_address_is_said_beside_the_field_and_kept_in_it(page):
    page.watch.allow(422)
    page.goto("/login")
    page.keyboard.type("ada at example.org")
    page.keyboard.press("Enter")
    alert = page.get_by_role("alert")
    expect(alert).to_have_text("We can’t send mail to that. Enter one like name@example.com.")
    expect(alert).to_be_focused()
    expect(page).to_have_title("Error: Sign in · Vestibule")
    expect(page.get_by_label("Email address")).to_have_value("ada at example.org")
    expect(page.get_by_label("Email address")).to_have_attribute("aria-invalid", "true")


def test_after_the_last_try_one_button_leads_to_a_new_code(page, site, ada):
    page.watch.allow(422)
    ask(page, ada)
    bad = wrong(site.code(ada))
    for left in ("4 tries left", "3 tries left", "2 tries left", "1 try left", "the last try"):
        page.get_by_label("6-digit code").fill(bad)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text(left)  # the form is drawn anew by now
    expect(page.get_by_label("6-digit code")).to_have_count(0)
    page.get_by_role("button", name="Send a new code").click()
    expect(page.get_by_label("6-digit code")).to_be_focused()
    paste(page, site.code(ada, mail=2))
    expect(page).to_have_url(f"{site.url}/dashboard")


def test_a_late_code_is_told_that_it_ran_out(page, site, ada):
    page.watch.allow(410)
    ask(page, ada)
    code = site.code(ada)
    site.sql("update challenges set expires_at = issued_at where address = ?", ada)
    paste(page, code)
    expect(page.get_by_role("alert")).to_have_text("That code has run out. Ask for a new code.")
    page.get_by_role("button", name="Send a new code").click()
    expect(page.get_by_label("6-digit code")).to_be_focused()
    paste(page, site.code(ada, mail=2))
    expect(page).to_have_url(f"{site.url}/dashboard")


def test_the_road_send_again_opens_when_the_wait_is_over(page, site, ada):
    page.clock.install()
    ask(page, ada)
    code, field = site.code(ada), page.get_by_label("6-digit code")
    road = page.get_by_text("You can ask for the email again in")
    expect(road).to_be_visible()
    button = page.get_by_role("button", name="Send the email again")
    expect(button).to_have_count(0)
    field.press_sequentially("12")
    site.sql("update challenges set sent_at = sent_at - 61 where address = ?", ada)
    page.clock.fast_forward("01:01")
    expect(button).to_be_visible()
    expect(road).to_have_count(0)
    expect(field).to_be_focused()  # nobody is disturbed while typing
    expect(field).to_have_value("12")
    button.click()
    expect(page.locator(".alert.ok")).to_have_text(
        "We have sent the email again. Use the newest one."
    )
    expect(page.get_by_text("You can ask for the email again in 2 minutes")).to_be_visible()
    assert site.code(ada, mail=2) == code
    field.focus()
    paste(page, code)
    expect(page).to_have_url(f"{site.url}/dashboard")


def test_the_code_form_says_by_itself_that_the_code_ran_out(page, site, ada):
    page.clock.install()
    ask(page, ada)
    site.sql("update challenges set expires_at = issued_at where address = ?", ada)
    page.clock.fast_forward("15:01")
    expect(page.get_by_text("The code has run out.")).to_be_visible()
    page.get_by_role("link", name="Start again").click()
    expect(page).to_have_url(f"{site.url}/login")


def test_the_way_leads_back_to_the_page_that_was_wanted(page, site, boss):
    page.goto("/admin?q=boss")
    expect(page).to_have_url(re.compile(r"/login\?next="))
    page.keyboard.type(boss)
    page.keyboard.press("Enter")
    expect(page.get_by_label("6-digit code")).to_be_focused()
    paste(page, site.code(boss))
    expect(page).to_have_url(f"{site.url}/admin?q=boss")


def test_times_are_shown_in_the_time_zone_of_the_browser(visit, site, ada):
    page = visit(timezone_id="Asia/Kolkata")  # which Chromium still calls by its older name
    ask(page, ada)
    paste(page, site.code(ada))
    shown = page.locator("dl time")
    expect(shown).to_contain_text(re.compile(r"\(Asia/(Kolkata|Calcutta)\)"))
    utc = datetime.fromisoformat(shown.get_attribute("datetime"))
    expect(shown).to_contain_text(f"{utc + timedelta(hours=5, minutes=30):%H:%M}")


def test_back_from_the_code_leads_to_the_address_and_reload_keeps_the_code(page, site, ada):
    ask(page, ada)
    page.reload()
    expect(page.get_by_label("6-digit code")).to_be_visible()
    expect(page.locator("#sent")).to_contain_text(ada)
    page.go_back()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page).to_have_url(f"{site.url}/login")
    page.go_forward()
    expect(page.get_by_label("6-digit code")).to_be_visible()
    paste(page, site.code(ada))
    expect(page).to_have_url(f"{site.url}/dashboard")


def test_a_server_that_is_away_costs_nothing_but_time(visit, tmp_path):
    first = Site(tmp_path).start()
    second = Site(tmp_path, PORT=str(first.server.port))
    try:
        address = first.add()
        page = visit(at=first)
        page.watch.allow(text=r"ERR_CONNECTION_REFUSED|^error: htmx:(sendError|afterRequest)")
        ask(page, address)
        code = first.code(address)
        first.leave()
        page.keyboard.type(code)
        page.keyboard.press("Enter")
        said = page.get_by_text("We could not reach the server. Nothing is lost: try again.")
        expect(said).to_be_visible()
        expect(page.get_by_label("6-digit code")).to_have_value(code)
        second.start()
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{first.url}/dashboard")
    finally:
        first.leave()
        second.leave()


def test_a_server_that_does_not_answer_is_not_waited_for_without_end(visit, tmp_path):
    site = Site(tmp_path).start()
    try:
        address = site.add()
        page = visit(at=site)
        page.watch.allow(text=r"^error: htmx:(timeout|afterRequest)")
        ask(page, address)
        assert 5_000 <= page.evaluate("htmx.config.timeout") <= 60_000
        page.evaluate("htmx.config.timeout = 200")
        site.server.process.send_signal(signal.SIGSTOP)
        page.keyboard.type("123456")
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_contain_text("We could not reach the server.")
        expect(page.get_by_role("button", name="Sign in")).to_be_enabled()
    finally:
        site.leave()
