"""Attacks that bring patience and many addresses: guessing over many codes, at many accounts, on twin paths."""

import ast
import re
from functools import cache

import pytest

from auth.events import LIMIT_REACHED, Source
from auth.known import Browser
from auth.policy import DAY, HOUR, Refused
from auth.typed import tidy_long_code
from tests.attacks.test_a_code import live_sessions, wrong
from tests.conftest import DEFAULT
from tests.serving import ROOT, Tab, together
from tests.sink import code_in, parsed

ADA = "ada@example.org"
STRANGERS = ("198.51.100.7", "203.0.113.9", "192.0.2.77", "198.18.4.1")  # four networks
SITE = "wrong codes of the whole site"
ACCOUNT = "wrong codes of one account"


def watch(house):
    """What is compared with a code from now on: one entry a comparison, whoever types what and where."""
    compared, keys = [], house.auth.keys

    class Expected(str):
        def encode(self, *how):
            compared.append(str(self))
            return super().encode(*how)

    for name in ("code", "long_code"):
        derive = getattr(keys, name)
        setattr(keys, name, lambda *parts, derive=derive: Expected(derive(*parts)))
    return compared


def written(letter):
    return f"{letter.subject}\n{letter.text}\n{letter.html}"


def link_of(text):
    """The secret behind the # of the URL in a mail."""
    return re.search(r"/link#([A-Za-z]+)", text)[1]


def newest(house, address=ADA):
    """The newest mail to sign in with; notices leave after it."""
    house.outbox.drain()
    return [letter for letter in house.mailbox.to(address) if "/link#" in letter.text][-1]


def inside(door):
    """Is it signed in? Asked without htmx, for which a refusal is a 200, too."""
    return door.get("/dashboard", headers={"HX-Request": "false"}).status_code == 200


def has_code(letter):
    return re.search(r"\d{6}", written(letter)) is not None


def unknown(house, client="192.0.2.1", address=ADA, htmx=False):
    """A browser that was never here, a moment later, which asks for a mail."""
    house.clock.advance(61)
    door = house.door(htmx, client)
    assert door.ask(address).status_code in (200, 303)
    return door


def guess(house, door, times=5):
    code = door.read_code()
    return [door.enter(wrong(code, n + 1)) for n in range(times)]


def spend(house, challenges=4, address=ADA):
    """Five wrong codes for each of some challenges, each from another network."""
    for n in range(challenges):
        answers = guess(house, unknown(house, STRANGERS[n % 4], address))
        assert [a.status_code for a in answers] == [422] * 5
        assert "not right" in answers[-1].text


def shown_elsewhere(house, address=ADA):
    """What the newest link shows in a browser that did not ask."""
    answer = house.door().post("/link", token=link_of(newest(house, address).text))
    assert answer.status_code == 200
    return re.search(r'class="shown"[^>]*>([A-Z2-7]+)<', answer.text)[1]


def reached(house, what):
    return [e for e in house.rows("events") if e["kind"] == LIMIT_REACHED and e["detail"] == what]


@pytest.fixture
def street(build):
    """A house with the limits that nobody has set, and ada in it."""
    house = build(**DEFAULT)
    house.add(ADA)
    return house


# ---- A14: many codes of one account
@pytest.mark.parametrize("htmx", [False, True])
def test_A14_after_twenty_wrong_codes_the_mail_has_a_link_and_no_code(street, htmx):
    compared = watch(street)
    spend(street)
    assert len(compared) == 20
    door = unknown(street, htmx=htmx)
    letter = newest(street)
    assert not has_code(letter) and "/link#" in letter.text and "/link#" in letter.html
    page = door.get("/verify_code", headers={"HX-Request": "false"})
    assert "12 letters and digits" in page.text and "6-digit" not in page.text
    answers = [door.enter(f"{n:06d}") for n in range(0, 1_000_000, 100_000)]
    assert {a.status_code for a in answers} == {422}
    assert all("switched off" in a.text for a in answers)
    row = street.db.q("select * from challenges where link_only = 1")[0]
    six = str(street.auth.keys.code(row["key_id"], "sign-in", row["nonce"], ADA, 0, 6))
    assert door.enter(six).status_code == 422  # it was never mailed, and it would not count
    assert len(compared) == 20 and live_sessions(street) == 0
    door.post("/link", token=link_of(letter.text))
    assert inside(door)


