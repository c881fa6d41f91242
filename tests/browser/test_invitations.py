"""Invitations and adding many people, in a browser: they look right from all sides, and do what they say."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.test_accessible import inspect
from tests.browser.test_people_pages import PAYLOADS, organisation

pytestmark = pytest.mark.xdist_group("browser")

WIDE = {"width": 1200, "height": 900}


@pytest.fixture
def club(visit, site, boss, ada):
    """The path of an organisation that Ada runs, and its name."""
    page, name = visit(boss), f"Chess club of {ada}"
    organisation(page, name, ada)
    return re.search("/admin/organisations/[0-9a-f]+", page.url)[0], name


def test_an_invitation_is_sent_opened_and_accepted(visit, site, ada, club):
    path, name = club
    guest = f"newcomer-{ada}"
    own = visit(ada)
    own.watch.allow(422)
    own.goto(path)
    own.get_by_role("link", name="Invite somebody").click()
    expect(own.get_by_text("Nobody is invited")).to_be_visible()
    inspect(own)
    own.set_viewport_size(WIDE)
    own.get_by_label("Address", exact=True).fill("nonsense")
    own.get_by_role("button", name="Invite", exact=True).click()
    expect(own.get_by_role("alert")).to_be_focused()
    inspect(own)
    own.set_viewport_size(WIDE)
    for address in (guest, f"{'long-' * 11}{ada}"):
        own.get_by_label("Address", exact=True).fill(address)
        own.get_by_role("button", name="Invite", exact=True).click()
        expect(own.get_by_role("button", name=f"Take back: {address}")).to_be_visible()
    inspect(own)
    own.set_viewport_size(WIDE)
    own.watch.accept = True
    own.get_by_role("button", name="Take back: long-").click()
    expect(own.get_by_role("status").first).to_contain_text("taken back")
    expect(own.locator("tbody tr")).to_have_count(1)
    # The link in the mail leads to the door, and the door back.
    page = visit()
    page.goto("/invitations")
    page.get_by_label("Email address").fill(guest)
    page.get_by_label("Email address").press("Enter")
    page.get_by_label("6-digit code").fill(site.code(guest))
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.url}/invitations")
    expect(page.get_by_role("cell", name=name, exact=True)).to_be_visible()
    inspect(page)
    page.set_viewport_size(WIDE)
    page.get_by_role("button", name=f"Accept: {name}").click()
    expect(page.get_by_role("status").first).to_contain_text("You are in")
    inspect(page)
    page.goto("/dashboard")
    expect(page.get_by_text(name)).to_be_visible()


def test_whoever_is_not_invited_is_told_what_to_do(visit, ada):
    page = visit(ada)
    page.goto("/account")
    page.get_by_role("link", name="Your invitations").click()
    expect(page.get_by_text("no invitation for you")).to_be_visible()
    inspect(page)


def test_many_are_added_from_a_file_after_a_look(visit, site, boss, ada, club):
    page = visit(boss)
    page.watch.allow(422)
    page.goto("/admin")
    page.get_by_text("Add a person").click()
    page.get_by_role("link", name="Add many at once").click()
    inspect(page)
    page.set_viewport_size(WIDE)
    page.get_by_role("button", name="Show me").click()
    expect(page.get_by_role("alert")).to_contain_text("no address in that list")
    inspect(page)
    page.set_viewport_size(WIDE)
    lines = [f"new{n}-{ada};Größe {n}" for n in range(3)]
    text = "\r\n".join(["E-Mail;Name", *lines, ada, "nonsense", lines[0]])
    raw = {"name": "people.csv", "mimeType": "text/csv", "buffer": text.encode("utf-8-sig")}
    page.get_by_label("Or a file").set_input_files(raw)
    page.get_by_label("Invite them to an organisation").select_option(label=club[1])
    page.get_by_role("button", name="Show me").click()
    expect(page.locator("tbody tr")).to_have_count(6)
    inspect(page)
    page.set_viewport_size(WIDE)
    page.get_by_role("button", name="Invite to").click()
    expect(page.get_by_role("status").first).to_contain_text("3 people are invited")
    expect(page.locator("tbody tr")).to_have_count(3)
    inspect(page)


def test_nothing_that_was_pasted_runs(visit, boss, ada):
    page = visit(boss)
    lines = [f"evil{n}-{ada}\t{payload}" for n, payload in enumerate(PAYLOADS)]
    lines += [f"{payload}@x\t{payload}" for payload in PAYLOADS]
    page.goto("/admin/people/import")
    page.get_by_label("Addresses, one a line").fill("\n".join(lines))
    page.get_by_role("button", name="Show me").click()
    expect(page.get_by_role("cell", name=PAYLOADS[0], exact=True).first).to_be_visible()
    page.get_by_role("button", name="Add ").click()
    expect(page.get_by_role("status").first).to_contain_text("30 people are added")
    # Still signed in, no dialog, no request to elsewhere; the fixture looks for complaints.
    page.goto("/dashboard")
    expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
    assert page.watch.dialogs == []
