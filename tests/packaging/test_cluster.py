"""The private server: nothing of the system is written, nothing is left behind."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from harness import CHECKOUT, Server, exported

pytestmark = pytest.mark.slow


def test_system_has_no_file_of_ours_from_the_tests(pg: Server) -> None:
    directory = pg.directory
    with psycopg.connect(pg.dsn()) as connection:
        row = connection.execute("SELECT setting FROM pg_config WHERE name = 'SHAREDIR'").fetchone()
    assert row is not None
    assert row[0].startswith(f"{directory}/root/")
    assert Path(row[0], "extension/pg_whatsapp.control").is_file()
    assert Path(row[0], "pg_whatsapp/python/phonenumbers").is_dir()


def test_nobody_else_can_enter_and_no_port_is_open(pg: Server) -> None:
    assert Path(pg.directory).stat().st_mode & 0o077 == 0
    with psycopg.connect(pg.dsn()) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_settings_are_taken(make_server: Callable[..., Server]) -> None:
    server = make_server(fsync="on", shared_preload_libraries="plpgsql_check")
    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        assert connection.execute("SHOW shared_preload_libraries").fetchone() == ("plpgsql_check",)


def test_committed_rows_survive_a_crash_of_the_server(make_server: Callable[..., Server]) -> None:
    server = make_server()
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    server.restart("immediate")
    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_run_gives_the_command_a_server_and_its_exit_status() -> None:
    script = 'psql -X -At -c "SHOW cluster_name" && echo $WA_CLUSTER && exit 7'
    done = subprocess.run(
        [CHECKOUT / "bin/cluster", "run", "sh", "-c", script], capture_output=True, text=True
    )
    name, directory = done.stdout.split()
    assert (done.returncode, name) == (7, "pg_whatsapp"), done.stderr
    assert not Path(directory).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_server_goes_when_its_owner_goes(number: signal.Signals) -> None:
    owner = textwrap.dedent(
        f"""
        import os, subprocess, sys
        subprocess.run([{str(CHECKOUT / "bin/cluster")!r}, "start", "--owner", str(os.getpid())])
        sys.stdin.read()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", owner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        server = Server(exported("".join(process.stdout.readline() for _ in range(6))))
        postmaster = int(Path(server.directory, "data/postmaster.pid").read_text().split()[0])
        watched = os.pidfd_open(postmaster)
        process.send_signal(number)
        process.wait()
    # A pidfd becomes readable when its process has ended.
    assert select.select([watched], [], [], 60)[0]
    os.close(watched)


def test_installcheck_runs_on_the_server_that_the_environment_names(pg: Server) -> None:
    """One folder of it: test_pgtap.py runs all files, each in a database of its own."""
    folder = CHECKOUT / "tests/pgtap/numbers"
    done = subprocess.run(
        ["make", "-s", "installcheck", f"FILES={folder}"],
        cwd=CHECKOUT,
        env=os.environ | pg.env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Result: PASS" in done.stdout
    found = re.search(r"^Files=(\d+)", done.stdout, re.MULTILINE)
    assert found
    assert int(found[1]) == len(list(folder.glob("*.sql"))) > 0
