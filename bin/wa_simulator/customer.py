"""Speaks as a customer: turns a control request into a webhook that a customer's action would cause."""

from __future__ import annotations

import base64
import os
import time
from typing import Any, Final

from .emitter import Emitter
from .errors import ControlError, GraphError, webhook_error
from .ids import USER_ID, canonical_wa_id, derived_user_id, digits_of, new_wamid
from .media import INBOUND_KINDS, MediaStore
from .settings import Settings
from .state import Customer, Number, State
from .webhooks import Atom, contact_of

_KEYS: Final = frozenset(
    {
        "phone",
        "user_id",
        "hide_phone",
        "name",
        "number",
        "text",
        "type",
        "payload",
        "context",
        "extra",
        "message_id",
        "timestamp",
        "seconds_ago",
        "repeat",
        "wait_s",
    }
)
# Message types that do not count as the customer writing.
_NO_WINDOW: Final = frozenset({"reaction", "system", "edit", "revoke"})


class Customers:
    """Makes and delivers webhooks on behalf of customers."""

    def __init__(self, state: State, settings: Settings, emitter: Emitter, media: MediaStore) -> None:
        self._state = state
        self._settings = settings
        self._emitter = emitter
        self._media = media

    async def speak(self, values: dict[str, Any], base_url: str) -> dict[str, Any]:
        """Do what ``values`` says and answer with the message id and what became of the webhook.

        Raises ControlError where it makes no sense.
        """
        if unknown := set(values) - _KEYS:
            raise ControlError(
                f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(sorted(_KEYS))}"
            )
        number = self._number(values.get("number"))
        customer, identity = self._customer(values)
        at = self._time(values)
        kind = values.get("type", "text")
        payload = values.get("payload", {})
        if not isinstance(payload, dict | list):
            raise ControlError("payload must be an object (an array for contacts)")
        message_id = str(values.get("message_id") or new_wamid())
        wait_s, repeat = self._seconds(values, "wait_s", 10.0), self._seconds(values, "repeat", 0)
        if kind == "call":
            atom = self._call(number, customer, identity, at, message_id, payload)
        elif kind == "preference":
            atom = self._preference(number, customer, identity, at, payload)
        elif kind in ("number_change", "user_id_change"):
            atom = self._change(number, customer, identity, at, message_id, kind, payload)
        else:
            content = self._content(kind, payload, values, base_url)
            atom = self._message(number, customer, identity, at, message_id, kind, content, values)
        if atom.wamid is not None:
            opens = kind not in _NO_WINDOW and kind not in ("number_change", "user_id_change")
            key = self._state.key_of(customer)
            self._state.change(
                "inbound",
                key=key,
                number=number.phone_number_id,
                at=at if opens else None,
                message_id=atom.wamid,
            )
        delivery = await self._emitter.deliver([atom], wait_s)
        for _ in range(int(repeat)):
            await self._emitter.deliver([atom], wait_s)
        return {
            "message_id": atom.wamid,
            **delivery.as_dict(),
            "number": number.phone_number_id,
            "wa_id": customer.wa_id,
            "user_id": customer.user_id,
        }

    def _number(self, phone_number_id: Any) -> Number:
        if phone_number_id is None:
            if not self._state.numbers:
                raise ControlError("no business number is registered yet: give number")
            return next(iter(self._state.numbers.values()))
        try:
            return self._state.number(str(phone_number_id))
        except GraphError as error:
            raise ControlError(error.details) from None

    def _customer(self, values: dict[str, Any]) -> tuple[Customer, str]:
        phone, user_id, name = values.get("phone"), values.get("user_id"), values.get("name")
        if phone is None and user_id is None:
            raise ControlError("give phone or user_id")
        if user_id is not None and not (isinstance(user_id, str) and USER_ID.fullmatch(user_id)):
            raise ControlError("user_id is no business-scoped user id, such as US.13491208655302741918")
        try:
            wa_id = self._state.shown_wa_id(digits_of(str(phone))) if phone is not None else None
        except GraphError as error:
            raise ControlError(error.details) from None
        identity = self._settings.identity
        if values.get("hide_phone"):
            identity = "user_id"
        elif user_id is not None and identity == "phone":
            identity = "both"
        if user_id is not None and phone is None and not (self._state.find_customer(None, user_id)):
            identity = "user_id"
        customer = self._state.customer(wa_id, user_id, name)
        if identity != "phone":
            customer = self._state.with_user_id(customer)
        return customer, identity

    @staticmethod
    def _time(values: dict[str, Any]) -> float:
        if "timestamp" in values:
            return Customers._seconds(values, "timestamp", 0)
        return time.time() - Customers._seconds(values, "seconds_ago", 0)

    @staticmethod
    def _seconds(values: dict[str, Any], name: str, default: float) -> float:
        try:
            return float(values.get(name, default))
        except (TypeError, ValueError):
            raise ControlError(f"{name} must be a number") from None

    def _content(self, kind: str, payload: Any, values: dict[str, Any], base_url: str) -> Any:
        if not isinstance(kind, str):
            raise ControlError("type must be a string")
        if kind == "text":
            if "text" in values:
                return {"body": str(values["text"])}
            return payload
        if kind in INBOUND_KINDS and isinstance(payload, dict):
            return self._media.inbound(kind, payload, base_url)
        return payload

    def _atom(
        self,
        number: Number,
        field: str,
        kind: str,
        item: dict[str, Any],
        contact: dict[str, Any] | None,
        wamid: str | None,
    ) -> Atom:
        return Atom(self._state.waba_of(number), field, kind, item, number, contact, wamid)

    @staticmethod
    def _from(customer: Customer, identity: str) -> dict[str, Any]:
        sender: dict[str, Any] = {}
        if customer.wa_id is not None and identity != "user_id":
            sender["from"] = customer.wa_id
        if customer.user_id is not None and (identity != "phone" or customer.wa_id is None):
            sender["from_user_id"] = customer.user_id
        return sender

    def _message(
        self,
        number: Number,
        customer: Customer,
        identity: str,
        at: float,
        message_id: str,
        kind: str,
        content: Any,
        values: dict[str, Any],
    ) -> Atom:
        item = self._from(customer, identity)
        item |= {"id": message_id, "timestamp": str(int(at)), "type": kind}
        if kind == "unsupported":
            item["errors"] = [webhook_error(131051, "Message type is currently not supported.")]
        if content or kind not in ("unsupported", "unknown"):
            item[kind] = content
        context = values.get("context")
        if context is not None:
            item["context"] = (
                context if isinstance(context, dict) else {"from": number.display_phone, "id": context}
            )
        extra = values.get("extra", {})
        if not isinstance(extra, dict):
            raise ControlError("extra must be an object")
        item |= extra
        contact = None if kind == "system" else contact_of(customer, identity)
        return self._atom(number, "messages", "messages", item, contact, message_id)

    def _call(
        self, number: Number, customer: Customer, identity: str, at: float, message_id: str, payload: Any
    ) -> Atom:
        call_id = (
            message_id
            if message_id.startswith("wacid.")
            else "wacid." + base64.b64encode(os.urandom(18)).decode()
        )
        item = self._from(customer, identity) | {
            "id": call_id,
            "to": number.display_phone,
            "event": "connect",
            "direction": "USER_INITIATED",
            "timestamp": str(int(at)),
            **(payload if isinstance(payload, dict) else {}),
        }
        return self._atom(number, "calls", "calls", item, contact_of(customer, identity), call_id)

    def _preference(self, number: Number, customer: Customer, identity: str, at: float, payload: Any) -> Atom:
        value = payload.get("value", "stop") if isinstance(payload, dict) else None
        if value not in ("stop", "resume", "signup"):
            raise ControlError("payload.value is stop, resume or signup")
        contact = contact_of(customer, identity)
        item: dict[str, Any] = {key: contact[key] for key in ("wa_id", "user_id") if key in contact}
        item |= {
            "detail": f"User requested to {value} marketing messages",
            "category": "marketing_messages",
            "value": value,
            "timestamp": int(at),
        }
        return self._atom(number, "user_preferences", "user_preferences", item, contact, None)

    def _change(
        self,
        number: Number,
        customer: Customer,
        identity: str,
        at: float,
        message_id: str,
        kind: str,
        payload: Any,
    ) -> Atom:
        """The customer has another phone number (and with it another user id) or another user id."""
        payload = payload if isinstance(payload, dict) else {}
        item = self._from(customer, identity) | {
            "id": message_id,
            "timestamp": str(int(at)),
            "type": "system",
        }
        old_user_id, new_user_id = customer.user_id, payload.get("new_user_id")
        wa_id = customer.wa_id
        if kind == "number_change":
            if "new_phone" not in payload:
                raise ControlError("payload.new_phone is missing")
            try:
                wa_id = self._state.shown_wa_id(digits_of(str(payload["new_phone"])))
            except GraphError as error:
                raise ControlError(error.details) from None
            if old_user_id is not None and new_user_id is None:
                new_user_id = derived_user_id(canonical_wa_id(wa_id))
            system = {
                "body": f"User {customer.name} changed number",
                "type": "user_changed_number",
                "wa_id": wa_id,
            }
        else:
            if new_user_id is None:
                raise ControlError("payload.new_user_id is missing")
            system = {"body": f"User {customer.name} changed user id", "type": "user_changed_user_id"}
        if new_user_id is not None:
            system |= {"user_id": new_user_id}
            if old_user_id is not None:
                system |= {"previous_user_id": old_user_id}
        item["system"] = system
        key = self._state.key_of(customer)
        self._state.change("customer_changed", key=key, wa_id=wa_id, user_id=new_user_id or old_user_id)
        return self._atom(number, "messages", "messages", item, None, message_id)
