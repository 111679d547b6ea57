"""Erasing a person: what was planted is found in no dump, store, log or statistic, and figures stay.

Tests sql/privacy/erasing.sql, sql/privacy/recall.sql, sql/media/erase.sql.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from harness import Database
from media_world import PDF, PHONE, Bucket, MediaWorld, noise
from plpython_source import load
from simulated import NUMBER, wait_until
from tenants import make_tenants
from wa_process import wa
from webhook_bodies import message, status

OTHER = "+16505550199"
#: Where an export has the rows of a table, and which tables of persons it does not tell as they are.
SECTIONS = {
    "wa_contacts": "contact", "wa_contact_identities": "identities",
    "wa_conversation_windows": "conversations",
    "wa_opt_ins": "consent.opt_ins", "wa_opt_outs": "consent.opt_outs",
    "wa_consent_events": "consent.consent_events", "wa_opt_in_requests": "consent.opt_in_requests",
    "wa_messages": "messages", "wa_message_statuses": "statuses", "timeline_entries": "timeline",
    "wa_outbound_queue": "queue", "wa_media": "files", "wa_event_deliveries": "deliveries",
    "wa_account_events": "account_events", "wa_idempotent_requests": "requests", "audit_log": "audit",
    "wa_automation_flows": "flows", "wa_flow_steps": "flow_steps", "wa_flow_events": "flow_events",
    "siren_events": "notifications", "wa_contact_holds": "holds",
}  # fmt: skip
NOT_TOLD = {
    "wa_broadcast_members": "lists has the names of the lists",
    "wa_webhook_logs": "webhooks has what is about the person",
    "wa_webhook_errors": "parts of raw webhooks",
    "wa_late_results": "answers that wait to be recorded with the messages",
    "wa_provider_calls": "calls that name messages and conversations, for a week",
    "wa_media_blobs": "bytes are had by links",
    "wa_media_chunks": "bytes are had by links",
    "wa_media_openings": "who opened a link is somebody else",
    "wa_archive_keys": "a key",
    "wa_erased_identities": "of the erased",
    "wa_faults": "errors of ours, by the hour",
    "wa_job_runs": "errors of ours",
}
FIGURES = ("wa_daily_messages", "wa_daily_delivery", "wa_daily_costs", "wa_daily_response_times",
           "wa_conversation_metrics")  # fmt: skip
PLANTED = ("planted-text", "planted-answer", "planted-file", "planted-note", "planted-proof", "planted-name")


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    made = Bucket()
    yield made
    made.close()


def traces(phone: str) -> list[str]:
    """A number, what was planted, and both as bytea, hashes of files and wamids show them."""
    digits = phone.lstrip("+")
    words = [digits, *PLANTED]
    return [
        *words,
        *(word.encode().hex() for word in words),
        *(part.decode() for part in load("redact_webhook").encoded(digits)),
    ]


def found(text: str, phone: str = PHONE) -> list[str]:
    """Which traces stand in a text."""
    return [trace for trace in traces(phone) if trace in text]


def dumped(database: Database) -> str:
    """All that pg_dump writes of a database."""
    done = subprocess.run(
        [database.server.bindir / "pg_dump", "--inserts", database.name],
        env={**database.env, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def statistics(database: Database) -> str:
    """What the planner remembers of the values of columns."""
    return json.dumps(
        database.query(
            "SELECT concat_ws(' ', stavalues1, stavalues2, stavalues3, stavalues4) FROM pg_statistic"
        ),
        default=str,
    )


def figures(database: Database) -> dict[str, list[dict[str, Any]]]:
    """All rows of the analytics views."""
    return {view: database.query(f"SELECT v::text FROM {view} v ORDER BY 1") for view in FIGURES}


def live(database: Database, phone: str, kind: str, **payload: Any) -> None:
    """Something of the host's own about a customer."""
    database.query(
        "INSERT INTO timeline_entries (event_type, content) VALUES ('MESSAGE', %s)",
        json.dumps({"about": phone, "note": "planted-note"}),
    )
    database.query(
        "SELECT opt_in_wa_contact(%s, 'all', 'form', %s)", phone, json.dumps({"text": "planted-proof"})
    )


