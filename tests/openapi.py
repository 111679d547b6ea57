"""Meta's published OpenAPI file, where it lies beside the checkout, patched where it contradicts itself."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

_REPOSITORY = Path(__file__).resolve().parents[1]
FILE = _REPOSITORY.parent / "shared" / "reference" / "business-messaging-api_v23.0.yaml"
ABSENT = "Meta's OpenAPI file is not beside the checkout"


@cache
def published() -> dict[str, Any]:
    """The file as it is."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: dict[str, Any] = yaml.load(FILE.read_text(), Loader=loader)  # noqa: S506 (a safe loader)
    return document


def _closed_keys_opened(node: Any) -> None:
    """Every message is an allOf of a base and an object without further keys, which refuses the base's."""
    if isinstance(node, dict):
        if node.get("additionalProperties") is False:
            del node["additionalProperties"]
        for value in node.values():
            _closed_keys_opened(value)
    elif isinstance(node, list):
        for value in node:
            _closed_keys_opened(value)


@cache
def schemas() -> dict[str, Any]:
    """Its components, patched."""
    document = copy.deepcopy({"components": published()["components"]})
    schemas: dict[str, Any] = document["components"]["schemas"]
    _closed_keys_opened(schemas)
    base = schemas["BaseMessageProperties"]
    # optional in the prose and in the file's own examples; `recipient` came later
    base["required"] = ["messaging_product", "type"]
    base["properties"] |= {
        "recipient": {"type": "string", "maxLength": 160},
        "biz_opaque_callback_data": {"type": "string", "maxLength": 512},
        "recipient_identity_key_hash": {"type": "string"},
    }
    base["anyOf"] = [{"required": ["to"]}, {"required": ["recipient"]}]
    schemas["LanguageObject"]["required"] = ["code"]
    component, button = schemas["TemplateComponent"], schemas["ButtonComponent"]["allOf"][1]
    for part in (component, button):
        part["properties"]["index"]["pattern"] = "^[0-9]$"
        part["properties"]["sub_type"]["enum"] += ["copy_code", "flow", "mpm"]
    schemas["ButtonParameterObject"]["properties"]["type"]["enum"] += ["coupon_code", "action"]
    location = schemas["LocationMessage"]["allOf"][1]["properties"]["location"]["properties"]
    for name in ("latitude", "longitude"):
        location[name]["type"] = ["string", "number"]
    interactive = schemas["InteractiveObject"]["properties"]
    interactive["type"]["enum"] += ["cta_url", "location_request_message"]
    schemas["ActionObject"]["oneOf"] += [
        {"required": ["name", "parameters"], "properties": {"name": {"const": "cta_url"}}},
        {"required": ["name"], "properties": {"name": {"const": "send_location"}}},
    ]
    return document


def errors(document: dict[str, Any], schema: str, instance: Any) -> list[str]:
    found = Draft202012Validator(document | {"$ref": f"#/components/schemas/{schema}"}).iter_errors(instance)
    return [f"{error.json_path}: {error.message}" for error in found]


def message_errors(message: dict[str, Any]) -> list[str]:
    """What the schema of the message's type has against it."""
    mapping = schemas()["components"]["schemas"]["Message"]["discriminator"]["mapping"]
    return errors(schemas(), mapping[message["type"]].rpartition("/")[2], message)
