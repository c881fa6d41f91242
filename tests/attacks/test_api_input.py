"""D12, D16, J3, J6 for programs: what is no call is a problem, does nothing, and is not logged."""

import gzip
import json
import re
import socket

import pytest

from auth.events import Source
from tests.attacks.test_a_code import wrong
from tests.attacks.test_d_browser import snapshot
from tests.conftest import ADMIN, BASE_URL
from utils.shield import MAX_BODY

ADA = "ada@example.org"
JSON = "application/json"
MALFORMED, INVALID = (400, "malformed_json"), (422, "invalid_body")
TYPE, LARGE = (415, "unsupported_media_type"), (413, "content_too_large")
# A text that is a text, and means nothing to us: what each call says then.
MEANINGLESS = {
    "email": [(422, "email_invalid"), (422, "email_missing")],
    "challenge": [(401, "unknown_challenge")],
    "token": [(422, "link_malformed"), (401, "wrong_link")],
    "refresh_token": [(401, "invalid_token")],
    "tenant": [(404, "tenant_unknown")],
}


def problem(answer):
    """(status, code) of an answer that is a whole problem, which no browser would run or keep."""
    told, headers = answer.json(), answer.headers
    assert headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "code"} <= set(told) and all(told.values())
    assert set(told) <= {"type", "title", "status", "detail", "code", "tries_left"}
    assert told["status"] == answer.status_code and re.fullmatch(r"[a-z_]+", told["code"])
    assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in headers and "location" not in headers
    assert ("www-authenticate" in headers) == (answer.status_code == 401)
    return answer.status_code, told["code"]


# ---- bodies
def text(body):
    return json.dumps(body)


def put(value):
    """The first field with another value, written as JSON."""
    return lambda body: text(body | {next(iter(body)): "VALUE"}).replace('"VALUE"', value)


def add(raw):
    """One more field, written as JSON."""
    return lambda body: f"{text(body)[:-1]}, {raw}}}"


def rename(name):
    return lambda body: text({name if n == 0 else k: v for n, (k, v) in enumerate(body.items())})


def first(body):
    return next(iter(body))


