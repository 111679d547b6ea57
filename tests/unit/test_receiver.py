"""The receiver's parts without a database: sharing commits, and what happens when one of its parts fails."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from pg_whatsapp import webhook_batcher
from pg_whatsapp.providers import PROVIDERS
from pg_whatsapp.webhook_batcher import NotStoredError, OverreachError, WebhookBatcher


class Database:
    """Takes bodies as ingest_wa_webhooks() does, when it is let; `error` makes it fail."""

    def __init__(self, error: psycopg.Error | None = None) -> None:
        self.error = error
        self.calls: list[list[bytes]] = []
        self.open = asyncio.Event()

    async def fetch(
        self, _statement: str, bodies: list[bytes], sources: list[str], _provider: str, secrets: list[str]
    ) -> list[Any]:
        assert len(bodies) == len(sources) == len(secrets)
        await self.open.wait()
        self.calls.append(bodies)
        if self.error is not None:
            raise self.error
        return []


async def store_all(database: Database, bodies: list[bytes]) -> tuple[list[BaseException | None], int]:
    stored = 0

    def on_stored() -> None:
        nonlocal stored
        stored += 1

    batcher = WebhookBatcher(database, on_stored)  # type: ignore[arg-type]
    running = asyncio.create_task(batcher.run())
    waiting = [
        asyncio.create_task(batcher.store(body, "203.0.113.9", ["a"], PROVIDERS["meta"])) for body in bodies
    ]
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.01, database.open.set)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    running.cancel()
    return results, stored


def test_requests_that_come_together_share_a_commit() -> None:
    async def work() -> None:
        database = Database()
        results, commits = await store_all(database, [b"%d" % n for n in range(50)])
        assert results == [None] * 50
        assert sum(len(call) for call in database.calls) == 50
        assert len(database.calls) == commits <= 2

    asyncio.run(work())


def test_a_failed_commit_fails_its_requests() -> None:
    async def work() -> None:
        results, commits = await store_all(Database(psycopg.OperationalError("away")), [b"a", b"b"])
        assert [type(result) for result in results] == [NotStoredError, NotStoredError]
        assert commits == 0

    asyncio.run(work())


def test_a_request_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        batcher = WebhookBatcher(Database(), lambda: None)  # type: ignore[arg-type]
        running = [asyncio.create_task(part) for part in (batcher.run(), batcher.give_up())]
        waiting = [
            asyncio.create_task(batcher.store(body, None, [], PROVIDERS["meta"])) for body in (b"a", b"b")
        ]
        # What came first is with the database by now; the next waits for it.
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(batcher.store(b"c", None, [], PROVIDERS["meta"])))
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [NotStoredError] * 3
        for task in running:
            task.cancel()

    monkeypatch.setattr(webhook_batcher, "PATIENCE_S", 0.01)
    monkeypatch.setattr(webhook_batcher, "LOOK_S", 0.005)
    asyncio.run(work())


def test_what_a_secret_vouches_for_is_stored_apart_and_may_be_refused() -> None:
    calls: list[tuple[Any, ...]] = []

    class Vouching(Database):
        async def fetch(self, statement: str, *params: list[Any]) -> list[Any]:
            calls.append(params)
            return [[[7, None]]] if "vouched" in statement else [[[6]]]

    async def work() -> None:
        batcher = WebhookBatcher(Vouching(), lambda: None)  # type: ignore[arg-type]
        requests = [(b"signed", ["c"]), (b"own", ["a", "b"]), (b"another's", ["a"])]
        waiting = [
            asyncio.create_task(
                batcher.store(body, "here", ids, PROVIDERS["meta" if body == b"signed" else "360dialog"])
            )
            for body, ids in requests
        ]
        await asyncio.sleep(0)
        running = asyncio.create_task(batcher.run())
        results = await asyncio.gather(*waiting, return_exceptions=True)
        running.cancel()
        assert results[:2] == [None, None]
        assert isinstance(results[2], OverreachError)

    asyncio.run(work())
    assert calls == [
        ([b"signed"], ["here"], "meta", ["{c}"]),
        ([b"own", b"another's"], ["here", "here"], ["{a,b}", "{a}"]),
    ]


def test_too_many_waiting_are_sent_away_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        batcher = WebhookBatcher(Database(), lambda: None)  # type: ignore[arg-type]
        first = asyncio.create_task(batcher.store(b"a", None, [], PROVIDERS["meta"]))
        await asyncio.sleep(0)
        with pytest.raises(NotStoredError):
            await batcher.store(b"b", None, [], PROVIDERS["meta"])
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    monkeypatch.setattr(webhook_batcher, "MOST_WAITING", 1)
    asyncio.run(work())
    monkeypatch.setattr(webhook_batcher, "MOST_WAITING", 5000)
    monkeypatch.setattr(webhook_batcher, "MOST_WAITING_BYTES", 0)
    asyncio.run(work())
