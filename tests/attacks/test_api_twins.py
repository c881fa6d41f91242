"""Rows A, B and C once more, by the calls of programs: no twin path is weaker than the pages."""

import itertools
import json
import re
import secrets
import socket
from contextlib import contextmanager

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from auth.events import Source
from auth.keys import digest, linked_id
from auth.policy import DAY, HOUR, MINUTE
from tests.attacks.test_a_budgets import (
    ACCOUNT,
    ADA,
    SITE,
    STRANGERS,
    STRICT,
    code_of,
    has_code,
    inside,
    link_of,
    newest,
    reached,
    shown_elsewhere,
    unknown,
    watch,
    wrong_of,
)
from tests.attacks.test_a_budgets import spend as spend_by_pages
from tests.attacks.test_a_code import live_sessions, wrong
from tests.attacks.test_b_enumeration import EIGHT, SPENT, Bouncing, populate
from tests.attacks.test_c_limits import known_browser, mails, signs_in_by_code, signs_in_by_link
from tests.conftest import ADMIN, DEFAULT
from tests.serving import Tab, together
from tests.sink import code_in, parsed
from tests.test_api import problem

NOT_OURS = "A" * 78  # looks like a link's secret
NEVER = "000000"  # right once in a million
WRONG, SPENT_UP, OFF = (401, "wrong_code"), (429, "too_many_tries"), (401, "code_off")
USED, EXPIRED, NONE = (401, "used"), (401, "expired"), (401, "unknown_challenge")
TOO_MANY, BAD_TOKEN = (429, "too_many_requests"), (401, "invalid_token")


def program(house, client="192.0.2.1", address=ADA):
    """An app that was never here, a moment later, which asks for a mail."""
    house.clock.advance(61)
    made = house.program(client)
    assert made.ask(address).status_code == 202
    return made


def again(program):
    """Ask once more on the same device, as one who waits for the mail does."""
    body = {"email": program.address, "device_secret": program.device_secret}
    answer = program.client.post("/auth/login", json=body)
    if answer.status_code == 202:
        given = answer.json()
        program.challenge, program.device_secret = given["challenge"], given["device_secret"]
    return answer


def guess(program, times=5):
    code = program.read_code()
    return [problem(program.enter(wrong(code, n + 1))) for n in range(times)]


def spend(house, challenges=4):
    """Five wrong codes for each of some challenges, each from another network, all by programs."""
    for n in range(challenges):
        assert guess(program(house, STRANGERS[n % 4])) == [WRONG] * 5


def link_in(house, address=ADA):
    return link_of(newest(house, address).text)


@pytest.fixture
def street(build):
    """A house with the limits that nobody has set, and ada in it."""
    house = build(**DEFAULT)
    house.add(ADA)
    return house


class Phone:
    """A program in front of one or several processes."""

    def __init__(self, *servers):
        self.servers, self.challenge, self.device_secret = servers, "", ""

    def post(self, path, at=0, **body):
        return self.servers[at].client.post(path, json=body)

    def ask(self, email, at=0):
        answer = self.post("/auth/login", at, email=email)
        if answer.status_code == 202:
            given = answer.json()
            self.challenge, self.device_secret = given["challenge"], given["device_secret"]
        return answer

    def enter(self, code, at=0):
        own = {"challenge": self.challenge, "device_secret": self.device_secret}
        return self.post("/auth/verify", at, code=code, **own)

    def open_link(self, token, at=0):
        return self.post("/auth/verify", at, token=token, device_secret=self.device_secret)


def mailed(sink, address, number=1):
    """(code, link's secret) in the `number`-th mail to this address."""
    with sink.changed:
        assert sink.changed.wait_for(lambda: len(sink._to(address)) >= number, 15), sink.mails
        raw = sink._to(address)[number - 1]
    return code_in(raw), link_of(parsed(raw).get_body(("plain",)).get_content())


def outcome(answer):
    return answer.status_code if answer.is_success else problem(answer)


# ---- A1 to A9: the code
def test_A1_api_five_guesses_and_then_even_the_right_code_fails(house, ada):
    app, compared = house.program(), watch(house)
    app.ask(ada)
    code = app.read_code()
    compared.clear()
    answers = [app.enter(wrong(code, n)) for n in range(1, 6)]
    assert [problem(a) for a in answers] == [WRONG] * 5
    assert [a.json()["tries_left"] for a in answers] == [4, 3, 2, 1, 0]
    sixth = app.enter(code)
    assert problem(sixth) == SPENT_UP and int(sixth.headers["retry-after"]) > 0
    row = house.rows("challenges")[0]
    assert (row["code_tries"], row["used_at"], len(compared)) == (5, None, 5)
    assert live_sessions(house) == 0 and not app.signed_in


def test_A1_api_the_way_a_code_is_written_brings_no_try_back(house, ada):
    app = house.program()
    app.ask(ada)
    code = app.read_code()
    bad = wrong(code)
    ways = [bad, f" {bad}", f"{bad[:3]}-{bad[3:]}", f"{bad}\r\n", "\u200b".join(bad)]
    answers = [app.enter(way) for way in ways]
    assert [a.json()["tries_left"] for a in answers] == [4, 3, 2, 1, 0]
    assert problem(app.enter(code)) == SPENT_UP


def test_A2_api_a_code_opens_only_the_challenge_that_asked_for_it(build):
    house = build(SIGNUP="open")
    apps = [house.program() for _ in range(10)]
    codes = []
    for n, app in enumerate(apps):
        app.ask(f"person{n}@example.org")
        codes.append(app.read_code())
    for i, j in itertools.product(range(10), repeat=2):
        if i != j and codes[i] != codes[j] and abs(i - j) <= 2:  # at most four foreign codes each
            assert problem(apps[i].enter(codes[j])) == WRONG
    assert live_sessions(house) == 0
    for app, code in zip(apps, codes, strict=True):
        assert app.enter(code).status_code == 200


