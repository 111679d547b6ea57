"""A trigger that changes the row of another room's table writes that table."""

from __future__ import annotations

from pathlib import Path

import pytest
from room_tree import NONE, rooms_of

TRIGGER = "CREATE TRIGGER meddle BEFORE {} ON items FOR EACH ROW EXECUTE FUNCTION tg_meddle();"
FOUND = "sql/high/high.sql:2: tg_meddle of room high writes items of room low (BEFORE trigger meddle)"
TG_MEDDLE = "CREATE FUNCTION tg_meddle() RETURNS trigger LANGUAGE plpgsql AS $$ {} $$;\n"


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN NEW.note := 'x'; RETURN NEW; END",
        "BEGIN NEW . note := 'x'; RETURN NEW; END",
        'BEGIN "new"."note" = 1; RETURN NEW; END',
        "BEGIN tg_meddle.new.note := 'x'; RETURN NEW; END",
        "BEGIN NEW.notes[1] := 'x'; RETURN NEW; END",
        "DECLARE r ALIAS FOR NEW; BEGIN r.note := 'x'; RETURN NEW; END",
        "DECLARE r ALIAS FOR NEW; BEGIN CALL fill(r); RETURN NEW; END",
        "DECLARE r record; BEGIN NEW := r; RETURN NEW; END",
        "DECLARE r record; BEGIN RETURN r; END",
        "BEGIN DECLARE new record; BEGIN RETURN new; END; END",
        "BEGIN DECLARE new ALIAS FOR old; BEGIN RETURN new; END; END",
        "BEGIN SELECT 'x' INTO NEW.note; RETURN NEW; END",
        "BEGIN SELECT i.* INTO NEW FROM orders AS i; RETURN NEW; END",
        "BEGIN EXECUTE 'SELECT 1' INTO NEW.note; RETURN NEW; END",
        "BEGIN GET DIAGNOSTICS NEW.id = ROW_COUNT; RETURN NEW; END",
        "BEGIN FOR NEW IN SELECT 1 LOOP END LOOP; RETURN NEW; END",
        "DECLARE v integer[]; BEGIN FOREACH NEW.id IN ARRAY v LOOP END LOOP; RETURN NEW; END",
        "DECLARE c refcursor; BEGIN FETCH c INTO NEW; RETURN NEW; END",
        "BEGIN CALL fill(NEW.note); RETURN NEW; END",
        "BEGIN RETURN OLD; END",
        "BEGIN RETURN NULL; END",
    ],
)
def test_a_trigger_that_changes_anothers_row_is_found(tmp_path: Path, text: str) -> None:
    text = TG_MEDDLE.format(text) + TRIGGER.format("UPDATE")
    assert rooms_of(tmp_path, {"high/high.sql": text}).complaints(NONE) == [FOUND]
    # After the row is written, or once a statement, the same function changes nothing.
    later = text.replace("BEFORE", "AFTER")
    assert not rooms_of(tmp_path, {"high/high.sql": later}).complaints(NONE)


@pytest.mark.parametrize(
    ("events", "row", "keeps"),
    [
        ("INSERT OR UPDATE", "NEW", True),
        ("DELETE", "OLD", True),
        ("INSERT OR DELETE", "coalesce(NEW, OLD)", True),
        ("DELETE", "NEW", False),
        ("INSERT OR DELETE", "NEW", False),
        ("INSERT", "OLD", False),
        ("UPDATE", "coalesce(OLD, NEW)", False),
    ],
)
def test_what_a_trigger_may_return_goes_by_its_events(
    tmp_path: Path, events: str, row: str, keeps: bool
) -> None:
    text = TG_MEDDLE.format(f"BEGIN RETURN {row}; END") + TRIGGER.format(events)
    assert rooms_of(tmp_path, {"high/high.sql": text}).complaints(NONE) == ([] if keeps else [FOUND])


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        ("return 'OK'", True),
        ("plpy.info(TD['event'])", True),
        ("TD['new']['note'] = 'x'; return 'MODIFY'", False),
        ("return 'SKIP'", False),
        ("return verdict", False),
    ],
)
def test_a_python_trigger_changes_a_row_by_what_it_returns(tmp_path: Path, text: str, keeps: bool) -> None:
    function = TG_MEDDLE.replace("plpgsql", "plpython3u").format(text)
    files = {"high/high.sql": function + TRIGGER.format("INSERT")}
    assert rooms_of(tmp_path, files).complaints(NONE) == ([] if keeps else [FOUND])


def test_a_builtin_trigger_function_counts(tmp_path: Path) -> None:
    text = "\n" + TRIGGER.format("UPDATE").replace("tg_meddle", "suppress_redundant_updates_trigger")
    (line,) = rooms_of(tmp_path, {"high/high.sql": text}).complaints(NONE)
    assert line == FOUND.replace("tg_meddle", "suppress_redundant_updates_trigger")
