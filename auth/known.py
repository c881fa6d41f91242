"""THE RULES about browsers that have signed in before. No HTTP, HTML or SQL.

A known browser has budgets of its own (limits.py) and is never a session by itself. Its cookie is a
selector and a verifier; a sign-in changes the verifier, and one that is neither the newest nor, for a
minute, the one before it was copied: then the device ends.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from auth import devices, events, users
from auth.agents import LABELS
from auth.devices import Device
from auth.events import Source
from auth.keys import Keys, digest, same, split_device
from auth.limits import Limits
from auth.policy import Policy
from auth.users import User

# Kinds of letters.
NEW_DEVICE = "new_device"
DEVICE_ENDED = "device_ended"
APP_COPIED = "token_reused"
NOTICES = (NEW_DEVICE, DEVICE_ENDED, APP_COPIED)
NOTICE_SECONDS = 86400  # a notice that could not leave for so long is no news any more


@dataclass(frozen=True)
class Browser:
    """What a browser sends with a request: its cookies, each None when it has none; where and what it is.

    A program is one that has no cookies: its device_secret stands for the sign-in's.
    """

    signin: str | None = None
    session: str | None = None
    device: str | None = None
    source: Source = field(default_factory=Source)
    kind: str = ""  # of device, in words of ours (agents.py)
    app: bool = False  # a program: it gets tokens, no cookies


@dataclass(frozen=True)
class KnownBrowsers:
    """`send` and `record` as in SignIn."""

    db: Any
    keys: Keys
    policy: Policy
    limits: Limits
    send: Callable[[Any, str, str, int], None]
    record: Callable[..., None]

    def device_of(self, browser: Browser, address: str, now: int) -> str:
        """The id of the browser's device, if that is one of this address; else ""."""
        device = self.check(browser, now)
        return device.id if device and device.address == address else ""

    def check(self, browser: Browser, now: int) -> Device | None:
        """The browser's device, if its cookie proves one. A wrong verifier ends it, and says so by mail."""
        found = split_device(browser.device)
        device = devices.find(self.db, found[0], now) if found else None
        if not found or not device:
            return None
        shown = digest(found[1])
        overlap = now < device.rotated_at + self.policy.device_overlap
        if same(shown, device.verifier) or (overlap and same(shown, device.previous)):
            return device
        with self.db.tx() as t:
            if devices.end(t, device.id):
                self.record(t, events.DEVICE_ENDED, device.address, browser.source)
                self._notify(t, DEVICE_ENDED, device.user_id, device.address, browser, now)
        return None

    def remember(
        self, t: Any, user: User, device: Device | None, browser: Browser, now: int
    ) -> str:
        """Know this browser from now on: its device cookie, or "" when it is to keep what it has."""
        ends, found = now + self.policy.device_seconds, split_device(browser.device)
        if device and found and device.user_id == user.id:
            newest = self.keys.verifier(device.id, device.generation)
            if same(digest(found[1]), device.verifier):
                newest = self.keys.verifier(device.id, device.generation + 1)
                # Of two sign-ins at once one writes, and both give the browser the same.
                devices.rotate(t, device, digest(newest), now, ends)
            elif not same(digest(newest), device.verifier):
                return ""  # made with a key that is gone
            # Else it showed the one before: the answer with the newest was lost, or is on its way.
            return device.id + newest
        if device:  # somebody else's; its cookie is about to be replaced
            devices.end(t, device.id)
        selector = self.keys.new_id()
        verifier = self.keys.verifier(selector, 0)
        devices.start(t, selector, digest(verifier), user.id, now, ends)
        self.tell_of(t, user, browser, now)
        return selector + verifier

    def tell_of(self, t: Any, user: User, browser: Browser, now: int) -> None:
        """A notice of a sign-in from where we had not seen this person before."""
        if user.activated_at != now:  # the first of all is no news
            self._notify(t, NEW_DEVICE, user.id, user.address, browser, now)

    def tell_of_copy(self, t: Any, user: User, browser: Browser, now: int) -> None:
        """A notice of a program's session that ended because somebody else had its refresh token, too."""
        self._notify(t, APP_COPIED, user.id, user.address, browser, now)

    def notice(self, ref: str) -> tuple[str, int, str, str] | None:
        """(address, when, time zone, kind of device) of a notice; None when nobody is left to tell."""
        id, _, rest = ref.partition(":")
        at, _, device = rest.partition(":")
        user = users.by_id(self.db, id)
        if not user or user.disabled_at:
            return None
        # Checked once more, as in mailing.py: no text of a stranger's gets into a mail.
        return user.address, int(at), user.timezone, device if device in LABELS else ""

    def _notify(
        self, t: Any, kind: str, user_id: str, address: str, browser: Browser, now: int
    ) -> None:
        if self.limits.notice(t, kind, address, now):
            ref = f"{user_id}:{now}:{browser.kind}"
            self.send(t, kind, ref, now + NOTICE_SECONDS)
