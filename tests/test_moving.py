"""A person changes their own address, and takes it back."""

import re

import pytest

from auth.events import Source
from tests.conftest import ADMIN, DEFAULT, SECRET
from tests.reading import soup

ADA, NEW, NEXT, BOB = "ada@example.org", "ada@new.example", "ada@next.example", "bob@example.org"
DAY = 86400


@pytest.fixture
def own(house, ada):
    door = house.door()
    door.sign_in(ADA)
    return door


def code_to(house, address):
    house.outbox.drain()
    return house.mailbox.latest_code(address)


def ask(door, address):
    return door.post("/account/address", email=address)


def enter(door, code):
    return door.post("/account/address/code", code=code)


def move(house, door, address):
    """All of it. Raises AssertionError when it does not end in another address."""
    assert ask(door, address).headers["location"] == "/account?done=asked"
    answer = enter(door, code_to(house, address))
    assert answer.headers["location"] == "/account?done=moved", answer.text
    return answer


def undo_link(house, address):
    """What the newest notice to an address has behind the # of its link."""
    house.outbox.drain()
    return re.search(r"/undo_address#([A-Za-f]{78})$", newest(house, address).text, re.M)[1]


def newest(house, address):
    return house.mailbox.latest_letter(address)


def undo(house, secret, door=None):
    return (door or house.door()).post("/undo_address", token=secret)


def wrong(code):
    return f"{(int(code) + 1) % 10**6:06}"


def user(house, address):
    return house.auth.people.by_address(address)


def addresses(house):
    return {row["address"] for row in house.rows("users")}


def alert(answer):
    return (
        soup(answer, answer.status_code)
        .select_one("#address-error [role=alert]")
        .get_text(" ", strip=True)
    )


# ---- the way
@pytest.mark.parametrize("htmx", [False, True])
def test_the_code_that_is_mailed_there_makes_an_address_ones_own(house, ada, htmx):
    door, id = house.door(htmx), user(house, ADA).id
    door.sign_in(ADA)
    page = soup(door.get("/account", headers={"HX-Request": "false"}))
    assert page.select_one("#address strong").text == ADA
    asked = ask(door, f" {NEW.upper()} ")
    if htmx:
        assert asked.status_code == 200 and soup(asked).select_one("#address #code")
    else:
        assert asked.headers["location"] == "/account?done=asked"
    page = soup(door.get("/account?done=asked", headers={"HX-Request": "false"}))
    assert NEW in page.select_one("#address-sent").text and page.select_one("#code[autofocus]")
    assert user(house, ADA).id == id
    answer = enter(door, code_to(house, NEW))
    assert (
        answer.headers.get("hx-redirect") or answer.headers["location"]
    ) == "/account?done=moved"
    assert user(house, NEW).id == id and ADA not in addresses(house)
    page = soup(door.get("/account?done=moved", headers={"HX-Request": "false"}))
    assert "your address now" in page.select_one("[role=status]").text and NEW in page.text
    assert not page.select_one("#code") and page.select_one("#address #email")
    assert house.door().sign_in(NEW)


def test_the_mail_says_what_its_code_is_for(house, own):
    house.auth.signin.rename(user(house, ADA), "", "Europe/Berlin", Source())
    own.client.headers["User-Agent"] = "Mozilla/5.0 (iPhone) Version/18.0 Safari/604.1"
    ask(own, NEW)
    code = code_to(house, NEW)
    letter = newest(house, NEW)
    assert letter.subject == "Your new address at Vestibule" and letter.text.startswith(f"{code}\n")
    assert re.findall(r"[0-9]{6,}", letter.text) == [code] and code in letter.html
    for text in (letter.text, letter.html):
        assert "15 minutes" in text and "Europe/Berlin" in text and "Safari on iPhone" in text
        assert ADA not in text and "sign-in code" not in text and "#" not in letter.text


def test_both_addresses_are_told_and_the_old_one_can_undo(house, own):
    move(house, own, NEW)
    house.outbox.drain()
    old, new = newest(house, ADA), newest(house, NEW)
    assert "was changed" in old.subject and NEW not in old.text and "7 days" in old.text
    assert "is the address" in new.subject and "http" not in new.text.replace(house.base_url, "")
    assert f"{house.base_url}/undo_address#" in old.text and "/undo_address#" in old.html


