"""What stands in a mail: its words, and that nobody who asks for one puts a word into it."""

import re
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

import main
from auth.agents import LABELS, kind_of
from auth.events import Source
from templates import Templates
from templates.emails import LINK, CodeLetter, InvitationLetter, NoticeLetter, fit_for_mail
from tests.conftest import BASE_URL, START, Clock, environment
from tests.sink import parsed
from utils.mailer import Message, Sender
from utils.settings import check, read

ADA = "ada@example.org"
SIX = re.compile(r"[0-9]{6,}")
URL = f"{BASE_URL}/link#{'A' * 78}"
WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/142.0.0.0 Safari/537.36"
)
HEADERS = {
    *("From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"),
    *("Auto-Submitted", "X-Auto-Response-Suppress", "X-Entity-Ref-ID"),
}


def letter(code="482913", link=URL, asked_by="Chrome on Windows", zone="UTC", **more):
    draw = CodeLetter("Vestibule", BASE_URL, 900, more.pop("in_subject", False), **more)
    return draw(ADA, code, link, 900, START, zone, asked_by)


def raw(letter):
    return Message("0123abcd", START, Sender("login@example.com", "Vestibule"), letter).as_bytes()


def plain(html):
    """What a person reads of it."""
    soup = BeautifulSoup(html, "html.parser")
    for hidden in soup.select("head, [style*='display:none']"):
        hidden.decompose()
    return " ".join(soup.get_text(" ").split())


def sent(house, agent=WINDOWS, address=ADA, **fields):
    """The newest mail to a browser that just asked, and its bytes."""
    door = house.door()
    door.client.headers["User-Agent"] = agent
    door.post("/create_code", email=address, **fields)
    house.outbox.drain()
    message = house.mailbox.messages[-1]
    return message.letter, message.as_bytes()


# ---- the mail with a code
def test_the_code_stands_alone_on_the_first_line():
    for found in (letter(), letter(link="")):
        assert found.text.startswith("482913\n\n")
        assert max(map(len, found.text.replace(URL, "").splitlines())) < 80


@pytest.mark.parametrize("name", ["Vestibule", "Gong & Söhne", "{braces}", "<b>&amp;"])
@pytest.mark.parametrize("link", [URL, ""])
def test_both_parts_say_the_same(name, link):
    """Word by word, but for the order: a part that only some people see is where a mistake hides."""
    found = CodeLetter(name, BASE_URL, 900, False)(ADA, "482913", link, 900, START, "UTC", "Edge")
    html, text = plain(found.html), " ".join(found.text.split())
    for said in (
        "482913",
        name,
        "Type it in the browser that asked for it. It works once, for 15 minutes.",
        "Asked for on 15 Jan 2027, 08:00 (UTC), with Edge.",
        "Was that not you? Then ignore this mail: without it nobody can sign in.",
        "We never ask for it by phone or chat.",
        BASE_URL,
    ):
        assert said in html and said in text, said
    assert link in found.html and link in found.text


def test_the_one_number_in_a_mail_is_its_code():
    for found in (letter(), letter(zone="Asia/Kolkata"), letter(link="")):
        message = raw(found)
        assert re.findall(rb"[0-9]{6,}", message.replace(b"login@example.com", b"")) == [
            b"482913",
            b"482913",
        ]
        assert SIX.findall(found.text) == SIX.findall(found.html) == ["482913"]
        for name, value in parsed(message).items():
            assert not SIX.search(str(value)), name
    assert SIX.findall(letter(in_subject=True).subject) == ["482913"]
    alone = letter(code="")
    assert not SIX.search(alone.subject + alone.text + alone.html)


def test_every_day_of_ten_years_is_written_without_a_second_number():
    draw = NoticeLetter("Vestibule", BASE_URL)
    for day in range(3652):
        found = draw("new_device", ADA, START + day * 86400 + day * 61, "UTC")
        assert not SIX.search(found.text)


def test_E8_what_an_inbox_shows_beside_the_subject_has_no_code():
    for found in (letter(), letter(link="")):
        hidden = BeautifulSoup(found.html, "html.parser").select("[style*='display:none']")
        assert [h.text for h in hidden] == ["It works once, for 15 minutes."]
        head = BeautifulSoup(found.html, "html.parser").head.text
        assert "482913" not in found.subject + head


