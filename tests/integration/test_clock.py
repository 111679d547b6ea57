"""The server's clock is set back and forth beneath what runs: libfaketime gives its processes another time.

Tests sql/sending/clock.sql.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from harness import Database, Server
from simulated import SimulatorProcess, wait_until
from test_dispatch import TOKEN, accepted, prepare, simulator
from wa_process import WaProcess

__all__ = ["simulator"]
LIBRARY = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian's package libfaketime)"),
]

ACCEPTED = "SELECT count(*) FROM wa_messages WHERE state = 'accepted'"


class Clock:
    """What the server takes for the time: ours and a shift, which it reads anew each second."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.shift("+0")

    def shift(self, by: str) -> None:
        """Set the clock: "-3600" is an hour ago."""
        self.file.write_text(f"{by}\n")
        self.file.chmod(0o644)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    # Not pytest's own directory, which the server's user may not enter.
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        made = Clock(Path(directory) / "shift")
        monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(made.file))
        monkeypatch.setenv("FAKETIME_CACHE_DURATION", "1")
        monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        yield made


@pytest.fixture
def db(clock: Clock, make_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setenv("LD_PRELOAD", str(LIBRARY))
    server = make_server()
    monkeypatch.delenv("LD_PRELOAD")
    database = server.create_database(template=server.template())
    prepare(database)
    return database


def ahead(db: Database) -> float:
    """By how many seconds the server's clock is ahead of ours."""
    [row] = db.query("SELECT extract(epoch FROM clock_timestamp())::float8 AS at")
    return float(row["at"]) - time.time()


def test_messages_go_on_and_none_goes_twice(db: Database, clock: Clock, simulator: SimulatorProcess) -> None:
    env = {"WHATSAPP_API_BASE_URL": simulator.url, "WHATSAPP_ACCESS_TOKEN": TOKEN}
    sent = 0
    with WaProcess("dispatch", database=db, **env) as process:
        process.logged("dispatching")
        for by in ("+0", "-3600", "-1800", "+0"):
            clock.shift(by)
            wait_until(lambda by=by: abs(ahead(db) - float(by)) < 30)
            for _ in range(3):
                sent += 1
                db.query(
                    "INSERT INTO wa_outbound_queue (phone, template_name) VALUES (%s, 'hello_world')",
                    f"+1555{1000000 + sent}",
                )
            wait_until(lambda sent=sent: db.query(ACCEPTED)[0]["count"] == sent)
    assert accepted(simulator)["accepted"] == sent
