"""Attacks with a stop-watch: does the time of an answer tell who is registered, or how much was right?"""

import math
import random
import statistics
import subprocess
import sys
import time

import pytest

from auth.keys import same
from tests.serving import ROOT, Tab

PAIRS = 500
ALPHA, FLOOR_MS = 1e-3, 0.25
PEOPLE = 100
POST_OFFICE = """
import sys
from tests.sink import Sink
with Sink() as sink:
    print(sink.port, flush=True)
    sys.stdin.read()
"""

pytestmark = pytest.mark.xdist_group("timing")


def mann_whitney(a, b):
    """The two-sided p that both come from one distribution: normal approximation, ties corrected."""
    pool, n1, n2 = sorted([(x, 0) for x in a] + [(x, 1) for x in b]), len(a), len(b)
    n, i, ranks, ties = n1 + n2, 0, 0.0, 0
    while i < n:
        j = i
        while j < n and pool[j][0] == pool[i][0]:
            j += 1
        ranks += (i + j + 1) / 2 * sum(1 for _, side in pool[i:j] if side == 0)
        ties, i = ties + (j - i) ** 3 - (j - i), j
    spread = math.sqrt(n1 * n2 / 12 * (n + 1 - ties / (n * (n - 1))))
    u = ranks - n1 * (n1 + 1) / 2
    return math.erfc(abs(u - n1 * n2 / 2) / spread / math.sqrt(2)) if spread else 1.0


def leaks(act, floors, pairs=PAIRS):
    """Which of the times that act(kind) measures tell "known" from "unknown", in two of three series.

    {name: what was seen}, {} when none does. The order is random over a whole series, so that what one
    request leaves behind meets both kinds alike.
    """
    seen = {name: [] for name in floors}
    for _ in range(3):
        kinds = ["known", "unknown"] * pairs
        random.shuffle(kinds)
        times = {kind: {name: [] for name in floors} for kind in ("known", "unknown")}
        for kind in kinds:
            for name, took in act(kind).items():
                times[kind][name].append(took)
        for name, floor in floors.items():
            a, b = times["known"][name], times["unknown"][name]
            p, apart = mann_whitney(a, b), statistics.median(a) - statistics.median(b)
            seen[name].append((p < ALPHA and abs(apart) > floor, f"{apart:+.3f} ms, p = {p:.1g}"))
        votes = {name: [bad for bad, _ in found] for name, found in seen.items()}
        if all(max(v.count(True), v.count(False)) == 2 for v in votes.values()):
            break
    return {name: seen[name] for name, v in votes.items() if v.count(True) >= 2}


def timed(f, *args, **kw):
    before = time.perf_counter_ns()
    answer = f(*args, **kw)
    return answer, (time.perf_counter_ns() - before) / 1e6


@pytest.fixture
def post_office():
    """A mail server in a process of its own: in this one it would slow the stop-watch down."""
    running = subprocess.Popen(
        [sys.executable, "-c", POST_OFFICE],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield int(running.stdout.readline())
    running.communicate()  # its stdin ends, and so does it


def test_B3_B4_the_time_of_an_answer_does_not_tell_who_is_registered(build, serve, post_office):
    house = build()
    addresses = {kind: [f"{kind[:2]}{n:03}@example.org" for n in range(PEOPLE)] for kind in KINDS}
    for address in addresses["known"]:
        house.add(address)
    server = serve(SMTP_PORT=post_office)

    def probe(kind, planted_ms=0.0):
        tab, address = Tab(server), random.choice(addresses[kind])
        late = time.perf_counter_ns() + (planted_ms * 1e6 if kind == "known" else 0)

        def start():
            while time.perf_counter_ns() < late:
                pass
            return tab.post("/create_code", email=address)

        answer, first = timed(start)
        assert answer.status_code == 303
        # Right after it, a wrong code: it would feel a worker that makes and sends a mail just then.
        answer, second = timed(tab.post, "/verify_code", code="123456")
        assert answer.status_code == 422
        return {"start": first, "verify": second}

    for kind in KINDS * 50:
        probe(kind)  # warm
    floors = {"start": FLOOR_MS, "verify": FLOOR_MS}
    found = leaks(probe, floors)
    assert not found, found
    # A leak of a millisecond is seen, or the above says nothing.
    # On a busy machine it takes as many pairs as above.
    planted = {"start": FLOOR_MS, "verify": 9}
    assert any("start" in leaks(lambda kind: probe(kind, 1.0), planted, n) for n in (60, PAIRS))


KINDS = ("known", "unknown")


def test_B3_the_measure_tells_a_fifth_of_a_millisecond_from_noise():
    chance = random.Random(7)

    def act(kind, planted):
        noise = 2 + abs(chance.gauss(0, 0.15)) + (chance.random() < 0.02) * chance.random() * 40
        return {"it": noise + planted * (kind == "known")}

    assert leaks(lambda kind: act(kind, 0.0), {"it": 0.1}) == {}
    assert "it" in leaks(lambda kind: act(kind, 0.2), {"it": 0.1})
    assert mann_whitney([1, 1, 2, 2], [1, 1, 2, 2]) == 1.0
    assert mann_whitney([1, 1], [1, 1]) == 1.0
    assert mann_whitney(range(100), range(100, 200)) < 1e-30


def welch(compare, right, samples=10_000, times=4):
    """t between guesses that are wrong at the first character and at the last. Outliers are capped."""
    letters = "0123456789" if right.isdigit() else "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    guesses = []
    for place in [0, -1] * samples:
        characters = list(right)
        characters[place] = letters[letters.index(right[place]) - 1]
        guesses.append(("".join(characters), place))
    random.shuffle(guesses)  # made before, and alike: only the comparing differs
    measured = []
    for typed, _ in guesses:
        before = time.perf_counter_ns()
        for _ in range(times):
            compare(typed, right)
        measured.append(time.perf_counter_ns() - before)
    took = {0: [], -1: []}
    for (_, place), ns in zip(guesses, measured, strict=True):
        took[place].append(ns)
    cap = sorted(took[0] + took[-1])[samples * 2 * 9 // 10]
    one, two = ([min(t, cap) for t in times] for times in took.values())
    spread = (statistics.variance(one) + statistics.variance(two)) / samples
    return abs(statistics.fmean(one) - statistics.fmean(two)) / math.sqrt(spread)


def by_character(one, other):
    return all(a == b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("right", ["482913", "QWERTYUIOPAS"])
def test_B4_comparing_takes_as_long_for_a_guess_that_is_almost_right(right):
    assert min(welch(same, right) for _ in range(2)) < 4.5
    assert welch(by_character, right) > 4.5  # or the above says nothing
