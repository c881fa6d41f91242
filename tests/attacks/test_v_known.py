"""Attacks that have worked elsewhere, each by its row in the list of known vulnerabilities (V1–V35)."""

import ast
import base64
import hashlib
import hmac
import re
from dataclasses import replace
from email import message_from_bytes, policy
from email.utils import getaddresses
from secrets import token_bytes

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from auth.addresses import canonical
from auth.events import Source
from auth.keys import Keys, digest
from auth.known import Browser
from auth.limits import SITE, UNKNOWN, Limits, mailbox_of
from auth.networks import networks_of
from auth.policy import Policy, Refused
from tests.attacks.test_a_budgets import inside as entered
from tests.attacks.test_a_budgets import link_of, newest, watch
from tests.attacks.test_a_code import chi_square, live_sessions, wrong
from tests.attacks.test_b_enumeration import shown
from tests.attacks.test_c_limits import NEVER, NOT_OURS, OFF, WRONG, mails, stranger, with_forwarded
from tests.attacks.test_d_browser import fill, inside, snapshot, walk
from tests.conftest import BASE_URL, DEFAULT, SECRET, environment
from tests.serving import ROOT, Tab, together
from tests.sink import parsed
from utils import settings

ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.org"
DAY = 86400
MOST = 20  # LIMIT_WRONG_PER_ACCOUNT in a day
OURS = {"Sec-Fetch-Site": "same-origin"}
POLL = {"HX-Request": "true"}


@pytest.fixture
def street(build):
    """The limits that nobody has set, and two people."""
    house = build(**DEFAULT)
    house.add(ADA)
    house.add(BOB)
    return house


def asked(house, address=ADA, n=0):
    """A browser in the n-th network that asked, the code and the secret of the link in its mail."""
    door = stranger(house, n)
    door.ask(address)
    return door, door.read_code(), link_of(newest(house, address).text)


def refused(*answers):
    """Was each a plain no, and no fault of ours?"""
    return all(a.status_code in (410, 422, 429) and "set-cookie" not in a.headers for a in answers)


def source(n):
    """The n-th network, for what calls the rules themselves; no two have even a /24 in common."""
    network = f"11.{n // 250}.{n % 250}"
    return Source(f"{network}.0/24", "", f"{network}.7/32")


def with_cookie(house, token, n=1):
    """Another browser in another network, with a sign-in cookie that was carried there."""
    door = stranger(house, n)
    door.client.cookies.set("__Host-signin", token)
    return door


def long_code_in(page):
    """The 12 characters that a page shows to a browser that did not ask."""
    return re.search(r'class="shown"[^>]*>([A-Z2-7]{12})<', page)[1]


