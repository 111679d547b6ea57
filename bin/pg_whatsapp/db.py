"""Connections to the database that come back after it was away."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql

from pg_whatsapp import errors, log

T = TypeVar("T")
Connection = psycopg.AsyncConnection[tuple[Any, ...]]

_logger = log.get("database")
# Where the extension's functions are; the user chose the schema, so the path is set once per connection.
_FIND_SCHEMA = """
    SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_whatsapp'
"""
FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 2.0
# A connection that died (server restart, network) or a server that cannot take one now.
_AWAY = (psycopg.OperationalError, psycopg.InterfaceError)


def is_away(error: BaseException) -> bool:
    """Whether an error means that the connection is gone, as opposed to a statement that failed."""
    if not isinstance(error, _AWAY):
        return False
    # 57P0x: shutdown; 53300: too many connections; class 08: connection. None: libpq lost the socket.
    state = error.sqlstate
    return state is None or state.startswith(("57P0", "08")) or state == "53300"


async def connect(
    conninfo: str, name: str, *, need_schema: bool = True, options: dict[str, str] | None = None
) -> Connection:
    """A new autocommit connection whose search_path finds the extension's objects.

    name shows up in pg_stat_activity as `wa <name>`. options are server settings. Raises
    psycopg.OperationalError when the server is away, and DatabaseError when the extension is not installed
    and need_schema asks for it.
    """
    connection = await psycopg.AsyncConnection.connect(
        conninfo, autocommit=True, application_name=f"wa {name}", connect_timeout=10
    )
    try:
        if not await set_search_path(connection) and need_schema:
            raise errors.DatabaseError(
                "the extension pg_whatsapp is not installed in this database", "bin/wa migrate installs it."
            )
        for setting, value in (options or {}).items():
            await connection.execute("SELECT set_config(%s, %s, false)", (setting, value))
    except BaseException:
        await connection.close()
        raise
    return connection


async def set_search_path(connection: Connection) -> bool:
    """Let unqualified names mean the extension's schema; False where the extension is not installed."""
    found = await (await connection.execute(_FIND_SCHEMA)).fetchone()
    if found is None:
        return False
    await connection.execute(sql.SQL("SET search_path TO {}, pg_temp").format(sql.Identifier(found[0])))
    return True


class Link:
    """One connection that is opened when needed and again after it was lost."""

    def __init__(self, conninfo: str, name: str, **options: str) -> None:
        self._conninfo = conninfo
        self._name = name
        self._options = options
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        #: Monotonic time from which get() no longer waits for a server that is away.
        self.give_up_at = math.inf

    async def get(self) -> Connection:
        """The connection, once the server is there; raises UnavailableError after give_up_at."""
        async with self._lock:
            delay = FIRST_DELAY_S
            while self._connection is None or self._connection.closed:
                try:
                    self._connection = await connect(self._conninfo, self._name, options=self._options)
                except psycopg.OperationalError as error:
                    _logger.warning(
                        "cannot connect, trying again",
                        link=self._name,
                        wait_s=round(delay, 2),
                        **log.describe(error),
                    )
                    if monotonic() + delay > self.give_up_at:
                        raise errors.UnavailableError("cannot reach the database") from error
                    await asyncio.sleep(delay * random.uniform(0.75, 1.25))  # noqa: S311
                    delay = min(delay * 2, LONGEST_DELAY_S)
            return self._connection

    async def drop(self) -> None:
        """Close the connection; the next get() opens another."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def fetch(self, statement: LiteralString, *params: Any) -> list[tuple[Any, ...]]:
        """Run one statement once and return its rows.

        A lost connection is dropped and raised as psycopg.OperationalError: only the caller knows whether the
        statement may be repeated. Other errors of the database pass through.
        """
        connection = await self.get()
        try:
            return await (await connection.execute(statement, params)).fetchall()
        except psycopg.Error as error:
            if is_away(error) or connection.closed:
                await self.drop()
                raise psycopg.OperationalError("connection lost") from error
            raise

    async def persist(self, statement: LiteralString, *params: Any) -> list[tuple[Any, ...]]:
        """Run one statement that may safely be repeated, until the server has answered it."""
        while True:
            try:
                return await self.fetch(statement, *params)
            except psycopg.OperationalError as error:
                if error.sqlstate is not None:
                    raise
                _logger.warning("connection lost, trying again", link=self._name)
                await asyncio.sleep(FIRST_DELAY_S)


async def once(
    conninfo: str, name: str, work: Callable[[Connection], Awaitable[T]], need_schema: bool = True
) -> T:
    """Run `work` on a connection of its own; raises WaError with a line that may be shown."""
    try:
        connection = await connect(conninfo, name, need_schema=need_schema)
        async with connection:
            return await work(connection)
    except psycopg.OperationalError as error:
        if error.sqlstate is None:
            raise errors.UnavailableError(
                "cannot reach the database",
                "Is it running, and do DATABASE_URL or the PG* variables name it?",
            ) from error
        raise errors.from_database(error) from error
    except psycopg.Error as error:
        raise errors.from_database(error) from error
