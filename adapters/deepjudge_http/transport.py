"""Sends requests, patiently, and takes back little: an answer of bounded size, from the host that was named."""

import contextlib
import email.utils
import hashlib
import json
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2

from deepjudge_core.errors import ModelError
from deepjudge_core.files.reading import parse_json
from deepjudge_core.text import clean, shortened
from deepjudge_core.version import VERSION
from deepjudge_http.answers import BadAnswerError
from deepjudge_http.secrets import Redactor

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that a later try may mend
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0  # seconds, of waiting longer each time
_LONGEST_ASKED = 300.0  # seconds that a server may ask to wait
_MOST_REDIRECTS = 3
_LONGEST_EXPLANATION = 200  # characters of what a server says
_JSON, _EVENTS = ("application/json", "text/json"), "text/event-stream"
_WORDS = {
    401: "it wants another secret",
    403: "it wants another secret",
    404: "nothing answers at this address",
    405: "the address takes other requests",
    413: "the request is too large: use a smaller batch",
    415: "it takes another encoding",
    422: "it takes other inputs",
    429: "it was asked too often: state a rate",
}
Record = Callable[[bytes, bytes | None, int], None]
"""Hears of each request: what was sent, what came back if anything did, and the status, 0 without one."""


@dataclass(frozen=True)
class Limits:
    """What a description allows.

    Attributes:
        timeout: Seconds in which an answer has to be there, all of it.
        retries: How often a request is sent again.
        rate: Requests in a second, at most; None for any.
    """

    timeout: float
    retries: int
    rate: float | None


@dataclass(frozen=True)
class _Reply:
    status: int
    kind: str  # of the content, without parameters
    location: str
    retry_after: str
    body: bytes


class _TooLargeError(Exception):
    pass


class _EncodedError(Exception):
    pass


