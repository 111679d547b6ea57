"""Files that come in: from the provider into each store, and out by link; and what goes wrong on the way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness import Database
from media_world import (
    JPEG,
    PDF,
    PHONE,
    VOICE,
    Bucket,
    MediaWorld,
    companions,
    digest,
    noise,
    peak_mib,
)
from simulated import wait_until

pytestmark = pytest.mark.slow

MOST_MIB = 150


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    made = Bucket()
    yield made
    made.close()


@pytest.fixture
def world(db: Database, tmp_path: Path, make_role: Callable[..., str]) -> Iterator[MediaWorld]:
    with MediaWorld(db, tmp_path, make_role) as made:
        yield made


def kept(directory: Path) -> list[Path]:
    """The files in a directory and below."""
    return [path for path in directory.rglob("*") if path.is_file()]


@pytest.mark.parametrize("store", ["database", "directory", "s3"])
def test_files_come_in_and_go_out_byte_for_byte(
    store: str,
    db: Database,
    tmp_path: Path,
    make_role: Callable[..., str],
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    bucket: Bucket | None = request.getfixturevalue("bucket") if store == "s3" else None
    with MediaWorld(db, tmp_path, make_role, **(bucket.env if bucket else {})) as world:
        directory = tmp_path / "files"
        directory.mkdir()
        place = {"database": None, "directory": str(directory), "s3": bucket.location if bucket else None}
        world.store_in(store, place[store])
        files = {
            world.bring(kind, content, **told): content
            for kind, content, told in [
                ("image", noise(JPEG, 300_000), {}),
                ("audio", noise(VOICE, 40_000), {"voice": True}),
                ("document", noise(PDF, 100 << 20), {"filename": "large.pdf"}),
            ]
        }
        for id_at_provider, content in files.items():
            row = world.settled(id_at_provider, "stored", seconds=120)
            assert (row["attempts"], row["file_size"], row["sha256"]) == (1, len(content), digest(content))
            answer, seen, size = world.had(world.link(row["id"]))
            assert (answer.status_code, seen, size) == (200, digest(content), len(content))
        peaks = [peak_mib(process) for process in (world.dispatch, world.serve)]
        record_property("told", "at most {:.0f} MiB to fetch it, {:.0f} MiB to give it out".format(*peaks))
        assert max(peaks) < MOST_MIB
        (row,) = db.query("SELECT count(*) AS blobs, count(DISTINCT store) AS stores, min(store) AS store"
                          " FROM wa_media_blobs WHERE is_complete")  # fmt: skip
        assert row == {"blobs": 3, "stores": 1, "store": store}
        assert len(kept(directory)) == (3 if store == "directory" else 0)
        assert len(bucket.keys() if bucket else []) == (3 if store == "s3" else 0)

        # Ended, and read by nobody any more: gone, wherever they are.
        db.query("UPDATE wa_media SET expires_at = now()")
        db.query("UPDATE wa_media_openings SET opened_at = now() - interval '2 hours'")
        assert db.query("SELECT cleanup_expired_wa_media() AS gone") == [{"gone": 3}]
        wait_until(lambda: db.query("SELECT count(*) AS n FROM wa_media_garbage") == [{"n": 0}])
        assert not kept(directory)
        assert not (bucket.keys() if bucket else [])
        assert db.query("SELECT count(*) AS n FROM wa_media_chunks") == [{"n": 0}]


def test_what_is_not_what_was_told_is_not_kept(world: MediaWorld) -> None:
    forged = world.bring("image", JPEG + b"x", sha256="A" * 43 + "=")
    disguised = world.bring("image", b"<html><script>alert(1)</script>", mime_type="image/jpeg")
    assert world.stumbled(forged) == "the bytes do not have the hash that was told"
    assert world.file(forged)["status"] == "pending"
    row = world.settled(disguised, "failed")
    assert row["error"] == "told to be image/jpeg, the bytes are of no known type"
    assert world.db.query("SELECT count(*) AS n FROM wa_media_blobs") == [{"n": 0}]
    # A message is never lost for its file.
    assert world.db.query("SELECT count(*) AS n FROM wa_messages") == [{"n": 2}]


def test_a_url_that_has_expired_is_asked_for_anew(world: MediaWorld) -> None:
    world.simulator.post("faults", mode="media_gone", next=2)
    first = world.bring("image")
    assert world.settled(first, "stored")["attempts"] == 1
    world.simulator.post("settings", media_url_ttl_s=0)
    world.simulator.post("faults", mode="media_gone")
    second = world.bring("image")
    assert world.stumbled(second) == "the provider does not give it: HTTP 404"
    assert world.file(second)["status"] == "pending"


class Elsewhere:
    """A server that is none of the provider's; notes who came."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(dict(self.headers))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(JPEG)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/file"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    made = Elsewhere()
    yield made
    made.close()


