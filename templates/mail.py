"""The admin's page about mail: how it is doing, what waits, and what may be done. Data in, HTML out.

No code, link or subject gets here, and addresses come masked.
"""

from urllib.parse import urlencode

from fasthtml.common import *

from templates.layout import alert, post
from templates.pages import NOTHING, moment
from templates.words import MAIL_DONE, MAIL_KINDS, MAIL_STATES, clock, duration, plural, zone_of

PATH = "/admin/mail"
LOOK_SECONDS = 4  # how often the page looks for news while something waits
PILLS = {"accepted": "ok", "expired": "bad", "dead": "bad"}


def mail_page(page, caller, done=""):
    """The whole page; `done` names what an admin has just done."""
    return Div(
        H1("Mail"),
        said(MAIL_DONE[done]) if done in MAIL_DONE else NOTHING,
        live(page, caller),
        id="mail-page",
    )


def said(words):
    kind, lead, rest = words
    return alert(lead, rest, kind=kind)


def live(page, caller):
    """What changes by itself. Drawn anew only when there is news, so that nothing moves under a hand."""
    return Div(
        health(page),
        tiles(page),
        counted(page),
        H2(heading(page.state), cls="vh"),
        letters(page, caller) if page.rows else nothing(page.state),
        paging(page) if page.pages > 1 else NOTHING,
        P(
            "Mails are kept for a week. Addresses are shown in part; what is in a mail, never.",
            cls="soft",
        ),
        news(page) if page.waiting else NOTHING,
        id="mail-live",
    )


def news(page):
    where = {"state": page.state, "page": page.page, "seen": page.mark}
    return Div(
        Noscript(P("Reload the page to see what has left since.", cls="soft")),
        hx_get=f"{PATH}?{urlencode(where)}",
        hx_trigger=f"every {LOOK_SECONDS}s",
        hx_target="#mail-live",
        hx_select="#mail-live",
        hx_swap="outerHTML",
    )


# ---- how mail is doing
def health(page):
    """One sentence, and the one switch."""
    kind, lead, rest = state_of(page)
    return Div(P(Strong(lead), " ", rest), switch(page), cls=f"alert health {kind}".strip())


def state_of(page):
    """(kind of alert, what is the matter, and what that means)."""
    waiting = waiting_for(page)
    if page.paused:
        return (
            "note",
            "Mail is paused by an admin.",
            f"{waiting} Nothing leaves until it is resumed.",
        )
    if not page.workers:
        return "", "No process sends mail.", f"{waiting} Start the app, or look at its log."
    if page.held:
        words = f"The provider says: “{page.held}”."
        return "", "Mail is held up.", f"{words} {waiting} We try again by ourselves."
    if page.waiting:
        return "note" if page.oldest_minutes else "ok", waiting, ""
    return "ok", "All is well.", waiting


def waiting_for(page):
    if not page.waiting:
        return "Nothing is waiting."
    since = duration(60 * page.oldest_minutes) if page.oldest_minutes else "less than a minute"
    if page.waiting == 1:
        return f"1 mail is waiting, for {since}."
    return f"{page.waiting:,} mails are waiting, the oldest for {since}."


def switch(page):
    if page.paused:
        button = Button("Resume mail", id="mail-switch")
        return Form(*place(page), button, **form(f"{PATH}/resume"))
    button = Button("Pause mail", cls="plain", id="mail-switch")
    return Form(*place(page), button, **form(f"{PATH}/pause", hx_confirm=sentence(PAUSING)))


# ---- how many
def tiles(page):
    """The counts, each with what it means; a click shows these mails alone."""
    tiles = [tile(page, state) for state in MAIL_STATES]
    return Nav(*tiles, cls="tiles six", aria_label="Mails by state")


def tile(page, state):
    _, many, means = MAIL_STATES[state]
    here = page.state == state
    return A(
        Strong(f"{page.counts[state]:,}"),
        Span(many),
        Small(means),
        href=PATH if here else f"{PATH}?state={state}",
        id=f"mail-{state}",
        cls="tile",
        aria_current=here and "true",
    )


def counted(page):
    """When there may be more than the figures say."""
    words = f"All that wait are counted, and the newest {page.counted:,} of the others."
    return P(words, cls="soft counted") if page.counted else NOTHING


# ---- the list
def heading(state):
    return f"Mails that are {MAIL_STATES[state][1]}" if state else "All mails"


def letters(page, caller):
    head = [when(caller), "Mail", "State", "Last reply", "Actions"]
    rows = [letter(row, page, caller) for row in page.rows]
    caption = f"{heading(page.state)}, newest first"
    shown = P(Strong(heading(page.state)), " · ", A("Show all mails", href=PATH), cls="soft")
    return (
        shown if page.state else NOTHING,
        Table(
            Caption(caption, cls="vh"),
            Thead(Tr(*[Th(name, scope="col") for name in head])),
            Tbody(*rows),
            cls="list letters",
        ),
    )


