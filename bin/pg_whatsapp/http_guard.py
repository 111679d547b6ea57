"""What one client may cost the receiver before anything is known of it: bytes, time, connections.

uvicorn bounds neither a request's head nor the time that it takes to arrive. Here is where the bytes come in,
so here they are counted.
"""

from __future__ import annotations

import asyncio
import math
import resource
from time import monotonic
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pg_whatsapp import log

# URL and headers together; those of providers are below 2 KiB, RFC 9110 asks for 8000 octets of a URL.
LARGEST_HEAD = 32 * 1024
# A body with its framing, whoever sends it; the application refuses sooner what is too large for it.
LARGEST_REQUEST = 32 * 1024 * 1024
# From the connection, or the first byte of a further request, to the end of its head; then of its body.
HEAD_S = 10.0
BODY_S = 30.0
# Bodies that are arriving, or wait for their answer.
MOST_BYTES = 64 * 1024 * 1024
MOST_CONNECTIONS = 4096
SWEEP_S = 1.0
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_logger = log.get("receiver")


class Guard:
    """What all connections may cost together; when that is too much, the slowest unfinished request goes."""

    def __init__(self) -> None:
        self.connections: set[GuardedProtocol] = set()
        self.bytes = 0
        self._cut = 0

    def protocol(self) -> type[asyncio.Protocol]:
        """The class for uvicorn's `http` setting."""
        return type("Guarded", (GuardedProtocol,), {"guard": self})

    async def run(self) -> None:
        """Until cancelled, end requests that take too long."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = monotonic()
            for connection in list(self.connections):
                if connection.is_overdue(now):
                    connection.refuse(_TOO_SLOW)
                    self._cut += 1
            if self._cut:
                _logger.warning("requests cut off: too slow, or too many at once", count=self._cut)
                self._cut = 0

    def admit(self, connection: GuardedProtocol) -> None:
        """A connection is there; beyond the limit the one goes that has been unfinished for longest."""
        self.connections.add(connection)
        if len(self.connections) > MOST_CONNECTIONS:
            # Those that wait for their answer, or for a next request, go last.
            self._abort(min(self.connections, key=lambda one: math.inf if one.since is None else one.since))

    def add(self, size: int) -> None:
        """So many bytes of a body came in."""
        self.bytes += size
        while self.bytes > MOST_BYTES:
            now = monotonic()
            unfinished = [one for one in self.connections if one.is_in_body]
            if not unfinished:
                return
            self._abort(min(unfinished, key=lambda one: one.rate(now)))

    def _abort(self, connection: GuardedProtocol) -> None:
        self._cut += 1
        connection.forget_body()
        self.connections.discard(connection)
        connection.transport.abort()


class GuardedProtocol(HttpToolsProtocol):
    """One connection, as uvicorn has it, with its head, its body and its time bounded."""

    guard: Guard

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: When the part of a request began that is arriving now; None while none is.
        self.since: float | None = None
        self.is_in_body = False
        self._head_bytes = 0
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: it has HEAD_S to say what it wants."""
        super().connection_made(transport)
        self.since = monotonic()
        self.guard.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, and what came of it."""
        self.guard.connections.discard(self)
        self.forget_body()
        self.since = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came in; those before the end of a head are counted."""
        if self.since is None:
            self.since = monotonic()
        if self.is_in_body:
            # With what chunks and trailers cost beside it.
            self._body_bytes += len(data)
            self.guard.add(len(data))
        else:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > LARGEST_HEAD or self._body_bytes > LARGEST_REQUEST:
            self.refuse(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Now the body may come."""
        if self._head_bytes <= LARGEST_HEAD or self._head_size() <= LARGEST_HEAD:
            self._head_bytes = 0
        self.is_in_body = True
        self.since = monotonic()
        super().on_headers_complete()

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def on_message_complete(self) -> None:
        """All of the request is here; its answer takes as long as it takes."""
        self.is_in_body = False
        self.since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It is answered."""
        self.forget_body()
        super().on_response_complete()

    def forget_body(self) -> None:
        """Its body is not held any more."""
        self.guard.bytes -= self._body_bytes
        self._body_bytes = 0
        self.is_in_body = False

    def is_overdue(self, now: float) -> bool:
        """Whether the part that is arriving has taken too long."""
        return self.since is not None and now - self.since > (BODY_S if self.is_in_body else HEAD_S)

    def rate(self, now: float) -> float:
        """Bytes a second of the body that is arriving."""
        return self._body_bytes / max(now - (self.since or now), 0.001)

    def refuse(self, answer: bytes) -> None:
        """Answer without asking the application, and close."""
        self.forget_body()
        self.since = None
        self._head_bytes = 0
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
                self.transport.write(answer)
            self.transport.close()


def allow_connections() -> None:
    """Raise the process's soft limit of open files as far as the connections may need it, and may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
