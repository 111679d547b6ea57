"""360dialog whole: messages in and out, statuses, files, templates, and errors of its own edge.

Webhooks and what lets them in: test_serve_360dialog.py. Kills and lost answers: test_faults_360dialog.py.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Database
from media_world import ENV, PDF, PHONE, WABA, MediaWorld, digest, noise
from simulated import NUMBER, wait_until
from wa_process import KEY, wa

pytestmark = pytest.mark.slow
API_KEY = ENV["WHATSAPP_ACCESS_TOKEN"]
HEADER = ("X-Webhook-Secret", "that-of-the-number-0123456789")


@pytest.fixture
def world(db: Database, tmp_path: Path, make_role: Callable[..., str]) -> Iterator[MediaWorld]:
    db.query("SELECT register_wa_phone_number(%s, '+15550783881', %s, '360dialog')", NUMBER, WABA)
    store(db, "webhook_header", ": ".join(HEADER))
    with MediaWorld(db, tmp_path, make_role, WHATSAPP_PROVIDER="360dialog", WA_SECRET_KEY=KEY) as made:
        db.query("UPDATE wa_phone_numbers SET provider = '360dialog'")
        made.simulator.post(
            "numbers", phone_number_id=NUMBER, api_key=API_KEY, webhook_headers=dict([HEADER]), waba_id=WABA
        )
        yield made


def store(db: Database, name: str, value: str) -> None:
    done = wa("secrets", "set", name, "--number", NUMBER, database=db, stdin=value, WA_SECRET_KEY=KEY)
    assert done.returncode == 0, done.stderr


def templates(world: MediaWorld, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = world.env | {"WHATSAPP_API_BASE_URL": world.simulator.url}
    return wa("templates", *arguments, database=world.db, **env)


def queue(world: MediaWorld, **row: Any) -> str:
    names, slots = ", ".join(row), ", ".join(["%s"] * len(row))
    (made,) = world.db.query(
        f"INSERT INTO wa_outbound_queue (phone, {names}) VALUES (%s, {slots}) RETURNING id::text",
        PHONE,
        *row.values(),
    )
    return str(made["id"])


def outcome(world: MediaWorld, queue_id: str) -> dict[str, Any]:
    statement = "SELECT status, error_code FROM wa_outbound_queue WHERE id = %s"
    wait_until(lambda: world.db.query(statement, queue_id)[0]["status"] in ("sent", "failed"))
    return world.db.query(statement, queue_id)[0]


def test_messages_statuses_and_files_both_ways(world: MediaWorld, tmp_path: Path) -> None:
    photo = world.settled(world.bring("image"), "stored")
    assert photo["attempts"] == 1
    content = noise(PDF, 300_000)
    path = tmp_path / "invoice.pdf"
    path.write_bytes(content)
    kept = wa("media", "upload", str(path), database=world.db).stdout.strip()
    sent = queue(world, type="document", content=json.dumps({"media_id": kept}))
    assert outcome(world, sent)["status"] == "sent"
    (upload,) = world.db.query("SELECT provider_media_id AS id FROM wa_media_uploads")
    there = world.simulator.client.get(f"/{upload['id']}", headers={"D360-API-KEY": API_KEY}).json()
    assert there["sha256"] == digest(content)
    state = "SELECT state, pricing FROM wa_messages WHERE queue_id = %s"
    wait_until(lambda: world.db.query(state, sent)[0]["state"] in ("delivered", "read"))
    # Read, as the customer sees it, at its address without a number.
    world.db.query("SELECT mark_wa_read(%s)", PHONE)
    wait_until(lambda: world.simulator.get("journal", format="reads")["reads"])


def test_templates_are_synced_and_submitted(world: MediaWorld) -> None:
    for n in range(3):
        world.simulator.post("templates", waba_id=WABA, name=f"there_{n}", language="en")
    world.simulator.post("templates", waba_id=WABA, name="no", language="en", status="REJECTED")
    world.simulator.post("templates", waba_id="777", name="of_another", language="en")
    synced = templates(world, "sync")
    assert synced.stdout == f"account {WABA}: 5 templates\n", synced.stderr
    states = {r["name"]: r["status"] for r in world.db.query("SELECT name, status FROM wa_templates")}
    assert states == {"there_0": "APPROVED", "there_1": "APPROVED", "there_2": "APPROVED",
                      "hello_world": "APPROVED", "no": "REJECTED"}  # fmt: skip
    for name, body in (("parcel", "Hello {{1}}, it is on its way."), ("at_the_end", "It is for {{1}}")):
        world.db.query(
            "INSERT INTO wa_templates (name, category, body_text, parameters) VALUES (%s, 'UTILITY', %s, %s)",
            name, body, '[{"name": "who", "example": "Ann"}]',
        )  # fmt: skip
    done = templates(world, "submit")
    assert "parcel (en): submitted, PENDING, UTILITY\n" in done.stdout, done.stderr
    assert "at_the_end (en): refused, REJECTED, UTILITY: 100: Variables" in done.stdout
    # The review's answer comes by Meta's id of it, and it is sent.
    world.simulator.post(
        "templates", waba_id=WABA, name="parcel", language="en", status="APPROVED", webhook=True
    )
    approved = "SELECT 1 FROM wa_templates WHERE name = 'parcel' AND status = 'APPROVED'"
    wait_until(lambda: world.db.query(approved))
    sent = queue(world, template_name="parcel", template_params=json.dumps(["Ann"]))
    assert outcome(world, sent)["status"] == "sent"
    # What was submitted by a run that did not record so, is found there.
    world.db.query(
        "UPDATE wa_templates SET provider_template_id = NULL, status = 'PENDING' WHERE name = 'parcel'"
    )
    assert "parcel (en): exists, APPROVED" in templates(world, "submit", "parcel").stdout
    # Its API changes none that are there.
    assert "kept back" in templates(world, "submit", "parcel").stdout
    # An application asks.
    (call,) = world.db.query("SELECT call_id::text AS id FROM request_wa_template_sync()")
    told = "SELECT state, result, error FROM wa_provider_calls WHERE id = %s"
    wait_until(lambda: world.db.query(told, call["id"])[0]["state"] != "pending")
    assert world.db.query(told, call["id"])[0]["result"] == {"waba_id": WABA, "templates": 6}


def test_errors_end_a_message_or_are_waited_for(world: MediaWorld) -> None:
    world.simulator.post("customer", phone=PHONE, text="Hello?", number=NUMBER)
    wait_until(lambda: world.db.query("SELECT id FROM wa_messages"))
    sent = {"status": "sent", "error_code": None}
    # Meta's own errors come through; what never reached it is told in words, without a code.
    for fault, ends in (
        ({"mode": "error", "code": 131026}, {"status": "failed", "error_code": "131026"}),
        ({"mode": "edge_error", "status": 400}, {"status": "failed", "error_code": "refused"}),
        ({"mode": "error", "code": 131000, "status": 500}, sent),
        ({"mode": "edge_error", "status": 429}, sent),
    ):
        world.simulator.post("faults", **fault, next=1)
        assert outcome(world, queue(world, text_body="Hi")) == ends, fault
    # A key that is refused pauses its number.
    world.simulator.post("faults", mode="edge_error", status=403, next=1)
    queued = queue(world, text_body="Hi")
    paused = "SELECT pause_scope AS scope FROM wa_phone_numbers"
    wait_until(lambda: world.db.query(paused) == [{"scope": "token"}])
    world.db.query("SELECT resume_wa_number(%s)", NUMBER)
    assert outcome(world, queued)["status"] == "sent"
