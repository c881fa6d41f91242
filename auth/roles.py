"""What people may be: a name and what it is for. SQL only; who may change them is people.py."""

from dataclasses import dataclass
from typing import Any

MOST = 10_000  # are counted


@dataclass(frozen=True)
class Role:
    name: str
    description: str
    people: int  # who have it, here or in an organisation, up to MOST

    @property
    def counted_out(self) -> bool:
        """Are there this many, or more?"""
        return self.people == MOST


def every(t: Any) -> list[Role]:
    rows = t.q(
        "select r.name, r.description,"
        " (select count(*) from (select 1 from users u where u.role = r.name limit :most) as here)"
        " + (select count(*) from (select 1 from memberships m where m.role = r.name limit :most) as there)"
        " as people from roles r order by r.name",
        most=MOST,
    )
    return [Role(**row | {"people": min(MOST, row["people"])}) for row in rows]


def put(t: Any, name: str, description: str) -> None:
    """A new role, or another description of one."""
    t.q(
        "insert into roles (name, description) values (:name, :description)"
        " on conflict (name) do update set description = excluded.description",
        name=name,
        description=description,
    )


def delete(t: Any, name: str) -> None:
    t.q("delete from roles where name = :name", name=name)
