"""One's own account, a person, organisations and the audit, in a browser: they look right, and do what they say."""

import pytest
from playwright.sync_api import expect

from tests.browser.test_accessible import inspect

pytestmark = pytest.mark.xdist_group("browser")

# What a stranger may put into a name, an organisation or a User-Agent. None may run, none may be HTML.
PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "</textarea><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "<iframe src=javascript:alert(1)>",
    "<a href=javascript:alert(1)>click</a>",
    "javascript:alert(1)",
    "<body onload=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "{{constructor.constructor('alert(1)')()}}",
    "${alert(1)}",
    "<div hx-get=/logout_everywhere hx-trigger=load>",
    "<form hx-post=/logout_everywhere hx-trigger=load></form>",
    "<div hx-on:load='alert(1)'>",
    "<meta http-equiv=refresh content=0;url=/logout>",
    "<base href=//evil.test>",
    "<link rel=stylesheet href=//evil.test/x.css>",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e",
    "<!--<script>alert(1)</script>-->",
    "⟦link⟧⟦content⟧⟦menu⟧",
    "{name} {address} %s %(x)s",
]


def organisation(page, name, address):
    page.goto("/admin/organisations")
    page.get_by_text("Add an organisation").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Email address of its first admin").fill(address)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".alert.ok")).to_be_visible()


def test_one_s_own_account_is_clear_from_all_sides(visit, site, ada):
    page = visit(ada)
    site.session(ada)  # another sign-in
    page.goto("/account")
    inspect(page)
    page.set_viewport_size({"width": 1200, "height": 900})
    page.get_by_label("Name", exact=True).fill("Ada Lovelace")
    page.get_by_label("Time zone").select_option("Europe/London")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("saved")
    expect(page.get_by_label("Name", exact=True)).to_have_value("Ada Lovelace")
    page.get_by_role("button", name="End the sign-in").first.click()
    expect(page.get_by_role("status").first).to_contain_text("ended")
    expect(page.get_by_role("button", name="End the sign-in")).to_have_count(0)
    expect(page.get_by_text("this one")).to_be_visible()


def test_a_fresh_code_leads_back_to_where_one_was(visit, site, ada):
    page = visit(ada)
    page.goto("/account")
    old = "update sessions set created_at = created_at - 901 where user_id ="
    site.sql(f"{old} (select id from users where address = ?)", ada)
    page.get_by_role("button", name="Delete my account").click()
    expect(page.get_by_role("heading", name="Is it you?")).to_be_visible()
    inspect(page)
    page.set_viewport_size({"width": 1200, "height": 900})
    mails = len(site.codes_to(ada))
    page.get_by_role("button", name="Send me a code").click()
    expect(page.get_by_label("6-digit code")).to_be_focused()
    page.get_by_label("6-digit code").fill(site.code(ada, mails + 1))
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.url}/account")
    page.get_by_role("button", name="Delete my account").click()
    expect(page.get_by_role("heading", name="Delete your account?")).to_be_visible()
    inspect(page)
    page.get_by_role("button", name="Delete it for good").click()
    expect(page).to_have_url(f"{site.url}/login?done=deleted")
    expect(page.locator(".alert.ok")).to_have_text("Your account is deleted.")
    inspect(page)


def test_an_admin_makes_an_organisation_and_looks_at_a_person(visit, site, boss, ada):
    page = visit(boss)
    for path in ("/admin/overview", "/admin/roles", "/admin/organisations"):
        page.goto(path)
        inspect(page)
    page.set_viewport_size({"width": 1200, "height": 900})
    organisation(page, f"Chess club of {ada}", ada)
    inspect(page)
    page.set_viewport_size({"width": 1200, "height": 900})
    page.get_by_label("Address", exact=True).fill(boss)
    page.get_by_label("Role here", exact=True).select_option("admin")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("link", name=ada, exact=True).click()
    page.get_by_role("button", name="Remove from here").click()
    expect(page.get_by_role("heading", name="Remove this member?")).to_be_visible()
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    # Their page: sign-ins, what happened, and the end of a sign-in.
    site.session(ada)
    page.goto(f"/admin?q={ada}")
    page.get_by_role("link", name=ada).click()
    expect(page.get_by_role("heading", name=ada)).to_be_visible()
    inspect(page)
    page.set_viewport_size({"width": 1200, "height": 900})
    page.watch.accept = True
    page.get_by_role("button", name="Sign out everywhere").click()
    expect(page.get_by_role("status").first).to_contain_text("signed out everywhere")
    expect(page.get_by_text("Not signed in anywhere.")).to_be_visible()
    page.get_by_role("button", name="Delete this person").click()
    expect(page.get_by_role("heading", name="Delete this person?")).to_be_visible()
    inspect(page)


