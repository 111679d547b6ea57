"""What a log line may hold."""

from __future__ import annotations

import json
import logging

import psycopg
import pytest
from pg_whatsapp import log


@pytest.mark.parametrize(
    "name", ["body", "text", "phone", "recipient", "access_token", "app_secret", "params"]
)
def test_a_value_is_hidden_by_its_name(name: str) -> None:
    assert log.redact(None, "info", {name: "anything"}) == {name: log.MASK}


@pytest.mark.parametrize(
    "text", ["+15551234567", "to 15551234567 failed", "+1 (555) 123-4567", "0049-30-1234567"]
)
def test_phone_like_digits_are_hidden_in_any_text(text: str) -> None:
    hidden = log.redact(None, "info", {"message": text})["message"]
    assert log.MASK in hidden
    assert "234567" not in hidden


def test_ids_addresses_and_counts_stay_readable() -> None:
    event = {
        "phone_number_id": "106540352242922",
        "source": "203.0.113.9",
        "count": 123456789,
        "at": "db.py:12",
    }
    assert log.redact(None, "info", dict(event)) == event


def test_json_lines_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    log.get("test").info("hello", phone="+15551234567", count=3)
    out, err = capsys.readouterr()
    assert out == ""
    line = json.loads(err)
    assert (line["event"], line["component"], line["level"], line["count"]) == ("hello", "test", "info", 3)
    assert "15551234567" not in err


def test_the_text_of_an_unknown_error_is_left_out() -> None:
    try:
        raise ValueError("Bearer EAA-secret")
    except ValueError as error:
        facts = log.describe(error)
    assert facts["error"] == "ValueError"
    assert facts["at"].startswith("test_logging.py:")
    assert "EAA" not in json.dumps(facts)


def test_a_connection_error_says_what_is_wrong() -> None:
    with pytest.raises(psycopg.OperationalError) as raised:
        psycopg.connect("host=/nonexistent dbname=x")
    assert "/nonexistent" in log.describe(raised.value)["message"]


def test_a_library_error_is_named_without_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    try:
        raise ValueError("token EAA-secret")
    except ValueError:
        logging.getLogger("some.library").exception("request EAA-secret failed")
    line = json.loads(capsys.readouterr().err)
    assert (line["logger"], line["error"]) == ("some.library", "ValueError")
    assert "EAA" not in json.dumps(line)


def test_a_pool_without_connections_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    with pytest.raises(psycopg.OperationalError) as raised:
        psycopg.connect("host=/nonexistent dbname=x")
    logging.getLogger("psycopg.pool").warning("error connecting in %r: %s", "api", raised.value)
    line = json.loads(capsys.readouterr().err)
    assert (line["logger"], line["error"]) == ("psycopg.pool", "OperationalError")
    assert "/nonexistent" in line["message"]
