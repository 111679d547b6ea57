"""The ground that every figure stands on: one durable private server, its databases, the HTTP sinks."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from harness import CHECKOUT, Database, Server, cluster_command, exported
from wa_process import WaProcess

NUMBER, ACCOUNT = "106540352242922", "102290129340398"
#: Contacts that exist in every database, with an open window.
KNOWN = 100_000
SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "1GB",
    "max_connections": "100",
    # As bin/cluster sets it, but the same for every checkout.
    "max_wal_size": "4GB",
}
# A limit that is far away is still counted against each message.
SETUP = f"""
CREATE ROLE bench_app LOGIN IN ROLE wa_app;
CREATE ROLE bench_dispatcher LOGIN IN ROLE wa_dispatcher;
CREATE ROLE bench_receiver LOGIN IN ROLE wa_receiver;
SELECT register_wa_phone_number('{NUMBER}', '+1 650 555 0100', '{ACCOUNT}', throughput => 100000);
UPDATE wa_organizations SET rate_limit_per_minute = 1000000000;
UPDATE wa_portfolios SET messaging_limit = 'TIER_UNLIMITED', tier_limit = 1000000000;
INSERT INTO wa_templates (waba_id, name, language, category, approval_status, status, body_text)
VALUES ('{ACCOUNT}', 'order_update', 'en', 'UTILITY', 'approved', 'APPROVED',
    'Hello {{{{1}}}}, your order {{{{2}}}} is on its way.');
"""
# Whoever was queued a message is known; every release can do that.
CONTACTS = """
INSERT INTO wa_outbound_queue (phone, template_name, template_params)
SELECT '+1' || 6502000000 + n, 'order_update', '["Ann", "A-1042"]'
FROM generate_series(%s::bigint, %s) n
"""
NO_QUEUE = "DELETE FROM wa_outbound_queue"
WINDOWS = """
INSERT INTO wa_conversation_windows (organization_id, number_id, contact_id, last_customer_message_at)
SELECT c.organization_id, n.id, c.id, clock_timestamp() FROM wa_contacts c
JOIN wa_phone_numbers n ON n.organization_id = c.organization_id
"""
# Half of them text in an open window, half templates; each to another contact.
FILL = """
INSERT INTO wa_outbound_queue (phone, text_body, template_name, template_params)
SELECT '+1' || 6502000000 + n,
    CASE WHEN n %% 2 = 0 THEN 'Hello, thank you for your order. It will leave our house today.' END,
    CASE WHEN n %% 2 = 1 THEN 'order_update' END,
    CASE WHEN n %% 2 = 1 THEN jsonb_build_array('Ann', 'A-' || n) END
