"""Whether the web server is alive and can serve, for load balancers: /healthz and /readyz."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import orjson
import psycopg
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pg_whatsapp import db, errors
from pg_whatsapp.config import Settings
from pg_whatsapp.lately import Lately

TIMEOUT_S = 5.0
# Anybody may ask, without a key: a flood must not make a load balancer's own question wait behind it.
GOOD_FOR_S = 1.0
_JSON = "application/json"


class Readiness:
    """The endpoints that tell how the process stands, whichever other parts it has."""

    def __init__(self, settings: Settings, *, has_health: bool) -> None:
        self._link = db.Link(settings.conninfo, "serve readiness")
        self._told = Lately(self._ask, GOOD_FOR_S)
        #: Whether nobody else answers at /healthz.
        self._has_health = has_health

    def routes(self) -> list[BaseRoute]:
        """Its endpoints."""
        routes: list[BaseRoute] = [Route("/readyz", self.ready, methods=["GET"])]
        if self._has_health:
            routes.append(Route("/healthz", _alive, methods=["GET"]))
        return routes

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """Nothing runs beside them."""
        return []

    async def close(self) -> None:
        """Give up its connection."""
        await self._link.drop()

    async def ready(self, _request: Request) -> Response:
        """200 while requests can be served, 503 otherwise; the body says how things stand.

        Schema and extension are of one release, the database is no standby, the role may serve. How far the
        processing of webhooks is behind is told as webhooks_lag_s, in seconds.
        """
        try:
            async with asyncio.timeout(TIMEOUT_S):
                told = await self._told.get()
        except (psycopg.errors.UndefinedFunction, errors.DatabaseError):
            return _not_ready("the database is not migrated")
        except psycopg.errors.InsufficientPrivilege:
            return _not_ready("the role may neither receive webhooks nor serve the HTTP API")
        except (psycopg.Error, errors.WaError, TimeoutError):
            return _not_ready("no answer of the database")
        return Response(orjson.dumps(told), 200 if told["is_ready"] else 503, media_type=_JSON)

    async def _ask(self) -> dict[str, Any]:
        [[told]] = await self._link.fetch("SELECT check_wa_readiness()")
        return dict(told)


def _not_ready(reason: str) -> Response:
    return Response(orjson.dumps({"is_ready": False, "reason": reason}), 503, media_type=_JSON)


async def _alive(_request: Request) -> Response:
    return Response(b"ok", media_type="text/plain")
