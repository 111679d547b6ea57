"""Whether ten million messages that went through the queue before slow down the next drain."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from harness import Database

from bench.drain import MESSAGES, drain_ours
from bench.ground import CONTACTS, KNOWN, NO_QUEUE
from bench.rounds import Bench
from bench.table import Line

CHUNK = 500_000
# A hundred days of messages, the newest an hour old; the contacts take turns.
PLAN = """
CREATE UNLOGGED TABLE bench_contacts AS
SELECT row_number() OVER (ORDER BY id) - 1 AS n, id, phone_e164 FROM wa_contacts;
ALTER TABLE bench_contacts ADD PRIMARY KEY (n);
CREATE FUNCTION bench_at(p_i bigint, p_total bigint) RETURNS timestamptz LANGUAGE sql STABLE
RETURN now() - interval '1 hour' - interval '100 days' * (1 - p_i::double precision / p_total);
"""
# What sending leaves behind, by number of message.
SENT = """
WITH queued AS (
    INSERT INTO wa_outbound_queue (
        organization_id, id, phone, type, template_name, template_params, status, scheduled_at, expires_at,
        contact_id, attempt, wa_message_id, claimed_at, processed_at, created_at, change_no
    )
    SELECT o.id, _wa_uuid7(t.at), c.phone_e164, 'template', 'order_update',
        jsonb_build_array('Ann', 'A-' || i), 'sent', t.at, t.at + interval '24 hours', c.id, 1,
        'wamid.OLD' || lpad(i::text, 20, '0'), t.at, t.at, t.at, 2
    FROM generate_series(%(first)s::bigint, %(last)s) i
    CROSS JOIN wa_organizations o
    CROSS JOIN LATERAL (SELECT bench_at(i, %(total)s) AS at) t
    JOIN bench_contacts c ON c.n = i %% %(contacts)s
    ORDER BY i
    RETURNING *
)
INSERT INTO wa_messages (
    organization_id, queue_id, number_id, phone_number_id, contact_id, phone_e164, wa_message_id, direction,
    message_type, content, template_name, template_language, template_category, status, state, state_history,
    is_within_24h_at_claim, queued_at, claimed_at, sent_at, delivered_at, created_at, updated_at
)
SELECT q.organization_id, q.id, n.id, n.phone_number_id, q.contact_id, q.phone, q.wa_message_id, 'outbound',
    'template', jsonb_build_object('params', q.template_params), 'order_update', 'en', 'UTILITY', 'sent',
    'delivered', jsonb_build_array(jsonb_build_object('state', 'delivered', 'at', q.created_at)), false,
    q.created_at, q.created_at, q.created_at, q.created_at, q.created_at, q.created_at
