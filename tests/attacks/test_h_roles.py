"""H: what people of one role or one organisation can do to others, and what the record says of it.

Every route of the app is in one of four tables here; a new one that is in none turns the tests red. That
the record can't be changed is in tests/test_database.py.
"""

import json
import re
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from starlette.routing import Mount

from auth import events, role_required, signed_in
from auth.events import Source
from auth.retention import Retention
from auth.testing import Mailbox
from tests.attacks.test_d_browser import OURS, fill, snapshot
from tests.conftest import ADMIN, BASE_URL
from tests.reading import entered, refused
from tests.serving import together
from tests.test_backup import no_bar
from utils import replies

ANN, ABE = "ann@alpha.example", "abe@alpha.example"
BEA, BEN = "bea@bravo.example", "ben@bravo.example"
DAN, PAT, SAM, VIC = "dan@example.org", "pat@example.org", "sam@example.org", "vic@example.org"
SECOND = "second@example.com"
HERE = Source("192.0.2.0/24", "request", "192.0.2.1/32")
SEEN = ["sessions.seen_at"]

# ---- who may ask for what: (path, method)
PUBLIC = {
    ("/", "GET"),
    ("/login", "GET"),
    ("/create_code", "POST"),
    ("/verify_code", "GET"),
    ("/verify_code", "POST"),
    ("/resend_code", "GET"),
    ("/resend_code", "POST"),
    ("/link", "GET"),
    ("/link", "POST"),
    ("/undo_address", "GET"),
    ("/undo_address", "POST"),
    ("/logout", "POST"),
    ("/logout_everywhere", "POST"),
    ("/no_access_right", "GET"),
    ("/auth/login", "POST"),
    ("/auth/verify", "POST"),
    ("/auth/refresh", "POST"),
    ("/auth/jwks.json", "GET"),
    ("/openapi.json", "GET"),
}
BEARER = {("/auth/me", "GET"), ("/auth/tenant", "POST"), ("/auth/logout", "POST")}
SIGNED_IN = {
    ("/dashboard", "GET"),
    ("/confirm", "GET"),
    ("/account", "GET"),
    ("/account/name", "POST"),
    ("/account/sessions/{id}/end", "POST"),
    ("/account/sessions/end_others", "POST"),
    ("/account/tenant", "POST"),
    ("/account/leave", "POST"),
    ("/account/address", "POST"),
    ("/account/address/code", "POST"),
    ("/account/data", "POST"),
    ("/account/delete", "POST"),
    ("/invitations", "GET"),
    ("/invitations/{id}/accept", "POST"),
    ("/invitations/{id}/decline", "POST"),
}
ADMINS = {
    ("/admin", "GET"),
    ("/admin/people", "POST"),
    ("/admin/people/import", "GET"),
    ("/admin/people/import", "POST"),
    ("/admin/people/{id}", "GET"),
    ("/admin/people/{id}/role", "POST"),
    ("/admin/people/{id}/disable", "POST"),
    ("/admin/people/{id}/enable", "POST"),
    ("/admin/people/{id}/sessions/{session}/end", "POST"),
    ("/admin/people/{id}/sign_out", "POST"),
    ("/admin/people/{id}/delete", "POST"),
    ("/admin/organisations", "GET"),
    ("/admin/organisations", "POST"),
    ("/admin/organisations/{id}/members", "POST"),
    ("/admin/organisations/{id}/delete", "POST"),
    ("/admin/roles", "GET"),
    ("/admin/roles", "POST"),
    ("/admin/roles/delete", "POST"),
    ("/admin/overview", "GET"),
    ("/admin/audit", "GET"),
    ("/admin/audit.csv", "POST"),
    ("/admin/mail", "GET"),
    ("/admin/mail/pause", "POST"),
    ("/admin/mail/resume", "POST"),
    ("/admin/mail/{id}/retry", "POST"),
    ("/admin/mail/{id}/drop", "POST"),
}
# Admins of the site, and of this one organisation those who run it.
RUNNERS = {
    ("/admin/organisations/{id}", "GET"),
    ("/admin/organisations/{id}/name", "POST"),
    ("/admin/organisations/{id}/people/{user}", "GET"),
    ("/admin/organisations/{id}/people/{user}/role", "POST"),
    ("/admin/organisations/{id}/people/{user}/remove", "POST"),
    ("/admin/organisations/{id}/invitations", "GET"),
    ("/admin/organisations/{id}/invitations", "POST"),
    ("/admin/organisations/{id}/invitations/{invitation}/again", "POST"),
    ("/admin/organisations/{id}/invitations/{invitation}/withdraw", "POST"),
    ("/admin/organisations/{id}/audit", "GET"),
    ("/admin/organisations/{id}/audit.csv", "POST"),
}
MODES = {
    "plain": {"Accept": "text/html"},
    "htmx": {"Accept": "text/html", "HX-Request": "true", "HX-Current-URL": f"{BASE_URL}/account"},
    "json": {"Accept": "application/json"},
}


def every_route(app):
    return {
        (route.path, method)
        for route in app.routes
        if not isinstance(route, Mount)
        for method in set(route.methods) - {"HEAD"}
    }


# ---- a town of two organisations with the same in each
@pytest.fixture
def town(house):
    rules, people = house.auth.organisations, house.auth.people
    for address in (ANN, ABE, BEA, BEN, DAN):
        house.add(address)
    alpha = rules.create(None, "Alpha club", ANN, Source())
    bravo = rules.create(None, "Bravo club", BEA, Source())
    rules.join(None, alpha.id, ABE, "user", Source())
    rules.join(None, bravo.id, BEN, "user", Source())
    id = {address: people.by_address(address).id for address in (ANN, ABE, BEA, BEN, DAN, ADMIN)}
    return SimpleNamespace(house=house, alpha=alpha.id, bravo=bravo.id, id=id)


def send(door, method, path, mode="plain", more=None, **form):
    headers = OURS | MODES[mode] | (more or {})
    return door.client.request(method, path, headers=headers, data=form or None)


def active_admins(house):
    return [r for r in house.rows("users") if r["role"] == "admin" and r["disabled_at"] is None]


def club_admins(house, id):
    active = {row["id"] for row in house.rows("users") if row["disabled_at"] is None}
    members = [row for row in house.rows("memberships") if row["tenant_id"] == id]
    return {r["user_id"] for r in members if r["role"] == "admin" and r["user_id"] in active}


# ---- H4
def test_H4_every_route_says_who_may_ask(house):
    tables = [PUBLIC, BEARER, SIGNED_IN, ADMINS, RUNNERS]
    assert sum(map(len, tables)) == len(set().union(*tables))
    assert every_route(house.app) == set().union(*tables)


def strangers(town):
    """Doors that are nobody's: {name: (door, headers that it sends along)}."""
    house = town.house
    disabled, program = entered(house, DAN), house.program()
    house.auth.people.disable(None, town.id[DAN], Source())
    program.sign_in(ADMIN)
    token = {"Authorization": f"Bearer {program.access_token}"}
    forged = house.door()
    forged.client.cookies.set("__Host-session", "A" * 43)
    return {
        "nobody": (house.door(), {}),
        "who was disabled": (disabled, {}),
        "an admin's program": (house.door(), token),
        "a made-up cookie": (forged, {}),
    }


@pytest.mark.parametrize("mode", MODES)
def test_H4_strangers_are_led_to_the_door(town, mode):
    house = town.house
    doors = strangers(town)
    before = snapshot(house.db)
    for name, (door, more) in doors.items():
        for path, method in sorted(SIGNED_IN | ADMINS | RUNNERS):
            asked = fill(path, town.id[ABE])
            answer = send(door, method, asked, mode, more, sure="yes", email=DAN, role="admin")
            what = (name, method, path, answer.status_code)
            if mode == "json":
                assert answer.status_code == 401, what
                assert answer.headers["content-type"] == "application/problem+json", what
                assert answer.json()["code"] == "unauthorized", what
            elif mode == "htmx":
                assert answer.status_code == 200 and not answer.content, what
                assert answer.headers["hx-redirect"] == "/login?next=/account", what
            else:
                back = method == "GET" and path != "/confirm"  # which is no place to come back to
                wanted = f"/login?next={asked}" if back else "/login"
                assert answer.status_code == 303 and answer.headers["location"] == wanted, what
        assert snapshot(house.db) == before, name


