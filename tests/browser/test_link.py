"""The mailed link in a real browser: looked at, pressed here and elsewhere, pasted, typed off."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Site, ask, eventually, posts_to, settled, wrong
from tests.browser.test_accessible import inspect
from tests.conftest import WIDE

pytestmark = pytest.mark.xdist_group("browser")

NEXT = "/dashboard?from=here"
DOOR = "/login?next=/dashboard%3Ffrom%3Dhere"
LINK = r"^│ To: {} +│\n(?:│.*\n)*?│ (http\S+/link#[A-Za-f]{{78}}) +│$"
KEPT = """async () => JSON.stringify([
  location.href, document.referrer, document.cookie, name, history.state,
  navigation.entries().map(entry => entry.url),
  Object.entries(localStorage), Object.entries(sessionStorage),
  await indexedDB.databases(), await caches.keys(),
  (await navigator.serviceWorker.getRegistrations()).length,
])"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two wrong codes are enough here to switch six digits off for an address."""
    limits = WIDE | {"LIMIT_WRONG_PER_ACCOUNT": "2/24h"}
    site = Site(tmp_path_factory.mktemp("links"), **limits)
    yield site.start()
    site.leave()


@pytest.fixture
def neighbour():
    """Another origin; `heard` holds the Referer of each visit, None for none."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/":
                server.heard.append(self.headers["Referer"])
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b'<link rel="icon" href="data:,"><h1>Elsewhere</h1>')

        def log_message(self, *args): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.url, server.heard = f"http://127.0.0.1:{server.server_port}/", []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


# ---- what people do
def link_to(site, address, mail=1):
    """The link in the first (or another) mail with one to an address."""
    pattern = re.compile(LINK.format(re.escape(address)), re.MULTILINE)
    found = lambda: pattern.findall(site.server.log)[mail - 1 : mail]  # noqa: E731
    return eventually(found, f"link to {address}")[0]


def secret_of(link):
    return link.partition("#")[2]


def ask_link_only(page, address):
    """Type an address for which six digits are off."""
    page.goto(DOOR)
    page.get_by_label("Email address").fill(address)
    page.get_by_label("Email address").press("Enter")
    expect(page.get_by_role("heading", name="Open the link that we sent")).to_be_visible()


def ask_beside(page, site, address):
    """Ask in a browser that is signed in, where the door itself leads inside."""
    headers, form = {"Origin": site.url}, {"email": address}
    answer = page.request.post("/create_code", form=form, headers=headers, max_redirects=0)
    assert answer.status == 303


def spend_codes(visit, site, address, mail=1):
    """What a stranger does to an address until its mails have only a link."""
    stranger = visit()
    stranger.watch.allow(422)
    ask(stranger, address)
    code = site.code(address, mail)
    for guess, left in ((wrong(code), "4 tries left"), (wrong(wrong(code)), "3 tries left")):
        stranger.get_by_label("6-digit code").fill(guess)
        stranger.get_by_role("button", name="Sign in").click()
        # Drawn, not only answered: the form is another one afterwards, and empty.
        expect(stranger.get_by_role("alert")).to_contain_text(left)


def show(page, link):
    """Open a link in a browser that did not ask, press, and read what it shows."""
    page.goto(link)
    page.get_by_role("button", name="Show me what to type").click()
    expect(page.get_by_role("heading", name="Type this in the other browser")).to_be_visible()
    return page.locator(".shown").inner_text().strip()


def arrived(page, site):
    expect(page).to_have_url(site.url + NEXT)
    expect(page.get_by_role("main")).to_contain_text("You are signed in as")


def stays(page, site):
    """Whatever wakes the waiting tab, the server has nothing new for it."""
    with page.expect_response("**/verify_code?*") as waked:
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert waked.value.status == 204
    with page.expect_response("**/verify_code?*") as waked:
        page.evaluate("htmx.trigger(document.body, 'signed-in')")
    assert waked.value.status == 204
    settled(page)
    expect(page).to_have_url(f"{site.url}/verify_code")


# ---- E1
def test_E1_a_machine_that_runs_the_scripts_and_waits_spends_nothing(visit, site, ada):
    page = visit()
    ask(page, ada, DOOR)
    link = link_to(site, ada)
    bot, sent = visit(), []
    bot.context.on("request", lambda request: sent.append(request))
    bot.goto(link, referer="https://mail.example.com/")
    expect(bot.locator("#token")).to_have_value(secret_of(link))  # its scripts did run
    bot.mouse.move(200, 200)
    bot.mouse.wheel(0, 400)
    bot.keyboard.press("Tab")
    bot.wait_for_timeout(8000)
    assert {request.method for request in sent} == {"GET"}
    assert bot.context.cookies() == []
    page.goto(link)
    page.get_by_role("button", name="Sign in", exact=True).click()
    arrived(page, site)


# ---- the same browser
def test_the_link_signs_in_where_it_was_asked_for_and_the_waiting_tab_follows(page, site, ada):
    ask(page, ada, DOOR)
    tab = page.context.new_page()
    posts = posts_to(tab, "/link")
    tab.goto(link_to(site, ada))
    expect(tab.locator("#what")).to_contain_text("signs you in as a***@example.org")
    expect(tab.get_by_label("The link from the email")).to_be_hidden()
    settled(tab)
    assert posts == []
    expect(page).to_have_url(f"{site.url}/verify_code")
    tab.get_by_role("button", name="Sign in", exact=True).click()
    arrived(tab, site)
    arrived(page, site)  # by itself
    assert len(posts) == 1


def test_a_waiting_tab_that_was_asleep_follows_when_it_is_looked_at(page, site, ada):
    ask(page, ada, DOOR)
    with_none = page.context.new_page()
    with_none.add_init_script("delete window.BroadcastChannel")
    with_none.goto(link_to(site, ada))
    with_none.get_by_role("button", name="Sign in", exact=True).click()
    arrived(with_none, site)
    settled(page)
    expect(page).to_have_url(f"{site.url}/verify_code")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    arrived(page, site)


def test_a_tab_that_reached_the_code_form_by_reload_follows_too(page, site, ada):
    ask(page, ada, DOOR)
    page.reload()
    tab = page.context.new_page()
    tab.goto(link_to(site, ada))
    tab.get_by_role("button", name="Sign in", exact=True).click()
    arrived(tab, site)
    arrived(page, site)


def test_the_same_link_opened_in_two_tabs_leads_both_in(page, site, ada):
    ask(page, ada)
    link, tabs = link_to(site, ada), [page.context.new_page() for _ in range(2)]
    for tab in tabs:
        tab.goto(link)
    for tab in tabs:
        tab.get_by_role("button", name="Sign in", exact=True).click()
        expect(tab).to_have_url(f"{site.url}/dashboard")


def test_the_keyboard_is_enough_for_a_link(page, site, ada):
    ask(page, ada, DOOR)
    page.goto(link_to(site, ada))
    page.get_by_role("button", name="Sign in", exact=True).focus()
    page.keyboard.press("Enter")
    arrived(page, site)


def test_D3_a_link_for_another_account_says_whose_session_ends(visit, site, ada, boss):
    page = visit(ada)
    ask_beside(page, site, boss)
    page.goto(link_to(site, boss))
    expect(page.locator("#what")).to_contain_text("as b***@example.org")
    expect(page.locator("#what")).to_contain_text(
        f"You are signed in here as {ada}; that ends then."
    )
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("main")).to_contain_text(f"You are signed in as {boss}.")


# ---- another browser
def test_E2_a_link_pressed_elsewhere_moves_no_waiting_tab(visit, site, ada):
    page, other = visit(), visit()
    ask(page, ada, DOOR)
    other.watch.allow(410)
    posts = posts_to(page, "/verify_code")
    code = show(other, link_to(site, ada))
    assert code == site.code(ada)
    expect(other).to_have_url(f"{site.url}/link")
    stays(page, site)
    assert posts == [] and other.context.cookies() == []
    other.goto("/dashboard")
    expect(other).to_have_url(re.compile("/login"))
    page.get_by_label("6-digit code").fill(code)
    page.get_by_role("button", name="Sign in", exact=True).click()
    arrived(page, site)
    other.goto(link_to(site, ada))
    other.get_by_role("button", name="Show me what to type").click()
    expect(other.get_by_role("alert")).to_have_text(
        "That link was used already. Ask for a new one."
    )


def test_E2_a_tab_whose_link_was_used_by_the_owner_elsewhere_stays_out(visit, site, ada):
    """Both asked for one address; the owner used the link of the other one's mail."""
    mallory, owner = visit(), visit()
    mallory.watch.allow(410)
    ask(mallory, ada, DOOR)
    link = link_to(site, ada)
    ask(owner, ada)
    owner.goto(link)
    owner.get_by_role("button", name="Sign in", exact=True).click()
    expect(owner).to_have_url(f"{site.url}/dashboard")  # where the owner wanted to go
    stays(mallory, site)
    mallory.goto("/dashboard")
    expect(mallory).to_have_url(re.compile("/login"))


