"""Deployment files and documents say what is true: keys, paths, commands, settings, tests that exist."""

import ast
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from fnmatch import fnmatchcase

import jsonschema_rs
import pytest

import main
import manage
from auth import Policy
from tests.conftest import ADMIN, environment
from tests.serving import ROOT, Server, Tab, free_port
from utils import breaker, outbox, settings, shield

DOCS = sorted([*ROOT.glob("docs/*.md"), ROOT / "SECURITY.md"])
RAILWAY = tomllib.loads((ROOT / "railway.toml").read_text())
RAILWAY_SCHEMA = json.loads((ROOT / "tests" / "railway.schema.json").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
SERVING = (ROOT / "utils" / "server.py").read_text()
GRACEFUL = int(re.search(r"timeout_graceful_shutdown=(\d+)", SERVING)[1])


def instructions(name):
    """What stands after each instruction of this name in the Dockerfile."""
    return [i.strip() for i in re.findall(rf"^{name}\s+(.*)$", DOCKERFILE, re.MULTILINE)]


# ---- Railway
def test_railway_builds_and_starts_the_image():
    build, deploy = RAILWAY["build"], RAILWAY["deploy"]
    assert set(RAILWAY) == {"$schema", "build", "deploy"}
    assert build["builder"] == "DOCKERFILE" and (ROOT / build["dockerfilePath"]).is_file()
    command = shlex.split(deploy["startCommand"])
    assert command == json.loads(instructions("CMD")[-1])  # the same, whoever starts it
    assert command[0] == "python" and (ROOT / command[1]).is_file()
    assert "preDeployCommand" not in deploy  # there is no volume at that moment


def test_railway_takes_the_file_as_it_is():
    jsonschema_rs.meta.validate(RAILWAY_SCHEMA)
    jsonschema_rs.validate(RAILWAY_SCHEMA, RAILWAY)


@pytest.mark.parametrize(
    ("room", "change"),
    [
        ("deploy", {"drainingSeconds": "50"}),  # as in Railway's own example; it deploys nothing
        ("deploy", {"healthCheckPath": "/healthz"}),
        ("deploy", {"restartPolicyType": "on-failure"}),
        ("deploy", {"sleepApplication": "false"}),
        ("build", {"builder": "DOCKER"}),
        ("build", {"dockerfile": "Dockerfile"}),
    ],
)
def test_what_railway_would_refuse_or_pass_over_is_found(room, change):
    wrong = RAILWAY | {room: RAILWAY[room] | change}
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(RAILWAY_SCHEMA, wrong)


def test_railway_checks_and_restarts():
    deploy = RAILWAY["deploy"]
    assert deploy["healthcheckPath"] == "/healthz"
    assert 10 <= deploy["healthcheckTimeout"] <= 300
    assert deploy["restartPolicyType"] == "ON_FAILURE"
    assert 1 <= deploy["restartPolicyMaxRetries"] <= 10
    # Asleep it would try no mail again.
    assert deploy["sleepApplication"] is False


def test_railway_waits_for_requests_and_for_the_mail_in_hand():
    assert RAILWAY["deploy"]["drainingSeconds"] >= GRACEFUL + outbox.DRAIN_SECONDS


def test_the_platform_s_host_passes_the_health_check(door):
    answer = door.get("/healthz", headers={"Host": "healthcheck.railway.app"})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("host", ["app.up.railway.app", "evil.test", "vestibule.test:81", ""])
def test_only_the_host_of_base_url_is_answered(door, host):
    """The generated domain, too, once BASE_URL is another one."""
    assert door.get("/login", headers={"Host": host}).status_code == 400
    answer = door.post("/create_code", headers={"Host": host}, email="admin@example.com")
    assert answer.status_code == 400
    with pytest.raises(LookupError):
        door.mailbox.latest_code("admin@example.com")
    assert door.get("/login").status_code == 200


# ---- the image
def test_the_image_runs_as_nobody_special_and_stops_when_told():
    assert re.fullmatch(r"python:3\.1[1-9]-slim", instructions("FROM")[-1])
    uid, gid = instructions("USER")[-1].split(":")
    assert int(uid) > 0 and int(gid) > 0 and f"--uid {uid} " in DOCKERFILE
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert instructions("EXPOSE") == [settings.read({}, None).get("PORT", "5001")]
    assert json.loads(instructions("CMD")[-1]) == ["python", "main.py"]  # the exec form
    assert not instructions("VOLUME")  # Railway refuses to build with one


def test_the_image_has_the_app_and_no_test_tools():
    assert "requirements.txt" in DOCKERFILE and "requirements-dev" not in DOCKERFILE
    copied = {word for line in instructions("COPY") for word in line.split()[:-1]}
    assert copied == {"requirements.txt", "main.py", "manage.py", "auth", "templates", "utils"}
    for name in copied:
        assert (ROOT / name).exists()


def test_the_image_sets_none_of_our_settings():
    """DATA_DIR above all: it would win over a platform's volume, and the data would be lost."""
    known = [s.name for s in settings.SETTINGS]
    for line in instructions("ENV"):
        assert not set(re.findall(r"(\w+)=", line)) & set(known)


def test_data_behind_a_link_as_in_the_image(tmp_path, monkeypatch):
    assert "ln -s /data data" in DOCKERFILE and "-m 0700 /data" in DOCKERFILE
    (tmp_path / "app").mkdir()
    (tmp_path / "volume").mkdir(mode=0o700)
    (tmp_path / "app" / "data").symlink_to(tmp_path / "volume")
    monkeypatch.chdir(tmp_path / "app")
    loaded = settings.load({"APP_ENV": "development"}, None)
    house = main.build(loaded)
    house.db.close()
    assert {p.name for p in (tmp_path / "volume").iterdir()} >= {"secret_key", "vestibule.db"}


def test_the_health_check_of_the_image_tells_up_from_down(serve):
    check = json.loads(instructions("HEALTHCHECK")[0].partition("CMD ")[2])
    assert check[0] == "python"
    server = serve()
    for port, status in ((server.port, 0), (free_port(), 1)):
        done = subprocess.run(
            [sys.executable, *check[1:]], env={"PORT": str(port)}, capture_output=True, timeout=20
        )
        assert done.returncode == status, done.stderr


class Image(Server):
    """What the Dockerfile makes: the code, which nobody there may write, and /data."""

    def __init__(self, env, folder, user):
        super().__init__(env, folder)
        self.words, self.cwd = (*user, sys.executable, "main.py"), folder / "app"

    def run(self, *words):
        """As `docker exec` does it."""
        command = [*self.words[:-1], *words]
        env = {"PATH": os.environ["PATH"]} | self.env
        return subprocess.run(command, cwd=self.cwd, env=env, capture_output=True, text=True)


def user_of_the_image():
    """Words before a command: as the user of the image, who may read everything here."""
    if os.getuid():
        return ()
    uid, gid = instructions("USER")[-1].split(":")
    may_read = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    user = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *may_read)
    if subprocess.run([*user, sys.executable, "-c", ""], capture_output=True).returncode == 0:
        return user
    # In a container without that capability: root, whom files refuse like anybody else.
    return ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


