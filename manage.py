"""The side door: the operator's commands. Exit 0, or 1 with a line on stderr that says what to do.

.venv/bin/python manage.py --help
"""

import logging
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import click

from auth import MIGRATIONS, EmailAuth, Refused
from auth.addresses import canonical
from auth.audit import Audit
from auth.events import Source
from auth.importing import BAD, Importing, batches, decoded, read
from auth.inviting import Inviting
from auth.keys import Keys
from auth.leaving import MERGED as KEPT
from auth.leaving import TAKEN_BACK
from auth.organisations import Organisations
from auth.people import People
from auth.retention import LEAST_EVENT_DAYS, MOST_DAYS, Retention
from auth.signin import SignIn
from auth.users import active_admins
from main import OUTBOX_MIGRATIONS, policy_of
from templates.importing import words_of as outcome_words
from templates.words import refusal
from utils import settings as config
from utils.backup import Unusable, opened, put_back, save
from utils.database import Database, Tx, Unavailable, above_policies, connect, migrate, waiting
from utils.mailer import Fault, Message, Nowhere, Sender, mail_transport
from utils.outbox import MERGED, Outbox, restored, running
from utils.outbox import purge as purge_mails
from utils.remedies import explain, reminders

ROOMS = (MIGRATIONS, OUTBOX_MIGRATIONS)


@click.group(no_args_is_help=False)
def commands() -> None:
    """Run Vestibule: people, settings, checks."""


def tools() -> tuple[config.Settings, Database, Keys]:
    """What most commands work with; the tables are there, and up to date."""
    settings = config.load()
    db = connect(settings.database_url)
    migrate(db, *ROOMS)
    return settings, db, Keys(settings.secret_key, settings.secret_key_previous)


def people() -> People:
    """The rules about people, on the database that the settings name."""
    settings, db, keys = tools()
    outbox = Outbox(db, Nowhere(), Sender("", ""), time.time)  # the app sends what is put there
    outbox.patient = EmailAuth.notices  # or a list of invitations would stand before codes
    rules = SignIn(db, keys, outbox.put, time.time, policy_of(settings))
    return People(db, keys, time.time, rules)


@commands.command()
@click.argument("address")
@click.option("--role", default="user", show_default=True)
@click.option("--name", default="", help="shown in the list of people")
def add_user(address: str, role: str, name: str) -> None:
    """Let ADDRESS sign in."""
    user = people().add(None, address, name, role, Source())
    click.echo(f"{user.address} can sign in, with the role {user.role}.")


@commands.command()
@click.argument("address")
@click.argument("role")
def set_role(address: str, role: str) -> None:
    """Give ADDRESS another ROLE. It counts at the next request."""
    rules = people()
    user = rules.set_role(None, rules.by_address(address).id, role, Source())
    click.echo(f"{user.address} has the role {user.role}.")


@commands.command()
@click.argument("address")
def disable(address: str) -> None:
    """End all sessions of ADDRESS and refuse new ones."""
    rules = people()
    user = rules.disable(None, rules.by_address(address).id, Source())
    click.echo(f"{user.address} is disabled and signed out everywhere.")


@commands.command()
@click.argument("address")
def enable(address: str) -> None:
    """Let a disabled ADDRESS sign in again."""
    rules = people()
    user = rules.enable(None, rules.by_address(address).id, Source())
    click.echo(f"{user.address} can sign in again.")


@commands.command()
@click.argument("address")
@click.option("--days", type=float, required=True, help="how long, at most 90")
@click.option("--ip", "network", required=True, help="the network they come from, as CIDR")
def review_account(address: str, days: float, network: str) -> None:
    """Print a code that stays the same, for who tests an app for its store and can't read mail.

    It counts in the JSON API, from that network, for a person without rights, and ends by itself.
    """
    user, code, ends = people().add_reviewer(None, address, days, network, Source())
    when = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M")
    click.echo(f"{user.address} can sign in from {network} until {when} UTC with the code {code}.")


@commands.command()
@click.argument("file", type=click.File("rb"))
@click.option("--tenant", default="", help="the organisation to invite them to, by mail")
@click.option("--role", default="user", show_default=True, help="where the list names none")
@click.option("--dry-run", is_flag=True, help="say what would happen, and change nothing")
def import_users(file: BinaryIO, tenant: str, role: str, dry_run: bool) -> None:
    """Let everybody in FILE sign in: an address a line, or CSV with a name and a role; - for stdin."""
    rules = people()
    inviting = Inviting(rules.db, rules.keys, rules.clock, rules.signin)
    importing = Importing(rules.db, rules.keys, rules.clock, inviting)
    where, rows = importing.tenant(tenant), read(decoded(file.read()), role, None)
    done = []
    with bar("People")(len(rows)) as shown:
        for part in batches(rows):
            if dry_run:
                done += importing.foresee(part, where)
            else:
                done += importing.put(None, part, where, Source())
            shown.update(len(part))
    bad = [row for row in done if row.outcome in BAD]
    for row in bad:
        what = outcome_words(row.outcome, True)
        click.echo(f"line {row.line}  {printable(row.address or row.typed)}  {what}")
    for outcome, n in Counter(row.outcome for row in done).items():
        click.echo(f"{n} {outcome_words(outcome, not dry_run)}")
    if bad:
        lines = "1 line was" if len(bad) == 1 else f"{len(bad)} lines were"
        raise click.ClickException(f"{lines} not done: mend what is bad, and import it again")


