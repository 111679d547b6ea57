"""What the Python client promises before it speaks to anybody.

Tests bin/pg_whatsapp/client/methods.py, bin/pg_whatsapp/client/results.py, bin/pg_whatsapp/api/answers.py.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_type_hints
from uuid import UUID

from pg_whatsapp.api import models
from pg_whatsapp.api.answers import told
from pg_whatsapp.client import AsyncClient, Client, attending, operations, results

CHECKOUT = Path(__file__).resolve().parents[2]
MADE_BY = {"connect", "using", "http", "close"}
# Whoever sends by HTTP only should not wait for what serves, or for libpq.
HEAVY = {"fastapi", "httpx", "psycopg", "pydantic", "structlog", "uvicorn", "uvloop", "click", "cryptography"}


def public(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in vars(kind).items()
        if not name.startswith("_") and callable(member) and name not in MADE_BY
    }


def test_both_clients_have_the_same_methods() -> None:
    plain, waiting = public(Client), public(AsyncClient)
    assert plain == waiting
    assert all(getattr(Client, name).__doc__ == getattr(AsyncClient, name).__doc__ for name in plain)
    assert "idempotency_key" in plain["send_message"].parameters
    assert plain["search_conversations"].return_annotation == "Page[Conversation]"


def test_every_method_is_an_sql_function_without_wa() -> None:
    functions = "\n".join(path.read_text() for path in (CHECKOUT / "sql").rglob("*.sql"))
    for name in public(Client):
        if name.startswith("iter_"):
            continue
        module = operations if hasattr(operations, name) else attending
        source = inspect.getsource(getattr(module, name))
        called = re.findall(r"\{s\}\.(\w+)\(", source) or [name]
        assert {re.sub(r"^(\w+?)_wa_", r"\1_", function) for function in called} == {name}
        assert all(f"FUNCTION {function}(" in functions for function in called)


def test_the_document_of_the_http_api_is_made_of_what_the_client_returns() -> None:
    schema = told(results.Batch).model_json_schema()
    assert set(schema["$defs"]["Verdict"]["required"]) == set(get_type_hints(results.Verdict))
    assert schema["$defs"]["Verdict"]["properties"]["n"]["description"] == "Its place, from 1."
    # What the client reads as NEVER.
    held = told(results.Explanation).model_json_schema()["properties"]["held_until"]
    assert {"const": "infinity", "type": "string"} in held["anyOf"]
    assert results.reader(results.Explanation)({"held_until": "infinity"})["held_until"] == results.NEVER


def test_messages_have_the_fields_of_the_http_api() -> None:
    fields = set(models.Message.model_fields)
    assert set(operations.NewMessage.__annotations__) == fields
    assert set(inspect.signature(operations.send_message).parameters) == fields - {"text_body"}


def test_times_are_read_as_utc_and_what_is_new_stays() -> None:
    read = results.reader(results.OptOut)
    row = read({"opt_out_date": "2030-01-01T02:00:00.5+02:00", "phone": None, "new": "infinity"})
    assert row == {
        "opt_out_date": datetime(2030, 1, 1, 0, 0, 0, 500000, UTC),
        "phone": None,
        "new": "infinity",
    }
    assert row["opt_out_date"].utcoffset() == timedelta(0)
    assert results.reader(datetime)("infinity") == results.NEVER
    some = UUID("00000000-0000-0000-0000-000000000001")
    assert results.reader(list[UUID | None])([str(some), None]) == [some, None]


def test_the_import_brings_nothing_heavy() -> None:
    script = (
        "import sys, pg_whatsapp.client, whatsapp_service; print(*{m.partition('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()
