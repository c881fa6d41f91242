"""The n-th call of each thing that a sign-in depends on fails, for n = 1, 2, 3 …: nobody is signed in by it, and
nothing stays half done.
"""

from time import time

import pytest
from fasthtml.common import FastHTML

from auth import MIGRATIONS, EmailAuth, Policy, signed_in
from auth.keys import Keys
from auth.testing import Mailbox, client_of
from main import OUTBOX_MIGRATIONS
from templates import Templates
from tests.attacks.test_j_web import LIMITS, OURS, Faulty, Fuse, has_session
from tests.conftest import BASE_URL, SECRET
from tests.faults import history
from utils.database import connect, migrate
from utils.mailer import Sender
from utils.outbox import Outbox


class Chancy:
    """The keys, derivations and random numbers, on a fuse."""

    def __init__(self, keys, fuse):
        self._keys, self._fuse = keys, fuse

    def __getattr__(self, name):
        found = getattr(self._keys, name)
        if not callable(found):
            return found

        def asked(*args, **kw):
            self._fuse.ask()
            return found(*args, **kw)

        return asked


class Plugged:
    """An app with the plug in it, and a fuse before all that the plug was given."""

    def __init__(self, url):
        self.fuses = {name: Fuse() for name in ("database", "clock", "mail", "keys")}
        self.db, self.mailbox = connect(url), Mailbox()
        migrate(self.db, MIGRATIONS, OUTBOX_MIGRATIONS)
        self.outbox = Outbox(self.db, self.mailbox, Sender("login@example.com"))
        app = FastHTML(default_hdrs=False, sess_cls=None, secret_key=SECRET)
        policy = Policy(signup="open", **dict.fromkeys(LIMITS, ((10**6, 1),)))
        EmailAuth(
            app,
            Faulty(self.db, self.fuses["database"]),
            Templates("Plugged", BASE_URL),
            self._put,
            base_url=BASE_URL,
            secret_key=SECRET,
            policy=policy,
            clock=self._clock,
            keys=Chancy(Keys(SECRET), self.fuses["keys"]),
        )
        # Its letters are made by one whose dependencies are well: this is about requests.
        calm = FastHTML(default_hdrs=False, sess_cls=None, secret_key=SECRET)
        plug = EmailAuth(
            calm,
            self.db,
            Templates("Plugged", BASE_URL),
            self.outbox.put,
            base_url=BASE_URL,
            secret_key=SECRET,
            policy=policy,
        )
        self.outbox.render = plug.letter

        @app.get("/private", before=signed_in)
        def private(auth):
            return f"for {auth.address} only"

        self.app = app

    def _put(self, *args):
        self.fuses["mail"].ask()
        self.outbox.put(*args)
        self.fuses["mail"].ask()

    def _clock(self):
        self.fuses["clock"].ask()
        return time()

    def browser(self):
        browser = client_of(self.app, BASE_URL, "192.0.2.1")
        browser.headers |= OURS | {"Accept": "text/html"}
        return browser

    def ask(self, browser, address):
        return browser.post("/create_code", data={"email": address})

    def enter(self, browser, address):
        self.outbox.drain()
        code = self.mailbox.latest_code(address)
        return browser.post("/verify_code", data={"code": code})


@pytest.fixture
def plugged(migrated, database_url):
    plugged = Plugged(database_url)
    yield plugged
    plugged.db.close()


@pytest.mark.parametrize("what", ["database", "clock", "mail", "keys"])
def test_J11_whatever_call_of_whatever_fails_nobody_is_signed_in_by_it(plugged, what):
    fuse, least = plugged.fuses[what], {"database": 30, "clock": 2, "mail": 2, "keys": 5}[what]
    # Of the database's faults test_j_web.py tries the other kind, too.
    errors = (plugged.db.Unavailable, *([] if what == "database" else [RuntimeError]))
    for error in errors:
        for n in range(1, 200):
            address, browser = f"{error.__name__.lower()}{n}@example.org", plugged.browser()
            fuse.burnt = False
            fuse.set(n, error)
            answer = plugged.ask(browser, address)
            left = None if fuse.burnt else fuse.left
            fuse.left = None
            if not fuse.burnt:
                plugged.outbox.drain()
                code = plugged.mailbox.latest_code(address)
                fuse.left = left
                answer = browser.post("/verify_code", data={"code": code})
                fuse.left = None
            if not fuse.burnt:
                assert answer.status_code == 303 and has_session(answer)
                break
            told = history.check(plugged.db)
            assert 500 <= answer.status_code < 600 and not has_session(answer), (n, error)
            assert browser.get("/private").status_code == 303, (n, error)
            # A fault after the commit: it was used, and nobody was told.
            again = plugged.ask(browser, address)
            assert again.status_code == 303
            assert has_session(plugged.enter(browser, address)), (n, error)
            assert address in browser.get("/private").text
            assert history.check(plugged.db)[address] == told[address] + 1
        assert least < n < 199, "the flow never came to its end, or asked nothing"


def test_the_checker_notices_what_may_never_be(build):
    house = build(SIGNUP="open")
    for address in ("ada@example.org", "bob@example.org"):
        house.door().sign_in(address)
    assert history.check(house.db) == {"ada@example.org": 1, "bob@example.org": 1}
    for harm, mend in (
        ("set used_at = null", "set used_at = issued_at"),
        ("set code_tries = 6", "set code_tries = 1"),
        ("set code_tries = 0, total_tries = 0, linked = 0", "set code_tries = 1, total_tries = 1"),
        ("set resends = 1", "set resends = 0"),
        ("set used_at = expires_at + 999999", "set used_at = issued_at"),
    ):
        house.db.q(f"update challenges {harm}")
        with pytest.raises(AssertionError):
            history.check(house.db)
        house.db.q(f"update challenges {mend}")
        history.check(house.db)
    # One who is in by nothing at all.
    row = house.rows("sessions")[0] | {"id": "f" * 32, "token": "e" * 64}
    names = ", ".join(row)
    house.db.q(f"insert into sessions ({names}) values ({', '.join(':' + n for n in row)})", **row)
    with pytest.raises(AssertionError, match="nothing opened"):
        history.check(house.db)
