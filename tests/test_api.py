"""The JSON API as an app uses it: sign in, refresh, choose an organisation, leave."""

import pytest

from auth.events import Source
from tests.conftest import ADMIN, BASE_URL, WIDE

ADA = "ada@example.org"


@pytest.fixture
def program(house, ada):
    return house.program()


def problem(answer):
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == answer.status_code and told["title"] and told["detail"]
    return told["status"], told["code"]


def test_an_app_signs_in_by_code(program):
    asked = program.ask(ADA)
    assert asked.status_code == 202
    assert set(asked.json()) == {"message", "challenge", "device_secret", "expires_in"}
    assert asked.json()["expires_in"] == 900 and "15 minutes" in asked.json()["message"]
    answer = program.enter(program.read_code())
    assert answer.status_code == 200
    given = answer.json()
    assert given["token_type"] == "bearer" and given["expires_in"] == 600
    assert given["user"].keys() == {"id", "email", "role", "tenant"}
    assert (given["user"]["email"], given["user"]["role"]) == (ADA, "user")
    me = program.get("/auth/me").json()
    assert me["user"] | given["user"] == me["user"] and me["memberships"] == []
    assert "set-cookie" not in answer.headers


def test_an_app_signs_in_by_link(program):
    program.ask(ADA)
    program.drain()
    assert program.open_link(program.mailbox.latest_link(ADA)).status_code == 200
    assert program.signed_in
    assert problem(program.open_link(program.mailbox.latest_link(ADA))) == (401, "used")


def test_a_link_of_an_app_leads_where_the_app_is_opened(build):
    house = build(APP_LINK_URL="https://app.test/open")
    house.add(ADA)
    program, door = house.program(), house.door()
    program.ask(ADA)
    program.drain()
    letter = house.mailbox.latest_letter(ADA)
    assert "https://app.test/open#" in letter.text and "https://app.test/open#" in letter.html
    assert "Type it in the app" in letter.text and "on the same device" in letter.text
    # A browser's link goes on leading to the site.
    door.ask(ADA)
    door.drain()
    letter = house.mailbox.latest_letter(ADA)
    assert f"{BASE_URL}/link#" in letter.text and "app.test" not in letter.text


def test_a_link_of_an_app_shows_a_browser_what_to_type_in_the_app(house, program):
    program.ask(ADA)
    program.drain()
    code = house.mailbox.latest_code(ADA)
    door = house.door()
    token = house.mailbox.latest_link(ADA).rpartition("#")[2]
    page = door.post("/link", token=token)
    assert page.status_code == 200 and code in page.text and "Type this in the app" in page.text
    assert not door.signed_in
    assert program.enter(code).status_code == 200


def test_wrong_codes_say_how_many_tries_are_left(program):
    program.ask(ADA)
    right = program.read_code()
    wrong = "000000" if right != "000000" else "111111"
    answers = [program.enter(wrong) for _ in range(5)]
    assert [problem(a) for a in answers] == [(401, "wrong_code")] * 5
    assert [a.json()["tries_left"] for a in answers] == [4, 3, 2, 1, 0]
    last = program.enter(right)
    assert problem(last) == (429, "too_many_tries") and int(last.headers["retry-after"]) > 0


def test_a_code_that_cant_be_one_costs_no_try(program):
    program.ask(ADA)
    right = program.read_code()
    for odd in ("", "12345", "1234567", "letters", "12-34-5x"):
        assert problem(program.enter(odd)) == (422, "code_malformed")
    assert program.enter(f" {right[:3]} {right[3:]} ").status_code == 200


def test_a_code_is_used_and_expires(house, program):
    program.ask(ADA)
    code = program.read_code()
    program.enter(code)
    assert problem(program.enter(code)) == (401, "used")
    program.ask(ADA)
    code = program.read_code()
    house.clock.advance(901)
    assert problem(program.enter(code)) == (401, "expired")


def test_half_a_sign_in_is_none_and_costs_no_try(house, program):
    program.ask(ADA)
    code, secret = program.read_code(), program.device_secret
    thief = house.program()
    thief.challenge = program.challenge
    thief.device_secret = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    for _ in range(20):
        assert problem(thief.enter(code)) == (401, "unknown_challenge")
    assert problem(thief.open_link(house.mailbox.latest_link(ADA))) == (401, "unknown_challenge")
    assert house.rows("challenges")[0]["total_tries"] == 0
    assert program.enter(code).status_code == 200


def test_asking_again_at_once_leaves_the_mailed_code_good(build):
    house = build(**dict.fromkeys(WIDE, ""))
    house.add(ADA)
    program = house.program()
    program.ask(ADA)
    code = program.read_code()
    body = {"email": ADA, "device_secret": program.device_secret}
    answer = program.client.post("/auth/login", json=body).json()
    assert answer["challenge"] == program.challenge
    assert answer["device_secret"] == program.device_secret  # a lost answer loses nothing
    assert program.enter(code).status_code == 200


def test_refreshing_gives_new_tokens_and_ends_the_old(house, program):
    program.sign_in(ADA)
    old = program.refresh_token
    house.clock.advance(600)
    assert problem(program.get("/auth/me")) == (401, "invalid_token")
    assert program.refresh().status_code == 200 and program.refresh_token != old
    assert program.signed_in


def test_logging_out_ends_both_tokens(house, program):
    program.sign_in(ADA)
    old = program.refresh_token
    assert program.post("/auth/logout").status_code == 204
    assert problem(program.get("/auth/me")) == (401, "invalid_token")
    assert problem(program.refresh(old)) == (401, "invalid_token")
    assert problem(program.post("/auth/logout")) == (401, "invalid_token")
    assert house.rows("sessions") == []


