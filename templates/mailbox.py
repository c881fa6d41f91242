"""The developer's mailbox: the mails of this run, and one of them from all sides. Data in, HTML out."""

import re
from datetime import UTC, datetime
from email.utils import formataddr

from fasthtml.common import *

from templates.layout import draw

PATH = "/dev/mailbox"
LOOK_SECONDS = 2  # how often the list asks for news
# How templates/emails.py writes them: alone on their line.
_CODE = re.compile(r"^[0-9]{6,10}$", re.MULTILINE)
_LINK = re.compile(r"^https?://\S+$", re.MULTILINE)
# Under it a link of the mail leaves the frame, as it leaves a mail program.
_BASE = '<base target="_blank">'


def road():
    """The note on the pages of signing in. One tab for the mailbox, however often it is opened."""
    mailbox = A("mailbox", href=PATH, target="mailbox")
    words = ("Development: read your mail in the ", mailbox, ", or in the terminal.")
    return Safe(to_xml(words, indent=False))


class MailboxPages:
    """The pages, in the frame of one app. A message has `id`, `sent_at`, `sender`, `letter`, `as_bytes()`."""

    def __init__(self, layout):
        self._layout = layout

    def inbox(self, messages):
        return self._layout.page(
            "Mailbox",
            H1("Mailbox"),
            P(
                "What this app has sent since it started, newest first. For development: it is kept in"
                " memory only, and not there in production.",
                cls="soft",
            ),
            P(id="news", cls="vh", role="status"),
            mails(messages),
            Noscript(P("Reload the page to see new mail.", cls="hint")),
        )

    def news(self, messages):
        """The list anew, and one line of it to be read out."""
        letter = messages[0].letter if messages else None
        said = f"New mail to {letter.to}: {letter.subject}" if letter else ""
        return draw((mails(messages, scripted=True), P(said, id="news", hx_swap_oob="innerHTML")))

    def mail(self, message):
        letter, sender = message.letter, message.sender
        return self._layout.page(
            letter.subject,
            P(A("All mails", href=PATH), cls="back"),
            H1(letter.subject),
            Div(
                Dl(
                    Dt("From"),
                    Dd(Bdi(formataddr((sender.name, sender.address)))),
                    Dt("To"),
                    Dd(Bdi(letter.to)),
                    Dt("Sent"),
                    Dd(moment(message.sent_at, "%-d %b %Y, %H:%M:%S %Z")),
                    cls="facts",
                ),
                keys(message),
                cls="card",
            ),
            seen(message) if letter.html else "",
            H2("As text"),
            Pre(
                letter.text.strip(),
                cls="paper",
                tabindex="0",
                role="region",
                aria_label="Text of the mail",
            ),
            Details(
                Summary("Headers and source"),
                Pre(
                    source(message),
                    cls="paper",
                    tabindex="0",
                    role="region",
                    aria_label="Source of the mail",
                ),
            ),
        )

    def frame(self, message):
        """The HTML part by itself, as it was sent but for where its links open."""
        return re.sub(r"<head(\s[^>]*)?>", rf"\g<0>{_BASE}", message.letter.html, count=1)

    def gone(self):
        return self._layout.page(
            "Mailbox",
            H1("That mail is gone"),
            P("The mailbox keeps the last 50 mails, and forgets them when the app starts again."),
            P(A("All mails", href=PATH, cls="button")),
            width="door",
        )


def mails(messages, scripted=False):
    """The list; it asks for news by itself, and is drawn anew only when there are some."""
    newest = messages[0].id if messages else ""
    return Div(
        *([row(message, scripted) for message in messages] or [nothing_yet()]),
        id="mails",
        hx_get=f"{PATH}?seen={newest}",
        hx_trigger=f"every {LOOK_SECONDS}s",
        hx_swap="outerHTML",
    )


def nothing_yet():
    return Div(
        P(Strong("No mail yet")),
        P(
            A("Ask for a code", href="/login", target="_blank"),
            ", and it appears here by itself. Only addresses that may sign in get mail;"
            " admin@example.com does in a fresh clone.",
        ),
        cls="empty",
    )


def row(message, scripted):
    letter = message.letter
    return Article(
        Div(
            H2(A(letter.subject, href=f"{PATH}/{message.id}", id=f"m-{message.id}")),
            P(
                "to ",
                Bdi(letter.to),
                " · ",
                moment(message.sent_at, "%H:%M:%S"),
                cls="soft",
            ),
        ),
        keys(message, scripted),
        cls="mail",
    )


def keys(message, scripted=False):
    """What opens the door: the code, to be copied, and the link, to be clicked."""
    text, name = message.letter.text, f"code-{message.id}"
    code, link = _CODE.search(text), _LINK.search(text)
    found = []
    if code:
        found += [
            Span(code[0], cls="shown", id=name, dir="ltr", translate="no"),
            Button(
                "Copy",
                type="button",
                cls="plain",
                id=f"copy-{message.id}",
                hidden=not scripted,  # then app.js looks for a clipboard, and shows it
                aria_describedby=name,
                data_copy=code[0],
                data_copied="Copied",
            ),
        ]
    if link:
        found += [A("Open the link", href=link[0], target="_blank", id=f"link-{message.id}")]
    return Div(*found, cls="keys") if found else ""


def seen(message):
    """The HTML part, a stranger to this page: no script, no cookies, and its links open outside."""
    frame = Iframe(
        src=f"{PATH}/{message.id}/html",
        title="The mail",
        sandbox="allow-popups allow-popups-to-escape-sandbox",
        cls="paper",
    )
    return H2("As people see it"), frame


def source(message):
    try:
        return message.as_bytes().decode("ascii").replace("\r\n", "\n")
    except ValueError as error:
        return f"This mail could not be sent: {error}."


def moment(at, form):
    """A time as the clock of this machine shows it, which is the developer's."""
    local = datetime.fromtimestamp(at, UTC).astimezone()
    return Time(local.strftime(form), datetime=local.isoformat(timespec="seconds"))
