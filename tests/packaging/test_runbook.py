"""The runbook is true: every query runs as the role that it is for, finds what there is, and reads no large
table from end to end."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import psycopg
import pytest
from harness import CHECKOUT, Database, Server
from manuals import blocks
from pg_whatsapp import __version__
from webhook_bodies import message

MANUAL = CHECKOUT / "docs/runbook.md"
MESSAGES = 20_000
LARGE = re.compile(r"Seq Scan on (wa_messages|wa_message_statuses|wa_webhook_logs)\b")
# Statements that find nothing where all is well.
FINDS_NOTHING = (
    "pg_replication_slots", "pg_blocking_pids", "plan_wa_migration()", "wa_faults", "get_wa_unheard_numbers()"
)  # fmt: skip
# Something of each kind that the runbook asks for.
SITUATION = """
    SELECT adopt_wa_database('keep');
    CREATE ROLE operator LOGIN IN ROLE wa_admin;
    CREATE ROLE analyst LOGIN IN ROLE wa_analyst;
    SELECT register_wa_phone_number('106540352242922', '+1 650 555 0100', '102290129340398');
    INSERT INTO wa_templates (name, category, status, body_text) VALUES
    ('order_shipped', 'UTILITY', 'APPROVED', 'On its way'), ('spring_sale', 'MARKETING', 'PAUSED', 'Sale');
    SELECT start_wa_dispatcher('00000000-0000-0000-0000-000000000001', 'here', 1, '{version}');
    INSERT INTO wa_outbound_queue (phone, template_name, reference)
    VALUES ('+16505550103', 'order_shipped', 'lost');
    SELECT complete_wa_messages('00000000-0000-0000-0000-000000000001', jsonb_build_array(jsonb_build_object(
        'id', c.queue_id, 'org', c.organization_id, 'attempt', c.attempt, 'outcome', 'unknown')))
    FROM claim_wa_messages('00000000-0000-0000-0000-000000000001', 1) c;
    INSERT INTO wa_outbound_queue (phone, template_name, reference, scheduled_at)
    VALUES ('+16505550101', 'order_shipped', 'order-1042', now() + interval '1 hour');
    INSERT INTO wa_message_statuses (wa_message_id, status, occurred_at)
    VALUES ('wamid.runbook', 'sent', now());
    SELECT ingest_wa_webhook('\\x7b');
    SELECT ingest_wa_webhook('\\x{inbound}');
    SELECT process_wa_webhooks();
    SELECT record_wa_webhook_rejection('192.0.2.1', 'wrong signature');
    INSERT INTO wa_account_events (field, event, dedupe_key, occurred_at)
    VALUES ('account_update', 'ACCOUNT_RESTRICTION', 'x', now());
    SELECT set_wa_secret('access_token', NULL, '\\x{sealed}', 'key', 'print');
    SELECT create_wa_event_subscription(
        gen_random_uuid(), 'https://example.com/hook', '{{message}}', '\\x{sealed}', 'key', 'print');
    SELECT add_wa_organization_role(current_wa_organization(), 'operator');
    SELECT opt_out_wa_contact('+16505550101', 'marketing', 'asked by phone');
    SELECT request_wa_template_sync();
    INSERT INTO wa_templates (name, category, status, body_text)
    VALUES ('offer', 'MARKETING', 'APPROVED', 'Now');
    INSERT INTO wa_quiet_hours (purpose, from_time, to_time) VALUES ('marketing', '00:00', '23:59:59');
    INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('+16505550104', 'offer');
    SELECT count(*) FROM schedule_wa_jobs();
    SELECT run_wa_job('rate_windows');
