"""One operation of the client with its values, both ways; and how values become JSON and paths."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, LiteralString, TypeVar
from urllib.parse import quote
from uuid import UUID

from pg_whatsapp.errors import InputError

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True)
class Call(Generic[R_co]):
    """One operation with its values, both ways."""

    #: One column of JSON; {s} is the schema of the extension.
    statement: LiteralString
    values: tuple[Any, ...]
    method: str
    #: Below /api/whatsapp.
    path: str
    read: Callable[[Any], R_co]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: str | None = None
    idempotency_key: str | None = None


def _simple(value: Any) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InputError(
                f"the time {value.isoformat()} has no time zone",
                "Give it one: datetime.now(UTC), or value.replace(tzinfo=…).",
            )
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    raise InputError(
        f"a {type(value).__name__} cannot be written as JSON", "Give text, numbers, lists or dicts."
    )


def as_json(value: Any) -> str:
    """Text for the database and for HTTP; raises InputError for what JSON cannot hold."""
    try:
        return json.dumps(value, default=_simple, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise InputError(f"the values cannot be written as JSON: {error}") from error


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that were given."""
    return {name: value for name, value in values.items() if value is not None}


def as_part(value: object) -> str:
    """A value as a part of a path."""
    return quote(str(value), safe="")
