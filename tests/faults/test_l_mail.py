"""A mail server in trouble: pages answer as ever, and what can still be delivered is, soon after."""

import re
import ssl
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise

import pytest
from prometheus_client.parser import text_string_to_metric_families

from auth import MIGRATIONS
from main import OUTBOX_MIGRATIONS
from tests.certificates import Authority
from tests.conftest import ADMIN
from tests.faults.chaos import DROP, HANG, Chaos
from tests.faults.conftest import sqlite_only
from tests.serving import Tab, until
from utils.database import connect, migrate
from utils.mailer import Smtp
from utils.outbox import POISON_TRIES

STARTS, AT_ONCE = 300, 4
P99_SECONDS, RECOVERY_SECONDS = 0.150, 45
ADA = "ada@example.org"
TOKEN = "figures-5b1f0c3e9a7d2468"
OPEN = "state in ('queued', 'sending')"


@pytest.fixture
def db(migrated, database_url):
    """The tables as they are, without a house in front."""
    with closing(connect(database_url)) as db:
        migrate(db, MIGRATIONS, OUTBOX_MIGRATIONS)
        yield db


class People:
    """Browsers that ask for codes: each its own, under an address of its own."""

    def __init__(self, server, domain="example.org"):
        self.server, self.domain = server, domain
        self.tabs, self.asked_at = {}, {}

    def ask(self, n, at_once=AT_ONCE):
        """n of them, some at the same time; for how many seconds each waited for its answer."""
        first = len(self.tabs)
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(self._ask, range(first, first + n)))

    def _ask(self, i):
        tab, address = Tab(self.server), f"p{i}@{self.domain}"
        start = time.monotonic()
        answer = tab.post("/create_code", email=address)
        seconds = time.monotonic() - start
        assert answer.status_code == 303, answer.text
        self.tabs[address], self.asked_at[address] = tab, start
        return seconds

    def ask_quickly(self, n=STARTS):
        """n of them, and the slowest one in a hundred is quick.

        This machine has other things to do, and one round may be slow for that. Whoever waits for mail is
        slow in each.
        """
        rounds = []
        for _ in range(9):
            rounds.append(sorted(self.ask(n))[int(n * 0.99) - 1])
            if rounds[-1] < P99_SECONDS:
                return
        raise AssertionError(f"99 of 100 are answered within {rounds} s")

    def all_arrived(self, chaos):
        return all(any(m.told for m in chaos.to(address)) for address in self.tabs)

    def sign_in(self, chaos, every=10):
        """Codes work. Not all are entered: it is about mail."""
        for address in list(self.tabs)[::every]:
            tab = self.tabs[address]
            code = chaos.to(address)[-1].code
            assert tab.post("/verify_code", code=code).status_code == 303, address
            assert tab.signed_in


def at_most_twice_and_the_same(chaos):
    for address in {mail.to[0] for mail in chaos.mails}:
        mails = chaos.to(address)
        assert len(mails) <= 2, (address, mails)
        assert len({(mail.id, mail.code) for mail in mails}) == 1, (address, mails)


def outage(serve, chaos, db, trouble, hang_up=True, **more):
    """Trouble, 300 starts, no trouble: answers are quick, mails come within 45 s, at most two of each."""
    server = serve(SMTP_PORT=chaos.port, SIGNUP="open", METRICS_TOKEN=TOKEN, **more)
    people = People(server)
    people.ask(20)  # in good times first: a connection is there when trouble begins
    chaos.wait_for(lambda: people.all_arrived(chaos))
    trouble(chaos)
    people.ask_quickly()
    # It lasts until it was felt.
    hangs = [c for c in chaos.connections if c.hanging]
    until(lambda: hangs or db.q(f"select 1 from outbox where {OPEN} and reply <> ''"))
    assert waiting(server)  # whoever watches sees it
    mended(chaos, hang_up)
    recovered = time.monotonic()
    chaos.wait_for(lambda: people.all_arrived(chaos), RECOVERY_SECONDS)
    print(f"all had their mail {time.monotonic() - recovered:.1f} s after recovery")
    settled(db)
    at_most_twice_and_the_same(chaos)
    assert states(db) == {"accepted"} and waiting(server) == 0
    people.sign_in(chaos)


