"""A provider of one's own is one file of SQL and one object in Python: nothing else knows it by name."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import CHECKOUT, Database
from simulated import wait_until
from wa_process import WaProcess

SQL = """
INSERT INTO wa_providers (name, send_path, request_function, answer_function, webhook_function)
VALUES ('toy', '/say/{account}', '_wa_toy_request', '_wa_toy_answer', '_wa_toy_webhook');
INSERT INTO wa_error_rules (provider, code, title, action, wait)
VALUES ('toy', 1, 'Asleep', 'wait_number', '1 s');
CREATE FUNCTION _wa_toy_request(p_request jsonb, p_number wa_phone_numbers) RETURNS jsonb LANGUAGE sql
RETURN CASE WHEN p_request ? 'text' THEN jsonb_build_object(
    'to', p_request ->> 'to', 'words', p_request #>> '{text,body}',
    'mark', p_request ->> 'biz_opaque_callback_data'
) END;
CREATE FUNCTION _wa_toy_answer(p_answer jsonb) RETURNS jsonb LANGUAGE sql
RETURN CASE WHEN p_answer ? 'ticket'
    THEN jsonb_build_object('messages', jsonb_build_array(jsonb_build_object('id', p_answer ->> 'ticket')))
    ELSE jsonb_build_object('error', jsonb_build_object('code', p_answer -> 'fault')) END;
CREATE FUNCTION _wa_toy_webhook(p_body bytea) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
    v jsonb := convert_from(p_body, 'UTF8');
BEGIN
    RETURN convert_to(jsonb_build_object('entry', jsonb_build_array(jsonb_build_object(
        'id', 'toys', 'changes', jsonb_build_array(jsonb_build_object('field', 'messages', 'value',
            jsonb_build_object('metadata', '{"phone_number_id": "toy-1"}'::jsonb) || CASE WHEN v ? 'said'
                THEN jsonb_build_object('messages', jsonb_build_array(jsonb_build_object('id', v ->> 'ticket',
                    'from', v ->> 'by', 'type', 'text', 'text', jsonb_build_object('body', v ->> 'said'))))
                ELSE jsonb_build_object('statuses', jsonb_build_array(jsonb_build_object('id', v ->> 'ticket',
                    'status', v ->> 'became', 'biz_opaque_callback_data', v ->> 'mark')))
            END))))
    )::text, 'UTF8');
END
$$;
"""
PYTHON = """
from pg_whatsapp.providers.base import Provider

class Toy(Provider):
    name = "toy"
    base_url = "http://127.0.0.1:9"

    def token_headers(self, token):
        return {"x-toy-key": token}

    def signers(self, webhook, keys):
        given = webhook.headers.get(b"x-toy-word", b"").decode()
        return list(keys.named("app_secret").get(given, []))

PROVIDER = Toy()
"""


class ToyApi:
    """The provider itself: it is asleep at first, then takes what it is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None, dict[str, Any]]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                api.requests.append((self.path, self.headers.get("x-toy-key"), body))
                answer = {"fault": 1} if len(api.requests) == 1 else {"ticket": f"t{len(api.requests)}"}
                content = json.dumps(answer).encode()
                self.send_response(503 if "fault" in answer else 200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def api() -> Iterator[ToyApi]:
    made = ToyApi()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """Where Python finds the toy, as pip would have installed it; a PYTHONPATH."""
    place = tmp_path / "site"
    meta = place / "toy-1.0.dist-info"
    meta.mkdir(parents=True)
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[pg_whatsapp.providers]\ntoy = toy_provider:PROVIDER\n")
    (place / "toy_provider.py").write_text(PYTHON)
    return f"{CHECKOUT / 'bin'}:{place}"


def test_a_toy_provider_needs_two_files(db: Database, api: ToyApi, installed: str) -> None:
    db.query("SELECT adopt_wa_database()")
    with db.connect() as connection:
        connection.execute(SQL.encode())
    env = {
        "PYTHONPATH": installed,
        "WHATSAPP_PROVIDER": "toy",
        "WHATSAPP_API_BASE_URL": api.url,
        "WHATSAPP_ACCESS_TOKEN": "toy-token",
        "WHATSAPP_APP_SECRET": "toy-word",
        "WHATSAPP_PHONE_NUMBER_ID": "toy-1",
        "WHATSAPP_BUSINESS_ACCOUNT_ID": "toys",
    }
    with (
        WaProcess("serve", "--port", "0", database=db, **env) as receiver,
        WaProcess("dispatch", database=db, **env) as dispatcher,
    ):
        told = receiver.logged("serving")
        dispatcher.logged("dispatching")

        def tell(word: str = "toy-word", **event: str) -> int:
            url = f"http://{told['host']}:{told['port']}/api/whatsapp/webhook"
            return httpx.post(url, json=event, headers={"x-toy-word": word}).status_code

        assert tell("another", ticket="t", by="16505550101", said="Hi") == 401
        assert tell(ticket="in-1", by="16505550101", said="Hi") == 200
        wait_until(lambda: db.query("SELECT can_send_freeform_wa('+16505550101') AS may")[0]["may"])
        [row] = db.query(
            "INSERT INTO wa_outbound_queue (phone, text_body) VALUES ('+16505550101', 'Hello')"
            " RETURNING id::text"
        )
        queue = "SELECT status, wa_message_id, retry_count FROM wa_outbound_queue WHERE text_body = 'Hello'"
        wait_until(lambda: db.query(queue)[0]["status"] == "sent")
        assert db.query(queue) == [{"status": "sent", "wa_message_id": "t2", "retry_count": 1}]
        mark = f"q:{row['id']}:2"
        assert api.requests[1] == (
            "/say/toys", "toy-token", {"to": "+16505550101", "words": "Hello", "mark": mark}
        )  # fmt: skip
        assert tell(ticket="t2", became="read", mark=mark) == 200
        wait_until(lambda: db.query("SELECT 1 FROM wa_messages WHERE state = 'read'"))
        # What it cannot say is ended, not asked for.
        db.query(
            "INSERT INTO wa_outbound_queue (phone, type, content)"
            " VALUES ('+16505550101', 'image', '{\"link\": \"https://shop.example/a.jpg\"}')"
        )
        wait_until(lambda: db.query("SELECT 1 FROM wa_outbound_queue WHERE error_code = 'unsupported'"))
        assert len(api.requests) == 2
