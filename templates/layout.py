"""The shell around every page, and pieces that are drawn once and filled often. No decisions."""

import re
from functools import lru_cache
from html import escape
from pathlib import Path
from zlib import crc32

from fasthtml.common import *

STATIC = Path(__file__).parent / "static"
HTMX_CONFIG = (
    # What a refusal needs: htmx leaves 4xx answers undrawn unless told otherwise.
    '{"responseHandling":[{"code":"204","swap":false},{"code":"[23]..","swap":true},'
    '{"code":"4(0[0134569]|10|13|22|29)","swap":true},{"code":"503","swap":true},'
    '{"code":"[45]..","swap":false,"error":true}],'
    # What a strict CSP and a shared computer need: no eval, no styles, no page kept in the browser.
    '"allowEval":false,"allowScriptTags":false,"includeIndicatorStyles":false,'
    '"historyCacheSize":0,"selfRequestsOnly":true,"refreshOnHistoryMiss":true,'
    # A server that hangs is told apart from one that thinks, and the button comes back.
    '"timeout":30000}'
)

_MARKUP = re.compile("[&<>\"']")


class Still:
    """A piece of HTML drawn once, with gaps written ⟦like_this⟧.

    Building FastTags costs 12 µs an element, so what hardly changes is not built for each request.
    Values are escaped, unless they are Safe: then they are HTML that was drawn here.
    """

    def __init__(self, *content):
        self._parts = re.split(r"⟦(\w+)⟧", to_xml(content, indent=False))

    def __call__(self, **values):
        parts = list(self._parts)
        parts[1::2] = [draw(values[name]) for name in parts[1::2]]
        return Safe("".join(parts))


def draw(value):
    """HTML of a text (escaped), of what is HTML already, or of FastTags."""
    if isinstance(value, Safe):
        return value
    if isinstance(value, str):
        return (
            escape(value) if _MARKUP.search(value) else value
        )  # five passes, and hardly ever a need
    return to_xml(value, indent=False)


def asset(name):
    """The URL of a file in static/; changes with its content, so that browsers may keep it for ever."""
    return f"/static/{name}?v={crc32((STATIC / name).read_bytes()):08x}"


def assets():
    """Every asset's URL, for whoever decides what browsers may keep."""
    return [asset(path.name) for path in STATIC.iterdir() if path.is_file()]


def mark():
    """The door, ajar."""
    path = (
        "M3 20h2V5a3 3 0 0 1 3-3h8a3 3 0 0 1 3 3v15h2a1 1 0 0 1 0 2H3a1 1 0 0 1 0-2zm10 0h4V5a1 1 0 0"
        " 0-1-1H9.5l2.8 1.2a1.2 1.2 0 0 1 .7 1.1zm-2.7-8.4a1.15 1.15 0 1 0 0 2.3 1.15 1.15 0 0 0 0-2.3z"
    )
    return Safe(
        '<svg class="mark" viewBox="0 0 24 24" fill="currentColor" aria-hidden="true" focusable="false">'
        f'<path d="{path}"/></svg>'
    )


def head():
    """Everything between <head> and <title>; also for pages that FastHTML wraps by itself."""
    return Safe(
        to_xml(
            (
                Meta(charset="utf-8"),
                Meta(name="viewport", content="width=device-width, initial-scale=1"),
                Meta(name="color-scheme", content="light dark"),
                Meta(name="htmx-config", content=HTMX_CONFIG),
                Link(rel="icon", href=asset("favicon.svg"), type="image/svg+xml"),
                Link(rel="stylesheet", href=asset("app.css")),
                Script(src=asset("htmx.min.js"), defer=True),
                Script(src=asset("app.js"), defer=True),
            ),
            indent=False,
        )
    )


def alert(lead, rest="", kind="", focus=True):
    """A message that is read out; on a refusal the focus goes to it."""
    focused = {"tabindex": "-1", "autofocus": True} if focus else {}
    role = "status" if kind else "alert"
    return Div(Strong(lead), " ", rest, cls=f"alert {kind}".strip(), role=role, **focused)


class Layout:
    """`page` for one app's name: full documents for browsers, `fragment` for htmx."""

    def __init__(self, app_name):
        self.app_name, self._offers = app_name, ()
        brand = A(mark(), Span(app_name), cls="brand", href="/")
        offline = "We could not reach the server. Nothing is lost: try again."

        def shell(**signed_in):
            return Still(
                Html(
                    Head(head(), Title("⟦title⟧ · ", app_name)),
                    Body(
                        A("Skip to content", cls="skip", href="#main"),
                        Header(brand, "⟦menu⟧", cls="top"),
                        Main(
                            "⟦content⟧",
                            P(id="status", role="status", data_offline=offline),
                            P(id="heard", role="status", cls="vh"),
                            id="main",
                            cls="⟦width⟧",
                        ),
                        **signed_in,
                    ),
                    lang="en",
                )
            )

        self._outside, self._inside = shell(), shell(data_signed_in="yes")

    def page(self, title, *content, caller=None, width=""):
        """A whole document. `width` is door (one card), wide (tables) or '' (reading)."""
        inner = Safe("".join(map(draw, content)))
        if width == "door":
            inner = Safe(f'<section id="door" class="card">{inner}</section>')
        if not caller:
            return self._outside(title=title, menu="", content=inner, width=width)
        menu = _menu(self._part_of(caller), title)
        return self._inside(title=title, menu=menu, content=inner, width=width)

    def _part_of(self, caller):
        """What of the admins' pages is theirs."""
        if caller.is_admin:
            return ("/admin", "People"), *self._offers
        runs = caller.tenant_role == "admin"
        return ((f"/admin/organisations/{caller.tenant}", "Organisation"),) if runs else ()

    def offer(self, path, name):
        """One more entry in the menu of admins, after their list of people."""
        self._offers += ((path, name),)

    def fragment(self, title, *content):
        """What htmx draws into the page; a title in it becomes the document's."""
        head = f"<title>{escape(title)} · {escape(self.app_name)}</title>" if title else ""
        return head + "".join(map(draw, content))


@lru_cache
def _menu(more, current):
    places = [("/dashboard", "Dashboard"), *more, ("/account", "Account")]
    links = [A(name, href=path, aria_current=name == current and "page") for path, name in places]
    sign_out = Form(Button("Sign out", cls="link"), **post("/logout"))
    return Safe(to_xml(Nav(*links, sign_out, cls="menu", aria_label="Main"), indent=False))


def post(path, target="", **more):
    """The attributes of a form that works without JavaScript, and smoother with it."""
    attributes = {"method": "post", "action": path, "enctype": "application/x-www-form-urlencoded"}
    if target:
        attributes |= {
            "hx_post": path,
            "hx_target": target,
            "hx_swap": "innerHTML",
            "hx_sync": "this:drop",
        }
    return attributes | more


def searching(path, list_id, *selects):
    """The attributes of a search that works without JavaScript; with it the list follows what is typed into #q
    or chosen in one of `selects`."""
    chosen = [f"change from:{select}" for select in selects]
    return {
        "method": "get",
        "action": path,
        "enctype": None,
        "role": "search",
        "hx_get": path,
        "hx_target": f"#{list_id}",
        "hx_select": f"#{list_id}",
        "hx_swap": "outerHTML",
        "hx_trigger": ", ".join(["input changed delay:250ms from:#q", *chosen, "submit"]),
        "hx_push_url": "true",
    }


def tiles_of(shown):
    """Numbers that are looked at before all else: (how many, of what)."""
    return Div(*[Div(Strong(f"{n:,}"), Span(what), cls="tile") for n, what in shown], cls="tiles")
