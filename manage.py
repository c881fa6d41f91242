"""The side door: the operator's commands. Exit 0, or 1 with a line on stderr that says what to do.

.venv/bin/python manage.py --help
"""

import logging
import sys
import time
from datetime import UTC, datetime

import click

from auth import MIGRATIONS, Refused
from auth.addresses import canonical
from auth.events import Source
from auth.keys import Keys
from auth.people import People
from auth.signin import SignIn
from auth.users import active_admins
from main import OUTBOX_MIGRATIONS
from templates.words import refusal
from utils import settings as config
from utils.database import Unavailable, connect, migrate, waiting
from utils.mailer import Nowhere, Sender
from utils.outbox import Outbox
from utils.outbox import purge as purge_mails


@click.group()
def commands() -> None:
    """Run Vestibule: people, settings, checks."""


def people() -> People:
    """The rules about people, on the database that the settings name."""
    settings = config.load()
    db = connect(settings.database_url)
    migrate(db, MIGRATIONS, OUTBOX_MIGRATIONS)
    keys = Keys(settings.secret_key, settings.secret_key_previous)
    outbox = Outbox(db, Nowhere(), Sender("", ""), time.time)  # the app sends what is put there
    return People(db, keys, time.time, SignIn(db, keys, outbox.put, time.time).mail_waiting)


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
    rules, number, pages = people(), 1, 1
    while number <= pages:
        found = rules.find(search, number)
        pages, number = found.pages, number + 1
        for user in found.users:
            state = "disabled" if user.disabled_at else "active" if user.activated_at else "invited"
            last = user.signed_in_at
            when = datetime.fromtimestamp(last, UTC).strftime("%Y-%m-%d %H:%M") if last else "never"
            click.echo(f"{user.address}  {user.role}  {state}  {when}  {user.name}".rstrip())


@commands.command()
def purge() -> None:
    """Delete what has ended: counters, sign-ins, sessions, known browsers. The app does it by itself, too."""
    settings = config.load()
    db = connect(settings.database_url)
    migrate(db, MIGRATIONS, OUTBOX_MIGRATIONS)
    rules = SignIn(db, Keys(settings.secret_key), lambda *mail: None, time.time)
    for name, n in (rules.purge() | {"mails": purge_mails(db, time.time())}).items():
        click.echo(f"{n} {name}")


@commands.command()
def new_secret() -> None:
    """Print a random value for SECRET_KEY."""
    click.echo(config.new_secret())


@commands.command("config")
def show_config() -> None:
    """Print every setting as it is understood, secrets masked."""
    for name, value in config.masked(config.load()).items():
        click.echo(f"{name}={value}")


@commands.command()
def doctor() -> None:
    """Check the settings and the database, and say what to do about each fault."""
    settings, faults = config.check(config.read())
    for name, fault in faults.items():
        click.echo(f"bad   {name}: {fault}")
    if faults:
        raise click.ClickException(f"{len(faults)} settings to mend, then run doctor again")
    click.echo("good  settings")
    for name, remark in config.advice(settings):
        click.echo(f"note  {name}: {remark}")
    try:
        settings = config.load()
        db = connect(settings.database_url)
        missing = waiting(db, MIGRATIONS, OUTBOX_MIGRATIONS)
        admins = 0 if missing else active_admins(db)
    except Unavailable as error:
        raise click.ClickException(
            f"DATABASE_URL: {error}; check that the server runs, or that this process may write the file"
        ) from error
    then = f", {missing} migrations to run at the next start" if missing else ""
    click.echo(f"good  database{then}")
    for address in settings.admin_emails:
        if canonical(address) is None:
            raise click.ClickException(
                f"ADMIN_EMAILS: {address} can't be mailed; mend or remove it"
            )
    if not admins and not settings.admin_emails:
        raise click.ClickException(
            "ADMIN_EMAILS: there is no admin; write an address, or add-user --role admin"
        )
    click.echo("good  admins")


def run() -> int:
    # The pool's own warning says less than the line that we print.
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    try:
        commands(standalone_mode=False)
    except Refused as refused:
        click.echo(" ".join(refusal(refused.reason, refused.facts)).strip(), err=True)
    except click.ClickException as error:
        click.echo(error.format_message(), err=True)
    except click.Abort:
        click.echo("Nothing was changed.", err=True)
    except (Unavailable, RuntimeError) as error:
        click.echo(f"DATABASE_URL: {error}", err=True)
    except SystemExit as stop:  # the settings said why
        return 1 if stop.code else 0
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(run())
