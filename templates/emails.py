"""The words of every mail: subject, text, HTML. Nothing that a stranger typed gets in."""

import re
import unicodedata
from math import ceil
from textwrap import fill
from typing import NamedTuple
from urllib.parse import urlsplit

from fasthtml.common import *

from templates.layout import Still
from templates.words import duration, written

# No background and hardly a colour: what has none follows the reader's own, in light and in dark. The
# link's blue can be read on both.
SOFT = "font-size:14px;line-height:1.5"
FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif"
BOX = f"max-width:26rem;margin:0 auto;padding:24px 16px;{FONT};font-size:16px;line-height:1.5"
DIGITS = "font:700 32px/1.4 ui-monospace,Menlo,Consolas,monospace;letter-spacing:4px;margin:8px 0"
HIDDEN = "display:none;max-height:0;overflow:hidden"  # what an inbox shows beside the subject
LINK = "color:#3a6df0;font-weight:600"

# The code alone on the first line: what a notification shows, and what a screen reader says first.
_CODE = """\
{code}

is your sign-in code for {app_name}. Type it in the {place} that asked for it.
It works once, for {valid_for}.

"""
_OR_LINK = """\
Or open this link {here}. It works once, for {link_for}.
{link}

"""
_LINK = """\
Sign in to {app_name} with this link. It works once, for {link_for}.
{link}

{how}
{why}

"""
_HOW = """\
Open it in the {place} in which you entered your address; {elsewhere} it \
shows letters and digits to type there."""
# Who asked, in these texts: it, where a link works, and where it does not.
_PLACES = {
    False: ("browser", "in the same browser", "in another one"),
    True: ("app", "on the same device", "in a browser"),
}
_WHY = "There is no code in this mail, for your safety."
_ASKED = "Asked for on {when}"
_WITH = "with {device}."
_UNKNOWN = "an unknown device"
_UNASKED = """\
Was that not you? Then ignore this mail: without it nobody can sign in.
We never ask for it by phone or chat.
"""
_END = f"{_ASKED},\n{_WITH}\n{_UNASKED}\n{{app_name}}, {{base_url}}\n"
# For who reads the text by program: offer the code on this site only, as phones do for text messages.
_BOUND = "\n@{host} #{code}\n"
_SUBJECT, _LINK_SUBJECT = "Your {app_name} sign-in code", "Your {app_name} sign-in link"
_CODE_SUBJECT = "{code} is your {app_name} sign-in code"
_MOVE_SUBJECT = "Your new address at {app_name}"
_MOVE_HOW = "Type it on your account page, where you asked for it. It works once, for {valid_for}."
_MOVE_UNASKED = """\
Was that not you? Then ignore this mail: without it this address is nobody's there.
We never ask for it by phone or chat.
"""
_MOVE = f"""\
{{code}}

is the code for your new address at {{app_name}}.
{_MOVE_HOW}

{_ASKED},
{_WITH}
{_MOVE_UNASKED}
{{app_name}}, {{base_url}}
"""
_UNDO = "Undo the change"
# For each kind of notice: subject, what happened, what to do, the words of its link if it has one.
_NOTICES = {
    "new_device": (
        "New sign-in to your {app_name} account",
        "Somebody signed in as you in a browser or an app that we had not seen before: {when},"
        " with {device}.",
        "Was it you? Then all is well. If not, somebody else reads your mailbox: change its password"
        " first, then sign in and choose “Sign out everywhere”.",
        "",
    ),
    "device_ended": (
        "A browser is no longer known to {app_name}",
        "A browser of yours showed an old key of ours: {when}, with {device}."
        " We have forgotten that browser.",
        "Nobody was signed in by it. It happens when a browser's data is restored from a backup, or"
        " was copied by somebody. The next time you sign in there, we know it again.",
        "",
    ),
    "token_reused": (
        "An app was signed out of your {app_name} account",
        "An app of yours used an old key of ours once more: {when}, with {device}."
        " We have ended that sign-in.",
        "It happens when an app's data is restored from a backup, or was copied by somebody. Sign in"
        " again in the app. If you see sign-ins that are not yours, choose “Sign out everywhere”.",
        "",
    ),
    # To the address before. Which one it is now is not said: somebody else may have chosen it.
    "address_changed": (
        "The address of your {app_name} account was changed",
        "Your account has another email address now: {when}, with {device}.",
        "Was it you? Then all is well. If not, take it back with this link, which works once, for"
        " {link_for}. It also signs out every browser.",
        _UNDO,
    ),
    "address_new": (
        "This is the address of your {app_name} account now",
        "Your account has this email address now: {when}.",
        "Enter it the next time you sign in. Was it not you? Then nobody can sign in with this"
        " address but you, and you may ignore this mail.",
        "",
    ),
}
_INVITED = "You are invited to {app_name}"
_BY = "{organisation} invites you to {app_name}."
_JOIN = "Look at the invitation"
_ONCE = """\
Sign in there with this address, then accept or decline. The invitation is for this address only, \
and good for {link_for}. Did you not expect it? Then ignore this mail."""

