"""THE RULES about how often: starts, mails, wrong codes. No HTTP, HTML or SQL.

There are two lanes. A known browser (devices.py) has budgets of its own; all others share those of
their network, of the address and of the whole site. So strangers can spend only what strangers share.
Nothing here asks whether an address belongs to anybody, and no budget locks: where codes are spent, a
link is mailed that can't be guessed; where mails are spent, the last one's link lives until there is
room for the next.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from auth import budgets
from auth.budgets import Count, Taken
from auth.challenges import Challenge
from auth.events import Source
from auth.keys import Keys
from auth.policy import Policy, Refused, Windows

log = logging.getLogger("auth.limits")


class Mail(NamedTuple):
    """What became of the wish to send a mail."""

    sent: bool  # does it leave?
    room: bool  # had the address (or the device) room for it? Known or not, this one is the same
    link_until: int  # until when its link has to live, so that one is always there


class Reached(NamedTuple):
    """A budget that was just spent, for the audit log."""

    what: str
    subject: str


@dataclass(frozen=True)
class Limits:
    keys: Keys
    policy: Policy
    record: Callable[[Any, Reached, Source], None]

    # ---- asking for a mail
    def start(
        self, t: Any, address: str, device: str, mailable: bool, source: Source, now: int
    ) -> Mail:
        """Count one start and the mail that it asks for. Raises Refused `too_many_starts`."""
        starts = self._of_client("starts", self.policy.starts_per_ip, device, source)
        return self._mail(t, starts, address, device, mailable, source, now)

    def resend(
        self, t: Any, challenge: Challenge, mailable: bool, source: Source, now: int
    ) -> Mail:
        """Count one more mail of a start that was counted."""
        return self._mail(t, [], challenge.address, challenge.device, mailable, source, now)

    def _mail(
        self,
        t: Any,
        starts: list[Count],
        address: str,
        device: str,
        mailable: bool,
        source: Source,
        now: int,
    ) -> Mail:
        own = self._mails(address, device)
        shared, fleet = self._shared_mails(address, device, mailable)
        got = budgets.take(t, [*starts, *own, *shared, *fleet], now)
        self._must_have(t, starts, got, "too_many_starts", now)
        room = all(count.key in got for count in own)
        sent = room and all(count.key in got for count in (*shared, *fleet))
        if not sent:
            # An address's own windows are given back only when they are the reason: of an address that
            # nobody has nothing else is ever spent, and the two must go on alike.
            undo = [*shared, *fleet, *([] if room else own)]
            budgets.give_back(t, [c for c in undo if c.key in got], now)
        elif mailable:
            self._reached(t, fleet, got, Reached("mails of the whole site", ""), source)
        return Mail(sent, room, self._link_until(own, got))

    def _link_until(self, own: list[Count], got: dict[str, Taken]) -> int:
        """The last mail that a window has room for: its link lives until that window ends.

        Otherwise whoever spends an address's mails would lock its owner out for the rest of the day.
        """
        last = (got[c.key].ends_at for c in own if c.key in got and got[c.key].n >= c.most)
        return max(last, default=0)

    def link_only(self, t: Any, address: str, device: str, now: int) -> bool:
        """Are six digits switched off for this address, from this lane?"""
        return budgets.full_until(t, self._wrong(address, device), now) is not None

    # ---- guessing
    def guess(self, t: Any, challenge: Challenge, source: Source, now: int) -> bool:
        """Count a guess before it is compared. False: it must not be, codes are off from now on.

        Raises Refused `too_many_wrong` for the client, and then the guess costs nothing.
        """
        client, wrong = self._guesses(challenge, source)
        got = budgets.take(t, [*client, *wrong], now)
        self._must_have(t, client, got, "too_many_wrong", now)
        counted = [count for count in wrong if count.key in got]
        if len(counted) < len(wrong):
            budgets.give_back(t, counted, now)
            return False
        account, fleet = self._account(challenge.address, challenge.device), self._fleet(challenge)
        reached = Reached("wrong codes of one account", challenge.address)
        self._reached(t, account, got, reached, source)
        self._reached(t, fleet, got, Reached("wrong codes of the whole site", ""), source)
        return True

    def wrong_link(self, t: Any, source: Source, now: int) -> None:
        """Count what was no link of ours. Raises Refused `too_many_wrong`."""
        client = self._of_client("wrong", self.policy.wrong_per_ip, "", source)
        self._must_have(t, client, budgets.take(t, client, now), "too_many_wrong", now)

    def forgive(
        self, t: Any, challenge: Challenge, source: Source, guessed: bool, now: int
    ) -> None:
        """A sign-in that worked: its guess was right, and its mails were wanted.

        Only its own: what strangers have spent stays spent (SP 800-63B-4 §3.2.2 counts on).
        """
        if guessed:
            client, wrong = self._guesses(challenge, source)
            budgets.give_back(t, [*client, *wrong], now)
        if challenge.mails:
            own = self._mails(challenge.address, challenge.device)
            shared, _ = self._shared_mails(challenge.address, challenge.device, True)
            budgets.give_back(t, [*own, *shared], now, challenge.mails)

    # ---- telling
    def notice(self, t: Any, kind: str, address: str, now: int) -> bool:
        """May a notice of this kind go to this person? One a day tells enough."""
        counts = self._counts(f"notice {kind}", self.policy.notices, address)
        return len(budgets.take(t, counts, now)) == len(counts)

    # ---- which counters
    def _guesses(self, challenge: Challenge, source: Source) -> tuple[list[Count], list[Count]]:
        """The client's counters, and those of the account and the site. 60 bits need none of the latter."""
        client = self._of_client("wrong", self.policy.wrong_per_ip, challenge.device, source)
        wrong = [] if challenge.link_only else self._wrong(challenge.address, challenge.device)
        return client, wrong

    def _wrong(self, address: str, device: str) -> list[Count]:
        return [*self._account(address, device), *([] if device else self._site())]

    def _account(self, address: str, device: str) -> list[Count]:
        return self._counts("wrong codes", self.policy.wrong_per_account, device or address)

    def _fleet(self, challenge: Challenge) -> list[Count]:
        return [] if challenge.device else self._site()

    def _site(self) -> list[Count]:
        return self._counts("wrong codes of all", self.policy.wrong_fleet, "")

    def _mails(self, address: str, device: str) -> list[Count]:
        return self._counts("mails", self.policy.mails_per_address, device or address)

    def _shared_mails(
        self, address: str, device: str, mailable: bool
    ) -> tuple[list[Count], list[Count]]:
        """Counters of the mailbox and of the site. A mail that never leaves costs them nothing:
        it counts where there is room for ever, with the same work."""
        if device:
            return [], []
        mailbox = self._counts(
            "mails of a mailbox",
            self.policy.mails_per_address,
            mailbox_of(address) if mailable else "nobody's",
            self.policy.aliases if mailable else _ENDLESS,
        )
        fleet = self._counts(
            "mails of all",
            self.policy.mails_fleet,
            "" if mailable else "nobody's",
            1 if mailable else _ENDLESS,
        )
        return mailbox, fleet

    def _of_client(self, name: str, windows: Windows, device: str, source: Source) -> list[Count]:
        """Narrow and wide network; or the device, so that an office behind one address is no crowd."""
        if device:
            return self._counts(f"{name} of a device", windows, device)
        times = self.policy.wide_ipv6 if ":" in source.network else self.policy.wide_ipv4
        narrow = self._counts(f"{name} of a client", windows, source.client)
        return [*narrow, *self._counts(f"{name} of a network", windows, source.network, times)]

    def _counts(self, name: str, windows: Windows, subject: str, times: int = 1) -> list[Count]:
        key = self.keys.counter
        return [Count(key(name, seconds, subject), n * times, seconds) for n, seconds in windows]

    # ---- when there is none left
    def _must_have(
        self, t: Any, counts: list[Count], got: dict[str, Taken], reason: str, now: int
    ) -> None:
        full = [count for count in counts if count.key not in got]
        if full:
            until = budgets.full_until(t, full, now) or now
            raise Refused(reason, retry_after=max(1, until - now))

    def _reached(
        self, t: Any, counts: list[Count], got: dict[str, Taken], what: Reached, source: Source
    ) -> None:
        """Say so once, when the last unit goes."""
        if any(got[c.key].n == c.most for c in counts if c.key in got):
            log.warning("limit reached: %s", what.what)
            self.record(t, what, source)


_ENDLESS = 10**9


def mailbox_of(address: str) -> str:
    """The mailbox behind +tags and dots, as most providers see it. For limits only, never for identity."""
    local, _, domain = address.partition("@")
    return f"{local.partition('+')[0].replace('.', '')}@{domain}"
