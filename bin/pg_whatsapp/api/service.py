"""Calls of SQL functions on behalf of a caller: role, limits, time-outs, errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import LiteralString

import psycopg
import psycopg_pool
from starlette.requests import Request

from pg_whatsapp import db, errors, log
from pg_whatsapp.api.caller import Caller, read_caller
from pg_whatsapp.api.problems import Problem, from_database
from pg_whatsapp.api.tokens import load_issuer
from pg_whatsapp.config import Settings
from pg_whatsapp.webhook_processor import Rejections

# A key without a limit is not asked about again for so long.
UNLIMITED_FOR_S = 10.0
MOST_UNLIMITED = 10_000
# What tries keys gets through one a second, however many it sends; so many wait for that at most.
GUESS_S = 1.0
MOST_GUESSES = 10
_WITHIN: LiteralString = "SELECT set_config('statement_timeout', %s, true)"
_COUNT: LiteralString = "SELECT quota, remaining, reset_s FROM count_wa_api_request(%s)"
_logger = log.get("api")


class Service:
    """The database behind the endpoints."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._issuer = load_issuer(settings)
        self._pool = db.make_pool(
            settings.conninfo,
            "serve api",
            settings.api_connections,
            statement_timeout=f"{int(settings.api_timeout_s * 1000)}ms",
            idle_in_transaction_session_timeout="10s",
            timezone="UTC",
        )
        self._link = db.Link(settings.conninfo, "serve api refusals")
        self._rejections = Rejections(
            self._link, "SELECT record_wa_api_rejection(%s, %s)", "API request refused"
        )
        self._unlimited: dict[bytes, float] = {}
        self._guessing = 0
        self._one_guess = asyncio.Lock()

    async def run(self) -> None:
        """Serve until cancelled: connections are opened when they are needed."""
        try:
            await self._pool.open(wait=False)
            await self._rejections.run()
        finally:
            await self._pool.close()
            await self._link.drop()

    async def call(
        self,
        request: Request,
        scope: str,
        statement: LiteralString,
        *params: object,
        timeout_s: float | None = None,
    ) -> bytes:
        """The answer of one SQL function as JSON, run as the caller of the request, within so many seconds.

        Counts the request where its key has a limit, and adds the RateLimit headers to the answer by
        request.state. Raises Problem.
        """
        caller = await self._admit(request)
        try:
            return await self._call(caller, scope, statement, params, timeout_s)
        except Problem as problem:
            if problem.status == 401:
                await self._punish(request, problem.detail)
            raise

    async def _admit(self, request: Request) -> Caller:
        try:
            caller = read_caller(request, self._issuer)
        except Problem as problem:
            await self._punish(request, problem.detail)
            raise
        if caller.key_hash is not None:
            await self._count(request, caller.key_hash)
        return caller

    async def _punish(self, request: Request, reason: str) -> None:
        source = request.client.host if request.client else "unknown"
        self._rejections.add(source, reason)
        if self._guessing >= MOST_GUESSES:
            raise Problem(429, "too-many-guesses", "too many requests with wrong keys at once")
        self._guessing += 1
        try:
            async with self._one_guess:
                await asyncio.sleep(GUESS_S)
        finally:
            self._guessing -= 1

    async def _count(self, request: Request, key_hash: bytes) -> None:
        now = monotonic()
        if self._unlimited.get(key_hash, 0.0) > now:
            return
        async with self._connection() as connection:
            row = await (await connection.execute(_COUNT, (key_hash,))).fetchone()
        if row is None:
            if len(self._unlimited) >= MOST_UNLIMITED:
                self._unlimited.clear()
            self._unlimited[key_hash] = now + UNLIMITED_FOR_S
            return
        quota, remaining, reset_s = row
        headers = {
            "ratelimit-policy": f'"key";q={quota};w=60',
            "ratelimit": f'"key";r={max(remaining, 0)};t={reset_s}',
        }
        request.state.headers = headers
        if remaining < 0:
            raise Problem(
                429,
                "too-many-requests",
                "the key has used up its requests of this minute",
                "Wait for as many seconds as Retry-After says.",
                headers=headers | {"retry-after": str(reset_s)},
            )

    async def _call(
        self,
        caller: Caller,
        scope: str,
        statement: LiteralString,
        params: tuple[object, ...],
        timeout_s: float | None,
    ) -> bytes:
        async with self._connection() as connection, connection.pipeline():
            async with connection.transaction():
                await connection.execute(*caller.opening(scope))
                if timeout_s is not None:
                    await connection.execute(_WITHIN, (f"{timeout_s:.0f}s",))
                cursor = await connection.execute(statement, params)
            [row] = await cursor.fetchall()
        return str(row[0]).encode()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[db.Connection]:
        """A connection of the pool; whatever goes wrong with it becomes a Problem."""
        try:
            async with self._pool.connection(timeout=self._settings.api_timeout_s) as connection:
                yield connection
        except psycopg_pool.PoolTimeout:
            raise Problem(503, "no-connection", "no connection to the database in time") from None
        except psycopg.Error as error:
            problem = from_database(error)
            if problem.status == 500:
                _logger.error("unforeseen error of the database", **log.describe(error))
            raise problem from None
        except errors.WaError as error:
            raise Problem(503, "no-connection", str(error), error.hint) from None
