"""Claims and answers through the functions that a dispatcher calls, one batch after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import orjson
import psycopg
from harness import Database
from pg_whatsapp import __version__

from bench.ground import as_role

Claimed = tuple[str, str, int]
Outcome = Mapping[str, Any]
ACCEPTED = {"outcome": "answered", "status": 200}
UNKNOWN = {"outcome": "unknown", "error": "connection lost"}
UNAVAILABLE = {
    "outcome": "answered",
    "status": 503,
    "answer": {"error": {"code": 131016, "message": "Service unavailable"}},
}


@contextmanager
def hand(database: Database) -> Iterator[tuple[psycopg.Connection[Any], str]]:
    """A dispatcher's connection and id."""
    with as_role(database, "bench_dispatcher") as connection:
        dispatcher = str(uuid4())
        connection.execute("SELECT start_wa_dispatcher(%s, 'bench', 1, %s)", (dispatcher, __version__))
        yield connection, dispatcher


def claim(connection: psycopg.Connection[Any], dispatcher: str, limit: int) -> list[Claimed]:
    """Claim up to so many: queue id, organization, attempt."""
    return connection.execute(
        "SELECT queue_id::text, organization_id::text, attempt FROM claim_wa_messages(%s, %s)",
        (dispatcher, limit),
    ).fetchall()


def answer(
    connection: psycopg.Connection[Any], dispatcher: str, rows: list[Claimed], outcome: Outcome
) -> None:
    """Record one outcome for all of these."""
    results = [
        {"answer": {"messages": [{"id": f"wamid.{queue_id}"}]}, **outcome}
        | {"id": queue_id, "org": organization, "attempt": attempt}
        for queue_id, organization, attempt in rows
    ]
    connection.execute("SELECT complete_wa_messages(%s, %s)", (dispatcher, orjson.dumps(results).decode()))


def send_all(database: Database, count: int, outcome: Callable[[], Outcome] | None) -> None:
    """Claim so many of the rows that wait and record their outcome; without one they stay in flight."""
    database.query("SELECT set_wa_sending(true)")
    with hand(database) as (connection, dispatcher):
        left = count
        while left > 0:
            rows = claim(connection, dispatcher, min(left, 1000))
            if not rows:
                raise RuntimeError(f"{left} of {count} could not be claimed")
            left -= len(rows)
            if outcome is not None:
                answer(connection, dispatcher, rows, outcome())
    database.query("SELECT set_wa_sending(false)")
