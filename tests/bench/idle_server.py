"""The receiver's server, answering 200 and doing nothing: python -m bench.idle_server PORT."""

from __future__ import annotations

import sys

from pg_whatsapp.config import Settings
from pg_whatsapp.receiver import PATH
from pg_whatsapp.web import Web, serve
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

_OK = Response(status_code=200)


class _Idle:
    """A bare ASGI endpoint, as the receiver's own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _OK(scope, receive, send)


class IdleWeb(Web):
    """The same server without what stands behind it."""

    def __init__(self) -> None:
        super().__init__([])

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(routes=[Route(PATH, _Idle(), methods=["POST"])])


if __name__ == "__main__":
    serve(IdleWeb(), Settings(), PATH, "127.0.0.1", int(sys.argv[1]))
