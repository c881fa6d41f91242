"""The admin's pages of organisations: the list, and the end of one. Inside one: members.py. Data in, HTML out."""

from urllib.parse import urlencode

from fasthtml.common import *

from templates.layout import alert, post, searching
from templates.pages import NOTHING, moment, refused_alert
from templates.words import TENANT_DONE, plural

PATH = "/admin/organisations"


def said(done):
    return alert("Done.", TENANT_DONE[done], kind="ok") if done in TENANT_DONE else NOTHING


# ---- the list
def tenants_page(page, done="", refused=None):
    return Div(
        H1("Organisations"),
        NOTHING if refused and "typed" in refused.facts else refused_alert(refused),
        NOTHING if refused else said(done),
        Div(search_form(page.query), add_form(refused), cls="tools"),
        Div(
            tenants_table(page) if page.rows else nobody(page.query),
            paging(page, PATH, {"q": page.query}),
            id="tenants-list",  # what the search replaces
        ),
        id="tenants",
    )


def search_form(query):
    field = {"id": "q", "name": "q", "type": "search", "value": query, "placeholder": "Name"}
    return Form(
        Label("Search organisations", _for="q", cls="vh"),
        Input(**field, autocomplete="off"),
        Button("Search", cls="plain"),
        **searching(PATH, "tenants-list"),
    )


def add_form(refused):
    here = refused and "typed" in refused.facts
    name, email = refused.facts["typed"] if here else ("", "")
    return Details(
        Summary("Add an organisation", cls="button"),
        Form(
            refused_alert(refused) if here else NOTHING,
            Div(
                Label("Name", _for="new-name"),
                Input(id="new-name", name="name", value=name[:320], autocomplete="off"),
            ),
            Div(
                Label("Email address of its first admin", _for="new-email"),
                Input(
                    id="new-email",
                    name="email",
                    type="email",
                    value=email[:320],
                    autocomplete="off",
                    aria_describedby="first-admin",
                ),
            ),
            Button("Add"),
            **post(PATH, "#tenants", hx_swap="outerHTML", novalidate=True),
        ),
        P(
            "The first admin: somebody in the list of people; you may take your own address.",
            id="first-admin",
            cls="hint",
        ),
        cls="add",
        open=bool(here),
    )


def tenants_table(page):
    head = Thead(Tr(*[Th(name, scope="col") for name in ("Name", "People", "Since (UTC)")]))
    rows = [
        Tr(
            Td(A(found.name, href=f"{PATH}/{found.id}"), data_label="Name"),
            Td(f"{found.members:,}", data_label="People"),
            Td(moment(found.created_at, "UTC", named=False), data_label="Since (UTC)"),
        )
        for found in page.rows
    ]
    caption = Caption(f"{plural(page.total, 'organisation')}, by name", cls="vh")
    return Table(caption, head, Tbody(*rows), cls="list")


def nobody(query):
    words = f"No organisation’s name holds “{query}”." if query else "No organisation yet."
    road = (
        A("Show all", href=PATH)
        if query
        else "Make one for each group of people that should see only its own members."
    )
    return Div(P(words), P(road), cls="empty")


def paging(page, path, where):
    if page.pages == 1:
        return NOTHING

    def to(number):
        return f"{path}?{urlencode(where | {'page': number})}"

    back = A("Previous", href=to(page.page - 1), rel="prev") if page.page > 1 else NOTHING
    on = A("Next", href=to(page.page + 1), rel="next") if page.page < page.pages else NOTHING
    where_now = Span(f"Page {page.page:,} of {page.pages:,}")
    return Nav(back, where_now, on, cls="pages", aria_label="Pages")


# ---- the end of one
def tenant_sure(page):
    path = f"{PATH}/{page.tenant.id}"
    return Div(
        H1("Delete this organisation?"),
        P(
            Strong(page.tenant.name),
            f" and {plural(page.total, 'membership')} go. This can’t be undone.",
        ),
        Form(
            Input(type="hidden", name="sure", value="yes"),
            Button("Delete it for good", cls="danger"),
            **post(f"{path}/delete"),
        ),
        Div(P(A("Keep it", href=path, cls="quiet")), cls="roads"),
    )