def figure(server, name, **labels):
    """What Prometheus would read there; None when it is not said."""
    text = server.client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return next((s.value for s in samples if (s.name, s.labels) == (name, labels)), None)


def waiting(server):
    return sum(figure(server, "vestibule_mails", state=state) for state in ("queued", "sending"))


def mended(chaos, hang_up=True):
    chaos.well(hang_up)
    if not chaos.listening:
        chaos.open_port()


def settled(db, seconds=RECOVERY_SECONDS):
    """Until nothing waits any more, and so nothing more will be sent."""
    until(lambda: not db.q(f"select 1 from outbox where {OPEN}"), seconds)


def states(db):
    return {row["state"] for row in db.q("select distinct state from outbox")}


def put_notices(db, n, name="notice", seconds=86400):
    """n rows, as another process would leave them; each a mail to the admin, to leave within `seconds`."""
    now = int(time.time())
    db.q(
        "with recursive numbers (i) as (select 1 union all select i + 1 from numbers where i < :n)"
        " insert into outbox (id, kind, ref, state, lane, created_at, not_after, next_at)"
        " select :name || i, 'new_device', users.id || ':' || :now, 'queued', 1, :now, :later, :now"
        " from numbers, users where address = :admin",
        n=n,
        name=name,
        now=now,
        later=now + seconds,
        admin=ADMIN,
    )


@sqlite_only
def test_L1_the_port_is_closed(serve, chaos, db):
    outage(serve, chaos, db, lambda chaos: chaos.close_port())


@sqlite_only
def test_L1_the_mail_server_has_no_address(serve, db):
    server = serve(SMTP_HOST="nowhere.invalid", SMTP_SECURITY="starttls", SIGNUP="open")
    People(server).ask_quickly(100)
    until(lambda: db.q(f"select 1 from outbox where {OPEN} and reply <> ''"), 30)
    assert states(db) <= {"queued", "sending"}


@sqlite_only
@pytest.mark.parametrize(("place", "hang_up"), [("banner", False), ("ehlo", True), ("dot", True)])
def test_L2_it_accepts_and_then_hangs(serve, chaos, db, place, hang_up):
    """hang_up: what hangs at recovery is let go. Otherwise it hangs for ever, and patience has to end."""

    def trouble(chaos):
        chaos.at(place, HANG)
        if place in ("banner", "ehlo"):  # whoever is connected has these behind them
            chaos.at("mail", DROP)

    outage(serve, chaos, db, trouble, hang_up)


@sqlite_only
def test_L2_one_connection_that_hangs_does_not_hold_the_others(serve, chaos, db):
    people = People(serve(SMTP_PORT=chaos.port, SIGNUP="open"))
    people.ask(1)
    chaos.wait(1)
    chaos.at("data", HANG, when=lambda c: c.number == 1)
    people.ask(1)
    chaos.wait_for(lambda: chaos.connections[0].hanging)
    people.ask(40, at_once=2)
    chaos.wait(41)  # without the one that hangs
    took = sorted(m.at - people.asked_at[m.to[0]] for m in chaos.mails[1:])
    assert took[int(len(took) * 0.95) - 1] < 3, took
    chaos.well()
    chaos.wait_for(lambda: people.all_arrived(chaos), RECOVERY_SECONDS)
    at_most_twice_and_the_same(chaos)


REFUSALS = {
    "421 at the banner": ("banner", "421 4.3.2 closing"),
    "421 in mid-session": ("rcpt", "421 4.3.2 closing"),
    "454 at AUTH": ("auth", "454 4.7.0 temporary authentication failure"),
    "451": ("dot", "451 4.3.0 try again later"),
}


@sqlite_only
@pytest.mark.parametrize("name", REFUSALS)
def test_L3_it_says_later(serve, chaos, db, name):
    place, reply = REFUSALS[name]
    chaos.login, chaos.pipelining = place == "auth", name != "451"

    def trouble(chaos):
        chaos.at(place, reply)
        if place in ("banner", "auth"):
            chaos.at("mail", DROP)

    login = (
        {"SMTP_USER": "robot@example.com", "SMTP_PASSWORD": "app-password-1"} if chaos.login else {}
    )
    outage(serve, chaos, db, trouble, **login)


