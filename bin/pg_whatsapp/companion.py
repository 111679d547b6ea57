"""A process beside the dispatcher, for work that must not take its time from sending.

Whatever is done in the dispatcher's own process waits for the same interpreter as every message. A companion
is a `wa` process of its own with less priority, started when there is work for it; it ends when the
dispatcher does, however that ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, LiteralString

import psycopg

from pg_whatsapp import errors, log
from pg_whatsapp.db import Link

_logger = log.get("dispatcher")
LOOK_EVERY_S = 1.0
RESTART_S = 5.0
STOP_S = 25.0
NICENESS = 5


class Companion:
    """Runs `wa` with some arguments once a query, whose one value is a boolean, says that it is wanted."""

    def __init__(
        self,
        work: str,
        arguments: Sequence[str],
        question: LiteralString,
        *params: Any,
        is_for_sending: bool = False,
    ) -> None:
        #: Whether messages wait for it, so that it runs also while what is due is drained.
        self.is_for_sending = is_for_sending
        self._work = work
        self._arguments = arguments
        self._question = question
        self._params = params
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def run(self, link: Link) -> None:
        """Start it when it is wanted, and again should it end, until stop() and cancelled."""
        try:
            while not self._stopping:
                if not await self._is_wanted(link):
                    await asyncio.sleep(LOOK_EVERY_S)
                    continue
                status = await self._start()
                if not self._stopping:
                    _logger.error("a companion ended, to be started again", work=self._work, status=status)
                    await asyncio.sleep(RESTART_S)
        finally:
            await self._end()

    async def once(self, link: Link, *more: str) -> None:
        """Run it to its end, with more arguments, if it is wanted."""
        try:
            if await self._is_wanted(link):
                await self._start(*more)
        finally:
            await self._end()

    def stop(self) -> None:
        """Let it finish what is under way. Safe to call more than once."""
        self._stopping = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def _is_wanted(self, link: Link) -> bool:
        try:
            ((answer,),) = await link.fetch(self._question, *self._params)
        except (psycopg.Error, errors.UnavailableError):
            return False
        return bool(answer)

    async def _start(self, *more: str) -> int | None:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "pg_whatsapp", *self._arguments, *more), stdin=asyncio.subprocess.PIPE
            )
        except OSError as error:
            _logger.error("a companion cannot be started", work=self._work, **log.describe(error))
            return None
        return await self._process.wait()

    async def _end(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self.stop()
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def become_companion(stop: Callable[[], None]) -> None:
    """In such a process: have less priority, and stop when whoever started it closes our input, or dies."""
    loop = asyncio.get_running_loop()
    os.nice(NICENESS)

    def look() -> None:
        if not os.read(0, 1):
            loop.remove_reader(0)
            stop()

    loop.add_reader(0, look)
