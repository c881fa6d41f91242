"""The admin's pages. Data in, HTML out."""

from urllib.parse import urlencode

from fasthtml.common import *

from templates.layout import alert, post
from templates.pages import NOTHING, moment, refused_alert, zone_of
from templates.words import DONE, plural


def people(page, caller, refused=None, notice=None, bouncing=()):
    """The people: figures, search, add, and the list with what may be done to each.

    `bouncing`: the addresses that mail is held back from.
    """
    return Div(
        H1("People"),
        NOTHING if in_add_form(refused) else refused_alert(refused),
        alert("Done.", DONE[notice[0]].format(address=notice[1]), kind="ok") if notice else NOTHING,
        tiles(page.counts),
        Div(search_form(page.query), add_form(page.roles, refused), cls="tools"),
        Div(
            people_table(page, caller, bouncing) if page.users else nobody(page.query),
            paging(page) if page.pages > 1 else NOTHING,
            id="people-list",  # what the search replaces
        ),
        id="people",
    )


def tiles(counts):
    shown = (
        (counts["people"], "person" if counts["people"] == 1 else "people"),
        (counts["recent"], "signed in this week"),
        (counts["admins"], "active admin" if counts["admins"] == 1 else "active admins"),
        (counts["disabled"], "disabled"),
    )
    return Div(*[Div(Strong(f"{n:,}"), Span(what), cls="tile") for n, what in shown], cls="tiles")


def search_form(query):
    live = {
        "hx_get": "/admin",
        "hx_target": "#people-list",
        "hx_select": "#people-list",
        "hx_swap": "outerHTML",
        "hx_trigger": "input changed delay:250ms from:#q, submit",
        "hx_push_url": "true",
    }
    field = Input(
        id="q",
        name="q",
        type="search",
        value=query,
        placeholder="Name or address",
        autocomplete="off",
    )
    return Form(
        Label("Search people", _for="q", cls="vh"),
        field,
        Button("Search", cls="plain"),
        method="get",
        action="/admin",
        enctype=None,
        role="search",
        **live,
    )


def in_add_form(refused):
    """Is this about what was typed into "Add a person"?"""
    reasons = ("email_missing", "email_invalid", "user_exists", "name_invalid")
    return bool(refused) and refused.reason in reasons


def add_form(roles, refused):
    here = in_add_form(refused)
    email, name, role = refused.facts["typed"] if here else ("", "", "user")
    return Details(
        Summary("Add a person", cls="button"),
        Form(
            refused_alert(refused) if here else NOTHING,
            Div(
                Label("Email address", _for="new-email"),
                Input(
                    id="new-email",
                    name="email",
                    type="email",
                    required=True,
                    value=email[:320],
                    autocomplete="off",
                    aria_invalid=here and refused.reason != "name_invalid" and "true",
                ),
            ),
            Div(
                Label("Name (optional)", _for="new-name"),
                Input(id="new-name", name="name", value=name[:320], autocomplete="off"),
            ),
            Div(
                Label("Role", _for="new-role"),
                role_select(roles, role, id="new-role"),
            ),
            Button("Add"),
            **post("/admin/people", "#people", hx_swap="outerHTML", novalidate=True),
        ),
        cls="add",
        open=here,
    )


def role_select(roles, current, **attributes):
    options = [Option(role, value=role, selected=role == current) for role in roles]
    return Select(*options, name="role", **attributes)


def people_table(page, caller, bouncing):
    names = ("Name", "Address", "Role", "State", last_sign_in(caller), "Actions")
    head = Thead(Tr(*[Th(name, scope="col") for name in names]))
    rows = [person_row(user, page, caller, user.address in bouncing) for user in page.users]
    caption = Caption(f"{plural(page.total, 'person', 'people')}, by address", cls="vh")
    return Table(caption, head, Tbody(*rows), cls="list")


def last_sign_in(caller):
    """Names the zone once, and not in each row."""
    return f"Last sign-in ({zone_of(caller.timezone)})"


def person_row(user, page, caller, bounces):
    return Tr(
        Td(user.name or "–", data_label="Name"),
        Td(Bdi(A(user.address, href=f"/admin/people/{user.id}")), data_label="Address"),
        Td(Span(user.role, cls="pill"), data_label="Role"),
        Td(state_pill(user), " ", bounce_pill() if bounces else NOTHING, data_label="State"),
        Td(
            moment(user.signed_in_at, caller.timezone, named=False), data_label=last_sign_in(caller)
        ),
        Td(Div(*acts(user, page, caller)), cls="acts"),
    )


def state_pill(user):
    if user.disabled_at is not None:
        return Span("disabled", cls="pill bad")
    return Span("active", cls="pill ok") if user.activated_at else Span("invited", cls="pill")


def bounce_pill():
    return Span("mail bounces", cls="pill bad", title="Mail to this address is held back for a day")


def acts(user, page, caller):
    """One's own row has none: nobody demotes or disables themselves."""
    if user.id == caller.user.id:
        return [Span("you", cls="soft")]
    place = (
        Input(type="hidden", name="q", value=page.query),
        Input(type="hidden", name="page", value=page.page),
    )

    def act(name, *content, **more):
        path = f"/admin/people/{user.id}/{name}"
        return Form(*place, *content, **post(path, "#people", hx_swap="outerHTML", **more))

    role = role_select(page.roles, user.role, aria_label=f"Role of {user.address}")
    change = act(
        "role", role, Button("Change", cls="plain", aria_label=f"Change the role of {user.address}")
    )
    if user.disabled_at is not None:
        return [
            change,
            act("enable", Button("Enable", cls="plain", aria_label=f"Enable {user.address}")),
        ]
    sure = f"Disable {user.address}? They are signed out everywhere and can't sign in until enabled again."
    stop = Button("Disable", cls="danger", aria_label=f"Disable {user.address}")
    return [change, act("disable", stop, hx_confirm=sure)]


def nobody(query):
    said = f"Nobody’s name or address holds “{query}”." if query else "There is nobody here yet."
    road = A("Show everybody", href="/admin") if query else "Add the first person above."
    return Div(P(said), P(road), cls="empty")


def paging(page):
    def to(number):
        return "/admin?" + urlencode({"q": page.query, "page": number})

    back = A("Previous", href=to(page.page - 1), rel="prev") if page.page > 1 else NOTHING
    on = A("Next", href=to(page.page + 1), rel="next") if page.page < page.pages else NOTHING
    where = Span(f"Page {page.page:,} of {page.pages:,}")
    return Nav(back, where, on, cls="pages", aria_label="Pages")
