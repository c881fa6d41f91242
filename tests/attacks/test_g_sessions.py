"""Attacks on sessions: guessed, kept too long, used after they ended. Two processes, one database."""

import secrets

import pytest

from auth.events import Source
from tests.conftest import ADMIN, DEFAULT
from tests.serving import together

DAY = 86400


@pytest.fixture
def twin(build, house):
    """The same app a second time on the same database: another process."""
    return build(clock=house.clock, mailbox=house.mailbox)


def copied(door, house):
    """A thief's browser with a copy of the cookie."""
    thief = house.door()
    thief.client.cookies.set("__Host-session", door.cookie("session"))
    return thief


def test_G1_a_session_token_cant_be_guessed(house, ada):
    house.door().sign_in(ada)
    door = house.door()
    for n in range(300):
        door.client.cookies.set("__Host-session", secrets.token_urlsafe(32 if n % 2 else n % 50))
        assert door.get("/dashboard").status_code == 303
    stored = {row["token"] for row in house.rows("sessions")}
    assert all(len(token) == 64 for token in stored)


def test_G3_an_unused_session_ends(house, ada, clock):
    door = house.door()
    door.sign_in(ada)
    clock.advance(7 * DAY - 3600)
    assert door.signed_in
    clock.advance(7 * DAY - 3600)
    assert door.signed_in  # the use in between counted
    clock.advance(7 * DAY)
    assert not door.signed_in


def test_G4_a_session_ends_however_much_it_is_used(house, ada, clock):
    door = house.door()
    door.sign_in(ada)
    for _ in range(29):
        clock.advance(DAY)
        assert door.signed_in
    clock.advance(DAY)
    assert not door.signed_in


def test_G5_a_copied_cookie_is_dead_after_sign_out(house, twin, ada):
    door = house.door()
    door.sign_in(ada)
    thieves = [copied(door, house), copied(door, twin)]
    assert all(thief.signed_in for thief in thieves)
    left = door.post("/logout")
    assert (left.status_code, left.headers["location"]) == (303, "/login")
    assert (
        "__Host-session=" in left.headers["set-cookie"]
        and "Max-Age=0" in left.headers["set-cookie"]
    )
    assert not any(thief.signed_in for thief in thieves)
    assert door.post("/logout").status_code == 303  # and once more


def test_G6_sign_out_everywhere_ends_all_sessions_and_pending_codes(house, twin, ada):
    doors = [house.door() for _ in range(5)]
    for door in doors:
        door.sign_in(ada)
    pending = twin.door()
    pending.ask(ada)
    code = pending.read_code()
    assert doors[0].post("/logout_everywhere").headers["location"] == "/login"
    assert not any(door.signed_in for door in doors)
    assert pending.enter(code).status_code == 410


def test_G6_only_ones_own_sessions(house, ada):
    other = house.door()
    other.sign_in(house.add("bob@example.org").address)
    door = house.door()
    door.sign_in(ada)
    door.post("/logout_everywhere")
    assert other.signed_in


@pytest.mark.parametrize("act", ["disable", "delete"])
def test_G7_the_disabled_and_the_deleted_are_out_at_the_next_request(house, twin, ada, act):
    doors = [house.door(), twin.door()]
    for door in doors:
        door.sign_in(ada)
    people = house.auth.people
    getattr(people, act)(None, people.by_address(ada).id, Source())
    fragment = doors[0].get("/dashboard", headers={"HX-Request": "true"})
    assert fragment.headers["hx-redirect"] == "/login?next=/dashboard"
    assert doors[1].get("/dashboard").headers["location"] == "/login?next=/dashboard"


def test_G7_enabling_brings_no_old_session_back(house, ada):
    door = house.door()
    door.sign_in(ada)
    people = house.auth.people
    id = people.by_address(ada).id
    people.disable(None, id, Source())
    people.enable(None, id, Source())
    assert not door.signed_in


def test_G8_a_role_counts_at_the_next_request(house, twin, ada):
    doors = [house.door(), twin.door()]
    for door in doors:
        door.sign_in(ada)
        assert door.get("/admin").headers["location"] == "/no_access_right"
    people = house.auth.people
    id = people.by_address(ada).id
    people.set_role(None, id, "admin", Source())
    assert [door.get("/admin").status_code for door in doors] == [200, 200]
    people.set_role(None, id, "user", Source())
    for door in doors:
        assert door.get("/admin").headers["location"] == "/no_access_right"
        assert door.post("/admin/people", email="x@example.org").status_code == 303
    assert people.find(people.tidy("x@example.org")).total == 0


def test_a_sign_in_ends_the_session_that_the_browser_had(house, ada):
    door = house.door()
    door.sign_in(ADMIN)
    thief = copied(door, house)
    door.sign_in(ada)
    assert door.signed_in and not thief.signed_in
    assert ada in door.get("/dashboard").text


@pytest.mark.parametrize("how", ["sign_out", "disabled for a moment", "everybody", "everywhere"])
def test_G6_whoever_is_signed_out_by_others_still_gets_in(build, how):
    house = build(**DEFAULT)
    ada = house.add("ada@example.org")
    owner = house.door()
    owner.sign_in(ada.address)
    for n in range(12):  # strangers use up the mails of a day
        house.clock.advance(800)
        house.door(client=f"198.51.100.{n}").ask(ada.address)
    house.outbox.drain()
    people, rules = house.auth.people, house.auth.signin
    if how == "sign_out":
        people.sign_out(None, ada.id, Source())
    elif how == "everybody":
        rules.end_everybody(Source())
    elif how == "everywhere":
        rules.end_everything(ada, Source())
    else:
        people.disable(None, ada.id, Source())
        people.enable(None, ada.id, Source())
    assert not owner.signed_in
    house.clock.advance(3600)
    door, mails = house.door(), len(house.mailbox.to(ada.address))
    door.ask(ada.address)
    house.outbox.drain()
    assert len(house.mailbox.to(ada.address)) == mails + 1
    link = house.mailbox.latest_link(ada.address)
    door.post("/link", token=link.rpartition("#")[2])
    assert door.signed_in


def test_G6_signing_everybody_out_leaves_nobody_who_was_just_signing_in(house, twin):
    for n in range(6):
        house.add(f"p{n}@example.org")
    for _ in range(4):
        doors = [(house, twin)[n % 2].door() for n in range(6)]
        codes = []
        for n, door in enumerate(doors):
            door.ask(f"p{n}@example.org")
        house.outbox.drain()
        twin.outbox.drain()
        codes = [house.mailbox.latest_code(f"p{n}@example.org") for n in range(6)]
        ended = []

        def act(i, doors=doors, codes=codes, ended=ended):
            if i < 6:
                return doors[i].enter(codes[i]).status_code
            ended.append(twin.auth.signin.end_everybody(Source()))
            return 0

        statuses = together(7, act)
        assert not {500, 503} & set(statuses), statuses
        # Who began after it may be in; who began before it may not, whenever they were done.
        alive = sum(door.signed_in for door in doors)
        assert alive <= statuses.count(303) and len(house.rows("sessions")) == alive
        house.auth.signin.end_everybody(Source())
