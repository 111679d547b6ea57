"""The envelope of a send request and the message types that need no registry."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from wa_simulator.errors import GraphError
from wa_simulator.ids import USER_ID, digits_of

from .checks import array, boolean, child, choice, http_url, item, needed, needed_child, only, text
from .interactive import check_interactive

TYPES: Final = (
    "text",
    "image",
    "video",
    "document",
    "audio",
    "sticker",
    "location",
    "contacts",
    "reaction",
    "interactive",
    "template",
)
_ENVELOPE: Final = frozenset(
    {
        "messaging_product",
        "recipient_type",
        "to",
        "recipient",
        "type",
        "context",
        "biz_opaque_callback_data",
        "recipient_identity_key_hash",
    }
)
_MARKETING_KEYS: Final = frozenset({"product_policy", "message_activity_sharing"})
_RECEIPT: Final = frozenset({"messaging_product", "status", "message_id", "typing_indicator"})
_BIRTHDAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(slots=True)
class Receipt:
    """A request to mark a message as read."""

    message_id: str
    typing: bool


@dataclass(slots=True)
class Outgoing:
    """A send request that is well-formed. ``digits`` is None for user ids and groups."""

    type: str
    to: str | None
    recipient: str | None
    digits: str | None
    group: bool
    callback: str | None
    content: Any
    media_ids: list[str]


def addressee(body: dict[str, Any]) -> str | None:
    """Whom a request that was not checked yet is for: the digits in ``to``, else ``recipient``."""
    to, recipient = body.get("to"), body.get("recipient")
    if isinstance(to, str):
        return "".join(c for c in to if c.isdigit())
    return recipient if isinstance(recipient, str) else None


def parse(body: dict[str, Any], *, marketing: bool = False) -> Outgoing | Receipt:
    """Check ``body``, the JSON of a POST to ``/messages`` (or ``/marketing_messages``).

    Raises GraphError with the API's code for what is wrong. Rules: the Cloud API's reference for messages.
    """
    if body.get("messaging_product") != "whatsapp":
        raise GraphError(100, "The parameter messaging_product is required and must be 'whatsapp'.")
    if "status" in body:
        return _receipt(body)
    kind = body.get("type", "text")
    if kind not in TYPES:
        raise GraphError(131051 if isinstance(kind, str) else 100, f"Message type {kind!r} is not supported.")
    only(body, _ENVELOPE | {kind} | (_MARKETING_KEYS if marketing else frozenset()), "")
    if marketing and kind != "template":
        raise GraphError(131055, "Only template messages can be sent by this endpoint.")
    callback = text(body, "biz_opaque_callback_data", "", maximum=512, required=False)
    text(body, "recipient_identity_key_hash", "", required=False)
    to, recipient, digits, group = _recipient(body)
    _context(body, kind)
    content: Any = body.get(kind)
    media_ids: list[str] = []
    if kind == "contacts":
        _contacts(body)
    else:
        content = needed_child(body, kind, "")
        _CHECKS[kind](content, media_ids)
    return Outgoing(kind, to, recipient, digits, group, callback, content, media_ids)


def _receipt(body: dict[str, Any]) -> Receipt:
    only(body, _RECEIPT, "")
    if body["status"] != "read":
        raise GraphError(131009, "Param status must be 'read'.")
    indicator = child(body, "typing_indicator", "", required=False)
    if indicator is not None and indicator.get("type") != "text":
        raise GraphError(131009, "Param typing_indicator.type must be 'text'.")
    return Receipt(needed(body, "message_id", ""), indicator is not None)


def _recipient(body: dict[str, Any]) -> tuple[str | None, str | None, str | None, bool]:
    group = choice(body, "recipient_type", "", ("individual", "group"), required=False) == "group"
    to = text(body, "to", "", required=False)
    recipient = text(body, "recipient", "", required=False)
    if to is None and recipient is None:
        raise GraphError(
            131008, "The parameter to is required (or recipient, for a business-scoped user id)."
        )
    if recipient is not None and not USER_ID.fullmatch(recipient):
        raise GraphError(131009, "Param recipient is not a business-scoped user id.")
    digits = digits_of(to) if to is not None and not group else None
    return to, recipient, digits, group


def _context(body: dict[str, Any], kind: str) -> None:
    context = child(body, "context", "", required=False)
    if context is None:
        return
    only(context, frozenset({"message_id"}), "context")
    needed(context, "message_id", "context")
    if kind == "reaction":
        raise GraphError(131009, "A reaction cannot have a context.")


def _text(content: dict[str, Any], _: list[str]) -> None:
    only(content, frozenset({"body", "preview_url"}), "text")
    needed(content, "body", "text", 4096)
    boolean(content, "preview_url", "text")


def check_media(content: dict[str, Any], path: str, media_ids: list[str], allowed: frozenset[str]) -> None:
    """A media object: exactly one of ``id`` and ``link``, and no keys but these and ``allowed``."""
    only(content, allowed | {"id", "link"}, path)
    if ("id" in content) == ("link" in content):
        raise GraphError(131008 if "id" not in content else 131009, f"Param {path} needs either id or link.")
    if "link" in content:
        http_url(content, "link", path)
    else:
        media_ids.append(needed(content, "id", path))
    text(content, "caption", path, maximum=1024, required=False)
    text(content, "filename", path, required=False)


def _media(kind: str, *allowed: str) -> Callable[[dict[str, Any], list[str]], None]:
    def check(content: dict[str, Any], media_ids: list[str]) -> None:
        check_media(content, kind, media_ids, frozenset(allowed))
        boolean(content, "voice", kind)

    return check


def _location(content: dict[str, Any], _: list[str]) -> None:
    check_location(content)


def check_location(content: dict[str, Any]) -> None:
    """A place: coordinates in degrees, and words for it."""
    only(content, frozenset({"latitude", "longitude", "name", "address"}), "location")
    for key, bound in (("latitude", 90.0), ("longitude", 180.0)):
        value = content.get(key)
        if value is None:
            raise GraphError(131008, f"The parameter location.{key} is required.")
        try:
            valid = not isinstance(value, bool) and abs(float(value)) <= bound
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise GraphError(131009, f"Param location.{key} must be a number from -{bound:g} to {bound:g}.")
    text(content, "name", "location", required=False)
    text(content, "address", "location", required=False)


def _contacts(body: dict[str, Any]) -> None:
    for index, value in enumerate(array(body, "contacts", "", most=257)):
        path = f"contacts[{index}]"
        contact = item(value, path)
        only(contact, frozenset({"name", "phones", "emails", "urls", "addresses", "org", "birthday"}), path)
        name = needed_child(contact, "name", path)
        needed(name, "formatted_name", f"{path}.name")
        parts = ("first_name", "last_name", "middle_name", "suffix", "prefix")
        only(name, frozenset({"formatted_name", *parts}), f"{path}.name")
        if not any(name.get(part) for part in parts):
            raise GraphError(131008, f"Param {path}.name needs one part besides formatted_name.")
        for key in ("phones", "emails", "urls", "addresses"):
            if key in contact:
                for value_index, entry in enumerate(array(contact, key, path, least=0)):
                    item(entry, f"{path}.{key}[{value_index}]")
        child(contact, "org", path, required=False)
        birthday = text(contact, "birthday", path, required=False)
        if birthday is not None and not _BIRTHDAY.fullmatch(birthday):
            raise GraphError(131009, f"Param {path}.birthday must be written YYYY-MM-DD.")


def _reaction(content: dict[str, Any], _: list[str]) -> None:
    only(content, frozenset({"message_id", "emoji"}), "reaction")
    needed(content, "message_id", "reaction")
    if not isinstance(content.get("emoji"), str):
        raise GraphError(
            131008, "The parameter reaction.emoji is required (an empty one removes the reaction)."
        )


def _template(content: dict[str, Any], _: list[str]) -> None:
    only(content, frozenset({"name", "language", "components", "namespace"}), "template")
    needed(content, "name", "template", 512)
    language = needed_child(content, "language", "template")
    only(language, frozenset({"code", "policy"}), "template.language")
    needed(language, "code", "template.language")
    choice(language, "policy", "template.language", ("deterministic",), required=False)


_CHECKS: Final[dict[str, Callable[[dict[str, Any], list[str]], None]]] = {
    "text": _text,
    "image": _media("image", "caption"),
    "video": _media("video", "caption"),
    "document": _media("document", "caption", "filename"),
    "audio": _media("audio", "voice"),
    "sticker": _media("sticker"),
    "location": _location,
    "reaction": _reaction,
    "interactive": lambda content, media_ids: check_interactive(content, media_ids, check_media),
    "template": _template,
}
