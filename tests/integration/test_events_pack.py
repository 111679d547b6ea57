"""Tasks of events in several sessions at once: runners, organizers who change their minds, a dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest
from harness import CHECKOUT, Database
from sessions import Blocked, column

RUN: LiteralString = "SELECT run_wa_event_tasks(%s)"
CLAIM: LiteralString = "SELECT queue_id FROM world.claim(1)"
# Half an hour later, on a day of its own: the reminder is for the next one.
MOVE: LiteralString = "UPDATE ai_events SET start_date = start_date + interval '30 minutes' RETURNING 1"
TIMES: LiteralString = """
    SELECT DISTINCT q.status || ' ' || (q.template_params ->> 0 = to_char(
        e.start_date AT TIME ZONE e.time_zone, 'YYYY-MM-DD HH12:MI AM'))::text
    FROM wa_outbound_queue AS q CROSS JOIN ai_events AS e ORDER BY 1
"""
Sessions = Callable[[], psycopg.Connection[Any]]
GUESTS = 3


@pytest.fixture
def fair(db: Database) -> Database:
    """A published event next week with three guests and four reminders that are due."""
    with db.connect() as owner:
        owner.execute((CHECKOUT / "tests/pgtap/world.psql").read_bytes())
        owner.execute("SELECT install_wa_pack('events')")
        owner.execute(
            "INSERT INTO wa_templates (name, category, status, body_text, parameters) VALUES"
            " ('reminder', 'UTILITY', 'APPROVED', 'It starts at {{1}}.', '[\"event_time\"]')"
        )
        owner.execute(
            "INSERT INTO ai_events (name, start_date, time_zone, reminders)"
            " VALUES ('Fair', now() + interval '7 days', 'Asia/Kathmandu', '{}')"
        )
        owner.execute("INSERT INTO orders (event_id) SELECT id FROM ai_events")
        owner.execute(
            "INSERT INTO attendees (order_id, attendee_info)"
            " SELECT o.id, jsonb_build_object('phone', world.customer(n))"
            " FROM orders AS o, generate_series(1, %s) AS n",
            (GUESTS,),
        )
        # Two transactions that meet a new customer wait for each other; these are known.
        owner.execute("SELECT world.contact(world.customer(n)) FROM generate_series(1, %s) AS n", (GUESTS,))
        owner.execute(
            "INSERT INTO ai_tasks (event_id, task_type, scheduled_for, template_name)"
            " SELECT id, 'send_reminder', now() - n * interval '1 second', 'reminder'"
            " FROM ai_events, generate_series(1, 4) AS n"
        )
    return db


def statuses(db: Database) -> dict[str, int]:
    """How many tasks have which status."""
    rows = db.query("SELECT status, count(*) AS tasks FROM ai_tasks GROUP BY 1")
    return {row["status"]: row["tasks"] for row in rows}


def test_runners_share_the_tasks(fair: Database, session: Sessions) -> None:
    one, other, third = session(), session(), session()
    assert column(one, RUN, 1) == [1]
    # Neither waits for the first, nor does its tasks again.
    assert column(other, RUN, 2) == [2]
    assert column(third, RUN, 100) == [1]
    for runner in (one, other, third):
        runner.commit()
    assert statuses(fair) == {"completed": 4}
    rows = fair.query(
        "SELECT count(*) AS messages, count(DISTINCT idempotency_key) AS keys FROM wa_outbound_queue"
    )
    assert rows == [{"messages": 4 * GUESTS, "keys": 4 * GUESTS}]


def test_a_run_that_dies_is_done_again(fair: Database, session: Sessions) -> None:
    runner = session()
    assert column(runner, RUN, 100) == [4]
    runner.close()
    assert statuses(fair) == {"pending": 4}
    assert column(session(), RUN, 100) == [4]


def test_a_task_executed_by_hand_and_by_a_runner_is_executed_once(fair: Database, session: Sessions) -> None:
    runner = session()
    assert column(runner, RUN, 100) == [4]
    waiting = Blocked(
        fair,
        session(),
        "UPDATE ai_tasks SET status = 'executing' WHERE status = 'pending' RETURNING 1",
    )
    runner.commit()
    assert waiting.finish() == []


def test_a_move_takes_back_what_a_runner_is_queueing(fair: Database, session: Sessions) -> None:
    runner, organizer = session(), session()
    assert column(runner, RUN, 2) == [2]
    waiting = Blocked(fair, organizer, MOVE)
    runner.commit()
    assert waiting.finish() == [1]
    organizer.commit()
    assert column(organizer, TIMES) == ["cancelled false"]
    # All four were meant for half an hour later than they were, which lies ahead.
    fair.query("UPDATE ai_tasks SET scheduled_for = now() WHERE status = 'pending'")
    assert column(session(), RUN, 100) == [4]


def test_a_runner_passes_over_an_event_that_is_being_changed(fair: Database, session: Sessions) -> None:
    organizer, runner = session(), session()
    assert column(organizer, MOVE) == [1]
    assert column(runner, RUN, 100) == [0]
    runner.commit()
    organizer.rollback()
    assert column(runner, RUN, 100) == [4]
    assert column(runner, TIMES) == ["pending true"]


def test_a_cancelled_event_leaves_what_is_with_the_dispatcher(fair: Database, session: Sessions) -> None:
    assert fair.query(RUN, 1)
    dispatcher, organizer = session(), session()
    (claimed,) = column(dispatcher, CLAIM)
    waiting = Blocked(fair, organizer, "UPDATE ai_events SET status = 'cancelled' RETURNING 1")
    dispatcher.commit()
    assert waiting.finish() == [1]
    organizer.commit()
    rows = fair.query("SELECT id = %s AS is_claimed, status FROM wa_outbound_queue", claimed)
    assert sorted((row["is_claimed"], row["status"]) for row in rows) == [
        (False, "cancelled"),
        (False, "cancelled"),
        (True, "sending"),
    ]
    assert statuses(fair) == {"completed": 1, "cancelled": 3}


def test_two_changes_of_an_event_take_turns(fair: Database, session: Sessions) -> None:
    fair.query('UPDATE ai_events SET reminders = \'{"1": "reminder", "0": "reminder"}\'')
    one, other = session(), session()
    assert column(one, MOVE) == [1]
    waiting = Blocked(fair, other, MOVE)
    one.commit()
    assert waiting.finish() == [1]
    other.commit()
    rows = fair.query(
        "SELECT e.start_date - t.scheduled_for = interval '1 day' AS is_right FROM ai_tasks AS t"
        " JOIN ai_events AS e ON e.id = t.event_id WHERE t.metadata ->> 'reminder_days' = '1'"
    )
    assert rows == [{"is_right": True}]
