"""Work that the database hands out under a lease: taken while there is room, renewed, handed back at the end.

What is claimed here may be begun anew by anybody once its lease has run out: nothing is lost with a process.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from time import monotonic
from typing import Any, Generic, TypeVar

import psycopg

from pg_whatsapp import errors, log
from pg_whatsapp.credentials import Credentials
from pg_whatsapp.db import Link

#: Where the database could not be asked.
RETRY_S = 2.0
REFRESH_EVERY_S = 5.0
# A third of a lease.
RENEW_EVERY_S = 20.0
LEASE = "1 minute"
# At a stop, results that are known are told.
TELL_AFTER_STOP_S = 5.0
# What no repetition mends.
FINAL = (errors.NotAdoptedError, errors.VersionMismatchError, errors.RightsError)

Work = TypeVar("Work")


class LeasedWorker(ABC, Generic[Work]):
    """Works until stop(), or with drain until nothing is due."""

    def __init__(
        self,
        component: str,
        what: str,
        links: list[Link],
        credentials: Credentials,
        *,
        concurrency: int,
        poll_s: float,
        drain: bool = False,
    ) -> None:
        """The log's component and what it calls a piece of work; the first link is asked, all end with it."""
        self._logger = log.get(component)
        self._what = what
        self._links = links
        self._link = links[0]
        self._credentials = credentials
        self._concurrency = concurrency
        self._poll_s = poll_s
        self._drain = drain
        self._work = asyncio.Event()
        self._stopping = False
        self._refresh_at = 0.0
        # What is under way, to be renewed and, at the end, handed back.
        self._held: dict[asyncio.Task[None], Work] = {}

    @abstractmethod
    async def _start_claimed(self) -> int:
        """Claim what is due, start it, and return how much that was; there is at least one place."""

    @abstractmethod
    async def _lease(self, held: list[Work], span: str) -> None:
        """Hold so much for so long from now."""

    async def _refresh(self) -> None:
        """Learn what changes meanwhile; called every few seconds before something is claimed."""
        await self._credentials.refresh(self._link)

    def _beside(self) -> list[Coroutine[Any, Any, None]]:
        """What runs meanwhile, cancelled at the end."""
        return [self._renew()]

    async def run(self) -> None:
        """Work until stopped or drained; WaError if the database refuses for good."""
        beside = [asyncio.create_task(part) for part in self._beside()]
        self._logger.info("working", concurrency=self._concurrency)
        try:
            while not self._stopping:
                self._work.clear()
                started = await self._start_due()
                if self._drain and started == 0 and not self._held:
                    return
                if not started or len(self._held) >= self._concurrency:
                    await self._wait(self._poll_s if started is not None else RETRY_S)
        finally:
            await self._hand_back()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            for link in self._links:
                await link.drop()

    def stop(self) -> None:
        """Give up what is under way, which others then begin anew, and end. Safe to call more than once."""
        self._stopping = True
        for link in self._links:
            link.give_up_at = monotonic()
        self._work.set()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._work.wait()

    async def _start_due(self) -> int | None:
        """Start what is due; how much, None where the database could not be asked."""
        if len(self._held) >= self._concurrency:
            return 0
        try:
            if monotonic() >= self._refresh_at:
                await self._refresh()
                self._refresh_at = monotonic() + REFRESH_EVERY_S
            return await self._start_claimed()
        except psycopg.Error as error:
            refusal = errors.from_database(error)
            if isinstance(refusal, FINAL):
                raise refusal from error
            # Whether it committed or not: what was claimed and is not held here is handed out again.
            self._logger.warning("not claimed, trying again", **log.describe(error))
            return None
        except errors.UnavailableError:
            return None

    def _start(self, work: Work, do: Callable[[], Awaitable[None]]) -> None:
        async def guarded() -> None:
            try:
                await do()
            except (psycopg.Error, errors.UnavailableError) as error:
                # The lease runs out, then it is begun anew.
                self._logger.warning(f"a {self._what} is left for later", **log.describe(error))

        def ended(task: asyncio.Task[None]) -> None:
            del self._held[task]
            self._work.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                self._logger.error(f"a {self._what} is left for later", **log.describe(error))

        task = asyncio.create_task(guarded())
        self._held[task] = work
        task.add_done_callback(ended)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            with suppress(psycopg.Error, errors.UnavailableError):
                await self._lease(list(self._held.values()), LEASE)

    async def _hand_back(self) -> None:
        """End what is under way, and let others have it at once."""
        with suppress(TimeoutError, psycopg.Error, errors.UnavailableError):
            async with asyncio.timeout(TELL_AFTER_STOP_S):
                await self._lease(list(self._held.values()), "0 seconds")
        for task in list(self._held):
            task.cancel()
        if self._held:
            await asyncio.gather(*self._held, return_exceptions=True)
