"""Every page and every state, in light and dark, wide and narrow: axe finds nothing, nothing sticks out."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import ask, wrong

pytestmark = pytest.mark.xdist_group("browser")

AXE = Axe().axe_script
# The default rules, and target-size of WCAG 2.2 AA, which axe leaves off. Dark differs in colours only.
RULES = {
    "light": {"rules": {"target-size": {"enabled": True}}},
    "dark": {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}},
}
SIZES = ({"width": 1200, "height": 800}, {"width": 360, "height": 740})
# The script is half a megabyte, and stays in a document that has it. Only what is wrong comes back: to
# name, and to send, all that is right takes longer than to look.
LOOK = "rules => axe.run(document, {...rules, resultTypes: ['violations']}).then(r => r.violations)"
STICKS_OUT = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def inspect(page):
    """Look at the state that the page is in from all sides."""
    faults = []
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    for size in SIZES:
        page.set_viewport_size(size)
        for scheme, rules in RULES.items():
            page.emulate_media(color_scheme=scheme)
            faults += [
                f"{scheme} {size['width']}: {v['id']}: {n['target']} {n['failureSummary']}"
                for v in page.evaluate(LOOK, rules)
                for n in v["nodes"]
            ]
    for width in (1200, 1160, 1024, 780, 360, 320):
        page.set_viewport_size({"width": width, "height": 700})
        if (more := page.evaluate(STICKS_OUT)) > 0:
            faults.append(f"{width}: {more} px too wide")
    assert faults == [], "\n".join(faults)


def submit(page, label, text, button):
    page.get_by_label(label).fill(text)
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_role("alert")).to_be_visible()


def test_axe_and_the_ruler_do_find_faults(page):
    page.goto("/login")
    page.evaluate("document.querySelector('label').remove()")
    with pytest.raises(AssertionError, match="label"):
        inspect(page)
    page.evaluate("document.querySelector('h1').textContent = 'x'.repeat(500)")
    page.evaluate("document.querySelector('h1').style.whiteSpace = 'nowrap'")
    page.watch.allow(text="CSP")
    assert page.evaluate(STICKS_OUT) > 0


def test_the_front_page_and_the_way_in(page):
    page.watch.allow(422)
    page.goto("/")
    inspect(page)
    page.get_by_role("link", name="Sign in").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    inspect(page)
    submit(page, "Email address", "ada at example.org", "Email me a code")
    inspect(page)


def test_the_code_and_a_wrong_one(page, site):
    page.watch.allow(422)
    long = site.add(word="an-address-that-does-not-fit-into-a-line-of-a-telephone-")
    ask(page, long)
    page.get_by_text("Nothing arrived?").click()
    inspect(page)
    submit(page, "6-digit code", wrong(site.code(long)), "Sign in")
    inspect(page)


def test_the_code_when_it_can_be_sent_again_and_was(page, site, ada):
    ask(page, ada)
    site.sql("update challenges set sent_at = sent_at - 61 where address = ?", ada)
    page.reload()
    button = page.get_by_role("button", name="Send the email again")
    expect(button).to_be_visible()
    inspect(page)
    button.click()
    expect(page.locator(".alert.ok")).to_be_visible()
    inspect(page)


def test_the_code_when_it_is_over(page, site, ada):
    page.watch.allow(410)
    ask(page, ada)
    site.sql("update challenges set expires_at = issued_at where address = ?", ada)
    submit(page, "6-digit code", "123456", "Sign in")
    inspect(page)


def test_the_code_form_without_a_sign_in(page, site, ada):
    page.watch.allow(410)
    ask(page, ada)
    page.context.clear_cookies()
    submit(page, "6-digit code", "123456", "Sign in")
    inspect(page)


def test_an_ordinary_person_s_pages(visit, ada):
    page = visit(ada)
    page.watch.allow(403, 404, 405)
    for path in ("/", "/dashboard", "/admin", "/nowhere", "/logout"):
        page.goto(path)
        inspect(page)


def test_an_admin_s_dashboard_and_people(visit, boss, crowd):
    page = visit(boss)
    for path in ("/dashboard", "/admin", "/admin?q=guest&sort=-name", "/admin?q=nobody+at+all"):
        page.goto(path)
        inspect(page)


def test_adding_and_disabling_people(visit, site, boss):
    page = visit(boss)
    page.watch.allow(422)
    odd = f"{'long-' * 11}{boss}"
    page.goto(f"/admin?q={boss}")
    page.get_by_text("Add a person").click()
    inspect(page)
    submit(page, "Email address", boss, "Add")
    inspect(page)
    page.get_by_label("Email address").fill(odd)
    page.get_by_label("Name (optional)").fill("Wolfeschlegelsteinhausenbergerdorff" * 3)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".alert.ok")).to_be_visible()
    page.goto(f"/admin?q={odd}")
    page.watch.accept = True
    page.get_by_role("button", name="Disable").click()
    expect(page.locator(".pill.bad")).to_be_visible()
    inspect(page)
