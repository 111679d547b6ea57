"""A database at work, and ways to copy it: dumps, base backups, standbys, copied directories."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from harness import Database, Server
from pg_whatsapp import __version__
from psycopg import sql
from simulated import NUMBER, SimulatorProcess, wait_until
from wa_process import WaProcess

WABA = "102290129340398"
TOKEN = "EAAG-test-token"
SECRET = "app-secret"
HOLDER = "00000000-0000-0000-0000-000000000001"
SIMULATED = {"pair": False, "throughput": False, "window": "off", "answer_delay_ms": 100}

# Ways to restore a dump: options of pg_restore.
WAYS = {
    "plain": [],
    "one transaction": ["-1"],
    "parallel": ["-j4"],
    "stopping at the first error": ["--exit-on-error"],
}


def run(server: Server, program: str, *args: str | Path) -> None:
    """Run one of the server's programs; fails with what it said."""
    done = subprocess.run([server.bindir / program, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower(), done.stderr


def contents(connection: psycopg.Connection[Any], schema: str = "public") -> dict[str, list[str]]:
    """Every table of the extension's schema with its rows as sorted text."""
    tables = connection.execute(
        """
        SELECT c.relname FROM pg_class AS c
        WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relkind IN ('r', 'p')
            AND NOT c.relispartition
            AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
        ORDER BY c.relname
        """,
        (schema,),
    ).fetchall()
    rows: dict[str, list[str]] = {}
    for (table,) in tables:
        every = sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(sql.Identifier(schema, table))
        rows[table] = [row[0] for row in connection.execute(every)]
    return rows


@contextmanager
def simulator(directory: Path) -> Iterator[SimulatorProcess]:
    """A provider with the number and the template of prepare()."""
    directory.mkdir()
    with SimulatorProcess(
        directory,
        waba_id=WABA,
        phone_number_id=NUMBER,
        access_token=TOKEN,
        app_secret=SECRET,
        settings=SIMULATED,
    ) as made:
        made.client.headers["authorization"] = f"Bearer {TOKEN}"
        yield made


def settings(provider: SimulatorProcess) -> dict[str, str]:
    """What a dispatcher needs to send to that simulator."""
    return {"WHATSAPP_API_BASE_URL": provider.url, "WHATSAPP_ACCESS_TOKEN": TOKEN}


def accepted(provider: SimulatorProcess) -> int:
    """How many messages the simulator has accepted."""
    count: int = provider.get("journal", format="summary")["accepted"]
    return count


def prepare(database: Database) -> None:
    """Register the number and a template without parameters."""
    database.query("SELECT register_wa_phone_number(%s, '+15550783881', %s)", NUMBER, WABA)
    database.query(
        "INSERT INTO wa_templates (name, language, category, status, body_text, waba_id)"
        " VALUES ('hello_world', 'en_US', 'UTILITY', 'APPROVED', 'Hello World', %s)",
        WABA,
    )


def queue(database: Database, first: int, count: int = 1, delay: str = "0") -> None:
    """Queue a template message to each of some recipients, due after a delay."""
    database.query(
        "INSERT INTO wa_outbound_queue (phone, template_name, scheduled_at)"
        " SELECT '+1555' || (2000000 + g), 'hello_world', clock_timestamp() + %s::interval"
        " FROM generate_series(%s::int, %s::int) g",
        delay, first, first + count - 1,
    )  # fmt: skip


def states(database: Database) -> dict[str, int]:
    """Rows of the queue by status."""
    rows = database.query("SELECT status, count(*) FROM wa_outbound_queue GROUP BY status")
    return {row["status"]: row["count"] for row in rows}


class Business:
    """A database with a dispatcher, a receiver of status webhooks and a producer, all at work."""

    def __init__(self, database: Database, provider: SimulatorProcess) -> None:
        self.database = database
        self.provider = provider
        self._enough = threading.Event()
        self._failure: BaseException | None = None
        self._held: list[tuple[Any, ...]] = []
        self._thread = threading.Thread(target=self._produce)

    def _produce(self) -> None:
        try:
            number = 1000
            while not self._enough.wait(0.05):
                queue(self.database, number, 4)
                number += 4
        except BaseException as error:
            self._failure = error

    def __enter__(self) -> Business:
        prepare(self.database)
        queue(self.database, 500, 5, "1 day")
        self._receiver = WaProcess("serve", "--port", "0", database=self.database, WHATSAPP_APP_SECRET=SECRET)
        try:
            at = self._receiver.logged("serving")
            url = f"http://{at['host']}:{at['port']}/api/whatsapp/webhook"
            self.provider.post("settings", webhook_url=url)
            # Slower than the producer, so that there is always something due and something in flight.
            self._dispatcher = WaProcess(
                "dispatch", "--concurrency", "2", database=self.database, **settings(self.provider)
            )
        except BaseException:
            self._receiver.kill()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_problem: object) -> None:
        self._enough.set()
        self._thread.join()
        self._dispatcher.kill()
        self._receiver.kill()

    @contextmanager
    def snapshot(self) -> Iterator[tuple[psycopg.Connection[Any], str]]:
        """A transaction, and the name of its snapshot, that sees rows in every state of sending."""
        with self.database.connect(autocommit=False) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

            def look() -> str | None:
                connection.rollback()
                row = connection.execute(
                    "SELECT pg_export_snapshot(), EXISTS (SELECT FROM wa_queue_inflight)"
                    " AND EXISTS (SELECT FROM wa_queue_due WHERE due_at <= clock_timestamp())"
                    " AND EXISTS (SELECT FROM wa_messages WHERE state = 'read')"
                ).fetchone()
                assert row is not None
                return row[0] if row[1] else None

            yield connection, wait_until(look)

    def hold_some(self) -> None:
        """Keep some messages in flight until finish(), as a second dispatcher that waits for answers.

        Others are due by then.
        """
        with self.database.connect() as connection:
            connection.execute("SELECT start_wa_dispatcher(%s, 'here', 1, %s)", (HOLDER, __version__))

            def claim() -> list[tuple[Any, ...]]:
                return connection.execute(
                    "SELECT organization_id, queue_id, attempt FROM claim_wa_messages(%s, 3)", (HOLDER,)
                ).fetchall()

            self._held = wait_until(claim)
        wait_until(lambda: self._due() > 20)

    def _release(self) -> None:
        results = [
            {"org": str(organization), "id": str(queued), "attempt": attempt, "outcome": "not_started"}
            for organization, queued, attempt in self._held
        ]
        self.database.query("SELECT complete_wa_messages(%s, %s::jsonb)", HOLDER, json.dumps(results))

    def check_it_goes_on(self) -> None:
        """It still sends what is queued now."""
        before = accepted(self.provider)
        wait_until(lambda: accepted(self.provider) > before + 20)

    def finish(self) -> None:
        """Stop producing; everything due gets sent, once."""
        self._enough.set()
        self._thread.join()
        assert self._failure is None, self._failure
        self._release()
        self.provider.post("settings", answer_delay_ms=0)
        wait_until(self._is_done, 120)
        assert states(self.database)["pending"] == 5
        summary = self.provider.get("journal", format="summary")
        assert summary["accepted"] == states(self.database)["sent"]
        assert summary["duplicates"] == {}

    def _is_done(self) -> bool:
        """In one snapshot: what is claimed between two looks is in neither."""
        [row] = self.database.query(
            "SELECT NOT EXISTS (SELECT FROM wa_queue_due WHERE due_at <= clock_timestamp())"
            " AND NOT EXISTS (SELECT FROM wa_outbound_queue WHERE status NOT IN ('pending', 'sent')) AS done"
        )
        done: bool = row["done"]
        return done

    def _due(self) -> int:
        [row] = self.database.query("SELECT count(*) FROM wa_queue_due WHERE due_at <= clock_timestamp()")
        count: int = row["count"]
        return count


def replace_data(copy: Server, fill: Callable[[Path], object]) -> None:
    """Put another data directory, made by fill(), under a private server and start it there."""
    copy.stop()
    data = Path(copy.directory, "data")
    shutil.rmtree(data)
    fill(data)
    with (data / "postgresql.conf").open("a") as conf:
        conf.write(f"unix_socket_directories = '{copy.directory}'\n")
    owner = os.stat(copy.directory)
    for directory, _, files in os.walk(data):
        for path in (directory, *(os.path.join(directory, name) for name in files)):
            os.chown(path, owner.st_uid, owner.st_gid)
    copy.start()


def base_backup(source: Server, copy: Server, *options: str) -> None:
    """Start a copy of a running server from pg_basebackup; -R makes it a standby."""
    env = source.env
    reach = ("-h", env["PGHOST"], "-p", env["PGPORT"], "-U", env["PGUSER"])
    replace_data(
        copy,
        lambda data: run(
            source, "pg_basebackup", "-D", data, "-X", "stream", "-c", "fast", "-N", *reach, *options
        ),
    )
