"""Checks on the values of a JSON object, with the errors that the API gives.

An unexpected key, a wrong JSON type or a length beyond the limit is 100; something missing is 131008; a value
that is not allowed is 131009.
"""

from __future__ import annotations

from typing import Any

import orjson

from wa_simulator.errors import GraphError


def _where(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that the body of a request is."""
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise GraphError(100, "The request body is not valid JSON.") from None
    if not isinstance(values, dict):
        raise GraphError(100, "The request body must be a JSON object.")
    return values


def only(obj: dict[str, Any], allowed: frozenset[str], path: str) -> None:
    """Refuse keys of ``obj`` that are not ``allowed``."""
    for key in obj:
        if key not in allowed:
            where = f" on param {path!r}" if path else ""
            raise GraphError(100, f"Unexpected key {key!r}{where}.")


def text(
    obj: dict[str, Any], key: str, path: str, *, maximum: int | None = None, required: bool = True
) -> str | None:
    """The string under ``key``, of ``maximum`` characters at most; None where absent and not ``required``."""
    value = obj.get(key)
    where = _where(path, key)
    if value is None:
        if required:
            raise GraphError(131008, f"The parameter {where} is required.")
        return None
    if not isinstance(value, str):
        raise GraphError(100, f"Param {where} must be a string.")
    if required and not value.strip():
        raise GraphError(131008, f"The parameter {where} must not be empty.")
    if maximum is not None and len(value) > maximum:
        raise GraphError(100, f"Param {where} must be at most {maximum} characters long.")
    return value


def needed(obj: dict[str, Any], key: str, path: str, maximum: int | None = None) -> str:
    """The string under ``key``, which must be there and not be empty."""
    return text(obj, key, path, maximum=maximum) or ""


def child(obj: dict[str, Any], key: str, path: str, *, required: bool = True) -> dict[str, Any] | None:
    """The object under ``key``."""
    value = obj.get(key)
    where = _where(path, key)
    if value is None and not required:
        return None
    if value is None:
        raise GraphError(131008, f"The parameter {where} is required.")
    if not isinstance(value, dict):
        raise GraphError(100, f"Param {where} must be a JSON object.")
    return value


def needed_child(obj: dict[str, Any], key: str, path: str) -> dict[str, Any]:
    """The object under ``key``, which must be there."""
    return child(obj, key, path) or {}


def array(obj: dict[str, Any], key: str, path: str, *, least: int = 1, most: int | None = None) -> list[Any]:
    """The array under ``key``, with ``least`` to ``most`` items."""
    value = obj.get(key)
    where = _where(path, key)
    if value is None:
        raise GraphError(131008, f"The parameter {where} is required.")
    if not isinstance(value, list):
        raise GraphError(100, f"Param {where} must be an array.")
    if len(value) < least or (most is not None and len(value) > most):
        raise GraphError(131009, f"Param {where} must have {least} to {most or 'any number of'} items.")
    return value


def item(value: Any, path: str) -> dict[str, Any]:
    """``value``, which must be an object."""
    if not isinstance(value, dict):
        raise GraphError(100, f"Param {path} must be a JSON object.")
    return value


def choice(
    obj: dict[str, Any], key: str, path: str, allowed: tuple[str, ...], *, required: bool = True
) -> str | None:
    """The string under ``key``, which must be one of ``allowed``."""
    value = text(obj, key, path, required=required)
    if value is not None and value not in allowed:
        raise GraphError(131009, f"Param {_where(path, key)} must be one of {', '.join(allowed)}.")
    return value


def boolean(obj: dict[str, Any], key: str, path: str) -> None:
    """Refuse a value under ``key`` that is not true or false."""
    if not isinstance(obj.get(key, False), bool):
        raise GraphError(100, f"Param {_where(path, key)} must be a boolean.")


def http_url(obj: dict[str, Any], key: str, path: str, maximum: int = 2000) -> str:
    """The URL under ``key``, which must start with http:// or https://."""
    value = needed(obj, key, path, maximum)
    if not value.startswith(("http://", "https://")):
        raise GraphError(131009, f"Param {_where(path, key)} must be an http or https URL.")
    return value