DEEP = 32_000
# name → (what to make of a body that would be good, what is said)
BODIES = {
    "nothing": (lambda b: "", MALFORMED),
    "blanks": (lambda b: " \r\n\t ", MALFORMED),
    "no JSON": (lambda b: "email", MALFORMED),
    "null": (lambda b: "null", INVALID),
    "true": (lambda b: "true", INVALID),
    "a number": (lambda b: "42", INVALID),
    "minus zero": (lambda b: "-0", INVALID),
    "a string": (lambda b: text(text(b)), INVALID),
    "an empty list": (lambda b: "[]", INVALID),
    "a list of it": (lambda b: text([b]), INVALID),
    "its values in a list": (lambda b: text(list(b.values())), INVALID),
    "an empty object": (lambda b: "{}", INVALID),
    "the first field missing": (lambda b: text(dict(list(b.items())[1:])), INVALID),
    "an unknown field": (add('"admin": true'), INVALID),
    "__proto__": (add('"__proto__": {"role": "admin"}'), INVALID),
    "constructor": (add('"constructor": {"prototype": {"role": "admin"}}'), INVALID),
    "an empty name": (add('"": "x"'), INVALID),
    "5000 unknown fields": (add(", ".join(f'"f{i}": 1' for i in range(5000))), INVALID),
    "a name of 60 kB": (add('"' + "n" * 60_000 + '": 1'), INVALID),
    "an unknown field with line ends": (add('"x\\r\\n\\u001b[31m<script>": 1'), INVALID),
    "the same field twice": (lambda b: f"{text(b)[:-1]}, {text({first(b): b[first(b)]})[1:]}", INVALID),
    "the good one last": (lambda b: f'{{"{first(b)}": "x", {text(b)[1:]}', INVALID),
    "the same field twice, escaped": (add('"\\u0065mail": "a@b.example", "\\u0065mail": "x"'), INVALID),
    "a name in capitals": (lambda b: rename(first(b).upper())(b), INVALID),
    "a name with a blank": (lambda b: rename(first(b) + " ")(b), INVALID),
    "a name with NUL": (lambda b: rename(first(b) + "\0")(b), INVALID),
    "a name with []": (lambda b: rename(first(b) + "[]")(b), INVALID),
    "a name in full width": (lambda b: rename("".join(chr(ord(c) + 0xFEE0) for c in first(b)))(b), INVALID),
    "null as value": (put("null"), INVALID),
    "true as value": (put("true"), INVALID),
    "a number as value": (put("123456"), INVALID),
    "a fraction as value": (put("1.5e3"), INVALID),
    "a number of 4000 digits": (put("9" * 4000), INVALID),
    "a number of 60000 digits": (put("9" * 60_000), MALFORMED),
    "1e400": (put("1e400"), MALFORMED),
    "NaN": (put("NaN"), MALFORMED),
    "Infinity": (put("Infinity"), MALFORMED),
    "-Infinity": (put("-Infinity"), MALFORMED),
    "hexadecimal": (put("0x10"), MALFORMED),
    "a leading zero": (put("0123456"), MALFORMED),
    "a list as value": (lambda b: text(b | {first(b): [b[first(b)]]}), INVALID),
    "two in a list": (lambda b: text(b | {first(b): [b[first(b)]] * 2}), INVALID),
    "an object as value": (lambda b: text(b | {first(b): {"$ne": ""}}), INVALID),
    "it as its own value": (lambda b: text(b | {first(b): b}), INVALID),
    "60000 lists in lists": (lambda b: "[" * 60_000, MALFORMED),
    "lists in lists, closed": (lambda b: "[" * DEEP + "]" * DEEP, MALFORMED),
    "deep objects": (lambda b: '{"a":' * 10_000, MALFORMED),
    "deep as value": (put("[" * 30_000 + "]" * 30_000), MALFORMED),
    "400 deep as value": (put("[" * 400 + "]" * 400), INVALID),
    "half a surrogate pair": (put('"a\\ud800@example.org"'), MALFORMED),
    "the other half": (put('"\\udc00"'), MALFORMED),
    "a name with half a pair": (add('"\\ud800": 1'), MALFORMED),
    "bytes of no encoding": (lambda b: text(b).encode()[:-2] + b'\xff\xfe"}', MALFORMED),
    "an overlong NUL": (lambda b: text(b).encode()[:-2] + b'\xc0\x80"}', MALFORMED),
    "a surrogate in UTF-8": (lambda b: text(b).encode()[:-2] + b'\xed\xa0\x80"}', MALFORMED),
    "Latin-1": (lambda b: text(b)[:-2].encode() + 'ä"}'.encode("latin1"), MALFORMED),
    "UTF-16": (lambda b: text(b).encode("utf-16"), MALFORMED),
    "UTF-16 without a mark": (lambda b: text(b).encode("utf-16-le"), MALFORMED),
    "UTF-32": (lambda b: text(b).encode("utf-32"), MALFORMED),
    "a byte order mark": (lambda b: b"\xef\xbb\xbf" + text(b).encode(), MALFORMED),
    "NUL behind it": (lambda b: text(b) + "\0", MALFORMED),
    "NUL in a string": (lambda b: text(b)[:-2] + '\0"}', MALFORMED),
    "a line end in a string": (lambda b: text(b)[:-2] + '\n"}', MALFORMED),
    "a comma too many": (lambda b: f"{text(b)[:-1]},}}", MALFORMED),
    "a comment": (lambda b: f"{text(b)} // sent by me", MALFORMED),
    "two of it": (lambda b: text(b) * 2, MALFORMED),
    "two lines of it": (lambda b: f"{text(b)}\n{text(b)}\n", MALFORMED),
    "single quotes": (lambda b: text(b).replace('"', "'"), MALFORMED),
    "names without quotes": (lambda b: text(b).replace(f'"{first(b)}"', first(b)), MALFORMED),
    "no end": (lambda b: text(b)[:-1], MALFORMED),
    "guarded against hijacking": (lambda b: f")]}}',\n{text(b)}", MALFORMED),
    "an unknown escape": (lambda b: text(b)[:-2] + '\\x41"}', MALFORMED),
    "Python": (put("True"), MALFORMED),
    "XML": (lambda b: "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>", MALFORMED),
    "a form": (lambda b: "&".join(f"{k}={v}" for k, v in b.items()), MALFORMED),
    "a value of 2001": (put(text("a" * 2001)), INVALID),
    "a value of 60 kB": (put(text("a" * 60_000)), INVALID),
    "64 kB and a byte": (lambda b: text(b) + " " * (MAX_BODY + 1 - len(text(b))), LARGE),
    "70 kB": (lambda b: text(b) + " " * 70_000, LARGE),
    "packed": (lambda b: gzip.compress(text(b).encode()), MALFORMED),
    "a text of nothing": (put('"\\u200b"'), "meaningless"),
    "NUL, escaped": (put('"a\\u0000@example.org"'), "meaningless"),
    "line ends, escaped": (put('"a@example.org\\r\\nBcc: b@example.org\\u001b[2J"'), "meaningless"),
    "SQL": (put('"\' or 1=1; drop table users; --"'), "meaningless"),
    "right to left": (put('"\\u202egro.elpmaxe@ada"'), "meaningless"),
    "the empty text": (put('""'), "meaningless"),
}  # fmt: skip
KINDS = {
    "no type": {},
    "text": "text/plain",
    "text with a charset": "text/plain; charset=utf-8",
    "HTML": "text/html",
    "a form": "application/x-www-form-urlencoded",
    "parts": "multipart/form-data; boundary=B",
    "text/json": "text/json",
    "a kind of JSON": "application/vnd.api+json",
    "problem": "application/problem+json",
    "JSON for a list": "application/jsonl",
    "a suffix": "application/json-patch+json",
    "a longer name": "application/jsonp",
    "two types": "application/json, text/plain",
    "two types, the other way": "text/plain, application/json",
    "a type as parameter": "text/plain; application/json",
    "UTF-16": "application/json; charset=utf-16",
    "UTF-7": "application/json; charset=utf-7",
    "Latin-1": "application/json; charset=iso-8859-1",
    "two charsets": "application/json; charset=utf-8; charset=utf-7",
    "a charset of nothing": "application/json; charset=",
    "another parameter": "application/json; version=1",
    "JSON, it says": "json",
    "everything": "*/*",
    "an odd letter": "application/j\u017fon".encode(),
}


