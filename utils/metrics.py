"""How the app is doing, for Prometheus: counted in memory while it works, looked up when somebody asks.

Each process counts for itself. No label holds what a client sent, or who anybody is. Knows no event by name.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from secrets import compare_digest
from time import perf_counter
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from utils.database import Database, Unavailable
from utils.outbox import Queue
from utils.shield import Asgi, Receive, Scope, Send, Shield

PATH = "/metrics"
HEALTH = ("/healthz", "/readyz")  # the shield answers these, so they have no route
SECONDS = (0.005, 0.025, 0.1, 0.5, 1, 5)
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
STATES = ("queued", "sending", "accepted", "void", "expired", "dead")


class Metrics:
    """The figures, who may read them, and the page where they stand.

    `token`: the bearer token for it. `events`: what may be heard, and how it may have happened.
    """

    def __init__(self, token: str, events: Mapping[str, Iterable[str]]):
        # Here, so that only who wants figures pays for loading it.
        import prometheus_client as client

        # Or each has a second series, of no use here.
        client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._client, self._token = client, token.encode()
        # Of our own: two apps in one process must not meet in the library's.
        self._registry = own = client.CollectorRegistry()
        client.ProcessCollector(registry=own)
        self._requests = client.Histogram(
            "vestibule_request_seconds",
            "Answers by route, method and class of status, with the time until they were sent",
            ("route", "method", "status"),
            buckets=SECONDS,
            registry=own,
        )
        heard = client.Counter(
            "vestibule_events", "What happened at signing in", ("event", "how"), registry=own
        )
        # All of them at the start: of a series that begins with its first event no rise is seen.
        self._events = {
            (e, how): heard.labels(e, how) for e, hows in events.items() for how in hows
        }
        self._calls = client.Histogram(
            "vestibule_database_seconds",
            "Calls into the database by requests, with the wait for it",
            buckets=SECONDS,
            registry=own,
        )
        self._errors = client.Counter(
            "vestibule_database_errors", "Calls that the database could not serve", registry=own
        )
        self._children: dict[tuple[str, str, int], Any] = {}

    # ---- what is told
    def heard(self, what: str, how: str) -> None:
        """One more of these. What was not named at the start is not counted: labels stay few."""
        if counter := self._events.get((what, how)):
            counter.inc()

    def timed(self, db: Database) -> Any:
        """The same database, whose calls from requests are counted."""
        return _Timed(db, self._calls.observe, self._errors.inc)

    # ---- who may read
    def allows(self, scope: Mapping[str, Any]) -> bool:
        """Does this request ask for the figures, with the token?"""
        if scope["type"] != "http" or scope["path"] != PATH:
            return False
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        # In constant time, or its beginning could be found out letter by letter.
        return scheme.lower() == b"bearer" and compare_digest(token, self._token)

    def watch(
        self,
        app: Any,
        shield: Shield,
        queue: Callable[[], Queue],
        spent: Callable[[], Mapping[str, bool]],
    ) -> Asgi:
        """Add the page to the app, and count what the shield answers. `queue` and `spent` are asked when
        somebody reads: how the mail is doing, and which shares of the whole site are used up."""
        self._registry.register(_Figures(queue, spent))

        async def figures(request: Request) -> Response:
            if not self.allows(request.scope):
                headers = {"WWW-Authenticate": 'Bearer realm="metrics"'}
                return PlainTextResponse("The token is missing or wrong.\n", 401, headers)
            text = await run_in_threadpool(self._client.generate_latest, self._registry)
            return Response(text, headers={"content-type": self._client.CONTENT_TYPE_LATEST})

        # In front: a page of one's own may answer to every other path.
        app.router.routes.insert(0, Route(PATH, figures, methods=["GET"]))
        # Prometheus asks each process by its own address, and can't send another Host.
        shield.welcome = self.allows

        async def counting(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return await shield(scope, receive, send)
            status, began = 500, perf_counter()

            async def noting(message: dict[str, Any]) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await shield(scope, receive, noting)
            finally:
                self._answered(scope, status, perf_counter() - began)

        return counting

    def _answered(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's pattern, never the path: that has ids in it, and whatever anybody types.
        route = getattr(scope.get("route"), "path", "")
        if not route:
            route = scope["path"] if scope["path"] in HEALTH else "none"
        method = scope["method"] if scope["method"] in METHODS else "other"
        key = (route, method, status // 100)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._requests.labels(route, method, f"{key[2]}xx")
        child.observe(seconds)


class _Timed:
    """What requests see of the database; all else goes to it directly."""

    def __init__(
        self, db: Database, called: Callable[[float], object], failed: Callable[[], object]
    ):
        self.q, self.tx, self.skip_locked = db.q, db.tx, db.skip_locked
        self.settle = db.settle
        self.Unavailable = db.Unavailable
        self._run, self._called, self._failed = db.run, called, failed

    async def run(self, f: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        began = perf_counter()
        try:
            return await self._run(f, *args, **kw)
        except self.Unavailable:
            self._failed()
            raise
        finally:
            self._called(perf_counter() - began)


class _Figures:
    """What is looked up: the same in every process that shares the database."""

    def __init__(self, queue: Callable[[], Queue], spent: Callable[[], Mapping[str, bool]]):
        self._queue, self._spent = queue, spent

    def describe(self) -> list[Any]:
        return []  # or the library would ask the database at the start

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily as Gauge

        def one(name: str, what: str, value: float) -> Any:
            return Gauge(f"vestibule_{name}", what, value)

        up = "1 while the database answers; 0, and none of what is looked up there, while it does not"
        try:
            mail, spent = self._queue(), self._spent()
        except Unavailable:
            yield one("database_up", up, 0)
            return
        yield one("database_up", up, 1)
        about = "Mails of the last week by state; of those that are over, the newest 50000"
        states = Gauge("vestibule_mails", about, labels=["state"])
        for state in STATES:
            states.add_metric([state], mail.states.get(state, 0))
        yield states
        yield one("mail_oldest_seconds", "How long the oldest open mail waits", mail.oldest_seconds)
        yield one("mail_held", "1 while the provider takes none", bool(mail.held))
        yield one("mail_paused", "1 while an admin has paused all mail", mail.paused)
        yield one("mail_workers", "Processes that send mail", mail.workers)
        shares = Gauge(
            "vestibule_site_spent", "1 while this share of the site is used up", labels=["share"]
        )
        for share, is_spent in spent.items():
            shares.add_metric([share], is_spent)
        yield shares
