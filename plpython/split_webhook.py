"""Takes one webhook POST apart into atoms: one message, one status, one event each.

Dispatch is by the shape of a value (which arrays it holds), with the field's name as a help: Meta's own
examples put names at the wrong depth. An atom that cannot be read becomes a row with its error and harms no
other. No error text holds any part of the body. Shapes: Meta's webhook reference for WhatsApp.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

# array in a value -> kind of its elements
ARRAYS: dict[str, str] = {
    "messages": "message",
    "message_echoes": "echo",
    "history": "history",
    "state_sync": "state_sync",
    "groups": "group",
    "user_preferences": "user_preference",
    "user_actions": "user_action",
    "calls": "call",
    "statuses": "status",
    "errors": "errors",
}
# Where an atom names the customer: keys of the telephone number, keys of the user id.
PHONE_KEYS = ("recipient_participant_id", "recipient_id", "from", "wa_id")
USER_KEYS = ("recipient_participant_user_id", "recipient_user_id", "from_user_id", "user_id")
ECHO_PHONE_KEYS = ("to",)
ECHO_USER_KEYS = ("to_user_id",)
REPLACEMENT = "\ufffd"
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
EARLIEST, LATEST = 1230768000, 4102444800  # 2009-01-01 to 2100-01-01
# Made once: json.loads and json.dumps with such settings make one a call, which costs as much as the work.
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Atom(NamedTuple):
    """One row of _wa_split_webhook; payload and contact are JSON text."""

    atom: int
    kind: str
    field: str | None
    waba_id: str | None
    phone_number_id: str | None
    display_phone: str | None
    entry_time: str | None
    payload: str | None
    contact: str | None
    dedupe_key: str | None
    note: str | None
    error: str | None


class Origin(NamedTuple):
    """What an atom inherits from its entry, change and value."""

    field: str | None
    waba_id: str | None
    phone_number_id: str | None
    display_phone: str | None
    entry_time: str | None
    raw_time: object


def clean(value: Any) -> Any:
    """`value` with U+FFFD for every NUL and lone surrogate. Raises RecursionError when nested too deep."""
    if isinstance(value, str):
        return UNSTORABLE.sub(REPLACEMENT, value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, float) and value - value != 0:
        return str(value)  # beyond a double: JSON has no infinity
    return value


def dump(value: Any) -> str:
    """Compact JSON of `value`, its characters as they are. Raises ValueError for an infinite number."""
    return ENCODER.encode(value)


def storable(value: Any) -> tuple[Any, str, bool]:
    """(value, its JSON, whether something was replaced) such that the JSON can be stored as jsonb."""
    try:
        text = dump(value)
        if text.isascii() and "\\u0000" not in text:
            return value, text, False
        text.encode()
        if "\\u0000" not in text:
            return value, text, False
    except ValueError:
        pass  # a lone surrogate or an infinite number
    cleaned = clean(value)
    return cleaned, dump(cleaned), cleaned != value


def as_text(value: object) -> str | None:
    """An id as text, whether it came as a string or as a number; None for anything else."""
    if isinstance(value, str):
        # What is printable holds nothing unstorable, and asking is cheaper than searching.
        return (value if value.isprintable() else UNSTORABLE.sub(REPLACEMENT, value)) or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def as_time(value: object) -> str | None:
    """Unix seconds (number or string of digits) as an ISO 8601 timestamp in UTC; None where not plausible."""
    text = as_text(value)
    if text is None or not re.fullmatch(r"[0-9]{10}", text) or not EARLIEST <= int(text) <= LATEST:
        return None
    return datetime.fromtimestamp(int(text), UTC).isoformat()


def as_list(value: object) -> list[Any]:
    """A list as it is, anything else as the only member of one, nothing for None."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def digest(origin: Origin, content: object) -> str:
    """A key for atoms without an id of their own: the hash of where, what and when."""
    canonical = json.dumps(
        [origin.waba_id, origin.phone_number_id, origin.field, content, origin.raw_time],
        sort_keys=True,
        separators=(",", ":"),
    )
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def dedupe_key(kind: str, atom: dict[str, Any], origin: Origin) -> str:
    """The same text for the same event however often it is delivered, another text for another event."""
    own_id = as_text(atom.get("id"))
    if own_id is None or atom.get("type") == "payment":
        return digest(origin, atom)
    if kind in ("message", "echo"):
        return own_id
    if kind in ("status", "call_status"):
        member = as_text(atom.get("recipient_participant_id")) or as_text(
            atom.get("recipient_participant_user_id")
        )
        return "|".join(filter(None, (own_id, as_text(atom.get("status")) or "", member)))
    if kind == "call":
        return f"{own_id}|{as_text(atom.get('event')) or ''}"
    return digest(origin, atom)