@sqlite_only
def test_L3_while_it_says_later_it_is_asked_every_five_seconds_at_most(serve, chaos):
    chaos.at("banner", "421 4.3.2 closing")
    people = People(serve(SMTP_PORT=chaos.port, SIGNUP="open"))
    people.ask(60)
    chaos.wait_for(lambda: chaos.connections)
    first = chaos.connections[0].opened_at
    # Some may be on their way when the first is refused; each try after that is alone.
    chaos.wait_for(lambda: any(c.closed_at and c.opened_at > first + 2 for c in chaos.connections))
    chaos.well()
    chaos.wait_for(lambda: chaos.mails, RECOVERY_SECONDS)
    opened = [c.opened_at for c in chaos.connections if c.opened_at <= chaos.mails[0].at]
    tries = [first, *(at for at in opened if at > first + 2)]
    assert len(opened) - len(tries) < 4, opened
    assert len(tries) == 3 and all(b - a >= 4.9 for a, b in pairwise(tries)), opened
    chaos.wait_for(lambda: people.all_arrived(chaos))
    assert len(chaos.mails) == 60


QUOTA = "550 5.4.5 Daily user sending limit exceeded"


@sqlite_only
@pytest.mark.parametrize(
    ("place", "reply"),
    [
        ("dot", QUOTA),
        ("rcpt", QUOTA),
        ("mail", QUOTA),
        ("rcpt", "450 4.2.1 that mailbox is busy"),
        ("mail", "452 4.3.1 insufficient system storage"),
        ("dot", "552 5.2.3 message exceeds fixed limits of today"),
        ("dot", "554 5.7.1 message blocked by policy"),
        ("mail", "550 5.7.1 sender is not allowed"),
        ("dot", "550 5.7.28 unusual rate of unsolicited mail"),
        ("auth", "535 5.7.8 username and password not accepted"),
        ("auth", "534 5.7.9 application-specific password required"),
        ("mail", "530 5.7.0 must issue STARTTLS first"),
        ("mail", "530 5.7.0 authentication required"),
        ("banner", "554 5.3.2 no service here"),
    ],
)
def test_L4_what_ails_the_provider_kills_no_mail_and_no_address(build, place, reply):
    with Chaos(login=True) as chaos:
        smtp = Smtp("127.0.0.1", chaos.port, "none", "robot@example.com", "app-password-1")
        house = build(SIGNUP="open", mailbox=smtp)
        chaos.at(place, reply)
        house.door().ask(ADA)
        for _ in range(3):
            house.outbox.drain()
            house.clock.advance(60)
        assert {row["state"] for row in house.rows("outbox")} <= {"queued", "sending"}
        chaos.well()
        house.outbox.drain()
        assert len(chaos.to(ADA)) == 1
        # The next start of that address has its mail, too.
        house.door().ask(ADA)
        house.outbox.drain()
        assert len(chaos.to(ADA)) == 2
        smtp.close()


@sqlite_only
def test_L4_the_quota_is_spent(serve, chaos, db):
    outage(serve, chaos, db, lambda chaos: chaos.at("dot", QUOTA))


def test_N5_who_watches_sees_that_the_provider_takes_none_and_then_takes_some(serve, chaos):
    """The figure of VestibuleMailHeld, in a process that serves."""
    server = serve(SMTP_PORT=chaos.port, SIGNUP="open", METRICS_TOKEN=TOKEN)
    chaos.at("dot", QUOTA)
    People(server).ask(1)
    until(lambda: figure(server, "vestibule_mail_held"))
    assert waiting(server) == 1 and figure(server, "vestibule_mail_workers") == 1
    mended(chaos)
    until(lambda: figure(server, "vestibule_mails", state="accepted") == 1, RECOVERY_SECONDS)
    assert figure(server, "vestibule_mail_held") == waiting(server) == 0