class Transport:
    """A connection to one host.

    Args:
        name: The model's, for messages.
        headers: What goes with each request, secrets among them.
        secrets: Which values of it are secrets.
        limits: What the description allows.
    """

    sleep = staticmethod(time.sleep)  # tests do not wait
    now = staticmethod(time.monotonic)

    def __init__(self, name: str, headers: Mapping[str, str], secrets: Redactor, limits: Limits) -> None:
        self._name, self._secrets, self._limits = name, secrets, limits
        usual = {"User-Agent": f"deepjudge/{VERSION}", "Accept-Encoding": "identity"}
        self._headers = {**usual, **headers}
        self._client: httpx2.Client | None = None
        self._next = 0.0
        logging.getLogger("httpx2").addFilter(_silent)  # which logs addresses, some with what a user calls a secret

    def ask(
        self,
        method: str,
        url: str,
        content: bytes,
        headers: Mapping[str, str],
        largest: int,
        record: Record,
    ) -> Any:
        """Send a request until it is answered, and give the values of the answer's JSON, or of its last event.

        Args:
            method: Of HTTP.
            url: Of the host that was named.
            content: What is sent.
            headers: Beside those of every request.
            largest: Bytes that the answer may have.
            record: Hears of each try.

        Raises:
            ModelError: One line, with the model's name and no secret, when no use can be made of what comes back.
        """
        for attempt in range(self._limits.retries + 1):
            last = attempt == self._limits.retries
            self._keep_rate()
            try:
                reply = self._send(method, url, content, headers, largest)
            except _TooLargeError:
                record(content, None, 0)
                raise self._error(f"expected an answer of at most {largest} bytes, found more", "too-large") from None
            except _EncodedError:
                record(content, None, 0)
                raise self._error(
                    "expected an answer without compression, found a compressed one", "bad-answer"
                ) from None
            except TimeoutError:
                record(content, None, 0)
                if last:
                    said = f"expected an answer within {self._limits.timeout:g} s, found none in {self._tries(attempt)}"
                    raise self._error(said, "timed-out") from None
                self._wait(attempt, "")
                continue
            except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError) as error:
                record(content, None, 0)
                if last:
                    said = f"expected an answer, found a failing connection in {self._tries(attempt)}"
                    raise self._error(f"{said}{self._why(str(error))}", "cannot-answer") from None
                self._wait(attempt, "")
                continue
            record(content, reply.body, reply.status)
            if reply.status in _PASSING and not last:
                self._wait(attempt, reply.retry_after)
                continue
            return self._values(reply, attempt)
        raise AssertionError  # the last try returns or raises

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _tries(self, attempt: int) -> str:
        return "1 try" if attempt == 0 else f"{attempt + 1} tries"

    def _error(self, text: str, code: str) -> ModelError:
        return ModelError(f"{self._name}: {text}", code=code)

    def _why(self, said: str) -> str:
        text = shortened(clean(said, _LONGEST_EXPLANATION * 4), _LONGEST_EXPLANATION)
        return f": {text}" if text and not self._secrets.holds_secret(said) else ""

    def _keep_rate(self) -> None:
        if self._limits.rate is None:
            return
        wait = self._next - self.now()
        if wait > 0:
            self.sleep(wait)
        self._next = max(self._next, self.now()) + 1 / self._limits.rate

    def _wait(self, attempt: int, asked: str) -> None:
        wanted = _seconds(asked)
        if wanted is not None and wanted > _LONGEST_ASKED:
            raise self._error(
                f"expected to wait at most {_LONGEST_ASKED:g} s, but it asks to wait {wanted:g} s; go on later; its "
                "answers so far are kept",
                "cannot-answer",
            )
        usual = min(_FIRST_WAIT * 2**attempt, _LONGEST_WAIT)
        usual *= 0.5 + random.random() / 2  # noqa: S311 - so that many who were refused do not come back at once
        self.sleep(usual if wanted is None else max(wanted, 0.0))

    def _send(self, method: str, url: str, content: bytes, headers: Mapping[str, str], largest: int) -> _Reply:
        # In a thread: an answer that comes byte by byte would keep every one of a library's time-outs.
        found: queue.SimpleQueue[_Reply | BaseException] = queue.SimpleQueue()
        client = self._client = self._client or httpx2.Client(follow_redirects=False, timeout=self._limits.timeout)

        def send() -> None:
            try:
                found.put(self._exchange(client, method, url, content, headers, largest))
            except BaseException as error:
                found.put(error)
            finally:
                if client is not self._client:  # which nobody waits for any more
                    client.close()

        threading.Thread(target=send, daemon=True).start()
        try:
            reply = found.get(timeout=self._limits.timeout)
        except queue.Empty:
            self._client = None  # the other thread has it, for as long as its answer takes
            raise TimeoutError from None
        if isinstance(reply, httpx2.TimeoutException):
            raise TimeoutError
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def _exchange(
        self, client: httpx2.Client, method: str, url: str, content: bytes, headers: Mapping[str, str], largest: int
    ) -> _Reply:
        for _ in range(_MOST_REDIRECTS + 1):
            reply = self._one(client, method, url, content, headers, largest)
            if not reply.location or not 300 <= reply.status < 400:
                return reply
            target = urljoin(url, reply.location)
            if _origin(target) != _origin(url) or (method != "GET" and reply.status not in (307, 308)):
                return reply
            url = target
        return reply

    def _one(
        self, client: httpx2.Client, method: str, url: str, content: bytes, headers: Mapping[str, str], largest: int
    ) -> _Reply:
        everything = {**self._headers, **headers}
        with client.stream(method, url, content=content or None, headers=everything) as response:
            if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                raise _EncodedError
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > largest:
                    raise _TooLargeError
                if kind == _EVENTS and _is_done(body):
                    break
            return _Reply(
                response.status_code,
                kind,
                response.headers.get("location", ""),
                response.headers.get("retry-after", ""),
                bytes(body),
            )

    def _values(self, reply: _Reply, attempt: int) -> Any:
        if 300 <= reply.status < 400:
            raise self._error(
                f"expected an answer, found a redirect (status {reply.status}) that is not followed: to another host, "
                "or to another kind of request; neither inputs nor secrets go there. Name the address that answers",
                "cannot-answer",
            )
        if not 200 <= reply.status < 300:
            hint = f", {_WORDS[reply.status]}" if reply.status in _WORDS else ""
            tries = f" in {self._tries(attempt)}" if attempt else ""
            said = f"expected an answer, found status {reply.status}{tries}{hint}"
            raise self._error(f"{said}{self._why(_explanation(reply.body))}", "cannot-answer")
        if reply.kind == _EVENTS:
            return self._event(reply.body)
        # What says nothing of its kind may be JSON.
        if reply.kind and reply.kind not in _JSON and not reply.kind.endswith("+json"):
            shown = (
                reply.kind if reply.kind in ("text/html", "text/plain", "application/octet-stream") else "another kind"
            )
            raise self._error(f"expected JSON, found {shown}: is this the address of the API?", "bad-answer")
        return self._json(reply.body)

    def _json(self, body: bytes) -> Any:
        try:
            return parse_json(body)
        except ValueError as error:
            # What json says of a text repeats none of it.
            said = clean(str(error), _LONGEST_EXPLANATION) if not isinstance(error, UnicodeDecodeError) else "no UTF-8"
            why = "" if self._secrets.holds_secret(said) else f": {said}"
            raise self._error(
                f"expected JSON with finite numbers, found none that can be read{why}", "bad-answer"
            ) from None

    def _event(self, body: bytes) -> Any:
        # Server-sent events: the last that completes counts.
        event, data = "", b""
        for line in body.splitlines():
            key, _, value = line.partition(b":")
            if key == b"event":
                event = value.strip().decode("ascii", "replace")
            elif key == b"data":
                data = value.strip()
            if event == "complete" and data and key == b"data":
                return self._json(data)
            if event == "error" and key == b"data":
                raise self._error("expected an answer, found that its function failed", "cannot-answer")
        raise self._error("expected an event that completes, found none", "bad-answer")


def _silent(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def _is_done(body: bytearray) -> bool:
    start = max(body.rfind(b"event: complete"), body.rfind(b"event: error"))
    return start >= 0 and body.find(b"\n\n", start) >= 0


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme.lower())
        return parts.scheme.lower(), parts.hostname, port
    except ValueError:
        return "", None, None


def _seconds(text: str) -> float | None:
    # Of Retry-After: seconds, or a date of HTTP; None where it says neither.
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:12])
    with contextlib.suppress(TypeError, ValueError, OverflowError, IndexError):
        return email.utils.parsedate_to_datetime(text).timestamp() - time.time() if text else None
    return None


def _explanation(body: bytes) -> str:
    # What a server says in the usual places, and never a page.
    try:
        values = parse_json(body[: 2**16])
    except ValueError:
        return ""
    for _ in range(2):
        if not isinstance(values, dict):
            break
        values = next((values[key] for key in ("error", "message", "detail", "error_message") if key in values), "")
    if isinstance(values, list):
        return json.dumps(values)[: _LONGEST_EXPLANATION * 2]
    return values if isinstance(values, str) else ""


def sha256(data: bytes) -> bytes:
    """The SHA-256 of some bytes."""
    return hashlib.sha256(data).digest()


__all__ = ["BadAnswerError", "Limits", "Transport", "sha256"]
