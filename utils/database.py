"""One database, two drivers: fastlite on SQLite, psycopg on PostgreSQL. Knows no table.

SQL is written once, in the dialect both share: `:name` for parameters, `update … returning`,
`on conflict`, bigint for times, text for ids. `q` runs one statement, `tx` several as one,
`run` calls a function that uses them from async code.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import apsw
import fastlite
from starlette.concurrency import run_in_threadpool

Row = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")

BUSY_MS = 5000
LOOP_MS = 50  # on the event loop, before the wait moves into a thread
# There, once something was written, which can't be done again in a thread: a moment of standing still is
# better than a code that was counted and not compared.
LATE_MS = 1000
SETTLE_SECONDS = 0.1  # in which a purge writes less than SQLite would copy by itself
POOL_SECONDS = 5
PG_TIMEOUTS = (
    "set statement_timeout = '10s'",
    "set lock_timeout = '5s'",
    "set idle_in_transaction_session_timeout = '30s'",
)
PG_PATIENCE = ("set local statement_timeout = 0", "set local lock_timeout = 0")
MIGRATION_LOCK = 726354


class Unavailable(Exception):
    """The database can't serve: locked for too long, disk full, connection lost. Nothing is half done."""


class Busy(Unavailable):
    """Somebody else holds it; later it may serve."""


class Tx:
    """What `tx()` yields: `q` inside the transaction, `script` for migrations, `on_commit`."""

    def __init__(self, q: Callable[..., list[Row]], script: Callable[[str], object]):
        self.q = q
        self.script = script
        self._after: list[Callable[[], object]] = []

    def on_commit(self, f: Callable[[], object]) -> None:
        """Call f() once the transaction is durable; never if it rolls back."""
        self._after.append(f)

    def committed(self) -> None:
        for f in self._after:
            f()


