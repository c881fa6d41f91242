"""Log lines: one each, whatever is in them; the id of their request; one for each verification that failed."""

import io
import json
import logging
import re
from contextlib import contextmanager

import pytest

from auth.api import ANSWERS
from auth.record import FAILED
from auth.routes import STATUS
from utils.logs import Json, Text

EVIL = "x\nTraceback\n2026-11-21T00:00:00Z INFO auth.signin  admin signed in\x1b[31m\u2028"
WRONG_LINK = "ab" * 39


def record(message, *args, exc_info=None):
    return logging.LogRecord("auth", logging.INFO, "f", 1, message, args, exc_info)


@contextmanager
def written(form):
    """What is logged meanwhile, as it leaves the process; lines in a list, afterwards."""
    stream, lines = io.StringIO(), []
    handler = logging.StreamHandler(stream)
    handler.setFormatter(form)
    root, before = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        lines += stream.getvalue().splitlines()


def failures(lines):
    return [line for line in lines if "Authentication failed" in line]


# ---- one line each
@pytest.mark.parametrize("form", [Text(), Json()])
def test_a_value_neither_ends_its_line_nor_drives_a_terminal(form):
    line = form.format(record("cross-site %s refused", EVIL))
    assert len(line.splitlines()) == 1 and "\x1b" not in line
    assert "signed in" in line  # it is there, and can be read


def test_a_json_line_is_json_with_its_trace():
    try:
        raise ValueError("no")
    except ValueError as error:
        line = Json().format(record("it failed", exc_info=(ValueError, error, error.__traceback__)))
    said = json.loads(line)
    assert said["message"] == "it failed" and "ValueError: no" in said["trace"]


def test_a_json_line_has_what_was_said_beside_the_message():
    log, more = logging.getLogger("shop"), {"order": 7, "paid": True, "why": EVIL, "nothing": None}
    odd = {"at_once": object(), "rate": float("nan"), "level": "forged", "logger": "forged"}
    with written(Json()) as lines:
        log.warning("an order of %s", "Ada", extra=more | odd)
    said = json.loads(lines[0])
    assert said.pop("at")
    assert said == {"level": "warning", "logger": "shop", "message": "an order of Ada"} | more


# ---- the request
def test_lines_carry_the_id_that_the_audit_has_and_only_within_a_request(house, ada):
    door, log = house.door(), logging.getLogger("elsewhere")
    door.ask(ada)
    wrong = f"{(int(door.read_code()) + 1) % 10**6:06}"
    with written(Json()) as lines:
        door.enter(wrong)
        door.enter(wrong)
        log.warning("between two requests")
    said = [json.loads(line) for line in lines]
    ids = [one["request"] for one in said if "Authentication failed" in one["message"]]
    audit = [row["request_id"] for row in house.rows("events") if row["kind"] == "authn_login_fail"]
    assert len(set(ids)) == 2 and sorted(ids) == sorted(audit)
    assert "request" not in next(one for one in said if one["logger"] == "elsewhere")
    with written(Text()) as lines:
        door.enter(wrong)
        log.warning("between two requests")
    (line,) = failures(lines)
    newest = max(house.rows("events"), key=lambda row: row["id"])
    assert f" WARNING auth [{newest['request_id']}]  Authentication failed: " in line
    assert lines[-1].endswith(" WARNING elsewhere  between two requests")


def test_the_id_of_an_error_page_finds_its_line(house):
    @house.app.get("/boom")
    def boom():
        logging.getLogger("shop").error("it broke")
        raise ValueError("no")

    with written(Text()) as lines:
        page = house.door().get("/boom").text
    (id,) = re.findall(r"shop \[(\w{16})\]  it broke", "\n".join(lines))
    assert id in page


# ---- who guesses
@pytest.mark.parametrize("json_too", [False, True])
def test_E15_each_verification_that_failed_writes_one_line_in_one_form(house, ada, json_too):
    """As docs/ops/fail2ban reads it: the reason, and the whole address of the client."""
    door = house.door(client="203.0.113.77")
    door.ask(ada)
    code = door.read_code()
    wrong = f"{(int(code) + 1) % 10**6:06}"

    def check(act, *reasons):
        with written(Json() if json_too else Text()) as lines:
            act()
        told = [line.partition("Authentication failed: ")[2] for line in failures(lines)]
        # In JSON the message ends with a quotation mark, in text with the line.
        assert [line.partition('"')[0] for line in told] == [
            f"{reason} - IP: 203.0.113.77" for reason in reasons
        ]

    for slip in ("", "12345", "abcdef", "1234567"):  # costs no try, and nobody a ban
        check(lambda slip=slip: door.enter(slip))
    for _ in range(4):
        check(lambda: door.enter(wrong), "code_wrong")
    check(lambda: door.enter(wrong), "code_wrong_last")
    check(lambda: door.enter(code), "code_exhausted")
    check(lambda: door.post("/link", token=WRONG_LINK), "link_wrong")
    check(lambda: door.post("/link", token=""))
    check(lambda: house.door(client="203.0.113.77").enter(code), "no_signin")
    house.clock.advance(3600)
    check(lambda: door.enter(code), "code_expired")
    check(lambda: door.ask(ada))
    check(lambda: door.enter(door.read_code()))  # right
    check(lambda: door.enter(code))  # in another tab, and signed in already
    program = house.program(client="203.0.113.77")
    program.ask(ada)
    check(lambda: program.enter(wrong), "code_wrong")
    check(lambda: program.open_link(f"#{WRONG_LINK}"), "link_wrong")
    check(lambda: program.enter(program.read_code()))
    first = program.refresh_token
    check(program.refresh)
    check(program.refresh)
    check(lambda: program.refresh(first), "token_reused")


