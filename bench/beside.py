"""Other sign-in stacks, installed outside the repository, and one run of all in turns. What each is: peers/*/peer.toml."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from datetime import date
from pathlib import Path
from typing import NamedTuple

from driver import HELLO, HERE, PROGRAM, Crowd, Server
from harness import Sink, memory_mb

PEERS = HERE / "peers"
VERSIONS = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


class App(NamedTuple):
    name: str
    spec: dict
    cwd: Path
    python: str
    # Sign-ins before it counts; None: as many as for everybody.
    warm: int | None = None

    @property
    def measured(self):
        return self.name != "hello"


# ---- installing
def cache_folder():
    return Path(os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "vestibule-bench")


def run(command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def install(name, python):
    """The apps of a peer: one, and the same again after a long warm-up where peer.toml has `warmed`."""
    source = PEERS / name
    if not (source / "peer.toml").is_file():
        raise SystemExit(f"there is no peer {name}; there are {', '.join(every_peer())}")
    spec, cwd = tomllib.loads((source / "peer.toml").read_text()), source
    if "lock" in spec:
        # Another lock is another folder, so that nothing of an older one is left in it.
        lock = source / spec["lock"]
        home = cache_folder() / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:10]}"
        done = home / ".installed"
        if not done.exists():
            print(f"installing {name} into {home}", file=sys.stderr, flush=True)
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True)
        if lock.suffix == ".txt":
            python = str(home / "bin" / "python")
            if not done.exists():
                run([sys.executable, "-m", "venv", str(home)], home)
                run([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(lock)], home)
        else:
            # Node looks for packages beside the code, so the code is beside them.
            for file in source.iterdir():
                shutil.copy(file, home)
            cwd = home
            if not done.exists():
                if not shutil.which("npm"):
                    raise SystemExit(f"{name} needs node and npm; --peers names others")
                run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], home)
        done.touch()
    apps = [App(spec["name"], spec, cwd, python)]
    if "warmed" in spec:
        apps.append(App(f"{spec['name']} (warmed)", spec, cwd, python, spec["warmed"]))
    return apps


def every_peer():
    return sorted(path.parent.name for path in PEERS.glob("*/peer.toml"))


def versions(app):
    """{package: version} of what the app stands on, as installed."""
    names = app.spec.get("packages", [])
    if (app.cwd / "node_modules").is_dir():
        found = {
            name: json.loads((app.cwd / "node_modules" / name / "package.json").read_text())
            for name in names
        }
        return {name: package["version"] for name, package in found.items()}
    return json.loads(run([app.python, "-c", VERSIONS, *names], app.cwd))


# ---- one measurement
async def measure(app, sink, smtp_port, work, prepared, width, a):
    async with Server(app.spec, app.cwd, app.python, work, smtp_port, a.users, prepared) as server:
        sink.wanted = server.code_in
        crowd = Crowd(server, sink, a.users, width)
        crowds, result = [crowd], {"start_s": server.start_s}
        if not app.measured:

            async def greet(browser):
                await server.step("page", browser)

            await crowd.do(200, greet)
            result["page_us"] = await crowd.cost(a.gets, greet) * 1e6
        else:
            # Twice each: the first sign-in of somebody may make an account, the second may mail a notice.
            await crowd.do(app.warm or 2 * a.users + a.warm, crowd.sign_in)
            result["signin_ms"] = await crowd.cost(a.signins, crowd.sign_in) * 1e3
            result["create_ms"] = await crowd.cost(a.requests, crowd.ask_only) * 1e3
            result["page_us"] = await pages(crowd, await crowd.settle(), a.gets)
            if "me" in app.spec["flow"]:
                phones = Crowd(server, sink, a.users, width)
                crowds.append(phones)
                result["me_us"] = await pages(phones, await phones.settle(PROGRAM), a.gets)
        result["rss_mb"] = memory_mb(server.pid)
        for people in crowds:
            people.close()
        wrong = [error for people in crowds for error in people.wrong]
        return result | {"errors": len(wrong), "error": wrong[:1]}


async def pages(crowd, look, n):
    """CPU us of one."""
    await crowd.do(200, look)
    return await crowd.cost(n, look) * 1e6


async def interleaved(apps, a):
    """Each app in each round, one after the other, each time a fresh process on fresh data."""
    sink, rounds, begin = Sink(), [], time.monotonic()
    smtp_port = await sink.listen()
    work = Path(tempfile.mkdtemp(prefix="vestibule-beside-"))
    try:
        prepared = {}
        for app in apps:
            if "prepare" in app.spec:
                prepared[app.name] = Path(tempfile.mkdtemp(dir=work))
                server = Server(app.spec, app.cwd, app.python, work, smtp_port, a.users)
                server.prepare(prepared[app.name])
        for turn in range(1, a.rounds + 1):
            for width in a.concurrency:
                if a.seconds and turn > 1 and time.monotonic() - begin > a.seconds:
                    return rounds
                for app in apps:
                    try:
                        found = await measure(
                            app, sink, smtp_port, work, prepared.get(app.name), width, a
                        )
                    except RuntimeError as error:
                        found = {"errors": 1, "error": [str(error)[:500]]}
                    rounds.append({"round": turn, "width": width, "name": app.name} | found)
                    tell(rounds[-1])
    finally:
        sink.server.close()
        shutil.rmtree(work, ignore_errors=True)
    return rounds


def tell(r):
    figures = [f"{r[key]:.2f} {key}" for key in ("signin_ms", "page_us") if key in r]
    wrong = [f"{r['errors']} errors, {r['error'][0]}"] if r["errors"] else []
    print(f"  round {r['round']}, {r['width']:2} at once, {r['name']}: " + ", ".join(figures + wrong), file=sys.stderr, flush=True)  # fmt: skip


# ---- all of it
def apps_for(a):
    """The app, then its peers, then a hello."""
    spec = tomllib.loads(a.target.read_text())
    target = App(spec["name"], spec, a.cwd, a.python)
    peers = [app for name in a.peers for app in install(name, a.python)]
    return [target, *peers, App("hello", HELLO, HERE, a.python)]


async def compare(a):
    """Everything that report.py needs."""
    apps = apps_for(a)
    rounds = await interleaved(apps, a)
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "sizes": {k: getattr(a, k) for k in ("users", "warm", "signins", "requests", "gets")},
        "apps": [
            {"name": app.name, "versions": versions(app), "warm": app.warm}
            | {key: app.spec[key] for key in ("note", "does")}
            for app in apps
            if app.measured
        ],
        "rounds": [
            {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in r.items()}
            for r in rounds
        ],
    }


def machine():
    with open("/proc/cpuinfo") as cpus:
        models = [line.partition(":")[2].strip() for line in cpus if line.startswith("model name")]
    words = [f"{os.cpu_count()} CPUs ({models[0] if models else platform.machine()})"]
    words.append(f"Linux, Python {platform.python_version()}")
    if shutil.which("node"):
        words.append(f"Node {run(['node', '--version'], HERE).strip().lstrip('v')}")
    return ", ".join(words)
