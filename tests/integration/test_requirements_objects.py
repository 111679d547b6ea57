"""What the product defines in its own way, beside the documents' own definitions, which run as written.

The second database holds the documents' tables, indexes, function, trigger and view, as their statements
make them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from documented import FOLDER, Statement, documents, statements
from harness import CHECKOUT, Database, Server
from psycopg.rows import dict_row

pytestmark = pytest.mark.skipif(not documents(), reason=f"no requirement documents in {FOLDER}")

EVENT = "e0e0e0e0-0000-4000-8000-000000000001"
TASK = "e0e0e0e0-0000-4000-8000-000000000003"
OBJECTS = (
    "002-b62db017", "002-5b02cd1e", "002-28b356ad", "002-a135fa8d", "002-b9ae1368", "002-d87b0882",
    "002-0b737e2f", "002-c1194297", "002-42482d88", "002-dd7cefff", "002-4ef5ef50", "002-67ae2906",
)  # fmt: skip
TABLES = ("whatsapp_config", "whatsapp_templates", "whatsapp_queue", "ai_tasks", "whatsapp_delivery_logs")
# Ours are made by the table: ids in order of time, or from a number; and one need not name oneself.
OWN_DEFAULTS = {
    ("whatsapp_config", "id"), ("whatsapp_queue", "id"), ("whatsapp_delivery_logs", "id"),
    ("whatsapp_delivery_logs", "timestamp"),
    ("whatsapp_config", "user_id"), ("whatsapp_templates", "user_id"), ("whatsapp_queue", "user_id"),
}  # fmt: skip


def find(key: str) -> Statement:
    """The statement with that key."""
    return next(statement for statement in statements() if statement.key == key)


def query(connection: psycopg.Connection[Any], text: str) -> list[dict[str, Any]]:
    """Rows of one statement as dicts."""
    cursor = connection.cursor(row_factory=dict_row).execute(text.encode())
    return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def ours(pg: Server) -> Iterator[Database]:
    database = pg.create_database(template=pg.template())
    with database.connect() as connection:
        for script in ("tests/pgtap/world.psql", "tests/documented_world.sql"):
            connection.execute((CHECKOUT / script).read_text().encode())
        connection.execute("UPDATE wa_organizations SET default_number_id = NULL")
    yield database
    pg.drop_database(database)


@pytest.fixture(scope="module")
def theirs(pg: Server, ours: Database) -> Iterator[Database]:
    (row,) = ours.query("SELECT id FROM wa_organizations")
    database = pg.create_database()
    with database.connect() as connection:
        connection.execute(
            "CREATE TABLE profiles (id uuid PRIMARY KEY); CREATE TABLE ai_events (id uuid PRIMARY KEY);"
            "CREATE TABLE orders (id uuid PRIMARY KEY); CREATE TABLE attendees (id uuid PRIMARY KEY)"
        )
        connection.execute("INSERT INTO profiles VALUES (%s)", (row["id"],))
        connection.execute("INSERT INTO ai_events VALUES (%s)", (EVENT,))
        for key in OBJECTS:
            connection.execute(find(key).text.encode())
    yield database
    pg.drop_database(database)


def columns_of(database: Database, table: str) -> dict[str, tuple[str, str | None]]:
    """Type and default of each column."""
    rows = database.query(
        "SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,"
        " pg_get_expr(d.adbin, d.adrelid) AS value FROM pg_attribute AS a"
        " LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
        " WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped",
        table,
    )
    return {row["name"]: (row["type"], row["value"]) for row in rows}


@pytest.mark.parametrize("table", TABLES)
def test_columns_and_types(ours: Database, theirs: Database, table: str) -> None:
    mine = columns_of(ours, table)
    for name, (kind, value) in columns_of(theirs, table).items():
        assert mine[name][0] == kind, name
        if (table, name) not in OWN_DEFAULTS:
            assert mine[name][1] == value, name


REMINDER = f"INSERT INTO ai_tasks (event_id, task_type, scheduled_for, template_name) VALUES ('{EVENT}',"
TEMPLATE = "INSERT INTO whatsapp_templates (user_id, template_name, category, template_body) VALUES (:user,"
QUEUE = (
    "INSERT INTO whatsapp_queue (user_id, recipient_phone, template_name, {})"
    " VALUES (:user, '+15551234567', 'hello', {})"
)
# What each writes, and what both say to it: a SQLSTATE, or nothing where the row is taken.
WRITES = [
    *[(QUEUE.format("priority", value), state)
      for value, state in ((0, "23514"), (11, "23514"), (1, ""), (10, ""), ("NULL", ""))],
    *[(QUEUE.format("status", value), state) for value, state in (("'pending'", "23514"), ("'queued'", ""))],
    ("INSERT INTO whatsapp_queue (user_id, template_name) VALUES (:user, 'hello')", "23502"),
    ("INSERT INTO whatsapp_queue (user_id, recipient_phone) VALUES (:user, '+15551234567')", "23502"),
    ("INSERT INTO whatsapp_queue (user_id, recipient_phone, template_name)"
     " VALUES (NULL, '+15551234567', 'hello')", "23502"),
    (f"{TEMPLATE} 'a', 'UTILITY', 'b')", ""),
    (f"{TEMPLATE} 'a', 'UTILITY', 'b'); {TEMPLATE} 'a', 'UTILITY', 'b')", "23505"),
    (f"{TEMPLATE} 'a', 'SERVICE', 'b')", "23514"),
    (f"{TEMPLATE} NULL, 'UTILITY', 'b')", "23502"),
    (f"{TEMPLATE} 'a', NULL, 'b')", "23502"),
    (f"{TEMPLATE} 'a', 'UTILITY', NULL)", "23502"),
    ("INSERT INTO whatsapp_templates (user_id, template_name, category, template_body, status)"
     " VALUES (:user, 'a', 'UTILITY', 'b', 'new')", "23514"),
    (f"{REMINDER} 'send_update', now(), 'hello')", ""),
    (f"{REMINDER} 'send_money', now(), 'hello')", "23514"),
    (f"{REMINDER} 'send_update', NULL, 'hello')", "23502"),
    (f"{REMINDER} 'send_update', now(), NULL)", "23502"),
    ("INSERT INTO whatsapp_config (user_id, business_account_id, access_token_encrypted,"
     " webhook_verify_token) VALUES (:user, '2', 'x', 'y')", "23502"),
    ("INSERT INTO whatsapp_config (user_id, phone_number_id, access_token_encrypted, webhook_verify_token)"
     " VALUES (:user, '1', 'x', 'y')", "23502"),
]  # fmt: skip


def outcome(connection: psycopg.Connection[Any], text: str) -> str:
    """The SQLSTATE of what is undone again, empty where it worked."""
    try:
        with connection.transaction(force_rollback=True):
            for part in text.split("; "):
                connection.execute(part.encode())
    except psycopg.Error as error:
        return error.sqlstate or "?"
    return ""


@pytest.mark.parametrize(("text", "state"), WRITES, ids=[text[12:] for text, _ in WRITES])
def test_the_same_values_are_refused(ours: Database, theirs: Database, text: str, state: str) -> None:
    (row,) = ours.query("SELECT id FROM wa_organizations")
    for database in (theirs, ours):
        with database.connect() as connection:
            assert outcome(connection, text.replace(":user", f"'{row['id']}'")) == state, database is ours


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (
            QUEUE.format("event_id", "NULL"),
            "priority, status, retry_count, template_variables, error_message, sent_at,"
            " scheduled_for = now() AS is_due, created_at = now() AS is_new, event_id",
        ),
        (
            f"{TEMPLATE} 'a', 'UTILITY', 'b')",
            "language, status, variables, meta_template_id, created_at = now() AS is_new",
        ),
        (
            f"{REMINDER} 'send_update', now(), 'hello')",
            "status, recipient_filter, metadata, created_at = now() AS is_new",
        ),
    ],
    ids=["whatsapp_queue", "whatsapp_templates", "ai_tasks"],
)
def test_a_row_begins_with_the_same_values(ours: Database, theirs: Database, text: str, columns: str) -> None:
    (row,) = ours.query("SELECT id FROM wa_organizations")
    found = []
    for database in (ours, theirs):
        with database.connect() as connection, connection.transaction(force_rollback=True):
            insert = text.replace(":user", f"'{row['id']}'")
            found.append(query(connection, f"{insert} RETURNING {columns}"))
    assert found[0] == found[1]


def test_a_configuration_begins_with_the_same_values(ours: Database, theirs: Database) -> None:
    """Ours takes no token in the clear."""
    columns = "phone_number_id, business_account_id, status, rate_limit_tier"
    (row,) = ours.query("SELECT id FROM wa_organizations")
    with theirs.connect() as connection, connection.transaction(force_rollback=True):
        (expected,) = query(
            connection,
            "INSERT INTO whatsapp_config (user_id, phone_number_id, business_account_id,"
            f" access_token_encrypted, webhook_verify_token) VALUES ('{row['id']}', '1', '2', 'x', 'y')"
            f" RETURNING {columns}",
        )
    with ours.connect() as connection, connection.transaction(force_rollback=True):
        insert = "INSERT INTO whatsapp_config (phone_number_id, business_account_id{}) VALUES ('1', '2'{})"
        assert outcome(connection, insert.format(", access_token_encrypted", ", 'x'")) == "WA502"
        assert outcome(connection, insert.format(", webhook_verify_token", ", 'y'")) == "WA502"
        (found,) = query(connection, f"{insert.format('', '')} RETURNING {columns}")
        assert outcome(connection, insert.format("", "").replace("'1'", "'3'")) == "23505"
    assert found == expected


def plan(connection: psycopg.Connection[Any], text: str) -> str:
    """The plan of a query that may not read whole tables."""
    connection.execute("SET LOCAL enable_seqscan = off")
    return "\n".join(row["QUERY PLAN"] for row in query(connection, f"EXPLAIN {text}"))


def test_indexes_serve_the_same_searches(ours: Database) -> None:
    searches = {
        # By user: the key leads with the organization. What is still to go has a narrow table of its own.
        "whatsapp_queue WHERE user_id = gen_random_uuid() AND status = 'queued'": "wa_outbound_queue_pkey",
        "wa_queue_due WHERE number_id = 1 AND class = 3 AND due_at <= now()"
        " AND hold_id IS NULL": "wa_queue_due_order_idx",
        "whatsapp_delivery_logs WHERE queue_id = gen_random_uuid()": "wa_messages_queue_key",
        "whatsapp_delivery_logs WHERE timestamp > now()": "wa_message_statuses_occurred_at_idx",
    }
    with ours.connect() as connection, connection.transaction():
        for search, index in searches.items():
            found = plan(connection, f"SELECT * FROM {search}")
            assert index in found, found
            assert "Seq Scan on wa_message_statuses" not in found
            assert "Seq Scan on wa_outbound_queue" not in found


def test_analytics_is_what_the_view_as_written_shows(ours: Database, theirs: Database) -> None:
    """The documents' query over whatsapp_queue, and our view, which reads the roll-ups."""
    select = find("002-67ae2906").text.partition(" AS\n")[2]
    with ours.connect() as connection, connection.transaction(force_rollback=True):
        # One that went out is reported as failed later.
        query(
            connection,
            "SELECT _wa_apply_statuses(organization_id, ARRAY[jsonb_populate_record(NULL::_wa_webhook_atoms,"
            " jsonb_build_object('kind', 'status', 'at', now(), 'received_at', now(), 'payload',"
            " jsonb_build_object('id', wa_message_id, 'status', 'failed')))])"
            " FROM wa_messages WHERE reference = '5'",
        )
        # Rolled up in part; the view adds what changed since.
        query(connection, "SELECT roll_up_wa_analytics()")
        query(connection, "SELECT world.accept(queue_id) FROM world.claim()")
        written = query(connection, f"{select} ORDER BY 1")
        shown = query(connection, "SELECT * FROM whatsapp_analytics ORDER BY 1")
        for mine, theirs_ in zip(shown, written, strict=True):
            average = theirs_.pop("avg_queue_time_seconds")
            assert abs(mine.pop("avg_queue_time_seconds") - average) < Decimal("0.000001")
            assert average >= 0
        assert shown == written
    assert [(row["total_sent"], row["successful"], row["failed"]) for row in written] == [
        (1, 1, 0), (1, 1, 0), (9, 8, 1),
    ]  # fmt: skip
    assert columns_of(ours, "whatsapp_analytics") == columns_of(theirs, "whatsapp_analytics")


