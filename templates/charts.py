"""Charts as SVG, drawn on the server: no script, no style of their own, and a table with the same numbers."""

from datetime import UTC, datetime

from fasthtml.common import *
from fasthtml.svg import G, Svg, Text, Title, ft_svg

WIDTH, HEIGHT, FOOT, TOP, GAP = 700, 200, 26, 20, 8


def columns(days, series, label):
    """A group of columns for each day. `series`: (attribute of a day, its class, its name), one column each."""
    most = max((getattr(day, name) for day in days for name, _, _ in series), default=0)
    step = WIDTH / max(1, len(days))
    wide = (step - GAP) / len(series)
    drawn = [
        G(
            *[
                column(day, i, getattr(day, name), most, x * step, wide, cls, words)
                for i, (name, cls, words) in enumerate(series)
            ],
            Text(
                datetime.fromtimestamp(day.at, UTC).day,
                x=round(x * step + (step - GAP) / 2, 1),
                y=HEIGHT - 4,
                text_anchor="middle",
            ),
        )
        for x, day in enumerate(days)
    ]
    return Svg(
        Title(label),
        ft_svg("path", d=f"M0 {HEIGHT - FOOT + 1}H{WIDTH}", cls="ground"),
        Text(f"{most:,}", x=0, y=14) if most else "",
        *drawn,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        cls="chart",
        role="img",
        aria_label=label,
    )


def column(day, place, n, most, x, wide, cls, words):
    tall = (HEIGHT - FOOT - TOP) * n / most if most else 0
    tall = max(tall, 2) if n else 0  # one of a thousand is not none
    return ft_svg(
        "rect",
        Title(f"{date(day.at)}: {n:,} {words}"),
        x=round(x + place * wide, 1),
        y=round(HEIGHT - FOOT - tall, 1),
        width=round(wide, 1),
        height=round(tall, 1),
        cls=cls,
    )


def legend(series):
    return P(*[Span(words, cls=f"key {cls}") for _, cls, words in series], cls="legend")


def twin(days, series, caption):
    """The same as a table."""
    head = Thead(
        Tr(Th("Day (UTC)", scope="col"), *[Th(words, scope="col") for *_, words in series])
    )
    rows = [
        Tr(
            Td(date(day.at, year=True), data_label="Day (UTC)"),
            *[Td(f"{getattr(day, name):,}", data_label=words) for name, _, words in series],
        )
        for day in reversed(days)
    ]
    return Details(
        Summary("The same as a table"),
        Table(Caption(caption, cls="vh"), head, Tbody(*rows), cls="list"),
    )


def date(at, year=False):
    day = datetime.fromtimestamp(at, UTC)
    return f"{day.day} {day:%b}" + (f" {day.year}" if year else "")
