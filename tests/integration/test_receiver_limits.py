"""What clients may cost the receiver before it knows who they are.

Tests bin/pg_whatsapp/http_guard.py, bin/pg_whatsapp/receiver.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from api_server import BASE, ApiServer
from harness import Database
from simulated import wait_until
from test_serve import ENV, PATH, Serving, message, prepare, serve, signature

__all__ = ["serve"]
pytestmark = pytest.mark.slow
HEAD = f"POST {PATH} HTTP/1.1\r\nhost: here\r\n"


Connect = Callable[..., list[socket.socket]]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Opens connections to a receiver."""
    made: list[socket.socket] = []

    def make(serving: Serving, count: int = 1) -> list[socket.socket]:
        address = ("127.0.0.1", serving.client.base_url.port)
        opened = [socket.create_connection(address, timeout=60) for _ in range(count)]
        made.extend(opened)
        return opened

    yield make
    for one in made:
        one.close()


@pytest.fixture
def serving(db: Database, serve: Callable[..., Serving]) -> Serving:
    prepare(db)
    return serve(db, **ENV)


def memory_mb(serving: Serving) -> float:
    status = Path(f"/proc/{serving.process.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def pour(one: socket.socket, head: bytes, part: bytes, parts: int) -> int:
    """Send until the other side has had enough; how many parts it took."""
    taken = 0
    with contextlib.suppress(OSError):
        one.sendall(head)
        while taken < parts:
            one.sendall(part)
            taken += 1
    return taken


def answer_of(one: socket.socket) -> bytes:
    with contextlib.suppress(OSError):
        return one.recv(100)
    return b""


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (HEAD.encode() + b"x-long: ", b"x" * (1 << 20)),
        (f"GET {PATH}?hub.verify_token=".encode(), b"x" * (1 << 20)),
        (HEAD.encode(), b"x-many: 1\r\n" * 100_000),
        # Trailers of a body in chunks.
        (HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n0\r\nx-trailer: ", b"x" * (1 << 20)),
    ],
)
def test_an_endless_head_is_cut_off(serving: Serving, connect: Connect, head: bytes, part: bytes) -> None:
    before = memory_mb(serving)
    [one] = connect(serving)
    assert pour(one, head, part, 300) < 100
    assert memory_mb(serving) - before < 100
    body = message("wamid.1")
    assert serving.post(body).status_code == 200


def test_a_head_of_the_usual_size_is_taken_and_one_just_too_large_is_told_so(serving: Serving) -> None:
    body = message("wamid.1")
    for size, status in ((8_000, 200), (40_000, 431)):
        answer = serving.client.post(PATH, content=body, headers=signature(body) | {"x-long": "x" * size})
        assert answer.status_code == status
    assert serving.post(body).status_code == 200


def test_stalled_bodies_hold_little_and_the_slowest_go_first(serving: Serving, connect: Connect) -> None:
    before = memory_mb(serving)
    stalled = connect(serving, 60)
    head = HEAD.encode() + b"content-length: 10000000\r\n\r\n"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: pour(one, head, b"x" * 1_000_000, 9), stalled))
    # 540 MB were sent.
    assert memory_mb(serving) - before < 250
    body = message("wamid.1")
    assert serving.post(body).status_code == 200


