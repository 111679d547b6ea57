"""Connections to the database that come back after it was away."""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, LiteralString, TypeVar
from uuid import UUID

import psycopg
import psycopg_pool
from psycopg import sql
from psycopg.pq import TransactionStatus

from pg_whatsapp import errors, log

T = TypeVar("T")

_logger = log.get("database")
# Where the extension's functions are; the user chose the schema, so the path is set once per connection.
_FIND_SCHEMA = """
    SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_whatsapp'
"""
# What the role, the database or a pooler may have set otherwise, and what we mean by our statements.
_SETTINGS = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "standard_conforming_strings": "on",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    # Our statements are short. One that the planner takes for dear would be compiled for longer than it runs.
    "jit": "off",
}
_PARAMETER = re.compile(r'invalid (?:URI query parameter|connection option):? "(\w+)"')
# How often two connections are asked for their sessions: a pooler may hand out several in turn.
POOL_LOOKS = 6
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


class Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that settles what its statements depend on, once; behind a pooler, in each transaction.

    A pooler may give each transaction another session, which others use before and after: nothing that a
    session keeps (settings, prepared statements) may be left there, nor be expected.
    """

    #: Whether the session at the other end is not the one that answered our start: a pooler is between.
    is_pooled = False
    settings: dict[str, str]

    async def settle(self, settings: dict[str, str]) -> None:
        """Have these settings from now on."""
        self.settings = getattr(self, "settings", {}) | settings
        if not self.is_pooled or self.info.transaction_status != TransactionStatus.IDLE:
            await self._apply(settings)

    async def _apply(self, settings: dict[str, str]) -> None:
        calls = [
            sql.SQL("pg_catalog.set_config({}, {}, {})").format(name, value, self.is_pooled)
            for name, value in settings.items()
        ]
        await super().execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls)))

    async def execute(self, *args: Any, **kwargs: Any) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        """As that of psycopg; behind a pooler a statement by itself is a transaction that settles first."""
        if not self.is_pooled or self.info.transaction_status != TransactionStatus.IDLE:
            return await super().execute(*args, **kwargs)
        async with self.transaction():
            return await super().execute(*args, **kwargs)

    @asynccontextmanager
    async def transaction(self, *args: Any, **kwargs: Any) -> AsyncIterator[psycopg.AsyncTransaction]:
        """As that of psycopg."""
        is_outermost = self.info.transaction_status == TransactionStatus.IDLE
        async with super().transaction(*args, **kwargs) as transaction:
            if self.is_pooled and is_outermost:
                await self._apply(self.settings)
            yield transaction


async def connect(
    conninfo: str, name: str, *, need_schema: bool = True, options: dict[str, str] | None = None
) -> Connection:
    """A new autocommit connection whose search_path finds the extension's objects.

    name shows up in pg_stat_activity as `wa <name>`. options are server settings. Raises
    psycopg.OperationalError when the server is away, and DatabaseError when the extension is not installed
    and need_schema asks for it.
    """
    try:
        connection = await Connection.connect(
            conninfo, autocommit=True, application_name=f"wa {name}", connect_timeout=10
        )
    except psycopg.ProgrammingError as error:
        # Its text may quote all of the string, and so the password.
        found = _PARAMETER.search(str(error))
        what = (
            f'it has the parameter "{found[1]}", which libpq does not know'
            if found
            else "libpq cannot read it"
        )
        raise errors.ConfigError(
            f"DATABASE_URL is malformed: {what}",
            "As in postgresql://user@host:5432/database?sslmode=require; without ?schema=, which other"
            " programs add: the extension's schema is found by itself.",
        ) from None
    try:
        await _begin(connection, options or {}, need_schema=need_schema)
    except BaseException:
        await connection.close()
        raise
    return connection


async def _begin(connection: Connection, options: dict[str, str], *, need_schema: bool = True) -> None:
    """Have a new connection settle what its statements depend on."""
    if await _session(connection) != connection.info.backend_pid:
        connection.is_pooled = True
        connection.prepare_threshold = None
    await connection.settle(_SETTINGS | options)
    if not await set_search_path(connection) and need_schema:
        raise errors.DatabaseError(
            "the extension pg_whatsapp is not installed in this database", "bin/wa migrate installs it."
        )


def make_pool(
    conninfo: str, name: str, size: int, **options: str
) -> psycopg_pool.AsyncConnectionPool[Connection]:
    """Up to `size` connections as those of connect(), opened when they are needed; to be opened itself."""

    async def begin(connection: Connection) -> None:
        await _begin(connection, options)

    return psycopg_pool.AsyncConnectionPool(
        conninfo,
        connection_class=Connection,
        kwargs={"autocommit": True, "application_name": f"wa {name}", "connect_timeout": 10},
        min_size=0,
        max_size=size,
        configure=begin,
        open=False,
        name=name,
        reconnect_timeout=LONGEST_DELAY_S,
    )


async def set_search_path(connection: Connection) -> bool:
    """Let unqualified names mean the extension's schema; False where the extension is not installed."""
    found = await (await connection.execute(_FIND_SCHEMA)).fetchone()
    if found is None:
        return False
    await connection.settle({"search_path": sql.Identifier(found[0]).as_string() + ", pg_temp"})
    return True


