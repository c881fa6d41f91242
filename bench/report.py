"""What one run of `compare` says: figures in, a table and a chart out. Standard library only; it measures nothing."""

import json
import re
import statistics
from html import escape
from pathlib import Path

BEGIN, END = "<!-- from sign-in-cost.json: begin -->", "<!-- from sign-in-cost.json: end -->"
# At least so many times the cost of the first app, in one run: (app, at once, figure, times).
AIMS = (
    ("better-auth (warmed)", 1, "signin_ms", 5),
    ("better-auth (warmed)", 16, "signin_ms", 3.5),
    ("better-auth (warmed)", 1, "page_us", 4),
    ("django-allauth", 1, "signin_ms", 6),
    ("lean FastHTML", 1, "signin_ms", 1 / 1.6),
)
DOES = {
    "code": "the code is",
    "mail": "mail is",
    "limits": "limits",
    "record": "a record of what happened",
    "session": "a session is",
    "commits": "commits that wait for the disk",
}


class Run:
    """The figures of one run: {"apps": [{"name", ...}], "rounds": [{"name", "width", "round", ...}], ...}."""

    def __init__(self, figures):
        self.figures = figures
        self.names = [app["name"] for app in figures["apps"]]
        self.widths = list(dict.fromkeys(r["width"] for r in figures["rounds"]))

    def rounds(self, name, width=None):
        return [
            r for r in self.figures["rounds"] if r["name"] == name and width in (None, r["width"])
        ]

    def each(self, name, width, figure):
        """{round: figure}, of the rounds that worked."""
        return {r["round"]: r[figure] for r in self.rounds(name, width) if figure in r}

    def median(self, name, width, figure):
        found = self.each(name, width, figure).values()
        return statistics.median(found) if found else None

    def times(self, name, width, figure):
        """How many times what the first app costs: the median over the rounds, each with its own ratio."""
        ours, theirs = self.each(self.names[0], width, figure), self.each(name, width, figure)
        both = [theirs[n] / ours[n] for n in ours if n in theirs]
        return statistics.median(both) if both else None

    def over_all(self, name, figure):
        """Over rounds and widths."""
        found = [r[figure] for r in self.rounds(name) if figure in r]
        return statistics.median(found) if found else None

    def microseconds(self, name, figure):
        return ", ".join(
            f"{shown(self.median(name, w, figure), 0)} us {crowd(w)}" for w in self.widths
        )

    @property
    def errors(self):
        return [f"{r['name']}: {(r['error'] or ['?'])[0]}" for r in self.figures["rounds"] if r["errors"]]  # fmt: skip


