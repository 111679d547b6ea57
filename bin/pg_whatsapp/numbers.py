"""Business numbers: the one that the environment names, and what the provider is asked about them."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, LiteralString

import orjson
import psycopg
from psycopg.rows import dict_row

from pg_whatsapp import db, log
from pg_whatsapp.config import Settings
from pg_whatsapp.errors import WaError
from pg_whatsapp.secrets import SecretBox
from pg_whatsapp.stored_secrets import set_secret

_logger = log.get("numbers")
POLL_S = 0.2
_WHY = "docs/numbers.md says what the codes mean; wa_provider_calls has the whole answer."
_WHERE = "bin/wa dispatch makes the call: see its environment and its log; wa_provider_calls has the row."


async def register_from_environment(settings: Settings) -> None:
    """Register the number of WHATSAPP_PHONE_NUMBER_ID for the default organization if that has none.

    A role that may not do so (wa_dispatcher and wa_receiver may not) leaves it to someone who may.
    """
    if not settings.phone_number_id:
        return
    number = settings.phone_number_id
    try:
        connection = await db.connect(settings.conninfo, "register")
        async with connection:
            # Its phone number may not be known here; a later call with it, or a webhook, tells it.
            found = await connection.execute(
                "SELECT register_wa_first_number(%s, %s, %s, %s, %s, %s, %s)",
                (
                    number, settings.phone_number or "", settings.waba_id or "", settings.provider,
                    settings.enable_media, settings.enable_templates, settings.retention_days,
                ),
            )  # fmt: skip
            if await found.fetchone() == (True,):
                _logger.info("number registered", phone_number_id=number)
    except psycopg.errors.InsufficientPrivilege:
        _logger.info(
            "this role registers no numbers, that of the environment is left as it is",
            phone_number_id=number,
            hint="Where it is not registered yet, a wa_admin calls register_wa_phone_number().",
        )
    except psycopg.Error as error:
        _logger.warning(
            "number of the environment not registered", phone_number_id=number, **log.describe(error)
        )


async def list_numbers(settings: Settings, organization: str | None = None) -> list[dict[str, Any]]:
    """The business numbers of an organization, or all that the role may see, as rows for a table."""

    async def work(connection: db.Connection) -> list[dict[str, Any]]:
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                "SELECT n.phone_number_id AS number, n.display_phone AS phone, n.provider,"
                " n.waba_id AS account, n.status, n.quality_rating AS quality,"
                " p.messaging_limit AS limit, n.pause_reason AS paused"
                " FROM wa_phone_numbers n JOIN wa_portfolios p USING (organization_id, portfolio_id)"
                " WHERE %s OR n.organization_id = current_wa_organization() ORDER BY n.phone_number_id",
                (organization is None,),
            )
            return await cursor.fetchall()

    return await db.once(settings.conninfo, "numbers", work, organization=organization)


async def register_number(
    settings: Settings, box: SecretBox, number: str, pin: str, wait_s: float, organization: str | None = None
) -> None:
    """Store a PIN sealed and have the provider register the number with it. Raises WaError."""
    await set_secret(
        settings, box, "registration_pin", number, pin, keep_previous=False, organization=organization
    )
    await ask(settings, "SELECT request_wa_number_registration(%s)", (number,), wait_s, organization)


async def work_on_profile(
    settings: Settings, number: str, parts: dict[str, Any], wait_s: float, organization: str | None = None
) -> dict[str, Any]:
    """The business profile of a number, after setting some parts of it. Raises WaError."""
    if parts:
        given = orjson.dumps(parts).decode()
        await ask(
            settings, "SELECT set_wa_business_profile(%s, %s::jsonb)", (number, given), wait_s, organization
        )
    (answer,) = await ask(settings, "SELECT request_wa_business_profile(%s)", (number,), wait_s, organization)
    profile: dict[str, Any] = ((answer or {}).get("data") or [{}])[0]
    return {name: value for name, value in profile.items() if name != "messaging_product"}


def _not_yet(call: tuple[Any, ...]) -> WaError:
    """Why a call is not done, as far as its row says."""
    _, error, _, _, next_attempt_at = call
    if error is None:
        hint = "bin/wa dispatch does it: does one run? wa_provider_calls tells what comes of it."
        return WaError("asked for, but not done yet", hint)
    return WaError(
        f"asked for, but not done yet; the last try failed: {error}",
        f"It is tried again, next at {next_attempt_at}; wa_provider_calls tells what comes of it.",
    )


async def ask(
    settings: Settings,
    statement: LiteralString,
    arguments: tuple[Any, ...],
    wait_s: float,
    organization: str | None = None,
) -> list[Any]:
    """Have calls of the provider made by a statement that returns their ids; what the provider answered.

    Raises WaError where one fails, or is not made in time.
    """

    async def work(connection: db.Connection) -> list[Any]:
        ids = [row[0] for row in await (await connection.execute(statement, arguments)).fetchall()]
        until = monotonic() + wait_s
        while True:
            found = await connection.execute(
                "SELECT c.state, c.error, c.result, c.http_status, c.next_attempt_at::text"
                " FROM unnest(%s::uuid[]) WITH ORDINALITY u (id, n)"
                " JOIN wa_provider_calls c ON c.id = u.id ORDER BY u.n",
                (ids,),
            )
            calls = await found.fetchall()
            for state, error, _, http_status, _ in calls:
                if state == "failed" and http_status is None:
                    raise WaError(f"not done, the provider has answered nothing: {error}", _WHERE)
                if state == "failed":
                    raise WaError(f"the provider did not do it: {error}", _WHY)
            if all(call[0] == "done" for call in calls):
                return [call[2] for call in calls]
            if monotonic() >= until:
                raise _not_yet(next(call for call in calls if call[0] != "done"))
            await asyncio.sleep(POLL_S)

    return await db.once(settings.conninfo, "numbers", work, organization=organization)
