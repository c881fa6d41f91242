"""Attacks on the browsers that we know: the device cookie copied, guessed, worn out, planted."""

import hashlib
import re
import secrets
import time
from http.cookies import SimpleCookie

import pytest

from auth.events import Source
from auth.known import Browser
from tests.attacks.test_d_browser import cookies_set, fill, plant, send, snapshot, walk
from tests.conftest import ADMIN
from tests.serving import Tab, together

DAY = 86400
NAME = "__Host-device"
BOB = "bob@example.org"
ENDED = "A browser is no longer known"
NEW = "New sign-in"


@pytest.fixture
def bob(house):
    return house.add(BOB).address


@pytest.fixture
def known(house, ada):
    """A browser in which Ada signed in two minutes ago and is signed out again."""
    door = house.door()
    door.sign_in(ada)
    door.post("/logout")
    house.clock.advance(120)
    return door


# ---- what several tests do
def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def devices(house):
    return {row["id"]: row for row in house.rows("devices")}


def device_of(door):
    """(selector, verifier) in a browser's cookie."""
    cookie = door.cookie("device")
    return cookie[:32], cookie[32:]


def with_device(house, cookie, **more):
    """A thief's browser that has this cookie and no other."""
    door = house.door(**more)
    carry(door, cookie)
    return door


def carry(door, cookie):
    door.client.cookies.set(NAME, cookie, domain="vestibule.test")


def forged(cookie):
    """The right selector with another verifier."""
    return cookie[:32] + secrets.token_urlsafe(32)


def lane(house, door):
    """The device that this browser's sign-in counts for; "" for a browser that we don't know."""
    own = sha(door.cookie("signin"))
    return next(row["device"] for row in house.rows("challenges") if row["browser"] == own)


def events(house, kind="authn_device_ended"):
    return [row for row in house.rows("events") if row["kind"] == kind]


def subjects(house, address):
    """Of the notices to a person; codes are not what these tests are about."""
    house.outbox.drain()
    return [m.subject for m in house.mailbox.to(address) if not m.subject.startswith("Your ")]


def is_known(house, door, address):
    """Does asking for this address count for the browser's device?"""
    assert door.ask(address).status_code == 303
    return lane(house, door) == device_of(door)[0]


# ---- the cookie
def test_G11_the_cookie_is_opaque_and_flagged(house, ada):
    door = house.door()
    door.ask(ada)
    assert door.cookie("device") is None  # asking makes nobody known
    answer = door.enter(door.read_code())
    [(value, flags)] = [(v, f) for name, v, f in cookies_set(answer) if name == NAME]
    assert re.fullmatch(r"[0-9a-f]{32}[A-Za-z0-9_-]{43}", value)
    assert {"secure", "httponly"} <= set(flags) and "domain" not in flags
    assert (flags["samesite"].lower(), flags["path"]) == ("lax", "/")
    assert int(flags["max-age"]) == 180 * DAY


def test_G11_the_link_makes_a_browser_known_too(house, ada):
    door = house.door()
    door.ask(ada)
    door.drain()
    token = re.search(r"/link#([A-Za-f]{78})", house.mailbox.to(ada)[-1].text)[1]
    assert house.door().post("/link", token=token).headers.get_list("set-cookie") == []
    assert devices(house) == {}
    assert NAME in str(door.post("/link", token=token).headers)
    assert list(devices(house)) == [device_of(door)[0]]


def test_G11_the_database_gives_no_device_away(house, ada, tmp_path):
    door = house.door()
    door.sign_in(ada)
    cookies = [door.cookie("device")]
    house.clock.advance(120)
    door.sign_in(ada)
    cookies.append(door.cookie("device"))
    stored = repr(snapshot(house.db)).encode()
    stored += b"".join(p.read_bytes() for p in tmp_path.glob("vestibule.db*"))
    for cookie in cookies:
        assert cookie[:32].encode() in stored and cookie[32:].encode() not in stored
    [row] = house.rows("devices")
    assert (row["previous"], row["verifier"]) == (sha(cookies[0][32:]), sha(cookies[1][32:]))
    # And what it does hold is no cookie.
    for value in (row["verifier"], row["previous"], row["verifier"][:43], row["user_id"]):
        thief = with_device(house, (row["id"] + value + "A" * 43)[:75])
        thief.ask(ada)
        assert lane(house, thief) == ""


