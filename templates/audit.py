"""The record of what happened, for admins: a page and a CSV. Data in, HTML or text out."""

import csv
import io
from datetime import UTC, datetime
from urllib.parse import urlencode

from fasthtml.common import *

from templates.layout import post
from templates.pages import NOTHING, moment, zone_of
from templates.words import EVENTS, PERIODS

PATH = "/admin/audit"
COLUMNS = ("time", "event", "by", "about", "network", "request", "organisation", "detail")


def audit_page(page, caller):
    where = asked(page.wanted)
    return Div(
        H1("Audit"),
        P("What happened here. Nobody can change it, admins neither.", cls="soft"),
        filters(page),
        Div(
            table(page, caller) if page.rows else nothing(page.wanted),
            paging(page, where),
            download(where),
            id="audit-list",  # what the filters replace
        ),
        id="audit",
    )


def asked(wanted):
    return {"q": wanted.query, "kind": wanted.kind, "days": wanted.period}


def filters(page):
    wanted = page.wanted
    kinds = [
        Option("Every event", value=""),
        *[option(k, wanted.kind) for k in sorted(page.kinds, key=name)],
    ]
    periods = [
        Option(words, value=value, selected=value == wanted.period)
        for value, words in PERIODS.items()
    ]
    live = {
        "hx_get": PATH,
        "hx_target": "#audit-list",
        "hx_select": "#audit-list",
        "hx_swap": "outerHTML",
        "hx_trigger": "input changed delay:250ms from:#q, change from:find select, submit",
        "hx_push_url": "true",
    }
    return Form(
        Label("Search addresses", _for="q", cls="vh"),
        Input(
            id="q",
            name="q",
            type="search",
            value=wanted.query,
            placeholder="Address",
            autocomplete="off",
        ),
        Label("Event", _for="kind", cls="vh"),
        Select(*kinds, id="kind", name="kind"),
        Label("Period", _for="days", cls="vh"),
        Select(*periods, id="days", name="days"),
        Button("Search", cls="plain"),
        method="get",
        action=PATH,
        enctype=None,
        role="search",
        cls="filters",
        **live,
    )


def option(kind, current):
    return Option(name(kind), value=kind, selected=kind == current)


def name(kind):
    return EVENTS.get(kind, kind)


def table(page, caller):
    names = (f"Time ({zone_of(caller.timezone)})", "Event", "About", "By", "From", "Detail")
    head = Thead(Tr(*[Th(n, scope="col") for n in names]))
    rows = [row(event, caller, names) for event in page.rows]
    return Table(
        Caption("Events, the newest first", cls="vh"), head, Tbody(*rows), cls="list events"
    )


def row(event, caller, names):
    by = "themselves" if event.actor and event.actor == event.subject else event.actor
    cells = (
        moment(event.at, caller.timezone, named=False),
        Span(name(event.kind), title=event.kind),
        Bdi(event.subject) if event.subject else "",
        Bdi(by) if by else "",
        event.network,
        detail(event),
    )
    return Tr(*[Td(cell, data_label=label) for cell, label in zip(cells, names, strict=True)])


def detail(event):
    """What there is to say besides, and in which organisation."""
    return " · ".join(part for part in (event.organisation, event.detail) if part)


def nothing(wanted):
    said = (
        "Nothing of that kind happened in this time."
        if wanted.query or wanted.kind
        else ("Nothing happened in this time.")
    )
    return Div(P(said), P(A("Show all of the last week", href=PATH)), cls="empty")


def paging(page, where):
    first = A("Newest", href=f"{PATH}?{urlencode(where)}") if not page.newest else NOTHING
    older = NOTHING
    if page.older:
        older = A("Older", href=f"{PATH}?{urlencode(where | {'before': page.older})}", rel="next")
    if page.newest and not page.older:
        return NOTHING
    return Nav(first, older, cls="pages", aria_label="Pages")


def download(where):
    hidden = [Input(type="hidden", name=name, value=value) for name, value in where.items()]
    return Form(*hidden, Button("Download as CSV", cls="plain"), **post(f"{PATH}.csv"))


# ---- CSV
def audit_csv(rows):
    """Lines of these events; the names of the columns for None."""
    out = io.StringIO()
    writer = csv.writer(out)  # RFC 4180: CRLF, quotes where they are needed
    if rows is None:
        writer.writerow(COLUMNS)
    for event in rows or ():
        when = f"{datetime.fromtimestamp(event.at, UTC):%Y-%m-%dT%H:%M:%SZ}"
        told = (
            event.kind,
            event.actor,
            event.subject,
            event.network,
            event.request_id,
            event.organisation,
            event.detail,
        )
        writer.writerow([when, *map(harmless, told)])
    return out.getvalue()


def harmless(text):
    """A spreadsheet runs what looks like a formula; behind an apostrophe it is text (OWASP: CSV injection)."""
    return (
        f"'{text}"
        if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠") and text
        else text
    )
