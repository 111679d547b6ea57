"""One tenant's lock, row or error stops nobody else: claims, answers, webhooks, maintenance.

Tests sql/sending/claim.sql, sql/sending/complete.sql, sql/sending/dispatchers.sql, sql/webhooks/store.sql,
sql/webhooks/atoms.sql, sql/organizations/faults.sql.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from harness import Database
from psycopg import sql
from sessions import column
from simulated import wait_until
from webhook_bodies import message

Session = Callable[..., psycopg.Connection[Any]]
# Longer than what any call waits for a lock; far shorter than the test that a call which waits would need.
PATIENCE_MS = 30_000
CLAIMED: LiteralString = (
    "SELECT q.organization_id::text AS org, q.id, q.attempt, q.reference FROM world.claim() c"
    " JOIN wa_outbound_queue q ON q.id = c.queue_id ORDER BY q.reference"
)
RESULTS: LiteralString = """
    SELECT complete_wa_messages('00000000-0000-0000-0000-000000000001', jsonb_agg(jsonb_build_object(
        'id', i.queue_id, 'org', i.organization_id, 'attempt', i.attempt,
        'outcome', 'answered', 'status', 200, 'answer', jsonb_build_object('messages', jsonb_build_array(
            jsonb_build_object('id', 'wamid.' || i.queue_id))))))
    FROM wa_queue_inflight i
"""
# Keeps some rows from being written, as a fault of ours would.
BOOM: LiteralString = """
    CREATE FUNCTION world.boom() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'integer out of range' USING ERRCODE = '22003';
    END $$;
    CREATE TRIGGER boom BEFORE INSERT ON {table} FOR EACH ROW WHEN (NEW.{column} = {value})
    EXECUTE FUNCTION world.boom();
"""


class Neighbours:
    """Organizations A, whose application misbehaves, and B, each with a number and customers."""

    def __init__(self, db: Database, app: str) -> None:
        self.db = db
        self.app = app
        [row] = db.query(
            "SELECT current_wa_organization()::text AS a, create_wa_organization('b')::text AS b"
        )
        self.a, self.b = row["a"], row["b"]
        db.query("SELECT add_wa_organization_role(%s, %s)", self.a, app)
        self.as_b(
            "SELECT register_wa_phone_number('300', '+1 555 123 9999', '400')",
            "UPDATE wa_phone_numbers SET throughput = 100000 WHERE phone_number_id = '300'",
        )
        db.query("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
        db.query(
            "INSERT INTO wa_templates (organization_id, name, category, status, body_text)"
            " VALUES (%s, 'hello', 'UTILITY', 'APPROVED', 'Hello')",
            self.b,
        )

    def as_a(self, *statements: LiteralString) -> None:
        self._run(self.a, statements)

    def as_b(self, *statements: LiteralString) -> None:
        self._run(self.b, statements)

    def _run(self, org: str, statements: tuple[LiteralString, ...]) -> None:
        with self.db.connect() as session:
            session.execute("SELECT set_config('wa.organization_id', %s, false)", (org,))
            for statement in statements:
                session.execute(statement)

    def queue(self, first: int, last: int) -> None:
        """Templates of A to customers first to last, and as many of B."""
        insert: LiteralString = (
            "INSERT INTO wa_outbound_queue (phone, template_name, reference)"
            " SELECT world.customer(n), 'hello', n::text FROM generate_series(%s::integer, %s) n"
        )
        with self.db.connect() as session:
            for org in (self.a, self.b):
                session.execute("SELECT set_config('wa.organization_id', %s, false)", (org,))
                session.execute(insert, (first, last))

    def break_writes(self, table: str, column: str, value: str) -> None:
        statement = sql.SQL(BOOM).format(
            table=sql.Identifier(table), column=sql.Identifier(column), value=sql.Literal(value)
        )
        with self.db.connect() as session:
            session.execute(statement)

    def states(self, org: str) -> set[str]:
        rows = self.db.query("SELECT DISTINCT status FROM wa_outbound_queue WHERE organization_id = %s", org)
        return {row["status"] for row in rows}

    def hurried(self) -> psycopg.Connection[Any]:
        """A dispatcher's session that gives up rather than wait for as long as A holds a lock."""
        session = self.db.connect()
        session.execute("SELECT set_config('statement_timeout', %s, false)", (str(PATIENCE_MS),))
        return session


