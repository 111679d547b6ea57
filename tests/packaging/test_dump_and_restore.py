"""A dump is plain PostgreSQL: every restore gives the same rows, and dropping the extension keeps them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Database
from psycopg import sql

WAYS = {
    "plain": [],
    "one transaction": ["-1"],
    "parallel": ["-j4"],
    "stopping at the first error": ["--exit-on-error"],
}


def run(database: Database, program: str, *args: str | Path) -> None:
    """Run one of the server's programs; fails with what it said."""
    done = subprocess.run([database.server.bindir / program, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower(), done.stderr


def contents(database: Database) -> dict[str, list[str]]:
    """Every table of the extension's schema with its rows as sorted text."""
    tables = database.query(
        """
        SELECT c.relname AS name FROM pg_class AS c
        WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
        ORDER BY c.relname
        """,
        f'"{database.schema}"',
    )
    rows: dict[str, list[str]] = {}
    with database.connect() as connection:
        for table in (row["name"] for row in tables):
            every = sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(
                sql.Identifier(database.schema, table)
            )
            rows[table] = [row[0] for row in connection.execute(every)]
    return rows


def dump(database: Database, target: Path) -> Path:
    """Dump a database into a directory that pg_restore can read in parallel."""
    run(database, "pg_dump", "-Fd", "-f", target, database.dsn)
    return target


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("schema", ["public", "odd name-1"])
def test_restored_rows_are_the_same_and_migrate_finds_nothing_to_do(
    make_database: Callable[..., Database], tmp_path: Path, options: list[str], schema: str
) -> None:
    original = make_database(schema)
    run(
        original,
        "psql",
        "-X",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        original.dsn,
        "-f",
        Path(__file__).parent / "rows.sql",
    )
    copy = make_database(schema, bare=True)
    run(copy, "pg_restore", *options, "-d", copy.dsn, dump(original, tmp_path / "dump"))
    rows = contents(original)
    assert rows["wa_messages"]
    assert rows["wa_webhook_logs"]
    assert contents(copy) == rows
    assert copy.query("SELECT DISTINCT action FROM migrate_wa()") == [{"action": "unchanged"}]


def test_restored_privileges_are_the_same(make_database: Callable[..., Database], tmp_path: Path) -> None:
    every = "SELECT has_schema_privilege('wa_app', %s, 'USAGE') AS may_look"
    original = make_database("odd name-1")
    copy = make_database("odd name-1", bare=True)
    run(copy, "pg_restore", "-d", copy.dsn, dump(original, tmp_path / "dump"))
    assert copy.query(every, "odd name-1") == original.query(every, "odd name-1") == [{"may_look": True}]


def test_dropping_the_extension_takes_no_row_along(db: Database) -> None:
    run(db, "psql", "-X", "-v", "ON_ERROR_STOP=1", "-d", db.dsn, "-f", Path(__file__).parent / "rows.sql")
    before = contents(db)
    db.query("DROP EXTENSION pg_whatsapp CASCADE")
    assert contents(db) == before
