"""The web server of `wa serve`: its parts (webhooks, HTTP API) behind one socket."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from pg_whatsapp import db, errors, log
from pg_whatsapp.client_certificates import Tls, keep_peer
from pg_whatsapp.config import Settings
from pg_whatsapp.garbage import collect_rarely
from pg_whatsapp.http_guard import Guard, allow_connections

BACKLOG = 2048
# uvloop accepts one connection for each listener and turn of its loop. A turn is long where many requests are
# under way, and whoever connects then would wait for as many turns as came before: so there are several.
LISTENERS = 32
_logger = log.get("receiver")


class Part(Protocol):
    """Something that is served."""

    def routes(self) -> list[BaseRoute]:
        """Its endpoints."""
        ...

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What runs beside them until it is cancelled."""
        ...

    async def close(self) -> None:
        """Give up what it holds."""
        ...


class Web:
    """All parts as one application."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        #: Why it stopped by itself, if it did.
        self.failure: errors.WaError | None = None
        #: Bounds what clients cost before anything is known of them.
        self.guard = Guard()

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [route for part in self.parts for route in part.routes()]
        app = Starlette(routes=routes, lifespan=self._lifespan)
        # Providers take a redirect for a failure: any other spelling is told so at once, by 404.
        app.router.redirect_slashes = False
        return app

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        work = [self.guard.run(), *(one for part in self.parts for one in part.work())]
        tasks = [asyncio.create_task(one) for one in work]
        for task in tasks:
            task.add_done_callback(self._ended)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for part in self.parts:
                await part.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Without one of its parts the server must not go on as if it worked."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("stopping: a part of the server failed", **log.describe(error))
            self.failure = errors.WaError(f"a part of the server failed: {type(error).__name__}")
            signal.raise_signal(signal.SIGTERM)


async def check_login(settings: Settings, *, is_alone: bool) -> None:
    """Raise ConfigError if the login of a process that faces webhooks only may become another role.

    Beside the HTTP API, whose login must be able to, it is only told.
    """

    async def look(connection: db.Connection) -> list[str]:
        row = await (await connection.execute("SELECT get_wa_other_roles()")).fetchone()
        return list(row[0]) if row else []

    try:
        others = await db.once(settings.conninfo, "login", look)
    except errors.WaError:
        # It is not migrated yet, or away: /healthz says so until it is.
        return
    if others and is_alone:
        raise errors.ConfigError(
            f"the login may take other roles ({', '.join(others[:5])}) and would face webhooks",
            "CREATE ROLE receiver LOGIN IN ROLE wa_receiver; and connect as that one.",
        )
    if others:
        _logger.warning(
            "webhooks and HTTP API share a login that may take other roles: for development only",
            hint="serve --only webhook and serve --only api, each with a login of its own",
        )


class Server(uvicorn.Server):
    """uvicorn, saying where it listens once it does; with --port 0 that is where the port is told."""

    def __init__(self, config: uvicorn.Config, path: str) -> None:
        super().__init__(config)
        self._path = path

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving, then log the address."""
        await super().startup(sockets)
        for listener in (sockets or [])[:1]:
            host, port = listener.getsockname()[:2]
            _logger.info("serving", host=host, port=port, path=self._path)


def serve(web: Web, settings: Settings, path: str, host: str, port: int, tls: Tls | None = None) -> None:
    """Serve until SIGTERM or SIGINT; path is for the line that says where.

    Raises WaError if it cannot listen there or had to stop.
    """
    if tls is not None:
        tls.check()
        web.guard.client_names = frozenset(name.lower() for name in tls.client_names)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise errors.WaError(
            f"could not listen on {host}:{port}: {error.strerror}",
            "--host and --port choose another address.",
        ) from None
    app: ASGIApp = web.app()
    # An address that a client names itself counts only where a proxy of ours says so.
    if settings.trusted_proxies:
        app = ProxyHeadersMiddleware(app, trusted_hosts=settings.trusted_proxies)  # type: ignore[arg-type,assignment]
    config = uvicorn.Config(
        keep_peer(app),
        loop="uvloop",
        http=web.guard.protocol(),
        ws="none",
        lifespan="on",
        # Its access log would hold the verify token, phone numbers and the tokens of links.
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=10,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
        ssl_ca_certs=str(tls.client_ca) if tls and tls.client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.client_ca else ssl.CERT_NONE,
    )
    # uvicorn shuts down in order on a signal and then raises it again for whoever had it before: that would
    # make an orderly end look like a crash.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    collect_rarely()
    allow_connections()
    with ExitStack() as stack:
        listeners = [listener, *(listener.dup() for _ in range(LISTENERS - 1))]
        for one in listeners:
            stack.enter_context(one)
        Server(config, path).run(sockets=listeners)
    if web.failure is not None:
        raise web.failure
