"""A code that stays the same, for who tests an app for its store: off by default, narrow, and over by itself."""

import re
import time
from threading import Thread

import pytest

from auth import Refused
from auth.events import Source
from auth.known import Browser
from tests.conftest import ADMIN
from tests.reading import refused
from tests.test_api import problem
from tests.test_manage import commands

ADA, TESTER = "ada@example.org", "appstore@example.com"
NETWORK, INSIDE, OUTSIDE = "198.51.100.0/24", "198.51.100.77", "192.0.2.1"
CODE = re.compile(r"[A-Z2-7]{12}")
DAY = 86400

sqlite_is_enough = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def review(house):
    """review(days=…, network=…) → the code of a reviewer."""

    def add(days=14.0, network=NETWORK, address=TESTER):
        return house.auth.people.add_reviewer(None, address, days, network, Source())[1]

    return add


def enters(house, code, client=INSIDE, address=TESTER):
    """(the program, the answer) of a sign-in with that code."""
    program = house.program(client=client)
    assert program.ask(address).status_code == 202
    return program, program.enter(code)


def row(house, table="challenges"):
    """The newest."""
    return max(house.rows(table), key=lambda row: (row["issued_at"], row["id"]))


# ---- what works
def test_a_reviewer_signs_in_with_the_code_that_stays(house, review):
    code = review()
    assert CODE.fullmatch(code)
    for _ in range(3):  # the same one, as often as they like
        program, answer = enters(house, code)
        assert answer.status_code == 200 and program.signed_in
        user = answer.json()["user"]
        assert (user["email"], user["role"], user["tenant"]) == (TESTER, "user", None)
    assert program.refresh().status_code == 200
    # As people type it.
    assert enters(house, f" {code[:4].lower()}-{code[4:8]} {code[8:]}\n")[1].status_code == 200


def test_there_is_none_unless_somebody_made_one(house, review):
    assert house.rows("reviewers") == []
    house.add(ADA)
    code = review()
    for address in (ADA, ADMIN, "nobody@example.org"):  # and it is good for one person
        assert problem(enters(house, code, address=address)[1]) == (422, "code_malformed")


def test_the_mailed_code_works_beside_it(house, review):
    review()
    program = house.program(client=OUTSIDE)
    program.sign_in(TESTER)
    house.clock.advance(20 * DAY)
    assert (
        program.refresh().status_code == 200
    )  # no reviewer's session: it does not end with theirs


def test_an_ipv6_network(house, review):
    code = review(network="2001:db8:1::/48")
    assert enters(house, code, client="2001:db8:1:ffff::7")[1].status_code == 200
    assert problem(enters(house, code, client="2001:db8:2::7")[1]) == (422, "code_malformed")


# ---- what does not
def test_the_code_is_nothing_from_elsewhere(house, review):
    code = review()
    for client in (OUTSIDE, "198.51.101.1", "2001:db8::1", "not-an-address"):
        program, answer = enters(house, code, client=client)
        assert problem(answer) == (422, "code_malformed") and not program.signed_in
    # Nobody chooses their network by a header.
    program = house.program(client=OUTSIDE)
    program.client.headers["X-Forwarded-For"] = INSIDE
    program.ask(TESTER)
    assert problem(program.enter(code)) == (422, "code_malformed")
    assert house.rows("sessions") == []


def test_a_network_behind_a_trusted_proxy(build):
    house = build(TRUSTED_PROXIES="10.0.0.0/8")
    code = house.auth.people.add_reviewer(None, TESTER, 1, NETWORK, Source())[1]
    for seen, status in ((INSIDE, 200), (OUTSIDE, 422), (f"{INSIDE}, {OUTSIDE}", 422)):
        program = house.program(client="10.0.0.1")
        program.client.headers["X-Forwarded-For"] = seen
        program.ask(TESTER)
        assert program.enter(code).status_code == status


def test_the_code_is_nothing_in_a_browser(house, review):
    code, door = review(), house.door(client=INSIDE)
    door.ask(TESTER)
    answer = door.enter(code)
    assert answer.status_code == 422 and not door.signed_in
    assert house.rows("sessions") == []
    assert door.enter(door.read_code()).status_code == 303  # no harm was done


def test_the_code_and_its_sessions_end(house, review):
    code = review(days=2)
    program, answer = enters(house, code)
    house.clock.advance(2 * DAY - 1)
    late, answer = enters(house, code)
    assert answer.status_code == 200 and late.signed_in
    assert program.refresh().status_code == 200 and program.signed_in
    house.clock.advance(1)
    for one in (program, late):
        assert problem(one.get("/auth/me")) == (401, "invalid_token")
        assert problem(one.refresh()) == (401, "invalid_token")
    assert problem(enters(house, code)[1]) == (422, "code_malformed")
    house.auth.tidy()
    assert house.rows("reviewers") == house.rows("sessions") == []