@pytest.fixture
def neighbours(world: Database, make_role: Callable[..., str]) -> Neighbours:
    return Neighbours(world, make_role("wa_app"))


@pytest.fixture
def of_a(neighbours: Neighbours) -> Iterator[psycopg.Connection[Any]]:
    """A session of A's application that holds on to what it locks."""
    with neighbours.db.connect(user=neighbours.app, autocommit=False) as session:
        yield session
        session.rollback()


def test_a_lane_whose_claim_fails_rests_and_the_others_go_on(neighbours: Neighbours) -> None:
    db = neighbours.db
    neighbours.break_writes("wa_queue_inflight", "organization_id", neighbours.a)
    neighbours.queue(1, 30)
    claimed = db.query(CLAIMED)
    assert {row["org"] for row in claimed} == {neighbours.b}
    assert len(claimed) == 30
    [fault] = db.query("SELECT work, sqlstate, error FROM wa_faults")
    assert fault == {"work": "claim", "sqlstate": "22003", "error": "integer out of range"}
    [health] = db.query(
        "SELECT hold_reason, last_fault, late_results FROM wa_queue_health WHERE organization_id = %s",
        neighbours.a,
    )
    assert health["hold_reason"] == "fault"
    assert "22003 integer out of range" in health["last_fault"]
    [told] = db.query(
        "SELECT e.reason, e.explanation FROM wa_outbound_queue q, explain_wa_message(q.id) e"
        " WHERE q.organization_id = %s LIMIT 1",
        neighbours.a,
    )
    assert told["reason"] == "fault"
    assert "integer out of range" in told["explanation"]
    assert not db.query("SELECT is_contended FROM get_wa_next_due()")[0]["is_contended"]
    db.query("DROP TRIGGER boom ON wa_queue_inflight")
    wait_until(lambda: len(db.query(CLAIMED)) == 30)


def test_a_claim_that_meets_a_lock_goes_on_with_the_others(
    neighbours: Neighbours, of_a: psycopg.Connection[Any]
) -> None:
    # What expired is failed by the claim, which writes to the ledger: that needs the template's row.
    neighbours.queue(1, 5)
    neighbours.db.query("UPDATE wa_queue_due SET expires_at = clock_timestamp() + interval '1 ms'")
    neighbours.db.query(
        "UPDATE wa_queue_due SET expires_at = 'infinity' WHERE organization_id = %s", neighbours.b
    )
    column(of_a, "SELECT 1 FROM wa_templates FOR UPDATE")
    with neighbours.hurried() as session:
        assert len(column(session, "SELECT queue_id FROM world.claim()")) == 5
        session.execute("SELECT world.maintain()")


