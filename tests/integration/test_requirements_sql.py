"""Every SQL statement of the requirement documents, unchanged, on data that gives it something to find.

What the product defines itself is compared with the documents' own definitions in
test_requirements_objects.py. A statement that is in neither list fails the first test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from documented import FOLDER, Statement, documents, statements
from harness import CHECKOUT, Database, Server
from psycopg.rows import dict_row

pytestmark = pytest.mark.skipif(not documents(), reason=f"no requirement documents in {FOLDER}")

ADA = "+15551234567"
# Defined by the product in its own way: covered by tests of the equivalent, statement by statement.
ELSEWHERE = {
    "002-b62db017": "test_requirements_objects.py::test_columns_and_types[whatsapp_config]",
    "002-5b02cd1e": "test_requirements_objects.py::test_columns_and_types[whatsapp_templates]",
    "002-28b356ad": "test_requirements_objects.py::test_columns_and_types[whatsapp_queue]",
    "002-d87b0882": "test_requirements_objects.py::test_columns_and_types[ai_tasks]",
    "002-42482d88": "test_requirements_objects.py::test_columns_and_types[whatsapp_delivery_logs]",
    "002-a135fa8d": "test_requirements_objects.py::test_indexes_serve_the_same_searches",
    "002-b9ae1368": "test_requirements_objects.py::test_indexes_serve_the_same_searches",
    "002-dd7cefff": "test_requirements_objects.py::test_indexes_serve_the_same_searches",
    "002-4ef5ef50": "test_requirements_objects.py::test_indexes_serve_the_same_searches",
    "002-a6e51862": "test_requirements_objects.py::test_pg_cron_as_written",
    "002-8e9cf628": "test_requirements_objects.py::test_jobs_take_the_place_of_the_http_schedule",
    "002-161a9724": "test_requirements_objects.py::test_jobs_take_the_place_of_the_http_schedule",
    "002-0b737e2f": "test_requirements_objects.py::test_the_trigger_as_written_queues_through_our_view",
    "002-c1194297": "test_requirements_objects.py::test_the_trigger_as_written_queues_through_our_view",
    "002-67ae2906": "test_requirements_objects.py::test_analytics_is_what_the_view_as_written_shows",
}

# Not for applications: to open a window by hand, to clean up.
FOR_ADMINS = {"000-09edcf7e", "000-79d0bf09", "000-7db30922"}


class World:
    """A connection to the planted database; what a test does there is undone."""

    def __init__(self, connection: psycopg.Connection[Any], group: str) -> None:
        self.connection = connection
        self.group = group

    def as_owner(self, query: str) -> list[dict[str, Any]]:
        """Run SQL of ours, to plant or to look."""
        return self._run(query)

    def run(self, statement: Statement) -> list[dict[str, Any]]:
        """Run a statement as it is written, as a member of the group; its rows."""
        self.connection.execute(f"SET ROLE {self.group}".encode())
        rows = self._run(statement.text)
        self.connection.execute("RESET ROLE")
        return rows

    def _run(self, query: str) -> list[dict[str, Any]]:
        cursor = self.connection.cursor(row_factory=dict_row).execute(query.encode())
        while cursor.nextset():
            pass
        self.touched = cursor.rowcount
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def planted(pg: Server) -> Iterator[Database]:
    database = pg.create_database(template=pg.template())
    with database.connect() as connection:
        for script in ("tests/pgtap/world.psql", "tests/documented_world.sql"):
            connection.execute((CHECKOUT / script).read_text().encode())
    yield database
    pg.drop_database(database)


@contextmanager
def visit(database: Database, group: str) -> Iterator[World]:
    """A session at noon, wherever that is now: no day ends while a test runs."""
    with database.connect() as connection, connection.transaction(force_rollback=True):
        ((hour,),) = connection.execute(
            "SELECT extract(hour FROM now() AT TIME ZONE 'UTC')::integer"
        ).fetchall()
        connection.execute(f"SET LOCAL TIME ZONE INTERVAL '{12 - hour:+03d}:00' HOUR TO MINUTE".encode())
        yield World(connection, group)


Check = Callable[[World, Statement], None]
CHECKS: dict[str, Check] = {}


def shows(key: str) -> Callable[[Check], Check]:
    """Registers what a statement must show."""

    def register(check: Check) -> Check:
        assert key not in CHECKS
        CHECKS[key] = check
        return check

    return register


def test_every_statement_is_known() -> None:
    written = {statement.key: statement.title for statement in statements()}
    assert [title for key, title in written.items() if key not in CHECKS and key not in ELSEWHERE] == []
    assert (CHECKS.keys() | ELSEWHERE.keys()) - written.keys() == set()
    assert CHECKS.keys().isdisjoint(ELSEWHERE)


@pytest.mark.parametrize(
    "statement", [s for s in statements() if s.key not in ELSEWHERE], ids=lambda statement: statement.title
)
def test_statement(planted: Database, statement: Statement) -> None:
    groups = ["wa_admin"] if statement.key in FOR_ADMINS else ["wa_admin", "wa_app"]
    for group in groups:
        with visit(planted, group) as world:
            CHECKS[statement.key](world, statement)


def test_default_templates_are_in_no_statements_way(planted: Database) -> None:
    """Each statement runs as written beside the templates to begin with, whatever the order."""
    for statement in statements():
        if statement.key not in ELSEWHERE:
            with visit(planted, "wa_admin") as world:
                world.as_owner("SELECT install_wa_default_templates()")
                world.run(statement)


@pytest.mark.parametrize("key", sorted(FOR_ADMINS))
def test_what_is_for_admins_is_refused_to_applications(planted: Database, key: str) -> None:
    statement = next(statement for statement in statements() if statement.key == key)
    with pytest.raises(psycopg.errors.InsufficientPrivilege), visit(planted, "wa_app") as world:
        world.run(statement)


@shows("000-2ee867de")
def windows(world: World, statement: Statement) -> None:
    rows = world.run(statement)
    assert [row["phone_e164"] for row in rows] == [ADA, "+5491140000008"]
    assert [row["is_within_24h"] for row in rows] == [True, False]
    assert [row["messaging_status"].split()[-1] for row in rows] == ["FREE_FORM_ALLOWED", "TEMPLATES_ONLY"]
    assert [round(row["hours_remaining"]) for row in rows] == [22, -1]
    assert all(row["last_business_message_at"] > row["last_customer_message_at"] for row in rows)


@shows("000-dcd74225")
def permission(world: World, statement: Statement) -> None:
    (row,) = world.run(statement)
    assert row["can_send_freeform"] is True
    assert "message text" in row["api_usage"]
    world.as_owner(
        "UPDATE wa_conversation_windows"
        " SET last_customer_message_at = last_customer_message_at - interval '1 day'"
    )
    (row,) = world.run(statement)
    assert row["can_send_freeform"] is False
    assert "template_name" in row["api_usage"]


@shows("000-ded88643")
def approved_templates(world: World, statement: Statement) -> None:
    rows = world.run(statement)
    assert [(row["category"], row["name"], row["provider_template_id"]) for row in rows] == [
        ("AUTHENTICATION", "code", None),
        ("MARKETING", "sale", None),
        ("UTILITY", "event_reminder_24h", "9002"),
        ("UTILITY", "hello", "9001"),
        ("UTILITY", "order", "9001"),
    ]
    assert {row["approval_status"] for row in rows} == {"approved"}
    assert next(row["parameters"] for row in rows if row["name"].startswith("event"))[1] == "event_name"


@shows("000-4f7344b2")
def template_usage(world: World, statement: Statement) -> None:
    """Messages that were delivered or read still count as sent; one of last week's does not count."""
    states = world.as_owner("SELECT DISTINCT state FROM wa_messages WHERE template_name = 'hello'")
    assert {row["state"] for row in states} == {"accepted", "delivered", "read", "failed"}
    assert [tuple(row.values()) for row in world.run(statement)] == [
        ("hello", 4, 3, 1, Decimal("75.00")),
        ("order", 3, 2, 1, Decimal("66.67")),
        ("code", 1, 1, 0, Decimal("100.00")),
    ]


