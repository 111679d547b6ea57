"""Meta's rate limits, as seen from the outside: throughput of a number, pair rate, messaging tier.

Refused requests charge nothing. ``jitter`` is the tolerance, in seconds, for requests that the network
bunched together: a sender that keeps the limits exactly by its own clock is never refused for it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

PAIR_INTERVAL_S: Final = 6.0
PAIR_BURST: Final = 45
TIER_PERIOD_S: Final = 24 * 3600.0


class Throughput:
    """A bucket of one second's messages for each number."""

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}

    def take(self, number: str, rate: int, now: float, jitter: float) -> bool:
        """Charge one message to ``number``, which may send ``rate`` a second; False if that is too many."""
        full_at = max(self._full_at.get(number, 0.0), now)
        if full_at - now + 1.0 / rate > 1.0 + jitter + 1e-9:
            return False
        self._full_at[number] = full_at + 1.0 / rate
        return True


class PairRate:
    """One message in 6 s for a pair of business number and customer.

    Up to 45 may go within 6 s, borrowed from the time to come: after those 6 s the next one has to wait until
    the debt of 6 s for each is paid.
    """

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], tuple[float, int, float]] = {}
        self._sweep_at = 10_000

    def take(self, number: str, customer: str, now: float, jitter: float) -> bool:
        """Charge one message to the pair; False if it must wait."""
        pair = (number, customer)
        burst_start, count, paid_at = self._pairs.get(pair, (0.0, 0, 0.0))
        if now >= paid_at - jitter:
            self._pairs[pair] = (now, 1, max(now, paid_at) + PAIR_INTERVAL_S)
        elif now - burst_start < PAIR_INTERVAL_S + jitter and count < PAIR_BURST:
            self._pairs[pair] = (burst_start, count + 1, paid_at + PAIR_INTERVAL_S)
        else:
            return False
        if len(self._pairs) > self._sweep_at:
            self._pairs = {key: value for key, value in self._pairs.items() if value[2] > now}
            self._sweep_at = 2 * len(self._pairs) + 10_000
        return True


class Tier:
    """Unique customers outside a window in a rolling day, for each portfolio."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, float]] = {}
        self._order: dict[str, deque[tuple[float, str]]] = {}

    def take(self, portfolio: str, customer: str, limit: int, now: float) -> bool:
        """Count ``customer``; False if it would be one more than ``limit``."""
        seen = self._seen.setdefault(portfolio, {})
        order = self._order.setdefault(portfolio, deque())
        while order and order[0][0] <= now - TIER_PERIOD_S:
            at, old = order.popleft()
            if seen.get(old) == at:
                del seen[old]
        if customer not in seen and len(seen) >= limit:
            return False
        # A customer counts for a day from the last message, so each new one moves its end.
        seen[customer] = now
        order.append((now, customer))
        return True


class Limits:
    """The three of them, with counters of how often each refused."""

    def __init__(self) -> None:
        self.throughput = Throughput()
        self.pair = PairRate()
        self.tier = Tier()
        self.refused = {"throughput": 0, "pair": 0, "tier": 0, "window": 0}
