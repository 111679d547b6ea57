"""What the simulated platform knows: business numbers, templates, customers and media.

Every change is an operation that is appended to ``state.jsonl`` and applied; a start applies the file again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from .errors import ControlError, GraphError
from .ids import canonical_wa_id, derived_display_phone, derived_user_id
from .settings import Settings
from .store import LineFile

DEFAULT_WABA: Final = "100000000000001"
WINDOW_S: Final = 24 * 3600
HELLO_WORLD: Final[dict[str, Any]] = {
    "name": "hello_world",
    "language": "en_US",
    "category": "UTILITY",
    "status": "APPROVED",
    "components": [
        {"type": "HEADER", "format": "TEXT", "text": "Hello World"},
        {"type": "BODY", "text": "This message was sent by the Graph API simulator."},
        {"type": "FOOTER", "text": "pg_whatsapp"},
    ],
}


@dataclass(slots=True)
class Number:
    """A business phone number. ``throughput`` is in messages a second, ``tier`` in unique customers a day.

    ``pin`` is that of its two-step verification, ``blocked`` has the customers that it has blocked.
    With ``webhook_headers`` or ``platform_secret`` it is one of 360dialog: its webhooks carry these headers,
    or a signature with this secret, and none of Meta's.
    """

    phone_number_id: str
    display_phone: str = ""
    waba_id: str | None = None
    verified_name: str = "Simulated Business"
    throughput: int = 80
    quality_rating: str = "GREEN"
    status: str = "CONNECTED"
    tier: int = 250
    portfolio: str = "default"
    access_token: str | None = None
    api_key: str | None = None
    webhook_url: str | None = None
    webhook_headers: dict[str, str] | None = None
    platform_secret: str | None = None
    pin: str | None = None
    pin_guesses: int = 0
    profile: dict[str, Any] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Template:
    """A message template as ``GET /{waba_id}/message_templates`` lists it."""

    id: str
    waba_id: str
    name: str
    language: str
    category: str = "UTILITY"
    status: str = "APPROVED"
    parameter_format: str = "POSITIONAL"
    components: list[dict[str, Any]] = field(default_factory=list)
    quality: str = "UNKNOWN"
    message_send_ttl_seconds: int | None = None
    rejected_reason: str = "NONE"


@dataclass(slots=True)
class Customer:
    """Someone who chats with the business; ``windows`` has the time of the last message for each number."""

    wa_id: str | None
    user_id: str | None
    name: str = "Customer"
    windows: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Media:
    """An uploaded or inbound file; the bytes lie in the state directory under its id."""

    id: str
    mime_type: str
    sha256: str
    size: int
    filename: str | None = None


class State:
    """The registries, with their file."""

    def __init__(self, directory: Path, settings: Settings, default_waba: str = DEFAULT_WABA) -> None:
        self.settings = settings
        self.default_waba = default_waba
        self.media_directory = directory / "media"
        self._file = LineFile(directory / "state.jsonl")
        self._forget()
        for operation in self._file.records():
            self._apply(operation)

    def _forget(self) -> None:
        self.numbers: dict[str, Number] = {}
        self.api_keys: dict[str, str] = {}
        self.wabas: set[str] = {self.default_waba}
        self.templates: dict[tuple[str, str, str], Template] = {}
        self.customers: dict[str, Customer] = {}
        self.media: dict[str, Media] = {}
        self.message_ids: set[str] = set()
        self._next_id = 1_000_000_000_000
        self._add_hello_world(self.default_waba)

    def _add_hello_world(self, waba_id: str) -> None:
        template = Template(id=f"9{len(self.wabas):014d}", waba_id=waba_id, **HELLO_WORLD)
        self.templates[(waba_id, template.name, template.language)] = template

    def change(self, operation: str, **values: Any) -> None:
        """Record and apply an operation."""
        record = {"op": operation, **values}
        self._file.append(record)
        self._apply(record)

    def _apply(self, record: dict[str, Any]) -> None:
        values = dict(record)
        operation = values.pop("op")
        if operation == "number":
            self._apply_number(values)
        elif operation == "waba":
            self.wabas.add(values["waba_id"])
            self._add_hello_world(values["waba_id"])
        elif operation == "template":
            template = Template(**values)
            self.templates[(template.waba_id, template.name, template.language)] = template
            self._next_id = (
                max(self._next_id, int(template.id) + 1) if template.id.isdigit() else self._next_id
            )
        elif operation == "template_delete":
            self.templates.pop((values["waba_id"], values["name"], values["language"]), None)
        elif operation == "customer":
            self._apply_customer(**values)
        elif operation == "customer_changed":
            self._apply_customer_changed(**values)
        elif operation == "inbound":
            self._apply_inbound(**values)
        elif operation == "media":
            self.media[values["id"]] = Media(**values)
            self._next_id = max(self._next_id, int(values["id"]) + 1)
        elif operation == "media_delete":
            self.media.pop(values["id"], None)
        elif operation == "settings":
            self.settings.update(values)

    def _apply_number(self, values: dict[str, Any]) -> None:
        number = Number(**values)
        self.numbers[number.phone_number_id] = number
        if number.api_key:
            self.api_keys[number.api_key] = number.phone_number_id
        if number.waba_id and number.waba_id not in self.wabas:
            self.wabas.add(number.waba_id)
            self._add_hello_world(number.waba_id)

    def _apply_customer(self, wa_id: str | None, user_id: str | None, name: str | None) -> None:
        known = [self.customers[key] for key in (self._key(wa_id), user_id) if key and key in self.customers]
        customer = known[0] if known else Customer(wa_id, user_id)
        for other in known[1:]:
            for number, at in other.windows.items():
                customer.windows[number] = max(at, customer.windows.get(number, 0.0))
        customer.wa_id = wa_id or customer.wa_id
        customer.user_id = user_id or customer.user_id
        customer.name = name or customer.name
        for key in (self._key(customer.wa_id), customer.user_id):
            if key:
                self.customers[key] = customer

    def _apply_customer_changed(self, key: str, wa_id: str | None, user_id: str | None) -> None:
        customer = self.customers[key]
        for old in (self._key(customer.wa_id), customer.user_id):
            if old:
                self.customers.pop(old, None)
        customer.wa_id, customer.user_id = wa_id, user_id
        for new in (self._key(wa_id), user_id):
            if new:
                self.customers[new] = customer

    def _apply_inbound(self, key: str, number: str, at: float | None, message_id: str | None) -> None:
        if at is not None:
            windows = self.customers[key].windows
            windows[number] = max(at, windows.get(number, 0.0))
        if message_id is not None:
            self.message_ids.add(message_id)

    @staticmethod
    def _key(wa_id: str | None) -> str | None:
        return canonical_wa_id(wa_id) if wa_id else None

    # numbers

    def number(self, phone_number_id: str) -> Number:
        """The business number with this id; made on first use where ``auto_register`` is on.

        Raises GraphError 100/33 for an unknown one.
        """
        number = self.numbers.get(phone_number_id)
        if number is not None:
            return number
        if not (
            self.settings.auto_register and phone_number_id.isdigit() and phone_number_id not in self.wabas
        ):
            raise unknown_object(phone_number_id)
        return self.register_number({"phone_number_id": phone_number_id})

    def register_number(self, values: dict[str, Any]) -> Number:
        """Make or change a business number; fields that are not given keep their value.

        Raises ControlError for fields that a number does not have.
        """
        known = {f.name for f in fields(Number)}
        if unknown := set(values) - known:
            raise ControlError(
                f"a number has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}"
            )
        for name in ("throughput", "tier"):
            if name in values and not (type(values[name]) is int and values[name] >= 1):
                raise ControlError(f"{name} is an integer of at least 1")
        headers = values.get("webhook_headers") or {}
        if not (
            isinstance(headers, dict)
            and all(isinstance(text, str) and text.isprintable() for text in [*headers, *headers.values()])
        ):
            raise ControlError("webhook_headers is an object of header names and values")
        phone_number_id = str(values.get("phone_number_id") or "")
        if not phone_number_id:
            raise ControlError("phone_number_id is missing")
        old = self.numbers.get(phone_number_id)
        merged = {**(asdict(old) if old else {}), **values, "phone_number_id": phone_number_id}
        if not merged.get("display_phone"):
            merged["display_phone"] = derived_display_phone(phone_number_id)
        merged["display_phone"] = "".join(c for c in str(merged["display_phone"]) if c.isdigit())
        self.change("number", **merged)
        return self.numbers[phone_number_id]

    def number_for_key(self, api_key: str) -> Number:
        """The number that a 360dialog key stands for."""
        phone_number_id = self.api_keys.get(api_key)
        if phone_number_id is not None:
            return self.numbers[phone_number_id]
        if not self.settings.auto_register:
            raise GraphError(190, "The D360-API-KEY is not known.")
        keyless = [number for number in self.numbers.values() if number.api_key is None]
        if len(self.numbers) == 1 and keyless:
            return keyless[0]
        return self.register_number({"phone_number_id": str(self.new_id()), "api_key": api_key})

    def waba_of(self, number: Number) -> str:
        """The business account that webhooks of ``number`` come from."""
        return number.waba_id or self.default_waba

    def waba(self, waba_id: str) -> str:
        """``waba_id``, if there is such an account or it may be made by being asked for."""
        if waba_id in self.wabas:
            return waba_id
        if not (self.settings.auto_register and waba_id.isdigit() and waba_id not in self.numbers):
            raise unknown_object(waba_id)
        self.change("waba", waba_id=waba_id)
        return waba_id

    def new_id(self) -> int:
        """An object id that was not used before."""
        self._next_id += 1
        return self._next_id

    # templates

    def template(self, number: Number, name: str, language: str) -> Template | None:
        """The template as ``number`` may use it; a number without an account sees those of all accounts."""
        if number.waba_id is not None:
            return self.templates.get((number.waba_id, name, language))
        for waba_id in self.wabas:
            template = self.templates.get((waba_id, name, language))
            if template is not None:
                return template
        return None

    def put_template(self, waba_id: str, values: dict[str, Any]) -> Template:
        """Make or change a template; raises ControlError for unknown fields or a missing name or language."""
        known = {f.name for f in fields(Template)}
        if unknown := set(values) - known:
            raise ControlError(
                f"a template has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}"
            )
        name, language = values.get("name"), values.get("language", "en_US")
        if not isinstance(name, str) or not isinstance(language, str) or not name:
            raise ControlError("a template needs a name and a language")
        if waba_id not in self.wabas:
            self.change("waba", waba_id=waba_id)
        old = self.templates.get((waba_id, name, language))
        merged = {**(asdict(old) if old else {"id": str(self.new_id())}), **values}
        merged |= {"waba_id": waba_id, "name": name, "language": language}
        merged["parameter_format"] = str(merged.get("parameter_format") or "POSITIONAL").upper()
        self.change("template", **merged)
        return self.templates[(waba_id, name, language)]

    def templates_of(self, waba_id: str) -> Iterator[Template]:
        """The templates of an account, in the order they were made."""
        return (template for template in self.templates.values() if template.waba_id == waba_id)

    # customers

    def shown_wa_id(self, digits: str) -> str:
        """The ``wa_id`` that the API shows for a dialled number."""
        return canonical_wa_id(digits) if self.settings.rewrite_wa_id else digits

    def customer(self, wa_id: str | None, user_id: str | None, name: str | None = None) -> Customer:
        """The customer with this number or user id, joined if both are given; made if there is none."""
        found = self.find_customer(wa_id, user_id)
        if found is not None and name in (None, found.name) and self._is(found, wa_id, user_id):
            return found
        self.change("customer", wa_id=wa_id, user_id=user_id, name=name)
        return self.customers[self._key(wa_id) or user_id or ""]

    def _is(self, customer: Customer, wa_id: str | None, user_id: str | None) -> bool:
        """Whether ``customer`` already has what is given of these ids."""
        return self._key(wa_id) in (None, self._key(customer.wa_id)) and user_id in (None, customer.user_id)

    def find_customer(self, wa_id: str | None, user_id: str | None) -> Customer | None:
        """The customer with this number, else with this user id, else None."""
        if wa_id is not None and (customer := self.customers.get(canonical_wa_id(wa_id))):
            return customer
        return self.customers.get(user_id) if user_id is not None else None

    def with_user_id(self, customer: Customer) -> Customer:
        """``customer``, with a user id made up if it had none."""
        if customer.user_id is None and customer.wa_id is not None:
            return self.customer(customer.wa_id, derived_user_id(canonical_wa_id(customer.wa_id)))
        return customer

    def key_of(self, customer: Customer) -> str:
        """The key under which operations name ``customer``."""
        return self._key(customer.wa_id) or customer.user_id or ""

    def window_open(self, number: Number, wa_id: str | None, user_id: str | None) -> bool:
        """Whether the customer wrote to ``number`` within 24 hours."""
        customer = self.find_customer(wa_id, user_id)
        return (
            customer is not None
            and time.time() - customer.windows.get(number.phone_number_id, 0.0) < WINDOW_S
        )

    def clear(self) -> None:
        """Forget everything but the settings."""
        self._file.clear()
        for media_id in self.media:
            (self.media_directory / media_id).unlink(missing_ok=True)
        self._forget()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def unknown_object(object_id: str) -> GraphError:
    """The error for an object id that the token cannot see."""
    return GraphError(
        100,
        f"Unsupported request. Object with ID '{object_id}' does not exist, cannot be loaded due to missing "
        "permissions, or does not support this operation.",
        subcode=33,
    )