class SQLite:
    """fastlite on one connection behind one lock.

    The lock is not for speed. A transaction belongs to the connection: without the lock, one
    thread's rollback takes another thread's writes along.
    """

    Unavailable = Unavailable
    errors: tuple[type[Exception], ...] = (apsw.Error,)  # all that the driver may raise
    skip_locked = ""  # what a claim needs so that workers don't queue for one row

    def __init__(self, path: str | Path):
        path = Path(path)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made by us first, so that strangers on this machine can't read it even for a moment;
            # SQLite gives the -wal and -shm files the same mode. Only when it is new: closing a file
            # drops every POSIX lock that this process holds on it, those of SQLite too.
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except OSError as error:
            raise Unavailable(f"can't open the SQLite file: {error.strerror}") from error
        self._lock, self._wait = threading.RLock(), threading.local()
        self._names: dict[str, tuple[str, ...]] = {}  # of each statement's columns
        self._waiting: set[object] = set()  # who is in a thread because of it
        self._path = str(path.absolute())
        # A second connection, for `settle`; and what keeps it from being closed meanwhile.
        self._aside: apsw.Connection | None = None
        self._aside_lock, self._settled, self._closed = threading.Lock(), 0.0, False
        # In place of apswutils' own hooks: a busy timeout of 100 ms and `PRAGMA optimize` at open
        # make starting fail when several processes do so together.
        try:
            with _hooks(_tune):
                self._db = fastlite.database(str(path), wal=False)
        except apsw.Error as error:
            raise Unavailable(f"can't open the SQLite file: {error}") from error

    def q(self, sql: str, **params: Any) -> list[Row]:
        """Rows as dicts, [] when the statement returns none. Raises Unavailable."""
        self._take()
        try:
            return self._rows(sql, params)
        finally:
            self._lock.release()

    def _rows(self, sql: str, params: Row) -> list[Row]:
        """For who has taken the connection."""
        try:
            # As fastlite's own q, without its five calls on the way.
            cursor = self._db.conn.execute(sql, params)
            if sql[:6] != "select":
                self._wait.wrote = True
            first = cursor.fetchone()
            if first is None:
                return []
            names = self._names.get(sql, ())
            # Another number of columns: newer code, in a process beside this one, has added some.
            if len(names) != len(first):
                names = self._names[sql] = tuple(c[0] for c in cursor.get_description())
            return [dict(zip(names, row, strict=True)) for row in (first, *cursor.fetchall())]
        except _SQLITE_FAULTS as error:
            raise _unavailable(error) from error

    @contextmanager
    def tx(
        self,
        lock: int | None = None,
        patient: bool = False,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> Iterator[Tx]:
        """One transaction. Writers are one at a time here, so `lock` has nothing to add; nor has SQLite
        policies that would read `settings`.

        `durable=False`: others see it, and kill -9 can't undo it, but a power cut may until the next
        durable one is done, which takes it along to the disk. Half the price.
        """
        self._take()
        try:
            # Spelled out, since apsw's `with connection` waits for the write lock without giving up
            # Python's own: then nobody in this process can run, not even who holds the write lock.
            execute = self._db.conn.execute
            t = Tx(lambda sql, **params: self._rows(sql, params), execute)
            try:
                if not durable:
                    execute("pragma synchronous = normal")
                # A transaction that reads first and writes later can't be made to wait
                # (SQLITE_BUSY_SNAPSHOT), so every one takes the write lock at its start.
                execute("begin immediate")
                try:
                    yield t
                    execute("commit")
                except BaseException:
                    if self._db.conn.in_transaction:
                        execute("rollback")
                    raise
            except _SQLITE_FAULTS as error:
                raise _unavailable(error) from error
            finally:
                if not durable:
                    execute("pragma synchronous = full")
        finally:
            self._lock.release()
        t.committed()

    @contextmanager
    def snapshot(self) -> Iterator[Tx]:
        """One moment to read, for as long as it takes. Others write meanwhile."""
        self._take()
        try:
            execute = self._db.conn.execute
            execute("begin")
            try:
                yield Tx(lambda sql, **params: self._rows(sql, params), execute)
            finally:
                execute("rollback")
        finally:
            self._lock.release()

    async def run(self, f: Callable[P, T], *args: P.args, **kw: P.kwargs) -> T:
        """Call f here: a statement takes microseconds, a trip through a thread takes fifty.

        When somebody else holds the database, the wait for it moves into a thread, so that the event
        loop goes on. Only while f has written nothing: what is committed is not done again.
        """
        self._wait.ms, self._wait.wrote = LOOP_MS, False
        try:
            # While one waits, the next is not tried here: a hundred would stop the loop for LOOP_MS each.
            if not self._waiting:
                return f(*args, **kw)
        except Busy:
            if self._wait.wrote:
                raise
        finally:
            self._wait.ms = BUSY_MS
        me = object()
        self._waiting.add(me)
        try:
            return await run_in_threadpool(f, *args, **kw)
        finally:
            self._waiting.discard(me)

    def _take(self) -> None:
        """The connection for this thread alone, with as much patience as this thread has."""
        ms = getattr(self._wait, "ms", BUSY_MS)
        if getattr(self._wait, "wrote", False):
            ms = max(ms, LATE_MS)
        if not self._lock.acquire(blocking=False):
            began = time.monotonic()
            if not self._lock.acquire(timeout=ms / 1000):
                raise Busy("the connection is busy")
            # One patience for both: it was in the way of the same lock that is asked for next.
            ms = max(LOOP_MS, ms - round(1000 * (time.monotonic() - began)))
        try:
            self._db.conn.set_busy_timeout(ms)
        except apsw.Error as error:  # closed
            self._lock.release()
            raise Unavailable(str(error)) from error

    def settle(self) -> None:
        """Copy what was written from the log into the file, for who writes much at a time. By a connection of its own,
        beside everybody: otherwise somebody's commit has to do it, and all others here wait for that."""
        # Whatever is wrong, a commit meets it too, and says so.
        with self._aside_lock, suppress(*_SQLITE_FAULTS):
            if self._closed or time.monotonic() - self._settled < SETTLE_SECONDS:
                return
            if self._aside is None:
                with _hooks():
                    self._aside = apsw.Connection(self._path, apsw.SQLITE_OPEN_READWRITE)
            self._aside.execute("pragma wal_checkpoint(passive)").fetchall()
            self._settled = time.monotonic()

    def close(self) -> None:
        with self._aside_lock, self._lock:
            self._closed = True
            if self._aside is not None:
                self._aside.close()
            self._db.conn.close()


_HOOKS_LOCK = threading.Lock()


@contextmanager
def _hooks(*ours: Callable[[apsw.Connection], None]) -> Iterator[None]:
    """For what is opened in it these hooks and no others. The list is one for the whole process."""
    with _HOOKS_LOCK:
        theirs, apsw.connection_hooks[:] = list(apsw.connection_hooks), list(ours)
        try:
            yield
        finally:
            apsw.connection_hooks[:] = theirs


_SQLITE_FAULTS = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.FullError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.InterruptError,
    apsw.ConnectionClosedError,
)