def test_A14_codes_that_were_mailed_before_are_compared_with_nothing(street):
    owner = unknown(street)
    code, link = owner.read_code(), link_of(newest(street).text)
    compared = watch(street)
    spend(street)
    assert len(compared) == 20
    answers = [owner.enter(code), owner.enter(wrong(code)), owner.enter(code)]
    assert [a.status_code for a in answers] == [422] * 3
    assert "switched off" in answers[0].text
    assert len(compared) == 20 and not inside(owner)
    owner.post("/link", token=link)
    assert inside(owner)


def test_A14_a_browser_that_was_here_before_still_gets_a_code(street):
    known = street.door()
    known.sign_in(ADA)
    known.post("/logout")
    spend(street)
    street.clock.advance(61)
    known.ask(ADA)
    code = known.read_code()
    assert "4 tries left" in known.enter(wrong(code)).text
    assert known.enter(code).status_code == 303 and inside(known)
    known.post("/logout")
    unknown(street)
    assert not has_code(newest(street))  # and that sign-in has reset nothing


def test_A14_the_device_cookie_of_somebody_else_is_no_known_browser(street):
    street.add("eve@example.org")
    eve = street.door()
    eve.sign_in("eve@example.org")
    eve.post("/logout")
    spend(street)
    street.clock.advance(61)
    eve.ask(ADA)
    assert not has_code(newest(street))


def test_A14_wrong_codes_of_a_known_browser_are_its_own(street):
    known = street.door()
    known.sign_in(ADA)
    known.post("/logout")
    compared = watch(street)
    for _ in range(4):
        street.clock.advance(61)
        known.ask(ADA)
        guess(street, known)
    street.clock.advance(61)
    known.ask(ADA)
    assert not has_code(newest(street))  # twenty are the end here, too
    assert known.enter("000000").status_code == 422 and len(compared) == 20
    other = unknown(street)  # and they cost a new browser nothing
    assert other.enter(other.read_code()).status_code == 303


@pytest.mark.parametrize("way", ["code", "link"])
def test_A14_neither_a_success_of_the_owner_nor_new_codes_bring_tries_back(street, way):
    spend(street, 3)
    for _ in range(3):  # codes that nobody tries, and sign-ins that work
        street.clock.advance(HOUR)
        unknown(street)
        street.clock.advance(HOUR)
        owner = unknown(street)
        if way == "code":
            assert owner.enter(owner.read_code()).status_code == 303
        else:
            owner.post("/link", token=link_of(newest(street).text))
        assert inside(owner)
    street.clock.advance(HOUR)
    spend(street, 1)
    unknown(street)
    assert not has_code(newest(street))


def test_A14_a_new_mail_for_the_same_sign_in_brings_no_tries_back(street):
    spend(street, 3)
    door = unknown(street)
    guess(street, door)
    street.clock.advance(60)
    assert door.post("/resend_code").status_code == 200
    assert not has_code(newest(street))
    compared = watch(street)
    assert "switched off" in door.enter("123456").text and not compared


def code_of(house, row):
    """The code of a challenge, as only we could know it."""
    c = [row[name] for name in ("key_id", "purpose", "nonce", "address", "generation")]
    return house.auth.keys.code(*c, 6)


def test_A14_a_code_that_no_mail_could_leave_for_is_no_code(street):
    """Every five guesses cost the attacker one mail, which the owner sees, or they are worth nothing."""
    unknown(street).read_code()
    mute = street.door(client=STRANGERS[0])
    mute.ask(ADA)  # the second within a minute
    (row,) = [row for row in street.rows("challenges") if not row["mails"]]
    answer = mute.enter(code_of(street, row))
    assert (answer.status_code, mute.signed_in) == (422, False) and "not right" in answer.text
    street.clock.advance(60)
    mute.post("/resend_code")
    assert mute.enter(mute.read_code()).status_code == 303 and mute.signed_in