def test_honest_requests_beside_many_slow_ones_lose_nothing(
    db: Database, serving: Serving, connect: Connect
) -> None:
    slow = connect(serving, 1500)
    for one in slow:
        one.sendall(HEAD.encode())
    bodies = [message(f"wamid.{n}", sender=f"1555{1000000 + n}") for n in range(500)]

    async def send_all() -> list[int]:
        async def send(body: bytes) -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", serving.client.base_url.port)
            lines = [f"{name}: {value}" for name, value in signature(body).items()]
            writer.write(
                (HEAD + "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])).encode() + body
            )
            status = int((await reader.readline()).split()[1])
            writer.close()
            return status

        return await asyncio.gather(*(send(body) for body in bodies))

    # What was told to repeat, the provider repeats.
    assert set(asyncio.run(send_all())) == {200}
    wait_until(lambda: db.query("SELECT count(*) FROM wa_messages")[0]["count"] == 500)
    # Those that never finish are ended.
    began = time.monotonic()
    for one in slow:
        one.settimeout(max(0.1, 30 - (time.monotonic() - began)))
        assert b"408" in answer_of(one)


def test_wrong_verify_tokens_are_slowed_and_the_right_one_is_not(serving: Serving) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(40) as pool:
        guesses = [pool.submit(serving.verify, f"guess {n}") for n in range(40)]
        wait_until(lambda: sum(guess.done() for guess in guesses) >= 29)
        assert serving.verify("verify-me").status_code == 200
        statuses = [guess.result().status_code for guess in guesses]
    assert set(statuses) == {403, 429}
    # Ten wait their turn of a second each.
    assert statuses.count(403) <= 1 + time.monotonic() - began


def test_an_address_that_a_client_names_itself_counts_for_nothing(
    db: Database, serve: Callable[..., Serving]
) -> None:
    prepare(db)
    body = message("wamid.1")
    forwarded = signature(body) | {"x-forwarded-for": "203.0.113.9"}
    for env, source in (({}, "127.0.0.1"), ({"WA_TRUSTED_PROXIES": "127.0.0.1"}, "203.0.113.9")):
        db.query("DELETE FROM wa_webhook_logs")
        serving = serve(db, **ENV, **env)
        assert serving.post(body, forwarded).status_code == 200
        assert db.query("SELECT source FROM wa_webhook_logs") == [{"source": source}]


def test_a_source_may_be_bounded(db: Database, serve: Callable[..., Serving], connect: Connect) -> None:
    prepare(db)
    serving = serve(db, **ENV, WA_TRUSTED_PROXIES="127.0.0.1", WA_MOST_PER_SOURCE="2")
    body = message("wamid.1")

    def post(source: str) -> int:
        return serving.post(body, signature(body) | {"x-forwarded-for": source}).status_code

    held = connect(serving, 2)
    for one in held:
        one.sendall((HEAD + "x-forwarded-for: 203.0.113.9\r\ncontent-length: 9\r\n\r\n").encode())
    wait_until(lambda: post("203.0.113.9") == 429)
    assert post("203.0.113.10") == 200
    for one in held:
        one.close()
    wait_until(lambda: post("203.0.113.9") == 200)


def test_health_tells_what_would_keep_webhooks_out(
    db: Database, bare_db: Database, serve: Callable[..., Serving], make_role: Callable[..., str]
) -> None:
    def health(serving: Serving) -> tuple[int, str]:
        answer = serving.client.get("/healthz")
        return answer.status_code, answer.text

    assert health(serve(db, make_role("wa_receiver"), **ENV)) == (200, "ok")
    assert health(serve(db, make_role("wa_analyst"), **ENV)) == (503, "role may not receive webhooks")
    with bare_db.connect() as session:
        session.execute("CREATE EXTENSION pg_whatsapp CASCADE")
    assert health(serve(bare_db, **ENV))[0] == 503


def test_answers_that_nobody_takes_keep_neither_memory_nor_places(
    world: Database, make_role: Callable[..., str]
) -> None:
    world.query("SELECT world.wrote(1)")
    # Twenty mebibytes a page: more than the system takes off the server's hands.
    world.query(
        "INSERT INTO wa_messages"
        " (number_id, contact_id, direction, message_type, status, state, content_text)"
        " SELECT number_id, contact_id, 'inbound', 'text', 'received', 'received', repeat('x', 65000)"
        " FROM wa_conversation_windows, generate_series(1, 320)"
    )
    api = ApiServer(world, make_role)
    address = (str(api.client.base_url.host), int(api.client.base_url.port or 0))
    page = (
        f"GET {BASE}/conversations/+5491140000001?limit=500 HTTP/1.1\r\nhost: x\r\napikey: {api.key}\r\n\r\n"
    )
    idle = [socket.create_connection(address) for _ in range(10)]
    try:
        for one in idle:
            one.sendall(page.encode())
        api.process.logged("requests cut off: too slow, or too many at once")
        assert api.client.get(f"{BASE}/templates").status_code == 200
    finally:
        for one in idle:
            one.close()
        api.process.kill()
        api.client.close()
        world.query("DELETE FROM wa_organization_roles")
