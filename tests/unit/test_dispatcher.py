"""Sending in order and in time, and recording what became of it, without a database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic, sleep
from typing import Any, cast

import httpx
import orjson
import psycopg
import pytest
from pg_whatsapp import config
from pg_whatsapp.credentials import Credentials
from pg_whatsapp.db import Link
from pg_whatsapp.recorder import FULL_BATCH, Recorder
from pg_whatsapp.sender import Claim, Sender

ORGANIZATION = "0192f0c1-1111-7222-8333-444455556666"
NUMBER = "106540352242922"

LATE_S = 0.05


def claim(
    name: str,
    order_key: str | None = None,
    *,
    number: str = NUMBER,
    provider: str = "meta",
    start_in_s: float = 0.0,
) -> Claim:
    body = orjson.dumps({"name": name}).decode()
    path = f"/{number}/messages"
    return Claim(ORGANIZATION, name, 1, order_key or name, number, provider, path, body, 5.0, start_in_s, 0.0)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0)


class Provider:
    """Answers requests as `behave` says, and remembers them and how many were under way at once."""

    def __init__(self, behave: Callable[[str], Awaitable[httpx.Response]]) -> None:
        self.behave = behave
        self.requests: list[httpx.Request] = []
        self.order: list[str] = []
        self.most_at_once = 0
        self._now = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        name = orjson.loads(request.content)["name"]
        self.order.append(name)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(0)
        response = await self.behave(name)
        self._now -= 1
        return response


async def accept(_name: str) -> httpx.Response:
    return httpx.Response(200, json={"messages": [{"id": "wamid.1"}]})


class Nothing:
    """A database with no token in it."""

    async def fetch(self, statement: str) -> list[tuple[str]]:
        return [(ORGANIZATION,)] if "environment" in statement else []


def read() -> Credentials:
    made = Credentials(config.load(), None)
    asyncio.run(made.refresh(cast(Link, Nothing())))
    return made


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> Credentials:
    monkeypatch.setenv("WHATSAPP_ACCESS_TOKEN", "EAA")
    return read()


def run(
    provider: Provider,
    credentials: Credentials,
    claims: list[Claim],
    *,
    concurrency: int = 10,
    age_s: float = 0.0,
    meanwhile: Callable[[Sender], Awaitable[None]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Send claims; returns the results by queue id."""
    results: list[dict[str, Any]] = []

    async def work() -> None:
        http = httpx.MockTransport(provider)
        sender = Sender(
            http,
            credentials,
            results.append,
            concurrency=concurrency,
            start_within_s=0.8,
            late_within_s=LATE_S,
        )
        sender.start()
        sender.offer(claims, monotonic() - age_s)
        if meanwhile is not None:
            await meanwhile(sender)
        await until(lambda: sender.is_idle)
        sender.stop()
        await sender.close()
        assert sender.free(0) == concurrency

    asyncio.run(work())
    assert len(results) == len(claims)
    return {result["id"]: result for result in results}


def test_an_accepted_message_is_answered(credentials: Credentials) -> None:
    provider = Provider(accept)
    result = run(provider, credentials, [claim("a")])["a"]
    assert (result["org"], result["attempt"], result["outcome"], result["status"]) == (
        ORGANIZATION,
        1,
        "answered",
        200,
    )
    assert result["answer"] == {"messages": [{"id": "wamid.1"}]}
    [request] = provider.requests
    assert str(request.url) == f"https://graph.facebook.com/v25.0/{NUMBER}/messages"
    assert request.headers["authorization"] == "Bearer EAA"
    assert request.headers["content-type"] == "application/json"


def test_many_at_once_but_never_more_than_allowed(credentials: Credentials) -> None:
    provider = Provider(accept)
    run(provider, credentials, [claim(str(n)) for n in range(100)], concurrency=7)
    assert provider.most_at_once == 7


def test_one_order_key_goes_one_after_the_other(credentials: Credentials) -> None:
    provider = Provider(accept)
    names = [f"{key}{n}" for n in range(5) for key in "ab"]
    run(provider, credentials, [claim(name, name[0]) for name in names])
    for key in "ab":
        assert [name for name in provider.order if name[0] == key] == [f"{key}{n}" for n in range(5)]
    assert provider.most_at_once == 2