@pytest.fixture
def image(tmp_path, sink):
    """The steps of the Dockerfile, but for what installs packages and adds the user."""
    app, volume, user = tmp_path / "app", tmp_path / "volume", user_of_the_image()
    volume.mkdir(mode=0o700)
    for line in instructions("COPY"):
        *sources, target = line.split()
        for source in sources:
            to = app / target / source if target.endswith("/") else app / target
            to.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_file():
                shutil.copy(ROOT / source, to)
            else:
                shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__"))
    (app / "data").symlink_to(volume)
    for line in instructions("RUN"):
        if line.startswith("python "):
            subprocess.run([sys.executable, *shlex.split(line)[1:]], cwd=app, check=True)
    for path in [app, *app.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    if "--reuid=10001" in user:
        os.chown(volume, 10001, 10001)
    env = environment("", "", SMTP_PORT=sink.port)
    server = Image(env, tmp_path, user)
    yield server
    server.kill()


def test_the_image_serves_keeps_and_stops(image, sink):
    """Code that can't be written, a user without rights, all that is kept in one folder."""
    before = {p: p.lstat().st_mtime_ns for p in image.cwd.rglob("*")}
    assert any(p.suffix == ".pyc" for p in before)  # or each start would compile all of it
    image.start()
    tab = Tab(image)
    tab.post("/create_code", email=ADMIN)
    tab.post("/verify_code", code=sink.code(ADMIN))
    assert tab.signed_in
    refused = image.run("-c", "open('main.py', 'a')")
    assert "PermissionError" in refused.stderr, refused
    for words in (["doctor"], ["backup", "data/copy.db"]):
        done = image.run("manage.py", *words)
        assert done.returncode == 0, done
    image.stop()  # within its time, or this raises
    assert "Application shutdown complete" in image.log
    assert {p: p.lstat().st_mtime_ns for p in image.cwd.rglob("*")} == before
    kept = {p.name: p.stat().st_mode & 0o777 for p in (image.folder / "volume").iterdir()}
    assert kept["vestibule.db"] == kept["copy.db"] == 0o600
    # Another container with the same volume.
    image.start()
    tab.servers = (image,)
    assert tab.signed_in


# ---- the page
GUIDE = (ROOT / "docs" / "deploy.md").read_text()


def variables(heading):
    """The first block of variables below this heading."""
    block = re.search(rf"^#+ {heading}$.*?```ini\n(.*?)```", GUIDE, re.M | re.S)[1]
    return dict(re.findall(r"^ *([A-Z_]+)=(.+)$", block, re.MULTILINE))


@pytest.mark.parametrize("mail", ["Mail with Gmail", "Mail with Resend"])
@pytest.mark.parametrize("place", ["The first deployment", "A plain server: systemd and nginx"])
def test_the_variables_of_the_page_are_all_that_is_needed(place, mail, tmp_path):
    written = variables("The first deployment") | variables(place) | variables(mail)
    railway = {
        "RAILWAY_ENVIRONMENT": "production",
        "RAILWAY_PUBLIC_DOMAIN": "my-app.up.railway.app",
        "RAILWAY_VOLUME_MOUNT_PATH": str(tmp_path),
    }
    written |= {} if "DATA_DIR" in written else railway
    # Pasted as it stands it must not start: everybody could read that key.
    assert list(settings.check(settings.read(written, None))[1]) == ["SECRET_KEY"]
    written["SECRET_KEY"] = settings.new_secret()
    found, faults = settings.check(settings.read(written, None))
    assert not faults
    # The sender's domain is the one thing that nobody can look up from here.
    assert {name for name, _ in settings.advice(found)} <= {"MAIL_FROM"}
    assert found.port == 5001 and found.https and found.mail_from


def test_the_steps_of_the_page_are_those_of_the_files():
    assert "shows `drainingSeconds` quoted" in GUIDE
    assert f"waits `drainingSeconds`, here {RAILWAY['deploy']['drainingSeconds']};" in GUIDE
    assert f"--stop-timeout {RAILWAY['deploy']['drainingSeconds']} " in GUIDE
    assert "--mount-path /data" in GUIDE and "-v vestibule:/data" in GUIDE
    assert re.search(r"domain --port (\d+)", GUIDE)[1] == variables("The first deployment")["PORT"]


# ---- a machine with systemd
UNIT = ROOT / "docs" / "ops" / "vestibule@.service"
# Not the units of the machine that it names: they are none of ours.
VERIFY = ("systemd-analyze", "verify", "--recursive-errors=no")


def unit():
    reader = ConfigParser(strict=False, interpolation=None)
    reader.optionxform = str
    reader.read(UNIT)
    return reader


def test_the_unit_starts_what_is_there_and_waits_long_enough():
    service = unit()["Service"]
    program, script = service["ExecStart"].split()
    assert program == f"{service['WorkingDirectory']}/.venv/bin/python"
    assert (ROOT / script).is_file()
    assert int(service["RestartPreventExitStatus"]) == settings.EX_CONFIG
    assert int(service["TimeoutStopSec"]) >= GRACEFUL + outbox.DRAIN_SECONDS
    for named in (service["WorkingDirectory"], f"/var/lib/{service['StateDirectory']}", UNIT.name):
        assert named in GUIDE
    ports = re.findall(r"server 127\.0\.0\.1:(\d+)", (UNIT.parent / "nginx.conf").read_text())
    assert ports and all(f"vestibule@{port}" in GUIDE for port in ports)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd on this machine")
def test_the_unit_is_one_by_systemd_s_own_checker(tmp_path):
    def said(text):
        folder, service = tmp_path / "etc/systemd/system", unit()["Service"]
        python = tmp_path / service["ExecStart"].split()[0].lstrip("/")
        for path in (folder, python.parent):
            path.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", python)
        (folder / UNIT.name).write_text(text)
        done = subprocess.run(
            [*VERIFY, f"--root={tmp_path}", "vestibule@5001.service"],
            capture_output=True,
            text=True,
        )
        return [line for line in done.stderr.splitlines() if "vestibule@" in line]

    text = UNIT.read_text()
    assert said(text) == []
    for right, wrong in (("TimeoutStopSec=50", "TimeoutStopSec=soon"), ("UMask", "Umask")):
        assert right in text and said(text.replace(right, wrong)), wrong


# ---- .dockerignore
def kept_out(path, patterns):
    """As Docker reads the file: the last pattern that matches the path or a folder above it decides."""
    parts, out = path.split("/"), False
    for pattern in patterns:
        plain = pattern.lstrip("!").strip("/")
        anywhere = plain.removeprefix("**/")
        for end in range(1, len(parts) + 1):
            above = "/".join(parts[:end])
            if (fnmatchcase(above, plain) and plain.count("/") == above.count("/")) or (
                anywhere != plain and fnmatchcase(parts[end - 1], anywhere)
            ):
                out = not pattern.startswith("!")
    return out


def test_dockerignore_keeps_secrets_and_data_out_and_the_app_in():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    for path in (
        ".env",
        ".env.example",
        ".venv/bin/python",
        ".git/config",
        ".hypothesis/examples/1",
        "data/vestibule.db",
        "data/vestibule.db-wal",
        "data/secret_key",
        "auth/__pycache__/keys.cpython-313.pyc",
        "tests/conftest.py",
        "secrets.txt",
    ):
        assert kept_out(path, patterns), path
    needed = ["requirements.txt", "main.py", "manage.py"]
    for room in ("auth", "templates", "utils"):
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                needed.append(str(path.relative_to(ROOT)))
    for path in needed:
        assert not kept_out(path, patterns), path


def test_the_reader_of_dockerignore_knows_the_difference():
    assert kept_out("data/x.db", ["data"]) and not kept_out("data/x.db", ["*.db"])
    assert kept_out("a/b/x.pyc", ["**/*.pyc"]) and not kept_out("x.py", ["*", "!x.py"])
    assert kept_out("x.py", ["!x.py", "*"])


# ---- what the documents name
# Names of others, and examples; everything else has to be ours.
OTHERS_NAMES = {"RAILWAY_RUN_UID", "OTEL_PYTHON_EXCLUDED_URLS", "OTEL_EXPORTER_OTLP_ENDPOINT"}
OTHERS_FILES = {"copy.db", "/data/copy.db", "vestibule.db"}
EXAMPLE_ROUTES = {"/reports", "/figures", "/color", "/drafts", "/data", "/app"}
SOURCES = [ROOT / "main.py", *(p for room in ("auth", "utils") for p in ROOT.glob(f"{room}/*.py"))]
CODE = "".join(p.read_text() for p in SOURCES)
STYLE = (ROOT / "templates" / "static" / "app.css").read_text()
TARGETS = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
SETTINGS = {s.name for s in settings.SETTINGS} | set(settings.PLATFORM)
CONSTANTS = set(re.findall(r"^([A-Z_]+) = ", CODE, re.MULTILINE))
ROUTES = set(re.findall(r'"(/[a-z_]+)"', CODE)) | {"/static"}
TEST_FILES = list((ROOT / "tests").rglob("*.py"))
TESTS = {
    node.name
    for path in TEST_FILES
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef)
}


