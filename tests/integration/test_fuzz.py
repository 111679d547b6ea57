"""Whatever comes in, nothing raises, nothing stays behind, and what is good beside it is done.

Each example goes into the same database, so what one left is there for the next. `make test` tries a few
dozen; `make fuzz` thousands (FUZZ_EXAMPLES). Tests sql/sending/complete.sql, sql/sending/claim.sql,
sql/webhooks/store.sql.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from harness import Database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sessions import column
from webhook_bodies import ACCOUNT_ID, DISPLAY_PHONE, NUMBER_ID, body, call, echo, failed, message, status

pytestmark = pytest.mark.slow

NOW = int(time.time()) - 600
DISPATCHER = "00000000-0000-0000-0000-000000000001"
quickly = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")),
    deadline=None,
    # Which inputs are tried must not decide whether a run is green.
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["", "0", "-1", "9" * 400, "1e400", "infinity", "2026-02-30", "\u0000", "\ud800", "🎈" * 9]
    )
    | st.text(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something in a JSON tree: the path to each value."""
    yield path
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield from places(value, (*path, key))


def changed(tree: Any, path: tuple[Any, ...], how: str, value: Any) -> Any:
    """The tree with one value replaced, removed, wrapped in a list, or there twice."""
    if not path:
        return value if how == "replace" else [tree]
    copy = json.loads(json.dumps(tree))
    parent = copy
    for key in path[:-1]:
        parent = parent[key]
    old = parent[path[-1]]
    if how == "replace":
        parent[path[-1]] = value
    elif how == "remove":
        del parent[path[-1]]
    elif isinstance(parent, list):
        parent.append(old)
    else:
        parent[path[-1]] = [old, old]
    return copy


@st.composite
def mutated(draw: st.DrawFn, trees: list[Any]) -> Any:
    """One of the trees with one to three changes somewhere."""
    tree = draw(st.sampled_from(trees))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(tree))))
        tree = changed(tree, path, draw(st.sampled_from(["replace", "remove", "double"])), draw(values))
    return tree


