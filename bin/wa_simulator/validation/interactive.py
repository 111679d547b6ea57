"""Interactive messages: what each kind must have and how long its parts may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from wa_simulator.errors import GraphError

from .checks import array, child, choice, http_url, item, needed, needed_child, only, text

MediaCheck = Callable[[dict[str, Any], str, list[str], frozenset[str]], None]

_ANY_HEADER: Final = ("text", "image", "video", "document")
# kind: (header types, body needed, maximum of the body)
_KINDS: Final[dict[str, tuple[tuple[str, ...], bool, int]]] = {
    "button": (_ANY_HEADER, True, 1024),
    "list": (("text",), True, 4096),
    "cta_url": (_ANY_HEADER, True, 1024),
    "flow": (_ANY_HEADER, True, 1024),
    "location_request_message": ((), True, 1024),
    "product": ((), False, 1024),
    "product_list": (("text",), True, 1024),
    "catalog_message": ((), True, 1024),
    "call_permission_request": ((), False, 1024),
    "order_details": (_ANY_HEADER, True, 1024),
    "order_status": ((), True, 1024),
    "address_message": ((), True, 1024),
    "voice_call": ((), True, 1024),
    "carousel": ((), True, 1024),
}
_KEYS: Final = frozenset({"type", "header", "body", "footer", "action"})
_NO_CAPTION: Final[frozenset[str]] = frozenset()
_DOCUMENT: Final = frozenset({"filename"})


def check_interactive(content: dict[str, Any], media_ids: list[str], check_media: MediaCheck) -> None:
    """Check the object under ``interactive``; ids of media in its header are added to ``media_ids``.

    Raises GraphError 100, 131008 or 131009. Limits: the Cloud API's pages on interactive messages.
    """
    only(content, _KEYS, "interactive")
    kind = needed(content, "type", "interactive")
    if kind not in _KINDS:
        raise GraphError(131009, f"Interactive type {kind!r} is not supported.")
    headers, body_needed, body_maximum = _KINDS[kind]
    _header(content, kind, headers, media_ids, check_media)
    body = child(content, "body", "interactive", required=body_needed)
    if body is not None:
        only(body, frozenset({"text"}), "interactive.body")
        needed(body, "text", "interactive.body", body_maximum)
    footer = child(content, "footer", "interactive", required=False)
    if footer is not None:
        only(footer, frozenset({"text"}), "interactive.footer")
        needed(footer, "text", "interactive.footer", 60)
    action = needed_child(content, "action", "interactive")
    check = _ACTIONS.get(kind)
    if check is not None:
        check(action)


def _header(
    content: dict[str, Any],
    kind: str,
    allowed: tuple[str, ...],
    media_ids: list[str],
    check_media: MediaCheck,
) -> None:
    header = child(content, "header", "interactive", required=kind == "product_list")
    if header is None:
        return
    if not allowed:
        raise GraphError(131009, f"An interactive message of type {kind} has no header.")
    header_type = choice(header, "type", "interactive.header", allowed) or ""
    only(header, frozenset({"type", "sub_text", header_type}), "interactive.header")
    if header_type == "text":
        needed(header, "text", "interactive.header", 60)
    else:
        media = needed_child(header, header_type, "interactive.header")
        extra = _DOCUMENT if header_type == "document" else _NO_CAPTION
        check_media(media, f"interactive.header.{header_type}", media_ids, extra)


def _unique(values: list[str], what: str) -> None:
    if len(set(values)) != len(values):
        raise GraphError(131009, f"The {what} must be unique.")


def _buttons(action: dict[str, Any]) -> None:
    only(action, frozenset({"buttons"}), "interactive.action")
    ids, titles = [], []
    for index, value in enumerate(array(action, "buttons", "interactive.action", most=3)):
        path = f"interactive.action.buttons[{index}]"
        button = item(value, path)
        only(button, frozenset({"type", "reply"}), path)
        choice(button, "type", path, ("reply",))
        reply = needed_child(button, "reply", path)
        only(reply, frozenset({"id", "title"}), f"{path}.reply")
        ids.append(needed(reply, "id", f"{path}.reply", 256))
        titles.append(needed(reply, "title", f"{path}.reply", 20))
    _unique(ids, "button ids")
    _unique(titles, "button titles")


def _sections(action: dict[str, Any], most: int) -> list[tuple[str, dict[str, Any]]]:
    sections = []
    values = array(action, "sections", "interactive.action", most=most)
    for index, value in enumerate(values):
        path = f"interactive.action.sections[{index}]"
        section = item(value, path)
        # A title tells sections apart, so a single one may go without.
        text(section, "title", path, maximum=24, required=len(values) > 1)
        sections.append((path, section))
    return sections


def _list(action: dict[str, Any]) -> None:
    only(action, frozenset({"button", "sections"}), "interactive.action")
    needed(action, "button", "interactive.action", 20)
    ids: list[str] = []
    for path, section in _sections(action, 10):
        only(section, frozenset({"title", "rows"}), path)
        for index, value in enumerate(array(section, "rows", path)):
            row_path = f"{path}.rows[{index}]"
            row = item(value, row_path)
            only(row, frozenset({"id", "title", "description"}), row_path)
            ids.append(needed(row, "id", row_path, 200))
            needed(row, "title", row_path, 24)
            text(row, "description", row_path, maximum=72, required=False)
    if len(ids) > 10:
        raise GraphError(131009, "A list has at most 10 rows in all its sections.")
    _unique(ids, "row ids")


def _named(action: dict[str, Any], name: str) -> dict[str, Any]:
    if action.get("name") != name:
        raise GraphError(131009, f"Param interactive.action.name must be {name!r}.")
    return needed_child(action, "parameters", "interactive.action")


def _cta_url(action: dict[str, Any]) -> None:
    parameters = _named(action, "cta_url")
    only(parameters, frozenset({"display_text", "url"}), "interactive.action.parameters")
    needed(parameters, "display_text", "interactive.action.parameters", 20)
    http_url(parameters, "url", "interactive.action.parameters")


def _flow(action: dict[str, Any]) -> None:
    parameters = _named(action, "flow")
    path = "interactive.action.parameters"
    if parameters.get("flow_message_version") != "3":
        raise GraphError(131009, f"Param {path}.flow_message_version must be '3'.")
    if ("flow_id" in parameters) == ("flow_name" in parameters):
        raise GraphError(131009, f"Param {path} needs either flow_id or flow_name.")
    needed(parameters, "flow_id" if "flow_id" in parameters else "flow_name", path)
    needed(parameters, "flow_cta", path, 30)
    text(parameters, "flow_token", path, required=False)
    choice(parameters, "mode", path, ("draft", "published"), required=False)
    choice(parameters, "flow_action", path, ("navigate", "data_exchange"), required=False)
    child(parameters, "flow_action_payload", path, required=False)


def _location_request(action: dict[str, Any]) -> None:
    if action != {"name": "send_location"}:
        raise GraphError(131009, "Param interactive.action.name must be 'send_location'.")


def _product(action: dict[str, Any]) -> None:
    needed(action, "catalog_id", "interactive.action")
    needed(action, "product_retailer_id", "interactive.action")


def _product_list(action: dict[str, Any]) -> None:
    needed(action, "catalog_id", "interactive.action")
    total = 0
    for path, section in _sections(action, 10):
        for index, value in enumerate(array(section, "product_items", path, most=30)):
            needed(item(value, path), "product_retailer_id", f"{path}.product_items[{index}]")
            total += 1
    if total > 30:
        raise GraphError(131009, "A product list has at most 30 products in all its sections.")


def _catalog(action: dict[str, Any]) -> None:
    if action.get("name") != "catalog_message":
        raise GraphError(131009, "Param interactive.action.name must be 'catalog_message'.")
    child(action, "parameters", "interactive.action", required=False)


_ACTIONS: Final[dict[str, Callable[[dict[str, Any]], None]]] = {
    "button": _buttons,
    "list": _list,
    "cta_url": _cta_url,
    "flow": _flow,
    "location_request_message": _location_request,
    "product": _product,
    "product_list": _product_list,
    "catalog_message": _catalog,
}
