"""The admins' page about mail: what it shows and to whom, what may be done, and addresses that bounce."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest

from auth.events import Source
from auth.policy import Refused
from auth.testing import Door, Mailbox
from docs import second_app
from tests.attacks.test_b_enumeration import shown, statements
from tests.conftest import ADMIN, SECRET, Clock
from tests.reading import soup
from tests.serving import until
from utils import mailrows, replies

ADA = "ada@example.org"
NO_SUCH_USER = (550, "5.1.1 <ada@example.org> no such user here")
QUOTA = (550, "5.4.5 daily sending quota exceeded")
BUSY = (451, "4.7.1 greylisted, come back later")
DAY = 86400


class Provider(Mailbox):
    """Takes all mail; or says no, while it has something to say, to `whom`."""

    says, whom = None, ""

    def deliver(self, message):
        if self.says and self.whom in message.letter.to:
            raise replies.refused("rcpt", *self.says)
        return super().deliver(message)


class Quoting(Mailbox):
    """Repeats everything that it was sent, as nobody should."""

    def deliver(self, message):
        super().deliver(message)
        letter = message.letter
        raise replies.Fault(replies.RETRY, f"451 {letter.to} said: {letter.text}"[:9000])


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
def house(build, provider):
    house = build(mailbox=provider)
    house.add(ADA)
    return house


def sentence(answer):
    """How mail is doing, in the page's words."""
    return soup(answer).select_one(".health p").get_text(" ", strip=True)


def table(answer):
    """(kind, to, state) of each row."""
    return [
        (
            row.select_one("td strong").get_text(),
            row.select_one("bdi").get_text(),
            row.select_one(".pill:not(.to .pill)").get_text(),
        )
        for row in soup(answer).select("tbody tr")
    ]


def mails(house, kind="code", state=None):
    """Rows of the outbox, newest first."""
    rows = sorted(house.rows("outbox"), key=lambda row: row["id"], reverse=True)
    return [r for r in rows if r["kind"] == kind and (state is None or r["state"] == state)]


def working(house, why=""):
    """As if a process sent mail."""
    with house.db.tx() as t:
        mailrows.tell(t, "worker test", why, int(house.clock()))


def acts(house):
    """What the audit log says of mail: (kind, subject), by kind."""
    rows = [(row["kind"], row["subject"]) for row in house.rows("events")]
    return sorted(row for row in rows if row[0].startswith("sys_mail"))


def done(door, answer):
    """The page after an act, as each kind of browser gets it."""
    if "HX-Request" in door.client.headers:
        assert answer.status_code == 200 and "<html" not in answer.text
        return answer
    assert answer.status_code == 303
    return door.get(answer.headers["location"])


def refuse(house, provider, says, address=ADA):
    """Ask for a code that the provider does not take; the row."""
    provider.says, provider.whom = says, address
    house.clock.advance(1)  # so that it is the newest
    house.door().ask(address)
    house.outbox.drain()
    provider.says = None
    return mails(house)[0]


@pytest.fixture(params=[False, True], ids=["plain", "htmx"])
def admin(house, request):
    door = house.door(htmx=request.param)
    door.sign_in(ADMIN)
    return door


# ---- who
def test_only_admins_see_the_page_and_do_anything(house, provider):
    row = refuse(house, provider, BUSY)
    paths = ["pause", "resume", f"{row['id']}/retry", f"{row['id']}/drop"]
    stranger, member = house.door(), house.door()
    member.sign_in(ADA)
    for path in paths:
        answer = stranger.post(f"/admin/mail/{path}", sure="yes")
        assert answer.headers["location"].startswith("/login")
        assert member.post(f"/admin/mail/{path}", sure="yes").headers["location"] == (
            "/no_access_right"
        )
    assert stranger.get("/admin/mail").headers["location"] == "/login?next=/admin/mail"
    assert member.get("/admin/mail").headers["location"] == "/no_access_right"
    assert "/admin/mail" not in member.get("/dashboard").text
    assert acts(house) == [] and not house.outbox.queue().paused
    assert [r for r in house.rows("outbox") if r["id"] == row["id"]] == [row]


