"""The other queues: how each is installed, filled and run.

Each works in a process of its own (python -m bench.peers NAME CONNINFO URL), posts what it is given with the
product's own HTTP transport, knows no policy, and is killed when all is done.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvloop
from harness import Database
from pg_whatsapp.transport import open_transport, post
from psycopg.conninfo import conninfo_to_dict

from bench.ground import Sink, module_process

CONCURRENCY = 200
HEADERS = httpx.Headers(
    {"content-type": "application/json", "accept": "application/json", "authorization": "Bearer bench-token"}
)
# The request bodies that the product builds for the same messages.
BODY = """jsonb_build_object(
    'messaging_product', 'whatsapp', 'recipient_type', 'individual', 'to', '+1' || 6502000000 + n,
    'type', 'text', 'text', jsonb_build_object(
        'body', 'Hello, thank you for your order. It will leave our house today.'
    ), 'biz_opaque_callback_data', 'q:' || gen_random_uuid() || ':1'
)"""
FILLS = {
    "PgQueuer": f"""
        INSERT INTO pgqueuer (priority, entrypoint, payload, execute_after, status)
        SELECT 0, 'send', convert_to({BODY}::text, 'UTF8'), now(), 'queued' FROM generate_series(1, %s) n
    """,
    "procrastinate": f"""
        INSERT INTO procrastinate_jobs (queue_name, task_name, args)
        SELECT 'default', 'send', jsonb_build_object('body', {BODY}::text) FROM generate_series(1, %s) n
    """,
}
FINISHED = {
    "PgQueuer": "SELECT count(*), extract(epoch FROM max(created))::float8 FROM pgqueuer_log "
    "WHERE status = 'successful'",
    "procrastinate": "SELECT count(*), extract(epoch FROM max(at))::float8 FROM procrastinate_events "
    "WHERE type = 'succeeded'",
}
# One row, as an application would insert it; %s is what the sink reports back.
INSERT_ONE = """
INSERT INTO pgqueuer (priority, entrypoint, payload, execute_after, status)
VALUES (0, 'send', %s, now(), 'queued')
"""


def install(name: str, database: Database) -> None:
    """Make the queue's tables."""
    asyncio.run(_install(name, database))


def fill(name: str, database: Database, count: int) -> None:
    """Queue that many messages in one statement."""
    with database.connect() as connection:
        connection.execute(FILLS[name].encode(), (count,))


def finished(name: str, database: Database) -> tuple[int, float]:
    """How many messages are recorded as done, and the Unix time of the last."""
    with database.connect() as connection:
        row = connection.execute(FINISHED[name].encode()).fetchone()
    assert row is not None
    return int(row[0]), float(row[1] or 0)


@contextmanager
def worker(name: str, database: Database, sink: Sink) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process of the queue."""
    with module_process("bench.peers", name, database.dsn, sink.messages_url) as process:
        yield process


def _parameters(dsn: str) -> dict[str, Any]:
    """asyncpg's names for what a connection string says."""
    given = conninfo_to_dict(dsn)
    return {
        name: given[key]
        for name, key in (("host", "host"), ("port", "port"), ("user", "user"), ("database", "dbname"))
    }


async def _install(name: str, database: Database) -> None:
    if name == "PgQueuer":
        import asyncpg
        from pgqueuer import AsyncpgDriver, Queries

        connection = await asyncpg.connect(**_parameters(database.dsn))
        await Queries(AsyncpgDriver(connection)).install()
        await connection.close()
    else:
        app, _ = _procrastinate(database.dsn, "")
        async with app.open_async():
            await app.schema_manager.apply_schema_async()


async def _run_pgqueuer(dsn: str, url: str) -> None:
    import asyncpg
    from pgqueuer import PgQueuer

    http, target = open_transport(), httpx.URL(url)
    queue = PgQueuer.from_asyncpg_connection(await asyncpg.connect(**_parameters(dsn)))

    @queue.entrypoint("send")  # type: ignore[untyped-decorator]
    async def send(job: Any) -> None:
        await post(http, target, HEADERS, job.payload, 30)

    # It wants room for two batches.
    await queue.run(batch_size=CONCURRENCY // 2, max_concurrent_tasks=CONCURRENCY)


def _procrastinate(dsn: str, url: str) -> tuple[Any, list[httpx.AsyncBaseTransport]]:
    """The application, and where its one task finds the transport once there is one."""
    import procrastinate

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn, max_size=20))
    transports: list[httpx.AsyncBaseTransport] = []

    @app.task(name="send")  # type: ignore[untyped-decorator]
    async def send(body: str) -> None:
        await post(transports[0], httpx.URL(url), HEADERS, body.encode(), 30)

    return app, transports


async def _run_procrastinate(dsn: str, url: str) -> None:
    app, transports = _procrastinate(dsn, url)
    transports.append(open_transport())
    async with app.open_async():
        await app.run_worker_async(concurrency=CONCURRENCY)


if __name__ == "__main__":
    uvloop.run({"PgQueuer": _run_pgqueuer, "procrastinate": _run_procrastinate}[sys.argv[1]](*sys.argv[2:4]))