def test_A14_nor_is_the_next_code_of_a_sign_in_before_its_mail(street):
    owner = unknown(street)
    guess(street, owner)
    street.clock.advance(60)
    street.door(client=STRANGERS[0]).ask(ADA)  # the minute's mail is gone
    owner.post("/resend_code")
    (now,) = [row for row in street.rows("challenges") if row["generation"] == 1]
    assert owner.enter(code_of(street, now)).status_code == 422 and not owner.signed_in


def test_A14_codes_come_back_after_a_day(street):
    began = street.clock.now
    spend(street)
    street.clock.now = began + DAY + 60
    unknown(street)
    # A window begins with the first wrong code, which came a minute after `began`.
    door = unknown(street)
    assert has_code(newest(street)) and door.enter(door.read_code()).status_code == 303


def test_A14_fifty_in_thirty_days_last_until_these_are_over(street):
    compared, began = watch(street), street.clock.now
    for challenges in (4, 4, 2):
        spend(street, challenges)
        street.clock.advance(DAY + HOUR)
    assert len(compared) == 50
    for day in (4, 11, 20, 29):
        street.clock.now = began + day * DAY
        door = unknown(street)
        assert not has_code(newest(street)), day
        assert "switched off" in door.enter("123456").text and len(compared) == 50
    street.clock.now = began + 30 * DAY + 120
    door = unknown(street)
    assert door.enter(door.read_code()).status_code == 303


def test_A14_at_any_speed_twenty_are_compared(serve, sink):
    servers = [serve(SMTP_PORT=sink.port, SIGNUP="open", **STRICT) for _ in range(2)]
    tabs = []
    for n in range(8):
        tab = Tab(*servers)
        tab.post("/create_code", email=ADA)
        tabs.append((tab, sink.code(ADA, n + 1)))

    def attempt(i):
        tab, code = tabs[i % 8]
        headers, fields = {"Sec-Fetch-Site": "same-origin"}, {"code": wrong(code, i + 1)}
        return tab.send("POST", "/verify_code", i % 2, headers, keep=False, data=fields).text

    answers = together(40, attempt)
    assert sum("not right" in a for a in answers) == 20
    refused = sum("switched off" in a or "too many wrong codes" in a for a in answers)
    assert refused == 20
    for tab, code in tabs:
        # Off for all; or, where five of the twenty went into one code, that one is used up.
        assert tab.post("/verify_code", code=code).status_code in (422, 429)
        assert not tab.signed_in


STRICT = {"LIMIT_WRONG_PER_ACCOUNT": "20/24h,50/30d"}


@pytest.mark.parametrize(
    "typed",
    [
        lambda c: c,
        str.lower,
        lambda c: f" {c[:4]} {c[4:8]} {c[8:]}\r\n",
        lambda c: f"{c[:4]}-{c[4:8]}–{c[8:]}",
        lambda c: c.replace("O", "0").replace("I", "1").replace("B", "8"),
        lambda c: "".join(chr(ord(x) + 0xFEE0) for x in c),  # full width
    ],
    ids=["as shown", "small", "spaces", "dashes", "0 1 8", "full width"],
)
def test_A14_what_the_link_shows_elsewhere_works_once_where_it_was_asked_for(street, typed):
    spend(street)
    door = unknown(street)
    token = door.cookie("signin")
    code = shown_elsewhere(street)
    assert len(code) == 12
    stranger = unknown(street, STRANGERS[0])
    assert stranger.enter(code).status_code == 422 and not inside(stranger)
    assert door.enter(typed(code)).status_code == 303 and inside(door)
    again = street.door()
    again.client.cookies.set("__Host-signin", token)
    assert again.enter(code).status_code == 410 and not inside(again)