def spans(text):
    """What is written as code: fenced blocks, and `spans` of one line."""
    fenced = re.findall(r"```\w*\n(.*?)```", text, re.S)
    return fenced + re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))


def is_command(line):
    name, *words = line.split()
    command = manage.commands.commands.get(name)
    options = {option for p in getattr(command, "params", ()) for option in p.opts}
    return command and {word for word in words if word.startswith("--")} <= options


def is_file(name, folder):
    places = (ROOT, folder, ROOT / "templates" / "static")
    return name in OTHERS_FILES or any((place / name).exists() for place in places)


def unknown(text, folder):
    """Everything that this document names and that is not there."""
    named = {  # a pattern of what may be named, and whether it is there
        r"(?<![\w$-])[A-Z][A-Z0-9]*_[A-Z0-9_]+\b": (
            SETTINGS | CONSTANTS | OTHERS_NAMES
        ).__contains__,
        r"(?:^|\s)([A-Z][A-Z0-9]+)=": SETTINGS.__contains__,
        r"\bmake ([a-z]+)": TARGETS.__contains__,
        r"manage\.py ([a-z].*)": is_command,
        r"(?<![\w/.:*-])[\w./-]*\w\.(?:py|md|toml|txt|css|svg|db)\b": lambda n: is_file(n, folder),
        r"^(?:auth|utils|templates|tests|docs|bench|data)/[\w./-]*$": lambda n: is_file(n, folder),
        r"^(?:GET |POST )?(/[a-z_]+)$": (ROUTES | EXAMPLE_ROUTES).__contains__,
        r"\btest_\w+": lambda n: n in TESTS or n in {path.stem for path in TEST_FILES},
        r"^--[a-z-]+$": lambda n: f"{n}:" in STYLE,
    }
    found = {
        name
        for span in spans(text)
        for pattern, is_there in named.items()
        for name in re.findall(pattern, span)
        if not is_there(name)
    }
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    return found | {link for link in links if not (folder / link).exists()}


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_what_a_document_names_is_there(path):
    assert not unknown(path.read_text(), path.parent)


