"""Several processes on one database, behind the proxy of docs/ops/nginx.conf; one that is replaced by the next; and
clients that take their time.
"""

import signal
import socket
import ssl
import statistics
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import ClassVar

import httpx2
import psycopg
import pytest
import uvicorn

from tests.conftest import environment
from tests.faults import history
from tests.faults.conftest import sqlite_only
from tests.faults.proxy import SITE, Behind, Proxy
from tests.serving import Tab, free_port, together, until
from utils.database import connect
from utils.server import BODY, HEAD, PATIENCE, Protocol
from utils.server import Server as ServerOfOurs

ADA = "ada@example.org"
SLOW = 300  # connections
postgres_only = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def pair(database_url, tmp_path, chaos):
    """Two processes, and nginx before them."""
    env = environment(database_url, tmp_path, SMTP_PORT=chaos.port, SIGNUP="open")
    both = [Behind(env, tmp_path) for _ in range(2)]
    try:
        together(2, lambda n: both[n].start())
        with Proxy(tmp_path / "nginx", [server.port for server in both]) as proxy:
            yield *both, proxy
    finally:
        for server in both:
            server.kill()


def test_N3_both_processes_are_replaced_under_load_and_no_request_fails(pair, chaos, database_url):
    *both, proxy = pair
    with closing(connect(database_url)) as db:
        with history.Crowd(chaos, proxy) as crowd:
            for server in both:
                so_far = len(crowd.arrived())
                until(lambda so_far=so_far: len(crowd.arrived()) > so_far + 10, 30)
                server.stop()
                server.start()
            so_far = len(crowd.arrived())
            until(lambda: len(crowd.arrived()) > so_far + 10, 30)
        assert not crowd.bad(), (crowd.bad()[:3], len(crowd.answers), proxy.errors[-2000:])
        crowd.settle(db)


def test_N3_a_process_that_ends_takes_what_had_come_already(serve):
    """Connected before the end, and asked after it; and one whose connection nobody had taken yet."""
    server = serve(MAIL_BACKEND="none")
    request = b"POST /logout HTTP/1.1\r\nHost: %s\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n\r\n"
    request %= server.url.removeprefix("http://").encode()
    early = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    until(lambda: connections(server) >= 20)
    with stopped(server):
        late = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        server.process.terminate()
    until(lambda: not listening(server))
    for s in (*early, *late):
        s.sendall(request)
    answers = [read_all(s) for s in (*early, *late)]
    assert all(answer.startswith(b"HTTP/1.1 303") for answer in answers), answers[:2]
    assert all(b"connection: close" in answer for answer in answers)
    server.process.wait(10)


def test_M8_N3_a_code_that_one_process_mailed_works_once_at_another_of_later(pair, chaos):
    first, second, proxy = pair
    direct, behind = Tab(first, second), Tab(proxy)
    direct.send("POST", "/create_code", headers=ours(), data={"email": ADA})
    first.stop()
    first.start()
    behind.cookies = dict(direct.cookies)
    code = chaos.code(ADA)
    answers = together(
        5,
        lambda n: behind.send(
            "POST", "/verify_code", headers=ours(), keep=False, data={"code": code}
        ),
    )
    assert sorted(a.status_code for a in answers) == [303] + [410] * 4
    (cookies,) = (a.headers.get_list("set-cookie") for a in answers if a.status_code == 303)
    token = next(c for c in cookies if c.startswith("__Host-session=")).split(";")[0]
    for server in (first, second):
        answer = server.client.get("/dashboard", headers={"Host": SITE, "Cookie": token})
        assert answer.status_code == 200 and ADA in answer.text


