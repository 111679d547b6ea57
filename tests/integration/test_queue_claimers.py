"""Many sessions that claim at once: limits hold exactly, and no message is handed out twice."""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString

import psycopg
import pytest
from harness import CHECKOUT, Database
from simulated import wait_until

CLAIMERS = 6
FIRST_CLAIMER = "00000000-0000-0000-0000-000000000000"
Granted = list[tuple[str, int]]


@pytest.fixture
def world(db: Database) -> Database:
    """A database with the templates and shorthands of the pgTAP tests, and three numbers in one account."""
    with db.connect() as connection:
        connection.execute((CHECKOUT / "tests/pgtap/world.psql").read_bytes())
        connection.execute("SELECT register_wa_phone_number('101', '+1 555 123 4568', '200')")
        connection.execute("SELECT register_wa_phone_number('102', '+1 555 123 4569', '200')")
    return db


def queue(world: Database, count: int, template: str = "hello") -> None:
    """So many messages to as many customers, spread over the three numbers."""
    world.query(
        "INSERT INTO wa_outbound_queue (phone, template_name, template_params, phone_number_id, priority)"
        " SELECT world.customer(n), %s, CASE %s WHEN 'code' THEN '[\"1\"]'::jsonb END, (100 + n %% 3)::text,"
        " (ARRAY['high', 'normal', 'low'])[1 + n %% 5 %% 3] FROM generate_series(1, %s) n",
        template,
        template,
        count,
    )


def claim(connection: psycopg.Connection[Any], dispatcher: str, limit: int) -> list[dict[str, Any]]:
    """What one claim grants, as the results that complete_wa_messages() takes."""
    rows = connection.execute(
        "SELECT queue_id, organization_id, attempt FROM claim_wa_messages(%s, %s)", (dispatcher, limit)
    ).fetchall()
    return [{"id": str(row[0]), "org": str(row[1]), "attempt": row[2]} for row in rows]


def together(world: Database, work: Callable[[psycopg.Connection[Any], str], Granted]) -> Granted:
    """Run the work in as many sessions as there are claimers; what all of them were granted."""

    def one(n: int) -> Granted:
        with world.connect() as connection:
            return work(connection, f"00000000-0000-0000-0000-{n:012d}")

    with ThreadPoolExecutor(CLAIMERS) as pool:
        return [grant for grants in pool.map(one, range(CLAIMERS)) for grant in grants]


def until_empty(limit: int, tries: int = 12) -> Callable[[psycopg.Connection[Any], str], Granted]:
    """Claims until nothing came so many times running: lanes that another session holds are passed over."""

    def work(connection: psycopg.Connection[Any], dispatcher: str) -> Granted:
        granted: Granted = []
        empty = 0
        while empty < tries:
            rows = claim(connection, dispatcher, limit)
            granted += [(row["id"], row["attempt"]) for row in rows]
            empty = 0 if rows else empty + 1
        return granted

    return work


def assert_granted_once(granted: Granted) -> None:
    assert [grant for grant, n in Counter(granted).items() if n > 1] == []


def test_an_organization_gets_its_fifty_a_minute_however_many_claim(world: Database) -> None:
    world.query("UPDATE wa_organizations SET rate_limit_per_minute = 50")
    queue(world, 300)
    granted = together(world, until_empty(7))
    assert_granted_once(granted)
    assert len(granted) == 50
    world.query("SELECT world.later('61 seconds')")
    assert len(together(world, until_empty(20))) == 50


def test_authentication_does_not_wait_behind_what_waits_for_the_minute(world: Database) -> None:
    world.query("UPDATE wa_organizations SET rate_limit_per_minute = 50")
    world.query("UPDATE wa_phone_numbers SET throughput = 1000")
    queue(world, 120)
    assert len(together(world, until_empty(20))) == 50
    world.query("SELECT world.accept_all()")
    queue(world, 120, "code")
    granted = together(world, until_empty(20))
    assert_granted_once(granted)
    assert len(granted) == 120


