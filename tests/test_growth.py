"""What grows is read by an index: each statement of the admins' pages, by its plan. bench/admin_pages.py has the times."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup

from auth import events, users
from auth.audit import LOOK
from auth.events import Sought, Source
from auth.users import Wanted
from bench.fill import BUSIEST, Fill
from tests.conftest import ADMIN, Overheard
from utils import mailrows

PEOPLE, EVENTS, MAILS = 2000, 20_000, 3000
GROWING = ("users", "events", "sessions", "memberships", "outbox")


@pytest.fixture
def full(house):
    """Enough of all that PostgreSQL does not find reading everything cheaper."""
    fill = Fill(house.db, house.clock())
    fill.people(PEOPLE)
    fill.sessions(PEOPLE)
    fill.memberships(PEOPLE // 2, 100)
    fill.events(EVENTS)
    fill.mails(MAILS)
    fill.analyze()
    return house


def plan(db, sql, params):
    """How the database would go about it, a line a step."""
    if type(db).__name__ == "SQLite":
        return [row["detail"] for row in db.q(f"explain query plan {sql}", **params)]
    with db.tx() as t:
        # Can an index do it? That few rows are read faster without is not the question.
        t.q("set local enable_seqscan = off")
        t.q("set local enable_bitmapscan = off")
        return [row["QUERY PLAN"] for row in t.q(f"explain {sql}", **params)]


def walks(db, sql, params):
    """The growing tables of which this statement reads every row. A walk along an index that ends with a
    page is none."""
    aliases = {b or a: a for a, b in re.findall(rf"\b({'|'.join(GROWING)})\b(?: ([a-z])\b)?", sql)}
    lines = plan(db, sql, params)
    found = [re.search(r"SCAN (\w+)(?! USING INDEX)\b|Seq Scan on (\w+)", line) for line in lines]
    by_index = ("USING INDEX", *(["USING COVERING INDEX"] if "limit" in sql else []))
    names = {f[1] or f[2] for f in found if f and not any(by in f.string for by in by_index)}
    return {aliases.get(name, name) for name in names} & set(GROWING)


# What each look reads all of, and why it may.
FIGURES = {"users"}  # the tiles, and how many were found: one walk, 10 ms for 100,000
SORTED = {
    "users"
}  # few were found: all are read once and these sorted, in no more than the figures take
MAILS_OF = {"outbox"}  # a state, and how many are in each: an index would be written with each mail
DEEP = {"after": "person"}


LOOKS = [
    ({}, set()),
    (DEEP, set()),
    ({"before": "person"}, set()),
    ({"sort": "name"} | DEEP, set()),
    ({"sort": "-name"} | DEEP, set()),
    ({"sort": "role"} | DEEP, set()),
    ({"sort": "-added"} | DEEP, set()),
    ({"role": "user", "sort": "-added"} | DEEP, set()),
    ({"role": "user", "sort": "-role"} | DEEP, set()),
    ({"q": "example", "sort": "-address"} | DEEP, set()),
    ({"state": "active", "sort": "added"}, set()),
    ({"sort": "-seen"}, set()),
    ({"sort": "seen"} | DEEP, set()),
    ({"q": "ada"}, SORTED),
    ({"state": "disabled", "seen": "week", "role": "user"}, SORTED),
]


def test_a_page_of_people_walks_along_an_index(full):
    person = full.db.q("select id from users order by address limit 1 offset 1000")[0]["id"]
    for look, page in LOOKS:
        asked = {k: person if v == "person" else v for k, v in look.items()}
        db = Overheard(full.db)
        assert replace(full.auth.people, db=db).page(asked).users, look
        for sql, params in db.heard:
            may = FIGURES if "count(*) as people" in sql else page
            steps = plan(full.db, sql, params)
            assert walks(full.db, sql, params) <= may, (look, sql, steps)
            if not may:
                text = str(steps).lower().replace("incremental sort", "")
                assert "temp b-tree" not in text and "sort" not in text, (look, sql, steps)
        assert sum("limit :limit" in sql for sql, _ in db.heard) == 1, look


# Among very many people; and who is read all the same.
MANY_LOOKS = [
    *[look for look, page in LOOKS if not page],
    {"role": "user", "sort": "name"},
    {"q": "ada"},
    {"q": "ada", "sort": "-name"} | DEEP,
    {"q": "ada", "sort": "added"},
    {"q": "ada", "state": "active", "seen": "week"} | DEEP,
    {"q": "ada", "role": "user", "sort": "role"},
    {"seen": "week", "sort": "-added"} | DEEP,
]
RARE_LOOKS = [
    {"role": "admin", "seen": "week"},
    {"role": "admin", "state": "active", "sort": "-seen"},
]


@pytest.fixture
def many(full):
    """As if 2,000 were very many."""
    people = replace(full.auth.people, many=1000, look_at=300, look_in_index=700)
    assert people.count() and not people.count()
    return people


def test_among_very_many_nobody_reads_all(many, full):
    person = full.db.q("select id from users order by address limit 1 offset 1000")[0]["id"]
    for look in MANY_LOOKS + RARE_LOOKS:
        asked = {k: person if v == "person" else v for k, v in look.items()}
        db = Overheard(full.db)
        page = replace(many, db=db).page(asked)
        assert page.users or page.looked_to, look
        assert not any("count(*)" in sql for sql, _ in db.heard), look
        may = {"users"} if look in RARE_LOOKS else set()
        for sql, params in db.heard:
            assert walks(full.db, sql, params) <= may, (look, sql, plan(full.db, sql, params))
        # No more than once.
        assert sum(bool(walks(full.db, *heard)) for heard in db.heard) <= 1, look


def test_a_search_among_very_many_finds_all_in_steps(many, full):
    """In each order, with each filter, the same people as where all are looked at."""
    sorts = [f"{down}{by}" for by in users.SORTS for down in ("", "-")]
    wanted = [
        *[Wanted("özgür", sort=sort) for sort in sorts],
        *[Wanted("e", state="invited", sort=sort) for sort in sorts],
        *[Wanted(state="disabled", sort=sort) for sort in sorts],
        *[Wanted("zzzz", sort=sort) for sort in sorts],
        *[Wanted("an", role="user", seen="week", sort=sort) for sort in sorts],
        Wanted("ada", "editor", "active"),
    ]
    for one in wanted:
        found, after, steps = [], "", 0
        while True:
            page = many.find(one, after)
            found += page.users
            steps += 1
            assert page.total in (None, len(found)) or not one.query, one
            if not (after := page.after):
                break
        expected, after = [], ""
        while True:
            page = full.auth.people.find(one, after)
            expected += page.users
            if not (after := page.after):
                break
        assert found == expected, one
        assert steps > 1 or len(found) <= 25, one


def test_who_moves_while_a_page_is_made_hides_nobody(many, full):
    """Up to whom one looked, may sign in before the page names them: there is a way on all the same."""
    wanted = Wanted("özgür", sort="seen")
    before = many.find(wanted)
    assert before.looked_to and before.after == before.looked_to.id

    class Moving(Overheard):
        def q(self, sql, **params):
            if params.get("limit") == 1:
                moved = "update users set signed_in_at = :at where id = :id"
                full.db.q(moved, at=int(full.clock()) + 9, id=before.looked_to.id)
            return super().q(sql, **params)

    page = replace(many, db=Moving(full.db)).find(wanted)
    assert page.looked_to and page.after == page.looked_to.id != before.after
    assert page.total is None and page.users == before.users
    found = [user.address for user in page.users]
    while page.after:
        page = many.find(wanted, page.after)
        found += [user.address for user in page.users]
    # Those who did not move, each once.
    expected = [u.address for u in full.auth.people.each("özgür") if u.id != before.looked_to.id]
    assert sorted(set(found) - {before.looked_to.address}) == sorted(expected)
    assert len(found) == len(set(found))


def test_the_last_count_is_as_good_as_counting(many, full):
    assert many.last_count().counts() == users.counts(full.db, int(full.clock()) - 7 * 86400)
    for one in (Wanted(role="editor"), Wanted(state="invited"), Wanted(seen="week", role="user")):
        assert many.last_count().total(one) == full.auth.people.find(one).total > 0
    full.clock.advance(3601)  # nobody has counted for an hour
    assert many.last_count() is None and many.find().counted_at is None
    assert many.count() and many.find().counted_at == full.clock()


def test_with_very_many_people_the_pages_say_when_they_were_counted_and_how_far_one_looked(
    house, admin
):
    Fill(house.db, house.clock()).people(100_001)
    house.auth.tidy()
    house.clock.advance(60)
    for path in ("/admin", "/admin/overview"):
        text = " ".join(BeautifulSoup(admin.get(path).text, "html5lib").get_text(" ").split())
        assert "100,002 people" in text and "Counted at 15 Jan 2027" in text, path
    first = BeautifulSoup(admin.get("/admin").text, "html5lib")
    assert first.select_one(".found").get_text() == "1 to 25 of 100,002 people"
    (way,) = first.select(".pages a")
    second = BeautifulSoup(admin.get(way["href"]).text, "html5lib")
    assert second.select_one(".found").get_text() == "25 of 100,002 people"
    # An address is found at once, whoever else ends like it; and all who have what is sought, in steps.
    one = first.select('td[data-label="Address"]')[3].get_text()
    alone = BeautifulSoup(admin.get(f"/admin?q={one}").text, "html5lib")
    assert [td.get_text() for td in alone.select('td[data-label="Address"]')] == [one]
    path, steps = "/admin?q=zzzz&sort=-added", 0
    while True:
        page = BeautifulSoup(admin.get(path).text, "html5lib")
        assert not page.select("tbody tr")
        if "Nobody like that further on" in page.select_one(".empty").get_text():
            break
        assert (
            "Nobody like that so far. We looked through the list as far as "
            in page.select_one(".empty").get_text()
        )
        (way,) = page.select(".empty a")
        assert way.get_text() == "Look further"
        path, steps = way["href"], steps + 1
    assert steps == 5
    assert page.select_one(".empty a")["href"] == "/admin?q=zzzz&sort=-added"
    some = BeautifulSoup(admin.get("/admin?q=özgür&state=invited&sort=-added").text, "html5lib")
    assert some.select_one(".found").get_text() == "The first 25 people"
    (way,) = some.select(".pages a")
    others = BeautifulSoup(admin.get(way["href"]).text, "html5lib")
    assert others.select_one(".found").get_text() == "25 people further on"
    page = BeautifulSoup(admin.get("/admin?q=admin@example&sort=-added").text, "html5lib")
    assert [td.get_text() for td in page.select('td[data-label="Address"]')] == [ADMIN]
    assert page.select_one(".found").get_text() == "1 person so far"
    assert "We looked through the list as far as " in page.select_one("#people-list").get_text()
    assert page.select_one(".pages").get_text().strip() == "Look further"


def test_of_two_processes_that_count_at_the_same_time_one_is_kept(build):
    houses = [build(), build()]
    Fill(houses[0].db, houses[0].clock()).people(3000)
    counting = [replace(house.auth.people, many=10) for house in houses]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            for house in houses:
                house.clock.advance(600)
            assert any(pool.map(lambda people: people.count(), counting))
            assert counting[0].last_count().total() == 3001
    # With fewer people each page counts them itself, and no old figure stays.
    houses[0].clock.advance(600)
    houses[0].auth.tidy()
    assert not houses[0].rows("counted")


def test_of_very_many_mails_the_newest_are_counted_and_listed(house, admin):
    Fill(house.db, house.clock()).people(100)
    assert "are counted" not in admin.get("/admin/mail").text
    Fill(house.db, house.clock()).mails(50_100)
    text = admin.get("/admin/mail").text
    assert "All that wait are counted, and the newest 49,980 of the others." in text
    assert "20 mails are waiting" in text
    given_up = BeautifulSoup(admin.get("/admin/mail?state=dead").text, "html5lib")
    assert len(given_up.select("tbody tr")) == 25
    waiting = BeautifulSoup(admin.get("/admin/mail?state=queued").text, "html5lib")
    assert len(waiting.select("tbody tr")) == 20
    # Of those that were not counted nobody knows how many are not listed.
    last = admin.get("/admin/mail?state=accepted&page=400").text
    assert re.search(r"At least 3\d,\d{3} older ones are not listed", last)


def test_a_rare_role_is_found_by_its_index(full):
    db = Overheard(full.db)
    replace(full.auth.people, db=db).page({"role": "editor", "sort": "name"})
    (asked,) = [(sql, params) for sql, params in db.heard if "limit :limit" in sql]
    assert "users_role" in str(plan(full.db, *asked)) and not walks(full.db, *asked)


def test_where_few_were_found_nobody_walks_past_all_others(full):
    for sort in ("address", "-name", "role", "added"):
        asked = {"q": "özgür", "sort": sort}
        person = full.auth.people.page(asked).users[3].id
        for place in ({}, {"after": person}):
            db = Overheard(full.db)
            assert replace(full.auth.people, db=db).page(asked | place).users, (sort, place)
            (page,) = [(sql, params) for sql, params in db.heard if "limit :limit" in sql]
            assert walks(full.db, *page) == SORTED, (sort, place, plan(full.db, *page))


def test_a_person_roles_mail_and_bounces_are_read_by_their_keys(full):
    busy = full.db.q("select * from users where address like :a", a=f"%.{BUSIEST}@%")[0]
    db = Overheard(full.db)
    people, mailroom = (replace(part, db=db) for part in (full.auth.people, full.auth.mailroom))
    assert people.look(busy["id"]).events
    people.roles()
    mailroom.bouncing([busy["address"]])
    people.counts()
    mailrows.counts(db, int(full.clock()))
    mailrows.newest(db, ["dead"], 25, 0)
    mailrows.newest(db, [], 25, 0)
    for sql, params in db.heard:
        may = FIGURES if "as recent" in sql else MAILS_OF if "outbox" in sql else set()
        assert walks(full.db, sql, params) <= may, (sql, plan(full.db, sql, params))
    assert len(db.heard) > 10


SEEKING = [
    (Sought(), "key"),
    (Sought(part="x"), "key"),
    (Sought(kind=events.LOGIN_FAIL, part="x"), "key"),
    (Sought(subject="busy"), "events_subject"),
    (Sought(subject="busy", kind=events.USER_CREATED), "events_subject"),
    (Sought(kind=events.USER_CREATED), "events_rare"),
    (Sought(kind=events.USER_CREATED, part="x"), "events_rare"),
]


def test_the_audit_walks_along_the_index_of_what_is_sought(full):
    busy = full.db.q("select * from users where address like :a", a=f"%.{BUSIEST}@%")[0]["address"]
    for sought, index in SEEKING:
        if sought.subject:
            sought = replace(sought, subject=busy)
        db = Overheard(full.db)
        events.reach(db, sought, "0", "", 50)
        events.search(db, sought, "0", "", 51)
        events.is_known(db, sought.subject)
        *heard, known = db.heard
        assert "events_subject" in str(plan(full.db, *known)), sought
        for sql, params in heard:
            text = str(plan(full.db, sql, params)).lower()
            names = {"key": r"primary key|events_pkey"}.get(index, index)
            assert re.search(names, text), (sought, sql, text)
            assert not walks(full.db, sql, params), (sought, sql, text)
            assert "b-tree" not in text and "sort" not in text, (sought, sql, text)


def test_of_what_each_sign_in_writes_one_index_holds_the_time(house):
    told = {
        "SQLite": "select sql as text from sqlite_master where tbl_name = 'users' and type = 'index'",
        "PostgreSQL": "select indexdef as text from pg_indexes where tablename = 'users'",
    }
    indexes = [row["text"] or "" for row in house.db.q(told[type(house.db).__name__])]
    assert any("sought" in text for text in indexes)
    assert sum("signed_in_at" in text for text in indexes) == 1
    assert not any("timezone" in text for text in indexes)
    # Of who has signed in nothing is in it.
    (new,) = [text for text in indexes if "activated_at" in text]
    assert re.search(r"where .*activated_at is null", new, re.IGNORECASE)


def test_a_part_of_an_address_is_sought_step_by_step(house, admin):
    Fill(house.db, house.clock()).people(2000)
    Fill(house.db, house.clock()).events(LOOK * 2 + 10)
    old = int(house.clock()) - 95 * 86400
    events.record(
        house.db,
        house.auth.keys.new_sorted_id(old),
        old,
        events.USER_DELETED,
        "gone@old.example",
        Source(),
    )
    path, steps = "/admin/audit?days=all&q=one%40old", 0
    while True:
        page = BeautifulSoup(admin.get(path).text, "html5lib")
        if page.select("tbody tr"):
            break
        steps += 1
        assert "Nothing like that since" in page.select_one(".empty").get_text()
        (way,) = page.select(".empty a")
        assert way.get_text() == "Look further back"
        path = way["href"]
    assert steps == 2 and "gone@old.example" in page.select_one("tbody tr").get_text()
    # A whole address needs no steps, and what is rare none in between; the file has all of it.
    for query in ("q=gone@old.example", "q=one%40old&kind=user_deleted"):
        assert "gone@old.example" in admin.get(f"/admin/audit?days=all&{query}").text
    answer = admin.post("/admin/audit.csv", q="one@old", days="all")
    assert answer.text.count("\n") == 2 and "gone@old.example" in answer.text


def test_a_page_that_found_some_says_how_far_it_looked(house, admin):
    Fill(house.db, house.clock()).people(2000)
    Fill(house.db, house.clock()).events(LOOK + 10)
    house.clock.advance(60)
    house.add("new@here.example")
    page = BeautifulSoup(admin.get("/admin/audit?days=all&q=w%40here").text, "html5lib")
    assert len(page.select("tbody tr")) == 1 and "All of them since" in page.get_text()
    assert page.select_one(".pages").get_text() == "Look further back"
    last = admin.get(page.select_one(".pages a")["href"])
    end = BeautifulSoup(last.text, "html5lib")
    assert end.select_one(".empty p").get_text() == "Nothing like that further back."
    (way,) = end.select("#audit-list a")
    assert (
        way.get_text() == "Back to the newest"
        and way["href"] == "/admin/audit?q=w%40here&kind=&days=all"
    )


def test_ten_thousand_people_are_filled_in_and_found(house):
    Fill(house.db, house.clock()).people(10_000)
    found = house.auth.people.find(house.auth.people.tidy("özgür", state="invited", sort="-added"))
    assert house.auth.people.counts()[0]["people"] == 10_001
    assert 0 < found.total < 625 and len(found.users) == 25
