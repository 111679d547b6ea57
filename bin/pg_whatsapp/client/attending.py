"""What the client can do about what comes in, and what the provider is called for beside sending."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pg_whatsapp.client.call import Call, as_json, as_part, given
from pg_whatsapp.client.results import Assigned, Events, MarkedRead, ProviderCall, read_as


def mark_read(phone: str, *, typing: bool = False, phone_number_id: str | None = None) -> Call[MarkedRead]:
    """Mark a conversation as read: here at once, on the customer's phone once a dispatcher has told Meta.

    With typing the customer sees for 25 seconds, or until a message comes, that somebody is typing. Without
    phone_number_id it is the newest conversation of the customer. Raises InputError for a stranger.
    """
    return Call(
        "SELECT jsonb_build_object('conversation_id', r.conversation_id, 'phone_number_id',"
        " r.phone_number_id, 'marked', r.marked, 'call_id', r.call_id)::text"
        " FROM {s}.mark_wa_read(%s, %s, %s) r",
        (phone, typing, phone_number_id),
        "POST",
        f"/conversations/{as_part(phone)}/read",
        read_as(MarkedRead),
        body=as_json(given({"typing": typing, "phone_number_id": phone_number_id})),
    )


def assign_conversation(
    phone: str, user: str | None, *, phone_number_id: str | None = None
) -> Call[Assigned]:
    """Say which user looks after a conversation, in words of your own; None: nobody."""
    return Call(
        "SELECT jsonb_build_object('conversation_id', r.conversation_id, 'phone_number_id',"
        " r.phone_number_id, 'former', r.former)::text"
        " FROM {s}.assign_wa_conversation(%s, %s, %s) r",
        (phone, user, phone_number_id),
        "POST",
        f"/conversations/{as_part(phone)}/assign",
        read_as(Assigned),
        body=as_json({"user": user} | given({"phone_number_id": phone_number_id})),
    )


def get_events(consumer: str, *, limit: int = 100) -> Call[Events]:
    """New messages, statuses and assignments after what a consumer has acknowledged, at most 1,000.

    Any name will do for a consumer; each gets all events once. The same come again until ack_events().
    """
    return Call(
        "SELECT {s}.get_wa_events(%s, %s)::text",
        (consumer, limit),
        "GET",
        f"/events/{as_part(consumer)}",
        read_as(Events),
        query={"limit": limit},
    )


def ack_events(consumer: str, position: int) -> Call[int]:
    """Say that all events up to a position are dealt with; what is acknowledged now. It never moves back."""
    return Call(
        "SELECT to_jsonb({s}.ack_wa_events(%s, %s))::text",
        (consumer, position),
        "POST",
        f"/events/{as_part(consumer)}/ack",
        _position,
        body=as_json({"position": position}),
    )


def request_template_sync(waba_id: str | None = None) -> Call[list[UUID]]:
    """Have dispatchers fetch the templates of an account, or of each; what get_provider_call() shows."""
    return Call(
        "SELECT jsonb_agg(jsonb_build_object('id', r.call_id))::text FROM {s}.request_wa_template_sync(%s) r",
        (waba_id,),
        "POST",
        "/templates/sync",
        _call_ids,
        body=as_json(given({"waba_id": waba_id})),
    )


def request_template_submission(name: str | None = None, language: str | None = None) -> Call[list[UUID]]:
    """Have dispatchers hand a template, or all drafts, to Meta's review; what get_provider_call() shows.

    Raises StateError where there is nothing to submit.
    """
    return Call(
        "SELECT jsonb_agg(jsonb_build_object('id', r.call_id))::text"
        " FROM {s}.request_wa_template_submission(%s, %s) r",
        (name, language),
        "POST",
        "/templates/submit",
        _call_ids,
        body=as_json(given({"name": name, "language": language})),
    )


def get_provider_call(call_id: UUID | str) -> Call[ProviderCall]:
    """What became of a call of the provider; InputError (P0002) where there is none, or not any more."""
    return Call(
        "SELECT {s}.get_wa_provider_call(%s::uuid)::text",
        (str(call_id),),
        "GET",
        f"/provider-calls/{as_part(call_id)}",
        read_as(ProviderCall),
    )


def _position(value: Any) -> int:
    return int(value["position"] if isinstance(value, dict) else value)


def _call_ids(value: Any) -> list[UUID]:
    return [UUID(call["id"]) for call in (value["calls"] if isinstance(value, dict) else value)]
