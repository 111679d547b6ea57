"""360dialog: the Cloud API behind a key of its own, which names the number.

Messaging API, https://docs.360dialog.com/docs/waba-messaging/messaging

Webhooks are not signed as Meta's are. A request shows a header that the customer chose when the webhook was
configured (secret webhook_header, stored as the line "Name: value"), or a signature where a partner did that
(secret platform_secret): x-360dialog-signature, the HMAC-SHA256 of the body in hexadecimal. Source:
docs.360dialog.com, pages Webhook URL and Signature Validation.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import httpx
import orjson

from pg_whatsapp import log
from pg_whatsapp.errors import ConfigError
from pg_whatsapp.header_line import HEADER_LINE
from pg_whatsapp.providers.base import Provider, Webhook, WebhookKeys
from pg_whatsapp.providers.meta import PROVIDER as META
from pg_whatsapp.providers.templates import ALREADY_THERE, PAGE, TemplatePage, Templates

_logger = log.get("receiver")
HEADER, PLATFORM = "webhook_header", "platform_secret"
SIGNATURE_HEADER = b"x-360dialog-signature"
# Somebody who knows only the name of the header must not get by with a guess.
SHORTEST_VALUE = 16
# What others' requests have, too: of clients and proxies, and where other providers sign.
_COMMON = re.compile(
    r"(accept|content|x-forwarded|x-hub|x-twilio|x-original|sec|if)(-.*)?|x-360dialog-signature|cache-control"
    r"|connection|date|expect|forwarded|from|host|keep-alive|origin|pragma|priority|referer|te|trailer"
    r"|transfer-encoding|upgrade|user-agent|via|x-(real-ip|request-id|host|scheme)"
)
# It gives Meta's address of a file, to be asked for at its own (its manual, Media).
_TO_BE_REPLACED = "lookaside.fbsbx.com"


class Voucher(NamedTuple):
    """A secret that a request may show: the value of a header (lower case), or the key of a signature."""

    secret_id: str
    header: bytes
    value: bytes
    is_key: bool


def check_header_line(line: str) -> tuple[str, str]:
    """The name and value of "Name: value"; raises ConfigError if it is no header or is too easily guessed."""
    found = HEADER_LINE.fullmatch(line)
    if found is None or not line.isascii():
        raise ConfigError(
            "not a header as 360dialog can send it",
            "Store the whole line, for example: Authorization: Bearer and 32 random characters.",
        )
    if _COMMON.fullmatch(found[1].lower()):
        raise ConfigError(
            f"{found[1]} is a header that other requests have, too",
            "Store one that nobody else sends, for example: Authorization: Bearer and 32 random characters.",
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


@lru_cache(maxsize=1000)
def _read(secret_id: str, name: str, value: str) -> Voucher | None:
    """read_voucher(), once for each; None for what cannot be read, which is said once."""
    try:
        return read_voucher(secret_id, name, value)
    except ConfigError as error:
        _logger.error(str(error), hint=error.hint)
        return None


class ChannelTemplates(Templates):
    """Templates by the key of a number: docs.360dialog.com, Create and manage Template Messages."""

    _PATH = "v1/configs/templates"
    # Its words for states of which Meta has others.
    _STATES: ClassVar = {"SUBMITTED": "PENDING", "CREATED": "PENDING", "IN_REVIEW": "PENDING"}

    def listing(self, waba_id: str, after: str | None, name: str | None) -> tuple[str, dict[str, str]]:
        """Pages by their first row, as numbers."""
        query = {"limit": str(PAGE), "offset": after or "0", "sort": "id"}
        query |= {"filters": orjson.dumps({"business_templates.name": name}).decode()} if name else {}
        return self._PATH, query

    def page(self, answer: dict[str, Any], after: str | None) -> TemplatePage:
        """Rows of waba_templates."""
        rows = [self._template(row) for row in answer.get("waba_templates") or []]
        until = int(after or 0) + len(rows)
        return TemplatePage(rows, str(until), not rows or until >= int(answer.get("total") or 0))

    def submission(self, waba_id: str, provider_id: str | None) -> str | None:
        """New ones only."""
        return None if provider_id else self._PATH

    def canonical(self, answer: dict[str, Any], status: int) -> dict[str, Any]:
        """Errors of its own have no code, and stand in a text or under meta."""
        error, meta = answer.get("error"), answer.get("meta")
        if error is None and isinstance(meta, dict) and status >= 400:
            error = str(meta.get("developer_message"))
        if isinstance(error, str):
            about = {"code": 100} if status in (400, 409, 422) else {}
            exists = {"code": 100, "error_subcode": ALREADY_THERE} if "already exists" in error else {}
            return answer | {"error": {"message": error} | about | exists}
        return self._template(answer) if "status" in answer and error is None else answer

    def _template(self, row: dict[str, Any]) -> dict[str, Any]:
        """Meta's id where it is told, states and categories in capitals."""
        state, category = str(row.get("status") or "").upper(), str(row.get("category") or "").upper()
        return row | {
            "id": row.get("external_id") or row.get("id"),
            "status": self._STATES.get(state, state),
            "category": category,
            "rejected_reason": row.get("rejected_reason") or "NONE",
        }


class Dialog360(Provider):
    """A key in a header of its own, webhooks that show a secret."""

    name = "360dialog"
    base_url = "https://waba-v2.360dialog.io"
    media_hosts = (*META.media_hosts, "360dialog.io")
    vouches_by_number = True
    secret_names = (HEADER, PLATFORM)
    templates = ChannelTemplates()

    def token_headers(self, token: str) -> dict[str, str]:
        """The key of the number."""
        return {"d360-api-key": token}

    def check_secret(self, name: str, value: str) -> None:
        """A header must be one, and not easily guessed."""
        if name == HEADER:
            check_header_line(value)

    def secret_header(self, secret: str) -> tuple[str, str]:
        """The parts of a header line."""
        return check_header_line(secret)

    def located(self, url: httpx.URL, base_url: str) -> httpx.URL:
        """The same place at 360dialog for one that is Meta's."""
        if url.host != _TO_BE_REPLACED:
            return url
        base = httpx.URL(base_url)
        return url.copy_with(scheme=base.scheme, host=base.host, port=base.port)

    def signers(self, webhook: Webhook, keys: WebhookKeys) -> list[str]:
        """The secrets that the request shows; it is JSON, and another's if not."""
        if not webhook.body.lstrip().startswith(b"{"):
            return []
        known = [
            _read(secret_id, name, value)
            for name in (HEADER, PLATFORM)
            for value, ids in keys.named(name).items()
            for secret_id in ids
        ]
        return find_vouchers(filter(None, known), webhook.headers, webhook.body)


PROVIDER = Dialog360()
