"""`wa secrets`: what is stored, and storing more."""

from __future__ import annotations

from typing import Any

from pg_whatsapp import db
from pg_whatsapp.config import Settings
from pg_whatsapp.providers import PROVIDERS
from pg_whatsapp.secrets import SecretBox

NAMES = (
    "access_token",
    "app_secret",
    "verify_token",
    *dict.fromkeys(name for provider in PROVIDERS.values() for name in provider.secret_names),
    "registration_pin",
)


async def set_secret(
    settings: Settings,
    box: SecretBox,
    name: str,
    number: str | None,
    value: str,
    *,
    keep_previous: bool,
    organization: str | None = None,
) -> tuple[str, bool]:
    """Seal a value and store it for an organization; without one, for that of the role.

    Returns its fingerprint, and whether the number that it is for is registered.

    number: phone_number_id it belongs to, None for all of the organization. With keep_previous the one before
    stays valid beside it (what webhooks show, and verify tokens, while the provider is being changed over).
    Raises WaError.
    """
    for provider in PROVIDERS.values():
        if name in provider.secret_names:
            provider.check_secret(name, value)

    async def work(connection: db.Connection) -> tuple[str, bool]:
        row = await (await connection.execute("SELECT current_wa_organization()::text")).fetchone()
        assert row is not None  # noqa: S101
        sealed = box.seal(row[0], name, number, value)
        await connection.execute(
            "SELECT set_wa_secret(%s, %s, %s, %s, %s, %s)",
            (name, number, sealed.ciphertext, sealed.key_id, sealed.fingerprint, keep_previous),
        )
        known = await connection.execute("SELECT FROM wa_phone_numbers WHERE phone_number_id = %s", (number,))
        return sealed.fingerprint, number is None or bool(known.rowcount)

    return await db.once(settings.conninfo, "secrets", work, organization=organization)


async def list_secrets(settings: Settings, organization: str | None = None) -> list[dict[str, Any]]:
    """What list_wa_secrets() shows: names, numbers, fingerprints, ages; no values. Raises WaError."""

    async def work(connection: db.Connection) -> list[dict[str, Any]]:
        cursor = await connection.execute(
            "SELECT * FROM list_wa_secrets() WHERE %s OR organization_id = current_wa_organization()",
            (organization is None,),
        )
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]

    return await db.once(settings.conninfo, "secrets", work, organization=organization)
