"""Guards, `auth` and `session`, as the app's own pages use them."""

import pytest
from starlette.responses import PlainTextResponse

from auth import Caller, SessionData, admin_required, role_required, signed_in
from auth.events import Source


@pytest.fixture
def pages(house):
    """A few pages of an app owner, guarded in every way."""
    app = house.app

    @app.get("/before", before=admin_required)
    async def before(auth):
        return f"{auth.user} {auth.role}"

    @app.get("/under-async")
    @admin_required
    async def under_async(auth, session):
        return f"{auth.address} {session['role']}"

    @app.get("/under-sync/{number}")
    @admin_required
    def under_sync(number: int, page: str = "1"):
        return f"{number} {page}"

    @app.get("/editors", before=role_required("editor"))
    async def editors():
        return "editors"

    @app.get("/any", before=signed_in)
    def any_one(auth):
        return auth.address

    @app.post("/change", before=signed_in)
    async def change():
        return "changed"

    @app.get("/open")
    async def open_page(auth, session):
        return f"{auth} {dict(session)}"

    @app.get("/count", before=signed_in)
    async def count(session):
        session["visits"] = session.get("visits", 0) + 1
        return str(session["visits"])

    @app.get("/nested", before=signed_in)
    async def nested(session):
        session.setdefault("list", []).append(1)
        return str(len(session["list"]))

    @app.get("/live", before=signed_in)
    async def live(session):
        return " ".join(str(session[k]) for k in ("auth", "role", "center", "timezone"))

    @app.get("/write/{key}")
    async def write(key: str, session):
        try:
            session[key] = "admin"
        except TypeError as error:
            return PlainTextResponse(str(error), 418)
        return "written"

    @app.get("/typed")
    async def typed(auth: Caller, session: SessionData):
        return f"{auth and auth.role} {dict(session)}"

    @app.post("/typed")
    async def typed_post(auth: Caller):
        return f"{auth and auth.role}"

    @app.get("/both")
    @signed_in
    @role_required("editor")
    async def both(auth):
        return auth.role

    @app.get("/too-much", before=signed_in)
    async def too_much(session):
        session["x"] = "y" * 5000
        return "kept"

    return house


GUARDED = ["/before", "/under-async", "/under-sync/7", "/editors"]


@pytest.mark.parametrize("path", [*GUARDED, "/any"])
def test_who_is_not_signed_in_is_sent_to_the_door_and_back(pages, ada, path):
    door = pages.door()
    answer = door.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")
    fragment = door.get(path, headers={"HX-Request": "true"})
    assert (fragment.status_code, fragment.headers["hx-redirect"]) == (200, f"/login?next={path}")
    assert door.get(path, headers={"Accept": "application/json"}).status_code == 401
    assert door.sign_in(ada, next=path).headers["location"] == path


def test_the_query_comes_back_too(pages, ada):
    door = pages.door()
    answer = door.get("/any?page=2&q=a%20b")
    assert answer.headers["location"] == "/login?next=/any%3Fpage%3D2%26q%3Da%2520b"
    odd = door.get("/any?t=10:30&ids=1,2&who=ada@example.org&x=(a)").headers["location"]
    came = door.get(odd).text
    assert "/any?t=10%3A30&amp;ids=1%2C2&amp;who=ada%40example.org&amp;x=%28a%29" in came
    page = door.get(answer.headers["location"])
    assert 'name="next" value="/any?page=2&amp;q=a%20b"' in page.text
    assert (
        door.sign_in(ada, next="/any?page=2&q=a%20b").headers["location"] == "/any?page=2&q=a%20b"
    )


def test_a_fragment_comes_back_to_its_page_and_a_form_to_none(pages):
    door = pages.door()
    htmx = {"HX-Request": "true", "HX-Current-URL": "https://vestibule.test/any?x=1"}
    assert door.get("/before", headers=htmx).headers["hx-redirect"] == "/login?next=/any%3Fx%3D1"
    evil = {"HX-Request": "true", "HX-Current-URL": "https://evil.example//evil.example"}
    assert door.get("/before", headers=evil).headers["hx-redirect"] == "/login"
    assert door.post("/change").headers["location"] == "/login"


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("htmx", [False, True])
def test_the_wrong_role_is_sent_to_no_access_right(pages, ada, path, htmx):
    door = pages.door(htmx)
    door.sign_in(ada)
    answer = door.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/no_access_right")
    page = door.get("/no_access_right")
    assert page.status_code == 403
    assert "You do not have permission to open this page" in page.text
    assert page.headers.get("hx-redirect") == ("/no_access_right" if htmx else None)
    refused = door.get(path, headers={"Accept": "application/json"})
    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/problem+json"


