"""Mail: what is on the wire, over which connection, and what survives when it does not leave."""

import re

import pytest

from auth.testing import Mailbox
from templates.emails import CodeLetter, Letter
from tests.certificates import Authority
from tests.serving import Tab, together, until
from tests.sink import Sink, code_in, parsed
from utils.database import connect
from utils.mailer import HOLD, RETRY, Console, Fault, Message, Sender, Smtp

ADA = "ada@example.org"
ALLOWED = {
    *("From", "To", "Subject", "Date", "Message-ID", "Reply-To", "MIME-Version", "Content-Type"),
    *(
        "Auto-Submitted",
        "X-Auto-Response-Suppress",
        "X-Entity-Ref-ID",
        "X-Peer",
        "X-MailFrom",
        "X-RcptTo",
    ),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def message(to=ADA, name="Vestibule", **more):
    draw = CodeLetter(name, "https://app.test", 900, False)
    words = draw(to, "482913", "", 900, 1_800_000_000, "UTC", "Chrome on Windows")
    letter = words._replace(**more)
    return Message("0123456789abcdef", 1_800_000_000, Sender("login@example.com", name), letter)


# ---- over each connection
@pytest.mark.parametrize("security", ["starttls", "tls", "none"])
def test_a_whole_sign_in_over_a_real_mail_server(serve, authority, security):
    context = authority.server("127.0.0.1") if security != "none" else None
    login = ("robot@example.com", "app-password-1") if security != "none" else None
    with Sink(tls=security if context else "", context=context, login=login) as sink:
        more = {"SMTP_USER": login[0], "SMTP_PASSWORD": login[1]} if login else {}
        server = serve(
            SMTP_PORT=sink.port,
            SMTP_SECURITY=security,
            SIGNUP="open",
            SSL_CERT_FILE=authority.file,
            **more,
        )
        tab = Tab(server)
        tab.post("/create_code", email=ADA)
        code = sink.code(ADA)
        recipients, raw = sink.wait(1)[0]
        assert recipients == [ADA]
        mail = parsed(raw)
        assert [part.get_content_type() for part in mail.iter_parts()] == [
            "text/plain",
            "text/html",
        ]
        assert set(mail.keys()) <= ALLOWED and mail["To"] == ADA
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mail["Message-ID"].endswith("@example.com>") and len(raw) < 10_000
        assert tab.post("/verify_code", code=code).status_code == 303 and tab.signed_in
        assert len(sink.mails) == 1
        assert sink.logins == ([login] if login else [])


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("flaw", ["stranger's authority", "wrong host", "expired"])
def test_a_certificate_that_does_not_hold_gets_neither_password_nor_code(
    authority, tmp_path, security, flaw
):
    good = authority if flaw != "stranger's authority" else Authority(tmp_path)
    host, days = (
        ("other.test" if flaw == "wrong host" else "127.0.0.1"),
        (-1 if flaw == "expired" else 30),
    )
    with Sink(tls=security, context=good.server(host, days), login=("u@x.org", "p")) as sink:
        smtp = Smtp("127.0.0.1", sink.port, security, "u@x.org", "p", authority.client())
        with pytest.raises(Fault, match="certificate") as told:
            smtp.deliver(message())
        assert told.value.what == HOLD
        assert not sink.logins and not sink.mails


def test_a_server_without_starttls_gets_nothing(sink):
    smtp = Smtp("127.0.0.1", sink.port, "starttls", "u@x.org", "p")
    with pytest.raises(Fault, match="STARTTLS") as told:
        smtp.deliver(message())
    assert told.value.what == HOLD
    assert not sink.logins and not sink.mails


def test_the_connection_is_kept_and_renewed(sink):
    now = [0.0]
    smtp = Smtp("127.0.0.1", sink.port, "none", clock=lambda: now[0])
    for _ in range(5):
        smtp.deliver(message())
    assert len(sink.sessions) == 1
    now[0] = 61  # a minute old
    smtp.deliver(message())
    assert len(sink.sessions) == 2
    smtp._idle[0]._socket.shutdown(2)  # the server, or a firewall, hung up
    smtp.deliver(message())
    assert len(sink.mails) == 7
    smtp.close()


# ---- the mail itself
@pytest.mark.parametrize("name", ["Vestibule", "Gong & Söhne", "日本", '"Quote" <x@y>', "{braces}"])
def test_both_parts_say_the_same_and_hold_one_number(name):
    raw = message(name=name).as_bytes()
    assert b"\r\n" in raw and not re.search(rb"(?<!\r)\n|\r(?!\n)", raw)
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    mail = parsed(raw)
    text, html = (mail.get_body((kind,)).get_content() for kind in ("plain", "html"))
    for part in (text, html):
        assert re.findall(r"\b[0-9]{6}\b", re.sub(r"style=\"[^\"]*\"", "", part)) == ["482913"]
        assert "15 minutes" in part and "https://app.test" in part
    assert text.splitlines()[0].strip() == "482913"
    assert name in text
    assert mail["From"].addresses[0].addr_spec == "login@example.com"
    assert mail["From"].addresses[0].display_name == name
    assert "482913" not in mail["Subject"] and name in mail["Subject"]


def test_the_code_in_the_subject_is_a_choice(build):
    house = build(CODE_IN_SUBJECT="true", SIGNUP="open", CODE_TTL_MINUTES="60", CODE_LENGTH="8")
    door = house.door()
    page = door.ask(ADA) and door.get("/verify_code").text
    code = door.read_code()
    letter = house.mailbox.to(ADA)[0]
    assert len(code) == 8 and code in letter.subject
    assert "for 1 hour" in page and "for 1 hour" in letter.text and "8-digit" in page
    assert door.enter(code).status_code == 303


@pytest.mark.parametrize("bad", ["a\r\nBcc: x@y.org", "a\nb", "a\0b", "a\x1bb"])
@pytest.mark.parametrize("field", ["to", "subject"])
def test_a_header_that_breaks_its_line_is_never_written(field, bad):
    with pytest.raises(ValueError):
        message(**{field: bad}).as_bytes()


def test_the_console_prints_a_box_with_the_code_on_a_line(capsys):
    Console().deliver(message())
    assert re.search(r"^│ 482913 +│$", capsys.readouterr().out, re.MULTILINE)


# ---- what survives
class Broken(Mailbox):
    """A mail server that is down until it is mended."""

    down = True

    def deliver(self, message):
        if self.down:
            raise Fault(RETRY, "451 4.3.0 later")
        return super().deliver(message)


def test_a_refused_mail_is_tried_again_with_the_same_code_and_id(build):
    mailbox = Broken()
    house = build(mailbox=mailbox, SIGNUP="open")
    door = house.door()
    assert door.ask(ADA).status_code == 303  # the page does not wait for mail
    house.outbox.drain()
    row = house.rows("outbox")[0]
    assert (row["state"], row["tries"], row["reply"]) == ("queued", 1, "451 4.3.0 later")
    mailbox.down = False
    assert house.outbox.drain() == 0  # not before its time
    house.clock.advance(3)
    assert house.outbox.drain() == 1
    assert door.enter(mailbox.latest_code(ADA)).status_code == 303
    assert mailbox.messages[0].id == row["id"]


def test_a_code_that_is_about_to_run_out_is_not_mailed(build):
    mailbox = Broken()
    house = build(mailbox=mailbox, SIGNUP="open")
    house.door().ask(ADA)
    house.outbox.drain()
    mailbox.down = False
    house.clock.advance(15 * 60 - 59)
    house.outbox.drain()
    assert not mailbox.messages and house.rows("outbox")[0]["state"] == "expired"


def test_a_used_code_is_not_mailed_again(house, ada, clock):
    door = house.door()
    door.ask(ada)
    code = door.read_code()
    clock.advance(60)
    door.post("/resend_code")
    door.enter(code)
    house.outbox.drain()
    assert len(house.mailbox.to(ada)) == 1
    assert [r["state"] for r in house.rows("outbox")].count("void") == 1


def test_one_poisoned_mail_does_not_stop_the_others(build):
    house = build(SIGNUP="open")
    render = house.outbox.render
    poisoned = []

    def fails_once(kind, ref):
        if not poisoned:
            poisoned.append(ref)
            return Letter("a@b.org\r\nRCPT TO:<x@y.org>", "s", "t", "h")
        return render(kind, ref)

    house.outbox.render = fails_once
    for n in range(5):
        house.door().ask(f"p{n}@example.org")
    house.outbox.drain()
    assert len(house.mailbox.messages) == 4


def test_mail_waiting_at_kill_9_is_sent_after_the_restart(serve, sink, database_url):
    sink.refuse = "451 4.3.0 not now"
    server = serve(SMTP_PORT=sink.port, SIGNUP="open")
    tab, db = Tab(server), connect(database_url)
    assert tab.post("/create_code", email=ADA).status_code == 303
    until(lambda: db.q("select 1 from outbox where state = 'queued' and tries > 0"))
    server.kill()
    sink.refuse = None
    again = serve(SMTP_PORT=sink.port, SIGNUP="open")
    code = sink.code(ADA)
    tab.servers = (again,)
    assert tab.post("/verify_code", code=code).status_code == 303
    assert tab.signed_in
    db.close()


def test_two_workers_send_each_mail_once(build, mailbox=None):
    first = build(SIGNUP="open")
    second = build(SIGNUP="open", clock=first.clock, mailbox=first.mailbox)
    for n in range(40):
        first.door().ask(f"p{n}@example.org")
    together(4, lambda i: (first, second)[i % 2].outbox.drain())
    sent = sorted(m.letter.to for m in first.mailbox.messages)
    assert sent == sorted(f"p{n}@example.org" for n in range(40))


def test_mail_off_says_so_and_sends_nothing(build):
    house = build(MAIL_BACKEND="none", MAIL_FROM="")
    assert "Mail is switched off" in house.door().get("/login").text


def test_one_request_is_one_mail_at_once(serve, sink):
    """The worker is woken by the commit; it does not wait for its next look."""
    server = serve(SMTP_PORT=sink.port, SIGNUP="open")
    for n in range(10):
        Tab(server).post("/create_code", email=f"p{n}@example.org")
    assert len(sink.wait(10)) == 10
    assert len(sink.sessions) == 1
    assert {code_in(raw) for _, raw in sink.mails}