def test_who_runs_an_organisation_has_its_part_of_the_pages(visit, site, boss, ada):
    page = visit(boss)
    organisation(page, f"Go club of {ada}", ada)
    bob = site.add(name="Wolfeschlegelsteinhausenbergerdorff", word="bob")
    page.get_by_label("Address", exact=True).fill(bob)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("tbody tr")).to_have_count(2)
    page = visit(ada)
    page.watch.allow(422)
    page.goto("/dashboard")
    page.get_by_role("link", name="Organisation", exact=True).click()
    expect(page.get_by_role("heading", name=f"Go club of {ada}")).to_be_visible()
    inspect(page)
    page.set_viewport_size({"width": 1200, "height": 900})
    with page.expect_response(lambda answer: "sort=since" in answer.url):
        page.get_by_label("Sorted").select_option("since")
    with page.expect_response(lambda answer: f"q={bob[:4]}" in answer.url):
        page.get_by_label("Search members").fill(bob[:4])
    expect(page.locator("tbody tr")).to_have_count(1)
    page.goto(f"{page.url.split('?')[0]}?q=nobody-at-all")
    inspect(page)
    page.set_viewport_size({"width": 1200, "height": 900})
    page.get_by_role("link", name="Show all members").click()
    page.get_by_role("link", name="Audit").click()
    expect(page.get_by_role("heading", name="Audit")).to_be_visible()
    inspect(page)
    page.set_viewport_size({"width": 1200, "height": 900})
    page.get_by_role("link", name=f"Go club of {ada}").click()
    # Themselves: the last admin stays.
    page.get_by_role("link", name=ada, exact=True).click()
    page.get_by_label("Role here", exact=True).select_option("user")
    page.get_by_role("button", name="Change").click()
    expect(page.get_by_role("alert")).to_contain_text("last admin of the organisation")
    inspect(page)
    page.set_viewport_size({"width": 1200, "height": 900})
    page.get_by_role("link", name=f"Go club of {ada}").click()
    page.get_by_role("link", name=bob, exact=True).click()
    page.get_by_label("Role here", exact=True).select_option("admin")
    page.get_by_role("button", name="Change").click()
    expect(page.get_by_role("status").first).to_contain_text("another role here")
    page.get_by_role("button", name="Remove from here").click()
    expect(page.get_by_role("heading", name="Remove this member?")).to_be_visible()
    inspect(page)
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("status").first).to_contain_text("They are out")
    expect(page.locator("tbody tr")).to_have_count(1)


def test_the_audit_answers_while_one_types_and_downloads(visit, site, boss, ada):
    site.session(ada)
    page = visit(boss)
    page.goto("/admin/audit")
    inspect(page)
    page.set_viewport_size({"width": 1200, "height": 900})
    with page.expect_response(lambda answer: "/admin/audit?q=" in answer.url):
        page.get_by_label("Search addresses").fill(ada)
    expect(page.locator("tbody tr")).to_have_count(3)
    with page.expect_response(lambda answer: "authn_login_success" in answer.url):
        page.get_by_label("Event").select_option("authn_login_success")
    expect(page.locator("tbody tr")).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    text = download.value.path().read_text()
    assert text.count("\n") == 2 and f"authn_login_success,{ada},{ada}" in text
    page.goto("/admin/audit?q=nobody-at-all")
    inspect(page)


def test_nothing_that_was_typed_runs_on_any_page(visit, site, boss):
    page = visit(boss)
    people = [site.add(name=payload, word="evil") for payload in PAYLOADS[:3]]
    joined = "; ".join(PAYLOADS)
    assert len(PAYLOADS) == 30
    for n, payload in enumerate(PAYLOADS):
        site.sql("insert into tenants values (?, ?, 0)", f"{n:032x}", payload)
    site.sql("update users set name = ? where address = ?", joined, people[0])
    site.sql("update sessions set kind = ? where id in (select id from sessions limit 3)", joined)
    for n, payload in enumerate(PAYLOADS):
        values = (f"{2**63 + n:032x}", 2**31, payload, payload, payload)
        event = "insert into events (id, at, kind, subject, network, detail)"
        site.sql(f"{event} values (?, ?, 'user_created', ?, ?, ?)", *values)
        member = "insert into memberships select ?, id, 'admin', 0 from users where address = ?"
        site.sql(member, f"{n:032x}", people[0])
        site.sql(member, f"{n:032x}", boss)
    page.goto(f"/admin?q={people[0]}")
    page.get_by_role("link", name=people[0]).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("<script>alert(1)</script>")
    for path in (
        "/admin?q=evil",
        "/admin/organisations?q=%3C",
        "/admin/organisations?q=alert",
        f"/admin/organisations/{0:032x}",
        f"/admin/organisations/{20:032x}",
        f"/admin/organisations/{20:032x}/audit?days=all",
        "/admin/audit?days=all&kind=user_created",
        "/admin/audit?q=%3Cscript%3Ealert(1)%3C/script%3E",
        "/account",
        "/dashboard",
    ):
        page.goto(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.goto("/account")
    for name in PAYLOADS[:5]:
        expect(page.get_by_role("cell", name=name, exact=True).first).to_be_visible()
    # Still signed in, no dialog, no request to elsewhere; the fixture looks for complaints.
    page.goto("/dashboard")
    expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
    assert page.watch.dialogs == []
