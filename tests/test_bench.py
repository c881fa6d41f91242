"""The comparison in bench/: it runs, its figures say what its table and chart show, and its peers are pinned and described."""

import json
import re
import subprocess
import sys
import tomllib
from xml.etree import ElementTree

import pytest

from bench import report
from tests.serving import ROOT

PEERS = sorted((ROOT / "bench" / "peers").glob("*/peer.toml"))
DOCS = ROOT / "docs"


def figures():
    """Two rounds of two apps; in the second everything takes twice as long."""

    def measured(turn, name, width, ms):
        rest = {"create_ms": ms / 2, "page_us": ms * 100, "rss_mb": 50.0, "start_s": 0.5}
        return {"round": turn, "width": width, "name": name, "signin_ms": ms * turn, "errors": 0, "error": []} | rest  # fmt: skip

    does = dict.fromkeys(report.DOES, "such & such")
    app = {"versions": {"package": "1.2"}, "warm": None, "note": "as it is", "does": does}
    return {
        "date": "2026-01-02",
        "machine": "a machine",
        "sizes": {"users": 3, "warm": 2, "signins": 1000, "requests": 5, "gets": 40},
        "apps": [app | {"name": "Ours"}, app | {"name": "Theirs"}],
        "rounds": [
            measured(turn, name, width, ms * (1 if width == 1 else 0.5))
            for turn in (1, 2)
            for width in (1, 16)
            for name, ms in (("Ours", 1.0), ("Theirs", 5.0))
        ],
    }


def test_a_ratio_is_taken_within_a_round():
    """A machine that is half as fast in the second round changes the milliseconds and no ratio."""
    run = report.Run(figures())
    assert run.median("Ours", 1, "signin_ms") == 1.5
    assert run.times("Theirs", 1, "signin_ms") == run.times("Theirs", 16, "signin_ms") == 5


def test_a_round_that_failed_is_an_error_and_no_figure():
    broken = figures()
    broken["rounds"][1] = {
        "round": 1, "width": 1, "name": "Theirs", "errors": 1, "error": ["it did not start"]
    }  # fmt: skip
    run = report.Run(broken)
    assert run.errors == ["Theirs: it did not start"]
    assert run.median("Theirs", 1, "signin_ms") == 10
    assert run.times("Theirs", 1, "signin_ms") == 5


def test_the_table_has_a_line_for_each_app():
    head, _, *lines = report.costs(report.Run(figures())).splitlines()
    assert len({line.count("|") for line in (head, *lines)}) == 1
    assert [line.split(" | ")[:3] for line in lines] == [
        ["| Ours", "1.50 [1.00-2.00]", "1.0"],
        ["| Theirs", "7.50 [5.00-10.00]", "5.0"],
    ]


def test_an_aim_says_whether_it_was_reached():
    found = figures()
    for row in [*found["apps"], *found["rounds"]]:
        row["name"] = row["name"].replace("Theirs", "better-auth (warmed)")
    lines = report.aims(report.Run(found)).splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["reached"] * 3
    found["rounds"][1]["signin_ms"] = found["rounds"][5]["signin_ms"] = 4.9
    assert "NOT reached" in report.aims(report.Run(found))


def test_only_what_is_between_the_marks_is_written():
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter"
    new = report.between(text, r"new \1")
    assert new == f"before\n{report.BEGIN}\n\nnew \\1\n\n{report.END}\nafter"
    assert report.between(new, r"new \1") == new
    with pytest.raises(ValueError, match="once each"):
        report.between("no marks", "new")


def test_the_chart_stands_alone_and_says_itself_in_words():
    drawing = ElementTree.fromstring(report.chart(report.Run(figures())))
    space = "{http://www.w3.org/2000/svg}"
    assert drawing.find(f"{space}title").text
    assert "one at a time: Ours 1.50, Theirs 7.50" in drawing.find(f"{space}desc").text
    bars = [float(bar.get("width")) for bar in drawing.iter(f"{space}rect") if bar.get("x")]
    assert bars[1] == pytest.approx(5 * bars[0], abs=0.5) and len(bars) == 4
    style = drawing.find(f"{space}style").text
    assert "prefers-color-scheme: dark" in style and "url(" not in style and "@import" not in style
    assert {element.tag for element in drawing.iter()} <= {
        space + name for name in ("svg", "title", "desc", "style", "rect", "line", "text")
    }


def test_docs_show_the_figures_that_are_kept():
    run = report.Run(report.read(DOCS))
    assert not run.errors
    assert (DOCS / "sign-in-cost.svg").read_text() == report.chart(run)
    text = (DOCS / "performance.md").read_text()
    assert text == report.between(text, report.page(run))


def test_figures_are_kept_as_they_are(tmp_path):
    report.save(tmp_path, figures())
    assert report.read(tmp_path) == figures()


@pytest.mark.parametrize("path", PEERS, ids=lambda p: p.parent.name)
def test_a_peer_says_what_it_does_and_on_what_it_stands(path):
    peer = tomllib.loads(path.read_text())
    assert set(peer["does"]) == set(report.DOES) and peer["note"]
    assert set(peer["flow"]) >= {"create", "verify", "page"}
    assert peer["flow"]["page"]["contains"] == "{email}"
    if "lock" not in peer:  # it runs on the app's own packages
        assert peer["start"][0] == "{python}"
        return
    lock = (path.parent / peer["lock"]).read_text()
    if peer["lock"].endswith(".txt"):
        assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in lock.split())
    else:
        packages = json.loads(lock)["packages"]
        assert all(p.get("integrity") for name, p in packages.items() if name)
    # Where packages come from is for the machine to say.
    assert "://" not in lock


def test_the_comparison_runs(tmp_path):
    """With the one peer that needs no download: it asks, reads mail, enters codes and opens pages, of both."""
    sizes = {"rounds": 1, "concurrency": "1,2", "users": 4, "warm": 0, "signins": 4, "requests": 2, "gets": 4}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "bench/bench.py", "compare", "--peers", "lean", "--json", tmp_path / "f"]
        + [word for name, value in sizes.items() for word in (f"--{name}", str(value))],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = report.Run(json.loads((tmp_path / "f").read_text()))
    assert run.names == ["Vestibule", "lean FastHTML"] and run.widths == [1, 2]
    for name in run.names:
        assert all(run.each(name, width, "signin_ms")[1] > 0 for width in run.widths)
    assert run.each("Vestibule", 2, "me_us")[1] > 0
    assert "lean FastHTML" in done.stdout
