"""Gives files out over HTTP, against links: GET and HEAD of /api/whatsapp/media/{id}?token=.

Who may have a file, how often, and whether a browser may show it, the database says (open_wa_media()). Here
the bytes are carried, an eighth of a mebibyte at a time, with ranges (RFC 9110, section 14).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from time import monotonic
from typing import Any, LiteralString, NamedTuple, TypeVar
from urllib.parse import parse_qs, quote
from uuid import UUID
from weakref import WeakValueDictionary

import psycopg
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pg_whatsapp import db, errors, log
from pg_whatsapp.config import Settings
from pg_whatsapp.media_stores import Place, StoreError, Stores

T = TypeVar("T")
PATH = "/api/whatsapp/media/{id}"
# Each has a piece or two in memory; one link does not take the places of others.
MOST_AT_ONCE = 128
MOST_OF_A_LINK = 8
CONNECTIONS = 4
# For a connection, for the turn of a link, and of a statement.
PATIENCE_S = 5.0
# A client that takes no piece for so long is given up, and a store that gives none.
STALLED_S = 30.0
# PostgreSQL tells of a lock that was had at the very moment at which its time was over as of a cancel.
LOCKED = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled)
# When somebody has a link locked: to be opened again after so long each time, without a connection meanwhile.
LOCKED_WAITS_S = (0.1, 0.2, 0.4)
_OPEN = """
    SELECT outcome, mime_type, filename, file_size, sha256, is_inline, store, location, object_key
    FROM open_wa_media(%s::uuid, %s, %s, %s, %s)
"""
_LOOK = """
    SELECT outcome, mime_type, filename, file_size, sha256, is_inline, store, location, object_key
    FROM verify_wa_media_signature(%s::uuid, %s)
