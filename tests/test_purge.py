"""What has ended goes, in small steps; the record and people who never came go only when they are named."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from auth import events, invitations
from auth.policy import DAY
from auth.purging import next_step
from auth.retention import Retention
from bench.fill import Fill
from tests.conftest import ADMIN, Clock, Overheard
from tests.serving import together, until
from tests.test_backup import no_bar
from tests.test_manage import commands
from utils import mailrows
from utils.outbox import purge

LONG_AGO = 1_580_000_000  # a moment in 2020; the trigger goes by the machine's own clock
ADA, BOB = "ada@example.org", "bob@example.org"


@pytest.fixture
def manage(database_url, tmp_path):
    return commands(database_url, tmp_path)


@pytest.fixture
def old(build):
    """A house in which everything happened years ago."""
    return build(clock=Clock(LONG_AGO))


def kinds(house):
    return [row["kind"] for row in sorted(house.rows("events"), key=lambda row: row["id"])]


def said(out):
    """{"events": 3, …}"""
    return {name: int(n) for n, name in (line.split() for line in out.splitlines())}


def test_without_a_word_about_it_no_event_and_no_person_goes(old, manage):
    old.add(ADA)
    before = old.rows("events"), old.rows("users")
    status, out, error = manage("purge")
    assert (status, error) == (0, "") and not {"events", "people"} & set(said(out))
    assert (old.rows("events"), old.rows("users")) == before


def test_K10_old_events_go_when_they_are_named_and_that_is_an_event(old, manage):
    old.add(ADA)
    n = len(old.rows("events"))
    assert manage("add-user", BOB)[0] == 0
    status, out, error = manage("purge", "--events", "90")
    assert (status, error) == (0, "") and said(out)["events"] == n
    assert kinds(old) == ["user_created", "sys_events_purged"]
    [purged] = [row for row in old.rows("events") if row["kind"] == "sys_events_purged"]
    when = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 90 * DAY - 3600))
    assert purged["detail"].startswith(f"{n} until {when}")
    # Nothing more to do, and nothing more to say.
    assert said(manage("purge", "--events", "90")[1])["events"] == 0
    assert len(old.rows("events")) == 2


def test_K10_no_way_leads_to_a_young_event(old, manage):
    now = int(time.time())
    old.clock.now = now - 89 * DAY
    old.add(ADA)
    for days in ("89", "0", "-1", "x", "99999999"):
        status, out, error = manage("purge", "--events", days)
        assert (status, out) == (1, "") and "--events" in error and len(error.splitlines()) == 1
    # Rules with a clock of their own, or none at all: the database has the last word.
    ahead = Retention(old.db, old.auth.signin.keys, lambda: now + 1000 * DAY)
    with pytest.raises(Exception, match="append-only"):
        ahead.forget_events(90, no_bar)
    old.clock.now = now - 91 * DAY
    old.add(BOB)
    young = "delete from events where subject = 'ada@example.org'"
    for sql in (young, "update events set detail = 'x' where subject = 'bob@example.org'"):
        with pytest.raises(Exception, match="append-only"):
            old.db.q(sql)
    if "postgresql" in type(old.db).__name__.lower():
        with pytest.raises(Exception, match="append-only"):
            old.db.q("truncate events")
    old.db.q("delete from events where subject = 'bob@example.org'")
    assert {row["subject"] for row in old.rows("events") if "example.org" in row["subject"]} == {
        ADA
    }


def test_who_never_came_and_can_do_nothing_goes(old, build, manage):
    for name in ("gone", "member", "came", "off", "runs", "asked"):
        old.add(f"{name}@example.org")
    old.add("admin2@example.org", role="admin")
    old.auth.people.put_role(None, "editor", "", events.Source())
    old.add("editor@example.org", role="editor")
    old.door().sign_in("came@example.org")
    assert manage("disable", "off@example.org")[0] == 0
    club = manage("add-tenant", "Chess club", "--admin", "runs@example.org")[1]
    assert manage("join", club, "member@example.org")[0] == 0
    assert (
        manage("review-account", "tests@example.org", "--days", "9", "--ip", "192.0.2.0/24")[0] == 0
    )
    tests = "update users set created_at = 1 where address = 'tests@example.org'"
    old.db.q(tests)
    assert manage("add-user", "new@example.org")[0] == 0
    asked = old.auth.people.by_address("asked@example.org")
    with old.db.tx() as t:
        ends = int(time.time()) + 7 * DAY
        invitations.put(t, "i1", club, asked.id, asked.address, "user", "", LONG_AGO, ends)
    # Now an address of ADMIN_EMAILS that is no admin yet.
    more = {"ADMIN_EMAILS": f"{ADMIN},Boss@example.org"}
    old.add("boss@example.org")
    status, out, error = manage("purge", "--never-activated", "30", **more)
    assert (status, error) == (0, "") and said(out)["people"] == 2
    left = {row["address"].partition("@")[0] for row in old.rows("users")}
    assert left == {
        *("admin", "admin2", "editor", "came", "off", "runs", "asked", "tests", "new", "boss")
    }
    gone = {r["subject"] for r in old.rows("events") if r["kind"] == "user_deleted"}
    assert gone == {"gone@example.org", "member@example.org"}
    assert {r["detail"] for r in old.rows("events") if r["kind"] == "user_deleted"} == {
        "never signed in"
    }
    for days in ("0", "x"):
        status, _, error = manage("purge", "--never-activated", days)
        assert status == 1 and len(error.splitlines()) == 1


def test_two_who_purge_at_once_delete_and_tell_each_person_once(old, build):
    for n in range(130):
        old.add(f"p{n}@example.org")
    houses = [build(clock=Clock(LONG_AGO + 31 * DAY)) for _ in range(2)]

    def purge(i):
        house = houses[i]
        return Retention(house.db, house.auth.signin.keys, house.clock).forget_never_active(30)

    assert sum(together(2, purge)) == 130
    assert kinds(old).count("user_deleted") == 130
    assert [row["address"] for row in old.rows("users")] == [ADMIN]


def test_N6_no_statement_of_a_purge_deletes_more_than_a_step(old):
    rows = (
        "insert into events (id, at, kind) with recursive n (i) as (select 1 union all"
        " select i + 1 from n where i < 5000) select {id}, 1580000000, 'user_created' from n"
    )
    by_number = {
        "SQLite": "printf('00%030d', i)",
        "PostgreSQL": "'00' || lpad(cast(i as text), 30, '0')",
    }
    old.db.q(rows.replace("{id}", by_number[type(old.db).__name__]))
    db = Overheard(old.db)
    rules = Retention(db, old.auth.signin.keys, time.time)
    assert rules.forget_events(90, no_bar) >= 5000
    assert max(db.deleted) <= 500 and sum(db.deleted) >= 5000
    assert kinds(old) == ["sys_events_purged"]


def test_N6_where_a_step_takes_long_the_next_is_shorter():
    assert next_step(1000, 0.02, 1000) == 250
    assert next_step(100, 0.001, 1000) == 200
    assert next_step(800, 0.001, 1000) == 1000
    assert next_step(60, 9, 1000) == 50
    assert next_step(20, 9, 20) == 20


def test_N6_mails_that_are_over_go_in_steps_and_one_that_waits_stays(old):
    Fill(old.db, old.clock()).people(10)
    Fill(old.db, old.clock()).mails(3000)
    assert purge(old.db, old.clock() + 20 * DAY) == 2980
    assert [row["state"] for row in old.rows("outbox")] == ["queued"] * 20


def test_N6_a_mail_that_is_sent_again_at_this_moment_is_not_deleted(old, build):
    """SQLite has one writer; on PostgreSQL the purge waits for the row, and has to look anew."""
    Fill(old.db, old.clock()).people(10)
    Fill(old.db, old.clock()).mails(600)
    now, look, sqlite = int(old.clock()) + 20 * DAY, build().db, type(old.db).__name__ == "SQLite"
    id = next(row["id"] for row in old.rows("outbox") if row["state"] == "dead")
    old.db.q("update outbox set not_after = :at where id = :id", at=now + 9, id=id)
    with ThreadPoolExecutor(1) as pool:
        with build().db.tx() as t:
            assert mailrows.again(t, id, now)
            purging = pool.submit(purge, old.db, now)
            assert sqlite or until(lambda: look.q("select 1 from pg_locks where not granted"))
        purging.result(20)
    assert [row["state"] for row in old.rows("outbox") if row["id"] == id] == ["queued"]
