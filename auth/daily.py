"""What happened on each day that is over: one row a figure. SQL only; which figures is overview.py's affair."""

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
