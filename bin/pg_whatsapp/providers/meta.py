"""Meta's Cloud API. Get started: https://developers.facebook.com/docs/whatsapp/cloud-api/get-started"""

from __future__ import annotations

from functools import cache

from pg_whatsapp.providers.base import Provider, Webhook, WebhookKeys
from pg_whatsapp.providers.templates import Templates
from pg_whatsapp.signature import load_verify


class Meta(Provider):
    """The Cloud API: a bearer token, webhooks signed with the app's secret."""

    name = "meta"
    base_url = "https://graph.facebook.com"
    has_version = True
    # Files (Cloud API, Media) are at lookaside.fbsbx.com, redirects lead to the content network.
    media_hosts = ("fbsbx.com", "fbcdn.net", "facebook.com", "whatsapp.net", "whatsapp.com")
    signature_header = b"x-hub-signature-256"
    templates = Templates()

    def token_headers(self, token: str) -> dict[str, str]:
        """A bearer token."""
        return {"authorization": f"Bearer {token}"}

    def question(self, phone_number_id: str) -> str | None:
        """The number itself."""
        return f"/{phone_number_id}?fields=id,status,health_status"

    def signers(self, webhook: Webhook, keys: WebhookKeys) -> list[str]:
        """The app secrets that signed the body."""
        signature = webhook.headers.get(self.signature_header)
        if signature is None:
            return []
        given = signature.decode("latin-1")
        verify = _verify()
        return [
            secret_id
            for value, ids in keys.named("app_secret").items()
            if verify(webhook.body, given, (value,))
            for secret_id in ids
        ]


_verify = cache(load_verify)
PROVIDER = Meta()
