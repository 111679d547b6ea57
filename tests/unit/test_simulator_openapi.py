"""What the simulator takes against Meta's published schema, patched where that contradicts itself."""

from __future__ import annotations

from typing import Any

import openapi
import pytest
from message_examples import MESSAGES, PHONE, READ, TYPING
from wa_simulator.errors import GraphError
from wa_simulator.validation.messages import parse

_PATH = "/{Version}/{Phone-Number-ID}/messages"
pytestmark = pytest.mark.skipif(not openapi.FILE.is_file(), reason=openapi.ABSENT)


@pytest.mark.parametrize("name", MESSAGES)
def test_the_published_schema_takes_what_the_simulator_takes(name: str) -> None:
    message = MESSAGES[name]
    parse(message)
    assert openapi.message_errors(message) == []


@pytest.mark.parametrize("body", [READ, TYPING], ids=["read", "typing"])
def test_marking_as_read_fits_its_schema(body: dict[str, Any]) -> None:
    parse(body)
    assert openapi.errors(openapi.schemas(), "MarkMessageRequestPayload", body) == []


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


def test_the_published_examples_are_taken() -> None:
    content = openapi.published()["paths"][_PATH]["post"]["requestBody"]["content"]["application/json"]
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
