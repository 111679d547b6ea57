"""Pick-up: from just before an INSERT on an idle system to the request's arrival at the sink."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import orjson
from harness import Database

from bench import peers
from bench.ground import Sink, as_role, dispatcher, wait_for
from bench.rounds import Bench
from bench.table import Line

SAMPLES = 300
WARM_UP = 10
# Long enough for either worker to be asleep again.
PAUSE_S = (0.1, 0.2)


def pickup(bench: Bench) -> Iterator[Line]:
    """The median and the 99th percentile of each round."""
    latencies: dict[str, list[list[float]]] = {"dispatcher": [], "PgQueuer": []}

    def measure(name: str, run: Callable[[Bench], list[float]]) -> float:
        samples = sorted(run(bench))
        latencies[name].append(samples)
        bench.note(f"pick-up of {name}", samples_ms=[round(sample, 2) for sample in samples])
        return samples[len(samples) // 2]

    bench.rounds(
        {
            "dispatcher": lambda: measure("dispatcher", _ours),
            "PgQueuer": lambda: measure("PgQueuer", _pgqueuer),
        }
    )
    for name, share, target in (("p50", 0.5, 1.2), ("p99", 0.99, 1.5)):
        mine, theirs = (
            [samples[int(len(samples) * share)] for samples in latencies[who]] for who in latencies
        )
        yield Line(f"pick-up, {name}", mine, "ms", "PgQueuer", theirs, at_most=target)


def _ours(bench: Bench) -> list[float]:
    sink = bench.ground.sink(0)
    with bench.ground.database() as database, dispatcher(database, sink) as worker:
        worker.logged("dispatching")
        with as_role(database, "bench_app") as connection:

            def insert(n: int) -> str:
                row = connection.execute(
                    "INSERT INTO wa_outbound_queue (phone, text_body) VALUES (%s, 'Hello') RETURNING id",
                    (f"+1{6502000000 + n}",),
                ).fetchone()
                assert row is not None
                return f"q:{row[0]}:1"

            samples = _sample(bench, sink, insert)
        worker.signal()
        worker.wait()
        return samples


def _pgqueuer(bench: Bench) -> list[float]:
    sink = bench.ground.sink(0)
    with bench.ground.empty_database() as database:
        peers.install("PgQueuer", database)
        with peers.worker("PgQueuer", database, sink), database.connect() as connection:
            _wait_until_it_listens(database)

            def insert(n: int) -> str:
                callback = f"q:{uuid4()}:1"
                body = {"messaging_product": "whatsapp", "to": f"+1{6502000000 + n}"}
                body["biz_opaque_callback_data"] = callback
                connection.execute(peers.INSERT_ONE, (orjson.dumps(body),))
                return callback

            return _sample(bench, sink, insert)


def _wait_until_it_listens(database: Database) -> None:
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with database.connect() as connection:
        wait_for(lambda: connection.execute(query).rowcount > 1, "the worker is connected")
    time.sleep(1)


def _sample(bench: Bench, sink: Sink, insert: Callable[[int], str]) -> list[float]:
    """Milliseconds of each sample."""
    started: dict[str, float] = {}
    count = bench.size(SAMPLES)
    for n in range(WARM_UP + count):
        time.sleep(random.uniform(*PAUSE_S))  # noqa: S311
        at = time.time()
        callback = insert(n)
        if n >= WARM_UP:
            started[callback] = at
    wait_for(lambda: sink.accepted >= WARM_UP + count, "all samples arrived")
    arrived = {a["callback"]: a["time"] for a in sink.call("GET", "arrivals")["arrivals"]}
    return [(arrived[callback] - at) * 1000 for callback, at in started.items()]
