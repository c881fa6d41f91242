"""One's own account, as a person uses it."""

import re

import pytest

from auth import role_required, signed_in
from auth.events import Source
from tests.conftest import ADMIN
from tests.reading import soup

ADA, BOB = "ada@example.org", "bob@example.org"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1"


@pytest.fixture
def own(house, ada):
    door = house.door()
    door.sign_in(ADA)
    return door


def ends(door):
    """The addresses of the buttons that end a sign-in."""
    forms = soup(door.get("/account")).find_all("form")
    paths = [form["action"] for form in forms]
    return [path for path in paths if re.fullmatch(r"/account/sessions/[0-9a-f]{32}/end", path)]


def kinds(house, address=ADA):
    return [row["kind"] for row in house.rows("events") if row["subject"] == address]


def test_strangers_are_led_to_the_door(house):
    for path in ("/account", "/confirm"):
        assert house.door().get(path).headers["location"].startswith("/login")


def test_the_page_says_where_one_is_signed_in(house, own):
    phone, app = house.door(client="198.51.100.77"), house.program()
    phone.client.headers["User-Agent"] = IPHONE
    phone.sign_in(ADA)
    app.sign_in(ADA)
    page = soup(own.get("/account"))
    text = page.get_text(" ", strip=True)
    assert ADA in text and "Safari on iPhone" in text and "An app" in text and "this one" in text
    assert "198.51.100.0/24" in text and "198.51.100.77" not in text
    assert len(ends(own)) == 2  # not this one


def test_ending_one_sign_in_ends_it_at_its_next_request(house, own):
    other = house.door()
    other.sign_in(ADA)
    (path,) = ends(own)
    assert own.post(path).headers["location"] == "/account?done=ended"
    assert not other.signed_in and own.signed_in
    assert own.post(path).status_code == 404  # it has ended already
    assert "authn_logout" in kinds(house)


def test_an_apps_sign_in_is_ended_like_any_other(house, own):
    app = house.program()
    app.sign_in(ADA)
    (path,) = ends(own)
    own.post(path)
    assert not app.signed_in and app.refresh().status_code == 401


def _id(house, address):
    return house.auth.people.by_address(address).id


def test_nobody_ends_another_persons_sign_in(house, own):
    house.add(BOB)
    bob = house.door()
    bob.sign_in(BOB)
    theirs = [r["id"] for r in house.rows("sessions") if r["user_id"] == _id(house, BOB)]
    assert len(theirs) == 1
    for id in (*theirs, "0" * 32, "x", "%00"):
        assert own.post(f"/account/sessions/{id}/end").status_code == 404
    assert bob.signed_in and own.signed_in


def test_all_others_end_and_this_one_stays(house, own):
    others = [house.door() for _ in range(3)]
    app = house.program()
    for one in (*others, app):
        one.sign_in(ADA)
    assert own.post("/account/sessions/end_others").headers["location"] == "/account?done=others"
    assert own.signed_in and not any(one.signed_in for one in (*others, app))
    assert kinds(house).count("authn_logout_others") == 1


def test_name_and_zone_are_saved(house, own):
    assert own.post("/account/name", name=" Ada ", zone="Europe/Berlin").status_code == 303
    page = soup(own.get("/account?done=saved"))
    assert page.find(id="name")["value"] == "Ada"
    assert page.find("option", selected=True)["value"] == "Europe/Berlin"
    assert "saved" in page.find(role="status").get_text()
    assert house.auth.people.by_address(ADA).timezone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("name", "zone"), [("x" * 201, "UTC"), ("a\nb", "UTC"), ("Ada", "Mars/Base"), ("Ada", "")]
)
def test_what_is_no_name_or_zone_is_refused(house, own, name, zone):
    answer = own.post("/account/name", name=name, zone=zone)
    assert answer.status_code == 422 and 'role="alert"' in answer.text
    user = house.auth.people.by_address(ADA)
    assert (user.name, user.timezone) == ("", "UTC")


def test_only_the_named_fields_are_changed(house, own):
    before = house.auth.people.by_address(ADA)
    own.post("/account/name", name="Ada", zone="UTC", role="admin", address=BOB, id="x", tenant="t")
    after = house.auth.people.by_address(ADA)
    assert (after.role, after.address, after.id) == (before.role, before.address, before.id)


def test_one_leaves_an_organisation_unless_one_is_its_last_admin(house, own):
    rules = house.auth.organisations
    club = rules.create(None, "Chess <club>", ADMIN, Source())
    mine = rules.create(None, "Mine", ADA, Source())
    rules.join(None, club.id, ADA, "user", Source())
    assert "Chess <club>" in soup(own.get("/account")).get_text()
    assert own.post("/account/leave", tenant=club.id, sure="yes").status_code == 303
    assert own.post("/account/leave", tenant=club.id).status_code == 404
    rules.join(None, mine.id, ADMIN, "user", Source())
    answer = own.post("/account/leave", tenant=mine.id, sure="yes")
    assert answer.status_code == 422 and "last admin of the organisation" in answer.text
    assert [m.tenant for m in rules.of(house.auth.people.by_address(ADA))] == [mine.id]


