"""H: what whoever runs one organisation can learn of another one, or do to it.

On PostgreSQL these tests run as an ordinary user who owns the tables: a superuser would walk through the
second wall. What people of one role can do on any route is in test_h_roles.py.
"""

import ast
import csv
import inspect
import io
import itertools
import logging
import re
import uuid

import psycopg
import pytest
from starlette.routing import Mount

from auth import events, invitations, sessions, tenants
from auth.events import Source
from auth.policy import Refused
from auth.scope import scoped
from tests.attacks.test_d_browser import OURS, snapshot
from tests.attacks.test_h_roles import (
    ABE,
    ANN,
    BEA,
    BEN,
    DAN,
    HERE,
    MODES,
    PAT,
    RUNNERS,
    SEEN,
    club_admins,
    send,
    town,
)
from tests.conftest import ADMIN
from tests.reading import entered, refused
from tests.serving import ROOT, together
from tests.test_manage import commands

__all__ = ["town"]  # a fixture

only_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
NOBODYS = "f" * 32
# What tells whose a row is.
WALLED = {
    "tenants": "id",
    "memberships": "tenant_id",
    "invitations": "tenant_id",
    "events": "tenant",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """As everywhere, but nobody who is above the policies."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/vestibule.db"
        return
    uri, name = request.getfixturevalue("postgres"), f"u{uuid.uuid4().hex}"
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"create role {name} login")
        # Its search path leads to the schema of its own name.
        connection.execute(f"create schema authorization {name}")
    yield re.sub("//[^@]*@", f"//{name}:@", uri)
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"drop owned by {name} cascade")
        connection.execute(f"drop role {name}")


@pytest.fixture
def mirrored(town):
    """The town with the same in each organisation: invitations and events, too."""
    house = town.house
    town.invitation = {}
    for name, guest in (("alpha", DAN), ("bravo", ADMIN)):
        id, user, now = house.auth.keys.new_id(), town.id[guest], int(house.clock())
        tenant = getattr(town, name)
        row = id, tenant, user, guest, "user", "", now, now + 86400
        town.invitation[name] = invitations.put(house.db, *row)
        house.auth.organisations.rename(None, tenant, f"{name.title()} club!", HERE)
    return town


def there(house, id):
    """All that is an organisation's."""
    own = {row["user_id"] for row in house.rows("memberships") if row["tenant_id"] == id}
    found = [row for row in house.rows("tenants") if row["id"] == id]
    found += [row for row in house.rows("users") if row["id"] in own]
    for table in ("memberships", "invitations", "events"):
        found += [
            row for row in house.rows(table) if id in (row.get("tenant_id"), row.get("tenant"))
        ]
    return sorted(repr(sorted(row.items())) for row in found)


# ---- H5: every route, every id
def ids(town, club, people):
    """What may stand in a path, by the part of it before: {part: [of this organisation]}."""
    house = town.house
    own = [town.id[address] for address in people]
    return {
        "organisations": [getattr(town, club)],
        "people": own,
        "sessions": [r["id"] for r in house.rows("sessions") if r["user_id"] in own],
        "invitations": [town.invitation[club]],
        "mail": [r["id"] for r in house.rows("outbox")],
    }


def ways(path, ours, theirs):
    """Each way to fill the gaps of a path with at least one id of theirs: (path, the same with nobody's)."""
    parts = re.findall(r"(\w+)/\{\w+\}", path)
    assert len(parts) == path.count("{"), f"{path}: what stands there? Say so in ids()"
    for chosen in itertools.product(
        *([(id, True) for id in theirs[p]] + [(id, False) for id in ours[p][:1]] for p in parts)
    ):
        if any(foreign for _, foreign in chosen):
            given = iter(chosen)
            one = re.sub(r"\{\w+\}", lambda _, g=given: next(g)[0], path)
            given = iter(chosen)
            none = re.sub(
                r"\{\w+\}", lambda _, g=given: NOBODYS if (c := next(g))[1] else c[0], path
            )
            yield one, none


def with_ids(app):
    for route in app.routes:
        if not isinstance(route, Mount) and "{" in route.path:
            yield from ((route.path, method) for method in sorted(set(route.methods) - {"HEAD"}))


WHO = {
    "who runs the other one": ANN,
    "a member of the other one": ABE,
    "an editor of the site": PAT,
    "somebody in none": DAN,
    "a member here who runs the other one": "cat@alpha.example",
}


@pytest.mark.parametrize("who", WHO)
def test_H5_another_organisations_id_is_as_one_that_nobody_has(mirrored, who):
    town, house, rules = mirrored, mirrored.house, mirrored.house.auth.organisations
    house.auth.people.put_role(None, "editor", "", Source())
    house.add(PAT, "editor")
    house.add("cat@alpha.example")
    rules.join(None, town.alpha, "cat@alpha.example", "admin", Source())
    rules.join(None, town.bravo, "cat@alpha.example", "user", Source())
    for address in (BEA, BEN):
        entered(house, address)
    door = entered(house, WHO[who])
    if WHO[who].startswith("cat"):
        door.post("/account/tenant", tenant=town.alpha)
    ours = ids(town, "alpha", (WHO[who] if WHO[who] in town.id else ABE,))
    ours["sessions"] = ours["sessions"] or [NOBODYS]
    theirs = ids(town, "bravo", (BEA, BEN))
    form = {
        "role": "admin",
        "sure": "yes",
        "name": "x",
        "email": BEN,
        "code": "1",
        "tenant": town.bravo,
    }
    own, before = there(house, town.bravo), snapshot(house.db, but=SEEN)
    asked = set()
    for path, method in with_ids(house.app):
        for (one, none), mode in itertools.product(ways(path, ours, theirs), MODES):
            given = form if method == "POST" else {}
            answer, nothing = (send(door, method, url, mode, **given) for url in (one, none))
            what = (who, mode, method, one, answer.status_code, answer.text[:200])
            refusal = answer.headers.get("location") == "/no_access_right"
            assert answer.status_code in ((404, 403) if mode == "json" else (404,)) or refusal, what
            assert answer.status_code == nothing.status_code, what
            assert answer.content == nothing.content, what
            assert {**answer.headers, "x-request-id": ""} == {
                **nothing.headers,
                "x-request-id": "",
            }, what
            asked.add((path, method))
        assert snapshot(house.db, but=SEEN) == before, (who, method, path)
    assert asked >= {pair for pair in RUNNERS if "{" in pair[0]}
    assert there(house, town.bravo) == own and door.signed_in


def test_H5_what_stands_in_a_path_is_known_or_the_test_above_fails(mirrored):
    known = ids(mirrored, "bravo", (BEA,))
    assert list(ways("/admin/organisations/{id}/people/{user}", known, known))
    for path in ("/admin/things/{id}", "/admin/{id}", "/a/organisations/{id}/{user}"):
        with pytest.raises((KeyError, AssertionError)):
            list(ways(path, known, known))


def test_H5_beside_the_path_nothing_names_another_organisation(mirrored):
    town, door = mirrored, entered(mirrored.house, ANN)
    path = f"/admin/organisations/{town.alpha}"
    before = there(town.house, town.bravo)
    beside = dict.fromkeys(
        ("id", "tenant", "tenant_id", "organisation", "center", "club"), town.bravo
    )
    headers = {
        "X-Tenant": town.bravo,
        "Cookie": f"__Host-session={door.cookie('session')}; tenant={town.bravo}",
    }
    for way in (path, f"{path}/audit", f"{path}/people/{town.id[ABE]}"):
        usual = door.get(way)
        odd = town.house.door().client.get(way, params=beside, headers=headers)
        assert (usual.status_code, odd.status_code) == (200, 200)
        for word in ("Bravo", BEA, BEN, town.bravo):
            assert word not in usual.text + odd.text, (way, word)
    # Their addresses, searched for, are not there; nor are their events.
    for word in ("bravo", BEA, BEN, "Bravo club", town.bravo, town.id[BEN]):
        for way in (path, f"{path}/audit"):
            page = door.get(way, params={"q": word, "days": "all", "kind": "member_added"}).text
            assert "<tbody>" not in page, (way, word)
    lines = door.post(f"{path}/audit.csv", days="all", q="").text
    assert ANN in lines and not any(word in lines for word in ("Bravo", BEA, BEN, town.bravo))
    assert there(town.house, town.bravo) == before


# ---- H5: one door
TABLES = {"tenants": tenants, "events": events, "invitations": invitations}
# What asks for an organisation's rows beside the door, and is no page of it: who may ask and the last admin,
# what one does oneself, a new organisation, invitations and lists of people, which have rules of their own.
BESIDE = {"office", "desk", "oneself", "organisations", "inviting", "importing"}


def calls(text):
    """(module, function) of every call of a function in a table file."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if isinstance(node.func.value, ast.Name) and node.func.value.id in TABLES:
                yield node.func.value.id, node.func.attr


def raw(text):
    """The names of an organisation's pages or rules that lead past the door."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            tables = re.fullmatch(
                r"auth\.(tenants|events|users|invitations|sessions)", node.module or ""
            )
            whole = {a.name for a in node.names} & {"tenants", "users", "invitations", "sessions"}
            yield from sorted(whole) if node.module == "auth" else ()
            yield from (a.name for a in node.names if tables and a.name[0].islower())
        if isinstance(node, ast.Attribute):
            functions = isinstance(node.value, ast.Name) and node.value.id == "events"
            yield from [node.attr] if functions and node.attr.islower() else ()
            yield from [node.attr] if node.attr in ("q", "script") else ()


