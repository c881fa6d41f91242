"""Keeps what must be sent until it is accepted; renders at the moment of sending. Not what it says.

`put` writes a row inside the caller's transaction; a worker thread sends it right after the commit,
or after a restart. A row names its subject, never the words. At least once, always under the same
Message-ID; never after `not_after`.
"""

import logging
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from starlette.concurrency import run_in_threadpool

from utils.database import Database, Row, Tx, Unavailable
from utils.mailer import Letter, Message, Sender, Transport

log = logging.getLogger("outbox")

# After this another worker may take a row: its own died, or is slow. Longer than a delivery takes as a
# rule, short beside the life of a code; a mail that goes out twice has the same Message-ID and code.
LEASE_SECONDS = 30
ALIVE_SECONDS = 120  # a worker that has not looked for so long hangs: a delivery has time-outs
RETRY_SECONDS = (2, 5, 15, 30, 60, 120)
SLOW_SECONDS = 20
POLL_SECONDS = 1.0  # how soon rows of other processes are seen
# How long the note of what left waits for a next claim to share its commit. By chance, or the moment
# of that commit, felt by another request, would tell whether a mail was sent at all.
NOTE_SECONDS = (0.05, 0.5)
# How long an idle worker waits when there is something to do. By chance again: the request that comes
# right after would be slower just when a mail is sent at that moment, and tell that one is.
PAUSE_SECONDS = (0.0, 0.006)
DRAIN_SECONDS = 15
KEPT_SECONDS = 7 * 86400  # for whoever asks what became of a mail

CLAIM = """
update outbox set state = 'sending', tries = tries + 1, next_at = :lease
 where id = (select id from outbox where state in ('queued', 'sending') and next_at <= :now
             order by next_at, id limit 1 {skip})
   and state in ('queued', 'sending') and next_at <= :now
returning *
"""