def _unavailable(error: apsw.Error) -> Unavailable:
    held = isinstance(error, apsw.BusyError | apsw.LockedError)
    return Busy(str(error)) if held else Unavailable(str(error))


def _tune(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(BUSY_MS)
    connection.pragma("journal_mode", "wal")
    # FULL, not NORMAL: after a power cut NORMAL may forget the last commits, and a code that was
    # spent or a session that was ended would be back.
    connection.pragma("synchronous", "full")
    # Pages; four times the usual. What many commits write again and again is copied once: a tenth less
    # CPU a sign-in, for 16 MB of disk.
    connection.pragma("wal_autocheckpoint", 4000)
    # A plan for good. Otherwise SQLite compiles many statements anew at each use, in case other values
    # call for another plan: longer than the statement itself takes, and by key there is one plan only.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.pragma("foreign_keys", 1)
    # SQLite's own knows only ASCII; PostgreSQL's knows all letters, and so must a search for Özgür.
    connection.create_scalar_function("lower", _lower, 1, deterministic=True)


def _lower(*values: Any) -> str | None:
    (value,) = values
    return None if value is None else str(value).lower()


class PostgreSQL:
    """psycopg with a pool; the same `q`, `tx` and `run`."""

    Unavailable = Unavailable
    skip_locked = "for update skip locked"

    def __init__(self, url: str, size: int = 8):
        import psycopg  # only who uses PostgreSQL pays for loading it
        from psycopg.rows import dict_row
        from psycopg.types.numeric import Int8Dumper
        from psycopg_pool import ConnectionPool

        read_only = psycopg.errors.ReadOnlySqlTransaction  # a server that lost its place to another
        self.errors: tuple[type[Exception], ...] = (psycopg.Error,)
        self._faults = (psycopg.OperationalError, psycopg.InterfaceError, read_only)

        def tune(connection: Any) -> None:
            # psycopg sends a small int as int2; a sum of two of them then overflows.
            connection.adapters.register_dumper(int, Int8Dumper)
            for statement in PG_TIMEOUTS:
                connection.execute(statement)

        self._pool = ConnectionPool(
            url,
            min_size=1,
            max_size=size,
            timeout=POOL_SECONDS,
            open=False,
            configure=tune,
            check=ConnectionPool.check_connection,  # or the first requests after a restart fail
            kwargs={
                "row_factory": dict_row,
                "autocommit": True,
                "connect_timeout": POOL_SECONDS,
                # In ms: a server that fell silent is given up.
                "tcp_user_timeout": 2000 * POOL_SECONDS,
            },
        )
        self._pool.open()
        try:
            self._pool.wait(timeout=POOL_SECONDS)
        except psycopg.OperationalError as error:
            self._pool.close()
            raise Unavailable("can't connect to PostgreSQL") from error

    def q(self, sql: str, **params: Any) -> list[Row]:
        """Rows as dicts, [] when the statement returns none. Raises Unavailable."""
        try:
            with self._pool.connection() as connection:
                return _fetch(connection, sql, params)
        except self._faults as error:
            raise Unavailable(str(error)) from error

    @contextmanager
    def tx(
        self,
        lock: int | None = None,
        patient: bool = False,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> Iterator[Tx]:
        """One transaction; those that name the same `lock` run one after another, on every machine.

        `patient`: without the time-outs, for migrations. `durable`: as on SQLite; when the server
        falls, not only the power. `settings`: for its policies, and over with the transaction.
        """
        try:
            with self._pool.connection() as connection, connection.transaction():
                t = Tx(lambda sql, **params: _fetch(connection, sql, params), connection.execute)
                for statement in PG_PATIENCE if patient else ():
                    connection.execute(statement)
                if not durable:
                    connection.execute("set local synchronous_commit = off")
                for name, value in (settings or {}).items():
                    connection.execute("select set_config(%s, %s, true)", [name, value])
                if lock is not None:
                    connection.execute("select pg_advisory_xact_lock(%s)", [lock])
                yield t
        except self._faults as error:
            raise Unavailable(str(error)) from error
        t.committed()

    @contextmanager
    def snapshot(self) -> Iterator[Tx]:
        """One moment to read, for as long as it takes. Others write meanwhile."""
        try:
            with self._pool.connection() as connection, connection.transaction():
                connection.execute("set transaction isolation level repeatable read, read only")
                for statement in PG_PATIENCE:
                    connection.execute(statement)
                yield Tx(lambda sql, **params: _fetch(connection, sql, params), connection.execute)
        except self._faults as error:
            raise Unavailable(str(error)) from error

    def settle(self) -> None:
        """The server does so by itself."""

    async def run(self, f: Callable[P, T], *args: P.args, **kw: P.kwargs) -> T:
        """Call f in a thread: it waits for the network."""
        return await run_in_threadpool(f, *args, **kw)

    def close(self) -> None:
        self._pool.close()


Database = SQLite | PostgreSQL


@lru_cache(512)
def _pg(sql: str) -> str:
    return re.sub(r"(?<![:\w]):([a-z_]\w*)", r"%(\1)s", sql.replace("%", "%%"))


def _fetch(connection: Any, sql: str, params: Row) -> list[Row]:
    cursor = connection.execute(_pg(sql), params)
    return cursor.fetchall() if cursor.description else []


def connect(url: str) -> Database:
    """sqlite:///relative.db, sqlite:////absolute.db or postgresql://… Raises Unavailable."""
    if url.startswith("sqlite:///"):
        return SQLite(url.removeprefix("sqlite:///"))
    return PostgreSQL(url)


def migrate(db: Database, *folders: Path, upto: Mapping[str, int] | None = None) -> None:
    """Bring the tables of each folder (`auth/migrations`, …) up to date: all of it, or none.

    Files are `0001_name.sql`; where the two databases differ, `0002_name.sqlite.sql` and
    `0002_name.postgresql.sql`; PostgreSQL does not get to read `without rowid`. Safe when several processes start at once: one works, the others
    wait and find nothing to do. Raises RuntimeError when the tables are newer than the code.
    `upto`: to these versions (see `versions`), and no further.
    """
    dialect = "sqlite" if isinstance(db, SQLite) else "postgresql"
    with db.tx(lock=MIGRATION_LOCK, patient=True) as t:
        t.script(
            "create table if not exists schema_versions"
            " (room text primary key, version bigint not null)"
        )
        for folder in folders:
            room = room_name(folder)
            row = t.q("select version from schema_versions where room = :room", room=room)
            done = row[0]["version"] if row else 0
            steps = _steps(folder, dialect)
            wanted = len(steps) if upto is None else upto.get(room, 0)
            if max(done, wanted) > len(steps):
                raise RuntimeError(f"the {room} tables are newer than this code; deploy newer code")
            for step in steps[done:wanted]:
                t.script(_script(step, dialect))
            t.q(
                "insert into schema_versions (room, version) values (:room, :version)"
                " on conflict (room) do update set version = excluded.version",
                room=room,
                version=max(done, wanted),
            )


def _script(step: Path, dialect: str) -> str:
    text = step.read_text(encoding="utf-8")
    return text if dialect == "sqlite" else text.replace(") without rowid;", ");")


def waiting(db: Database, *folders: Path) -> int:
    """How many migrations would run at the next start; changes nothing."""
    dialect, done = "sqlite" if isinstance(db, SQLite) else "postgresql", versions(db)
    return sum(len(_steps(f, dialect)) - done.get(room_name(f), 0) for f in folders)


def versions(db: Database) -> dict[str, int]:
    """How far the tables of each room are; {} for an empty database."""
    dialect = "sqlite" if isinstance(db, SQLite) else "postgresql"
    tables = {
        "sqlite": "select 1 from sqlite_master where name = 'schema_versions'",
        "postgresql": "select 1 from pg_tables where tablename = 'schema_versions'"
        " and schemaname = any (current_schemas(false))",
    }
    rows = db.q("select room, version from schema_versions") if db.q(tables[dialect]) else []
    return {row["room"]: row["version"] for row in rows}


def _steps(folder: Path, dialect: str) -> list[Path]:
    other = "postgresql" if dialect == "sqlite" else "sqlite"
    steps = sorted(p for p in folder.glob("*.sql") if not p.name.endswith(f".{other}.sql"))
    for number, step in enumerate(steps, 1):
        if int(step.name[:4]) != number:
            raise RuntimeError(f"{step.name}: the {room_name(folder)} migrations skip a number")
    return steps


def above_policies(db: Database) -> bool:
    """Does this user of the database see all rows, whatever the policies of the tables say?"""
    if isinstance(db, SQLite):
        return False
    sql = "select rolsuper or rolbypassrls as above from pg_roles where rolname = current_user"
    return any(row["above"] for row in db.q(sql))


def room_name(folder: Path) -> str:
    return folder.resolve().parent.name