@pytest.mark.parametrize("right", ["role", "membership"])
def test_the_code_opens_nothing_that_has_rights(house, review, right):
    code, people, rules = review(), house.auth.people, house.auth.organisations
    id = people.by_address(TESTER).id
    club = rules.create(None, "Chess club", ADMIN, Source()).id
    before, _ = enters(house, code)
    assert before.signed_in
    if right == "role":
        people.set_role(None, id, "admin", Source())
    else:
        rules.join(None, club, TESTER, "user", Source())
    # What it had opened has ended, and so has the code, for good.
    assert problem(before.get("/auth/me")) == (401, "invalid_token")
    assert problem(before.refresh()) == (401, "invalid_token")
    assert house.rows("sessions") == house.rows("reviewers") == []
    if right == "role":
        people.set_role(None, id, "user", Source())
    else:
        rules.leave(None, club, TESTER, Source())
    program, answer = enters(house, code)
    assert problem(answer) == (422, "code_malformed") and not program.signed_in


def test_a_new_code_takes_the_old_one_away_from_a_sign_in_under_way(house, review):
    code, rules = review(), house.auth.signin
    program = house.program(client=INSIDE)
    program.ask(TESTER)
    admit = type(rules)._admit

    class Slow(type(rules)):
        def _admit(self, *args):
            review()  # between the look at the code and the session
            return admit(self, *args)

    slow = Slow(*(getattr(rules, f) for f in ("db", "keys", "send", "clock", "policy")))
    browser = Browser(program.device_secret, source=Source(client=f"{INSIDE}/32"), app=True)
    with pytest.raises(Refused) as refused:
        slow.verify_in_app(program.challenge, code, browser)
    assert refused.value.reason == "code_expired" and house.rows("sessions") == []


@pytest.mark.parametrize("end", ["disable", "delete"])
def test_a_reviewer_can_be_ended_early(house, review, end):
    code = review()
    program, _ = enters(house, code)
    people = house.auth.people
    getattr(people, end)(None, people.by_address(TESTER).id, Source())
    assert not program.signed_in and program.refresh().status_code == 401
    assert enters(house, code)[1].status_code in (401, 422)
    if end == "delete":  # the same address, added again, is another person
        house.add(TESTER)
        assert problem(enters(house, code)[1]) == (422, "code_malformed")


def test_once_more_is_a_new_code_in_place_of_the_old(house, review):
    old = review()
    program, _ = enters(house, old)
    new = review()
    assert new != old and len(house.rows("reviewers")) == 1
    assert not program.signed_in
    assert problem(program.refresh()) == (401, "invalid_token")
    assert problem(enters(house, old)[1]) == (422, "code_malformed")
    assert enters(house, new)[1].status_code == 200


def test_a_wrong_code_costs_no_try(house, review):
    code, program = review(), house.program(client=INSIDE)
    program.ask(TESTER)
    wrong = ("B" if code[0] == "A" else "A") + code[1:]
    for _ in range(30):
        assert problem(program.enter(wrong)) == (422, "code_malformed")
    assert row(house)["total_tries"] == 0
    assert program.enter(code).status_code == 200
    assert problem(program.enter(code)) == (401, "used")
    # Nothing was counted, so nothing was given back that wrong digits had cost.
    house.clock.advance(1)
    other = house.program(client=INSIDE)
    other.ask(TESTER)
    mailed = other.read_code()
    other.enter("000000" if mailed != "000000" else "111111")
    before = {c["key"]: c["n"] for c in house.rows("counters") if " wrong" in c["key"]}
    assert any(before.values())
    assert other.enter(code).status_code == 200 and row(house)["total_tries"] == 1
    after = {c["key"]: c["n"] for c in house.rows("counters") if " wrong" in c["key"]}
    assert after == before


def test_an_attempt_without_tries_or_time_is_over_for_the_code_too(house, review):
    code, program = review(), house.program(client=INSIDE)
    program.ask(TESTER)
    mailed = program.read_code()
    for _ in range(5):
        program.enter("000000" if mailed != "000000" else "111111")
    assert program.enter(code).status_code == 422
    late = house.program(client=INSIDE)
    late.ask(TESTER)
    house.clock.advance(901)
    assert late.enter(code).status_code in (401, 422) and not house.rows("sessions")


def test_where_digits_are_off_the_code_still_works(build):
    house = build(LIMIT_WRONG_PER_ACCOUNT="1/24h")
    code = house.auth.people.add_reviewer(None, TESTER, 1, NETWORK, Source())[1]
    guesser = house.program(client=OUTSIDE)
    guesser.ask(TESTER)
    mailed = guesser.read_code()
    guesser.enter("000000" if mailed != "000000" else "111111")
    assert enters(house, code)[1].status_code == 200


def test_the_start_looks_like_every_other(house, review):
    review()
    house.add(ADA)
    seen = []
    for address in (TESTER, ADA, "nobody@example.org"):
        answer = house.program(client=INSIDE).ask(address)
        body = answer.json()
        same = {"message": body["message"], "expires_in": body["expires_in"]}
        lengths = {name: len(value) for name, value in body.items() if isinstance(value, str)}
        seen.append((answer.status_code, sorted(answer.headers), same, lengths))
    assert seen[0] == seen[1] == seen[2]


