"""The operations under /api/whatsapp: each is one call of an SQL function."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Header, Query, Request
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pg_whatsapp import exposition
from pg_whatsapp.api import models
from pg_whatsapp.api.bodies import Route
from pg_whatsapp.api.documents import operation
from pg_whatsapp.api.problems import Problem
from pg_whatsapp.api.service import Service

router = APIRouter(route_class=Route)
MOST_IN_A_BATCH = 10_000
# Ten thousand take some ten seconds, on a busy machine a minute.
BATCH_S = 120.0
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="A repetition with the same key and body does nothing more, and shows how it stands now.",
    ),
]
Cursor = Annotated[str | None, Query(description="next of the page before.", max_length=2000)]


def service_of(request: Request) -> Service:
    """The service of the application that serves a request."""
    service: Service = request.app.state.service
    return service


def answer(request: Request, body: bytes, status: int = 200) -> Response:
    """JSON that the database made, as an answer that no cache keeps."""
    headers = {
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    headers |= getattr(request.state, "headers", {})
    return Response(body, status, headers, media_type="application/json")


@router.post("/send", tags=["messages"], **operation("send", models.QueuedMessage, 409))
async def send(request: Request, message: models.Message, idempotency_key: IdempotencyKey = None) -> Response:
    """Queue a message.

    Text goes while the 24-hour window is open; else the answer is 409 with the time at which it closed and
    the templates that may be sent.
    """
    service = service_of(request)
    body = message.model_dump_json(exclude_unset=True)
    try:
        done = await service.call(
            request, "send", "SELECT send_wa_message(%s::jsonb, %s)::text", body, idempotency_key
        )
    except Problem as problem:
        if problem.code == "WA101":
            options = await service.call(
                request,
                "send",
                "SELECT get_wa_send_options(%s, %s)::text",
                message.phone,
                message.phone_number_id,
            )
            problem.more |= orjson.loads(options)
        raise
    return answer(request, done)


@router.post("/messages/batch", tags=["messages"], **operation("send", models.Batch, 409))
async def send_batch(
    request: Request,
    messages: Annotated[
        list[Any], Field(min_length=1, max_length=MOST_IN_A_BATCH, examples=[models.BATCH_EXAMPLE])
    ],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Queue up to 10,000 messages, each as for /send, with a verdict for each in their order."""
    done = await service_of(request).call(
        request,
        "send",
        "SELECT send_wa_messages(%s::jsonb, %s)::text",
        # Not by orjson, which takes no number of more than 64 bits.
        json.dumps(messages),
        idempotency_key,
        timeout_s=BATCH_S,
    )
    return answer(request, done)


@router.api_route("/messages/batch", methods=["GET", "PUT", "PATCH", "DELETE"], include_in_schema=False)
async def no_batch(_request: Request) -> Response:
    """Not a message whose id is "batch"."""
    raise HTTPException(405)


@router.get("/messages/{message_id}", tags=["messages"], **operation("read", models.MessageDetails, 404))
async def get_message(request: Request, message_id: str) -> Response:
    """A message with its history and why it has not gone, by its id in the queue or in the ledger."""
    done = await service_of(request).call(request, "read", "SELECT get_wa_message(%s)::text", message_id)
    return answer(request, done)


@router.delete(
    "/messages/{message_id}", tags=["messages"], **operation("send", models.QueuedMessage, 404, 409)
)
async def cancel_message(request: Request, message_id: UUID) -> Response:
    """Take a pending message back; 409 once it was claimed."""
    done = await service_of(request).call(request, "send", "SELECT cancel_wa_message(%s)::text", message_id)
    return answer(request, done)


@router.post("/queue", tags=["messages"], **operation("send", models.HostBatch, 409))
async def queue(
    request: Request, recipients: models.Recipients, idempotency_key: IdempotencyKey = None
) -> Response:
    """Queue a template to each of many recipients; a bad one stops no other."""
    done = await service_of(request).call(
        request,
        "send",
        "SELECT queue_wa_recipients(%s::jsonb, %s)::text",
        recipients.model_dump_json(exclude_unset=True),
        idempotency_key,
        timeout_s=BATCH_S,
    )
    return answer(request, done)


