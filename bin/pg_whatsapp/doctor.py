"""`wa doctor`: what is wrong, one line each, with the way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import psycopg

from pg_whatsapp import __version__, db, errors
from pg_whatsapp.config import Settings
from pg_whatsapp.secrets import load_box


class Finding(NamedTuple):
    """One line of the report; hint is the way out of what is wrong."""

    name: str
    is_good: bool
    text: str
    hint: str | None = None


Check = Callable[[db.Connection, Settings], Awaitable[Finding]]


async def _server(connection: db.Connection, _settings: Settings) -> Finding:
    version = connection.info.server_version
    text = f"PostgreSQL {version // 10000}.{version % 10000}"
    return Finding("server", version >= 150000, text, "PostgreSQL 15 or newer is needed.")


async def _versions(connection: db.Connection, _settings: Settings) -> Finding:
    row = await (
        await connection.execute("SELECT extension_version, schema_version FROM wa_version()")
    ).fetchone()
    extension, schema = row if row else (None, None)
    text = f"program {__version__}, extension {extension}, schema {schema}"
    return Finding(
        "versions",
        __version__ == extension == schema,
        text,
        "bin/wa migrate brings extension and schema to the server's release.",
    )


async def _migrations(connection: db.Connection, _settings: Settings) -> Finding:
    rows = await connection.execute("SELECT step FROM plan_wa_migration() WHERE action <> 'unchanged'")
    pending = [step for (step,) in await rows.fetchall()]
    return Finding(
        "migrations", not pending, f"{len(pending)} pending" if pending else "none pending", "bin/wa migrate"
    )


async def _phone_rules(connection: db.Connection, _settings: Settings) -> Finding:
    row = await (await connection.execute("SELECT wa_phonenumbers_version()")).fetchone()
    release = row[0] if row else None
    return Finding(
        "phone rules",
        release is not None,
        f"phonenumbers {release}",
        "make install puts the library beside the extension.",
    )


async def _key(connection: db.Connection, settings: Settings) -> Finding:
    try:
        box = load_box(settings)
    except errors.SecretKeyError as error:
        return Finding("master key", False, str(error), error.hint)
    rows = await connection.execute("SELECT DISTINCT key_id FROM wa_secrets WHERE is_active")
    needed = {key_id for (key_id,) in await rows.fetchall()}
    if box is None:
        hint = "Set WA_SECRET_KEY or WA_SECRET_KEY_FILE to the key that sealed the stored secrets."
        text = "not set" if needed else "not set, nothing is sealed"
        return Finding("master key", not needed, text, hint)
    missing = needed - box.key_ids
    text = f"{len(missing)} older keys missing" if missing else "opens all"
    hint = "Add the older keys to WA_SECRET_KEY_FILE, or set those secrets again."
    return Finding("master key", not missing, text, hint)


async def _adopted(connection: db.Connection, _settings: Settings) -> Finding:
    try:
        await connection.execute("SELECT _wa_require_installation()")
    except psycopg.Error as error:
        refusal = errors.from_database(error)
        return Finding("database", False, str(refusal), refusal.hint)
    return Finding("database", True, "is the one that sends")


async def _sending(connection: db.Connection, _settings: Settings) -> Finding:
    row = await (
        await connection.execute("SELECT is_sending_enabled, sending_note FROM wa_installations")
    ).fetchone()
    is_enabled = bool(row and row[0])
    return Finding(
        "kill switch",
        is_enabled,
        "off" if is_enabled else "sending is switched off",
        "SELECT set_wa_sending(true);",
    )


async def _dispatcher(connection: db.Connection, _settings: Settings) -> Finding:
    row = await (
        await connection.execute(
            "SELECT count(*) FROM wa_dispatchers"
            " WHERE stopped_at IS NULL AND seen_at > clock_timestamp() - interval '15 seconds'"
        )
    ).fetchone()
    alive = row[0] if row else 0
    return Finding("dispatcher", alive > 0, f"{alive} alive", "Start one: bin/wa dispatch")


async def _numbers(connection: db.Connection, _settings: Settings) -> Finding:
    rows = await connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE pause_scope IS NOT NULL"
        " AND coalesce(paused_until, 'infinity') > clock_timestamp()) FROM wa_phone_numbers"
    )
    known, paused = (await rows.fetchone()) or (0, 0)
    if not known:
        return Finding("numbers", False, "none registered", "SELECT register_wa_phone_number(...);")
    return Finding(
        "numbers",
        not paused,
        f"{known} registered, {paused} paused",
        "wa_phone_numbers.pause_reason says why; then SELECT resume_wa_number(phone_number_id).",
    )


CHECKS: tuple[Check, ...] = (
    _server,
    _versions,
    _migrations,
    _phone_rules,
    _adopted,
    _sending,
    _key,
    _numbers,
    _dispatcher,
)


async def examine(settings: Settings) -> list[Finding]:
    """Run all checks; a check that cannot be made is a finding too. Raises WaError without a database."""

    async def work(connection: db.Connection) -> list[Finding]:
        findings = []
        for check in CHECKS:
            try:
                findings.append(await check(connection, settings))
            except psycopg.Error as error:
                refusal = errors.from_database(error)
                name = check.__name__.lstrip("_").replace("_", " ")
                hint = refusal.hint or "Run it as a member of wa_admin."
                findings.append(Finding(name, False, f"cannot be checked: {refusal}", hint))
        return findings

    return await db.once(settings.conninfo, "doctor", work)
