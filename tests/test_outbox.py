"""The outbox and its threads, on a real database: what leaves, in which order, and what trouble does to it."""

import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from main import OUTBOX_MIGRATIONS
from templates.emails import Letter
from tests.conftest import Clock
from tests.serving import until
from utils import mailrows
from utils.breaker import WAITS, Breaker
from utils.database import Unavailable, connect, migrate
from utils.mailer import DEAD, HOLD, LOST, RETRY, Fault, Sender
from utils.outbox import LEASE_SECONDS, LOST_SECONDS, PER_DOMAIN, SENDERS, Outbox

LATER = 10**10  # a time at which no mail is late


class Provider:
    """A transport that does what a test says: `on[ref]` or `always`, called with the message."""

    def __init__(self):
        self.delivered, self.tried, self.on, self.always = [], [], {}, None
        self.closed = 0

    def deliver(self, message):
        ref = message.letter.subject
        self.tried.append(ref)
        if act := self.on.get(ref, self.always):
            act(message)
        self.delivered.append(ref)
        return "250 ok"

    def close(self):
        self.closed += 1


def says(what, reply="451 no", seconds=0, cause="", of_one=False):
    def act(message):
        raise Fault(what, reply, seconds, cause, of_one)

    return act


class Waits:
    """Holds a delivery until it is let go."""

    def __init__(self):
        self.here, self.go = threading.Semaphore(0), threading.Event()

    def __call__(self, message):
        self.here.release()
        assert self.go.wait(20)

    def arrived(self, n=1):
        for _ in range(n):
            assert self.here.acquire(timeout=10)


def letter(kind, ref):
    return Letter(f"{ref}@{kind}.example", ref, "text", "<p>html</p>")


@pytest.fixture
def office(migrated, database_url):
    """office() → a process with a database, a provider, and the outbox between them."""
    opened, clock = [], Clock(time.time())  # the same for all of them

    def open_one(rate=None, steady=None):
        db = connect(database_url)
        migrate(db, OUTBOX_MIGRATIONS)
        provider = Provider()
        outbox = Outbox(
            db, provider, Sender("us@example.com", "Us"), clock, rate, steady or time.monotonic
        )
        outbox.render, outbox.patient = letter, ("new_device",)
        opened.append(outbox)
        return SimpleNamespace(
            db=db, outbox=outbox, provider=provider, clock=clock, put=put(outbox)
        )

    yield open_one
    for outbox in opened:
        outbox.stop()
        outbox.db.close()


def put(outbox):
    def put(*refs, kind="code", not_after=LATER):
        with outbox.db.tx() as t:
            for ref in refs:
                outbox.put(t, kind, ref, not_after)

    return put


@contextmanager
def running(*offices):
    for one in offices:
        one.outbox.start()
    yield
    for one in offices:
        one.outbox.stop()


def row(one, ref):
    return one.db.q("select * from outbox where ref = :ref", ref=ref)[0]


def states(one):
    return {r["ref"]: r["state"] for r in one.db.q("select * from outbox")}


# ---- from the commit to the server
def test_what_is_put_while_our_senders_run_is_in_their_hands_at_once(office):
    one, hold = office(), Waits()
    one.provider.always = hold
    with running(one):
        one.put("a")
        assert (row(one, "a")["state"], row(one, "a")["tries"]) == ("sending", 1)  # no second claim
        hold.arrived()
        hold.go.set()
        until(lambda: states(one) == {"a": "accepted"})
    assert one.provider.delivered == ["a"] and row(one, "a")["reply"] == "250 ok"


def test_what_is_rolled_back_is_never_sent(office):
    one = office()
    with running(one):
        with pytest.raises(RuntimeError), one.db.tx() as t:
            one.outbox.put(t, "code", "gone", LATER)
            raise RuntimeError
        one.put("kept")
        until(lambda: one.provider.delivered)
    assert one.provider.tried == ["kept"]


