"""The operator's commands: what they print, and exit 0, or 1 with one line on stderr."""

import os
import re

import pytest

from auth import events
from auth.events import Source
from tests import nursery
from tests.certificates import Authority
from tests.conftest import ADMIN, SECRET, environment
from tests.faults.chaos import Chaos
from tests.serving import ROOT, free_port
from tests.sink import Sink, parsed
from tests.test_mailer import KEY, LOGIN, Api


def commands(database_url, tmp_path):
    def run(*words, **more):
        env = environment(database_url, tmp_path) | more
        keep = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
        done = nursery.run(ROOT / "manage.py", *words, cwd=tmp_path, env=keep | env)
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    return run


@pytest.fixture
def manage(database_url, tmp_path):
    """manage("users", SETTING="…") → (exit status, stdout, stderr), on each kind of database."""
    return commands(database_url, tmp_path)


@pytest.fixture
def post(tmp_path):
    """The same on SQLite alone, for what is about mail."""
    return commands(f"sqlite:///{tmp_path}/vestibule.db", tmp_path)


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


# ---- doctor
def test_doctor_finds_nothing(manage, sink):
    status, out, error = manage("doctor", SMTP_PORT=str(sink.port))
    assert (status, error) == (0, "")
    kinds = [line[:4] for line in out.splitlines()]
    assert set(kinds) == {"good", "note"} and not sink.mails
    for word in ("good  settings", "good  database", "good  admins", "good  mail", "banner: 220"):
        assert word in out
    assert re.search("note  MAIL_FROM: .*example.com .*SPF, DKIM and DMARC", out)


def test_doctor_finds_what_is_wrong(manage, sink):
    status, out, error = manage("doctor", SECRET_KEY="tiny", CODE_LENGTH="3")
    assert status == 1 and "SECRET_KEY" in out and "CODE_LENGTH" in out and "doctor again" in error
    status, out, error = manage("doctor", SMTP_PORT=str(sink.port), ADMIN_EMAILS="")
    assert status == 1 and error.startswith("ADMIN_EMAILS") and "add-user" in out


def test_doctor_finds_a_database_that_is_not_there(post, sink):
    lost = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    status, out, error = post("doctor", SMTP_PORT=str(sink.port), **lost)
    assert status == 1 and error.startswith("DATABASE_URL") and "good  mail" in out
    status, out, error = post("doctor", SMTP_PORT=str(free_port()), **lost)
    assert status == 1 and error.startswith("DATABASE_URL, mail") and len(error.splitlines()) == 1


def bad(out):
    """(what it finds, what to do): the lines of a fault."""
    return re.search(r"^bad   (.+)\n      (.+)$", out, re.MULTILINE).groups()


def secure(port, **more):
    user, password = LOGIN
    given = {"SMTP_USER": user, "SMTP_PASSWORD": password, "SMTP_SECURITY": "starttls"}
    return {"SMTP_PORT": str(port)} | given | {name: str(value) for name, value in more.items()}