@pytest.fixture
def claims(world: Database) -> Iterator[psycopg.Connection[Any]]:
    """One session for all examples, as a dispatcher has."""
    world.query("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
    with world.connect() as connection:
        yield connection


ANSWERS = [
    {
        "messages": [{"id": "wamid.x", "message_status": "accepted"}],
        "contacts": [{"input": "1", "wa_id": "1"}],
    },
    {"error": {"code": 131047, "error_subcode": 33, "message": "x", "error_data": {"details": "y"}}},
    {"error": {"code": 130429, "is_transient": True}},
    {"error": {"code": 132001, "error_user_title": "t", "error_user_msg": "m"}},
]


@quickly
@given(
    answer=mutated(ANSWERS),
    http_status=st.sampled_from([200, 201, 204, 302, 400, 401, 404, 429, 500, 503]) | st.integers(100, 599),
    outcome=st.sampled_from(["answered", "answered", "answered", "not_sent", "unknown", "not_started"]),
    retry_after=st.none() | st.floats(0, 1e12),
    error=st.none() | st.text(max_size=50),
)
def test_whatever_the_provider_answers_is_recorded(
    claims: psycopg.Connection[Any],
    answer: Any,
    http_status: int,
    outcome: str,
    retry_after: float | None,
    error: str | None,
) -> None:
    # What an answer may stop is the number, the template or all: the next example begins with them open.
    claims.execute(
        "UPDATE wa_phone_numbers SET pause_scope = NULL, paused_until = NULL, templates_blocked_until = NULL,"
        " replies_blocked_until = NULL, status = 'CONNECTED'"
    )
    claims.execute("UPDATE wa_templates SET status = 'APPROVED', blocked_at = NULL WHERE name = 'hello'")
    claims.execute("DELETE FROM wa_lane_slowdowns")
    [id] = column(claims, "SELECT world.queue((random() * 1e6)::integer)")
    claims.execute("UPDATE wa_lane_states SET next_slot_at = '-infinity', held_until = NULL")
    claims.execute("SELECT count(*) FROM world.claim()")
    [attempt] = column(
        claims, "SELECT attempt FROM wa_outbound_queue WHERE id = %s AND status = 'sending'", id
    )
    result = {"id": str(id), "org": column(claims, "SELECT current_wa_organization()::text")[0]}
    result |= {"attempt": attempt, "outcome": outcome, "status": http_status, "answer": answer}
    result |= {"retry_after": retry_after, "error": error}
    text = json.dumps(result)
    # As the recorder sends it: no bytes that jsonb refuses get that far.
    text = text.replace("\\u0000", "").replace("\\ud800", "").replace("wamid.x", f"wamid.{id}")
    assert column(claims, "SELECT complete_wa_messages(%s, jsonb_build_array(%s::jsonb))", DISPATCHER, text)
    [state] = column(claims, "SELECT status FROM wa_outbound_queue WHERE id = %s", id)
    left = column(claims, "SELECT is_unknown FROM wa_queue_inflight WHERE queue_id = %s", id)
    # An id that another message has already cannot be recorded again; the answer is kept.
    kept = column(claims, "SELECT sqlstate FROM wa_late_results WHERE queue_id = %s", id)
    assert kept in ([], ["23505"])
    assert left == ([bool(not kept)] if state == "sending" else []), (state, left)


WEBHOOKS = [
    json.loads(made)
    for made in (
        message("wamid.a", "16505550001", NOW, content="Hello", user_id="US.1"),
        message("wamid.b", "16505550001", NOW, "image", {"id": "1", "mime_type": "image/png", "sha256": "x"}),
        message("wamid.c", "16505550001", NOW, "button", {"text": "Stop", "payload": "STOP"}),
        message("wamid.d", "16505550001", NOW, "interactive", {"button_reply": {"id": "1", "title": "Yes"}}),
        message("wamid.e", None, NOW, "system", {"type": "user_changed_user_id", "user_id": "US.2"}),
        message("wamid.f", "16505550001", NOW, "reaction", {"message_id": "wamid.a", "emoji": "x"}),
        status("wamid.g", "delivered", NOW, recipient_id="16505550001", biz_opaque_callback_data="q:1:1"),
        failed("wamid.h", NOW, 131047),
        echo("wamid.i", "16505550001", NOW, content="From the app"),
        call("call.1", "16505550001", NOW, "terminate"),
        body("account_update", {"event": "ACCOUNT_RESTRICTION", "restriction_info": [{"x": 1}]}, time=NOW),
        body("phone_number_quality_update", {"event": "FLAGGED", "current_limit": "TIER_1K"}, time=NOW),
        body(
            "message_template_status_update",
            {"event": "PAUSED", "message_template_id": 1, "message_template_name": "hello"},
            time=NOW,
        ),
    )
]  # fmt: skip


@quickly
@given(trees=st.lists(mutated(WEBHOOKS), min_size=1, max_size=3), number=st.integers(1, 10**6))
def test_whatever_webhooks_say_the_good_one_beside_them_counts(
    db: Database, trees: list[Any], number: int
) -> None:
    db.query("SELECT register_wa_phone_number(%s, %s, %s)", NUMBER_ID, DISPLAY_PHONE, ACCOUNT_ID)
    wamid = f"wamid.good{number}"
    bodies = [json.dumps(tree).encode() for tree in trees]
    good = message(wamid, "16505550009", NOW, content="Good")
    with db.connect() as connection:
        connection.execute("SELECT ingest_wa_webhooks(%s::bytea[], NULL)", ([*bodies, good],))
        connection.execute("SELECT process_wa_webhooks()")
        assert column(connection, "SELECT count(*) FROM wa_webhook_logs WHERE status = 'pending'") == [0]
        assert column(connection, "SELECT content_text FROM wa_messages WHERE wa_message_id = %s", wamid)


TYPES: dict[str, Any] = {
    "text": None,
    "image": {"link": "https://shop.test/a.png"},
    "location": {"latitude": 1, "longitude": 2},
    "reaction": {"message_id": "wamid.a", "emoji": "x"},
    "interactive": {
        "type": "button",
        "body": {"text": "x"},
        "action": {"buttons": [{"type": "reply", "reply": {"id": "1", "title": "Yes"}}]},
    },
}
rows = st.fixed_dictionaries(
    {
        "n": st.integers(1, 12),
        "kind": st.sampled_from(["hello", "sale", "code", "order", *TYPES]),
        "content": st.none() | mutated([content for content in TYPES.values() if content]),
        "params": st.none() | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=5), scalars),
        "priority": st.sampled_from(["low", "normal", "high"]),
        "due_s": st.integers(-100, 100),
        "lives_s": st.sampled_from([-10, 0, 1, 5, 1000]),
    }
)
MEANWHILE = [
    "UPDATE wa_templates SET header_format = 'IMAGE' WHERE name = 'order'",
    "UPDATE wa_templates SET body_text = 'Hi {{1}} {{2}} {{3}}' WHERE name = 'order'",
    "UPDATE wa_templates SET body_text = 'Hi {{1}}, {{2}}', header_format = NULL WHERE name = 'order'",
    "UPDATE wa_templates SET status = 'PAUSED' WHERE name = 'sale'",
    "UPDATE wa_templates SET status = 'APPROVED' WHERE name = 'sale'",
    "DELETE FROM wa_templates WHERE name = 'code'",
    "UPDATE wa_conversation_windows SET last_customer_message_at = now() - interval '2 days'",
    "SELECT world.wrote(n) FROM generate_series(1, 12) n",
    "SELECT opt_out_wa_contact(world.customer(3), 'marketing')",
    "UPDATE wa_portfolios SET tier_limit = 2",
    "UPDATE wa_portfolios SET tier_limit = NULL",
    "UPDATE wa_organizations SET order_mode = 'delivered'",
    "UPDATE wa_organizations SET order_mode = 'accepted'",
    "SELECT world.later('1 minute')",
    "SELECT trigger_wa_panic('fuzz')",
    "SELECT resolve_wa_panic()",
]