@pytest.fixture
def good(house, ada):
    """What would work, once: a body for each call, and the program that may send it."""
    club = house.auth.organisations.create(None, "Chess club", ada, Source())
    app, waiting = house.program(), house.program()
    app.sign_in(ada)
    waiting.ask(ada)
    code = waiting.read_code()
    token = house.mailbox.latest_link(ada).rpartition("#")[2]
    waiting_too = {"challenge": waiting.challenge, "device_secret": waiting.device_secret}
    bodies = {
        "login": ("/auth/login", {"email": ADMIN}),
        "code": ("/auth/verify", {**waiting_too, "code": code}),
        "link": ("/auth/verify", {"token": token, "device_secret": waiting.device_secret}),
        "refresh": ("/auth/refresh", {"refresh_token": app.refresh_token}),
        "tenant": ("/auth/tenant", {"tenant": club.id}),
    }
    return app, bodies


CALLS = ["login", "code", "link", "refresh", "tenant"]


def send(app, path, content, kind=JSON, **headers):
    typed = {"Content-Type": kind} if kind else {}
    return app.client.post(path, content=content, headers=typed | app._bearer() | headers)


def still_works(app, path, body):
    """Nothing that was refused has used it up."""
    answer = send(app, path, text(body))
    assert answer.status_code in (200, 202), answer.text


@pytest.mark.parametrize("call", CALLS)
def test_J3_no_malformed_body_is_more_than_a_problem(house, good, call):
    assert len(BODIES) + len(KINDS) >= 60
    app, bodies = good
    path, body = bodies[call]
    meaning = MEANINGLESS[first(body)]
    before = snapshot(house.db)
    for name, (make, said) in BODIES.items():
        heard = problem(send(app, path, make(body)))
        assert heard in (meaning if said == "meaningless" else [said]), (name, heard)
        if heard == (401, "wrong_link"):  # that one was counted, as it should
            before["counters"] = snapshot(house.db)["counters"]
        assert snapshot(house.db) == before, name
    still_works(app, path, body)


@pytest.mark.parametrize("call", CALLS)
def test_J3_only_json_in_utf8_is_read(house, good, call):
    app, bodies = good
    path, body = bodies[call]
    before = snapshot(house.db)
    for name, kind in KINDS.items():
        assert problem(send(app, path, text(body), kind)) == TYPE, name
    for kind in (JSON, "application/x-www-form-urlencoded", "multipart/form-data; boundary=B"):
        form = "".join(
            f'--B\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'
            for k, v in body.items()
        )
        assert problem(send(app, path, form + "--B--\r\n", kind))[0] in (400, 415)
    assert snapshot(house.db) == before
    still_works(app, path, body)