def test_a_process_without_senders_leaves_its_mail_to_the_others(office):
    teller, sender = office(), office()
    with running(sender):
        teller.put("a")
        until(lambda: states(teller) == {"a": "accepted"})
    assert sender.provider.delivered == ["a"]


def test_stopping_finishes_the_mail_in_hand_and_gives_back_the_rest(office):
    one, other, hold = office(), office(), Waits()
    one.provider.always = hold
    one.outbox.start()
    one.put(*"abcdefgh")
    hold.arrived()
    stopping = threading.Thread(target=one.outbox.stop)
    stopping.start()
    hold.go.set()
    stopping.join(20)
    left = {ref for ref, state in states(one).items() if state == "queued"}
    assert left and left | set(one.provider.delivered) == set("abcdefgh")
    assert one.provider.closed == 1
    assert other.outbox.drain() == len(left)  # at once, and not when a lease has run out
    assert not one.db.q("select * from outbox_status")


# ---- whose turn it is
def test_codes_leave_before_notices(office):
    one = office()
    one.put(*[f"notice{n}" for n in range(30)], kind="new_device")
    one.put("code")
    one.outbox.drain()
    assert one.provider.delivered[0] == "code" and len(one.provider.delivered) == 31


def test_a_few_leave_in_the_order_in_which_they_came(office):
    one, hold = office(), Waits()
    one.provider.on["first"] = hold
    with running(one):
        one.put("first")
        hold.arrived()
        with one.outbox._lock:  # no other sender helps
            idle, one.outbox._idle = one.outbox._idle, {}
        one.put("notice", kind="new_device")
        one.put("a")
        with one.outbox._lock:
            one.outbox._idle = idle
        hold.go.set()
        until(lambda: len(one.provider.delivered) == 3)
    assert one.provider.delivered == ["first", "notice", "a"]


def test_a_code_passes_ten_thousand_notices_in_two_seconds(office):
    one = office()
    one.put(*[f"n{n}" for n in range(10_000)], kind="new_device")
    slow = threading.Event()
    one.provider.always = lambda message: message.letter.subject[0] == "n" and slow.wait(0.05)
    with running(one):
        until(lambda: len(one.provider.delivered) > 3)
        start = time.monotonic()
        one.put("code")
        until(lambda: "code" in one.provider.delivered)
        assert time.monotonic() - start < 2
        slow.set()
        one.outbox.pause(True)


def test_notices_that_hang_leave_senders_for_codes(office):
    one, hold = office(), Waits()
    for n in range(SENDERS):
        one.provider.on[f"n{n}"] = hold
    with running(one):
        one.put(*one.provider.on, kind="new_device")
        hold.arrived(1)
        for n in range(5):
            one.put(f"code{n}")
        until(lambda: sum(ref.startswith("code") for ref in one.provider.delivered) == 5)
        hold.go.set()
        until(lambda: len(one.provider.delivered) == 5 + SENDERS)


def test_one_mail_that_hangs_does_not_keep_the_others(office):
    one, hold = office(), Waits()
    one.provider.on["stuck"] = hold
    with running(one):
        one.put("stuck")
        hold.arrived()
        start = time.monotonic()
        one.put(*[f"p{n}" for n in range(50)])
        until(lambda: len(one.provider.delivered) == 50)
        assert time.monotonic() - start < 3
        hold.go.set()
        until(lambda: "stuck" in one.provider.delivered)


def test_a_domain_that_hangs_does_not_keep_the_others(office):
    one, hold = office(), Waits()
    one.outbox.render = lambda kind, ref: Letter(
        f"{ref}@{'slow' if ref[0] == 's' else 'good'}.example", ref, "t", "h"
    )
    for n in range(20):
        one.provider.on[f"s{n}"] = hold
    with running(one):
        one.put(*one.provider.on)
        hold.arrived(PER_DOMAIN)
        one.put(*[f"g{n}" for n in range(20)])
        until(lambda: sum(ref[0] == "g" for ref in one.provider.delivered) == 20)
        assert len(one.provider.tried) == 20 + PER_DOMAIN
        hold.go.set()
        until(lambda: len(one.provider.delivered) == 40)


