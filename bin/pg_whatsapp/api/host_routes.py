"""The paths under which some hosts call their own functions, with the CORS headers that they expect."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from pg_whatsapp.api import models, routes
from pg_whatsapp.api.bodies import Route
from pg_whatsapp.api.documents import operation
from pg_whatsapp.api.problems import Problem

PREFIX = "/functions/v1"
router = APIRouter(prefix=PREFIX, tags=["hosts"], route_class=Route)
_CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-headers": "authorization, x-client-info, apikey, content-type",
}


def problem_response(problem: Problem) -> Response:
    """A problem with the field in which these hosts look for it."""
    problem.more |= {"error": problem.detail}
    problem.headers |= _CORS
    return problem.response()


@router.options("/{name}", include_in_schema=False)
async def preflight(name: str) -> Response:
    """What a browser asks first."""
    return Response(status_code=200, headers=_CORS)


@router.post("/queue-whatsapp", **operation("send", models.HostBatch, 409))
async def queue_whatsapp(request: Request, recipients: models.Recipients) -> Response:
    """The same as POST /api/whatsapp/queue."""
    response = await routes.queue(request, recipients)
    response.headers.update(_CORS)
    return response


@router.post("/process-whatsapp-queue", **operation("admin", models.Processed))
async def process_whatsapp_queue(request: Request) -> Response:
    """The same as POST /api/whatsapp/process-queue."""
    response = await routes.process_queue(request)
    response.headers.update(_CORS)
    return response
