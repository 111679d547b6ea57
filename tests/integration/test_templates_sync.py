"""`wa templates sync` against the simulator."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

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
    db.query("SELECT register_wa_phone_number(%s, '+15550783881', %s)", NUMBER, WABA)
    return {"WHATSAPP_API_BASE_URL": simulator.url, "WHATSAPP_ACCESS_TOKEN": TOKEN}


def add(simulator: SimulatorProcess, name: str, status: str = "APPROVED") -> None:
    simulator.post("templates", waba_id=WABA, name=name, language="en_US", status=status)


def test_all_pages_arrive_and_a_repeat_changes_nothing(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str], make_role: Callable[..., str]
) -> None:
    admin = make_role("wa_admin")
    for n in range(120):
        add(simulator, f"order_{n}", "PAUSED" if n == 7 else "APPROVED")
    for _ in range(2):
        done = wa("templates", "sync", database=db, user=admin, **settings)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"account {WABA}: 121 templates\n"
        assert db.query("SELECT count(*) FROM wa_templates") == [{"count": 121}]
    assert db.query("SELECT status FROM wa_templates WHERE name = 'order_7'") == [{"status": "PAUSED"}]
    assert TOKEN not in done.stderr


def stored(db: Database) -> dict[str, tuple[str, str]]:
    rows = db.query("SELECT name, status, category FROM wa_templates WHERE provider_template_id IS NOT NULL")
    return {row["name"]: (row["status"], row["category"]) for row in rows}


def test_a_killed_sync_is_made_good_whatever_changed_meanwhile(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    for n in range(299):
        add(simulator, f"order_{n}")
    # The second page gets stuck on a row that somebody holds.
    db.query(
        "INSERT INTO wa_templates (name, language, category, body_text)"
        " VALUES ('order_150', 'en_US', 'UTILITY', 'x')"
    )
    with db.connect() as other:
        other.autocommit = False
        other.execute("SELECT FROM wa_templates WHERE name = 'order_150' FOR UPDATE")
        with WaProcess("templates", "sync", database=db, **settings) as killed:
            wait_until(lambda: db.query(SESSIONS + " AND wait_event_type = 'Lock'"))
            killed.signal(signal.SIGKILL)
        other.rollback()
    wait_until(lambda: not db.query(SESSIONS))
    assert len(stored(db)) == 100
    simulator.post("templates", waba_id=WABA, name="order_5", category="MARKETING", status="PAUSED")
    simulator.post("templates", waba_id=WABA, name="order_250", category="MARKETING")
    assert simulator.client.delete(f"/v25.0/{WABA}/message_templates?name=order_7").status_code == 200
    done = wa("templates", "sync", database=db, **settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"account {WABA}: 299 templates\n"
    shown = simulator.get("templates")["templates"]
    expected = {one["name"]: (one["status"], one["category"]) for one in shown if one["waba_id"] == WABA}
    assert stored(db) == expected | {"order_7": ("MISSING", "UTILITY")}
    assert expected["order_5"] == ("PAUSED", "MARKETING")
    [row] = db.query("SELECT previous_category FROM wa_templates WHERE name = 'order_5'")
    assert row["previous_category"] == "UTILITY"


def test_an_interrupted_sync_goes_on_and_survives_an_old_cursor(
    db: Database, simulator: SimulatorProcess, settings: dict[str, str]
) -> None:
    for n in range(3):
        add(simulator, f"order_{n}")
    db.query("SELECT begin_wa_template_sync(%s)", WABA)
    db.query("SELECT advance_wa_template_sync(%s, 'cursor-of-last-year', 100)", WABA)
    done = wa("templates", "sync", "--waba", WABA, database=db, **settings)
    assert done.returncode == 0, done.stderr
    assert db.query("SELECT count(*) FROM wa_templates") == [{"count": 4}]
    [row] = db.query("SELECT finished_at IS NOT NULL AS done FROM wa_template_syncs")
    assert row["done"]


def test_a_wrong_token_or_account_is_status_1(db: Database, settings: dict[str, str]) -> None:
    done = wa("templates", "sync", database=db, **settings | {"WHATSAPP_ACCESS_TOKEN": "wrong"})
    assert done.returncode == 1
    assert "code 190" in done.stderr
    done = wa("templates", "sync", "--waba", "999", database=db, **settings)
    assert done.returncode == 1
    assert "no access token for account 999" in done.stderr
