"""What processes that run until they are told to stop have in common."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Protocol

from pg_whatsapp import log
from pg_whatsapp.garbage import collect_rarely

_logger = log.get("process")


class Worker(Protocol):
    """Something that runs until it is stopped."""

    async def run(self) -> None:
        """Work until stop()."""

    def stop(self) -> None:
        """Finish what is under way and end."""


async def serve(worker: Worker) -> None:
    """Run it until SIGTERM or SIGINT; a second signal ends the process at once."""
    loop = asyncio.get_running_loop()
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            os._exit(1)
        _logger.info("stopping: finishing what is in flight")
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    collect_rarely()
    await worker.run()
