"""The one door for calls to URLs that a tenant can set.

A name leads where its owner likes, and elsewhere a moment later. So the address is looked at when the
connection is made, and the connection is made to that address: certificate and Host stay those of the name.
Which addresses may be is said by the database (get_wa_outside_rules()). Redirects are answers like others,
proxies of the environment are not asked, and of an answer no more is read than was asked for.

httpcore and not pyreqwest, which the dispatcher sends with: this one lets us make the connection ourselves.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple, NoReturn, cast

import anyio
import httpcore
import httpx

from pg_whatsapp import __version__, db

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Key = tuple[bytes, bytes, int]
Resolver = Callable[[str, int], Awaitable[list[str]]]

CONNECT_TIMEOUT_S = 5.0
# Servers close idle connections from five seconds on; ours go first.
IDLE_S = 4.0
MOST_IDLE = 200
SWEEP_S = 1.0
# Addresses of one name that are tried.
MOST_ADDRESSES = 3
# Look-ups at a time. One that a tenant's name server does not answer keeps its thread for half a minute.
MOST_LOOKUPS = 200
LARGEST_ANSWER = 64 * 1024
# What surrounds a body: head, chunk sizes, trailers.
LARGEST_FRAMING = 128 * 1024
_PORTS = {"https": 443, "http": 80}
# A name in ASCII, or an address.
_HOST = re.compile(rb"[A-Za-z0-9._:-]+")


class NotAllowedError(httpx.TransportError):
    """The URL, or the address that it leads to, may not be called; nothing was sent."""


class TooLargeError(httpx.TransportError):
    """More came than was asked for."""


class Rules(NamedTuple):
    """Where calls may lead: not into `refused`, but for what is in `allowed`, too."""

    allows_plain_http: bool
    allowed: tuple[Network, ...]
    refused: tuple[Network, ...]

    def permits(self, address: Address) -> bool:
        """Whether a connection to that address may be made."""
        return any(address in one for one in self.allowed) or not any(address in one for one in self.refused)


def read_rules(allows_plain_http: bool, allowed: Iterable[str], refused: Iterable[str]) -> Rules:
    """Rules from the columns of get_wa_outside_rules()."""
    return Rules(
        allows_plain_http,
        tuple(map(ipaddress.ip_network, allowed)),
        tuple(map(ipaddress.ip_network, refused)),
    )


#: Nothing may be called; before the database was asked.
CLOSED = read_rules(False, [], ["0.0.0.0/0", "::/0"])


async def fetch_rules(connection: db.Connection | db.Link) -> Rules:
    """The rules as the database has them now; raises psycopg.Error."""
    statement = "SELECT allows_plain_http, allowed_networks, refused_networks FROM get_wa_outside_rules()"
    if isinstance(connection, db.Link):
        ((plain, allowed, refused),) = await connection.fetch(statement)
    else:
        ((plain, allowed, refused),) = await (await connection.execute(statement)).fetchall()
    return read_rules(plain, allowed, refused)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system finds them. Raises OSError.

    In a thread that nobody waits for at the end, and that is not one of those which other look-ups need.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str] | None, error: Exception | None) -> None:
        if not found.done():
            found.set_exception(error) if error else found.set_result(addresses or [])

    def look_up() -> None:
        addresses, failure = None, None
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = [str(answer[4][0]) for answer in answers]
        except OSError as error:
            failure = error
        except UnicodeError:
            failure = OSError("not a name")
        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, addresses, failure)

    Thread(target=look_up, name="look-up", daemon=True).start()
    return await found


class OutsideTransport(httpx.AsyncBaseTransport):
    """httpx's transport for such calls; under httpx.AsyncClient, or by call() below.

    The extension "largest" of a request bounds the bytes of the answer's body. Raises NotAllowedError,
    TooLargeError and the other errors of httpx.
    """

    def __init__(
        self, rules: Rules = CLOSED, *, resolver: Resolver = resolve, tls: ssl.SSLContext | None = None
    ) -> None:
        #: May be replaced at any time; connections that are open are held to the new ones, too.
        self.rules = rules
        self.tls = tls or httpx.create_ssl_context()
        self._resolver = resolver
        self._lookups = asyncio.Semaphore(MOST_LOOKUPS)
        # By scheme, host and port.
        self._idle: dict[Key, list[_Line]] = {}
        self._swept_at = 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Make one call; redirects are not followed."""
        url = request.url
        port = url.port or _PORTS.get(url.scheme, 0)
        if url.scheme not in _PORTS or not _HOST.fullmatch(url.raw_host) or url.userinfo or port > 65535:
            raise NotAllowedError("not a URL of the form https://host/path")
        if url.scheme == "http" and not self.rules.allows_plain_http:
            raise NotAllowedError("http is not allowed")
        key = (url.raw_scheme, url.raw_host, port)
        line = await self._take_idle(key) or _Line(self, key)
        line.left = request.extensions.get("largest", LARGEST_ANSWER) + LARGEST_FRAMING
        try:
            response = await line.http.handle_async_request(
                httpcore.Request(
                    request.method,
                    httpcore.URL(scheme=key[0], host=key[1], port=port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions={"timeout": {"connect": CONNECT_TIMEOUT_S}},
                )
            )
        except BaseException as error:
            await line.close()
            _raise_as_httpx(error)
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(self, key, line, response),
            request=request,
        )

    async def aclose(self) -> None:
        """Close what is open and idle."""
        lines = [line for lines in self._idle.values() for line in lines]
        self._idle.clear()
        for line in lines:
            await line.close()

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host that may be called, at least one; raises NotAllowedError, OSError."""
        try:
            found: list[Address] = [ipaddress.ip_address(host)]
        except ValueError:
            async with self._lookups:
                texts = await self._resolver(host, port)
            found = [ipaddress.ip_address(text) for text in dict.fromkeys(texts)]
        good = [str(address) for address in found if self.rules.permits(address)]
        if not good:
            raise NotAllowedError("the address is not allowed")
        return good[:MOST_ADDRESSES]

    async def _take_idle(self, key: Key) -> _Line | None:
        while lines := self._idle.get(key):
            line = lines.pop()
            if not line.http.has_expired() and self.rules.permits(ipaddress.ip_address(line.address)):
                return line
            await line.close()
        return None

    async def keep(self, key: Key, line: _Line) -> None:
        """Take back a connection whose answer was read, or not to its end."""
        over = []
        if monotonic() - self._swept_at > SWEEP_S:
            self._swept_at = monotonic()
            over = [one for lines in self._idle.values() for one in lines if one.http.has_expired()]
            fresh = {key: [one for one in lines if one not in over] for key, lines in self._idle.items()}
            self._idle = {key: lines for key, lines in fresh.items() if lines}
        if line.http.is_idle() and sum(map(len, self._idle.values())) < MOST_IDLE:
            self._idle.setdefault(key, []).append(line)
        else:
            over.append(line)
        for one in over:
            await one.close()


class _Line(httpcore.AsyncNetworkBackend):
    """One connection, made by ourselves to an address that was looked at."""

    def __init__(self, door: OutsideTransport, key: Key) -> None:
        self._door = door
        self._plain = httpcore.AnyIOBackend()
        #: The address at the other end, once it is connected.
        self.address = ""
        #: Bytes that may still come.
        self.left = 0
        self.http = httpcore.AsyncHTTPConnection(
            httpcore.Origin(*key), ssl_context=door.tls, keepalive_expiry=IDLE_S, network_backend=self
        )

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  as the interface has it, here and below
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to an address of the host that may be called."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._door.addresses(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("no address in time") from error
        except OSError as error:
            raise httpcore.ConnectError("the name has no address") from error
        for number, address in enumerate(addresses, 1):
            try:
                stream = await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
            else:
                self.address = address
                return _Counted(self, stream)
        raise AssertionError("addresses() gives one at least")

    async def sleep(self, seconds: float) -> None:
        """As the interface wants it."""
        await asyncio.sleep(seconds)

    def count(self, data: bytes) -> bytes:
        """Let bytes through, as long as some may come."""
        self.left -= len(data)
        if self.left < 0:
            raise TooLargeError("the answer is too large")
        return data

    async def close(self) -> None:
        """Close it, whatever state it is in."""
        # Errors of a connection that is given up tell nothing; a cancelled call must not leave it open.
        with anyio.CancelScope(shield=True), suppress(Exception):
            await self.http.aclose()


class _Counted(httpcore.AsyncNetworkStream):
    """A stream whose incoming bytes are counted."""

    def __init__(self, line: _Line, stream: httpcore.AsyncNetworkStream) -> None:
        self._line = line
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return self._line.count(await self._stream.read(max_bytes, timeout))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        return _Counted(self._line, await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Body(httpx.AsyncByteStream):
    """The body of an answer; when it is closed, its connection is kept or closed."""

    def __init__(
        self,
        door: OutsideTransport,
        key: Key,
        line: _Line,
        response: httpcore.Response,
    ) -> None:
        self._door = door
        self._key = key
        self._line = line
        self._response = response
        self._is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async with aclosing(cast(Any, self._response.stream).__aiter__()) as parts:
                async for part in parts:
                    yield part
        except Exception as error:
            _raise_as_httpx(error)

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            with anyio.CancelScope(shield=True):
                with suppress(Exception):
                    await self._response.aclose()
                await self._door.keep(self._key, self._line)


def _raise_as_httpx(error: BaseException) -> NoReturn:
    """httpcore's errors under the names that httpx gives them; others as they are."""
    if type(error).__module__.startswith("httpcore"):
        raise getattr(httpx, type(error).__name__, httpx.TransportError)(str(error)) from error
    raise error


