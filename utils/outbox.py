"""Keeps what must be sent until it is accepted; renders at the moment of sending. Not what it says.

`put` writes a row inside the caller's transaction: kept with it, or not at all. Right after the commit a
sender of the same process has it in hand. A row names its subject, never the words. At least once,
always under the same Message-ID; never after `not_after`.

Senders write nothing into the table. The keeper looks after it: it notes what became of each row, holds on
to what is in hand, and takes what is due again, or what a dead process left.
"""

import heapq
import logging
import os
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

import anyio
from starlette.concurrency import run_in_threadpool

from utils import mailrows
from utils.breaker import Breaker
from utils.database import Database, Row, Tx, Unavailable
from utils.mailer import DEAD, HOLD, LOST, RETRY, Fault, Letter, Message, Sender, Transport

log = logging.getLogger("outbox")

SENDERS = 4  # one that hangs must not keep the others; also the most connections to the mail server
NOTICE_SENDERS = 2  # the rest is for codes alone
SHORT_QUEUE = 16  # so few leave in the order in which they came
PER_DOMAIN = 3  # at once to one recipients' domain
# A second sender begins when the first is at one mail, or one mail in the queue, for so long.
PATIENCE_SECONDS = 0.25
LEASE_SECONDS = 10  # then others may take what we hold; renewed while we live
RENEW_SECONDS = 3
ALIVE_SECONDS = 30
BEAT_SECONDS = 15
# By how much the waits after a failed try differ, or all would come back at one moment.
RETRY_SECONDS, RETRY_JITTER = (2, 5, 15, 30, 60, 120), 0.2
CODE_RETRY_SECONDS = 30  # the longest wait for what somebody waits for
# Domains refused in a row, by what may be their own trouble or everybody's, until all mail waits.
DOUBTS = 3
# Not at once: what broke the connection may last, and there is one more copy only.
LOST_SECONDS = 30
SILENT_SECONDS = 2  # after a time-out, which was wait enough
SLOW_SECONDS = 20
POLL_SECONDS = 1.0  # how soon rows of other processes are seen
# How long the keeper rests. By chance, or the moment of its commit, felt by another request, would tell
# whether a mail was sent at all.
REST_SECONDS = (0.05, 0.5)
# How long an idle sender waits when there is something to do. By chance again: the request that comes
# right after would be slower just when a mail is sent at that moment, and tell that one is. Many times as
# long as a request takes, or a mail would leave in the middle of the next one too often.
PAUSE_SECONDS = (0.0, 0.05)
HAND = 1000  # more rows than these wait in the table and not in memory
BATCH = 200
TRIAL = 20  # rows taken at a time while mail is held up
POISON_TRIES = 3  # of a mail that can not be written, for whatever reason nobody thought of
DRAIN_SECONDS = 15
PAUSED = "paused"
KEPT_SECONDS = 7 * 86400  # for whoever asks what became of a mail
PURGE_SECONDS = 0.005  # for which one step of a purge keeps others from writing
PURGE_REST = 5  # times as long
FEWEST = 50  # rows a step


class Queue(NamedTuple):
    """The state of the mail, for an operator."""

    states: dict[str, int]  # how many rows in each
    oldest_seconds: int  # how long the oldest of those waits that are queued or on their way
    paused: bool
    held: str  # why the provider takes none at the moment; "" when it does
    workers: int  # processes that send


