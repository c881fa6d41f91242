"""Log lines: one each, whatever is in them."""

import json
import logging

import pytest

from utils.logs import Json, Text

EVIL = "x\nTraceback\n2026-11-21T00:00:00Z INFO auth.signin  admin signed in\x1b[31m\u2028"


def record(message, *args, exc_info=None):
    return logging.LogRecord("auth", logging.INFO, "f", 1, message, args, exc_info)


@pytest.mark.parametrize("form", [Text(), Json()])
def test_a_value_neither_ends_its_line_nor_drives_a_terminal(form):
    line = form.format(record("cross-site %s refused", EVIL))
    assert len(line.splitlines()) == 1 and "\x1b" not in line
    assert "signed in" in line  # it is there, and can be read


def test_a_json_line_is_json_with_its_trace():
    try:
        raise ValueError("no")
    except ValueError as error:
        line = Json().format(record("it failed", exc_info=(ValueError, error, error.__traceback__)))
    said = json.loads(line)
    assert said["message"] == "it failed" and "ValueError: no" in said["trace"]
