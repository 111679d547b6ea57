"""What goes wrong, either way, as the exceptions of pg_whatsapp.errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pg_whatsapp import errors

if TYPE_CHECKING:
    import httpx

# The server goes, or takes no more connections: what is not done may be tried again.
_AWAY = ("08", "57P0", "53300")
_HINTS = {
    "42501": "An application's role is a member of wa_app, and of one organization.",
    "42883": "Is the schema migrated to this release? bin/wa migrate does it.",
    "42P01": "Is the schema migrated to this release? bin/wa migrate does it.",
}
_ELSEWHERE = "Does the URL lead to bin/wa serve, and to nothing else?"
# Half of a surrogate pair; in a header (key, user, idempotency_key) a letter that is not ASCII.
_NO_TEXT = "a text holds what cannot be sent"
# Answers without an SQLSTATE: the request was not understood, or did not come through.
_WRONG = (400, 413, 415, 422)
_UNREACHED = (502, 503, 504)


def from_sqlstate(sqlstate: str | None, message: str, hint: str | None) -> errors.WaError:
    """The exception for an SQLSTATE; UnavailableError where the connection is gone."""
    if sqlstate is None or sqlstate.startswith(_AWAY):
        return errors.UnavailableError(message, hint)
    return errors.class_of(sqlstate)(message, hint or _HINTS.get(sqlstate), sqlstate)


@contextmanager
def of_database() -> Iterator[None]:
    """Raises psycopg's errors as ours, with the message and hint of the database; the cause has the rest."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        text = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
        if error.sqlstate is None and not isinstance(error, psycopg.OperationalError):
            # Of psycopg itself: a closed connection, a value or a connection string that it cannot take.
            raise errors.InputError(text) from error
        raise from_sqlstate(error.sqlstate, text, error.diag.message_hint) from error
    except UnicodeError as error:
        raise errors.InputError(_NO_TEXT) from error


@contextmanager
def of_network() -> Iterator[None]:
    """Raises httpx's errors as ours."""
    import httpx

    try:
        yield
    except httpx.TransportError as error:
        raise errors.UnavailableError(
            f"the HTTP API does not answer: {error or type(error).__name__}",
            "Whether a request was done is unknown; with an idempotency_key it can be repeated.",
        ) from error
    except httpx.InvalidURL as error:
        raise errors.InputError(f"not a URL: {error}") from error
    except httpx.DecodingError as error:
        raise errors.ApiError("the answer cannot be unpacked", _ELSEWHERE) from error
    except UnicodeError as error:
        raise errors.InputError(_NO_TEXT) from error


def of_answer(answer: httpx.Response) -> errors.WaError:
    """The exception for an answer that is no success."""
    try:
        problem = answer.json()
        code, message, hint = str(problem["code"]), str(problem["detail"]), problem.get("hint")
    except (ValueError, TypeError, KeyError, AttributeError):
        code, message, hint = "", f"the HTTP API answered with status {answer.status_code}", None
    if re.fullmatch("[0-9A-Z]{5}", code):
        return from_sqlstate(code, message, hint)
    if answer.status_code == 429:
        after = answer.headers.get("retry-after", "")
        return errors.LimitError(message, hint, int(after) if after.isdecimal() else None)
    if answer.status_code in _UNREACHED:
        return errors.UnavailableError(message, hint)
    return (errors.InputError if answer.status_code in _WRONG else errors.ApiError)(message, hint)


def read(text: str | bytes) -> object:
    """The JSON of an answer."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise errors.ApiError("the answer is no JSON", _ELSEWHERE) from error
