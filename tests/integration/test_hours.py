"""Quiet hours against Python's own time zones, caps under many dispatchers, and what waits for the hour.

Tests sql/extension/hours.sql, sql/hours/waits.sql, sql/hours/rules.sql.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from faults import journal
from harness import CHECKOUT, Database
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from simulated import SimulatorProcess, wait_until
from wa_process import WaProcess

ZONES = [
    "Europe/Madrid", "Atlantic/Canary", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe",
    "Asia/Kolkata", "Pacific/Chatham", "Africa/Casablanca",
]  # fmt: skip
#: Some hours before the clocks of those zones are changed, and a day on which none is.
NIGHTS = [
    datetime.fromisoformat(f"2026-{day}T12:00+00:00")
    for day in ["02-14", "03-07", "03-21", "03-28", "04-04", "06-01", "09-26", "10-03", "10-24", "10-31"]
]
MINUTE = timedelta(minutes=1)
MINUTES = st.integers(0, 1439).map(lambda m: time(m // 60, m % 60))
Period = tuple[set[int], time, time]
DISPATCHERS = 4


def is_quiet(periods: list[Period], holidays: list[date], zones: list[str], at: datetime) -> bool:
    """Whether a clock of the zones shows a quiet time, in Python's words."""
    for zone in zones:
        local = at.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        if local.date() in holidays:
            return True
        for days, begins, ends in periods:
            today, yesterday = local.isoweekday() in days, (local - timedelta(days=1)).isoweekday() in days
            if begins < ends:
                if today and begins <= local.time() < ends:
                    return True
            elif (today and begins <= local.time()) or (yesterday and local.time() < ends):
                return True
    return False


