"""D: what another site, a neighbour on a sibling domain or a planted cookie can do in a browser."""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
import pytest
from bs4 import BeautifulSoup
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.routing import Mount

from auth.testing import Door
from auth.typed import HOME, safe_next
from tests.conftest import ADMIN, BASE_URL
from utils.shield import MAX_BODY

OURS = {"Sec-Fetch-Site": "same-origin"}
COOKIES = {"session", "signin", "device"}


# ---- what several tests look at
def snapshot(db, but=()):
    """Every row of every table, as text; without the `table.column`s of `but`."""
    if type(db).__name__ == "SQLite":
        sql = "select name from sqlite_master where type = 'table' and name not like 'sqlite%'"
    else:
        sql = (
            "select table_name as name from information_schema.tables"
            " where table_schema = current_schema()"
        )
    tables = sorted(row["name"] for row in db.q(sql))
    assert {"users", "challenges", "sessions", "events", "outbox"} <= set(tables)
    return {
        table: sorted(
            repr(sorted((k, v) for k, v in row.items() if f"{table}.{k}" not in but))
            for row in db.q(f"select * from {table}")
        )
        for table in tables
    }


def walk(app):
    """(path, its methods) of every route, once a path."""
    found = {}
    for route in app.routes:
        if not isinstance(route, Mount):
            found.setdefault(route.path, set()).update(route.methods)
    return found.items()


def fill(path, id):
    return re.sub(r"\{[^}]+\}", id, path)


def cookies_set(response):
    """(name, value, {attribute in lower case: value}) of each Set-Cookie."""
    for line in response.headers.get_list("set-cookie"):
        pair, *attributes = line.split(";")
        name, _, value = pair.partition("=")
        parts = (a.strip().partition("=") for a in attributes)
        yield name, value.strip('"'), {key.lower(): value for key, _, value in parts}


def plant(door, raw):
    """Send exactly this Cookie header, and nothing of the jar."""
    door.client.cookies.clear()
    return {"Cookie": raw}


