"""What the provider is called for beside sending: marking as read, templates; and what goes wrong with it.

Tests sql/templates/requests.sql.
Tests bin/pg_whatsapp/provider_calls.py, bin/pg_whatsapp/template_books.py,
bin/pg_whatsapp/dispatch_parts.py and bin/pg_whatsapp/api/provider_routes.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from api_server import BASE, ApiServer
from harness import Database
from media_world import PHONE, WABA, MediaWorld, companions
from pg_whatsapp.secrets import SecretBox
from simulated import NUMBER, wait_until
from wa_process import KEY

pytestmark = pytest.mark.slow
OTHER = "106540352242999"


@pytest.fixture
def world(db: Database, tmp_path: Path, make_role: Callable[..., str]) -> Iterator[MediaWorld]:
    with MediaWorld(db, tmp_path, make_role, WA_SECRET_KEY=KEY) as made:
        yield made


@pytest.fixture
def api(world: MediaWorld, make_role: Callable[..., str]) -> Iterator[ApiServer]:
    server = ApiServer(world.db, make_role)
    yield server
    assert server.stop() == 0
    world.db.query("DELETE FROM wa_organization_roles")


def writes(world: MediaWorld, text: str = "Hello", phone: str = PHONE, number: str = NUMBER) -> str:
    """A customer writes; the id of the message."""
    world.simulator.post("customer", phone=phone, type="text", payload={"body": text}, number=number)
    [row] = wait_until(
        lambda: world.db.query(
            "SELECT wa_message_id FROM wa_messages WHERE content_text = %s AND phone_e164 = %s", text, phone
        )
    )
    return str(row["wa_message_id"])


def have_written(owner: psycopg.Connection[Any], number: str, customers: int) -> None:
    """So many customers have written to a number, of which the provider tells nothing."""
    owner.execute(
        "WITH c AS (SELECT r.contact_id FROM generate_series(1, %s) n, _wa_resolve_contacts("
        "current_wa_organization(), ARRAY['+1650555020' || n], ARRAY[NULL::text], 'x') r),"
        " w AS (INSERT INTO wa_conversation_windows (contact_id, number_id, last_customer_message_at)"
        " SELECT c.contact_id, n.id, now() FROM c, wa_phone_numbers n WHERE n.phone_number_id = %s"
        " RETURNING *)"
        " INSERT INTO wa_messages (number_id, contact_id, direction, message_type, status, state,"
        " provider_at, wa_message_id) SELECT w.number_id, w.contact_id, 'inbound', 'text', 'received',"
        " 'received', now(), 'wamid.' || w.contact_id FROM w",
        (customers, number),
    )


def calls(db: Database) -> list[dict[str, Any]]:
    return db.query(
        "SELECT kind, state, attempts, error, http_status FROM wa_provider_calls ORDER BY created_at"
    )


def ended(db: Database) -> list[dict[str, Any]]:
    """The calls once none is pending."""
    wait_until(lambda: all(call["state"] != "pending" for call in calls(db)))
    return calls(db)


def test_a_conversation_is_marked_as_read_here_and_there(world: MediaWorld, api: ApiServer) -> None:
    writes(world, "One")
    last = writes(world, "Two")
    [conversation] = api.client.get(f"{BASE}/conversations", params={"unread": True}).json()["conversations"]
    assert conversation["unread_count"] == 2
    read = api.client.post(f"{BASE}/conversations/{PHONE}/read", json={"typing": True})
    assert (read.status_code, read.json()["marked"]) == (200, 2)
    assert api.client.get(f"{BASE}/conversations", params={"unread": True}).json()["conversations"] == []
    call = f"{BASE}/provider-calls/{read.json()['call_id']}"
    wait_until(lambda: api.client.get(call).json()["state"] == "done")
    reads = world.simulator.get("journal", format="reads")["reads"]
    assert [(one["number"], one["wamid"], one["typing"]) for one in reads] == [(NUMBER, last, True)]
    # Again, without a body: nothing is new.
    again = api.client.post(f"{BASE}/conversations/{PHONE}/read").json()
    assert (again["marked"], again["call_id"]) == (0, read.json()["call_id"])
    assert api.client.post(f"{BASE}/conversations/+16505559999/read").status_code == 404
    assert api.client.post(f"{BASE}/conversations/{PHONE}/read", json={"colour": 1}).status_code == 422


def test_what_the_provider_refuses_fails_with_its_reason(world: MediaWorld) -> None:
    world.simulator.post("settings", check_message_ids=True)
    writes(world)
    world.db.query("UPDATE wa_messages SET wa_message_id = 'wamid.unknown'")
    world.db.query("SELECT mark_wa_read(%s)", PHONE)
    [call] = ended(world.db)
    assert (call["state"], call["attempts"], call["http_status"]) == ("failed", 1, 400)
    assert call["error"].startswith("131009: ")


def test_one_tenant_whose_calls_hang_delays_nobody(world: MediaWorld) -> None:
    [row] = world.db.query("SELECT create_wa_organization('other')::text AS id")
    writes(world)
    world.simulator.post("numbers", phone_number_id=OTHER, display_phone="+15550783882", waba_id="7")
    world.simulator.post("faults", mode="hang_before", number=OTHER, seconds=60)
    with world.db.connect() as owner:
        owner.execute("SELECT set_config('wa.organization_id', %s, false)", (row["id"],))
        owner.execute("SELECT register_wa_phone_number(%s, '+15550783882', '7')", (OTHER,))
        # The token of the environment is the default organization's.
        sealed = SecretBox([bytes.fromhex(KEY)]).seal(
            row["id"], "access_token", None, world.env["WHATSAPP_ACCESS_TOKEN"]
        )
        owner.execute(
            "SELECT set_wa_secret('access_token', NULL, %s, %s, %s)",
            (sealed.ciphertext, sealed.key_id, sealed.fingerprint),
        )
        have_written(owner, OTHER, 8)
        owner.execute(
            "SELECT mark_wa_read(phone_e164) FROM wa_conversations WHERE phone_number_id = %s", (OTHER,)
        )
        owner.commit()
        hang = "SELECT count(*) AS n FROM wa_provider_calls WHERE leased_until > clock_timestamp()"
        wait_until(lambda: world.db.query(hang)[0]["n"] == 4)
        owner.execute(
            "SELECT set_config('wa.organization_id', organization_id::text, false) FROM wa_phone_numbers"
            " WHERE phone_number_id = %s",
            (NUMBER,),
        )
        owner.execute("SELECT mark_wa_read(%s)", (PHONE,))
        owner.execute("INSERT INTO wa_outbound_queue (phone, text_body) VALUES (%s, 'Hi')", (PHONE,))
        owner.commit()
    wait_until(lambda: world.simulator.get("journal", format="reads", number=NUMBER)["total"] == 1)
    wait_until(lambda: world.simulator.get("journal", number=NUMBER)["total"] == 1)
    assert world.db.query(hang)[0]["n"] == 4


def test_what_was_under_way_when_the_process_died_is_made_again(world: MediaWorld) -> None:
    last = writes(world)
    world.simulator.post("faults", mode="hang_before", number=NUMBER, seconds=60, next=1)
    world.db.query("SELECT mark_wa_read(%s)", PHONE)
    wait_until(lambda: [call["attempts"] for call in calls(world.db)] == [1])
    for pid in companions(world.dispatch):
        os.kill(pid, signal.SIGKILL)
    # As if the minute of its lease were over.
    world.db.query("UPDATE wa_provider_calls SET next_attempt_at = clock_timestamp()")
    [call] = ended(world.db)
    assert (call["state"], call["attempts"]) == ("done", 2)
    assert [one["wamid"] for one in world.simulator.get("journal", format="reads")["reads"]] == [last]


def test_templates_are_fetched_and_submitted_where_an_application_asks(
    world: MediaWorld, api: ApiServer
) -> None:
    [row] = world.db.query("SELECT create_wa_organization('other')::text AS id")
    world.simulator.post("templates", waba_id=WABA, name="from_meta", language="en")
    asked = api.client.post(f"{BASE}/templates/sync")
    assert asked.status_code == 202
    [call] = asked.json()["calls"]
    assert asked.headers["location"] == f"{BASE}/provider-calls/{call['id']}"
    wait_until(lambda: api.client.get(asked.headers["location"]).json()["state"] == "done")
    shown = api.client.get(asked.headers["location"]).json()
    assert shown["result"] == {"waba_id": WABA, "templates": 2}
    names = [one["name"] for one in api.client.get(f"{BASE}/templates").json()["templates"]]
    assert names == ["from_meta", "hello_world"]
    assert world.db.query(
        "SELECT DISTINCT organization_id::text = %s AS his FROM wa_templates", row["id"]
    ) == [{"his": False}]
    # Nothing to submit, nothing by that name; then a draft.
    assert api.client.post(f"{BASE}/templates/submit").json()["code"] == "WA251"
    assert api.client.post(f"{BASE}/templates/submit", json={"name": "none"}).json()["code"] == "WA002"
    draft = {
        "name": "parcel", "body_text": "Hello {{1}}, your parcel is on its way to you.",
        "parameters": [{"name": "who", "example": "Ann"}],
    }  # fmt: skip
    assert api.client.post(f"{BASE}/templates", json=draft).status_code == 201
    asked = api.client.post(f"{BASE}/templates/submit", json={"name": "parcel", "language": "en"})
    wait_until(lambda: api.client.get(asked.headers["location"]).json()["state"] == "done")
    [one] = api.client.get(asked.headers["location"]).json()["result"]["templates"]
    assert (one["name"], one["outcome"], one["status"]) == ("parcel", "submitted", "PENDING")
    at_meta = {t["name"] for t in world.simulator.get("templates")["templates"] if t["waba_id"] == WABA}
    assert "parcel" in at_meta
    assert api.client.post(f"{BASE}/templates/submit", json={"name": "parcel"}).json()["code"] == "WA251"


def test_a_dead_token_is_told_and_not_tried_for_ever(world: MediaWorld) -> None:
    world.db.query("SELECT register_wa_phone_number('1', '+15550783883', '9')")
    world.simulator.post(
        "numbers", phone_number_id="1", display_phone="+15550783883", waba_id="9", access_token="another"
    )
    with world.db.connect() as owner:
        have_written(owner, "1", 1)
        owner.execute("SELECT mark_wa_read('+16505550201')")
        owner.commit()
    [call] = ended(world.db)
    assert (call["state"], call["attempts"], call["http_status"]) == ("failed", 1, 401)
    assert call["error"].startswith("190: ")
    assert world.dispatch.logged("a call failed, wa_provider_calls.error says why")["http_status"] == 401
