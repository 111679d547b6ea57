"""Sessions that meet where customers change numbers and contacts become one, and choices of former owners.

Tests sql/contacts/joins.sql, sql/queue/addresses.sql, sql/webhooks/account_events.sql.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest
from harness import CHECKOUT, Database
from sessions import Blocked, column
from webhook_bodies import ACCOUNT_ID, DISPLAY_PHONE, NUMBER_ID, body, value

NOW = int(time.time()) - 600
CLAIMED: LiteralString = "SELECT body ->> 'to' FROM world.claim()"


@pytest.fixture
def world(db: Database) -> Database:
    """A database with the number, templates and shorthands of the pgTAP tests."""
    with db.connect() as connection:
        for name in ("world", "customers"):
            connection.execute((CHECKOUT / f"tests/pgtap/{name}.psql").read_bytes())
    return db


def test_a_row_is_queued_while_its_number_changes(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    world.query("SELECT world.writes(1)")
    producer = session()
    producer.execute("SELECT world.queue(1)")
    world.query("SELECT world.moves(1, 2)")
    world.query("SELECT world.writes(1, 'STOP', NULL, 200)")
    producer.commit()
    (request,) = world.query(
        "SELECT c.body ->> 'to' AS to, world.customer(2) AS new_number FROM world.claim() c"
        # Whoever wrote STOP is told that it was heeded.
        " WHERE c.queue_id NOT IN (SELECT confirmation_id FROM wa_opt_outs WHERE confirmation_id IS NOT NULL)"
    )
    assert request["to"] == request["new_number"]


def test_a_row_is_queued_while_its_contact_becomes_part_of_one_that_opted_out(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    world.query("SELECT world.writes(NULL, 'STOP', 'US.1')")
    world.query("SELECT world.queue(1)")
    world.query("DELETE FROM wa_outbound_queue")
    producer = session()
    producer.execute("SELECT world.queue(1)")
    # Whichever of the two goes: the row is for the one that is left.
    world.query(
        "SELECT _wa_merge_contacts(o.id, world.found(1), world.found('US.1')) FROM wa_organizations o"
    )
    producer.commit()
    assert world.query(CLAIMED) == []
    world.query("SELECT world.later('1 minute')")
    assert world.query(CLAIMED) == []
    assert world.query("SELECT world.outcome(id) FROM wa_outbound_queue") == [{"outcome": "failed opted_out"}]


def test_somebody_queues_to_a_number_that_a_customer_changes_to(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    """Both make a contact of it; the event waits for the insert, and neither fails."""
    world.query("SELECT world.writes(1)")
    producer = session()
    producer.execute("SELECT world.queue(2)")
    customer = session()
    waiting = Blocked(world, customer, "SELECT world.moves(1, 2)")
    producer.commit()
    waiting.finish()
    customer.commit()
    assert world.query("SELECT error FROM wa_webhook_errors") == []
    (found,) = world.query(
        "SELECT world.found(2) AS now, contact_id FROM wa_messages WHERE content_text = 'Hello'"
    )
    assert found["now"] == found["contact_id"]


def test_somebody_queues_to_a_user_id_that_a_customer_changes_to(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    world.query("SELECT world.writes(1, 'Hello', 'US.1')")
    producer = session()
    producer.execute("INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('US.2', 'hello')")
    customer = session()
    waiting = Blocked(
        world,
        customer,
        """SELECT world.told(NULL, NULL, 100, '{"type": "system", "system": {"type": "user_changed_user_id",
            "user_id": "US.2", "previous_user_id": "US.1"}}')""",
    )
    producer.commit()
    waiting.finish()
    customer.commit()
    assert world.query("SELECT count(*) AS n FROM wa_contacts") == [{"n": 1}]


def test_an_answer_and_a_webhook_join_the_same_contacts(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    """The second one waits for the first, and finds what it made of them."""
    world.query("SELECT world.contact(world.customer(1)), world.contact(world.customer(2))")
    answer = session()
    answer.execute(
        "SELECT _wa_learn_wa_id(o.id, ARRAY[world.found(1)], ARRAY[world.customer(1)], ARRAY[world.wa_id(2)])"
        " FROM wa_organizations o"
    )
    webhook = session()
    waiting = Blocked(
        world,
        webhook,
        "SELECT r.contact_id FROM wa_organizations o CROSS JOIN LATERAL _wa_resolve_contacts(o.id,"
        " ARRAY[world.customer(2)], ARRAY['US.2'], 'webhook', ARRAY[now()]) r",
    )
    answer.commit()
    (contact_id,) = waiting.finish()
    webhook.commit()
    found = world.query(
        "SELECT world.found(1) AS dialled, world.found(2) AS answered, world.found('US.2') AS id"
    )
    assert found == [{"dialled": contact_id, "answered": contact_id, "id": contact_id}]
    assert world.query("SELECT count(*) AS n FROM wa_contacts") == [{"n": 1}]


def test_two_sessions_see_a_number_with_two_user_ids(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    """Both make a contact; the number belongs to one of them, and nobody is left without one."""
    world.query("SELECT world.contact(world.customer(1))")
    see: LiteralString = (
        "SELECT r.contact_id FROM wa_organizations o CROSS JOIN LATERAL _wa_resolve_contacts(o.id,"
        " ARRAY[world.customer(1)], ARRAY[%s], 'webhook', ARRAY[now()]) r"
    )
    first, second = session(), session()
    one = column(first, see, "US.1")
    waiting = Blocked(world, second, see, "US.2")
    first.commit()
    two = waiting.finish()
    second.commit()
    (found,) = world.query(
        "SELECT world.found('US.1') AS one, world.found('US.2') AS two, world.found(1) AS now"
    )
    assert found == {"one": one[0], "two": two[0], "now": two[0]}
    assert one != two


def test_a_late_stop_of_a_numbers_former_owner_counts(db: Database) -> None:
    """The new owner's later choice is not his."""
    db.query("SELECT register_wa_phone_number(%s, %s, %s)", NUMBER_ID, DISPLAY_PHONE, ACCOUNT_ID)

    def chose(user_id: str, choice: str, at: int) -> bytes:
        atom = {
            "wa_id": "16505550001",
            "user_id": user_id,
            "category": "marketing_messages",
            "value": choice,
            "timestamp": at,
        }
        return body("user_preferences", value(user_preferences=[atom]))

    for post in (chose("US.2", "resume", NOW + 100), chose("US.1", "stop", NOW)):
        with db.connect() as connection:
            connection.execute("SELECT ingest_wa_webhooks(%s::bytea[], NULL)", ([post],))
            connection.execute("SELECT process_wa_webhooks()")
    assert db.query("SELECT is_wa_opted_out('US.1') AS former, is_wa_opted_out('US.2') AS present") == [
        {"former": True, "present": False}
    ]
