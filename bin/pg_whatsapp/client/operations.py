"""What the client can do, each once: the SQL function, the same over HTTP, and what comes back.

A method of the client is called as its SQL function, without wa.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Required, TypedDict
from uuid import UUID

from pg_whatsapp.client import results
from pg_whatsapp.client.call import Call, as_json, as_part, given
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

Values = Sequence[Any] | Mapping[str, Any]
Scope = Literal["marketing", "utility", "authentication", "sms", "all"]


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
    sent_by: str
    sms_fallback_text: str


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
    sent_by: str | None = None,
    sms_fallback_text: str | None = None,
    idempotency_key: str | None = None,
) -> Call[QueuedMessage]:
    """Queue a message: text, a template, or any other type with its content.

    Repeated with the same idempotency_key and values within three days it returns the message that is there,
    as it is now. Raises PolicyError where WhatsApp's rules forbid it now (get_send_options() tells what may
    go), InputError for values that make no sense, ApiError for a key that was used with other values.
    """
    body = as_json(
        given(
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
                "sent_by": sent_by,
                "sms_fallback_text": sms_fallback_text,
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
    body = as_json(messages)
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
        f"/messages/{as_part(message_id)}",
        read_as(MessageDetails),
    )


def cancel_message(message_id: UUID | str) -> Call[QueuedMessage]:
    """Take a pending message back; raises StateError once it was claimed, InputError where there is none."""
    return Call(
        "SELECT {s}.cancel_wa_message(%s::uuid)::text",
        (str(message_id),),
        "DELETE",
        f"/messages/{as_part(message_id)}",
        read_as(QueuedMessage),
    )


def get_send_options(phone: str, phone_number_id: str | None = None) -> Call[SendOptions]:
    """What may go where free text may not: when the window closed, and templates that may be sent now."""
    return Call(
        "SELECT {s}.get_wa_send_options(%s, %s)::text",
        (phone, phone_number_id),
        "GET",
        f"/conversations/{as_part(phone)}/send-options",
        read_as(SendOptions),
        query=given({"phone_number_id": phone_number_id}),
    )


def search_conversations(
    search: str | None = None,
    *,
    state: Literal["active", "waiting", "completed", "expired"] | None = None,
    is_unread: bool | None = None,
    phone_number_id: str | None = None,
    closing_within_minutes: int | None = None,
    assigned_to: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Call[Page[Conversation]]:
    """Conversations, that with the latest message first, at most 200 a page.

    search is a number, a part of one, a name, or words of a message. assigned_to is who looks after it, the
    empty text nobody.
    """
    closing = None if closing_within_minutes is None else timedelta(minutes=closing_within_minutes)
    return Call(
        "SELECT {s}.search_wa_conversations(%s, %s, %s, %s, %s, %s, %s, %s)::text",
        (search, state, is_unread, phone_number_id, closing, limit, cursor, assigned_to),
        "GET",
        "/conversations",
        read_page("conversations", Conversation),
        query=given(
            {
                "search": search,
                "state": state,
                "unread": is_unread,
                "phone_number_id": phone_number_id,
                "closing_within_minutes": closing_within_minutes,
                "assigned_to": assigned_to,
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
        f"/conversations/{as_part(phone)}",
        results.read_thread,
        query=given({"limit": limit, "cursor": cursor, "phone_number_id": phone_number_id}),
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
        query=given({"approval_status": approval_status, "name": name, "limit": limit, "cursor": cursor}),
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
    body = as_json(
        given(
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
        query=given({"limit": limit, "cursor": cursor}),
    )


def get_consent(phone: str) -> Call[Consent]:
    """Whether somebody asked not to be written to, since when and why."""
    return Call(
        "SELECT {s}.get_wa_consent(%s)::text",
        (phone,),
        "GET",
        f"/opt-outs/{as_part(phone)}",
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
        body=as_json(given({"phone": phone, "scope": scope, "reason": reason})),
    )


def opt_in_contact(phone: str, scope: Scope = "marketing") -> Call[bool]:
    """Record a new consent, which lifts the opt-outs of its scope; whether there was one."""
    return Call(
        "SELECT to_jsonb({s}.opt_in_wa_contact(%s, %s, 'api'))::text",
        (phone, scope),
        "DELETE",
        f"/opt-outs/{as_part(phone)}",
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
        body=as_json(
            {
                "message_id" if media_id is None else "media_id": file,
                "max_access": max_access,
                "ttl_minutes": ttl_minutes,
            }
        ),
    )


def normalize_phone_e164(phone: str, *, region: str | None = None, area_code: str | None = None) -> Call[str]:
    """A phone number in E.164; raises InputError for what is none.

    National forms are read by the region given (ISO 3166), else by the organization's.
    """
    return _normalize(phone, region, area_code, is_strict=True)


def try_normalize_phone_e164(
    phone: str, *, region: str | None = None, area_code: str | None = None
) -> Call[str | None]:
    """As normalize_phone_e164(), with None for what is no phone number."""
    return _normalize(phone, region, area_code, is_strict=False)


def _normalize(phone: str, region: str | None, area_code: str | None, *, is_strict: bool) -> Call[Any]:
    asked = given({"phone": phone, "region": region, "area_code": area_code})
    if not is_strict:
        asked["or_null"] = True
    return Call(
        "SELECT {s}.read_wa_phone_number(%s, %s, %s, %s)::text",
        (phone, region, area_code, not is_strict),
        "POST",
        "/normalize-phone",
        _phone,
        body=as_json(asked),
    )


def _phone(value: Any) -> Any:
    return value["phone"]


def _changed(value: Any) -> bool:
    return bool(value["changed"] if isinstance(value, dict) else value)
