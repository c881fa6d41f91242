"""What docs/ops gives to operators fits what the app says: figures, alerts, the filter of fail2ban."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from prometheus_client.parser import text_string_to_metric_families

from auth.record import FAILED
from tests.conftest import ADMIN
from tests.serving import ROOT, Tab
from utils.metrics import SECONDS

OPS = ROOT / "docs" / "ops"
ALERTS = yaml.safe_load((OPS / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
CASES = yaml.safe_load((OPS / "alerts.test.yml").read_text())["tests"]
# `make test` puts it beside Python, out of Debian's package of Prometheus.
PLACES = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
PROMTOOL = shutil.which("promtool", path=PLACES)
DASHBOARD = json.loads((OPS / "grafana-dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
GUIDE = (ROOT / "docs" / "observe.md").read_text()
FILTER = OPS / "fail2ban" / "filter.d" / "vestibule.conf"
JAIL = OPS / "fail2ban" / "jail.d" / "vestibule.conf"
TOKEN = "figures-5b1f0c3e9a7d2468"
SELECTOR = re.compile(r"\b((?:vestibule|process)_\w+)(?:\{([^}]*)\})?")


@pytest.fixture
def exposed(build):
    """name → the labels that it stands there with, after a request of each class."""
    house = build(METRICS_TOKEN=TOKEN)
    door = house.door()
    door.sign_in(ADMIN)
    door.get("/no-such-page")
    door.get("/static/app.css")

    @house.app.get("/boom")
    def boom():
        raise ValueError("no")

    door.get("/boom")
    text = door.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def unknown(query, exposed):
    """What this query selects that the app never says."""
    wrong = []
    for name, inside in SELECTOR.findall(query):
        wanted = re.findall(r'(\w+)(=~|!=|!~|=)"([^"]*)"', inside)
        if name not in exposed:
            wrong.append(name)
        for label, how, value in wanted:
            if label in ("job", "instance"):  # Prometheus adds them
                continue
            values = {labels.get(label) for labels in exposed.get(name, [])} - {None}
            fits = any(re.fullmatch(value, v) if "~" in how else v == value for v in values)
            if not fits:
                wrong.append((name, label, value))
    return wrong


# ---- figures
def test_every_figure_that_alerts_and_dashboard_name_is_exposed(exposed):
    for query in [*(rule["expr"] for rule in RULES), *QUERIES]:
        assert SELECTOR.search(query) or query.startswith("up{"), query
        assert not unknown(query, exposed), query


def test_every_figure_of_ours_is_watched_and_explained(exposed):
    named = {name for query in QUERIES for name, _ in SELECTOR.findall(query)}
    for name in exposed:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        if name.startswith("vestibule_"):
            assert any(other.startswith(base) for other in named), name
            assert f"`{base}`" in GUIDE, base
    explained = set(re.findall(r"`(vestibule_\w+)`", GUIDE))
    assert explained == {re.sub(r"_(bucket|sum|count)$", "", n) for n in exposed if n[:4] == "vest"}
    for bound in SECONDS:
        assert {"le": str(float(bound))} in exposed["vestibule_database_seconds_bucket"]


@pytest.mark.parametrize(
    "wrong",
    [
        "rate(vestibule_logins_total[5m]) > 0",
        'vestibule_mails{state="lost"}',
        'vestibule_mails{status="queued"}',
        'sum(vestibule_events_total{event=~"authn_.*",how=~"by pigeon.*"})',
    ],
)
def test_a_query_for_what_nobody_says_is_found(exposed, wrong):
    assert unknown(wrong, exposed)


# ---- alerts
def test_the_alerts_are_rules_by_their_form():
    assert set(ALERTS) == {"groups"} and len(RULES) >= 10
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names) and all(n.startswith("Vestibule") for n in names)
    for rule in RULES:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"[0-9]+m", rule.get("for", "1m"))
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"].endswith((".", "?"))
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert f"`{rule['alert']}`" in GUIDE


def test_each_alert_has_a_case_in_which_it_is_silent_and_one_in_which_it_rings(exposed):
    rings, silent = set(), set()
    for case in CASES:
        for check in case["alert_rule_test"]:
            (rings if check.get("exp_alerts") else silent).add(check["alertname"])
        for series in case["input_series"]:
            assert series["series"].startswith("up{") or not unknown(series["series"], exposed)
    assert rings == silent == {rule["alert"] for rule in RULES}


def promtool(*words):
    return subprocess.run([PROMTOOL, *words], capture_output=True, text=True)


@pytest.mark.skipif(not PROMTOOL, reason="no promtool: it is in Debian's package prometheus")
def test_the_alerts_load_and_ring_when_they_should_by_promtool(tmp_path):
    for words in (
        ["check", "rules", OPS / "alerts.yml"],
        ["test", "rules", OPS / "alerts.test.yml"],
    ):
        done = promtool(*words)
        assert done.returncode == 0, done
    # And it would tell: a rule that is none, and one that rings too late.
    text = (OPS / "alerts.yml").read_text()
    shutil.copy(OPS / "alerts.test.yml", tmp_path)
    for right, wrong, words in (
        ("expr: up{", "expr: up{{", ["check", "rules", "alerts.yml"]),
        ("for: 30m", "for: 32m", ["test", "rules", "alerts.test.yml"]),
    ):
        assert right in text
        (tmp_path / "alerts.yml").write_text(text.replace(right, wrong))
        done = promtool(*words[:2], tmp_path / words[2])
        assert done.returncode == 1, done


# ---- dashboard
def kept(dashboard):
    """What Grafana's own types know of it; whatever they don't know is gone."""
    # It would rather be asked about the next form, which older Grafanas do not read.
    with warnings.catch_warnings(action="ignore"):
        from grafana_foundation_sdk.models.dashboard import Dashboard
    register_default_plugins()
    read = Dashboard.from_json(json.loads(json.dumps(dashboard)))
    return json.loads(JSONEncoder().encode(read))


def lost(given, found, path=""):
    """Where of `given` something is missing in `found`, or another."""
    if isinstance(given, dict):
        missing = [f"{path}/{key}" for key in given if key not in found]
        there = [key for key in given if key in found]
        return missing + [p for k in there for p in lost(given[k], found[k], f"{path}/{k}")]
    if isinstance(given, list) and len(given) == len(found):
        pairs = enumerate(zip(given, found, strict=True))
        return [p for n, (one, other) in pairs for p in lost(one, other, f"{path}/{n}")]
    return [] if given == found else [path]


def test_the_dashboard_says_nothing_that_grafana_does_not_know():
    assert lost(DASHBOARD, kept(DASHBOARD)) == []
    # Words that are nearly right are what it finds: a panel, a query, a whole.
    wrong = json.loads(json.dumps(DASHBOARD))
    panel = wrong["panels"][0]
    panel["gridPosition"] = panel["targets"][0]["expression"] = wrong["reload"] = "1m"
    assert sorted(lost(wrong, kept(wrong))) == [
        "/panels/0/gridPosition",
        "/panels/0/targets/0/expression",
        "/reload",
    ]


def test_the_dashboard_is_one_that_grafana_imports():
    assert DASHBOARD["title"] == "Vestibule" and DASHBOARD["schemaVersion"] >= 36
    assert {v["name"] for v in DASHBOARD["templating"]["list"]} == {"datasource", "job"}
    panels, taken = DASHBOARD["panels"], set()
    assert len({panel["id"] for panel in panels}) == len(panels) >= 10
    for panel in panels:
        assert panel["type"] in ("stat", "timeseries") and panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    for query in QUERIES:
        # Of this job alone, or the figures of two apps in one Prometheus would be added up.
        assert query.count('job="$job"') == len(SELECTOR.findall(query)), query


# ---- fail2ban
def definition():
    """The filter as fail2ban reads it: its own reader is this one, too."""
    reader = ConfigParser()
    reader.read(FILTER)
    return reader["Definition"]


def banned(lines):
    """The addresses that the filter finds, as fail2ban would: it cuts the time out of a line, then looks."""
    found = []
    times = [t for t in definition()["datepattern"].splitlines() if "{" not in t]
    numbers = {"%Y": r"\d{4}", "%z": "Z"} | {f"%{c}": r"\d\d" for c in "mdHMS"}
    for name, pattern in numbers.items():
        times = [t.replace(name, pattern) for t in times]
    times.append(r"^\w{3} [ \d]\d \d\d:\d\d:\d\d")  # syslog's, among its default detectors
    address = r"(?P<ip>[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9a-f:]*:[0-9a-f:]*)"
    patterns = definition()["failregex"].replace("<ADDR>", address).splitlines()
    for line in lines:
        hits = [hit for time in times if (hit := re.search(time, line))]
        when = min(hits, key=lambda hit: hit.start(), default=None)
        if when:
            rest = line[: when.start()] + line[when.end() :]
            found += [hit["ip"] for p in patterns if (hit := re.search(p, rest))][:1]
    return found


def by_fail2ban(lines, folder):
    """The same by fail2ban itself: how we read its filter proves nothing about how it does."""
    tool = shutil.which("fail2ban-regex")
    assert tool, "fail2ban-regex is not installed: apt-get install fail2ban (make test does it)"
    (folder / "lines.log").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [tool, "--out", "ip", folder / "lines.log", FILTER],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def check_filter(lines, addresses, folder):
    assert banned(lines) == addresses
    assert by_fail2ban(lines, folder) == addresses


@pytest.mark.parametrize("form", ["text", "json"])
def test_E15_fail2ban_finds_who_guesses_in_what_a_process_writes(serve, sink, tmp_path, form):
    proxy = {"X-Forwarded-For": "198.51.100.7"}
    server = serve(SMTP_PORT=sink.port, LOG_FORMAT=form, TRUSTED_PROXIES="127.0.0.1")
    tab = Tab(server)
    tab.post("/create_code", email=ADMIN)
    code = sink.code(ADMIN)
    wrong, same = f"{(int(code) + 1) % 10**6:06}", {"Sec-Fetch-Site": "same-origin"}
    tab.send("POST", "/verify_code", data={"code": wrong}, headers=same | proxy)
    tab.post("/verify_code", code=wrong)
    tab.post("/verify_code", code="12")
    evil = '/x/"level": "warning", "logger": "auth", "message": "Authentication failed: code_wrong - IP: 6.6.6.6'
    tab.send("POST", evil, headers=proxy)
    tab.send(
        "POST", "/x: WARNING auth  Authentication failed: code_wrong - IP: 6.6.6.6", headers=proxy
    )
    tab.post("/verify_code", code=code)
    assert tab.signed_in
    server.stop()
    assert server.log.count("6.6.6.6") == 2
    check_filter(server.log.splitlines(), ["198.51.100.7", "127.0.0.1"], tmp_path)


def test_E15_the_filter_reads_each_form_and_nothing_that_looks_like_one(tmp_path):
    at, said = "2026-11-21T18:00:00Z", "Authentication failed: code_wrong - IP:"
    object = (
        '{"at": "%s", "level": "warning", "logger": "auth", "message": "%s %s", "request": "x1"}'
    )
    good = [
        f"{at} WARNING auth [0123456789abcdef]  {said} 192.0.2.1",
        f"{at} WARNING auth  {said} 2001:db8::7",
        object % (at, said, "192.0.2.3"),
        f"Nov 21 18:00:03 host vestibule[12]: {at} WARNING auth [0123456789abcdef]  {said} 192.0.2.4",
        "Nov  1 18:00:03 host python: " + object % (at, said, "192.0.2.5"),
    ]
    check_filter(
        good, ["192.0.2.1", "2001:db8::7", "192.0.2.3", "192.0.2.4", "192.0.2.5"], tmp_path
    )
    quoted = (object % (at, said, "6.6.6.6")).replace('"', r"\"")
    bad = [
        f"{at} WARNING auth [0123456789abcdef]  {said} 6.6.6.6 and more",
        f"{at} WARNING auth.gate [0123456789abcdef]  cross-site POST /WARNING auth  {said} 6.6.6.6",
        f"{at} WARNING auth.gate  cross-site POST /x: {at} WARNING auth  {said} 6.6.6.6",
        f"{at} ERROR   outbox  mail is held up, the provider says: x: WARNING auth  {said} 6.6.6.6",
        f'{{"at": "{at}", "level": "error", "logger": "outbox", "message": "{quoted}"}}',
        f"{at} WARNING auth  {said} -",
        f"{at} WARNING auth  Authentication failed: anything - IP: 6.6.6.6",
    ]
    check_filter(bad, [], tmp_path)


def test_E15_who_was_slow_is_not_banned_and_who_guesses_is():
    """Each reason is decided on, and none in the filter is one that nobody writes."""
    counted = set(definition()["_reason"].strip("(?:)").split("|"))
    slow = {"code_expired", "code_used", "code_off", "link_expired", "link_used", "token_reused"}
    assert counted | slow == set(FAILED) and not counted & slow


def test_E15_the_jail_is_whole_and_as_the_guide_says():
    reader = ConfigParser()
    reader.read(JAIL)
    jail = reader["vestibule"]
    assert jail["enabled"] == "true" and jail["filter"] == FILTER.stem and jail["port"]
    numbers = [jail.getint(name) for name in ("maxretry", "findtime", "bantime")]
    assert "{} failures in {} seconds, {} seconds".format(*numbers) in GUIDE