@shows("000-a53c3b14")
def submit_template(world: World, statement: Statement) -> None:
    world.run(statement)
    (row,) = world.as_owner(
        "SELECT t.category, t.approval_status, t.parameters, t.created_by = p.id::text AS is_by_admin"
        " FROM wa_templates t, profiles p WHERE lower(t.name) = 'order_confirmation' AND p.role_id = 'admin'"
    )
    assert (row["category"], row["approval_status"], row["is_by_admin"]) == ("UTILITY", "pending", True)
    assert [parameter["name"] for parameter in row["parameters"]] == [
        "customer_name", "order_id", "order_details",
    ]  # fmt: skip
    world.as_owner(
        "UPDATE wa_templates SET approval_status = 'approved' WHERE lower(name) = 'order_confirmation'"
    )
    (row,) = world.as_owner(
        "INSERT INTO wa_outbound_queue (phone, template_name, template_params) VALUES"
        f' (\'{ADA}\', \'ORDER_CONFIRMATION\', \'{{"order_id": "7", "order_details": "x",'
        ' "customer_name": "Ada"}\') RETURNING id, status'
    )
    assert row["status"] == "pending"
    (row,) = world.as_owner(f"SELECT preview_wa_request('{row['id']}') -> 'template' AS template")
    assert row["template"]["name"] == "order_confirmation"
    assert [value["text"] for value in row["template"]["components"][0]["parameters"]] == ["Ada", "7", "x"]


@shows("000-09edcf7e")
def reset_window(world: World, statement: Statement) -> None:
    world.as_owner("UPDATE wa_conversation_windows SET last_customer_message_at = NULL")
    assert world.as_owner(f"SELECT can_send_freeform_wa('{ADA}') AS can") == [{"can": False}]
    world.run(statement)
    assert world.as_owner(f"SELECT can_send_freeform_wa('{ADA}') AS can") == [{"can": True}]
    (row,) = world.as_owner("SELECT meta FROM audit_log WHERE event = 'window_opened_by_hand'")
    assert row["meta"]["user"] == "user-uuid"