def organisations() -> Organisations:
    _, db, keys = tools()
    return Organisations(db, keys, time.time)


@commands.command()
@click.argument("name")
@click.option("--admin", required=True, help="address of who runs it")
def add_tenant(name: str, admin: str) -> None:
    """Make an organisation and print its id."""
    click.echo(organisations().create(None, name, admin, Source()).id)


@commands.command()
def tenants() -> None:
    """List the organisations: id, name."""
    for tenant in organisations().all():
        click.echo(f"{tenant.id}  {tenant.name}")


@commands.command()
@click.argument("tenant")
@click.argument("address")
@click.option("--role", default="user", show_default=True)
def join(tenant: str, address: str, role: str) -> None:
    """Let ADDRESS work in TENANT, or give them another role there."""
    member = organisations().join(None, tenant, address, role, Source())
    click.echo(f"{address} is in {member.name}, with the role {member.role}.")


@commands.command()
@click.argument("tenant")
@click.argument("address")
def leave(tenant: str, address: str) -> None:
    """Take ADDRESS out of TENANT. It counts at their next request."""
    organisations().leave(None, tenant, address, Source())
    click.echo(f"{address} is not in it any more.")


@commands.command()
@click.argument("address")
@click.option("--yes", is_flag=True, help="do not ask")
def delete_user(address: str, yes: bool) -> None:
    """Delete ADDRESS with all sessions. This can't be undone."""
    rules = people()
    user = rules.by_address(address)
    if not yes:
        click.confirm(f"Delete {user.address} for good?", abort=True)
    rules.delete(None, user.id, Source())
    click.echo(f"{user.address} is deleted.")


@commands.command()
@click.option("--search", default="", help="only who has this in the name or address")
def users(search: str) -> None:
    """List the people: address, role, state, last sign-in (UTC), name."""
    for user in people().each(search):
        state = "disabled" if user.disabled_at else "active" if user.activated_at else "new"
        last = user.signed_in_at
        when = datetime.fromtimestamp(last, UTC).strftime("%Y-%m-%d %H:%M") if last else "never"
        click.echo(f"{user.address}  {user.role}  {state}  {when}  {user.name}".rstrip())


def signin() -> SignIn:
    """The rules of signing in and out, with the numbers that the settings name."""
    settings, db, keys = tools()
    return SignIn(db, keys, lambda *mail: None, time.time, policy_of(settings))


@commands.command()
@click.argument("address")
def sessions(address: str) -> None:
    """List where ADDRESS is signed in: id, device, network, since, last use (UTC)."""
    rules = signin()
    user = people_of(rules).by_address(address)
    for place in rules.own(user, "").places:
        what = place.kind or ("an app" if place.app else "an unknown browser")
        click.echo(
            f"{place.id}  {what}  {place.network or '-'}  {at(place.created_at)}  {at(place.seen_at)}"
        )


@commands.command()
@click.argument("address", required=False)
@click.option("--all", "everybody", is_flag=True, help="everybody, and the browsers that know them")
@click.option("--yes", is_flag=True, help="do not ask")
def sign_out(address: str | None, everybody: bool, yes: bool) -> None:
    """End all sessions of ADDRESS, apps too, or with --all of everybody."""
    if bool(address) == everybody:
        raise click.ClickException("name an address, or --all for everybody")
    rules = signin()
    if address:
        user = people_of(rules).by_address(address)
        rules.end_everything(user, Source())
        click.echo(f"{user.address} is signed out everywhere.")
        return
    if not yes:
        click.confirm("Sign everybody out?", abort=True)
    click.echo(f"Everybody is signed out: {rules.end_everybody(Source())} sessions.")


