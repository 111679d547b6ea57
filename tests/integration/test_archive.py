"""`wa archive`: what retention takes is in files before, comes back, and goes with whoever is erased.

Tests sql/privacy/archive.sql, sql/organizations/archived.sql.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Database
from media_world import Bucket
from pg_whatsapp import archive
from simulated import wait_until
from wa_process import WaProcess, wa

PEOPLE = 3
LIVE = ("wa_messages", "wa_message_statuses", "wa_outbound_queue")
# A message, a status and a queue row of each of three persons, a hundred days old; the last one's queue row
# has an id of the application's own; and a message of today.
PLANT = """
SELECT register_wa_phone_number('100', '+1 555 123 4567', '200');
SELECT opt_in_wa_contact('+1650555010' || n, 'all', 'form') FROM generate_series(1, 3) n;
SET session_replication_role = replica;
INSERT INTO wa_outbound_queue (id, phone, type, text_body, status, scheduled_at, contact_id, processed_at,
    created_at)
SELECT CASE WHEN c.id = (SELECT max(id) FROM wa_contacts) THEN 'ffffffff-0000-4000-8000-000000000001'
    ELSE _wa_uuid7(now() - interval '100 days') END,
    c.phone_e164, 'text', 'asked-' || c.phone_e164, 'sent', now() - interval '100 days', c.id,
    now() - interval '100 days', now() - interval '100 days'
FROM wa_contacts c;
INSERT INTO wa_messages (contact_id, phone_e164, queue_id, wa_message_id, direction, message_type, status,
    state, content, content_text, created_at)
SELECT q.contact_id, q.phone, q.id, 'wamid.' || q.phone, 'outbound', 'text', 'sent', 'sent',
    jsonb_build_object('body', 'told-' || q.phone), 'told-' || q.phone, q.created_at
FROM wa_outbound_queue q ORDER BY q.contact_id;
INSERT INTO wa_message_statuses (message_id, wa_message_id, status, occurred_at, received_at, recipient_id)
SELECT id, wa_message_id, 'delivered', created_at, created_at, ltrim(phone_e164, '+') FROM wa_messages;
INSERT INTO wa_messages (direction, message_type, status, state, content_text)
VALUES ('inbound', 'text', 'received', 'received', 'of today');
RESET session_replication_role;
UPDATE wa_organizations SET message_retention = '30 days', text_retention = '20 days';
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    made = tmp_path / "archive"
    made.mkdir()
    return made


@pytest.fixture
def old(db: Database, store: Path) -> Database:
    """A database in which there is something to take, once it is in the archive."""
    with db.connect() as owner:
        owner.execute("SELECT adopt_wa_database()")
        owner.execute(PLANT.encode())
        owner.execute("SELECT set_config('x.location', %s, false)", (str(store),))
        owner.execute("UPDATE wa_organizations SET archive_location = current_setting('x.location')")
    return db


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    made = Bucket()
    yield made
    made.close()


def left(db: Database) -> list[int]:
    """How many rows are left of messages, statuses and queue rows."""
    return [len(db.query(f"SELECT 1 FROM {table}")) for table in LIVE]


def ended(db: Database, ago: str) -> None:
    """Queue rows whose ids tell their time have ended so long ago."""
    with db.connect() as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(
            "UPDATE wa_outbound_queue SET processed_at = now() - %s::interval WHERE id::text LIKE '0%%'",
            (ago,),
        )


def retain(db: Database) -> None:
    db.query("SELECT run_wa_retention()")


def contents(store: Path) -> str:
    """All that anybody reads who has the files alone."""
    text = b""
    for file in store.rglob("*.*"):
        data = file.read_bytes()
        text += gzip.decompress(data) if file.suffix == ".gz" else data
    return text.decode()


def restored(db: Database, table: str) -> list[dict[str, Any]]:
    return db.query(f"SELECT * FROM wa_archive.{table} ORDER BY id")


def test_retention_waits_for_the_archive_and_what_went_comes_back(old: Database, store: Path) -> None:
    before = {table: old.query(f"SELECT * FROM {table} ORDER BY id") for table in LIVE}
    retain(old)
    assert left(old) == [4, 3, 3]
    assert old.query("SELECT count(content_text) AS n FROM wa_messages") == [{"n": 4}]
    done = wa("archive", "run", database=old)
    assert (done.returncode, done.stdout) == (0, "default: 9 rows archived\n")
    assert wa("archive", "run", database=old).stdout == "default: 0 rows archived\n"
    manifests = [json.loads(file.read_text()) for file in sorted(store.rglob("*.json"))]
    assert {one["kind"]: (one["rows"], one["persons"], one["tables"]) for one in manifests} == {
        "messages": (4, 3, {"wa_messages": 3, "wa_outbound_queue": 1}),
        "statuses": (3, 3, {"wa_message_statuses": 3}),
        "queue": (2, 2, {"wa_outbound_queue": 2}),
    }
    # The files alone tell nobody's number or words.
    assert "5550" not in contents(store)
    assert "told-" not in contents(store)
    retain(old)
    assert left(old) == [1, 0, 0]
    assert wa("archive", "verify", database=old).stdout == "3 files, all as they were written\n"
    assert wa("archive", "restore", database=old).returncode == 0
    for table in LIVE:
        assert restored(old, table) == before[table][:PEOPLE]
    again = wa("archive", "restore", database=old)
    assert "wa_archive.wa_messages: 0 rows" in again.stdout
    assert len(restored(old, "wa_messages")) == PEOPLE


