"""Recurring work: asks the database whether a job is due, and has it run there."""

from __future__ import annotations

import asyncio

import psycopg

from pg_whatsapp import errors, log
from pg_whatsapp.db import Link

_logger = log.get("jobs")
_RUN_DUE = """
    SELECT job, status, row_count, extract(epoch FROM duration)::double precision, split_part(error, ':', 1),
        extract(epoch FROM next_due_at - clock_timestamp())::double precision
    FROM run_due_wa_job()
"""
# Schedules are changed in the database, which does not say so: look now and then.
SLOWEST_POLL_S = 5.0
# A job that is due and not run is with another process.
BUSY_POLL_S = 1.0
FAILED_WAIT_S = 5.0


class JobRunner:
    """Runs what is due, one job at a time. Any number of these, and pg_cron, may do so beside each other."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            try:
                await asyncio.sleep(await self._run_due())
            except (psycopg.Error, errors.WaError) as error:
                _logger.warning("jobs not run, trying again", **log.describe(error))
                await asyncio.sleep(FAILED_WAIT_S)

    async def _run_due(self) -> float:
        """Run at most one job; in how many seconds to ask again."""
        ((job, status, rows, duration_s, sqlstate, due_in_s),) = await self._link.fetch(_RUN_DUE)
        if status == "failed":
            # The text of the error may tell what nobody else should read.
            _logger.error("job failed, wa_job_runs says why", job=job, sqlstate=sqlstate)
        elif status == "done" and rows:
            _logger.info("job done", job=job, rows=rows, duration_s=round(duration_s, 3))
        if due_in_s is None:
            return SLOWEST_POLL_S
        soonest = BUSY_POLL_S if status is None else 0.0
        return float(min(max(due_in_s, soonest), SLOWEST_POLL_S))