@pytest.mark.parametrize(
    "wrong",
    [
        "`NO_SUCH_SETTING`",
        "```sh\ndocker run -e SECRETKEY=x vestibule\n```",
        "`make coffee`",
        "`manage.py send-a-mail`",
        "`manage.py add-user ada@example.org --admin`",
        "`utils/magic.py`",
        "`auth/nothing/`",
        "`/dev_mailbox`",
        "`test_that_nobody_wrote`",
        "`--no-such-property`",
        "[a page](missing.md)",
    ],
)
def test_what_is_not_there_is_found(wrong):
    assert len(unknown(wrong, ROOT / "docs")) == 1, wrong


def test_python_in_documents_imports_what_exists():
    for path in DOCS:
        for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.S):
            for module, names in re.findall(r"^from ([\w.]+) import (.+)$", block, re.MULTILINE):
                room = importlib.import_module(module)
                for name in names.split(", "):
                    assert hasattr(room, name.strip("()")), (path.name, module, name)


def test_every_threat_has_a_test_that_exists():
    text = (ROOT / "docs" / "threat-model.md").read_text()
    rows = [row for row in text.splitlines() if row.startswith("| ") and row.count("|") == 5]
    rows = [row for row in rows if not row.startswith(("| threat", "|---"))]
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.split("|")[3])
        assert named and set(named) <= TESTS, row


