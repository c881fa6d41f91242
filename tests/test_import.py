"""Many people at once: the list as people paste it, what would happen, what did."""

import os
import re

import pytest

from auth.events import Source
from auth.importing import MAX_FORM, MAX_ROWS, decoded, read
from auth.policy import Refused
from tests import nursery
from tests.conftest import ADMIN, environment
from tests.reading import entered, rows, soup
from tests.serving import ROOT
from tests.test_invitations import mails, members

PATH = "/admin/people/import"
ADA, BOB, CAT = "ada@example.org", "bob@example.org", "cat@example.org"
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def club(house):
    return house.auth.organisations.create(None, "Chess club", ADMIN, Source())


def table(page):
    """Line, address, name, role, what happens."""
    return [(row[-1], *row[:-1]) for row in rows(page)]


def tiles(page):
    found = page.select(".tile")
    return {t.span.get_text(): int(t.strong.get_text().replace(",", "")) for t in found}


def sure(door, page, **more):
    """Press the button of the preview, which carries the list itself."""
    form = page.find("form", enctype="multipart/form-data")
    given = {i["name"]: i["value"] for i in form.find_all("input")} | more
    parts = {name: (None, value) for name, value in given.items()}
    return door.client.post(form["action"], files=parts, headers=OURS)


def people(house):
    """{address: (name, role)} of all but the admin."""
    found = {r["address"]: (r["name"], r["role"]) for r in house.rows("users")}
    return {address: facts for address, facts in found.items() if address != ADMIN}


# ---- reading a list
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ada@example.org", [(ADA, "", "user")]),
        ("  Ada@Example.ORG \r\n\r\nbob@example.org\r", [(ADA, "", "user"), (BOB, "", "user")]),
        ("Ada Lovelace <ada@example.org>", [(ADA, "Ada Lovelace", "user")]),
        ('"Lovelace, Ada" <ada@example.org>,', [(ADA, "Lovelace, Ada", "user")]),
        ("Lovelace, Ada <ada@example.org>", [(ADA, "Lovelace, Ada", "user")]),
        ("<ada@example.org>;", [(ADA, "", "user")]),
        ("ada@example.org, Ada Lovelace, editor", [(ADA, "Ada Lovelace", "editor")]),
        ("ada@example.org;Ada, the first;Editor", [(ADA, "Ada, the first", "editor")]),
        ("ada@example.org\tAda\teditor", [(ADA, "Ada", "editor")]),
        ("Ada Lovelace, ada@example.org", [(ADA, "Ada Lovelace", "user")]),
        ('ada@example.org,"Smith; Ada",editor', [(ADA, "Smith; Ada", "editor")]),
        ('ada@example.org,"Ada ""Countess"" L."', [(ADA, 'Ada "Countess" L.', "user")]),
        ("ada@example.org, ,editor", [(ADA, "", "editor")]),
        ("ada@example.org,,", [(ADA, "", "user")]),
        # From a mail's line "To:".
        (
            "Ada L <ada@example.org>; bob@example.org; Cat <cat@example.org>",
            [(ADA, "Ada L", "user"), (BOB, "", "user"), (CAT, "Cat", "user")],
        ),
        # A spreadsheet's, with a line of heads and a byte order mark.
        (
            "\ufeffName;E-Mail;Team;Role\r\nAda;ada@example.org;x;editor\r\n;bob@example.org;y;\r\n",
            [(ADA, "Ada", "editor"), (BOB, "", "user")],
        ),
        ("email\nada@example.org\n", [(ADA, "", "user")]),
        ("Address,Full name\n\nada@example.org,Ada\n", [(ADA, "Ada", "user")]),
        # A quote that nobody closed spoils its own line and no more.
        ('"Ada <ada@example.org>\nbob@example.org', [(ADA, "Ada", "user"), (BOB, "", "user")]),
        # Tags are other people.
        (
            "ada@example.org\nada+x@example.org",
            [(ADA, "", "user"), ("ada+x@example.org", "", "user")],
        ),
    ],
)
def test_a_list_is_read_as_people_write_it(text, found):
    assert [(row.address, row.name, row.role) for row in read(text, "user")] == found
    assert {row.outcome for row in read(text, "user")} == {""}


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("nonsense", "email_invalid"),
        ("ada@localhost", "email_invalid"),
        ("ada@example.org\x0bbob@example.org", "email_invalid"),
        ("a b@example.org", "email_invalid"),
        (f"{'x' * 400}@example.org", "email_invalid"),
        (f"ada@example.org,{'x' * 201}", "name_invalid"),
        ("ada@example.org,A\0da", "name_invalid"),
        ("ada@example.org,A\u202eda", "name_invalid"),
        (f"ada@example.org, {'y' * 200_000}", "name_invalid"),
        ('"' * 200_000, "email_invalid"),
    ],
)
def test_what_cant_be_read_says_why_and_spoils_no_other_line(line, outcome):
    first, bad, last = read(f"bob@example.org\n{line}\ncat@example.org", "user")
    assert (first.address, last.address, last.line) == (BOB, CAT, 3)
    assert bad.outcome == outcome and len(bad.typed) <= 100


