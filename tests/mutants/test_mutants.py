"""Known-bad changes that the attack tests must catch: a test that never failed proves nothing.

Each mutant is one edit to a copy of the tree. The named test runs there on SQLite and has to fail; on
PostgreSQL where SQLite's one writer at a time would hide the fault.
"""

import os
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests.serving import ROOT

ROOMS = ("auth", "templates", "utils", "tests", "docs", "main.py", "manage.py", "pyproject.toml")


OTHER = {"sqlite": "postgresql", "postgresql": "sqlite"}


class Mutant(NamedTuple):
    row: str
    what: str
    file: str
    edits: tuple[tuple[str, str], ...]  # (old, new)
    tests: str
    database: str = "sqlite"


A, B = "tests/attacks/test_a_code.py", "tests/attacks/test_b_enumeration.py"
BUDGETS, TIMING = "tests/attacks/test_a_budgets.py", "tests/attacks/test_b_timing.py"
C, E = "tests/attacks/test_c_limits.py", "tests/attacks/test_e_links.py"
D, K = "tests/attacks/test_d_browser.py", "tests/attacks/test_k_secrets.py"
I = "tests/attacks/test_i_tokens.py"  # noqa: E741
L, M = "tests/faults/test_l_mail.py", "tests/faults/test_m_crashes.py"
G, H = "tests/attacks/test_g_sessions.py", "tests/attacks/test_h_roles.py"
TENANTS, MOVES = "tests/attacks/test_h_tenants.py", "tests/attacks/test_e_moving.py"
INVITATIONS, BACKUP = "tests/attacks/test_h_invitations.py", "tests/test_backup.py"

