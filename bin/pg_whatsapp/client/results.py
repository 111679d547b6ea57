"""What the client returns: the objects of the HTTP API, with ids as UUID and times in UTC.

The document of the HTTP API is made of the same (api/answers.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from types import UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    TypedDict,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)
from uuid import UUID

T = TypeVar("T")
#: A time that never comes: what the database calls infinity.
NEVER = datetime.max.replace(tzinfo=UTC)
_NEVER_IN_JSON = Literal["infinity"]


class QueuedMessage(TypedDict):
    """A message of the queue."""

    id: UUID
    status: Annotated[str, "pending, sending, sent, failed or cancelled."]
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
    expires_at: Annotated[
        datetime | None, "infinity (in Python NEVER) where it does not expire.", _NEVER_IN_JSON
    ]
    phone_number_id: str | None
    reference: str | None
    customer_id: str | None
    sent_by: str | None
    sms_fallback_text: str | None
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
    direction: Literal["inbound", "outbound"]
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
    held_until: Annotated[
        datetime | None, "infinity (in Python NEVER) where no time ends it.", _NEVER_IN_JSON
    ]
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

    n: Annotated[int, "Its place, from 1."]
    id: Annotated[UUID | None, "Null where it was refused."]
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
    state: Literal["active", "waiting", "completed", "expired"]
    unread_count: int
    assigned_to: Annotated[str | None, "Who looks after it."]
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
    approval_status: Annotated[str, "pending, approved or rejected."]
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
    """A link to a file. The token is told only here."""

    id: UUID
    token: str
    path: str
    url: Annotated[str, "The path, behind public_url where one is set."]
    expires_at: datetime


class MarkedRead(TypedDict):
    """A conversation that was marked as read."""

    conversation_id: int
    phone_number_id: str
    marked: Annotated[int, "How many messages were unread."]
    call_id: Annotated[UUID | None, "Its provider call; null: the provider need not know."]


class Assigned(TypedDict):
    """A conversation that was assigned."""

    conversation_id: int
    phone_number_id: str
    former: Annotated[str | None, "Who had it before."]


class ProviderCall(TypedDict):
    """A call of the provider beside sending."""

    id: UUID
    kind: Annotated[str, "As mark_read, sync_templates, submit_templates, set_profile."]
    phone_number_id: str
    state: Literal["pending", "done", "failed"]
    attempts: int
    next_attempt_at: datetime | None
    give_up_at: datetime
    http_status: int | None
    error: str | None
    result: Annotated[dict[str, Any] | None, "Of templates: the account, and how many or which."]
    created_at: datetime
    ended_at: datetime | None


class Event(TypedDict):
    """Something that happened, with its message or conversation as it is now."""

    position: int
    kind: Literal["message", "status", "conversation"]
    status: str | None
    occurred_at: datetime
    message_id: int | None
    queue_id: UUID | None
    reference: str | None
    wa_message_id: str | None
    direction: str | None
    message_type: str | None
    contact_id: int | None
    phone_e164: str | None
    user_id: str | None
    phone_number_id: str | None
    content_text: str | None
    content: Any
    error_code: int | None
    error_title: str | None
    conversation_id: int | None
    assigned_to: str | None


class Events(TypedDict):
    """What comes after what a consumer has acknowledged."""

    events: list[Event]
    position: Annotated[int | None, "To be acknowledged once all are dealt with; null: none."]


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