MAX_NAME = 60


class Letter(NamedTuple):
    to: str
    subject: str
    text: str
    html: str


class CodeLetter:
    """The mail with the code, the link or both, drawn once for an app and filled for each sign-in."""

    def __init__(self, app_name, base_url, code_seconds, in_subject, origin_bound=False):
        valid_for = duration(code_seconds)
        self._known = {"app_name": app_name, "base_url": base_url, "valid_for": valid_for}
        self._subject = _CODE_SUBJECT if in_subject else _SUBJECT
        self._host = urlsplit(base_url).hostname if origin_bound else ""
        asked = P(_ASKED.format(when="⟦when⟧"), ", ", _WITH.format(device="⟦device⟧"), style=SOFT)
        end = asked, P(_UNASKED, style=SOFT), P(app_name, ", ", base_url, style=SOFT)
        link = A("⟦words⟧", href="⟦link⟧", style=LINK)
        self._alone = _sheet(
            f"Your {app_name} sign-in link",
            "It works once.",
            P("Sign in to ", Strong(app_name), ":"),
            P(link),
            P("⟦rest⟧"),
            *end,
        )
        self._html = _sheet(
            f"Your {app_name} sign-in code",
            f"It works once, for {valid_for}.",
            P("Your sign-in code for ", Strong(app_name)),
            P("⟦code⟧", style=DIGITS),
            P(f"Type it in the ⟦place⟧ that asked for it. It works once, for {valid_for}."),
            "⟦or_link⟧",
            *end,
        )
        self._or_link = Still(P("Or open ", link, " ⟦here⟧.", "⟦rest⟧"))

    def __call__(self, address, code, link, link_seconds, asked_at, timezone, asked_by, app=False):
        """Code or link is "" when it is not in this mail; never both. `app`: a program asked, and no browser.

        `asked_by` is a kind of device, never what a browser says of itself; "" when it is unknown.
        """
        # Of what the mail took to leave nobody counts the seconds: as long as the code, if it was made with it.
        minutes = max(1, ceil(link_seconds / 60)) * 60
        asked = {"when": written(asked_at, timezone), "device": asked_by or _UNKNOWN}
        place, here, elsewhere = _PLACES[app]
        asked |= {"place": place, "here": here, "elsewhere": elsewhere}
        known = self._known | asked | {"code": code, "link": link, "link_for": duration(minutes)}
        if not code:
            how = _HOW.format(**known)
            words, rest = f"Sign in to {known['app_name']}", f"{how} {_WHY}"
            html = self._alone(words=words, link=link, rest=rest, **asked)
            text = (_LINK + _END).format(how=fill(how, 76), why=_WHY, **known)
            return Letter(address, _LINK_SUBJECT.format(**known), text, _lines(html))
        or_link = ""
        if link:
            rest = f" It works once, for {known['link_for']}."
            or_link = self._or_link(words="this link", link=link, rest=rest, here=here)
        html = self._html(code=code, or_link=or_link, **asked)
        bound = _BOUND if self._host else ""
        text = (_CODE + (_OR_LINK if link else "") + _END + bound).format(host=self._host, **known)
        return Letter(address, self._subject.format(**known), text, _lines(html))


