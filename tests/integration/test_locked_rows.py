"""Rows that an application has locked for long: they wait alone, and hide no others.

Tests sql/sending/lane.sql, sql/sending/holds.sql.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
from harness import Database
from sessions import Blocked, column
from simulated import wait_until

LOCK: LiteralString = "SELECT 1 FROM wa_outbound_queue WHERE reference::integer BETWEEN %s AND %s FOR UPDATE"
SENT: LiteralString = (
    "SELECT reference::integer AS n FROM wa_outbound_queue WHERE status <> 'pending' ORDER BY 1"
)
Session = Callable[[], psycopg.Connection[Any]]


def claim_until(world: Database, limit: int, expected: list[int]) -> None:
    """Claim as a dispatcher does until these have been handed out, and no others."""

    def claimed() -> bool:
        world.query("SELECT count(*) FROM world.claim(%s)", limit)
        return len(sent(world)) >= len(expected)

    wait_until(claimed)
    assert sent(world) == expected


def sent(world: Database) -> list[int]:
    return [row["n"] for row in world.query(SENT)]


def test_more_rows_than_a_claim_reads_are_locked_before_those_whose_cause_has_gone(
    world: Database, session: Session
) -> None:
    world.query("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
    world.query("UPDATE wa_portfolios SET tier_limit = 1")
    world.query("SELECT world.queue(n) FROM generate_series(1, 2) n")
    claim_until(world, 10, [1])
    world.query("SELECT world.wrote(n), world.say(n) FROM generate_series(101, 300) n")
    world.query("SELECT count(world.queue(n)) FROM generate_series(401, 430) n")
    locker = session()
    column(locker, LOCK, 101, 300)
    for _ in range(5):
        world.query("SELECT count(*) FROM world.claim(10)")
    world.query("UPDATE wa_portfolios SET tier_limit = NULL")
    claim_until(world, 10, [1, 2, *range(401, 431)])
    # The first claims of a dispatcher that has nothing else to do look at all of them; then it may rest.
    wait_until(
        lambda: (
            not world.query("SELECT is_skipping FROM wa_lane_states")[0]["is_skipping"]
            or (world.query("SELECT count(*) FROM world.claim(10)") and False)
        )
    )
    assert not world.query("SELECT is_sifting FROM get_wa_next_due()")[0]["is_sifting"]
    locker.rollback()
    claim_until(world, 10, [1, 2, *range(101, 301), *range(401, 431)])


def test_what_commits_late_is_found_while_less_than_the_minute_is_left(
    world: Database, session: Session
) -> None:
    world.query("UPDATE wa_organizations SET rate_limit_per_minute = 30")
    first, second = session(), session()
    first.execute("SELECT world.queue(1)")
    second.execute("SELECT world.queue(2)")
    world.query("SELECT world.queue(3)")
    claim_until(world, 100, [3])
    second.commit()
    claim_until(world, 100, [2, 3])
    first.commit()
    claim_until(world, 100, [1, 2, 3])


def test_the_places_of_a_limit_go_to_those_behind_locked_ones(world: Database, session: Session) -> None:
    world.query("UPDATE wa_portfolios SET tier_limit = 1")
    world.query("SELECT count(world.queue(n)) FROM generate_series(1, 9) n")
    claim_until(world, 100, [1])
    locker = session()
    column(locker, LOCK, 2, 5)
    world.query("UPDATE wa_portfolios SET tier_limit = 3")
    claim_until(world, 100, [1, 6, 7])
    locker.rollback()
    world.query("UPDATE wa_portfolios SET tier_limit = 5")
    claim_until(world, 100, [1, 2, 3, 6, 7])


def test_locked_ones_of_a_hold_that_opens_are_passed_by_and_come_up_again(
    world: Database, session: Session
) -> None:
    world.query("UPDATE wa_phone_numbers SET templates_blocked_until = clock_timestamp() + interval '1 hour'")
    world.query("SELECT count(world.queue(n)) FROM generate_series(1, 20) n")
    claim_until(world, 100, [])
    locker = session()
    column(locker, LOCK, 1, 10)
    world.query("UPDATE wa_phone_numbers SET templates_blocked_until = NULL")
    claim_until(world, 4, [*range(11, 21)])
    locker.rollback()
    claim_until(world, 4, [*range(1, 21)])
    claim_until(world, 4, [*range(1, 21)])
    assert world.query("SELECT * FROM wa_queue_holds") == []


def test_one_locked_message_to_a_recipient_keeps_its_order_and_nobody_busy(
    world: Database, session: Session
) -> None:
    world.query("SELECT world.wrote(1), world.say(1, n::text) FROM generate_series(1, 46) n")
    assert world.query("SELECT count(*) FROM world.claim()")[0]["count"] == 45
    world.query("SELECT world.say(1, 'behind'), world.accept_all()")
    world.query("SELECT world.later('10 minutes')")
    locker = session()
    column(locker, "SELECT 1 FROM wa_outbound_queue WHERE text_body = '46' FOR UPDATE")

    def rests() -> bool:
        assert world.query("SELECT count(*) FROM world.claim()")[0]["count"] == 0
        # Within the second for which it is left alone.
        return world.query(
            "SELECT NOT is_contended AND next_due_at > clock_timestamp() AS rests FROM get_wa_next_due()"
        )[0]["rests"]

    wait_until(rests)
    locker.rollback()
    wait_until(lambda: world.query("SELECT count(*) FROM world.claim()")[0]["count"] > 0)
    bodies = world.query("SELECT text_body AS b FROM wa_outbound_queue WHERE status = 'sending' ORDER BY id")
    assert [row["b"] for row in bodies] == ["46", "behind"]


def test_an_open_cancel_of_a_row_in_a_hold_stops_no_claim(world: Database, session: Session) -> None:
    world.query("UPDATE wa_portfolios SET tier_limit = 1")
    world.query("SELECT world.queue(9)")
    claim_until(world, 100, [9])
    ids = world.query("SELECT world.queue(1) AS id, world.queue(1) AS other")[0]
    claim_until(world, 100, [9])
    canceller = session()
    canceller.execute("UPDATE wa_outbound_queue SET status = 'cancelled' WHERE id = %s", (ids["other"],))
    with world.connect(options="-c lock_timeout=60s") as claimer:
        claimer.execute("UPDATE wa_portfolios SET tier_limit = 100")
        assert column(claimer, "SELECT queue_id FROM world.claim()") == [ids["id"]]
    canceller.rollback()
    # It goes on after the answer to the one before, however long this took.
    world.query("SELECT world.accept_all()")
    wait_until(lambda: world.query("SELECT * FROM world.claim()") != [])


def test_locked_expired_rows_let_others_expire(world: Database, session: Session) -> None:
    world.query("SELECT count(world.queue(n)) FROM generate_series(1, 230) n")
    world.query(
        "UPDATE wa_outbound_queue"
        " SET expires_at = clock_timestamp() - interval '1 minute' * (300 - reference::int)"
    )
    locker = session()
    column(locker, LOCK, 1, 210)
    assert world.query("SELECT world.maintain() ->> 'expired' AS n")[0]["n"] == "20"
    assert sent(world) == [*range(211, 231)]


def test_a_delivery_that_is_told_while_the_next_message_is_claimed_lets_go_of_it(
    world: Database, session: Session
) -> None:
    world.query("UPDATE wa_organizations SET order_mode = 'delivered', order_wait = '10 minutes'")
    world.query("SELECT world.wrote(1), world.say(1, 'first')")
    world.query("SELECT world.claim(), world.accept_all()")
    world.query("SELECT world.accept_all()")
    world.query("SELECT world.say(1, 'second')")
    told: LiteralString = (
        "WITH m AS (UPDATE wa_messages SET state = 'delivered' RETURNING organization_id, id)"
        " SELECT _wa_release_after_status(m.organization_id, array_agg(m.id)) FROM m"
        " GROUP BY m.organization_id"
    )
    # The claim comes first: the status waits for it, and finds what it held.
    claimer = session()
    assert column(claimer, "SELECT queue_id FROM world.claim()") == []
    status = session()
    waiting = Blocked(world, status, told)
    claimer.commit()
    waiting.finish()
    status.commit()
    assert world.query("SELECT count(*) FROM world.claim()")[0]["count"] == 1
    # The status comes first: the claim leaves the recipient alone, and the next one sees it.
    world.query("SELECT world.accept_all(), world.say(1, 'third')")
    status = session()
    status.execute(told)
    assert world.query("SELECT count(*) FROM world.claim()")[0]["count"] == 0
    status.commit()
    wait_until(lambda: world.query("SELECT count(*) FROM world.claim()")[0]["count"] == 1)