def test_what_happened_is_found_under_both_addresses(house, own):
    id = user(house, ADA).id
    move(house, own, NEW)
    undo(house, undo_link(house, ADA))
    found = [r for r in house.rows("events") if r["kind"].startswith("user_address")]
    told = [(r["kind"], r["subject"], r["detail"], r["actor"]) for r in found]
    there, back = f"{ADA} → {NEW}", f"{NEW} → {ADA}"
    assert sorted(told) == [
        ("user_address_asked", NEW, "", id),
        ("user_address_changed", ADA, there, id),
        ("user_address_changed", NEW, there, id),
        ("user_address_restored", ADA, back, ""),
        ("user_address_restored", NEW, back, ""),
    ]


def test_all_but_the_session_that_asked_end_at_once(house, own):
    others, app = [house.door(), house.door()], house.program()
    for one in (*others, app):
        one.sign_in(ADA)
    waiting, there = house.door(), house.door()
    waiting.ask(ADA)
    code = waiting.read_code()
    move(house, own, NEW)
    assert own.signed_in and not any(one.signed_in for one in (*others, app))
    assert app.refresh().status_code == 401 and app.get("/auth/me").status_code == 401
    assert waiting.enter(code).status_code == 410 and not waiting.signed_in
    assert len(house.rows("sessions")) == 1 and house.rows("devices") == []
    # No code reaches the old address any more; the new one is all there is.
    sent = len(house.mailbox.to(ADA))
    there.ask(ADA)
    house.outbox.drain()
    assert len([m for m in house.mailbox.to(ADA) if "sign-in code" in m.subject]) <= sent
    assert there.enter(wrong(code)).status_code == 422 and not there.signed_in


def test_rights_and_memberships_move_along_and_a_reviewers_code_ends(house, own):
    club = house.auth.organisations.create(None, "Chess club", ADA, Source())
    move(house, own, NEW)
    assert [m.tenant for m in house.auth.signin.own(user(house, NEW), "").memberships] == [club.id]
    tester = house.door()
    house.auth.people.add_reviewer(None, BOB, 14, "192.0.2.0/24", Source())
    tester.sign_in(BOB)
    assert house.rows("reviewers")
    move(house, tester, NEXT)
    assert house.rows("reviewers") == []


def test_an_admin_moves_like_anybody_and_the_setting_makes_its_address_anew(build):
    house = build()
    door = house.door()
    door.sign_in(ADMIN)
    move(house, door, NEW)
    assert door.get("/admin").status_code == 200 and user(house, NEW).role == "admin"
    again = build()  # another start, with the same ADMIN_EMAILS
    assert {ADMIN, NEW} <= addresses(again) and user(again, ADMIN).id != user(again, NEW).id


# ---- what is refused, inside the form
@pytest.mark.parametrize(
    ("typed", "status", "says"),
    [
        ("", 422, "Enter your email address."),
        ("ada at new.example", 422, "can’t send mail"),
        (ADA.upper(), 422, "your address already"),
    ],
)
@pytest.mark.parametrize("htmx", [False, True])
def test_what_is_no_other_address_is_refused_in_the_form(house, ada, htmx, typed, status, says):
    door = house.door(htmx)
    door.sign_in(ADA)
    answer = ask(door, typed)
    assert answer.status_code == status and says in alert(answer)
    field = soup(answer, status).select_one("#email")
    assert (field["value"], field["aria-invalid"]) == (typed, "true")
    assert [row["purpose"] for row in house.rows("challenges")] == ["sign-in"]


def test_a_wrong_code_costs_a_try_and_the_fifth_ends_it(house, own):
    ask(own, NEW)
    code = code_to(house, NEW)
    assert enter(own, "12a").status_code == 422 and enter(own, "123").status_code == 422
    for left in (4, 3, 2, 1):
        answer = enter(own, wrong(code))
        assert answer.status_code == 422 and f"You have {left}" in alert(answer)
        assert soup(answer, 422).select_one("#code[aria-invalid]")
    last = enter(own, wrong(code))
    assert last.status_code == 422 and "last try" in alert(last)
    assert not soup(last, 422).find(id="code")
    assert enter(own, code).status_code == 429 and ADA in addresses(house)
    house.clock.advance(61)
    move(house, own, NEW)


