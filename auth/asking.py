"""THE RULES of asking for a code: a new challenge, its mail, and the same once more. No HTTP, HTML or SQL."""

from typing import Any

from auth import challenges, events
from auth.addresses import canonical
from auth.challenges import APP_SIGN_IN, SIGN_IN, Challenge
from auth.keys import digest
from auth.known import Browser
from auth.limits import Mail
from auth.mailing import Mailing
from auth.policy import Refused
from auth.typed import safe_next
from auth.validity import Pending


class Asking(Mailing):
    def create_code(self, typed: str, next_path: str, browser: Browser) -> tuple[str, Pending]:
        """Start a sign-in: the browser's new token, and what to show.

        What is done, and how long it takes, is the same for every address because it is the same
        work: each start is counted, has a challenge, and has a row in the outbox. Whether a mail
        leaves shows nowhere but in the mailbox.
        """
        if not typed.strip():
            raise Refused("email_missing")
        address = canonical(typed)
        if address is None:
            raise Refused("email_invalid")
        now, app = int(self.clock()), browser.app
        token = self.keys.new_device_secret() if app else self.keys.new_token()
        known = self.known.device_of(browser, address, now)
        with self.db.tx() as t:
            old = challenges.hold(t, digest(browser.signin)) if browser.signin else None
            who = self._person(t, address, known)
            mail = self.limits.start(t, who, browser.source, now)
            told = self.policy.reveal_unregistered and not who.mailable
            if not told:
                purpose = APP_SIGN_IN if app else SIGN_IN
                next_path = safe_next(next_path)
                challenge = self._begin(
                    t, old, purpose, address, known, token, next_path, mail, now, browser.kind
                )
                self._mail_it(t, challenge, mail)
                self._record(t, events.CODE_REQUESTED, address, browser.source)
        if told:  # after the commit: asking has to be counted here, too
            raise Refused("not_registered", address=address)
        if app and challenge.browser != digest(token):
            token = browser.signin or token
        return token, self.validity.pending(challenge, now)

    def _begin(
        self,
        t: Any,
        old: Challenge | None,
        purpose: str,
        address: str,
        device: str,
        token: str,
        next_path: str,
        mail: Mail,
        now: int,
        asked_by: str,
    ) -> Challenge:
        """A new challenge; or the browser's old one, when its mail is the newest that there will be."""
        if old and not mail.room and old.address == address and self.validity.alive(old, now):
            if purpose == APP_SIGN_IN:  # the same secret, too: a lost answer must not lose it
                return old
            challenges.renew(t, old.id, digest(token), next_path)
            return old._replace(next_path=next_path)
        # A code whose tries are gone, and no room yet for the next mail: that one has to be asked for.
        soon = old and old.sent_at < now < old.sent_at + self.policy.resend_waits[0]
        owed = soon and not mail.room and old and old.address == address
        if old:
            challenges.leave(t, old.id)
        link_ends = max(now + self.policy.link_seconds, mail.link_until)
        challenge = Challenge(
            id=self.keys.new_id(),
            browser=digest(token),
            purpose=purpose,
            address=address,
            nonce=self.keys.new_nonce(),
            key_id=self.keys.current,
            next_path=next_path,
            issued_at=now,
            sent_at=old.sent_at if old and owed else now,
            expires_at=link_ends if mail.link_only else now + self.policy.code_seconds,
            device=device,
            link_only=int(mail.link_only),
            mails=int(mail.sent),
            mailed=int(mail.sent),
            linked=int(self._linked(mail)),
            link_expires_at=link_ends,
            asked_by=asked_by,
        )
        challenges.create(t, challenge)
        return challenge

    def resend_code(self, browser: Browser) -> Pending:
        """Mail the code once more. The same code, unless its tries are used up: then the next one.

        The count over the whole challenge goes on (SP 800-63B-4 §3.1.3: a new secret does not reset
        the count of failures).
        """
        now, seen = int(self.clock()), self._of_browser(browser.signin)
        self.validity.refuse_dead(seen, now)
        wait = self.validity.resend_in(seen, now)
        if wait is None or seen.total_tries >= self.policy.tries_per_challenge:
            raise Refused("resend_spent", retry_after=max(1, seen.expires_at - now))
        if wait > 0:
            raise Refused("resend_wait", retry_after=wait)
        with self.db.tx() as t:
            new_code = seen.code_tries >= self.policy.tries_per_code
            if not challenges.resend(t, seen, now, new_code):
                raise Refused("resend_wait", retry_after=1)  # the same click, twice
            who = self._person(t, seen.address, seen.device)
            mail = self.limits.resend(t, who, browser.source, now)
            if mail.link_only and not seen.link_only:
                challenges.switch_to_link(t, seen.id)
            if mail.room:
                linked, ends = bool(seen.linked) or self._linked(mail), seen.link_expires_at
                challenges.mailed(t, seen.id, mail.sent, linked, max(ends, mail.link_until))
            self._mail_it(t, seen, mail)
            self._record(t, events.CODE_REQUESTED, seen.address, browser.source, detail="again")
        return self.pending(browser.signin) or self.validity.pending(seen, now)

    def pending(self, token: str | None) -> Pending | None:
        """The browser's live sign-in, if it has one."""
        now, challenge = int(self.clock()), self._of_browser(token, must=False)
        live = challenge and challenge.used_at is None and challenge.expires_at > now
        return self.validity.pending(challenge, now) if challenge and live else None
