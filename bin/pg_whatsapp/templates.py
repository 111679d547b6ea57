"""`wa templates`: the provider's templates into wa_templates page by page, drafts to its review."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import orjson
from psycopg.rows import dict_row

from pg_whatsapp import db, log
from pg_whatsapp.config import Settings
from pg_whatsapp.errors import ProviderError, SealError, WaError
from pg_whatsapp.providers import PROVIDERS
from pg_whatsapp.secrets import SecretBox
from pg_whatsapp.transport import parse_answer, read_body

_logger = log.get("templates")
FIELDS = (
    "name,language,status,category,sub_category,quality_score,components,parameter_format,rejected_reason,"
    "previous_category,correct_category,message_send_ttl_seconds"
)
PAGE = 100
LARGEST_PAGE = 16 << 20
TIMEOUT_S = 30.0
TRIES = 4
FIRST_WAIT_S = 1.0
BAD_CURSOR = 131059


# Answers that say nothing about the request itself: busy, or too many calls.
BUSY_CODES = frozenset({1, 2, 4, 80007, 80008})


class Account(NamedTuple):
    """A WhatsApp business account and the token that reads it."""

    organization: str
    waba_id: str
    token: str


class Submission(NamedTuple):
    """What became of one template that was handed to the provider's review."""

    name: str
    language: str
    outcome: str
    status: str
    category: str
    reason: str | None


async def sync(
    settings: Settings,
    box: SecretBox | None,
    http: httpx.AsyncBaseTransport,
    only: str | None,
    organization: str | None = None,
) -> dict[str, int]:
    """Sync all accounts that a token is known for, or only one, or those of one organization.

    Returns templates by account.

    A sync that was interrupted goes on where it stopped. Raises WaError.
    """

    async def work(connection: db.Connection) -> dict[str, int]:
        return {
            account.waba_id: await _sync_account(connection, settings, http, account)
            for account in await _accounts(connection, settings, box, only)
        }

    return await db.once(settings.conninfo, "templates", work, organization=organization)


async def submit(
    settings: Settings,
    box: SecretBox | None,
    http: httpx.AsyncBaseTransport,
    only: str | None,
    names: tuple[str, ...],
    organization: str | None = None,
) -> list[Submission]:
    """Hand drafts to the provider's review: all that were never submitted, or those with these names.

    May be repeated after an interruption: what the provider has already is read back from it. Raises WaError.
    """

    async def work(connection: db.Connection) -> list[Submission]:
        done: list[Submission] = []
        for account in await _accounts(connection, settings, box, only):
            await _act_for(connection, account)
            rows = await connection.execute(
                "SELECT template_id, name, language, provider_template_id, request, problem"
                " FROM get_wa_template_submissions(%s, %s)",
                (account.waba_id, list(names) or None),
            )
            for *template, problem in await rows.fetchall():
                if problem:
                    _, name, language, _, request = template
                    done.append(Submission(name, language, "kept back", "", request["category"], problem))
                else:
                    done.append(await _submit_one(connection, settings, http, account, *template))
        return done

    return await db.once(settings.conninfo, "templates", work, organization=organization)


async def _submit_one(
    connection: db.Connection,
    settings: Settings,
    http: httpx.AsyncBaseTransport,
    account: Account,
    template_id: UUID,
    name: str,
    language: str,
    provider_id: str | None,
    request: dict[str, Any],
) -> Submission:
    """Submit one template and record the answer before the next one goes."""
    status, answer, problem = await _call(
        http, account, _url(settings, provider_id or f"{account.waba_id}/message_templates"), request
    )
    recorded = await connection.execute(
        "SELECT record_wa_template_submission(%s, %s, %s, %s::jsonb)",
        (template_id, account.waba_id, status, orjson.dumps(answer).decode()),
    )
    row = await recorded.fetchone()
    outcome = str(row[0]) if row else "failed"
    if outcome == "failed":
        raise ProviderError(
            f'template "{name}" ({language}) could not be submitted: {problem}',
            "Is the token valid for it, with whatsapp_business_management? A repeat goes on from here.",
        )
    if outcome in ("exists", "edited"):
        # Submitted before, perhaps by a run that was killed before it recorded so, or changed: what the
        # provider says is what counts.
        await _read_back(connection, settings, http, account, request["name"], language)
    shown = await connection.execute(
        "SELECT status, category, rejected_reason FROM wa_templates WHERE id = %s", (template_id,)
    )
    found = await shown.fetchone()
    state, category, reason = found if found else ("", "", None)
    if outcome == "refused":
        reason = _refusal(answer["error"])
    return Submission(name, language, outcome, state, category, reason)


