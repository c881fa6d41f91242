"""Every setting: its name, default, meaning and check. The only reader of the environment.

`SETTINGS` is the one table; parsing, `.env.example`, `manage.py config` and the README's table follow
it (tested). A blank value is the default. All faults are reported at once, each by name, none by value.
"""

import base64
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dotenv import dotenv_values

from utils.disks import network_disk

DOTENV = Path(".env")  # in the working directory, where `make run` and a container start
EX_CONFIG = 78  # sysexits.h: something was found in an unconfigured or misconfigured state
PLACEHOLDERS = re.compile(
    r"(change|replace).?(me|this)|placeholder|your.?(own|secret)|insecure|<.*>", re.I
)
LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}


class Bad(ValueError):
    """A value that can't be used. The message says what to write instead, and never the value."""


def text(value: str) -> str:
    if not value.isprintable():
        raise Bad("holds a control character; write plain text")
    return value


def name(value: str) -> str:
    if len(text(value)) > 100 or set(value) & set("⟦⟧"):
        raise Bad("is longer than 100 characters, or holds ⟦ or ⟧; write a shorter name")
    return value


def choice(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in words:
            raise Bad(f"is not one of {', '.join(words)}")
        return value.lower()

    return parse


def number(low: float, high: float, unit: str) -> Callable[[str], float]:
    def parse(value: str) -> float:
        # A plain decimal only: float() would also take nan, inf, 1e3 and 1_0.
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", value) or not low <= float(value) <= high:
            raise Bad(f"must be a number of {unit} from {low:g} to {high:g}")
        return float(value)

    return parse


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise Bad(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def yes_or_no(value: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "on": True}
    words |= {"false": False, "no": False, "0": False, "off": False}
    if value.lower() not in words:
        raise Bad("must be true or false")
    return words[value.lower()]


def listing(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text(value).split(",") if part.strip())


def addresses(value: str) -> tuple[str, ...]:
    return tuple(address(part) for part in listing(value))


def domains(value: str) -> tuple[str, ...]:
    found = tuple(part.lower().removeprefix("@") for part in listing(value))
    if not all(re.fullmatch(r"([a-z0-9-]{1,63}\.)+[a-z0-9-]{2,63}", part) for part in found):
        raise Bad("must be a comma list of domains such as example.org (IDN as xn--…)")
    return found


def address(value: str) -> str:
    atom, label = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+", r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
    if len(value) > 254 or not re.fullmatch(rf"{atom}(\.{atom})*@({label}\.)+{label}", value):
        raise Bad("must be an e-mail address such as login@example.org")
    return value


def origin(value: str) -> str:
    parts = urlsplit(value)
    try:
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        good = False
    if (
        not good
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise Bad("must be an origin such as https://app.example.org, without a path")
    if not re.fullmatch(r"[A-Za-z0-9.\-:\[\]]+", parts.netloc):
        raise Bad("must be an origin in ASCII (IDN as xn--…)")
    # A browser's Origin leaves the usual port out.
    usual = ":443" if parts.scheme == "https" else ":80"
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(usual)}"


def origins(value: str) -> tuple[str, ...]:
    return tuple(origin(part) for part in listing(value))


def app_link(value: str) -> str:
    parts = urlsplit(value)
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", parts.path) or parts.query or parts.fragment:
        raise Bad("must be a URL such as https://app.example.org/link, without ? and #")
    return origin(f"{parts.scheme}://{parts.netloc}") + parts.path


def database_url(value: str) -> str:
    if re.fullmatch(r"sqlite:///[^?:]+", value):
        return value
    if re.match(r"postgres(ql)?://", value) and urlsplit(value).netloc:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        try:
            conninfo_to_dict(value)
        except ProgrammingError:  # its text quotes the value
            raise Bad("is not a URL that PostgreSQL reads; percent-encode the password") from None
        return value
    raise Bad("must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")


def secret_key(value: str) -> str:
    if len(value) < 32:
        raise Bad("is shorter than 32 characters; write what `manage.py new-secret` prints")
    if PLACEHOLDERS.search(value) or len(set(value)) < 8:
        raise Bad("looks like a placeholder; write what `manage.py new-secret` prints")
    return value


def token(value: str) -> str:
    if not re.fullmatch(r"[!-~]{8,200}", value):
        raise Bad("must be a key as the provider shows it: 8 to 200 ASCII characters, no blanks")
    return value


def bearer(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]{1,200}=*", value):  # RFC 6750 §2.1
        raise Bad(
            "must be one word of letters, digits and ._~+/-, as `manage.py new-secret` prints"
        )
    return value


def limits(value: str) -> tuple[tuple[int, int], ...]:
    """`5/1h, 10/24h` → ((5, 3600), (10, 86400)), shortest window first."""
    units, found = {"s": 1, "m": 60, "h": 3600, "d": 86400}, {}
    for part in listing(value):
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,6})([smhd])", part)
        seconds = int(match[2]) * units[match[3]] if match else 0
        if not match or not int(match[1]) or not 0 < seconds <= 366 * 86400 or seconds in found:
            raise Bad("must be N/period, comma between windows, such as 5/1h, 10/24h (s, m, h, d)")
        found[seconds] = int(match[1])
    if not found:
        raise Bad("must name at least one window, such as 5/1h; a limit can't be switched off")
    return tuple((n, seconds) for seconds, n in sorted(found.items()))


