"""Invitations to organisations: sent by who runs one, accepted by who was meant, once."""

import re

import pytest

from auth import moves
from auth.events import Source
from tests.conftest import ADMIN, BASE_URL
from tests.reading import entered, refused, rows, soup
from tests.serving import together

ADA, BOB, CAT = "ada@example.org", "bob@example.org", "cat@example.org"
WEEK = 7 * 86400


@pytest.fixture
def club(house, ada):
    """Run by Ada, who is no admin of the site."""
    return house.auth.organisations.create(None, "Chess club", ADA, Source())


@pytest.fixture
def path(club):
    return f"/admin/organisations/{club.id}/invitations"


@pytest.fixture
def boss(house, club):
    """A browser in which Ada is signed in, and works in her club."""
    return entered(house, ADA)


def one(house, state="open"):
    (row,) = [row for row in house.rows("invitations") if row["state"] == state]
    return row


def members(house, club):
    people = {row["id"]: row["address"] for row in house.rows("users")}
    found = [row for row in house.rows("memberships") if row["tenant_id"] == club.id]
    return {people[row["user_id"]]: row["role"] for row in found}


def mails(house, address):
    """The invitations that this address was mailed."""
    house.outbox.drain()
    return [m for m in house.mailbox.to(address) if "invite" in m.text]


def said(house, kind):
    found = [row for row in house.rows("events") if row["kind"] == kind]
    return [(row["subject"], row["detail"], row["tenant"]) for row in found]


# ---- from first to last
@pytest.mark.parametrize("who", [ADA, ADMIN])
def test_an_invitation_from_first_to_last(house, club, path, who):
    door = entered(house, who)
    assert "Nobody is invited" in soup(door.get(path)).get_text()
    answer = door.post(path, email=" Bob@Example.org ", role="user")
    assert answer.headers["location"] == f"{path}?done=sent"
    page = soup(door.get(answer.headers["location"]))
    assert "They are invited" in page.find(role="status").get_text()
    assert rows(page)[0][:3] == [BOB, "user", "open"] and rows(page)[0][4] == (
        who if who == ADA else "the site"
    )
    (letter,) = mails(house, BOB)
    assert f"\n{BASE_URL}/invitations\n" in letter.text and "Chess club invites you" in letter.text
    assert "good for 7 days" in " ".join(letter.text.split())
    # The mail leads to the door, and the door back to the invitation.
    guest = house.door()
    assert guest.get("/invitations").headers["location"] == "/login?next=/invitations"
    assert guest.sign_in(BOB, next="/invitations").headers["location"] == "/invitations"
    page = soup(guest.get("/invitations"))
    assert rows(page)[0][:2] == ["Chess club", "user"] and members(house, club) == {ADA: "admin"}
    form = page.find("form", action=re.compile("/accept$"))
    assert form["method"] == "post"
    assert guest.post(form["action"]).headers["location"] == "/invitations?done=accepted"
    page = soup(guest.get("/invitations?done=accepted"))
    assert "You are in" in page.find(role="status").get_text() and not rows(page)
    assert members(house, club) == {ADA: "admin", BOB: "user"}
    # They work there, as after a sign-in; and the list is empty again.
    assert "Chess club" in guest.get("/dashboard").text
    assert "Nobody is invited" in door.get(path).text
    for kind in ("invitation_sent", "invitation_accepted", "member_added"):
        assert (BOB, "user", club.id) in said(house, kind), kind
    assert (BOB, "user", "") in said(house, "user_created")


def test_it_is_declined(house, club, path, boss):
    boss.post(path, email=BOB, role="user")
    guest = entered(house, BOB)
    answer = guest.post(f"/invitations/{one(house)['id']}/decline")
    assert answer.headers["location"] == "/invitations?done=declined"
    page = soup(guest.get(answer.headers["location"]))
    assert "is declined" in page.find(role="status").get_text() and not rows(page)
    assert members(house, club) == {ADA: "admin"} and said(house, "invitation_declined")
    page = soup(boss.get(path))
    assert rows(page)[0][2] == "declined" and not page.select("td.acts form")
    # No is no for that one; another one may be sent.
    assert guest.post(f"/invitations/{one(house, 'declined')['id']}/accept").status_code == 410
    boss.post(path, email=BOB, role="user")
    assert guest.post(f"/invitations/{one(house)['id']}/accept").status_code == 303


