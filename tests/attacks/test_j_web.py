"""J: what can be done to any web server: too much, too odd, and faults at the worst moment."""

import ast
import re
import socket
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from fasthtml.common import FastHTML

from auth import MIGRATIONS, EmailAuth, Policy, signed_in
from auth.testing import client_of
from templates import Templates
from tests.attacks.test_d_browser import OURS, fill, snapshot, walk
from tests.conftest import ADMIN, BASE_URL, SECRET
from utils.database import connect, migrate
from utils.shield import MAX_BODY, MAX_FIELDS

ROOT = Path(__file__).resolve().parent.parent.parent


# ---- talking to a real server without a client's good manners
def exchange(server, *pieces, hang_up=False):
    """(status or None, all that came back, bytes sent) after sending pieces until there is an answer."""
    sent, got = 0, b""
    with socket.create_connection(("127.0.0.1", server.port)) as wire:
        try:
            for piece in pieces:
                wire.settimeout(10)
                wire.sendall(piece)
                sent += len(piece)
                wire.settimeout(0.005)
                try:
                    got += wire.recv(65536)
                    break
                except TimeoutError:
                    continue
            wire.settimeout(10)
            if hang_up:
                wire.shutdown(socket.SHUT_WR)
            while not whole(got, pieces[0][:4] == b"HEAD") and (data := wire.recv(65536)):
                got += data
        except OSError:
            pass  # closed on us, which is an answer, too
    found = re.match(rb"HTTP/1\.[01] ([0-9]{3}) ", got)
    return int(found[1]) if found else None, got, sent


def whole(got, no_body):
    """Is this one answer with all of its body?"""
    head, end, body = got.partition(b"\r\n\r\n")
    size = re.search(rb"(?i)\r\ncontent-length: ([0-9]+)", head)
    return bool(end) and (no_body or (size is not None and len(body) >= int(size[1])))


def head(
    server, first="POST /create_code HTTP/1.1", kind="application/x-www-form-urlencoded", *more
):
    lines = [first, f"Host: 127.0.0.1:{server.port}", "Sec-Fetch-Site: same-origin"]
    lines += [f"Content-Type: {kind}"] if kind else []
    return "\r\n".join([*lines, *more, "", ""]).encode("latin1")


def memory(server, name="VmHWM"):
    """Kilobytes; VmHWM is the most it ever had."""
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(rf"{name}:\s+([0-9]+) kB", text)[1])


def part(name, value="x", more=""):
    return f'--B\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'


MULTI = "multipart/form-data; boundary=B"
FORM = "application/x-www-form-urlencoded"
NEVER = {None}  # closed without a word
TOO_MUCH = {400, 413, 414, 431} | NEVER
NO = {400, 413, 415, 422, 431} | NEVER


def sized(body, kind=FORM, *more):
    """A head that tells the truth about its body."""
    data = body.encode("latin1") if isinstance(body, str) else body

    def pieces(server):
        size = f"Content-Length: {len(data)}"
        return head(server, "POST /create_code HTTP/1.1", kind, size, *more), data

    return pieces


def lying(body, *lines, kind=FORM, first="POST /create_code HTTP/1.1"):
    return lambda server: (head(server, first, kind, *lines), body)


def chunks(count, size):
    piece = f"{size:x}\r\n".encode() + b"a" * size + b"\r\n"
    return [piece] * count


