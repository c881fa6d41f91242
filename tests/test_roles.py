"""The roles that people may have: added, described, deleted by admins."""

import pytest

from auth import role_required
from tests.reading import rows, soup

ADA = "ada@example.org"


def test_only_admins_see_and_change_them(house, ada):
    door = house.door()
    door.sign_in(ada)
    assert door.get("/admin/roles").headers["location"] == "/no_access_right"
    for path in ("/admin/roles", "/admin/roles/delete"):
        assert door.post(path, name="editor").headers["location"] == "/no_access_right"
    assert len(house.rows("roles")) == 2


def test_a_role_is_added_described_given_and_deleted(house, admin, ada):
    assert admin.post("/admin/roles", name="editor", description="Writes").status_code == 303
    admin.post("/admin/roles", name="editor", description="Writes <drafts>")
    assert rows(soup(admin.get("/admin/roles")))[1] == ["editor", "Writes <drafts>", "0", "Delete"]
    id = house.auth.people.by_address(ADA).id
    admin.post(f"/admin/people/{id}/role", role="editor")

    @house.app.get("/drafts", before=role_required("editor"))
    def drafts():
        return "drafts"

    door = house.door()
    door.sign_in(ADA)
    assert door.get("/drafts").status_code == 200
    answer = admin.post("/admin/roles/delete", name="editor")
    assert answer.status_code == 422 and "still in use" in answer.text
    admin.post(f"/admin/people/{id}/role", role="user")
    assert admin.post("/admin/roles/delete", name="editor").status_code == 303
    assert [row[0] for row in rows(soup(admin.get("/admin/roles?done=deleted")))] == [
        "admin",
        "user",
    ]
    kinds = [e["kind"] for e in house.rows("events") if e["subject"] == "editor"]
    assert sorted(kinds) == ["role_deleted", "role_saved", "role_saved"]


@pytest.mark.parametrize(
    "name", ["", "Editor", "1st", "a b", "é", "x" * 41, "a\0", "<b>", "admin;"]
)
def test_what_is_no_name_is_refused_and_kept_for_mending(house, admin, name):
    answer = admin.post("/admin/roles", name=name, description="For all")
    assert answer.status_code == 422 and 'value="For all"' in answer.text
    assert len(house.rows("roles")) == 2


@pytest.mark.parametrize("name", ["admin", "user", "nobody", "", "\0"])
def test_the_two_that_there_must_be_stay(house, admin, name):
    assert admin.post("/admin/roles/delete", name=name).status_code == 422
    assert len(house.rows("roles")) == 2
