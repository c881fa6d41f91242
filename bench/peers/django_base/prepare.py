"""The tables, and the people who will sign in."""

import os

import django

django.setup()

from django.apps import apps  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402

call_command("migrate", verbosity=0)
User = get_user_model()
names = [f"user{i:05d}" for i in range(int(os.environ["PEOPLE"]))]
User.objects.bulk_create(User(username=n, email=f"{n}@example.com", password="!") for n in names)
if apps.is_installed("allauth.account"):
    from allauth.account.models import EmailAddress

    EmailAddress.objects.bulk_create(
        EmailAddress(user=user, email=user.email, verified=True, primary=True)
        for user in User.objects.all()
    )
connection.close()