def test_a_later_claim_of_a_key_that_is_busy_waits_its_turn(credentials: Credentials) -> None:
    release = asyncio.Event()

    async def slow(name: str) -> httpx.Response:
        if name == "first":
            await release.wait()
        return await accept(name)

    provider = Provider(slow)

    async def meanwhile(sender: Sender) -> None:
        await until(lambda: provider.order)
        sender.offer([claim("second", "key")], monotonic())
        sender.offer([claim("other")], monotonic())
        await until(lambda: len(provider.order) >= 2)
        assert provider.order == ["first", "other"]
        release.set()

    results: list[dict[str, Any]] = []

    async def work() -> None:
        sender = Sender(
            httpx.MockTransport(provider),
            credentials,
            results.append,
            concurrency=10,
            start_within_s=10,
            late_within_s=LATE_S,
        )
        sender.start()
        sender.offer([claim("first", "key")], monotonic())
        await meanwhile(sender)
        await until(lambda: sender.is_idle)
        await sender.close()

    asyncio.run(work())
    assert provider.order == ["first", "other", "second"]


def test_what_follows_a_refused_message_goes_back(credentials: Credentials) -> None:
    async def refuse_second(name: str) -> httpx.Response:
        if name == "a1":
            return httpx.Response(400, json={"error": {"code": 131056}})
        return await accept(name)

    provider = Provider(refuse_second)
    results = run(provider, credentials, [claim(f"a{n}", "a") for n in range(4)] + [claim("b0", "b")])
    assert [results[f"a{n}"]["outcome"] for n in range(4)] == [
        "answered",
        "answered",
        "not_started",
        "not_started",
    ]
    assert results["a1"]["answer"] == {"error": {"code": 131056}}
    assert results["b0"]["outcome"] == "answered"
    assert "a2" not in provider.order


def test_a_stale_grant_goes_back(credentials: Credentials) -> None:
    provider = Provider(accept)
    assert run(provider, credentials, [claim("a")], age_s=0.9)["a"]["outcome"] == "not_started"
    assert provider.order == []


def test_a_message_starts_at_its_time_and_not_before(credentials: Credentials) -> None:
    started: dict[str, float] = {}

    async def note(name: str) -> httpx.Response:
        started[name] = monotonic()
        return await accept(name)

    claims = [claim("later", start_in_s=0.2), claim("at once"), claim("last", "at once", start_in_s=0.3)]
    before = monotonic()
    run(Provider(note), credentials, claims, concurrency=1)
    assert list(started) == ["at once", "later", "last"]
    assert started["later"] - before >= 0.2
    assert started["last"] - before >= 0.3


def test_what_a_stalled_process_missed_goes_back_instead_of_in_a_burst(credentials: Credentials) -> None:
    provider = Provider(accept)

    async def meanwhile(sender: Sender) -> None:
        await asyncio.sleep(0)
        sleep(0.4)  # noqa: ASYNC251 - the loop stalls

    claims = [claim("missed", start_in_s=0.1), claim("after it", "missed"), claim("on time", start_in_s=0.6)]
    results = run(provider, credentials, claims, meanwhile=meanwhile)
    assert {name: result["outcome"] for name, result in results.items()} == {
        "missed": "not_started", "after it": "not_started", "on time": "answered",
    }  # fmt: skip


def test_stopping_hands_back_what_waits_for_its_time(credentials: Credentials) -> None:
    async def meanwhile(sender: Sender) -> None:
        sender.stop()

    results = run(Provider(accept), credentials, [claim("later", start_in_s=0.5)], meanwhile=meanwhile)
    assert results["later"]["outcome"] == "not_started"


def test_a_failure_of_the_transport_is_recorded_with_its_class(credentials: Credentials) -> None:
    async def cut(_name: str) -> httpx.Response:
        raise httpx.ReadError("cut")

    result = run(Provider(cut), credentials, [claim("a")])["a"]
    assert (result["outcome"], result["error"], result["status"]) == ("unknown", "ReadError", None)


def test_stopping_finishes_what_is_under_way_and_hands_back_the_rest(credentials: Credentials) -> None:
    async def meanwhile(sender: Sender) -> None:
        await until(lambda: sender.in_flight >= 3)
        sender.stop()

    provider = Provider(accept)
    results = run(
        provider, credentials, [claim(str(n)) for n in range(9)], concurrency=3, meanwhile=meanwhile
    )
    outcomes = [result["outcome"] for result in results.values()]
    assert outcomes.count("answered") == len(provider.order) == 3
    assert outcomes.count("not_started") == 6


def test_a_number_without_a_token_is_handed_back() -> None:
    provider = Provider(accept)
    results = run(
        provider, Credentials(config.load(), None), [claim("a"), claim("b", provider="carrier-pigeon")]
    )
    assert {result["outcome"] for result in results.values()} == {"not_started"}
    assert provider.order == []


def test_the_token_of_the_environment_is_the_default_organizations(credentials: Credentials) -> None:
    provider = Provider(accept)
    foreign = claim("theirs")._replace(organization="00000000-0000-0000-0000-0000000000ff")
    results = run(provider, credentials, [foreign, claim("ours")])
    assert results["theirs"]["outcome"] == "not_started"
    assert provider.order == ["ours"]