def send(house, method, path, cookie, body=b""):
    """(status, text) of one request with these very bytes; clients would encode them anew."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "client": ("192.0.2.1", 50000),
        "server": ("vestibule.test", 443),
        "headers": [
            (b"host", b"vestibule.test"),
            (b"sec-fetch-site", b"same-origin"),
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"cookie", cookie),
        ],
        "state": {},
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def keep(message):
        sent.append(message)

    # In a thread: where browser tests ran before in this process, their event loop is still here.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, house.asgi(scope, receive, keep)).result()
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:]).decode()


# ---- D1
FOREIGN = {
    "cross-site": {"Sec-Fetch-Site": "cross-site"},
    "cross-site, our Origin": {"Sec-Fetch-Site": "cross-site", "Origin": BASE_URL},
    "same-site": {"Sec-Fetch-Site": "same-site"},
    "same-site, our Origin": {"Sec-Fetch-Site": "same-site", "Origin": BASE_URL},
    "unknown relation": {"Sec-Fetch-Site": "friend"},
    "empty relation": {"Sec-Fetch-Site": "", "Origin": BASE_URL},
    "evil Origin": {"Origin": "https://evil.test"},
    "null Origin": {"Origin": "null"},
    "no Origin": {},
    "empty Origin": {"Origin": ""},
    "our Referer only": {"Referer": f"{BASE_URL}/login"},
    "http Origin": {"Origin": "http://vestibule.test"},
    "other port": {"Origin": f"{BASE_URL}:444"},
    "longer name": {"Origin": f"{BASE_URL}.evil.test"},
    "user name": {"Origin": "https://vestibule.test@evil.test"},
    "sibling": {"Origin": "https://www.vestibule.test"},
    "two Origins": {"Origin": f"{BASE_URL}, https://evil.test"},
    "two Origins, theirs first": [("Origin", "https://evil.test"), ("Origin", BASE_URL)],
    "two Origins, ours first": [("Origin", BASE_URL), ("Origin", "https://evil.test")],
    "two relations": [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-origin")],
    "two relations, our Origin": [
        ("Sec-Fetch-Site", "none"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Origin", BASE_URL),
    ],
}
OWN = {
    "same-origin": {"Sec-Fetch-Site": "same-origin"},
    "none": {"Sec-Fetch-Site": "none"},
    "old browser": {"Origin": BASE_URL},
    "same-origin behind a privacy tool": {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
}


def victim(house):
    """A browser in which the admin is signed in and, better still, a right code waits to be sent."""
    ada = house.add("ada@example.org")
    door = house.door()
    door.sign_in(ADMIN)
    house.clock.advance(120)
    door.ask(ada.address)
    form = {
        "email": "eve@example.org",
        "name": "Eve",
        "role": "admin",
        "next": "/admin",
        "code": door.read_code(),
        "timezone": "Europe/Paris",
    }
    house.clock.advance(120)  # a resend would be allowed, too
    return door, ada, form


def posts(house, id):
    found = [fill(path, id) for path, methods in walk(house.app) if "POST" in methods]
    assert len(found) >= 9
    return found


def test_D1_cross_site_posts_change_nothing(house):
    door, ada, form = victim(house)
    before = snapshot(house.db)
    for path in posts(house, ada.id):
        for name, headers in FOREIGN.items():
            answer = door.client.post(path, data=form, headers=headers)
            # Programs say no origin at all, and have no cookie that another site could use.
            told = {"Origin", "Sec-Fetch-Site"} & set(dict(headers))
            program = path.startswith("/auth/") and not told
            assert answer.status_code in ((401, 415) if program else (403,)), (path, name)
            assert not answer.headers.get_list("set-cookie"), (path, name)
            assert snapshot(house.db) == before, (path, name)
    assert door.signed_in


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/json", "multipart/form-data; boundary=b", ""]
)
def test_D1_no_encoding_gets_around_the_check(house, kind):
    door, ada, form = victim(house)
    before = snapshot(house.db)
    for path in posts(house, ada.id):
        for htmx in ({}, {"HX-Request": "true"}):
            headers = {"Sec-Fetch-Site": "cross-site", "Content-Type": kind} | htmx
            answer = door.client.post(path, content=json.dumps(form), headers=headers)
            assert answer.status_code == 403, path
    assert snapshot(house.db) == before


def test_D1_our_own_posts_are_never_called_cross_site(house):
    door, ada, form = victim(house)
    paths = posts(house, ada.id)
    for path in sorted(paths, key=lambda p: (p == "/verify_code", p.startswith("/logout"))):
        for name, headers in OWN.items():
            answer = door.client.post(path, data=form, headers=headers)
            assert answer.status_code != 403, (path, name)
            assert answer.status_code < 500, (path, name)


def test_D1_our_own_posts_do_change_something(house):
    """Or the tests above would pass for a server that refuses everything."""
    for number, headers in enumerate(OWN.values()):
        before = snapshot(house.db)
        stranger = house.door(client=f"192.0.{number}.1")
        sent = {"email": f"eve{number}@example.org"}
        assert stranger.client.post("/create_code", data=sent, headers=headers).status_code == 303
        assert snapshot(house.db) != before


# ---- D2
def test_D2_an_attackers_code_opens_nothing_in_another_browser(house, ada):
    house.add("mallory@example.net")
    mallory, victim = house.door(client="198.51.100.7"), house.door()
    mallory.ask("mallory@example.net")
    code = mallory.read_code()
    assert victim.enter(code).status_code == 410  # no sign-in was started in this browser
    victim.ask(ada)
    assert victim.enter(code).status_code == 422
    assert not victim.signed_in and not victim.cookie("session")
    assert mallory.enter(code).status_code == 303  # and where it was asked for, it works


@pytest.mark.parametrize(
    "name",
    [
        b"signin",
        b"__Secure-signin",
        b"__host-signin",
        b"__HOST-SIGNIN",
        b"X__Host-signin",
        b"\xa0__Host-signin",
        b"\x85__Host-signin",
        b"__Host-signin\xa0",
        b"__Host-signin\x85",
    ],
)
def test_D2_a_neighbours_cookie_is_not_the_sign_in_cookie(house, name):
    """A sibling domain can't set a `__Host-` cookie; names a lenient parser would trim, it can."""
    house.add("mallory@example.net")
    mallory = house.door(client="198.51.100.7")
    mallory.ask("mallory@example.net")
    code, token = mallory.read_code(), mallory.cookie("signin").encode()
    before = snapshot(house.db)
    form = b"code=" + code.encode()
    assert send(house, "POST", "/verify_code", name + b"=" + token, form)[0] == 410
    assert snapshot(house.db) == before
    own = b"__Host-signin=" + token  # the same request with the real name is a sign-in
    assert send(house, "POST", "/verify_code", own, form)[0] == 303


def test_D2_the_sign_in_token_counts_in_its_cookie_only(house):
    house.add("mallory@example.net")
    mallory, victim = house.door(client="198.51.100.7"), house.door()
    mallory.ask("mallory@example.net")
    code, token = mallory.read_code(), mallory.cookie("signin")
    before = snapshot(house.db)
    name = "__Host-signin"
    for query, headers, form in (
        (f"?{name}={token}&signin={token}", {}, {}),
        ("", {name: token, "signin": token, "Authorization": f"Bearer {token}"}, {}),
        ("", {}, {name: token, "signin": token, "token": token}),
    ):
        answer = victim.post(f"/verify_code{query}", headers=headers, code=code, **form)
        assert answer.status_code == 410
    assert snapshot(house.db) == before


# ---- D4
def test_D4_nobody_is_signed_out_by_another_site(house, admin):
    before = snapshot(house.db)
    image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image", "Sec-Fetch-Mode": "no-cors"}
    form = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document", "Origin": "null"}
    for path in ("/logout", "/logout_everywhere"):
        for method in ("GET", "HEAD", "OPTIONS"):
            for headers in (image, OURS, {}):
                answer = admin.client.request(method, path, headers=headers)
                assert answer.status_code == 405, (method, path)
        for headers in FOREIGN | {"form": form}:
            answer = admin.client.post(path, headers=(FOREIGN | {"form": form})[headers])
            assert answer.status_code == 403, (path, headers)
            assert "clear-site-data" not in answer.headers
    assert snapshot(house.db) == before
    assert admin.signed_in
    assert admin.post("/logout").status_code == 303 and not admin.signed_in


