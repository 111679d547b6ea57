"""Two sessions that write through the views of the documents' names at the same time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from harness import Database

CONFIG = "INSERT INTO whatsapp_config (phone_number_id, business_account_id) VALUES ({}, '7')"
CHARGE = "INSERT INTO rate_limits (service, endpoint, count) VALUES ('whatsapp', 'send_message', {})"


def race(db: Database, first: str, second: str) -> None:
    """Run both, the second while the first is open: it waits, or needs not. Raises what it raised."""
    with db.connect(autocommit=False) as one, db.connect() as two, ThreadPoolExecutor(1) as pool:
        one.execute(first.encode())
        result = pool.submit(two.execute, second.encode())
        waiting = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        # Charges of two seconds of the clock are two rows, so the second one may have nothing to wait for.
        while not db.query(waiting, two.info.backend_pid) and not result.done():
            time.sleep(0.01)
        one.commit()
        result.result()


def test_an_organization_gets_one_configuration(db: Database) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        race(db, CONFIG.format("'1'"), CONFIG.format("'2'"))
    assert [row["phone_number_id"] for row in db.query("SELECT * FROM whatsapp_configurations")] == ["1"]


def test_no_charge_is_lost(db: Database) -> None:
    race(db, CHARGE.format(2), CHARGE.format(3))
    assert db.query("SELECT sum(count) AS n FROM rate_limits") == [{"n": 5}]
