"""Attacks by number: mail bombs, lock-outs, forged clients, races for the last unit, full tables.

All through the door, with the limits that nobody has set unless a test says otherwise.
"""

import os
import re
import time
from contextlib import suppress
from ipaddress import ip_network

import pytest

from auth import budgets
from auth.budgets import Count
from auth.events import Source
from auth.known import Browser
from auth.networks import client_of, networks_of
from auth.policy import Policy, Refused
from tests import nursery
from tests.attacks.test_a_code import wrong
from tests.attacks.test_b_enumeration import shown
from tests.attacks.test_k_secrets import GOOD, start
from tests.conftest import DEFAULT, Clock, Overheard, environment
from tests.serving import ROOT, Tab, together
from utils import settings

ADA, BOB = "ada@example.org", "bob@example.org"
MINUTE, HOUR, DAY = 60, 3600, 86400
NEVER = "000000"  # right once in a million
NOT_OURS = "A" * 78  # looks like a link's secret
WRONG, OFF = "That code is not right", "switched off for this address"


@pytest.fixture
def town(build):
    """Default limits, and one person."""
    house = build(**DEFAULT)
    house.add(ADA)
    return house


def stranger(house, n=0, htmx=False):
    """A new browser in the n-th network; no two have even a /24 in common."""
    return house.door(htmx, client=f"11.{n // 250}.{n % 250}.7")


def mails(house, address=ADA):
    """The mails to sign in with, oldest first."""
    house.outbox.drain()
    return [letter for letter in house.mailbox.to(address) if "Your Vestibule" in letter.subject]


def notices(house, words, address=ADA):
    house.outbox.drain()
    return [letter for letter in house.mailbox.to(address) if words in letter.subject]


def signs_in_by_code(house, door, address=ADA):
    """Ask here, and type the code of the one mail that comes."""
    before = len(mails(house, address))
    door.ask(address)
    letters = mails(house, address)
    assert len(letters) == before + 1
    answer = door.enter(re.search(r"^[0-9]{6}$", letters[-1].text, re.MULTILINE)[0])
    assert answer.status_code == 303 and door.signed_in


def link_in(letter):
    return re.search(r"/link#([A-Za-f]+)", letter.text)[1]


def known_browser(house, address=ADA, client="192.0.2.1"):
    """A browser in which this person has signed in before."""
    door = house.door(client=client)
    signs_in_by_code(house, door, address)
    door.post("/logout")
    house.outbox.drain()
    house.mailbox.messages.clear()
    return door


def signs_in_by_link(house, door, address=ADA):
    """Ask here, and open the link of the newest mail that is there, here."""
    assert door.ask(address).status_code in (200, 303)
    letters = mails(house, address)
    assert letters, "there is no mail at all"
    assert "/link#" in letters[-1].text, letters[-1].text
    answer = door.post("/link", token=link_in(letters[-1]))
    assert door.signed_in, re.sub(r"<[^>]+>|\s+", " ", answer.text)
    return answer


def besiege(house, address=ADA, guesses=5, pace=61):
    """Strangers spend the mails of one address, and its wrong codes if they guess. The last one's browser."""
    for n in range(10):
        if n == 5:
            house.clock.advance(HOUR)
        door = stranger(house, n)
        door.ask(address)
        for _ in range(guesses):
            door.enter(NEVER)
        assert len(mails(house, address)) == n + 1
        house.clock.advance(pace)
    stranger(house, 10).ask(address)
    assert len(mails(house, address)) == 10, "there should be no mail left"
    return door


def with_forwarded(door, path, lines, **fields):
    """A form with these X-Forwarded-For lines, each a header of its own."""
    headers = [("Sec-Fetch-Site", "same-origin"), *(("X-Forwarded-For", line) for line in lines)]
    door.client.cookies.clear()
    return door.client.post(path, data=fields, headers=headers)


def statuses(answers):
    return [answer.status_code for answer in answers]


