"""THE RULES of moving to another address, and of taking that back. No HTTP, HTML or SQL.

A move is a challenge, as a sign-in is: for the new address, with a code that is derived and mailed there, and with
the tries and budgets of all the others. Two things keep it apart. Its purpose is part of its code and is asked
for when one is compared, so no code of one kind counts for the other; and where a sign-in has the digest of its
cookie, it has that of the session that asked, so it is found from there only. It opens no session.

Asking needs a code that was entered in this session lately (the guard `confirmed`). Entering the new address's
needs the same session, and no fresh code: what was asked for dies after a quarter of an hour, a fresh code would
begin another session, and who stole this one meanwhile reads no mail at the new address.

The address before gets a link that takes the move back, and with it every later one: a thief who moves on and on
can't get away from it, and can't undo the undoing. For as long nobody else may sign up with that address or
move to it, or there would be no way back. An admin may add it: then there is none.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from auth import challenges, devices, events, moves, reviewers, sessions, users
from auth.addresses import canonical, masked
from auth.agents import LABELS
from auth.challenges import MOVE, Challenge
from auth.codes import Codes
from auth.events import Source
from auth.keys import LONG_CODE_CHARS, digest, linked_id, same
from auth.known import NOTICE_SECONDS, Browser
from auth.leaving import Leaving
from auth.limits import Mail, Person
from auth.mailing import ARRIVED, MOVE_MAIL, MOVED, NO_MAIL
from auth.moves import Move
from auth.office import PEOPLE_LOCK
from auth.policy import DAY, HOUR, Refused
from auth.typed import tidy_link
from auth.users import User
from auth.validity import Pending

UNDO = "take an address back"  # what the link is derived for


class MoveMail(NamedTuple):
    """What the mail to a new address says. `code` has digits, or 12 letters and digits where few digits are off."""

    address: str
    code: str
    asked_at: int
    timezone: str
    asked_by: str  # the kind of device, one of agents.LABELS, or ""


class MoveNotice(NamedTuple):
    address: str
    at: int
    timezone: str
    device: str
    undo: str  # what the link has behind its #; "" in the notice to the new address
    undo_seconds: int


@dataclass(frozen=True)
class Undone:
    user_id: str
    address: str  # masked


class Moving(Codes, Leaving):
    # ---- asking
    def ask_to_move(self, user: User, here: str, typed: str, browser: Browser) -> None:
        """Mail a code to another address; `here` is the session that asks.

        The same work, and nothing to be seen, whether the address is free or somebody's: to that one no mail
        leaves, and so no code is right.
        """
        if not typed.strip():
            raise Refused("email_missing")
        address = canonical(typed)
        if address is None:
            raise Refused("email_invalid")
        if address == user.address:
            raise Refused("move_same")
        if self.policy.signup == "open" and not self._of_our_domains(address):
            # Or one account after the other would leave them, and outlive the mailbox that it came with.
            raise Refused("move_domain", domains=", ".join(self.policy.signup_domains))
        now = int(self.clock())
        with self.db.tx() as t:
            users.hold(t, user.id)  # of two clicks at once one begins, and the other finds it
            old = challenges.hold(t, digest(_slot(here)))
            self.limits.move(t, user.id, now)
            taken = users.by_address(t, address) is not None
            free = not moves.kept(t, address, now, user.id) and not taken
            # Nobody's known browser: else a member could spend what strangers can't.
            mail = self.limits.move_mail(t, Person(address, "", taken, free), browser.source, now)
            leaves = mail.sent and free
            challenge = self._asked(t, old, address, here, mail, leaves, now, browser.kind)
            kind, until = MOVE_MAIL if leaves else NO_MAIL, self.validity.mail_until(challenge)
            self.send(t, kind, f"{challenge.id}:{user.id}", until)
            self._record(t, events.ADDRESS_ASKED, address, browser.source, user.id)

    def _asked(
        self,
        t: Any,
        old: Challenge | None,
        address: str,
        here: str,
        mail: Mail,
        leaves: bool,
        now: int,
        asked_by: str,
    ) -> Challenge:
        """A new challenge, that has no link; or the old one, when its mail is the newest that there will be for a
        while."""
        if old and not mail.room and old.address == address and self.validity.alive(old, now):
            return old
        if old:
            challenges.leave(t, old.id)
        challenge = Challenge(
            id=self.keys.new_id(),
            browser=digest(_slot(here)),
            purpose=MOVE,
            address=address,
            nonce=self.keys.new_nonce(),
            key_id=self.keys.current,
            issued_at=now,
            sent_at=now,
            expires_at=now + self.policy.code_seconds,
            # Where few digits are off, its mail has the long code that no budget is needed for.
            link_only=int(mail.link_only),
            mails=int(mail.sent),
            mailed=int(leaves),
            asked_by=asked_by,
        )
        challenges.create(t, challenge)
        return challenge

    def moving(self, here: str) -> Pending | None:
        """What this session has asked for, while a code may be entered for it."""
        challenge, now = self._of_browser(_slot(here), must=False), int(self.clock())
        alive = challenge and self.validity.alive(challenge, now)
        return self.validity.pending(challenge, now) if alive else None

    # ---- entering the code
    def move(self, user: User, here: str, typed: str, browser: Browser) -> None:
        """The new address counts from now on; all but this session end, known browsers and apps among them."""
        challenge, now = self._right(here, typed, browser.source), int(self.clock())
        new, key, ends = challenge.address, self.keys.current, now + self.policy.undo_seconds
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            users.hold(t, user.id)  # a sign-in that is under way ends with the others
            was = users.by_id(t, user.id)
            if was is None or was.address != user.address or not self._lives(t, was, here, now):
                raise Refused("move_over")
            # The address before the challenge, as a sign-up takes them: neither then waits for the other.
            if moves.kept(t, new, now, user.id):
                raise Refused("address_taken", address=new)
            if not users.move(t, user.id, new, self.keys.new_id()):
                raise Refused("address_taken", address=new)
            if not challenges.consume(t, challenge.id, now):
                raise Refused("code_used", address=new, next_path="")
            self._end_pending(t, was.address, new, now)
            self.limits.forgive(t, challenge, browser.source, True, now)
            sessions.end_others(t, user.id, here)
            devices.end_all(t, user.id)
            reviewers.end(t, user.id)
            id = self.keys.new_id()
            if n := moves.back(t, user.id, new, now):
                # Who comes back takes it back: a link at the address in between would outlive the one here.
                moves.end_from(t, user.id, n, now)
            else:
                moves.add(t, id, user.id, was.address, new, key, now, ends)
                # With less to live the link is not worth a mail.
                until = ends - min(DAY, self.policy.undo_seconds // 2)
                self.send(t, MOVED, f"{id}:{browser.kind}", until)
                self.send(t, ARRIVED, f"{user.id}:{id}", now + NOTICE_SECONDS)
            kind, change = events.ADDRESS_CHANGED, f"{was.address} → {new}"
            for address in (was.address, new):  # found under both
                self._record(t, kind, address, browser.source, user.id, change)

    def _right(self, here: str, typed: str, source: Source) -> Challenge:
        """The challenge of this session, if that was its code. Raises Refused."""
        slot = _slot(here)
        if self._of_browser(slot, must=False) is None:
            raise Refused("move_over")
        try:
            challenge, _ = self._guessed(typed, slot, (MOVE,), source)
        except Refused as refused:
            if refused.reason in ("code_off", "long_code_malformed"):  # which speak of a link
                raise Refused("move_code_long", length=LONG_CODE_CHARS) from refused
            if refused.reason == "no_signin":  # it ended at this moment
                raise Refused("move_over") from refused
            raise
        return challenge

    def _lives(self, t: Any, user: User, here: str, now: int) -> bool:
        """Is the session that asked still one of theirs? Signing out everywhere may have been faster."""
        idle, apps = self.policy.session_idle_seconds, self.policy.refresh_idle_seconds
        places = sessions.of_user(t, user.id, now, idle, apps)
        return user.disabled_at is None and any(place.id == here for place in places)

    def _end_pending(self, t: Any, one: str, other: str, now: int) -> None:
        """Codes that are on their way to either address are dead."""
        ended = [c for address in sorted({one, other}) for c in challenges.end_all(t, address)]
        self.limits.forget(t, ended, now)

    # ---- taking it back
    def undo_move(self, pasted: str, source: Source) -> Undone:
        """The address before that move counts again, and every session, known browser and code ends.

        Moves after it can't be taken back any more; those before it can.
        """
        now, found = int(self.clock()), self._by_undo(tidy_link(pasted))
        if found is None:
            with self.db.tx() as t:
                self.limits.wrong_link(t, source, now)
            raise Refused("undo_wrong")
        with self.db.tx(lock=PEOPLE_LOCK) as t:
            users.hold(t, found.user_id)
            move, user = moves.by_id(t, found.id), users.by_id(t, found.user_id)
            if move is None or user is None or not move.alive(now):
                raise Refused("undo_over")
            old = move.old_address
            if user.address != old and not users.move(t, user.id, old, self.keys.new_id()):
                raise Refused("undo_taken")
            self._end_pending(t, old, user.address, now)
            self.end_all(t, user)
            reviewers.end(t, user.id)
            moves.end_from(t, user.id, move.n, now)
            change = f"{user.address} → {old}"
            for address in dict.fromkeys((user.address, old)):
                self._record(t, events.ADDRESS_RESTORED, address, source, detail=change)
        return Undone(user.id, masked(old))

    def _by_undo(self, link: str) -> Move | None:
        """The move of a link, if it is really the one that was mailed for it."""
        id = linked_id(link)
        move = moves.by_id(self.db, id) if id else None
        made = self._undo(move) if move else None
        return move if made and same(link, made) else None

    def _undo(self, move: Move) -> str | None:
        """What its link has behind the #: derived, never stored. None when the key is gone."""
        return self.keys.link(move.key_id, UNDO, move.id, "", move.old_address)

    # ---- what is mailed, made at the moment of sending; None when nothing is due any more
    def move_mail(self, ref: str) -> MoveMail | None:
        id, _, user_id = ref.partition(":")
        c, user, now = (
            challenges.by_id(self.db, id),
            users.by_id(self.db, user_id),
            int(self.clock()),
        )
        if not c or not user or user.disabled_at is not None or not self.validity.alive(c, now):
            return None
        if users.by_address(self.db, c.address):  # taken meanwhile
            return None
        code = self.validity.long_code(c) if c.link_only else self.validity.code(c)
        asked_by = c.asked_by if c.asked_by in LABELS else ""
        return MoveMail(c.address, code, c.sent_at, user.timezone, asked_by) if code else None

    def move_notice(self, kind: str, ref: str) -> MoveNotice | None:
        """To the address before, with the link, also where an admin has disabled them; and to the new one."""
        if kind == ARRIVED:
            user_id, _, id = ref.partition(":")
            move, user = moves.by_id(self.db, id), users.by_id(self.db, user_id)
            if not move or not user or user.disabled_at or user.address != move.new_address:
                return None
            return MoveNotice(user.address, move.moved_at, user.timezone, "", "", 0)
        id, _, device = ref.partition(":")
        move, now = moves.by_id(self.db, id), int(self.clock())
        user, undo = users.by_id(self.db, move.user_id) if move else None, move and self._undo(move)
        if not move or not user or not undo or not move.alive(now):
            return None
        device = device if device in LABELS else ""
        # Of what the mail took to leave nobody counts the minutes.
        left = round((move.expires_at - now) / HOUR) * HOUR
        return MoveNotice(move.old_address, move.moved_at, user.timezone, device, undo, left)


def _slot(here: str) -> str:
    """What a move is found by, where a sign-in has its cookie or device_secret; neither can look like it."""
    return f"{MOVE} {here}"
