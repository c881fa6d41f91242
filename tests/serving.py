"""main.py as a real process, and clients that are many at once."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """One process. `port` and `url` say where it listens; `log` is all it wrote."""

    def __init__(self, env: dict, folder: Path):
        self.port = int(env.get("PORT", 0)) or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = env | {"PORT": str(self.port), "HOST": "127.0.0.1"}
        # A production process on loopback may use plain http.
        self.env["BASE_URL"] = env["BASE_URL"] if "127.0.0.1" in env["BASE_URL"] else self.url
        self.logfile = folder / f"server-{self.port}.log"
        self.process = None

    def start(self):
        keep = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
        with self.logfile.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "main.py"], cwd=ROOT, env=keep | self.env, stdout=out, stderr=out
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"exit {self.process.returncode}: {self.log}")
            try:
                if httpx2.get(f"{self.url}/readyz", trust_env=False).status_code == 200:
                    return self
            except httpx2.HTTPError:
                time.sleep(0.02)
        raise RuntimeError(f"not ready: {self.log}")

    @property
    def log(self) -> str:
        return self.logfile.read_text() if self.logfile.exists() else ""

    def codes(self) -> list[str]:
        """The codes that console mail printed, oldest first."""
        return re.findall(r"^│ ([0-9]{6}) +│$", self.log, re.MULTILINE)

    def browser(self, htmx=False, **headers) -> httpx2.Client:
        """A client with its own cookies. Secure cookies are kept although the test speaks plain http."""
        sent = {
            "Origin": self.url,
            "Sec-Fetch-Site": "same-origin",
            "Accept": "text/html",
        } | headers
        if htmx:
            sent["HX-Request"] = "true"
        return httpx2.Client(base_url=self.url, headers=sent, trust_env=False, timeout=30)

    def stop(self) -> int:
        """SIGTERM, as a platform does; the exit status."""
        self.process.terminate()
        return self.process.wait(25)

    def kill(self):
        """kill -9, and nothing is tidied up."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)


def together(n, act):
    """act(i) for i in range(n), released at one moment; the results in order."""
    gate = threading.Barrier(n)

    def run(i):
        gate.wait()
        return act(i)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(run, range(n)))