@pytest.mark.slow
@pytest.mark.parametrize("store", ["database", "directory", "s3"])
def test_what_was_planted_is_nowhere(
    store: str,
    db: Database,
    tmp_path: Path,
    make_role: Callable[..., str],
    request: pytest.FixtureRequest,
) -> None:
    bucket: Bucket | None = request.getfixturevalue("bucket") if store == "s3" else None
    files = tmp_path / "files"
    files.mkdir()
    place = {"database": None, "directory": str(files), "s3": bucket.location if bucket else None}[store]
    with MediaWorld(db, tmp_path, make_role, **(bucket.env if bucket else {})) as world:
        world.store_in(store, place)
        world.simulator.post("customer", phone=PHONE, text="planted-text", name="planted-name", number=NUMBER)
        world.simulator.post("customer", phone=OTHER, text="words of another", number=NUMBER)
        file = world.bring("document", PDF + b"planted-file" + noise(b"", 500), filename="planted-file.pdf")
        world.settled(file, "stored")
        wait_until(lambda: len(db.query("SELECT 1 FROM wa_messages WHERE direction = 'inbound'")) == 3)
        for phone in (PHONE, OTHER):
            db.query("INSERT INTO wa_outbound_queue (phone, text_body) VALUES (%s, 'planted-answer')", phone)
        wait_until(
            lambda: len(db.query("SELECT 1 FROM wa_messages WHERE state IN ('delivered', 'read')")) == 2, 60
        )
        live(db, PHONE, "lead")
        db.query(
            "UPDATE wa_messages SET content_text = 'words of another', content = '{}'"
            " WHERE direction = 'outbound' AND phone_e164 = %s",
            OTHER,
        )
        db.query(
            "UPDATE wa_outbound_queue SET text_body = 'words of another', change_no = change_no + 1"
            " WHERE phone = %s",
            OTHER,
        )
        # Statistics of a table that is empty by the time of the next ANALYZE would stay.
        wait_until(lambda: not db.query("SELECT 1 FROM wa_webhook_logs WHERE status = 'pending'"))
        wait_until(lambda: not db.query("SELECT 1 FROM wa_webhook_errors"))
        db.query("ANALYZE")
        before = figures(db)
        assert PHONE[1:] in found(dumped(db))
        assert PHONE[1:] in found(statistics(db))

        wait_until(lambda: not db.query("SELECT 1 FROM wa_webhook_logs WHERE status = 'pending'"))
        (row,) = db.query("SELECT state, counts FROM erase_wa_contact(%s, 'request 1')", PHONE)
        assert row["state"] == "done", row["counts"]
        assert db.query("SELECT run_wa_erasures()")
        assert found(dumped(db)) == []
        assert found(statistics(db)) == []
        assert figures(db) == before
        db.query("SELECT roll_up_wa_analytics()")
        assert figures(db) == before
        assert "words of another" in dumped(db)
        wait_until(lambda: not db.query("SELECT 1 FROM wa_media_garbage"))
        assert not [path for path in files.rglob("*") if path.is_file()]
        if bucket:
            assert bucket.keys() == []
        assert found("".join(world.dispatch.raw + world.serve.raw)) == []


def fill(database: Database, rows: int) -> None:
    """A person with so many messages, and a status of each."""
    database.query("SELECT register_wa_phone_number(%s, '+15550783881', '102290129340398')", NUMBER)
    database.query("SELECT opt_in_wa_contact(%s)", PHONE)
    database.query(
        "INSERT INTO wa_messages (contact_id, phone_e164, wa_message_id, direction, message_type, status,"
        " state, content_text) SELECT c.id, c.phone_e164, 'wamid.' || n, 'outbound', 'text', 'sent', 'sent',"
        " 'planted-text' FROM wa_contacts c, generate_series(1, %s) n",
        rows,
    )
    database.query(
        "INSERT INTO wa_message_statuses (message_id, wa_message_id, status, recipient_id, occurred_at)"
        " SELECT id, wa_message_id, 'sent', %s, now() FROM wa_messages",
        PHONE[1:],
    )


@pytest.mark.slow
def test_a_person_with_many_messages_is_erased_in_parts(db: Database) -> None:
    fill(db, 30_000)
    (row,) = db.query("SELECT state FROM erase_wa_contact(%s, 'request 2')", PHONE)
    assert row["state"] == "running"
    left = [30_000]
    db.query("SELECT hold_wa_contact(%s, 'case 3')", PHONE)
    assert db.query("SELECT run_wa_erasures() AS rows") == [{"rows": 0}], "a hold stops it"
    db.query("SELECT release_wa_contact(%s)", PHONE)
    while db.query("SELECT 1 FROM wa_erasures WHERE state = 'running'"):
        db.query("SELECT run_wa_erasures(10000)")
        (row,) = db.query("SELECT count(*) AS n FROM wa_messages WHERE content_text IS NOT NULL")
        left.append(row["n"])
    # Two rows a message, a chunk of a thousand messages beyond the budget at most.
    assert max(a - b for a, b in pairwise(left[1:])) <= 6_000
    assert left[-1] == 0
    assert found(dumped(db)) == []


def test_what_an_open_transaction_records_afterwards_is_erased_too(db: Database) -> None:
    """A body that was looked up before the erasure and commits after it."""
    db.query("SELECT register_wa_phone_number(%s, '+15550783881', '102290129340398')", NUMBER)
    db.query("SELECT opt_in_wa_contact(%s)", PHONE)
    with db.connect(autocommit=False) as late:
        late.execute(
            "INSERT INTO wa_messages"
            " (contact_id, phone_e164, direction, message_type, status, state, content_text)"
            " SELECT id, phone_e164, 'inbound', 'text', 'received', 'received', 'planted-text'"
            " FROM wa_contacts"
        )
        (row,) = db.query("SELECT state FROM erase_wa_contact(%s, 'request 3')", PHONE)
        assert row["state"] == "done"
        late.commit()
    assert found(dumped(db)) != []
    db.query("SELECT run_wa_erasures()")
    assert found(dumped(db)) == []


