"""A backup of all tables in one file, and the way back: whole or not at all, and nothing that has ended lives again."""

import os
import random
import stat
import subprocess
import sys
import threading
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest

from auth import MIGRATIONS, users
from main import OUTBOX_MIGRATIONS
from tests.conftest import ADMIN, SECRET, environment
from tests.serving import ROOT
from tests.test_manage import commands
from utils.backup import Unusable, opened, put_back, save
from utils.database import connect, migrate, versions

ROOMS = (MIGRATIONS, OUTBOX_MIGRATIONS)
ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.org"
KEPT = ("roles", "users", "tenants", "memberships")


@pytest.fixture
def manage(database_url, tmp_path):
    return commands(database_url, tmp_path)


@pytest.fixture
def saved(house, manage, tmp_path):
    """A backup in which Ada is."""
    house.add(ADA)
    assert manage("backup", "b.db")[0] == 0
    return tmp_path / "b.db"


def people(house):
    return {row["address"] for row in house.rows("users")}


def no_bar(length):
    return nullcontext(SimpleNamespace(update=lambda n: None))


def test_M9_what_was_saved_is_back_and_nothing_that_has_ended_is(build, manage, tmp_path):
    house = build()
    house.add(ADA)
    here, gone, late, used = (house.door() for _ in range(4))
    here.sign_in(ADA)
    gone.sign_in(ADA)
    app = house.program()
    app.sign_in(ADA)
    used.ask(ADA)
    signin, spent = used.cookie("signin"), used.read_code()
    used.enter(spent)
    late.ask(ADA)
    code, link = late.read_code(), house.mailbox.latest_link(ADA)
    unsent = house.door()
    unsent.ask(BOB)
    unsent.ask(ADA)
    devices = [row["id"] for row in house.rows("devices")]
    assert len(devices) == 3
    status, out, error = manage("backup", "b.db")
    assert (status, error) == (0, "") and "Keep it as safe" in out

    session = gone.cookie("session")
    gone.post("/logout")
    assert manage("add-user", EVE)[0] == 0
    assert manage("disable", ADA)[0] == 0
    mails = len(house.mailbox.messages)
    status, out, error = manage("restore", "b.db", "--yes")
    assert (status, error) == (0, "")
    assert "user_disabled  ada@example.org" in out
    assert people(house) == {ADMIN, ADA}

    # Revoked after the backup, or alive until the restore: all the same.
    gone.client.cookies.set("__Host-session", session, domain="vestibule.test")
    assert not gone.signed_in and not here.signed_in and not app.signed_in
    assert app.refresh().status_code == 401
    assert late.enter(code).status_code != 303 and not late.signed_in
    late.post("/link", token=link.rpartition("#")[2])
    assert not late.signed_in
    used.client.cookies.clear()
    used.client.cookies.set("__Host-signin", signin, domain="vestibule.test")
    assert used.enter(spent).status_code != 303 and not used.signed_in
    for table in ("sessions", "devices", "challenges"):
        assert house.rows(table) == []
    house.outbox.drain()
    assert len(house.mailbox.messages) == mails
    assert {row["state"] for row in house.rows("outbox")} == {"accepted", "void"}
    # The record forgets nothing, and says so.
    told = {(row["kind"], row["subject"]) for row in house.rows("events")}
    assert {("user_created", EVE), ("user_disabled", ADA), ("sys_restored", "")} <= told
    # A known browser is known no more, and its owner signs in as before.
    here.ask(ADA)
    assert [row["device"] for row in house.rows("challenges")] == [""]
    assert here.enter(here.read_code()).status_code == 303 and here.signed_in


def test_M9_what_was_counted_stays_counted(house, manage, saved):
    door = house.door()
    door.ask(ADA)
    code = door.read_code()
    door.enter("000000" if code != "000000" else "111111")
    door.enter(code)
    assert door.signed_in
    before = house.rows("counters")
    assert before and manage("restore", "b.db", "--yes")[0] == 0
    assert house.rows("counters") == before


def test_M9_codes_of_reviewers_and_invitations_end_too(house, manage, tmp_path):
    tenant = manage("add-tenant", "Chess club", "--admin", ADMIN)[1]
    assert manage("review-account", BOB, "--days", "9", "--ip", "192.0.2.0/24")[0] == 0
    house.db.q(
        "insert into invitations (id, tenant_id, user_id, address, created_at, expires_at)"
        " select 'i1', :tenant, id, address, 1, 4000000000 from users where address = :bob",
        tenant=tenant,
        bob=BOB,
    )
    assert manage("backup", "b.db")[0] == 0 and manage("restore", "b.db", "--yes")[0] == 0
    assert house.rows("reviewers") == []
    assert [row["state"] for row in house.rows("invitations")] == ["withdrawn"]
    assert [row["name"] for row in house.rows("tenants")] == ["Chess club"]