@pytest.mark.parametrize(
    "lock",
    [
        "SELECT 1 FROM wa_outbound_queue FOR UPDATE",
        "SELECT 1 FROM wa_templates FOR UPDATE",
        "SELECT 1 FROM wa_conversation_windows FOR UPDATE",
    ],
)
def test_answers_wait_for_no_lock_and_are_recorded_when_it_is_gone(
    neighbours: Neighbours, of_a: psycopg.Connection[Any], lock: LiteralString
) -> None:
    db = neighbours.db
    neighbours.as_a("SELECT world.wrote(n) FROM generate_series(1, 5) n")
    neighbours.queue(1, 50)
    neighbours.as_a("SELECT world.say(n) FROM generate_series(1, 5) n")
    assert len(db.query(CLAIMED)) == 105
    column(of_a, lock)
    with neighbours.hurried() as session:
        session.execute(RESULTS)
        assert neighbours.states(neighbours.b) == {"sent"}
        late = db.query("SELECT count(*) AS n FROM wa_late_results")[0]["n"]
        sent = db.query("SELECT count(*) AS n FROM wa_outbound_queue WHERE status = 'sent'")[0]["n"]
        assert late + sent == 105
        # Nothing of what has an answer is taken for lost, however long the lock lasts.
        db.query("UPDATE wa_queue_inflight SET deadline_at = deadline_at - interval '1 hour'")
        session.execute("SELECT world.maintain()")
        assert not db.query("SELECT 1 FROM wa_queue_inflight WHERE is_unknown")
    of_a.rollback()

    def settled() -> bool:
        db.query("SELECT world.maintain()")
        return neighbours.states(neighbours.a) == {"sent"}

    wait_until(settled)
    assert not db.query("SELECT 1 FROM wa_queue_inflight UNION ALL SELECT 1 FROM wa_late_results")
    [row] = db.query(
        "SELECT count(DISTINCT wa_message_id) AS n FROM wa_messages WHERE direction = 'outbound'"
    )
    assert row["n"] == 105


def test_an_answer_that_cannot_be_recorded_is_kept_and_no_other(neighbours: Neighbours) -> None:
    db = neighbours.db
    neighbours.queue(1, 20)
    assert len(db.query(CLAIMED)) == 40
    neighbours.break_writes("wa_messages", "phone_e164", "+5491140000007")
    db.query(RESULTS)
    kept = db.query("SELECT sqlstate, error, tries FROM wa_late_results")
    assert kept == 2 * [{"sqlstate": "22003", "error": "integer out of range", "tries": 1}]
    assert db.query("SELECT count(*) AS n FROM wa_outbound_queue WHERE status = 'sent'")[0]["n"] == 38
    [told] = db.query(
        "SELECT DISTINCT e.reason, e.explanation FROM wa_outbound_queue q, explain_wa_message(q.id) e"
        " WHERE q.status = 'sending' AND q.organization_id = %s",
        neighbours.a,
    )
    assert "could not be recorded yet: integer out of range" in told["explanation"]
    [health] = db.query(
        "SELECT hold_reason, last_fault, late_results FROM wa_queue_health WHERE organization_id = %s",
        neighbours.a,
    )
    assert health["late_results"] == 1
    db.query("DROP TRIGGER boom ON wa_messages")

    def settled() -> bool:
        db.query("SELECT world.maintain()")
        return neighbours.states(neighbours.a) | neighbours.states(neighbours.b) == {"sent"}

    wait_until(settled)


def test_webhooks_wait_for_no_lock_and_are_applied_when_it_is_gone(
    neighbours: Neighbours, of_a: psycopg.Connection[Any]
) -> None:
    db = neighbours.db
    now = int(time.time())
    neighbours.as_a("SELECT world.wrote(1)")
    column(of_a, "SELECT 1 FROM wa_conversation_windows FOR UPDATE")
    phones = {n: row["p"][1:] for n in (1, 2) for row in db.query("SELECT world.customer(%s) AS p", n)}
    bodies = [
        message("wamid.a1", phones[1], now, content="STOP", number="100"),
        message("wamid.a2", phones[2], now, content="Hello", number="100"),
        message("wamid.b1", phones[1], now, content="Hello", number="300"),
    ]
    db.query("SELECT ingest_wa_webhooks(%s::bytea[], %s::text[])", bodies, ["x"] * len(bodies))
    with neighbours.hurried() as session:
        column(session, "SELECT process_wa_webhooks()")
    arrived = {row["m"] for row in db.query("SELECT wa_message_id AS m FROM wa_messages")}
    assert arrived == {"wamid.a2", "wamid.b1"}
    assert {row["s"] for row in db.query("SELECT sqlstate AS s FROM wa_webhook_errors")} == {"55P03"}
    of_a.rollback()
    db.query("UPDATE wa_webhook_errors SET try_at = clock_timestamp()")
    db.query("SELECT process_wa_webhooks()")
    neighbours.as_a("SELECT 1 / is_wa_opted_out(world.customer(1))::integer")
    assert not db.query("SELECT 1 FROM wa_webhook_errors WHERE resolved_at IS NULL")


