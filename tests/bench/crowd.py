"""Webhooks of many connections at once, beside slow ones that hold the receiver's places and never finish."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

import uvloop
from harness import Database
from pg_whatsapp.http_guard import allow_connections
from wa_process import WaProcess
from webhook_bodies import message

from bench.ground import NUMBER, settle
from bench.http_load import LONGEST_S, SECRET, Client, request
from bench.rounds import Bench
from bench.table import Line

HONEST = 500
SLOW = 1500
WEBHOOKS = 20_000
#: Between two bytes of a slow one.
DRIP_S = 5.0
# What a slow one sends at first: nothing; a head that goes on for ever; one whose body does.
BEGINNINGS = (
    b"",
    b"POST / HTTP/1.1\r\nx: ",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n",
)
STORED = "SELECT count(*) AS rows, count(DISTINCT body) AS bodies FROM wa_webhook_logs"


class Timed(Client):
    """Knows how long each of its answers took."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        super().__init__(requests)
        self._asked_at: float | None = None
        self.took: list[float] = []

    def _next(self) -> None:
        now = time.monotonic()
        if self._asked_at is not None:
            self.took.append(now - self._asked_at)
        self._asked_at = now
        super()._next()


def crowd(bench: Bench) -> Iterator[Line]:
    """Each webhook is answered with 200 and stored; how fast, and how long the slowest waits."""
    count = bench.size(WEBHOOKS)
    slowest: dict[int, list[float]] = {SLOW: [], 0: []}

    def measure(slow: int) -> float:
        rate, took = _measure(bench, count, slow)
        slowest[slow].append(took[-1])
        bench.note(
            f"{HONEST} connections beside {slow} slow ones",
            p50_ms=round(took[len(took) // 2] * 1000),
            p99_ms=round(took[len(took) * 99 // 100] * 1000),
        )
        return rate

    allow_connections()
    values = bench.rounds({name: partial(measure, slow) for name, slow in (("beside", SLOW), ("alone", 0))})
    beside, alone = values.values()
    name = f"webhooks of {HONEST} connections beside {SLOW:,} slow ones"
    yield Line(
        f"{name}, until answered", beside, "POST/s", "without them", alone, at_least=0.8, is_paired=True
    )
    yield Line(f"{name}, the slowest answer", slowest[SLOW], "s", "without them", slowest[0], at_most=2.0)


def _measure(bench: Bench, count: int, slow: int) -> tuple[float, list[float]]:
    """Answers a second, and how long each took, sorted; RuntimeError if one was lost."""
    at = int(time.time())
    bodies = [
        message(f"wamid.{n}", str(16502000000 + n), at, content="Hello", number=NUMBER) for n in range(count)
    ]
    with bench.ground.database() as database:
        settle(database)
        receiver = WaProcess(
            "serve", "--only", "webhook", "--port", "0",
            database=database, user="bench_receiver", WHATSAPP_APP_SECRET=SECRET,
        )  # fmt: skip
        with receiver:
            url = "http://{host}:{port}{path}".format(**receiver.logged("serving"))
            seconds, took = uvloop.run(_post(url, bodies, slow))
            _check(database, count)
    return count / seconds, sorted(took)


def _check(database: Database, count: int) -> None:
    [stored] = database.query(STORED)
    if stored != {"rows": count, "bodies": count}:
        raise RuntimeError(f"{count} webhooks were answered with 200, stored are {stored}")


async def _post(url: str, bodies: list[bytes], slow: int) -> tuple[float, list[float]]:
    """POST each body once, while so many slow clients are there; seconds in all and of each answer."""
    target = urlsplit(url)
    host, port = target.hostname or "", target.port or 80
    requests = iter([request(target.netloc, target.path, body, SECRET) for body in bodies])
    connected = itertools.count(1)
    all_there = asyncio.Event()

    async def drip(beginning: bytes) -> None:
        is_new = True
        while True:
            # Once it is cut off it comes again.
            with suppress(OSError):
                _, writer = await asyncio.open_connection(host, port)
                if is_new and next(connected) == slow:
                    all_there.set()
                is_new = False
                writer.write(beginning)
                while not writer.is_closing():
                    await asyncio.sleep(DRIP_S)
                    # Who says nothing goes on saying nothing.
                    writer.write(beginning[-1:])

    drips = [asyncio.create_task(drip(BEGINNINGS[n % len(BEGINNINGS)])) for n in range(slow)]
    try:
        async with asyncio.timeout(LONGEST_S):
            if slow:
                await all_there.wait()
            started = time.monotonic()
            loop = asyncio.get_running_loop()
            clients = [
                client
                for _, client in await asyncio.gather(
                    *(loop.create_connection(lambda: Timed(requests), host, port) for _ in range(HONEST))
                )
            ]
            await asyncio.gather(*(client.done for client in clients))
        return time.monotonic() - started, [each for client in clients for each in client.took]
    finally:
        for one in drips:
            one.cancel()
        await asyncio.gather(*drips, return_exceptions=True)