def test_twelve_characters_are_typed_where_six_digits_are_off(visit, site, ada):
    spend_codes(visit, site, ada)
    page, other = visit(), visit()
    page.watch.allow(422)
    ask_link_only(page, ada)
    code = show(other, link_to(site, ada, mail=2))
    assert re.fullmatch(r"[A-Z2-7]{12}", code)
    field = page.get_by_label("What the link shows, 12 letters and digits")
    expect(field).to_be_focused()
    for typed, said in (
        ("123456", "Codes of 6 digits are switched off"),
        ("ABC", "not what the link"),
    ):
        field.fill(typed)
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text(said)
        expect(page.get_by_role("alert")).to_be_focused()
    stays(page, site)
    field.fill("")
    field.press_sequentially(code.lower())
    page.keyboard.press("Enter")
    arrived(page, site)


def test_what_has_to_be_typed_stands_out_and_can_be_told_letter_by_letter(visit, site, ada):
    page, other = visit(), visit()
    ask(page, ada)
    show(other, link_to(site, ada))
    look = "e => { const s = getComputedStyle(e); return [parseFloat(s.fontSize), s.fontFamily] }"
    size, family = other.locator(".shown").evaluate(look)
    words, _ = other.locator(".soft").first.evaluate(look)
    assert size >= 1.5 * words and "mono" in family


