"""Attacks on the mailed link: opened by machines, opened elsewhere, guessed, leaked, poisoned."""

import base64
import hashlib
import re
import secrets
import socket
from email.utils import getaddresses

import pytest
from bs4 import BeautifulSoup

from auth.keys import LINK_CHARS, LINK_ID_CHARS, Keys, linked_id
from tests.attacks.test_a_code import wrong
from tests.attacks.test_d_browser import snapshot
from tests.conftest import ADMIN, BASE_URL, DEFAULT, SECRET
from tests.serving import Tab, together
from tests.sink import parsed

BOB = "bob@example.org"
MALLORY = "mallory@example.net"
POLL = {"HX-Request": "true"}
LINK = re.compile(r"^https?://\S+/link#[A-Za-f]{78}$", re.MULTILINE)
URL = re.compile(r"""[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'<>]+""")
SIX = re.compile(r"[0-9]{6,}")
LETTERS, BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@pytest.fixture
def bob(house):
    return house.add(BOB).address


# ---- what several tests do
def letters(door):
    """The mails to the address that was asked for last, newest last."""
    door.drain()
    return door.mailbox.to(door.address)


def links(door):
    """The link of each mail that has one, newest last."""
    return [found[0] for letter in letters(door) if (found := LINK.search(letter.text))]


def read_link(door):
    return links(door)[-1]


def secret_of(link):
    return link.partition("#")[2]


def press(door, link, **more):
    """What the button sends: the secret, as app.js puts it into the form."""
    return door.post("/link", token=secret_of(link), **more)


def asked(house, address, next="", **more):
    """A browser that asked, and the link in its mail."""
    door = house.door(**more)
    door.ask(address, next)
    return door, read_link(door)


def shown(answer):
    """What a browser that did not ask is told to type in the one that did; None when there is nothing."""
    assert answer.status_code == 200, answer.status_code
    found = BeautifulSoup(answer.text, "html.parser").select_one(".shown")
    return found and found.text


def person(door):
    """Who is signed in here; None when nobody is."""
    page = door.get("/dashboard")
    if page.status_code != 200:
        return None
    return BeautifulSoup(page.text, "html.parser").select_one("main strong").text


def sessions(house):
    return len(house.rows("sessions"))


def visible(html):
    soup = BeautifulSoup(html, "html.parser")
    for hidden in soup.select("title, [style*='display:none']"):
        hidden.decompose()
    return soup.get_text(" ")


# ---- E1
LOOKS = (
    {},
    {"Sec-Purpose": "prefetch;prerender", "Purpose": "prefetch"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1"},
    {"Sec-Fetch-Site": "same-origin", "Origin": BASE_URL, "HX-Request": "true"},
)


def test_E1_no_look_at_the_link_spends_it(house, ada):
    door, link = asked(house, ada)
    token, before = secret_of(link), snapshot(house.db)
    for visitor in (house.door(client="198.51.100.7"), door):
        for n in range(20):
            headers = LOOKS[n % len(LOOKS)]
            for method, status in (("GET", 200), ("HEAD", 200), ("OPTIONS", 405)):
                for path in ("/link", f"/link?token={token}", f"/link/?{token}"):
                    answer = visitor.client.request(method, path, headers=headers)
                    if path == "/link":
                        assert answer.status_code == status, (method, headers)
                    assert "set-cookie" not in answer.headers
                    assert token not in answer.text
    assert snapshot(house.db) == before
    answer = press(door, link)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
    assert person(door) == ada


def test_E1_the_landing_page_says_who_and_sends_nothing_by_itself(house, ada):
    door, _ = asked(house, ada)
    page = BeautifulSoup(door.get("/link").text, "html.parser")
    assert "a***@example.org" in page.select_one("#what").text and ada not in page.text
    form = page.select_one("form#link_form")
    assert (form["method"], form["action"]) == ("post", "/link")
    assert form.select_one("[name=token]").get("value") is None
    assert not page.select("[hx-trigger], [http-equiv], [onload], [autofocus]")
    stranger = BeautifulSoup(house.door().get("/link").text, "html.parser")
    assert "a***" not in stranger.text and "did not ask" in stranger.text


PRESSES = (
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": BASE_URL},
    {"Sec-Fetch-Site": "same-origin", "HX-Request": "true", "HX-Current-URL": f"{BASE_URL}/link"},
)


@pytest.mark.parametrize("by", ["link", "code"])
def test_E1_a_machine_that_presses_the_button_signs_nobody_in_and_spends_nothing(house, ada, by):
    door, link = asked(house, ada, "/dashboard?x=1")
    code = door.read_code()
    for headers in PRESSES * 3:
        bot = house.door(client="198.51.100.7")
        answer = bot.client.post("/link", data={"token": secret_of(link)}, headers=headers)
        assert answer.status_code == 200 and "set-cookie" not in answer.headers
        assert shown(answer) == code and not bot.signed_in
        assert sessions(house) == 0
    row = house.rows("challenges")[0]
    assert (row["used_at"], row["code_tries"], row["total_tries"]) == (None, 0, 0)
    answer = press(door, link) if by == "link" else door.enter(code)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard?x=1")
    assert person(door) == ada


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}])
def test_E1_a_machine_that_is_no_page_of_ours_is_told_nothing(house, ada, headers):
    door, link = asked(house, ada)
    before = snapshot(house.db)
    for visitor in (house.door(), door):
        answer = visitor.client.post("/link", data={"token": secret_of(link)}, headers=headers)
        assert answer.status_code == 403 and "set-cookie" not in answer.headers
        assert door.read_code() not in answer.text
    assert snapshot(house.db) == before
    assert press(door, link).status_code == 303