# ---- never a session
def test_G11_a_device_alone_is_never_a_session(house, known, ada):
    house.add(BOB)
    cookie = known.cookie("device")
    selector, verifier = device_of(known)
    stranger, id = house.door(), house.auth.people.by_address(ada).id
    before = snapshot(house.db)
    seen = 0
    for path, methods in walk(house.app):
        url = fill(path, id)
        for headers in ({}, {"HX-Request": "true"}, {"Accept": "application/json"}):
            if "GET" in methods:
                thief = with_device(house, cookie)
                got, plain = thief.get(url, headers=headers), stranger.get(url, headers=headers)
                assert (got.status_code, got.headers.get("location")) == (
                    plain.status_code,
                    plain.headers.get("location"),
                ), url
                assert "set-cookie" not in got.headers and ada not in got.text
                seen += 1
            if "POST" in methods and path not in ("/create_code",):
                thief = with_device(house, cookie)
                form = {"code": "123456", "token": "A" * 78, "email": BOB, "role": "admin"}
                got = thief.post(url, headers=headers, **form)
                assert not any(value for _, value, _ in cookies_set(got)), url
                assert not thief.signed_in
    assert seen > 20
    for name in ("__Host-session", "session", "__Host-signin"):
        for value in (cookie, verifier, selector, cookie[-43:], cookie[:43]):
            thief = house.door()
            headers = plant(thief, f"{name}={value}; {NAME}={cookie}")
            assert thief.get("/dashboard", headers=headers).status_code == 303
    assert house.rows("sessions") == []
    unchanged = snapshot(house.db)
    for changed in ("counters", "outbox", "events"):
        before.pop(changed), unchanged.pop(changed)
    assert unchanged == before


def test_G11_a_device_with_the_wrong_code_is_no_session(house, known, ada):
    thief = with_device(house, known.cookie("device"))
    thief.ask(ada)
    assert lane(house, thief) == device_of(known)[0]
    code = thief.read_code()
    for n in range(1, 6):
        assert thief.enter(f"{(int(code) + n) % 10**6:06d}").status_code == 422
    assert not thief.signed_in and thief.cookie("session") is None


# ---- a copy
@pytest.mark.parametrize("when", ["asking", "resending a mail", "entering the code"])
def test_G11_a_wrong_verifier_ends_the_device_and_tells_its_owner(house, known, ada, when):
    selector, _ = device_of(known)
    thief = house.door(client="198.51.100.7")
    if when == "asking":
        carry(thief, forged(known.cookie("device")))
        assert thief.ask(ada).status_code == 303  # and nothing shows that it was noticed
        assert lane(house, thief) == ""
    else:
        thief.ask(ada)
        code = thief.read_code()
        carry(thief, forged(known.cookie("device")))
        if when == "resending a mail":  # which does not look at the device
            house.clock.advance(60)
            thief.post("/resend_code")
            assert list(devices(house)) == [selector] and events(house) == []
            return
        assert thief.enter(code).status_code == 303
        assert device_of(thief)[0] != selector
    assert selector not in devices(house)
    [event] = events(house)
    assert (event["subject"], event["network"]) == (ada, "198.51.100.0/24")
    assert any(subject.startswith(ENDED) for subject in subjects(house, ada))
    assert not is_known(house, known, ada)  # the copy and the original both


def test_G11_the_notice_of_an_ended_device_is_sent_once_a_day(house, ada):
    for hour, expected in ((0, 1), (1, 1), (2, 1), (25, 2)):
        house.clock.now = 1_800_000_000 + hour * 3600
        door = house.door()
        door.sign_in(ada)
        with_device(house, forged(door.cookie("device"))).ask(ada)
        assert device_of(door)[0] not in devices(house)
        assert sum(s.startswith(ENDED) for s in subjects(house, ada)) == expected, hour
    assert len(events(house)) == 4


def test_G11_an_ended_device_leaves_its_session_and_the_other_devices(house, ada):
    doors = [house.door() for _ in range(2)]
    for door in doors:
        door.sign_in(ada)
    with_device(house, forged(doors[0].cookie("device"))).ask(BOB)
    assert list(devices(house)) == [device_of(doors[1])[0]]
    assert all(door.signed_in for door in doors)