def test_A2_api_halves_of_two_sign_ins_are_none_and_cost_no_try(build):
    """Challenge, device_secret, and code or link of two sign-ins: only those of one fit together."""
    house = build(SIGNUP="open")
    apps, codes, links = [house.program(), house.program()], [], []
    for n, app in enumerate(apps):
        app.ask(f"person{n}@example.org")
        codes.append(app.read_code())
        links.append(house.mailbox.latest_link(f"person{n}@example.org").rpartition("#")[2])
    for c, s in ((0, 1), (1, 0)):
        for code in codes:
            mixed = {"challenge": apps[c].challenge, "device_secret": apps[s].device_secret}
            assert problem(apps[0].post("/auth/verify", code=code, **mixed)) == NONE
        secret = {"device_secret": apps[s].device_secret}
        assert problem(apps[0].post("/auth/verify", token=links[c], **secret)) == NONE
    assert [row["total_tries"] for row in house.rows("challenges")] == [0, 0]
    assert live_sessions(house) == 0
    assert apps[0].enter(codes[0]).status_code == 200
    assert apps[1].open_link(f"#{links[1]}").status_code == 200


def test_A3_api_fifty_parallel_guesses_are_compared_exactly_five_times(serve, sink):
    servers = [serve(SMTP_PORT=sink.port, SIGNUP="open") for _ in range(2)]
    for run in range(4):
        app, address = Phone(*servers), f"run{run}@example.org"
        app.ask(address)
        code, _ = mailed(sink, address)

        def attempt(i, app=app, code=code):
            return app.enter(wrong(code, i + 1), at=i % 2)

        answers = together(50, attempt)
        said = [problem(answer) for answer in answers]
        assert (said.count(WRONG), said.count(SPENT_UP)) == (5, 45), (run, said)
        left = sorted(a.json()["tries_left"] for a in answers if a.status_code == 401)
        assert left == [0, 1, 2, 3, 4], run
        assert problem(app.enter(code, at=run % 2)) == SPENT_UP


def test_A4_api_tries_survive_kill_9_and_are_shared_by_processes(serve, sink):
    first, second = (serve(SMTP_PORT=sink.port, SIGNUP="open") for _ in range(2))
    app = Phone(first, second)
    app.ask(ADA)
    code, _ = mailed(sink, ADA)
    for n in range(3):
        assert problem(app.enter(wrong(code, n + 1))) == WRONG
    first.kill()
    for n in range(2):
        assert problem(app.enter(wrong(code, n + 4), at=1)) == WRONG
    assert problem(app.enter(code, at=1)) == SPENT_UP


@pytest.mark.parametrize("links", [0, 8], ids=["codes", "codes and links"])
def test_A5_api_sixteen_right_ones_at_once_open_one_session(serve, sink, build, links):
    servers = [serve(SMTP_PORT=sink.port, SIGNUP="open") for _ in range(2)]
    house = build(SIGNUP="open")  # to look at their database
    for run in range(5):
        app, address = Phone(*servers), f"run{run}@example.org"
        app.ask(address)
        code, link = mailed(sink, address)

        def enter(i, app=app, code=code, link=link):
            by_link = i // 2 < links // 2  # at both processes
            return app.open_link(link, i % 2) if by_link else app.enter(code, i % 2)

        said = [outcome(answer) for answer in together(16, enter)]
        assert said.count(200) == 1, (run, said)
        assert set(said) <= {200, USED, SPENT_UP}, (run, said)
        assert live_sessions(house) == run + 1, (run, said)
        assert {problem(app.enter(code)), problem(app.open_link(link))} == {USED}


def test_A6_api_what_is_spent_stays_spent(build):
    house = build(SIGNUP="open")
    app = house.program()
    app.ask(ADA)
    code, link = app.read_code(), house.mailbox.latest_link(ADA)
    assert app.enter(code).status_code == 200

    def retry(house):
        """The very same bodies from another device, and from one that was told all."""
        other = house.program()
        other.address, other.challenge = ADA, app.challenge
        other.device_secret = app.device_secret
        return [problem(other.enter(code)), problem(other.open_link(link))]

    assert retry(house) == [USED, USED]
    assert app.post("/auth/logout").status_code == 204
    assert retry(house) == [USED, USED]
    assert retry(build(SIGNUP="open", clock=house.clock)) == [USED, USED]  # a restart
    assert live_sessions(house) == 0


@pytest.mark.parametrize("way", ["code", "link"])
def test_A6_api_a_link_uses_its_code_up_and_a_code_its_link(house, ada, way):
    app = house.program()
    app.ask(ada)
    code, link = app.read_code(), house.mailbox.latest_link(ada)
    assert (app.enter(code) if way == "code" else app.open_link(link)).status_code == 200
    assert problem(app.enter(code)) == problem(app.open_link(link)) == USED
    door = house.door()
    door.ask(ada)  # nor does a browser that asks for the same address get in with it
    assert door.post("/link", token=link.rpartition("#")[2]).status_code == 410
    assert live_sessions(house) == 1 and not door.signed_in


def test_A7_api_asking_again_ends_the_older_code_and_its_device_secret(house, ada):
    app = house.program()
    app.ask(ada)
    first, challenge, secret = app.read_code(), app.challenge, app.device_secret
    house.clock.advance(60)
    assert again(app).status_code == 202
    second = app.read_code()
    assert (app.challenge, app.device_secret) != (challenge, secret)
    old = {"challenge": challenge, "device_secret": secret}
    assert problem(app.post("/auth/verify", code=first, **old)) == NONE
    if first != second:
        assert problem(app.enter(first)) == WRONG
    assert app.enter(second).status_code == 200


def test_A7_api_asking_again_without_a_new_mail_brings_no_tries_back(street):
    app = program(street)
    code = app.read_code()
    for n in range(3):
        app.enter(wrong(code, n + 1))
    for left in (1, 0):
        assert again(app).status_code == 202
        assert app.enter(wrong(code, 7 + left)).json()["tries_left"] == left
    assert problem(app.enter(code)) == SPENT_UP
    # Nor is there a code to be guessed while no mail has left for it.
    assert again(app).status_code == 202
    (mute,) = [row for row in street.rows("challenges") if not row["mails"]]
    assert problem(app.enter(code_of(street, mute))) == WRONG and not app.signed_in


def test_A7_api_a_code_for_another_purpose_is_another_code(house, ada):
    app, door = house.program(), house.door()
    app.ask(ada)
    theirs = app.read_code()
    door.ask(ada)
    ours = door.read_code()
    rows = {row["purpose"]: row for row in house.rows("challenges")}
    assert set(rows) == {"sign-in", "app sign-in"}
    of_the_page = code_of(house, rows["app sign-in"] | {"purpose": "sign-in"})
    for code in {ours, of_the_page} - {theirs}:
        assert problem(app.enter(code)) == WRONG
    assert door.enter(theirs).status_code == 422
    assert app.enter(theirs).status_code == 200 and door.enter(ours).status_code == 303


