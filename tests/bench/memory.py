"""How large a dispatcher gets while it has much to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.ground import KNOWN, dispatcher, fill, wait_for
from bench.rounds import Bench
from bench.table import Line

QUEUED = 1_000_000
SECONDS = 20


def memory(bench: Bench) -> Iterator[Line]:
    """The peak of its resident memory, 200 requests in flight at a sink of 100 ms."""
    peaks = []
    sink = bench.ground.sink(100)
    with bench.ground.database() as database:
        # Several messages to each contact, so that none needs a contact without a window.
        for _ in range(bench.size(QUEUED) // KNOWN):
            fill(database, KNOWN)
        for run in range(bench.runs):
            with dispatcher(database, sink) as worker:
                wait_for(lambda: sink.call("GET", "stats")["most_in_flight"] >= 200, "200 in flight")
                time.sleep(bench.size(SECONDS))
                status = Path(f"/proc/{worker.process.pid}/status").read_text()
                peaks.append(int(status.split("VmHWM:")[1].split()[0]) / 1024)
                worker.signal()
                worker.wait()
            bench.note("memory of a dispatcher", run=run + 1, mb=round(peaks[-1]), accepted=sink.accepted)
            sink.call("POST", "reset")
    yield Line(f"peak memory, 200 in flight, {bench.size(QUEUED):,} rows queued", peaks, "MB", at_most=150)
