"""Sign-in by a mailed link that works once."""

from base import *  # noqa: F403

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "sesame.backends.ModelBackend",
]
SESAME_MAX_AGE = 900
SESAME_ONE_TIME = True
