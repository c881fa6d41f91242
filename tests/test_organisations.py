"""Organisations and who is in them: the rules, the commands, and what a program sees of it."""

import pytest

from auth import Refused
from auth.events import Source
from tests.conftest import ADMIN
from tests.reading import refused
from tests.serving import together
from tests.test_manage import commands

ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.org"
HERE = Source("192.0.2.0/24", "request", "192.0.2.1/32")

sqlite_is_enough = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def rules(house):
    for address in (ADA, BOB, EVE):
        house.add(address)
    return house.auth.organisations


@pytest.fixture
def club(rules):
    """Run by Ada."""
    return rules.create(None, "Chess club", ADA, Source())


def roles(house, id):
    """{address: role} of an organisation."""
    addresses = {row["id"]: row["address"] for row in house.rows("users")}
    members = [row for row in house.rows("memberships") if row["tenant_id"] == id]
    return {addresses[row["user_id"]]: row["role"] for row in members}


def told(house, *kinds):
    events = sorted(house.rows("events"), key=lambda row: row["id"])
    return [(e["kind"], e["subject"], e["detail"]) for e in events if e["kind"] in kinds]


# ---- the rules
def test_an_organisation_begins_with_an_admin(house, rules):
    club = rules.create(None, "  Chess club ", "Ada@Example.org", Source())
    assert (club.name, roles(house, club.id)) == ("Chess club", {ADA: "admin"})
    assert rules.all() == [club]
    found = rules.of(house.auth.people.by_address(ADA))
    assert [(m.tenant, m.name, m.role) for m in found] == [(club.id, "Chess club", "admin")]


@sqlite_is_enough
@pytest.mark.parametrize("name", ["", "   ", "x" * 201, "Chess\nclub", "a\u202eb", "a\0b"])
def test_a_name_is_one_line_of_text(house, rules, name):
    assert refused(rules.create, None, name, ADA, Source()) == "name_invalid"
    assert house.rows("tenants") == []


def test_without_a_person_there_is_no_organisation(house, rules):
    for address, reason in (
        ("nobody@example.org", "not_listed"),
        ("nonsense", "email_invalid"),
        ("", "email_missing"),
    ):
        assert refused(rules.create, None, "Chess club", address, Source()) == reason
    assert house.rows("tenants") == [] and told(house, "tenant_created") == []


def test_only_admins_of_the_site_change_organisations(house, rules, club):
    people, admin = house.auth.people, house.auth.people.by_address(ADMIN)
    ada = people.by_address(ADA)  # an admin of the club, and of nothing else
    people.add(None, "second@example.org", "", "admin", Source())
    people.set_role(None, admin.id, "user", Source())  # `admin` is who they were a moment ago
    for actor in (ada, admin):
        assert refused(rules.create, actor, "Go club", BOB, HERE) == "not_admin"
        assert refused(rules.join, actor, club.id, BOB, "user", HERE) == "not_admin"
        assert refused(rules.leave, actor, club.id, ADA, HERE) == "not_admin"
        assert refused(rules.delete, actor, club.id, HERE) == "not_admin"
    assert roles(house, club.id) == {ADA: "admin"} and len(rules.all()) == 1


def test_joining_once_more_changes_the_role(house, rules, club):
    rules.join(None, club.id, BOB, "user", Source())
    assert roles(house, club.id) == {ADA: "admin", BOB: "user"}
    member = rules.join(None, club.id, "BOB@example.org", "admin", Source())
    assert (member.tenant, member.name, member.role) == (club.id, "Chess club", "admin")
    rules.join(None, club.id, ADA, "user", Source())  # there is another admin now
    assert roles(house, club.id) == {ADA: "user", BOB: "admin"}


def test_the_last_admin_of_an_organisation_stays(house, rules, club):
    rules.join(None, club.id, BOB, "user", Source())
    assert refused(rules.leave, None, club.id, ADA, Source()) == "last_tenant_admin"
    assert refused(rules.join, None, club.id, ADA, "user", Source()) == "last_tenant_admin"
    # One who is disabled runs nothing.
    rules.join(None, club.id, EVE, "admin", Source())
    house.auth.people.disable(None, house.auth.people.by_address(EVE).id, Source())
    assert refused(rules.leave, None, club.id, ADA, Source()) == "last_tenant_admin"
    assert roles(house, club.id) == {ADA: "admin", BOB: "user", EVE: "admin"}
    assert [kind for kind, *_ in told(house, "member_removed")] == []


