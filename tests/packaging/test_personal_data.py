"""Every column of every table is declared: something of a person or not, and what erasing does to it.

Tests sql/privacy/declaration.sql.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from harness import Database
from product import with_packs

COLUMNS = """
    SELECT c.relname AS table_name, a.attname AS column_name, format_type(a.atttypid, NULL) AS type,
        a.attnotnull AS is_required
    FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> '_wa_scripts'
        AND a.attnum > 0 AND NOT a.attisdropped
"""
KINDS = {"phone", "name", "text", "id", "address", "secret", "none"}
TREATMENTS = {"null", "replace", "delete", "hash", "keep"}
# Names under which other tables have kept such things: whoever calls a column so and declares it to be none
# of a person's says here why.
SUSPICIOUS = re.compile(
    r"(^|_)(phone|phone_e164|wa_id|user_id|recipient|email|address|text|text_body|body|content|payload|params|"
    r"customer_id|username|profile_name|metadata|context)(_|$)"
)
NOT_A_PERSONS = {
    ("ai_tasks", "metadata"): "the host's, of an event",
    ("siren_templates", "body_text"): "the same for everybody",
    ("wa_consent_texts", "body"): "the same for everybody",
    ("wa_default_consent_texts", "body"): "the same for everybody",
    ("wa_organizations", "text_retention"): "a setting",
    ("wa_panic_modes", "metadata"): "of the business's sending",
    ("wa_templates", "body_text"): "the same for everybody",
    ("wa_templates", "body_placeholders"): "the same for everybody",
    ("wa_templates", "footer_text"): "the same for everybody",
    ("wa_templates", "header_text"): "the same for everybody",
}
PROVIDERS_NUMBER = re.compile(r"^phone_number_id$")
OF_THE_BUSINESS = {"wa_phone_numbers"}


@pytest.fixture
def db(make_database: Callable[..., Database]) -> Database:
    """With every pack: what holds of the rest holds of them."""
    return with_packs(make_database())


def pairs(db: Database, source: str) -> set[tuple[str, str]]:
    return {(row["table_name"], row["column_name"]) for row in db.query(source)}


def test_every_column_is_declared_once(db: Database) -> None:
    there = pairs(db, COLUMNS)
    declared = db.query("SELECT table_name, column_name FROM wa_personal_data")
    assert len(there) > 500
    assert len(declared) == len({tuple(row.values()) for row in declared}), "a column is declared twice"
    assert there - pairs(db, "SELECT * FROM wa_personal_data") == set(), "declare in privacy/declaration.sql"
    assert pairs(db, "SELECT * FROM wa_personal_data") - there == set(), "there is no such column"


def test_a_table_that_is_made_later_is_missed(db: Database) -> None:
    db.query("CREATE TABLE wa_guests (phone text)")
    assert pairs(db, COLUMNS) - pairs(db, "SELECT * FROM wa_personal_data") == {("wa_guests", "phone")}


def test_a_declaration_says_what_it_may(db: Database) -> None:
    rows = db.query("SELECT * FROM wa_personal_data")
    assert {row["kind"] for row in rows} <= KINDS
    assert {row["treatment"] for row in rows} <= TREATMENTS
    assert [row for row in rows if not row["reason"]] == []


def test_what_cannot_be_null_is_not_nulled(db: Database) -> None:
    required = pairs(db, f"SELECT * FROM ({COLUMNS}) AS c WHERE is_required")
    assert pairs(db, "SELECT * FROM wa_personal_data WHERE treatment = 'null'") & required == set()


def test_what_is_called_like_personal_data_is_declared_so(db: Database) -> None:
    """A column of a telling name in a new table is not waved through as nothing of a person."""
    suspects = {
        (table, column)
        for table, column in pairs(db, "SELECT * FROM wa_personal_data WHERE kind = 'none'")
        if SUSPICIOUS.search(column) and not PROVIDERS_NUMBER.search(column) and table not in OF_THE_BUSINESS
    }
    assert suspects == set(NOT_A_PERSONS)