def test_H4_without_a_token_programs_are_strangers(town, admin):
    before = snapshot(town.house.db, but=SEEN)
    for door in (town.house.door(), admin):  # a cookie means nothing there
        for path, method in BEARER:
            answer = door.client.request(method, path, headers=OURS, json={"tenant": town.alpha})
            assert answer.status_code == 401 and answer.json()["code"] == "invalid_token", path
    assert snapshot(town.house.db, but=SEEN) == before


@pytest.mark.parametrize("mode", MODES)
def test_H4_only_admins_of_the_site_open_its_pages(town, mode):
    house = town.house
    doors = {"a person": entered(house, ABE), "who runs an organisation": entered(house, ANN)}
    doors["who runs it, from a fresh page"] = entered(house, ANN)
    before = snapshot(house.db, but=SEEN)
    for name, door in doors.items():
        own_part = {("/admin", "GET")} if door is not doors["a person"] else set()
        for path, method in sorted(ADMINS - own_part | (set() if own_part else RUNNERS)):
            asked = fill(path, town.alpha)
            for verb in (method, "HEAD") if method == "GET" and mode == "plain" else (method,):
                answer = send(door, verb, asked, mode, sure="yes", email=DAN, role="admin")
                what = (name, verb, path, answer.status_code)
                if mode == "json":
                    assert answer.status_code == 403, what
                    assert answer.headers["content-type"] == "application/problem+json", what
                else:
                    assert answer.status_code == 303, what
                    assert answer.headers["location"] == "/no_access_right", what
        assert door.signed_in
        for path, method in own_part:
            answer = send(door, method, path, mode)
            where = answer.headers.get("hx-redirect" if mode == "htmx" else "location")
            assert where == (f"/admin/organisations/{town.alpha}" if mode != "json" else None)
            assert answer.status_code == {"plain": 303, "htmx": 200, "json": 403}[mode]
    assert snapshot(house.db, but=SEEN) == before


ODD = [
    "",
    "0" * 32,
    "\0",
    "' or 1=1 --",
    "²",
    "é\N{GRINNING FACE}\u202e",
    "x" * 2500,
    "a\r\nSet-Cookie: b=1",
    "9" * 40,
    "1e999",
    "\x7f\x1b[31m",
]
FIELDS = (
    "q page sort kind days before state done seen next email name role description tenant zone"
    " timezone sure session user code token"
)


def test_H4_odd_parameters_are_no_fault_on_any_page(town, admin):
    house, people = town.house, len(town.house.rows("users"))
    for value in ODD:
        given = dict.fromkeys(FIELDS.split(), value)
        for path, method in sorted(SIGNED_IN | ADMINS | RUNNERS):
            there = town.alpha if "organisations" in path else town.id[ABE]
            for id in {quote(value, safe="") or "x", there} if "{" in path else {""}:
                url, mode = fill(path, id), "htmx" if len(value) % 2 else "plain"
                headers = OURS | MODES[mode]
                ask = admin.client.request
                if method == "GET":
                    answer = ask("GET", url, headers=headers, params=given)
                else:
                    answer = ask("POST", url, headers=headers, params=given, data=given)
                assert answer.status_code < 500, (method, url[:80], value[:20], answer.status_code)
    # Bytes that are no UTF-8, in a body and in a query.
    raw, kind = b"&".join(n.encode() + b"=%ED%A0%80\xff%FF" for n in FIELDS.split()), "Content-Type"
    for path, method in sorted(SIGNED_IN | ADMINS | RUNNERS):
        url = f"{fill(path, town.id[ABE])}?{raw.replace(bytes([255]), b'%FE').decode()}"
        form = OURS | {kind: "application/x-www-form-urlencoded"}
        answer = admin.client.request(method, url, headers=form, content=raw)
        assert answer.status_code < 500, (method, path)
    assert admin.signed_in and len(house.rows("users")) == people


# ---- H1
def test_H1_the_last_admin_of_the_site_stays_by_every_way(house, admin):
    people, oneself = house.auth.people, house.auth.signin
    me = people.by_address(ADMIN)
    second = house.add(SECOND, "admin")
    was = entered(house, SECOND)
    people.disable(None, second.id, Source())  # an admin who can't come in runs nothing
    house.auth.organisations.create(None, "Alpha club", ADMIN, Source())
    people.put_role(None, "editor", "", Source())
    before = snapshot(house.db, but=SEEN)
    path = f"/admin/people/{me.id}"
    for mode in ("plain", "htmx"):
        for way, form in (
            (f"{path}/role", {"role": "user"}),
            (f"{path}/role", {"role": "editor"}),
            (f"{path}/disable", {}),
            (f"{path}/delete", {"sure": "yes"}),
            ("/account/delete", {"sure": "yes"}),
            ("/admin/roles/delete", {"name": "admin"}),
        ):
            answer = send(admin, "POST", way, mode, **form)
            assert answer.status_code == 422 and 'role="alert"' in answer.text, (mode, way)
    for reason, act, *given in (
        ("last_admin", people.set_role, None, me.id, "user"),
        ("last_admin", people.set_role, None, me.id, "editor"),
        ("last_admin", people.disable, None, me.id),
        ("last_admin", people.delete, None, me.id),
        ("last_admin", oneself.delete, me),
        ("not_admin", people.set_role, second, me.id, "user"),
        ("not_admin", people.disable, second, me.id),
        ("not_admin", people.delete, second, me.id),
        ("role_used", people.delete_role, None, "admin"),
    ):
        assert refused(act, *given, Source()) == reason, (act, given)
    assert was.post(f"{path}/disable").headers["location"] == "/login"
    assert snapshot(house.db, but=SEEN) == before and admin.signed_in
    # With a second one who is there, each is possible.
    people.enable(None, second.id, Source())
    assert refused(people.set_role, None, me.id, "user", Source()) == "done"
    assert [row["id"] for row in active_admins(house)] == [second.id]


def test_H1_the_last_admin_of_an_organisation_stays_by_every_way(town, admin):
    house, club = town.house, town.alpha
    people, rules, oneself = house.auth.people, house.auth.organisations, house.auth.signin
    ann = people.by_address(ANN)
    rules.join(None, club, DAN, "admin", Source())
    people.disable(None, town.id[DAN], Source())
    own, path = entered(house, ANN), f"/admin/organisations/{club}"
    before = snapshot(house.db, but=SEEN)
    for mode in ("plain", "htmx"):
        for door, way, form in (
            (admin, f"{path}/people/{ann.id}/role", {"role": "user"}),
            (admin, f"{path}/people/{ann.id}/remove", {"sure": "yes"}),
            (own, f"{path}/people/{ann.id}/role", {"role": "user"}),
            (own, f"{path}/people/{ann.id}/remove", {"sure": "yes"}),
            (admin, f"/admin/people/{ann.id}/disable", {}),
            (admin, f"/admin/people/{ann.id}/delete", {"sure": "yes"}),
            (own, "/account/leave", {"tenant": club, "sure": "yes"}),
            (own, "/account/delete", {"sure": "yes"}),
        ):
            answer = send(door, "POST", way, mode, **form)
            assert answer.status_code == 422 and "last admin of the org" in answer.text, (mode, way)
    for act, *given in (
        (rules.join, None, club, ANN, "user"),
        (rules.leave, None, club, ANN),
        (rules.remove, None, club, ann.id),
        (people.disable, None, ann.id),
        (people.delete, None, ann.id),
        (oneself.leave, ann, club),
        (oneself.delete, ann),
    ):
        assert refused(act, *given, Source()) == "last_tenant_admin", (act, given)
    assert snapshot(house.db, but=SEEN) == before and own.signed_in
    # Where another one runs it, each is possible.
    rules.join(None, club, ABE, "admin", Source())
    assert send(own, "POST", "/account/leave", tenant=club, sure="yes").status_code == 303
    assert club_admins(house, club) == {town.id[ABE]}


@pytest.mark.parametrize("way", ["disable", "delete", "leave", "own account"])
def test_H1_an_organisation_of_disabled_people_keeps_its_admin(town, way):
    """Or whoever is enabled later is in one that nobody runs."""
    house, club = town.house, town.alpha
    ann, abe = (house.auth.people.by_address(a) for a in (ANN, ABE))
    house.auth.people.disable(None, abe.id, Source())
    acts = {
        "disable": lambda: house.auth.people.disable(None, ann.id, HERE),
        "delete": lambda: house.auth.people.delete(None, ann.id, HERE),
        "leave": lambda: house.auth.signin.leave(ann, club, HERE),
        "own account": lambda: house.auth.signin.delete(ann, HERE),
    }
    assert refused(acts[way]) == "last_tenant_admin"
    house.auth.people.enable(None, abe.id, Source())
    assert club_admins(house, club) == {ann.id}


