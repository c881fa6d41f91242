"""/metrics: who may read it, what it counts, and that nobody is named in it. Read by the real parser."""

import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from auth.events import Source
from auth.record import HEARD, Record
from auth.testing import Door
from tests.conftest import ADMIN, environment
from tests.serving import ROOT
from utils import mailrows, settings
from utils.metrics import STATES

TOKEN = "figures-5b1f0c3e9a7d2468"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def watched(build):
    return build(METRICS_TOKEN=TOKEN)


def figures(house) -> dict:
    """(name, labels) → value, as Prometheus reads them."""
    answer = house.door().get("/metrics", headers=BEARER)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation and family.type != "unknown", family
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def value(found, name, **labels):
    return found[name, frozenset(labels.items())]


def events(house):
    """(event, how) → n, of those that happened."""
    return {
        (labels["event"], labels["how"]): n
        for (name, pairs), n in figures(house).items()
        if name == "vestibule_events_total" and n and (labels := dict(pairs))
    }


# ---- who may read
def test_without_a_token_there_is_no_such_page(house):
    for headers in ({}, BEARER, {"Authorization": "Bearer "}):
        answer = house.door().get("/metrics", headers=headers)
        assert answer.status_code == 404 and "vestibule_" not in answer.text


def test_who_wants_no_figures_does_not_load_the_library():
    code = "import sys, main; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    "given",
    [
        [],
        [""],
        [TOKEN],
        [f"Basic {TOKEN}"],
        ["Bearer"],
        ["Bearer "],
        [f"Bearer {TOKEN[:-1]}"],
        [f"Bearer {TOKEN}x"],
        [f"Bearer  {TOKEN}"],
        [f"Bearer {TOKEN.upper()}"],
        ["Bearer né".encode()],
        [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
    ],
)
def test_J12_without_the_right_token_there_are_no_figures(watched, given):
    headers = [("Authorization", one) for one in given]
    answer = watched.door().get("/metrics", headers=headers)
    assert answer.status_code == 401 and "vestibule_" not in answer.text
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["cache-control"] == "no-store"
    # And the page of an admin who is signed in is none, either: the token counts, and nothing else.
    door = watched.door()
    door.sign_in(ADMIN)
    assert door.get("/metrics", headers=headers).status_code == 401


def test_J12_the_token_does_not_count_in_a_query_or_a_cookie(watched):
    door = watched.door()
    door.client.cookies.set("token", TOKEN)
    assert door.get(f"/metrics?token={TOKEN}&access_token={TOKEN}").status_code == 401
    assert door.post("/metrics", token=TOKEN).status_code == 405


def test_the_page_has_the_headers_of_every_page(watched):
    answer = watched.door().get("/metrics", headers={"Authorization": f"bearer {TOKEN}"})
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    for name in ("content-security-policy", "x-content-type-options", "strict-transport-security"):
        assert answer.headers[name] == watched.door().get("/login").headers[name]


def test_prometheus_may_ask_a_process_by_its_own_address_and_nobody_else_may(watched):
    inside = {"Host": "10.0.0.7:5001"}
    assert watched.door().get("/metrics", headers=inside | BEARER).status_code == 200
    wrong = {"Authorization": "Bearer wrong"}
    assert watched.door().get("/metrics", headers=inside | wrong).status_code == 400
    assert watched.door().get("/metrics", headers=inside).status_code == 400
    assert watched.door().get("/login", headers=inside | BEARER).status_code == 400
    assert watched.door().get("/metrics/", headers=inside | BEARER).status_code == 400


# ---- what is counted
def test_what_can_happen_is_there_from_the_start_as_zero(watched):
    found = figures(watched)
    for event, hows in HEARD.items():
        for how in hows:
            assert value(found, "vestibule_events_total", event=event, how=how) == 0
    for state in STATES:
        assert value(found, "vestibule_mails", state=state) == 0
    assert value(found, "vestibule_database_errors_total") == 0


def test_signing_in_is_counted_by_its_way(watched):
    ada = watched.add("ada@example.org").address
    door = watched.door()
    door.sign_in(ada)
    asked = watched.door()
    asked.ask(ada)
    watched.clock.advance(61)
    asked.post("/resend_code")
    asked.read_code()
    link = watched.mailbox.latest_link(ada)
    assert asked.post("/link", token=link).status_code == 303
    watched.clock.advance(61)
    watched.program().sign_in(ada)
    assert events(watched) == {
        ("authn_code_requested", ""): 3,
        ("authn_code_requested", "again"): 1,
        ("authn_login_success", ""): 1,
        ("authn_login_success", "link"): 1,
        ("authn_login_success", "app"): 1,
    }


