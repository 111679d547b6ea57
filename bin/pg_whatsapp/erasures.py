"""Who was erased, in a file beside the backups, and erased again in what is restored from them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pg_whatsapp import db
from pg_whatsapp.errors import ConfigError

if TYPE_CHECKING:
    from pg_whatsapp.config import Settings


async def export(settings: Settings, path: Path | None) -> int:
    """Write the hashes of all erased persons, and their keys, to a file that only its owner may read.

    Replaces what is there once all is written; without a path, to standard output. Returns how many hashes.
    """

    async def work(connection: db.Connection) -> list[dict[str, Any]]:
        rows = await (await connection.execute("SELECT export_wa_erasures()")).fetchall()
        return [row[0] for row in rows]

    organizations = await db.once(settings.conninfo, "erasures", work)
    if path is None:
        print(json.dumps(organizations), flush=True)
    else:
        _write(path, json.dumps(organizations))
    return sum(len(one["identities"]) for one in organizations)


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    # Keys: into no file that somebody else has put there to read it.
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path) -> str:
    """The text of an export. Raises ConfigError for a file that is none."""
    try:
        text = path.read_text()
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as an export of erasures") from error
    if not isinstance(found, list):
        raise ConfigError(f"{path} is no export of erasures")
    return text


async def reapply(settings: Settings, exports: str) -> list[tuple[str, int, int]]:
    """Erase again; by organization, how many hashes were new and how many contacts are erased."""

    async def work(connection: db.Connection) -> list[tuple[str, int, int]]:
        found = await connection.execute(
            "SELECT organization_id::text, identities, contacts FROM reapply_wa_erasures(%s::jsonb)",
            (exports,),
        )
        return await found.fetchall()

    return await db.once(settings.conninfo, "erasures", work)
