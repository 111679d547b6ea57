"""What the provider is told and asked of business numbers, from the command to the provider and back.

Tests sql/numbers/requests.sql, sql/provider/number_calls.sql.
Tests bin/pg_whatsapp/cli_numbers.py, bin/pg_whatsapp/numbers.py and bin/wa_simulator/numbers.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from harness import Database
from media_world import PHONE, WABA, MediaWorld
from simulated import NUMBER, WebhookReceiver, wait_until
from wa_process import KEY, WaProcess, wa

pytestmark = pytest.mark.slow
PIN = "493817"
HEADER = "X-Webhook-Secret: that-of-number-d360-0123456789"
D360 = "106540352242360"
D360_KEY = "the-key-of-360dialog"


@pytest.fixture
def world(db: Database, tmp_path: Path, make_role: Callable[..., str]) -> Iterator[MediaWorld]:
    with MediaWorld(db, tmp_path, make_role, WA_SECRET_KEY=KEY) as made:
        yield made


def numbers(
    world: MediaWorld, *arguments: str, stdin: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    return wa("numbers", *arguments, database=world.db, stdin=stdin, **({"WA_SECRET_KEY": KEY} | env))


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def number(world: MediaWorld, which: str = NUMBER) -> dict[str, object]:
    found = world.simulator.get("numbers")["numbers"]
    return dict(next(one for one in found if one["phone_number_id"] == which))


def everything(world: MediaWorld) -> str:
    """All that the database has in rows, and the processes have logged."""
    tables = world.db.query(
        "SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    )
    rows = [world.db.query(f'SELECT t::text AS row FROM "{table["name"]}" t') for table in tables]
    return repr(rows) + "".join(world.dispatch.raw + world.serve.raw)


def test_a_number_is_registered_by_a_pin_that_nobody_sees(world: MediaWorld) -> None:
    world.simulator.post("numbers", phone_number_id=NUMBER, status="PENDING", waba_id=WABA)
    assert "no registration PIN" in _refusal(world, "SELECT request_wa_number_registration(%s)", NUMBER)
    assert "six digits" in numbers(world, "register", NUMBER, stdin="12345\n").stderr
    assert said(numbers(world, "register", NUMBER, stdin=PIN + "\n")) == "registered"
    assert number(world)["status"] == "CONNECTED"
    # A wrong one: tried once, for the provider counts guesses; and told.
    wrong = numbers(world, "register", NUMBER, "--from-env", "NEW_PIN", NEW_PIN="493818")
    assert wrong.returncode == 1
    assert "133005" in wrong.stderr
    assert number(world)["pin_guesses"] == 1
    assert PIN not in everything(world)
    assert "493818" not in everything(world)
    assert "no business number" in numbers(world, "register", "999", stdin=PIN).stderr


def test_webhooks_come_where_they_are_told_to(world: MediaWorld) -> None:
    assert said(numbers(world, "subscribe", NUMBER)) == "subscribed"
    receiver = WebhookReceiver()
    try:
        # The token of the dispatcher's environment; then one that is stored, and that the receiver knows not.
        assert said(numbers(world, "subscribe", NUMBER, "--url", receiver.url)) == "webhooks will come there"
        assert number(world)["webhook_url"] == receiver.url
        world.simulator.post("customer", phone=PHONE, text="Hello", number=NUMBER)
        wait_until(lambda: receiver.items("messages"))
        wa("secrets", "set", "verify_token", database=world.db, stdin="a-token-of-its-own", WA_SECRET_KEY=KEY)
        refused = numbers(world, "subscribe", NUMBER, "--url", receiver.url)
        assert (refused.returncode, "2200" in refused.stderr) == (1, True)
        receiver.verify_token = "a-token-of-its-own"
        assert said(numbers(world, "subscribe", NUMBER, "--url", receiver.url, "--account"))
    finally:
        receiver.close()
    assert "a-token-of-its-own" not in everything(world)
    assert "cannot be sent to that URL" in numbers(world, "subscribe", NUMBER, "--url", "ftp://x").stderr


def test_the_environments_verify_token_is_told_for_its_own_organization_only(world: MediaWorld) -> None:
    other = world.db.query("SELECT create_wa_organization('other')::text AS id")[0]["id"]
    stored = wa(
        "secrets", "set", "access_token", "--organization", "other",
        database=world.db, stdin="a-token-of-its-own", WA_SECRET_KEY=KEY,
    )  # fmt: skip
    assert stored.returncode == 0, stored.stderr
    with world.db.connect() as connection:
        connection.execute("SELECT set_config('wa.organization_id', %s, false)", (other,))
        connection.execute("SELECT register_wa_phone_number('777', '+15550783777', '778')")
        connection.execute("SELECT request_wa_webhook_subscription('777', 'https://else.example')")
    failed = "SELECT error FROM wa_provider_calls WHERE error IS NOT NULL"
    wanted = [{"error": "no verify_token is stored for the business number"}]
    assert wait_until(lambda: world.db.query(failed)) == wanted


def test_the_profile_is_read_and_changed(world: MediaWorld) -> None:
    assert said(numbers(world, "profile", NUMBER)) == ""
    shown = said(
        numbers(world, "profile", NUMBER, "--about", "Open daily", "--vertical", "RETAIL",
                "--website", "https://a.example", "--website", "https://b.example")
    )  # fmt: skip
    assert shown.splitlines() == [
        "about: Open daily", "vertical: RETAIL", "websites: https://a.example, https://b.example",
    ]  # fmt: skip
    # What is not given stays; the row of the number has it.
    said(numbers(world, "profile", NUMBER, "--email", "hello@example.com"))
    (row,) = world.db.query("SELECT business_profile AS profile FROM wa_phone_numbers")
    assert (row["profile"]["about"], row["profile"]["email"]) == ("Open daily", "hello@example.com")
    for wrong in (("--about", "x" * 140), ("--email", "nobody"), ("--website", "ftp://x")):
        assert "not a business profile" in numbers(world, "profile", NUMBER, *wrong).stderr
    # What only the provider knows to be wrong.
    assert "vertical must be one of" in numbers(world, "profile", NUMBER, "--vertical", "CIRCUS").stderr


def test_customers_are_blocked_and_unblocked(world: MediaWorld) -> None:
    world.simulator.post("customer", phone=PHONE, text="Buy now", number=NUMBER)
    assert said(numbers(world, "block", NUMBER, "+1 650-555-0101")) == "blocked: 1"
    assert said(numbers(world, "blocked", NUMBER)) == PHONE
    world.db.query("INSERT INTO wa_outbound_queue (phone, text_body) VALUES (%s, 'No')", PHONE)
    sent = "SELECT error_code FROM wa_outbound_queue WHERE status = 'failed'"
    assert wait_until(lambda: world.db.query(sent)) == [{"error_code": "130403"}]
    # Who has not written lately cannot be blocked; the answer says so.
    refused = numbers(world, "block", NUMBER, "+16505550199")
    assert (refused.returncode, "last 24 hours" in refused.stderr) == (1, True)
    assert said(numbers(world, "unblock", NUMBER, PHONE)) == "unblocked: 1"
    assert said(numbers(world, "blocked", NUMBER)) == ""
    # The last word counts, also while the one before it waits.
    world.dispatch.kill()
    for what in ("block_wa_user", "unblock_wa_user", "block_wa_user"):
        world.db.query(f"SELECT {what}(%s, %s)", NUMBER, PHONE)
    pending = "SELECT arguments ->> 'method' AS method FROM wa_provider_calls WHERE state = 'pending'"
    assert world.db.query(pending) == [{"method": "POST"}]
    assert "does one run?" in numbers(world, "blocked", NUMBER, "--wait", "0").stderr
    # What the last try met is said, and who it was that met it.
    error = "UPDATE wa_provider_calls SET error = 'ConnectError' WHERE kind = 'list_blocked'"
    world.db.query(f"{error} RETURNING 1")
    waiting = numbers(world, "blocked", NUMBER, "--wait", "0").stderr
    assert "not done yet; the last try failed: ConnectError" in waiting
    with WaProcess("dispatch", database=world.db, WHATSAPP_ACCESS_TOKEN="any", WA_SECRET_KEY=""):
        keyless = numbers(world, "register", NUMBER, stdin=PIN).stderr
    assert "answered nothing: bin/wa dispatch has no master key" in keyless


def test_360dialog_knows_a_number_by_its_key(world: MediaWorld) -> None:
    world.simulator.post(
        "numbers", phone_number_id=D360, display_phone="+15550783360", waba_id="360", api_key=D360_KEY
    )
    world.db.query("SELECT register_wa_phone_number(%s, '+15550783360', '360', '360dialog')", D360)
    for name, value in (("access_token", D360_KEY), ("webhook_header", HEADER)):
        wa("secrets", "set", name, "--number", D360, database=world.db, stdin=value, WA_SECRET_KEY=KEY)
    world.dispatch.kill()
    # WHATSAPP_API_BASE_URL is that of WHATSAPP_PROVIDER.
    world.env["WHATSAPP_PROVIDER"] = "360dialog"
    world.dispatch = world.start_dispatch()
    url = f"{world.http.base_url}/api/whatsapp/webhook"
    assert said(numbers(world, "subscribe", D360, "--url", url)) == "webhooks will come there"
    configured = world.simulator.client.get("/v1/configs/webhook", headers={"D360-API-KEY": D360_KEY})
    assert configured.json() == {"url": url, "headers": dict([HEADER.split(": ")])}
    assert said(numbers(world, "profile", D360, "--about", "Here")) == "about: Here"
    # The header vouches for the number: its webhooks come in.
    world.simulator.post("customer", phone=PHONE, text="By 360dialog", number=D360)
    text = "SELECT 1 FROM wa_messages WHERE content_text = 'By 360dialog'"
    assert wait_until(lambda: world.db.query(text))
    assert said(numbers(world, "block", D360, PHONE)) == "blocked: 1"
    assert HEADER.split(": ")[1] not in everything(world)
    assert "console" in numbers(world, "register", D360, stdin=PIN).stderr


def _refusal(world: MediaWorld, statement: str, *arguments: object) -> str:
    with pytest.raises(psycopg.Error) as caught:
        world.db.query(statement, *arguments)
    return str(caught.value)