def test_a_page_with_digits_says_so_when_they_are_off_meanwhile(visit, site, ada):
    """Asked before a stranger spent the tries: the code in the mail is off, and what the link shows works."""
    page, other = visit(), visit()
    page.watch.allow(422)
    ask(page, ada, DOOR)
    code = site.code(ada)
    spend_codes(visit, site, ada, mail=2)
    page.get_by_label("6-digit code").fill(code)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("switched off for this address for now")
    shown = show(other, link_to(site, ada))
    page.get_by_label("What the link shows").fill(shown)
    page.keyboard.press("Enter")
    arrived(page, site)


# ---- what is no secret, and a secret where no form is
def test_the_skip_link_is_not_taken_for_the_secret(page, site, ada):
    """`#main` is a fragment, too."""
    ask(page, ada, DOOR)
    link = link_to(site, ada)
    page.goto(link)
    expect(page.locator("#token")).to_have_value(secret_of(link))
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    settled(page)
    expect(page.locator("#token")).to_have_value(secret_of(link))
    page.get_by_role("button", name="Sign in", exact=True).click()
    arrived(page, site)


def test_the_skip_link_leaves_the_empty_field_alone(page):
    page.goto("/link")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    settled(page)
    expect(page.get_by_label("The link from the email")).to_be_visible()
    expect(page.get_by_label("The link from the email")).to_have_value("")


def test_E3_a_second_link_in_the_tab_that_showed_the_first_one_counts(visit, site, ada):
    """It differs in its fragment only, so the browser loads nothing anew."""
    page, other = visit(), visit()
    ask(page, ada, DOOR)
    show(other, link_to(site, ada))
    page.context.clear_cookies()
    ask(page, ada, DOOR)
    second = link_to(site, ada, mail=2)
    code = show(other, second)
    assert code == site.code(ada, mail=2)
    assert secret_of(second) not in other.evaluate(KEPT)


