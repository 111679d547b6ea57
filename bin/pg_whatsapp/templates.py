"""`wa templates`: the provider's templates into wa_templates page by page, drafts to its review."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import httpx
from psycopg.rows import dict_row

from pg_whatsapp import db, log
from pg_whatsapp.config import Settings
from pg_whatsapp.errors import ProviderError, SealError, WaError
from pg_whatsapp.providers import PROVIDERS
from pg_whatsapp.providers.templates import TemplatePage, Templates
from pg_whatsapp.secrets import SecretBox
from pg_whatsapp.template_books import Books, Draft, SessionBooks
from pg_whatsapp.transport import parse_answer, read_body

_logger = log.get("templates")
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
    provider: str


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
        counts: dict[str, int] = {}
        failures: list[ProviderError] = []
        for account in await _accounts(connection, settings, box, only):
            await _act_for(connection, account)
            books = SessionBooks(connection, account.waba_id)
            try:
                counts[account.waba_id] = await sync_account(books, settings, http, account)
            except ProviderError as error:
                # The accounts behind it are others'.
                failures.append(error)
                _logger.error(str(error), waba_id=account.waba_id, hint=error.hint)
        if failures:
            raise failures[0]
        return counts

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
            books = SessionBooks(connection, account.waba_id)
            done += await submit_drafts(books, settings, http, account, list(names) or None)
        return done

    return await db.once(settings.conninfo, "templates", work, organization=organization)


async def submit_drafts(
    books: Books,
    settings: Settings,
    http: httpx.AsyncBaseTransport,
    account: Account,
    names: list[str] | None = None,
) -> list[Submission]:
    """Hand an account's drafts to review, each recorded before the next one goes. Raises ProviderError."""
    return [
        Submission(draft.name, draft.language, "kept back", "", draft.request["category"], draft.problem)
        if draft.problem
        else await _submit_one(books, settings, http, account, draft)
        for draft in await books.drafts(names)
    ]


async def _submit_one(
    books: Books, settings: Settings, http: httpx.AsyncBaseTransport, account: Account, draft: Draft
) -> Submission:
    path = _templates(account).submission(account.waba_id, draft.provider_id)
    if path is None:
        why = "this provider's API changes no template: do it in its console, or give it another name"
        return Submission(draft.name, draft.language, "kept back", "", draft.request["category"], why)
    status, answer, problem = await _call(http, account, _url(settings, account, path), draft.request)
    outcome = await books.record(draft.template_id, status, answer)
    if outcome == "failed":
        raise ProviderError(
            f'template "{draft.name}" ({draft.language}) could not be submitted: {problem}',
            "Is the token valid for it, with whatsapp_business_management? A repeat goes on from here.",
            status,
            answer,
        )
    if outcome in ("exists", "edited"):
        # Submitted before, perhaps by a run that was killed before it recorded so, or changed: what the
        # provider says is what counts.
        await _read_back(books, settings, http, account, draft.request["name"], draft.language)
    state, category, reason = await books.standing(draft.template_id) or ("", "", None)
    if outcome == "refused":
        reason = _refusal(answer["error"])
    return Submission(draft.name, draft.language, outcome, state, category, reason)


def _refusal(error: dict[str, Any]) -> str:
    """What the provider says is wrong with a template."""
    codes = "/".join(str(error[key]) for key in ("code", "error_subcode") if error.get(key) is not None)
    details = (error.get("error_data") or {}).get("details")
    return f"{codes}: {error.get('error_user_msg') or details or error.get('message')}"


