"""A template message against the template that was approved."""

from __future__ import annotations

import re
from typing import Any, Final

from wa_simulator.errors import GraphError
from wa_simulator.state import Template

from .checks import array, item, needed, needed_child, only
from .messages import check_media

_PLACEHOLDER: Final = re.compile(r"\{\{\s*([A-Za-z0-9_]+)\s*\}\}")
_FORBIDDEN_SPACE: Final = re.compile(r"[\n\r\t]| {5,}")
_MEDIA_FORMATS: Final = ("IMAGE", "VIDEO", "DOCUMENT")
_COMPONENT_KEYS: Final = frozenset({"type", "sub_type", "index", "parameters", "cards"})
# What a button of the template takes: (sub_type, parameter type, whether a send must give it).
_BUTTONS: Final[dict[str, tuple[str, str, bool]]] = {
    "QUICK_REPLY": ("quick_reply", "payload", False),
    "COPY_CODE": ("copy_code", "coupon_code", True),
    "OTP": ("url", "text", True),
    "FLOW": ("flow", "action", False),
    "CATALOG": ("catalog", "action", False),
    "MPM": ("mpm", "action", True),
}


def check_status(template: Template | None, name: str, language: str) -> Template:
    """``template``, if there is one that may be sent.

    Raises GraphError 132001 (none or not approved), 132015 (paused) or 132016 (disabled).
    """
    if template is None:
        raise GraphError(132001, f"template name ({name}) does not exist in {language}")
    if template.status == "PAUSED":
        raise GraphError(132015, f"template ({name}) is paused because of its quality")
    if template.status == "DISABLED":
        raise GraphError(132016, f"template ({name}) was paused too often and is disabled for good")
    if template.status != "APPROVED":
        raise GraphError(132001, f"template name ({name}) is not approved in {language}: {template.status}")
    return template


def check_template(content: dict[str, Any], template: Template, version: int, media_ids: list[str]) -> None:
    """Check the components of ``content``, the object under ``template`` of the request.

    Raises GraphError 132000 (count), 132012 (format; forbidden white space before v23), 132018 (forbidden
    white space), 132005 (too long), 131008 or 131009.
    """
    given = _components(content)
    parts = {str(part.get("type", "")).upper(): part for part in template.components}
    named = template.parameter_format == "NAMED"
    _header(parts.get("HEADER"), given["header"], named, version, media_ids)
    body = parts.get("BODY", {})
    values = _texts(body, given["body"], "body", named, version)
    _length(str(body.get("text", "")), values, 1024, "body")
    if template.category == "AUTHENTICATION":
        _code(given)
    _buttons(parts.get("BUTTONS", {}).get("buttons", []), given["button"], version)