def test_doctor_says_why_a_mail_server_is_no_use(post, tmp_path):
    authority = Authority(tmp_path)
    trusted, context = {"SSL_CERT_FILE": authority.file}, authority.server("127.0.0.1")

    def finds(what, do, **more):
        for words in (("doctor",), ("send-test-mail", "ada@example.org")):
            status, out, error = post(*words, **more)
            assert status == 1 and len(error.splitlines()) == 1
            assert LOGIN[1] not in out + error and "hidden" not in out + error
            told = " ".join(bad(out)) if words == ("doctor",) else out + error
            assert re.search(what, told) and re.search(do, told), told

    finds("nobody listens", "587 goes with", SMTP_PORT=str(free_port()))
    finds("no host no-such", "SMTP_HOST", **secure(25, SMTP_HOST="no-such-host.invalid"))
    with Sink(tls="starttls", context=context, login=LOGIN) as sink:
        assert post("doctor", **secure(sink.port, **trusted))[0] == 0
        finds("nobody whom", "certificate", **secure(sink.port))
        wrong = secure(sink.port, SMTP_PASSWORD="hidden-words", **trusted)
        finds("does not take", "SMTP_PASSWORD anew", **wrong)
        finds(
            "does not begin with TLS",
            "starttls",
            **secure(sink.port, SMTP_SECURITY="tls", **trusted),
        )
        assert not sink.mails
    with Sink(tls="starttls", context=authority.server("127.0.0.1", -1), login=LOGIN) as sink:
        finds("is expired", "renew it", **secure(sink.port, **trusted))
    with Sink(tls="starttls", context=authority.server("other.test"), login=LOGIN) as sink:
        finds("not one for", "SMTP_HOST", **secure(sink.port, **trusted))
    with Chaos() as chaos:
        finds("offers no STARTTLS", "465 with tls", **secure(chaos.port))
        finds("takes no user and password", "587", **secure(chaos.port, SMTP_SECURITY="none"))
        chaos.at("banner", "554 5.7.1 go away")
        finds("refuses", "log", SMTP_PORT=str(chaos.port))
    for reply, words in (("534 5.7.9 x", "made for apps"), ("454 4.7.0 x", "takes nothing at")):
        with Chaos(login=True) as chaos:
            chaos.at("auth", reply)
            finds(words, "app password|MAIL_RATE", **secure(chaos.port, SMTP_SECURITY="none"))


def over_https(api, **more):
    return {"MAIL_BACKEND": "resend", "RESEND_API_KEY": KEY, "RESEND_API_URL": api.url} | more


def test_doctor_tries_the_key_of_resend(post):
    with Api() as api:
        status, out, _ = post("doctor", **over_https(api))
        assert status == 0 and "good  mail" in out and not api.taken
        status, out, _ = post("doctor", **over_https(api, RESEND_API_KEY="re_hidden_words"))
        assert status == 1 and "resend.com/api-keys" in bad(out)[1] and "hidden" not in out
        status, out, _ = post("doctor", **over_https(api, MAIL_FROM="login@other.test"))
        assert status == 1 and "resend.com/domains" in bad(out)[1]


def test_doctor_where_no_mail_leaves(post):
    status, out, _ = post("doctor", MAIL_BACKEND="none")
    assert status == 0 and "note  MAIL_BACKEND" in out
    status, out, _ = post("doctor", APP_ENV="development", MAIL_BACKEND="console", BASE_URL="")
    assert status == 0 and "MAIL_BACKEND=console" in out


# ---- a test mail
def test_a_test_mail_shows_each_step(post, sink):
    status, out, error = post("send-test-mail", "Ada@Example.org", SMTP_PORT=str(sink.port))
    assert (status, error) == (0, "")
    stages = [line.split()[0] for line in out.splitlines()]
    assert stages == [
        *("connect", "banner", "hello", "mail", "rcpt", "data", "end", "accepted", "note")
    ]
    [(to, raw)] = sink.mails
    mail = parsed(raw)
    assert to == ["ada@example.org"] and mail["Subject"] == "A test mail from Vestibule"
    assert not re.search(r"\d{6}", mail.get_body(("plain",)).get_content())


def test_a_test_mail_over_https_and_to_the_terminal(post):
    with Api() as api:
        status, out, _ = post("send-test-mail", "ada@example.org", **over_https(api))
        assert status == 0 and [body["to"] for body in api.taken.values()] == [["ada@example.org"]]
        assert "accepted 200" in out and KEY not in out
    given = {"APP_ENV": "development", "MAIL_BACKEND": "console", "BASE_URL": ""}
    status, out, _ = post("send-test-mail", "ada@example.org", **given)
    assert status == 0 and "│ To: ada@example.org" in out


def test_a_test_mail_that_is_refused_says_why(post, sink):
    sink.refuse = "550 5.4.5 Daily user sending limit exceeded"
    status, out, error = post("send-test-mail", "ada@example.org", SMTP_PORT=str(sink.port))
    assert status == 1 and "550 5.4.5" in out and "quota is used up" in error
    assert post("send-test-mail", "nonsense", SMTP_PORT=str(sink.port))[0] == 1
    status, _, error = post("send-test-mail", "ada@example.org", MAIL_BACKEND="none")
    assert status == 1 and "none sends nothing" in error