def test_G11_an_unknown_selector_ends_nothing_and_is_not_noted(house, known, ada):
    before = devices(house)
    selector, verifier = device_of(known)
    odd = [
        secrets.token_hex(16) + verifier,
        selector.upper() + verifier if selector.upper() != selector else "A" * 75,
        verifier + selector,
        selector + verifier[:-1],
        selector + verifier + "A",
        "%" * 75,
        "_" * 75,
        "0" * 75,
        "' or 1=1 --".ljust(32) + verifier,
        "",
    ]
    for cookie in odd:
        thief = house.door()
        headers = plant(thief, f"{NAME}={cookie}")
        assert thief.post("/create_code", headers=headers, email=ada).status_code == 303
        assert lane(house, thief) == "", cookie
    assert devices(house) == before and events(house) == []
    assert is_known(house, known, ada)


@pytest.mark.parametrize("byte", [b"\0", b"\x01", b"\x7f", b"\xff", b"\xc3\xa9"])
def test_G11_odd_bytes_in_the_cookie_are_no_fault_of_ours(house, known, ada, byte):
    for cookie in (byte * 75, (byte * 32)[:32] + b"A" * 43, b"0" * 31 + byte[:1] + b"A" * 43):
        raw = NAME.encode() + b"=" + cookie
        assert send(house, "POST", "/create_code", raw, b"email=ada%40example.org")[0] == 303
    assert len(devices(house)) == 1 and events(house) == []


# ---- rotation
def test_G11_each_sign_in_changes_the_verifier_and_nothing_else_does(house, ada):
    door = house.door()
    door.sign_in(ada)
    seen = [door.cookie("device")]
    for _ in range(3):
        house.clock.advance(120)
        door.get("/dashboard")
        door.get("/login")
        door.post("/logout")
        door.ask(ada)
        assert door.cookie("device") == seen[-1]
        door.enter(door.read_code())
        seen.append(door.cookie("device"))
    assert len(set(seen)) == 4 and len({cookie[:32] for cookie in seen}) == 1
    assert len(devices(house)) == 1 and events(house) == []


def test_G11_the_verifier_before_counts_for_a_minute_and_then_ends_the_device(house, known, ada):
    old = known.cookie("device")
    known.sign_in(ada)
    selector, new = device_of(known)
    assert old != selector + new
    for seconds, counts in ((0, True), (59, True), (1, False)):
        house.clock.advance(seconds)
        late = with_device(house, old)
        late.ask(ada)
        assert lane(house, late) == (selector if counts else ""), seconds
        assert (selector in devices(house)) == counts and bool(events(house)) != counts
    assert any(s.startswith(ENDED) for s in subjects(house, ada))


def test_G11_the_verifier_before_the_one_before_ends_the_device_at_once(house, known, ada):
    oldest = known.cookie("device")
    for _ in range(2):
        known.sign_in(ada)
        house.clock.advance(1)
    thief = with_device(house, oldest)
    thief.ask(ada)
    assert lane(house, thief) == "" and devices(house) == {} and len(events(house)) == 1


def test_G11_a_sign_in_with_the_verifier_before_does_not_turn_the_newer_out(house, known, ada):
    """Two at once: the browser keeps the cookie of whichever answer came last, and both must do."""
    old = known.cookie("device")
    late = with_device(house, old)
    late.ask(ada)
    code = late.read_code()
    known.sign_in(ada)
    newer = known.cookie("device")
    answer = late.enter(code)
    assert answer.status_code == 303
    assert late.cookie("device") == newer
    house.clock.advance(61)
    assert known.cookie("device") == newer and is_known(house, known, ada)
    assert events(house) == []


# ---- at once
def test_G11_of_two_who_saw_the_same_verifier_one_changes_it(house, known, ada):
    """Both looked before either of them wrote: the second must not turn the first one's cookie out."""
    rules, now = house.auth.signin.known, int(house.clock())
    browser = Browser(device=known.cookie("device"))
    seen, user = rules.check(browser, now), house.auth.people.by_address(ada)
    cookies = []
    for _ in range(2):
        with house.db.tx() as t:
            cookies.append(rules.remember(t, user, seen, browser, now))
    assert cookies[0][:32] == seen.id and cookies[1] == cookies[0] != browser.device
    house.clock.advance(61)
    assert is_known(house, with_device(house, cookies[0]), ada) and events(house) == []