def test_a_backup_goes_from_one_kind_of_database_to_the_other_and_back(house, manage, tmp_path):
    house.add(ADA, name="Ada Çelik ΟΔΟΣ İ 🙂")
    house.door().sign_in(ADA)
    assert manage("add-tenant", "Chess club", "--admin", ADA)[0] == 0
    with house.db.tx() as t:  # more than one step
        for n in range(1200):
            users.add(t, f"{n:032x}", f"p{n}@example.org", f"'; %s :x {n}", "user", n)
    before = {table: sorted(map(repr, house.rows(table))) for table in KEPT}
    events = {row["id"] for row in house.rows("events")}
    assert manage("backup", "one.db")[0] == 0
    other = {"DATABASE_URL": f"sqlite:///{tmp_path}/other.db"}
    assert manage("restore", "one.db", "--yes", **other)[0] == 0
    assert manage("backup", "two.db", **other)[0] == 0
    for table in ("memberships", "tenants", "users"):
        house.db.q(f"delete from {table}")
    assert manage("restore", "two.db", "--yes")[0] == 0
    assert {table: sorted(map(repr, house.rows(table))) for table in KEPT} == before
    assert events < {row["id"] for row in house.rows("events")}


def test_M9_a_backup_is_of_one_moment_while_others_write(house, manage, tmp_path):
    with house.db.tx() as t:
        for n in range(30_000):
            t.q("insert into counters values (:key, 1, 1, 4000000000)", key=f"{n:08}")
    over, added = threading.Event(), []

    def add():
        while not over.is_set():
            added.append(house.add(f"p{len(added)}@example.org"))

    writer = threading.Thread(target=add)
    writer.start()
    try:
        status, _, error = manage("backup", "b.db")
    finally:
        over.set()
        writer.join()
    assert (status, error) == (0, "") and len(added) > 10
    with closing(apsw.Connection(str(tmp_path / "b.db"), flags=apsw.SQLITE_OPEN_READONLY)) as file:
        one = {a for (a,) in file.execute("select address from users")}
        two = {a for (a,) in file.execute("select subject from events")}
        assert one == two and ADMIN in one
        assert file.execute("pragma integrity_check").get == "ok"


def test_K_a_backup_is_for_its_owner_alone_and_holds_no_key_to_anything(house, manage, tmp_path):
    house.add(ADA)
    door, app = house.door(), house.program()
    door.sign_in(ADA)
    app.sign_in(ADA)
    waiting = house.door()
    waiting.ask(ADA)
    link = waiting.read_code() and house.mailbox.latest_link(ADA).rpartition("#")[2]
    assert manage("backup", "b.db")[0] == 0
    assert stat.S_IMODE((tmp_path / "b.db").stat().st_mode) == 0o600
    raw = (tmp_path / "b.db").read_bytes()
    cookies = [door.cookie("session"), door.cookie("device"), waiting.cookie("signin")]
    for secret in (*cookies, app.access_token, app.refresh_token, app.device_secret, link, SECRET):
        assert secret and secret.encode() not in raw
    # Nothing is left beside it.
    assert not list(tmp_path.glob(".backup*")) and not list(tmp_path.glob("b.db-*"))


def test_what_a_backup_would_overwrite_is_asked_for_by_name(house, manage, saved, tmp_path):
    before = saved.read_bytes()
    status, _, error = manage("backup", "b.db")
    assert status == 1 and "--force" in error and saved.read_bytes() == before
    house.add(BOB)
    assert manage("backup", "b.db", "--force")[0] == 0
    assert BOB.encode() in saved.read_bytes()
    if (tmp_path / "vestibule.db").exists():
        status, _, error = manage("backup", "vestibule.db", "--force")
        assert status == 1 and "the database itself" in error
        assert people(house) == {ADMIN, ADA, BOB}
    status, _, error = manage("backup", "no/where.db")
    assert (status, error) == (1, "no/where.db: No such file or directory")
    empty = {"DATABASE_URL": f"sqlite:///{tmp_path}/empty.db"}
    status, _, error = manage("backup", "e.db", **empty)
    assert status == 1 and "nothing in the database" in error and len(error.splitlines()) == 1