# ---- C1, C2, C3: mail bombs
def test_C1_five_hundred_starts_in_a_day_are_ten_mails_and_one_answer(town):
    answers = set()
    for n in range(500):
        door = stranger(town, n % 100, htmx=True)
        answers.add(repr(shown(door.ask(ADA), ADA)))
        town.outbox.drain()
        town.clock.advance(DAY // 500)
    assert len(mails(town)) == 10
    assert len(answers) == 1 and "(200, " in answers.pop()


def test_C1_the_mails_of_an_hour_and_of_a_minute_are_few(town):
    for n in range(59):
        stranger(town, n).ask(ADA)
        stranger(town, 100 + n).ask(ADA)
        assert len(mails(town)) == min(n + 1, 5)
        town.clock.advance(MINUTE)


def test_C1_an_address_that_nobody_has_answers_as_one_whose_mails_are_spent(town):
    """Through a whole siege, in one browser that goes on asking, and on entering."""
    stories = {}
    for n, address in enumerate((ADA, "eve@example.org")):
        door, story = stranger(town, n, htmx=True), []
        for _ in range(8):
            story.append(shown(door.ask(address), address))
            story.append(shown(door.enter(NEVER), address))
            story.append(shown(door.post("/resend_code"), address))
            story.append(shown(door.get("/verify_code"), address))
            town.clock.advance(61)
        stories[address] = story
    assert stories[ADA] == stories["eve@example.org"]


def test_C1_who_asks_again_when_mails_are_spent_keeps_the_code_that_was_mailed(town):
    door = stranger(town)
    door.ask(ADA)
    code = door.read_code()
    for _ in range(3):
        assert door.ask(ADA).status_code == 303
    assert len(mails(town)) == 1
    assert door.enter(code).status_code == 303 and door.signed_in


def test_C1_mails_that_led_to_a_sign_in_are_given_back(town):
    for n in range(12):
        signs_in_by_code(town, stranger(town, n))
        town.clock.advance(61)
    assert len(mails(town)) == 12


def test_C2_tags_and_dots_of_one_mailbox_share_fifty_mails_a_day(build):
    house = build(**DEFAULT, SIGNUP="open")
    names = ["victim+{}", "v.ictim+{}", "VIC.TIM+x{}"]

    def storm(names, starts, pace):
        before = len(house.mailbox.messages)
        for n in range(starts):
            name = names[n % len(names)].format(n)
            assert stranger(house, n).ask(f"{name}@GMail.com").status_code == 303
            house.outbox.drain()
            house.clock.advance(pace)
        got = [m.letter.to for m in house.mailbox.messages[before:]]
        return len(got), len(set(got))

    assert storm(names, 40, 250) == (30, 30)  # no address came near its own limit
    assert storm(["vict.im"], 4, 61) == (0, 0)  # nor do dots help
    house.add("victim+work@gmail.com")
    house.add("victim@gmail.com")
    # Those that somebody has find room: ten of the aliases, and ten of the plain address's own.
    assert storm(["victim+work"], 20, 721)[0] == 10
    assert storm(["victim"], 20, 721)[0] == 10
    stranger(house, 300).ask("neighbour@gmail.com")
    assert len(mails(house, "neighbour@gmail.com")) == 1


def test_C2_upper_case_is_the_same_address_and_has_no_mails_of_its_own(build):
    house = build(**DEFAULT, SIGNUP="open")
    for n, typed in enumerate(["Ada@example.org", "ADA@EXAMPLE.ORG", " ada@Example.Org "]):
        assert stranger(house, n).ask(typed).status_code == 303
    assert len(mails(house)) == 1


def test_C2_two_hundred_tags_from_one_client_stop_at_its_own_limit(build):
    house = build(**DEFAULT, SIGNUP="open")
    answers = [stranger(house).ask(f"victim+{n}@example.org") for n in range(200)]
    assert statuses(answers) == [303] * 30 + [429] * 170
    house.outbox.drain()
    assert len(house.mailbox.messages) <= 30


def test_C2_a_tag_is_never_who_one_is(build):
    house = build(**DEFAULT, SIGNUP="open")
    door = stranger(house)
    door.ask("ada+tag@example.org")
    link = link_in(mails(house, "ada+tag@example.org")[0])
    other = stranger(house, 1)
    other.ask(ADA)
    other.post("/link", token=link)
    assert not other.signed_in


def test_C3_a_resend_is_a_mail_like_any_other(town):
    """Ten a day, whether they are asked for by starts or by resends; and the answers don't tell."""
    for n in range(30):
        door = stranger(town, n)
        assert door.ask(ADA).status_code == 303
        for wait in (61, 121):
            town.outbox.drain()
            town.clock.advance(wait)
            assert door.post("/resend_code").status_code == 200
        town.outbox.drain()
        town.clock.advance(HOUR // 4)
    assert len(mails(town)) == 10


def test_C3_five_mails_an_hour_however_they_are_asked_for(town):
    doors = [stranger(town, n) for n in range(4)]
    for turn in range(3):
        for door in doors:
            answer = door.ask(ADA) if turn == 0 else door.post("/resend_code")
            assert answer.status_code in (200, 303)
            assert len(mails(town)) <= 5
            town.clock.advance(61)
    assert len(mails(town)) == 5


def test_C3_new_browsers_are_told_of_once_a_day(town):
    known_browser(town)  # the first of all is no news
    for n in range(5):
        town.clock.advance(2 * HOUR)
        signs_in_by_code(town, stranger(town, n))
        assert len(notices(town, "New sign-in")) == 1
    town.clock.advance(DAY)
    signs_in_by_code(town, stranger(town, 9))
    assert len(notices(town, "New sign-in")) == 2


def test_C3_copied_device_cookies_are_told_of_once_a_day(town):
    doors = [known_browser(town) for _ in range(4)]
    for n, door in enumerate(doors):
        old = door.cookie("device")
        signs_in_by_code(town, door)
        town.clock.advance(2 * MINUTE)
        thief = stranger(town, n)
        thief.client.cookies.set("__Host-device", old)
        thief.ask(ADA)
        assert len(notices(town, "no longer known")) == 1
        assert count(town, "devices") == 3 - n


# ---- C4, C5, C6: lock-outs
def test_C4_strangers_starts_leave_the_owners_code_alone(town):
    owner = town.door()
    owner.ask(ADA)
    code = owner.read_code()
    for n in range(20):
        stranger(town, n).ask(ADA)
        town.clock.advance(30)
    assert owner.enter(code).status_code == 303 and owner.signed_in


def test_C4_strangers_guesses_and_resends_leave_the_owners_tries_alone(town):
    owner = town.door()
    owner.ask(ADA)
    code = owner.read_code()
    for n in range(3):
        door = stranger(town, n)
        door.ask(ADA)
        for _ in range(6):
            door.enter(NEVER)
        town.clock.advance(61)
        door.post("/resend_code")
    assert "4 tries left" in owner.enter(wrong(code)).text
    assert owner.enter(code).status_code == 303 and owner.signed_in


MOMENTS = pytest.mark.parametrize("later", [0, 30 * MINUTE, 12 * HOUR, 22 * HOUR])
SIEGES = pytest.mark.parametrize("guesses", [0, 5], ids=["mails", "mails and codes"])


@MOMENTS
def test_C5_C6_with_all_budgets_spent_a_known_browser_gets_a_code_as_usual(town, later):
    owner = known_browser(town)
    besiege(town)
    town.clock.advance(later)
    signs_in_by_code(town, owner)
    assert len(mails(town)) == 11


@MOMENTS
@SIEGES
def test_C5_C6_with_all_budgets_spent_the_newest_link_opens_an_unknown_browser(
    town, guesses, later
):
    besiege(town, guesses=guesses)
    town.clock.advance(later)
    signs_in_by_link(town, town.door())
    assert len(mails(town)) == 10


def test_C5_spent_codes_mean_a_mail_with_a_link_and_nothing_is_compared(town):
    for n in range(4):
        door = stranger(town, n)
        door.ask(ADA)
        for _ in range(5):
            assert WRONG in door.enter(NEVER).text
        town.clock.advance(15 * MINUTE)
    door = stranger(town, 5)
    door.ask(ADA)
    with pytest.raises(LookupError):
        door.read_code()
    answers = [door.enter(f"{n:06d}") for n in range(10)]
    assert statuses(answers) == [422] * 10 and all(OFF in a.text for a in answers)
    assert door.post("/link", token=link_in(mails(town)[-1])).status_code == 303 and door.signed_in


def test_C5_the_fiftieth_wrong_code_of_a_month_ends_codes_for_the_month(town):
    compared = 0
    for _ in range(6):
        for n in range(4):
            door = stranger(town, n)
            door.ask(ADA)
            compared += sum(WRONG in door.enter(NEVER).text for _ in range(5))
        town.clock.advance(DAY)
    assert compared == 50
    town.clock.advance(20 * DAY)
    signs_in_by_link(town, town.door())
    assert "no code in this mail" in mails(town)[-1].text
    town.clock.advance(5 * DAY)
    signs_in_by_code(town, stranger(town, 7))


def test_C5_a_code_on_its_way_when_codes_end_is_refused_and_its_mails_link_works(town):
    owner = town.door()
    owner.ask(ADA)
    code, link = owner.read_code(), link_in(mails(town)[-1])
    for n in range(4):
        door = stranger(town, n)
        door.ask(ADA)
        for _ in range(5):
            door.enter(NEVER)
    answer = owner.enter(code)
    assert answer.status_code == 422 and OFF in answer.text
    assert owner.post("/link", token=link).status_code == 303 and owner.signed_in


def test_C5_one_guess_at_each_of_many_ends_codes_for_unknown_browsers_only(build):
    house = build(**DEFAULT | {"LIMIT_WRONG_FLEET": "8/1h"})
    house.add(ADA)
    owner = known_browser(house)
    for n in range(8):  # of addresses that nobody has
        door = stranger(house, n)
        door.ask(f"nobody{n}@example.org")
        assert WRONG in door.enter(NEVER).text
    door = stranger(house, 20)
    door.ask("another@example.org")
    assert OFF in door.enter(NEVER).text
    signs_in_by_code(house, owner)
    house.clock.advance(MINUTE)
    signs_in_by_link(house, house.door())
    house.clock.advance(HOUR)
    signs_in_by_code(house, stranger(house, 21))


def test_C5_a_known_browsers_wrong_codes_are_its_own(town):
    owner = known_browser(town)
    for _ in range(4):
        owner.ask(ADA)
        for _ in range(5):
            owner.enter(NEVER)
        town.clock.advance(15 * MINUTE)
    signs_in_by_code(town, stranger(town))  # the address's own budget is whole
    owner.ask(ADA)
    assert "no code in this mail" in mails(town)[-1].text
    assert owner.post("/link", token=link_in(mails(town)[-1])).status_code == 303


def again_same(house, door):
    for _ in range(3):
        door.ask(ADA)


def again_other(house, door):
    house.add(BOB)
    door.ask(BOB)
    door.ask(ADA)


def guess_wrong(house, door):
    for _ in range(12):
        door.enter(NEVER)
        door.enter("ABCDEFGHJKLM")


def resend(house, door):
    for _ in range(4):
        house.clock.advance(121)
        door.post("/resend_code")


def let_it_expire(house, door):
    house.clock.advance(HOUR)
    for _ in range(5):
        house.auth.tidy()
    door.ask(ADA)


def try_links(house, door):
    link = link_in(mails(house)[-1])
    for n in (0, 30, 77):
        door.post("/link", token=link[:n] + ("A" if link[n] != "A" else "B") + link[n + 1 :])
    door.post("/link", token=NOT_OURS)


def sign_out(house, door):
    door.post("/logout")
    door.post("/logout_everywhere")


@pytest.mark.parametrize(
    "act",
    [again_same, again_other, guess_wrong, resend, let_it_expire, try_links, sign_out],
    ids=lambda f: f.__name__,
)
@SIEGES
def test_C6_a_stranger_cant_destroy_the_last_link(town, act, guesses):
    attacker = besiege(town, guesses=guesses)
    act(town, attacker)
    assert len(mails(town)) == 10
    signs_in_by_link(town, town.door())
    assert len(mails(town)) == 10 and not attacker.signed_in


def test_C6_at_any_moment_of_a_siege_there_is_a_mail_or_a_link(town):
    owners = [f"owner{n}@example.org" for n in range(12)]
    for address in owners:
        town.add(address)
    for hour, owner in enumerate(owners):  # each gets in at another time, after a longer siege
        for turn in range(3):
            for n, address in enumerate(owners[hour:]):
                stranger(town, 40 * hour + 12 * turn + n).ask(address)
            town.outbox.drain()
            town.clock.advance(7 * MINUTE)
        signs_in_by_link(town, town.door(client=f"192.0.2.{hour}"), owner)
        town.clock.advance(100 * MINUTE)


def test_C6_the_last_link_lives_no_longer_than_its_window(town):
    besiege(town)
    last = link_in(mails(town)[-1])
    town.clock.advance(DAY)
    owner = town.door()
    owner.ask(ADA)
    assert len(mails(town)) == 11  # there is room again
    assert owner.post("/link", token=last).status_code == 410 and not owner.signed_in


def test_C6_the_last_link_works_once_and_only_where_its_address_was_asked_for(town):
    town.add(BOB)
    besiege(town)
    link = link_in(mails(town)[-1])
    bob, nobody = town.door(), town.door()
    bob.ask(BOB)
    for door in (bob, nobody):
        door.post("/link", token=link)
        assert not door.signed_in
    signs_in_by_link(town, town.door())
    late = town.door()
    late.ask(ADA)
    assert late.post("/link", token=link).status_code == 410 and not late.signed_in


@pytest.mark.parametrize(
    ("links", "days", "pace"),
    [
        ("true", "1", 12 * MINUTE),
        ("false", "", 61),
        ("false", "", 12 * MINUTE),
        ("false", "1", 61),
    ],
)
def test_C6_the_last_mail_has_its_link_whatever_links_are_set_to(build, links, days, pace):
    house = build(**DEFAULT, MAGIC_LINKS=links, MAGIC_LINK_EXPIRE_DAYS=days)
    house.add(ADA)
    for n in range(5):
        stranger(house, n).ask(ADA)
        assert len(mails(house)) == n + 1
        house.clock.advance(pace if n < 4 else MINUTE)
    signs_in_by_link(house, house.door())
    assert len(mails(house)) == 5  # and no other mail was needed


def test_C6_signing_out_everywhere_during_a_siege_does_not_lock_the_owner_out(town):
    """The very thing that a notice advises: it ends all devices and all pending sign-ins."""
    owner = known_browser(town)
    besiege(town)
    signs_in_by_code(town, owner)
    owner.post("/logout_everywhere")
    town.clock.advance(30 * MINUTE)
    signs_in_by_link(town, town.door())


def test_C6_aliases_that_spend_the_mailbox_do_not_lock_its_owner_out(build):
    house = build(**DEFAULT, SIGNUP="open")
    known_browser(house)
    for n in range(60):
        stranger(house, n).ask(f"ada+{n}@example.org")
        house.outbox.drain()
        house.clock.advance(3 * MINUTE)
    assert 20 < len(house.mailbox.messages) <= 30
    signs_in_by_link(house, house.door())


@pytest.mark.parametrize("way", ["added", "enabled"])
def test_C6_who_asked_before_they_were_let_in_gets_their_mail_then(build, way):
    """Ten starts, by themselves or by a stranger, before an admin adds them."""
    house = build(**DEFAULT)
    if way == "enabled":
        user = house.add(ADA)
        house.auth.people.disable(None, user.id, Source())
    for n in range(10):
        stranger(house, n).ask(ADA)
        house.outbox.drain()
        house.clock.advance(721)
    assert not mails(house)
    if way == "added":
        house.add(ADA)
    else:
        house.auth.people.enable(None, user.id, Source())
    signs_in_by_link(house, house.door())
    assert len(mails(house)) == 1


def test_C6_who_signs_up_under_a_plain_address_needs_no_room_among_its_aliases(build):
    house = build(**DEFAULT, SIGNUP="open")
    for n in range(40):  # tags that somebody has, and so may have more than strangers' inventions
        address = f"ada+{n}@example.org"
        house.add(address)
        stranger(house, n).ask(address)
        house.outbox.drain()
        house.clock.advance(721)
    assert len(house.mailbox.messages) > 30
    newcomer = house.door()
    newcomer.ask(ADA)
    assert newcomer.enter(newcomer.read_code()).status_code == 303 and newcomer.signed_in


# ---- C7: the provider's quota
def test_C7_strangers_spend_only_their_share_and_a_known_browser_is_mailed(build):
    house = build(**DEFAULT | {"LIMIT_MAILS_FLEET": "20/24h"}, SIGNUP="open")
    owner = known_browser(house)
    for n in range(60):
        assert stranger(house, n).ask(f"person{n}@example.org").status_code == 303
        house.outbox.drain()
        house.clock.advance(10 * MINUTE)
    assert len(house.mailbox.messages) == 19  # and the one that made the owner's browser known
    signs_in_by_code(house, owner)
    house.clock.advance(DAY)
    signs_in_by_code(house, stranger(house), "person1@example.org")


def test_C7_addresses_that_are_never_mailed_spend_nothing(build):
    house = build(**DEFAULT | {"LIMIT_MAILS_FLEET": "5/24h"})
    house.add(ADA)
    for n in range(40):
        stranger(house, n).ask(f"nobody{n}@example.org")
        house.outbox.drain()
    assert house.mailbox.messages == []
    signs_in_by_code(house, house.door())


def test_C7_known_browsers_do_not_spend_the_share_of_the_others(build):
    house = build(**DEFAULT | {"LIMIT_MAILS_FLEET": "3/24h"})
    house.add(ADA)
    house.add(BOB)
    owner = known_browser(house)
    for _ in range(6):
        house.clock.advance(20 * MINUTE)
        signs_in_by_code(house, owner)
    signs_in_by_code(house, house.door(), BOB)


def test_C7_starts_that_could_not_be_mailed_do_not_lock_the_owner_out_afterwards(build):
    """A spent quota, then one address's own mails: nothing leaves, so there is no link either."""
    house = build(**DEFAULT | {"LIMIT_MAILS_FLEET": "20/24h"})
    house.add(ADA)
    for n in range(20):
        house.add(f"person{n}@example.org")
        stranger(house, n).ask(f"person{n}@example.org")
    house.outbox.drain()
    assert len(house.mailbox.messages) == 20
    house.clock.advance(DAY - 2 * HOUR)
    for n in range(10):
        house.clock.advance(HOUR if n == 5 else 61)
        stranger(house, 30 + n).ask(ADA)
        assert mails(house) == []
    house.clock.advance(HOUR)  # a new day: there is room for twenty more
    house.add(BOB)
    signs_in_by_code(house, stranger(house, 50), BOB)
    signs_in_by_link(house, house.door())


def test_C7_one_member_who_signs_in_all_day_does_not_empty_the_quota(build):
    house = build(**DEFAULT | {"LIMIT_STARTS_PER_IP": "100000/1h"})
    house.add(ADA)
    door = house.door()
    for _ in range(120):
        door.ask(ADA)
        house.outbox.drain()
        with suppress(LookupError):
            door.enter(house.mailbox.latest_code(ADA))
        house.clock.advance(400)
    assert len(mails(house)) <= 51  # and one notice, or none


# ---- C8: who asks
BEHIND = DEFAULT | {"TRUSTED_PROXIES": "10.0.0.0/8"}


def test_C8_a_direct_client_cant_choose_its_address(town):
    door, answers = stranger(town), []
    for n in range(200):
        headers = {
            "X-Forwarded-For": f"203.0.113.{n}",
            "X-Real-IP": f"203.0.113.{n}",
            "Forwarded": f"for=203.0.113.{n}",
            "CF-Connecting-IP": f"203.0.113.{n}",
        }
        answers.append(door.post("/create_code", headers, email=f"p{n}@example.org"))
    assert statuses(answers) == [303] * 30 + [429] * 170
    assert 0 < int(answers[30].headers["retry-after"]) <= 600
    assert "many sign-ins from your network" in answers[30].text
    assert stranger(town, 1).ask(ADA).status_code == 303


@pytest.mark.parametrize(
    "lines",
    [
        ["{spoof}, 198.51.100.7"],
        ["{spoof}", "198.51.100.7"],
        ["{spoof}, 198.51.100.7, 10.9.9.9"],
        ["{spoof}", "198.51.100.7", "10.9.9.9"],
        ["garbage{spoof}, 198.51.100.7"],
        ["{spoof}", "::ffff:198.51.100.7"],
    ],
)
def test_C8_behind_a_proxy_the_right_most_untrusted_hop_counts(build, lines):
    house = build(**BEHIND)
    door = house.door(client="10.0.0.1")
    answers = []
    for n in range(32):
        sent = [line.format(spoof=f"203.0.113.{n}") for line in lines]
        answers.append(with_forwarded(door, "/create_code", sent, email=f"p{n}@example.org"))
    assert statuses(answers) == [303] * 30 + [429] * 2
    others = [
        ["198.51.101.7"],
        ["198.51.100.7, 192.0.2.77"],
        [],
    ]  # as the proxy might say of others
    for sent in others:
        assert with_forwarded(door, "/create_code", sent, email=ADA).status_code == 303


def test_C8_a_chain_that_is_no_chain_counts_as_the_peer(build):
    house = build(**BEHIND)
    door = house.door(client="10.0.0.1")
    chains = ["unknown", "", "1.2.3.4,", "1.2.3.{n}:443", "[2001:db8::{n}]", "' or 1=1 --{n}"]
    answers = [
        with_forwarded(
            door, "/create_code", [f"203.0.113.{n}, " + chains[n % 6].format(n=n)], email=ADA
        )
        for n in range(32)
    ]
    assert statuses(answers) == [303] * 30 + [429] * 2


V4, V6 = ip_network("10.0.0.0/8"), ip_network("fd00::/8")


@pytest.mark.parametrize(
    ("peer", "lines", "client"),
    [
        ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),
        ("203.0.113.9", [], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["\t1.2.3.4 "], "1.2.3.4"),
        ("10.0.0.1", ["9.9.9.9, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["9.9.9.9", "1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["9.9.9.9, 1.2.3.4, 10.1.1.1", "10.2.2.2,10.3.3.3"], "1.2.3.4"),
        ("10.0.0.1", ["nonsense, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["9.9.9.9, " * 5000 + "1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["10.7.7.7, 10.8.8.8"], "10.7.7.7"),
        ("10.0.0.1", ["1.2.3.4, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4, nonsense, 10.1.1.1"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4,"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4:443"], "10.0.0.1"),
        ("10.0.0.1", ["[2001:db8::1]"], "10.0.0.1"),
        ("10.0.0.1", ["01.2.3.4"], "10.0.0.1"),
        ("10.0.0.1", ["0x7f.1"], "10.0.0.1"),
        ("10.0.0.1", ["16909060"], "10.0.0.1"),
        ("10.0.0.1", ["１.2.3.4"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4\x85"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.0/24"], "10.0.0.1"),
        ("10.0.0.1", ["::ffff:1.2.3.4"], "1.2.3.4"),
        ("::ffff:10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["1.2.3.4, ::ffff:10.1.1.1"], "1.2.3.4"),
        ("fd00::1", ["2001:db8::5"], "2001:db8::5"),
        ("fd00::1", ["1.2.3.4, fe80::1%eth0"], "fe80::1"),
        ("fe80::1%eth0", ["1.2.3.4"], "fe80::1%eth0"),
        ("", ["1.2.3.4"], ""),
        ("testclient", ["1.2.3.4"], "testclient"),
    ],
)
def test_C8_the_client_of_a_chain(peer, lines, client):
    assert client_of(peer, lines, (V4, V6)) == client
    assert client_of(peer, lines, ()) == peer


@pytest.mark.parametrize(
    "value",
    [
        "*",
        "0.0.0.0/0",
        "::/0",
        "0.0.0.0/1,128.0.0.0/1",
        "10.0.0.0/8, *",
        "all",
        "2000::/3",
        "1.2.3",
    ],
)
def test_C8_nobody_may_trust_everybody(tmp_path, value, capsys):
    with pytest.raises(SystemExit) as stopped:
        settings.load(environment("", tmp_path, TRUSTED_PROXIES=value), None)
    said = capsys.readouterr().err
    assert stopped.value.code == 78 and said.startswith("TRUSTED_PROXIES: ")


def test_C8_a_process_that_is_to_trust_everybody_does_not_start(tmp_path):
    status, said, _, is_open = start(GOOD | {"TRUSTED_PROXIES": "*"}, tmp_path)
    assert (status, is_open) == (78, False) and "TRUSTED_PROXIES" in said


# ---- C9: networks
@pytest.mark.parametrize(
    ("client", "networks"),
    [
        ("192.0.2.77", ("192.0.2.77/32", "192.0.2.0/24")),
        ("::ffff:192.0.2.77", ("192.0.2.77/32", "192.0.2.0/24")),
        ("2001:db8:1:2:3:4:5:6", ("2001:db8:1:2::/64", "2001:db8:1::/48")),
        ("2001:db8:1:2::", ("2001:db8:1:2::/64", "2001:db8:1::/48")),
        ("fe80::1%eth0", ("fe80::/64", "fe80::/48")),
        ("fe80::1%25any/thing", ("fe80::/64", "fe80::/48")),
        ("nonsense", ("", "")),
        ("", ("", "")),
    ],
)
def test_C9_the_networks_of_a_client(client, networks):
    assert networks_of(client) == networks


def test_C9_a_thousand_addresses_of_one_network_are_one_client(build):
    house = build(**BEHIND)
    door = house.door(client="10.0.0.1")
    answers = [
        with_forwarded(
            door, "/create_code", [f"2001:db8:1:2:{n:x}::{n:x}"], email=f"p{n}@example.org"
        )
        for n in range(1000)
    ]
    assert statuses(answers) == [303] * 30 + [429] * 970


def test_C9_a_zone_or_a_way_of_writing_is_no_other_client(build):
    house = build(**BEHIND | {"LIMIT_STARTS_PER_IP": "4/10m"})
    door = house.door(client="10.0.0.1")
    for ways in (
        ["fe80::1%a", "fe80::1%b", "fe80::2%c", "fe80::3", "fe80::4%d"],
        ["192.0.2.7", "::ffff:192.0.2.7", "::FFFF:c000:207", "0::ffff:192.0.2.7", "192.0.2.7"],
    ):
        answers = [with_forwarded(door, "/create_code", [way], email=ADA) for way in ways]
        assert statuses(answers) == [303] * 4 + [429]


def test_C9_clients_without_an_address_are_one_client(town):
    """A Unix socket's peer, or whatever else a server says."""
    answers = [town.door(client="unix").ask(f"p{n}@example.org") for n in range(20)]
    answers += [town.door(client="").ask(f"q{n}@example.org") for n in range(12)]
    assert statuses(answers) == [303] * 30 + [429] * 2
    assert town.door(client="unix").post("/link", token=NOT_OURS).status_code == 422
    assert stranger(town).ask(ADA).status_code == 303


WIDER = [("2001:db8:9:{:x}::1", "2001:db8:a::1", 5), ("198.51.100.{}", "198.51.101.1", 10)]


@pytest.mark.parametrize(("client", "neighbour", "times"), WIDER, ids=["ipv6", "ipv4"])
def test_C9_the_wider_network_has_a_limit_of_its_own(build, client, neighbour, times):
    narrow = {"LIMIT_STARTS_PER_IP": "3/10m", "LIMIT_WRONG_PER_IP": "4/10m"}
    house = build(**BEHIND | narrow)
    door = house.door(client="10.0.0.1")
    acts = (("/create_code", {"email": ADA}, 3, 303), ("/link", {"token": NOT_OURS}, 4, 422))
    for path, fields, most, fine in acts:
        answers = [
            with_forwarded(door, path, [client.format(n)], **fields)
            for n in range(most * times + 5)
        ]
        assert statuses(answers) == [fine] * (most * times) + [429] * 5
        assert int(answers[-1].headers["retry-after"]) > 0
        assert with_forwarded(door, path, [neighbour], **fields).status_code == fine


# ---- C10: races
def test_C10_of_a_hundred_at_once_exactly_ten_start_also_after_kill_9(serve):
    limits = {"LIMIT_STARTS_PER_IP": "10/1h", "MAIL_BACKEND": "none"}
    servers = [serve(**limits) for _ in range(2)]

    def ask(i):
        return Tab(*servers).post("/create_code", at=i % 2, email=f"p{i}@example.org").status_code

    answers = together(100, ask)
    assert (answers.count(303), answers.count(429)) == (10, 90), answers
    for server in servers:
        server.kill()
    refused = Tab(serve(**limits)).post("/create_code", email=ADA)
    assert refused.status_code == 429 and 0 < int(refused.headers["retry-after"]) <= HOUR


def test_C10_wrong_codes_of_one_account_are_compared_exactly_so_often(serve):
    limits = {"LIMIT_WRONG_PER_ACCOUNT": "10/24h", "MAIL_BACKEND": "none", "SIGNUP": "open"}
    servers = [serve(**limits) for _ in range(2)]
    tabs = [Tab(*servers) for _ in range(12)]
    for tab in tabs:
        assert tab.post("/create_code", email=ADA).status_code == 303

    def guess(i):
        headers = {"Sec-Fetch-Site": "same-origin"}
        tab = tabs[i % 12]
        return tab.send(
            "POST", "/verify_code", i // 12 % 2, headers, keep=False, data={"code": NEVER}
        )

    answers = together(48, guess)
    assert statuses(answers) == [422] * 48
    texts = [answer.text for answer in answers]
    assert sum(WRONG in text for text in texts) == 10
    assert sum(OFF in text for text in texts) == 38


# ---- C11: tables
def fill(house, n, seconds, batch=100):
    """n counters of as many strangers, with keys as long as most are."""
    whom, now = house.auth.keys.subject, int(house.clock())
    with house.db.tx() as t:
        for i in range(0, n, batch):
            keys = (
                f"{whom(f'{seconds} {j}')} starts-client/{seconds}" for j in range(i, i + batch)
            )
            assert len(budgets.take(t, [Count(key, 5, seconds) for key in keys], now)) == batch


def size_of_counters(house, tmp_path):
    """(bytes, with its indexes)"""
    file = tmp_path / "vestibule.db"
    if file.exists():
        house.db.q("pragma wal_checkpoint(truncate)")
        return file.stat().st_size, file.stat().st_size
    sql = "select pg_relation_size('counters') as own, pg_total_relation_size('counters') as total"
    return tuple(house.db.q(sql)[0].values())


def count(house, table):
    return house.db.q(f"select count(*) as n from {table}")[0]["n"]


# A file and a table in which nothing was deleted before.
@pytest.mark.unused
def test_C11_a_hundred_thousand_counters_are_small_and_only_the_ended_are_purged(house, tmp_path):
    now, before = int(house.clock()), size_of_counters(house, tmp_path)
    fill(house, 30_000, MINUTE)
    fill(house, 70_000, HOUR)
    grown = [n - b for n, b in zip(size_of_counters(house, tmp_path), before, strict=True)]
    db = Overheard(house.db)
    assert budgets.purge(db, now + MINUTE - 1, 5_000) == 0
    assert budgets.purge(db, now + MINUTE, 5_000) == sum(db.deleted) == 30_000
    assert max(db.deleted) <= 5_000  # nobody waits for all of it
    live = house.db.q("select count(*) as n from counters where ends_at = :end", end=now + HOUR)
    assert live[0]["n"] == count(house, "counters") == 70_000
    assert grown[0] < 10_000_000 and grown[1] < 20_000_000, grown


def test_C11_a_counters_key_is_short_and_names_nobody(build):
    house = build(**DEFAULT, SIGNUP="open")
    long = f"{'victim' * 10}@{'d' * 60}.{'e' * 60}.example"
    for address in (long, "a@b.example"):
        door = stranger(house)
        assert door.ask(address).status_code == 303
        door.enter(NEVER)
        door.post("/link", token=NOT_OURS)
    keys = [row["key"] for row in house.rows("counters")]
    assert len(keys) > 15 and max(map(len, keys)) <= 64
    text = " ".join(keys)
    assert not [word for word in ("victim", "example", "b.ex", "11.0", "@") if word in text]


def test_C11_housekeeping_keeps_up_with_what_a_flood_leaves_behind(house):
    """Ten minutes of thousands of starts by strangers, and then the app tidies once."""
    fill(house, 20_000, MINUTE)
    house.clock.advance(HOUR)
    house.auth.tidy()
    assert count(house, "counters") == 0


def test_C11_tidying_removes_what_has_ended_and_nothing_live(town):
    tables = ("challenges", "sessions", "devices", "counters", "reviewers")
    old = town.door()
    old.sign_in(ADA)
    town.auth.people.add_reviewer(None, "old@example.org", 1, "192.0.2.0/24", Source())
    stranger(town).ask("nobody@example.org")
    town.clock.advance(181 * DAY)
    ended = {table: count(town, table) for table in tables}
    assert all(ended.values()), ended
    town.add(BOB)
    town.auth.people.add_reviewer(None, "new@example.org", 1, "192.0.2.0/24", Source())
    new, waiting = town.door(), stranger(town, 1)
    signs_in_by_code(town, new, BOB)
    town.clock.advance(61)
    waiting.ask(BOB)
    code = waiting.read_code()
    now = int(town.clock())
    over = town.db.q("select count(*) as n from counters where ends_at <= :now", now=now)[0]["n"]
    live = {table: count(town, table) - ended[table] for table in tables}
    live["counters"] = count(town, "counters") - over  # one that is taken again is the same row
    none = {"invitations": 0, "moves": 0}
    assert town.auth.tidy() == ended | none | {"counters": over} and all(live.values())
    assert {table: count(town, table) for table in tables} == live
    assert new.signed_in and not old.signed_in
    assert waiting.enter(code).status_code == 303 and waiting.signed_in
    again = town.auth.tidy()  # what that sign-in gave back had ended
    assert again.pop("counters") < 8 and not any(again.values())
    assert not any(town.auth.tidy().values())


def test_C11_counters_that_were_tidied_away_too_early_would_forget_so_they_are_not(town):
    door = stranger(town)
    answers = [door.ask(f"p{n}@example.org") for n in range(31)]
    assert answers[-1].status_code == 429
    town.clock.advance(599)
    town.auth.tidy()
    assert door.ask(ADA).status_code == 429
    town.clock.advance(1)
    town.auth.tidy()
    assert door.ask(ADA).status_code == 303


def test_C11_an_operator_purges_by_hand_and_reads_how_many(build, database_url, tmp_path):
    house = build(clock=Clock(time.time() - 200 * DAY), **DEFAULT)
    house.add(ADA)
    house.door().sign_in(ADA)
    house.auth.people.add_reviewer(None, BOB, 1, "192.0.2.0/24", Source())
    tables = ("challenges", "counters", "devices", "reviewers", "sessions")
    gone = {t: count(house, t) for t in tables}
    gone["mails"] = count(house, "outbox")

    def purge():
        keep = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
        env = keep | environment(database_url, tmp_path)
        done = nursery.run(ROOT / "manage.py", "purge", cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert all(gone.values())
    said = purge()
    assert {f"{n} {table}" for table, n in gone.items()} <= set(said)
    assert not any(count(house, table) for table in ("outbox", *gone) if table != "mails")
    assert count(house, "users") == 3
    assert not any(word[0] in "123456789" for line in purge() for word in line.split())


# ---- C12: an office behind one address
def test_C12_sixty_known_browsers_behind_one_spent_address_all_sign_in(town):
    people = [f"clerk{n}@example.org" for n in range(60)]
    doors = []
    for n, address in enumerate(people):
        town.add(address)
        doors.append(known_browser(town, address, client=f"12.0.{n}.1"))
    office = "203.0.113.9"
    guest = town.door(client=office)
    assert 429 in statuses([guest.ask(f"p{n}@example.org") for n in range(31)])
    assert 429 in statuses([guest.post("/link", token=NOT_OURS) for _ in range(21)])
    for door, address in zip(doors, people, strict=True):
        moved = town.door(client=office)
        moved.client.cookies.update(door.client.cookies)
        signs_in_by_code(town, moved, address)


def test_C12_a_device_cookie_helps_only_for_its_own_person_and_has_limits_too(town):
    thief = known_browser(town, client="203.0.113.9")
    answers = [thief.ask(f"p{n}@example.org") for n in range(32)]
    assert statuses(answers)[-2:] == [429, 429]
    own = [thief.ask(ADA) for _ in range(32)]
    assert statuses(own) == [303] * 30 + [429] * 2
    forger = town.door(client="203.0.113.9")
    forger.client.cookies.set("__Host-device", "0" * 32 + "A" * 43)
    assert forger.ask(ADA).status_code == 429


def test_C12_a_clients_limit_slows_and_kills_nothing(town):
    """The 429 costs no try of a sign-in that waits, and ends with its window."""
    owner, stranger_here = town.door(client="203.0.113.9"), town.door(client="203.0.113.9")
    owner.ask(ADA)
    code = owner.read_code()
    for n in range(4):
        stranger_here.ask(f"p{n}@example.org")
        for _ in range(5):
            assert WRONG in stranger_here.enter(NEVER).text
    refused = [owner.enter(code) for _ in range(7)]
    assert statuses(refused) == [429] * 7
    assert "Your code stays as it is" in refused[0].text and 'id="code"' in refused[0].text
    assert owner.get("/verify_code").status_code == 200
    rows = town.db.q("select total_tries, used_at from challenges where address = :a", a=ADA)
    assert rows == [{"total_tries": 0, "used_at": None}]
    town.clock.advance(int(refused[0].headers["retry-after"]))
    assert "4 tries left" in owner.enter(wrong(code)).text
    assert owner.enter(code).status_code == 303 and owner.signed_in


def test_C12_a_refused_start_leaves_the_browsers_old_one_as_it_is(town):
    owner = town.door(client="203.0.113.9")
    owner.ask(ADA)
    code = owner.read_code()
    other = town.door(client="203.0.113.9")
    for n in range(30):
        other.ask(f"p{n}@example.org")
    assert owner.ask(ADA).status_code == 429
    assert owner.ask(BOB).status_code == 429
    assert owner.enter(code).status_code == 303 and owner.signed_in


def test_C12_a_clients_spent_guesses_leave_the_mailed_link(town):
    owner = town.door(client="203.0.113.9")
    owner.ask(ADA)
    link = link_in(mails(town)[-1])
    assert 429 in statuses([owner.post("/link", token=NOT_OURS) for _ in range(21)])
    assert owner.post("/link", token=link).status_code == 303 and owner.signed_in


# ---- C13: the price of a no
def test_C13_a_refused_start_runs_less_than_one_that_is_not(town):
    source = Source("198.51.100.0/24", "", "198.51.100.7/32")
    rules, heard = town.overheard()
    prices = []
    for n in range(35):
        heard.clear()
        with suppress(Refused):
            rules.create_code(f"p{n}@example.org", "/", Browser(source=source))
        prices.append(len(heard))
        writes = [s for s, _ in heard if s.startswith("insert") and "counters" not in s]
        assert bool(writes) is (n < 30)
    assert len(set(prices[:30])) == len(set(prices[30:])) == 1
    assert 0 < prices[30] < prices[0]


def test_C13_a_refused_guess_runs_no_more_than_a_wrong_one(town):
    source = Source("198.51.100.0/24", "", "198.51.100.7/32")
    rules, heard = town.overheard()
    for n in range(21):
        if n % 5 == 0:
            elsewhere = Source("11.0.0.0/24", "", f"11.0.0.{n}/32")
            token, _ = rules.create_code(f"p{n}@example.org", "/", Browser(source=elsewhere))
        heard.clear()
        with pytest.raises(Refused) as refused:
            rules.verify_code(NEVER, "", Browser(token, source=source))
        if n == 0:
            price = len(heard)
    assert refused.value.reason == "too_many_wrong" and len(heard) <= price
    assert not any(s.startswith("insert into events") for s, _ in heard)


def test_C13_a_refused_start_writes_nothing_and_draws_no_code_page(town):
    door = stranger(town, htmx=True)
    for n in range(30):
        assert 'id="code"' in door.ask(f"p{n}@example.org").text
    tables = ("challenges", "outbox", "events", "counters", "users")
    before = {table: sorted(map(repr, town.rows(table))) for table in tables}
    drawn, code = [], town.templates.code
    town.templates.code = lambda *args, **more: drawn.append(args) or code(*args, **more)
    for n in range(30):
        answer = door.ask(f"q{n}@example.org")
        assert answer.status_code == 429 and 'id="code"' not in answer.text
        assert "set-cookie" not in answer.headers
    assert not drawn
    assert {table: sorted(map(repr, town.rows(table))) for table in tables} == before
    town.clock.advance(600)
    door.ask(ADA)
    assert drawn  # the ear was at the right door


# ---- with nothing set
def test_V6_every_limit_is_on_when_none_is_set(town):
    written = environment("", "data")
    unset = {name: value for name, value in written.items() if not name.startswith("LIMIT_")}
    found, faults = settings.check(settings.read(unset, None))
    assert not faults
    policy = Policy()
    assert found.limit_starts_per_ip == policy.starts_per_ip == ((30, 600), (200, DAY))
    assert found.limit_wrong_per_ip == policy.wrong_per_ip == ((20, 600), (100, DAY))
    assert found.limit_mails_per_address == policy.mails_per_address
    assert policy.mails_per_address == ((1, 60), (5, HOUR), (10, DAY))
    assert found.limit_wrong_per_account == policy.wrong_per_account
    assert policy.wrong_per_account == ((20, DAY), (50, 30 * DAY))
    assert found.limit_wrong_fleet == policy.wrong_fleet == ((100, HOUR),)
    assert found.limit_mails_fleet == policy.mails_fleet == ((400, DAY),)
    assert (town.auth.policy.wide_ipv4, town.auth.policy.wide_ipv6) == (10, 5)
    assert town.auth.policy.starts_per_ip == policy.starts_per_ip


def test_V6_a_client_has_two_hundred_starts_and_a_hundred_wrong_codes_a_day(town):
    door, starts, guesses = stranger(town), [], []
    for n in range(11):
        starts += statuses([door.ask(f"p{n}{i}@example.org") for i in range(19)])
        guesses += statuses([door.post("/link", token=NOT_OURS) for _ in range(19)])
        town.clock.advance(601)
    assert (starts.count(303), guesses.count(422)) == (200, 100)
    assert set(starts[200:]) == set(guesses[100:]) == {429}
    refused = door.ask(ADA)
    assert HOUR < int(refused.headers["retry-after"]) <= DAY
    town.clock.advance(int(refused.headers["retry-after"]))
    assert door.ask(ADA).status_code == 303


@pytest.mark.parametrize(
    "value", ["0/1h", "off", "none", "-1", "5", "5/0s", "*", "10/1h,10/1h", ","]
)
def test_V6_no_limit_can_be_switched_off(tmp_path, value):
    names = [s.name for s in settings.SETTINGS if s.name.startswith("LIMIT_")]
    written = environment("", tmp_path, **dict.fromkeys(names, value))
    _, faults = settings.check(settings.read(written, None))
    assert len(names) == 6 and sorted(faults) == sorted(names)
