"""kill -9 at any moment: what was promised is kept, and nothing stays half done.

KILLS says how often at least each server is killed in the test of random moments; 12 by default, 150 now and then.
"""

import os
import random
import signal
import threading
import time
from bisect import bisect
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import count

import httpx2
import pytest

from auth.known import Browser
from auth.testing import Mailbox
from tests.faults import history
from tests.faults.chaos import HANG
from tests.serving import Tab, until
from utils.database import connect

KILLS = int(os.environ.get("KILLS") or 12)
ASKING, ENTERING = 2, 3  # browsers at work at the same time
ADA = "ada@example.org"


class Killed(BaseException):
    """Stands for kill -9: no code of ours catches it."""


class Mortal:
    """A database for a process that ends right before its statement, or commit, `number`."""

    def __init__(self, db, number):
        self.db, self.left = db, number
        self.Unavailable, self.run = db.Unavailable, db.run

    def step(self):
        self.left -= 1
        if not self.left:
            raise Killed

    def q(self, sql, **params):
        self.step()
        return self.db.q(sql, **params)

    @contextmanager
    def tx(self, **how):
        with self.db.tx(**how) as t:
            q = t.q

            def mortal(sql, **params):
                self.step()
                return q(sql, **params)

            t.q = mortal
            yield t
            self.step()


def dying(house, act):
    """act(rules) ends at its first statement, then at its second, …; yields after each death."""
    for number in count(1):
        try:
            act(replace(house.auth.signin, db=Mortal(house.db, number)))
        except Killed:
            yield number
        else:
            assert number > 5, "it did next to nothing"
            return


class Person:
    """One browser that signs in once, under an address of its own; and what it was told."""

    def __init__(self, address):
        self.address, self.tab = address, Tab()
        self.promised = False  # its start was answered
        self.tries, self.arrived = 0, False  # codes entered; answered with a session


class Street:
    """People who ask for codes and enter them until the server is gone."""

    def __init__(self, chaos, seed):
        self.chaos, self.random = chaos, random.Random(seed)
        self.people, self.waiting, self.unexpected = [], [], []
        self.lock, self.kills = threading.Lock(), []

    def walk(self, server):
        """One life of a server, which ends by kill -9 at a random moment."""
        gate = threading.Barrier(ASKING + ENTERING + 1)
        moment = self.random.uniform(0, 0.2)
        with ThreadPoolExecutor(ASKING + ENTERING) as pool:
            for act in [self._ask] * ASKING + [self._enter] * ENTERING:
                pool.submit(self._until_gone, gate, act, server)
            gate.wait()
            time.sleep(moment)  # what this is about: any moment
            os.kill(server.process.pid, signal.SIGKILL)
            self.kills.append(time.monotonic())
        server.kill()

    def _until_gone(self, gate, act, server):
        gate.wait()
        try:
            while act(server):
                pass
        except httpx2.HTTPError:
            pass  # the server is gone, and nobody knows how far it came
        except Exception as error:
            self.unexpected.append(error)

    def _ask(self, server):
        with self.lock:
            person = Person(f"p{len(self.people)}@example.org")
            self.people.append(person)
        person.tab.servers = (server,)
        answer = person.tab.post("/create_code", email=person.address)
        person.promised = answer.status_code == 303
        with self.lock:
            told = self.waiting if person.promised else self.unexpected
            told.append(person)
        return True

    def _enter(self, server):
        with self.lock:
            mailed = [p for p in self.waiting if self.chaos.to(p.address)]
            person = self.random.choice(mailed) if mailed else None
            if person:
                self.waiting.remove(person)
                person.tries += 1
        if not person:
            with self.chaos.changed:
                self.chaos.changed.wait(0.05)
            return server.process.poll() is None
        person.tab.servers = (server,)
        self.enter(person)
        return True

    def copies(self, person):
        """How many mails there were. One more for each kill that came before the note, and no more."""
        mails = self.chaos.to(person.address)
        opened = [self.chaos.connections[mail.connection - 1].opened_at for mail in mails]
        lives = {bisect(self.kills, at) for at in opened}
        assert len(lives) == len(mails), (person.address, opened, self.kills)
        assert len({(mail.code, mail.id) for mail in mails}) <= 1, mails
        return len(mails)

    def enter(self, person):
        """The right code: a session, or it was used by a try whose answer was lost."""
        code = self.chaos.to(person.address)[0].code
        status = person.tab.post("/verify_code", code=code).status_code
        person.arrived = status == 303
        if status != 303 and not (status == 410 and person.tries > 1):
            self.unexpected.append((person.address, person.tries, status))


def test_M1_wherever_a_start_ends_its_mail_is_kept_with_it_or_neither_is(build):
    house = build(SIGNUP="open")

    def pairs():
        kept = {row["id"] for row in house.rows("challenges")}
        assert kept == {row["ref"] for row in house.rows("outbox")}
        return len(kept)

    for _ in dying(house, lambda rules: rules.create_code(ADA, "/", Browser())):
        pairs()
    assert pairs() == 1


def test_M3_wherever_a_sign_in_ends_the_code_is_used_with_a_session_or_works_again(build):
    house = build(SIGNUP="open")
    rules, opened = house.auth.signin, []

    def asked():
        token, _ = rules.create_code(f"p{len(opened)}@example.org", "/", Browser())
        house.outbox.drain()
        return house.mailbox.latest_code(f"p{len(opened)}@example.org"), Browser(token)

    def enter(rules):
        opened.append(rules)
        rules.verify_code(code, "", browser)

    code, browser = asked()
    for _ in dying(house, enter):
        if len(agree(house.db)) < len(opened):
            rules.verify_code(code, "", browser)
        assert len(agree(house.db)) == len(opened)
        code, browser = asked()
    assert len(agree(house.db)) == len(opened)
    history.check(house.db)


