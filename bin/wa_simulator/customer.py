"""Speaks as a customer: turns a control request into a webhook that a customer's action would cause."""

from __future__ import annotations

import base64
import os
import time
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from .checked import checked
from .emitter import Emitter
from .errors import ControlError, GraphError, webhook_error
from .ids import USER_ID, canonical_wa_id, derived_user_id, digits_of, new_wamid
from .media import INBOUND_KINDS, MediaStore
from .settings import Settings
from .state import Customer, Number, State
from .webhooks import Atom, contact_of

# Message types that do not count as the customer writing.
_NO_WINDOW: Final = frozenset({"reaction", "system", "edit", "revoke", "number_change", "user_id_change"})


class Speech(BaseModel):
    """What a customer does; docs/simulator.md tells the fields."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    phone: str | None = None
    user_id: Annotated[str, Field(pattern=f"^(?:{USER_ID.pattern})$")] | None = None
    hide_phone: bool = False
    name: str | None = None
    number: str | None = None
    text: str | None = None
    type: str = "text"
    payload: dict[str, Any] | list[Any] = {}
    context: dict[str, Any] | str | None = None
    extra: dict[str, Any] = {}
    message_id: str = Field(default_factory=new_wamid)
    timestamp: float | None = None
    seconds_ago: float = 0.0
    repeat: int = 0
    wait_s: float = 10.0

    @property
    def options(self) -> dict[str, Any]:
        """The payload of what is no message."""
        return self.payload if isinstance(self.payload, dict) else {}


@dataclass(slots=True)
class Turn:
    """Who speaks to whom, showing which ids, when."""

    number: Number
    customer: Customer
    identity: str
    at: float

    @property
    def sender(self) -> dict[str, Any]:
        """The customer as the sender of a message or call."""
        keys = {"wa_id": "from", "user_id": "from_user_id"}
        return {keys[key]: value for key, value in self.contact.items() if key in keys}

    @property
    def contact(self) -> dict[str, Any]:
        """The customer as an entry of ``contacts``."""
        return contact_of(self.customer, self.identity)


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
        said = checked(Speech, values)
        turn = self._turn(said)
        if said.type == "call":
            atom = self._call(turn, said)
        elif said.type == "preference":
            atom = self._preference(turn, said)
        elif said.type in ("number_change", "user_id_change"):
            atom = self._change(turn, said)
        else:
            atom = self._message(turn, said, self._content(said, base_url))
        customer, number = turn.customer, turn.number.phone_number_id
        if atom.wamid is not None:
            self._state.change(
                "inbound",
                key=self._state.key_of(customer),
                number=number,
                at=None if said.type in _NO_WINDOW else turn.at,
                message_id=atom.wamid,
            )
        delivery = await self._emitter.deliver([atom], said.wait_s)
        for _ in range(said.repeat):
            await self._emitter.deliver([atom], said.wait_s)
        return {
            "message_id": atom.wamid,
            **delivery.as_dict(),
            "number": number,
            "wa_id": customer.wa_id,
            "user_id": customer.user_id,
        }

    def _turn(self, said: Speech) -> Turn:
        number = self._number(said.number)
        customer, identity = self._customer(said)
        at = time.time() - said.seconds_ago if said.timestamp is None else said.timestamp
        return Turn(number, customer, identity, at)

    def _number(self, phone_number_id: str | None) -> Number:
        if phone_number_id is None:
            if not self._state.numbers:
                raise ControlError("no business number is registered yet: give number")
            return next(iter(self._state.numbers.values()))
        try:
            return self._state.number(phone_number_id)
        except GraphError as error:
            raise ControlError(error.details) from None

    def _customer(self, said: Speech) -> tuple[Customer, str]:
        """Who speaks, and which ids the webhook shows."""
        phone, user_id = said.phone, said.user_id
        if phone is None and user_id is None:
            raise ControlError("give phone or user_id")
        wa_id = self._wa_id(phone) if phone is not None else None
        identity = self._settings.identity
        if said.hide_phone or (phone is None and not self._state.find_customer(None, user_id)):
            identity = "user_id"
        elif user_id is not None and identity == "phone":
            identity = "both"
        customer = self._state.customer(wa_id, user_id, said.name)
        if identity != "phone":
            customer = self._state.with_user_id(customer)
        return customer, identity

    def _wa_id(self, phone: str) -> str:
        try:
            return self._state.shown_wa_id(digits_of(phone))
        except GraphError as error:
            raise ControlError(error.details) from None

    def _content(self, said: Speech, base_url: str) -> Any:
        if said.type == "text" and said.text is not None:
            return {"body": said.text}
        if said.type in INBOUND_KINDS and isinstance(said.payload, dict):
            return self._media.inbound(said.type, said.payload, base_url)
        return said.payload

    def _atom(self, turn: Turn, field: str, item: dict[str, Any], wamid: str | None) -> Atom:
        contact = None if item.get("type") == "system" else turn.contact
        return Atom(self._state.waba_of(turn.number), field, field, item, turn.number, contact, wamid)

    def _message(self, turn: Turn, said: Speech, content: Any) -> Atom:
        kind = said.type
        item = turn.sender | {"id": said.message_id, "timestamp": str(int(turn.at)), "type": kind}
        if kind == "unsupported":
            item["errors"] = [webhook_error(131051, "Message type is currently not supported.")]
        if content or kind not in ("unsupported", "unknown"):
            item[kind] = content
        if isinstance(said.context, str):
            item["context"] = {"from": turn.number.display_phone, "id": said.context}
        elif said.context is not None:
            item["context"] = said.context
        return self._atom(turn, "messages", item | said.extra, said.message_id)

    def _call(self, turn: Turn, said: Speech) -> Atom:
        call_id = said.message_id
        if not call_id.startswith("wacid."):
            call_id = "wacid." + base64.b64encode(os.urandom(18)).decode()
        item = turn.sender | {
            "id": call_id,
            "to": turn.number.display_phone,
            "event": "connect",
            "direction": "USER_INITIATED",
            "timestamp": str(int(turn.at)),
            **said.options,
        }
        return self._atom(turn, "calls", item, call_id)

    def _preference(self, turn: Turn, said: Speech) -> Atom:
        value = said.options.get("value", "stop")
        if value not in ("stop", "resume", "signup"):
            raise ControlError("payload.value is stop, resume or signup")
        item: dict[str, Any] = {key: one for key, one in turn.contact.items() if key != "profile"}
        item |= {
            "detail": f"User requested to {value} marketing messages",
            "category": "marketing_messages",
            "value": value,
            "timestamp": int(turn.at),
        }
        return self._atom(turn, "user_preferences", item, None)

    def _change(self, turn: Turn, said: Speech) -> Atom:
        """The customer has another phone number (and with it another user id) or another user id."""
        customer = turn.customer
        sender = turn.sender
        new_user_id, new_phone = said.options.get("new_user_id"), said.options.get("new_phone")
        wa_id, old_user_id = customer.wa_id, customer.user_id
        if said.type == "number_change":
            if new_phone is None:
                raise ControlError("payload.new_phone is missing")
            wa_id = self._wa_id(str(new_phone))
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
            system["user_id"] = new_user_id
            if old_user_id is not None:
                system["previous_user_id"] = old_user_id
        key = self._state.key_of(customer)
        self._state.change("customer_changed", key=key, wa_id=wa_id, user_id=new_user_id or old_user_id)
        item = {"id": said.message_id, "timestamp": str(int(turn.at)), "type": "system", "system": system}
        return self._atom(turn, "messages", sender | item, said.message_id)
