"""The client in each of its four ways, driven alike: over SQL and HTTP, plain and async."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pg_whatsapp.client import AsyncClient, Client

NAMES = ("sql", "sql async", "http", "http async")


class Driven:
    """A client whose methods return results, also where they are async, and lists instead of iterators."""

    def __init__(self, client: Client | AsyncClient, run: Callable[[Any], Any]) -> None:
        self._client = client
        self._run = run

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if inspect.isawaitable(result):
                return self._run(result)
            if hasattr(result, "__anext__"):
                return self._run(_listed(result))
            return list(result) if hasattr(result, "__next__") else result

        return call


async def _listed(rows: Any) -> list[Any]:
    return [row async for row in rows]


@contextmanager
def every_way(conninfo: str, url: str, key: str, **options: Any) -> Iterator[dict[str, Driven]]:
    """Clients by NAMES; what they opened is closed at the end. options are those of Client.http()."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        plain = [Client.connect(conninfo), Client.http(url, key, **options)]
        waiting = [AsyncClient.connect(conninfo), AsyncClient.http(url, key, **options)]
        for client in plain:
            stack.enter_context(client)
        for one in waiting:
            stack.callback(lambda client: runner.run(client.close()), one)
        clients: list[Client | AsyncClient] = [plain[0], waiting[0], plain[1], waiting[1]]
        yield {
            name: Driven(client, lambda work: runner.run(_awaited(work)))
            for name, client in zip(NAMES, clients, strict=True)
        }


async def _awaited(work: Any) -> Any:
    return await work