def test_a_line_that_is_shorter_than_its_head_is_one_without_an_address():
    short, whole = read("Name;E-mail\nAda\nBob;bob@example.org", "user")
    assert short.outcome == "email_invalid" and (whole.address, whole.name) == (BOB, "Bob")


def test_nothing_and_too_much_are_refused():
    for text in ("", " \n\t;,\n", "\ufeff", "email,name\n"):
        with pytest.raises(Refused, match="import_empty"):
            read(text, "user")
    many = "\n".join(f"p{n}@example.org" for n in range(5001))
    with pytest.raises(Refused, match="import_long"):
        read(many, "user")
    assert len(read(many, "user", None)) == 5001
    with pytest.raises(Refused, match="import_long"):
        read("x" * 1_000_001, "user")


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_file_is_read_as_spreadsheets_write_it(code):
    text = "email;name\r\nada@example.org;Ada Größe\r\n"
    (row,) = read(decoded(text.encode(code)), "user")
    assert (row.address, row.name) == (ADA, "Ada Größe")


# ---- looking, then doing
LIST = f"""email, name, role
{ADA}, Ada Lovelace, editor
BOB@example.org, Bob, user
known@example.org, Somebody else, editor
nonsense, Nobody
{ADA}, Ada once more
cat@example.org, Cat, emperor
Dan <dan@example.org>
"""


def test_a_list_from_first_to_last(house, admin):
    house.auth.people.put_role(None, "editor", "", Source())
    house.add("known@example.org", name="Known")
    page = soup(admin.get("/admin"))
    assert page.find("a", href=PATH)
    assert soup(admin.get(PATH)).find("textarea", id="text")
    before = house.rows("users"), house.rows("events")
    page = soup(admin.post(PATH, text=LIST, role="user", tenant=""))
    # Nothing has happened yet.
    assert (house.rows("users"), house.rows("events")) == before
    assert table(page) == [
        ("2", ADA, "Ada Lovelace", "editor", "will be added"),
        ("3", BOB, "Bob", "user", "will be added"),
        ("4", "known@example.org", "Somebody else", "editor", "is here already, stays as it is"),
        ("5", "nonsense", "Nobody", "user", "We can’t send mail to that"),
        ("6", ADA, "Ada once more", "user", "twice in this list"),
        ("7", CAT, "Cat", "emperor", "There is no such role"),
        ("8", "dan@example.org", "Dan", "user", "will be added"),
    ]
    assert tiles(page)["will be added"] == 3
    page = soup(sure(admin, page))
    assert "3 people are added" in page.find(role="status").get_text()
    assert [row[0] for row in table(page)] == ["4", "5", "6", "7"]
    assert tiles(page) == {
        "added": 3,
        "was here already": 1,
        "We can’t send mail to that": 1,
        "twice in this list": 1,
        "There is no such role": 1,
    }
    assert people(house) == {
        ADA: ("Ada Lovelace", "editor"),
        BOB: ("Bob", "user"),
        "dan@example.org": ("Dan", "user"),
        "known@example.org": ("Known", "user"),
    }
    boss = house.auth.people.by_address(ADMIN).id
    told = [r for r in house.rows("events") if r["kind"] == "user_created" and r["actor"] == boss]
    assert {(r["subject"], r["detail"]) for r in told} == {
        (ADA, "editor"),
        (BOB, "user"),
        ("dan@example.org", "user"),
    }
    # No mail; they can sign in.
    house.outbox.drain()
    assert not house.mailbox.to(ADA)
    assert entered(house, ADA).signed_in


