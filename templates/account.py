"""One's own account: who one is here, where one is signed in, what one may do about it. Data in, HTML out."""

from functools import cache
from zoneinfo import available_timezones

from fasthtml.common import *

from templates.layout import Safe, alert, post
from templates.pages import NOTHING, moment, paste_hint, refused_alert
from templates.words import ACCOUNT_DONE, duration, written

PATH = "/account"


def account(own, caller, done="", refused=None, place="", typed=""):
    """`place`: which form was refused, when it is about another address (`typed`) or its code."""
    said = ACCOUNT_DONE.get(done)
    return Div(
        H1("Account"),
        NOTHING if place else refused_alert(refused),
        alert("Done.", said, kind="ok") if said and not refused else NOTHING,
        Dl(
            Dt("Address"),
            Dd(Bdi(own.user.address)),
            Dt("Role on the site"),
            Dd(own.user.role),
            *here(caller),
            Dt("Here since"),
            Dd(moment(own.user.activated_at, own.user.timezone)),
            cls="facts card",
        ),
        H2("Name and time zone"),
        about(own.user),
        H2("Email address"),
        address(own, done == "asked", refused if place else None, place, typed),
        H2("Where you are signed in"),
        places(own),
        H2("Organisations"),
        organisations(own.memberships, caller)
        if own.memberships
        else P("You are in none.", cls="soft"),
        P(A("Your invitations", href="/invitations")),
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


def address(own, asked, refused, place, typed):
    """Another one: which, and then the code that was mailed there."""
    said = Div(refused_alert(refused), id="address-error", aria_live="polite")
    inside = code_form if own.moving and place != "address" else address_form
    return Div(*inside(own, said, asked, refused, typed), id="address", cls="card")


def address_form(own, said, asked, refused, typed):
    return (
        P("We write to ", Strong(Bdi(own.user.address)), ", and you sign in with it."),
        said,
        ask_form(typed, refused, Button("Send the code", id="address-btn")),
    )


def ask_form(typed, refused, button):
    return Form(
        Label("New email address", _for="email"),
        Input(
            id="email",
            name="email",
            type="email",
            value=typed[:320],
            autocomplete="email",
            inputmode="email",
            autocapitalize="off",
            autocorrect="off",
            spellcheck="false",
            aria_describedby="address-error address-hint",
            aria_invalid="true" if refused else None,
        ),
        P(
            "We send a code there. Until you enter it, nothing changes.",
            cls="hint",
            id="address-hint",
        ),
        button,
        **_smooth("address"),
    )


def code_form(own, said, asked, refused, typed):
    pending, new = own.moving, own.moving.address
    size, kind = pending.code_length, "letters and digits" if pending.link_only else "digits"
    again = Button("Send a code", cls="plain", id="address-btn")
    return (
        P(
            "If we can send mail for you to ",
            Strong(Bdi(new)),
            f", a code of {size} {kind} is on its way there. It works for"
            f" {duration(pending.code_seconds)}, once, and only here.",
            id="address-sent",
        ),
        said,
        Form(
            Label(f"Code from the email, {size} {kind}", _for="code"),
            code_field(pending, asked, refused),
            P(
                "Everywhere else you are signed out then. Your old address gets a link that takes it"
                " back, good for a week.",
                cls="hint",
            ),
            Button("Change my address", id="code-btn"),
            **_smooth("code", f"{PATH}/address/code"),
        ),
        Div(
            Details(
                Summary("Nothing arrived, or another address?"),
                P("Look into the spam folder. Is the address right, and is it nobody else’s here?"),
                ask_form(new, None, again),
            ),
            cls="roads",
        ),
    )


def code_field(pending, asked, refused):
    long = pending.link_only
    paste = {} if long else {"data_paste_submit": True, "data_digits": str(pending.code_length)}
    return Input(
        id="code",
        name="code",
        type="text",
        dir="ltr",
        cls="code long" if long else "code",
        inputmode="text" if long else "numeric",
        autocomplete="one-time-code",
        autocapitalize="characters" if long else "off",
        autocorrect="off",
        spellcheck="false",
        aria_describedby="address-sent address-error",
        aria_invalid="true" if refused else None,
        autofocus=asked and not refused,
        **paste,
    )


def _smooth(name, path=f"{PATH}/address"):
    """One of the two forms; its button sends once."""
    more = {"hx_swap": "outerHTML", "hx_disabled_elt": f"#{name}-btn", "novalidate": True}
    return post(path, "#account", id=f"{name}_form", cls="stack", **more)


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
    """We ask once more."""
    return Form(
        Input(type="hidden", name="tenant", value=membership.tenant),
        Button("Leave", cls="danger", aria_label=f"Leave {membership.name}"),
        **post(f"{PATH}/leave"),
    )


def leave_sure(membership):
    return (
        H1("Leave this organisation?"),
        P("You are in ", Strong(membership.name), ". Only its admins can let you in again."),
        Form(
            Input(type="hidden", name="tenant", value=membership.tenant),
            Input(type="hidden", name="sure", value="yes"),
            Button("Leave it", cls="danger"),
            **post(f"{PATH}/leave"),
        ),
        Div(P(A("Stay", href=PATH, cls="quiet")), cls="roads"),
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


def undo(refused=None):
    """Where the link leads that the old address gets: what the button will do."""
    return (
        H1("Undo the change of your address"),
        P(
            "The button gives your account the address back that it had before, and signs it out in"
            " every browser and app. Changes after that one are undone with it.",
            id="what",
            cls="soft",
        ),
        Div(refused_alert(refused), id="code-error", aria_live="polite"),
        Form(
            # As on the page of a sign-in's link: app.js moves what stands behind the # here.
            Div(
                Label("The link from the email", _for="token"),
                Input(
                    id="token",
                    name="token",
                    type="text",
                    dir="ltr",
                    autocomplete="off",
                    autocapitalize="off",
                    autocorrect="off",
                    spellcheck="false",
                    aria_describedby="what paste code-error",
                    data_fragment=True,
                ),
                paste_hint(),
            ),
            Button("Undo the change", id="undo-btn"),
            **post(
                "/undo_address",
                "#door",
                id="undo_form",
                novalidate=True,
                hx_disabled_elt="#undo-btn",
            ),
        ),
        Div(P(A("Leave it as it is", href="/", cls="quiet")), cls="roads"),
    )


def undone(address):
    """`address` is masked."""
    return (
        H1("It is undone"),
        P("Your account has the address ", Strong(Bdi(address)), " again."),
        P(
            "It is signed out in every browser and app. If somebody else changed it, they have read"
            " your mail or used your browser: change the password of your mailbox first, then sign in.",
            cls="soft",
        ),
        P(A("Sign in", href="/login", cls="button")),
    )


def confirm(address, next_path):
    return (
        H1("Is it you?"),
        P(
            "Nothing has changed yet. We send a code to ",
            Strong(Bdi(address)),
            ". Enter it, then do it once more. For 15 minutes we do not ask again.",
        ),
        Form(
            Input(type="hidden", name="email", value=address),
            Input(type="hidden", name="next", value=next_path),
            Button("Send me a code"),
            **post("/create_code", "#door"),
        ),
        Div(P(A("Go back", href=next_path, cls="quiet")), cls="roads"),
    )
