"""Producers NOTIFY only while no dispatcher is awake, because a NOTIFY serialises their commits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
from psycopg import sql

from pg_whatsapp import log
from pg_whatsapp.db import Connection, Link

_logger = log.get("gate")
# How long one wait for notifications lasts before the gate looks whether it should change.
TICK_S = 0.05
# A waking dispatcher needs the lock that a sleeping one holds: it must not wait for that one's whole night.
LOCK_TIMEOUT = "100ms"


class Gate:
    """Holds the LISTEN connection and the session's advisory lock.

    Asleep: producers notify, and on_work is called for each notification. Awake: they do not, the claim loop
    polls. While the connection is away it is neither, and the claim loop polls too. on_work is also called
    after falling asleep and after a new connection, because something may have come just before.
    """

    def __init__(self, link: Link, channel: str, on_work: Callable[[], None]) -> None:
        self._link = link
        self._channel = channel
        self._on_work = on_work
        self._is_awake = False
        self.is_asleep = False
        #: Set by the claim loop: True while work keeps coming.
        self.wants_awake = False
        #: Notifications seen; the claim loop takes many of them as a sign that it should be awake.
        self.notified = 0

    async def run(self) -> None:
        """Serve until cancelled, through losses of the connection."""
        while True:
            try:
                connection = await self._link.get()
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
                self._on_work()
                while True:
                    await self._adjust(connection)
                    async for _ in connection.notifies(timeout=TICK_S, stop_after=1):
                        self.notified += 1
                        self._on_work()
            except psycopg.Error as error:
                _logger.warning("notifications interrupted, polling meanwhile", **log.describe(error))
                await asyncio.sleep(TICK_S)
            finally:
                self.is_asleep = self._is_awake = False
                await self._link.drop()

    async def _adjust(self, connection: Connection) -> None:
        if self.wants_awake:
            if not self._is_awake:
                # Given up in any case: the function lets go of what the session holds before it asks for
                # more.
                self.is_asleep = False
                try:
                    await connection.execute("SELECT wake_wa_dispatcher()")
                    self._is_awake = True
                except psycopg.errors.LockNotAvailable:
                    pass
        elif not self.is_asleep:
            self._is_awake = False
            row = await (await connection.execute("SELECT sleep_wa_dispatcher()")).fetchone()
            if row and row[0]:
                self.is_asleep = True
                self._on_work()