def test_H5_one_door_leads_to_an_organisations_rows():
    for name in ("members", "tenant_admin"):
        assert list(raw((ROOT / "auth" / f"{name}.py").read_text())) == [], name
    named = {
        (table, name)
        for table, module in TABLES.items()
        for name, function in vars(module).items()
        if inspect.isfunction(function) and "tenant" in inspect.signature(function).parameters
    }
    named -= {("events", "record")}
    assert {("tenants", "members"), ("events", "search_in"), ("invitations", "open_in")} <= named
    users = {
        path.stem for path in (ROOT / "auth").glob("*.py") if named & set(calls(path.read_text()))
    }
    assert users - {"scope"} <= BESIDE


@pytest.mark.parametrize(
    "line",
    [
        "from auth import tenants",
        "from auth.tenants import members",
        "from auth.events import search_in",
        "events.about_in(t, id, address, 5)",
        "self.db.q('select 1')",
    ],
)
def test_H5_the_check_above_sees_what_it_looks_for(line):
    assert list(raw(line)) and not list(raw("from auth.tenants import Member\nevents.ROLE_CHANGED"))


@pytest.mark.parametrize("id", ["", " ", "%", "\0", "' or 1=1", "*", NOBODYS, "²"])
def test_H5_there_is_no_door_to_none_or_to_all(mirrored, id):
    def enter():
        with scoped(mirrored.house.db, id):
            raise AssertionError("inside of nothing")

    assert refused(enter) == "tenant_unknown"


