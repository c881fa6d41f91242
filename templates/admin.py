"""The admin's pages. Data in, HTML out."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import urlencode

from fasthtml.common import *

from templates.layout import Still, alert, draw, post, searching, tiles_of
from templates.pages import NOTHING, moment, refused_alert, zone_of
from templates.words import DONE, PEOPLE_SEEN, PEOPLE_SORTS, PEOPLE_STATES, plural, written


def people(page, caller, refused=None, notice=None, bouncing=()):
    """The people: figures, filters, add, and the list with what may be done to each.

    `bouncing`: the addresses that mail is held back from.
    """
    return Div(
        Div(H1("People"), add_form(page, refused), cls="tools"),
        NOTHING if in_add_form(refused) else refused_alert(refused),
        alert("Done.", DONE[notice[0]].format(address=notice[1]), kind="ok") if notice else NOTHING,
        tiles(page.counts),
        counted(page.counted_at, caller),
        filters(page),
        Div(
            P(told(page), cls="soft found") if page.users else NOTHING,
            people_table(page, caller, bouncing) if page.users else nobody(page),
            looked(page) if page.users and page.looked_to else NOTHING,
            paging(page) if page.users and (page.before or page.after) else NOTHING,
            id="people-list",  # what the filters replace
        ),
        id="people",
    )


def told(page):
    """How many there are, and which of them these are. Of very many that is not always known."""
    shown = plural(len(page.users), "person", "people")
    if page.total is None:
        if page.first is None:
            return f"{shown} further on"
        return f"{shown} so far" if page.looked_to else f"The first {shown}"
    all_of = plural(page.total, "person", "people")
    if page.first is None:
        return f"{len(page.users)} of {all_of}"
    last = page.first + len(page.users) - 1
    return all_of if len(page.users) == page.total else f"{page.first:,} to {last:,} of {all_of}"


def looked(page):
    """Among very many people a page looks through some of them at once."""
    return P(f"{as_far_as(page.looked_to)} There may be more further on.", cls="soft")


def as_far_as(user):
    who = f"{user.name} ({user.address})" if user.name else user.address
    return f"We looked through the list as far as {who}."


def counted(at, caller):
    """When the figures are not of this moment."""
    words = ("Counted at ", moment(at, caller.timezone), ".")
    return P(*words, cls="soft counted") if at else NOTHING


def tiles(counts):
    shown = (
        (counts["people"], "person" if counts["people"] == 1 else "people"),
        (counts["recent"], "signed in this week"),
        (counts["admins"], "active admin" if counts["admins"] == 1 else "active admins"),
        (counts["disabled"], "disabled"),
    )
    return tiles_of(shown)


def filters(page):
    """All of it is in the URL. With htmx the list follows each change; without, it waits for the button."""
    wanted = page.wanted
    fields = (
        chosen("role", "Role", {"": "Any role"} | {role: role for role in page.roles}, wanted.role),
        chosen("state", "State", PEOPLE_STATES, wanted.state),
        chosen("seen", "Last sign-in", PEOPLE_SEEN, wanted.seen),
        # The heads of the columns sort, too, where there are columns.
        chosen("sort", "Order", PEOPLE_SORTS, wanted.sort),
    )
    field = Input(
        id="q",
        name="q",
        type="search",
        value=wanted.query,
        placeholder="Name or address",
        autocomplete="off",
    )
    return Form(
        Label("Search people", _for="q", cls="vh"),
        field,
        *fields,
        Button("Search", cls="plain"),
        cls="filters many",
        **searching("/admin", "people-list", "#by-role", "#by-state", "#by-seen", "#by-sort"),
    )


def chosen(name, label, words, current):
    options = [
        Option(said, value=value, selected=value == current) for value, said in words.items()
    ]
    id = f"by-{name}"
    return Label(label, _for=id, cls="vh"), Select(*options, id=id, name=name)


def in_add_form(refused):
    """Is this about what was typed into "Add a person"?"""
    reasons = ("email_missing", "email_invalid", "user_exists", "name_invalid")
    return bool(refused) and refused.reason in reasons


def add_form(page, refused):
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
                role_select(page.roles, role, id="new-role"),
            ),
            place(page),
            Button("Add"),
            **post("/admin/people", "#people", hx_swap="outerHTML", novalidate=True),
        ),
        P(
            "They get no mail about it: tell them. ",
            A("Add many at once", href="/admin/people/import"),
            cls="hint",
        ),
        cls="add",
        open=here,
    )


def role_select(roles, current, **attributes):
    options = [Option(role, value=role, selected=role == current) for role in roles]
    return Select(*options, name="role", **attributes)


def place(page):
    """Where one comes back to."""
    return Input(type="hidden", name="list", value=urlencode(page.here))


def people_table(page, caller, bouncing):
    heads = (
        ("Name", "name"),
        ("Address", "address"),
        ("Role", "role"),
        ("State", ""),
        ("Added", "added"),
        (last_sign_in(caller), "seen"),
        ("Actions", ""),
    )
    head = Thead(Tr(*[sorting(name, by, page.wanted) for name, by in heads]))
    rows = [person_row(user, page, caller, user.address in bouncing) for user in page.users]
    caption = Caption(f"People, {PEOPLE_SORTS[page.wanted.sort].lower()}", cls="vh")
    return Table(caption, head, Tbody(Safe("".join(rows))), cls="list people")


def sorting(name, by, wanted):
    """A head of a column; a link to the list in its order, or in the other direction."""
    if not by:
        return Th(name, scope="col")
    here = by == wanted.by
    # What one looks for first: the newest, and the first of an alphabet.
    first = f"-{by}" if by in ("seen", "added") else by
    other = by if wanted.down else f"-{by}"
    to = replace(wanted, sort=other if here else first)
    state = ("descending" if wanted.down else "ascending") if here else None
    return Th(A(name, href=listed(to.params())), scope="col", aria_sort=state)


def listed(params):
    return f"/admin?{urlencode(params)}" if params else "/admin"


def last_sign_in(caller):
    """Names the zone once, and not in each row."""
    return f"Last sign-in ({zone_of(caller.timezone)})"


def person_row(user, page, caller, bounces):
    zone = caller.timezone
    return ROW(
        name=user.name or "–",
        id=user.id,
        address=user.address,
        role=user.role,
        state=Safe(draw(state_pill(user)) + (f" {draw(bounce_pill())}" if bounces else "")),
        added=DAY(at=datetime.fromtimestamp(user.created_at, UTC).isoformat(), day=day(user, zone)),
        seen=moment(user.signed_in_at, zone, named=False),
        seen_name=last_sign_in(caller),
        acts=acts(user, page, caller),
    )


def day(user, zone):
    return written(user.created_at, zone, named=False).partition(",")[0]


def state_pill(user):
    if user.disabled_at is not None:
        return DISABLED
    return ACTIVE if user.activated_at else NEW


def bounce_pill():
    return BOUNCES


def acts(user, page, caller):
    """One's own row has none: nobody demotes or disables themselves."""
    if user.id == caller.user.id:
        return YOU
    known = {"id": user.id, "address": user.address, "list": urlencode(page.here)}
    change = CHANGE(**known, role=user.role, options=role_options(tuple(page.roles), user.role))
    return Safe(change + (DISABLE if user.disabled_at is None else ENABLE)(**known))


