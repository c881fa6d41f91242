"""H and V: what can be done with somebody else's invitation, and what an invitation tells."""

import re

import pytest

from auth.events import Source
from auth.policy import Refused
from tests.attacks.test_d_browser import snapshot
from tests.conftest import ADMIN
from tests.reading import entered
from tests.test_invitations import mails, members, one

ANN, ABE = "ann@alpha.example", "abe@alpha.example"
BEA = "bea@bravo.example"
VIC, EVE = "vic@example.org", "eve@example.org"
SEEN = ["sessions.seen_at"]
ACTS = ("accept", "decline")


@pytest.fixture
def alpha(house):
    for address in (ANN, BEA, EVE):
        house.add(address)
    return house.auth.organisations.create(None, "Alpha club", ANN, Source())


@pytest.fixture
def bravo(house, alpha):
    return house.auth.organisations.create(None, "Bravo club", BEA, Source())


def page_of(club):
    return f"/admin/organisations/{club.id}/invitations"


def invite(house, club, address=VIC, role="user", actor=None):
    house.auth.inviting.invite(actor, club.id, address, role, Source())
    return one(house)["id"]


def move(house, old, new):
    """Somebody's address is another one from now on."""
    house.db.q("update users set address = :new where address = :old", old=old, new=new)


# ---- H6
def test_H6_who_was_taken_out_does_not_come_back_by_an_old_invitation(house, alpha):
    rules, ways = house.auth.organisations, []
    house.add(VIC)
    vic, guest = house.auth.people.by_address(VIC), entered(house, VIC)

    def accepted():
        assert guest.post(f"/invitations/{invite(house, alpha)}/accept").status_code == 303

    def added():
        invite(house, alpha, role="admin")
        rules.join(None, alpha.id, VIC, "user", Source())

    for come in (accepted, added):
        for go in (
            lambda: rules.leave(None, alpha.id, VIC, Source()),
            lambda: house.auth.signin.leave(vic, alpha.id, Source()),
        ):
            come()
            assert VIC in members(house, alpha)
            go()
            for row in house.rows("invitations"):
                answer = guest.post(f"/invitations/{row['id']}/accept")
                assert answer.status_code == 410, (come, row)
            assert "no invitation for you" in guest.get("/invitations").text
            assert VIC not in members(house, alpha)
            ways.append(come)
    assert len(ways) == 4 and len(house.rows("invitations")) == 4
    # Somebody who may do so lets them in again, by a new one.
    accepted()
    assert members(house, alpha)[VIC] == "user"


def test_H6_who_sends_invitations_no_more_is_stopped_at_the_next_request(house, alpha):
    rules, door = house.auth.organisations, entered(house, ANN)
    rules.join(None, alpha.id, ADMIN, "admin", Source())
    id = invite(house, alpha, EVE)
    ann = house.auth.people.by_address(ANN)
    paths = (page_of(alpha), f"{page_of(alpha)}/{id}/again", f"{page_of(alpha)}/{id}/withdraw")
    for end in (
        lambda: rules.join(None, alpha.id, ANN, "user", Source()),
        lambda: rules.leave(None, alpha.id, ANN, Source()),
    ):
        rules.join(None, alpha.id, ANN, "admin", Source())
        assert door.get(page_of(alpha)).status_code == 200
        end()
        before = snapshot(house.db, but=SEEN)
        assert door.get(page_of(alpha)).headers["location"] == "/no_access_right"
        for path in paths:
            answer = door.post(path, email=VIC, role="admin")
            assert answer.headers["location"] == "/no_access_right", path
        # A request that was under way asks once more inside its transaction.
        inviting = house.auth.inviting
        for act, *given in (
            (inviting.invite, VIC, "admin"),
            (inviting.again, id),
            (inviting.withdraw, id),
        ):
            with pytest.raises(Refused, match="not_admin"):
                act(ann, alpha.id, *given, Source())
        with pytest.raises(Refused, match="not_admin"):
            inviting.look(ann, alpha.id, 1)
        assert snapshot(house.db, but=SEEN) == before


