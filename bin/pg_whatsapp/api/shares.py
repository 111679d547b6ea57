"""Who may have how many of the connections at once, so that nobody's slow requests are all there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from time import monotonic
from weakref import WeakValueDictionary

#: Whoever was not recognised lately: who tries keys has no more than this part either.
STRANGERS = "strangers"
# What was learned of a key is good for so long.
FRESH_S = 10.0
MOST_FRESH = 10_000


class Shares:
    """Of so many connections, a quarter is left to others, whoever asks; one has one at least."""

    def __init__(self, connections: int) -> None:
        self._most = max(1, connections - max(1, connections // 4))
        self._most_strangers = max(1, connections // 4)
        # Gone with the last request that has, or waits for, a place.
        self._places: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def place(self, who: Hashable, timeout_s: float) -> AsyncIterator[None]:
        """One place of somebody's share; raises TimeoutError where none becomes free."""
        places = self._places.get(who)
        if places is None:
            most = self._most_strangers if who == STRANGERS else self._most
            self._places[who] = places = asyncio.Semaphore(most)
        async with asyncio.timeout(timeout_s):
            await places.acquire()
        try:
            yield
        finally:
            places.release()


class Fresh:
    """What was learned of keys a moment ago; bounded, since anybody may bring any key."""

    def __init__(self) -> None:
        self._learned: dict[bytes, tuple[float, str]] = {}

    def get(self, key_hash: bytes) -> str | None:
        """What was learned of a key, if that was a moment ago."""
        until, value = self._learned.get(key_hash, (0.0, ""))
        return value if until > monotonic() else None

    def learn(self, key_hash: bytes, value: str = "") -> None:
        """Keep something of a key for a moment."""
        if len(self._learned) >= MOST_FRESH:
            self._learned.clear()
        self._learned[key_hash] = (monotonic() + FRESH_S, value)
