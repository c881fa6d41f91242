"""Attacks on the code: guessing, racing, replaying, bending the clock."""

import itertools
import json

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from auth.events import Source
from auth.keys import Keys
from auth.known import Browser
from auth.policy import Refused
from tests.conftest import SECRET
from tests.serving import Tab, together

ADA = "ada@example.org"


def wrong(code, n=1):
    """A code of the same length that is not this one."""
    return f"{(int(code) + n) % 10 ** len(code):0{len(code)}d}"


def live_sessions(house):
    return len(house.rows("sessions"))


def test_A1_five_guesses_and_then_even_the_right_code_fails(house, ada):
    door = house.door()
    door.ask(ada)
    code = door.read_code()
    answers = [door.enter(wrong(code, n)) for n in range(1, 6)]
    assert [a.status_code for a in answers] == [422] * 5
    assert "4 tries left" in answers[0].text and "last try" in answers[4].text
    sixth = door.enter(code)
    assert sixth.status_code == 429 and int(sixth.headers["retry-after"]) > 0
    assert not door.signed_in
    row = house.rows("challenges")[0]
    assert (row["code_tries"], row["used_at"]) == (5, None)
    assert live_sessions(house) == 0


def test_A2_a_code_opens_only_the_challenge_that_asked_for_it(build):
    house = build(SIGNUP="open")
    doors = [house.door() for _ in range(12)]
    codes = []
    for n, door in enumerate(doors):
        door.ask(f"person{n}@example.org")
        codes.append(door.read_code())
    for i, j in itertools.product(range(12), repeat=2):
        if i != j and codes[i] != codes[j] and abs(i - j) <= 2:  # at most four foreign codes each
            assert doors[i].enter(codes[j]).status_code == 422
    assert live_sessions(house) == 0
    for door, code in zip(doors, codes, strict=True):
        assert door.enter(code).status_code == 303


def test_A3_fifty_parallel_guesses_are_compared_at_most_five_times(serve, sink):
    servers = [serve(SMTP_PORT=sink.port, SIGNUP="open") for _ in range(2)]
    for run in range(20):
        tab, address = Tab(*servers), f"run{run}@example.org"
        tab.post("/create_code", email=address)
        code = sink.code(address)

        def guess(i, tab=tab, code=code):
            fields = {"code": wrong(code, i + 1)}
            headers = {"Sec-Fetch-Site": "same-origin"}
            return tab.send(
                "POST", "/verify_code", i % 2, headers, keep=False, data=fields
            ).status_code

        answers = together(50, guess)
        # 422 is "compared and wrong", 429 is "no guess left".
        assert answers.count(422) == 5, (run, answers)
        assert answers.count(429) == 45, (run, answers)
        assert tab.post("/verify_code", at=run % 2, code=code).status_code == 429
        assert not tab.signed_in


def test_A4_tries_survive_kill_9_and_are_shared_by_processes(serve, sink):
    first, second = (serve(SMTP_PORT=sink.port, SIGNUP="open") for _ in range(2))
    tab = Tab(first, second)
    tab.post("/create_code", email=ADA)
    code = sink.code(ADA)
    for n in range(3):
        assert tab.post("/verify_code", code=wrong(code, n + 1)).status_code == 422
    first.kill()
    for n in range(2):
        assert tab.post("/verify_code", at=1, code=wrong(code, n + 4)).status_code == 422
    assert tab.post("/verify_code", at=1, code=code).status_code == 429
    assert tab.get("/dashboard", at=1).status_code == 303