def test_it_is_taken_back_and_sent_again(house, club, path, boss):
    boss.post(path, email=BOB, role="user")
    id = one(house)["id"]
    house.clock.advance(5)
    assert boss.post(f"{path}/{id}/again").headers["location"] == f"{path}?done=again"
    assert one(house)["expires_at"] == house.clock() + WEEK and len(mails(house, BOB)) == 2
    assert boss.post(f"{path}/{id}/withdraw").headers["location"] == f"{path}?done=withdrawn"
    assert "Nobody is invited" in boss.get(path).text
    for act in ("again", "withdraw"):
        answer = boss.post(f"{path}/{id}/{act}")
        assert answer.status_code == 410 and "does not count any more" in answer.text
    guest = entered(house, BOB)
    assert "no invitation for you" in guest.get("/invitations").text
    answer = guest.post(f"/invitations/{id}/accept")
    assert answer.status_code == 410 and "does not count any more" in answer.text
    assert members(house, club) == {ADA: "admin"}
    assert (
        len(said(house, "invitation_sent")) == 2 and len(said(house, "invitation_withdrawn")) == 1
    )


def test_after_seven_days_it_has_run_out_and_can_be_sent_again(house, club, path, boss):
    boss.post(path, email=BOB, role="user")
    id = one(house)["id"]
    house.clock.advance(WEEK - 1)
    boss.sign_in(ADA)
    guest = entered(house, BOB)
    assert rows(soup(guest.get("/invitations")))
    house.clock.advance(1)
    assert not rows(soup(guest.get("/invitations")))
    for act in ("accept", "decline"):
        assert guest.post(f"/invitations/{id}/{act}").status_code == 410
    page = soup(boss.get(path))
    assert rows(page)[0][2] == "run out"
    assert [b.get_text() for b in page.select("td.acts button")] == ["Send again"]
    boss.post(f"{path}/{id}/again")
    assert guest.post(f"/invitations/{id}/accept").status_code == 303
    assert members(house, club)[BOB] == "user"


def test_whoever_is_invited_twice_has_one_with_the_newer_role(house, club, path, boss):
    boss.post(path, email=BOB, role="user")
    id = one(house)["id"]
    house.clock.advance(10)
    boss.post(path, email="BOB@example.org", role="admin")
    row = one(house)
    assert (row["id"], row["role"], row["expires_at"]) == (id, "admin", house.clock() + WEEK)
    entered(house, BOB).post(f"/invitations/{id}/accept")
    assert members(house, club) == {ADA: "admin", BOB: "admin"}


@pytest.mark.parametrize(
    ("email", "role", "status", "says"),
    [
        ("", "user", 422, "Enter your email address"),
        ("nonsense", "user", 422, "send mail to that"),
        (BOB, "emperor", 422, "no such role"),
        (BOB, "", 422, "no such role"),
        (ADA, "user", 422, "is in it already"),
    ],
)
def test_what_cant_be_sent_says_why_and_keeps_what_was_typed(
    house, path, boss, email, role, status, says
):
    answer = boss.post(path, email=email, role=role)
    page = soup(answer, status)
    assert says in page.find(role="alert").get_text()
    assert page.find(id="email")["value"] == email
    assert house.rows("invitations") == [] and not mails(house, BOB)
    assert BOB not in {row["address"] for row in house.rows("users")}


def test_a_member_needs_none_however_they_came_in(house, admin, club, path, boss):
    house.add(BOB)
    boss.post(path, email=BOB, role="admin")
    admin.post(f"/admin/organisations/{club.id}/members", email=BOB, role="user")
    assert members(house, club)[BOB] == "user"
    guest, id = entered(house, BOB), one(house, "accepted")["id"]
    assert guest.post(f"/invitations/{id}/accept").status_code == 410
    assert members(house, club)[BOB] == "user"