# ---- E2
def test_E2_a_click_elsewhere_never_signs_the_asking_browser_in(house, ada):
    mallory, link = asked(house, ada, "/dashboard?theirs", client="198.51.100.7")
    victim, polls = house.door(), []
    polls.append(mallory.get("/verify_code?next=/dashboard", headers=POLL))
    for _ in range(3):
        code = shown(press(victim, link))
        polls.append(mallory.get("/verify_code?next=/dashboard", headers=POLL))
    assert [(p.status_code, p.text) for p in polls] == [(204, "")] * 4
    assert not any("hx-redirect" in p.headers or "set-cookie" in p.headers for p in polls)
    assert mallory.get("/verify_code").status_code == 200  # still waits
    assert not mallory.signed_in and not victim.signed_in and sessions(house) == 0
    assert victim.cookie("session") is None and victim.cookie("device") is None
    # What it shows is for the one who asked, and works there and nowhere else.
    assert victim.enter(code).status_code == 410
    assert mallory.enter(code).headers["location"] == "/dashboard?theirs"
    assert person(mallory) == ada and person(victim) is None


@pytest.mark.parametrize("htmx", [False, True], ids=["page", "htmx"])
def test_E2_the_browser_that_asked_is_signed_in_by_the_link(house, ada, htmx):
    door, link = asked(house, ada, "/dashboard?x=1", htmx=htmx)
    answer = press(door, link, timezone="Europe/Berlin")
    expected = (200, "hx-redirect") if htmx else (303, "location")
    assert (answer.status_code, answer.headers[expected[1]]) == (expected[0], "/dashboard?x=1")
    assert person(door) == ada and sessions(house) == 1
    assert "Europe/Berlin" in door.get("/dashboard").text
    assert door.cookie("signin") is None  # nothing waits here any more
    event = [e for e in house.rows("events") if e["kind"] == "authn_login_success"][-1]
    assert (event["subject"], event["detail"]) == (ada, "link")


def test_E2_all_of_the_link_may_be_pasted(house, ada):
    for pasted in ("{}", "  {}\n", "{secret}", " {secret} "):
        door, link = asked(house, ada)
        answer = door.post("/link", token=pasted.format(link, secret=secret_of(link)))
        assert answer.status_code == 303 and person(door) == ada


def test_E2_a_browser_that_asked_for_the_same_address_may_use_any_of_its_links(house, ada):
    """Mallory spends the address's mails; what is in them is still its owner's."""
    mallory, link = asked(house, ada, "/dashboard?theirs", client="198.51.100.7")
    door, own = asked(house, ada, "/dashboard?mine")
    answer = press(door, link)
    assert answer.headers["location"] == "/dashboard?mine"
    assert person(door) == ada and sessions(house) == 1 and not mallory.signed_in
    # Both are over: for the one who asked first, too.
    assert mallory.get("/verify_code?next=/dashboard", headers=POLL).status_code == 204
    assert mallory.get("/verify_code").headers["location"] == "/login"
    assert press(mallory, link).status_code == 410
    assert press(mallory, own).status_code == 410
    assert all(row["used_at"] for row in house.rows("challenges"))
    assert sessions(house) == 1 and not mallory.signed_in


def test_E2_the_other_browsers_code_is_dead_when_its_link_was_used(house, ada):
    mallory, link = asked(house, ada, client="198.51.100.7")
    code = mallory.read_code()
    door, _ = asked(house, ada)
    assert press(door, link).status_code == 303
    assert mallory.enter(code).status_code == 410 and not mallory.signed_in


def test_E2_a_browser_that_asked_for_another_address_is_shown_the_code_only(house, ada, bob):
    door, link = asked(house, ada)
    other, own = asked(house, bob)
    code = shown(press(other, link))
    assert code == house.mailbox.latest_code(ada)
    assert not other.signed_in and sessions(house) == 0
    assert other.enter(code).status_code in (303, 422) and person(other) != ada
    assert press(door, link).status_code == 303 and person(door) == ada
    assert press(other, own).status_code == 303 and person(other) == bob


def test_E2_another_spelling_is_the_same_address_and_a_tag_is_another(build):
    house = build(SIGNUP="open")
    _, link = asked(house, "ada@example.org")
    same = house.door()
    same.ask("  Ada@Example.ORG ")
    tagged = house.door()
    tagged.ask("ada+x@example.org")
    assert shown(press(tagged, link)) and not tagged.signed_in
    assert press(same, link).status_code == 303 and person(same) == "ada@example.org"


def test_E2_a_sign_in_that_is_over_is_no_asking(house, ada):
    """A browser with the cookie of a sign-in that was used or ran out is any other browser."""
    used, link = asked(house, ada)
    cookie = used.cookie("signin")
    assert press(used, link).status_code == 303
    stale = house.door()
    stale.client.cookies.set("__Host-signin", cookie)
    late, _ = asked(house, ada)
    house.clock.advance(900)
    _, fresh = asked(house, ada)
    for door in (stale, late):
        assert shown(press(door, fresh)) and not door.signed_in
        assert "did not ask" in door.get("/link").text
    assert sessions(house) == 1