def test_who_is_erased_is_read_in_no_file_any_more(old: Database, store: Path, tmp_path: Path) -> None:
    wa("archive", "run", database=old)
    copy = shutil.copytree(store, tmp_path / "copy")
    old.query("SELECT erase_wa_contact('+16505550101', 'asked')")
    shutil.rmtree(store)
    copy.rename(store)
    shown = wa("archive", "restore", database=old)
    assert "3 rows are of persons who were erased" in shown.stdout
    kept = str([restored(old, table) for table in LIVE])
    assert "16505550101" not in kept
    assert "16505550102" in kept
    assert wa("archive", "verify", database=old).returncode == 0


def test_a_killed_archive_lets_nothing_go_and_doubles_nothing(old: Database, store: Path) -> None:
    """Killed with its files written, and the database not told yet."""
    old.query(
        """CREATE FUNCTION tg_wait() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END $$"""
    )
    old.query("CREATE TRIGGER wait BEFORE UPDATE ON wa_archive_files FOR EACH ROW EXECUTE FUNCTION tg_wait()")
    with old.connect() as other:
        other.execute("SELECT pg_advisory_lock(42)")
        with WaProcess("archive", "run", database=old) as process:
            wait_until(lambda: list(store.rglob("*.json")))
            process.kill()
        # What it had asked for must not be done behind its back.
        waiting = "pg_locks WHERE locktype = 'advisory' AND NOT granted"
        other.execute(f"SELECT pg_terminate_backend(pid) FROM {waiting}".encode())
        wait_until(lambda: not old.query(f"SELECT FROM {waiting}"))
    half = set(store.rglob("*.*"))
    retain(old)
    assert left(old) == [4, 3, 3]
    busy = wa("archive", "run", database=old)
    assert busy.returncode == 1
    assert "--take-over" in busy.stderr
    done = wa("archive", "run", "--take-over", database=old)
    assert done.stdout == "default: 9 rows archived\n"
    assert not half & set(store.rglob("*.*"))
    assert len(list(store.rglob("*.gz"))) == 3
    retain(old)
    assert left(old) == [1, 0, 0]
    wa("archive", "restore", database=old)
    assert [len(restored(old, table)) for table in LIVE] == [PEOPLE, PEOPLE, PEOPLE]


def test_a_copy_takes_no_file_of_its_original(old: Database, store: Path) -> None:
    """Copied while a file was being written, which the original has finished since."""
    old.query("SELECT * FROM begin_wa_archive_file('messages')")
    [file] = old.query("SELECT name FROM wa_archive_files")
    finished = store / f"{file['name']}.jsonl.gz"
    finished.parent.mkdir()
    finished.write_bytes(b"the original's")
    old.query("UPDATE wa_installations SET database_oid = 1")
    refused = wa("archive", "run", "--take-over", database=old)
    assert refused.returncode == 1
    assert "this database is not the one that was sending" in refused.stderr
    assert set(store.rglob("*.*")) == {finished}


def test_who_may_not_make_a_schema_is_told_what_lacks(old: Database, make_role: Callable[..., str]) -> None:
    assert wa("archive", "run", database=old).returncode == 0
    officer = make_role("wa_admin")
    refused = wa("archive", "restore", database=old, user=officer)
    assert refused.returncode == 1
    lacking = f"GRANT CREATE ON DATABASE {old.name} TO {officer};"
    assert lacking in refused.stderr
    old.query(lacking)
    assert wa("archive", "restore", database=old, user=officer).returncode == 0
    assert len(old.query("SELECT * FROM wa_archive.wa_messages", user=officer)) == PEOPLE


def test_whoever_is_erased_while_a_file_is_written_is_not_in_it(old: Database, store: Path) -> None:
    """The rows were read before, the file was written: it does not count, and the next one has nothing."""

    class Slow(archive.Stores):
        erased = False

        async def put(self, place: Any, file: Any) -> None:
            await super().put(place, file)
            if not self.erased:
                self.erased = True
                old.query("SELECT erase_wa_contact('+16505550101', 'asked')")

    async def work() -> int:
        connection = await archive.db.connect("", "archive")
        async with connection:
            return await archive.Archive(connection, Slow()).write("messages")

    for name, value in old.env.items():
        pytest.MonkeyPatch().setenv(name, value)
    assert asyncio.run(work()) == 4
    assert len(list(store.rglob("*.gz"))) == 1
    wa("archive", "restore", database=old)
    assert "16505550101" not in str(restored(old, "wa_messages"))
    assert len(restored(old, "wa_messages")) == PEOPLE


