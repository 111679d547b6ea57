"""What only an installed schema shows: plpgsql_check and pgspot over every function of the catalogue."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from harness import CHECKOUT, Database

# Not worth a cast in the source, or meant so.
ACCEPTED_FINDINGS = {
    # An empty array constant is text until it is assigned.
    (None, "target type is different type than source type"),
    # It runs our own scripts, which only the extension can write.
    ("migrate_wa()", "text type variable is not sanitized"),
}
# Every definition is CREATE OR REPLACE as the catalogue prints it.
PGSPOT_IGNORED = ("PS002",)


def test_plpgsql_check_finds_nothing(db: Database) -> None:
    db.query("CREATE EXTENSION plpgsql_check SCHEMA tap")
    findings = db.query(
        """
        SELECT p.oid::regprocedure::text AS function, f.lineno, f.level, f.message, f.detail
        FROM pg_proc AS p
        INNER JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
        LEFT JOIN LATERAL (
            SELECT DISTINCT g.tgrelid FROM pg_trigger AS g WHERE g.tgfoid = p.oid
        ) AS t ON true
        CROSS JOIN LATERAL plpgsql_check_function_tb(
            p.oid, coalesce(t.tgrelid, 0), fatal_errors => false, other_warnings => true,
            extra_warnings => true, performance_warnings => false, security_warnings => true
        ) AS f
        WHERE p.pronamespace = 'public'::regnamespace
            AND (p.prorettype <> 'trigger'::regtype OR t.tgrelid IS NOT NULL)
        """
    )
    remaining = [
        finding
        for finding in findings
        if not ACCEPTED_FINDINGS & {(None, finding["message"]), (finding["function"], finding["message"])}
    ]
    assert remaining == []


def test_pgspot_finds_nothing(db: Database, tmp_path: Path) -> None:
    """Bodies in standard SQL, which pgspot cannot read, are bound when created and need no path."""
    definitions = db.query(
        """
        SELECT pg_get_functiondef(p.oid) AS definition FROM pg_proc AS p
        INNER JOIN pg_language AS l ON l.oid = p.prolang
        WHERE p.pronamespace = 'public'::regnamespace
            AND p.prosqlbody IS NULL AND l.lanname IN ('plpgsql', 'sql')
        ORDER BY p.oid::regprocedure::text
        """
    )
    if not definitions:
        pytest.fail("no function was found to check")
    script = tmp_path / "functions.sql"
    # Tells pgspot that the schema is ours: nobody else may create in it.
    script.write_text(
        "CREATE SCHEMA public;\n" + "".join(f"{row['definition'].rstrip()};\n" for row in definitions)
    )
    ignored = [part for code in PGSPOT_IGNORED for part in ("--ignore", code)]
    done = subprocess.run([CHECKOUT / ".venv/bin/pgspot", *ignored, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
