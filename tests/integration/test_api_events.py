"""Events, where they are pushed to, and files, over HTTP.

Tests sql/api/events.sql.
Tests bin/pg_whatsapp/api/event_routes.py, bin/pg_whatsapp/api/event_models.py and
bin/pg_whatsapp/api/provider_models.py.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from api_server import BASE, ApiServer
from test_api import problem, serve_api
from wa_process import KEY

__all__ = ["serve_api"]
SUBSCRIPTIONS = f"{BASE}/event-subscriptions"
URL = "https://shop.example.com/whatsapp"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture
def api(serve_api: Callable[..., ApiServer]) -> ApiServer:
    return serve_api(WA_SECRET_KEY=KEY)


def test_subscriptions_are_made_changed_paused_and_ended(api: ApiServer) -> None:
    made = api.client.post(SUBSCRIPTIONS, json={"url": URL, "kinds": ["status.failed", "conversation"]})
    assert made.status_code == 201
    assert made.json()["secret"].startswith("whsec_")
    one = f"{SUBSCRIPTIONS}/{made.json()['id']}"
    shown = api.client.get(one).json()
    assert (shown["state"], shown["waiting"], shown["kinds"]) == (
        "active",
        0,
        ["status.failed", "conversation"],
    )
    assert api.client.get(SUBSCRIPTIONS).json() == {"subscriptions": [shown]}
    changed = api.client.patch(one, json={"kinds": ["message"]}).json()
    assert (changed["url"], changed["kinds"]) == (URL, ["message"])
    assert api.client.post(f"{one}/pause").json()["state_reason"] == "paused"
    problem(api.client.post(f"{one}/test"), 409, "WA240")
    assert api.client.post(f"{one}/resume", json={"from_now": True}).json()["state"] == "active"
    tested = api.client.post(f"{one}/test")
    assert (tested.status_code, tested.json()) == (202, {"event_id": -1})
    assert api.client.post(f"{one}/test").json() == {"event_id": -2}
    page = api.client.get(f"{one}/deliveries", params={"limit": 1, "state": "waiting"}).json()
    assert [(d["event_id"], d["type"]) for d in page["deliveries"]] == [(-1, "test")]
    following = api.client.get(f"{one}/deliveries", params={"limit": 1, "cursor": page["next"]}).json()
    assert [d["event_id"] for d in following["deliveries"]] == [-2]
    assert following["next"] is None
    api.db.query("UPDATE wa_event_deliveries SET state = 'failed', ended_at = now() WHERE event_id = -1")
    assert api.client.post(f"{one}/resend").json() == {"deliveries": 1}
    rotated = api.client.post(f"{one}/rotate", json={"overlap_hours": 1}).json()
    assert rotated["secret"] != made.json()["secret"]
    [row] = api.db.query("SELECT count(*) AS n FROM wa_event_secrets")
    assert row == {"n": 2}
    figures = {
        row["name"]: row["value"]
        for row in api.db.query("SELECT name, value FROM wa_metrics WHERE name ~ 'subscription'")
    }
    assert figures["wa_event_subscription_waiting"] == 2
    assert (figures["wa_event_subscription_disabled"], figures["wa_event_subscription_failing"]) == (0, 0)
    assert api.client.delete(one).json() == {"id": made.json()["id"]}
    problem(api.client.get(one), 404, "WA040")
    problem(api.client.post(f"{one}/pause"), 404, "WA040")
    told = [
        row["event"]
        for row in api.db.query("SELECT event FROM audit_log WHERE event ~ '^event_' ORDER BY id")
    ]
    assert told[0] == "event_subscription_created"
    assert told[-1] == "event_subscription_deleted"


def test_what_is_no_subscription_is_refused(api: ApiServer) -> None:
    problem(api.client.post(SUBSCRIPTIONS, json={"url": "http://shop.example.com"}), 422, "WA041")
    problem(api.client.post(SUBSCRIPTIONS, json={"url": "https://10.0.0.1/"}), 422, "WA041")
    problem(api.client.post(SUBSCRIPTIONS, json={"url": URL, "kinds": ["weather"]}), 422, "22023")
    problem(api.client.post(SUBSCRIPTIONS, json={"url": URL, "secret": "mine"}), 422, "request")
    with api.client_of(api.make_key("read", "send")) as client:
        problem(client.get(SUBSCRIPTIONS), 403, "WA602")
    for _ in range(50):
        assert api.client.post(SUBSCRIPTIONS, json={"url": URL}).status_code == 201
    problem(api.client.post(SUBSCRIPTIONS, json={"url": URL}), 409, "WA241")


def test_without_a_key_to_seal_with_there_are_no_secrets(serve_api: Callable[..., ApiServer]) -> None:
    api = serve_api()
    problem(api.client.post(SUBSCRIPTIONS, json={"url": URL}), 503, "no-secret-key")
    assert api.client.get(SUBSCRIPTIONS).json() == {"subscriptions": []}


def test_events_are_read_until_acknowledged(api: ApiServer) -> None:
    api.db.query("SELECT register_wa_phone_number('101', '+1 555 123 4568', '200', is_test => true)")
    for n, number in ((1, "100"), (2, "101")):
        api.db.query("SELECT world.wrote(%s::integer, '0', %s)", n, number)
        assigned = api.client.post(
            f"{BASE}/conversations/+549114000000{n}/assign", json={"user": "ann", "phone_number_id": number}
        )
        assert assigned.json()["former"] is None
    page = api.client.get(f"{BASE}/events/crm").json()
    assert [(e["kind"], e["phone_number_id"]) for e in page["events"]] == [
        ("conversation", "100"), ("conversation", "101"),
    ]  # fmt: skip
    with api.client_of(api.make_key("read", "send", p_is_test=True)) as client:
        seen = client.get(f"{BASE}/events/tests").json()
        assert [e["phone_number_id"] for e in seen["events"]] == ["101"]
        assert seen["position"] == page["position"]
        assign = f"{BASE}/conversations/+5491140000001/assign"
        problem(client.post(assign, json={"user": "bo"}), 403, "WA605")
    acknowledged = api.client.post(f"{BASE}/events/crm/ack", json={"position": page["position"]})
    assert acknowledged.json() == {"position": page["position"]}
    assert api.client.get(f"{BASE}/events/crm").json() == {"events": [], "position": None}
    problem(api.client.post(f"{BASE}/events/nobody/ack", json={"position": 1}), 422, "22023")


def keep(client: httpx.Client, content: bytes, **headers: str) -> httpx.Response:
    return client.post(f"{BASE}/media", params={"filename": "logo.png"}, content=content, headers=headers)


def test_files_are_kept_linked_and_deleted(api: ApiServer) -> None:
    kept = keep(api.client, PNG)
    assert kept.status_code == 201
    assert keep(api.client, PNG, **{"content-type": "image/png"}).json() == kept.json()
    media_id = kept.json()["id"]
    [row] = api.db.query("SELECT mime_type, filename, file_size::integer AS size FROM wa_media")
    assert row == {"mime_type": "image/png", "filename": "logo.png", "size": len(PNG)}
    link = api.client.post(f"{BASE}/media-links", json={"media_id": media_id, "max_access": 9}).json()
    assert httpx.get(api.url + link["path"]).content == PNG
    with api.client_of(api.make_key("media", p_is_test=True)) as client:
        # A test key reaches nothing that may have gone to a real customer.
        problem(client.post(f"{BASE}/media-links", json={"media_id": media_id}), 404, "WA031")
        problem(client.delete(f"{BASE}/media/{media_id}"), 404, "WA031")
        assert keep(client, PNG + b"2").status_code == 201
    assert api.client.delete(f"{BASE}/media/{media_id}").json() == {"id": media_id, "former_status": "stored"}
    assert httpx.get(api.url + link["path"]).status_code == 410
    problem(keep(api.client, b"x" * 17 * 2**20), 413, "size")
    problem(keep(api.client, bytes(6 * 10**6), **{"content-type": "image/png"}), 422, "WA033")
