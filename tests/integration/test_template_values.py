"""Values of templates of every kind: what is queued is what Meta takes, and nothing else is queued.

Tests sql/templates/headers.sql, sql/templates/buttons.sql, sql/templates/cards.sql, sql/templates/ready.sql,
sql/templates/build.sql.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import Database
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from simulated import NUMBER, SimulatorProcess
from template_button_faults import WRONG_BUTTONS
from template_examples import KINDS
from template_faults import WRONG
from wa_process import wa
from wa_simulator.state import Template
from wa_simulator.validation.template import check_template

Connection = psycopg.Connection[dict[str, Any]]


@pytest.fixture
def prepared(db: Database) -> Iterator[Connection]:
    with psycopg.connect(db.dsn, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("SELECT register_wa_phone_number(%s, '+15550783881', '100')", (NUMBER,))
        for name, kind in KINDS.items():
            connection.execute(
                "INSERT INTO wa_templates (name, language, category, status, body_text, components)"
                " VALUES (%s, 'en_US', %s, 'APPROVED', '', %s)",
                (name, kind.category, Jsonb(kind.components)),
            )
        yield connection


def told(connection: Connection, statement: str, *values: Any) -> Any:
    """The only value of the only row."""
    [row] = connection.execute(statement.encode(), values)
    [value] = row.values()
    return value


def queued(connection: Connection, name: str, column: str, values: Any) -> list[dict[str, Any]]:
    """The components of the request for a message that gives ``values``; the simulator has checked them."""
    queue_id = told(
        connection,
        f"INSERT INTO wa_outbound_queue (phone, type, template_name, {column})"
        " VALUES ('+16505550101', 'template', %s, %s) RETURNING id",
        name, None if values is None else Jsonb(values),
    )  # fmt: skip
    content = told(connection, "SELECT preview_wa_request(%s) -> 'template'", queue_id)
    known = Template(
        id="1", waba_id="1", name=name, language="en_US", category=KINDS[name].category,
        components=KINDS[name].components, parameter_format="NAMED" if name == "named" else "POSITIONAL",
    )  # fmt: skip
    check_template(content, known, 25, [])
    components: list[dict[str, Any]] = content.get("components", [])
    return components


def test_values_of_every_kind_are_sent_as_meta_takes_them(prepared: Connection) -> None:
    for name, kind in KINDS.items():
        assert queued(prepared, name, "template_params", kind.short) == kind.ready, name
        assert queued(prepared, name, "template_params", kind.ready) == kind.ready, name
        assert queued(prepared, name, "content", {"components": kind.ready}) == kind.ready, name


def test_values_that_do_not_fit_are_refused_with_a_hint_that_does(prepared: Connection) -> None:
    faults = []
    for wrong in (*WRONG, *WRONG_BUTTONS):
        forms: list[tuple[str, Any]] = [("template_params", wrong.values)]
        if wrong.code:
            forms.append(("content", {"components": wrong.values}))
        for column, values in forms:
            found = ("none", "it was queued", "")
            try:
                queued(prepared, wrong.kind, column, values)
            except psycopg.Error as error:
                diag = error.diag
                found = (str(diag.sqlstate), str(diag.message_primary), str(diag.message_hint))
            if found[0] != wrong.sqlstate or wrong.message not in found[1] or wrong.hint not in found[2]:
                faults.append((wrong.kind, json.dumps(wrong.values), wrong.sqlstate, *found))
    assert faults == []


@pytest.mark.slow
def test_messages_of_every_kind_are_sent(prepared: Connection, db: Database, tmp_path: Path) -> None:
    """Through the dispatcher to the simulator, which has the templates itself; a changed one fails alone."""
    waba = {"waba_id": "100", "phone_number_id": NUMBER}
    with SimulatorProcess(tmp_path, **waba, settings={"window": "off"}) as simulator:
        prepared.execute("SELECT adopt_wa_database()")
        names = {f"kind_{n}": name for n, name in enumerate(KINDS)}
        for known, name in names.items():
            kind = KINDS[name]
            simulator.post("templates", waba_id="100", name=known, language="en_US", category=kind.category,
                           components=kind.components,
                           parameter_format="NAMED" if name == "named" else "POSITIONAL")  # fmt: skip
            prepared.execute("UPDATE wa_templates SET name = %s WHERE name = %s", (known, name))
            for values in (kind.short, kind.ready):
                prepared.execute(
                    "INSERT INTO wa_outbound_queue (phone, template_name, template_params)"
                    " VALUES (%s, %s, %s)",
                    (f"+1650555{len(known)}{known[5:]:0>3}", known, Jsonb(values)),
                )
        changed = list(KINDS).index("video")
        prepared.execute(
            "UPDATE wa_templates SET header_format = 'TEXT', header_text = 'For {{1}}' WHERE name = %s",
            (f"kind_{changed}",),
        )
        done = wa("dispatch", "--drain", database=db, WHATSAPP_API_BASE_URL=simulator.url,
                  WHATSAPP_ACCESS_TOKEN="token")  # fmt: skip
        assert done.returncode == 0, done.stderr
        failed = prepared.execute(
            "SELECT template_name, error_code, last_error FROM wa_outbound_queue WHERE status = 'failed'"
        ).fetchall()
        assert [(row["template_name"], row["error_code"]) for row in failed] == [
            (f"kind_{changed}", "template_changed")
        ] * 2, failed
        sent = told(prepared, "SELECT count(*) FROM wa_outbound_queue WHERE status = 'sent'")
        assert sent == 2 * len(KINDS) - 2
        assert len(simulator.get("journal", limit=1000)["entries"]) == sent


def test_a_preview_shows_cards_and_offers(prepared: Connection) -> None:
    carousel = told(prepared, "SELECT preview_wa_template('carousel')")
    assert carousel.count("For sample 1 only") == 2
    assert carousel.count("[Buy] https://shop.example/sample") == 2
    assert told(prepared, "SELECT preview_wa_template('offer')").startswith("[Hurry]\n\nHello sample 1")
    for name in KINDS:
        assert told(prepared, "SELECT preview_wa_template(%s)", name)


def test_a_context_fills_cards_and_offers(prepared: Connection) -> None:
    for name, context in (
        ("carousel", {"1": "Ann", "cards": KINDS["carousel"].short["cards"]}),
        ("offer", {"1": "Ann", "button_0": "SAVE10", "limited_time_offer": "2030-12-31T23:59:59Z"}),
    ):
        values = told(prepared, "SELECT resolve_wa_template_params(%s, %s)", name, Jsonb(context))
        assert queued(prepared, name, "template_params", values) == KINDS[name].ready
