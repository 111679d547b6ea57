"""Files from and to a provider over HTTP, with no more than a mebibyte of them in memory."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import IO, Any, NamedTuple, cast

import httpx

from pg_whatsapp import outside
from pg_whatsapp.media_hosts import ElsewhereError, is_of_api, located, require_provider
from pg_whatsapp.media_types import HEAD
from pg_whatsapp.providers import PROVIDERS
from pg_whatsapp.transport import parse_answer, read_body

ASK_TIMEOUT_S = 15.0
# What has to come, comes within each such span.
SPAN_S = 10.0
MOST_REDIRECTS = 5
BUFFER = 1 << 20
# Of an upload: a minute, and what a quarter of a megabyte a second takes.
UPLOAD_TIMEOUT_S = 60.0
UPLOAD_PER_S = 1 << 18
_REDIRECTS = {301, 302, 303, 307, 308}


class TransferError(Exception):
    """A file did not come, or go; the text says why and names no address."""


class ExpiredError(TransferError):
    """The URL is not, or no more, good: to be asked for anew."""


class Site(NamedTuple):
    """A provider as one number is known there."""

    provider: str
    base_url: str
    headers: httpx.Headers


class Described(NamedTuple):
    """What the provider says of a file; None where it says nothing."""

    url: httpx.URL
    size: int | None
    mime_type: str | None
    sha256: str | None


@dataclass
class Bounds:
    """What a download may cost: bytes, seconds, and bytes a second that it takes at least."""

    max_size: int
    timeout_s: float
    least_per_s: int


class Fetched(NamedTuple):
    """What came: its hash, its size, and its first bytes."""

    sha256: bytes
    size: int
    head: bytes


async def describe(http: httpx.AsyncBaseTransport, url: httpx.URL, site: Site) -> Described:
    """Ask where a file is and what. Raises TransferError."""
    if PROVIDERS[site.provider].gives_files_at_once:
        return Described(url, None, None, None)
    status, answer = await _call(http, httpx.Request("GET", url, headers=site.headers), ASK_TIMEOUT_S)
    if status != 200 or not isinstance(answer, dict) or not isinstance(answer.get("url"), str):
        code = _error_of(answer).get("code")
        raise TransferError(f"the provider does not say where it is: HTTP {status}, code {code}")
    size = str(answer.get("file_size", ""))
    try:
        place = located(answer["url"], site.provider, site.base_url)
    except ElsewhereError as error:
        raise TransferError(str(error)) from error
    return Described(
        place,
        int(size) if size.isdecimal() and len(size) < 16 else None,
        answer.get("mime_type") if isinstance(answer.get("mime_type"), str) else None,
        answer.get("sha256") if isinstance(answer.get("sha256"), str) else None,
    )


class Ways(NamedTuple):
    """How the provider is reached: its API, and hosts that it names."""

    api: httpx.AsyncBaseTransport
    outside: httpx.AsyncBaseTransport


async def download(ways: Ways, url: httpx.URL, site: Site, bounds: Bounds, file: IO[bytes]) -> Fetched:
    """Write a file's bytes to a file of ours. Raises TransferError, ExpiredError."""
    try:
        async with asyncio.timeout(bounds.timeout_s), asyncio.timeout(SPAN_S) as span:
            response = await _follow(ways, url, site, bounds.max_size)
            try:
                return await _save(response, bounds, file, span)
            finally:
                await response.aclose()
    except TimeoutError:
        raise TransferError("it came too slowly") from None
    except TransferError:
        raise
    except ElsewhereError as error:
        raise TransferError(str(error)) from error
    except outside.NotAllowedError as error:
        raise TransferError(f"the file is where nobody may go: {error}") from error
    except OSError as error:
        raise TransferError(f"it could not be written down: {error.strerror}") from error
    except Exception as error:
        raise TransferError(f"the connection broke: {type(error).__name__}") from error


