"""Signing in, as a person does it."""

import pytest

from tests.conftest import ADMIN


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
