"""The admin's page: find, add, change, disable, and what nobody may do."""

import itertools
import re

import pytest
from bs4 import BeautifulSoup

from auth.events import Source
from auth.policy import Refused
from tests.conftest import ADMIN
from tests.serving import together


def listed(answer):
    """The addresses in the list, in order."""
    soup = BeautifulSoup(answer.text, "html.parser")
    return [cell.get_text(strip=True) for cell in soup.select('td[data-label="Address"]')]


def states(answer, address):
    """Role and state in the row of this person."""
    soup = BeautifulSoup(answer.text, "html.parser")
    row = soup.find("a", string=address).find_parent("tr")
    return [pill.get_text() for pill in row.select(".pill")]


def id_of(house, address):
    return house.auth.people.by_address(address).id


def test_a_person_whom_an_admin_adds_signs_in_and_is_no_admin(house, admin):
    added = admin.post("/admin/people", email=" Bob@Example.org ", name="Bob", role="user")
    assert added.status_code == 303
    page = admin.get(added.headers["location"])
    assert "bob@example.org can sign in now" in page.text
    assert states(page, "bob@example.org") == ["user", "new"]
    bob = house.door()
    bob.sign_in("bob@example.org")
    assert "/admin" not in bob.get("/dashboard").text
    assert bob.get("/admin").headers["location"] == "/no_access_right"
    assert "active" in admin.get("/admin?q=bob").text


@pytest.mark.parametrize("htmx", [False, True])
def test_roles_and_doors_are_opened_and_closed(house, ada, htmx):
    door = house.door(htmx)
    door.sign_in(ADMIN)
    path = f"/admin/people/{id_of(house, ada)}"
    for act, fields, state in (
        ("role", {"role": "admin"}, "new role"),
        ("disable", {}, "is disabled"),
        ("enable", {}, "can sign in again"),
        ("role", {"role": "user"}, "new role"),
    ):
        answer = door.post(f"{path}/{act}", **fields)
        if not htmx:
            assert answer.status_code == 303
            answer = door.get(answer.headers["location"])
        assert answer.status_code == 200 and state in answer.text
    person = house.auth.people.by_address(ada)
    assert (person.role, person.disabled_at) == ("user", None)
    kinds = [row["kind"] for row in house.rows("events") if row["actor"] == id_of(house, ADMIN)]
    assert kinds.count("privilege_permissions_changed") == 2
    assert {"user_disabled", "user_enabled"} <= set(kinds)


@pytest.mark.parametrize(
    ("email", "name", "role", "says"),
    [
        ("", "", "user", "Enter your email address"),
        ("not an address", "", "user", "send mail to that"),
        ("admin@example.com", "", "user", "is there already"),
        ("new@example.org", "x" * 201, "user", "too long"),
        ("new@example.org", "a\x00b", "user", "can&#x27;t be shown"),
        ("new@example.org", "", "emperor", "no such role"),
    ],
)
def test_what_cant_be_added_is_explained(house, admin, email, name, role, says):
    answer = admin.post("/admin/people", email=email, name=name, role=role)
    assert answer.status_code == 422 and says in answer.text.replace("can't", "can&#x27;t")
    assert house.auth.people.find().total == 1


@pytest.mark.parametrize(("act", "fields"), [("role", {"role": "user"}), ("disable", {})])
def test_nobody_demotes_or_disables_themselves(house, admin, act, fields):
    house.add("other@example.org", role="admin")
    answer = admin.post(f"/admin/people/{id_of(house, ADMIN)}/{act}", **fields)
    assert (
        answer.status_code == 422 and "yourself" in answer.text
    ) or "your own role" in answer.text
    assert admin.get("/admin").status_code == 200


@pytest.mark.parametrize("act", ["set_role", "disable", "delete"])
def test_the_last_admin_stays(house, act):
    rules = house.auth.people
    arguments = [id_of(house, ADMIN), *(["user"] if act == "set_role" else [])]
    with pytest.raises(Refused, match="last_admin"):
        getattr(rules, act)(None, *arguments, Source())
    assert rules.by_address(ADMIN).role == "admin" and rules.by_address(ADMIN).disabled_at is None


def test_two_admins_who_demote_each_other_leave_one(build):
    first = build()
    second = build(clock=first.clock)
    for run in range(20):
        other = first.add(f"a{run}@example.org", role="admin")
        me = first.auth.people.by_address(ADMIN)

        def demote(i, other=other, me=me):
            house, actor, target = ((first, me, other), (second, other, me))[i]
            try:
                house.auth.people.set_role(actor, target.id, "user", Source())
            except Refused:
                return 0
            return 1

        assert sum(together(2, demote)) == 1
        for address in (ADMIN, other.address):
            if first.auth.people.by_address(address).role == "user":
                first.auth.people.set_role(None, id_of(first, address), "admin", Source())
        first.auth.people.set_role(None, other.id, "user", Source())