@pytest.mark.parametrize("places", [(0,), (1, 60, 120, 300), tuple(range(0, 400, 40))])
def test_what_one_customers_lock_stops_is_his_alone(
    neighbours: Neighbours, of_a: psycopg.Connection[Any], places: tuple[int, ...]
) -> None:
    db = neighbours.db
    now = int(time.time())
    rows = db.query("SELECT world.customer(n) AS p FROM generate_series(1, 400) n")
    phones = [row["p"][1:] for row in rows]
    neighbours.as_a("SELECT world.wrote(n, '2 hours') FROM generate_series(1, 400) n")
    locked = [rows[place]["p"] for place in places]
    column(
        of_a,
        "SELECT 1 FROM wa_conversation_windows w JOIN wa_contacts c ON c.id = w.contact_id"
        " WHERE c.phone_e164 = ANY (%s) FOR UPDATE OF w",
        locked,
    )
    bodies = [
        message(f"wamid.{n}", phone, now, content="STOP", number="100") for n, phone in enumerate(phones)
    ]
    db.query("SELECT ingest_wa_webhooks(%s::bytea[], NULL)", bodies)

    def taken() -> bool:
        db.query("SELECT process_wa_webhooks()")
        gone = db.query("SELECT count(DISTINCT contact_id) AS n FROM wa_opt_outs")[0]["n"]
        return gone == 400 - len(places)

    wait_until(taken, 120)
    of_a.rollback()

    def all_taken() -> bool:
        db.query("UPDATE wa_webhook_errors SET try_at = clock_timestamp()")
        db.query("SELECT process_wa_webhooks()")
        return db.query("SELECT count(DISTINCT contact_id) AS n FROM wa_opt_outs")[0]["n"] == 400

    wait_until(all_taken, 120)
    assert not db.query("SELECT 1 FROM wa_webhook_errors WHERE resolved_at IS NULL")


def keep_one(neighbours: Neighbours, of_a: psycopg.Connection[Any], result: str) -> None:
    """One message of A whose answer waits, because somebody had its row locked."""
    neighbours.as_a("SELECT world.queue(1)")
    neighbours.db.query(CLAIMED)
    column(of_a, "SELECT 1 FROM wa_outbound_queue FOR UPDATE")
    neighbours.db.query(f"SELECT {result} FROM wa_outbound_queue")
    assert neighbours.db.query("SELECT 1 FROM wa_late_results")
    of_a.rollback()


def test_what_has_an_answer_that_waits_is_not_sent_again(
    neighbours: Neighbours, of_a: psycopg.Connection[Any]
) -> None:
    db = neighbours.db
    keep_one(neighbours, of_a, "world.accept(id)")
    db.query("UPDATE wa_queue_inflight SET deadline_at = clock_timestamp()")
    # What a dispatcher does that lost its connection, and one that comes by.
    db.query("SELECT release_wa_claims('00000000-0000-0000-0000-000000000001', '{}')")
    db.query("SELECT world.maintain()")
    assert db.query(CLAIMED) == []
    db.query("UPDATE wa_late_results SET try_at = clock_timestamp()")
    db.query("SELECT world.maintain()")
    assert db.query("SELECT status, attempt FROM wa_outbound_queue") == [{"status": "sent", "attempt": 1}]


