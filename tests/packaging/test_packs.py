"""What install_wa_pack() promises: on demand only, never over what the host has, kept up to date.

Tests sql/packs/packs.sql.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from copies import contents, run
from harness import CHECKOUT, Database
from product import Product, steps, with_packs
from schema_dump import schema_of

TABLES, API = "packs/shop/tables.sql", "packs/shop/shops.sql"
FRESH = [(TABLES, "create"), (API, "create")]
UNCHANGED = [(step, "unchanged") for step, _ in FRESH]
FUNCTION = (
    "CREATE OR REPLACE FUNCTION count_shops() RETURNS bigint LANGUAGE sql STABLE\n"
    "BEGIN ATOMIC SELECT count({}) FROM shops; END;\n"
)


@pytest.fixture
def product(product: Product) -> Product:
    """The stand-in with a pack."""
    for path in ("packs/tables.sql", "packs/packs.sql"):
        product.write(path, (CHECKOUT / "sql" / path).read_text())
    product.write_grants("[packs]\ninstall_wa_pack() X . . . .\n")
    product.write(TABLES, "CREATE TABLE shops (id integer);\n")
    product.write(API, FUNCTION.format("*"))
    product.write("packs/garden/tables.sql", "CREATE TABLE gardens (id integer);\n")
    return product


@pytest.fixture
def migrated(product: Product, bare_db: Database) -> Database:
    """Version 7.0.0 of it, migrated, without any pack."""
    product.release("7.0.0")
    bare_db.query("CREATE EXTENSION pg_whatsapp VERSION '7.0.0' CASCADE")
    bare_db.query("SELECT migrate_wa()")
    return bare_db


def install(connection: psycopg.Connection[Any], pack: str = "shop") -> list[tuple[str, str]]:
    """Call install_wa_pack() and return its rows."""
    return connection.execute("SELECT step, action FROM install_wa_pack(%s)", (pack,)).fetchall()


def pack_steps(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """What migrate_wa() does of packs."""
    return [step for step in steps(connection) if step[0].count("/") == 2]


def test_a_pack_comes_when_it_is_asked_for_and_once(migrated: Database) -> None:
    with migrated.connect() as connection:
        assert connection.execute("SELECT to_regclass('shops')").fetchone() == (None,)
        assert pack_steps(connection) == []
        assert install(connection) == FRESH
        connection.execute("INSERT INTO shops VALUES (1)")
        assert install(connection) == UNCHANGED
        assert pack_steps(connection) == UNCHANGED
        assert connection.execute("SELECT count_shops(), to_regclass('gardens')").fetchone() == (1, None)


def test_a_wa_admin_installs_for_the_owner_and_nobody_else_does(
    migrated: Database, make_role: Callable[..., str]
) -> None:
    with (
        migrated.connect(user=make_role("wa_app")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        install(connection)
    with migrated.connect(user=make_role("wa_admin")) as connection:
        assert install(connection) == FRESH
    assert migrated.query("SELECT tableowner FROM pg_tables WHERE tablename = 'shops'") == [
        {"tableowner": "postgres"}
    ]


def test_an_unknown_pack_is_told_which_there_are(migrated: Database) -> None:
    with migrated.connect() as connection, pytest.raises(psycopg.errors.InvalidParameterValue) as refusal:
        install(connection, "shops")
    assert refusal.value.diag.message_hint == "There are: garden, shop."


def test_what_the_host_has_is_named_and_left_alone(migrated: Database) -> None:
    migrated.query("CREATE VIEW shops AS SELECT 'mine' AS note")
    migrated.query("CREATE FUNCTION count_shops(text) RETURNS text LANGUAGE sql AS 'SELECT $1'")
    with migrated.connect() as connection, pytest.raises(psycopg.errors.DuplicateObject) as refusal:
        install(connection)
    assert refusal.value.diag.message_detail == "Already there: relation shops, function count_shops."
    assert migrated.query("SELECT note FROM shops") == [{"note": "mine"}]
    with migrated.connect() as connection:
        assert install(connection, "garden") == [("packs/garden/tables.sql", "create")]


def test_a_script_that_fails_leaves_nothing_behind(product: Product, bare_db: Database) -> None:
    product.write(API, FUNCTION.format("absent"))
    product.release("7.0.0")
    with bare_db.connect() as connection:
        connection.execute("CREATE EXTENSION pg_whatsapp VERSION '7.0.0' CASCADE")
        steps(connection)
        with pytest.raises(psycopg.errors.UndefinedColumn):
            install(connection)
        assert connection.execute("SELECT to_regclass('shops')").fetchone() == (None,)


def test_a_later_release_brings_installed_packs_along(
    product: Product, migrated: Database, make_database: Callable[..., Database]
) -> None:
    without, fresh = make_database(bare=True), make_database(bare=True)
    without.query("CREATE EXTENSION pg_whatsapp VERSION '7.0.0' CASCADE")
    without.query("SELECT migrate_wa()")
    product.write(TABLES, "CREATE TABLE shops (id integer, town text);\n")
    product.write("packs/shop/tables_staff.sql", "CREATE TABLE shop_staff (id integer);\n")
    product.write(API, FUNCTION.format("town"))
    product.write(
        "migrations/7.0.0--7.1.0.sql",
        "DO $$ BEGIN IF to_regclass('shops') IS NOT NULL THEN\n"
        "    ALTER TABLE shops ADD COLUMN town text;\nEND IF; END $$;\n",
    )
    product.release("7.1.0")
    with migrated.connect() as connection:
        install(connection)
        connection.execute("INSERT INTO shops VALUES (1)")
        connection.execute("ALTER EXTENSION pg_whatsapp UPDATE TO '7.1.0'")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=r"of version 7\.0\.0"):
            install(connection)
        new = [(TABLES, "covered"), (API, "replace"), ("packs/shop/tables_staff.sql", "create")]
        planned = connection.execute(
            "SELECT step, action FROM plan_wa_migration() WHERE step LIKE 'packs/%/%'"
        )
        assert planned.fetchall() == new
        assert pack_steps(connection) == new
        assert connection.execute("SELECT count(*), count_shops() FROM shops").fetchone() == (1, 0)
        assert {action for _, action in steps(connection)} == {"unchanged"}
    with without.connect() as connection:
        connection.execute("ALTER EXTENSION pg_whatsapp UPDATE TO '7.1.0'")
        assert pack_steps(connection) == []
    with fresh.connect() as connection:
        connection.execute("CREATE EXTENSION pg_whatsapp VERSION '7.1.0' CASCADE")
        steps(connection)
        install(connection)
    assert schema_of(migrated) == schema_of(fresh)


def test_tables_of_another_build_of_the_version_are_refused(product: Product, migrated: Database) -> None:
    with migrated.connect() as connection:
        install(connection)
        product.write(TABLES, "CREATE TABLE shops (id bigint);\n")
        product.release("7.0.0")
        connection.execute("DROP EXTENSION pg_whatsapp")
        connection.execute("CREATE EXTENSION pg_whatsapp VERSION '7.0.0' CASCADE")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refusal:
            steps(connection)
    assert refusal.value.diag.message_detail == f"Different: {TABLES}."


def test_a_pack_whose_name_cannot_be_told_is_not_built(product: Product) -> None:
    product.write("packs/big_shop/tables.sql", "SELECT 1;\n")
    with pytest.raises(product.build.BuildError, match="big_shop"):
        product.assemble("7.0.0")


def test_packs_survive_dump_and_restore(make_database: Callable[..., Database], tmp_path: Path) -> None:
    original, copy = with_packs(make_database()), make_database(bare=True)
    original.query("INSERT INTO profiles (role_id, full_name) VALUES ('admin', 'Ada')")
    run(original.server, "pg_dump", "-Fc", "-f", tmp_path / "dump", original.dsn)
    run(copy.server, "pg_restore", "--exit-on-error", "-d", copy.dsn, tmp_path / "dump")
    with original.connect() as before, copy.connect() as after:
        assert contents(after) == contents(before)
        assert {action for _, action in steps(after)} == {"unchanged"}
        assert install(after, "profiles") == [
            ("packs/profiles/tables.sql", "unchanged"),
            ("packs/profiles/grants", "unchanged"),
        ]
