"""The Python client: every method whichever way, errors alike, transactions of the caller.

Tests bin/pg_whatsapp/client/.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from client_ways import NAMES, Driven, every_way
from client_world import ANN, Ways, ways
from harness import Database, free_port
from pg_whatsapp import errors
from pg_whatsapp.client import NEVER, AsyncClient, Client, Page, Thread
from psycopg.conninfo import make_conninfo
from webhook_bodies import message

__all__ = ["ways"]
HELLO = {"template_name": "hello"}
NOBODY = UUID("00000000-0000-0000-0000-00000000dead")


def inbound(db: Database, n: int, kind: str = "text", content: Any = "Where is it?") -> None:
    body = message(f"wamid.{kind}.{n}", f"54911400000{n:02}", 1790000000 + n, kind, content, number="100")
    db.query("SELECT ingest_wa_webhook(%s)", body)
    db.query("SELECT process_wa_webhooks()")


def test_messages(ways: Ways) -> None:
    later = datetime(2100, 1, 1, 12, tzinfo=UTC)
    for name, client in ways.clients.items():
        sent = client.send_message(
            "+1 (555) 123-4567",
            **HELLO,
            scheduled_at=later,
            expires_at=NEVER,
            reference=name,
            metadata={"a": [1]},
        )
        assert isinstance(sent["id"], UUID)
        assert (sent["status"], sent["phone"], sent["reference"]) == ("pending", "+15551234567", name)
        assert (sent["scheduled_at"], sent["metadata"]) == (later, {"a": [1]})
        assert sent["created_at"].tzinfo is UTC
        shown = ways.same(lambda one, sent=sent: one.get_message(sent["id"]))
        assert (shown["queued"], shown["message"]) == (sent, None)
        assert shown["explanation"]["held_until"] == later
        cancelled = client.cancel_message(str(sent["id"]))
        assert (cancelled["status"], cancelled["id"]) == ("cancelled", sent["id"])
        assert isinstance(cancelled["processed_at"], datetime)
    assert ways.db.query("SELECT count(*) AS n FROM wa_outbound_queue") == [{"n": len(NAMES)}]


def test_never_is_what_the_database_calls_infinity(ways: Ways) -> None:
    [row] = ways.db.query(
        "INSERT INTO wa_outbound_queue (phone, template_name, expires_at)"
        " VALUES ('+15551234567', 'hello', 'infinity') RETURNING id"
    )
    assert ways.same(lambda client: client.get_message(row["id"]))["queued"]["expires_at"] == NEVER


def test_text_and_what_may_go_instead(ways: Ways) -> None:
    options = ways.same(lambda client: client.get_send_options(ANN))
    assert (options["window_closed_at"], options["last_customer_message_at"]) == (None, None)
    assert {template["name"] for template in options["templates"]} == {"code", "hello", "order", "sale"}
    ways.db.query("SELECT world.wrote(1, '25 hours')")
    options = ways.same(lambda client: client.get_send_options(ANN, "100"))
    assert options["window_closed_at"] - options["last_customer_message_at"] == timedelta(hours=24)
    ways.db.query("SELECT world.wrote(1)")
    for client in ways.clients.values():
        assert client.send_message(ANN, "Hi")["text_body"] == "Hi"


def test_batches(ways: Ways) -> None:
    batch = [
        {"phone": ANN, "template_name": "order", "template_params": ["Ann", "a box"]},
        {"phone": "nobody", "message": "x"},
        {"phone": ANN, "colour": "red"},
    ]
    for client in ways.clients.values():
        done = client.send_messages(batch)
        assert (done["queued"], done["refused"]) == (1, 2)
        assert isinstance(done["messages"][0]["id"], UUID)
        assert [m["error_sqlstate"] for m in done["messages"]] == [None, "WA001", "22023"]


def test_repetitions_return_the_same_message(ways: Ways) -> None:
    for name, client in ways.clients.items():
        first = client.send_message(ANN, **HELLO, idempotency_key=name)
        client.cancel_message(first["id"])
        again = client.send_message(ANN, **HELLO, idempotency_key=name)
        assert (again["id"], again["status"]) == (first["id"], "cancelled")
        batches = [client.send_messages([{"phone": ANN, **HELLO}], idempotency_key=f"b {name}") for _ in "ab"]
        assert batches[0] == batches[1]
        with pytest.raises(errors.ApiError) as caught:
            client.send_message(ANN, template_name="sale", idempotency_key=name)
        assert (caught.value.sqlstate, "another key" in str(caught.value.hint)) == ("WA606", True)
    assert ways.db.query("SELECT count(*) AS n FROM wa_outbound_queue") == [{"n": 2 * len(NAMES)}]


def test_conversations_by_pages_and_row_by_row(ways: Ways) -> None:
    for n in range(1, 6):
        inbound(ways.db, n)
    inbound(ways.db, 1, "location", {"latitude": 1.5, "longitude": 2})
    page = ways.same(lambda client: client.search_conversations(limit=2))
    assert isinstance(page, Page)
    assert [one["phone"] for one in page.items] == [ANN, "+5491140000005"]
    following = ways.same(lambda client: client.search_conversations(limit=2, cursor=page.next))
    assert [one["phone"] for one in following.items] == ["+5491140000004", "+5491140000003"]
    assert page.items[0]["last_message"]["type"] == "location"
    assert page.items[0]["window_expires_at"].tzinfo is UTC
    everyone = ways.same(lambda client: client.iter_conversations(limit=2))
    assert len({one["phone"] for one in everyone}) == len(everyone) == 5
    some = ways.same(
        lambda client: client.iter_conversations("where is", is_unread=True, phone_number_id="100")
    )
    assert len(some) == 5
    assert ways.same(lambda client: client.search_conversations(state="completed")).items == []
    assert ways.same(lambda client: client.search_conversations(closing_within_minutes=1)).items == []
    thread = ways.same(lambda client: client.get_conversation(ANN, limit=1))
    assert isinstance(thread, Thread)
    assert ([one["type"] for one in thread.items], len(thread.conversations)) == (["location"], 1)
    assert thread.items[0]["content"]["latitude"] == 1.5
    said = ways.same(lambda client: client.iter_messages(ANN, limit=1))
    assert [one["type"] for one in said] == ["location", "text"]
    shown = ways.same(lambda client: client.get_message(said[1]["id"]))
    assert shown["message"]["text"] == "Where is it?"


def test_reading_assigning_and_hearing_of_it(ways: Ways) -> None:
    ways.db.query("SELECT world.wrote(1)")
    ways.db.query(
        "INSERT INTO wa_messages (number_id, contact_id, wa_message_id, direction, message_type, status,"
        " state, provider_at) SELECT n.id, c.id, 'wamid.a', 'inbound', 'text', 'received', 'received', now()"
        " FROM wa_phone_numbers n, wa_contacts c WHERE n.phone_number_id = '100' AND c.phone_e164 = %s",
        ANN,
    )
    ways.db.query("UPDATE wa_conversation_windows SET unread_count = 1")
    [first, *others] = [client.mark_read(ANN, typing=True) for client in ways.clients.values()]
    assert (first["marked"], first["phone_number_id"]) == (1, "100")
    # The one that waits is the same for all.
    assert {(one["marked"], one["call_id"]) for one in others} == {(0, first["call_id"])}
    call = ways.same(lambda client: client.get_provider_call(first["call_id"]))
    assert (call["kind"], call["state"], call["created_at"].tzinfo) == ("mark_read", "pending", UTC)
    assert [r.sqlstate for r in ways.refusals(lambda client: client.get_provider_call(NOBODY))] == [
        "P0002"
    ] * 4  # type: ignore[attr-defined]

    former = [
        client.assign_conversation(ANN, f"user {n}")["former"]
        for n, client in enumerate(ways.clients.values())
    ]
    assert former == [None, "user 0", "user 1", "user 2"]
    found = ways.same(lambda client: client.search_conversations(assigned_to="user 3"))
    assert [one["assigned_to"] for one in found.items] == ["user 3"]

    events = ways.same(lambda client: client.get_events("crm", limit=3))
    assert [(one["kind"], one["assigned_to"]) for one in events["events"]] == [("conversation", "user 3")] * 3
    assert ways.same(lambda client: client.ack_events("crm", events["position"])) == events["position"]
    rest = ways.same(lambda client: client.get_events("crm"))
    assert [one["position"] for one in rest["events"]] == [events["position"] + 1]
    refused = ways.refusals(lambda client: client.ack_events("nobody", 1))
    assert [type(one) for one in refused] == [errors.InputError] * 4


def test_templates_asked_for(ways: Ways) -> None:
    [call] = ways.same(lambda client: client.request_template_sync())
    assert ways.same(lambda client: client.get_provider_call(call))["kind"] == "sync_templates"
    [call] = ways.same(lambda client: client.request_template_submission("draft", "en"))
    assert ways.same(lambda client: client.get_provider_call(call))["state"] == "pending"
    refused = ways.refusals(lambda client: client.request_template_submission("nothing"))
    assert [type(one) for one in refused] == [errors.InputError] * 4


def test_templates(ways: Ways) -> None:
    made = [
        client.create_template(
            f"new_{n}",
            "Hi {{1}}",
            category="MARKETING",
            parameters=[{"name": "who", "type": "text"}],
            idempotency_key=name,
        )
        for n, (name, client) in enumerate(ways.clients.items())
    ]
    assert {(one["category"], one["language"], one["approval_status"]) for one in made} == {
        ("MARKETING", "en", "pending")
    }
    listed = ways.same(lambda client: client.iter_templates(approval_status="pending", limit=2))
    assert [one["name"] for one in listed] == ["draft", *(one["name"] for one in made)]
    assert listed[1:] == made
    assert ways.same(lambda client: client.list_templates(name="NEW_1")).items == [made[1]]


def test_consent(ways: Ways) -> None:
    for n, client in enumerate(ways.clients.values()):
        phone = f"+549114000001{n}"
        assert client.opt_out_contact(phone, "all", reason="asked") is True
        assert client.opt_out_contact(phone, "all") is False
        consent = ways.same(lambda one, phone=phone: one.get_consent(phone))
        assert consent["is_opted_out"] is True
        assert [(one["reason"], one["source"]) for one in consent["opt_outs"]] == [("asked", "api")]
    rows = ways.same(lambda client: client.iter_opt_outs(limit=3))
    assert [one["phone"] for one in rows] == [f"+549114000001{n}" for n in (3, 2, 1, 0)]
    assert len(ways.same(lambda client: client.list_opt_outs(limit=3)).items) == 3
    for n, client in enumerate(ways.clients.values()):
        assert client.opt_in_contact(f"+549114000001{n}", "all") is True
    assert ways.same(lambda client: client.list_opt_outs()).items == []


def test_metrics(ways: Ways) -> None:
    ways.db.query("SELECT world.queue(1)")
    for client in ways.clients.values():
        metrics = client.get_metrics()
        assert (metrics["queue"]["due"], metrics["opt_outs"]) == (1, 0)
        assert metrics["at"].tzinfo is metrics["queue"]["oldest_due_at"].tzinfo is UTC


def test_phone_numbers(ways: Ways) -> None:
    def normal(*args: Any, **more: Any) -> Any:
        return ways.same(lambda client: client.normalize_phone_e164(*args, **more))

    assert normal("+1 (555) 123-4567") == "+15551234567"
    assert normal("11 4000-0001", region="AR") == normal("4000-0001", region="AR", area_code="11")
    ways.db.query("UPDATE wa_organizations SET default_region = 'AR'")
    assert normal("11 4000-0001") == normal("11 4000-0001", region="AR")
    assert ways.same(lambda client: client.try_normalize_phone_e164("invalid_number")) is None
    assert ways.same(lambda client: client.try_normalize_phone_e164(ANN)) == ANN


def test_links_to_files(ways: Ways) -> None:
    inbound(ways.db, 1, "image", {"id": "M1"})
    [file] = ways.db.query("SELECT id, message_id FROM wa_media")
    tokens = set()
    for public_url in (None, "https://shop.example"):
        ways.db.query("UPDATE wa_organizations SET public_url = %s", public_url)
        for client in ways.clients.values():
            link = client.create_media_signature(file["message_id"], max_access=2, ttl_minutes=5)
            assert link["expires_at"] - datetime.now(UTC) <= timedelta(minutes=5)
            assert link["url"] == (public_url or "") + link["path"]
            tokens |= {link["token"], client.create_media_signature(media_id=file["id"])["token"]}
    assert len(tokens) == 4 * len(NAMES)
    assert ways.db.query("SELECT max(max_access) AS n FROM wa_media_signatures") == [{"n": 2}]


# What is asked, and how each way refuses it: class and SQLSTATE.
REFUSED: list[tuple[Callable[[Driven], Any], type[errors.WaError], str]] = [
    (lambda c: c.send_message("nobody", "Hi"), errors.InputError, "WA001"),
    (lambda c: c.send_message(ANN, template_name="none"), errors.InputError, "WA002"),
    (lambda c: c.send_message(ANN, "Hi"), errors.PolicyError, "WA101"),
    (lambda c: c.send_message(ANN, template_name="draft"), errors.PolicyError, "WA103"),
    (lambda c: c.send_message(ANN, "Hi", phone_number_id="9"), errors.InputError, "WA010"),
    (lambda c: c.get_message(NOBODY), errors.InputError, "P0002"),
    (lambda c: c.get_message(7), errors.InputError, "P0002"),
    (lambda c: c.create_media_signature(99), errors.InputError, "WA031"),
    (lambda c: c.cancel_message(NOBODY), errors.InputError, "P0002"),
    (lambda c: c.get_conversation("+5491140000099"), errors.InputError, "P0002"),
    (lambda c: c.search_conversations(cursor="x"), errors.InputError, "22023"),
    (lambda c: c.create_template("hello", "Hi"), errors.InputError, "23505"),
    (lambda c: c.normalize_phone_e164("invalid_number"), errors.InputError, "22023"),
]  # fmt: skip
# Refused by the client itself, or by HTTP before the database is asked.
NONSENSE: list[Callable[[Driven], Any]] = [
    lambda c: c.send_message(ANN, **HELLO, scheduled_at=datetime(2100, 1, 1)),  # noqa: DTZ001
    lambda c: c.send_message(ANN, **HELLO, metadata={"price": float("nan")}),
    lambda c: c.send_message(ANN, **HELLO, metadata={"picture": b"x"}),
    lambda c: c.send_message(ANN, **HELLO, priority="urgent"),
    lambda c: c.send_message(ANN, "nul \0"),
    lambda c: c.send_message(ANN, **HELLO, idempotency_key="x" * 300),
    lambda c: c.send_messages([]),
    lambda c: c.search_conversations(limit=201),
    lambda c: c.iter_conversations(limit=0),
    lambda c: c.cancel_message("7"),
    lambda c: c.create_media_signature(),
    lambda c: c.create_media_signature(1, max_access=0),
    lambda c: c.search_conversations(state="gone"),
    lambda c: c.list_templates(approval_status="gone"),
    lambda c: c.opt_out_contact(ANN, "some"),
    lambda c: c.send_message(ANN, **HELLO, reference="\ud83d"),
    lambda c: c.search_conversations("\ud83d"),
]


def test_errors_are_alike(ways: Ways) -> None:
    for ask, kind, sqlstate in REFUSED:
        found = ways.refusals(ask)
        assert {type(error) for error in found} == {kind}, sqlstate
        told = {
            (error.sqlstate, str(error), error.hint)
            for error in found
            if isinstance(error, errors.DatabaseError)
        }
        assert len(told) == 1, told
        [(state, _, hint)] = told
        assert state == sqlstate
        assert hint


def test_nonsense_is_refused_alike(ways: Ways) -> None:
    for ask in NONSENSE:
        found = ways.refusals(ask)
        assert {type(error) for error in found} == {errors.InputError}, found
    assert ways.db.query("SELECT count(*) AS n FROM wa_outbound_queue") == [{"n": 0}]


def test_a_claimed_message_cannot_be_cancelled(ways: Ways) -> None:
    sent = ways.clients["sql"].send_message(ANN, **HELLO)
    ways.db.query("SELECT world.claimed()")
    found = ways.refusals(lambda client: client.cancel_message(sent["id"]))
    assert {(type(error), str(error)) for error in found} == {(errors.StateError, str(found[0]))}


def test_who_may_not(ways: Ways, make_role: Callable[..., str]) -> None:
    analyst = make_role("wa_analyst")
    ways.db.query(f"GRANT {analyst} TO {ways.api.login}")
    key = ways.api.make_key(role=analyst)
    with every_way(make_conninfo(ways.conninfo, user=analyst), ways.api.url, key) as clients:
        found = Ways(ways.api, "", clients).refusals(lambda client: client.send_message(ANN, **HELLO))
    assert {type(error) for error in found} == {errors.RightsError}
    assert {error.sqlstate for error in found if isinstance(error, errors.RightsError)} == {"42501"}
    ways.db.query("DELETE FROM wa_organization_roles")


def test_keys_that_do_not_open(ways: Ways) -> None:
    wrong = [(ways.api.make_key("read"), "WA602"), ("wa_live_wrong", "WA601")]
    for key, sqlstate in wrong:
        with Client.http(ways.api.url, key) as client, pytest.raises(errors.ApiError) as caught:
            client.send_message(ANN, template_name="hello")
        assert caught.value.sqlstate == sqlstate
    key = ways.api.make_key("read", p_requests_per_minute=1)
    with Client.http(ways.api.url, key) as client, pytest.raises(errors.LimitError) as late:
        # A minute may end between two of them.
        _ = [client.list_templates() for _ in range(3)]
    assert 0 < (late.value.retry_after_s or 0) <= 60
    assert late.value.hint


def test_nobody_answers() -> None:
    port = free_port()
    conninfo = f"host=127.0.0.1 port={port} dbname=x password=secret"
    with every_way(conninfo, f"http://127.0.0.1:{port}", "key") as clients:
        for client in clients.values():
            with pytest.raises(errors.UnavailableError) as caught:
                client.get_metrics()
            assert "secret" not in str(caught.value)
    for kind in (Client, AsyncClient):
        with pytest.raises(errors.ConfigError) as wrong:
            kind.connect("postgresql://u:secret@h/d?schema=x")
        assert "secret" not in str(wrong.value)
        assert wrong.value.__cause__ is None


def test_something_else_answers(ways: Ways) -> None:
    with Client.http(f"{ways.api.url}/elsewhere", ways.api.key) as client, pytest.raises(errors.ApiError):
        client.get_metrics()


def test_the_acting_user_is_in_the_audit_log(ways: Ways) -> None:
    with Client.http(ways.api.url, ways.api.key, user="ann@shop") as client:
        client.opt_out_contact(ANN)
    rows = ways.db.query("SELECT meta FROM audit_log WHERE meta ->> 'acting_user' = 'ann@shop'")
    assert rows
