"""A stand-in for the Graph API: takes messages as the WhatsApp Cloud API does, answers and fails as it does,
sends signed webhooks back and speaks as customers. docs/simulator.md is its manual.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
import uvloop

from .app import App
from .http import Server
from .platform import Platform
from .sink import Sink

_log = structlog.get_logger()

_FLUSH_EVERY_S = 0.2


def run(
    host: str, port: int, state_dir: Path, *, ready: Callable[[str], None] | None = None, **options: Any
) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status.

    ``ready`` is called with the base URL once requests are taken (port 0 picks a free one). ``options``:
    ``sink``, ``latency_ms`` (of the sink), ``access_token``, ``app_secret``, ``verify_token``,
    ``phone_number_id``, ``waba_id`` and ``settings``, a dict of the names in settings.py.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(host, port, state_dir, ready, options))


async def _serve(
    host: str, port: int, state_dir: Path, ready: Callable[[str], None] | None, options: dict[str, Any]
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    latency_ms = options.pop("latency_ms", 0.0)
    if options.pop("sink", False):
        return await _listen(host, port, Server(Sink(latency_ms).handle), ready, stop)
    try:
        platform = Platform(state_dir, **options)
    except OSError as error:
        _log.error("state_directory_unusable", reason=error.strerror)
        return 1
    flusher = asyncio.create_task(_flush(platform))
    try:
        if resumed := platform.resume():
            _log.info("statuses_resumed", messages=resumed)
        return await _listen(host, port, Server(App(platform).handle), ready, stop)
    finally:
        flusher.cancel()
        await platform.close()


async def _listen(
    host: str, port: int, server: Server, ready: Callable[[str], None] | None, stop: asyncio.Event
) -> int:
    try:
        port = await server.start(host, port)
    except OSError as error:
        _log.error("cannot_listen", host=host, port=port, reason=error.strerror)
        return 1
    if ready is not None:
        ready(f"http://{host}:{port}")
    await stop.wait()
    await server.stop()
    return 0


async def _flush(platform: Platform) -> None:
    while True:
        await asyncio.sleep(_FLUSH_EVERY_S)
        platform.journal.flush()