def test_who_was_demoted_a_moment_ago_changes_nothing(house, provider):
    row = refuse(house, provider, BUSY)
    other = house.add("other@example.org", role="admin")
    house.auth.people.set_role(None, other.id, "user", Source())
    room = house.auth.mailroom
    for act, what in ((room.pause, True), (room.retry, row["id"]), (room.drop, row["id"])):
        with pytest.raises(Refused, match="not_admin"):
            act(other, what, Source())
    assert acts(house) == [] and not house.outbox.queue().paused
    assert mails(house)[0] == row


def test_another_site_changes_nothing(house, admin):
    answer = admin.post("/admin/mail/pause", {"Sec-Fetch-Site": "cross-site"}, sure="yes")
    assert answer.status_code == 403 and not house.outbox.queue().paused


def test_the_menu_leads_there(house, admin):
    links = [a["href"] for a in soup(admin.get("/dashboard")).select(".menu a")]
    people = ["/admin", "/admin/organisations", "/admin/roles", "/admin/audit", "/admin/overview"]
    assert links == ["/dashboard", *people, "/admin/mail", "/account"]


def test_an_app_that_shows_no_queue_has_neither_page_nor_entry(database_url):
    mailbox = Mailbox()
    built = second_app.create(database_url, "https://drafts.test", SECRET, mailbox, clock=Clock())
    built.auth.people.ensure_admins((ADMIN,))
    door = Door(built.asgi, mailbox, built.outbox.drain, "https://drafts.test")
    door.sign_in(ADMIN)
    assert door.get("/admin/mail").status_code == 404
    assert "/admin/mail" not in door.get("/admin").text
    built.auth.undeliverable("code", built.db.q("select ref from outbox")[0]["ref"])  # no matter
    built.db.close()


# ---- what it shows
def test_how_mail_is_doing_is_one_sentence(house, provider, admin):
    def says():
        return sentence(admin.get("/admin/mail"))

    assert says().startswith("No process sends mail. Nothing is waiting.")
    working(house)
    assert says() == "All is well. Nothing is waiting."
    refuse(house, provider, BUSY)
    assert says() == "1 mail is waiting, for less than a minute."
    house.clock.advance(20)
    refuse(house, provider, BUSY)
    house.clock.advance(170)
    working(house)
    assert says() == "2 mails are waiting, the oldest for 3 minutes."
    working(house, "535 5.7.8 bad password of robot@example.com")
    assert says() == (
        "Mail is held up. The provider says: “535 5.7.8 bad password of r***@example.com”."
        " 2 mails are waiting, the oldest for 3 minutes. We try again by ourselves."
    )
    admin.post("/admin/mail/pause", sure="yes")
    assert says().startswith("Mail is paused by an admin. 2 mails are waiting")


def test_each_mail_is_a_row_in_words(house, provider, admin):
    working(house)
    second = house.door()
    house.door().sign_in(ADA)
    second.ask(ADA)
    code = second.read_code()
    house.clock.advance(1)
    second.enter(code)  # a browser that is new
    house.outbox.drain()
    house.clock.advance(1)
    house.door().ask("nobody@example.net")
    house.outbox.drain()
    house.clock.advance(1)
    row = refuse(house, provider, BUSY)
    page = admin.get("/admin/mail")
    assert table(page)[:3] == [
        ("Sign-in code or link", "a***@example.org", "waiting"),
        ("Sign-in code or link", "n***@example.net", "not needed"),
        ("New sign-in notice", "a***@example.org", "accepted"),
    ]
    first = soup(page).select_one("tbody tr").get_text(" ", strip=True)
    assert "1 try next " in first and "451 4.7.1 greylisted, come back later" in first
    tiles = [tile.get_text(" ", strip=True) for tile in soup(page).select("a.tile")]
    assert [tile.split(" ")[0] for tile in tiles] == ["1", "0", "4", "0", "0", "1"]
    assert all(len(tile.split(" ")) > 4 for tile in tiles)  # each says what it means
    house.db.q("update challenges set id = 'gone' where id = :ref", ref=row["ref"])
    assert table(admin.get("/admin/mail"))[0][1] == "–"


