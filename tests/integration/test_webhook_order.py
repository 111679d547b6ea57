"""Webhooks in any order, with repeats, leave the same state behind.

Tests sql/webhooks/statuses.sql.
"""

from __future__ import annotations

import json
import random
import time
from typing import Any

import psycopg
import pytest
from harness import Database
from webhook_bodies import (
    ACCOUNT_ID,
    DISPLAY_PHONE,
    NUMBER_ID,
    body,
    call,
    echo,
    failed,
    message,
    preference,
    status,
)

PERMUTATIONS = 200
BASE = int(time.time()) - 7200

# Messages that are in the ledger before any webhook: sent from the queue and accepted.
SENT = {"wamid.out1": "+16505550001", "wamid.out2": "+16505550001", "wamid.out3": "+16505550009"}

CHANGED_NUMBER = {"type": "user_changed_number", "body": "changed", "wa_id": "16505550032"}
CHANGED_USER = {
    "type": "user_changed_user_id",
    "body": "changed",
    "user_id": "US.42",
    "previous_user_id": "US.41",
}


def account_event(field: str, at: int, **parts: Any) -> bytes:
    return body(field, parts, time=at)


def bodies() -> list[bytes]:
    """What one busy afternoon brings; the times say what happened first."""
    at = BASE
    image = {"id": "1", "mime_type": "image/jpeg", "sha256": "x", "caption": "a picture"}
    ban = {"waba_ban_date": "November 1, 2026"}
    return [
        # One customer, first named differently, known by number, by user id and by both.
        message("wamid.a1", "16505550001", at + 100, content="first", name="Old name"),
        message("wamid.a2", "16505550001", at + 200, content="second", name="New name"),
        message("wamid.a3", None, at + 150, content="by user id", user_id="US.1"),
        message("wamid.a4", "16505550001", at + 160, content="by both", user_id="US.1", name="Old name"),
        message("wamid.a5", "16505550001", at + 170, "image", image),
        message("wamid.a6", "16505550001", at + 900, "reaction", {"message_id": "wamid.a1", "emoji": "x"},
                name="New name"),
        message("wamid.a7", "16505550001", at + 910, "edit", {
            "original_message_id": "wamid.a1",
            "message": {"type": "text", "text": {"body": "corrected"}},
        }, name="New name"),
        message("wamid.a8", "16505550001", at + 920, "revoke", {"original_message_id": "wamid.a2"},
                name="New name"),
        message("wamid.a9", "16505550001", at + 930, content="in a group", group_id="group-1",
                name="New name"),
        # States of messages from the queue: skipped, repeated, late, contradicting.
        status("wamid.out1", "sent", at + 10, recipient_id="16505550001", recipient_user_id="US.1"),
        status("wamid.out1", "delivered", at + 11, recipient_id="16505550001"),
        status("wamid.out1", "read", at + 12, recipient_id="16505550001"),
        failed("wamid.out2", at + 20, 131026),
        status("wamid.out2", "delivered", at + 21),
        status("wamid.out3", "sent", at + 30),
        failed("wamid.out3", at + 31, 131047),
        # An advertisement, the answer from the app on the phone, that answer's states.
        message("wamid.b1", "16505550002", at + 300, content="seen your ad", referral={"source_type": "ad"}),
        message("wamid.b2", "16505550002", at + 320, content="hello?"),
        echo("wamid.b3", "16505550002", at + 310, content="welcome"),
        echo("wamid.b4", "16505550002", at + 315, "revoke", {"original_message_id": "wamid.b3"}),
        status("wamid.b3", "delivered", at + 311),
        status("wamid.b3", "read", at + 312),
        call("wacid.b5", "16505550002", at + 400, "connect"),
        call("wacid.b5", "16505550002", at + 450, "terminate", duration=50, status="COMPLETED"),
        # Words and switches of consent.
        message("wamid.c1", "16505550010", at + 100, content="Stop."),
        message("wamid.c2", "16505550010", at + 200, content="start"),
        message("wamid.c3", "16505550011", at + 100, content="START"),
        message("wamid.c4", "16505550011", at + 200, content="unsubscribe"),
        preference("16505550012", at + 100, "stop"),
        preference("16505550012", at + 200, "resume"),
        preference("16505550013", at + 100, "resume"),
        preference("16505550013", at + 200, "stop"),
        # A new number, and a new user id.
        message("wamid.d1", "16505550031", at + 100, content="from the old number"),
        message("wamid.d2", "16505550031", at + 200, "system", CHANGED_NUMBER),
        message("wamid.d3", "16505550032", at + 300, content="from the new number"),
        message("wamid.e1", "16505550041", at + 100, content="old id", user_id="US.41"),
        message("wamid.e2", "16505550041", at + 200, "system", CHANGED_USER),
        message("wamid.e3", "16505550041", at + 300, content="new id", user_id="US.42"),
        # The account, its number and its template.
        account_event("phone_number_quality_update", at + 10, display_phone_number=DISPLAY_PHONE,
                      event="ONBOARDING", max_daily_conversations_per_business="TIER_250"),
        account_event("phone_number_quality_update", at + 20, display_phone_number=DISPLAY_PHONE,
                      event="UPGRADE", max_daily_conversations_per_business="TIER_2K"),
        account_event("account_update", at + 10, event="DISABLED_UPDATE",
                      ban_info={**ban, "waba_ban_state": "DISABLE"}),
        account_event("account_update", at + 20, event="DISABLED_UPDATE",
                      ban_info={**ban, "waba_ban_state": "REINSTATE"}),
        account_event("message_template_status_update", at + 10, event="PAUSED", message_template_id=7,
                      message_template_name="greeting", message_template_language="en", reason=None),
        account_event("message_template_status_update", at + 20, event="APPROVED", message_template_id=7,
                      message_template_name="greeting", message_template_language="en", reason="NONE"),
    ]  # fmt: skip