"""
_READ = "SELECT read_wa_media(%s::uuid, %s, %s, %s)"
_logger = log.get("media")
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})", re.ASCII)
_MIME = re.compile(
    r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+(; ?[a-z]+=[a-z0-9._-]+)*", re.ASCII | re.IGNORECASE
)
# What is said of a link that gives nothing; nobody learns more of one that is not his.
_REFUSALS = {
    "not_found": (404, "no such link"),
    "not_ready": (503, "the file is not here yet"),
    "busy": (503, "somebody is changing the link"),
    "expired": (410, "the link has expired"),
    "used_up": (410, "the link is used up"),
    "gone": (410, "the file is gone"),
}
# Whatever the file is: it is not to be taken for something else, to act, to be kept, or to tell its address.
_ALWAYS = {
    "cache-control": "private, no-store",
    "content-security-policy": (
        "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Opened(NamedTuple):
    """What the database says of a link that was opened, or looked at."""

    outcome: str
    mime_type: str | None = None
    filename: str | None = None
    size: int = 0
    sha256: str | None = None
    is_inline: bool | None = None
    store: str | None = None
    location: str | None = None
    key: str | None = None


@dataclass
class _Asked:
    """One request: who asks, with which link, for which part."""

    link_id: str
    token: str
    source: str | None
    agent: str | None
    is_head: bool
    #: The value of Range, where it counts.
    part: str | None


class MediaLinks:
    """The endpoint, as a part of the web server; the login may open links (wa_api, wa_receiver)."""

    def __init__(self, settings: Settings) -> None:
        self._pool = db.make_pool(
            settings.conninfo,
            "serve media",
            CONNECTIONS,
            statement_timeout=f"{int(PATIENCE_S * 1000)}ms",
        )
        self._stores = Stores()
        self._under_way = 0
        # By link: how many have bytes on their way, and whose turn it is to open it.
        self._of_link: Counter[str] = Counter()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # Pieces that stores are giving or clients taking, since when; who began first stands first.
        self._moving: dict[asyncio.Timeout, float] = {}

    def routes(self) -> list[BaseRoute]:
        """Its endpoint."""
        return [Route(PATH, self, methods=["GET", "HEAD"])]

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """Keeps the connections."""
        return [self._run()]

    async def close(self) -> None:
        """Nothing is held beyond work()."""

    async def _run(self) -> None:
        try:
            await self._pool.open(wait=False)
            await asyncio.Event().wait()
        finally:
            await self._pool.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        asked = _read_request(scope, headers)
        if asked is None:
            await _refused("not_found")(scope, receive, send)
            return
        link_id = asked.link_id
        if self._of_link[link_id] >= MOST_OF_A_LINK or (
            self._under_way >= MOST_AT_ONCE and not self._make_room()
        ):
            await _refusal(503, "too many files at once")(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._answer(asked, headers, scope, receive, send)
        finally:
            self._under_way -= 1

    async def _answer(
        self, asked: _Asked, headers: dict[bytes, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            # Only a look, where no bytes are to go.
            opened = Opened._make(await self._ask(_LOOK, asked.link_id, asked.token))
            if opened.outcome not in ("ok", "used_up"):
                await _refused(opened.outcome)(scope, receive, send)
                return
            if _matches(headers.get(b"if-none-match"), opened):
                await Response(status_code=304, headers=_described(opened))(scope, receive, send)
                return
            if asked.part is not None and not _is_of(headers.get(b"if-range"), opened):
                asked.part = None
            span = _span(asked.part, opened.size)
            if span is None:
                extra = {"content-range": f"bytes */{opened.size}"}
                await _refusal(416, "no such part", extra)(scope, receive, send)
                return
            piece = b""
            if not asked.is_head:
                if opened.store != "database" and (opened.outcome == "ok" or asked.part is not None):
                    # First, so that a store that is away uses up no link.
                    piece = await self._read(asked, opened, *span)
                opened = await self._open(asked)
            if opened.outcome != "ok":
                await _refused(opened.outcome)(scope, receive, send)
                return
            if not (piece or asked.is_head):
                piece = await self._read(asked, opened, *span)
        except (StoreError, TimeoutError) as error:
            _logger.error("file not given out", why=str(error) or "the store does not answer")
            await _refusal(503, "the file cannot be had now")(scope, receive, send)
            return
        except (psycopg.Error, errors.WaError) as error:
            _logger.error("file not given out", **log.describe(error))
            await _refusal(503, "the database is away")(scope, receive, send)
            return
        first, after = span
        described = _described(opened) | {"content-length": str(after - first)}
        if asked.part is not None:
            described["content-range"] = f"bytes {first}-{after - 1}/{opened.size}"
        await send(
            {
                "type": "http.response.start",
                "status": 200 if asked.part is None else 206,
                "headers": [(name.encode(), value.encode("latin-1")) for name, value in described.items()],
            }
        )
        if asked.is_head:
            await send({"type": "http.response.body", "body": b""})
            return
        gone = asyncio.create_task(_wait_until_gone(receive))
        self._of_link[asked.link_id] += 1
        try:
            await self._carry(send, gone, asked, opened, first, after, piece)
        except (TimeoutError, psycopg.Error, errors.WaError) as error:
            # The length was promised: the connection ends before it.
            _logger.warning("file given out in part only", **log.describe(error))
        finally:
            gone.cancel()
            self._of_link[asked.link_id] -= 1
            if not self._of_link[asked.link_id]:
                del self._of_link[asked.link_id]

    def _make_room(self) -> bool:
        """Give up the piece that has been on its way for longest, if that is long: there are others."""
        slowest, since = next(iter(self._moving.items()), (None, 0.0))
        if slowest is None or monotonic() - since < PATIENCE_S:
            return False
        del self._moving[slowest]
        slowest.reschedule(asyncio.get_running_loop().time())
        return True

    async def _patiently(self, work: Awaitable[T]) -> T:
        """Wait for a piece on its way; TimeoutError where that takes too long, or others need the place."""
        async with asyncio.timeout(STALLED_S) as patience:
            self._moving[patience] = monotonic()
            try:
                return await work
            finally:
                self._moving.pop(patience, None)

    async def _ask(self, statement: LiteralString, *params: Any, binary: bool = False) -> tuple[Any, ...]:
        async with self._pool.connection(timeout=PATIENCE_S) as connection:
            row = await (await connection.execute(statement, params, binary=binary)).fetchone()
        assert row is not None  # noqa: S101
        return row

    async def _open(self, asked: _Asked) -> Opened:
        """Open a link, one request after the other: those of one link wait in one connection at most."""
        turn = self._turns.setdefault(asked.link_id, asyncio.Lock())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await turn.acquire()
        except TimeoutError:
            return Opened("busy")
        try:
            for wait_s in (*LOCKED_WAITS_S, None):
                try:
                    return Opened._make(
                        await self._ask(
                            _OPEN,
                            asked.link_id,
                            asked.token,
                            asked.source,
                            asked.agent,
                            asked.part is not None,
                        )
                    )
                except LOCKED:
                    if wait_s is not None:
                        await asyncio.sleep(wait_s)
            return Opened("busy")
        finally:
            turn.release()

    async def _read(self, asked: _Asked, opened: Opened, at: int, after: int) -> bytes:
        """Some bytes from there on, one at least."""
        place = Place(opened.store or "", opened.location, opened.key or "")
        length = min(place.piece, after - at)
        if place.store == "database":
            (piece,) = await self._ask(_READ, asked.link_id, asked.token, at, length, binary=True)
        else:
            piece = await self._patiently(self._stores.read(place, at, length))
        if not piece:
            raise StoreError("the bytes are not all there")
        return bytes(piece)

    async def _carry(
        self,
        send: Send,
        gone: asyncio.Task[None],
        asked: _Asked,
        opened: Opened,
        at: int,
        after: int,
        piece: bytes,
    ) -> None:
        """Send a span, of which the first piece is here, as long as somebody takes it."""
        seen = hashlib.sha256() if (at, after) == (0, opened.size) else None
        while not gone.done():
            at += len(piece)
            if seen is not None:
                seen.update(piece)
                if at >= after and seen.hexdigest() != opened.sha256:
                    raise StoreError("the bytes are not those that were put there")
            await self._patiently(
                send({"type": "http.response.body", "body": piece, "more_body": at < after})
            )
            if at >= after:
                return
            piece = await self._read(asked, opened, at, after)


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _read_request(scope: Scope, headers: dict[bytes, str]) -> _Asked | None:
    """What is asked for; None where it can be no link of ours."""
    token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]
    try:
        link_id = str(UUID(scope["path_params"].get("id", "")))
    except ValueError:
        return None
    if not (token.isascii() and token.isprintable()):
        return None
    client = scope.get("client")
    part = headers.get(b"range", "").replace(" ", "")
    found = _RANGE.fullmatch(part)
    # Others (several parts, other units) may be left unheard.
    if found is None or not any(found.groups()) or (all(found.groups()) and int(found[1]) > int(found[2])):
        part = ""
    agent = headers.get(b"user-agent", "").encode("ascii", "replace").decode()
    return _Asked(
        link_id, token, client[0] if client else None, agent, scope["method"] == "HEAD", part or None
    )


def _refusal(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    later = {"retry-after": "5"} if status == 503 else {}
    return PlainTextResponse(text, status, headers=_ALWAYS | later | (headers or {}))


def _refused(outcome: str) -> Response:
    status, text = _REFUSALS.get(outcome, _REFUSALS["not_found"])
    return _refusal(status, text)


def _described(opened: Opened) -> dict[str, str]:
    """The headers of a file."""
    kind = opened.mime_type or ""
    described = _ALWAYS | {
        "accept-ranges": "bytes",
        "content-type": kind if _MIME.fullmatch(kind) else "application/octet-stream",
        "content-disposition": disposition("inline" if opened.is_inline else "attachment", opened.filename),
    }
    if opened.sha256 is not None:
        described["etag"] = f'"{opened.sha256}"'
    return described


def disposition(kind: str, filename: str | None) -> str:
    """A Content-Disposition (RFC 6266): inline or attachment, with a name that leads nowhere.

    The plain name is for old programs; the other one (RFC 8187) has every letter.
    """
    if filename is None:
        return kind
    # The last part of a path, without control characters and what turns the direction of writing.
    name = re.split(r"[/\\]", filename)[-1]
    name = "".join(c for c in name if c.isprintable()).strip(" .")[:200]
    if not name:
        return kind
    plain = "".join(c if c.isascii() and c not in '"\\%;' else "_" for c in name)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _matches(condition: str | None, opened: Opened) -> bool:
    """Whether an If-None-Match names the file."""
    if condition is None or opened.sha256 is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in condition.split(",")}
    return "*" in tags or f'"{opened.sha256}"' in tags


def _is_of(condition: str | None, opened: Opened) -> bool:
    """Whether an If-Range, if there is one, means this file."""
    return condition is None or condition.strip() == f'"{opened.sha256}"'


def _span(part: str | None, size: int) -> tuple[int, int] | None:
    """First byte, and the one behind the last; None where the file has no such part."""
    found = _RANGE.fullmatch(part) if part is not None else None
    if found is None:
        return 0, size
    if not found[1]:
        last = min(int(found[2]), size)
        return (size - last, size) if last else None
    first = int(found[1])
    after = min(int(found[2]) + 1, size) if found[2] else size
    return (first, after) if first < size else None
