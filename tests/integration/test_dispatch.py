"""The dispatcher as a process, against a simulator and a real database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import Database, Server
from simulated import NUMBER, SimulatorProcess, wait_until
from wa_process import KEY, WaProcess, wa

pytestmark = pytest.mark.slow

WABA = "102290129340398"
TOKEN = "EAAG-test-token"


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    options = {"pair": False, "throughput": False, "window": "off"}
    with SimulatorProcess(
        tmp_path, waba_id=WABA, phone_number_id=NUMBER, access_token=TOKEN, settings=options
    ) as made:
        made.client.headers["authorization"] = f"Bearer {TOKEN}"
        yield made


def prepare(database: Database, **number: Any) -> None:
    """Register the number and a template without parameters."""
    # The database is a clone of a template, so it has to be told that it is the one to send.
    database.query("SELECT adopt_wa_database()")
    database.query(
        "SELECT register_wa_phone_number(%s, '+15550783881', %s, throughput => %s)",
        NUMBER, WABA, number.get("throughput", 1000),
    )  # fmt: skip
    database.query(
        "INSERT INTO wa_templates (name, language, category, status, body_text, waba_id)"
        " VALUES ('hello_world', 'en_US', 'UTILITY', 'APPROVED', 'Hello World', %s)",
        WABA,
    )


def queue(database: Database, count: int, user: str | None = None) -> None:
    database.query(
        "INSERT INTO wa_outbound_queue (phone, template_name)"
        " SELECT '+1555' || (1000000 + g), 'hello_world' FROM generate_series(1, %s) g",
        count, user=user,
    )  # fmt: skip


def states(database: Database) -> dict[str, int]:
    rows = database.query("SELECT status, count(*) FROM wa_outbound_queue GROUP BY status")
    return {row["status"]: row["count"] for row in rows}


def accepted(simulator: SimulatorProcess) -> dict[str, Any]:
    return simulator.get("journal", format="summary")


@pytest.fixture
def settings(simulator: SimulatorProcess) -> dict[str, str]:
    return {"WHATSAPP_API_BASE_URL": simulator.url, "WHATSAPP_ACCESS_TOKEN": TOKEN}


def test_drain_sends_what_is_due_and_ends(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str], make_role: Callable[..., str]
) -> None:
    prepare(db)
    queue(db, 50, user=make_role("wa_app"))
    db.query(
        "INSERT INTO wa_outbound_queue (phone, template_name, scheduled_at)"
        " VALUES ('+15551234567', 'hello_world', now() + interval '1 day')"
    )
    done = wa("dispatch", "--drain", database=db, user=make_role("wa_dispatcher"), **settings)
    assert done.returncode == 0, done.stderr
    assert states(db) == {"sent": 50, "pending": 1}
    [row] = db.query(
        "SELECT count(DISTINCT wa_message_id), count(processed_at) AS processed FROM wa_outbound_queue"
    )
    assert row == {"count": 50, "processed": 50}
    summary = accepted(simulator)
    assert (summary["accepted"], summary["duplicates"]) == (50, {})
    assert "15551" not in done.stderr
    assert TOKEN not in done.stderr


def test_it_works_in_a_schema_of_another_name(
    odd_schema_db: Database, settings: dict[str, str], make_role: Callable[..., str]
) -> None:
    prepare(odd_schema_db)
    queue(odd_schema_db, 3)
    dispatcher = make_role("wa_dispatcher")
    done = wa("dispatch", "--drain", database=odd_schema_db, user=dispatcher, **settings)
    assert done.returncode == 0, done.stderr
    assert states(odd_schema_db) == {"sent": 3}


def test_a_sleeping_dispatcher_is_woken(db: Database, settings: dict[str, str]) -> None:
    prepare(db)
    with WaProcess("dispatch", database=db, **settings) as process:
        process.logged("dispatching")
        gate = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted"
        )
        for expected in (1, 2, 3):
            wait_until(lambda: db.query(gate)[0]["count"])
            queue(db, 1)
            wait_until(lambda expected=expected: states(db).get("sent") == expected)  # type: ignore[misc]
        process.signal()
        assert process.wait() == 0


def test_sigterm_finishes_what_is_in_flight_and_hands_back_the_rest(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    prepare(db)
    simulator.post("settings", answer_delay_ms=700)
    queue(db, 40)
    with WaProcess("dispatch", "--concurrency", "5", database=db, **settings) as process:
        wait_until(lambda: accepted(simulator)["accepted"])
        process.signal()
        assert process.wait() == 0
    found = states(db)
    assert set(found) == {"sent", "pending"}
    assert found["sent"] == accepted(simulator)["accepted"]
    [row] = db.query("SELECT count(*) FROM wa_dispatchers WHERE stopped_at IS NOT NULL")
    assert row["count"] == 1
    # What was handed back goes out at once, and nothing twice.
    simulator.post("settings", answer_delay_ms=0)
    assert wa("dispatch", "--drain", database=db, **settings).returncode == 0
    assert states(db) == {"sent": 40}
    assert accepted(simulator)["duplicates"] == {}


def test_nothing_starts_a_second_after_panic(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    prepare(db)
    simulator.post("settings", answer_delay_ms=100)
    queue(db, 500)
    with WaProcess("dispatch", "--concurrency", "5", database=db, **settings) as process:
        wait_until(lambda: accepted(simulator)["accepted"] > 5)
        db.query("SELECT trigger_wa_panic('test')")
        # The promise is about time: what was granted before may start within the second.
        time.sleep(1)
        started = accepted(simulator)["accepted"]
        wait_until(lambda: db.query("SELECT 1 FROM wa_queue_inflight") == [])
        assert accepted(simulator)["accepted"] == started < 500
        db.query("SELECT resolve_wa_panic()")
        wait_until(lambda: accepted(simulator)["accepted"] > started)
        process.signal()
        assert process.wait() == 0
    assert accepted(simulator)["duplicates"] == {}


def test_a_crash_of_the_server_loses_nothing(
    make_server: Callable[..., Server], simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    server = make_server(fsync="on")
    database = server.create_database(template=server.template())
    prepare(database)
    simulator.post("settings", answer_delay_ms=1500)
    with WaProcess("dispatch", database=database, **settings) as process:
        process.logged("dispatching")
        queue(database, 20)
        wait_until(lambda: accepted(simulator)["accepted"] == 20)
        # The answers take longer than that, so they arrive at a dispatcher without a database.
        server.stop("immediate")
        process.logged("notifications interrupted, polling meanwhile")
        server.start()
        wait_until(lambda: states(database) == {"sent": 20})
        queue_more = (
            "INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('+15559876543', 'hello_world')"
        )
        simulator.post("settings", answer_delay_ms=0)
        database.query(queue_more)
        wait_until(lambda: states(database) == {"sent": 21})
        process.signal()
        assert process.wait() == 0
    assert accepted(simulator)["duplicates"] == {}


def test_a_provider_that_is_away_is_tried_again(db: Database, settings: dict[str, str]) -> None:
    prepare(db)
    queue(db, 1)
    with WaProcess("dispatch", database=db, **settings | {"WHATSAPP_API_BASE_URL": "http://127.0.0.1:9"}):
        wait_until(lambda: db.query("SELECT retry_count AS n FROM wa_outbound_queue")[0]["n"] == 1)
    [row] = db.query("SELECT status, wa_message_id FROM wa_outbound_queue")
    assert row == {"status": "pending", "wa_message_id": None}


def test_a_number_that_the_provider_does_not_know_is_paused_and_its_messages_wait(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    """Code 100 with subcode 33: the number is gone, or the token lost its right to it."""
    gone = "106540352242999"
    prepare(db)
    db.query("SELECT register_wa_phone_number(%s, '+15550783882', %s)", gone, WABA)
    db.query(
        "INSERT INTO wa_outbound_queue (phone, template_name, phone_number_id)"
        " SELECT '+1555' || (1000000 + g), 'hello_world', %s FROM generate_series(1, 20) g",
        gone,
    )
    queue(db, 5)
    simulator.post("settings", auto_register=False)
    done = wa("dispatch", "--drain", database=db, **settings)
    assert done.returncode == 0, done.stderr
    assert states(db) == {"sent": 5, "pending": 20}
    paused = db.query(
        "SELECT phone_number_id, pause_scope, pause_reason FROM wa_phone_numbers WHERE paused_at IS NOT NULL"
    )
    assert [(row["phone_number_id"], row["pause_scope"]) for row in paused] == [(gone, "number")]
    assert "missing permissions" in paused[0]["pause_reason"]
    simulator.post("numbers", phone_number_id=gone, waba_id=WABA)
    db.query("SELECT resume_wa_number(%s)", gone)
    done = wa("dispatch", "--drain", database=db, **settings)
    assert done.returncode == 0, done.stderr
    assert states(db) == {"sent": 25}


def test_a_drain_waits_for_no_resume_and_ends_what_expired(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    prepare(db)
    queue(db, 3)
    db.query(
        "UPDATE wa_phone_numbers SET paused_at = now(), pause_scope = 'number', pause_reason = 'by hand'"
    )
    db.query(
        "UPDATE wa_outbound_queue SET expires_at = clock_timestamp() - interval '1 second'"
        " WHERE id = (SELECT id FROM wa_outbound_queue LIMIT 1)"
    )
    done = wa("dispatch", "--drain", database=db, **settings)
    assert done.returncode == 0, done.stderr
    assert states(db) == {"failed": 1, "pending": 2}
    # A pause with an end within the minute is waited for.
    db.query("UPDATE wa_phone_numbers SET paused_until = clock_timestamp() + interval '3 seconds'")
    done = wa("dispatch", "--drain", database=db, **settings)
    assert done.returncode == 0, done.stderr
    assert states(db) == {"failed": 1, "sent": 2}


def test_a_cut_after_the_request_is_not_sent_again(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    prepare(db)
    simulator.post("faults", mode="cut_after", next=1)
    queue(db, 1)
    with WaProcess("dispatch", database=db, **settings) as process:
        wait_until(lambda: db.query("SELECT last_error AS e FROM wa_outbound_queue")[0]["e"])
        process.signal()
        assert process.wait() == 0
    assert states(db) == {"sending": 1}
    assert accepted(simulator)["accepted"] == 1


def test_a_copy_of_the_database_sends_nothing(db: Database, settings: dict[str, str]) -> None:
    prepare(db)
    queue(db, 1)
    db.query("UPDATE wa_installations SET system_identifier = '1'")
    done = wa("dispatch", database=db, **settings)
    assert done.returncode == 1
    assert "wa adopt" in done.stderr
    adopted = wa("adopt", database=db)
    assert adopted.returncode == 0, adopted.stderr
    assert "in_doubt" in adopted.stdout
    assert wa("dispatch", "--drain", database=db, **settings).returncode == 0


def test_a_stored_token_is_used_and_taken_up_while_running(
    db: Database, simulator: SimulatorProcess, make_role: Callable[..., str]
) -> None:
    prepare(db)
    queue(db, 2)
    settings = {"WHATSAPP_API_BASE_URL": simulator.url, "WA_SECRET_KEY": KEY}
    with WaProcess("dispatch", database=db, user=make_role("wa_dispatcher"), **settings) as process:
        process.logged("no access token, messages wait")
        stored = wa(
            "secrets", "set", "access_token", "--number", NUMBER, database=db, stdin=f"{TOKEN}\n",
            user=make_role("wa_admin"), WA_SECRET_KEY=KEY,
        )  # fmt: skip
        assert stored.returncode == 0, stored.stderr
        wait_until(lambda: states(db) == {"sent": 2})
        process.signal()
        assert process.wait() == 0
    assert TOKEN not in "".join(process.raw)


def test_the_number_of_the_environment_is_registered_once(db: Database, settings: dict[str, str]) -> None:
    db.query("SELECT adopt_wa_database()")
    env = settings | {
        "WHATSAPP_PHONE_NUMBER_ID": NUMBER,
        "WHATSAPP_BUSINESS_ACCOUNT_ID": WABA,
        "WHATSAPP_ENABLE_MEDIA": "false",
        "WHATSAPP_MESSAGE_RETENTION_DAYS": "90",
    }
    for _ in range(2):
        assert wa("dispatch", "--drain", database=db, **env).returncode == 0
    rows = db.query("SELECT phone_number_id, waba_id, provider FROM wa_phone_numbers")
    assert rows == [{"phone_number_id": NUMBER, "waba_id": WABA, "provider": "meta"}]
    kept = db.query("SELECT media_contact_quota, sends_templates, message_retention FROM wa_organizations")
    assert kept == [
        {"media_contact_quota": 0, "sends_templates": True, "message_retention": timedelta(days=90)}
    ]


def test_a_role_that_may_not_register_only_says_so(
    db: Database, settings: dict[str, str], make_role: Callable[..., str]
) -> None:
    db.query("SELECT adopt_wa_database()")
    env = settings | {"WHATSAPP_PHONE_NUMBER_ID": NUMBER, "WHATSAPP_BUSINESS_ACCOUNT_ID": WABA}
    done = wa("dispatch", "--drain", database=db, user=make_role("wa_dispatcher"), **env)
    assert done.returncode == 0, done.stderr
    assert "this role registers no numbers" in done.stderr
    assert db.query("SELECT 1 FROM wa_phone_numbers") == []


def test_several_dispatchers_share_the_work(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    prepare(db)
    queue(db, 400)
    processes = [WaProcess("dispatch", "--drain", database=db, **settings) for _ in range(3)]
    for process in processes:
        with process:
            assert process.wait() == 0, process.raw
    assert states(db) == {"sent": 400}
    summary = accepted(simulator)
    assert (summary["accepted"], summary["duplicates"]) == (400, {})


def test_a_dispatcher_that_may_not_claim_any_more_ends_and_is_not_alive(
    db: Database, simulator: SimulatorProcess, make_role: Callable[..., str]
) -> None:
    prepare(db)
    role = make_role("wa_dispatcher")
    env = {"WHATSAPP_API_BASE_URL": simulator.url, "WHATSAPP_ACCESS_TOKEN": TOKEN}
    with WaProcess("dispatch", database=db, user=role, **env) as process:
        process.logged("dispatching")
        db.query(f"REVOKE wa_dispatcher FROM {role}")
        assert process.process.wait(20) == 1
        assert "permission denied" in "".join(process.raw)