PROJECTION = """
    SELECT 'message' AS what, m.wa_message_id AS name, jsonb_build_object(
        'direction', m.direction, 'type', m.message_type, 'text', m.content_text, 'content', m.content,
        'status', m.status, 'state', m.state, 'at', m.provider_at, 'sent', m.sent_at,
        'delivered', m.delivered_at,
        'read', m.read_at, 'failed', m.failed_at, 'edited', m.edited_at, 'deleted', m.deleted_at,
        'error', m.error_code, 'phone', m.phone_e164, 'user_id', m.user_id, 'contact', c.phone_e164) AS facts
    FROM wa_messages m LEFT JOIN wa_contacts c ON c.id = m.contact_id
    UNION ALL
    SELECT 'contact', coalesce(c.phone_e164, c.user_id), jsonb_build_object(
        'user_id', c.user_id, 'name', c.profile_name,
        'identities', (
            SELECT jsonb_agg(jsonb_build_array(i.kind, i.value, i.is_current) ORDER BY i.kind, i.value)
            FROM wa_contact_identities i WHERE i.contact_id = c.id))
    FROM wa_contacts c
    UNION ALL
    SELECT 'conversation', c.phone_e164, jsonb_build_object(
        'customer', c.last_customer_message_at, 'business', c.last_business_message_at, 'user_id', c.user_id,
        'free', c.entry_point_expires_at, 'unread', c.unread_count, 'open', c.is_within_24h)
    FROM wa_conversations c
    UNION ALL
    SELECT 'status', s.wa_message_id || ' ' || s.status, jsonb_build_object(
        'at', s.occurred_at, 'attached', s.message_id IS NOT NULL, 'error', s.error_code)
    FROM wa_message_statuses s
    UNION ALL
    SELECT 'opt-out', c.phone_e164, jsonb_build_object('scope', o.scope)
    FROM wa_opt_outs o JOIN wa_contacts c ON c.id = o.contact_id WHERE o.revoked_at IS NULL
    UNION ALL
    SELECT 'account event', e.dedupe_key, jsonb_build_object('field', e.field, 'at', e.occurred_at)
    FROM wa_account_events e
    UNION ALL
    SELECT 'number', n.phone_number_id,
        jsonb_build_object('paused', n.pause_scope, 'limit', p.messaging_limit)
    FROM wa_phone_numbers n JOIN wa_portfolios p USING (organization_id, portfolio_id)
    UNION ALL
    SELECT 'template', t.name, jsonb_build_object('status', t.status) FROM wa_templates t
    UNION ALL
    SELECT 'event', m.wa_message_id,
        jsonb_build_object('messages', count(*) FILTER (WHERE e.kind = 'message'))
    FROM wa_events e JOIN wa_messages m ON m.id = e.message_id GROUP BY m.wa_message_id
    ORDER BY 1, 2, 3
"""


def prepare(connection: psycopg.Connection[Any]) -> None:
    """A number, a template and messages that were sent."""
    connection.execute("SELECT register_wa_phone_number(%s, %s, %s)", (NUMBER_ID, DISPLAY_PHONE, ACCOUNT_ID))
    connection.execute(
        "INSERT INTO wa_templates"
        " (name, language, category, body_text, provider_template_id, waba_id, status)"
        " VALUES ('greeting', 'en', 'UTILITY', 'Hello', '7', %s, 'APPROVED')",
        (ACCOUNT_ID,),
    )
    for wamid, phone in SENT.items():
        connection.execute(
            "INSERT INTO wa_messages (direction, message_type, status, state, wa_message_id, contact_id,"
            " number_id, phone_e164, sent_at)"
            " SELECT 'outbound', 'text', 'sent', 'accepted', %s, r.contact_id, n.id, %s, to_timestamp(%s)"
            " FROM wa_phone_numbers n, _wa_resolve_contacts(n.organization_id, ARRAY[%s], NULL, 'queue') r",
            (wamid, phone, BASE + 5, phone),
        )