# ---- H5: the second wall
def fails(t, sql, **params):
    """Does the database refuse it? The transaction goes on."""
    t.q("savepoint before_it")
    try:
        t.q(sql, **params)
    except psycopg.errors.InsufficientPrivilege:
        t.q("rollback to savepoint before_it")
        return True
    return False


@only_postgresql
def test_H5_inside_one_organisation_the_database_shows_no_other(mirrored):
    town, db, before = mirrored, mirrored.house.db, snapshot(mirrored.house.db)

    class Back(Exception):
        """Nothing of this stays."""

    with pytest.raises(Back), scoped(db, town.alpha) as s:
        q = s.t.q
        for table, column in WALLED.items():
            assert {row[column] for row in q(f"select * from {table}")} == {town.alpha}, table
            assert q(f"select * from {table} where {column} = :b", b=town.bravo) == []
        assert (
            q("update events set detail = 'x' where tenant = :b returning id", b=town.bravo) == []
        )
        changed = q("update memberships set role = 'admin' returning tenant_id")
        assert {row["tenant_id"] for row in changed} == {town.alpha} and len(changed) == 2
        changed = q("update invitations set state = 'withdrawn' returning tenant_id")
        assert {row["tenant_id"] for row in changed} == {town.alpha}
        named = q("update tenants set name = 'x' returning id")
        assert {row["id"] for row in named} == {town.alpha}
        move = "update memberships set tenant_id = :b where user_id = :u"
        assert fails(s.t, move, b=town.bravo, u=town.id[ABE])
        new = "insert into memberships (tenant_id, user_id, role, created_at) values (:b, :u, 'admin', 1)"
        assert fails(s.t, new, b=town.bravo, u=town.id[ANN])
        event = "insert into events (id, at, kind, tenant) values ('x', 1, 'x', :b)"
        assert fails(s.t, event, b=town.bravo) and fails(s.t, event, b="")
        gone = q("delete from memberships returning tenant_id")
        assert {row["tenant_id"] for row in gone} == {town.alpha}
        raise Back
    # Over with the transaction, also on a connection that was inside.
    assert snapshot(db) == before
    found = {row["tenant_id"] for row in town.house.rows("memberships")}
    assert found == {town.alpha, town.bravo}