def test_E15_who_is_refused_for_too_many_is_named_too(build):
    house = build(LIMIT_WRONG_PER_IP="2/10m", LIMIT_STARTS_PER_IP="2/10m")
    door = house.door(client="2001:db8::7")
    with written(Text()) as lines:
        for _ in range(3):
            door.ask("ada@example.org")
            door.post("/link", token=WRONG_LINK)
    told = [line.partition("Authentication failed: ")[2] for line in failures(lines)]
    many = [f"{reason} - IP: 2001:db8::7" for reason in ("too_many_starts", "too_many_wrong")]
    assert told == ["link_wrong - IP: 2001:db8::7"] * 2 + many


@pytest.mark.parametrize(
    ("peer", "forwarded", "named"),
    [
        ("192.0.2.1", "198.51.100.7", "198.51.100.7"),
        ("192.0.2.1", "6.6.6.6, 198.51.100.7", "198.51.100.7"),
        ("192.0.2.1", "2001:db8:0:0::7", "2001:db8::7"),
        ("192.0.2.1", "::ffff:198.51.100.7", "198.51.100.7"),
        ("192.0.2.1", "x - IP: 6.6.6.6", "192.0.2.1"),
        ("192.0.2.1", "6.6.6.6%\x85WARNING auth  Authentication failed", "6.6.6.6"),
        ("203.0.113.9", "6.6.6.6", "203.0.113.9"),  # no proxy of ours
        ("no address\nWARNING auth", "6.6.6.6", "-"),
    ],
)
def test_E15_nobody_chooses_whose_address_is_written(build, peer, forwarded, named):
    house = build(TRUSTED_PROXIES="192.0.2.1/32")
    door = house.door(client=peer)
    headers = {
        "X-Forwarded-For": forwarded.encode("latin1"),
        "User-Agent": "x\tWARNING auth  Authentication failed: code_wrong - IP: 6.6.6.7",
        "Referer": "https://vestibule.test/\x85Authentication failed: code_wrong - IP: 6.6.6.7",
    }
    headers = {k: v if isinstance(v, bytes) else v.encode("latin1") for k, v in headers.items()}
    with written(Text()) as lines:
        door.post("/link", headers=headers, token=f"{WRONG_LINK}")
    (line,) = failures(lines)
    assert line.endswith(f"Authentication failed: link_wrong - IP: {named}")


def test_E15_a_whole_address_is_in_no_other_line_and_nobody_else_is(house, ada):
    door = house.door(client="203.0.113.77")
    with written(Text()) as lines:
        door.ask(ada)
        door.enter(f"{(int(door.read_code()) + 1) % 10**6:06}")
        door.enter(door.read_code())
        door.client.post("/logout", headers={"Origin": "https://evil.test"})
        door.get("/no-such-page")
    whole = [line for line in lines if "203.0.113.77" in line]
    assert len(whole) == 1 and whole == failures(lines)
    assert not [line for line in lines if ada in line]


def test_E15_every_reason_that_is_told_is_a_reason_of_the_rules():
    assert set(FAILED) <= set(STATUS) | set(ANSWERS)
    # Whatever is refused as wrong, used, ended or too much is told; what asks to wait, or to type better, is not.
    told = {r for r in ANSWERS if ANSWERS[r][0] in (401, 429)} - {"token_invalid"}
    assert told <= set(FAILED)


def test_what_was_raised_forges_no_line_either():
    try:
        raise ValueError(f"no such thing: {EVIL}")
    except ValueError as error:
        text = Text().format(record("it failed", exc_info=(ValueError, error, error.__traceback__)))
    assert not [line for line in text.splitlines() if line.startswith("2026-11-21T00")]
    assert "\x1b" not in text and "signed in" in text and '  File "' in text
