"""Disks that are full, broken, lost with the power or nobody's to write; and a process that has no descriptor left.

FLIPS says how many broken copies of a file are tried; 60 by default, 200 now and then.
"""

import os
import random
import resource
import socket
import subprocess
import sys
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path

import apsw
import pytest

import main
from auth.testing import Mailbox
from tests.conftest import Clock, House, environment
from tests.faults import history
from tests.faults.conftest import sqlite_only
from tests.serving import ROOT, Tab, until
from utils.database import Unavailable, connect
from utils.disks import network_disk
from utils.settings import check, read

FLIPS = int(os.environ.get("FLIPS") or 60)
ADA = "ada@example.org"


@contextmanager
def limited(server, which, soft):
    """Less of something for a process that runs; afterwards as much as before."""
    before = resource.prlimit(server.process.pid, which)
    resource.prlimit(server.process.pid, which, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.process.pid, which, before)


# ---- M4: full
@sqlite_only
def test_M4_a_full_disk_is_503_and_with_room_all_is_well(serve, chaos, tmp_path):
    """No file of the process can grow: not the database, not its journal, not the log."""
    url = f"sqlite:///{tmp_path}/full.db"
    server = serve(SMTP_PORT=chaos.port, SIGNUP="open", DATABASE_URL=url)
    numbers = count()

    def ask():
        tab, address = Tab(server), f"p{next(numbers)}@example.org"
        return tab, address, tab.post("/create_code", email=address)

    inside, address, _ = ask()
    inside.post("/verify_code", code=chaos.code(address))
    waiting, owner, _ = ask()
    code = chaos.code(owner)
    room = max(file.stat().st_size for file in tmp_path.iterdir() if file.is_file())
    with limited(server, resource.RLIMIT_FSIZE, room):
        answer = until(lambda: (a := ask()[2]).status_code != 303 and a)
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
        for tab, path, fields in (
            (waiting, "/verify_code", {"code": code}),
            (inside, "/logout", {}),
        ):
            answer = tab.post(path, **fields)
            assert answer.status_code == 503 and "set-cookie" not in answer.headers, path
        assert inside.signed_in and not waiting.signed_in  # reading goes on
        assert Tab(server).get("/healthz").status_code == 200
    assert waiting.post("/verify_code", code=code).status_code == 303 and waiting.signed_in
    assert inside.post("/logout").status_code == 303
    tab, address, answer = ask()
    assert answer.status_code == 303
    assert tab.post("/verify_code", code=chaos.code(address)).status_code == 303
    with closing(connect(url)) as db:
        until(lambda: not db.q("select 1 from outbox where state in ('queued', 'sending')"))
        assert set(history.check(db).values()) == {1}
        assert db.q("pragma integrity_check") == [{"integrity_check": "ok"}]


def fill_up(house):
    """No room for another page; returns what makes room again."""
    if hasattr(house.db, "_pool"):
        house.db.q(
            "create function full_disk() returns trigger language plpgsql as $$ begin"
            " raise exception 'no space left on device' using errcode = '53100'; end $$"
        )
        house.db.q(
            "create trigger full_disk before insert or update on challenges"
            " for each row execute function full_disk()"
        )
        return lambda: house.db.q("drop trigger full_disk on challenges")
    pages = house.db.q("pragma page_count")[0]["page_count"]
    house.db.q(f"pragma max_page_count = {pages}")
    return lambda: house.db.q("pragma max_page_count = 1000000")


def test_M4_a_database_without_room_takes_nothing_in_halves(build):
    house = build(SIGNUP="open")
    house.door().sign_in(ADA)
    make_room = fill_up(house)
    refused = 0
    for n in range(200):
        before = {t: len(house.rows(t)) for t in ("challenges", "outbox", "events")}
        answer = house.door().ask(f"p{n}@example.org")
        after = {t: len(house.rows(t)) for t in ("challenges", "outbox", "events")}
        grown = {after[t] - before[t] for t in after}
        assert answer.status_code in (303, 503) and len(grown) == 1
        assert grown == {int(answer.status_code == 303)}
        refused += answer.status_code == 503
        if refused == 3:
            break
    assert refused == 3
    make_room()
    house.door().sign_in("later@example.org")
    assert history.check(house.db)["later@example.org"] == 1


