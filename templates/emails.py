"""The words of every mail: subject, text, HTML. Nothing that a stranger typed gets in."""

from textwrap import fill
from typing import NamedTuple

from fasthtml.common import *

from templates.layout import Still
from templates.words import duration, written

SOFT = "color:#5b6270;font-size:14px;line-height:1.5"
FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif"
BOX = f"max-width:26rem;margin:0 auto;padding:24px 16px;{FONT};font-size:16px;line-height:1.5"
DIGITS = "font:700 32px/1.4 ui-monospace,Menlo,Consolas,monospace;letter-spacing:4px;margin:8px 0"

HIDDEN = "display:none;max-height:0;overflow:hidden"  # what an inbox shows beside the subject
LINK = "color:#1f5eff;font-weight:600"

# The code alone on the first line: what a notification shows, and what a screen reader says first.
_CODE = """\
{code}

is your sign-in code for {app_name}. Type it in the browser that asked for it.
It works once, for {valid_for}.

"""
_OR_LINK = """\
Or open this link in the same browser. It works once, for {link_for}.
{link}

"""
_LINK = """\
Sign in to {app_name} with this link. It works once, for {link_for}.
{link}

{how}
{why}

"""
_HOW = """\
Open it in the browser in which you entered your address; in another one it \
shows letters and digits to type there."""
_WHY = "There is no code in this mail, for your safety."
_UNASKED = """\
You did not ask for it? Then ignore this mail: without it nobody can sign in.
We never ask for it by phone or chat.
"""
_END = f"{_UNASKED}\n{{app_name}}, {{base_url}}\n"
_SUBJECT, _LINK_SUBJECT = "Your {app_name} sign-in code", "Your {app_name} sign-in link"
_CODE_SUBJECT = "{code} is your {app_name} sign-in code"
_NOTICES = {
    "new_device": (
        "New sign-in to your {app_name} account",
        "Somebody signed in as you in a browser that we had not seen before: {when}.",
        "Was it you? Then all is well. If not, somebody else reads your mailbox: change its password"
        " first, then sign in and choose “Sign out everywhere”.",
    ),
    "device_ended": (
        "A browser is no longer known to {app_name}",
        "A browser of yours showed an old key of ours: {when}. We have forgotten that browser.",
        "Nobody was signed in by it. It happens when a browser's data is restored from a backup, or"
        " was copied by somebody. The next time you sign in there, we know it again.",
    ),
}


class Letter(NamedTuple):
    to: str
    subject: str
    text: str
    html: str


class CodeLetter:
    """The mail with the code, the link or both, drawn once for an app and filled for each sign-in."""

    def __init__(self, app_name, base_url, code_seconds, in_subject):
        valid_for = duration(code_seconds)
        self._known = {"app_name": app_name, "base_url": base_url, "valid_for": valid_for}
        self._subject = _CODE_SUBJECT if in_subject else _SUBJECT
        unasked = P(_UNASKED, style=SOFT)
        sender = P(app_name, ", ", base_url, style=SOFT)
        link = A("⟦words⟧", href="⟦link⟧", style=LINK)
        self._alone = _sheet(
            f"Your {app_name} sign-in link",
            "It works once.",
            P("Sign in to ", Strong(app_name), ":"),
            P(link),
            P("⟦rest⟧"),
            unasked,
            sender,
        )
        self._html = _sheet(
            f"Your {app_name} sign-in code",
            f"It works once, for {valid_for}.",
            P("Your sign-in code for ", Strong(app_name)),
            P("⟦code⟧", style=DIGITS),
            P(f"Type it in the browser that asked for it. It works once, for {valid_for}."),
            "⟦or_link⟧",
            unasked,
            sender,
        )
        self._or_link = Still(P("Or open ", link, " in the same browser.", "⟦rest⟧"))

    def __call__(self, address, code, link, link_seconds):
        """Code or link is "" when it is not in this mail; never both."""
        # Of what the mail took to leave nobody counts the seconds.
        minutes = max(60, round(link_seconds / 60) * 60)
        known = self._known | {"code": code, "link": link, "link_for": duration(minutes)}
        if not code:
            how = _HOW.format(**known)
            html = self._alone(
                words=f"Sign in to {known['app_name']}", link=link, rest=f"{how} {_WHY}"
            )
            text = (_LINK + _END).format(how=fill(how, 76), why=_WHY, **known)
            return Letter(address, _LINK_SUBJECT.format(**known), text, _lines(html))
        or_link = ""
        if link:
            rest = f" It works once, for {known['link_for']}."
            or_link = self._or_link(words="this link", link=link, rest=rest)
        html = self._html(code=code, or_link=or_link)
        text = (_CODE + (_OR_LINK if link else "") + _END).format(**known)
        return Letter(address, self._subject.format(**known), text, _lines(html))


class NoticeLetter:
    """What a person should know of their account; nothing to click."""

    def __init__(self, app_name, base_url):
        self._known, self._sender = {"app_name": app_name}, f"{app_name}, {base_url}"

    def __call__(self, kind, address, at, zone):
        known = self._known | {"when": written(at, zone)}
        subject, what, then = (text.format(**known) for text in _NOTICES[kind])
        html = _sheet(subject, what, P(what), P(then), P(self._sender, style=SOFT))
        return Letter(address, subject, f"{what}\n\n{then}\n\n{self._sender}\n", _lines(html()))


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
