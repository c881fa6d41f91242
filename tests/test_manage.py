"""The operator's commands: what they print, and exit 0, or 1 with one line on stderr."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ADMIN, SECRET, environment
from tests.serving import ROOT


@pytest.fixture
def manage(database_url, tmp_path):
    def run(*words, **more):
        env = environment(database_url, tmp_path) | more
        keep = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
        done = subprocess.run(
            [sys.executable, ROOT / "manage.py", *words],
            cwd=tmp_path,
            env=keep | env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    return run


def test_a_person_from_first_to_last(manage, build):
    assert manage("add-user", "Bob@Example.org", "--name", "Bob") == (
        0,
        "bob@example.org can sign in, with the role user.",
        "",
    )
    house = build()
    door = house.door()
    door.sign_in("bob@example.org")
    assert manage("set-role", "bob@example.org", "admin")[0] == 0
    assert door.get("/admin").status_code == 200
    assert manage("disable", "bob@example.org")[0] == 0
    assert not door.signed_in
    assert manage("enable", "BOB@example.org")[0] == 0
    status, out, _ = manage("users")
    assert status == 0
    assert re.search(
        r"^bob@example.org  admin  active  2027-\d\d-\d\d \d\d:\d\d  Bob$", out, re.MULTILINE
    )
    assert manage("users", "--search", "zz") == (0, "", "")
    assert manage("delete-user", "bob@example.org", "--yes")[0] == 0
    assert "bob@" not in manage("users")[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("add-user", "nonsense"), "send mail to that"),
        (("add-user", "a@example.org", "--role", "emperor"), "no such role"),
        (("set-role", "nobody@example.org", "user"), "no such person"),
        (("disable", "nobody@example.org"), "no such person"),
        (("no-such-command",), "No such command"),
        (("add-user",), "Missing argument"),
        (("users", "--nonsense"), "No such option"),
    ],
)
def test_what_cant_be_done_is_one_line_and_exit_1(manage, words, says):
    status, out, error = manage(*words)
    assert (status, out) == (1, "") and says in error and len(error.splitlines()) == 1


def test_the_last_admin_stays(manage, build):
    build()
    for words in (("disable", ADMIN), ("set-role", ADMIN, "user"), ("delete-user", ADMIN, "--yes")):
        status, _, error = manage(*words)
        assert status == 1 and "last active admin" in error


def test_doctor_finds_what_is_wrong(manage):
    status, out, _ = manage("doctor")
    assert status == 0 and [line[:4] for line in out.splitlines()] == ["good"] * 3
    status, out, error = manage("doctor", SECRET_KEY="tiny", CODE_LENGTH="3")
    assert status == 1 and "SECRET_KEY" in out and "CODE_LENGTH" in out and "doctor again" in error
    status, _, error = manage("doctor", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert status == 1 and error.startswith("DATABASE_URL")
    status, _, error = manage("doctor", ADMIN_EMAILS="")
    assert status == 1 and error.startswith("ADMIN_EMAILS")


def test_config_shows_everything_but_secrets(manage):
    status, out, _ = manage("config")
    assert status == 0 and "SECRET_KEY=***" in out and SECRET not in out
    assert "BASE_URL=https://vestibule.test" in out


def test_new_secret_is_good_enough_for_the_settings(manage):
    status, secret, _ = manage("new-secret")
    assert status == 0
    assert manage("config", SECRET_KEY=secret)[0] == 0
    assert manage("new-secret")[1] != secret