def test_H6_with_the_organisation_go_its_invitations(house, alpha):
    house.add(VIC)
    guest, id = entered(house, VIC), invite(house, alpha)
    house.auth.organisations.delete(None, alpha.id, Source())
    for act in ACTS:
        assert guest.post(f"/invitations/{id}/{act}").status_code == 404
    house.outbox.drain()
    assert not [letter for letter in house.mailbox.to(VIC) if "Alpha" in letter.text]
    # One of the same name is another one.
    house.auth.organisations.create(None, "Alpha club", BEA, Source())
    assert house.rows("invitations") == []
    assert guest.post(f"/invitations/{id}/accept").status_code == 404


# ---- H7, V20
@pytest.mark.parametrize("act", ACTS)
def test_H7_a_forwarded_invitation_is_nobodys_but_the_invited_ones(house, alpha, act):
    id = invite(house, alpha)
    (letter,) = mails(house, VIC)
    link = re.search(r"https://\S+", letter.text)[0]
    # There is nothing in the mail to forward: the same for everybody.
    assert link == "https://vestibule.test/invitations" and id not in letter.text + letter.html
    door, before = entered(house, EVE), snapshot(house.db, but=SEEN)
    page = door.get("/invitations")
    assert "no invitation for you" in page.text
    theirs = door.post(f"/invitations/{id}/{act}")
    assert theirs.status_code == 404
    for text in (page.text, theirs.text):
        assert VIC not in text and "Alpha" not in text and ANN not in text
    # Not a byte tells that there is one.
    for odd in ("0" * 32, "x", "%00", "' or 1=1 --", "²"):
        answer = door.post(f"/invitations/{odd}/{act}")
        assert (answer.status_code, answer.text) == (404, theirs.text), odd
    assert snapshot(house.db, but=SEEN) == before
    # Nor does what is sent along make them the one.
    for given in ({"email": VIC, "address": VIC}, {"user": VIC, "user_id": one(house)["user_id"]}):
        answer = door.client.post(
            f"/invitations/{id}/{act}",
            data=given,
            params=given,
            headers={"Sec-Fetch-Site": "same-origin", "X-User": VIC},
        )
        assert answer.status_code == 404
    assert snapshot(house.db, but=SEEN) == before
    stranger = house.door().post(f"/invitations/{id}/{act}")
    assert stranger.headers["location"] == "/login" and snapshot(house.db, but=SEEN) == before


def test_V20_an_invitation_is_bound_to_the_person_and_to_their_address(house, alpha):
    id = invite(house, alpha, " Vic@EXAMPLE.org ")
    guest, other = entered(house, "VIC@example.org"), entered(house, EVE)
    assert one(house)["address"] == VIC
    # They have another address now: whoever asked for the old one did not ask for that.
    move(house, VIC, "vic@elsewhere.example")
    assert guest.post(f"/invitations/{id}/accept").status_code == 404
    assert "no invitation for you" in guest.get("/invitations").text
    # Somebody else has the old one.
    move(house, EVE, VIC)
    assert other.post(f"/invitations/{id}/accept").status_code == 404
    assert "no invitation for you" in other.get("/invitations").text
    assert members(house, alpha) == {ANN: "admin"}
    house.outbox.drain()
    assert not house.mailbox.to("vic@elsewhere.example")
    # Back as it was it counts, in whatever case the address is typed.
    move(house, VIC, EVE)
    move(house, "vic@elsewhere.example", VIC)
    assert guest.post(f"/invitations/{id}/accept").status_code == 303


def test_F7_who_is_deleted_and_added_again_has_no_old_invitation(house, alpha):
    id = invite(house, alpha, role="admin")
    house.auth.people.delete(None, one(house)["user_id"], Source())
    house.add(VIC)
    guest = entered(house, VIC)
    assert "no invitation for you" in guest.get("/invitations").text
    assert guest.post(f"/invitations/{id}/accept").status_code == 404
    assert members(house, alpha) == {ANN: "admin"} and house.rows("invitations") == []


# ---- H5
def test_H5_another_organisations_invitations_are_not_there(house, alpha, bravo):
    id = invite(house, bravo, VIC, "admin")
    door, before = entered(house, ANN), snapshot(house.db, but=SEEN)
    none = door.get(page_of(alpha).replace(alpha.id, "0" * 32))
    assert none.status_code == 404
    for club in (bravo.id, "0" * 32, "x", "%00", alpha.id.upper(), ""):
        path = f"/admin/organisations/{club}/invitations"
        for answer in (
            door.get(path),
            door.get(path, params={"page": "2", "done": "sent", "id": alpha.id}),
            door.post(path, email=EVE, role="admin", id=alpha.id, tenant=alpha.id),
            door.post(f"{path}/{id}/again"),
            door.post(f"{path}/{id}/withdraw"),
        ):
            assert answer.status_code == 404 and answer.text == none.text, path
    # Its id, asked for by way of their own organisation.
    for act in ("again", "withdraw"):
        for odd in (id, "0" * 32, "x", "%00"):
            answer = door.post(f"{page_of(alpha)}/{odd}/{act}")
            assert answer.status_code == 404 and answer.text == none.text, (odd, act)
    assert VIC not in door.get(page_of(alpha)).text
    assert snapshot(house.db, but=SEEN) == before


