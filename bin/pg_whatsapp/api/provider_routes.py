"""Operations for which the provider is called in the end: marking as read, templates; and files of yours."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from pg_whatsapp.api import models
from pg_whatsapp.api import provider_models as told
from pg_whatsapp.api.bodies import Route
from pg_whatsapp.api.documents import operation
from pg_whatsapp.api.routes import answer, service_of
from pg_whatsapp.media_types import HEAD, found_type, likely_type

router = APIRouter(route_class=Route)
#: Where a call is looked at.
CALLS = "/api/whatsapp/provider-calls"
UNSAID = "application/octet-stream"
# What curl says of any bytes by itself is as good as nothing.
_UNSAID = (UNSAID, "application/x-www-form-urlencoded")


@router.post("/conversations/{phone}/read", tags=["conversations"], **operation("send", told.MarkedRead, 404))
async def mark_read(request: Request, phone: models.PhonePath, wish: told.ReadWish | None = None) -> Response:
    """Mark a conversation as read: here at once, soon on the customer's phone, where typing may be shown."""
    wish = wish or told.ReadWish.model_validate({})
    done = await service_of(request).call(
        request,
        "send",
        "SELECT jsonb_build_object('conversation_id', r.conversation_id, 'phone_number_id',"
        " r.phone_number_id, 'marked', r.marked, 'call_id', r.call_id)::text"
        " FROM mark_wa_read(%s, %s, %s) r",
        phone,
        wish.typing,
        wish.phone_number_id,
    )
    return answer(request, done)


@router.post("/conversations/{phone}/assign", tags=["conversations"], **operation("send", told.Assigned, 404))
async def assign_conversation(
    request: Request, phone: models.PhonePath, assignment: told.Assignment
) -> Response:
    """Say which user looks after a conversation."""
    done = await service_of(request).call(
        request,
        "send",
        "SELECT jsonb_build_object('conversation_id', r.conversation_id, 'phone_number_id',"
        " r.phone_number_id, 'former', r.former)::text FROM assign_wa_conversation(%s, %s, %s) r",
        phone,
        assignment.user,
        assignment.phone_number_id,
    )
    return answer(request, done)


@router.post(
    "/templates/sync",
    tags=["templates"],
    **operation("templates", told.ProviderCalls, status=202, description="Asked for."),
)
async def sync_templates(request: Request, wish: told.TemplateSyncWish | None = None) -> Response:
    """Have dispatchers fetch the templates that Meta has; each account is a call to be looked at later."""
    done = await service_of(request).call(
        request,
        "templates",
        "SELECT jsonb_build_object('calls', jsonb_agg(get_wa_provider_call(r.call_id)))::text"
        " FROM request_wa_template_sync(%s) r",
        wish.waba_id if wish else None,
    )
    return _accepted(request, done)


@router.post(
    "/templates/submit",
    tags=["templates"],
    **operation("templates", told.ProviderCalls, 409, status=202, description="Asked for."),
)
async def submit_templates(request: Request, wish: told.TemplateSubmissionWish | None = None) -> Response:
    """Have dispatchers hand drafts to Meta's review; each account is a call to be looked at later."""
    wish = wish or told.TemplateSubmissionWish.model_validate({})
    done = await service_of(request).call(
        request,
        "templates",
        "SELECT jsonb_build_object('calls', jsonb_agg(get_wa_provider_call(r.call_id)))::text"
        " FROM request_wa_template_submission(%s, %s) r",
        wish.name,
        wish.language,
    )
    return _accepted(request, done)


def _accepted(request: Request, done: bytes) -> Response:
    """202, with where the outcome is, if there is one call alone."""
    response = answer(request, done, 202)
    calls = orjson.loads(done)["calls"]
    if len(calls) == 1:
        response.headers["location"] = f"{CALLS}/{calls[0]['id']}"
    return response


@router.get("/provider-calls/{call_id}", tags=["processes"], **operation("read", told.ProviderCall, 404))
async def get_provider_call(request: Request, call_id: UUID) -> Response:
    """What became of a call of the provider; kept for a week after its end."""
    done = await service_of(request).call(request, "read", "SELECT get_wa_provider_call(%s)::text", call_id)
    return answer(request, done)


@router.post("/media", tags=["media"], **operation("media", told.KeptFile, status=201, more=told.FILE_BODY))
async def keep_file(
    request: Request,
    filename: Annotated[str | None, Query(max_length=240, description="As the customer sees it.")] = None,
) -> Response:
    """Keep a file, the body of the request, to be sent: its type is Content-Type, else what its bytes tell.

    The same bytes, type and name give the same id. Up to 16 MiB; bin/wa media upload takes larger ones.
    """
    service = service_of(request)
    content = await request.body()
    kind = request.headers.get("content-type") or UNSAID
    if kind.partition(";")[0].strip().lower() in _UNSAID:
        kind = likely_type(found_type(content[:HEAD]), filename) or UNSAID
    done = await service.call(
        request,
        "media",
        "SELECT jsonb_build_object('id', create_wa_media(%b, %s, %s))::text",
        content,
        kind,
        filename,
    )
    return answer(request, done, 201)


@router.delete("/media/{media_id}", tags=["media"], **operation("media", told.DeletedFile, 404))
async def delete_file(request: Request, media_id: UUID) -> Response:
    """Delete a file: its links open nothing from now on."""
    done = await service_of(request).call(
        request,
        "media",
        "SELECT jsonb_build_object('id', %s::uuid, 'former_status', delete_wa_media(%s))::text",
        media_id,
        media_id,
    )
    return answer(request, done)