def test_config_shows_everything_but_secrets(manage):
    status, out, _ = manage("config")
    assert status == 0 and "SECRET_KEY=***" in out and SECRET not in out
    assert "BASE_URL=https://vestibule.test" in out


def test_new_secret_is_good_enough_for_the_settings(manage):
    status, secret, _ = manage("new-secret")
    assert status == 0
    assert manage("config", SECRET_KEY=secret)[0] == 0
    assert manage("new-secret")[1] != secret


def test_sessions_are_listed_and_ended(manage, build):
    house = build()
    for address in ("ada@example.org", "bob@example.org"):
        house.add(address)
    doors = {a: house.door() for a in ("ada@example.org", "bob@example.org")}
    for address, door in doors.items():
        door.sign_in(address)
    app = house.program()
    app.sign_in("ada@example.org")
    status, out, _ = manage("sessions", "ADA@example.org")
    assert status == 0 and len(out.splitlines()) == 2
    assert re.search(
        r"^[0-9a-f]{32}  an app  192\.0\.2\.0/24  2027-01-15 08:00:00  2027", out, re.M
    )
    assert manage("sign-out", "ada@example.org")[1] == "ada@example.org is signed out everywhere."
    assert not doors["ada@example.org"].signed_in and not app.signed_in
    assert doors["bob@example.org"].signed_in
    assert manage("sign-out", "--all", "--yes")[1] == "Everybody is signed out: 1 sessions."
    assert not doors["bob@example.org"].signed_in
    assert house.rows("devices") == house.rows("challenges") == []


@pytest.mark.parametrize(
    "words",
    [
        ("users",),
        ("add-user", "ada@example.org"),
        ("sign-out", "--all", "--yes"),
        ("events",),
        ("purge", "--events", "90"),
        ("backup", "b.db"),
    ],
)
def test_a_database_that_is_none_is_one_line_and_exit_1(post, tmp_path, words):
    (tmp_path / "vestibule.db").write_bytes(b"SQLite format 3\0" + b"x" * 8000)
    status, out, error = post(*words)
    assert (status, out) == (1, "") and error.startswith("DATABASE_URL: ")
    assert len(error.splitlines()) == 1 and not list(tmp_path.glob("b.db"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("sign-out",), "name an address, or --all"),
        (("sign-out", "ada@example.org", "--all"), "name an address, or --all"),
        (("sign-out", "nobody@example.org"), "no such person"),
        (("sessions", "nobody@example.org"), "no such person"),
        (("events", "--since", "yesterday"), "--since"),
        (("events", "--since", "1w"), "--since"),
        (("events", "--since", "²d"), "--since"),
        (("events", "--address", "\udcff"), "a character"),
        (("users", "--search", "\udcff"), "a character"),
        (("purge", "--events", "89"), "90<=x"),
        (("purge", "--never-activated", "0"), "1<=x"),
        (("backup",), "Missing argument"),
        (("restore", "nowhere.db"), "nowhere.db: No such file"),
        ((), "Missing command"),
    ],
)
def test_what_names_nobody_or_no_time_is_one_line_and_exit_1(post, words, says):
    status, out, err = post(*words)
    assert (status, out) == (1, "") and says in err and "\n" not in err


def test_events_are_printed_oldest_first(manage, build):
    house = build()
    house.add("ada@example.org")
    house.door().sign_in("ada@example.org")
    status, out, _ = manage("events", "--address", "ada@")
    assert status == 0
    kinds = [line.split("  ")[1] for line in out.splitlines()]
    assert kinds == ["user_created", "authn_code_requested", "authn_login_success"]
    assert out.splitlines()[2] == (
        "2027-01-15 08:00:00  authn_login_success  ada@example.org  192.0.2.0/24"
    )
    assert ADMIN in manage("events")[1] and ADMIN not in out


def test_an_event_does_not_steer_the_terminal(manage, build):
    house = build()
    events.record(
        house.db, "f" * 32, 1_800_000_000, "user_created", "\x1b[2J", Source(), "", "a\nb"
    )
    out = manage("events")[1]
    assert "\x1b" not in out and "?[2J" in out and "a?b" in out
