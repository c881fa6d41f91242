"""The record of what happened, for admins: a page and a CSV. Data in, HTML or text out."""

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import urlencode

from fasthtml.common import *

from templates.layout import Still, post, searching
from templates.pages import NOTHING, moment, zone_of
from templates.words import EVENTS, PERIODS, written

PATH = "/admin/audit"
COLUMNS = ("time", "event", "by", "about", "network", "request", "organisation", "detail")


def audit_page(page, caller, tenant=None):
    """Of the whole site, or of one organisation."""
    where, path = asked(page.wanted), f"/admin/organisations/{tenant.id}/audit" if tenant else PATH
    back = P(A(tenant.name, href=path.removesuffix("/audit")), cls="back") if tenant else NOTHING
    rows = [replace(e, organisation="") for e in page.rows] if tenant else page.rows
    return Div(
        back,
        H1("Audit"),
        P(
            "What happened here. Nobody can change it, admins neither.",
            " Where nobody is named, it was the site." if tenant else "",
            cls="soft",
        ),
        filters(page, path),
        Div(
            table(rows, caller) if rows else nothing(page, caller, where, path),
            looked(page, caller) if rows and page.looked_to else NOTHING,
            paging(page, where, path),
            download(where, path),
            id="audit-list",  # what the filters replace
        ),
        id="audit",
    )


def asked(wanted):
    return {"q": wanted.query, "kind": wanted.kind, "days": wanted.period}


def filters(page, path):
    wanted = page.wanted
    kinds = [
        Option("Every event", value=""),
        *[option(k, wanted.kind) for k in sorted(page.kinds, key=name)],
    ]
    periods = [
        Option(words, value=value, selected=value == wanted.period)
        for value, words in PERIODS.items()
    ]
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
        cls="filters",
        **searching(path, "audit-list", "#kind", "#days"),
    )


def option(kind, current):
    return Option(name(kind), value=kind, selected=kind == current)


def name(kind):
    return EVENTS.get(kind, kind)


def table(events, caller):
    names = (f"Time ({zone_of(caller.timezone)})", "Event", "About", "By", "From", "Detail")
    head = Thead(Tr(*[Th(n, scope="col") for n in names]))
    rows = [row(event, caller, names) for event in events]
    return Table(
        Caption("Events, the newest first", cls="vh"), head, Tbody(*rows), cls="list events"
    )


def row(event, caller, names):
    """`names`: of the columns. A page has fifty rows: they are drawn once."""
    by = "themselves" if event.actor and event.actor == event.subject else event.actor
    return row_of(names)(
        at=moment(event.at, caller.timezone, named=False),
        name=name(event.kind),
        kind=event.kind,
        subject=isolated(event.subject),
        by=isolated(by),
        network=event.network,
        detail=detail(event),
    )


@lru_cache
def row_of(names):
    gaps = ("⟦at⟧", Span("⟦name⟧", title="⟦kind⟧"), "⟦subject⟧", "⟦by⟧", "⟦network⟧", "⟦detail⟧")
    return Still(Tr(*[Td(cell, data_label=n) for cell, n in zip(gaps, names, strict=True)]))


def isolated(text):
    return ISOLATED(text=text) if text else ""


ISOLATED = Still(Bdi("⟦text⟧"))


def detail(event):
    """What there is to say besides, and in which organisation."""
    return " · ".join(part for part in (event.organisation, event.detail) if part)


def nothing(page, caller, where, path):
    wanted = page.wanted
    if page.looked_to:
        said = f"Nothing like that since {written(page.looked_to, caller.timezone)}."
        road = A("Look further back", href=older(page, where, path))
    elif not page.newest:
        said = "Nothing like that further back."
        road = A("Back to the newest", href=newest(where, path))
    else:
        said = (
            "Nothing of that kind happened in this time."
            if wanted.query or wanted.kind
            else "Nothing happened in this time."
        )
        road = A("Show all of the last week", href=path)
    return Div(P(said), P(road), cls="empty")


def looked(page, caller):
    """Of a million events only so many are read at once."""
    since = written(page.looked_to, caller.timezone)
    return P(f"All of them since {since}. There may be older ones.", cls="soft")


def newest(where, path):
    return f"{path}?{urlencode(where)}"


def older(page, where, path):
    return f"{path}?{urlencode(where | {'before': page.older})}"


def paging(page, where, path):
    if not page.rows and not page.older:
        return NOTHING  # what there is instead has its own road
    first = A("Newest", href=newest(where, path)) if not page.newest else NOTHING
    on = NOTHING
    if page.older and page.rows:
        words = "Look further back" if page.looked_to else "Older"
        on = A(words, href=older(page, where, path), rel="next")
    if page.newest and on is NOTHING:
        return NOTHING
    return Nav(first, on, cls="pages", aria_label="Pages")


def download(where, path):
    hidden = [Input(type="hidden", name=name, value=value) for name, value in where.items()]
    return Form(*hidden, Button("Download as CSV", cls="plain"), **post(f"{path}.csv"))


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
