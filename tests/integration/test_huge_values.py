"""What an application hands in is not said back to it, and to the server's log, at any length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from harness import Database

pytestmark = pytest.mark.slow

HUGE = "9" * 100_000
MOST = 5000
HUGE_OF = {"text": HUGE, "name": HUGE, "text[]": [HUGE], "jsonb": f'{{"{HUGE}": "{HUGE}"}}'}
OTHER_OF: dict[str, Any] = {
    "text": "x", "name": "x", "text[]": ["x"], "jsonb": "{}", "boolean": True, "integer": 1, "bigint": 1,
    "uuid": "0190a1b2-0000-7000-8000-000000000001",
}  # fmt: skip
FUNCTIONS = """
SELECT p.proname AS name, ARRAY(
    SELECT format_type(t.type, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY t (type, n) ORDER BY n
) AS types
FROM pg_proc p
WHERE p.pronamespace = 'public'::regnamespace AND p.prokind = 'f' AND p.prorettype <> 'trigger'::regtype
    AND has_function_privilege('wa_app', p.oid, 'EXECUTE')
"""
COLUMNS = """
SELECT c.relname AS relation, a.attname AS name, format_type(a.atttypid, NULL) AS type
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
    AND has_column_privilege('wa_app', c.oid, a.attname, 'INSERT')
"""
# So that the value gets as far as the checks of its own column.
BESIDE = {
    "wa_outbound_queue": {"phone": "'+16505550101'", "text_body": "'x'"},
    "whatsapp_queue": {"recipient_phone": "'+16505550101'", "template_name": "'hello'"},
    "wa_templates": {"name": "'q'", "category": "'UTILITY'", "body_text": "'x'"},
}


def said(session: psycopg.Connection[Any], statement: str, values: list[Any]) -> int:
    """How many characters the refusal of a statement has; 0 if it is none."""
    try:
        with session.transaction(force_rollback=True):
            session.execute(statement.encode(), values)
    except psycopg.Error as refused:
        texts = (refused.diag.message_primary, refused.diag.message_detail, refused.diag.message_hint)
        return sum(len(text or "") for text in (*texts, refused.diag.context))
    return 0


def test_no_function_repeats_it(world: Database, make_role: Callable[..., str]) -> None:
    wordy = []
    with world.connect(user=make_role("wa_app")) as session:
        for function in world.query(FUNCTIONS):
            for place, kind in enumerate(function["types"]):
                if kind in HUGE_OF:
                    values = [OTHER_OF.get(other) for other in function["types"]]
                    values[place] = HUGE_OF[kind]
                    slots = ", ".join(f"%s::{other}" for other in function["types"])
                    if said(session, f"SELECT {function['name']}({slots})", values) > MOST:
                        wordy.append((function["name"], place))
    assert wordy == []


def test_no_column_repeats_it(world: Database, make_role: Callable[..., str]) -> None:
    wordy = []
    with world.connect(user=make_role("wa_app")) as session:
        for column in world.query(COLUMNS):
            if column["type"] in HUGE_OF:
                beside = {
                    name: value
                    for name, value in BESIDE.get(column["relation"], {}).items()
                    if name != column["name"]
                }
                names = ", ".join([column["name"], *beside])
                slots = ", ".join([f"%s::{column['type']}", *beside.values()])
                statement = f"INSERT INTO {column['relation']} ({names}) VALUES ({slots})"
                if said(session, statement, [HUGE_OF[column["type"]]]) > MOST:
                    wordy.append((column["relation"], column["name"]))
    assert wordy == []