def test_A14_0_1_and_8_are_read_as_the_letters_that_they_look_like():
    assert tidy_long_code("oib0-18AB cdEF") == "OIBOIBABCDEF"
    assert tidy_long_code("2345 67ZZ ZZZZ") == "234567ZZZZZZ"
    for no in ("", "ABCDEFGHIJK", "ABCDEFGHIJKLM", "ABCDEFGHIJK9", "ABCDEFGHIJKÄ", "A" * 101):
        assert tidy_long_code(no) is None, no


def test_A14_five_tries_at_the_twelve_characters(street):
    spend(street)
    door = unknown(street)
    code = shown_elsewhere(street)
    compared = watch(street)
    for free in ("", "ABC", "ABCDEFGHIJK9", "123456", "1234567"):  # what can't be it costs no try
        assert door.enter(free).status_code == 422
    assert compared == []
    wrongs = [("A" if code[0] != "A" else "B") + code[1:n] + "C" * (12 - n) for n in range(2, 7)]
    answers = [door.enter(w) for w in wrongs]
    assert [a.status_code for a in answers] == [422] * 5
    assert "4 tries left" in answers[0].text and "last try" in answers[4].text
    assert door.enter(code).status_code == 429
    assert len(compared) == 5 and not inside(door)
    door.post("/link", token=link_of(newest(street).text))  # which can't be guessed
    assert inside(door)


def test_A14_the_owner_is_never_locked_out(street):
    """Also on a browser that was never here, and by a mail that comes after all of them."""
    for day in range(4):
        street.clock.now = street.clock.now // DAY * DAY + DAY
        if day < 2:
            spend(street)
        owner = unknown(street)
        owner.post("/link", token=link_of(newest(street).text))
        assert inside(owner)


def test_A14_the_spent_account_is_told_once(street):
    spend(street)
    for _ in range(2):
        unknown(street).enter("123456")
    assert [e["subject"] for e in reached(street, ACCOUNT)] == [ADA]


# ---- A15: one code of each of many accounts
def rain(house, addresses, clients, seconds=3000):
    """One wrong guess at each address, from as many clients, within an hour: the answers' reasons."""
    rules, reasons = house.auth.signin, []
    for n in range(addresses):
        c = n % clients
        source = Source(f"10.{c // 250}.{c % 250}.0/24", "", f"10.{c // 250}.{c % 250}.9/32")
        token, _ = rules.create_code(f"person{n}@example.net", "/", Browser(source=source))
        try:
            rules.verify_code("123456", "", Browser(token, source=source))
        except Refused as refused:
            reasons.append(refused.reason)
        house.clock.advance(seconds / addresses)
    return reasons


def test_A15_one_guess_at_each_of_a_thousand_accounts_stops_after_a_hundred(street):
    known = street.door()
    known.sign_in(ADA)
    known.post("/logout")
    compared, began = watch(street), street.clock.now
    reasons = rain(street, 1000, 500)
    assert len(compared) <= 101 and len(reasons) == 1000
    assert set(reasons[101:]) == {"code_off"} and set(reasons[:100]) == {"code_wrong"}
    assert street.clock.now < began + HOUR
    assert [e["subject"] for e in reached(street, SITE)] == [""]

    # A browser that we don't know: a link, which works.
    door = unknown(street)
    assert not has_code(newest(street))
    spent = len(compared)
    assert "switched off" in door.enter("123456").text and len(compared) == spent
    door.post("/link", token=link_of(newest(street).text))
    assert inside(door)

    # One that we know: nothing has changed for it.
    street.clock.advance(61)
    known.ask(ADA)
    code = known.read_code()
    assert "4 tries left" in known.enter(wrong(code)).text
    assert known.enter(code).status_code == 303

    # It cools down by itself, and has been said once.
    street.clock.now = began + HOUR
    door = unknown(street)
    assert door.enter(door.read_code()).status_code == 303
    assert len(reached(street, SITE)) == 1