def test_a_code_lives_for_a_quarter_of_an_hour(house, own):
    ask(own, NEW)
    code = code_to(house, NEW)
    house.clock.advance(15 * 60)
    answer = enter(own, code)
    assert answer.status_code == 410 and "run out" in alert(answer) and ADA in addresses(house)
    house.clock.advance(2 * DAY)
    house.auth.tidy()
    assert not [r for r in house.rows("challenges") if r["purpose"] == "another address"]
    assert enter(own, code).status_code == 410


def test_without_a_move_under_way_a_code_is_refused_kindly(own):
    answer = enter(own, "123456")
    assert answer.status_code == 410 and "Enter the new address once more" in alert(answer)


def test_asking_again_keeps_the_code_while_no_mail_can_leave_and_another_address_ends_it(build):
    house = build(**DEFAULT)
    house.add(ADA)
    own = house.door()
    own.sign_in(ADA)
    ask(own, NEW)
    first = code_to(house, NEW)
    ask(own, NEW)  # within a minute
    house.outbox.drain()
    assert len(house.mailbox.to(NEW)) == 1
    ask(own, NEXT)
    assert enter(own, first).status_code == 422 and ADA in addresses(house)
    enter(own, code_to(house, NEXT))
    assert NEXT in addresses(house)


def test_one_person_may_ask_for_five_mails_an_hour_to_other_addresses(house, own):
    for n in range(5):
        assert ask(own, f"n{n}@new.example").status_code == 303
    answer = ask(own, NEW)
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) <= 3600
    house.outbox.drain()
    assert not house.mailbox.to(NEW)
    house.clock.advance(3600)
    own.sign_in(ADA)
    move(house, own, NEW)


def test_where_few_digits_are_switched_off_the_mail_has_a_longer_code(build):
    house = build(**DEFAULT | {"LIMIT_WRONG_PER_ACCOUNT": "3/24h"})
    house.add(ADA)
    own = house.door()
    own.sign_in(ADA)
    stranger = house.door(client="203.0.113.9")
    stranger.ask(NEW)
    for _ in range(3):
        stranger.enter("000000")
    house.clock.advance(61)
    own.sign_in(ADA)
    page = ask(own, NEW) and soup(own.get("/account"))
    assert "12 letters and digits" in page.select_one("#address-sent").text
    house.outbox.drain()
    letter = newest(house, NEW)
    code = letter.text.split("\n")[0]
    assert re.fullmatch("[A-Z2-7]{12}", code)
    assert "newest email" in alert(enter(own, "123456"))
    assert "newest email" in alert(enter(own, "12345678"))
    enter(own, code.lower())
    assert NEW in addresses(house)


def test_codes_that_were_on_their_way_when_digits_went_off_are_answered_by_a_longer_one(build):
    house = build(**DEFAULT | {"LIMIT_WRONG_PER_ACCOUNT": "3/24h"})
    house.add(ADA)
    own = house.door()
    own.sign_in(ADA)
    ask(own, NEW)
    code = code_to(house, NEW)
    for _ in range(3):
        enter(own, wrong(code))
    answer = enter(own, code)
    assert answer.status_code == 422 and "newest email" in alert(answer)
    house.clock.advance(61)
    ask(own, NEW)
    house.outbox.drain()
    enter(own, newest(house, NEW).text.split("\n")[0])
    assert NEW in addresses(house)


# ---- taking it back
def test_the_link_takes_it_back_and_signs_everybody_out(house, own):
    move(house, own, NEW)
    secret, app = undo_link(house, ADA), house.program()
    app.sign_in(NEW)
    waiting = house.door()
    waiting.ask(NEW)
    code = waiting.read_code()
    answer = undo(house, secret)
    assert answer.status_code == 200 and "a***@example.org" in answer.text
    assert addresses(house) == {ADMIN, ADA}
    assert not own.signed_in and not app.signed_in and app.refresh().status_code == 401
    assert waiting.enter(code).status_code == 410
    assert house.rows("sessions") == [] and house.rows("devices") == []
    assert house.door().sign_in(ADA)