def test_a_burst_needs_one_sender_when_the_server_is_quick(office):
    one = office()
    names = set()
    one.provider.always = lambda message: names.add(threading.current_thread().name)
    with running(one):
        for n in range(50):
            one.put(f"p{n}")
        until(lambda: len(one.provider.delivered) == 50)
    assert len(names) <= 2


def test_not_faster_than_the_rate_allows(office):
    one = office(rate=20)
    with running(one):
        start = time.monotonic()
        one.put(*[f"p{n}" for n in range(11)])
        until(lambda: len(one.provider.delivered) == 11)
        assert time.monotonic() - start >= 0.5


# ---- trouble
def test_a_recipient_that_does_not_exist_ends_its_mail_and_no_other(office):
    one, heard = office(), []
    one.outbox.refused = lambda kind, ref: heard.append((kind, ref))
    one.provider.on["b"] = says(DEAD, "550 5.1.1", cause="recipient")
    one.provider.on["d"] = says(DEAD, "can't be written", cause="unwritten")  # not its fault
    one.put(*"abcd")
    one.outbox.drain()
    assert states(one) == {"a": "accepted", "b": "dead", "c": "accepted", "d": "dead"}
    assert heard == [("code", "b")] and row(one, "b")["reply"] == "550 5.1.1"


def test_a_mail_that_can_not_be_written_keeps_no_other_and_ends(office, caplog):
    one = office()

    def poisoned(kind, ref):
        if ref == "b":
            raise KeyError("secret 482913")
        return letter(kind, ref)

    one.outbox.render = poisoned
    with running(one):
        one.put(*[f"p{n}" for n in range(50)], "b", *[f"q{n}" for n in range(50)])
        until(lambda: len(one.provider.delivered) == 100)
        for tries in (1, 2):
            until(lambda tries=tries: row(one, "b")["state"] == "queued")
            assert row(one, "b")["tries"] == tries
            one.clock.advance(3)
            until(lambda tries=tries: row(one, "b")["tries"] > tries)
        until(lambda: row(one, "b")["state"] == "dead")
    assert row(one, "b")["reply"] == "KeyError" and "482913" not in caplog.text


def test_a_mail_that_is_refused_for_now_is_tried_again_in_seconds(office):
    one = office()
    one.provider.always = says(RETRY, "450 4.2.1")
    one.put("a")
    waits = []
    for _ in range(7):
        before = one.clock.now
        one.outbox.drain()
        waits.append(row(one, "a")["next_at"] - int(before))
        assert one.outbox.drain() == 0  # not before its time
        one.clock.advance(waits[-1] + 1)
    for waited, planned in zip(waits, (2, 5, 15, 30, 30, 30, 30), strict=True):
        assert 0.8 * planned - 1 <= waited <= 1.2 * planned + 1, waits
    one.provider.always = None
    one.outbox.drain()
    assert states(one) == {"a": "accepted"} and one.provider.tried == ["a"] * 8


def test_a_mail_is_not_sent_after_its_time_and_its_state_says_so(office):
    one = office()
    one.provider.always = says(RETRY)
    one.put("a", not_after=int(one.clock.now) + 60)
    one.outbox.drain()
    one.clock.advance(61)
    one.provider.always = None
    one.outbox.drain()
    assert states(one) == {"a": "expired"} and one.provider.delivered == []


