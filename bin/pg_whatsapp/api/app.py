"""The application: its operations, and how everything that goes wrong becomes a problem document."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.routing import compile_path

from pg_whatsapp import __version__, exposition, log
from pg_whatsapp.api import documents, event_routes, flow_routes, host_routes, page, provider_routes, routes
from pg_whatsapp.api.bodies import LONGEST_NAME, Route
from pg_whatsapp.api.documents import operation
from pg_whatsapp.api.problems import Problem
from pg_whatsapp.api.service import Service

PREFIX = "/api/whatsapp"
MOST_ERRORS = 20
# Ten thousand messages with a kilobyte each.
LARGEST_BODY = 16 * 1024 * 1024
#: Below the prefix.
OURS = (routes.router, provider_routes.router, event_routes.router, flow_routes.router)
_LINK = compile_path(PREFIX + "/media/{media_id}")[0]
_logger = log.get("api")


def make_app(service: Service) -> FastAPI:
    """The ASGI application over a service."""
    app = FastAPI(
        title="pg_whatsapp",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        max_body_size=LARGEST_BODY,
    )
    app.state.service = service
    for router in OURS:
        app.include_router(router, prefix=PREFIX)
    app.include_router(host_routes.router)
    for kind in (Problem, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _failed)
    app.router.add_api_route(
        exposition.PATH,
        routes.expose_metrics,
        methods=["GET"],
        route_class_override=Route,
        tags=["processes"],
        response_class=PlainTextResponse,
        **operation("metrics", None, description="Text format of Prometheus."),
    )
    document = orjson.dumps(describe(app))

    async def openapi(_request: Request) -> Response:
        return Response(document, media_type="application/json")

    app.add_route(f"{PREFIX}/openapi.json", openapi, include_in_schema=False)
    app.router.routes.extend(page.routes(PREFIX))
    return app


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application."""
    return documents.finish(
        get_openapi(
            title=app.title,
            version=app.version,
            openapi_version="3.1.0",
            summary="WhatsApp messages from a PostgreSQL database",
            routes=app.routes,
        )
    )


async def _failed(request: Request, error: Exception) -> Response:
    """Whatever went wrong as a problem document."""
    if isinstance(error, Problem):
        problem = error
    elif isinstance(error, RequestValidationError):
        problem = _wrong_request(error)
    elif isinstance(error, HTTPException):
        problem = _wrong_path(request, error)
    else:
        _logger.error("unforeseen error", path=_route(request), **log.describe(error))
        problem = Problem(500, "unforeseen", "an error that was not foreseen")
    if request.url.path.startswith(host_routes.PREFIX):
        return host_routes.problem_response(problem)
    return problem.response()


def _wrong_request(error: RequestValidationError) -> Problem:
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return Problem(400, "json", "the body is no JSON")
    wrong = [{"field": _field(one["loc"]), "message": _words(one)} for one in found[:MOST_ERRORS]]
    return Problem(
        422,
        "request",
        f"{wrong[0]['field']}: {wrong[0]['message']}",
        f"{PREFIX}/openapi.json describes what a request may hold.",
        more={"errors": wrong},
    )


def _field(place: Any) -> str:
    return (".".join(str(part) for part in place[1:]) or str(place[0]))[:LONGEST_NAME]


def _words(one: Any) -> str:
    """What is wrong with a field. Checks of our own would quote the value."""
    if one["type"] == "extra_forbidden":
        return "there is no such field"
    if one["type"] == "model_attributes_type" and len(one["loc"]) == 1:
        # What curl -d sends by itself is said to be a form.
        return "not a JSON object that was sent as Content-Type: application/json"
    return "not a valid value" if one["type"] == "value_error" else str(one["msg"])[:200]


def _wrong_path(request: Request, error: HTTPException) -> Problem:
    if error.status_code == 413:
        return too_large()
    code, words = {
        404: ("path", "there is nothing at this path"),
        405: ("method", "this path does not take the method"),
    }.get(error.status_code, ("http", "the request cannot be served"))
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # The router knows the methods of one of them only.
        headers = {"allow": ", ".join(sorted(_methods_at(request)))}
    return Problem(error.status_code, code, words, headers=headers)


def too_large() -> Problem:
    """The problem with a body that is larger than LARGEST_BODY."""
    return Problem(413, "size", f"the body is larger than {LARGEST_BODY // 1024**2} MiB")


def _methods_at(request: Request) -> set[str]:
    """The documented methods at a request's path; an operation without parameters goes before others."""
    found = [
        ("{" in route.path, route.methods or set())
        for router in (*OURS, host_routes.router)
        for route in router.routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for prefix in ("", PREFIX)
        if compile_path(prefix + route.path)[0].match(request.url.path)
    ]
    if _LINK.match(request.url.path):
        # Served by media_http, before the application.
        found.append((True, {"GET", "HEAD"}))
    least = min((has_parameters for has_parameters, _ in found), default=False)
    return set().union(*(methods for has_parameters, methods in found if has_parameters == least))


def _route(request: Request) -> str:
    """The path with names in place of values: a phone number may stand in it."""
    return str(getattr(request.scope.get("route"), "path", "unknown"))