# ---- D5
def test_D5_no_get_or_head_changes_anything(house, admin):
    ada = house.add("ada@example.org", name="Ada")
    waiting = house.door()
    waiting.ask(ada.address)
    waiting.drain()
    house.clock.advance(600)  # long enough for "last use" to be written
    before = snapshot(house.db, but=["sessions.seen_at"])
    query = f"?id={ada.id}&role=admin&email=eve@example.org&code=123456&done=role&q=a&page=2&next=/"
    prefetch = {"Sec-Purpose": "prefetch;prerender", "Purpose": "prefetch"}
    seen = 0
    for path, _ in [*walk(house.app), ("/static/app.css", ()), ("/healthz", ()), ("/readyz", ())]:
        for door in (admin, waiting, house.door()):
            for method in ("GET", "HEAD", "OPTIONS"):
                for headers in ({}, {"HX-Request": "true"}, prefetch):
                    url = fill(path, ada.id) + query
                    answer = door.client.request(method, url, headers=headers)
                    assert answer.status_code < 500 or path == "/readyz", (method, path)
                    seen += answer.status_code == 200
                    changed = {n for n, _, _ in cookies_set(answer)}
                    assert not changed, (method, path, changed)
        assert snapshot(house.db, but=["sessions.seen_at"]) == before, path
    assert seen > 10 and admin.signed_in


def test_D5_every_route_says_which_methods_it_takes(house):
    """FastHTML's `@rt` without `methods` answers GET and POST alike."""
    for route in house.app.routes:
        if isinstance(route, Mount):
            continue
        methods = set(route.methods)
        assert methods in ({"GET", "HEAD"}, {"GET"}) or not methods & {"GET", "HEAD"}, route.path


# ---- D6
def test_D6_a_planted_session_is_ignored_and_replaced(house, ada):
    planted = "A" * 43
    for value in (planted, "1", "admin", "../../etc/passwd", '{"auth":"admin@example.com"}', ""):
        door = house.door()
        door.client.cookies.set("__Host-session", value)
        assert door.get("/dashboard").status_code == 303
    door = house.door()
    door.client.cookies.set("__Host-session", planted, domain="vestibule.test")
    door.ask(ada)
    answer = door.enter(door.read_code())
    tokens = [value for name, value, _ in cookies_set(answer) if name == "__Host-session"]
    assert len(tokens) == 1 and tokens[0] != planted and len(tokens[0]) == 43
    thief = house.door()
    headers = plant(thief, f"__Host-session={planted}")
    assert thief.get("/dashboard", headers=headers).status_code == 303


def test_D6_each_sign_in_has_a_new_token_and_ends_the_old_session(house, ada):
    door = house.door()
    door.sign_in(ada)
    first = door.cookie("session")
    house.clock.advance(120)
    door.ask(ada)
    assert door.cookie("session") == first  # asking alone ends nothing
    door.enter(door.read_code())
    second = door.cookie("session")
    assert second != first
    old = house.door()
    assert old.get("/dashboard", headers=plant(old, f"__Host-session={first}")).status_code == 303
    assert len(house.rows("sessions")) == 1


def test_D6_the_sign_in_token_is_dead_after_the_sign_in(house, ada):
    door = house.door()
    door.ask(ada)
    code, token = door.read_code(), door.cookie("signin")
    assert door.enter(code).status_code == 303 and door.cookie("signin") is None
    for path, form in (("/verify_code", {"code": code}), ("/resend_code", {})):
        other = house.door()
        answer = other.post(path, headers=plant(other, f"__Host-signin={token}"), **form)
        assert answer.status_code == 410 and not list(cookies_set(answer))
    other = house.door()  # nor is it a session, nor the session a sign-in
    assert (
        other.get("/dashboard", headers=plant(other, f"__Host-session={token}")).status_code == 303
    )
    other = house.door()
    headers = plant(other, f"__Host-signin={door.cookie('session')}")
    assert other.post("/verify_code", headers=headers, code=code).status_code == 410


def test_D6_asking_again_replaces_a_planted_sign_in(house, ada):
    """Or the attacker who planted it could watch for the code to be entered."""
    house.add("mallory@example.net")
    mallory = house.door(client="198.51.100.7")
    mallory.ask("mallory@example.net")
    victim = house.door()
    planted = mallory.cookie("signin")
    victim.client.cookies.set("__Host-signin", planted, domain="vestibule.test")
    victim.ask(ada)
    assert victim.cookie("signin") != mallory.cookie("signin")
    assert victim.enter(victim.read_code()).status_code == 303
    assert ada in victim.get("/dashboard").text
    assert mallory.enter("123456").status_code in (410, 422) and not mallory.signed_in


