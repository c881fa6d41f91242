"""What may never be, whatever went wrong: read from the database, and from what people were told."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx2

from auth import Policy, events
from tests.serving import Tab, until


def check(db, policy=None):
    """The promises of sign-in, in the rows of a database where nobody is at work. Raises AssertionError.

    Returns how many sign-ins there were of each address.
    """
    policy = policy or Policy()
    challenges, sessions = db.q("select * from challenges"), db.q("select * from sessions")
    users = {row["id"]: row for row in db.q("select * from users")}
    told = db.q("select * from events")
    used = [row for row in challenges if row["used_at"] is not None]
    opening = [row for row in used if row["purpose"] in ("sign-in", "app sign-in")]
    arrivals = [row for row in told if row["kind"] == events.LOGIN_SUCCESS]
    # Tries are counted before they are compared, and never above the limits.
    for row in challenges:
        assert 0 <= row["code_tries"] <= policy.tries_per_code, row
        assert row["code_tries"] <= row["total_tries"] <= policy.tries_per_challenge, row
        assert row["total_tries"] or row["used_at"] is None or row["linked"], row
    for row in used:
        ends = max(row["expires_at"], row["link_expires_at"])
        assert row["issued_at"] - policy.clock_skew <= row["used_at"] <= ends, row
    # A session was opened by a challenge that was used in the same transaction, each by its own; a
    # link may use up that of the browser that opens it, too.
    opened = Counter((row["address"], row["used_at"]) for row in opening)
    begun = Counter((users[row["user_id"]]["address"], row["created_at"]) for row in sessions)
    stray = begun - opened
    assert not stray, f"sessions that nothing opened: {stray}"
    said, sure = (
        Counter(row["subject"] for row in arrivals),
        Counter(row["address"] for row in opening),
    )
    assert said <= sure and sure.total() <= 2 * said.total(), (said - sure, sure - said)
    stray = Counter(users[row["user_id"]]["address"] for row in sessions) - said
    assert not stray, f"sessions that nobody heard of: {stray}"
    assert len({row["token"] for row in sessions}) == len(sessions)
    assert all(users[row["user_id"]]["disabled_at"] is None for row in sessions)
    assert all(users[row["actor"]]["address"] == row["subject"] for row in arrivals)
    # Each start has its mail, its event, and no second of either.
    mails = Counter(row["ref"] for row in db.q("select ref from outbox"))
    assert all(mails[row["id"]] == 1 + row["resends"] for row in challenges), mails
    asked = Counter(row["subject"] for row in told if row["kind"] == events.CODE_REQUESTED)
    starts = Counter()
    for row in challenges:
        starts[row["address"]] += 1 + row["resends"]
    assert not starts - asked, f"starts without an event: {starts - asked}"
    return Counter(row["subject"] for row in arrivals)


class Visitor:
    """One browser and one sign-in: what it was told."""

    def __init__(self, address, target):
        self.address, self.tab = address, Tab(target)
        self.code, self.before = None, {}
        self.promised = self.arrived = False


class Crowd:
    """People who sign in, each in a new browser, until they are told to stop.

    `answers` are (when it was sent, when it came, path, status, or the name of what was raised);
    `lies` is what must stay empty: signed in, it was said, and it was not so.
    """

    def __init__(self, chaos, target, name="p", at_once=6):
        self.chaos, self.target, self.name = chaos, target, name
        self.answers, self.visitors, self.lies = [], [], []
        self._numbers, self._over = count(), threading.Event()
        self._pool, self._at_once = ThreadPoolExecutor(at_once), at_once

    def __enter__(self):
        self._work = [self._pool.submit(self._live) for _ in range(self._at_once)]
        return self

    def __exit__(self, *_):
        self._over.set()
        self._pool.shutdown()
        for work in self._work:
            work.result()

    def _live(self):
        while not self._over.is_set():
            visitor = Visitor(f"{self.name}{next(self._numbers)}@example.org", self.target)
            self.visitors.append(visitor)
            if self.ask(visitor):
                while not self._over.is_set() and not self.chaos.to(visitor.address):
                    with self.chaos.changed:
                        self.chaos.changed.wait(0.1)
                if self.chaos.to(visitor.address):
                    self.enter(visitor)
                    self.look(visitor)

    def _said(self, path, act):
        began = time.monotonic()
        try:
            answer = act()
        except httpx2.HTTPError as error:
            self.answers.append((began, time.monotonic(), path, type(error).__name__))
            return None
        self.answers.append((began, time.monotonic(), path, answer.status_code))
        return answer

    def ask(self, visitor):
        answer = self._said(
            "/create_code", lambda: visitor.tab.post("/create_code", email=visitor.address)
        )
        visitor.promised = answer is not None and answer.status_code == 303
        return visitor.promised

    def enter(self, visitor):
        """The status of the answer to the right code, or None."""
        visitor.code, visitor.before = self.chaos.code(visitor.address), dict(visitor.tab.cookies)
        answer = self._said(
            "/verify_code", lambda: visitor.tab.post("/verify_code", code=visitor.code)
        )
        visitor.arrived = answer is not None and answer.status_code == 303
        return answer and answer.status_code

    def look(self, visitor):
        answer = self._said("/dashboard", lambda: visitor.tab.get("/dashboard"))
        status = answer and answer.status_code
        if status in (200, 303) and (status == 200) != visitor.arrived:
            self.lies.append((visitor.address, status))
        if status == 200 and visitor.address not in answer.text:
            self.lies.append((visitor.address, "somebody else"))

    def arrived(self):
        return [v for v in self.visitors if v.arrived]

    def bad(self):
        """Answers that are none, or say that the server is at fault."""
        return [a for a in self.answers if not isinstance(a[3], int) or a[3] >= 500]

    def settle(self, db):
        """Afterwards, when all is well: what was promised is kept, nothing is worth anything twice."""
        promised = [v for v in self.visitors if v.promised]
        until(lambda: all(self.chaos.to(v.address) for v in promised), 30)
        until(lambda: not db.q("select 1 from outbox where state in ('queued', 'sending')"), 30)
        before = check(db)
        for visitor in promised:
            if visitor.arrived:
                assert visitor.tab.signed_in, f"{visitor.address} was told so"
                visitor.tab.cookies = dict(visitor.before)
                again = visitor.tab.post("/verify_code", code=visitor.code).status_code
                assert again == 410, (visitor.address, again)
            else:
                # Nobody answered: it was used, and the session lost with the answer; or it is good still.
                status = self.enter(visitor)
                assert status == (410 if before[visitor.address] else 303), visitor.address
                assert visitor.tab.signed_in == visitor.arrived
        own = {v.address for v in self.visitors}
        after = {address: n for address, n in check(db).items() if address in own}
        assert after == {v.address: 1 for v in promised}
        assert not self.lies, self.lies