def customer_ids(kind: str, atom: dict[str, Any]) -> tuple[str | None, str | None]:
    """(telephone number, user id) of the customer whom an atom names."""
    phone_keys, user_keys = (ECHO_PHONE_KEYS, ECHO_USER_KEYS) if kind == "echo" else (PHONE_KEYS, USER_KEYS)
    phone = next((as_text(atom[key]) for key in phone_keys if key in atom), None)
    user = next((as_text(atom[key]) for key in user_keys if key in atom), None)
    return phone, user


def find_contact(kind: str, atom: dict[str, Any], contacts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The contact of an atom: the one with its id, else the only one unless its ids say otherwise."""
    if not contacts:
        return None
    phone, user = customer_ids(kind, atom)
    for key, wanted in (("user_id", user), ("wa_id", phone)):
        if wanted is not None:
            for contact in contacts:
                if as_text(contact.get(key)) == wanted:
                    return contact
    if len(contacts) > 1:
        return None
    only = contacts[0]
    own_phone, own_user = as_text(only.get("wa_id")), as_text(only.get("user_id"))
    if (phone and own_phone and phone != own_phone) or (user and own_user and user != own_user):
        return None
    return only


def row(origin: Origin, kind: str, payload: object, error: str | None) -> Atom:
    """An atom that cannot be read, kept as far as it can be stored."""
    try:
        text: str | None = storable(payload)[1]
    except (ValueError, RecursionError):
        text = None
    key = digest(origin, text) if payload is not None else None
    return Atom(0, kind, *origin[:5], text, None, key, None, error)


def read_atom(kind: str, raw: object, origin: Origin, contacts: list[dict[str, Any]]) -> Atom:
    """The row of one array element (or whole value). Never raises."""
    if not isinstance(raw, dict):
        return row(origin, kind, raw, "the atom is not an object")
    try:
        contact = find_contact(kind, raw, contacts)
        payload, text, replaced = storable(raw)
        contact_text = None
        if contact is not None:
            _, contact_text, replaced_there = storable(contact)
            replaced = replaced or replaced_there
        note = "characters that cannot be stored were replaced by U+FFFD" if replaced else None
        return Atom(0, kind, *origin[:5], text, contact_text, dedupe_key(kind, payload, origin), note, None)
    except (ValueError, TypeError, RecursionError):
        return row(origin, kind, raw, "the atom cannot be read")


def split_value(value: dict[str, Any], origin: Origin) -> Iterator[Atom]:
    """Every atom of one value."""
    contacts = [contact for contact in as_list(value.get("contacts")) if isinstance(contact, dict)]
    is_account = True
    for key, content in value.items():
        if key not in ARRAYS:
            continue
        kind = ARRAYS[key]
        if not content and content != 0:
            continue
        is_account = False
        for raw in as_list(content):
            atom_type = raw.get("type") if isinstance(raw, dict) else None
            if kind == "status" and (atom_type == "call" or origin.field == "calls"):
                yield read_atom("call_status", raw, origin, contacts)
            else:
                yield read_atom(kind, raw, origin, contacts)
    if is_account:
        yield read_atom("account", value, origin, [])
        return
    # An array of a name that is not known yet is events of some kind: kept beside the known ones.
    for key, content in value.items():
        if key not in ARRAYS and key != "contacts" and isinstance(content, list) and content:
            yield read_atom("account", {key: content}, origin, [])


def split_change(change: object, entry: dict[str, Any], top: dict[str, Any]) -> Iterator[Atom]:
    """Every atom of one change."""
    holder: dict[str, Any] = change if isinstance(change, dict) else {}
    field = next((as_text(part["field"]) for part in (holder, entry, top) if "field" in part), None)
    value = holder.get("value")
    known: dict[str, Any] = value if isinstance(value, dict) else {}
    declared = known.get("metadata")
    metadata: dict[str, Any] = declared if isinstance(declared, dict) else {}
    origin = Origin(
        field,
        as_text(entry.get("id")),
        as_text(metadata.get("phone_number_id")) or as_text(known.get("phone_number_id")),
        as_text(metadata.get("display_phone_number"))
        or as_text(known.get("display_phone_number"))
        or as_text(known.get("phone_number")),
        as_time(entry.get("time")),
        entry.get("time"),
    )
    if not isinstance(change, dict):
        yield row(origin, "error", change, "the change is not an object")
    elif not isinstance(value, dict):
        yield row(origin, "error", change, "the change has no value that is an object")
    else:
        yield from split_value(value, origin)


def split_entry(entry: object, top: dict[str, Any]) -> Iterator[Atom]:
    """Every atom of one entry."""
    nowhere = Origin(None, None, None, None, None, None)
    if not isinstance(entry, dict):
        yield row(nowhere, "error", entry, "the entry is not an object")
    elif "changes" in entry:
        for change in as_list(entry["changes"]):
            yield from split_change(change, entry, top)
    elif "value" in entry:
        yield from split_change(entry, entry, top)
    else:
        yield row(nowhere, "error", entry, "the entry has no changes")


def parse_long_int(digits: str) -> int | str:
    """An integer, or its digits as text where it is longer than any id, amount or time can be."""
    return int(digits) if len(digits) <= 100 else digits


def refuse_constant(_name: str) -> None:
    """NaN and Infinity are no JSON. Raises ValueError."""
    raise ValueError


# Not strict: a raw control character spoils one text, not the whole body.
DECODER = json.JSONDecoder(strict=False, parse_constant=refuse_constant)
PATIENT_DECODER = json.JSONDecoder(strict=False, parse_constant=refuse_constant, parse_int=parse_long_int)


def failure(error: str) -> list[Atom]:
    """The only row of a body that cannot be taken apart."""
    return [Atom(1, "error", None, None, None, None, None, None, None, None, None, error)]


def split_webhook(body: bytes | None) -> list[Atom]:
    """The atoms of a body, in its order. Never raises."""
    if body is None:
        return failure("there is no body")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return failure("the body is not UTF-8")
    try:
        top = DECODER.decode(text)
    except RecursionError:
        return failure("the body is nested too deep")
    except ValueError:
        try:
            top = PATIENT_DECODER.decode(text)
        except (ValueError, RecursionError):
            return failure("the body is not JSON")
    if not isinstance(top, dict):
        return failure("the body is not a JSON object")
    try:
        if "entry" in top:
            atoms = [atom for entry in as_list(top["entry"]) for atom in split_entry(entry, top)]
        elif "changes" in top or "value" in top:
            atoms = list(split_entry(top, top))
        elif any(key in top for key in ARRAYS):
            atoms = list(split_change({"field": top.get("field", "messages"), "value": top}, {}, top))
        else:
            return failure("the body has no entry")
    except (ValueError, TypeError, RecursionError):
        return failure("the body cannot be taken apart")
    return [Atom(number, *atom[1:]) for number, atom in enumerate(atoms, 1)]