# ---- a fresh code before what can't be undone
def asks(door, path, **more):
    answer = door.post(path, {"Referer": "https://vestibule.test/account"}, **more)
    assert answer.headers["location"] == "/confirm?next=/account", answer.text
    return soup(door.get(answer.headers["location"]))


@pytest.mark.parametrize("path", ["/account/data", "/account/delete"])
def test_after_a_quarter_of_an_hour_a_fresh_code_is_asked_for(house, own, path):
    house.clock.advance(15 * 60)
    assert own.post(path).status_code == 200
    house.clock.advance(1)
    form = asks(own, path, sure="yes").find("form", action="/create_code")
    typed = {field["name"]: field["value"] for field in form.find_all("input")}
    assert typed == {"email": ADA, "next": "/account"}
    own.post("/create_code", **typed)
    answer = own.enter(own.read_code())
    assert answer.headers["location"] == "/account"
    assert own.post(path).status_code == 200 and house.auth.people.by_address(ADA)


def test_a_fresh_code_keeps_what_the_session_holds_and_ends_the_old_cookie(house, own):
    @house.app.get("/note", before=signed_in)
    def note(session, text: str = ""):
        if text:
            session["note"] = text
        return session.get("note", "")

    own.get("/note?text=milk")
    old, count = own.cookie("session"), len(house.rows("sessions"))
    own.ask(ADA)
    own.enter(own.read_code())
    assert "milk" in own.get("/note").text and own.cookie("session") != old
    assert len(house.rows("sessions")) == count
    thief = house.door()
    thief.client.cookies.set("__Host-session", old)
    assert not thief.signed_in


def test_what_one_session_holds_is_not_another_persons(house, own):
    house.add(BOB)

    @house.app.get("/note", before=signed_in)
    def note(session):
        session.setdefault("note", session["auth"])
        return session["note"]

    own.get("/note")
    own.sign_in(BOB)
    assert ADA not in own.get("/note").text


def test_a_known_browser_or_an_app_is_no_fresh_code(house, own):
    app = house.program()
    app.sign_in(ADA)
    house.clock.advance(901)
    app.refresh()
    asks(own, "/account/delete", sure="yes")
    for path in ("/account", "/dashboard"):
        own.get(path)
    asks(own, "/account/delete", sure="yes")
    assert house.auth.people.by_address(ADA)


def test_htmx_is_led_to_the_fresh_code_and_back(house, own):
    house.clock.advance(901)
    headers = {"HX-Request": "true", "HX-Current-URL": "https://vestibule.test/account?done=saved"}
    answer = own.post("/account/delete", headers)
    assert answer.headers["hx-redirect"] == "/confirm?next=/account%3Fdone%3Dsaved"


@pytest.mark.parametrize(
    "came", ["https://evil.test//evil.test", "javascript:alert(1)", "http://["]
)
def test_the_way_back_is_one_of_ours(house, own, came):
    house.clock.advance(901)
    answer = own.post("/account/delete", {"Referer": came})
    assert answer.headers["location"].startswith("/confirm")
    page = soup(own.get(answer.headers["location"]))
    assert page.find("input", attrs={"name": "next"})["value"] == "/dashboard"


# ---- one's data, and the end
def test_the_download_is_what_is_kept_and_no_secret(house, own):
    own.post("/account/name", name="Ada", zone="UTC")
    answer = own.post("/account/data")
    assert answer.headers["content-disposition"] == 'attachment; filename="my-data.json"'
    found = answer.json()
    assert found["person"]["name"] == "Ada" and len(found["sessions"]) == 1
    assert {"authn_login_success", "user_updated"} <= {e["kind"] for e in found["events"]}
    held = {
        v
        for table in ("challenges", "sessions", "devices")
        for r in house.rows(table)
        for v in r.values()
    }
    secrets = {v for v in held if isinstance(v, str) and re.fullmatch(r"[0-9a-f]{64}", v)}
    assert secrets and not any(secret in answer.text for secret in secrets)
    assert own.cookie("session") not in answer.text


