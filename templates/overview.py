"""The admin's overview: figures and two weeks at a glance. Data in, HTML out."""

from fasthtml.common import *

from templates.admin import tiles
from templates.charts import columns, legend, twin

SERIES = (
    ("asked", "one", "codes asked for"),
    ("signed_in", "two", "sign-ins"),
    ("wrong", "three", "wrong codes"),
)


def overview(counts, days):
    label = "Codes asked for, sign-ins and wrong codes on each of the last 14 days"
    quiet = not any(day.asked or day.signed_in or day.wrong for day in days)
    return Div(
        H1("Overview"),
        tiles(counts),
        H2("The last two weeks"),
        P("Nothing has happened yet.", cls="soft")
        if quiet
        else Figure(columns(days, SERIES, label), legend(SERIES), cls="card"),
        twin(days, SERIES, label),
        Div(P(A("What happened, one by one", href="/admin/audit")), cls="roads"),
        id="overview",
    )