@sqlite_only
def test_L5_for_a_day_nothing_is_sent_to_a_recipient_that_does_not_exist(build, chaos):
    smtp = Smtp("127.0.0.1", chaos.port, "none")
    house = build(SIGNUP="open", mailbox=smtp)
    chaos.at("rcpt", "550 5.1.1 no such user", when=lambda c: c.to[-1] == ADA)
    pages = []
    for _ in range(3):
        door = house.door()
        pages.append((door.ask(ADA).status_code, door.get("/verify_code").status_code))
        house.outbox.drain()
        house.clock.advance(3600)
    assert set(pages) == {(303, 200)}
    assert len(chaos.heard("RCPT")) == 1
    assert sorted(row["state"] for row in house.rows("outbox")) == ["dead", "void", "void"]
    chaos.well()
    house.clock.advance(86400)
    house.door().ask(ADA)
    house.outbox.drain()
    assert len(chaos.to(ADA)) == 1
    smtp.close()


@sqlite_only
def test_L5_a_recipient_that_does_not_exist_is_given_up_alone(serve, chaos, db):
    chaos.at("rcpt", "550 5.1.1 no such user", when=lambda c: c.to[-1] == "p7@example.org")
    people = People(serve(SMTP_PORT=chaos.port, SIGNUP="open"))
    people.ask(20)
    chaos.wait(19)
    settled(db)
    assert sum(row["state"] == "dead" for row in db.q("select state from outbox")) == 1
    assert states(db) == {"accepted", "dead"} and not chaos.to("p7@example.org")
    # The page says nothing of it.
    good, bad = (people.tabs[f"p{n}@example.org"].get("/verify_code") for n in (6, 7))
    assert good.status_code == bad.status_code == 200
    # Addresses differ in a digit, and so does what is left of the wait: 1 minute or 59 seconds.
    alike = [re.sub("[0-9]+( seconds?| minutes?)?", "0", page.text) for page in (good, bad)]
    assert alike[0] == alike[1]


@sqlite_only
def test_L6_a_second_copy_has_the_same_code_and_works_once(build, chaos):
    smtp = Smtp("127.0.0.1", chaos.port, "none")
    house = build(SIGNUP="open", mailbox=smtp)
    chaos.at("kept", DROP)
    door = house.door()
    door.ask(ADA)
    for _ in range(20):  # ten minutes
        house.outbox.drain()
        house.clock.advance(30)
    first, second = chaos.to(ADA)  # and never a third
    assert (first.id, first.code) == (second.id, second.code)
    signin, other = door.cookie("signin"), house.door()
    assert door.enter(first.code).status_code == 303
    other.client.cookies.set("__Host-signin", signin)
    assert other.enter(second.code).status_code == 410
    smtp.close()


@sqlite_only
def test_L6_the_answer_is_lost_after_the_mail_was_handed_over(serve, chaos, db):
    outage(serve, chaos, db, lambda chaos: chaos.at("kept", DROP))
    assert any(len(chaos.to(mail.to[0])) == 2 for mail in chaos.mails), "nothing was lost"


@sqlite_only
@pytest.mark.parametrize("flaw", ["stripped", "expired", "wrong host", "TLS 1.0"])
def test_L7_without_good_tls_nothing_is_said(tmp_path, build, flaw):
    authority = Authority(tmp_path)
    good = authority.server("127.0.0.1")
    context = {
        "stripped": None,
        "expired": authority.server("127.0.0.1", days=-1),
        "wrong host": authority.server("other.test"),
        "TLS 1.0": old_tls(authority),
    }[flaw]
    with Chaos(tls=context, login=True) as chaos:
        client = authority.client()
        smtp = Smtp(
            "127.0.0.1", chaos.port, "starttls", "robot@example.com", "app-password-1", client
        )
        house = build(SIGNUP="open", mailbox=smtp)
        house.door().ask(ADA)
        for _ in range(3):
            house.outbox.drain()
            house.clock.advance(60)
        assert chaos.connections and not chaos.mails
        for verb in ("AUTH", "MAIL", "RCPT", "DATA"):
            assert not chaos.heard(verb)
        assert [row["state"] for row in house.rows("outbox")] == ["queued"]
        chaos.tls = good
        house.outbox.drain()
        assert len(chaos.to(ADA)) == 1
        smtp.close()