def test_H5_who_runs_two_sees_each_by_itself(house, alpha, bravo):
    house.auth.organisations.join(None, bravo.id, ANN, "admin", Source())
    invite(house, alpha, VIC)
    house.auth.inviting.invite(None, bravo.id, EVE, "user", Source())
    door = entered(house, ANN)
    for here, there, guest in ((alpha, bravo, VIC), (bravo, alpha, EVE)):
        door.post("/account/tenant", tenant=here.id)
        page = door.get(page_of(here))
        assert page.status_code == 200 and guest in page.text
        assert ({VIC, EVE} - {guest}).pop() not in page.text
        # While they work in the one they are nobody in the other.
        assert door.get(page_of(there)).status_code == 404
        assert door.post(page_of(there), email=ABE, role="user").status_code == 404


# ---- H2
def test_H2_members_and_strangers_invite_nobody(house, alpha):
    house.add(ABE)
    house.auth.organisations.join(None, alpha.id, ABE, "user", Source())
    id, before = invite(house, alpha, VIC, "admin"), None
    doors = [(entered(house, a), "/no_access_right") for a in (ABE, EVE)]
    before = snapshot(house.db, but=SEEN)
    for door, where in (*doors, (house.door(), "/login")):
        for path in ("", f"/{id}/again", f"/{id}/withdraw"):
            answer = door.post(page_of(alpha) + path, email=EVE, role="admin")
            assert answer.headers["location"] == where
        assert door.get(page_of(alpha)).headers["location"].startswith(where)
    assert snapshot(house.db, but=SEEN) == before


def test_H2_an_invitation_gives_no_role_on_the_site(house, alpha):
    door = entered(house, ANN)
    door.post(page_of(alpha), email=VIC, role="admin")
    row = next(row for row in house.rows("users") if row["address"] == VIC)
    assert (row["role"], row["activated_at"]) == ("user", None)
    guest = entered(house, VIC)
    guest.post(f"/invitations/{one(house)['id']}/accept")
    assert members(house, alpha)[VIC] == "admin"
    assert guest.get("/admin/roles").headers["location"] == "/no_access_right"
    assert guest.post("/admin/people", email=EVE).headers["location"] == "/no_access_right"


# ---- H8, B: what an organisation's admin learns of the site's people
KNOWN = ("nobody", "known", "active", "disabled", "has asked", "has had mails")


def strangers(house):
    """Addresses of one length that differ in all that the site knows of them: {what: address}."""
    known = {what: f"person{n}@people.example" for n, what in enumerate(KNOWN)}
    for what in ("known", "active", "disabled"):
        house.add(known[what], name="Very Secret")
    entered(house, known["active"])
    people = house.auth.people
    people.disable(None, people.by_address(known["disabled"]).id, Source())
    house.door().ask(known["has asked"])
    # Another organisation has invited them, and has spent their mails.
    other = house.auth.organisations.create(None, "Bravo club", ADMIN, Source())
    for _ in range(4):
        house.clock.advance(61)
        house.auth.inviting.invite(None, other.id, known["has had mails"], "admin", Source())
    return known


