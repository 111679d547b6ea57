"""Sends what was claimed: many requests at once, those of one order key one after the other."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from time import monotonic
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx

from pg_whatsapp.credentials import Credentials
from pg_whatsapp.transport import NOT_STARTED, Outcome, Reply, post

_NOTHING: Mapping[str, str | None] = MappingProxyType({})


class Claim(NamedTuple):
    """One request that claim_wa_messages() granted; body is the JSON text to POST.

    It may start start_in_s seconds after the server took the call, at taken_s of its clock, not before.
    """

    organization: str
    queue_id: str
    attempt: int
    order_key: str
    number: str
    provider: str
    path: str
    body: str
    timeout_s: float
    start_in_s: float
    taken_s: float


class Sender:
    """A fixed number of workers that take claims from a local buffer.

    record gets one result per claim, in the form that complete_wa_messages() takes. A request that this
    process would start more than late_within_s after its time, because something else kept it busy, goes back
    for another: with those that are on time it would exceed the number's throughput at the provider.
    """

    def __init__(
        self,
        http: httpx.AsyncBaseTransport,
        credentials: Credentials,
        record: Callable[[dict[str, Any]], None],
        *,
        concurrency: int,
        start_within_s: float,
        late_within_s: float,
    ) -> None:
        self._http = http
        self._credentials = credentials
        self._record = record
        self._concurrency = concurrency
        self._start_within_s = start_within_s
        self._late_within_s = late_within_s
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        # Waiting claims by order key, each with the moment when the server took the call for it; for chains
        # whose first may not start yet, the timer that makes them ready.
        self._chains: dict[str, deque[tuple[Claim, float]]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._stopping = False
        self._room_needed = 0
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._flying: set[str] = set()
        # When those start that may not yet, a heap.
        self._starts: list[float] = []
        #: Claims that wait for a worker or for their time, and requests under way.
        self.buffered = 0
        self.in_flight = 0
        #: What became of requests since the start: accepted, refused, unanswered, handed_back.
        self.outcomes: Counter[str] = Counter()
        #: Claims dealt with since the start, and those handed back because their number has no token.
        self.finished = 0
        self.without_token = 0

    def start(self) -> None:
        """Start the workers in the running event loop."""
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._concurrency)]

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing is under way."""
        return self._idle.is_set()

    def held(self) -> list[str]:
        """Queue ids of the claims that wait here or are under way."""
        return [*self._flying, *(claim.queue_id for chain in self._chains.values() for claim, _ in chain)]

    def free(self, lookahead: int) -> int:
        """How many claims it can take so that lookahead of them wait when all workers are busy.

        What may not start yet takes no worker: it counts only once its time has come.
        """
        now = monotonic()
        while self._starts and self._starts[0] <= now:
            heappop(self._starts)
        return self._concurrency + lookahead - self.in_flight - (self.buffered - len(self._starts))

    async def wait_for_room(self, free: int, lookahead: int) -> None:
        """Return once at least `free` more claims fit, or at stop()."""
        while self.free(lookahead) < free and not self._stopping:
            self._room_needed = free - lookahead
            self._room.clear()
            await self._room.wait()

    def offer(self, claims: Iterable[Claim], taken_at: float) -> None:
        """Take claims; taken_at is the monotonic time at which the database took the call for them."""
        now = monotonic()
        for claim in claims:
            self.buffered += 1
            if taken_at + claim.start_in_s > now:
                heappush(self._starts, taken_at + claim.start_in_s)
            chain = self._chains.get(claim.order_key)
            if chain is None:
                self._chains[claim.order_key] = deque(((claim, taken_at),))
                self._make_ready(claim.order_key)
            else:
                chain.append((claim, taken_at))
        if self.buffered:
            self._idle.clear()

    def _make_ready(self, key: str) -> None:
        """Give the chain to a worker, once its first claim may start."""
        self._timers.pop(key, None)
        wait_s = self._wait_of(key)
        if wait_s <= 0:
            self._ready.put_nowait(key)
        else:
            start_at = monotonic() + wait_s
            self._timers[key] = asyncio.get_running_loop().call_later(wait_s, self._start, key, start_at)

    def _start(self, key: str, start_at: float) -> None:
        """The time of a chain has come, or was missed: what was slept through must not go in a burst."""
        if monotonic() - start_at <= self._late_within_s:
            self._make_ready(key)
            return
        del self._timers[key]
        for claim, _ in self._chains.pop(key):
            self.buffered -= 1
            self._hand_back(claim)
        self._settle()

    def _settle(self) -> None:
        if not self.buffered and not self.in_flight:
            self._idle.set()

    def _wait_of(self, key: str) -> float:
        """Seconds until the first claim of a chain may start; 0 where it is only handed back."""
        claim, taken_at = self._chains[key][0]
        return 0.0 if self._stopping else max(0.0, taken_at + claim.start_in_s - monotonic())

    def stop(self) -> None:
        """Start no more requests: what waits is handed back, what is under way is finished."""
        self._stopping = True
        self._starts.clear()
        for key, timer in list(self._timers.items()):
            timer.cancel()
            self._make_ready(key)
        self._room.set()

    async def close(self) -> None:
        """After stop(): wait until every claim has its result, then end the workers."""
        await self._idle.wait()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            chain = self._chains[key]
            in_order = True
            while chain and (not in_order or self._wait_of(key) <= 0):
                claim, taken_at = chain.popleft()
                self.buffered -= 1
                # What follows a message that was not accepted goes back: the database decides whether it may
                # overtake, and its limits may have changed by the same answer.
                in_order = await self._send(claim, taken_at) if in_order else self._hand_back(claim)
            if chain:
                self._make_ready(key)
                continue
            del self._chains[key]
            self._settle()

    async def _send(self, claim: Claim, taken_at: float) -> bool:
        """Send one claim and record the result; returns whether the provider accepted it."""
        # Stale grants go back: the rules that they were checked against may have changed since.
        if self._stopping or monotonic() - taken_at > self._start_within_s:
            return self._hand_back(claim)
        endpoint = self._credentials.endpoint(claim.organization, claim.number, claim.provider)
        if endpoint is None:
            self.without_token += 1
            return self._hand_back(claim)
        self.in_flight += 1
        self._flying.add(claim.queue_id)
        reply = await post(
            self._http,
            endpoint.url(claim.path),
            endpoint.headers,
            endpoint.encode(claim.body),
            claim.timeout_s,
        )
        self.in_flight -= 1
        self._flying.discard(claim.queue_id)
        is_accepted = reply.outcome is Outcome.ANSWERED and 200 <= (reply.status or 0) < 300
        # A refusal may be of a token that was replaced a moment ago.
        used = {} if is_accepted else {"number": claim.number, "secret_id": endpoint.secret_id}
        self._finish(claim, reply, used)
        return is_accepted

    def _hand_back(self, claim: Claim) -> bool:
        self._finish(claim, NOT_STARTED)
        return False

    def _finish(self, claim: Claim, reply: Reply, used: Mapping[str, str | None] = _NOTHING) -> None:
        self.finished += 1
        self.outcomes[_kind_of(reply)] += 1
        self._record(
            {
                "id": claim.queue_id,
                "org": claim.organization,
                "attempt": claim.attempt,
                "outcome": reply.outcome,
                "status": reply.status,
                "answer": reply.answer,
                "retry_after": reply.retry_after,
                "error": reply.error,
                "provider": claim.provider,
                **used,
            }
        )
        if not self._room.is_set() and self.free(0) >= self._room_needed:
            self._room.set()


def _kind_of(reply: Reply) -> str:
    if reply.outcome is Outcome.ANSWERED:
        return "accepted" if 200 <= (reply.status or 0) < 300 else "refused"
    return "handed_back" if reply.outcome is Outcome.NOT_STARTED else "unanswered"