def test_H5_a_statement_that_forgets_its_organisation_is_stopped_by_the_database(mirrored):
    town, db = mirrored, mirrored.house.db
    where, given = " where m.tenant_id = :tenant", {"like": "", "limit": 100, "offset": 0}
    for sort, sql in tenants._SORTED.items():
        assert sql.count(where) == 1
        with scoped(db, town.alpha) as s:
            found = {row["address"] for row in s.t.q(sql.replace(where, " where true"), **given)}
            assert {m.address for m in s.members("", sort, 100, 0)} == {ANN, ABE}
        # The fault is one: without the second wall it shows everybody.
        assert found == ({ANN, ABE} if is_postgresql(db) else {ANN, ABE, BEA, BEN}), sort
    forgot = events._SEARCH_OWN.replace("e.tenant = :tenant and", "true and")
    wanted = {"since": "", "before": "z", "kind": "", "like": "", "limit": 100}
    with scoped(db, town.alpha) as s:
        found = {row["tenant"] for row in s.t.q(forgot, **wanted)}
    assert found == ({town.alpha} if is_postgresql(db) else {town.alpha, town.bravo})


def is_postgresql(db):
    return type(db).__name__ == "PostgreSQL"


@only_postgresql
def test_H5_each_table_of_organisations_has_its_wall(house):
    rows = house.db.q(
        "select c.relname as name, c.relrowsecurity as on, c.relforcerowsecurity as forced, exists"
        " (select 1 from pg_policy p where p.polrelid = c.oid) as policy from pg_class c"
        " join pg_namespace n on n.oid = c.relnamespace and n.nspname = current_schema()"
        " where c.relkind = 'r' and (c.relname = 'tenants' or exists (select 1 from pg_attribute a"
        " where a.attrelid = c.oid and a.attname in ('tenant', 'tenant_id')))"
    )
    # A session remembers where its person works: it is theirs, and nobody's organisation's.
    walled = {row["name"]: (row["on"], row["forced"], row["policy"]) for row in rows}
    assert walled.pop("sessions") == (False, False, False)
    assert walled == dict.fromkeys(WALLED, (True, True, True))
    assert not any(
        row["above"]
        for row in house.db.q(
            "select rolsuper or rolbypassrls as above from pg_roles where rolname = current_user"
        )
    )