def test_times_are_those_of_the_admins_zone(house, admin):
    house.db.q("update users set timezone = 'Asia/Tokyo' where address = :a", a=ADMIN)
    page = soup(admin.get("/admin/mail"))
    assert page.select_one("th").get_text() == "Time (Asia/Tokyo)"
    assert page.select_one("td time").get_text() == "15 Jan 2027, 17:00"
    assert page.select_one("td time")["datetime"] == "2027-01-15T08:00:00Z"


def test_no_code_link_subject_or_address_is_on_any_page(build):
    house = build(mailbox=Quoting(), CODE_IN_SUBJECT="true")
    house.add(ADA)
    house.door().ask(ADA)
    house.outbox.drain()
    (letter,) = house.mailbox.to(ADA)
    code, link = house.mailbox.latest_code(ADA), house.mailbox.latest_link(ADA).partition("#")[2]
    row = mails(house)[0]
    assert code in row["reply"] and ADA in row["reply"]  # it is there to be shown
    house.outbox.transport = mailbox = Mailbox()
    admin = Door(house.asgi, mailbox, house.outbox.drain, house.base_url)
    admin.sign_in(ADMIN)
    working(house, row["reply"])
    pages = [
        admin.get("/admin/mail").text,
        admin.get("/admin/mail?state=queued").text,
        admin.post(f"/admin/mail/{row['id']}/drop").text,
        admin.post("/admin/mail/pause").text,
    ]
    for text in pages:
        assert code not in text and link not in text and ADA not in text
        assert letter.subject not in text and link[:26] not in text
    assert "a***@example.org" in pages[0]


def test_a_reply_is_text_and_nothing_else(house, provider, admin):
    refuse(house, provider, (451, "4.0.0 <img src=x onerror=alert(1)>"))
    page = admin.get("/admin/mail").text
    assert "<img" not in page and "&lt;img src=x" in page


# ---- finding
def test_the_list_is_paged_newest_first_and_filtered(house, provider, admin):
    with house.db.tx() as t:
        for n in range(60):
            house.outbox.put(t, "code", f"no such {n}", int(house.clock()) + 900)
            house.clock.advance(1)
    house.outbox.drain()
    refuse(house, provider, BUSY)
    pages = [admin.get(f"/admin/mail?page={n}") for n in (1, 2, 3)]
    assert [len(table(page)) for page in pages] == [25, 25, 12]
    assert "Page 1 of 3" in pages[0].text
    stamps = [t["datetime"] for page in pages for t in soup(page).select("td time")]
    assert stamps == sorted(stamps, reverse=True)
    waiting = admin.get("/admin/mail?state=queued")
    assert [state for *_, state in table(waiting)] == ["waiting"]
    assert soup(waiting).select_one("a.tile[aria-current]").select_one("span").text == "waiting"
    void = admin.get("/admin/mail?state=void&page=2")
    assert {state for *_, state in table(void)} == {"not needed"} and "Page 2 of 3" in void.text
    links = [a["href"] for a in soup(void).select(".pages a")]
    assert links == ["/admin/mail?state=void&page=1", "/admin/mail?state=void&page=3"]
    assert "There are no mails that are too late." in admin.get("/admin/mail?state=expired").text


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=x", "page=99999999", "state=nonsense", "state=%00", "done=x", "seen=%00"],
)
def test_odd_queries_still_draw_the_list(house, query):
    door = house.door()
    door.sign_in(ADMIN)
    answer = door.get(f"/admin/mail?{query}")
    assert answer.status_code == 200 and table(answer)


def test_before_the_first_mail_it_says_what_will_be_here(house):
    door = house.door()
    door.sign_in(ADMIN)
    house.db.q("delete from outbox")
    assert "No mail yet" in door.get("/admin/mail").text