def test_once_more_changes_nothing(house, admin):
    for n in range(2):
        page = soup(admin.post(PATH, text=f"{ADA}\n{BOB}", sure="yes"))
        assert tiles(page) == ({"was here already": 2} if n else {"added": 2})
    assert len(people(house)) == 2
    page = soup(admin.post(PATH, text=ADA))
    assert "nothing to do" in page.get_text() and not page.find("form", action=PATH)


def test_what_changes_between_look_and_act_counts(house, admin):
    page = soup(admin.post(PATH, text=f"{ADA}\n{BOB}"))
    house.add(BOB)
    page = soup(sure(admin, page))
    assert tiles(page) == {"added": 1, "was here already": 1}


def test_an_invitation_for_an_address_that_they_left_is_none(house, admin, club):
    house.add(ADA)
    house.auth.inviting.invite(None, club.id, ADA, "user", Source())
    house.db.q("update users set address = :new where address = :old", old=ADA, new=BOB)
    page = soup(admin.post(PATH, text=BOB, tenant=club.id, role="user"))
    assert [row[4] for row in table(page)] == ["will be invited"]
    sure(admin, page)
    assert [r["address"] for r in house.rows("invitations") if r["state"] == "open"] == [BOB]


def test_they_are_invited_to_an_organisation(house, admin, club):
    house.add(ADA)
    house.auth.organisations.join(None, club.id, ADA, "user", Source())
    house.auth.inviting.invite(None, club.id, BOB, "user", Source())
    house.auth.people.put_role(None, "editor", "", Source())
    assert len(mails(house, BOB)) == 1
    text = f"{ADA}\n{BOB}\n{CAT},Cat\ndan@example.org,Dan,editor"
    page = soup(admin.post(PATH, text=text, tenant=club.id, role="user"))
    words = [row[4] for row in table(page)]
    assert words == ["is in it already", "is invited already", "will be invited", "will be invited"]
    assert "Invite to Chess club: 2 people" in page.get_text()
    page = soup(sure(admin, page))
    assert "2 people are invited to Chess club" in page.find(role="status").get_text()
    # On the site they are like everybody; their role is for the organisation.
    assert people(house)[CAT] == ("Cat", "user") and people(house)["dan@example.org"][1] == "user"
    roles = {r["address"]: r["role"] for r in house.rows("invitations") if r["state"] == "open"}
    assert roles == {BOB: "user", CAT: "user", "dan@example.org": "editor"}
    assert len(mails(house, CAT)) == 1 and len(mails(house, BOB)) == 1
    assert members(house, club) == {ADMIN: "admin", ADA: "user"}
    guest = entered(house, "dan@example.org")
    page = soup(guest.get("/invitations"))
    guest.post(page.find("form", action=re.compile("/accept$"))["action"])
    assert members(house, club)["dan@example.org"] == "editor"


@pytest.mark.parametrize("code", ["utf-8-sig", "utf-16"])
def test_a_file_does_as_well(house, admin, code):
    raw = f"Name;E-mail\r\nGröße;{ADA}\r\n".encode(code)
    parts = {"file": ("people.csv", raw, "text/csv"), "role": (None, "user")}
    answer = admin.client.post(PATH, files=parts | {"text": (None, "")}, headers=OURS)
    page = soup(answer)
    assert table(page) == [("2", ADA, "Größe", "user", "will be added")]
    assert people(house) == {}
    sure(admin, page)
    assert people(house) == {ADA: ("Größe", "user")}


def test_what_cant_be_read_at_all_says_why_and_keeps_what_was_typed(house, admin, club):
    for text, tenant, status, says in (
        ("", "", 422, "no address in that list"),
        ("x\n" * 5001, "", 422, "too much at once"),
        (ADA, "0" * 32, 404, "no such organisation"),
        (ADA, "%00", 404, "no such organisation"),
    ):
        page = soup(admin.post(PATH, text=text, tenant=tenant, role="user", sure="yes"), status)
        assert says in page.find(role="alert").get_text()
        assert page.find(id="text").get_text().strip() == text.strip()
    assert people(house) == {}


def test_five_thousand_rows_at_once(house, admin, club):
    text = "\r\n".join(f"p{n:04}@example.org, Person {n}" for n in range(5000))
    parts = {"text": (None, text), "role": (None, "user"), "tenant": (None, "")}
    shown = admin.client.post(PATH, files=parts, headers=OURS)
    assert shown.text.count("will be added") == 5001 and "Person 4999" in shown.text
    page = soup(admin.client.post(PATH, files=parts | {"sure": (None, "yes")}, headers=OURS))
    assert tiles(page) == {"added": 5000} and len(people(house)) == 5000
    assert page.find("table") is None


