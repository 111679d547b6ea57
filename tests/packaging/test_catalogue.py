"""What every object of an installed schema must have, read from the catalogue: none can be forgotten.

Tests sql/extension/roles.sql, sql/extension/rights.sql.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest
from harness import CHECKOUT, Database
from product import load_build, with_packs

# Our relations, not those of the extensions beside us.
OURS = """
    SELECT c.oid, c.relname AS name, c.relkind AS kind FROM pg_class AS c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
"""
FUNCTIONS = """
    SELECT p.oid, p.oid::regprocedure::text AS signature, p.proname AS name, p.prosecdef AS is_definer,
        p.proconfig AS settings, p.prosqlbody IS NOT NULL AS is_bound, l.lanname AS language,
        p.prorettype = 'trigger'::regtype AS is_trigger
    FROM pg_proc AS p
    JOIN pg_language AS l ON l.oid = p.prolang
    WHERE p.pronamespace = 'public'::regnamespace
"""
# sql/grants says why of each.
FUNCTIONS_OPEN_TO_ALL = [
    "_wa_data_directory_mark()",
    "_wa_give_rights(text)",
    "_wa_lock_migration()",
    "_wa_object_ids()",
    "_wa_require_safe_schema()",
    "_wa_stated_rights(text)",
    "_wa_taken_objects(text[])",
    "migrate_wa()",
    "plan_wa_migration()",
]
# The scripts are public anyway: they are in the source tree.
RELATIONS_OPEN_TO_ALL = {("_wa_scripts", "SELECT")}
# Found by the provider's number id alone, since a webhook names nothing else; Meta gives each id once.
KEYS_WITHOUT_TENANT = {"wa_number_routes_pkey"}
# What people write into; each column that is not listed here needs a comment.
TABLES_WRITTEN_BY_HAND = ("wa_organizations", "wa_outbound_queue")
OBVIOUS_COLUMNS = {
    "organization_id", "id", "name", "created_at", "text_body", "template_name", "template_language",
    "priority", "metadata", "fallback_template_language", "fallback_template_params", "retry_count",
    "last_error", "wa_message_id", "claimed_at", "processed_at", "contact_id",
}  # fmt: skip


@pytest.fixture
def db(make_database: Callable[..., Database]) -> Database:
    """With every pack: what holds of the rest holds of them."""
    return with_packs(make_database())


def names(db: Database, condition: str, source: str = FUNCTIONS) -> list[str]:
    """Signatures of functions, or names of relations, that meet a condition of SQL."""
    column = "signature" if source is FUNCTIONS else "name"
    rows = db.query(f"SELECT {column} AS found FROM ({source}) AS o WHERE {condition} ORDER BY 1")
    return [row["found"] for row in rows]


def test_every_function_has_a_comment(db: Database) -> None:
    assert len(names(db, "true")) > 100
    assert names(db, "obj_description(oid, 'pg_proc') IS NULL") == []


def test_every_table_and_view_has_a_comment(db: Database) -> None:
    assert names(db, "obj_description(oid, 'pg_class') IS NULL", OURS) == []


@pytest.mark.parametrize("table", TABLES_WRITTEN_BY_HAND)
def test_columns_that_people_write_have_a_comment(db: Database, table: str) -> None:
    rows = db.query(
        """
        SELECT a.attname AS name FROM pg_attribute AS a
        WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
            AND col_description(a.attrelid, a.attnum) IS NULL
        """,
        table,
    )
    assert {row["name"] for row in rows} <= OBVIOUS_COLUMNS


def test_every_volatility_was_chosen(db: Database) -> None:
    """VOLATILE is also what PostgreSQL assumes, so only the source tells whether it was meant."""
    headers: dict[str, list[str]] = {}
    for path in load_build().read_manifest(CHECKOUT):
        text = (CHECKOUT / path).read_text()
        for match in re.finditer(
            r"^CREATE (?:OR REPLACE )?FUNCTION (\w+)\s*\((.*?)(?:^AS |\bAS \$|^BEGIN ATOMIC|^RETURN\b|^\$)",
            text,
            re.MULTILINE | re.DOTALL,
        ):
            headers.setdefault(match[1], []).append(match[2])
    installed = {row["name"] for row in db.query(f"SELECT name FROM ({FUNCTIONS}) AS f")}
    assert installed <= headers.keys()
    unchosen = {
        name
        for name in installed
        if not all(re.search(r"\b(IMMUTABLE|STABLE|VOLATILE)\b", header) for header in headers[name])
    }
    assert unchosen == set()


def test_no_column_index_or_constraint_hangs_on_the_extension(db: Database) -> None:
    """DROP EXTENSION takes functions along, which migrate_wa() makes again; it makes no defaults again."""
    assert (
        db.query(
            """
            SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS object
            FROM pg_depend AS m
            JOIN pg_depend AS d ON d.refclassid = m.classid AND d.refobjid = m.objid
            WHERE m.refclassid = 'pg_extension'::regclass AND m.deptype = 'e'
                AND m.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_whatsapp')
                AND d.classid NOT IN ('pg_proc'::regclass, 'pg_rewrite'::regclass, 'pg_extension'::regclass)
                AND d.deptype = 'n' AND m.classid <> 'pg_class'::regclass
            """
        )
        == []
    )


def test_nothing_is_open_to_all(db: Database) -> None:
    functions = names(
        db,
        "EXISTS (SELECT FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a"
        " WHERE p.oid = o.oid AND a.grantee = 0)",
    )
    assert functions == FUNCTIONS_OPEN_TO_ALL
    relations = db.query(
        """
        SELECT c.relname AS name, a.privilege_type AS privilege
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.relnamespace = 'public'::regnamespace AND a.grantee = 0
        """
    )
    assert {(row["name"], row["privilege"]) for row in relations} <= RELATIONS_OPEN_TO_ALL


def test_the_rights_are_those_of_sql_grants(db: Database) -> None:
    """Each line names something that is there, and nothing is granted without a line."""
    columns = ("wa_admin", "wa_app", "wa_dispatcher", "wa_receiver", "wa_analyst", "wa_api")
    words = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE", "X": "EXECUTE"}
    columns_of = {
        row["name"]: row["columns"]
        for row in db.query(
            "SELECT c.relname AS name, array_agg(a.attname::text) AS columns"
            " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relnamespace = 'public'::regnamespace"
            " GROUP BY c.relname"
        )
    }
    stated: set[tuple[str, str, str]] = set()
    for line in (CHECKOUT / "sql/grants").read_text().splitlines():
        name, *cells = line.split() or [""]
        if cells == ["public"]:
            stated.add((name, "PUBLIC", "EXECUTE"))
        elif len(cells) in (5, 6) and not line.startswith("#"):
            stated |= {
                (name, role, words[letter])
                for role, letters in zip(columns, cells, strict=False)
                for letter in letters.replace(".", "").replace("W", "")
            }
            stated |= {
                (f"{name}.{column}", role, "UPDATE")
                for role, letters in zip(columns, cells, strict=False)
                if "W" in letters
                for column in columns_of[name]
            }
    granted = db.query(
        """
        SELECT o.name, a.grantee, o.owner, a.privilege_type AS privilege,
            CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role
        FROM (
            SELECT c.relname AS name, c.relowner AS owner, c.relacl AS acl FROM pg_class AS c
            WHERE c.relnamespace = 'public'::regnamespace AND c.relname <> '_wa_scripts'
            UNION ALL
            SELECT c.relname || '.' || t.attname, c.relowner, t.attacl
            FROM pg_class AS c JOIN pg_attribute AS t ON t.attrelid = c.oid
            WHERE c.relnamespace = 'public'::regnamespace
            UNION ALL
            SELECT p.proname || '()', p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
            FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace
        ) AS o
        CROSS JOIN LATERAL aclexplode(o.acl) AS a
        WHERE a.grantee <> o.owner
        """
    )
    assert len(granted) > 500
    assert {(row["name"], row["role"], row["privilege"]) for row in granted} == stated


def test_nobody_but_an_administrator_may_lock_a_table(db: Database, make_role: Callable[..., str]) -> None:
    """Whoever may change, or delete in, a whole table may lock it; the packs' are one application's."""
    relations = db.query(
        "SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
        " AND c.relkind IN ('r', 'p', 'v') ORDER BY 1"
    )
    role = make_role("wa_app", "wa_dispatcher", "wa_receiver", "wa_analyst")
    locked = []
    with db.connect(user=role) as connection:
        for row in relations:
            try:
                with connection.transaction():
                    # As PostgreSQL 15 sees it, INSERT allows ROW EXCLUSIVE, which stops no writer.
                    connection.execute(f'LOCK TABLE "{row["name"]}" IN SHARE MODE'.encode())
            except psycopg.errors.InsufficientPrivilege:
                continue
            locked.append(row["name"])
    assert locked == ["ai_events", "ai_tasks", "attendees", "orders", "profiles"]


def test_what_was_granted_later_is_shown(db: Database, make_role: Callable[..., str]) -> None:
    role = make_role()
    assert db.query("SELECT * FROM get_wa_later_grants()") == []
    db.query(f"GRANT SELECT, DELETE ON wa_templates TO {role}")
    db.query(f"GRANT SELECT (name), UPDATE (name) ON wa_secrets TO {role}")
    db.query("GRANT UPDATE ON wa_templates TO wa_app")
    db.query("GRANT EXECUTE ON FUNCTION resolve_wa_panic TO PUBLIC")
    try:
        found = db.query("SELECT object, role_name, privilege FROM get_wa_later_grants()")
        assert {(row["object"], row["role_name"], row["privilege"]) for row in found} == {
            ("wa_templates", role, "SELECT"),
            ("wa_templates", role, "DELETE"),
            ("wa_templates", "wa_app", "UPDATE"),
            ("wa_secrets.name", role, "SELECT"),
            ("wa_secrets.name", role, "UPDATE"),
            ("resolve_wa_panic(uuid,text)", "PUBLIC", "EXECUTE"),
        }
        db.query("SELECT migrate_wa()")
        assert len(db.query("SELECT * FROM get_wa_later_grants()")) == len(found)
    finally:
        db.query(f"DROP OWNED BY {role}")


def test_internal_functions_are_for_us_only(db: Database) -> None:
    """No group may call a function that takes the organization as an argument, unless it looks who calls."""
    granted = db.query(
        f"""
        SELECT DISTINCT f.signature
        FROM ({FUNCTIONS}) AS f
        JOIN pg_proc AS p ON p.oid = f.oid
        CROSS JOIN LATERAL aclexplode(p.proacl) AS a
        WHERE p.prosecdef AND 'p_org' = ANY (p.proargnames) AND a.grantee <> p.proowner
        """
    )
    assert granted == []


def test_definer_functions_pin_their_path(db: Database) -> None:
    pinned = "EXISTS (SELECT FROM unnest(settings) AS s WHERE s ~ '^search_path=.*pg_temp\"?$')"
    assert names(db, f"is_definer AND NOT coalesce({pinned}, false)") == []


def test_unbound_bodies_pin_their_path(db: Database) -> None:
    """A body in standard SQL is bound when it is made; every other one looks names up when it runs."""
    pinned = "EXISTS (SELECT FROM unnest(settings) AS s WHERE s LIKE 'search_path=%')"
    assert (
        names(db, f"NOT is_bound AND language IN ('sql', 'plpgsql') AND NOT coalesce({pinned}, false)") == []
    )


def test_bodies_with_backslashes_mean_the_same_in_every_session(db: Database) -> None:
    r"""With standard_conforming_strings off, '\d' would be 'd'; E'' strings say what they mean."""
    rows = db.query(
        """
        SELECT p.proname AS name, p.prosrc AS body, coalesce(p.proconfig, '{}') AS settings
        FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
        WHERE p.pronamespace = 'public'::regnamespace AND l.lanname IN ('sql', 'plpgsql')
            AND p.prosqlbody IS NULL AND position(chr(92) IN p.prosrc) > 0
        """
    )
    loose = {
        row["name"]
        for row in rows
        if "\\" in re.sub(r"\bE'(?:[^'\\]|\\.|'')*'", "", re.sub(r"(?m)^ *--.*$", "", row["body"]))
        and "standard_conforming_strings=on" not in row["settings"]
    }
    assert rows
    assert loose == set()


def test_trigger_functions_are_named_after_their_table(db: Database) -> None:
    rows = db.query(
        """
        SELECT t.tgname AS trigger, c.relname AS table, p.proname AS function
        FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_proc AS p ON p.oid = t.tgfoid
        WHERE NOT t.tgisinternal AND c.relnamespace = 'public'::regnamespace
        """
    )
    assert rows
    # One that serves many tables has the trigger's name only.
    assert [
        row
        for row in rows
        if not row["function"].startswith(f"tg_{row['table']}__")
        and row["function"] != f"tg_{row['trigger']}"
    ] == []


def test_every_tenant_table_has_row_security(db: Database) -> None:
    tenant = "EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = oid AND a.attname = 'organization_id')"
    tables = f"kind IN ('r', 'p') AND ({tenant} OR name = 'wa_organizations')"
    assert len(names(db, tables, OURS)) > 20
    unprotected = (
        "NOT (SELECT c.relrowsecurity FROM pg_class AS c WHERE c.oid = o.oid)"
        " OR NOT EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = o.oid)"
    )
    assert names(db, f"{tables} AND ({unprotected})", OURS) == []


def test_tables_without_a_tenant_are_for_us_only(db: Database) -> None:
    """A table that no policy guards may be read by a group only if it holds nothing of a tenant."""
    granted = db.query(
        """
        SELECT c.relname AS name, array_agg(DISTINCT a.grantee::regrole::text) AS roles
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND NOT c.relrowsecurity
            AND a.grantee NOT IN (c.relowner, 0)
        GROUP BY c.relname ORDER BY 1
        """
    )
    readable_by_tenants = [row["name"] for row in granted if {"wa_app", "wa_analyst"} & set(row["roles"])]
    assert readable_by_tenants == [
        "wa_default_consent_texts",
        "wa_default_keywords",
        "wa_error_rules",
        "wa_migrations",
        "wa_packs",
        "wa_phone_zones",
        "wa_providers",
    ]


def test_policies_hold_no_subquery(db: Database) -> None:
    policies = db.query(
        "SELECT tablename, policyname FROM pg_policies WHERE schemaname = 'public'"
        " AND concat(qual, with_check) ~* '\\mselect\\M'"
    )
    assert policies == []


def test_every_key_holds_the_tenant(db: Database) -> None:
    """No row can point across tenants. Primary and foreign keys lead with it; unique keys contain it."""
    rows = db.query(
        """
        SELECT i.indexrelid::regclass::text AS name
        FROM pg_index AS i
        JOIN pg_class AS c ON c.oid = i.indrelid AND c.relnamespace = 'public'::regnamespace
        JOIN pg_attribute AS t ON t.attrelid = c.oid AND t.attname = 'organization_id'
        WHERE i.indisunique AND CASE WHEN i.indisprimary THEN i.indkey[0] <> t.attnum
            ELSE t.attnum <> ALL (i.indkey) END
        UNION ALL
        SELECT k.conname
        FROM pg_constraint AS k
        JOIN pg_class AS c ON c.oid = k.conrelid AND c.relnamespace = 'public'::regnamespace
        JOIN pg_attribute AS t ON t.attrelid = c.oid AND t.attname = 'organization_id'
        WHERE k.contype = 'f' AND k.conkey[1] <> t.attnum
        UNION ALL
        SELECT k.conname
        FROM pg_constraint AS k
        JOIN pg_attribute AS t ON t.attrelid = k.confrelid AND t.attname = 'organization_id'
        WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace AND k.confkey[1] <> t.attnum
        """
    )
    assert {row["name"] for row in rows} == KEYS_WITHOUT_TENANT


def test_constraints_and_indexes_are_named_by_hand(db: Database) -> None:
    rows = db.query(
        """
        SELECT c.relname AS table, k.conname AS name FROM pg_constraint AS k
        JOIN pg_class AS c ON c.oid = k.conrelid
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
        UNION ALL
        SELECT c.relname, i.relname FROM pg_index AS x
        JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_class AS c ON c.oid = x.indrelid
        WHERE c.relnamespace = 'public'::regnamespace
        """
    )
    suffix = "(pkey|key|fkey|check|idx)"
    wrong = [row for row in rows if not re.fullmatch(rf"{row['table']}(_\w+)?_{suffix}", row["name"])]
    assert wrong == []


def test_a_trigger_is_called_what_it_does(db: Database) -> None:
    """Its function is tg_TABLE__WHAT, itself WHAT, or WHAT_event where two of a table call one function."""
    wrong = db.query(
        """
        SELECT t.tgname AS name, p.proname AS function
        FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_proc AS p ON p.oid = t.tgfoid
        WHERE NOT t.tgisinternal AND c.relnamespace = 'public'::regnamespace
            AND p.proname NOT IN (
                'tg_' || c.relname || '__' || t.tgname, 'tg_' || t.tgname,
                'tg_' || c.relname || '__' || regexp_replace(t.tgname, '_(insert|update|delete)$', '')
            )
        """
    )
    assert wrong == []


def test_parameters_of_new_public_functions_begin_with_p(db: Database) -> None:
    """Whoever calls by name need not look it up; functions of releases keep the names that they have."""
    released = "".join(path.read_text() for path in (CHECKOUT / "migrations/released").glob("*.sql"))
    rows = db.query(
        """
        SELECT p.proname AS name, array_agg(a.name ORDER BY a.place) AS parameters
        FROM pg_proc AS p, unnest(p.proargnames) WITH ORDINALITY AS a (name, place)
        WHERE p.pronamespace = 'public'::regnamespace AND p.proname !~ '^(_wa|tg)_'
            AND coalesce(p.proargmodes[a.place], 'i') IN ('i', 'b', 'v')
        GROUP BY p.oid
        """
    )
    bare = {
        row["name"]
        for row in rows
        if f"FUNCTION {row['name']}(" not in released
        and not all(name.startswith("p_") for name in row["parameters"])
    }
    assert bare == set()


def test_a_time_zone_looks_the_same_everywhere(db: Database) -> None:
    """No constraint may call a function of ours, so the pattern stands in each; none asks the server."""
    rows = db.query(
        """
        SELECT c.conrelid::regclass::text AS place, pg_get_constraintdef(c.oid) AS text
        FROM pg_constraint AS c WHERE c.contype = 'c' AND pg_get_constraintdef(c.oid) LIKE '%Etc/GMT%'
        UNION ALL
        SELECT '_wa_require_time_zone', prosrc FROM pg_proc WHERE proname = '_wa_require_time_zone'
        """
    )
    places = [
        "_wa_require_time_zone",
        "wa_contacts",
        "wa_organizations",
        "wa_phone_numbers",
        "wa_zone_prefixes",
    ]
    assert sorted(row["place"] for row in rows) == places
    assert len({match[0] for row in rows if (match := re.search(r"'\^\(UTC.*?\$'", row["text"]))}) == 1
    assert [row["place"] for row in rows if "AT TIME ZONE" in row["text"]] == []
