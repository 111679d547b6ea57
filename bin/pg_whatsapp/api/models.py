"""What requests and answers look like, for the OpenAPI document and the checks before the database's own."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

# RFC 3339; pydantic alone would take a number for seconds since 1970.
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _only_text(value: Any) -> Any:
    if value is not None and not (isinstance(value, str) and _TIME.fullmatch(value)):
        raise ValueError("a time as in 2027-03-14T10:00:00Z")
    return value


Json = dict[str, Any]
Time = Annotated[AwareDatetime, BeforeValidator(_only_text)]
Priority = Literal["high", "normal", "low"]


class Asked(BaseModel):
    """A body that is sent to us: unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", strict=False)


class Message(Asked):
    """A message to queue: text, template, or any other type with its content."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"phone": "+15551234567", "message": "Thank you for your inquiry! How can I help you today?"}
            ]
        }
    )

    phone: str = Field(description="Phone number with country code, or a business-scoped user id.")
    message: str | None = Field(None, description="Text; goes while the 24-hour window is open.")
    text_body: str | None = Field(None, description="The same under the queue's name.")
    template_name: str | None = None
    template_params: list[Any] | Json | None = Field(
        None, description="Values in order, or by the names that the template declares."
    )
    template_language: str | None = None
    type: str | None = Field(None, description="Type of the Cloud API, with content; else it follows.")
    content: Json | None = Field(None, description="The object that the Cloud API has for the type.")
    priority: Priority | None = None
    scheduled_at: Time | None = None
    expires_at: Time | None = None
    phone_number_id: str | None = Field(None, description="Business number to send from.")
    idempotency_key: str | None = Field(None, description="As the column of the queue.")
    reference: str | None = None
    metadata: Json | None = None
    reply_to: str | None = Field(None, description="wamid of the message that is answered.")
    on_refusal: Literal["raise", "record"] | None = None
    on_unknown: Literal["fail", "retry"] | None = None
    fallback_template_name: str | None = None
    fallback_template_params: list[Any] | Json | None = None
    fallback_template_language: str | None = None
    customer_id: str | None = None


class Recipients(Asked):
    """A template to each of many recipients."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "eventId": "event-uuid",
                    "recipients": ["+15551234567", "+5491140000008"],
                    "templateName": "event_reminder_24h",
                    "variables": {
                        "attendee_name": "John Doe",
                        "event_name": "Tech Summit 2025",
                        "event_time": "2025-03-15 10:00 AM",
                    },
                    "scheduledFor": "2027-03-14T10:00:00Z",
                }
            ]
        }
    )

    eventId: str | None = None  # noqa: N815
    recipients: list[Any] = Field(min_length=1, max_length=10_000)
    templateName: str  # noqa: N815
    variables: list[Any] | Json | None = None
    scheduledFor: Time | None = None  # noqa: N815


class Template(Asked):
    """A draft of a template."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "order_confirmation",
                    "category": "UTILITY",
                    "language": "en",
                    "body_text": "Hi {{1}}, your order {{2}} has been confirmed.",
                    "parameters": [
                        {"name": "customer_name", "type": "text"},
                        {"name": "order_id", "type": "text"},
                    ],
                }
            ]
        }
    )

    name: str
    body_text: str
    category: str = "UTILITY"
    language: str = "en"
    header_text: str | None = None
    footer_text: str | None = None
    buttons: list[Json] = []
    parameters: list[Json] = []


class OptOut(Asked):
    """Somebody who is not to be written to."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"phone": "+15551234567", "scope": "all", "reason": "asked by phone"}]
        }
    )

    phone: str
    scope: Literal["marketing", "all"] = "marketing"
    reason: str | None = None


class PhoneText(Asked):
    """A phone number in whatever form."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"phone": "+1 (555) 123-4567"}]})

    phone: str = Field(max_length=100)
    region: str | None = Field(None, description="ISO 3166, for national forms.", max_length=10)
    area_code: str | None = Field(None, description="For local forms.", max_length=10)
    or_null: StrictBool = Field(False, description="What is no phone number gives null instead of an error.")


class MediaLinkWish(Asked):
    """The file of a message, or a file by its own id, and how often and how long its link opens."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"message_id": 123, "max_access": 1, "ttl_minutes": 60}]}
    )

    message_id: int | None = Field(None, strict=True, ge=1, le=2**63 - 1)
    media_id: UUID | None = None
    max_access: int = Field(1, strict=True, ge=1, le=2**31 - 1)
    ttl_minutes: int = Field(60, strict=True, ge=1, le=2**31 - 1)


