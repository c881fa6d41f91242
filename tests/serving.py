"""main.py as a real process, browsers that talk to several of them, and many requests at once."""

import os
import re
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import CookieJar, DefaultCookiePolicy
from http.cookies import SimpleCookie
from pathlib import Path

import httpx2

from tests.nursery import ROOT, Process

__all__ = ["ROOT"]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """One process. `port` and `url` say where it listens; `log` is all it wrote."""

    words = None  # what starts it, if not a nursery
    cwd = None  # where, if not in its folder

    def __init__(self, env: dict, folder: Path):
        self.folder, self.process = folder, None
        self._listen_on(int(env.get("PORT", 0)) or free_port(), env)

    def _listen_on(self, port: int, env: dict):
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        # A production process on loopback may use plain http.
        self.env = env | {"PORT": str(port), "HOST": "127.0.0.1", "BASE_URL": self.url}
        self.logfile = self.folder / f"server-{port}.log"
        nothing = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        limits = httpx2.Limits(max_connections=64, max_keepalive_connections=64)
        self.client = httpx2.Client(
            base_url=self.url, cookies=nothing, trust_env=False, timeout=60, limits=limits
        )

    def start(self):
        for _ in range(3):
            if self._started():
                return self
            # Somebody took the port between our look and our listening.
            self.client.close()
            self._listen_on(free_port(), self.env)
        raise RuntimeError(f"no port: {self.log}")

    def _started(self) -> bool:
        """True when it is ready, False when its port was taken. Raises RuntimeError for anything else."""
        keep = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
        with self.logfile.open("ab") as out:
            how = {
                "cwd": self.cwd or self.folder,
                "env": keep | self.env,
                "stdout": out,
                "stderr": out,
            }
            if self.words:
                self.process = subprocess.Popen(self.words, **how)
            else:
                self.process = Process(ROOT / "main.py", **how)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                if "address already in use" in self.log:
                    return False
                raise RuntimeError(f"exit {self.process.returncode}: {self.log}")
            try:
                if self.client.get("/readyz").status_code == 200:
                    return True
            except httpx2.HTTPError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"not ready: {self.log}")

    @property
    def log(self) -> str:
        return self.logfile.read_text() if self.logfile.exists() else ""

    def codes(self) -> list[str]:
        """The codes that console mail printed, oldest first."""
        return re.findall(r"^│ ([0-9]{6}) +│$", self.log, re.MULTILINE)

    def stop(self) -> int:
        """SIGTERM, as a platform does; the exit status."""
        self.process.terminate()
        return self.process.wait(25)

    def kill(self):
        """kill -9, and nothing is tidied up."""
        self.client.close()
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)


class Tab:
    """One browser in front of one or several processes: its cookies go to all of them.

    The cookies are kept by hand because they are Secure and these tests speak plain http.
    """

    def __init__(self, *servers: Server):
        self.servers, self.cookies = servers, {}

    def get(self, path, at=0, **headers):
        return self.send("GET", path, at, headers=headers)

    def post(self, path, at=0, **fields):
        headers = {"Sec-Fetch-Site": "same-origin"}
        return self.send("POST", path, at, data=fields, headers=headers)

    def send(self, method, path, at=0, headers=None, keep=True, **more):
        pairs = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {"Accept": "text/html", "Cookie": pairs} | (headers or {})
        answer = self.servers[at].client.request(method, path, headers=sent, **more)
        if keep:
            for line in answer.headers.get_list("set-cookie"):
                for name, morsel in SimpleCookie(line).items():
                    self.cookies[name] = morsel.value
            self.cookies = {name: value for name, value in self.cookies.items() if value}
        return answer

    @property
    def signed_in(self):
        return self.get("/dashboard").status_code == 200


def together(n, act):
    """act(i) for i in range(n), released at one moment; the results in order."""
    gate = threading.Barrier(n)

    def run(i):
        gate.wait()
        return act(i)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(run, range(n)))


def until(true, seconds=15):
    """Wait for another process to get somewhere. Raises AssertionError when it does not."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return found
