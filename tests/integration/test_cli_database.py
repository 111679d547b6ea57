"""`wa migrate` and `wa adopt` against a database."""

from __future__ import annotations

from harness import Database
from wa_process import wa


def tables(database: Database) -> int:
    [row] = database.query("SELECT count(*) FROM pg_class WHERE relname ~ '^wa_' AND relkind = 'r'")
    count: int = row["count"]
    return count


def test_migrate_installs_everything_and_may_be_repeated(bare_db: Database) -> None:
    planned = wa("migrate", "--dry-run", database=bare_db)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.startswith("CREATE EXTENSION pg_whatsapp CASCADE;\n")
    assert "CREATE TABLE wa_messages" in planned.stdout
    assert tables(bare_db) == 0
    done = wa("migrate", database=bare_db)
    assert done.returncode == 0, done.stderr
    made = tables(bare_db)
    assert made > 10
    again = wa("migrate", database=bare_db)
    assert again.returncode == 0
    assert "create" not in again.stdout
    assert tables(bare_db) == made


def test_migrate_takes_a_schema_with_an_odd_name(bare_db: Database) -> None:
    done = wa("migrate", "--schema", "odd name-1", database=bare_db)
    assert done.returncode == 0, done.stderr
    assert bare_db.query('SELECT count(*) FROM "odd name-1".wa_messages') == [{"count": 0}]


def test_migrate_refuses_over_a_table_that_is_there(bare_db: Database) -> None:
    bare_db.query("CREATE TABLE wa_messages (id int)")
    done = wa("migrate", database=bare_db)
    assert done.returncode == 1
    assert "wa_messages" in done.stderr
    assert bare_db.query("SELECT 1 FROM pg_extension WHERE extname = 'pg_whatsapp'") == []


def test_a_command_without_the_extension_says_what_to_do(bare_db: Database) -> None:
    done = wa("adopt", database=bare_db)
    assert done.returncode == 1
    assert "bin/wa migrate" in done.stderr