def test_it_works_without_javascript_and_has_no_script_of_its_own(house, provider):
    refuse(house, provider, BUSY)
    door = house.door()
    door.sign_in(ADMIN)
    row = mails(house, state="queued")[0]
    for answer in (door.get("/admin/mail"), door.post(f"/admin/mail/{row['id']}/drop")):
        page = soup(answer)
        forms = page.select("main form")
        assert forms and page.title.get_text().startswith("Mail")
        for form in forms:
            assert form["method"] == "post" and form["action"].startswith("/admin/mail/")
        assert not page.find_all(style=True) and not page.find_all("style")
        assert all(s["src"].startswith("/static/") for s in page.find_all("script"))
        assert not re.search(r"\shx-on|\son\w+=", answer.text)


# ---- looking again by itself
def test_the_page_looks_again_only_while_something_waits_and_draws_only_news(house, provider):
    working(house)
    door = house.door(htmx=True)
    door.sign_in(ADMIN)
    assert not soup(door.get("/admin/mail")).select("[hx-trigger]")
    row = refuse(house, provider, BUSY)
    looking = soup(door.get("/admin/mail")).select_one("[hx-trigger^=every]")
    assert looking["hx-target"] == looking["hx-select"] == "#mail-live"
    assert not looking.select("form, a")  # they would inherit where its answer goes
    again = looking["hx-get"]
    house.clock.advance(1)
    assert (door.get(again).status_code, door.get(again).text) == (204, "")
    house.clock.advance(80)
    news = door.get(again)  # a minute more
    assert news.status_code == 200 and "for 1 minute" in news.text and "<html" not in news.text
    house.outbox.drain()
    assert row["id"] in [r["id"] for r in mails(house, state="accepted")]
    working(house)
    news = door.get(again)
    assert "All is well" in news.text and "every" not in news.text
    assert soup(news).select_one("#mail-live")


# ---- doing
def test_retry_tries_at_once(house, provider, admin):
    row = refuse(house, provider, BUSY)
    house.outbox.drain()
    assert not provider.to(ADA)  # it is not its time yet
    page = done(admin, admin.post(f"/admin/mail/{row['id']}/retry", state="queued", page="1"))
    assert "tried again at once" in page.text
    assert [state for *_, state in table(page)] == ["waiting"]
    house.outbox.drain()
    assert len(provider.to(ADA)) == 1 and mails(house)[0]["state"] == "accepted"
    assert acts(house) == [("sys_mail_retried", row["id"])]
    (event,) = [e for e in house.rows("events") if e["kind"] == "sys_mail_retried"]
    boss = house.auth.people.by_address(ADMIN)
    assert event["actor"] == boss.id and event["network"] == "192.0.2.0/24" and event["request_id"]


def test_drop_is_never_sent(house, provider, admin):
    row = refuse(house, provider, BUSY)
    page = done(admin, admin.post(f"/admin/mail/{row['id']}/drop", sure="yes"))
    assert "That mail is not sent." in page.text and table(page)[0][2] == "given up"
    house.clock.advance(600)
    house.outbox.drain()
    assert not provider.to(ADA) and acts(house) == [("sys_mail_dropped", row["id"])]


def test_dropping_and_pausing_ask_first(house, provider):
    row = refuse(house, provider, BUSY)
    door = house.door()
    door.sign_in(ADMIN)
    for path, question in (
        (f"/admin/mail/{row['id']}/drop", "Drop this mail to a***@example.org?"),
        ("/admin/mail/pause", "Pause all mail?"),
    ):
        asked = door.post(path, state="queued", page="1")
        page = soup(asked)
        assert asked.status_code == 200 and page.h1.get_text() == question
        assert acts(house) == [] and mails(house, state="queued") == [row]
        form = page.select_one("main form")
        assert form["action"] == path and page.select_one("main a")["href"] == (
            "/admin/mail?state=queued&page=1"
        )
        # htmx asks the same by itself, before it sends anything.
        button = soup(door.get("/admin/mail")).select_one(f'form[action="{path}"]')
        assert button["hx-confirm"].startswith(question)
    fields = {i["name"]: i["value"] for i in form.select("input")}
    answer = door.post(path, **fields)
    assert answer.status_code == 303 and house.outbox.queue().paused
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert query == {"state": ["queued"], "page": ["1"], "done": ["paused"]}


