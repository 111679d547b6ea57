"""An HTTP/1.1 client that posts webhooks over kept-alive connections, as fast as statuses are made."""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from typing import Final, cast
from urllib.parse import urlsplit

import httptools

_IDLE_MAX: Final = 64


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.headers_seen = False
        self.body = b""
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's by inheritance
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ConnectionError(f"not an HTTP answer: {error}"))
            self.close()

    def on_headers_complete(self) -> None:
        self.headers_seen = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        if not self.parser.should_keep_alive():
            self.close()
        if status >= 200 and self.answer is not None and not self.answer.done():
            self.answer.set_result((status, self.body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.headers_seen and self.answer is not None and not self.answer.done():
            # an answer without a length ends with the connection
            self.answer.set_result((self.parser.get_status_code(), self.body))
        self._fail(exc or ConnectionResetError("the receiver closed the connection"))

    def _fail(self, error: Exception) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error)

    def close(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.close()

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        if self.transport is None:
            raise ConnectionResetError("the connection was never made")
        self.answer = asyncio.get_running_loop().create_future()
        self.headers_seen = False
        self.body = b""
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(request)
        return await self.answer


class Client:
    """Posts bodies and returns the status of the answer."""

    def __init__(self) -> None:
        self._idle: defaultdict[tuple[str, int, bool], list[_Connection]] = defaultdict(list)

    async def post(self, url: str, body: bytes, headers: dict[str, str], within_s: float) -> int:
        """POST ``body`` to ``url`` within ``within_s`` seconds.

        Raises OSError where no connection is had or it breaks, TimeoutError where the time is up.
        """
        async with asyncio.timeout(within_s):
            status, _ = await self._request("POST", url, body, headers)
            return status

    async def get(self, url: str, within_s: float) -> tuple[int, bytes]:
        """GET ``url``: status and body; raises as :meth:`post` does."""
        async with asyncio.timeout(within_s):
            return await self._request("GET", url, b"", {})

    async def _request(
        self, method: str, url: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        key = (parts.hostname or "", parts.port or (443 if secure else 80), secure)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = (
            f"{method} {target} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n{lines}"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode("latin-1") + body
        idle = self._idle[key]
        while idle:
            connection = idle.pop()
            if connection.closed:
                continue
            try:
                return await self._exchange(connection, request, idle)
            except OSError:
                break  # it may have been closed while idle: once more on a new one
        return await self._exchange(await self._connect(key), request, idle)

    @staticmethod
    async def _connect(key: tuple[str, int, bool]) -> _Connection:
        host, port, secure = key
        context = ssl.create_default_context() if secure else None
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection, host, port, ssl=context
        )
        return connection

    @staticmethod
    async def _exchange(
        connection: _Connection, request: bytes, idle: list[_Connection]
    ) -> tuple[int, bytes]:
        try:
            answer = await connection.exchange(request)
        except BaseException:
            connection.close()
            raise
        if not connection.closed and len(idle) < _IDLE_MAX:
            idle.append(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
            idle.clear()
