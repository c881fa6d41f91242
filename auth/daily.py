"""What happened on each day that is over: one row a figure; and in each ten minutes of the days that are not. SQL only; which
figures is overview.py's affair."""

from typing import Any


def put(t: Any, day: int, numbers: dict[str, int]) -> None:
    """Keep a day's figures, for good."""
    for what, n in numbers.items():
        t.q(
            "insert into daily (day, what, n) values (:day, :what, :n) on conflict do nothing",
            day=day,
            what=what,
            n=n,
        )


def since(t: Any, first: int) -> dict[int, dict[str, int]]:
    """The days that are kept, from `first` on (days since 1970)."""
    found: dict[int, dict[str, int]] = {}
    for row in t.q("select day, what, n from daily where day >= :first", first=first):
        found.setdefault(row["day"], {})[row["what"]] = row["n"]
    return found


def put_span(t: Any, span: int, figures: str) -> None:
    """Keep the figures of ten minutes, until their day is over."""
    t.q(
        "insert into lately (span, figures) values (:span, :figures) on conflict do nothing",
        span=span,
        figures=figures,
    )


def spans(t: Any, first: int) -> dict[int, str]:
    """The spans that are kept, from `first` on."""
    rows = t.q("select span, figures from lately where span >= :first", first=first)
    return {row["span"]: row["figures"] for row in rows}


def drop_spans(t: Any, before: int) -> None:
    t.q("delete from lately where span < :before", before=before)
