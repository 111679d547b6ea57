"""Stores webhook bodies: requests that arrive together share one INSERT and one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

import psycopg

from pg_whatsapp import errors, log
from pg_whatsapp.db import Link
from pg_whatsapp.providers import Provider

_logger = log.get("receiver")
LARGEST_BATCH = 500
# What may wait in memory; beyond it the provider is told to come again.
MOST_WAITING = 5000
MOST_WAITING_BYTES = 64 * 1024 * 1024
# A request waits this long for a database that is away, then the provider is told to come again.
PATIENCE_S = 5.0
# How often those are looked for: a timer for each request would cost as much as checking its signature.
LOOK_S = 0.5


class NotStoredError(Exception):
    """A body could not be stored; the sender has to repeat it."""


class OverreachError(Exception):
    """A body speaks for a number that the secret of its request is not for."""


class _Waiting(NamedTuple):
    """One request until its body is stored."""

    body: bytes
    source: str | None
    secrets: list[str]
    provider: Provider
    since: float
    stored: asyncio.Future[None]


class WebhookBatcher:
    """One writer: while it commits, what comes next gathers. on_stored is called after each commit."""

    def __init__(self, link: Link, on_stored: Callable[[], None]) -> None:
        self._link = link
        self._on_stored = on_stored
        self._some = asyncio.Event()
        self._waiting: list[_Waiting] = []
        self._bytes = 0
        self._storing: list[_Waiting] = []

    async def store(self, body: bytes, source: str | None, secrets: list[str], provider: Provider) -> None:
        """Return once the body is committed; raises NotStoredError if that cannot be had now.

        secrets: ids of those that vouch for it, which are remembered. Where the provider vouches by number,
        OverreachError is raised if they are not for what the body speaks of.
        """
        if len(self._waiting) >= MOST_WAITING or self._bytes > MOST_WAITING_BYTES:
            raise NotStoredError
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._bytes += len(body)
        self._waiting.append(_Waiting(body, source, secrets, provider, monotonic(), stored))
        self._some.set()
        try:
            await stored
        finally:
            self._bytes -= len(body)

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await self._some.wait()
            self._storing = [one for one in self._waiting[:LARGEST_BATCH] if not one.stored.done()]
            del self._waiting[:LARGEST_BATCH]
            if not self._waiting:
                self._some.clear()
            for provider in {one.provider: None for one in self._storing}:
                await self._store(provider, [one for one in self._storing if one.provider is provider])

    async def give_up(self) -> None:
        """Until cancelled, end what has waited for too long."""
        while True:
            await asyncio.sleep(LOOK_S)
            oldest = monotonic() - PATIENCE_S
            for one in (*self._storing, *self._waiting):
                if one.since < oldest and not one.stored.done():
                    # May be stored after all, and come again: processing is idempotent.
                    one.stored.set_exception(NotStoredError())

    async def _store(self, provider: Provider, batch: list[_Waiting]) -> None:
        failure: NotStoredError | None = None
        ids: list[int | None] = []
        try:
            # %b: binary arrays, which need no escaping.
            bodies, sources = [one.body for one in batch], [one.source for one in batch]
            secrets = ["{" + ",".join(one.secrets) + "}" for one in batch]
            if provider.vouches_by_number:
                [[ids]] = await self._link.fetch(
                    "SELECT ingest_wa_vouched_webhooks(%b::bytea[], %b::text[], %b::text[])",
                    bodies,
                    sources,
                    secrets,
                )
            else:
                await self._link.fetch(
                    "SELECT ingest_wa_webhooks(%b::bytea[], %b::text[], %s, %b::text[])",
                    bodies,
                    sources,
                    provider.name,
                    secrets,
                )
        except (psycopg.Error, errors.WaError) as error:
            _logger.error(
                "webhooks not stored, the sender repeats them", count=len(batch), **log.describe(error)
            )
            failure = NotStoredError()
        for place, one in enumerate(batch):
            if one.stored.done():
                continue
            if failure is not None:
                one.stored.set_exception(failure)
            elif ids and ids[place] is None:
                one.stored.set_exception(OverreachError())
            else:
                one.stored.set_result(None)
        if failure is None:
            self._on_stored()
