"""A dump is plain PostgreSQL: every restore gives the same rows, and dropping the extension keeps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from copies import WAYS, contents, run
from harness import Database

pytestmark = pytest.mark.slow


def rows_of(database: Database) -> dict[str, list[str]]:
    """Every table of the extension's schema with its rows as sorted text."""
    with database.connect() as connection:
        return contents(connection, database.schema)


def dump(database: Database, target: Path) -> Path:
    """Dump a database into a directory that pg_restore can read in parallel."""
    run(database.server, "pg_dump", "-Fd", "-f", target, database.dsn)
    return target


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("schema", ["public", "odd name-1"])
def test_restored_rows_are_the_same_and_migrate_finds_nothing_to_do(
    make_database: Callable[..., Database], tmp_path: Path, options: list[str], schema: str
) -> None:
    original = make_database(schema)
    run(
        original.server,
        "psql",
        "-X",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        original.dsn,
        "-f",
        Path(__file__).parent / "rows.sql",
        "-f",
        Path(__file__).parent / "rows_new.sql",
        "-f",
        Path(__file__).parent / "rows_pushed.sql",
    )
    copy = make_database(schema, bare=True)
    run(copy.server, "pg_restore", *options, "-d", copy.dsn, dump(original, tmp_path / "dump"))
    rows = rows_of(original)
    assert rows["wa_messages"]
    assert rows["wa_webhook_logs"]
    assert all(
        rows[table]
        for table in (
            "wa_media_chunks",
            "siren_events",
            "wa_packs",
            "profiles",
            "ai_events",
            "wa_event_subscriptions",
            "wa_event_secrets",
            "wa_event_deliveries",
        )
    )
    assert rows_of(copy) == rows
    assert copy.query("SELECT DISTINCT action FROM migrate_wa()") == [{"action": "unchanged"}]


def test_restored_privileges_are_the_same(make_database: Callable[..., Database], tmp_path: Path) -> None:
    every = "SELECT has_schema_privilege('wa_app', %s, 'USAGE') AS may_look"
    original = make_database("odd name-1")
    copy = make_database("odd name-1", bare=True)
    run(copy.server, "pg_restore", "-d", copy.dsn, dump(original, tmp_path / "dump"))
    assert copy.query(every, "odd name-1") == original.query(every, "odd name-1") == [{"may_look": True}]


def test_restored_people_and_clocks_are_those_that_were_named(
    make_role: Callable[..., str], make_database: Callable[..., Database], tmp_path: Path
) -> None:
    """A role by its name, not by a number that another server gives it; a time zone that it may not have."""
    login = make_role(login=False)
    original = make_database()
    original.query("INSERT INTO wa_users (display_name, role, role_name) VALUES ('Ann', 'sales', %s)", login)
    with original.connect() as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE wa_organizations SET time_zone = 'Mars/Phobos'")
    copy = make_database(bare=True)
    run(copy.server, "pg_restore", "-d", copy.dsn, dump(original, tmp_path / "dump"))
    assert copy.query("SELECT has_wa_permission(%s, 'send') AS may", login) == [{"may": True}]
    assert copy.query("SELECT time_zone FROM wa_organizations") == [{"time_zone": "Mars/Phobos"}]
    for database in (original, copy):
        database.query("DELETE FROM wa_users")


def test_dropping_the_extension_takes_no_row_along(db: Database) -> None:
    run(
        db.server,
        "psql",
        "-X",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        db.dsn,
        "-f",
        Path(__file__).parent / "rows.sql",
        "-f",
        Path(__file__).parent / "rows_new.sql",
    )
    before = rows_of(db)
    db.query("DROP EXTENSION pg_whatsapp CASCADE")
    assert rows_of(db) == before
