"""THE RULES about browsers that have signed in before. No HTTP, HTML or SQL.

A known browser has budgets of its own (limits.py) and is never a session by itself. Its cookie is a
selector and a verifier; a sign-in changes the verifier, and one that is neither the newest nor, for a
minute, the one before it was copied: then the device ends.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from auth import devices, events, users
from auth.devices import Device
from auth.events import Source
from auth.keys import Keys, digest, same, split_device
from auth.limits import Limits
from auth.policy import Policy
from auth.users import User

# Kinds of letters.
NEW_DEVICE = "new_device"
DEVICE_ENDED = "device_ended"
NOTICE_SECONDS = 86400  # a notice that could not leave for so long is no news any more


@dataclass(frozen=True)
class Browser:
    """What a browser sends with a request: its cookies, each None when it has none, and where it is."""

    signin: str | None = None
    session: str | None = None
    device: str | None = None
    source: Source = field(default_factory=Source)


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
        device = self.device(browser, now)
        return device.id if device and device.address == address else ""

    def device(self, browser: Browser, now: int) -> Device | None:
        """The browser's device. A wrong verifier ends it."""
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
                self._notify(t, DEVICE_ENDED, device.user_id, device.address, now)
        return None

    def remember(
        self, t: Any, user: User, device: Device | None, browser: Browser, now: int
    ) -> str:
        """Know this browser from now on: its new device cookie, or "" when it has the newest already."""
        ends = now + self.policy.device_seconds
        selector, verifier = self.keys.new_device()
        if device and device.user_id == user.id:
            found = split_device(browser.device)
            if not found or not same(digest(found[1]), device.verifier):
                return ""  # of two sign-ins at once the other one has changed it
            rotated = devices.rotate(t, device, digest(verifier), now, ends)
            return device.id + verifier if rotated else ""
        if device:  # somebody else's; its cookie is about to be replaced
            devices.end(t, device.id)
        devices.start(t, selector, digest(verifier), user.id, now, ends)
        if user.activated_at != now:  # the first browser of all is no news
            self._notify(t, NEW_DEVICE, selector, user.address, now)
        return selector + verifier

    def notice(self, kind: str, ref: str, now: int) -> tuple[str, int, str] | None:
        """(address, when, time zone) of a notice; None when there is nobody to tell any more."""
        device = devices.find(self.db, ref, now) if kind == NEW_DEVICE else None
        user = users.by_id(self.db, device.user_id if device else ref)
        if user is None or user.disabled_at is not None:
            return None
        return user.address, device.created_at if device else now, user.timezone

    def _notify(self, t: Any, kind: str, ref: str, address: str, now: int) -> None:
        if self.limits.notice(t, kind, address, now):
            self.send(t, kind, ref, now + NOTICE_SECONDS)