BODIES = {
    "64 KiB and a byte": (sized("email=" + "a" * (MAX_BODY - 5)), {413}),
    "64 KiB": (sized("email=" + "a" * (MAX_BODY - 6)), {422}),
    "64 KiB of percent signs": (sized("email=" + "%41" * 21000), {422}),
    "51 fields": (sized("&".join(f"f{i}=1" for i in range(MAX_FIELDS + 1))), {413}),
    "50 fields": (sized("&".join(f"f{i}=1" for i in range(MAX_FIELDS))), {422}),
    "30000 empty fields": (sized("&" * 30000), {413}),
    "51 parts": (sized("".join(part(f"f{i}") for i in range(MAX_FIELDS + 1)) + "--B--\r\n", MULTI), {413}),
    "50 parts": (sized("".join(part(f"f{i}") for i in range(MAX_FIELDS)) + "--B--\r\n", MULTI), {422}),
    "an email in parts": (sized(part("email", "eve@example.org") + "--B--\r\n", MULTI), {303}),
    "a file": (sized(part("email", "x", '; filename="x"') + "--B--\r\n", MULTI), NO),
    "parts without a boundary": (sized(part("email"), "multipart/form-data"), NO),
    "an empty boundary": (sized(part("email"), "multipart/form-data; boundary="), NO),
    "a boundary of 5000": (sized(part("email"), "multipart/form-data; boundary=" + "B" * 5000), NO),
    "parts without an end": (sized(part("email", "eve@example.org")[:-2], MULTI), NO),
    "parts without a name": (sized("--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--\r\n", MULTI), NO),
    "a part's head of 60 kB": (sized("--B\r\nX: " + "a" * 60000 + "\r\n\r\nx\r\n--B--\r\n", MULTI), NO),
    "a thousand heads of one part": (sized("--B\r\n" + "X: a\r\n" * 9000 + "\r\nx\r\n--B--\r\n", MULTI), NO),
    "parts within parts": (sized(part("email", MULTI + "\r\n\r\n" + part("email")) + "--B--\r\n", MULTI), NO),
    "a charset that is none": (sized(part("email") + "--B--\r\n", MULTI + "; charset=none"), NO),
    "dashes": (sized("-" * 60000, MULTI), NO),
    "gzip": (sized(b"\x1f\x8b\x08" + bytes(5000), FORM, "Content-Encoding: gzip"), NO),
    "deep JSON": (sized("[" * 60000, "application/json"), NO),
    "JSON as a form": (sized('{"email":"eve@example.org"}', FORM), NO),
    "XML": (sized("<!DOCTYPE a [<!ENTITY b 'c'>]>", "text/xml"), NO),
    "bytes of no encoding": (sized(b"email=\xff\xfe%ff%00&\x00=\x00"), NO),
    "no type": (sized("email=eve@example.org", None), NO),
    "Content-Length a gigabyte": (lying(b"email=x", "Content-Length: 1073741824"), {413}),
    "Content-Length of 5000 digits": (lying(b"email=x", "Content-Length: " + "9" * 5000), TOO_MUCH),
    "Content-Length -1": (lying(b"email=x", "Content-Length: -1"), NO),
    "Content-Length +7": (lying(b"email=x", "Content-Length: +7"), NO),
    "Content-Length 0x7": (lying(b"email=x", "Content-Length: 0x7"), NO),
    "two lengths": (lying(b"email=x", "Content-Length: 7", "Content-Length: 8"), NO),
    "a length and chunks": (lying(b"0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"), NO),
    "less than it said": (lying(b"email=x", "Content-Length: 60000"), NO),
    "more than it said": (lying(b"email=eve@example.org", "Content-Length: 3"), NO),
    "no length at all": (lying(b"email=eve@example.org"), NO),
    "HTTP/1.0 without a length": (lying(b"email=x" * 20000, first="POST /create_code HTTP/1.0"), NO),
    "a chunk size that overflows": (lying(b"F" * 20 + b"\r\nx", "Transfer-Encoding: chunked"), NO),
    "a chunk size that is none": (lying(b"xyz\r\nx\r\n", "Transfer-Encoding: chunked"), NO),
    "one chunk of 10 MB": (
        lambda server: (head(server, "POST /create_code HTTP/1.1", FORM, "Transfer-Encoding: chunked"), *chunks(1, 10_000_000)),
        {413} | NEVER,
    ),
    "10 MB in small chunks": (
        lambda server: (head(server, "POST /create_code HTTP/1.1", FORM, "Transfer-Encoding: chunked"), *chunks(160, 65536)),
        {413},
    ),
    "10 MB to a page that is only read": (
        lambda server: (head(server, "GET /login HTTP/1.1", FORM, "Transfer-Encoding: chunked"), *chunks(160, 65536)),
        {200, 413},
    ),
    "10 MB to nobody": (
        lambda server: (head(server, "POST /nothing HTTP/1.1", FORM, "Transfer-Encoding: chunked"), *chunks(160, 65536)),
        {413},
    ),
    "10 MB to a file": (
        lambda server: (head(server, "POST /static/app.css HTTP/1.1", FORM, "Transfer-Encoding: chunked"), *chunks(160, 65536)),
        {413},
    ),
}  # fmt: skip
MOST_SENT = 8_000_000  # of 10 MB: the answer came while the rest was still to be sent
MOST_MEMORY = 20 * 1024