def test_an_unknown_person_is_404(admin):
    for id in ("0" * 32, "nobody", "%00", "a'b", "..%2f"):
        assert admin.post(f"/admin/people/{id}/disable").status_code == 404


def links(answer):
    """rel → path of the links to other pages."""
    found = BeautifulSoup(answer.text, "html.parser").select(".pages a")
    return {a["rel"][0]: a["href"] for a in found}


def heads(answer):
    """name → (path, aria-sort) of the heads of columns that sort."""
    found = BeautifulSoup(answer.text, "html.parser").select("thead th:has(a)")
    return {th.get_text().partition(" (")[0]: (th.a["href"], th.get("aria-sort")) for th in found}


def told(answer):
    return BeautifulSoup(answer.text, "html.parser").select_one(".found").get_text()


def test_search_and_paging_find_everybody(house, admin):
    for n in range(60):
        house.add(f"p{n:02d}@example.org", name=f"Person {n} von 100%_")
    first = admin.get("/admin")
    assert len(listed(first)) == 25 and told(first) == "1 to 25 of 61 people"
    assert "prev" not in links(first)
    second = admin.get(links(first)["next"])
    third = admin.get(links(second)["next"])
    assert told(second) == "26 to 50 of 61 people" and told(third) == "51 to 61 of 61 people"
    assert "next" not in links(third)
    seen = [a for page in (first, second, third) for a in listed(page)]
    assert len(seen) == len(set(seen)) == 61 and seen == sorted(seen)
    back = admin.get(links(third)["prev"])
    assert listed(back) == listed(second) and told(back) == told(second)
    assert listed(admin.get(links(back)["prev"])) == listed(first)
    assert listed(admin.get("/admin?q=P07")) == ["p07@example.org"]
    assert listed(admin.get("/admin?q=person 33")) == ["p33@example.org"]
    assert len(listed(admin.get("/admin?q=100%25_"))) == 25  # % and _ are letters here
    assert listed(admin.get("/admin?q=0%25_x")) == []
    assert "holds “zz”" in admin.get("/admin?q=zz").text
    some = admin.get("/admin?q=person&sort=-name")
    assert (
        told(some) == "1 to 25 of 60 people" and "q=person&sort=-name&after=" in links(some)["next"]
    )


ORDERS = ("address", "name", "role", "seen", "added")


@pytest.fixture
def crowd(house):
    """Sixty people who differ in all that the list knows: some share a name, a role, a time."""
    for n in range(60):
        role = "admin" if n % 20 == 1 else "user"
        address = f"p{n * 37 % 60:02d}@example.org"
        user = house.add(address, role, name="" if n % 7 == 6 else f"Name {n % 9}")
        if n % 4:
            house.door().sign_in(address)
        if n % 10 == 2:
            house.auth.people.disable(None, user.id, Source())
        house.clock.advance(n % 3)
    return house


def test_each_order_goes_through_all_people_once_and_back(crowd, admin):
    people = {user.address: user for user in crowd.auth.people.each("")}
    keys = {
        "address": lambda a: a,
        "name": lambda a: people[a].name.lower(),
        "role": lambda a: people[a].role,
        "seen": lambda a: people[a].signed_in_at or 0,
        "added": lambda a: people[a].created_at,
    }
    for down, by in itertools.product(("", "-"), ORDERS):
        page = admin.get(f"/admin?sort={down}{by}")
        seen, pages = listed(page), [page]
        while path := links(page).get("next"):
            page = admin.get(path)
            seen += listed(page)
            pages.append(page)
        assert len(seen) == len(set(seen)) == 61, (down, by)
        values = [keys[by](a) for a in seen]
        assert values == sorted(values, reverse=bool(down)), (down, by)
        for earlier in reversed(pages[:-1]):
            page = admin.get(links(page)["prev"])
            assert listed(page) == listed(earlier) and told(page) == told(earlier), (down, by)
        assert "prev" not in links(page), (down, by)


def test_the_heads_of_the_columns_sort_and_say_how(house, admin, ada):
    page = admin.get("/admin?q=example&role=user")
    path, how = heads(page)["Address"]
    assert how == "ascending" and "q=example&role=user&sort=-address" in path
    assert {h for name, (_, h) in heads(page).items() if name != "Address"} == {None}
    path, _ = heads(page)["Last sign-in"]
    page = admin.get(path)
    assert "sort=-seen" in path and heads(page)["Last sign-in"][1] == "descending"
    assert "sort=seen" in heads(page)["Last sign-in"][0]
    assert listed(page) == [ada]