# ---- what strangers put into it
def test_H2_a_list_that_makes_admins_asks_for_a_fresh_code(house, admin, club):
    house.clock.advance(901)
    for text, tenant in ((f"{ADA},Ada,admin", ""), (f"{ADA},Ada,ADMIN", club.id)):
        page = soup(admin.post(PATH, text=text, tenant=tenant))
        assert "fresh code" in page.get_text()
        answer = sure(admin, page)
        assert answer.headers["location"] == f"/confirm?next={PATH}"
        assert people(house) == {} and house.rows("invitations") == []
    answer = admin.post(PATH, text=ADA, role="admin", sure="yes")
    assert answer.headers["location"] == f"/confirm?next={PATH}" and people(house) == {}
    admin.sign_in(ADMIN, next=PATH)
    assert "fresh code" not in admin.post(PATH, text=f"{ADA},Ada,admin").text
    admin.post(PATH, text=f"{ADA},Ada,admin", sure="yes")
    assert people(house) == {ADA: ("Ada", "admin")}


def test_H2_who_was_demoted_meanwhile_adds_nobody(house, admin):
    second = house.add("second@example.com", "admin")
    rules, listed = house.auth.importing, read(ADA, "user")
    house.auth.people.set_role(None, second.id, "user", Source())
    with pytest.raises(Refused, match="not_admin"):
        rules.put(second, listed, None, Source())
    assert ADA not in people(house)


def test_H4_others_than_admins_of_the_site_get_nowhere(house, club):
    house.add(ADA)
    house.auth.organisations.join(None, club.id, ADA, "admin", Source())
    door = entered(house, ADA)
    parts = {"file": ("x.csv", b"eve@example.org", "text/csv"), "sure": (None, "yes")}
    for one, where in ((door, "/no_access_right"), (house.door(), "/login")):
        assert one.get(PATH).headers["location"].startswith(where)
        assert one.post(PATH, text=BOB, sure="yes").headers["location"] == where
        answer = one.client.post(PATH, files=parts, headers=OURS)
        assert answer.headers["location"] == where
    answer = door.client.post(PATH, files=parts, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert set(people(house)) == {ADA}


NAMES = (
    "=HYPERLINK(0)",
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "<script>alert(1)</script>",
    "</textarea><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "{{7*7}} ⟦address⟧ %s",
)


def test_J9_formulas_and_html_are_names_like_any_other(house, admin):
    text = "\n".join(f"n{n}@example.org\t{name}" for n, name in enumerate(NAMES))
    text += "\n<script>alert(1)</script>\tx\n=cmd@evil|x\ty"
    page = soup(admin.post(PATH, text=text))
    assert [row[2] for row in table(page)] == [*NAMES, "x", "y"]
    assert page.find("img") is None and not [s for s in page.find_all("script") if s.get_text()]
    page = soup(sure(admin, page))
    assert [row[1] for row in table(page)] == ["<script>alert(1)</script>", "=cmd@evil|x"]
    assert [facts[0] for facts in people(house).values()] == list(NAMES)
    answer = admin.post(PATH, text="</textarea><script>alert(1)</script>", tenant="0" * 32)
    assert answer.status_code == 404 and "<script>alert" not in answer.text
    # And out again: a spreadsheet runs none of what an admin downloads.
    text = admin.post("/admin/audit.csv").text
    assert not [
        c for line in text.splitlines() for c in line.split(",") if c.startswith(("=", "+"))
    ]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"x" * (MAX_FORM + 1), "multipart/form-data; boundary=B", 413),
        (b"--B\r\n", "multipart/form-data; boundary=B", 422),
        (b"--B\r\nbroken", "multipart/form-data; boundary=B", 422),
        (b"broken", "multipart/form-data; boundary=B", 400),
        (b"--B\r\nContent-Disposition: form-data\r\n\r\nx", "multipart/form-data; boundary=B", 400),
        (b"", "multipart/form-data", 400),
        (b"text=%FF%FE%00", "application/x-www-form-urlencoded", 200),
        (b'{"text": "eve@example.org", "sure": "yes"}', "application/json", 422),
        (
            b'--B\r\nContent-Disposition: form-data; name="text"; filename="a"\r\n\r\nx@example.org'
            b"\r\n--B--\r\n",
            "multipart/form-data; boundary=B",
            422,
        ),
        (
            b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\x00\xff\xfe'
            b"\r\n--B--\r\n",
            "multipart/form-data; boundary=B",
            200,
        ),
    ],
)
def test_J3_odd_bodies_are_answered_and_add_nobody(house, admin, body, kind, status):
    headers = OURS | {"Content-Type": kind}
    answer = admin.client.post(PATH, content=body, headers=headers)
    assert answer.status_code == status and people(house) == {}


