"""The admin's overview: figures and two weeks at a glance. Data in, HTML out."""

from fasthtml.common import *

from templates.admin import counted, tiles
from templates.charts import columns, legend, twin

SIGN_INS = (
    ("asked", "one", "codes asked for"),
    ("signed_in", "two", "sign-ins"),
    ("wrong", "three", "wrong codes"),
)
TIMES = (
    ("median", "two", "seconds for half of the people"),
    ("slow", "one", "seconds for nine of ten"),
)
MAILS = (
    ("accepted", "two", "mails accepted by the provider"),
    ("expired", "one", "mails that were too late to send"),
    ("dead", "three", "mails refused"),
)


def overview(counts, counted_at, days, caller):
    return Div(
        H1("Overview"),
        tiles(counts),
        counted(counted_at, caller),
        P("The last two weeks, in days of UTC.", cls="soft"),
        chart("Sign-ins", days, SIGN_INS, "Nobody asked for a code in these two weeks."),
        chart("Time to sign in", days, TIMES, "No sign-in was timed in these two weeks."),
        chart("Mail", days, MAILS, "No mail left in these two weeks."),
        Div(
            P(A("What happened, one by one", href="/admin/audit")),
            cls="roads",
        ),
        id="overview",
    )


def chart(title, days, series, nothing):
    """One chart and its table; without figures only words."""
    if not any(getattr(day, name) for day in days for name, *_ in series):
        return Section(H2(title), P(nothing, cls="soft"))
    names = [words for *_, words in series]
    label = f"{title}: {', '.join(names[:-1])} and {names[-1]} on each of the last 14 days"
    return Section(
        H2(title),
        Figure(columns(days, series, label), legend(series), cls="card"),
        twin(days, series, label),
    )
