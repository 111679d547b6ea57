"""Jobs run once each, whoever runs them: dispatchers, pg_cron, people, all at the same time."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from harness import Database, Server
from simulated import wait_until
from wa_process import WaProcess, wa

RUNNERS = 4
# A job that tells who runs it, and lasts until the test lets go of the lock.
SLOW_JOB = """
    CREATE FUNCTION run_slowly() RETURNS integer LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(1);
        INSERT INTO ran (pid) VALUES (pg_backend_pid());
        RETURN 1;
    END $$;
    CREATE TABLE ran (pid integer, at timestamptz DEFAULT clock_timestamp());
    DELETE FROM wa_jobs;
    INSERT INTO wa_jobs (name, function_name, schedule, description)
    VALUES ('slow', 'run_slowly', '0 0 1 1 *', 'slow')
"""
MAKE_DUE = "UPDATE wa_jobs SET next_run_at = clock_timestamp() - interval '1 second'"
RUN_DUE = "SELECT job, status FROM run_due_wa_job()"


@pytest.fixture
def slow(db: Database) -> Database:
    """A database with one job, which is due once."""
    db.query("SELECT adopt_wa_database()")
    with db.connect() as owner:
        owner.execute(SLOW_JOB)
        owner.execute("SELECT schedule_wa_jobs()")
        owner.execute(MAKE_DUE)
    return db


def test_only_one_of_four_runs_it(slow: Database, make_role: Callable[..., str]) -> None:
    dispatcher = make_role("wa_dispatcher")
    with slow.connect() as gate, ThreadPoolExecutor(RUNNERS) as pool:
        gate.execute("SELECT pg_advisory_lock(1)")
        calls = [pool.submit(slow.query, RUN_DUE, user=dispatcher) for _ in range(RUNNERS)]
        wait_until(lambda: sum(call.done() for call in calls) == RUNNERS - 1)
        # While it runs, an administrator is told so, and the job cannot be started by hand either.
        by_hand = "SELECT status FROM run_wa_job('slow')"
        assert slow.query(by_hand) == [{"status": "running elsewhere"}]
        gate.execute("SELECT pg_advisory_unlock(1)")
        done = [call.result()[0]["status"] for call in calls]
    assert sorted(done, key=str) == [None] * (RUNNERS - 1) + ["done"]
    assert len(slow.query("SELECT * FROM ran")) == 1


def test_each_time_that_it_is_due_it_runs_once(slow: Database) -> None:
    """Four runners without any pause between, and forty times that the job is due."""
    rounds = 40

    def run(_: int) -> int:
        ran = 0
        with slow.connect() as session:
            while len(session.execute("SELECT FROM ran").fetchall()) < rounds:
                ((_job, status),) = session.execute(RUN_DUE).fetchall()
                ran += status == "done"
        return ran

    with slow.connect() as owner, ThreadPoolExecutor(RUNNERS) as pool:
        runs = pool.map(run, range(RUNNERS))
        for number in range(1, rounds + 1):
            wait_until(lambda n=number: len(owner.execute("SELECT FROM ran").fetchall()) >= n)  # type: ignore[misc]
            assert len(owner.execute("SELECT FROM ran").fetchall()) == number
            if number < rounds:
                owner.execute(MAKE_DUE)
        assert sum(runs) == rounds
    assert slow.query("SELECT count(*) FROM wa_job_runs WHERE error IS NULL") == [{"count": rounds}]


def test_an_old_snapshot_runs_nothing_twice(slow: Database) -> None:
    with slow.connect() as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT FROM wa_jobs")
        assert slow.query(RUN_DUE) == [{"job": "slow", "status": "done"}]
        with pytest.raises(psycopg.errors.SerializationFailure):
            old.execute(RUN_DUE)
    assert len(slow.query("SELECT * FROM ran")) == 1


def test_a_session_that_dies_leaves_the_job_due(slow: Database) -> None:
    with slow.connect() as gate, ThreadPoolExecutor(1) as pool:
        gate.execute("SELECT pg_advisory_lock(1)")
        call = pool.submit(slow.query, RUN_DUE)
        waiting = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: gate.execute(waiting).fetchall())
        assert isinstance(call.exception(), psycopg.errors.AdminShutdown)
        gate.execute("SELECT pg_advisory_unlock(1)")
        assert slow.query(RUN_DUE) == [{"job": "slow", "status": "done"}]


def test_a_job_that_is_cancelled_is_recorded(slow: Database) -> None:
    with slow.connect() as gate, ThreadPoolExecutor(1) as pool:
        gate.execute("SELECT pg_advisory_lock(1)")
        call = pool.submit(slow.query, RUN_DUE)
        waiting = "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: gate.execute(waiting).fetchall())
        assert call.result() == [{"job": "slow", "status": "failed"}]
    [run] = slow.query("SELECT error FROM wa_job_runs")
    assert run["error"].startswith("57014: ")


@pytest.mark.slow
def test_dispatchers_run_jobs(slow: Database, make_role: Callable[..., str]) -> None:
    slow.query("SELECT register_wa_phone_number('100', '+15551234567', '200')")
    slow.query("UPDATE wa_jobs SET schedule = '1 second'")
    dispatcher = make_role("wa_dispatcher")
    with (
        WaProcess("dispatch", database=slow, user=dispatcher) as one,
        WaProcess("dispatch", database=slow, user=dispatcher) as two,
    ):
        wait_until(lambda: len(slow.query("SELECT 1 FROM ran")) >= 3)
        slow.query("UPDATE wa_jobs SET function_name = 'is_gone'")
        wait_until(lambda: slow.query("SELECT 1 FROM wa_job_health WHERE last_error IS NOT NULL"))
        for process in (one, two):
            process.signal()
            assert process.wait() == 0, process.raw
    told = [line for process in (one, two) for line in process.log if line["event"].startswith("job failed")]
    assert told
    assert (told[0]["job"], told[0]["sqlstate"]) == ("slow", "42883")
    # Between them, they never ran it twice for one time.
    twice = slow.query(
        "SELECT r.id FROM wa_job_runs r JOIN wa_job_runs s ON s.id > r.id"
        " AND s.started_at < r.started_at + interval '1 second'"
    )
    assert twice == []


def test_doctor_tells_of_late_and_failed_jobs(slow: Database) -> None:
    def line() -> str:
        found = wa("doctor", database=slow).stdout.splitlines()
        return next(text for text in found if " jobs: " in text)

    slow.query("SELECT run_wa_job('slow')")
    assert line() == "ok   jobs: 1 scheduled"
    slow.query("UPDATE wa_jobs SET schedule = '* * * * *'")
    slow.query("UPDATE wa_jobs SET next_run_at = clock_timestamp() - interval '4 minutes'")
    slow.query("DROP FUNCTION run_slowly()")
    assert line() == "BAD  jobs: 1 scheduled; overdue: slow"
    slow.query("SELECT run_wa_job('slow')")
    assert line() == "BAD  jobs: 1 scheduled; failed at last: slow"
    slow.query("SELECT unschedule_wa_jobs()")
    assert line().startswith("ok   jobs: not scheduled")


class Cron:
    """pg_cron, seen through its tables."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def jobs(self, of: str | None = None) -> dict[str, dict[str, Any]]:
        """What it has to run for a database, by the last word of the name."""
        rows = self.database.query(
            "SELECT jobname, schedule, command, username, active FROM cron.job WHERE database = %s",
            of or self.database.name,
        )
        return {row["jobname"].rsplit(" ")[-1]: row for row in rows}


