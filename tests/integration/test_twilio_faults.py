"""Through Twilio, too, nothing is lost and nothing sent twice, whatever dies and whichever answer is lost."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from harness import Database
from simulated import wait_until
from twilio_world import ACCOUNT, HELLO, TwilioWorld

pytestmark = pytest.mark.slow

MESSAGES = 240
KILLS = 6
MODES: tuple[dict[str, Any], ...] = (
    {"mode": "cut_before", "every": 13},
    {"mode": "cut_after", "every": 11},
    {"mode": "garbage", "every": 17},
    {"mode": "http_500_json", "every": 19},
    {"mode": "http_503_html", "every": 23},
    {"mode": "throttle", "every": 29},
    {"mode": "error", "code": 21211, "every": 31},
    {"mode": "fail_status", "code": 63024, "every": 37},
)


def test_nothing_is_lost_or_doubled(db: Database, tmp_path: Path) -> None:
    chance = random.Random("twilio")  # noqa: S311 (a test that can be repeated)
    delays = {"sent_after_ms": 300, "delivered_after_ms": 4000, "read_after_ms": 15000}
    with TwilioWorld(db, tmp_path, **delays, repeat=1.0) as world:
        world.simulator.post("twilio", sid=ACCOUNT, contents={HELLO: []})
        db.query("UPDATE wa_phone_numbers SET throughput = 60")
        db.query("UPDATE wa_organizations SET unknown_grace = '40 s', unknown_grace_silent = '40 s'")
        db.query("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
        db.query(
            "INSERT INTO wa_templates"
            " (name, language, category, status, body_text, waba_id, provider_template_id)"
            " VALUES ('hello', 'en', 'UTILITY', 'APPROVED', 'Hello', %s, %s)",
            ACCOUNT, HELLO,
        )  # fmt: skip
        world.simulator.post("faults", faults=[*MODES])
        db.query(
            "INSERT INTO wa_outbound_queue (phone, template_name, expires_at)"
            " SELECT '+1650555' || 1000 + g, 'hello', 'infinity' FROM generate_series(1, %s) g", MESSAGES,
        )  # fmt: skip
        commands = [("serve", "--port", str(world.port)), ("dispatch",)]
        for place in chance.sample([0, 0, 1, 1, 1, 1], KILLS):
            done = len(world.sent())
            world.processes[place].kill()
            world.start(*commands[place])
            world.processes[place] = world.processes.pop()
            # Near the end only what is in doubt is left, until its grace is over.
            wait_until(lambda done=done: len(world.sent()) > done + 5 or not due(db))
        world.simulator.client.delete("/_simulator/faults").raise_for_status()
        wait_until(lambda: not left(db) and not world.simulator.get("stats")["webhooks"]["pending"], 150)
        wait_until(lambda: not db.query("SELECT 1 FROM wa_webhook_logs WHERE status = 'pending'"))
        journal = world.simulator.get("journal", limit=10_000)["entries"]
        given_up = world.simulator.get("stats")["webhooks"].get("given_up", 0)
        rows = db.query("SELECT id::text, status, error_code FROM wa_outbound_queue")
    accepted = [entry["callback"].split(":")[1] for entry in journal]
    ended = {row["id"]: row["error_code"] or row["status"] for row in rows}
    assert len(rows) == MESSAGES
    assert len(accepted) == len(set(accepted)), "sent twice"
    assert set(ended.values()) <= {"sent", "21211", "outcome_unknown"}
    # Twilio gives a status up after six tries: what it told while nobody listened stays unknown.
    untold = [one for one in accepted if ended[one] != "sent"]
    assert {ended[one] for one in untold} <= {"outcome_unknown"}
    assert len(untold) <= given_up
    assert {one for one, how in ended.items() if how == "sent"} <= set(accepted)
    assert db.faults() == []


def left(db: Database) -> list[dict[str, Any]]:
    """What has not ended yet."""
    return db.query("SELECT id FROM wa_outbound_queue WHERE status NOT IN ('sent', 'failed') LIMIT 1")


def due(db: Database) -> list[dict[str, Any]]:
    """What waits to be sent."""
    return db.query("SELECT queue_id FROM wa_queue_due LIMIT 1")
