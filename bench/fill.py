"""Many people and what they have done, in seconds: for tests and measurements of what grows. Never for real data.

Everything comes of counting and multiplying, so that two runs are alike. A statement a table: the
database makes the rows by itself.
"""

FIRST = "Ada Alan Barbara Chen Dilek Emmy Fatima Grace Hedy Ivan Jana Katherine Linus Mary Nils Özgür".split()
LAST = "Lovelace Turing Liskov Wei Ünal Noether Khan Hopper Lamarr Petrov Novák Johnson Berg Ek".split()
COUNT = (
    "with recursive n(i) as (select cast(1 as bigint) union all select i + 1 from n where i < :n)"
)
# Who has done most: each hundredth event is about them.
BUSIEST = 7
YEAR, QUARTER, WEEK = 365 * 86400, 90 * 86400, 600_000

# Of a hundred people two are editors, one is disabled, twenty were never here.
PEOPLE = """{count}, first(k, word, plain) as (values {first}), last(k, word) as (values {last})
insert into users (id, address, name, role, created_at, activated_at, signed_in_at, disabled_at)
select {user}, {address}, case when i % 10 = 9 then '' else first.word || ' ' || last.word end,
       case when i % 2000 = 1 then 'admin' when i % 50 = 2 then 'editor' else 'user' end,
       :now - {year} + i * {year} / :n, case when i % 5 > 0 then :now - {year} + i * {year} / :n end,
       case when i % 5 > 0 then :now - i * 104729 % {quarter} end, case when i % 100 = 3 then :now - 1000 end
  from n left join first on first.k = i * 7 % 16 left join last on last.k = i * 5 % 14"""

SESSIONS = """{count} insert into sessions (id, token, user_id, kind, network, created_at, seen_at, expires_at)
select {session}, {token}, {user}, 'Firefox on Linux', '192.0.2.0/24', :now - i * 31 % 600000,
       :now - i * 17 % 500000, :now + 1000000 from n"""

TENANTS = """{count} insert into tenants (id, name, created_at)
select {tenant}, 'Club ' || cast(i as text), :now - i from n"""

MEMBERSHIPS = """{count} insert into memberships (tenant_id, user_id, role, created_at)
select {tenant_of}, {user}, case when i <= :tenants then 'admin' else 'user' end, :now - i from n"""

# Spread over a quarter, the newest last. Of twenty events one is rare.
EVENTS = """{count}, first(k, word, plain) as (values {first}), kind(k, word) as (values {kinds}), e as (
select i as nr, case when i % 100 = 0 then {busiest} else i * 7919 % :people + 1 end as i,
       :now - {quarter} + i * {quarter} / :n as at from n)
insert into events (id, at, kind, actor, subject, network, detail, tenant)
select {event}, at, kind.word, case when kind.k = 1 then {user} else '' end, {address}, '192.0.2.0/24', '',
       case when nr % 50 = 0 then {tenant_of} else '' end
  from e left join first on first.k = i * 7 % 16 left join kind on kind.k = nr % 20"""
KINDS = [
    "user_created",
    *["authn_login_success"] * 8,
    *["authn_code_requested"] * 8,
    *["authn_login_fail"] * 2,
    "authn_logout",
]

# A week of them, the newest first.
MAILS = """{count} insert into outbox (id, kind, ref, state, created_at, not_after, next_at, tries, reply)
select {mail}, 'new_device', {user} || ':1', case when i <= 20 then 'queued' when i % 500 = 0 then 'dead'
       when i % 300 = 0 then 'expired' when i % 200 = 0 then 'void' else 'accepted' end,
       :now - i * {week} / :n, :now - i * {week} / :n + 86400, :now, 1, '250 OK' from n"""

# ---- what is over. Sessions that idled out, sign-ins that were used, browsers, counters, and what was told of them;
# `:age` seconds ago, so that it may go or may not yet.
OVER = {
    "sessions": """insert into sessions (id, token, user_id, kind, network, created_at, seen_at, expires_at)
select {old_session}, {old_token}, {somebody}, 'Firefox on Linux', '192.0.2.0/24', :now - :age - {day} * 10,
       :now - :age - {day} * 9, :now - :age + {day} * 20 + i % 1000 from n""",
    "challenges": """insert into challenges (id, browser, purpose, address, nonce, key_id, code_tries, total_tries,
 next_path, issued_at, sent_at, expires_at, used_at, asked_by)
select {challenge}, {browser}, 'sign-in', {address}, {browser}, 'a1b2c3d4e5f6', 1, 1, '/dashboard',
       :now - :age - 5000, :now - :age - 5000, :now - :age - 4100, :now - :age - 4900, 'Firefox on Linux'
  from (select i * 7919 % :people + 1 as i, i as nr from n) p left join first on first.k = i * 7 % 16""",
    "devices": """insert into devices (id, user_id, generation, verifier, previous, rotated_at, created_at, expires_at)
select {device}, {somebody}, 1, {old_token}, {old_token}, :now - :age - {day}, :now - :age - {day} * 9,
       :now - :age + {day} * 90 from n""",
    "counters": """insert into counters (key, n, most, ends_at)
select {device} || ' mails/86400', 1, 10, :now - :age + {day} from n""",
    "events": """insert into events (id, at, kind, actor, subject, network, detail)
select {old_event}, :now - :age - {day} + nr / 20, kind.word, case when kind.k = 1 then {user} else '' end,
       {address}, '192.0.2.0/24', ''
  from (select i * 7919 % :people + 1 as i, i as nr from n) p left join first on first.k = i * 7 % 16
  left join kind on kind.k = nr % 20""",
    "outbox": """insert into outbox (id, kind, ref, state, created_at, not_after, next_at, tries, reply)
select {old_mail}, 'code', {challenge} || ':1', 'accepted', :now - :age - {day} + nr / 20,
       :now - :age, :now - :age, 1, '250 OK' from (select i as nr from n) p""",
}


