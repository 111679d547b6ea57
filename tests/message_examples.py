"""A well-formed send request of every type, and the templates that they name."""

from __future__ import annotations

from typing import Any

PHONE = "+16505551234"
USER_ID = "US.13491208655302741918"
WAMID = "wamid.HBgLMTY1MDU1NTEyMzQVAgARGBI"

TEMPLATES: dict[str, dict[str, Any]] = {
    "plain": {"components": [{"type": "BODY", "text": "Good morning"}]},
    "positional": {
        "components": [
            {"type": "HEADER", "format": "TEXT", "text": "Order {{1}}"},
            {"type": "BODY", "text": "Hello {{1}}, it costs {{2}} and comes on {{3}}."},
            {
                "type": "BUTTONS",
                "buttons": [
                    {"type": "URL", "text": "Track", "url": "https://shop.example/{{1}}"},
                    {"type": "QUICK_REPLY", "text": "Stop"},
                    {"type": "PHONE_NUMBER", "text": "Call", "phone_number": "+15550100"},
                ],
            },
        ]
    },
    "named": {
        "parameter_format": "NAMED",
        "components": [{"type": "BODY", "text": "Hello {{first_name}}, {{shop}} misses you."}],
    },
    "picture": {
        "category": "MARKETING",
        "components": [
            {"type": "HEADER", "format": "IMAGE"},
            {"type": "BODY", "text": "Look!"},
            {"type": "BUTTONS", "buttons": [{"type": "COPY_CODE", "example": "ABC"}]},
        ],
    },
    "code": {
        "category": "AUTHENTICATION",
        "components": [
            {"type": "BODY", "text": "{{1}} is your code."},
            {"type": "BUTTONS", "buttons": [{"type": "OTP", "otp_type": "COPY_CODE"}]},
        ],
    },
}


def text(value: str) -> dict[str, Any]:
    """A text parameter of a template."""
    return {"type": "text", "text": value}


def template(name: str, *components: dict[str, Any]) -> dict[str, Any]:
    """The object under ``template``."""
    shown: dict[str, Any] = {"name": name, "language": {"code": "en_US"}}
    return shown | ({"components": list(components)} if components else {})


