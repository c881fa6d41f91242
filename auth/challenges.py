"""One attempt to sign in from one browser: made, guessed at, resent, spent. SQL only; the numbers come in."""

from operator import itemgetter
from typing import Any, NamedTuple

from auth.purging import purge as walk

# Purposes; part of what the code is derived from.
SIGN_IN = "sign-in"
APP_SIGN_IN = "app sign-in"
MOVE = "another address"  # opens nothing: see moving.py


class Challenge(NamedTuple):
    id: str
    browser: str
    purpose: str
    address: str
    nonce: str
    key_id: str
    issued_at: int
    sent_at: int
    expires_at: int
    link_only: int
    mails: int
    mailed: int
    asked_by: str  # the kind of device, one of agents.LABELS, or ""
    # What a new one begins with.
    next_path: str = ""
    device: str = ""
    linked: int = 0
    link_expires_at: int = 0
    generation: int = 0
    code_tries: int = 0
    total_tries: int = 0
    resends: int = 0
    used_at: int | None = None


# By name: newer code, in a process beside this one, may have added columns.
_fields = itemgetter(*Challenge._fields)


def _of(row: dict[str, Any]) -> Challenge:
    return Challenge._make(_fields(row))


def create(t: Any, challenge: Challenge) -> None:
    t.q(
        "insert into challenges (id, browser, purpose, address, nonce, key_id, generation, code_tries,"
        " total_tries, resends, next_path, issued_at, sent_at, expires_at, used_at, device, link_only,"
        " mails, mailed, linked, link_expires_at, asked_by) values (:id, :browser, :purpose, :address, :nonce,"
        " :key_id, :generation, :code_tries,"
        " :total_tries, :resends, :next_path, :issued_at, :sent_at, :expires_at, :used_at, :device,"
        " :link_only, :mails, :mailed, :linked, :link_expires_at, :asked_by)",
        **challenge._asdict(),
    )


def spend(
    t: Any,
    browser: str,
    now: int,
    tries_per_code: int,
    tries_per_challenge: int,
    skew: int,
    link_only: bool,
) -> Challenge | None:
    """Count one guess and get the challenge to compare it with; None when no guess is left.

    `link_only`: what is guessed at. Six digits are never compared where only a link was mailed.

    One statement, and committed before anything is compared. Reading the counter first and writing
    it afterwards lets fifty parallel guesses through a limit of five. A clock that went back by more
    than `skew` seconds refuses, or it would give an old code a second life.
    """
    rows = t.q(
        "update challenges set code_tries = code_tries + 1, total_tries = total_tries + 1"
        " where browser = :browser and used_at is null and link_only = :link_only"
        " and code_tries < :per_code and total_tries < :per_challenge"
        " and expires_at > :now and issued_at <= :latest returning *",
        browser=browser,
        now=now,
        latest=now + skew,
        per_code=tries_per_code,
        per_challenge=tries_per_challenge,
        link_only=int(link_only),
    )
    return _of(rows[0]) if rows else None


def consume(t: Any, id: str, now: int) -> bool:
    """Take the challenge; of several who try, one gets True. In the transaction that starts the session."""
    sql = "update challenges set used_at = :now where id = :id and used_at is null returning id"
    return bool(t.q(sql, id=id, now=now))


def resend(t: Any, seen: Challenge, now: int, new_code: bool) -> bool:
    """Note one more mail, unless somebody else just did.

    `new_code` starts the next generation, which nobody has been sent yet.
    """
    return bool(
        t.q(
            "update challenges set resends = resends + 1, sent_at = :now,"
            " generation = generation + :step, code_tries = case when :step = 1 then 0 else code_tries end,"
            " mailed = case when :step = 1 then 0 else mailed end"
            " where id = :id and resends = :resends and used_at is null returning id",
            id=seen.id,
            resends=seen.resends,
            now=now,
            step=int(new_code),
        )
    )


def mailed(t: Any, id: str, sent: bool, linked: bool, link_expires_at: int) -> None:
    """One more mail, if it is `sent`, that counts against its address; its link may live longer."""
    t.q(
        "update challenges set mails = mails + :sent,"
        " mailed = case when :sent = 1 then 1 else mailed end, linked = :linked, link_expires_at = :at"
        " where id = :id",
        id=id,
        sent=int(sent),
        linked=int(linked),
        at=link_expires_at,
    )


def switch_to_link(t: Any, id: str) -> None:
    """From now on six digits are not compared; the count starts anew for what can't be guessed."""
    t.q("update challenges set link_only = 1, linked = 1, code_tries = 0 where id = :id", id=id)


def renew(t: Any, id: str, browser: str, next_path: str) -> None:
    """The same sign-in under a new cookie."""
    t.q(
        "update challenges set browser = :browser, next_path = :next_path where id = :id",
        id=id,
        browser=browser,
        next_path=next_path,
    )


def of_browser(t: Any, browser: str) -> Challenge | None:
    rows = t.q("select * from challenges where browser = :browser", browser=browser)
    return _of(rows[0]) if rows else None


def by_id(t: Any, id: str) -> Challenge | None:
    rows = t.q("select * from challenges where id = :id", id=id)
    return _of(rows[0]) if rows else None


def newest(t: Any, address: str) -> Challenge | None:
    """Of those of an address that were not used and had room for a mail, the one whose link lives longest."""
    rows = t.q(
        "select * from challenges where address = :address and used_at is null and mailed = 1"
        " order by link_expires_at desc, issued_at desc limit 1",
        address=address,
    )
    return _of(rows[0]) if rows else None


def hold(t: Any, browser: str) -> Challenge | None:
    """The browser's challenge, and nobody else's until this transaction ends."""
    rows = t.q(
        "update challenges set browser = browser where browser = :browser returning *",
        browser=browser,
    )
    return _of(rows[0]) if rows else None


def leave(t: Any, id: str) -> None:
    """A browser has one live challenge: its newest. The link in the mail of this one lives on."""
    t.q("update challenges set browser = id where id = :id", id=id)


def end_all(t: Any, address: str) -> list[Challenge]:
    """All of an address; those that there were."""
    rows = t.q("delete from challenges where address = :address returning *", address=address)
    return [_of(row) for row in rows]


def end_every(t: Any) -> list[Challenge]:
    return [_of(row) for row in t.q("delete from challenges returning *")]


_LOOK = "select id as key from challenges where id > :after order by id limit :step"
_PURGE = (
    "delete from challenges where id > :start and id <= :after"
    " and link_expires_at < :before and expires_at < :before returning id"
)


def purge(db: Any, before: int, step: int) -> int:
    """Delete what has ended. Says how many."""
    return walk(db, _LOOK, _PURGE, step, before=before)
