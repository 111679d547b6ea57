"""What held rows cost while nothing can go, and what letting go of them at once costs everybody else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

from harness import Database
from psycopg import sql

from bench.ground import Ground, Sink, as_role, dispatcher, settle
from bench.rounds import Bench
from bench.table import Line
from bench.waiting import (
    BLOCK_TEMPLATES,
    FIRST_GUEST,
    FIRST_NUMBER,
    IN_ORDER_OF_DELIVERY,
    LOW_TIER,
    NUMBER_2,
    STRANGER,
    base,
    queue,
    templates,
    texts,
)

ROWS = 200_000
#: Buffers are counted for so long, once they hardly change, which is waited for.
COUNTED_S = 10
CALM_WITHIN_S = 300
#: How long pick-ups are sampled after rows were let go.
SAMPLED_S = 10
SAMPLE_EVERY_S = 0.05
ARRIVE_WITHIN_S = 20
MOST_TIMES = 1.2
MOST_BUFFERS = 100
MOST_DELAY_MS = 100
# What is let go trickles at the usual pace, so that it is the letting go that is measured.
SLOW = f"UPDATE wa_phone_numbers SET throughput = 80 WHERE {FIRST_NUMBER}"


@dataclass(frozen=True)
class Case:
    """Rows of one number that are held; the other number is free."""

    name: str
    front: str
    #: As the owner, before and after queueing.
    before: str = ""
    cause: str = ""
    #: What lets go of all of them; where there is nothing, time would.
    release: str = ""
    #: Whether they expire, all at once.
    expires: bool = False


CASES = [
    Case(
        "held-tier",
        templates(STRANGER),
        cause=LOW_TIER,
        release="UPDATE wa_portfolios SET tier_limit = 1000000000",
    ),
    Case("held-pair", texts("95000 + n * 0")),
    Case(
        "held-order",
        texts("10000 + n %% 200"),
        before=IN_ORDER_OF_DELIVERY,
        release="UPDATE wa_organizations SET order_mode = 'accepted'",
    ),
    Case(
        "held-restricted",
        templates(),
        cause=BLOCK_TEMPLATES,
        release="UPDATE wa_phone_numbers SET templates_blocked_until = NULL",
    ),
    Case(
        "held-paused",
        templates(),
        cause=f"""
            UPDATE wa_phone_numbers SET pause_scope = 'number', pause_reason = 'bench', paused_at = now()
            WHERE {FIRST_NUMBER}
        """,
        release=f"SELECT resume_wa_number(phone_number_id) FROM wa_phone_numbers WHERE {FIRST_NUMBER}",
    ),
    Case(
        "held-panic",
        templates(),
        cause=f"SELECT trigger_wa_panic('bench', NULL, phone_number_id) FROM wa_phone_numbers WHERE "
        f"{FIRST_NUMBER}",
        release="SELECT resolve_wa_panic()",
    ),
    Case(
        "held-minute",
        templates(),
        before="UPDATE wa_organizations SET rate_limit_per_minute = 1",
        release="UPDATE wa_organizations SET rate_limit_per_minute = 1000000000",
    ),
    Case(
        "held-expiry",
        templates(STRANGER, ", expires_at", ", to_timestamp(%(moment)s)"),
        cause=LOW_TIER,
        expires=True,
    ),
]


def held(bench: Bench) -> Iterator[Line]:
    """For each cause: buffers a second, buffers of what lets go, delay of others' pick-up."""
    chosen = [case for case in CASES if bench.wants(case.name)]
    if not chosen:
        return
    with no_autovacuum(bench.ground):
        sink = bench.ground.sink(0)
        with bench.ground.database(base(bench.ground)) as database:
            database.query(SLOW)
            settle(database)
            none = idle(bench, database, sink)
            with dispatcher(database, sink) as worker:
                worker.logged("dispatching")
                longest = max(pickups(bench, database, sink).values())
            bench.note("nothing queued", buffers_per_s=round(none), longest_pickup_ms=round(longest))
        for case in chosen:
            yield from one(bench, case, none, longest)


