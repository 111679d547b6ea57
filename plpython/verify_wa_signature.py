"""Meta's X-Hub-Signature-256, checked over the bytes as received.

The database includes this file in a function; the receiver loads the very same file as a module.
"""

import hmac
import re
from collections.abc import Iterable


def hmac_sha256_hex(body: bytes, secret: str) -> str:
    """HMAC-SHA256 of `body` under `secret` (UTF-8), as 64 lower-case hexadecimal digits."""
    return hmac.digest(secret.encode("utf-8", "surrogatepass"), body, "sha256").hex()


def verify_signature(body: bytes | None, header: str | None, secrets: Iterable[str | None] | None) -> bool:
    """Whether `header` ("sha256=" and hexadecimal digits) signs `body` with one of `secrets`. Never raises.

    An empty secret counts for nothing: anyone could sign with it. Rule: Meta, "Validating payloads".
    """
    if body is None or header is None or secrets is None:
        return False
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", header.strip())
    if found is None:
        return False
    given = found[1].lower()
    matches = False
    for secret in secrets:
        if secret and hmac.compare_digest(hmac_sha256_hex(body, secret), given):
            matches = True
    return matches