@commands.command("events")
@click.option("--address", default="", help="only what is about it")
@click.option("--since", default="7d", show_default=True, help="such as 12h or 30d")
def show_events(address: str, since: str) -> None:
    """Print what happened, the oldest first: time (UTC), event, about, network, detail."""
    number, unit = since[:-1], since[-1:]
    if not (number.isascii() and number.isdigit()) or unit not in ("h", "d") or len(number) > 5:
        raise click.ClickException("--since: write a number of hours or days, such as 12h or 30d")
    rules = signin()
    start = time.time() - int(number) * {"h": 3600, "d": 86400}[unit]
    # Quoted where it is not printable: a name in it must not steer the terminal.
    for event in reversed(Audit(rules.db, rules.keys, time.time).since(start, address)):
        told = (event.kind, event.subject or "-", event.network or "-", event.detail)
        click.echo("  ".join([at(event.at), *map(printable, told)]).rstrip())


def people_of(rules: SignIn) -> People:
    return People(rules.db, rules.keys, rules.clock, rules)


def at(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


@commands.command()
@click.option(
    "--events",
    "event_days",
    type=click.IntRange(LEAST_EVENT_DAYS, MOST_DAYS),
    help=f"and the record of what happened before so many days; at least {LEAST_EVENT_DAYS}",
)
@click.option(
    "--never-activated",
    "idle_days",
    type=click.IntRange(1, MOST_DAYS),
    help="and people who were added before so many days and never signed in",
)
def purge(event_days: int | None, idle_days: int | None) -> None:
    """Delete what has ended: counters, sign-ins, sessions, known browsers, reviewers, invitations, changes of address, mails.

    The app does this by itself, too. The record and people go only when they are named. Who has a role, runs an
    organisation, is asked into one, tests an app or is disabled stays.
    """
    settings, rules = config.load(), signin()
    db, old = rules.db, Retention(rules.db, rules.keys, time.time)
    with bar("What has ended")(2) as shown:
        gone = rules.purge()
        shown.update(1)
        gone["mails"] = purge_mails(db, time.time())
        shown.update(1)
    if idle_days:
        gone["people"] = old.forget_never_active(idle_days, settings.admin_emails)
    if event_days:
        try:
            gone["events"] = old.forget_events(event_days, bar("Old events"))
        except db.errors as error:  # its clock is more than an hour behind ours
            raise click.ClickException("the database takes these events for younger") from error
    for name, n in gone.items():
        click.echo(f"{n} {name}")


def bar(label: str) -> Callable[[int], Any]:
    """How far it is, on a terminal alone."""

    def of(length: int) -> Any:
        hidden = not sys.stderr.isatty()
        return click.progressbar(length=length, label=label, file=sys.stderr, hidden=hidden)

    return of


@commands.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="in place of a file that is there")
def backup(file: Path, force: bool) -> None:
    """Save what is in the database at this moment to FILE, while the app runs."""
    with closing(connect(config.load().database_url)) as db:
        rows = save(db, file, int(time.time()), bar("Saving"), *ROOMS, force=force)
    click.echo(f"{rows} rows are in {file}. Keep it as safe as the database.")


@commands.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="do not ask")
def restore(file: Path, yes: bool) -> None:
    """Make the database what it was when FILE was saved. Everybody is signed out, and no old mail goes out.

    What has happened stays in the record. Stop the app before.
    """
    config.load()
    with opened(file, *ROOMS) as found:
        rules = signin()
        if running(rules.db, time.time()):
            raise click.ClickException(
                "the app seems to run: stop it first (one that was killed counts for half a minute)"
            )
        if not yes:
            click.confirm(f"Put the database back to {at(found.made_at)} UTC?", abort=True)

        def afterwards(t: Tx) -> None:
            rules.restored(t, found.made_at)
            restored(t, time.time())

        put_back(rules.db, found, (*KEPT, *MERGED), afterwards, bar("Putting back"))
        click.echo(
            f"The database is what it was at {at(found.made_at)} UTC; everybody signs in anew."
        )
        undone = Audit(rules.db, rules.keys, time.time).since(found.made_at)
    for event in reversed([event for event in undone if event.kind in TAKEN_BACK]):
        told = (at(event.at), event.kind, printable(event.subject), printable(event.detail))
        click.echo(f"undone: {'  '.join(told)}".rstrip())


@commands.command()
def new_secret() -> None:
    """Print a random value for SECRET_KEY."""
    click.echo(config.new_secret())


@commands.command("config")
def show_config() -> None:
    """Print every setting as it is understood, secrets masked."""
    for name, value in config.masked(config.load()).items():
        click.echo(f"{name}={value}")


class Remark(str):
    """A finding of doctor that is no fault, and had better be known."""


class Ill(Exception):
    """A finding of doctor: which setting, why, and what to do."""

    def __init__(self, name: str, why: str, do: str):
        super().__init__(name)
        self.name, self.why, self.do = name, why, do


