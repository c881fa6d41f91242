"""One process under mixed load for ten minutes: does it make errors, or grow?

    make soak                              10 minutes, 16 people at once
    make soak ARGS="--seconds 90"

People sign in, err, ask again, look around and leave; programs sign in and refresh; admins read their pages. All
against one process on SQLite, with a mail server on loopback. Each half minute a line; exit status 1 on any
server error, on an answer that was not expected, or when memory or descriptors grow.

Memory is looked at in the second half. Caches fill until then, some 10 MB; a short run needs --megabytes 10.
"""

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.conftest import ADMIN, environment
from tests.faults import history
from tests.faults.chaos import Chaos
from tests.serving import Server, Tab, until
from utils.database import connect

ADMIN_PAGES = (
    "/admin",
    "/admin?q=p1",
    "/admin/audit",
    "/admin/overview",
    "/admin/mail",
    "/admin/roles",
)
WARM = 0.5  # of the time, before growth is measured: caches have to be full by then


class Load:
    def __init__(self, server, chaos):
        self.server, self.chaos, self.numbers = server, chaos, count()
        self.over, self.lock = threading.Event(), threading.Lock()
        self.answers, self.seconds, self.wrong = Counter(), [], []

    def said(self, expected, act):
        began = time.monotonic()
        answer = act()
        with self.lock:
            self.answers[answer.status_code] += 1
            self.seconds.append(time.monotonic() - began)
            if answer.status_code not in expected:
                self.wrong.append(
                    (answer.request.method, answer.request.url.path, answer.status_code)
                )
        return answer

    def address(self):
        return f"p{next(self.numbers)}@example.org"

    # ---- what people do
    def person(self):
        tab, address = Tab(self.server), self.address()
        self.said([200], lambda: tab.get("/login"))
        self.said([303], lambda: tab.post("/create_code", email=address))
        code = self.chaos.code(address, seconds=60)
        if random.random() < 0.3:
            wrong = f"{(int(code) + 1) % 10**6:06d}"
            self.said([422], lambda: tab.post("/verify_code", code=wrong))
        if random.random() < 0.3:
            self.said([429], lambda: tab.post("/resend_code"))  # too early
        self.said([303], lambda: tab.post("/verify_code", code=code))
        for path in ("/dashboard", "/account", "/dashboard"):
            self.said([200], lambda path=path: tab.get(path))
        if random.random() < 0.5:
            self.said([303], lambda: tab.post("/logout"))

    def program(self):
        address, send = self.address(), self.server.client.post
        given = self.said([202], lambda: send("/auth/login", json={"email": address})).json()
        body = {"challenge": given["challenge"], "device_secret": given["device_secret"]}
        body["code"] = self.chaos.code(address, seconds=60)
        tokens = self.said([200], lambda: send("/auth/verify", json=body)).json()
        for _ in range(3):
            refresh = {"refresh_token": tokens["refresh_token"]}
            tokens = self.said(
                [200], lambda refresh=refresh: send("/auth/refresh", json=refresh)
            ).json()
            bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
            self.said(
                [200], lambda bearer=bearer: self.server.client.get("/auth/me", headers=bearer)
            )

    def admin(self, tab):
        self.said([200], lambda: tab.get(random.choice(ADMIN_PAGES)))

    def stranger(self):
        tab = Tab(self.server)
        self.said([303], lambda: tab.get("/dashboard"))
        self.said([410, 422], lambda: tab.post("/verify_code", code="123456"))
        self.said([404], lambda: tab.get("/nowhere"))

    def live(self, admin):
        acts = (self.person, self.program, lambda: self.admin(admin), self.stranger)
        while not self.over.is_set():
            random.choices(acts, (5, 2, 3, 1))[0]()

    def passed(self):
        """(answers, seconds of each) since the last time."""
        with self.lock:
            told, self.answers = self.answers, Counter()
            seconds, self.seconds = sorted(self.seconds), []
        return told, seconds


def size(pid):
    """MB of memory, and open descriptors."""
    with open(f"/proc/{pid}/statm") as statm:
        pages = int(statm.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir(f"/proc/{pid}/fd"))


def slope(points):
    """Of a line through (x, y), by least squares."""
    n = len(points)
    x, y = sum(p[0] for p in points) / n, sum(p[1] for p in points) / n
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def soak(args, folder):
    with Chaos() as chaos:
        url = f"sqlite:///{folder}/soak.db"
        more = {"SMTP_PORT": chaos.port, "SIGNUP": "open", "LOG_LEVEL": "warning"}
        server = Server(environment(url, folder, **more), folder).start()
        try:
            return measure(args, server, chaos, url)
        finally:
            server.kill()


def measure(args, server, chaos, url):
    admin, load = Tab(server), Load(server, chaos)
    admin.post("/create_code", email=ADMIN)
    assert admin.post("/verify_code", code=chaos.code(ADMIN)).status_code == 303
    began, errors, points, total = time.monotonic(), 0, [], 0
    print(" seconds  answers  a second  errors  p99 ms  RSS MB  descriptors", flush=True)
    with ThreadPoolExecutor(args.at_once) as pool:
        work = [pool.submit(load.live, admin) for _ in range(args.at_once)]
        told_at = began
        while (now := time.monotonic()) < began + args.seconds and not any(w.done() for w in work):
            time.sleep(min(1, max(0.0, began + args.seconds - now)))
            points.append((time.monotonic() - began, *size(server.process.pid)))
            if time.monotonic() - told_at >= args.every or time.monotonic() >= began + args.seconds:
                answers, seconds = load.passed()
                bad = sum(n for status, n in answers.items() if status >= 500)
                errors, total = errors + bad, total + answers.total()
                p99 = 1000 * seconds[int(len(seconds) * 0.99)] if seconds else 0
                rate = answers.total() / (time.monotonic() - told_at)
                at, memory, open_ = points[-1]
                print(
                    f"{at:8.0f} {answers.total():8} {rate:9.0f} {bad:7} {p99:7.0f} {memory:7.1f} {open_:12}",
                    flush=True,
                )
                told_at = time.monotonic()
        load.over.set()
    for w in work:
        w.result()
    with closing(connect(url)) as db:
        until(lambda: not db.q("select 1 from outbox where state in ('queued', 'sending')"), 60)
        arrivals = history.check(db).total()
    warm = [p for p in points if p[0] > args.seconds * WARM]
    growth = 60 * slope([(at, memory) for at, memory, _ in warm])
    more = max(p[2] for p in warm[-len(warm) // 4 :]) - max(
        p[2] for p in warm[: len(warm) // 4 + 1]
    )
    print(f"{total} answers, {arrivals} sign-ins; {growth:+.2f} MB a minute, {more:+} descriptors")
    faults = [f"{errors} server errors"] if errors else []
    faults += [f"unexpected answers: {Counter(load.wrong).most_common(5)}"] if load.wrong else []
    faults += [f"memory grows by {growth:.2f} MB a minute"] if growth > args.megabytes else []
    faults += [f"{more} descriptors more"] if more > args.descriptors else []
    for fault in faults:
        print(fault)
    return int(bool(faults))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--every", type=int, default=30, help="seconds from line to line")
    parser.add_argument(
        "--megabytes", type=float, default=3, help="that memory may grow in a minute"
    )
    parser.add_argument(
        "--descriptors", type=int, default=16, help="that may be open more at the end"
    )
    with tempfile.TemporaryDirectory(prefix="vestibule-soak-") as folder:
        sys.exit(soak(parser.parse_args(), Path(folder)))
