"""Files of one's own: kept, uploaded when a message needs them, once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Database
from media_world import JPEG, PDF, PHONE, Bucket, MediaWorld, digest, noise, peak_mib
from simulated import NUMBER, wait_until
from wa_process import wa

pytestmark = pytest.mark.slow


@pytest.fixture
def world(db: Database, tmp_path: Path, make_role: Callable[..., str]) -> Iterator[MediaWorld]:
    with MediaWorld(db, tmp_path, make_role) as made:
        made.simulator.post("settings", check_media_ids=True, window="off")
        made.simulator.post("customer", phone=PHONE, text="Hello?", number=NUMBER)
        wait_until(lambda: db.query("SELECT id FROM wa_messages"))
        yield made


def queue(world: MediaWorld, kind: str, content: dict[str, Any]) -> str:
    (row,) = world.db.query(
        "INSERT INTO wa_outbound_queue (phone, type, content) VALUES (%s, %s, %s) RETURNING id::text",
        PHONE,
        kind,
        json.dumps(content),
    )
    return str(row["id"])


def outcome(world: MediaWorld, queue_id: str) -> dict[str, Any]:
    """How a message ended."""
    statement = "SELECT status, error_code, last_error FROM wa_outbound_queue WHERE id = %s"
    wait_until(lambda: world.db.query(statement, queue_id)[0]["status"] in ("sent", "failed"))
    return world.db.query(statement, queue_id)[0]


def uploads(world: MediaWorld) -> list[dict[str, Any]]:
    return world.db.query(
        "SELECT status, attempts, provider_media_id, error FROM wa_media_uploads ORDER BY id"
    )


def keep(world: MediaWorld, path: Path, *more: str, **env: str) -> str:
    done = wa("media", "upload", str(path), *more, database=world.db, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_file_is_uploaded_once_and_messages_go_in_order(world: MediaWorld, tmp_path: Path) -> None:
    content = noise(PDF, 5_000_000)
    path = tmp_path / "invoice.pdf"
    path.write_bytes(content)
    media_id = keep(world, path)
    assert keep(world, path) == media_id
    first = queue(world, "document", {"media_id": media_id, "filename": "invoice.pdf", "caption": "Here"})
    world.db.query("INSERT INTO wa_outbound_queue (phone, text_body) VALUES (%s, 'as you see')", PHONE)
    assert outcome(world, first)["status"] == "sent"
    wait_until(lambda: len(world.simulator.get("journal")["entries"]) == 2)
    assert [entry["type"] for entry in world.simulator.get("journal")["entries"]] == ["document", "text"]
    second = queue(world, "document", {"media_id": media_id})
    assert outcome(world, second)["status"] == "sent"
    (upload,) = uploads(world)
    assert (upload["status"], upload["attempts"]) == ("uploaded", 1)
    there = world.simulator.client.get(f"/v25.0/{upload['provider_media_id']}").json()
    assert (there["sha256"], there["mime_type"]) == (digest(content), "application/pdf")
    # The ledger's message leads to it.
    (row,) = world.db.query(
        "SELECT l.path FROM wa_messages AS m, create_wa_media_signature(m.id) AS l WHERE m.queue_id = %s",
        first,
    )
    assert world.had(row["path"])[1] == digest(content)
    # Once the provider has forgotten it.
    world.db.query("UPDATE wa_media_uploads SET expires_at = now()")
    third = queue(world, "document", {"media_id": media_id})
    assert outcome(world, third)["status"] == "sent"
    (again,) = uploads(world)
    assert again["provider_media_id"] != upload["provider_media_id"]


@pytest.mark.parametrize("store", ["directory", "s3"])
def test_a_large_file_goes_from_any_store(
    store: str, db: Database, tmp_path: Path, make_role: Callable[..., str]
) -> None:
    bucket = Bucket() if store == "s3" else None
    env = bucket.env if bucket else {}
    content = noise(PDF, 60 << 20)
    path = tmp_path / "large.pdf"
    path.write_bytes(content)
    (tmp_path / "files").mkdir()
    try:
        with MediaWorld(db, tmp_path, make_role, **env) as world:
            world.store_in(store, bucket.location if bucket else str(tmp_path / "files"))
            keep(world, path, "--number", "default", **env)
            wait_until(lambda: uploads(world)[0]["status"] == "uploaded")
            there = world.simulator.client.get(f"/v25.0/{uploads(world)[0]['provider_media_id']}").json()
            assert there["sha256"] == digest(content)
            assert peak_mib(world.dispatch) < 150
    finally:
        if bucket:
            bucket.close()


def test_what_the_provider_does_not_take_fails_the_message(world: MediaWorld, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(noise(JPEG, 1000))
    media_id = keep(world, path)
    world.simulator.post("faults", mode="media_error", code=131016, next=1)
    late = queue(world, "image", {"media_id": media_id})
    assert outcome(world, late)["status"] == "sent"
    assert uploads(world)[0]["attempts"] == 2
    world.db.query("UPDATE wa_media_uploads SET expires_at = now()")
    world.simulator.post("faults", mode="media_error", code=100, next=1, details="No such file.")
    refused = queue(world, "image", {"media_id": media_id})
    assert outcome(world, refused) == {
        "status": "failed",
        "error_code": "upload_failed",
        "last_error": "No such file. (HTTP 400, code 100)",
    }


def test_other_bytes_in_the_place_of_a_file_go_to_nobody(world: MediaWorld, tmp_path: Path) -> None:
    store = tmp_path / "files"
    store.mkdir()
    world.store_in("directory", str(store))
    path = tmp_path / "a.jpg"
    path.write_bytes(noise(JPEG, 1000))
    media_id = keep(world, path)
    (kept,) = [one for one in store.rglob("*") if one.is_file()]
    kept.write_bytes(noise(JPEG, 1000))
    queue(world, "image", {"media_id": media_id})
    wait_until(lambda: uploads(world) and uploads(world)[0]["error"])
    (upload,) = uploads(world)
    assert upload["error"].startswith("the bytes are not those that were put there")
    assert upload["status"] == "pending"
    kept.write_bytes(path.read_bytes())
    world.db.query("UPDATE wa_media_uploads SET next_attempt_at = now()")
    wait_until(lambda: uploads(world)[0]["status"] == "uploaded")


def test_drain_waits_for_files(world: MediaWorld, tmp_path: Path) -> None:
    world.dispatch.signal()
    world.dispatch.wait()
    path = tmp_path / "a.jpg"
    path.write_bytes(noise(JPEG, 1000))
    queued = queue(world, "image", {"media_id": keep(world, path)})
    done = wa(
        "dispatch", "--drain", database=world.db, **world.env, WHATSAPP_API_BASE_URL=world.simulator.url
    )
    assert done.returncode == 0, done.stderr
    assert outcome(world, queued)["status"] == "sent"
    world.dispatch = world.start_dispatch()


def test_what_whatsapp_does_not_take_is_refused_before_it_goes_anywhere(
    db: Database, tmp_path: Path, make_role: Callable[..., str]
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"GIF89a" + bytes(100))
    done = wa("media", "upload", str(path), database=db)
    assert (done.returncode, "image/gif" in done.stderr) == (1, True)
    path.write_bytes(b"%PDF-1.4")
    done = wa("media", "upload", str(path), "--type", "image/jpeg", database=db)
    assert (done.returncode, "its bytes are application/pdf" in done.stderr) == (1, True)
    done = wa("media", "upload", str(path), database=db, user=make_role("wa_analyst"))
    assert done.returncode == 1
    assert db.query("SELECT count(*) AS n FROM wa_media") == [{"n": 0}]
