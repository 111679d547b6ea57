"""Templates of every kind, the values that they take, short and ready, and values that do not fit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from message_examples import button, text

BODY = {"type": "BODY", "text": "Hello {{1}}, there is news."}
TEXTS = {"type": "body", "parameters": [text("Ann")]}


@dataclass(frozen=True)
class Kind:
    """A template; its values in their short form; the components that they become."""

    components: list[dict[str, Any]]
    short: Any
    ready: list[dict[str, Any]]
    category: str = "MARKETING"


def header(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    """The header component of a file, a place or a product."""
    return {"type": "header", "parameters": [{"type": kind, kind: value}]}


def action(index: int, sub_type: str, value: dict[str, Any]) -> dict[str, Any]:
    """The component of a button that takes an action."""
    return button(index, sub_type, {"type": "action", "action": value})


def headed(style: str, short: Any, value: dict[str, Any]) -> Kind:
    """A template with a header that is no text."""
    return Kind(
        [{"type": "HEADER", "format": style}, BODY],
        {"header": short, "body": ["Ann"]},
        [header(style.lower(), value), TEXTS],
    )


def buttoned(part: dict[str, Any], short: Any, *ready: dict[str, Any]) -> Kind:
    """A template with one button."""
    return Kind(
        [BODY, {"type": "BUTTONS", "buttons": [part]}],
        ["Ann"] if short is None else {"body": ["Ann"], "buttons": [short]},
        [TEXTS, *ready],
    )


LINK = {"link": "https://shop.example/a"}
PLACE = {"latitude": -34.6, "longitude": -58.4, "name": "Here", "address": "There"}
PRODUCT = {"catalog_id": "1946", "product_retailer_id": "sku-1"}
ORDER = {
    "reference_id": "order-1",
    "type": "physical-goods",
    "currency": "BRL",
    "total_amount": {"value": 5000, "offset": 100},
    "payment_settings": [{"type": "payment_link", "payment_link": {"uri": "https://pay.example/1"}}],
}
SECTIONS = {
    "thumbnail_product_retailer_id": "sku-1",
    "sections": [{"title": "Shoes", "product_items": [{"product_retailer_id": "sku-1"}]}],
}
CARD = {
    "components": [
        {"type": "HEADER", "format": "IMAGE"},
        {"type": "BODY", "text": "For {{1}} only"},
        {
            "type": "BUTTONS",
            "buttons": [
                {"type": "QUICK_REPLY", "text": "More"},
                {"type": "URL", "text": "Buy", "url": "https://shop.example/{{1}}"},
            ],
        },
    ]
}
PRODUCT_CARD = {
    "components": [
        {"type": "HEADER", "format": "PRODUCT"},
        {"type": "BUTTONS", "buttons": [{"type": "SPM", "text": "View"}]},
    ]
}


def card(index: int) -> dict[str, Any]:
    """A ready card of the media carousel."""
    return {
        "card_index": index,
        "components": [
            header("image", LINK),
            {"type": "body", "parameters": [text(f"${index}")]},
            button(1, "url", text(f"p{index}")),
        ],
    }


def short_card(index: int) -> dict[str, Any]:
    """The same in its short form."""
    return {"header": LINK["link"], "body": [f"${index}"], "buttons": [f"p{index}"]}


def product_cards(count: int) -> dict[str, Any]:
    """A ready carousel of product cards."""
    return {
        "type": "carousel",
        "cards": [{"card_index": n, "components": [header("product", PRODUCT)]} for n in range(count)],
    }


OFFER = {
    "type": "limited_time_offer",
    "parameters": [
        {"type": "limited_time_offer", "limited_time_offer": {"expiration_time_ms": 1924991999000}}
    ],
}
CAROUSEL = {"type": "carousel", "cards": [card(0), card(1)]}

KINDS: dict[str, Kind] = {
    "plain": Kind([BODY], ["Ann"], [TEXTS], "UTILITY"),
    "static": Kind(
        [{"type": "HEADER", "format": "TEXT", "text": "News"}, {"type": "BODY", "text": "Hello."},
         {"type": "FOOTER", "text": "Bye"}],
        None, [],
    ),
    "text header": Kind(
        [{"type": "HEADER", "format": "TEXT", "text": "Order {{1}}"}, BODY],
        {"header": "A-1", "body": ["Ann"]},
        [{"type": "header", "parameters": [text("A-1")]}, TEXTS],
    ),
    "named": Kind(
        [{"type": "BODY", "text": "Hello {{who}}, see {{what}}."}],
        {"who": "Ann", "what": "this"},
        [{"type": "body", "parameters": [
            text("Ann") | {"parameter_name": "who"}, text("this") | {"parameter_name": "what"}]}],
    ),
    "image": headed("IMAGE", LINK["link"], LINK),
    "video": headed("VIDEO", {"id": "55"}, {"id": "55"}),
    "gif": headed("GIF", "55", {"id": "55"}),
    "document": headed("DOCUMENT", {**LINK, "filename": "a.pdf"}, {**LINK, "filename": "a.pdf"}),
    "location": headed("LOCATION", PLACE, PLACE),
    "product": Kind(
        [{"type": "HEADER", "format": "PRODUCT"}, BODY,
         {"type": "BUTTONS", "buttons": [{"type": "SPM", "text": "View"}]}],
        {"header": PRODUCT, "body": ["Ann"]},
        [header("product", PRODUCT), TEXTS],
    ),
    "url": buttoned({"type": "URL", "text": "Track", "url": "https://shop.example/{{1}}"}, "track/1",
                    button(0, "url", text("track/1"))),
    "static url": buttoned({"type": "URL", "text": "Shop", "url": "https://shop.example/"}, None),
    "phone": buttoned({"type": "PHONE_NUMBER", "text": "Call", "phone_number": "+15550100"}, None),
    "contact": buttoned({"type": "REQUEST_CONTACT_INFO"}, None),
    "quick reply": buttoned({"type": "QUICK_REPLY", "text": "Stop"}, {"index": 0, "payload": "STOP_42"},
                            button(0, "quick_reply", {"type": "payload", "payload": "STOP_42"})),
    "call": buttoned({"type": "VOICE_CALL", "text": "Call us"},
                     {"index": 0, "ttl_minutes": 60},
                     button(0, "voice_call", {"type": "ttl_minutes", "ttl_minutes": 60})),
    "copy code": buttoned({"type": "COPY_CODE", "example": "ABC"}, "SAVE10",
                          button(0, "copy_code", {"type": "coupon_code", "coupon_code": "SAVE10"})),
    "flow": buttoned({"type": "FLOW", "text": "Book", "flow_id": "1"},
                     {"index": 0, "flow_token": "t", "flow_action_data": {"a": 1}},
                     action(0, "flow", {"flow_token": "t", "flow_action_data": {"a": 1}})),
    "flow without values": buttoned({"type": "FLOW", "text": "Book", "flow_id": "1"}, None,
                                    action(0, "flow", {"flow_token": "unused"})),
    "catalog": buttoned({"type": "CATALOG", "text": "View"},
                        {"index": 0, "thumbnail_product_retailer_id": "sku-1"},
        action(0, "catalog", {"thumbnail_product_retailer_id": "sku-1"})),
    "products": buttoned({"type": "MPM", "text": "View"}, SECTIONS, action(0, "mpm", SECTIONS)),
    "order": buttoned({"type": "ORDER_DETAILS", "text": "Pay"}, ORDER,
                      action(0, "order_details", {"order_details": ORDER})),
    "offer": Kind(
        [{"type": "LIMITED_TIME_OFFER", "limited_time_offer": {"text": "Hurry", "has_expiration": True}},
         BODY,
         {"type": "BUTTONS", "buttons": [{"type": "COPY_CODE", "example": "ABC"},
                                         {"type": "URL", "text": "Shop", "url": "https://shop.example/"}]}],
        {"body": ["Ann"], "buttons": ["SAVE10"], "limited_time_offer": "2030-12-31T23:59:59Z"},
        [OFFER, TEXTS, button(0, "copy_code", {"type": "coupon_code", "coupon_code": "SAVE10"})],
    ),
    "offer without end": Kind(
        [{"type": "LIMITED_TIME_OFFER", "limited_time_offer": {"text": "Hurry", "has_expiration": False}},
         BODY],
        ["Ann"], [TEXTS],
    ),
    "carousel": Kind(
        [BODY, {"type": "CAROUSEL", "cards": [CARD, CARD]}],
        {"body": ["Ann"], "cards": [short_card(0), short_card(1)]},
        [TEXTS, CAROUSEL],
    ),
    "products carousel": Kind(
        [BODY, {"type": "CAROUSEL", "cards": [PRODUCT_CARD, PRODUCT_CARD]}],
        {"body": ["Ann"], "cards": [{"header": PRODUCT}] * 3},
        [TEXTS, product_cards(3)],
    ),
    "code": Kind(
        [{"type": "BODY", "text": "{{1}} is your code."},
         {"type": "BUTTONS", "buttons": [{"type": "OTP", "otp_type": "COPY_CODE"}]}],
        ["123456"],
        [{"type": "body", "parameters": [text("123456")]}, button(0, "url", text("123456"))],
        "AUTHENTICATION",
    ),
}  # fmt: skip