class Fill:
    """Into a database whose tables are there. `now` is the newest moment at which anything has happened."""

    def __init__(self, db, now):
        self.db, self.now, self._people, self._tenants = db, int(now), 1, 1
        self._sqlite = type(db).__name__ == "SQLite"

    def people(self, n):
        self._run("insert into roles (name) values ('editor') on conflict do nothing")
        self._run(PEOPLE, n=n)
        self._people = n

    def sessions(self, n):
        """One for each of the first n people."""
        self._run(SESSIONS, n=n)

    def memberships(self, n, tenants):
        """One for each of the first n people, in as many organisations; each has an admin."""
        self._run(TENANTS, n=tenants)
        self._run(MEMBERSHIPS, n=n, tenants=tenants)
        self._tenants = tenants

    def events(self, n):
        self._run(EVENTS, n=n, people=self._people, tenants=self._tenants)

    def mails(self, n):
        self._run(MAILS, n=n)

    def over(self, n, age=0):
        """So many dead rows in each table that a sign-in writes, a day's. Kept yet, unless their `age` in seconds
        is more than a hundred days."""
        for sql in OVER.values():
            values = (
                ", first(k, word, plain) as (values {first}), kind(k, word) as (values {kinds}) "
            )
            self._run("{count}" + values + sql, n=n, people=self._people, age=int(age))

    def analyze(self):
        """What PostgreSQL does by itself a minute later. SQLite goes without, as it does in the app."""
        if not self._sqlite:
            for table in ("tenants", "memberships", "users", *OVER):
                self.db.q(f"vacuum analyze {table}")

    def _run(self, sql, **numbers):
        pieces = {
            "count": COUNT,
            "first": _values(FIRST, plain=True),
            "last": _values(LAST),
            "kinds": _values(KINDS),
            "busiest": BUSIEST,
            "year": YEAR,
            "quarter": QUARTER,
            "user": self._id("i", "a"),
            "day": 86400,
            "somebody": self._id("(i * 7919 % :people + 1)", "a"),
            "session": self._id("i", "b"),
            "token": f"{self._id('i', '4')} || {self._id('i', '4')}",
            "old_session": self._id("i", "f"),
            "old_token": f"{self._id('i', '5')} || {self._id('i', '5')}",
            "challenge": self._id("nr", "6"),
            "browser": f"{self._id('nr', '7')} || {self._id('nr', '7')}",
            "device": self._id("i", "8"),
            "old_event": self._id("nr", "9", "(:now - :age - 86400 + nr / 20) * 1000"),
            "old_mail": self._id("nr", "0", "(:now - :age - 86400 + nr / 20) * 1000"),
            "tenant": self._id("i", "c"),
            "tenant_of": self._id("(i - 1) % :tenants + 1", "c"),
            "event": self._id("nr", "d", "at * 1000"),
            "mail": self._id(
                ":n - i", "e", "(:now - i * {week} / :n) * 1000".replace("{week}", str(WEEK))
            ),
            "week": WEEK,
            "address": "plain || '.' || cast(i as text) || '@' || case when i % 3 = 0 then 'example.com'"
            " else 'team' || cast(i % 50 as text) || '.example.org' end",
        }
        if self._sqlite:
            self.db.q("pragma cache_size = -200000")
        with self.db.tx(patient=True) as t:
            t.q(sql.format(**pieces), now=self.now, **numbers)

    def _id(self, number, letter, begins=""):
        """SQL for an opaque id: of an own letter for each table, and by time where it `begins` with one. Others lie
        all over their table, as random ones do."""
        begins = begins or f"({number}) * 7919 % 1048573 * 268435456"
        return f"{self._hex(begins, 12)} || {self._hex(number, 19)} || '{letter}'"

    def _hex(self, number, digits):
        if self._sqlite:
            return f"printf('%0{digits}x', {number})"
        return f"lpad(to_hex(({number})::bigint), {digits}, '0')"


def _values(words, plain=False):
    """Rows (number, word[, the word as in an address]) for a small table to choose from."""
    more = [f", '{w.lower().replace('ö', 'o').replace('ü', 'u')}'" if plain else "" for w in words]
    return ", ".join(f"({i}, '{word}'{more[i]})" for i, word in enumerate(words))
