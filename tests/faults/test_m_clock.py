"""Clocks that jump, that differ, and that show a year in which 32 bits are not enough."""

import pytest

from auth.testing import Mailbox
from tests.conftest import START, Clock
from tests.faults import history

ADA = "ada@example.org"
HOUR, SKEW, CODE_SECONDS = 3600, 60, 15 * 60


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 30, -30, -SKEW - 1])
def test_N1_a_clock_that_jumps_in_a_sign_in_gives_no_code_a_longer_life(build, jump):
    """Real time is what the clock shows without the jump."""
    house = build(SIGNUP="open")
    for real in (0, CODE_SECONDS - 1, CODE_SECONDS + SKEW + 1, 2 * HOUR):
        door = house.door()
        began = house.clock.now
        door.ask(ADA)
        code = door.read_code()
        house.clock.advance(real + jump)
        answer = door.enter(code)
        if answer.status_code == 303:
            assert real <= CODE_SECONDS + SKEW
            assert door.get("/dashboard").status_code == 200
        else:
            assert answer.status_code in (410, 422) and door.get("/dashboard").status_code == 303
        if 0 <= real + jump < CODE_SECONDS:
            assert answer.status_code == 303, "an honest clock"
        # Nor is it worth anything once the clock is right again.
        house.clock.now = began + real
        door.enter(code)
        if real > CODE_SECONDS + SKEW:
            assert door.get("/dashboard").status_code == 303
        house.clock.now = began + 4 * HOUR
    history.check(house.db)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_N1_a_session_outlives_a_jump_and_never_its_own_end(build, jump):
    house = build(SIGNUP="open")
    door = house.door()
    door.sign_in(ADA)
    house.clock.advance(jump)
    assert door.get("/dashboard").status_code == 200
    assert door.post("/logout").status_code == 303
    house.clock.advance(-jump)
    assert door.get("/dashboard").status_code == 303, "what was ended stays so"
    door.sign_in(ADA)
    house.clock.advance(31 * 86400 - abs(jump))
    assert door.get("/dashboard").status_code == 303


def test_N1_a_clock_that_went_back_sends_what_is_asked_for_now(build):
    house = build(SIGNUP="open")
    house.door().sign_in(ADA)
    house.clock.advance(-HOUR)
    house.door().sign_in("bob@example.org")
    house.clock.advance(2 * HOUR)
    house.door().sign_in("cyd@example.org")
    history.check(house.db)


@pytest.mark.parametrize("moment", [2**31 - 2, 2**32 + 5, 253_370_764_800])  # 2038, 2106, 9999
def test_N1_times_need_no_32_bits(build, moment):
    house = build(clock=Clock(moment), SIGNUP="open")
    door = house.door()
    door.ask(ADA)
    house.clock.advance(10)
    assert door.enter(door.read_code()).status_code == 303
    assert door.get("/dashboard").status_code == door.get("/account").status_code == 200
    program = house.program()
    program.sign_in("app@example.org")
    history.check(house.db)


@pytest.mark.parametrize("skew", [30, -30])
def test_N2_two_machines_half_a_minute_apart_are_one(build, skew):
    mailbox = Mailbox()
    here = build(clock=Clock(START), mailbox=mailbox, SIGNUP="open")
    there = build(clock=Clock(START + skew), mailbox=mailbox, SIGNUP="open")
    for n, (first, second) in enumerate([(here, there), (there, here)]):
        door, other = first.door(), second.door()
        door.ask(f"p{n}@example.org")
        code = door.read_code()
        other.client.cookies.update(door.client.cookies)
        assert other.enter("000000" if code != "000000" else "000001").status_code == 422
        assert other.enter(code).status_code == 303
        door.client.cookies.update(other.client.cookies)
        for house_door in (door, other):
            assert house_door.get("/dashboard").status_code == 200
            assert house_door.get("/account").status_code == 200
        # Its life over all machines is as long as the clocks differ, and no longer.
        door.ask(f"q{n}@example.org")
        code = door.read_code()
        for house in (here, there):
            house.clock.advance(CODE_SECONDS + abs(skew))
        late = second.door()
        late.client.cookies.update(door.client.cookies)
        assert late.enter(code).status_code == 410
    history.check(here.db)