def test_who_undoes_in_their_own_browser_is_signed_out_there(house, own):
    move(house, own, NEW)
    answer = undo(house, undo_link(house, ADA), own)
    assert answer.status_code == 200 and "Sign out" not in answer.text
    assert own.cookie("session") is None and own.cookie("device") is None
    other = house.door()
    other.sign_in(ADMIN)
    own.sign_in(ADA)
    move(house, own, NEXT)
    assert "Sign out" in undo(house, undo_link(house, ADA), other).text and other.signed_in


def test_it_works_once_for_seven_days(house, own):
    move(house, own, NEW)
    secret = undo_link(house, ADA)
    house.clock.advance(7 * DAY - 1)
    assert undo(house, secret).status_code == 200
    again = undo(house, secret)
    assert again.status_code == 410 and "used already" in again.text
    door = house.door()
    door.sign_in(ADA)
    move(house, door, NEW)
    late = undo_link(house, ADA)
    house.clock.advance(7 * DAY)
    assert undo(house, late).status_code == 410 and NEW in addresses(house)


def test_the_page_of_the_link_only_says_what_it_does(house):
    page = soup(house.door().get("/undo_address"))
    form = page.find("form", id="undo_form")
    assert (form["method"], form["action"]) == ("post", "/undo_address")
    assert "every browser and app" in page.text and form.find(
        "input", attrs={"data-fragment": True}
    )


@pytest.mark.parametrize("pasted", ["", "nonsense", "a" * 78, "x" * 5000])
def test_what_is_no_link_of_ours_is_refused(house, pasted):
    answer = undo(house, pasted)
    assert answer.status_code == 422 and 'role="alert"' in answer.text


def test_all_of_the_link_may_be_pasted(house, own):
    move(house, own, NEW)
    secret = undo_link(house, ADA)
    assert undo(house, f" {house.base_url}/undo_address#{secret} ").status_code == 200
    assert ADA in addresses(house)


def test_an_address_that_is_somebody_elses_by_now_stays_theirs(house, own):
    """Nobody may sign up with it meanwhile or move to it; an admin may give it to somebody."""
    move(house, own, NEW)
    secret, other = undo_link(house, ADA), house.add(ADA)
    answer = undo(house, secret)
    assert answer.status_code == 422 and "another account" in answer.text
    assert user(house, ADA).id == other.id and own.signed_in
    house.auth.people.delete(None, other.id, Source())
    assert undo(house, secret).status_code == 200


def test_a_deleted_account_is_not_brought_back(house, own):
    move(house, own, NEW)
    secret = undo_link(house, ADA)
    own.post("/account/delete", sure="yes")
    assert undo(house, secret).status_code == 422 and addresses(house) == {ADMIN}
    assert house.rows("moves") == []
    assert house.add(ADA)  # and the address is free


def test_a_disabled_person_gets_the_address_back_and_stays_outside(house, own):
    move(house, own, NEW)
    secret, id = undo_link(house, ADA), user(house, NEW).id
    house.auth.people.disable(None, id, Source())
    assert undo(house, secret).status_code == 200 and user(house, ADA).disabled_at
    door = house.door()
    door.ask(ADA)
    sent = len(house.mailbox.messages)
    house.outbox.drain()
    assert len(house.mailbox.messages) == sent and not door.signed_in


def test_the_key_before_this_one_still_undoes(build):
    house = build()
    house.add(ADA)
    own = house.door()
    own.sign_in(ADA)
    move(house, own, NEW)
    secret, key = undo_link(house, ADA), "another-7c1f0a5b7d1e48f2a6b4c8d0e2f41357"
    assert undo(build(SECRET_KEY=key), secret).status_code == 422
    assert undo(build(SECRET_KEY=key, SECRET_KEY_PREVIOUS=SECRET), secret).status_code == 200


