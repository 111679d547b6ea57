"""Behind PgBouncer in transaction mode: what works, and what says that it cannot.

Tests bin/pg_whatsapp/db.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from harness import Database, free_port
from simulated import wait_until
from test_serve import ENV, Serving, message, prepare, serve
from wa_process import KEY, wa

__all__ = ["serve"]
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed (Debian's package pgbouncer)"),
]


class Pooler:
    """PgBouncer before the tests' server: four sessions for everybody."""

    def __init__(self, db: Database, directory: Path, mode: str, users: list[str]) -> None:
        assert PGBOUNCER is not None
        self.port = free_port()
        server = db.server.env
        (directory / "users").write_text("".join(f'"{user}" ""\n' for user in users))
        (directory / "ini").write_text(
            f"""
            [databases]
            * = host={server["PGHOST"]} port={server["PGPORT"]}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = trust
            auth_file = {directory / "users"}
            pool_mode = {mode}
            default_pool_size = 4
            max_client_conn = 1000
            """
        )
        # It refuses to run as root, as the server does.
        user = {"user": "postgres"} if os.getuid() == 0 else {}
        directory.chmod(0o755)
        self.process = subprocess.Popen(
            [PGBOUNCER, "-q", str(directory / "ini")], stderr=subprocess.DEVNULL, **user
        )
        self.env = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port)}
        self.dsn = f"host=127.0.0.1 port={self.port} dbname={db.name}"

        def answers() -> bool:
            try:
                psycopg.connect(f"{self.dsn} user={users[0]}").close()
            except psycopg.OperationalError:
                return False
            return True

        try:
            wait_until(answers)
        except AssertionError:
            self.close()
            raise

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def pooler(
    db: Database, make_role: Callable[..., str]
) -> Iterator[Callable[..., tuple[Pooler, dict[str, str]]]]:
    """Starts PgBouncer; with it comes a role of each group."""
    made: list[Pooler] = []

    def start(mode: str = "transaction") -> tuple[Pooler, dict[str, str]]:
        roles = {g: make_role(f"wa_{g}") for g in ("admin", "app", "dispatcher", "receiver")}
        # Not pytest's directory, which only its owner may enter.
        made.append(Pooler(db, Path(directory), mode, [*roles.values(), db.server.env["PGUSER"]]))
        return made[-1], roles

    with TemporaryDirectory() as directory:
        yield start
        for one in made:
            one.close()


Start = Callable[..., tuple[Pooler, dict[str, str]]]


def test_dispatch_needs_a_session_and_says_so(db: Database, pooler: Start) -> None:
    through, roles = pooler()
    done = wa("dispatch", "--drain", database=db, user=roles["dispatcher"], **through.env)
    assert done.returncode == 1
    assert "pooler" in done.stderr
    assert "session mode" in done.stderr
    assert db.query("SELECT 1 FROM wa_dispatchers") == []


def test_dispatch_runs_behind_a_pool_of_sessions(db: Database, pooler: Start) -> None:
    prepare(db)
    db.query("SELECT adopt_wa_database('keep')")
    through, roles = pooler("session")
    done = wa("dispatch", "--drain", database=db, user=roles["dispatcher"], **through.env)
    assert done.returncode == 0, done.stderr


def test_webhooks_come_in_and_leave_nothing_behind(
    db: Database, pooler: Start, serve: Callable[..., Serving]
) -> None:
    prepare(db)
    through, roles = pooler()
    serving = serve(db, roles["receiver"], **ENV, **through.env)
    bodies = [message(f"wamid.{n}", sender=f"1555{1000000 + n}") for n in range(200)]
    with ThreadPoolExecutor(16) as pool:
        assert {answer.status_code for answer in pool.map(serving.post, bodies)} == {200}
    wait_until(lambda: db.query("SELECT count(*) FROM wa_messages")[0]["count"] == 200)
    assert serving.client.get("/healthz").status_code == 200
    # Others of the role meet the sessions that it used.
    with psycopg.connect(f"{through.dsn} user={roles['receiver']}", autocommit=True) as other:
        for _ in range(20):
            row = other.execute(
                "SELECT current_setting('application_name'), current_setting('search_path'),"
                " (SELECT count(*) FROM pg_prepared_statements)",
                prepare=False,
            ).fetchone()
            assert row is not None
            assert re.fullmatch(r"public, tap", row[1])
            assert row[2] == 0


def test_commands_work(db: Database, pooler: Start) -> None:
    through, _ = pooler()
    admin = db.server.env["PGUSER"]
    db.query("SELECT register_wa_phone_number('100', '+1 555 123 4567', '200')")
    for arguments, stdin in (
        (["migrate"], ""),
        (["secrets", "set", "app_secret"], "secret"),
        (["secrets", "list"], ""),
        (["templates", "list"], ""),
        (["adopt"], ""),
    ):
        done = wa(*arguments, database=db, user=admin, stdin=stdin, WA_SECRET_KEY=KEY, **through.env)
        assert done.returncode == 0, (arguments, done.stderr)
    assert "master key" in wa("doctor", database=db, user=admin, **through.env).stdout
    assert db.query("SELECT 1 FROM wa_secrets WHERE name = 'app_secret'")


def test_ten_thousand_inserts_of_an_application_are_all_queued(db: Database, pooler: Start) -> None:
    prepare(db)
    db.query(
        "INSERT INTO wa_templates (name, category, status, body_text)"
        " VALUES ('hello', 'UTILITY', 'APPROVED', 'Hello')"
    )
    through, roles = pooler()

    def insert(first: int) -> None:
        with psycopg.connect(
            f"{through.dsn} user={roles['app']}", autocommit=True, prepare_threshold=None
        ) as session:
            for n in range(first, first + 500):
                session.execute(
                    "INSERT INTO wa_outbound_queue (phone, template_name) VALUES (%s, 'hello')",
                    (f"+1650{2000000 + n}",),
                )

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(insert, range(0, 10_000, 500)))
    assert db.query("SELECT count(*) FROM wa_queue_due") == [{"count": 10_000}]
