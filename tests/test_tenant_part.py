"""What an organisation's own admin has of the admins' pages: their members, their record, and nothing else."""

import csv
import io
import re

import pytest

from auth import events
from auth.events import Source
from tests.conftest import ADMIN
from tests.reading import rows, soup

ADA, BOB, EVE, ZED = "ada@example.org", "bob@example.org", "eve@example.org", "zed@example.org"


@pytest.fixture
def club(house):
    """Run by Ada, with Bob in it. Eve runs another one, in which Bob is, too."""
    rules = house.auth.organisations
    for address, name in ((ADA, "Ada Lovelace"), (BOB, ""), (EVE, "Eve")):
        house.add(address, name=name)
    club = rules.create(None, "Chess club", ADA, Source())
    rules.join(None, club.id, BOB, "user", Source())
    other = rules.create(None, "Go club", EVE, Source())
    rules.join(None, other.id, BOB, "admin", Source())
    return club


@pytest.fixture
def ada(house, club):
    door = house.door()
    door.sign_in(ADA)
    return door


@pytest.fixture
def path(club):
    return f"/admin/organisations/{club.id}"


def id_of(house, address):
    return house.auth.people.by_address(address).id


def roles(house, club):
    names = {row["id"]: row["address"] for row in house.rows("users")}
    members = [row for row in house.rows("memberships") if row["tenant_id"] == club.id]
    return {names[row["user_id"]]: row["role"] for row in members}


# ---- the way there
def test_the_menu_and_admin_lead_to_ones_own_organisation(house, ada, path):
    menu = soup(ada.get("/dashboard")).find("nav", class_="menu")
    assert [a["href"] for a in menu.find_all("a")] == ["/dashboard", path, "/account"]
    assert ada.get("/admin").headers["location"] == path
    assert ada.get("/admin", headers={"HX-Request": "true"}).headers["hx-redirect"] == path
    assert ada.get("/admin", headers={"Accept": "application/json"}).status_code == 403
    page = soup(ada.get(path))
    assert page.h1.get_text() == "Chess club"
    assert page.find("a", attrs={"aria-current": "page"})["href"] == path
    assert page.find("a", href="/admin/organisations") is None
    assert page.find("form", action=f"{path}/members") is None
    assert page.find("form", action=f"{path}/delete") is None


def test_who_runs_none_has_no_such_page(house, club, path):
    bob = house.door()
    bob.sign_in(BOB)  # in two, and works in none yet
    for where in ("/admin", path):
        assert bob.get(where).headers["location"] == "/no_access_right"
    assert "organisations" not in str(soup(bob.get("/dashboard")).nav)
    bob.post("/account/tenant", tenant=club.id)  # a member of it
    assert bob.get(path).headers["location"] == "/no_access_right"


def test_one_runs_the_organisation_that_one_works_in(house, club, path):
    go = next(t.id for t in house.auth.organisations.all() if t.name == "Go club")
    house.auth.organisations.join(None, club.id, BOB, "admin", Source())
    bob, theirs = house.door(), f"/admin/organisations/{go}"
    bob.sign_in(BOB)
    bob.post("/account/tenant", tenant=go)
    assert bob.get("/admin").headers["location"] == theirs
    assert (bob.get(theirs).status_code, bob.get(path).status_code) == (200, 404)
    bob.post("/account/tenant", tenant=club.id)
    assert (bob.get(theirs).status_code, bob.get(path).status_code) == (404, 200)


# ---- members
def test_members_are_listed_with_what_concerns_the_organisation_only(house, ada, path, club):
    page = soup(ada.get(path))
    assert [row[:3] for row in rows(page)] == [
        [ADA, "Ada Lovelace", "admin"],
        [BOB, "–", "user"],
    ]
    tiles = [tile.get_text(" ", strip=True) for tile in page.select(".tile")]
    assert tiles == ["2 members", "1 signed in this week", "0 open invitations"]
    assert "Go club" not in page.get_text() and EVE not in page.get_text()
    house.auth.people.disable(None, id_of(house, BOB), Source())
    assert rows(soup(ada.get(path)))[1][2] == "user disabled"