def test_an_account_is_deleted_after_one_more_question(house, own):
    app, before = house.program(), _id(house, ADA)
    app.sign_in(ADA)
    assert "can’t be undone" in own.post("/account/delete").text and own.signed_in
    answer = own.post("/account/delete", sure="yes")
    assert answer.headers["location"] == "/login?done=deleted" and not own.cookie("session")
    said = soup(own.get("/login?done=deleted")).select_one(".alert[role=status]")
    assert said.get_text(strip=True) == "Your account is deleted."
    for url in ("/login", "/login?done=Your+bank+is+closed"):
        assert soup(own.get(url)).select(".alert") == []
    assert not own.signed_in and not app.signed_in and app.refresh().status_code == 401
    assert house.rows("devices") == [] and kinds(house).count("user_deleted") == 1
    # The same address, added again, is somebody new.
    assert house.add(ADA).id != before


def test_the_last_admin_stays(house, admin):
    answer = admin.post("/account/delete", sure="yes")
    assert answer.status_code == 422 and "last active admin" in answer.text and admin.signed_in


def test_the_last_admin_of_an_organisation_stays_while_it_has_others(house, own):
    rules = house.auth.organisations
    club = rules.create(None, "Chess club", ADA, Source())
    rules.join(None, club.id, ADMIN, "user", Source())
    answer = own.post("/account/delete", sure="yes")
    assert answer.status_code == 422 and "last admin of the organisation" in answer.text
    rules.join(None, club.id, ADMIN, "admin", Source())
    assert own.post("/account/delete", sure="yes").status_code == 303
    assert not own.signed_in


# ---- organisations in a browser
@pytest.fixture
def clubs(house, ada):
    """Two; Ada is a user of the first and runs the second."""
    rules = house.auth.organisations
    chess = rules.create(None, "Chess club", ADMIN, Source())
    go = rules.create(None, "Go club", ADA, Source())
    rules.join(None, chess.id, ADA, "user", Source())
    return chess, go


def whom(house):
    @house.app.get("/whoami", before=signed_in)
    def whoami(auth, session):
        return {
            "tenant": auth.tenant,
            "name": auth.tenant_name,
            "role": auth.role,
            "center": session["center"],
            "session_role": session["role"],
        }

    return lambda door: door.get("/whoami").json()


def test_who_is_in_one_organisation_works_there(house, ada):
    club = house.auth.organisations.create(None, "Chess club", ADA, Source())
    seen, door = whom(house), house.door()
    door.sign_in(ADA)
    assert seen(door) == {
        "tenant": club.id,
        "name": "Chess club",
        "role": "admin",
        "center": club.id,
        "session_role": "admin",
    }
    assert "Chess club" in door.get("/dashboard").text
    # Its admin is none of the site's.
    assert door.get("/admin").headers["location"] == f"/admin/organisations/{club.id}"


def test_who_is_in_several_chooses_and_it_counts_at_the_next_request(house, clubs, own):
    (chess, go), seen = clubs, whom(house)
    assert seen(own)["tenant"] == ""
    for club, role in ((chess, "user"), (go, "admin")):
        assert own.post("/account/tenant", tenant=club.id).status_code == 303
        assert (seen(own)["tenant"], seen(own)["role"]) == (club.id, role)
    house.auth.organisations.join(None, go.id, ADMIN, "admin", Source())
    house.auth.organisations.leave(None, go.id, ADA, Source())
    assert (seen(own)["tenant"], seen(own)["role"]) == ("", "user")
    own.post("/account/tenant", tenant=chess.id)
    house.auth.organisations.delete(None, chess.id, Source())
    assert seen(own)["tenant"] == ""


def test_a_fresh_code_keeps_the_organisation_one_works_in(house, clubs, own):
    own.post("/account/tenant", tenant=clubs[1].id)
    own.ask(ADA)
    own.enter(own.read_code())
    assert whom(house)(own)["tenant"] == clubs[1].id


def test_roles_are_asked_of_the_membership(house, clubs, own):
    @house.app.get("/run", before=role_required("admin"))
    def run_it():
        return "run"

    assert own.get("/run").headers["location"] == "/no_access_right"
    own.post("/account/tenant", tenant=clubs[1].id)
    assert own.get("/run").status_code == 200
    own.post("/account/tenant", tenant=clubs[0].id)
    assert own.get("/run").headers["location"] == "/no_access_right"
    own.post("/account/tenant", tenant="")
    assert own.get("/run").headers["location"] == "/no_access_right"


@pytest.mark.parametrize("tenant", ["x", "0" * 32, "\0", "' or 1=1", "é"])
def test_another_organisation_is_not_there(house, clubs, own, tenant):
    theirs = house.auth.organisations.create(None, "Theirs", ADMIN, Source())
    for wanted in (tenant, theirs.id):
        answer = own.post("/account/tenant", tenant=wanted)
        assert answer.status_code == 404 and "no such organisation" in answer.text
    assert whom(house)(own)["tenant"] == ""


def test_a_site_admin_works_in_any(house, clubs, admin):
    house.auth.organisations.join(None, clubs[0].id, ADA, "admin", Source())
    house.auth.organisations.leave(None, clubs[0].id, ADMIN, Source())
    admin.post("/account/tenant", tenant=clubs[1].id)
    found = whom(house)(admin)
    assert (found["tenant"], found["role"]) == (clubs[1].id, "admin")