def test_of_several_invitations_each_is_ones_own_to_take(house, admin, club, path, boss):
    other = house.auth.organisations.create(None, "Go <b>club</b>", ADMIN, Source())
    boss.post(path, email=BOB, role="user")
    admin.post(f"/admin/organisations/{other.id}/invitations", email=BOB, role="admin")
    guest = entered(house, BOB)
    page = soup(guest.get("/invitations"))
    assert [row[:2] for row in rows(page)] == [["Chess club", "user"], ["Go <b>club</b>", "admin"]]
    for form in page.find_all("form", action=re.compile("/accept$")):
        assert guest.post(form["action"]).status_code == 303
    assert members(house, other)[BOB] == "admin" and members(house, club)[BOB] == "user"
    # In several one chooses; the first was where they worked.
    assert "Chess club" in guest.get("/dashboard").text


def test_htmx_gets_the_fragment(house, path, boss):
    boss.post(path, email=BOB, role="user")
    guest = entered(house, BOB)
    for door, page in ((boss, path), (guest, "/invitations")):
        answer = door.get(page, headers={"HX-Request": "true"})
        assert answer.status_code == 200 and "<html" not in answer.text
    answer = guest.post(f"/invitations/{one(house)['id']}/accept", headers={"HX-Request": "true"})
    assert answer.headers["hx-redirect"] == "/invitations?done=accepted"


def test_ones_own_are_in_the_download(house, path, boss):
    boss.post(path, email=BOB, role="user")
    (found,) = entered(house, BOB).post("/account/data").json()["invitations"]
    assert (found["organisation"], found["address"], found["role"]) == ("Chess club", BOB, "user")
    assert (found["state"], found["expires_at"]) == ("open", house.clock() + WEEK)
    assert boss.post("/account/data").json()["invitations"] == []


def test_many_are_turned_page_by_page(house, club, path, boss):
    for n in range(30):
        house.auth.inviting.invite(None, club.id, f"guest{n:02}@example.org", "user", Source())
    first = soup(boss.get(path))
    assert len(rows(first)) == 25
    second = soup(boss.get(first.find("a", rel="next")["href"]))
    assert len(rows(second)) == 5 and rows(second)[0][4] == "the site"


# ---- what happens meanwhile
def test_an_invitation_is_the_organisations_and_stands_without_who_sent_it(house, club, path, boss):
    boss.post(path, email=BOB, role="user")
    rules = house.auth.organisations
    rules.join(None, club.id, ADMIN, "admin", Source())
    rules.leave(None, club.id, ADA, Source())
    house.auth.people.delete(None, house.auth.people.by_address(ADA).id, Source())
    guest = entered(house, BOB)
    assert guest.post(f"/invitations/{one(house)['id']}/accept").status_code == 303
    assert members(house, club) == {ADMIN: "admin", BOB: "user"}


def test_a_role_that_is_gone_becomes_the_least_one(house, club, path, boss):
    house.auth.people.put_role(None, "editor", "", Source())
    boss.post(path, email=BOB, role="editor")
    house.auth.people.delete_role(None, "editor", Source())
    assert one(house)["role"] == "user"
    guest = entered(house, BOB)
    assert rows(soup(guest.get("/invitations")))[0][1] == "user"
    assert guest.post(f"/invitations/{one(house)['id']}/accept").status_code == 303
    assert members(house, club)[BOB] == "user"


def test_whoever_tested_an_app_has_no_fixed_code_any_more(house, club, path, boss):
    house.auth.people.add_reviewer(None, BOB, 7, "192.0.2.0/24", Source())
    boss.post(path, email=BOB, role="user")
    guest, id = entered(house, BOB), one(house)["id"]
    assert house.rows("reviewers")
    guest.post(f"/invitations/{id}/accept")
    assert house.rows("reviewers") == [] and not guest.signed_in
    assert members(house, club)[BOB] == "user"