def test_A15_a_code_that_was_on_its_way_is_refused_and_its_link_signs_in(build):
    house = build(**DEFAULT | {"LIMIT_WRONG_FLEET": "10/1h"})
    house.add(ADA)
    door = unknown(house)
    code, link = door.read_code(), link_of(newest(house).text)
    assert rain(house, 12, 12, seconds=60).count("code_off") == 2
    compared = watch(house)
    assert "switched off" in door.enter(code).text and not compared
    door.post("/link", token=link)
    assert inside(door)


def test_A15_wrong_codes_of_known_browsers_do_not_count(build):
    house = build(**DEFAULT | {"LIMIT_WRONG_FLEET": "3/1h"})
    house.add(ADA)
    known = house.door()
    known.sign_in(ADA)
    known.post("/logout")
    house.clock.advance(61)
    known.ask(ADA)
    assert "last try" in guess(house, known)[-1].text
    door = unknown(house)
    assert door.enter(door.read_code()).status_code == 303
    assert reached(house, SITE) == []


@pytest.mark.parametrize(
    ("limit", "what"), [("LIMIT_WRONG_FLEET", SITE), ("LIMIT_WRONG_PER_ACCOUNT", ACCOUNT)]
)
def test_A15_right_codes_ring_no_alarm_and_wrong_ones_ring_it_once(build, limit, what):
    house = build(**DEFAULT | {limit: "3/1h"})
    house.add(ADA)
    guess(house, unknown(house), 2)
    for _ in range(2):
        door = unknown(house)
        assert door.enter(door.read_code()).status_code == 303
    assert reached(house, what) == []  # two are spent, and codes are on
    answers = guess(house, unknown(house), 3)
    assert "not right" in answers[0].text and "switched off" in answers[1].text
    assert len(reached(house, what)) == 1


# ---- A10: no twin path with a counter of its own, or none
def calls(tree, dotted):
    """(function, call) for each call of a name, with the function that it is written in."""
    found = []

    def walk(node, function):
        for child in ast.iter_child_nodes(node):
            inside = (
                child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
            )
            if isinstance(child, ast.Call) and ast.unparse(child.func) == dotted:
                found.append((function, child))
            walk(child, inside)

    walk(tree, None)
    return found


@cache
def sources():
    folders = [ROOT / "auth", ROOT / "utils", ROOT / "templates"]
    files = [*ROOT.glob("*.py"), *(p for f in folders for p in f.rglob("*.py"))]
    return {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text()) for p in files}


def where(dotted):
    return sorted(
        (file, f.name) for file, tree in sources().items() for f, _ in calls(tree, dotted)
    )


def test_A10_sessions_begin_in_one_place_after_a_challenge_was_consumed():
    assert where("sessions.start") == [("auth/arriving.py", "_begin_here")]
    assert where("sessions.start_app") == [("auth/arriving.py", "_begin_app")]
    begins = ("self._begin_app", "self._begin_here")
    assert [where(begin) for begin in begins] == [[("auth/arriving.py", "_admit")]] * 2
    assert where("self._admit") == [
        ("auth/apps.py", "_reviewed"),
        ("auth/codes.py", "verify_code"),
        ("auth/links.py", "open_link"),
    ]
    # By no other name, and by no SQL of somebody's own.
    for file, tree in sources().items():
        imported = [
            n.name
            for i in ast.walk(tree)
            if isinstance(i, ast.ImportFrom) and i.module == "auth.sessions"
            for n in i.names
        ]
        assert not {"start", "start_app", "*"} & set(imported), file
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
        inserts = [t for t in texts if isinstance(t, str) and re.search(r"into\s+sessions\b", t)]
        assert bool(inserts) == (file == "auth/sessions.py"), file
    arriving = sources()["auth/arriving.py"]
    ((admit, here), (_, app)) = [found for b in begins for found in calls(arriving, b)][::-1]
    ((_, consume),) = calls(admit, "challenges.consume")
    (block,) = (n for n in ast.walk(admit) if isinstance(n, ast.With))
    assert ast.unparse(block.items[0]) == "self.db.tx() as t"
    within = list(ast.walk(block))
    assert {here, app, consume} <= set(within) and consume.lineno < min(here.lineno, app.lineno)
    # Nothing taken: nothing begins.
    (refusing,) = (n for n in within if isinstance(n, ast.If) and consume in list(ast.walk(n.test)))
    assert isinstance(refusing.body[-1], ast.Raise)


