"""Files under concurrency: a link opens as often as it may, a file is fetched by one."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from harness import Database
from webhook_bodies import NUMBER_ID, message

CONTENT = b"picture"


@pytest.fixture
def media(db: Database) -> Database:
    """With two messages that have a file; that of the first is stored."""
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
    ready = threading.Barrier(8)
    seen: Counter[tuple[str, bytes | None]] = Counter()

    def ask() -> None:
        with media.connect() as connection:
            ready.wait()
            row = connection.execute("SELECT outcome, content FROM open_wa_media(%s, %s)", link).fetchone()
            assert row
            seen[row] += 1

    sessions = [threading.Thread(target=ask) for _ in range(8)]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join()
    assert seen == {("ok", CONTENT): max_access, ("used_up", None): 8 - max_access}
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
    claim = "SELECT provider_media_id FROM claim_wa_media(10)"
    with media.connect(autocommit=False) as first, media.connect() as second:
        assert first.execute(claim).fetchall() == [("M2",)]
        assert second.execute(claim).fetchall() == []
        first.rollback()
        assert second.execute(claim).fetchall() == [("M2",)]
