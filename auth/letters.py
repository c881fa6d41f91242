"""Which letter an outbox row stands for, made at the moment of sending. The words are templates', the rules others'."""

from dataclasses import dataclass
from typing import Any

from auth.inviting import INVITATION, Inviting
from auth.known import NOTICES
from auth.mailing import ARRIVED, CODE_MAIL, MOVE_MAIL, MOVED, NO_MAIL
from auth.needs import Templates
from auth.signin import SignIn

PATIENT = (*NOTICES, MOVED, ARRIVED, INVITATION)  # kinds of mail that nobody waits for
INVITATIONS = "/invitations"


@dataclass(frozen=True)
class Letters:
    """Links begin with BASE_URL, never with what a request says: a Host header is whatever its sender likes.

    `app_link_url`: where links lead that a program asked for; None: as those of browsers.
    """

    templates: Templates
    signin: SignIn
    inviting: Inviting
    base_url: str
    app_link_url: str | None

    def letter(self, kind: str, ref: str) -> Any:
        """None when none is due."""
        if kind == NO_MAIL:
            return None
        if kind == CODE_MAIL:
            found = self.signin.mail(ref)
            if not found:
                return None
            way = self.app_link_url if found.app and self.app_link_url else f"{self.base_url}/link"
            link = found.link and f"{way}#{found.link}"
            return self.templates.code_letter(*found._replace(link=link))
        if kind == INVITATION:
            asked, url = self.inviting.letter(ref), f"{self.base_url}{INVITATIONS}"
            return self.templates.invitation_letter(*asked, url) if asked else None
        if kind == MOVE_MAIL:
            code = self.signin.move_mail(ref)
            return self.templates.move_letter(*code) if code else None
        if kind in (MOVED, ARRIVED):
            news = self.signin.move_notice(kind, ref)
            link = f"{self.base_url}/undo_address#{news.undo}" if news and news.undo else ""
            return news and self.templates.notice_letter(kind, *news._replace(undo=link))
        if kind in NOTICES:
            told = self.signin.known.notice(ref)
            return self.templates.notice_letter(kind, *told) if told else None
        raise ValueError(f"no letter of kind {kind}")
