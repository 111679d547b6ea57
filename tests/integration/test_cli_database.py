"""`wa migrate`, `wa adopt` and who may run what, against a database."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import Database
from wa_process import KEY, wa


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


def test_an_extension_that_was_dropped_with_all_that_rests_on_it_is_repaired(bare_db: Database) -> None:
    assert wa("migrate", database=bare_db).returncode == 0
    bare_db.query("SELECT register_wa_phone_number('100', '+1 555 123 4567', '200')")
    bare_db.query(
        "INSERT INTO wa_templates (name, category, status, body_text) VALUES"
        " ('hello', 'UTILITY', 'APPROVED', 'Hello')"
    )
    bare_db.query("DROP EXTENSION pg_whatsapp CASCADE")
    done = wa("migrate", database=bare_db)
    assert done.returncode == 0, done.stderr
    bare_db.query("INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('+16505550101', 'hello')")
    assert bare_db.query("SELECT count(*) FROM wa_queue_due") == [{"count": 1}]
    assert bare_db.query("SELECT count(*) FROM plan_wa_migration() WHERE action <> 'unchanged'") == [
        {"count": 0}
    ]


def test_migrate_into_another_schema_than_the_one_it_is_in_is_refused(bare_db: Database) -> None:
    assert wa("migrate", database=bare_db).returncode == 0
    done = wa("migrate", "--schema", "other", database=bare_db)
    assert done.returncode == 1
    assert 'in schema "public" already' in done.stderr


def test_a_secret_for_no_number_is_told(db: Database) -> None:
    done = wa(
        "secrets", "set", "app_secret", "--number", "999", database=db, stdin="x" * 20, WA_SECRET_KEY=KEY
    )
    assert done.returncode == 0, done.stderr
    assert "no business number 999" in done.stderr


def test_before_migrate_the_way_out_is_named(bare_db: Database) -> None:
    bare_db.query("CREATE EXTENSION pg_whatsapp CASCADE")
    done = wa("dispatch", "--drain", database=bare_db)
    assert done.returncode == 1
    assert "bin/wa migrate" in done.stderr
    assert "type cast" not in done.stderr


def test_who_may_work_for_several_says_for_which(db: Database, make_role: Callable[..., str]) -> None:
    north, south = "0190a1b2-0000-7000-8000-000000000001", "0190a1b2-0000-7000-8000-000000000002"
    admin, both = make_role("wa_admin"), make_role("wa_app")
    for one, name in ((north, "North"), (south, "South")):
        db.query("SELECT create_wa_organization(%s, %s)", name, one)
        db.query("SELECT add_wa_organization_role(%s, %s)", one, both)
    keyed = {"WA_SECRET_KEY": KEY, "stdin": "a token"}
    done = wa("secrets", "set", "access_token", database=db, user=admin, **keyed)
    assert done.returncode == 1
    assert "--organization" in done.stderr
    for chosen in (["--organization", "South"], ["--organization", south.upper()]):
        done = wa("secrets", "set", "access_token", *chosen, database=db, user=admin, **keyed)
        assert done.returncode == 0, done.stderr
    owners = db.query("SELECT DISTINCT organization_id::text AS id FROM wa_secrets")
    assert owners == [{"id": south}]
    listed = wa("secrets", "list", database=db, user=admin, WA_ORGANIZATION="North")
    assert listed.stdout == "nothing stored\n"
    for unknown in ("West", "0190a1b2-0000-7000-8000-000000000003"):
        done = wa("secrets", "list", "--organization", unknown, database=db, user=admin)
        assert done.returncode == 1
        assert unknown in done.stderr
    done = wa("templates", "list", "--organization", north, database=db, user=both)
    assert (done.returncode, done.stdout) == (0, "no templates\n")
    foreign = db.query("SELECT id::text FROM wa_organizations WHERE is_default")[0]["id"]
    assert wa("templates", "list", "--organization", foreign, database=db, user=both).returncode == 1


@pytest.mark.parametrize(
    ("command", "group"), [("dispatch", "wa_admin"), ("templates sync", "wa_app"), ("adopt", "wa_app")]
)
def test_a_role_that_may_not_is_told_which_may(
    db: Database, make_role: Callable[..., str], command: str, group: str
) -> None:
    done = wa(*command.split(), database=db, user=make_role(group), WHATSAPP_ACCESS_TOKEN="any")
    assert done.returncode == 1
    assert "permission denied" in done.stderr
    assert "wa_dispatcher for dispatch" in done.stderr
    assert db.query("SELECT * FROM wa_dispatchers") == []
