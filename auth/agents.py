"""Which kind of device a User-Agent speaks of, in a few words of our own. Pure.

The header is whatever its sender likes, and a mail says what came out. So no part of it is passed on:
the answer is one of LABELS, or "" for what we do not know. A hint for people and no proof of anything.
"""

MAX_AGENT = 400  # characters that are looked at

# The first that fits: Edge and Opera also say Chrome, and Chrome says Safari.
_BROWSERS = (
    (("Edg/", "EdgA/", "EdgiOS/", "Edge/"), "Edge"),
    (("OPR/", "OPT/", "OPiOS/", "Opera"), "Opera"),
    (("SamsungBrowser/",), "Samsung Internet"),
    (("Firefox/", "FxiOS/"), "Firefox"),
    (("Chrome/", "CriOS/", "Chromium/"), "Chrome"),
    (("Safari/",), "Safari"),
)
# An iPhone also says "like Mac OS X", Android and ChromeOS say Linux or X11.
_SYSTEMS = (
    (("iPhone", "iPod"), "iPhone"),
    (("iPad",), "iPad"),
    (("Android",), "Android"),
    (("CrOS",), "ChromeOS"),
    (("Windows",), "Windows"),
    (("Macintosh", "Mac OS X"), "macOS"),
    (("Linux", "X11"), "Linux"),
)
_SOME = "a browser"
AN_APP = "an app"  # for a program that says nothing we know

LABELS = frozenset(
    f"{browser} on {system}" if system else browser
    for browser in (_SOME, *(name for _, name in _BROWSERS))
    for system in ("", *(name for _, name in _SYSTEMS))
) - {_SOME} | {AN_APP}


def kind_of(agent: str) -> str:
    """ "Chrome on Windows", "Firefox", "a browser on Linux", or "" for an unknown device."""
    agent = agent[:MAX_AGENT]
    browser, system = _first(_BROWSERS, agent), _first(_SYSTEMS, agent)
    if system:
        return f"{browser or _SOME} on {system}"
    return browser


def _first(kinds: tuple[tuple[tuple[str, ...], str], ...], agent: str) -> str:
    for marks, name in kinds:
        for mark in marks:
            if mark in agent:
                return name
    return ""