def test_redirects_are_followed_within_the_provider_only(world: MediaWorld, elsewhere: Elsewhere) -> None:
    world.simulator.post("faults", mode="media_redirect", next=2)
    moved = world.bring("image")
    assert world.settled(moved, "stored")["attempts"] == 1
    away = ("https://127.0.0.1/x", "https://files.example/x", "https://fbsbx.com.example/x")
    for location in (elsewhere.url, *away):
        world.simulator.post("faults", mode="media_redirect", next=1, location=location)
        led_away = world.bring("image")
        assert "none of the provider's" in world.stumbled(led_away)
    world.simulator.post("faults", mode="media_redirect", next=10)
    round_and_round = world.bring("image")
    assert world.stumbled(round_and_round) == "the provider redirects without end"
    assert elsewhere.seen == []


def test_what_drips_or_breaks_off_is_given_up_and_sending_goes_on(world: MediaWorld) -> None:
    world.simulator.post("faults", mode="media_cut", next=1)
    broken = world.bring("document", noise(PDF, 200_000))
    assert world.stumbled(broken).startswith("the connection broke")
    world.simulator.post("faults", mode="media_drip", bytes_per_s=2000)
    dripping = [world.bring("document", noise(PDF, 500_000)) for _ in range(3)]
    wait_until(lambda: all(world.file(one)["is_leased"] for one in dripping))
    world.db.query("INSERT INTO wa_outbound_queue (phone, text_body) VALUES (%s, 'Still here')", PHONE)
    wait_until(lambda: world.db.query("SELECT status FROM wa_outbound_queue") == [{"status": "sent"}])
    assert all(world.file(one)["error"] is None for one in dripping)
    for one in dripping:
        assert world.stumbled(one) == "it came too slowly"
    world.simulator.client.delete("/_simulator/faults")
    world.db.query("UPDATE wa_media SET next_attempt_at = now() WHERE status = 'pending'")
    for one in (broken, *dripping):
        assert world.settled(one, "stored")["attempts"] == 2


def test_whoever_is_killed_midway_leaves_the_file_to_the_next(world: MediaWorld) -> None:
    content = noise(PDF, 3_000_000)
    world.simulator.post("faults", mode="media_drip", bytes_per_s=300_000)
    file = world.bring("document", content)
    wait_until(lambda: world.file(file)["file_size"])
    (companion,) = companions(world.dispatch)
    os.kill(companion, signal.SIGKILL)
    world.dispatch.logged("a companion ended, to be started again")
    assert (world.file(file)["status"], world.file(file)["is_leased"]) == ("pending", True)
    world.simulator.client.delete("/_simulator/faults")
    # As if a minute had passed.
    world.db.query("UPDATE wa_media SET next_attempt_at = now()")
    row = world.settled(file, "stored")
    assert (row["attempts"], row["sha256"]) == (2, digest(content))
    assert world.db.query("SELECT count(*) AS n FROM wa_media_blobs") == [{"n": 1}]


