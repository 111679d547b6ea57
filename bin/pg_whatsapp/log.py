"""Structured logs on standard error, free of message text, phone numbers and secrets."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import psycopg
import structlog

# Long runs of digits with an optional plus: phone numbers in their usual forms.
_DIGITS = re.compile(r"\+?\d[\d\s().-]{6,}\d")
_PHONE_DIGITS = 8
# A value under one of these names is never written, whatever it holds.
_SECRET_NAMES = re.compile(r"(body|text|phone|recipient|token|secret|password|payload|params|dsn|conninfo)$")
# Ids of the provider and our own, addresses: digits, but nobody's phone number.
_ID_NAMES = frozenset(
    {
        "phone_number_id",
        "waba_id",
        "key_id",
        "secret_id",
        "queue_id",
        "media_id",
        "organization_id",
        "subscription_id",
        "dispatcher",
        "timestamp",
        "version",
        "host",
        "source",
        "libpq",
    }
)
MASK = "[hidden]"


def _mask_phone(found: re.Match[str]) -> str:
    return MASK if sum(map(str.isdigit, found[0])) >= _PHONE_DIGITS else found[0]


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide what a log must not hold: values by name, phone-like digits by form."""
    for name, value in event.items():
        if name in _ID_NAMES:
            continue
        if _SECRET_NAMES.search(name):
            event[name] = MASK
        elif isinstance(value, str):
            event[name] = _DIGITS.sub(_mask_phone, value)
    return event


def configure(log_format: str = "console", level: str = "info") -> None:
    """Send all logs to standard error as 'console' text or one JSON object a line."""
    renderer: Any = structlog.processors.JSONRenderer()
    if log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Library()], level=logging.ERROR, force=True)


class _Library(logging.Handler):
    """Errors that libraries log: who and what class, not their text, which may quote a request."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None and isinstance(record.args, tuple):
            # A pool of connections names so why it has none.
            error = next((arg for arg in record.args if isinstance(arg, BaseException)), None)
        get("library").error("library error", logger=record.name, **(describe(error) if error else {}))


def get(name: str) -> Any:
    """A logger whose lines carry component=name."""
    return structlog.get_logger().bind(component=name)


def describe(error: BaseException) -> dict[str, Any]:
    """What may be logged of an error: its class, code and message from the database, where it was raised.

    The text of an unknown exception is left out, since nobody can say what it quotes; so is DETAIL.
    """
    facts: dict[str, Any] = {"error": type(error).__name__}
    if isinstance(error, psycopg.Error):
        if error.sqlstate:
            facts["sqlstate"] = error.sqlstate
            facts["message"] = error.diag.message_primary
        elif str(error):
            # From libpq, about the connection: host, user and database, no values.
            facts["message"] = str(error).splitlines()[0]
        return facts
    if frames := traceback.extract_tb(error.__traceback__):
        last = frames[-1]
        facts["at"] = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
    return facts
