"""`wa flows`: definitions in files, and the runs that are under way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from pg_whatsapp import db
from pg_whatsapp.config import Settings
from pg_whatsapp.errors import WaError


def read(path: Path) -> list[Any]:
    """The definitions of a file: one, or a list of them. Raises WaError."""
    try:
        found = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise WaError(f"{path} is not JSON: {error}", "docs/flows.md shows definitions.") from error
    return found if isinstance(found, list) else [found]


async def store(
    settings: Settings, definitions: list[Any], activate: bool, organization: str | None = None
) -> list[dict[str, Any]]:
    """Store all of them, or none. Raises WaError."""

    async def work(connection: db.Connection) -> list[dict[str, Any]]:
        stored = []
        async with connection.transaction():
            for definition in definitions:
                row = await (
                    await connection.execute(
                        "SELECT name, version, state, state_reason FROM store_wa_flow(%s, %s)",
                        (Jsonb(definition), activate),
                    )
                ).fetchone()
                assert row is not None  # noqa: S101
                stored.append(dict(zip(("flow", "version", "state", "reason"), row, strict=True)))
        return stored

    return await db.once(settings.conninfo, "flows", work, organization=organization)


async def export(settings: Settings, name: str, version: int | None, organization: str | None) -> str:
    """A definition as text. Raises WaError."""

    async def work(connection: db.Connection) -> str:
        row = await (await connection.execute("SELECT export_wa_flow(%s, %s)", (name, version))).fetchone()
        assert row is not None  # noqa: S101
        return json.dumps(row[0], indent=4, ensure_ascii=False)

    return await db.once(settings.conninfo, "flows", work, organization=organization)


async def list_runs(
    settings: Settings, name: str | None, status: str | None, limit: int, organization: str | None
) -> list[dict[str, Any]]:
    """The newest runs. Raises WaError."""

    async def work(connection: db.Connection) -> list[dict[str, Any]]:
        rows = await (
            await connection.execute(
                "SELECT f ->> 'id' AS run, f ->> 'flow' AS flow, f ->> 'version' AS version,"
                " f ->> 'status' AS status, f ->> 'step' AS step, f ->> 'next_action_at' AS next_action_at,"
                " f ->> 'outcome' AS outcome"
                " FROM jsonb_array_elements(list_wa_flow_runs(%s, %s, NULL, %s) -> 'flows') f",
                (name, status, limit),
            )
        ).fetchall()
        names = ("run", "flow", "version", "status", "step", "next_action_at", "outcome")
        return [dict(zip(names, row, strict=True)) for row in rows]

    return await db.once(settings.conninfo, "flows", work, organization=organization)


async def cancel(settings: Settings, run: str, reason: str | None, organization: str | None) -> None:
    """End a run and take back what it has waiting. Raises WaError."""

    async def work(connection: db.Connection) -> None:
        await connection.execute("SELECT cancel_wa_flow(%s::uuid, %s)", (run, reason))

    await db.once(settings.conninfo, "flows", work, organization=organization)