HOT = (
    (sessions._FIND, {"token": "x", "now": 1, "idle": 1}),
    (sessions._APP, {"id": "x", "now": 1, "idle": 1}),
    ("select role from memberships where tenant_id = :t and user_id = :u", {"t": "x", "u": "y"}),
    ("select count(*) from memberships m where m.user_id = :u", {"u": "y"}),
    (
        events._SEARCH.format(walk=events._BETWEEN, rest=""),
        {"since": "0", "before": "z", "limit": 51},
    ),
    (events._ABOUT, {"subject": "x", "limit": 51}),
    (tenants._ONE, {"tenant": "x", "user_id": "y"}),
    (events._ABOUT_OWN, {"tenant": "x", "subject": "y", "limit": 20}),
)


@only_postgresql
def test_H5_the_wall_does_not_stand_in_the_way_of_an_index(house):
    found = []

    def look(plan):
        walled = plan.get("Relation Name") in WALLED
        if walled or plan["Node Type"] == "Bitmap Index Scan":
            found.append((plan["Node Type"], "Index Cond" in plan))
        for below in plan.get("Plans", ()):
            look(below)

    with house.db.tx() as t:
        # Of three rows it would read all; what can't use an index has to do so even now.
        t.q("set local enable_seqscan = off")
        t.q("set local enable_bitmapscan = off")
        for sql, params in HOT:
            found.clear()
            ((plan,),) = [r.values() for r in t.q(f"explain (format json) {sql}", **params)]
            look(plan[0]["Plan"])
            assert found and all(found_by[1] for found_by in found), (sql, found)


@pytest.mark.parametrize("role", ["ordinary", "superuser"])
@only_postgresql
def test_H5_doctor_says_when_the_database_user_is_above_the_wall(
    house, database_url, postgres, role, tmp_path
):
    name = re.search("//(u[0-9a-f]+):", database_url)[1]
    if role == "superuser":
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(f"alter role {name} superuser")
    _, out, _ = commands(database_url, tmp_path)("doctor", MAIL_BACKEND="none")
    notes = [line for line in out.splitlines() if line.startswith("note  DATABASE_URL")]
    assert len(notes) == (role == "superuser") and all("scale-out.md" in note for note in notes)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"alter role {name} nosuperuser")


# ---- H6
@pytest.mark.parametrize("way", ["demoted", "removed", "by another process", "organisation gone"])
@pytest.mark.parametrize("mode", MODES)
def test_H6_who_runs_it_no_more_is_out_at_the_next_click(build, way, mode):
    first = build()
    second = build(clock=first.clock, mailbox=first.mailbox)
    for address in (ANN, BEA, ABE):
        first.add(address)
    rules = first.auth.organisations
    id = rules.create(None, "Alpha club", BEA, Source()).id
    for address, role in ((ANN, "admin"), (ABE, "user")):
        rules.join(None, id, address, role, Source())
    ann, abe = (first.auth.people.by_address(a).id for a in (ANN, ABE))
    door = entered(first, ANN)

    def ask(house, method, path):
        browser = house.door()
        browser.client.cookies.set("__Host-session", door.cookie("session"))
        url = path.replace("{id}", id).replace("{user}", abe).replace("{invitation}", NOBODYS)
        return send(browser, method, url, mode, role="user", name="Mine", sure="")

    pages = sorted(RUNNERS)
    for house in (first, second):
        for path, method in pages:
            answer = ask(house, method, path)
            # Refused for what was in the form, perhaps, and not for who asks.
            known = (200, 303, 422) + ((404,) if "{invitation}" in path else ())
            assert answer.status_code in known, (path, answer.status_code)
            assert "no_access" not in answer.headers.get("location", ""), path
    {
        "demoted": lambda: rules.join(None, id, ANN, "user", Source()),
        "removed": lambda: rules.remove(None, id, ann, Source()),
        "by another process": lambda: second.auth.organisations.set_role(
            None, id, ann, "user", Source()
        ),
        "organisation gone": lambda: rules.delete(None, id, Source()),
    }[way]()
    before = snapshot(first.db, but=SEEN)
    for house in (second, first):
        for path, method in pages:
            answer = ask(house, method, path)
            if mode == "json":
                assert answer.status_code == 403, path
            else:
                assert answer.headers["location"] == "/no_access_right", path
    assert snapshot(first.db, but=SEEN) == before