def test_N5_wrong_codes_are_counted_by_their_lane(watched):
    ada = watched.add("ada@example.org").address
    known = watched.door()
    known.sign_in(ada)
    stranger = watched.door()
    for door, tries in ((known, 1), (stranger, 5)):
        watched.clock.advance(61)
        door.ask(ada)
        wrong = f"{(int(door.read_code()) + 1) % 10**6:06}"
        for _ in range(tries):
            door.enter(wrong)
    stranger.enter(wrong)  # none is left
    stranger.enter("12")  # a slip: it can't be a code
    watched.door().post("/link", token="ab" * 39)
    found = events(watched)
    found.pop(("authn_code_requested", "")), found.pop(("authn_login_success", ""))
    assert found == {
        ("authn_login_fail", "known browser"): 1,
        ("authn_login_fail", ""): 4,
        ("authn_login_fail_max", ""): 1,
        ("failed", "code_wrong"): 5,
        ("failed", "code_wrong_last"): 1,
        ("failed", "code_exhausted"): 1,
        ("failed", "link_wrong"): 1,
    }
    # The record says whose it was, too.
    details = [row["detail"] for row in watched.rows("events") if row["kind"] == "authn_login_fail"]
    assert sorted(details) == ["", "", "", "", "known browser"]


def test_N5_a_refresh_token_that_was_used_twice_is_counted(watched):
    ada = watched.add("ada@example.org").address
    program = watched.program()
    program.sign_in(ada)
    first = program.refresh_token
    for _ in range(2):
        program.refresh()
    assert program.refresh(first).status_code == 401
    found = events(watched)
    assert found["authn_token_reuse", ""] == found["failed", "token_reused"] == 1


def test_N5_codes_that_are_off_for_strangers_show(build):
    house = build(METRICS_TOKEN=TOKEN, LIMIT_WRONG_FLEET="2/1h", LIMIT_MAILS_FLEET="2/24h")
    house.add("ada@example.org")

    def spent():
        found = figures(house)
        return [value(found, "vestibule_site_spent", share=s) for s in ("wrong codes", "mails")]

    door = house.door()
    door.ask("ada@example.org")
    wrong = f"{(int(door.read_code()) + 1) % 10**6:06}"
    door.enter(wrong)
    assert spent() == [0, 0]
    door.enter(wrong)
    assert spent() == [1, 0]
    house.door().ask("ada@example.org")
    assert spent() == [1, 1]
    limit = "excess_rate_limit_exceeded"
    assert events(house)[limit, "wrong codes of the whole site"] == 1
    assert events(house)[limit, "mails of the whole site"] == 1
    house.clock.advance(3601)
    assert spent() == [0, 1]


def test_what_is_taken_back_has_not_happened(watched):
    heard = []
    record = Record(watched.auth.keys, watched.clock, lambda *what: heard.append(what))
    with pytest.raises(ZeroDivisionError), watched.db.tx() as t:
        record(t, "authn_login_success", "ada@example.org", Source())
        raise ZeroDivisionError
    assert heard == []
    with watched.db.tx() as t:
        record(t, "authn_login_success", "ada@example.org", Source(), detail="ada@example.org")
        assert heard == []  # not yet
    # Without a transaction at once; and whatever stands in the record, only words of ours are heard.
    record(watched.db, "authn_login_success", "ada@example.org", Source(), detail="link")
    record(watched.db, "user_created", "ada@example.org", Source())
    assert heard == [("authn_login_success", ""), ("authn_login_success", "link")]


def test_N5_how_the_mail_is_doing(watched):
    watched.add("ada@example.org")
    watched.door().ask("ada@example.org")
    watched.clock.advance(33)
    found = figures(watched)
    assert value(found, "vestibule_mails", state="queued") == 1
    assert value(found, "vestibule_mail_oldest_seconds") == 33
    assert [value(found, f"vestibule_mail_{n}") for n in ("held", "paused", "workers")] == [0, 0, 0]
    watched.outbox.drain()
    watched.outbox.pause(True)
    with watched.db.tx() as t:  # as another process does, whose provider takes none
        mailrows.tell(t, "worker 1", "535 wrong password", int(watched.clock()))
    found = figures(watched)
    assert value(found, "vestibule_mails", state="queued") == 0
    assert value(found, "vestibule_mails", state="accepted") == 1
    assert value(found, "vestibule_mail_oldest_seconds") == 0
    assert [value(found, f"vestibule_mail_{n}") for n in ("held", "paused", "workers")] == [1, 1, 1]