@pytest.mark.parametrize("which", ["session", "signin"])
@pytest.mark.parametrize(
    "form",
    [
        b"NAME=TOKEN; NAME=planted",
        b"NAME=planted; NAME=TOKEN",
        b"NAME=planted;NAME=TOKEN",
        b"NAME =planted; NAME=TOKEN",
        b"NAME=TOKEN; NAME\t=planted",
        b"a=1; NAME=TOKEN; b=2; NAME=planted; c",
        b"NAME=TOKEN; NAME=",
        b"NAME=; NAME=TOKEN",
    ],
)
def test_D6_two_cookies_of_one_name_are_refused(house, admin, form, which):
    """One of them was planted; which one, nobody can tell."""
    if which == "signin":
        house.clock.advance(120)
        admin.ask(ADMIN)
    token, before = admin.cookie(which).encode(), snapshot(house.db)
    raw = form.replace(b"NAME", f"__Host-{which}".encode()).replace(b"TOKEN", token)
    for method, path in (("GET", "/dashboard"), ("POST", "/verify_code"), ("POST", "/logout")):
        assert send(house, method, path, raw)[0] == 400, (method, path)
    assert snapshot(house.db) == before


def test_D6_two_cookie_headers_are_two_cookies(house, admin):
    token = admin.cookie("session").encode()
    door = house.door()
    headers = [(b"cookie", b"__Host-session=" + token), (b"cookie", b"__Host-session=" + b"A" * 43)]
    for order in (headers, headers[::-1]):
        assert door.client.get("/dashboard", headers=order).status_code == 400


@pytest.mark.parametrize(
    "name",
    [
        b"session",
        b"__Secure-session",
        b"__host-session",
        b"\xa0__Host-session",
        b"\x85__Host-session",
        b"\x1f__Host-session",
        b"__Host-session\xa0",
        b"__Host-session\x85",
        b"\xc2\xa0__Host-session",
        b"\xe2\x80\x80__Host-session",
    ],
)
def test_D6_a_neighbours_cookie_is_not_the_session(house, admin, name):
    """What a sibling domain may set: any name that the browser does not see as `__Host-`."""
    house.add("mallory@example.net")
    mallory = house.door(client="198.51.100.7")
    mallory.sign_in("mallory@example.net")
    planted = name + b"=" + mallory.cookie("session").encode()
    own = b"__Host-session=" + admin.cookie("session").encode()
    assert send(house, "GET", "/dashboard", planted)[0] in (303, 400)
    for raw in (planted + b"; " + own, own + b"; " + planted):
        status, text = send(house, "GET", "/dashboard", raw)
        assert status == 400 or (status == 200 and ADMIN in text), raw
    assert send(house, "GET", "/dashboard", own)[0] == 200


# ---- D7
EVIL = [
    "//evil.test",
    "///evil.test",
    "////evil.test",
    "/\\evil.test",
    "\\\\evil.test",
    "\\/evil.test",
    "/\t/evil.test",
    "\t//evil.test",
    "/\n/evil.test",
    "/\r/evil.test",
    "/\x00/evil.test",
    "\x00//evil.test",
    " //evil.test",
    "\u00a0//evil.test",
    "\ufeff//evil.test",
    "https://evil.test",
    "https:evil.test",
    "https:/evil.test",
    "https:///evil.test",
    "HTTPS://evil.test",
    "ht\ttps://evil.test",
    "http:evil.test",
    "//evil.test@vestibule.test",
    "//vestibule.test@evil.test",
    "https://vestibule.test@evil.test",
    "https://vestibule.test.evil.test",
    "https://vestibule.test",
    "https://vestibule.test/dashboard",
    "//vestibule.test/dashboard",
    "/%2f/evil.test",
    "/%2F/evil.test",
    "/%2fevil.test",
    "/%5cevil.test",
    "/%5Cevil.test",
    "/%5c%5cevil.test",
    "%2f%2fevil.test",
    "/%09/evil.test",
    "/%0d%0aLocation:%20//evil.test",
    "/%00",
    "/%7f",
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    "java\tscript:alert(1)",
    "java\nscript:alert(1)",
    "\x01javascript:alert(1)",
    " javascript:alert(1)",
    "javascript://vestibule.test/%0aalert(1)",
    "/javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "blob:https://evil.test/1",
    "file:///etc/passwd",
    "mailto:a@evil.test",
    "/a\r\nX-Injected: 1",
    "/a\nSet-Cookie: __Host-session=x",
    "/a\u2028b",
    "/a\u2029b",
    "/\u2044evil.test",
    "\uff0f\uff0fevil.test",
    "/\uff0fevil.test",
    "\u3002evil.test",
    "/\u202eevil",
    "/a b",
    '/"><script>alert(1)</script>',
    "/'onmouseover='alert(1)",
    "/<evil",
    "/a#//evil.test",
    "#//evil.test",
    "?next=//evil.test",
    "dashboard",
    "evil.test",
    ".evil.test",
    "@evil.test",
    ":@evil.test",
    "/" + "a" * 8192,
    "/" * 8192,
    "[::1]",
    "http://[",
    "//[",
    "",
    " ",
    "\ud7ff",
    "/😀",
]
GOOD = [
    "/reports",
    "/reports?year=2027&q=a+b",
    "/a/b/c.html",
    "/a%20b",
    "/~ada/",
    "/a?next=%2Fb",
    "/",
]


