"""`wa migrate`: the extension, then the schema, in one transaction."""

from __future__ import annotations

import psycopg
from psycopg import sql

from pg_whatsapp import db, errors
from pg_whatsapp.config import Settings

_EXTENSION = (
    "SELECT e.extversion, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
    " WHERE e.extname = 'pg_whatsapp'"
)
_AVAILABLE = "SELECT default_version FROM pg_available_extensions WHERE name = 'pg_whatsapp'"


def _extension_statements(
    installed: str | None, available: str | None, schema: str | None
) -> list[sql.Composed]:
    """What brings the extension itself to the version that the server has."""
    if installed is None:
        where = sql.SQL(" SCHEMA {}").format(sql.Identifier(schema)) if schema else sql.SQL("")
        make = [sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema))] if schema else []
        return [*make, sql.SQL("CREATE EXTENSION pg_whatsapp{} CASCADE").format(where)]
    if available is not None and installed != available:
        return [sql.SQL("ALTER EXTENSION pg_whatsapp UPDATE").format()]
    return []


class _DryRunError(Exception):
    """Ends the transaction of a dry run."""


async def migrate(settings: Settings, schema: str | None, dry_run: bool) -> list[str]:
    """Create or update the extension, then call migrate_wa(); returns the lines to show.

    schema: where a new extension goes, None for the database's default. With dry_run everything is tried and
    rolled back, and the lines are the SQL that would run. Raises WaError.
    """

    async def work(connection: db.Connection) -> list[str]:
        lines: list[str] = []
        try:
            async with connection.transaction():
                installed = await (await connection.execute(_EXTENSION)).fetchone()
                available = await (await connection.execute(_AVAILABLE)).fetchone()
                if installed and schema not in (None, installed[1]):
                    raise errors.ConfigError(
                        f'the extension is in schema "{installed[1]}" already, not in "{schema}"',
                        "Leave --schema out; ALTER EXTENSION cannot move it.",
                    )
                for statement in _extension_statements(
                    installed[0] if installed else None, available[0] if available else None, schema
                ):
                    await connection.execute(statement)
                    lines.append(statement.as_string(connection) + ";")
                await db.set_search_path(connection)
                if dry_run:
                    plan = await connection.execute("SELECT step, action, body FROM plan_wa_migration()")
                    for step, action, body in await plan.fetchall():
                        lines.append(f"-- {step}: {action}")
                        if body and action != "unchanged":
                            lines.append(body)
                    raise _DryRunError
                steps = await connection.execute("SELECT step, action FROM migrate_wa()")
                lines += [f"{step}: {action}" for step, action in await steps.fetchall()]
        except _DryRunError:
            pass
        except psycopg.Error as error:
            raise errors.from_database(error, with_detail=True) from error
        return lines

    return await db.once(settings.conninfo, "migrate", work, need_schema=False)
