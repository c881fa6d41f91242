"""What all tables hold at one moment, in one file, and the way back. Knows no table by name.

The file is an SQLite database wherever its rows come from: both databases keep the same texts and numbers, so
what was saved from the one can be put back into the other. It has the tables that the migrations make, at the
version that they had, and no others.
"""

import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import apsw

from utils.database import (
    MIGRATION_LOCK,
    Database,
    Row,
    SQLite,
    Tx,
    Unavailable,
    migrate,
    versions,
)

STEP = 500  # rows that are read at once
FEW = 20  # and written: SQLite looks for each parameter by its name among all of the statement's
# What shows how far it is: bar(length) as a context, whose `update(n)` is told of each step.
Bar = Callable[[int], AbstractContextManager[Any]]
_OWN = ("schema_versions", "backup")
_DAMAGED = (Unavailable, apsw.Error, ValueError)  # the last one for texts that are no texts


class Unusable(Exception):
    """Can't be saved, or put back, for the reason that is said. Nothing was changed."""


@dataclass(frozen=True)
class Backup:
    """A file that was found to be whole."""

    file: SQLite
    made_at: int
    rows: int


@dataclass(frozen=True)
class Table:
    """Names only. `key`: the columns of the primary key."""

    name: str
    columns: list[str]
    key: list[str]


def save(db: Database, path: Path, now: int, bar: Bar, *folders: Path, force: bool = False) -> int:
    """Write what is in the database at this moment to a new file; the app goes on. Says how many rows.

    Raises Unusable.
    """
    if isinstance(db, SQLite) and path.exists() and path.samefile(_place(db)):
        raise Unusable(f"{path} is the database itself; take another name")
    if path.exists() and not force:
        raise Unusable(f"{path} is there already; take another name, or --force")
    found = versions(db)
    if not found:
        raise Unusable("there is nothing in the database; check DATABASE_URL")
    try:
        # Under its name it is whole, or not there. The folder is for this user alone.
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=path.parent) as folder:
            part = Path(folder) / "backup.db"
            with closing(SQLite(part)) as file:
                migrate(file, *folders, upto=found)
                rows, checksum = _copy(db, file, bar)
                file.q("create table backup (made_at bigint, total bigint, checksum bigint)")
                file.q("insert into backup values (:a, :b, :c)", a=now, b=rows, c=checksum)
                _checked(file)
                file.q("pragma journal_mode = delete")  # one file, that a read-only disk may hold
            _synced(part)
            part.replace(path)
            _synced(path.parent)
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from error
    except (Unavailable, RuntimeError, apsw.Error) as error:  # such as a full disk, or newer tables
        raise Unusable(f"not saved: {error}") from error
    return rows


def _place(db: SQLite) -> str:
    return str(db.q("pragma database_list")[0]["file"])


def _copy(db: Database, file: SQLite, bar: Bar) -> tuple[int, int]:
    """(how many rows, their checksum)"""
    tables, rows, checksum = _tables(file), 0, 0
    with db.snapshot() as source, file.tx() as t:
        total = sum(_count(source, table) for table in tables)
        # What a trigger has made of a row is in the row already, by whatever database.
        triggers = t.q("select name, sql from sqlite_master where type = 'trigger'")
        for trigger in triggers:
            drop = _DROP.format(**trigger)
            t.q(drop)
        _empty(t, tables)
        with bar(total) as shown:
            for table, some in _all_rows(source, tables):
                _insert(t, table, some)
                rows, checksum = rows + len(some), checksum + _sum(table, some)
                shown.update(len(some))
        for trigger in triggers:
            t.q(trigger["sql"])
    if rows != total:
        raise Unusable(f"{total} rows are there, and {rows} were read")
    return rows, checksum


@contextmanager
def opened(path: Path, *folders: Path) -> Iterator[Backup]:
    """A file of `save`, found to be whole and brought up to date, in a copy. Raises Unusable."""
    with tempfile.TemporaryDirectory(prefix="vestibule-") as folder:
        copy = Path(folder) / "backup.db"
        try:
            shutil.copyfile(path, copy)
            file = SQLite(copy)
        except OSError as error:
            raise Unusable(f"{path}: {error.strerror}") from error
        except Unavailable as error:
            raise Unusable(f"{path} is no backup, or a damaged one") from error
        with closing(file):
            made_at, rows = _checked(file, str(path))
            try:
                migrate(file, *folders)
            except RuntimeError as error:
                raise Unusable(f"{path}: {error}") from error
            yield Backup(file, made_at, rows)


