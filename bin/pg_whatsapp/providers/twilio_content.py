"""Twilio's templates: resources of its Content API, with what WhatsApp's review says of each.

Documentation: www.twilio.com/docs/content, pages Content API resources and Content types overview. They are
made and submitted at Twilio.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from pg_whatsapp.providers.templates import PAGE, TemplatePage, Templates

_VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")


class _Part:
    """A component of the Cloud API, and the names that Twilio has for the placeholders in it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.names: list[str] = []

    def text(self, value: object) -> str:
        """A text with its placeholders numbered through the part, as the Cloud API wants them."""
        return _VARIABLE.sub(lambda found: f"{{{{{self._number(found[1])}}}}}", str(value or ""))

    def url(self, value: object) -> str:
        """The same for an address, whose button has one of its own."""
        found = _VARIABLE.search(str(value or ""))
        if found is not None:
            self.names.append(found[1])
        return _VARIABLE.sub("{{1}}", str(value or ""))

    def _number(self, name: str) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name) + 1

    def component(self, **content: Any) -> dict[str, Any]:
        """What wa_templates.components has of it."""
        names = {"twilio_variables": self.names} if self.names else {}
        return {"type": self.kind, **content, **names}


def _text(kind: str, value: object, **more: str) -> list[dict[str, Any]]:
    part = _Part(kind)
    return [part.component(text=part.text(value), **more)] if value else []


def _buttons(actions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    part = _Part("BUTTONS")
    buttons = []
    for action in actions:
        kind, label = action.get("type") or "QUICK_REPLY", {"text": action.get("title")}
        if kind == "URL":
            buttons.append({"type": kind, **label, "url": part.url(action.get("url"))})
        elif kind == "PHONE_NUMBER":
            buttons.append({"type": kind, **label, "phone_number": action.get("phone")})
        elif kind == "COPY_CODE":
            part.url(action.get("code"))
            buttons.append({"type": kind, **label})
        else:
            buttons.append({"type": kind, **label})
    return [part.component(buttons=buttons)] if buttons else []


def _authentication(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The code is the one variable, in the text and on the button."""
    labels = [action.get("copy_code_text") for action in content.get("actions") or []]
    button = {"type": "OTP", "otp_type": "COPY_CODE", "text": (labels or [None])[0] or "Copy code"}
    return [
        *_text("BODY", content.get("body") or "{{1}} is your verification code."),
        {"type": "BUTTONS", "buttons": [button], "twilio_variables": ["1"]},
    ]


def _components(kind: str, content: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The parts that take values; None where they cannot be given by the Cloud API's forms.

    Media are Twilio's own to send, as long as their addresses have no variable.
    """
    if any(_VARIABLE.search(str(address)) for address in content.get("media") or []):
        return None
    actions = _buttons(content.get("actions") or [])
    match kind:
        case "twilio/text" | "twilio/media" | "twilio/quick-reply" | "twilio/call-to-action":
            return [*_text("BODY", content.get("body")), *actions]
        case "twilio/card":
            return [*_text("BODY", content.get("title")), *_text("FOOTER", content.get("subtitle")), *actions]
        case "whatsapp/card":
            return [
                *_text("HEADER", content.get("header_text"), format="TEXT"),
                *_text("BODY", content.get("body")),
                *_text("FOOTER", content.get("footer")),
                *actions,
            ]
        case "whatsapp/authentication":
            return _authentication(content)
    return None


class ContentTemplates(Templates):
    """Read from the Content API, not submitted to it."""

    base_url = "https://content.twilio.com"
    _STATES: ClassVar = {"UNSUBMITTED": "PENDING", "RECEIVED": "PENDING", "": "PENDING"}

    def listing(self, waba_id: str, after: str | None, name: str | None) -> tuple[str, dict[str, str]]:
        """Pages by the query that the one before named."""
        return "v1/ContentAndApprovals", dict(parse_qsl(after)) if after else {"PageSize": str(PAGE)}

    def page(self, answer: dict[str, Any], after: str | None) -> TemplatePage:
        """The contents of an answer."""
        following = (answer.get("meta") or {}).get("next_page_url")
        rows = [self._template(row) for row in answer.get("contents") or []]
        return TemplatePage(rows, urlsplit(following).query if following else None, not following)

    def submission(self, waba_id: str, provider_id: str | None) -> str | None:
        """None: that is done at Twilio."""
        return None

    def canonical(self, answer: dict[str, Any], status: int) -> dict[str, Any]:
        """An error stands in the answer itself."""
        return {"error": answer} if status >= 400 else answer

    def _template(self, row: dict[str, Any]) -> dict[str, Any]:
        review = row.get("approval_requests") or {}
        types: dict[str, dict[str, Any]] = row.get("types") or {}
        # Of several the one that WhatsApp has seen, else the richest, which is what it would get.
        kind = review.get("content_type") or max(types, key=_richness, default="")
        components = _components(kind, types.get(kind) or {})
        state = str(review.get("status") or "").upper()
        return {
            "id": row.get("sid"),
            "account": row.get("account_sid"),
            "name": review.get("name") or row.get("friendly_name"),
            "language": row.get("language"),
            "category": review.get("category") or "",
            "status": "UNSUPPORTED" if components is None else self._STATES.get(state, state),
            "components": components or [],
            "rejected_reason": review.get("rejection_reason") or "NONE",
        }


def _richness(kind: str) -> int:
    order = (
        "twilio/text", "twilio/media", "twilio/quick-reply", "twilio/call-to-action", "twilio/card",
        "whatsapp/card", "whatsapp/authentication",
    )  # fmt: skip
    return order.index(kind) if kind in order else len(order)