def test_A10_six_digits_are_compared_in_one_place_after_they_were_counted():
    assert where("self._spend") == [("auth/codes.py", "_guessed")]
    assert where("self.limits.guess") == [("auth/codes.py", "_guessed")]
    assert where("challenges.spend") == [("auth/codes.py", "_spend")]
    for file, tree in sources().items():
        for function, call in calls(tree, "same"):
            compared = {ast.unparse(argument) for argument in call.args}
            # A link's secret, and a reviewer's twelve characters, are not guessed at.
            if compared & {"code", "expected"} and function.name not in ("_by_link", "_reviewed"):
                assert (file, function.name) == ("auth/codes.py", "_guessed")
    assert where("self._guessed") == [
        ("auth/codes.py", "verify_code"),
        ("auth/moving.py", "_right"),
    ]
    # What begins in the browser begins there, too.
    assert where("auth.admit") == [
        ("auth/routes.py", "open_link"),
        ("auth/routes.py", "verify_code"),
    ]


def test_A10_no_route_opens_a_session_without_a_challenge(house, ada):
    paths = {(r.path, m) for r in house.app.routes for m in getattr(r, "methods", None) or ()}
    assert ("/verify_code", "POST") in paths and ("/link", "POST") in paths and len(paths) > 15
    fields = {
        "email": ada,
        "code": "123456",
        "token": "a" * 78,
        "timezone": "UTC",
        "role": "user",
        "next": "/dashboard",
        "id": house.rows("users")[0]["id"],
    }
    for path, method in sorted(paths):
        filled = re.sub(r"\{[^}]*\}", fields["id"], path)
        door = house.door()
        headers = {"Sec-Fetch-Site": "same-origin"}
        answer = door.client.request(method, filled, data=fields, headers=headers)
        assert "session=" not in answer.headers.get("set-cookie", "").replace("session=;", "")
        assert live_sessions(house) == 0, path


WAYS = ["form", "htmx", "link"]


def begin(house, way):
    """(browser, what to type, what is wrong) on each of the ways in; "link" is what a link shows."""
    if way == "link":
        guess(house, unknown(house), 1)
    door = unknown(house, htmx=way == "htmx")
    right = shown_elsewhere(house) if way == "link" else door.read_code()
    return door, right, lambda n: wrong_of(right, n)