# ---- what a reader found
def test_the_page_that_asks_once_more_leads_back_to_a_page(house, own):
    house.clock.advance(901)
    for headers in ({}, {"HX-Request": "true"}):
        came = {"Referer": "https://vestibule.test/account/delete"}
        answer = own.post("/account/delete", came | headers, sure="yes")
        where = answer.headers.get("location") or answer.headers["hx-redirect"]
        assert where == "/confirm?next=/account"


def test_a_clock_that_was_ahead_confirms_nobody(house, ada):
    house.clock.advance(86400)
    door = house.door()
    door.sign_in(ADA)
    house.clock.advance(-86400)
    assert door.signed_in
    assert door.post("/account/data").headers["location"].startswith("/confirm")


def test_a_zone_that_was_chosen_stays_and_another_follows_the_browser(house, own):
    own.ask(ADA)
    own.enter(own.read_code(), timezone="Europe/Berlin")
    assert house.auth.people.by_address(ADA).timezone == "Europe/Berlin"
    own.post("/account/name", name="", zone="Asia/Tokyo")
    own.ask(ADA)
    own.enter(own.read_code(), timezone="Europe/Berlin")
    assert house.auth.people.by_address(ADA).timezone == "Asia/Tokyo"


def test_an_old_name_of_a_zone_is_kept(house, own):
    own.ask(ADA)
    own.enter(own.read_code(), timezone="US/Pacific")
    chosen = soup(own.get("/account")).find("option", selected=True)
    assert chosen["value"] == "US/Pacific"
    assert own.post("/account/name", name="Ada", zone="US/Pacific").status_code == 303


def test_what_a_session_held_is_gone_after_its_end(house, own):
    @house.app.get("/note", before=signed_in)
    def note(session, text: str = ""):
        if text:
            session["note"] = text
        return session.get("note", "nothing")

    own.get("/note?text=milk")
    house.clock.advance(8 * 86400)
    own.sign_in(ADA)
    assert "nothing" in own.get("/note").text


def test_a_person_has_twenty_sign_ins_at_most(house, own):
    doors = [own]
    for n in range(24):
        house.clock.advance(60)
        doors.append(house.program() if n % 2 else house.door())
        doors[-1].sign_in(ADA)
    assert len(house.rows("sessions")) == 20
    for one in doors:  # an access token lives for ten minutes
        if hasattr(one, "refresh"):
            one.refresh()
    assert [one.signed_in for one in doors] == [False] * 5 + [True] * 20


def test_what_changes_nothing_is_no_event(house, own):
    before = len(house.rows("events"))
    for _ in range(3):
        own.post("/account/sessions/end_others")
        own.post("/account/name", name="", zone="UTC")
    assert len(house.rows("events")) == before


def test_the_download_begins_with_the_person(house, ada):
    house.auth.people.delete(None, _id(house, ADA), Source())
    house.clock.advance(60)
    house.add(ADA)
    door = house.door()
    door.sign_in(ADA)
    kinds = [e["kind"] for e in door.post("/account/data").json()["events"]]
    assert "user_deleted" not in kinds and kinds.count("user_created") == 1


def test_the_only_member_of_an_organisation_does_not_leave_it_behind(house, own):
    rules = house.auth.organisations
    rules.create(None, "Mine", ADA, Source())
    (tenant,) = [m.tenant for m in rules.of(house.auth.people.by_address(ADA))]
    assert own.post("/account/leave", tenant=tenant, sure="yes").status_code == 422


def test_a_site_role_counts_everywhere_and_a_role_inside_only_by_its_name(house, ada):
    @house.app.get("/edit", before=role_required("editor"))
    def edit():
        return "edit"

    house.auth.people.put_role(None, "editor", "", Source())
    house.auth.people.set_role(None, _id(house, ADA), "editor", Source())
    rules = house.auth.organisations
    club = rules.create(None, "Chess club", ADMIN, Source())
    rules.join(None, club.id, ADA, "user", Source())
    door = house.door()
    door.sign_in(ADA)
    assert whom(house)(door)["role"] == "user" and door.get("/edit").status_code == 200
    assert "Works in" in door.get("/account").text
    # An organisation's admin is no editor, and can leave what they work in.
    house.auth.people.set_role(None, _id(house, ADA), "user", Source())
    rules.join(None, club.id, ADA, "admin", Source())
    assert door.get("/edit").headers["location"] == "/no_access_right"
    form = soup(door.get("/account")).find("form", action="/account/tenant")
    assert form.find("input")["value"] == ""
    door.post("/account/tenant", tenant="")
    assert whom(house)(door)["tenant"] == ""