@pytest.mark.parametrize(
    "kind",
    ["application/json;charset=UTF-8", 'Application/JSON; Charset="utf-8"', " application/json "],
)
def test_J3_the_ways_to_name_json_in_utf8_are_read(house, ada, kind):
    assert send(house.program(), "/auth/login", text({"email": ada}), kind).status_code == 202


ODD = {
    "code and token": {"code": "123456", "token": "A" * 78},
    "no half": {"device_secret": None},
    "nothing but the half": {"challenge": None, "code": None},
    "code without a challenge": {"challenge": None},
    "token and challenge": {"code": None, "token": "A" * 78},
    "null beside": {"token": ""},
}


@pytest.mark.parametrize("odd", ODD)
def test_J3_code_and_link_are_not_mixed(house, good, odd):
    app, bodies = good
    path, body = bodies["code"]
    before = snapshot(house.db)
    mixed = {k: v for k, v in (body | ODD[odd]).items() if v is not None}
    assert problem(send(app, path, text(mixed))) == INVALID
    for name in body:
        for value in (None, 0, True, [body[name]], {}):
            assert problem(send(app, path, text(body | {name: value}))) == INVALID
    assert snapshot(house.db) == before
    still_works(app, path, body)


@pytest.mark.parametrize("value", ["null", "0", "false", "[]", "{}", '["x"]'])
def test_J3_null_is_no_tenant_and_no_device_secret(house, good, value):
    app, bodies = good
    before = snapshot(house.db)
    assert problem(send(app, "/auth/tenant", f'{{"tenant": {value}}}')) == INVALID
    login = f'{{"email": "{ADA}", "device_secret": {value}}}'
    assert problem(send(app, "/auth/login", login)) == INVALID
    assert snapshot(house.db) == before
    still_works(app, *bodies["tenant"])


@pytest.mark.parametrize("secret", ["", "x", "\0", "app_" + "A" * 43, "A" * 43, "é" * 200])
def test_J3_a_device_secret_that_is_none_of_ours_begins_anew(house, ada, secret):
    app = house.program()
    answer = app.post("/auth/login", email=ada, device_secret=secret)
    assert answer.status_code == 202 and answer.json()["device_secret"] != secret


def test_J3_a_value_beside_the_body_does_not_count(house, good):
    """In the query, in headers, in cookies: as if it were not there."""
    app, bodies = good
    before = snapshot(house.db)
    for path, body in bodies.values():
        app.client.cookies.update(body)
        answer = app.client.post(path, params=body, headers=app._bearer() | {**body}, json={})
        assert problem(answer) == INVALID
        app.client.cookies.clear()
    query = {"access_token": app.access_token, "Authorization": f"Bearer {app.access_token}"}
    app.client.cookies.update(
        {"access_token": app.access_token, "__Host-session": app.access_token}
    )
    for answer in (
        app.client.get("/auth/me", params=query),
        app.client.post("/auth/logout", data={"access_token": app.access_token}),
        app.client.post("/auth/tenant", params=query, json=bodies["tenant"][1]),
    ):
        assert problem(answer) == (401, "invalid_token")
    assert snapshot(house.db) == before and app.signed_in


AUTHORIZATIONS = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer  {}",
    "Bearer\t{}",
    "{}",
    "Basic {}",
    "Token {}",
    "Bearer {} {}",
    "Bearer {},{}",
    "Bearer Bearer {}",
    'Bearer "{}"',
    "Bearer {}=",
    "Bearer {}.",
    "Bearer .{}",
    "Bearer \x00{}",
    "Bearer {}\x85",
]


def test_J3_only_one_whole_bearer_token_counts(house, good):
    app, _ = good
    before, token = snapshot(house.db), app.access_token
    for shape in AUTHORIZATIONS:
        value = shape.replace("{}", token).encode("latin1")
        for method, path in (("GET", "/auth/me"), ("POST", "/auth/logout")):
            answer = app.client.request(method, path, headers={"Authorization": value})
            assert problem(answer) == (401, "invalid_token"), shape
    twice = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert problem(app.client.get("/auth/me", headers=twice)) == (401, "invalid_token")
    assert snapshot(house.db) == before
    lower = {"Authorization": f"bearer {token}"}  # RFC 9110 §11.1
    assert app.client.get("/auth/me", headers=lower).status_code == 200


