"""`wa templates sync`: the provider's templates into wa_templates, page by page. Reads only."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import httpx
import orjson

from pg_whatsapp import db, log
from pg_whatsapp.config import Settings
from pg_whatsapp.errors import ProviderError, SealError, WaError
from pg_whatsapp.secrets import SecretBox

_logger = log.get("templates")
FIELDS = (
    "name,language,status,category,sub_category,quality_score,components,parameter_format,rejected_reason,"
    "previous_category,correct_category,message_send_ttl_seconds"
)
PAGE = 100
TIMEOUT_S = 30.0
TRIES = 4
FIRST_WAIT_S = 1.0
BAD_CURSOR = 131059


class Account(NamedTuple):
    """A WhatsApp business account and the token that reads it."""

    organization: str
    waba_id: str
    token: str


async def sync(
    settings: Settings, box: SecretBox | None, http: httpx.AsyncBaseTransport, only: str | None
) -> dict[str, int]:
    """Sync all accounts that a token is known for, or only one; returns templates by account.

    A sync that was interrupted goes on where it stopped. Raises WaError.
    """

    async def work(connection: db.Connection) -> dict[str, int]:
        accounts = [a for a in await _accounts(connection, settings, box) if only in (None, a.waba_id)]
        if not accounts:
            which = f"account {only}" if only else "any account"
            raise WaError(f"no access token for {which}", "bin/wa secrets set access_token --number ID")
        return {
            account.waba_id: await _sync_account(connection, settings, http, account) for account in accounts
        }

    return await db.once(settings.conninfo, "templates", work)


async def _accounts(connection: db.Connection, settings: Settings, box: SecretBox | None) -> list[Account]:
    """Each account once, with a stored token or else the environment's."""
    accounts: dict[tuple[str, str], Account] = {}
    stored = await connection.execute(
        "SELECT organization_id::text, waba_id, ciphertext, key_id FROM get_wa_credentials()"
        " WHERE provider = 'meta' ORDER BY phone_number_id"
    )
    for organization, waba_id, ciphertext, key_id in await stored.fetchall():
        if box is None or (organization, waba_id) in accounts:
            continue
        try:
            _, token = box.open(organization, "access_token", bytes(ciphertext), key_id)
        except SealError as error:
            _logger.error(str(error), waba_id=waba_id, hint=error.hint)
            continue
        accounts[organization, waba_id] = Account(organization, waba_id, token)
    if settings.access_token is not None and settings.provider == "meta":
        numbers = await connection.execute(
            "SELECT DISTINCT organization_id::text, waba_id FROM wa_phone_numbers WHERE provider = 'meta'"
        )
        for organization, waba_id in await numbers.fetchall():
            token = settings.access_token.get_secret_value()
            accounts.setdefault((organization, waba_id), Account(organization, waba_id, token))
    return list(accounts.values())


async def _sync_account(
    connection: db.Connection, settings: Settings, http: httpx.AsyncBaseTransport, account: Account
) -> int:
    await connection.execute("SELECT set_config('wa.organization_id', %s, false)", (account.organization,))
    row = await (await connection.execute("SELECT begin_wa_template_sync(%s)", (account.waba_id,))).fetchone()
    after: str | None = row[0] if row else None
    count = 0
    while True:
        try:
            page = await _fetch(settings, http, account, after)
        except _BadCursorError:
            # Cursors grow old: from the beginning then.
            _logger.info("cursor no longer valid, starting over", waba_id=account.waba_id)
            after = None
            continue
        templates = page.get("data", [])
        paging = page.get("paging", {})
        after = paging.get("cursors", {}).get("after")
        async with connection.transaction():
            await connection.execute(
                "SELECT upsert_wa_templates(%s, %s::jsonb)",
                (account.waba_id, orjson.dumps(templates).decode()),
            )
            await connection.execute(
                "SELECT advance_wa_template_sync(%s, %s, %s)", (account.waba_id, after, len(templates))
            )
        count += len(templates)
        if "next" not in paging or after is None:
            await connection.execute("SELECT finish_wa_template_sync(%s)", (account.waba_id,))
            return count


class _BadCursorError(Exception):
    """The provider no longer knows the place where the sync had stopped."""


async def _fetch(
    settings: Settings, http: httpx.AsyncBaseTransport, account: Account, after: str | None
) -> dict[str, Any]:
    """One page; tried again while the provider is busy or away. Raises ProviderError, _BadCursorError."""
    query = {"fields": FIELDS, "limit": str(PAGE)} | ({"after": after} if after else {})
    url = httpx.URL(
        f"{settings.base_url('meta')}/{settings.api_version}/{account.waba_id}/message_templates",
        params=query,
    )
    problem = "no answer"
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
        request = httpx.Request(
            "GET",
            url,
            headers={"authorization": f"Bearer {account.token}", "accept": "application/json"},
            extensions={"timeout": {"read": TIMEOUT_S}},
        )
        try:
            response = await http.handle_async_request(request)
            try:
                content = await response.aread()
            finally:
                await response.aclose()
            answer = orjson.loads(content)
        except Exception as error:
            problem = type(error).__name__
            continue
        if response.status_code == 200 and isinstance(answer, dict):
            return answer
        failure = answer.get("error", {}) if isinstance(answer, dict) else {}
        code = failure.get("code")
        if code == BAD_CURSOR and after is not None:
            raise _BadCursorError
        problem = f"HTTP {response.status_code}, code {code}"
        if response.status_code < 500 and response.status_code != 429 and not failure.get("is_transient"):
            break
    raise ProviderError(
        f"the templates of account {account.waba_id} could not be read: {problem}",
        "Is the token valid for it, with whatsapp_business_management? A repeated sync goes on from here.",
    )