def outcome(connection: psycopg.Connection[Any], posts: list[bytes], chance: random.Random) -> list[str]:
    """Take the posts in, process them in pieces of chance, and describe the state without ids of ours."""
    at = 0
    while at < len(posts):
        piece = posts[at : at + chance.choice((1, 3, 8, 40))]
        at += len(piece)
        connection.execute("SELECT ingest_wa_webhooks(%s::bytea[], NULL)", (piece,))
        connection.execute("SELECT process_wa_webhooks()")
    errors = connection.execute("SELECT kind, error FROM wa_webhook_errors").fetchall()
    assert errors == []
    rows = connection.execute(PROJECTION).fetchall()
    return [f"{what} {name} {json.dumps(facts, sort_keys=True)}" for what, name, facts in rows]


@pytest.mark.slow
def test_any_order_and_repeats_leave_the_same_state(db: Database) -> None:
    posts = bodies()
    with db.connect() as connection:
        prepare(connection)
        expected: list[str] = []
        for seed in range(PERMUTATIONS):
            chance = random.Random(seed)  # noqa: S311 - the same orders in every run
            shuffled = posts + chance.sample(posts, 8)
            if seed:
                chance.shuffle(shuffled)
            with connection.transaction(force_rollback=True):
                found = outcome(connection, shuffled, chance)
            if not expected:
                expected = found
            different = sorted(set(expected) ^ set(found))
            assert not different, f"permutation {seed} differs:\n" + "\n".join(different)


@pytest.fixture
def afternoon(db: Database) -> Database:
    """All of it, in the order in which it happened."""
    with db.connect() as connection:
        prepare(connection)
        outcome(connection, bodies(), random.Random(0))  # noqa: S311
    return db


def test_what_the_afternoon_leaves(afternoon: Database) -> None:
    """The common state is the right one."""
    states = {row["wa_message_id"]: row for row in afternoon.query("SELECT * FROM wa_messages")}
    assert (states["wamid.out1"]["state"], states["wamid.out1"]["status"]) == ("read", "sent")
    assert (states["wamid.out2"]["state"], states["wamid.out2"]["error_code"]) == ("delivered", None)
    assert (states["wamid.out3"]["state"], states["wamid.out3"]["error_code"]) == ("failed", 131047)
    assert states["wamid.a1"]["edited_at"].timestamp() == BASE + 910
    assert states["wamid.a2"]["deleted_at"].timestamp() == BASE + 920
    assert (states["wamid.b3"]["is_echo"], states["wamid.b3"]["state"]) == (True, "read")
    contacts = {row["phone_e164"]: row for row in afternoon.query("SELECT * FROM wa_contacts")}
    assert contacts["+16505550001"]["user_id"] == "US.1"
    assert contacts["+16505550001"]["profile_name"] == "New name"
    assert contacts["+16505550041"]["user_id"] == "US.42"
    assert "+16505550031" not in contacts
    conversations = {row["phone_e164"]: row for row in afternoon.query("SELECT * FROM wa_conversations")}
    # The reaction, the edit, the deletion and the group message came later and opened nothing.
    assert conversations["+16505550001"]["last_customer_message_at"].timestamp() == BASE + 200
    assert conversations["+16505550002"]["last_customer_message_at"].timestamp() == BASE + 400
    assert conversations["+16505550002"]["entry_point_expires_at"].timestamp() == BASE + 310 + 72 * 3600
    assert conversations["+16505550002"]["unread_count"] == 2
    opted_out = afternoon.query(
        "SELECT c.phone_e164, o.scope FROM wa_opt_outs o JOIN wa_contacts c ON c.id = o.contact_id"
        " WHERE o.revoked_at IS NULL ORDER BY 1, 2"
    )
    assert [tuple(row.values()) for row in opted_out] == [
        ("+16505550011", "marketing"),
        ("+16505550011", "utility"),
        ("+16505550013", "marketing"),
    ]
    (number,) = afternoon.query(
        "SELECT pause_scope, tier_limit FROM wa_phone_numbers JOIN wa_portfolios USING (portfolio_id)"
    )
    assert (number["pause_scope"], number["tier_limit"]) == (None, 2000)
