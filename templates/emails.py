"""The words of every mail: subject, text, HTML. Nothing that a stranger typed gets in."""

from typing import NamedTuple

from fasthtml.common import *

from templates.layout import Still
from templates.words import duration

SOFT = "color:#5b6270;font-size:14px;line-height:1.5"
FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif"
BOX = f"max-width:26rem;margin:0 auto;padding:24px 16px;{FONT};font-size:16px;line-height:1.5"
DIGITS = "font:700 32px/1.4 ui-monospace,Menlo,Consolas,monospace;letter-spacing:4px;margin:8px 0"

# The code alone on the first line: what a notification shows, and what a screen reader says first.
_TEXT = """\
{code}

is your sign-in code for {app_name}. Type it in the browser that asked for it.
It works once, for {valid_for}.

You did not ask for it? Then ignore this mail: nobody can sign in without the code.
We never ask for it by phone or chat.

{app_name}, {base_url}
"""


class Letter(NamedTuple):
    to: str
    subject: str
    text: str
    html: str


class CodeLetter:
    """The mail with the code, drawn once for an app and filled for each sign-in."""

    def __init__(self, app_name, base_url, code_seconds, in_subject):
        valid_for = duration(code_seconds)
        self._known = {"app_name": app_name, "base_url": base_url, "valid_for": valid_for}
        self._subject = (
            "{code} is your {app_name} sign-in code"
            if in_subject
            else "Your {app_name} sign-in code"
        )
        hidden = (
            "display:none;max-height:0;overflow:hidden"  # what an inbox shows beside the subject
        )
        self._html = Still(
            Html(
                Head(
                    Meta(charset="utf-8"),
                    Meta(name="color-scheme", content="light dark"),
                    Meta(name="supported-color-schemes", content="light dark"),
                    Title(f"Your {app_name} sign-in code"),
                ),
                Body(
                    Div(f"It works once, for {valid_for}.", style=hidden),
                    Div(
                        P("Your sign-in code for ", Strong(app_name)),
                        P("⟦code⟧", style=DIGITS),
                        P(
                            f"Type it in the browser that asked for it. It works once, for {valid_for}."
                        ),
                        P(
                            "You did not ask for it? Then ignore this mail: nobody can sign in without"
                            " the code. We never ask for it by phone or chat.",
                            style=SOFT,
                        ),
                        P(app_name, ", ", base_url, style=SOFT),
                        style=BOX,
                    ),
                ),
                lang="en",
            )
        )

    def __call__(self, address, code):
        known = self._known | {"code": code}
        html = self._html(code=code).replace("><", ">\n<")
        return Letter(address, self._subject.format(**known), _TEXT.format(**known), html)
