"""What a start costs: from exec until /healthz answers, by the clock and in CPU, and how large the process is then.

    .venv/bin/python bench/startup.py [TIMES]

By the clock it is worth something on a machine where nothing else runs; CPU and memory nearly always.
"""

import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


def start(folder: str) -> tuple[float, float, float, float]:
    """Seconds, CPU seconds, MB resident, MB that no other process shares."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {
        "PATH": os.environ["PATH"],
        "PORT": str(port),
        "HOST": "127.0.0.1",
        "BASE_URL": f"http://127.0.0.1:{port}",
        "SECRET_KEY": "bench-3f9a0c5b7d1e48f2a6b4c8d0e2f41357",
        "ADMIN_EMAILS": "admin@example.com",
        "MAIL_BACKEND": "none",
        "DATA_DIR": folder,
    }
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, ROOT / "main.py"],
        cwd=folder,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not answers(port):
            time.sleep(0.002)
        took = time.monotonic() - began
        stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        sizes = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
        size = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in sizes}
        private = size["Private_Clean"] + size["Private_Dirty"]
        return took, (int(stat[11]) + int(stat[12])) / TICKS, size["Rss"], private
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        start(folder)  # makes the tables
        starts = [start(folder) for _ in range(int((sys.argv[1:] or ["9"])[0]))]
    for name, values in zip(
        ("seconds", "CPU seconds", "MB resident", "MB of its own"),
        zip(*starts, strict=True),
        strict=True,
    ):
        print(f"{name:14} {min(values):6.2f} at least, {statistics.median(values):6.2f} median")
