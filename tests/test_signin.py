"""Signing in, as a person does it."""

import pytest
from bs4 import BeautifulSoup

from tests.conftest import ADMIN, SECRET


def test_a_person_signs_in_with_the_code_from_the_mail(house, ada):
    door = house.door()
    asked = door.ask(ada)
    assert (asked.status_code, asked.headers["location"]) == (303, "/verify_code")
    entered = door.enter(door.read_code())
    assert (entered.status_code, entered.headers["location"]) == (303, "/dashboard")
    assert ada in door.get("/dashboard").text


def test_htmx_gets_the_code_form_and_then_a_redirect(house, ada):
    door = house.door(htmx=True)
    asked = door.ask(ada)
    assert asked.status_code == 200 and 'hx-post="/verify_code"' in asked.text
    assert "<html" not in asked.text
    entered = door.enter(door.read_code())
    assert (entered.status_code, entered.headers["hx-redirect"]) == (200, "/dashboard")


def test_a_code_works_once(house, ada):
    door = house.door()
    door.ask(ada)
    code, cookie = door.read_code(), door.cookie("signin")
    door.enter(code)
    door.post("/logout")
    door.client.cookies.set("__Host-signin", cookie)
    assert door.enter(code).status_code == 410
    assert not door.signed_in


@pytest.mark.parametrize("typed", ["{} ", " {}", "{}\n", "{a}-{b}", "{a} {b}", "{a}–{b}", "wide"])
def test_a_code_may_be_typed_as_people_type_numbers(house, ada, typed):
    door = house.door()
    door.ask(ada)
    code = door.read_code()
    wide = "".join(chr(ord(c) + 0xFEE0) for c in code)
    text = wide if typed == "wide" else typed.format(code, a=code[:3], b=code[3:])
    assert door.enter(text).status_code == 303 and door.signed_in


def test_the_admin_of_the_settings_reaches_the_admin_page(admin):
    page = admin.get("/admin")
    assert page.status_code == 200 and ADMIN in page.text


def test_the_shortest_life_of_a_code_is_long_enough_for_a_mail(build):
    house = build(CODE_TTL_MINUTES="1", SIGNUP="open")
    door = house.door()
    page = door.ask("a@example.org") and door.get("/verify_code").text
    assert "for 1 minute," in page
    assert door.enter(door.read_code()).status_code == 303


def test_nothing_is_sent_again_when_it_would_come_too_late(house, ada, clock):
    door = house.door()
    door.ask(ada)
    door.read_code()
    clock.advance(15 * 60 - 30)
    late = door.post("/resend_code")
    assert late.status_code == 429 and late.headers["retry-after"] == "30"
    assert house.outbox.drain() == 0
    assert "Start again" in door.get("/verify_code").text


@pytest.mark.parametrize("body", ["code={}", "code={}&timezone=", "x=1&code={}"])
def test_digits_may_come_as_they_are_without_percent_signs(house, ada, body):
    door = house.door()
    door.ask(ada)
    wide = "".join(chr(ord(c) + 0xFEE0) for c in door.read_code())
    headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
    answer = door.client.post("/verify_code", content=body.format(wide).encode(), headers=headers)
    assert answer.status_code == 303


def test_a_code_form_in_multipart_works_too(house, ada):
    door = house.door()
    door.ask(ada)
    headers = {"Sec-Fetch-Site": "same-origin"}
    files = {"code": (None, door.read_code()), "note": (None, "a&b" * 60)}
    assert door.client.post("/verify_code", files=files, headers=headers).status_code == 303


@pytest.mark.parametrize("charset", ["undefined", "utf-7", "unicode_escape", "no-such"])
def test_an_odd_charset_is_400(house, charset):
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    body = b'--x\r\nContent-Disposition: form-data; name="email"\r\n\r\n+2AA-@x.org\r\n--x--\r\n'
    headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": kind}
    assert (
        house.door().client.post("/create_code", content=body, headers=headers).status_code == 400
    )


def test_where_one_wanted_to_go_outlives_a_dead_code(house, ada, clock):
    door = house.door()
    door.ask(ada, next="/admin?q=x")
    code = door.read_code()
    clock.advance(16 * 60)
    over = door.enter(code)
    assert over.status_code == 410
    form = BeautifulSoup(over.text, "html.parser").find("form", action="/create_code")
    fields = {i["name"]: i["value"] for i in form.find_all("input")}
    assert fields == {"email": ada, "next": "/admin?q=x"}
    door.post("/create_code", **fields)
    assert door.enter(door.read_code()).headers["location"] == "/admin?q=x"