class Told(BaseModel):
    """A body that we answer with."""

    model_config = ConfigDict(extra="forbid")


class QueuedMessage(Told):
    """A message of the queue."""

    id: UUID
    status: str = Field(description="pending, sending, sent, failed or cancelled.")
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
    expires_at: datetime | None
    phone_number_id: str | None
    reference: str | None
    customer_id: str | None
    metadata: Json
    wa_message_id: str | None
    error_code: str | None
    last_error: str | None
    retry_count: int
    created_at: datetime
    processed_at: datetime | None


class LedgerMessage(Told):
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


class Explanation(Told):
    """Why a message has not gone."""

    status: str
    reason: str | None
    held_until: str | None
    explanation: str | None
    hint: str | None


class MessageDetails(Told):
    """A message with its history."""

    queued: QueuedMessage | None
    message: LedgerMessage | None
    history: list[Any]
    explanation: Explanation | None


class Verdict(Told):
    """What became of one message of a batch."""

    n: int = Field(description="Its place, from 1.")
    id: UUID | None
    status: str
    error_sqlstate: str | None
    error: str | None
    hint: str | None


class RecipientVerdict(Verdict):
    """The same, with the recipient as it was given."""

    recipient: Any


class Batch(Told):
    """What became of a batch."""

    queued: int
    refused: int
    messages: list[Verdict]


class HostMessage(Told):
    """A row of whatsapp_queue."""

    id: UUID
    user_id: UUID
    event_id: UUID | None
    recipient_phone: str
    template_name: str | None
    template_variables: Any
    priority: int
    scheduled_for: datetime
    status: str
    retry_count: int
    error_message: str | None
    sent_at: datetime | None
    created_at: datetime


class HostBatch(Told):
    """What became of the recipients."""

    queued: int
    messages: list[HostMessage]
    verdicts: list[RecipientVerdict]


class Processed(Told):
    """What dispatchers did in the last minute."""

    processed: int
    sent: int
    failed: int


class LastMessage(Told):
    """The latest message of a conversation."""

    id: int
    direction: str
    type: str
    text: str | None
    state: str
    created_at: datetime


class Conversation(Told):
    """A business number and a customer."""

    id: int
    phone: str | None
    user_id: str | None
    customer_name: str | None
    phone_number_id: str
    state: Literal["active", "waiting", "completed", "expired"]
    unread_count: int
    is_within_24h: bool
    is_sendable: bool
    window_expires_at: datetime | None
    last_customer_message_at: datetime | None
    last_business_message_at: datetime | None
    last_message: LastMessage | None


class Conversations(Told):
    """A page of conversations."""

    conversations: list[Conversation]
    next: str | None = Field(description="Cursor of the next page.")


class Thread(Told):
    """What was said with a customer, newest first."""

    conversations: list[Conversation]
    messages: list[LedgerMessage]
    next: str | None


class SendableTemplate(Told):
    """A template that may be sent now."""

    name: str
    language: str
    category: str
    body_text: str
    parameters: list[Any]


class SendOptions(Told):
    """What may go where free text may not."""

    last_customer_message_at: datetime | None
    window_closed_at: datetime | None
    templates: list[SendableTemplate]


class PhoneNumber(Told):
    """A phone number in E.164."""

    phone: str | None


class MediaLink(Told):
    """A link to a file. The token is told only here."""

    id: UUID
    token: str
    path: str
    url: str = Field(description="The path, behind public_url where one is set.")
    expires_at: datetime


class TemplateRow(Told):
    """A template."""

    id: UUID
    name: str
    language: str
    category: str
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


class Templates(Told):
    """A page of templates."""

    templates: list[TemplateRow]
    next: str | None


class OptOutRow(Told):
    """Somebody who asked not to be written to."""

    id: int
    phone: str | None
    user_id: str | None
    scope: str
    reason: str | None
    source: str
    opt_out_date: datetime


class OptOuts(Told):
    """A page of opt-outs."""

    opt_outs: list[OptOutRow]
    next: str | None


class ConsentEntry(Told):
    """One opt-out of a person."""

    scope: str
    reason: str | None
    source: str
    opt_out_date: datetime


class Consent(Told):
    """Whether a person asked not to be written to."""

    is_opted_out: bool
    is_opted_out_of_marketing: bool
    opt_outs: list[ConsentEntry]


class Changed(Told):
    """Whether something was changed."""

    changed: bool


class ProblemDocument(BaseModel):
    """An error, by RFC 9457. code is an SQLSTATE of docs/errors.md or a word; hint the way out."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str | None = None


PhonePath = Annotated[str, Field(description="Phone number with country code, or a user id.", max_length=100)]
