"""Operations on flows: starting, looking at and steering their runs, storing and trying definitions."""

from __future__ import annotations

import json
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from pg_whatsapp.api import flow_models as told
from pg_whatsapp.api.bodies import Route
from pg_whatsapp.api.documents import operation
from pg_whatsapp.api.routes import Cursor, answer, service_of

router = APIRouter(route_class=Route, tags=["automation"])


@router.get("/flows", **operation("read", told.FlowRuns))
async def list_flows(
    request: Request,
    flow: Annotated[str | None, Query(max_length=100)] = None,
    status: told.Status | None = None,
    phone: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Cursor = None,
) -> Response:
    """Runs of flows, the newest first; at most 200 a page."""
    done = await service_of(request).call(
        request,
        "read",
        "SELECT list_wa_flow_runs(%s, %s, %s, %s, %s)::text",
        flow,
        status,
        phone,
        limit,
        cursor,
    )
    return answer(request, done)


@router.post("/flows", **operation("send", told.FlowRun, 404, 409, status=201))
async def start_flow(request: Request, wish: told.FlowStart) -> Response:
    """Start a flow for a customer; a run that is there, under the key or for the customer, comes back."""
    done = await service_of(request).call(
        request,
        "send",
        "SELECT start_wa_flow_run(%s, %s, %s::jsonb, %s)::text",
        wish.flow,
        wish.phone,
        json.dumps(wish.context),
        wish.key,
    )
    return answer(request, done, 201)


@router.post("/flow-previews", **operation("read", told.PreviewedFlow, 404))
async def preview_flow(request: Request, wish: told.FlowPreview) -> Response:
    """What a flow would send and when, which branches it would take and why, and what it costs."""
    done = await service_of(request).call(
        request,
        "read",
        "SELECT jsonb_build_object('steps', jsonb_agg(to_jsonb(p) ORDER BY p.n))::text"
        " FROM preview_wa_flow(%s, %s::jsonb, %s, %s::jsonb) p",
        wish.flow,
        json.dumps(wish.context),
        wish.phone,
        json.dumps(wish.events),
    )
    return answer(request, done)


@router.get("/flows/{flow_id}", **operation("read", told.FlowRunWhole, 404))
async def get_flow(request: Request, flow_id: UUID) -> Response:
    """A run with what it did, and what it waits for."""
    done = await service_of(request).call(request, "read", "SELECT get_wa_flow_run(%s)::text", flow_id)
    return answer(request, done)


@router.post("/flows/{flow_id}/actions", **operation("send", told.FlowRunWhole, 404, 409))
async def steer_flow(request: Request, flow_id: UUID, wish: told.FlowAction) -> Response:
    """Pause, resume, cancel or advance a run; what it has waiting in the queue goes with it."""
    done = await service_of(request).call(
        request,
        "send",
        "SELECT steer_wa_flow_run(%s, %s, %s, %s)::text",
        flow_id,
        wish.action,
        wish.step,
        wish.reason,
    )
    return answer(request, done)


@router.get("/flow-definitions", **operation("read", told.StoredFlows))
async def list_definitions(request: Request) -> Response:
    """The flows that there are: of each the active version, or the newest."""
    done = await service_of(request).call(request, "read", "SELECT list_wa_flow_definitions()::text")
    return answer(request, done)


@router.post("/flow-definitions", **operation("admin", told.StoredFlow, 409, status=201))
async def store_definition(request: Request, wish: told.FlowDefinition) -> Response:
    """Add a version of a flow; it is a draft while a template of it is not approved."""
    done = await service_of(request).call(
        request,
        "admin",
        "SELECT store_wa_flow_definition(%s::jsonb, %s)::text",
        json.dumps(wish.definition),
        wish.activate,
    )
    return answer(request, done, 201)


@router.post("/flow-events", **operation("send", told.FlowEventTaken))
async def add_event(request: Request, event: told.FlowEvent) -> Response:
    """Tell flows of something that happened at the host; it may start some."""
    done = await service_of(request).call(
        request,
        "send",
        "SELECT jsonb_build_object('id', add_wa_flow_event(%s, %s, %s, %s::jsonb, %s))::text",
        event.name,
        event.key,
        event.phone,
        json.dumps(event.data),
        event.event_id,
    )
    return answer(request, done)


@router.post("/process-flows", **operation("admin", told.ProcessedFlows))
async def process_flows(request: Request, batch_size: Annotated[int, Query(ge=1, le=5000)] = 10) -> Response:
    """Carry out the steps of up to so many flows that are due; dispatchers do it by themselves."""
    done = await service_of(request).call(
        request, "admin", "SELECT jsonb_build_object('processed', process_wa_flows(%s))::text", batch_size
    )
    return answer(request, done)
