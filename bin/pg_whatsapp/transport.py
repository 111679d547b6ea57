"""One POST to a provider, and what became of it.

A request goes as a ready httpx.Request straight to pyreqwest's httpx transport. Beneath httpx.AsyncClient the
same transport reaches 40 % of that, httpx's own pool 1 % (200 in flight on two cores), and nothing of the
client (cookies, redirects, authentication flows) is wanted here.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, NamedTuple, cast

import httpx
import orjson
from pyreqwest.client import ClientBuilder
from pyreqwest.compatibility.httpx import HttpxTransport

from pg_whatsapp import __version__
from pg_whatsapp.providers import TOKEN_HEADERS

CONNECT_TIMEOUT_S = 5.0
# Providers close idle connections after a minute or more; one that is closed while a request enters it costs
# an unknown outcome, so ours go first.
IDLE_TIMEOUT_S = 20.0
# A send is answered in less than a kilobyte; nobody makes us hold what he likes.
LARGEST_ANSWER = 1 << 20
# Answers with no more brackets than these are not looked at twice.
_DEEP = 100
# By Content-Encoding (RFC 9110, section 8.4.1): zlib's window bits.
_PACKINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
# hyper's name for a failure before a connection stood. pyreqwest's exception classes do not tell that: it
# calls a socket cut after the request left a ConnectError, and any timeout before the answer's headers a
# ConnectTimeoutError.
_NOT_CONNECTED = "client error (Connect)"


class Outcome(StrEnum):
    """What is known of a request; complete_wa_messages() takes these words."""

    ANSWERED = "answered"  # a complete HTTP answer arrived
    NOT_SENT = "not_sent"  # certain that no byte of the request left: may be sent again
    UNKNOWN = "unknown"  # it may have arrived
    NOT_STARTED = "not_started"  # never tried: handed back


class Reply(NamedTuple):
    """What became of one request. answer: the parsed JSON body or None; retry_after: seconds or None."""

    outcome: Outcome
    status: int | None = None
    answer: Any = None
    retry_after: float | None = None
    error: str | None = None


NOT_STARTED = Reply(Outcome.NOT_STARTED)


def open_transport() -> httpx.AsyncBaseTransport:
    """The HTTP transport for sending. Close it with aclose()."""
    # HTTP/1.1: a connection that breaks leaves one outcome unknown, not all that are in flight.
    # No redirects: a POST that followed one would be sent twice.
    client = (
        ClientBuilder()
        .user_agent(f"pg_whatsapp/{__version__}")
        .http1_only()
        .follow_redirects(False)
        .connect_timeout(timedelta(seconds=CONNECT_TIMEOUT_S))
        .pool_idle_timeout(timedelta(seconds=IDLE_TIMEOUT_S))
        .tcp_nodelay(True)
        .build()
    )
    return HttpxTransport(client)


async def post(
    http: httpx.AsyncBaseTransport,
    url: httpx.URL,
    headers: httpx.Headers,
    body: bytes,
    timeout_s: float,
    method: str = "POST",
) -> Reply:
    """POST body, wait at most timeout_s seconds for all of the answer. Raises only when cancelled."""
    try:
        request = httpx.Request(
            method, url, headers=headers, content=body, extensions={"timeout": {"read": timeout_s}}
        )
    except Exception as error:
        return Reply(Outcome.NOT_SENT, error=type(error).__name__)
    try:
        response = await http.handle_async_request(request)
        try:
            content = await read_body(response)
        finally:
            await response.aclose()
    except Exception as error:
        outcome = Outcome.NOT_SENT if never_left(error) else Outcome.UNKNOWN
        return Reply(outcome, error=type(error.__cause__ or error).__name__)
    status = response.status_code
    return Reply(
        Outcome.ANSWERED,
        status,
        parse_answer(_without_token(content, headers)),
        None if status < 300 else parse_retry_after(response.headers.get("retry-after")),
    )


async def read_body(response: httpx.Response, largest: int = LARGEST_ANSWER) -> bytes | None:
    """All of the body; None if it is larger than so many bytes, of which no more is read, or packed oddly.

    httpx's own reader costs a tenth of sending a message, and unpacks without end.
    """
    parts = []
    size = 0
    async for part in cast(httpx.AsyncByteStream, response.stream):
        size += len(part)
        if size > largest:
            return None
        parts.append(part)
    content = b"".join(parts)
    encoding = response.headers.get("content-encoding")
    return content if encoding is None else _unpack(content, encoding.strip().lower(), largest)


def _without_token(content: bytes | None, headers: httpx.Headers) -> bytes | None:
    """An answer may quote what it was asked with, and is kept where others read it."""
    if content is not None:
        for name in TOKEN_HEADERS:
            token = headers.get(name, "").removeprefix("Bearer ").encode()
            if token and token in content:
                content = content.replace(token, b"[hidden]")
    return content


def _unpack(content: bytes, encoding: str, largest: int) -> bytes | None:
    if encoding not in _PACKINGS:
        return None
    unpacker = zlib.decompressobj(_PACKINGS[encoding])
    try:
        plain = unpacker.decompress(content, largest)
    except zlib.error:
        return None
    return plain if unpacker.eof else None


def never_left(error: BaseException) -> bool:
    """Whether it is certain that nothing of the request was written: it failed before a connection stood."""
    details = getattr(error.__cause__ or error, "details", None)
    causes = details.get("causes") if isinstance(details, dict) else None
    return any(cause.get("message") == _NOT_CONNECTED for cause in causes or ())


def parse_answer(content: bytes | None) -> Any:
    """The JSON value of an answer's body; None where it is no JSON, or nested so deep that none of ours is.

    NUL, which PostgreSQL's jsonb cannot hold, becomes U+FFFD.
    """
    if content is None:
        return None
    try:
        if b"\\u0000" in content:
            content = content.replace(b"\\u0000", b"\\ufffd")
        answer = orjson.loads(content)
        if content.count(b"[") + content.count(b"{") > _DEEP:
            # Reads deeper than it writes, and the database has to be written to.
            orjson.dumps(answer)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return answer


def parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header of either form; None if absent or unreadable."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
            if at.tzinfo is None:
                at = at.replace(tzinfo=UTC)
            seconds = (at - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return seconds if 0 <= seconds < 1e6 else None