def test_A5_sixteen_parallel_right_codes_open_one_session(serve, sink):
    servers = [serve(SMTP_PORT=sink.port, SIGNUP="open") for _ in range(2)]
    for run in range(50):
        tab, address = Tab(*servers), f"run{run}@example.org"
        tab.post("/create_code", email=address)
        code = sink.code(address)

        def enter(i, tab=tab, code=code):
            headers = {"Sec-Fetch-Site": "same-origin"}
            answer = tab.send(
                "POST", "/verify_code", i % 2, headers, keep=False, data={"code": code}
            )
            return answer.status_code, "__Host-session=" in answer.headers.get("set-cookie", "")

        answers = together(16, enter)
        assert [cookie for _, cookie in answers].count(True) == 1, (run, answers)
        assert [status for status, _ in answers].count(303) == 1, (run, answers)
        assert all(status in (303, 410, 429) for status, _ in answers), (run, answers)


def test_A6_a_spent_code_stays_spent(build, database_url):
    house = build(SIGNUP="open")
    door = house.door()
    door.ask(ADA)
    code, token = door.read_code(), door.cookie("signin")
    assert door.enter(code).status_code == 303

    def again(house):
        other = house.door()
        other.client.cookies.set("__Host-signin", token)
        return other.enter(code).status_code

    assert again(house) == 410
    door.post("/logout")
    assert again(house) == 410
    assert again(build(SIGNUP="open", clock=house.clock)) == 410  # a restart
    assert live_sessions(house) == 0


def test_A7_a_resend_keeps_the_code_and_the_count_of_failures(house, ada, clock):
    door = house.door()
    door.ask(ada)
    first = door.read_code()
    for n in range(3):
        door.enter(wrong(first, n + 1))
    clock.advance(60)
    assert door.post("/resend_code").status_code == 200
    assert door.read_code() == first
    assert "1 try left" in door.enter(wrong(first, 9)).text
    assert door.enter(first).status_code == 303


def test_A7_a_new_code_after_five_failures_replaces_the_old_one_and_ten_is_the_end(
    house, ada, clock
):
    door = house.door()
    door.ask(ada)
    old = door.read_code()
    for n in range(5):
        door.enter(wrong(old, n + 1))
    clock.advance(60)
    door.post("/resend_code")
    new = door.read_code()
    assert new != old
    assert door.enter(old).status_code == 422
    for n in range(4):
        door.enter(wrong(new, n + 1) if wrong(new, n + 1) != old else wrong(new, 7))
    assert house.rows("challenges")[0]["total_tries"] == 10
    assert door.enter(new).status_code == 429
    clock.advance(120)
    assert door.post("/resend_code").status_code == 429
    assert door.enter(new).status_code == 429 and not door.signed_in


def test_A7_a_code_for_another_purpose_is_another_code():
    keys = Keys(SECRET)
    codes = {
        keys.code(keys.current, p, "ab" * 32, ADA, 0, 10) for p in ("sign-in", "change", "invite")
    }
    assert len(codes) == 3


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(0, 303), (899.999, 303), (900, 410), (5000, 410), (-60, 303), (-61, 410)],
)
def test_A8_a_code_works_until_its_end_and_not_on_a_clock_that_went_back(
    house, ada, clock, seconds, status
):
    door = house.door()
    door.ask(ada)
    code = door.read_code()
    clock.advance(seconds)
    assert door.enter(code).status_code == status


def test_A9_no_step_can_be_skipped(house, ada):
    door = house.door()
    assert door.enter("123456").status_code == 410
    assert door.post("/resend_code").status_code == 410
    assert door.get("/verify_code").headers["location"] == "/login"
    door.ask(ada)
    code = door.read_code()
    house.auth.people.disable(None, house.auth.people.by_address(ada).id, source())
    assert door.enter(code).status_code in (410, 422)
    assert live_sessions(house) == 0 and not door.signed_in


def source():
    return Source()