def test_a_refusal_says_which_token_was_used(credentials: Credentials) -> None:
    async def refuse(name: str) -> httpx.Response:
        return httpx.Response(401) if name == "refused" else await accept(name)

    results = run(Provider(refuse), credentials, [claim("refused"), claim("accepted")])
    assert (results["refused"]["number"], results["refused"]["secret_id"]) == (NUMBER, None)
    assert "secret_id" not in results["accepted"]


def test_the_token_of_the_environment_goes_to_its_own_provider_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHATSAPP_ACCESS_TOKEN", "D360-secret")
    monkeypatch.setenv("WHATSAPP_PROVIDER", "360dialog")
    provider = Provider(accept)
    results = run(provider, read(), [claim("m"), claim("d", provider="360dialog")])
    assert results["m"]["outcome"] == "not_started"
    assert results["d"]["outcome"] == "answered"
    [request] = provider.requests
    assert request.url.host == "waba-v2.360dialog.io"
    assert request.headers["d360-api-key"] == "D360-secret"
    assert "authorization" not in request.headers


def test_room_is_announced_when_enough_is_free(credentials: Credentials) -> None:
    release = asyncio.Event()

    async def wait(name: str) -> httpx.Response:
        await release.wait()
        return await accept(name)

    async def work() -> None:
        sender = Sender(
            httpx.MockTransport(Provider(wait)),
            credentials,
            lambda _: None,
            concurrency=4,
            start_within_s=10,
            late_within_s=LATE_S,
        )
        sender.start()
        sender.offer([claim(str(n)) for n in range(6)], monotonic())
        assert sender.free(0) == -2
        assert sender.free(2) == 0
        room = asyncio.create_task(sender.wait_for_room(3, 2))
        await asyncio.sleep(0)
        assert not room.done()
        release.set()
        await room
        assert sender.free(2) >= 3
        sender.stop()
        await sender.close()

    asyncio.run(work())


class Database:
    """Takes results as complete_wa_messages() does; `refuse` decides which batches fail, and how."""

    def __init__(
        self, refuse: Callable[[list[dict[str, Any]]], psycopg.Error | None] = lambda _: None
    ) -> None:
        self.refuse = refuse
        self.calls: list[list[dict[str, Any]]] = []
        self.stored: dict[str, dict[str, Any]] = {}

    async def persist(self, _statement: str, _dispatcher: str, results: str) -> list[tuple[int]]:
        batch = orjson.loads(results)
        self.calls.append(batch)
        if (error := self.refuse(batch)) is not None:
            raise error
        self.stored |= {result["id"]: result for result in batch}
        return [(len(batch),)]


def record(database: Database, results: list[dict[str, Any]]) -> Recorder:
    async def work() -> Recorder:
        recorder = Recorder(database, "dispatcher", lambda: False)  # type: ignore[arg-type]
        task = asyncio.create_task(recorder.run(lambda: None))
        for result in results:
            recorder.add(result)
        await recorder.drained()
        task.cancel()
        return recorder

    return asyncio.run(work())


def result(name: str, answer: Any = None) -> dict[str, Any]:
    return {"id": name, "outcome": "answered", "answer": answer}


def test_results_are_recorded_in_batches() -> None:
    database = Database()
    assert record(database, [result(str(n)) for n in range(FULL_BATCH * 3)]).pending == 0
    assert len(database.stored) == FULL_BATCH * 3
    assert len(database.calls) == 1


def test_one_result_that_cannot_be_stored_holds_up_no_other() -> None:
    def refuse(batch: list[dict[str, Any]]) -> psycopg.Error | None:
        return psycopg.errors.UntranslatableCharacter() if any(r["answer"] == "bad" for r in batch) else None

    database = Database(refuse)
    record(database, [result(str(n), "bad" if n == 37 else "good") for n in range(64)])
    assert len(database.stored) == 64
    assert database.stored["37"]["answer"] is None
    assert database.stored["36"]["answer"] == "good"


def test_a_passing_failure_is_tried_again_as_a_whole() -> None:
    failures = [psycopg.errors.DeadlockDetected(), psycopg.errors.LockNotAvailable()]
    database = Database(lambda _: failures.pop() if failures else None)
    record(database, [result("a"), result("b")])
    assert [len(call) for call in database.calls] == [2, 2, 2]


def test_what_was_started_and_cannot_be_recorded_counts_as_held() -> None:
    database = Database(
        lambda batch: psycopg.errors.DataException() if any(r["id"] == "b" for r in batch) else None
    )
    recorder = record(database, [result("a"), result("b"), result("c")])
    assert sorted(database.stored) == ["a", "c"]
    assert recorder.held() == ["b"]