"""
# The ledger as it is after a while: large enough that a plan shows what it would do with a larger one.
HISTORY = """
    INSERT INTO wa_contacts (phone_e164, phone_key)
    SELECT '+1650' || n, '1650' || n FROM generate_series(6000000, 6002999) n;
    INSERT INTO wa_messages (
        contact_id, number_id, phone_number_id, direction, message_type, template_name, template_category,
        wa_message_id, status, state, error_code, error_title, pricing, queued_at, sent_at, delivered_at,
        is_within_24h_at_claim, created_at
    )
    SELECT c.id, 1, '106540352242922', d.direction,
        CASE d.direction WHEN 'inbound' THEN 'text' ELSE 'template' END,
        CASE d.direction WHEN 'outbound' THEN 'order_shipped' END,
        CASE d.direction WHEN 'outbound' THEN 'UTILITY' END, 'wamid.' || n,
        CASE WHEN d.direction = 'inbound' THEN 'received' WHEN n % 50 = 1 THEN 'failed' ELSE 'sent' END,
        CASE WHEN d.direction = 'inbound' THEN 'received' WHEN n % 50 = 1 THEN 'failed' ELSE 'delivered' END,
        CASE WHEN n % 50 = 1 THEN 131026 END, CASE WHEN n % 50 = 1 THEN 'Message undeliverable' END,
        CASE d.direction WHEN 'outbound' THEN '{{"billable": true, "category": "utility"}}'::jsonb END,
        d.at, d.at, d.at, true, d.at
    FROM generate_series(1, {messages}) n
    CROSS JOIN LATERAL (SELECT now() - (({messages} - n) * interval '60 days') / {messages},
        CASE WHEN n % 5 = 0 THEN 'inbound' ELSE 'outbound' END) d (at, direction)
    JOIN wa_contacts c ON c.phone_key = '1650' || (6000000 + n % 3000);
    INSERT INTO wa_message_statuses (message_id, wa_message_id, status, occurred_at, received_at)
    SELECT id, wa_message_id, 'delivered', created_at, created_at FROM wa_messages
    WHERE direction = 'outbound';
    INSERT INTO wa_webhook_logs (received_at, body, status)
    SELECT created_at, '', 'processed' FROM wa_messages ORDER BY id;
    INSERT INTO wa_messages (
        contact_id, number_id, phone_number_id, direction, message_type, status, state, metadata, created_at
    )
    SELECT c.id, 1, '106540352242922', m.direction, 'text', m.status, m.status,
        '{{"role": "support"}}', now() - m.ago
    FROM (SELECT min(id) AS id FROM wa_contacts) c, (VALUES
        ('inbound', 'received', interval '2 hours'), ('outbound', 'sent', interval '1 hour')
    ) m (direction, status, ago);
    ANALYZE;
"""


class Statement(NamedTuple):
    """One statement of the runbook and who runs it."""

    role: str
    text: str


def statements() -> list[Statement]:
    """All of them, in order."""
    return [
        Statement(block.role, part.strip())
        for block in blocks(MANUAL)
        if block.language == "sql"
        for part in re.split(r";[^\n;]*\n", block.text)
        if part.strip()
    ]


@pytest.fixture
def busy(make_server: Callable[..., Server]) -> Database:
    server = make_server()
    database = Database(server, "postgres")
    database.install()
    inbound = message("wamid.in", "16505550101", 1_760_000_000, content="Hello?", name="Ann")
    with database.connect() as owner:
        owner.execute(SITUATION.format(version=__version__, inbound=inbound.hex(), sealed="78" * 40).encode())
        owner.execute(HISTORY.format(messages=MESSAGES).encode())
    return database


def test_no_block_both_reads_and_changes() -> None:
    """Who pastes one to look must not end a colleague's stop with it."""
    change = re.compile(
        r"^(UPDATE|SELECT( \w+ FROM)? (trigger|resolve|set|cancel|replay|resume|retry|unschedule)_wa_)", re.M
    )
    for block in blocks(MANUAL):
        lines = [line for line in block.text.splitlines() if re.match(r"\w", line)]
        changes = [line for line in lines if change.match(line)]
        assert not changes or lines == changes, block.text


def test_every_query_finds_what_there_is_without_reading_all(busy: Database) -> None:
    found = statements()
    assert {statement.role for statement in found} >= {"operator", "postgres"}
    wrong = []
    for role, text in found:
        with busy.connect(user=role) as session:
            try:
                if text.startswith(("SELECT", "WITH", "--")):
                    plan = session.execute(b"EXPLAIN " + text.encode()).fetchall()
                    wrong += [f"{text}\n{line}" for (line,) in plan if LARGE.search(line)]
                cursor = session.execute(text.encode())
            except psycopg.Error as error:
                wrong.append(f"{text}\n{error}")
                continue
            if cursor.description and not cursor.rowcount and not any(word in text for word in FINDS_NOTHING):
                wrong.append(f"{text}\nfound nothing")
    assert not wrong, "\n\n".join(wrong)
