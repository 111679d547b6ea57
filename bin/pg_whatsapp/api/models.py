"""What requests and answers look like, for the OpenAPI document and the checks before the database's own."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from pg_whatsapp.api.answers import Told, told
from pg_whatsapp.client import results

# RFC 3339; pydantic alone would take a number for seconds since 1970.
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _only_text(value: Any) -> Any:
    if value is not None and not (isinstance(value, str) and _TIME.fullmatch(value)):
        raise ValueError("a time as in 2027-03-14T10:00:00Z")
    return value


def _in_utc(value: datetime) -> datetime:
    """A time that has a year of four digits in UTC, too: few programs read the others."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time between the years 1 and 9999") from None


Json = dict[str, Any]
Time = Annotated[AwareDatetime, BeforeValidator(_only_text), AfterValidator(_in_utc)]
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
    sent_by: str | None = Field(
        None, description="The person who wrote it: may answer who opted out and wrote again."
    )
    sms_fallback_text: str | None = Field(
        None, description="What goes as SMS where WhatsApp fails for good, if the organization has that on."
    )


BATCH_EXAMPLE = [
    {"phone": "+15551234567", "template_name": "order_confirmation", "template_params": ["Ann", "A-1042"]},
    {"phone": "+5491140000008", "message": "Your order is ready."},
]


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


#: What an opt-out or an opt-in covers.
Scope = Literal["marketing", "utility", "authentication", "sms", "all"]


class OptOut(Asked):
    """Somebody who is not to be written to."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"phone": "+15551234567", "scope": "all", "reason": "asked by phone"}]
        }
    )

    phone: str
    scope: Scope = "marketing"
    reason: str | None = None


class PhoneText(Asked):
    """A phone number in whatever form."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"phone": "+1 (555) 123-4567"}]})

    phone: str = Field(max_length=100)
    region: str | None = Field(
        None, description="ISO 3166, for national forms; else the organization's.", max_length=10
    )
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


if TYPE_CHECKING:
    Batch = results.Batch
    Consent = results.Consent
    Conversation = results.Conversation
    LedgerMessage = results.LedgerMessage
    MediaLink = results.MediaLink
    MessageDetails = results.MessageDetails
    Metrics = results.Metrics
    OptOutRow = results.OptOut
    QueuedMessage = results.QueuedMessage
    SendOptions = results.SendOptions
    TemplateRow = results.Template
    Verdict = results.Verdict
else:
    Batch = told(results.Batch)
    Consent = told(results.Consent)
    Conversation = told(results.Conversation)
    LedgerMessage = told(results.LedgerMessage)
    MediaLink = told(results.MediaLink)
    MessageDetails = told(results.MessageDetails)
    Metrics = told(results.Metrics)
    OptOutRow = told(results.OptOut, "OptOutRow")
    QueuedMessage = told(results.QueuedMessage)
    SendOptions = told(results.SendOptions)
    TemplateRow = told(results.Template, "TemplateRow")
    Verdict = told(results.Verdict)


class RecipientVerdict(Verdict):
    """The same, with the recipient as it was given."""

    recipient: Any


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


class Conversations(Told):
    """A page of conversations."""

    conversations: list[Conversation]
    next: str | None = Field(description="Cursor of the next page.")


class Thread(Told):
    """What was said with a customer, newest first."""

    conversations: list[Conversation]
    messages: list[LedgerMessage]
    next: str | None


class PhoneNumber(Told):
    """A phone number in E.164."""

    phone: str | None


class Templates(Told):
    """A page of templates."""

    templates: list[TemplateRow]
    next: str | None


class OptOuts(Told):
    """A page of opt-outs."""

    opt_outs: list[OptOutRow]
    next: str | None


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