def test_a_file_that_was_changed_is_named_and_not_restored(old: Database, store: Path) -> None:
    wa("archive", "run", database=old)
    file = next(store.rglob("messages-*.gz"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    checked = wa("archive", "verify", database=old)
    assert checked.returncode == 1
    assert file.name.removesuffix(".jsonl.gz") in checked.stdout
    refused = wa("archive", "restore", "--kind", "messages", database=old)
    assert refused.returncode == 1
    assert "checksum" in refused.stderr


def test_joined_contacts_keep_what_was_archived_of_either(old: Database) -> None:
    wa("archive", "run", database=old)
    old.query(
        """SELECT _wa_merge_contacts(current_wa_organization(), min(id), max(id)) FROM wa_contacts
        WHERE phone_e164 IN ('+16505550101', '+16505550102')"""
    )
    wa("archive", "restore", database=old)
    assert len(restored(old, "wa_messages")) == PEOPLE
    old.query("SELECT erase_wa_contact('+16505550102', 'asked')")
    old.query("DROP SCHEMA wa_archive CASCADE")
    wa("archive", "restore", database=old)
    assert len(restored(old, "wa_messages")) == 1


def test_an_archive_in_a_bucket(old: Database, bucket: Bucket) -> None:
    old.query("UPDATE wa_organizations SET archive_location = %s", bucket.location)
    assert wa("archive", "run", database=old, **bucket.env).stdout == "default: 9 rows archived\n"
    assert len(bucket.keys()) == 6
    retain(old)
    assert left(old) == [1, 0, 0]
    assert wa("archive", "verify", database=old, **bucket.env).returncode == 0
    wa("archive", "restore", database=old, **bucket.env)
    assert [len(restored(old, table)) for table in LIVE] == [PEOPLE, PEOPLE, PEOPLE]


def test_what_ended_lately_is_waited_for_and_without_an_archive_nothing_is(
    old: Database, make_role: Callable[..., str]
) -> None:
    ended(old, "1 day")
    assert wa("archive", "run", database=old).stdout == "default: 7 rows archived\n"
    retain(old)
    assert left(old) == [1, 0, 2]
    app = make_role("wa_app")
    for statement in ("SELECT * FROM wa_archive_keys", "SELECT * FROM read_wa_archive_rows('messages')"):
        with pytest.raises(Exception, match="permission denied"):
            old.query(statement, user=app)
    old.query("UPDATE wa_organizations SET archive_location = NULL")
    assert "no organization has an archive" in wa("archive", "list", database=old).stdout
    ended(old, "31 days")
    retain(old)
    assert left(old) == [1, 0, 0]


def test_what_is_scheduled_far_ahead_keeps_nothing_behind_it(old: Database, store: Path) -> None:
    """Neither from the archive nor from retention; it comes, and goes, when it has ended."""
    with old.connect() as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(
            "INSERT INTO wa_outbound_queue (id, phone, type, text_body, status, scheduled_at)"
            " VALUES (_wa_uuid7(now() - interval '300 days'), '+16505550109', 'text', 'far ahead', 'pending',"
            " now() + interval '60 days')"
        )
    [far] = old.query("SELECT id::text FROM wa_outbound_queue WHERE text_body = 'far ahead'")
    assert wa("archive", "run", database=old).returncode == 0
    for _ in range(3):
        retain(old)
    rows = old.query("SELECT id::text, status FROM wa_outbound_queue")
    assert rows == [{"id": far["id"], "status": "pending"}]
    assert old.query("SELECT kind FROM wa_retention_stragglers ORDER BY 1") == [
        {"kind": "archive"},
        {"kind": "texts"},
    ]

    with old.connect() as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE wa_outbound_queue SET status = 'cancelled', processed_at = now()")
    assert wa("archive", "run", database=old).returncode == 0
    retain(old)
    assert old.query("SELECT text_body FROM wa_outbound_queue") == [{"text_body": "far ahead"}], "it is new"
    ended(old, "25 days")
    retain(old)
    assert old.query("SELECT text_body FROM wa_outbound_queue") == [{"text_body": "far ahead"}], (
        "not archived"
    )
    assert wa("archive", "run", database=old).returncode == 0
    assert old.query("SELECT kind FROM wa_retention_stragglers") == [{"kind": "texts"}]
    retain(old)
    assert old.query("SELECT text_body FROM wa_outbound_queue") == [{"text_body": None}]
    assert old.query("SELECT kind FROM wa_retention_stragglers") == []
    ended(old, "31 days")
    retain(old)
    assert old.query("SELECT FROM wa_outbound_queue") == []
    assert wa("archive", "restore", database=old).returncode == 0
    assert far["id"] in {str(row["id"]) for row in restored(old, "wa_outbound_queue")}
