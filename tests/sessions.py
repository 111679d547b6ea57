"""Sessions that meet: what a test needs to see that one waits for another."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, LiteralString

import psycopg
from harness import Database

PAUSE_S = 0.01


def column(connection: psycopg.Connection[Any], statement: LiteralString, *args: Any) -> list[Any]:
    """The first column of a statement's rows."""
    return [row[0] for row in connection.execute(statement, args or None).fetchall()]


class Blocked:
    """A statement that runs in a thread and is known to wait for another session's lock."""

    def __init__(
        self, db: Database, connection: psycopg.Connection[Any], statement: LiteralString, *args: Any
    ) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.result: Future[list[Any]] = self.pool.submit(column, connection, statement, *args)
        pid = connection.info.backend_pid
        while not db.query("SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", pid):
            assert not self.result.done(), f"did not wait: {self.result.result()}"
            time.sleep(PAUSE_S)

    def finish(self) -> list[Any]:
        """What it returned, once the other session was done."""
        try:
            return self.result.result()
        finally:
            self.pool.shutdown()
