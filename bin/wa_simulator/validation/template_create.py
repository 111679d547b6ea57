"""A template that is handed to the review: what the API refuses before any reviewer sees it."""

from __future__ import annotations

import re
from typing import Any, Final

from wa_simulator.errors import GraphError

CATEGORIES: Final = ("MARKETING", "UTILITY", "AUTHENTICATION")
# Subcodes of Meta's table of template creation errors.
_TOO_LONG: Final = 2388040
_MISSING_FIELD: Final = 2388043
_HEADER_FORMAT: Final = 2388047
_BODY_FORMAT: Final = 2388072
_FOOTER_FORMAT: Final = 2388073
_RATIO: Final = 2388293
_AT_AN_END: Final = 2388299

_VARIABLE: Final = re.compile(r"\{\{\s*([A-Za-z0-9_]+)\s*\}\}")
_HEADERS: Final = ("TEXT", "IMAGE", "VIDEO", "GIF", "DOCUMENT", "LOCATION", "PRODUCT")
_LONGEST: Final = {"HEADER": 60, "BODY": 1024, "FOOTER": 60}
_LONGEST_BUTTON: Final = 25


def check_new_template(values: dict[str, Any]) -> None:
    """Check the request that makes a template; its components have their types in capitals.

    Raises GraphError as the API answers: code 100 with the subcode of the rule.
    """
    name = values.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_]{1,512}", name):
        raise GraphError(100, "Param name must have lowercase letters, digits and underscores only.")
    for key in ("language", "category", "components"):
        if key not in values:
            raise GraphError(131008, f"The parameter {key} is required.")
    if str(values["category"]).upper() not in CATEGORIES:
        raise GraphError(100, f"Param category must be one of {{{', '.join(CATEGORIES)}}}.")
    check_components(values["components"], str(values["category"]).upper())


def check_components(components: list[dict[str, Any]], category: str) -> None:
    """Check the components of a new or edited template; raises GraphError."""
    parts = {part["type"]: part for part in components}
    if "BODY" not in parts:
        raise GraphError(100, "A template needs a component of type BODY.", subcode=_MISSING_FIELD)
    if category == "AUTHENTICATION":
        _check_authentication(parts)
        return
    for kind, longest in _LONGEST.items():
        if len(str(parts.get(kind, {}).get("text", ""))) > longest:
            raise GraphError(100, f"The {kind} is longer than {longest} characters.", subcode=_TOO_LONG)
    _check_header(parts.get("HEADER"))
    _check_body(parts["BODY"])
    if _VARIABLE.search(str(parts.get("FOOTER", {}).get("text", ""))):
        raise GraphError(100, "The FOOTER takes no variable.", subcode=_FOOTER_FORMAT)
    for button in parts.get("BUTTONS", {}).get("buttons", []):
        _check_button(button)


def _check_authentication(parts: dict[str, dict[str, Any]]) -> None:
    """The parts of an authentication template, whose words are Meta's."""
    if "HEADER" in parts:
        raise GraphError(100, "An authentication template takes no header.", subcode=_HEADER_FORMAT)
    if "text" in parts["BODY"] or not isinstance(
        parts["BODY"].get("add_security_recommendation", True), bool
    ):
        raise GraphError(100, "An authentication template takes no text in its body.", subcode=_BODY_FORMAT)
    footer = parts.get("FOOTER")
    if footer is not None:
        minutes = footer.get("code_expiration_minutes")
        if "text" in footer or type(minutes) is not int or not 1 <= minutes <= 90:
            raise GraphError(
                100, "The FOOTER takes code_expiration_minutes from 1 to 90 only.", subcode=_FOOTER_FORMAT
            )
    buttons = parts.get("BUTTONS", {}).get("buttons", [])
    if len(buttons) != 1 or not isinstance(buttons[0], dict) or str(buttons[0].get("type")).upper() != "OTP":
        raise GraphError(
            100, "An authentication template has one button, of type OTP.", subcode=_MISSING_FIELD
        )
    _check_otp(buttons[0])