def _components(content: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    given: dict[str, list[dict[str, Any]]] = {"header": [], "body": [], "button": [], "other": []}
    values = content.get("components")
    if values is None:
        return given
    if not isinstance(values, list):
        raise GraphError(100, "Param template.components must be an array.")
    for index, value in enumerate(values):
        path = f"template.components[{index}]"
        component = item(value, path)
        only(component, _COMPONENT_KEYS, path)
        kind = needed(component, "type", path).lower()
        if kind not in ("header", "body", "button", "carousel", "limited_time_offer"):
            raise GraphError(132012, f"{path} is of type {kind}, which takes no parameters.")
        if kind != "carousel":
            array(component, "parameters", path, least=0)
        if kind in ("header", "body") and given[kind]:
            raise GraphError(131009, f"{path}: a second {kind} component.")
        given[kind if kind in given else "other"].append(component)
    return given


def _parameters(components: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        item(value, "template.components.parameters")
        for component in components
        for value in component["parameters"]
    ]


def _texts(
    part: dict[str, Any], components: list[dict[str, Any]], where: str, named: bool, version: int
) -> dict[str, str]:
    expected = list(dict.fromkeys(_PLACEHOLDER.findall(str(part.get("text", "")))))
    # Authentication bodies are Meta's own text with the code in it.
    if part.get("type", "").upper() == "BODY" and "text" not in part:
        expected = ["1"]
    given = _parameters(components)
    if len(given) != len(expected):
        raise GraphError(
            132000,
            f"{where}: {len(given)} parameters given, the template has {len(expected)}",
        )
    values: dict[str, str] = {}
    for index, parameter in enumerate(given):
        name = parameter.get("parameter_name")
        if named:
            if not isinstance(name, str):
                raise GraphError(
                    132012, f"{where}: parameter {index + 1} has no parameter_name; the template is named"
                )
            if name not in expected or name in values:
                raise GraphError(132012, f"{where}: parameter name {name!r} is not expected or given twice")
        elif name is not None:
            raise GraphError(
                132012, f"{where}: parameter {index + 1} has a parameter_name; the template is positional"
            )
        key = name if named else str(index + 1)
        values[str(key)] = _text_of(parameter, f"{where} parameter {key}", version)
    return values


def _text_of(parameter: dict[str, Any], where: str, version: int) -> str:
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


def _length(pattern: str, values: dict[str, str], maximum: int, where: str) -> None:
    text = _PLACEHOLDER.sub(lambda match: values.get(match.group(1), ""), pattern)
    if len(text) > maximum:
        raise GraphError(
            132005, f"{where}: the text with its parameters has {len(text)} characters, not {maximum}"
        )


def _header(
    part: dict[str, Any] | None,
    components: list[dict[str, Any]],
    named: bool,
    version: int,
    media_ids: list[str],
) -> None:
    kind = str(part.get("format", "TEXT")).upper() if part is not None else None
    given = _parameters(components)
    if part is None or kind == "TEXT":
        values = _texts(part or {}, components, "header", named, version)
        _length(str((part or {}).get("text", "")), values, 60, "header")
        return
    received = str(given[0].get("type", "unknown")) if given else "unknown"
    if len(given) != 1 or received.upper() != ("VIDEO" if kind == "GIF" else kind):
        raise GraphError(132012, f"header: format mismatch, expected {kind}, received {received.upper()}")
    inner = needed_child(given[0], received, "header")
    if kind in _MEDIA_FORMATS or kind == "GIF":
        allowed = frozenset({"filename"}) if kind == "DOCUMENT" else frozenset()
        check_media(inner, f"header.{received}", media_ids, allowed)
    elif "latitude" not in inner or "longitude" not in inner:
        raise GraphError(132012, "header: a location needs latitude and longitude")


def _code(given: dict[str, list[dict[str, Any]]]) -> None:
    for parameter in _parameters(given["body"]):
        if len(str(parameter.get("text", ""))) > 15:
            raise GraphError(132018, "body: the code has more than 15 characters")
    body = [parameter.get("text") for parameter in _parameters(given["body"])]
    button = [parameter.get("text") for parameter in _parameters(given["button"])]
    if button and body and button[0] != body[0]:
        raise GraphError(131009, "the button of an authentication template carries the same code as the body")


def _buttons(parts: list[dict[str, Any]], components: list[dict[str, Any]], version: int) -> None:
    given: dict[int, dict[str, Any]] = {}
    for component in components:
        index = component.get("index")
        if not re.fullmatch(r"[0-9]", str(index)) or isinstance(index, bool):
            raise GraphError(131009, "button: index must be 0 to 9")
        if int(str(index)) in given:
            raise GraphError(131009, f"button: index {index} is given twice")
        given[int(str(index))] = component
    for index, part in enumerate(parts):
        _button(index, part, given.pop(index, None), version)
    if given:
        raise GraphError(132018, f"button: the template has no button with index {min(given)}")


def _button(index: int, part: dict[str, Any], component: dict[str, Any] | None, version: int) -> None:
    kind = str(part.get("type", "")).upper()
    where = f"button at index {index}"
    dynamic_url = kind == "URL" and bool(_PLACEHOLDER.search(str(part.get("url", ""))))
    rule = ("url", "text", True) if dynamic_url else _BUTTONS.get(kind)
    if component is None:
        if rule is not None and rule[2]:
            raise GraphError(131008, f"{where} of type {kind} requires a parameter")
        return
    if rule is None:
        raise GraphError(132018, f"{where} of type {kind} takes no parameter")
    sub_type, parameter_type, _ = rule
    if str(component.get("sub_type", "")).lower() != sub_type:
        raise GraphError(
            132012, f"{where}: sub_type must be {sub_type}, received {component.get('sub_type')}"
        )
    parameters = _parameters([component])
    if len(parameters) != 1:
        raise GraphError(132000, f"{where}: one parameter is expected, {len(parameters)} given")
    parameter = parameters[0]
    if parameter.get("type") != parameter_type:
        raise GraphError(
            132012, f"{where}: parameter type must be {parameter_type}, received {parameter.get('type')}"
        )
    if parameter_type == "text":
        _text_of(parameter, where, version)
    elif parameter_type == "action":
        needed_child(parameter, "action", where)
    else:
        needed(parameter, parameter_type, where, 20 if parameter_type == "coupon_code" else 256)
