"""Sends mails over HTTPS, by Resend's API, where a host lets no SMTP out. Every failure is a Fault.

A mail's id is its idempotency key: a retry is no second mail, whatever became of the first.
"""

import json
import re
import ssl
from typing import Any

import httpx2

from utils.message import Message, mailbox
from utils.replies import AUTH_SECONDS, DEAD, HOLD, RETRY, Fault, broken, kept
from utils.smtp import Patience, Step, verified

API_URL = "https://api.resend.com"
CONNECTIONS = 8
MOST_SECONDS = 60  # of waiting for a limit, whatever the answer says
_AFTER = (httpx2.ReadTimeout, httpx2.ReadError, httpx2.RemoteProtocolError, httpx2.DecodingError)


class Resend:
    """Certificates are verified, redirects and proxies of the environment not followed: the key goes
    to `url` and nowhere else."""

    def __init__(
        self,
        key: str,
        url: str = API_URL,
        tls: ssl.SSLContext | None = None,
        patience: Patience | None = None,
        step: Step | None = None,
    ):
        self._step = step or (lambda stage, text: None)
        wait = patience or Patience()
        self._options: dict[str, Any] = {
            "base_url": url,
            "headers": {"Authorization": f"Bearer {key}", "User-Agent": "vestibule"},
            "verify": tls or verified(),
            "trust_env": False,
            "follow_redirects": False,
            "timeout": httpx2.Timeout(wait.command, connect=wait.connect, read=wait.end),
            "limits": httpx2.Limits(
                max_connections=None, max_keepalive_connections=CONNECTIONS, keepalive_expiry=60
            ),
        }
        self._client = httpx2.Client(**self._options)

    def deliver(self, message: Message) -> str:
        """What the provider said when it took the mail. Raises Fault."""
        try:
            message.as_bytes()  # the same gate as on every other way
            body = json.dumps(_written(message))
        except ValueError as error:
            raise Fault(DEAD, f"can't be written: {error}", cause="unwritten") from error
        headers = {"Content-Type": "application/json", "Idempotency-Key": message.id}
        status, answer, wait = self._ask("POST", "/emails", content=body, headers=headers)
        name, text = answer.get("name", ""), answer.get("message", "")
        if status == 409 and name == "invalid_idempotent_request":
            # It has this mail already, with the words of the first try ("for 15 minutes").
            return kept(f"{status} {name}")
        if not 200 <= status < 300:
            raise _refused(status, str(name), str(text), wait)
        if not answer.get("id"):
            raise Fault(HOLD, kept(f"{status} without an id"), cause="garbled")
        return kept(f"{status} {answer['id']}")

    def check(self, domain: str) -> None:
        """Does the key open the door? Sends nothing. Raises Fault."""
        status, answer, wait = self._ask("GET", "/domains")
        name = str(answer.get("name", ""))
        if name == "restricted_api_key":  # may send and no more, as is good
            return
        if not 200 <= status < 300:
            raise _refused(status, name, str(answer.get("message", "")), wait)
        good = {d.get("name") for d in _listed(answer) if d.get("status") == "verified"}
        if domain.lower() not in good and not answer.get("has_more"):
            raise Fault(HOLD, f"{status} the sender's domain is not verified", cause="domain")

    def close(self) -> None:
        """Hang up. Who delivers afterwards connects anew."""
        client, self._client = self._client, httpx2.Client(**self._options)
        client.close()

    def _ask(self, method: str, path: str, **sent: Any) -> tuple[int, dict[str, Any], int]:
        """(status, answer, how long it asks us to wait)"""
        try:
            response = self._client.request(method, path, **sent)
        except _AFTER as error:
            # It was sent whole, and no answer came. The idempotency key makes the next try no second mail.
            raise _broken("answer" if method == "POST" else "hello", error) from error
        except (httpx2.WriteError, httpx2.WriteTimeout) as error:
            raise _broken("body", error) from error
        except (
            httpx2.HTTPError,
            RuntimeError,
        ) as error:  # the latter from a client that was closed
            raise _broken("connect", error) from error
        try:
            answer = response.json()
        except ValueError:
            answer = {}
        answer = answer if isinstance(answer, dict) else {}
        words = f"{response.status_code} {answer.get('name', '')} {answer.get('message', '')}"
        self._step("https", kept(words))
        asked = response.headers.get("retry-after", "")
        wait = min(int(asked), MOST_SECONDS) if re.fullmatch("[0-9]{1,9}", asked) else 0
        return response.status_code, answer, wait


def _written(message: Message) -> dict[str, Any]:
    sender, letter = message.sender, message.letter
    name = re.sub(r'(["\\])', r"\\\1", sender.name)
    parts = {"text": letter.text, "html": letter.html, "reply_to": sender.reply_to}
    return {
        "from": f'"{name}" <{sender.address}>' if name else sender.address,
        "to": [mailbox(letter.to)],  # a list of one: text with a comma in it could be read as two
        "subject": letter.subject,
        "headers": message.headers(),
        **{part: value for part, value in parts.items() if value},
    }


def _refused(status: int, name: str, text: str, wait: int) -> Fault:
    what, seconds, cause = _classified(status, name, text)
    return Fault(what, kept(f"{status} {name} {text}"), seconds or wait, cause)


def _classified(status: int, name: str, text: str) -> tuple[str, int, str]:
    """(what, seconds, cause) of an error; its names: https://resend.com/docs/api-reference/errors"""
    if status in (401, 403):
        key = "api_key" in name or not name
        return HOLD, AUTH_SECONDS, "key" if key else "domain"
    if status == 429:
        return HOLD, 0, "quota" if "quota" in name else "busy"
    if status == 409:  # concurrent_idempotent_requests: the first try is still under way
        return RETRY, 0, "later"
    if status in (400, 422):
        fields = re.findall(r"[`'\"](to|from)[`'\"]", text)
        if "to" in fields and "from" not in fields:
            return DEAD, 0, "recipient"
        return HOLD, 0, "sender" if "from" in fields or "from" in name else "policy"
    return HOLD, 0, "busy" if status >= 500 else "not the api"


def _broken(stage: str, error: Exception) -> Fault:
    cause: BaseException | None = error
    while cause and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, OSError):
        return broken(stage, cause)
    late = isinstance(error, httpx2.TimeoutException)
    return broken(stage, TimeoutError() if late else ConnectionError())


def _listed(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found = answer.get("data")
    return [d for d in found if isinstance(d, dict)] if isinstance(found, list) else []
