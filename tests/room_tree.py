"""A small tree of rooms, for the tests of the rules of rooms."""

from __future__ import annotations

from pathlib import Path

from room_rules import Exceptions, Rooms

# Two rooms, one above the other, and a pack above both. Each test adds one file.
TREE = {
    "extension/pure.sql": "CREATE FUNCTION pure() RETURNS integer LANGUAGE sql AS 'SELECT 1';",
    "low/tables.sql": "-- What is kept.\nCREATE TABLE items (id integer, note text);",
    "low/low.sql": (
        "CREATE VIEW notes AS SELECT i.note FROM items AS i;\n"
        "CREATE FUNCTION write_note() RETURNS void LANGUAGE sql AS 'INSERT INTO items DEFAULT VALUES';\n"
        "CREATE FUNCTION tg_refuse() RETURNS trigger LANGUAGE plpgsql AS\n"
        "'BEGIN IF NEW.id = 0 THEN RAISE ''zero''; END IF; RETURN NEW; END';"
    ),
    "high/tables.sql": "-- Orders, of items.\nCREATE TABLE orders (id integer, note text);",
    "packs/extra/tables.sql": "-- Extras.\nCREATE TABLE extras (id integer);",
}
ORDER = "extension  pure\nlow  keeps items\nhigh  orders them\npacks/extra  adds extras\n"
NONE = Exceptions()


def rooms_of(root: Path, files: dict[str, str]) -> Rooms:
    """The rooms of TREE with some files more."""
    files = TREE | files
    for path, text in files.items():
        (root / "sql" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "sql" / path).write_text(text)
    (root / "sql/manifest").write_text("\n".join(files))
    (root / "sql/rooms").write_text(ORDER)
    return Rooms(root)


def body(language: str, text: str) -> str:
    """A function of the upper room whose body starts in line 2 of the file."""
    return f"CREATE FUNCTION meddle() RETURNS void LANGUAGE {language} AS $$\n{text}\n$$;"


def plpgsql(text: str, declared: str = "v_name text;") -> str:
    """A PL/pgSQL function whose text starts in line 5 of the file."""
    return body("plpgsql", f"DECLARE\n    {declared}\nBEGIN\n{text}\nEND")
