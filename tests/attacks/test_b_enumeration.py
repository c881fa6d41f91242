"""Attacks that ask who is registered: every address gets the same answer, to the byte."""

import itertools
import re
import secrets
import socket
from contextlib import suppress
from dataclasses import replace

import pytest

from auth.addresses import masked
from auth.events import Source
from auth.known import Browser
from auth.limits import mailbox_of
from auth.policy import Refused
from auth.testing import Mailbox
from tests.attacks.test_a_code import wrong
from tests.conftest import ADMIN, DEFAULT
from tests.serving import Tab
from utils.replies import refused

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


def test_B1_the_same_statements_for_known_and_unknown(build):
    """The same work for everybody is what keeps the times the same; here it is the same statements."""
    seen = statements(build())
    assert seen["member"] == seen["unknown"]
    assert len(seen["member"]) > 12


def statements(house, before=lambda house, address: None):
    """The SQL of a start, a resend and a wrong code, and the counters that it touches, for a member and
    for somebody unknown. Whoever waits for another row waits for another time."""
    rules, heard = house.overheard()

    def counters(params, address):
        """Keys of counters; those of the address itself all alike."""
        own = {house.auth.keys.subject(name) for name in (address, mailbox_of(address))}
        keys = [value for name, value in params.items() if re.fullmatch(r"key\d+", name)]
        return sorted("own" + k[16:] if k[:16] in own else k for k in keys)

    seen = {}
    house.add(STATES["member"])
    for state in ("member", "unknown"):
        before(house, STATES[state])
        heard.clear()
        token, _ = rules.create_code(STATES[state], "/", Browser(source=source()))
        house.clock.advance(60)
        with suppress(Refused):
            rules.resend_code(Browser(token, source=source()))
        with suppress(Refused):
            rules.verify_code("000000", "", Browser(token, source=source()))
        seen[state] = [(sql, counters(params, STATES[state])) for sql, params in heard]
    return seen


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


# ---- whatever was spent before, it was spent for everybody
EIGHT = STATES | {
    "deleted": "delet@example.org",
    "known only with a +tag": "tagge@example.org",
    "a +tag of a member": "membr+x@example.org",
}


def populate(house):
    for state in ("member", "never activated", "disabled", "deleted"):
        house.add(EIGHT[state])
    for state in ("member", "disabled", "deleted"):
        house.door(client="100.64.0.1").sign_in(EIGHT[state])
    people = house.auth.people
    people.disable(None, people.by_address(EIGHT["disabled"]).id, source())
    people.delete(None, people.by_address(EIGHT["deleted"]).id, source())
    house.add("tagge+work@example.org")


def stranger(n):
    return Browser(source=Source(f"100.65.{n}.0/24", "", f"100.65.{n}.1/32"))


def spend_mails(house, address):
    for n in range(5):
        house.auth.signin.create_code(address, "/", stranger(n))
        house.clock.advance(60)


def spend_wrong_codes(house, address):
    browser = stranger(sum(address.encode()) % 250)
    token, _ = house.auth.signin.create_code(address, "/", browser)
    for _ in range(3):
        with suppress(Refused):
            house.auth.signin.verify_code("123456", "", replace(browser, signin=token))


def spend_site_mails(house, address):
    for n in range(3):
        with suppress(Refused):
            house.add(f"other{n}@example.org")
        house.auth.signin.create_code(f"other{n}@example.org", "/", stranger(n))


def spend_site_wrong_codes(house, address):
    spend_wrong_codes(house, "somebody@elsewhere.example")


def spend_mailbox(house, address):
    """All aliases of a member's mailbox that an admin has added, as often as they may be mailed."""
    for n in range(5):
        with suppress(Refused):
            house.add(f"membr+{n}@example.org")
        house.auth.signin.create_code(f"membr+{n}@example.org", "/", stranger(n))