def test_J1_no_body_is_too_much(serve):
    assert len(BODIES) >= 20
    server = serve(SIGNUP="open")
    exchange(server, *sized("email=nobody")(server))  # what is loaded late is loaded now
    before = memory(server)
    for name, (pieces, wanted) in BODIES.items():
        status, got, sent = exchange(server, *pieces(server), hang_up=name == "less than it said")
        assert status in wanted, (name, status, got[:200])
        assert got.count(b"HTTP/1.1 5") == 0, name
        if "10 MB in" in name or "10 MB to nobody" in name:
            assert sent < MOST_SENT, (name, sent)
    assert memory(server) - before < MOST_MEMORY
    assert server.process.poll() is None and "Traceback" not in server.log
    assert exchange(server, *sized("email=nobody")(server))[0] == 422


HEADS = {
    "10000 cookies": ("GET /login HTTP/1.1", "Cookie: " + "; ".join(f"c{i}=1" for i in range(10000)), 1),
    "10000 headers": ("GET /login HTTP/1.1", "\r\n".join(f"h{i}: 1" for i in range(10000)), 1),
    "one header of 1 MB": ("GET /login HTTP/1.1", "X: " + "a" * 1_000_000, 1),
    "one header of 30 MB": ("GET /login HTTP/1.1", "X: " + "a" * 1_000_000, 30),
    "a path of 30 MB": ("GET /" + "a" * 1_000_000, "", 30),
    "a query of 30 MB": ("GET /login?next=" + "a" * 1_000_000, "", 30),
    "30 MB of headers": ("GET /login HTTP/1.1", "\r\n".join(f"X{i}: " + "a" * 990 for i in range(1000)), 30),
}  # fmt: skip


def test_J1_no_head_is_too_much(serve):
    """What comes before the body is kept in memory until it is whole; it has to have an end."""
    server = serve()
    exchange(server, head(server, "GET /login HTTP/1.1", None))
    before = memory(server)
    for name, (first, more, times) in HEADS.items():
        start = f"{first}\r\nHost: 127.0.0.1:{server.port}\r\n" if more else first
        more = more or "a" * 1_000_000
        last = "\r\n\r\n" if "HTTP/1.1" in first else " HTTP/1.1\r\nHost: x\r\n\r\n"
        pieces = [
            start.encode(),
            *[more.encode() + b"\r\n" * ("headers" in name)] * times,
            last.encode(),
        ]
        status, got, sent = exchange(server, *pieces)
        assert status in TOO_MUCH | ({200} if times == 1 else set()), (name, status)
        assert b"HTTP/1.1 5" not in got, name
        if times > 1:
            assert sent < 20_000_000, (name, sent)
    assert memory(server) - before < MOST_MEMORY, memory(server) - before
    assert exchange(server, head(server, "GET /login HTTP/1.1", None))[0] == 200


def test_J1_trailers_are_not_kept(serve):
    """Chunks may be followed by headers; those are a way in, too."""
    server = serve()
    exchange(server, head(server, "GET /login HTTP/1.1", None))
    before = memory(server)
    start = head(server, "POST /create_code HTTP/1.1", FORM, "Transfer-Encoding: chunked")
    trailers = [b"X: " + b"a" * 1_000_000] + [b"a" * 1_000_000] * 29
    status, got, _ = exchange(server, start + b"3\r\na=b\r\n0\r\n", *trailers, b"\r\n\r\n")
    assert status in NO and b"HTTP/1.1 5" not in got
    assert memory(server) - before < MOST_MEMORY, memory(server) - before


