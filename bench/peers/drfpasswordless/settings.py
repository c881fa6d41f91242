"""Sign-in by a mailed code, for programs: the answer has a token."""

from base import *  # noqa: F403

INSTALLED_APPS += ["rest_framework", "rest_framework.authtoken", "drfpasswordless"]  # noqa: F405
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}
PASSWORDLESS_AUTH = {
    "PASSWORDLESS_AUTH_TYPES": ["EMAIL"],
    "PASSWORDLESS_EMAIL_NOREPLY_ADDRESS": "noreply@example.com",
    "PASSWORDLESS_REGISTER_NEW_USERS": False,
}
