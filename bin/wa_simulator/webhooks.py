"""The bodies of webhooks and their signature."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .journal import Entry
from .settings import Settings
from .state import WINDOW_S, Customer, Number


@dataclass(slots=True)
class Atom:
    """One thing to tell: a message, a status, or (``kind`` None) a whole value of another field."""

    waba_id: str
    field: str
    kind: str | None
    item: dict[str, Any]
    number: Number | None = None
    contact: dict[str, Any] | None = None
    wamid: str | None = None
    status: str | None = None


def payload(atoms: Sequence[Atom]) -> dict[str, Any]:
    """The body that tells ``atoms``: those of one account share an entry, those of one number a value."""
    entries: dict[str, dict[str, Any]] = {}
    values: dict[tuple[str, str, str | None, str | None], dict[str, Any]] = {}
    for atom in atoms:
        entry = entries.setdefault(atom.waba_id, {"id": atom.waba_id, "changes": []})
        if atom.kind is None or atom.number is None:
            entry["time"] = int(time.time())
            entry["changes"].append({"value": atom.item, "field": atom.field})
            continue
        key = (atom.waba_id, atom.field, atom.number.phone_number_id, atom.kind)
        value = values.get(key)
        if value is None:
            value = values[key] = {
                "messaging_product": "whatsapp",
                "metadata": {
                    "display_phone_number": atom.number.display_phone,
                    "phone_number_id": atom.number.phone_number_id,
                },
            }
            entry["changes"].append({"value": value, "field": atom.field})
        if atom.contact is not None and atom.contact not in value.setdefault("contacts", []):
            value["contacts"].append(atom.contact)
        value.setdefault(atom.kind, []).append(atom.item)
    return {"object": "whatsapp_business_account", "entry": list(entries.values())}


def encode(body: dict[str, Any], *, escape_slashes: bool = False) -> bytes:
    """``body`` as Meta writes it: no white space, everything beyond ASCII escaped."""
    text = json.dumps(body, ensure_ascii=True, separators=(",", ":"))
    return (text.replace("/", "\\/") if escape_slashes else text).encode("ascii")


def signature(secret: str, body: bytes) -> str:
    """The value of X-Hub-Signature-256 for the raw ``body``."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def contact_of(customer: Customer, identity: str) -> dict[str, Any]:
    """An entry of ``contacts``; ``identity`` says which ids it shows."""
    contact: dict[str, Any] = {"profile": {"name": customer.name}}
    if customer.wa_id is not None and identity != "user_id":
        contact["wa_id"] = customer.wa_id
    if customer.user_id is not None and (identity != "phone" or customer.wa_id is None):
        contact["user_id"] = customer.user_id
    return contact


def status_item(
    entry: Entry,
    status: str,
    at: float,
    settings: Settings,
    customer: Customer | None,
    *,
    in_window: bool,
    errors: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """An entry of ``statuses``; ``at`` is Unix time."""
    item: dict[str, Any] = {"id": entry.wamid, "status": status, "timestamp": str(int(at))}
    group = entry.wa_id is None and entry.to is not None
    if group:
        item["recipient_id"] = entry.to
        item["recipient_type"] = "group"
    elif entry.wa_id is not None and settings.identity != "user_id":
        item["recipient_id"] = entry.wa_id
    user_id = entry.recipient if entry.wa_id is None else None
    if customer is not None and settings.identity != "phone":
        user_id = customer.user_id
    if user_id is not None:
        item["recipient_user_id"] = user_id
    if entry.callback is not None:
        item["biz_opaque_callback_data"] = entry.callback
    if errors:
        item["errors"] = errors
        return item
    if status == settings.pricing_on or (status == "sent" and settings.shape == "v23"):
        category = entry.category or "service"
        free = in_window and category in ("service", "utility")
        if settings.shape == "v23" and status in ("sent", settings.pricing_on):
            conversation: dict[str, Any] = {"id": entry.wamid[-28:-8], "origin": {"type": category}}
            if status == "sent":
                conversation["expiration_timestamp"] = str(int(at) + WINDOW_S)
            item["conversation"] = conversation
        if status == settings.pricing_on:
            item["pricing"] = {
                "billable": not free,
                "pricing_model": "PMP",
                "type": "free_customer_service" if free else "regular",
                "category": category,
            }
    return item