def test_what_is_not_processed_yet_is_waited_for(db: Database) -> None:
    db.query("SELECT register_wa_phone_number(%s, '+15550783881', '102290129340398')", NUMBER)
    db.query("SELECT opt_in_wa_contact(%s)", PHONE)
    wamid = "wamid." + base64.b64encode(b"\x1d\x0b" + PHONE[1:].encode() + b"\x15").decode()
    for body in (
        message(wamid, PHONE[1:], 1700000000, content="planted-text", name="planted-name", number=NUMBER),
        status(wamid, "read", 1700000001, number=NUMBER, recipient_id=PHONE[1:]),
    ):
        db.query("SELECT ingest_wa_webhook(%s)", body)
    (row,) = db.query("SELECT state FROM erase_wa_contact(%s, 'request 4')", PHONE)
    assert row["state"] == "running"
    db.query("SELECT process_wa_webhooks()")
    while db.query("SELECT 1 FROM wa_erasures WHERE state = 'running'"):
        db.query("SELECT run_wa_erasures()")
    assert found(dumped(db)) == []


@pytest.mark.slow
def test_a_restored_backup_forgets_again(
    db: Database, make_database: Callable[..., Database], tmp_path: Path
) -> None:
    fill(db, 10)
    backup = dumped(db)
    db.query("SELECT rotate_wa_privacy_key('erasure')")
    db.query("SELECT erase_wa_contact(%s, 'request 5')", PHONE)
    exported = tmp_path / "erasures.json"
    done = wa("erasures", "export", str(exported), database=db)
    assert (done.returncode, done.stdout) == (0, "1 hashes\n"), done.stderr
    assert exported.stat().st_mode & 0o777 == 0o600
    assert found(exported.read_text()) == []

    restored = make_database(bare=True)
    subprocess.run(
        [restored.server.bindir / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", restored.name],
        env={**restored.env, "PATH": "/usr/bin:/bin"},
        input=backup,
        text=True,
        capture_output=True,
        check=True,
    )
    assert found(dumped(restored)) != []
    done = wa("adopt", "--erasures", str(exported), database=restored)
    assert done.returncode == 0, done.stderr
    assert "1 contacts" in done.stdout.splitlines()[0], "before a dispatcher may send"
    assert found(dumped(restored)) == []
    assert restored.query("SELECT is_wa_opted_out(%s, 'all') AS is_out", PHONE) == [{"is_out": False}], (
        "nobody knows the number yet"
    )
    restored.query("SELECT opt_out_wa_contact('+16505550111')")
    restored.query("SELECT _wa_consent_contact(current_wa_organization(), %s)", PHONE)
    assert restored.query("SELECT is_wa_opted_out(%s, 'all') AS is_out", PHONE) == [{"is_out": True}]
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    assert wa("adopt", "--erasures", str(broken), database=restored).returncode == 1


def test_an_export_tells_what_is_declared(db: Database, make_role: Callable[..., str]) -> None:
    """A table, or a column, of persons that is made later is told, too, or a reason stands here."""
    one, _, _ = make_tenants(db, make_role)
    with db.connect(user=one.role) as app:
        app.execute("SELECT opt_in_wa_contact(%s, 'utility', 'form')", (one.phone,))
        app.execute("SELECT request_wa_opt_in(%s)", (one.phone,))
        app.execute("SELECT begin_wa_idempotent_request(%s, 'x', sha256('x'))", (one.phone,))
        app.execute("INSERT INTO audit_log (event, entity_id) VALUES ('looked', %s)", (one.phone,))
        app.execute("INSERT INTO timeline_entries (event_type, actor) VALUES ('NOTE', %s)", (one.phone,))
    db.query(
        "UPDATE wa_account_events SET payload = payload || %s::jsonb WHERE organization_id = %s",
        json.dumps({"about": one.phone}),
        one.id,
    )
    db.query(
        "UPDATE wa_event_deliveries SET order_key = 'contact:' || %s || ':x' WHERE organization_id = %s",
        one.contact_id,
        one.id,
    )
    [row] = db.query("SELECT export_wa_contact(%s, true) AS told", one.phone, user=one.role)
    declared: dict[str, set[str]] = {}
    for column in db.query(
        "SELECT table_name, column_name FROM wa_personal_data"
        " WHERE kind NOT IN ('none', 'secret') AND treatment <> 'keep'"
    ):
        declared.setdefault(column["table_name"], set()).add(column["column_name"])
    assert declared.keys() - SECTIONS.keys() - NOT_TOLD.keys() == set()
    untold = {}
    for table, path in SECTIONS.items():
        section = row["told"]
        for name in path.split("."):
            section = section[name]
        rows = [section] if isinstance(section, dict) else section
        assert rows, f"nothing of {table} to compare"
        untold[table] = declared.get(table, set()) - rows[0].keys() - {"organization_id", "body_hash"}
    assert {table: columns for table, columns in untold.items() if columns} == {}
    assert row["told"]["lists"]
    assert row["told"]["webhooks"]
