"""THE RULES about how often: starts, mails, wrong codes. No HTTP, HTML or SQL.

There are two lanes. A known browser (devices.py) has budgets of its own; all others share those of
their network, of the address and of the whole site. So strangers can spend only what strangers share.
Whether an address belongs to anybody changes nothing that can be seen: the same rows are touched by the
same statements, and only mails that leave count where mails are shared. And no budget locks: where codes
are spent, a link is mailed that can't be guessed; where mails are spent, the last one's link lives until
there is room for the next.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from auth import budgets
from auth.budgets import Count, Taken
from auth.challenges import MOVE, Challenge
from auth.events import Source
from auth.keys import Keys
from auth.policy import DAY, MINUTE, Policy, Refused, Windows

log = logging.getLogger("auth.limits")


# Subjects that are no address, network or device.
SITE, UNKNOWN = "the whole site", "a client without an address"


class Mail(NamedTuple):
    """What became of the wish to send a mail."""

    sent: bool  # does it leave?
    room: bool  # was there room for it? The same for an address that nobody has
    link_only: bool  # are six digits switched off for this address, from this lane?
    link_until: int  # until when its link has to live, so that one is always there; 0: no matter


class Person(NamedTuple):
    """Who asks for a mail, as far as limits go."""

    address: str
    device: str  # the known browser's id, or ""
    exists: bool
    mailable: bool  # may they sign in, so that a mail would leave?


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
    def start(self, t: Any, who: Person, source: Source, now: int) -> Mail:
        """Count one start and the mail that it asks for. Raises Refused `too_many_starts`."""
        starts = self._of_client("starts", self.policy.starts_per_ip, who.device, source)
        return self._mail(t, starts, who, source, now)

    def move_mail(self, t: Any, who: Person, source: Source, now: int) -> Mail:
        """As start, for the code that makes an address somebody's. Counted apart from the mails that a person
        signs in with: there is no link in it, so whoever has these spent would be locked out."""
        starts = self._of_client("starts", self.policy.starts_per_ip, "", source)
        return self._mail(t, starts, who, source, now, self._move_mails(who.address))

    def resend(self, t: Any, who: Person, source: Source, now: int) -> Mail:
        """Count one more mail of a start that was counted."""
        return self._mail(t, (), who, source, now)

    def _mail(
        self,
        t: Any,
        starts: Sequence[Count],
        who: Person,
        source: Source,
        now: int,
        own: Sequence[Count] = (),
    ) -> Mail:
        wrong = self._wrong(who.address, who.device)
        site = () if who.device else self._site_mails(who.mailable)
        full = budgets.full(t, [*wrong, *site], now)
        link_only = any(count.key in full for count in wrong)
        # While the site's share is spent nothing leaves, so nobody's own mails are counted either, or
        # an address would have none left when there is room again, and no link.
        closed = any(count.key in full for count in site)
        own = () if closed else own or self._own_mails(who.address, who.device)
        shared = () if closed else (*self._aliases(who), *site)
        got = budgets.take(t, [*starts, *own, *shared], now)
        self._must_have(t, starts, got, "too_many_starts", now)
        room = bool(own) and all(count.key in got for count in own)
        sent = room and all(count.key in got for count in shared)
        if not room:
            # Known or not: what was counted beside the address's own goes back in no other case, or the
            # two would differ by a statement.
            budgets.give_back(t, [c for c in (*own, *shared) if c.key in got], now)
        elif sent and any(got[c.key].n == c.most for c in site if c.units and c.key in got):
            self.say(t, [Reached("mails of the whole site", "")], source)
        return Mail(sent, room, link_only, self._link_until(own, got, now) if room else 0)

    def _link_until(self, own: Sequence[Count], got: dict[str, Taken], now: int) -> int:
        """The last mail that a window has room for: its link lives until that window ends.

        Otherwise whoever spends an address's mails would lock its owner out for the rest of the day.
        A window of a minute, which every mail fills, is waited for.
        """
        last = (got[c.key].ends_at for c in own if c.key in got and got[c.key].n >= c.most)
        until = max(last, default=0)
        return until if until > now + MINUTE else 0

    def move(self, t: Any, person: str, now: int) -> None:
        """Count a mail that a person asks for to an address that is not theirs: or anybody who is signed in
        could have strangers mailed all day. Raises Refused `too_many_moves`."""
        counts = self._counts("moves", self.policy.moves, person)
        self._must_have(t, counts, budgets.take(t, counts, now), "too_many_moves", now)

    def link_only(self, t: Any, address: str, device: str, now: int) -> bool:
        """Are six digits switched off for this address, from this lane?"""
        return bool(budgets.full(t, self._wrong(address, device), now))

    # ---- guessing
    def guess(self, t: Any, challenge: Challenge, source: Source, now: int) -> list[Reached] | None:
        """Count a guess before it is compared; what it reaches if it is wrong. None: it must not be
        compared, codes are off from now on.

        Raises Refused `too_many_wrong` for the client, and then the guess costs nothing.
        """
        client, wrong = self._guesses(challenge, source)
        got = budgets.take(t, [*client, *wrong], now)
        self._must_have(t, client, got, "too_many_wrong", now)
        counted = [count for count in wrong if count.key in got]
        if len(counted) < len(wrong):
            budgets.give_back(t, counted, now)
            return None
        account = self._account(challenge.address, challenge.device)
        last = [count for count in wrong if got[count.key].n == count.most]
        reached = []
        if any(count in account for count in last):
            reached.append(Reached("wrong codes of one account", challenge.address))
        if any(count not in account for count in last):
            reached.append(Reached("wrong codes of the whole site", ""))
        return reached

    def spent(self, t: Any, now: int) -> dict[str, bool]:
        """Which shares of the whole site are spent, so that unknown browsers get no code, or no mail."""
        shares = {"wrong codes": self._site(), "mails": self._site_mails(True)}
        full = budgets.full(t, [c for counts in shares.values() for c in counts], now)
        return {name: any(c.key in full for c in counts) for name, counts in shares.items()}

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
        client, wrong = self._guesses(challenge, source) if guessed else ((), ())
        budgets.give_back(t, [*self._wanted_mails(challenge), *client, *wrong], now)

    def forget(self, t: Any, ended: Sequence[Challenge], now: int) -> None:
        """Give back the mails of sign-ins that their owner has ended: no link of theirs is left."""
        for challenge in ended:
            if challenge.used_at is None:
                budgets.give_back(t, self._wanted_mails(challenge), now)

    def _wanted_mails(self, challenge: Challenge) -> Sequence[Count]:
        """What its mails were counted on; but never on the site's share and on what a person may have
        in all, or whoever signs in all day could empty the provider's quota."""
        c = challenge
        if c.purpose == MOVE:
            return self._move_mails(c.address, c.mails) if c.mails else ()
        return self._mails(c.address, c.device, units=c.mails) if c.mails else ()

    # ---- telling
    def notice(self, t: Any, kind: str, address: str, now: int) -> bool:
        """May a notice of this kind go to this person? One a day tells enough."""
        counts = self._counts(kind, self.policy.notices, address)
        return len(budgets.take(t, counts, now)) == len(counts)

    # ---- inviting
    def count_invitation(self, t: Any, tenant: str, now: int) -> None:
        """Count one more invitation of this organisation. Raises Refused `too_many_invitations`."""
        counts = self._counts("invites", self.policy.invitations, tenant)
        self._must_have(t, counts, budgets.take(t, counts, now), "too_many_invitations", now)

    def may_mail_invitation(self, t: Any, address: str, now: int) -> bool:
        """May the mail of an invitation leave for this address? As many as codes, counted apart from them: or
        whoever runs an organisation could spend the mails that a person signs in with."""
        windows, times = self.policy.mails_per_address, self.policy.aliases
        own = self._counts("invitations", windows, address)
        boxes = self._counts("invitations of aliases", windows, mailbox_of(address), times=times)
        got = budgets.take(t, [*own, *boxes], now)
        if len(got) == len(own) + len(boxes):
            return True
        budgets.give_back(t, [count for count in (*own, *boxes) if count.key in got], now)
        return False

    # ---- addresses that do not exist
    def bounced(self, t: Any, address: str, now: int) -> bool:
        """The provider says so: no mail to it for a day. False when that was known already."""
        return bool(budgets.take(t, self._bounces(address), now))

    def bouncing(self, t: Any, addresses: Collection[str], now: int) -> set[str]:
        """Those of the addresses that did."""
        whose = {count: a for a in addresses for count in self._bounces(a)}
        full = budgets.full(t, whose, now)
        return {a for count, a in whose.items() if count.key in full}

    def lift(self, t: Any, address: str, now: int) -> None:
        """Mail to it may leave again: somebody knows better."""
        budgets.give_back(t, self._bounces(address), now)

    def _bounces(self, address: str) -> Sequence[Count]:
        return self._counts("undeliverable", ((1, DAY),), address)

    # ---- which counters
    def _guesses(
        self, challenge: Challenge, source: Source
    ) -> tuple[Sequence[Count], Sequence[Count]]:
        """The client's counters, and those of the account and the site. 60 bits need none of the latter."""
        client = self._of_client("wrong", self.policy.wrong_per_ip, challenge.device, source)
        wrong = [] if challenge.link_only else self._wrong(challenge.address, challenge.device)
        return client, wrong

    def _wrong(self, address: str, device: str) -> Sequence[Count]:
        return [*self._account(address, device), *([] if device else self._site())]

    def _account(self, address: str, device: str) -> Sequence[Count]:
        return self._counts("wrong", self.policy.wrong_per_account, device or address)

    def _site(self) -> Sequence[Count]:
        return self._counts("wrong", self.policy.wrong_fleet, SITE)

    def _mails(self, address: str, device: str, units: int = 1) -> Sequence[Count]:
        windows = self.policy.mails_per_address
        return self._counts("mails", windows, device or address, units=units)

    def _move_mails(self, address: str, units: int = 1) -> Sequence[Count]:
        return self._counts("mails of moves", self.policy.mails_per_address, address, units=units)

    def _own_mails(self, address: str, device: str) -> Sequence[Count]:
        """The lane's, and those that one person may have over all lanes, however many were wanted."""
        longest = self.policy.mails_per_address[-1:]
        in_all = self._counts("mails in all", longest, address, times=self.policy.aliases)
        return (*self._mails(address, device), *in_all)

    def _aliases(self, who: Person) -> Sequence[Count]:
        """All +tags of a mailbox together; with the plain address `aliases` times what one may have.

        Strangers can invent tags, so those that nobody has leave some room to those that somebody has.
        """
        if who.device:
            return ()
        address, counts = who.address, who.mailable and is_alias(who.address, who.exists)
        times = self.policy.aliases - (1 if who.exists else 2)
        windows = self.policy.mails_per_address
        return self._counts("aliases", windows, mailbox_of(address), times=times, units=int(counts))

    def _site_mails(self, counts: bool) -> Sequence[Count]:
        """A mail that never leaves costs the provider's quota nothing."""
        return self._counts("mails", self.policy.mails_fleet, SITE, units=int(counts))

    def _of_client(
        self, name: str, windows: Windows, device: str, source: Source
    ) -> Sequence[Count]:
        """Narrow and wide network; or the device, so that an office behind one address is no crowd."""
        if device:
            return self._counts(f"{name}-client", windows, device)  # beside its own wrong codes
        times = self.policy.wide_ipv6 if ":" in source.network else self.policy.wide_ipv4
        client, network = source.client or UNKNOWN, source.network or UNKNOWN
        wide = self._counts(name, windows, network, times=times)
        return (*self._counts(name, windows, network, client), *wide)

    @cached_property
    def _counts(self) -> Callable[..., tuple[Count, ...]]:
        """As _make_counts, and kept: one sign-in asks for the same ones three times."""
        return lru_cache(4096)(self._make_counts)

    def _make_counts(
        self,
        limit: str,
        windows: Windows,
        whom: str,
        part: str = "",
        times: int = 1,
        units: int = 1,
    ) -> tuple[Count, ...]:
        """A counter for each window; of a part of `whom`, when it is named."""
        # Whom first: what one sign-in counts lies together, on few pages of the table.
        subject = self.keys.subject(whom)
        if part:
            subject = subject[:8] + self.keys.subject(part)
        return tuple(
            Count(f"{subject} {limit}/{seconds}", n * times, seconds, units)
            for n, seconds in windows
        )

    # ---- when there is none left
    def _must_have(
        self, t: Any, counts: Sequence[Count], got: dict[str, Taken], reason: str, now: int
    ) -> None:
        spent = [count for count in counts if count.key not in got]
        if spent:
            until = max(budgets.full(t, spent, now).values(), default=now)
            raise Refused(reason, retry_after=max(1, until - now))

    def say(self, t: Any, reached: Sequence[Reached], source: Source) -> None:
        """A budget was spent: once, when its last unit goes."""
        for what in reached:
            log.warning("limit reached: %s", what.what)
            self.record(t, what, source)


def mailbox_of(address: str) -> str:
    """The mailbox behind +tags and dots, as some providers see it. For limits only, never for identity."""
    local, _, domain = address.partition("@")
    return f"{local.partition('+')[0].replace('.', '')}@{domain}"


def is_alias(address: str, exists: bool) -> bool:
    """Is it one of many ways to write one mailbox? Dots are in many people's own, if it is somebody's."""
    local = address.partition("@")[0]
    return "+" in local or ("." in local and not exists)