@pytest.fixture
def connection(make_database: Callable[..., Database]) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database that has the extension and nothing else."""
    with make_database(bare=True).connect() as made:
        made.execute("CREATE EXTENSION IF NOT EXISTS pg_whatsapp CASCADE")
        made.execute("SET TimeZone = 'UTC'")
        yield made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=120)
@given(
    zones=st.lists(st.sampled_from(ZONES), min_size=1, max_size=3, unique=True),
    periods=st.lists(
        st.tuples(st.sets(st.integers(1, 7), min_size=1), MINUTES, MINUTES).filter(lambda p: p[1] != p[2]),
        max_size=3,
    ),
    holidays=st.lists(st.sampled_from([night.date() + timedelta(days=1) for night in NIGHTS]), max_size=2),
    at=st.tuples(st.sampled_from(NIGHTS), st.integers(0, 1500)).map(lambda t: t[0] + t[1] * MINUTE),
)
@example([ZONES[0]], [({6, 7}, time(21), time(2, 30))], [], datetime(2026, 3, 28, 22, tzinfo=UTC))
@example([ZONES[0]], [({6, 7}, time(2, 30), time(8))], [], datetime(2026, 10, 25, 0, 40, tzinfo=UTC))
@example([ZONES[4]], [(set(range(1, 8)), time(1, 45), time(8))], [], datetime(2026, 4, 4, 14, tzinfo=UTC))
@example([ZONES[6]], [(set(range(1, 8)), time(2, 50), time(3, 40))], [], datetime(2026, 4, 4, 13, tzinfo=UTC))
@example([ZONES[6]], [(set(range(1, 8)), time(22), time(2, 50))], [], datetime(2026, 9, 26, 12, tzinfo=UTC))
@example([ZONES[4], ZONES[6]], [({7}, time(1, 30), time(3))], [], datetime(2026, 10, 3, 14, tzinfo=UTC))
def test_the_first_moment_that_every_clock_allows(
    connection: psycopg.Connection[Any],
    zones: list[str],
    periods: list[Period],
    holidays: list[date],
    at: datetime,
) -> None:
    """Never inside a quiet time, and never a minute later than has to be, also over changes of the clock."""
    row = connection.execute(
        "SELECT _wa_allowed_from(%s::integer[], %s::time[], %s::time[], %s::date[], %s::text[], 0, %s)",
        (
            [sum(1 << day for day in days) for days, _, _ in periods],
            [begins for _, begins, _ in periods],
            [ends for _, _, ends in periods],
            holidays,
            zones,
            at,
        ),
    ).fetchone()
    assert row
    (allowed,) = row
    minutes = int(((allowed or at + timedelta(days=14)) - at) / MINUTE)
    assert all(is_quiet(periods, holidays, zones, at + n * MINUTE) for n in range(minutes))
    if allowed:
        assert not is_quiet(periods, holidays, zones, allowed)


@pytest.fixture
def world(db: Database) -> Database:
    """A database with the templates and shorthands of the pgTAP tests, and three numbers in one account."""
    with db.connect() as made:
        made.execute((CHECKOUT / "tests/pgtap/world.psql").read_bytes())
        for n in (1, 2):
            made.execute("SELECT register_wa_phone_number(%s, %s, '200')", (f"10{n}", f"+1 555 123 456{n}"))
        made.execute("UPDATE wa_phone_numbers SET throughput = 100000")
        made.execute("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
    return db


def test_a_cap_is_exact_however_many_claim(world: Database) -> None:
    """Forty messages to each of ten contacts, a third of which fail: three arrive, no fourth."""
    world.query("INSERT INTO wa_contact_caps (purpose, messages, days) VALUES ('marketing', 3, 7)")
    world.query(
        "INSERT INTO wa_outbound_queue (phone, template_name, phone_number_id, expires_at)"
        " SELECT world.customer(c), 'sale', (100 + n % 3)::text, clock_timestamp() + interval '30 days'"
        " FROM generate_series(1, 10) c, generate_series(1, 40) n"
    )

    def work(n: int) -> None:
        chance = random.Random(n)  # noqa: S311
        dispatcher = f"00000000-0000-0000-0000-{n:012d}"
        with world.connect() as made:
            for _ in range(25):
                claimed = made.execute(
                    "SELECT queue_id FROM claim_wa_messages(%s, %s)", (dispatcher, chance.choice((1, 3, 20)))
                ).fetchall()
                for (queue_id,) in claimed:
                    if chance.random() < 1 / 3:
                        made.execute("SELECT world.refuse(%s, 131026)", (queue_id,))
                    else:
                        made.execute("SELECT world.accept(%s)", (queue_id,))

    arrived = (
        "SELECT count(*) AS n FROM wa_messages WHERE state <> 'failed'"
        " GROUP BY contact_id ORDER BY contact_id"
    )
    for _ in range(6):
        with ThreadPoolExecutor(DISPATCHERS) as pool:
            list(pool.map(work, range(1, DISPATCHERS + 1)))
        assert max(row["n"] for row in world.query(arrived)) <= 3
        if [row["n"] for row in world.query(arrived)] == [3] * 10:
            break
        # What waits a minute because something was on its way.
        world.query("SELECT world.later('61 seconds')")
    assert [row["n"] for row in world.query(arrived)] == [3] * 10
    # What is left waits, and more claims find no fourth place.
    with ThreadPoolExecutor(DISPATCHERS) as pool:
        list(pool.map(work, range(1, DISPATCHERS + 1)))
    assert [row["n"] for row in world.query(arrived)] == [3] * 10
    (waiting,) = world.query("SELECT count(*) AS n FROM wa_queue_due WHERE hold_reason = 'contact_cap'")
    assert waiting["n"] > 0
    plan = world.query(
        "EXPLAIN (FORMAT JSON) SELECT * FROM _wa_sends_of("
        "current_wa_organization(), 1, 'marketing', 1, now() - interval '7 days')"
    )
    assert "wa_messages_contact_idx" in str(plan)


def test_many_that_are_let_go_at_once_go_in_batches_and_stop_nobody(world: Database) -> None:
    """Two and a half batches that wait for the hour when the rule goes: claims go on beside the heartbeat."""
    world.query("INSERT INTO wa_quiet_hours (from_time, to_time) VALUES ('00:00', '24:00')")
    world.query(
        "INSERT INTO wa_outbound_queue (phone, template_name)"
        " SELECT world.customer(n), 'sale' FROM generate_series(1, 2500) n"
    )
    world.query("DELETE FROM wa_quiet_hours")
    waits = "SELECT count(*) AS n FROM wa_queue_due WHERE hold_reason = 'quiet_hours'"
    claimed: list[Any] = []
    with world.connect(autocommit=False) as heartbeat, world.connect() as claimer:
        claimer.execute("SET lock_timeout = '1ms'")

        def claim() -> int:
            claimed.extend(claimer.execute("SELECT queue_id FROM world.claim(1000)").fetchall())
            return len(claimed)

        for left in (1500, 500, 0):
            heartbeat.execute("SELECT world.maintain()")
            claim()
            assert world.query("SELECT work FROM wa_faults") == []
            heartbeat.commit()
            assert world.query(waits) == [{"n": left}]
        wait_until(lambda: claim() == 2500)
    assert len(set(claimed)) == 2500


@pytest.mark.slow
def test_what_waits_for_the_hour_goes_when_it_comes_each_once(db: Database, tmp_path: Path) -> None:
    """A thousand messages, quiet when they are queued; the hour comes while two dispatchers run."""
    token = "EAAG-test-token"
    db.query("SELECT adopt_wa_database()")
    db.query("SELECT register_wa_phone_number('111', '+15550780111', '7001', 'meta', 500)")
    db.query("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
    db.query(
        "INSERT INTO wa_templates (name, language, category, status, body_text, waba_id)"
        " VALUES ('hello_world', 'en_US', 'MARKETING', 'APPROVED', 'Hello World', '7001')"
    )
    db.query("INSERT INTO wa_quiet_hours (from_time, to_time) VALUES ('00:00', '24:00')")
    with ExitStack() as stack:
        simulator = stack.enter_context(
            SimulatorProcess(tmp_path, access_token=token, settings={"window": "off"})
        )
        simulator.client.headers["authorization"] = f"Bearer {token}"
        simulator.post(
            "numbers", phone_number_id="111", display_phone="15550780111", waba_id="7001", portfolio="7001",
            throughput=500,
        )  # fmt: skip
        options: dict[str, Any] = {"WHATSAPP_API_BASE_URL": simulator.url, "WHATSAPP_ACCESS_TOKEN": token}
        for _ in range(2):
            stack.enter_context(WaProcess("dispatch", database=db, **options)).logged("dispatching")
        db.query(
            "INSERT INTO wa_outbound_queue (phone, template_name)"
            " SELECT '+1555' || 4000000 + n, 'hello_world' FROM generate_series(1, 1000) n"
        )
        assert db.query("SELECT DISTINCT hold_reason FROM wa_queue_due") == [{"hold_reason": "quiet_hours"}]
        assert journal(simulator) == []
        # The hour has come: its hand has passed the end of the quiet time.
        with db.connect() as made, made.transaction():
            made.execute("DELETE FROM wa_quiet_hours")
            made.execute("DELETE FROM wa_wait_rechecks")
            made.execute("UPDATE wa_queue_due SET due_at = clock_timestamp()")
        wait_until(lambda: len(journal(simulator)) >= 1000)
        sent = "SELECT count(*) AS n FROM wa_messages WHERE status = 'sent'"
        wait_until(lambda: db.query(sent)[0]["n"] == 1000)
        callbacks = [entry["callback"] for entry in journal(simulator)]
    assert len(set(callbacks)) == len(callbacks) == 1000