def test_J1_a_length_of_many_digits_is_refused_by_us_too(door):
    """Whatever server stands in front, and whatever it lets through."""
    for length in ("9" * 5000, "-1", "1e3", "٣", "", " ", "99999999999999999999"):
        headers = OURS | {"Content-Length": length.encode()}
        answer = door.client.post("/create_code", content=b"email=x", headers=headers)
        assert answer.status_code in (400, 413), length[:20]


# ---- J4
SQL = [
    "'",
    "''",
    '"',
    "\\",
    "\\'",
    "' or '1'='1",
    "' or 1=1 --",
    "'; drop table users; --",
    "'; update users set role='admin'; --",
    "' union select id, address, role from users --",
    "'||(select pg_sleep(5))||'",
    "1 or 1=1",
    "-1",
    ":token",
    "%(token)s",
    "%s",
    "%",
    "_",
    "?1",
    "$1",
    "{0}",
    "9" * 40,
    "\x00",
    "a\x00b",
    "*/ or 1=1 /*",
    "' escape '",
]


def test_J4_no_input_is_read_as_sql(house, admin):
    ada = house.add("ada@example.org", name="Ada")
    before = snapshot(house.db, but=["sessions.seen_at"])
    htmx = {"HX-Request": "true"}
    for number, text in enumerate(SQL):
        anyone = house.door(client=f"10.{number}.0.1")
        plain = quote(text, safe="")
        agent = {"User-Agent": text.encode("utf-8", "replace").replace(b"\x00", b"")}
        cookie = {"Cookie": f"__Host-session={plain}; __Host-signin={plain}; device={plain}"}
        for answer in (
            admin.client.get("/admin", params={"q": text}, headers=agent),
            admin.client.get("/admin", params={"q": text, "page": text}, headers=htmx),
            admin.client.get("/admin", params={"done": "added", "id": text}),
            admin.client.get("/admin", params={"done": text, "id": ada.id, "sort": text, "limit": text}),
            admin.post(f"/admin/people/{plain}/role", role="admin"),
            admin.post(f"/admin/people/{plain}/disable", q=text, page=text),
            admin.post(f"/admin/people/{plain}/enable", htmx, q=text, page=text),
            admin.post(f"/admin/people/{ada.id}/role", role=text),
            admin.post("/admin/people", email=text, name=text, role=text),
            admin.post("/admin/people", email="x@example.org", name="x", role=text or "x"),
            anyone.client.get("/login", params={"next": text}),
            anyone.get("/dashboard", headers=cookie),
            anyone.post("/verify_code", cookie, code=text, timezone=text),
            anyone.post("/resend_code", cookie),
            anyone.post("/create_code", email=text, next=text),
        ):  # fmt: skip
            assert answer.status_code < 500, ascii(text)
    assert snapshot(house.db, but=["sessions.seen_at"]) == before
    assert admin.signed_in


def test_J4_a_search_finds_what_was_typed_and_no_more(house, admin):
    house.add("ada_b@example.org", name="100% Ada")
    house.add("ada.b@example.org", name="Ada \\ B")
    for typed, found in (
        ("%", ["ada_b@"]),
        ("_", ["ada_b@"]),
        ("\\", ["ada.b@"]),
        ("a_b", ["ada_b@"]),
        ("' or '1'='1", []),
        ("ADA", ["ada_b@", "ada.b@"]),
    ):
        page = admin.client.get("/admin", params={"q": typed}).text
        names = ("ada_b@", "ada.b@", ADMIN)
        assert [n for n in names if f">{n}" in page] == found, typed


