"""The receiver as a process: verification, signatures, durable storage, processing."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import webhook_bodies
from harness import Database, Server
from simulated import NUMBER, wait_until
from wa_process import KEY, WaProcess, wa

SECRET = "app-secret"
PATH = "/api/whatsapp/webhook"
ENV = {"WHATSAPP_APP_SECRET": SECRET, "WHATSAPP_VERIFY_TOKEN": "verify-me"}


def message(wamid: str, text: str = "Hello", sender: str = "15551234567") -> bytes:
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": NUMBER},
        "contacts": [{"profile": {"name": "Kerry"}, "wa_id": sender}],
        "messages": [
            {"from": sender, "id": wamid, "timestamp": "1749416383", "type": "text", "text": {"body": text}}
        ],
    }
    change = {"field": "messages", "value": value}
    body = {"object": "whatsapp_business_account", "entry": [{"id": "102290129340398", "changes": [change]}]}
    return json.dumps(body).encode()


def signature(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def prepare(database: Database) -> None:
    database.query("SELECT register_wa_phone_number(%s, '+15550783881', '102290129340398')", NUMBER)


class Serving:
    """A receiver and a client for it."""

    def __init__(self, database: Database, user: str | None = None, **env: str) -> None:
        self.process = WaProcess("serve", "--port", "0", database=database, user=user, **env)
        try:
            line = self.process.logged("serving")
        except AssertionError:
            self.process.kill()
            raise
        self.client = httpx.Client(base_url=f"http://{line['host']}:{line['port']}", timeout=120)

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.client.post(PATH, content=body, headers=signature(body) if headers is None else headers)

    def verify(self, token: str, mode: str = "subscribe") -> httpx.Response:
        query = {"hub.mode": mode, "hub.verify_token": token, "hub.challenge": "1158201444"}
        return self.client.get(PATH, params=query)

    def stop(self) -> int:
        self.client.close()
        self.process.signal()
        return self.process.wait()


@pytest.fixture
def serve() -> Iterator[Callable[..., Serving]]:
    made: list[Serving] = []

    def start(database: Database, user: str | None = None, **env: str) -> Serving:
        made.append(Serving(database, user, **env))
        return made[-1]

    yield start
    for serving in made:
        if serving.process.process.poll() is None:
            assert serving.stop() == 0


def rejections(database: Database) -> list[dict[str, Any]]:
    """Their audit rows, as they are when the minute is over."""
    database.query("SELECT _wa_close_audit_counts(clock_timestamp() + interval '1 minute', 1000)")
    return database.query("SELECT meta FROM audit_log WHERE event = 'webhook_rejected'")


def test_verification(db: Database, serve: Callable[..., Serving]) -> None:
    serving = serve(db, **ENV)
    answer = serving.verify("verify-me")
    assert (answer.status_code, answer.text) == (200, "1158201444")
    assert serving.verify("wrong").status_code == 403
    assert serving.verify("").status_code == 403
    assert serving.verify("verify-me", mode="unsubscribe").status_code == 403
    assert "verify-me" not in "".join(serving.process.raw)


def test_a_slash_at_the_end_is_served_and_nothing_is_redirected(
    db: Database, serve: Callable[..., Serving]
) -> None:
    """Meta follows no redirect: a 307 loses every webhook."""
    serving = serve(db, **ENV)
    query = {"hub.mode": "subscribe", "hub.verify_token": "verify-me", "hub.challenge": "1158201444"}
    answer = serving.client.get(PATH + "/", params=query)
    assert (answer.status_code, answer.text) == (200, "1158201444")
    body = message("wamid.1")
    assert serving.client.post(PATH + "/", content=body, headers=signature(body)).status_code == 200
    assert serving.client.post(PATH + "/", content=body).status_code == 401
    assert len(db.query("SELECT 1 FROM wa_webhook_logs")) == 1
    assert serving.client.get("/healthz/").status_code == 200
    for path in ("/" + PATH, PATH + "//", PATH.upper(), PATH + "/more", "/healthz//"):
        url = str(serving.client.base_url).rstrip("/") + path
        assert serving.client.post(url, content=body, headers=signature(body)).status_code == 404


def test_a_signed_message_is_stored_and_processed(
    db: Database, serve: Callable[..., Serving], make_role: Callable[..., str]
) -> None:
    prepare(db)
    serving = serve(db, make_role("wa_receiver"), **ENV)
    body = message("wamid.1", "a secret wish")
    answer = serving.post(body)
    assert answer.status_code == 200
    [stored] = db.query("SELECT body, source FROM wa_webhook_logs")
    assert (bytes(stored["body"]), stored["source"]) == (body, "127.0.0.1")
    wait_until(lambda: db.query("SELECT 1 FROM wa_messages WHERE wa_message_id = 'wamid.1'"))
    log = "".join(serving.process.raw)
    assert "secret wish" not in log
    assert "15551234567" not in log


def test_a_step_of_the_volume_prices_is_taken_from_a_webhook(
    db: Database, serve: Callable[..., Serving], make_role: Callable[..., str]
) -> None:
    prepare(db)
    serving = serve(db, make_role("wa_receiver"), **ENV)
    tiers = "SELECT category, region, month::text, tier, volume_from, volume_to FROM wa_volume_tiers"
    for told_at, tier in ((1763000000, "250001:2000000"), (1763900000, "2000001:10000000")):
        info = {
            "tier_update_time": told_at,
            "pricing_category": "UTILITY",
            "tier": tier,
            "effective_month": "2025-11",
            "region": "India",
        }
        event = {"event": "VOLUME_BASED_PRICING_TIER_UPDATE", "volume_tier_info": info}
        assert serving.post(webhook_bodies.body("account_update", event, time=told_at)).status_code == 200
        row = {"category": "utility", "region": "India", "month": "2025-11-01", "tier": tier}
        bounds = dict(zip(("volume_from", "volume_to"), map(int, tier.split(":")), strict=True))
        wait_until(lambda wanted=row | bounds: db.query(tiers) == [wanted])
    assert db.faults() == []


def test_an_unsigned_or_forged_body_is_refused_counted_and_not_stored(
    db: Database, serve: Callable[..., Serving], make_role: Callable[..., str]
) -> None:
    prepare(db)
    serving = serve(db, make_role("wa_receiver"), **ENV)
    body = message("wamid.1")
    for headers in ({}, signature(body, "other secret"), {"X-Hub-Signature-256": "sha256=nonsense"}):
        assert serving.post(body, headers).status_code == 401
    wait_until(lambda: sum(int(row["meta"].get("count", 1)) for row in rejections(db)) == 3)
    assert db.query("SELECT 1 FROM wa_webhook_logs") == []
    assert serving.post(body).status_code == 200


def test_without_any_secret_everything_is_refused(db: Database, serve: Callable[..., Serving]) -> None:
    serving = serve(db)
    body = message("wamid.1")
    assert serving.post(body, signature(body, "")).status_code == 401
    assert serving.verify("").status_code == 403


def test_a_body_beyond_the_limit_is_refused_announced_or_not(
    db: Database, serve: Callable[..., Serving]
) -> None:
    serving = serve(db, **ENV)
    large = b"x" * (10 * 1024 * 1024 + 1)
    assert serving.post(large).status_code == 413
    chunks = (large[i : i + 65536] for i in range(0, len(large), 65536))
    assert serving.client.post(PATH, content=chunks, headers=signature(large)).status_code == 413
    assert db.query("SELECT 1 FROM wa_webhook_logs") == []
    exact = b"y" * (10 * 1024 * 1024)
    assert serving.post(exact).status_code == 200


@pytest.mark.slow
def test_a_changed_secret_is_taken_up_and_the_older_may_stay(
    db: Database, serve: Callable[..., Serving], make_role: Callable[..., str]
) -> None:
    prepare(db)
    admin = make_role("wa_admin")
    serving = serve(db, make_role("wa_receiver"), WA_SECRET_KEY=KEY)

    def store(name: str, value: str, *more: str) -> None:
        done = wa("secrets", "set", name, *more, database=db, user=admin, stdin=value, WA_SECRET_KEY=KEY)
        assert done.returncode == 0, done.stderr

    def status(secret: str) -> int:
        body = message("wamid.1")
        return serving.post(body, signature(body, secret)).status_code

    assert status("first") == 401
    store("app_secret", "first")
    wait_until(lambda: status("first") == 200)
    store("app_secret", "second", "--keep-previous")
    wait_until(lambda: status("second") == 200)
    assert status("first") == 200
    store("app_secret", "third")
    wait_until(lambda: status("third") == 200)
    store("verify_token", "stored-token")
    wait_until(lambda: serving.verify("stored-token").status_code == 200)


def test_concurrent_requests_are_all_stored(db: Database, serve: Callable[..., Serving]) -> None:
    prepare(db)
    serving = serve(db, **ENV)
    bodies = [message(f"wamid.{n}", sender=f"1555{1000000 + n}") for n in range(300)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(serving.post, bodies))
    assert {answer.status_code for answer in answers} == {200}
    assert db.query("SELECT count(*) FROM wa_webhook_logs") == [{"count": 300}]
    wait_until(lambda: db.query("SELECT count(*) FROM wa_messages")[0]["count"] == 300)


def test_without_the_database_the_provider_is_told_to_repeat(
    make_server: Callable[..., Server], serve: Callable[..., Serving]
) -> None:
    server = make_server()
    database = server.create_database(template=server.template())
    prepare(database)
    serving = serve(database, **ENV)
    assert serving.client.get("/healthz").status_code == 200
    server.stop("immediate")
    assert serving.post(message("wamid.1")).status_code == 503
    assert serving.client.get("/healthz").status_code == 503
    server.start()
    # A request that comes while the server recovers is told to repeat too.
    wait_until(lambda: serving.post(message("wamid.1")).status_code == 200)
    wait_until(lambda: database.query("SELECT 1 FROM wa_messages WHERE wa_message_id = 'wamid.1'"))
    assert serving.stop() == 0


def test_a_port_that_is_taken_is_status_1(db: Database, serve: Callable[..., Serving]) -> None:
    serving = serve(db, **ENV)
    done = wa("serve", "--port", str(serving.client.base_url.port), database=db, **ENV)
    assert done.returncode == 1
    assert "could not listen" in done.stderr