@pytest.mark.parametrize("way", ["disable", "delete"])
def test_its_last_admin_is_neither_disabled_nor_deleted(house, rules, club, way):
    people = house.auth.people
    id = people.by_address(ADA).id
    rules.join(None, club.id, BOB, "user", Source())
    assert refused(getattr(people, way), None, id, Source()) == "last_tenant_admin"
    assert people.by_address(ADA).disabled_at is None
    assert roles(house, club.id) == {ADA: "admin", BOB: "user"}
    # Where nobody else is left behind, or somebody else runs it, they are.
    if way == "disable":
        rules.leave(None, club.id, BOB, Source())
    else:
        rules.join(None, club.id, BOB, "admin", Source())
    getattr(people, way)(None, id, Source())
    assert not [k for k, s, _ in told(house, "user_disabled", "user_deleted") if s != ADA]


@pytest.mark.parametrize("way", ["leave", "demote"])
def test_of_two_admins_who_go_at_the_same_moment_one_stays(build, way):
    first, second = build(), build()
    for address in (ADA, BOB):
        first.add(address)
    for n in range(5):
        club = first.auth.organisations.create(None, f"Club {n}", ADA, Source())
        first.auth.organisations.join(None, club.id, BOB, "admin", Source())

        def go(i, id=club.id):
            rules, address = ((first, ADA), (second, BOB))[i]
            rules = rules.auth.organisations
            try:
                if way == "leave":
                    rules.leave(None, id, address, Source())
                else:
                    rules.join(None, id, address, "user", Source())
            except Refused as no:
                return no.reason
            return "done"

        assert sorted(together(2, go)) == ["done", "last_tenant_admin"]
        assert list(roles(first, club.id).values()).count("admin") == 1


def test_what_is_not_there_is_refused(house, rules, club):
    for id in ("0" * 32, "", "' or 1=1", "\0", "²"):
        assert refused(rules.join, None, id, BOB, "user", Source()) == "tenant_unknown"
        assert refused(rules.leave, None, id, ADA, Source()) == "tenant_unknown"
        assert refused(rules.delete, None, id, Source()) == "tenant_unknown"
    assert refused(rules.join, None, club.id, BOB, "emperor", Source()) == "role_unknown"
    assert refused(rules.join, None, club.id, "no@example.org", "user", Source()) == "not_listed"
    assert refused(rules.leave, None, club.id, BOB, Source()) == "user_unknown"  # no member
    assert roles(house, club.id) == {ADA: "admin"}


def test_each_change_is_in_the_audit_log(house, rules):
    admin = house.auth.people.by_address(ADMIN)
    club = rules.create(admin, "Chess club", ADA, HERE)
    house.clock.advance(1)
    rules.join(admin, club.id, BOB, "user", HERE)
    house.clock.advance(1)
    rules.leave(admin, club.id, BOB, HERE)
    house.clock.advance(1)
    rules.delete(admin, club.id, HERE)
    kinds = ("tenant_created", "member_added", "member_removed", "tenant_deleted")
    found = told(house, *kinds)
    assert [*sorted(found[:2]), *found[2:]] == [  # the first two are of one moment
        ("member_added", ADA, "admin"),
        ("tenant_created", "Chess club", ""),
        ("member_added", BOB, "user"),
        ("member_removed", BOB, ""),
        ("tenant_deleted", "Chess club", ""),
    ]
    rows = [row for row in house.rows("events") if row["kind"] in kinds]
    assert {row["tenant"] for row in rows} == {club.id}
    assert {(row["actor"], row["network"], row["request_id"]) for row in rows} == {
        (admin.id, "192.0.2.0/24", "request")
    }


