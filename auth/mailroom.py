"""THE RULES about mail as admins see it: what is shown, who may stop it, which addresses bounce. No HTTP, HTML or SQL.

What is in a mail is shown to nobody: no code, link or subject, and recipients are masked. Every act is
in the audit log, before it is done. An address that does not exist gets no mail for a day; that is asked
at the moment of sending and nowhere else, so that no page, and no start's work, can tell.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from auth import challenges, events, moves, users
from auth.addresses import masked
from auth.events import Source
from auth.keys import digest
from auth.limits import Limits
from auth.mailing import CODE_MAIL, MOVE_MAIL, MOVED, NO_MAIL
from auth.office import PAGE_SIZE, Office, page_of, still_admin
from auth.users import User

STATES = ("queued", "sending", "accepted", "expired", "dead", "void")
OPEN = ("queued", "sending")
REPLY_CHARS = 200
COUNTED = 50_000  # of those that are over a queue counts no more, and these are the newest
LISTED = 10_000  # the newest; leaving out a week of them takes as long as reading them

# A provider may quote what it was sent. Vestibule's own transports have masked that already; another
# app's queue may not.
_ADDRESS = re.compile(r"[^\s<>()\[\]:;,\"'`]+@[^\s<>()\[\]:;,\"'`]+")
_SECRET = re.compile(r"\d{6,}|\w{24,}")


class MailQueue(Protocol):
    """What auth needs of a queue to show it to admins. `send` of EmailAuth alone shows nothing."""

    def queue(self) -> Any:
        """states (name → how many), oldest_seconds, paused, held (the provider's words, or ""), workers."""

    def rows(self, states: Sequence[str], limit: int, offset: int) -> list[dict[str, Any]]:
        """The mails in these states, or in all, newest first; ids sort by time."""

    def row(self, id: str) -> dict[str, Any] | None: ...

    def tally(self, since: str, until: str) -> list[tuple[int, str, int]]:
        """How many between two times, as ids begin: (days since 1970, state, n)."""

    def retry(self, id: str) -> bool: ...

    def drop(self, id: str) -> bool: ...

    def pause(self, on: bool) -> None: ...


@dataclass(frozen=True)
class MailRow:
    """One mail, as an admin may see it."""

    id: str
    kind: str
    state: str
    created_at: int
    tries: int
    next_at: int | None  # of the next try, while it waits for one
    reply: str  # the provider's last
    to: str  # masked; "" when it is not known any more
    bounces: bool  # did it not leave, or won't it, since the address does not exist?
    late: bool  # it may not leave any more, whatever happens
    may_retry: bool  # or, when it is late, mail to them may be let out again
    may_drop: bool


@dataclass(frozen=True)
class MailPage:
    """One page of the list, and how mail is doing. `page` counts from 1; `state` is "" for all."""

    rows: list[MailRow]
    total: int
    page: int
    pages: int
    state: str
    counts: dict[str, int]
    oldest_minutes: int
    paused: bool
    held: str
    workers: int

    @property
    def waiting(self) -> int:
        return sum(self.counts[state] for state in OPEN)

    @property
    def older(self) -> int:
        """How many are not in the list."""
        return max(0, self.total - LISTED)

    @property
    def counted(self) -> int:
        """How many of those that are over were counted, where there may be more; 0 where these are all."""
        over = sum(n for state, n in self.counts.items() if state not in OPEN)
        return over if over >= COUNTED - self.waiting else 0

    @property
    def mark(self) -> str:
        """Changes whenever something changes that is shown."""
        return digest(repr(self))[:16]


@dataclass(frozen=True)
class Mailroom(Office):
    """`queue` is None where an app sends in its own way: then only bounces are known here."""

    limits: Limits
    queue: MailQueue | None

    # ---- looking
    def look(self, state: str, page: int) -> MailPage:
        """One page of the mails in this state, or of all."""
        queue = self._queue.queue()
        counts = {name: queue.states.get(name, 0) for name in STATES}
        state = state if state in STATES else ""
        total = counts[state] if state else sum(counts.values())
        page, pages, before = page_of(page, min(total, LISTED))
        found = self._queue.rows([state] if state else [], PAGE_SIZE, before)
        return MailPage(
            rows=self._shown(found),
            total=total,
            page=page,
            pages=pages,
            state=state,
            counts=counts,
            oldest_minutes=queue.oldest_seconds // 60,
            paused=queue.paused,
            held=_tidy(queue.held),
            workers=queue.workers,
        )

    def waiting(self, id: str) -> MailRow | None:
        """The mail with this id, if it still waits."""
        row = self._find(id, "queued")
        return self._shown([row])[0] if row else None

    def _shown(self, rows: Sequence[dict[str, Any]]) -> list[MailRow]:
        now = int(self.clock())
        whom = [self._recipient(row["kind"], row["ref"]) for row in rows]
        bouncing = self.bouncing({address for address in whom if address})
        return [
            self._row(row, address, address in bouncing, now)
            for row, address in zip(rows, whom, strict=True)
        ]

    def _row(self, row: dict[str, Any], address: str, bounces: bool, now: int) -> MailRow:
        waits, over, late = (
            row["state"] == "queued",
            row["state"] == "dead",
            row["not_after"] <= now,
        )
        return MailRow(
            id=row["id"],
            kind=row["kind"],
            state=row["state"],
            created_at=row["created_at"],
            tries=row["tries"],
            next_at=row["next_at"] if waits else None,
            reply=_tidy(row["reply"]),
            to=masked(address) if address else "",
            bounces=bounces and row["state"] not in ("accepted", "expired"),
            late=late,
            may_retry=(over and bounces) or ((waits or over) and not late),
            # Whoever took over an admin's session would drop what tells its owner.
            may_drop=waits and row["kind"] != MOVED,
        )

    def _recipient(self, kind: str, ref: str) -> str:
        """The address of a mail, or "" when its sign-in or its person is gone."""
        found: Any
        if kind == MOVED:  # to the address that they have left
            move = moves.by_id(self.db, ref.partition(":")[0])
            return move.old_address if move else ""
        if kind in (CODE_MAIL, NO_MAIL, MOVE_MAIL):
            found = challenges.by_id(self.db, ref.partition(":")[0])
        else:  # a notice: its person, and when
            found = users.by_id(self.db, ref.partition(":")[0])
        return found.address if found else ""

    # ---- acts; each says what became of it, in a word of templates/mail.py
    def retry(self, actor: User, id: str, source: Source) -> str:
        """Try one at once. Its address counts as one that exists again, even if this mail is too late."""
        row, now = self._find(id, "queued", "dead"), int(self.clock())
        if row is None:
            return "over"
        address, bounced = self._recipient(row["kind"], row["ref"]), False
        with self.db.tx() as t:
            still_admin(t, actor)
            if address and row["state"] == "dead":
                bounced = bool(self.limits.bouncing(t, [address], now))
                self.limits.lift(t, address, now)
            self._record(t, events.MAIL_RETRIED, actor, id, source)
        if self._queue.retry(id):
            return "retried"
        return "lifted" if bounced else "over"

    def drop(self, actor: User, id: str, source: Source) -> str:
        """Never send it."""
        row = self._find(id, "queued")
        if row is None or row["kind"] == MOVED:
            return "over"
        with self.db.tx() as t:
            still_admin(t, actor)
            self._record(t, events.MAIL_DROPPED, actor, id, source)
        return "dropped" if self._queue.drop(id) else "over"

    def pause(self, actor: User, on: bool, source: Source) -> str:
        """Nothing leaves any more; or it goes on."""
        if self._queue.queue().paused != on:
            with self.db.tx() as t:
                still_admin(t, actor)
                kind = events.MAIL_PAUSED if on else events.MAIL_RESUMED
                self._record(t, kind, actor, "", source)
            self._queue.pause(on)
        return "paused" if on else "resumed"

    # ---- addresses that do not exist
    def bounced(self, kind: str, ref: str) -> None:
        """The provider knows no such recipient: no mail to them for a day."""
        address, now = self._recipient(kind, ref), int(self.clock())
        if address:
            with self.db.tx() as t:
                if self.limits.bounced(t, address, now):
                    self._record(t, events.MAIL_BOUNCED, None, address, Source())

    def bouncing(self, addresses: Collection[str]) -> set[str]:
        """Those that mail is held back from."""
        return self.limits.bouncing(self.db, addresses, int(self.clock()))

    # ---- how
    @property
    def _queue(self) -> MailQueue:
        if self.queue is None:
            raise RuntimeError("EmailAuth(…, mail=…) was given no queue to show")
        return self.queue

    def _find(self, id: str, *states: str) -> dict[str, Any] | None:
        row = self._queue.row(id) if id.isalnum() else None
        return row if row and row["state"] in states else None


def _tidy(reply: str) -> str:
    """A provider's words without addresses, codes and links, whatever it quotes."""
    plain = _ADDRESS.sub(lambda found: masked(found[0]), reply)
    return _SECRET.sub("…", plain)[:REPLY_CHARS]
