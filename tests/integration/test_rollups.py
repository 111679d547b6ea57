"""Figures by day are those of the ledger, however messages come, change and go between roll-ups.

Tests sql/analytics/rollups.sql, sql/analytics/retention.sql.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from harness import Database, Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

START = datetime(2026, 3, 27, 21, 7, 3, tzinfo=UTC)
ZONES = ("UTC", "Asia/Kathmandu", "Europe/Berlin", "America/St_Johns")
DAY = timedelta(hours=24)
# What is counted, straight from the ledger.
LEDGER_MESSAGES = """
    SELECT (m.created_at AT TIME ZONE o.time_zone)::date, m.direction, m.template_name, m.status, count(*)
    FROM wa_messages m JOIN wa_organizations o ON o.id = m.organization_id GROUP BY 1, 2, 3, 4
"""
VIEW_MESSAGES = "SELECT day, direction, template_name, status, messages FROM wa_daily_messages"
LEDGER_DELIVERY = """
    SELECT (m.created_at AT TIME ZONE o.time_zone)::date, m.template_name, count(*),
        count(*) FILTER (WHERE m.status = 'sent'), count(*) FILTER (WHERE m.status = 'failed'),
        count(*) FILTER (WHERE m.state IN ('delivered', 'read')), count(*) FILTER (WHERE m.state = 'read'),
        round(avg(extract(epoch FROM m.sent_at - m.queued_at)), 3)
    FROM wa_messages m JOIN wa_organizations o ON o.id = m.organization_id
    WHERE m.direction = 'outbound' GROUP BY 1, 2
"""
VIEW_DELIVERY = """
    SELECT day, template_name, messages, sent, failed, delivered, seen, avg_queue_seconds
    FROM wa_daily_delivery
"""
LEDGER_COSTS = """
    SELECT (m.created_at AT TIME ZONE o.time_zone)::date, m.pricing ->> 'category', count(*)
    FROM wa_messages m JOIN wa_organizations o ON o.id = m.organization_id
    WHERE m.pricing IS NOT NULL GROUP BY 1, 2
"""
VIEW_COSTS = "SELECT day, category, messages FROM wa_daily_costs"
VIEW_ANSWERS = "SELECT day, responses, avg_response_seconds FROM wa_daily_response_times"
INSERT = """
    INSERT INTO wa_messages (
        contact_id, direction, message_type, template_name, status, state, created_at, queued_at, sent_at
    ) VALUES (%(contact)s, %(direction)s, 'text', %(template)s,
        CASE %(direction)s WHEN 'inbound' THEN 'received' ELSE 'sent' END,
        CASE %(direction)s WHEN 'inbound' THEN 'received' ELSE 'accepted' END, %(at)s,
        CASE %(direction)s WHEN 'outbound' THEN %(at)s - interval '2.5 seconds' END,
        CASE %(direction)s WHEN 'outbound' THEN %(at)s END)
"""
LATE_STATUS = """
    UPDATE wa_messages SET state = %(state)s,
        status = CASE %(state)s WHEN 'failed' THEN 'failed' ELSE 'sent' END,
        pricing = CASE WHEN %(state)s <> 'failed' THEN '{"type": "regular", "category": "utility"}'::jsonb END
    WHERE direction = 'outbound' AND id = (
        SELECT id FROM wa_messages WHERE id %% 7 = %(pick)s ORDER BY id DESC LIMIT 1
    )