def test_M1_M3_kills_at_random_moments_break_no_promise(serve, chaos, database_url):
    """kill -9 around commit, sending and entering: each answered start has a mail whose code works
    once; a code is used when there is a session, and not otherwise."""
    seed = int(os.environ.get("SEED") or random.randrange(10**6))
    street = Street(chaos, seed)
    print(f"SEED={seed} KILLS={KILLS}")  # shown when it fails
    for kills in count(1):
        street.walk(serve(SMTP_PORT=chaos.port, SIGNUP="open"))
        promised = [p for p in street.people if p.promised]
        tried = [p for p in promised if p.tries]
        # On a busy machine they do next to nothing between two kills.
        if kills >= KILLS and len(promised) > KILLS and len(tried) > KILLS / 2:
            break
        assert kills < 5 * KILLS, "they did next to nothing"
    last = serve(SMTP_PORT=chaos.port, SIGNUP="open")
    # Every answered start has its mail. The rest of so many lives takes its time.
    chaos.wait_for(lambda: all(chaos.to(p.address) for p in promised), 60 + len(promised) / 20)
    with closing(connect(database_url)) as db:
        until(lambda: not db.q("select 1 from outbox where state in ('queued', 'sending')"), 60)
        assert {r["state"] for r in db.q("select state from outbox")} <= {"accepted", "void"}
        copies = Counter(street.copies(person) for person in street.people)
        # Half done is nothing: before the ones that are left are entered, too …
        agree(db)
        open_before = sum(not p.arrived for p in promised)
        for person in promised:
            person.tab.servers = (last,)
            if not person.arrived:
                person.tries += 1
                street.enter(person)
            assert person.tab.signed_in == person.arrived, person.address
        # … and after it. Who got no answer may have been signed in all the same, once.
        used = agree(db)
        assert set(used) == {p.address for p in promised}
        assert set(history.check(db)) == set(used)
    assert not street.unexpected, (seed, street.unexpected[:5])
    lost = [p.address for p in promised if not p.arrived]
    print(
        f"{kills} kills: {len(promised)} starts were answered, {len(tried)} codes entered between the"
        f" kills, {open_before} after them; {len(lost)} sessions whose answer was lost; copies of a mail:"
        f" {dict(copies)}"
    )


def agree(db):
    """A code is used exactly when there is one session for it; the addresses whose code is used."""
    used = [r["address"] for r in db.q("select address from challenges where used_at is not null")]
    sessions = [
        r["address"]
        for r in db.q("select address from sessions join users on users.id = sessions.user_id")
    ]
    assert sorted(sessions) == sorted(used)
    assert len(set(used)) == len(used)
    return used


def test_M2_a_kill_between_the_answer_and_the_note_sends_a_second_copy_and_no_second_session(
    serve, chaos, database_url
):
    with closing(connect(database_url)) as db:
        for n in range(10):  # the note comes within half a second: a kill may be too late for it
            address, server = f"p{n}@example.org", serve(SMTP_PORT=chaos.port, SIGNUP="open")
            tab = Tab(server)
            assert tab.post("/create_code", email=address).status_code == 303
            chaos.wait_for(lambda address=address: chaos.to(address) and chaos.to(address)[0].told)
            server.kill()
            if db.q("select 1 from outbox where state = 'sending'"):
                break
        else:
            raise AssertionError("each note was faster than the kill")
        killed = time.monotonic()
        again = serve(SMTP_PORT=chaos.port, SIGNUP="open")
        chaos.wait_for(lambda: len(chaos.to(address)) == 2, 30)
        assert chaos.to(address)[1].at - killed <= 30
        first, second = chaos.to(address)
        assert (first.code, first.id) == (second.code, second.id)
        tab.servers = (again,)
        signin = dict(tab.cookies)
        assert tab.post("/verify_code", code=first.code).status_code == 303 and tab.signed_in
        tab.cookies = signin
        assert tab.post("/verify_code", code=second.code).status_code == 410
        assert agree(db) == [address]
        until(lambda: not db.q("select 1 from outbox where state in ('queued', 'sending')"))
        assert len(chaos.to(address)) == 2


def test_M11_what_a_killed_process_had_in_hand_another_one_sends_within_half_a_minute(
    serve, chaos, database_url
):
    first, second = (serve(SMTP_PORT=chaos.port, SIGNUP="open") for _ in range(2))
    chaos.at("data", HANG)
    tabs = [Tab(first, second) for _ in range(12)]
    for n, tab in enumerate(tabs):
        assert tab.post("/create_code", email=f"p{n}@example.org").status_code == 303
    chaos.wait_for(lambda: any(c.hanging for c in chaos.connections))
    first.kill()
    killed = time.monotonic()
    chaos.well()
    chaos.wait(len(tabs), 35)
    assert max(mail.at for mail in chaos.mails) - killed <= 30
    for n, tab in enumerate(tabs):
        code = chaos.code(f"p{n}@example.org")
        assert tab.post("/verify_code", at=1, code=code).status_code == 303
        assert tab.get("/dashboard", at=1).status_code == 200
    assert len(chaos.mails) == len(tabs)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_M11_a_process_whose_sender_died_says_that_it_is_not_ready(build):
    class Deadly(Mailbox):
        def deliver(self, message):
            raise SystemExit  # ends its thread, and nothing catches it

    house = build(SIGNUP="open", mailbox=Deadly())
    house.outbox.start()
    try:
        assert house.door().get("/readyz").status_code == 200
        house.door().ask(ADA)
        until(lambda: not house.outbox.alive())
        assert house.door().get("/readyz").status_code == 503
    finally:
        house.outbox.stop()