def test_A7_api_a_device_secret_is_no_cookie_and_no_token(house, ada):
    app = house.program()
    app.ask(ada)
    code = app.read_code()
    for secret in (app.device_secret, app.device_secret.removeprefix("app_")):
        door = house.door()
        door.client.cookies.set("__Host-signin", secret)
        assert door.enter(code).status_code == 410
        door.client.cookies.set("__Host-session", secret)
        assert not door.signed_in
        app.access_token = secret
        assert problem(app.get("/auth/me")) == BAD_TOKEN
        assert problem(app.refresh(secret)) == BAD_TOKEN
    assert live_sessions(house) == 0


def test_A7_api_a_cookie_is_no_device_secret(house, ada):
    """Whoever copies a browser's cookie gets no tokens for it, and can't take its sign-in over."""
    door, app = house.door(), house.program()
    door.ask(ada)
    code, link = door.read_code(), link_in(house)
    cookie = door.cookie("signin")
    for secret in (cookie, f"app_{cookie}"):
        app.device_secret, app.challenge = secret, linked_id(link)
        assert problem(app.enter(code)) == problem(app.open_link(link)) == NONE
        assert app.post("/auth/login", email=ada, device_secret=secret).status_code == 202
    assert door.enter(code).status_code == 303 and live_sessions(house) == 1


MOMENTS = [(0, 200), (899.999, 200), (900, EXPIRED), (5000, EXPIRED), (-60, 200), (-61, EXPIRED)]


@pytest.mark.parametrize("way", ["code", "link"])
@pytest.mark.parametrize(("seconds", "said"), MOMENTS)
def test_A8_api_it_works_until_its_end_and_not_on_a_clock_that_went_back(
    house, ada, way, seconds, said
):
    app = house.program()
    app.ask(ada)
    code, link = app.read_code(), house.mailbox.latest_link(ada)
    house.clock.advance(seconds)
    answer = app.enter(code) if way == "code" else app.open_link(link)
    assert outcome(answer) == said
    assert app.signed_in == (said == 200) and live_sessions(house) == (said == 200)


def test_A9_api_no_step_can_be_skipped(house, ada):
    app = house.program()
    assert problem(app.enter("123456")) == NONE
    assert problem(app.open_link(NOT_OURS)) == NONE
    assert problem(app.refresh("x")) == BAD_TOKEN
    assert problem(app.post("/auth/tenant", tenant="0" * 32)) == BAD_TOKEN
    assert problem(app.post("/auth/logout")) == problem(app.get("/auth/me")) == BAD_TOKEN
    app.ask(ada)
    code, link = app.read_code(), house.mailbox.latest_link(ada)
    house.auth.people.disable(None, house.auth.people.by_address(ada).id, Source())
    # Who disables also ends what was asked for.
    assert problem(app.enter(code))[0] == 401 and problem(app.open_link(link))[0] == 401
    assert live_sessions(house) == 0 and not app.signed_in


class Story(RuleBasedStateMachine):
    """Any order of calls, by HTTP and on a real database; the promises hold after each."""

    make = None  # set by the test: () → House
    numbers = itertools.count()

    def __init__(self):
        super().__init__()
        self.house = type(self).make()
        self.user = self.house.add(f"p{next(self.numbers)}@example.org")
        self.app, self.disabled = self.house.program(), False
        self.compared, self.opened, self.spent = {}, {}, []

    def count(self, book):
        book[self.app.challenge] = book.get(self.app.challenge, 0) + 1

    def took(self, answer):
        if answer.status_code == 200:
            assert not self.disabled
            self.count(self.opened)
            assert self.app.signed_in
        elif problem(answer) == WRONG:
            self.count(self.compared)
        else:
            assert answer.status_code in (401, 429)

    @rule(same=st.booleans())
    def ask(self, same):
        if same and self.app.device_secret:
            assert again(self.app).status_code == 202
        else:
            assert self.app.ask(self.user.address).status_code == 202

    @precondition(lambda self: self.app.challenge)
    @rule(right=st.booleans())
    def enter(self, right):
        found = self.house.auth.signin.mail(self.app.challenge)
        code = found.code if found and found.code else NEVER
        self.took(self.app.enter(code if right else wrong(code)))

    @precondition(lambda self: self.app.challenge)
    @rule()
    def open_link(self):
        found = self.house.auth.signin.mail(self.app.challenge)
        self.took(self.app.open_link(found.link if found else NOT_OURS))

    @precondition(lambda self: self.app.refresh_token)
    @rule(old=st.booleans())
    def refresh(self, old):
        was = self.spent[0] if old and self.spent else self.app.refresh_token
        answer = self.app.refresh(was)
        if answer.status_code == 200:
            assert not self.disabled and self.app.signed_in
            self.spent.append(was)

    @rule(seconds=st.sampled_from([1, 31, 61, 601, 901]))
    def wait(self, seconds):
        self.house.clock.advance(seconds)

    @rule(how=st.sampled_from(["disable", "enable"]))
    def change(self, how):
        getattr(self.house.auth.people, how)(None, self.user.id, Source())
        self.disabled = how == "disable"

    @precondition(lambda self: self.app.access_token)
    @rule()
    def leave(self):
        if self.app.post("/auth/logout").status_code == 204:
            assert not self.app.signed_in
            assert problem(self.app.refresh()) == BAD_TOKEN

    @invariant()
    def five_comparisons_and_one_session_a_challenge(self):
        assert max(self.compared.values(), default=0) <= 5
        assert max(self.opened.values(), default=0) <= 1

    @invariant()
    def the_disabled_are_out(self):
        if self.disabled and self.app.access_token:
            assert problem(self.app.get("/auth/me")) == BAD_TOKEN


def test_A9_api_any_order_of_calls_keeps_the_promises(house):
    machine = type("Story", (Story,), {"make": staticmethod(lambda: house)})
    machine.TestCase.settings = hypothesis_settings(
        max_examples=8, stateful_step_count=25, deadline=None, derandomize=True, database=None
    )
    machine.TestCase().runTest()


def test_A12_api_an_older_body_brings_no_try_back(house, ada):
    """What a program keeps holds no count: the same body twenty times is the same sign-in."""
    app = house.program()
    app.ask(ada)
    code = app.read_code()
    said = [problem(app.enter(wrong(code, n + 1))) for n in range(20)]
    assert said == [WRONG] * 5 + [SPENT_UP] * 15