def inside(value, base=BASE_URL):
    """Would a browser that goes to `value` stay on `base`, and by a plain path?"""
    assert value.isascii() and value.isprintable() and " " not in value, value
    assert value[:1] == "/" and value[1:2] not in ("/", "\\"), value
    # WHATWG URL: control characters vanish, backslashes are slashes.
    seen = re.sub(r"[\x00-\x20]", "", value).replace("\\", "/")
    went = urlsplit(urljoin(f"{base}/login", seen))
    assert f"{went.scheme}://{went.netloc}" == base, value
    return True


def test_D7_there_are_vectors_enough():
    assert len(set(EVIL)) >= 60


@pytest.mark.parametrize("htmx", [False, True], ids=["page", "htmx"])
def test_D7_next_stays_here_when_signed_in_already(house, htmx):
    door = house.door(htmx=htmx)
    door.sign_in(ADMIN)
    name = "hx-redirect" if htmx else "location"
    for vector in EVIL:
        answer = door.client.get("/login", params={"next": vector})
        assert answer.status_code in (200, 303), ascii(vector)
        assert inside(answer.headers[name]), ascii(vector)
        assert "x-injected" not in answer.headers and not list(cookies_set(answer))
    for vector in GOOD:
        assert door.client.get("/login", params={"next": vector}).headers[name] == vector
    twice = door.client.get("/login?next=/reports&next=//evil.test")
    assert inside(twice.headers[name])


def test_D7_the_form_carries_nothing_that_leads_away(house):
    door = house.door()
    for vector in EVIL + GOOD:
        for answer in (
            door.client.get("/login", params={"next": vector}),
            door.post("/create_code", email="no address", next=vector),
            door.post("/create_code", {"HX-Request": "true"}, email="", next=vector),
        ):
            assert answer.status_code in (200, 422), ascii(vector)
            field = BeautifulSoup(answer.text, "html.parser").select_one("input[name=next]")
            assert inside(field["value"]), ascii(vector)
            assert field["value"] == (vector if vector in GOOD else HOME), ascii(vector)


@pytest.mark.parametrize("htmx", [False, True], ids=["page", "htmx"])
def test_D7_nobody_is_led_away_after_the_sign_in(build, htmx):
    house = build(SIGNUP="open")
    name = "hx-redirect" if htmx else "location"
    for number, vector in enumerate(EVIL + GOOD):
        door = house.door(htmx=htmx, client=f"10.{number}.0.1")
        asked = door.ask(f"person{number}@example.org", next=vector)
        for header in ("location", "hx-redirect", "hx-location", "hx-push-url"):
            assert inside(asked.headers.get(header, "/")), ascii(vector)
        answer = door.enter(door.read_code())
        assert answer.status_code == (200 if htmx else 303), ascii(vector)
        assert inside(answer.headers[name]), ascii(vector)
        assert answer.headers[name] == (vector if vector in GOOD else HOME), ascii(vector)


def test_D7_a_next_in_the_verification_counts_nothing(house, ada):
    door = house.door()
    door.ask(ada, next="/reports")
    code = door.read_code()
    answer = door.post(
        "/verify_code?next=//evil.test",
        headers={"next": "//evil.test", "Referer": "https://evil.test/"},
        code=code,
        next="//evil.test",
    )
    assert answer.headers["location"] == "/reports"


@pytest.mark.parametrize("htmx", [False, True], ids=["page", "htmx"])
def test_D7_a_guard_leads_to_the_door_and_nowhere_else(house, htmx):
    """htmx sends the page's URL in a header; what can't be a page of ours is forgotten."""
    door = house.door(htmx=htmx)
    name = "hx-redirect" if htmx else "location"
    vectors = [v for v in EVIL if v.isascii() and v.isprintable() and v]
    for vector in [*vectors, "http://a:99999/", "http://[::1", "https://[evil/x", "//[x"]:
        for url in ("/dashboard", "/dashboard?next=//evil.test", "/admin?x=%0d%0a"):
            answer = door.get(url, headers={"HX-Current-URL": vector})
            assert answer.status_code in (200, 303), vector
            place = answer.headers[name]
            assert inside(place) and urlsplit(place).path == "/login", vector
            for wanted in parse_qs(urlsplit(place).query).get("next", []):
                assert inside(wanted) and safe_next(wanted) == wanted, vector


def test_D7_no_redirect_leaves_https_behind_a_proxy(house):
    """The proxy ends TLS: to the app each request looks like plain http."""
    door = Door(house.asgi, house.mailbox, house.outbox.drain, BASE_URL.replace("https", "http"))
    for path in (
        "/login/",
        "/dashboard/",
        "/admin/",
        "/static",
        "/dashboard",
        "//evil.test/login/",
    ):
        place = door.get(path).headers.get("location", "/")
        assert place.startswith(f"{BASE_URL}/") or inside(place), path


STRANGE = st.text(
    st.sampled_from(
        list("/\\.:@?#%&=+-_~ \t\r\n\x00\x0b\x7f\u2028\uff0f[]") + list("2f5cFaevil0d")
    ),
    max_size=30,
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.one_of(STRANGE, STRANGE.map("/".__add__), st.text(max_size=30)))
@example("/" + "a" * 1999)
@example("/" + "a" * 2000)
def test_D7_safe_next_is_always_a_path_of_ours(text):
    path = safe_next(text)
    assert inside(path) and path in (text, HOME) and safe_next(path) == path
    assert len(path) <= 2000


