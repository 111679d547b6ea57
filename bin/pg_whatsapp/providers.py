"""What tells one provider of the WhatsApp API from another: where it is, and how a caller shows its token.

The database's half (paths, bodies, errors) is sql/sending/providers.sql.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Provider:
    """One provider."""

    #: Where its API is unless WHATSAPP_API_BASE_URL says otherwise.
    base_url: str
    #: The headers that carry a token.
    token_headers: Callable[[str], dict[str, str]]
    #: Whether paths begin with a version of the Graph API.
    has_version: bool

    def prefix(self, base_url: str, api_version: str) -> str:
        """What stands before the path of a request."""
        return f"{base_url}/{api_version}" if self.has_version else base_url

    def headers(self, token: str) -> dict[str, str]:
        """The headers of a request: the token and JSON both ways."""
        return {"content-type": "application/json", "accept": "application/json", **self.token_headers(token)}


#: Where requests have their token, in lower case.
TOKEN_HEADERS = ("authorization", "d360-api-key")
#: By the names that wa_phone_numbers.provider has.
PROVIDERS = {
    # Get started, https://developers.facebook.com/docs/whatsapp/cloud-api/get-started
    "meta": Provider(
        base_url="https://graph.facebook.com",
        token_headers=lambda token: {"authorization": f"Bearer {token}"},
        has_version=True,
    ),
    # Messaging API, https://docs.360dialog.com/docs/waba-messaging/messaging
    "360dialog": Provider(
        base_url="https://waba-v2.360dialog.io",
        token_headers=lambda token: {"d360-api-key": token},
        has_version=False,
    ),
}
