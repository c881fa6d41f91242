"""examples/signin_client.py and the commands of docs/api.md, as people run them, against real processes."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest

from auth.api import ANSWERS, MALFORMED
from auth.events import Source
from auth.testing import Program
from tests.conftest import environment
from tests.serving import ROOT, Server
from tests.sink import parsed

ADA = "ada@example.org"
CLIENT = ROOT / "examples" / "signin_client.py"
PAGE = (ROOT / "docs" / "api.md").read_text()
SECRETS = re.compile(r"eyJ[\w-]+\.|app_[\w-]{43}|[0-9a-f]{32}\.\d+\.[\w-]{43}|#[A-Za-f]{78}")

sqlite_is_enough = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Front:
    """The one address in front of several processes. It can lose an answer, or say 503 by itself."""

    def __init__(self):
        self.servers, self.at, self.seen = [], 0, []
        self.lose, self.busy = [], []  # paths; each counts once
        front = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                front.seen.append((self.path, body))
                if self.path in front.busy:
                    front.busy.remove(self.path)
                    self.send_error(503)
                    return
                way = HTTPConnection("127.0.0.1", front.servers[front.at].port, timeout=30)
                way.request(self.command, self.path, body, dict(self.headers))
                answer = way.getresponse()
                told = answer.read()
                way.close()
                if self.path in front.lose:  # it was done, and nobody hears of it
                    front.lose.remove(self.path)
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("date", "server", "connection", "transfer-encoding"):
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(told)

            do_POST = do_GET

            def log_message(self, *_): ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
        for server in self.servers:
            server.kill()

    def times(self, path):
        return sum(path == seen for seen, _ in self.seen)


class Behind(Server):
    """A process behind the front: people know it by the front's address."""

    def _listen_on(self, port, env):
        super()._listen_on(port, env)
        self.env["BASE_URL"] = env["BASE_URL"]


@pytest.fixture
def front(database_url, tmp_path, sink):
    """front(2) → a Front with two processes on one database."""
    with Front() as front:

        def start(n=1):
            settings = {"BASE_URL": front.url, "SMTP_PORT": sink.port}
            env = environment(database_url, tmp_path, **settings)
            front.servers = [Behind(env, tmp_path) for _ in range(n)]
            for server in front.servers:
                server.start()
            return front

        yield start


@pytest.fixture
def people(build):
    """The rules beside the running processes, by their clock, with Ada in it."""
    house = build(clock=time.time)
    house.add(ADA)
    return house


@pytest.fixture
def client(tmp_path):
    """client("me") → (exit status, stdout, stderr), and tokens of its own."""
    client = Client(tmp_path / "kept" / "tokens.json")
    yield client
    for process in client.waiting:
        process.kill()
        process.communicate()