def test_E2_who_may_not_sign_in_is_not_let_in_by_a_link(house, ada):
    from auth.events import Source

    door, link = asked(house, ada)
    house.auth.people.disable(None, house.auth.people.by_address(ada).id, Source())
    answer = press(door, link)
    assert answer.status_code == 422 and not door.signed_in and sessions(house) == 0


def test_a_refused_link_does_not_say_that_this_browser_did_not_ask(house, ada):
    """Who pasted half of a link is told to paste all of it, and not that it works elsewhere."""
    door, link = asked(house, ada)
    for pasted in (secret_of(link)[:-1], ""):
        answer = door.post("/link", token=pasted)
        assert answer.status_code == 422
        assert "did not ask" not in answer.text
        assert "signs you in as <strong><bdi>a***@example.org" in answer.text


# ---- twelve characters where six digits are off
def link_only(house, address):
    """A stranger guesses until six digits are off for this address; needs a narrow limit."""
    stranger = house.door(client="198.51.100.7")
    stranger.ask(address)
    code = stranger.read_code()
    for n in (1, 2):
        stranger.enter(wrong(code, n))
    assert stranger.enter(code).status_code == 422 and not stranger.signed_in
    house.clock.advance(60)


def test_E2_twelve_characters_work_in_the_browser_that_asked_only(build):
    house = build(LIMIT_WRONG_PER_ACCOUNT="2/24h")
    ada = house.add("ada@example.org").address
    link_only(house, ada)
    door, link = asked(house, ada, "/dashboard?x=1")
    other = house.door(client="203.0.113.9")
    code = shown(press(other, link))
    assert re.fullmatch(r"[A-Z2-7]{12}", code)
    mallory = house.door()
    mallory.ask(ada)  # in another browser they are wrong, its own are others
    for thief in (other, mallory):
        assert thief.enter(code).status_code in (410, 422) and not thief.signed_in
    assert door.get("/verify_code?next=/dashboard", headers=POLL).status_code == 204
    answer = door.enter(f" {code[:4].lower()}-{code[4:8]} {code[8:]}")
    assert answer.headers["location"] == "/dashboard?x=1" and person(door) == ada
    assert press(other, link).status_code == 410


def test_E2_link_only_mail_has_the_link_and_no_number(build):
    house = build(LIMIT_WRONG_PER_ACCOUNT="2/24h", MAGIC_LINKS="false")
    ada = house.add("ada@example.org").address
    link_only(house, ada)
    door, link = asked(house, ada)
    letter = letters(door)[-1]
    for part in (letter.subject, letter.text, letter.html):
        assert not SIX.search(part)
    assert len(LINK.findall(letter.text)) == 1 and letter.html.count(secret_of(link)) == 1
    assert press(door, link).status_code == 303 and person(door) == ada


def test_E2_a_code_mailed_before_codes_went_off_is_replaced_by_what_the_link_shows(build):
    house = build(LIMIT_WRONG_PER_ACCOUNT="2/24h")
    ada = house.add("ada@example.org").address
    door, link = asked(house, ada)
    digits = door.read_code()
    link_only(house, ada)
    code = shown(press(house.door(), link))
    assert code != digits and re.fullmatch(r"[A-Z2-7]{12}", code)
    assert door.enter(digits).status_code == 422 and not door.signed_in
    assert door.enter(code).status_code == 303 and person(door) == ada


# ---- E3
def test_E3_the_token_is_in_no_log_and_in_no_table(serve, sink, build):
    server = serve(SMTP_PORT=sink.port, SIGNUP="open", LOG_LEVEL="debug")
    tokens, ada = [], "ada@example.org"
    for number in (1, 2):
        tab, other = Tab(server), Tab(server)
        tab.post("/create_code", email=ada)
        code = sink.code(ada, number)
        text = parsed(sink._to(ada)[number - 1]).get_body(("plain",)).get_content()
        link = re.search(r"^http\S+/link#[A-Za-f]{78}", text, re.MULTILINE)[0]
        token = secret_of(link)
        tokens.append(token)
        gets = [tab.get("/link"), other.get("/link"), other.get(f"/link?token={token}")]
        gets.append(other.get("/link", Referer=link))
        assert other.post("/link", token=link[:-1]).status_code == 422
        foreign = {"Sec-Fetch-Site": "cross-site"}
        refused = other.send("POST", f"/link?{token}", headers=foreign, data={"token": token})
        assert refused.status_code == 403
        elsewhere = other.post("/link", token=link)
        assert code in elsewhere.text
        assert tab.post("/link", token=token if number == 1 else link).status_code == 303
        assert other.post("/link", token=token).status_code == 410
        gets += [tab.get("/dashboard"), tab.get("/verify_code"), tab.get("/link")]
        for answer in [*gets, elsewhere]:
            assert token not in answer.text and token not in str(answer.headers)
        if number == 1:
            tab.post("/logout")
    server.stop()
    assert "a***@example.org signed in" in server.log and "POST /link refused" in server.log
    stored = repr(snapshot(build(SIGNUP="open").db))
    assert ada in stored
    for token in tokens:
        raw = base64.b32decode(
            token[LINK_ID_CHARS:].translate(str.maketrans(LETTERS, BASE32)) + "===="
        )
        digests = [
            getattr(hashlib, name)(token.encode()).hexdigest() for name in ("sha256", "sha1")
        ]
        for secret in (token, token[LINK_ID_CHARS:], raw.hex(), *digests):
            assert secret not in server.log and secret not in stored


