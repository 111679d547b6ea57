"""The HTTP API against its own OpenAPI document: what it allows, forbids and says of itself.

Tests bin/pg_whatsapp/api/documents.py, bin/pg_whatsapp/api/models.py, bin/pg_whatsapp/api/app.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from api_server import BASE, EVERY_SCOPE, ApiServer
from test_api import serve_api
from wa_process import KEY

__all__ = ["serve_api"]
pytestmark = pytest.mark.slow
# It answers 501, as it says.
NOT_THERE = ("payment-link",)
# Its generator does not get over an array of ten thousand.
HUGE = "messages/batch"


@pytest.fixture
def api(serve_api: Callable[..., ApiServer]) -> ApiServer:
    return serve_api(WA_SECRET_KEY=KEY)


def document_of(api: ApiServer) -> dict[str, Any]:
    return dict(httpx.get(f"{api.url}{BASE}/openapi.json").json())


def try_all(api: ApiServer, directory: Path, phases: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{api.url}{BASE}/openapi.json",
            "--header", f"Authorization: Bearer {api.key}", "--phases", phases, "--max-examples", "10",
            "--seed", "7", "--request-timeout", "130", "--exclude-checks",
            "positive_data_acceptance,ignored_auth", "--generation-database", "none", *more,
        ],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )  # fmt: skip


def test_it_answers_as_documented_whatever_is_sent(api: ApiServer, tmp_path: Path) -> None:
    """No 5xx, no status, body or header that the document does not know, nothing accepted that it forbids."""
    excluded = [part for name in (*NOT_THERE, HUGE) for part in ("--exclude-path", f"{BASE}/{name}")]
    done = try_all(api, tmp_path, "examples,coverage,fuzzing", *excluded)
    assert done.returncode == 0, done.stdout[-6000:]
    done = try_all(api, tmp_path, "examples,fuzzing", "--include-path", f"{BASE}/{HUGE}")
    assert done.returncode == 0, done.stdout[-6000:]


def test_examples_are_what_they_are_examples_of(api: ApiServer) -> None:
    document = document_of(api)
    seen = 0
    for path in document["paths"].values():
        for operation in path.values():
            for answer in operation["responses"].values():
                for content in answer.get("content", {}).values():
                    if "example" in content:
                        check(document, content["schema"], content["example"])
                        seen += 1
    for schema in document["components"]["schemas"].values():
        for example in schema.get("examples", []):
            check(document, schema, example)
            seen += 1
    assert seen > 100


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    whole = {"components": document["components"], "allOf": [schema]}
    jsonschema.Draft202012Validator(whole).validate(value)


def test_a_key_of_one_tenant_gets_nothing_of_another_by_any_operation(
    api: ApiServer, make_role: Callable[..., str]
) -> None:
    api.db.query("SELECT world.wrote(1)")
    secret = "the-secret-of-a"
    sent = api.client.post(
        f"{BASE}/send", json={"phone": "+5491140000001", "message": secret, "reference": secret}
    ).json()
    api.db.query("UPDATE wa_contacts SET profile_name = %s", secret)
    api.db.query(
        "INSERT INTO wa_templates (name, category, body_text) VALUES (%s, 'UTILITY', %s)", secret, secret
    )
    api.client.post(f"{BASE}/opt-outs", json={"phone": "+5491140000002", "reason": secret})
    other = make_role("wa_app", login=False)
    api.db.query(f"GRANT {other} TO {api.login}")
    [row] = api.db.query("SELECT create_wa_organization('b')::text AS id")
    api.db.query("SELECT add_wa_organization_role(%s, %s)", row["id"], other)
    with api.db.connect() as connection:
        connection.execute("SELECT set_config('wa.organization_id', %s, false)", (row["id"],))
        [(key,)] = connection.execute(
            "SELECT api_key FROM create_wa_api_key('b', %s, %s)", (other, EVERY_SCOPE)
        ).fetchall()
    asked = 0
    with api.client_of(key) as client:
        for path, operations in document_of(api)["paths"].items():
            for method in operations:
                for value in (sent["id"], "1", "+5491140000001", "+5491140000002"):
                    url = path
                    for name in ("message_id", "phone", "media_id", "call_id", "subscription_id", "consumer"):
                        url = url.replace(f"{{{name}}}", value)
                    body = {"phone": value, "message": "Hello"} if method == "post" else None
                    answer = client.request(method, url, json=body, params={"search": secret[:6]})
                    asked += 1
                    assert secret not in answer.text, (method, url)
    assert asked > 60
    mine = [
        one for one in api.db.query("SELECT status, reference FROM wa_outbound_queue") if one["reference"]
    ]
    assert mine == [{"status": "pending", "reference": secret}]
    api.db.query("DELETE FROM wa_organization_roles")