def _checked(file: SQLite, name: str = "the new file") -> tuple[int, int]:
    """(when it was made, how many rows). A bit that fell over is found: SQLite looks after its own
    structures, and the checksum after what is in them."""
    try:
        [told] = file.q("select made_at, total, checksum from backup")
        whole = file.q("pragma integrity_check") == [{"integrity_check": "ok"}]
        sums = [(len(some), _sum(table, some)) for table, some in _all_rows(file, _tables(file))]
    except _DAMAGED as error:
        raise Unusable(f"{name} is no backup, or a damaged one") from error
    found = sum(n for n, _ in sums), sum(n for _, n in sums)
    if not whole or found != (told["total"], told["checksum"]):
        raise Unusable(f"{name} is damaged")
    return told["made_at"], told["total"]


def put_back(
    db: Database,
    backup: Backup,
    merged: Collection[str],
    afterwards: Callable[[Tx], object],
    bar: Bar,
) -> None:
    """Make the tables what they were: all of it, or nothing. Then `afterwards`, in the same transaction.

    The database is to be migrated. `merged` tables keep what they have, and get back what they miss.
    Raises Unusable.
    """
    tables = _tables(backup.file)
    try:
        with db.tx(lock=MIGRATION_LOCK, patient=True) as t, bar(backup.rows) as shown:
            _empty(t, [table for table in tables if table.name not in merged])
            for table, some in _all_rows(backup.file, tables):
                _insert(t, table, some, keep=table.name in merged)
                shown.update(len(some))
            afterwards(t)
    except db.errors as error:
        raise Unusable(f"this database does not take what is in the backup: {error}") from error


def _tables(file: SQLite) -> list[Table]:
    """Those of the migrations; each after the ones that it points to."""
    found = {r["name"] for r in file.q("select name from sqlite_master where type = 'table'")}
    names = sorted(name for name in found if name not in _OWN and not name.startswith("sqlite_"))
    parents = {
        name: {row["parent"] for row in file.q(_POINTS_TO, name=name)} - {name} for name in names
    }
    tables = []
    for name in TopologicalSorter(parents).static_order():
        columns = file.q(_COLUMNS, name=name)
        keys = sorted((row["pk"], row["name"]) for row in columns if row["pk"])
        tables.append(Table(name, [row["name"] for row in columns], [key for _, key in keys]))
        # A file may come from anywhere, and its names go into statements.
        if not all(re.fullmatch("[a-z_]+[a-z0-9_]*", word) for word in (name, *tables[-1].columns)):
            raise ValueError("a name that none of ours has")
    return tables


def _all_rows(source: Any, tables: Collection[Table]) -> Iterator[tuple[Table, list[Row]]]:
    """All rows, in steps. By the primary key: nothing is read twice or held in memory."""
    for table in tables:
        rows = source.q(_sql(_FIRST, table))
        while rows:
            yield table, rows
            rows = source.q(_sql(_NEXT, table), **{name: rows[-1][name] for name in table.key})


def _insert(t: Tx, table: Table, rows: list[Row], keep: bool = False) -> None:
    for start in range(0, len(rows), FEW):
        _insert_few(t, table, rows[start : start + FEW], keep)


def _insert_few(t: Tx, table: Table, rows: list[Row], keep: bool) -> None:
    values = ", ".join(
        f"({', '.join(f':{name}_{i}' for name in table.columns)})" for i in range(len(rows))
    )
    given = {f"{name}_{i}": value for i, row in enumerate(rows) for name, value in row.items()}
    t.q(_sql(_INSERT, table, values=values, kept=_KEPT if keep else ""), **given)


def _empty(t: Tx, tables: Collection[Table]) -> None:
    for table in reversed(list(tables)):
        t.q(_sql(_EMPTY, table))


def _count(source: Any, table: Table) -> int:
    return int(source.q(_sql(_COUNT, table))[0]["n"])


_POINTS_TO = 'select "table" as parent from pragma_foreign_key_list(:name)'
_COLUMNS = "select name, pk from pragma_table_info(:name) order by cid"
_DROP = "drop trigger {name}"
_FIRST = "select {columns} from {table} order by {key} limit {step}"
_NEXT = "select {columns} from {table} where ({key}) > ({after}) order by {key} limit {step}"
_INSERT = "insert into {table} ({columns}) values {values}{kept}"
_KEPT = " on conflict do nothing"
_EMPTY = "delete from {table}"
_COUNT = "select count(*) as n from {table}"


def _sql(sql: str, table: Table, **more: str) -> str:
    columns, key = ", ".join(table.columns), ", ".join(table.key)
    after = ", ".join(f":{name}" for name in table.key)
    names = {"table": table.name, "columns": columns, "key": key, "after": after, "step": STEP}
    return sql.format(**names, **more)


def _sum(table: Table, rows: list[Row]) -> int:
    """The same in whatever order rows come: two databases may sort texts differently."""
    rows_as_text = (repr([table.name, *(row[name] for name in table.columns)]) for row in rows)
    return sum(zlib.crc32(text.encode()) for text in rows_as_text)


def _synced(path: Path) -> None:
    """On the disk, not only written."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
