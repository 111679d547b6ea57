"""Where the bytes of files are: the database, a directory, an S3-compatible bucket.

Which one, and under which key, the database says. Credentials and the address of a bucket come from the
environment, under the names that all S3 tools know (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
AWS_ENDPOINT_URL, ...).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, TypeVar

from pg_whatsapp.errors import WaError

if TYPE_CHECKING:
    from obstore.store import S3Store

T = TypeVar("T")

#: Of a file in the database: a row each.
CHUNK = 1 << 20
#: What is read from a store at a time; from a bucket more, since each is a request.
PIECE = 1 << 17
BUCKET_PIECE = 1 << 19
CONNECT_TIMEOUT_S = 5
# Of one request to a bucket: a part of an upload, a piece that is read.
REQUEST_TIMEOUT_S = 60
# From the first request to the last repetition's beginning; the database has all of it tried again later.
RETRY_TIMEOUT_S = 30
# A part of an upload, the least that S3 takes, and how many files go to a bucket at once: each has some in
# memory.
PART = 5 << 20
MOST_PUTS = 1
_KEY = re.compile(r"[0-9a-f-]{36}/([0-9a-f-]{36}|[a-z]+-[0-9]{8,}-[0-9a-f]{8}\.(jsonl\.gz|json))")
# As in InvalidAccessKeyId, RequestTimeTooSkewed, SlowDown.
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>", re.ASCII)
_S3 = re.compile(r"s3://([^/]+)(?:/(.+))?")


class StoreError(WaError):
    """A store outside of the database does not do what it should; the text names no key and no secret."""


class Place(NamedTuple):
    """Where the bytes of one file are, or will be, as the database says it.

    key: ORGANIZATION/BLOB, or of an archive ORGANIZATION/KIND-NUMBER-XXXXXXXX and what is in it.
    """

    store: str
    location: str | None
    key: str

    @property
    def piece(self) -> int:
        """How many bytes are read at a time."""
        return BUCKET_PIECE if self.store == "s3" else PIECE


class Stores:
    """The stores outside of the database. Raises StoreError."""

    def __init__(self) -> None:
        self._buckets: dict[str, S3Store] = {}
        # By location: who has a bucket that hangs keeps nobody from another one.
        self._puts: dict[str, asyncio.Semaphore] = {}

    async def put(self, place: Place, file: IO[bytes]) -> None:
        """Write all of a file to its place. It is there as a whole, or not at all."""
        if place.store == "directory":
            await _guarded(asyncio.to_thread(_write, _path(place), file))
            return
        import obstore

        file.seek(0)
        bucket = self._bucket(place)
        async with self._puts.setdefault(place.location or "", asyncio.Semaphore(MOST_PUTS)):
            await _guarded(
                obstore.put_async(bucket, _checked(place), file, chunk_size=PART, max_concurrency=1)
            )

    async def read(self, place: Place, offset: int, length: int) -> bytes:
        """That many bytes from an offset; fewer only at the end."""
        if place.store == "directory":
            return await _guarded(asyncio.to_thread(_read, _path(place), offset, length))
        import obstore

        got = await _guarded(
            obstore.get_range_async(self._bucket(place), _checked(place), start=offset, length=length)
        )
        return bytes(got)

    async def delete(self, place: Place) -> None:
        """Make sure that nothing is there."""
        if place.store == "directory":
            await _guarded(asyncio.to_thread(_delete, _path(place)))
            return
        await _guarded(_delete_object(self._bucket(place), _checked(place)))

    def _bucket(self, place: Place) -> S3Store:
        location = place.location or ""
        if location not in self._buckets:
            self._buckets[location] = _open_bucket(location)
        return self._buckets[location]


def _open_bucket(location: str) -> S3Store:
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    named = _S3.fullmatch(location)
    if named is None:
        raise StoreError("the location of the bucket is not of the form s3://BUCKET/PREFIX")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    try:
        return S3Store(
            named[1],
            prefix=named[2],
            client_options={
                "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
                "allow_http": endpoint.startswith("http://"),
            },
            retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S)},
        )
    except (BaseError, ValueError) as error:
        raise StoreError(
            f"the bucket {named[1]} cannot be used: {type(error).__name__}",
            "Are AWS_REGION and the other AWS_* variables of this process right?",
        ) from error


async def _guarded(work: Awaitable[T]) -> T:
    """What it returns; its errors as ours, in words that hold no key."""
    try:
        return await work
    except Exception as error:
        # The rest of a bucket's words quotes the key.
        if code := _CODE.search(str(error)):
            raise StoreError(f"the bucket does not do it: {code[1]}") from error
        if isinstance(error, FileNotFoundError):
            raise StoreError("the bytes, or their directory, are not there") from error
        if isinstance(error, OSError):
            raise StoreError(f"the store answers: {error.strerror or type(error).__name__}") from error
        if type(error).__module__.startswith("obstore"):
            raise StoreError(f"the bucket does not do it: {type(error).__name__}") from error
        raise


async def _delete_object(bucket: S3Store, key: str) -> None:
    import obstore

    # S3 itself says nothing of an object that is not there.
    with suppress(FileNotFoundError):
        await obstore.delete_async(bucket, key)


def _checked(place: Place) -> str:
    if _KEY.fullmatch(place.key) is None:
        raise StoreError("the key is none of ours")
    return place.key


def _path(place: Place) -> Path:
    return Path(place.location or "") / _checked(place)


def _part(path: Path) -> Path:
    """Where a file is while it is being written; found again by who deletes what was given up."""
    return path.with_name(f".{path.name}.part")


def _write(path: Path, file: IO[bytes]) -> None:
    """Beside its place first, since a name must never lead to half a file."""
    # Its own directory only: a store that is not mounted is not written beneath its mount point.
    with suppress(FileExistsError):
        path.parent.mkdir(mode=0o750)
    file.seek(0)
    part = _part(path)
    try:
        with _open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, "wb") as target:
            while piece := file.read(CHUNK):
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _open(path: Path, flags: int, mode: str) -> IO[bytes]:
    """A file of ours, and not what somebody who may write there has its name lead to."""
    return open(os.open(path, flags | os.O_NOFOLLOW, 0o640), mode)


def _read(path: Path, offset: int, length: int) -> bytes:
    with _open(path, os.O_RDONLY, "rb") as file:
        file.seek(offset)
        return file.read(length)


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)
    _part(path).unlink(missing_ok=True)


async def write_chunks(file: IO[bytes], write: Callable[[int, bytes], Awaitable[bool]]) -> bool:
    """Hand all of a file over, a mebibyte at a time with its number; False once one is not taken."""
    file.seek(0)
    n = 0
    while piece := await asyncio.to_thread(file.read, CHUNK):
        if not await write(n, piece):
            return False
        n += 1
    return True
