"""What one client may cost the receiver before anything is known of it: bytes, time, connections.

uvicorn bounds neither a request's head nor the time that it takes to arrive, nor how long an answer waits
until it is taken. Here is where the bytes come in and go out, so here they are counted.
"""

from __future__ import annotations

import asyncio
import math
import resource
from time import monotonic
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pg_whatsapp import log
from pg_whatsapp.client_certificates import names_of

# URL and headers together; those of providers are below 2 KiB, RFC 9110 asks for 8000 octets of a URL.
LARGEST_HEAD = 32 * 1024
# A body with its framing, whoever sends it; the application refuses sooner what is too large for it.
LARGEST_REQUEST = 32 * 1024 * 1024
# From the connection, or the first byte of a further request, to the end of its head; then of its body.
HEAD_S = 10.0
BODY_S = 30.0
# Bodies that are arriving, or wait for their answer.
MOST_BYTES = 64 * 1024 * 1024
# Answers that wait until their clients take them, of 128 files from a bucket half a mebibyte each at most;
# beside each may stand the next one of a pipeline.
MOST_UNTAKEN = 128 * 1024 * 1024
# A client that takes nothing of its answer for so long is given up.
UNTAKEN_S = 30.0
MOST_CONNECTIONS = 4096
SWEEP_S = 1.0
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_STRANGER = b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_logger = log.get("receiver")


class Guard:
    """What all connections may cost together; when that is too much, the slowest unfinished request goes."""

    def __init__(self) -> None:
        #: Whose client certificates are taken, by name in lower case; empty: whichever the authority signed.
        self.client_names: frozenset[str] = frozenset()
        self.connections: set[GuardedProtocol] = set()
        self.bytes = 0
        # Bytes of answers that wait for their clients; whoever has taken nothing for longest stands first.
        self._untaken: dict[GuardedProtocol, int] = {}
        self._untaken_bytes = 0
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
            for connection in list(self._untaken):
                if connection in self._untaken:
                    self.measure(connection)
                if now - (connection.taken_at or now) > UNTAKEN_S:
                    self._abort(connection)
            if self._cut:
                _logger.warning("requests cut off: too slow, or too many at once", count=self._cut)
                self._cut = 0

    def admit(self, connection: GuardedProtocol) -> None:
        """A connection is there; beyond the limit the one goes that has been unfinished for longest."""
        self.connections.add(connection)
        if len(self.connections) > MOST_CONNECTIONS:
            # Those that wait for their answer, or for a next request, go last.
            self._abort(min(self.connections, key=GuardedProtocol.waited_for_since))

    def add(self, size: int) -> None:
        """So many bytes of a body came in."""
        self.bytes += size
        while self.bytes > MOST_BYTES:
            now = monotonic()
            unfinished = [one for one in self.connections if one.is_in_body]
            if not unfinished:
                return
            self._abort(min(unfinished, key=lambda one: one.rate(now)))

    def measure(self, connection: GuardedProtocol) -> None:
        """Look how much of an answer waits."""
        size = connection.transport.get_write_buffer_size()
        if size == self._untaken.get(connection):
            return
        self.forget_answer(connection)
        connection.taken_at = monotonic()
        self._untaken[connection] = size
        self._untaken_bytes += size
        while self._untaken_bytes > MOST_UNTAKEN and len(self._untaken) > 1:
            self._abort(next(iter(self._untaken)))

    def forget_answer(self, connection: GuardedProtocol) -> None:
        """Nothing waits for its client any more."""
        self._untaken_bytes -= self._untaken.pop(connection, 0)
        connection.taken_at = None

    def _abort(self, connection: GuardedProtocol) -> None:
        self._cut += 1
        connection.forget_body()
        self.connections.discard(connection)
        self.forget_answer(connection)
        connection.transport.abort()


class GuardedProtocol(HttpToolsProtocol):
    """One connection, as uvicorn has it, with its head, its body and its time bounded."""

    guard: Guard

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: When the part of a request began that is arriving now; None while none is.
        self.since: float | None = None
        #: When the client last took something of an answer that waits for it; None while none does.
        self.taken_at: float | None = None
        self.is_in_body = False
        self._head_bytes = 0
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: it has HEAD_S to say what it wants."""
        super().connection_made(transport)
        self.since = monotonic()
        self.guard.admit(self)
        names = self.guard.client_names
        if names and names.isdisjoint(names_of(transport.get_extra_info("peercert"))):
            _logger.warning("a client's certificate has another name")
            self.refuse(_STRANGER)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, and what came of it."""
        self.guard.connections.discard(self)
        self.guard.forget_answer(self)
        self.forget_body()
        self.since = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """An answer is larger than what the system takes at once."""
        super().pause_writing()
        self.guard.measure(self)

    def resume_writing(self) -> None:
        """Nearly all of it is on its way."""
        self.guard.forget_answer(self)
        super().resume_writing()

    def waited_for_since(self) -> float:
        """Since when its client is to send or to take something; infinite where it is our turn."""
        return min(math.inf if one is None else one for one in (self.since, self.taken_at))

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
        if self.cycle is None or self.cycle.response_complete:
            self._let_go()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It is answered, maybe before its body is here: the rest still comes, and is no head."""
        self._let_go()
        super().on_response_complete()

    def forget_body(self) -> None:
        """Its body is not held any more, and none comes."""
        self._let_go()
        self.is_in_body = False

    def _let_go(self) -> None:
        self.guard.bytes -= self._body_bytes
        self._body_bytes = 0

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
