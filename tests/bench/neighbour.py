"""A tenant beside another: hostile in every way that it has, or well behaved and as busy.

In a process of its own, so that its processor time can be told from that of the rest:
python -m bench.neighbour hostile|behaved DSN RECEIVER_URL SHARE
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import psycopg
from webhook_bodies import message

from bench.ground import cpu_seconds
from bench.http_load import signature

SECRET = "hostile-secret"
NUMBER = "106540352249999"
#: Rows of its own that it locks, and to a single customer.
ROWS = 10_000
LOCKED_S = 5.0
OWN_ROWS = """
INSERT INTO wa_outbound_queue (phone, template_name, reference, on_refusal)
SELECT '+1' || 7022000000 + n %% %s, 'own_words', 'own', 'record' FROM generate_series(1, %s) n
"""
LOCKS = [
    "SELECT FROM wa_outbound_queue FOR UPDATE",
    "UPDATE wa_outbound_queue SET metadata = '{}' WHERE status = 'pending'",
    "UPDATE wa_conversation_windows SET state = 'waiting'",
    "UPDATE wa_templates SET body_text = body_text",
    "SELECT pg_advisory_lock(n), pg_advisory_lock(hashtextextended('pg_whatsapp ' || n, 0))"
    " FROM generate_series(1, 2000) n",
    "SELECT count(*), pg_sleep(5) FROM wa_messages",
]
# Each is refused, or harms nobody but its author.
NONSENSE = [
    "LOCK TABLE wa_outbound_queue",
    "LOCK TABLE wa_templates IN SHARE MODE",
    "INSERT INTO rate_limits (service, endpoint, count) VALUES ('whatsapp', 'send_message', 2147483647)",
    "INSERT INTO wa_outbound_queue (phone, text_body, scheduled_at) VALUES ('+17022000001', 'x', 'infinity')",
    "INSERT INTO audit_log (event, created_at) VALUES ('x', '-infinity')",
    "INSERT INTO wa_outbound_queue (phone, text_body) VALUES (repeat('9', 1000000), 'x')",
    "INSERT INTO wa_outbound_queue (phone, text_body) SELECT n::text, repeat('x', 5000)"
    " FROM generate_series(1, 1000) n",
    "UPDATE wa_templates SET header_format = 'TEXT', header_text = 'Hi {{1}}', body_text = '{{1}} {{2}}'",
    "UPDATE wa_templates SET header_format = NULL, header_text = NULL, body_text = 'Hello'",
    "NOTIFY wa_queue",
    "SELECT pg_notify('wa_queue', repeat('x', 7000)) FROM generate_series(1, 200)",
    "SELECT enqueue_wa_messages(jsonb_agg(jsonb_build_object('phone', n))) FROM generate_series(1, 2000) n",
    "SELECT set_config('wa.organization_id', gen_random_uuid()::text, false), current_wa_organization()",
    "RESET wa.organization_id",
    "SELECT process_wa_webhooks(1000)",
    "SELECT trigger_wa_panic('mine')",
    "SELECT resolve_wa_panic()",
    "SELECT count(*) FROM wa_messages a, wa_messages b WHERE a.id < 1000",
]


class Neighbour:
    """Its sessions and threads; each goes on after every error."""

    def __init__(self, dsn: str, url: str) -> None:
        self.dsn = dsn
        self.url = url
        self.pids: set[int] = set()

    def session(self) -> psycopg.Connection[object]:
        """A session that counts as ours."""
        connection = psycopg.connect(self.dsn, autocommit=True)
        self.pids.add(connection.info.backend_pid)
        return connection

    def used(self) -> float:
        """Processor seconds of this process and of its sessions that are still there."""
        total = time.process_time()
        for pid in self.pids:
            with suppress(OSError):
                total += cpu_seconds(pid)
        return total

    def forever(self, work: Callable[[psycopg.Connection[object]], None]) -> None:
        """A thread that does something again and again, in a session of its own."""

        def run() -> None:
            while True:
                try:
                    with self.session() as connection:
                        while True:
                            work(connection)
                except (psycopg.Error, OSError, httpx.HTTPError):
                    time.sleep(0.01)

        threading.Thread(target=run, daemon=True).start()

    # -- hostile

    def hold(self, statement: str) -> Callable[[psycopg.Connection[object]], None]:
        """Lock what it may, and keep it."""

        def work(connection: psycopg.Connection[object]) -> None:
            with connection.transaction(force_rollback=True):
                connection.execute(statement.encode())
                time.sleep(LOCKED_S)

        return work

    def rave(self, connection: psycopg.Connection[object]) -> None:
        """All the nonsense, one after the other, and rows to lock."""
        connection.execute(OWN_ROWS, (1, 200))
        connection.execute(OWN_ROWS, (ROWS, ROWS // 10))
        for statement in NONSENSE:
            with suppress(psycopg.Error):
                connection.execute(statement.encode())

    def post(self, _: psycopg.Connection[object]) -> None:
        """Webhooks about its neighbour, signed by itself, large and small; and none at all, slowly."""
        at = int(time.time())
        with httpx.Client(timeout=5) as client:
            for n in range(20):
                text = "STOP" if n else "x" * 5_000_000
                body = message(f"wamid.forged{at}.{n}", "16502000001", at, content=text)
                with suppress(httpx.HTTPError):
                    client.post(
                        self.url, content=body, headers={"x-hub-signature-256": signature(SECRET, body)}
                    )
                with suppress(httpx.HTTPError):
                    client.post(self.url, content=body[:1000], headers={"x-hub-signature-256": "sha256=0"})
        target = urlsplit(self.url)
        slow = []
        for _n in range(200):
            with suppress(OSError):
                one = socket.create_connection((target.hostname or "", target.port or 80), timeout=1)
                one.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 20_000)
                slow.append(one)
        time.sleep(1)
        for one in slow:
            one.close()

    def attack(self) -> None:
        """Everything at once."""
        for statement in LOCKS:
            self.forever(self.hold(statement))
        self.forever(self.rave)
        self.forever(self.post)

    # -- well behaved

    def behave(self, share: float) -> None:
        """Ordinary work in two sessions, for that share of a processor."""
        began, before = time.monotonic(), self.used()
        numbers = itertools.count()

        def work(connection: psycopg.Connection[object]) -> None:
            if self.used() - before > share * (time.monotonic() - began):
                time.sleep(0.01)
                return
            n = next(numbers)
            connection.execute(OWN_ROWS, (ROWS, 20))
            connection.execute(
                "SELECT count(*), max(created_at) FROM wa_messages WHERE phone_e164 = %s",
                (f"+1{7022000000 + n % ROWS}",),
            )
            connection.execute("SELECT count(*) FROM wa_outbound_queue WHERE status = 'pending'")

        for _ in range(2):
            self.forever(work)


def lines(neighbour: Neighbour) -> Iterator[str]:
    """What it has used so far, each second."""
    while True:
        time.sleep(1)
        yield json.dumps({"used": neighbour.used()})


def main() -> None:
    """Run until killed; prints what processor time was used."""
    mode, dsn, url, share = sys.argv[1:]
    neighbour = Neighbour(dsn, url)
    if mode == "hostile":
        neighbour.attack()
    else:
        neighbour.behave(float(share))
    for line in lines(neighbour):
        print(line, flush=True)
        if os.getppid() == 1:
            return


if __name__ == "__main__":
    main()
