"""The HTTP API as a part of the web server."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from pg_whatsapp.api.app import LARGEST_BODY, make_app, too_large
from pg_whatsapp.api.service import Service
from pg_whatsapp.config import Settings


class Api:
    """Its endpoints and what runs beside them."""

    def __init__(self, settings: Settings) -> None:
        self._service = Service(settings)
        self._settings = settings

    def routes(self) -> list[BaseRoute]:
        """Its endpoints."""
        app: ASGIApp = make_app(self._service)
        if self._settings.cors_origins:
            app = CORSMiddleware(
                app,
                allow_origins=[one.strip() for one in self._settings.cors_origins.split(",")],
                allow_methods=["GET", "POST", "PATCH", "DELETE"],
                allow_headers=["authorization", "apikey", "content-type", "idempotency-key", "x-user-id"],
                expose_headers=["location", "retry-after", "ratelimit", "ratelimit-policy"],
            )
        return [_Rest(app)]

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What runs beside them until it is cancelled."""
        return [self._service.run()]

    async def close(self) -> None:
        """Nothing is held beyond work()."""


class _Rest(BaseRoute):
    """Whatever no other route takes: paths that a pattern would not match, too, get a problem document."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def matches(self, _scope: Scope) -> tuple[Match, Scope]:
        """Always."""
        return Match.FULL, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, unless it announces more than the application takes."""
        announced = dict(scope["headers"]).get(b"content-length", b"")
        if announced.isdigit() and int(announced) > LARGEST_BODY:
            await too_large().response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)