# ---- for as long the address is kept
def test_nobody_else_moves_to_an_address_that_can_be_taken_back(house, own):
    house.add(BOB)
    bob = house.door()
    bob.sign_in(BOB)
    move(house, own, NEW)
    assert ask(bob, ADA).status_code == 303
    sent = len(house.mailbox.to(ADA))
    house.outbox.drain()
    assert len([m for m in house.mailbox.to(ADA)[sent:] if "new address" in m.subject]) == 0
    move(house, own, ADA)  # who left it may come back
    assert ADA in addresses(house) and NEW not in addresses(house)


def test_nobody_signs_up_with_it_for_seven_days(build):
    house = build(SIGNUP="open")
    own, there = house.door(), house.door()
    own.sign_in(ADA)
    move(house, own, NEW)
    house.outbox.drain()
    mails = len(house.mailbox.to(ADA))
    there.ask(ADA)
    house.outbox.drain()
    assert len(house.mailbox.to(ADA)) == mails
    (c,) = [row for row in house.rows("challenges") if row["address"] == ADA]
    code = house.auth.keys.code(c["key_id"], c["purpose"], c["nonce"], ADA, 0, 6)
    assert there.enter(code).status_code == 422 and ADA not in addresses(house)
    house.clock.advance(7 * DAY)
    there.sign_in(ADA)
    assert {ADA, NEW} <= addresses(house)


def test_finished_moves_are_deleted_after_their_seven_days(house, own):
    move(house, own, NEW)
    house.clock.advance(3 * DAY)
    own.sign_in(NEW)
    move(house, own, NEXT)
    house.clock.advance(4 * DAY)
    assert house.auth.tidy()["moves"] == 1
    assert [row["old_address"] for row in house.rows("moves")] == [NEW]
    house.clock.advance(3 * DAY)
    house.auth.tidy()
    assert house.rows("moves") == []


# ---- what others see of it
def test_the_download_has_nothing_of_who_had_the_address_before(house, own):
    bob = house.add(NEW)
    door = house.door()
    door.sign_in(NEW)
    house.auth.people.delete(None, bob.id, Source())
    house.clock.advance(60)
    own.sign_in(ADA)
    move(house, own, NEW)
    kinds = [event["kind"] for event in own.post("/account/data").json()["events"]]
    assert kinds == ["user_data_exported", "user_address_changed"]


def test_admins_see_whom_the_mails_went_to_and_a_bounce_is_the_old_addresss(house, own, admin):
    move(house, own, NEW)
    house.outbox.drain()
    text = soup(admin.get("/admin/mail")).get_text(" ", strip=True)
    assert "Address changed notice" in text and "Code for a new address" in text
    row = next(r for r in house.rows("outbox") if r["kind"] == "address_changed")
    house.auth.undeliverable(row["kind"], row["ref"])
    assert house.auth.mailroom.bouncing([ADA, NEW]) == {ADA}
    row = next(r for r in house.rows("outbox") if r["kind"] == "move")
    assert house.auth.mailroom._recipient(row["kind"], row["ref"]) == ""  # its challenge is gone


def test_what_is_not_due_any_more_is_not_mailed(house, own):
    ask(own, NEW)
    house.add(NEW)  # taken before the mail leaves
    house.outbox.drain()
    assert not house.mailbox.to(NEW)
    move(house, own, NEXT)
    own.post("/account/delete", sure="yes")
    sent = len(house.mailbox.messages)
    house.outbox.drain()
    assert len(house.mailbox.messages) == sent


# ---- leaving an organisation asks once more, without scripts, too
def test_leaving_an_organisation_is_asked_once_more(house, own):
    rules = house.auth.organisations
    club = rules.create(None, "Chess <club>", ADMIN, Source())
    rules.join(None, club.id, ADA, "user", Source())
    form = soup(own.get("/account")).find("form", action="/account/leave")
    assert "hx-post" not in form.attrs and "hx-confirm" not in form.attrs
    page = soup(own.post("/account/leave", tenant=club.id))
    assert "Chess <club>" in page.text and rules.of(user(house, ADA))
    form = page.find("form", action="/account/leave")
    given = {field["name"]: field["value"] for field in form.find_all("input")}
    assert own.post("/account/leave", **given).headers["location"] == "/account?done=left"
    assert rules.of(user(house, ADA)) == []
    assert own.post("/account/leave", tenant=club.id).status_code == 404
