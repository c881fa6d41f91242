"""Sign in to a Vestibule app from the terminal, and stay signed in. Standard library only; Linux and macOS.

    python examples/signin_client.py --url http://localhost:5001 login ada@example.org
    python examples/signin_client.py me

What an app on a phone has to do is all here: keep both tokens, refresh them one at a time, ask again when an
answer is lost. docs/api.md explains each call.
"""

import argparse
import fcntl
import json
import os
import sys
import tempfile
import time
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

URL = os.environ.get("SIGNIN_URL", "http://localhost:5001")
FILE = os.environ.get("SIGNIN_FILE", "~/.config/vestibule/tokens.json")
TIMEOUT = 8  # seconds for one answer
GIVE_UP = 20  # seconds of asking again; a refresh is given the same answer again for 30


class Problem(Exception):
    """What went wrong, in one line; `code` is the server's."""

    def __init__(self, text, code="", tries_left=0):
        super().__init__(" ".join(text.split()))
        self.code, self.tries_left = code, tries_left


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Problem(message)


class Stay(HTTPRedirectHandler):
    """Follow no redirect: it would take the token along to wherever it leads."""

    def redirect_request(self, *_):
        return None


send = build_opener(Stay).open


def call(url, path, body=None, token="", repeat=True):
    """The answer as a dict. `repeat`: may it be sent again when nobody knows whether it arrived?"""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    until, pause = time.monotonic() + GIVE_UP, 0.2
    while True:
        try:
            request = Request(url + path, data, headers)  # noqa: S310 - login looks at the scheme
            with send(request, timeout=TIMEOUT) as answer:
                return json.loads(answer.read() or "{}")
        except HTTPError as refused:
            problem, busy = told(refused), refused.code == 503
            after = refused.headers.get("Retry-After") or ""
            pause = max(pause, int(after) if after.isdigit() else 0)
            if not busy and refused.code not in (502, 504):  # a proxy that lost the answer
                raise problem from None
        except (OSError, HTTPException, ValueError):
            problem, busy = Problem(f"No answer from {url}."), False
        # 503: it could not be done. Without an answer nobody knows whether it was.
        if not (busy or repeat) or time.monotonic() + pause > until:
            raise problem
        time.sleep(pause)
        pause *= 2


def told(refused):
    try:
        given = json.loads(refused.read())
        return Problem(given["detail"], given["code"], given.get("tries_left", 0))
    except (OSError, ValueError, LookupError, TypeError):
        return Problem(f"The server answered {refused.code}.")


def load(file):
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        raise Problem("Nobody is signed in here. Begin with: login ADDRESS") from None


def keep(file, url, answer):
    """Whole or not at all, for this user alone, and before the new tokens are used."""
    kept = {name: answer[name] for name in ("access_token", "refresh_token")}
    kept |= {"url": url, "ends_at": time.time() + answer["expires_in"]}
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as out:  # 0600
        json.dump(kept, out)
    os.replace(out.name, file)
    return kept


def login(file, url, address):
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise Problem("Tokens travel over https:// only.")
    asked = call(url, "/auth/login", {"email": address}, repeat=False)
    print(asked["message"])
    while True:
        typed = input("The code, or the link from the mail: ").strip()
        # A code may have letters, where six digits are switched off; a link is far longer.
        proof = {"challenge": asked["challenge"], "code": typed}
        if len(typed) > 60:
            proof = {"token": typed.rpartition("#")[2]}
        proof["device_secret"] = asked["device_secret"]
        try:
            answer = call(url, "/auth/verify", proof, repeat=False)
        except Problem as problem:
            if not problem.tries_left and problem.code not in ("code_malformed", "code_off"):
                raise
            print(problem)
            continue
        keep(file, url, answer)
        print(f"Signed in as {answer['user']['email']}.")
        return


def renew(file, kept):
    """The same token until there is an answer: within 30 seconds that is the same one, too."""
    try:
        answer = call(kept["url"], "/auth/refresh", {"refresh_token": kept["refresh_token"]})
    except Problem as problem:
        if problem.code in ("invalid_token", "token_reused"):
            file.unlink()
            raise Problem("This sign-in has ended. Begin again with: login ADDRESS") from None
        raise
    return keep(file, kept["url"], answer)


def ask(file, path, body=None):
    """A call with the access token, and with a new one when it has run out."""
    kept = load(file)
    if time.time() < kept["ends_at"]:
        try:
            return call(kept["url"], path, body, kept["access_token"])
        except Problem as problem:
            if problem.code != "invalid_token":
                raise
    kept = renew(file, kept)
    return call(kept["url"], path, body, kept["access_token"])


def run(file, given):
    if given.command == "login":
        login(file, given.url.rstrip("/"), given.address)
    elif given.command == "me":
        print(json.dumps(ask(file, "/auth/me"), indent=2))
    elif given.command == "refresh":
        renew(file, load(file))
        print("The tokens are new.")
    elif given.command == "tenant":
        answer = ask(file, "/auth/tenant", {"tenant": given.id})
        kept = load(file)
        keep(file, kept["url"], kept | answer)
        print(f"You work in {answer['user']['tenant']} as {answer['user']['role']}.")
    elif given.command == "logout":
        ask(file, "/auth/logout", {})
        file.unlink()
        print("Signed out.")


def main():
    parser = Parser(description="Sign in to a Vestibule app, and stay signed in.")
    parser.add_argument("--url", default=URL, help="where to sign in (SIGNIN_URL)")
    parser.add_argument("--file", default=FILE, help="keeps the tokens (SIGNIN_FILE)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("login").add_argument("address")
    commands.add_parser("tenant").add_argument("id")
    for name in ("me", "refresh", "logout"):
        commands.add_parser(name)
    try:
        given = parser.parse_args()
        file = Path(given.file).expanduser()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One of us at a time: of two who refresh with one token, the later may be taken for a thief.
        with open(f"{file}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            run(file, given)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    except (OSError, EOFError, KeyboardInterrupt) as end:
        print(f"Stopped: {getattr(end, 'strerror', '') or 'nothing was typed'}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