def test_J3_a_body_without_a_length_is_not_read(house, admin):
    def endless():
        yield b"text=eve@example.org&sure=yes"

    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = admin.client.post(PATH, content=endless(), headers=OURS | form)
    assert answer.status_code == 413 and people(house) == {}
    for length in ("x", "-1", "1e3", "9" * 10):
        answer = admin.client.post(
            PATH, content=b"text=x", headers=OURS | form | {"Content-Length": length}
        )
        assert answer.status_code == 413
    # Elsewhere 64 kB are the end, as ever.
    assert admin.post("/admin/people", email="x" * 70_000).status_code == 413


# ---- by command
@pytest.fixture
def manage(database_url, tmp_path):
    """manage(*words, input=…) → (exit status, stdout, stderr)"""

    def run(*words, given=""):
        keep = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
        env = keep | environment(database_url, tmp_path)
        done = nursery.run(ROOT / "manage.py", *words, cwd=tmp_path, env=env, given=given)
        return done.returncode, done.stdout, done.stderr

    return run


def test_a_list_by_command(manage, build, tmp_path):
    house = build()
    club = house.auth.organisations.create(None, "Chess club", ADMIN, Source())
    file = tmp_path / "people.csv"
    file.write_bytes(f"email;name\r\n{ADA};Größe\r\n{BOB};Bob\r\n".encode("cp1252"))
    assert manage("import-users", str(file), "--dry-run") == (0, "2 will be added\n", "")
    assert people(house) == {}
    assert manage("import-users", str(file)) == (0, "2 added\n", "")
    assert people(house) == {ADA: ("Größe", "user"), BOB: ("Bob", "user")}
    assert manage("import-users", str(file)) == (0, "2 was here already\n", "")
    status, out, error = manage("import-users", "-", "--tenant", club.id, given=f"{CAT}\n{ADA}\n")
    assert (status, out, error) == (0, "2 invited\n", "")
    assert len(house.rows("invitations")) == 2
    mailed = [(r["state"], r["lane"]) for r in house.rows("outbox") if r["kind"] == "invitation"]
    assert mailed == [("queued", 1)] * 2  # behind the codes


def test_by_command_what_was_not_done_is_told(manage, build):
    house = build()
    bad = f"{ADA}\nnonsense\x1b[31m\n{BOB},Bob,emperor\n{ADA}\n"
    status, out, error = manage("import-users", "-", given=bad)
    assert status == 1 and error == "2 lines were not done: mend what is bad, and import it again\n"
    assert out.splitlines() == [
        "line 2  nonsense?[31m  We can’t send mail to that",
        f"line 3  {BOB}  There is no such role",
        "1 added",
        "1 We can’t send mail to that",
        "1 There is no such role",
        "1 twice in this list",
    ]
    assert set(people(house)) == {ADA}
    for words, says in (
        (("--tenant", "0" * 32), "no such organisation"),
        (("--role", "emperor"), "1 line was not done"),
    ):
        status, out, error = manage("import-users", "-", *words, given="x@example.org")
        assert status == 1 and says in error and len(error.splitlines()) == 1
    assert manage("import-users", "-", given="\n")[0] == 1
    assert manage("import-users", "no-such-file.csv")[0] == 1


def test_a_thousand_by_command(manage, build):
    house = build()
    many = "".join(f"p{n}@example.org\n" for n in range(1_000))
    status, out, error = manage("import-users", "-", given=many)
    # No progress is drawn where nobody looks.
    assert (status, out, error) == (0, "1000 added\n", "")
    assert len(people(house)) == 1_000
    # A list may be longer than what a page takes.
    again = f"{ADA}\n" * (MAX_ROWS + 1)
    status, out, error = manage("import-users", "-", "--dry-run", given=again)
    assert (status, error) == (0, "")
    assert out == f"1 will be added\n{MAX_ROWS} twice in this list\n"
