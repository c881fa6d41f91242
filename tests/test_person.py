"""The admin's page of one person: where they are signed in, what happened, the end."""

import re

import pytest

from auth.events import Source
from tests.conftest import ADMIN
from tests.reading import soup

ADA, BOB = "ada@example.org", "bob@example.org"


@pytest.fixture
def path(house, ada):
    return f"/admin/people/{house.auth.people.by_address(ADA).id}"


def ends(page):
    found = [form["action"] for form in page.find_all("form")]
    return [a for a in found if re.search(r"/sessions/[0-9a-f]{32}/end$", a)]


def test_only_admins_get_there(house, path):
    door = house.door()
    door.sign_in(ADA)
    assert door.get(path).headers["location"] == "/no_access_right"
    for act in (f"sessions/{'0' * 32}/end", "sign_out", "delete"):
        answer = door.post(f"{path}/{act}", sure="yes")
        assert answer.headers["location"] == "/no_access_right"
    assert door.signed_in


def test_the_list_leads_to_the_page_that_says_it_all(house, admin, path):
    house.auth.organisations.create(None, "Chess club", ADA, Source())
    door, app = house.door(), house.program()
    door.sign_in(ADA)
    app.sign_in(ADA)
    assert soup(admin.get("/admin")).find("a", string=ADA)["href"] == path
    page = soup(admin.get(path))
    text = page.get_text(" ", strip=True)
    assert page.h1.get_text() == ADA
    for words in ("active", "An app", "192.0.2.0/24", "Chess club", "Signed in", "Person added"):
        assert words in text, words
    assert "Known browsers 1" in text and len(ends(page)) == 2


def test_one_sign_in_is_ended_and_then_all(house, admin, path):
    doors = [house.door() for _ in range(3)]
    for door in doors:
        door.sign_in(ADA)
    app = house.program()
    app.sign_in(ADA)
    end = ends(soup(admin.get(path)))[0]
    assert admin.post(end).headers["location"] == f"{path}?done=ended"
    assert admin.post(end).status_code == 404
    assert sum(one.signed_in for one in (*doors, app)) == 3
    assert admin.post(f"{path}/sign_out").headers["location"] == f"{path}?done=signed_out"
    assert not any(one.signed_in for one in (*doors, app)) and admin.signed_in
    told = [e["detail"] for e in house.rows("events") if e["kind"] == "authn_logout"]
    assert sorted(told) == ["everywhere", "one of theirs"]


def test_a_session_is_ended_only_on_the_page_of_its_person(house, admin, path):
    house.add(BOB)
    bob = house.door()
    bob.sign_in(BOB)
    theirs = next(r["id"] for r in house.rows("sessions") if r["user_id"] != admin_id(house))
    for id in (theirs, "0" * 32, "x", "%00"):
        assert admin.post(f"{path}/sessions/{id}/end").status_code == 404
    assert bob.signed_in


def admin_id(house):
    return house.auth.people.by_address(ADMIN).id


def test_a_person_is_deleted_after_one_more_question_and_a_fresh_code(house, admin, path):
    door = house.door()
    door.sign_in(ADA)
    assert "can’t be undone" in soup(admin.post(f"{path}/delete")).get_text() and door.signed_in
    house.clock.advance(901)
    assert admin.post(f"{path}/delete", sure="yes").headers["location"].startswith("/confirm")
    admin.sign_in(ADMIN)
    assert admin.post(f"{path}/delete", sure="yes").headers["location"] == "/admin?done=deleted"
    assert "That person is deleted" in admin.get("/admin?done=deleted").text
    assert not door.signed_in and admin.get(path).status_code == 404


def test_nobody_deletes_themselves_here(house, admin):
    mine = f"/admin/people/{admin_id(house)}"
    assert "Delete this person" not in admin.get(mine).text
    answer = admin.post(f"{mine}/delete", sure="yes")
    assert answer.status_code == 422 and "delete yourself" in answer.text


def test_who_is_not_there_is_404(house, admin):
    for id in ("0" * 32, "x", "%00", "' or 1=1"):
        assert admin.get(f"/admin/people/{id}").status_code == 404
        for act in ("sign_out", "delete", f"sessions/{'0' * 32}/end"):
            assert admin.post(f"/admin/people/{id}/{act}", sure="yes").status_code == 404


def test_names_and_events_are_text(house, admin):
    evil = "<img src=x onerror=alert(1)>"
    id = house.add(BOB, name=evil).id
    house.auth.organisations.create(None, evil, BOB, Source())
    answer = admin.get(f"/admin/people/{id}")
    assert "<img" not in answer.text and soup(answer).h1.get_text() == evil


def test_a_busy_person_s_page_stays_short_and_leads_on(house, admin, path):
    for n in range(52):
        house.auth.organisations.create(None, f"Club {n:02}", ADA, Source())
    page = soup(admin.get(path))
    assert (
        len(page.select('td[data-label="Role there"]')) == 50
        and "And in 2 others." in page.get_text()
    )
    assert len(page.select(".events tbody tr")) == 20
    older = page.find("a", string="All of it, in the audit")["href"]
    told = soup(admin.get(older)).select(".events tbody tr")
    assert len(told) == 50  # and it has pages
    assert {row.select("td")[2].get_text() for row in told} == {ADA}
