"""The HTTP API: sending beside inserts, a conversation among a million messages, webhooks beside requests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import httpx
import orjson
import psycopg
import uvloop
from harness import Database
from pg_whatsapp.api.app import PREFIX
from wa_process import WaProcess

from bench import history
from bench.ground import Ground, settle
from bench.http_load import post_all, receive
from bench.rounds import Bench
from bench.table import Line

SENDS = 6000
#: As many sessions insert beside it as the API has connections.
SESSIONS = 8
READS = 300
MANY, FEW = 1_000_000, 10_000
REQUESTS_A_SECOND = 50
WEBHOOKS = 10_000
LOGIN = """
CREATE ROLE bench_api LOGIN IN ROLE wa_api, bench_app;
"""
INSERT = (
    "INSERT INTO wa_outbound_queue (phone, template_name, template_params) VALUES (%s, 'order_update', %s)"
)


def api(bench: Bench) -> Iterator[Line]:
    """All three."""
    bench.ground.base.query(LOGIN)
    yield from _send(bench)
    yield from _read(bench)
    yield from _beside_webhooks(bench)


@contextmanager
def served(database: Database) -> Iterator[tuple[str, str]]:
    """The API in a process of its own: its address and a key."""
    [row] = database.query("SELECT api_key FROM create_wa_api_key('bench', 'bench_app')")
    process = WaProcess("serve", "--only", "api", "--port", "0", database=database, user="bench_api")
    with process:
        line = process.logged("serving")
        yield f"http://{line['host']}:{line['port']}", row["api_key"]


def _send(bench: Bench) -> Iterator[Line]:
    count = bench.size(SENDS)
    with bench.ground.database() as database:
        settle(database)
        with served(database) as (url, key):
            bodies = [
                orjson.dumps(
                    {
                        "phone": f"+{16502000000 + n}",
                        "template_name": "order_update",
                        "template_params": ["Ann", "1"],
                    }
                )
                for n in range(count)
            ]

            def over_http() -> float:
                started, answered = uvloop.run(post_all(f"{url}{PREFIX}/send", bodies, key=key))
                return count / (answered - started)

            values = bench.rounds(
                {"POST send": over_http, "psycopg": lambda: uvloop.run(_insert(database, count))},
                warm_up=True,
            )
    mine, plain = values.values()
    yield Line("POST send, 64 connections", mine, "POST/s", "INSERT by psycopg", plain, at_least=0.5)


async def _insert(database: Database, count: int) -> float:
    numbers = iter(range(count))

    async def session() -> None:
        connection = await psycopg.AsyncConnection.connect(f"{database.dsn} user=bench_app", autocommit=True)
        async with connection:
            for n in numbers:
                await connection.execute(INSERT, (f"+{16502000000 + n}", '["Ann", "1"]'))

    began = time.monotonic()
    await asyncio.gather(*(session() for _ in range(SESSIONS)))
    return count / (time.monotonic() - began)


def _read(bench: Bench) -> Iterator[Line]:
    values: dict[int, list[float]] = {}
    for total in (FEW, MANY):
        wanted = replace(bench, history=bench.size(total))
        made = bench.ground.derived(f"messages {total}", partial(history.make, wanted))
        with bench.ground.database(made) as database:
            settle(database)
            with served(database) as (url, key):
                values[total] = [_slowest(url, key, bench.size(READS)) for _ in range(bench.runs)]
    yield Line(
        f"GET conversation, p99 among {MANY:,}", values[MANY], "ms", f"among {FEW:,}", values[FEW], at_most=2
    )


def _slowest(url: str, key: str, count: int) -> float:
    taken = []
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}) as client:
        for n in range(count):
            began = time.monotonic()
            client.get(f"{PREFIX}/conversations/+{16502000000 + n}").raise_for_status()
            taken.append((time.monotonic() - began) * 1000)
    return sorted(taken)[int(count * 0.99)]


def _beside_webhooks(bench: Bench) -> Iterator[Line]:
    count = bench.size(WEBHOOKS)
    values = bench.rounds(
        {
            "beside requests": lambda: _receive_beside(bench, bench.ground, count),
            "alone": lambda: receive(bench, bench.ground, count),
        }
    )
    mine, alone = values.values()
    yield Line("webhooks beside 50 requests/s", mine, "POST/s", "alone", alone, at_least=0.9)


def _receive_beside(bench: Bench, ground: Ground, count: int) -> float:
    """Webhooks a second while the API answers requests about another database of the same server."""
    is_over = threading.Event()
    with ground.database() as database, served(database) as (url, key):

        def ask() -> None:
            with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}) as client:
                while not is_over.wait(1 / REQUESTS_A_SECOND):
                    client.get(f"{PREFIX}/templates").raise_for_status()

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        try:
            return receive(bench, ground, count)
        finally:
            is_over.set()
            thread.join(30)