def test_paused_nothing_leaves_any_process_and_resumed_it_does(build, provider):
    house, other = build(mailbox=provider), build(mailbox=provider)
    house.add(ADA)
    door = house.door()
    door.sign_in(ADMIN)
    for running in (house, other):
        running.outbox.start()
    try:
        page = door.get(door.post("/admin/mail/pause", sure="yes").headers["location"])
        assert "Mail is paused by an admin." in page.text and "Resume mail" in page.text
        until(lambda: house.outbox._paused and other.outbox._paused)
        house.door().ask(ADA)
        # What each keeper does every second: neither takes it.
        for running in (house, other):
            running.outbox._poll()
        (waiting,) = [r for r in house.rows("outbox") if r["state"] != "accepted"]
        assert waiting["state"] == "queued" and not provider.to(ADA)
        assert "1 mail is waiting" in door.get("/admin/mail").text
        page = door.get(door.post("/admin/mail/resume").headers["location"])
        assert "Pause mail" in page.text and "Resume mail" not in page.text
        until(lambda: provider.to(ADA))
    finally:
        house.outbox.stop()
        other.outbox.stop()
    assert acts(house) == [("sys_mail_paused", ""), ("sys_mail_resumed", "")]


def test_pausing_twice_is_told_once(house, admin):
    for _ in range(2):
        done(admin, admin.post("/admin/mail/pause", sure="yes"))
    for _ in range(2):
        done(admin, admin.post("/admin/mail/resume"))
    assert acts(house) == [("sys_mail_paused", ""), ("sys_mail_resumed", "")]


@pytest.mark.parametrize("act", ["retry", "drop"])
def test_what_is_over_stays_as_it_is(house, admin, act):
    house.door().sign_in(ADA)
    row = mails(house, state="accepted")[0]
    before = house.rows("outbox")
    for id in (row["id"], "0" * 32, "f" * 40, "nobody", "%00", "a'b", "..%2f"):
        answer = admin.post(f"/admin/mail/{id}/{act}", sure="yes")
        if answer.status_code == 404:
            assert "%2f" in id  # a slash makes it another path
            continue
        assert "Nothing was changed." in done(admin, answer).text
    assert house.rows("outbox") == before and acts(house) == []
    assert not soup(admin.get("/admin/mail")).select(".acts form")


def test_one_of_many_is_found(house, provider, admin):
    row = refuse(house, provider, BUSY)
    with house.db.tx() as t:
        for n in range(230):
            house.clock.advance(0.01)
            house.outbox.put(t, "code", f"no such {n}", int(house.clock()) + 900)
    assert "tried again" in done(admin, admin.post(f"/admin/mail/{row['id']}/retry")).text
    assert acts(house) == [("sys_mail_retried", row["id"])]


# ---- addresses that do not exist
def test_an_address_that_does_not_exist_gets_no_mail_for_a_day(house, provider):
    row = refuse(house, provider, NO_SUCH_USER)
    assert row["state"] == "dead" and acts(house) == [("sys_mail_bounced", ADA)]
    house.clock.advance(60)
    house.door().ask(ADA)
    house.outbox.drain()
    assert mails(house)[0]["state"] == "void" and not provider.to(ADA)
    house.door().sign_in(ADMIN)  # nobody else is concerned
    house.clock.advance(DAY)
    house.door().sign_in(ADA)
    assert acts(house) == [("sys_mail_bounced", ADA)]


def test_what_bounces_is_kept_under_no_name(house, provider):
    refuse(house, provider, NO_SUCH_USER)
    keys = [row["key"] for row in house.rows("counters") if "undeliverable" in row["key"]]
    assert keys == [f"{house.auth.keys.subject(ADA)} undeliverable/{DAY}"]


def test_notices_are_held_back_too(house, provider):
    house.door().sign_in(ADA)
    house.clock.advance(60)
    second = house.door()
    second.ask(ADA)
    code = second.read_code()
    refuse(house, provider, NO_SUCH_USER)
    second.enter(code)  # a new browser: it would be told
    seen = len(provider.to(ADA))
    house.outbox.drain()
    (notice,) = mails(house, "new_device")
    assert notice["state"] == "void" and len(provider.to(ADA)) == seen