def test_a_deleted_organisation_takes_its_memberships_along(house, rules, club):
    other = rules.create(None, "Go club", ADA, Source())
    rules.delete(None, club.id, Source())
    assert rules.all() == [other] and roles(house, club.id) == {}
    assert roles(house, other.id) == {ADA: "admin"}


# ---- what a program sees
def test_a_role_in_an_organisation_counts_at_the_next_call(house, rules, club):
    rules.join(None, club.id, BOB, "user", Source())
    program = house.program()
    given = program.sign_in(BOB).json()["user"]
    assert (given["tenant"], given["role"]) == (club.id, "user")
    rules.join(None, club.id, BOB, "admin", Source())
    assert program.get("/auth/me").json()["user"]["role"] == "admin"
    rules.join(None, club.id, BOB, "user", Source())
    assert program.get("/auth/me").json()["user"]["role"] == "user"


def test_an_admin_of_an_organisation_is_nobody_elsewhere(house, rules, club):
    from auth import admin_required, role_required

    @house.app.get("/api/site", before=admin_required)
    def site():
        return {}

    @house.app.get("/api/tenant", before=role_required("admin"))
    def tenant(auth):
        return {"tenant": auth.tenant}

    go = rules.create(None, "Go club", BOB, Source())
    rules.join(None, go.id, ADA, "user", Source())
    program = house.program()
    program.sign_in(ADA)
    seen = {}
    for id in ("", club.id, go.id):
        if id:
            program.access_token = program.post("/auth/tenant", tenant=id).json()["access_token"]
        seen[id] = [program.get(path).status_code for path in ("/api/site", "/api/tenant")]
    assert seen == {"": [403, 403], club.id: [403, 200], go.id: [403, 403]}
    door = house.door()
    door.sign_in(ADA)
    assert door.get("/admin").headers["location"] == "/no_access_right"


# ---- the commands
@pytest.fixture
def manage(database_url, tmp_path):
    return commands(database_url, tmp_path)


def test_an_organisation_from_first_to_last(manage, build):
    house = build()
    for address in (ADA, BOB):
        house.add(address)
    status, id, error = manage("add-tenant", "Chess club", "--admin", "ADA@example.org")
    assert (status, error) == (0, "") and [row["id"] for row in house.rows("tenants")] == [id]
    assert manage("tenants") == (0, f"{id}  Chess club", "")
    said = f"{BOB} is in Chess club, with the role admin."
    assert manage("join", id, BOB, "--role", "admin") == (0, said, "")
    assert manage("leave", id, ADA)[0] == 0
    assert roles(house, id) == {BOB: "admin"}


@sqlite_is_enough
def test_what_cant_be_done_is_one_line_and_exit_1(manage, build):
    house = build()
    house.add(ADA)
    id = house.auth.organisations.create(None, "Chess club", ADA, Source()).id
    for words, says in (
        (("add-tenant", "Go club"), "Missing option"),
        (("add-tenant", "Go club", "--admin", "nobody@example.org"), "not in the list of people"),
        (("join", "0" * 32, ADA), "no such organisation"),
        (("join", id, "nobody@example.org"), "not in the list of people"),
        (("join", id, ADA, "--role", "emperor"), "no such role"),
        (("leave", id, ADA), "last admin"),
    ):
        status, out, error = manage(*words)
        assert (status, out) == (1, "") and says in error, error
        assert len(error.splitlines()) == 1
    assert roles(house, id) == {ADA: "admin"} and len(house.rows("tenants")) == 1


def test_whoever_comes_into_their_first_one_works_there_at_once(house, rules):
    browser = house.door()
    browser.sign_in(BOB)
    club = rules.create(None, "Chess club", ADA, HERE)
    rules.join(None, club.id, BOB, "user", HERE)
    assert "Chess club" in browser.get("/dashboard").text
    # The second one is theirs to choose.
    other = rules.create(None, "Go club", BOB, HERE)
    assert "Chess club" in browser.get("/dashboard").text
    browser.post("/account/tenant", tenant="")
    rules.leave(None, club.id, BOB, HERE)
    rules.join(None, club.id, BOB, "user", HERE)
    assert "Chess club" not in browser.get("/dashboard").text and other.id != club.id
