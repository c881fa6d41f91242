"""What docs/operate.md tells an operator to do on a bad day, as they would do it: with the app running, and a terminal."""

import pytest

from tests import nursery
from tests.attacks.test_i_tokens import OTHER, Phone
from tests.conftest import ADMIN
from tests.serving import ROOT, Tab


@pytest.fixture
def terminal(tmp_path):
    """terminal(server, "users", SETTING="…"): a command with the settings of that process; what it said."""

    def run(server, *words, **more):
        env = server.env | more
        done = nursery.run(ROOT / "manage.py", *words, cwd=tmp_path, env=env)
        assert done.returncode == 0, done
        return done.stdout

    return run


def sign_in(sink, tab, address):
    assert tab.post("/create_code", email=address).status_code == 303
    assert tab.post("/verify_code", code=sink.code(address)).status_code == 303
    assert tab.signed_in


def test_N7_a_stolen_key_is_worth_nothing_after_the_runbook(serve, sink, terminal):
    """Another key without the old one, and everybody signed out: nothing of before opens anything."""
    more = {"SMTP_PORT": sink.port, "SIGNUP": "open"}
    server = serve(**more)
    tab, phone, waiting = Tab(server), Phone(sink, server), Tab(server)
    sign_in(sink, tab, "ada@example.org")
    phone.sign_in("bob@example.org")
    waiting.post("/create_code", email="eve@example.org")
    code = sink.code("eve@example.org")
    server.stop()
    after = serve(**more, SECRET_KEY=OTHER)
    tab.servers = phone.servers = waiting.servers = (after,)
    assert waiting.post("/verify_code", code=code).status_code == 410 and not waiting.signed_in
    said = terminal(after, "sign-out", "--all", "--yes")
    assert said == "Everybody is signed out: 2 sessions.\n"
    assert not tab.signed_in and phone.me().status_code == 401
    assert phone.refresh().status_code == 401
    terminal(after, "doctor")
    sign_in(sink, Tab(after), "dan@example.org")


def test_N7_everybody_is_signed_out_of_each_process_at_once(serve, sink, terminal):
    more = {"SMTP_PORT": sink.port, "SIGNUP": "open"}
    one, other = serve(**more), serve(**more)
    tabs = [Tab(one, other), Tab(other, one)]
    for n, tab in enumerate(tabs):
        sign_in(sink, tab, f"p{n}@example.org")
    terminal(one, "sign-out", "--all", "--yes")
    for tab in tabs:
        assert [tab.get("/dashboard", at=at).status_code for at in (0, 1)] == [303, 303]


def test_N7_the_drill_of_a_restore_leaves_the_app_alone(serve, sink, terminal, tmp_path):
    server = serve(SMTP_PORT=sink.port, SIGNUP="open")
    tab = Tab(server)
    sign_in(sink, tab, "ada@example.org")
    terminal(server, "backup", "copy.db")
    drill = f"sqlite:///{tmp_path}/drill.db"
    terminal(server, "restore", "copy.db", "--yes", DATABASE_URL=drill)
    there = terminal(server, "users", DATABASE_URL=drill)
    assert "ada@example.org" in there and ADMIN in there
    assert tab.signed_in
