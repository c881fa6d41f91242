"""Databases for tests, which need not be made anew for each: one that is migrated is given to test after test.

Whoever gets one finds what the migrations put there and nothing else. That holds whatever the test before
did: see `Recycled`. tests/test_databases.py tries it.
"""

import json
import os
import shutil
import time
import uuid
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg

from auth import MIGRATIONS
from main import OUTBOX_MIGRATIONS
from utils.database import connect, migrate

ROOMS = MIGRATIONS, OUTBOX_MIGRATIONS
# What is thrown away need not survive a power cut. tests/faults has a cluster of its own, that does.
CONFIGURATION = """
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
autovacuum = off
jit = off
shared_buffers = 32MB
max_wal_size = 64MB
min_wal_size = 32MB
checkpoint_timeout = 1h
"""
USES = 100  # then a new schema: what tests deleted is there still, as dead rows
ROWS = 1000  # one test may leave in a schema that is used again

# All that a test may change in a schema beside its rows. A change of a row in a catalog makes a new version of
# it, with another xmin; relpages and reltuples change in place.
SHAPE = """
with tables as (select oid from pg_class where relnamespace = %(schema)s), parts (part) as (
    select row(oid, xmin, relpages, reltuples)::text from pg_class where relnamespace = %(schema)s
    union all select row(attrelid, attnum, xmin)::text from pg_attribute
        where attrelid in (select oid from tables)
    union all select row('default', oid, xmin)::text from pg_attrdef
        where adrelid in (select oid from tables)
    union all select row('index', indexrelid, xmin)::text from pg_index
        where indrelid in (select oid from tables)
    union all select row('constraint', oid, xmin)::text from pg_constraint
        where connamespace = %(schema)s
    union all select row('trigger', oid, xmin)::text from pg_trigger
        where tgrelid in (select oid from tables)
    union all select row('policy', oid, xmin)::text from pg_policy
        where polrelid in (select oid from tables)
    union all select row('rule', oid, xmin)::text from pg_rewrite
        where ev_class in (select oid from tables)
    union all select row('statistics', starelid, staattnum)::text from pg_statistic
        where starelid in (select oid from tables)
    union all select row('comment', objoid, objsubid, xmin)::text from pg_description
        where classoid = 'pg_class'::regclass and objoid in (select oid from tables)
    union all select row('function', oid, xmin)::text from pg_proc where pronamespace = %(schema)s
    union all select row('anything', classid, objid)::text from pg_depend
        where refclassid = 'pg_namespace'::regclass and refobjid = %(schema)s
    union all select row('rights', nspowner, nspacl)::text from pg_namespace where oid = %(schema)s
)
select md5(string_agg(part, ' ' order by part)) from parts
"""
# What lies beside the schemas, and what a new schema would not help against.
BESIDE = """
select concat_ws(' ',
    (select array_agg(r order by rolname) from pg_roles r),
    (select array_agg(m order by oid) from pg_auth_members m),
    (select array_agg(s order by setdatabase, setrole) from pg_db_role_setting s),
    (select array_agg(oid order by oid) from pg_class where relnamespace = 'public'::regnamespace))
"""
OTHERS = """
select pg_terminate_backend(pid) from pg_stat_activity
where pid <> pg_backend_pid() and backend_type = 'client backend'
"""


def somewhere() -> str | None:
    """A folder in memory, if there is room in it: nothing here has to wait for a disk."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        return None
    return str(memory) if shutil.disk_usage(memory).free > 4 * 2**30 else None


def new_name() -> str:
    return f"t{uuid.uuid4().hex}"


def url_of(uri: str, schema: str) -> str:
    return f"{uri}{'&' if '?' in uri else '?'}options={quote(f'-csearch_path={schema}')}"


class Recycled:
    """A schema of PostgreSQL that goes from test to test.

    Each test gets it under a new name, so that whatever still runs from the test before can't find it; whoever
    is connected is thrown out; then the rows go, past all triggers. A schema of which anything but the rows
    has changed is dropped.
    """

    def __init__(self, uri: str):
        self._uri, self._keeper = uri, psycopg.connect(uri, autocommit=True)
        self._beside = self._one(BESIDE)
        self.name, self.schema, self._uses = "", 0, 0

    def _one(self, sql, **values):
        return self._keeper.execute(sql, values, prepare=False).fetchone()[0]

    def url(self) -> str:
        """As new: migrated, and nobody has been here."""
        if self.name:
            self._take_away()
        if not self.name:
            self._make()
        self._uses += 1
        return url_of(self._uri, self.name)

    def _take_away(self):
        """From whoever had it."""
        old, self.name = self.name, new_name()
        self._keeper.execute(f"alter schema {old} rename to {self.name}")
        deadline = time.monotonic() + 10
        while self._keeper.execute(OTHERS).rowcount:
            assert time.monotonic() < deadline, "somebody does not leave the database"
            time.sleep(0.001)
        assert self._one(BESIDE) == self._beside, "a test left a role, a right or a table behind"
        if self._uses == USES or self._one(SHAPE, schema=self.schema) != self._shape:
            return self._drop()
        if self._emptied() > ROWS:
            self._drop()

    def _drop(self):
        self._keeper.execute(f"drop schema {self.name} cascade")
        self.name = ""

    def _make(self):
        self.name, self._uses = new_name(), 0
        self._keeper.execute(f"create schema {self.name}")
        with closing(connect(url_of(self._uri, self.name))) as db:
            migrate(db, *ROOMS)
        self.schema = self._one("select %(name)s::regnamespace::oid", name=self.name)
        self._shape = self._one(SHAPE, schema=self.schema)
        tables = self._keeper.execute(
            "select relname from pg_class where relnamespace = %s and relkind = 'r'", [self.schema]
        )
        self._rows = {table: self._all(table) for (table,) in tables.fetchall()}

    def _all(self, table):
        return self._one(f"select json_agg(t) from {self.name}.{table} t")

    def _emptied(self) -> int:
        """How many rows there were. Those of the migrations are there again."""
        script = ["begin; set local session_replication_role = replica"]
        script += [f"delete from {self.name}.{table}" for table in self._rows]
        for table, rows in self._rows.items():
            if rows:
                table = f"{self.name}.{table}"
                text = psycopg.sql.quote(json.dumps(rows))
                script.append(
                    f"insert into {table} select * from json_populate_recordset(null::{table}, {text})"
                )
        done, n = self._keeper.execute("; ".join([*script, "commit"])), 0
        while True:
            if (done.statusmessage or "").startswith("DELETE"):
                n += done.rowcount
            if not done.nextset():
                return n

    def close(self):
        self._keeper.close()


class Copied:
    """A file of SQLite that was migrated once, and is copied for each test."""

    def __init__(self, folder: Path):
        self._file = folder / "migrated.db"
        with closing(connect(f"sqlite:///{self._file}")) as db:
            migrate(db, *ROOMS)

    def url(self, folder: Path) -> str:
        file = folder / "vestibule.db"
        shutil.copyfile(self._file, file)
        file.chmod(0o600)
        return f"sqlite:///{file}"
