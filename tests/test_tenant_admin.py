"""The admin's pages of organisations."""

import re

import pytest

from auth.events import Source
from tests.conftest import ADMIN
from tests.reading import rows, soup

ADA, BOB = "ada@example.org", "bob@example.org"
PATH = "/admin/organisations"


@pytest.fixture
def club(house, ada):
    return house.auth.organisations.create(None, "Chess club", ADA, Source())


def test_only_admins_of_the_site_make_add_and_end(house, club):
    door = house.door()
    door.sign_in(ADA)  # she runs it, and is no admin of the site
    assert door.get(PATH).headers["location"] == "/no_access_right"
    for path in (PATH, f"{PATH}/{club.id}/members", f"{PATH}/{club.id}/delete"):
        answer = door.post(path, name="x", email=ADA, role="admin", sure="yes")
        assert answer.headers["location"] == "/no_access_right"
    assert house.auth.organisations.all() == [club] and len(house.rows("memberships")) == 1


def test_an_organisation_is_made_and_found(house, admin, ada):
    assert "No organisation yet" in admin.get(PATH).text
    answer = admin.post(PATH, name=" Chess & Go ", email=" ADA@example.org ")
    where = answer.headers["location"]
    assert re.fullmatch(rf"{PATH}/[0-9a-f]{{32}}\?done=made", where)
    page = soup(admin.get(where))
    assert page.h1.get_text() == "Chess & Go" and "is there" in page.find(role="status").get_text()
    assert rows(page)[0][0] == ADA and rows(page)[0][2] == "admin"
    admin.post(PATH, name="Tennis", email=ADMIN)
    assert [row[:2] for row in rows(soup(admin.get(PATH)))] == [
        ["Chess & Go", "1"],
        ["Tennis", "1"],
    ]
    assert [row[0] for row in rows(soup(admin.get(PATH, params={"q": "TENN"})))] == ["Tennis"]
    assert "holds “zz”" in admin.get(PATH, params={"q": "zz"}).text


@pytest.mark.parametrize(
    ("name", "email", "says"),
    [
        ("", ADA, "too long"),
        ("x" * 201, ADA, "too long"),
        ("a\nb", ADA, "too long"),
        ("Club", "nobody@example.org", "nobody@example.org is not in the list"),
        ("Club", "nonsense", "can’t send mail"),
    ],
)
def test_what_cant_be_made_says_why_and_keeps_what_was_typed(house, admin, ada, name, email, says):
    answer = admin.post(PATH, name=name, email=email)
    assert answer.status_code in (404, 422)
    page = soup(answer, answer.status_code)
    assert says in page.find(role="alert").get_text()
    assert page.find(id="new-email")["value"] == email
    assert house.rows("tenants") == []


def test_people_join_change_and_leave(house, admin, club):
    house.add(BOB)
    path = f"{PATH}/{club.id}"
    assert (
        admin.post(f"{path}/members", email=BOB, role="user").headers["location"].endswith("joined")
    )
    assert [row[:3:2] for row in rows(soup(admin.get(path)))] == [[ADA, "admin"], [BOB, "user"]]
    ada, bob = (house.auth.people.by_address(address) for address in (ADA, BOB))
    admin.post(f"{path}/people/{bob.id}/role", role="admin")
    sure = soup(admin.post(f"{path}/people/{ada.id}/remove"))
    assert sure.h1.get_text() == "Remove this member?" and ADA in sure.get_text()
    assert len(house.rows("memberships")) == 2
    answer = admin.post(f"{path}/people/{ada.id}/remove", sure="yes")
    assert answer.headers["location"].endswith("left")
    assert [row[:3:2] for row in rows(soup(admin.get(path)))] == [[BOB, "admin"]]
    answer = admin.post(f"{path}/people/{bob.id}/remove", sure="yes")
    assert answer.status_code == 422 and "last admin of the organisation" in answer.text
    answer = admin.post(f"{path}/people/{bob.id}/role", role="user")
    assert answer.status_code == 422 and "last admin of the organisation" in answer.text
    for odd in ("0" * 32, "x", "%00", ada.id):
        assert admin.post(f"{path}/people/{odd}/remove", sure="yes").status_code == 404
    kinds = [e["kind"] for e in sorted(house.rows("events"), key=lambda e: e["id"])]
    assert kinds.count("member_added") == 2 and kinds.count("member_removed") == 1
    changed = [e["detail"] for e in house.rows("events") if "permissions" in e["kind"]]
    assert "user → admin" in changed


