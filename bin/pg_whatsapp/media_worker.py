"""Fetches the files that webhooks announce, uploads those that messages name, deletes what nobody needs.

It knows no policy: the database says which file, from where, within which bounds and into which store, and is
told what became of it. Two connections, one of which only listens; a few files at a time.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from functools import partial
from typing import Any, NamedTuple

import httpx
import psycopg
from psycopg.types.json import Jsonb

from pg_whatsapp import errors, log, outside
from pg_whatsapp.config import Settings
from pg_whatsapp.credentials import Credentials
from pg_whatsapp.db import Link
from pg_whatsapp.leased import RETRY_S, LeasedWorker
from pg_whatsapp.media_stores import CHUNK, Place, StoreError, Stores, write_chunks
from pg_whatsapp.media_transfer import (
    Bounds,
    Content,
    ExpiredError,
    Fetched,
    Site,
    TransferError,
    Ways,
    describe,
    download,
    upload,
)
from pg_whatsapp.media_types import found_type
from pg_whatsapp.secrets import SecretBox

_CLAIM_UPLOADS = """
    SELECT organization_id::text, upload_id, attempt, phone_number_id, provider, path, mime_type, size,
    sha256, blob_id::text, store, location, object_key FROM claim_wa_media_uploads(%s)
"""
_CLAIM_FILES = """
    SELECT organization_id::text, media_id::text, attempt, phone_number_id, provider, path
    FROM claim_wa_media(%s)
"""
_CLAIM_GARBAGE = """
    SELECT organization_id::text, blob_id::text, store, location, object_key FROM claim_wa_media_garbage(%s)
"""
_RENEW_FILES = "SELECT renew_wa_media(%s::uuid[], %s::uuid[], %s::int[], %s::interval)"
_RENEW_UPLOADS = "SELECT renew_wa_media_uploads(%s::uuid[], %s::bigint[], %s::int[], %s::interval)"
_BEGIN = """
    SELECT verdict, max_size, timeout_s, least_per_s
    FROM begin_wa_media_download(%s::uuid, %s::uuid, %s, %s, %s, %s)
"""
_STORE = """
    SELECT verdict, blob_id::text, store, location, object_key
    FROM begin_wa_media_store(%s::uuid, %s::uuid, %s, %s, %s, %s)
