"""Settings: read from the environment and .env, checked together, documented where people look."""

import re
import stat

import pytest

from tests.conftest import SECRET, environment
from tests.serving import ROOT
from utils import settings


def read(tmp_path, **written):
    """Checked settings of what an operator wrote; no faults allowed."""
    found, faults = settings.check(settings.read(environment("", tmp_path) | written, None))
    assert not faults
    return found


def test_the_example_file_lists_exactly_what_the_code_reads():
    text = (ROOT / ".env.example").read_text()
    assert text == settings.example()
    names = re.findall(r"^(?:# )?([A-Z_]+)=", text, re.MULTILINE)
    assert sorted(names) == sorted(s.name for s in settings.SETTINGS)
    active = re.findall(r"^([A-Z_]+=.*)$", text, re.MULTILINE)
    assert active == ["APP_ENV=development", "ADMIN_EMAILS=admin@example.com"]


def test_every_setting_is_used():
    code = "".join(p.read_text() for p in [ROOT / "main.py", *ROOT.glob("utils/*.py")])
    for setting in settings.SETTINGS:
        assert (
            re.search(rf"\.{setting.name.lower()}\b", code) or code.count(f'"{setting.name}"') > 1
        ), setting


def test_the_readme_has_the_settings_table():
    assert settings.table() in (ROOT / "README.md").read_text()


def test_real_variables_win_over_the_file_and_blank_is_the_default(tmp_path):
    (tmp_path / ".env").write_text("APP_NAME=File\nPORT=6000\nCODE_LENGTH=8\n")
    written = settings.read({"APP_NAME": "Real", "CODE_LENGTH": "  "}, tmp_path / ".env")
    assert written["APP_NAME"] == "Real" and written["PORT"] == "6000"
    assert "CODE_LENGTH" not in settings.read({"CODE_LENGTH": " "}, None)


def test_development_needs_nothing(tmp_path):
    found, faults = settings.check({"APP_ENV": "development"})
    assert not faults
    assert (found.base_url, found.host, found.mail_backend) == (
        "http://localhost:5001",
        "127.0.0.1",
        "console",
    )


def test_the_development_key_is_made_once_and_kept_to_ourselves(tmp_path):
    env = {"APP_ENV": "development", "DATA_DIR": str(tmp_path / "new")}
    first, second = (settings.load(env, None).secret_key for _ in range(2))
    assert first == second and len(first) >= 32
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / "secret_key").stat().st_mode) == 0o600


def test_railway_gives_the_origin_and_the_folder(tmp_path):
    found = read(
        tmp_path,
        BASE_URL="",
        DATA_DIR="",
        DATABASE_URL="",
        RAILWAY_ENVIRONMENT="production",
        RAILWAY_PUBLIC_DOMAIN="Shop.up.railway.app",
        RAILWAY_VOLUME_MOUNT_PATH=str(tmp_path),
    )
    assert found.base_url == "https://shop.up.railway.app"
    assert found.database_url == f"sqlite:///{tmp_path}/vestibule.db"


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ({"SMTP_PORT": "465", "SMTP_SECURITY": ""}, "smtp_security", "tls"),
        ({"SMTP_SECURITY": ""}, "smtp_security", "starttls"),
        ({"MAIL_FROM": "", "SMTP_USER": "a@b.org", "SMTP_PASSWORD": "x"}, "mail_from", "a@b.org"),
        (
            {"SMTP_USER": "a@b.org", "SMTP_PASSWORD": "abcd efgh ijkl mnop"},
            "smtp_password",
            "abcdefghijklmnop",
        ),
        (
            {"SMTP_USER": "a@b.org", "SMTP_PASSWORD": "my own words"},
            "smtp_password",
            "my own words",
        ),
        ({"CODE_TTL_MINUTES": "2.5"}, "code_ttl_minutes", 2.5),
        ({"BASE_URL": "https://App.Example.org/"}, "base_url", "https://app.example.org"),
        (
            {"SIGNUP": "open", "SIGNUP_DOMAINS": "A.org, @b.org"},
            "signup_domains",
            ("a.org", "b.org"),
        ),
        ({"APP_NAME": "Gong"}, "mail_from_name", "Gong"),
        ({"CODE_IN_SUBJECT": "yes"}, "code_in_subject", True),
        ({"MAIL_BACKEND": "none", "MAIL_FROM": ""}, "mail_from", None),
        ({"MAIL_RATE": "0.5"}, "mail_rate", 0.5),
        ({"MAIL_RATE": ""}, "mail_rate", None),
        ({"MAIL_ORIGIN_BOUND": "on"}, "mail_origin_bound", True),
        ({"RESEND_API_URL": ""}, "resend_api_url", "https://api.resend.com"),
        ({"RESEND_API_URL": "http://127.0.0.1:9/"}, "resend_api_url", "http://127.0.0.1:9"),
    ],
)
def test_defaults_follow_from_each_other(tmp_path, written, name, value):
    assert getattr(read(tmp_path, **written), name) == value


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ({"MAIL_BACKEND": "resend"}, "RESEND_API_KEY"),
        ({"MAIL_BACKEND": "resend", "RESEND_API_KEY": "re_a key\r\nX-Evil: 1"}, "RESEND_API_KEY"),
        ({"RESEND_API_URL": "http://api.resend.com"}, "RESEND_API_URL"),
        ({"RESEND_API_URL": "https://api.resend.com/v1"}, "RESEND_API_URL"),
        (
            {"MAIL_BACKEND": "resend", "RESEND_API_KEY": "re_0123456789", "MAIL_FROM": ""},
            "MAIL_FROM",
        ),
        ({"MAIL_RATE": "0"}, "MAIL_RATE"),
        ({"MAIL_RATE": "fast"}, "MAIL_RATE"),
        ({"MAIL_BACKEND": "pigeon"}, "MAIL_BACKEND"),
        ({"MAIL_BACKEND": "console"}, "MAIL_BACKEND"),
    ],
)
def test_mail_that_can_not_leave_is_found_before_the_start(tmp_path, written, name):
    _, faults = settings.check(settings.read(environment("", tmp_path) | written, None))
    assert list(faults) == [name]
    secret = written.get("RESEND_API_KEY")
    assert not secret or secret not in faults[name]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hidden-word@db/app",
        "postgresql://db/app?password=hidden-word",
        "postgresql://u:a/hidden-word@db/app",
        "postgresql://u:a@hidden-word@db/app",
    ],
)
def test_masked_settings_show_no_secret(tmp_path, url):
    shown = settings.masked(
        read(
            tmp_path,
            DATABASE_URL=url,
            SMTP_USER="a@b.org",
            SMTP_PASSWORD="another-hidden-word",
            RESEND_API_KEY="re_hidden-word",
        )
    )
    text = repr(shown)
    assert SECRET not in text and "hidden-word" not in text


def test_limits_are_shown_as_one_would_write_them(tmp_path):
    windows = "7/90s, 20/10m, 100/36h, 300/30d"
    shown = settings.masked(read(tmp_path, LIMIT_WRONG_PER_IP=windows))
    assert shown["LIMIT_WRONG_PER_IP"] == windows


def test_a_key_that_is_the_user_too_is_masked_in_both_places(tmp_path):
    shown = settings.masked(read(tmp_path, SMTP_USER="hidden-token", SMTP_PASSWORD="hidden-token"))
    assert "hidden" not in repr(shown) and shown["SMTP_USER"] == "***"


def test_settings_dont_change_while_the_app_runs(tmp_path):
    with pytest.raises(AttributeError):
        read(tmp_path).port = 1
