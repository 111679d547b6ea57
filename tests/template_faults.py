"""Values that do not fit templates, what is said of them here, and the code with which Meta refuses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from message_examples import button, text
from template_examples import (
    CAROUSEL,
    KINDS,
    LINK,
    OFFER,
    PLACE,
    PRODUCT,
    TEXTS,
    card,
    header,
    product_cards,
    short_card,
)


@dataclass(frozen=True)
class Wrong:
    """Values that do not fit: what refuses them here, with which words, and the code with which Meta would.

    ``code`` is 0 for short forms, which no provider sees.
    """

    kind: str
    values: Any
    sqlstate: str
    message: str
    hint: str
    code: int = 0


def with_button(*ready: dict[str, Any]) -> list[dict[str, Any]]:
    """The body and these buttons."""
    return [TEXTS, *ready]


def changed(value: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """``value`` without the keys that are None in ``changes``, with the others."""
    return {key: new for key, new in (value | changes).items() if new is not None}


NOTHING = "takes no value"
WRONG: list[Wrong] = [
    # the body
    Wrong("plain", [], "WA003", "the body takes one value, 0 given", "placeholder of the body"),
    Wrong("plain", ["a", "b"], "WA004", "the body takes one value, 2 given", "placeholder of the body"),
    Wrong(
        "plain",
        [{"type": "body", "parameters": []}],
        "WA003",
        "takes one value, 0 given",
        "of the body",
        132000,
    ),
    Wrong("plain", [{"type": "body", "parameters": [text("a"), text("b")]}], "WA004", "2 given", "", 132000),
    Wrong(
        "plain", [{"type": "body", "parameters": ["Ann"]}], "WA008", "array of objects", '"type": "text"', 100
    ),
    Wrong(
        "plain",
        [{"type": "body", "parameters": [header("image", LINK)["parameters"][0]]}],
        "WA008",
        "must be a text, currency or date_time",
        "",
        132012,
    ),
    Wrong(
        "plain",
        [{"type": "body", "parameters": [text("a") | {"parameter_name": "who"}]}],
        "WA005",
        "placeholders have numbers",
        "Leave parameter_name out",
        132012,
    ),
    Wrong("plain", [TEXTS, TEXTS], "WA004", '"body" is given twice', "in one", 131009),
    Wrong(
        "plain",
        [TEXTS, {"type": "footer", "parameters": []}],
        "WA004",
        '"footer" takes no value',
        "Leave it",
        132012,
    ),
    Wrong(
        "plain",
        [TEXTS, {"type": "poem", "parameters": []}],
        "WA008",
        'of the type "poem"',
        "Types are",
        132012,
    ),
    Wrong(
        "plain",
        [{"type": "currency", "currency": {"fallback_value": "$1", "code": "USD"}}],
        "WA008",
        "amount_1000 must be a whole number",
        '"amount_1000": 10990',
    ),
    Wrong(
        "plain",
        [
            {
                "type": "body",
                "parameters": [{"type": "currency", "currency": {"fallback_value": "$1", "code": "USD"}}],
            }
        ],
        "WA008",
        "amount_1000",
        "",
        132012,
    ),
    Wrong("static", ["a"], "WA004", "the body takes no value, 1 given", "Leave the values of the body out"),
    Wrong(
        "named",
        [{"type": "body", "parameters": [text("a"), text("b")]}],
        "WA005",
        "needs its own parameter_name",
        "who, what",
        132012,
    ),
    Wrong(
        "named",
        [{"type": "body", "parameters": [text("a") | {"parameter_name": "who"}] * 2}],
        "WA005",
        "needs its own parameter_name",
        "",
        132012,
    ),
    # headers
    Wrong("static", {"header": "x"}, "WA004", "for the header, which takes none", "Leave it out"),
    Wrong("plain", [header("image", LINK), TEXTS], "WA004", "for the header, which takes none", "", 132000),
    Wrong("text header", ["Ann"], "WA003", "the header takes one value, 0 given", "of the header"),
    Wrong("text header", [TEXTS], "WA003", "the header takes one value, 0 given", "of the header", 132000),
    Wrong(
        "text header",
        {"header": LINK, "body": ["Ann"]},
        "WA008",
        "the header takes a text",
        '"header": "..."',
    ),
    Wrong("text header", [header("image", LINK), TEXTS], "WA008", "must be a text", "", 132012),
    Wrong("image", ["Ann"], "WA003", "the header needs its image", '"header": {"link": "https://..."}'),
    Wrong("image", [TEXTS], "WA003", "the header needs its image", '{"link": "https://..."}', 132012),
    Wrong("image", [header("video", LINK), TEXTS], "WA008", "kind image, not video", '"link"', 132012),
    Wrong("image", [header("image", {}), TEXTS], "WA008", "image must have id or link", '"link"', 131008),
    Wrong(
        "image",
        [header("image", {**LINK, "caption": "x"}), TEXTS],
        "WA008",
        "caption is not allowed",
        "",
        100,
    ),
    Wrong("image", {"header": [LINK, LINK], "body": ["Ann"]}, "WA004", "one image, 2 given", '"link"'),
    Wrong(
        "video",
        [header("video", {**LINK, "filename": "a"}), TEXTS],
        "WA008",
        "filename is for documents",
        "",
        100,
    ),
    Wrong("document", ["Ann"], "WA003", "the header needs its document", '"filename": "invoice.pdf"'),
    Wrong("gif", [header("video", LINK), TEXTS], "WA008", "kind gif, not video", '"link"', 132012),
    Wrong("location", ["Ann"], "WA003", "the header needs its location", '"latitude"'),
    Wrong(
        "location",
        [header("location", {"latitude": 1}), TEXTS],
        "WA008",
        "longitude is missing",
        '"longitude"',
        131008,
    ),
    Wrong(
        "location",
        [header("location", {**PLACE, "latitude": 91}), TEXTS],
        "WA008",
        "between -90 and 90",
        "",
        131009,
    ),
    Wrong("product", ["Ann"], "WA003", "the header needs its product", '"product_retailer_id"'),
    Wrong(
        "product", {"header": "sku-1", "body": ["Ann"]}, "WA008", "product must be an object", '"catalog_id"'
    ),
    Wrong(
        "product",
        [header("product", {"catalog_id": "1"}), TEXTS],
        "WA008",
        "product_retailer_id is missing",
        '"catalog_id"',
        131008,
    ),
    Wrong(
        "product",
        [*KINDS["product"].ready, button(0, "url", text("x"))],
        "WA004",
        "button 0 (SPM) takes no value",
        "Leave it out",
        100,
    ),
    # offers
    Wrong(
        "offer",
        {"body": ["Ann"], "buttons": ["SAVE10"]},
        "WA003",
        "limited-time offer needs its end",
        "2030-12-31",
    ),
    Wrong(
        "offer", [TEXTS, KINDS["offer"].ready[2]], "WA003", "limited-time offer needs its end", "2030", 131008
    ),
    Wrong(
        "offer",
        {"body": ["Ann"], "buttons": ["X"], "limited_time_offer": "2030-12-31 10:00"},
        "WA008",
        "is no time",
        "milliseconds",
    ),
    Wrong(
        "offer",
        {"body": ["Ann"], "buttons": ["X"], "limited_time_offer": "2030-13-31T10:00Z"},
        "WA008",
        "is no time",
        "milliseconds",
    ),
    Wrong(
        "offer",
        [changed(OFFER, parameters=[text("x")]), *KINDS["offer"].ready[1:]],
        "WA008",
        "is no time",
        "",
        132012,
    ),
    Wrong(
        "offer without end",
        [OFFER, TEXTS],
        "WA004",
        "the template shows none",
        "Leave limited_time_offer out",
        100,
    ),
    Wrong(
        "plain",
        {"body": ["Ann"], "limited_time_offer": 1924991999000},
        "WA004",
        "the template shows none",
        "Leave",
    ),
    # carousels
    Wrong("carousel", ["Ann"], "WA003", "takes 2 cards, 0 given", '"cards": [{"header"'),
    Wrong("carousel", [TEXTS], "WA003", "takes 2 cards, 0 given", '"cards"', 132012),
    Wrong(
        "carousel",
        [TEXTS, changed(CAROUSEL, cards=[card(0)])],
        "WA003",
        "takes 2 cards, 1 given",
        "2 cards",
        132012,
    ),
    Wrong(
        "carousel",
        [TEXTS, changed(CAROUSEL, cards=[card(0), card(1), card(2)])],
        "WA004",
        "3 given",
        "",
        132012,
    ),
    Wrong(
        "carousel",
        [TEXTS, changed(CAROUSEL, cards=[card(0), card(0)])],
        "WA004",
        "card 0 is given twice",
        "",
        131009,
    ),
    Wrong(
        "carousel",
        [TEXTS, changed(CAROUSEL, cards=[card(0), changed(card(1), components=[])])],
        "WA003",
        "card 1: the header needs its image",
        '"link"',
        132012,
    ),
    Wrong(
        "carousel",
        [TEXTS, changed(CAROUSEL, cards=[card(0), changed(card(1), components=card(1)["components"][:2])])],
        "WA003",
        "card 1: button 1 needs a value",
        "track/123",
        131008,
    ),
    Wrong(
        "carousel",
        {"body": ["Ann"], "cards": [short_card(0), changed(short_card(1), body=[])]},
        "WA003",
        "card 1: the body takes one value, 0 given",
        "of the body",
    ),
    Wrong(
        "carousel",
        {"body": ["Ann"], "cards": {"0": short_card(0)}},
        "WA008",
        "cards must be an array",
        '"cards"',
    ),
    Wrong("plain", {"body": ["Ann"], "cards": [short_card(0)]}, "WA004", "has no carousel", "Leave them out"),
    Wrong("plain", [TEXTS, CAROUSEL], "WA004", "has no carousel", "Leave them out", 132012),
    Wrong(
        "products carousel", [TEXTS, product_cards(1)], "WA003", "2 to 10 product cards, 1 given", "", 132012
    ),
    Wrong(
        "products carousel", {"body": ["Ann"], "cards": [{"header": PRODUCT}] * 11}, "WA004", "11 given", ""
    ),
    # authentication
    Wrong("code", [], "WA003", "the body takes one value, 0 given", ""),
    Wrong("code", [KINDS["code"].ready[0]], "WA003", "button 0 needs a value", "", 131008),
    Wrong(
        "code",
        [KINDS["code"].ready[0], button(0, "url", text("654321"))],
        "WA008",
        "another code than the body",
        "Leave buttons out",
        131009,
    ),
    Wrong(
        "code",
        {"body": ["123456"], "buttons": ["654321"]},
        "WA008",
        "another code than the body",
        "Leave buttons out",
    ),
    Wrong(
        "code",
        [{"type": "body", "parameters": [text("1" * 16)]}, button(0, "url", text("1" * 16))],
        "WA007",
        "the code is longer than 15",
        "",
        132018,
    ),
    # no shape at all
    Wrong("plain", "Ann", "WA005", "neither a JSON array nor an object", "array"),
    Wrong("image", {"header": {"link": ["x"]}, "body": ["Ann"]}, "WA008", "link must be a string", '"link"'),
]
