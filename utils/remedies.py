"""What an operator reads when mail does not leave: why, and what to do. Sends nothing itself."""

from urllib.parse import urlsplit

from utils.replies import Fault
from utils.settings import Settings

HTTPS = "send over HTTPS: MAIL_BACKEND=resend with RESEND_API_KEY"
BLOCKED = (
    "nothing answers at {host}:{port}; many hosts let no mail out, Railway's Free, Trial and Hobby plans"
    " among them",
    f"{HTTPS}; or take a plan that lets SMTP out; or a port like 2525 or 2587, if your provider has one",
)
PORTS = "587 goes with SMTP_SECURITY=starttls, 465 with tls"
FOR_APPS = (
    "make an app password (Google account, Security, 2-Step Verification first, then App passwords) and"
    " write its 16 letters as SMTP_PASSWORD; SMTP_USER is the full address. In a Workspace the"
    " administrator may have switched app passwords off"
)

# cause → (why, what to do). A second word says for whom: "resend" or "gmail" instead of any SMTP server.
WORDS = {
    "dns": ("there is no host {host}, or DNS does not answer here", "mend {setting}"),
    "silent at connect": BLOCKED,
    "no way": BLOCKED,
    "silent at connect resend": (
        "nothing answers at {host}:{port}",
        "see that this machine may talk HTTPS to the outside",
    ),
    "no way resend": ("there is no way to {host}", "see that this machine has a network and DNS"),
    "refused": ("nobody listens at {host}:{port}", f"mend SMTP_HOST or SMTP_PORT: {PORTS}"),
    "refused resend": ("nobody listens at {host}:{port}", "mend RESEND_API_URL"),
    "silent at banner": (
        "{host}:{port} lets us in and does not greet; a port for TLS waits for us to begin it",
        f"mend SMTP_PORT or SMTP_SECURITY: {PORTS}",
    ),
    "silent": ("{host} stopped answering", "try again; if it stays so, ask the provider"),
    "closed": (
        "{host} hung up",
        "try again; if it stays so, the provider may not like this machine's address, or the port is"
        f" another service's: {PORTS}",
    ),
    "closed resend": ("{host} hung up", "try again; if it stays so, look at its status page"),
    "certificate expired": (
        "the certificate of {host} is expired",
        "renew it, if the server is yours; else see that this machine's clock is right",
    ),
    "certificate not valid yet": (
        "the certificate of {host} is not valid yet",
        "see that this machine's clock is right",
    ),
    "certificate of another name": (
        "the certificate is not one for {host}",
        "write the name that is in the certificate as {setting}; no address, no alias",
    ),
    "certificate not trusted": (
        "nobody whom this machine trusts has signed the certificate of {host}",
        "see that the machine's CA certificates are there, and that no proxy or virus scanner sits in"
        " between; a server of your own needs a certificate from a public authority",
    ),
    "not tls": ("port {port} of {host} does not begin with TLS", f"mend SMTP_SECURITY: {PORTS}"),
    "not tls resend": ("{host}:{port} does not speak TLS", "mend RESEND_API_URL"),
    "old tls": ("{host} has no TLS 1.2 or newer", "update that server, or take another provider"),
    "tls": ("TLS with {host} failed", f"see that nothing sits in between; {PORTS}"),
    "tls resend": ("TLS with {host} failed", "see that nothing sits in between"),
    "no tls": (
        "{host}:{port} offers no STARTTLS, or somebody on the way took it out; nothing was sent",
        f"take the port for TLS: {PORTS}",
    ),
    "no auth": (
        "{host}:{port} takes no user and password here",
        "take the provider's port for sending, as a rule 587; or leave SMTP_USER and SMTP_PASSWORD empty",
    ),
    "garbled": ("what answers at {host}:{port} is another service", "mend {setting}"),
    "password": (
        "{host} does not take this user and password",
        "write SMTP_USER and SMTP_PASSWORD anew, as the provider shows them; often the password is a key"
        " of its own",
    ),
    "password gmail": ("Google does not take this user and password", FOR_APPS),
    "app password": ("{host} wants a password made for apps", FOR_APPS),
    "app password gmail": ("Google takes no account password here", FOR_APPS),
    "login wanted": (
        "{host} wants a log-in or TLS first",
        "write SMTP_USER and SMTP_PASSWORD, and leave SMTP_SECURITY empty",
    ),
    "unclear": (
        "{host} refuses this recipient: there is no such mailbox, or it does not send for us",
        "try another recipient; if all are refused, log in (SMTP_USER, SMTP_PASSWORD), or ask the provider",
    ),
    "quota": (
        "the provider's quota is used up",
        "wait until it begins anew, mostly within a day, or take a bigger plan",
    ),
    "quota gmail": (
        "Google's quota is used up: about 500 mails in 24 hours, 2,000 with Workspace",
        "wait until some of those 24 hours are over, or take a provider for transactional mail",
    ),
    "busy": (
        "the provider takes nothing at the moment",
        "wait some minutes; if it comes often, write a MAIL_RATE such as 1",
    ),
    "sender": (
        "the provider does not send for MAIL_FROM",
        "write an address as MAIL_FROM that the account owns and that the provider has verified",
    ),
    "policy": (
        "the provider refuses such mails",
        "its own log has the reason; often the sender's domain is not verified, or has no SPF or DKIM",
    ),
    "recipient": ("the provider says that there is no such mailbox", "mend the address"),
    "later": ("the server does not take this mail now", "try again in some minutes"),
    "unwritten": ("the mail can't be written", "mend MAIL_FROM, MAIL_FROM_NAME or MAIL_REPLY_TO"),
    "key": (
        "Resend does not take the key",
        "make a new one at resend.com/api-keys: RESEND_API_KEY",
    ),
    "domain": (
        "Resend does not send for the domain of MAIL_FROM, or only to yourself",
        "add that domain at resend.com/domains and set the DNS records that it shows",
    ),
    "not the api": ("what answers at {host} is not Resend's API", "mend RESEND_API_URL"),
    "no terminal": (
        "the terminal takes no text",
        "start it where its output goes somewhere, in UTF-8",
    ),
}