SPENT = {
    "nothing": ({}, lambda house, address: None),
    "mails": ({}, spend_mails),
    "wrong codes": ({"LIMIT_WRONG_PER_ACCOUNT": "3/24h"}, spend_wrong_codes),
    "mails of the site": ({"LIMIT_MAILS_FLEET": "3/24h"}, spend_site_mails),
    "wrong codes of the site": ({"LIMIT_WRONG_FLEET": "3/24h"}, spend_site_wrong_codes),
    "mails of the mailbox": ({"LIMIT_MAILS_PER_ADDRESS": "1/60s,4/24h"}, spend_mailbox),
}

# One browser in front of the door, who tries everything; what it waits for, all wait for.
STORY = [
    "ask",
    *("page", "link", "again", "wrong", "wrong", "long", "resend"),
    "ask",  # at once: no new mail, and no new tries
    *("page", "wrong", "wait 61", "resend", "page", "again", "wrong", "link"),
    *("ask", "wait 61", "ask", "wait 61", "ask", "page", "wait 61", "resend", "page", "link"),
    *("wrong", "wrong", "wrong", "wrong", "wrong", "page", "wait 121", "resend", "wrong", "page"),
    *("long", "long", "long", "long", "long", "page"),
    *("wait 901", "link", "page", "again", "wrong", "long", "resend"),
    *("wait 1200", "link", "page", "ask", "page", "wrong", "link"),
    *("wait 3600", "link", "page", "ask", "page", "wrong", "wait 61", "resend", "link"),
]


def told(answer, address):
    """As `shown`; what the page of a link says of the address is masked, too."""
    status, headers, body = shown(answer, address)
    short = masked(address)
    length = [int(v) - answer.text.count(short) * len(short) for k, v in headers if "length" in k]
    headers = [h for h in headers if h[0] != "content-length"]
    return status, headers, length, body.replace(short, "MASKED")


@pytest.mark.parametrize("htmx", [False, True])
@pytest.mark.parametrize("spent", SPENT)
def test_B5_eight_states_of_an_account_are_one_whatever_was_spent(build, spent, htmx):
    limits, before = SPENT[spent]
    house = build(**DEFAULT | {"LIMIT_WRONG_FLEET": "1000/1h"} | limits)
    populate(house)
    house.clock.advance(2 * 86400)
    began = house.clock.now
    for address in EIGHT.values():
        house.clock.now = began
        before(house, address)
        house.outbox.drain()
    doors = {s: house.door(htmx, f"10.{n}.1.1") for n, s in enumerate(EIGHT)}
    steps = {
        "ask": lambda door, address: door.ask(address),
        "page": lambda door, _: door.get("/verify_code", headers={"HX-Request": "false"}),
        "link": lambda door, _: door.get("/link"),
        "again": lambda door, _: door.get("/resend_code", headers={"HX-Request": "true"}),
        "wrong": lambda door, _: door.enter("123456"),
        "long": lambda door, _: door.enter("ABCDEFGHIJKL"),
        "resend": lambda door, _: door.post("/resend_code"),
    }
    said = set()
    for number, step in enumerate(STORY):
        if step.startswith("wait"):
            house.outbox.drain()
            house.clock.advance(int(step.split()[1]))
            continue
        answers = {s: told(steps[step](doors[s], EIGHT[s]), EIGHT[s]) for s in EIGHT}
        first = answers.pop("member")
        for state, answer in answers.items():
            assert answer == first, (number, step, state)
        said |= {sign for sign in ("not right", "switched off", "MASKED") if sign in first[3]}
    assert "MASKED" in said  # the story went as it was meant to
    assert ("switched off" in said) == ("wrong codes" in spent)
    assert "not right" in said


@pytest.mark.parametrize("spent", SPENT)
def test_B5_the_same_statements_whatever_was_spent(build, spent):
    limits, before = SPENT[spent]
    house = build(**DEFAULT | limits)
    seen = statements(house, before)
    assert seen["member"] == seen["unknown"]


