"""The buttons of a template message against those that were approved."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from wa_simulator.errors import GraphError

from .checks import array, item, needed, needed_child, text
from .template_parameters import check_text, parameters_of

_PLACEHOLDER: Final = re.compile(r"\{\{\s*([A-Za-z0-9_]+)\s*\}\}")
#: What Meta lists where it refuses another.
_SUB_TYPES: Final = (
    "BOOKING_CONFIRMATION",
    "CATALOG",
    "COPY_CODE",
    "FLOW",
    "MPM",
    "ORDER_DETAILS",
    "QUICK_REPLY",
    "REMINDER",
    "URL",
    "VOICE_CALL",
)
# What a button of the template takes: (sub_type, parameter type, whether a send must give it).
_BUTTONS: Final[dict[str, tuple[str, str, bool]]] = {
    "QUICK_REPLY": ("quick_reply", "payload", False),
    "COPY_CODE": ("copy_code", "coupon_code", True),
    "OTP": ("url", "text", True),
    "FLOW": ("flow", "action", True),
    "CATALOG": ("catalog", "action", False),
    "MPM": ("mpm", "action", True),
    "ORDER_DETAILS": ("order_details", "action", True),
    "VOICE_CALL": ("voice_call", "payload", False),
}
#: Sub types whose component may have no parameters at all.
_BARE: Final = ("catalog", "flow", "voice_call")


def check_buttons(parts: list[dict[str, Any]], components: list[dict[str, Any]], version: int) -> None:
    """Check the button ``components`` of a request against ``parts``, those of the template.

    Raises GraphError.
    """
    given: dict[int, dict[str, Any]] = {}
    for component in components:
        sub_type = needed(component, "sub_type", "button")
        if sub_type.upper() not in _SUB_TYPES:
            raise GraphError(
                100, f"Param sub_type must be one of {{{', '.join(_SUB_TYPES)}}} - got {sub_type!r}."
            )
        index = component.get("index")
        if not re.fullmatch(r"[0-9]", str(index)) or isinstance(index, bool):
            raise GraphError(131009, "button: index must be 0 to 9")
        if int(str(index)) in given:
            raise GraphError(131009, f"button: index {index} is given twice")
        given[int(str(index))] = component
    for index, part in enumerate(parts):
        _check_button(index, part, given.pop(index, None), version)
    if given:
        raise GraphError(132018, f"button: the template has no button with index {min(given)}")


def _check_button(index: int, part: dict[str, Any], component: dict[str, Any] | None, version: int) -> None:
    kind = str(part.get("type", "")).upper()
    where = f"buttons: Button at index {index} of type {kind}"
    dynamic_url = kind == "URL" and bool(_PLACEHOLDER.search(str(part.get("url", ""))))
    rule = ("url", "text", True) if dynamic_url else _BUTTONS.get(kind)
    if component is None:
        if rule is not None and rule[2]:
            raise GraphError(131008, f"{where} requires a parameter")
        return
    if rule is None:
        raise GraphError(
            100, f"buttons: Button at index {index} is of type {kind} and does not support parameters"
        )
    sub_type, parameter_type, _ = rule
    if str(component["sub_type"]).lower() != sub_type:
        raise GraphError(132012, f"{where}: sub_type must be {sub_type}, received {component['sub_type']}")
    parameters = parameters_of([component])
    if sub_type in _BARE and not parameters:
        return
    if sub_type == "voice_call":
        _check_call(parameters, where)
        return
    if len(parameters) != 1:
        raise GraphError(132000, f"{where}: one parameter is expected, {len(parameters)} given")
    parameter = parameters[0]
    if parameter.get("type") != parameter_type:
        raise GraphError(
            132012, f"{where}: parameter type must be {parameter_type}, received {parameter.get('type')}"
        )
    if parameter_type == "text":
        check_text(parameter, where, version)
    elif parameter_type == "action":
        _ACTIONS[sub_type](needed_child(parameter, "action", where), where)
    else:
        needed(parameter, parameter_type, where, 20 if parameter_type == "coupon_code" else 256)


def _check_call(parameters: list[dict[str, Any]], where: str) -> None:
    for parameter in parameters:
        minutes = parameter.get("ttl_minutes")
        if parameter.get("type") == "payload":
            needed(parameter, "payload", where, 512)
        elif parameter.get("type") != "ttl_minutes":
            raise GraphError(132012, f"{where}: parameters are ttl_minutes and payload")
        elif type(minutes) is not int or not 1 <= minutes <= 43200:
            raise GraphError(131009, f"{where}: ttl_minutes must be an integer from 1 to 43200")


def _check_flow(action: dict[str, Any], where: str) -> None:
    text(action, "flow_token", where, required=False)
    if not isinstance(action.get("flow_action_data", {}), dict):
        raise GraphError(100, f"{where}: flow_action_data must be a JSON object")


def _check_catalog(action: dict[str, Any], where: str) -> None:
    needed(action, "thumbnail_product_retailer_id", where)


def _check_products(action: dict[str, Any], where: str) -> None:
    needed(action, "thumbnail_product_retailer_id", where)
    sections = [item(section, f"{where}.sections") for section in array(action, "sections", where, most=10)]
    products = 0
    for section in sections:
        if len(sections) > 1 or "title" in section:
            needed(section, "title", where, 24)
        for product in array(section, "product_items", where):
            needed(item(product, where), "product_retailer_id", where)
            products += 1
    if products > 30:
        raise GraphError(131009, f"{where}: {products} products, 30 are allowed")


def _check_order(action: dict[str, Any], where: str) -> None:
    order = needed_child(action, "order_details", where)
    needed(order, "reference_id", where, 60)
    if order.get("type") not in ("digital-goods", "physical-goods"):
        raise GraphError(131009, f"{where}: type must be digital-goods or physical-goods")
    if not re.fullmatch("[A-Z]{3}", needed(order, "currency", where)):
        raise GraphError(131009, f"{where}: currency must be a code of three letters")
    total = needed_child(order, "total_amount", where)
    for key in ("value", "offset"):
        if type(total.get(key)) is not int:
            raise GraphError(131009, f"{where}: total_amount.{key} must be an integer")


_ACTIONS: Final[dict[str, Callable[[dict[str, Any], str], None]]] = {
    "flow": _check_flow,
    "catalog": _check_catalog,
    "mpm": _check_products,
    "order_details": _check_order,
}
