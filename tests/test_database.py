"""The two databases behind one `q` and `tx`: atomic, durable, migrated once, honest when they can't serve."""

import asyncio
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import apsw
import pytest

from auth import MIGRATIONS
from main import OUTBOX_MIGRATIONS
from tests.serving import Tab, together
from utils.database import SQLite, Unavailable, connect, migrate


@pytest.fixture
def db(database_url):
    db = connect(database_url)
    db.q("create table things (id bigint primary key, n bigint not null)")
    db.q("insert into things values (1, 0)")
    yield db
    db.close()


def n(db):
    return db.q("select n from things where id = 1")[0]["n"]


def test_a_transaction_is_whole_or_nothing(db):
    with pytest.raises(ZeroDivisionError), db.tx() as t:
        t.q("update things set n = 5")
        1 / 0  # noqa: B018
    assert n(db) == 0
    with db.tx() as t:
        t.q("update things set n = 6")
    assert n(db) == 6


def test_what_follows_a_commit_follows_only_a_commit(db):
    seen = []
    with db.tx() as t:
        t.on_commit(lambda: seen.append(n(db)))
        t.q("update things set n = 7")
        assert not seen
    assert seen == [7]
    with pytest.raises(ZeroDivisionError), db.tx() as t:
        t.on_commit(lambda: seen.append("no"))
        1 / 0  # noqa: B018
    assert seen == [7]


def test_threads_and_connections_lose_no_update(db, database_url):
    other = connect(database_url)

    def work(i):
        for _ in range(40):
            with (db, other)[i % 2].tx() as t:
                t.q("update things set n = n + :one where id = :id", one=1, id=1)

    together(8, work)
    assert n(db) == 8 * 40
    other.close()


def test_one_threads_rollback_takes_no_other_threads_write_along(db):
    inside, written = threading.Event(), threading.Event()

    def write():
        inside.wait(5)
        db.q("insert into things values (2, 2)")
        written.set()

    thread = threading.Thread(target=write)
    thread.start()
    with pytest.raises(ZeroDivisionError), db.tx() as t:
        t.q("update things set n = 9")
        inside.set()
        1 / 0  # noqa: B018
    thread.join(5)
    assert written.is_set()
    assert [row["id"] for row in db.q("select id from things order by id")] == [1, 2] and n(db) == 0


def test_numbers_are_big_and_percent_signs_are_text(db):
    db.q("update things set n = :a + :b", a=30_000, b=30_000)
    assert n(db) == 60_000
    db.q("update things set n = :n", n=2**40)
    assert db.q("select n from things where '50%' like :p", p="50%")[0]["n"] == 2**40


def test_sqlite_is_durable_and_private(tmp_path):
    db = connect(f"sqlite:///{tmp_path}/new/folder/x.db")
    pragmas = {
        p: db.q(f"pragma {p}")[0]
        for p in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    }
    assert [next(iter(p.values())) for p in pragmas.values()] == ["wal", 2, 1, 5000]
    db.q("create table t (x text)")
    for file in (tmp_path / "new" / "folder").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE((tmp_path / "new" / "folder").stat().st_mode) == 0o700
    db.close()


def test_many_who_migrate_at_once_all_find_the_tables(database_url):
    def start(_):
        db = connect(database_url)
        migrate(db, MIGRATIONS, OUTBOX_MIGRATIONS)
        names = [row["name"] for row in db.q("select name from roles order by name")]
        db.close()
        return names

    assert together(8, start) == [["admin", "user"]] * 8


def test_several_processes_start_together(serve, sink):
    ports = together(3, lambda i: serve(SMTP_PORT=sink.port).port)
    assert len(set(ports)) == 3


def test_a_migration_that_fails_leaves_nothing_behind(database_url, tmp_path):
    folder = tmp_path / "room" / "migrations"
    folder.mkdir(parents=True)
    (folder / "0001_good.sql").write_text(
        "create table good (x text); insert into good values ('a;b');"
    )
    (folder / "0002_bad.sql").write_text(
        "create table half (x text); create table nonsense nonsense;"
    )
    db = connect(database_url)
    with pytest.raises(Exception, match="nonsense"):
        migrate(db, folder)
    with pytest.raises(Exception, match="good"):
        db.q("select * from good")
    (folder / "0002_bad.sql").write_text("create table half (x text);")
    migrate(db, folder)
    migrate(db, folder)
    assert db.q("select * from good") == [{"x": "a;b"}] and db.q("select * from half") == []
    (folder / "0002_bad.sql").unlink()
    with pytest.raises(RuntimeError, match="newer than this code"):
        migrate(db, folder)
    (folder / "0003_gap.sql").write_text("select 1;")
    with pytest.raises(RuntimeError, match="skip a number"):
        migrate(db, folder)
    db.close()


def test_the_audit_log_is_append_only(house, ada):
    house.door().sign_in(ada)
    before = house.rows("events")
    kinds = {row["kind"] for row in before}
    assert {"user_created", "authn_code_requested", "authn_login_success"} <= kinds
    for sql in ("update events set detail = 'x'", "delete from events"):
        with pytest.raises(Exception, match="append-only"):
            house.db.q(sql)
    assert house.rows("events") == before