def test_signing_out_everywhere_in_a_browser_ends_the_app_too(house, program):
    program.sign_in(ADA)
    door = house.door()
    door.sign_in(ADA)
    door.post("/logout_everywhere")
    assert not program.signed_in and problem(program.refresh()) == (401, "invalid_token")


@pytest.fixture
def club(house, ada):
    return house.auth.organisations.create(None, "Chess club", ADMIN, Source())


def test_a_person_works_in_their_organisation(house, club, program):
    house.auth.organisations.join(None, club.id, ADA, "user", Source())
    given = program.sign_in(ADA).json()
    assert given["user"]["tenant"] == club.id  # the only one they are in
    me = program.get("/auth/me").json()
    assert me["memberships"] == [{"tenant": club.id, "name": "Chess club", "role": "user"}]


def test_a_person_of_two_organisations_chooses(house, club, program):
    rules = house.auth.organisations
    other = rules.create(None, "Go club", ADA, Source())
    rules.join(None, club.id, ADA, "user", Source())
    assert program.sign_in(ADA).json()["user"]["tenant"] is None
    for tenant, role in ((other.id, "admin"), (club.id, "user")):
        answer = program.post("/auth/tenant", tenant=tenant)
        assert answer.status_code == 200
        assert answer.json().keys() == {"access_token", "token_type", "expires_in", "user"}
        program.access_token = answer.json()["access_token"]
        user = program.get("/auth/me").json()["user"]
        assert (user["tenant"], user["role"]) == (tenant, role)
    # It is kept when the token is refreshed.
    assert program.refresh().json()["user"]["tenant"] == club.id


@pytest.mark.parametrize("tenant", ["", "x", "' or 1=1", "0" * 32, "\0"])
def test_another_organisation_does_not_exist(house, program, tenant):
    rules = house.auth.organisations
    rules.create(None, "Their club", ADMIN, Source())
    program.sign_in(ADA)
    theirs = rules.all()[0].id
    for wanted in (tenant, theirs):
        assert problem(program.post("/auth/tenant", tenant=wanted)) == (404, "tenant_unknown")


def test_whoever_left_an_organisation_is_out_at_the_next_call(house, club, program):
    house.auth.organisations.join(None, club.id, ADA, "user", Source())
    program.sign_in(ADA)
    house.auth.organisations.leave(None, club.id, ADA, Source())
    assert problem(program.get("/auth/me")) == (401, "invalid_token")
    assert program.refresh().json()["user"]["tenant"] is None and program.signed_in
    house.auth.organisations.join(None, club.id, ADA, "user", Source())
    program.access_token = program.post("/auth/tenant", tenant=club.id).json()["access_token"]
    house.auth.organisations.delete(None, club.id, Source())
    assert problem(program.get("/auth/me")) == (401, "invalid_token")


def test_a_site_admin_may_work_in_each_organisation(house, club):
    rules, program = house.auth.organisations, house.program()
    program.sign_in(ADMIN)
    go = rules.create(None, "Go club", ADA, Source())
    answer = program.post("/auth/tenant", tenant=go.id)
    assert answer.json()["user"]["role"] == "admin"
    program.access_token = answer.json()["access_token"]
    assert program.signed_in
    rules.delete(None, go.id, Source())
    assert problem(program.get("/auth/me")) == (401, "invalid_token")


def test_a_change_of_role_counts_at_the_next_call(house, program):
    program.sign_in(ADA)
    user = house.auth.people.by_address(ADA)
    house.auth.people.set_role(None, user.id, "admin", Source())
    assert program.get("/auth/me").json()["user"]["role"] == "admin"


@pytest.mark.parametrize("how", ["disable", "delete"])
def test_who_is_disabled_or_deleted_is_out_at_the_next_call(house, program, how):
    program.sign_in(ADA)
    user = house.auth.people.by_address(ADA)
    getattr(house.auth.people, how)(None, user.id, Source())
    assert problem(program.get("/auth/me")) == (401, "invalid_token")
    assert problem(program.refresh()) == (401, "invalid_token")


def test_an_app_is_told_of_by_mail_when_it_is_new(house, program):
    program.sign_in(ADA)
    house.clock.advance(3600)
    house.program().sign_in(ADA)
    house.outbox.drain()
    assert "New sign-in" in house.mailbox.latest_letter(ADA).subject


def test_pages_of_ones_own_under_api_know_who_asks(house, ada):
    from auth import admin_required, signed_in

    @house.app.get("/api/whoami", before=signed_in)
    def whoami(auth):
        return {"address": auth.address, "tenant": auth.tenant}

    @house.app.post("/api/admins", before=admin_required)
    def admins(auth):
        return {"ok": True}

    program, door = house.program(), house.door()
    assert problem(program.get("/api/whoami")) == (401, "unauthorized")
    program.sign_in(ADA)
    assert program.get("/api/whoami").json() == {"address": ADA, "tenant": ""}
    assert problem(program.post("/api/admins")) == (403, "forbidden")
    # A browser's cookie counts for pages and not for programs.
    door.sign_in(ADA)
    assert problem(door.get("/api/whoami")) == (401, "unauthorized")
    assert problem(program.get("/api/nothing")) == (404, "not_found")


def test_a_token_of_a_time_that_the_database_lost_is_no_theft(house, program):
    program.sign_in(ADA)
    program.refresh()
    program.refresh()
    house.db.q("update sessions set generation = 1")  # a backup was restored
    assert problem(program.refresh()) == (401, "invalid_token")
    assert "authn_token_reuse" not in {e["kind"] for e in house.rows("events")}
    assert len(house.rows("sessions")) == 1
