"""The record of what happened, as admins read it; and that nobody changes it."""

import csv
import io
import re
import threading
from pathlib import Path

import apsw
import pytest

from auth import events
from auth.events import Source
from templates.audit import harmless
from templates.words import EVENTS
from tests.conftest import ADMIN
from tests.reading import rows, soup

ADA = "ada@example.org"


def lines(answer):
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.csv"'
    return list(csv.reader(io.StringIO(answer.text, newline="")))


def test_only_admins_read_it(house, ada):
    door = house.door()
    assert door.get("/admin/audit").headers["location"].startswith("/login")
    door.sign_in(ada)
    assert door.get("/admin/audit").headers["location"] == "/no_access_right"
    assert door.post("/admin/audit.csv").headers["location"] == "/no_access_right"


def test_what_happened_is_there_newest_first_and_by_name(house, admin, ada):
    house.clock.advance(60)
    door = house.door()
    door.sign_in(ada)
    house.clock.advance(60)
    door.post("/logout")
    found = [row[1:4] for row in rows(soup(admin.get("/admin/audit")))]
    assert found[0] == ["Signed out", ADA, "themselves"]
    assert found[1] == ["Signed in", ADA, "themselves"]
    assert ["Asked for a code", ADA, ""] in found and ["Person added", ADA, ""] in found
    assert "192.0.2.0/24" in rows(soup(admin.get("/admin/audit")))[0]


def test_it_is_searched_by_address_kind_and_time(house, admin):
    for name in ("ada", "bob", "a_b", "a%b"):
        house.add(f"{name}@example.org")
    house.clock.advance(8 * 86400)
    admin.sign_in(ADMIN)
    house.add("carol@example.org")

    def about(**wanted):
        return {row[2] for row in rows(soup(admin.get("/admin/audit", params=wanted)))}

    assert about(q="BOB", days="30") == {"bob@example.org"}
    assert about(q="a_b", days="all") == {"a_b@example.org"}
    assert about(q="%", days="all") == {"a%b@example.org"}
    assert about(kind="user_created") == {"carol@example.org"}
    assert len(about(kind="user_created", days="30")) == 5
    assert about(kind="user_created", days="30", q="example.org") >= {"ada@example.org"}
    # What nobody has is as if it were not said.
    assert about(kind="nothing", days="1e9", q="bob\0", before="' or 1=1") == about(q="bob")
    empty = admin.get("/admin/audit", params={"q": "nobody"})
    assert "Nothing of that kind happened" in empty.text


def test_it_is_turned_page_by_page(house, admin):
    for n in range(130):
        house.clock.advance(1)
        house.add(f"p{n:03}@example.org")
    seen, path = [], "/admin/audit?kind=user_created"
    for size in (50, 50, 30):
        answer = admin.get(path)
        seen += [row[2] for row in rows(soup(answer))]
        assert len(rows(soup(answer))) == size
        older = soup(answer).find("a", rel="next")
        path = older and older["href"]
    assert path is None
    assert seen == [f"p{n:03}@example.org" for n in reversed(range(130))]


def test_htmx_gets_the_fragment(house, admin):
    answer = admin.get("/admin/audit", headers={"HX-Request": "true"})
    assert "<html" not in answer.text and 'id="audit-list"' in answer.text


def test_it_is_downloaded_as_csv_and_that_is_an_event(house, admin):
    for n in range(1200):  # more than one step
        house.add(f"p{n:04}@example.org")
    house.clock.advance(1)
    found = lines(admin.post("/admin/audit.csv", kind="user_created", days="all"))
    assert found[0] == [
        "time",
        "event",
        "by",
        "about",
        "network",
        "request",
        "organisation",
        "detail",
    ]
    assert len(found) == 1201 and len({line[3] for line in found[1:]}) == 1200
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found[1][0])
    assert rows(soup(admin.get("/admin/audit")))[0][1:4] == ["Data downloaded", ADMIN, "themselves"]
    assert admin.get("/admin/audit.csv").status_code == 405  # reading changes nothing


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\0"])
def test_no_cell_is_a_formula(house, admin, start):
    evil = f'{start}HYPERLINK("http://evil.test";"x")'
    assert harmless(evil) == f"'{evil}"
    if start == "\0":
        return  # no database keeps one
    events.record(house.db, "f" * 32, int(house.clock()), "user_created", evil, Source(), "", evil)
    (line,) = [x for x in lines(admin.post("/admin/audit.csv", days="all")) if "evil" in x[3]]
    assert line[3] == f"'{evil}" and line[7] == f"'{evil}"


def test_ordinary_cells_stay_as_they_are():
    for text in ("", "ada@example.org", "192.0.2.0/24", "a,b", 'say "x"'):
        assert harmless(text) == text


def test_nothing_in_it_is_html(house, admin):
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    events.record(house.db, "f" * 32, int(house.clock()), "user_created", evil, Source(), "", evil)
    answer = admin.get("/admin/audit", params={"q": "<script>"})
    assert "<script>alert" not in answer.text and "<img" not in answer.text
    assert rows(soup(answer))[0][2] == evil


def test_every_kind_has_a_name_and_is_written_somewhere():
    assert set(events.KINDS) == set(EVENTS)
    code = "\n".join(p.read_text() for p in Path(events.__file__).parent.glob("*.py"))
    names = {n: v for n, v in vars(events).items() if n.isupper() and isinstance(v, str)}
    for name, kind in names.items():
        if not name.startswith("_"):
            assert kind in events.KINDS and re.search(rf"events\.{name}\b", code), name


def test_who_did_it_is_told_after_they_are_gone(house, admin, ada):
    eve = house.add("eve@example.org", role="admin")
    door = house.door()
    door.sign_in(eve.address)
    door.post("/admin/people", email="bob@example.org")
    assert [r[3] for r in rows(soup(admin.get("/admin/audit?q=bob")))] == [eve.address]
    house.auth.people.delete(None, eve.id, Source())
    assert [r[3] for r in rows(soup(admin.get("/admin/audit?q=bob")))] == [eve.id]


def test_a_busy_database_gives_no_half_a_file(house, admin, tmp_path):
    for n in range(1100):
        house.add(f"p{n:04}@example.org")
    path = tmp_path / "vestibule.db"
    if path.exists():  # only SQLite locks the whole database
        other = apsw.Connection(str(path))
        other.execute("begin immediate")
        threading.Timer(0.3, lambda: other.execute("rollback")).start()
    found = lines(admin.post("/admin/audit.csv", kind="user_created", days="all"))
    assert len(found) == 1101
    assert "user_data_exported" in {e["kind"] for e in house.rows("events")}


def test_the_download_asks_for_a_fresh_code(house, admin):
    house.clock.advance(901)
    answer = admin.post("/admin/audit.csv", {"Referer": "https://vestibule.test/admin/audit?q=a"})
    assert answer.headers["location"] == "/confirm?next=/admin/audit%3Fq%3Da"
