"""What rows that cannot go cost those that can: the same messages with them in front, and alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from harness import Database

from bench import held
from bench.ground import Sink, dispatcher, settle
from bench.rounds import Bench
from bench.table import Line
from bench.waiting import CAUSES, Cause, base, queue

#: Messages that may go, queued behind those that may not.
MESSAGES = 10_000
#: A shape that stops everything is given up after these seconds: what has arrived by then counts.
PATIENCE = 10
AT_LEAST = 0.7
START = "SELECT set_wa_sending(true), pg_notify('wa_queue', '')"


def shapes(bench: Bench) -> Iterator[Line]:
    """Each cause beside the same without rows in front; then what held rows cost while nothing goes."""
    for cause in CAUSES:
        if not bench.wants(cause.name):
            continue
        sides = {
            "alone": lambda cause=cause: measure(bench, cause, in_front=False),
            cause.name: lambda cause=cause: measure(bench, cause),
        }
        alone, mine = bench.rounds(sides).values()
        yield Line(
            f"{cause.name}: behind {cause.what}", mine, "msg/s", "alone", alone, at_least=AT_LEAST,
            is_paired=True,
        )  # fmt: skip
    yield from held.held(bench)


def measure(bench: Bench, cause: Cause, *, in_front: bool = True) -> float:
    """Messages a second, from the moment that sending may begin to the last arrival of what may go."""
    count, rows = bench.size(MESSAGES), bench.size(cause.rows) if in_front and cause.rows else 0
    sink = bench.ground.sink(0)
    with bench.ground.database(base(bench.ground)) as database, ExitStack() as stack:
        moment = set_up(bench, database, cause, rows, stack)
        queue(database, cause.sendable if in_front else cause.alone, count)
        if cause.cause:
            database.query(cause.cause)
        settle(database)
        wanted = callbacks(database)
        worker = stack.enter_context(dispatcher(database, sink))
        worker.logged("dispatching")
        switch = stack.enter_context(database.connect())
        time.sleep(max(0.0, moment - time.time()))
        began = time.time()
        # Awake or asleep, it looks at once.
        switch.execute(START)
        patience = max(5, bench.size(PATIENCE))
        arrivals = watch(sink, wanted, began + patience)
    arrived, reached = rate(
        arrivals, wanted, bench.size(cause.goes) if rows and cause.goes else 0, began, patience
    )
    if arrived < count:
        bench.note(cause.name, arrived=arrived, of=count, within_s=patience)
    return reached


def rate(
    arrivals: list[tuple[float, Any]], wanted: set[str], goes: int, began: float, patience: float
) -> tuple[int, float]:
    """How many of the wanted arrived, and messages a second until the last of them, or until patience ended.

    Of the others, as many count as may go.
    """
    times = [at for at, callback in arrivals if callback in wanted]
    ended = max(times) if len(times) == len(wanted) else began + patience
    others = sum(callback not in wanted and at <= ended for at, callback in arrivals)
    return len(times), (len(times) + min(others, goes)) / (ended - began)


def set_up(bench: Bench, database: Database, cause: Cause, rows: int, stack: ExitStack) -> float:
    """Queue what stands in front, while nothing is sent; returns the moment to begin at."""
    # Fewer rows are queued sooner.
    moment = time.time() + (min(cause.moment_in, 5 + bench.size(40)) if rows else 0)
    database.query("SELECT set_wa_sending(false)")
    if cause.before:
        database.query(cause.before)
    if rows and cause.prepare:
        cause.prepare(database, rows, moment)
    if rows and cause.front:
        queue(database, cause.front, rows, moment)
    if rows and cause.lock:
        holder = stack.enter_context(database.connect(autocommit=False))
        holder.execute(cause.lock.encode())
    return moment


def callbacks(database: Database) -> set[str]:
    """The callback data of what may go."""
    found = database.query("SELECT id::text FROM wa_outbound_queue WHERE reference = 'sendable'")
    return {f"q:{row['id']}:1" for row in found}


def watch(sink: Sink, wanted: set[str], deadline: float) -> list[tuple[float, Any]]:
    """All arrivals, once those that are wanted are there or the time is over."""
    while True:
        time.sleep(0.1)
        is_over = time.time() > deadline
        if is_over or sink.accepted >= len(wanted):
            arrivals = [(a["time"], a["callback"]) for a in sink.call("GET", "arrivals")["arrivals"]]
            if is_over or wanted <= {callback for _, callback in arrivals}:
                return arrivals
            time.sleep(0.2)
