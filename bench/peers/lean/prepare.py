"""The people who will sign in."""

import os

import app

with app.DATABASE:
    for i in range(int(os.environ["PEOPLE"])):
        app.one("insert into people (email) values (?)", f"user{i:05d}@example.com")
