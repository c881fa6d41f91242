"""The pages inside one organisation, for its own admins and those of the site. Data in, HTML out."""

from dataclasses import replace
from urllib.parse import urlencode

from fasthtml.common import *

from templates.admin import role_select
from templates.audit import row as event_row
from templates.layout import post, searching, tiles_of
from templates.organisations import PATH, paging, said
from templates.pages import NOTHING, moment, refused_alert, zone_of
from templates.words import SORTS, plural


def tenant_page(page, caller, done="", refused=None):
    path = f"{PATH}/{page.tenant.id}"
    return Div(
        P(A("Organisations", href=PATH), cls="back") if caller.is_admin else NOTHING,
        H1(page.tenant.name),
        NOTHING if in_join(refused) else refused_alert(refused),
        NOTHING if refused else said(done),
        tiles(page.figures),
        Div(
            search_form(page, path),
            Div(
                A("Invite somebody", href=f"{path}/invitations", cls="button"),
                A("Audit", href=f"{path}/audit", cls="button plain"),
                cls="keys",
            ),
            cls="tools",
        ),
        Div(
            members_table(page, caller, path) if page.rows else nobody(page, path),
            paging(page, path, {"q": page.query, "sort": page.sort}),
            id="members-list",  # what the search replaces
        ),
        join(page, path, refused) if caller.is_admin else NOTHING,
        H2("Name"),
        Form(
            Label("Name of the organisation", _for="name", cls="vh"),
            Input(id="name", name="name", value=page.tenant.name, autocomplete="off"),
            Button("Rename", cls="plain"),
            **post(f"{path}/name", "#tenant", hx_swap="outerHTML"),
            cls="row",
        ),
        the_end(path) if caller.is_admin else NOTHING,
        id="tenant",
    )


def tiles(figures):
    shown = (
        (figures["members"], "member" if figures["members"] == 1 else "members"),
        (figures["recent"], "signed in this week"),
        (figures["invited"], "open invitation" if figures["invited"] == 1 else "open invitations"),
    )
    return tiles_of(shown)


def search_form(page, path):
    field = {"id": "q", "name": "q", "type": "search", "value": page.query}
    sorts = [Option(words, value=s, selected=s == page.sort) for s, words in SORTS.items()]
    return Form(
        Label("Search members", _for="q", cls="vh"),
        Input(**field, placeholder="Name or address", autocomplete="off"),
        Label("Sorted", _for="sort", cls="vh"),
        Select(*sorts, id="sort", name="sort"),
        Button("Search", cls="plain"),
        **searching(path, "members-list", "#sort"),
    )


def members_table(page, caller, path):
    since = f"Since ({zone_of(caller.timezone)})"
    names = ("Address", "Name", "Role here", since)
    head = Thead(Tr(*[Th(name, scope="col") for name in names]))
    rows = [
        Tr(
            Td(Bdi(A(member.address, href=f"{path}/people/{member.user_id}")), data_label=names[0]),
            Td(member.name or "–", data_label=names[1]),
            Td(Span(member.role, cls="pill"), " ", state(member), data_label=names[2]),
            Td(moment(member.created_at, caller.timezone, named=False), data_label=since),
        )
        for member in page.rows
    ]
    caption = Caption(f"{plural(page.total, 'member')}, {SORTS[page.sort].lower()}", cls="vh")
    return Table(caption, head, Tbody(*rows), cls="list")


def state(member):
    """Whoever can't sign in at all is no use to an organisation, and it should know."""
    return Span("disabled", cls="pill bad") if member.disabled_at is not None else NOTHING


def nobody(page, path):
    words = (
        f"No member’s name or address holds “{page.query}”." if page.query else "Nobody is in it."
    )
    return Div(P(words), P(A("Show all members", href=path)), cls="empty")


def in_join(refused):
    """Is this about what was typed into "Add somebody"?"""
    return bool(refused) and len(refused.facts.get("typed", ())) == 2


