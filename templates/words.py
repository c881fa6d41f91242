"""Every refusal in one sentence: what happened, and what to do next. The keys are auth's reasons."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

REFUSALS = {
    "email_missing": ("Enter your email address.", ""),
    "email_invalid": ("We can’t send mail to that.", "Enter one like name@example.com."),
    "not_registered": (
        "{address} is not registered here.",
        "Check it, or ask an admin to add you.",
    ),
    "code_missing": ("Enter the {length}-digit code from the email.", ""),
    "code_malformed": ("The code has only digits.", "Enter the {length} digits from the email."),
    "code_length": ("The code has {length} digits.", "You entered {typed}."),
    "code_wrong": (
        "That code is not right.",
        "Check the newest email. You have {tries_left} left.",
    ),
    "code_wrong_last": (
        "That code is not right, and it was the last try.",
        "Ask for a new code.",
    ),
    "code_expired": ("That code has run out.", "Ask for a new code."),
    "code_used": ("That code was used already.", "Ask for a new code."),
    "code_exhausted": ("There were too many wrong codes.", "Ask for a new code."),
    "code_off": (
        "Codes of {length} digits are switched off for this address for now.",
        "There were too many wrong ones. Use the link in the email.",
    ),
    "long_code_malformed": (
        "That is not what the link shows.",
        "Enter the {length} letters and digits from the page that the link opens.",
    ),
    "link_missing": (
        "Open the link in the email once more.",
        "Or paste it into the field below.",
    ),
    "link_wrong": (
        "That link does not work.",
        "It may have been cut off. Copy all of it, or ask for a new one.",
    ),
    "link_expired": ("That link has run out.", "Ask for a new one."),
    "link_used": ("That link was used already.", "Ask for a new one."),
    "too_many_starts": (
        "There were many sign-ins from your network.",
        "Try again in {retry_after}.",
    ),
    "too_many_wrong": (
        "There were many wrong codes from your network.",
        "Try again in {retry_after}. Your code stays as it is.",
    ),
    "no_signin": (
        "No sign-in was started here.",
        "A code works only where it was asked for.",
    ),
    "resend_wait": ("Give the email a little time.", "You can ask for it again in {retry_after}."),
    "resend_spent": (
        "We have sent the code as often as we can.",
        "Use another address, or start again.",
    ),
    # What programs are told in their answers: for developers, and for a person who sees it.
    "token_invalid": (
        "This token does not count, or not any more.",
        "Refresh it, or sign in again.",
    ),
    "token_reused": ("This token was used before.", "Its session has ended. Sign in again."),
    "tenant_unknown": ("There is no such organisation here.", "Choose one that you are in."),
    "name_invalid": (
        "That name is too long, or holds a character that can't be shown.",
        "Use at most {most}.",
    ),
    "zone_unknown": ("There is no such time zone.", "Choose one from the list."),
    "session_unknown": ("That sign-in has ended already.", "Nothing was changed."),
    "user_exists": ("{address} is there already.", "Search for it in the list."),
    "user_unknown": ("There is no such person here.", "Nothing was changed."),
    "not_listed": (
        "{address} is not in the list of people.",
        "Add them under People first, or invite them.",
    ),
    "role_unknown": ("There is no such role.", "Choose one of those that there are."),
    "role_invalid": (
        "That can't be the name of a role.",
        "Use small letters, digits, - and _, such as editor.",
    ),
    "role_used": ("That role is still in use.", "Give who has it another one first."),
    "role_self": ("You can't change your own role.", "Ask another admin to do it."),
    "disable_self": ("You can't disable yourself.", "Ask another admin to do it."),
    "delete_self": ("You can't delete yourself.", "Ask another admin to do it."),
    "not_admin": ("You are not an admin any more.", "Nothing was changed."),
    "last_tenant_admin": (
        "That is the last admin of the organisation.",
        "Make somebody else its admin first.",
    ),
    "invitation_unknown": (
        "There is no such invitation for you.",
        "Sign in with the address that it was mailed to.",
    ),
    "invitation_over": (
        "That invitation does not count any more.",
        "It was used, taken back, or has run out. A new one can be sent.",
    ),
    "invitations_full": (
        "There are many open invitations already.",
        "Take some back, or wait until they are accepted.",
    ),
    "member_already": (
        "{address} is in it already.",
        "Nothing was changed. Their role is changed on their own page in the list.",
    ),
    "too_many_invitations": (
        "There were many invitations today.",
        "Try again in {retry_after}.",
    ),
    "import_empty": ("There is no address in that list.", "Paste one a line, or choose a file."),
    "import_long": (
        "That is too much at once.",
        "Send at most {rows:,} rows and 1 MB, and the rest afterwards.",
    ),
    "review_rights": (
        "Whoever tests an app may have no rights here.",
        "Use another address, or take role and memberships away first.",
    ),
    "review_network": (
        "That is no network of theirs.",
        "Write one such as 192.0.2.0/24; of IPv6 at most a /64.",
    ),
    "review_days": ("That is too long, or no time at all.", "Use 1 to {most_days} days."),
    "last_admin": ("That is the last active admin.", "Make somebody else an admin first."),
    "move_domain": ("Only addresses of {domains} can be used here.", "Enter one of these."),
    "move_same": ("That is your address already.", "Enter the one that you want instead."),
    "move_over": (
        "No change of your address is under way here.",
        "Enter the new address once more.",
    ),
    "move_code_long": (
        "Codes of a few digits are switched off for this address for now.",
        "Enter the {length} letters and digits of the newest email, or ask for a new one.",
    ),
    "address_taken": (
        "Meanwhile somebody else has {address}.",
        "Nothing was changed. Use another address.",
    ),
    "too_many_moves": (
        "You have asked for many emails to other addresses.",
        "Try again in {retry_after}.",
    ),
    "undo_wrong": (
        "That link does not work.",
        "It may have been cut off, or the account is gone. Copy all of it and try again.",
    ),
    "undo_over": (
        "That link was used already, or has run out.",
        "Nothing was changed now. If that was not you, ask an admin for help.",
    ),
    "undo_taken": (
        "Meanwhile the address belongs to another account here.",
        "Nothing was changed. Ask an admin for help.",
    ),
}

DONE = {
    "added": "{address} can sign in now. They get no mail about it: tell them.",
    "role": "{address} has a new role. It counts from their next click.",
    "disabled": "{address} is disabled and signed out everywhere.",
    "enabled": "{address} can sign in again.",
    "deleted": "That person is deleted.",
}

# What the list of people is narrowed to, and in which order it comes.
PEOPLE_STATES = {
    "": "Any state",
    "active": "Active",
    "invited": "Never signed in",
    "disabled": "Disabled",
}
PEOPLE_SEEN = {"": "Seen at any time", "week": "Signed in this week"}
PEOPLE_SORTS = {
    "address": "By address",
    "-address": "By address, from the end",
    "name": "By name",
    "-name": "By name, from the end",
    "role": "By role",
    "-role": "By role, from the end",
    "-seen": "By last sign-in, the newest first",
    "seen": "By last sign-in, the oldest first",
    "-added": "The newest people first",
    "added": "The oldest people first",
}

PERSON_DONE = {
    "ended": "That sign-in has ended.",
    "signed_out": "{address} is signed out everywhere.",
}

ROLE_DONE = {"saved": "The role is saved.", "deleted": "The role is deleted."}

TENANT_DONE = {
    "made": "The organisation is there.",
    "renamed": "It has its new name.",
    "joined": "They are in, from their next click.",
    "role": "They have another role here. It counts from their next click.",
    "left": "They are out, from their next click.",
    "deleted": "The organisation is deleted.",
}

ACCOUNT_DONE = {
    "saved": "Your name and time zone are saved.",
    "ended": "That sign-in has ended.",
    "others": "All your other sign-ins have ended.",
    "tenant": "It counts from now on.",
    "left": "You are not in that organisation any more.",
    "moved": "That is your address now. Everywhere else you are signed out.",
}

# What the record of events calls what happened.
EVENTS = {
    "authn_code_requested": "Asked for a code",
    "authn_login_success": "Signed in",
    "authn_login_fail": "Wrong code",
    "authn_login_fail_max": "Wrong code, the last try",
    "authn_token_reuse": "App signed out: old key used twice",
    "authn_device_ended": "Browser forgotten: old key shown",
    "authn_logout": "Signed out",
    "authn_logout_others": "Ended other sign-ins",
    "excess_rate_limit_exceeded": "A limit was reached",
    "user_created": "Person added",
    "user_updated": "Name or time zone changed",
    "user_deleted": "Person deleted",
    "user_disabled": "Person disabled",
    "user_enabled": "Person enabled",
    "user_address_asked": "Asked for another address",
    "user_address_changed": "Address changed",
    "user_address_restored": "Change of address taken back",
    "user_data_exported": "Data downloaded",
    "user_review_account": "App reviewer's code made",
    "privilege_permissions_changed": "Role changed",
    "role_saved": "Role added or described",
    "role_deleted": "Role deleted",
    "tenant_created": "Organisation made",
    "tenant_renamed": "Organisation renamed",
    "tenant_deleted": "Organisation deleted",
    "member_added": "Joined an organisation",
    "member_removed": "Out of an organisation",
    "invitation_sent": "Invitation sent",
    "invitation_accepted": "Invitation accepted",
    "invitation_declined": "Invitation declined",
    "invitation_withdrawn": "Invitation taken back",
    "sys_mail_paused": "Mail paused",
    "sys_mail_resumed": "Mail resumed",
    "sys_mail_retried": "Mail tried again",
    "sys_mail_dropped": "Mail dropped",
    "sys_mail_bounced": "Address does not exist",
    "sys_events_purged": "Old entries of the record deleted",
    "sys_restored": "Backup put back",
}
# How the members of an organisation may be sorted.
SORTS = {"address": "By address", "name": "By name", "role": "By role", "since": "Newest first"}
PERIODS = {"1": "Last day", "7": "Last 7 days", "30": "Last 30 days", "all": "From the beginning"}

# What becomes of a mail: what an admin reads in a row, over the counts, and why it is so.
MAIL_STATES = {
    "queued": ("waiting", "waiting", "for a first try, or the next"),
    "sending": ("on its way", "on their way", "being handed over now"),
    "accepted": ("accepted", "accepted", "by the mail server, which says no more"),
    "expired": ("too late", "too late", "did not leave in time, and were not sent"),
    "dead": ("given up", "given up", "no such mailbox, or dropped by an admin"),
    "void": ("not needed", "not needed", "nobody to send it to, or nothing to say"),
}

MAIL_KINDS = {
    "code": "Sign-in code or link",
    "none": "Nothing to send",
    "move": "Code for a new address",
    "address_changed": "Address changed notice",
    "address_new": "New address notice",
    "new_device": "New sign-in notice",
    "device_ended": "Browser forgotten notice",
    "token_reused": "App signed out notice",
    "invitation": "Invitation",
}

# After an act of an admin: (kind of alert, what happened, what is next).
MAIL_DONE = {
    "retried": ("ok", "Done.", "That mail is tried again at once."),
    "lifted": (
        "ok",
        "Mail to this address may leave again.",
        "That mail itself is too late: ask them to ask for a new one.",
    ),
    "dropped": ("ok", "Done.", "That mail is not sent."),
    "paused": ("ok", "Done.", "What people ask for from now on waits here."),
    "resumed": ("ok", "Done.", "What has waited leaves now, if it is not too late."),
    "over": (
        "note",
        "Nothing was changed.",
        "That mail has left, is on its way at this moment, or is too late.",
    ),
}

# By status, or by a name where the status does not say enough.
PROBLEMS = {
    400: (
        "That request makes no sense to us",
        "Go back and try again. If it happens again, reload the page.",
    ),
    401: ("Sign in first", "Then open this page again."),
    403: ("You can’t open this", "If you need it, ask an admin for the right role."),
    "cross_site": (
        "That came from another site",
        "For your safety nothing was changed. Open the page here and try again.",
    ),
    404: ("There is no such page", "The address may be mistyped, or the page has moved."),
    405: ("That can't be done here", "Go back and use the buttons of the page."),
    413: ("That is too much at once", "Send less, or in several parts."),
    500: ("Something went wrong on our side", "Try again in a moment."),
    503: ("We can't answer right now", "Nothing is lost. Try again in a few seconds."),
}


_ASKED = "If this address can sign in here, an email is on its way. Its code works for {}."


def told(reason, facts):
    """What a program is told, in one text."""
    if reason == "asked":
        return _ASKED.format(duration(facts["code_seconds"]))
    return " ".join(filter(None, refusal(reason, facts)))


def refusal(reason, facts):
    """(what happened, what to do next)."""
    shown = dict(facts)
    if "tries_left" in facts:
        shown["tries_left"] = plural(facts["tries_left"], "try", "tries")
    if "retry_after" in facts:
        shown["retry_after"] = duration(facts["retry_after"])
    if "most" in facts:
        shown["most"] = plural(facts["most"], "character")
    lead, rest = REFUSALS[reason]
    return lead.format(**shown), rest.format(**shown)


def duration(seconds):
    """900 → "15 minutes", 3600 → "1 hour", 90 → "1 minute 30 seconds", 86400 → "24 hours", then days."""
    seconds = max(1, round(seconds))
    days = seconds // 86400 if seconds >= 2 * 86400 else 0
    hours, rest = divmod(seconds - days * 86400, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours or days:  # nobody counts the seconds of an hour
        seconds = 0
    if days:
        minutes = 0
    units = ((days, "day"), (hours, "hour"), (minutes, "minute"), (seconds, "second"))
    return " ".join(plural(n, unit) for n, unit in units if n)


def plural(n, one, many=""):
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def zone_of(name):
    """The time zone of this name, or UTC. str() of it is its name."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UTC


def written(at, zone, named=True):
    """Epoch seconds as "21 Nov 2026, 09:05 (Europe/Berlin)"; the zone unless the page names it."""
    zone = zone_of(zone)
    local = datetime.fromtimestamp(at, UTC).astimezone(zone)
    return f"{local.day} {local:%b %Y, %H:%M}" + (f" ({zone})" if named else "")


def clock(at, zone):
    """The time of that day, to the second: for what comes soon."""
    return f"{datetime.fromtimestamp(at, UTC).astimezone(zone_of(zone)):%H:%M:%S}"