def test_adding_a_member_once_more_changes_nothing(house, admin, club):
    house.add(BOB)
    house.auth.organisations.join(None, club.id, BOB, "admin", Source())
    before, events = house.rows("memberships"), house.rows("events")
    page = soup(admin.post(f"{PATH}/{club.id}/members", email=BOB, role="user"), 422)
    assert f"{BOB} is in it already" in page.find(role="alert").get_text()
    assert page.find(id="email")["value"] == BOB
    assert house.rows("memberships") == before and house.rows("events") == events


def test_who_is_not_here_yet_is_not_added_and_not_typed_twice(house, admin, club):
    house.auth.people.put_role(None, "editor", "", Source())
    typed = {"email": "nobody@example.org", "role": "editor"}
    page = soup(admin.post(f"{PATH}/{club.id}/members", **typed), 404)
    (said,) = page.find_all(role="alert")
    assert "nobody@example.org is not in the list of people" in said.get_text()
    assert page.find(id="email")["value"] == typed["email"]
    assert page.find(id="role").find(selected=True)["value"] == "editor"
    assert len(house.rows("memberships")) == 1


def test_it_is_renamed(house, admin, club):
    path = f"{PATH}/{club.id}"
    assert admin.post(f"{path}/name", name="Chess <b>club</b>").status_code == 303
    page = soup(admin.get(path))
    assert page.h1.get_text() == "Chess <b>club</b>" and page.h1.b is None
    assert admin.post(f"{path}/name", name=" ").status_code == 422


def test_it_is_deleted_after_one_more_question_and_a_fresh_code(house, admin, club):
    path = f"{PATH}/{club.id}"
    page = soup(admin.post(f"{path}/delete"))
    assert "can’t be undone" in page.get_text() and house.rows("tenants")
    house.clock.advance(901)
    answer = admin.post(f"{path}/delete", sure="yes")
    assert answer.headers["location"].startswith("/confirm") and house.rows("tenants")
    admin.sign_in(ADMIN)
    assert admin.post(f"{path}/delete", sure="yes").headers["location"] == f"{PATH}?done=deleted"
    assert house.rows("tenants") == house.rows("memberships") == []
    assert house.auth.people.by_address(ADA)


def test_who_adds_an_admin_enters_a_fresh_code(house, admin, club):
    house.add(BOB)
    house.clock.advance(901)
    path = f"{PATH}/{club.id}"
    answer = admin.post(f"{path}/members", {"Referer": path}, email=BOB, role="admin")
    assert answer.headers["location"].startswith("/confirm") and len(house.rows("memberships")) == 1
    assert (
        admin.post(f"{path}/members", email=BOB, role="user").headers["location"].endswith("joined")
    )


def test_what_is_not_there_is_404(house, admin, club):
    for odd in ("0" * 32, "x", "%00", "' or 1=1"):
        assert admin.get(f"{PATH}/{odd}").status_code == 404
        for path in ("name", "members", "delete"):
            answer = admin.post(
                f"{PATH}/{odd}/{path}", name="x", email=ADA, role="user", sure="yes"
            )
            assert answer.status_code == 404, (odd, path)
    assert house.auth.organisations.all() == [club]


def test_many_are_turned_page_by_page(house, admin, ada):
    for n in range(30):
        house.auth.organisations.create(None, f"Club {n:02}", ADA, Source())
    first = soup(admin.get(PATH))
    assert len(rows(first)) == 25
    second = soup(admin.get(first.find("a", rel="next")["href"]))
    assert [row[0] for row in rows(second)] == [f"Club {n}" for n in range(25, 30)]


def test_htmx_gets_the_fragment(house, admin, club):
    for path in (PATH, f"{PATH}/{club.id}"):
        answer = admin.get(path, headers={"HX-Request": "true"})
        assert answer.status_code == 200 and "<html" not in answer.text
