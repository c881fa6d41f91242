"""The server's CPU for a complete sign-in, beside a bare Starlette hello in the same run. See README.md.

python bench/bench.py                 the app in the folder above, three rounds, one to two minutes
python bench/bench.py --rounds 7      the same, steadier
"""

import argparse
import asyncio
import email
import email.policy
import gc
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import deque
from contextlib import contextmanager
from pathlib import Path

sys.dont_write_bytecode = True
from harness import Browser, Sink, cpu_seconds, memory_mb, tree  # noqa: E402

HERE = Path(__file__).resolve().parent
SLICES = 5  # page and hello take turns, so that a slow moment of the machine hits both
CODE = re.compile(r"(?<![0-9A-Za-z#/@.=&-])(\d{6})(?![0-9A-Za-z@=&-])")
HELLO = {
    "start": "{python} -m uvicorn hello:app --host 127.0.0.1 --port {port} --no-access-log --log-level warning".split(),
    "ready": "/",
    "env": {},
    "flow": {"page": {"path": "/", "expect": 200, "contains": "hello"}},
}


# ---- one server
class Server:
    """A fresh process on fresh data, for `async with`."""

    def __init__(self, spec, cwd, python, work, smtp_port=0):
        self.spec, self.cwd, self.work = spec, cwd, work
        self.port = free_port()
        self.names = {"python": python, "port": self.port, "smtp_port": smtp_port}

    def fill(self, text, **more):
        for name, value in {**self.names, **more}.items():
            text = text.replace("{" + name + "}", str(value))
        return text

    async def __aenter__(self):
        data = Path(tempfile.mkdtemp(dir=self.work))
        # What a .env in the app's folder says is blanked: the run must not reach a real database.
        dotenv = self.cwd / ".env"
        named = (
            re.findall(r"^\s*(?:export\s+)?(\w+)\s*=", dotenv.read_text(), re.M)
            if dotenv.is_file()
            else []
        )
        env = dict.fromkeys(named, "") | {
            k: os.environ[k] for k in ("PATH", "LANG") if k in os.environ
        }
        env |= {"HOME": str(data), "PYTHONDONTWRITEBYTECODE": "1"}
        env |= {k: self.fill(v, data=data) for k, v in self.spec["env"].items()}
        self.log = data / "log"
        with open(self.log, "wb") as log:
            begin = time.perf_counter()
            self.process = subprocess.Popen(
                [self.fill(word) for word in self.spec["start"]],
                cwd=self.cwd, env=env, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.pid = self.process.pid
        try:
            await self.answers()
        except BaseException:
            await self.__aexit__()
            raise
        self.start_s = time.perf_counter() - begin
        return self

    async def answers(self):
        browser, deadline = Browser(self.port), time.perf_counter() + 30
        while True:
            try:
                status, body = await browser.get(self.spec["ready"])
                browser.close()
                if status != 200:
                    raise RuntimeError(f"{self.spec['ready']} answered {status}: {body[:300]}")
                return
            except OSError:
                if self.process.poll() is not None or time.perf_counter() > deadline:
                    raise RuntimeError(
                        f"the server did not start:\n{self.log.read_text()[-1500:]}"
                    ) from None
                await asyncio.sleep(0.003)

    async def __aexit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            for pid in reversed(tree(self.pid)):
                os.kill(pid, signal.SIGKILL)
            self.process.wait()

    async def step(self, name, browser, address="", code="", **more):
        """One request of the flow; its answer. Raises when that is not the expected one."""
        spec = self.spec["flow"][name]
        known = {"email": address, "code": code, **more}
        headers = {k: self.fill(v, **known) for k, v in spec.get("headers", {}).items()}
        if "form" in spec:
            form = {k: self.fill(v, **known) for k, v in spec["form"].items()}
            status, body = await browser.post(spec["path"], form, headers)
        elif "json" in spec:
            sent = {k: self.fill(v, **known) for k, v in spec["json"].items()}
            status, body = await browser.post_json(spec["path"], sent, headers)
        else:
            status, body = await browser.get(spec["path"], headers)
        if status != spec["expect"] or self.fill(spec.get("contains", ""), **known) not in body:
            raise RuntimeError(f"{name} for {address}: {status} {body[:300]}")
        return body


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# ---- what people do
class Crowd:
    """`width` browsers at once on one server."""

    def __init__(self, server, sink, users, width):
        self.server, self.sink, self.wrong = server, sink, []
        self.browsers = [Browser(server.port) for _ in range(width)]
        self.idle = deque(f"user{i:05d}@example.com" for i in range(users))

    @contextmanager
    def somebody(self):
        """An address that nobody else uses meanwhile, or two would wait for one mail."""
        address = self.idle.popleft()
        yield address
        self.idle.append(address)

    async def ask(self, browser, address):
        """Ask for a code and wait for its mail."""
        browser.forget()
        mail = self.sink.expect(address)
        await self.server.step("create", browser, address)
        return await asyncio.wait_for(mail, 30)

    async def sign_in(self, browser):
        with self.somebody() as address:
            code = code_in(await self.ask(browser, address))
            await self.server.step("verify", browser, address, code)
            await self.server.step("page", browser, address)
            return address

    async def sign_in_app(self, browser):
        """(address, access token) of a program's sign-in."""
        with self.somebody() as address:
            browser.forget()
            mail = self.sink.expect(address)
            asked = json.loads(await self.server.step("login", browser, address))
            code = code_in(await asyncio.wait_for(mail, 30))
            given = json.loads(await self.server.step("tokens", browser, address, code, **asked))
            return address, given["access_token"]

    async def do(self, n, job):
        """`job(browser)` n times, as many at once as there are browsers. CPU seconds, wall seconds, time of each."""
        turns, times = iter(range(n)), []

        async def work(browser):
            for _ in turns:
                start = time.perf_counter()
                try:
                    await job(browser)
                    times.append(time.perf_counter() - start)
                except Exception as error:
                    self.wrong.append(f"{type(error).__name__}: {str(error)[:300]}")

        gc.collect()
        gc.disable()
        cpu, wall = cpu_seconds(self.server.pid), time.perf_counter()
        await asyncio.gather(*map(work, self.browsers))
        cpu, wall = cpu_seconds(self.server.pid) - cpu, time.perf_counter() - wall
        gc.enable()
        if not times:
            raise RuntimeError(f"nothing worked: {self.wrong[0]}")
        return cpu, wall, times

    def close(self):
        for browser in self.browsers:
            browser.close()


def code_in(raw):
    message = email.message_from_bytes(raw, policy=email.policy.default)
    text = re.sub(r"https?://\S+", " ", message.get_body(("plain",)).get_content())
    found = CODE.search(text)
    return found and found[1]


# ---- one measurement
async def measure(server, hello, sink, width, a):
    crowd, greeters = Crowd(server, sink, a.users, width), Crowd(hello, sink, 0, width)

    async def ask(browser):
        with crowd.somebody() as address:
            await crowd.ask(browser, address)

    async def greet(browser):
        await hello.step("page", browser)

    # The first sign-in of each user also makes the account, the second also mails a notice.
    await crowd.do(2 * a.users + a.warm, crowd.sign_in)
    mails, connections = sink.mails, sink.connections
    cpu, wall, times = await crowd.do(a.signins, crowd.sign_in)
    result = {
        "width": width,
        "signin_ms": cpu / len(times) * 1e3,
        "per_s": len(times) / wall,
        "p50_ms": percentile(times, 0.5) * 1e3,
        "p99_ms": percentile(times, 0.99) * 1e3,
        "connections_per_mail": (sink.connections - connections) / max(1, sink.mails - mails),
    }
    cpu, _, times = await crowd.do(a.requests, ask)
    result["create_ms"] = cpu / len(times) * 1e3

    # Each browser in a session of its own.
    who = {browser: await crowd.sign_in(browser) for browser in crowd.browsers}

    async def look(browser):
        await server.step("page", browser, who[browser])

    phones = Crowd(server, sink, a.users, width)
    tokens = {phone: await phones.sign_in_app(phone) for phone in phones.browsers}

    async def call(phone):
        address, token = tokens[phone]
        await server.step("me", phone, address, token=token)

    turns = ((crowd, look), (phones, call), (greeters, greet))
    spent = {job: [] for _, job in turns}
    for people, job in turns:
        await people.do(200, job)
    for _ in range(SLICES):
        for people, job in turns:
            cpu, _, times = await people.do(a.gets // SLICES, job)
            spent[job].append(cpu / len(times) * 1e6)
    for name, (_, job) in zip(("page_us", "me_us", "hello_us"), turns, strict=True):
        result[name] = statistics.median(spent[job])
    result["hellos"] = result["page_us"] / result["hello_us"]
    result["me_hellos"] = result["me_us"] / result["hello_us"]
    result["verify_ms"] = result["signin_ms"] - result["create_ms"] - result["page_us"] / 1e3
    result |= {
        "errors": len(crowd.wrong + phones.wrong + greeters.wrong),
        "error": (crowd.wrong + phones.wrong + greeters.wrong)[:1],
    }
    result |= {"start_s": server.start_s, "rss_mb": memory_mb(server.pid)}
    for people in (crowd, phones, greeters):
        people.close()
    return result


async def run(a):
    spec, results, sink = tomllib.loads(a.target.read_text()), [], Sink(code_in)
    smtp_port = await sink.listen()
    # As Ctrl-C does: the servers are ended on the way out.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    work = Path(tempfile.mkdtemp(prefix="vestibule-bench-"))
    begin = time.monotonic()
    try:
        for turn in range(a.rounds):
            if a.seconds and turn and time.monotonic() - begin > a.seconds:
                break
            for width in a.concurrency:
                async with (
                    Server(HELLO, HERE, a.python, work) as hello,
                    Server(spec, a.cwd, a.python, work, smtp_port) as server,
                ):
                    results.append(await measure(server, hello, sink, width, a))
                r = results[-1]
                print(f"  round {turn + 1}, {width:2} at once: sign-in {r['signin_ms']:.2f} ms, page {r['page_us']:.0f} us, me {r['me_us']:.0f} us, hello {r['hello_us']:.0f} us", file=sys.stderr, flush=True)  # fmt: skip
    finally:
        sink.server.close()
        shutil.rmtree(work, ignore_errors=True)
    return results


# ---- reading it
def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(results):
    """One line for each concurrency: medians over the rounds."""
    heads = ("at once", "sign-in ms", "in hellos", "create ms", "verify ms", "GET us", "me us", "hello us", "GET in hellos", "me in hellos", "sign-ins/s", "p50 ms", "p99 ms", "mail conns", "RSS MB", "start s", "errors")  # fmt: skip
    rows = []
    for width in dict.fromkeys(r["width"] for r in results):
        mine = [r for r in results if r["width"] == width]
        m = {k: statistics.median(r[k] for r in mine) for k in mine[0] if k != "error"}
        low, high = (pick(r["signin_ms"] for r in mine) for pick in (min, max))
        in_hellos = statistics.median(r["signin_ms"] * 1e3 / r["hello_us"] for r in mine)
        rows.append((str(width), f"{m['signin_ms']:.2f} [{low:.2f}-{high:.2f}]", f"{in_hellos:.0f}", f"{m['create_ms']:.2f}",
                     f"{m['verify_ms']:.2f}", f"{m['page_us']:.0f}", f"{m['me_us']:.0f}", f"{m['hello_us']:.0f}", f"{m['hellos']:.1f}", f"{m['me_hellos']:.1f}", f"{m['per_s']:.0f}",
                     f"{m['p50_ms']:.1f}", f"{m['p99_ms']:.1f}", f"{m['connections_per_mail']:.2f}", f"{m['rss_mb']:.0f}",
                     f"{m['start_s']:.2f}", str(sum(r["errors"] for r in mine))))  # fmt: skip
    rows = [heads, tuple("-" * len(head) for head in heads), *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=["run"], help="the only one")
    parser.add_argument("target", nargs="?", type=Path, default=HERE / "vestibule.toml")
    parser.add_argument("--cwd", type=Path, default=HERE.parent, help="folder of the app")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter of the app and of the hello"
    )
    parser.add_argument("--concurrency", default="1,16", help="people at once (1,16)")
    for name, default, meaning in (
        ("rounds", 3, "fresh servers and data in each"),
        ("signins", 500, "measured in a round"),
        ("gets", 2000, "of the page, and as many hellos"),
        ("requests", 300, "codes asked for and not entered"),
        ("users", 300, "people who sign in"),
        ("warm", 100, "sign-ins before it counts"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} ({default})")
    parser.add_argument("--seconds", type=float, help="start no further round after so long")
    parser.add_argument("--json", type=Path, help="write the figures of every round here")
    a = parser.parse_args()
    a.concurrency, a.cwd = [int(n) for n in a.concurrency.split(",")], a.cwd.resolve()
    a.python = os.path.abspath(a.python) if os.sep in a.python else a.python
    try:
        from uvloop import new_event_loop as loop_factory  # a light driver disturbs less
    except ImportError:
        loop_factory = None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        results = runner.run(run(a))
    print(table(results))
    if a.json:
        a.json.write_text(json.dumps(results, indent=1))
    errors = [r["error"][0] for r in results if r["error"]]
    sys.exit(f"not every request worked; the first: {errors[0]}" if errors else 0)


if __name__ == "__main__":
    main()
