"""Signatures by Standard Webhooks 1.0 (standardwebhooks.com), and the secrets that make them."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook

_PREFIX = "whsec_"
_SECRET_BYTES = 32


def make_secret() -> str:
    """A new secret, in the form in which receivers are given it."""
    return _PREFIX + base64.b64encode(os.urandom(_SECRET_BYTES)).decode()


def sign(webhook_id: str, timestamp: int, body: str, secrets: Iterable[str]) -> dict[str, str]:
    """The headers of a delivery, signed with each of the secrets; timestamp in seconds since 1970."""
    at = datetime.fromtimestamp(timestamp, UTC)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(Webhook(secret).sign(webhook_id, at, body) for secret in secrets),
    }