MUTANTS = [
    Mutant(
        "A3",
        "the tries are read first and written afterwards",
        "auth/challenges.py",
        (
            (
                '"update challenges set code_tries = code_tries + 1, total_tries = total_tries + 1"\n'
                '        " where browser',
                '"select * from challenges where browser',
            ),
            ("issued_at <= :latest returning *", "issued_at <= :latest"),
            (
                "        link_only=int(link_only),\n    )\n    return",
                "        link_only=int(link_only),\n    )\n"
                "    for row in rows:\n"
                "        row['code_tries'] += 1\n"
                "        row['total_tries'] += 1\n"
                "        t.q('update challenges set code_tries = :c, total_tries = :t where id = :id',"
                " c=row['code_tries'], t=row['total_tries'], id=row['id'])\n    return",
            ),
        ),
        A,
        "postgresql",
    ),
    Mutant(
        "A5",
        "consuming does not look whether somebody else was faster",
        "auth/challenges.py",
        (("where id = :id and used_at is null returning id", "where id = :id returning id"),),
        A,
    ),
    Mutant(
        "B1",
        "an unknown address is told so",
        "auth/asking.py",
        (
            (
                "told = self.policy.reveal_unregistered and not who.mailable",
                "told = not who.mailable",
            ),
        ),
        B,
    ),
    Mutant(
        "D1",
        "a neighbouring site may post",
        "auth/gate.py",
        (('(b"same-origin", b"none")', '(b"same-origin", b"same-site", b"none")'),),
        D,
    ),
    Mutant(
        "D1",
        "no header at all counts as our own page",
        "auth/gate.py",
        (('.decode("latin1") in origins', '.decode("latin1") in ("", *origins)'),),
        D,
    ),
    Mutant(
        "D7",
        "whatever begins with a slash is a path of ours",
        "auth/typed.py",
        (
            (
                r'not re.fullmatch(r"/(?![/\\])[A-Za-z0-9\-._~/?=&%+]*", path)',
                'not path.startswith("/")',
            ),
        ),
        D,
    ),
    Mutant(
        "I4",
        "a token of another kind is an access token, too",
        "auth/tokens.py",
        ((' or header["typ"] != TYPE', ""),),
        I,
    ),
    Mutant(
        "I5",
        "a number is a time, whole or not",
        "auth/tokens.py",
        (("type(claims.get(name)) is int for", "isinstance(claims.get(name), int | float) for"),),
        I,
    ),
    Mutant(
        "I6",
        "what begins like our origin is our origin",
        "auth/tokens.py",
        (
            (
                'claims["iss"] == claims["aud"] == issuer)',
                'all(claims[n].startswith(issuer) for n in ("iss", "aud")))',
            ),
        ),
        I,
    ),
    Mutant(
        "I8",
        "what the database said of a token once is remembered",
        "auth/apps.py",
        (
            ("class Apps(Codes, Links):\n", "class Apps(Codes, Links):\n    kept = {}\n"),
            (
                "sessions.app(self.db, claims.session_id, now, idle)",
                "self.kept.setdefault(claims, sessions.app(self.db, claims.session_id, now, idle))",
            ),
        ),
        I,
    ),
    Mutant(
        "I8",
        "whoever was a member when the token was made is one",
        "auth/apps.py",
        (("if not self._in(self.db, found, claims.tenant):", "if False:"),),
        I,
    ),
    Mutant(
        "I9",
        "a copied refresh token is refused, and the session goes on",
        "auth/apps.py",
        (("if not good and sessions.end_app(t, id):", "if not good:"),),
        I,
    ),
    Mutant(
        "I9",
        "the end of a copied session is taken back with the refusal",
        "auth/apps.py",
        (
            (
                "                self.known.tell_of_copy(t, user, browser, now)\n",
                "                self.known.tell_of_copy(t, user, browser, now)\n"
                '                raise Refused("token_reused")\n',
            ),
        ),
        I,
    ),
    Mutant(
        "I9",
        "whatever refresh token comes is the newest",
        "auth/sessions.py",
        (
            (
                "where id = :id and app = 1 and generation = :generation",
                "where id = :id and app = 1",
            ),
        ),
        I,
    ),
    Mutant(
        "I10",
        "a lost answer is given again for ever",
        "auth/apps.py",
        (("session.generation - 1 and now <= latest", "session.generation - 1"),),
        I,
    ),
    Mutant(
        "I10",
        "of two refreshes at once the second is a thief",
        "auth/apps.py",
        (("good = rotated or self._again(session, generation, now)", "good = rotated"),),
        I,
        "postgresql",
    ),
    Mutant(
        "I10",
        "the generation is read first and written afterwards",
        "auth/sessions.py",
        (
            (
                '    rows = t.q(\n        "update sessions set generation = generation + 1,',
                "    seen = t.q('select generation as n from sessions where id = :id', id=id)\n"
                "    __import__('time').sleep(0.02)\n"
                "    if not seen or seen[0]['n'] != generation:\n"
                "        return False\n"
                "    rows = t.q(\n"
                '        "update sessions set generation = generation + 1,',
            ),
            ("app = 1 and generation = :generation", "app = 1"),
        ),
        I,
        "postgresql",
    ),
    Mutant(
        "I11",
        "each refresh begins the ninety days anew",
        "auth/sessions.py",
        (
            (
                '" seen_at = :now where id = :id and app = 1 and generation',
                '" seen_at = :now, expires_at = :now + 7776000 where id = :id and app = 1 and generation',
            ),
        ),
        I,
    ),
    Mutant(
        "I13",
        "the key before is forgotten at once",
        "auth/tokens.py",
        (
            (
                "in keys.signing_seeds.items()\n",
                "in [(keys.current, keys.signing_seeds[keys.current])]\n",
            ),
        ),
        I,
    ),
    Mutant(
        "K1",
        "the code is a hash that needs no key",
        "auth/keys.py",
        (
            (
                'hmac.digest(key, message.encode(), "sha256"), "big"',
                'hashlib.sha256(message.encode()).digest(), "big"',
            ),
        ),
        K,
    ),
    Mutant(
        "K2",
        "the code is written down beside the waiting mail",
        "auth/asking.py",
        (
            (
                "self._record(t, events.CODE_REQUESTED, address, browser.source)",
                "self._record(t, events.CODE_REQUESTED, address, browser.source, '', self.validity.code(challenge))",
            ),
        ),
        K,
    ),
    Mutant(
        "A14",
        "an account's wrong codes are counted, and compared all the same",
        "auth/limits.py",
        (("if len(counted) < len(wrong):", "if False:"),),
        BUDGETS,
    ),
    Mutant(
        "A15",
        "nobody counts over all accounts",
        "auth/limits.py",
        (('return self._counts("wrong", self.policy.wrong_fleet, SITE)', "return ()"),),
        BUDGETS,
    ),
    Mutant(
        "B3",
        "a registered address is a millisecond's work more",
        "auth/asking.py",
        (
            (
                "            mail = self.limits.start(",
                "            who.mailable and sum(range(80_000))\n            mail = self.limits.start(",
            ),
        ),
        TIMING,
    ),
    Mutant(
        "C4",
        "a new sign-in ends the others of its address",
        "auth/asking.py",
        (
            (
                "        challenges.create(t, challenge)\n",
                "        challenges.end_all(t, address)\n        challenges.create(t, challenge)\n",
            ),
        ),
        C,
    ),
    Mutant(
        "C8",
        "the left-most hop is the client",
        "auth/networks.py",
        (('in reversed(",".join(forwarded).split(",")):', 'in ",".join(forwarded).split(","):'),),
        C,
    ),
    Mutant(
        "C8",
        "whoever connects may say where they come from",
        "auth/networks.py",
        (
            (
                "address is None or not _within(address, trusted):\n        return peer",
                "address is None:\n        return peer",
            ),
        ),
        C,
    ),
    Mutant(
        "C10",
        "the counters are read first and written afterwards",
        "auth/budgets.py",
        (
            (
                "    rows = t.q(_sql(_TAKE, len(counts)), now=now, **_params(counts, now))\n",
                "    rows = []\n"
                "    for c in sorted(counts):\n"
                "        old = t.q('select n from counters where key = :k and ends_at > :now', k=c.key, now=now)\n"
                "        n = old[0]['n'] + c.units if old else c.units\n"
                "        if n <= c.most:\n"
                "            rows.append({'key': c.key, 'n': n, 'ends_at': now + c.seconds})\n"
                "    __import__('time').sleep(0.02)\n"
                "    for row in rows:\n"
                "        t.q('insert into counters (key, n, most, ends_at) values (:key, :n, 0, :ends_at) on'\n"
                "            ' conflict (key) do update set n = excluded.n', **row)\n",
            ),
        ),
        C,
        "postgresql",
    ),
    Mutant(
        "E1",
        "a link signs in whatever browser presses its button",
        "auth/links.py",
        (
            (
                "if own and own.address == challenge.address and self.validity.linkable(own, now):",
                "if True:",
            ),
        ),
        E,
    ),
    Mutant(
        "F7",
        "whoever comes back has the id that they had",
        "auth/people.py",
        (
            (
                "if not users.add(t, self.keys.new_id(), address, name",
                "if not users.add(t, __import__('hashlib').md5(address.encode()).hexdigest(), address, name",
            ),
        ),
        H,
    ),
    Mutant(
        "G8",
        "who somebody was at their first request is remembered",
        "auth/email_auth.py",
        (
            (
                "        found = sessions.find(self.db, digest(token), now, self.policy.session_idle_seconds)\n",
                "        found = sessions.find(self.db, digest(token), now, self.policy.session_idle_seconds)\n"
                "        kept = self.__dict__.setdefault('kept', {})\n"
                "        found = found and kept.setdefault(token, found)\n",
            ),
        ),
        G,
    ),
    Mutant(
        "H1",
        "the last admin of the site may go",
        "auth/office.py",
        (("    if not users.active_admins(t):\n", "    if False:\n"),),
        H,
    ),
    Mutant(
        "H1",
        "the last admin of the site may delete their account",
        "auth/oneself.py",
        (("            if had_admin:\n", "            if False:\n"),),
        H,
    ),
    Mutant(
        "H1",
        "the last admin of an organisation may become a user of it",
        "auth/members.py",
        (
            (
                "            keep_their_admins(s.t, [id])\n            change",
                "            change",
            ),
        ),
        H,
    ),
    Mutant(
        "H1",
        "the last admin of an organisation may leave it",
        "auth/oneself.py",
        (("            keep_their_admins(t, [tenant])", "            pass"),),
        H,
    ),
    Mutant(
        "H1",
        "two admins change people at the same moment",
        "auth/office.py",
        (("PEOPLE_LOCK = 726355", "PEOPLE_LOCK = None"),),
        H,
        "postgresql",
    ),
    Mutant(
        "H2",
        "an organisation's admin is one of the site",
        "auth/caller.py",
        (
            (
                'return self.user.role == "admin"',
                'return "admin" in (self.user.role, self.tenant_role)',
            ),
        ),
        H,
    ),
    Mutant(
        "H3",
        "whoever saves their name may send their role along",
        "auth/account.py",
        (
            (
                '        name, zone = await fields(request, "name", "zone")\n',
                '        name, zone, role = await fields(request, "name", "zone", "role")\n'
                "        if role:\n"
                "            sql = 'update users set role = :role where id = :id'\n"
                "            auth.db.q(sql, role=role, id=request.scope['auth'].user.id)\n",
            ),
        ),
        H,
    ),
    Mutant(
        "H4",
        "one page without its guard",
        "auth/role_admin.py",
        (("@app.get(PATH, before=admin_required)", "@app.get(PATH)"),),
        H,
    ),
    Mutant(
        "H5",
        "a program works in whatever organisation it names",
        "auth/apps.py",
        (("            if not self._in(t, found, tenant):", "            if False:"),),
        H,
    ),
    Mutant(
        "H5",
        "a browser works in whatever organisation it names",
        "auth/oneself.py",
        (("            if not self._may_work_in(t, user, tenant):", "            if False:"),),
        H,
    ),
    Mutant(
        "H5",
        "whose session it is does not matter",
        "auth/sessions.py",
        (
            (
                '"delete from sessions where id = :id and user_id = :user_id returning id",',
                "\"delete from sessions where id = :id and :user_id <> '' returning id\",",
            ),
        ),
        H,
    ),
    Mutant(
        "H6",
        "who was a member when a session chose an organisation is one",
        "auth/sessions.py",
        (
            (
                '    row = rows[0]\n    user, role = users.of(row), row["session_role"]\n',
                '    row = rows[0]\n    user, role = users.of(row), row["session_role"]\n'
                '    role = find.__dict__.setdefault(token + row["session_id"], role)\n',
            ),
        ),
        H,
    ),
    Mutant(
        "H9",
        "the first person who signs up runs the site",
        "auth/arriving.py",
        (
            (
                'if users.add(t, self.keys.new_id(), address, "", "user", now):',
                'if users.add(t, self.keys.new_id(), address, "",'
                ' "user" if users.active_admins(t) else "admin", now):',
            ),
        ),
        H,
    ),
    Mutant(
        "K10",
        "an admin ends a session, and nobody writes it down",
        "auth/people.py",
        (
            (
                '            self._record(t, events.LOGOUT, actor, user.address, source, "one of theirs")\n',
                "",
            ),
        ),
        H,
    ),
    Mutant(
        "E7",
        "a mail names the device as the browser names itself",
        "auth/agents.py",
        (
            ("    agent = agent[:MAX_AGENT]\n", "    return agent\n"),
            (
                ") - {_SOME} | {AN_APP}\n",
                ")\nLABELS = type('All', (), {'__contains__': lambda *_: True})()\n",
            ),
        ),
        "tests/test_emails.py",
    ),
    Mutant(
        "E7",
        "an invitation takes any name",
        "templates/emails.py",
        (("        if fit_for_mail(organisation):\n", "        if organisation:\n"),),
        "tests/test_emails.py",
    ),
    Mutant(
        "E8",
        "the hidden first line of a mail has the code",
        "templates/emails.py",
        (
            (
                'f"It works once, for {valid_for}.",\n            P("Your',
                '"⟦code⟧",\n            P("Your',
            ),
        ),
        "tests/test_emails.py",
    ),
    Mutant(
        "L4",
        "a reply that begins with a five is the recipient's fault",
        "utils/replies.py",
        (
            (
                "    kind, detail = _enhanced(code, text)\n    if code in (421",
                "    kind, detail = _enhanced(code, text)\n"
                "    if code // 100 == 5:\n        return DEAD\n    if code in (421",
            ),
        ),
        L,
    ),
    Mutant(
        "L5",
        "a recipient that does not exist is tried again and again",
        "utils/replies.py",
        (
            (
                'if detail.startswith("1.") or detail == "2.1":\n        return DEAD',
                'if detail.startswith("1.") or detail == "2.1":\n        return RETRY',
            ),
        ),
        L,
    ),
    Mutant(
        "L6",
        "each try has a Message-ID of its own",
        "utils/message.py",
        (('f"<{self.id}@', "f\"<{__import__('os').urandom(8).hex()}@"),),
        L,
    ),
    Mutant(
        "L6",
        "no answer counts as a refusal, however often",
        "utils/outbox.py",
        (('if row["losses"] > 1:', "if False:"),),
        L,
    ),
    Mutant(
        "L8",
        "a dead code is sent all the same",
        "utils/outbox.py",
        (('        if now > row["not_after"]:', "        if False:"),),
        L,
    ),
    Mutant(
        "M1",
        "the mail is queued after the commit",
        "auth/asking.py",
        (
            (
                "                self._mail_it(t, challenge, mail)\n"
                "                self._record(t, events.CODE_REQUESTED, address, browser.source)\n",
                "                self._record(t, events.CODE_REQUESTED, address, browser.source)\n"
                "        if not told:\n"
                "            with self.db.tx() as t:\n"
                "                self._mail_it(t, challenge, mail)\n",
            ),
        ),
        M,
    ),
    Mutant(
        "M3",
        "the code is used up in a transaction of its own",
        "auth/arriving.py",
        (("challenges.consume(t, id, now)", "challenges.consume(self.db, id, now)"),),
        M,
        "postgresql",
    ),
    Mutant(
        "H5",
        "an organisation has everybody in its list who is in any",
        "auth/tenants.py",
        (
            (
                'on u.id = m.user_id where m.tenant_id = :tenant"',
                'on u.id = m.user_id where m.tenant_id = coalesce(m.tenant_id, :tenant)"',
            ),
        ),
        TENANTS,
    ),
    Mutant(
        "H5",
        "who owns the tables passes the second wall",
        "auth/migrations/0011_walls.postgresql.sql",
        (
            (
                "alter table memberships enable row level security, force row level security;",
                "alter table memberships enable row level security;",
            ),
        ),
        TENANTS,
        "postgresql",
    ),
    Mutant(
        "H6",
        "an invitation outlives what it was for",
        "auth/migrations/0010_invitations.sqlite.sql",
        (("new.user_id and state = 'open';", "new.user_id and state = 'none';"),),
        INVITATIONS,
    ),
    Mutant(
        "H7",
        "an invitation may be accepted by who knows its id",
        "auth/invitations.py",
        (
            (
                'where i.id = :id and i.user_id = :user_id and i.address = :address"',
                "where i.id = :id and (:user_id <> '' or i.address = :address)\"",
            ),
        ),
        INVITATIONS,
    ),
    Mutant(
        "A7",
        "a code for one thing is good for another",
        "auth/codes.py",
        (
            (
                "known = challenge.purpose in purposes and (challenge.mailed or long)",
                "known = challenge.mailed or long",
            ),
        ),
        MOVES,
    ),
    Mutant(
        "E6",
        "a thief who moves on can undo the undoing",
        "auth/moves.py",
        (("and n >= :n and ended_at", "and n = :n and ended_at"),),
        MOVES,
    ),
    Mutant(
        "M9",
        "a restored session lives",
        "auth/leaving.py",
        (
            (
                "        sessions.end_every(t)\n        devices.end_every(t)\n        reviewers",
                "        devices.end_every(t)\n        reviewers",
            ),
        ),
        BACKUP,
    ),
    Mutant(
        "M9",
        "a backup that was changed is put back",
        "utils/backup.py",
        (('if not whole or found != (told["total"], told["checksum"]):', "if not whole:"),),
        BACKUP,
    ),
    Mutant(
        "J12",
        "the beginning of the token will do",
        "utils/metrics.py",
        (("compare_digest(token, self._token)", "self._token.startswith(token)"),),
        "tests/test_metrics.py",
    ),
    Mutant(
        "E15",
        "the line for fail2ban has what a client says of itself",
        "auth/email_auth.py",
        (
            (
                "client = address_of(client_of(peer, forwarded, self._proxies))",
                "client = forwarded[0] if forwarded else peer",
            ),
        ),
        "tests/test_logs.py",
    ),
    Mutant(
        "N3",
        "what nobody had accepted yet is reset",
        "utils/server.py",
        (("came.append(door.accept()[0])", "break"),),
        "tests/faults/test_n_scale.py",
    ),
    Mutant(
        "N3",
        "who has connected and asked nothing yet is turned away",
        "utils/server.py",
        (
            (
                "if self.cycle is not None:\n            return super()",
                "if True:\n            return super()",
            ),
        ),
        "tests/faults/test_n_scale.py",
    ),
    Mutant(
        "J2",
        "a body may take for ever",
        "utils/server.py",
        (("self._pending, self._awaited = 0, BODY", "self._pending, self._awaited = 0, NOTHING"),),
        "tests/faults/test_n_scale.py",
    ),
    Mutant(
        "J13",
        "each who waits for a lock tries it on the event loop first",
        "utils/database.py",
        (("if not self._waiting:", "if True:"),),
        "tests/faults/test_m_database.py",
    ),
    Mutant(
        "M5",
        "a commit does not wait for the disk",
        "utils/database.py",
        (
            ('execute("pragma synchronous = full")', 'execute("pragma synchronous = normal")'),
            (
                'connection.pragma("synchronous", "full")',
                'connection.pragma("synchronous", "normal")',
            ),
        ),
        "tests/faults/test_m_disk.py",
    ),
]