def test_J3_a_body_where_none_belongs_changes_nothing(house, good):
    app, bodies = good
    before = snapshot(house.db)
    for method, path in (("GET", "/auth/me"), ("HEAD", "/auth/me"), ("GET", "/auth/jwks.json")):
        for content in (text(bodies["login"][1]), "[" * 60_000, b"\xff" * 70_000):
            headers = app._bearer() | {"Content-Type": JSON}
            answer = app.client.request(method, path, content=content, headers=headers)
            assert answer.status_code == 200
            assert (answer.content == b"") == (method == "HEAD")
    for content in ("{", text({"refresh_token": "x"}), "[" * 60_000):
        answer = app.client.post("/auth/logout", content=content, headers={"Content-Type": JSON})
        assert problem(answer) == (401, "invalid_token")
    assert problem(send(app, "/auth/logout", b"1" * 70_000)) == LARGE
    assert snapshot(house.db) == before and app.signed_in


# ---- paths, methods, hosts
UNKNOWN = [
    "/auth/",
    "/auth/x",
    "/auth/Login",
    "/auth/LOGIN",
    "/auth//login",
    "/auth/login.json",
    "/auth/login%00",
    "/auth/login/x",
    "/auth/login;a=b",
    "/auth/me%20",
    "/auth/.well-known/jwks.json",
    "/auth/../auth/nothing",
    "/auth/%2e%2e/dashboard",
    "/auth/%ff%fe",
    "/api/",
    "/api/x",
    "/api/v1/auth/start",
    "/openapi.json5",
    "/openapi.json/x",
    "/auth/" + "a" * 5000,
]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_J3_unknown_paths_are_a_problem(house, good, method):
    app, _ = good
    before = snapshot(house.db)
    for path in UNKNOWN:
        answer = app.client.request(method, path, headers=app._bearer())
        assert problem(answer) == (404, "not_found"), path
    assert snapshot(house.db) == before


def test_J3_a_slash_at_the_end_leads_nowhere_else(house, ada):
    """At most back to the call itself, on this site; and nothing is done on the way."""
    for path in ("/auth/login/", "/auth/login%2f", "/auth/verify/", "/auth/me/", "/openapi.json/"):
        answer = house.program().client.post(
            path, json={"email": ada}, headers={"X-Forwarded-Host": "evil.example"}
        )
        if answer.status_code == 307:
            call = path.removesuffix("/").removesuffix("%2f")
            assert answer.headers["location"] == BASE_URL + call
        else:
            assert problem(answer)[0] in (404, 405)
    assert house.rows("challenges") == []


def test_J3_other_methods_are_a_problem_that_names_the_right_ones(house, good):
    app, bodies = good
    before = snapshot(house.db)
    calls = {path: "POST" for path, _ in bodies.values()} | {"/auth/logout": "POST"}
    calls |= dict.fromkeys(("/auth/me", "/auth/jwks.json", "/openapi.json"), "GET")
    for path, right in calls.items():
        for method in (
            "GET",
            "POST",
            "PUT",
            "PATCH",
            "DELETE",
            "OPTIONS",
            "TRACE",
            "PROPFIND",
            "X",
        ):
            if method == right:
                continue
            headers = app._bearer() | {"X-HTTP-Method-Override": right, "X-Method-Override": right}
            answer = app.client.request(method, path, headers=headers, json={"_method": right})
            assert problem(answer) == (405, "method_not_allowed"), (method, path)
            allowed = {"GET", "HEAD"} if right == "GET" else {"POST"}
            assert set(answer.headers["allow"].split(", ")) == allowed, path
    assert snapshot(house.db) == before


HOSTS = ["elsewhere.example", "vestibule.test.evil", "evil.vestibule.test", "vestibule.test:80", ""]