@pytest.mark.parametrize("mode", ["plain", "htmx"])
def test_H8_the_answer_is_the_same_whether_somebody_was_here_or_not(build, mode):
    house = build(LIMIT_MAILS_PER_ADDRESS="1/60s, 3/1h")
    house.add(ANN)
    club = house.auth.organisations.create(None, "Alpha club", ANN, Source())
    known, door, seen = strangers(house), entered(house, ANN), {}
    headers, path = {"HX-Request": "true"} if mode == "htmx" else {}, page_of(club)
    for what, address in known.items():
        answers = [door.post(path, headers, email=address, role="user")]
        answers += [door.get(f"{path}?done=sent", headers=headers)]
        rows = [r for r in house.rows("invitations") if r["tenant_id"] == club.id]
        (id,) = [r["id"] for r in rows if r["address"] == address]
        answers += [door.post(path, headers, email=address, role="no such role")]
        answers += [door.post(f"{path}/{id}/{act}", headers) for act in ("again", "withdraw")]
        answers += [door.post(f"{path}/{id}/withdraw", headers)]
        assert address in answers[1].text and "Very Secret" not in answers[1].text
        seen[what] = [
            (a.status_code, a.text.replace(address, "?").replace(id, "?"), dict(a.headers))
            for a in answers
        ]
        for *_, header in seen[what]:
            header["location"] = header.get("location", "").replace(id, "?")
    assert [status for status, *_ in seen["nobody"]][1:3] == [200, 422]
    for what in KNOWN:
        assert seen[what] == seen["nobody"], what


def test_H8_the_organisations_audit_does_not_say_who_was_added(house, alpha):
    house.add(VIC)
    door = entered(house, ANN)
    for address in (VIC, ABE):
        door.post(page_of(alpha), email=address, role="user")
    found = [row for row in house.rows("events") if row["tenant"] == alpha.id]
    kinds = {a: [row["kind"] for row in found if row["subject"] == a] for a in (VIC, ABE)}
    assert kinds[VIC] == kinds[ABE] == ["invitation_sent"]
    # The site's has it, with who did it.
    (added,) = [
        r for r in house.rows("events") if (r["kind"], r["subject"]) == ("user_created", ABE)
    ]
    assert added["actor"] == house.auth.people.by_address(ANN).id and added["tenant"] == ""


def test_H8_who_the_sites_admins_are_is_told_to_nobody(house, alpha):
    entered(house, ADMIN).post(page_of(alpha), email=VIC, role="user")
    page = entered(house, ANN).get(page_of(alpha)).text
    assert VIC in page and "the site" in page
    guest = entered(house, VIC)
    for text in (page, guest.get("/invitations").text, mails(house, VIC)[0].text):
        assert ADMIN not in text and house.auth.people.by_address(ADMIN).id not in text


def test_H8_one_organisation_at_its_limit_is_none_of_the_others(house, alpha, bravo):
    ann, inviting = house.auth.people.by_address(ANN), house.auth.inviting
    for n in range(house.auth.policy.open_invitations):
        inviting.invite(ann, alpha.id, f"guest{n}@example.org", "user", Source())
    door = entered(house, ANN)
    assert door.post(page_of(alpha), email=VIC, role="user").status_code == 422
    other = entered(house, BEA)
    assert other.post(page_of(bravo), email=VIC, role="user").status_code == 303


# ---- the link in the mail
@pytest.mark.parametrize("who", [None, VIC, EVE])
def test_E1_whoever_opens_the_link_changes_nothing(house, alpha, who):
    """Mail scanners open every link, and some click what looks like a button of a GET form."""
    invite(house, alpha)
    door = entered(house, who) if who else house.door()
    before = snapshot(house.db, but=SEEN)
    for path in (
        "/invitations",
        "/invitations?accept=1",
        f"/invitations/{one(house)['id']}/accept",
    ):
        for method in ("GET", "HEAD"):
            answer = door.client.request(method, path)
            assert answer.status_code in (200, 303, 405), (path, answer.status_code)
    assert snapshot(house.db, but=SEEN) == before
    assert not re.findall('method="get"', door.get("/invitations").text)
    # Nor a page of somebody else's.
    answer = door.post(
        f"/invitations/{one(house)['id']}/accept", headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert answer.status_code == 403 and snapshot(house.db, but=SEEN) == before


def test_E9_the_row_of_a_mail_opens_nothing(house, alpha):
    invite(house, alpha)
    row = next(row for row in house.rows("outbox") if row["kind"] == "invitation")
    user, _, id = row["ref"].partition(":")
    assert (user, id) == (one(house)["user_id"], one(house)["id"])
    # What somebody wrote into it names no other recipient.
    eve = house.auth.people.by_address(EVE)
    for ref in (f"{eve.id}:{id}", f":{id}", f"{user}:", "", "x", f"{user}:{'0' * 32}"):
        assert house.auth.letter("invitation", ref) is None
    assert house.auth.letter("invitation", row["ref"]).to == VIC