def old_tls(authority):
    context = authority.server("127.0.0.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1
    return context


def test_L8_after_twenty_minutes_no_dead_code_is_sent(build, chaos):
    smtp = Smtp("127.0.0.1", chaos.port, "none")
    house = build(SIGNUP="open", mailbox=smtp)
    chaos.close_port()
    early, late = house.door(), house.door()
    for n in range(5):
        house.door().ask(f"p{n}@example.org")
    early.ask(ADA)
    for _ in range(12):
        house.outbox.drain()
        house.clock.advance(60)
    late.ask("late@example.org")
    for _ in range(8):
        house.outbox.drain()
        house.clock.advance(60)
    mended(chaos)
    house.outbox.drain()
    house.clock.advance(60)
    house.outbox.drain()
    assert [mail.to for mail in chaos.mails] == [["late@example.org"]]
    assert late.enter(chaos.code("late@example.org")).status_code == 303
    rows = sorted(row["state"] for row in house.rows("outbox"))
    assert rows == ["accepted", *["expired"] * 6]
    smtp.close()


@pytest.mark.parametrize(("left", "sent"), [(61, True), (59, False)])
def test_L8_a_code_with_less_than_a_minute_to_live_is_not_sent(build, left, sent):
    house = build(SIGNUP="open")
    house.door().ask(ADA)
    house.clock.advance(15 * 60 - left)
    house.outbox.drain()
    assert bool(house.mailbox.to(ADA)) == sent
    assert [row["state"] for row in house.rows("outbox")] == ["accepted" if sent else "expired"]


def test_L8_what_dies_while_it_waits_says_so_and_is_never_sent(serve, chaos, db):
    chaos.close_port()
    serve(SMTP_PORT=chaos.port)
    put_notices(db, 60, seconds=3)
    until(lambda: states(db) == {"expired"})
    mended(chaos)
    put_notices(db, 1, "alive")
    chaos.wait(1, RECOVERY_SECONDS)
    settled(db)
    assert [mail.id for mail in chaos.mails] == ["<alive1@example.com>"]


def test_L9_a_code_passes_ten_thousand_notices(serve, chaos, db):
    server = serve(SMTP_PORT=chaos.port, SIGNUP="open")
    chaos.at("kept", 0.02)
    put_notices(db, 10_000)
    people = People(server)
    chaos.wait(50)
    for n in range(5):
        people.ask(1)
        address = f"p{n}@example.org"
        chaos.wait_for(lambda address=address: chaos.to(address))
        assert chaos.to(address)[0].at - people.asked_at[address] < 2
    assert len(chaos.to(ADMIN)) < 9_000, "the notices were gone before"


CLOSERS = {
    "421 after three mails": ("mail", "421 4.7.0 enough for one connection"),
    "hangs up after three mails": ("after", DROP),
}


@sqlite_only
@pytest.mark.parametrize("name", CLOSERS)
def test_L10_a_server_that_closes_after_every_third_mail(serve, chaos, db, name):
    place, what = CLOSERS[name]
    chaos.at(place, what, when=lambda c: c.mails and c.mails % 3 == 0)
    people = People(serve(SMTP_PORT=chaos.port, SIGNUP="open"))
    people.ask(31)
    chaos.wait_for(lambda: people.all_arrived(chaos), RECOVERY_SECONDS)
    settled(db)
    assert len(chaos.mails) == 31 and states(db) == {"accepted"}


@sqlite_only
def test_L10_a_provider_that_takes_two_mails_a_second(serve, chaos, db):
    def too_soon(connection):
        return bool(chaos.mails) and time.monotonic() - chaos.mails[-1].at < 0.5

    chaos.at("rcpt", "450 4.2.1 too many at once, try again later", when=too_soon)
    people = People(serve(SMTP_PORT=chaos.port, SIGNUP="open"))
    people.ask(5)
    chaos.wait_for(lambda: people.all_arrived(chaos), 60)
    settled(db)
    assert len(chaos.mails) == 5 and states(db) == {"accepted"}


def test_L10_connections_are_kept(serve, chaos):
    people = People(serve(SMTP_PORT=chaos.port, SIGNUP="open"))
    for n in range(50):
        people.ask(1)
        chaos.wait(n + 1)
    assert len(chaos.connections) <= 3
    before = len(chaos.connections)
    people.ask(50, at_once=10)
    chaos.wait(100)
    # The kept one has had its 50 mails.
    assert len(chaos.connections) - before <= 3
    assert len(chaos.mails) == 100


def test_L11_poison_among_a_hundred_good_mails(serve, chaos, db):
    server = serve(SMTP_PORT=chaos.port, SIGNUP="open")
    now = int(time.time())
    with db.tx() as t:
        t.q(
            "insert into users (id, address, role, created_at)"
            " values ('poisoned', :address, 'user', :now)",
            address="a@b.org>\r\nRCPT TO:<x@y.org",
            now=now,
        )
        for n, (kind, ref) in enumerate(
            [
                ("new_device", f"poisoned:{now}"),
                ("what", "x"),
                ("new_device", "no number"),
                ("code", ""),
            ]
        ):
            t.q(
                "insert into outbox (id, kind, ref, state, lane, created_at, not_after, next_at)"
                " values (:id, :kind, :ref, 'queued', 0, :now, :later, :now)",
                id=f"poison{n}",
                kind=kind,
                ref=ref,
                now=now,
                later=now + 900,
            )
    people = People(server)
    people.ask(100)
    chaos.wait(100)
    settled(db)
    assert people.all_arrived(chaos) and len(chaos.mails) == 100
    poison = db.q("select * from outbox where id like 'poison%' order by id")
    # What this code does not know, newer code in a process beside it may: it is tried three times.
    assert [row["tries"] for row in poison] == [1, POISON_TRIES, 1, 1], poison
    assert [row["state"] for row in poison] == ["dead", "dead", "void", "void"], poison
    assert not chaos.heard("RCPT TO:<x@y.org")


def test_L12_two_processes_send_each_of_a_thousand_mails_once(serve, chaos, db):
    servers = [serve(SMTP_PORT=chaos.port, SIGNUP="open") for _ in range(2)]
    put_notices(db, 900)
    people = [People(server, f"{n}.test") for n, server in enumerate(servers)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda p: p.ask(50, at_once=2), people))
    chaos.wait(1000, 60)
    settled(db)
    assert len(chaos.mails) == len({mail.id for mail in chaos.mails}) == 1000
    assert all(p.all_arrived(chaos) for p in people) and states(db) == {"accepted"}