def test_whoever_is_disabled_accepts_nothing_and_gets_no_mail(house, club, path, boss):
    bob = house.add(BOB)
    house.auth.people.disable(None, bob.id, Source())
    assert boss.post(path, email=BOB, role="user").status_code == 303
    assert not mails(house, BOB)
    id = one(house)["id"]
    assert refused(house.auth.inviting.accept, bob, "", id, Source()) == "invitation_unknown"
    house.auth.people.enable(None, bob.id, Source())
    assert entered(house, BOB).post(f"/invitations/{id}/accept").status_code == 303


def test_they_are_tidied_away_a_month_after_their_end(house, club, path, boss):
    boss.post(path, email=BOB, role="user")
    house.clock.advance(WEEK + 30 * 86400 - 1)
    assert house.auth.tidy()["invitations"] == 0
    house.clock.advance(1)
    assert house.auth.tidy()["invitations"] == 1 and house.rows("invitations") == []


def test_a_mail_that_is_not_due_any_more_does_not_leave(house, club, path, boss):
    boss.post(path, email=BOB, role="user")
    boss.post(f"{path}/{one(house)['id']}/withdraw")
    house.outbox.drain()
    assert not house.mailbox.to(BOB)
    assert [r["state"] for r in house.rows("outbox") if r["kind"] == "invitation"] == ["void"]


def test_admins_see_who_a_waiting_mail_is_for(house, admin, path, boss):
    boss.post(path, email=BOB, role="user")
    page = admin.get("/admin/mail")
    assert "b***@example.org" in page.text and "Invitation" in page.text


def test_where_the_organisation_has_an_odd_name_the_mail_names_none(house, admin):
    odd = house.auth.organisations.create(None, "Visit evil.example now", ADMIN, Source())
    admin.post(f"/admin/organisations/{odd.id}/invitations", email=BOB, role="user")
    (letter,) = mails(house, BOB)
    assert "evil" not in letter.text + letter.html + letter.subject


# ---- how often
def test_a_mailbox_gets_as_many_invitations_as_codes_and_they_are_counted_apart(build):
    house = build(LIMIT_MAILS_PER_ADDRESS="2/1h")
    house.add(ADA)
    clubs = [house.auth.organisations.create(None, f"Club {n}", ADA, Source()) for n in range(4)]
    for club in clubs:
        house.auth.inviting.invite(None, club.id, BOB, "user", Source())
    assert len(mails(house, BOB)) == 2 and len(house.rows("invitations")) == 4
    # Their sign-in is none the worse, and shows all four.
    guest = entered(house, BOB)
    assert len(rows(soup(guest.get("/invitations")))) == 4
    house.clock.advance(3600)
    house.auth.inviting.again(None, clubs[3].id, one_of(house, clubs[3])["id"], Source())
    assert len(mails(house, BOB)) == 3


def one_of(house, club):
    (row,) = [row for row in house.rows("invitations") if row["tenant_id"] == club.id]
    return row


def test_all_tags_of_a_mailbox_together_get_five_times_that(build):
    house = build(LIMIT_MAILS_PER_ADDRESS="2/1h")
    house.add(ADA)
    club = house.auth.organisations.create(None, "Club", ADA, Source())
    for n in range(14):
        house.auth.inviting.invite(None, club.id, f"bob+{n}@example.org", "user", Source())
    house.outbox.drain()
    assert len([m for m in house.mailbox.messages if m.letter.to.startswith("bob+")]) == 10


