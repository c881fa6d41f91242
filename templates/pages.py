"""The pages of signing in, and the few that every app has. Data in, HTML out."""

from datetime import UTC, datetime
from urllib.parse import urlencode

from fasthtml.common import *

from templates.layout import Still, alert, draw, post
from templates.words import PROBLEMS, duration, plural, refusal, written, zone_of

NOTHING = Safe("")


def refused_alert(refused):
    return alert(*refusal(refused.reason, refused.facts)) if refused else NOTHING


# ---- asking for a code
_LOGIN = Still(
    H1("Sign in"),
    P("Enter your email address, and we send you a code to type here.", cls="soft"),
    "⟦note⟧",
    Div("⟦alert⟧", id="signin-error", aria_live="polite"),
    Form(
        Input(type="hidden", name="next", value="⟦next_path⟧"),
        Label("Email address", _for="email"),
        Safe(
            '<input id="email" name="email" type="email" required autocomplete="email" inputmode="email"'
            ' autocapitalize="off" autocorrect="off" spellcheck="false" enterkeyhint="next"'
            ' aria-describedby="signin-error" value="⟦address⟧"⟦state⟧>'
        ),
        Button("Email me a code", id="submit-btn"),
        # The server's words are better than the browser's bubble, which nobody translated.
        **post(
            "/create_code", "#door", id="login_form", novalidate=True, hx_disabled_elt="#submit-btn"
        ),
    ),
    Div(Span(id="code-error"), id="code_form", hidden=True),
)


def login(next_path, address="", refused=None, note="", done=""):
    """The way in. After a refusal the focus is on what is wrong, and what was typed is still there."""
    state = Safe(' aria-invalid="true"' if refused else " autofocus")
    shown = (
        alert("Your account is deleted.", kind="ok", focus=False) if done == "deleted" else NOTHING,
        P(note, cls="alert note") if note else NOTHING,
    )
    return _LOGIN(
        note=Safe("".join(map(draw, shown))),
        alert=refused_alert(refused),
        next_path=next_path,
        address=address[:320],
        state=state,
    )


# ---- entering the code
_FIELD = (
    '<input id="code" name="code" type="text" dir="ltr" autocomplete="one-time-code"'
    ' autocorrect="off" spellcheck="false" enterkeyhint="go" aria-describedby="sent code-error"'
)
_DIGITS = Still(
    Label("⟦digits⟧-digit code", _for="code"),
    Safe(
        f'{_FIELD} class="code" inputmode="numeric" autocapitalize="off" data-paste-submit'
        ' data-digits="⟦digits⟧"⟦state⟧>'
    ),
)
_LETTERS = Still(
    Label("What the link shows, ⟦digits⟧ letters and digits", _for="code"),
    Safe(f'{_FIELD} class="code long" inputmode="text" autocapitalize="characters"⟦state⟧>'),
)
_SENT = Still(
    "We have sent a ⟦digits⟧-digit code to ",
    Strong(Bdi("⟦address⟧")),
    "⟦unless⟧. It works for ⟦valid_for⟧, once, and in this browser only.",
)
_SENT_LINK = Still(
    "We have sent a link to ",
    Strong(Bdi("⟦address⟧")),
    "⟦unless⟧. Open it in this browser. On another device it shows ⟦digits⟧ letters and digits:"
    " enter them here. It works for ⟦valid_for⟧, once.",
)
_OWED = Still(
    "We sent an email to ",
    Strong(Bdi("⟦address⟧")),
    " a moment ago. The next one, with a new code, can leave soon: ask for it below.",
)
_CODE = Still(
    H1("⟦title⟧"),
    P("⟦sent⟧", id="sent", cls="soft"),
    Div("⟦alert⟧", id="code-error", aria_live="polite"),
    Form(
        Input(type="hidden", name="timezone", value=""),
        "⟦field⟧",
        Button("Sign in", id="verify-btn"),
        **post(
            "/verify_code", "#door", id="code_form", novalidate=True, hx_disabled_elt="#verify-btn"
        ),
    ),
    # When the link is used in another tab, this one moves on: app.js hears of it and asks.
    Div(
        id="moved",
        hx_get="⟦moved⟧",
        hx_trigger="signed-in from:body, visibilitychange from:document",
        hx_swap="none",
    ),
    Div(
        "⟦again⟧",
        P(A("Use another address", href="⟦login⟧", cls="quiet")),
        Details(
            Summary("Nothing arrived?"),
            Ul(
                Li("Look into the spam folder, and search for ", Q("⟦app_name⟧"), "."),
                Li("Check the address above. It has to be the one that is registered here."),
                Li("Some mail servers let a new sender wait for a few minutes."),
                Li(
                    "We send only so many emails to one address. The link in the newest one that you"
                    " have works here, too, for as long as that email says."
                ),
            ),
        ),
        cls="roads",
    ),
)
LOOK_SECONDS = 20  # then the page asks whether mail is slow
_SLOW = Safe(
    '<p class="soft" role="status">Email is slow right now. We keep trying: leave this page open.</p>'
)
_AGAIN = Still(
    Div(
        P("Sent ⟦sent⟧.", cls="soft"),
        "⟦note⟧",
        "⟦inside⟧",
        id="again",
        hx_get="/resend_code",
        hx_trigger="load delay:⟦delay⟧s",
        hx_swap="outerHTML",
    )
)
_SEND_AGAIN = Safe(
    to_xml(
        Form(Button("Send the email again", cls="quiet"), **post("/resend_code", "#door")),
        indent=False,
    )
)
_WAIT = Still(P("You can ask for the email again in ⟦wait⟧.", cls="soft"), Noscript(_SEND_AGAIN))


