"""Errors as RFC 9457 problem documents, and the one table from SQLSTATE to HTTP status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import psycopg
from starlette.exceptions import HTTPException
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
#: The type of a problem; with an SQLSTATE or a word of our own at its end. docs/errors.md lists them.
TYPE = "tag:pg-whatsapp,2026:"
RETRY_S = 5
# The longest beginning that fits decides.
_STATUS = {
    "WA0": 422,
    "WA031": 404,
    "WA040": 404,
    "WA1": 409,
    "WA2": 409,
    "WA3": 403,
    "WA4": 503,
    "WA5": 403,
    "WA601": 401,
    "WA602": 403,
    "WA603": 403,
    "WA605": 403,
    "WA606": 422,
    "WA607": 409,
    "WA621": 403,
    "WA622": 403,
    "WA7": 422,
    "WA702": 404,
    "WA703": 404,
    "WA8": 409,
    "08": 503,
    "0A": 422,
    "22": 422,
    "23": 422,
    "23505": 409,
    "40": 503,
    "42501": 403,
    "42704": 422,
    "42883": 503,
    "42P01": 503,
    "3F000": 503,
    "2BP01": 503,
    "25001": 503,
    "25006": 503,
    "42710": 503,
    "53": 503,
    "54": 422,
    "55": 503,
    "57": 503,
    "P0002": 404,
}
_TITLES = {
    400: "The request cannot be read",
    401: "No valid key",
    403: "Not allowed",
    404: "Not found",
    405: "Not this method",
    409: "Not in this state",
    413: "Too large",
    415: "Not this type of content",
    422: "A value makes no sense",
    429: "Too many requests",
    500: "An error of our own",
    501: "Not there yet",
    503: "Not available now",
}
# What PostgreSQL's own errors may be told of: their texts name objects, and quote values of others.
_GENERAL = {
    403: "the role of the key may not do this",
    409: "it is there already",
    422: "a value of the request has the wrong form",
    503: "the database does not answer in time",
}


class Problem(HTTPException):
    """An answer that is no success: status, code (an SQLSTATE or a word), what was wrong, the way out.

    FastAPI lets exceptions of this kind through, also while it reads a body.
    """

    headers: dict[str, str]

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        hint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.status = status
        self.code = code
        self.hint = hint
        self.more = dict(more or {})
        if status in (429, 503):
            self.headers.setdefault("retry-after", str(RETRY_S))
        if status == 401:
            self.headers.setdefault("www-authenticate", "Bearer")

    def document(self) -> dict[str, Any]:
        """The body."""
        document: dict[str, Any] = {
            "type": TYPE + self.code,
            "title": _TITLES.get(self.status, "Error"),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.hint:
            document["hint"] = self.hint
        return document | self.more

    def response(self) -> Response:
        """As an HTTP answer."""
        return Response(orjson.dumps(self.document()), self.status, self.headers, media_type=MEDIA_TYPE)


def status_of(sqlstate: str | None) -> int:
    """The HTTP status for an SQLSTATE; 503 without one (the connection is gone), 500 if unforeseen."""
    if sqlstate is None:
        return 503
    fitting = [start for start in _STATUS if sqlstate.startswith(start)]
    return _STATUS[max(fitting, key=len)] if fitting else 500


def is_ours(error: psycopg.Error) -> bool:
    """Whether one of our functions raised it, by design: only then is its text meant for the caller."""
    state = error.sqlstate or ""
    raised = error.diag.source_function == "exec_stmt_raise" and error.diag.message_hint is not None
    return raised and (state.startswith("WA") or state in _OUR_STATES)


# Those of wa_sqlstates that PostgreSQL raises, too; a test compares.
_OUR_STATES = frozenset(
    {
        "0A000",
        "22004",
        "22023",
        "23502",
        "23505",
        "23514",
        "25001",
        "2BP01",
        "42501",
        "42704",
        "42710",
        "42883",
        "55000",
        "55P03",
        "P0002",
    }
)


def from_database(error: psycopg.Error) -> Problem:
    """The problem for an error of the database. Its DETAIL quotes values and stays behind."""
    if error.sqlstate is None and isinstance(error, psycopg.DataError):
        # The driver's own: a text with a NUL, which no value of the database can hold.
        return Problem(422, "22P05", _GENERAL[422])
    status = status_of(error.sqlstate)
    if is_ours(error):
        return Problem(status, str(error.sqlstate), error.diag.message_primary or "", error.diag.message_hint)
    code = error.sqlstate or "08000"
    return Problem(status, code, _GENERAL.get(status, "an error that was not foreseen"))