def test_the_filters_narrow_alone_and_together(crowd, admin):
    people = list(crowd.auth.people.each(""))
    crowd.clock.advance(8 * 86400)
    admin.sign_in(ADMIN)
    crowd.door().sign_in("p37@example.org")
    state = {
        "active": lambda u: u.activated_at and not u.disabled_at,
        "invited": lambda u: not u.activated_at and not u.disabled_at,
        "disabled": lambda u: u.disabled_at,
    }

    for name, holds in state.items():
        answer = admin.get("/admin", params={"state": name})
        assert told(answer).endswith(f"{sum(map(bool, map(holds, people)))} people"), name
        assert all(len(listed(admin.get(f"/admin?state={name}&sort={by}"))) for by in ORDERS)
    admins = {u.address for u in people if u.role == "admin"}
    for by in ORDERS:
        assert set(listed(admin.get(f"/admin?role=admin&sort={by}"))) == admins
        week = admin.get(f"/admin?seen=week&sort=-{by}")
        assert set(listed(week)) == {ADMIN, "p37@example.org"}
    both = admin.get("/admin?seen=week&role=admin&state=active&q=p37&sort=name")
    assert listed(both) == ["p37@example.org"] and told(both) == "1 person"
    # What nobody has is as if it were not said.
    odd = admin.get("/admin?role=emperor&state=odd&seen=never&sort=zone")
    assert listed(odd) == listed(admin.get("/admin"))


@pytest.mark.parametrize(
    ("query", "says", "road"),
    [
        ("q=zz", "holds “zz”", "/admin"),
        ("q=zz&state=active", "Nobody like that has “zz”", "/admin?q=zz"),
        ("state=disabled&sort=name", "Nobody is like that.", "/admin"),
    ],
)
def test_an_empty_list_says_why_and_has_one_way_on(admin, query, says, road):
    soup = BeautifulSoup(admin.get(f"/admin?{query}").text, "html.parser")
    empty = soup.select_one(".empty")
    assert says in empty.get_text() and [a["href"] for a in empty.select("a")] == [road]


@pytest.mark.parametrize(
    "query", ["page=7", "after=", "before=%00", "q=%00", "q=" + "x" * 5000, "sort=--name", "sort=-"]
)
def test_odd_queries_still_draw_the_list(admin, query):
    assert admin.get(f"/admin?{query}").status_code == 200


def test_who_is_gone_or_was_never_there_begins_no_page(house, admin, ada):
    first = listed(admin.get("/admin"))
    for id in ("0" * 32, "x", "%00", "' or 1=1", "a" * 5000):
        for way in ("after", "before"):
            assert listed(admin.get("/admin", params={way: id})) == first


def test_what_is_searched_follows_each_name_and_address(house, admin, ada):
    house.db.q("update users set name = 'Özgür Ünal' where address = :a", a=ada)
    assert listed(admin.get("/admin?q=özgür ü")) == [ada]
    house.db.q("update users set address = 'Moved@example.org' where address = :a", a=ada)
    assert listed(admin.get("/admin?q=moved")) == ["Moved@example.org"]
    assert listed(admin.get(f"/admin?q={ada}")) == []


@pytest.mark.parametrize("query", ["Özgür", "özgür", "ÜNAL", "ünal"])
def test_search_knows_all_letters(house, admin, query):
    house.add("oz@example.org", name="Özgür Ünal")
    assert listed(admin.get("/admin", params={"q": query})) == ["oz@example.org"]


def test_who_was_demoted_a_moment_ago_changes_nothing(house, ada):
    rules = house.auth.people
    other = house.add("other@example.org", role="admin")
    rules.set_role(None, other.id, "user", Source())
    with pytest.raises(Refused, match="not_admin"):
        rules.disable(other, id_of(house, ada), Source())


def test_what_was_typed_is_still_there_after_a_refusal(admin):
    page = admin.post("/admin/people", email="not an address", name="Bob", role="admin")
    soup = BeautifulSoup(page.text, "html.parser")
    assert soup.find(id="new-email")["value"] == "not an address"
    assert soup.find(id="new-name")["value"] == "Bob"
    assert soup.select_one("#new-role option[selected]")["value"] == "admin"


