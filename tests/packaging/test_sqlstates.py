"""wa_sqlstates lists what the sources raise, and Python's exceptions follow its groups.

Tests sql/organizations/sqlstates.sql.
"""

from __future__ import annotations

import re

import psycopg
import pytest
from harness import CHECKOUT, Database
from pg_whatsapp import errors

# Conditions that the sources call by their names.
NAMES = {
    "dependent_objects_still_exist": "2BP01",
    "duplicate_object": "42710",
    "insufficient_privilege": "42501",
    "lock_not_available": "55P03",
    "object_not_in_prerequisite_state": "55000",
}
CLASSES = {
    "input": errors.InputError,
    "policy": errors.PolicyError,
    "state": errors.StateError,
    "tenant": errors.TenantError,
    "installation": errors.InstallationError,
    "rights": errors.RightsError,
    "api": errors.ApiError,
}
SOURCES = [*(CHECKOUT / "sql").rglob("*.sql"), *(CHECKOUT / "plpython").glob("*.py")]


def raised() -> set[str]:
    """The SQLSTATEs that stand in the sources, the table itself apart."""
    text = "".join(path.read_text() for path in SOURCES if path.name != "sqlstates.sql")
    found = re.findall(r"ERRCODE = '(\w+)'", text) + re.findall(r"'(WA\d{3})'", text)
    return {NAMES.get(state, state) for state in found}


def test_every_error_that_is_raised_is_listed_with_its_way_out(db: Database) -> None:
    rows = db.query("SELECT sqlstate, cause, way_out FROM wa_sqlstates")
    assert sorted(row["sqlstate"] for row in rows) == sorted(raised())
    assert [row for row in rows if not (row["cause"] and row["way_out"].endswith("."))] == []


def test_python_raises_the_class_of_the_group(db: Database) -> None:
    rows = db.query("SELECT sqlstate, error_group FROM wa_sqlstates")
    wrong = [
        row for row in rows if not issubclass(errors.class_of(row["sqlstate"]), CLASSES[row["error_group"]])
    ]
    assert rows
    assert wrong == []
    assert errors.class_of("WA401") is errors.NotAdoptedError
    assert errors.class_of("XX000") is errors.class_of(None) is errors.DatabaseError


def test_every_error_says_the_values_and_the_way_out() -> None:
    """MESSAGE says what was wrong, DETAIL with which values, HINT what to do now."""
    bare, found = [], 0
    for path in SOURCES:
        text = path.read_text()
        for statement in re.finditer(r"RAISE EXCEPTION.*?;\n", text, re.DOTALL):
            found += 1
            if not all(re.search(rf"\b{word} = ", statement[0]) for word in ("MESSAGE", "DETAIL", "HINT")):
                bare.append(f"{path.name}:{text.count(chr(10), 0, statement.start()) + 1}")
    assert found > 50
    assert bare == []


def test_a_refused_message_shows_its_hint_beneath_one_line_of_context(db: Database) -> None:
    db.query("SELECT register_wa_phone_number('100', '+1 555 123 4567', '200')")
    for phone, sqlstate in (("nobody", "WA001"), ("+16505550101", "WA101")):
        with pytest.raises(psycopg.Error) as refusal:
            db.query("INSERT INTO wa_outbound_queue (phone, text_body) VALUES (%s, 'Hello')", phone)
        said = refusal.value.diag
        assert said.sqlstate == sqlstate
        assert said.message_hint
        assert said.message_detail == f"Recipient: '{phone}'."
        assert len((said.context or "").splitlines()) == 1


def test_a_refusal_says_what_is_listed(db: Database) -> None:
    rows = db.query(
        """
        SELECT s.sqlstate
        FROM unnest(ARRAY['window_closed', 'opted_out', 'no_opt_in', 'template_unavailable']) AS r (code)
        JOIN wa_sqlstates AS s ON s.sqlstate = _wa_refusal_sqlstate(r.code)
            AND s.cause = _wa_refusal_text(r.code) AND s.way_out = _wa_refusal_hint(r.code)
        """
    )
    assert {row["sqlstate"] for row in rows} == {"WA101", "WA102", "WA103", "WA120"}