# ---- M5: the power
class File(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        self.disk, self.path = disk, name.filename() if hasattr(name, "filename") else name
        super().__init__("unix", name, flags)

    def xSync(self, flags):
        super().xSync(flags)
        if self.path:
            self.disk.kept[self.path] = Path(self.path).read_bytes()


class Frail(apsw.VFS):
    """A disk that forgets with the power whatever nobody asked it to keep."""

    def __init__(self):
        self.kept = {}
        super().__init__("frail", "unix", makedefault=True)

    def xOpen(self, name, flags):
        return File(self, name, flags)

    def xDelete(self, name, sync):
        self.kept.pop(name, None)
        super().xDelete(name, sync)

    def after_the_cut(self, folder):
        """The database as it comes up again."""
        folder.mkdir()
        for path, content in self.kept.items():
            (folder / Path(path).name).write_bytes(content)
        return connect(f"sqlite:///{folder}/frail.db")


@pytest.fixture
def frail():
    disk = Frail()
    yield disk
    disk.unregister()


def test_M5_what_was_answered_is_there_after_the_power_was_cut(frail, tmp_path):
    env = environment(f"sqlite:///{tmp_path}/frail.db", tmp_path, SIGNUP="open")
    settings, _ = check(read(env, None))
    mailbox = Mailbox()
    house = House(main.build(settings, Clock(), mailbox), mailbox, Clock())
    expected = {"asked": 0, "used": 0, "sessions": 0}
    cuts = count()

    def cut():
        with closing(frail.after_the_cut(tmp_path / f"cut{next(cuts)}")) as db:
            used = db.q("select 1 from challenges where used_at is not null")
            there = (
                len(db.q("select 1 from challenges")),
                len(used),
                len(db.q("select 1 from sessions")),
            )
            assert there == tuple(expected.values())
            history.check(db)

    for n in range(6):
        door = house.door()
        assert door.ask(f"p{n}@example.org").status_code == 303
        expected["asked"] += 1
        cut()
        assert door.enter(door.read_code()).status_code == 303
        expected["used"] += 1
        expected["sessions"] += 1
        cut()
        if n % 2:
            assert door.post("/logout").status_code == 303
            expected["sessions"] -= 1
            cut()
    house.db.close()
    assert next(cuts) == 15


# ---- M9: a file that is not what it was
# SQLite quotes the broken file in its log, and the driver can't make a text of that.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_M9_a_broken_file_signs_nobody_in_who_was_not(tmp_path):
    """One byte of it is another, here and there: no start, or an error page, or the truth."""
    seed = int(os.environ.get("SEED") or random.randrange(10**6))
    print(f"SEED={seed} FLIPS={FLIPS}")  # shown when it fails
    chance, settled = random.Random(seed), []
    path = tmp_path / "broken.db"
    env = environment(f"sqlite:///{path}", tmp_path, SIGNUP="open")
    settings, _ = check(read(env, None))

    def start():
        mailbox = Mailbox()
        return House(main.build(settings, Clock(), mailbox), mailbox, Clock())

    house = start()
    people = [f"p{n}@example.org" for n in range(8)]
    inside, outside = [], []
    for person in people:
        door = house.door()
        door.sign_in(person)
        inside.append(dict(door.client.cookies))
    for person in people:
        door = house.door()
        door.ask(person)
        outside.append((dict(door.client.cookies), door.read_code()))
    ended = house.door()
    ended.sign_in(ADA)
    gone = dict(ended.client.cookies)
    ended.post("/logout")
    house.db.close()
    whole = path.read_bytes()

    def door_with(cookies):
        door = house.door()
        door.client.cookies.update(cookies)
        return door

    told = {"refused": 0, "errors": 0, "true": 0}
    for _ in range(FLIPS):
        at, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
        for left in tmp_path.glob("broken.db-*"):
            left.unlink()
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        try:
            house = start()
        except Exception as error:
            told["refused"] += 1
            settled.append(type(error).__name__)
            continue
        n = chance.randrange(len(people))
        cookies, code = outside[n]
        wrong = f"{(int(code) + 1) % 10**6:06d}"
        seen = [
            door_with(inside[n]).get("/dashboard"),
            door_with(gone).get("/dashboard"),
            house.door().get("/dashboard"),
            door_with(cookies).post("/verify_code", code=wrong),
            door_with(outside[n - 1][0]).post("/verify_code", code=code),
        ]
        if seen[0].status_code == 200:
            assert not any(other in seen[0].text for other in people if other != people[n])
        for answer in seen[1:3]:
            assert answer.status_code != 200, (at, bit)
        for answer in seen[3:]:
            assert answer.status_code != 303 or code == outside[n - 1][1], (at, bit)
            assert "__Host-session=" not in answer.headers.get("set-cookie", ""), (at, bit)
        failed = any(answer.status_code >= 500 for answer in seen)
        told["errors" if failed else "true"] += 1
        house.db.close()
    print(told, set(settled))
    assert sum(told.values()) == FLIPS and told["true"]


@sqlite_only
def test_M9_a_start_on_a_broken_file_says_what_to_do(serve, tmp_path):
    (tmp_path / "x.db").write_bytes(b"SQLite format 3\0" + os.urandom(8192))
    with pytest.raises(RuntimeError, match="DATABASE_URL: ") as told:
        serve(DATABASE_URL=f"sqlite:///{tmp_path}/x.db")
    assert "Traceback" not in str(told.value)


# ---- M12: descriptors
@sqlite_only
def test_M12_with_no_descriptor_left_it_stays_alive_and_comes_back(serve, chaos):
    server = serve(SMTP_PORT=chaos.port, SIGNUP="open")
    tab = Tab(server)
    assert tab.post("/create_code", email=ADA).status_code == 303
    code, written = chaos.code(ADA), len(server.log)
    with limited(server, resource.RLIMIT_NOFILE, 64):
        crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        until(lambda: len(os.listdir(f"/proc/{server.process.pid}/fd")) >= 62)
        until(lambda: tab.get("/healthz").status_code == 200)  # who was here before is served
        for s in crowd:
            s.close()
        until(lambda: served(server))
    assert tab.post("/verify_code", code=code).status_code == 303 and tab.signed_in
    assert len(server.log) - written < 100_000, "the log fills the disk"


def served(server):
    with suppress(OSError):
        s = socket.create_connection(("127.0.0.1", server.port), timeout=1)
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with closing(s):
            return s.recv(100).startswith(b"HTTP/1.1 200")
    return False


# ---- M13: places where no database can be
OPEN = """
import os, sys
sys.path.insert(0, sys.argv[1])
from utils.database import Unavailable, connect
if os.geteuid() == 0:  # root may write anywhere
    os.setgid(65534)
    os.setuid(65534)
try:
    connect("sqlite:///" + sys.argv[2]).q("create table notes (text text)")
except Unavailable as error:
    print("refused:", error)
"""


def test_M13_a_place_where_no_database_can_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "x.db", tmp_path / "folder"):
        with pytest.raises(Unavailable):
            connect(f"sqlite:///{path}").q("select 1")