@pytest.mark.parametrize("first", [True, False])
def test_of_two_results_that_wait_the_one_counts_that_allows_less(
    neighbours: Neighbours, of_a: psycopg.Connection[Any], first: bool
) -> None:
    db = neighbours.db
    unknown = """world.complete(id, '{"outcome": "unknown"}')"""
    unstarted = """world.complete(id, '{"outcome": "not_started"}')"""
    keep_one(neighbours, of_a, f"{unknown}, {unstarted}" if first else f"{unstarted}, {unknown}")
    db.query("UPDATE wa_late_results SET try_at = clock_timestamp()")
    db.query("SELECT world.maintain()")
    assert db.query(CLAIMED) == []
    assert db.query("SELECT is_unknown FROM wa_queue_inflight") == [{"is_unknown": True}]


def test_a_result_of_an_earlier_attempt_leaves_the_next_one_alone(
    neighbours: Neighbours, of_a: psycopg.Connection[Any]
) -> None:
    db = neighbours.db
    neighbours.as_a("SELECT world.queue(1)")
    db.query(CLAIMED)
    db.query("""SELECT world.complete(id, '{"outcome": "not_started"}', 1) FROM wa_outbound_queue""")
    wait_until(lambda: db.query(CLAIMED))
    db.query("SELECT _wa_note_fault(%s, 'result', '', '55P03', 'locked')", neighbours.a)
    db.query("""SELECT world.complete(id, '{"outcome": "not_started"}', 1) FROM wa_outbound_queue""")
    db.query("DELETE FROM wa_faults")
    db.query("UPDATE wa_late_results SET try_at = clock_timestamp()")
    db.query("UPDATE wa_queue_inflight SET deadline_at = clock_timestamp()")
    db.query("SELECT world.maintain()")
    assert not db.query("SELECT 1 FROM wa_late_results")
    assert db.query("SELECT attempt, is_unknown FROM wa_queue_inflight") == [
        {"attempt": 2, "is_unknown": True}
    ]


def test_an_open_charge_to_the_minute_stops_no_claim(
    neighbours: Neighbours, of_a: psycopg.Connection[Any]
) -> None:
    neighbours.db.query("UPDATE wa_organizations SET rate_limit_per_minute = 50")
    neighbours.queue(1, 10)
    of_a.execute("INSERT INTO rate_limits (service, endpoint, count) VALUES ('whatsapp', 'send_message', 5)")
    with neighbours.hurried() as session:
        assert len(column(session, "SELECT queue_id FROM world.claim()")) == 20
    of_a.commit()
    neighbours.queue(11, 100)
    assert len([row for row in neighbours.db.query(CLAIMED) if row["org"] == neighbours.a]) == 50 - 10 - 5


def test_answers_do_not_wait_for_a_webhook_that_settles_the_same_row(
    neighbours: Neighbours, session: Session
) -> None:
    db = neighbours.db
    neighbours.queue(1, 5)
    assert len(db.query(CLAIMED)) == 10
    processor = session()
    processor.execute(
        "SELECT _wa_settle_from_callback(organization_id, ARRAY[id], ARRAY[1], ARRAY['wamid.' || id])"
        " FROM wa_outbound_queue WHERE organization_id = %s AND reference = '1'",
        (neighbours.b,),
    )
    with neighbours.hurried() as dispatcher:
        column(dispatcher, RESULTS)
    assert neighbours.states(neighbours.a) == {"sent"}
    processor.commit()
    db.query("UPDATE wa_late_results SET try_at = clock_timestamp()")
    db.query("SELECT world.maintain()")
    assert neighbours.states(neighbours.b) == {"sent"}
    assert db.query("SELECT count(*) AS n FROM wa_messages") == [{"n": 10}]


