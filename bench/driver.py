"""One server on fresh data, and people who sign in to it. What an app says for itself is in its TOML: vestibule.toml, peers/."""

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
import subprocess
import tempfile
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path

from harness import Browser, cpu_seconds, tree

HERE = Path(__file__).resolve().parent
CODE = re.compile(r"(?<![0-9A-Za-z#/@.=&-])(\d{6})(?![0-9A-Za-z@=&-])")
FORMS, PROGRAM = ("create", "verify", "page"), ("login", "tokens", "me")
HELLO = {
    "start": "{python} -m uvicorn hello:app --host 127.0.0.1 --port {port} --no-access-log --log-level warning".split(),
    "ready": "/",
    "env": {},
    "flow": {"page": {"path": "/", "expect": 200, "contains": "hello"}},
}


# ---- one server
class Server:
    """A fresh process on fresh data, for `async with`."""

    def __init__(self, spec, cwd, python, work, smtp_port=0, users=0, prepared=None):
        self.spec, self.cwd, self.work, self.prepared = spec, cwd, work, prepared
        self.port = free_port()
        self.names = {"python": python, "port": self.port, "smtp_port": smtp_port}
        self.names |= {"users": users, "peers": HERE / "peers"}

    def fill(self, text, **more):
        for name, value in {**self.names, **more}.items():
            text = text.replace("{" + name + "}", str(value))
        return text

    def environment(self, data):
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
        # Compiled once for all rounds, and not beside the app.
        env |= {"HOME": str(data), "PYTHONPYCACHEPREFIX": str(self.work / "compiled")}
        return env | {k: self.fill(v, data=data) for k, v in self.spec["env"].items()}

    def prepare(self, data):
        """The tables and people that an app wants to find, for each round a copy."""
        command = [self.fill(word) for word in self.spec["prepare"]]
        done = subprocess.run(
            command, cwd=self.cwd, env=self.environment(data), capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{command} failed:\n{(done.stdout + done.stderr)[-1500:]}")

    async def __aenter__(self):
        data = Path(tempfile.mkdtemp(dir=self.work))
        if self.prepared:
            shutil.copytree(self.prepared, data, dirs_exist_ok=True)
        self.log, env = data / "log", self.environment(data)
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

    async def step(self, name, browser, address="", code=""):
        """One request of the flow. Raises when the answer is not the expected one."""
        spec = self.spec["flow"][name]
        for cookie, value in spec.get("cookies", {}).items():
            browser.cookies[cookie] = value
        cookies = {f"cookie:{name}": value for name, value in browser.cookies.items()}
        known = {"email": address, "code": code, **cookies, **browser.kept}
        headers = {k: self.fill(v, **known) for k, v in spec.get("headers", {}).items()}
        if "form" in spec:
            form = {k: self.fill(v, **known) for k, v in spec["form"].items()}
            status, body = await browser.post(spec["path"], form, headers)
        elif "json" in spec:
            sent = {k: self.fill(v, **known) for k, v in spec["json"].items()}
            status, body = await browser.post_json(spec["path"], sent, headers)
        else:
            status, body = await browser.get(self.fill(spec["path"], **known), headers)
        if status != spec["expect"] or self.fill(spec.get("contains", ""), **known) not in body:
            raise RuntimeError(f"{name} for {address}: {status} {body[:300]}")
        if "keep" in spec:
            answer = json.loads(body)
            browser.kept |= {key: answer[key] for key in spec["keep"]}

    def code_in(self, raw):
        """What a mail asks to enter; None when it asks for nothing, as a notice does."""
        message = email.message_from_bytes(raw, policy=email.policy.default)
        text = message.get_body(("plain",)).get_content()
        if "code" in self.spec:
            found = re.search(self.spec["code"], text)
        else:
            found = CODE.search(re.sub(r"https?://\S+", " ", text))
        return found and found[1]


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

    async def ask(self, browser, address, step="create"):
        """Ask for a code, and wait for the mail."""
        browser.forget()
        mail = self.sink.expect(address)
        await self.server.step(step, browser, address)
        return await asyncio.wait_for(mail, 30)

    async def ask_only(self, browser):
        with self.somebody() as address:
            await self.ask(browser, address)

    async def sign_in(self, browser, steps=FORMS):
        ask, enter, look = steps
        with self.somebody() as address:
            code = self.server.code_in(await self.ask(browser, address, ask))
            await self.server.step(enter, browser, address, code)
            await self.server.step(look, browser, address)
            return address

    async def settle(self, steps=FORMS):
        """Each browser in a session of its own. Returns the job that opens its page again."""
        who = {browser: await self.sign_in(browser, steps) for browser in self.browsers}

        async def look(browser):
            await self.server.step(steps[-1], browser, who[browser])

        return look

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

    async def cost(self, n, job):
        """CPU seconds of one."""
        cpu, _, times = await self.do(n, job)
        return cpu / len(times)

    def close(self):
        for browser in self.browsers:
            browser.close()
