"""Flows over HTTP.

Tests sql/api/flows.sql.
Tests bin/pg_whatsapp/api/flow_routes.py, bin/pg_whatsapp/api/flow_models.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from api_server import BASE, ApiServer
from test_api import problem, serve_api

__all__ = ["serve_api"]
PHONE = "+5491140000001"
DEFINITION = {
    "name": "hi",
    "key": "order",
    "trigger": {"event": "placed"},
    "steps": [
        {"name": "greet", "type": "send", "template_name": "order", "template_params": ["{{name}}", "x"]},
        {"name": "wait", "type": "wait", "for": "event", "event": "shipped", "timeout": "1 day"},
    ],
}


@pytest.fixture
def api(serve_api: Callable[..., ApiServer]) -> ApiServer:
    return serve_api()


def test_a_flow_is_stored_started_looked_at_and_steered(api: ApiServer) -> None:
    stored = api.client.post(f"{BASE}/flow-definitions", json={"definition": DEFINITION})
    assert (stored.status_code, stored.json()["version"], stored.json()["state"]) == (201, 1, "active")
    bad = {"name": "hi", "steps": [{"name": "a", "type": "sing"}]}
    told = problem(api.client.post(f"{BASE}/flow-definitions", json={"definition": bad}), 422, "WA701")
    assert 'step a: there is no type "sing"' in told["detail"]
    shown = api.client.get(f"{BASE}/flow-definitions").json()["definitions"]
    assert [(d["name"], d["definition"]["steps"]) for d in shown] == [("hi", DEFINITION["steps"])]

    wish = {"flow": "hi", "phone": PHONE, "context": {"order": "O1", "name": "Ann"}}
    preview = api.client.post(f"{BASE}/flow-previews", json=wish | {"context": {"name": "Ann"}}).json()[
        "steps"
    ]
    assert next((s["step"], s["what"]) for s in preview) == ("greet", 'template order ["Ann", "x"]')
    started = api.client.post(f"{BASE}/flows", json=wish)
    assert (started.status_code, started.json()["status"], started.json()["key"]) == (201, "active", "O1")
    run = f"{BASE}/flows/{started.json()['id']}"
    assert api.client.post(f"{BASE}/flows", json=wish).json()["id"] == started.json()["id"]
    problem(api.client.post(f"{BASE}/flows", json=wish | {"flow": "no"}), 404, "WA702")
    assert api.client.post(f"{BASE}/process-flows?batch_size=10").json() == {"processed": 1}

    whole = api.client.get(run).json()
    assert (whole["state"], whole["step"]) == ("waiting", "wait")
    assert [(s["step"], s["outcome"]) for s in whole["steps"]] == [("greet", "queued")]
    assert api.client.get(f"{BASE}/messages/{whole['steps'][0]['message_id']}").status_code == 200
    paused = api.client.post(f"{run}/actions", json={"action": "pause", "reason": "rang"}).json()
    assert (paused["status"], paused["error"]) == ("paused", "rang")
    problem(api.client.post(f"{run}/actions", json={"action": "pause"}), 409, "WA802")
    assert api.client.post(f"{run}/actions", json={"action": "resume"}).json()["status"] == "active"
    event = {"name": "shipped", "key": "O1", "event_id": "e1"}
    assert api.client.post(f"{BASE}/flow-events", json=event).json()["id"] > 0
    assert api.client.post(f"{BASE}/flow-events", json=event).json() == {"id": None}
    assert api.client.post(f"{BASE}/process-flows").json() == {"processed": 1}
    assert api.client.get(run).json()["status"] == "completed"
    problem(api.client.get(f"{BASE}/flows/{'0' * 8}-0000-4000-8000-{'0' * 12}"), 404, "WA703")

    placed = {"name": "placed", "key": "O2", "phone": PHONE, "data": {"name": "Bob"}}
    api.client.post(f"{BASE}/flow-events", json=placed)
    page = api.client.get(f"{BASE}/flows", params={"limit": 1, "phone": PHONE}).json()
    assert [f["key"] for f in page["flows"]] == ["O2"]
    following = api.client.get(f"{BASE}/flows", params={"limit": 1, "cursor": page["next"]}).json()
    assert ([f["key"] for f in following["flows"]], following["next"]) == (["O1"], None)
    assert api.client.get(f"{BASE}/flows", params={"status": "failed"}).json() == {"flows": [], "next": None}
