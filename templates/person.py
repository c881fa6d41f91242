"""The admin's page of one person. Data in, HTML out."""

from urllib.parse import urlencode

from fasthtml.common import *

from templates.account import device
from templates.admin import bounce_pill, state_pill
from templates.audit import row as event_row
from templates.layout import alert, post
from templates.pages import NOTHING, moment, refused_alert, zone_of
from templates.words import PERSON_DONE, plural, written

MOST_SHOWN = 50  # organisations


def person(page, caller, done="", refused=None, bounces=False):
    user, path = page.user, f"/admin/people/{page.user.id}"
    said = PERSON_DONE.get(done)
    return Div(
        P(A("People", href="/admin"), cls="back"),
        H1(user.name or Bdi(user.address)),
        refused_alert(refused),
        alert("Done.", said.format(address=user.address), kind="ok")
        if said and not refused
        else NOTHING,
        facts(page, caller, bounces),
        H2("Signed in"),
        places(page, caller, path),
        H2("Organisations") if page.memberships else NOTHING,
        organisations(page.memberships) if page.memberships else NOTHING,
        H2("What happened"),
        latest(page, caller),
        NOTHING if user.id == caller.user.id else the_end(path),
        id="person",
    )


def facts(page, caller, bounces):
    user, zone = page.user, caller.timezone
    return Dl(
        Dt("Address"),
        Dd(Bdi(user.address), " ", bounce_pill() if bounces else NOTHING),
        Dt("Role on the site"),
        Dd(Span(user.role, cls="pill")),
        Dt("State"),
        Dd(state_pill(user)),
        Dt("Added"),
        Dd(moment(user.created_at, zone)),
        Dt("Last sign-in"),
        Dd(moment(user.signed_in_at, zone)),
        Dt("Known browsers"),
        Dd(f"{page.browsers:,}" if page.browsers else "none"),
        cls="facts card",
    )


def places(page, caller, path):
    if not page.places:
        return P("Not signed in anywhere.", cls="soft")
    names = ("Device", "Network", "Signed in", "Last used", "Actions")
    head = Thead(Tr(*[Th(name, scope="col") for name in names]))
    rows = [place_row(place, page, caller, path) for place in page.places]
    sure = f"Sign {page.user.address} out everywhere?"
    everywhere = Form(
        Button("Sign out everywhere", cls="plain"),
        P("Ends these, and forgets their browsers and sign-ins that have begun.", cls="hint"),
        **post(f"{path}/sign_out", "#person", hx_swap="outerHTML", hx_confirm=sure),
    )
    caption = Caption("Their sign-ins, the newest use first", cls="vh")
    return Div(Table(caption, head, Tbody(*rows), cls="list"), everywhere)


def place_row(place, page, caller, path):
    zone, what = caller.timezone, device(place)
    end = Form(
        Button(
            "End",
            cls="danger",
            aria_label=f"End the sign-in with {what} of {written(place.created_at, zone)}",
        ),
        **post(f"{path}/sessions/{place.id}/end", "#person", hx_swap="outerHTML"),
    )
    here = place.id == page.here
    return Tr(
        Td(what[0].upper() + what[1:], data_label="Device"),
        Td(place.network or "–", data_label="Network"),
        Td(moment(place.created_at, zone, named=False), data_label="Signed in"),
        Td(moment(place.seen_at, zone, named=False), data_label="Last used"),
        Td(Div(Span("this one", cls="soft") if here else end), cls="acts"),
    )


def organisations(memberships):
    more = len(memberships) - MOST_SHOWN
    rest = P(f"And in {plural(more, 'other')}.", cls="soft") if more > 0 else NOTHING
    head = Thead(Tr(*[Th(name, scope="col") for name in ("Name", "Role there")]))
    rows = [
        Tr(
            Td(A(m.name, href=f"/admin/organisations/{m.tenant}"), data_label="Name"),
            Td(Span(m.role, cls="pill"), data_label="Role there"),
        )
        for m in memberships[:MOST_SHOWN]
    ]
    caption = Caption("Organisations that they are in", cls="vh")
    return Div(Table(caption, head, Tbody(*rows), cls="list"), rest)


def latest(page, caller):
    if not page.events:
        return P("Nothing yet.", cls="soft")
    names = (f"Time ({zone_of(caller.timezone)})", "Event", "About", "By", "From", "Detail")
    head = Thead(Tr(*[Th(n, scope="col") for n in names]))
    rows = [event_row(event, caller, names) for event in page.events]
    caption = Caption("What happened to them, the newest first", cls="vh")
    where = {"q": page.user.address, "days": "all"}
    return Div(
        Table(caption, head, Tbody(*rows), cls="list events"),
        P(A("All of it, in the audit", href=f"/admin/audit?{urlencode(where)}")),
    )


def the_end(path):
    return Div(
        H2("Delete"),
        Form(
            Button("Delete this person", cls="danger"),
            P("With their sign-ins and memberships. We ask once more.", cls="hint"),
            **post(f"{path}/delete"),
        ),
    )


def person_sure(user):
    path = f"/admin/people/{user.id}"
    return Div(
        H1("Delete this person?"),
        P(
            Strong(Bdi(user.address)),
            " goes, with all sign-ins and memberships. This can’t be undone; the same address, added"
            " again, is somebody new.",
        ),
        Form(
            Input(type="hidden", name="sure", value="yes"),
            Button("Delete for good", cls="danger"),
            **post(f"{path}/delete"),
        ),
        Div(P(A("Keep them", href=path, cls="quiet")), cls="roads"),
    )
