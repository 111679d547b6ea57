"""Errors as the Graph API words them.

:class:`GraphError` is raised by validation, limits and faults; the send endpoint turns it into the error JSON
of the API. :class:`ControlError` is raised by the control endpoints under ``/_simulator/``.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from .http import Response, json_response

HREF: Final = "/documentation/business-messaging/whatsapp/support/error-codes"

# code: (documented HTTP status, title). 400 where the documentation names none.
CODES: Final[dict[int, tuple[int, str]]] = {
    0: (401, "AuthException"),
    1: (400, "API Unknown"),
    2: (503, "API Service"),
    3: (500, "API Method"),
    4: (400, "API Too Many Calls"),
    10: (403, "API Permission Denied"),
    33: (400, "Parameter value is not valid"),
    100: (400, "Invalid parameter"),
    190: (401, "Access token has expired"),
    200: (403, "API Permission"),
    368: (403, "Temporarily blocked for policies violations"),
    80007: (400, "Rate limit issues"),
    130403: (400, "User is blocked by the business"),
    130429: (400, "Rate limit hit"),
    130472: (400, "User's number is part of an experiment"),
    130497: (403, "Business account is restricted from messaging users in this country"),
    131000: (500, "Something went wrong"),
    131005: (403, "Access denied"),
    131008: (400, "Required parameter is missing"),
    131009: (400, "Parameter value is not valid"),
    131016: (500, "Service unavailable"),
    131021: (400, "Recipient cannot be sender"),
    131026: (400, "Message undeliverable"),
    131030: (400, "Recipient phone number not in allowed list"),
    131031: (403, "Business Account locked"),
    131037: (400, "Display name approval is needed"),
    131042: (400, "Business eligibility payment issue"),
    131043: (400, "Message expired"),
    131045: (500, "Incorrect certificate"),
    131047: (400, "Re-engagement message"),
    131048: (400, "Spam rate limit hit"),
    131049: (400, "Message not delivered to maintain healthy ecosystem engagement"),
    131050: (400, "User has stopped receiving marketing messages from this business"),
    131051: (400, "Unsupported message type"),
    131052: (400, "Media download error"),
    131053: (400, "Media upload error"),
    131055: (400, "Method not allowed"),
    131056: (400, "(Business Account, Consumer Account) pair rate limit hit"),
    131057: (500, "Account in maintenance mode"),
    131059: (400, "Invalid paging cursor"),
    131062: (400, "Business-scoped user id recipients are not supported for this message"),
    131063: (400, "Marketing messages are disabled on Cloud API"),
    131064: (400, "Template limit reached"),
    132000: (400, "Number of parameters does not match the expected number of params"),
    132001: (404, "Template name does not exist in the translation"),
    132005: (400, "Translated text too long"),
    132007: (400, "Template content policy violated"),
    132008: (400, "Parameter value is not valid"),
    132012: (400, "Parameter format does not match format in the created template"),
    132015: (400, "Template is paused"),
    132016: (400, "Template is disabled"),
    132018: (400, "Template parameters are not valid"),
    132068: (400, "Flow is blocked"),
    132069: (400, "Flow is throttled"),
    2200: (400, "Callback verification failed"),
    133004: (503, "Server temporarily unavailable"),
    133005: (400, "Two step verification PIN Mismatch"),
    133008: (400, "Too Many two step verification PIN Guesses"),
    133010: (400, "Phone number not registered"),
    134011: (400, "Payments terms of service not accepted"),
    134100: (400, "Only marketing messages are supported"),
    134101: (400, "Template is still synchronising"),
    134102: (500, "Template is unavailable for use"),
    135000: (400, "Generic user error"),
    137000: (400, "Recipient identity key hash mismatch"),
    139100: (400, "Failed to block/unblock users"),
    139103: (400, "The user has not written to the business lately"),
}
THROTTLE_CODES: Final = frozenset({4, 80007, 130429, 131048, 131056})


def title_of(code: int) -> str:
    """The title that goes with ``code``; a general one for codes that are not in the table."""
    return CODES.get(code, (400, "Error"))[1]


def status_of(code: int) -> int:
    """The HTTP status documented for ``code``; 400 where none is."""
    return CODES.get(code, (400, ""))[0]


class GraphError(Exception):
    """A request that the API refuses."""

    def __init__(
        self, code: int, details: str, *, subcode: int | None = None, status: int | None = None
    ) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details
        self.subcode = subcode
        self.status = status_of(code) if status is None else status

    def response(self, *, throttle_status: int = 400, retry_after: float | None = None) -> Response:
        """The error JSON; throttling codes are answered with ``throttle_status`` (400 or 429)."""
        status = throttle_status if self.code in THROTTLE_CODES else self.status
        headers = {"Retry-After": str(max(1, round(retry_after)))} if retry_after is not None else None
        error: dict[str, Any] = {
            "message": f"(#{self.code}) {title_of(self.code)}",
            "type": "OAuthException",
            "code": self.code,
            "error_data": {"messaging_product": "whatsapp", "details": self.details},
            "fbtrace_id": "A" + secrets.token_urlsafe(16),
        }
        if self.subcode is not None:
            error["error_subcode"] = self.subcode
        if status == 401:
            headers = {**(headers or {}), "WWW-Authenticate": 'OAuth "Facebook Platform" "invalid_token"'}
        return json_response({"error": error}, status, headers)


def webhook_error(code: int, details: str | None = None) -> dict[str, Any]:
    """An entry of ``errors`` as webhooks carry it."""
    return {
        "code": code,
        "title": title_of(code),
        "message": title_of(code),
        "error_data": {"details": details or title_of(code)},
        "href": HREF,
    }


class ControlError(Exception):
    """A control request that makes no sense; answered with 400 and the message."""