def test_stopping_does_not_wait_for_a_mail_that_hangs_to_give_back_the_others(office):
    one, other, hold = office(), office(), Waits()
    one.provider.on["stuck"] = hold
    one.outbox.start()
    one.put("stuck")
    hold.arrived()
    one.outbox.pause(True)
    one.put(*"abc")
    stopping = threading.Thread(target=one.outbox.stop)
    stopping.start()
    until(lambda: list(states(one).values()).count("queued") == 3)
    assert row(one, "stuck")["state"] == "sending" and other.outbox.drain() == 3
    hold.go.set()
    stopping.join(20)
    assert states(one) == dict.fromkeys(("stuck", *"abc"), "accepted")


def test_what_is_lost_goes_out_once_more_and_never_a_third_time(office):
    one = office()
    one.provider.always = says(LOST, "no answer")
    one.put("a")
    one.outbox.drain()
    assert row(one, "a")["next_at"] - one.clock.now > 0.8 * LOST_SECONDS - 1
    one.clock.advance(1.2 * LOST_SECONDS + 1)
    one.outbox.drain()
    assert one.provider.tried == ["a", "a"]
    assert states(one) == {"a": "accepted"} and "no answer" in row(one, "a")["reply"]


def test_while_the_provider_is_in_trouble_one_mail_tries_now_and_then(office):
    steady = Clock(1000.0)
    one = office(steady=steady)
    one.provider.always = says(HOLD, "421 4.7.0 try later")
    with running(one):
        one.put(*[f"p{n}" for n in range(20)])
        until(lambda: len(one.provider.tried) == 1)
        for tries, wait in enumerate((*WAITS, WAITS[-1]), 2):
            steady.advance(wait * 0.98)
            one.put(f"more{tries}")  # wakes nobody
            seen = len(one.provider.tried)
            steady.advance(wait * 0.3)
            until(lambda seen=seen: len(one.provider.tried) > seen)
            assert len(one.provider.tried) == tries
        # Whatever breaks the connection is not tried alone for ever.
        assert len(set(one.provider.tried)) == len(one.provider.tried)
        until(lambda: one.outbox.queue().held == "421 4.7.0 try later")
        one.provider.always = None
        steady.advance(WAITS[-1] * 1.2)
        until(lambda: len(one.provider.delivered) == 24)
        until(lambda: set(states(one).values()) == {"accepted"})
        until(lambda: not one.outbox.queue().held)


def test_who_names_a_recipient_with_a_policy_of_its_own_stops_nobody_elses_mail(office):
    one, policy = office(), says(HOLD, "550 5.7.1 not here", of_one=True)
    one.outbox.render = lambda kind, ref: Letter(f"{ref}@{ref[0]}.example", ref, "t", "h")
    for ref in ("a", "a2", "a3", "b", "x"):
        one.provider.on[ref] = policy
    with running(one):
        one.put("a", "a2", "a3", "b", "good")  # two domains
        until(lambda: one.provider.delivered == ["good"])
        assert one.provider.tried[:4] == ["a", "a2", "a3", "b"] and not one.outbox.queue().held
        one.put("x", "a", "b")  # but three domains in a row, and nothing gets through: it is ours
        until(lambda: one.outbox.queue().held)


def test_what_may_be_everybodys_trouble_ends_no_more_than_two_mails(office):
    one, unclear = office(), says(DEAD, "550 relay not permitted", cause="unclear", of_one=True)
    one.outbox.render = lambda kind, ref: Letter(f"x@{ref}.example", ref, "t", "h")
    one.outbox.refused = lambda kind, ref: pytest.fail("nobody said that it does not exist")
    one.provider.always = unclear
    one.put(*"abcde")
    for _ in range(3):
        one.outbox.drain()
    assert sorted(states(one).values()) == ["dead", "dead", "queued", "queued", "queued"]


