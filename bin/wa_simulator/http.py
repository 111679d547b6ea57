"""A small HTTP/1.1 server on asyncio and httptools.

A framework would be less code, but the simulator must be able to cut a socket at a chosen moment, answer with
broken bodies, and keep up with a benchmark as a sink; all three need the transport itself.

A handler takes a :class:`Request` and returns a :class:`Response`, the :data:`CUT` sentinel (the connection
is reset without an answer), or an awaitable of either. Requests of one connection are answered in order.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast
from urllib.parse import parse_qsl, unquote

import httptools
import orjson
import structlog

_log = structlog.get_logger()

MAX_BODY: Final = 110 * 1024 * 1024
_MAX_QUEUED = 64
_REASONS: Final = {
    200: "OK",
    302: "Found",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


class Request:
    """One request: method, path (percent-decoded), query, headers (lower-case names) and the raw body."""

    __slots__ = ("body", "headers", "method", "path", "raw_query")

    def __init__(self, method: str, path: str, raw_query: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.path = path
        self.raw_query = raw_query
        self.headers = headers
        self.body = body

    @property
    def query(self) -> dict[str, str]:
        """The query parameters; the last value of a repeated name."""
        return dict(parse_qsl(self.raw_query, keep_blank_values=True))

    @property
    def base_url(self) -> str:
        """The address under which the caller reached us."""
        return f"http://{self.headers.get('host', 'localhost')}"


class Response:
    """An answer, rendered when it is made so that sending it is one write."""

    __slots__ = ("body", "head", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self.head = (
            f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{extra}"
        ).encode("latin-1")

    def render(self, keep_alive: bool) -> bytes:
        """The bytes on the wire."""
        end = b"\r\n" if keep_alive else b"Connection: close\r\n\r\n"
        return self.head + end + self.body


class Trickle(Response):
    """An answer whose body goes slowly, and may end too soon: so many bytes, then the connection is reset."""

    __slots__ = ("bytes_per_s", "stop_after")

    def __init__(
        self, status: int, body: bytes, content_type: str, bytes_per_s: float, stop_after: int | None = None
    ) -> None:
        super().__init__(status, body, content_type)
        self.bytes_per_s = bytes_per_s
        self.stop_after = stop_after


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer with ``value`` as JSON."""
    return Response(status, orjson.dumps(value), "application/json; charset=UTF-8", headers)


class Cut:
    """Answer of a handler that wants the connection reset."""


CUT: Final = Cut()
Answer = Response | Cut
Handler = Callable[[Request], "Answer | Awaitable[Answer]"]


def _broken(error: Exception) -> Response:
    """A mistake of ours; the log says where, not with which values, which may be personal."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    _log.error("request_failed", error=type(error).__name__, where=f"{frame.filename}:{frame.lineno}")
    return Response(500, b'{"error":{"message":"The simulator failed.","type":"OAuthException","code":1}}')


class _Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport | None = None
        self.waiting: deque[tuple[Request, bool]] = deque()
        self.task: asyncio.Task[None] | None = None
        self._reset_message()

    def _reset_message(self) -> None:
        self.url = b""
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.size = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's by inheritance
        self.transport = cast(asyncio.Transport, transport)
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        # A request in progress goes on: an API does not undo what it accepted because the caller hung up.
        self.transport = None
        self.server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400)
        except httptools.HttpParserError:
            self._refuse(400)

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._reset_message()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.headers.get("expect", "").lower() == "100-continue" and self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self.size += len(body)
        if self.size > MAX_BODY:
            self._refuse(413)
            return
        self.chunks.append(body)

    def on_message_complete(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        path, _, query = self.url.decode("latin-1").partition("?")
        if "%" in path:
            path = unquote(path)
        body = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        request = Request(self.parser.get_method().decode("latin-1"), path, query, self.headers, body)
        keep_alive = self.parser.should_keep_alive()
        if self.task is not None:
            self.waiting.append((request, keep_alive))
            if len(self.waiting) >= _MAX_QUEUED:
                self.transport.pause_reading()
            return
        self._start(request, keep_alive)

    # answering

    def _start(self, request: Request, keep_alive: bool) -> None:
        try:
            answer = self.server.handler(request)
        except Exception as error:
            answer = _broken(error)
        if isinstance(answer, (Response, Cut)) and not isinstance(answer, Trickle):
            self._send(answer, keep_alive)
        else:
            self.task = asyncio.ensure_future(self._finish(answer, keep_alive))

    async def _finish(self, pending: Answer | Awaitable[Answer], keep_alive: bool) -> None:
        try:
            answer = pending if isinstance(pending, (Response, Cut)) else await pending
        except Exception as error:
            answer = _broken(error)
        is_sent = isinstance(answer, Trickle)
        if isinstance(answer, Trickle):
            await self._trickle(answer, keep_alive)
        self.task = None
        if not is_sent:
            self._send(answer, keep_alive)
        while self.waiting and self.task is None and self.transport is not None:
            self._start(*self.waiting.popleft())
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    async def _trickle(self, answer: Trickle, keep_alive: bool) -> None:
        whole = answer.render(keep_alive)
        at = len(whole) - len(answer.body)
        end = len(whole) if answer.stop_after is None else at + answer.stop_after
        piece = max(1, int(answer.bytes_per_s / 10))
        self._write(whole[:at])
        while at < end and self.transport is not None:
            self._write(whole[at : min(at + piece, end)])
            at += piece
            await asyncio.sleep(piece / answer.bytes_per_s)
        if self.transport is not None and answer.stop_after is not None:
            self.transport.abort()
        elif self.transport is not None and not keep_alive:
            self.transport.close()

    def _write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def _send(self, answer: Answer, keep_alive: bool) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if isinstance(answer, Cut):
            self.transport.abort()
            return
        self.transport.write(answer.render(keep_alive))
        if not keep_alive:
            self.transport.close()

    def _refuse(self, status: int) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(Response(status).render(keep_alive=False))
            self.transport.close()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Server:
    """Listens, hands requests to ``handler`` and keeps the open connections."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.connections: set[_Connection] = set()
        self._listener: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Start listening; returns the port (useful with port 0)."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Connection(self), host, port, backlog=1024)
        return int(self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.close()
        if self._listener is not None:
            await self._listener.wait_closed()
