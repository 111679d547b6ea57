"""Files under concurrency: a link opens as often as it may, a file is fetched by one."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from harness import Database
from pg_whatsapp.media_http import LOCKED
from simulated import wait_until
from webhook_bodies import NUMBER_ID, message

CONTENT = b"picture"


@pytest.fixture
def media(db: Database) -> Database:
    """With two messages that have a file; that of the first is stored."""
    db.query("SELECT adopt_wa_database()")
    db.query("SELECT register_wa_phone_number(%s, '+1 555 123 4567', '200')", NUMBER_ID)
    for n in (1, 2):
        body = message(f"wamid.{n}", "5491140000001", 1790000000 + n, "image", {"id": f"M{n}"})
        db.query("SELECT ingest_wa_webhook(%s)", body)
    db.query("SELECT process_wa_webhooks()")
    db.query(
        "SELECT store_wa_media(organization_id, id, %s) FROM wa_media WHERE provider_media_id = 'M1'", CONTENT
    )
    return db


def link_to(media: Database, max_access: int) -> tuple[str, str]:
    """Id and token of a new link to the stored file."""
    (link,) = media.query(
        "SELECT l.id::text, l.token FROM wa_media AS m, create_wa_media_signature(m.id, %s) AS l"
        " WHERE m.status = 'stored'",
        max_access,
    )
    return link["id"], link["token"]


@pytest.mark.parametrize("max_access", [1, 3])
def test_a_link_opens_as_often_as_it_may_however_many_ask(media: Database, max_access: int) -> None:
    link = link_to(media, max_access)
    ready = threading.Barrier(50)
    seen: Counter[tuple[str, str | None]] = Counter()

    def ask() -> None:
        with media.connect() as connection:
            ready.wait()
            while True:
                try:
                    row = connection.execute(
                        "SELECT outcome, store FROM open_wa_media(%s, %s)", link
                    ).fetchone()
                    break
                except LOCKED:
                    pass  # as `wa serve` does: it asks again
            assert row
            seen[row] += 1

    sessions = [threading.Thread(target=ask) for _ in range(50)]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join()
    assert seen == {("ok", "database"): max_access, ("used_up", None): 50 - max_access}
    assert media.query("SELECT read_wa_media(%s, %s) AS content", *link) == [{"content": CONTENT}]
    assert media.query("SELECT access_count FROM wa_media_signatures") == [{"access_count": max_access}]
    assert media.query("SELECT count(*) AS n FROM audit_log WHERE event = 'media_opened'") == [
        {"n": max_access}
    ]


def test_an_opening_that_is_undone_does_not_count(media: Database) -> None:
    link = link_to(media, 1)
    with media.connect(autocommit=False) as first:
        assert first.execute("SELECT outcome FROM open_wa_media(%s, %s)", link).fetchone() == ("ok",)
        first.rollback()
    assert media.query("SELECT outcome FROM open_wa_media(%s, %s)", *link) == [{"outcome": "ok"}]


def test_two_who_fetch_get_different_files(media: Database) -> None:
    claim = "SELECT path FROM claim_wa_media(10)"
    path = f"/M2?phone_number_id={NUMBER_ID}"
    with media.connect(autocommit=False) as first, media.connect() as second:
        assert first.execute(claim).fetchall() == [(path,)]
        assert second.execute(claim).fetchall() == []
        first.rollback()
        assert second.execute(claim).fetchall() == [(path,)]


def test_a_file_that_is_being_named_is_not_cleaned_up(media: Database) -> None:
    (made,) = media.query("SELECT create_wa_media('mine', 'text/plain')::text AS id")
    clean = "SELECT cleanup_expired_wa_media()"
    queue = (
        "INSERT INTO wa_outbound_queue (phone, type, content, on_refusal, scheduled_at)"
        " VALUES ('+5491140000001', 'document', jsonb_build_object('media_id', %s::text), 'record',"
        " now() + interval '1 hour')"
    )
    with media.connect(autocommit=False) as app, media.connect() as admin:
        # It can still be named, and no longer when the job comes by; naming it locks its row.
        admin.execute(
            "UPDATE wa_media SET expires_at = now() + interval '2 seconds' WHERE id = %s", (made["id"],)
        )
        app.execute(queue, (made["id"],))
        gone = "SELECT 1 FROM wa_media WHERE id = %s AND expires_at < clock_timestamp()"
        wait_until(lambda: admin.execute(gone, (made["id"],)).fetchone())
        assert admin.execute(clean).fetchone() == (0,)
        app.commit()
        assert admin.execute(clean).fetchone() == (0,)
        admin.execute("UPDATE wa_outbound_queue SET status = 'cancelled', change_no = change_no + 1")
        assert admin.execute(clean).fetchone() == (1,)


def test_of_the_same_bytes_that_come_twice_at_once_one_copy_stays(media: Database) -> None:
    for n in (3, 4):
        body = message(f"wamid.{n}", "5491140000001", 1790000000 + n, "document", {"id": f"M{n}"})
        media.query("SELECT ingest_wa_webhook(%s)", body)
    media.query("SELECT process_wa_webhooks()")
    store = (
        "SELECT store_wa_media(organization_id, id, 'the same') FROM wa_media WHERE provider_media_id = %s"
    )
    with media.connect(autocommit=False) as first, media.connect() as second:
        assert first.execute(store, ("M3",)).fetchone() == ("stored",)
        waiting = threading.Thread(target=lambda: second.execute(store, ("M4",)))
        waiting.start()
        wait_until(
            lambda: media.query(
                "SELECT pid FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
        )
        first.commit()
        waiting.join()
    (counted,) = media.query(
        "SELECT count(DISTINCT m.blob_id) AS blobs, count(*) AS files,"
        " (SELECT count(*) FROM wa_media_blobs b WHERE b.sha256 = sha256('the same')) AS kept"
        " FROM wa_media m WHERE m.provider_media_id IN ('M3', 'M4') AND m.status = 'stored'"
    )
    assert counted == {"blobs": 1, "files": 2, "kept": 1}


def test_who_asks_again_for_an_upload_holds_no_upload_up(media: Database) -> None:
    (made,) = media.query("SELECT create_wa_media('mine', 'text/plain')::text AS id")
    ask = "SELECT status FROM upload_wa_media(%s)"
    media.query("UPDATE wa_organizations SET default_number_id = (SELECT id FROM wa_phone_numbers)")
    media.query(ask, made["id"])
    (claim,) = media.query("SELECT organization_id, upload_id, attempt FROM claim_wa_media_uploads()")
    renew = "SELECT renew_wa_media_uploads(ARRAY[%s], ARRAY[%s], ARRAY[%s])"
    end = 'SELECT complete_wa_media_upload(%s, %s, %s, 200, \'{"id": "M9"}\', NULL)'
    with media.connect(autocommit=False) as app, media.connect(options="-c lock_timeout=60s") as worker:
        assert app.execute(ask, (made["id"],)).fetchone() == ("pending",)
        worker.execute(renew, tuple(claim.values()))
        assert worker.execute(end, tuple(claim.values())).fetchone() == ("uploaded",)


def test_a_locked_upload_keeps_no_other_from_being_held(media: Database) -> None:
    media.query("UPDATE wa_organizations SET default_number_id = (SELECT id FROM wa_phone_numbers)")
    for content in ("one", "two"):
        media.query(
            "SELECT u.* FROM create_wa_media(%s, 'text/plain') m, upload_wa_media(m) u", content.encode()
        )
    claims = media.query(
        "SELECT organization_id, upload_id, attempt FROM claim_wa_media_uploads() ORDER BY upload_id"
    )
    held = [[claim[name] for claim in claims] for name in claims[0]]
    with media.connect(autocommit=False) as admin, media.connect(options="-c lock_timeout=60s") as worker:
        admin.execute("SELECT FROM wa_media_uploads WHERE id = %s FOR UPDATE", (claims[0]["upload_id"],))
        worker.execute("SELECT renew_wa_media_uploads(%s, %s, %s, interval '1 hour')", held)
    renewed = media.query(
        "SELECT id FROM wa_media_uploads WHERE leased_until > clock_timestamp() + interval '30 minutes'"
    )
    assert [row["id"] for row in renewed] == [claims[1]["upload_id"]]
