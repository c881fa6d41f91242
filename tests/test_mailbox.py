"""The developer's mailbox: what was sent is there to be read, and only in development on this machine."""

import re
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette

import main
from auth.testing import Door, Mailbox
from templates import Templates
from tests.conftest import ADMIN, WIDE, Clock, House
from tests.serving import ROOT
from utils.mailbox import MOST, PATH, open_mailbox
from utils.mailer import Message, Sender
from utils.settings import check, read
from utils.shield import CSP

HOME = "http://localhost:5001"


class DevHouse(House):
    base_url = HOME

    def door(self, htmx=False, client="127.0.0.1") -> Door:
        return super().door(htmx, client)


@pytest.fixture
def build_dev(tmp_path):
    """build_dev(MAIL_BACKEND=…, …) → House, as `make run` in a fresh clone wires it."""
    houses = []

    def make(**more):
        written = {"APP_ENV": "development", "DATA_DIR": str(tmp_path), "ADMIN_EMAILS": ADMIN}
        written |= {"SECRET_KEY": "tests-0b7d1e48f2a6b4c8d0e2f413573f9a0c"}
        settings, faults = check(read(written | WIDE | more, None))
        assert not faults
        mailbox = Mailbox()
        houses.append(DevHouse(main.build(settings, Clock(), mailbox), mailbox, None))
        return houses[-1]

    yield make
    for house in houses:
        house.db.close()


@pytest.fixture
def dev(build_dev):
    return build_dev()


@pytest.fixture
def door(dev):
    return dev.door()


def ids(page):
    """Of the mails on the page, in their order."""
    return re.findall(rf'href="{PATH}/([0-9a-f]+)"', page)


def poll(door, seen=""):
    return door.get(f"{PATH}?seen={seen}", headers={"HX-Request": "true"})


# ---- what is there
def test_a_newcomer_reads_the_code_in_the_mailbox(door):
    assert f'href="{PATH}"' in door.get("/login").text
    door.ask(ADMIN)
    assert f'href="{PATH}"' in door.get("/verify_code").text
    door.drain()
    page = door.get(PATH).text
    code = re.search(r'data-copy="([0-9]{6})"', page)[1]
    assert f">{code}<" in page  # to be read and selected without any script, too
    assert ADMIN in page and "Your Vestibule sign-in code" in page
    door.enter(code)
    assert door.signed_in


def test_the_empty_mailbox_says_who_gets_mail(door):
    for path in (PATH, "/login"):
        assert door.get(path).status_code == 200
    page = door.get(PATH).text
    assert "Only addresses that may sign in get mail" in page and ADMIN in page
    door.ask("nobody@example.org")
    door.drain()
    assert door.get(PATH).text == page


def test_the_link_is_there_to_click(door):
    door.ask(ADMIN)
    door.drain()
    link = door.mailbox.latest_link(ADMIN)
    assert f'href="{link}"' in door.get(PATH).text


def test_the_newest_mail_is_first(dev, door):
    for name in ("ada", "bob", "cy"):
        door.ask(dev.add(f"{name}@example.org").address)
        door.drain()
    shown = [a for a in re.findall(r"<bdi>(\S+)</bdi>", door.get(PATH).text) if "example" in a]
    assert shown == ["cy@example.org", "bob@example.org", "ada@example.org"]


def test_one_mail_from_all_sides(door):
    door.ask(ADMIN)
    door.drain()
    letter, message = door.mailbox.latest_letter(ADMIN), door.mailbox.messages[-1]
    path = f"{PATH}/{ids(door.get(PATH).text)[0]}"
    page = door.get(path).text
    assert f'src="{path}/html"' in page and " sandbox=" in page
    assert letter.text.split("\n")[2] in page  # the text
    assert f"Message-ID: &lt;{message.id}@example.com&gt;" in page  # the source
    html = door.get(f"{path}/html").text
    assert html.replace('<base target="_blank">', "") == letter.html and html != letter.html


def test_a_mail_that_is_not_there_any_more(door):
    for path in (f"{PATH}/0123", f"{PATH}/0123/html", f"{PATH}/%3Cb%3E"):
        answer = door.get(path)
        assert answer.status_code == 404 and "That mail is gone" in answer.text
        assert "<b>" not in answer.text


def test_what_a_mail_says_is_text(build_dev):
    name = "<b>Bold</b> & Co"
    door = build_dev(APP_NAME=name).door()
    door.ask(ADMIN)
    door.drain()
    path = f"{PATH}/{ids(door.get(PATH).text)[0]}"
    for page in (door.get(PATH), door.get(path), poll(door)):
        assert "<b>" not in page.text and "&lt;b&gt;Bold" in page.text


def test_a_mail_that_is_text_only_and_one_that_can_t_be_written():
    shown = Templates("Drafts", HOME).mailbox.mail
    plain = shown(message(1))
    assert "<iframe" not in plain and "Subject: No. 1" in plain
    broken = shown(replace(message(1), sender=Sender("login@example.com", "two\nlines")))
    assert "could not be sent" in broken


# ---- news
def test_the_list_asks_for_news_and_is_drawn_only_when_there_are_some(door):
    assert re.search(rf'hx-get="{re.escape(PATH)}\?seen=" hx-trigger="every', door.get(PATH).text)
    assert poll(door).status_code == 204
    door.ask(ADMIN)
    door.drain()
    first = poll(door)
    newest = ids(first.text)[0]
    assert first.status_code == 200 and "<html" not in first.text
    assert f"?seen={newest}" in first.text and f"New mail to {ADMIN}" in first.text
    assert poll(door, newest).status_code == 204
    assert poll(door, "of-an-earlier-run").status_code == 200