def test_the_right_role_passes_and_site_admins_pass_everywhere(pages, admin):
    assert admin.get("/before").text == "admin@example.com admin"
    assert admin.get("/under-async").text == "admin@example.com admin"
    assert admin.get("/under-sync/7?page=3").text == "7 3"
    assert admin.get("/editors").status_code == 200
    pages.db.q("insert into roles (name) values ('editor')")
    user = pages.add("ed@example.org", role="editor")
    door = pages.door()
    door.sign_in(user.address)
    assert door.get("/editors").text == "editors"
    assert door.get("/before").headers["location"] == "/no_access_right"


@pytest.mark.parametrize("guard", [admin_required, signed_in, role_required("editor")])
def test_a_guard_above_the_route_raises_at_import(house, guard):
    with pytest.raises(TypeError, match="below the route decorator"):

        @guard
        @house.app.get("/wrong-order")
        def page():
            return "open to all"


def test_a_type_on_auth_or_session_brings_no_strangers_words_in(pages, ada):
    door = pages.door()
    assert door.get("/typed?role=admin&auth=x&user=1&session_id=1").text == "None {}"
    headers = {"Sec-Fetch-Site": "same-origin"}
    body = {"user": {"role": "admin"}, "session_id": "1"}
    assert door.client.post("/typed", json=body, headers=headers).text == "None"
    door.sign_in(ada)
    assert door.get("/typed?role=admin").text.startswith("user {'auth': 'ada@example.org'")
    assert door.client.post("/typed", json=body, headers=headers).text == "user"


def test_two_guards_hold_both(pages, ada, admin):
    door = pages.door()
    assert door.get("/both").headers["location"] == "/login?next=/both"
    door.sign_in(ada)
    assert door.get("/both").headers["location"] == "/no_access_right"
    assert admin.get("/both").text == "admin"


def test_what_a_guard_cant_guard_is_refused_at_import():
    with pytest.raises(TypeError, match="session"):

        @signed_in
        def page(session: dict): ...

    with pytest.raises(TypeError, match="named parameters"):

        @signed_in
        def other(**kw): ...


def test_without_a_session_there_is_nobody_and_nothing_to_write(pages):
    door = pages.door()
    assert door.get("/open").text == "None {}"
    assert door.get("/write/x").status_code == 418


def test_the_session_is_kept_on_the_server(pages, ada):
    door = pages.door()
    door.sign_in(ada)
    assert [door.get("/count").text for _ in range(3)] == ["1", "2", "3"]
    assert [door.get("/nested").text for _ in range(3)] == ["1", "2", "3"]
    other = pages.door()
    other.sign_in(ada)
    assert other.get("/count").text == "1"
    assert "visits" not in str(dict(door.client.cookies))


def test_what_the_session_says_of_the_person_is_live_and_read_only(pages, ada):
    door = pages.door()
    door.ask(ada)
    door.enter(door.read_code(), timezone="Asia/Kolkata")
    assert door.get("/live").text == "ada@example.org user  Asia/Kolkata"
    for key in ("auth", "role", "center", "timezone"):
        assert door.get(f"/write/{key}").status_code == 418
    assert door.get("/write/mine").text == "written"
    people = pages.auth.people
    people.set_role(None, people.by_address(ada).id, "admin", Source())
    assert door.get("/live").text == "ada@example.org admin  Asia/Kolkata"


def test_a_session_holds_four_kilobytes(pages, ada):
    door = pages.door()
    door.sign_in(ada)
    assert door.get("/too-much").status_code == 500
    assert door.get("/count").text == "1"


@pytest.mark.parametrize(
    "zone", ["Not/AZone<script>", "../../etc/passwd", "UTC\n", "", "x" * 5000, "europe/berlin"]
)
def test_an_unknown_time_zone_is_ignored(house, ada, zone):
    door = house.door()
    door.ask(ada)
    assert door.enter(door.read_code(), timezone=zone).status_code == 303
    assert house.auth.people.by_address(ada).timezone == "UTC"


@pytest.mark.parametrize("zone", ["Etc/GMT+5", "Europe/Berlin", "America/Argentina/Buenos_Aires"])
def test_a_known_time_zone_is_kept(house, ada, zone):
    door = house.door()
    door.ask(ada)
    door.enter(door.read_code(), timezone=zone)
    assert zone in door.get("/dashboard").text