def wrong_of(code, n):
    if code.isdigit():
        return wrong(code, n)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    value = sum(32**i * letters.index(c) for i, c in enumerate(code)) + n
    return "".join(letters[value // 32**i % 32] for i in range(12))


def on(build, way, **more):
    house = build(**more | ({"LIMIT_WRONG_PER_ACCOUNT": "1/24h"} if way == "link" else {}))
    house.add(ADA)
    return house


@pytest.mark.parametrize("way", WAYS)
def test_A10_A1_five_guesses_on_each_way_in(build, way):
    house = on(build, way)
    door, right, bad = begin(house, way)
    compared = watch(house)
    assert [door.enter(bad(n + 1)).status_code for n in range(5)] == [422] * 5
    assert door.enter(right).status_code == 429
    assert len(compared) == 5 and not inside(door) and live_sessions(house) == 0


@pytest.mark.parametrize("way", WAYS)
def test_A10_A6_what_was_used_is_used_on_every_way(build, way):
    house = on(build, way)
    door, right, _ = begin(house, way)
    link, jar = link_of(newest(house).text), dict(door.client.cookies)
    door.enter(right)
    assert inside(door) and live_sessions(house) == 1
    for again in ({"path": "/verify_code", "code": right}, {"path": "/link", "token": link}):
        other = house.door()
        other.client.cookies.update(jar)
        assert other.post(**again).status_code == 410 and not inside(other)
    assert live_sessions(house) == 1


def test_A10_A6_a_code_is_used_up_by_its_link(house, ada):
    door = unknown(house)
    code, link, jar = door.read_code(), link_of(newest(house).text), dict(door.client.cookies)
    door.post("/link", token=link)
    assert inside(door)
    other = house.door()
    other.client.cookies.update(jar)
    assert other.enter(code).status_code == 410
    assert other.post("/link", token=link).status_code == 410
    assert live_sessions(house) == 1


def start(servers, sink, run, way):
    """A sign-in that waits for code or link; (browser, right one, path and field, link)."""
    tab, address = Tab(*servers), f"{way}{run}@example.org"
    if way == "link":
        tab.post("/create_code", email=address)
        code = sink.code(address)
        assert tab.post("/verify_code", code=wrong(code)).status_code == 422
    tab = Tab(*servers)
    tab.post("/create_code", email=address)
    mail = sink.wait_for(address, 2 if way == "link" else 1)
    link = link_of(parsed(mail).get_body(("plain",)).get_content())
    if way != "link":
        return tab, code_in(mail), link
    shown = Tab(*servers).post("/link", token=link).text
    return tab, re.search(r'class="shown"[^>]*>([A-Z2-7]+)<', shown)[1], link


def send(tab, i, path, htmx=False, **fields):
    headers = {"Sec-Fetch-Site": "same-origin"} | ({"HX-Request": "true"} if htmx else {})
    answer = tab.send("POST", path, i % 2, headers, keep=False, data=fields)
    return answer.status_code, "__Host-session=" in answer.headers.get("set-cookie", "")


@pytest.mark.parametrize("way", WAYS)
def test_A10_A3_parallel_guesses_on_each_way_in(serve, postbox, way):
    limits = {"LIMIT_WRONG_PER_ACCOUNT": "1/24h"} if way == "link" else {}
    servers = [serve(SMTP_PORT=postbox.port, SIGNUP="open", **limits) for _ in range(2)]
    for run in range(2):
        tab, right, _ = start(servers, postbox, run, way)

        def attempt(i, tab=tab, right=right):
            bad = wrong_of(right, i + 1)
            return send(tab, i, "/verify_code", way == "htmx", code=bad)[0]

        answers = together(40, attempt)
        assert (answers.count(422), answers.count(429)) == (5, 35), (run, answers)
        assert tab.post("/verify_code", at=run % 2, code=right).status_code == 429
        assert not tab.signed_in


@pytest.mark.parametrize("way", WAYS)
def test_A10_A5_eight_codes_and_eight_links_at_once_open_one_session(serve, postbox, build, way):
    limits = {"LIMIT_WRONG_PER_ACCOUNT": "1/24h"} if way == "link" else {}
    servers = [serve(SMTP_PORT=postbox.port, SIGNUP="open", **limits) for _ in range(2)]
    house = build(SIGNUP="open")  # to look at their database
    for run in range(3):
        tab, right, link = start(servers, postbox, run, way)

        def enter(i, tab=tab, right=right, link=link):
            if i % 4 < 2:
                return send(tab, i, "/verify_code", way == "htmx", code=right)
            return send(tab, i, "/link", way == "htmx", token=link)

        answers = together(16, enter)
        assert [cookie for _, cookie in answers].count(True) == 1, (run, answers)
        lost = {status for status, cookie in answers if not cookie}
        assert lost <= {410, 429}, (run, answers)
        assert live_sessions(house) == run + 1, (run, answers)


@pytest.fixture
def postbox(sink):
    """The mail server, asked for whole mails."""

    def wait_for(address, number):
        with sink.changed:
            assert sink.changed.wait_for(lambda: len(sink._to(address)) >= number, 15)
            return sink._to(address)[number - 1]

    sink.wait_for = wait_for
    return sink