def tab_with(servers, cookie=None):
    tab = Tab(*servers)
    if cookie:
        tab.cookies[NAME] = cookie
    return tab


def new_devices(answer):
    lines = answer.headers.get_list("set-cookie")
    return [m.value for line in lines for name, m in SimpleCookie(line).items() if name == NAME]


def test_G11_eight_at_once_with_one_cookie_end_nothing(serve, sink, build):
    servers = [serve(SMTP_PORT=sink.port, SIGNUP="open") for _ in range(2)]
    ada = "ada@example.org"
    first = tab_with(servers)
    first.post("/create_code", email=ada)
    first.post("/verify_code", code=sink.code(ada))
    cookie = first.cookies[NAME]
    house = build(clock=time.time, SIGNUP="open")
    for run in range(4):
        tabs = [tab_with(servers, cookie) for _ in range(8)]

        def start(i, tabs=tabs):
            return tabs[i].post("/create_code", at=i % 2, email=ada).status_code

        assert together(8, start) == [303] * 8
        rows = {row["browser"]: row for row in house.rows("challenges")}
        own = [rows[sha(tab.cookies["__Host-signin"])] for tab in tabs]
        assert {row["device"] for row in own} == {cookie[:32]}
        codes = [house.auth.signin.mail(row["id"])[1] for row in own]

        def enter(i, tabs=tabs, codes=codes):
            return tabs[i].post("/verify_code", at=i % 2, code=codes[i])

        answers = together(8, enter)
        assert [a.status_code for a in answers] == [303] * 8, run
        fresh = [value for answer in answers for value in new_devices(answer)]
        assert len(set(fresh)) == 1 and fresh[0][:32] == cookie[:32] and fresh[0] != cookie
        assert list(devices(house)) == [cookie[:32]] and events(house) == []
        cookie = fresh[0]
    assert {row["kind"] for row in house.rows("outbox")} == {"code"}  # nothing to tell Ada


def test_G11_eight_copies_at_once_end_the_device_once(serve, sink, build):
    servers = [serve(SMTP_PORT=sink.port, SIGNUP="open") for _ in range(2)]
    ada = "ada@example.org"
    first = tab_with(servers)
    first.post("/create_code", email=ada)
    first.post("/verify_code", code=sink.code(ada))
    cookie = first.cookies[NAME]
    tabs = [tab_with(servers, forged(cookie)) for _ in range(8)]
    answers = together(8, lambda i: tabs[i].post("/create_code", at=i % 2, email=ada).status_code)
    assert answers == [303] * 8
    house = build(SIGNUP="open")
    assert devices(house) == {} and len(events(house)) == 1
    assert sum(row["kind"] == "device_ended" for row in house.rows("outbox")) == 1


# ---- how long
def test_G11_a_browser_is_forgotten_180_days_after_its_last_sign_in(house, known, ada):
    house.clock.advance(180 * DAY - 121)
    assert is_known(house, known, ada)
    house.clock.advance(1)
    assert not is_known(house, known, ada)
    forged_one = with_device(house, forged(known.cookie("device")))
    forged_one.ask(ada)
    assert events(house) == []  # what has ended can't be ended
    house.auth.tidy()
    assert devices(house) == {}


def test_G11_each_sign_in_begins_the_180_days_anew(house, known, ada):
    for _ in range(3):
        house.clock.advance(170 * DAY)
        house.auth.tidy()
        known.sign_in(ada)
    assert len(devices(house)) == 1 and is_known(house, known, ada)


