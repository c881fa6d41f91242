"""The admin's page of roles. Data in, HTML out."""

from fasthtml.common import *

from templates.layout import alert, post
from templates.pages import NOTHING, refused_alert
from templates.words import ROLE_DONE

PATH = "/admin/roles"
KEPT = ("admin", "user")


def roles_page(roles, done="", refused=None):
    typed = refused.facts.get("typed", ()) if refused else ()
    name, description = typed if len(typed) == 2 else ("", "")
    said = ROLE_DONE.get(done)
    return Div(
        H1("Roles"),
        P(
            "A role opens the pages that ask for it. ",
            Code("admin"),
            " runs the site, or, given inside an organisation, that one.",
            cls="soft",
        ),
        refused_alert(refused),
        alert("Done.", said, kind="ok") if said and not refused else NOTHING,
        table(roles),
        H2("Add a role"),
        Form(
            Div(
                Label("Name", _for="name"),
                Input(
                    id="name",
                    name="name",
                    value=name[:320],
                    autocomplete="off",
                    autocapitalize="off",
                ),
            ),
            Div(
                Label("What it is for", _for="description"),
                Input(
                    id="description",
                    name="description",
                    value=description[:320],
                    autocomplete="off",
                ),
            ),
            Button("Save"),
            P("A name that is there already gets the new description.", cls="hint"),
            **post(PATH, "#roles", hx_swap="outerHTML"),
            cls="card stack",
        ),
        id="roles",
    )


def table(roles):
    head = Thead(Tr(*[Th(n, scope="col") for n in ("Name", "What it is for", "People", "Actions")]))
    rows = [row(role) for role in roles]
    return Table(Caption("Roles, by name", cls="vh"), head, Tbody(*rows), cls="list")


def row(role):
    delete = Form(
        Input(type="hidden", name="name", value=role.name),
        Button("Delete", cls="danger", aria_label=f"Delete the role {role.name}"),
        **post(
            f"{PATH}/delete",
            "#roles",
            hx_swap="outerHTML",
            hx_confirm=f"Delete the role {role.name}?",
        ),
    )
    kept = role.name in KEPT or role.people
    return Tr(
        Td(Span(role.name, cls="pill"), data_label="Name"),
        Td(role.description or "–", data_label="What it is for"),
        Td(f"{role.people:,}{' or more' if role.counted_out else ''}", data_label="People"),
        Td(Div(NOTHING if kept else delete), cls="acts"),
    )