def one(bench: Bench, case: Case, none: float, longest: float) -> Iterator[Line]:
    """One cause; `none` are the buffers a second, `longest` the longest pick-up with an empty queue."""
    rows = bench.size(ROWS)
    sink = bench.ground.sink(0)
    with bench.ground.database(base(bench.ground)) as database:
        moment = time.time() + (bench.size(100) + 20 if case.expires else 0)
        for statement in (SLOW, case.before):
            if statement:
                database.query(statement)
        queue(database, case.front, rows, moment)
        if case.cause:
            database.query(case.cause)
        settle(database)
        if not case.expires:
            buffers = idle(bench, database, sink, none)
            yield Line(
                f"{case.name}: {rows:,} rows, nothing goes", [buffers], "buffers/s", "nothing queued", [none],
                at_most=MOST_TIMES,
            )  # fmt: skip
        if case.release:
            touched = buffers_of(database, case.release)
            yield Line(f"{case.name}: letting go", [touched], "buffers", at_most=MOST_BUFFERS)
        if case.release or case.expires:
            with dispatcher(database, sink):
                calm(bench, database, none)
                if case.release:
                    moment = time.time()
                else:
                    time.sleep(max(0.0, moment - time.time()))
                release = Thread(target=database.query, args=(case.release or "SELECT",))
                release.start()
                after = pickups(bench, database, sink)
                release.join()
            arrivals = sink.call("GET", "arrivals")["arrivals"]
            released = [a["time"] for a in arrivals if a["callback"] not in after and a["time"] > moment]
            bench.note(
                case.name,
                longest_pickup_ms=round(max(after.values())),
                released=len(released),
                first_after_ms=round((min(released) - moment) * 1000) if released else None,
            )
            yield Line(
                f"{case.name}: longest pick-up of others, more than with none",
                [max(after.values()) - longest],
                "ms",
                at_most=MOST_DELAY_MS,
            )


@contextmanager
def no_autovacuum(ground: Ground) -> Iterator[None]:
    """It would touch buffers meanwhile."""

    def configure(statement: sql.SQL) -> None:
        ground.server.execute(sql.Composed([statement]))
        ground.server.execute(sql.Composed([sql.SQL("SELECT pg_reload_conf()")]))

    configure(sql.SQL("ALTER SYSTEM SET autovacuum = off"))
    try:
        yield
    finally:
        configure(sql.SQL("ALTER SYSTEM RESET autovacuum"))


def buffers(database: Database) -> int:
    """Buffers that were touched in a database so far, asked from outside of it."""
    query = "SELECT (blks_hit + blks_read)::bigint AS n FROM pg_stat_database WHERE datname = %s"
    return int(Database(database.server, "postgres").query(query, database.name)[0]["n"])


def rate(database: Database, seconds: float) -> float:
    """Buffers a second for a while."""
    before, began = buffers(database), time.monotonic()
    time.sleep(seconds)
    return (buffers(database) - before) / (time.monotonic() - began)


def calm(bench: Bench, database: Database, none: float | None) -> None:
    """Wait until a dispatcher touches hardly more buffers than with an empty queue, or long enough.

    One quiet look is not enough: what a session or a VACUUM did is counted up to a second later.
    """
    deadline = time.monotonic() + bench.size(CALM_WITHIN_S)
    time.sleep(3)
    quiet = 0
    while none is not None and quiet < 3 and time.monotonic() < deadline:
        quiet += 1
        if rate(database, 2) > none * MOST_TIMES:
            quiet = 0
            # What autovacuum would do of itself, once rows have been set aside.
            database.query("VACUUM wa_queue_due")


def idle(bench: Bench, database: Database, sink: Sink, none: float | None = None) -> float:
    """Buffers a second of a dispatcher that has nothing to send (any more)."""
    with dispatcher(database, sink) as worker:
        worker.logged("dispatching")
        calm(bench, database, none)
        return rate(database, max(5, bench.size(COUNTED_S)))


def buffers_of(database: Database, statement: str) -> int:
    """Buffers that a transaction touches, with all that its triggers do; it is undone."""
    with database.connect() as connection:
        # What a session looks up in the catalogue but once is not of the statement.
        for _ in range(2):
            connection.execute("SELECT pg_stat_force_next_flush()")
            before = buffers(database)
            with connection.transaction(force_rollback=True):
                connection.execute(statement.encode())
            connection.execute("SELECT pg_stat_force_next_flush()")
            touched = buffers(database) - before
    return touched


def pickups(bench: Bench, database: Database, sink: Sink) -> dict[str, float]:
    """Milliseconds from INSERT to arrival of texts to the other number's contacts, by their callback data."""
    started: dict[str, float] = {}
    ends = time.monotonic() + max(3, bench.size(SAMPLED_S))
    with as_role(database, "bench_app") as connection:
        while time.monotonic() < ends:
            at = time.time()
            row = connection.execute(
                "INSERT INTO wa_outbound_queue (phone, text_body, phone_number_id) VALUES (%s, 'Hello', %s)"
                " RETURNING id",
                (f"+1{6502000000 + FIRST_GUEST + len(started)}", NUMBER_2),
            ).fetchone()
            assert row is not None
            started[f"q:{row[0]}:1"] = at
            time.sleep(SAMPLE_EVERY_S)
    # Those that have not come by then count as if they came now.
    deadline = time.monotonic() + ARRIVE_WITHIN_S
    while True:
        arrived = {a["callback"]: a["time"] for a in sink.call("GET", "arrivals")["arrivals"]}
        if started.keys() <= arrived.keys() or time.monotonic() > deadline:
            return {
                callback: (arrived.get(callback, time.time()) - at) * 1000 for callback, at in started.items()
            }
        time.sleep(0.2)
