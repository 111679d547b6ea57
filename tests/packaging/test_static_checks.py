"""What only an installed schema shows: plpgsql_check and pgspot over every function of the catalogue."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import CHECKOUT, Database
from product import with_packs

# Not worth a cast in the source, or meant so.
ACCEPTED_FINDINGS = {
    # An empty array constant is text until it is assigned.
    (None, "target type is different type than source type"),
    # It runs our own scripts, which only the extension can write.
    ("migrate_wa()", "text type variable is not sanitized"),
    # Names come from the catalogue, as it writes them; of the matrix only fixed words and a quoted column.
    ("_wa_give_rights(text)", "text type variable is not sanitized"),
    ("_wa_run_pack(text)", "text type variable is not sanitized"),
    # pg_cron need not be there; newer releases of plpgsql_check look into constant dynamic SQL.
    ("_wa_sync_cron()", 'relation "cron.job" does not exist'),
    ("_wa_sync_cron()", 'schema "cron" does not exist'),
    # The state of a lane goes in and out whole.
    (
        "_wa_claim_round(wa_organizations,wa_phone_numbers,uuid,wa_lane_states,integer,boolean,"
        "double precision,timestamp with time zone)",
        'composite OUT variable "state" is not single argument',
    ),
    (
        "_wa_move_cursors(wa_lane_states,timestamp with time zone[],uuid[],boolean[])",
        'composite OUT variable "state" is not single argument',
    ),
}
# Bodies that pgspot 0.9.4 cannot read. What it says of a function's header and path stands all the same.
UNREADABLE = (
    re.compile(r'"[\w.]+" is not a known variable'),  # a field of a row variable
    re.compile(r'syntax error at or near "position"'),  # it loses the quotes of a column's name
)


@pytest.fixture
def db(make_database: Callable[..., Database]) -> Database:
    """With every pack."""
    return with_packs(make_database())


def test_plpgsql_check_finds_nothing(db: Database) -> None:
    db.query("CREATE EXTENSION plpgsql_check SCHEMA tap")
    findings = db.query(
        """
        SELECT p.oid::regprocedure::text AS function, f.lineno, f.level, f.message, f.detail
        FROM pg_proc AS p
        INNER JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
        LEFT JOIN LATERAL (
            SELECT g.tgrelid, max(g.tgoldtable) AS old_rows, max(g.tgnewtable) AS new_rows
            FROM pg_trigger AS g
            WHERE g.tgfoid = p.oid
            GROUP BY g.tgrelid
        ) AS t ON true
        CROSS JOIN LATERAL plpgsql_check_function_tb(
            p.oid, coalesce(t.tgrelid, 0), oldtable => t.old_rows, newtable => t.new_rows,
            fatal_errors => false, other_warnings => true, extra_warnings => true,
            performance_warnings => false, security_warnings => true
        ) AS f
        WHERE p.pronamespace = 'public'::regnamespace
            AND (p.prorettype <> 'trigger'::regtype OR t.tgrelid IS NOT NULL)
        """
    )
    remaining = [
        f"{f['function']} line {f['lineno']}: {f['level']}: {f['message']} {f['detail'] or ''}"
        for f in findings
        if not ACCEPTED_FINDINGS & {(None, f["message"]), (f["function"], f["message"])}
    ]
    assert not remaining, "\n".join(remaining)


def test_pgspot_finds_nothing(db: Database, tmp_path: Path) -> None:
    """Bodies in standard SQL, which pgspot cannot read, are bound when created and need no path."""
    definitions = db.query(
        """
        SELECT p.oid::regprocedure::text AS name, pg_get_functiondef(p.oid) AS definition
        FROM pg_proc AS p
        INNER JOIN pg_language AS l ON l.oid = p.prolang
        WHERE p.pronamespace = 'public'::regnamespace
            AND p.prosqlbody IS NULL AND l.lanname IN ('plpgsql', 'sql')
        """
    )
    assert definitions
    # As migrate_wa() has it: the schema is ours, nobody else may create in it.
    header = "CREATE SCHEMA public;\nSET search_path TO pg_catalog, public, pg_temp;\n"
    for number, row in enumerate(definitions):
        name = f"{row['name'].partition('(')[0]}-{number}.sql"
        (tmp_path / name).write_text(f"{header}{row['definition'].rstrip()};\n")
    files = sorted(path.name for path in tmp_path.iterdir())
    # PS002: the catalogue prints every definition as CREATE OR REPLACE.
    done = subprocess.run(
        [CHECKOUT / ".venv/bin/pgspot", "--ignore", "PS002", *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "TOTAL:" in done.stdout, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    findings = [line for line in lines if re.search(r"PS\d{3}: ", line)]
    unread = [line for line in lines if line.startswith(" ") and "Errors:" not in line and line.strip()]
    findings += [line for line in unread if not any(pattern.search(line) for pattern in UNREADABLE)]
    assert not findings, "\n".join(findings)
