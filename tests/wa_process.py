"""The `wa` command in a process of its own, for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from harness import CHECKOUT, Database
from simulated import wait_until

KEY = "00112233445566778899aabbccddeeff" * 2


def environment(database: Database | None, user: str | None = None, **more: str) -> dict[str, str]:
    """The environment of a child: the database, a role to log in as, and more variables."""
    checkout = database.server.checkout if database else CHECKOUT
    # It comes before what pip installed, which is the package of this checkout.
    env = {**os.environ, "PYTHONPATH": str(checkout / "bin")} | (database.env if database else {}) | more
    return env | ({"PGUSER": user} if user else {})


def program(checkout: Path) -> list[str | Path]:
    """The `wa` command of a checkout."""
    return [sys.executable, "-m", "pg_whatsapp"] if checkout == CHECKOUT else [checkout / "bin/wa"]


def wa(
    *arguments: str, database: Database | None, user: str | None = None, stdin: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pg_whatsapp", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=180,
        env=environment(database, user, **env),
    )


class WaProcess:
    """A command that runs until stopped; its log is read as JSON lines."""

    def __init__(self, *arguments: str, database: Database, user: str | None = None, **env: str) -> None:
        self.log: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self.process = subprocess.Popen(
            [*program(database.server.checkout), "--log-format", "json", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(database, user, **env),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.raw.append(line)
            try:
                self.log.append(json.loads(line))
            except ValueError:
                continue

    def logged(self, event: str) -> dict[str, Any]:
        """The first log line with that event, once it is there."""

        def find() -> dict[str, Any] | None:
            found = next((line for line in self.log if line["event"] == event), None)
            if found is None and self.process.poll() is not None:
                raise AssertionError(f"ended before it logged {event!r}: {''.join(self.raw)}")
            return found

        line: dict[str, Any] = wait_until(find)
        return line

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end; the exit status."""
        status = self.process.wait(timeout=180)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status

    def kill(self) -> None:
        """End it by SIGKILL if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def __enter__(self) -> WaProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