def explain(fault: Fault, s: Settings) -> tuple[str, str]:
    """(why, what to do), each half a sentence."""
    if s.mail_backend == "resend":
        url, whom, setting = urlsplit(s.resend_api_url), "resend", "RESEND_API_URL"
        host, port = url.hostname, url.port or (443 if url.scheme == "https" else 80)
    else:
        whom = "gmail" if _is_google(s.smtp_host) else "smtp"
        host, port, setting = s.smtp_host, s.smtp_port, "SMTP_HOST"
    words = WORDS.get(f"{fault.cause} {whom}") or WORDS.get(fault.cause)
    why, do = words or ("the provider did not take it", "its own log has the reason")
    known = {"host": host, "port": port, "setting": setting}
    return why.format(**known), do.format(**known)


def reminders(s: Settings) -> list[tuple[str, str]]:
    """(setting, remark): what no server tells us and what yet decides whether mail arrives."""
    found = []
    domain = (s.mail_from or "").rpartition("@")[2].lower()
    if s.mail_backend == "none":
        return [("MAIL_BACKEND", "none sends nothing, so nobody gets a code")]
    if s.mail_backend not in ("smtp", "resend"):
        return []
    google = s.mail_backend == "smtp" and _is_google(s.smtp_host)
    if domain in ("gmail.com", "googlemail.com"):
        if not google:
            remark = "is Google's, and sent by others it is refused or spam; write an address of your own domain"
            found.append(("MAIL_FROM", remark))
    else:
        remark = f"see that the DNS of {domain} has SPF, DKIM and DMARC, or mails go to spam (docs/mail.md)"
        found.append(("MAIL_FROM", remark))
    if google and s.smtp_user and s.mail_from != s.smtp_user:
        remark = "Google writes SMTP_USER in its place, unless it is an alias that the account has verified"
        found.append(("MAIL_FROM", remark))
    if google and s.smtp_password and len(s.smtp_password) != 16:
        found.append(("SMTP_PASSWORD", "does not look like an app password, which has 16 letters"))
    if s.mail_backend == "smtp" and (s.smtp_port, s.smtp_security) in (
        (465, "starttls"),
        (587, "tls"),
    ):
        found.append(("SMTP_SECURITY", f"is unusual for this port: {PORTS}"))
    return found


def _is_google(host: str) -> bool:
    return host.lower().endswith(("gmail.com", "googlemail.com", "google.com"))