@pytest.mark.parametrize("htmx", [False, True])
def test_B5_a_client_that_does_too_much_hears_so_whomever_it_asks_for(build, htmx):
    limits = {"LIMIT_STARTS_PER_IP": "3/10m", "LIMIT_WRONG_PER_IP": "2/10m"}
    house, stories = build(**DEFAULT | limits), {}
    populate(house)
    house.clock.advance(86400)
    for n, (state, address) in enumerate(EIGHT.items()):
        door, story = house.door(htmx, f"10.{n}.1.1"), []
        story += [told(door.ask(address), address) for _ in range(5)]
        story += [told(door.enter("123456"), address) for _ in range(4)]
        story.append(told(door.post("/resend_code"), address))
        stories[state] = story
    first = stories.pop("member")
    sent = 200 if htmx else 303
    assert [a[0] for a in first] == [*[sent] * 3, 429, 429, 422, 422, 429, 429, 429]
    names = {name for answer in first for name, _ in answer[1]}
    assert "retry-after" in names and not any("ratelimit" in name for name in names)
    for state, story in stories.items():
        assert story == first, state


def test_B5_an_address_is_never_refused_for_its_own_limits(build):
    house = build(**DEFAULT)
    house.add(STATES["member"])
    for state in ("member", "unknown"):
        door = house.door(client=f"10.{len(state)}.1.1")
        assert [door.ask(STATES[state]).status_code for _ in range(15)] == [303] * 15
    house.outbox.drain()
    assert len(house.mailbox.to(STATES["member"])) == 1


# ---- B6: what became of a mail
class Bouncing(Mailbox):
    def deliver(self, message):
        raise refused("rcpt", 550, "5.1.1 no such user")


def test_B6_the_page_that_waits_does_not_know_of_a_bounce(build):
    house = build(mailbox=Bouncing())
    house.add(STATES["member"])
    doors = {state: house.door() for state in ("member", "unknown")}
    for state, door in doors.items():
        door.ask(STATES[state])
    htmx, plain = {"HX-Request": "true"}, {"HX-Request": "false"}
    for _ in range(13):
        house.outbox.drain()
        answers = {
            state: [
                shown(door.get(path, headers=how), STATES[state])
                for path in ("/verify_code", "/resend_code")
                for how in (htmx, plain)
            ]
            for state, door in doors.items()
        }
        assert answers["member"] == answers["unknown"]
        house.clock.advance(5)
    states = {row["state"] for row in house.rows("outbox")}
    assert states == {"dead", "void"}  # the one has no recipient, the other none was due
    again = {s: shown(door.post("/resend_code"), STATES[s]) for s, door in doors.items()}
    assert again["member"] == again["unknown"]


def test_B6_an_answer_does_not_wait_for_a_mail_server_that_hangs(serve):
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        hanging.settimeout(15)
        server = serve(SMTP_PORT=hanging.getsockname()[1])
        assert Tab(server).post("/create_code", email=ADMIN).status_code == 303
        held, _ = hanging.accept()  # the worker has the mail in hand, and nobody greets it
        with held:
            for address in (ADMIN, STATES["unknown"], ADMIN):
                tab = Tab(server)
                assert tab.post("/create_code", email=address).status_code == 303
                assert "We have sent" in tab.get("/verify_code").text
            held.setblocking(False)
            with pytest.raises(BlockingIOError):  # the same mail, in the same hand, still waiting
                held.recv(1)


# ---- B7 and B8: side doors
HOW = [{"Accept": "text/html"}, {"HX-Request": "true"}, {"Accept": "application/json"}]


@pytest.fixture
def outsiders(town):
    """A browser in which nobody is signed in, and one of somebody who is no admin."""
    member = town.door()
    member.sign_in(STATES["member"])
    return {"anonymous": town.door(), "member": member}


def test_B7_only_an_admin_is_told_that_somebody_is_there_already(town, outsiders, admin):
    new = "brand@example.org"
    before = len(town.rows("users"))
    for (name, door), how in itertools.product(outsiders.items(), HOW):
        answers = [
            shown(door.post("/admin/people", headers=how, email=email, role="user"), email)
            for email in (STATES["disabled"], new)
        ]
        assert answers[0] == answers[1], (name, how)
        assert answers[0][0] != 200 or "people" not in answers[0][2].lower()
        finds = [
            shown(door.get(f"/admin?q={email}", headers=how), email)
            for email in (STATES["disabled"], "nobdy@example.org")
        ]
        assert finds[0][0] == finds[1][0] and STATES["disabled"] not in finds[0][2]
    assert len(town.rows("users")) == before
    there = admin.post("/admin/people", email=STATES["disabled"], role="user")
    assert there.status_code == 422 and "is there already" in there.text
    assert admin.post("/admin/people", email=new, role="user").status_code == 303