def test_the_html_is_at_home_in_light_and_dark():
    for found in every_letter():
        soup = BeautifulSoup(found.html, "html.parser")
        metas = {m.get("name"): m.get("content") for m in soup("meta")}
        assert metas["color-scheme"] == metas["supported-color-schemes"] == "light dark"
        assert soup.html["lang"] == "en" and soup.title.text == found.subject
        assert not soup(["style", "script", "link", "img", "table"]) and not soup.select("[class]")
        assert all(p.find_parent(style=True) for p in soup("p"))
        assert soup.body.div["style"].startswith("display:none")
        # A colour of ours on a ground that is not ours has to be readable on white and on black.
        for colour in re.findall(r"(?<![\w-])color:([^;\"]+)", found.html):
            assert min(contrast(colour, ground) for ground in ("#ffffff", "#000000")) >= 4.5
        assert "background" not in found.html


def test_the_links_colour_is_the_only_one():
    assert re.findall(r"#[0-9a-f]{6}", LINK) == ["#3a6df0"]
    assert contrast("#ffffff", "#000000") == 21  # the measure itself


def contrast(one, other):
    """WCAG 2.2, relative luminance."""

    def light(colour):
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


def every_letter():
    notice, undo = NoticeLetter("Vestibule", BASE_URL), f"{BASE_URL}/undo#x"
    return [
        letter(),
        letter(link=""),
        letter(code=""),
        notice("new_device", ADA, START, "UTC", "Safari on iPhone"),
        notice("device_ended", ADA, START, "Europe/Berlin"),
        notice("address_changed", ADA, START, "UTC", "Edge", undo, 7 * 86400),
        notice("address_new", ADA, START, "UTC"),
        InvitationLetter("Vestibule", BASE_URL)(ADA, "St. Mary’s", 7 * 86400, f"{BASE_URL}/i"),
    ]


def test_every_mail_is_small_and_has_the_same_headers():
    for found in every_letter():
        message = raw(found)
        assert len(message) < 10_000 and set(parsed(message).keys()) == HEADERS
        assert parsed(message)["To"] == ADA
        # Nothing to load, and nothing that tells when a mail was opened.
        assert not re.search(r"src=|url\(|http:|<img", found.html)
        assert set(re.findall(r"https://[^/\s\"<]+", found.text + found.html)) == {BASE_URL}


def test_E10_robots_do_not_answer_and_copies_are_known_as_such(house, ada):
    _, message = sent(house)
    headers = parsed(message)
    assert set(headers.keys()) == HEADERS and len(headers.keys()) == len(HEADERS)
    assert headers["Auto-Submitted"] == "auto-generated"
    # Not All, which would also hold back the bounce that an operator needs.
    assert headers["X-Auto-Response-Suppress"] == "OOF, AutoReply"
    assert message == house.mailbox.messages[-1].as_bytes()
    assert headers["Message-ID"].endswith("@example.com>")


def test_the_line_that_binds_the_code_to_the_site_is_a_choice():
    for found in (letter(), letter(origin_bound=False)):
        assert "#482913" not in found.text + found.html
    bound = letter(origin_bound=True)
    assert bound.text.endswith("\n\n@vestibule.test #482913\n")
    assert bound.html == letter().html  # people see no such line
    alone = letter(code="", origin_bound=True)
    assert "@vestibule.test" not in alone.text + alone.html
    ported = CodeLetter("V", "http://localhost:5001", 900, False, True)
    text = ported(ADA, "482913", "", 900, START, "UTC", "").text
    assert text.endswith("\n@localhost #482913\n")
    for on in (False, True):
        words = Templates("V", BASE_URL, origin_bound=on)
        text = words.code_letter(ADA, "482913", "", 900, START, "UTC", "").text
        assert text.endswith("\n@vestibule.test #482913\n") == on


