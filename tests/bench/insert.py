"""What queueing costs: the same INSERT into a table of the same make without triggers stands beside it.

No dispatcher runs: as while one is awake, nobody has to be notified.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

from harness import Database

from bench.ground import KNOWN, as_role
from bench.rounds import Bench
from bench.table import Line

SECONDS = 6
BULK = 100_000
OURS, PLAIN = "wa_outbound_queue", "bench_plain_queue"
# What our triggers fill in is a default there, so that the statements are the same. LIKE copies no storage
# parameters, policies or grants.
MAKE_PLAIN = f"""
CREATE TABLE {PLAIN} (LIKE {OURS} INCLUDING ALL) WITH (
    fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0
);
ALTER TABLE {PLAIN} ALTER id SET DEFAULT _wa_uuid7(clock_timestamp()), ALTER type SET DEFAULT 'text';
ALTER TABLE {PLAIN} ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {PLAIN} USING (organization_id = current_wa_organization())
WITH CHECK (organization_id = current_wa_organization());
CREATE POLICY admin ON {PLAIN} TO wa_admin USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON {PLAIN} TO wa_app;
"""
CLEAR = f"""
TRUNCATE {OURS}, wa_queue_due, {PLAIN};
CHECKPOINT;
"""
SCRIPTS = (
    f"\\set n random(0, {KNOWN - 1})\n"
    "INSERT INTO :queue (phone, text_body) VALUES ('+1' || 6502000000 + :n, 'Hello, it leaves today.');\n",
    f"\\set n random(0, {KNOWN - 1})\n"
    "INSERT INTO :queue (phone, template_name, template_params)"
    " VALUES ('+1' || 6502000000 + :n, 'order_update', '[\"Ann\", \"A-1042\"]');\n",
)
FILL = """
INSERT INTO {queue} (phone, template_name, template_params)
SELECT '+1' || 6502000000 + n, 'order_update', jsonb_build_array('Ann', 'A-' || n)
FROM generate_series(%s::bigint, %s) n
"""


def single_rows(bench: Bench) -> Iterator[Line]:
    """pgbench with text and template messages in turn, as an application role."""
    with bench.ground.database() as database:
        database.query(MAKE_PLAIN)
        for delay, targets in ((0, {1: 0.5, 8: 0.5, 32: 0.4}), (2000, {1: None, 8: None, 32: 0.7})):
            # A server setting that an application role may not change: it comes with the login.
            database.query(f"ALTER ROLE bench_app SET commit_delay = {delay}")
            database.query("ALTER ROLE bench_app SET commit_siblings = 0")
            for clients, target in targets.items():
                yield from _beside_plain(bench, database, delay, clients, target)


def _beside_plain(
    bench: Bench, database: Database, delay: int, clients: int, target: float | None
) -> Iterator[Line]:
    label = f"INSERT, {clients} clients" + (f", commit_delay {delay}" if delay else "")

    def run(queue: str) -> Callable[[], float]:
        def measure() -> float:
            _clear(database)
            return insert_singly(database, clients, bench.size(SECONDS), queue)

        return measure

    values = bench.rounds({label: run(OURS), f"{label}, plain table": run(PLAIN)})
    mine, plain = values.values()
    yield Line(label, mine, "rows/s", "plain table", plain, at_least=target)


def insert_singly(database: Database, clients: int, seconds: int, queue: str = OURS) -> float:
    """Rows a second of that many clients of pgbench."""
    with tempfile.TemporaryDirectory() as folder:
        scripts = [Path(folder, f"{n}.sql") for n in range(len(SCRIPTS))]
        for path, script in zip(scripts, SCRIPTS, strict=True):
            path.write_text(script)
        done = subprocess.run(
            [
                database.server.bindir / "pgbench", "-n", "-c", str(clients), "-j", str(min(clients, 2)),
                "-T", str(seconds), "-D", f"queue={queue}",
                *(part for path in scripts for part in ("-f", str(path))),
                "-U", "bench_app", database.name,
            ],
            env=database.env, capture_output=True, text=True,
        )  # fmt: skip
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or found is None or "failed transactions: 0 " not in done.stdout:
        raise RuntimeError(f"pgbench: {done.stdout}{done.stderr}")
    return float(found[1])


def bulk(bench: Bench) -> Iterator[Line]:
    """One statement with many rows: to contacts that are known, and to as many new ones."""
    count = bench.size(BULK)
    with bench.ground.database() as database:
        database.query(MAKE_PLAIN)
        new = iter(range(KNOWN, 7_000_000, count))

        def run(queue: str, first: Callable[[], int]) -> Callable[[], float]:
            def measure() -> float:
                _clear(database)
                return insert_at_once(database, count, first(), queue)

            return measure

        values = bench.rounds(
            {
                "known contacts": run(OURS, lambda: 0),
                "new contacts": run(OURS, lambda: next(new)),
                "plain table": run(PLAIN, lambda: 0),
            }
        )
    for label, target in (("known contacts", 0.3), ("new contacts", 0.2)):
        figure = f"bulk INSERT of {count:,}, {label}"
        yield Line(figure, values[label], "rows/s", "plain table", values["plain table"], at_least=target)


def insert_at_once(database: Database, count: int, first: int = 0, queue: str = OURS) -> float:
    """Rows a second of one statement, to the contacts from `first` on."""
    with as_role(database, "bench_app") as connection:
        began = monotonic()
        connection.execute(FILL.format(queue=queue).encode(), (first, first + count - 1))
        return count / (monotonic() - began)


def _clear(database: Database) -> None:
    with database.connect() as connection:
        for statement in CLEAR.split(";"):
            if statement.strip():
                connection.execute(statement.encode())
