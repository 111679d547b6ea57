"""Stores webhook bodies: requests that arrive together share one INSERT and one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg

from pg_whatsapp import errors, log
from pg_whatsapp.db import Link

_logger = log.get("receiver")
LARGEST_BATCH = 500
# What may wait in memory; beyond it the provider is told to come again.
MOST_WAITING = 5000
# A request waits this long for a database that is away, then the provider is told to come again.
PATIENCE_S = 5.0


class NotStoredError(Exception):
    """A body could not be stored; the sender has to repeat it."""


class WebhookBatcher:
    """One writer for all requests. on_stored is called after each commit."""

    def __init__(self, link: Link, on_stored: Callable[[], None]) -> None:
        self._link = link
        self._on_stored = on_stored
        self._some = asyncio.Event()
        self._waiting: list[tuple[bytes, str | None, asyncio.Future[None]]] = []

    async def store(self, body: bytes, source: str | None) -> None:
        """Return once the body is committed; raises NotStoredError if that cannot be had now."""
        if len(self._waiting) >= MOST_WAITING:
            raise NotStoredError
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((body, source, stored))
        self._some.set()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await stored
        except TimeoutError:
            # May be stored after all, and come again: processing is idempotent.
            raise NotStoredError from None

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await self._some.wait()
            batch = [waiting for waiting in self._waiting[:LARGEST_BATCH] if not waiting[2].done()]
            del self._waiting[:LARGEST_BATCH]
            if not self._waiting:
                self._some.clear()
            if batch:
                await self._store(batch)

    async def _store(self, batch: list[tuple[bytes, str | None, asyncio.Future[None]]]) -> None:
        failure: NotStoredError | None = None
        try:
            # %b: binary arrays, which need no escaping.
            await self._link.fetch(
                "SELECT ingest_wa_webhooks(%b::bytea[], %b::text[])",
                [body for body, _, _ in batch],
                [source for _, source, _ in batch],
            )
        except (psycopg.Error, errors.WaError) as error:
            _logger.error(
                "webhooks not stored, the sender repeats them", count=len(batch), **log.describe(error)
            )
            failure = NotStoredError()
        for _, _, stored in batch:
            if stored.done():
                continue
            if failure is None:
                stored.set_result(None)
            else:
                stored.set_exception(failure)
        if failure is None:
            self._on_stored()