def test_with_pg_cron(make_server: Callable[..., Server]) -> None:
    server = make_server(
        **{"shared_preload_libraries": "pg_cron", "cron.database_name": "wa_cron",
           "cron.use_background_workers": "on"}
    )  # fmt: skip
    server.janitor("wa_cron").init()
    here = Database(server, "wa_cron")
    here.install()
    server.execute("CREATE ROLE app_admin LOGIN IN ROLE wa_admin")
    notes = "SELECT DISTINCT runs_by, note FROM schedule_wa_jobs() WHERE runs_by <> 'nobody'"

    # Loaded, not created: said, and dispatchers have the jobs.
    [row] = here.query(notes, user="app_admin")
    assert row["runs_by"] == "bin/wa dispatch"
    assert "CREATE EXTENSION pg_cron" in row["note"]
    here.query("CREATE EXTENSION pg_cron")

    # Any administrator may; the jobs are the owner's, once each.
    for _ in range(2):
        assert here.query(notes, user="app_admin") == [
            {"runs_by": "pg_cron and bin/wa dispatch", "note": None}
        ]
    cron = Cron(here)
    expected = here.query("SELECT name, schedule FROM wa_jobs WHERE scheduled_at IS NOT NULL")
    assert {name: job["schedule"] for name, job in cron.jobs().items()} == {
        row["name"]: row["schedule"] for row in expected
    }
    assert {job["username"] for job in cron.jobs().values()} == {"postgres"}

    # What was changed reaches it with a repeat, and stays; seconds only where it knows them.
    here.query("UPDATE wa_jobs SET schedule = '30 3 * * *' WHERE name = 'retention'", user="app_admin")
    here.query("UPDATE wa_jobs SET schedule = '10 seconds' WHERE name = 'cleanup'", user="app_admin")
    here.query("UPDATE wa_jobs SET is_enabled = false WHERE name = 'roll_ups'", user="app_admin")
    seconds = here.query("SELECT note FROM schedule_wa_jobs() WHERE name = 'cleanup'", user="app_admin")
    assert cron.jobs()["retention"]["schedule"] == "30 3 * * *"
    assert "roll_ups" not in cron.jobs()
    version = here.query("SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'")[0]["extversion"]
    has_seconds = tuple(map(int, re.findall(r"\d+", version)[:2])) >= (1, 5)
    assert cron.jobs()["cleanup"]["schedule"] == ("10 seconds" if has_seconds else "* * * * *")
    assert has_seconds == (seconds[0]["note"] is None)

    # What it will call: the job if it is due, else nothing.
    command = cron.jobs()["rate_windows"]["command"]
    here.query("UPDATE wa_jobs SET next_run_at = now() WHERE name = 'rate_windows'")
    assert [here.query(command) for _ in range(2)] != []
    assert here.query("SELECT count(*) FROM wa_job_runs WHERE job = 'rate_windows'") == [{"count": 1}]

    # A database that pg_cron is not in: the way is given, and works.
    there = server.create_database()
    there.install()
    rows = there.query("SELECT name, runs_by, note FROM schedule_wa_jobs() WHERE runs_by <> 'nobody'")
    for row in rows:
        assert row["runs_by"] == "bin/wa dispatch"
        here.query(row["note"].partition("there: ")[2].rstrip(";"))
    assert cron.jobs(there.name).keys() == {row["name"] for row in rows}
    assert there.query(cron.jobs(there.name)["retention"]["command"])
    for row in there.query("SELECT note FROM unschedule_wa_jobs()"):
        here.query(row["note"].partition("there: ")[2].rstrip(";"))
    assert cron.jobs(there.name) == {}

    # An owner who may not use it is told what is missing.
    server.execute("CREATE ROLE plain LOGIN")
    for table in ("wa_jobs", "wa_job_runs"):
        here.query(f"ALTER TABLE {table} OWNER TO plain")
    for function in ("schedule_wa_jobs()", "unschedule_wa_jobs()"):
        here.query(f"ALTER FUNCTION {function} OWNER TO plain")
    for function in ("_wa_cron_install()", "_wa_cron_jobs()", "_wa_sync_cron()", "_wa_job_function(text)",
                     "_wa_job_time_zone()"):  # fmt: skip
        here.query(f"GRANT EXECUTE ON FUNCTION {function} TO plain")
    [row] = here.query(notes, user="app_admin")
    assert "GRANT USAGE ON SCHEMA cron TO plain" in row["note"]
    for function in ("schedule_wa_jobs()", "unschedule_wa_jobs()"):
        here.query(f"ALTER FUNCTION {function} OWNER TO postgres")

    # Somebody else's jobs stay.
    here.query("SELECT cron.schedule('other', '0 0 1 1 *', 'VACUUM')")
    assert len(here.query("SELECT * FROM unschedule_wa_jobs()", user="app_admin")) == 9
    assert cron.jobs().keys() == {"other"}
    assert here.query("SELECT schedule FROM wa_jobs WHERE name = 'retention'") == [{"schedule": "30 3 * * *"}]