# ---- when it was asked for, and with what
AGENTS = {
    WINDOWS: "Chrome on Windows",
    WINDOWS + " Edg/142.0.0.0": "Edge on Windows",
    WINDOWS + " OPR/120.0.0.0": "Opera on Windows",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0": "Firefox on Windows",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0": "Firefox on Linux",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/26.0 Safari/605.1.15": "Safari on macOS",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/26.0 Mobile/15E148 Safari/604.1": "Safari on iPhone",
    "Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " CriOS/142.0.0.0 Mobile/15E148 Safari/604.1": "Chrome on iPad",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " FxiOS/145.0 Mobile/15E148 Safari/605.1.15": "Firefox on iPhone",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0"
    " Mobile Safari/537.36": "Chrome on Android",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko)"
    " SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36": "Samsung Internet on Android",
    "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/142.0.0.0 Safari/537.36": "Chrome on ChromeOS",
    "Mozilla/5.0 (X11; Linux x86_64) Whatever/1.0": "a browser on Linux",
    "Firefox/145.0": "Firefox",
    "curl/8.5.0": "",
    "": "",
    "Visit http://evil": "",
    "x" * 400 + WINDOWS: "",
}


@pytest.mark.parametrize(("agent", "kind"), AGENTS.items())
def test_the_kind_of_device_in_words_of_ours(agent, kind):
    assert kind_of(agent) == kind
    assert kind in LABELS or kind == ""


def test_no_word_for_a_device_looks_like_a_number_or_a_link():
    assert len(LABELS) == 56
    for label in LABELS:
        assert re.fullmatch(r"[A-Za-z ]{4,40}", label)


def test_E9_the_mail_says_when_where_and_with_what_it_was_asked_for(house, ada):
    door = house.door()
    door.client.headers["User-Agent"] = WINDOWS
    door.ask(ada)
    house.clock.advance(1)
    house.outbox.drain()
    found = house.mailbox.to(ada)[-1]
    asked = "Asked for on 15 Jan 2027, 08:00 (UTC), with Chrome on Windows."
    for part in (" ".join(found.text.split()), plain(found.html)):
        assert asked in part and BASE_URL in part and "Was that not you?" in part
    # Once it is known, the person's own zone; and of a mail that was asked for again, its own time.
    door.enter(house.mailbox.latest_code(ada), timezone="Asia/Kolkata")
    other = house.door()
    other.client.headers["User-Agent"] = "curl/8"
    other.ask(ada)
    house.clock.advance(120)
    other.post("/resend_code")
    house.clock.advance(600)  # the mail server was away
    house.outbox.drain()
    text = " ".join(house.mailbox.to(ada)[-1].text.split())
    assert "Asked for on 15 Jan 2027, 13:32 (Asia/Kolkata), with an unknown device." in text


def test_E9_a_new_browser_is_told_of_with_its_kind(house, ada):
    house.door().sign_in(ada)
    house.clock.advance(60)
    door = house.door()
    door.client.headers["User-Agent"] = WINDOWS
    door.sign_in(ada)
    house.outbox.drain()
    notice = house.mailbox.to(ada)[-1]
    assert notice.subject.startswith("New sign-in")
    for part in (" ".join(notice.text.split()), plain(notice.html)):
        assert "before: 15 Jan 2027, 08:01 (UTC), with Chrome on Windows." in part


def test_E9_rows_that_say_something_else_are_not_believed(house, ada):
    """Whoever writes to the database still writes no mail."""
    evil = "Chrome. Visit http://evil"
    house.door().ask(ada)
    house.db.q("update challenges set asked_by = :evil", evil=evil)
    user = house.auth.people.by_address(ada)
    told = house.auth.letter("new_device", f"{user.id}:{START}:{evil}")
    house.outbox.drain()
    for found in (told, house.mailbox.to(ada)[-1]):
        assert "evil" not in found.text + found.html and "an unknown device" in found.text


def test_a_notice_that_waited_through_an_update_is_still_sent(house, ada):
    user = house.auth.people.by_address(ada)
    told = house.auth.letter("new_device", f"{user.id}:{START}")
    assert "15 Jan 2027, 08:00 (UTC), with an unknown device." in told.text