def test_the_trigger_as_written_queues_through_our_view(ours: Database) -> None:
    """The pack's own trigger queues the same messages, in its place."""
    found = []
    for is_written in (True, False):
        with ours.connect() as connection, connection.transaction(force_rollback=True):
            if is_written:
                connection.execute("ALTER TABLE ai_tasks DISABLE TRIGGER USER")
                for key in ("002-0b737e2f", "002-c1194297"):
                    connection.execute(find(key).text.encode())
            query(connection, f"UPDATE ai_tasks SET status = 'executing' WHERE id = '{TASK}'")
            # The three values as they go out; the times differ in form.
            found.append(
                query(
                    connection,
                    "SELECT recipient_phone, template_name, status, ARRAY(SELECT v ->> 'text' FROM"
                    " jsonb_array_elements(preview_wa_request(id) #> '{template,components,0,parameters}') v)"
                    f" AS given FROM whatsapp_queue WHERE event_id = '{EVENT}' ORDER BY recipient_phone",
                )
            )
            assert all(row["given"].pop().startswith("20") for row in found[-1])
    assert found[0] == found[1]
    assert [(row["recipient_phone"], row["given"]) for row in found[0]] == [
        ("+15551234567", ["Ada", "Tech Summit"]),
        ("+5491140000001", ["Una", "Tech Summit"]),
    ]