def shown(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def multiple(value):
    """Two digits that say something: 0.63, 5.4."""
    return shown(value, 1 if value is None or value >= 1 else 2)


def rows(table):
    head, *body = table
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def crowd(width):
    return "one at a time" if width == 1 else f"{width} at once"


def costs(run):
    """CPU of a sign-in and of a page, memory and start, one line for each app."""
    head = ["app"]
    for width in run.widths:
        head += [f"sign-in, {crowd(width)}: CPU ms [least-most]", "times"]
    head += [f"session check, {crowd(width)}: CPU us" for width in run.widths]
    table = [[*head, "memory MB", "start s"]]
    for name in run.names:
        line = [name]
        for width in run.widths:
            each = run.each(name, width, "signin_ms").values()
            middle = run.median(name, width, "signin_ms")
            spread = f" [{min(each):.2f}-{max(each):.2f}]" if each else ""
            line += [shown(middle, 2) + spread, multiple(run.times(name, width, "signin_ms"))]
        line += [shown(run.median(name, width, "page_us"), 0) for width in run.widths]
        line += [shown(run.over_all(name, "rss_mb"), 0), shown(run.over_all(name, "start_s"), 2)]
        table.append(line)
    return rows(table)


def work(run):
    """What each does for its cost. A warmed app is the same app."""
    table = [["app", *DOES.values()]]
    for app in run.figures["apps"]:
        if not app["warm"]:
            table.append([app["name"], *(app["does"][key] for key in DOES)])
    return rows(table)


def versions(run):
    return "\n".join(
        f"- {app['name']}: " + ", ".join(f"{k} {v}" for k, v in app["versions"].items()) + f"; {app['note']}."
        for app in run.figures["apps"]
        if not app["warm"]
    )  # fmt: skip


def in_words(run):
    """The chart's text alternative."""
    return "; ".join(
        f"{crowd(width)}: "
        + ", ".join(
            f"{name} {shown(run.median(name, width, 'signin_ms'), 2)}" for name in run.names
        )
        for width in run.widths
    )


def page(run):
    """What stands between the marks in docs/performance.md."""
    figures, first = run.figures, run.names[0]
    sizes, count = figures["sizes"], max(r["round"] for r in figures["rounds"])
    hello, me = run.microseconds("hello", "page_us"), run.microseconds(first, "me_us")
    errors = sum(r["errors"] for r in figures["rounds"])
    return "\n\n".join(
        (
            f"![Bar chart of CPU milliseconds for one sign-in. {in_words(run)}](sign-in-cost.svg)",
            f"{figures['date']}, {figures['machine']}. {count} rounds, the median is shown; in each {sizes['signins']:,} sign-ins and "
            f'{sizes["gets"]:,} session checks of each app, {sizes["users"]:,} people. Errors: {errors}. "times" is the cost over '
            f"{first}'s in the same round.",
            costs(run),
            f"A bare hello in the same run: {hello}. {first}'s `/auth/me` with a bearer token: {me}.",
            work(run),
            versions(run),
        )
    )


# ---- the chart
STYLE = """
  .back { fill: #fff } .text { fill: #1f2328 } .soft { fill: #59636e } .line { stroke: #d1d9e0 } .bar { fill: #8c959f } .ours { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    .back { fill: #0d1117 } .text { fill: #f0f6fc } .soft { fill: #9198a1 } .line { stroke: #3d444d } .bar { fill: #656c76 } .ours { fill: #4493f8 }
  }
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif }
  .head { font-size: 15px; font-weight: 600 }
"""
WIDTH, LEFT, RIGHT, BAR, GAP, HEAD = 760, 170, 130, 20, 8, 40


def chart(run):
    """Bars of each app, a group for each number of people at once; one scale."""
    most = max(run.median(n, w, "signin_ms") or 0 for n in run.names for w in run.widths) or 1
    scale = (WIDTH - LEFT - RIGHT) / most
    drawn, y = [], 52
    for width in run.widths:
        drawn.append(
            f'<text class="text head" x="16" y="{y + 20}">{crowd(width).capitalize()}</text>'
        )
        top = y = y + HEAD
        for name in run.names:
            value = run.median(name, width, "signin_ms")
            if value is None:
                continue
            long, kind = max(2, value * scale), "ours" if name == run.names[0] else "bar"
            times = run.times(name, width, "signin_ms")
            words = f"{value:.2f}" + ("" if kind == "ours" else f"  ({multiple(times)} times)")
            middle = y + BAR - 5
            drawn += [
                f'<text class="text" x="{LEFT - 10}" y="{middle}" text-anchor="end">{escape(name)}</text>',
                f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{long:.1f}" height="{BAR}" rx="2"/>',
                f'<text class="soft" x="{LEFT + long + 8:.1f}" y="{middle}">{words}</text>',
            ]
            y += BAR + GAP
        drawn.append(
            f'<line class="line" x1="{LEFT - 0.5}" x2="{LEFT - 0.5}" y1="{top - 4}" y2="{y - 4}"/>'
        )
        y += 12
    height = y + 8
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-labelledby="t d">',
            '<title id="t">CPU of one complete sign-in, in milliseconds</title>',
            f'<desc id="d">{escape(in_words(run))}</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="back" width="{WIDTH}" height="{height}" rx="6"/>',
            '<text class="text head" x="16" y="30">CPU of one complete sign-in, in milliseconds; less is better</text>',
            *drawn,
            "</svg>\n",
        )
    )


# ---- where it goes
def read(docs):
    return json.loads((docs / "sign-in-cost.json").read_text())


def save(docs, figures):
    """A line for each round, so that two runs can be compared by eye."""
    rounds = ",\n".join("  " + json.dumps(r) for r in figures["rounds"])
    text = json.dumps(figures | {"rounds": []}, indent=1).removesuffix("[]\n}")
    (docs / "sign-in-cost.json").write_text(f"{text}[\n{rounds}\n ]\n}}\n")


def draw(docs: Path):
    """The chart and the table in `docs`, from the figures in `docs`."""
    run, text = Run(read(docs)), (docs / "performance.md").read_text()
    (docs / "sign-in-cost.svg").write_text(chart(run))
    (docs / "performance.md").write_text(between(text, page(run)))


def between(text, new):
    """`text` with `new` between the marks."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the page needs {BEGIN} and {END}, once each")
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n\n{new}\n\n{END}", text, flags=re.DOTALL)


def aims(run):
    """One line for each aim; nothing about what was not measured."""
    lines = []
    for name, width, figure, least in AIMS:
        found = run.times(name, width, figure)
        if found is not None:
            kept = "reached" if found >= least else "NOT reached"
            lines.append(f"{figure} of {name}, {crowd(width)}: {found:.2f} times ours, at least {least:.2f} wanted: {kept}")  # fmt: skip
    return "\n".join(lines)
