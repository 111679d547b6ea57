"""Deliveries are signed as Standard Webhooks describes it."""

from __future__ import annotations

import base64
import hmac
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pg_whatsapp import standard_webhooks
from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def test_a_secret_is_in_the_form_of_the_standard() -> None:
    first, second = standard_webhooks.make_secret(), standard_webhooks.make_secret()
    assert first != second
    assert first.startswith("whsec_")
    assert len(base64.b64decode(first.removeprefix("whsec_"), validate=True)) == 32


def test_a_signature_that_others_made_is_ours_too() -> None:
    """From the manual of a sender that follows the standard."""
    signed = standard_webhooks.sign(
        "msg_loFOjxBNrRLzqYUf",
        1731705121,
        '{"event_type":"ping","data":{"success":true}}',
        ["whsec_plJ3nmyCDGBKInavdOK15jsl"],
    )
    assert signed == {
        "webhook-id": "msg_loFOjxBNrRLzqYUf",
        "webhook-timestamp": "1731705121",
        "webhook-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    }


@given(body=st.text(), name=st.from_regex(r"evt_[0-9a-f]{32}", fullmatch=True))
def test_each_secret_signs_id_time_and_body(body: str, name: str) -> None:
    secrets = [standard_webhooks.make_secret() for _ in range(2)]
    now = int(time.time())
    signed = standard_webhooks.sign(name, now, body, secrets)
    expected = [
        "v1,"
        + base64.b64encode(
            hmac.digest(base64.b64decode(secret[6:]), f"{name}.{now}.{body}".encode(), "sha256")
        ).decode()
        for secret in secrets
    ]
    assert signed["webhook-signature"].split(" ") == expected
    for secret in secrets:
        Webhook(secret).verify(body, signed, json_parse=False)
    for changed in ({"webhook-id": "evt_other"}, {"webhook-timestamp": str(now + 1)}):
        with pytest.raises(WebhookVerificationError):
            Webhook(secrets[0]).verify(body, signed | changed, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(standard_webhooks.make_secret()).verify(body, signed, json_parse=False)
