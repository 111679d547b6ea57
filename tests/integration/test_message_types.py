"""Every type of message: queued in SQL, built by the database, taken by a provider that checks it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openapi
import pytest
from harness import Database
from message_examples import MESSAGES, TEMPLATES, USER_ID
from simulated import NUMBER, SimulatorProcess
from wa_process import wa

WABA = "102290129340398"
# These set keys of the envelope that are the database's own.
QUEUED = {
    name: body
    for name, body in MESSAGES.items()
    if name not in ("with callback data", "to a phone and a user id")
}


def queue(database: Database, recipient: str, body: dict[str, Any]) -> str:
    """Queue a message that is given as the request which it should become; returns its id."""
    kind = body["type"]
    row: dict[str, Any] = {"phone": recipient, "type": kind, "content": json.dumps(body[kind])}
    if "context" in body:
        row["reply_to"] = body["context"]["message_id"]
    columns = ", ".join(row)
    slots = ", ".join(["%s"] * len(row))
    [queued] = database.query(
        f"INSERT INTO wa_outbound_queue ({columns}) VALUES ({slots}) RETURNING id::text", *row.values()
    )
    return str(queued["id"])


@pytest.fixture(params=["meta", "360dialog"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def env(provider: str, simulator: SimulatorProcess) -> dict[str, str]:
    return {
        "WHATSAPP_PROVIDER": provider,
        "WHATSAPP_API_BASE_URL": simulator.url,
        "WHATSAPP_ACCESS_TOKEN": "token",
    }


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path, waba_id=WABA, phone_number_id=NUMBER, settings={"window": "off"}) as made:
        made.post("numbers", phone_number_id=NUMBER, api_key="token", waba_id=WABA)
        for name, template in TEMPLATES.items():
            made.post("templates", name=name, language="en_US", category=template.get("category", "UTILITY"),
                      **{key: value for key, value in template.items() if key != "category"})  # fmt: skip
        yield made


@pytest.fixture
def prepared(db: Database, env: dict[str, str], provider: str) -> Database:
    db.query("SELECT adopt_wa_database()")
    db.query("SELECT register_wa_phone_number(%s, '+15550783881', %s, %s)", NUMBER, WABA, provider)
    db.query("UPDATE wa_organizations SET allow_manual_window = true")
    done = wa("templates", "sync", database=db, **env)
    assert done.returncode == 0, done.stderr
    return db


@pytest.mark.slow
def test_every_type_is_sent_as_it_was_queued(
    prepared: Database, simulator: SimulatorProcess, env: dict[str, str]
) -> None:
    queued = {}
    for n, (name, body) in enumerate(QUEUED.items()):
        recipient = USER_ID if "recipient" in body else f"+1555{1000000 + n}"
        prepared.query("SELECT update_wa_conversation(%s, 'tester', true)", recipient)
        queued[name] = queue(prepared, recipient, body)
    for name, body in QUEUED.items():
        [row] = prepared.query("SELECT preview_wa_request(%s) AS request", queued[name])
        request = row["request"]
        kind = body["type"]
        expected = body[kind]
        if kind == "template":
            expected = {"components": [], **expected}
            request["template"] = {"components": [], **request["template"]}
        assert request[kind] == expected, name
        assert request.get("context") == body.get("context"), name
        assert request["biz_opaque_callback_data"] == f"q:{queued[name]}:1"
        if openapi.FILE.is_file():
            assert openapi.message_errors(request) == [], name
    done = wa("dispatch", "--drain", database=prepared, **env)
    assert done.returncode == 0, done.stderr
    refused = prepared.query(
        "SELECT type, error_code, last_error FROM wa_outbound_queue WHERE status <> 'sent'"
    )
    assert refused == []
    journal = simulator.get("journal", limit=1000)["entries"]
    assert {entry["callback"]: entry["type"] for entry in journal} == {
        f"q:{queued[name]}:1": body["type"] for name, body in QUEUED.items()
    }