def button(index: int | str, sub_type: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    """A button component of a template message."""
    return {"type": "button", "sub_type": sub_type, "index": str(index), "parameters": list(parameters)}


POSITIONAL = (
    {"type": "header", "parameters": [text("4711")]},
    {
        "type": "body",
        "parameters": [
            text("Pablo"),
            {"type": "currency", "currency": {"fallback_value": "$1", "code": "USD", "amount_1000": 1000}},
            {"type": "date_time", "date_time": {"fallback_value": "Monday"}},
        ],
    },
    button(0, "url", text("track/123")),
    button(1, "quick_reply", {"type": "payload", "payload": "STOP_42"}),
)
NAMED = {
    "type": "body",
    "parameters": [text("Acme") | {"parameter_name": "shop"}, text("Eva") | {"parameter_name": "first_name"}],
}
PICTURE = (
    {"type": "header", "parameters": [{"type": "image", "image": {"link": "https://x.example/a.jpg"}}]},
    button(0, "copy_code", {"type": "coupon_code", "coupon_code": "SAVE20"}),
)
CODE = ({"type": "body", "parameters": [text("123456")]}, button(0, "url", text("123456")))


def _interactive(kind: str, action: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {"type": "interactive", "interactive": {"type": kind, "action": action, **parts}}


_BODY = {"body": {"text": "Which one?"}}
_CONTENTS: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": {"body": "See https://x.example", "preview_url": True}},
    "text, longest": {"type": "text", "text": {"body": "x" * 4096}},
    "reply": {"type": "text", "text": {"body": "yes"}, "context": {"message_id": WAMID}},
    "image by id": {"type": "image", "image": {"id": "123", "caption": "c" * 1024}},
    "video by link": {"type": "video", "video": {"link": "https://x.example/a.mp4", "caption": "c"}},
    "document": {"type": "document", "document": {"id": "1", "caption": "c", "filename": "a.pdf"}},
    "audio": {"type": "audio", "audio": {"link": "https://x.example/a.ogg"}},
    "voice": {"type": "audio", "audio": {"id": "1", "voice": True}},
    "sticker": {"type": "sticker", "sticker": {"id": "1"}},
    "location": {
        "type": "location",
        "location": {"latitude": "48.2", "longitude": 16.37, "name": "Shop", "address": "1 Main St"},
    },
    "contacts": {
        "type": "contacts",
        "contacts": [
            {
                "name": {"formatted_name": "Eva M", "first_name": "Eva"},
                "phones": [{"phone": "+431", "type": "WORK", "wa_id": "431"}],
                "emails": [{"email": "e@x.example", "type": "WORK"}],
                "org": {"company": "Acme"},
                "birthday": "1980-01-31",
            }
        ],
    },
    "reaction": {"type": "reaction", "reaction": {"message_id": WAMID, "emoji": "👍"}},
    "reaction removed": {"type": "reaction", "reaction": {"message_id": WAMID, "emoji": ""}},
    "buttons": _interactive(
        "button",
        {"buttons": [{"type": "reply", "reply": {"id": str(i), "title": f"Choice {i}"}} for i in range(3)]},
        header={"type": "document", "document": {"id": "1", "filename": "a.pdf"}},
        footer={"text": "f" * 60},
        **_BODY,
    ),
    "list": _interactive(
        "list",
        {
            "button": "Choose",
            "sections": [
                {
                    "title": f"S{s}",
                    "rows": [{"id": f"{s}{r}", "title": "T", "description": "D"} for r in range(5)],
                }
                for s in range(2)
            ],
        },
        header={"type": "text", "text": "Menu"},
        **_BODY,
    ),
    "link button": _interactive(
        "cta_url",
        {"name": "cta_url", "parameters": {"display_text": "Open", "url": "https://x.example"}},
        **_BODY,
    ),
    "flow": _interactive(
        "flow",
        {
            "name": "flow",
            "parameters": {
                "flow_message_version": "3",
                "flow_id": "1",
                "flow_cta": "Start",
                "flow_token": "t",
                "mode": "published",
                "flow_action": "navigate",
                "flow_action_payload": {"screen": "A", "data": {"a": 1}},
            },
        },
        **_BODY,
    ),
    "location request": _interactive("location_request_message", {"name": "send_location"}, **_BODY),
    "product": _interactive("product", {"catalog_id": "1", "product_retailer_id": "sku"}),
    "product list": _interactive(
        "product_list",
        {
            "catalog_id": "1",
            "sections": [{"title": "S", "product_items": [{"product_retailer_id": "sku"}]}],
        },
        header={"type": "text", "text": "Ours"},
        **_BODY,
    ),
    "catalogue": _interactive(
        "catalog_message",
        {"name": "catalog_message", "parameters": {"thumbnail_product_retailer_id": "sku"}},
        **_BODY,
    ),
    "template without parameters": {"type": "template", "template": template("plain")},
    "positional template": {"type": "template", "template": template("positional", *POSITIONAL)},
    "named template": {"type": "template", "template": template("named", NAMED)},
    "media template": {"type": "template", "template": template("picture", *PICTURE)},
    "authentication template": {"type": "template", "template": template("code", *CODE)},
}
MESSAGES: dict[str, dict[str, Any]] = {
    name: {"messaging_product": "whatsapp", "recipient_type": "individual", "to": PHONE, **content}
    for name, content in _CONTENTS.items()
} | {
    "with callback data": {
        "messaging_product": "whatsapp",
        "to": PHONE,
        "biz_opaque_callback_data": "d" * 512,
        "recipient_identity_key_hash": "DF2lS5v2W6x=",
        "type": "text",
        "text": {"body": "hi"},
    },
    "to a user id": {
        "messaging_product": "whatsapp",
        "recipient": USER_ID,
        "type": "text",
        "text": {"body": "hi"},
    },
    "to a phone and a user id": {
        "messaging_product": "whatsapp",
        "to": "+1 (650) 555-1234",
        "recipient": USER_ID,
        "type": "text",
        "text": {"body": "hi"},
    },
}
READ: dict[str, Any] = {"messaging_product": "whatsapp", "status": "read", "message_id": WAMID}
TYPING: dict[str, Any] = READ | {"typing_indicator": {"type": "text"}}
