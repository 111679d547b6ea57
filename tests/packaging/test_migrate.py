"""What migrate_wa() promises: all or nothing, one at a time, safe to repeat, never over what the host has.

Tests sql/extension/migrate.sql, sql/extension/safe_schema.sql.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest
from harness import Database, Server
from product import Product, steps
from schema_dump import schema_of

CREATE = "CREATE EXTENSION pg_whatsapp VERSION '7.0.0' CASCADE"
FRESH = [("orders/tables.sql", "create"), ("orders/orders.sql", "create")]


@pytest.fixture
def installed(product: Product, bare_db: Database) -> Database:
    """Version 7.0.0 of the stand-in, created but not migrated."""
    product.release("7.0.0")
    bare_db.query(CREATE)
    return bare_db


def test_fresh_install_runs_every_step_and_a_repeat_changes_nothing(installed: Database) -> None:
    with installed.connect() as connection:
        assert steps(connection) == FRESH
        before = connection.execute("SELECT * FROM wa_migrations").fetchall()
        assert steps(connection) == [(step, "unchanged") for step, _ in FRESH]
        assert connection.execute("SELECT * FROM wa_migrations").fetchall() == before
        assert connection.execute("SELECT * FROM wa_version()").fetchone() == ("7.0.0", "7.0.0")


def test_plan_shows_the_sql_and_changes_nothing(installed: Database) -> None:
    plan = installed.query("SELECT step, action, body FROM plan_wa_migration()")
    assert [(row["step"], row["action"]) for row in plan] == FRESH
    assert plan[0]["body"].startswith("CREATE TABLE wa_orders")
    assert installed.query("SELECT schema_version FROM wa_version()") == [{"schema_version": None}]


def test_owner_of_the_schema_migrates_without_being_superuser(
    installed: Database, make_role: Callable[..., str]
) -> None:
    owner = make_role()
    installed.query(f"GRANT CREATE ON SCHEMA public TO {owner}")
    with installed.connect(user=owner) as connection:
        # Its functions would call those of the extension, and nobody could use them.
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
            steps(connection)
        assert f"GRANT wa_admin TO {owner}" in (refused.value.diag.message_hint or "")
        installed.query(f"GRANT wa_admin TO {owner}")
        assert steps(connection) == FRESH
    assert installed.query("SELECT tableowner FROM pg_tables WHERE tablename = 'wa_orders'") == [
        {"tableowner": owner}
    ]


def test_someone_without_create_on_the_schema_migrates_nothing(
    installed: Database, make_role: Callable[..., str]
) -> None:
    with (
        installed.connect(user=make_role("wa_admin")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        steps(connection)


def test_objects_of_the_host_with_our_names_are_named_and_left_alone(installed: Database) -> None:
    installed.query("CREATE TABLE wa_orders (mine text)")
    installed.query("CREATE VIEW wa_order_notes AS SELECT 'mine' AS note")
    installed.query("CREATE FUNCTION count_wa_orders(text) RETURNS text LANGUAGE sql AS 'SELECT $1'")
    with installed.connect() as connection, pytest.raises(psycopg.errors.DuplicateObject) as refusal:
        steps(connection)
    assert refusal.value.diag.message_detail == (
        "Already there: relation wa_order_notes, relation wa_orders, function count_wa_orders."
    )
    assert installed.query("SELECT * FROM wa_order_notes") == [{"note": "mine"}]
    assert installed.query("SELECT to_regclass('wa_migrations') AS made") == [{"made": None}]


def test_a_step_that_fails_leaves_nothing_behind(product: Product, bare_db: Database) -> None:
    product.write("orders/broken.sql", "CREATE VIEW wa_broken AS SELECT absent FROM wa_orders;\n")
    product.release("7.0.0")
    bare_db.query(CREATE)
    with bare_db.connect() as connection, pytest.raises(psycopg.errors.UndefinedColumn):
        steps(connection)
    assert bare_db.query("SELECT to_regclass('wa_orders') AS made") == [{"made": None}]


def test_many_at_once_make_one_schema(installed: Database) -> None:
    outcomes: list[list[tuple[str, str]]] = []
    ready = threading.Barrier(8)

    def migrate() -> None:
        with installed.connect() as connection:
            ready.wait()
            outcomes.append(steps(connection))

    sessions = [threading.Thread(target=migrate) for _ in range(8)]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join()
    assert sorted(outcomes) == sorted([FRESH, *[[(step, "unchanged") for step, _ in FRESH]] * 7])


def test_waiting_for_another_migrator_ends_with_a_word_about_it(installed: Database) -> None:
    with installed.connect(autocommit=False) as first, installed.connect() as second:
        steps(first)
        second.execute("SET wa.lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable, match=r"another migrate_wa\(\) is at work"):
            steps(second)


def test_same_version_with_other_functions_replaces_them(product: Product, installed: Database) -> None:
    with installed.connect() as connection:
        steps(connection)
        product.write(
            "orders/orders.sql",
            "CREATE OR REPLACE FUNCTION count_wa_orders() RETURNS bigint LANGUAGE sql STABLE\n"
            "BEGIN ATOMIC SELECT -1::bigint; END;\n",
        )
        product.release("7.0.0")
        connection.execute("DROP EXTENSION pg_whatsapp")
        connection.execute(CREATE)
        assert steps(connection) == [("orders/tables.sql", "unchanged"), ("orders/orders.sql", "replace")]
        assert connection.execute("SELECT count_wa_orders()").fetchone() == (-1,)


def test_same_version_with_other_tables_is_refused(product: Product, installed: Database) -> None:
    with installed.connect() as connection:
        steps(connection)
        product.write("orders/tables.sql", "CREATE TABLE wa_orders (id integer);\n")
        product.release("7.0.0")
        connection.execute("DROP EXTENSION pg_whatsapp")
        connection.execute(CREATE)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refusal:
            steps(connection)
    assert refusal.value.diag.message_detail == "Different: orders/tables.sql."
    assert "migrations/A--B.sql" in (refusal.value.diag.message_hint or "")


def release_upgrade(product: Product) -> None:
    """Version 7.1.0: a column more, a function in the extension more, and the view gone."""
    product.release("7.0.0")
    product.write("orders/tables.sql", "CREATE TABLE wa_orders (id integer, note text, total numeric);\n")
    product.write(
        "orders/orders.sql",
        "CREATE OR REPLACE FUNCTION count_wa_orders() RETURNS bigint LANGUAGE sql STABLE\n"
        "BEGIN ATOMIC SELECT count(total) FROM wa_orders; END;\n",
    )
    product.write("extension/more.sql", "CREATE FUNCTION more_wa() RETURNS int LANGUAGE sql RETURN 1;\n")
    product.write(
        "migrations/7.0.0--7.1.0.sql",
        "ALTER TABLE wa_orders ADD COLUMN total numeric;\nDROP VIEW wa_order_notes;\n",
    )
    product.release("7.1.0")


def test_upgrade_keeps_the_rows_and_equals_a_fresh_install(
    product: Product, bare_db: Database, make_database: Callable[..., Database]
) -> None:
    release_upgrade(product)
    with bare_db.connect() as connection:
        connection.execute(CREATE)
        steps(connection)
        connection.execute("INSERT INTO wa_orders (id) VALUES (42)")
        connection.execute("ALTER EXTENSION pg_whatsapp UPDATE TO '7.1.0'")
        assert connection.execute("SELECT * FROM wa_version()").fetchone() == ("7.1.0", "7.0.0")
        assert steps(connection) == [
            ("migrations/7.0.0--7.1.0.sql", "migrate"),
            ("orders/tables.sql", "covered"),
            ("orders/orders.sql", "replace"),
        ]
        assert connection.execute("SELECT id, total, more_wa() FROM wa_orders").fetchall() == [(42, None, 1)]
        assert connection.execute("SELECT * FROM wa_version()").fetchone() == ("7.1.0", "7.1.0")
        assert [action for _, action in steps(connection)] == ["unchanged", "unchanged"]
    fresh = make_database(bare=True)
    with fresh.connect() as connection:
        connection.execute("CREATE EXTENSION pg_whatsapp VERSION '7.1.0' CASCADE")
        steps(connection)
    assert "    total numeric" in schema_of(fresh)
    assert schema_of(bare_db) == schema_of(fresh)


def test_upgrade_names_the_operators_view_that_is_in_the_way(product: Product, bare_db: Database) -> None:
    release_upgrade(product)
    with bare_db.connect() as connection:
        connection.execute(CREATE)
        steps(connection)
        connection.execute("CREATE VIEW my_report AS SELECT note FROM wa_order_notes")
        connection.execute("ALTER EXTENSION pg_whatsapp UPDATE TO '7.1.0'")
        with pytest.raises(psycopg.errors.DependentObjectsStillExist) as refusal:
            steps(connection)
        assert "view my_report depends on view wa_order_notes" in (refusal.value.diag.message_detail or "")
        assert connection.execute("SELECT schema_version FROM wa_version()").fetchone() == ("7.0.0",)
        connection.execute("DROP VIEW my_report")
        assert steps(connection)[0] == ("migrations/7.0.0--7.1.0.sql", "migrate")


def test_an_extension_older_than_the_schema_is_refused(product: Product, bare_db: Database) -> None:
    release_upgrade(product)
    with bare_db.connect() as connection:
        connection.execute("CREATE EXTENSION pg_whatsapp VERSION '7.1.0' CASCADE")
        steps(connection)
        connection.execute("DROP EXTENSION pg_whatsapp")
        connection.execute(CREATE)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=r"7\.1\.0 is newer"):
            steps(connection)


def test_a_missing_migration_is_named(product: Product, bare_db: Database) -> None:
    release_upgrade(product)
    with bare_db.connect() as connection:
        connection.execute(CREATE)
        steps(connection)
        (product.root / "migrations/7.0.0--7.1.0.sql").unlink()
        product.release("7.1.0")
        connection.execute("ALTER EXTENSION pg_whatsapp UPDATE TO '7.1.0'")
        with pytest.raises(
            psycopg.errors.ObjectNotInPrerequisiteState, match=r"no migration from version 7\.0\.0"
        ):
            steps(connection)


def test_a_waiting_reader_makes_an_upgrade_give_up_in_time(
    product: Product, bare_db: Database, pg: Server
) -> None:
    release_upgrade(product)
    with bare_db.connect() as connection, bare_db.connect(autocommit=False) as reader:
        connection.execute(CREATE)
        steps(connection)
        connection.execute("ALTER EXTENSION pg_whatsapp UPDATE TO '7.1.0'")
        reader.execute("SELECT * FROM wa_orders")
        connection.execute("SET wa.lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            steps(connection)
        reader.rollback()
        assert steps(connection)[0] == ("migrations/7.0.0--7.1.0.sql", "migrate")


def rights(database: Database) -> set[tuple[str, str]]:
    """Who has what on objects of the stand-in product, besides their owner."""
    rows = database.query(
        """
        SELECT o.name, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role
        FROM (
            SELECT relname AS name, relowner AS owner, relacl AS acl FROM pg_class
            UNION ALL
            SELECT proname, proowner, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
        ) AS o
        CROSS JOIN LATERAL aclexplode(o.acl) AS a
        WHERE o.name ~ 'wa_order|farmers' AND a.grantee <> o.owner
        """
    )
    return {(row["name"], row["role"]) for row in rows}


def test_new_objects_have_the_stated_rights_whatever_the_host_gives_by_default(
    product: Product, bare_db: Database, make_role: Callable[..., str]
) -> None:
    product.write_grants("[orders]\nwa_orders r . . . .\ncount_wa_orders() X X . . .\n")
    product.write("orders/tables.sql", "CREATE TABLE wa_orders (id bigint GENERATED ALWAYS AS IDENTITY);\n")
    product.write(
        "orders/orders.sql",
        "CREATE OR REPLACE FUNCTION count_wa_orders() RETURNS bigint LANGUAGE sql STABLE\n"
        "BEGIN ATOMIC SELECT count(*) FROM wa_orders; END;\n",
    )
    product.release("7.0.0")
    web = make_role()
    for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
        bare_db.query(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON {kind} TO {web}")
    bare_db.query("CREATE TABLE farmers (id integer)")
    bare_db.query("CREATE EXTENSION pg_whatsapp VERSION '7.0.0' CASCADE")
    bare_db.query("SELECT migrate_wa()")
    stated = {("wa_orders", "wa_admin"), ("count_wa_orders", "wa_admin"), ("count_wa_orders", "wa_app")}
    assert rights(bare_db) == {("farmers", web), *stated}

    # What a DBA grants stays; what a step makes anew does not get it by itself.
    bare_db.query(f"GRANT SELECT ON wa_orders TO {web}")
    bare_db.query("GRANT EXECUTE ON FUNCTION count_wa_orders() TO PUBLIC")
    product.write(
        "orders/more.sql",
        "CREATE OR REPLACE FUNCTION ask_wa_orders() RETURNS void LANGUAGE sql STABLE AS 'SELECT';\n",
    )
    product.write("migrations/7.0.0--7.1.0.sql", "SELECT;\n")
    product.release("7.1.0")
    bare_db.query("ALTER EXTENSION pg_whatsapp UPDATE TO '7.1.0'")
    bare_db.query("SELECT migrate_wa()")
    theirs = {("farmers", web), ("wa_orders", web), ("count_wa_orders", "PUBLIC")}
    assert rights(bare_db) == {*theirs, *stated}


def test_the_hosts_functions_with_names_of_ours_get_no_rights(product: Product, bare_db: Database) -> None:
    product.write_grants("[orders]\nwa_orders r . . . .\ncount_wa_orders() X X . . .\n")
    product.release("7.0.0")
    bare_db.query("CREATE EXTENSION pg_whatsapp VERSION '7.0.0' CASCADE")
    # A function may have the name of a table of ours, before and after.
    bare_db.query("CREATE FUNCTION wa_orders(n integer) RETURNS integer LANGUAGE sql AS 'SELECT n'")
    bare_db.query("SELECT migrate_wa()")
    # An overload of one of ours may come later, and may be locked up.
    bare_db.query("CREATE FUNCTION count_wa_orders(n integer) RETURNS integer LANGUAGE sql AS 'SELECT n'")
    bare_db.query("REVOKE ALL ON FUNCTION count_wa_orders(integer) FROM PUBLIC")
    product.write("orders/more.sql", "CREATE OR REPLACE VIEW wa_more_orders AS SELECT 1 AS n;\n")
    product.write("migrations/7.0.0--7.1.0.sql", "SELECT;\n")
    product.release("7.1.0")
    bare_db.query("ALTER EXTENSION pg_whatsapp UPDATE TO '7.1.0'")
    bare_db.query("SELECT migrate_wa()")
    rows = bare_db.query(
        """
        SELECT p.oid::regprocedure::text AS function, array_agg(a.grantee::regrole::text ORDER BY 1) AS roles
        FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
        WHERE p.proname IN ('wa_orders', 'count_wa_orders') AND a.grantee NOT IN (0, p.proowner)
        GROUP BY p.oid
        """
    )
    assert [(row["function"], sorted(row["roles"])) for row in rows] == [
        ("count_wa_orders()", ["wa_admin", "wa_app"])
    ]


def test_a_schema_where_everybody_may_create_is_refused(
    installed: Database, make_role: Callable[..., str]
) -> None:
    """As PostgreSQL 14 made it, and left in databases that were upgraded."""
    installed.query("GRANT CREATE ON SCHEMA public TO PUBLIC")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
        installed.query("SELECT migrate_wa()")
    assert "everybody may create" in str(refused.value)
    assert "REVOKE CREATE ON SCHEMA public FROM PUBLIC" in (refused.value.diag.message_hint or "")
    installed.query("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    installed.query("SELECT migrate_wa()")


@pytest.mark.parametrize(
    "planted",
    [
        "CREATE FUNCTION public.pg_has_role(name, text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "CREATE TABLE public.wa_migrations (version text, step text, checksum text, objects text[],"
        " applied_at timestamptz, applied_by name)",
        "CREATE FUNCTION public.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
        " CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = name, FUNCTION = pg_catalog.texteqname)",
    ],
)
def test_what_somebody_planted_is_named_and_nothing_runs(
    installed: Database, make_role: Callable[..., str], planted: str
) -> None:
    stranger = make_role()
    installed.query(f"GRANT CREATE ON SCHEMA public TO {stranger}")
    with installed.connect(user=stranger) as session:
        session.execute(planted.encode())
    installed.query(f"REVOKE CREATE ON SCHEMA public FROM {stranger}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
        installed.query("SELECT migrate_wa()")
    assert any(
        word in (refused.value.diag.message_detail or "") for word in ("pg_has_role", "wa_migrations", "=")
    )
    assert steps_of(installed) == set()


def steps_of(database: Database) -> set[str]:
    rows = database.query("SELECT relname AS name FROM pg_class WHERE relname = 'wa_orders'")
    return {row["name"] for row in rows}


def test_a_role_that_may_create_is_named(installed: Database, make_role: Callable[..., str]) -> None:
    other = make_role()
    installed.query(f"GRANT CREATE ON SCHEMA public TO {other}")
    told: list[str] = []
    with installed.connect() as session:
        session.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        session.execute("SELECT migrate_wa()")
    assert any(f"{other} may create objects" in one for one in told)
