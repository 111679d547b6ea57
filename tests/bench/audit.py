"""What the audit log's chain costs sending: a drain while rows are written and sealed, or written only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from harness import Database

from bench.drain import drain_ours
from bench.rounds import Bench
from bench.table import Line

MESSAGES = 20_000
#: Audit rows a second; a busy office changes a setting a minute.
ROWS_A_S = 50
#: As often is sealed here; the job does it once a minute.
SEAL_EVERY_S = 1.0
WITHOUT = "ALTER TABLE audit_log DISABLE TRIGGER await_seal"
WRITE = """
INSERT INTO audit_log (event, entity, entity_id, meta)
VALUES ('setting_changed', 'wa_organizations', 'x', '{"old": {"limit": 50}, "new": {"limit": 60}}')
"""


@contextmanager
def _writing(database: Database, *, is_sealed: bool) -> Iterator[None]:
    """Rows are written meanwhile, and sealed."""
    stop = Event()

    def work() -> None:
        with database.connect() as connection:
            since_seal = 0.0
            while not stop.wait(1 / ROWS_A_S):
                connection.execute(WRITE)
                since_seal += 1 / ROWS_A_S
                if is_sealed and since_seal >= SEAL_EVERY_S:
                    connection.execute("SELECT seal_wa_audit_log()")
                    since_seal = 0.0

    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _drain(bench: Bench, count: int, *, is_sealed: bool) -> float:
    with bench.ground.database() as database:
        if not is_sealed:
            database.query(WITHOUT)
        with _writing(database, is_sealed=is_sealed):
            value = drain_ours(bench, database, bench.ground.sink(0), count)
        if is_sealed:
            [found] = database.query("SELECT count(*) AS n FROM verify_wa_audit_log()")
            [sealed] = database.query("SELECT count(*) AS n FROM wa_audit_seals")
            if found["n"] or not sealed["n"]:
                raise RuntimeError(f"{sealed['n']} rows sealed, {found['n']} findings")
            bench.note("audit", sealed=sealed["n"])
        return value


def sealing(bench: Bench) -> Iterator[Line]:
    """A sink that answers at once; audit rows are written in both."""
    count = bench.size(MESSAGES)
    values = bench.rounds(
        {
            "sealed": lambda: _drain(bench, count, is_sealed=True),
            "not sealed": lambda: _drain(bench, count, is_sealed=False),
        }
    )
    yield Line(
        "drain while audit rows are sealed",
        values["sealed"],
        "msg/s",
        "without seals",
        values["not sealed"],
        at_least=0.97,
        is_paired=True,
    )