FROM generate_series(%s::bigint, %s) n
"""


class Ground:
    """A private server with fsync on and the extension of a checkout, made and removed by the benchmark."""

    def __init__(self, checkout: Path = CHECKOUT) -> None:
        options = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
        started = cluster_command("start", "--owner", str(os.getpid()), *options, checkout=checkout)
        self.server = Server(exported(started), checkout)
        self._sinks: dict[int, Sink] = {}
        self._base: Database | None = None
        self._derived: dict[str, Database] = {}

    def close(self) -> None:
        """Stop everything."""
        for sink in self._sinks.values():
            sink.process.kill()
        cluster_command("stop", "--dir", self.server.directory, checkout=self.server.checkout)

    @property
    def base(self) -> Database:
        """The database that the others are copies of: installed, its contacts known, nothing queued."""
        if self._base is None:
            self._base = self.server.create_database()
            self._base.install()
            with self._base.connect() as connection:
                connection.execute(SETUP.encode())
                connection.execute(CONTACTS, (0, KNOWN - 1))
                connection.execute(NO_QUEUE)
                connection.execute(WINDOWS)
                # No trace of the emptied queue: copies start with small tables and indexes.
                connection.execute("VACUUM FULL")
                connection.execute("VACUUM ANALYZE")
        return self._base

    def derived(self, name: str, make: Callable[[Database], None]) -> Database:
        """A copy of the base that `make` adds to, made once, to be copied in turn."""
        if name not in self._derived:
            copy = self._copy(self.base)
            make(copy)
            self._derived[name] = copy
        return self._derived[name]

    @contextmanager
    def database(self, like: Database | None = None) -> Iterator[Database]:
        """A copy of the base, or of another database, that may send."""
        copy = self._copy(like or self.base)
        yield copy
        self.server.drop_database(copy)

    def _copy(self, like: Database) -> Database:
        copy = self.server.create_database(like.name)
        copy.query("SELECT * FROM adopt_wa_database('keep')")
        return copy

    @contextmanager
    def empty_database(self) -> Iterator[Database]:
        """A database for another queue."""
        database = self.server.create_database()
        yield database
        self.server.drop_database(database)

    def sink(self, latency_ms: int) -> Sink:
        """The sink of that latency, started once and counting from zero."""
        if latency_ms not in self._sinks:
            self._sinks[latency_ms] = Sink(self.base, latency_ms)
        sink = self._sinks[latency_ms]
        sink.call("POST", "reset")
        return sink

    def machine(self) -> dict[str, Any]:
        """What all of this ran on."""
        cpu = Path("/proc/cpuinfo").read_text().split("model name\t: ", 1)[-1].splitlines()[0]
        memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
        commit = subprocess.run(
            ["git", "-C", CHECKOUT, "describe", "--always", "--dirty"], capture_output=True, text=True
        )
        return {
            "cpu": cpu,
            "cpus": os.cpu_count(),
            "memory_gib": round(memory_kb / 1024**2),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "postgres": self.base.query("SHOW server_version")[0]["server_version"],
            "settings": SETTINGS,
            "fdatasync_ms": round(measure_fdatasync(Path(self.server.directory)), 3),
            "load_before": os.getloadavg()[0],
            "commit": commit.stdout.strip(),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


class Sink:
    """`wa simulate --sink` in a process of its own."""

    def __init__(self, database: Database, latency_ms: int) -> None:
        self.process = WaProcess(
            "simulate", "--sink", "--port", "0", "--latency", str(latency_ms), database=database
        )
        self.url: str = self.process.logged("simulator_ready")["url"]

    def call(self, method: str, what: str) -> dict[str, Any]:
        """One control request."""
        request = urllib.request.Request(f"{self.url}/_simulator/{what}", method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return dict(json.load(answer))

    @property
    def accepted(self) -> int:
        """Requests accepted since the last reset."""
        return int(self.call("GET", "stats")["accepted"])

    @property
    def messages_url(self) -> str:
        """Where messages are sent to."""
        return f"{self.url}/v25.0/{NUMBER}/messages"

    def first_arrival(self) -> float:
        """Unix time of the first request since the last reset (of the last 100,000)."""
        return float(self.call("GET", "arrivals")["arrivals"][0]["time"])


def dispatcher(database: Database, sink: Sink, *options: str, **env: str) -> WaProcess:
    """A dispatcher as in production: its own role, defaults everywhere."""
    return WaProcess(
        "dispatch",
        *options,
        database=database,
        user="bench_dispatcher",
        WHATSAPP_API_BASE_URL=sink.url,
        WHATSAPP_ACCESS_TOKEN="bench-token",
        **env,
    )


@contextmanager
def module_process(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A module of the benchmark in a process of its own, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def as_role(database: Database, user: str) -> psycopg.Connection[Any]:
    """An autocommit connection of one of the roles."""
    return database.connect(user=user)


def fill(database: Database, count: int, first: int = 0) -> None:
    """Queue messages to the contacts from `first` on, as an application does."""
    with as_role(database, "bench_app") as connection:
        connection.execute(FILL, (first, first + count - 1))


def settle(database: Database) -> None:
    """Statistics and a checkpoint before a measurement, for every contender alike."""
    with database.connect() as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 600.0, every: float = 0.05) -> None:
    """Wait until a condition holds; looks rarely, so as not to disturb what is measured."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:.0f} s: {what}")
        time.sleep(every)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_fdatasync(directory: Path) -> float:
    """Milliseconds of one 8 kB write with fdatasync beside the server's data."""
    path = directory / "fdatasync"
    handle = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        started = time.monotonic()
        for _ in range(200):
            os.pwrite(handle, bytes(8192), 0)
            os.fdatasync(handle)
        return (time.monotonic() - started) * 1000 / 200
    finally:
        os.close(handle)
        path.unlink()