class Client:
    def __init__(self, file):
        self.file, self.waiting = file, []

    def start(self, *words):
        keep = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
        return subprocess.Popen(
            [sys.executable, CLIENT, *words],
            env=keep | {"SIGNIN_FILE": str(self.file)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words):
        return self.end(self.start(*words))

    def end(self, process, typed=""):
        out, error = process.communicate(typed, timeout=60)
        assert not SECRETS.search(out + error) and len(error.splitlines()) <= 1
        assert bool(error) == (process.returncode == 1), error
        return process.returncode, out.strip(), error.strip()

    def sign_in(self, front, read):
        """read() is called when the client has asked, and says what the person types."""
        process = self.start("--url", front.url, "login", ADA)
        self.waiting.append(process)
        first = process.stdout.readline()
        assert "If this address can sign in here" in first
        done = self.end(process, read() + "\n")
        self.waiting.remove(process)
        return done

    @property
    def kept(self):
        return json.loads(self.file.read_text())

    def change(self, **what):
        self.file.write_text(json.dumps(self.kept | what))


def link_to(sink, address):
    sink.code(address)  # wait for it
    text = parsed(sink._to(address)[-1]).get_body(("plain",)).get_content()
    return re.search(r"^http\S+/link#\w+", text, re.MULTILINE)[0]


# ---- the client
def test_a_sign_in_from_first_to_last(front, people, sink, client):
    front = front(2)
    done = client.sign_in(front, lambda: sink.code(ADA))
    assert done[0] == 0 and done[1].endswith(f"Signed in as {ADA}.")
    assert client.file.stat().st_mode & 0o777 == 0o600
    assert client.file.parent.stat().st_mode & 0o777 == 0o700
    assert set(client.kept) == {"url", "access_token", "refresh_token", "ends_at"}
    front.at = 1
    assert json.loads(client("me")[1])["user"]["email"] == ADA
    # The first refresh is done, and its answer is lost: asked again, with the same token.
    old = client.kept
    front.lose = ["/auth/refresh"]
    assert client("refresh") == (0, "The tokens are new.", "")
    first, again = (body for path, body in front.seen if path == "/auth/refresh")
    assert first == again and client.kept["refresh_token"] != old["refresh_token"]
    assert [row["generation"] for row in people.rows("sessions")] == [1]
    # Once the access token has run out, it is refreshed by itself.
    client.change(ends_at=0)
    assert client("me")[0] == 0 and front.times("/auth/refresh") == 3
    last = client.kept
    assert client("logout") == (0, "Signed out.", "") and not client.file.exists()
    assert people.rows("sessions") == []
    for at in (0, 1):  # dead at once, in both processes
        front.at = at
        for tokens in (old, last):
            client.file.write_text(json.dumps(tokens | {"ends_at": time.time() + 600}))
            status, out, error = client("me")
            assert (status, out) == (1, "") and "Begin again" in error
            assert not client.file.exists()
    assert client("me") == (1, "", "Nobody is signed in here. Begin with: login ADDRESS")


@sqlite_is_enough
def test_a_pasted_link_and_an_organisation(front, people, sink, client):
    rules = people.auth.organisations
    chess, _ = (rules.create(None, name, ADA, Source()) for name in ("Chess club", "Go club"))
    front = front()
    assert client.sign_in(front, lambda: link_to(sink, ADA))[0] == 0
    assert len(json.loads(client("me")[1])["memberships"]) == 2
    refresh_token = client.kept["refresh_token"]
    assert client("tenant", chess.id) == (0, f"You work in {chess.id} as admin.", "")
    assert client.kept["refresh_token"] == refresh_token
    assert json.loads(client("me")[1])["user"]["tenant"] == chess.id
    status, _, error = client("tenant", "0" * 32)
    assert status == 1 and "no such organisation" in error


@sqlite_is_enough
def test_what_goes_wrong_is_said_in_one_line(front, people, sink, client):
    front = front()
    front.busy = ["/auth/login"]  # 503: it is asked again by itself

    def typed():
        code = sink.code(ADA)
        wrong = "000000" if code != "000000" else "111111"
        return f"letters\n{wrong}\n{code}"

    status, out, _ = client.sign_in(front, typed)
    assert status == 0 and "You have 4 tries left" in out and "only digits" in out
    assert len(sink.mails) == 1
    client.change(access_token="nonsense")
    assert client("me")[0] == 0  # refused, refreshed, asked again
    # A copy of the tokens that was used before: the session ends.
    copied = client.kept
    assert client("refresh")[0] == client("refresh")[0] == 0
    client.file.write_text(json.dumps(copied | {"ends_at": 0}))
    assert client("me") == (1, "", "This sign-in has ended. Begin again with: login ADDRESS")
    assert not client.file.exists() and people.rows("sessions") == []
    for words, says in (
        (("--url", "http://app.example.org", "login", ADA), "https://"),
        (("--url", front.url, "login", "nonsense"), "can’t send mail"),
        (("tenant",), "id"),
        (("coffee",), "coffee"),
        (("--url", front.url, "login", ADA), "nothing was typed"),
        (("--url", "http://127.0.0.1:9", "login", ADA), "No answer"),
    ):
        status, _, error = client(*words)
        assert status == 1 and says in error, error


# ---- the page
def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def shape(told):
    """The names of the fields at every depth."""
    if isinstance(told, dict):
        return {name: shape(value) for name, value in told.items()}
    return [shape(told[0])] if isinstance(told, list) and told else None


def test_the_page_alone_is_enough_with_curl(front, people, sink, tmp_path):
    assert shutil.which("curl"), "curl is needed for this test"
    rules = people.auth.organisations
    tenant = rules.create(None, "Chess club", ADA, Source()).id
    rules.create(None, "Go club", ADA, Source())
    front = front(2)
    known = {"url": front.url, "email": ADA, "tenant": tenant}
    pieces = re.findall(r"```(sh|json)\n(.*?)```", PAGE, re.S)
    pieces = [(kind, text) for kind, text in pieces if kind == "json" or text.startswith("curl")]
    assert len([kind for kind, _ in pieces if kind == "sh"]) == 8

    def run(command):
        assert set(re.findall(r"\$(\w+)", command)) <= set(known), command
        done = subprocess.run(
            ["sh", "-c", command.strip() + " -w '\\n%{http_code}'"],
            env={"PATH": os.environ["PATH"]} | known,
            capture_output=True,
            text=True,
            timeout=30,
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body) if body else None

    answers, told = {}, None
    for kind, text in pieces:
        if kind == "json":  # what the page says was answered
            assert shape(json.loads(text)) == shape(told), text
            continue
        path = re.search(r"\$url(\S+)\"", text)[1]
        status, told = run(text)
        answers[path] = status
        known |= {k: v for k, v in (told or {}).items() if isinstance(v, str)}
        if path == "/auth/login":
            known["code"] = sink.code(ADA)
            assert told["device_secret"] not in sink._to(ADA)[0].decode()
    assert answers == {
        "/auth/login": 202,
        "/auth/verify": 200,
        "/auth/me": 200,
        "/auth/refresh": 200,
        "/auth/tenant": 200,
        "/auth/logout": 204,
        "/auth/jwks.json": 200,
        "/openapi.json": 200,
    }
    commands = {re.search(r"\$url(\S+)\"", text)[1]: text for kind, text in pieces if kind == "sh"}
    for front.at in (1, 0):  # dead at once, also in the process that did not hear of it
        for path in ("/auth/me", "/auth/refresh", "/auth/tenant", "/auth/logout"):
            status, told = run(commands[path])
            assert (status, told["code"]) == (401, "invalid_token"), path


def test_the_table_of_errors_has_every_code():
    rows = re.findall(r"^\| (\d{3}) \| (.+?) \|", PAGE.partition("## Errors")[2], re.MULTILINE)
    named = {
        (int(status), code) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)
    }
    ours = set(ANSWERS.values()) | {(status, code) for code, status in MALFORMED.items()}
    general = {
        (400, "bad_request"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (403, "cross_site"),
        (403, "confirmation_needed"),
        (404, "not_found"),
        (405, "method_not_allowed"),
        (413, "content_too_large"),
        (415, "unsupported_media_type"),
        (500, "internal_server_error"),
        (503, "service_unavailable"),
    }
    assert named == ours | general


def test_the_general_errors_are_what_the_table_says(house):
    program = house.program()
    post = program.client.post
    assert (
        post("/auth/login", json={}, headers={"Host": "evil.test"}).json()["code"] == "bad_request"
    )
    assert program.get("/auth/nothing").json()["code"] == "not_found"
    wrong = program.get("/auth/login")
    assert wrong.json()["code"] == "method_not_allowed" and wrong.headers["allow"] == "POST"
    large = post("/auth/login", content=b" " * 70_000)
    assert (large.status_code, large.json()["code"]) == (413, "content_too_large")
    form = post("/auth/login", data={"email": ADA})
    assert (form.status_code, form.json()["code"]) == (415, "unsupported_media_type")


@sqlite_is_enough
def test_another_service_checks_tokens_with_the_public_key(front, people, sink, client):
    front = front()
    assert client.sign_in(front, lambda: sink.code(ADA))[0] == 0
    code = blocks("python")[0]
    names = {}
    exec(compile(code.replace("https://app.example.org", front.url), "api.md", "exec"), names)
    token = client.kept["access_token"]
    claims = names["claims_of"](token)
    assert claims["sub"] == people.auth.people.by_address(ADA).id
    assert (claims["role"], claims["tenant"]) == ("user", None)
    head, body, signature = token.split(".")
    forged = [f"{head}.{body}.{signature[::-1]}", f"{body}.{body}.{signature}", "nonsense"]
    key = "a key of somebody else that is long enough"
    forged += [jwt.encode(claims, key, "HS256", {"typ": "at+jwt", "kid": "x"})]
    forged += [jwt.encode(claims, None, "none", {"typ": "at+jwt"})]
    for bad in forged:
        with pytest.raises(jwt.PyJWTError):
            names["claims_of"](bad)
    names["APP"] = "https://other.example.org"
    with pytest.raises(jwt.InvalidTokenError):
        names["claims_of"](token)


def test_the_other_snippets_of_the_page_run(house):
    names = {"app": house.app, "Program": Program, "mailbox": house.mailbox, "outbox": house.outbox}
    names |= {"asgi": house.asgi}
    own, opened, tested = blocks("python")[1:]
    for block in (own, opened):
        exec(compile(ast.parse(textwrap.dedent(block)), "api.md", "exec"), names)
    house.db.q("insert into roles (name) values ('editor')")
    house.add(ADA, role="editor")
    house.add("bob@example.org")
    exec(tested.replace("https://app.test", house.base_url), names)
    program, other = names["program"], house.program()
    assert program.get("/api/reports").json() == {"for": ADA, "tenant": ""}
    assert program.post("/api/reports", title="One").json()["title"] == "One"
    told = program.post("/api/reports", title="x" * 81)
    assert (told.status_code, told.json()["code"]) == (422, "bad_title")
    assert other.get("/api/reports").status_code == 401
    other.sign_in("bob@example.org")
    assert other.post("/api/reports", title="One").json()["code"] == "forbidden"
    answer = house.door().get("/open")
    assert (answer.status_code, answer.headers["location"]) == (303, "/link")