# ---- refused
def test_a_link_that_was_cut_off_can_be_pasted_whole(page, site, ada):
    page.watch.allow(422)
    ask(page, ada, DOOR)
    link = link_to(site, ada)
    page.goto(link[:-5])
    page.get_by_role("button", name="Sign in", exact=True).click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("That link does not work.")
    expect(alert).to_be_focused()
    expect(page).to_have_title("Error: Sign in · Vestibule")
    field = page.get_by_label("The link from the email")
    expect(field).to_be_visible()
    expect(field).to_have_value("")
    field.fill(link)
    page.keyboard.press("Enter")
    arrived(page, site)


def test_a_link_pasted_into_the_address_bar_of_an_open_link_page_counts(page, site, ada):
    ask(page, ada, DOOR)
    link = link_to(site, ada)
    page.goto("/link")
    expect(page.get_by_label("The link from the email")).to_be_visible()
    page.evaluate("secret => { location.hash = secret }", secret_of(link))
    expect(page.locator("#token")).to_have_value(secret_of(link))
    expect(page).to_have_url(f"{site.url}/link")
    page.get_by_role("button", name="Sign in", exact=True).click()
    arrived(page, site)


def test_a_link_that_ran_out_leads_to_a_new_mail(page, site, ada):
    page.watch.allow(410)
    ask(page, ada)
    link = link_to(site, ada)
    site.sql("update challenges set link_expires_at = issued_at where address = ?", ada)
    page.goto(link)
    page.get_by_role("button").first.click()
    expect(page.get_by_role("alert")).to_have_text("That link has run out. Ask for a new one.")
    page.get_by_role("button", name="Send a new").click()
    expect(page.get_by_label("6-digit code")).to_be_focused()
    page.get_by_label("6-digit code").fill(site.code(ada, mail=2))
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.url}/dashboard")


# ---- E3
def test_E3_the_secret_is_nowhere_once_the_page_is_there(page, site, ada):
    ask(page, ada, DOOR)
    link = link_to(site, ada)
    secret, sent = secret_of(link), []
    page.context.on("request", lambda request: sent.append(request))
    page.goto(link)
    expect(page.locator("#token")).to_have_value(secret)
    expect(page).to_have_url(f"{site.url}/link")
    assert secret not in page.evaluate(KEPT)
    page.go_back()
    page.go_forward()
    expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    assert secret not in page.evaluate(KEPT)
    page.goto(link)
    page.get_by_role("button", name="Sign in", exact=True).click()
    arrived(page, site)
    assert secret not in page.evaluate(KEPT)
    posts = [request for request in sent if request.method == "POST"]
    assert [urlsplit(post.url).path for post in posts] == ["/link"]
    assert parse_qs(posts[0].post_data)["token"] == [secret]
    for request in sent:
        parts, headers = urlsplit(request.url), request.all_headers()
        assert secret not in parts.path + parts.query and secret not in str(headers)
        if request.method == "POST" or parts.path.startswith("/static/"):
            assert "/link" not in headers.get("referer", ""), request.url


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_E3_a_way_out_of_the_link_page_tells_nobody_of_it(visit, site, ada, neighbour, scripts):
    page = visit(java_script_enabled=scripts)
    page.watch.allow(text=f"^request: {re.escape(neighbour.url)}")
    asker = visit()
    ask(asker, ada)

    def add_a_way_out(route):
        """As somebody might, who puts a link to another site on this page."""
        answer = route.fetch()
        way = f'<main id="main"><a href="{neighbour.url}">Out</a>'
        route.fulfill(
            response=answer, body=re.sub('<main [^>]*id="main"[^>]*>', way, answer.text())
        )

    page.route(re.compile("/(link|login)$"), add_a_way_out)
    for path in ("/login", link_to(site, ada)):
        page.goto(path)
        page.get_by_role("link", name="Out").click()
        expect(page.get_by_role("heading", name="Elsewhere")).to_be_visible()
        assert neighbour.heard.pop() is None
    page.goto("about:blank")


# ---- without scripts
def test_without_scripts_all_of_the_link_is_pasted(visit, site, ada):
    page = visit(java_script_enabled=False)
    page.watch.allow(422)
    page.goto(DOOR)
    page.get_by_label("Email address").fill(ada)
    page.get_by_role("button", name="Email me a code").click()
    expect(page).to_have_url(f"{site.url}/verify_code")
    link = link_to(site, ada)
    page.goto(link)
    field = page.get_by_label("The link from the email")
    expect(field).to_be_visible()
    expect(field).to_have_value("")
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("paste it into the field below")
    expect(page).to_have_title("Error: Sign in · Vestibule")
    field.fill(f" {link} ")
    page.get_by_role("button").first.click()
    arrived(page, site)


