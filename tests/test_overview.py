"""The admin's overview: two weeks as columns, and the same as a table."""

import re

from bs4 import BeautifulSoup

from tests.conftest import ADMIN

ADA = "ada@example.org"
DAY = 86400


def page(door):
    answer = door.get("/admin/overview")
    assert answer.status_code == 200
    return BeautifulSoup(answer.text, "html5lib")


def table(found, title="Sign-ins"):
    """{day: figures} of one chart's table."""
    section = found.find("h2", string=title).parent
    return {
        cells[0]: tuple(int(c.replace(",", "")) for c in cells[1:])
        for cells in (
            [td.get_text() for td in tr.find_all("td")] for tr in section.select("tbody tr")
        )
    }


def test_only_admins_see_it(house, ada):
    door = house.door()
    assert door.get("/admin/overview").headers["location"].startswith("/login")
    door.sign_in(ada)
    assert door.get("/admin/overview").headers["location"] == "/no_access_right"


def test_each_day_has_its_numbers_and_days_without_are_there(house, ada):
    door = house.door()
    door.ask(ADA)  # 15 Jan 2027
    for _ in range(3):
        door.enter("000000" if door.read_code() != "000000" else "111111")
    door.enter(door.read_code())
    house.clock.advance(2 * DAY)
    house.door().sign_in(ADA)
    admin = house.door()
    admin.sign_in(ADMIN)
    found = table(page(admin))
    assert len(found) == 14 and next(iter(found)) == "17 Jan 2027"
    assert found["17 Jan 2027"] == (2, 2, 0) and found["16 Jan 2027"] == (0, 0, 0)
    assert found["15 Jan 2027"] == (1, 1, 3)
    assert sum(map(sum, found.values())) == 9
    house.clock.advance(20 * DAY)
    admin.sign_in(ADMIN)
    assert table(page(admin)).get("15 Jan 2027") is None


def test_how_long_it_takes_people_is_told_by_the_half_and_by_nine_of_ten(house, ada, admin):
    for seconds in (5, 10, 20, 40, 80, 100, 120, 140, 160, 600):
        door = house.door()
        door.ask(ADA)
        house.clock.advance(seconds)
        door.enter(door.read_code())
    # The admin's own took no time: of eleven the sixth, and the tenth.
    assert table(page(admin), "Time to sign in")["15 Jan 2027"] == (80, 160)


def test_mails_are_told_by_what_became_of_them(build):
    house = build(CODE_TTL_MINUTES="15")
    house.add(ADA)
    door = house.door()
    door.ask(ADA)
    door.read_code()
    house.door().ask(ADA)
    house.clock.advance(1000)  # later than its code
    house.outbox.drain()
    admin = house.door()
    admin.sign_in(ADMIN)
    assert table(page(admin), "Mail")["15 Jan 2027"] == (2, 1, 0)


def test_a_day_that_is_over_is_counted_once_and_for_good(house, ada):
    door = house.door()
    door.sign_in(ADA)
    house.clock.advance(3 * DAY)
    house.auth.tidy()
    kept = house.rows("daily")
    assert {row["n"] for row in kept if row["what"] == "signed_in"} == {0, 1}
    admin = house.door()
    admin.sign_in(ADMIN)
    before = page(admin)
    house.auth.tidy()
    assert house.rows("daily") == kept
    # Figures that are kept need no events: the page says the same without them.
    assert table(before)["15 Jan 2027"] == (1, 1, 0)
    assert table(before, "Mail")["15 Jan 2027"] == (1, 0, 0)
    assert table(before)["18 Jan 2027"] == (1, 1, 0)


def test_ten_minutes_that_are_over_are_counted_once_when_their_mails_are(house, ada):
    span = int(house.clock()) // 600
    waiting, door = house.door(), house.door()
    waiting.ask(ADA)
    house.clock.advance(1200)
    door.ask(ADA)
    house.clock.advance(40)
    door.enter(door.read_code())
    house.clock.advance(600)
    house.auth.tidy()
    # The first one’s mail was too late.
    assert {row["span"] for row in house.rows("lately")} >= {span, span + 1}
    admin = house.door()
    admin.sign_in(ADMIN)
    before = page(admin)
    assert table(before)["15 Jan 2027"] == (3, 2, 0)
    assert table(before, "Mail")["15 Jan 2027"] == (2, 1, 0)
    admin.ask(ADA)  # waits
    house.clock.advance(661)
    house.auth.tidy()
    kept = {row["span"] for row in house.rows("lately")}
    assert span + 3 not in kept
    house.outbox.drain()
    house.auth.tidy()
    assert {row["span"] for row in house.rows("lately")} == kept | {span + 3}
    house.clock.advance(2 * DAY)
    house.auth.tidy()
    admin.sign_in(ADMIN)
    assert table(page(admin))["15 Jan 2027"] == (4, 2, 0)
    assert table(page(admin), "Time to sign in")["15 Jan 2027"] == (0, 40)
    assert min(row["span"] for row in house.rows("lately")) == span + 96  # the next day’s


QUIET = (
    "Nobody asked for a code in these two weeks.",
    "No sign-in was timed in these two weeks.",
    "No mail left in these two weeks.",
)


def test_a_quiet_house_says_so(build):
    house = build(SESSION_IDLE_DAYS="30")
    admin = house.door()
    admin.ask(ADMIN)
    house.clock.advance(20)
    admin.enter(admin.read_code())
    said = page(admin).get_text(" ")
    assert not any(words in said for words in QUIET)  # the admin's own sign-in was one
    house.clock.advance(20 * DAY)
    house.auth.tidy()
    quiet = page(admin)
    assert all(words in quiet.get_text(" ") for words in QUIET)
    assert not quiet.select("svg.chart")


def test_the_chart_says_in_words_what_it_draws(house, admin):
    chart = page(admin).find("svg", class_="chart")
    assert chart["role"] == "img" and "last 14 days" in chart["aria-label"]
    words = [title.get_text() for title in chart.find_all("title")]
    assert "15 Jan: 1 sign-ins" in words
    heights = [float(rect["height"]) for rect in chart.find_all("rect")]
    assert len(heights) == 42 and max(heights) > 100 and heights.count(0) == 40
    assert not re.search(r"style=", str(chart))
