"""`wa media upload`: keeps a file of yours, to be named by messages."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import IO, Any, NamedTuple

from pg_whatsapp import db
from pg_whatsapp.config import Settings
from pg_whatsapp.errors import WaError
from pg_whatsapp.media_stores import CHUNK, Place, Stores, write_chunks
from pg_whatsapp.media_types import HEAD, found_type, likely_type

_BEGIN = """
    SELECT media_id::text, blob_id::text, store, location, object_key
    FROM begin_wa_media(%s, %s, %s, %s, %s)
"""
_APPEND = "SELECT append_wa_media(%s::uuid, %s, %b)"
_FINISH = "SELECT finish_wa_media(%s::uuid, %s, %s, %s)::text"
_UPLOAD = "SELECT phone_number_id, status, provider_media_id FROM upload_wa_media(%s::uuid, %s)"


class Kept(NamedTuple):
    """A file that is kept, under its id; and how uploading it for a number stands, if that was asked for."""

    media_id: str
    number: str | None = None
    status: str | None = None
    provider_media_id: str | None = None


async def keep(
    connection: db.Connection, file: IO[bytes], mime_type: str | None, filename: str | None
) -> str:
    """Keep all of a file, for the organization of the connection; its id in wa_media.

    mime_type None: what its bytes, else its name, tell. Raises StoreError, and psycopg.Error, with WA033 for
    a file that WhatsApp does not take. No transaction is open while bytes are written.
    """
    digest, size, head = await asyncio.to_thread(_look, file)
    found = found_type(head)
    kind = mime_type or likely_type(found, filename)
    row = await _one(connection, _BEGIN, digest, size, kind, filename, found)
    media_id, blob_id, store, location, key = row
    if media_id is not None:
        return str(media_id)
    if store == "database":

        async def write(n: int, piece: bytes) -> bool:
            return bool((await _one(connection, _APPEND, blob_id, n, piece))[0])

        await write_chunks(file, write)
    else:
        await Stores().put(Place(store, location, key), file)
    return str((await _one(connection, _FINISH, blob_id, kind, filename, found))[0])


async def upload(
    settings: Settings,
    path: Path,
    *,
    mime_type: str | None = None,
    for_number: bool = False,
    number: str | None = None,
    organization: str | None = None,
) -> Kept:
    """Keep a file and, for a number (None: the default one), have dispatchers upload it. Raises WaError."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise WaError(f"the file cannot be read: {error.strerror}") from error

    async def work(connection: db.Connection) -> Kept:
        media_id = await keep(connection, file, mime_type, path.name)
        if not for_number:
            return Kept(media_id)
        return Kept(media_id, *await _one(connection, _UPLOAD, media_id, number))

    with file:
        return await db.once(settings.conninfo, "media upload", work, organization=organization)


def _look(file: IO[bytes]) -> tuple[bytes, int, bytes]:
    """Hash, size and first bytes of a file."""
    digest = hashlib.sha256()
    size = 0
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    while piece := file.read(CHUNK):
        digest.update(piece)
        size += len(piece)
    return digest.digest(), size, head


async def _one(connection: db.Connection, statement: Any, *params: Any) -> tuple[Any, ...]:
    row = await (await connection.execute(statement, params)).fetchone()
    assert row is not None  # noqa: S101
    return row
