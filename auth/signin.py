"""THE RULES of signing in. All numbers are in Policy, every "no" is Refused. No HTTP, HTML or SQL.

A challenge is one attempt from one browser. Its code is derived when it is mailed and when it is
compared, and is stored nowhere. A guess is counted before it is compared; a code opens one session,
once, in the browser that asked.

    asking.py     a new challenge, and its mail once more     mailing.py   what is mailed, until when
    codes.py      entering a code                             links.py     opening a link
    apps.py       the same for programs, and their tokens     leaving.py   the session ends
    arriving.py   the challenge becomes a session             oneself.py   one's own account
    validity.py   what a challenge is worth at this moment    desk.py      what all of these share
    moving.py     to another address, and back
"""

from auth.apps import Apps
from auth.asking import Asking
from auth.oneself import Oneself


class SignIn(Asking, Apps, Oneself):
    """The rules in one piece; Desk says what they need."""