class Story(RuleBasedStateMachine):
    """Any order of steps, on the real rules and a real database; the promises hold after each."""

    make = None  # set by the test: () → House
    numbers = itertools.count()

    def __init__(self):
        super().__init__()
        self.house = type(self).make()
        self.user = self.house.add(f"p{next(self.numbers)}@example.org")
        self.token = self.session = None
        self.codes, self.compared, self.opened, self.disabled = [], 0, 0, False

    @property
    def doorkeeper(self):
        return self.house.auth.signin

    @property
    def browser(self):
        return Browser(self.token, source=source())

    @rule()
    def start(self):
        self.token, _ = self.doorkeeper.create_code(self.user.address, "/", self.browser)
        self.compared, self.opened = 0, 0

    @precondition(lambda self: self.token)
    @rule()
    def resend(self):
        try:
            self.doorkeeper.resend_code(self.browser)
        except Refused:
            pass
        else:
            challenge = self.challenge()
            if challenge["code_tries"] == 0:
                self.compared = 0

    @precondition(lambda self: self.token)
    @rule(right=st.booleans())
    def enter(self, right):
        before = self.challenge()
        found = self.doorkeeper.mail(before["id"]) if before else None
        code = found[1] if found else "000000"
        try:
            arrival = self.doorkeeper.verify_code(code if right else wrong(code), "", self.browser)
        except Refused as refused:
            if refused.reason.startswith("code_wrong"):
                self.compared += 1
            assert not (
                right
                and found
                and before["code_tries"] < 5
                and before["total_tries"] < 10
                and not self.disabled
                and refused.reason != "code_expired"
            ), refused.reason
        else:
            self.opened += 1
            self.session = arrival.token
            assert right and not self.disabled

    @rule(seconds=st.sampled_from([1, 59, 60, 121, 899, 901]))
    def wait(self, seconds):
        self.house.clock.advance(seconds)

    @rule()
    def disable(self):
        # The last admin is another person, so this one may always be disabled.
        self.house.auth.people.disable(None, self.user.id, source())
        self.disabled = True

    @rule()
    def enable(self):
        self.house.auth.people.enable(None, self.user.id, source())
        self.disabled = False

    @rule()
    def sign_out_everywhere(self):
        self.doorkeeper.end_everything(self.user, source())
        self.session = None

    def challenge(self):
        from auth.keys import digest

        rows = self.house.db.q("select * from challenges where browser = :b", b=digest(self.token))
        return rows[0] if rows else None

    @invariant()
    def at_most_five_comparisons_and_one_session(self):
        assert self.compared <= 5 and self.opened <= 1
        if self.token and (row := self.challenge()):
            assert row["code_tries"] <= 5 and row["total_tries"] <= 10

    @invariant()
    def the_disabled_have_no_session(self):
        if self.disabled and self.session:
            assert self.house.auth._find(self.session) is None


def test_A9_any_order_of_steps_keeps_the_promises(house):
    machine = type("Story", (Story,), {"make": staticmethod(lambda: house)})
    machine.TestCase.settings = hypothesis_settings(
        max_examples=40, stateful_step_count=40, deadline=None, derandomize=True, database=None
    )
    machine.TestCase().runTest()


MALFORMED = [
    {"code": ""},
    {"code": " "},
    {"code": "12345"},
    {"code": "1234567"},
    {"code": "12345a"},
    {"code": "abcdef"},
    {"code": "1e5000"},
    {"code": "0x1234"},
    {"code": "+123456"},
    {"code": "12345６７"},
    {"code": "１２３４５"},
    {"code": "½23456"},
    {"code": "Ⅳ23456"},
    {"code": "123456\0"},
    {"code": "123.456"},
    {"code": "123,456"},
    {"code": "[123456]"},
    {"code": '"123456"'},
    {"code": "123456;"},
    {"code": "' or 1=1 --"},
    {"code": "1" * 101},
    {"code": "1" * 10_000},
    {"code": ["123456", "123456"]},
    {"code[]": "123456"},
    {"Code": "123456"},
    {"codes": "123456"},
    {"": "123456"},
    {},
]