# One of each of these rows, or with MUTANTS=all every one: they take as long as their tests do.
GATES = "A3 A5 A14 A15 B1 B3 C4 C8 C10 D1 D7 E1 E6 E7 G8 H1 H5 I8 I9 K1 K2 L4 L6 M1 M3"
EVERY = os.environ.get("MUTANTS") == "all"
CHOSEN = [
    mutant
    for i, mutant in enumerate(MUTANTS)
    if EVERY
    or (f" {mutant.row} " in f" {GATES} " and mutant.row not in {m.row for m in MUTANTS[:i]})
]


def test_every_mutant_still_fits():
    """Also those that do not run today: each edit has one place to go."""
    texts = {mutant.file: (ROOT / mutant.file).read_text() for mutant in MUTANTS}
    astray = [
        (mutant.row, mutant.file, old)
        for mutant in MUTANTS
        for old, _ in mutant.edits
        if texts[mutant.file].count(old) != 1
    ]
    assert not astray, "write these mutants anew"


@pytest.mark.parametrize("mutant", CHOSEN, ids=lambda m: f"{m.row}: {m.what}")
def test_a_known_bad_change_turns_its_test_red(mutant, tmp_path):
    for room in ROOMS:
        copy = shutil.copytree if (ROOT / room).is_dir() else shutil.copy
        copy(ROOT / room, tmp_path / room)
    file = tmp_path / mutant.file
    text = file.read_text()
    for old, new in mutant.edits:
        assert text.count(old) == 1, f"{mutant.file} has changed: write this mutant anew"
        text = text.replace(old, new)
    file.write_text(text)
    if file.suffix == ".py":
        compile(text, mutant.file, "exec")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            mutant.tests,
            "-n0",
            "-x",
            # Nobody reads why it fails: to prepare each assert for that takes a third of the time.
            "--assert=plain",
            "--tb=short",
            "-k",
            f"{mutant.row}_ and not {OTHER[mutant.database]}",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    # 1 is "tests failed"; anything else is a mutant that does not run.
    assert done.returncode == 1, f"it was not noticed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
    assert " failed" in done.stdout and " error" not in done.stdout.splitlines()[-1]