def test_N5_a_database_that_is_away_shows_and_is_counted(watched):
    door = watched.door()
    door.sign_in(ADMIN)
    assert value(figures(watched), "vestibule_database_up") == 1
    watched.db.close()
    assert door.get("/dashboard").status_code == 503
    found = figures(watched)
    assert value(found, "vestibule_database_up") == 0
    assert value(found, "vestibule_database_errors_total") == 1
    assert value(found, "vestibule_database_seconds_count") >= 3
    assert ("vestibule_mail_held", frozenset()) not in found  # nobody knows
    # It was not known who asks, so no route was tried.
    answered = {"route": "none", "method": "GET", "status": "5xx"}
    assert value(found, "vestibule_request_seconds_count", **answered) == 1


# ---- whom it names
def test_no_label_holds_what_a_client_sent_or_who_anybody_is(watched):
    ada = watched.add("ada@example.org")
    door = watched.door()
    door.sign_in(ADMIN)
    assert door.get(f"/admin/people/{ada.id}").status_code == 200
    for n in range(300):
        assert door.get(f"/nobody-has-this/{n}?token=a-secret").status_code == 404
    door.client.request("BREW", "/login", headers={"Sec-Fetch-Site": "same-origin"})
    door.get("/healthz")
    door.get("/static/app.css")
    door.get("/login", headers={"Host": "evil.test"})
    found = figures(watched)
    seen = [dict(labels) for name, labels in found if name == "vestibule_request_seconds_count"]
    assert len(seen) < 20
    routes = {labels["route"]: labels["method"] for labels in seen}
    assert routes.keys() >= {"/healthz", "/static", "/login", "none"}
    assert {r for r in routes if r.startswith("/admin")} <= {r.path for r in watched.app.routes}
    assert {"route": "/login", "method": "other", "status": "4xx"} in seen
    missing = {"route": "none", "method": "GET", "status": "4xx"}
    assert value(found, "vestibule_request_seconds_count", **missing) == 301
    text = door.get("/metrics", headers=BEARER).text
    for word in (
        ada.id,
        "ada@",
        ADMIN,
        "nobody-has-this",
        "secret",
        "evil",
        "192.0.2",
        "BREW",
        TOKEN,
    ):
        assert word not in text, word


def test_an_error_of_a_page_is_counted_as_one(watched):
    @watched.app.get("/boom")
    def boom():
        raise ValueError("no")

    assert watched.door().get("/boom").status_code == 500
    answered = {"route": "/boom", "method": "GET", "status": "5xx"}
    assert value(figures(watched), "vestibule_request_seconds_count", **answered) == 1


def test_two_apps_in_one_process_count_apart(build):
    one, other = build(METRICS_TOKEN=TOKEN), build(METRICS_TOKEN=TOKEN)
    door: Door = one.door()
    door.ask(ADMIN)
    assert events(one) == {("authn_code_requested", ""): 1} and events(other) == {}
    # What is looked up is the same for both: they share the database.
    for house in (one, other):
        assert value(figures(house), "vestibule_mails", state="queued") == 1


@pytest.mark.parametrize("bad", ["two words", "né", "tab\tbed", '"quoted"'])
def test_a_token_that_no_header_can_carry_is_found_before_the_start(tmp_path, bad):
    _, faults = settings.check(settings.read(environment("", tmp_path, METRICS_TOKEN=bad), None))
    assert list(faults) == ["METRICS_TOKEN"] and bad not in faults["METRICS_TOKEN"]


def test_a_token_that_can_be_guessed_is_remarked_on_and_none_is_shown(tmp_path):
    def found(token):
        return settings.check(settings.read(environment("", tmp_path, METRICS_TOKEN=token), None))[
            0
        ]

    assert [name for name, _ in settings.advice(found("short"))] == ["METRICS_TOKEN"]
    assert settings.advice(found(TOKEN)) == settings.advice(found("")) == []
    assert settings.masked(found(TOKEN))["METRICS_TOKEN"] == "***"