def code(pending, refused=None, notice="", app_name="", note=""):
    """The one field for the code, and the two side roads: send again, another address."""
    message = refused_alert(refused)
    if notice == "resent":
        message = alert(
            "We have sent the email again.", "Use the newest one.", kind="ok", focus=False
        )
    if note and not refused:
        message = alert(note, kind="note", focus=False)
    digits, wanted = str(pending.code_length), urlencode({"next": pending.next_path})
    field, sent = (_LETTERS, _SENT_LINK) if pending.link_only else (_DIGITS, _SENT)
    if pending.owed:
        sent = _OWED
    return _CODE(
        title="Open the link that we sent" if pending.link_only else "Enter your code",
        login=f"/login?{wanted}",
        moved=f"/verify_code?{wanted}",
        sent=sent(
            digits=digits,
            address=pending.address,
            unless="" if pending.sure else ", if it is registered here",
            valid_for=duration(pending.code_seconds),
        ),
        alert=message,
        field=field(digits=digits, state=Safe(' aria-invalid="true"' if refused else " autofocus")),
        again=again(pending, None),
        app_name=app_name,
    )


def again(pending, slow=False):
    """The road back to the mailbox: a wait, a button, or what to do when neither is left.

    `slow`: is any mail late? None when nobody has looked yet; then the page asks in a while.
    """
    if pending is None:
        return P("The code has run out. ", A("Start again", href="/login"), id="again")
    delay = pending.expires_in
    if pending.resend_in is None:
        inside = P("Still nothing? ", A("Start again", href="/login"), cls="soft")
    elif pending.resend_in:
        inside, delay = _WAIT(wait=duration(pending.resend_in)), min(delay, pending.resend_in)
    else:
        inside = _SEND_AGAIN
    if slow is not False:
        delay = min(delay, LOOK_SECONDS)
    if pending.sent_ago < 60:  # "a moment ago" is not for long
        delay = min(delay, 60 - pending.sent_ago)
    note = _SLOW if slow else NOTHING
    sent = ago(pending.sent_ago)
    return _AGAIN(sent=sent, note=note, inside=inside, delay=str(max(1, delay)))


def code_over(address, next_path, refused, title="Enter your code"):
    """When no code will work here any more: why, and one button that starts again."""
    login = f"/login?{urlencode({'next': next_path})}" if next_path else "/login"
    road = A("Sign in", href=login, cls="button")
    if address:
        road = Form(
            Input(type="hidden", name="email", value=address),
            Input(type="hidden", name="next", value=next_path),
            Button("Send a new code", id="submit-btn"),
            **post("/create_code", "#door", hx_disabled_elt="#submit-btn"),
        )
    return (
        H1(title),
        Div(refused_alert(refused), id="code-error"),
        road,
        Div(P(A("Use another address", href=login, cls="quiet")), cls="roads")
        if address
        else NOTHING,
    )


# ---- the mailed link
def paste_hint():
    """For browsers without scripts: app.js fills the field, and hides both."""
    return P("Copy the whole link out of the email and paste it here.", id="paste", cls="hint")


_LINK = Still(
    H1("⟦title⟧"),
    P("⟦what⟧", id="what", cls="soft"),
    Div("⟦alert⟧", id="code-error", aria_live="polite"),
    Form(
        Input(type="hidden", name="timezone", value=""),
        # The secret is behind the #, where no server, log or Referer sees it; app.js moves it here.
        Div(
            Label("The link from the email", _for="token"),
            Safe(
                '<input id="token" name="token" type="text" dir="ltr" autocomplete="off"'
                ' autocapitalize="off" autocorrect="off" spellcheck="false"'
                ' aria-describedby="what paste code-error" data-fragment>'
            ),
            paste_hint(),
        ),
        Button("⟦button⟧", id="link-btn"),
        **post("/link", "#door", id="link_form", novalidate=True, hx_disabled_elt="#link-btn"),
    ),
    Div(P(A("Ask for a new email", href="/login", cls="quiet")), cls="roads"),
)


