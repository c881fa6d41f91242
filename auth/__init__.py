"""Passwordless sign-in for any FastHTML app. One folder to copy; it imports nothing but packages.

    app = FastHTML(...)                                  # never fast_app()
    auth = EmailAuth(app, db, templates, send, base_url=…, secret_key=…)

    @app.get("/reports", before=admin_required)
    def reports(auth, session): ...

Read in this order: signin.py (the rules, and which file has which), asking.py, codes.py, arriving.py,
challenges.py (how a guess is spent), keys.py (how a code comes about), email_auth.py (the plug),
guards.py (who may pass), routes.py (the pages' HTTP).
"""

from pathlib import Path

from auth.caller import Caller, SessionData
from auth.email_auth import EmailAuth
from auth.guards import admin_required, confirmed, role_required, signed_in
from auth.policy import Policy, Refused
from auth.record import HEARD

MIGRATIONS = Path(__file__).parent / "migrations"

__all__ = [
    "HEARD",
    "MIGRATIONS",
    "Caller",
    "EmailAuth",
    "Policy",
    "Refused",
    "SessionData",
    "admin_required",
    "confirmed",
    "role_required",
    "signed_in",
]
