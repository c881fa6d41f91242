"""What is left behind: in the history, in storage, in other tabs and in other people's pages."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import ask, paste

pytestmark = pytest.mark.xdist_group("browser")

STORED = """() => JSON.stringify([
  Object.entries(localStorage), Object.entries(sessionStorage), document.cookie
])"""


def sign_out(page):
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@pytest.fixture
def neighbour(site):
    """A page of another origin. It frames, or opens, what the path says."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            target = {"/app": f"{site.url}/login", "/own": "/plain"}.get(self.path)
            body = (
                f'<title>n</title><link rel="icon" href="data:,"><iframe src="{target}"></iframe>'
                f"""<button onclick="window.open('{target}')">Open</button>"""
            )
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body.encode() if target else b"<h1>Sign in</h1>")

        def log_message(self, *args): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_back_after_signing_out_shows_nothing_of_the_account(visit, site, boss):
    page = visit(boss)
    page.goto("/dashboard")
    page.get_by_role("link", name="People", exact=True).click()
    expect(page.get_by_role("heading", name="People")).to_be_visible()
    page.get_by_role("link", name="Dashboard").click()
    expect(page.get_by_role("main")).to_contain_text(boss)
    sign_out(page)
    for _ in range(3):
        page.go_back()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert boss not in page.content()


def test_a_page_that_comes_back_from_the_browser_s_memory_asks_anew(visit, ada):
    page = visit(ada)
    page.goto("/dashboard")
    other = page.context.new_page()
    other.goto("/dashboard")
    sign_out(other)
    expect(page.get_by_role("main")).to_contain_text(ada)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert ada not in page.content()


def test_nothing_is_kept_in_the_browser_by_script(visit, site, boss):
    page = visit()
    ask(page, boss)
    paste(page, site.code(boss))
    expect(page).to_have_url(f"{site.url}/dashboard")
    page.goto("/admin")
    with page.expect_response(re.compile(r"/admin\?q=")):
        page.get_by_label("Search people").press_sequentially(boss)
    expect(page.locator("tbody tr")).to_have_count(1)
    inside = page.evaluate(STORED)
    assert "htmx-history-cache" not in inside and "People" not in inside
    assert "session" not in inside  # its cookie is out of reach
    page.evaluate("localStorage.setItem('draft', 'of a page of the app')")
    sign_out(page)
    after = page.evaluate(STORED)
    assert quote(boss) in inside  # htmx keeps the current path, which holds the search …
    assert after == '[[],[["htmx-current-path-for-history","/login"]],""]'  # … until here


def test_a_page_left_open_leads_to_the_door_and_back(visit, site, boss):
    first = visit(boss)
    first.goto("/admin")
    second = first.context.new_page()
    second.goto("/dashboard")
    sign_out(second)
    first.get_by_label("Search people").press_sequentially("x")
    expect(first).to_have_url(re.compile(r"/login\?next=/admin"))
    first.keyboard.type(boss)
    first.keyboard.press("Enter")
    expect(first.get_by_label("6-digit code")).to_be_focused()
    paste(first, site.code(boss, mail=2))
    expect(first).to_have_url(re.compile(rf"{site.url}/admin"))


def test_of_two_tabs_the_newest_sign_in_counts(visit, site):
    first, ada, bob = visit(), site.add(), site.add(word="bob")
    first.watch.allow(422)
    ask(first, ada)
    second = first.context.new_page()
    ask(second, bob)
    old, new = site.code(ada), site.code(bob)
    first.bring_to_front()
    first.get_by_label("6-digit code").fill(old)
    first.keyboard.press("Enter")
    # The page shows whose code the browser waits for now.
    expect(first.get_by_role("alert")).to_contain_text("Check the newest email.")
    expect(first.locator("#sent")).to_contain_text(bob)
    second.bring_to_front()
    second.get_by_label("6-digit code").focus()
    paste(second, new)
    expect(second.get_by_role("main")).to_contain_text(f"signed in as {bob}")
    # The other one hears of it, and has nothing left to wait for.
    expect(first.get_by_role("main")).to_contain_text(f"signed in as {bob}")


def test_two_browsers_sign_in_side_by_side(visit, site, ada):
    first, second = visit(), visit()
    ask(first, ada)
    one = site.code(ada)
    ask(second, ada)
    two = site.code(ada, mail=2)
    paste(first, one)
    expect(first).to_have_url(f"{site.url}/dashboard")
    second.bring_to_front()
    paste(second, two)
    expect(second).to_have_url(f"{site.url}/dashboard")


def test_signing_out_everywhere_ends_the_other_browser_too(visit, site, ada):
    here, there = visit(ada), visit(ada)
    there.goto("/dashboard")
    here.goto("/dashboard")
    here.get_by_role("button", name="Sign out everywhere").click()
    expect(here.get_by_role("heading", name="Sign in")).to_be_visible()
    there.reload()
    expect(there.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_disabled_person_is_out_at_the_next_click(visit, site, boss, ada):
    admin, page = visit(boss), visit(ada)
    page.goto("/dashboard")
    admin.goto(f"/admin?q={ada}")
    admin.watch.accept = True
    admin.get_by_role("button", name=f"Disable {ada}").click()
    expect(admin.locator(".pill.bad")).to_have_text("disabled")
    page.get_by_role("link", name="Dashboard").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_no_other_site_can_frame_the_door(page, neighbour):
    page.watch.allow(text=".")  # the neighbour's pages may be as noisy as they like
    page.goto(f"{neighbour.url}/own")
    frame = page.frame_locator("iframe").get_by_role("heading", name="Sign in")
    expect(frame).to_be_visible()  # so would the door be, if it let itself be framed
    with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
        page.goto(f"{neighbour.url}/app")
    expect(frame).to_have_count(0)


def test_no_other_site_keeps_a_hand_on_the_window_it_opens(page, neighbour):
    page.watch.allow(text=".")
    for path, opener in (("/own", True), ("/app", False)):
        page.goto(neighbour.url + path)
        with page.expect_popup() as opened:
            page.get_by_role("button", name="Open").click()
        expect(opened.value.get_by_role("heading", name="Sign in")).to_be_visible()
        assert opened.value.evaluate("window.opener !== null") is opener


def test_another_site_can_not_press_our_buttons(visit, site, neighbour, ada):
    page = visit(ada)
    page.watch.allow(403)
    page.watch.allow(text=re.escape(f"request: {neighbour.url}"))
    page.goto(f"{neighbour.url}/plain")
    with page.expect_navigation():
        page.evaluate(
            """url => {
              document.body.innerHTML = `<form method="post" action="${url}"><button></button></form>`;
              document.querySelector('button').click();
            }""",
            f"{site.url}/logout",
        )
    expect(page.get_by_role("heading", name="That came from another site")).to_be_visible()
    page.goto("/dashboard")
    expect(page.get_by_role("main")).to_contain_text(ada)
