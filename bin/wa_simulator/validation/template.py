"""A template message against the template that was approved."""

from __future__ import annotations

import re
from typing import Any, Final

from wa_simulator.errors import GraphError
from wa_simulator.state import Template

from .checks import array, item, needed, needed_child, only
from .messages import check_location, check_media
from .template_buttons import check_buttons
from .template_parameters import check_text, parameters_of

_PLACEHOLDER: Final = re.compile(r"\{\{\s*([A-Za-z0-9_]+)\s*\}\}")
_MEDIA_FORMATS: Final = ("IMAGE", "VIDEO", "GIF", "DOCUMENT")
_COMPONENT_KEYS: Final = frozenset({"type", "sub_type", "index", "parameters", "cards"})
_TYPES: Final = (
    "header",
    "body",
    "button",
    "carousel",
    "limited_time_offer",
    "order_status",
    "tap_target_configuration",
)
_Components = dict[str, list[dict[str, Any]]]


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
    white space), 132005 (too long), 100 (a value for what takes none), 131008 or 131009.
    """
    given = _components(content.get("components"))
    named = template.parameter_format == "NAMED"
    _parts(template.components, given, named, version, media_ids)
    parts = _by_type(template.components)
    _offer(parts.get("LIMITED_TIME_OFFER"), given["limited_time_offer"])
    _carousel(parts.get("CAROUSEL"), given["carousel"], named, version, media_ids)
    if template.category == "AUTHENTICATION":
        _code(given)


def _by_type(components: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {str(part.get("type", "")).upper(): part for part in components}


def _parts(
    components: list[dict[str, Any]], given: _Components, named: bool, version: int, media_ids: list[str]
) -> None:
    """Header, body and buttons, of the template itself or of one of its cards."""
    parts = _by_type(components)
    _header(parts.get("HEADER"), given["header"], named, version, media_ids)
    body = parts.get("BODY", {})
    values = _texts(body, given["body"], "body", named, version)
    _length(str(body.get("text", "")), values, 1024, "body")
    check_buttons(parts.get("BUTTONS", {}).get("buttons", []), given["button"], version)


def _components(values: Any, path: str = "template.components") -> _Components:
    given: _Components = {kind: [] for kind in _TYPES}
    if values is None:
        return given
    if not isinstance(values, list):
        raise GraphError(100, f"Param {path} must be an array.")
    for index, value in enumerate(values):
        where = f"{path}[{index}]"
        component = item(value, where)
        only(component, _COMPONENT_KEYS, where)
        kind = needed(component, "type", where).lower()
        if kind not in _TYPES:
            raise GraphError(132012, f"{where} is of type {kind}, which takes no parameters.")
        if kind != "button" and given[kind]:
            raise GraphError(131009, f"{where}: a second {kind} component.")
        if kind == "carousel":
            array(component, "cards", where, most=10)
        # A catalog's and a flow's button may go without.
        elif kind != "button" or "parameters" in component:
            array(component, "parameters", where, least=0)
        given[kind].append(component)
    return given


def _offer(part: dict[str, Any] | None, components: list[dict[str, Any]]) -> None:
    """The end of a limited-time offer, in milliseconds: given if the template shows it, else not."""
    shows_end = part is not None and bool(part.get("limited_time_offer", {}).get("has_expiration"))
    given = parameters_of(components)
    if not shows_end:
        if given:
            raise GraphError(100, "limited_time_offer: the template does not support parameters")
        return
    if len(given) != 1:
        raise GraphError(131008, "limited_time_offer: one parameter is required")
    if given[0].get("type") != "limited_time_offer":
        raise GraphError(132012, "limited_time_offer: the parameter must be of type limited_time_offer")
    end = needed_child(given[0], "limited_time_offer", "limited_time_offer").get("expiration_time_ms")
    if type(end) is not int or end <= 0:
        raise GraphError(131009, "limited_time_offer: expiration_time_ms must be an integer")


def _carousel(
    part: dict[str, Any] | None,
    components: list[dict[str, Any]],
    named: bool,
    version: int,
    media_ids: list[str],
) -> None:
    """The cards: as many as were approved, but for product cards, of which the first is the pattern."""
    if part is None:
        if components:
            raise GraphError(132012, "carousel: the template has none")
        return
    approved = part.get("cards", [])
    cards = components[0]["cards"] if components else []
    formats = {str(_by_type(card["components"]).get("HEADER", {}).get("format")).upper() for card in approved}
    if len(cards) != len(approved) and (formats != {"PRODUCT"} or not 2 <= len(cards) <= 10):
        raise GraphError(132012, f"carousel: {len(cards)} cards given, the template has {len(approved)}")
    seen = set()
    for place, value in enumerate(cards):
        where = f"carousel.cards[{place}]"
        card = item(value, where)
        only(card, frozenset({"card_index", "components"}), where)
        index = card.get("card_index")
        if type(index) is not int or index in seen or not 0 <= index < len(cards):
            raise GraphError(131009, f"{where}: card_index must count from 0, each once")
        seen.add(index)
        given = _components(array(card, "components", where, least=0), f"{where}.components")
        _parts(approved[min(index, len(approved) - 1)]["components"], given, named, version, media_ids)


def _texts(
    part: dict[str, Any], components: list[dict[str, Any]], where: str, named: bool, version: int
) -> dict[str, str]:
    expected = list(dict.fromkeys(_PLACEHOLDER.findall(str(part.get("text", "")))))
    # Authentication bodies are Meta's own text with the code in it.
    if part.get("type", "").upper() == "BODY" and "text" not in part:
        expected = ["1"]
    given = parameters_of(components)
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
        values[str(key)] = check_text(parameter, f"{where} parameter {key}", version)
    return values


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
    given = parameters_of(components)
    if part is None or kind == "TEXT":
        values = _texts(part or {}, components, "header", named, version)
        _length(str((part or {}).get("text", "")), values, 60, "header")
        return
    received = str(given[0].get("type", "unknown")) if given else "unknown"
    if len(given) != 1 or received.upper() != kind:
        raise GraphError(132012, f"header: format mismatch, expected {kind}, received {received.upper()}")
    inner = needed_child(given[0], received, "header")
    if kind in _MEDIA_FORMATS:
        allowed = frozenset({"filename"}) if kind == "DOCUMENT" else frozenset()
        check_media(inner, f"header.{received}", media_ids, allowed)
    elif kind == "LOCATION":
        check_location(inner)
    elif kind == "PRODUCT":
        needed(inner, "catalog_id", "header.product")
        needed(inner, "product_retailer_id", "header.product")


def _code(given: dict[str, list[dict[str, Any]]]) -> None:
    for parameter in parameters_of(given["body"]):
        if len(str(parameter.get("text", ""))) > 15:
            raise GraphError(132018, "body: the code has more than 15 characters")
    body = [parameter.get("text") for parameter in parameters_of(given["body"])]
    button = [parameter.get("text") for parameter in parameters_of(given["button"])]
    if button and body and button[0] != body[0]:
        raise GraphError(131009, "the button of an authentication template carries the same code as the body")