def test_J3_another_host_is_a_problem(house, good):
    app, bodies = good
    before = snapshot(house.db)
    for host in HOSTS:
        for path, body in (*bodies.values(), ("/auth/logout", {})):
            answer = send(app, path, text(body), Host=host)
            assert problem(answer) == (400, "bad_request"), host
        for path in ("/auth/me", "/auth/jwks.json", "/openapi.json", "/auth/x", "/api/x"):
            answer = app.client.get(path, headers=app._bearer() | {"Host": host})
            assert problem(answer) == (400, "bad_request")
    assert snapshot(house.db) == before and app.signed_in


# ---- D12: what a browser makes of it
def test_D12_whatever_is_in_it_an_answer_is_json_and_never_a_page(house):
    """Names with markup, opened as a document: not sniffed, not framed, not run."""
    markup = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    user = house.add(ADA, name=markup)
    club = house.auth.organisations.create(None, markup, ADA, Source())
    app = house.program()
    app.sign_in(ADA)
    found = app.get("/auth/me", params={"callback": "alert"})
    assert found.json()["user"]["name"] == user.name == markup
    assert found.json()["memberships"][0]["name"] == club.name == markup
    answers = [
        found,
        app.client.get("/auth/me", headers=app._bearer() | {"Accept": "text/html,*/*"}),
        app.client.get("/openapi.json", headers={"Accept": "text/html"}),
        app.client.get("/auth/jwks.json", headers={"Accept": "text/html", "HX-Request": "true"}),
        app.client.get("/auth/<script>alert(1)</script>", headers={"Accept": "text/html"}),
        app.client.get("/auth/login", headers={"Accept": "text/html", "HX-Request": "true"}),
        send(app, "/auth/login", '{"<script>alert(1)</script>": 1}', Accept="text/html"),
        send(app, "/auth/login", "<script>", "text/html", Accept="text/html"),
    ]
    for answer in answers:
        kind, headers = answer.headers["content-type"], answer.headers
        assert kind == (JSON if answer.is_success else "application/problem+json")
        assert headers["x-content-type-options"] == "nosniff" and answer.json()
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["cross-origin-resource-policy"] == "same-origin"


# ---- D16: other sites
EVIL = [
    "https://evil.example",
    "null",
    "",
    "*",
    BASE_URL + ".evil.example",
    "http://vestibule.test",
]
ALLOWED = "https://app.example.org"
NEARLY = [
    "https://app.example.org.evil.example",
    "https://evil-app.example.org",
    "https://evilapp.example.org",
    "https://app.example.orge",
    "https://app.example.org:443",
    "https://app.example.org:8443",
    "https://app.example.org/",
    "https://app.example.org/x",
    "https://user@app.example.org",
    "http://app.example.org",
    "HTTPS://APP.EXAMPLE.ORG",
    "https://APP.example.org",
    "https://app.example.org.",
    "https://example.org",
    "https://x.app.example.org",
    "https://app_example.org",
    "https://app.example.org%60.evil.example",
    "https://app.example.org, https://evil.example",
    "https://evil.example https://app.example.org",
    "app.example.org",
    "null",
    "*",
    "",
]
PATHS = [("POST", "/auth/login"), ("GET", "/auth/me"), ("GET", "/openapi.json"), ("GET", "/api/x")]


def cors(answer):
    return {k: v for k, v in answer.headers.items() if k.lower().startswith("access-control-")}


def preflight(app, origin, path="/auth/login", method="POST", **more):
    headers = {"Origin": origin, "Access-Control-Request-Method": method} | more
    return app.client.options(path, headers=headers)


def asked(app, origin, method, path):
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    body = {"json": {"email": ADA}} if method == "POST" else {}
    return app.client.request(method, path, headers=headers, **body)


@pytest.mark.parametrize("origin", EVIL)
def test_D16_no_other_origin_is_let_in_by_default(house, ada, origin):
    app = house.program()
    for method, path in PATHS:
        assert cors(asked(app, origin, method, path)) == {}
        answer = preflight(app, origin, path, method)
        assert answer.status_code in (404, 405) and cors(answer) == {}


@pytest.fixture
def shared(build):
    house = build(CORS_ORIGINS=f"{ALLOWED},https://other.example.org:8443")
    house.add(ADA)
    return house


@pytest.mark.parametrize("origin", NEARLY)
def test_D16_only_the_very_origin_that_was_named_is_let_in(shared, origin):
    app = shared.program()
    for method, path in PATHS:
        assert cors(asked(app, origin, method, path)) == {}
        answer = preflight(app, origin, path, method)
        assert answer.status_code in (403, 404, 405) and cors(answer) == {}


