"""The house keeps its own rules: who imports whom, where SQL, HTML and statuses live, what git holds."""

import ast
import re
import subprocess

import pytest

from auth.api import ANSWERS
from auth.routes import STATUS
from templates.words import REFUSALS
from tests.serving import ROOT

ROOMS = ("auth", "templates", "utils")
FILES = [p for room in ROOMS for p in sorted((ROOT / room).glob("*.py"))]
# Parsed before any test has threads: in CPython 3.11 ast.parse fails when another thread, which may only be
# writing a traceback, parses at the same moment.
TREES = {p: ast.parse(p.read_text()) for p in [*FILES, ROOT / "main.py", ROOT / "manage.py"]}
OURS = {*ROOMS, "main", "manage", "tests"}
# Inside auth imports point one way; each may only know those before it.
ORDER = [
    {"keys", "addresses", "networks", "agents", "policy", "purging", "needs"},
    {"typed"},
    {"shapes"},
    {
        "challenges",
        "users",
        "events",
        "daily",
        "counted",
        "budgets",
        "devices",
        "tenants",
        "reviewers",
        "roles",
        "moves",
        "invitations",
    },
    {"sessions", "tokens"},
    {"record", "scope"},
    {"limits", "validity"},
    {"known"},
    {"desk", "office"},
    {"counting"},
    {"directory", "people", "members", "organisations", "audit", "retention"},
    {"mailing", "arriving", "leaving"},
    {"asking", "codes", "links", "mailroom", "moving", "oneself", "inviting"},
    {"overview", "importing"},
    {"apps"},
    {"signin"},
    {"letters"},
    {"caller"},
    {"gate"},
    {"email_auth"},
    {"guards"},
    {"routes"},
    {"admin"},
    {"api"},
    {
        "mail_admin",
        "account",
        "audit_admin",
        "tenant_admin",
        "person_admin",
        "role_admin",
        "overview_admin",
        "invite_admin",
        "import_admin",
    },
]
SQL = re.compile(r"\b(select .+ from|insert into|update \w+ set|delete from)\b", re.I | re.S)


def imports(path):
    """(module, line, is at the top) of every import."""
    tree = TREES[path]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, node in tree.body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, node.lineno, node in tree.body
            yield from (
                (f"{node.module}.{a.name}", node.lineno, node in tree.body) for a in node.names
            )


def strings(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_three_rooms_have_never_met(path):
    for module, line, _ in imports(path):
        room = module.split(".")[0]
        assert room == path.parent.name or room not in OURS, f"{path.name}:{line} imports {module}"


def test_inside_auth_imports_point_one_way():
    level = {name: n for n, names in enumerate(ORDER) for name in names}
    for path in (ROOT / "auth").glob("*.py"):
        if path.stem in ("__init__", "testing"):
            continue
        for module, line, top in imports(path):
            parts = module.split(".")
            if parts[0] == "auth" and len(parts) > 1 and parts[1] in level and top:
                allowed = level[parts[1]] < level[path.stem] or ORDER[level[path.stem]] & {parts[1]}
                assert allowed, f"auth/{path.name}:{line} imports {module}"


def test_only_the_settings_read_the_environment():
    for path in [*FILES, ROOT / "main.py", ROOT / "manage.py"]:
        if path.name != "settings.py":
            assert not re.search(r"\benviron\b|\bgetenv\b", path.read_text()), path


def test_only_table_files_and_migrations_say_sql():
    tables = {"challenges.py", "users.py", "sessions.py", "events.py", "budgets.py", "devices.py"}
    tables |= {"moves.py", "invitations.py", "tenants.py", "reviewers.py", "roles.py", "daily.py"}
    tables |= {"counted.py"}
    tables |= {"mailrows.py", "database.py", "backup.py"}
    for path in [*FILES, ROOT / "manage.py"]:
        if path.name not in tables:
            for text, line in strings(path):
                assert not SQL.search(text), f"{path.name}:{line}: {text[:40]}"


def test_only_templates_say_html():
    for path in FILES:
        if path.parent.name != "templates":
            for text, line in strings(path):
                assert not re.search(r"</?(p|div|h1|form|a|html)\b", text), f"{path.name}:{line}"


def test_only_the_http_files_say_statuses():
    http = {"routes.py", "guards.py", "admin.py", "gate.py", "email_auth.py", "testing.py"}
    http |= {"api.py", "shapes.py", "person_admin.py", "tenant_admin.py", "invite_admin.py"}
    for path in (ROOT / "auth").glob("*.py"):
        if path.name not in http:
            found = [n.value for n in ast.walk(TREES[path]) if isinstance(n, ast.Constant)]
            assert not {303, 403, 404, 410, 422, 429} & {v for v in found if isinstance(v, int)}, (
                path
            )


def test_every_reason_has_a_status_and_a_sentence():
    reasons = set()
    for path in (ROOT / "auth").glob("*.py"):
        text = path.read_text()
        reasons |= set(re.findall(r'Refused\(\s*"(\w+)"', text))
        reasons |= set(re.findall(r'_not_oneself\([^)]*"(\w+)"', text))
        reasons |= set(re.findall(r'else "(code_\w+)"', text))
        if path.name != "api.py":  # has codes of its own
            reasons |= set(re.findall(r'"(too_many_\w+|link_used)"', text))
    assert reasons == set(STATUS) | set(ANSWERS) == set(REFUSALS)


def test_nothing_secret_or_generated_is_in_git():
    try:
        files = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        files = []  # not a checkout
    for name in files:
        assert not re.search(r"(\.env$|\.db|\.sesskey|secret_key$|__pycache__|\.log$)", name), name
        assert not name.startswith("data/") or name == "data/.gitignore", name


def test_vendored_files_are_what_they_say():
    import hashlib

    static = ROOT / "templates" / "static"
    recorded = re.search(r"\b[0-9a-f]{64}\b", (static / "VENDORED.txt").read_text())[0]
    assert hashlib.sha256((static / "htmx.min.js").read_bytes()).hexdigest() == recorded
    assert 'version:"2.0.11"' in (static / "htmx.min.js").read_text()


def test_the_main_file_stays_a_front_door():
    assert len((ROOT / "main.py").read_text().splitlines()) <= 150
