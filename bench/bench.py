"""The server's CPU for a complete sign-in, over HTTP. See README.md.

bench.py run                 the app in the folder above, beside a bare Starlette hello, about four minutes
bench.py run --rounds 7      the same, steadier
bench.py compare             beside other sign-in stacks, in turns; the first time they are installed
bench.py compare --docs      the same, and writes the figures, the chart and the table in docs/
bench.py install             only installs them, into ~/.cache/vestibule-bench or BENCH_CACHE
bench.py draw                the chart and the table anew from the figures in docs/
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
import tomllib
from pathlib import Path

sys.dont_write_bytecode = True
import beside  # noqa: E402
import report  # noqa: E402
from driver import FORMS, HELLO, HERE, PROGRAM, Crowd, Server  # noqa: E402
from harness import Sink, memory_mb  # noqa: E402

SLICES = 5  # page and hello take turns, so that a slow moment of the machine hits both
DOCS = HERE.parent / "docs"


# ---- one measurement
async def measure(server, hello, sink, width, a):
    crowd, greeters = Crowd(server, sink, a.users, width), Crowd(hello, sink, 0, width)
    sink.wanted = server.code_in

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
    result["create_ms"] = await crowd.cost(a.requests, crowd.ask_only) * 1e3

    phones = Crowd(server, sink, a.users, width)
    look, call = await crowd.settle(FORMS), await phones.settle(PROGRAM)
    turns = ((crowd, look), (phones, call), (greeters, greet))
    spent = {job: [] for _, job in turns}
    for people, job in turns:
        await people.do(200, job)
    for _ in range(SLICES):
        for people, job in turns:
            spent[job].append(await people.cost(a.gets // SLICES, job) * 1e6)
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
    spec, results, sink = tomllib.loads(a.target.read_text()), [], Sink()
    smtp_port = await sink.listen()
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
    parser.add_argument(
        "command", nargs="?", choices=["run", "compare", "install", "draw"], default="run"
    )
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
    parser.add_argument(
        "--peers", default=",".join(beside.every_peer()), help="of compare and install (all)"
    )
    parser.add_argument("--docs", action="store_true", help="compare: write docs/, too")
    a = parser.parse_args()
    a.concurrency, a.cwd = [int(n) for n in a.concurrency.split(",")], a.cwd.resolve()
    a.peers = [name for name in a.peers.split(",") if name]
    a.python = os.path.abspath(a.python) if os.sep in a.python else a.python
    if a.command == "draw":
        return report.draw(DOCS)
    if a.command == "install":
        beside.apps_for(a)
        return print("installed into", beside.cache_folder())
    try:
        from uvloop import new_event_loop as loop_factory  # a light driver disturbs less
    except ImportError:
        loop_factory = None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        figures = runner.run(stoppable((run if a.command == "run" else beside.compare)(a)))
    if a.json:
        a.json.write_text(json.dumps(figures, indent=1))
    if a.command == "run":
        print(table(figures))
        errors = [r["error"][0] for r in figures if r["error"]]
    else:
        compared = report.Run(figures)
        print(f"{report.costs(compared)}\n\n{report.aims(compared)}")
        errors = compared.errors
    if a.docs and a.command == "compare" and not errors:
        report.save(DOCS, figures)
        report.draw(DOCS)
    sys.exit(f"not every request worked; the first: {errors[0]}" if errors else 0)


async def stoppable(work):
    """SIGTERM ends it as Ctrl-C does: the servers are ended on the way out."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    return await work


if __name__ == "__main__":
    main()