@pytest.mark.parametrize("origin", [ALLOWED, "https://other.example.org:8443"])
def test_D16_the_named_origin_may_call_and_never_with_cookies(shared, origin):
    app = shared.program()
    wanted = {"Access-Control-Request-Headers": "authorization,content-type"}
    for method, path in PATHS:
        answers = [asked(app, origin, method, path), preflight(app, origin, path, method, **wanted)]
        assert answers[1].status_code in (200, 204)
        for answer in answers:
            found = cors(answer)
            assert found["access-control-allow-origin"] == origin
            assert "access-control-allow-credentials" not in found
            assert "access-control-allow-private-network" not in found
            assert answer.headers["vary"].split(", ")[0] == "Origin"
        assert "retry-after" in cors(answers[0])["access-control-expose-headers"].lower()
        assert set(cors(answers[1])["access-control-allow-methods"].split(", ")) == {"GET", "POST"}
    for method, more in (("PUT", {}), ("POST", {"Access-Control-Request-Headers": "x-evil"})):
        assert preflight(app, origin, method=method, **more).status_code in (400, 403, 405)


def test_D16_a_cookie_from_the_named_origin_means_nothing(shared):
    door = shared.door()
    door.sign_in(ADA)
    headers = {"Origin": ALLOWED, "Sec-Fetch-Site": "cross-site"}
    assert problem(door.get("/auth/me", headers=headers)) == (401, "invalid_token")
    answer = door.client.post("/auth/logout", headers=headers)
    assert problem(answer) == (401, "invalid_token") and door.signed_in


@pytest.mark.parametrize(
    "path",
    ["/", "/login", "/dashboard", "/link", "/auth", "/healthz", "/static/app.css", "/AUTH/me"],
)
def test_D16_pages_are_shared_with_nobody(shared, path):
    door = shared.door()
    door.sign_in(ADA)
    for origin in (ALLOWED, BASE_URL, "https://evil.example"):
        for method in ("GET", "HEAD", "POST"):
            answer = door.client.request(method, path, headers={"Origin": origin})
            assert cors(answer) == {}, (method, path)
        answer = preflight(door, origin, path)
        assert cors(answer) == {} and answer.status_code in (403, 404, 405)
    assert door.signed_in


SIMPLE = {
    "a form": ("application/x-www-form-urlencoded", "email=" + ADA),
    "text": ("text/plain", text({"email": ADA})),
    "a form that is JSON": ("text/plain", f'{{"email": "{ADA}", "x": "="}}'),
    "parts": ("multipart/form-data; boundary=B", f'--B\r\nContent-Disposition: form-data; name="email"\r\n\r\n{ADA}\r\n--B--\r\n'),
    "a blob without a type": ("", text({"email": ADA})),
}  # fmt: skip


@pytest.mark.parametrize("simple", SIMPLE)
def test_D16_a_page_of_another_site_cant_make_a_browser_send_mail(shared, simple):
    """What needs no preflight is refused; by its type also when nothing says where it is from, or
    when it comes from the origin that was named."""
    kind, body = SIMPLE[simple]
    cross = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    evil = {"Origin": "https://evil.example"}
    for headers in (evil | cross, evil, cross, {"Origin": "null"}, {}, {"Origin": ALLOWED} | cross):
        answer = send(shared.program(), "/auth/login", body, kind, **headers)
        strange = headers and headers.get("Origin") != ALLOWED
        assert problem(answer) == ((403, "cross_site") if strange else TYPE)
    shared.outbox.drain()
    assert shared.mailbox.messages == [] and shared.rows("challenges") == []


def test_D16_nor_can_it_with_json_whatever_its_browser_lets_through(shared):
    app = shared.program()
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = send(app, "/auth/login", text({"email": ADA}), **headers)
        assert problem(answer) == (403, "cross_site") and cors(answer) == {}
    assert shared.rows("challenges") == []


# ---- J6: what the log keeps
EVILS = ["\r\n", "\n{\"at\": \"2026\", \"message\": \"admin signed in\"}\n", "\x1b[2J\x1b[31m", "\u2028", "\x00", "\x85", "\u202e"]  # fmt: skip