class MoveLetter:
    """The mail with the code that makes an address somebody's. It signs nobody in, and says so."""

    def __init__(self, app_name, base_url, code_seconds):
        valid_for = duration(code_seconds)
        self._known = {"app_name": app_name, "base_url": base_url, "valid_for": valid_for}
        self._html = _sheet(
            _MOVE_SUBJECT.format(app_name=app_name),
            f"It works once, for {valid_for}.",
            P("The code for your new address at ", Strong(app_name)),
            P("⟦code⟧", style=DIGITS),
            P(_MOVE_HOW.format(valid_for=valid_for)),
            P(_ASKED.format(when="⟦when⟧"), ", ", _WITH.format(device="⟦device⟧"), style=SOFT),
            P(_MOVE_UNASKED, style=SOFT),
            P(app_name, ", ", base_url, style=SOFT),
        )

    def __call__(self, address, code, asked_at, timezone, asked_by):
        """`code` has digits, or letters and digits; `asked_by` is a kind of device, as in CodeLetter."""
        asked = {"when": written(asked_at, timezone), "device": asked_by or _UNKNOWN}
        text = _MOVE.format(code=code, **self._known, **asked)
        subject = _MOVE_SUBJECT.format(**self._known)
        return Letter(address, subject, text, _lines(self._html(code=code, **asked)))


class NoticeLetter:
    """What a person should know of their account. Nothing to click, but where something can be undone."""

    def __init__(self, app_name, base_url):
        self._known, self._sender = {"app_name": app_name}, f"{app_name}, {base_url}"
        self._html = _sheet(
            "⟦subject⟧",
            "⟦what⟧",
            P("⟦what⟧"),
            P("⟦then⟧"),
            "⟦road⟧",
            P(self._sender, style=SOFT),
        )
        self._road = Still(P(A("⟦words⟧", href="⟦link⟧", style=LINK)))

    def __call__(self, kind, address, at, timezone, device="", link="", link_seconds=0):
        """`kind` is a key of _NOTICES; `device` a kind of it, as in CodeLetter; `link` is for a notice that
        has one, and works for `link_seconds`."""
        known = self._known | {
            "when": written(at, timezone),
            "device": device or _UNKNOWN,
            "link_for": duration(link_seconds),
        }
        subject, what, then, words = (text.format(**known) for text in _NOTICES[kind])
        road = self._road(words=words, link=link) if words else ""
        html = self._html(subject=subject, what=what, then=then, road=road)
        shown = f"{link}\n\n" if words else ""
        text = f"{what}\n\n{then}\n\n{shown}{self._sender}\n"
        return Letter(address, subject, text, _lines(html))


class InvitationLetter:
    """Somebody who runs an organisation asks a person to join it."""

    def __init__(self, app_name, base_url):
        self._app_name, self._sender = app_name, f"{app_name}, {base_url}"
        self._html = _sheet(
            "⟦subject⟧",
            "⟦what⟧",
            P("⟦what⟧"),
            P(A(_JOIN, href="⟦link⟧", style=LINK)),
            P("⟦once⟧"),
            P(self._sender, style=SOFT),
        )

    def __call__(self, address, organisation, link_seconds, link):
        """`organisation`: its name, which its own admins chose; one that `fit_for_mail` refuses is left out."""
        subject = _INVITED.format(app_name=self._app_name)
        what = f"{subject}."
        if fit_for_mail(organisation):
            what = _BY.format(organisation=organisation, app_name=self._app_name)
        # Of what the mail took to leave nobody counts the minutes.
        hours = max(3600, round(link_seconds / 3600) * 3600)
        once = _ONCE.format(link_for=duration(hours))
        html = self._html(subject=subject, what=what, link=link, once=once)
        text = f"{what}\n\n{link}\n\n{fill(once, 76)}\n\n{self._sender}\n"
        return Letter(address, subject, text, _lines(html))


def fit_for_mail(name):
    """May a name that strangers to us chose stand in a mail of ours? At most 60 characters, and none that
    mail programs would make a link or an address of: then it could say “visit evil.example”.
    """
    if not 0 < len(name) <= MAX_NAME or name != name.strip() or not name.isprintable():
        return False
    if unicodedata.normalize("NFKC", name) != name:  # a full-width dot is a dot to some
        return False
    letters = all(c in " -–'’&.,()" or unicodedata.category(c)[0] in "LMN" for c in name)
    # A dot inside a word makes a domain of it; many digits are a phone number or look like a code.
    return letters and not re.search(r"\.\S|\d{5}|(?:\d\W*){6}|www|https?\b", name, re.IGNORECASE)


def _sheet(title, preview, *content):
    return Still(
        Html(
            Head(
                Meta(charset="utf-8"),
                Meta(name="color-scheme", content="light dark"),
                Meta(name="supported-color-schemes", content="light dark"),
                Title(title),
            ),
            Body(Div(preview, style=HIDDEN), Div(*content, style=BOX)),
            lang="en",
        )
    )


def _lines(html):
    return html.replace("><", ">\n<")
