"""Twilio's errors: {"code", "message", "more_info", "status"}."""

from __future__ import annotations

from wa_simulator.http import Response, json_response

# HTTP status and message by code (docs/api/errors); 400 for others.
_KNOWN = {
    20003: (401, "Authenticate"),
    20404: (404, "The requested resource was not found"),
    20429: (429, "Too Many Requests"),
    20500: (500, "Internal Server Error"),
    21211: (400, "The 'To' number is not a valid phone number."),
    21603: (400, "A 'From' phone number is required."),
    21604: (400, "A 'To' phone number is required."),
    21606: (400, "The 'From' phone number is not a valid, message-capable Twilio phone number."),
    21609: (400, "The 'StatusCallback' URL is not a valid URL."),
    21610: (400, "Attempt to send to unsubscribed recipient"),
    21617: (400, "The concatenated message body exceeds the 1600 character limit."),
    21619: (400, "A text message body or media urls must be specified."),
    21620: (400, "Invalid media URL(s)"),
    21655: (400, "The ContentSid is invalid."),
    21656: (400, "The ContentVariables parameter is invalid."),
    21910: (400, "Invalid From and To pair. From and To should be of the same channel"),
    63007: (400, "Twilio could not find a Channel with the specified From address"),
    63016: (400, "Failed to send freeform message because you are outside the allowed window."),
    63031: (400, "Channels message cannot have same From and To"),
}


class TwilioError(Exception):
    """An answer that refuses a request."""

    def __init__(self, code: int, details: str | None = None, *, status: int | None = None) -> None:
        known_status, message = _KNOWN.get(code, (400, "Injected by the simulator."))
        super().__init__(details or message)
        self.code = code
        self.status = status or known_status

    def response(self, retry_after: float | None = None) -> Response:
        """The answer."""
        headers = {"Retry-After": str(round(retry_after))} if retry_after is not None else None
        return json_response(
            {
                "code": self.code,
                "message": str(self),
                "more_info": f"https://www.twilio.com/docs/errors/{self.code}",
                "status": self.status,
            },
            self.status,
            headers,
        )
