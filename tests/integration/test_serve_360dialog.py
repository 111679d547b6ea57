"""Webhooks of 360dialog: what vouches for them, and for which numbers.

Tests sql/webhooks/vouched.sql, sql/organizations/secrets.sql.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import Database
from pg_whatsapp.secrets import SecretBox
from simulated import SimulatorProcess, wait_until
from wa_process import KEY, WaProcess, wa
from webhook_bodies import body, message, value

PATH = "/api/whatsapp/webhook"
# Of the default organization, with one account: two numbers of 360dialog, one of Meta's.
ONE, TWO, METAS, ACCOUNT = "106540350000001", "106540350000002", "106540350000003", "102290120000001"
# Of another organization, which shares an account with the first, and has one of its own.
OTHERS, SHARED, OWN = "106540350000004", "102290120000002", "102290120000003"
SHARING = "106540350000005"
ONES_HEADER = {"X-Webhook-Secret": "that-of-number-one-0123456789"}
EVERYBODYS_HEADER = {"authorization": "Bearer that-of-all-numbers-0123456789"}
PLATFORM = "platform-secret"


def store(db: Database, name: str, value: str, number: str | None = None, org: str | None = None) -> None:
    """Seal and store a secret, for an organization other than the default one if named."""
    box = SecretBox([bytes.fromhex(KEY)])
    with db.connect() as connection:
        if org is not None:
            connection.execute("SELECT set_config('wa.organization_id', %s, false)", (org,))
        (row,) = connection.execute("SELECT current_wa_organization()::text").fetchall()
        sealed = box.seal(row[0], name, number, value)
        connection.execute(
            "SELECT set_wa_secret(%s, %s, %s, %s, %s)",
            (name, number, sealed.ciphertext, sealed.key_id, sealed.fingerprint),
        )


def register(db: Database, number: str, account: str, provider: str, org: str | None = None) -> None:
    with db.connect() as connection:
        if org is not None:
            connection.execute("SELECT set_config('wa.organization_id', %s, false)", (org,))
        connection.execute(
            "SELECT register_wa_phone_number(%s, '+15550783881', %s, %s)", (number, account, provider)
        )


def line(header: dict[str, str]) -> str:
    (item,) = header.items()
    return ": ".join(item)


class Serving:
    """A receiver on a database with two organizations, and a client that sends as 360dialog does."""

    def __init__(self, db: Database) -> None:
        self.db = db
        # With one organization alone nobody need be named.
        home = db.query("SELECT current_wa_organization()::text AS id")[0]["id"]
        other = db.query("SELECT create_wa_organization('other')::text AS id")[0]["id"]
        for number, account, provider, org in (
            (ONE, ACCOUNT, "360dialog", home),
            (TWO, ACCOUNT, "360dialog", home),
            (METAS, ACCOUNT, "meta", home),
            (SHARING, SHARED, "360dialog", home),
            (OTHERS, OWN, "360dialog", other),
            ("106540350000006", SHARED, "360dialog", other),
        ):
            register(db, number, account, provider, org)
        store(db, "webhook_header", line(ONES_HEADER), ONE, home)
        store(db, "webhook_header", line(EVERYBODYS_HEADER), None, home)
        store(db, "webhook_header", "X-Other: that-of-somebody-else-0123", None, other)
        store(db, "platform_secret", PLATFORM, None, home)
        self.home = home
        self.client = httpx.Client(timeout=120)
        self.process = WaProcess("serve", "--port", "0", database=db, WA_SECRET_KEY=KEY)
        try:
            told = self.process.logged("serving")
            self.url = f"http://{told['host']}:{told['port']}{PATH}"
            wait_until(lambda: self.post(about("wamid.ready", TWO), EVERYBODYS_HEADER) == 200)
        except BaseException:
            self.client.close()
            self.process.kill()
            raise

    def post(self, body: bytes, headers: dict[str, str]) -> int:
        return self.client.post(self.url, content=body, headers=headers).status_code

    def stored(self) -> int:
        return int(self.db.query("SELECT count(*) FROM wa_webhook_logs")[0]["count"])


@pytest.fixture
def serving(db: Database) -> Iterator[Serving]:
    made = Serving(db)
    yield made
    made.client.close()
    made.process.signal()
    assert made.process.wait() == 0


def about(wamid: str, number: str) -> bytes:
    return message(wamid, "16505550001", 1749416383, content="Hello", number=number)


def of_account(account: str) -> bytes:
    return body("account_update", {"event": "ACCOUNT_VIOLATION"}, account=account, time=1749416383)


def test_a_header_vouches_for_the_numbers_it_is_stored_for(serving: Serving) -> None:
    """One test, so that one receiver serves it: what comes in, and what a secret must not speak for."""
    taken: list[tuple[bytes, dict[str, str]]] = [
        (about("wamid.1", ONE), ONES_HEADER),
        (
            about("wamid.2", ONE),
            {"x-webhook-secret": ONES_HEADER["X-Webhook-Secret"], "Authorization": "else"},
        ),
        (about("wamid.3", TWO), EVERYBODYS_HEADER),
        (of_account(ACCOUNT), ONES_HEADER),
        (of_account(OWN), {"X-Other": "that-of-somebody-else-0123"}),
    ]
    refused: list[tuple[bytes, dict[str, str]]] = [
        # Nothing of 360dialog's: it might be another provider's, for somebody else.
        (b"From=whatsapp%3A%2B16505550101&Body=STOP", ONES_HEADER),
        (about("wamid.x", ONE), {}),
        (about("wamid.x", ONE), {"X-Webhook-Secret": "wrong"}),
        (about("wamid.x", ONE), {"X-Webhook-Secret": ""}),
        (about("wamid.x", ONE), {"X-Hub-Signature-256": ONES_HEADER["X-Webhook-Secret"]}),
        # Of another number, of another organization, of another provider, of nobody.
        (about("wamid.x", TWO), ONES_HEADER),
        (about("wamid.x", OTHERS), EVERYBODYS_HEADER),
        (about("wamid.x", ONE), {"X-Other": "that-of-somebody-else-0123"}),
        (about("wamid.x", METAS), EVERYBODYS_HEADER),
        (about("wamid.x", "999"), EVERYBODYS_HEADER),
        # An account of another organization, or also of another one.
        (of_account(OWN), EVERYBODYS_HEADER),
        (of_account(SHARED), EVERYBODYS_HEADER),
        (of_account("999"), EVERYBODYS_HEADER),
    ]
    # Hidden behind what is the sender's own.
    mixed = json.loads(about("wamid.y", ONE))
    mixed["entry"][0]["changes"].append({"field": "messages", "value": value(OTHERS, messages=[{"id": "w"}])})
    refused.append((json.dumps(mixed).encode(), ONES_HEADER))
    before = serving.stored()
    assert [serving.post(*request) for request in taken] == [200] * len(taken)
    assert [serving.post(*request) for request in refused] == [401] * len(refused)
    assert serving.stored() == before + len(taken)
    assert {row["provider"] for row in serving.db.query("SELECT provider FROM wa_webhook_logs")} == {
        "360dialog"
    }
    wait_until(lambda: serving.db.query("SELECT 1 FROM wa_messages WHERE wa_message_id = 'wamid.3'"))
    assert serving.db.query("SELECT 1 FROM wa_messages WHERE wa_message_id IN ('wamid.x', 'wamid.y')") == []
    said = (
        "SELECT meta ->> 'reason' AS reason FROM audit_log WHERE event = 'webhook_rejected'"
        # What the same source was refused for in the same minute is counted there until it is over.
        " UNION ALL SELECT reason FROM wa_audit_counts"
    )
    wait_until(lambda: "not the secret of this number" in {r["reason"] for r in serving.db.query(said)})
    log = "".join(serving.process.raw)
    assert not [
        text for header in (ONES_HEADER, EVERYBODYS_HEADER) for text in header.values() if text in log
    ]

    # A partner's signature is one of the body.
    def signed(of: bytes, prefix: str = "") -> dict[str, str]:
        return {"x-360dialog-signature": prefix + hmac.new(PLATFORM.encode(), of, hashlib.sha256).hexdigest()}

    own, others = about("wamid.4", ONE), about("wamid.x", OTHERS)
    assert serving.post(own, signed(own)) == 200
    assert serving.post(own, signed(own, "sha256=")) == 200
    assert serving.post(own + b" ", signed(own)) == 401
    assert serving.post(others, signed(others)) == 401


def test_as_the_simulator_sends(serving: Serving, tmp_path: Path) -> None:
    """Configured as at 360dialog: what customers write comes in, with the header or the signature."""
    env: dict[str, Any] = {"webhook_url": "http://127.0.0.1:9/nowhere"}
    with SimulatorProcess(tmp_path / "simulator", settings=env, app_secret="meta") as simulator:
        simulator.post("numbers", phone_number_id=ONE, api_key="d360", waba_id=ACCOUNT)
        config = f"{simulator.url}/v1/configs/webhook"
        key = {"D360-API-KEY": "d360"}
        wanted = {"url": serving.url, "headers": ONES_HEADER}
        assert httpx.post(config, json=wanted, headers=key).status_code == 200
        assert httpx.get(config, headers=key).json() == wanted
        assert httpx.post(config, json=wanted, headers={"D360-API-KEY": ""}).status_code == 401
        assert httpx.post(config, json={"url": serving.url, "headers": [1]}, headers=key).status_code == 400
        said = simulator.post("customer", number=ONE, phone="+16505550002", text="Hello?")
        assert (said["delivered"], said["status"]) == (True, 200)
        assert ONES_HEADER["X-Webhook-Secret"] not in json.dumps(simulator.get("numbers"))
        simulator.post("numbers", phone_number_id=ONE, webhook_headers=None, platform_secret=PLATFORM)
        said = simulator.post("customer", number=ONE, phone="+16505550003", text="Hello?")
        assert (said["delivered"], said["status"]) == (True, 200)
        simulator.post("numbers", phone_number_id=ONE, platform_secret="another")
        said = simulator.post("customer", number=ONE, phone="+16505550004", text="Hello?", wait_s=1)
        assert (said["delivered"], said["status"]) == (False, 401)
    for phone in ("+16505550002", "+16505550003"):
        wait_until(
            lambda phone=phone: serving.db.query("SELECT 1 FROM wa_messages WHERE phone_e164 = %s", phone)
        )


def test_a_header_that_can_be_guessed_too_easily_is_not_stored(db: Database) -> None:
    done = wa("secrets", "set", "webhook_header", database=db, stdin="X-Short: secret", WA_SECRET_KEY=KEY)
    assert done.returncode == 1
    assert "fewer than 16 characters" in done.stderr
    assert "X-Short" not in done.stderr
    assert db.query("SELECT name FROM list_wa_secrets()") == []