@contextmanager
def reachable(folder):
    """For a user who is nobody, too: the folder, and what is above it."""
    closed = {above: above.stat().st_mode for above in folder.parents}
    closed = {above: mode for above, mode in closed.items() if mode & 0o011 != 0o011}
    for above, mode in closed.items():
        above.chmod(mode | 0o011)
    try:
        yield
    finally:
        for above, mode in closed.items():
            above.chmod(mode)


@pytest.mark.parametrize("what", ["folder", "file"])
def test_M13_somebody_elses_folder_or_file_is_refused(tmp_path, what):
    folder = tmp_path / "theirs"
    folder.mkdir()
    if what == "file":
        connect(f"sqlite:///{folder}/x.db").close()
        (folder / "x.db").chmod(0o444)
    folder.chmod(0o555)
    command = [sys.executable, "-B", "-c", OPEN, str(ROOT), f"{folder}/x.db"]
    with reachable(folder):
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    folder.chmod(0o755)
    assert done.stdout.startswith("refused: "), done
    assert "Traceback" not in done.stderr


MOUNTED = r"""
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / /proc rw,nosuid - proc proc rw
36 22 0:45 / /srv/app\040data rw,relatime shared:9 - nfs4 10.0.0.2:/app rw,vers=4.2
37 22 0:46 / /mnt/windows rw - cifs //server/share rw
38 22 0:47 / /mnt/far rw - fuse.sshfs me@there: rw
39 38 8:2 / /mnt/far/near rw - xfs /dev/sdb rw
40 22 0:48 / /mnt/covered rw - nfs 10.0.0.2:/old rw
41 22 8:3 / /mnt/covered rw - ext4 /dev/sdc rw
""".lstrip()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/app data/vestibule.db", "nfs4"),
        ("/srv/app data2/vestibule.db", None),
        ("/mnt/windows/a/b/x.db", "cifs"),
        ("/mnt/far/x.db", "fuse.sshfs"),
        ("/mnt/far/near/x.db", None),
        ("/mnt/covered/x.db", None),
        ("/var/lib/vestibule/x.db", None),
    ],
)
def test_M13_a_network_disk_is_known_by_its_mount(tmp_path, path, kind):
    (tmp_path / "mountinfo").write_text(MOUNTED)
    assert network_disk(Path(path), tmp_path / "mountinfo") == kind
    assert network_disk(Path(path), tmp_path / "no such file") is None
    assert network_disk(tmp_path) is None  # or none of these tests would start a server
