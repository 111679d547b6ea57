"""What requests of 360dialog show, and the secrets that it is compared with."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from pg_whatsapp.errors import ConfigError
from pg_whatsapp.providers import PROVIDERS
from pg_whatsapp.providers.base import Webhook
from pg_whatsapp.providers.d360 import check_header_line, find_vouchers, read_voucher

BODY = b'{"name":"\\u00e4"}'
LINE = "X-Webhook-Secret:  0123456789abcdef "
SIGNATURE = hmac.new(b"key", BODY, hashlib.sha256).hexdigest().encode()


def test_every_secret_that_a_request_shows_is_found() -> None:
    """Organizations may have the same secret: the body may speak for the numbers of all of them."""
    known = [read_voucher(one, "webhook_header", LINE.strip()) for one in "ab"]
    known += [read_voucher(one, "platform_secret", "key") for one in "cd"]
    known.append(read_voucher("e", "webhook_header", "x-webhook-secret: fedcba9876543210"))
    known.append(read_voucher("f", "platform_secret", "another key"))
    header = {b"x-webhook-secret": b"0123456789abcdef"}
    assert find_vouchers(known, header, BODY) == ["a", "b"]
    assert find_vouchers(known, {b"x-360dialog-signature": SIGNATURE}, BODY) == ["c", "d"]
    assert find_vouchers(known, {b"x-360dialog-signature": b"sha256=" + SIGNATURE.upper()}, BODY) == [
        "c",
        "d",
    ]
    assert find_vouchers(known, header | {b"x-360dialog-signature": SIGNATURE}, BODY) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"x-webhook-secret": b""},
        {b"x-webhook-secret": b"0123456789abcde"},
        {b"x-webhook-secret": b"0123456789ABCDEF"},
        {b"x-webhook-secret": "0123456789abcdeä".encode()},
        {b"x-other": b"0123456789abcdef"},
        {b"x-360dialog-signature": b""},
        {b"x-360dialog-signature": b"key"},
        {b"x-360dialog-signature": SIGNATURE[:-1]},
    ],
)
def test_nothing_else_vouches(headers: dict[bytes, bytes]) -> None:
    known = [read_voucher("a", "webhook_header", LINE.strip()), read_voucher("b", "platform_secret", "key")]
    assert find_vouchers(known, headers, BODY) == []
    assert find_vouchers([], {b"x-webhook-secret": b"0123456789abcdef"}, BODY) == []
    assert find_vouchers(known, {b"x-360dialog-signature": SIGNATURE}, BODY + b" ") == []


@pytest.mark.parametrize(
    "line",
    [
        "", "X", "X:", ": 0123456789abcdef", "X Y: 0123456789abcdef", "X: short", "Ä: 0123456789abcdef",
        "Content-Type: 0123456789abcdef", "x-forwarded-host: 0123456789abcdef", "HOST: 0123456789abcdef",
        "User-Agent: 0123456789abcdef", "X-Twilio-Signature: 0123456789abcdef", "Accept: 0123456789abcdef",
    ],
)  # fmt: skip
def test_a_line_that_is_no_header_is_refused(line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_header_line(line)
    assert raised.value.hint
    assert "0123456789abcdef" not in str(raised.value)


def test_who_signs_is_asked_before_who_shows_a_secret() -> None:
    signs = [one.signature_header is not None for one in PROVIDERS.values()]
    assert signs == sorted(signs, reverse=True)


def test_what_is_no_json_is_not_360dialogs() -> None:
    class Keys:
        public_urls = ()

        def named(self, name: str) -> dict[str, list[str]]:
            return {LINE.strip(): ["a"]} if name == "webhook_header" else {}

    headers = {b"x-webhook-secret": b"0123456789abcdef"}
    for shown, signers in ((b' {"object": ""}', ["a"]), (b"From=whatsapp", []), (b"", [])):
        webhook = Webhook(headers, shown, "https", "/")
        assert PROVIDERS["360dialog"].signers(webhook, Keys()) == signers