class Answer(NamedTuple):
    """What a call was answered: the body as far as it was read, and whether that is all of it."""

    status: int
    headers: httpx.Headers
    body: bytes
    is_whole: bool


async def call(
    transport: httpx.AsyncBaseTransport,
    method: str,
    url: str,
    *,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    timeout_s: float,
    largest: int = LARGEST_ANSWER,
) -> Answer:
    """Make one call, in timeout_s seconds altogether, and read at most so many bytes of the body.

    Raises TimeoutError and the errors of OutsideTransport.
    """
    own = {"user-agent": f"pg_whatsapp/{__version__}", "accept-encoding": "identity"}
    try:
        request = httpx.Request(
            method, url, headers=own | (headers or {}), content=body, extensions={"largest": largest}
        )
    except (httpx.InvalidURL, UnicodeError) as error:
        raise NotAllowedError("not a URL") from error
    async with asyncio.timeout(timeout_s):
        response = await transport.handle_async_request(request)
        parts, size = [], 0
        try:
            async with aclosing(cast(Any, response.stream).__aiter__()) as stream:
                async for part in stream:
                    parts.append(part)
                    size += len(part)
                    if size > largest:
                        break
        finally:
            await response.aclose()
    return Answer(response.status_code, response.headers, b"".join(parts)[:largest], size <= largest)


def why(error: BaseException) -> str:
    """What may be told a tenant of a failed call; nothing of what is inside."""
    if isinstance(error, NotAllowedError | TooLargeError):
        return str(error)
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.ConnectError):
        reason: BaseException | None = error
        while reason is not None:
            if isinstance(reason, ssl.SSLCertVerificationError):
                return f"certificate: {reason.verify_message}"
            if isinstance(reason, ssl.SSLError):
                return "no TLS"
            if isinstance(reason, socket.gaierror):
                return "the name has no address"
            reason = reason.__cause__ or reason.__context__
        return "no connection"
    if isinstance(error, httpx.ProtocolError):
        return "not an answer in HTTP"
    return "the connection broke"