@pytest.mark.parametrize("fields", MALFORMED, ids=lambda f: json.dumps(f)[:30])
def test_A11_what_cant_be_a_code_costs_no_try(house, ada, fields):
    door = house.door()
    door.ask(ada)
    headers = {"Sec-Fetch-Site": "same-origin"}
    answer = door.client.post("/verify_code", data=fields, headers=headers)
    assert answer.status_code == 422
    assert house.rows("challenges")[0]["total_tries"] == 0


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", '{"code": "CODE"}'),
        ("application/json", '["CODE"]'),
        ("application/json", '{"code": 123456}'),
        ("application/json", '{"code": null}'),
        ("application/json", "true"),
        ("text/plain", "code=CODE"),
        ("", "code=CODE"),
        ("application/x-www-form-urlencoded", "code=CODE&code=CODE"),
        ("application/x-www-form-urlencoded", "code=000000&code=CODE"),
        ("application/x-www-form-urlencoded", "code=CODE%00"),
    ],
)
def test_A11_only_one_string_in_the_form_body_is_a_code(house, ada, kind, body):
    door = house.door()
    door.ask(ada)
    body = body.replace("CODE", door.read_code())
    headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": kind}
    answer = door.client.post("/verify_code", content=body, headers=headers)
    assert answer.status_code == 422 and not door.signed_in
    assert house.rows("challenges")[0]["total_tries"] == 0


@pytest.mark.parametrize("way", ["query", "header", "cookie", "file"])
def test_A11_a_code_beside_the_body_does_not_count(house, ada, way):
    door = house.door()
    door.ask(ada)
    code, headers = door.read_code(), {"Sec-Fetch-Site": "same-origin"}
    if way == "query":
        answer = door.client.post(f"/verify_code?code={code}", data={"x": "y"}, headers=headers)
    elif way == "header":
        answer = door.client.post("/verify_code", data={"x": "y"}, headers=headers | {"code": code})
    elif way == "cookie":
        door.client.cookies.set("code", code)
        answer = door.client.post("/verify_code", data={"x": "y"}, headers=headers)
    else:
        answer = door.client.post("/verify_code", files={"code": ("f", code)}, headers=headers)
    assert answer.status_code in (400, 422) and not door.signed_in
    assert house.rows("challenges")[0]["total_tries"] == 0


def test_A11_leading_zeros_count(build):
    house = build(SIGNUP="open")
    for n in range(200):
        door = house.door()
        door.ask(f"zero{n}@example.org")
        code = door.read_code()
        if code[0] == "0":
            assert door.enter(code.lstrip("0")).status_code == 422
            assert door.enter(f"{code[:3]}-{code[3:]}").status_code == 303
            return
    raise AssertionError("200 codes, and none begins with 0")


def test_A12_an_old_cookie_jar_brings_no_try_back(house, ada):
    door = house.door()
    door.ask(ada)
    code, jar = door.read_code(), dict(door.client.cookies)
    compared = 0
    for n in range(20):
        door.client.cookies.clear()
        door.client.cookies.update(jar)
        compared += door.enter(wrong(code, n + 1)).status_code == 422
    assert compared == 5


def test_A13_codes_are_uniform_and_independent():
    keys, digits = Keys(SECRET), 6
    codes = [
        keys.code(keys.current, "sign-in", keys.new_nonce(), ADA, 0, digits) for _ in range(100_000)
    ]
    for position in range(digits):
        assert chi_square([c[position] for c in codes], 10) < 40  # p ≈ 1e-5 at 9 degrees of freedom
    assert chi_square([c[:3] for c in codes], 1000) < 1200  # p ≈ 1e-5 at 999
    numbers = [int(c) / 1e6 - 0.5 for c in codes]
    serial = sum(a * b for a, b in itertools.pairwise(numbers)) / len(numbers) * 12
    assert abs(serial) < 4 / len(numbers) ** 0.5


def chi_square(values, cells):
    expected = len(values) / cells
    counts = dict.fromkeys(range(cells), 0)
    for value in values:
        counts[int(value)] += 1
    return sum((n - expected) ** 2 / expected for n in counts.values())
