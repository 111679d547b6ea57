"""Two sessions that meet at one row of the queue: whoever comes second sees what the first decided.

Tests sql/contacts/joins.sql, sql/conversations/merge.sql, sql/consent/merge.sql, sql/queue/merge.sql,
sql/sending/merge.sql, sql/ledger/merge.sql, sql/campaigns/merge.sql.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest
from harness import Database
from sessions import Blocked, column
from webhook_bodies import message

DISPATCHER = "00000000-0000-0000-0000-000000000001"
CLAIM: LiteralString = "SELECT queue_id FROM world.claim()"
CANCEL: LiteralString = "SELECT cancel_wa_messages(reference => '1')"
OUTCOME: LiteralString = "SELECT world.outcome(id) FROM wa_outbound_queue"


def queue_one(world: Database) -> None:
    world.query("SELECT world.queue(1)")


def test_a_cancel_waits_for_a_claim_and_finds_it_taken(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    queue_one(world)
    claimer = session()
    assert len(column(claimer, CLAIM)) == 1
    canceller = session()
    waiting = Blocked(world, canceller, CANCEL)
    claimer.commit()
    assert waiting.finish() == [0]
    canceller.commit()
    assert world.query(OUTCOME) == [{"outcome": "sending"}]


def test_a_plain_cancel_that_comes_too_late_is_told_so(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    queue_one(world)
    claimer = session()
    column(claimer, CLAIM)
    waiting = Blocked(
        world,
        session(),
        "UPDATE wa_outbound_queue SET status = 'cancelled' WHERE reference = '1' RETURNING 1",
    )
    claimer.commit()
    with pytest.raises(psycopg.Error) as error:
        waiting.finish()
    assert error.value.sqlstate == "WA201"


def test_a_claim_passes_over_what_is_being_cancelled(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    queue_one(world)
    canceller = session()
    assert column(canceller, CANCEL) == [1]
    claimer = session()
    assert column(claimer, CLAIM) == []
    claimer.commit()
    canceller.commit()
    assert column(claimer, CLAIM) == []
    assert world.query(OUTCOME) == [{"outcome": "cancelled"}]


def test_a_cancel_that_is_rolled_back_delays_but_does_not_lose(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    queue_one(world)
    canceller = session()
    column(canceller, CANCEL)
    claimer = session()
    assert column(claimer, CLAIM) == []
    claimer.commit()
    canceller.rollback()
    world.query("SELECT world.later('1 second')")
    assert len(column(claimer, CLAIM)) == 1


def test_an_opt_out_waits_for_a_claim(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    world.query("SELECT world.queue(1, 'sale')")
    world.query("SELECT world.queue(2, 'sale')")
    claimer = session()
    assert len(column(claimer, "SELECT queue_id FROM world.claim(1)")) == 1
    leaver = session()
    waiting = Blocked(world, leaver, "SELECT opt_out_wa_contact(world.customer(1))")
    claimer.commit()
    assert waiting.finish() == [True]
    leaver.commit()
    assert world.query(f"{OUTCOME} ORDER BY id") == [{"outcome": "sending"}, {"outcome": "pending"}]


def test_a_claim_passes_over_who_is_opting_out(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    world.query("SELECT world.queue(1, 'sale')")
    leaver = session()
    column(leaver, "SELECT opt_out_wa_contact(world.customer(1))")
    claimer = session()
    assert column(claimer, CLAIM) == []
    claimer.commit()
    leaver.commit()
    world.query("SELECT world.later('1 second')")
    assert column(claimer, CLAIM) == []
    assert world.query(OUTCOME) == [{"outcome": "cancelled opted_out"}]


def test_stop_in_a_webhook_while_another_session_claims(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    world.query("SELECT world.queue(1, 'sale')")
    claimer = session()
    column(claimer, "SELECT queue_id FROM world.claim(1)")
    world.query("SELECT world.queue(1, 'sale')")
    stop = message("wamid.stop", "5491140000001", int(time.time()), "text", {"body": "STOP"}, number="100")
    world.query("SELECT ingest_wa_webhook(%s::bytea)", stop)
    processor = session()
    waiting = Blocked(world, processor, "SELECT process_wa_webhooks()")
    claimer.commit()
    assert waiting.finish() == [1]
    processor.commit()
    assert world.query(f"{OUTCOME} ORDER BY id") == [
        {"outcome": "sending"},
        {"outcome": "cancelled opted_out"},
        {"outcome": "pending"},  # what confirms the STOP
    ]
    assert world.query("SELECT is_wa_opted_out(world.customer(1)) AS is_out") == [{"is_out": True}]


def test_two_retries_queue_a_message_once(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    queue_one(world)
    world.query(CANCEL)
    first, second = session(), session()
    assert column(first, "SELECT retry_wa_messages(reference => '1')") == [1]
    waiting = Blocked(world, second, "SELECT retry_wa_messages(reference => '1')")
    first.commit()
    assert waiting.finish() == [0]
    second.commit()
    assert world.query("SELECT count(*) FROM wa_queue_due") == [{"count": 1}]


def result_of(world: Database, answer: dict[str, Any], status: int = 200) -> str:
    row = world.query("SELECT id, organization_id, attempt FROM wa_outbound_queue")[0]
    return json.dumps(
        [
            {
                "id": str(row["id"]),
                "org": str(row["organization_id"]),
                "attempt": row["attempt"],
                "outcome": "answered",
                "status": status,
                "answer": answer,
            }
        ]
    )


def settle_late(world: Database) -> None:
    """What was kept is tried again, and nothing of it is left."""
    assert world.query("SELECT 1 FROM wa_late_results")
    world.query("UPDATE wa_late_results SET try_at = clock_timestamp()")
    world.query("SELECT world.maintain()")
    assert world.query("SELECT 1 FROM wa_late_results UNION ALL SELECT 1 FROM wa_queue_inflight") == []


@pytest.mark.parametrize(
    "answer", [({"messages": [{"id": "wamid.1"}]}, 200), ({"error": {"code": 131026}}, 400)]
)
def test_two_sessions_report_one_result(
    world: Database, session: Callable[[], psycopg.Connection[Any]], answer: tuple[dict[str, Any], int]
) -> None:
    queue_one(world)
    world.query(CLAIM)
    result = result_of(world, *answer)
    first, second = session(), session()
    complete: LiteralString = "SELECT complete_wa_messages(%s::uuid, %s::jsonb)"
    assert column(first, complete, DISPATCHER, result) == [1]
    # It does not wait: the result is kept, and found recorded later.
    assert column(second, complete, DISPATCHER, result) == [1]
    first.commit()
    second.commit()
    settle_late(world)
    assert world.query("SELECT count(*) FROM wa_messages") == [{"count": 1}]


def test_an_answer_meets_callback_data_that_settles_its_row(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    queue_one(world)
    world.query(CLAIM)
    result = result_of(world, {"messages": [{"id": "wamid.1"}]})
    processor, dispatcher = session(), session()
    processor.execute(
        "SELECT _wa_settle_from_callback(organization_id, ARRAY[id], ARRAY[1], ARRAY['wamid.1'])"
        " FROM wa_outbound_queue"
    )
    assert column(dispatcher, "SELECT complete_wa_messages(%s::uuid, %s::jsonb)", DISPATCHER, result) == [1]
    processor.commit()
    dispatcher.commit()
    settle_late(world)
    assert world.query("SELECT count(*), min(state) AS state FROM wa_messages") == [
        {"count": 1, "state": "accepted"}
    ]


def test_messages_that_are_held_while_the_one_before_is_recorded_keep_their_order(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    world.query("SELECT world.wrote(1)")
    world.query("SELECT world.say(1, n::text) FROM generate_series(1, 6) n")
    spoken: LiteralString = "SELECT body #>> '{text,body}' FROM world.claim(%s, %s) ORDER BY n"
    first = session()
    assert column(first, spoken, 2, DISPATCHER) == ["1", "2"]
    first.commit()
    reporter, other = session(), session()
    reporter.execute("SELECT world.accept_all()")
    assert column(other, spoken, 2, "00000000-0000-0000-0000-000000000002") == []
    reporter.commit()
    other.commit()
    world.query("SELECT world.later('1 second')")
    assert column(other, spoken, 9, DISPATCHER) == ["3", "4", "5", "6"]


def test_a_lease_that_ends_meets_its_late_answer(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    queue_one(world)
    world.query(CLAIM)
    result = result_of(world, {"messages": [{"id": "wamid.1"}]})
    world.query("SELECT world.later('61 seconds')")
    dispatcher, keeper = session(), session()
    assert column(dispatcher, "SELECT complete_wa_messages(%s::uuid, %s::jsonb)", DISPATCHER, result) == [1]
    # Whoever records an answer has the row: it is left alone.
    assert column(keeper, "SELECT maintain_wa_dispatch(%s) ->> 'lost'", DISPATCHER) == ["0"]
    dispatcher.commit()
    keeper.commit()
    assert world.query(OUTCOME) == [{"outcome": "sent"}]


def test_one_dispatcher_at_a_time_does_the_upkeep(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    queue_one(world)
    world.query(CLAIM)
    world.query("SELECT world.later('61 seconds')")
    first, second = session(), session()
    assert column(first, "SELECT maintain_wa_dispatch(%s)->'lost'", DISPATCHER) == [1]
    assert column(second, "SELECT maintain_wa_dispatch(gen_random_uuid())") == [{}]


def test_panic_reaches_a_session_that_claimed_before(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    claimer = session()
    for n in range(8):
        world.query("SELECT world.queue(%s)", n)
        assert len(column(claimer, CLAIM)) == 1
        claimer.commit()
    queue_one(world)
    world.query("SELECT trigger_wa_panic('stop')")
    assert column(claimer, CLAIM) == []


def test_a_claim_needs_a_snapshot_per_statement(world: Database) -> None:
    with world.connect() as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(psycopg.Error) as error:
            connection.execute(CLAIM)
    assert error.value.sqlstate == "25001"


def test_producers_notify_only_while_nobody_is_awake(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    with world.connect() as dispatcher:
        dispatcher.execute("LISTEN wa_queue")
        assert column(dispatcher, "SELECT sleep_wa_dispatcher()") == [True]
        queue_one(world)
        assert [n.channel for n in dispatcher.notifies(timeout=60, stop_after=1)] == ["wa_queue"]
        dispatcher.execute("SELECT wake_wa_dispatcher()")
        queue_one(world)
        assert column(dispatcher, "SELECT sleep_wa_dispatcher()") == [True]
        # Anything sent while awake would come before this one.
        world.query("NOTIFY wa_queue, 'marker'")
        assert [n.payload for n in dispatcher.notifies(timeout=60, stop_after=1)] == ["marker"]


def test_nobody_goes_to_sleep_while_a_producer_has_not_committed(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    producer = session()
    with world.connect() as dispatcher:
        dispatcher.execute("SELECT wake_wa_dispatcher()")
        column(producer, "SELECT world.queue(1)")
        assert column(dispatcher, "SELECT sleep_wa_dispatcher()") == [False]
        producer.commit()
        assert column(dispatcher, "SELECT sleep_wa_dispatcher()") == [True]


def test_a_long_wait_is_announced(world: Database) -> None:
    world.query("UPDATE wa_organizations SET rate_limit_per_minute = 50")
    insert: LiteralString = (
        "INSERT INTO wa_outbound_queue (phone, template_name)"
        " SELECT world.customer(n), 'hello' FROM generate_series(1, %s) n"
    )
    with world.connect() as connection:
        heard: list[str] = []
        connection.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
        connection.execute(insert, (500,))
        assert heard == []
        connection.execute(insert, (501,))
    assert len(heard) == 1
    assert "501 messages queued" in heard[0]
    assert "00:11:00" in heard[0]