# ---- making one
def test_it_is_in_the_audit_log(house, review):
    code = review()
    enters(house, code)
    made, used = (
        [(e["subject"], e["detail"], e["network"]) for e in house.rows("events") if e["kind"] == k]
        for k in ("user_review_account", "authn_login_success")
    )
    ends = int(house.clock() + 14 * DAY)
    assert made == [(TESTER, f"{NETWORK} until {ends}", "")]
    assert used == [(TESTER, "app review", NETWORK)]
    for table in ("events", "reviewers", "outbox", "sessions"):
        assert code not in str(house.rows(table))


@sqlite_is_enough
@pytest.mark.parametrize(
    "network",
    [
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/7",
        "2000::/3",
        "2a00::/11",
        "fe80::%1/64",
        "192.0.2.0/255.255.255.0",
        "192.0.2.1/24",
        "2001:db8::1",
        "*",
        "",
        "x",
    ],
)
def test_a_network_that_is_none_of_theirs_is_refused(house, network):
    add = house.auth.people.add_reviewer
    assert refused(add, None, TESTER, 1, network, Source()) == "review_network"
    assert house.rows("reviewers") == [] and len(house.rows("users")) == 1


@sqlite_is_enough
@pytest.mark.parametrize("days", [0, -1, 90.001, 1e6, float("nan"), float("inf")])
def test_too_many_days_are_refused(house, days):
    add = house.auth.people.add_reviewer
    assert refused(add, None, TESTER, days, NETWORK, Source()) == "review_days"
    assert house.rows("reviewers") == []


def test_who_has_rights_cant_be_one(house):
    people, rules = house.auth.people, house.auth.organisations
    house.add(ADA)
    rules.create(None, "Chess club", ADA, Source())
    for address in (ADMIN, ADA):
        assert refused(people.add_reviewer, None, address, 1, NETWORK, Source()) == "review_rights"
    assert house.rows("reviewers") == []
    ada = people.by_address(ADA)
    assert refused(people.add_reviewer, ada, TESTER, 1, NETWORK, Source()) == "not_admin"


def test_the_code_lives_through_a_new_secret_key(build):
    old = "an-older-key-of-ours-4c1f9b2e7d605a38"
    house = build(SECRET_KEY=old)
    code = house.auth.people.add_reviewer(None, TESTER, 30, NETWORK, Source())[1]
    assert enters(build(SECRET_KEY_PREVIOUS=old), code)[1].status_code == 200
    assert enters(build(), code)[1].status_code == 422


# ---- the command
def test_the_command_prints_the_code_once(database_url, tmp_path, build):
    manage, house = commands(database_url, tmp_path), build(clock=time.time)
    status, out, error = manage("review-account", TESTER, "--days", "0.5", "--ip", NETWORK)
    assert (status, error) == (0, "") and f"{TESTER} can sign in from {NETWORK}" in out
    [code] = CODE.findall(out)
    assert enters(house, code)[1].status_code == 200
    assert problem(enters(house, code, client=OUTSIDE)[1]) == (422, "code_malformed")


@sqlite_is_enough
def test_what_cant_be_done_is_one_line_and_exit_1(database_url, tmp_path, build):
    manage, house = commands(database_url, tmp_path), build()
    days, ip = ("--days", "14"), ("--ip", NETWORK)
    for words, says in (
        ((TESTER, *ip), "Missing option"),
        ((TESTER, *days), "Missing option"),
        (("nonsense", *days, *ip), "send mail to that"),
        ((ADMIN, *days, *ip), "no rights"),
        ((TESTER, *days, "--ip", "0.0.0.0/0"), "no network of theirs"),
        ((TESTER, "--days", "91", *ip), "too long"),
    ):
        status, out, error = manage("review-account", *words)
        assert (status, out) == (1, "") and says in error and len(error.splitlines()) == 1, error
    assert house.rows("reviewers") == []


def test_an_admin_of_the_settings_is_no_reviewer_any_more(house, review):
    program, _ = enters(house, review())
    house.auth.people.ensure_admins((TESTER,))
    assert problem(program.get("/auth/me")) == (401, "invalid_token")
    assert house.rows("reviewers") == []


def test_who_joins_while_the_code_is_entered_is_signed_out(build, house, review):
    code, twin = review(), build(clock=house.clock, mailbox=house.mailbox)
    club = twin.auth.organisations.create(None, "Chess club", ADMIN, Source())
    program, joining = house.program(client=INSIDE), []
    program.ask(TESTER)
    rules = house.auth.signin

    class Slow(type(rules)):
        def _may_review(self, *args):
            may = super()._may_review(*args)
            join = twin.auth.organisations.join
            joining.append(Thread(target=join, args=(None, club.id, TESTER, "admin", Source())))
            joining[0].start()
            joining[0].join(0.3)  # it waits for this sign-in, and so must not be waited for
            return may

    slow = Slow(*(getattr(rules, f) for f in ("db", "keys", "send", "clock", "policy")))
    browser = Browser(program.device_secret, source=Source(client=f"{INSIDE}/32"), app=True)
    slow.verify_in_app(program.challenge, code, browser)
    joining[0].join()
    assert house.rows("sessions") == house.rows("reviewers") == []