def test_the_list_of_an_earlier_run_becomes_empty(door):
    answer = poll(door, "of-an-earlier-run")
    assert answer.status_code == 200 and "No mail yet" in answer.text


# ---- the frame
def test_the_mail_is_a_stranger_in_its_frame(door):
    door.ask(ADMIN)
    door.drain()
    listed = door.get(PATH)
    path = f"{PATH}/{ids(listed.text)[0]}"
    assert listed.headers["content-security-policy"] == CSP
    mail = door.get(path)
    assert mail.headers["content-security-policy"] == f"{CSP}; frame-src 'self'"
    frame = door.get(f"{path}/html").headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in frame.split("; "))
    assert rules["default-src"] == "'none'" and rules["frame-ancestors"] == "'self'"
    assert not {"script-src", "connect-src"} & set(rules)
    assert rules["sandbox"] == "allow-popups allow-popups-to-escape-sandbox"
    assert f'sandbox="{rules["sandbox"]}"' in mail.text
    for answer in (listed, mail, door.get(f"{path}/html")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


# ---- only here
def routes(house):
    return {getattr(route, "path", "") for route in house.app.routes}


def test_in_production_there_is_no_mailbox(house):
    house.add("ada@example.org")
    for client in ("192.0.2.1", "127.0.0.1"):
        door = house.door(client=client)
        assert {door.get(p).status_code for p in (PATH, f"{PATH}/1", f"{PATH}/1/html")} == {404}
        pages = [door.get("/"), door.get("/login"), door.ask("ada@example.org")]
        pages += [door.get("/verify_code"), door.get("/link"), poll(door)]
        door.enter(door.read_code())
        pages += [door.get("/dashboard"), door.get(PATH)]
        for page in pages:
            assert "/dev" not in page.text
            assert page.headers["content-security-policy"] == CSP
    assert not [path for path in routes(house) if path.startswith("/dev")]
    assert house.outbox.transport is house.mailbox  # no mail is kept in memory


@pytest.mark.parametrize("backend", ["smtp", "none"])
def test_mail_that_leaves_the_machine_is_not_shown(build_dev, backend):
    house = build_dev(MAIL_BACKEND=backend)
    door = house.door()
    assert door.get(PATH).status_code == 404
    assert PATH not in routes(house) and "/dev" not in door.get("/login").text


def test_the_policy_of_all_other_pages_is_what_it_was():
    """To the byte: the mailbox has its own."""
    assert CSP == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
    )


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("192.0.2.1", {}),
        ("unix", {}),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.1"}),
        ("127.0.0.1", {"Forwarded": "for=192.0.2.1"}),
    ],
)
def test_a_browser_elsewhere_finds_nothing(dev, client, headers):
    near, far = dev.door(), dev.door(client=client)
    near.ask(ADMIN)
    near.drain()
    path = f"{PATH}/{ids(near.get(PATH).text)[0]}"
    for url in (PATH, path, f"{path}/html", f"{PATH}/nothing"):
        answer = far.get(url, headers=headers)
        assert answer.status_code == 404 and "There is no such page" in answer.text
        assert near.mailbox.latest_code(ADMIN) not in answer.text


def test_behind_a_public_name_it_is_not_there_and_at_home_it_is(build_dev):
    house = build_dev(BASE_URL="http://tunnel.example.org:5001")
    door = house.door()
    assert door.get(PATH).status_code == 200
    answer = door.get(PATH, headers={"Host": "tunnel.example.org:5001"})
    assert answer.status_code == 404
    assert door.get("/login", headers={"Host": "tunnel.example.org:5001"}).status_code == 200


# ---- keeping
def message(n):
    letter = SimpleNamespace(to="ada@example.org", subject=f"No. {n}", text="", html="")
    return Message(f"{n:04x}", n, Sender("login@example.com"), letter)


def opened(transport=None):
    return open_mailbox(Starlette(), transport or Mailbox(), None)


def test_the_last_mails_are_kept_and_all_are_delivered():
    delivered = Mailbox()
    box = opened(delivered)
    for n in range(MOST + 7):
        assert box.deliver(message(n)) == "kept"
    assert [m.sent_at for m in box.messages()] == list(range(MOST + 6, 6, -1))
    assert len(delivered.messages) == MOST + 7
    assert box.find("0000") is None and box.find(f"{MOST:04x}").sent_at == MOST


def test_a_mail_that_is_tried_again_is_one_mail_and_what_failed_is_told():
    class Broken(Mailbox):
        def deliver(self, message):
            raise OSError

    box = opened(Broken())
    for n in (1, 2, 1):
        with pytest.raises(OSError):
            box.deliver(message(n))
    assert [m.sent_at for m in box.messages()] == [1, 2]


def test_several_workers_may_deliver_at_once():
    box, gate = opened(), threading.Barrier(8)

    def work(first):
        gate.wait()
        for n in range(first, 4000, 8):
            box.deliver(message(n))
            assert len(box.messages()) <= MOST

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({m.id for m in box.messages()}) == MOST


# ---- the other mailbox: for tests of an app
def test_the_latest_letter_code_and_link_of_an_address(door):
    door.ask(ADMIN)
    with pytest.raises(LookupError):
        door.mailbox.latest_letter(ADMIN)
    door.enter(door.read_code())
    letter = door.mailbox.latest_letter(ADMIN)
    assert letter.to == ADMIN and door.mailbox.latest_code(ADMIN) in letter.text
    assert door.mailbox.latest_link(ADMIN) in letter.text


def test_the_documents_name_what_a_test_may_ask_the_mailbox():
    text = (ROOT / "docs" / "reuse.md").read_text()
    for name in ("latest_code", "latest_link", "latest_letter"):
        assert f"`mailbox.{name}(address)`" in text and callable(getattr(Mailbox, name))