def wire(server, lines, body=b""):
    """Send it without a client's good manners; what came back."""
    first, *more = lines
    head = [first, f"Host: 127.0.0.1:{server.port}", *more, f"Content-Length: {len(body)}"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as open_wire:
        open_wire.sendall("\r\n".join([*head, "Connection: close", "", ""]).encode("latin1") + body)
        got = b""
        while data := open_wire.recv(65536):
            got += data
    return got


def test_J6_no_log_line_is_broken_or_holds_what_was_sent(serve, sink):
    """All fields and headers, with line ends and escape sequences, at the most talkative level."""
    server = serve(SMTP_PORT=sink.port, SIGNUP="open", LOG_LEVEL="debug", LOG_FORMAT="json")
    canary = "kanarienvogel"

    def post(path, headers=None, **body):
        return server.client.post(path, json=body, headers=headers or {})

    asked = post("/auth/login", email=ADA).json()
    code = sink.code(ADA)
    own = {"challenge": asked["challenge"], "device_secret": asked["device_secret"]}
    assert post("/auth/verify", **own, code=wrong(code)).status_code == 401
    tokens = post("/auth/verify", **own, code=code).json()
    again = post("/auth/refresh", refresh_token=tokens["refresh_token"]).json()
    bearer = {"Authorization": f"Bearer {again['access_token']}"}
    assert server.client.get("/auth/me", headers=bearer).status_code == 200
    secrets = [code, *own.values(), tokens["access_token"], tokens["refresh_token"]]
    secrets += [again["access_token"], again["refresh_token"]]
    for number, evil in enumerate(EVILS):
        text_of = f"{canary}{evil}{number}"
        for path, body in (
            ("/auth/login", {"email": f"{text_of}@example.org"}),
            ("/auth/login", {"email": ADA, "device_secret": text_of}),
            ("/auth/login", {text_of: 1}),
            ("/auth/verify", own | {"code": text_of}),
            ("/auth/verify", {"challenge": text_of, "device_secret": text_of, "code": "123456"}),
            ("/auth/verify", {"token": text_of, "device_secret": own["device_secret"]}),
            ("/auth/refresh", {"refresh_token": text_of}),
            ("/auth/refresh", {"refresh_token": tokens["refresh_token"]}),
            ("/auth/tenant", {"tenant": text_of}),
            ("/auth/logout", {text_of: text_of}),
        ):
            answer = post(path, bearer if path == "/auth/tenant" else None, **body)
            assert answer.status_code < 500, (path, body)
        sly = (
            text_of.encode("latin1", "replace")
            .decode("latin1")
            .replace("\r", "")
            .replace("\n", "\t")
        )
        for name in (
            "User-Agent",
            "Origin",
            "Authorization",
            "X-Forwarded-For",
            "Cookie",
            "Referer",
            "X",
        ):
            lines = [
                "POST /auth/login HTTP/1.1",
                "Content-Type: application/json",
                f"{name}: {sly}",
            ]
            got = wire(server, lines, text({"email": f"bird{number}@example.org"}).encode())
            assert re.match(rb"HTTP/1\.1 (202|4..) ", got), got
        path = f"/auth/{canary}%0d%0a%1b[31m"
        for line in (
            f"GET {path} HTTP/1.1",
            f"POST {path} HTTP/1.1",
            f"GET /auth/me?{canary} HTTP/1.1",
        ):
            assert re.match(rb"HTTP/1\.1 4.. ", wire(server, [line]))
        wire(server, ["POST /auth/login HTTP/1.1", f"Content-Type: {sly}"], canary.encode())
        wire(
            server,
            ["POST /auth/login HTTP/1.1", "Content-Type: application/json"],
            b"{" + canary.encode(),
        )
        wire(server, ["POST /auth/login HTTP/1.1", f"Host: {canary}"], b"{}")
    post("/auth/logout", bearer)
    assert server.stop() in (0, -15)
    log = server.logfile.read_bytes().decode()
    lines = [
        line for line in log.split("\n") if line and not line.startswith("Vestibule: open http")
    ]
    assert len(lines) > 20 and "wrong code" in log  # something was said
    for line in lines:
        assert set(json.loads(line)) <= {"at", "level", "logger", "message", "request", "trace"}, (
            line
        )
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]", line)
    told = "\n".join(json.loads(line)["message"] for line in lines)
    assert "Traceback" not in log and '"error"' not in log
    assert [s for s in secrets if s in log] == []
    assert canary not in told and ADA not in told