# ---- D9, D11
CSP = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "img-src": ["'self'"],
    "connect-src": ["'self'"],
    "form-action": ["'self'"],
    "base-uri": ["'none'"],
    "frame-ancestors": ["'none'"],
    "object-src": ["'none'"],
}


def only(response, name):
    values = response.headers.get_list(name)
    assert len(values) == 1, (name, values)
    return values[0]


def armed(response, path, https=True):
    """Every header of the contract, once, with its value."""
    directives = [d.split() for d in only(response, "content-security-policy").split(";")]
    assert len(directives) == len(CSP)  # a second directive of one name would be ignored
    assert {name: values for name, *values in directives} == CSP
    assert only(response, "x-content-type-options") == "nosniff"
    wanted = "no-referrer" if path.startswith(("/link", "/undo_address")) else "same-origin"
    assert only(response, "referrer-policy") == wanted
    assert only(response, "cross-origin-opener-policy") == "same-origin"
    assert only(response, "cross-origin-resource-policy") == "same-origin"
    policy = only(response, "permissions-policy")
    for feature in ("camera", "geolocation", "microphone", "payment"):
        assert f"{feature}=()" in policy
    if https:
        hsts = only(response, "strict-transport-security").replace(" ", "").split(";")
        assert int(hsts[0].removeprefix("max-age=")) >= 31536000 and "includeSubDomains" in hsts
    else:
        assert "strict-transport-security" not in response.headers
    if not path.startswith("/static/"):
        assert only(response, "cache-control") == "no-store"
    for name in ("server", "x-powered-by", "access-control-allow-origin"):
        assert name not in response.headers, name
    kind = response.headers.get("content-type", "")
    assert not kind.startswith("text/") or "charset=utf-8" in kind or response.status_code == 405
    assert kind or not response.content
    return True


def add_fault(house):
    @house.app.get("/fault")
    async def fault():
        raise RuntimeError("a secret in a traceback")


def test_D11_every_answer_of_every_class_is_armed(house, ada):
    add_fault(house)
    anyone, waiting, admin = house.door(), house.door(), house.door()
    admin.sign_in(ADMIN)
    waiting.ask(ada)
    htmx = {"HX-Request": "true"}
    evil = {"Host": "evil.test"}
    long = {"code": "1" * (MAX_BODY + 1)}
    seen = {}
    for door, method, path, status, headers, form in (
        (anyone, "GET", "/", 200, {}, None),
        (anyone, "HEAD", "/login", 200, {}, None),
        (admin, "GET", "/dashboard", 200, {}, None),
        (admin, "GET", "/admin", 200, {}, None),
        (admin, "GET", "/admin", 200, htmx, None),
        (waiting, "GET", "/verify_code", 200, {}, None),
        (waiting, "GET", "/resend_code", 200, htmx, None),
        (anyone, "GET", "/healthz", 200, evil, None),
        (anyone, "GET", "/readyz", 503, evil, None),
        (anyone, "POST", "/healthz", 405, {}, None),
        (anyone, "GET", "/dashboard", 303, {}, None),
        (anyone, "GET", "/dashboard", 200, htmx, None),
        (anyone, "GET", "/dashboard", 401, {"Accept": "application/json"}, None),
        (anyone, "GET", "/login", 400, evil, None),
        (anyone, "GET", "/static/app.css", 400, evil, None),
        (anyone, "GET", "/login", 400, {"Cookie": "__Host-session=a; __Host-session=b"}, None),
        (anyone, "POST", "/logout", 403, {"Sec-Fetch-Site": "cross-site"}, None),
        (anyone, "GET", "/no_access_right", 403, {}, None),
        (anyone, "GET", "/no/such/page", 404, {}, None),
        (anyone, "GET", "/no/such/page", 404, {"Accept": "application/json"}, None),
        (anyone, "GET", "/static/nothing.css", 404, {}, None),
        (anyone, "GET", "/static", 307, {}, None),
        (anyone, "GET", "/login/", 307, {}, None),
        (anyone, "GET", "/logout", 405, {}, None),
        (anyone, "DELETE", "/static/app.css", 405, OURS, None),
        (anyone, "OPTIONS", "/login", 405, {}, None),
        (anyone, "POST", "/verify_code", 410, OURS, {"code": "123456"}),
        (anyone, "POST", "/verify_code", 413, OURS, long),
        (anyone, "POST", "/static/app.css", 413, OURS, long),
        (anyone, "POST", "/create_code", 422, OURS, {"email": "nobody"}),
        (anyone, "POST", "/create_code", 422, OURS | htmx, {"email": "nobody"}),
        (waiting, "POST", "/resend_code", 429, OURS, {}),
        (anyone, "GET", "/fault", 500, {}, None),
        (anyone, "GET", "/fault", 500, {"Accept": "application/json"}, None),
        (anyone, "GET", "/static/app.css", 200, {}, None),
        (anyone, "GET", "/static/app.js", 200, {}, None),
        (anyone, "GET", "/static/favicon.svg", 200, {}, None),
        (anyone, "POST", "/create_code", 303, OURS, {"email": "eve@example.org"}),
        (admin, "POST", "/logout", 303, OURS, {}),
    ):
        answer = door.client.request(method, path, headers=headers, data=form)
        if path in ("/static", "/login/"):
            status = answer.status_code  # a redirect or a 404, whichever: both are armed
        assert answer.status_code == status, (method, path, answer.status_code)
        assert armed(answer, path), (method, path)
        assert "secret" not in answer.text and "Traceback" not in answer.text
        seen[answer.status_code] = True
    assert set(seen) >= {200, 303, 400, 401, 403, 404, 405, 410, 413, 422, 429, 500, 503}


