"""Every curl line of the requirement documents, run in a shell as it is written.

Replaced are only the host, ids and tokens, and where a key is needed it is added.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest
from api_server import ApiServer
from documented import FOLDER, documents
from harness import Database
from simulated import NUMBER, SimulatorProcess
from test_dispatch import TOKEN, simulator

__all__ = ["simulator"]
pytestmark = pytest.mark.skipif(not documents(), reason=f"no requirement documents in {FOLDER}")


def commands() -> list[str]:
    """The curl commands of the blocks marked as bash."""
    text = next(path for path in documents() if path.name.startswith("000")).read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ")
    return [line for line in re.split(r"\n(?=curl )|\n(?=#)", lines) if line.startswith("curl ")]


@pytest.fixture
def server(world: Database, make_role: Callable[..., str]) -> Iterator[ApiServer]:
    made = ApiServer(world, make_role, "--host", "127.0.0.1", WHATSAPP_VERIFY_TOKEN="test")
    yield made
    made.stop()
    world.query("DELETE FROM wa_organization_roles")


def test_every_curl_line(server: ApiServer, simulator: SimulatorProcess) -> None:
    db = server.db
    db.query(
        "INSERT INTO wa_conversation_windows (contact_id, number_id, last_customer_message_at)"
        " SELECT world.contact('+15551234567'), id, clock_timestamp() FROM wa_phone_numbers"
    )
    db.query(
        "INSERT INTO wa_templates (name, category, status, body_text)"
        " VALUES ('PAYMENT_REMINDER', 'UTILITY', 'APPROVED', '{{1}} {{2}} {{3}} {{4}}')"
    )
    [link] = db.query(
        "SELECT id::text, token FROM create_wa_media_signature("
        "create_wa_media('%PDF-1.4 invoice', 'application/pdf', 'invoice.pdf')::uuid)"
    )
    seen: dict[str, tuple[int, str]] = {}
    for command in commands():
        linked = command.replace("uuid-123", link["id"]).replace("access-token-456", link["token"])
        status, body = run(linked, server, simulator)
        seen[command] = (status, body)

    def of(part: str) -> tuple[int, str]:
        [found] = [answer for command, answer in seen.items() if part in command]
        return found

    status, body = of('"message": "Thank you')
    assert (status, json.loads(body)["text_body"]) == (
        200,
        "Thank you for your inquiry! How can I help you today?",
    )
    status, body = of('"template_name": "PAYMENT_REMINDER"')
    assert (status, json.loads(body)["template_params"][0]) == (200, "John Doe")
    status, body = of("/conversations/")
    assert (status, json.loads(body)["conversations"][0]["phone"]) == (200, "+15551234567")
    status, body = of("/metrics")
    assert (status, json.loads(body)["queue"]["due"]) == (200, 2)
    assert of("/webhook?") == (200, "123")
    assert of("graph.facebook.com")[0] == 200
    assert of("/media/") == (200, "%PDF-1.4 invoice")
    status, body = of("/process-flows")
    assert (status, json.loads(body)) == (200, {"processed": 0})
    # Until the issue that builds it.
    assert of("/payment-link")[0] == 501
    assert len(seen) == 9


def run(command: str, server: ApiServer, simulator: SimulatorProcess) -> tuple[int, str]:
    """Status and body of a command of the document."""
    command = command.replace("https://samiatarot.com", server.url)
    command = command.replace("https://graph.facebook.com/v18.0", f"{simulator.url}/v25.0")
    command = re.sub(r'-H "X-User-ID: [^"]+"', rf'\g<0> -H "Authorization: Bearer {server.key}"', command)
    done = subprocess.run(
        ["bash", "-c", command.replace("curl ", "curl -s -w '\\n%{http_code}' ", 1)],
        env={"PATH": "/usr/bin:/bin", "WHATSAPP_ACCESS_TOKEN": TOKEN, "PHONE_NUMBER_ID": NUMBER},
        capture_output=True,
        text=True,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body
