"""What the tests stand on: a database that another test had is as good as new."""

import stat
from contextlib import closing

import psycopg
import pytest

from tests.conftest import ADMIN
from tests.databases import ROOMS, USES, url_of
from utils.database import Unavailable, connect, migrate, versions

only_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
TABLES = "select relname from pg_class where relkind = 'r' and relnamespace = current_schema()::regnamespace"

# One of each kind of thing that a test may leave behind, beside rows.
LEFT = [
    "create table notes (n bigint)",
    "create table public.t (n bigint); drop table public.t; create view ours as select 1",
    "create sequence numbers",
    "create type mood as enum ('well')",
    "create function one() returns int language sql as 'select 1'",
    "create or replace function users_sought() returns trigger language plpgsql as"
    " 'begin return new; end'",
    "create index users_name on users (name)",
    "drop index users_role",
    "alter table users add column later text not null default ''",
    "alter table users drop column zone_chosen",
    "alter table users alter column name drop default",
    "alter table users alter column name set default 'x'",
    "alter table users add check (name <> 'x')",
    "alter table users rename column name to called",
    "alter table users set (autovacuum_enabled = false)",
    "alter table users disable trigger all",
    "alter table counters rename to elsewhere; alter table elsewhere rename to counters",
    "drop trigger events_no_change on events",
    "drop policy inside_one_tenant on tenants",
    "alter policy inside_one_tenant on tenants using (true)",
    "alter table tenants no force row level security",
    "create rule nothing as on insert to counters do instead nothing",
    "grant select on users to public",
    "grant usage on schema {schema} to public",
    "truncate counters",
    "analyze users",
    "vacuum roles",
    "create statistics seen on kind, at from events",
    "drop table daily",
    "comment on table users is 'odd'",
]


def contents(url):
    """All that is in a database, by table."""
    with psycopg.connect(url, autocommit=True) as connection:
        tables = [name for (name,) in connection.execute(TABLES).fetchall()]
        return {t: sorted(map(repr, connection.execute(f"select * from {t}"))) for t in tables}


@pytest.fixture
def brand_new(postgres):
    """What the migrations alone put into a database."""
    name = "brand_new"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"create schema {name}")
        with closing(connect(url_of(postgres, name))) as db:
            migrate(db, *ROOMS)
        found = contents(url_of(postgres, name))
        connection.execute(f"drop schema {name} cascade")
    return found


def test_the_rows_of_one_test_are_not_there_for_the_next(brand_new, recycled):
    url = recycled.url()
    assert contents(url) == brand_new
    with psycopg.connect(url) as connection:
        for table in brand_new:
            # One row in each, whatever its columns are.
            columns = connection.execute(
                "select column_name, data_type from information_schema.columns"
                " where table_schema = current_schema() and table_name = %s",
                [table],
            ).fetchall()
            values = [
                "0" if kind == "bigint" else "dead" if name == "state" else "left"
                for name, kind in columns
            ]
            connection.execute("set local session_replication_role = replica")
            connection.execute(
                f"insert into {table} values ({', '.join(['%s'] * len(values))})", values
            )
        connection.execute("delete from roles where name = 'user'")
        connection.execute("update schema_versions set version = version + 1")
    assert all("left" in "".join(rows) for rows in contents(url).values())
    name, schema = recycled.name, recycled.schema
    assert contents(recycled.url()) == brand_new
    assert recycled.schema == schema and recycled.name != name


@pytest.mark.parametrize("change", LEFT)
def test_a_schema_that_a_test_changed_is_not_used_again(recycled, change):
    url = recycled.url()
    schema = recycled.schema
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(change.format(schema=recycled.name))
    recycled.url()
    assert recycled.schema != schema


def test_a_schema_that_was_read_and_written_is_used_again(recycled):
    url = recycled.url()
    schema = recycled.schema
    with closing(connect(url)) as db:
        db.q("insert into roles (name) values ('guest')")
        migrate(db, *ROOMS)
    recycled.url()
    assert recycled.schema == schema


def test_a_schema_with_many_rows_and_one_of_many_uses_are_dropped(recycled):
    with psycopg.connect(recycled.url(), autocommit=True) as connection:
        connection.execute(
            "insert into counters select 'k' || n, 1, 1, 1 from generate_series(1, 2000) n"
        )
    schema = recycled.schema
    recycled.url()
    assert recycled.schema != schema
    seen = [recycled.url() and recycled.schema for _ in range(USES + 1)]
    assert len(set(seen)) == 2


def test_who_stayed_behind_writes_nothing_any_more(brand_new, recycled):
    url = recycled.url()
    with closing(connect(url)) as stayed:
        with pytest.raises(Unavailable), stayed.tx() as t:
            t.q("insert into roles (name) values ('late')")
            new = recycled.url()
            t.q("insert into roles (name) values ('later')")
        assert contents(new) == brand_new
        # It connects again, and finds nothing.
        with pytest.raises(psycopg.errors.UndefinedTable):
            stayed.q("insert into roles (name) values ('late')")
    assert contents(new) == brand_new


@pytest.mark.parametrize(
    ("left", "tidy"),
    [
        ("create role left_behind", "drop role left_behind"),
        ("alter role postgres set work_mem = '1MB'", "alter role postgres reset work_mem"),
        ("create table public.left_behind (n bigint)", "drop table public.left_behind"),
    ],
)
def test_what_a_test_leaves_beside_its_schema_is_an_error(postgres, recycled, left, tidy):
    recycled.url()
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(left)
    try:
        with pytest.raises(AssertionError, match="left a role"):
            recycled.url()
    finally:
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(tidy)
    recycled.url()


def test_a_database_is_migrated_for_who_asks_and_nobody_is_in_it(migrated, database_url):
    with closing(connect(database_url)) as db:
        assert set(versions(db)) == {"auth", "utils"} and db.q("select * from users") == []
        assert migrate(db, *ROOMS) is None


def test_else_it_is_empty(database_url):
    with closing(connect(database_url)) as db:
        assert versions(db) == {}


@pytest.mark.unused
@only_postgresql
def test_or_one_that_nobody_had_before(migrated, database_url, request):
    with closing(connect(database_url)) as db:
        assert versions(db) == {}


def test_copies_of_a_file_have_nothing_in_common(copied, tmp_path):
    urls = []
    for name in "ab":
        (tmp_path / name).mkdir()
        urls.append(copied.url(tmp_path / name))
    assert stat.S_IMODE((tmp_path / "a" / "vestibule.db").stat().st_mode) == 0o600
    one, other = map(connect, urls)
    with closing(one), closing(other):
        one.q("insert into roles (name) values ('guest')")
        assert len(one.q("select * from roles")) == len(other.q("select * from roles")) + 1
        assert one.q("pragma journal_mode") == other.q("pragma journal_mode")


@pytest.mark.parametrize("time", [1, 2])
def test_a_house_knows_nobody_of_the_house_before(house, admin, time):
    assert [row["address"] for row in house.rows("users")] == [ADMIN]
    house.add("ada@example.org")
    house.db.q("insert into roles (name) values ('guest')")
    assert len(house.rows("roles")) == 3