def test_members_are_searched_and_sorted(house, ada, path, club):
    house.clock.advance(60)
    house.add(ZED, name="aaron")
    house.auth.organisations.join(None, club.id, ZED, "user", Source())

    def found(**wanted):
        return [row[0] for row in rows(soup(ada.get(path, params=wanted)))]

    assert found() == found(sort="address") == found(sort="nonsense") == [ADA, BOB, ZED]
    assert found(sort="name") == [ZED, ADA, BOB]  # who has none comes last
    assert found(sort="role") == [ADA, BOB, ZED]
    assert found(sort="since") == [ZED, ADA, BOB]
    assert found(q="LOVELACE") == [ADA] and found(q="b@exam") == [BOB]
    assert found(q="example", sort="since") == [ZED, ADA, BOB]
    for odd in ("%", "_", "\\", "' or 1=1", EVE):
        assert found(q=odd) == [], odd
    empty = soup(ada.get(path, params={"q": EVE}))
    assert f"holds “{EVE}”" in empty.get_text()
    answer = ada.get(path, params={"q": "ada"}, headers={"HX-Request": "true"})
    assert "<html" not in answer.text and ADA in answer.text


@pytest.mark.parametrize("sort", ["address", "name", "role", "since"])
def test_many_members_are_turned_page_by_page(house, ada, path, club, sort):
    for n in range(60):
        house.add(f"p{n:02}@example.org", name=f"P{n % 3}")
        house.auth.organisations.join(None, club.id, f"p{n:02}@example.org", "user", Source())
    seen, where = [], f"{path}?sort={sort}&q=EXAMPLE"
    while where:
        page = soup(ada.get(where))
        seen += [row[0] for row in rows(page)]
        on = page.find("a", rel="next")
        where = on and on["href"]
    assert len(seen) == len(set(seen)) == 62
    assert len(rows(soup(ada.get(f"{path}?page=3")))) == 12
    assert "Page 3 of 3" in ada.get(f"{path}?page=99").text


def test_a_member_has_a_page_of_what_happened_here(house, ada, path, club):
    house.clock.advance(60)
    bob = house.door()
    bob.sign_in(BOB)
    house.clock.advance(60)
    answer = ada.get(f"{path}/people/{id_of(house, BOB)}")
    page = soup(answer)
    assert page.h1.get_text() == BOB
    facts = [dd.get_text(" ", strip=True) for dd in page.select(".facts dd")]
    assert facts[:2] == [BOB, "user"] and len(facts) == 4 and "never" not in facts
    assert [row[1:3] for row in rows(page)] == [["Joined an organisation", BOB]]
    # Neither the other organisation, nor the site, nor where they are signed in.
    text = page.get_text() + str(page)
    for word in ("Go club", "Signed in", "/admin/people/", "unknown browser", "Person added"):
        assert word not in text, word
    site = house.door()
    site.sign_in(ADMIN)
    there = soup(site.get(f"{path}/people/{id_of(house, BOB)}"))
    assert there.find("a", href=f"/admin/people/{id_of(house, BOB)}")


def test_who_is_no_member_is_nobody(house, ada, path):
    nobody = ada.get(f"{path}/people/{'0' * 32}")
    assert nobody.status_code == 404
    for odd in (id_of(house, EVE), id_of(house, ADMIN), "x", "%00", "' or 1=1"):
        for act in ("", "/role", "/remove"):
            ask = ada.post if act else ada.get
            answer = ask(f"{path}/people/{odd}{act}", **({"role": "user"} if act else {}))
            assert (answer.status_code, answer.text) == (404, nobody.text), (odd, act)