def test_a_page_that_is_reloaded_after_the_last_try_says_so(house, ada):
    door = house.door()
    door.ask(ada)
    code = door.read_code()
    for n in range(5):
        door.enter(f"{(int(code) + n + 1) % 1000000:06d}")
    page = door.get("/verify_code").text
    assert "too many wrong codes" in page and 'name="code"' not in page


def test_a_second_click_finds_the_person_signed_in(house, ada):
    door = house.door()
    door.ask(ada)
    code, token = door.read_code(), door.cookie("signin")
    door.enter(code)
    door.client.cookies.set("__Host-signin", token)
    assert door.enter(code).headers["location"] == "/dashboard"


def test_a_key_that_is_gone_ends_its_codes_and_a_previous_one_does_not(build):
    first = build(SIGNUP="open")
    door = first.door()
    door.ask("a@example.org")
    code, token = door.read_code(), door.cookie("signin")
    new = "another-key-7d1e48f2a6b4c8d0e2f4135790ab"
    for previous, status in ((None, 410), (SECRET, 303)):
        more = {"SECRET_KEY_PREVIOUS": previous} if previous else {}
        house = build(SIGNUP="open", clock=first.clock, SECRET_KEY=new, **more)
        later = house.door()
        later.client.cookies.set("__Host-signin", token)
        if not previous:
            house.clock.advance(60)
            assert later.enter(code).status_code == 410
            assert later.post("/resend_code").status_code == 410
        else:
            assert later.enter(code).status_code == status


@pytest.mark.parametrize("path", ["/create_code", "/verify_code"])
def test_a_refusal_from_the_gate_is_a_fragment_for_htmx(house, path):
    answer = house.door(htmx=True).post(path, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert 'role="alert"' in answer.text and "<html" not in answer.text
    house.db.close()
    answer = house.door(htmx=True).post("/create_code", email="a@example.org")
    assert answer.status_code == 503 and "<html" not in answer.text


def test_mail_off_is_said_where_one_waits_for_it(build):
    house = build(MAIL_BACKEND="none", MAIL_FROM="", SIGNUP="open")
    door = house.door()
    door.ask("a@example.org")
    assert "Mail is switched off" in door.get("/verify_code").text


def test_a_strangers_starts_and_guesses_cost_the_owner_nothing(house, ada):
    door = house.door()
    door.ask(ada)
    code = door.read_code()
    strangers = [house.door() for _ in range(20)]
    for stranger in strangers:
        stranger.ask(ada)
    assert strangers[0].enter(code).status_code == 422  # right, but asked for elsewhere
    assert house.door().enter(code).status_code == 410  # nor where nothing was asked for
    tries = {row["browser"]: row["total_tries"] for row in house.rows("challenges")}
    assert sorted(tries.values()) == [0] * 20 + [1]
    assert door.enter(code).status_code == 303 and door.signed_in
    assert not any(stranger.signed_in for stranger in strangers)


# ---- when mail is slow
def test_the_waiting_page_says_when_mail_is_slow_and_says_it_to_everybody(house, ada, clock):
    known, unknown = house.door(htmx=True), house.door(htmx=True)
    known.ask(ada)
    unknown.ask("nobody@example.org")
    pages = [door.get("/resend_code").text for door in (known, unknown)]
    assert pages[0] == pages[1] and "slow" not in pages[0]
    clock.advance(21)
    pages = [door.get("/resend_code").text for door in (known, unknown)]
    assert pages[0] == pages[1] and "Email is slow right now. We keep trying" in pages[0]
    assert 'hx-trigger="load delay:20s"' in pages[0]  # and asks again
    house.outbox.drain()
    assert "slow" not in known.get("/resend_code").text


def test_the_waiting_page_asks_after_twenty_seconds(house, ada):
    door = house.door(htmx=True)
    assert 'hx-trigger="load delay:20s"' in door.ask(ada).text


@pytest.mark.parametrize("htmx", [False, True])
def test_the_code_page_without_a_sign_in_leads_to_the_way_in(house, htmx):
    answer = house.door(htmx).get("/verify_code")
    assert answer.headers["hx-redirect" if htmx else "location"] == "/login"
