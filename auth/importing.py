"""THE RULES of adding many people at once: reading a list, what each line would do, doing it. No HTTP, HTML or SQL.

Nothing is kept between the look and the act: the act reads the same text, and asks everything anew.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from auth import invitations, tenants, users
from auth.addresses import canonical
from auth.events import Source
from auth.inviting import Inviting
from auth.office import Office, tidy_name
from auth.policy import Refused
from auth.tenants import Tenant
from auth.users import User

MAX_ROWS, MAX_TEXT = 5_000, 1_000_000
# With what a form adds to its text.
MAX_FORM = MAX_TEXT + 100_000
# In one transaction: while it lasts nobody else changes people.
BATCH = 200
MAX_LINE = 2_000  # characters; what comes after them is no person's
MAX_SHOWN = 100  # of an address that can't be read
DELIMITERS = "\t;,"

# What becomes of a row; else the reason why it can't be.
ADDED, INVITED, KNOWN = "added", "invited", "known"
MEMBER, WAITING, TWICE = "member", "waiting", "twice"
BAD = ("email_invalid", "name_invalid", "role_unknown")

_HEADS = {
    "address": ("email", "e-mail", "mail", "address", "email address", "e-mail address"),
    "name": ("name", "full name", "display name"),
    "role": ("role",),
}
_AT = re.compile(r"[^\s@]@[^\s@]")
_NAMED = re.compile(r"([^<>@]*)<([^<>]+)>[\s,;]*")


@dataclass(frozen=True)
class Row:
    """One person of a list. `address` is "" where there is none that can be mailed."""

    line: int
    typed: str
    address: str
    name: str
    role: str
    outcome: str = ""  # one of the above, "" as long as nobody has looked


@dataclass(frozen=True)
class Plan:
    """What becomes, or became, of a list. `tenant` is None where people are added to the site alone."""

    rows: list[Row]
    tenant: Tenant | None
    role: str
    text: str

    @property
    def counts(self) -> Counter[str]:
        return Counter(row.outcome for row in self.rows)

    @property
    def admins(self) -> bool:
        return any(row.role == "admin" for row in self.rows)


# ---- reading; pure
def decoded(raw: bytes) -> str:
    """The text of a file, as spreadsheets write it: UTF-8, UTF-16, or what Windows used before."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def read(text: str, role: str, most: int | None = MAX_ROWS) -> list[Row]:
    """The people of a list, one a line, in whatever way people write them; `role` for who has none there.

    Raises Refused `import_empty`, `import_long`.
    """
    if most is not None and len(text) > MAX_TEXT:
        raise Refused("import_long", rows=most)
    rows: list[Row] = []
    seen: set[str] = set()
    for row in _people(text.removeprefix("\ufeff"), role):
        if len(rows) == most:
            raise Refused("import_long", rows=most)
        if row.address and row.address in seen:
            row = replace(row, outcome=TWICE)
        seen.add(row.address)
        rows.append(row)
    if not rows:
        raise Refused("import_empty")
    return rows


def _people(text: str, role: str) -> Iterator[Row]:
    order: list[str] | None = None
    # Not splitlines: in a name a form feed is an odd character, and no new line.
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if not line.strip(" \t;,"):
            continue
        cells = _cells(line[:MAX_LINE])
        if order is None:
            order = _head(cells)
            if order:
                continue
        yield from _rows(number, cells, order, role)


def _cells(line: str) -> list[str]:
    """What stands between tabs, semicolons or commas: the first of these that is in the line, outside quotes."""
    if _NAMED.fullmatch(line):
        # A comma in a name parts nothing.
        return [line.strip(" \t;,")]
    bare = re.sub(r'"[^"]*"', "", line)
    delimiter = next((d for d in DELIMITERS if d in bare), ",")
    # Line by line: a quote that nobody closed spoils one of them and no more.
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _head(cells: list[str]) -> list[str]:
    """What the columns are, if this is a line that says so; "" for those that we do not read. Else []."""
    said = [cell.lower() for cell in cells]
    order = [next((key for key, names in _HEADS.items() if s in names), "") for s in said]
    return order if "address" in order else []


