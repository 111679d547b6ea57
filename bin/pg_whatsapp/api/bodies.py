"""Bodies of requests: read once it is known who asks, and refused where they hold what the database cannot.

FastAPI reads and parses a body before anything of ours is called. So the key is looked at before that, in the
route: sixteen mebibytes of JSON cost a second and, as objects, hundreds of mebibytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NoReturn

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from pg_whatsapp.api.problems import Problem

# Each is an object of Python of some 60 bytes. Ten thousand messages of a kilobyte have half of that.
MOST_VALUES = 1_000_000
DEEPEST = 100
#: Of a field's name that is told in a problem: whoever asks chooses it.
LONGEST_NAME = 200
_SEPARATORS = (b",", b"[", b"{")
# An escape of what no text can hold, or bytes that may be such, in whichever encoding of Unicode they are.
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|\xed|\0")
_UNHOLDABLE = re.compile("[\0\ud800-\udfff]")


class Route(APIRoute):
    """A route that admits its caller before it reads a body, and reads that by read_json()."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As that of FastAPI."""
        handle = super().get_route_handler()
        scope = (self.openapi_extra or {}).get("x-scope")

        async def guarded(request: Request) -> Response:
            if scope is not None:
                await request.app.state.service.admit(request, scope)
            return await handle(_Request(request.scope, request.receive))

        return guarded


class _Request(Request):
    async def json(self) -> Any:
        return read_json(await self.body())


def read_json(body: bytes) -> Any:
    """The value of a body in JSON (RFC 8259), all of which the database can hold.

    Raises json.JSONDecodeError, and Problem where it is too large, too deep, or has a number or a character
    that no value of the database can be.
    """
    if sum(map(body.count, _SEPARATORS)) > MOST_VALUES:
        raise Problem(413, "size", f"the body holds more than {MOST_VALUES:,} values")
    try:
        value = json.loads(body, parse_constant=_no_constant, parse_float=_read_float)
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        # Bytes in no encoding of Unicode; a whole number of thousands of digits.
        raise json.JSONDecodeError(type(error).__name__, "", 0) from None
    _require_depth(value)
    if _SUSPECT.search(body):
        for place, text in _texts(value):
            if _UNHOLDABLE.search(text):
                raise _wrong(place, "a text holds NUL or half of a surrogate pair", "22P05")
    return value


def _require_depth(value: Any) -> None:
    """Level by level, so that no body's nesting becomes our recursion."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a value, names of fields among them, with where it is."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield place, name
            yield from _texts(inner, f"{place}.{name}")
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from _texts(inner, f"{place}.{n}")


def _wrong(place: str, words: str, code: str = "request") -> Problem:
    field = place.lstrip(".")[:LONGEST_NAME] or "body"
    return Problem(
        422,
        code,
        f"{field}: {words}",
        "Nothing of the body was taken: mend that, and send it again.",
        more={"errors": [{"field": field, "message": words}]},
    )


def _too_deep() -> Problem:
    return _wrong("body", f"it is nested more than {DEEPEST} deep")


def _read_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        # It would become null on its way.
        raise _wrong("body", f"the number {text[:30]} is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is no JSON", "", 0)
