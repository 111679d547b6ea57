"""A Graph API simulator in a process of its own, and a receiver for its webhooks, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

BIN = Path(__file__).resolve().parents[1] / "bin"
NUMBER = "106540352242922"
_RUN = """
import json, sys
from pathlib import Path
from pg_whatsapp.log import configure
from wa_simulator import run
configure()
options = json.loads(sys.argv[2])
sys.exit(run("127.0.0.1", options.pop("port", 0), Path(sys.argv[1]),
             ready=lambda url: print(url, flush=True), **options))
"""


def wait_until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What ``condition`` returns once it is true; AssertionError when that takes too long."""
    began = time.monotonic()
    while not (result := condition()):
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"not so within {seconds} s: {condition}")
        # Most conditions are a connection and a query: who asks all the time slows what is waited for.
        time.sleep(min(0.01 + waited / 10, 0.2))
    return result


class SimulatorProcess:
    """`run()` of the simulator with ``options``, in a process of its own."""

    def __init__(self, state_dir: Path, **options: Any) -> None:
        self.state_dir = state_dir
        self.options = options
        self.start()

    def start(self) -> None:
        """Start (again), with the same state directory."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(self.state_dir), json.dumps(self.options)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(BIN)},
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, "the simulator did not start"
        self.client = httpx.Client(base_url=self.url, headers={"Authorization": "Bearer token"}, timeout=120)

    def send(self, path: str = f"/v25.0/{NUMBER}/messages", **body: Any) -> httpx.Response:
        """POST a message; ``messaging_product`` is filled in."""
        return self.client.post(path, json={"messaging_product": "whatsapp", **body})

    def get(self, name: str, /, **query: Any) -> dict[str, Any]:
        """GET /_simulator/name."""
        answer = self.client.get(f"/_simulator/{name}", params=query)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def post(self, name: str, /, **body: Any) -> dict[str, Any]:
        """POST /_simulator/name."""
        answer = self.client.post(f"/_simulator/{name}", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def stop(self) -> int:
        """End it by SIGTERM; returns the exit status."""
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        return self._ended()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.client.close()
        self.process.kill()
        self._ended()

    def _ended(self) -> int:
        assert self.process.stdout is not None
        status = self.process.wait(timeout=120)
        self.process.stdout.close()
        return status

    def __enter__(self) -> SimulatorProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class WebhookReceiver:
    """Takes webhooks; ``answer`` decides the status of each POST from its parsed body."""

    def __init__(self) -> None:
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[dict[str, Any]], int] = lambda body: 200
        self.verify_token = "verify-me"
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                try:
                    body = json.loads(raw)
                except ValueError:
                    body = {}
                status = receiver.answer(body)
                receiver.posts.append((headers, raw))
                self._reply(status, b"")

            def do_GET(self) -> None:
                query = httpx.URL(self.path).params
                right = query.get("hub.verify_token") == receiver.verify_token
                self._reply(200 if right else 403, query.get("hub.challenge", "").encode())

            def _reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/api/whatsapp/webhook"

    def bodies(self) -> list[dict[str, Any]]:
        """The parsed bodies so far."""
        return [json.loads(raw) for _, raw in list(self.posts)]

    def items(self, kind: str, field: str = "messages") -> list[dict[str, Any]]:
        """All ``statuses``, ``messages`` or the like so far, in order of arrival."""
        return [
            item
            for body in self.bodies()
            for entry in body.get("entry", [])
            for change in entry["changes"]
            if change["field"] == field
            for item in change["value"].get(kind, [])
        ]

    def statuses(self, wamid: str) -> list[str]:
        """The statuses of a message, in order of arrival."""
        return [item["status"] for item in self.items("statuses") if item["id"] == wamid]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