@commands.command()
def doctor() -> None:
    """Check the settings, the database and the mail server, and say what to do about each fault."""
    settings, faults = config.check(config.read())
    for name, fault in faults.items():
        click.echo(f"bad   {name}: {fault}")
    if faults:
        raise click.ClickException(f"{len(faults)} settings to mend, then run doctor again")
    settings = config.load()
    click.echo("good  settings")
    for name, remark in config.advice(settings) + reminders(settings):
        click.echo(f"note  {name}: {remark}")
    ill = []
    for examine in (examine_database, examine_mail):
        try:
            for finding in examine(settings):
                click.echo(f"{'note' if isinstance(finding, Remark) else 'good'}  {finding}")
        except Ill as found:
            click.echo(f"bad   {found.name}: {found.why}\n      {found.do}")
            ill.append(found.name)
    if ill:
        raise click.ClickException(f"{', '.join(ill)}: mend this, then run doctor again")


def examine_database(settings: config.Settings) -> Iterator[str]:
    try:
        db = connect(settings.database_url)
        missing = waiting(db, MIGRATIONS, OUTBOX_MIGRATIONS)
        admins = 0 if missing else active_admins(db)
        above = above_policies(db)
    except Unavailable as error:
        do = "check that the server runs, or that this process may write the file"
        raise Ill("DATABASE_URL", str(error), do) from error
    yield f"database, {missing} migrations to run at the next start" if missing else "database"
    if above:
        yield Remark(
            "DATABASE_URL: this user is above the policies that keep organisations apart (superuser or"
            " bypassrls); take one that is not (docs/scale-out.md)"
        )
    for address in settings.admin_emails:
        if canonical(address) is None:
            raise Ill("ADMIN_EMAILS", f"{address} can't be mailed", "mend or remove it")
    if not admins and not settings.admin_emails:
        do = "write an address here, or add-user ADDRESS --role admin"
        raise Ill("ADMIN_EMAILS", "there is no admin", do)
    yield "admins"


def examine_mail(settings: config.Settings) -> Iterator[str]:
    """Connect, greet and log in, as for a mail, and send none."""
    if settings.mail_backend not in ("smtp", "resend"):
        yield f"mail, which goes nowhere from here: MAIL_BACKEND={settings.mail_backend}"
        return
    steps: list[str] = []
    try:
        mail = mail_transport(settings, lambda stage, text: steps.append(f"{stage}: {text}"))
        mail.check(settings.mail_from.rpartition("@")[2])
    except Fault as fault:
        yield from steps
        why, do = explain(fault, settings)
        raise Ill("mail", f"{fault}; {why}", do) from fault
    yield from steps
    yield "mail"


class PlainLetter(NamedTuple):
    """What send-test-mail says. No number in it that looks like a code."""

    to: str
    subject: str
    text: str
    html: str = ""


@commands.command()
@click.argument("address")
def send_test_mail(address: str) -> None:
    """Send a small mail to ADDRESS as the app would, and show each step."""
    settings, to = config.load(), canonical(address)
    if to is None:
        raise click.ClickException("we can't send mail to that address; check it for typing errors")
    if settings.mail_backend == "none":
        raise click.ClickException("MAIL_BACKEND: none sends nothing; write smtp or resend")
    text = (
        f"Mail from {settings.app_name} arrives. You can delete this one.\n\n{settings.base_url}\n"
    )
    letter = PlainLetter(to, f"A test mail from {settings.app_name}", text)
    sender = Sender(settings.mail_from, settings.mail_from_name, settings.mail_reply_to)
    message = Message(uuid.uuid4().hex, time.time(), sender, letter)
    mail = mail_transport(settings, lambda stage, words: click.echo(f"{stage:<8} {words}"))
    try:
        reply = mail.deliver(message)
    except Fault as fault:
        why, do = explain(fault, settings)
        click.echo(f"bad      {fault}\nwhy      {why}\ndo       {do}")
        raise click.ClickException(f"not accepted: {why}; {do}") from fault
    finally:
        mail.close()
    click.echo(f"accepted {reply}")
    for name, remark in reminders(settings):
        click.echo(f"note     {name}: {remark}")


def run() -> int:
    # What the pool or SQLite have to say says less than the one line that we print.
    logging.disable(logging.CRITICAL)
    try:
        commands(standalone_mode=False)
    except Refused as refused:
        click.echo(" ".join(refusal(refused.reason, refused.facts)).strip(), err=True)
    except click.ClickException as error:
        click.echo(error.format_message(), err=True)
    except click.Abort:
        click.echo("Nothing was changed.", err=True)
    except UnicodeEncodeError:
        click.echo("There is a character in it that is none.", err=True)
    except Unusable as error:
        click.echo(str(error), err=True)
    except (Unavailable, RuntimeError) as error:
        click.echo(f"DATABASE_URL: {error}", err=True)
    except SystemExit as stop:  # the settings said why
        return 1 if stop.code else 0
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(run())
