"""Keys of the HTTP API, as the database makes, lists and ends them."""

from __future__ import annotations

from typing import Any

from psycopg.rows import dict_row

from pg_whatsapp import db
from pg_whatsapp.config import Settings


async def create(
    settings: Settings,
    name: str,
    role: str,
    scopes: list[str],
    expires: str | None,
    is_test: bool,
    requests_per_minute: int | None,
    organization: str | None,
) -> tuple[str, str]:
    """Make a key; its id and the key itself, which is stored nowhere. Raises DatabaseError."""

    async def work(connection: db.Connection) -> tuple[str, str]:
        cursor = await connection.execute(
            "SELECT id::text, api_key FROM create_wa_api_key(%s, %s, %s, %s::timestamptz, %s, %s)",
            (name, role, scopes, expires, is_test, requests_per_minute),
        )
        [row] = await cursor.fetchall()
        return row[0], row[1]

    return await db.once(settings.conninfo, "keys", work, organization=organization)


async def list_keys(settings: Settings, organization: str | None) -> list[dict[str, Any]]:
    """The keys of an organization, without what would open anything."""

    async def work(connection: db.Connection) -> list[dict[str, Any]]:
        cursor = connection.cursor(row_factory=dict_row)
        await cursor.execute(
            "SELECT id::text, name, prefix, role_name AS role, array_to_string(scopes, ' ') AS scopes,"
            " is_test, state, expires_at, last_used_at FROM list_wa_api_keys()"
        )
        return await cursor.fetchall()

    return await db.once(settings.conninfo, "keys", work, organization=organization)


async def revoke(settings: Settings, key_id: str, organization: str | None) -> bool:
    """End a key; whether there was one to end."""

    async def work(connection: db.Connection) -> bool:
        cursor = await connection.execute("SELECT revoke_wa_api_key(%s::uuid)", (key_id,))
        [row] = await cursor.fetchall()
        return bool(row[0])

    return await db.once(settings.conninfo, "keys", work, organization=organization)