# ---- notices and invitations
def test_an_address_that_changed_is_told_at_both_ends():
    draw, undo = NoticeLetter("Vestibule", BASE_URL), f"{BASE_URL}/undo#{'A' * 78}"
    old = draw("address_changed", ADA, START, "Europe/Berlin", "Edge", undo, 7 * 86400)
    assert old.to == ADA and old.subject == "The address of your Vestibule account was changed"
    for part in (" ".join(old.text.split()), plain(old.html)):
        assert "15 Jan 2027, 09:00 (Europe/Berlin), with Edge." in part
        assert "take it back with this link, which works once, for 7 days" in part
        # Which address it is now was chosen by whoever changed it.
        assert "@" not in part
    assert f"\n{undo}\n" in old.text and f'href="{undo}"' in old.html
    new = draw("address_new", "new@example.org", START, "UTC")
    assert new.to == "new@example.org" and "15 Jan 2027, 08:00 (UTC)" in new.text
    assert "href" not in new.html and "undo" not in new.text.lower()
    for found in (old, new):
        assert not SIX.search(found.text + found.html.replace(LINK, ""))


def invited(organisation):
    return InvitationLetter("Vestibule", BASE_URL)(ADA, organisation, 7 * 86400, URL)


@pytest.mark.parametrize(
    "name",
    [
        "St. Mary’s",
        "Gong & Söhne, Köln",
        "日本語学校",
        "हिन्दी केंद्र",
        "Class of 2026",
        "TSV 1860 München",
        "Haus 12 – 34",
        "A" * 60,
        "Inc.",
    ],
)
def test_an_invitation_names_the_organisation(name):
    found = invited(name)
    assert fit_for_mail(name)
    for part in (" ".join(found.text.split()), plain(found.html)):
        assert f"{name} invites you to Vestibule." in part
        assert "for this address only, and good for 7 days" in part and "ignore this mail" in part
    assert name not in found.subject and URL in found.text and f'href="{URL}"' in found.html


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", " A", "A" * 61, "A\nB", "A\r\nBcc: x@evil.org", "A\tB", "A\0B", "A\x1b[31mB"),
        *("Visit http://evil", "https evil", "evil.org", "www evil", "Eve.example", "evil 。org"),
        *("ｅｖｉｌ．ｃｏｍ", "e\u200bvil", "\u202eevil", "eve@evil", "evil/path", "evil:8080"),
        *(
            "Call 0800 12345",
            "Code 482913",
            "Your code is 48 29 13",
            "Code 482-913 for you",
            "Call 0800 123 4567",
            "<b>evil</b>",
            "a=b",
            "{app_name}",
            "⟦link⟧",
            "🎁 evil",
        ),
        *("=?UTF-8?Q?=0A?=Bcc: x@evil", "alice@example.org)bob@evil.org", 'say "evil"', "evil#1"),
    ],
)
def test_E7_a_name_that_says_more_than_a_name_is_left_out(name):
    assert not fit_for_mail(name)
    found = invited(name)
    # As if there were none.
    assert found == invited("") and "You are invited to Vestibule." in found.text
    assert b"evil" not in raw(found)


@settings(max_examples=1000, deadline=None, database=None)
@given(st.text(max_size=70))
def test_E7_a_name_in_a_mail_is_never_a_link_or_a_line(name):
    found = invited(name)
    assert (name in found.text) >= fit_for_mail(name)
    if found != invited(""):
        assert len(name) <= 60 and name.isprintable()
        assert not re.search(r"[/:@<>\\#]|\.\S", name)
    assert len(found.text.splitlines()) == len(invited("").text.splitlines())
    assert set(re.findall(r"\w+://[^/\s\"<]+", found.text + found.html)) == {BASE_URL}


# ---- the page that waits
def test_the_waiting_page_says_where_the_mail_went_and_when(house, ada):
    for address in (ada, "nobody@example.org"):
        door = house.door()
        door.ask(address)
        house.outbox.drain()
        for seconds, words in (
            (0, "Sent a moment ago."),
            (59, "Sent a moment ago."),
            (60, "Sent more than 1 minute ago."),
            (200, "Sent more than 3 minutes ago."),
        ):
            house.clock.now = START + seconds
            page = door.get("/verify_code").text
            assert words in page and address in page, seconds
            assert words in door.get("/resend_code", headers={"HX-Request": "true"}).text
            assert 'href="/login?next' in page
        house.clock.now = START + 200
        again = door.post("/resend_code").text
        house.outbox.drain()
        assert "Sent a moment ago." in again and "We have sent the email again." in again
        # It is drawn anew before its words are wrong.
        assert 'hx-trigger="load delay:20s"' in again
        slow = door.get("/resend_code", headers={"HX-Request": "true"}).text
        assert 'hx-trigger="load delay:60s"' in slow
        house.clock.now = START