def test_pg_cron_as_written(make_server: Callable[..., Server]) -> None:
    server = make_server(shared_preload_libraries="pg_cron", **{"cron.database_name": "postgres"})
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        for _ in range(2):
            connection.execute(find("002-a6e51862").text.encode())
        connection.execute("CREATE EXTENSION pg_whatsapp CASCADE")
        connection.execute("SELECT FROM migrate_wa()")
        connection.execute("SELECT FROM schedule_wa_jobs()")
        (row,) = connection.execute("SELECT count(*) FROM cron.job").fetchall()
        assert row[0] > 0


def test_jobs_take_the_place_of_the_http_schedule(ours: Database) -> None:
    """No request to a function elsewhere every ten seconds: the dispatcher is woken, and jobs run as SQL."""
    with ours.connect() as connection, connection.transaction(force_rollback=True):
        query(connection, "SELECT * FROM schedule_wa_jobs()")
        assert query(connection, "SELECT name FROM wa_jobs WHERE is_enabled")
        # What the processor would look for every ten seconds is handed to whoever claims now.
        due = query(
            connection,
            "SELECT id FROM whatsapp_queue WHERE status = 'queued' AND scheduled_for <= clock_timestamp()",
        )
        claimed = query(connection, "SELECT queue_id AS id FROM world.claim()")
        assert len(due) == 1
        assert claimed == due
        assert query(connection, "SELECT id FROM whatsapp_queue WHERE status = 'sending'") == due