async def _session(connection: Connection) -> int:
    row = await (await connection.execute("SELECT pg_catalog.pg_backend_pid()")).fetchone()
    return int(row[0]) if row else 0


async def require_session(conninfo: str) -> None:
    """Raise ConfigError if a connection does not keep its session: LISTEN and our locks would be lost.

    Behind a pooler it is found out by looking: two connections that are open at the same time meet the same
    session, or one meets several.
    """
    first = await connect(conninfo, "pooling", need_schema=False)
    async with first:
        if not first.is_pooled:
            return
        async with await connect(conninfo, "pooling", need_schema=False) as second:
            seen = [(await _session(first), await _session(second)) for _ in range(POOL_LOOKS)]
    ours, theirs = ({pair[n] for pair in seen} for n in (0, 1))
    if len(ours) > 1 or ours & theirs:
        raise errors.ConfigError(
            "the connection goes through a pooler that gives each transaction another session, and dispatch"
            " needs one that stays (LISTEN, locks)",
            "Give dispatch the server's own address, or a pool in session mode. serve, the other commands and"
            " your applications may stay behind the pooler.",
        )


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
                        libpq=_text(error),
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

    async def fetch(
        self, statement: LiteralString, *params: Any, binary: bool = False
    ) -> list[tuple[Any, ...]]:
        """Run one statement once and return its rows; binary: they come as they are, not as text.

        A lost connection is dropped and raised as psycopg.OperationalError: only the caller knows whether the
        statement may be repeated. Other errors of the database pass through.
        """
        connection = await self.get()
        try:
            return await (await connection.execute(statement, params, binary=binary)).fetchall()
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


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _text(error: psycopg.Error) -> str:
    """What libpq says of a connection that failed: host, port, user and why; never a password."""
    return " ".join(str(error).split())[:300]


async def work_for(connection: Connection, organization: str) -> None:
    """Let a connection work for an organization, by its id or its name; raises TenantError."""
    found = await connection.execute(
        "SELECT id::text FROM wa_organizations WHERE id::text = lower(%s) OR name = %s",
        (organization, organization),
    )
    rows = await found.fetchall()
    if len(rows) != 1:
        raise errors.TenantError(
            f"there {'is no organization' if not rows else 'are several organizations'} {organization}",
            "SELECT id, name FROM wa_organizations; shows them to a wa_admin.",
        )
    await connection.settle({"wa.organization_id": rows[0][0]})


async def once(
    conninfo: str,
    name: str,
    work: Callable[[Connection], Awaitable[T]],
    need_schema: bool = True,
    organization: str | None = None,
) -> T:
    """Run `work` on a connection of its own, for an organization; raises WaError with a line to show."""
    try:
        # Who may work for several has to choose before anything else, and a role of one need not.
        chosen = {"wa.organization_id": organization} if organization and _is_id(organization) else {}
        connection = await connect(conninfo, name, need_schema=need_schema, options=chosen)
        async with connection:
            if organization:
                await work_for(connection, organization)
            return await work(connection)
    except psycopg.OperationalError as error:
        if error.sqlstate is None:
            raise errors.UnavailableError(
                f"cannot reach the database: {_text(error)}",
                "Is it running, and do DATABASE_URL or the PG* variables name it?",
            ) from error
        raise errors.from_database(error) from error
    except psycopg.Error as error:
        raise errors.from_database(error) from error