def test_mails_with_nothing_to_say_do_not_use_up_the_tries_while_mail_is_held(office):
    steady = Clock(1000.0)
    one = office(steady=steady)
    one.outbox.render = lambda kind, ref: None if ref[0] == "v" else letter(kind, ref)
    for n in range(10):  # what one recipient's server says is nothing of the provider, either
        one.provider.on[f"r{n}"] = says(RETRY, "450 4.2.1")
    one.provider.always = says(HOLD, "421")
    with running(one):
        one.put("real")
        until(lambda: one.outbox.queue().held)
        one.put(*[f"v{n}" for n in range(60)], *[f"r{n}" for n in range(10)])
        one.provider.always = None
        for _ in range(8):
            steady.advance(WAITS[0] / 4)
            until(lambda: one.outbox._beat >= steady.now)
        until(lambda: one.provider.delivered == ["real"])
        until(lambda: list(states(one).values()).count("void") == 60)


def test_a_process_whose_provider_is_away_leaves_its_mail_to_another(office):
    ill, well = office(), office()
    ill.provider.always = says(HOLD, "connect: no answer")
    with running(ill, well):
        ill.put(*[f"p{n}" for n in range(30)])
        until(lambda: ill.outbox.queue().held)
        ill.put("late")
        until(lambda: len(well.provider.delivered) == 31)
    assert set(states(ill).values()) == {"accepted"}


def test_what_waits_while_mail_is_held_or_paused_can_be_dropped_and_says_when_it_is_over(office):
    one = office()
    with running(one):
        one.outbox.pause(True)
        one.put("a")
        one.put("b", not_after=int(one.clock.now) + 5)
        assert one.outbox.drop(row(one, "a")["id"])
        one.clock.advance(6)
        until(lambda: row(one, "b")["state"] == "expired")
    assert not one.provider.tried


def test_a_clock_that_is_set_forward_sends_nothing_twice(office):
    one, hold = office(), Waits()
    one.provider.always = hold
    with running(one):
        one.put("a")
        hold.arrived()
        one.clock.advance(3600)
        until(lambda: row(one, "a")["next_at"] > one.clock.now)
        hold.go.set()
        until(lambda: states(one) == {"a": "accepted"})
    assert one.provider.tried == ["a"]


def test_a_renewal_that_failed_makes_nobody_send_twice(office):
    one, hold = office(), Waits()
    db, failed = one.db, threading.Semaphore(0)

    class ReadOnly:
        """Reads work and writes don't, as on a full disk."""

        broken = False

        def __getattr__(self, name):
            return getattr(db, name)

        def tx(self, **how):
            if self.broken:
                failed.release()
                raise Unavailable("disk full")
            return db.tx(**how)

    one.outbox.db = shaky = ReadOnly()
    one.provider.always = hold
    with running(one):
        one.put("a")
        hold.arrived()
        shaky.broken = True
        for _ in range(2):
            assert failed.acquire(timeout=10)  # a renewal
        one.clock.advance(LEASE_SECONDS)  # the lease is over, and the disk has room again
        shaky.broken = False
        until(lambda: row(one, "a")["next_at"] > one.clock.now)
        hold.go.set()
        until(lambda: states(one) == {"a": "accepted"})
    assert one.provider.tried == ["a"]


def test_what_was_taken_over_while_we_slept_is_not_sent_by_us_too(office):
    steady = Clock(1000.0)
    one, other = office(steady=steady), office()
    one.outbox._running = True  # in hand, and then the machine sleeps
    one.put("a")
    one.outbox._running = False
    steady.advance(LEASE_SECONDS)
    one.clock.advance(LEASE_SECONDS)
    assert other.outbox.drain() == 1  # another process has it
    with running(one):
        until(lambda: "a" not in [turn[-1]["ref"] for turn in one.outbox._queue])
        one.put("b")
        until(lambda: "b" in one.provider.delivered)
    assert "a" not in one.provider.tried


def test_a_listener_that_fails_costs_neither_the_sender_nor_the_mail(office):
    one = office()

    def refused(kind, ref):
        raise RuntimeError("secret 482913")

    one.outbox.refused = refused
    one.provider.on["a"] = says(DEAD, "550 5.1.1", cause="recipient")
    with running(one):
        one.put("a", "b")
        until(lambda: states(one) == {"a": "dead", "b": "accepted"})
        assert one.outbox.alive()


