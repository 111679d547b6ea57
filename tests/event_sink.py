"""A receiver of pushed events on a real socket, and how tests make things happen that are pushed."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple

from harness import Database
from wa_process import KEY, wa

# A contact's events one after the other, with a message each; world.org() is the organization.
_HAPPEN = """
    WITH messages AS (
        INSERT INTO wa_messages
            (organization_id, direction, message_type, status, state, contact_id, number_id, content_text)
        SELECT %(org)s, 'inbound', 'text', 'received', 'received', c, 1, said::text
        FROM generate_series(1, %(each)s) g (said), generate_series(1, %(contacts)s) c
        ORDER BY g.said, c RETURNING id
    )
    INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
    SELECT %(org)s, 'message', id, 'received', now() FROM messages ORDER BY id
"""


class Got(NamedTuple):
    """One request that arrived."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def body(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.raw)
        return parsed

    @property
    def contact(self) -> int:
        return int(self.body["data"]["contact_id"])

    @property
    def text(self) -> str:
        return str(self.body["data"]["content_text"])


class Reply(NamedTuple):
    """What a sink answers; parts of a body that has no stated length are sent one by one."""

    status: int = 204
    headers: tuple[tuple[str, str], ...] = ()
    parts: Iterator[bytes] | None = None


class Sink:
    """Listens on an address of this machine; `answer` says what each request gets."""

    def __init__(
        self,
        answer: Callable[[Got], Reply] = lambda got: Reply(),
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.got: list[Got] = []
        self.answer = answer
        #: Connections that were made, whatever came of them.
        self.connections = 0
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                sink.connections += 1
                super().setup()

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                got = Got(self.path, {name.lower(): value for name, value in self.headers.items()}, raw)
                sink.got.append(got)
                reply = sink.answer(got)
                try:
                    self.send_response(reply.status)
                    for name, value in reply.headers:
                        self.send_header(name, value)
                    if reply.parts is None:
                        if reply.status != 204:
                            self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                    self.send_header("Connection", "close")
                    self.end_headers()
                    for part in reply.parts:
                        self.wfile.write(part)
                        self.wfile.flush()
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Server((address, port), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_port
        scheme = "https" if tls is not None else "http"
        self.url = f"{scheme}://{address}:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def ids(self) -> list[str]:
        """The webhook-id of each request so far."""
        return [got.id for got in list(self.got)]

    def texts(self, contact: int) -> list[str]:
        """What came of a contact, in order of arrival."""
        return [got.text for got in list(self.got) if got.contact == contact]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Subscription(NamedTuple):
    """What `wa events subscribe` printed."""

    id: str
    secret: str


def subscribe(database: Database, url: str, *more: str) -> Subscription:
    """Subscribe by the command."""
    done = wa("events", "subscribe", url, *more, database=database, WA_SECRET_KEY=KEY)
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"subscription (\S+)\nsecret (whsec_\S+)\n", done.stdout)
    assert found, done.stdout
    return Subscription(found[1], found[2])


def allow_local(database: Database) -> None:
    """Receivers of tests are on this machine, and the clone of the template may push."""
    database.query("SELECT adopt_wa_database()")
    database.query(
        "UPDATE wa_installations SET outside_plain_http = true, outside_networks = '{127.0.0.0/8}'"
    )


def happen(database: Database, contacts: int = 1, each: int = 1, organization: str | None = None) -> None:
    """Messages of contacts 1 to n, so many of each, saying 1, 2, 3, ..."""
    organization = organization or database.query("SELECT current_wa_organization()::text AS id")[0]["id"]
    database.query(
        _HAPPEN.replace("%(org)s", f"'{organization}'::uuid")
        .replace("%(each)s", str(each))
        .replace("%(contacts)s", str(contacts))
    )


def deliveries(database: Database, subscription: str) -> dict[str, int]:
    """How many deliveries are in which state."""
    rows = database.query(
        "SELECT state, count(*) FROM wa_event_deliveries WHERE subscription_id = %s GROUP BY state",
        subscription,
    )
    return {row["state"]: row["count"] for row in rows}


def drain(database: Database, **env: str) -> None:
    """Push what is due and end."""
    done = wa("dispatch", "--only", "events", "--drain", database=database, **{"WA_SECRET_KEY": KEY} | env)
    assert done.returncode == 0, done.stderr
