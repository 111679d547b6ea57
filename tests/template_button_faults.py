"""Values that do not fit the buttons of templates, as in template_faults.py."""

from __future__ import annotations

from message_examples import button, text
from template_examples import ORDER, SECTIONS, action
from template_faults import NOTHING, Wrong, changed, with_button

WRONG_BUTTONS: list[Wrong] = [
    # buttons that take none
    Wrong(
        "phone",
        {"body": ["Ann"], "buttons": {"0": "x"}},
        "WA004",
        "button 0 (PHONE_NUMBER) " + NOTHING,
        "Leave it",
    ),
    Wrong("phone", with_button(button(0, "phone_number", text("x"))), "WA004", NOTHING, "Leave it out", 100),
    Wrong("phone", with_button(button(0, "url", text("x"))), "WA004", NOTHING, "Leave it out", 100),
    Wrong(
        "static url",
        {"body": ["Ann"], "buttons": {"0": "x"}},
        "WA004",
        "button 0 (static URL) " + NOTHING,
        "",
    ),
    Wrong("static url", with_button(button(0, "url", text("x"))), "WA004", NOTHING, "Leave it out", 100),
    Wrong("contact", with_button(button(0, "url", text("x"))), "WA004", NOTHING, "Leave it out", 100),
    Wrong(
        "static url",
        {"body": ["Ann"], "buttons": ["x"]},
        "WA004",
        "takes none or does not exist",
        "0 need a value",
    ),
    Wrong(
        "plain", with_button(button(0, "url", text("x"))), "WA004", "does not exist", "has 0 buttons", 132018
    ),
    # buttons that take a value
    Wrong("url", ["Ann"], "WA003", "button 0 needs a value", '"buttons": ["track/123"]'),
    Wrong("url", with_button(), "WA003", "button 0 needs a value", '["track/123"]', 131008),
    Wrong("url", with_button(button(0, "url")), "WA003", "takes one parameter, 0 given", "track/123", 132000),
    Wrong(
        "url", with_button(button(0, "url", text("a"), text("b"))), "WA004", "2 given", "track/123", 132000
    ),
    Wrong(
        "url",
        with_button(button(0, "quick_reply", {"type": "payload", "payload": "x"})),
        "WA008",
        "of the sub_type url, not quick_reply",
        '"sub_type": "url", "index": "0"',
        132012,
    ),
    Wrong(
        "url",
        with_button(button(0, "url", {"type": "payload", "payload": "x"})),
        "WA008",
        "of the type text, not payload",
        "track/123",
        132012,
    ),
    Wrong(
        "url",
        with_button(button(0, "url", text("a")), button(0, "url", text("b"))),
        "WA004",
        "button 0 is given two values",
        "one value for each",
        131009,
    ),
    Wrong(
        "url",
        {"body": ["Ann"], "buttons": [{"index": 0, "text": "a"}, {"index": 0, "text": "b"}]},
        "WA004",
        "button 0 is given two values",
        "one value for each",
    ),
    Wrong(
        "url",
        with_button(changed(button(0, "url", text("a")), index=None)),
        "WA004",
        "does not exist",
        "",
        131009,
    ),
    Wrong(
        "quick reply",
        with_button(button(0, "quick_reply", text("x"))),
        "WA008",
        "of the type payload, not text",
        "",
        132012,
    ),
    Wrong(
        "quick reply",
        {"body": ["Ann"], "buttons": {"0": "x" * 257}},
        "WA007",
        "longer than 256",
        "table of yours",
    ),
    Wrong(
        "call",
        with_button(button(0, "voice_call", {"type": "ttl_minutes", "ttl_minutes": 0})),
        "WA008",
        "ttl_minutes from 1 to 43200",
        '"ttl_minutes": 60',
        131009,
    ),
    Wrong("copy code", ["Ann"], "WA003", "button 0 needs a value", '["SAVE10"]'),
    Wrong(
        "copy code",
        with_button(button(0, "copy_code", {"type": "coupon_code", "coupon_code": "x" * 21})),
        "WA007",
        "longer than 20",
        "Shorten",
        100,
    ),
    Wrong(
        "copy code",
        with_button(button(0, "copy_code", text("x"))),
        "WA008",
        "coupon_code, not text",
        "SAVE10",
        132012,
    ),
    Wrong(
        "flow",
        with_button(action(0, "flow", {"flow_action_data": "x"})),
        "WA008",
        "flow_action_data must be an object",
        '"flow_token"',
        100,
    ),
    Wrong(
        "catalog",
        with_button(action(0, "catalog", {})),
        "WA008",
        "thumbnail_product_retailer_id is missing",
        '"thumbnail_product_retailer_id"',
        131008,
    ),
    Wrong("products", ["Ann"], "WA003", "button 0 needs a value", '"sections"'),
    Wrong(
        "products", {"body": ["Ann"], "buttons": ["sku-1"]}, "WA008", "action must be an object", '"sections"'
    ),
    Wrong(
        "products",
        with_button(action(0, "mpm", changed(SECTIONS, sections=[]))),
        "WA008",
        "array of 1 to 10",
        '"sections"',
        131009,
    ),
    Wrong(
        "products",
        with_button(action(0, "mpm", changed(SECTIONS, sections=[{"title": "x", "product_items": []}]))),
        "WA008",
        "needs its product_items",
        '"sections"',
        131009,
    ),
    Wrong(
        "products",
        with_button(action(0, "mpm", changed(SECTIONS, sections=[{"product_items": [{}]}]))),
        "WA008",
        "needs its product_retailer_id",
        '"sections"',
        131008,
    ),
    Wrong(
        "products",
        with_button(
            action(
                0,
                "mpm",
                changed(SECTIONS, sections=[{"product_items": [{"product_retailer_id": "a"}]}] * 2),
            )
        ),
        "WA008",
        "several sections needs its title",
        '"title"',
        131008,
    ),
    Wrong(
        "products",
        with_button(
            action(
                0,
                "mpm",
                changed(
                    SECTIONS, sections=[{"title": "x" * 25, "product_items": [{"product_retailer_id": "a"}]}]
                ),
            )
        ),
        "WA008",
        "24 characters",
        "",
        100,
    ),
    Wrong(
        "products",
        with_button(
            action(
                0,
                "mpm",
                changed(
                    SECTIONS, sections=[{"title": "x", "product_items": [{"product_retailer_id": "a"}] * 31}]
                ),
            )
        ),
        "WA008",
        "30 product_items",
        "",
        131009,
    ),
    Wrong("order", ["Ann"], "WA003", "button 0 needs a value", '"reference_id"'),
    Wrong("order", with_button(), "WA003", "button 0 needs a value", '"reference_id"', 131008),
    Wrong(
        "order",
        with_button(action(0, "order_details", {})),
        "WA008",
        "order_details must be an object",
        '"reference_id"',
        131008,
    ),
    Wrong(
        "order",
        with_button(action(0, "order_details", {"order_details": changed(ORDER, reference_id=None)})),
        "WA008",
        "reference_id is missing",
        "",
        131008,
    ),
    Wrong(
        "order",
        with_button(action(0, "order_details", {"order_details": changed(ORDER, type="food")})),
        "WA008",
        "digital-goods or physical-goods",
        "",
        131009,
    ),
    Wrong(
        "order",
        with_button(action(0, "order_details", {"order_details": changed(ORDER, currency="real")})),
        "WA008",
        "currency must be a code",
        "",
        131009,
    ),
    Wrong(
        "order",
        {"body": ["Ann"], "buttons": [changed(ORDER, total_amount={"value": 1})]},
        "WA008",
        "total_amount needs value and offset",
        '"total_amount"',
    ),
]
