"""What many ask for and is the same for all of them for a moment: one asks, the others have its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Lately(Generic[Answer]):
    """An answer that is good for some seconds, so that a flood of questions is one to the database."""

    def __init__(self, ask: Callable[[], Awaitable[Answer]], good_for_s: float) -> None:
        self._ask = ask
        self._good_for_s = good_for_s
        self._lock = asyncio.Lock()
        self._answers: list[Answer] = []
        self._asked_at = float("-inf")

    async def get(self) -> Answer:
        """The answer; raises what asking raises."""
        async with self._lock:
            if monotonic() - self._asked_at > self._good_for_s:
                self._answers = [await self._ask()]
                self._asked_at = monotonic()
            return self._answers[0]