class Outbox:
    """The table, and the worker that empties it.

    `render(kind, ref)` makes the Letter, or None when there is nothing to say any more (the code was
    used, the address belongs to nobody). It is given after construction, by who knows the words.
    """

    def __init__(
        self,
        db: Database,
        transport: Transport,
        sender: Sender,
        clock: Callable[[], float] = time.time,
    ):
        self.db, self.transport, self.sender, self.clock = db, transport, sender, clock
        self.render: Callable[[str, str], Letter | None] = lambda kind, ref: None
        self._claim_sql = CLAIM.format(skip=db.skip_locked)
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._beat = 0.0

    # ---- for whoever has something to send
    def put(self, t: Tx, kind: str, ref: str, not_after: int) -> None:
        """Queue one mail in the caller's transaction: both are kept, or neither."""
        now = self.clock()
        t.q(
            "insert into outbox (id, kind, ref, state, created_at, not_after, next_at)"
            " values (:id, :kind, :ref, 'queued', :now, :not_after, :now)",
            id=f"{int(now * 1000):012x}{os.urandom(10).hex()}",  # sorts by time: first come, first sent
            kind=kind,
            ref=ref,
            now=int(now),
            not_after=not_after,
        )
        t.on_commit(self._wake.set)

    # ---- the worker
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """For `FastHTML(lifespan=…)`: the worker lives as long as the app."""
        self.start()
        yield
        await run_in_threadpool(self.stop)

    def start(self) -> None:
        self._stopping.clear()
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the mail in hand; what is left stays in the table."""
        self._stopping.set()
        self._wake.set()
        if self._thread:
            self._thread.join(DRAIN_SECONDS)
        self.transport.close()

    def alive(self) -> bool:
        """Is the worker there, and did it look at the table lately? For /readyz."""
        return bool(
            self._thread
            and self._thread.is_alive()
            and time.monotonic() - self._beat < ALIVE_SECONDS
        )

    def slow(self) -> bool:
        """Does any mail wait for longer than people expect? The same for everybody who asks."""
        sql = (
            "select 1 from outbox where state in ('queued', 'sending') and created_at < :before"
            " and not_after > :now limit 1"
        )
        now = int(self.clock())
        return bool(self.db.q(sql, before=now - SLOW_SECONDS, now=now))

    def drain(self) -> int:
        """Send all that is due now, in this thread; returns how many rows were handled."""
        count, done = 0, None
        while self._due() and (row := self._next(done)):
            count, done = count + 1, self._send(row)
        if done:
            self._close(done)
        return count

    def _work(self) -> None:
        done: Row | None = None  # the mail that left last: noted together with the next claim
        while not self._stopping.is_set():
            self._wake.clear()  # before looking: what is put while we look wakes us again
            self._beat = time.monotonic()
            try:
                if self._due():
                    row = self._next(done)
                    done = self._send(row) if row else None
                elif done and not self._wake.wait(random.uniform(*NOTE_SECONDS)):  # noqa: S311
                    self._close(done)
                    done = None
                elif done or self._wake.wait(POLL_SECONDS):
                    self._stopping.wait(random.uniform(*PAUSE_SECONDS))  # noqa: S311
            except Unavailable as error:
                # What became of the last mail is noted when the database is back.
                log.error("the database is away (%s); trying again", error)
                self._stopping.wait(POLL_SECONDS)
            except Exception:
                log.exception("the worker could not go on; trying again")
                self._stopping.wait(POLL_SECONDS)
        if done:
            with suppress(Unavailable):  # then the lease brings it back
                self._close(done)

    def _due(self) -> bool:
        """Most looks find nothing, and a read needs no write lock."""
        sql = (
            "select 1 from outbox where state in ('queued', 'sending') and next_at <= :now limit 1"
        )
        return bool(self.db.q(sql, now=int(self.clock())))

    def _next(self, done: Row | None) -> Row | None:
        """Note what became of one row and claim the next, in one transaction."""
        now = int(self.clock())
        # Lost in a power cut, the mail goes out once more: as "at least once" has it.
        with self.db.tx(durable=False) as t:
            if done:
                self._note(t, done)
            rows = t.q(self._claim_sql, now=now, lease=now + LEASE_SECONDS)
        return rows[0] if rows else None

    def _close(self, done: Row) -> None:
        with self.db.tx(durable=False) as t:
            self._note(t, done)

    def _note(self, t: Tx, done: Row) -> None:
        # `tries` is the fence: a worker that slept through its lease must not overwrite the next.
        t.q(
            "update outbox set state = :state, reply = :reply, next_at = :next_at"
            " where id = :id and tries = :tries",
            **{k: done[k] for k in ("id", "tries", "state", "reply", "next_at")},
        )

    def _send(self, row: Row) -> Row:
        """The row with its new state. One mail's trouble is its own: nothing is raised."""
        now = self.clock()
        if now > row["not_after"]:
            return row | {"state": "expired"}
        try:
            letter = self.render(row["kind"], row["ref"])
            if letter is None:
                log.info("mail %s: nothing to say any more, or nobody to say it to", row["id"])
                return row | {"state": "void"}
            message = Message(row["id"], row["created_at"], self.sender, letter)
            reply = self.transport.deliver(message)
        except Exception as error:
            return self._failed(row, now, error)
        log.debug("mail %s accepted", row["id"])
        return row | {"state": "accepted", "reply": reply}

    def _failed(self, row: Row, now: float, error: Exception) -> Row:
        # The class and no more: an error's text may quote what was sent.
        code = getattr(error, "smtp_code", "")
        reply = f"{type(error).__name__} {code}".strip()
        wait = RETRY_SECONDS[min(row["tries"], len(RETRY_SECONDS)) - 1]
        log.warning("mail %s not accepted (%s); again in %d s", row["id"], reply, wait)
        return row | {"state": "queued", "reply": reply, "next_at": int(now) + wait}


def purge(db: Database, now: float, step: int = 500) -> int:
    """Delete the rows of mails that are over for a week. Says how many."""
    gone = 0
    while True:
        rows = db.q(
            "delete from outbox where id in (select id from outbox where id < :before"
            " and state not in ('queued', 'sending') order by id limit :step) returning id",
            before=f"{int((now - KEPT_SECONDS) * 1000):012x}",  # ids sort by time
            step=step,
        )
        gone += len(rows)
        if len(rows) < step:
            return gone
