"""What is about one person goes out of a webhook body, whoever else is in it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from plpython_source import load
from webhook_bodies import body, message, status, value

redaction = load("redact_webhook")
split = load("split_webhook")
ANA, BOB, NUMBER, WABA = "5491140000001", "5491140000002", "106540350000001", "102290120000001"


def wamid(phone: str) -> str:
    """As Meta makes them: the number stands in it."""
    return "wamid." + base64.b64encode(b"\x1d\x04\x0d" + phone.encode() + b"\x15\x02").decode()


def redact(raw: bytes, who: str = ANA, own: str = NUMBER) -> tuple[bytes, list[Any]] | None:
    found = redaction.redact_webhooks([7], [raw], [who], [own, WABA])
    return (found[0][1], json.loads(found[0][2])) if found else None


def both(field: str = "messages") -> bytes:
    """A body with a message, or status, of each of two people."""
    bodies = [
        json.loads(
            message(
                wamid(phone), phone, 1700000000, content=f"said by {phone}", name=f"n{phone}", number=NUMBER
            )
            if field == "messages"
            else status(wamid(phone), "delivered", 1700000000, number=NUMBER)
        )
        for phone in (ANA, BOB)
    ]
    first, second = (one["entry"][0]["changes"][0]["value"] for one in bodies)
    first[field] += second[field]
    if field == "messages":
        first["contacts"] += second["contacts"]
    return json.dumps(bodies[0]).encode()


@pytest.mark.parametrize("field", ["messages", "statuses"])
def test_the_atoms_of_the_person_go_and_the_others_stay(field: str) -> None:
    before = split.split_webhook(both(field))
    redacted = redact(both(field))
    assert redacted
    left = split.split_webhook(redacted[0])
    assert [atom.payload for atom in left] == [
        atom.payload for atom in before if BOB in (atom.payload or "") or wamid(BOB) in (atom.payload or "")
    ]
    assert all(atom.error is None for atom in left)
    assert ANA.encode() not in redacted[0]
    assert wamid(ANA).encode() not in redacted[0]
    assert redacted[1]
    assert BOB not in json.dumps(redacted[1])


def test_a_body_of_the_person_alone_is_left_without_atoms() -> None:
    raw = message(wamid(ANA), ANA, 1700000000, content="x", name="Ana", number=NUMBER)
    redacted = redact(raw)
    assert redacted
    assert split.split_webhook(redacted[0]) == []
    assert b"Ana" not in redacted[0]


def test_what_others_say_of_the_number_loses_the_number_only() -> None:
    raw = message(wamid(BOB), BOB, 1700000000, content=f"call +{ANA} now", name="Bob", number=NUMBER)
    redacted = redact(raw)
    assert redacted
    (atom,) = split.split_webhook(redacted[0])
    assert json.loads(atom.payload)["text"]["body"] == "call +0 now"


def test_who_quotes_the_person_is_somebody_else() -> None:
    raw = json.loads(message(wamid(BOB), BOB, 1700000000, content=f"{ANA}", name="Bob", number=NUMBER))
    change = raw["entry"][0]["changes"][0]["value"]
    change["messages"][0]["context"] = {"from": ANA, "id": wamid(ANA)}
    redacted = redact(json.dumps(raw).encode())
    assert redacted
    assert wamid(ANA).encode() not in redacted[0]
    assert ANA.encode() not in redacted[0]
    (atom,) = split.split_webhook(redacted[0])
    assert json.loads(atom.payload)["from"] == BOB


def test_what_lies_within_an_atom_of_several_goes_alone() -> None:
    """A history has threads of many people, a group participants."""
    threads = [{"id": phone, "messages": [{"from": phone, "id": wamid(phone)}]} for phone in (ANA, BOB)]
    raw = body("history", value(NUMBER, history=[{"metadata": {"phase": 0}, "threads": threads}]))
    redacted = redact(raw)
    assert redacted
    (atom,) = split.split_webhook(redacted[0])
    assert [thread["id"] for thread in json.loads(atom.payload)["threads"]] == [BOB]


def test_an_event_without_atoms_loses_the_number() -> None:
    raw = body("account_update", {"event": "X", "about": f"+{ANA}"}, account=WABA, time=1700000000)
    redacted = redact(raw)
    assert redacted
    (atom,) = split.split_webhook(redacted[0])
    assert json.loads(atom.payload) == {"event": "X", "about": "0"}


@pytest.mark.parametrize(
    "raw",
    [
        message(wamid(BOB), BOB, 1700000000, content="x", name="Bob", number=NUMBER),
        message(wamid(ANA), ANA, 1700000000, content="x", name="Ana", number="999"),
        body("account_update", {"event": "X"}, account=WABA, time=1700000000),
        b"",
        b"not json",
    ],
    ids=["somebody else", "another organization's number", "an account's event", "empty", "no JSON"],
)
def test_what_is_not_about_the_person_is_not_touched(raw: bytes) -> None:
    assert redact(raw) is None


@pytest.mark.parametrize(
    "raw", [b"{" + ANA.encode(), b'["' + ANA.encode() + b'"]', b'{"a": NaN, "b": "' + ANA.encode() + b'"}']
)
def test_what_cannot_be_read_and_names_the_person_goes_as_a_whole(raw: bytes) -> None:
    redacted = redact(raw)
    assert redacted
    assert split.split_webhook(redacted[0]) == []


def test_a_longer_number_is_another() -> None:
    for phone in (f"9{ANA}", f"{ANA}9"):
        assert (
            redact(message(wamid(phone), phone, 1700000000, content="x", name="Eva", number=NUMBER)) is None
        )


def test_what_jsonb_does_not_take_is_told_all_the_same() -> None:
    raw = message(wamid(ANA), ANA, 1700000000, content="a\x00b\ud800", name="Ana", number=NUMBER)
    redacted = redact(raw)
    assert redacted
    assert "\x00" not in json.dumps(redacted[1], ensure_ascii=False)