def test_with_pg_cron_and_an_owner_who_is_no_superuser(make_server: Callable[..., Server]) -> None:
    """Who may not even look at its settings, from PostgreSQL 17 on."""
    server = make_server(
        **{"shared_preload_libraries": "pg_cron", "cron.database_name": "wa_cron",
           "cron.use_background_workers": "on"}
    )  # fmt: skip
    server.janitor("wa_cron").init()
    here = Database(server, "wa_cron")
    here.query("CREATE EXTENSION pg_cron")
    here.query("CREATE EXTENSION pg_whatsapp CASCADE")
    server.execute("CREATE ROLE plain LOGIN IN ROLE wa_admin")
    server.execute("CREATE ROLE app_admin LOGIN IN ROLE wa_admin")
    here.query("GRANT CREATE ON SCHEMA public TO plain")
    here.query("SELECT migrate_wa()", user="plain")
    notes = "SELECT DISTINCT runs_by, time_zone, note FROM schedule_wa_jobs() WHERE runs_by <> 'nobody'"
    [row] = here.query(notes, user="app_admin")
    assert (row["runs_by"], row["time_zone"]) == ("bin/wa dispatch", "GMT")
    assert "GRANT USAGE ON SCHEMA cron TO plain" in row["note"]
    here.query("GRANT USAGE ON SCHEMA cron TO plain")
    [row] = here.query(notes, user="app_admin")
    assert (row["runs_by"], row["note"]) == ("pg_cron and bin/wa dispatch", None)

    jobs = Cron(here).jobs()
    assert {job["username"] for job in jobs.values()} == {"plain"}
    here.query("UPDATE wa_jobs SET next_run_at = now() WHERE next_run_at IS NOT NULL")
    for job in jobs.values():
        here.query(job["command"], user="plain")
    assert here.query("SELECT count(DISTINCT job), count(error) AS errors FROM wa_job_runs") == [
        {"count": len(jobs), "errors": 0}
    ]
    here.query("SELECT unschedule_wa_jobs()", user="app_admin")
    assert Cron(here).jobs() == {}