def test_what_stands_in_the_audit_log_is_not_replaced_either(house, ada):
    before = house.rows("events")
    names = "id, at, kind, detail"
    row = {"id": before[0]["id"], "at": 1, "kind": "forged", "detail": "x"}
    over = f"insert into events ({names}) values (:id, :at, :kind, :detail) on conflict (id) do"
    sqlite = isinstance(house.db, SQLite)
    tries = [f"{over} nothing", f"{over} update set detail = 'x'"]
    if sqlite:
        tries += [f"insert or replace into events ({names}) values (:id, :at, :kind, :detail)"]
        tries += [f"replace into events ({names}) values (:id, :at, :kind, :detail)"]
    for sql in tries:
        with suppress(Exception):
            house.db.q(sql, **row)
        assert house.rows("events") == before, sql


def test_a_database_that_cant_serve_is_503_and_never_a_sign_in(house, ada):
    door = house.door()
    door.sign_in(ada)
    other = house.door()
    other.ask(ada)
    code = other.read_code()
    house.db.close()
    for answer in (
        door.get("/dashboard"),
        other.enter(code),
        other.ask(ada),
        other.post("/resend_code"),
    ):
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
        assert "set-cookie" not in answer.headers and "We can" in answer.text
    assert door.get("/readyz").status_code == 503
    assert door.get("/healthz").json() == {"status": "ok"}
    assert door.get("/login").status_code == 503  # who is asking can't be told


def test_a_write_lock_that_is_held_too_long_is_503_and_then_all_is_well(build, tmp_path):
    url = f"sqlite:///{tmp_path}/locked.db"  # only SQLite locks the whole database
    house = build(DATABASE_URL=url, SIGNUP="open")
    lock = apsw.Connection(str(tmp_path / "locked.db"))
    lock.execute("begin immediate")
    door = house.door()
    assert door.ask("a@example.org").status_code == 503
    lock.execute("rollback")
    lock.close()
    assert door.ask("a@example.org").status_code == 303
    assert door.enter(door.read_code()).status_code == 303


def test_what_began_is_not_given_up_for_a_lock_of_a_moment(tmp_path):
    path = tmp_path / "held.db"
    db, other = SQLite(path), apsw.Connection(str(path))
    db.q("create table notes (text text)")

    def write_twice():
        db.q("insert into notes values ('one')")
        other.execute("begin immediate")
        threading.Timer(0.2, lambda: other.execute("rollback")).start()
        with (
            db.tx() as t
        ):  # in the second one of a request it is too late to begin anew in a thread
            t.q("insert into notes values ('two')")

    # In a thread: where browser tests ran before in this process, their event loop is still here.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(db.run(write_twice))).result()
    assert [row["text"] for row in db.q("select text from notes")] == ["one", "two"]
    db.close()
    other.close()


def test_the_event_loop_goes_on_while_a_request_waits_for_a_lock(serve, sink, tmp_path):
    server = serve(SMTP_PORT=sink.port, SIGNUP="open", DATABASE_URL=f"sqlite:///{tmp_path}/held.db")
    lock = apsw.Connection(str(tmp_path / "held.db"))
    lock.execute("begin immediate")
    answers = []

    def ask():
        answers.append(Tab(server).post("/create_code", email="a@example.org").status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    tab = Tab(server)
    for _ in range(20):
        assert tab.get("/healthz").status_code == 200
    assert tab.get("/dashboard").status_code == 303
    assert not answers and thread.is_alive()  # it waits, and nobody else did
    lock.execute("rollback")
    lock.close()
    thread.join(10)
    assert answers == [303]
    assert sink.code("a@example.org")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    with pytest.raises(Unavailable):
        connect(f"sqlite:///{tmp_path}/x.db").q("select 1")


def test_what_is_in_the_log_is_copied_beside_everybody(tmp_path):
    file = tmp_path / "a.db"
    with closing(SQLite(file)) as db, ThreadPoolExecutor(1) as beside:
        db.q("create table t (x text)")
        with db.tx(durable=False) as t:
            t.q("insert into t (x) values (:x)", x="x" * 100_000)
        before = file.stat().st_size
        with db.tx() as t:
            t.q("insert into t (x) values ('not yet')")
            beside.submit(db.settle).result(timeout=5)  # waits for no transaction
            assert file.stat().st_size >= before + 100_000
        db.settle()
        assert [row["n"] for row in db.q("select count(*) as n from t")] == [2]


def test_sqlite_may_be_closed_while_its_log_is_copied_into_the_file(tmp_path):
    for n in range(20):
        db = connect(f"sqlite:///{tmp_path}/{n}.db")
        db.q("create table t (x text)")
        with db.tx() as t:
            for _ in range(2000):
                t.q("insert into t (x) values (:x)", x="x" * 500)
        with ThreadPoolExecutor(2) as pool:
            copying = [pool.submit(db.settle) for _ in range(2)]
            db.close()
        assert [done.result() for done in copying] == [None, None]
        db.settle()
        assert not (tmp_path / f"{n}.db-wal").exists()