def test_an_organisation_sends_only_so_many_a_day(house, club, path, boss):
    ada, rules = house.auth.people.by_address(ADA), house.auth.inviting
    most = house.auth.policy.invitations[0][0]
    for n in range(most):
        rules.invite(ada, club.id, f"guest{n}@example.org", "user", Source())
    answer = boss.post(path, email=BOB, role="user")
    page = soup(answer, 422)
    assert "many open invitations" in page.find(role="alert").get_text()
    boss.post(f"{path}/{house.rows('invitations')[0]['id']}/withdraw")
    answer = boss.post(path, email=BOB, role="user")
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) == 86400
    assert BOB not in {row["address"] for row in house.rows("users")}
    # Admins of the site are not bound by it, nor is another organisation.
    house.auth.inviting.invite(None, club.id, BOB, "user", Source())
    other = house.auth.organisations.create(None, "Go club", ADA, Source())
    rules.invite(ada, other.id, BOB, "user", Source())
    house.clock.advance(86400)
    boss.post(f"{path}/{house.rows('invitations')[1]['id']}/withdraw")
    rules.invite(ada, club.id, CAT, "user", Source())


def test_one_that_had_run_out_counts_among_the_open_ones_when_it_is_sent_again(house, club):
    ada, rules = house.auth.people.by_address(ADA), house.auth.inviting
    most = house.auth.policy.open_invitations
    rules.invite(ada, club.id, "first@example.org", "user", Source())
    first = one(house)["id"]
    house.clock.advance(8 * 86400)
    for n in range(most):
        house.auth.inviting.invite(None, club.id, f"guest{n}@example.org", "user", Source())
    assert refused(rules.again, ada, club.id, first, Source()) == "invitations_full"
    rules.again(None, club.id, first, Source())


def test_whoever_was_given_an_address_is_the_one_who_is_invited(house, club):
    """Somebody left it lately, and an admin of the site has given it to somebody else."""
    house.add(CAT)
    cat, now = house.auth.people.by_address(CAT), house.clock()
    house.db.q("update users set address = 'new@example.org' where id = :id", id=cat.id)
    moves.add(house.db, "a" * 32, cat.id, CAT, "new@example.org", "key", now, now + 7 * 86400)
    given = house.add(CAT)
    house.auth.inviting.invite(house.auth.people.by_address(ADA), club.id, CAT, "user", Source())
    assert one(house)["user_id"] == given.id and len(mails(house, CAT)) == 1


# ---- at the same moment
def test_of_eight_clicks_at_once_one_accepts(build):
    houses = build(), build()
    for house in houses:
        house.clock.now = houses[0].clock.now
    houses[0].add(ADA)
    club = houses[0].auth.organisations.create(None, "Club", ADA, Source())
    for n in range(5):
        address = f"guest{n}@example.org"
        houses[0].auth.inviting.invite(None, club.id, address, "user", Source())
        user, id = houses[0].auth.people.by_address(address), one(houses[0])["id"]

        def click(i, user=user, id=id):
            return refused(houses[i % 2].auth.inviting.accept, user, "", id, Source())

        assert sorted(together(8, click)) == ["done"] + ["invitation_over"] * 7
        assert len(said(houses[0], "invitation_accepted")) == n + 1
    assert len(members(houses[0], club)) == 6


def test_taken_back_and_accepted_at_once_is_one_of_both(build):
    houses = build(), build()
    houses[0].add(ADA)
    club = houses[0].auth.organisations.create(None, "Club", ADA, Source())
    for n in range(10):
        address = f"guest{n}@example.org"
        houses[0].auth.inviting.invite(None, club.id, address, "user", Source())
        user, id = houses[0].auth.people.by_address(address), one(houses[0])["id"]

        def act(i, user=user, id=id):
            rules = houses[i].auth.inviting
            if i:
                return refused(rules.withdraw, None, club.id, id, Source())
            return refused(rules.accept, user, "", id, Source())

        accepted, withdrawn = together(2, act)
        assert {accepted, withdrawn} == {"done", "invitation_over"}
        assert (address in members(houses[0], club)) == (accepted == "done")


def test_parsers_agree_that_every_form_works_without_scripts(house, path, boss):
    boss.post(path, email=BOB, role="user")
    for door, page in ((boss, path), (entered(house, BOB), "/invitations")):
        found = soup(door.get(page)).find(id="invitations")
        for form in found.find_all("form"):
            assert form["method"] == "post" and form["action"] == form["hx-post"]
