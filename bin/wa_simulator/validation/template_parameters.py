"""Parameters of the components of a template message."""

from __future__ import annotations

import re
from typing import Any, Final

from wa_simulator.errors import GraphError

from .checks import item, needed, needed_child

_FORBIDDEN_SPACE: Final = re.compile(r"[\n\r\t]| {5,}")


def parameters_of(components: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parameters of all ``components``, which must be objects."""
    return [
        item(value, "template.components.parameters")
        for component in components
        for value in component.get("parameters", [])
    ]


def check_text(parameter: dict[str, Any], where: str, version: int) -> str:
    """The words that ``parameter`` puts into a text; raises GraphError where it is no text."""
    kind = parameter.get("type")
    if kind == "text":
        value = parameter.get("text")
        if not isinstance(value, str):
            raise GraphError(132012, f"{where}: a text parameter needs its text as a string")
        if not value.strip():
            raise GraphError(131008, f"{where}: the text is missing")
        if _FORBIDDEN_SPACE.search(value):
            raise GraphError(
                132018 if version >= 23 else 132012,
                f"{where}: text cannot have new-line/tab characters or more than 4 consecutive spaces",
            )
        return value
    if kind in ("currency", "date_time"):
        inner = needed_child(parameter, str(kind), where)
        if kind == "currency":
            needed(inner, "code", where)
            if not isinstance(inner.get("amount_1000"), int):
                raise GraphError(132012, f"{where}: amount_1000 must be an integer")
        return needed(inner, "fallback_value", where)
    raise GraphError(132012, f"{where}: format mismatch, expected TEXT, received {str(kind).upper()}")