def _refusal(error: dict[str, Any]) -> str:
    """What the provider says is wrong with a template."""
    codes = "/".join(str(error[key]) for key in ("code", "error_subcode") if error.get(key) is not None)
    details = (error.get("error_data") or {}).get("details")
    return f"{codes}: {error.get('error_user_msg') or details or error.get('message')}"


async def _read_back(
    connection: db.Connection,
    settings: Settings,
    http: httpx.AsyncBaseTransport,
    account: Account,
    name: str,
    language: str,
) -> None:
    """Store what the provider has under a name and language."""
    after: str | None = None
    while True:
        page = await _fetch(settings, http, account, after, name)
        # The provider's filter finds longer names, too.
        found = [t for t in page.get("data", []) if (t.get("name"), t.get("language")) == (name, language)]
        if found:
            await connection.execute(
                "SELECT upsert_wa_templates(%s, %s::jsonb)", (account.waba_id, orjson.dumps(found).decode())
            )
            return
        after = page.get("paging", {}).get("cursors", {}).get("after")
        if "next" not in page.get("paging", {}) or after is None:
            raise ProviderError(
                f'template "{name}" ({language}) exists at the provider, but it does not list it',
                "Deleted lately? Its name is free again after 30 days.",
            )


async def list_templates(
    settings: Settings, status: str | None, organization: str | None = None
) -> list[dict[str, Any]]:
    """The templates of an organization, or all that the role may see, as rows for a table."""

    async def work(connection: db.Connection) -> list[dict[str, Any]]:
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                """
                SELECT name, language, category, status, is_enabled AS enabled, quality_score AS quality,
                    waba_id AS account, provider_template_id AS provider_id,
                    coalesce(
                        rejected_reason, blocked_reason,
                        CASE WHEN correct_category <> category THEN 'becomes ' || correct_category END
                    ) AS note
                FROM wa_templates
                WHERE (%(status)s::text IS NULL OR status = upper(%(status)s::text))
                    AND (%(is_all)s OR organization_id = current_wa_organization())
                ORDER BY lower(name), language, waba_id
                """,
                {"status": status, "is_all": organization is None},
            )
            return await cursor.fetchall()

    return await db.once(settings.conninfo, "templates", work, organization=organization)


async def _act_for(connection: db.Connection, account: Account) -> None:
    await connection.settle({"wa.organization_id": account.organization})


async def _accounts(
    connection: db.Connection, settings: Settings, box: SecretBox | None, only: str | None
) -> list[Account]:
    """Each account once, with a stored token or else the environment's; or only the one that is named."""
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
            _logger.error(str(error), waba_id=waba_id, key_id=error.key_id, hint=error.hint)
            continue
        accounts[organization, waba_id] = Account(organization, waba_id, token)
    if settings.access_token is not None and settings.provider == "meta":
        numbers = await connection.execute(
            "SELECT DISTINCT organization_id::text, waba_id FROM wa_phone_numbers WHERE provider = 'meta'"
        )
        for organization, waba_id in await numbers.fetchall():
            token = settings.access_token.get_secret_value()
            accounts.setdefault((organization, waba_id), Account(organization, waba_id, token))
    chosen = connection.settings.get("wa.organization_id")
    wanted = [
        account
        for account in accounts.values()
        if only in (None, account.waba_id) and chosen in (None, account.organization)
    ]
    if not wanted:
        which = f"account {only}" if only else "any account"
        raise WaError(f"no access token for {which}", "bin/wa secrets set access_token --number ID")
    return wanted