def test_J4_values_that_reach_the_database_come_back_as_they_were(build):
    house = build(SIGNUP="open")
    for number, name in enumerate(t for t in SQL if t.isprintable()):
        person = house.add(f"p{number}@example.org", name=name)
        assert person.name == name.strip()
    local = "a'b%c?d{e}$1"
    door = house.door()
    door.sign_in(f"{local}@example.org", next="/a?b=%27%20or%201=1--")
    assert house.rows("users")[-1] and door.signed_in


def built_sql(tree):
    """Calls of q, execute or script whose SQL is put together from pieces."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in ("q", "execute", "executemany", "executescript", "script"):
            for inner in ast.walk(node.args[0]):
                glued = isinstance(inner, ast.JoinedStr) or (
                    isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Add | ast.Mod)
                )
                method = isinstance(inner, ast.Call) and getattr(inner.func, "attr", "")
                if glued or method in ("format", "format_map", "join", "replace", "substitute"):
                    yield node.lineno


@pytest.mark.parametrize(
    "line",
    [
        'q(f"select {a}")',
        't.q("select " + a)',
        'self.db.q("select %s" % a)',
        'c.execute("select {}".format(a))',
        't.script(" ".join(a))',
    ],
)
def test_J4_the_check_below_sees_what_it_looks_for(line):
    assert list(built_sql(ast.parse(line)))


def test_J4_no_sql_is_put_together_from_pieces():
    files = [*(ROOT / "auth").rglob("*.py"), *(ROOT / "utils").rglob("*.py"), ROOT / "main.py"]
    calls = 0
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not [f"{file.name}:{line}" for line in built_sql(ast.parse(text))]
        calls += len(re.findall(r"\.q\(", text))
    assert calls > 20


# ---- J7
WANTED = [
    "main.py",
    ".env",
    "data/vestibule.db",
    "utils/settings.py",
    "pyproject.toml",
    ".git/config",
]
UPS = [
    "../",
    "%2e%2e/",
    "..%2f",
    "%2e%2e%2f",
    "%2E%2E%2F",
    ".%2e/",
    "..%5c",
    "..\\",
    "%5c..%5c",
    "%252e%252e%252f",
    "..%252f",
    "....//",
    "..;/",
    "..%00/",
    "..%c0%af",
    "%c0%ae%c0%ae/",
    "..%e0%80%af",
    "..%ef%bc%8f",
    "/../",
    "//../",
    "./../",
    "x/../../",
]
PATHS = [
    *(
        f"/static/{up * depth}{file}"
        for up in UPS
        for depth, file in ((1, "main.py"), (2, "main.py"))
    ),
    *(f"/{up}{file}" for up in UPS[:6] for file in WANTED[:3]),
    *(f"/{file}" for file in WANTED),
    *(f"/static/{file}" for file in WANTED),
    *(f"/static/{up * 12}etc/passwd" for up in UPS),
    "//etc/passwd",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/file:///etc/passwd",
    "/etc/passwd%00.css",
    "/static/app.css%00",
    "/static/app.css%00.py",
    "/static/app.css/../../main.py",
    "/static/app.css::$DATA",
    "/static/app.js.map",
    "/static/.",
    "/static/..",
    "/static/%2e",
    "/static/%2e%2e",
    "/static/",
    "/static/%ff",
    "/static/" + "a" * 5000,
    "/static/" + "../" * 1000 + "etc/passwd",
    "/.git/HEAD",
    "/.well-known/../main.py",
    "/data/",
    "/vestibule.db",
    "/vestibule.db-wal",
    "/.sesskey",
    "/secret_key",
    "/data/secret_key",
    "/config.yaml",
    "/dump.csv",
    "/backup.zip",
    "/server-status",
    "/__pycache__/main.cpython-311.pyc",
    "/requirements.txt",
    "/Makefile",
    "/docs",
    "/redoc",
    "/debug",
    "/console",
]
SECRETS = (
    b"import ",
    b"root:",
    b"SECRET_KEY",
    b"SQLite format",
    b"APP_ENV",
    b"[core]",
    b"[project]",
    b"def ",
)


def test_J7_no_path_leads_out_of_static(serve):
    assert len(set(PATHS)) >= 60
    server = serve()
    for path in PATHS:
        for first in (f"GET {path} HTTP/1.1", f"HEAD {path} HTTP/1.1"):
            status, got, _ = exchange(server, head(server, first, None, "Connection: close"))
            assert status in (400, 404), (path, status)
            assert not any(secret in got for secret in SECRETS), path
            assert server.env["SECRET_KEY"].encode() not in got
    absolute = f"GET http://127.0.0.1:{server.port}/static/../main.py HTTP/1.1"
    assert exchange(server, head(server, absolute, None, "Connection: close"))[0] in (400, 404)
    good = head(server, "GET /static/app.css HTTP/1.1", None, "Connection: close")
    assert exchange(server, good)[0] == 200
    assert "Traceback" not in server.log


# ---- J10
METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "FOO",
)
STEADY = (
    ("/static/app.css", {"GET", "HEAD"}),
    ("/healthz", {"GET", "HEAD"}),
    ("/readyz", {"GET", "HEAD"}),
)


def test_J10_every_route_takes_its_methods_and_names_them(house):
    ada = house.add("ada@example.org")
    for path, methods in [*walk(house.app), *STEADY]:
        allowed = set(methods) | ({"HEAD"} if "GET" in methods else set())
        for method in METHODS:
            door = house.door()
            answer = door.client.request(method, fill(path, ada.id), headers=OURS)
            if method in allowed:
                assert answer.status_code != 405, (method, path)
                continue
            assert answer.status_code == 405, (method, path, answer.status_code)
            named = {m.strip() for m in answer.headers["allow"].split(",")}
            assert named == allowed, (method, path)  # RFC 9110 §15.5.6: all that it does take


def test_J10_methods_of_other_sites_are_refused_before_they_are_looked_at(house):
    for path, _ in walk(house.app):
        for method in ("PUT", "PATCH", "DELETE", "TRACE", "FOO"):
            door = house.door()
            for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.test"}):
                answer = door.client.request(method, fill(path, "1"), headers=headers)
                # Programs say no origin at all, and have no cookie that another site could use.
                program = path.startswith(house.auth.programs) and not headers
                expected = 405 if program else 403
                assert answer.status_code == expected, (method, path)


def test_J10_no_header_or_field_turns_one_method_into_another(house, admin):
    ada = house.add("ada@example.org")
    before = snapshot(house.db, but=["sessions.seen_at"])
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        for path in ("/logout", "/logout_everywhere", f"/admin/people/{ada.id}/disable"):
            answer = admin.client.get(f"{path}?_method=POST", headers=OURS | {name: "POST"})
            assert answer.status_code == 405
        answer = admin.post("/dashboard?_method=DELETE", {name: "DELETE"}, _method="DELETE")
        assert answer.status_code == 405
    assert snapshot(house.db, but=["sessions.seen_at"]) == before and admin.signed_in


def test_J10_head_is_get_without_the_body(house, admin):
    for door in (house.door(), admin):
        for path, methods in [*walk(house.app), *STEADY, ("/nothing", {"GET"})]:
            if "GET" not in methods:
                continue
            got, headed = door.client.get(path), door.client.head(path)
            assert got.status_code == headed.status_code, path
            assert dict(got.headers) == dict(headed.headers), path
            assert headed.content == b""


def test_J10_who_asks_for_a_socket_gets_the_page_and_fills_no_log(serve):
    server = serve()
    socket_please = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    got = exchange(server, head(server, "GET /login HTTP/1.1", "", *socket_please))
    assert got[0] == 200 and "pgrade" not in server.log


def test_J10_trace_echoes_nothing_over_the_wire(serve):
    server = serve()
    for first in ("TRACE /login HTTP/1.1", "TRACE / HTTP/1.1", "TRACK / HTTP/1.1", "CONNECT a:1 HTTP/1.1", "OPTIONS * HTTP/1.1"):  # fmt: skip
        status, got, _ = exchange(
            server, head(server, first, None, "X-Echo: quokka", "Connection: close")
        )
        assert status in (400, 403, 404, 405, 501), first
        assert b"quokka" not in got
    status, got, _ = exchange(
        server, head(server, "HEAD /login HTTP/1.1", None, "Connection: close")
    )
    assert status == 200 and got.endswith(b"\r\n\r\n") and got.count(b"\r\n\r\n") == 1


# ---- J11
class Fuse:
    """Burns at the n-th time it is asked; never when it is not set."""

    def __init__(self):
        self.left, self.error, self.burnt = None, None, False

    def set(self, n, error):
        self.left, self.error, self.burnt = n, error, False

    def ask(self):
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                self.left, self.burnt = None, True
                raise self.error("the n-th call")


class Faulty:
    """A database in front of a real one: each statement, before or after it is run, each begin, each commit may fail."""

    def __init__(self, real, fuse):
        self.real, self.fuse, self.Unavailable = real, fuse, real.Unavailable

    def _q(self, q, sql, params):
        self.fuse.ask()
        rows = q(sql, **params)
        self.fuse.ask()
        return rows

    def q(self, sql, **params):
        return self._q(self.real.q, sql, params)

    @contextmanager
    def tx(self, lock=None, **how):
        self.fuse.ask()
        with self.real.tx(lock, **how) as t:
            yield FaultyTx(self, t)
            self.fuse.ask()  # at the commit: taken back
        self.fuse.ask()  # after it: kept, and nobody was told

    async def run(self, f, *args, **kw):
        return await self.real.run(f, *args, **kw)


class FaultyTx:
    def __init__(self, db, t):
        self._db, self._t = db, t

    def q(self, sql, **params):
        return self._db._q(self._t.q, sql, params)

    def on_commit(self, f):
        self._t.on_commit(f)


LIMITS = ("starts_per_ip", "mails_per_address", "wrong_per_ip", "wrong_per_account", "wrong_fleet")


class Stranger:
    """Somebody else's app with the plug in it, its database on a fuse, its mail in a list."""

    def __init__(self, url):
        self.fuse, self.letters = Fuse(), []
        self.real = connect(url)
        migrate(self.real, MIGRATIONS)
        app = FastHTML(default_hdrs=False, sess_cls=None, secret_key=SECRET)
        self.auth = EmailAuth(
            app,
            Faulty(self.real, self.fuse),
            Templates("Stranger", BASE_URL),
            lambda t, kind, ref, not_after: self.letters.append((kind, ref)),
            base_url=BASE_URL,
            secret_key=SECRET,
            policy=Policy(signup="open", **dict.fromkeys(LIMITS, ((10**6, 1),))),
        )

        @app.get("/private", before=signed_in)
        def private(auth, session):
            session["visits"] = session.get("visits", 0) + 1
            return f"for {auth.address} only"

        self.app = app

    def browser(self):
        browser = client_of(self.app, BASE_URL, "192.0.2.1")
        browser.headers |= OURS | {"Accept": "text/html"}
        return browser

    def code(self):
        """Out of the newest mail that has one: what was taken back in the database says nothing."""
        for kind, ref in reversed(self.letters):
            letter = self.auth.letter(kind, ref)
            if letter:
                return letter.text.split("\n")[0]
        raise LookupError("no mail")

    def sign_in(self, browser, address):
        browser.post("/create_code", data={"email": address})
        return browser.post("/verify_code", data={"code": self.code()})

    def count(self, table, where="1 = 1"):
        return self.real.q(f"select count(*) as n from {table} where {where}")[0]["n"]


