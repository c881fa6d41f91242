"""openapi.json says what the API does, no less and no more; and the API does what it says."""

from collections import Counter

import jsonschema_rs
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from auth.api import ANSWERS, MALFORMED
from auth.events import Source
from auth.policy import HOUR
from tests.conftest import ADMIN, BASE_URL, DEFAULT

ADA, EVE = "ada@example.org", "eve@example.org"
NOT_OURS = "A" * 78  # looks like a link's secret
CONFIG = {
    "base-url": BASE_URL,
    "seed": 1,
    "continue-on-failure": True,
    "generation": {"max-examples": 40, "deterministic": True, "database": "none"},
    # 422: JSON of the right shape with a text that is no address or no code. What is called
    # malformed there is a fault all the same, see below.
    "checks": {
        "positive_data_acceptance": {
            "expected-statuses": ["2xx", "401", "404", "422"],
        }
    },
}


@pytest.fixture
def document(house):
    return house.program().get("/openapi.json").json()


def operations(document):
    return {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


# ---- requests that nobody thought of
def calls_only(asgi):
    """Without the worker that sends mails: requests are answered, and nothing outlives the test."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await asgi(scope, receive, send)

    return app


def loaded(house, document):
    """The document for schemathesis, which signs in whenever a call has ended the session."""
    found = schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(CONFIG))
    found.app, program = calls_only(house.asgi), house.program()

    @found.auth(refresh_interval=None)
    class SignedIn:
        def get(self, case, context):
            if not program.signed_in:
                program.sign_in(EVE)
            return program.access_token

        def set(self, case, token, context):
            if case.operation.definition.raw.get("security"):
                case.headers = {**(case.headers or {}), "Authorization": f"Bearer {token}"}

    return found


def faults_of(scenario):
    """The checks that failed, and bodies of the right shape that are called malformed."""
    for checks in scenario.recorder.checks.values():
        for check in checks:
            if check.status == Status.FAILURE:
                found = check.failure_info
                yield f"{check.name}: {found.failure}\n{found.code_sample}"
    for name, exchange in scenario.recorder.interactions.items():
        made = scenario.recorder.cases[name].value
        if made.meta and made.meta.generation.mode.is_positive and exchange.response:
            if b'"code":"invalid_body"' in exchange.response.content:
                yield f"{made.operation.label} refuses {made.body!r}"


def test_no_made_up_request_finds_a_difference(house, document):
    house.add(EVE)
    faults, made, statuses = [], Counter(), Counter()
    for event in from_schema(loaded(house, document)).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            faults.append(str(getattr(event, "info", None) or event.exception))
        elif isinstance(event, events.ScenarioFinished):
            faults += faults_of(event)
            for name, exchange in event.recorder.interactions.items():
                made[event.recorder.cases[name].value.operation.label] += 1
                statuses[exchange.response.status_code] += 1
    assert not faults, "\n\n".join([f"{len(faults)} faults", *faults[:9]])
    assert set(made) == {" ".join(named) for named in operations(document)}
    assert min(made.values()) >= 5 and made.total() > 300, made
    # It came further than to the first "no", and never to a fault of ours.
    assert {200, 202, 204, 400, 401, 405, 415, 422} <= set(statuses) and max(statuses) < 500


def test_a_promise_less_and_a_field_more_are_differences(house, document):
    """The check above sees what it looks for."""
    house.add(EVE)
    login = document["paths"]["/auth/login"]
    del login["post"]["responses"]["422"]
    asked = document["components"]["schemas"]["Asked"]
    asked["properties"]["resend_in"] = {"type": "integer"}
    asked["required"].append("resend_in")
    found = loaded(house, document | {"paths": {"/auth/login": login}})
    said = {
        fault.partition(":")[0]
        for event in from_schema(found).execute()
        if isinstance(event, events.ScenarioFinished)
        for fault in faults_of(event)
    }
    assert said >= {"status_code_conformance", "response_schema_conformance"}


# ---- the document itself
def test_the_document_is_openapi_3_1(house, document):
    assert document["openapi"].startswith("3.1.")
    loaded(house, document).validate()
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    with pytest.raises(Exception, match=r"paths|responses"):  # the validator sees what it looks for
        loaded(house, document | {"paths": {"/x": {"get": {"responses": 1}}}}).validate()


def test_each_call_is_in_the_document_and_nothing_else_is(house, document):
    served = {
        (method, route.path)
        for route in house.app.routes
        if route.path.startswith(house.auth.programs) and route.path != "/openapi.json"
        for method in route.methods - {"HEAD"}
    }
    assert served == set(operations(document)) and len(served) == 7
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(ids)) == len(ids)
    assert document["servers"] == [{"url": BASE_URL}]


def test_only_the_calls_that_need_a_token_ask_for_one(house, document):
    for (method, path), operation in operations(document).items():
        answer = house.program().client.request(method, path, json={})
        named = answer.json()["code"] if answer.status_code == 401 else ""
        assert (named == "invalid_token") == (operation.get("security") == [{"bearer": []}]), path
    assert set(document["components"]["securitySchemes"]) == {"bearer"}


def test_the_document_holds_no_example_that_is_a_secret_and_is_the_same_for_all(house, document):
    assert house.program().get("/openapi.json").json() == document
    assert house.auth.keys.current not in str(document) and ADMIN not in str(document)


# ---- what it promises, and what there is
class Witness:
    """Programs whose every call and answer is noted, and held against the document."""

    def __init__(self, house, document, seen):
        self.house, self.document, self.seen = house, document, seen

    def program(self, client="192.0.2.1"):
        program = self.house.program(client)
        program.client.event_hooks["response"].append(self.note)
        return program

    def note(self, answer):
        answer.read()
        method, path = answer.request.method, answer.request.url.path
        operation = operations(self.document)[method, path]
        named = operation["responses"][
            str(answer.status_code)
        ]  # or it is a status that nobody promised
        (kind, content), *more = [*named.get("content", {"": None}).items()]
        assert not more and answer.headers.get("content-type", "") == kind
        body = answer.json() if answer.content else None
        if content is None:
            assert not answer.content
        else:
            check(self.document, content["schema"], body)
        code = body["code"] if kind == "application/problem+json" else ""
        self.seen[method, path, answer.status_code].add(code)


def check(document, schema, body):
    """Is the body as the schema says, with no field that it does not name?"""
    components = document["components"]
    jsonschema_rs.validate(schema | {"components": components}, body)
    name = schema["$ref"].rpartition("/")[2]
    assert set(body) <= set(components["schemas"][name]["properties"]), name


def wrong(code):
    return f"{(int(code) + 1) % 10**6:06d}"


def say_what_is_malformed(app):
    app.sign_in(EVE)
    headers = {"Content-Type": "application/json"}
    for path in ("/auth/login", "/auth/verify", "/auth/refresh", "/auth/tenant"):
        signed = headers | app._bearer()
        for content in (b"{", b"{}", b"1" * 70_000):
            app.client.post(path, content=content, headers=signed)
        app.client.post(path, content=b"{}", headers=signed | {"Content-Type": "text/plain"})
    app.client.post("/auth/logout", content=b"1" * 70_000)
    elsewhere = {"Host": "elsewhere.example"}
    for path in ("/auth/me", "/auth/jwks.json"):
        app.client.get(path, headers=elsewhere)
    app.client.post("/auth/logout", headers=elsewhere)
    for path in ("/auth/login", "/auth/verify", "/auth/refresh", "/auth/tenant", "/auth/logout"):
        app.client.post(path, json={}, headers={"Sec-Fetch-Site": "cross-site"})
    app.get("/auth/jwks.json")


def sign_in_badly(house, app):
    app.ask("")
    app.ask("no address")
    app.enter("123456")  # without a sign-in
    app.ask(ADA)
    code, link = app.read_code(), house.mailbox.latest_link(ADA)
    for typed in ("", "abc", "12345"):
        app.enter(typed)
    app.open_link("")
    app.open_link(NOT_OURS)
    app.enter(wrong(code))
    app.enter(code)
    app.open_link(link)
    app.enter(code)
    app.ask(ADA)
    code, link = app.read_code(), house.mailbox.latest_link(ADA)
    for _ in range(6):
        app.enter(wrong(code))
    house.clock.advance(HOUR)
    app.enter(code)
    app.open_link(link)


def use_tokens(house, app):
    club = house.auth.organisations.create(None, "Chess club", EVE, Source())
    app.sign_in(EVE)
    first = app.refresh_token
    app.get("/auth/me")
    app.post("/auth/tenant", tenant=club.id)
    app.post("/auth/tenant", tenant="0" * 32)
    app.refresh()
    app.refresh()
    app.refresh(first)  # used before: its session ends
    app.refresh()
    for path in ("/auth/tenant", "/auth/logout"):
        app.post(path, **({"tenant": club.id} if path == "/auth/tenant" else {}))
    app.get("/auth/me")
    app.sign_in(EVE)
    app.post("/auth/logout")


def do_too_much(witness):
    app = witness.program("198.51.100.7")
    for n in range(31):
        app.ask(f"p{n}@example.org")
    for _ in range(21):
        app.open_link(NOT_OURS)
    for n in range(4):  # codes of one account, until they are off
        app = witness.program(f"203.0.{n}.9")
        app.ask(ADA)
        for _ in range(5):
            app.enter("000000")
    app = witness.program("192.0.2.77")
    app.ask(ADA)
    app.enter("000000")
    app.enter("ABC")


def without_a_database(house, witness):
    app = witness.program()
    app.sign_in(ADMIN)
    down = house.db.Unavailable("gone")

    def fail(*args, **how):
        raise down

    house.db.q = house.db.tx = fail
    app.ask(ADA)
    app.enter("123456")
    app.refresh()
    app.post("/auth/tenant", tenant="0" * 32)
    app.post("/auth/logout")
    app.get("/auth/me")


def test_each_promised_status_and_code_is_given_and_no_other(build):
    seen = {}
    house = build()
    document = house.program().get("/openapi.json").json()
    for (method, path), operation in operations(document).items():
        for status in operation["responses"]:
            seen[method, path, int(status)] = set()
    house.add(ADA)
    house.add(EVE)
    witness = Witness(house, document, seen)
    app = witness.program()
    sign_in_badly(house, app)
    say_what_is_malformed(app)
    use_tokens(house, witness.program())
    Witness(build(REVEAL_UNREGISTERED="true"), document, seen).program().ask("x@example.org")
    strict = build(**DEFAULT)
    do_too_much(Witness(strict, document, seen))
    broken = build(clock=strict.clock)
    without_a_database(broken, Witness(broken, document, seen))

    assert [named for named, codes in seen.items() if not codes] == []
    given = set().union(*seen.values()) - {""}
    table = {code: status for status, code in ANSWERS.values()} | MALFORMED
    for (*_, status), codes in seen.items():
        assert {table.get(code, status) for code in codes} == {status}
    # All that the table of answers holds, and what the layers around it say.
    around = {
        "bad_request",
        "cross_site",
        "content_too_large",
        "unsupported_media_type",
        "service_unavailable",
    }
    assert given == {code for _, code in ANSWERS.values()} | set(MALFORMED) | around