def test_H6_who_was_demoted_while_they_asked_gets_no_last_look(town):
    """The guard let them pass; the transaction that reads asks again."""
    rules, ann = town.house.auth.organisations, town.house.auth.people.by_address(ANN)
    rules.join(None, town.alpha, BEA, "admin", Source())
    rules.join(None, town.alpha, ANN, "user", Source())
    before = snapshot(town.house.db)
    wanted = rules.audit(ann, town.alpha).tidy("", "", "all")
    for act, *given in (
        (rules.itself,),
        (rules.look,),
        (rules.look_at, town.id[ABE]),
        (rules.rename, "Mine", HERE),
        (rules.set_role, town.id[ABE], "admin", HERE),
        (rules.remove, town.id[ABE], HERE),
    ):
        assert refused(act, ann, town.alpha, *given) == "not_admin", act
        assert refused(act, ann, town.bravo, *given) == "not_admin", act
        assert refused(act, ann, NOBODYS, *given) == "tenant_unknown", act
    for id in (town.alpha, town.bravo):
        audit = rules.audit(ann, id)
        assert refused(audit.look, wanted) == refused(audit.step, wanted) == "not_admin"
        assert refused(audit.download, ann, wanted, HERE) == "not_admin"
    assert snapshot(town.house.db) == before


# ---- H1
DUEL = ("role of the other", "own role", "remove the other", "remove oneself", "leave")


