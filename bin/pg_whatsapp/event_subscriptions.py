"""`wa events`: subscriptions with secrets that only their receivers and we know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from pg_whatsapp import db, standard_webhooks
from pg_whatsapp.config import Settings
from pg_whatsapp.secrets import SecretBox

#: Under this name secrets of subscriptions are sealed, bound to the id of theirs.
SECRET_NAME = "event_secret"  # noqa: S105


async def subscribe(
    settings: Settings, box: SecretBox, url: str, kinds: Sequence[str], organization: str | None = None
) -> tuple[str, str]:
    """Push events of these kinds to a URL from now on; returns the subscription's id and its secret.

    The secret is told here only. Raises WaError.
    """

    async def work(connection: db.Connection) -> tuple[str, str]:
        made, secret = str(uuid4()), standard_webhooks.make_secret()
        sealed = box.seal(await _organization(connection), SECRET_NAME, made, secret)
        await connection.execute(
            "SELECT create_wa_event_subscription(%s, %s, %s, %s, %s, %s)",
            (made, url, list(kinds), sealed.ciphertext, sealed.key_id, sealed.fingerprint),
        )
        return made, secret

    return await db.once(settings.conninfo, "events", work, organization=organization)


async def rotate(
    settings: Settings, box: SecretBox, subscription: UUID, overlap_h: float, organization: str | None = None
) -> tuple[str, str]:
    """Sign with a new secret from now on, and with the present one beside it for so many hours.

    Returns the new secret, told here only, and until when the former one signs. Raises WaError.
    """

    async def work(connection: db.Connection) -> tuple[str, str]:
        secret = standard_webhooks.make_secret()
        sealed = box.seal(await _organization(connection), SECRET_NAME, str(subscription), secret)
        row = await (
            await connection.execute(
                "SELECT rotate_wa_event_secret(%s, %s, %s, %s, make_interval(secs => %s))::text",
                (subscription, sealed.ciphertext, sealed.key_id, sealed.fingerprint, overlap_h * 3600),
            )
        ).fetchone()
        assert row is not None  # noqa: S101
        return secret, row[0]

    return await db.once(settings.conninfo, "events", work, organization=organization)


async def list_subscriptions(settings: Settings, organization: str | None = None) -> list[dict[str, Any]]:
    """What wa_event_subscription_health tells of each subscription. Raises WaError."""

    async def work(connection: db.Connection) -> list[dict[str, Any]]:
        cursor = await connection.execute(
            "SELECT id, url, array_to_string(kinds, ',') AS kinds, state, state_reason AS reason, waiting,"
            " failing_since, last_error FROM wa_event_subscription_health"
            " WHERE %s OR organization_id = current_wa_organization() ORDER BY url, id",
            (organization is None,),
        )
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]

    return await db.once(settings.conninfo, "events", work, organization=organization)


async def _organization(connection: db.Connection) -> str:
    row = await (await connection.execute("SELECT current_wa_organization()::text")).fetchone()
    assert row is not None  # noqa: S101
    return str(row[0])