def test_E3_the_landing_page_tells_nobody_where_it_was(house, ada):
    door, link = asked(house, ada)
    answers = [
        door.get("/link"),
        press(house.door(), link),
        door.post("/link", token="x"),
        press(door, link),
    ]
    assert [a.status_code for a in answers] == [200, 200, 422, 303]
    for answer in answers:
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-robots-tag"] == "noindex"
        page = BeautifulSoup(answer.text, "html.parser")
        for tag in page.select("[src], [href], [action]"):
            url = tag.get("src") or tag.get("href") or tag.get("action")
            assert url.startswith(("/", "#")) and not url.startswith("//"), url


# ---- E4
def canonical_twins(letters, bits):
    """Other spellings of the same bytes: base32 whose last letter has `bits` unused bits."""
    value = LETTERS.index(letters[-1])
    return [letters[:-1] + LETTERS[value ^ flip] for flip in range(1, 2**bits)]


def tampered(one, other):
    """A thousand and more that are nearly right, or not at all."""
    id, proof = one[:LINK_ID_CHARS], one[LINK_ID_CHARS:]
    found = [id + other[LINK_ID_CHARS:], other[:LINK_ID_CHARS] + proof, proof + id]
    found += [twin + proof for twin in canonical_twins(id, 2)]
    found += [id + twin for twin in canonical_twins(proof, 4)]
    found += [one.upper(), one.lower(), one.swapcase(), one[::-1]]
    found += [one[:n] for n in range(1, LINK_CHARS)]  # cut off
    found += [one + "A", "A" + one, one + one, one[:40] + " " + one[40:], one + "="]
    for n in range(LINK_CHARS):  # each letter: another, or the other case
        swapped = one[n].swapcase()
        found.append(one[:n] + (swapped if swapped in LETTERS else "é") + one[n + 1 :])
        found.append(one[:n] + LETTERS[(LETTERS.index(one[n]) + 16) % 32] + one[n + 1 :])
    found += [
        one.translate(str.maketrans(LETTERS, BASE32)),
        "".join(chr(ord(c) + 0xFEE0) for c in one),
    ]
    found += [
        "\0",
        one + "\0",
        "\0" * 78,
        "A" * 78,
        "f" * 78,
        "Z" * 2001,
        f"#{one}#",
        f"{one}#x",
        "%00",
    ]
    while len(found) < 1000:
        head = id if len(found) % 2 else ""
        size = LINK_CHARS - len(head)
        found.append(head + "".join(secrets.choice(LETTERS) for _ in range(size)))
    assert one not in found and len(set(found)) >= 990
    return found


def test_E4_a_thousand_wrong_links_get_one_answer_and_no_session(house, ada, bob):
    door, link = asked(house, ada)
    _, other = asked(house, bob)
    one = secret_of(link)
    assert all(
        linked_id(twin + one[26:]) == linked_id(one) for twin in canonical_twins(one[:26], 2)
    )
    before, answers = snapshot(house.db, but=["counters.n", "counters.ends_at"]), set()
    visitors = (house.door(client="198.51.100.7"), door)
    for n, token in enumerate(tampered(one, secret_of(other))):
        answer = visitors[n % 2].post("/link", token=token)
        answers.add((answer.status_code, n % 2, answer.text))
        assert "set-cookie" not in answer.headers, token
        assert answer.status_code == 422, token
    assert len(answers) == 2  # one a visitor, whatever is wrong with the link
    after = snapshot(house.db, but=["counters.n", "counters.ends_at"])
    before.pop("counters"), after.pop("counters")
    assert after == before and sessions(house) == 0
    assert press(door, link).status_code == 303 and person(door) == ada


def test_E4_a_client_that_guesses_links_is_told_to_wait(build):
    house = build(**DEFAULT)
    ada = house.add("ada@example.org").address
    door, link = asked(house, ada)
    other = secret_of(link)[:-1] + ("A" if link[-1] != "A" else "B")
    guesser = house.door(client="198.51.100.7")
    answers = [guesser.post("/link", token=other) for _ in range(40)]
    assert [a.status_code for a in answers] == [422] * 20 + [429] * 20
    assert all(0 < int(a.headers["retry-after"]) <= 600 for a in answers[20:])
    assert guesser.post("/link", token=secrets.token_hex(20)).status_code == 429
    # Not a hundred more by moving about in a /24; and nobody else pays.
    assert house.door().post("/link", token=other).status_code == 422
    assert press(door, link).status_code == 303 and sessions(house) == 1