def join(page, path, refused):
    """Without an invitation: for who sees all people anyway."""
    here = in_join(refused)
    email, role = refused.facts["typed"] if here else ("", "user")
    form = Form(
        refused_alert(refused) if here else NOTHING,
        Div(
            Label("Address", _for="email"),
            Input(id="email", name="email", type="email", value=email[:320], autocomplete="off"),
        ),
        Div(Label("Role here", _for="role"), role_select(page.roles, role, id="role")),
        Button("Add"),
        P(
            "Only people who are here already, at once and without a mail. Others: invite them.",
            cls="hint",
        ),
        **post(f"{path}/members", "#tenant", hx_swap="outerHTML", novalidate=True),
        cls="card stack",
    )
    return H2("Add somebody"), form


def the_end(path):
    form = Form(
        Button("Delete this organisation", cls="danger"),
        P("Its people stay, without it. We ask once more.", cls="hint"),
        **post(f"{path}/delete"),
    )
    return H2("Delete"), form


# ---- one of its people
def member_page(page, caller, done="", refused=None):
    member, tenant = page.member, page.tenant
    path = f"{PATH}/{tenant.id}/people/{member.user_id}"
    return Div(
        P(A(tenant.name, href=f"{PATH}/{tenant.id}"), cls="back"),
        H1(member.name or Bdi(member.address)),
        refused_alert(refused),
        NOTHING if refused else said(done),
        facts(member, caller),
        H2("Role here"),
        Form(
            Label("Role here", _for="role", cls="vh"),
            role_select(page.roles, member.role, id="role"),
            Button("Change", cls="plain"),
            **post(f"{path}/role", "#member", hx_swap="outerHTML"),
            cls="row",
        ),
        P("It counts in this organisation only.", cls="hint"),
        H2("What happened here"),
        latest(page, caller),
        H2("Leave" if itself(member, caller) else "Remove"),
        Form(
            Button("Leave" if itself(member, caller) else "Remove from here", cls="danger"),
            P("The account stays. We ask once more.", cls="hint"),
            **post(f"{path}/remove"),
        ),
        id="member",
    )


def itself(member, caller):
    return member.user_id == caller.user.id


def facts(member, caller):
    zone = caller.timezone
    road = A("Sign-ins, role on the site and more", href=f"/admin/people/{member.user_id}")
    site = (Dt("On the site"), Dd(road)) if caller.is_admin else ()
    return Dl(
        Dt("Address"),
        Dd(Bdi(member.address)),
        Dt("Role here"),
        Dd(Span(member.role, cls="pill"), " ", state(member)),
        Dt("Member since"),
        Dd(moment(member.created_at, zone)),
        Dt("Last sign-in"),
        Dd(moment(member.signed_in_at, zone)),
        *site,
        cls="facts card",
    )


def latest(page, caller):
    if not page.events:
        return P("Nothing yet.", cls="soft")
    names = (f"Time ({zone_of(caller.timezone)})", "Event", "About", "By", "From", "Detail")
    head = Thead(Tr(*[Th(n, scope="col") for n in names]))
    rows = [event_row(replace(event, organisation=""), caller, names) for event in page.events]
    caption = Caption("What happened to them here, the newest first", cls="vh")
    where = urlencode({"q": page.member.address, "days": "all"})
    return Div(
        Table(caption, head, Tbody(*rows), cls="list events"),
        P(A("All of it, in the audit", href=f"{PATH}/{page.tenant.id}/audit?{where}")),
    )


def member_sure(page, caller):
    member, tenant = page.member, page.tenant
    path, own = f"{PATH}/{tenant.id}/people/{member.user_id}", itself(member, caller)
    whom = "You" if own else Strong(Bdi(member.address))
    return Div(
        H1("Leave?" if own else "Remove this member?"),
        P(whom, " can’t use ", Strong(tenant.name), " any more then. The account itself stays."),
        P("To come back takes a new invitation.", cls="hint"),
        Form(
            Input(type="hidden", name="sure", value="yes"),
            Button("Leave" if own else "Remove", cls="danger"),
            **post(f"{path}/remove"),
        ),
        Div(P(A("Stay" if own else "Keep them", href=path, cls="quiet")), cls="roads"),
    )