async def _sync_account(
    connection: db.Connection, settings: Settings, http: httpx.AsyncBaseTransport, account: Account
) -> int:
    """Read all pages; returns how many templates there are."""
    await _act_for(connection, account)
    while True:
        begun = await connection.execute("SELECT begin_wa_template_sync(%s)", (account.waba_id,))
        row = await begun.fetchone()
        resumed_after: str | None = row[0] if row else None
        count = await _read_pages(connection, settings, http, account, resumed_after)
        await connection.execute("SELECT finish_wa_template_sync(%s)", (account.waba_id,))
        if resumed_after is None:
            return count
        # The rest is here. What was read before the interruption may have changed since: read all once more.
        _logger.info("interrupted sync completed, reading all", waba_id=account.waba_id)


async def _read_pages(
    connection: db.Connection,
    settings: Settings,
    http: httpx.AsyncBaseTransport,
    account: Account,
    after: str | None,
) -> int:
    count = 0
    while True:
        try:
            page = await _fetch(settings, http, account, after)
        except _BadCursorError:
            # Cursors grow old: from the beginning then.
            _logger.info("cursor no longer valid, starting over", waba_id=account.waba_id)
            after, count = None, 0
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
            return count


class _BadCursorError(Exception):
    """The provider no longer knows the place where the sync had stopped."""


def _url(settings: Settings, path: str, **query: str) -> httpx.URL:
    prefix = PROVIDERS["meta"].prefix(settings.base_url("meta"), settings.api_version)
    return httpx.URL(f"{prefix}/{path}", params=query)


async def _fetch(
    settings: Settings,
    http: httpx.AsyncBaseTransport,
    account: Account,
    after: str | None,
    name: str | None = None,
) -> dict[str, Any]:
    """One page of the templates, or of those with a name. Raises ProviderError, _BadCursorError."""
    query = {"fields": FIELDS, "limit": str(PAGE)}
    query |= {"after": after} if after else {}
    query |= {"name": name} if name else {}
    url = _url(settings, f"{account.waba_id}/message_templates", **query)
    status, answer, problem = await _call(http, account, url)
    if status == 200:
        return answer
    if after is not None and answer.get("error", {}).get("code") == BAD_CURSOR:
        raise _BadCursorError
    raise ProviderError(
        f"the templates of account {account.waba_id} could not be read: {problem}",
        "Is the token valid for it, with whatsapp_business_management? A repeated sync goes on from here.",
    )


async def _call(
    http: httpx.AsyncBaseTransport, account: Account, url: httpx.URL, body: dict[str, Any] | None = None
) -> tuple[int, dict[str, Any], str]:
    """GET, or POST a body: status (0: none), answer and what was wrong in a few words.

    Tried again while the provider is busy or away. That is safe for a POST, too: it refuses to create the
    same template twice, and an edit may be repeated.
    """
    status: int = 0
    answer: dict[str, Any] = {}
    problem = "no answer"
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
        request = httpx.Request(
            "GET" if body is None else "POST",
            url,
            headers=PROVIDERS["meta"].headers(account.token),
            json=body,
            extensions={"timeout": {"read": TIMEOUT_S}},
        )
        try:
            response = await http.handle_async_request(request)
            try:
                content = await read_body(response, LARGEST_PAGE)
            finally:
                await response.aclose()
        except Exception as error:
            problem = type(error).__name__
            continue
        status, parsed = response.status_code, parse_answer(content)
        answer = parsed if isinstance(parsed, dict) else {}
        failure = answer.get("error", {})
        code = failure.get("code")
        problem = f"HTTP {status}, code {code}"
        is_answer = isinstance(parsed, dict) and status < 500 and status != 429
        if is_answer and code not in BUSY_CODES and not failure.get("is_transient"):
            break
    return status, answer, problem