def test_whoever_dies_while_it_stores_leaves_nothing_half(world: MediaWorld) -> None:
    content = noise(PDF, 3_000_000)
    with world.db.connect(autocommit=False) as somebody:
        somebody.execute("LOCK wa_media_chunks IN SHARE MODE")
        file = world.bring("document", content)
        wait_until(lambda: world.db.query("SELECT id FROM wa_media_blobs"))
        world.dispatch.signal(signal.SIGKILL)
        world.dispatch.wait()
    world.dispatch = world.start_dispatch()
    world.db.query("UPDATE wa_media SET next_attempt_at = now() WHERE status = 'pending'")
    row = world.settled(file, "stored")
    assert world.had(world.link(row["id"]))[1] == digest(content)
    world.db.query("UPDATE wa_media_blobs SET created_at = now() - interval '25 hours' WHERE NOT is_complete")
    assert world.db.query("SELECT cleanup_expired_wa_media() AS gone") == [{"gone": 1}]
    assert world.db.query("SELECT count(*) AS n FROM wa_media_blobs") == [{"n": 1}]


def test_whoever_is_stopped_hands_back_what_it_has(world: MediaWorld) -> None:
    world.simulator.post("faults", mode="media_drip", bytes_per_s=300_000)
    file = world.bring("document", noise(PDF, 3_000_000))
    wait_until(lambda: world.file(file)["file_size"])
    world.dispatch.signal()
    assert world.dispatch.wait() == 0
    world.simulator.client.delete("/_simulator/faults")
    world.dispatch = world.start_dispatch()
    assert world.settled(file, "stored")["attempts"] == 2


def test_whoever_has_a_file_locked_keeps_no_other_waiting(world: MediaWorld) -> None:
    world.simulator.post("faults", mode="media_drip", bytes_per_s=100_000, next=1)
    locked = world.bring("image", noise(JPEG, 100_000))
    wait_until(lambda: world.file(locked)["file_size"])
    with world.db.connect(autocommit=False) as app:
        app.execute("UPDATE wa_media SET expires_at = NULL WHERE provider_media_id = %s", (locked,))
        free = world.bring("image")
        world.settled(free, "stored")
        world.dispatch.logged("a file is left for later")
    world.db.query("UPDATE wa_media SET next_attempt_at = now() WHERE status = 'pending'")
    assert world.settled(locked, "stored")["attempts"] == 2


def test_beyond_a_quota_files_wait_to_be_asked_for(world: MediaWorld) -> None:
    world.db.query("UPDATE wa_organizations SET media_contact_quota = 400000")
    first = world.bring("image", noise(JPEG, 300_000))
    world.settled(first, "stored")
    second = world.bring("image", noise(JPEG, 300_000))
    assert world.settled(second, "on_demand")["error"].startswith("quota: ")
    path = world.link(world.file(second)["id"])
    early = world.http.get(path)
    assert (early.status_code, early.headers["retry-after"]) == (503, "5")
    world.db.query("SELECT fetch_wa_media(%s)", world.file(second)["id"])
    world.settled(second, "stored")
    assert world.http.get(path).status_code == 200


def test_a_store_that_is_away_costs_no_file(world: MediaWorld, tmp_path: Path) -> None:
    world.store_in("directory", str(tmp_path / "not" / "mounted"))
    file = world.bring("image")
    assert world.stumbled(file) == "the bytes, or their directory, are not there"
    (tmp_path / "not" / "mounted").mkdir(parents=True)
    world.db.query("UPDATE wa_media SET next_attempt_at = now()")
    assert world.settled(file, "stored")["attempts"] == 2


def test_360dialog_gives_its_files_at_its_own_address(
    db: Database, tmp_path: Path, make_role: Callable[..., str]
) -> None:
    with MediaWorld(db, tmp_path, make_role, WHATSAPP_PROVIDER="360dialog") as world:
        world.simulator.post(
            "numbers", phone_number_id="106540352242999", api_key=world.env["WHATSAPP_ACCESS_TOKEN"]
        )
        db.query("UPDATE wa_phone_numbers SET provider = '360dialog'")
        file = world.bring("image")
        assert world.settled(file, "stored")["attempts"] == 1
