"""A page that shows the OpenAPI document, by Swagger UI from a pinned package."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

# Nothing is loaded from elsewhere; Swagger UI sets styles of elements by itself.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)
_SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": _POLICY,
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>pg_whatsapp: HTTP API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
    url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null, persistAuthorization: false
});
"""
_ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


def routes(prefix: str) -> list[Route]:
    """The page below a prefix, and what it loads."""
    package = files("fastapi_offline") / "static"
    loaded = {name: ((package / name).read_bytes(), kind) for name, kind in _ASSETS.items()}
    loaded["start.js"] = (_START.encode(), "text/javascript")

    async def page(_request: Request) -> Response:
        return HTMLResponse(_PAGE, headers=_SAFE)

    async def asset(request: Request) -> Response:
        found = loaded.get(request.path_params["name"])
        if found is None:
            return Response(status_code=404)
        body, kind = found
        return Response(body, headers=_SAFE | {"cache-control": "max-age=3600"}, media_type=kind)

    return [
        Route(f"{prefix}/docs", page, methods=["GET"], include_in_schema=False),
        Route(f"{prefix}/docs/{{name}}", asset, methods=["GET"], include_in_schema=False),
    ]