def spent(house, address=ADA):
    """All wrong codes that a stranger has for this address in a day are typed."""
    for n in range(MOST // 5):
        door = stranger(house, 100 + n)
        door.ask(address)
        assert all(WRONG in door.enter(NEVER).text for _ in range(5))
        house.clock.advance(61)


def imported(path):
    """The modules that a file imports, as `a.b` and, for `from a import b`, also `a`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# ---- V1: a route beside the limiter
def test_V1_every_route_that_changes_something_for_a_stranger_is_counted(street):
    counted, seen = set(), 0
    for number, (path, methods) in enumerate(walk(street.app)):
        for method in sorted(methods & {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}):
            door = stranger(street, number)
            door.ask(ADA)
            door.drain()
            street.clock.advance(61)  # a resend would be allowed, too
            form = {"email": BOB, "code": NEVER, "token": NOT_OURS, "name": "x", "role": "admin"}
            url, data = fill(path, "1"), form if method not in ("GET", "HEAD") else None
            before, used = snapshot(street.db), units(street)
            door.client.request(method, url, data=data, headers=OURS)
            if snapshot(street.db) != before:
                assert method == "POST" and units(street) > used, (method, path)
                counted.add(path)
            seen += 1
            street.clock.advance(DAY)
    assert counted == {"/create_code", "/verify_code", "/resend_code", "/link", "/undo_address"}
    assert seen > 25


def units(house):
    """All that is counted now."""
    now = int(house.clock())
    return house.db.q("select sum(n) as n from counters where ends_at > :now", now=now)[0]["n"]


RULES = {"asking", "codes", "desk", "known", "leaving", "limits", "mailing", "mailroom", "moving"}


def test_V1_the_limiter_is_in_the_rules_and_knows_no_http(street):
    for path in (ROOT / "auth").glob("*.py"):
        names = set(imported(path))
        if names & {"auth.limits", "auth.budgets"}:
            assert path.stem in RULES, path
            assert not [n for n in names if n.startswith(("starlette", "fasthtml", "auth.routes"))]
    with pytest.raises(Refused, match="too_many_starts"):  # whoever calls the rules, and from where
        for n in range(31):
            street.auth.signin.create_code(f"p{n}@example.org", "/", Browser(source=source(1)))
    assert n == 30


# ---- V2, V3, V11: guesses
@pytest.mark.parametrize("carried", ["same browser", "new network", "new session"])
def test_V2_after_five_wrong_codes_the_right_one_is_refused_everywhere(street, carried):
    door, code, _ = asked(street)
    assert all(WRONG in door.enter(wrong(code, n + 1)).text for n in range(5))
    if carried != "same browser":
        token, door = door.cookie("signin"), stranger(street, 1)
        if carried == "new session":
            door.sign_in(BOB)
        door.client.cookies.set("__Host-signin", token)
    assert door.enter(code).status_code == 429
    assert ADA not in door.get("/dashboard").text
    street.clock.advance(61)
    fresh, _, _ = asked(street, n=2)  # for a sign-in of its own it is only one more wrong code
    assert WRONG in fresh.enter(code).text and not entered(fresh)


def test_V3_two_hundred_networks_with_fresh_codes_are_compared_twenty_times_a_day(street):
    compared, rules, began = watch(street), street.auth.signin, street.clock()
    for n in range(200):
        token, _ = rules.create_code(ADA, "/", Browser(source=source(n)))
        browser = Browser(token, source=source(n))
        for guess in range(12):
            if guess == 6 and n % 2:  # one half with a clock that stands, the other with new mails
                street.clock.advance(60)
                rules.resend_code(browser)
            with pytest.raises(Refused, match=r"code_wrong|code_off|code_exhausted"):
                rules.verify_code(NEVER, "", browser)
    assert street.clock() - began < DAY and len(compared) == MOST
    door = stranger(street, 300)
    door.ask(ADA)
    assert OFF in door.enter(NEVER).text and len(compared) == MOST


def test_V11_one_code_is_compared_five_times_and_a_sign_in_ten_times(house, ada):
    compared = watch(house)
    door, code, _ = asked(house)
    for n in range(100):
        door.enter(wrong(code, n + 1))
    assert len(compared) == 5
    for wait in (60, 120):
        house.clock.advance(wait)
        door.post("/resend_code")
        for _ in range(100):
            door.enter(NEVER)
    assert len(compared) == 10 and not entered(door)


# ---- V4, V5: whose budget
def test_V4_ten_thousand_addresses_of_one_64_are_one_client(street):
    hosts = [f"2001:db8:1:2:{n:x}:{n * 7 % 65536:x}::{n:x}" for n in range(1, 10_001)]
    assert len({networks_of(host) for host in hosts}) == 1
    answers = [
        street.door(client=host).ask(f"p{n}@example.org") for n, host in enumerate(hosts[::300])
    ]
    assert [a.status_code for a in answers] == [303] * 30 + [429] * 4
    assert street.door(client="2001:db8:1:3::1").ask(ADA).status_code == 303


def test_V4_an_ipv4_address_inside_ipv6_is_that_ipv4_address(street):
    ways = [
        "198.51.100.7",
        "::ffff:198.51.100.7",
        "::FFFF:c633:6407",
        "0:0:0:0:0:ffff:198.51.100.7",
    ]
    answers = [street.door(client=ways[n % 4]).ask(f"p{n}@example.org") for n in range(32)]
    assert [a.status_code for a in answers] == [303] * 30 + [429] * 2
    assert street.door(client="::ffff:198.51.100.8").ask(ADA).status_code == 303


# trusted proxies, the socket's peer, X-Forwarded-For lines, who it is then
CHAINS = [
    ("", "11.0.1.1", ["{spoof}"], "11.0.1.1"),
    ("", "10.0.2.1", ["{spoof}, 11.0.2.1"], "10.0.2.1"),
    ("10.0.0.0/8", "10.0.0.1", ["{spoof}, 11.0.3.1"], "11.0.3.1"),
    ("10.0.0.0/8", "10.0.0.1", ["{spoof}, 11.0.4.1, 10.9.9.9"], "11.0.4.1"),
    ("10.0.0.0/8", "10.0.0.1", ["{spoof}", "11.0.5.1"], "11.0.5.1"),
    ("10.0.0.0/8", "10.0.0.1", ["{spoof}", "11.0.6.1, 10.1.1.1", "10.2.2.2"], "11.0.6.1"),
    ("10.0.0.0/8", "10.0.7.1", ["{spoof}, 11.0.7.1, rubbish"], "10.0.7.1"),
    ("10.0.0.0/8", "10.0.8.1", ["{spoof}, 11.0.8.1:443"], "10.0.8.1"),
    ("10.0.0.0/8", "11.0.9.1", ["{spoof}"], "11.0.9.1"),
]


def test_V5_nobody_chooses_their_address_by_a_header(build):
    limits = DEFAULT | {"LIMIT_STARTS_PER_IP": "3/10m"}
    houses = {trusted: build(**limits, TRUSTED_PROXIES=trusted) for trusted in ("", "10.0.0.0/8")}
    for trusted, peer, lines, client in CHAINS:
        door, answers = houses[trusted].door(client=peer), []
        for n in range(4):
            sent = [line.format(spoof=f"203.0.113.{n}") for line in lines]
            answers.append(with_forwarded(door, "/create_code", sent, email=f"p{n}@example.org"))
        assert [a.status_code for a in answers] == [303] * 3 + [429], (peer, lines)
        assert houses[""].door(client=client).ask(ADA).status_code == 429, (peer, lines)


# ---- V6: limits that are not there
def test_V6_with_nothing_configured_all_limits_hold(tmp_path, street):
    written = {k: v for k, v in environment("", tmp_path).items() if not k.startswith("LIMIT_")}
    found, faults = settings.check(settings.read(written, None))
    named = [name for name in vars(found) if name.startswith("limit_")]
    assert not faults and len(named) == 6 and all(getattr(found, name) for name in named)
    door = stranger(street)
    starts = [door.ask(f"p{n}@example.org").status_code for n in range(31)]
    links = [door.post("/link", token=NOT_OURS).status_code for _ in range(21)]
    assert starts == [303] * 30 + [429] and links == [422] * 20 + [429]


def test_V6_without_the_table_of_counters_nobody_gets_in(street):
    door, code, link = asked(street)
    street.clock.advance(61)
    street.db.q("alter table counters rename to elsewhere")
    tries = [
        lambda: door.enter(code),
        lambda: door.enter(wrong(code)),
        lambda: door.post("/link", token=link),
        lambda: door.post("/link", token=NOT_OURS),
        lambda: door.post("/resend_code"),
        lambda: stranger(street, 1).ask(BOB),
    ]
    for number, act in enumerate(tries):
        answer = act()
        assert answer.status_code in (500, 503) and "set-cookie" not in answer.headers, number
    assert not entered(door) and live_sessions(street) == 0
    assert len(street.rows("challenges")) == 1 and len(street.rows("outbox")) == 1
    street.db.q("alter table elsewhere rename to counters")
    assert door.enter(code).status_code == 303 and entered(door)


def test_V6_a_database_that_is_away_is_503_and_no_sign_in(build):
    house = build(**DEFAULT, SIGNUP="open")
    door, code, link = asked(house)
    house.db.close()
    for answer in (door.enter(code), door.post("/link", token=link), door.ask(BOB)):
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
        assert "set-cookie" not in answer.headers
    assert live_sessions(build()) == 0


# ---- V7, V8: races
def test_V7_of_128_guesses_at_once_in_four_processes_five_are_compared(serve, sink, build):
    servers = [serve(SMTP_PORT=sink.port, SIGNUP="open") for _ in range(4)]
    tab = Tab(*servers)
    tab.post("/create_code", email=ADA)
    code = sink.code(ADA)

    def guess(i):
        form = {"code": wrong(code, i + 1)}
        return tab.send("POST", "/verify_code", i % 4, OURS, keep=False, data=form)

    answers = together(128, guess)
    assert sum(WRONG in answer.text for answer in answers) == 5
    assert sorted(answer.status_code for answer in answers) == [422] * 5 + [429] * 123
    assert [tab.post("/verify_code", at=n, code=code).status_code for n in range(4)] == [429] * 4
    house = build()
    assert live_sessions(house) == 0 and house.rows("challenges")[0]["code_tries"] == 5


def test_V8_of_64_right_codes_at_once_one_opens_a_session(serve, sink, build):
    servers = [serve(SMTP_PORT=sink.port, SIGNUP="open") for _ in range(2)]
    tab = Tab(*servers)
    tab.post("/create_code", email=ADA)
    form = {"code": sink.code(ADA)}
    answers = together(
        64, lambda i: tab.send("POST", "/verify_code", i % 2, OURS, keep=False, data=form)
    )
    cookies = [a for a in answers if "__Host-session=" in a.headers.get("set-cookie", "")]
    assert len(cookies) == 1 and cookies[0].status_code == 303
    assert all(a.status_code in (410, 422, 429) for a in answers if a is not cookies[0])
    assert live_sessions(build()) == 1


# ---- V9: somebody else's code
def test_V9_a_code_of_one_is_wrong_in_the_sign_in_of_another_and_stays_good(street):
    ada, code, _ = asked(street)
    bob, _, _ = asked(street, BOB, 1)
    other = stranger(street, 2)
    other.ask(EVE)  # nobody has this address
    assert WRONG in bob.enter(code).text and WRONG in other.enter(code).text
    rows = street.db.q("select total_tries, used_at from challenges where address = :a", a=ADA)
    assert rows == [{"total_tries": 0, "used_at": None}] and live_sessions(street) == 0
    assert ada.enter(code).status_code == 303 and ADA in ada.get("/dashboard").text
    assert not entered(bob) and not entered(other)


# ---- V10: chance
def test_V10_auth_imports_no_weak_chance():
    files = list((ROOT / "auth").rglob("*.py"))
    assert len(files) > 15
    for path in files:
        assert not {n.partition(".")[0] for n in imported(path)} & {"random", "uuid", "numpy"}, path
        drawn = [n for n in imported(path) if n.partition(".")[0] == "secrets"]
        assert not drawn or path.name == "keys.py", path


def test_V10_all_codes_are_equally_likely():
    keys = Keys(SECRET)
    codes = [
        keys.code(keys.current, "sign-in", f"{n:064x}", ADA, 0, 6) for n in range(200_000)
    ]  # fmt: skip
    assert chi_square([code[:3] for code in codes], 1000) < 1200  # p ≈ 1e-5 at 999
    assert chi_square([code[3:] for code in codes], 1000) < 1200
    assert min(codes) < "000100" and max(codes) > "999899"  # twenty of each are due


@pytest.mark.parametrize("code", ["000", "999"])
def test_V10_the_first_and_the_last_code_are_mailed_and_work(house, ada, code):
    """With three digits, where they come soon; with six the arithmetic is the same."""
    keys, nonces = Keys(SECRET), (n.to_bytes(32) for n in range(50_000))
    drawn = (n for n in nonces if keys.code(keys.current, "sign-in", n.hex(), ada, 0, 3) == code)
    nonce = next(drawn)
    chance = Keys(SECRET, random_bytes=lambda n: nonce if n == 32 else token_bytes(n))
    rules = replace(house.auth.signin, keys=chance, policy=Policy(code_length=3))
    token, _ = rules.create_code(ada, "/", Browser())
    assert rules.mail(house.rows("challenges")[0]["id"])[1] == code
    assert rules.verify_code(code, "", Browser(token)).user.address == ada


# ---- V12, V14: who opens the link
def test_V12_nothing_that_machines_do_with_a_link_spends_it_or_signs_in(street):
    door, code, link = asked(street)
    bot, before = stranger(street, 1), snapshot(street.db)
    looks = [{}, {"Sec-Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"}, POLL]
    paths = [
        "/link",
        f"/link?token={link}",
        f"/verify_code?code={code}",
        f"/create_code?email={ADA}",
    ]
    for browser in (bot, door):
        for method in ("GET", "HEAD", "OPTIONS"):
            for headers in looks:
                for path in paths:
                    answer = browser.client.request(method, path, headers=headers)
                    assert answer.status_code < 500 and "set-cookie" not in answer.headers
    # It runs the scripts of the page and presses the button; and it guesses what a form may be.
    posts = [
        bot.post("/link", token=link),
        bot.post("/verify_code", code=code),
        bot.post("/verify_code", code=code, token=link, email=ADA),
        bot.client.post("/link", data={"token": link}),
        door.client.post("/link", data={"token": link}, headers={"Sec-Fetch-Site": "cross-site"}),
    ]
    assert [a.status_code for a in posts] == [200, 410, 410, 403, 403]
    assert not any("set-cookie" in a.headers for a in posts) and not entered(bot)
    assert snapshot(street.db) == before
    assert door.enter(code).status_code == 303 and entered(door)


@pytest.mark.parametrize("victim", ["stranger", "signed in", "asked, too"])
def test_V14_a_click_in_one_browser_never_signs_another_one_in(house, ada, victim):
    attacker, code, link = asked(house)
    clicker = stranger(house, 1)
    if victim == "signed in":
        clicker.sign_in(ada)
    elif victim == "asked, too":
        clicker.ask(ada)
    before = live_sessions(house)
    for _ in range(2):
        clicker.get(f"/link?token={link}")
        clicker.post("/link", token=link)
        poll = attacker.get("/verify_code?next=/dashboard", headers=POLL)
        assert (poll.status_code, poll.text) == (204, "")
        assert "set-cookie" not in poll.headers and "hx-redirect" not in poll.headers
        assert not entered(attacker) and attacker.cookie("session") is None
    if victim == "asked, too":  # the click signed in where it was made, and ended the other one
        assert entered(clicker) and live_sessions(house) == 1
        assert attacker.enter(code).status_code == 410 and not entered(attacker)
    else:
        assert live_sessions(house) == before


# ---- V13, V15: where a link and a sign-in lead
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.test"},
        {"Host": "vestibule.test.evil.test"},
        {"Host": "vestibule.test:443@evil.test"},
        {"Host": "vestibule.test:8443"},
        {"Host": "vestibule.test, evil.test"},
        {"Host": ""},
        {"X-Forwarded-Host": "evil.test"},
        {"X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "http", "X-Forwarded-Port": "81"},
        {"Forwarded": "host=evil.test;proto=http"},
        {"X-Host": "evil.test", "X-Original-Host": "evil.test", "X-Forwarded-Server": "evil.test"},
        {"X-Original-URL": "https://evil.test/", "X-Rewrite-URL": "https://evil.test/"},
        {"Origin": "https://evil.test", "Referer": "https://evil.test/"},
    ],
    ids=lambda headers: " ".join(f"{k}={v}" for k, v in headers.items())[:40],
)
def test_V13_the_link_in_a_mail_leads_to_base_url(house, ada, headers):
    answer = house.door().post("/create_code", headers, email=ada, base_url="https://evil.test")
    house.outbox.drain()
    letters = house.mailbox.to(ada)
    if "Host" in headers:
        assert answer.status_code == 400 and not letters
        return
    assert answer.status_code == 303 and len(letters) == 1
    for part in (letters[0].text, letters[0].html):
        found = re.findall(r"[a-z]+://[^\s\"'<>]+", part)
        assert any(url.startswith(f"{BASE_URL}/link#") for url in found)
        assert all(url == BASE_URL or url.startswith(f"{BASE_URL}/") for url in found), found
        assert "evil" not in part


def test_V13_without_a_base_url_production_does_not_start(tmp_path):
    for value in ("", "evil.test", "http://app.example.org", "https://"):
        written = environment("", tmp_path, BASE_URL=value)
        assert "BASE_URL" in settings.check(settings.read(written, None))[1], value


NEXT = [
    "//evil.test",
    "///evil.test",
    "/\\evil.test",
    "\\\\evil.test",
    "/%5cevil.test",
    "/%2f%2fevil.test",
    "https://evil.test",
    "https:evil.test",
    "javascript:alert(1)",
    "/javascript:alert(1)",
    "java\nscript:alert(1)",
    "data:text/html,x",
    "https://vestibule.test@evil.test",
    "//vestibule.test@evil.test",
    "/\uff0fevil.test",
    "\uff0f\uff0fevil.test",
    "/\u2044evil.test",
    "/a\r\nSet-Cookie: x=y",
    "/\t/evil.test",
    "/%0d%0aX: y",
    " //evil.test",
    "@evil.test",
    "/link",
    "/logout",
]


@pytest.mark.parametrize("htmx", [False, True], ids=["page", "htmx"])
def test_V15_next_leads_to_a_path_of_ours(house, ada, htmx):
    name = "hx-redirect" if htmx else "location"
    for n, wanted in enumerate([*NEXT, "/reports?year=2027"]):
        door = house.door(htmx)
        door.get("/login", params={"next": wanted})
        door.ask(ada, next=wanted)
        code = door.read_code()  # by code and by link in turn
        link = link_of(newest(house, ada).text)
        answer = door.post("/link", token=link, next=wanted) if n % 2 else door.enter(code)
        place = answer.headers[name]
        good = wanted if wanted.startswith("/reports") else "/dashboard"
        assert inside(place) and place == good and "x=y" not in str(answer.headers), ascii(wanted)


# ---- V16, V17, V18: what is typed
LISTS = [
    f"{ADA},{EVE}",
    f"{ADA}, {EVE}",
    f"{ADA};{EVE}",
    f"{ADA} {EVE}",
    f"{ADA}\n{EVE}",
    f"{ADA}\r\nBcc: {EVE}",
    f"{ADA}%0a{EVE}",
    f"{ADA}%0d%0aBcc:{EVE}",
    f"<{ADA}>",
    f"{ADA}>,<{EVE}",
    f"Ada <{ADA}>, Eve <{EVE}>",
    f"Ada <{ADA}>",
    f'"{ADA}" <{EVE}>',
    f'"{ADA},"@example.org',
    f"{ADA}\0{EVE}",
    f"{ADA}\t{EVE}",
    f"['{ADA}','{EVE}']",
    f"{ADA}?cc={EVE}",
    "a,b@example.org",
    "a%2cb@example.org",
    "a%0ab@example.org",
    f"{ADA}\r\n",
]


def test_V16_one_field_is_one_recipient_or_an_error(build):
    house, sent = build(SIGNUP="open"), []
    bodies = [f"email={ADA}&email={EVE}", f"email[]={ADA}&email[]={EVE}", f"email[0]={ADA}"]
    kind = OURS | {"Content-Type": "application/x-www-form-urlencoded"}
    for n, typed in enumerate([*LISTS, *bodies]):
        client = stranger(house, n).client
        if typed in bodies:
            answer = client.post("/create_code", content=typed, headers=kind)
        else:
            answer = client.post("/create_code", data={"email": typed}, headers=OURS)
        house.mailbox.messages.clear()
        house.outbox.drain()
        got = [getaddresses([header(m, "to")])[0][1] for m in house.mailbox.messages]
        assert got == ([canonical(typed)] if answer.status_code == 303 else []), ascii(typed)
        assert answer.status_code in (303, 422) and EVE not in got, ascii(typed)
        sent += got
        for message in house.mailbox.messages:
            assert len(getaddresses([header(message, "to")])) == 1 and not header(message, "bcc")
    assert sent == ["a%2cb@example.org", "a%0ab@example.org", ADA]


def header(message, name):
    return str(message_from_bytes(message.as_bytes(), policy=policy.default)[name] or "")


def test_V17_no_markup_that_somebody_typed_reaches_a_mail(build):
    house = build(SIGNUP="open")
    mark = '"><img src=//evil.test/x onerror=alert(1)><!-- {code} %s'
    local = "o'evil&amp=`{code}`|%s"  # all of it may stand before the @
    house.add(f"{local}@example.org", name=mark)
    headers = {"User-Agent": mark, "Accept-Language": mark, "Referer": f"https://evil.test/{mark}"}
    for n in range(2):  # the second browser is told of by a notice
        door = stranger(house, n)
        form = {"next": mark, "name": mark, "subject": f"x\r\nBcc: {EVE}", "tenant": mark}
        answer = door.post("/create_code", headers, email=f"{local}@Example.org", **form)
        assert answer.status_code == 303
        house.outbox.drain()
        row = house.rows("challenges")[-1]
        code = house.mailbox.latest_code(row["address"])
        assert door.enter(code, timezone=mark).status_code == 303
        house.clock.advance(DAY)
    house.outbox.drain()
    assert len(house.mailbox.messages) == 3
    for message in house.mailbox.messages:
        raw, letter = message.as_bytes(), message.letter
        assert raw.count(b"evil") == 1 and header(message, "to") == f"{local}@example.org"
        assert not header(message, "bcc") and "evil" not in f"{letter.html}{letter.text}"
        assert "<img" not in letter.html and "{code}" not in letter.html + letter.text


ALIKE = [
    "ada＠example.org",
    "ａda@example.org",
    "ada@ｅxample.org",
    "ada@example。org",
    "ada@example.ºrg",
    "аda@example.org",
    "ada@exаmple.org",
    "ada\u200b@example.org",
    "ada@example\ufe0f.org",
    "ádá@example.org",
    "ada\u0301@example.org",
    "mıke@example.org",
    "\u212aim@example.org",
    "ſam@example.org",
    "ﬁona@example.org",
]


def test_V18_an_address_that_looks_alike_is_refused_and_mailed_to_nobody(build):
    house = build(SIGNUP="open")
    for victim in (ADA, "mike@example.org", "kim@example.org", "sam@example.org"):
        house.add(victim)
    before = snapshot(house.db)
    answers = [stranger(house, n).ask(typed) for n, typed in enumerate(ALIKE)]
    house.outbox.drain()
    assert {a.status_code for a in answers} == {422} and not house.mailbox.messages
    assert snapshot(house.db) == before


def test_V18_one_text_is_identity_limit_and_recipient(build):
    house, keys = build(**DEFAULT), set()
    house.add(" Ada@Example.ORG ")
    for typed in ("ada@example.org", "ADA@EXAMPLE.ORG", "\tAda@example.Org\n"):
        stranger(house).ask(typed)
        house.outbox.drain()
        found = {row["key"] for row in house.rows("counters")}
        assert not keys or found == keys, typed  # nobody has another limit by writing otherwise
        keys = found
    assert {row["address"] for row in house.rows("challenges")} == {ADA}
    assert [m.letter.to for m in house.mailbox.messages] == [ADA]
    with pytest.raises(Refused, match="user_exists"):
        house.add("aDa@example.org")


PIECES = st.text(st.sampled_from("abzAKZſıİKßﬁéµ.+-_@＠。０1\u0307\u200d\u00ad"), max_size=12)


@how(derandomize=True, deadline=None, max_examples=300, database=None)
@given(st.one_of(PIECES, PIECES.map("{}@example.org".format), PIECES.map("ada@{}.org".format)))
def test_V18_the_canonical_form_is_final_and_ascii(typed):
    address = canonical(typed)
    if address is not None:
        assert canonical(address) == address == address.lower() and address.isascii()
        assert address.partition("@")[0] == typed.strip().partition("@")[0].lower()


# ---- V24, V25: who is there, and how much mail
@pytest.mark.parametrize("htmx", [False, True], ids=["page", "htmx"])
def test_V24_known_unknown_disabled_and_closed_are_answered_alike(build, htmx):
    house = build(**DEFAULT, SIGNUP="open", SIGNUP_DOMAINS="example.org")
    states = {"known": ADA, "disabled": BOB, "unknown": EVE, "closed": "ada@other.example"}
    house.add(ADA)
    house.auth.people.disable(None, house.add(BOB).id, Source())
    stories = {}
    for n, (state, address) in enumerate(states.items()):
        door = stranger(house, n, htmx)
        story = [shown(door.ask(address), address), shown(door.get("/verify_code"), address)]
        story += [shown(door.enter(NEVER), address) for _ in range(6)]
        house.clock.advance(61)
        story += [shown(door.post("/resend_code"), address), shown(door.ask(address), address)]
        house.outbox.drain()
        stories[state] = story
        house.clock.now -= 61
    house.outbox.drain()
    assert {m.letter.to for m in house.mailbox.messages} == {ADA, EVE}
    for state, story in stories.items():
        assert story == stories["known"], state


def test_V25_a_thousand_requests_for_one_address_are_ten_mails(street):
    for n in range(1000):
        street.auth.signin.create_code(ADA, "/", Browser(source=source(n)))
        if n % 10 == 0:
            street.outbox.drain()
        street.clock.advance(DAY / 1001)
    assert len(mails(street)) == 10


def test_V25_tags_and_dots_of_one_mailbox_share_their_mails(build):
    house = build(**DEFAULT, SIGNUP="open")
    house.add(ADA)
    names = ["ada+{}", "a.da+{}", "AD.A+x{}", "ada+{}+y", "a.da", "ada"]
    for n in range(200):
        typed = f"{names[n % 6].format(n)}@example.org"
        house.auth.signin.create_code(typed, "/", Browser(source=source(n)))
        house.outbox.drain()
        house.clock.advance(DAY // 201)
    got = [m.letter.to for m in house.mailbox.messages]
    assert 20 < len(got) <= 50 and got.count(ADA) == 10  # five times what one address may have
    assert len(set(got)) > 20 and {mailbox_of(address) for address in got} == {ADA}


# ---- V26: a row for each (limit, window, subject)
SUBJECTS = st.one_of(
    st.sampled_from([SITE, UNKNOWN, ADA, "", "a", "a ", "a wrong/60", "11.0.0.0/24", "::/64"]),
    st.text(max_size=20),
)
LIMIT = st.sampled_from(
    ["starts", "starts-client", "wrong", "wrong-client", "mails", "aliases", "new_device"]
)
TRIPLE = st.tuples(LIMIT, st.integers(1, 100_000), SUBJECTS, SUBJECTS)


@how(derandomize=True, deadline=None, max_examples=500, database=None)
@given(TRIPLE, TRIPLE, st.integers(1, 10**6))
def test_V26_two_limits_never_share_a_row_and_one_never_has_two(one, other, most):
    limits = Limits(Keys(SECRET), Policy(), lambda *_: None)

    def key(triple, most):
        limit, window, whom, part = triple
        (count,) = limits._make_counts(limit, ((most, window),), whom, part)
        return count.key

    assert (key(one, most) == key(other, most)) == (one == other)
    assert key(one, most) == key(one, most + 1) == key(one, 1)  # a new number forgives nothing
    assert key(one, most) != key((one[0], one[1] + 1, *one[2:]), most)


def test_V26_one_start_and_one_guess_are_one_in_each_of_their_rows(street):
    door = stranger(street)
    door.ask(ADA)
    rows = {row["key"]: row["n"] for row in street.rows("counters")}
    # starts 2 × (client, network); mails: 3 of the address, 1 of the site; 3 that count nobody
    assert len(rows) == 12 and all(n == (" aliases/" not in key) for key, n in rows.items())
    door.enter(NEVER)
    more = {row["key"]: row["n"] for row in street.rows("counters")}
    # wrong 2 × (client, network); 2 of the account, 1 of the site
    assert len(more) == 19 and rows.keys() < more.keys()
    assert {n for key, n in more.items() if " aliases/" not in key} == {1}


def test_V26_one_window_in_two_spellings_is_refused(tmp_path):
    for value in ("5/1h, 10/60m", "10/24h, 9/1d", "1/60s, 5/1m"):
        written = environment("", tmp_path, LIMIT_WRONG_PER_ACCOUNT=value)
        assert "LIMIT_WRONG_PER_ACCOUNT" in settings.check(settings.read(written, None))[1]


# ---- V27: what is over is over
def test_V27_signing_out_everywhere_ends_all_that_is_pending(house, ada):
    owner = house.door()
    owner.sign_in(ada)
    pending = [asked(house, ada, n) for n in range(3)]
    waiting = stranger(house, 9)
    waiting.ask(ada)  # its mail has not left yet
    shown_code = house.door().post("/link", token=pending[2][2])
    assert pending[2][1] in shown_code.text
    assert owner.post("/logout_everywhere").status_code == 303
    sent = len(house.mailbox.messages)
    house.outbox.drain()
    assert len(house.mailbox.messages) == sent and live_sessions(house) == 0
    for door, code, link in pending:
        assert door.enter(code).status_code == 410 and refused(door.post("/link", token=link))
        assert door.post("/resend_code").status_code == 410
        fresh = house.door()
        fresh.ask(ada)  # a browser that asked may use any link that lives
        assert fresh.post("/link", token=link).status_code == 422
        assert not entered(door) and not entered(fresh)
    assert live_sessions(house) == 0


def test_V27_at_the_limit_every_code_of_the_sign_in_is_dead(house, ada):
    door, code, _ = asked(house)
    codes = [code]
    for wait in (60, 120):
        for n in range(5):
            door.enter(wrong(codes[-1], n + 1))
        house.clock.advance(wait)
        door.post("/resend_code")
        codes.append(door.read_code())
    assert len(set(codes)) == 2 and house.rows("challenges")[0]["total_tries"] == 10
    for secret in codes:
        assert door.enter(secret).status_code == 429
        assert with_cookie(house, door.cookie("signin")).enter(secret).status_code == 429
    assert not entered(door) and live_sessions(house) == 0


def test_V27_at_the_limit_of_the_account_every_code_on_its_way_is_dead(street):
    pending = [asked(street)]
    street.clock.advance(61)
    pending.append(asked(street, n=1))
    spent(street)
    for door, code, _ in pending:
        assert OFF in door.enter(code).text and not entered(door)


def test_V27_who_asks_for_another_address_has_left_the_first_one(house, ada):
    house.add(BOB)
    door, code, link = asked(house)
    token = door.cookie("signin")
    door.ask(BOB)
    assert WRONG in door.enter(code).text
    elsewhere = door.post("/link", token=link)
    assert elsewhere.status_code == 200 and code not in elsewhere.text
    left = with_cookie(house, token)
    assert left.enter(code).status_code == 410 and left.post("/resend_code").status_code == 410
    left.post("/link", token=link)
    assert not entered(left) and not entered(door) and live_sessions(house) == 0


# ---- V28, V29, V34: the same guess in other clothes, the same guesser in other browsers
WAYS = ["{0}", " {0} ", "{1} {2}", "{1}-{2}", "{1}\u2013{2}", "{3}", "{1}\u00a0{2}\r\n", "{4}"]


def spelled(code):
    """One code as different people and keyboards write it."""
    wide = code.translate({ord("0") + n: "０１２３４５６７８９"[n] for n in range(10)})
    arabic = code.translate({ord("0") + n: "٠١٢٣٤٥٦٧٨٩"[n] for n in range(10)})
    return [way.format(code, code[:3], code[3:], wide, arabic) for way in WAYS]


@pytest.mark.parametrize("first", range(len(WAYS)))
def test_V28_however_a_used_code_is_written_it_is_used(house, ada, first):
    door, code, _ = asked(house)
    token = door.cookie("signin")
    assert door.enter(spelled(code)[first]).status_code == 303 and entered(door)
    for again in spelled(code):
        assert with_cookie(house, token).enter(again).status_code == 410, ascii(again)
    assert live_sessions(house) == 1


def test_V28_however_a_wrong_code_is_written_it_costs_a_try(house, ada):
    compared = watch(house)
    door, code, _ = asked(house)
    answers = [door.enter(typed) for typed in spelled(wrong(code))]
    assert [a.status_code for a in answers] == [422] * 5 + [429] * 3 and len(compared) == 5
    assert all(door.enter(typed).status_code == 429 for typed in spelled(code))


def test_V29_a_new_cookie_jar_for_each_guess_is_no_new_budget(street):
    compared = watch(street)
    door, code, _ = asked(street)
    jar = dict(door.client.cookies)
    for n in range(10):
        one = stranger(street, n)
        one.client.cookies.update(jar)
        one.enter(wrong(code, n + 1))
    assert len(compared) == 5
    for n in range(60):
        one = stranger(street, n)
        one.ask(ADA)
        one.enter(NEVER)
        assert not entered(one)
        street.clock.advance(61)
    assert len(compared) == MOST


@pytest.mark.parametrize("k", [4, 12])
def test_V34_many_codes_at_a_time_share_the_tries_of_the_account(build, k):
    house = build(**DEFAULT | {"LIMIT_MAILS_PER_ADDRESS": "100/1s"})
    house.add(ADA)
    compared = watch(house)
    pending = [asked(house, n=n) for n in range(k)]
    assert len({code for _, code, _ in pending}) > 1
    for n in range(6):
        for door, code, _ in pending:
            assert refused(door.enter(wrong(code, n + 1)))
    assert len(compared) == MOST
    for door, code, _ in pending:
        assert refused(door.enter(code)) and not entered(door)
    assert len(compared) == MOST and live_sessions(house) == 0


# ---- V31, V35: what is written down
def test_V31_no_secret_is_in_the_log_at_debug(serve, sink):
    server = serve(
        SMTP_PORT=sink.port, SIGNUP="open", LOG_LEVEL="debug", LIMIT_WRONG_PER_ACCOUNT="1/24h"
    )
    first, second, other = Tab(server), Tab(server), Tab(server)
    first.post("/create_code", email=ADA)
    code = sink.code(ADA)
    secrets = [code, secret_in(sink, 1), first.cookies["__Host-signin"]]
    assert WRONG in first.post("/verify_code", code=wrong(code)).text
    second.post("/create_code", email=ADA)
    link = secret_in(sink, 2)
    other.get(f"/link?token={link}", Referer=f"{server.url}/link?{link}")
    pages = [other.get("/link"), other.post("/link", token=link), other.post("/link", token="x")]
    assert [page.status_code for page in pages] == [200, 200, 422]
    for page in pages:
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-store"
    long = long_code_in(pages[1].text)
    secrets += [link, long, long[:4], second.cookies["__Host-signin"]]
    second.get(f"/verify_code?code={long}")
    assert second.post("/verify_code", code=f"{long[:4]} {long[4:8]} {long[8:]}").status_code == 303
    third = Tab(server)
    third.post("/create_code", email=ADA)
    secrets.append(secret_in(sink, 3))
    assert third.post("/link", token=secrets[-1]).status_code == 303
    for tab in (second, third):
        assert tab.signed_in
        secrets += [tab.cookies["__Host-session"], tab.cookies["__Host-device"]]
    server.stop()
    assert server.log.count("a***@example.org signed in") == 2 and "DEBUG" in server.log.upper()
    for secret in [*secrets, SECRET]:
        assert not re.search(rf"(?<![0-9A-Za-z]){re.escape(secret)}(?![0-9A-Za-z])", server.log)
    for _, raw in sink.mails:
        subject = parsed(raw)["subject"]
        assert not [secret for secret in secrets if secret in subject]


def secret_in(sink, number):
    """The secret of the link in the number-th mail."""
    raw = [raw for _, raw in sink.wait(number) if b"sign-in" in raw][number - 1]
    return link_of(parsed(raw).get_body(("plain",)).get_content())


def test_V35_the_database_holds_nothing_that_a_search_turns_into_a_sign_in(build, tmp_path):
    house = build(**DEFAULT)
    house.add(ADA)
    asked(house)
    house.clock.advance(61)
    spent(house)
    code, link = house.mailbox.latest_code(ADA), link_of(house.mailbox.to(ADA)[0].text)
    door = stranger(house, 9)
    door.ask(ADA)
    only = link_of(newest(house).text)
    long = long_code_in(house.door().post("/link", token=only).text)
    files = b"".join(path.read_bytes() for path in tmp_path.glob("vestibule.db*"))
    text = repr(snapshot(house.db))
    assert digest(door.cookie("signin")) in text  # the search below does see hashes
    for secret in (link, only, long, door.cookie("signin"), SECRET):
        assert secret not in text and secret.encode() not in files
    assert not re.search(rf"(?<!\w){code}(?!\w)", text)
    # Trying all codes finds a hash only where the one of the right code is.
    values = {str(v) for row in house.rows("challenges") for v in row.values()} | {"", ADA}
    for secret in (code, long, link, only):
        for raw in hashes(secret, values):
            assert raw.hex() not in text and raw not in files
            assert base64.b64encode(raw).decode().rstrip("=") not in text
            assert base64.urlsafe_b64encode(raw).decode().rstrip("=") not in text


def hashes(secret, beside):
    """The hashes of a secret that need no key, alone or with what lies beside it."""
    for name in ("md5", "sha1", "sha224", "sha256", "sha512", "blake2b", "sha3_256"):
        for salt in beside:
            for text in (secret + salt, salt + secret, f"{salt}:{secret}", f"{secret}\0{salt}"):
                yield hashlib.new(name, text.encode()).digest()
            yield hmac.digest(salt.encode(), secret.encode(), name)


# ---- V33: whose code it is
def gone(house, act):
    """What an admin does to ada."""
    people, user = house.auth.people, house.auth.people.by_address(ADA)
    if act == "disabled":
        people.disable(None, user.id, Source())
    elif act == "disabled and enabled":
        people.disable(None, user.id, Source())
        people.enable(None, user.id, Source())
    else:
        people.delete(None, user.id, Source())
    if act == "deleted and added":
        house.add(ADA)


@pytest.mark.parametrize(
    "act", ["disabled", "disabled and enabled", "deleted", "deleted and added"]
)
def test_V33_what_was_mailed_before_is_dead_afterwards(house, ada, act):
    by_code, code, _ = asked(house)
    by_link, _, link = asked(house, n=1)
    unsent = stranger(house, 2)
    unsent.ask(ada)
    gone(house, act)
    sent = len(house.mailbox.messages)
    house.outbox.drain()
    assert len(house.mailbox.messages) == sent
    assert by_code.enter(code).status_code == 410
    assert by_link.post("/link", token=link).status_code == 422
    assert not entered(by_code) and not entered(by_link) and live_sessions(house) == 0
    fresh = stranger(house, 3)
    fresh.ask(ada)
    assert refused(fresh.enter(code), fresh.post("/link", token=link))
    assert not entered(fresh) and live_sessions(house) == 0


def test_V33_a_code_belongs_to_the_address_it_was_mailed_to(house, ada):
    """As if the person's address had changed under it; and as if the sign-in's had."""
    door, code, link = asked(house)
    house.db.q("update users set address = :new where address = :old", new=EVE, old=ada)
    assert WRONG in door.enter(code).text and refused(door.post("/link", token=link))
    house.db.q("update challenges set address = :new", new=EVE)
    assert WRONG in door.enter(code).text and refused(door.post("/link", token=link))
    assert not entered(door) and live_sessions(house) == 0
    house.db.q("update users set address = :old where address = :new", new=EVE, old=ada)
    house.db.q("update challenges set address = :old", old=ada)
    assert door.enter(code).status_code == 303 and entered(door)  # nothing else was amiss
