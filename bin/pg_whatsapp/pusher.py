"""Pushes events to the URLs that subscribed to them.

It knows no policy: the database hands out what is to go now, and is told what was answered.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

import httpx
import orjson
import psycopg

from pg_whatsapp import __version__, errors, log, outside, standard_webhooks
from pg_whatsapp.config import Settings
from pg_whatsapp.db import Link
from pg_whatsapp.event_subscriptions import SECRET_NAME
from pg_whatsapp.secrets import SecretBox
from pg_whatsapp.transport import parse_retry_after

_logger = log.get("events")
_CLAIM = """
    SELECT organization_id::text, subscription_id::text, event_id, attempt, url, webhook_id, body, timeout_s,
    ciphertexts, key_ids FROM claim_wa_event_deliveries(%s, %s, %s, %s)
"""
_IS_DUE = "SELECT is_wa_event_delivery_due(%s)"
_COMPLETE = "SELECT complete_wa_event_deliveries(%s::jsonb)"
POLL_S = 0.5
SOONEST_S = 0.02
GATHER_S = 0.01
REFRESH_RULES_EVERY_S = 5.0
# Of an answer; it is kept for whoever looks why something fails.
KEPT_OF_ANSWER = 500
SUMMARY_EVERY_S = 60.0
RECORD_AFTER_STOP_S = 10.0
# --drain: what is due and cannot be had, because somebody holds it, is waited for so long.
DRAIN_STUCK_S = 10.0
# What no repetition mends.
_FINAL = (errors.NotAdoptedError, errors.VersionMismatchError, errors.RightsError)


class Delivery(NamedTuple):
    """What claim_wa_event_deliveries() hands out."""

    organization: str
    subscription: str
    event: int
    attempt: int
    url: str
    webhook_id: str
    body: str
    timeout_s: float
    ciphertexts: list[bytes]
    key_ids: list[str]


class Pusher:
    """Sends deliveries, so many at once, until stop() or, with drain, until nothing is due."""

    def __init__(
        self,
        settings: Settings,
        box: SecretBox,
        http: outside.OutsideTransport,
        *,
        concurrency: int,
        drain: bool = False,
    ) -> None:
        self._box = box
        self._http = http
        self._concurrency = concurrency
        self._drain = drain
        self._link = Link(settings.conninfo, "events")
        self._under_way: set[asyncio.Task[None]] = set()
        # What the database does not have yet.
        self._results: list[dict[str, Any]] = []
        self._work = asyncio.Event()
        self._stopping = False
        self._refresh_at = 0.0
        self._progress_at = monotonic()
        self._delivered = 0
        self._failed = 0
        self._tell_at = monotonic() + SUMMARY_EVERY_S

    async def run(self) -> None:
        """Push until stopped; WaError if the database refuses."""
        _logger.info("pushing events", pid=os.getpid(), concurrency=self._concurrency, version=__version__)
        try:
            await self._push_until_stopped()
        finally:
            self.stop()
            # Each ends by its own time-out.
            if self._under_way:
                await asyncio.wait(self._under_way)
            give_up_at = monotonic() + RECORD_AFTER_STOP_S
            while self._results and monotonic() < give_up_at:
                if await self._record():
                    await asyncio.sleep(SOONEST_S)
            if self._results:
                _logger.warning("not recorded, and to be pushed again", count=len(self._results))
            await self._link.drop()

    def stop(self) -> None:
        """Finish what is under way and end. Safe to call more than once."""
        if not self._stopping:
            self._stopping = True
            self._link.give_up_at = monotonic() + RECORD_AFTER_STOP_S
            self._work.set()

    async def _push_until_stopped(self) -> None:
        retry_s = SOONEST_S
        while not self._stopping:
            self._work.clear()
            answered = len(self._results)
            left = await self._record()
            free = self._concurrency - len(self._under_way)
            claimed = await self._claim(free) if free else 0
            self._tell()
            if claimed or self._under_way or left < answered:
                self._progress_at = monotonic()
            elif self._drain and claimed == 0 and await self._is_drained():
                return
            if claimed and claimed < free:
                continue
            # Somebody has the subscriptions of those that are left: most often another process, for a moment.
            retry_s = min(retry_s * 2, POLL_S) if left else SOONEST_S
            with suppress(TimeoutError):
                async with asyncio.timeout(retry_s if left else POLL_S):
                    await self._work.wait()
                    # Answers come together: a call for several costs the database hardly more than for one.
                    await asyncio.sleep(GATHER_S)

    async def _claim(self, free: int) -> int | None:
        """Start what is due; how many, None where the database could not be asked."""
        try:
            if monotonic() >= self._refresh_at:
                self._http.rules = await outside.fetch_rules(self._link)
                # What was sealed with a key that is not at hand is not given to us: nothing else would tell.
                await self._box.learn()
                self._refresh_at = monotonic() + REFRESH_RULES_EVERY_S
            rows = await self._link.fetch(_CLAIM, free, self._concurrency, self._box.key_id_list, __version__)
        except errors.UnavailableError:
            return None
        except psycopg.Error as error:
            refusal = errors.from_database(error)
            if isinstance(refusal, _FINAL):
                raise refusal from error
            # Whether it committed or not: what was claimed and is not held here is handed out again.
            _logger.warning("events not claimed, trying again", **log.describe(error))
            return None
        for row in rows:
            task = asyncio.create_task(self._deliver(Delivery._make(row)))
            self._under_way.add(task)
            task.add_done_callback(self._ended)
        return len(rows)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._work.set()

    async def _record(self) -> int:
        """Tell the database what was answered; how many it did not take and is to be told again."""
        batch = list(self._results)
        if not batch:
            return 0
        try:
            ((left,),) = await self._link.fetch(_COMPLETE, orjson.dumps(batch).decode())
        except (psycopg.Error, errors.UnavailableError) as error:
            # May be repeated.
            _logger.warning("results of events not recorded, trying again", **log.describe(error))
            return len(batch)
        self._results[: len(batch)] = left
        return len(left)

    async def _is_drained(self) -> bool:
        if self._results:
            return monotonic() - self._progress_at > DRAIN_STUCK_S
        try:
            ((is_due,),) = await self._link.fetch(_IS_DUE, self._box.key_id_list)
        except (psycopg.Error, errors.UnavailableError):
            return False
        return not is_due or monotonic() - self._progress_at > DRAIN_STUCK_S

    # -- one delivery

    async def _deliver(self, delivery: Delivery) -> None:
        started_at = monotonic()
        try:
            result = await self._send(delivery)
        except (TimeoutError, httpx.HTTPError) as error:
            result = {"outcome": "no_answer", "error": outside.why(error)}
        except Exception as error:
            # One that cannot be sent stops no other.
            _logger.error("event not sent", subscription_id=delivery.subscription, **log.describe(error))
            result = {"outcome": "no_answer", "error": "it could not be sent"}
        if 200 <= result.get("status", 0) < 300:
            self._delivered += 1
        else:
            self._failed += 1
        self._results.append(
            {
                "org": delivery.organization,
                "subscription": delivery.subscription,
                "event": delivery.event,
                "attempt": delivery.attempt,
                "duration_ms": round((monotonic() - started_at) * 1000),
                **result,
            }
        )

    async def _send(self, delivery: Delivery) -> dict[str, Any]:
        try:
            secrets = self._open(delivery)
        except errors.SealError as error:
            _logger.warning("event not signed", subscription_id=delivery.subscription, key_id=error.key_id)
            return {"outcome": "not_signed", "error": str(error)}
        signed = standard_webhooks.sign(delivery.webhook_id, int(time.time()), delivery.body, secrets)
        answer = await outside.call(
            self._http,
            "POST",
            delivery.url,
            headers={"content-type": "application/json", **signed},
            body=delivery.body.encode(),
            timeout_s=delivery.timeout_s,
            largest=KEPT_OF_ANSWER,
        )
        return {
            "outcome": "answered",
            "status": answer.status,
            "answer": _text(answer.body),
            "retry_after": parse_retry_after(answer.headers.get("retry-after")),
        }

    def _open(self, delivery: Delivery) -> list[str]:
        """Its secrets, the newest first; SealError where one does not open."""
        return [
            self._box.open(delivery.organization, SECRET_NAME, delivery.subscription, ciphertext, key_id)
            for ciphertext, key_id in zip(delivery.ciphertexts, delivery.key_ids, strict=True)
        ]

    def _tell(self) -> None:
        if monotonic() >= self._tell_at:
            self._tell_at = monotonic() + SUMMARY_EVERY_S
            if self._delivered or self._failed:
                _logger.info("last minute", delivered=self._delivered, failed=self._failed)
            self._delivered = self._failed = 0


def _text(body: bytes) -> str:
    """The start of an answer as a text that PostgreSQL takes."""
    return body.decode(errors="replace").replace("\0", "\ufffd")
