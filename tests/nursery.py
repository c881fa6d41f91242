"""main.py and manage.py in processes of their own, which need not load FastHTML and the others first.

To load them takes three times as long as most of these processes live, and the tests begin 600. A nursery has
loaded what is not ours, and nothing of ours; each process is a fork of it that runs the file as `python file`
would: with its own arguments, environment, folder and streams. tests/test_deploy.py starts them in earnest.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import math
import os
import random
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ("auth", "templates", "utils")
FILES = ("main.py", "manage.py")


# ---- on the side of the tests
class Process:
    """What `python script words…` would be, to be used as a subprocess.Popen."""

    def __init__(self, script, *words, cwd, env, stdin=None, stdout=None, stderr=None):
        self.returncode, self._lock = None, threading.Lock()
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(_nursery())
        wanted = {"words": [str(script), *map(str, words)], "cwd": str(cwd), "env": env}
        with open(os.devnull, "r+b") as null:
            streams = [(stream or null).fileno() for stream in (stdin, stdout, stderr)]
            socket.send_fds(self._line, [json.dumps(wanted).encode() + b"\n"], streams)
        self.pid = self._hear()

    def _hear(self):
        """The next number: first the pid, then how it ended."""
        said = b""
        while not said.endswith(b"\n"):
            more = self._line.recv(1)
            assert more, "the nursery is closed"
            said += more
        return int(said)

    def poll(self):
        with self._lock:
            if self.returncode is None and select.select([self._line], [], [], 0)[0]:
                self.returncode = self._hear()
                self._line.close()
        return self.returncode

    def wait(self, timeout=math.inf):
        deadline, pause = time.monotonic() + timeout, 0.001
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a process", timeout)
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return self.returncode

    def send_signal(self, number):
        # It may end between the two.
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def run(script, *words, cwd, env, given="", timeout=60):
    """subprocess.run(…, input=given, capture_output=True, text=True)"""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        files[0].write(given.encode())
        files[0].seek(0)
        streams = dict(zip(("stdin", "stdout", "stderr"), files, strict=True))
        process = Process(script, *words, cwd=cwd, env=env, **streams)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        said = []
        for file in files[1:]:
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess([script, *words], process.returncode, *said)


@functools.cache
def _nursery():
    """The address of this process's nursery, which ends with it."""
    folder = tempfile.TemporaryDirectory(prefix="vestibule-nursery-")
    address = f"{folder.name}/door"
    keep = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
    process = subprocess.Popen(
        [sys.executable, __file__, address],
        env=keep,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdout.read()  # it closes that when it is ready

    def end():
        process.stdout.close()
        process.stdin.close()
        process.wait()
        folder.cleanup()

    atexit.register(end)
    return address


# ---- the nursery itself
def load():
    """Whatever our files import from elsewhere."""
    files = [ROOT / name for name in FILES]
    files += [file for room in OURS for file in (ROOT / room).rglob("*.py")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for name in sorted(set(re.findall(r"^ *(?:from|import) ([a-z][\w.]*)", text, re.MULTILINE))):
        if name.partition(".")[0] not in (*OURS, "main", "manage"):
            # Not everything that may be used is installed.
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    assert not {*OURS, "main", "manage"} & set(sys.modules)
    gc.collect()
    gc.freeze()


def heard(line):
    """(what is wanted, its streams)"""
    text, streams, _, _ = socket.recv_fds(line, 65536, 3)
    while not text.endswith(b"\n"):
        text += line.recv(65536)
    return json.loads(text), streams


def receive(address):
    """Begin what is asked for, and say how it ended. Returns in each new process: what it is to be."""
    door = socket.socket(socket.AF_UNIX)
    door.bind(address)
    door.listen(64)
    ended, ends = os.pipe()
    os.set_blocking(ends, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ends)
    lines = {}
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)  # ready
    while True:
        ready = select.select([door, ended, 0], [], [])[0]
        if 0 in ready:  # the tests are over
            os._exit(0)
        if ended in ready:
            os.read(ended, 4096)
            bury(lines)
        if door in ready:
            line, _ = door.accept()
            wanted, streams = heard(line)
            if not (pid := os.fork()):
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for each in (door, line, *lines.values()):
                    each.detach()
                for to, stream in enumerate(streams):
                    os.dup2(stream, to)
                os.closerange(3, 1024)
                return wanted
            for stream in streams:
                os.close(stream)
            lines[pid] = line
            line.sendall(b"%d\n" % pid)


def bury(lines):
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with lines.pop(pid) as line, contextlib.suppress(OSError):
                line.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    load()
    wanted = receive(sys.argv[1])
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    random.seed()
    sys.argv = wanted["words"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