def test_D11_every_route_is_armed(house, admin):
    ada = house.add("ada@example.org")
    for path, methods in walk(house.app):
        for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS"):
            for door in (house.door(), admin):
                if "logout" in path and method == "POST" and door is admin:
                    continue
                answer = door.client.request(method, fill(path, ada.id), headers=OURS)
                assert armed(answer, path), (method, path)
                assert (answer.status_code == 405) == (method not in methods), (method, path)


def test_D11_a_database_that_is_away_answers_armed(house, admin):
    house.db.close()
    answer = admin.get("/dashboard")
    assert answer.status_code == 503 and armed(answer, "/dashboard")
    assert int(answer.headers["retry-after"]) > 0
    assert "no such" not in answer.text and "SQL" not in answer.text


def test_D11_plain_http_is_not_told_about_https(build):
    house = build(APP_ENV="development", HOST="127.0.0.1", BASE_URL="")
    door = Door(house.asgi, house.mailbox, house.outbox.drain, "http://localhost:5001")
    for path in ("/login", "/no/such/page", "/static/app.css"):
        assert armed(door.get(path), path, https=False)


def test_D9_nothing_may_be_framed_over_the_wire(serve):
    """As a real server sends it: uvicorn adds no name of its own, and errors are armed, too."""
    server = serve()
    with httpx2.Client(base_url=server.url, headers=OURS, trust_env=False) as browser:
        for method, path, status in (
            ("GET", "/login", 200),
            ("GET", "/static/app.css", 200),
            ("GET", "/dashboard", 303),
            ("GET", "/nothing", 404),
            ("PUT", "/login", 405),
            ("POST", "/create_code", 422),
            ("GET", "/healthz", 200),
        ):
            answer = browser.request(method, path)
            assert answer.status_code == status
            assert armed(answer, path, https=False)
        big = browser.post("/create_code", data={"email": "a" * MAX_BODY})
        assert big.status_code == 413 and armed(big, "/create_code", https=False)


# ---- D10
def flow(door, house, ada):
    """Every kind of answer of a whole visit."""
    yield door.get("/")
    yield door.get("/login")
    yield door.ask("nobody")
    yield door.ask(ada)
    yield door.get("/verify_code")
    yield door.enter("abc")
    yield door.enter("000000" if door.read_code() != "000000" else "000001")
    house.clock.advance(61)
    yield door.post("/resend_code")
    yield door.enter(door.read_code())
    yield door.get("/dashboard")
    yield door.get("/no_access_right")
    yield door.get("/admin")
    yield door.post("/logout")
    yield door.get("/nothing")
    house.clock.advance(120)
    yield door.ask(ada)
    yield door.enter(door.read_code())
    yield door.post("/logout_everywhere")


@pytest.mark.parametrize("htmx", [False, True], ids=["page", "htmx"])
@pytest.mark.parametrize("env", ["production", "development"])
def test_D10_every_cookie_has_its_prefix_and_its_flags(build, env, htmx):
    if env == "production":
        house, prefix = build(), "__Host-"
        door = house.door(htmx=htmx)
    else:
        house, prefix = build(APP_ENV="development", HOST="127.0.0.1", BASE_URL=""), ""
        base = "http://localhost:5001"
        door = Door(house.asgi, house.mailbox, house.outbox.drain, base, htmx)
    ada = house.add("ada@example.org").address
    begun, ended = set(), set()
    for answer in flow(door, house, ada):
        for name, value, flags in cookies_set(answer):
            assert name.startswith(prefix), name
            short = name.removeprefix(prefix)
            assert short in COOKIES, name
            assert ("secure" in flags) == (env == "production"), name
            assert "httponly" in flags and "domain" not in flags, name
            assert (flags["samesite"].lower(), flags["path"]) == ("lax", "/"), name
            assert len(name) + len(value) <= 4096
            if int(flags["max-age"]) > 0:
                size = (
                    75 if short == "device" else 43
                )  # opaque: 256 bits; a device has a selector, too
                assert re.fullmatch(rf"[A-Za-z0-9_-]{{{size}}}", value), name
                begun.add(short)
            else:
                assert value == ""
                ended.add(short)
            if short == "session":
                assert int(flags["max-age"]) <= 30 * 86400
            if short == "signin":
                assert int(flags["max-age"]) <= 25 * 3600  # as long as a link may live
    assert {"session", "signin"} <= begun and {"session", "signin"} <= ended


# ---- D12
SCRIPTS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' autofocus onfocus='alert(1)",
    "</title><script>alert(1)</script>",
    "<div hx-get=/logout hx-trigger=load>",
    "javascript:alert(1)",
    "{address}{0}%s⟦title⟧⟦content⟧",
    "&lt;script&gt;",
]