# ---- what they may change
def test_a_role_is_changed_and_counts_at_once(house, ada, path, club):
    bob, there = house.door(), f"{path}/people/{id_of(house, BOB)}"
    bob.sign_in(BOB)
    bob.post("/account/tenant", tenant=club.id)
    answer = ada.post(f"{there}/role", role="admin")
    assert answer.headers["location"] == f"{there}?done=role"
    assert "another role here" in soup(ada.get(f"{there}?done=role")).find(role="status").get_text()
    assert roles(house, club) == {ADA: "admin", BOB: "admin"}
    assert bob.get(path).status_code == 200
    # Of the organisation, and of nothing else.
    assert next(r["role"] for r in house.rows("users") if r["address"] == BOB) == "user"
    assert bob.get("/admin/overview").headers["location"] == "/no_access_right"
    changed = [e for e in house.rows("events") if e["kind"] == events.ROLE_CHANGED]
    (event,) = [e for e in changed if e["tenant"]]
    assert (event["subject"], event["detail"], event["tenant"]) == (BOB, "user → admin", club.id)
    assert event["actor"] == id_of(house, ADA)
    for role in ("emperor", ""):
        answer = ada.post(f"{there}/role", {"HX-Request": "true"}, role=role)
        assert answer.status_code == 422 and "no such role" in answer.text, role
    answer = ada.post(f"{there}/role", {"HX-Request": "true"}, role="user")
    assert answer.headers["hx-redirect"] == f"{there}?done=role"
    assert bob.get(path).headers["location"] == "/no_access_right"


def test_who_makes_an_admin_enters_a_fresh_code(house, ada, path, club):
    there = f"{path}/people/{id_of(house, BOB)}"
    house.clock.advance(901)
    answer = ada.post(f"{there}/role", {"Referer": f"https://vestibule.test{there}"}, role="admin")
    assert answer.headers["location"] == f"/confirm?next={there}"
    assert roles(house, club) == {ADA: "admin", BOB: "user"}
    ada.sign_in(ADA)
    assert ada.post(f"{there}/role", role="admin").status_code == 303
    assert roles(house, club) == {ADA: "admin", BOB: "admin"}


def test_a_member_is_removed_after_one_more_question(house, ada, path, club):
    bob, there = house.door(), f"{path}/people/{id_of(house, BOB)}"
    bob.sign_in(BOB)
    bob.post("/account/tenant", tenant=club.id)
    page = soup(ada.post(f"{there}/remove"))
    assert page.h1.get_text() == "Remove this member?"
    assert roles(house, club) == {ADA: "admin", BOB: "user"}
    form = page.find("form", action=f"{there}/remove")
    sent = {field["name"]: field["value"] for field in form.find_all("input")}
    answer = ada.post(form["action"], **sent)
    assert answer.headers["location"] == f"{path}?done=left"
    assert roles(house, club) == {ADA: "admin"} and bob.signed_in
    assert "Chess club" not in bob.get("/account").text
    # The other one is as it was.
    assert len([r for r in house.rows("memberships") if r["user_id"] == id_of(house, BOB)]) == 1
    assert ada.post(f"{there}/remove", sure="yes").status_code == 404


def test_it_is_renamed_by_who_runs_it(house, ada, path, club):
    assert (
        ada.post(f"{path}/name", name=" Chess & more ").headers["location"]
        == f"{path}?done=renamed"
    )
    assert soup(ada.get(f"{path}?done=renamed")).h1.get_text() == "Chess & more"
    assert ada.post(f"{path}/name", name="x" * 201).status_code == 422
    (event,) = [e for e in house.rows("events") if e["kind"] == events.TENANT_RENAMED]
    assert (event["subject"], event["actor"]) == ("Chess & more", id_of(house, ADA))


@pytest.mark.parametrize("act", ["role", "remove"])
def test_who_runs_it_may_go_once_somebody_else_does(house, ada, path, club, act):
    there = f"{path}/people/{id_of(house, ADA)}"
    form = {"role": "user"} if act == "role" else {"sure": "yes"}
    assert soup(ada.post(f"{there}/remove")).h1.get_text() == "Leave?"
    answer = ada.post(f"{there}/{act}", **form)
    assert answer.status_code == 422 and "last admin of the organisation" in answer.text
    house.auth.organisations.join(None, club.id, BOB, "admin", Source())
    assert ada.post(f"{there}/{act}", **form).headers["location"] == "/dashboard"
    assert ada.get(path).headers["location"] == "/no_access_right"
    assert roles(house, club) == {BOB: "admin"} | ({ADA: "user"} if act == "role" else {})