def test_E4_the_proof_has_256_bits_and_depends_on_everything():
    keys, seen = Keys(SECRET), []
    for _ in range(400):
        id, nonce = keys.new_id(), keys.new_nonce()
        link = keys.link(keys.current, "sign-in", id, nonce, "ada@example.org")
        assert len(link) == LINK_CHARS and set(link) <= set(LETTERS)
        assert linked_id(link) == id
        plain = link[LINK_ID_CHARS:].translate(str.maketrans(LETTERS, BASE32))
        seen.append(base64.b32decode(plain + "===="))
    assert {len(proof) for proof in seen} == {32}
    ones = [sum(proof[n // 8] >> n % 8 & 1 for proof in seen) for n in range(256)]
    assert all(120 < n < 280 for n in ones)  # 8 sigma: no bit is fixed
    base = (keys.current, "sign-in", "00" * 16, "ab" * 32, "ada@example.org")
    changed = [
        base,
        (*base[:1], "other", *base[2:]),
        (*base[:2], "01" * 16, *base[3:]),
        (*base[:3], "ac" * 32, *base[4:]),
        (*base[:4], "bob@example.org"),
    ]
    proofs = [keys.link(*parts)[LINK_ID_CHARS:] for parts in changed]
    proofs.append(Keys(SECRET + "x").link(Keys(SECRET + "x").current, *base[1:])[LINK_ID_CHARS:])
    assert len(set(proofs)) == 6
    assert keys.link("another key", *base[1:]) is None


def test_E4_the_links_field_counts_in_the_form_only_and_once(house, ada):
    door, link = asked(house, ada)
    token = secret_of(link)
    before = snapshot(house.db)
    ours = {"Sec-Fetch-Site": "same-origin"}
    door.client.cookies.set("token", token)
    for answer in (
        door.post(f"/link?token={token}"),
        door.post("/link", headers={"token": token}),
        door.client.post("/link", json={"token": token}, headers=ours),
        door.client.post("/link", data={"token": [token, token]}, headers=ours),
        door.client.post("/link", data={"code": token, "next": "/"}, headers=ours),
    ):
        assert answer.status_code == 422, answer.text
    assert snapshot(house.db) == before and not door.signed_in
    assert press(door, link).status_code == 303


# ---- E5
EVIL = "evil.test"
POISON = {  # name: (request target, header lines), with our own Host unless one is named
    "Host": ("/create_code", [f"Host: {EVIL}"]),
    "Host with a port": ("/create_code", [f"Host: 127.0.0.1:{{port}}@{EVIL}"]),
    "two Hosts": ("/create_code", ["Host: {own}", f"Host: {EVIL}"]),
    "X-Forwarded-Host": ("/create_code", [f"X-Forwarded-Host: {EVIL}"]),
    "X-Host and the like": (
        "/create_code",
        [f"X-Host: {EVIL}", f"X-Original-Host: {EVIL}", f"X-HTTP-Host-Override: {EVIL}"],
    ),
    "X-Forwarded-Server": ("/create_code", [f"X-Forwarded-Server: {EVIL}"]),
    "Forwarded": ("/create_code", [f"Forwarded: for=192.0.2.1;host={EVIL};proto=https"]),
    "X-Forwarded-Proto": ("/create_code", ["X-Forwarded-Proto: javascript"]),
    "X-Forwarded-Port and Prefix": (
        "/create_code",
        ["X-Forwarded-Port: 666", f"X-Forwarded-Prefix: //{EVIL}"],
    ),
    "X-Original-URL": (
        "/create_code",
        [f"X-Original-URL: https://{EVIL}/", f"X-Rewrite-URL: https://{EVIL}/"],
    ),
    "absolute URI": (f"http://{EVIL}/create_code", []),
    "absolute URI with a user": (f"http://{EVIL}@{EVIL}/create_code", []),
    "Referer and Origin": (
        "/create_code",
        [f"Referer: https://{EVIL}/", f"Origin: https://{EVIL}"],
    ),
    "no slash": (f"@{EVIL}/create_code", []),
}


def raw_post(server, target, lines, body):
    """The status of one POST with these very lines."""
    own = f"127.0.0.1:{server.port}"
    lines = [line.format(own=own, port=server.port) for line in lines]
    if not any(line.startswith("Host:") for line in lines):
        lines = [f"Host: {own}", *lines]
    lines += [
        "Sec-Fetch-Site: same-origin",
        "Content-Type: application/x-www-form-urlencoded",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    head = "\r\n".join([f"POST {target} HTTP/1.1", *lines, "", ""])
    with socket.create_connection(("127.0.0.1", server.port), 10) as s:
        s.sendall(head.encode() + body.encode())
        answer = b""
        while more := s.recv(65536):
            answer += more
    return int(answer.split(b" ", 2)[1])


def urls(raw):
    """Every URL in a mail: of its headers, its text, its HTML and its attributes."""
    message = parsed(raw)
    texts = [str(value) for name, value in message.items() if name.lower() != "message-id"]
    texts += [message.get_body((kind,)).get_content() for kind in ("plain", "html")]
    soup = BeautifulSoup(texts[-1], "html.parser")
    for tag in soup(True):
        texts += [tag[name] for name in ("href", "src", "action", "background") if tag.get(name)]
    return [url for text in texts for url in URL.findall(text)]


def test_E5_no_header_gets_into_a_mailed_url(serve, sink):
    server = serve(SMTP_PORT=sink.port, SIGNUP="open")
    passed = []
    for n, (name, (target, lines)) in enumerate(POISON.items()):
        status = raw_post(server, target, lines, f"email=p{n}%40example.org")
        assert status in (303, 400, 404, 405), (name, status)
        passed += [f"p{n}@example.org"] if status == 303 else []
        if "Host" in name.split() or "Hosts" in name:
            assert status == 400, name
    assert len(passed) >= 8
    mails = sink.wait(len(passed))
    # A mail that ought not to be there would have left by now: it was queued before the last of these.
    assert sorted(to for [to], _ in mails) == sorted(passed)
    for _, raw in mails:
        found = urls(raw)
        assert len(found) >= 4 and any("/link#" in url for url in found)
        for url in found:
            assert url == server.url or url.startswith(f"{server.url}/"), url
        assert EVIL.encode() not in raw and b"javascript:" not in raw and b":666" not in raw


def test_E5_notices_have_no_url_but_ours(house, ada):
    house.door().sign_in(ada)
    house.clock.advance(60)
    door = house.door()
    door.client.headers["X-Forwarded-Host"] = EVIL
    door.client.headers["User-Agent"] = f"https://{EVIL}/"
    door.sign_in(ada)
    notice = letters(door)[-1]
    assert notice.subject.startswith("New sign-in")
    for part in (notice.text, notice.html):
        assert URL.findall(part) == [BASE_URL] and EVIL not in part
    assert not BeautifulSoup(notice.html, "html.parser")("a")


# ---- E7
# What a stranger could want to have mailed in our name, and T15: what Python's own parser made two of.
CARRIED = [
    "Visit http://evil",
    "Visit http://evil Chrome/1 (Windows NT 10.0)",
    "=?UTF-8?Q?=0A?=Bcc: x@evil",
    "alice@example.org)bob@evil.org",
    "victim@evil.org, attacker@evil.org",
    "/evil?to=http://evil",
    "482913 evil 482913",
]


@pytest.mark.parametrize("text", CARRIED)
def test_E7_nothing_that_a_stranger_sends_is_in_the_mail(house, ada, text):
    """The same mail, to the byte, as for an unknown device that sends nothing."""
    words = []
    for sent in ("", text):
        door, names = house.door(), ("User-Agent", "Referer", "Accept-Language", "X-Forwarded-For")
        for name in (*names, "X-Forwarded-Host", "Sec-CH-UA", "X-Real-IP", "From", "Via"):
            door.client.headers[name] = sent
        query = f"?{'&'.join(f'{k}={sent}' for k in ('next', 'email', 'subject'))}" if sent else ""
        more = {"name": sent, "subject": sent, "organisation": sent, "to": sent}
        headers = {"Sec-Fetch-Site": "same-origin", "Cookie": f"timezone={sent}; lang={sent}"}
        fields = {"email": f" {ada.upper()}\n", "next": sent, "timezone": sent} | more
        answer = door.client.post(f"/create_code{query}", data=fields, headers=headers)
        assert answer.status_code == 303
        house.outbox.drain()
        message = house.mailbox.messages[-1]
        letter, raw = message.letter, message.as_bytes().decode("ascii")
        assert "evil" not in raw
        code, link = SIX.findall(letter.text)[0], secret_of(LINK.findall(letter.text)[0])
        for what in (code, link, message.id, "an unknown device", "Chrome on Windows"):
            raw = raw.replace(what, "⟦⟧")
        words.append(raw)
    assert words[0] == words[1]


@pytest.mark.parametrize("text", CARRIED)
def test_E7_an_address_that_is_more_than_an_address_gets_no_mail(build, text):
    house = build(SIGNUP="open")
    for typed in (text, f"ada@example.org {text}", f'"{text}" <ada@example.org>'):
        assert house.door().ask(typed).status_code == 422, typed
    house.outbox.drain()
    assert not house.mailbox.messages


# ---- D2
def test_D2_an_attackers_link_opens_nothing_in_another_browser(house, ada):
    house.add(MALLORY)
    mallory, link = asked(house, MALLORY, client="198.51.100.7")
    victim, own = asked(house, ada)
    before = snapshot(house.db)
    assert shown(press(victim, link)) == house.mailbox.latest_code(MALLORY)
    assert snapshot(house.db) == before and not victim.cookie("session")
    assert press(victim, own).status_code == 303 and person(victim) == ada
    assert press(mallory, link).status_code == 303 and person(mallory) == MALLORY


def test_D2_what_the_link_shows_opens_nothing_where_nobody_asked(build):
    house = build(LIMIT_WRONG_PER_ACCOUNT="2/24h")
    ada, _ = house.add("ada@example.org").address, house.add(MALLORY)
    link_only(house, MALLORY)
    mallory, link = asked(house, MALLORY)
    code = shown(press(house.door(), link))
    victim = house.door()
    assert victim.enter(code).status_code == 410
    victim.ask(ada)
    assert victim.enter(code).status_code == 422
    assert not victim.signed_in and sessions(house) == 0
    assert mallory.enter(code).status_code == 303


# ---- D3
def test_D3_an_attackers_link_leaves_the_victims_session_alone(house, ada):
    house.add(MALLORY)
    _, link = asked(house, MALLORY, client="198.51.100.7")
    victim = house.door()
    victim.sign_in(ada)
    cookie, before = victim.cookie("session"), snapshot(house.db)
    page = victim.get("/link")
    assert "did not ask" in page.text and "that ends" not in page.text
    for _ in range(3):
        answer = press(victim, link)
        assert shown(answer) and "set-cookie" not in answer.headers
    assert snapshot(house.db) == before
    assert person(victim) == ada and victim.cookie("session") == cookie


def test_D3_switching_accounts_is_said_before_and_happens_after_the_click(house, ada, bob):
    door = house.door()
    door.sign_in(ada)
    old = door.cookie("session")
    door.ask(bob)
    link = read_link(door)
    page = BeautifulSoup(door.get("/link").text, "html.parser").select_one("#what").text
    assert "as b***@example.org" in page and bob not in page  # masked: whose link it is
    assert f"signed in here as {ada}; that ends" in page
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert door.post("/link", headers=foreign, token=secret_of(link)).status_code == 403
    assert person(door) == ada  # until the button is pressed
    assert press(door, link).status_code == 303
    assert person(door) == bob and door.cookie("session") != old
    thief = house.door()
    thief.client.cookies.set("__Host-session", old)
    assert not thief.signed_in and sessions(house) == 1


def test_D3_a_link_that_was_used_tells_the_signed_in_where_to_go(house, ada):
    """Two clicks on one button, or the same link opened again: no error, and no second session."""
    door, link = asked(house, ada)
    assert press(door, link).status_code == 303
    answer = press(door, link)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
    assert "set-cookie" not in answer.headers and sessions(house) == 1


# ---- code and link end each other, and each ends by itself
def test_E_the_link_ends_the_code(house, ada):
    door, link = asked(house, ada)
    code, cookie = door.read_code(), door.cookie("signin")
    assert press(door, link).status_code == 303
    other = house.door()
    other.client.cookies.set("__Host-signin", cookie)
    assert other.enter(code).status_code == 410
    assert other.post("/resend_code").status_code == 410
    answer = press(other, link)
    assert answer.status_code == 410 and "used already" in answer.text
    assert not other.signed_in and sessions(house) == 1


def test_E_the_code_ends_the_link(house, ada):
    door, link = asked(house, ada)
    code, cookie = door.read_code(), door.cookie("signin")
    assert door.enter(code).status_code == 303
    other = house.door()
    for _ in range(2):
        answer = press(other, link)
        assert answer.status_code == 410 and code not in answer.text
        other.client.cookies.set("__Host-signin", cookie)
    assert not other.signed_in and sessions(house) == 1


def test_E_of_code_and_link_at_one_moment_one_opens_a_session(serve, sink):
    servers = [serve(SMTP_PORT=sink.port, SIGNUP="open") for _ in range(2)]
    for run in range(8):
        tab, address = Tab(*servers), f"run{run}@example.org"
        tab.post("/create_code", email=address)
        code = sink.code(address)
        text = parsed(sink._to(address)[0]).get_body(("plain",)).get_content()
        token = re.search(r"/link#([A-Za-f]{78})", text)[1]

        def use(i, tab=tab, code=code, token=token):
            path, form = (("/link", {"token": token}), ("/verify_code", {"code": code}))[i % 2]
            headers = {"Sec-Fetch-Site": "same-origin"}
            answer = tab.send("POST", path, i // 2 % 2, headers, keep=False, data=form)
            return answer.status_code, "session=" in str(answer.headers)

        answers = together(12, use)
        assert answers.count((303, True)) == 1, (run, answers)
        assert {status for status, _ in answers} <= {303, 410, 429}, (run, answers)


def test_E_a_link_works_to_its_last_second_and_not_one_more(house, ada):
    doors = [asked(house, ada) for _ in range(2)]
    house.clock.advance(899)
    door, link = doors[0]
    assert press(door, link).status_code == 303 and person(door) == ada
    house.clock.advance(1)
    door, link = doors[1]
    for visitor in (door, house.door()):
        answer = press(visitor, link)
        assert answer.status_code == 410 and "run out" in answer.text
        assert not visitor.signed_in
    assert "did not ask" in door.get("/link").text


def test_E_a_clock_that_went_back_gives_a_link_no_second_life(house, ada):
    door, link = asked(house, ada)
    house.clock.advance(-61)
    assert press(door, link).status_code == 410 and not door.signed_in


def test_E_a_link_may_outlive_its_code(build):
    house = build(MAGIC_LINK_EXPIRE_DAYS="30")
    ada = house.add("ada@example.org").address
    door, link = asked(house, ada)
    code = door.read_code()
    for _ in range(29):
        house.clock.advance(86400)
        house.auth.tidy()
    assert door.enter(code).status_code == 410
    assert "a***@example.org" in door.get("/link").text
    assert shown(press(house.door(), link)) is None  # its code is dead, and nobody is told one
    assert press(door, link).status_code == 303 and person(door) == ada
    again, link = asked(house, ada)
    house.clock.advance(30 * 86400)
    assert press(again, link).status_code == 410


def test_E_the_cookie_lives_as_long_as_the_link(build):
    house = build(MAGIC_LINK_EXPIRE_DAYS="30")
    answer = house.door().ask("ada@example.org")
    line = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("__Host-signin="))
    assert int(re.search(r"Max-Age=(\d+)", line)[1]) >= 30 * 86400


def test_E_a_mail_sent_again_has_the_same_link(house, ada):
    door, link = asked(house, ada)
    house.clock.advance(60)
    assert door.post("/resend_code").status_code == 200
    assert links(door) == [link, link]
    assert press(door, link).status_code == 303 and person(door) == ada


def test_E_a_new_code_after_too_many_guesses_has_the_same_link(house, ada):
    door, link = asked(house, ada)
    code = door.read_code()
    for n in range(1, 6):
        door.enter(wrong(code, n))
    house.clock.advance(60)
    assert door.post("/resend_code").status_code == 200
    assert links(door) == [link, link] and door.read_code() != code
    assert press(door, link).status_code == 303 and person(door) == ada


def test_E_wrong_codes_do_not_take_the_link_away(house, ada):
    door, link = asked(house, ada)
    code = door.read_code()
    for n in range(1, 6):
        door.enter(wrong(code, n))
    assert door.enter(code).status_code == 429
    assert shown(press(house.door(), link)) is None  # no code that would be compared with nothing
    assert press(door, link).status_code == 303 and person(door) == ada


def test_E_the_link_of_the_mail_before_works_after_asking_anew(house, ada):
    door, old = asked(house, ada, "/dashboard?old")
    house.clock.advance(60)
    door.ask(ada, "/dashboard?new")
    assert read_link(door) != old
    assert shown(press(house.door(), old)) is None  # no browser waits for its code any more
    assert press(door, old).headers["location"] == "/dashboard?new"
    assert person(door) == ada and sessions(house) == 1
    assert press(house.door(), read_link(door)).status_code == 410


def test_E_a_link_of_a_browser_that_went_on_to_another_address_waits_nowhere(house, ada, bob):
    door, old = asked(house, ada)
    code = door.read_code()
    door.ask(bob)
    answer = press(door, old)
    assert shown(answer) is None and code not in answer.text
    assert "waits in no browser any more" in answer.text
    assert not door.signed_in and sessions(house) == 0
    assert press(door, read_link(door)).status_code == 303 and person(door) == bob


# ---- the mail
def test_E_without_magic_links_the_mail_has_only_the_code(build):
    house = build(MAGIC_LINKS="false")
    house.add("ada@example.org")
    door = house.door()
    door.ask("ada@example.org")
    letter = letters(door)[-1]
    for part in (letter.text, letter.html):
        assert "/link" not in part and "link" not in part.lower()
        assert set(URL.findall(part)) == {BASE_URL}
    # Nor does one that is made up of the row, by who has the key, do more than the code would.
    assert door.enter(door.read_code()).status_code == 303


@pytest.mark.parametrize(
    ("days", "words"),
    [
        ("", "15 minutes"),
        ("0.0104", "15 minutes"),
        ("0.0007", "1 minute"),
        ("0.0417", "1 hour"),
        ("1", "24 hours"),
        ("1.5", "36 hours"),
        ("7", "7 days"),
        ("30", "30 days"),
        ("31", "30 days"),
        ("9999", "30 days"),
    ],
)
def test_E_the_mail_says_how_long_the_link_works(build, days, words):
    house = build(MAGIC_LINK_EXPIRE_DAYS=days) if days else build()
    house.add("ada@example.org")
    door, _ = asked(house, "ada@example.org")
    letter = letters(door)[-1]
    for part in (letter.text, visible(letter.html)):
        plain = " ".join(part.split())
        assert f"link in the same browser. It works once, for {words}." in plain, plain


def test_E_a_mail_that_leaves_a_moment_later_counts_no_seconds(build):
    """A worker sends it: the clock has moved on a little by then, and nobody wants to read that."""
    for days, words in (("0.0104", "15 minutes"), ("7", "7 days"), ("30", "30 days")):
        house = build(MAGIC_LINK_EXPIRE_DAYS=days)
        address = house.add(f"p{words.replace(' ', '')}@example.org").address
        door = house.door()
        door.ask(address)
        house.clock.advance(2)
        text = " ".join(letters(door)[-1].text.split())
        assert f"link in the same browser. It works once, for {words}." in text, text


# What a mail says does not depend on the database.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("subject", ["false", "true"])
def test_E_of_three_hundred_mails_each_has_one_number_and_it_is_the_code(build, subject):
    house = build(SIGNUP="open", CODE_IN_SUBJECT=subject)
    door = house.door()
    for n in range(300):
        door.ask(f"{'abcdefghij'[n % 10]}{'xyz' * (n // 10)}@example.org"[-60:])
        letter = letters(door)[-1]
        assert getaddresses([letter.to])[0][1] == door.address
        code, link = SIX.findall(letter.text), LINK.findall(letter.text)
        assert len(code) == len(link) == 1 and len(code[0]) == 6
        assert SIX.findall(visible(letter.html)) == code
        assert SIX.findall(letter.html) == code  # nor hidden in a colour or an address
        assert SIX.findall(letter.subject) == (code if subject == "true" else [])
        assert not re.search(r"[0-9]", secret_of(link[0])) and len(link[0]) < 200
        assert letter.html.count(link[0]) >= 1 and link[0].startswith(f"{BASE_URL}/link#")


def test_E_an_admin_is_not_told_more_than_others(house, admin):
    """A link of another person is no more use to an admin than to anybody."""
    assert person(admin) == ADMIN
    house.add(BOB)
    _, link = asked(house, BOB)
    assert shown(press(admin, link)) and person(admin) == ADMIN
