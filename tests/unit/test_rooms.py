"""Only a room writes its tables, and calls between rooms go down: in our sources, shown on small trees."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest
from room_facts import SourceError
from room_rules import Exceptions, Rooms, read_promises
from room_tree import NONE, ORDER, body, plpgsql, rooms_of

CHECKOUT = Path(__file__).resolve().parents[2]
WRITES = {
    "insert": (body("sql", "INSERT INTO items (id) VALUES (1);"), 2, "INSERT"),
    "upsert": (body("sql", "INSERT INTO items VALUES (1) ON CONFLICT DO NOTHING;"), 2, "INSERT"),
    "update": (plpgsql("PERFORM pure();\nUPDATE items\nSET note = 'x';"), 6, "UPDATE"),
    "delete": (plpgsql("IF true THEN\nDELETE FROM items;\nEND IF;"), 6, "DELETE"),
    "merge": (
        body("sql", "MERGE INTO items AS i USING orders AS o ON o.id = i.id WHEN MATCHED THEN DELETE;"),
        2,
        "MERGE",
    ),
    "truncate": (plpgsql("TRUNCATE orders, items;"), 5, "TRUNCATE"),
    "copy": ("\n\nCOPY items FROM '/dev/null';", 3, "COPY"),
    "alter": ("ALTER TABLE items ADD COLUMN more text;", 1, "ALTER TABLE"),
    "attach": ("\nALTER TABLE orders ATTACH PARTITION items DEFAULT;", 2, "ALTER TABLE"),
    "inherit": ("ALTER TABLE orders INHERIT items;", 1, "ALTER TABLE"),
    "index": ("CREATE INDEX ON items (id);", 1, "CREATE INDEX"),
    "policy": ("CREATE POLICY p ON items USING (true);", 1, "CREATE POLICY"),
    "comment": ("-- It says more.\n\nCOMMENT ON TABLE items IS 'x';", 3, "COMMENT"),
    "comment of a column": ("COMMENT ON COLUMN items.id IS 'x';", 1, "COMMENT"),
    "comment of a policy": ("COMMENT ON POLICY p ON items IS 'x';", 1, "COMMENT"),
    "lock": ("LOCK TABLE items;", 1, "LOCK"),
    "rename": (plpgsql("ALTER TABLE items RENAME TO x;"), 5, "RENAME"),
    "drop policy": (plpgsql("DROP POLICY p ON items;"), 5, "DROP"),
    "alter policy": (plpgsql("ALTER POLICY p ON items USING (true);"), 5, "ALTERPOLICY"),
    "grant": (plpgsql("GRANT SELECT ON items TO PUBLIC;"), 5, "GRANT"),
    "reindex": (plpgsql("EXECUTE 'REINDEX TABLE items';"), 5, "EXECUTE REINDEX"),
    "set schema": (plpgsql("ALTER TABLE items SET SCHEMA x;"), 5, "ALTEROBJECTSCHEMA"),
    "writable CTE": (
        body(
            "sql",
            "WITH gone AS (\n    DELETE FROM items RETURNING id\n) INSERT INTO orders SELECT id FROM gone;",
        ),
        3,
        "DELETE",
    ),
    "CTE of a loop": (
        plpgsql(
            "FOR v_name IN\nWITH w AS (\nUPDATE items SET id = 1 RETURNING note)\nTABLE w LOOP END LOOP;"
        ),
        7,
        "UPDATE",
    ),
    "CTE of RETURN QUERY": (
        body("plpgsql", "BEGIN\nRETURN QUERY\nDELETE FROM items RETURNING id;\nEND").replace(
            "RETURNS void", "RETURNS SETOF integer"
        ),
        4,
        "DELETE",
    ),
    "CTE of an expression": (plpgsql("v_name := pure(\n); DELETE FROM items;"), 6, "DELETE"),
    "BEGIN ATOMIC": (
        "CREATE FUNCTION meddle() RETURNS void LANGUAGE sql\nBEGIN ATOMIC\n    DELETE FROM items;\nEND;",
        3,
        "DELETE",
    ),
    "view": (body("sql", "UPDATE notes SET note = '';"), 2, "UPDATE of notes"),
    "EXECUTE of a literal": (
        plpgsql("EXECUTE 'DELETE FROM items WHERE id = $1' USING 1;"),
        5,
        "EXECUTE DELETE",
    ),
    "EXECUTE of a CTE": (
        plpgsql("EXECUTE 'WITH w AS (DELETE FROM items RETURNING id) SELECT id FROM w' INTO v_name;"),
        5,
        "EXECUTE DELETE",
    ),
    "EXECUTE of format": (
        plpgsql("EXECUTE format('UPDATE %I SET note = %L', 'items', v_name);"),
        5,
        "EXECUTE UPDATE",
    ),
    "EXECUTE put together": (plpgsql("EXECUTE 'INSERT INTO ' || 'items VALUES (1)';"), 5, "EXECUTE INSERT"),
    "EXECUTE in a loop": (
        plpgsql("FOR v_name IN EXECUTE 'DELETE FROM items RETURNING note' LOOP NULL; END LOOP;"),
        5,
        "EXECUTE DELETE",
    ),
    "row variable": (
        plpgsql("V_row.id := 1;\nINSERT INTO items SELECT v_row.*;", declared="v_row orders;"),
        6,
        "INSERT",
    ),
    "PL/Python": (body("plpython3u", "return plpy.execute('DELETE FROM items')"), 1, "EXECUTE DELETE"),
}


@pytest.mark.parametrize("seed", WRITES)
def test_a_write_of_another_rooms_table_is_found(tmp_path: Path, seed: str) -> None:
    text, line, how = WRITES[seed]
    actor = "meddle" if "meddle" in text else "sql/high/high.sql"
    assert rooms_of(tmp_path, {"high/high.sql": text}).complaints(NONE) == [
        f"sql/high/high.sql:{line}: {actor} of room high writes items of room low ({how})"
    ]


@pytest.mark.parametrize(
    ("statement", "also"),
    [
        ("EXECUTE v_name;", []),
        ("EXECUTE format('DELETE FROM %I', v_name);", []),
        ("EXECUTE 'DELETE FROM it' || v_name;", []),
        ("EXECUTE format('SELECT %I()', v_name);", []),
        ("EXECUTE format('UPDATE items SET %s', v_name);", ["items"]),
        ("EXECUTE format('SELECT %s', v_name);", []),
        ("EXECUTE format('SELECT %s', quote_ident(v_name) || v_name);", []),
        ("EXECUTE 'SELECT ' || v_name;", []),
        ("EXECUTE format('SELECT %2$s', v_name);", []),
        ("EXECUTE format(v_name, 'SELECT');", []),
        ("EXECUTE format('ALTER TABLE %I RENAME TO x', v_name);", []),
        ("EXECUTE format('DROP POLICY p ON %I', v_name);", []),
        ("EXECUTE format('DROP FUNCTION %I()', v_name);", []),
        ("EXECUTE format('LOCK %I', v_name);", []),
        ("EXECUTE format('GRANT SELECT ON %I TO PUBLIC', v_name);", []),
        ("EXECUTE format('CREATE TABLE %I (id integer)', v_name);", []),
    ],
)
def test_a_write_of_no_known_table_is_found(tmp_path: Path, statement: str, also: list[str]) -> None:
    rooms = rooms_of(tmp_path, {"high/high.sql": plpgsql(statement)})
    assert {(fact.line, fact.target) for fact in rooms.foreign("write")} == {
        (5, "unknown"),
        *((5, target) for target in also),
    }
    assert len(rooms.complaints(NONE)) == 1 + len(also)
    found = [fact.key for fact in rooms.foreign("write")]
    assert any(key.startswith("meddle -> unknown (EXECUTE") for key in found)
    assert not rooms.complaints(Exceptions(writes=dict.fromkeys(found, "so be it")))


def test_statements_of_files_and_do_blocks_count(tmp_path: Path) -> None:
    text = "DO $$\nBEGIN\n    DELETE FROM items;\nEND\n$$;\nINSERT INTO items VALUES (1);"
    lines = rooms_of(tmp_path, {"high/high.sql": text}).complaints(NONE)
    assert [line.split(": ")[0] for line in lines] == ["sql/high/high.sql:3", "sql/high/high.sql:6"]


@pytest.mark.parametrize(
    ("statement", "how"),
    [("PARTITION OF items DEFAULT", "PARTITION OF"), ("() INHERITS (items)", "INHERITS")],
)
def test_a_table_that_joins_anothers_is_found(tmp_path: Path, statement: str, how: str) -> None:
    files = {"high/high.sql": f"CREATE TABLE part {statement};"}
    assert rooms_of(tmp_path, files).complaints(NONE) == [
        f"sql/high/high.sql:1: part of room high writes items of room low ({how})"
    ]


def test_what_is_said_of_a_view_is_written_to_the_view(tmp_path: Path) -> None:
    files = {
        "low/rows.sql": "CREATE VIEW kept AS SELECT 1 AS id;",
        "high/high.sql": "ALTER VIEW kept ALTER COLUMN id SET DEFAULT 1;",
    }
    assert rooms_of(tmp_path, files).complaints(NONE) == [
        "sql/high/high.sql:1: sql/high/high.sql of room high writes kept of room low (ALTER TABLE)"
    ]


def test_a_table_that_a_body_makes_is_of_its_room(tmp_path: Path) -> None:
    made = "CREATE FUNCTION make() RETURNS void LANGUAGE plpgsql AS 'BEGIN {} END';"
    statement = "CREATE TABLE made (id integer); CREATE TABLE also AS SELECT 1 AS id;"
    deleting = body("sql", "DELETE FROM made;\nDELETE FROM also;\nDELETE FROM _wa_scripts;")
    files = {"low/make.sql": made.format(statement), "high/high.sql": deleting}
    assert [line.split(" writes ")[1] for line in rooms_of(tmp_path, files).complaints(NONE)] == [
        "made of room low (DELETE)",
        "also of room low (DELETE)",
        "_wa_scripts of room extension (DELETE)",
    ]


def test_a_view_of_a_room_above_is_not_read(tmp_path: Path) -> None:
    files = {
        "high/high.sql": "CREATE VIEW ordered AS SELECT o.id FROM orders AS o;",
        "low/climb.sql": body("sql", "SELECT id FROM ordered;"),
    }
    rooms = rooms_of(tmp_path, files)
    assert rooms.complaints(NONE) == [
        "sql/low/climb.sql:2: meddle of room low reads ordered of room high (read)"
    ]
    assert not rooms.complaints(Exceptions(calls={"meddle -> ordered": "so be it"}))


def test_a_pack_is_a_room(tmp_path: Path) -> None:
    lines = rooms_of(
        tmp_path,
        {"packs/extra/extra.sql": body("sql", "DELETE FROM items;"), "low/more.sql": "DELETE FROM extras;"},
    ).complaints(NONE)
    assert lines == [
        "sql/low/more.sql:1: sql/low/more.sql of room low writes extras of room packs/extra (DELETE)",
        "sql/packs/extra/extra.sql:2: meddle of room packs/extra writes items of room low (DELETE)",
    ]


ALLOWED = {
    "own table": body("sql", "DELETE FROM orders USING items AS i WHERE i.id = orders.id;"),
    "call below": body("sql", "SELECT write_note();"),
    "reading": plpgsql("SELECT i.note INTO v_name FROM items AS i FOR UPDATE;"),
    "reading what a variable names": plpgsql("EXECUTE format('SELECT note FROM %I', v_name) INTO v_name;"),
    "a check of the rows": (
        "CREATE TRIGGER refuse BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION tg_refuse();"
    ),
    "quoted names and values": plpgsql(
        "EXECUTE format('SELECT %I, %L, %s', v_name, v_name, quote_literal(v_name)) || quote_ident(v_name);"
    ),
    "temporary table": plpgsql("CREATE TEMPORARY TABLE mine (id integer); INSERT INTO mine VALUES (1);"),
}


@pytest.mark.parametrize("seed", ALLOWED)
def test_what_a_room_may_do(tmp_path: Path, seed: str) -> None:
    assert not rooms_of(tmp_path, {"high/high.sql": ALLOWED[seed]}).complaints(NONE)


def test_a_view_with_an_instead_trigger_is_written_by_its_function(tmp_path: Path) -> None:
    instead = (
        "CREATE FUNCTION tg_notes() RETURNS trigger LANGUAGE plpgsql AS\n"
        "'BEGIN INSERT INTO items (note) VALUES (NEW.note); RETURN NEW; END';\n"
        "CREATE TRIGGER notes INSTEAD OF INSERT ON notes FOR EACH ROW EXECUTE FUNCTION tg_notes();"
    )
    files = {"low/instead.sql": instead, "high/high.sql": body("sql", "INSERT INTO notes VALUES ('x');")}
    rooms = rooms_of(tmp_path, files)
    assert not rooms.complaints(NONE)
    assert [fact.key for fact in rooms.foreign("call")] == ["meddle -> tg_notes"]
    # It stands for inserts only.
    files["high/high.sql"] = body("sql", "DELETE FROM notes;")
    assert len(rooms_of(tmp_path, files).complaints(NONE)) == 1


def test_a_call_is_found_wherever_an_expression_stands(tmp_path: Path) -> None:
    places = """