@pytest.fixture
def stranger(migrated, database_url):
    stranger = Stranger(database_url)
    yield stranger
    stranger.real.close()


def faults(stranger):
    return (stranger.real.Unavailable, RuntimeError)


def has_session(answer):
    return any(
        line.startswith("__Host-session=")
        and not line.startswith(('__Host-session="";', "__Host-session=;"))
        for line in answer.headers.get_list("set-cookie")
    )


def test_J11_a_fault_at_any_call_signs_nobody_in(stranger):
    fuse, flows = stranger.fuse, 0
    for error in faults(stranger):
        for n in range(1, 100):
            address, browser = f"{error.__name__.lower()}{n}@example.org", stranger.browser()
            for step in ("ask", "enter"):
                if step == "ask":
                    fuse.set(n, error)
                    answer = browser.post("/create_code", data={"email": address})
                else:
                    left, fuse.left = fuse.left, None
                    code = stranger.code()
                    fuse.left = left
                    answer = browser.post("/verify_code", data={"code": code})
                if fuse.burnt:
                    break
            fuse.left = None
            signed = browser.get("/private")
            if not fuse.burnt:  # the flow was over before the n-th call
                assert answer.status_code == 303 and has_session(answer)
                assert signed.text.endswith(f"for {address} only") or address in signed.text
                break
            flows += 1
            assert 400 <= answer.status_code < 600, (n, error, step)
            assert answer.status_code == 503 or error is RuntimeError
            assert not has_session(answer) and address not in signed.text, (n, error, step)
            assert signed.status_code == 303
            # All or nothing: a challenge is used exactly when there is a session.
            used = stranger.count("challenges", f"used_at is not null and address = '{address}'")
            begun = stranger.count(
                "sessions", f"user_id in (select id from users where address = '{address}')"
            )
            assert used == begun, (n, error, step)
            again = stranger.sign_in(browser, address)
            assert again.status_code == 303 and has_session(again), (n, error, step)
            assert address in browser.get("/private").text
        else:
            raise AssertionError("the flow never came to its end")
    assert flows >= 30


