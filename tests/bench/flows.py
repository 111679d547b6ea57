"""Flows: what the engine adds to queueing, and what those that wait cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic

from harness import Database

from bench.ground import KNOWN
from bench.rounds import Bench
from bench.table import Line

DUE = 100_000
WAITING = 1_000_000
#: So many a statement, the engine's and the one beside it.
AT_ONCE = 500
STORE = """
SELECT store_wa_flow('{"name": "bench", "steps": [
    {"name": "s", "type": "send", "template_name": "order_update",
        "template_params": ["{{name}}", "{{order}}"]},
    {"name": "w", "type": "wait", "interval": "1 day"}]}')
"""
START = """
INSERT INTO wa_automation_flows (phone_e164, flow_type, trigger_data)
SELECT '+1' || 6502000000 + n, 'bench', jsonb_build_object('name', 'Ann', 'order', 'A-' || n)
FROM generate_series(0, %s::bigint - 1) n
"""
WAIT = f"""
INSERT INTO wa_automation_flows (phone_e164, flow_type, run_key, next_action_at)
SELECT '+1' || 6502000000 + n %% {KNOWN}, 'bench', n::text, now() + interval '1 day'
FROM generate_series(0, %s::bigint - 1) n
"""
PLAIN = """
INSERT INTO wa_outbound_queue (phone, template_name, template_params, idempotency_key, reference)
SELECT '+1' || 6502000000 + n, 'order_update', jsonb_build_array('Ann', 'A-' || n), 'k' || n, 'r' || n
FROM generate_series(%s::bigint, %s) n
"""
TICK = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM run_due_wa_flows()"


def flows(bench: Bench) -> Iterator[Line]:
    """So many due at once against the same messages inserted; buffers of a tick while many wait."""
    count = bench.size(DUE)
    values = bench.rounds(
        {"flows": lambda: _carry_out(bench, count), "inserts": lambda: _insert(bench, count)}
    )
    yield Line(
        f"{count:,} flows due at once",
        values["flows"],
        "messages/s",
        "INSERTs",
        values["inserts"],
        at_least=0.3,
    )
    waiting = bench.size(WAITING)
    ticks = bench.rounds({"waiting": lambda: _tick(bench, waiting), "none": lambda: _tick(bench, 0)})
    yield Line(
        f"a tick while {waiting:,} flows wait",
        ticks["waiting"],
        "buffers",
        "none wait",
        ticks["none"],
        at_most=1.5,
    )


def _carry_out(bench: Bench, count: int) -> float:
    with bench.ground.database() as database:
        database.query(STORE)
        database.query(START, count)
        database.query("VACUUM ANALYZE wa_automation_flows")

        def batch(number: int) -> None:
            database.query("SELECT run_due_wa_flows(%s)", AT_ONCE)

        value = _rate(database, count, batch)
        [row] = database.query("SELECT count(*) AS n FROM wa_outbound_queue WHERE status = 'pending'")
        if row["n"] != count:
            raise RuntimeError(f"{row['n']} of {count} messages were queued")
        return value


def _insert(bench: Bench, count: int) -> float:
    with bench.ground.database() as database:

        def batch(number: int) -> None:
            database.query(PLAIN, number * AT_ONCE, (number + 1) * AT_ONCE - 1)

        return _rate(database, count, batch)


def _rate(database: Database, count: int, batch: Callable[[int], None]) -> float:
    began = monotonic()
    for number in range(count // AT_ONCE):
        batch(number)
    return count / (monotonic() - began)


def _tick(bench: Bench, waiting: int) -> float:
    with bench.ground.database() as database:
        database.query(STORE)
        database.query(WAIT, waiting)
        database.query("VACUUM ANALYZE wa_automation_flows")
        with database.connect() as connection:
            for _ in range(3):
                connection.execute("SELECT * FROM run_due_wa_flows()")
            (told,) = connection.execute(TICK).fetchall()[0]
        plan = told[0]["Plan"]
        return float(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