@pytest.mark.parametrize("htmx", [False, True])
def test_a_change_comes_back_to_the_same_place_of_the_list(crowd, htmx):
    door = crowd.door(htmx)
    door.sign_in(ADMIN)
    page = door.get("/admin?q=p&role=user&sort=-name")
    page = door.get(links(page)["next"])
    before, found = listed(page), told(page)
    form = BeautifulSoup(page.text, "html.parser").select_one('form[action$="/disable"]')
    hidden = form.select_one("input[name=list]")["value"]
    answer = door.post(form["action"], list=hidden)
    if not htmx:
        assert "role=user&sort=-name&after=" in answer.headers["location"]
        answer = door.get(answer.headers["location"])
    assert "is disabled and signed out" in answer.text
    assert listed(answer) == before and told(answer) == found
    # A refusal, too: nobody has this id.
    answer = door.post(f"/admin/people/{'0' * 32}/disable", list=hidden)
    assert answer.status_code == 404 and listed(answer) == before


def test_only_the_list_s_own_filters_come_back(house, admin, ada):
    odd = "q=ada&next=//evil.example&done=deleted&\r\nSet-Cookie: x=1"
    to = admin.post(f"/admin/people/{id_of(house, ada)}/disable", list=odd).headers["location"]
    assert to == f"/admin?q=ada&done=disabled&id={id_of(house, ada)}"


def test_a_name_is_text_and_nothing_else(house, admin):
    house.add("x@example.org", name='<img src=x onerror=alert(1)>"')
    page = admin.get("/admin").text
    assert "<img" not in page and "&lt;img src=x" in page


def test_every_form_works_without_javascript(house, admin, ada):
    door = house.door()
    pages = [door.get("/login"), door.ask(ada) and door.get("/verify_code"), admin.get("/admin")]
    pages += [admin.get("/dashboard"), door.ask("x")]
    for page in pages:
        soup = BeautifulSoup(page.text, "html.parser")
        assert soup.find_all("form") and soup.html["lang"] == "en" and soup.title.get_text()
        for form in soup.find_all("form"):
            assert form["action"].startswith("/") and form["method"] in ("get", "post")
            assert "multipart" not in form.get("enctype", "")
        assert not soup.find_all(style=True) and not soup.find_all("style")
        assert all(s.get("src", "").startswith("/static/") for s in soup.find_all("script"))
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page.text)


def test_the_login_page_has_the_promised_ids(door):
    soup = BeautifulSoup(door.get("/login").text, "html.parser")
    for id in ("email", "submit-btn", "signin-error", "login_form", "code_form", "code-error"):
        assert soup.find(id=id), id
    form = soup.select_one('form#login_form[hx-post="/create_code"][action="/create_code"]')
    assert form.select_one("input#email[type=email][name=email][required][autocomplete=email]")
    assert soup.select_one("label[for=email]") and soup.select_one("#signin-error[aria-live]")


def test_who_is_signed_in_is_not_asked_again(admin):
    assert admin.get("/login").headers["location"] == "/dashboard"
    assert admin.get("/login?next=/admin").headers["location"] == "/admin"
    assert admin.get("/login?next=//evil.example").headers["location"] == "/dashboard"


def test_admins_of_the_settings_come_back_at_the_start(build):
    first = build()
    first.add("other@example.org", role="admin")
    first.auth.people.disable(None, id_of(first, ADMIN), Source())
    second = build(clock=first.clock, ADMIN_EMAILS=f"{ADMIN}, Third@Example.org")
    for address in (ADMIN, "third@example.org"):
        person = second.auth.people.by_address(address)
        assert (person.role, person.disabled_at) == ("admin", None)


def test_making_an_admin_asks_for_a_fresh_code(house, admin, ada):
    house.clock.advance(901)
    id = house.auth.people.by_address(ada).id
    came = {"Referer": "https://vestibule.test/admin?q=ada"}
    for path, form in (
        (f"/admin/people/{id}/role", {"role": "admin"}),
        ("/admin/people", {"email": "bob@example.org", "role": "admin"}),
    ):
        answer = admin.post(path, came, **form)
        assert answer.headers["location"] == "/confirm?next=/admin%3Fq%3Dada"
    assert house.auth.people.by_address(ada).role == "user" and len(house.rows("users")) == 2
    # Less than that needs none.
    assert admin.post("/admin/people", email="bob@example.org", role="user").status_code == 303
    eve = house.add("eve@example.org", role="admin").id
    house.auth.people.disable(None, eve, Source())
    assert (
        admin.post(f"/admin/people/{eve}/enable", came).headers["location"].startswith("/confirm")
    )
    admin.sign_in(ADMIN)
    assert admin.post(f"/admin/people/{id}/role", role="admin").status_code == 303
    assert admin.post(f"/admin/people/{eve}/enable", came).status_code == 303
    assert house.auth.people.by_address("eve@example.org").disabled_at is None