def ours():
    return {"Host": SITE, "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}


def test_C8_behind_the_documented_proxy_clients_are_told_apart_and_cant_choose(
    database_url, tmp_path
):
    env = environment(database_url, tmp_path, LIMIT_STARTS_PER_IP="3/1h", MAIL_BACKEND="none")
    server = Behind(env, tmp_path)
    try:
        server.start()
        with Proxy(tmp_path / "nginx", [server.port, server.port]) as proxy:

            def ask(spoof, source):
                transport = httpx2.HTTPTransport(local_address=source, verify=proxy.trust)
                with httpx2.Client(transport=transport, base_url=proxy.url) as client:
                    headers = ours() | {"X-Forwarded-For": spoof}
                    return client.post("/create_code", data={"email": ADA}, headers=headers)

            # On loopback there are many addresses, and only one of them is the proxy's.
            answers = [ask(f"192.0.2.{n}", "127.0.7.7").status_code for n in range(5)]
            assert answers == [303] * 3 + [429] * 2
            assert ask("192.0.2.9", "127.9.9.9").status_code == 303
    finally:
        server.kill()


@postgres_only
def test_N3_a_process_keeps_to_its_eight_connections(serve, postgres):
    servers = [serve(MAIL_BACKEND="none", SIGNUP="open") for _ in range(2)]
    with psycopg.connect(postgres, autocommit=True) as watcher:
        sql = "select count(*) from pg_stat_activity where backend_type = 'client backend'"
        before = watcher.execute(sql).fetchone()[0]  # each has one at least

        def ask(n):
            tab = Tab(*servers)
            status = tab.post("/create_code", at=n % 2, email=f"p{n}@example.org").status_code
            return status, watcher.execute(sql).fetchone()[0] if n % 10 == 0 else 0

        seen = together(60, ask)
    assert {status for status, _ in seen} == {303}
    assert max(n for _, n in seen) <= before + 2 * (8 - 1)


# ---- J2: clients that take their time
def connections(server):
    """How many that others opened to it, as the system sees them."""
    port, n = f":{server.port:04X}", 0
    with open("/proc/net/tcp") as table:
        for line in table:
            local, _, state = line.split()[1:4]
            n += local.endswith(port) and state == "01"
    return n


def listening(server):
    with suppress(OSError), closing(socket.create_connection(("127.0.0.1", server.port), 0.2)):
        return True
    return False


@contextmanager
def stopped(server):
    """The process stands still; the system goes on accepting for it."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def read_all(s, seconds=15):
    s.settimeout(seconds)
    told = b""
    with closing(s), suppress(ConnectionError):
        while piece := s.recv(65536):
            told += piece
    return told


class Slow:
    """Connections that send a byte a second and never come to an end: heads and bodies."""

    def __init__(self, connect, host, n):
        self.began, self.sent, self.ended, self.sockets = time.monotonic(), 0.0, {}, {}
        head = f"POST /create_code HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: same-origin\r\n"
        body = (
            "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\nemail="
        )
        for i in range(n):
            s = connect()
            s.sendall((head + body if i % 2 else head).encode())
            s.setblocking(False)
            self.sockets[s] = BODY if i % 2 else HEAD

    def go_on(self):
        """One byte more for those that are open, each second; notes which are not."""
        drip = time.monotonic() - self.sent > 1
        self.sent = time.monotonic() if drip else self.sent
        for s in [s for s in self.sockets if s not in self.ended]:
            try:
                if drip:
                    s.send(b"a")
                over = s.recv(4096) == b""
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            except OSError:
                over = True
            if over:
                self.ended[s] = time.monotonic() - self.began

    def open(self, what):
        return [s for s, kind in self.sockets.items() if kind == what and s not in self.ended]

    def close(self):
        for s in self.sockets:
            s.close()


def p99(times):
    return statistics.quantiles(times, n=100)[98]


def quick(client, n=60):
    """GET /healthz so often; the seconds of each."""
    times = []
    for _ in range(n):
        began = time.monotonic()
        assert client.get("/healthz").status_code == 200
        times.append(time.monotonic() - began)
    return times


@sqlite_only
def test_J2_slow_clients_hinder_nobody_and_end_in_time(pair):
    """Before the proxy they do not even reach the app; without one they have ten seconds for a head."""
    first, second, proxy = pair

    def to_proxy():
        plain = socket.create_connection(("127.0.0.1", proxy.port))
        return proxy.trust.wrap_socket(plain, server_hostname=SITE)

    def direct():
        return socket.create_connection(("127.0.0.1", first.port))

    slow = [Slow(direct, SITE, SLOW), Slow(to_proxy, SITE, 90)]
    try:
        until(lambda: connections(first) >= SLOW)
        for client in (first.client, second.client, proxy.client):
            assert p99(quick(client)) < 0.3
        assert connections(first) <= SLOW + 4 and connections(second) <= 4
        assert Tab(proxy).post("/create_code", email=ADA).status_code == 303

        def heads_over():
            for each in slow:
                each.go_on()
            return not any(each.open(HEAD) for each in slow)

        until(heads_over, PATIENCE[HEAD] + 8)
        # A body has longer; the first heads did not end before their time.
        assert len(slow[0].open(BODY)) == SLOW / 2
        assert min(slow[0].ended.values()) > PATIENCE[HEAD] - 1
        assert connections(second) <= 4
    finally:
        for each in slow:
            each.close()
    until(lambda: connections(first) <= 4)


class Hasty(Protocol):
    patience: ClassVar = {HEAD: 0.4, BODY: 0.8}


@pytest.fixture
def hasty():
    """A server in a thread whose patience is short; (address, how many requests it heard to the end)."""
    heard = []

    async def app(scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        heard.append(body)
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
        )
        await send({"type": "http.response.body", "body": b"ok"})

    port = free_port()
    config = uvicorn.Config(app, port=port, http=Hasty, lifespan="off", log_config=None, ws="none")
    server = ServerOfOurs(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    yield ("127.0.0.1", port), heard
    server.should_exit = True
    thread.join(10)


def test_J2_each_part_of_a_request_has_its_time_and_no_more(hasty):
    address, heard = hasty
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"

    def life(*pieces, drip=b""):
        """What was answered until the connection ended, and how long it lived."""
        began = time.monotonic()
        with socket.create_connection(address) as s:
            s.settimeout(0.05)
            told = b""
            for piece in pieces:
                s.sendall(piece)
            while time.monotonic() - began < 10:
                try:
                    piece = s.recv(4096)
                except TimeoutError:
                    with suppress(OSError):
                        s.sendall(drip)
                    continue
                except OSError:
                    break
                if not piece:
                    break
                told += piece
            return told.count(b"200 OK"), time.monotonic() - began

    for pieces, drip, answers, least, most in (
        ([], b"", 0, 0.4, 2),  # nothing at all
        ([b"POST / HTTP/1.1\r\nX: "], b"a", 0, 0.4, 2),
        ([b"\r\n"], b"\r\n", 0, 0.4, 2),
        ([head], b"", 0, 0.8, 2.5),
        ([head[:-20]], b"", 0, 0.4, 2),
        ([head + b"abc", b"POST /"], b"x", 1, 0.4, 2),  # the second of a kept connection
        ([head + b"abc", head], b"", 1, 0.8, 2.5),
        ([head + b"abc" + head + b"abc"], b"\r\n", 2, 0.4, 2),
    ):
        told, seconds = life(*pieces, drip=drip)
        # The loop counts whole milliseconds.
        assert told == answers and least - 0.001 <= seconds < most, (pieces, told, seconds)
    assert heard == [b"abc"] * 4


@sqlite_only
def test_J2_one_client_has_a_hundred_connections_at_the_proxy(pair):
    proxy = pair[-1]
    gate = [
        proxy.trust.wrap_socket(
            socket.create_connection(("127.0.0.1", proxy.port)), server_hostname=SITE
        )
        for _ in range(110)
    ]
    for s in gate:  # counted once the head is there
        s.sendall(
            f"POST /create_code HTTP/1.1\r\nHost: {SITE}\r\nContent-Length: 9\r\n\r\nx".encode()
        )
    refused = set()

    def ten():
        for s in gate:
            s.setblocking(False)
            with suppress(OSError):
                if s.recv(100).startswith(b"HTTP/1.1 429"):
                    refused.add(s)
        return len(refused) >= 10

    try:
        until(ten)
        assert len(refused) == 10
    finally:
        for s in gate:
            s.close()
