"""What the simulator takes against Meta's published schema, patched where that contradicts itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from message_examples import MESSAGES, PHONE, READ, TYPING
from pg_whatsapp.simulator.errors import GraphError
from pg_whatsapp.simulator.validation.messages import parse

_REPOSITORY = Path(__file__).resolve().parents[2]
_FILE = _REPOSITORY.parent / "shared" / "reference" / "business-messaging-api_v23.0.yaml"
_PATH = "/{Version}/{Phone-Number-ID}/messages"
pytestmark = pytest.mark.skipif(not _FILE.is_file(), reason="Meta's OpenAPI file is not beside the checkout")


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: dict[str, Any] = yaml.load(_FILE.read_text(), Loader=loader)  # noqa: S506 (a safe loader)
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


@pytest.fixture(scope="module")
def schemas(published: dict[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy({"components": published["components"]})
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


def _errors(document: dict[str, Any], schema: str, instance: Any) -> list[str]:
    found = Draft202012Validator(document | {"$ref": f"#/components/schemas/{schema}"}).iter_errors(instance)
    return [f"{error.json_path}: {error.message}" for error in found]


@pytest.mark.parametrize("name", MESSAGES)
def test_the_published_schema_takes_what_the_simulator_takes(schemas: dict[str, Any], name: str) -> None:
    message = MESSAGES[name]
    mapping = schemas["components"]["schemas"]["Message"]["discriminator"]["mapping"]
    parse(message)
    assert _errors(schemas, mapping[message["type"]].rpartition("/")[2], message) == []


@pytest.mark.parametrize("body", [READ, TYPING], ids=["read", "typing"])
def test_marking_as_read_fits_its_schema(schemas: dict[str, Any], body: dict[str, Any]) -> None:
    parse(body)
    assert _errors(schemas, "MarkMessageRequestPayload", body) == []


def _filled(value: Any) -> Any:
    """An example with its placeholders filled in, which are no URLs and too long for some fields."""
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item) for item in value]
    if isinstance(value, str) and "http(s)://" in value:
        return "https://x.example/file"
    if isinstance(value, str) and value.startswith("<"):
        return f"v{hash(value) % 10**6}"
    return value


def test_the_published_examples_are_taken(published: dict[str, Any]) -> None:
    content = published["paths"][_PATH]["post"]["requestBody"]["content"]["application/json"]
    refused = {}
    for name, example in content["examples"].items():
        body = _filled(example["value"])
        try:
            parse(body | ({"to": PHONE} if "to" in body else {}))
        except GraphError as error:
            refused[name] = error.details
    assert refused == {
        # it names no type, so it would be a text message without a text
        "Send Reply to List Message": "Unexpected key 'interactive'.",
        # the type is a placeholder
        "Send Multi-Product Message": "Param interactive.header.type must be one of text.",
    }
