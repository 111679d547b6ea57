"""Answers that many ask for at once.

Tests bin/pg_whatsapp/lately.py.
"""

from __future__ import annotations

import asyncio

import pytest
from pg_whatsapp.lately import Lately


def test_a_flood_of_questions_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("pg_whatsapp.lately.monotonic", lambda: now)
    asked = 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        if asked == 2:
            raise ConnectionError
        return asked

    async def flood() -> None:
        nonlocal now
        lately = Lately(ask, 1.0)
        assert set(await asyncio.gather(*(lately.get() for _ in range(1000)))) == {1}
        now += 1.5
        # What fails is nobody's answer, and the next one asks again.
        with pytest.raises(ConnectionError):
            await lately.get()
        assert await lately.get() == 3

    asyncio.run(flood())
