"""Requests that the API takes, and the code with which it refuses others."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from message_examples import (
    CODE,
    MESSAGES,
    NAMED,
    PICTURE,
    POSITIONAL,
    READ,
    TEMPLATES,
    TYPING,
    button,
    template,
    text,
)
from template_button_faults import WRONG_BUTTONS
from template_examples import KINDS
from template_faults import WRONG, Wrong
from wa_simulator.errors import GraphError
from wa_simulator.ids import canonical_wa_id
from wa_simulator.state import Template
from wa_simulator.validation.messages import Outgoing, Receipt, parse
from wa_simulator.validation.template import check_status, check_template
from wa_simulator.validation.template_create import check_components

Change = Callable[[dict[str, Any]], Any]


def registered(name: str, **more: Any) -> Template:
    return Template(id="1", waba_id="1", name=name, language="en_US", **TEMPLATES[name] | more)


def refusal(name: str, change: Change, **options: Any) -> int:
    body = deepcopy(MESSAGES[name])
    change(body)
    with pytest.raises(GraphError) as caught:
        parse(body, **options)
    return caught.value.code


@pytest.mark.parametrize("name", MESSAGES)
def test_every_type_is_taken(name: str) -> None:
    message = parse(MESSAGES[name])
    assert isinstance(message, Outgoing)
    if message.type == "template":
        check_template(message.content, registered(message.content["name"]), 25, message.media_ids)


def test_reading_and_typing_are_no_messages() -> None:
    assert isinstance(parse(READ), Receipt)
    assert isinstance(parse(TYPING), Receipt)
    for change in ({"status": "seen"}, {"message_id": None}, {"typing_indicator": {"type": "dots"}}):
        with pytest.raises(GraphError):
            parse(READ | change)


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("text", lambda m: m.update(messaging_product="sms"), 100),
        ("text", lambda m: m.update(type="poll"), 131051),
        ("text", lambda m: m.update(tpye="text"), 100),
        ("text", lambda m: m["text"].update(boddy="x"), 100),
        ("text", lambda m: m["text"].update(body="x" * 4097), 100),
        ("text", lambda m: m["text"].update(body=" "), 131008),
        ("text", lambda m: m["text"].update(body=1), 100),
        ("text", lambda m: m.pop("text"), 131008),
        ("text", lambda m: m.update(text="hi"), 100),
        ("text", lambda m: m.pop("to"), 131008),
        ("text", lambda m: m.update(to="+1650555ABCD"), 131009),
        ("text", lambda m: m.update(to="123"), 131009),
        ("text", lambda m: m.update(to=16505551234), 100),
        ("text", lambda m: m.update(recipient="nobody"), 131009),
        ("text", lambda m: m.update(recipient_type="everyone"), 131009),
        ("text", lambda m: m.update(biz_opaque_callback_data="x" * 513), 100),
        ("reply", lambda m: m.update(context={"id": "wamid.x"}), 100),
        ("reaction", lambda m: m.update(context={"message_id": "wamid.x"}), 131009),
        ("reaction", lambda m: m["reaction"].pop("emoji"), 131008),
        ("image by id", lambda m: m["image"].update(link="https://x.example"), 131009),
        ("image by id", lambda m: m["image"].pop("id"), 131008),
        ("image by id", lambda m: m["image"].update(caption="c" * 1025), 100),
        ("video by link", lambda m: m["video"].update(link="ftp://x.example"), 131009),
        ("audio", lambda m: m["audio"].update(caption="c"), 100),
        ("voice", lambda m: m["audio"].update(voice="yes"), 100),
        ("sticker", lambda m: m["sticker"].update(caption="c"), 100),
        ("location", lambda m: m["location"].update(latitude=91), 131009),
        ("location", lambda m: m["location"].pop("longitude"), 131008),
        ("contacts", lambda m: m.update(contacts=[]), 131009),
        ("contacts", lambda m: m.update(contacts=m["contacts"] * 258), 131009),
        ("contacts", lambda m: m["contacts"][0]["name"].pop("formatted_name"), 131008),
        ("contacts", lambda m: m["contacts"][0]["name"].pop("first_name"), 131008),
        ("contacts", lambda m: m["contacts"][0].update(birthday="31.1.1980"), 131009),
        ("buttons", lambda m: m["interactive"].update(type="poll"), 131009),
        ("buttons", lambda m: m["interactive"].pop("body"), 131008),
        ("buttons", lambda m: m["interactive"]["body"].update(text="x" * 1025), 100),
        ("buttons", lambda m: m["interactive"]["footer"].update(text="x" * 61), 100),
        ("buttons", lambda m: m["interactive"]["header"].update(type="audio"), 131009),
        ("buttons", lambda m: m["interactive"]["action"].update(buttons=[]), 131009),
        ("buttons", lambda m: m["interactive"]["action"]["buttons"][0]["reply"].update(title="x" * 21), 100),
        ("buttons", lambda m: m["interactive"]["action"]["buttons"][0]["reply"].update(id="1"), 131009),
        (
            "buttons",
            lambda m: m["interactive"]["action"]["buttons"][0]["reply"].update(title="Choice 1"),
            131009,
        ),
        ("list", lambda m: m["interactive"]["action"].update(button="x" * 21), 100),
        ("list", lambda m: m["interactive"]["action"]["sections"][0].pop("title"), 131008),
        (
            "list",
            lambda m: m["interactive"]["action"]["sections"][0]["rows"].append({"id": "x", "title": "11th"}),
            131009,
        ),
        ("list", lambda m: m["interactive"]["action"]["sections"][0]["rows"][0].update(id="11"), 131009),
        ("list", lambda m: m["interactive"].update(header={"type": "image", "image": {"id": "1"}}), 131009),
        ("link button", lambda m: m["interactive"]["action"]["parameters"].update(url="x.example"), 131009),
        ("flow", lambda m: m["interactive"]["action"]["parameters"].update(flow_name="n"), 131009),
        ("flow", lambda m: m["interactive"]["action"]["parameters"].update(flow_cta="x" * 31), 100),
        ("flow", lambda m: m["interactive"]["action"]["parameters"].update(flow_message_version="2"), 131009),
        ("location request", lambda m: m["interactive"].update(action={"name": "x"}), 131009),
        ("product", lambda m: m["interactive"]["action"].pop("catalog_id"), 131008),
        ("product list", lambda m: m["interactive"].pop("header"), 131008),
        ("catalogue", lambda m: m["interactive"]["action"].update(name="x"), 131009),
        ("named template", lambda m: m["template"].pop("language"), 131008),
        ("named template", lambda m: m["template"]["language"].update(policy="fallback"), 131009),
    ],
)
def test_a_malformed_request_is_refused(name: str, change: Change, code: int) -> None:
    assert refusal(name, change) == code


def test_the_longest_body_of_a_list_is_longer() -> None:
    body = deepcopy(MESSAGES["list"])
    body["interactive"]["body"]["text"] = "x" * 4096
    parse(body)


def test_marketing_takes_templates_only() -> None:
    assert refusal("text", lambda message: None, marketing=True) == 131055
    parse(MESSAGES["media template"] | {"product_policy": "STRICT"}, marketing=True)
    assert refusal("media template", lambda message: message.update(product_policy="STRICT")) == 100


def body_of(*parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "body", "parameters": list(parameters)}


@pytest.mark.parametrize(
    ("name", "components", "code"),
    [
        ("plain", [body_of(text("too many"))], 132000),
        ("plain", [{"type": "footer", "parameters": []}], 132012),
        ("plain", [button(0, "url", text("x"))], 132018),
        ("positional", [], 132000),
        ("positional", [*POSITIONAL[:1], body_of(text("1"), text("2")), *POSITIONAL[2:]], 132000),
        ("positional", [*POSITIONAL, POSITIONAL[0]], 131009),
        ("positional", [*POSITIONAL[:2], POSITIONAL[3]], 131008),
        ("positional", [*POSITIONAL[:2], button(0, "quick_reply", text("x"))], 132012),
        ("positional", [*POSITIONAL[:3], button(2, "voice_call", text("x"))], 100),
        ("positional", [*POSITIONAL[:3], button(10, "quick_reply", text("x"))], 131009),
        ("positional", [*POSITIONAL[:2], button(0, "url", text("a\nb"))], 132018),
        ("positional", [{"type": "header", "parameters": [text("x" * 60)]}, *POSITIONAL[1:]], 132005),
        (
            "positional",
            [POSITIONAL[0], body_of(text("x" * 1024), text("y"), text("z")), *POSITIONAL[2:]],
            132005,
        ),
        (
            "positional",
            [
                POSITIONAL[0],
                body_of(text("a") | {"parameter_name": "a"}, text("y"), text("z")),
                *POSITIONAL[2:],
            ],
            132012,
        ),
        ("named", [body_of(text("Eva"), text("Acme"))], 132012),
        ("named", [body_of(*[text("Eva") | {"parameter_name": "shop"}] * 2)], 132012),
        (
            "named",
            [body_of(text("E") | {"parameter_name": "shop"}, text("E") | {"parameter_name": "x"})],
            132012,
        ),
        ("picture", [PICTURE[1]], 132012),
        ("picture", [{"type": "header", "parameters": [text("x")]}, PICTURE[1]], 132012),
        ("picture", [PICTURE[0]], 131008),
        (
            "picture",
            [PICTURE[0], button(0, "copy_code", {"type": "coupon_code", "coupon_code": "x" * 21})],
            100,
        ),
        ("code", [CODE[0]], 131008),
        ("code", [CODE[0], button(0, "url", text("654321"))], 131009),
        ("code", [body_of(text("1" * 16)), button(0, "url", text("1" * 16))], 132018),
    ],
)
def test_parameters_must_fit_the_template(name: str, components: list[dict[str, Any]], code: int) -> None:
    with pytest.raises(GraphError) as caught:
        check_template(template(name, *components), registered(name), 25, [])
    assert caught.value.code == code


def known(name: str) -> Template:
    kind = KINDS[name]
    return Template(
        id="1", waba_id="1", name=name, language="en_US", category=kind.category, components=kind.components,
        parameter_format="NAMED" if name == "named" else "POSITIONAL",
    )  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_values_of_every_kind_of_template_are_taken(name: str) -> None:
    check_template(template(name, *KINDS[name].ready), known(name), 25, [])


@pytest.mark.parametrize(
    "wrong", [one for one in (*WRONG, *WRONG_BUTTONS) if one.code], ids=lambda wrong: wrong.message
)
def test_values_of_another_shape_are_refused(wrong: Wrong) -> None:
    with pytest.raises(GraphError) as caught:
        check_template(template(wrong.kind, *wrong.values), known(wrong.kind), 25, [])
    assert caught.value.code == wrong.code, str(caught.value)


@pytest.mark.parametrize(
    ("value", "refused"), [("a\nb", True), ("a\tb", True), ("a     b", True), ("a    b", False)]
)
def test_white_space_in_parameters(value: str, refused: bool) -> None:
    given = template("named", NAMED)
    given["components"] = [body_of(*[p | {"text": value} for p in NAMED["parameters"]])]
    if not refused:
        check_template(given, registered("named"), 25, [])
        return
    for version, code in ((25, 132018), (22, 132012)):
        with pytest.raises(GraphError) as caught:
            check_template(given, registered("named"), version, [])
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("status", "code", "http"),
    [("PAUSED", 132015, 400), ("DISABLED", 132016, 400), ("PENDING", 132001, 404), ("ARCHIVED", 132001, 404)],
)
def test_only_an_approved_template_may_be_sent(status: str, code: int, http: int) -> None:
    with pytest.raises(GraphError) as caught:
        check_status(registered("plain", status=status), "plain", "en_US")
    assert (caught.value.code, caught.value.status) == (code, http)
    with pytest.raises(GraphError) as caught:
        check_status(None, "plain", "en_US")
    assert caught.value.code == 132001


@pytest.mark.parametrize(
    ("dialled", "wa_id"),
    [
        ("5531998765432", "553198765432"),
        ("5511998765432", "5511998765432"),
        ("525512345678", "5215512345678"),
        ("541112345678", "5491112345678"),
        ("5491112345678", "5491112345678"),
        ("16505551234", "16505551234"),
    ],
)
def test_some_countries_have_other_wa_ids_than_numbers(dialled: str, wa_id: str) -> None:
    assert canonical_wa_id(dialled) == wa_id


OTP = {"type": "OTP", "otp_type": "COPY_CODE"}
APP = {"package_name": "com.shop.app", "signature_hash": "K8a/AINcGX7"}


def authentication(*parts: dict[str, Any], button: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return [{"type": "BODY"}, *parts, {"type": "BUTTONS", "buttons": [OTP if button is None else button]}]


@pytest.mark.parametrize(
    "components",
    [
        authentication(),
        authentication({"type": "FOOTER", "code_expiration_minutes": 90}),
        authentication(button=OTP | {"otp_type": "one_tap", "supported_apps": [APP]}),
        authentication(button={**OTP, **APP, "otp_type": "ZERO_TAP", "zero_tap_terms_accepted": True}),
    ],
)
def test_an_authentication_template_without_words_is_taken(components: list[dict[str, Any]]) -> None:
    check_components(components, "AUTHENTICATION")


@pytest.mark.parametrize(
    "components",
    [
        [{"type": "BODY"}],
        [{"type": "BODY", "text": "{{1}} is your code."}, *authentication()[1:]],
        [{"type": "BODY", "add_security_recommendation": "yes"}, *authentication()[1:]],
        authentication({"type": "HEADER", "format": "TEXT", "text": "Code"}),
        authentication({"type": "FOOTER", "text": "This code expires in 10 minutes."}),
        authentication({"type": "FOOTER", "code_expiration_minutes": 0}),
        authentication({"type": "FOOTER", "code_expiration_minutes": 91}),
        authentication(button={"type": "URL", "text": "Go", "url": "https://a.de"}),
        authentication(button={"type": "OTP"}),
        authentication(button=OTP | {"text": "x" * 26}),
        authentication(button=OTP | {"otp_type": "ONE_TAP"}),
        authentication(button=OTP | {"otp_type": "ONE_TAP", "supported_apps": [APP] * 6}),
        authentication(button=OTP | {"otp_type": "ZERO_TAP", "supported_apps": [APP]}),
    ],
)
def test_an_authentication_template_with_words_of_its_own_is_not(components: list[dict[str, Any]]) -> None:
    with pytest.raises(GraphError) as caught:
        check_components(components, "AUTHENTICATION")
    assert caught.value.code == 100