@shows("000-79d0bf09")
def clean_up_media(world: World, statement: Statement) -> None:
    (row,) = world.run(statement)
    assert row["cleanup_expired_wa_media"] == 2
    left = world.as_owner("SELECT expires_at > now() AS is_valid FROM wa_media_signatures")
    assert left == [{"is_valid": True}]


@shows("000-7db30922")
def delete_old_signatures(world: World, statement: Statement) -> None:
    world.run(statement)
    assert world.touched == 1
    assert len(world.as_owner("SELECT id FROM wa_media_signatures")) == 2


@shows("000-82ec89f4")
def flows(world: World, statement: Statement) -> None:
    rows = world.run(statement)
    assert [row["payment_url"] for row in rows] == ["https://pay.example/2", "https://pay.example/1"]
    assert {(row["phone_e164"], row["flow_type"], row["status"]) for row in rows} == {
        (ADA, "payment_reminder", "active")
    }


@shows("000-859a44b9")
def daily_metrics(world: World, statement: Statement) -> None:
    rows = world.run(statement)
    days = {row["date"] for row in rows}
    today = max(days)
    assert [((today - row["date"]).days, *list(row.values())[1:]) for row in rows] == [
        (0, "inbound", 1, 0, 0),
        (0, "outbound", 10, 8, 2),
        (1, "inbound", 1, 0, 0),
        (2, "outbound", 1, 1, 0),
    ]


@shows("000-7170b6f2")
def potential_violations(world: World, statement: Statement) -> None:
    rows = world.run(statement)
    classes = [row["message_classification"] for row in rows]
    assert {name: classes.count(name) for name in classes} == {"TEMPLATE": 7, "FREE_FORM": 2, "OTHER": 1}
    texts = {row["content_text"] for row in rows if row["message_classification"] == "FREE_FORM"}
    assert texts == {"Anything else?", "Thank you for your inquiry!"}
    assert [row["created_at"] for row in rows] == sorted((row["created_at"] for row in rows), reverse=True)


@shows("000-be4d1aea")
def compliance(world: World, statement: Statement) -> None:
    """The window as it is now: the one whose window closed since is a violation, who has none is unknown."""
    found: dict[str, list[str]] = {}
    for row in world.run(statement):
        found.setdefault(row["compliance_status"].split()[-1], []).append(row["phone_e164"])
    assert found["VIOLATION"] == ["+5491140000008"]
    assert sorted(found["UNKNOWN"]) == ["+5491140000004", "+5491140000006"]
    assert len(found["COMPLIANT"]) == 7
    assert found["COMPLIANT"].count(ADA) == 3


@shows("000-183cd124")
def recent_failures(world: World, statement: Statement) -> None:
    rows = world.run(statement)
    assert {(row["phone_e164"], row["template_name"], row["status"]) for row in rows} == {
        ("+5491140000004", "hello", "failed"),
        ("+5491140000006", "order", "failed"),
    }
    assert all("131026" in row["error_message"] for row in rows)


@shows("000-38e50409")
def template_issues(world: World, statement: Statement) -> None:
    assert {row["name"]: row["action_needed"] for row in world.run(statement)} == {
        "draft": "Awaiting WhatsApp approval",
        "refused": "Template rejected - review content",
        "sale": "Missing provider ID",
        "code": "Missing provider ID",
    }


@shows("000-00d81ff9")
def stop_flows(world: World, statement: Statement) -> None:
    world.run(statement)
    assert world.touched == 3
    rows = world.as_owner("SELECT status, count(*) AS n FROM wa_automation_flows GROUP BY 1 ORDER BY 1")
    assert [tuple(row.values()) for row in rows] == [("cancelled", 3), ("completed", 1)]


@shows("000-e6860693")
def stop_events(world: World, statement: Statement) -> None:
    world.run(statement)
    assert world.touched == 2
    rows = world.as_owner(
        "SELECT t.name, e.status FROM siren_events e JOIN siren_templates t ON t.id = e.template_id"
        " WHERE e.status <> 'cancelled' ORDER BY 1"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("ORDER_EMAIL", "pending"),
        ("ORDER_WHATSAPP_24H", "sent"),
    ]


@shows("000-f3862d4d")
def log_violation(world: World, statement: Statement) -> None:
    world.run(statement)
    (row,) = world.as_owner("SELECT * FROM audit_log WHERE event = 'whatsapp_policy_violation'")
    # What the row says stays, and who really wrote it stands beside it.
    assert row["actor"] == "compliance_officer"
    assert row["session_role"] == "postgres"
    assert row["entity_id"] == "wa_24h_rule"
    assert row["meta"]["affected_numbers"] == [ADA]


@shows("001-a02c2cfd")
def sent_today(world: World, statement: Statement) -> None:
    """What was refused never went out; what went out two days ago was not today."""
    assert world.run(statement) == [{"count": 8}]


@shows("001-2f61980a")
def leads(world: World, statement: Statement) -> None:
    assert world.run(statement) == [{"count": 3}]