def harmless(answer, payload):
    """The payload is there as text or not at all: no element or attribute was made of it."""
    soup = BeautifulSoup(answer.text, "html.parser")
    assert all(s.get("src", "").startswith("/static/") and not s.text for s in soup("script"))
    assert not soup("img") and not soup.select("[onerror],[onfocus],[hx-get='/logout']")
    for tag in soup(True):
        for name, value in tag.attrs.items():
            assert not name.startswith("on"), (tag, payload)
            if name in ("href", "action", "hx-post", "hx-get", "src"):
                assert value.startswith("/") or value == "#main", (tag, payload)
    return soup


def test_D12_what_people_type_is_text_everywhere(house, admin):
    htmx = {"HX-Request": "true"}
    for number, payload in enumerate(SCRIPTS):
        person = house.add(f"p{number}@example.org", name=payload)
        for answer in (
            admin.client.get("/admin", params={"q": payload}),
            admin.client.get("/admin", params={"q": payload}, headers=htmx),
            admin.client.get("/admin", params={"done": "added", "id": person.id}),
            admin.post("/admin/people", htmx, email=payload, name=payload, role=payload),
            admin.post(f"/admin/people/{person.id}/role", htmx, role=payload, q=payload),
            house.door().ask(payload, next=payload),
            house.door(htmx=True).ask(payload, next=payload),
            house.door().enter(payload),
            house.door().client.get("/login", params={"next": payload}),
            house.door().get("/" + payload.replace("/", "%2f").replace("?", "%3f")),
        ):
            assert answer.status_code < 500, payload
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            soup = harmless(answer, payload)
        listed = harmless(admin.client.get("/admin", params={"q": f"p{number}@"}), payload)
        assert listed.select_one("td[data-label=Name]").text == payload
        field = soup.select_one("#email")
        assert field is None or field["value"] in ("", payload)


def test_D12_programs_get_json_and_never_html(house, admin):
    program = {"Accept": "application/json"}
    anyone = house.door()
    for door, method, path, status in (
        (anyone, "GET", "/dashboard", 401),
        (anyone, "GET", "/no_access_right", 403),
        (anyone, "GET", "/<script>alert(1)</script>", 404),
        (anyone, "GET", "/logout", 405),
        (anyone, "POST", "/logout", 403),
        (anyone, "GET", "/login", 400),
    ):
        headers = program | (
            {"Cookie": "__Host-session=a;__Host-session=b"} if status == 400 else {}
        )
        answer = door.client.request(method, path, headers=headers)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert body["status"] == status and {"type", "title", "detail", "code"} <= set(body)
        assert "<" not in answer.text
    assert admin.get("/healthz").headers["content-type"] == "application/json"


def test_D12_static_files_have_their_types(door):
    for name, kind in (
        ("app.css", "text/css"),
        ("app.js", "javascript"),
        ("favicon.svg", "image/svg+xml"),
    ):
        assert kind in door.get(f"/static/{name}").headers["content-type"]


# ---- D13, D14, D15
def pages_of(house, admin, ada):
    waiting = house.door()
    waiting.ask(ada)
    return [
        *[house.door().get(path) for path in ("/", "/login", "/no_access_right", "/nothing")],
        waiting.get("/verify_code"),
        *[admin.get(path) for path in ("/", "/dashboard", "/admin", "/nothing")],
    ]


def test_D13_no_page_hands_out_its_window(house, admin, ada):
    for page in pages_of(house, admin, ada):
        assert page.headers["cross-origin-opener-policy"] == "same-origin"
        soup = BeautifulSoup(page.text, "html.parser")
        for link in soup.select("a[target], form[target], base"):
            assert "noopener" in link.get("rel", []), link


def test_D14_nothing_is_left_behind_after_signing_out(house, admin):
    for path in ("/", "/dashboard", "/admin", "/no_access_right", "/verify_code", "/login"):
        assert admin.get(path).headers["cache-control"] == "no-store"
    assert 'data-signed-in="yes"' in admin.get("/dashboard").text  # what `pageshow` looks for
    token = admin.cookie("session")
    left = admin.post("/logout")
    assert '"storage"' in left.headers["clear-site-data"]
    dropped = {name: flags["max-age"] for name, _, flags in cookies_set(left)}
    assert dropped["__Host-session"] == "0" and admin.cookie("session") is None
    thief = house.door()
    headers = plant(thief, f"__Host-session={token}")
    assert thief.get("/dashboard", headers=headers).status_code == 303


def test_D15_pages_keep_nothing_in_web_storage(house, admin, ada):
    for page in pages_of(house, admin, ada):
        soup = BeautifulSoup(page.text, "html.parser")
        config = json.loads(soup.select_one("meta[name=htmx-config]")["content"])
        assert config["historyCacheSize"] == 0
        for name in ("allowEval", "allowScriptTags", "includeIndicatorStyles"):
            assert config[name] is False
        assert config["selfRequestsOnly"] is True
        assert not soup("style") and not soup.select("[style]")
    script = admin.get("/static/app.js").text
    assert "localStorage" not in script and "sessionStorage" not in script
