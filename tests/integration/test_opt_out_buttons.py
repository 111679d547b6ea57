"""Customers who refuse messages by a button or by a word: what opts out, of what, and what does not.

Tests sql/consent/keywords.sql.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from harness import Database
from webhook_bodies import ACCOUNT_ID, DISPLAY_PHONE, NUMBER_ID, body, failed, message, value

NOW = int(time.time()) - 600
CUSTOMER = "16505550001"
TEMPLATES = {"wamid.sale": "MARKETING", "wamid.visit": "UTILITY"}


@pytest.fixture
def number(db: Database) -> Database:
    """A database with one number, from which a customer got an offer and a reminder."""
    db.query("SELECT register_wa_phone_number(%s, %s, %s)", NUMBER_ID, DISPLAY_PHONE, ACCOUNT_ID)
    for wamid, category in TEMPLATES.items():
        db.query(
            "INSERT INTO wa_messages (direction, message_type, template_name, template_category, status,"
            " state, wa_message_id, contact_id, number_id, phone_number_id, sent_at)"
            " SELECT 'outbound', 'template', lower(%s), %s, 'sent', 'delivered', %s, r.contact_id, n.id,"
            " n.phone_number_id, now()"
            " FROM wa_phone_numbers n,"
            " _wa_resolve_contacts(n.organization_id, ARRAY['+' || %s], NULL, 'queue') r",
            category,
            category,
            wamid,
            CUSTOMER,
        )
    return db


def take_in(db: Database, *posts: bytes) -> None:
    db.query("SELECT ingest_wa_webhooks(%s::bytea[], NULL)", list(posts))
    db.query("SELECT process_wa_webhooks()")


def quick_reply(
    text: str,
    payload: str | None = None,
    answers: str | None = "wamid.sale",
    wamid: str = "wamid.r",
    at: int = NOW,
) -> bytes:
    """The quick reply of a template; Meta sends its label where no payload was given; context may lack."""
    context = {} if answers is None else {"context": {"from": DISPLAY_PHONE, "id": answers}}
    content = {"text": text, "payload": text if payload is None else payload}
    return message(wamid, CUSTOMER, at, "button", content, **context)


def reply(kind: str, identifier: str, title: str) -> bytes:
    """An answer to a question with buttons or a list."""
    content = {"type": kind, kind: {"id": identifier, "title": title}}
    return message("wamid.r", CUSTOMER, NOW, "interactive", content, context={"id": "wamid.question"})


def flow_reply(words: str) -> bytes:
    content = {"type": "nfm_reply", "nfm_reply": {"body": words}}
    return message("wamid.r", CUSTOMER, NOW, "interactive", content)


def text(words: str, wamid: str = "wamid.r", at: int = NOW, **extra: Any) -> bytes:
    return message(wamid, CUSTOMER, at, content=words, **extra)


def refused(db: Database) -> list[str]:
    """The scopes in force of the one customer."""
    rows = db.query("SELECT scope FROM wa_opt_outs WHERE revoked_at IS NULL ORDER BY scope")
    return [row["scope"] for row in rows]


# What STOP covers where an organization has not said otherwise: all but authentication.
ALL_BUT_CODES = ["marketing", "utility"]

CASES = [
    # Under an offer STOP means offers; under anything else, or who knows what, it is taken at its word.
    (quick_reply("Stop"), ["marketing"]),
    (quick_reply("Stop", answers="wamid.visit"), ALL_BUT_CODES),
    (quick_reply("Stop", answers=None), ALL_BUT_CODES),
    (quick_reply("Stop", answers="wamid.unknown"), ALL_BUT_CODES),
    (quick_reply("Stop promotions", answers=None), ["marketing"]),
    (quick_reply("Unsubscribe", answers="wamid.visit"), ALL_BUT_CODES),
    (quick_reply("Baja"), ["marketing"]),
    # The payload speaks where the label does not, in any case.
    (quick_reply("No, thanks", "stop"), ["marketing"]),
    (quick_reply("Keine Angebote", "STOP_PROMOTIONS", None), ["marketing"]),
    (quick_reply("Stop", "STOP_42"), ["marketing"]),
    (quick_reply("Stop promotions", "STOP", "wamid.visit"), ["marketing"]),
    # CANCEL answers the question of a reminder, but not that of an offer.
    (quick_reply("Cancel", answers="wamid.visit"), []),
    (quick_reply("Cancel appointment", "CANCEL", "wamid.visit"), []),
    (quick_reply("Cancel"), ["marketing"]),
    (quick_reply("Go on", "quit", None), ["marketing"]),
    (quick_reply("Not interested"), []),
    (quick_reply("Yes"), []),
    # Buttons and lists of a conversation.
    (reply("button_reply", "b1", "Unsubscribe"), ["marketing"]),
    (reply("button_reply", "b1", "Stop promotions"), ["marketing"]),
    (reply("button_reply", "unsubscribe", "Keine Angebote mehr"), ["marketing"]),
    (reply("list_reply", "r1", "Stop"), ["marketing"]),
    (reply("list_reply", "OPT_OUT", "Leave the list"), ["marketing"]),
    (reply("button_reply", "cancel", "Cancel"), []),
    (reply("list_reply", "END", "End of the month"), []),
    (flow_reply("Stop"), []),
    # Typed.
    (text("Stop promotions"), ["marketing"]),
    (text("STOP"), ALL_BUT_CODES),
    (text("cancel"), ALL_BUT_CODES),
    (text("opt-out"), ALL_BUT_CODES),
    # In a group somebody speaks to others.
    (text("STOP", group_id="G1"), []),
    (message("wamid.r", CUSTOMER, NOW, "button", {"text": "Stop", "payload": "Stop"}, group_id="G1"), []),
]


def test_what_a_button_or_a_word_refuses(number: Database) -> None:
    """Each case by a customer of its own, told twice at once and once more later: no second row, ever."""
    customers = [f"1650556{n:04}" for n in range(len(CASES))]
    posts = [
        post.replace(CUSTOMER.encode(), customer.encode()).replace(b"wamid.r", f"wamid.r{customer}".encode())
        for (post, _), customer in zip(CASES, customers, strict=True)
    ]
    take_in(number, *posts, *posts)
    take_in(number, *posts)
    rows = number.query("SELECT phone_number, scope FROM wa_opt_outs WHERE revoked_at IS NULL")
    given = {
        customer: [r["scope"] for r in rows if r["phone_number"] == "+" + customer] for customer in customers
    }
    given = {customer: sorted(scopes) for customer, scopes in given.items()}
    assert given == {customer: scopes for (_, scopes), customer in zip(CASES, customers, strict=True)}


def test_a_pressed_stop_cancels_offers_and_leaves_the_rest(number: Database) -> None:
    take_in(number, text("Hello", "wamid.1", int(time.time())))
    number.query(
        "INSERT INTO wa_templates (name, category, body_text, status) VALUES"
        " ('sale', 'MARKETING', 'Sale', 'APPROVED'), ('receipt', 'UTILITY', 'Receipt', 'APPROVED')"
    )
    number.query(
        "INSERT INTO wa_outbound_queue (phone, template_name, text_body) VALUES"
        " ('+16505550001', 'sale', NULL), ('+16505550001', 'receipt', NULL), ('+16505550001', NULL, 'Bye')"
    )
    take_in(number, quick_reply("Stop"))
    rows = number.query(
        "SELECT template_name, text_body, status, error_code FROM wa_outbound_queue"
        " ORDER BY created_at, template_name DESC"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("sale", None, "cancelled", "opted_out"),
        ("receipt", None, "pending", None),
        (None, "Bye", "pending", None),
        # Its window is open: it had said hello.
        (None, "You will get no more offers from us. Write START to get them again.", "pending", None),
    ]
    (row,) = number.query("SELECT source, reason FROM wa_opt_outs")
    assert row == {"source": "button", "reason": "the customer pressed a button that opts out"}


def test_the_last_word_counts_whether_typed_or_pressed(number: Database) -> None:
    take_in(number, quick_reply("Stop", wamid="wamid.1", at=NOW))
    # A button takes nothing back, a typed START does.
    take_in(number, quick_reply("Start", answers=None, wamid="wamid.2", at=NOW + 1))
    assert refused(number) == ["marketing"]
    take_in(number, text("start", "wamid.3", NOW + 2))
    assert refused(number) == []
    # Both told late: what was said before START stays taken back, and START takes nothing later back.
    take_in(number, quick_reply("Stop", wamid="wamid.4", at=NOW + 1))
    assert refused(number) == []
    take_in(number, quick_reply("Stop promotions", wamid="wamid.5", at=NOW + 9))
    take_in(number, text("START", "wamid.6", NOW + 8))
    assert refused(number) == ["marketing"]


def test_two_refusals_in_one_batch_are_both_kept(number: Database) -> None:
    take_in(
        number,
        text("STOP", "wamid.1", NOW),
        quick_reply("Stop promotions", wamid="wamid.2", at=NOW + 1),
        text("START", "wamid.0", NOW - 1),
    )
    assert refused(number) == ALL_BUT_CODES
    # The wider one alone is confirmed, would its window be open: the other is part of it.
    (row,) = number.query("SELECT count(*) AS n FROM wa_consent_events WHERE event = 'opt_out'")
    assert row == {"n": 2}


def test_a_message_in_a_group_opens_no_window_and_is_kept_with_its_group(number: Database) -> None:
    now = int(time.time())
    take_in(number, text("Hello, all", "wamid.1", now, group_id="G1", referral={"source_type": "ad"}))
    (row,) = number.query("SELECT group_id, content_text FROM wa_messages WHERE direction = 'inbound'")
    assert row == {"group_id": "G1", "content_text": "Hello, all"}
    # What the business says there goes to no customer, nor do lessons of its failures.
    ours = {"from": DISPLAY_PHONE, "group_id": "G1", "id": "wamid.2", "timestamp": str(now), "type": "text"}
    ours |= {"text": {"body": "Welcome"}}
    member = {"recipient_type": "group", "recipient_id": "G1", "recipient_participant_id": CUSTOMER}
    take_in(
        number,
        body("smb_message_echoes", value(message_echoes=[ours])),
        failed("wamid.2", now, 131050, **member),
        failed("wamid.2", now, 131047, **member, recipient_participant_user_id="US.1"),
    )
    assert number.query("SELECT error FROM wa_webhook_errors") == []
    assert number.query("SELECT 1 FROM wa_messages WHERE wa_message_id = 'wamid.2' AND group_id = 'G1'")
    assert refused(number) == []
    assert number.query("SELECT can_send_freeform_wa('+16505550001') AS open") == [{"open": False}]
    assert number.query("SELECT 1 FROM wa_conversations") == []