def _rows(line: int, cells: list[str], order: list[str], role: str) -> Iterator[Row]:
    if order:
        named = dict(zip(order, cells, strict=False))
        yield _row(
            line, named.get("address", ""), named.get("name", ""), named.get("role", ""), role
        )
        return
    addresses = [cell for cell in cells if _AT.search(cell)]
    if len(addresses) > 1:
        # As in the "To:" of a mail.
        for cell in addresses:
            yield _row(line, cell, "", "", role)
        return
    address = addresses[0] if addresses else cells[0]
    name, its_role, *_ = *(cell for cell in cells if cell is not address), "", ""
    yield _row(line, address, name, its_role, role)


def _row(line: int, typed: str, name: str, its_role: str, role: str) -> Row:
    shown = typed[:MAX_SHOWN]
    if named := _NAMED.fullmatch(typed):
        name, typed = name or named[1].strip().strip('"'), named[2]
    address, outcome = canonical(typed) or "", ""
    try:
        name = tidy_name(name, optional=True)
    except Refused as no:
        name, outcome = "", no.reason
    if not address:
        outcome = "email_invalid"
    return Row(line, shown, address, name, its_role.lower() or role, outcome)


# ---- doing
@dataclass(frozen=True)
class Importing(Office):
    """`actor` as in Office: an admin of the site, or the command line."""

    inviting: Inviting

    def choices(self) -> tuple[list[Tenant], list[str]]:
        """The organisations and roles that there are."""
        return tenants.every(self.db), users.roles(self.db)

    def tenant(self, id: str) -> Tenant | None:
        """Raises Refused `tenant_unknown`; "" is none."""
        return self.inviting.organisation(self.db, id) if id else None

    def foresee(self, rows: Sequence[Row], tenant: Tenant | None) -> list[Row]:
        """What each would do. Changes nothing."""
        known = set(users.roles(self.db))
        return [replace(row, outcome=self._outcome(self.db, row, tenant, known)) for row in rows]

    def put(
        self, actor: User | None, rows: Sequence[Row], tenant: Tenant | None, source: Source
    ) -> list[Row]:
        """Add them, and invite them where there is an organisation, in one transaction; what became of each.

        Raises Refused `not_admin`, `tenant_unknown`; then nothing was done of these.
        """
        with self._change(actor) as t:
            known = set(users.roles(t))
            if tenant:
                self.inviting.organisation(t, tenant.id)
            return [self._put(t, actor, row, tenant, known, source) for row in rows]

    def _put(
        self,
        t: Any,
        actor: User | None,
        row: Row,
        tenant: Tenant | None,
        known: set[str],
        source: Source,
    ) -> Row:
        person = t, actor, row.address, row.name
        if tenant:
            outcome = self._outcome(t, row, tenant, known)
            if outcome == INVITED:
                # On the site they are as everybody; their role is for the organisation.
                id, _ = self.inviting.person(*person, "user", source)
                self.inviting.ask(t, actor, tenant.id, id, row.address, row.role, source)
        elif not (outcome := self._problem(row, known)):
            _, added = self.inviting.person(*person, row.role, source)
            outcome = ADDED if added else KNOWN
        return replace(row, outcome=outcome)

    def _problem(self, row: Row, known: set[str]) -> str:
        """Why nothing can be done with it, whoever it is."""
        if row.outcome == TWICE or row.outcome in BAD:
            return row.outcome
        return "" if row.role in known else "role_unknown"

    def _outcome(self, t: Any, row: Row, tenant: Tenant | None, known: set[str]) -> str:
        if problem := self._problem(row, known):
            return problem
        user = users.by_address(t, row.address)
        if tenant is None:
            return KNOWN if user else ADDED
        if user is None:
            return INVITED
        if tenants.role_of(t, tenant.id, user.id) is not None:
            return MEMBER
        waits = invitations.waits(t, tenant.id, user.id, user.address, int(self.clock()))
        return WAITING if waits else INVITED


def batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """So many as are done in one transaction."""
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]