def test_a_number_never_sends_more_in_a_second_than_it_may(world: Database) -> None:
    world.query("UPDATE wa_phone_numbers SET throughput = 20")
    queue(world, 180)
    slots: list[tuple[str, float]] = []

    def work(connection: psycopg.Connection[Any], dispatcher: str) -> Granted:
        for _ in range(30):
            # When each message may start, by the clock of the database.
            slots.extend(
                connection.execute(
                    "WITH asked AS MATERIALIZED (SELECT clock_timestamp() AS at)"
                    " SELECT c.phone_number_id, extract(epoch FROM a.at)::float8 + c.start_in_s"
                    " FROM asked a, claim_wa_messages(%s, 9) c",
                    (dispatcher,),
                ).fetchall()
            )
        return []

    while len(slots) < 180:
        together(world, work)
    assert len(slots) == 180
    for number in ("100", "101", "102"):
        times = sorted(at for of, at in slots if of == number)
        assert max(bisect_right(times, at + 1.0) - n for n, at in enumerate(times)) <= 20


def test_a_portfolio_writes_to_no_more_recipients_than_it_may(world: Database) -> None:
    world.query("UPDATE wa_portfolios SET tier_limit = 25")
    queue(world, 120)
    granted = together(world, until_empty(4))
    assert_granted_once(granted)
    assert len(granted) == 25
    why = (
        "SELECT DISTINCT reason FROM wa_outbound_queue q, explain_wa_message(q.id) WHERE q.status = 'pending'"
    )
    with world.connect() as alone:

        def all_held() -> bool:
            # The last of many may have passed over what another session held just then.
            assert claim(alone, FIRST_CLAIMER, 4) == []
            return world.query(why) == [{"reason": "messaging_limit"}]

        wait_until(all_held)


def test_a_recipient_gets_a_burst_of_45_in_order_however_many_claim(world: Database) -> None:
    world.query("SELECT world.wrote(1)")
    world.query(
        "INSERT INTO wa_outbound_queue (phone, text_body)"
        " SELECT world.customer(1), n::text FROM generate_series(1, 100) n"
    )

    def work(connection: psycopg.Connection[Any], dispatcher: str) -> Granted:
        granted: Granted = []
        for _ in range(30):
            rows = claim(connection, dispatcher, 5)
            granted += [(row["id"], row["attempt"]) for row in rows]
            for row in rows:
                row |= {
                    "outcome": "answered",
                    "status": 200,
                    "answer": {"messages": [{"id": "w" + row["id"]}]},
                }
            connection.execute("SELECT complete_wa_messages(%s, %s)", (dispatcher, json.dumps(rows)))
        return granted

    granted = together(world, work)
    assert_granted_once(granted)
    assert 1 <= len(granted) <= 45
    sent = world.query(
        "SELECT text_body::int AS n FROM wa_outbound_queue WHERE status = 'sent' ORDER BY claimed_at, id"
    )
    assert [row["n"] for row in sent] == list(range(1, len(granted) + 1))


