"""Deployment files and documents say what is true: keys, paths, commands, settings, tests that exist."""

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatchcase

import pytest

import main
import manage
from auth import Policy
from tests.serving import ROOT, free_port
from utils import breaker, outbox, settings, shield

DOCS = sorted([*ROOT.glob("docs/*.md"), ROOT / "SECURITY.md"])
RAILWAY = tomllib.loads((ROOT / "railway.toml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


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


def test_railway_checks_and_restarts():
    deploy = RAILWAY["deploy"]
    assert deploy["healthcheckPath"] == "/healthz"
    assert 10 <= deploy["healthcheckTimeout"] <= 300
    assert deploy["restartPolicyType"] == "ON_FAILURE"
    assert 1 <= deploy["restartPolicyMaxRetries"] <= 10


def test_railway_waits_for_requests_and_for_the_mail_in_hand():
    graceful = int(
        re.search(r"timeout_graceful_shutdown=(\d+)", (ROOT / "utils" / "server.py").read_text())[1]
    )
    assert int(RAILWAY["deploy"]["drainingSeconds"]) >= graceful + outbox.DRAIN_SECONDS


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
OTHERS_FILES = {"copy.db", "vestibule.db"}
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