DECLARE
    v_record record := f1(); c_one CONSTANT integer := f2(); v_row items DEFAULT f3();
    v_cursor CURSOR (p_key integer) FOR SELECT f4(p_key);
    v_other refcursor; v_list integer[]; v_one integer;
BEGIN
    RAISE NOTICE '%', f5() USING DETAIL = f6();
    ASSERT f7(), f8();
    FOREACH v_one IN ARRAY f9() LOOP EXIT WHEN f10(); END LOOP;
    CASE f11() WHEN f12() THEN NULL; ELSE PERFORM f13(); END CASE;
    FOR i IN f14()..f15() BY f16() LOOP CONTINUE WHEN f17(); END LOOP;
    FOR v_record IN EXECUTE 'SELECT f18($1)' USING f19() LOOP NULL; END LOOP;
    FOR v_record IN v_cursor(f20()) LOOP NULL; END LOOP;
    OPEN v_cursor(f21());
    OPEN v_other FOR EXECUTE 'SELECT f22()' USING f23();
    FETCH RELATIVE f24() FROM v_other INTO v_record;
    IF f25() THEN NULL; ELSIF f26() THEN WHILE f27() LOOP NULL; END LOOP; END IF;
    BEGIN PERFORM f28(); EXCEPTION WHEN others THEN CALL f29(f30()); END;
    v_list[f31()] := f32(); v_row.id := f33();
    RETURN NEXT f34();
    RETURN QUERY SELECT f35();
    RETURN QUERY EXECUTE 'SELECT f36($1)' USING f37();
