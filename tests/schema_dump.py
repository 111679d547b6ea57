"""The schema of a database in a form that can be compared."""

from __future__ import annotations

import re
import subprocess

from harness import Database

_BY_NATURE = re.compile(
    r"^--|^\\(un)?restrict|binary_upgrade|relfrozenxid|pg_catalog\.setval|^WHERE oid = |^\s*$"
)


def schema_of(database: Database) -> list[str]:
    """The schema as pg_dump prints it, sorted, with the extension's own functions, comments and grants.

    Without what differs by nature: object ids, places of sequences and the like.
    """
    done = subprocess.run(
        [database.server.bindir / "pg_dump", "--schema-only", "--binary-upgrade", database.dsn],
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(
        re.sub(r"\b\d{5,}\b", "N", line) for line in done.stdout.splitlines() if not _BY_NATURE.search(line)
    )
