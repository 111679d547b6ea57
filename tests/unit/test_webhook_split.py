"""How a webhook body is taken apart, without a server."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import plpython_source
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

source = plpython_source.load("split_webhook")
SAMPLES = Path(__file__).resolve().parents[3] / "shared/samples/webhooks"
METADATA = {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"}
TEXT = {
    "id": "wamid.A",
    "from": "16505551234",
    "timestamp": "1749416383",
    "type": "text",
    "text": {"body": "hi"},
}
STATUS = {"id": "wamid.B", "status": "sent", "timestamp": "1750030073", "recipient_id": "16505551234"}


def body(*values: dict[str, Any], field: str = "messages", **entry: Any) -> dict[str, Any]:
    changes = [{"field": field, "value": {"metadata": METADATA, **value}} for value in values]
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": "102290129340398", **entry, "changes": changes}],
    }


def split(document: Any) -> list[Any]:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    atoms: list[Any] = source.split_webhook(raw)
    return atoms


def test_a_message_brings_its_number_account_and_contact() -> None:
    contact = {"wa_id": "16505551234", "profile": {"name": "Sheena"}}
    (atom,) = split(body({"contacts": [contact], "messages": [TEXT]}))
    assert (atom.atom, atom.kind, atom.field) == (1, "message", "messages")
    assert (atom.waba_id, atom.phone_number_id, atom.display_phone) == (
        "102290129340398",
        "106540352242922",
        "15550783881",
    )
    assert json.loads(atom.payload) == TEXT
    assert json.loads(atom.contact) == contact
    assert (atom.dedupe_key, atom.note, atom.error) == ("wamid.A", None, None)


def test_atoms_come_in_the_order_of_the_body() -> None:
    reaction = TEXT | {"id": "wamid.R", "type": "reaction"}
    document = body(
        {"errors": [{"code": 1}], "statuses": [STATUS], "messages": [reaction]},
        {"messages": [TEXT], "unknown": True},
    )
    assert [(atom.atom, atom.kind, atom.dedupe_key[:7]) for atom in split(document)] == [
        (1, "errors", "sha256:"),
        (2, "status", "wamid.B"),
        (3, "message", "wamid.R"),
        (4, "message", "wamid.A"),
    ]


@pytest.mark.parametrize(
    ("field", "key", "element", "kind"),
    [
        ("smb_message_echoes", "message_echoes", {"id": "wamid.E", "to": "1"}, "echo"),
        ("smb_app_state_sync", "state_sync", {"type": "contact"}, "state_sync"),
        ("history", "history", {"threads": []}, "history"),
        ("user_preferences", "user_preferences", {"value": "stop"}, "user_preference"),
        ("messages", "user_actions", {"action_type": "marketing_messages_link_click"}, "user_action"),
        ("group_lifecycle_update", "groups", {"group_id": "g"}, "group"),
        ("calls", "calls", {"id": "wacid.1", "event": "connect"}, "call"),
        ("calls", "statuses", {"id": "wacid.1", "type": "call", "status": "RINGING"}, "call_status"),
        ("messages", "statuses", STATUS, "status"),
        ("messages", "errors", {"code": 130429}, "errors"),
    ],
)
def test_every_array_gives_an_atom_per_element(
    field: str, key: str, element: dict[str, Any], kind: str
) -> None:
    other = element | {"id": "wamid.other"}
    atoms = split(body({key: [element, other]}, field=field))
    assert [atom.kind for atom in atoms] == [kind, kind]
    assert [json.loads(atom.payload) for atom in atoms] == [element, other]
    assert len({atom.dedupe_key for atom in atoms}) == 2


@pytest.mark.parametrize(
    "field", ["message_template_status_update", "account_update", "flows", "security", "never_heard_of"]
)
def test_any_other_field_is_one_account_event_with_the_whole_value(field: str) -> None:
    value = {"event": "X", "display_phone_number": "15550783881"}
    document = {"entry": [{"id": 7, "time": 1739321024, "changes": [{"field": field, "value": value}]}]}
    (atom,) = split(document)
    assert (atom.kind, atom.field, atom.waba_id, atom.display_phone) == ("account", field, "7", "15550783881")
    assert atom.entry_time == "2025-02-12T00:43:44+00:00"
    assert json.loads(atom.payload) == value


def test_an_unknown_array_beside_messages_is_kept() -> None:
    kinds = [(atom.kind, atom.payload) for atom in split(body({"messages": [TEXT], "polls": [{"id": 1}]}))]
    assert kinds[1] == ("account", '{"polls":[{"id":1}]}')


@pytest.mark.parametrize(
    "document",
    [
        {"field": "messages", "value": {"messages": [TEXT]}},
        {"entry": {"changes": {"field": "messages", "value": {"messages": TEXT}}}},
        {"entry": [{"field": "messages", "value": {"messages": [TEXT]}}]},
        {"entry": [{"field": "messages", "changes": [{"value": {"messages": [TEXT]}}]}]},
        {"messages": [TEXT]},
    ],
)
def test_the_wrong_depth_is_tolerated(document: dict[str, Any]) -> None:
    (atom,) = split(document)
    assert (atom.kind, atom.field, json.loads(atom.payload)) == ("message", "messages", TEXT)


def test_who_a_contact_belongs_to() -> None:
    ann, ben = {"wa_id": "1", "user_id": "US.1"}, {"wa_id": "2", "user_id": "US.2"}

    def contact(contacts: list[Any], **message: Any) -> Any:
        (atom,) = split(body({"contacts": contacts, "messages": [{"id": "x", **message}]}))
        return json.loads(atom.contact) if atom.contact else None

    assert contact([ann, ben], **{"from": "2"}) == ben
    assert contact([ann, ben], from_user_id="US.2") == ben
    assert contact([ann, ben], **{"from": "3"}) is None
    assert contact([ann], type="system") == ann
    assert contact([ann], **{"from": "2"}) is None, "another person's data must not stick to a message"
    assert contact([ann], from_user_id="US.1") == ann
    (status,) = split(body({"contacts": [ann, ben], "statuses": [STATUS | {"recipient_user_id": "US.2"}]}))
    assert json.loads(status.contact) == ben


def test_the_key_of_a_status_names_message_status_and_group_member() -> None:
    def key(**more: Any) -> str:
        (atom,) = split(body({"statuses": [STATUS | more]}))
        return str(atom.dedupe_key)

    assert key() == "wamid.B|sent"
    assert key(timestamp="1") == key(), "the time is data"
    assert key(status="read") == "wamid.B|read"
    assert key(recipient_participant_id="5") == "wamid.B|sent|5"


def test_an_event_delivered_twice_has_the_same_key_and_another_has_not() -> None:
    def key(value: dict[str, Any], time: int = 1739321024) -> str:
        (atom,) = split(body(value, field="account_update", time=time))
        return str(atom.dedupe_key)

    assert key({"event": "A", "x": 1}) == key({"x": 1, "event": "A"})
    assert len({key({"event": "A"}), key({"event": "B"}), key({"event": "A"}, time=1739321025)}) == 3


@pytest.mark.parametrize("escape", ["\\u0000", "\\ud800", "\\udc00 x"])
def test_what_cannot_be_stored_is_replaced_in_that_atom_only(escape: str) -> None:
    raw = json.dumps(body({"messages": [TEXT, TEXT | {"id": "wamid.C", "text": {"body": "AB"}}]}))
    atoms = split(raw.replace("AB", "A" + escape + "B").encode())
    assert (atoms[0].note, json.loads(atoms[0].payload)) == (None, TEXT)
    assert "\ufffd" in json.loads(atoms[1].payload)["text"]["body"]
    assert "U+FFFD" in atoms[1].note


def test_a_backslash_before_u0000_is_text_and_stays() -> None:
    (atom,) = split(body({"messages": [TEXT | {"text": {"body": "\\u0000 😀"}}]}))
    assert json.loads(atom.payload)["text"]["body"] == "\\u0000 😀"
    assert atom.note is None


@pytest.mark.parametrize("broken", [3, "secret text", [], None, True])
def test_a_broken_atom_is_a_row_with_an_error_and_harms_no_other(broken: Any) -> None:
    atoms = split(body({"messages": [TEXT, broken, TEXT | {"id": "wamid.C"}]}))
    assert [atom.error for atom in atoms] == [None, "the atom is not an object", None]
    assert atoms[1].kind == "message"
    assert atoms[1].payload == json.dumps(broken)


def test_broken_entries_and_changes_are_rows_with_an_error() -> None:
    document = {
        "entry": [5, {"id": "1"}, {"id": "2", "changes": [None, {"field": "x"}, {"field": "y", "value": 1}]}]
    }
    atoms = split(document)
    assert [atom.kind for atom in atoms] == ["error"] * 5
    assert all(atom.error for atom in atoms)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{}", "no entry"),
        (b'{"entry":[NaN]}', "not JSON"),
        (b'{"entry":"\xff"}', "not UTF-8"),
        (b'{"entry":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deep"),
        (None, "no body"),
    ],
)
def test_a_body_that_cannot_be_read_is_one_error_row(raw: bytes | None, said: str) -> None:
    (atom,) = source.split_webhook(raw)
    assert (atom.atom, atom.kind) == (1, "error")
    assert said in atom.error


def test_odd_numbers_and_control_characters_do_no_harm() -> None:
    raw = json.dumps(body({"messages": [TEXT | {"odd": "ODD"}, TEXT | {"id": "wamid.C"}]}))
    for odd in ("9" * 5000, "1e999", "-1e999", '"a\x01b"', "1" + "0" * 90):
        atoms = split(raw.replace('"ODD"', odd).encode())
        assert [atom.error for atom in atoms] == [None, None]
        json.loads(atoms[0].payload, parse_constant=pytest.fail)


def test_an_atom_that_is_nested_deep_harms_no_other() -> None:
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    atoms = split(body({"messages": [TEXT | {"deep": deep, "nul": "\0"}, TEXT | {"id": "wamid.C"}]}))
    assert [atom.error for atom in atoms] == [None, None]


def test_a_byte_order_mark_is_ignored() -> None:
    (atom,) = split(b"\xef\xbb\xbf" + json.dumps(body({"messages": [TEXT]})).encode())
    assert atom.kind == "message"


@pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="the collection of real webhook bodies is not beside the project"
)
def test_real_bodies() -> None:
    kinds: Counter[str] = Counter()
    for path in sorted(SAMPLES.glob("*.json")):
        for atom in split(path.read_bytes()):
            assert atom.error is None, path.name
            assert atom.waba_id, path.name
            kinds[atom.kind] += 1
    assert set(kinds) == {"message", "status", "account"}


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
arrays = st.sampled_from([*source.ARRAYS, "contacts", "metadata", "polls"])
elements = (
    st.dictionaries(st.sampled_from(["id", "type", "from", "status", "text"]), json_values) | json_values
)
wild_values = st.dictionaries(arrays, st.lists(elements, max_size=4) | json_values) | json_values
wild_changes = st.fixed_dictionaries({}, optional={"field": json_values, "value": wild_values}) | json_values
wild_entries = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "time": json_values,
        "changes": st.lists(wild_changes, max_size=3) | json_values,
    },
)
wild_bodies = st.fixed_dictionaries(
    {}, optional={"entry": st.lists(wild_entries | json_values) | json_values}
)


def assert_rows(atoms: list[Any]) -> None:
    """Rows that the database takes: numbered, of a kind, with JSON that jsonb can hold or a reason."""
    assert [atom.atom for atom in atoms] == list(range(1, len(atoms) + 1))
    for atom in atoms:
        assert atom.kind
        assert atom.error or (atom.payload and atom.dedupe_key)
        for text in (atom.payload, atom.contact):
            if text is not None:
                stored = json.dumps(json.loads(text, parse_constant=pytest.fail), ensure_ascii=False)
                assert "\0" not in json.loads(text) if isinstance(json.loads(text), str) else stored.encode()


@settings(deadline=None)
@given(st.binary())
def test_no_bytes_at_all_make_it_raise(raw: bytes) -> None:
    assert_rows(source.split_webhook(raw))


@settings(deadline=None)
@given(wild_bodies | json_values)
def test_no_json_at_all_makes_it_raise(document: Any) -> None:
    assert_rows(split(document))


atom_ids = st.lists(
    st.text(min_size=1, max_size=8).filter(lambda text: "\0" not in text), min_size=1, unique=True
)


@st.composite
def valid_bodies(draw: st.DrawFn) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """A body of well-formed atoms spread over entries, changes and arrays; and (kind, id) of every one."""
    ids = draw(atom_ids)
    document: dict[str, Any] = {"entry": []}
    expected = []
    for atom_id in ids:
        key = draw(
            st.sampled_from(["messages", "message_echoes", "statuses", "calls", "user_preferences", "errors"])
        )
        if not document["entry"] or draw(st.booleans()):
            document["entry"].append({"id": "1", "changes": []})
        changes = document["entry"][-1]["changes"]
        if not changes or draw(st.booleans()):
            changes.append({"field": "messages", "value": {"metadata": METADATA}})
        changes[-1]["value"].setdefault(key, []).append({"id": atom_id, "type": "text"})
        expected.append((source.ARRAYS[key], atom_id))
    return document, expected


def found(atoms: list[Any]) -> Counter[tuple[str, str]]:
    return Counter((atom.kind, json.loads(atom.payload)["id"]) for atom in atoms if atom.error is None)


@settings(deadline=None)
@given(valid_bodies())
def test_every_atom_is_in_exactly_one_row(made: tuple[dict[str, Any], list[tuple[str, str]]]) -> None:
    document, expected = made
    assert found(split(document)) == Counter(expected)


@settings(deadline=None)
@given(valid_bodies(), st.data(), st.none() | st.integers() | st.text() | st.lists(st.integers()))
def test_one_poisoned_atom_harms_no_other(
    made: tuple[dict[str, Any], list[tuple[str, str]]], data: st.DataObject, poison: Any
) -> None:
    document, expected = made
    spoilt = copy.deepcopy(document)
    places = [
        (array, index)
        for entry in spoilt["entry"]
        for change in entry["changes"]
        for key, array in change["value"].items()
        if key in source.ARRAYS
        for index in range(len(array))
    ]
    array, index = data.draw(st.sampled_from(places))
    lost = array[index]["id"]
    array[index] = poison
    atoms = split(spoilt)
    assert found(atoms) == Counter(pair for pair in expected if pair[1] != lost)
    assert sum(atom.error is not None for atom in atoms) == 1
