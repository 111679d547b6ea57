"""Takes what is about one person out of webhook bodies, and leaves the rest of them as valid as it was.

An atom (an element of an array such as messages, statuses, contacts, also within another) is a person's if
it names the person where atoms name whom they are about. It goes as a whole; a change or entry without atoms
then goes, too. Elsewhere, in what somebody else wrote for example, only the number itself goes.
"""

import base64
import binascii
import json
import re
from typing import Any

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# Where atoms name whom they are about. An id may be a wamid, which holds the number, or a thread's.
NAMING = {
    "from", "from_user_id", "id", "phone", "phone_number", "previous_user_id", "recipient_id",
    "recipient_participant_id", "recipient_participant_user_id", "recipient_user_id", "to", "to_user_id",
    "user_id", "wa_id",
}  # fmt: skip
ERASED = "0"
NOTHING = b'{"object":"erased","entry":[]}'


def encoded(number: str) -> list[bytes]:
    """What base64 makes of digits wherever they stand: the part that does not depend on their neighbours."""
    raw = number.encode()
    parts = []
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + raw)
        first = -(-shift * 8 // 6)
        parts.append(text[first : (shift + len(raw)) * 8 // 6])
    return parts


def decoded(wamid: str) -> bytes:
    """The bytes of a wamid, nothing where it is none."""
    if not wamid.startswith("wamid."):
        return b""
    text = wamid[6:]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        return b""


def finite(text: str) -> float | str:
    """A number, or its text where it is beyond a double: JSON has no infinity."""
    number = float(text)
    return number if number - number == 0 else text


def refuse_constant(_name: str) -> None:
    """NaN and Infinity are no JSON. Raises ValueError."""
    raise ValueError


def storable(value: Any) -> Any:
    """`value` with U+FFFD for what jsonb does not take."""
    if isinstance(value, str):
        return UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return value


DECODER = json.JSONDecoder(strict=False, parse_float=finite, parse_constant=refuse_constant)


class Person:
    """By what somebody is known, and what of a body is about them."""

    def __init__(self, who: list[str], own: list[str]) -> None:
        self.known = set(who)
        self.own = set(own)
        numbers = [one for one in who if one.isdigit()]
        self.traces = [one.encode() for one in who] + [part for one in numbers for part in encoded(one)]
        # A longer number, or id, is another.
        self.text = re.compile("|".join(rf"(?<![A-Za-z0-9]){re.escape(one)}(?![A-Za-z0-9])" for one in who))
        self.bytes = re.compile(
            "|".join(rf"(?<![0-9]){one}(?![0-9])" for one in numbers or ["(?!)"]).encode()
        )
        self.atoms: list[Any] = []

    def is_named(self, value: object) -> bool:
        """Whether a value is nothing but the person's number, user id, or a wamid that holds the number."""
        text = str(value) if isinstance(value, (str, int)) else ""
        return text.lstrip("+") in self.known or self.bytes.search(decoded(text)) is not None

    def owns(self, atom: object) -> bool:
        """Whether an atom is about the person; what it quotes is not what it is about."""
        return isinstance(atom, dict) and any(
            (key in NAMING and self.is_named(value)) or (key != "context" and self.owns(value))
            for key, value in atom.items()
        )

    def strip(self, value: Any) -> Any:
        """`value` without atoms of the person, and without numbers and ids of theirs in its texts."""
        if isinstance(value, str):
            return ERASED if self.is_named(value) else self.text.sub(ERASED, value)
        if isinstance(value, int) and not isinstance(value, bool):
            return 0 if str(value) in self.known else value
        if isinstance(value, list):
            self.atoms += [item for item in value if self.owns(item)]
            return [self.strip(item) for item in value if not self.owns(item)]
        if isinstance(value, dict):
            return {key: self.strip(item) for key, item in value.items()}
        return value

    def change(self, change: Any, account: Any) -> Any:
        """A change without the person's atoms; None where nothing of it is left."""
        value = change.get("value") if isinstance(change, dict) else None
        if not isinstance(value, dict):
            return self.strip(change)
        metadata = value.get("metadata")
        number = metadata.get("phone_number_id") if isinstance(metadata, dict) else None
        if str(number if number is not None else account) not in self.own:
            return change
        if self.owns({key: item for key, item in value.items() if not isinstance(item, list)}):
            self.atoms.append(value)
        kept = self.strip(value)
        # Nothing but arrays of atoms that are empty now: an account's event is made of what has none.
        arrays = [key for key, item in value.items() if key != "contacts" and item and isinstance(item, list)]
        if arrays and not any(kept[key] for key in arrays):
            return None
        return {
            **change,
            "value": {key: item for key, item in kept.items() if item != [] or value[key] == []},
        }

    def entry(self, entry: Any) -> Any:
        """An entry without the person's atoms; None where nothing of it is left."""
        if not isinstance(entry, dict):
            return self.strip(entry)
        if not isinstance(entry.get("changes"), list):
            return self.change(entry, entry.get("id"))
        rest = [self.change(change, entry.get("id")) for change in entry["changes"]]
        rest = [change for change in rest if change is not None]
        return {**entry, "changes": rest} if rest or not entry["changes"] else None

    def redact(self, body: bytes) -> tuple[bytes, list[Any]] | None:
        """The body without the person, and what was taken out; None where it says nothing of them."""
        if not any(trace in body for trace in self.traces):
            return None
        self.atoms = []
        try:
            top = DECODER.decode(body.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return NOTHING, []
        if not isinstance(top, dict):
            return NOTHING, []
        try:
            if isinstance(top.get("entry"), list):
                rest = [self.entry(entry) for entry in top["entry"]]
                new: Any = {**top, "entry": [entry for entry in rest if entry is not None]}
            elif "changes" in top or "value" in top:
                new = self.entry(top)
            else:
                new = (self.change({"value": top}, None) or {}).get("value")
            text = NOTHING if new is None else json.dumps(new, separators=(",", ":")).encode()
        except RecursionError:
            return NOTHING, []
        return None if new == top else (text, self.atoms)


def redact_webhooks(
    ids: list[int], bodies: list[bytes], who: list[str], own: list[str]
) -> list[tuple[int, bytes, str]]:
    """(id, body, what was taken out as JSON) of each body that says something of a person."""
    person = Person(who, own)
    found = []
    for log_id, body in zip(ids, bodies, strict=True):
        redacted = person.redact(body)
        if redacted is not None:
            found.append((log_id, redacted[0], json.dumps(storable(redacted[1]))))
    return found
