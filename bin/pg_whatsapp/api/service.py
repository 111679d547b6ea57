"""Calls of SQL functions on behalf of a caller: role, limits, time-outs, errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
import psycopg_pool
from psycopg.pq import ExecStatus
from starlette.requests import Request

from pg_whatsapp import db, errors, log
from pg_whatsapp.api.caller import Caller, read_caller
from pg_whatsapp.api.problems import Problem, from_database
from pg_whatsapp.api.shares import STRANGERS, Fresh, Shares
from pg_whatsapp.api.tokens import load_issuer
from pg_whatsapp.config import Settings
from pg_whatsapp.secrets import SecretBox, load_box
from pg_whatsapp.webhook_processor import Rejections

# What a request may bring before its key was looked at.
SMALL_BODY = 64 * 1024
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
        self._box = load_box(settings)
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
        self._shares = Shares(settings.api_connections)
        # The organizations of keys that opened something, and keys that need not be counted.
        self._organizations = Fresh()
        self._unlimited = Fresh()
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
        """The answer of one SQL function as JSON, for the caller that was admitted, within so many seconds.

        Raises Problem.
        """
        caller: Caller = request.state.caller
        return await self._punished(request, self._call(caller, scope, statement, params, timeout_s))

    async def admit(self, request: Request, scope: str) -> None:
        """Look who asks, before anything of the body is read; for call(), in request.state. Raises Problem.

        The key is counted. Whether it opens the scope is left to the call, which asks the database anyway,
        unless much would have to be read before that.
        """
        try:
            request.state.caller = caller = read_caller(request, self._issuer)
        except Problem as problem:
            await self._punish(request, problem.detail)
            raise
        if caller.key_hash is None:
            return
        await self._count(request, caller)
        announced = request.headers.get("content-length", "0")
        is_large = "transfer-encoding" in request.headers or int(announced) > SMALL_BODY
        if is_large and self._organizations.get(caller.key_hash) is None:
            await self._punished(request, self._call(caller, scope, "SELECT ''"))

    async def _punished(self, request: Request, work: Coroutine[Any, Any, bytes]) -> bytes:
        """What it returns; who turns out to have no valid key waits for that answer."""
        try:
            return await work
        except Problem as problem:
            if problem.status == 401:
                await self._punish(request, problem.detail)
            raise

    def box(self) -> SecretBox:
        """What seals secrets; raises Problem where this process has no master key."""
        if self._box is None:
            raise Problem(
                503,
                "no-secret-key",
                "the web server has no key to seal secrets with",
                "Give it WA_SECRET_KEY or WA_SECRET_KEY_FILE, or use bin/wa events where they are.",
            )
        return self._box

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

    async def _count(self, request: Request, caller: Caller) -> None:
        key_hash = caller.key_hash
        if key_hash is None or self._unlimited.get(key_hash) is not None:
            return
        async with self._connection(caller) as connection:
            row = await (await connection.execute(_COUNT, (key_hash,))).fetchone()
        if row is None:
            self._unlimited.learn(key_hash)
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
        params: tuple[object, ...] = (),
        timeout_s: float | None = None,
    ) -> bytes:
        opened: psycopg.AsyncCursor[tuple[Any, ...]] | None = None
        try:
            async with self._connection(caller) as connection, connection.pipeline():
                async with connection.transaction():
                    opened = await connection.execute(*caller.opening(scope))
                    if timeout_s is not None:
                        await connection.execute(_WITHIN, (f"{timeout_s:.0f}s",))
                    cursor = await connection.execute(statement, params)
                [row] = await cursor.fetchall()
        finally:
            self._learn(caller, opened)
        return str(row[0]).encode()

    def _learn(self, caller: Caller, opened: psycopg.AsyncCursor[tuple[Any, ...]] | None) -> None:
        """Keep whose key it is, also where what came after it was refused."""
        result = opened and opened.pgresult
        if caller.key_hash is not None and result and result.status == ExecStatus.TUPLES_OK:
            self._organizations.learn(caller.key_hash, (result.get_value(0, 2) or b"").decode())

    def _who(self, caller: Caller) -> Hashable:
        """Whose share of the connections a caller has."""
        if caller.key_hash is None:
            return caller.claims and caller.claims[1]
        return self._organizations.get(caller.key_hash) or STRANGERS

    @asynccontextmanager
    async def _connection(self, caller: Caller) -> AsyncIterator[db.Connection]:
        """A connection of the pool; whatever goes wrong with it becomes a Problem."""
        patience_s = self._settings.api_timeout_s
        try:
            async with (
                self._shares.place(self._who(caller), patience_s),
                self._pool.connection(timeout=patience_s) as connection,
            ):
                yield connection
        except (TimeoutError, psycopg_pool.PoolTimeout):
            raise Problem(503, "no-connection", "no connection to the database in time") from None
        except psycopg.Error as error:
            problem = from_database(error)
            if problem.status == 500:
                _logger.error("unforeseen error of the database", **log.describe(error))
            raise problem from None
        except errors.WaError as error:
            raise Problem(503, "no-connection", str(error), error.hint) from None
