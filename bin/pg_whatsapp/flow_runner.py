"""Flows: has the database carry out what is due, within half a second of becoming due."""

from __future__ import annotations

import asyncio

import psycopg

from pg_whatsapp import errors, log
from pg_whatsapp.db import Link

_logger = log.get("flows")
_RUN_DUE = """
    SELECT run_count, extract(epoch FROM next_due_at - clock_timestamp())::double precision
    FROM run_due_wa_flows(%s)
"""
# Runs are started, and events come, without a word to us: look so often, which costs one look at an index.
SLOWEST_POLL_S = 0.5
# What is due and was not taken is locked by somebody else.
BUSY_POLL_S = 0.05
FAILED_WAIT_S = 5.0
# Whether there are flows at all, where there were none.
LOOK_EVERY_S = 1.0
BATCH = 500
# --drain: what is due within this time is waited for.
DRAIN_WITHIN_S = 1.0


class FlowRunner:
    """Carries out the steps of flows. Any number of these, and pg_cron, may do so beside each other."""

    def __init__(self, link: Link, records: Link) -> None:
        self._link = link
        self._records = records
        #: Whether the last look found something to do, or due within a second.
        self.is_busy = True

    async def run(self) -> None:
        """Serve until cancelled."""
        has_flows = False
        while True:
            try:
                if has_flows:
                    await asyncio.sleep(await self._run_due())
                    continue
                # A connection of its own only where there is something to do with it.
                ((has_flows,),) = await self._records.fetch("SELECT has_wa_flows()")
                if not has_flows:
                    self.is_busy = False
                    await asyncio.sleep(LOOK_EVERY_S)
            except (psycopg.Error, errors.WaError) as error:
                self.is_busy = False
                _logger.warning("flows not carried out, trying again", **log.describe(error))
                await asyncio.sleep(FAILED_WAIT_S)

    async def _run_due(self) -> float:
        """Carry out one batch; in how many seconds to ask again."""
        ((count, due_in_s),) = await self._link.fetch(_RUN_DUE, BATCH)
        self.is_busy = count > 0 or (due_in_s is not None and due_in_s < DRAIN_WITHIN_S)
        if count:
            _logger.info("flows carried out", runs=count)
            return 0.0
        if due_in_s is None:
            return SLOWEST_POLL_S
        return float(min(max(due_in_s, BUSY_POLL_S), SLOWEST_POLL_S))