def test_without_scripts_another_browser_shows_what_to_type(visit, site, ada):
    page, other = (visit(java_script_enabled=False) for _ in range(2))
    page.goto(DOOR)
    page.get_by_label("Email address").fill(ada)
    page.get_by_role("button", name="Email me a code").click()
    expect(page).to_have_url(f"{site.url}/verify_code")
    link = link_to(site, ada)
    other.goto(link)
    other.get_by_label("The link from the email").fill(link)
    other.get_by_role("button", name="Show me what to type").click()
    page.get_by_label("6-digit code").fill(other.locator(".shown").inner_text())
    page.get_by_role("button", name="Sign in", exact=True).click()
    arrived(page, site)


# ---- every state from all sides
def test_how_the_link_page_looks_where_it_was_asked_for(page, site):
    page.watch.allow(422)
    long = site.add(word="an-address-that-does-not-fit-into-a-line-of-a-telephone-")
    ask(page, long)
    link = link_to(site, long)
    page.goto("/link")
    inspect(page)  # with the field
    page.goto(link)
    inspect(page)
    page.goto("about:blank")
    page.goto(link[:-1])
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("alert")).to_be_visible()
    inspect(page)


def test_how_the_link_page_looks_to_somebody_who_is_signed_in(visit, site, boss):
    long = site.add(word="an-address-that-does-not-fit-into-a-line-of-a-telephone-")
    page = visit(long)
    ask_beside(page, site, boss)
    page.goto(link_to(site, boss))
    expect(page.locator("#what")).to_contain_text("that ends")
    inspect(page)


def test_how_the_link_page_looks_elsewhere(visit, site, ada):
    page, other = visit(), visit()
    other.watch.allow(410, 422)
    ask(page, ada)
    link = link_to(site, ada)
    other.goto(link)
    inspect(other)
    show(other, link)
    inspect(other)
    other.goto("about:blank")
    other.goto("/link#nonsense")
    other.get_by_role("button", name="Show me what to type").click()
    expect(other.get_by_role("alert")).to_be_visible()
    inspect(other)
    site.sql("update challenges set browser = id where address = ?", ada)
    other.goto("about:blank")
    other.goto(link)
    other.get_by_role("button", name="Show me what to type").click()
    expect(other.get_by_role("heading", name="Ask for a new email")).to_be_visible()
    inspect(other)
    site.sql("update challenges set used_at = issued_at where address = ?", ada)
    other.goto("about:blank")
    other.goto(link)
    other.get_by_role("button", name="Show me what to type").click()
    expect(other.get_by_role("alert")).to_be_visible()
    inspect(other)


def test_how_it_looks_where_six_digits_are_off(visit, site):
    long = site.add(word="an-address-that-does-not-fit-into-a-line-of-a-telephone-")
    spend_codes(visit, site, long)
    page, other = visit(), visit()
    page.watch.allow(422)
    ask_link_only(page, long)
    inspect(page)
    code = show(other, link_to(site, long, mail=2))
    inspect(other)
    page.get_by_label("What the link shows").fill("WWWWWWWWWWWW")
    inspect(page)
    fits = "field => field.scrollWidth <= field.clientWidth"
    for width in (1200, 360, 320):  # all of what was typed can be read
        page.set_viewport_size({"width": width, "height": 700})
        assert page.get_by_label("What the link shows").evaluate(fits), width
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("alert")).to_be_visible()
    inspect(page)
    page.get_by_label("What the link shows").fill(code)
    page.get_by_role("button", name="Sign in", exact=True).click()
    arrived(page, site)


def test_how_the_link_page_looks_without_scripts(visit, site, ada):
    page = visit(java_script_enabled=False)
    page.goto("/link#nonsense")
    for width in (1200, 360):
        page.set_viewport_size({"width": width, "height": 700})
        box = page.locator("html").evaluate("e => e.scrollWidth - e.clientWidth")
        assert box <= 0, width