"""
_WRITE = "SELECT write_wa_media_chunk(%s::uuid, %s::uuid, %s, %b)"
_FINISH = "SELECT finish_wa_media_store(%s::uuid, %s::uuid, %s, %s::uuid, %s)"
_FAIL = "SELECT fail_wa_media(%s::uuid, %s::uuid, %s, %s, %s)"
_READ = "SELECT read_wa_media_blob(%s::uuid, %s::uuid, %s, %s)"
_END_UPLOAD = "SELECT complete_wa_media_upload(%s::uuid, %s, %s, %s, %s::jsonb, %s)"
_END_GARBAGE = "SELECT end_wa_media_garbage(%s::uuid, %s::uuid, %s)"
CHANNEL = "wa_media"
# Finds what a lost notification told of, leases that ran out, and what waited for its next try.
POLL_S = 2.0
# How often a URL that is not good any more is asked for anew.
MOST_URLS = 3


class File(NamedTuple):
    """A file to be fetched, as claim_wa_media() hands it out."""

    organization: str
    media_id: str
    attempt: int
    number: str
    provider: str
    path: str | None


class Upload(NamedTuple):
    """A file to be uploaded, as claim_wa_media_uploads() hands it out."""

    organization: str
    upload_id: int
    attempt: int
    number: str
    provider: str
    path: str
    mime_type: str
    size: int | None
    sha256: bytes
    blob_id: str | None
    store: str | None
    location: str | None
    key: str | None


class Garbage(NamedTuple):
    """Bytes to be deleted, as claim_wa_media_garbage() hands them out."""

    organization: str
    blob_id: str
    store: str
    location: str
    key: str


class MediaWorker(LeasedWorker[File | Upload | Garbage]):
    """Works on files until stop(), or with drain until nothing is due."""

    def __init__(
        self,
        settings: Settings,
        box: SecretBox | None,
        http: httpx.AsyncBaseTransport,
        door: outside.OutsideTransport,
        *,
        concurrency: int = 8,
        drain: bool = False,
    ) -> None:
        self._listens = Link(settings.conninfo, "media listen")
        super().__init__(
            "media",
            "file",
            # Every file goes through the first: no lock of anybody's may stop it for long, whatever is asked.
            [Link(settings.conninfo, "media", lock_timeout="2s"), self._listens],
            Credentials(settings, box),
            concurrency=concurrency,
            poll_s=POLL_S,
            drain=drain,
        )
        self._http = http
        self._door = door
        self._stores = Stores()

    def _beside(self) -> list[Coroutine[Any, Any, None]]:
        return [*super()._beside(), self._listen()]

    # -- claiming

    async def _refresh(self) -> None:
        await super()._refresh()
        self._door.rules = await outside.fetch_rules(self._link)

    async def _start_claimed(self) -> int:
        """What messages wait for goes first, deleting last."""
        started = 0
        if free := self._free(Upload):
            for row in await self._link.fetch(_CLAIM_UPLOADS, free):
                upload_claim = Upload._make(row)
                self._start(upload_claim, partial(self._upload, upload_claim))
                started += 1
        if free := self._free(File):
            for row in await self._link.fetch(_CLAIM_FILES, free):
                file = File._make(row)
                self._start(file, partial(self._fetch, file))
                started += 1
        if free := self._free(Garbage):
            for row in await self._link.fetch(_CLAIM_GARBAGE, free):
                garbage = Garbage._make(row)
                self._start(garbage, partial(self._delete, garbage))
                started += 1
        return started

    def _free(self, kind: type[File | Upload | Garbage]) -> int:
        """Places for a kind of work: never all of them, so that none waits for the end of all of another.

        Deleting has the fewest: a bucket that does not answer takes its time for each.
        """
        most = self._concurrency // 4 if kind is Garbage else self._concurrency - 1
        same = sum(isinstance(one, kind) for one in self._held.values())
        left = self._concurrency - len(self._held)
        return max(0, min(left, max(1, most) - same))

    # -- beside claiming

    async def _listen(self) -> None:
        while True:
            try:
                connection = await self._listens.get()
                await connection.execute(f"LISTEN {CHANNEL}")
                self._work.set()
                async for _ in connection.notifies():
                    self._work.set()
            except (psycopg.Error, errors.UnavailableError) as error:
                self._logger.warning("notifications interrupted, polling meanwhile", **log.describe(error))
                await self._listens.drop()
                await asyncio.sleep(RETRY_S)

    async def _lease(self, held: list[File | Upload | Garbage], span: str) -> None:
        files = [one for one in held if isinstance(one, File)]
        if files:
            organizations, ids, attempts = zip(*((f[0], f[1], f[2]) for f in files), strict=True)
            await self._link.fetch(_RENEW_FILES, list(organizations), list(ids), list(attempts), span)
        uploads = [one for one in held if isinstance(one, Upload)]
        if uploads:
            organizations, ids, attempts = zip(*((u[0], u[1], u[2]) for u in uploads), strict=True)
            await self._link.fetch(_RENEW_UPLOADS, list(organizations), list(ids), list(attempts), span)

    # -- fetching

    def _site(self, claim: File | Upload) -> tuple[Site, httpx.URL] | None:
        """The provider as the number is known there, and the URL of the claim's path."""
        endpoint = self._credentials.endpoint(claim.organization, claim.number, claim.provider)
        if endpoint is None or claim.path is None:
            return None
        site = Site(claim.provider, endpoint.base_url, endpoint.headers)
        return site, endpoint.url(claim.path)

    async def _fetch(self, claim: File) -> None:
        found = self._site(claim)
        if found is None:
            what = "there is no access token" if claim.path else "the provider gave no id that could be asked"
            await self._fail(claim, what, is_final=claim.path is None)
            return
        site, url = found
        try:
            with tempfile.TemporaryFile(prefix="wa-media-") as file:
                fetched = await self._have(claim, site, url, file)
                if fetched is not None:
                    await self._store(claim, fetched, file)
        except (TransferError, StoreError) as error:
            await self._fail(claim, str(error))
        except OSError as error:
            await self._fail(claim, f"it could not be written down: {error.strerror}")

    async def _have(self, claim: File, site: Site, url: httpx.URL, file: Any) -> Fetched | None:
        """Ask for a file and have its bytes; None where the database wants it no more."""
        for last in range(MOST_URLS - 1, -1, -1):
            told = await describe(self._http, url, site)
            ((verdict, max_size, timeout_s, least_per_s),) = await self._link.fetch(
                _BEGIN,
                claim.organization,
                claim.media_id,
                claim.attempt,
                told.size,
                told.mime_type,
                told.sha256,
            )
            if verdict != "go":
                self._logger.info("file not wanted now", media_id=claim.media_id, state=verdict)
                return None
            try:
                return await download(
                    Ways(self._http, self._door),
                    told.url,
                    site,
                    Bounds(max_size, timeout_s, least_per_s),
                    file,
                )
            except ExpiredError:
                if not last:
                    raise
                file.seek(0)
                file.truncate()
        return None

    async def _store(self, claim: File, fetched: Fetched, file: Any) -> None:
        mine = (claim.organization, claim.media_id, claim.attempt)
        kind = found_type(fetched.head)
        ((verdict, blob_id, store, location, key),) = await self._link.fetch(
            _STORE, *mine, fetched.sha256, fetched.size, kind
        )
        if verdict == "write":
            if store == "database":

                async def write(n: int, piece: bytes) -> bool:
                    ((is_taken,),) = await self._link.fetch(_WRITE, claim.organization, blob_id, n, piece)
                    return bool(is_taken)

                await write_chunks(file, write)
            else:
                await self._stores.put(Place(store, location, key), file)
            ((verdict,),) = await self._link.fetch(_FINISH, *mine, blob_id, kind)
        if verdict == "stored":
            self._logger.info("file stored", media_id=claim.media_id, bytes=fetched.size)
        else:
            self._logger.warning(
                "file not stored, wa_media.error says why", media_id=claim.media_id, state=verdict
            )

    async def _fail(self, claim: File, why: str, *, is_final: bool = False) -> None:
        ((state,),) = await self._link.fetch(
            _FAIL, claim.organization, claim.media_id, why, is_final, claim.attempt
        )
        self._logger.warning("file not fetched", media_id=claim.media_id, why=why, state=state)

    # -- uploading

    async def _upload(self, claim: Upload) -> None:
        found = self._site(claim)
        if claim.blob_id is None or claim.size is None or claim.key is None or claim.store is None:
            await self._end_upload(claim, None, None, "the file is not here any more")
            return
        if found is None:
            await self._end_upload(claim, None, None, "there is no access token")
            return
        site, url = found
        place = Place(claim.store, claim.location, claim.key)

        async def read(offset: int) -> bytes:
            if place.store != "database":
                return await self._stores.read(place, offset, place.piece)
            ((piece,),) = await self._link.fetch(
                _READ, claim.organization, claim.blob_id, offset, CHUNK // 4, binary=True
            )
            return bytes(piece or b"")

        status, answer, why = await upload(
            self._http, url, site, claim.mime_type, Content(claim.size, claim.sha256, read)
        )
        await self._end_upload(claim, status, answer, why)

    async def _end_upload(self, claim: Upload, status: int | None, answer: Any, why: str | None) -> None:
        ((state,),) = await self._link.fetch(
            _END_UPLOAD,
            claim.organization,
            claim.upload_id,
            claim.attempt,
            status,
            Jsonb(answer),
            why,
        )
        if state == "uploaded":
            self._logger.info("file uploaded", phone_number_id=claim.number, bytes=claim.size)
        else:
            self._logger.warning(
                "file not uploaded, wa_media_uploads.error says why",
                phone_number_id=claim.number,
                http_status=status,
                state=state,
            )

    # -- deleting

    async def _delete(self, claim: Garbage) -> None:
        why = None
        try:
            await self._stores.delete(Place(claim.store, claim.location, claim.key))
        except StoreError as error:
            why = str(error)
            self._logger.warning("bytes not deleted, trying again", why=why)
        await self._link.fetch(_END_GARBAGE, claim.organization, claim.blob_id, why)