class Outbox:
    """The table, and the threads that empty it.

    `render(kind, ref)` makes the Letter, or None when there is nothing to say any more (the code was
    used, the address belongs to nobody). `refused(kind, ref)` hears of a recipient that does not exist.
    `patient` are the kinds that leave after all others. All three are given after construction, by who
    knows the words. `rate`: mails a second at most; None for no limit. `clock` says what time it is, in
    epoch seconds; `steady` how much has passed, for what is only in memory.
    """

    def __init__(
        self,
        db: Database,
        transport: Transport,
        sender: Sender,
        clock: Callable[[], float] = time.time,
        rate: float | None = None,
        steady: Callable[[], float] = time.monotonic,
    ):
        self.db, self.transport, self.sender, self.clock = db, transport, sender, clock
        self._steady = steady
        self.render: Callable[[str, str], Letter | None] = lambda kind, ref: None
        self.refused: Callable[[str, str], object] = lambda kind, ref: None
        self.patient: Collection[str] = ()
        self._gap = 1 / rate if rate else 0.0
        self._name = f"worker {os.urandom(4).hex()}"
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._running = False
        self._threads: list[threading.Thread] = []
        self._beat = 0.0
        # All of these under the lock.
        self._queue: list[tuple[int, int, int, float, Row]] = []  # lane, tries, turn, since, row
        self._turns = count()
        self._idle: dict[int, threading.Event] = {}  # sender → what wakes it
        self._busy: dict[int, float] = {}  # sender → since when it is awake, or at its mail
        self._held: dict[str, Row] = {}  # all that is ours; `since` when it was renewed last
        self._done: list[Row] = []
        self._domains: Counter[str] = Counter()
        self._notices = 0
        self._slot = 0.0
        self._paused = False
        self._doubts: set[str] = set()
        self._breaker = Breaker(self._steady)

    # ---- for whoever has something to send
    def put(self, t: Tx, kind: str, ref: str, not_after: int) -> None:
        """Queue one mail in the caller's transaction: both are kept, or neither.

        What is put while our own senders run is in their hands from the commit on: no claim, and no
        second commit.
        """
        clock = self.clock()
        now, lane = int(clock), int(kind in self.patient)
        # What can't leave here, or not soon, is for whoever is quicker.
        held_up = self._paused or self._breaker.open
        room = len(self._queue) < (BATCH if lane else HAND)
        ours = self._running and room and not held_up
        row = {
            "id": f"{int(clock * 1000):012x}{os.urandom(10).hex()}",  # sorts by time
            "kind": kind,
            "ref": ref,
            "state": "sending" if ours else "queued",
            "lane": lane,
            "created_at": now,
            "not_after": not_after,
            "next_at": now + LEASE_SECONDS if ours else now,
            "tries": int(ours),
            "reply": "",
            "losses": 0,
        }
        mailrows.put(t, row)
        if ours:
            t.on_commit(lambda: self._hand([row]))

    def alive(self) -> bool:
        """Are all threads there, and did the keeper look at the table lately? For /readyz."""
        there = bool(self._threads) and all(thread.is_alive() for thread in self._threads)
        return there and self._steady() - self._beat < ALIVE_SECONDS

    async def ready(self) -> bool:
        """Does the database answer, and are the threads alive? For /readyz."""
        # One that fell silent does not answer at all.
        with anyio.move_on_after(5), suppress(Unavailable):
            await anyio.to_thread.run_sync(self.db.q, "select 1 as one", abandon_on_cancel=True)
            return self.alive()
        return False

    def slow(self) -> bool:
        """Does any mail wait for longer than people expect? The same for everybody who asks."""
        now = int(self.clock())
        return mailrows.slow(self.db, now, now - SLOW_SECONDS)

    # ---- for the operator
    def queue(self) -> Queue:
        """What there is, over all processes."""
        now = int(self.clock())
        (states, oldest), told = mailrows.counts(self.db, now), mailrows.told(self.db)
        alive = _workers(told, now)
        return Queue(states, oldest, PAUSED in told, max(alive, default=""), len(alive))

    def rows(self, states: Sequence[str], limit: int, offset: int) -> list[Row]:
        """One page of the mails in these states (in all, when there are none named), newest first."""
        return mailrows.newest(self.db, states, limit, offset)

    def row(self, id: str) -> Row | None:
        return mailrows.by_id(self.db, id)

    def tally(self, since: str, until: str) -> list[tuple[int, str, int]]:
        """How many were put between two times, as ids begin: (days since 1970, state, n)."""
        return mailrows.tally(self.db, since, until)

    def retry(self, id: str) -> bool:
        """Try one at once. False when it is over, or its time is."""
        with self.db.tx() as t:
            return mailrows.again(t, id, int(self.clock()))

    def drop(self, id: str) -> bool:
        """Never send it. False when it is over, or on its way at this moment."""
        with self.db.tx() as t:
            return mailrows.drop(t, id, "dropped by an operator")

    def pause(self, on: bool) -> None:
        """Nothing leaves this process any more, nor within a second the others; or it goes on. What is
        put meanwhile is kept."""
        with self.db.tx() as t:
            if on:
                mailrows.tell(t, PAUSED, "", int(self.clock()))
            else:
                mailrows.untell(t, PAUSED)
        self._paused = on

    def drain(self) -> int:
        """Send all that is due now, in this thread; returns how many rows were handled."""
        handled = 0
        while self._due() and (rows := self._claim(1)) and (done := self._send(rows[0])):
            handled += 1
            with self.db.tx() as t:
                mailrows.note(t, done)
            if done["state"] == "queued" and done["next_at"] <= self.clock():
                break  # the provider's trouble: the next would fare no better
        return handled

    # ---- the life of the threads
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """For `FastHTML(lifespan=…)`: the senders live as long as the app."""
        self.start()
        yield
        await run_in_threadpool(self.stop)

    def start(self) -> None:
        self._stopping.clear()
        self._idle.clear()
        self._busy.clear()
        self._beat, self._running = self._steady(), True
        jobs = [self._keep, *[self._sender] * SENDERS]
        self._threads = [
            threading.Thread(target=job, name=f"outbox {n}", daemon=True)
            for n, job in enumerate(jobs)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the mails in hand; what is left goes back to the table, for others to take at once."""
        self._running = False
        self._stopping.set()
        with self._lock:
            for wake in self._idle.values():
                wake.set()
        until = time.monotonic() + DRAIN_SECONDS + 1
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        with suppress(Unavailable):
            self._note()  # of those that got done after the keeper
        self.transport.close()

    # ---- senders
    def _sender(self) -> None:
        wake, me = threading.Event(), threading.get_ident()
        while not self._stopping.is_set():
            with self._lock:
                row = self._next()
                if row:
                    self._busy[me] = self._steady()
                elif self._stopping.is_set():  # under the lock, or nobody would wake us again
                    return
                else:
                    wake.clear()
                    self._busy.pop(me, None)
                    self._idle[me] = wake
            if row is None:
                wake.wait()
                self._stopping.wait(random.uniform(*PAUSE_SECONDS))  # noqa: S311
                continue
            self._wait_for_slot()
            try:
                done = self._send(row)
            except Exception as error:  # whatever it was, a sender stays, and its mail
                log.error("mail %s: %s", row["id"], _where(error))
                done = self._later(row, type(error).__name__, RETRY_SECONDS[-1])
            with self._lock:
                self._notices -= row["lane"] > 0
                if row["probe"] and not (done and done.get("blamed")):
                    self._breaker.spared()  # it said nothing of the provider, or nothing bad
                if done:
                    self._done.append(done)
                else:
                    self._push([row])
                self._nudge()

    def _next(self) -> Row | None:
        """The next mail that may leave now. It counts as one on its way."""
        if self._paused or not self._breaker.allows():
            return None
        passed, found = [], None
        while self._queue and not found:
            turn = heapq.heappop(self._queue)
            row = turn[-1]
            notices = row["lane"] and self._notices >= NOTICE_SENDERS
            # Nearly over, as after a sleep of the machine: another process may have it by now.
            stale = row["since"] < self._steady() - LEASE_SECONDS + 1
            if notices or stale or self._domains[row.get("domain", "")] >= PER_DOMAIN:
                passed.append(turn)
            else:
                found = row
        for turn in passed:
            heapq.heappush(self._queue, turn)
        if found:
            found["probe"] = self._breaker.passing()
            self._notices += found["lane"] > 0
        return found

    def _wait_for_slot(self) -> None:
        if self._gap:
            with self._lock:
                now = self._steady()
                self._slot = slot = max(now, self._slot + self._gap)
            self._stopping.wait(slot - now)

    def _hand(self, rows: list[Row]) -> None:
        """Rows that are ours from now on."""
        with self._lock:
            new = [row for row in rows if row["id"] not in self._held]
            again = {row["id"]: row["tries"] for row in rows if row["id"] in self._held}
            if again:  # the clock was set forward: ours seemed nobody's
                for row in [*self._held.values(), *self._done]:
                    row["tries"] = again.get(row["id"], row["tries"])
            self._push(new)
            self._nudge()

    def _push(self, rows: list[Row]) -> None:
        now = self._steady()
        for row in rows:
            row["since"] = row.get("since", now)
            self._held[row["id"]] = row
            # What failed comes after what was not tried yet: one mail that breaks every connection must
            # not be the only one that is tried while the provider is in trouble.
            # Codes before notices, but only where many wait: the notice of a sign-in should not come after
            # the code of the next one.
            lane = row["lane"] if len(self._queue) >= SHORT_QUEUE else 0
            turn = (lane, row["tries"], next(self._turns), now, row)
            heapq.heappush(self._queue, turn)

    def _nudge(self) -> None:
        """Wake a sender if one is needed. As few as do: each has a connection of its own."""
        if not (self._queue and self._idle) or self._paused or not self._breaker.allows():
            return
        before = self._steady() - PATIENCE_SECONDS
        if all(since < before for since in self._busy.values()) or self._queue[0][3] < before:
            sender, wake = self._idle.popitem()
            self._busy[sender] = self._steady()
            wake.set()

    # ---- one mail
    def _send(self, row: Row) -> Row | None:
        """The row with its new state; None when enough are on their way to its domain. One mail's
        trouble is its own: nothing is raised."""
        now = self.clock()
        if now > row["not_after"]:
            return row | {"state": "expired"}
        try:
            letter = self.render(row["kind"], row["ref"])
            if letter is None:
                log.info("mail %s: nothing to say any more, or nobody to say it to", row["id"])
                return row | {"state": "void"}
            row["domain"] = letter.to.rpartition("@")[2]
            if not self._enter(row["domain"]):
                return None
            try:
                message = Message(row["id"], row["created_at"], self.sender, letter)
                reply = self.transport.deliver(message)
            finally:
                self._leave(row["domain"])
        except Unavailable as error:
            log.error("mail %s waits: the database is away (%s)", row["id"], error)
            return self._later(row, "the database is away", RETRY_SECONDS[0])
        except Fault as fault:
            return self._failed(row, fault)
        except Exception as error:
            # Poison, as a rule: it would fail in the same way for ever. Where and no more: an error's text
            # may quote what was to be sent.
            log.error("mail %s could not be written: %s", row["id"], _where(error))
            if row["tries"] < POISON_TRIES:
                return self._later(row, type(error).__name__, RETRY_SECONDS[0])
            return row | {"state": "dead", "reply": type(error).__name__}
        log.debug("mail %s accepted", row["id"])
        with self._lock:
            self._doubts.clear()
            news = self._breaker.good()
        if news:
            log.warning("mail goes out again")
        return row | {"state": "accepted", "reply": reply}

    def _enter(self, domain: str) -> bool:
        with self._lock:
            free = self._domains[domain] < PER_DOMAIN
            self._domains[domain] += free
        return free

    def _leave(self, domain: str) -> None:
        with self._lock:
            self._domains[domain] -= 1
            if not self._domains[domain]:
                del self._domains[domain]

    def _failed(self, row: Row, fault: Fault) -> Row:
        reply = str(fault)
        if fault.of_one and fault.what in (HOLD, DEAD):
            # Of that recipient's server alone, maybe: whoever types its address must not stop all mail.
            # Or everybody's trouble, and then nobody's mail must end.
            doubted = self._doubted(row)
            if fault.what == HOLD and doubted:
                fault = Fault(RETRY, reply)
            elif fault.what == DEAD and not doubted:
                fault = Fault(HOLD, reply)
        if fault.what in (HOLD, LOST):
            row = row | {"blamed": True}
            with self._lock:
                news = self._breaker.fault(reply, fault.seconds)
            if news:
                log.error("mail is held up, the provider says: %s", reply)
        if fault.what == DEAD:
            log.warning("mail %s will not be sent (%s)", row["id"], reply)
            if fault.cause == "recipient":  # and not a mail that we can't write
                try:
                    self.refused(row["kind"], row["ref"])
                except Exception as error:  # then the next mail finds out
                    log.error("what became of mail %s was not heard: %s", row["id"], _where(error))
            return row | {"state": "dead", "reply": reply}
        if fault.what == HOLD:
            return self._later(row, reply, 0)
        if fault.what == LOST:
            # Very likely it has arrived. One more copy with the same Message-ID is better than none; a
            # third would help nobody.
            row = row | {"losses": row["losses"] + 1}
            if row["losses"] > 1:
                return row | {"state": "accepted", "reply": f"twice, and no answer: {reply}"}
            silent = fault.cause == "silent"
            return self._later(row, reply, SILENT_SECONDS if silent else LOST_SECONDS)
        wait = RETRY_SECONDS[min(row["tries"], len(RETRY_SECONDS)) - 1]
        return self._later(row, reply, wait if row["lane"] else min(wait, CODE_RETRY_SECONDS))

    def _doubted(self, row: Row) -> bool:
        """Are there too few different recipients yet to say that it is everybody's trouble?"""
        with self._lock:
            self._doubts.add(row["domain"])
            return len(self._doubts) < DOUBTS

    def _later(self, row: Row, reply: str, seconds: int) -> Row:
        wait = seconds * random.uniform(1 - RETRY_JITTER, 1 + RETRY_JITTER)  # noqa: S311
        if seconds:
            log.warning("mail %s not accepted (%s); again in %.0f s", row["id"], reply, wait)
        # Not later than its end, so that its state is told then.
        next_at = min(round(self.clock() + wait), row["not_after"] + 1)
        if not seconds:
            next_at = int(self.clock())
        return row | {"state": "queued", "reply": reply, "next_at": next_at}

    # ---- the keeper
    def _keep(self) -> None:
        polled, told, said = 0.0, 0.0, ""
        while not self._stopping.wait(random.uniform(*REST_SECONDS)):  # noqa: S311
            now = self._steady()
            try:
                self._note()
                if now - polled >= POLL_SECONDS:
                    polled = now if self._poll() else 0.0  # at once when there is more
                if now - told >= BEAT_SECONDS or self._breaker.why != said:
                    told, said = now, self._breaker.why
                    self._tell(said)
                self._beat = now
            except Unavailable as error:
                # What became of the last mails is noted when the database is back.
                log.error("the database is away (%s); trying again", error)
            except Exception:
                log.exception("the keeper could not go on; trying again")
        with suppress(Unavailable):  # then the leases end, and others take them
            self._let_go()

    def _note(self) -> None:
        """All that has become of mails since the last time, in one commit."""
        with self._lock:
            done = list(self._done)
        if not done:
            return
        # Lost in a power cut, they go out once more: as "at least once" has it.
        with self.db.tx(durable=False) as t:
            for row in sorted(done, key=lambda row: row["id"]):
                mailrows.note(t, row)
        with self._lock:
            del self._done[: len(done)]
            for row in done:
                self._held.pop(row["id"], None)

    def _poll(self) -> bool:
        """Hold on to what is in hand, and take what is due. False when there may be more of that."""
        self._paused, now = PAUSED in mailrows.told(self.db), int(self.clock())
        self._renew()
        with self._lock:
            held_up, tries = self._paused or self._breaker.open, self._breaker.allows()
            room = len(self._queue) < BATCH // 2
        if held_up:
            self._give_back()  # another process may have a provider that works; an operator may drop them
            mailrows.expire(self.db, now)
        rows: list[Row] = []
        if room and tries and not self._paused and self._due():
            # To see how the provider does a few are enough, and those first that were not tried yet: one
            # that breaks every connection must not keep the way closed.
            rows = self._claim(TRIAL if held_up else BATCH, fresh_first=held_up)
        self._hand(rows)  # nudges also when there are none: a moment to try may have come
        return len(rows) < (TRIAL if held_up else BATCH)

    def _renew(self) -> None:
        now, steady = int(self.clock()), self._steady()
        with self._lock:
            ours = sorted(id for id, r in self._held.items() if r["since"] < steady - RENEW_SECONDS)
        for i in range(0, len(ours), BATCH):
            some = ours[i : i + BATCH]
            with self.db.tx(durable=False) as t:
                kept = mailrows.renew(t, some, now + LEASE_SECONDS)
            with self._lock:  # only now: what was not renewed must be, before it is sent
                for row in [self._held[id] for id in some if id in self._held]:
                    if kept.get(row["id"]) == row["tries"]:
                        row["since"] = steady
                    else:  # we slept through the lease, and somebody else has it
                        del self._held[row["id"]]
                self._queue = [turn for turn in self._queue if turn[-1]["id"] in self._held]
                heapq.heapify(self._queue)

    def _due(self) -> bool:
        return mailrows.due(self.db, int(self.clock()))

    def _claim(self, most: int, fresh_first: bool = False) -> list[Row]:
        now, skip = int(self.clock()), self.db.skip_locked
        with self.db.tx(durable=False) as t:
            return mailrows.claim(t, skip, now, now + LEASE_SECONDS, most, fresh_first)

    def _tell(self, why: str) -> None:
        with self.db.tx(durable=False) as t:
            mailrows.tell(t, self._name, why, int(self.clock()))
            mailrows.forget_workers(t, int(self.clock()) - 86400)

    def _let_go(self) -> None:
        """The queue at once; then what senders have at the server, as they get done with it."""
        until = time.monotonic() + DRAIN_SECONDS
        with suppress(Unavailable):
            self._give_back()
        for thread in self._threads[1:]:
            while thread.is_alive() and time.monotonic() < until:
                thread.join(0.1)
                with suppress(Unavailable):
                    self._note()
                    self._renew()
        self._give_back()  # what was put at the last moment
        with self.db.tx() as t:
            mailrows.untell(t, self._name)

    def _give_back(self) -> None:
        now = int(self.clock())
        with self._lock:
            left = [turn[-1] for turn in self._queue]
            self._queue.clear()
            self._done += [row | {"state": "queued", "next_at": now} for row in left]
        self._note()


def _where(error: BaseException) -> str:
    """The class and the line; never the words."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}"


def purge(db: Database, now: float, most: int = 500) -> int:
    """Delete the rows of mails that are over and were put a week ago or earlier. Says how many.

    `most`: rows in one step; fewer where the disk is slow.
    """
    before, after = f"{int((now - KEPT_SECONDS) * 1000):012x}", ""
    gone, step = 0, min(FEWEST, most)
    while True:
        # The next ones from here on, or each step would look again at what is older and still waits.
        # Not durable: nobody waits for the disk, and what a power cut brings back goes the next time.
        with db.tx(durable=False) as t:
            # From here on others wait. Before, we waited for them, and that is no reason to be slower.
            began = time.monotonic()
            ids = mailrows.purge(t, before, after, step)
        gone, took = gone + len(ids), time.monotonic() - began
        if len(ids) < step:
            return gone
        after = ids[-1]
        db.settle()
        # Who waits for SQLite's write lock only looks now and then whether it is free: mostly it is to be.
        time.sleep(PURGE_REST * took)
        fits = int(step * min(2.0, PURGE_SECONDS / max(took, 0.001)))
        step = max(min(FEWEST, most), min(fits, most))


def running(db: Database, now: float) -> int:
    """How many processes gave a sign of life within half a minute."""
    return len(_workers(mailrows.told(db), now))


def _workers(told: dict[str, tuple[str, int]], now: float) -> list[str]:
    """Of each process that gave a sign of life lately: why its mail is held up, or ""."""
    return [
        why
        for name, (why, at) in told.items()
        if name.startswith("worker ") and at > now - ALIVE_SECONDS
    ]


# A backup that is put back adds to these tables and takes nothing from them.
MERGED = ("outbox", "outbox_status")


def restored(t: Tx, now: float) -> None:
    """After a backup was put back, in the same transaction: no old mail goes out, and new mail does."""
    mailrows.void(t, "a backup was put back")
    mailrows.untell(t, PAUSED)  # nobody is signed in who could resume it
    mailrows.forget_workers(t, int(now) + 1)
