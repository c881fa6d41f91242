"""How log lines look: one line each, as text or as JSON. Secrets are not filtered here: they are never logged."""

import json
import logging
import math
import re
import time
import traceback
from contextvars import ContextVar
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
# What every record has; the rest is what somebody said in `extra`.
_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_USUAL |= {"color_message", "request_tag"}

# The ASGI scope in which this thread or task works; shield.py says so.
scope_now: ContextVar[dict[str, Any] | None] = ContextVar("scope_now", default=None)


def request_id() -> str:
    """The id of the request that is being answered, as its error page shows it; "" outside of one."""
    scope = scope_now.get()
    return str(scope.get("state", {}).get("id", "")) if scope else ""


class Text(logging.Formatter):
    converter = staticmethod(time.gmtime)  # UTC

    def __init__(self) -> None:
        form = "%(asctime)s %(levelname)-7s %(name)s%(request_tag)s  %(message)s"
        super().__init__(form, "%Y-%m-%dT%H:%M:%SZ")

    def formatMessage(self, record: logging.LogRecord) -> str:
        id = request_id()
        record.request_tag = f" [{id}]" if id else ""
        # A line end or an escape sequence in a value would forge a line or drive a terminal.
        return _CONTROL.sub(_escape, super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        # What was raised may quote what somebody sent; the frames are ours, and keep their lines.
        parts = [part.rstrip("\n") for part in traceback.format_exception(*ei)]
        frame = "  File "
        return "\n".join(p if p.startswith(frame) else _CONTROL.sub(_escape, p) for p in parts)


class Json(logging.Formatter):
    converter = staticmethod(time.gmtime)  # UTC

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if id := request_id():
            line["request"] = id
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        for name, value in vars(record).items():
            # Plain values only: a library's object may show anything.
            if name not in _USUAL and name not in line and _is_plain(value):
                line[name] = value
        return json.dumps(line)  # ASCII: control characters leave as \\u escapes


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)  # JSON knows no other
    return value is None or isinstance(value, str | int)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def setup(level: str, form: str) -> None:
    """One handler for everything, uvicorn's loggers included."""
    # What no line shows is not looked up for each (Python's logging HOWTO, "Optimization").
    logging._srcfile = None  # type: ignore[attr-defined]
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Its access line prints the query string, and nothing it says is news to us.
    logging.getLogger("uvicorn.access").disabled = True
    # These quote headers or connection strings.
    for name in ("uvicorn.error", "websockets"):
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLevelName(level.upper())))
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
