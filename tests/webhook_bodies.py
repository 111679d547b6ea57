"""Webhook bodies as Meta sends them, built from the shapes of its webhook reference."""

from __future__ import annotations

import json
from typing import Any

NUMBER_ID = "106540352242922"
DISPLAY_PHONE = "15550783881"
ACCOUNT_ID = "102290129340398"


def body(field: str, value: dict[str, Any], *, account: str = ACCOUNT_ID, time: int | None = None) -> bytes:
    """One POST body with one change; `time` is the entry's, which only account fields have."""
    entry: dict[str, Any] = {"id": account, "changes": [{"field": field, "value": value}]}
    if time is not None:
        entry["time"] = time
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()


def value(number: str = NUMBER_ID, **parts: Any) -> dict[str, Any]:
    """A value of the messages field; parts are messages, statuses, contacts and so on."""
    metadata = {"display_phone_number": DISPLAY_PHONE, "phone_number_id": number}
    return {"messaging_product": "whatsapp", "metadata": metadata, **parts}


def message(
    wamid: str,
    sender: str | None,
    at: int,
    kind: str = "text",
    content: Any = None,
    *,
    user_id: str | None = None,
    name: str = "A customer",
    number: str = NUMBER_ID,
    **extra: Any,
) -> bytes:
    """A body with one inbound message; `content` of a text may be the text itself."""
    if isinstance(content, str):
        content = {"body": content}
    contact = {"profile": {"name": name}, "wa_id": sender, "user_id": user_id}
    told = {"from": sender, "from_user_id": user_id}
    atom = {
        **{key: given for key, given in told.items() if given},
        "id": wamid,
        "timestamp": str(at),
        "type": kind,
        **({} if content is None else {kind: content}),
        **extra,
    }
    # A system message has no contacts.
    contacts = [] if kind == "system" else [{key: given for key, given in contact.items() if given}]
    return body("messages", value(number, contacts=contacts, messages=[atom]))


def status(wamid: str, state: str, at: int, *, number: str = NUMBER_ID, **extra: Any) -> bytes:
    """A body with one status."""
    atom = {"id": wamid, "status": state, "timestamp": str(at), **extra}
    return body("messages", value(number, statuses=[atom]))


def failed(wamid: str, at: int, code: int, **extra: Any) -> bytes:
    """A body with one failed status."""
    return status(wamid, "failed", at, errors=[{"code": code, "title": f"Error {code}"}], **extra)


def echo(wamid: str, recipient: str, at: int, kind: str = "text", content: Any = None) -> bytes:
    """A body with one message that was sent from the WhatsApp Business app."""
    if isinstance(content, str):
        content = {"body": content}
    atom = {
        "from": DISPLAY_PHONE,
        "to": recipient,
        "id": wamid,
        "timestamp": str(at),
        "type": kind,
        kind: content,
    }
    return body("smb_message_echoes", value(message_echoes=[atom]))


def call(call_id: str, caller: str, at: int, event: str, **extra: Any) -> bytes:
    """A body with one event of a call that the customer makes."""
    atom = {
        "id": call_id,
        "from": caller,
        "to": DISPLAY_PHONE,
        "event": event,
        "direction": "USER_INITIATED",
        "timestamp": str(at),
        **extra,
    }
    return body("calls", value(calls=[atom]))


def preference(wa_id: str, at: int, choice: str) -> bytes:
    """A body with one choice about marketing messages."""
    atom = {
        "wa_id": wa_id,
        "detail": choice,
        "category": "marketing_messages",
        "value": choice,
        "timestamp": at,
    }
    return body("user_preferences", value(contacts=[{"wa_id": wa_id}], user_preferences=[atom]))