async def _follow(ways: Ways, url: httpx.URL, site: Site, max_size: int) -> httpx.Response:
    """The answer that has the bytes, behind redirects within the provider's hosts."""
    for _ in range(MOST_REDIRECTS):
        http, shown = ways.api, site.headers
        if not is_of_api(url, site.base_url):
            require_provider(url, site.provider)
            http = ways.outside
            if not PROVIDERS[site.provider].shows_token_to_hosts:
                shown = httpx.Headers()
        # What is packed would have to be unpacked without end.
        headers = {**shown, "accept": "*/*", "accept-encoding": "identity"}
        headers.pop("content-type", None)
        response = await http.handle_async_request(
            httpx.Request("GET", url, headers=headers, extensions={"largest": max_size})
        )
        if response.status_code == 200:
            if response.headers.get("content-encoding", "identity") != "identity":
                await response.aclose()
                raise TransferError("it came packed")
            return response
        await response.aclose()
        if response.status_code in (401, 403, 404, 410):
            raise ExpiredError(f"the provider does not give it: HTTP {response.status_code}")
        if response.status_code not in _REDIRECTS:
            raise TransferError(f"the provider does not give it: HTTP {response.status_code}")
        try:
            url = url.join(response.headers.get("location", ""))
        except httpx.InvalidURL as error:
            raise TransferError("the provider redirects to no URL") from error
    raise TransferError("the provider redirects without end")


async def _save(response: httpx.Response, bounds: Bounds, file: IO[bytes], span: asyncio.Timeout) -> Fetched:
    digest = hashlib.sha256()
    head = b""
    size = came = 0
    parts: list[bytes] = []
    buffered = 0

    def flush(parts: list[bytes]) -> None:
        for part in parts:
            digest.update(part)
            file.write(part)

    async for part in cast(httpx.AsyncByteStream, response.stream):
        size += len(part)
        if size > bounds.max_size:
            raise TransferError("more came than it was said to have")
        if len(head) < HEAD:
            head += part[: HEAD - len(head)]
        came += len(part)
        if came >= bounds.least_per_s * SPAN_S:
            span.reschedule(asyncio.get_running_loop().time() + SPAN_S)
            came = 0
        parts.append(part)
        buffered += len(part)
        if buffered >= BUFFER:
            # A disk may take its time; others send meanwhile.
            await asyncio.to_thread(flush, parts)
            parts, buffered = [], 0
    await asyncio.to_thread(flush, parts)
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) != size:
        raise TransferError("it came in part only")
    return Fetched(digest.digest(), size, head)


class Content(NamedTuple):
    """Bytes to be uploaded: how many, their hash, and what gives them from an offset, some at a time."""

    size: int
    sha256: bytes
    read: Callable[[int], Awaitable[bytes]]


async def upload(
    http: httpx.AsyncBaseTransport, url: httpx.URL, site: Site, mime_type: str, content: Content
) -> tuple[int | None, Any, str | None]:
    """Upload a file as a form: HTTP status and parsed answer, or what went wrong."""
    edge = secrets.token_hex(16)
    plain = mime_type.partition(";")[0].strip()
    fields = {"messaging_product": "whatsapp", "type": mime_type}
    before = "".join(
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    before += f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
    opening = f"{before}Content-Type: {plain}\r\n\r\n".encode()
    closing = f"\r\n--{edge}--\r\n".encode()

    async def body() -> AsyncIterator[bytes]:
        yield opening
        sent, digest = 0, hashlib.sha256()
        while sent < content.size:
            piece = await content.read(sent)
            if not piece:
                raise TransferError("the bytes are not all there")
            sent += len(piece)
            digest.update(piece)
            yield piece
        if digest.digest() != bytes(content.sha256):
            raise TransferError("the bytes are not those that were put there")
        yield closing

    headers = {
        **site.headers,
        "content-type": f"multipart/form-data; boundary={edge}",
        "content-length": str(len(opening) + content.size + len(closing)),
    }
    began = monotonic()
    try:
        status, answer = await _call(
            http,
            httpx.Request("POST", url, headers=headers, content=body()),
            UPLOAD_TIMEOUT_S + content.size / UPLOAD_PER_S,
        )
    except TransferError as error:
        return None, None, f"{error} after {monotonic() - began:.0f} s"
    return status, answer, None


async def _call(http: httpx.AsyncBaseTransport, request: httpx.Request, timeout_s: float) -> tuple[int, Any]:
    """Status and parsed answer of a request; raises TransferError without one."""
    try:
        async with asyncio.timeout(timeout_s):
            response = await http.handle_async_request(request)
            try:
                return response.status_code, parse_answer(await read_body(response))
            finally:
                await response.aclose()
    except TimeoutError:
        raise TransferError("no answer in time") from None
    except TransferError:
        raise
    except Exception as error:
        raise TransferError(f"no answer: {type(error).__name__}") from error


def _error_of(answer: Any) -> dict[str, Any]:
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}
