"""Webhooks through the receiver until applied, and what the sink can take: both under the same load."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
from collections.abc import Iterable, Iterator
from time import time
from typing import cast
from urllib.parse import urlsplit

import uvloop
from harness import Database
from pg_whatsapp.receiver import PATH
from wa_process import WaProcess
from webhook_bodies import status

from bench.drain import MESSAGES, transport
from bench.ground import Ground, dispatcher, fill, module_process, settle, wait_for
from bench.rounds import Bench
from bench.table import Line

CONNECTIONS = 64
LONGEST_S = 300
WEBHOOKS = 20_000
SECRET = "bench-secret"
# The sent messages that the statuses are about.
SENT = "SELECT wa_message_id, phone, id::text FROM wa_outbound_queue WHERE status = 'sent' ORDER BY id"
# As for drains: recorded times, so that nothing has to be asked meanwhile.
APPLIED = """
SELECT count(*) FILTER (WHERE status = 'processed') AS n, extract(epoch FROM max(processed_at))::float8 AS at,
    (SELECT count(*) FROM wa_messages WHERE state = 'delivered') AS delivered
FROM wa_webhook_logs
"""


class Client(asyncio.Protocol):
    """One kept-alive connection: a request, its whole answer, the next; ends when there are no more."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self._answer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start with the first request."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            self.done.set_result(None)
        else:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Wait for the end of the answer."""
        self._answer += data
        head, separator, body = self._answer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length or 0):
            return
        if not self._answer.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(f"answered {self._answer[:200]!r}"))
            self._transport.abort()
            return
        self._answer = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that ends early is a failure."""
        if not self.done.done():
            self.done.set_exception(exc or RuntimeError("connection closed by the server"))


async def post_all(url: str, bodies: list[bytes], secret: str = "", key: str = "") -> tuple[float, float]:
    """POST each body once over 64 connections; Unix times of the first request and the last answer."""
    target = urlsplit(url)
    host, port = target.hostname or "", target.port or 80
    requests = iter([request(target.netloc, target.path, body, secret, key) for body in bodies])
    loop = asyncio.get_running_loop()
    started = time()
    clients = []
    for _ in range(CONNECTIONS):
        _, client = await loop.create_connection(lambda: Client(requests), host, port)
        clients.append(client.done)
    async with asyncio.timeout(LONGEST_S):
        await asyncio.gather(*clients)
    return started, time()


def signature(secret: str, body: bytes) -> str:
    """The header by which Meta vouches for a body."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def request(host: str, path: str, body: bytes, secret: str = "", key: str = "") -> bytes:
    """A webhook, or a request of the API, in bytes; vouched for by a secret or a key."""
    vouched = f"authorization: Bearer {key}" if key else f"x-hub-signature-256: {signature(secret, body)}"
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{vouched}\r\n\r\n"
    )
    return head.encode() + body


def webhooks(bench: Bench) -> Iterator[Line]:
    """One status a POST; ours until applied to its message, the idle server until it answered."""
    count = bench.size(WEBHOOKS)
    made_up = [
        (f"wamid.SINK{n:020d}", f"+{16502000000 + n}", f"00000000-0000-7000-8000-{n:012d}")
        for n in range(count)
    ]
    values = bench.rounds(
        {
            "receiver": lambda: receive(bench, bench.ground, count),
            "idle server": lambda: _idle(_delivered(made_up)),
        }
    )
    mine, idle = values.values()
    yield Line("status webhooks until applied", mine, "POST/s", "same server, idle", idle, at_least=0.3)


def _delivered(sent: Iterable[tuple[str, str, str]]) -> list[bytes]:
    at = int(time())
    return [
        status(wamid, "delivered", at, recipient_id=phone[1:], biz_opaque_callback_data=f"q:{queue_id}:1")
        for wamid, phone, queue_id in sent
    ]


def receive(bench: Bench, ground: Ground, count: int) -> float:
    """Webhooks a second until applied, of messages that were sent to this checkout's sink before."""
    with ground.database() as database:
        fill(database, count)
        with dispatcher(database, bench.ground.sink(0), "--drain") as sender:
            sender.wait()
        with database.connect() as connection:
            bodies = _delivered(connection.execute(SENT).fetchall())
        if len(bodies) != count:
            raise RuntimeError(f"{len(bodies)} of {count} sent")
        settle(database)
        receiver = WaProcess(
            "serve", "--port", "0", database=database, user="bench_receiver", WHATSAPP_APP_SECRET=SECRET
        )
        with receiver:
            url = "http://{host}:{port}{path}".format(**receiver.logged("serving"))
            started, answered = uvloop.run(post_all(url, bodies, SECRET))
            wait_for(lambda: _applied(database)[0] >= len(bodies), "all webhooks processed", every=0.2)
            receiver.signal()
            receiver.wait()
        processed, at, delivered = _applied(database)
        if delivered != len(bodies):
            raise RuntimeError(
                f"{processed} webhooks processed, {delivered} of {len(bodies)} messages delivered"
            )
        bench.note("receiver until answered", value=round(len(bodies) / (answered - started)))
        return len(bodies) / (at - started)


def _applied(database: Database) -> tuple[int, float, int]:
    row = database.query(APPLIED)[0]
    return row["n"], row["at"] or 0.0, row["delivered"]


def _idle(bodies: list[bytes]) -> float:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with module_process("bench.idle_server", str(port)):
        wait_for(lambda: _is_open(port), "the idle server listens", seconds=30)
        url = f"http://127.0.0.1:{port}{PATH}"
        started, answered = uvloop.run(post_all(url, bodies, SECRET))
    return len(bodies) / (answered - started)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def sink_capacity(bench: Bench) -> Iterator[Line]:
    """Whether the sink could ever be the limit: beside it the transport, which no contender outruns."""
    count = bench.size(MESSAGES)
    bodies = [b'{"messaging_product": "whatsapp", "to": "+16502000000"}'] * count
    values = bench.rounds(
        {
            "sink under load": lambda: _load_sink(bench, bodies),
            "transport alone": lambda: transport(bench.ground, 0, count),
        }
    )
    load, alone = values.values()
    yield Line("what the sink takes", load, "POST/s", "transport alone", alone)


def _load_sink(bench: Bench, bodies: list[bytes]) -> float:
    sink = bench.ground.sink(0)
    started, answered = uvloop.run(post_all(sink.messages_url, bodies))
    return len(bodies) / (answered - started)
