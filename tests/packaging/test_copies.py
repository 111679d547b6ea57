"""Copies of a database at work: complete, without side effects, and silent until they are told to send.

Tests sql/extension/data_directory.sql.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from copies import (
    HOLDER,
    WAYS,
    Business,
    accepted,
    base_backup,
    contents,
    prepare,
    queue,
    replace_data,
    run,
    settings,
    simulator,
    states,
)
from harness import Database, Server
from pg_whatsapp import __version__
from simulated import SimulatorProcess, wait_until
from wa_process import wa

HELD = "SELECT queue_id FROM wa_queue_inflight WHERE dispatcher_id = %s"


@pytest.fixture
def source(make_server: Callable[..., Server]) -> Database:
    """An empty installation on a server of its own."""
    database = make_server().create_database()
    database.install()
    return database


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[SimulatorProcess]:
    """What the source sends to."""
    with simulator(tmp_path / "source") as made:
        yield made


@pytest.fixture
def other_provider(tmp_path: Path) -> Iterator[SimulatorProcess]:
    """What a copy sends to, so that nothing of the source is among it."""
    with simulator(tmp_path / "copy") as made:
        yield made


def refuses(copy: Database, provider: SimulatorProcess) -> None:
    """A dispatcher ends at once, says why, and has sent nothing."""
    done = wa("dispatch", "--drain", database=copy, **settings(provider))
    assert done.returncode == 1
    assert "this database is not the one that was sending" in done.stderr
    assert "bin/wa adopt" in done.stderr
    assert accepted(provider) == 0


def becomes_the_one_that_sends(copy: Database, provider: SimulatorProcess) -> None:
    """Adopted, it marks what the original may have sent, and sends what is queued from then on."""
    refuses(copy, provider)
    before = states(copy)
    assert before["sending"]
    due = copy.query("SELECT queue_id FROM wa_queue_due WHERE due_at <= clock_timestamp()")
    assert due
    done = wa("adopt", database=copy)
    assert done.returncode == 0, done.stderr
    assert f"in flight when copied: outcome unknown: {before['sending']}" in done.stdout
    assert f"in_doubt, retry_wa_messages() sends them: {len(due)}" in done.stdout
    doubtful = copy.query("SELECT id FROM wa_outbound_queue WHERE error_code = 'in_doubt'")
    assert {row["id"] for row in doubtful} == {row["queue_id"] for row in due}
    flying = copy.query(
        "SELECT DISTINCT e.reason FROM wa_outbound_queue q, explain_wa_message(q.id) e"
        " WHERE q.status = 'sending'"
    )
    assert flying == [{"reason": "outcome_unknown"}]
    # What the original would send tomorrow is not in doubt.
    assert states(copy)["pending"] == before["pending"] - len(due)

    queue(copy, 1)
    sent = wa("dispatch", "--drain", database=copy, **settings(provider))
    assert sent.returncode == 0, sent.stderr
    assert accepted(provider) == 1
    [row] = copy.query("SELECT status FROM wa_outbound_queue WHERE phone = '+15552000001'")
    assert row["status"] == "sent"
    assert wa("adopt", database=copy).stdout.startswith("nothing to do")


def test_a_dump_of_a_busy_database_restores_the_same_rows_and_sends_nothing(
    source: Database,
    provider: SimulatorProcess,
    other_provider: SimulatorProcess,
    make_server: Callable[..., Server],
    tmp_path: Path,
) -> None:
    elsewhere = make_server()
    archive, script = tmp_path / "dump", tmp_path / "dump.sql"
    with Business(source, provider) as business:
        with business.snapshot() as (connection, snapshot):
            options = (f"--snapshot={snapshot}", source.dsn)
            run(source.server, "pg_dump", "-Fd", "-f", archive, *options)
            run(source.server, "pg_dump", "-Fp", "-f", script, *options)
            rows = contents(connection)
        for options_of_way in (*WAYS.values(), None):
            copy = elsewhere.create_database()
            with copy.connect() as listener:
                listener.execute("LISTEN wa_queue")
                if options_of_way is None:
                    psql = ("-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", copy.dsn, "-f", script)
                    run(elsewhere, "psql", *psql)
                else:
                    run(elsewhere, "pg_restore", *options_of_way, "-d", copy.dsn, archive)
                assert contents(listener) == rows
                assert list(listener.notifies(timeout=0)) == []
            refuses(copy, other_provider)
        becomes_the_one_that_sends(copy, other_provider)
        business.check_it_goes_on()
        business.finish()


def test_a_base_backup_of_a_busy_server_sends_nothing(
    source: Database,
    provider: SimulatorProcess,
    other_provider: SimulatorProcess,
    make_server: Callable[..., Server],
) -> None:
    elsewhere = make_server()
    with Business(source, provider) as business:
        business.hold_some()
        base_backup(source.server, elsewhere)
        becomes_the_one_that_sends(Database(elsewhere, source.name), other_provider)
        business.check_it_goes_on()
        business.finish()


def test_a_promoted_standby_sends_nothing(
    source: Database,
    provider: SimulatorProcess,
    other_provider: SimulatorProcess,
    make_server: Callable[..., Server],
) -> None:
    elsewhere = make_server()
    standby = Database(elsewhere, source.name)
    with Business(source, provider) as business:
        base_backup(source.server, elsewhere, "-R")
        business.hold_some()
        wait_until(lambda: standby.query(HELD, HOLDER))
        early = wa("dispatch", "--drain", database=standby, **settings(other_provider))
        assert early.returncode == 1
        assert "standby" in early.stderr
        assert standby.query("SELECT pg_promote()") == [{"pg_promote": True}]
        becomes_the_one_that_sends(standby, other_provider)
        business.check_it_goes_on()
        business.finish()


def test_a_copied_directory_sends_nothing_and_its_original_goes_on(
    source: Database,
    provider: SimulatorProcess,
    other_provider: SimulatorProcess,
    make_server: Callable[..., Server],
) -> None:
    prepare(source)
    queue(source, 1, 3)
    elsewhere = make_server()
    source.server.stop()
    replace_data(elsewhere, lambda data: shutil.copytree(Path(source.server.directory, "data"), data))
    source.server.start()
    refuses(Database(elsewhere, source.name), other_provider)
    done = wa("dispatch", "--drain", database=source, **settings(provider))
    assert done.returncode == 0, done.stderr
    assert accepted(provider) == 3
    source.server.restart("immediate")
    queue(source, 10)
    assert wa("dispatch", "--drain", database=source, **settings(provider)).returncode == 0
    assert accepted(provider) == 4


def test_a_claim_and_a_webhook_survive_a_crash_where_commits_are_asynchronous(
    make_server: Callable[..., Server],
) -> None:
    # The longest delay there is: what is not flushed at commit is lost in this crash.
    server = make_server(fsync="on", synchronous_commit="off", wal_writer_delay="10000")
    database = server.create_database()
    database.install()
    prepare(database)
    queue(database, 1, 5)
    server.restart()
    dispatcher = "00000000-0000-0000-0000-000000000001"
    with database.connect() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)
        connection.execute("SELECT start_wa_dispatcher(%s, 'here', 1, %s)", (dispatcher, __version__))
        claimed = connection.execute(
            "SELECT queue_id, attempt FROM claim_wa_messages(%s, 10)", (dispatcher,)
        ).fetchall()
        server.stop("immediate")
    server.start()
    assert len(claimed) == 5
    found = database.query("SELECT id, attempt FROM wa_outbound_queue WHERE status = 'sending'")
    assert {(row["id"], row["attempt"]) for row in found} == set(claimed)

    with database.connect() as connection:
        stored = connection.execute("SELECT ingest_wa_webhook('{}')").fetchone()
        server.stop("immediate")
    server.start()
    assert stored is not None
    assert database.query("SELECT id FROM wa_webhook_logs") == [{"id": stored[0]}]

    # The crash does lose what nobody flushed; else the above would show nothing.
    with database.connect() as connection:
        connection.execute("INSERT INTO audit_log (event) VALUES ('unflushed')")
        server.stop("immediate")
    server.start()
    assert database.query("SELECT event FROM audit_log WHERE event = 'unflushed'") == []
