"""What the client can do, each once: the SQL function, the same over HTTP, and what comes back.

A method of the client is called as its SQL function, without wa.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, LiteralString, Required, TypedDict, TypeVar
from urllib.parse import quote
from uuid import UUID

from pg_whatsapp.client import results
from pg_whatsapp.client.results import (
    Batch,
    Consent,
    Conversation,
    MediaLink,
    MessageDetails,
    Metrics,
    OptOut,
    Page,
    QueuedMessage,
    SendOptions,
    Template,
    Thread,
    read_as,
    read_page,
)
from pg_whatsapp.errors import InputError

R_co = TypeVar("R_co", covariant=True)
Values = Sequence[Any] | Mapping[str, Any]
Scope = Literal["marketing", "all"]


@dataclass(frozen=True)
class Call(Generic[R_co]):
    """One operation with its values, both ways."""

    #: One column of JSON; {s} is the schema of the extension.
    statement: LiteralString
    values: tuple[Any, ...]
    method: str
    #: Below /api/whatsapp.
    path: str
    read: Callable[[Any], R_co]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: str | None = None
    idempotency_key: str | None = None


class NewMessage(TypedDict, total=False):
    """A message to queue: the columns of wa_outbound_queue, and message for text_body."""

    phone: Required[str]
    message: str
    text_body: str
    template_name: str
    template_params: Values
    template_language: str
    type: str
    content: Mapping[str, Any]
    priority: Literal["high", "normal", "low"]
    scheduled_at: datetime
    expires_at: datetime
    phone_number_id: str
    idempotency_key: str
    reference: str
    metadata: Mapping[str, Any]
    reply_to: str
    on_refusal: Literal["raise", "record"]
    on_unknown: Literal["fail", "retry"]
    fallback_template_name: str
    fallback_template_params: Values
    fallback_template_language: str
    customer_id: str


def _simple(value: Any) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InputError(
                f"the time {value.isoformat()} has no time zone",
                "Give it one: datetime.now(UTC), or value.replace(tzinfo=…).",
            )
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    raise InputError(
        f"a {type(value).__name__} cannot be written as JSON", "Give text, numbers, lists or dicts."
    )


def _json(value: Any) -> str:
    """Text for the database and for HTTP; raises InputError for what JSON cannot hold."""
    try:
        return json.dumps(value, default=_simple, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise InputError(f"the values cannot be written as JSON: {error}") from error


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def send_message(
    phone: str,
    message: str | None = None,
    *,
    template_name: str | None = None,
    template_params: Values | None = None,
    template_language: str | None = None,
    type: str | None = None,
    content: Mapping[str, Any] | None = None,
    priority: Literal["high", "normal", "low"] | None = None,
    scheduled_at: datetime | None = None,
    expires_at: datetime | None = None,
    phone_number_id: str | None = None,
    reference: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    reply_to: str | None = None,
    on_refusal: Literal["raise", "record"] | None = None,
    on_unknown: Literal["fail", "retry"] | None = None,
    fallback_template_name: str | None = None,
    fallback_template_params: Values | None = None,
    fallback_template_language: str | None = None,
    customer_id: str | None = None,
    idempotency_key: str | None = None,
) -> Call[QueuedMessage]:
    """Queue a message: text, a template, or any other type with its content.

    Repeated with the same idempotency_key and values within three days it returns the message that is there,
    as it is now. Raises PolicyError where WhatsApp's rules forbid it now (get_send_options() tells what may
    go), InputError for values that make no sense, ApiError for a key that was used with other values.
    """
    body = _json(
        _given(
            {
                "phone": phone,
                "message": message,
                "template_name": template_name,
                "template_params": template_params,
                "template_language": template_language,
                "type": type,
                "content": content,
                "priority": priority,
                "scheduled_at": scheduled_at,
                "expires_at": expires_at,
                "phone_number_id": phone_number_id,
                "reference": reference,
                "metadata": metadata,
                "reply_to": reply_to,
                "on_refusal": on_refusal,
                "on_unknown": on_unknown,
                "fallback_template_name": fallback_template_name,
                "fallback_template_params": fallback_template_params,
                "fallback_template_language": fallback_template_language,
                "customer_id": customer_id,
            }
        )
    )
    return Call(
        "SELECT {s}.send_wa_message(%s::jsonb, %s)::text",
        (body, idempotency_key),
        "POST",
        "/send",
        read_as(QueuedMessage),
        body=body,
        idempotency_key=idempotency_key,
    )


def send_messages(messages: Sequence[NewMessage], *, idempotency_key: str | None = None) -> Call[Batch]:
    """Queue up to 10,000 messages, with a verdict for each in their order; bad ones do not stop good ones."""
    body = _json(messages)
    return Call(
        "SELECT {s}.send_wa_messages(%s::jsonb, %s)::text",
        (body, idempotency_key),
        "POST",
        "/messages/batch",
        read_as(Batch),
        body=body,
        idempotency_key=idempotency_key,
    )


def get_message(message_id: UUID | int | str) -> Call[MessageDetails]:
    """A message by its id in the queue (a UUID) or in the ledger (a number): history, why it has not gone.

    Raises InputError (P0002) where there is none.
    """
    return Call(
        "SELECT {s}.get_wa_message(%s)::text",
        (str(message_id),),
        "GET",
        f"/messages/{_part(message_id)}",
        read_as(MessageDetails),
    )


def cancel_message(message_id: UUID | str) -> Call[QueuedMessage]:
    """Take a pending message back; raises StateError once it was claimed, InputError where there is none."""
    return Call(
        "SELECT {s}.cancel_wa_message(%s::uuid)::text",
        (str(message_id),),
        "DELETE",
        f"/messages/{_part(message_id)}",
        read_as(QueuedMessage),
    )


def get_send_options(phone: str, phone_number_id: str | None = None) -> Call[SendOptions]:
    """What may go where free text may not: when the window closed, and templates that may be sent now."""
    return Call(
        "SELECT {s}.get_wa_send_options(%s, %s)::text",
        (phone, phone_number_id),
        "GET",
        f"/conversations/{_part(phone)}/send-options",
        read_as(SendOptions),
        query=_given({"phone_number_id": phone_number_id}),
    )


def search_conversations(
    search: str | None = None,
    *,
    state: Literal["active", "waiting", "completed", "expired"] | None = None,
    is_unread: bool | None = None,
    phone_number_id: str | None = None,
    closing_within_minutes: int | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Call[Page[Conversation]]:
    """Conversations, that with the latest message first, at most 200 a page.

    search is a number, a part of one, a name, or words of a message.
    """
    closing = None if closing_within_minutes is None else timedelta(minutes=closing_within_minutes)
    return Call(
        "SELECT {s}.search_wa_conversations(%s, %s, %s, %s, %s, %s, %s)::text",
        (search, state, is_unread, phone_number_id, closing, limit, cursor),
        "GET",
        "/conversations",
        read_page("conversations", Conversation),
        query=_given(
            {
                "search": search,
                "state": state,
                "unread": is_unread,
                "phone_number_id": phone_number_id,
                "closing_within_minutes": closing_within_minutes,
                "limit": limit,
                "cursor": cursor,
            }
        ),
    )


def get_conversation(
    phone: str, *, limit: int = 50, cursor: str | None = None, phone_number_id: str | None = None
) -> Call[Thread]:
    """What was said with a customer, newest first, at most 500 messages a page; InputError for a stranger."""
    return Call(
        "SELECT {s}.get_wa_conversation(%s, %s, %s, %s)::text",
        (phone, limit, cursor, phone_number_id),
        "GET",
        f"/conversations/{_part(phone)}",
        results.read_thread,
        query=_given({"limit": limit, "cursor": cursor, "phone_number_id": phone_number_id}),
    )


def list_templates(
    *,
    approval_status: Literal["pending", "approved", "rejected"] | None = None,
    name: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Call[Page[Template]]:
    """Templates by name, at most 500 a page."""
    return Call(
        "SELECT {s}.list_wa_templates(%s, %s, %s, %s)::text",
        (approval_status, name, limit, cursor),
        "GET",
        "/templates",
        read_page("templates", Template),
        query=_given({"approval_status": approval_status, "name": name, "limit": limit, "cursor": cursor}),
    )


def create_template(
    name: str,
    body_text: str,
    *,
    category: str | None = None,
    language: str | None = None,
    header_text: str | None = None,
    footer_text: str | None = None,
    buttons: Sequence[Mapping[str, Any]] | None = None,
    parameters: Sequence[Mapping[str, Any]] | None = None,
    idempotency_key: str | None = None,
) -> Call[Template]:
    """Make a draft of a template, UTILITY in English unless said otherwise; InputError if there is one."""
    body = _json(
        _given(
            {
                "name": name,
                "body_text": body_text,
                "category": category,
                "language": language,
                "header_text": header_text,
                "footer_text": footer_text,
                "buttons": buttons,
                "parameters": parameters,
            }
        )
    )
    return Call(
        "SELECT {s}.create_wa_template(%s::jsonb, %s)::text",
        (body, idempotency_key),
        "POST",
        "/templates",
        read_as(Template),
        body=body,
        idempotency_key=idempotency_key,
    )


def list_opt_outs(*, limit: int = 100, cursor: str | None = None) -> Call[Page[OptOut]]:
    """Who asked not to be written to, the latest first, at most 1,000 a page."""
    return Call(
        "SELECT {s}.list_wa_opt_outs(%s, %s)::text",
        (limit, cursor),
        "GET",
        "/opt-outs",
        read_page("opt_outs", OptOut),
        query=_given({"limit": limit, "cursor": cursor}),
    )


def get_consent(phone: str) -> Call[Consent]:
    """Whether somebody asked not to be written to, since when and why."""
    return Call(
        "SELECT {s}.get_wa_consent(%s)::text",
        (phone,),
        "GET",
        f"/opt-outs/{_part(phone)}",
        read_as(Consent),
    )


def opt_out_contact(phone: str, scope: Scope = "marketing", *, reason: str | None = None) -> Call[bool]:
    """Record that somebody asked not to be written to and cancel what is queued; whether that was new."""
    return Call(
        "SELECT to_jsonb({s}.opt_out_wa_contact(%s, %s, %s, 'api'))::text",
        (phone, scope, reason),
        "POST",
        "/opt-outs",
        _changed,
        body=_json(_given({"phone": phone, "scope": scope, "reason": reason})),
    )


def opt_in_contact(phone: str, scope: Scope = "marketing") -> Call[bool]:
    """Record a new consent, which lifts the opt-outs of its scope; whether there was one."""
    return Call(
        "SELECT to_jsonb({s}.opt_in_wa_contact(%s, %s, 'api'))::text",
        (phone, scope),
        "DELETE",
        f"/opt-outs/{_part(phone)}",
        _changed,
        query={"scope": scope},
    )


def get_metrics() -> Call[Metrics]:
    """How the organization stands: queue, messages by day, conversations, templates, opt-outs, webhooks."""
    return Call("SELECT {s}.get_wa_metrics()::text", (), "GET", "/metrics", read_as(Metrics))


def create_media_signature(
    message_id: int | None = None,
    *,
    media_id: UUID | str | None = None,
    max_access: int = 1,
    ttl_minutes: int = 60,
) -> Call[MediaLink]:
    """A link to the file of a message of the ledger, or of wa_media, which opens max_access times.

    Its url is absolute where the organization or the installation has a public_url, else it is the path.
    Raises InputError (WA031) where there is no such file.
    """
    if (message_id is None) == (media_id is None):
        raise InputError("a link needs message_id or media_id, and not both")
    file = str(media_id) if media_id is not None else message_id
    return Call(
        "SELECT to_jsonb(l)::text FROM {s}.create_wa_media_signature(message_id => %s::bigint,"
        " max_access => %s, ttl_minutes => %s) l"
        if media_id is None
        else "SELECT to_jsonb(l)::text FROM {s}.create_wa_media_signature(media_id => %s::uuid,"
        " max_access => %s, ttl_minutes => %s) l",
        (file, max_access, ttl_minutes),
        "POST",
        "/media-links",
        read_as(MediaLink),
        body=_json(
            {
                "message_id" if media_id is None else "media_id": file,
                "max_access": max_access,
                "ttl_minutes": ttl_minutes,
            }
        ),
    )


def normalize_phone_e164(phone: str, *, region: str | None = None, area_code: str | None = None) -> Call[str]:
    """A phone number in E.164; raises InputError for what is none. region reads national forms."""
    return _normalize("normalize_phone_e164", phone, region, area_code, _phone)


def try_normalize_phone_e164(
    phone: str, *, region: str | None = None, area_code: str | None = None
) -> Call[str | None]:
    """As normalize_phone_e164(), with None for what is no phone number."""
    return _normalize("try_normalize_phone_e164", phone, region, area_code, _phone)


def _normalize(
    function: Literal["normalize_phone_e164", "try_normalize_phone_e164"],
    phone: str,
    region: str | None,
    area_code: str | None,
    read: Callable[[Any], R_co],
) -> Call[R_co]:
    asked = _given({"phone": phone, "region": region, "area_code": area_code})
    if function == "try_normalize_phone_e164":
        asked["or_null"] = True
    return Call(
        "SELECT jsonb_build_object('phone', {s}.normalize_phone_e164(%s, %s, %s))::text"
        if function == "normalize_phone_e164"
        else "SELECT jsonb_build_object('phone', {s}.try_normalize_phone_e164(%s, %s, %s))::text",
        (phone, region, area_code),
        "POST",
        "/normalize-phone",
        read,
        body=_json(asked),
    )


def _phone(value: Any) -> Any:
    return value["phone"]


def _changed(value: Any) -> bool:
    return bool(value["changed"] if isinstance(value, dict) else value)


def _part(value: object) -> str:
    return quote(str(value), safe="")
