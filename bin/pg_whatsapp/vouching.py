"""Webhooks of 360dialog, which are not signed as Meta's are.

A request shows a header that the customer chose when the webhook was configured (secret webhook_header,
stored as the line "Name: value"), or a signature where a partner did that (secret platform_secret):
x-360dialog-signature, the HMAC-SHA256 of the body in hexadecimal. Source: docs.360dialog.com, pages Webhook
URL and Signature Validation.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pg_whatsapp.errors import ConfigError

HEADER, PLATFORM = "webhook_header", "platform_secret"
SIGNATURE_HEADER = b"x-360dialog-signature"
# Somebody who knows only the name of the header must not get by with a guess.
SHORTEST_VALUE = 16
# RFC 9110, section 5.
_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(\S(?:.*\S)?)")


class Voucher(NamedTuple):
    """A secret that a request may show: the value of a header (lower case), or the key of a signature."""

    secret_id: str
    header: bytes
    value: bytes
    is_key: bool


def check_header_line(line: str) -> tuple[str, str]:
    """The name and value of "Name: value"; raises ConfigError if it is no header or is too easily guessed."""
    found = _LINE.fullmatch(line)
    if found is None or not line.isascii():
        raise ConfigError(
            "not a header as 360dialog can send it",
            "Store the whole line, for example: Authorization: Bearer and 32 random characters.",
        )
    if len(found[2]) < SHORTEST_VALUE:
        raise ConfigError(
            f"the header's value has fewer than {SHORTEST_VALUE} characters",
            "Make one with: openssl rand -hex 32",
        )
    return found[1], found[2]


def read_voucher(secret_id: str, name: str, value: str) -> Voucher:
    """A stored webhook_header or platform_secret; raises ConfigError if it is no header line."""
    if name == PLATFORM:
        return Voucher(secret_id, SIGNATURE_HEADER, value.encode(), is_key=True)
    header, shown = check_header_line(value)
    return Voucher(secret_id, header.lower().encode(), shown.encode(), is_key=False)


def find_vouchers(known: Iterable[Voucher], headers: Mapping[bytes, bytes], body: bytes) -> list[str]:
    """The ids of all secrets that a request shows, compared in constant time; several may be equal.

    headers: names in lower case, as in ASGI.
    """
    # An organization of a partner each may have stored the same key.
    signatures: dict[bytes, bytes] = {}
    shown = []
    for voucher in known:
        given = headers.get(voucher.header)
        if given is None:
            continue
        expected = voucher.value
        if voucher.is_key:
            if voucher.value not in signatures:
                signatures[voucher.value] = hmac.digest(voucher.value, body, "sha256").hex().encode()
            expected = signatures[voucher.value]
            given = given.lower().removeprefix(b"sha256=")
        if hmac.compare_digest(expected, given):
            shown.append(voucher.secret_id)
    return shown