def link(address, caller, refused=None):
    """Where a mailed link leads: what the button will do. `address` is masked; None elsewhere."""
    if address:
        title, button = "Sign in", "Sign in"
        what = ("The button signs you in as ", Strong(Bdi(address)), ", in this browser.")
        if caller:
            what += (
                " You are signed in here as ",
                Strong(Bdi(caller.address)),
                "; that ends then.",
            )
    else:
        title, button = "One more step", "Show me what to type"
        what = (
            "This browser did not ask for the link, so it signs nobody in here. The button shows what"
            " to type in the browser or app that did ask."
        )
    return _LINK(title=title, what=what, button=button, alert=refused_alert(refused))


def elsewhere(found):
    """A good link in another browser: what to type in the first one, or how to begin here."""
    place, there = ("app", "app") if found.app else ("browser", "other browser")
    again = P(A("Sign in here instead", href="/login", cls="quiet"))
    if found.code is None:
        return (
            H1("Ask for a new email"),
            P("That sign-in of ", Strong(Bdi(found.address)), f" waits in no {place} any more."),
            P(A("Sign in here", href="/login", cls="button")),
        )
    return (
        H1(f"Type this in the {there}"),
        P(
            f"In the {place} in which you asked to sign in as ",
            Strong(Bdi(found.address)),
            ", enter:",
        ),
        P(found.code, cls="shown", dir="ltr", translate="no"),
        Button(
            "Copy",
            type="button",
            cls="plain",
            hidden=True,
            data_copy=found.code,
            data_copied="Copied",
        ),
        P(f"It works once, for {duration(max(60, found.code_seconds // 60 * 60))}.", cls="soft"),
        P("Does somebody else ask you for it? Tell nobody, and close this page.", cls="soft"),
        Div(again, cls="roads"),
    )


# ---- inside
_DASHBOARD = Still(
    H1("Dashboard"),
    P("You are signed in as ", Strong(Bdi("⟦address⟧")), "."),
    Dl(
        Dt("Role"),
        Dd("⟦role⟧"),
        Dt("Organisation"),
        Dd("⟦tenant⟧"),
        Dt("Last sign-in"),
        Dd("⟦signed_in⟧"),
        cls="facts card",
    ),
    "⟦admin⟧",
    Form(
        Button("Sign out everywhere", cls="plain"),
        P("Ends your sessions in all browsers, this one too.", cls="hint"),
        **post("/logout_everywhere"),
    ),
)
_ADMIN_ROAD = Safe(to_xml(P(A("Admin pages", href="/admin", cls="button")), indent=False))


def dashboard(caller):
    """Where people arrive: who they are here, and where they may go."""
    return _DASHBOARD(
        address=caller.address,
        role=caller.role,
        tenant=caller.tenant_name or "none",
        signed_in=moment(caller.user.signed_in_at, caller.timezone),
        admin=_ADMIN_ROAD if caller.is_admin else NOTHING,
    )


def home(caller, app_name):
    """The front page; yours to replace."""
    road = ("/dashboard", "Go to your dashboard") if caller else ("/login", "Sign in")
    return (
        H1(f"Welcome to {app_name}"),
        P(
            "Sign in with a code that we send to your email address. There is no password to remember."
        ),
        P(A(road[1], href=road[0], cls="button")),
    )


def no_access():
    return (
        H1("No access"),
        P("You do not have permission to open this page."),
        P("If you need it, ask an admin to give you the right role.", cls="soft"),
        P(A("Go to your dashboard", href="/dashboard", cls="button")),
    )


def problem(what, request_id=""):
    """Any error: what it means for the person, and the way on."""
    lead, rest = words_of(what)
    number = P("If you ask for help, mention ", Code(request_id), ".", cls="hint")
    return (
        H1(lead),
        P(rest),
        number if request_id and what in (500, 503) else NOTHING,
        P(A("Go to the front page", href="/", cls="button")),
    )


def sorry(what):
    """The same for htmx, which draws it into the page that is there."""
    lead, rest = words_of(what)
    return alert(f"{lead}.", rest)


def words_of(what):
    client_fault = isinstance(what, int) and 400 <= what < 500
    return PROBLEMS.get(what, PROBLEMS[400 if client_fault else 500])


# ---- times
def ago(seconds):
    """How long it is since, in words that stay true while the page is open. No clock time: whoever asks
    is not signed in, and has told no time zone yet."""
    return f"more than {duration(seconds // 60 * 60)} ago" if seconds >= 60 else "a moment ago"


def moment(at, zone, named=True):
    """Epoch seconds as a <time> in the person's zone, which it names unless the page does."""
    if at is None:
        return "never"
    utc = datetime.fromtimestamp(at, UTC)
    return Safe(
        f'<time datetime="{utc:%Y-%m-%dT%H:%M:%SZ}">{draw(written(at, zone, named))}</time>'
    )


__all__ = ["plural", "zone_of"]
