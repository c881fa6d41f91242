"""What auth needs of the rooms that it does not know: a database, and the words and pages."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Database(Protocol):
    """What auth needs of a database: one statement, several as one, and from async code."""

    Unavailable: type[Exception]
    skip_locked: str  # what `select … limit n` ends with to pass over rows in other hands, or ""

    def q(self, sql: str, **params: Any) -> list[dict[str, Any]]: ...

    def tx(
        self,
        lock: int | None = None,
        *,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Any]: ...

    async def run(self, f: Callable[..., Any], *args: Any, **kw: Any) -> Any: ...


class Templates(Protocol):
    """What auth needs of the words and pages. Data in; HTML, or what renders to it, out."""

    def page(self, title: str, *content: Any, caller: Any = None, width: str = "") -> str: ...

    def fragment(self, title: str, *content: Any) -> str: ...

    def login(
        self, next_path: str, address: str = "", refused: Any = None, done: str = ""
    ) -> Any: ...

    def code(self, pending: Any, refused: Any = None, notice: str = "") -> Any: ...

    def code_over(
        self, address: str, next_path: str, refused: Any, title: str = "Enter your code"
    ) -> Any: ...

    def sorry(self, what: int | str) -> str: ...

    def again(self, pending: Any, slow: bool = False) -> Any: ...

    def link(self, address: str | None, caller: Any, refused: Any = None) -> Any: ...

    def elsewhere(self, found: Any) -> Any: ...

    def no_access(self) -> Any: ...

    def problem(self, what: int | str, request_id: str = "", caller: Any = None) -> Any: ...

    def account(
        self,
        own: Any,
        caller: Any,
        done: str = "",
        refused: Any = None,
        place: str = "",
        typed: str = "",
    ) -> Any: ...

    def leave_sure(self, membership: Any) -> Any: ...

    def undo(self, refused: Any = None) -> Any: ...

    def undone(self, address: str) -> Any: ...

    def move_letter(
        self, address: str, code: str, asked_at: int, timezone: str, asked_by: str
    ) -> Any: ...

    def delete_sure(self, caller: Any) -> Any: ...

    def confirm(self, address: str, next_path: str) -> Any: ...

    def people(
        self, page: Any, caller: Any, refused: Any = None, notice: Any = None, bouncing: Any = ()
    ) -> Any: ...

    def person(
        self, page: Any, caller: Any, done: str = "", refused: Any = None, bounces: bool = False
    ) -> Any: ...

    def roles_page(self, roles: Any, done: str = "", refused: Any = None) -> Any: ...

    def person_sure(self, user: Any) -> Any: ...

    def offer(self, path: str, name: str) -> None: ...

    def tenants_page(self, page: Any, done: str = "", refused: Any = None) -> Any: ...

    def tenant_page(self, page: Any, caller: Any, done: str = "", refused: Any = None) -> Any: ...

    def tenant_sure(self, page: Any) -> Any: ...

    def member_page(self, page: Any, caller: Any, done: str = "", refused: Any = None) -> Any: ...

    def member_sure(self, page: Any, caller: Any) -> Any: ...

    def invitations_page(
        self, page: Any, caller: Any, done: str = "", refused: Any = None
    ) -> Any: ...

    def own_invitations(
        self, invitations: Any, caller: Any, done: str = "", refused: Any = None
    ) -> Any: ...

    def import_page(self, tenants: Any, roles: Any, typed: Any, refused: Any = None) -> Any: ...

    def import_preview(self, plan: Any, caller: Any) -> Any: ...

    def import_done(self, plan: Any, refused: Any = None) -> Any: ...

    def overview(self, counts: Any, counted_at: int | None, days: Any, caller: Any) -> Any: ...

    def audit_page(self, page: Any, caller: Any, tenant: Any = None) -> Any: ...

    def audit_csv(self, rows: Any) -> str: ...

    def mail_page(self, page: Any, caller: Any, done: str = "") -> Any: ...

    def mail_sure(self, action: str, row: Any, place: dict[str, str], caller: Any) -> Any: ...

    def code_letter(
        self,
        address: str,
        code: str,
        link: str,
        link_seconds: int,
        asked_at: int,
        timezone: str,
        asked_by: str,
        app: bool,
    ) -> Any: ...

    def invitation_letter(
        self, address: str, organisation: str, link_seconds: int, link: str
    ) -> Any: ...

    def told(self, reason: str, facts: dict[str, Any]) -> str: ...

    def notice_letter(
        self,
        kind: str,
        address: str,
        at: int,
        timezone: str,
        device: str,
        link: str = "",
        link_seconds: int = 0,
    ) -> Any: ...