def when(caller):
    """Names the zone once, and not in each row."""
    return f"Time ({zone_of(caller.timezone)})"


def letter(row, page, caller):
    state, *_ = MAIL_STATES.get(row.state, (row.state,))
    return Tr(
        Td(moment(row.created_at, caller.timezone, named=False), data_label=when(caller)),
        Td(Strong(kind(row)), " ", to(row), data_label="Mail"),
        Td(
            Span(state, cls=f"pill {PILLS.get(row.state, '')}".strip()),
            tried(row, caller),
            data_label="State",
        ),
        Td(row.reply or "–", data_label="Last reply"),
        Td(Div(*acts(row, page)), cls="acts") if row.may_retry or row.may_drop else Td(),
    )


def kind(row):
    return MAIL_KINDS.get(row.kind, row.kind.replace("_", " ").capitalize())


def to(row):
    """To whom; and whether mail to them is held back."""
    pill = Span("mail bounces", cls="pill bad") if row.bounces else NOTHING
    return Span(Bdi(row.to or "–"), " ", pill, cls="to")


def tried(row, caller):
    """How often, and when again."""
    if row.state == "void":
        return NOTHING
    times = plural(row.tries, "try", "tries") if row.tries else "not tried yet"
    if row.next_at is None:
        return Span(times, cls="tried")
    return Span(times, Br(), "next ", clock(row.next_at, caller.timezone), cls="tried")


def acts(row, page):
    whom = f"the mail to {row.to}" if row.to else "this mail"
    again = Button("Retry", cls="plain", id=f"retry-{row.id}", aria_label=f"Retry {whom}")
    if row.late:
        again = Button("Allow mail", cls="plain", aria_label=f"Allow mail to {row.to} again")
    drop = Button("Drop", cls="danger", id=f"drop-{row.id}", aria_label=f"Drop {whom}")
    path = f"{PATH}/{row.id}"
    if row.may_retry:
        yield Form(*place(page), again, **form(f"{path}/retry"))
    if row.may_drop:
        yield Form(*place(page), drop, **form(f"{path}/drop", hx_confirm=sentence(dropping(row))))


def place(page):
    """Where in the list to come back to."""
    return hidden({"state": page.state, "page": page.page})


def hidden(values):
    return [Input(type="hidden", name=name, value=value) for name, value in values.items()]


def form(path, **more):
    return post(path, "#mail-page", hx_swap="outerHTML", **more)


def nothing(state):
    if state:
        road = P(A("Show all mails", href=PATH))
        return Div(P(f"There are no {heading(state).lower()}."), road, cls="empty")
    return Div(
        P(Strong("No mail yet")),
        P("When somebody asks for a code, it is here by the next time you look."),
        cls="empty",
    )


def paging(page):
    def to(number):
        return f"{PATH}?" + urlencode({"state": page.state, "page": number})

    back = A("Newer", href=to(page.page - 1), rel="prev") if page.page > 1 else NOTHING
    on = A("Older", href=to(page.page + 1), rel="next") if page.page < page.pages else NOTHING
    where = f"Page {page.page:,} of {page.pages:,}"
    if page.page == page.pages and page.older:
        many = f"{'At least ' if page.counted else ''}{page.older:,}"
        where += f". {many} older ones are not listed."
    return Nav(back, Span(where), on, cls="pages", aria_label="Pages")


# ---- asking first: (question, what follows, yes, no)
PAUSING = (
    "Pause all mail?",
    "Nobody gets a code until you resume it. What people ask for meanwhile waits, and is sent then if it"
    " is not too late.",
    "Pause mail",
    "Let it go on",
)


def dropping(row):
    whom = f" to {row.to}" if row.to else ""
    again = " Whoever waits for it has to ask for a new one." if row.kind == "code" else ""
    return (
        f"Drop this mail{whom}?",
        f"{kind(row)}: it will not be sent.{again}",
        "Drop it",
        "Keep it",
    )


def sentence(words):
    return f"{words[0]} {words[1]}"


def mail_sure(action, row, place, caller):
    """The question as a page, for browsers without scripts."""
    question, follows, yes, no = dropping(row) if row else PAUSING
    asked = (" Asked for on ", moment(row.created_at, caller.timezone), ".") if row else NOTHING
    return (
        H1(question),
        P(follows, *asked),
        Form(
            *hidden({**place, "sure": "yes"}),
            Button(yes, cls="danger"),
            **post(action),
        ),
        Div(P(A(no, href=f"{PATH}?{urlencode(place)}")), cls="roads"),
    )