@pytest.mark.parametrize("says", [QUOTA, BUSY, (550, "5.7.1 spam"), (552, "5.2.2 mailbox full")])
def test_no_other_refusal_holds_anybody_s_mail_back(house, provider, says):
    row = refuse(house, provider, says)
    assert row["state"] == "queued" and acts(house) == []
    house.clock.advance(120)
    house.outbox.drain()
    assert len(provider.to(ADA)) == 1
    assert not any("undeliverable" in row["key"] for row in house.rows("counters"))


@pytest.mark.parametrize("htmx", [False, True])
def test_no_page_knows_of_a_bounce(house, provider, htmx):
    stories = []
    for bounced in (False, True):
        if bounced:
            refuse(house, provider, NO_SUCH_USER)
            house.clock.advance(3600)
        door = house.door(htmx)
        story = [shown(door.ask(ADA), ADA)]
        house.outbox.drain()
        story += [shown(door.get("/verify_code"), ADA), shown(door.enter("12345"), ADA)]
        house.clock.advance(60)
        story += [shown(door.get("/resend_code"), ADA), shown(door.post("/resend_code"), ADA)]
        stories.append(story)
    assert mails(house)[0]["state"] != "accepted"  # it did bounce
    assert stories[0] == stories[1]


def test_a_start_does_the_same_work(build):
    def bounce(house, address):
        with house.db.tx() as t:
            assert house.auth.signin.limits.bounced(t, address, int(house.clock()))

    house = build()
    bounced = statements(house, bounce)
    assert bounced["member"] == bounced["unknown"]
    assert not any("undeliverable" in str(key) for _, keys in bounced["member"] for key in keys)


def test_admins_see_who_bounces_and_a_retry_lets_mail_out_again(house, provider, admin):
    row = refuse(house, provider, NO_SUCH_USER)
    page = admin.get("/admin/mail?state=dead")
    assert "mail bounces" in page.text and "5.1.1" in page.text and ADA not in page.text
    done(admin, admin.post(f"/admin/mail/{row['id']}/retry"))
    house.outbox.drain()
    assert len(provider.to(ADA)) == 1
    assert "mail bounces" not in admin.get("/admin/mail").text
    house.clock.advance(60)
    house.door().sign_in(ADA)
    refuse(house, provider, NO_SUCH_USER)  # and again, if it still does not exist
    assert [kind for kind, _ in acts(house)].count("sys_mail_bounced") == 2


def test_the_list_of_people_shows_who_bounces(house, provider):
    house.add("bob@example.org")
    refuse(house, provider, NO_SUCH_USER)
    door = house.door()
    door.sign_in(ADMIN)
    bounces = {
        row.select_one("bdi").get_text(): "mail bounces" in row.get_text()
        for row in soup(door.get("/admin")).select("tbody tr")
    }
    assert bounces == {ADMIN: False, ADA: True, "bob@example.org": False}


def test_when_the_mail_is_too_late_mail_to_the_address_is_let_out_all_the_same(
    house, provider, admin
):
    row = refuse(house, provider, NO_SUCH_USER)
    house.clock.advance(3600)
    page = admin.get("/admin/mail")
    (button,) = soup(page).select(".acts button")
    assert button.get_text() == "Allow mail" and "a***@example.org" in button["aria-label"]
    page = done(admin, admin.post(f"/admin/mail/{row['id']}/retry"))
    assert "Mail to this address may leave again." in page.text
    assert not soup(page).select(".acts button")  # nothing is left to do
    house.door().sign_in(ADA)
    assert ("sys_mail_retried", row["id"]) in acts(house)


def test_a_bounce_of_nobody_we_know_is_no_matter(house):
    for kind, ref in (("code", "gone"), ("new_device", "nobody:1"), ("other", ""), ("none", "x")):
        house.auth.undeliverable(kind, ref)
    assert acts(house) == []