async def _read_back(
    books: Books,
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
        found = [t for t in page.templates if (t.get("name"), t.get("language")) == (name, language)]
        if found:
            await books.store(found)
            return
        after = page.after
        if page.is_last or after is None:
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
    able = [name for name, one in PROVIDERS.items() if one.templates is not None]
    stored = await connection.execute(
        "SELECT organization_id::text, waba_id, sealed_for, ciphertext, key_id, provider"
        " FROM get_wa_credentials() WHERE provider = ANY (%s) ORDER BY phone_number_id",
        (able,),
    )
    for organization, waba_id, number, ciphertext, key_id, provider in await stored.fetchall():
        if box is None or (organization, waba_id) in accounts:
            continue
        try:
            token = box.open(organization, "access_token", number, bytes(ciphertext), key_id)
        except SealError as error:
            _logger.error(str(error), waba_id=waba_id, key_id=error.key_id, hint=error.hint)
            continue
        accounts[organization, waba_id] = Account(organization, waba_id, token, provider)
    if settings.access_token is not None and settings.provider in able:
        numbers = await connection.execute(
            # It is the default organization's, as Credentials has it.
            "SELECT DISTINCT n.organization_id::text, n.waba_id FROM wa_phone_numbers n"
            " JOIN wa_organizations o ON o.id = n.organization_id AND o.is_default WHERE n.provider = %s",
            (settings.provider,),
        )
        for organization, waba_id in await numbers.fetchall():
            token = settings.access_token.get_secret_value()
            account = Account(organization, waba_id, token, settings.provider)
            accounts.setdefault((organization, waba_id), account)
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


async def sync_account(
    books: Books, settings: Settings, http: httpx.AsyncBaseTransport, account: Account
) -> int:
    """Read all pages of an account; returns how many templates there are. Raises ProviderError."""
    while True:
        resumed_after = await books.begin()
        count = await _read_pages(books, settings, http, account, resumed_after)
        await books.finish()
        if resumed_after is None:
            return count
        # The rest is here. What was read before the interruption may have changed since: read all once more.
        _logger.info("interrupted sync completed, reading all", waba_id=account.waba_id)


async def _read_pages(
    books: Books,
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
        after = page.after
        await books.advance(after, page.templates)
        count += len(page.templates)
        if page.is_last or after is None:
            return count


def _templates(account: Account) -> Templates:
    templates = PROVIDERS[account.provider].templates
    if templates is None:
        raise WaError(f"templates of {account.provider} are not read", "Keep wa_templates by hand.")
    return templates


class _BadCursorError(Exception):
    """The provider no longer knows the place where the sync had stopped."""


def _url(settings: Settings, account: Account, path: str, **query: str) -> httpx.URL:
    base_url = settings.base_url(account.provider, _templates(account).base_url)
    prefix = PROVIDERS[account.provider].prefix(base_url, settings.api_version)
    return httpx.URL(f"{prefix}/{path}", params=query)


async def _fetch(
    settings: Settings,
    http: httpx.AsyncBaseTransport,
    account: Account,
    after: str | None,
    name: str | None = None,
) -> TemplatePage:
    """One page of the templates, or of those with a name. Raises ProviderError, _BadCursorError."""
    templates = _templates(account)
    path, query = templates.listing(account.waba_id, after, name)
    status, answer, problem = await _call(http, account, _url(settings, account, path, **query))
    if status == 200:
        return _of_account(templates.page(answer, after), account)
    if after is not None and answer.get("error", {}).get("code") == BAD_CURSOR:
        raise _BadCursorError
    raise ProviderError(
        f"the templates of account {account.waba_id} could not be read: {problem}",
        "Is the token valid for it, with whatsapp_business_management? A repeated sync goes on from here.",
        status,
        answer,
    )


def _of_account(page: TemplatePage, account: Account) -> TemplatePage:
    """The page; raises ProviderError where the token read another account's."""
    strange = {one["account"] for one in page.templates if one.get("account")} - {account.waba_id}
    if strange:
        raise ProviderError(
            f"the token of account {account.waba_id} reads the templates of {', '.join(sorted(strange))}",
            "Store a token of the account itself: bin/wa secrets set access_token --number ID",
            403,
        )
    return page


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
            headers=PROVIDERS[account.provider].headers(account.token),
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
        answer = _templates(account).canonical(parsed, status) if isinstance(parsed, dict) else {}
        failure = answer.get("error", {})
        code = failure.get("code")
        problem = f"HTTP {status}, code {code}"
        is_answer = isinstance(parsed, dict) and status < 500 and status != 429
        if is_answer and code not in BUSY_CODES and not failure.get("is_transient"):
            break
    return status, answer, problem
