"""Writes results back in batches, and keeps them until the database has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import psycopg

from pg_whatsapp import log
from pg_whatsapp.db import Link

_logger = log.get("recorder")
# A statement costs about as much as twenty rows: wait for a full batch, but not long.
FULL_BATCH = 100
LONGEST_WAIT_S = 0.03
LARGEST_BATCH = 1000
RETRY_S = 0.1
# Statement failures that pass: serialization, deadlock, locks and cancels, resources, connection limits.
_PASSING = ("40", "53", "55", "57")


class Recorder:
    """Results on their way to complete_wa_messages(), which is idempotent by id and attempt."""

    def __init__(self, link: Link, dispatcher_id: str, is_last: Callable[[], bool]) -> None:
        self._link = link
        self._dispatcher_id = dispatcher_id
        # Whether nothing more can come soon, so that waiting for a fuller batch is vain.
        self._is_last = is_last
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()
        self._waiting: list[dict[str, Any]] = []
        # Started, though the database does not take what became of them.
        self._refused: list[str] = []

    @property
    def pending(self) -> int:
        """Results that the database does not have yet."""
        return len(self._waiting)

    def held(self) -> list[str]:
        """Queue ids of the results that the database may not have yet."""
        return [*self._refused, *(result["id"] for result in self._waiting)]

    def add(self, result: dict[str, Any]) -> None:
        """Take one result."""
        self._waiting.append(result)
        count = len(self._waiting)
        if count == 1:
            self._none.clear()
            self._some.set()
        if count >= FULL_BATCH:
            self._full.set()

    async def run(self, on_recorded: Callable[[], None]) -> None:
        """Serve until cancelled; on_recorded is called after each batch."""
        while True:
            await self._some.wait()
            # Lets the workers that the event loop has ready finish first.
            await asyncio.sleep(0)
            if len(self._waiting) < FULL_BATCH and not self._is_last():
                await self._wait_for_more()
            batch = self._waiting[:LARGEST_BATCH]
            await self._record(batch)
            del self._waiting[: len(batch)]
            if len(self._waiting) < FULL_BATCH:
                self._full.clear()
            if not self._waiting:
                self._some.clear()
                self._none.set()
            on_recorded()

    async def drained(self) -> None:
        """Return once the database has every result."""
        await self._none.wait()

    async def _wait_for_more(self) -> None:
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                await self._full.wait()
        except TimeoutError:
            pass

    async def _record(self, batch: list[dict[str, Any]]) -> None:
        """Record a batch; one result that the database cannot take does not hold up the others."""
        try:
            await self._call(batch)
        except (psycopg.Error, orjson.JSONEncodeError) as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._record(batch[:middle])
                await self._record(batch[middle:])
            elif batch[0]["answer"] is not None:
                _logger.error(
                    "answer not stored, recording its status only",
                    queue_id=batch[0]["id"],
                    **log.describe(error),
                )
                await self._record([batch[0] | {"answer": None}])
            else:
                self._refused.append(batch[0]["id"])
                _logger.error(
                    "a result could not be recorded", queue_id=batch[0]["id"], **log.describe(error)
                )

    async def _call(self, batch: list[dict[str, Any]]) -> None:
        results = orjson.dumps(batch).decode()
        while True:
            try:
                await self._link.persist(
                    "SELECT complete_wa_messages(%s::uuid, %s::jsonb)", self._dispatcher_id, results
                )
                return
            except psycopg.Error as error:
                if not (error.sqlstate or "").startswith(_PASSING):
                    raise
                _logger.warning("results not recorded, trying again", **log.describe(error))
                await asyncio.sleep(RETRY_S)