@quickly
@given(given_rows=st.lists(rows, max_size=12), meanwhile=st.lists(st.sampled_from(MEANWHILE), max_size=4))
def test_whatever_is_queued_is_claimed_at_most_once_and_told_of(
    claims: psycopg.Connection[Any], given_rows: list[dict[str, Any]], meanwhile: list[str]
) -> None:
    # Some stay for the next example; all of them would make it slower and slower.
    claims.execute("DELETE FROM wa_outbound_queue WHERE (SELECT count(*) FROM wa_outbound_queue) > 100")
    for row in given_rows:
        template = row["kind"] if row["kind"] not in TYPES else None
        try:
            claims.execute(
                "INSERT INTO wa_outbound_queue (phone, type, template_name, template_params, text_body,"
                " content, priority, scheduled_at, expires_at, on_refusal)"
                " VALUES (world.customer(%s), %s, %s, %s::jsonb, %s, %s::jsonb, %s,"
                " now() + make_interval(secs => %s), now() + make_interval(secs => %s), 'record')",
                (
                    row["n"],
                    None if template else row["kind"],
                    template,
                    _json(row["params"]) if template else None,
                    "x" if row["kind"] == "text" else None,
                    None if template or row["kind"] == "text" else _json(row["content"]),
                    row["priority"],
                    row["due_s"],
                    row["due_s"] + row["lives_s"],
                ),
            )
        except psycopg.Error as error:
            # Refused where it comes in, by name.
            if (error.sqlstate or "")[:2] not in {"WA", "22", "23"}:
                raise
    for statement in meanwhile:
        claims.execute(statement.encode())
    claims.execute("UPDATE wa_lane_states SET held_until = NULL")
    # Nothing of it may keep a claim from ending, or raise.
    taken: list[Any] = []
    for _ in range(4):
        taken += column(claims, "SELECT queue_id FROM world.claim(7)")
    assert len(taken) == len(set(taken))
    assert column(claims, "SELECT count(*) FROM wa_faults") == [0]
    claims.execute("SELECT world.accept_all(), world.maintain(), get_wa_next_due()")
    # A row is in one place: waiting, in flight, or ended.
    assert column(
        claims,
        "SELECT q.status FROM wa_outbound_queue q"
        " LEFT JOIN wa_queue_due d ON d.queue_id = q.id LEFT JOIN wa_queue_inflight i ON i.queue_id = q.id"
        " WHERE (d.queue_id IS NOT NULL) <> (q.status = 'pending')"
        " OR (i.queue_id IS NOT NULL) <> (q.status = 'sending')",
    ) == []  # fmt: skip
    explained = column(claims, "SELECT e.explanation FROM wa_outbound_queue q, explain_wa_message(q.id) e")
    assert None not in explained


def _json(value: Any) -> str | None:
    # NUL and lone surrogates are refused by jsonb itself.
    return None if value is None else json.dumps(value).replace("\\u0000", "").replace("\\ud800", "")