FROM queued q JOIN wa_phone_numbers n ON n.organization_id = q.organization_id
"""
# What the webhook of each delivery leaves behind, by id of the message.
REST = {
    "wa_message_statuses": """
        INSERT INTO wa_message_statuses (
            organization_id, message_id, queue_id, wa_message_id, status, occurred_at, received_at,
            recipient_id, payload
        )
        SELECT organization_id, id, queue_id, wa_message_id, 'delivered', created_at, created_at,
            ltrim(phone_e164, '+'), jsonb_build_object('id', wa_message_id, 'status', 'delivered')
        FROM wa_messages WHERE id BETWEEN %(first)s AND %(last)s
    """,
    "wa_events": """
        INSERT INTO wa_events (organization_id, position, kind, message_id, status, occurred_at, created_at)
        SELECT m.organization_id, 2 * m.id + s.n, 'status', m.id, s.state, m.created_at, m.created_at
        FROM wa_messages m CROSS JOIN (VALUES (0, 'accepted'), (1, 'delivered')) s (n, state)
        WHERE m.id BETWEEN %(first)s AND %(last)s
        ORDER BY 2
    """,
    "wa_webhook_logs": """
        INSERT INTO wa_webhook_logs (received_at, source, body, status, attempts, atoms, processed_at)
        SELECT created_at, '127.0.0.1', convert_to(jsonb_build_object(
            'object', 'whatsapp_business_account', 'entry', jsonb_build_array(jsonb_build_object(
                'id', '102290129340398', 'changes', jsonb_build_array(jsonb_build_object(
                    'field', 'messages', 'value', jsonb_build_object(
                        'messaging_product', 'whatsapp', 'statuses', jsonb_build_array(jsonb_build_object(
                            'id', wa_message_id, 'status', 'delivered', 'recipient_id', phone_e164
                        ))
                    )
                ))
            ))
        )::text, 'UTF8'), 'processed', 1, 1, created_at
        FROM wa_messages WHERE id BETWEEN %(first)s AND %(last)s
    """,
}
# One row each for a contact, at the time of its newest message.
LAST = """
CREATE UNLOGGED TABLE bench_last AS
SELECT organization_id, number_id, contact_id, max(created_at) AS at FROM wa_messages GROUP BY 1, 2, 3;
INSERT INTO wa_conversation_windows (organization_id, number_id, contact_id, last_business_message_at)
SELECT organization_id, number_id, contact_id, at FROM bench_last
ON CONFLICT (organization_id, contact_id, number_id) DO UPDATE
SET last_business_message_at = excluded.last_business_message_at;
INSERT INTO wa_pair_rates (organization_id, number_id, contact_id, burst_started_at, burst_count, clear_at)
SELECT organization_id, number_id, contact_id, at, 1, at + interval '6 seconds' FROM bench_last;
INSERT INTO wa_tier_usages (organization_id, portfolio_id, contact_id, last_at)
SELECT b.organization_id, n.portfolio_id, b.contact_id, b.at FROM bench_last b
JOIN wa_phone_numbers n ON n.id = b.number_id;
DROP TABLE bench_last, bench_contacts;
DROP FUNCTION bench_at;
"""


def history(bench: Bench) -> Iterator[Line]:
    """The same drain in a database with a history and in a fresh one."""
    count = bench.size(MESSAGES)
    with bench.ground.database() as old:
        make(bench, old)

        def fresh() -> float:
            with bench.ground.database() as database:
                return drain_ours(bench, database, bench.ground.sink(0), count)

        values = bench.rounds(
            {
                f"drain after {bench.history:,}": lambda: drain_ours(bench, old, bench.ground.sink(0), count),
                "drain after none": fresh,
            }
        )
    after, none = values.values()
    yield Line(f"drain after {bench.history:,} messages", after, "msg/s", "after none", none, at_least=0.9)


def make(bench: Bench, database: Database) -> None:
    """Write the history set-based, past the triggers, about ten messages to a contact."""
    started = monotonic()
    total = bench.history
    contacts = max(KNOWN, total // 10)
    with database.connect() as connection:
        for first in range(KNOWN, contacts, KNOWN):
            last = min(first + KNOWN, contacts) - 1
            connection.execute(CONTACTS, (first, last))
            connection.execute(NO_QUEUE)
        connection.execute(PLAN.encode())
        connection.execute("SET session_replication_role = replica")
        for table, statement in {"wa_messages": SENT, **REST}.items():
            for first in range(1, total + 1, CHUNK):
                last = min(first + CHUNK - 1, total)
                parameters = {"first": first, "last": last, "total": total, "contacts": contacts}
                connection.execute(statement.encode(), parameters)
            bench.note(f"history in {table}", seconds=round(monotonic() - started))
        for statement in LAST.split(";"):
            if statement.strip():
                connection.execute(statement.encode())
        connection.execute("RESET session_replication_role")
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    size = database.query("SELECT pg_size_pretty(pg_database_size(current_database())) AS size")[0]["size"]
    bench.note("history", messages=total, seconds=round(monotonic() - started), size=size)