OUTCOMES: tuple[dict[str, Any], ...] = (
    {"outcome": "answered", "status": 200},
    {"outcome": "answered", "status": 200},
    {"outcome": "answered", "status": 500, "answer": {"error": {"code": 131000}}},
    {"outcome": "answered", "status": 400, "answer": {"error": {"code": 131026}}},
    {"outcome": "not_started"},
    {"outcome": "not_sent"},
    {"outcome": "unknown"},
)
MEDDLING: tuple[LiteralString, ...] = (
    "SELECT cancel_wa_messages(phone => world.customer(%s))",
    "SELECT retry_wa_messages(phone => world.customer(%s))",
    "SELECT reschedule_wa_messages(clock_timestamp(), phone => world.customer(%s))",
    "SELECT opt_out_wa_contact(world.customer(%s), 'marketing')",
    "SELECT world.queue(%s, 'hello')",
    # All in one call, which locks them in order; a call for each row would not.
    "SELECT _wa_settle_from_callback(organization_id, array_agg(id), array_agg(attempt),"
    " array_agg('echo.' || id)) FROM wa_outbound_queue WHERE phone = world.customer(%s)"
    " AND status = 'sending' GROUP BY organization_id",
)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_at_once_a_row_stands_in_one_place(world: Database, seed: int) -> None:
    world.query("UPDATE wa_phone_numbers SET throughput = 1000")
    queue(world, 60)

    def work(connection: psycopg.Connection[Any], dispatcher: str) -> Granted:
        dice = random.Random(f"{seed} {dispatcher}")  # noqa: S311
        granted: Granted = []
        for _ in range(40):
            rows = claim(connection, dispatcher, dice.randint(1, 8))
            granted += [(row["id"], row["attempt"]) for row in rows]
            for row in rows:
                row |= dice.choice(OUTCOMES)
                row.setdefault("answer", {"messages": [{"id": f"w.{row['id']}.{row['attempt']}"}]})
            results = json.dumps(rows * dice.choice((1, 2)))
            connection.execute("SELECT complete_wa_messages(%s, %s)", (dispatcher, results))
            connection.execute(dice.choice(MEDDLING), (dice.randint(1, 60),))
            connection.execute("SELECT maintain_wa_dispatch(%s)", (dispatcher,))
        return granted

    granted = together(world, work)
    assert_granted_once(granted)
    astray = world.query(
        "SELECT q.id, q.status, d.queue_id IS NOT NULL AS due, i.queue_id IS NOT NULL AS in_flight"
        " FROM wa_outbound_queue q LEFT JOIN wa_queue_due d ON d.queue_id = q.id"
        " LEFT JOIN wa_queue_inflight i ON i.queue_id = q.id"
        " WHERE (q.status = 'pending') <> (d.queue_id IS NOT NULL)"
        " OR (q.status = 'sending') <> (i.queue_id IS NOT NULL) OR i.attempt <> q.attempt"
    )
    assert astray == []
    wrong = world.query(
        "SELECT q.id, q.status, m.status AS in_ledger, m.wa_message_id FROM wa_outbound_queue q"
        " LEFT JOIN wa_messages m ON m.queue_id = q.id WHERE q.status IN ('sent', 'failed')"
        " AND (m.status, m.wa_message_id) IS DISTINCT FROM (q.status, q.wa_message_id)"
    )
    assert wrong == []


def test_batches_that_share_recipients_and_mix_answers_never_wait_for_each_other(world: Database) -> None:
    """Accepted ones and those that need a template, or a rest, write to the same conversations."""
    customers = 20
    world.query("SELECT world.wrote(n) FROM generate_series(1, %s) n", customers)
    world.query(
        "INSERT INTO wa_outbound_queue (phone, text_body) SELECT world.customer(1 + n %% %s), 'Hello'"
        " FROM generate_series(1, %s) n",
        customers,
        20 * customers,
    )
    world.query("UPDATE wa_phone_numbers SET throughput = 10000")
    with world.connect() as connection:
        granted = claim(connection, FIRST_CLAIMER, 20 * customers + 1)
    assert len(granted) == 20 * customers
    chance = random.Random(1)  # noqa: S311
    answers = [
        {"status": 200, "answer": {"messages": [{"id": ""}]}},
        {"status": 400, "answer": {"error": {"code": 131047, "message": "re-engagement"}}},
        {"status": 400, "answer": {"error": {"code": 131056, "message": "pair rate"}}},
    ]
    results = [row | {"outcome": "answered"} | chance.choice(answers) for row in granted]
    for result in results:
        if result["status"] == 200:
            result["answer"] = {"messages": [{"id": f"wamid.{result['id']}"}]}
    chance.shuffle(results)

    def report(n: int) -> int:
        with world.connect() as connection:
            recorded = 0
            for start in range(0, len(results[n::CLAIMERS]), 20):
                part = results[n::CLAIMERS][start : start + 20]
                row = connection.execute(
                    "SELECT complete_wa_messages(%s, %s)", (FIRST_CLAIMER, json.dumps(part))
                ).fetchone()
                recorded += row[0] if row else 0
            return recorded

    with ThreadPoolExecutor(CLAIMERS) as pool:
        assert sum(pool.map(report, range(CLAIMERS))) == len(results)
    assert world.query("SELECT count(*) FROM wa_queue_inflight") == [{"count": 0}]
