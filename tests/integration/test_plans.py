"""Plans look rows up by key, whatever the tables held when they were made or analysed.

Tests sql/organizations/statistics.sql.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from harness import CHECKOUT, Database

pytestmark = pytest.mark.slow

BATCHES, BATCH = 60, 50
# Rows that an index hands out for each message: a few look-ups by key, never the whole table, which would be
# 1,500. Every world.later() leaves a version of each row that waits, 30 a message on average: a look-up meets
# all of them where an old snapshot (of autovacuum, say) keeps dead entries from being marked as such.
MOST_READ = 150
READ = """
SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes
WHERE relname IN (
    'wa_messages', 'wa_message_statuses', 'wa_outbound_queue', 'wa_queue_due', 'wa_queue_inflight'
)
"""
PUSHED = 3000
# Ten look-ups, and the rows before it of those that are counted.
MOST_READ_PUSHED = 40
READ_PUSHED = """
SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes WHERE relname = 'wa_event_deliveries'
"""
CLAIM_AND_COMPLETE = """
SELECT count(*), _wa_complete_event_deliveries(jsonb_agg(jsonb_build_object(
    'org', c.organization_id, 'subscription', c.subscription_id, 'event', c.event_id, 'attempt', c.attempt,
    'outcome', 'answered', 'status', 200)), world.at())
FROM _wa_claim_event_deliveries(10, 10, '{key}', world.at()) c
"""
BEFORE_MAINTENANCE = 5
EMPTIED = ["wa_outbound_queue", "wa_queue_due"]
# What an index reads and passes over is counted nowhere: the plan has to tell.
LOOK_UP_DUE = """
EXPLAIN SELECT FROM wa_queue_due
WHERE organization_id = '00000000-0000-0000-0000-000000000001'
    AND queue_id = '00000000-0000-0000-0000-000000000001'
"""
SEEMS_EMPTY = "SELECT count(*) FROM pg_class WHERE relname = ANY (%s) AND reltuples = 0 AND relpages > 0"


def test_a_session_from_the_first_day_reads_by_key(db: Database) -> None:
    with db.connect() as session:
        session.execute((CHECKOUT / "tests/pgtap/world.psql").read_bytes())
        session.execute("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
        session.execute("VACUUM ANALYZE")
        for first in range(0, BATCHES * BATCH, BATCH):
            session.execute(
                "SELECT world.queue(n) FROM generate_series(%s::int, %s) n", (first, first + BATCH - 1)
            )
            assert session.execute("SELECT world.claimed()").fetchone() == (BATCH,)
            session.execute("SELECT world.accept_all()")
            session.execute("SELECT world.later('1 second')")
        assert session.execute("SELECT count(*) FROM wa_messages").fetchone() == (BATCHES * BATCH,)
        assert walked(session) == {}


def test_a_queue_that_was_emptied_and_is_filled_again_is_read_by_key(db: Database) -> None:
    with db.connect() as session:
        session.execute((CHECKOUT / "tests/pgtap/world.psql").read_bytes())
        session.execute("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
        for table in EMPTIED:
            session.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        fill(session, 0)
        session.execute("DELETE FROM wa_outbound_queue")
        session.execute("ANALYZE")
        assert session.execute(SEEMS_EMPTY, [EMPTIED]).fetchone() == (len(EMPTIED),)
        session.execute("SET enable_seqscan = off")
        assert "wa_queue_due_pkey" in str(session.execute(LOOK_UP_DUE).fetchall())
        session.execute("RESET enable_seqscan")
        session.execute("SELECT pg_stat_reset()")
        fill(session, BATCHES * BATCH)
        for n in range(BATCHES):
            if n == BEFORE_MAINTENANCE:
                session.execute("SELECT pg_stat_force_next_flush()")
                session.execute("SELECT maintain_wa_dispatch('00000000-0000-0000-0000-000000000001')")
            assert session.execute("SELECT world.claimed(%s)", [BATCH]).fetchone() == (BATCH,)
            session.execute("SELECT world.accept_all()")
            session.execute("SELECT world.later('1 second')")
        assert walked(session) == {}


def fill(session: psycopg.Connection[Any], first: int) -> None:
    """Queue a message to each of as many new recipients, in one statement."""
    session.execute(
        "INSERT INTO wa_outbound_queue (phone, template_name)"
        " SELECT world.customer(n), 'hello' FROM generate_series(%s::int, %s) n",
        (first, first + BATCHES * BATCH - 1),
    )


def walked(session: psycopg.Connection[Any]) -> dict[str, int]:
    """Indexes that handed out more rows than look-ups by key of so many messages need."""
    session.execute("SELECT pg_stat_force_next_flush()")
    session.execute("SELECT 1")
    return {name: read for name, read in session.execute(READ) if read > MOST_READ * BATCHES * BATCH}


def test_events_that_are_pushed_after_a_pause_are_read_by_key(db: Database) -> None:
    with db.connect() as session:
        session.execute((CHECKOUT / "tests/pgtap/subscriptions/subscribers.psql").read_bytes())
        session.execute("SELECT world.subscribe()")
        session.execute("ALTER TABLE wa_event_deliveries SET (autovacuum_enabled = false)")
        push(session, 20)
        session.execute("DELETE FROM wa_event_deliveries")
        session.execute("ANALYZE")
        assert session.execute(SEEMS_EMPTY, [["wa_event_deliveries"]]).fetchone() == (1,)
        session.execute("SELECT pg_stat_reset()")
        push(session, PUSHED)
        session.execute("SELECT pg_stat_force_next_flush()")
        session.execute("SELECT 1")
        read = dict(session.execute(READ_PUSHED).fetchall())
        assert read["wa_event_deliveries_pkey"] > PUSHED
        assert {name: rows for name, rows in read.items() if rows > MOST_READ_PUSHED * PUSHED} == {}


def push(session: psycopg.Connection[Any], events: int) -> None:
    """Have so many events of as many customers happen, and pushed, ten at a time."""
    session.execute("SELECT world.happen(n) FROM generate_series(1, %s::int) n", (events,))
    for _ in range(0, events, 10):
        assert session.execute(CLAIM_AND_COMPLETE).fetchone() == (10, [])