# ---- planted
@pytest.mark.parametrize(
    "form",
    [
        b"NAME=TOKEN; NAME=OTHER",
        b"NAME=OTHER; NAME=TOKEN",
        b"NAME=OTHER;NAME=TOKEN",
        b"NAME =OTHER; NAME=TOKEN",
        b"NAME=TOKEN; NAME\t=OTHER",
        b"a=1; NAME=TOKEN; b=2; NAME=OTHER; c",
        b"NAME=TOKEN; NAME=",
        b"NAME=TOKEN; NAME=TOKEN",
    ],
)
def test_G11_two_device_cookies_are_refused_and_end_nothing(house, known, ada, form):
    token = known.cookie("device")
    raw = form.replace(b"NAME", NAME.encode()).replace(b"TOKEN", token.encode())
    raw = raw.replace(b"OTHER", forged(token).encode())
    before = snapshot(house.db)
    for method, path in (("GET", "/login"), ("POST", "/create_code"), ("POST", "/verify_code")):
        assert send(house, method, path, raw, b"email=ada%40example.org")[0] == 400
    assert snapshot(house.db) == before


@pytest.mark.parametrize(
    "name",
    [b"device", b"__Secure-device", b"__host-device", b"\xa0__Host-device", b"__Host-device\x85"],
)
def test_G11_a_neighbours_cookie_is_not_the_device_cookie(house, known, ada, name):
    """A sibling domain could plant a spent one, and end the device with it."""
    for cookie in (known.cookie("device"), forged(known.cookie("device"))):
        raw = name + b"=" + cookie.encode()
        assert send(house, "POST", "/create_code", raw, b"email=ada%40example.org")[0] == 303
    assert {row["device"] for row in house.rows("challenges") if not row["used_at"]} == {""}
    assert len(devices(house)) == 1 and events(house) == []


# ---- whose it is
def test_G11_one_persons_device_is_nothing_for_another_person(house, known, ada, bob):
    before = devices(house)
    assert not is_known(house, known, bob) and lane(house, known) == ""
    assert not is_known(house, known, "nobody@example.org") and lane(house, known) == ""
    assert devices(house) == before and events(house) == []
    assert is_known(house, known, ada)


def test_G11_when_another_person_signs_in_the_browser_is_theirs(house, known, ada, bob):
    old = known.cookie("device")
    known.sign_in(bob)
    assert device_of(known)[0] != old[:32] and list(devices(house)) == [device_of(known)[0]]
    assert is_known(house, known, bob) and not is_known(house, known, ada)
    thief = with_device(house, old)
    thief.ask(ada)
    assert lane(house, thief) == "" and events(house) == []


# ---- the end
def test_G11_signing_out_everywhere_ends_every_device(house, ada, bob):
    doors = [house.door() for _ in range(3)]
    for door in doors:
        door.sign_in(ada)
    other = house.door()
    other.sign_in(bob)
    kept = doors[0].cookie("device")
    answer = doors[0].post("/logout_everywhere")
    assert (NAME, "") in {(name, value) for name, value, _ in cookies_set(answer)}
    assert doors[0].cookie("device") is None
    assert list(devices(house)) == [device_of(other)[0]]
    thief = with_device(house, kept)
    thief.ask(ada)
    assert lane(house, thief) == "" and not is_known(house, doors[1], ada)
    assert events(house) == []  # the owner did it: no alarm


def test_G11_signing_out_of_one_browser_keeps_it_known(house, ada):
    door = house.door()
    door.sign_in(ada)
    cookie = door.cookie("device")
    assert NAME not in {name for name, _, _ in cookies_set(door.post("/logout"))}
    assert door.cookie("device") == cookie and is_known(house, door, ada)


@pytest.mark.parametrize("act", ["disable", "delete"])
def test_G11_the_disabled_and_the_deleted_have_no_device(house, known, ada, bob, act):
    other = house.door()
    other.sign_in(bob)
    people = house.auth.people
    id = people.by_address(ada).id
    getattr(people, act)(None, id, Source())
    assert list(devices(house)) == [device_of(other)[0]]
    known.ask(ada)
    assert lane(house, known) == ""
    if act == "disable":
        people.enable(None, id, Source())
    else:
        house.add(ada)  # a new person, who never was here
    house.clock.advance(60)
    known.ask(ada)
    assert lane(house, known) == "" and events(house) == []
    cookie = known.cookie("device")
    known.enter(known.read_code())
    assert known.signed_in and device_of(known)[0] != cookie[:32]


