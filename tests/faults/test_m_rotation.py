"""Another SECRET_KEY, deployed step by step as docs/operate.md says, while people sign in: nobody notices."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

from auth.keys import Keys
from tests.attacks.test_i_tokens import OTHER, Phone, Twin
from tests.conftest import SECRET, environment
from tests.serving import Tab, until
from utils.database import connect

# Made known first, used next.
STEPS = (
    {"SECRET_KEY": SECRET, "SECRET_KEY_PREVIOUS": OTHER},
    {"SECRET_KEY": OTHER, "SECRET_KEY_PREVIOUS": SECRET},
)
CLERKS = 3


def test_N3_N7_a_rolling_change_of_the_key_loses_no_code_no_session_and_no_token(
    serve, sink, database_url, tmp_path
):
    more = {"SMTP_PORT": sink.port, "SIGNUP": "open"}
    live, over, done, failed = [serve(**more)], [], [0] * CLERKS, []
    first, early, phone = live[0], Tab(*live), Phone(sink, *live)
    sign_in(sink, early, "early@example.org")
    phone.sign_in("phone@example.org")

    def work(clerk):
        while not over and not failed:
            tab = Tab(*live)  # whichever are there, as a load balancer does it
            try:
                sign_in(sink, tab, f"c{clerk}-{done[clerk]}@example.org")
            except AssertionError as error:
                failed.append(error)
            done[clerk] += 1

    def go_on():
        before = list(done)
        until(lambda: failed or all(n > b + 1 for n, b in zip(done, before, strict=True)), 60)

    with ExitStack() as ends, ThreadPoolExecutor(CLERKS) as pool:
        working = [pool.submit(work, clerk) for clerk in range(CLERKS)]
        try:
            for number, keys in enumerate(STEPS):
                waiting, address = Tab(*live), f"waits{number}@example.org"
                waiting.post("/create_code", email=address)
                code = sink.code(address)
                env = environment(database_url, tmp_path, **more, **keys)
                twin = Twin(env, tmp_path, first)
                ends.callback(twin.kill)
                live.append(twin.start())
                go_on()  # while both serve
                del live[0]
                go_on()
                # What the old one gave counts at the new one, which alone is left.
                waiting.servers = early.servers = phone.servers = (live[0],)
                assert waiting.post("/verify_code", code=code).status_code == 303
                assert waiting.signed_in and early.signed_in
                assert phone.me().status_code == 200
                phone.keep(phone.refresh())
        finally:
            over.append(True)
    assert failed == [] and [each.result() for each in working] == [None] * CLERKS
    with closing(connect(database_url)) as db:
        made_with = {row["key_id"] for row in db.q("select key_id from challenges")}
    assert made_with == {Keys(SECRET).current, Keys(OTHER).current}


def sign_in(sink, tab, address):
    """Asks at one of the processes and enters at another."""
    last = len(tab.servers) - 1
    assert tab.post("/create_code", email=address).status_code == 303
    assert tab.post("/verify_code", at=last, code=sink.code(address)).status_code == 303
    assert all(tab.get("/dashboard", at=at).status_code == 200 for at in (0, last))
