"""Bodies that we answer with, for the OpenAPI document: what the client returns, as models."""

from __future__ import annotations

from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel, ConfigDict, Field, create_model


class Told(BaseModel):
    """A body that we answer with."""

    model_config = ConfigDict(extra="forbid")


@cache
def told(kind: Any, name: str | None = None) -> Any:
    """The model of a type of client/results.py, under a name of its own where there is another of that one.

    Annotated has a field's description, and what JSON may have besides.
    """
    fields: dict[str, Any] = {}
    for field, hint in get_type_hints(kind, include_extras=True).items():
        description = None
        besides: list[Any] = []
        if get_origin(hint) is Annotated:
            hint, description, *besides = get_args(hint)
        fields[field] = (reduce(or_, besides, _told(hint)), Field(description=description))
    model: Any = create_model(name or kind.__name__, __base__=Told, __doc__=kind.__doc__, **fields)
    return model


def _told(hint: Any) -> Any:
    if is_typeddict(hint):
        return told(hint)
    if get_origin(hint) is list:
        return list[_told(get_args(hint)[0])]  # type: ignore[misc]
    if get_origin(hint) in (Union, UnionType):
        return reduce(or_, map(_told, get_args(hint)))
    return hint