DUEL = (  # what one admin of the site does to the other, or to themselves
    lambda house, me, other: house.auth.people.set_role(me, other.id, "user", HERE),
    lambda house, me, other: house.auth.people.disable(me, other.id, HERE),
    lambda house, me, other: house.auth.people.delete(me, other.id, HERE),
    lambda house, me, other: house.auth.signin.delete(me, HERE),
)


def test_H1_two_admins_against_each_other_leave_one(build):
    houses = build(), build()
    people = houses[0].auth.people
    for n in range(100):
        people.ensure_admins((ADMIN, SECOND))  # as at a start
        two = people.by_address(ADMIN), people.by_address(SECOND)
        ways = DUEL[n % 4], DUEL[n // 4 % 4]

        def act(i, two=two, ways=ways):
            return refused(ways[i], houses[i], two[i], two[1 - i])

        ended = together(2, act)
        assert len(active_admins(houses[0])) >= 1, (n, ended)
        assert "done" in ended, (n, ended)
        if ways[0] is ways[1]:
            assert ended.count("done") == 1, (n, ended)


QUARREL = (
    lambda house, me, other, id: house.auth.signin.leave(me, id, HERE),
    lambda house, me, other, id: house.auth.organisations.join(
        None, id, other.address, "user", HERE
    ),
    lambda house, me, other, id: house.auth.signin.delete(me, HERE),
    lambda house, me, other, id: house.auth.organisations.leave(None, id, other.address, HERE),
    lambda house, me, other, id: house.auth.people.disable(None, other.id, HERE),
)


def test_H1_two_admins_of_an_organisation_against_each_other_leave_one(build):
    houses = build(), build()
    people, rules = houses[0].auth.people, houses[0].auth.organisations
    houses[0].add(ABE)
    for n in range(100):
        for address in (ANN, BEA):
            if refused(people.by_address, address) != "done":
                houses[0].add(address)
        two = people.by_address(ANN), people.by_address(BEA)
        for user in two:
            people.enable(None, user.id, Source())
        id = rules.create(None, "Club", ANN, Source()).id
        rules.join(None, id, BEA, "admin", Source())
        rules.join(None, id, ABE, "user", Source())  # somebody would be left behind
        ways = QUARREL[n % 5], QUARREL[n // 5 % 5]

        def act(i, two=two, ways=ways, id=id):
            return refused(ways[i], houses[i], two[i], two[1 - i], id)

        ended = together(2, act)
        assert len(club_admins(houses[0], id)) >= 1, (n, ended)
        assert "done" in ended, (n, ended)
        rules.delete(None, id, Source())


# ---- H2
SPELLINGS = (
    "role Role ROLE roles role[] roles[] role[0] user.role user[role] users.role session.role"
    " session[role] auth.role tenant_role tenant[role] membership.role memberships[0][role]"
    " site_role new_role _role role_ rôle user_role scope group groups permissions"
)
PROMOTIONS = dict.fromkeys(SPELLINGS.split(), "admin")
PROMOTIONS |= dict.fromkeys(("is_admin", "admin", "isAdmin", "superuser", "is_staff"), "true")
TRICKS = {  # beside the body
    "X-Role": "admin",
    "Role": "admin",
    "X-User-Role": "admin",
    "X-Forwarded-User": ADMIN,
    "X-Remote-User": ADMIN,
    "X-Original-URL": "/admin",
    "X-Rewrite-URL": "/admin",
    "X-HTTP-Method-Override": "GET",
}


def ranks(house):
    return (
        sorted((r["address"], r["role"]) for r in house.rows("users")),
        sorted((r["tenant_id"], r["user_id"], r["role"]) for r in house.rows("memberships")),
    )


@pytest.mark.parametrize("address", [ABE, ANN])
def test_H2_nobody_promotes_themselves_on_any_route(town, address):
    house = town.house
    door, program, own = entered(house, address), house.program(), town.id[address]
    program.sign_in(address)
    before, own_part = ranks(house), f"/admin/organisations/{town.alpha}"
    for path, method in sorted(every_route(house.app)):
        mine = {"id": own, "user": own, "email": address, "tenant": "", "name": "A", "zone": "UTC"}
        url, given = fill(path, own), PROMOTIONS | mine
        program_too = path.startswith(house.auth.programs)
        bearer = {"Authorization": f"Bearer {program.access_token}"}
        for headers, sent in (
            (OURS, {"data": given}),
            (OURS, {"data": given, "params": given}),
            (OURS | TRICKS | MODES["htmx"], {"data": given | {"role": "Admin"}}),
            (OURS | MODES["json"], {"json": given | {"user": {"role": "admin"}}}),
            (OURS | {"Cookie": "role=admin; session=admin; is_admin=1"}, {"data": given}),
            *([(bearer, {"json": given})] if program_too else []),
        ):
            answer = door.client.request(method, url, headers=headers, **sent)
            assert answer.status_code < 500, (method, path)
            assert ranks(house) == before, (method, path)
        house.clock.advance(1)
        house.outbox.drain()
        if not door.signed_in:  # a way out was among them
            door.sign_in(address)
        if not program.signed_in:
            program.sign_in(address)
        # Nor does the session say so.
        theirs = {"/no_access_right", *([own_part] if address == ANN else [])}
        assert door.get("/admin").headers.get("location") in theirs, (method, path)
        user = program.get("/auth/me").json()["user"]
        assert user["role"] == ("admin" if address == ANN and user["tenant"] else "user")


def test_H2_an_admin_does_not_change_their_own_role(house, admin):
    house.add(SECOND, "admin")  # not the last one
    house.auth.people.put_role(None, "editor", "", Source())
    me = house.auth.people.by_address(ADMIN)
    for role, status in (("user", 422), ("editor", 422), ("emperor", 422), ("", 422)):
        answer = admin.post(f"/admin/people/{me.id}/role", role=role)
        assert answer.status_code == status, role
    for act in (house.auth.people.disable, house.auth.people.delete):
        assert refused(act, me, me.id, HERE) in ("disable_self", "delete_self")
    assert house.auth.people.by_address(ADMIN) == me


@pytest.mark.parametrize("act", ["role", "disable", "enable", "delete", "sign_out"])
def test_H2_who_runs_an_organisation_has_no_say_over_people(town, act):
    house = town.house
    door, before = entered(house, ANN), snapshot(house.db, but=SEEN)
    ann = house.auth.people.by_address(ANN)
    for id in town.id.values():
        answer = door.post(f"/admin/people/{id}/{act}", role="admin", sure="yes")
        assert answer.headers["location"] == "/no_access_right"
        given = ("admin",) if act == "role" else ()
        rule = getattr(house.auth.people, "set_role" if act == "role" else act)
        assert refused(rule, ann, id, *given, HERE) == "not_admin"
    assert snapshot(house.db, but=SEEN) == before


# ---- H3
KEYS = {
    "users": ("id",),
    "sessions": ("id",),
    "tenants": ("id",),
    "memberships": ("tenant_id", "user_id"),
    "roles": ("name",),
    "invitations": ("id",),
    "devices": ("id",),
}


def stored(house):
    """{table: {key: row}} of what could be assigned to."""
    return {
        table: {tuple(row[k] for k in key): row for row in house.rows(table)}
        for table, key in KEYS.items()
    }


def difference(before, after):
    """("users.role" for a changed column, "users +" and "users -" for rows; the new rows)."""
    changes, fresh = set(), []
    for table in KEYS:
        old, new = before[table], after[table]
        fresh += [new[key] for key in new.keys() - old.keys()]
        changes |= {f"{table} +"} if new.keys() - old.keys() else set()
        changes |= {f"{table} -"} if old.keys() - new.keys() else set()
        for key in old.keys() & new.keys():
            changes |= {f"{table}.{c}" for c in old[key] if old[key][c] != new[key][c]}
    return changes - {"sessions.seen_at"}, fresh


def poison(town):
    """Each column that there is, with what somebody would like to have in it."""
    columns = {c for rows in stored(town.house).values() for row in rows.values() for c in row}
    assert {"id", "role", "tenant_id", "disabled_at", "expires_at", "verifier"} <= columns
    wanted = dict.fromkeys(columns, "poison")
    wanted |= {c: "7777777777" for c in columns if c.endswith("_at")}
    wanted |= {"id": town.id[BEN], "user_id": town.id[BEN], "role": "admin", "app": "7"}
    wanted |= {"tenant": town.bravo, "tenant_id": town.bravo, "generation": "77"}
    wanted |= {"address": "poison@example.org", "data": '{"role": "poison"}', "name": "poison"}
    return wanted | {"is_admin": "1", "email_verified": "1", "users.role": "admin"}


POISON = {"poison", "7777777777", 7777777777, "poison@example.org", '{"role": "poison"}', 77}
ENDS = {"sessions -", "devices -"}
ARRIVAL = {"sessions +", "sessions -", "devices.verifier", "devices.previous"} | {
    "devices.generation",
    "devices.rotated_at",
    "devices.expires_at",
    "users.signed_in_at",
    "devices +",
    "users.activated_at",
}


class Poisoner:
    """Posts forms with each column beside their fields, and looks at what became of the rows."""

    def __init__(self, town):
        self.town, self.done = town, set()
        self.bravo = belongings(town)

    def post(self, door, path, allowed, *ids, json_too=True, **form):
        """`allowed`: what the route is for; it has to happen, or nothing was tested."""
        house, parts = self.town.house, iter(ids)
        url = re.sub(r"\{[^}]+\}", lambda _: next(parts), path)
        given = poison(self.town) | form
        if json_too:  # what is no form of ours counts as an empty one, or as none
            before = stored(house)
            door.client.post(url, headers=OURS, json=given | {"sure": ""})
            changes, fresh = difference(before, stored(house))
            assert changes <= {"sessions.tenant"} and not fresh, (path, changes)
        before = stored(house)
        answer = door.client.post(url, headers=OURS, data=given, params=poison(self.town))
        assert answer.status_code in (200, 303), (path, answer.status_code, answer.text[-2000:])
        changes, fresh = difference(before, stored(house))
        assert changes <= set(allowed), (path, changes)
        assert bool(changes) == bool(allowed), path
        for row in fresh:
            runs = path == "/admin/organisations" and "tenant_id" in row  # its first member
            bad = POISON | {self.town.id[BEN], self.town.bravo} | (set() if runs else {"admin"})
            assert not {c: v for c, v in row.items() if v in bad}, (path, row)
        assert belongings(self.town) == self.bravo, path
        self.done.add(path)
        return answer


def belongings(town, club="bravo", people=(BEA, BEN)):
    """All rows of one organisation and its people."""
    house, id = town.house, getattr(town, club)
    own = {town.id[address] for address in people}
    rows = [r for r in house.rows("tenants") if r["id"] == id]
    rows += [r for r in house.rows("users") if r["id"] in own]
    for table in ("memberships", "sessions", "devices"):
        rows += [r for r in house.rows(table) if r["user_id"] in own or r.get("tenant_id") == id]
    return sorted(repr(sorted((k, v) for k, v in row.items() if k != "seen_at")) for row in rows)


def own_session(house, address, but=()):
    id = house.auth.people.by_address(address).id
    found = [r["id"] for r in house.rows("sessions") if r["user_id"] == id]
    return next(iter(set(found) - set(but)))


def test_H3_forms_change_what_they_are_for_and_nothing_else(town, admin):
    house = town.house
    entered(house, BEN), entered(house, BEA)
    people, poisoner = house.auth.people, Poisoner(town)
    post = poisoner.post
    vic = house.add(VIC)
    entered(house, VIC), entered(house, VIC)
    post(admin, "/admin/people", ["users +"], email="new@example.org", role="user", name="New")
    listed = {"text": "newer@example.org", "tenant": "", "role": "user"}
    post(admin, "/admin/people/import", ["users +"], sure="yes", **listed)
    row = next(r for r in house.rows("users") if r["address"] == "new@example.org")
    assert (row["role"], row["name"], row["created_at"]) == ("user", "New", house.clock())
    assert row["activated_at"] is row["disabled_at"] is row["signed_in_at"] is None
    post(admin, "/admin/roles", ["roles +"], name="editor", description="Writes")
    path = "/admin/people/{id}"
    post(admin, f"{path}/role", ["users.role"], vic.id, role="editor")
    post(admin, f"{path}/role", ["users.role"], vic.id, role="user")
    one = own_session(house, VIC)
    post(admin, f"{path}/sessions/{{session}}/end", ["sessions -"], vic.id, one, json_too=False)
    post(admin, f"{path}/sign_out", ENDS, vic.id, json_too=False)
    post(admin, f"{path}/disable", ["users.disabled_at"], vic.id, json_too=False)
    assert people.by_address(VIC).disabled_at == house.clock()
    post(admin, f"{path}/enable", ["users.disabled_at"], vic.id, json_too=False)
    path = "/admin/organisations"
    post(admin, path, ["tenants +", "memberships +"], name="Go club", email=VIC)
    club = next(r["id"] for r in house.rows("tenants") if r["name"] == "Go club")
    post(admin, f"{path}/{{id}}/name", ["tenants.name"], club, name="Chess club")
    post(admin, f"{path}/{{id}}/members", ["memberships +"], club, email=ABE, role="user")
    asked = f"{path}/{{id}}/invitations"
    post(admin, asked, ["invitations +", "users +"], club, email=PAT, role="user")
    id = house.rows("invitations")[0]["id"]
    house.clock.advance(1)
    times = ["invitations.created_at", "invitations.expires_at"]
    post(admin, f"{asked}/{{invitation}}/again", times, club, id, json_too=False)
    gone = ["invitations.state"]
    post(admin, f"{asked}/{{invitation}}/withdraw", gone, club, id, json_too=False)
    member = f"{path}/{{id}}/people/{{user}}"
    post(admin, f"{member}/role", ["memberships.role"], club, town.id[ABE], role="editor")
    post(admin, f"{member}/remove", ["memberships -"], club, town.id[ABE], sure="yes")
    post(admin, f"{path}/{{id}}/audit.csv", (), club)
    gone = ["tenants -", "memberships -", "invitations -"]
    post(admin, f"{path}/{{id}}/delete", gone, club, sure="yes")
    post(admin, "/admin/people/{id}/delete", ["users -"], vic.id, sure="yes")
    post(admin, "/admin/roles/delete", ["roles -"], name="editor")
    post(admin, "/admin/audit.csv", ())
    house.door().ask(ABE)
    for act in ("pause", "resume", "{id}/retry", "{id}/drop"):
        waiting = next(r["id"] for r in house.rows("outbox") if r["state"] == "queued")
        post(admin, f"/admin/mail/{act}", (), *([waiting] if "{" in act else []), sure="yes")
    assert poisoner.done == {path for path, method in ADMINS | RUNNERS if method == "POST"}


@pytest.mark.parametrize("role", ["user", "admin"])
def test_H3_ones_own_forms_change_what_they_are_for_and_nothing_else(town, role):
    house, rules = town.house, town.house.auth.organisations
    entered(house, BEN), entered(house, BEA)
    pat = house.add(PAT, role)
    poisoner = Poisoner(town)
    post = poisoner.post
    for name in ("Go club", "Chess club"):
        club = rules.create(None, name, ADMIN, Source()).id
        rules.join(None, club, PAT, "user", Source())
    door, others = entered(house, PAT), [entered(house, PAT) for _ in range(2)]
    changes = ["users.name", "users.sought", "users.timezone", "users.zone_chosen"]
    post(door, "/account/name", changes, name="Pat", zone="Asia/Tokyo")
    other = re.search(r"/account/sessions/([0-9a-f]{32})/end", door.get("/account").text)[1]
    post(door, "/account/sessions/{id}/end", ["sessions -"], other, json_too=False)
    post(door, "/account/sessions/end_others", ["sessions -"], json_too=False)
    assert not any(other.signed_in for other in others)
    post(door, "/account/tenant", ["sessions.tenant"], tenant=club)
    for act, more in (("accept", ["memberships +"]), ("decline", [])):
        asks = rules.create(None, f"Club that asks to {act}", ADMIN, Source()).id
        house.auth.inviting.invite(None, asks, PAT, "user", Source())
        (id,) = [r["id"] for r in house.rows("invitations") if r["tenant_id"] == asks]
        what = ["invitations.state", *more]
        post(door, f"/invitations/{{id}}/{act}", what, id, json_too=False)
    post(door, "/account/leave", ["memberships -"], tenant=club, sure="yes")
    post(door, "/account/data", (), json_too=False)
    post(door, "/create_code", (), email=PAT, next="/account")
    house.clock.advance(61)
    post(door, "/resend_code", (), json_too=False)
    post(door, "/verify_code", ARRIVAL, code=door.read_code())
    post(door, "/create_code", (), email=PAT, next="/account")
    house.outbox.drain()
    post(door, "/link", ARRIVAL, token=house.mailbox.latest_link(PAT))
    row = next(r for r in house.rows("users") if r["address"] == PAT)
    assert (row["role"], row["timezone"], row["id"]) == (role, "Asia/Tokyo", pat.id)
    post(door, "/logout", ["sessions -"], json_too=False)
    door.sign_in(PAT)
    post(door, "/logout_everywhere", ENDS, json_too=False)
    door.sign_in(PAT)
    moved = "pat@new.example"
    post(door, "/account/address", (), email=moved)
    house.outbox.drain()
    code = house.mailbox.latest_code(moved)
    post(door, "/account/address/code", ["users.address", "users.sought", "devices -"], code=code)
    house.outbox.drain()
    undo = re.search(r"/undo_address#(\w+)", house.mailbox.latest_letter(PAT).text)[1]
    post(door, "/undo_address", ["users.address", "users.sought", *ENDS], token=undo)
    door.sign_in(PAT)
    gone = {"users -", "memberships -", "invitations -"} | ENDS
    post(door, "/account/delete", gone, sure="yes")
    wanted = {path for path, method in PUBLIC | SIGNED_IN if method == "POST"}
    assert poisoner.done == {p for p in wanted if not p.startswith("/auth/")}


def test_H3_programs_that_send_a_column_are_refused(town):
    house, program = town.house, town.house.program()
    entered(house, BEN)  # or there would be tables without a row
    program.sign_in(ANN)
    program.ask(ANN)
    bodies = {
        "/auth/login": {"email": ANN},
        "/auth/verify": {
            "challenge": program.challenge,
            "device_secret": program.device_secret,
            "code": program.read_code(),
        },
        "/auth/refresh": {"refresh_token": program.refresh_token},
        "/auth/tenant": {"tenant": town.alpha},
    }
    assert {p for p, m in PUBLIC | BEARER if m == "POST" and p[:6] == "/auth/"} == {
        *bodies,
        "/auth/logout",
    }
    before = snapshot(house.db)
    for path, body in bodies.items():
        for column, value in (poison(town) | {"user": {"role": "admin"}, "roles": []}).items():
            if column in body:
                continue
            answer = program.post(path, **body, **{column: value})
            assert answer.status_code == 422, (path, column)
            assert answer.json()["code"] == "invalid_body"
        text = json.dumps(body)[:-1] + ', "role": "user", "role": "admin"}'
        headers = program._bearer() | {"Content-Type": "application/json"}
        assert program.client.post(path, content=text, headers=headers).status_code == 422
    assert snapshot(house.db) == before
    # The same bodies without them are good.
    for path in ("/auth/refresh", "/auth/tenant", "/auth/verify", "/auth/login"):
        assert program.post(path, **bodies[path]).status_code in (200, 202), path
    # A sign-out has no body: one that comes is not read.
    before = stored(house)
    assert program.post("/auth/logout", **poison(town)).status_code == 204
    assert difference(before, stored(house)) == ({"sessions -"}, [])


# ---- H5
def watch(house):
    """Pages of somebody's app, which say where the caller works."""

    @house.app.get("/whoami", before=signed_in)
    def whoami(auth, session):
        return {"tenant": auth.tenant, "role": auth.role, "center": session["center"]}

    @house.app.get("/run", before=role_required("admin"))
    def run_it(auth):
        return f"run {auth.tenant}"

    @house.app.get("/api/run", before=role_required("admin"))
    def run_api(auth):
        return {"tenant": auth.tenant}

    @house.app.get("/api/whoami", before=signed_in)
    def api_whoami(auth):
        return {"tenant": auth.tenant, "role": auth.role}


ID_FIELDS = (
    "id tenant tenant_id center organisation org club user user_id session session_id email sub sid"
    " q next name key ref"
)


@pytest.mark.parametrize("address", [ANN, ABE])
def test_H5_the_other_organisations_ids_open_nothing_on_any_route(town, address):
    house = town.house
    for other in (BEA, BEN):
        entered(house, other), house.program().sign_in(other)
    door, program = entered(house, address), house.program()
    program.sign_in(address)
    theirs = [town.bravo, town.id[BEA]]
    theirs += [r["id"] for r in house.rows("sessions") if r["user_id"] == town.id[BEN]]
    assert len(theirs) == 4
    before = belongings(town)
    for id in theirs:
        given = dict.fromkeys(ID_FIELDS.split(), id)
        planted = {"Cookie": f"tenant={id}; center={id}; session_id={id}; user={id}"}
        planted |= {"X-Tenant": id, "X-Tenant-Id": id, "X-User-Id": id, "X-Session-Id": id}
        for path, method in sorted(every_route(house.app)):
            headers = OURS | planted
            if path.startswith(house.auth.programs):
                headers |= {"Authorization": f"Bearer {program.access_token}"}
                named = {"tenant": id} if path == "/auth/tenant" else given
                sent, ask = {"json": named}, program.client
            else:
                cookie = f"__Host-session={door.cookie('session')}; {planted['Cookie']}"
                headers |= {"Cookie": cookie}
                sent, ask = {"data": given}, house.door().client
            sent = {} if method == "GET" else sent
            url = fill(path, id)
            answer = ask.request(method, url, headers=headers, params=given, **sent)
            what = (method, path, answer.status_code)
            assert answer.status_code < 500, what
            if "{" in path or path in ("/account/tenant", "/account/leave", "/auth/tenant"):
                no = answer.headers.get("location") == "/no_access_right"
                assert answer.status_code == 404 or (no and path.startswith("/admin/")), what
            assert not any(w in answer.text for w in ("Bravo", BEA, BEN)), what
            assert belongings(town) == before, what
            if not door.signed_in:  # /logout and its like were among them
                door.sign_in(address)
            if not program.signed_in:
                program.sign_in(address)


@pytest.mark.parametrize("address", [ANN, ABE])
def test_H5_only_ones_own_organisation_can_be_worked_in(town, address):
    house = town.house
    watch(house)
    door, program = entered(house, address), house.program()
    program.sign_in(address)
    role = {ANN: "admin", ABE: "user"}[address]
    before = belongings(town)

    def places():
        seen, called = door.get("/whoami").json(), program.get("/api/whoami").json()
        assert seen["center"] == seen["tenant"]
        return seen["tenant"], called["tenant"], called["role"]

    assert places() == (town.alpha, town.alpha, role)
    odd = [
        town.bravo,
        town.bravo.upper(),
        f" {town.bravo}",
        f"{town.bravo}\0",
        "*",
        "%",
        "' or 1=1",
    ]
    for wanted in (*odd, town.id[BEA], "null"):
        assert door.post("/account/tenant", tenant=wanted).status_code == 404, wanted
        assert door.post("/account/leave", tenant=wanted).status_code == 404, wanted
        answer = program.post("/auth/tenant", tenant=wanted)
        assert answer.status_code == 404 and answer.json()["code"] == "tenant_unknown", wanted
        assert places() == (town.alpha, town.alpha, role), wanted
    # Nor does anything beside the body count, at the sign-in or later.
    beside = {"params": {"tenant": town.bravo, "center": town.bravo}}
    headers = OURS | {"X-Tenant": town.bravo, "Tenant": town.bravo}
    own = {"tenant": town.alpha}
    assert door.client.post("/account/tenant", data=own, headers=headers, **beside).status_code
    both = [("tenant", town.alpha), ("tenant", town.bravo)]
    body = "&".join(f"{name}={value}" for name, value in both)
    form = headers | {"Content-Type": "application/x-www-form-urlencoded"}
    door.client.post("/account/tenant", content=body, headers=form)
    assert places()[0] in ("", town.alpha)  # two of one name count as none
    program.client.get("/auth/me", headers=program._bearer() | headers, **beside)
    again = program.client.post(
        "/auth/refresh", json={"refresh_token": program.refresh_token}, headers=headers, **beside
    ).json()
    assert again["user"]["tenant"] == town.alpha
    claims = again["access_token"].split(".")
    assert town.bravo not in program.get("/auth/me").text and len(claims) == 3
    assert belongings(town) == before


# ---- H6
def test_H6_who_is_removed_or_demoted_is_so_at_the_next_request(build):
    first = build()
    second = build(clock=first.clock, mailbox=first.mailbox)
    houses, rules = (first, second), first.auth.organisations
    for house in houses:
        watch(house)
    for address in (ANN, BEA):
        first.add(address)
    id = rules.create(None, "Alpha club", BEA, Source()).id

    def may(door, program):
        """Who runs it, by page, by htmx and by the API, in both processes: one answer for all."""
        found = set()
        for house in houses:
            for mode in ("plain", "htmx"):
                browser = house.door()
                browser.client.cookies.set("__Host-session", door.cookie("session"))
                answer = send(browser, "GET", "/run", mode)
                found.add(answer.status_code == 200 and f"run {id}" in answer.text)
                assert answer.status_code in (200, 303)
            app = house.program()
            app.access_token = program.access_token
            answer = app.get("/api/run")
            found.add(answer.status_code == 200 and answer.json()["tenant"] == id)
            assert answer.status_code in (200, 401, 403)
        assert len(found) == 1
        return found.pop()

    changes = (
        lambda: rules.join(None, id, ANN, "user", Source()),
        lambda: rules.leave(None, id, ANN, Source()),
        lambda: second.auth.organisations.leave(None, id, ANN, Source()),
        lambda: second.auth.organisations.join(None, id, ANN, "user", Source()),
    )
    for n, change in enumerate(changes):
        rules.join(None, id, ANN, "admin", Source())
        door, program = houses[n % 2].door(), houses[n // 2].program()
        door.sign_in(ANN)
        program.sign_in(ANN)
        assert may(door, program)
        change()
        assert not may(door, program), n
        token = program.refresh().json()["user"]
        assert (token["role"], token["tenant"]) == ("user", None if n in (1, 2) else id)


def test_H6_a_deleted_organisation_is_gone_at_the_next_request(town):
    house, door, program = town.house, entered(town.house, ANN), town.house.program()
    watch(house)
    program.sign_in(ANN)
    assert door.get("/run").status_code == program.get("/api/run").status_code == 200
    house.auth.organisations.delete(None, town.alpha, Source())
    assert door.get("/run").headers["location"] == "/no_access_right"
    assert program.get("/api/run").status_code == 401
    assert door.get("/whoami").json() == {"tenant": "", "role": "user", "center": ""}
    # One of the same name is another one.
    again = house.auth.organisations.create(None, "Alpha club", BEA, Source())
    assert again.id != town.alpha and door.get("/whoami").json()["tenant"] == ""
    assert program.get("/api/run").status_code == 401


def test_H6_an_admin_of_the_site_is_one_until_the_next_request(build):
    first = build()
    second = build(clock=first.clock, mailbox=first.mailbox)
    first.add(SECOND, "admin")
    id = first.auth.people.by_address(SECOND).id
    doors = {mode: entered(first, SECOND) for mode in MODES}
    pages = sorted(path for path, method in ADMINS if method == "GET" and "{" not in path)
    first.auth.people.set_role(None, id, "user", Source())
    before = snapshot(first.db, but=SEEN)
    for mode, door in doors.items():
        there = second.door()
        there.client.cookies.set("__Host-session", door.cookie("session"))
        for one in (door, there):
            for path in pages:
                assert send(one, "GET", path, mode).status_code == (403 if mode == "json" else 303)
            answer = send(one, "POST", "/admin/people", mode, email=VIC, role="admin")
            assert answer.status_code == (403 if mode == "json" else 303)
    assert snapshot(first.db, but=SEEN) == before


# ---- H9
@pytest.mark.parametrize("way", ["browser", "program", "link"])
def test_H9_the_first_person_of_an_empty_house_is_no_admin(build, way):
    house = build(SIGNUP="open", ADMIN_EMAILS="")
    assert house.rows("users") == []
    one = house.program() if way == "program" else house.door()
    if way == "link":
        one.ask(PAT)
        one.drain()
        one.post("/link", token=house.mailbox.latest_link(PAT))
    else:
        one.sign_in(PAT)
    assert one.signed_in
    (row,) = house.rows("users")
    assert (row["address"], row["role"], house.rows("memberships")) == (PAT, "user", [])
    if way == "program":
        assert one.get("/auth/me").json()["user"]["role"] == "user"
    else:
        for path, method in ADMINS:
            answer = send(one, method, fill(path, row["id"]), role="admin", sure="yes")
            assert answer.headers["location"] == "/no_access_right", path
    assert active_admins(house) == []


# ---- F7
@pytest.mark.parametrize("way", ["by an admin", "by themselves", "by command"])
def test_F7_who_is_deleted_and_added_again_is_somebody_new(town, admin, way):
    house, people = town.house, town.house.auth.people
    watch(house)
    people.put_role(None, "editor", "", Source())
    old = house.add(VIC, "editor", "Victoria")
    rules = house.auth.organisations
    rules.join(None, town.alpha, VIC, "admin", Source())
    door, other, program = entered(house, VIC), entered(house, VIC), house.program()
    program.sign_in(VIC)
    other.post("/account/name", name="Victoria", zone="Asia/Tokyo")
    access, refresh = program.access_token, program.refresh_token
    pending = house.door()
    pending.ask(VIC)
    code = pending.read_code()
    house.clock.advance(1)
    if way == "by an admin":
        admin.post(f"/admin/people/{old.id}/delete", sure="yes")
    elif way == "by themselves":
        door.post("/account/delete", sure="yes")
    else:
        people.delete(None, old.id, Source())
    assert refused(people.by_address, VIC) == "user_unknown"
    house.clock.advance(1)
    new = house.add(VIC)
    assert new.id != old.id and (new.name, new.role, new.timezone) == ("", "user", "UTC")
    assert new.activated_at is None
    for table in ("memberships", "sessions", "devices", "reviewers"):
        assert not [r for r in house.rows(table) if r["user_id"] in (old.id, new.id)], table
    assert (
        not other.signed_in
        and not door.signed_in
        and pending.enter(code).status_code
        in (
            410,
            422,
        )
    )
    for path in ("/auth/me", "/api/run", "/api/whoami"):
        assert program.get(path).status_code == 401, path
    assert program.refresh(refresh).status_code == 401 and program.access_token == access
    # Their own first sign-in: nothing of the old ones comes back, nor does the old ones' history.
    fresh = entered(house, VIC)
    assert fresh.get("/whoami").json() == {"tenant": "", "role": "user", "center": ""}
    assert "Alpha" not in fresh.get("/account").text
    kept = fresh.post("/account/data").json()
    assert kept["person"]["id"] == new.id and kept["memberships"] == []
    assert min(e["at"] for e in kept["events"]) >= new.created_at
    assert not any(one.signed_in for one in (door, other, program))


# ---- K10
class Provider(Mailbox):
    """Knows no recipient that is in `unknown`."""

    unknown = ()

    def deliver(self, message):
        if message.letter.to in self.unknown:
            raise replies.refused("rcpt", 550, "5.1.1 no such user here")
        return super().deliver(message)


def test_K10_each_act_writes_its_events_and_no_others(build):
    provider = Provider()
    house = build(mailbox=provider, SIGNUP="open", LIMIT_WRONG_PER_ACCOUNT="6/24h")
    people, rules, clock = house.auth.people, house.auth.organisations, house.clock
    told = set()
    who = {ADMIN: people.by_address(ADMIN).id, "": ""}

    @contextmanager
    def writes(*kinds, by=None, about=None):
        """Exactly these, now, by one who did it, with the network and the request that it came from."""
        before = {row["id"] for row in house.rows("events")}
        clock.advance(61)
        yield
        new = [row for row in house.rows("events") if row["id"] not in before]
        assert Counter(row["kind"] for row in new) == Counter(kinds)
        told.update(kinds)
        for row in new:
            assert row["at"] == int(clock()) and row["kind"] in events.KINDS
            if by is not None:
                assert row["actor"] == who[by] or row["kind"] == events.USER_CREATED, row
                assert row["network"] == "192.0.2.0/24" and len(row["request_id"]) == 16, row
            if about is not None:
                assert row["subject"] == about, row
        # Sorted by their ids they are in the order in which they happened.
        rows = sorted(house.rows("events"), key=lambda row: row["id"])
        assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)

    # ---- the door
    door = house.door()
    with writes("authn_code_requested", by="", about=PAT):
        door.ask(PAT)
    with writes("authn_code_requested", by="", about=PAT):
        door.post("/resend_code")
    code = door.read_code()
    wrong = f"{(int(code) + 1) % 10**6:06}"
    for _ in range(4):
        with writes("authn_login_fail", by="", about=PAT):
            door.enter(wrong)
    with writes():  # costs no try
        door.enter("12345")
        door.enter("")
    with writes("authn_login_fail_max", by="", about=PAT):
        door.enter(wrong)
    with writes():
        door.enter(code)
        house.door().enter(code)
    door.ask(PAT)
    with writes("authn_login_fail", "excess_rate_limit_exceeded", by="", about=PAT):
        door.enter(wrong)
    clock.advance(86400)
    with writes("authn_code_requested"):
        door.ask(PAT)
    with writes("user_created", "authn_login_success", about=PAT):
        door.enter(door.read_code())
    who[PAT] = people.by_address(PAT).id
    copy = house.door()
    selector = door.cookie("device")[:32]
    copy.client.cookies.set("__Host-device", selector + "A" * 43)
    with writes("authn_logout", by=PAT, about=PAT):
        door.post("/logout")
    with writes():
        door.post("/logout")
    with writes("authn_code_requested"):
        door.ask(PAT)
    door.drain()
    with writes("authn_login_success", by=PAT, about=PAT):
        door.post("/link", token=provider.latest_link(PAT))
    with writes("authn_device_ended", "authn_code_requested", by=""):
        copy.ask(PAT)
    with writes("authn_logout", by=PAT):
        door.post("/logout_everywhere")
    # ---- programs
    house.add(ANN)
    who[ANN] = people.by_address(ANN).id
    program = house.program()
    with writes("authn_code_requested", by="", about=ANN):
        program.ask(ANN)
    with writes("authn_login_success", by=ANN, about=ANN):
        program.enter(program.read_code())
    first = program.refresh_token
    with writes():
        program.refresh()
    with writes("authn_token_reuse", by=ANN, about=ANN):
        assert program.refresh(first).json()["code"] == "token_reused"
    program.sign_in(ANN)
    with writes():
        program.get("/auth/me")
        program.post("/auth/tenant", tenant="0" * 32)
    with writes("authn_logout", by=ANN):
        program.post("/auth/logout")
    # ---- admins: people
    admin = entered(house, ADMIN)
    with writes("user_created", about=VIC):
        admin.post("/admin/people", email=VIC)
    with writes():  # is there already; is none
        admin.post("/admin/people", email=VIC)
        admin.post("/admin/people", email="none")
    vic = people.by_address(VIC)
    path = f"/admin/people/{vic.id}"
    with writes("role_saved", by=ADMIN, about="editor"):
        admin.post("/admin/roles", name="editor")
    with writes("privilege_permissions_changed", by=ADMIN, about=VIC):
        admin.post(f"{path}/role", role="editor")
    with writes():
        admin.post(f"{path}/role", role="editor")
        admin.post(f"{path}/role", role="emperor")
        admin.post("/admin/roles/delete", name="editor")
        admin.post(f"/admin/people/{who[ADMIN]}/role", role="user")
    clock.advance(600)
    admin.sign_in(ADMIN)
    with writes("user_disabled", by=ADMIN, about=VIC):
        admin.post(f"{path}/disable")
    with writes("user_enabled", by=ADMIN, about=VIC):
        admin.post(f"{path}/enable")
    entered(house, VIC)
    session = own_session(house, VIC)
    with writes("authn_logout", by=ADMIN, about=VIC):
        admin.post(f"{path}/sessions/{session}/end")
    with writes("authn_logout", by=ADMIN, about=VIC):
        admin.post(f"{path}/sign_out")
    # ---- organisations
    with writes("tenant_created", "member_added", by=ADMIN):
        admin.post("/admin/organisations", name="Alpha club", email=ANN)
    club = house.rows("tenants")[0]["id"]
    path = f"/admin/organisations/{club}"
    with writes("tenant_renamed", by=ADMIN):
        admin.post(f"{path}/name", name="Beta club")
    with writes("member_added", by=ADMIN, about=VIC):
        admin.post(f"{path}/members", email=VIC, role="user")
    with writes():
        admin.post(f"{path}/members", email=VIC, role="user")
        admin.post(f"{path}/name", name="Beta club")
    with writes("privilege_permissions_changed", by=ADMIN, about=VIC):
        admin.post(f"{path}/people/{vic.id}/role", role="admin")
    with writes("privilege_permissions_changed", by=ADMIN, about=VIC):
        admin.post(f"{path}/people/{vic.id}/role", role="user")
    with writes():
        admin.post(f"{path}/people/{vic.id}/role", role="user")
        admin.post(f"{path}/people/{vic.id}/remove")  # asks whether one is sure
    with writes("invitation_sent", "user_created", by=ADMIN, about=BEN):
        admin.post(f"{path}/invitations", email=BEN, role="user")
    with writes():
        admin.post(f"{path}/invitations", email=VIC, role="user")
    (id,) = [row["id"] for row in house.rows("invitations")]
    with writes("invitation_sent", by=ADMIN, about=BEN):
        admin.post(f"{path}/invitations/{id}/again")
    with writes("invitation_withdrawn", by=ADMIN, about=BEN):
        admin.post(f"{path}/invitations/{id}/withdraw")
    who[BEN] = people.by_address(BEN).id
    ben, told_of = entered(house, BEN), ("invitation_accepted", "member_added")
    for act, kinds in (("decline", ["invitation_declined"]), ("accept", told_of)):
        admin.post(f"{path}/invitations", email=BEN, role="user")
        (id,) = [row["id"] for row in house.rows("invitations") if row["state"] == "open"]
        with writes(*kinds, by=BEN, about=BEN):
            ben.post(f"/invitations/{id}/{act}")
        with writes():
            ben.post(f"/invitations/{id}/{act}")
    with writes("user_created", about="listed@example.org"):
        admin.post("/admin/people/import", text="listed@example.org", sure="yes")
    with writes("member_removed", by=ADMIN, about=VIC):
        admin.post(f"{path}/people/{vic.id}/remove", sure="yes")
    with writes():
        admin.post(f"{path}/people/{vic.id}/remove", sure="yes")
        admin.post(f"{path}/people/{who[ANN]}/remove", sure="yes")
        admin.post(f"{path}/members", email="nobody@example.org", role="user")
    # ---- one's own account
    admin.sign_in(ADMIN)
    rules.join(None, club, ADMIN, "user", Source())
    others = [entered(house, ADMIN) for _ in range(2)]
    assert all(other.signed_in for other in others)
    with writes("user_updated", by=ADMIN, about=ADMIN):
        admin.post("/account/name", name="Boss", zone="UTC")
    dan, new = house.add(DAN), "dan@new.example"
    who[DAN], moving = dan.id, entered(house, DAN)
    with writes("user_address_asked", by=DAN, about=new):
        moving.post("/account/address", email=new)
    house.outbox.drain()
    with writes("user_address_changed", "user_address_changed", by=DAN):
        moving.post("/account/address/code", code=provider.latest_code(new))
    house.outbox.drain()
    undo = re.search(r"/undo_address#(\w+)", provider.latest_letter(DAN).text)[1]
    with writes("user_address_restored", "user_address_restored", by=""):
        moving.post("/undo_address", token=undo)
    with writes():
        moving.post("/undo_address", token=undo)
    with writes():
        admin.post("/account/tenant", tenant=club)
    with writes("member_removed", by=ADMIN, about=ADMIN):
        admin.post("/account/leave", tenant=club, sure="yes")
    own = re.search(r"/account/sessions/[0-9a-f]{32}/end", admin.get("/account").text)[0]
    with writes("authn_logout", by=ADMIN):
        admin.post(own)
    with writes("authn_logout_others", by=ADMIN):
        admin.post("/account/sessions/end_others")
    with writes("user_data_exported", by=ADMIN):
        admin.post("/account/data")
    with writes("user_data_exported", by=ADMIN):
        admin.post("/admin/audit.csv")
    with writes("user_data_exported", by=ADMIN):
        admin.post(f"/admin/organisations/{club}/audit.csv")
    with writes():  # the last one stays
        admin.post("/account/delete", sure="yes")
    pat = entered(house, PAT)
    with writes("user_deleted", by=PAT, about=PAT):
        pat.post("/account/delete", sure="yes")
    # ---- mail
    house.outbox.drain()
    for act, kind in (("pause", "paused"), ("resume", "resumed")):
        with writes(f"sys_mail_{kind}", by=ADMIN, about=""):
            admin.post(f"/admin/mail/{act}", sure="yes")
        with writes():  # it is so already
            admin.post(f"/admin/mail/{act}", sure="yes")
    house.door().ask(VIC)
    (waiting,) = [row["id"] for row in house.rows("outbox") if row["state"] == "queued"]
    with writes("sys_mail_retried", by=ADMIN, about=waiting):
        admin.post(f"/admin/mail/{waiting}/retry")
    with writes():
        admin.post(f"/admin/mail/{waiting}/drop")  # asks whether one is sure
    with writes("sys_mail_dropped", by=ADMIN, about=waiting):
        admin.post(f"/admin/mail/{waiting}/drop", sure="yes")
    provider.unknown = (VIC,)
    house.door().ask(VIC)
    with writes("sys_mail_bounced", about=VIC):
        house.outbox.drain()
    # ---- the ends, and who tests an app
    admin.sign_in(ADMIN)
    with writes("user_review_account", about="review@example.org"):
        people.add_reviewer(None, "review@example.org", 7, "192.0.2.0/24", Source())
    with writes("user_deleted", by=ADMIN, about=VIC):
        admin.post(f"/admin/people/{vic.id}/delete", sure="yes")
    with writes("tenant_deleted", by=ADMIN):
        admin.post(f"/admin/organisations/{club}/delete", sure="yes")
    with writes("role_deleted", by=ADMIN, about="editor"):
        admin.post("/admin/roles/delete", name="editor")
    ann = entered(house, ANN)
    with writes():  # who is refused by a guard is in the log, and not here
        answer = ann.post("/admin/people", email=BEN)
        assert answer.headers["location"] == "/no_access_right"
        for path, method in ADMINS:
            if method == "GET":
                admin.get(fill(path, who[ADMIN]))
    # ---- the operator's commands
    events.record(house.db, "0" * 32, 0, "user_created", "of@long.ago", Source())
    with writes("sys_events_purged", about=""):
        Retention(house.db, house.auth.signin.keys, clock).forget_events(90, no_bar)
    with writes("sys_restored", about=""), house.db.tx() as t:
        house.auth.signin.restored(t, int(clock()))
    assert told == set(events.KINDS)


# ---- a hundred thousand people
MANY = 100_000
SERIES = "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) "
CROWD = (  # SQL of both databases; 1 + i digits, so that text sorts as numbers do
    (
        "users (id, address, name, role, created_at, signed_in_at)",
        "'u' || (1000000 + i), 'p' || (1000000 + i) || '@example.org', 'Person ' || i, 'user',"
        " {now} - i, {now} - i * 60",
        MANY,
    ),
    ("tenants (id, name, created_at)", "'t' || (1000000 + i), 'Club ' || i, {now}", MANY // 20),
    (
        "memberships (tenant_id, user_id, role, created_at)",
        "case when i <= 5000 then 't1000001' else 't' || (1000002 + i % 4999) end,"
        " 'u' || (1000000 + i), case when i % 20 = 0 then 'admin' else 'user' end, {now}",
        MANY,
    ),
    (
        "events (id, at, kind, actor, subject, network)",
        "'{sorted}' || (1000000 + i), {now}, case when i % 50 = 0 then 'user_created' else"
        " 'authn_login_success' end, 'u' || (1000000 + i), 'p' || (1000000 + i) || '@example.org',"
        " '192.0.2.0/24'",
        MANY,
    ),
    (
        "sessions (id, token, user_id, created_at, seen_at, expires_at)",
        "'s' || i, 's' || i, 'u' || (1000000 + i), {now}, {now}, {now} + 86400",
        MANY // 5,
    ),
)


def fill_up(house):
    now = int(house.clock())
    facts = {"now": now, "sorted": house.auth.keys.sorts_from(now)}
    with house.db.tx(patient=True) as t:
        for into, values, many in CROWD:
            columns = values.format(**facts)
            t.script(f"insert into {into} {SERIES.format(many)} select {columns} from n")
    if type(house.db).__name__ == "PostgreSQL":  # which does so by itself
        house.db.q("analyze")


def scanned(house, sql, params):
    """The tables that a statement reads from end to end: no index leads to the rows, nor stops early."""
    if type(house.db).__name__ == "SQLite":
        steps = [r["detail"] for r in house.db.q(f"explain query plan {sql}", **params)]
        names = dict(re.findall(r"(?:from|join) (\w+) (\w+) (?:on|where|order|left|join)", sql))
        names = {alias: table for table, alias in names.items()}
        whole = [d.split()[1] for d in steps if d.startswith("SCAN ")]
        # In the order of an index, and no further than the page is long.
        early = " limit " in sql and not any("TEMP B-TREE" in d for d in steps)
        return set() if early else {names.get(t, t) for t in whole}
    found = set()

    def look(plan, early):
        early = early or plan["Node Type"] == "Limit"
        if plan["Node Type"] in ("Sort", "Hash", "Aggregate"):
            early = False  # they read all that is below
        if plan["Node Type"] == "Seq Scan" and not early:
            found.add(plan["Relation Name"])
        if plan["Node Type"] in ("Index Scan", "Index Only Scan") and "Index Cond" not in plan:
            found.update(() if early else {plan["Relation Name"]})
        for below in plan.get("Plans", ()):
            look(below, early)

    ((plan,),) = [row.values() for row in house.db.q(f"explain (format json) {sql}", **params)]
    look((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"], False)
    return found


PAGES = (
    "/admin",
    "/admin?page=3",
    "/admin?q=p1050000@",
    "/admin?q=nobody-at-all",
    "/admin/people/u1000001",
    "/admin/organisations",
    "/admin/organisations?q=club 77",
    "/admin/organisations/t1000077",
    "/admin/organisations/t1000001",
    "/admin/organisations/t1000001?page=40",
    "/admin/organisations/t1000077?sort=since",
    "/admin/organisations/t1000001?q=p1000050@",
    "/admin/organisations/t1000001/people/u1000001",
    "/admin/organisations/t1000001/audit",
    "/admin/organisations/t1000001/audit?days=all",
    "/admin/overview",
    "/admin/audit",
    "/admin/audit?days=all",
    "/admin/audit?kind=user_created",
    "/admin/audit?kind=user_created&days=all",
    "/admin/audit?q=p1050000@",
    "/admin/organisations/t1000001/invitations",
    "/invitations",
    "/dashboard",
    "/account",
)


FILLED = {"users", "tenants", "memberships", "events", "sessions"}
NUMBERS = "select count(*) as people"  # those above the list are of everybody
SEARCHED = {"users", "tenants", "events"}  # for any part of an address or a name


def test_a_hundred_thousand_people_are_read_by_index_but_for_a_search(house):
    fill_up(house)
    admin, q, asked = entered(house, ADMIN), house.db.q, set()
    for page in PAGES:
        heard = []

        def hearing(sql, heard=heard, **params):
            heard.append((sql, params))
            return q(sql, **params)

        house.db.q = hearing
        try:
            assert admin.get(page).status_code == 200, page
        finally:
            del house.db.q
        for sql, params in heard:
            allowed = {"users"} if sql.startswith(NUMBERS) else set()
            allowed |= SEARCHED if " like :like" in sql else set()
            allowed |= {"events"} if "group by at" in sql else set()  # all of two weeks
            assert scanned(house, sql, params) & FILLED <= allowed, (page, sql)
            asked.add(sql)
    assert len(asked) > 12
    # And the measure tells one from the other.
    assert scanned(house, "select * from users where name = :n", {"n": "x"}) == {"users"}
    assert scanned(house, "select * from users where id = :n", {"n": "x"}) == set()
