"""Sending one request: what is certain not to have left may be sent again, everything else may not."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate

import httpx
import pytest
from pg_whatsapp import transport
from pg_whatsapp.transport import Outcome, Reply

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BODY = b'{"to": "15551234567"}'


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


def answer(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def send(
    handler: Handler,
    *,
    times: int = 1,
    timeout_s: float = 10,
    scheme: str = "http",
    headers: dict[str, str] | None = None,
) -> list[Reply]:
    """Post `times` requests, one after the other, to a server that handles each connection so."""

    async def work() -> list[Reply]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handlers.add(asyncio.current_task())
            try:
                await handler(reader, writer)
            finally:
                writer.close()

        handlers: set[asyncio.Task[None] | None] = set()
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        http = transport.open_transport()
        url = httpx.URL(f"{scheme}://127.0.0.1:{port}/v1/1/messages")
        sent = httpx.Headers({"x-test": "yes"} | (headers or {}))
        try:
            return [await transport.post(http, url, sent, BODY, timeout_s) for _ in range(times)]
        finally:
            await http.aclose()
            server.close()
            # The end of the loop would cut them off, and say so.
            if running := [task for task in handlers if task is not None and not task.done()]:
                await asyncio.wait(running, timeout=2)

    return asyncio.run(work())


def test_a_complete_answer_is_parsed() -> None:
    seen: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(answer("200 OK", b'{"messages": [{"id": "wamid.1"}]}'))

    [reply] = send(accept)
    assert reply == Reply(Outcome.ANSWERED, 200, {"messages": [{"id": "wamid.1"}]})
    assert seen[0].startswith(b"POST /v1/1/messages HTTP/1.1\r\n")
    assert b"x-test: yes" in seen[0].lower()
    assert seen[0].endswith(BODY)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"cut', b'{"a": NaN}', b'"\xff"'], ids=repr)
def test_an_answer_that_is_no_json_is_still_an_answer(body: bytes) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer("503 Busy", body, "retry-after: 7"))

    assert send(garbage) == [Reply(Outcome.ANSWERED, 503, None, 7.0)]


def test_a_redirect_is_not_followed() -> None:
    requests = 0

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        requests += 1
        writer.write(answer("307 Elsewhere", b"", "location: /elsewhere", "connection: close"))

    assert send(redirect)[0].status == 307
    assert requests == 1


def test_nobody_listening_is_certain_not_to_have_left() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        async def work() -> Reply:
            http = transport.open_transport()
            try:
                url = httpx.URL(f"http://127.0.0.1:{port}/")
                return await transport.post(http, url, httpx.Headers(), BODY, 5)
            finally:
                await http.aclose()

        assert asyncio.run(work()).outcome is Outcome.NOT_SENT


def test_an_unknown_host_is_certain_not_to_have_left() -> None:
    async def work() -> Reply:
        http = transport.open_transport()
        try:
            return await transport.post(http, httpx.URL("http://host.invalid/"), httpx.Headers(), BODY, 20)
        finally:
            await http.aclose()

    assert asyncio.run(work()).outcome is Outcome.NOT_SENT


def test_a_failed_tls_handshake_is_certain_not_to_have_left() -> None:
    async def no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"not TLS at all, whatever you said\r\n")
        await writer.drain()

    assert send(no_tls, scheme="https")[0].outcome is Outcome.NOT_SENT


def test_a_tls_handshake_without_an_answer_is_certain_not_to_have_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    monkeypatch.setattr(transport, "CONNECT_TIMEOUT_S", 0.2)
    assert send(silent, scheme="https")[0].outcome is Outcome.NOT_SENT


def test_a_socket_cut_after_the_request_leaves_the_outcome_unknown() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.transport.abort()

    assert send(cut)[0].outcome is Outcome.UNKNOWN


def test_a_connection_closed_at_once_leaves_the_outcome_unknown() -> None:
    async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    # The request may have left before the end of the connection came in.
    assert send(close)[0].outcome is Outcome.UNKNOWN


def test_an_answer_cut_in_the_middle_leaves_the_outcome_unknown() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"messages"')
        await writer.drain()

    assert send(half)[0].outcome is Outcome.UNKNOWN


def test_an_answer_that_is_no_http_leaves_the_outcome_unknown() -> None:
    async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"\x00\x01\x02 what\r\n\r\n")
        await writer.drain()

    assert send(noise)[0].outcome is Outcome.UNKNOWN


def test_no_answer_in_time_leaves_the_outcome_unknown() -> None:
    async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await reader.read()

    assert send(hang, timeout_s=0.2)[0].outcome is Outcome.UNKNOWN


def test_a_kept_connection_that_dies_is_not_tried_again_in_secret() -> None:
    requests = 0

    async def one_then_cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        requests += 1
        writer.write(answer("200 OK", b"{}"))
        await writer.drain()
        await read_request(reader)
        requests += 1
        writer.transport.abort()

    replies = send(one_then_cut, times=2)
    assert [reply.outcome for reply in replies] == [Outcome.ANSWERED, Outcome.UNKNOWN]
    assert requests == 2


def test_an_answer_that_quotes_the_token_is_kept_without_it() -> None:
    async def quote(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_request(reader)
        token = head.split(b"Bearer ")[1].split(b"\r\n")[0]
        writer.write(answer("401 Unauthorized", b'{"error": {"message": "bad token ' + token + b'"}}'))
        await writer.drain()

    [reply] = send(quote, headers={"authorization": "Bearer EAAsecret"})
    assert reply.answer == {"error": {"message": "bad token [hidden]"}}


def test_nul_in_an_answer_becomes_storable() -> None:
    assert transport.parse_answer(b'{"a": "x\\u0000y"}') == {"a": "x\ufffdy"}


def sends_without_end(head: bytes, part: bytes, parts: int) -> tuple[Handler, list[int]]:
    """A server whose answer goes on and on, and how many parts of it were taken."""
    taken: list[int] = []

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        try:
            for n in range(parts):
                writer.write(part)
                await writer.drain()
                taken.append(n)
        except ConnectionError:
            pass

    return flood, taken


def test_of_a_huge_answer_a_mebibyte_is_read() -> None:
    handler, taken = sends_without_end(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"x" * (1 << 20), 500)
    [reply] = send(handler)
    assert (reply.outcome, reply.status, reply.answer) == (Outcome.ANSWERED, 200, None)
    # What the two sockets hold, not 500 MB.
    assert len(taken) < 50


def test_a_packed_answer_is_unpacked_and_one_that_swells_is_not() -> None:
    small = gzip.compress(b'{"messages": []}')
    bomb = gzip.compress(bytes(1 << 28), 9)

    async def pack(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for body in (small, bomb):
            await read_request(reader)
            writer.write(answer("200 OK", body, "content-encoding: gzip"))
            await writer.drain()

    first, second = send(pack, times=2)
    assert first.answer == {"messages": []}
    assert (second.outcome, second.answer) == (Outcome.ANSWERED, None)


@pytest.mark.parametrize("depth", [300, 900, 2000])
def test_an_answer_nested_too_deep_is_no_answer(depth: int) -> None:
    for start, end in ((b"[", b"]"), (b'{"a":', b"}")):
        inner = b"1" if start != b"[" else b""
        assert transport.parse_answer(start * depth + inner + end * depth) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("1.5", 1.5),
        ("-1", None),
        ("soon", None),
        ("nan", None),
        ("1e999", None),
        ("9" * 5000, None),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2030 00:00:00 +9999999", None),
        ("", None),
    ],
)
def test_retry_after_in_seconds(value: str | None, seconds: float | None) -> None:
    assert transport.parse_retry_after(value) == seconds


def test_retry_after_as_a_date() -> None:
    waits = transport.parse_retry_after(formatdate(time.time() + 90, usegmt=True))
    assert waits is not None
    assert 60 < waits <= 90
    assert transport.parse_retry_after(formatdate(time.time() - 90, usegmt=True)) is None