"""
DELETE = "DELETE FROM wa_messages WHERE id %% 5 = %(pick)s AND created_at < %(at)s"

QUESTION = {"contact": 1, "direction": "inbound", "template": None}
message = st.fixed_dictionaries(
    {
        "contact": st.integers(1, 2),
        "direction": st.sampled_from(["inbound", "outbound"]),
        "template": st.sampled_from([None, None, "hello"]),
        "minutes": st.sampled_from([0, 1, 14, 100, 700, 1500]),
    }
)
step = st.one_of(
    st.tuples(st.just("message"), message),
    st.tuples(st.just("message"), message),
    st.tuples(st.just("late writer"), message),
    st.tuples(st.just("commit"), st.none()),
    st.tuples(
        st.just("status"),
        st.fixed_dictionaries(
            {"state": st.sampled_from(["delivered", "read", "failed"]), "pick": st.integers(0, 6)}
        ),
    ),
    st.tuples(st.just("delete"), st.fixed_dictionaries({"pick": st.integers(0, 4)})),
    st.tuples(st.just("roll up"), st.sampled_from([1, 2000])),
    st.tuples(st.just("zone"), st.sampled_from(ZONES)),
)


def rows(session: psycopg.Connection[Any], query: str) -> list[tuple[Any, ...]]:
    """Rows in an order of their own."""
    return sorted(session.execute(query.encode()).fetchall(), key=repr)


def ledger_answers(session: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """Answers by day, number and average seconds, by walking through each conversation."""
    (zone,) = session.execute("SELECT time_zone FROM wa_organizations").fetchone() or ("UTC",)
    seconds: dict[Any, list[float]] = {}
    waiting: dict[int, list[datetime]] = {}
    for contact, direction, status, template, at in session.execute(
        "SELECT contact_id, direction, status, template_name, created_at FROM wa_messages ORDER BY id"
    ):
        if direction == "inbound":
            waiting.setdefault(contact, []).append(at)
        elif status == "sent" and template is None:
            asked = [one for one in waiting.pop(contact, []) if at - one <= DAY]
            if asked:
                day = at.astimezone(ZoneInfo(zone)).date()
                seconds.setdefault(day, []).append((at - asked[0]).total_seconds())
    return [(day, len(all_), round(sum(all_) / len(all_), 2)) for day, all_ in sorted(seconds.items())]


def check(session: psycopg.Connection[Any]) -> None:
    """The views say what the ledger says."""
    assert rows(session, VIEW_MESSAGES) == rows(session, LEDGER_MESSAGES)
    assert rows(session, VIEW_DELIVERY) == rows(session, LEDGER_DELIVERY)
    assert rows(session, VIEW_COSTS) == rows(session, LEDGER_COSTS)
    answers = sorted(session.execute(VIEW_ANSWERS).fetchall())
    assert [(d, n, round(float(s), 2)) for d, n, s in answers] == ledger_answers(session)


@pytest.fixture(scope="module")
def ledger(pg: Server) -> Iterator[Database]:
    """One database for all examples; each begins with an empty ledger."""
    database = pg.create_database(template=pg.template("public"))
    yield database
    pg.drop_database(database)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(step, min_size=8, max_size=24))
def test_rollups_equal_the_plain_aggregate(ledger: Database, steps: list[tuple[str, Any]]) -> None:
    now = START
    with ledger.connect() as session, ledger.connect() as late:
        session.execute("TRUNCATE wa_messages, wa_message_rollups, wa_response_rollups, wa_rollup_marks")
        session.execute("UPDATE wa_organizations SET time_zone = 'UTC'")
        late.autocommit = False
        for what, how in steps:
            if what in ("message", "late writer"):
                now += timedelta(minutes=how["minutes"])
                # Open until "commit": roll-ups pass it by meanwhile.
                (session if what == "message" else late).execute(INSERT, {**how, "at": now})
            elif what == "commit":
                late.commit()
            elif what == "status":
                session.execute(LATE_STATUS, how)
            elif what == "delete":
                session.execute(DELETE, {**how, "at": now})
            elif what == "roll up":
                session.execute("SELECT roll_up_wa_analytics(%s)", (how,))
            else:
                session.execute("UPDATE wa_organizations SET time_zone = %s", (how,))
            if what != "message":
                check(session)
        late.commit()
        check(session)
        session.execute("SELECT roll_up_wa_analytics()")
        assert session.execute("SELECT count(*) FROM wa_rollup_marks").fetchone() == (0,)
        check(session)


def test_a_transaction_that_is_open_during_a_rollup_is_not_missed(db: Database) -> None:
    with db.connect() as session, db.connect() as late:
        session.execute(INSERT, {**QUESTION, "at": START})
        late.autocommit = False
        late.execute(INSERT, {**QUESTION, "direction": "outbound", "at": START})
        session.execute("SELECT roll_up_wa_analytics()")
        assert [row[-1] for row in rows(session, VIEW_MESSAGES)] == [1]
        late.commit()
        assert [row[-1] for row in rows(session, VIEW_MESSAGES)] == [1, 1]
        assert [row[1] for row in rows(session, VIEW_ANSWERS)] == [1]
        session.execute("SELECT roll_up_wa_analytics()")
        assert [row[-1] for row in rows(session, VIEW_MESSAGES)] == [1, 1]
        assert [row[1] for row in rows(session, VIEW_ANSWERS)] == [1]


def test_a_new_time_zone_waits_for_the_rollup_that_runs(db: Database) -> None:
    with db.connect() as session, db.connect() as other:
        session.execute(
            INSERT,
            {**QUESTION, "at": datetime(2026, 3, 1, 23, 30, tzinfo=UTC)},
        )
        session.autocommit = False
        session.execute("SELECT roll_up_wa_analytics()")
        other.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("UPDATE wa_organizations SET time_zone = 'Asia/Kathmandu'")
        session.commit()
        other.execute("UPDATE wa_organizations SET time_zone = 'Asia/Kathmandu'")
        assert str(rows(other, VIEW_MESSAGES)[0][0]) == "2026-03-02"


def test_no_view_walks_through_the_ledger(db: Database) -> None:
    """Ten days in 20,000 messages, rolled up but for the last quarter hours and a hundred late statuses."""
    with db.connect() as session:
        session.execute("SELECT register_wa_phone_number('100', '+1 555 123 4567', '200')")
        session.execute(
            """
            INSERT INTO wa_messages (
                number_id, contact_id, phone_e164, wa_message_id, direction, message_type, status, state,
                content_text, created_at
            )
            SELECT w.id, 1 + n % 500, '+5511900' || n % 500, 'w' || n,
                CASE WHEN n % 3 = 0 THEN 'inbound' ELSE 'outbound' END, 'text',
                CASE WHEN n % 3 = 0 THEN 'received' ELSE 'sent' END,
                CASE WHEN n % 3 = 0 THEN 'received' ELSE 'sent' END, repeat('words ', 20),
                clock_timestamp() - interval '10 days' + n * interval '10 days' / 20000
            FROM generate_series(1, 20000) n, wa_phone_numbers w
            """
        )
        while session.execute("SELECT roll_up_wa_analytics(20000)").fetchone() != (0,):
            pass
        session.execute("VACUUM ANALYZE")
        session.execute(
            "UPDATE wa_messages SET state = 'read' WHERE wa_message_id = ANY (%s)",
            ([f"w{n}" for n in range(100, 20000, 400)],),
        )
        for view in ("messages", "delivery", "costs", "response_times"):
            for condition in ("day > current_date - 3", "true"):
                plan = explain(session, f"SELECT * FROM wa_daily_{view} WHERE {condition}")
                assert "wa_messages_created_at_idx" in plan
                assert scanned(json.loads(plan)) & {"wa_messages"} == set(), (view, condition)
        recent = explain(
            session, "SELECT * FROM wa_message_compliance WHERE created_at > now() - interval '24 hours'"
        )
        assert "wa_messages" not in scanned(json.loads(recent))


def explain(session: psycopg.Connection[Any], query: str) -> str:
    """The plan as JSON text."""
    (found,) = session.execute(f"EXPLAIN (FORMAT json) {query}".encode()).fetchone() or ("",)
    return json.dumps(found)


def scanned(plan: Any) -> set[str]:
    """Tables that a plan reads from end to end."""
    if isinstance(plan, list):
        return set().union(*(scanned(part) for part in plan))
    if not isinstance(plan, dict):
        return set()
    own = {plan["Relation Name"]} if plan.get("Node Type") == "Seq Scan" else set()
    return own.union(*(scanned(part) for part in plan.values()))
