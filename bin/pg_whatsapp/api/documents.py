"""What the OpenAPI document says of operations: answers, problems, scopes, examples."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from pg_whatsapp.api.models import ProblemDocument
from pg_whatsapp.api.problems import MEDIA_TYPE, TYPE

#: What may be asked with which key; the database checks.
SCOPES = {
    "send": "queue, cancel and mark messages",
    "read": "read messages, conversations, templates and consent",
    "media": "files and links to them",
    "templates": "drafts, synchronisation, submission",
    "metrics": "figures for monitors",
    "admin": "consent, and what drives the processes",
}
_EXAMPLES = {
    400: ("json", "the body is no JSON"),
    401: ("WA601", "the API key is unknown"),
    403: ("WA602", "the API key has not the scope send"),
    404: ("P0002", "no message with that id"),
    409: ("WA101", "more than 24 hours since the customer's last message: only templates may be sent"),
    413: ("size", "the body is larger than 16 MiB"),
    422: ("22023", "limit must be 1 to 500, not 0"),
    429: ("too-many-requests", "the key has used up its requests of this minute"),
    500: ("XX000", "an error that was not foreseen"),
    501: ("not-implemented", "payment links are not there yet"),
    503: ("no-connection", "no connection to the database in time"),
}
EVERYWHERE = (400, 401, 403, 413, 422, 429, 500, 503)


def problem(status: int) -> dict[str, Any]:
    """An answer that is a problem document, with an example."""
    code, detail = _EXAMPLES[status]
    example = {"type": TYPE + code, "title": "…", "status": status, "code": code, "detail": detail}
    return {
        "model": ProblemDocument,
        "description": detail,
        "content": {MEDIA_TYPE: {"example": example}},
    }


def operation(
    scope: str | None,
    answer: type[BaseModel] | None,
    *more: int,
    status: int = 200,
    description: str = "Done.",
) -> dict[str, Any]:
    """Arguments of a route: its answer, the problems that it may have, and the scope that it needs."""
    statuses = sorted({*(EVERYWHERE if scope else ()), *more})
    responses: dict[int | str, dict[str, Any]] = {one: problem(one) for one in statuses}
    if status not in statuses:
        responses[status] = {"description": description} | ({"model": answer} if answer else {})
    arguments: dict[str, Any] = {"responses": responses, "status_code": status, "response_model": None}
    if scope:
        arguments["openapi_extra"] = {"security": [{"bearer": []}, {"apikey": []}], "x-scope": scope}
    return arguments


def finish(document: dict[str, Any]) -> dict[str, Any]:
    """The document with what FastAPI does not know: how keys are sent, what a problem's body is called."""
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, or a JWT where one is configured.",
        },
        "apikey": {"type": "apiKey", "in": "header", "name": "apikey"},
    }
    for path in document["paths"].values():
        for one in path.values():
            for status, response in one["responses"].items():
                content = response.get("content", {})
                # FastAPI puts a model's schema under the type of the operation's success.
                if int(status) >= 400:
                    for other in content.keys() - {MEDIA_TYPE}:
                        del content[other]
                    content[MEDIA_TYPE]["schema"] = {"$ref": "#/components/schemas/ProblemDocument"}
    return document
