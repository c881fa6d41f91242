"""How log lines look: one line each, as text or as JSON. Secrets are not filtered here: they are never logged."""

import json
import logging
import re
import time

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class Text(logging.Formatter):
    converter = staticmethod(time.gmtime)  # UTC

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def formatMessage(self, record: logging.LogRecord) -> str:
        # A line end or an escape sequence in a value would forge a line or drive a terminal.
        return _CONTROL.sub(_escape, super().formatMessage(record))


class Json(logging.Formatter):
    converter = staticmethod(time.gmtime)  # UTC

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)  # ASCII: control characters leave as \\u escapes


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def setup(level: str, form: str) -> None:
    """One handler for everything, uvicorn's loggers included."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Its access line prints the query string, and nothing it says is news to us.
    logging.getLogger("uvicorn.access").disabled = True
    # These quote headers or connection strings.
    for name in ("uvicorn.error", "websockets"):
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLevelName(level.upper())))
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