# ---- what happened
def test_the_record_is_of_this_organisation_only(house, ada, path, club):
    house.clock.advance(1)
    ada.post(f"{path}/name", name="Chess")
    page = soup(ada.get(f"{path}/audit"))
    told = [row[1:4] for row in rows(page)]
    assert told[0] == ["Organisation renamed", "Chess", ADA]
    assert sorted(told[1:]) == [
        ["Joined an organisation", ADA, ""],
        ["Joined an organisation", BOB, ""],
        ["Organisation made", "Chess club", ""],
    ]
    assert EVE not in page.get_text() and "Go club" not in page.get_text()
    assert page.find("form", role="search")["action"] == f"{path}/audit"
    some = soup(ada.get(f"{path}/audit", params={"q": "BOB", "kind": events.MEMBER_ADDED}))
    assert [row[2] for row in rows(some)] == [BOB]
    assert rows(soup(ada.get(f"{path}/audit", params={"q": EVE, "days": "all"}))) == []
    assert rows(soup(ada.get(f"{path}/audit", params={"kind": events.LOGIN_SUCCESS}))) == []


def test_the_record_is_turned_page_by_page(house, ada, path, club):
    for n in range(60):
        house.clock.advance(1)
        house.auth.organisations.rename(None, club.id, f"Club {n}", Source())
    first = soup(ada.get(f"{path}/audit"))
    older = first.find("a", rel="next")["href"]
    assert older.startswith(f"{path}/audit?") and len(rows(first)) == 50
    assert len(rows(soup(ada.get(older)))) == 13


def test_the_record_is_downloaded_with_a_fresh_code(house, ada, path, club):
    evil = '=HYPERLINK("http://evil.test";"x")'
    house.auth.organisations.rename(None, club.id, evil, Source())
    answer = ada.post(f"{path}/audit.csv", days="all")
    assert answer.headers["content-type"].startswith("text/csv")
    lines = list(csv.reader(io.StringIO(answer.text, newline="")))
    assert len(lines) == 6 and lines[0][0] == "time" and f"'{evil}" in [line[3] for line in lines]
    assert EVE not in answer.text and "Go club" not in answer.text
    (event,) = [e for e in house.rows("events") if e["kind"] == events.DATA_EXPORTED]
    assert (event["tenant"], event["actor"]) == (club.id, id_of(house, ADA))
    house.clock.advance(901)
    answer = ada.post(f"{path}/audit.csv", {"Referer": f"https://vestibule.test{path}/audit?q=a"})
    assert answer.headers["location"] == f"/confirm?next={path}/audit%3Fq%3Da"
    assert len([e for e in house.rows("events") if e["kind"] == events.DATA_EXPORTED]) == 1


def test_nothing_that_was_typed_is_html(house, ada, path, club):
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    house.add(ZED, name=evil)
    house.auth.organisations.join(None, club.id, ZED, "user", Source())
    house.auth.organisations.rename(None, club.id, evil, Source())
    there = f"{path}/people/{id_of(house, ZED)}"
    answers = [ada.get(p) for p in (path, f"{path}?q={evil}", there, f"{path}/audit")]
    for answer in [*answers, ada.post(f"{there}/remove")]:
        assert answer.status_code == 200 and not re.search(r"<script>alert|<img", answer.text)


def test_H8_no_admin_of_the_site_is_named_in_the_organisations_record(house, admin, ada, path):
    admin.post(f"{path}/audit.csv", days="all")
    admin.post(f"{path}/name", name="Chess circle")
    house.auth.people.set_role(None, id_of(house, EVE), "admin", Source())
    house.auth.people.set_role(None, id_of(house, ADMIN), "user", Source())  # one no more
    for said in (
        ada.get(f"{path}/audit?days=all").text,
        ada.post(f"{path}/audit.csv", days="all").text,
    ):
        assert "Chess circle" in said and ADMIN not in said


def test_H8_where_somebody_has_gone_since_is_told_to_nobody_they_left(house, ada, club, path):
    house.auth.organisations.join(None, club.id, BOB, "admin", Source())
    bob = house.door()
    bob.sign_in(BOB)
    bob.post("/account/tenant", tenant=club.id)
    bob.post(f"{path}/name", name="Chess circle")
    house.auth.organisations.leave(None, club.id, BOB, Source())
    house.db.q("update users set address = 'secret@new.example' where address = :bob", bob=BOB)
    assert "secret@" not in ada.get(f"{path}/audit?days=all").text
