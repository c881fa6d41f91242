"""One's own account: who one is here, where one is signed in, what one may do about it. Data in, HTML out."""

from functools import cache
from zoneinfo import available_timezones

from fasthtml.common import *

from templates.layout import Safe, alert, post
from templates.pages import NOTHING, moment, refused_alert
from templates.words import ACCOUNT_DONE, written

PATH = "/account"


def account(own, caller, done="", refused=None):
    said = ACCOUNT_DONE.get(done)
    return Div(
        H1("Account"),
        refused_alert(refused),
        alert("Done.", said, kind="ok") if said and not refused else NOTHING,
        Dl(
            Dt("Address"),
            Dd(Bdi(own.user.address)),
            Dt("Role"),
            Dd(own.user.role),
            *here(caller),
            Dt("Here since"),
            Dd(moment(own.user.activated_at, own.user.timezone)),
            cls="facts card",
        ),
        H2("Name and time zone"),
        about(own.user),
        H2("Where you are signed in"),
        places(own),
        H2("Organisations") if own.memberships else NOTHING,
        organisations(own.memberships, caller) if own.memberships else NOTHING,
        H2("Your data"),
        data(),
        id="account",
    )


def here(caller):
    """Where one works, when one does."""
    if not caller.tenant:
        return ()
    return Dt("Works in"), Dd(f"{caller.tenant_name}, as {caller.role}")


def about(user):
    return Form(
        Label("Name", _for="name"),
        Input(id="name", name="name", value=user.name, autocomplete="name"),
        P("Admins see it in their list.", cls="hint"),
        Label("Time zone", _for="zone"),
        zones(user.timezone),
        P("Mails and pages tell the time in it.", cls="hint"),
        Button("Save"),
        **post(f"{PATH}/name", "#account", hx_swap="outerHTML"),
        cls="card stack",
    )


def zones(current):
    chosen, drawn = f'<option value="{current}"', _zones()
    if chosen not in drawn:  # an old name of one, from a browser
        drawn = drawn.replace("<option", f"{chosen}>{current}</option><option", 1)
    return Safe(drawn.replace(f"{chosen}>", f"{chosen} selected>"))


@cache
def _zones():
    """Every zone that has a city, and UTC: what browsers offer."""
    names = sorted(name for name in available_timezones() if "/" in name and name[0].isupper())
    names = [name for name in names if not name.startswith(("Etc/", "SystemV/", "US/"))]
    options = [Option(name, value=name) for name in ["UTC", *names]]
    return to_xml(Select(*options, id="zone", name="zone"), indent=False)


def places(own):
    names = ("Device", "Network", "Signed in", "Last used", "Actions")
    head = Thead(Tr(*[Th(name, scope="col") for name in names]))
    rows = [place_row(place, own) for place in own.places]
    caption = Caption("Your sign-ins, the newest use first", cls="vh")
    others = Form(
        Button("End all others", cls="plain"),
        P("Browsers and apps that you do not know? End them, all but this one.", cls="hint"),
        **post(f"{PATH}/sessions/end_others", "#account", hx_swap="outerHTML"),
    )
    return Div(
        Table(caption, head, Tbody(*rows), cls="list"),
        others if len(own.places) > 1 else NOTHING,
    )


def device(place):
    """What somebody is signed in with, in words."""
    return place.kind or ("an app" if place.app else "an unknown browser")


def place_row(place, own):
    zone = own.user.timezone
    what = device(place)
    here = place.id == own.here
    path = f"{PATH}/sessions/{place.id}/end"
    end = Form(
        Button(
            "End",
            cls="danger",
            aria_label=f"End the sign-in with {what} of {written(place.created_at, zone)}",
        ),
        **post(path, "#account", hx_swap="outerHTML"),
    )
    return Tr(
        Td(what[0].upper() + what[1:], data_label="Device"),
        Td(place.network or "–", data_label="Network"),
        Td(moment(place.created_at, zone, named=False), data_label="Signed in"),
        Td(moment(place.seen_at, zone, named=False), data_label="Last used"),
        Td(Div(Span("this one", cls="soft") if here else end), cls="acts"),
    )


def organisations(memberships, caller):
    """Those that one is in. Who works in one, and is in several, may change to another."""
    names = ("Name", "Your role", "Actions")
    head = Thead(Tr(*[Th(name, scope="col") for name in names]))
    rows = [
        Tr(
            Td(m.name, data_label="Name"),
            Td(Span(m.role, cls="pill"), data_label="Your role"),
            Td(Div(work_form(m, caller), leave_form(m)), cls="acts"),
        )
        for m in memberships
    ]
    return Table(Caption("Organisations that you are in", cls="vh"), head, Tbody(*rows), cls="list")


def work_form(membership, caller):
    there = membership.tenant == caller.tenant
    words = "Work in none" if there else "Work here"
    return Form(
        Input(type="hidden", name="tenant", value="" if there else membership.tenant),
        Button(words, cls="plain", aria_label=f"{words}: {membership.name}"),
        **post(f"{PATH}/tenant", "#account", hx_swap="outerHTML"),
    )


def leave_form(membership):
    sure = f"Leave {membership.name}? Only its admins can let you in again."
    return Form(
        Input(type="hidden", name="tenant", value=membership.tenant),
        Button("Leave", cls="danger", aria_label=f"Leave {membership.name}"),
        **post(f"{PATH}/leave", "#account", hx_swap="outerHTML", hx_confirm=sure),
    )


def data():
    """Both ask for a fresh code first."""
    return Div(
        Form(
            Button("Download my data", cls="plain"),
            P("What is kept of you here, as a JSON file.", cls="hint"),
            **post(f"{PATH}/data"),
        ),
        Form(
            Button("Delete my account", cls="danger"),
            P("Your account, sign-ins and memberships, for good. We ask once more.", cls="hint"),
            **post(f"{PATH}/delete"),
        ),
        cls="card stack",
    )


def delete_sure(caller):
    return (
        H1("Delete your account?"),
        P(
            Strong(Bdi(caller.address)),
            " is deleted with its sign-ins and memberships. This can’t be undone. The record of what"
            " happened here stays with the admins.",
        ),
        Form(
            Input(type="hidden", name="sure", value="yes"),
            Button("Delete it for good", cls="danger"),
            **post(f"{PATH}/delete"),
        ),
        Div(P(A("Keep my account", href=PATH, cls="quiet")), cls="roads"),
    )


def confirm(address, next_path):
    return (
        H1("Is it you?"),
        P(
            "Before we do that, we send a code to ",
            Strong(Bdi(address)),
            ". Enter it, and go on where you were. For 15 minutes we do not ask again.",
        ),
        Form(
            Input(type="hidden", name="email", value=address),
            Input(type="hidden", name="next", value=next_path),
            Button("Send me a code"),
            **post("/create_code", "#door"),
        ),
        Div(P(A("Go back", href=next_path, cls="quiet")), cls="roads"),
    )
