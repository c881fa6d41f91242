"""Attacks that ask who is registered: every address gets the same answer, to the byte."""

import itertools

import pytest

from tests.attacks.test_a_code import wrong

STATES = {
    "member": "membr@example.org",
    "unknown": "nobdy@example.org",
    "disabled": "disab@example.org",
    "never activated": "added@example.org",
    "unknown domain": "a@unknown.example",
}


@pytest.fixture
def town(house):
    """One person in each state."""
    house.add(STATES["member"])
    house.door().sign_in(STATES["member"])
    house.add(STATES["never activated"])
    user = house.add(STATES["disabled"])
    house.door().sign_in(STATES["disabled"])
    house.auth.people.disable(None, user.id, source())
    house.mailbox.messages.clear()
    return house


def source():
    from auth.events import Source

    return Source()


def shown(answer, address):
    """All that a stranger sees: status, headers in order, cookies, body. The echoed address is masked."""
    headers = []
    for name, value in answer.headers.multi_items():
        if name == "set-cookie":
            token, _, rest = value.partition(";")
            value = f"{token.split('=')[0]}={len(token)};{rest}"
        if name == "content-length":
            value = str(int(value) - answer.text.count(address) * len(address))
        headers.append((name, value))
    return answer.status_code, headers, answer.text.replace(address, "ADDRESS")


@pytest.mark.parametrize("htmx", [False, True])
def test_B1_every_address_gets_the_same_answer(town, htmx):
    answers = {}
    for state, address in STATES.items():
        door = town.door(htmx)
        asked = shown(door.ask(address), address)
        page = shown(door.get("/verify_code"), address)
        answers[state] = (asked, page)
    first = answers.pop("member")
    for state, answer in answers.items():
        assert answer == first, state


@pytest.mark.parametrize("htmx", [False, True])
def test_B2_the_whole_way_is_the_same_for_who_may_not_sign_in(town, htmx):
    stories = {}
    for state, address in STATES.items():
        door, story = town.door(htmx), []
        door.ask(address)
        town.outbox.drain()
        challenge = town.db.q("select * from challenges where address = :a", a=address)[0]
        code = town.auth.keys.code(
            challenge["key_id"], "sign-in", challenge["nonce"], address, 0, 6
        )
        for n in range(5):
            story.append(shown(door.enter(wrong(code, n + 1)), address))
        story.append(shown(door.enter(wrong(code, 7)), address))
        story.append(shown(door.post("/resend_code"), address))
        stories[state] = story
    first = stories.pop("member")
    for state, story in stories.items():
        assert story == first, state


def test_B1_mail_goes_only_to_who_may_sign_in(town):
    for address in STATES.values():
        town.door().ask(address)
    town.outbox.drain()
    recipients = {m.letter.to for m in town.mailbox.messages}
    assert recipients == {STATES["member"], STATES["never activated"]}
    states = [row["state"] for row in town.rows("outbox")]
    assert states.count("void") == 3


def test_B1_even_the_right_code_opens_nothing_for_who_may_not_sign_in(town):
    for state in ("unknown", "disabled"):
        address, door = STATES[state], town.door()
        door.ask(address)
        row = town.db.q("select * from challenges where address = :a", a=address)[0]
        code = town.auth.keys.code(row["key_id"], "sign-in", row["nonce"], address, 0, 6)
        answer = door.enter(code)
        assert (answer.status_code, door.signed_in) == (422, False)
        assert "not right" in answer.text


def test_B1_no_look_at_the_users_when_a_code_is_asked_for(build):
    """The same work for everybody is what keeps the times the same; here it is the same statements."""
    house, seen = build(), {}
    statements = []
    plain = house.db.q

    class Listening:
        Unavailable, tx, run = house.db.Unavailable, house.db.tx, house.db.run

        @staticmethod
        def q(sql, **params):
            statements.append(sql)
            return plain(sql, **params)

    house.add(STATES["member"])
    rules = type(house.auth.signin)(
        Listening, house.auth.keys, house.outbox.put, house.clock, house.auth.policy
    )
    for state in ("member", "unknown"):
        statements.clear()
        rules.create_code(STATES[state], "/", None, source())
        seen[state] = list(statements)
    assert seen["member"] == seen["unknown"]
    assert not any("users" in sql for sql in seen["member"])


def test_reveal_unregistered_tells_when_the_operator_wants_it(build):
    house = build(REVEAL_UNREGISTERED="true")
    answer = house.door().ask("nobody@example.org")
    assert answer.status_code == 422 and "nobody@example.org is not registered here" in answer.text


def test_open_sign_up_takes_in_whoever_reads_the_mail(build):
    house = build(SIGNUP="open", SIGNUP_DOMAINS="example.org")
    house.door().sign_in("new@example.org")
    for address, other in itertools.pairwise(["x@elsewhere.org", "x@sub.example.org", ""]):
        door = house.door()
        door.ask(address)
        house.outbox.drain()
        assert not house.mailbox.to(address), other
