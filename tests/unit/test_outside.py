"""Calls to URLs of tenants: where they lead, and what an answer may cost. Receivers are real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from certificates import Authority
from event_sink import Reply, Sink
from pg_whatsapp import outside
from pg_whatsapp.outside import Answer, NotAllowedError, OutsideTransport, Resolver, read_rules

INSIDE = ["127.0.0.0/8", "::/3", "10.0.0.0/8", "fc00::/7", "2002::/16"]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def rules(*allowed: str, plain: bool = True) -> outside.Rules:
    return read_rules(plain, allowed, INSIDE)


def names(*answers: list[str]) -> tuple[Resolver, list[str]]:
    """A resolver that gives one answer after the other, the last one for ever; and what it was asked."""
    asked: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolver, asked


def call(
    url: str,
    chosen: outside.Rules,
    *,
    resolver: Resolver = outside.resolve,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 10,
    largest: int = 1000,
    times: int = 1,
    between: Callable[[OutsideTransport], None] = lambda door: None,
) -> list[Answer]:
    """Make calls one after the other with the same transport; `between` is called before each further one."""

    async def work() -> list[Answer]:
        door = OutsideTransport(chosen, resolver=resolver, tls=tls)
        answers = []
        try:
            for number in range(times):
                if number:
                    between(door)
                answers.append(
                    await outside.call(door, "POST", url, body=b"{}", timeout_s=timeout_s, largest=largest)
                )
        finally:
            await door.aclose()
        return answers

    return asyncio.run(work())


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as made:
        yield made


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_what_is_allowed_is_called(sink: Sink) -> None:
    (answer,) = call(sink.url, rules("127.0.0.0/8"))
    assert (answer.status, answer.body, answer.is_whole) == (204, b"", True)
    (got,) = sink.got
    assert got.raw == b"{}"
    assert got.headers["host"] == f"127.0.0.1:{sink.port}"
    assert got.headers["user-agent"].startswith("pg_whatsapp/")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "0",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ],
)  # fmt: skip
def test_this_host_is_not_called_in_any_of_its_forms(sink: Sink, host: str) -> None:
    closed = read_rules(True, [], [*INSIDE, "0.0.0.0/8"])
    with pytest.raises(NotAllowedError):
        call(f"http://{host}:{sink.port}/hook", closed)
    assert sink.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1:{port}/", "file:///etc/passwd", "gopher://127.0.0.1:{port}/", "//127.0.0.1:{port}/",
        "http://user@127.0.0.1:{port}/", "http://user:word@127.0.0.1:{port}/", "http://127.0.0.1:99999999/",
        "http:///hook", "127.0.0.1", "http://127.0.0.1 :{port}/", "http://127.0.0.1:{port}\r\nX: y/",
    ],
)  # fmt: skip
def test_nothing_but_plain_urls_of_the_web(sink: Sink, url: str) -> None:
    with pytest.raises(NotAllowedError):
        call(url.format(port=sink.port), rules("127.0.0.0/8"))
    assert sink.connections == 0


def test_http_only_where_it_is_allowed(sink: Sink) -> None:
    with pytest.raises(NotAllowedError):
        call(sink.url, rules("127.0.0.0/8", plain=False))
    assert sink.connections == 0


def test_before_the_rules_are_known_nothing_is_called(sink: Sink) -> None:
    with pytest.raises(NotAllowedError):
        call(sink.url, outside.CLOSED._replace(allows_plain_http=True))
    with pytest.raises(NotAllowedError):
        call("https://example.com", outside.CLOSED, resolver=names(["93.184.216.34"])[0])


def test_a_name_is_looked_up_once_and_called_where_it_led() -> None:
    """Whoever owns the name answers with an address inside the next time he is asked."""
    with Sink(address="127.0.0.2") as meant, Sink(address="127.0.0.1", port=meant.port) as inside:
        resolver, asked = names(["127.0.0.2"], ["127.0.0.1"])
        only = read_rules(True, ["127.0.0.2/32"], INSIDE)
        call(f"http://rebinding.example:{meant.port}/hook", only, resolver=resolver)
        assert asked == ["rebinding.example"]
        assert len(meant.got) == 1
        assert meant.got[0].headers["host"] == f"rebinding.example:{meant.port}"
        with pytest.raises(NotAllowedError):
            call(f"http://rebinding.example:{meant.port}/hook", only, resolver=resolver)
        assert inside.connections == 0


def test_of_several_addresses_only_the_allowed_are_tried(sink: Sink) -> None:
    resolver, _ = names(["127.0.0.9", "::1", "10.0.0.1", "127.0.0.3", "127.0.0.1"])
    # Nobody listens at the first that is allowed.
    only = read_rules(True, ["127.0.0.3/32", "127.0.0.1/32"], INSIDE)
    (answer,) = call(f"http://several.example:{sink.port}/hook", only, resolver=resolver)
    assert answer.status == 204
    with pytest.raises(NotAllowedError):
        call(f"http://several.example:{sink.port}/hook", rules(), resolver=resolver)


def test_redirects_are_answers_like_others(sink: Sink) -> None:
    with Sink(lambda got: Reply(307, (("Location", sink.url),))) as elsewhere:
        (answer,) = call(elsewhere.url, rules("127.0.0.0/8"))
    assert answer.status == 307
    assert sink.connections == 0


def test_proxies_of_the_environment_are_not_asked(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sink() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        call(sink.url, rules("127.0.0.0/8"))
        assert (len(sink.got), proxy.connections) == (1, 0)


def test_a_connection_is_used_again_while_its_address_may_be_called(sink: Sink) -> None:
    assert len(call(sink.url, rules("127.0.0.0/8"), times=3)) == 3
    assert (len(sink.got), sink.connections) == (3, 1)

    def forbid(door: OutsideTransport) -> None:
        door.rules = rules()

    with pytest.raises(NotAllowedError):
        call(sink.url, rules("127.0.0.0/8"), times=2, between=forbid)
    assert len(sink.got) == 4


def test_the_certificate_is_that_of_the_name(authority: Authority) -> None:
    resolver, _ = names(["127.0.0.1"])
    seen: list[str | None] = []
    context = authority.server("right.example")
    context.sni_callback = lambda _socket, name, _context: seen.append(name)  # type: ignore[assignment]
    with Sink(tls=context) as sink:
        url = f"https://right.example:{sink.port}/hook"
        (answer,) = call(url, rules("127.0.0.0/8"), resolver=resolver, tls=authority.client())
        assert answer.status == 204
        assert seen == ["right.example"]
        assert sink.got[0].headers["host"] == f"right.example:{sink.port}"
        for wrong, tls, said in (
            ("wrong.example", authority.client(), "certificate: Hostname mismatch"),
            ("right.example", None, "certificate: unable to get local issuer certificate"),
        ):
            with pytest.raises(httpx.ConnectError) as raised:
                call(f"https://{wrong}:{sink.port}/hook", rules("127.0.0.0/8"), resolver=resolver, tls=tls)
            assert outside.why(raised.value).startswith(said)
        assert len(sink.got) == 1


def test_plain_http_where_tls_is_expected_is_no_tls(sink: Sink) -> None:
    with pytest.raises(httpx.ConnectError) as raised:
        call(sink.url.replace("http:", "https:"), rules("127.0.0.0/8"))
    assert outside.why(raised.value) == "no TLS"


def test_a_name_without_address_says_so() -> None:
    async def nowhere(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no")

    with pytest.raises(httpx.ConnectError) as raised:
        call("https://nowhere.example/", rules(), resolver=nowhere)
    assert outside.why(raised.value) == "the name has no address"


def test_a_port_where_nobody_listens_says_no_more_than_that() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(httpx.ConnectError) as raised:
        call(f"http://127.0.0.1:{port}/", rules("127.0.0.0/8"))
    assert outside.why(raised.value) == "no connection"


def endless(part: bytes) -> Iterator[bytes]:
    while True:
        yield part


def test_no_more_of_a_body_is_read_than_was_asked_for() -> None:
    with Sink(lambda got: Reply(200, (), endless(b"x" * 1000))) as sink:
        (answer,) = call(sink.url, rules("127.0.0.0/8"), largest=2500)
    assert (answer.status, answer.body, answer.is_whole) == (200, b"x" * 2500, False)


def served(handler: Handler, timeout_s: float = 10) -> Exception:
    """The error of a call to a server that handles its connection so."""

    async def work() -> Exception:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readuntil(b"\r\n\r\n")
                await handler(reader, writer)
            except OSError:
                pass
            finally:
                writer.close()
                ended.set()

        ended = asyncio.Event()
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        door = OutsideTransport(rules("127.0.0.0/8"))
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        try:
            await outside.call(door, "POST", url, body=b"{}", timeout_s=timeout_s)
        except Exception as error:
            return error
        finally:
            await door.aclose()
            server.close()
            # The connection was closed from our side, or the server would not have come to its end.
            async with asyncio.timeout(10):
                await ended.wait()
        raise AssertionError("it was answered")

    return asyncio.run(work())


def test_a_slow_drip_ends_with_the_time_that_a_call_may_take() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def drip_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    for handler in (drip, drip_head):
        error = served(handler, timeout_s=0.3)
        assert isinstance(error, TimeoutError)
        assert outside.why(error) == "no answer in time"


def test_a_head_without_end_is_cut() -> None:
    async def head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x-header: " + b"y" * 1000 + b"\r\n")
            await writer.drain()

    assert isinstance(served(head), httpx.RemoteProtocolError | outside.TooLargeError)


def test_provisional_answers_without_end_are_cut() -> None:
    async def informational(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await writer.drain()

    assert isinstance(served(informational), outside.TooLargeError)


def test_what_is_no_http_says_so() -> None:
    async def ssh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        await writer.drain()

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass

    assert outside.why(served(ssh)) == "not an answer in HTTP"
    assert outside.why(served(nothing)) == "not an answer in HTTP"


def test_names_that_nobody_resolves_hold_up_no_others() -> None:
    """A name server of a tenant's that never answers keeps its own call waiting."""

    async def work() -> None:
        never = asyncio.Event()

        async def resolver(host: str, port: int) -> list[str]:
            if host == "slow.example":
                await never.wait()
            return ["127.0.0.1"]

        door = OutsideTransport(rules("127.0.0.0/8"), resolver=resolver)
        with Sink() as sink:
            slow = [
                asyncio.create_task(
                    outside.call(door, "POST", f"http://slow.example:{sink.port}/", timeout_s=30)
                )
                for _ in range(50)
            ]
            await asyncio.sleep(0)
            answer = await outside.call(door, "POST", f"http://quick.example:{sink.port}/", timeout_s=10)
            assert answer.status == 204
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
            assert len(sink.got) == 1
        await door.aclose()

    asyncio.run(work())


def test_it_serves_httpx_clients(sink: Sink) -> None:
    async def work() -> None:
        async with httpx.AsyncClient(transport=OutsideTransport(rules("127.0.0.0/8"))) as client:
            assert (await client.post(sink.url, json={"a": 1})).status_code == 204
            with pytest.raises(NotAllowedError):
                await client.post(sink.url.replace("127.0.0.1", "[::1]"))

    asyncio.run(work())
    assert sink.got[0].body == {"a": 1}
