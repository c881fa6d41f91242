"""The example of docs/reuse.md, as an app of its own, and the snippets of the documents."""

import ast
import re
import textwrap

import pytest

from auth.events import Source
from auth.testing import Door, Mailbox
from docs import second_app
from tests.conftest import SECRET, Clock
from tests.serving import ROOT

URL = "https://drafts.test"


@pytest.fixture
def drafts(database_url):
    mailbox = Mailbox()
    built = second_app.create(database_url, URL, SECRET, mailbox, clock=Clock())
    built.door = lambda: Door(built.asgi, mailbox, built.outbox.drain, URL)
    built.add = lambda address, role: built.auth.people.add(None, address, "", role, Source())
    yield built
    built.db.close()


def test_an_editor_signs_in_and_opens_the_page(drafts):
    drafts.add("ed@example.org", "editor")
    door = drafts.door()
    assert door.get("/drafts").headers["location"] == "/login?next=/drafts"
    door.sign_in("ed@example.org")
    assert door.get("/drafts").status_code == 200


def test_the_mail_names_the_second_app(drafts):
    drafts.add("ed@example.org", "editor")
    door = drafts.door()
    door.sign_in("ed@example.org")
    message = door.mailbox.messages[-1]
    assert message.letter.subject == "Your Drafts sign-in code"
    assert b"From: Drafts <drafts@example.com>" in message.as_bytes()


def test_after_the_sign_in_the_wanted_page_is_next(drafts):
    drafts.add("ed@example.org", "editor")
    answer = drafts.door().sign_in("ed@example.org", next="/drafts")
    assert (answer.status_code, answer.headers["location"]) == (303, "/drafts")


def test_another_role_is_refused(drafts):
    drafts.add("ada@example.org", "user")
    door = drafts.door()
    door.sign_in("ada@example.org")
    for answer in (door.get("/drafts"), door.post("/drafts", title="mine")):
        assert (answer.status_code, answer.headers["location"]) == (303, "/no_access_right")
    assert door.get("/no_access_right").status_code == 403


def test_an_admin_passes_everywhere(drafts):
    drafts.auth.people.ensure_admins(("admin@example.com",))
    door = drafts.door()
    door.sign_in("admin@example.com")
    assert door.get("/drafts").status_code == 200


def test_the_session_is_kept_between_requests_and_is_text(drafts):
    drafts.add("ed@example.org", "editor")
    door, other = drafts.door(), drafts.door()
    door.sign_in("ed@example.org")
    assert door.post("/drafts", title="First").headers["location"] == "/drafts"
    door.post("/drafts", title="<b>Second</b>")
    page = door.get("/drafts").text
    assert "<li>First</li>" in page and "<li>&lt;b&gt;Second&lt;/b&gt;</li>" in page
    other.sign_in("ed@example.org")  # another browser, another session
    assert "First" not in other.get("/drafts").text


def test_what_comes_from_elsewhere_changes_nothing(drafts):
    drafts.add("ed@example.org", "editor")
    door = drafts.door()
    door.sign_in("ed@example.org")
    refused = door.post("/drafts", headers={"Sec-Fetch-Site": "cross-site"}, title="theirs")
    assert refused.status_code == 403
    assert "theirs" not in door.get("/drafts").text


# ---- the documents
def blocks(name, language="python"):
    """The fenced blocks of one document."""
    text = (ROOT / "docs" / name).read_text()
    return [textwrap.dedent(b) for b in re.findall(rf"```{language}\n(.*?)```", text, re.S)]


def squeezed(code):
    """Without indentation and blank lines, so that a snippet may stand at another depth."""
    return "\n".join(line.strip() for line in code.splitlines() if line.strip())


def test_the_snippets_of_reuse_are_parts_of_code_that_runs():
    code = squeezed((ROOT / "docs/second_app.py").read_text())
    tests = squeezed((ROOT / "tests/test_second_app.py").read_text())
    found = blocks("reuse.md")
    assert len(found) >= 3
    for block in found:
        # `…` leaves something out; each piece has to be there, in this order.
        pieces = [squeezed(piece) for piece in block.split("…")]
        where = code if pieces[0] in code else tests
        at = 0
        for piece in pieces:
            assert piece in where[at:], piece
            at = where.index(piece, at) + len(piece)


def test_the_snippets_of_pages_and_guards_run(house):
    """All of them, one after another, in one app."""
    names = {"app": house.app, "templates": house.templates, "db": house.db}
    found = blocks("pages-and-guards.md")
    assert len(found) >= 4
    for block in found:
        exec(compile(ast.parse(block), "pages-and-guards.md", "exec"), names)
    house.add("ed@example.org", role="editor")
    house.add("ada@example.org")
    editor, ada, admin = house.door(), house.door(), house.door()
    editor.sign_in("ed@example.org")
    ada.sign_in("ada@example.org")
    admin.sign_in("admin@example.com")
    assert house.door().get("/reports").headers["location"] == "/login?next=/reports"
    assert ada.get("/reports").headers["location"] == "/no_access_right"
    assert "Hello admin@example.com" in admin.get("/reports").text
    assert "ed@example.org" in editor.get("/figures").text
    assert ada.get("/figures").headers["location"] == "/no_access_right"
    assert ada.post("/color?color=red", color="teal").headers["location"] == "/color"
    assert "teal" in ada.get("/color").text and "red" not in ada.get("/color").text
    assert "teal" not in admin.get("/color").text
