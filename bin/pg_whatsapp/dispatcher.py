"""The dispatcher: claims requests that the database granted, sends them, records what became of them.

It knows no policy. Four connections: one claims, one records and maintains, one listens, one runs jobs; where
there are flows, a fifth carries them out.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from time import monotonic
from typing import Any
from uuid import uuid4

import httpx
import psycopg

from pg_whatsapp import __version__, errors, log
from pg_whatsapp.companion import Companion
from pg_whatsapp.config import Settings
from pg_whatsapp.credentials import Credentials
from pg_whatsapp.db import FIRST_DELAY_S, Link, require_session
from pg_whatsapp.flow_runner import FlowRunner
from pg_whatsapp.gate import Gate
from pg_whatsapp.job_runner import JobRunner
from pg_whatsapp.recorder import Recorder
from pg_whatsapp.secrets import SecretBox
from pg_whatsapp.sender import Claim, Sender
from pg_whatsapp.server_clock import ServerClock
from pg_whatsapp.watch import Watch

_logger = log.get("dispatcher")
_CLAIM = """
    SELECT organization_id::text, queue_id::text, attempt, order_key, phone_number_id, provider, path, body,
    timeout_s, start_in_s, extract(epoch FROM statement_timestamp())::double precision
    FROM claim_wa_messages(%s::uuid, %s)
"""
_NEXT_DUE = """
    SELECT extract(epoch FROM next_due_at - clock_timestamp())::double precision, is_contended,
    is_sifting FROM get_wa_next_due()
