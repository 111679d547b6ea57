"""`wa templates submit` and `list` against the simulator."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from harness import Database
from simulated import NUMBER, SimulatorProcess, wait_until
from wa_process import WaProcess, wa

pytestmark = pytest.mark.slow

WABA = "102290129340398"
TOKEN = "EAAG-test-token"
SESSIONS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ 'templates'"
)


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path, waba_id=WABA, phone_number_id=NUMBER, access_token=TOKEN) as made:
        made.client.headers["authorization"] = f"Bearer {TOKEN}"
        yield made


@pytest.fixture
def settings(db: Database, simulator: SimulatorProcess) -> dict[str, str]:
    db.query("SELECT adopt_wa_database()")
    db.query("SELECT register_wa_phone_number(%s, '+15550783881', %s)", NUMBER, WABA)
    return {"WHATSAPP_API_BASE_URL": simulator.url, "WHATSAPP_ACCESS_TOKEN": TOKEN}


def draft(db: Database, name: str, body: str = "Hello {{1}}, your parcel is on its way to you.") -> None:
    db.query(
        "INSERT INTO wa_templates (name, category, body_text, parameters) VALUES (%s, 'UTILITY', %s, %s)",
        name,
        body,
        '[{"name": "who", "example": "Ann"}]',
    )


def at_meta(simulator: SimulatorProcess) -> dict[str, dict[str, Any]]:
    shown = simulator.get("templates")["templates"]
    return {one["name"]: one for one in shown if one["waba_id"] == WABA and one["name"] != "hello_world"}


def row(db: Database, name: str) -> dict[str, Any]:
    [found] = db.query(
        "SELECT name, status, approval_status, category, previous_category, provider_template_id, body_text,"
        " rejected_reason FROM wa_templates WHERE lower(name) = %s",
        name,
    )
    return found


def test_drafts_are_submitted_once_and_shown(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    draft(db, "PARCEL")
    db.query("SELECT install_wa_default_templates()")
    done = wa("templates", "submit", database=db, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PARCEL (en): submitted, PENDING, UTILITY\n" in done.stdout
    assert "payment_reminder (en): kept back, UTILITY: a button still leads to example.com" in done.stdout
    made = at_meta(simulator)
    assert len(made) == 11
    assert made["parcel"]["components"][0]["example"] == {"body_text": [["Ann"]]}
    assert row(db, "parcel") == {
        "name": "parcel",
        "status": "PENDING",
        "approval_status": "pending",
        "category": "UTILITY",
        "previous_category": None,
        "provider_template_id": made["parcel"]["id"],
        "body_text": "Hello {{1}}, your parcel is on its way to you.",
        "rejected_reason": None,
    }
    again = wa("templates", "submit", database=db, **settings)
    assert "submitted" not in again.stdout
    assert len(at_meta(simulator)) == 11
    named = wa("templates", "submit", "payment_reminder", "no_such", database=db, **settings)
    assert named.returncode == 1
    assert "no_such" in named.stderr
    shown = wa("templates", "list", "--status", "pending", database=db, **settings)
    assert shown.stdout.splitlines()[0].split()[:5] == ["name", "language", "category", "status", "enabled"]
    assert f"parcel                 en        UTILITY   PENDING  True              {WABA}" in shown.stdout
    assert TOKEN not in done.stdout + done.stderr + shown.stdout


def test_a_refused_one_says_why_and_does_not_stop_the_others(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    draft(db, "at_the_end", "Your parcel is on its way to you, {{1}}")
    draft(db, "parcel")
    simulator.post("settings", template_category="MARKETING")
    done = wa("templates", "submit", database=db, **settings)
    assert done.returncode == 1
    assert "at_the_end (en): refused, REJECTED, UTILITY: 100/2388299: " in done.stdout
    assert "parcel (en): submitted, PENDING, MARKETING\n" in done.stdout
    assert row(db, "parcel")["previous_category"] == "UTILITY"
    assert row(db, "at_the_end")["rejected_reason"].startswith("100/2388299: Variables")
    db.query(
        "UPDATE wa_templates SET body_text = 'Your parcel for {{1}} is on its way to you.' WHERE name = %s",
        "at_the_end",
    )
    done = wa("templates", "submit", "AT_the_end", database=db, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert row(db, "at_the_end")["rejected_reason"] is None


def test_one_killed_before_it_recorded_is_adopted(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    draft(db, "Parcel")
    draft(db, "parcel_two")
    with db.connect() as other:
        other.autocommit = False
        other.execute("SELECT FROM wa_templates WHERE name = 'Parcel' FOR UPDATE")
        with WaProcess("templates", "submit", database=db, **settings) as killed:
            wait_until(lambda: "parcel" in at_meta(simulator))
            killed.signal(signal.SIGKILL)
        # Its session, which waits for the row, would record the answer all the same.
        db.query(f"SELECT pg_terminate_backend(pid) FROM ({SESSIONS}) AS s")
        wait_until(lambda: not db.query(SESSIONS))
        other.rollback()
    assert row(db, "parcel")["provider_template_id"] is None
    # Meanwhile somebody looked at it, and found that it advertises.
    simulator.post(
        "templates", waba_id=WABA, name="parcel", language="en", status="APPROVED", category="MARKETING"
    )
    done = wa("templates", "submit", database=db, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == (
        "Parcel (en): exists, APPROVED, MARKETING\nparcel_two (en): submitted, PENDING, UTILITY\n"
    )
    assert row(db, "parcel")["name"] == "parcel"
    assert row(db, "parcel")["provider_template_id"] == at_meta(simulator)["parcel"]["id"]
    assert len(at_meta(simulator)) == 2


def test_a_rejected_one_is_changed_where_it_is(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    draft(db, "parcel")
    assert wa("templates", "submit", database=db, **settings).returncode == 0
    simulator.post(
        "templates", waba_id=WABA, name="parcel", language="en", status="REJECTED", rejected_reason="SCAM"
    )
    assert wa("templates", "sync", database=db, **settings).returncode == 0
    assert row(db, "parcel")["rejected_reason"] == "SCAM"
    db.query(
        "UPDATE wa_templates SET body_text = 'Hello {{1}}, this is a better text.' WHERE name = 'parcel'"
    )
    done = wa("templates", "submit", "parcel", database=db, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "parcel (en): edited, PENDING, UTILITY\n"
    [body] = [part for part in at_meta(simulator)["parcel"]["components"] if part["type"] == "BODY"]
    assert body["text"] == "Hello {{1}}, this is a better text."
    assert row(db, "parcel")["rejected_reason"] is None
    # Under review it cannot be changed.
    assert wa("templates", "submit", "parcel", database=db, **settings).returncode == 1


def test_a_wrong_token_refuses_no_template(db: Database, settings: dict[str, str]) -> None:
    draft(db, "parcel")
    done = wa("templates", "submit", database=db, **settings | {"WHATSAPP_ACCESS_TOKEN": "wrong"})
    assert done.returncode == 1
    assert "code 190" in done.stderr
    assert row(db, "parcel")["status"] == "PENDING"


def test_two_at_once_submit_each_template_once(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    names = [f"parcel_{n}" for n in range(5)]
    for name in names:
        draft(db, name)
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(wa, "templates", "submit", database=db, **settings) for _ in range(2)]
        assert [run.result().returncode for run in runs] == [0, 0]
    assert sorted(at_meta(simulator)) == names
    for name in names:
        assert row(db, name)["provider_template_id"] == at_meta(simulator)[name]["id"]
