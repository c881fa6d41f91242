"""Every number of signing in, with its source, and the one way to say no."""

from dataclasses import dataclass
from typing import Any

MINUTE, HOUR, DAY = 60, 3600, 86400

# How often: (how many, in how many seconds), for each window that must have room.
Windows = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Policy:
    """Every number and choice of signing in."""

    code_length: int = 6  # ASVS 6.5.3: at least 20 bits
    code_seconds: int = 15 * MINUTE
    tries_per_code: int = 5
    tries_per_challenge: int = 10  # over all codes of one challenge (SP 800-63B-4 §3.1.3)
    resend_waits: tuple[int, ...] = (60, 120)  # seconds before each resend; as many as there are
    mail_margin: int = 60  # seconds: a code with less to live is not mailed any more
    clock_skew: int = 60  # seconds a clock may have gone back
    magic_links: bool = True  # a link beside the code; where codes are off there is always one
    link_seconds: int = 15 * MINUTE
    session_idle_seconds: int = 7 * DAY
    sessions_per_person: int = 20  # the one that lay unused for longest ends
    session_max_seconds: int = 30 * DAY  # SP 800-63B-4 §2.1.3
    # Programs. The access token's life is the second wall only: each call asks for its session.
    access_seconds: int = 10 * MINUTE
    refresh_idle_seconds: int = 30 * DAY
    refresh_max_seconds: int = 90 * DAY  # from the sign-in, however often it is refreshed
    refresh_retry_seconds: int = 30  # in which a refresh whose answer was lost gets the same again
    # ASVS 7.5.1, 7.5.3: before what can't be undone, a code that was entered lately, in this session.
    confirmed_seconds: int = 15 * MINUTE
    # A change of address can be taken back from the address before it, by a link that works once.
    undo_seconds: int = 7 * DAY
    moves: Windows = ((5, HOUR), (10, DAY))  # mails that one person may ask to other addresses
    seen_every_seconds: int = 300  # how exactly "last use" is kept; a write a request is too much
    session_data_bytes: int = 4096
    device_seconds: int = 180 * DAY  # how long a browser stays known after its last sign-in
    device_overlap: int = 60  # seconds for which the cookie before this one still counts
    signup: str = "closed"  # closed: only addresses an admin added; open: all of signup_domains
    signup_domains: tuple[str, ...] = ()
    reveal_unregistered: bool = False
    # How often. A client is an IPv4 address or an IPv6 /64; its /24 or /48 has a wider share.
    starts_per_ip: Windows = ((30, 10 * MINUTE), (200, DAY))
    wrong_per_ip: Windows = ((20, 10 * MINUTE), (100, DAY))
    wide_ipv4: int = 10  # times, for a /24
    wide_ipv6: int = 5  # times, for a /48
    mails_per_address: Windows = ((1, MINUTE), (5, HOUR), (10, DAY))
    aliases: int = 5  # times, for all +tags of one mailbox together
    # SP 800-63B-4 §3.2.2: at most 100 failures an account, not reset by a new code.
    wrong_per_account: Windows = ((20, DAY), (50, 30 * DAY))
    wrong_fleet: Windows = ((100, HOUR),)  # over all accounts: one guess at each of many
    mails_fleet: Windows = ((400, DAY),)  # of the provider's quota, for browsers we don't know
    notices: Windows = ((1, DAY),)  # of each kind to one person
    # An organisation's own admins; those of the site may ask as many as they like.
    invitation_seconds: int = 7 * DAY
    open_invitations: int = 200
    invitations: Windows = ((200, DAY),)


class Refused(Exception):
    """The one way to say no. `reason` is a key of the words and of the statuses; `facts` fill them."""

    def __init__(self, reason: str, **facts: Any):
        super().__init__(reason)
        self.reason, self.facts = reason, facts
