"""What the OpenAPI document says of operations: answers, problems, scopes, examples."""

from __future__ import annotations

from typing import Any

from pg_whatsapp.api.models import ProblemDocument
from pg_whatsapp.api.problems import MEDIA_TYPE, TYPE

#: What may be asked with which key; the database checks.
SCOPES = {
    "send": "queue and cancel messages, mark conversations as read and assign them",
    "read": "read messages, conversations, events, templates and consent",
    "media": "files and links to them",
    "templates": "drafts, synchronisation, submission",
    "metrics": "figures for monitors",
    "admin": "consent, where events are pushed to, and what drives the processes",
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


_TOLD = {"text/plain": {"schema": {"type": "string"}}}
_FILE = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
#: GET and HEAD of a link to a file, which media_http serves before the application.
LINK: dict[str, Any] = {
    "tags": ["media"],
    "summary": "Open Media Link",
    "description": "The file of a link, to whoever brings its token; with ranges and ETag.",
    "parameters": [
        {"name": "media_id", "in": "path", "required": True, "schema": {"type": "string"}},
        {"name": "token", "in": "query", "required": True, "schema": {"type": "string"}},
    ],
    "responses": {
        "200": {"description": "All of it.", "content": _FILE},
        "206": {"description": "The part that Range asks for.", "content": _FILE},
        "304": {"description": "The one that If-None-Match names."},
        "404": {"description": "no such link", "content": _TOLD},
        "410": {"description": "expired, used up, or deleted", "content": _TOLD},
        "416": {"description": "no such part", "content": _TOLD},
        "503": {"description": "not here yet", "content": _TOLD},
    },
}


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
    answer: type | None,
    *problems: int,
    status: int = 200,
    description: str = "Done.",
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Arguments of a route: its answer, the problems that it may have, and the scope that it needs.

    more goes into the operation's document.
    """
    statuses = sorted({*(EVERYWHERE if scope else ()), *problems})
    responses: dict[int | str, dict[str, Any]] = {one: problem(one) for one in statuses}
    if status not in statuses:
        responses[status] = {"description": description} | ({"model": answer} if answer else {})
    arguments: dict[str, Any] = {"responses": responses, "status_code": status, "response_model": None}
    if scope:
        arguments["openapi_extra"] = {"security": [{"bearer": []}, {"apikey": []}], "x-scope": scope}
        arguments["openapi_extra"] |= more or {}
    return arguments


# Of fields whose form their schema does not tell; others are said to be "…".
_SAMPLES = {
    "phone": "+15551234567",
    "phone_e164": "+15551234567",
    "recipient": "+15551234567",
    "recipient_phone": "+15551234567",
    "phone_number_id": "106540352242922",
    "waba_id": "102290129340398",
    "wa_message_id": "wamid.HBgLMTU1NTEyMzQ1Njc",
    "url": "https://shop.example.com/whatsapp",
    "language": "en",
    "template_language": "en",
    "category": "UTILITY",
    "status": "pending",
    "type": "text",
    "scope": "all",
    "text": "Hello!",
    "body_text": "Hello {{1}}, your order {{2}} is ready.",
}


def _sample(schema: dict[str, Any], schemas: dict[str, Any], name: str = "") -> Any:
    """A value of a schema, as an example."""
    if "$ref" in schema:
        return _sample(schemas[schema["$ref"].rpartition("/")[2]], schemas, name)
    if "anyOf" in schema:
        return _sample(schema["anyOf"][0], schemas, name)
    if "enum" in schema or "const" in schema:
        return schema.get("const", next(iter(schema.get("enum", [])), None))
    kind = schema.get("type")
    if kind == "object":
        return {field: _sample(one, schemas, field) for field, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [_sample(schema.get("items", {}), schemas, name)] if schema.get("items") else []
    plain = {"integer": 1, "number": 1, "boolean": True, None: _SAMPLES.get(name)}
    if kind != "string":
        return plain[kind]
    forms = {"date-time": "2027-03-14T10:00:00+00:00", "uuid": "0190a1b2-0000-7000-8000-000000000001"}
    return forms.get(schema.get("format", "")) or _SAMPLES.get(name, "…")


def finish(document: dict[str, Any]) -> dict[str, Any]:
    """The document with what FastAPI does not know: how keys are sent, what a problem's body is called.

    And an example of what each operation answers.
    """
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
                for told in content.values():
                    if told.get("schema", {}).get("$ref"):
                        told.setdefault("example", _sample(told["schema"], components["schemas"]))
    for path, operations in document["paths"].items():
        if path.endswith("/media/{media_id}"):
            operations |= {
                method: LINK | {"operationId": f"{method}_media_link"} for method in ("get", "head")
            }
    return document