def test_B7_what_is_behind_admin_looks_the_same_to_all_others(town, outsiders):
    there = [row["id"] for row in town.rows("users")]
    for (name, door), how in itertools.product(outsiders.items(), HOW):
        answers = [
            [
                blind(door.post(f"/admin/people/{id}/{act}", headers=how, role="admin"), id)
                for act in ("role", "disable", "enable")
            ]
            + [blind(door.get(f"/admin?done=added&id={id}", headers=how), id)]
            for id in (*there, *(secrets.token_hex(16) for _ in there))
        ]
        assert all(answer == answers[0] for answer in answers), (name, how)
    assert {row["role"] for row in town.rows("users") if row["address"] != ADMIN} == {"user"}
    assert [row["address"] for row in town.rows("users") if row["disabled_at"]] == [
        STATES["disabled"]
    ]


def test_B7_no_page_for_members_tells_more_by_its_absence(town, outsiders):
    """/admin is in the public source: that it is there is no secret, who is behind it is one."""
    for name, door in outsiders.items():
        assert door.get("/admin").status_code == 303, name
        absent = [shown(door.get(p), p) for p in ("/admin/nowhere", "/nowhere", "/users/x")]
        assert [a[0] for a in absent] == [404] * 3 and absent[1] == absent[2], name
        ids = [row["id"] for row in town.rows("users")] + ["0" * 32, secrets.token_hex(16)]
        behind = [blind(door.get(f"/admin/people/{id}"), id) for id in ids]
        assert all(answer == behind[-1] for answer in behind), name


def blind(answer, id):
    """All that is seen, without the id that was asked for."""
    return str(shown(answer, id)).replace(id, "ID")


OPAQUE = ["users", "sessions", "challenges", "devices"]


def test_B8_ids_are_128_random_bits(town):
    for n in range(30):
        address = f"p{n:02}@example.org"
        town.add(address)
        door = town.door()
        door.sign_in(address)
        door.post("/create_code", email=address)
    for table in OPAQUE:
        ids = [row["id"] for row in town.rows(table)]
        assert len(ids) >= 30 and len(set(ids)) == len(ids), table
        assert all(re.fullmatch(r"[0-9a-f]{32}", id) for id in ids), table
        ones = [sum(int(id, 16) >> bit & 1 for id in ids) for bit in range(128)]
        # Each bit is now 0, now 1 (a fixed one: p < 2^-22), so nothing in it counts up or tells the time.
        assert all(0 < n < len(ids) for n in ones), table


def test_B8_an_id_that_exists_opens_no_more_than_one_that_does_not(town, outsiders):
    town.door().ask(STATES["member"])
    town.door().sign_in(ADMIN)
    # Of somebody else: one's own sign-ins are on one's account page.
    admin = town.auth.people.by_address(ADMIN)
    theirs = {"users": {"id": admin.id}, "challenges": {"address": ADMIN}}
    there = []
    for table in OPAQUE:
        whose = theirs.get(table, {"user_id": admin.id}).items()
        there += [row["id"] for row in town.rows(table) if whose <= row.items()][:1]
    assert len(there) == len(OPAQUE)
    there.append(town.rows("outbox")[0]["id"])
    paths = {r.path for r in town.app.routes if "{" not in r.path} | {"/admin/people", "/users"}
    assert {"/login", "/link", "/verify_code", "/admin", "/dashboard"} <= paths
    for path, (name, door) in itertools.product(sorted(paths), outsiders.items()):
        for end in ("/{}", "/{}/role", "?id={}", "?next=/admin/people/{}", "?token={}", "?q={}"):
            seen = [
                blind(door.get(path + end.format(id)), id)
                for id in (*there[:2], there[-1], secrets.token_hex(16))
            ]
            assert all(answer == seen[-1] for answer in seen), (path + end, name)