def test_H1_two_who_run_it_against_each_other_leave_one(build):
    houses = build(), build()
    first, rules = houses[0], houses[0].auth.organisations
    for address in (ANN, BEA, ABE):
        first.add(address)
    id = rules.create(None, "Alpha club", ANN, Source()).id
    rules.join(None, id, ABE, "user", Source())
    user = [first.auth.people.by_address(address).id for address in (ANN, BEA)]
    path = f"/admin/organisations/{id}/people"
    rules.join(None, id, BEA, "admin", Source())
    doors = [entered(house, address) for house, address in zip(houses, (ANN, BEA), strict=True)]
    # Each way against each; a hundred rounds of the rules beneath are in test_h_roles.py.
    for n in range(25):
        for address in (ANN, BEA):
            rules.join(None, id, address, "admin", Source())
        way = DUEL[n % 5], DUEL[n // 5 % 5]

        def act(i, way=way):
            whom = user[i] if "own" in way[i] or "oneself" in way[i] else user[1 - i]
            if way[i] == "leave":
                return doors[i].post("/account/leave", tenant=id, sure="yes")
            if "role" in way[i]:
                return doors[i].post(f"{path}/{whom}/role", role="user")
            return doors[i].post(f"{path}/{whom}/remove", sure="yes")

        done = [
            a.status_code == 303 and a.headers["location"] != "/no_access_right"
            for a in together(2, act)
        ]
        assert club_admins(first, id), (n, way, done)
        assert any(done), (n, way)
        # Who was taken out is in again; where they work is theirs to say.
        for i, address in enumerate((ANN, BEA)):
            rules.join(None, id, address, "admin", Source())
            doors[i].post("/account/tenant", tenant=id)


# ---- H8
def test_H8_what_is_counted_is_counted_of_one_organisation(mirrored):
    town, house = mirrored, mirrored.house
    door = entered(house, ANN)
    path = f"/admin/organisations/{town.alpha}"
    before = [door.get(p).text for p in (path, f"{path}/audit", f"{path}/people/{town.id[ABE]}")]
    # Much happens next door.
    for n in range(30):
        house.add(f"b{n}@bravo.example")
        house.auth.organisations.join(None, town.bravo, f"b{n}@bravo.example", "user", Source())
        row = town.bravo, town.id[DAN], DAN, "user", "", 1, int(house.clock()) + 86400
        invitations.put(house.db, house.auth.keys.new_id(), *row)
    entered(house, BEN)
    after = [door.get(p).text for p in (path, f"{path}/audit", f"{path}/people/{town.id[ABE]}")]
    assert before == after
    tiles = re.findall(r"<strong>(\d+)</strong><span>([\w ]+)", after[0])
    assert tiles == [("2", "members"), ("1", "signed in this week"), ("1", "open invitation")]


def test_H8_nothing_of_a_site_admin_is_in_the_record(mirrored):
    """Who runs an organisation learns what the site's admins did in it, and not whom to attack."""
    town, house = mirrored, mirrored.house
    boss, ann = entered(house, ADMIN), entered(house, ANN)
    path = f"/admin/organisations/{town.alpha}"
    boss.post(f"{path}/name", name="Renamed by the site")
    ann.post(f"{path}/name", name="Renamed by Ann")
    pages = ann.get(f"{path}/audit").text, ann.post(f"{path}/audit.csv", days="all").text
    for text in pages:
        assert "Renamed by the site" in text and "Renamed by Ann" in text and ANN in text
        assert ADMIN not in text and town.id[ADMIN] not in text
    where = {line[3]: (line[2], line[4]) for line in csv.reader(io.StringIO(pages[1]))}
    assert where["Renamed by the site"] == ("", "")
    assert where["Renamed by Ann"] == (ANN, "192.0.2.0/24")


def test_H8_the_log_says_who_of_which_organisation_tried_another_ones_id(mirrored, caplog):
    town, door = mirrored, entered(mirrored.house, ANN)
    with caplog.at_level(logging.WARNING, "auth"):
        assert door.get(f"/admin/organisations/{town.bravo}").status_code == 404
        forged = door.get("/admin/organisations/x%0d%0aWARNING%20all%20is%20well")
    assert forged.status_code == 404
    told = [record.getMessage() for record in caplog.records if record.name == "auth.tenant_admin"]
    assert f"'{town.bravo}' refused to user {town.id[ANN]}, who runs {town.alpha}" in told
    assert len(told) == 2 and not any("\n" in line or "\r" in line for line in told)


def test_H8_a_page_of_an_organisation_is_kept_nowhere(mirrored):
    door = entered(mirrored.house, ANN)
    for path, method in sorted(RUNNERS):
        url = path.replace("{id}", mirrored.alpha).replace("{user}", mirrored.id[ABE])
        url = url.replace("{invitation}", NOBODYS)
        answer = door.client.request(method, url, headers=OURS, data={"role": "user", "name": "A"})
        assert answer.headers["cache-control"] == "no-store", path


def test_H2_a_role_in_an_organisation_is_none_on_the_site(town):
    """Its admin may give any role there is; each counts where it was given."""
    house, rules = town.house, town.house.auth.organisations
    house.auth.people.put_role(None, "editor", "", Source())
    door, abe = entered(house, ANN), entered(house, ABE)
    there = f"/admin/organisations/{town.alpha}/people/{town.id[ABE]}"
    rules.join(None, town.bravo, ABE, "user", Source())
    for role in ("editor", "admin"):
        assert door.post(f"{there}/role", role=role).headers["location"].endswith("done=role")
        seen = {}
        for tenant in (town.alpha, town.bravo, ""):
            abe.post("/account/tenant", tenant=tenant)
            text = abe.get("/dashboard").text
            seen[tenant] = abe.get("/admin").headers["location"], "/admin/organisations/" in text
        own = f"/admin/organisations/{town.alpha}", True
        none = "/no_access_right", False
        assert seen == {town.alpha: own if role == "admin" else none, town.bravo: none, "": none}
        user = next(row for row in house.rows("users") if row["id"] == town.id[ABE])
        assert user["role"] == "user"
        for path in ("/admin/overview", "/admin/audit", "/admin/organisations", "/admin/roles"):
            assert abe.get(path).headers["location"] == "/no_access_right"
    with pytest.raises(Refused, match="role_unknown"):
        rules.set_role(None, town.alpha, town.id[ABE], "emperor", HERE)