@router.post("/process-queue", tags=["processes"], **operation("admin", models.Processed))
async def process_queue(request: Request) -> Response:
    """Wake the dispatchers, which send by themselves, and say what they did in the last minute."""
    done = await service_of(request).call(request, "admin", "SELECT process_wa_queue()::text")
    return answer(request, done)


@router.get("/conversations", tags=["conversations"], **operation("read", models.Conversations))
async def list_conversations(
    request: Request,
    search: Annotated[
        str | None, Query(description="Number, name or words of a message.", max_length=200)
    ] = None,
    state: Literal["active", "waiting", "completed", "expired"] | None = None,
    unread: bool | None = None,
    phone_number_id: str | None = None,
    closing_within_minutes: Annotated[int | None, Query(ge=1, le=1440)] = None,
    assigned_to: Annotated[
        str | None, Query(description="Who looks after it; empty: nobody.", max_length=200)
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Cursor = None,
) -> Response:
    """Conversations, that with the latest message first; at most 200 a page."""
    done = await service_of(request).call(
        request,
        "read",
        "SELECT search_wa_conversations(%s, %s, %s, %s, %s, %s, %s, %s)::text",
        search,
        state,
        unread,
        phone_number_id,
        timedelta(minutes=closing_within_minutes) if closing_within_minutes else None,
        limit,
        cursor,
        assigned_to,
    )
    return answer(request, done)


@router.get("/conversations/{phone}", tags=["conversations"], **operation("read", models.Thread, 404))
async def get_conversation(
    request: Request,
    phone: models.PhonePath,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Cursor = None,
    phone_number_id: str | None = None,
) -> Response:
    """What was said with a customer, newest first; at most 500 messages a page."""
    done = await service_of(request).call(
        request,
        "read",
        "SELECT get_wa_conversation(%s, %s, %s, %s)::text",
        phone,
        limit,
        cursor,
        phone_number_id,
    )
    return answer(request, done)


@router.get(
    "/conversations/{phone}/send-options",
    tags=["conversations"],
    **operation("read", models.SendOptions, 404),
)
async def get_send_options(
    request: Request, phone: models.PhonePath, phone_number_id: str | None = None
) -> Response:
    """What may go to a customer when free text may not: when the window closed, up to 50 templates."""
    done = await service_of(request).call(
        request, "read", "SELECT get_wa_send_options(%s, %s)::text", phone, phone_number_id
    )
    return answer(request, done)


@router.post("/normalize-phone", tags=["conversations"], **operation("read", models.PhoneNumber))
async def normalize_phone(request: Request, number: models.PhoneText) -> Response:
    """A phone number in E.164; national forms are read by the region given, else by the organization's."""
    done = await service_of(request).call(
        request,
        "read",
        "SELECT read_wa_phone_number(%s, %s, %s, %s)::text",
        number.phone,
        number.region,
        number.area_code,
        number.or_null,
    )
    return answer(request, done)


@router.post("/media-links", tags=["media"], **operation("media", models.MediaLink, 404, status=201))
async def create_media_link(request: Request, wish: models.MediaLinkWish) -> Response:
    """Make a link to the file of a message, or of a file by its own id, that opens so often and so long."""
    if (wish.message_id is None) == (wish.media_id is None):
        raise Problem(422, "request", "a link needs message_id or media_id, and not both")
    done = await service_of(request).call(
        request,
        "media",
        "SELECT to_jsonb(l)::text FROM create_wa_media_signature(message_id => %s::bigint,"
        " max_access => %s, ttl_minutes => %s) l"
        if wish.media_id is None
        else "SELECT to_jsonb(l)::text FROM create_wa_media_signature(media_id => %s::uuid,"
        " max_access => %s, ttl_minutes => %s) l",
        wish.message_id if wish.media_id is None else wish.media_id,
        wish.max_access,
        wish.ttl_minutes,
    )
    return answer(request, done, 201)


@router.get("/templates", tags=["templates"], **operation("read", models.Templates))
async def list_templates(
    request: Request,
    approval_status: Literal["pending", "approved", "rejected"] | None = None,
    name: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Cursor = None,
) -> Response:
    """Templates by name; at most 500 a page."""
    done = await service_of(request).call(
        request,
        "read",
        "SELECT list_wa_templates(%s, %s, %s, %s)::text",
        approval_status,
        name,
        limit,
        cursor,
    )
    return answer(request, done)


@router.post("/templates", tags=["templates"], **operation("templates", models.TemplateRow, 409, status=201))
async def create_template(
    request: Request, template: models.Template, idempotency_key: IdempotencyKey = None
) -> Response:
    """Make a draft, which /templates/submit hands to Meta's review."""
    done = await service_of(request).call(
        request,
        "templates",
        "SELECT create_wa_template(%s::jsonb, %s)::text",
        template.model_dump_json(exclude_unset=True),
        idempotency_key,
    )
    return answer(request, done, 201)


@router.get("/opt-outs", tags=["consent"], **operation("read", models.OptOuts))
async def list_opt_outs(
    request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100, cursor: Cursor = None
) -> Response:
    """Who asked not to be written to, the latest first; at most 1,000 a page."""
    done = await service_of(request).call(
        request, "read", "SELECT list_wa_opt_outs(%s, %s)::text", limit, cursor
    )
    return answer(request, done)


@router.post("/opt-outs", tags=["consent"], **operation("admin", models.Changed))
async def add_opt_out(request: Request, opt_out: models.OptOut) -> Response:
    """Record that somebody asked not to be written to; what is queued for them is cancelled."""
    done = await service_of(request).call(
        request,
        "admin",
        "SELECT jsonb_build_object('changed', opt_out_wa_contact(%s, %s, %s, 'api'))::text",
        opt_out.phone,
        opt_out.scope,
        opt_out.reason,
    )
    return answer(request, done)


@router.get("/opt-outs/{phone}", tags=["consent"], **operation("read", models.Consent, 404))
async def get_opt_out(request: Request, phone: models.PhonePath) -> Response:
    """Whether somebody asked not to be written to."""
    done = await service_of(request).call(request, "read", "SELECT get_wa_consent(%s)::text", phone)
    return answer(request, done)


@router.delete("/opt-outs/{phone}", tags=["consent"], **operation("admin", models.Changed, 404))
async def lift_opt_out(request: Request, phone: models.PhonePath, scope: models.Scope = "all") -> Response:
    """Record a new consent, which lifts the opt-outs of its scope."""
    done = await service_of(request).call(
        request,
        "admin",
        "SELECT jsonb_build_object('changed', opt_in_wa_contact(%s, %s, 'api'))::text",
        phone,
        scope,
    )
    return answer(request, done)


@router.get("/metrics", tags=["processes"], **operation("metrics", models.Metrics))
async def get_metrics(request: Request) -> Response:
    """How the organization stands: queue, messages by day, conversations, templates, opt-outs, webhooks."""
    done = await service_of(request).call(request, "metrics", "SELECT get_wa_metrics()::text")
    return answer(request, done)


async def expose_metrics(request: Request) -> Response:
    """The figures of wa_metrics that the key's role may see, as Prometheus scrapes them."""
    rows = await service_of(request).call(
        request, "metrics", "SELECT coalesce(jsonb_agg(to_jsonb(m)), '[]')::text FROM wa_metrics AS m"
    )
    return exposition.answer(
        (row["name"], row["help"], row["labels"], row["value"]) for row in orjson.loads(rows)
    )


@router.post("/payment-link", tags=["automation"], **operation(None, None, 501, status=501))
async def create_payment_link(_request: Request) -> Response:
    """Not there yet."""
    raise Problem(501, "not-implemented", "payment links are not there yet")
