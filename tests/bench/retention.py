"""Whether retention at work on a large history slows sending down."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator

from harness import Database

from bench.drain import MESSAGES, drain_ours
from bench.history import make
from bench.rounds import Bench
from bench.table import Line

#: Rows that retention is to take, text or all of it, at most.
HISTORY = 5_000_000
# Of a hundred days all is older than this but the newest two. Dispatchers run the one job that is scheduled.
BEGIN = """
UPDATE wa_organizations SET text_retention = interval '2 days', message_retention = interval '50 days';
UPDATE wa_installations SET webhook_log_retention = interval '2 days';
UPDATE wa_jobs SET is_enabled = name = 'retention';
SELECT schedule_wa_jobs()
"""
ENABLE = "UPDATE wa_jobs SET is_enabled = %s WHERE name = 'retention'"
# What is enabled has to wait for its time.
DUE = "UPDATE wa_jobs SET next_run_at = now() WHERE name = 'retention'"
RUNS = """
SELECT id, row_count, extract(epoch FROM duration)::float8 AS took_s, error FROM wa_job_runs
WHERE job = 'retention' AND id > %s ORDER BY id
"""


class Retention:
    """The job as dispatchers run it, and a session that looks on."""

    def __init__(self, database: Database) -> None:
        self.rows = 0
        self.runs = 0
        self.longest_s = 0.0
        self.busy_s = 0.0
        self._seen = 0
        self._database = database
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stopped.wait(0.5):
            self._look()

    def _look(self) -> None:
        for run in self._database.query(RUNS, self._seen):
            self._seen = run["id"]
            if run["error"]:
                # The dispatcher that ran it was stopped at the end of the drain.
                if run["error"].startswith("57014:"):
                    continue
                raise RuntimeError(run["error"])
            self.runs += 1
            self.rows += run["row_count"]
            self.busy_s += run["took_s"]
            self.longest_s = max(self.longest_s, run["took_s"])

    def __enter__(self) -> Retention:
        self._seen = self._database.query("SELECT coalesce(max(id), 0) AS id FROM wa_job_runs")[0]["id"]
        self._database.query(ENABLE, True)
        self._database.query(DUE)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._database.query(ENABLE, False)
        self._look()
        if not self.rows:
            raise RuntimeError("retention took nothing")


def retention(bench: Bench) -> Iterator[Line]:
    """The same drain in a database with a history, alone and while retention takes the history."""
    count = bench.size(MESSAGES)
    old = dataclasses.replace(bench, history=min(bench.history, HISTORY))
    with bench.ground.database() as database:
        make(old, database)
        database.query("SELECT adopt_wa_database('keep')")
        for statement in BEGIN.split(";"):
            database.query(statement)
        database.query(ENABLE, False)

        def beside() -> float:
            with Retention(database) as job:
                rate = drain_ours(bench, database, bench.ground.sink(0), count)
            bench.note(
                "retention",
                rows=job.rows,
                runs=job.runs,
                longest_s=round(job.longest_s, 2),
                rows_per_busy_s=round(job.rows / job.busy_s),
            )
            return rate

        values = bench.rounds(
            {
                "drain alone": lambda: drain_ours(bench, database, bench.ground.sink(0), count),
                "drain beside retention": beside,
            }
        )
    alone, during = values.values()
    yield Line(f"drain beside retention of {old.history:,}", during, "msg/s", "alone", alone, at_least=0.8)