# ---- nobody puts a word into a mail
PAYLOADS = [
    "Visit http://evil",
    "Chrome/1 (Windows) Visit http://evil",
    "=?UTF-8?Q?=0A?=Bcc: x@evil",
    "alice@example.org)bob@evil.org",
    "victim@evil.org, attacker@evil.org",
    "\r\nBcc: x@evil.org",
    "⟦code⟧ {code} {0.__class__} evil %s",
    "<b>evil</b><script>evil</script>",
    "123456 evil 654321",
    "\u202eevil\u2028evil",
]


def bare(message, said):
    """The bytes of a mail without what may differ between two to one address at one moment."""
    device = f"with {said.asked_by or 'an unknown device'}."
    text = message.decode("ascii")
    for what, times in ((said.link, 2), (said.code, 2), (device, 2)):
        assert text.count(what) == times, what
        text = text.replace(what, "⟦⟧")
    return text


@cache
def ordinary():
    """The same of a mail that somebody like you and me asked for."""
    said = SimpleNamespace(link="A" * 78, code="482913", asked_by="Chrome on Windows")
    return bare(raw(letter()), said)


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    """counter(typed, next, headers) → (what the mail says, its bytes): the whole way but for HTTP's own."""
    folder = tmp_path_factory.mktemp("counter")
    written = environment(f"sqlite:///{folder}/vestibule.db", folder)
    house = main.build(check(read(written, None))[0], Clock())
    house.db.q("pragma synchronous = off")  # ten thousand sign-ins
    house.auth.people.add(None, ADA, "", "user", Source())
    queue = []
    rules = replace(house.auth.signin, send=lambda t, kind, ref, until: queue.append((kind, ref)))

    def mail(typed, next_path, headers):
        scope = {
            "type": "http",
            "headers": [(k.encode(), v.encode("utf-8", "ignore")) for k, v in headers.items()],
            "client": ("192.0.2.1", 50000),
            "state": {"id": "0" * 16},
        }
        rules.create_code(typed, next_path, house.auth.browser(Request(scope)))
        kind, ref = queue.pop()
        return rules.mail(ref), raw(house.auth.letter(kind, ref))

    yield mail
    house.db.close()


BEFORE, AFTER = ["", " ", "\t", "\r\n "], ["", " ", "\n", "\u00a0"]


def spelled(how):
    """One of the ways to write one address."""
    capitals, how = divmod(how, 16)
    letters = (c.upper() if capitals >> n & 1 else c for n, c in enumerate(ADA))
    return BEFORE[how // 4] + "".join(letters) + AFTER[how % 4]


SAID_BY_BROWSERS = (
    *("accept-language", "referer", "origin", "host", "x-forwarded-for", "x-forwarded-host"),
    *("sec-ch-ua", "sec-ch-ua-platform", "cookie", "timezone"),
)


@settings(
    max_examples=10_000,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    how=st.integers(0, 2 ** (4 + len(ADA)) - 1),
    known=st.tuples(*[st.sampled_from(["", *PAYLOADS, *AGENTS])] * 3),
    text=st.text(max_size=40),
    where=st.integers(0, 7),
)
def test_E7_a_mail_differs_in_code_link_time_and_kind_of_device_only(
    counter, how, known, text, where
):
    wanted, agent, other = (k + text if where >> n & 1 else k for n, k in enumerate(known))
    headers = dict.fromkeys(SAID_BY_BROWSERS, other) | {"user-agent": agent}
    said, message = counter(spelled(how), wanted, headers)
    assert said.asked_by == kind_of(agent)  # so what was said did arrive
    assert said.asked_by in LABELS or said.asked_by == ""
    assert bare(message, said) == ordinary()
    assert b"evil" not in message and len(message) < 10_000