def test_kept_answers_of_one_hide_none_of_the_other(neighbours: Neighbours) -> None:
    db = neighbours.db
    neighbours.as_b("SELECT world.queue(1)")
    assert len(db.query(CLAIMED)) == 1
    db.query(
        "INSERT INTO wa_late_results (organization_id, queue_id, attempt, result, sqlstate, try_at)"
        " SELECT %s, gen_random_uuid(), 1, '{}', '55P03', clock_timestamp() - interval '1 hour'"
        " FROM generate_series(1, 1500)",
        neighbours.a,
    )
    db.query(
        "SELECT _wa_note_fault(%s, 'result', '', '55P03', 'locked') FROM generate_series(1, 5)", neighbours.a
    )
    db.query(
        "SELECT _wa_keep_results(i.organization_id, jsonb_build_array(jsonb_build_object("
        " 'id', i.queue_id, 'org', i.organization_id, 'attempt', 1, 'outcome', 'answered', 'status', 200,"
        " 'answer', jsonb_build_object('messages', '[{\"id\": \"wamid.b\"}]'::jsonb))), '55P03', 'locked')"
        " FROM wa_queue_inflight i"
    )
    db.query("UPDATE wa_late_results SET try_at = clock_timestamp() WHERE organization_id = %s", neighbours.b)
    db.query("SELECT world.maintain()")
    assert neighbours.states(neighbours.b) == {"sent"}


def test_nobody_but_the_owner_reaches_what_one_session_at_a_time_holds(
    neighbours: Neighbours, make_role: Callable[..., str]
) -> None:
    for group in ("wa_app", "wa_analyst", "wa_admin", "wa_dispatcher", "wa_receiver"):
        with (
            neighbours.db.connect(user=make_role(group)) as session,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            session.execute("SELECT 1 FROM wa_locks FOR UPDATE")


@pytest.mark.parametrize("key", ["wa_webhooks", "wa_rollups", "wa_events "])
def test_advisory_locks_of_others_stop_nothing(
    neighbours: Neighbours, of_a: psycopg.Connection[Any], key: str
) -> None:
    of_a.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (key,))
    of_a.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (key + neighbours.b,))
    with neighbours.hurried() as session:
        column(session, "SELECT process_wa_webhooks()")
        column(session, "SELECT world.maintain()")
        column(session, "SELECT roll_up_wa_analytics()")
        session.execute("SELECT set_config('wa.organization_id', %s, false)", (neighbours.b,))
        column(session, "SELECT position FROM read_wa_events('consumer')")


def test_large_bodies_are_taken_in_parts(neighbours: Neighbours) -> None:
    db = neighbours.db
    now = int(time.time())
    [row] = db.query("SELECT world.customer(1) AS p")
    bodies = [
        message(f"wamid.{n}", row["p"][1:], now, content="x" * 6_000_000, number="100") for n in range(6)
    ]
    for one in bodies:
        db.query("SELECT ingest_wa_webhook(%s::bytea)", one)
    handled = []
    while taken := db.query("SELECT process_wa_webhooks(1000) AS n")[0]["n"]:
        handled.append(taken)
    assert handled == [2, 2, 2]
    assert db.query("SELECT replay_wa_webhooks(ARRAY(SELECT id FROM wa_webhook_logs)) AS n")[0]["n"] == 6


def test_an_answer_that_can_never_be_recorded_ends_as_unknown(neighbours: Neighbours) -> None:
    """Two messages with one id, as a cache between us and the provider would answer."""
    neighbours.queue(1, 2)
    with neighbours.db.connect() as session:
        claimed = column(session, "SELECT queue_id FROM world.claim()")
        for id in claimed:
            session.execute("SELECT world.accept(%s, 'wamid.same')", (id,))
        stuck: LiteralString = "SELECT queue_id FROM wa_late_results"
        assert len(column(session, stuck)) == len(claimed) - 2
        for _ in range(11):
            session.execute("UPDATE wa_late_results SET try_at = clock_timestamp()")
            session.execute("SELECT world.maintain()")
        assert column(session, stuck) == []
        unknown: LiteralString = "SELECT count(*) FROM wa_queue_inflight WHERE is_unknown"
        assert column(session, unknown) == [len(claimed) - 2]