FAULTS = [
    f"{group}{n}" for group, last in (("L", 14), ("M", 13), ("N", 7)) for n in range(1, last + 1)
]


@pytest.mark.parametrize("name", ["J2", "J12", "J13", *FAULTS])
def test_every_fault_has_a_test_that_bears_its_name(name):
    text = (ROOT / "docs" / "threat-model.md").read_text()
    rows = re.findall(rf"^\| {name} \|.*$", text, re.MULTILINE)
    assert rows
    # What N4 asks for is what K7 is.
    own = re.compile(rf"test_(?:[A-Z]+\d+_)*{ {'N4': 'K7'}.get(name, name) }_")
    assert any(own.match(test) for row in rows for test in re.findall(r"`(test_\w+)`", row))


def test_documents_agree_with_the_numbers_in_the_code():
    policy, mail = Policy(), (ROOT / "docs/mail.md").read_text()
    model = (ROOT / "docs/threat-model.md").read_text()
    assert (
        f"{policy.tries_per_code} comparisons per code, {policy.tries_per_challenge} per" in model
    )
    waits = ", ".join(map(str, outbox.RETRY_SECONDS[:-1]))
    assert f"after {waits} and {outbox.RETRY_SECONDS[-1]} seconds" in mail
    assert f"after {outbox.LEASE_SECONDS} seconds at most" in mail
    assert f"more than {outbox.CODE_RETRY_SECONDS} (`CODE_RETRY" in mail
    tries = ", ".join(map(str, breaker.WAITS[:-1]))
    assert f"after {tries}, then every {breaker.WAITS[-1]} seconds (`WAITS`)" in mail
    assert outbox.SENDERS == 4 and "four senders (`SENDERS`)" in mail
    assert policy.mail_margin == 60 and "a minute before the code runs out" in mail
    pages = (ROOT / "docs/pages-and-guards.md").read_text()
    assert f"{policy.session_data_bytes} bytes" in pages
    assert shield.MAX_BODY == 64 * 1024 and f"more than {shield.MAX_FIELDS} fields" in pages
    states = set(re.findall(r"'(\w+)'", (ROOT / "utils/migrations/0001_outbox.sql").read_text()))
    assert states == set(re.findall(r"^\| `(\w+)` \|", mail.partition("outbox does")[2], re.M))


def test_the_brand_is_the_first_six_properties():
    first = re.findall(r"^  (--[\w-]+):", STYLE.partition(":root {")[2], re.MULTILINE)[:6]
    look = (ROOT / "docs/pages-and-guards.md").read_text().partition("## The look")[2]
    assert re.findall(r"`(--[\w-]+)`", look) == first


def test_the_claim_is_exact():
    text = (ROOT / "SECURITY.md").read_text()
    assert "ASVS 5.0 Level 1, and Level 2 except 6.3.3 and the noted deviations" in text
    assert not re.search(r"\bAAL[123]?\b", text)
    assert "2026 the Vestibule authors" in (ROOT / "LICENSE").read_text()
    headings = re.findall(r"^## \[(.+)\]$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings == ["Unreleased"]