END
"""
    names = [f"f{number}" for number in range(1, 38)]
    files = {
        "low/more.sql": "\n".join(f"CREATE FUNCTION {f}() RETURNS integer RETURN 1;" for f in names),
        "high/high.sql": body("plpgsql", places).replace("RETURNS void", "RETURNS SETOF integer"),
    }
    called = [fact.target for fact in rooms_of(tmp_path, files).foreign("call")]
    assert sorted(called) == sorted(names)


@pytest.mark.parametrize(
    "caller",
    [
        "CREATE FUNCTION climb() RETURNS void LANGUAGE sql AS 'SELECT meddle()';",
        "CREATE FUNCTION climb() RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT meddle(); END;",
        "CREATE FUNCTION climb() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM 1 WHERE meddle() = 1; END';",
        "CREATE FUNCTION climb() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CALL meddle()'; END $$;",
        "CREATE VIEW climb AS SELECT meddle();",
        "CREATE TABLE climb (id text DEFAULT meddle());",
        "CREATE TRIGGER climb AFTER INSERT ON items EXECUTE FUNCTION meddle();",
    ],
)
def test_a_circle_of_calls_is_found(tmp_path: Path, caller: str) -> None:
    files = {"high/high.sql": body("sql", "SELECT write_note();"), "low/climb.sql": caller}
    rooms = rooms_of(tmp_path, files)
    (line,) = rooms.complaints(NONE)
    assert line.startswith("sql/low/climb.sql:1: climb of room low calls meddle of room high (")
    assert not rooms.complaints(Exceptions(calls={"climb -> meddle": "an opt-out cancels"}))


def test_an_exception_that_nothing_needs_is_found(tmp_path: Path) -> None:
    stale = Exceptions(
        writes={"write_note -> items": "its own"},
        calls={"meddle -> write_note": "down"},
    )
    rooms = rooms_of(tmp_path, {"high/high.sql": body("sql", "SELECT write_note();")})
    assert rooms.complaints(stale) == [
        "tests/rooms.toml: nothing needs the exception of writes 'write_note -> items' any more",
        "tests/rooms.toml: nothing needs the exception of calls 'meddle -> write_note' any more",
    ]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"new/tables.sql": "CREATE TABLE n (id integer);"}, "differ in the rooms that there are: new"),
        ({"high/twice.sql": "CREATE TABLE items (id integer);"}, "items is of room low already"),
        ({"high/high.sql": body("sql", "SELECT FROM WHERE;")}, "sql/high/high.sql:1: meddle: syntax error"),
        *(
            ({"high/high.sql": f"-- A.\n\n{statement};"}, f"sql/high/high.sql:3: rooms hold no {kind}")
            for statement, kind in [
                ("ALTER TABLE items RENAME TO x", "RenameStmt"),
                ("ALTER TABLE items SET SCHEMA x", "AlterObjectSchemaStmt"),
                ("ALTER POLICY p ON items USING (true)", "AlterPolicyStmt"),
                ("DROP TABLE items", "DropStmt"),
                ("GRANT SELECT ON items TO PUBLIC", "GrantStmt"),
                ("CREATE STATISTICS s ON id, note FROM items", "CreateStatsStmt"),
                ("CREATE AGGREGATE a (integer) (SFUNC = f, STYPE = integer)", "DefineStmt"),
                ("CREATE CAST (text AS integer) WITH INOUT", "CreateCastStmt"),
                ("CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION f()", "CreateEventTrigStmt"),
                ("CREATE RULE r AS ON INSERT TO items DO INSTEAD NOTHING", "RuleStmt"),
                ("REINDEX TABLE items", "ReindexStmt"),
                ("CLUSTER items", "ClusterStmt"),
            ]
        ),
        *(
            ({"high/high.sql": plpgsql(statement)}, f"sql/high/high.sql:5: meddle: bodies hold no {kind}")
            for statement, kind in [
                ("DO $x$ BEGIN DELETE FROM items; END $x$;", "DoStmt"),
                ("EXECUTE $x$DO 'BEGIN DELETE FROM items; END'$x$;", "DoStmt"),
                ("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DELETE FROM items';", "CreateFunction"),
                (
                    "EXECUTE $x$CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'SELECT 1'$x$;",
                    "CreateFunction",
                ),
                ("CREATE TRIGGER t AFTER INSERT ON items EXECUTE FUNCTION pure();", "CreateTrigStmt"),
            ]
        ),
        *(
            ({"high/high.sql": body("plpython3u", text)}, r"high.sql:1: meddle: plpy may stand as plpy.NAME")
            for text in [
                "run = plpy.execute\nrun('DELETE FROM items')",
                "import plpy as p\np.execute('DELETE FROM items')",
                "getattr(plpy, 'execute')('DELETE FROM items')",
                "globals()['plpy'].execute('DELETE FROM items')",
            ]
        ),
        ({"high/high.sql": body("plpython3u", "return (")}, "sql/high/high.sql:1: meddle: "),
        (
            {"high/high.sql": body("c", "x").replace("\n$$;", "$$, 'y';")},
            "sql/high/high.sql:1: meddle: rooms hold no functions in c",
        ),
    ],
)
def test_sources_that_cannot_be_judged_are_refused(tmp_path: Path, files: dict[str, str], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        rooms_of(tmp_path, files)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (ORDER + "low  again\n", "sql/rooms:5: low stands here twice"),
        ("low\n", "sql/rooms:1: low has no promise"),
    ],
)
def test_an_order_of_rooms_that_cannot_be_read_is_refused(tmp_path: Path, order: str, said: str) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql/rooms").write_text(order)
    with pytest.raises(SourceError, match=said):
        read_promises(tmp_path)


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ('[writes]\n"a -> b" = ""', "the exception 'a -> b' has no reason"),
        ('[writes]\n"a -> b" = 1', "the exception 'a -> b' has no reason"),
        ('[calls]\n"a" = "because"', "'a' is no exception"),
        ('[reads]\n"a -> b" = "because"', "not 'reads'"),
        ('"a -> b" = "because"', "not 'a -> b'"),
        ("[writes", "rooms.toml: "),
    ],
)
def test_exceptions_that_cannot_be_read_are_refused(tmp_path: Path, stated: str, said: str) -> None:
    (tmp_path / "rooms.toml").write_text(stated)
    with pytest.raises(SourceError, match=said):
        Exceptions.read(tmp_path / "rooms.toml")


def test_the_sources_keep_to_their_rooms() -> None:
    complaints = Rooms(CHECKOUT).complaints(Exceptions.read(CHECKOUT / "tests/rooms.toml"))
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.fixture(name="program", scope="module")
def fixture_program() -> ModuleType:
    loader = SourceFileLoader("bin_rooms", str(CHECKOUT / "bin/rooms"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_drawing_is_current(program: ModuleType) -> None:
    document = program.TARGET.read_text()
    exceptions = Exceptions.read(CHECKOUT / "tests/rooms.toml")
    assert program.drawn(document, Rooms(CHECKOUT), exceptions) == document, "run: make rooms"


def test_what_the_drawing_says(program: ModuleType, tmp_path: Path) -> None:
    files = {
        "high/high.sql": "-- Meddling. With all.\n"
        + body("sql", "SELECT write_note(); SELECT id FROM items;")
    }
    document = f"before\n{program.BEGIN}\nold\n{program.END}\nafter\n"
    exceptions = Exceptions(writes={"a -> unknown (EXECUTE)": "so be it"}, calls={"a -> b": "because"})
    drawing = program.drawn(document, rooms_of(tmp_path, files), exceptions)
    assert drawing.startswith("before\n")
    assert drawing.endswith("\nafter\n")
    assert "old" not in drawing
    picture = [line.split() for line in drawing.splitlines() if line.startswith("    ")]
    assert picture[:2] == [["high"], ["extension", "low", "packs/extra"]]
    assert "| `low` | keeps items |  | high |" in drawing
    assert "| `high` | orders them | low |  |" in drawing
    assert "* `a` writes what a variable names (EXECUTE): so be it." in drawing
    assert "* `a` calls `b`: because." in drawing
    high = drawing[drawing.index("    high/") : drawing.index("    packs/extra/")]
    assert [line.split(None, 1) for line in high.splitlines()[1:]] == [
        ["tables", "orders"],
        ["reads", "items"],
        ["tables.sql", "Orders, of items"],
        ["high.sql", "Meddling"],
    ]