# ---- the notice of a new browser
def test_G11_the_first_browser_is_no_news_and_a_second_one_is(house, ada):
    first = house.door()
    first.sign_in(ada)
    assert subjects(house, ada) == []
    house.clock.advance(120)
    first.sign_in(ada)  # the same browser again
    assert subjects(house, ada) == []
    second = house.door()
    second.sign_in(ada)
    told = subjects(house, ada)
    assert len(told) == 1 and told[0].startswith(NEW)
    house.clock.advance(120)
    second.sign_in(ada)
    assert len(subjects(house, ada)) == 1


def test_G11_news_of_new_browsers_are_sent_once_a_day(house, ada):
    house.door().sign_in(ada)
    start = house.clock.now
    for seconds, expected in ((60, 1), (3600, 1), (DAY + 59, 1), (DAY + 60, 2), (DAY + 61, 2)):
        house.clock.now = start + seconds
        house.door().sign_in(ada)
        assert len(subjects(house, ada)) == expected, seconds


def test_G11_the_notice_tells_when_and_has_nothing_to_click(house, ada):
    house.door().sign_in(ada)
    house.clock.advance(3600)
    door = house.door(client="203.0.113.9")
    door.ask(ada)
    door.enter(door.read_code(), timezone="Asia/Kolkata")
    house.clock.advance(900)  # the mail server was away
    house.outbox.drain()
    letter = house.mailbox.to(ada)[-1]
    assert letter.subject.startswith(NEW)
    for part in (letter.text, letter.html):
        assert "15 Jan 2027, 14:30 (Asia/Kolkata)" in " ".join(part.split())
        assert "href" not in part and "/link" not in part
        assert not re.search(r"[0-9]{6}", part) and "203.0.113" not in part


def test_G11_the_notice_of_an_ended_device_tells_when_it_happened(house, known, ada):
    with_device(house, forged(known.cookie("device"))).ask(ada)
    house.clock.advance(900)  # the mail server was away
    house.outbox.drain()
    letter = next(m for m in house.mailbox.to(ada) if m.subject.startswith(ENDED))
    for part in (letter.text, letter.html):
        assert "15 Jan 2027, 08:02 (UTC)" in " ".join(part.split())
        assert "href" not in part and not re.search(r"[0-9]{6}", part)


def test_G11_one_persons_news_are_not_anothers(house, ada, bob):
    house.door().sign_in(ada)
    house.door().sign_in(bob)
    house.clock.advance(60)
    house.door().sign_in(ada)
    assert len(subjects(house, ada)) == 1 and subjects(house, bob) == []
    house.door().sign_in(bob)
    assert len(subjects(house, bob)) == 1 and subjects(house, ADMIN) == []


def test_G11_a_browser_that_was_forgotten_is_news(house, known, ada):
    known.sign_in(ada)
    known.post("/logout_everywhere")
    house.clock.advance(60)
    known.sign_in(ada)
    assert [s for s in subjects(house, ada) if s.startswith(NEW)] != []


def test_G11_signing_out_everywhere_does_not_hush_the_news(house, ada):
    """Whoever reads the mailbox could sign in, sign out everywhere, and the owner would hear nothing."""
    house.door().sign_in(ada)
    house.clock.advance(3600)
    thief = house.door(client="198.51.100.7")
    thief.sign_in(ada)
    thief = house.door(client="198.51.100.7")
    house.clock.advance(DAY)
    thief.ask(ada)
    code = thief.read_code()
    told = len(subjects(house, ada))
    thief.enter(code)
    thief.post("/logout_everywhere")  # before the mail leaves
    assert len(subjects(house, ada)) == told + 1


def test_G11_who_was_disabled_or_deleted_hears_no_more(house, ada):
    people = house.auth.people
    for act in ("disable", "delete"):
        house.door().sign_in(ada)
        house.clock.advance(DAY + 60)
        door = house.door()
        door.ask(ada)
        door.enter(door.read_code())
        told = len(subjects(house, ada))
        house.clock.advance(DAY + 60)
        door = house.door()
        door.ask(ada)
        code = door.read_code()
        door.enter(code)
        id = people.by_address(ada).id
        getattr(people, act)(None, id, Source())
        assert len(subjects(house, ada)) == told
        if act == "disable":
            people.enable(None, id, Source())