def _check_otp(button: dict[str, Any]) -> None:
    style = str(button.get("otp_type")).upper()
    if style not in ("COPY_CODE", "ONE_TAP", "ZERO_TAP"):
        raise _missing("BUTTONS", "otp_type")
    for key in ("text", "autofill_text"):
        if len(str(button.get(key, ""))) > _LONGEST_BUTTON:
            raise GraphError(
                100, f"{key} of a button is longer than {_LONGEST_BUTTON} characters.", subcode=_TOO_LONG
            )
    if style == "COPY_CODE":
        return
    apps = button.get("supported_apps", [button])
    if not isinstance(apps, list) or not 1 <= len(apps) <= 5:
        raise _missing("BUTTONS", "supported_apps")
    for app in apps:
        if (
            not isinstance(app, dict)
            or not app.get("package_name")
            or len(str(app.get("signature_hash", ""))) != 11
        ):
            raise _missing("BUTTONS", "supported_apps")
    if style == "ZERO_TAP" and button.get("zero_tap_terms_accepted") is not True:
        raise _missing("BUTTONS", "zero_tap_terms_accepted")


def _missing(kind: str, field: str) -> GraphError:
    return GraphError(
        100, f"component of type {kind} is missing expected field(s) ({field})", subcode=_MISSING_FIELD
    )


def _check_header(header: dict[str, Any] | None) -> None:
    if header is None:
        return
    style = header.get("format")
    if style not in _HEADERS:
        raise GraphError(100, f"The format of the HEADER must be one of {_HEADERS}.", subcode=_HEADER_FORMAT)
    example = header.get("example", {})
    if style in ("IMAGE", "VIDEO", "GIF", "DOCUMENT") and not example.get("header_handle"):
        raise _missing("HEADER", "example")
    variables = _VARIABLE.findall(str(header.get("text", "")))
    if len(variables) > 1:
        raise GraphError(100, "The HEADER takes one variable at most.", subcode=_HEADER_FORMAT)
    if variables and not (example.get("header_text") or example.get("header_text_named_params")):
        raise _missing("HEADER", "example")


def _check_body(body: dict[str, Any]) -> None:
    text = str(body.get("text", "")).strip()
    if not text:
        raise _missing("BODY", "text")
    variables = _VARIABLE.findall(text)
    if not variables:
        return
    if text.startswith("{{") or text.endswith("}}"):
        raise GraphError(100, "Variables can't be at the start or end of the template.", subcode=_AT_AN_END)
    if len(re.findall(r"\w+", _VARIABLE.sub(" ", text))) < 2 * len(variables) + 1:
        raise GraphError(100, "This template has too many variables for its length.", subcode=_RATIO)
    example = body.get("example", {})
    positional = (example.get("body_text") or [[]])[0]
    named = [given.get("param_name") for given in example.get("body_text_named_params", [])]
    if len(positional) != len(set(variables)) and set(named) != set(variables):
        raise _missing("BODY", "example")


def _check_button(button: Any) -> None:
    if not isinstance(button, dict) or not button.get("type"):
        raise _missing("BUTTONS", "type")
    kind = str(button["type"]).upper()
    if kind in ("URL", "QUICK_REPLY", "PHONE_NUMBER") and not button.get("text"):
        raise _missing("BUTTONS", "text")
    if len(str(button.get("text", ""))) > _LONGEST_BUTTON:
        raise GraphError(
            100, f"The text of a button is longer than {_LONGEST_BUTTON} characters.", subcode=_TOO_LONG
        )
    if kind == "COPY_CODE" and not button.get("example"):
        raise _missing("BUTTONS", "example")
    url = str(button.get("url", ""))
    if kind == "URL" and not re.match(r"https?://[^/{}\s]+", url):
        raise GraphError(100, "The url of a button must begin with an address.")
    if _VARIABLE.search(url) and not button.get("example"):
        raise _missing("BUTTONS", "example")
