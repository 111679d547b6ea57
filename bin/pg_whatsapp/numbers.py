"""Registers the number that the environment names, so that a first start needs no SQL."""

from __future__ import annotations

import psycopg

from pg_whatsapp import db, log
from pg_whatsapp.config import Settings

_logger = log.get("numbers")


async def register_from_environment(settings: Settings) -> None:
    """Register the number of WHATSAPP_PHONE_NUMBER_ID for the default organization if that has none.

    A role that may not do so (wa_dispatcher and wa_receiver may not) leaves it to someone who may.
    """
    if not settings.phone_number_id:
        return
    number = settings.phone_number_id

    async def register(connection: db.Connection) -> bool:
        found = await connection.execute(
            "SELECT o.id::text FROM wa_organizations o"
            " WHERE o.is_default"
            " AND NOT EXISTS (SELECT FROM wa_phone_numbers n WHERE n.organization_id = o.id)"
        )
        row = await found.fetchone()
        if row is None:
            return False
        if not settings.waba_id:
            _logger.warning(
                "number not registered: WHATSAPP_BUSINESS_ACCOUNT_ID is not set", phone_number_id=number
            )
            return False
        async with connection.transaction():
            await connection.execute("SELECT set_config('wa.organization_id', %s, true)", row)
            # Its phone number is not known here; a second call with it, or a webhook, tells it later.
            await connection.execute(
                "SELECT register_wa_phone_number(%s, %s, %s, %s)",
                (number, "", settings.waba_id, settings.provider),
            )
        return True

    try:
        connection = await db.connect(settings.conninfo, "register")
        async with connection:
            if await register(connection):
                _logger.info("number registered", phone_number_id=number)
    except psycopg.errors.InsufficientPrivilege:
        _logger.info(
            "not allowed to register the number of the environment",
            phone_number_id=number,
            hint="A wa_admin calls register_wa_phone_number().",
        )
    except psycopg.Error as error:
        _logger.warning(
            "number of the environment not registered", phone_number_id=number, **log.describe(error)
        )
