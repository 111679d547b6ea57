"""What the client returns: the objects of the HTTP API, with ids as UUID and times in UTC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from types import UnionType
from typing import Any, Generic, TypedDict, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict
from uuid import UUID

T = TypeVar("T")
#: A time that never comes: what the database calls infinity.
NEVER = datetime.max.replace(tzinfo=UTC)


class QueuedMessage(TypedDict):
    """A message of the queue."""

    id: UUID
    #: pending, sending, sent, failed or cancelled.
    status: str
    phone: str
    type: str
    text_body: str | None
    template_name: str | None
    template_language: str | None
    template_params: Any
    content: Any
    reply_to: str | None
    priority: str
    scheduled_at: datetime
    #: NEVER where it does not expire.
    expires_at: datetime | None
    phone_number_id: str | None
    reference: str | None
    customer_id: str | None
    metadata: dict[str, Any]
    wa_message_id: str | None
    error_code: str | None
    last_error: str | None
    retry_count: int
    created_at: datetime
    processed_at: datetime | None


class LedgerMessage(TypedDict):
    """A message of the ledger, in either direction."""

    id: int
    queue_id: UUID | None
    #: inbound or outbound.
    direction: str
    phone: str | None
    user_id: str | None
    phone_number_id: str | None
    type: str
    text: str | None
    content: Any
    template_name: str | None
    template_language: str | None
    status: str
    state: str
    wa_message_id: str | None
    reply_to: str | None
    reference: str | None
    error_code: int | None
    error_title: str | None
    error_message: str | None
    created_at: datetime
    provider_at: datetime | None
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    failed_at: datetime | None
    edited_at: datetime | None
    deleted_at: datetime | None


class Explanation(TypedDict):
    """Why a message has not gone."""

    status: str
    reason: str | None
    held_until: datetime | None
    explanation: str | None
    hint: str | None


class MessageDetails(TypedDict):
    """A message with its history."""

    queued: QueuedMessage | None
    message: LedgerMessage | None
    history: list[Any]
    explanation: Explanation | None


class Verdict(TypedDict):
    """What became of one message of a batch."""

    #: Its place, from 1.
    n: int
    #: None where it was refused.
    id: UUID | None
    status: str
    error_sqlstate: str | None
    error: str | None
    hint: str | None


class Batch(TypedDict):
    """What became of a batch."""

    queued: int
    refused: int
    messages: list[Verdict]


class SendableTemplate(TypedDict):
    """A template that may be sent now."""

    name: str
    language: str
    category: str
    body_text: str
    parameters: list[Any]


class SendOptions(TypedDict):
    """What may go where free text may not."""

    last_customer_message_at: datetime | None
    window_closed_at: datetime | None
    templates: list[SendableTemplate]


class LastMessage(TypedDict):
    """The latest message of a conversation."""

    id: int
    direction: str
    type: str
    text: str | None
    state: str
    created_at: datetime


class Conversation(TypedDict):
    """A business number and a customer."""

    id: int
    phone: str | None
    user_id: str | None
    customer_name: str | None
    phone_number_id: str
    #: active, waiting, completed or expired.
    state: str
    unread_count: int
    is_within_24h: bool
    is_sendable: bool
    window_expires_at: datetime | None
    last_customer_message_at: datetime | None
    last_business_message_at: datetime | None
    last_message: LastMessage | None


class Template(TypedDict):
    """A template."""

    id: UUID
    name: str
    language: str
    category: str
    #: pending, approved or rejected.
    approval_status: str
    status: str
    rejected_reason: str | None
    provider_template_id: str | None
    waba_id: str | None
    header_text: str | None
    body_text: str
    footer_text: str | None
    buttons: list[Any]
    parameters: list[Any]
    quality_score: str | None
    blocked_reason: str | None
    blocked_until: datetime | None
    is_sendable: bool
    created_at: datetime
    updated_at: datetime


class OptOut(TypedDict):
    """Somebody who asked not to be written to."""

    id: int
    phone: str | None
    user_id: str | None
    scope: str
    reason: str | None
    source: str
    opt_out_date: datetime


class ConsentEntry(TypedDict):
    """One opt-out of a person."""

    scope: str
    reason: str | None
    source: str
    opt_out_date: datetime


class Consent(TypedDict):
    """Whether a person asked not to be written to."""

    is_opted_out: bool
    is_opted_out_of_marketing: bool
    opt_outs: list[ConsentEntry]


class QueueMetrics(TypedDict):
    """How the queue stands."""

    due: int
    scheduled: int
    held: int
    in_flight: int
    outcome_unknown: int
    oldest_due_at: datetime | None
    dispatchers: int


class Metrics(TypedDict):
    """How an organization stands."""

    at: datetime
    queue: QueueMetrics
    daily: list[dict[str, Any]]
    delivery: list[dict[str, Any]]
    conversations: dict[str, int]
    templates: dict[str, int]
    opt_outs: int
    webhooks: dict[str, Any]


class MediaLink(TypedDict):
    """A link to a file."""

    id: UUID
    token: str
    path: str
    #: The path, behind the public_url of the organization or else the installation where one is set.
    url: str
    expires_at: datetime


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some rows of a list, and the cursor of those that follow."""

    items: list[T]
    #: None on the last page.
    next: str | None


@dataclass(frozen=True)
class Thread(Page[LedgerMessage]):
    """A page of what was said with a customer, newest first."""

    conversations: list[Conversation]


def _time(value: str) -> datetime:
    return NEVER if value == "infinity" else datetime.fromisoformat(value).astimezone(UTC)


@cache
def reader(kind: Any) -> Callable[[Any], Any]:
    """What turns JSON into a type: UUID and datetime wherever it has them. Unknown fields stay as is."""
    if kind is datetime:
        return _time
    if kind is UUID:
        return UUID
    if is_typeddict(kind):
        fields = {name: reader(hint) for name, hint in get_type_hints(kind).items()}
        plain = _as_it_is
        changed = {name: read for name, read in fields.items() if read is not plain}
        return lambda value: (
            value | {name: read(value[name]) for name, read in changed.items() if name in value}
        )
    if get_origin(kind) is list:
        one = reader(get_args(kind)[0])
        return _as_it_is if one is _as_it_is else lambda value: [one(item) for item in value]
    if get_origin(kind) in (Union, UnionType):
        [some] = [reader(part) for part in get_args(kind) if part is not type(None)]
        return _as_it_is if some is _as_it_is else lambda value: None if value is None else some(value)
    return _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


def read_as(kind: type[T]) -> Callable[[Any], T]:
    """The reader of a type, made when it is first needed."""
    hashable: Any = kind
    return lambda value: reader(hashable)(value)


def read_page(name: str, kind: type[T]) -> Callable[[Any], Page[T]]:
    """The reader of a page whose rows are under a name."""
    rows: Any = list[kind]  # type: ignore[valid-type]
    return lambda value: Page(reader(rows)(value[name]), value["next"])


def read_thread(value: Any) -> Thread:
    """A page of messages with the conversations of their customer."""
    return Thread(
        reader(list[LedgerMessage])(value["messages"]),
        value["next"],
        reader(list[Conversation])(value["conversations"]),
    )
