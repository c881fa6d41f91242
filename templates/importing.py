"""Adding many people at once: the form, what a list would do, what it did. Data in, HTML out."""

from fasthtml.common import *

from templates.admin import role_select
from templates.layout import Still, alert, post, tiles_of
from templates.pages import NOTHING, refused_alert
from templates.words import REFUSALS, plural

PATH = "/admin/people/import"
# For each outcome: of a row before the act and after it, and whether it is done.
_OUTCOMES = {
    "added": ("will be added", "added", True),
    "invited": ("will be invited", "invited", True),
    "known": ("is here already, stays as it is", "was here already", False),
    "member": ("is in it already", "was in it already", False),
    "waiting": ("is invited already", "was invited already", False),
    "twice": ("twice in this list", "twice in this list", False),
}
_FILE = {"enctype": "multipart/form-data"}


def words_of(outcome, done):
    """What a row is told, in a few words."""
    if outcome in _OUTCOMES:
        return _OUTCOMES[outcome][1 if done else 0]
    return REFUSALS[outcome][0].rstrip(".")


# ---- the form
def import_page(tenants, roles, typed, refused=None):
    text, tenant, role = typed
    options = [Option(t.name, value=t.id, selected=t.id == tenant) for t in tenants]
    return Div(
        P(A("People", href="/admin"), cls="back"),
        H1("Add many people"),
        refused_alert(refused),
        P("You see first what would happen; nothing is done before you agree.", cls="soft"),
        Form(
            Label("Addresses, one a line", _for="text"),
            Textarea(
                text,
                id="text",
                name="text",
                rows="10",
                spellcheck="false",
                autocomplete="off",
                autocapitalize="off",
                aria_describedby="ways",
            ),
            P(
                "Also with a name and a role, or copied from a spreadsheet: ",
                Code("ada@example.org, Ada Lovelace, user"),
                " or ",
                Code("Ada Lovelace <ada@example.org>"),
                ".",
                id="ways",
                cls="hint",
            ),
            Label("Or a file: CSV, or text", _for="file"),
            Input(id="file", name="file", type="file", accept=".csv,.tsv,.txt,text/csv,text/plain"),
            P("At most 5,000 rows and 1 MB.", cls="hint"),
            Label("Invite them to an organisation", _for="tenant"),
            Select(Option("None", value=""), *options, id="tenant", name="tenant"),
            P(
                "They get a mail, and join when they accept. Without one they are added to the list of"
                " people, and get no mail.",
                cls="hint",
            ),
            Label("Role, where the list names none", _for="role"),
            role_select(roles, role, id="role"),
            P("In the organisation if you choose one, else on the whole site.", cls="hint"),
            Button("Show me what would happen"),
            **post(PATH, **_FILE),
            cls="card stack",
        ),
        id="import",
    )


# ---- before and after
def import_preview(plan, caller):
    n = sum(plan.counts[outcome] for outcome, (*_, done) in _OUTCOMES.items() if done)
    where = invites(plan)
    return Div(
        P(A("Start again", href=PATH), cls="back"),
        H1("Invite these people?" if plan.tenant else "Add these people?"),
        tiles(plan, done=False),
        fresh_code(plan, caller) if n else NOTHING,
        go(plan, f"{where} {plural(n, 'person', 'people')}" if n else ""),
        table(plan.rows, "What would happen, in the order of the list", done=False),
        id="import",
    )


def invites(plan):
    return f"Invite to {plan.tenant.name}:" if plan.tenant else "Add"


def fresh_code(plan, caller):
    if not plan.admins or caller.confirmed:
        return NOTHING
    road = A("Enter a fresh code", href=f"/confirm?next={PATH}")
    return P(
        "There are admins among them. ",
        road,
        " first, then paste the list again.",
        cls="alert note",
    )


def go(plan, words):
    """The list once more, since nothing of it is kept here."""
    if not words:
        return P("There is nothing to do.", cls="alert note")
    tenant = plan.tenant.id if plan.tenant else ""
    hidden = {"text": plan.text, "tenant": tenant, "role": plan.role, "sure": "yes"}
    return Form(
        *[Input(type="hidden", name=name, value=value) for name, value in hidden.items()],
        Button(words),
        P("Who is here already stays as they are.", cls="hint"),
        **post(PATH, **_FILE),
    )


def import_done(plan, refused=None):
    left = [row for row in plan.rows if not _OUTCOMES.get(row.outcome, (0, 0, False))[2]]
    n = len(plan.rows) - len(left)
    did = f"invited to {plan.tenant.name}" if plan.tenant else "added"
    told = f"{plural(n, 'person is', 'people are')} {did}."
    return Div(
        P(A("People", href="/admin"), cls="back"),
        H1("Add many people"),
        refused_alert(refused),
        alert("Done.", told, kind="ok", focus=not refused),
        tiles(plan, done=True),
        table(left, "What was not done, and why", done=True) if left else NOTHING,
        P(A("Add more", href=PATH, cls="button")),
        id="import",
    )


def tiles(plan, done):
    return tiles_of((n, words_of(outcome, done)) for outcome, n in plan.counts.items())


# Thousands of rows: drawn once, and filled.
_ROW = Still(
    Tr(
        Td(Bdi("⟦address⟧"), data_label="Address"),
        Td("⟦name⟧", data_label="Name"),
        Td("⟦role⟧", data_label="Role"),
        Td(Span("⟦outcome⟧", cls="pill ⟦kind⟧"), data_label="What happens"),
        Td("⟦line⟧", data_label="Line"),
    )
)


def table(rows, title, done):
    names = ("Address", "Name", "Role", "What happened" if done else "What happens", "Line")
    head = Thead(Tr(*[Th(name, scope="col") for name in names]))
    return Div(
        H2(title),
        Table(Caption(title, cls="vh"), head, Tbody(*[row_of(r, done) for r in rows]), cls="list"),
    )


def row_of(row, done):
    known = _OUTCOMES.get(row.outcome)
    return _ROW(
        line=f"{row.line:,}",
        address=row.address or row.typed or "–",
        name=row.name or "–",
        role=row.role,
        outcome=words_of(row.outcome, done),
        kind="bad" if known is None else "ok" if known[2] else "",
    )