@sqlite_only
def test_L13_a_slow_success_is_one_mail(serve, chaos, db):
    """Longer than a lease, and than the patience with any other command; another process looks on."""
    first, _ = (serve(SMTP_PORT=chaos.port, SIGNUP="open") for _ in range(2))
    chaos.at("kept", 17.0)
    people = People(first)
    people.ask(2)
    chaos.wait_for(lambda: people.all_arrived(chaos), 60)
    settled(db)
    assert len(chaos.mails) == 2 and states(db) == {"accepted"}
    people.sign_in(chaos, every=1)


@sqlite_only
@pytest.mark.parametrize("what", ["451 4.4.1 their server does not answer", 1.0])
def test_L14_trouble_with_one_domain_is_its_own(serve, chaos, db, what):
    chaos.at("rcpt", what, when=lambda c: c.to[-1].endswith("@slow.test"))
    server = serve(SMTP_PORT=chaos.port, SIGNUP="open")
    slow, good = People(server, "slow.test"), People(server)
    for _ in range(20):
        slow.ask(1)
        good.ask(1)
    chaos.wait_for(lambda: good.all_arrived(chaos))
    took = sorted(chaos.to(a)[0].at - at for a, at in good.asked_at.items())
    assert took[-1] < 3, took
    chaos.well()
    chaos.wait_for(lambda: slow.all_arrived(chaos), RECOVERY_SECONDS)
    settled(db)
    assert len(chaos.mails) == 40
