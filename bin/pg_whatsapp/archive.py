"""`wa archive`: rows that retention is to take go into files first, and come back from them.

A file counts once the database was told that it is there as a whole: only then does retention go on to its
last row. Whoever is killed before leaves a name in the database; the next run removes what is under it.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import orjson
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from pg_whatsapp import archive_files, db, log
from pg_whatsapp.archive_files import ArchiveError, Row
from pg_whatsapp.config import Settings
from pg_whatsapp.errors import WaError
from pg_whatsapp.media_stores import Place, Stores

_logger = log.get("archive")
KINDS = ("messages", "statuses", "queue")
#: Rows of a file: some megabytes, and one transaction's worth of reading.
ROWS = 10_000
# A person who is erased while a file is written; more than once in a row is something else.
_TRIES = 5
_INSERT_ROWS = 1000
_DATA, _MANIFEST = ".jsonl.gz", ".json"
_HEALTH = """
    SELECT organization_id::text, name, location, files, rows, bytes, archived_at, waiting_since
    FROM get_wa_archive_health()
"""
_FILES = """
    SELECT organization_id::text, kind, number, location, name, row_count, byte_count, sha256, first_at,
        last_at
    FROM list_wa_archive_files()
"""
_BEGIN = "SELECT location, name, stale_location, stale_name FROM begin_wa_archive_file(%s, %s)"
_READ = "SELECT place, at, key_id, table_name, body FROM read_wa_archive_rows(%s, %s)"
_KEYS = "SELECT id, key FROM get_wa_archive_keys(%s)"
_KEEP = "SELECT keep_wa_archive_file(%s, %s, %s, %s, %s, %s, %s, %s, %s)"
_DROP = "SELECT drop_wa_archive_file(%s, %s)"


@dataclass(frozen=True)
class File:
    """A file of an archive, as the database lists it."""

    organization: str
    kind: str
    number: int
    location: str
    name: str
    rows: int
    size: int
    sha256: bytes
    first_at: datetime
    last_at: datetime


@dataclass
class Restored:
    """What came back: rows by table that were not there; how many are of erased persons, and lost."""

    rows: dict[str, int]
    erased: int = 0


def _place(location: str, key: str) -> Place:
    return Place("s3" if location.startswith("s3://") else "directory", location, key)


class Archive:
    """The archive of one organization: that for which the connection works."""

    def __init__(self, connection: db.Connection, stores: Stores, rows: int = ROWS) -> None:
        self._connection = connection
        self._stores = stores
        self._rows = rows

    async def write(self, kind: str, take_over: bool = False) -> int:
        """Write what waits, a file at a time; how many rows. Raises WaError."""
        written = 0
        tries = 0
        while tries < _TRIES:
            rows = await self._write_file(kind, take_over)
            if rows == 0:
                return written
            tries = tries + 1 if rows is None else 0
            written += rows or 0
        raise WaError(f"a file of {kind} could not be kept {_TRIES} times", "Is another archive at work?")

    async def _write_file(self, kind: str, take_over: bool) -> int | None:
        """Write the next file; None if it does not count."""
        ((location, name, stale_location, stale_name),) = await self._fetch(_BEGIN, kind, take_over)
        if stale_name is not None:
            await self._remove(stale_location, stale_name)
        rows = [
            Row(place, at, key_id, table, body.encode())
            for place, at, key_id, table, body in await self._fetch(_READ, kind, self._rows)
        ]
        if not rows:
            await self._fetch(_DROP, kind, name)
            return 0
        # Own queue rows come behind all messages.
        rows.sort(key=lambda row: (len(row.place), row.place))
        ids = sorted({row.key_id for row in rows if row.key_id is not None})
        keys = await self.keys(ids)
        if len(keys) < len(ids):
            await self._fetch(_DROP, kind, name)
            return None
        made = archive_files.write(name, kind, rows, keys)
        await self._put(location, name + _DATA, made.data)
        await self._put(location, name + _MANIFEST, made.manifest_text())
        said = made.manifest
        ((is_kept,),) = await self._fetch(
            _KEEP, kind, name, said["place"], said["rows"], said["bytes"], bytes.fromhex(said["sha256"]),
            said["first_at"], said["last_at"], ids,
        )  # fmt: skip
        if not is_kept:
            await self._remove(location, name)
            await self._fetch(_DROP, kind, name)
            return None
        _logger.info("rows archived", kind=kind, rows=len(rows), bytes=len(made.data))
        return len(rows)

    async def keys(self, ids: list[int]) -> dict[int, bytes]:
        """The keys of that many ids, without those that were destroyed."""
        return {key_id: bytes(key) for key_id, key in await self._fetch(_KEYS, ids)}

    async def _put(self, location: str, key: str, data: bytes) -> None:
        """Store a file, and see that it is there."""
        place = _place(location, key)
        await self._stores.put(place, io.BytesIO(data))
        if sha256(await self._read(place, len(data) + 1)).digest() != sha256(data).digest():
            raise ArchiveError(f"{key} is not what was written a moment ago")

    async def _remove(self, location: str, name: str) -> None:
        for suffix in (_DATA, _MANIFEST):
            await self._stores.delete(_place(location, name + suffix))

    async def _read(self, place: Place, length: int) -> bytes:
        pieces: list[bytes] = []
        offset = 0
        while offset < length:
            piece = await self._stores.read(place, offset, min(place.piece, length - offset))
            pieces.append(piece)
            offset += len(piece)
            # Fewer only at the end; a bucket is not asked for what lies behind it.
            if len(piece) < place.piece:
                break
        return b"".join(pieces)

    async def lines(self, file: File) -> list[dict[str, Any]]:
        """The lines of a file. Raises ArchiveError if it is not what was written, StoreError if not there."""
        data = await self._read(_place(file.location, file.name + _DATA), file.size)
        return archive_files.check(file.name, data, file.sha256)

    async def restore(self, file: File, schema: str, restored: Restored) -> None:
        """Put the rows of a file into tables of that schema, but for those that are there."""
        lines = await self.lines(file)
        keys = await self.keys(archive_files.key_ids(lines))
        restored.erased += sum(line["rows"] for line in lines if "key" in line and line["key"] not in keys)
        waiting: dict[str, list[Any]] = {}
        for found in archive_files.read(file.name, lines, keys):
            waiting.setdefault(found["table"], []).append(found["row"])
        for table, rows in waiting.items():
            await self._make_table(schema, table)
            for first in range(0, len(rows), _INSERT_ROWS):
                new = await self._insert(schema, table, rows[first : first + _INSERT_ROWS])
                restored.rows[table] = restored.rows.get(table, 0) + new

    async def _make_table(self, schema: str, table: str) -> None:
        names = {"schema": sql.Identifier(schema), "table": sql.Identifier(table)}
        for statement in (
            "CREATE TABLE IF NOT EXISTS {schema}.{table} AS SELECT * FROM {table} WITH NO DATA",
            "CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {schema}.{table} (organization_id, id)",
        ):
            await self._connection.execute(
                sql.SQL(statement).format(**names, index=sql.Identifier(f"{table}_key"))
            )

    async def _insert(self, schema: str, table: str, rows: list[Any]) -> int:
        target = sql.Identifier(schema, table)
        cursor = await self._connection.execute(
            sql.SQL(
                "INSERT INTO {0} SELECT (jsonb_populate_record(NULL::{0}, r.value)).*"
                " FROM jsonb_array_elements(%s::jsonb) AS r ON CONFLICT DO NOTHING"
            ).format(target),
            (orjson.dumps(rows).decode(),),
        )
        return cursor.rowcount

    async def _fetch(self, statement: Any, *parameters: Any) -> list[tuple[Any, ...]]:
        return await (await self._connection.execute(statement, parameters)).fetchall()


async def _organizations(connection: db.Connection) -> list[dict[str, Any]]:
    cursor = await connection.execute(_HEALTH)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]


async def health(settings: Settings, organization: str | None) -> list[dict[str, Any]]:
    """What is in the archives, and since when what waits. Raises WaError."""
    return await db.once(settings.conninfo, "archive", _organizations, organization=organization)


async def write(
    settings: Settings, organization: str | None, take_over: bool = False, rows: int = ROWS
) -> dict[str, int]:
    """Archive all that is due; rows by name of the organization. Raises WaError."""

    async def work(connection: db.Connection) -> dict[str, int]:
        written = {}
        stores = Stores()
        for one in await _organizations(connection):
            await db.work_for(connection, one["organization_id"])
            archive = Archive(connection, stores, rows)
            written[one["name"]] = sum([await archive.write(kind, take_over) for kind in KINDS])
        return written

    return await db.once(settings.conninfo, "archive", work, organization=organization)


async def _files(connection: db.Connection, wanted: Callable[[File], bool]) -> AsyncIterator[File]:
    cursor = await connection.execute(_FILES)
    for row in await cursor.fetchall():
        file = File(*row)
        if wanted(file):
            await db.work_for(connection, file.organization)
            yield file


async def verify(settings: Settings, organization: str | None) -> tuple[int, list[str]]:
    """Read every file; how many there are, and what is wrong with any. Raises WaError."""

    async def work(connection: db.Connection) -> tuple[int, list[str]]:
        stores, count, wrong = Stores(), 0, []
        async for file in _files(connection, lambda _: True):
            count += 1
            archive = Archive(connection, stores)
            try:
                lines = await archive.lines(file)
                if sum(line["rows"] for line in lines) != file.rows:
                    raise ArchiveError(f"{file.name} holds another number of rows than was written")
                keys = await archive.keys(archive_files.key_ids(lines))
                for _ in archive_files.read(file.name, lines, keys):
                    pass
            except WaError as error:
                wrong.append(f"{file.name}: {error}")
        return count, wrong

    return await db.once(settings.conninfo, "archive", work, organization=organization)


async def restore(
    settings: Settings,
    organization: str | None,
    schema: str,
    kinds: tuple[str, ...] = KINDS,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Restored:
    """Put what the archive holds of a time into a schema of its own. Raises WaError."""

    def wanted(file: File) -> bool:
        return (
            file.kind in kinds
            and (since is None or file.last_at >= since)
            and (until is None or file.first_at < until)
        )

    async def work(connection: db.Connection) -> Restored:
        restored = Restored({})
        stores = Stores()
        try:
            await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        except InsufficientPrivilege as error:
            raise WaError(
                f"the schema {schema} cannot be made: {error.diag.message_primary}",
                f"As the owner of the database: GRANT CREATE ON DATABASE {connection.info.dbname}"
                f" TO {connection.info.user};",
            ) from error
        async for file in _files(connection, wanted):
            await Archive(connection, stores).restore(file, schema, restored)
        return restored

    return await db.once(settings.conninfo, "archive", work, organization=organization)