# ---- A10: what is spent is spent for programs and pages alike
@pytest.mark.parametrize(("by_program", "by_page"), [(4, 0), (0, 4), (2, 2)])
def test_A10_api_wrong_codes_of_programs_and_pages_are_one_count(street, by_program, by_page):
    compared = watch(street)
    spend(street, by_program)
    spend_by_pages(street, by_page)
    assert len(compared) == 20
    door = unknown(street)
    assert not has_code(newest(street)) and "switched off" in door.enter("123456").text
    app = program(street)
    assert not has_code(newest(street)) and problem(app.enter("123456")) == OFF
    assert len(compared) == 20
    assert [e["subject"] for e in reached(street, ACCOUNT)] == [ADA]
    assert app.open_link(link_in(street)).status_code == 200 and app.signed_in


WAYS = ["program", "page"]


def ask(house, way, client, email):
    """Ask for a mail; was it let through?"""
    answer = getattr(house, "program" if way == "program" else "door")(client=client).ask(email)
    assert answer.status_code in (202, 303, 429)
    return answer.status_code != 429


@pytest.mark.parametrize("first", WAYS)
def test_A10_api_starts_of_a_client_are_one_count(street, first):
    ways = WAYS if first == "program" else WAYS[::-1]
    asked = [ask(street, ways[n >= 30], "198.51.100.7", f"p{n}@example.org") for n in range(34)]
    assert asked == [True] * 30 + [False] * 4
    mixed = [ask(street, ways[n % 2], "203.0.113.9", f"q{n}@example.org") for n in range(34)]
    assert mixed == [True] * 30 + [False] * 4


@pytest.mark.parametrize("first", WAYS)
def test_A10_api_wrong_codes_and_links_of_a_client_are_one_count(street, first):
    client = "198.51.100.7"

    def by_program(n):
        app = street.program(client)
        app.ask(f"p{n}@example.org")
        codes = [problem(app.enter(NEVER)) for _ in range(4)]
        return codes == [WRONG] * 4 and problem(app.open_link(NOT_OURS)) == (401, "wrong_link")

    def by_page(n):
        door = street.door(client=client)
        door.ask(f"p{n}@example.org")
        codes = [door.enter(NEVER).status_code for _ in range(4)]
        return codes == [422] * 4 and door.post("/link", token=NOT_OURS).status_code == 422

    ways = [by_program, by_page] if first == "program" else [by_page, by_program]
    assert all(way(n) for n in range(2) for way in ways)  # five each, twenty in all
    app, door = street.program(client), street.door(client=client)
    app.ask(ADA)
    door.ask(ADA)
    for answer in (app.enter(NEVER), app.open_link(NOT_OURS)):
        assert problem(answer) == TOO_MANY and int(answer.headers["retry-after"]) > 0
    assert door.enter(NEVER).status_code == door.post("/link", token=NOT_OURS).status_code == 429
    tries = street.db.q("select total_tries from challenges where address = :a", a=ADA)
    assert [row["total_tries"] for row in tries] == [0, 0]