def test_breaker_waits_as_long_as_a_fault_asks():
    steady = Clock(0.0)
    breaker = Breaker(steady)
    assert breaker.allows() and breaker.fault("535", 60) and breaker.open
    steady.advance(59)
    assert not breaker.allows() and not breaker.fault("421")
    steady.advance(13)
    assert breaker.allows()
    breaker.passing()
    assert not breaker.allows()  # one at a time
    assert breaker.good() and breaker.allows() and not breaker.good()


# ---- several processes
def test_what_a_dead_process_had_in_hand_is_taken_over(office):
    dead, other = office(), office()
    dead.outbox._running = True  # its threads are gone, as after kill -9
    dead.put("a")
    dead.outbox._running = False
    assert other.outbox.drain() == 0
    other.clock.advance(LEASE_SECONDS)
    assert other.outbox.drain() == 1 and other.provider.delivered == ["a"]


def test_who_slept_through_the_lease_does_not_undo_what_another_did(office):
    one, other = office(), office()
    one.put("a")
    now = int(one.clock.now)
    with one.db.tx() as t:
        held = mailrows.claim(t, one.db.skip_locked, now, now + 1, 1)[0]
    other.clock.advance(2)
    assert other.outbox.drain() == 1
    with one.db.tx() as t:
        mailrows.note(t, held | {"state": "queued"})
    assert states(one) == {"a": "accepted"}


def test_a_mail_that_takes_long_stays_in_the_hand_that_has_it(office):
    one, other, hold = office(), office(), Waits()
    one.provider.always = hold
    with running(one):
        one.put("slow")
        hold.arrived()
        lease = row(one, "slow")["next_at"]
        one.clock.advance(8)
        until(lambda: row(one, "slow")["next_at"] > lease, 20)
        other.clock.advance(5)
        assert other.outbox.drain() == 0
        hold.go.set()
        until(lambda: states(one) == {"slow": "accepted"})
    assert one.provider.tried == ["slow"] and not other.provider.tried


def test_two_processes_send_each_mail_once(office):
    one, other, third = office(), office(), office()
    third.put(*[f"q{n}" for n in range(200)])
    with running(one, other):
        for n in range(200):
            (one, other)[n % 2].put(f"p{n}")
        until(lambda: set(states(third).values()) == {"accepted"}, 30)
    sent = one.provider.delivered + other.provider.delivered
    assert len(sent) == len(set(sent)) == 400


# ---- the operator
def test_pausing_keeps_what_is_put_and_resuming_sends_it(office):
    one = office()
    with running(one):
        one.outbox.pause(True)
        one.put("a")
        assert one.outbox.queue().paused and not one.provider.tried
        one.outbox.pause(False)
        until(lambda: one.provider.delivered == ["a"])
    assert not one.outbox.queue().paused


def test_what_the_operator_sees(office):
    one = office()
    one.put("a")
    one.clock.advance(70)
    queue = one.outbox.queue()
    assert (queue.states, queue.oldest_seconds, queue.workers) == ({"queued": 1}, 70, 0)
    one.provider.on["a"] = says(DEAD, "550 5.1.1")
    one.outbox.drain()
    assert one.outbox.queue().oldest_seconds == 0
    dead = one.outbox.rows(["dead"], 10, 0)
    assert [r["ref"] for r in dead] == ["a"] and not one.outbox.rows(["queued"], 10, 0)
    del one.provider.on["a"]
    assert one.outbox.retry(dead[0]["id"]) and one.outbox.drain() == 1
    assert not one.outbox.retry(dead[0]["id"])  # accepted
    one.put("b")
    id = row(one, "b")["id"]
    assert one.outbox.drop(id) and not one.outbox.drop(id) and one.outbox.drain() == 0
    assert not one.outbox.retry(id)  # for good
    assert states(one) == {"a": "accepted", "b": "dead"}
