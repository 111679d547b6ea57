"""Webhooks from the raw body to the tables: what is kept, what fails alone, what follows at once.

Tests sql/webhooks/atoms.sql, sql/webhooks/store.sql, sql/webhooks/messages.sql, sql/webhooks/calls.sql,
sql/webhooks/account_events.sql, sql/webhooks/account_rules.sql, sql/numbers/account.sql,
sql/numbers/last_webhook.sql, sql/contacts/profiles.sql.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import CHECKOUT, Database
from webhook_bodies import ACCOUNT_ID, DISPLAY_PHONE, NUMBER_ID, body, call, failed, message, status, value

NOW = int(time.time()) - 600
SAMPLES = CHECKOUT.parent / "shared/samples/webhooks"


def take_in(db: Database, *posts: bytes) -> list[int]:
    """Store posts and process them; their ids."""
    with db.connect() as connection:
        row = connection.execute("SELECT ingest_wa_webhooks(%s::bytea[], NULL)", (list(posts),)).fetchone()
        assert row is not None
        connection.execute("SELECT process_wa_webhooks()")
        ids: list[int] = row[0]
        return ids


def sent(db: Database, wamid: str, phone: str = "+16505550001") -> None:
    """A message in the ledger that the provider accepted."""
    db.query(
        "INSERT INTO wa_messages"
        " (direction, message_type, status, state, wa_message_id, contact_id, number_id, phone_number_id,"
        " sent_at)"
        " SELECT 'outbound', 'text', 'sent', 'accepted', %s, r.contact_id, n.id, n.phone_number_id, now()"
        " FROM wa_phone_numbers n, _wa_resolve_contacts(n.organization_id, ARRAY[%s], NULL, 'queue') r",
        wamid,
        phone,
    )


@pytest.fixture
def number(db: Database) -> Database:
    """A database with one business number."""
    db.query("SELECT register_wa_phone_number(%s, %s, %s)", NUMBER_ID, DISPLAY_PHONE, ACCOUNT_ID)
    return db


def one(db: Database, statement: str, *args: Any) -> dict[str, Any]:
    (row,) = db.query(statement, *args)
    return row


def test_one_bad_atom_harms_no_other(number: Database) -> None:
    atoms = [
        {
            "from": "16505550001",
            "id": "wamid.good",
            "timestamp": str(NOW),
            "type": "text",
            "text": {"body": "a\0b"},
        },
        {"from": "16505550001", "timestamp": str(NOW), "type": "text", "text": {"body": "no id"}},
        "not even an object",
        {
            "from": "16505550002",
            "id": "wamid.also",
            "timestamp": str(NOW),
            "type": "text",
            "text": {"body": "ok"},
        },
    ]
    (log_id,) = take_in(number, body("messages", value(messages=atoms)))
    rows = number.query("SELECT wa_message_id, content_text FROM wa_messages ORDER BY id")
    assert [tuple(row.values()) for row in rows] == [("wamid.good", "a\ufffdb"), ("wamid.also", "ok")]
    log = one(number, "SELECT status, atoms, failed_atoms FROM wa_webhook_logs WHERE id = %s", log_id)
    assert log == {"status": "partial", "atoms": 4, "failed_atoms": 2}
    errors = number.query("SELECT error FROM wa_webhook_errors ORDER BY atom")
    assert {row["error"] for row in errors} == {"the message has no id", "the atom is not an object"}


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"[1, 2", b"[]", b'{"entry": 3}', b'{"entry": [{}]}'])
def test_garbage_is_kept_and_stops_nothing(number: Database, garbage: bytes) -> None:
    log_id, _ = take_in(number, garbage, message("wamid.1", "16505550001", NOW, content="Hello"))
    log = one(number, "SELECT status, body FROM wa_webhook_logs WHERE id = %s", log_id)
    assert (log["status"], bytes(log["body"])) == ("failed", garbage)
    assert one(number, "SELECT content_text FROM wa_messages")["content_text"] == "Hello"


def test_a_number_registered_later_gets_what_was_kept(number: Database) -> None:
    take_in(number, message("wamid.1", "16505550001", NOW, content="too early", number="999"))
    error = one(number, "SELECT sqlstate, error FROM wa_webhook_errors")
    assert error == {"sqlstate": "WA010", "error": "the business number is not registered"}
    number.query("SELECT register_wa_phone_number('999', '15550783999', %s)", ACCOUNT_ID)
    assert one(number, "SELECT replay_wa_webhooks() AS n")["n"] == 1
    assert one(number, "SELECT content_text FROM wa_messages")["content_text"] == "too early"
    assert one(number, "SELECT status FROM wa_webhook_logs")["status"] == "processed"
    assert one(number, "SELECT resolved_at IS NOT NULL AS done FROM wa_webhook_errors")["done"]
    assert one(number, "SELECT replay_wa_webhooks() AS n")["n"] == 0


def test_a_replay_changes_nothing_twice(number: Database) -> None:
    sent(number, "wamid.out")
    ids = take_in(
        number,
        message("wamid.1", "16505550001", NOW, content="Hello"),
        status("wamid.out", "delivered", NOW),
        call("wacid.1", "16505550001", NOW, "connect"),
    )
    count = (
        "SELECT (SELECT count(*) FROM wa_messages) AS messages, (SELECT count(*) FROM wa_events) AS events,"
    )
    count += " (SELECT sum(unread_count) FROM wa_conversations) AS unread"
    before = one(number, count)
    assert one(number, "SELECT replay_wa_webhooks(%s) AS n", ids)["n"] == 3
    assert one(number, count) == before


def test_a_status_before_its_message_waits_for_it(number: Database) -> None:
    take_in(number, status("wamid.out", "read", NOW), status("wamid.out", "delivered", NOW - 1))
    sent(number, "wamid.out")
    # The next processing finds them, even where nothing else has come.
    take_in(number)
    row = one(number, "SELECT state, delivered_at, read_at FROM wa_messages")
    assert (row["state"], row["read_at"].timestamp()) == ("read", NOW)
    assert row["delivered_at"].timestamp() == NOW - 1


def test_a_status_settles_a_message_whose_answer_was_lost(number: Database) -> None:
    number.query("SELECT update_wa_conversation('+16505550001', 'test', false)")
    take_in(number, message("wamid.1", "16505550001", int(time.time()), content="Hello"))
    queued = one(
        number, "INSERT INTO wa_outbound_queue (phone, text_body) VALUES ('+16505550001', 'Hi') RETURNING id"
    )["id"]
    number.query(
        "WITH due AS (DELETE FROM wa_queue_due RETURNING *)"
        " INSERT INTO wa_queue_inflight (organization_id, queue_id, attempt, number_id, contact_id, class,"
        " dispatcher_id, claimed_at, is_unknown, is_within_24h, deadline_at)"
        " SELECT organization_id, queue_id, 1, number_id, contact_id, class, gen_random_uuid(), now(), true,"
        " true, now() + interval '1 hour' FROM due"
    )
    number.query("UPDATE wa_outbound_queue SET status = 'sending', attempt = 1, change_no = change_no + 1")
    take_in(number, status("wamid.lost", "delivered", NOW, biz_opaque_callback_data=f"q:{queued}:1"))
    row = one(number, "SELECT status, wa_message_id FROM wa_outbound_queue")
    assert row == {"status": "sent", "wa_message_id": "wamid.lost"}
    assert one(number, "SELECT state FROM wa_messages WHERE queue_id = %s", queued)["state"] == "delivered"


def test_stop_cancels_what_is_queued_in_the_same_transaction(number: Database) -> None:
    take_in(number, message("wamid.1", "16505550001", int(time.time()), content="Hello"))
    number.query("INSERT INTO wa_outbound_queue (phone, text_body) VALUES ('+16505550001', 'An offer')")
    take_in(number, message("wamid.2", "16505550001", NOW, content="stop it, please"))
    assert one(number, "SELECT status FROM wa_outbound_queue")["status"] == "pending"
    take_in(number, message("wamid.3", "16505550001", NOW, content=" stop! "))
    rows = number.query("SELECT status, error_code FROM wa_outbound_queue ORDER BY id")
    assert rows[0] == {"status": "cancelled", "error_code": "opted_out"}
    # That it was heeded is said, once.
    assert rows[1:] == [{"status": "pending", "error_code": None}]


@pytest.mark.parametrize(
    ("kind", "content", "opens"),
    [
        ("text", "Hello", True),
        ("image", {"id": "1", "mime_type": "image/png", "sha256": "x"}, True),
        ("location", {"latitude": 1.5, "longitude": 2}, True),
        ("contacts", [{"name": {"formatted_name": "A"}}], True),
        ("interactive", {"type": "button_reply", "button_reply": {"id": "1", "title": "Yes"}}, True),
        ("order", {"catalog_id": "1", "product_items": []}, True),
        ("unsupported", None, True),
        ("not_known_yet", {"any": "thing"}, True),
        ("reaction", {"message_id": "wamid.0", "emoji": "x"}, False),
        ("system", {"type": "customer_identity_changed", "body": "x"}, False),
        ("request_welcome", None, False),
    ],
)
def test_every_type_is_stored_and_some_open_the_window(
    number: Database, kind: str, content: Any, opens: bool
) -> None:
    take_in(number, message("wamid.1", "16505550001", NOW, kind, content))
    row = one(number, "SELECT message_type, content FROM wa_messages")
    assert row["message_type"] == kind
    assert row["content"] == ({"body": content} if isinstance(content, str) else content or {})
    assert one(number, "SELECT can_send_freeform_wa('+16505550001') AS open")["open"] is opens


def test_a_clock_that_runs_ahead_lengthens_no_window(number: Database) -> None:
    take_in(number, message("wamid.1", "16505550001", int(time.time()) + 86400, content="Hello"))
    assert one(number, "SELECT last_customer_message_at <= now() AS past FROM wa_conversations")["past"]


def test_a_failed_status_teaches(number: Database) -> None:
    """131047: the window is closed. 131050: no marketing is wanted. 131031: the account is locked."""
    sent(number, "wamid.out")
    take_in(number, message("wamid.1", "16505550001", NOW - 60, content="Hello"))
    take_in(number, failed("wamid.out", NOW, 131047))
    assert not one(number, "SELECT can_send_freeform_wa('+16505550001') AS open")["open"]
    sent(number, "wamid.out2")
    take_in(number, failed("wamid.out2", NOW, 131050))
    assert one(number, "SELECT scope FROM wa_opt_outs WHERE revoked_at IS NULL")["scope"] == "marketing"
    sent(number, "wamid.out3")
    take_in(number, failed("wamid.out3", NOW, 131031))
    assert one(number, "SELECT pause_scope FROM wa_phone_numbers")["pause_scope"] == "account"


def test_a_failed_status_stops_a_template_in_the_account_that_sent_it(number: Database) -> None:
    """132015: the template is paused. The same name in another account is another template."""
    sent(number, "wamid.out")
    number.query("SELECT register_wa_phone_number('999', '15550783999', 'another-account')")
    for account in (ACCOUNT_ID, "another-account"):
        number.query(
            "INSERT INTO wa_templates (waba_id, name, language, category, status, body_text)"
            " VALUES (%s, 'sale', 'en', 'MARKETING', 'APPROVED', 'Sale')",
            account,
        )
    number.query("UPDATE wa_messages SET template_name = 'sale', template_language = 'en'")
    take_in(number, failed("wamid.out", NOW, 132015))
    stopped = number.query("SELECT waba_id, blocked_reason FROM wa_templates WHERE blocked_until > now()")
    assert stopped == [{"waba_id": ACCOUNT_ID, "blocked_reason": "Template paused (code 132015)"}]


def test_one_order_whatever_the_bodies_say(number: Database) -> None:
    text = {"from": "16505550001", "id": "wamid.1", "type": "text", "text": {"body": "Hello"}}
    edit = {"from": "16505550001", "id": "wamid.2", "type": "edit"}
    told = {"id": "wamid.out", "status": "sent"}
    ids = take_in(
        number,
        body("messages", value(errors=[{"code": 1}], statuses=[told], messages=[edit])),
        body("messages", value(messages=[text])),
    )
    atoms = number.query(
        "SELECT log_id, kind, payload ->> 'id' AS id FROM unnest(_wa_read_atoms(%s::bigint[]))", ids
    )
    assert [tuple(atom.values()) for atom in atoms] == [
        (ids[1], "message", "wamid.1"),
        (ids[0], "message", "wamid.2"),
        (ids[0], "status", "wamid.out"),
        (ids[0], "errors", None),
    ]


def test_the_words_of_an_edited_message_are_kept_whatever_it_is(number: Database) -> None:
    edited = {
        "text": {"body": "corrected text"},
        "image": {"id": "1", "mime_type": "image/jpeg", "sha256": "x", "caption": "corrected image"},
        "video": {"id": "2", "mime_type": "video/mp4", "sha256": "x", "caption": "corrected video"},
        "document": {
            "id": "3", "mime_type": "application/pdf", "sha256": "x", "filename": "a.pdf",
            "caption": "corrected document",
        },
    }  # fmt: skip
    for kind, content in edited.items():
        first = content if kind == "text" else {**content, "caption": "first"}
        take_in(number, message(f"wamid.{kind}", "16505550001", NOW - 60, kind, first))
        change = {"original_message_id": f"wamid.{kind}", "message": {"type": kind, kind: content}}
        take_in(number, message(f"wamid.{kind}.edit", "16505550001", NOW, "edit", change))
    found = number.query(
        "SELECT e.content_text AS words, o.edited_at IS NOT NULL AS is_edited FROM wa_messages e"
        " JOIN wa_messages o ON o.wa_message_id = e.reply_to WHERE e.message_type = 'edit' ORDER BY e.id"
    )
    assert found == [{"words": f"corrected {kind}", "is_edited": True} for kind in edited]


def test_errors_and_unknown_fields_are_kept(number: Database) -> None:
    take_in(
        number,
        body("messages", value(errors=[{"code": 130429, "title": "Rate limit hit"}])),
        body("a_field_of_tomorrow", {"what": "ever"}, time=NOW),
    )
    events = number.query("SELECT field, event FROM wa_account_events ORDER BY field")
    assert [tuple(row.values()) for row in events] == [
        ("a_field_of_tomorrow", None),
        ("messages", "error 130429"),
    ]


def test_account_events_change_the_number(number: Database) -> None:
    restriction = {"restriction_type": "RESTRICTED_BIZ_INITIATED_MESSAGING", "expiration": str(NOW + 7200)}
    phone = {"display_phone_number": DISPLAY_PHONE}
    take_in(
        number,
        body("account_update", {"event": "ACCOUNT_RESTRICTION", "restriction_info": [restriction]}, time=NOW),
        body("business_capability_update", {"max_daily_conversations_per_business": 2000}, time=NOW),
        body("phone_number_name_update",
             {**phone, "decision": "APPROVED", "requested_verified_name": "Shop"}, time=NOW),
        body("business_username_update", {**phone, "username": "shop", "status": "approved"}, time=NOW),
        body("account_review_update", {"decision": "REJECTED"}, time=NOW),
        body("security", {**phone, "event": "PIN_CHANGED"}, time=NOW),
    )  # fmt: skip
    row = one(
        number, "SELECT * FROM wa_phone_numbers JOIN wa_portfolios USING (organization_id, portfolio_id)"
    )
    assert row["templates_blocked_until"].timestamp() == NOW + 7200
    assert (row["replies_blocked_until"], row["tier_limit"]) == (None, 2000)
    assert (row["verified_name"], row["username"], row["pause_scope"]) == ("Shop", "shop", "account")
    take_in(number, body("account_review_update", {"decision": "APPROVED"}, time=NOW + 1))
    assert one(number, "SELECT pause_scope FROM wa_phone_numbers")["pause_scope"] is None


def test_rejections_are_counted_by_source_and_minute(number: Database) -> None:
    with number.connect(autocommit=False) as connection:
        for source in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
            connection.execute("SELECT record_wa_webhook_rejection(%s, 'wrong signature')", (source,))
        connection.execute("SELECT _wa_close_audit_counts(now() + interval '2 minutes', 1000)")
        counts = connection.execute(
            "SELECT meta ->> 'source', sum((meta ->> 'count')::int) FROM audit_log"
            " WHERE event = 'webhook_rejected' GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert counts == [("192.0.2.1", 2), ("192.0.2.2", 1)]


def test_ingest_is_durable_where_commits_are_not(number: Database) -> None:
    with number.connect(autocommit=False) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SELECT ingest_wa_webhook('x')")
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        connection.commit()
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)


def test_two_transactions_that_meet_the_same_customers_make_them_once(number: Database) -> None:
    phones = [f"+1650555{n:04}" for n in range(2000)]
    resolve = (
        "SELECT r.contact_id FROM wa_organizations o,"
        " _wa_resolve_contacts(o.id, %s, NULL, 'test') r ORDER BY r.n"
    )

    def meet(order: list[str]) -> dict[str, int]:
        rows = number.query(resolve, order)
        return {phone: row["contact_id"] for phone, row in zip(order, rows, strict=True)}

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(meet, [phones, phones[::-1], phones[500:] + phones[:500], phones])
    assert all(other == first for other in others)
    assert one(number, "SELECT count(*) AS n FROM wa_contacts")["n"] == len(phones)


def test_a_late_commit_is_not_passed_by_a_reader(number: Database) -> None:
    happen = (
        "INSERT INTO wa_events (organization_id, kind, status, occurred_at) SELECT id, 'status', %s, now()"
    )
    happen += " FROM wa_organizations"
    read = "SELECT status FROM read_wa_events('crm')"
    with number.connect(autocommit=False) as slow:
        slow.execute(happen, ("slow",))
        number.query(happen, "fast")
        assert number.query(read) == [{"status": "fast"}]
        number.query("SELECT ack_wa_events('crm', 1)")
        slow.commit()
    assert number.query(read) == [{"status": "slow"}]


def test_the_receiver_has_its_functions_and_nothing_else(number: Database, make_role: Any) -> None:
    receiver = make_role("wa_receiver")
    number.query("SELECT ingest_wa_webhook(%s, '192.0.2.1')", message("wamid.1", "1650", NOW), user=receiver)
    assert number.query("SELECT process_wa_webhooks() AS n", user=receiver) == [{"n": 1}]
    for statement in (
        "SELECT FROM wa_webhook_logs",
        "SELECT FROM wa_messages",
        "SELECT replay_wa_webhooks()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            number.query(statement, user=receiver)


@pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="the samples of real webhook bodies are not beside the project"
)
def test_real_bodies_leave_a_row_for_each_atom(db: Database) -> None:
    names = sorted(path.name for path in SAMPLES.glob("*.json"))
    posts = []
    for position, name in enumerate(names):
        top = json.loads(Path(SAMPLES, name).read_bytes())
        for entry in top["entry"]:
            for change in entry["changes"]:
                metadata = change["value"].get("metadata", {})
                db.query(
                    "SELECT register_wa_phone_number(%s, %s, %s)",
                    metadata.get("phone_number_id", "of-" + entry["id"]),
                    metadata.get("display_phone_number", change["value"].get("display_phone_number", "1")),
                    entry["id"],
                )
                # The samples use one id for several messages.
                for atom in change["value"].get("messages", []) + change["value"].get("statuses", []):
                    atom["id"] += str(position)
        posts.append(json.dumps(top).encode())
    take_in(db, *posts)
    assert db.query("SELECT * FROM wa_webhook_errors") == []
    kinds = {row["message_type"]: row["n"] for row in db.query(
        "SELECT message_type, count(*) AS n FROM wa_messages GROUP BY 1")}  # fmt: skip
    assert kinds == {
        "text": 2, "audio": 1, "button": 1, "contacts": 1, "document": 1, "image": 1, "location": 1,
        "reaction": 1, "sticker": 1, "unsupported": 1, "video": 1,
    }  # fmt: skip
    assert one(db, "SELECT count(*) AS n FROM wa_message_statuses WHERE message_id IS NULL")["n"] == 4
    assert one(db, "SELECT count(*) AS n FROM wa_account_events")["n"] == 8
