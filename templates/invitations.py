"""Invitations: those of an organisation, for who runs it, and one's own. Data in, HTML out."""

from fasthtml.common import *

from templates.admin import role_select
from templates.layout import alert, post
from templates.organisations import PATH, paging
from templates.pages import NOTHING, moment, refused_alert, zone_of
from templates.words import plural

OWN = "/invitations"
_DONE = {
    "sent": "They are invited. We mail them, unless they have had many mails from us today.",
    "again": "Their invitation has its whole time again. We mail them, unless they have had many mails"
    " from us today.",
    "withdrawn": "That invitation is taken back.",
}
_OWN_DONE = {
    "accepted": "You are in, from now on.",
    "declined": "That invitation is declined.",
}


# ---- for who runs an organisation
def invitations_page(page, caller, done="", refused=None):
    path = f"{PATH}/{page.tenant.id}"
    here = f"{path}/invitations"
    said = _DONE.get(done)
    return Div(
        P(A(page.tenant.name, href=path), cls="back"),
        H1("Invitations"),
        NOTHING if in_form(refused) else refused_alert(refused),
        alert("Done.", said, kind="ok") if said and not refused else NOTHING,
        invited_table(page, caller, here) if page.rows else nobody(),
        paging(page, here, {}),
        H2("Invite somebody"),
        invite_form(page, here, refused),
        id="invitations",
    )


def in_form(refused):
    """Is this about what was typed, and not about an invitation in the list?"""
    return bool(refused) and len(refused.facts.get("typed", ())) == 2


def invite_form(page, here, refused):
    email, role = refused.facts["typed"] if in_form(refused) else ("", "user")
    return Form(
        refused_alert(refused) if in_form(refused) else NOTHING,
        Div(
            Label("Address", _for="email"),
            Input(
                id="email",
                name="email",
                type="email",
                value=email[:320],
                autocomplete="off",
                autocapitalize="off",
                spellcheck="false",
                aria_invalid=in_form(refused) and "true",
            ),
        ),
        Div(Label("Role here", _for="role"), role_select(page.roles, role, id="role")),
        Button("Invite"),
        P(
            "They get a mail, sign in with that address, and accept. It is good for 7 days, for that"
            " address only.",
            cls="hint",
        ),
        **post(here, "#invitations", hx_swap="outerHTML", novalidate=True),
        cls="card stack",
    )


def nobody():
    return Div(
        P("Nobody is invited at the moment."),
        P("Whoever has accepted is among the members."),
        cls="empty",
    )


def invited_table(page, caller, here):
    until = f"Good until ({zone_of(caller.timezone)})"
    names = ("Address", "Role here", "State", until, "Invited by")
    head = Thead(Tr(*[Th(name, scope="col") for name in (*names, "Actions")]))
    rows = [invited_row(found, page, caller, here, names) for found in page.rows]
    caption = Caption(f"{plural(page.total, 'invitation')}, the newest first", cls="vh")
    return Table(caption, head, Tbody(*rows), cls="list")


def invited_row(found, page, caller, here, names):
    cells = (
        Bdi(found.address),
        Span(found.role, cls="pill"),
        state_pill(found, page.now),
        moment(found.expires_at, caller.timezone, named=False),
        found.invited_by or "the site",
    )
    shown = [Td(cell, data_label=name) for cell, name in zip(cells, names, strict=True)]
    return Tr(*shown, Td(Div(*acts(found, page, f"{here}/{found.id}")), cls="acts"))


def state_pill(found, now):
    if found.state == "declined":
        return Span("declined", cls="pill bad")
    return Span("open", cls="pill ok") if found.expires_at > now else Span("run out", cls="pill")


def acts(found, page, path):
    """Nothing where somebody has said no: who asks again types the address."""
    if found.state == "declined":
        return []

    def act(name, words, cls, **more):
        button = Button(words, cls=cls, aria_label=f"{words}: {found.address}")
        return Form(button, **post(f"{path}/{name}", "#invitations", hx_swap="outerHTML", **more))

    again = act("again", "Send again", "plain")
    if found.expires_at <= page.now:
        return [again]
    sure = f"Take back the invitation of {found.address}?"
    return [again, act("withdraw", "Take back", "danger", hx_confirm=sure)]


# ---- for who is invited
def own_invitations(invitations, caller, done="", refused=None):
    said = _OWN_DONE.get(done)
    return Div(
        H1("Invitations"),
        refused_alert(refused),
        alert("Done.", said, kind="ok") if said and not refused else NOTHING,
        own_table(invitations, caller) if invitations else NOTHING if said else none_here(),
        P(
            "You are signed in as ",
            Strong(Bdi(caller.address)),
            ". Was another address of yours invited? Then sign out, and sign in with that one.",
            cls="soft",
        ),
        P(A("Go to your dashboard", href="/dashboard", cls="button plain")),
        id="invitations",
    )


def none_here():
    return Div(P("There is no invitation for you at the moment."), cls="empty")


def own_table(invitations, caller):
    until = f"Good until ({zone_of(caller.timezone)})"
    names = ("Organisation", "Your role there", until, "Actions")
    head = Thead(Tr(*[Th(name, scope="col") for name in names]))
    rows = [
        Tr(
            Td(found.organisation, data_label="Organisation"),
            Td(Span(found.role, cls="pill"), data_label="Your role there"),
            Td(moment(found.expires_at, caller.timezone, named=False), data_label=until),
            Td(Div(decide(found, "accept", ""), decide(found, "decline", "plain")), cls="acts"),
        )
        for found in invitations
    ]
    caption = Caption("Organisations that invite you", cls="vh")
    return Table(caption, head, Tbody(*rows), cls="list")


def decide(found, act, cls):
    words = act.capitalize()
    button = Button(words, cls=cls or None, aria_label=f"{words}: {found.organisation}")
    path = f"{OWN}/{found.id}/{act}"
    return Form(button, **post(path, "#invitations", hx_swap="outerHTML"))