"""
_STOPS = "SELECT phone_number_id, reason, held_until::text, detail FROM get_wa_stops()"
_RELEASE = "SELECT release_wa_claims(%s::uuid, %s::uuid[])"
MAINTAIN_EVERY_S = 1.0
# While many messages expire: a fifth of the time, and the rest for recording results.
MAINTAIN_MORE_EVERY_S = 0.1
REFRESH_TOKENS_EVERY_S = 5.0
# How much work to keep at hand, in seconds of the current rate: longer than a claim takes, far below
# start_within.
LOOKAHEAD_S = 0.1
QUICKEST_POLL_S = 0.02
SLOWEST_BUSY_POLL_S = 0.25
# Messages or notifications in a second from which polling costs less than being notified.
BUSY_PER_S = 50
# --drain waits for what will be due within this time: limits and retries put rows off by seconds.
DRAIN_WITHIN_S = 60.0
DRAIN_STUCK_S = 10.0
MOST_UNRECORDED = 5000
# What no repetition mends: the process ends and says so.
_FINAL = (errors.NotAdoptedError, errors.VersionMismatchError, errors.RightsError)
# A claim that is refused for a passing reason is asked again after this.
REFUSED_WAIT_S = 1.0
NO_TOKEN_WAIT_S = 1.0
RECORD_AFTER_STOP_S = 30.0


class Dispatcher:
    """One dispatcher process."""

    def __init__(
        self,
        settings: Settings,
        box: SecretBox | None,
        http: httpx.AsyncBaseTransport,
        *,
        concurrency: int = 200,
        batch: int = 500,
        drain: bool = False,
        companions: Sequence[Companion] = (),
    ) -> None:
        self.id = str(uuid4())
        self._http = http
        self._concurrency = concurrency
        self._batch = batch
        self._drain = drain
        self._companions = companions
        self._conninfo = settings.conninfo
        self._claims = Link(settings.conninfo, "dispatch claim")
        self._records = Link(settings.conninfo, "dispatch record")
        self._listens = Link(settings.conninfo, "dispatch listen", lock_timeout="100ms")
        self._jobs = Link(settings.conninfo, "dispatch jobs")
        self._flows = Link(settings.conninfo, "dispatch flows")
        self._flow_runner = FlowRunner(self._flows, self._records)
        self._credentials = Credentials(settings, box)
        self._work = asyncio.Event()
        self._stopping = False
        self._failure: BaseException | None = None
        self._look_again: asyncio.TimerHandle | None = None
        self._claimed_at = 0.0
        self._server_clock = ServerClock()
        self._lost_a_claim = False
        self._progress_at = monotonic()
        self._busy_until = 0.0
        self._second = (0.0, 0)
        self._rate = 0.0
        self._rate_at = (0.0, 0)

    async def run(self) -> None:
        """Dispatch until stop(), or with drain until nothing is due; WaError if the database refuses."""
        await self._require_session()
        settings = await self._register()
        self._poll_s = float(settings["poll_ms"]) / 1000
        self._recorder = Recorder(self._records, self.id, lambda: self._sender.is_idle)
        self._sender = Sender(
            self._http,
            self._credentials,
            self._recorder.add,
            concurrency=self._concurrency,
            start_within_s=float(settings["start_within_ms"]) / 1000,
            late_within_s=float(settings["late_within_ms"]) / 1000,
        )
        self._gate = Gate(self._listens, settings["wake_channel"], self._work.set)
        await self._credentials.refresh(self._records)
        self._sender.start()
        background = [
            self._spawn(self._gate.run()),
            self._spawn(self._recorder.run(self._after_record)),
            self._spawn(self._maintain()),
            self._spawn(JobRunner(self._jobs).run()),
            self._spawn(self._flow_runner.run()),
        ]
        beside = [one for one in self._companions if one.is_for_sending or not self._drain]
        company = [self._spawn(companion.run(self._records)) for companion in beside]
        background += company
        _logger.info("dispatching", dispatcher=self.id, concurrency=self._concurrency, version=__version__)
        try:
            await self._claim_until_stopped()
            if self._drain and not self._stopping:
                for companion in beside:
                    companion.stop()
                await asyncio.gather(*company)
                for companion in self._companions:
                    await companion.once(self._records, "--drain")
        finally:
            await self._finish()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            for link in (self._claims, self._records, self._listens, self._jobs, self._flows):
                await link.drop()
        if self._failure is not None:
            raise self._failure
        _logger.info("stopped", dispatcher=self.id, finished=self._sender.finished)

    def stop(self) -> None:
        """Finish what is under way, hand the rest back, end. Safe to call more than once."""
        if not self._stopping:
            self._stopping = True
            self._claims.give_up_at = monotonic()
            self._records.give_up_at = monotonic() + RECORD_AFTER_STOP_S
            self._work.set()
            for companion in self._companions:
                companion.stop()
            if hasattr(self, "_sender"):
                self._sender.stop()

    async def _require_session(self) -> None:
        """Wait for a server that is away, then look whether a pooler is between."""
        while True:
            await self._claims.get()
            try:
                await require_session(self._conninfo)
                return
            except psycopg.OperationalError:
                # It went away again: the next get() finds that out, or waits.
                await self._claims.drop()
                await asyncio.sleep(FIRST_DELAY_S)

    async def _register(self) -> dict[str, Any]:
        try:
            rows = await self._claims.persist(
                "SELECT start_wa_dispatcher(%s::uuid, %s, %s, %s)",
                self.id,
                socket.gethostname(),
                os.getpid(),
                __version__,
            )
        except psycopg.Error as error:
            raise errors.from_database(error) from error
        settings: dict[str, Any] = rows[0][0]
        return settings

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        """Run something beside the claim loop; if it fails, so does the dispatcher."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._failure = self._failure or error
                self.stop()

        task: asyncio.Task[None] = asyncio.create_task(work)
        task.add_done_callback(ended)
        return task

    # -- claiming

    async def _claim_until_stopped(self) -> None:
        pause = QUICKEST_POLL_S
        while not self._stopping:
            lookahead = min(self._batch, int(self._measure_rate() * LOOKAHEAD_S))
            if self._recorder.pending > MOST_UNRECORDED:
                await asyncio.sleep(QUICKEST_POLL_S)
                continue
            # A quarter at a time: claims in batches, and the workers never run dry meanwhile.
            await self._sender.wait_for_room((self._concurrency + lookahead + 3) // 4, lookahead)
            limit = min(self._batch, self._sender.free(lookahead))
            if self._stopping:
                break
            self._work.clear()
            tokenless = self._sender.without_token
            claimed = await self._claim(limit)
            if claimed is None:
                await self._wait(REFUSED_WAIT_S)
                continue
            self._count(claimed)
            # What was claimed leaves before anything else is asked.
            await asyncio.sleep(0)
            if claimed < limit:
                pause = QUICKEST_POLL_S if claimed else min(pause * 2, SLOWEST_BUSY_POLL_S)
                if not await self._rest(claimed, pause):
                    break
            if (self._sender.without_token - tokenless) * 2 > claimed:
                await self._wait(NO_TOKEN_WAIT_S)

    async def _claim(self, limit: int) -> int | None:
        """Claim up to limit messages into the sender; their number, None if refused for now."""
        try:
            # First, so that the wait for a connection does not count against the grant.
            await self._claims.get()
            if self._lost_a_claim:
                held = [*self._sender.held(), *self._recorder.held()]
                await self._claims.fetch(_RELEASE, self.id, held)
                self._lost_a_claim = False
            asked_at = monotonic()
            self._claimed_at = asked_at
            rows = await self._claims.fetch(_CLAIM, self.id, limit)
        except errors.UnavailableError:
            return None
        except psycopg.Error as error:
            refusal = errors.from_database(error)
            if isinstance(refusal, _FINAL):
                raise refusal from error
            # Without an answer nobody knows whether it committed.
            self._lost_a_claim = self._lost_a_claim or error.sqlstate is None
            _logger.warning("claim failed", **log.describe(error))
            return None
        if rows:
            claims = [Claim._make(row) for row in rows]
            taken_at = self._server_clock.moment(claims[0].taken_s, asked_at, monotonic())
            self._sender.offer(claims, taken_at)
        return len(rows)

    async def _rest(self, claimed: int, pause: float) -> bool:
        """After a claim that came back short: wait for more. False when all is drained."""
        try:
            rows = await self._claims.fetch(_NEXT_DUE)
        except (psycopg.Error, errors.UnavailableError) as error:
            _logger.warning("cannot tell what is due next, trying again", **log.describe(error))
            await self._wait(self._poll_s)
            return True
        due_in, contended, sifting = rows[0] if rows else (None, False, False)
        if self._drain and self._is_drained(claimed, due_in, contended):
            return False
        self._gate.wants_awake = contended or monotonic() < self._busy_until
        wait = self._poll_s if self._gate.is_asleep and not self._gate.wants_awake else pause
        if due_in is not None:
            # Due already and yet not claimed: it cannot go now, and asking again at once is vain.
            wait = min(wait, max(due_in, 0.001) if due_in > 0 or claimed else pause)
        if contended:
            # More is due than was handed out: at once while that goes on, else somebody else has the lane.
            wait = 0.0 if claimed else min(wait, QUICKEST_POLL_S if sifting else pause)
        await self._wait(wait)
        return True

    def _is_drained(self, claimed: int, due_in: float | None, contended: bool) -> bool:
        if claimed or not self._sender.is_idle or self._recorder.pending or self._flow_runner.is_busy:
            self._progress_at = monotonic()
            return False
        if contended:
            # Somebody else has it, or nobody may have it.
            is_stuck = monotonic() - self._progress_at > DRAIN_STUCK_S
            if is_stuck:
                _logger.warning("messages are due that nobody may send now; explain_wa_message() says why")
            return is_stuck
        return due_in is None or due_in > DRAIN_WITHIN_S

    async def _wait(self, seconds: float) -> None:
        """Wait for a sign of work, at most so long."""
        if self._work.is_set() or self._stopping:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._work.wait()
        except TimeoutError:
            pass

    def _count(self, claimed: int) -> None:
        """Notice when work comes so often that being awake is cheaper than being woken."""
        now = monotonic()
        since, seen = self._second
        seen += claimed + self._gate.notified
        self._gate.notified = 0
        if seen >= BUSY_PER_S:
            self._busy_until = now + 1.0
            self._gate.wants_awake = True
        self._second = (now, 0) if now - since > 1.0 else (since, seen)

    def _measure_rate(self) -> float:
        """Messages a second of late, smoothed."""
        at, finished = self._rate_at
        now = monotonic()
        if now - at >= LOOKAHEAD_S:
            latest = (self._sender.finished - finished) / (now - at) if at else 0.0
            self._rate = latest if latest > self._rate else (self._rate + latest) / 2
            self._rate_at = (now, self._sender.finished)
        return self._rate

    # -- beside claiming

    def _after_record(self) -> None:
        # A recorded result may have freed the next message to a recipient: look, but not after each batch.
        if self._look_again is None:
            due = max(0.0, self._claimed_at + QUICKEST_POLL_S - monotonic())
            self._look_again = asyncio.get_running_loop().call_later(due, self._look)

    def _look(self) -> None:
        self._look_again = None
        self._work.set()

    async def _maintain(self) -> None:
        refresh_at = monotonic() + REFRESH_TOKENS_EVERY_S
        wait_s = MAINTAIN_EVERY_S
        watch = Watch(self._sender)
        while True:
            await asyncio.sleep(wait_s)
            wait_s = MAINTAIN_EVERY_S
            try:
                rows = await self._records.fetch("SELECT maintain_wa_dispatch(%s::uuid)", self.id)
                if rows[0][0].get("has_more"):
                    wait_s = MAINTAIN_MORE_EVERY_S
                if monotonic() >= refresh_at or self._sender.without_token:
                    await self._credentials.refresh(self._records)
                    watch.look(await self._records.fetch(_STOPS))
                    refresh_at = monotonic() + REFRESH_TOKENS_EVERY_S
            except psycopg.Error as error:
                refusal = errors.from_database(error)
                if isinstance(refusal, _FINAL):
                    raise refusal from error
                _logger.warning("maintenance failed, trying again", **log.describe(error))

    async def _finish(self) -> None:
        """Finish what is under way, record it, hand the rest back, sign off."""
        self.stop()
        self._sender.stop()
        await self._sender.close()
        try:
            async with asyncio.timeout(RECORD_AFTER_STOP_S):
                await self._recorder.drained()
                await self._records.fetch("SELECT stop_wa_dispatcher(%s::uuid)", self.id)
        except (TimeoutError, psycopg.Error, errors.UnavailableError) as error:
            self._failure = self._failure or errors.UnavailableError(
                f"{self._recorder.pending} results could not be recorded before the end",
                "Their messages count as unknown until a status webhook settles them.",
            )
            _logger.error("not signed off", **log.describe(error))
