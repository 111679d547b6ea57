"""How fast a full queue is sent: from the first request's arrival to the last recorded outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import time

import httpx
import orjson
import uvloop
from harness import Database
from pg_whatsapp.transport import Outcome, open_transport, post

from bench import peers
from bench.ground import Ground, Sink, cpu_seconds, dispatcher, fill, settle, wait_for
from bench.rounds import Bench
from bench.table import Line

MESSAGES = 20_000
NOTHING_LEFT = """
SELECT coalesce(sum(due + scheduled + held + in_flight + outcome_unknown), 0) = 0 AS is_done
FROM wa_queue_health
"""
# Ids are UUIDv7: the smallest one of this millisecond.
MARKER = """
SELECT rpad(lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0'), 32, '0')::uuid AS id
"""
# By key: nothing else of a long history is read.
RESULT = """
SELECT count(*) FILTER (WHERE q.status = 'sent') AS sent,
    extract(epoch FROM max(q.processed_at))::float8 AS at
FROM wa_outbound_queue q
WHERE q.organization_id = (SELECT o.id FROM wa_organizations o) AND q.id > %s::uuid
"""


def drain_ours(
    bench: Bench,
    database: Database,
    sink: Sink,
    count: int,
    processes: int = 1,
    queue: Callable[[Database, int], None] = fill,
) -> float:
    """Messages a second of that many dispatchers."""
    marker = database.query(MARKER)[0]["id"]
    # All of them start on the same queue: none is still loading while another works.
    database.query("SELECT set_wa_sending(false)")
    queue(database, count)
    settle(database)
    with ExitStack() as stack:
        running = [stack.enter_context(dispatcher(database, sink)) for _ in range(processes)]
        for worker in running:
            worker.logged("dispatching")
        sink_before = cpu_seconds(sink.process.process.pid)
        database.query("SELECT set_wa_sending(true)")
        wait_for(lambda: sink.accepted >= count, "all messages at the sink")
        wait_for(lambda: database.query(NOTHING_LEFT)[0]["is_done"], "all outcomes recorded", every=0.2)
        used = sum(cpu_seconds(worker.process.pid) for worker in running)
        for worker in running:
            worker.signal()
        for worker in running:
            worker.wait()
    result = database.query(RESULT, marker)[0]
    if result["sent"] != count or sink.accepted != count:
        raise RuntimeError(f"{result['sent']} of {count} recorded as sent, {sink.accepted} accepted")
    elapsed = result["at"] - sink.first_arrival()
    sink_used = cpu_seconds(sink.process.process.pid) - sink_before
    note_cpu(bench, f"dispatcher x{processes}", count, elapsed, used, sink_used)
    return float(count / elapsed)


def note_cpu(bench: Bench, contender: str, count: int, elapsed: float, used: float, sink_used: float) -> None:
    """Where the processors' time went; the sink's share shows whether it was the limit."""
    bench.note(
        f"cpu of {contender}",
        worker_us_per_message=round(used * 1e6 / count),
        sink_us_per_message=round(sink_used * 1e6 / count),
        sink_busy=round(sink_used / elapsed, 2),
    )


def ours(
    bench: Bench, latency_ms: int, count: int, processes: int = 1, ground: Ground | None = None
) -> float:
    """Messages a second, in a fresh database; another checkout's ground has the same sink."""
    with (ground or bench.ground).database() as database:
        return drain_ours(bench, database, bench.ground.sink(latency_ms), count, processes)


def peer(bench: Bench, name: str, count: int) -> float:
    """Messages a second of another queue."""
    with bench.ground.empty_database() as database:
        peers.install(name, database)
        peers.fill(name, database, count)
        settle(database)
        sink = bench.ground.sink(0)
        sink_before = cpu_seconds(sink.process.process.pid)
        with peers.worker(name, database, sink) as process:
            wait_for(lambda: sink.accepted >= count, "all messages at the sink")
            wait_for(lambda: peers.finished(name, database)[0] >= count, "all recorded", every=0.2)
            used = cpu_seconds(process.pid)
        elapsed = peers.finished(name, database)[1] - sink.first_arrival()
        note_cpu(bench, name, count, elapsed, used, cpu_seconds(sink.process.process.pid) - sink_before)
        return count / elapsed


def transport(ground: Ground, latency_ms: int, count: int) -> float:
    """Requests a second of the product's transport with as many in flight, and no database."""
    sink = ground.sink(latency_ms)
    ended = uvloop.run(_post_all(sink, count))
    return count / (ended - sink.first_arrival())


async def _post_all(sink: Sink, count: int) -> float:
    """Post that many messages; the Unix time of the last answer."""
    http, url = open_transport(), httpx.URL(sink.messages_url)
    bodies = iter([_body(n) for n in range(count)])

    async def work() -> None:
        for body in bodies:
            reply = await post(http, url, peers.HEADERS, body, 30)
            if reply.outcome is not Outcome.ANSWERED:
                raise RuntimeError(f"the sink did not answer: {reply.error}")

    await asyncio.gather(*(work() for _ in range(peers.CONCURRENCY)))
    ended = time()
    await http.aclose()
    return ended


def _body(n: int) -> bytes:
    return orjson.dumps(
        {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": f"+1{6502000000 + n}",
            "type": "text",
            "text": {"body": "Hello, thank you for your order. It will leave our house today."},
            "biz_opaque_callback_data": f"q:00000000-0000-7000-8000-{n:012d}:1",
        }
    )


def without_latency(bench: Bench) -> Iterator[Line]:
    """A sink that answers at once."""
    count = bench.size(MESSAGES)
    values = bench.rounds(
        {
            "dispatcher": lambda: ours(bench, 0, count),
            "transport alone": lambda: transport(bench.ground, 0, count),
            "PgQueuer": lambda: peer(bench, "PgQueuer", count),
            "procrastinate": lambda: peer(bench, "procrastinate", count),
            "2 dispatchers": lambda: ours(bench, 0, count, processes=2),
        }
    )
    mine = values["dispatcher"]
    for beside, target in (("transport alone", 0.6), ("procrastinate", 5.0), ("PgQueuer", 0.8)):
        yield Line("drain, 0 ms, 1 process", mine, "msg/s", beside, values[beside], at_least=target)
    yield Line("drain, 0 ms, 2 processes", values["2 dispatchers"], "msg/s", "1 process", mine, at_least=1.1)


def with_latency(bench: Bench) -> Iterator[Line]:
    """A sink that answers after 100 ms, 200 requests in flight in each process."""
    count = bench.size(MESSAGES)
    values = bench.rounds(
        {
            "dispatcher, 100 ms": lambda: ours(bench, 100, count),
            "transport alone, 100 ms": lambda: transport(bench.ground, 100, count),
            "2 dispatchers, 100 ms": lambda: ours(bench, 100, count, processes=2),
        }
    )
    mine, alone, two = values.values()
    yield Line("drain, 100 ms, 200 in flight", mine, "msg/s", "transport alone", alone, at_least=0.9)
    yield Line("drain, 100 ms, 2 processes", two, "msg/s", "1 process", mine, at_least=1.8)
