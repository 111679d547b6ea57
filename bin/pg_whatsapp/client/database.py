"""The way over SQL: on a connection or pool of the caller's, or on connections of its own."""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import pq, sql
from psycopg.rows import tuple_row

from pg_whatsapp.client import failures
from pg_whatsapp.client.call import Call
from pg_whatsapp.errors import ConfigError, InstallationError

R = TypeVar("R")

#: Connections of its own that a client has at most; who wants more gives it a pool.
MOST_CONNECTIONS = 8
_FIND_SCHEMA: LiteralString = """
    SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_whatsapp'
"""
_CHOOSE: LiteralString = "SELECT pg_catalog.set_config('wa.organization_id', %s, true)"


def _settings(conninfo: str | None) -> dict[str, Any]:
    where = os.environ.get("DATABASE_URL", "") if conninfo is None else conninfo
    try:
        psycopg.conninfo.conninfo_to_dict(where)
    except psycopg.ProgrammingError:
        # Its text may quote all of the string, and so the password.
        raise ConfigError(
            "libpq cannot read the connection string",
            "As in postgresql://user@host:5432/database?sslmode=require, or dbname=shop user=web.",
        ) from None
    # Prepared statements would stay in sessions that a pooler gives to others.
    return {
        "conninfo": where,
        "autocommit": True,
        "connect_timeout": 10,
        "prepare_threshold": None,
    }


def _is_alive(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Whether a connection that nobody used for a while is there still: then its server has said nothing."""
    if connection.closed:
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return not selector.select(0)


class _Statements:
    """Statements with the schema of the extension in them: nobody's search_path is relied on, or changed."""

    def __init__(self) -> None:
        self._schema: sql.Identifier | None = None

    def of(self, call: Call[Any]) -> sql.Composed:
        return sql.SQL(call.statement).format(s=self._schema)

    @property
    def is_ready(self) -> bool:
        return self._schema is not None

    def found(self, row: tuple[Any, ...] | None) -> None:
        if row is None:
            raise InstallationError(
                "the extension pg_whatsapp is not installed in this database", "bin/wa migrate installs it."
            )
        self._schema = sql.Identifier(row[0])


class Given:
    """A connection, in whose transaction calls are made and nothing is committed; or a pool."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._statements = _Statements()

    def run(self, call: Call[R]) -> R:
        """The result of a call; raises WaError."""
        with failures.of_database(), self._connection() as connection:
            # Not connection.cursor(): frameworks make that one of their own.
            cursor = psycopg.Cursor(connection, row_factory=tuple_row)
            if not self._statements.is_ready:
                self._statements.found(cursor.execute(_FIND_SCHEMA).fetchone())
            [row] = cursor.execute(self._statements.of(call), call.values).fetchall()
        return call.read(failures.read(row[0]))

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        if isinstance(self._source, psycopg.Connection):
            yield self._source
        else:
            with self._source.connection() as connection:
                yield connection

    def close(self) -> None:
        """Nothing: what was given is its giver's."""


class Own(Given):
    """Connections that are opened when they are needed; each call is a transaction."""

    def __init__(self, conninfo: str | None, organization: str | None) -> None:
        super().__init__(None)
        self._settings = _settings(conninfo)
        self._organization = organization
        self._free: list[psycopg.Connection[Any]] = []
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        with self._places:
            connection = self._take() or psycopg.connect(**self._settings)
            try:
                if self._organization is None:
                    yield connection
                else:
                    with connection.transaction():
                        connection.execute(_CHOOSE, (self._organization,))
                        yield connection
            finally:
                # One whose call was cut off half-way is of no use to the next.
                if connection.info.transaction_status == pq.TransactionStatus.IDLE:
                    self._free.append(connection)
                else:
                    connection.close()

    def _take(self) -> psycopg.Connection[Any] | None:
        while self._free:
            connection = self._free.pop()
            if _is_alive(connection):
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Close the connections; another call opens new ones."""
        while self._free:
            self._free.pop().close()


class AsyncGiven:
    """As Given."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._statements = _Statements()

    async def run(self, call: Call[R]) -> R:
        """The result of a call; raises WaError."""
        with failures.of_database():
            async with self._connection() as connection:
                cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
                if not self._statements.is_ready:
                    await cursor.execute(_FIND_SCHEMA)
                    self._statements.found(await cursor.fetchone())
                await cursor.execute(self._statements.of(call), call.values)
                [row] = await cursor.fetchall()
        return call.read(failures.read(row[0]))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        if isinstance(self._source, psycopg.AsyncConnection):
            yield self._source
        else:
            async with self._source.connection() as connection:
                yield connection

    async def close(self) -> None:
        """Nothing: what was given is its giver's."""


class AsyncOwn(AsyncGiven):
    """As Own."""

    def __init__(self, conninfo: str | None, organization: str | None) -> None:
        super().__init__(None)
        self._settings = _settings(conninfo)
        self._organization = organization
        self._free: list[psycopg.AsyncConnection[Any]] = []
        self._places = asyncio.BoundedSemaphore(MOST_CONNECTIONS)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with self._places:
            connection = await self._take() or await psycopg.AsyncConnection.connect(**self._settings)
            try:
                if self._organization is None:
                    yield connection
                else:
                    async with connection.transaction():
                        await connection.execute(_CHOOSE, (self._organization,))
                        yield connection
            finally:
                if connection.info.transaction_status == pq.TransactionStatus.IDLE:
                    self._free.append(connection)
                else:
                    await connection.close()

    async def _take(self) -> psycopg.AsyncConnection[Any] | None:
        while self._free:
            connection = self._free.pop()
            if _is_alive(connection):
                return connection
            await connection.close()
        return None

    async def close(self) -> None:
        """Close the connections; another call opens new ones."""
        while self._free:
            await self._free.pop().close()