def test_J11_a_fault_while_looking_who_it_is_lets_nobody_in(stranger):
    fuse, burnt = stranger.fuse, 0
    browser = stranger.browser()
    stranger.sign_in(browser, "ada@example.org")
    for error in faults(stranger):
        for n in range(1, 20):
            fuse.set(n, error)
            answer = browser.get("/private")
            fuse.left = None
            if not fuse.burnt:
                assert answer.status_code == 200 and "ada@example.org" in answer.text
                break
            burnt += 1
            assert answer.status_code == (503 if error is not RuntimeError else 500)
            assert "ada@example.org" not in answer.text and "n-th call" not in answer.text
            assert browser.get("/private").status_code == 200
    assert burnt >= 6


@pytest.mark.parametrize("path", ["/logout", "/logout_everywhere"])
def test_J11_nobody_is_told_of_a_sign_out_that_did_not_happen(stranger, path):
    fuse, burnt = stranger.fuse, 0
    for error in faults(stranger):
        for n in range(1, 20):
            browser = stranger.browser()
            stranger.sign_in(browser, "ada@example.org")
            token = browser.cookies["__Host-session"]
            fuse.set(n, error)
            answer = browser.post(path)
            fuse.left = None
            thief = stranger.browser()
            thief.cookies.set("__Host-session", token)
            alive = thief.get("/private").status_code == 200
            if not fuse.burnt:
                assert answer.status_code == 303 and not alive
                break
            burnt += 1
            assert answer.status_code in (500, 503), (n, error)
            again = browser.post(path)
            assert again.status_code == 303
            assert thief.get("/private").status_code == 303, (n, error)
    assert burnt >= 6


def test_J11_a_fault_in_the_words_signs_nobody_in(database_url):
    """The pages and the mail are dependencies, too."""
    stranger = Stranger(database_url)

    class Mute:
        def __getattr__(self, name):
            raise RuntimeError(f"no {name}")

    browser = stranger.browser()
    browser.post("/create_code", data={"email": "ada@example.org"})
    code = stranger.code()
    words, stranger.auth.templates = stranger.auth.templates, Mute()
    wrong = browser.post("/verify_code", data={"code": "000000" if code != "000000" else "000001"})
    assert wrong.status_code in (422, 500) and not has_session(wrong)
    assert stranger.count("sessions") == 0
    stranger.auth.templates = words
    assert has_session(browser.post("/verify_code", data={"code": code}))
    stranger.real.close()
