"""kill -9 in the middle of putting a backup back: the database is what it was, or what it shall be."""

import os
import signal
import time

from auth import users
from tests.conftest import environment
from tests.nursery import Process
from tests.serving import ROOT
from tests.test_manage import commands

PEOPLE, KILLS = 4000, 8


def test_M9_a_kill_at_any_moment_of_a_restore_leaves_the_old_or_the_new_state(
    house, database_url, tmp_path
):
    manage = commands(database_url, tmp_path)

    def fill(first, n):
        with house.db.tx() as t:
            for i in range(first, first + n):
                users.add(t, f"{i:032x}", f"p{i}@example.org", "", "user", 1)

    fill(0, PEOPLE)
    assert manage("backup", "b.db")[0] == 0
    saved = {row["address"] for row in house.rows("users")}
    fill(PEOPLE, PEOPLE // 2)
    house.db.q("delete from users where id < :id", id=f"{100:032x}")
    live = {row["address"] for row in house.rows("users")}
    keep = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
    keep |= environment(database_url, tmp_path) | {"TMPDIR": str(tmp_path)}

    def restore():
        words = "restore", "b.db", "--yes"
        return Process(ROOT / "manage.py", *words, cwd=tmp_path, env=keep)

    def state():
        """Which of the two it is; all that belongs to it is there."""
        assert house.db.q("select 1 as one") == [{"one": 1}]
        found = {row["address"] for row in house.rows("users")}
        restores = [row for row in house.rows("events") if row["kind"] == "sys_restored"]
        assert found == (saved if restores else live)
        return bool(restores)

    killed = 0
    for kill in range(KILLS):
        process, begun = restore(), time.monotonic()
        # What it has in the transaction is seen by nobody: it is at work once it has its copy.
        while not list(tmp_path.glob("vestibule-*/backup.db")) and process.poll() is None:
            time.sleep(0.002)
        time.sleep((time.monotonic() - begun) * kill / KILLS)
        process.send_signal(signal.SIGKILL)
        killed += process.wait(30) == -signal.SIGKILL
        if state():
            break
        for left in tmp_path.glob("vestibule-*/backup.db*"):
            left.unlink()
    assert killed > 1
    assert restore().wait(60) == 0
    assert state()