def networks(value: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """CIDRs or single addresses. Never everybody: then each client could choose its address."""
    try:
        found = tuple(ip_network(part, strict=False) for part in listing(value))
    except ValueError:
        found = ()
    if not found or any(network.prefixlen < 4 for network in found):
        raise Bad(
            "must be a comma list of your proxies' networks such as 10.0.0.0/8; never * or all"
        )
    return found


def link_days(value: str) -> float:
    """Decimals: 0.0104 is 15 minutes. Over 30 is 30."""
    return min(number(0.0006, 10_000, "days")(value), 30.0)


def folder(value: str) -> Path:
    return Path(text(value)).absolute()


@dataclass(frozen=True)
class Setting:
    name: str
    default: str  # as one would write it; "" is none, or worked out in `_derive`
    parse: Callable[[str], Any]
    meaning: str
    otherwise: str = ""  # the default in words, where it depends
    secret: bool = False


SETTINGS = (
    Setting("APP_ENV", "production", choice("development", "production"), "development listens on loopback only and prints mail"),
    Setting("APP_NAME", "Vestibule", name, "in pages and mails"),
    Setting("BASE_URL", "", origin, "the origin people open: of every mailed URL and of the same-origin check; https in production", "development http://localhost:PORT; else https://RAILWAY_PUBLIC_DOMAIN"),
    Setting("HOST", "", text, "address to listen on", "development 127.0.0.1; else 0.0.0.0"),
    Setting("PORT", "5001", whole(1, 65535), "port to listen on"),
    Setting("DATA_DIR", "", folder, "where SQLite and the development key live", "RAILWAY_VOLUME_MOUNT_PATH or data"),
    Setting("DATABASE_URL", "", database_url, "sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME", "sqlite:///DATA_DIR/vestibule.db", secret=True),
    Setting("SECRET_KEY", "", secret_key, "at least 32 characters; `manage.py new-secret` prints one", "development makes and keeps one", secret=True),
    Setting("SECRET_KEY_PREVIOUS", "", secret_key, "the key before this one, while a rotation lasts", secret=True),
    Setting("MAIL_BACKEND", "", choice("console", "smtp", "resend", "none"), "console prints (development only); resend sends over HTTPS, where SMTP is blocked; none sends nothing, and the page says so", "development console; else smtp"),
    Setting("SMTP_HOST", "smtp.gmail.com", text, "mail server"),
    Setting("SMTP_PORT", "587", whole(1, 65535), "587 for starttls, 465 for tls"),
    Setting("SMTP_USER", "", text, "with Gmail the full address"),
    Setting("SMTP_PASSWORD", "", text, "with Gmail an app password", secret=True),
    Setting("SMTP_SECURITY", "", choice("starttls", "tls", "none"), "certificates are verified; none only to a loopback host", "starttls; tls on port 465"),
    Setting("RESEND_API_KEY", "", token, "with resend: a key that may send", secret=True),
    Setting("RESEND_API_URL", "https://api.resend.com", origin, "with resend: where its API is"),
    Setting("MAIL_FROM", "", address, "sender's address", "SMTP_USER"),
    Setting("MAIL_FROM_NAME", "", name, "sender's name", "APP_NAME"),
    Setting("MAIL_REPLY_TO", "", address, "where answers go"),
    Setting("MAIL_RATE", "", number(0.01, 1000, "mails a second"), "mails a second that one process sends at most, such as 1 or 0.5", "no limit"),
    Setting("MAIL_ORIGIN_BOUND", "false", yes_or_no, "the last line of a code mail's text is @host #code, for programs that read mail"),
    Setting("CODE_TTL_MINUTES", "15", number(1, 60, "minutes"), "how long a code works; decimals allowed"),
    Setting("CODE_LENGTH", "6", whole(6, 10), "digits in a code"),
    Setting("CODE_IN_SUBJECT", "false", yes_or_no, "the code in the mail's subject, too"),
    Setting("MAGIC_LINKS", "true", yes_or_no, "code mails carry a link, too; where codes are switched off after many wrong ones, mails have one in any case"),
    Setting("MAGIC_LINK_EXPIRE_DAYS", "", link_days, "how long a link works; decimals: 0.0104 is 15 minutes, at most 30", "as the code"),
    Setting("SIGNUP", "closed", choice("closed", "open"), "closed: only addresses that an admin added may sign in"),
    Setting("SIGNUP_DOMAINS", "", domains, "comma list; with open: only these domains"),
    Setting("REVEAL_UNREGISTERED", "false", yes_or_no, "tell unknown addresses that they are not registered"),
    Setting(
        "ADMIN_EMAILS",
        "",
        addresses,
        "comma list; each is an active admin after the start. An admin who changes their address leaves"
        " the one here behind: change it here, too",
    ),
    Setting("SESSION_IDLE_DAYS", "7", number(0.01, 365, "days"), "a session unused for so long ends"),
    Setting("SESSION_MAX_DAYS", "30", number(0.01, 365, "days"), "a session ends after so long in any case"),
    Setting("ACCESS_TOKEN_EXPIRE_MINUTES", "10", number(1, 60, "minutes"), "how long an access token of the JSON API counts by itself"),
    Setting("REFRESH_TOKEN_EXPIRE_DAYS", "30", number(0.01, 365, "days"), "an app unused for so long has to sign in again; in any case after three times as long"),
    Setting("APP_LINK_URL", "", app_link, "where a link leads that an app asked for: an https URL that opens the app on a phone; the token stands after the #", "BASE_URL/link"),
    Setting("CORS_ORIGINS", "", origins, "comma list of origins whose scripts may call the JSON API from a browser; never with cookies"),
    Setting("TRUSTED_PROXIES", "", networks, "comma list of networks (CIDR) whose X-Forwarded-For is believed: your own proxies"),
    Setting("LIMIT_STARTS_PER_IP", "30/10m, 200/24h", limits, "sign-ins started by one client (IPv4 address, IPv6 /64; ten times that for a /24, five times for a /48)"),
    Setting("LIMIT_MAILS_PER_ADDRESS", "1/60s, 5/1h, 10/24h", limits, "mails to one address; all +tags of a mailbox together five times that"),
    Setting("LIMIT_WRONG_PER_IP", "20/10m, 100/24h", limits, "wrong codes from one client, and its network as above"),
    Setting("LIMIT_WRONG_PER_ACCOUNT", "20/24h, 50/30d", limits, "wrong codes for one address; then its mails have a link and no code"),
    Setting("LIMIT_WRONG_FLEET", "100/1h", limits, "wrong codes for all addresses together; then the same for browsers that never signed in before"),
    Setting("LIMIT_MAILS_FLEET", "400/24h", limits, "mails to browsers that never signed in before: their share of your provider's quota"),
    Setting("LOG_LEVEL", "info", choice("debug", "info", "warning", "error"), "least level that is logged"),
    Setting("LOG_FORMAT", "text", choice("text", "json"), "text, or one JSON object a line"),
    Setting("METRICS_TOKEN", "", bearer, "bearer token for /metrics; without one there is no such page", secret=True),
)  # fmt: skip

# Set by the platform, not by the operator.
PLATFORM = ("RAILWAY_ENVIRONMENT", "RAILWAY_PUBLIC_DOMAIN", "RAILWAY_VOLUME_MOUNT_PATH")


class Settings:
    """The checked values as attributes in lower case: `settings.base_url`. Read-only."""

    def __init__(self, values: Mapping[str, Any]):
        self.__dict__.update({name.lower(): value for name, value in values.items()})

    def __getattr__(self, name: str) -> Any:  # for type checkers; only reached for unknown names
        raise AttributeError(f"no setting {name.upper()}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("settings don't change while the app runs")

    @property
    def development(self) -> bool:
        return bool(self.app_env == "development")

    @property
    def https(self) -> bool:
        return bool(self.base_url.startswith("https://"))


def read(environ: Mapping[str, str] | None = None, dotenv: Path | None = DOTENV) -> dict[str, str]:
    """What the operator wrote: real variables win over `.env`; blank means not written."""
    given = dict(os.environ if environ is None else environ)
    from_file = dotenv_values(dotenv, interpolate=False) if dotenv and dotenv.is_file() else {}
    merged = {k: v for k, v in from_file.items() if v is not None} | given
    known = [s.name for s in SETTINGS] + list(PLATFORM)
    return {name: merged[name].strip() for name in known if merged.get(name, "").strip()}


def check(written: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """Settings, and the faults by variable name. The settings are usable when there are no faults."""
    faults: dict[str, str] = {}
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        raw = written.get(setting.name, setting.default)
        try:
            values[setting.name] = setting.parse(raw) if raw else None
        except ValueError as error:
            faults[setting.name] = str(error) if isinstance(error, Bad) else "can't be read"
            values[setting.name] = setting.parse(setting.default) if setting.default else None
    _derive(values, written)
    for name, fault in _contradictions(values, written):
        faults.setdefault(name, fault)
    return Settings(values), faults


def load(environ: Mapping[str, str] | None = None, dotenv: Path | None = DOTENV) -> Settings:
    """The settings, or the end of the process: status 78 and a line for each bad variable."""
    settings, faults = check(read(environ, dotenv))
    if not faults:
        try:
            _prepare(settings)
        except Bad as bad:
            faults["SECRET_KEY"] = f"kept in DATA_DIR/secret_key {bad}"
        except OSError as error:
            faults["DATA_DIR"] = (
                f"can't be used: {error.strerror}; name a folder this process may write to"
            )
    if faults:
        for name, fault in faults.items():
            print(f"{name}: {fault}", file=sys.stderr)
        sys.exit(EX_CONFIG)
    return settings


def _derive(v: dict[str, Any], written: Mapping[str, str]) -> None:
    """Defaults that depend on other settings or on the platform."""
    dev = v["APP_ENV"] == "development"
    v["ON_RAILWAY"] = bool(written.get("RAILWAY_ENVIRONMENT"))
    domain = written.get("RAILWAY_PUBLIC_DOMAIN")
    if not v["BASE_URL"] and "BASE_URL" not in written:
        v["BASE_URL"] = (
            f"http://localhost:{v['PORT']}" if dev else domain and f"https://{domain.lower()}"
        )
    v["HOST"] = v["HOST"] or ("127.0.0.1" if dev else "0.0.0.0")
    v["DATA_DIR"] = v["DATA_DIR"] or folder(written.get("RAILWAY_VOLUME_MOUNT_PATH") or "data")
    v["DATABASE_URL"] = v["DATABASE_URL"] or f"sqlite:///{v['DATA_DIR']}/vestibule.db"
    v["MAIL_BACKEND"] = v["MAIL_BACKEND"] or ("console" if dev else "smtp")
    v["SMTP_SECURITY"] = v["SMTP_SECURITY"] or ("tls" if v["SMTP_PORT"] == 465 else "starttls")
    v["MAIL_FROM_NAME"] = v["MAIL_FROM_NAME"] or v["APP_NAME"]
    # Google shows app passwords in groups of four, and people paste them so.
    if re.fullmatch(r"([a-z]{4} ){3}[a-z]{4}", v["SMTP_PASSWORD"] or ""):
        v["SMTP_PASSWORD"] = v["SMTP_PASSWORD"].replace(" ", "")
    if not v["MAGIC_LINK_EXPIRE_DAYS"] and "MAGIC_LINK_EXPIRE_DAYS" not in written:
        v["MAGIC_LINK_EXPIRE_DAYS"] = v["CODE_TTL_MINUTES"] / 1440
    for name in ("SIGNUP_DOMAINS", "ADMIN_EMAILS", "TRUSTED_PROXIES", "CORS_ORIGINS"):
        v[name] = v[name] or ()
    if not v["MAIL_FROM"] and "MAIL_FROM" not in written:
        user = v["SMTP_USER"] or ""
        v["MAIL_FROM"] = user if _is_address(user) else "login@example.com" if dev else None


def _contradictions(v: Mapping[str, Any], written: Mapping[str, str]) -> list[tuple[str, str]]:
    """(name, fault) for values that are good alone and bad together."""
    dev, found = v["APP_ENV"] == "development", []

    def bad(name: str, fault: str) -> None:
        found.append((name, fault))

    if dev:
        if written.get("RAILWAY_ENVIRONMENT"):
            bad("APP_ENV", "is development on a public platform; write production")
        if not _is_loopback(v["HOST"]):
            bad("HOST", "must be a loopback address in development; write 127.0.0.1")
    else:
        if not v["SECRET_KEY"]:
            bad("SECRET_KEY", "is missing; write what `manage.py new-secret` prints")
        if not v["BASE_URL"]:
            bad(
                "BASE_URL",
                "is missing; write the origin people open, such as https://app.example.org",
            )
        elif v["BASE_URL"].startswith("http://") and not _is_loopback(
            urlsplit(v["BASE_URL"]).hostname
        ):
            bad("BASE_URL", "must start with https:// in production")
        if v["MAIL_BACKEND"] == "console":
            bad(
                "MAIL_BACKEND",
                "console prints sign-in codes; in production write smtp, resend or none",
            )
        if v["MAIL_BACKEND"] != "none" and not v["MAIL_FROM"]:
            bad("MAIL_FROM", "is missing; write the sender's address (or an address as SMTP_USER)")
    for name in ("APP_LINK_URL", "CORS_ORIGINS"):
        urls = v[name] if isinstance(v[name], tuple) else filter(None, [v[name]])
        if any(u.startswith("http://") and not _is_loopback(urlsplit(u).hostname) for u in urls):
            bad(name, "must start with https://")
    if not _is_host(v["HOST"]):
        bad("HOST", "must be an IP address or localhost")
    if bool(v["SMTP_USER"]) != bool(v["SMTP_PASSWORD"]):
        missing, other = (
            ("SMTP_PASSWORD", "SMTP_USER") if v["SMTP_USER"] else ("SMTP_USER", "SMTP_PASSWORD")
        )
        bad(missing, f"is missing while {other} is set; write both or neither")
    if v["MAIL_BACKEND"] == "resend" and not v["RESEND_API_KEY"]:
        bad("RESEND_API_KEY", "is missing; write the key that resend.com/api-keys made")
    api = urlsplit(v["RESEND_API_URL"])
    if api.scheme != "https" and not _is_loopback(api.hostname):
        bad("RESEND_API_URL", "must start with https://, or the key would travel in clear text")
    if v["SMTP_SECURITY"] == "none" and not _is_loopback(v["SMTP_HOST"]):
        bad("SMTP_SECURITY", "none sends codes in clear text; write starttls or tls")
    if v["SESSION_IDLE_DAYS"] > v["SESSION_MAX_DAYS"]:
        bad("SESSION_IDLE_DAYS", "is longer than SESSION_MAX_DAYS; write a smaller number")
    if v["SECRET_KEY_PREVIOUS"] and v["SECRET_KEY_PREVIOUS"] == v["SECRET_KEY"]:
        bad("SECRET_KEY_PREVIOUS", "is the same as SECRET_KEY; write the older key or nothing")
    if v["SIGNUP_DOMAINS"] and v["SIGNUP"] != "open":
        bad(
            "SIGNUP_DOMAINS",
            "says who may sign up, but SIGNUP is closed; write SIGNUP=open or nothing here",
        )
    if _lost_on_redeploy(v, written):
        bad(
            "DATABASE_URL",
            "is SQLite outside a volume, which a redeploy deletes; attach a volume or use PostgreSQL",
        )
    if v["DATABASE_URL"].startswith("sqlite:") and (disk := network_disk(_sqlite_path(v))):
        text = f"is SQLite on a network disk ({disk}), where its locks do not hold"
        bad("DATABASE_URL", f"{text}; name a file on a disk of this machine, or use PostgreSQL")
    return found


def advice(settings: Settings) -> list[tuple[str, str]]:
    """(name, remark) for what is allowed and may be meant otherwise."""
    found = []
    if settings.magic_link_expire_days > 1:
        text = "links work for more than a day; whoever reads the mailbox later can use them"
        found.append(("MAGIC_LINK_EXPIRE_DAYS", text))
    if len(settings.metrics_token or "x" * 16) < 16:
        text = "is shorter than 16 characters, and whoever guesses it reads how the app is doing"
        found.append(("METRICS_TOKEN", f"{text}; write what `manage.py new-secret` prints"))
    if settings.on_railway and not settings.trusted_proxies:
        text = "is empty behind Railway's proxy, so all people share one client's limits"
        found.append(("TRUSTED_PROXIES", f"{text}; write 100.64.0.0/10"))
    return found


def _lost_on_redeploy(v: Mapping[str, Any], written: Mapping[str, str]) -> bool:
    if not written.get("RAILWAY_ENVIRONMENT") or not v["DATABASE_URL"].startswith("sqlite:"):
        return False
    volume = written.get("RAILWAY_VOLUME_MOUNT_PATH")
    return not volume or not _sqlite_path(v).is_relative_to(Path(volume).resolve())


def _sqlite_path(v: Mapping[str, Any]) -> Path:
    return folder(v["DATABASE_URL"].removeprefix("sqlite:///")).resolve()


def _prepare(settings: Settings) -> None:
    """Make DATA_DIR, ours alone, and in development the key that no one had to think of."""
    os.umask(0o077)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # This one is ours, and was made by git; other folders are others'.
    if settings.data_dir == Path("data").absolute():
        settings.data_dir.chmod(0o700)
    if not settings.secret_key:
        settings.__dict__["secret_key"] = _development_key(settings.data_dir / "secret_key")


def _development_key(path: Path) -> str:
    """Made once and kept, so that a restart does not sign everybody out."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(new_secret())
    try:
        os.link(draft, path)  # all or nothing: of several processes starting at once, one wins
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return secret_key(path.read_text().strip())


def new_secret() -> str:
    """256 random bits, for SECRET_KEY."""
    return base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode()


def masked(settings: Settings) -> dict[str, str]:
    """Name → value as text, with secrets hidden; for `manage.py config`."""
    # With some providers the user is the key itself.
    key_as_user = settings.smtp_user == settings.smtp_password
    shown = {}
    for setting in SETTINGS:
        value = getattr(settings, setting.name.lower())
        if value is None or value == ():
            shown[setting.name] = ""
        elif setting.name == "DATABASE_URL":
            shown[setting.name] = _without_password(value)
        else:
            secret = setting.secret or (setting.name == "SMTP_USER" and key_as_user)
            shown[setting.name] = "***" if secret else _written(value)
    return shown


def example() -> str:
    """The text of `.env.example`: what `make run` starts with, and every other setting as a comment."""
    active = {"APP_ENV": "development", "ADMIN_EMAILS": "admin@example.com"}
    lines = ["# Copy to .env. Real environment variables win. A blank value is the default."]
    lines += [f"{name}={value}" for name, value in active.items()]
    for setting in SETTINGS:
        if setting.name not in active:
            default = f" ({setting.otherwise})" if setting.otherwise else ""
            lines += ["", f"# {setting.meaning}{default}", f"# {setting.name}={setting.default}"]
    lines += ["", f"# Set by the platform, read where they are there: {', '.join(PLATFORM)}"]
    return "\n".join(lines) + "\n"


def table() -> str:
    """The settings table of the README, in Markdown."""
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for s in SETTINGS:
        default = s.otherwise or (f"`{s.default}`" if s.default else "–")
        rows.append(f"| `{s.name}` | {default} | {s.meaning} |")
    return "\n".join(rows) + "\n"


def _without_password(url: str) -> str:
    """Host and name only: a password may also stand in the query, or be written wrongly."""
    if url.startswith("sqlite:"):
        return url
    parts = urlsplit(url)
    return f"postgresql://***@{parts.hostname or ''}/***" if parts.hostname else "***"


def _written(value: object) -> str:
    """A value as one would write it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return ", ".join(f"{n}/{_period(seconds)}" for n, seconds in value)
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _period(seconds: int) -> str:
    sizes = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    return next(f"{seconds // size}{unit}" for unit, size in sizes if seconds % size == 0)


def _is_address(value: str) -> bool:
    try:
        return bool(address(value))
    except Bad:
        return False


def _is_loopback(host: str | None) -> bool:
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


def _is_host(host: str) -> bool:
    try:
        return host == "localhost" or bool(ip_address(host))
    except ValueError:
        return False
