"""THE RULES of opening a mailed link: a session where it was asked for, elsewhere what to type. No HTTP, HTML or SQL."""

from dataclasses import dataclass

from auth import challenges
from auth.addresses import masked
from auth.arriving import Arrival, Arriving
from auth.challenges import APP_SIGN_IN, Challenge
from auth.keys import linked_id, same
from auth.known import Browser
from auth.policy import Refused
from auth.typed import tidy_link


@dataclass(frozen=True)
class Elsewhere:
    """A good link, opened in a browser that did not ask: what to type in the one that did."""

    address: str
    code: str | None  # None: there is nothing more to type there
    code_seconds: int
    app: bool  # a program asked, and no browser


class Links(Arriving):
    def open_link(self, pasted: str, timezone: str, browser: Browser) -> Arrival | Elsewhere:
        """Use a link: a session in a browser that asked for this address; elsewhere only what to type.

        Never a session for the browser that asked when another one opens the link: whoever is
        talked into a click would sign a stranger in (SP 800-63B-4 §3.1.3.1). A browser that asked
        for the same address may use any of its links: then strangers who spend the address's mails
        leave its owner the link in the last one.
        """
        now = int(self.clock())
        # Before the link's: of two clicks at once the slower one then finds the link used.
        own = self._of_browser(browser.signin, must=False)
        challenge = self._by_link(tidy_link(pasted))
        if challenge is None or not self._may_sign_in(self.db, challenge.address):
            with self.db.tx() as t:
                self.limits.wrong_link(t, browser.source, now)
            raise Refused("link_wrong")
        # Who holds the secret reads the mailbox, and may be told the truth.
        if challenge.used_at is not None:
            raise Refused("link_used")
        if challenge.link_expires_at <= now or self.validity.too_early(challenge, now):
            raise Refused("link_expired", address=challenge.address)
        if own and own.address == challenge.address and self.validity.linkable(own, now):
            arrival = self._admit(challenge, own, timezone, browser, now)
            if arrival is None:
                raise Refused("link_wrong")
            return arrival
        return self._elsewhere(challenge, now)

    def link_for(self, token: str | None) -> str | None:
        """The masked address for which a link signs in here; None in a browser that did not ask."""
        own = self._of_browser(token, must=False)
        return (
            masked(own.address) if own and self.validity.linkable(own, int(self.clock())) else None
        )

    def _by_link(self, link: str) -> Challenge | None:
        """The challenge of a link, if it is really one of its own."""
        id = linked_id(link)
        challenge = challenges.by_id(self.db, id) if id else None
        expected = self.validity.link(challenge) if challenge else None
        return challenge if expected and same(link, expected) else None

    def _elsewhere(self, challenge: Challenge, now: int) -> Elsewhere:
        c = challenge
        if not c.link_only and self.limits.link_only(self.db, c.address, c.device, now):
            # Its six digits would be compared with nothing.
            challenges.switch_to_link(self.db, c.id)
            c = c._replace(link_only=1, code_tries=0)
        # Where its own id stands for the browser, none waits for a code any more.
        typed_here = c.browser != c.id and self.validity.alive(c, now)
        code = self.validity.long_code(c) if c.link_only else self.validity.code(c)
        left, app = c.expires_at - now, c.purpose == APP_SIGN_IN
        return Elsewhere(masked(c.address), code if typed_here else None, left, app)