def test_A10_api_mails_of_an_address_are_one_count(street):
    for n in range(12):
        ask(street, WAYS[n % 2], f"11.0.{n}.7", ADA)
        ask(street, WAYS[(n + 1) % 2], f"11.1.{n}.7", ADA)  # within the same minute
        assert len(mails(street)) == min(n + 1, 5)
        street.clock.advance(61)
    for n in range(40):
        ask(street, WAYS[n % 2], f"11.2.{n}.7", ADA)
        street.outbox.drain()
        street.clock.advance(HOUR // 4)
    assert len(mails(street)) == 10


def test_A10_api_no_call_opens_a_session_without_a_challenge(house, ada):
    app = house.program()
    app.ask(ada)
    fields = {
        "email": ada,
        "challenge": app.challenge,
        "device_secret": app.device_secret,
        "code": "123456",
        "token": NOT_OURS,
        "refresh_token": f"{'0' * 32}.0.{'A' * 43}",
        "tenant": "0" * 32,
    }
    document = app.get("/openapi.json").json()
    calls = [(path, method) for path, item in document["paths"].items() for method in item]
    assert len(calls) == 7
    for (path, method), names in itertools.product(
        calls, [c for n in range(4) for c in itertools.combinations(fields, n)]
    ):
        body = {name: fields[name] for name in names}
        answer = app.client.request(method.upper(), path, json=body)
        assert "access_token" not in answer.text, (path, names)
        assert "session=" not in answer.headers.get("set-cookie", "")
    assert live_sessions(house) == 0


# ---- A14: many codes of one account
def test_A14_api_after_twenty_wrong_codes_the_mail_has_a_link_and_no_code(street):
    compared = watch(street)
    spend(street)
    assert len(compared) == 20
    app = program(street)
    letter = newest(street)
    assert not has_code(letter) and "/link#" in letter.text
    assert [problem(app.enter(f"{n}00000")) for n in range(10)] == [OFF] * 10
    (row,) = street.db.q("select * from challenges where link_only = 1 and purpose = 'app sign-in'")
    assert problem(app.enter(code_of(street, row))) == OFF  # it was never mailed
    assert len(compared) == 20 and live_sessions(street) == 0
    assert app.open_link(link_of(letter.text)).status_code == 200 and app.signed_in


def test_A14_api_codes_that_were_mailed_before_are_compared_with_nothing(street):
    app = program(street)
    code, link = app.read_code(), link_in(street)
    compared = watch(street)
    spend(street)
    assert len(compared) == 20
    assert [problem(app.enter(c)) for c in (code, wrong(code), code)] == [OFF] * 3
    assert len(compared) == 20 and not app.signed_in
    assert app.open_link(link).status_code == 200


@pytest.mark.parametrize(
    "typed", [str, str.lower, lambda c: f" {c[:4]}-{c[4:8]} {c[8:]}\r\n"], ids=["", "small", "odd"]
)
def test_A14_api_what_the_link_shows_elsewhere_signs_the_app_in_once(street, typed):
    spend(street)
    app = program(street)
    code = shown_elsewhere(street)
    assert len(code) == 12
    other = program(street, STRANGERS[0])  # a sign-in of its own
    assert problem(other.enter(code)) == WRONG and not other.signed_in
    assert app.enter(typed(code)).status_code == 200 and app.signed_in
    assert problem(app.enter(code)) == USED and live_sessions(street) == 1


def test_A14_api_five_tries_at_the_twelve_characters(street):
    spend(street)
    app = program(street)
    code = shown_elsewhere(street)
    compared = watch(street)
    for free in ("", "ABC", "ABCDEFGHIJK9", "123456", "1234567"):  # what can't be it costs no try
        assert problem(app.enter(free)) in [(422, "code_malformed"), OFF]
    assert compared == []
    answers = [app.enter(wrong_of(code, n)) for n in range(1, 6)]
    assert [a.json()["tries_left"] for a in answers] == [4, 3, 2, 1, 0]
    assert problem(app.enter(code)) == SPENT_UP and len(compared) == 5
    assert app.open_link(link_in(street)).status_code == 200  # which can't be guessed


def test_A14_api_neither_new_codes_nor_the_owners_success_bring_tries_back(street):
    spend(street, 3)
    for way in ("code", "link"):
        street.clock.advance(HOUR)
        app = program(street)
        answer = app.enter(app.read_code()) if way == "code" else app.open_link(link_in(street))
        assert answer.status_code == 200
    street.clock.advance(HOUR)
    spend(street, 1)
    program(street)
    assert not has_code(newest(street))


def test_A14_api_at_any_speed_twenty_are_compared(serve, sink):
    servers = [serve(SMTP_PORT=sink.port, SIGNUP="open", **STRICT) for _ in range(2)]
    asked = []
    for n in range(8):
        app = Phone(*servers)
        app.ask(ADA)
        asked.append((app, mailed(sink, ADA, n + 1)[0]))

    def attempt(i):
        app, code = asked[i % 8]
        return problem(app.enter(wrong(code, i + 1), at=i % 2))

    said = together(40, attempt)
    assert said.count(WRONG) == 20 and set(said) <= {WRONG, OFF, SPENT_UP}, said
    for app, code in asked:
        assert problem(app.enter(code)) in (OFF, SPENT_UP)


# ---- A15: one code of each of many accounts
def test_A15_api_one_guess_at_each_of_many_accounts_stops_after_a_hundred(street):
    known = known_browser(street)
    compared, began, said = watch(street), street.clock.now, []
    for n in range(130):
        app = street.program(f"10.1.{n}.9")
        app.ask(f"person{n}@example.net")
        said.append(problem(app.enter(NEVER)))
        street.clock.advance(20)
    assert said == [WRONG] * 100 + [OFF] * 30 and len(compared) == 100
    assert street.clock.now < began + HOUR
    assert [e["subject"] for e in reached(street, SITE)] == [""]
    app = program(street)
    assert not has_code(newest(street)) and problem(app.enter(NEVER)) == OFF
    assert app.open_link(link_in(street)).status_code == 200
    street.clock.advance(61)
    signs_in_by_code(street, known)  # nothing has changed for a browser that we know
    street.clock.now = began + HOUR
    app = program(street)
    assert app.enter(app.read_code()).status_code == 200
    assert len(reached(street, SITE)) == 1


# ---- B: who is registered?
STATES = EIGHT | {
    "admin": ADMIN,
    "in an organisation": "joind@example.org",
    "undeliverable": "bounc@example.org",
}
RANDOM = {
    "challenge": re.compile(r"[0-9a-f]{32}"),
    "device_secret": re.compile(r"app_[A-Za-z0-9_-]{43}"),
}


def seen(answer):
    """All that a stranger sees: status, headers in order, body. Only what is random is masked."""
    body, told = answer.content, answer.json() if answer.content else {}
    for name, shape in RANDOM.items():
        if name in told:
            assert shape.fullmatch(told[name])
            body = body.replace(told[name].encode(), name.encode())
    return answer.status_code, answer.headers.multi_items(), body


def inhabit(house):
    populate(house)
    for state in ("in an organisation", "undeliverable"):
        house.add(STATES[state])
    club = house.auth.organisations.create(None, "Chess club", ADMIN, Source())
    house.auth.organisations.join(None, club.id, STATES["in an organisation"], "user", Source())
    house.clock.advance(2 * DAY)
    with house.db.tx() as t:
        now = int(house.clock())
        house.auth.signin.limits.bounced(t, STATES["undeliverable"], now)
    house.mailbox.messages.clear()


def test_B1_api_every_address_gets_the_same_answer(build):
    house = build()
    inhabit(house)
    answers = {state: seen(house.program().ask(address)) for state, address in STATES.items()}
    first = answers.pop("member")
    assert first[0] == 202 and "set-cookie" not in dict(first[1])
    for state, answer in answers.items():
        assert answer == first, state
    house.outbox.drain()
    known = {"member", "never activated", "admin", "in an organisation"}
    assert {m.letter.to for m in house.mailbox.messages} == {STATES[state] for state in known}


def test_B1_api_even_the_right_code_and_link_open_nothing_for_who_may_not_sign_in(build):
    house = build()
    inhabit(house)
    for state in ("unknown", "disabled", "deleted"):
        app = house.program()
        app.ask(STATES[state])
        (row,) = house.db.q("select * from challenges where id = :id", id=app.challenge)
        link = house.auth.keys.link(
            row["key_id"], row["purpose"], row["id"], row["nonce"], row["address"]
        )
        assert problem(app.enter(code_of(house, row))) == WRONG
        assert problem(app.open_link(link)) == (401, "wrong_link")
        assert not app.signed_in


def test_B2_api_the_whole_way_is_the_same_for_who_may_not_sign_in(build):
    house, stories = build(), {}
    inhabit(house)
    for state, address in STATES.items():
        app = house.program()
        story = [seen(app.ask(address))]
        house.outbox.drain()
        (row,) = house.db.q("select * from challenges where id = :id", id=app.challenge)
        code = code_of(house, row)
        story += [seen(app.enter(wrong(code, n + 1))) for n in range(4)]
        story.append(seen(app.open_link(NOT_OURS)))
        story += [seen(app.enter(odd)) for odd in ("", "12345", "ABCDEFGHIJKL")]
        story += [seen(app.enter(wrong(code, n + 5))) for n in range(3)]
        story.append(seen(again(app)))
        story.append(seen(app.enter("ABCDEFGHIJKL")))
        stories[state] = story
    first = stories.pop("member")
    assert [answer[0] for answer in first[:6]] == [202] + [401] * 5
    for state, story in stories.items():
        assert story == first, state


# One device that tries everything; what it waits for, all wait for.
TALE = [
    *("ask", "wrong", "wrong", "long", "link", "again", "wrong", "ask", "wrong", "wait 61"),
    *("again", "link", "wrong", "wrong", "wrong", "wrong", "wrong", "wrong", "again", "wrong"),
    *("wait 61", "ask", "wait 61", "ask", "wait 61", "ask", "wrong", "wait 61", "again", "wrong"),
    *("long", "long", "long", "long", "long", "long", "link", "wait 901", "wrong", "link", "long"),
    *("again", "wrong", "wait 1200", "link", "ask", "wrong", "link", "wait 3600", "link", "wrong"),
    *("ask", "wrong", "wait 61", "again", "link", "odd"),
]
STEPS = {
    "ask": lambda app, address: app.ask(address),
    "again": lambda app, address: again(app),
    "wrong": lambda app, address: app.enter("123456"),
    "long": lambda app, address: app.enter("ABCDEFGHIJKL"),
    "link": lambda app, address: app.open_link(NOT_OURS),
    "odd": lambda app, address: app.enter("12345x"),
}


SOME = ["member", "unknown", "disabled", "a +tag of a member", "undeliverable"]


@pytest.mark.parametrize("spent", SPENT)
def test_B5_api_all_states_of_an_account_are_one_whatever_was_spent(build, spent):
    limits, before = SPENT[spent]
    house = build(**DEFAULT | {"LIMIT_WRONG_FLEET": "1000/1h"} | limits)
    inhabit(house)
    # All of them once; then those that differ most.
    some = STATES if spent == "nothing" else {state: STATES[state] for state in SOME}
    began = house.clock.now
    for address in some.values():
        house.clock.now = began
        before(house, address)
        house.outbox.drain()
    apps, codes = {s: house.program(f"10.{n}.1.1") for n, s in enumerate(some)}, set()
    for number, step in enumerate(TALE):
        if step.startswith("wait"):
            house.outbox.drain()
            house.clock.advance(int(step.split()[1]))
            continue
        answers = {state: seen(STEPS[step](apps[state], some[state])) for state in some}
        first = answers.pop("member")
        for state, answer in answers.items():
            assert answer == first, (number, step, state)
        codes.add(json.loads(first[2]).get("code"))
    assert {"wrong_code", "wrong_link"} <= codes  # the tale went as it was meant to
    assert ("code_off" in codes) == ("wrong codes" in spent)


def test_B5_api_a_client_that_does_too_much_hears_so_whomever_it_asks_for(build):
    limits = {"LIMIT_STARTS_PER_IP": "3/10m", "LIMIT_WRONG_PER_IP": "3/10m"}
    house, stories = build(**DEFAULT | limits), {}
    inhabit(house)
    for n, (state, address) in enumerate(STATES.items()):
        app = house.program(f"10.{n}.1.1")
        story = [seen(app.ask(address)) for _ in range(5)]
        story += [seen(app.open_link(NOT_OURS)) for _ in range(2)]
        story += [seen(app.enter("123456")) for _ in range(3)]
        story.append(seen(again(app)))
        stories[state] = story
    first = stories.pop("member")
    assert [a[0] for a in first] == [*[202] * 3, 429, 429, 401, 401, 401, 429, 429, 429]
    names = {name for answer in first for name, _ in answer[1]}
    assert "retry-after" in names and not any("ratelimit" in name for name in names)
    for state, story in stories.items():
        assert story == first, state


def test_B5_api_an_address_is_never_refused_for_its_own_limits(street):
    for n, address in enumerate((ADA, "nobody@example.org")):
        apps = [street.program(f"10.{n}.{i}.1") for i in range(40)]
        assert len({str(seen(app.ask(address))) for app in apps}) == 1
    street.outbox.drain()
    assert len(street.mailbox.to(ADA)) == 1


def test_B6_api_what_became_of_a_mail_is_told_to_nobody(build):
    house = build(mailbox=Bouncing())
    house.add(ADA)
    apps = {address: house.program() for address in (ADA, "nobody@example.org")}
    for _ in range(4):
        said = []
        for address, app in apps.items():
            story = [app.ask(address), again(app), app.enter(NEVER), app.open_link(NOT_OURS)]
            said.append([seen(answer) for answer in story])
        assert said[0] == said[1]
        house.outbox.drain()
        house.clock.advance(61)
    assert {row["state"] for row in house.rows("outbox")} >= {"dead", "void"}


def test_B6_api_an_answer_does_not_wait_for_a_mail_server_that_hangs(serve):
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        hanging.settimeout(15)
        app = Phone(serve(SMTP_PORT=hanging.getsockname()[1]))
        assert app.ask(ADMIN).status_code == 202
        held, _ = hanging.accept()  # the worker has the mail in hand, and nobody greets it
        with held:
            said = [app.ask(address) for address in (ADMIN, "nobody@example.org", ADMIN)]
            assert len({str((a.status_code, sorted(a.json()))) for a in said}) == 1
            assert problem(app.enter(NEVER)) == WRONG
            held.setblocking(False)
            with pytest.raises(BlockingIOError):  # the same mail, in the same hand, still waiting
                held.recv(1)


def random_id():
    return secrets.token_hex(16)


def test_B7_api_what_is_others_looks_like_what_is_not_there(house, ada):
    """Challenges, links, sessions and organisations of others: as if they were invented."""
    rules, app, other = house.auth.organisations, house.program(), house.program()
    club = rules.create(None, "Their club", ADMIN, Source())
    app.sign_in(ada)
    tenants = [app.post("/auth/tenant", tenant=t) for t in (club.id, random_id())]
    other.sign_in(ADMIN)
    other.ask(ADMIN)
    other.read_code()
    theirs = house.mailbox.latest_link(ADMIN).rpartition("#")[2]
    app.ask("nobody@example.org")
    mine = {"device_secret": app.device_secret, "code": NEVER}
    ids = [app.post("/auth/verify", challenge=i, **mine) for i in (other.challenge, random_id())]
    halves = [
        theirs[:-26] + "A" * 26,
        NOT_OURS,
    ]  # names a challenge that is there, and one that is not
    links = [app.open_link(half) for half in halves]
    session = other.refresh_token[:32]
    forged = [app.refresh(f"{sid}.0.{'A' * 43}") for sid in (session, random_id())]
    for pair in (tenants, ids, links, forged):
        assert seen(pair[0]) == seen(pair[1]) and pair[0].status_code in (401, 404)


def test_B7_api_a_token_of_who_is_gone_is_a_token_that_never_was(house):
    apps, people = {}, house.auth.people
    for how in ("disable", "delete"):
        user = house.add(f"{how}@example.org")
        apps[how] = house.program()
        apps[how].sign_in(user.address)
        getattr(people, how)(None, user.id, Source())
    apps["forged"] = house.program()
    apps["forged"].access_token = apps["delete"].access_token[:-8] + "AAAAAAAA"
    apps["forged"].refresh_token = f"{random_id()}.0.{'A' * 43}"
    apps["odd"] = house.program()
    apps["odd"].access_token, apps["odd"].refresh_token = "x", "x"
    stories = [
        [
            seen(app.get("/auth/me")),
            seen(app.refresh()),
            seen(app.post("/auth/logout")),
            seen(app.post("/auth/tenant", tenant=random_id())),
        ]
        for app in apps.values()
    ]
    assert all(story == stories[0] for story in stories)
    assert {answer[0] for answer in stories[0]} == {401}


# ---- C: by number
def test_C1_api_two_hundred_starts_in_a_day_are_ten_mails_and_one_answer(street):
    apps, answers = [street.program(f"11.0.{n}.7") for n in range(50)], set()
    for n in range(200):
        answers.add(str(seen(apps[n % 50].ask(ADA))))
        street.outbox.drain()
        street.clock.advance(DAY // 200)
    assert len(mails(street)) == 10
    assert len(answers) == 1 and answers.pop().startswith("(202, ")


def test_C1_api_asking_again_on_one_device_is_a_mail_like_any_other(street):
    app = program(street)
    for _ in range(190):
        assert again(app).status_code == 202
        street.outbox.drain()
        street.clock.advance(DAY // 200)
    assert len(mails(street)) == 10


def test_C4_api_strangers_starts_and_guesses_leave_the_owners_code_alone(street):
    owner = program(street)
    code = owner.read_code()
    for n in range(20):
        stranger = street.program(f"11.0.{n}.7")
        stranger.ask(ADA)
        if n < 3:
            assert [problem(stranger.enter(NEVER)) for _ in range(6)] == [WRONG] * 5 + [SPENT_UP]
        again(stranger)
        street.clock.advance(30)
    assert owner.enter(wrong(code)).json()["tries_left"] == 4
    assert owner.enter(code).status_code == 200 and owner.signed_in


def test_C4_api_nobody_without_the_device_secret_ends_a_sign_in_or_its_tries(street):
    owner = program(street)
    code = owner.read_code()
    thief = street.program()
    thief.challenge, thief.address = owner.challenge, ADA  # an id is no secret
    for n in range(10):
        thief.device_secret = f"app_{'AB'[n % 2] * 43}"
        assert problem(thief.enter(NEVER)) == problem(thief.open_link(NOT_OURS)) == NONE
        body = {"email": ADA, "device_secret": thief.device_secret}
        assert thief.client.post("/auth/login", json=body).status_code == 202
    assert owner.enter(wrong(code)).json()["tries_left"] == 4
    assert owner.enter(code).status_code == 200


def besiege(house, guesses):
    """Programs of strangers spend the mails of one address, and its wrong codes if they guess."""
    for n in range(10):
        if n == 5:
            house.clock.advance(HOUR)
        app = house.program(f"11.0.{n}.7")
        app.ask(ADA)
        for _ in range(guesses):
            app.enter(NEVER)
        assert len(mails(house)) == n + 1
        house.clock.advance(61)
    house.program("11.0.10.7").ask(ADA)
    assert len(mails(house)) == 10, "there should be no mail left"
    return app


SIEGES = pytest.mark.parametrize("guesses", [0, 5], ids=["mails", "mails and codes"])
LATER = pytest.mark.parametrize("later", [0, 30 * MINUTE, 22 * HOUR])


def test_C5_api_spent_codes_mean_a_link_that_signs_in_everywhere(street):
    known = known_browser(street)
    street.clock.advance(HOUR)
    spend(street)
    app = program(street)
    assert app.open_link(link_in(street)).status_code == 200 and app.signed_in
    door = unknown(street)
    door.post("/link", token=link_in(street))
    assert inside(door)
    street.clock.advance(61)
    signs_in_by_code(street, known)


@SIEGES
@LATER
def test_C6_api_with_all_budgets_spent_the_newest_link_signs_an_app_in(street, guesses, later):
    besiege(street, guesses)
    street.clock.advance(later)
    app = street.program()
    assert app.ask(ADA).status_code == 202
    assert len(mails(street)) == 10
    assert app.open_link(link_of(mails(street)[-1].text)).status_code == 200 and app.signed_in


@SIEGES
def test_C6_api_a_siege_by_programs_locks_no_browser_out(street, guesses):
    known = known_browser(street)
    street.clock.advance(HOUR)
    besiege(street, guesses)
    signs_in_by_link(street, street.door())
    signs_in_by_code(street, known)


@pytest.mark.parametrize("act", ["again", "guess", "links", "expire"])
def test_C6_api_a_stranger_cant_destroy_the_last_link(street, act):
    attacker = besiege(street, 5)
    link = link_of(mails(street)[-1].text)
    if act == "again":
        for _ in range(5):
            again(attacker)
            attacker.ask(ADA)
    elif act == "guess":
        for _ in range(12):
            attacker.enter(NEVER)
            attacker.enter("ABCDEFGHJKLM")
    elif act == "links":
        for n in (0, 30, 77):
            attacker.open_link(link[:n] + ("A" if link[n] != "A" else "B") + link[n + 1 :])
    else:
        street.clock.advance(HOUR)
        street.auth.tidy()
        again(attacker)
    assert len(mails(street)) == 10 and not attacker.signed_in
    app = street.program()
    app.ask(ADA)
    assert app.open_link(link).status_code == 200


# ---- C8 and C10: who asks, and how many at once
def forwarded(app, lines, email):
    headers = [("X-Forwarded-For", line) for line in lines]
    return app.client.post("/auth/login", json={"email": email}, headers=headers).status_code


def test_C8_api_a_direct_client_cant_choose_its_address(street):
    app, names = street.program("11.0.0.7"), ("X-Forwarded-For", "X-Real-IP", "Forwarded")
    answers = []
    for n in range(60):
        headers = dict.fromkeys((*names, "CF-Connecting-IP"), f"203.0.113.{n}")
        body = {"email": f"p{n}@example.org"}
        answers.append(app.client.post("/auth/login", json=body, headers=headers))
    assert [outcome(a) for a in answers] == [202] * 30 + [TOO_MANY] * 30
    assert 0 < int(answers[30].headers["retry-after"]) <= 600
    assert street.program("11.0.1.7").ask(ADA).status_code == 202


@pytest.mark.parametrize(
    "lines",
    [
        ["{spoof}, 198.51.100.7"],
        ["{spoof}", "198.51.100.7, 10.9.9.9"],
        ["{spoof}, nonsense"],
        ["{spoof}, ::ffff:198.51.100.7"],
    ],
)
def test_C8_api_behind_a_proxy_the_right_most_untrusted_hop_counts(build, lines):
    house = build(**DEFAULT | {"TRUSTED_PROXIES": "10.0.0.0/8"})
    app, answers = house.program("10.0.0.1"), []
    for n in range(32):
        sent = [line.format(spoof=f"203.0.113.{n}") for line in lines]
        answers.append(forwarded(app, sent, f"p{n}@example.org"))
    assert answers == [202] * 30 + [429] * 2
    assert forwarded(app, ["198.51.101.7"], ADA) == 202


def test_C10_api_of_a_hundred_at_once_exactly_ten_start_also_after_kill_9(serve):
    limits = {"LIMIT_STARTS_PER_IP": "10/1h", "MAIL_BACKEND": "none"}
    servers = [serve(**limits) for _ in range(2)]

    def start(i):
        """Half of them by programs, half on the page, at both processes."""
        email = f"p{i}@example.org"
        if i % 4 < 2:
            return outcome(Phone(*servers).ask(email, at=i % 2))
        return Tab(*servers).post("/create_code", at=i % 2, email=email).status_code

    said = together(100, start)
    assert said.count(202) + said.count(303) == 10, said
    assert said.count(TOO_MANY) + said.count(429) == 90, said
    for server in servers:
        server.kill()
    refused = Phone(serve(**limits)).ask(ADA)
    assert problem(refused) == TOO_MANY and 0 < int(refused.headers["retry-after"]) <= HOUR


def test_C10_api_wrong_codes_of_one_account_are_compared_exactly_so_often(serve):
    limits = {"LIMIT_WRONG_PER_ACCOUNT": "10/24h", "MAIL_BACKEND": "none", "SIGNUP": "open"}
    servers = [serve(**limits) for _ in range(2)]
    apps, tabs = [Phone(*servers) for _ in range(12)], [Tab(*servers) for _ in range(12)]
    for app, tab in zip(apps, tabs, strict=True):
        assert app.ask(ADA).status_code == 202
        assert tab.post("/create_code", email=ADA).status_code == 303

    def attempt(i):
        n, at = i % 12, i // 12 % 2
        if i % 3 == 0:
            headers = {"Sec-Fetch-Site": "same-origin"}
            fields = {"code": NEVER}
            text = tabs[n].send("POST", "/verify_code", at, headers, keep=False, data=fields).text
            return WRONG if "not right" in text else OFF if "switched off" in text else text
        return problem(apps[n].enter(NEVER, at))

    said = together(96, attempt)
    assert (said.count(WRONG), said.count(OFF)) == (10, 86), said


def test_C10_api_of_twenty_at_once_for_one_address_one_is_mailed(serve, sink, build):
    mailed_once = {"LIMIT_MAILS_PER_ADDRESS": "1/1h"}
    servers = [serve(SMTP_PORT=sink.port, SIGNUP="open", **mailed_once) for _ in range(2)]
    said = together(20, lambda i: Phone(*servers).ask(ADA, at=i % 2).status_code)
    assert said == [202] * 20
    Phone(*servers).ask("last@example.org")
    sink.code("last@example.org")
    states = [row["kind"] for row in build(SIGNUP="open").rows("outbox")]
    assert states.count("code") == 2 and states.count("none") == 19


# ---- C13: the price of a no
def overheard(house):
    """What the app itself asks its database from now on."""
    heard, db = [], house.db
    q, tx = db.q, db.tx

    def listening(q):
        def hearing(sql, **params):
            heard.append(sql)
            return q(sql, **params)

        hearing.deaf = q
        return hearing

    @contextmanager
    def listening_tx(*args, **how):
        with tx(*args, **how) as t:
            t.q = listening(getattr(t.q, "deaf", t.q))
            yield t

    db.q, db.tx = listening(q), listening_tx
    return heard


def test_C13_api_a_refused_start_runs_less_than_one_that_is_not_and_writes_nothing(street):
    heard, prices = overheard(street), []
    for n in range(36):
        heard.clear()
        outcome(street.program("198.51.100.7").ask(f"p{n}@example.org"))
        prices.append(len(heard))
        writes = [sql for sql in heard if sql.startswith("insert") and "counters" not in sql]
        assert bool(writes) is (n < 30)
    assert len(set(prices[:30])) == len(set(prices[30:])) == 1
    assert 0 < prices[30] < prices[0]


def test_C13_api_a_refused_guess_runs_no_more_than_a_wrong_one(street):
    heard, prices = overheard(street), []
    for n in range(24):
        if n % 4 == 0:
            app = street.program(f"11.0.{n}.7")
            app.ask(f"p{n}@example.org")
            moved = street.program("198.51.100.7")
            moved.challenge, moved.device_secret = app.challenge, app.device_secret
        heard.clear()
        assert problem(moved.enter(NEVER)) == (WRONG if n < 20 else TOO_MANY)
        prices.append(len(heard))
        assert (n < 20) is any(sql.startswith("insert into events") for sql in heard)
    assert 0 < prices[-1] <= prices[0]


def test_C13_api_what_is_no_token_of_ours_asks_the_database_nothing(street):
    app, heard = street.program(), overheard(street)
    for token in ("x", "a.b.c", "A" * 5000, digest("x"), "app_" + "A" * 43):
        app.access_token = token
        assert problem(app.get("/auth/me")) == problem(app.post("/auth/logout")) == BAD_TOKEN
        assert problem(app.refresh(token[:200])) == BAD_TOKEN
    assert heard == []