@lru_cache
def role_options(roles, current):
    options = [Option(role, value=role, selected=role == current) for role in roles]
    return Safe("".join(map(draw, options)))


def act(name, *content, **more):
    path = f"/admin/people/⟦id⟧/{name}"
    back = Input(type="hidden", name="list", value="⟦list⟧")
    return Still(Form(back, *content, **post(path, "#people", hx_swap="outerHTML", **more)))


# A row has forty elements, and a page twenty-five rows: drawn once.
ROW = Still(
    Tr(
        Td("⟦name⟧", data_label="Name"),
        Td(Bdi(A("⟦address⟧", href="/admin/people/⟦id⟧")), data_label="Address"),
        Td(Span("⟦role⟧", cls="pill"), data_label="Role"),
        Td("⟦state⟧", data_label="State"),
        Td("⟦added⟧", data_label="Added"),
        Td("⟦seen⟧", data_label="⟦seen_name⟧"),
        Td(Div("⟦acts⟧"), cls="acts"),
    )
)
CHANGE = act(
    "role",
    Select("⟦options⟧", name="role", aria_label="Role of ⟦address⟧"),
    Button("Change", cls="plain", aria_label="Change the role of ⟦address⟧"),
    # It names the role that they have: which one was chosen, no attribute can say.
    hx_confirm="Change the role of ⟦address⟧, who is ⟦role⟧ now? Whoever is admin runs the whole site.",
)
ENABLE = act("enable", Button("Enable", cls="plain", aria_label="Enable ⟦address⟧"))
DISABLE = act(
    "disable",
    Button("Disable", cls="danger", aria_label="Disable ⟦address⟧"),
    hx_confirm="Disable ⟦address⟧? They are signed out everywhere and can't sign in until enabled again.",
)
DAY = Still(Time("⟦day⟧", datetime="⟦at⟧"))
YOU = Still(Span("you", cls="soft"))()
ACTIVE, NEW = Still(Span("active", cls="pill ok"))(), Still(Span("new", cls="pill"))()
DISABLED = Still(Span("disabled", cls="pill bad"))()
BOUNCES = Still(
    Span("mail bounces", cls="pill bad", title="Mail to this address is held back for a day")
)()


def nobody(page):
    wanted = page.wanted
    if page.looked_to:
        said = f"Nobody like that so far. {as_far_as(page.looked_to)}"
        road = A("Look further", href=listed(wanted.params() | {"after": page.after}))
        return Div(P(said), P(road), cls="empty")
    if page.first is None:
        road = A("Back to the beginning", href=listed(wanted.params()))
        said = "Nobody like that further on. This is the end of the list."
        return Div(P(said), P(road), cls="empty")
    narrow = wanted.role or wanted.state or wanted.seen
    if wanted.query and narrow:
        said = f"Nobody like that has “{wanted.query}” in their name or address."
        road = A("Search everybody", href=listed({"q": wanted.query}))
    elif wanted.query:
        said = f"Nobody’s name or address holds “{wanted.query}”."
        road = A("Show everybody", href="/admin")
    else:
        said = "Nobody is like that." if narrow else "There is nobody here yet."
        road = A("Show everybody", href="/admin") if narrow else "Add the first person above."
    return Div(P(said), P(road), cls="empty")


def paging(page):
    def to(**more):
        return listed(page.wanted.params() | more)

    back = A("Previous", href=to(before=page.before), rel="prev") if page.before else Span()
    words = "Look further" if page.looked_to else "Next"
    on = A(words, href=to(after=page.after), rel="next") if page.after else NOTHING
    return Nav(back, on, cls="pages", aria_label="Pages")
