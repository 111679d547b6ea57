"""From an operation to the method of a client, plain or async, with its signature and docstring."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pg_whatsapp.client.call import Call
from pg_whatsapp.client.results import Page

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Way(Protocol):
    """SQL or HTTP."""

    def run(self, call: Call[R]) -> R:
        """The result of a call; raises WaError."""

    def close(self) -> None:
        """Give back what it opened."""


class AsyncWay(Protocol):
    """SQL or HTTP."""

    async def run(self, call: Call[R]) -> R:
        """The result of a call; raises WaError."""

    async def close(self) -> None:
        """Give back what it opened."""


class _Has(Protocol):
    @property
    def way(self) -> Way: ...


class _HasAsync(Protocol):
    @property
    def way(self) -> AsyncWay: ...


def sync(build: Callable[P, Call[R]]) -> Callable[Concatenate[_Has, P], R]:
    """The method that does an operation."""

    def method(self: _Has, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.way.run(build(*args, **kwargs))

    return _described(method, build)


def sync_rows(build: Callable[P, Call[Page[T]]]) -> Callable[Concatenate[_Has, P], Iterator[T]]:
    """The method that goes through the rows of all pages; limit is the size of a page."""

    def method(self: _Has, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        values: Any = kwargs
        while True:
            page = self.way.run(build(*args, **values))
            yield from page.items
            if page.next is None:
                return
            values = values | {"cursor": page.next}

    return _described(method, build)


def asynchronous(build: Callable[P, Call[R]]) -> Callable[Concatenate[_HasAsync, P], Awaitable[R]]:
    """As sync(), to be awaited."""

    async def method(self: _HasAsync, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.way.run(build(*args, **kwargs))

    return _described(method, build)


def asynchronous_rows(
    build: Callable[P, Call[Page[T]]],
) -> Callable[Concatenate[_HasAsync, P], AsyncIterator[T]]:
    """As sync_rows(), for `async for`."""

    async def method(self: _HasAsync, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        values: Any = kwargs
        while True:
            page = await self.way.run(build(*args, **values))
            for item in page.items:
                yield item
            if page.next is None:
                return
            values = values | {"cursor": page.next}

    return _described(method, build)


def _described(method: Callable[P, R], build: Callable[..., Any]) -> Callable[P, R]:
    """The method with what help() and editors show of the operation."""
    described: Any = method
    described.__name__, described.__doc__ = build.__name__, build.__doc__
    asked = inspect.signature(build)
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    # "Call[Page[Template]]" gives a Page[Template].
    result = str(asked.return_annotation).removeprefix("Call[").removesuffix("]")
    described.__signature__ = asked.replace(
        parameters=[first, *asked.parameters.values()], return_annotation=result
    )
    return method