def test_M9_a_file_that_is_not_whole_is_refused_and_nothing_is_changed(house, manage, saved):
    whole = saved.read_bytes()
    house.add(BOB)
    bad = {
        "empty": b"",
        "text": b"address,name\n" * 1000,
        "half": whole[: len(whole) // 2],
        "flipped": whole.replace(ADA.encode(), b"adb@example.org"),
    }
    before = house.rows("users"), house.rows("events")
    for what in (*bad, "another", "none"):
        saved.unlink(missing_ok=True)
        if what in bad:
            saved.write_bytes(bad[what])
        elif what == "another":
            with closing(apsw.Connection(str(saved))) as file:
                file.execute("create table notes (text text)")
        status, out, error = manage("restore", "b.db", "--yes")
        assert (status, out) == (1, ""), what
        assert len(error.splitlines()) == 1 and "b.db" in error, (what, error)
        assert (house.rows("users"), house.rows("events")) == before, what


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # it is about a file
def test_M9_a_bit_that_fell_over_anywhere_is_found_or_does_no_harm(saved):
    def contents(path):
        with opened(path, *ROOMS) as backup:
            tables = (*KEPT, "events", "counters")
            return {table: backup.file.q(f"select * from {table}") for table in tables}

    whole, chance, refused = saved.read_bytes(), random.Random(1), 0
    want = contents(saved)
    for place in (chance.randrange(len(whole)) for _ in range(60)):
        bad = bytearray(whole)
        bad[place] ^= 1 << chance.randrange(8)
        saved.write_bytes(bad)
        try:
            assert contents(saved) == want
        except Unusable:
            refused += 1
    assert refused


def test_M10_a_backup_of_older_code_is_migrated_and_one_of_newer_code_refused(
    house, manage, tmp_path
):
    old = {"auth": 4, "utils": 1}
    with closing(connect(f"sqlite:///{tmp_path}/old.db")) as db:
        migrate(db, *ROOMS, upto=old)
        db.q("insert into users (id, address, created_at) values ('0', :a, 1)", a=EVE)
        save(db, tmp_path / "b.db", 1_700_000_000, no_bar, *ROOMS)
        assert versions(db) == old
    assert manage("restore", "b.db", "--yes")[0] == 0
    assert people(house) == {EVE}
    with closing(apsw.Connection(str(tmp_path / "b.db"))) as file:
        file.execute("update schema_versions set version = 99 where room = 'auth'")
    status, _, error = manage("restore", "b.db", "--yes")
    assert status == 1 and "newer than this code" in error and len(error.splitlines()) == 1
    assert people(house) == {EVE}


def test_what_this_database_does_not_take_changes_nothing(build, tmp_path):
    """PostgreSQL has no NUL in a text; either has no person with a role that there is not."""
    house = build()
    with closing(connect(f"sqlite:///{tmp_path}/odd.db")) as db:
        migrate(db, *ROOMS)
        db.q("pragma foreign_keys = off")
        db.q("insert into users (id, address, role, created_at) values ('0', 'x', 'emperor', 1)")
        with pytest.raises(Unusable, match="FOREIGN KEY"):
            save(db, tmp_path / "b.db", 1, no_bar, *ROOMS)
        db.q("update users set role = 'user'")
        save(db, tmp_path / "b.db", 1, no_bar, *ROOMS)
    house.db.q("create table notes (user_id text references users (id))")
    house.db.q("insert into notes select id from users")
    with opened(tmp_path / "b.db", *ROOMS) as found, pytest.raises(Unusable, match="does not take"):
        put_back(house.db, found, (), lambda t: None, no_bar)
    assert people(house) == {ADMIN}


def test_nobody_restores_by_accident(house, manage, saved):
    house.add(BOB)
    status, _, error = manage("restore", "b.db")
    assert (status, error) == (1, "Nothing was changed.")
    assert people(house) == {ADMIN, ADA, BOB}


def test_a_backup_is_made_while_the_app_runs_and_put_back_when_it_does_not(
    serve, sink, manage, database_url
):
    server = serve(SMTP_PORT=sink.port)
    assert manage("backup", "b.db")[0] == 0
    status, _, error = manage("restore", "b.db", "--yes")
    assert status == 1 and "stop it first" in error and len(error.splitlines()) == 1
    server.stop()
    assert manage("restore", "b.db", "--yes")[0] == 0
    assert serve(SMTP_PORT=sink.port).client.get("/login").status_code == 200


def test_how_far_it_is_is_told_on_a_terminal_alone(house, manage, database_url, tmp_path):
    assert manage("backup", "quiet.db")[2] == ""
    ours, theirs = os.openpty()
    keep = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ} | {"TERM": "xterm"}
    subprocess.run(
        [sys.executable, ROOT / "manage.py", "backup", "b.db"],
        cwd=tmp_path,
        env=keep | environment(database_url, tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        check=True,
        timeout=60,
    )
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert "Saving" in shown and "100%" in shown
    assert Path(tmp_path / "b.db").exists()


def test_M9_mail_that_was_paused_at_the_backup_is_not_paused_by_it(house, manage):
    """Nobody would be signed in who could resume it, and no code would leave."""
    house.outbox.pause(True)
    assert manage("backup", "b.db")[0] == 0
    house.outbox.pause(False)
    assert manage("restore", "b.db", "--yes")[0] == 0
    assert not house.outbox.queue().paused
