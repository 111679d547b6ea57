"""The simulator as a process: messages in, webhooks out, and what survives its death."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from message_examples import MESSAGES, TEMPLATES
from simulated import BIN, NUMBER, SimulatorProcess, WebhookReceiver, wait_until

SECRET = "app-secret"
PHONE = "+16505551234"
TEMPLATE = {"name": "hello_world", "language": {"code": "en_US"}}


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    made = WebhookReceiver()
    yield made
    made.close()


@pytest.fixture
def simulator(tmp_path: Path, receiver: WebhookReceiver) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(
        tmp_path / "state",
        app_secret=SECRET,
        verify_token=receiver.verify_token,
        settings={"webhook_url": receiver.url, "limit_jitter_ms": 0},
    ) as made:
        yield made


def wamid(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["messages"][0]["id"])


def code(answer: httpx.Response) -> int:
    return int(answer.json()["error"]["code"])


def test_a_template_is_accepted_journaled_and_told_about_up_to_read(
    simulator: SimulatorProcess, receiver: WebhookReceiver
) -> None:
    answer = simulator.send(to=PHONE, type="template", template=TEMPLATE, biz_opaque_callback_data="q:42:1")
    sent = wamid(answer)
    assert answer.json()["contacts"] == [{"input": PHONE, "wa_id": "16505551234"}]
    assert answer.json()["messages"][0]["message_status"] == "accepted"
    wait_until(lambda: receiver.statuses(sent) == ["sent", "delivered", "read"])
    assert {item["biz_opaque_callback_data"] for item in receiver.items("statuses")} == {"q:42:1"}
    assert [item["pricing"]["category"] for item in receiver.items("statuses") if "pricing" in item] == [
        "utility"
    ]
    (entry,) = simulator.get("journal", callback="q:42:")["entries"]
    assert (entry["wamid"], entry["template"], entry["callback"]) == (sent, "hello_world", "q:42:1")
    assert entry["sha256"] == hashlib.sha256(answer.request.content).hexdigest()


def test_every_type_goes_through_and_keeps_its_callback_data(simulator: SimulatorProcess) -> None:
    simulator.post("settings", window="off", pair=False, throughput=False, statuses=["sent"])
    for name, registered in TEMPLATES.items():
        simulator.post("templates", name=name, **registered)
    for name, message in MESSAGES.items():
        body = {"biz_opaque_callback_data": name} | message
        assert wamid(simulator.send(**body)).startswith("wamid."), name
    types = simulator.get("journal", format="summary")["by_type"]
    assert sum(types.values()) == len(MESSAGES)
    assert set(types) == {message["type"] for message in MESSAGES.values()}


def test_free_form_needs_a_customer_who_wrote(simulator: SimulatorProcess, receiver: WebhookReceiver) -> None:
    refused = wamid(simulator.send(to=PHONE, type="text", text={"body": "hello"}))
    wait_until(lambda: receiver.statuses(refused) == ["failed"])
    assert receiver.items("statuses")[0]["errors"][0]["code"] == 131047
    said = simulator.post("customer", phone=PHONE, text="Grüße", name="Jürgen", number=NUMBER)
    assert (said["delivered"], said["status"]) == (True, 200)
    allowed = wamid(simulator.send(to=PHONE, type="text", text={"body": "hello"}))
    wait_until(lambda: receiver.statuses(allowed) == ["sent", "delivered", "read"])


def test_the_window_can_refuse_at_once_and_ends_after_24_hours(simulator: SimulatorProcess) -> None:
    simulator.post("settings", window="sync")
    simulator.post("customer", phone=PHONE, text="hi", number=NUMBER, seconds_ago=24 * 3600 + 5)
    answer = simulator.send(to=PHONE, type="text", text={"body": "hello"})
    assert (answer.status_code, code(answer)) == (400, 131047)
    simulator.post("customer", phone=PHONE, type="reaction", payload={"message_id": "wamid.x", "emoji": "👍"})
    assert code(simulator.send(to=PHONE, type="text", text={"body": "hello"})) == 131047
    simulator.post("customer", phone=PHONE, type="call")
    assert simulator.send(to=PHONE, type="text", text={"body": "hello"}).status_code == 200


def test_webhooks_are_signed_over_their_escaped_bytes(
    simulator: SimulatorProcess, receiver: WebhookReceiver
) -> None:
    simulator.post("customer", phone=PHONE, text="naïve 🙂", number=NUMBER)
    headers, raw = receiver.posts[0]
    assert raw.isascii()
    assert receiver.items("messages")[0]["text"]["body"] == "naïve 🙂"
    expected = hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()
    assert headers["x-hub-signature-256"] == f"sha256={expected}"


def test_any_body_can_be_sent_with_a_wrong_or_no_signature(
    simulator: SimulatorProcess, receiver: WebhookReceiver
) -> None:
    receiver.answer = lambda body: 401
    assert simulator.post("webhook", body={"object": "x"}, signature="wrong")["status"] == 401
    assert simulator.post("webhook", raw='{"a":', signature="missing")["attempts"] == 1
    assert [raw for _, raw in receiver.posts] == [b'{"object":"x"}', b'{"a":']
    assert "x-hub-signature-256" not in receiver.posts[1][0]
    assert simulator.post("verify")["verified"] is True
    assert simulator.post("verify", verify_token="other") == {"verified": False, "status": 403}


def test_a_webhook_is_retried_until_200(simulator: SimulatorProcess, receiver: WebhookReceiver) -> None:
    answers = iter([500, 401, 204])
    receiver.answer = lambda body: next(answers, 200)
    said = simulator.post("customer", phone=PHONE, text="hi", number=NUMBER)
    assert said == said | {"delivered": True, "status": 200, "attempts": 4}
    assert len({raw for _, raw in receiver.posts}) == 1
    stats = simulator.get("stats")["webhooks"]
    assert (stats["retries"], stats["pending"]) == (3, 0)


def test_statuses_can_come_repeated_batched_without_delivered_and_before_the_answer(
    simulator: SimulatorProcess, receiver: WebhookReceiver
) -> None:
    simulator.post("settings", skip_delivered=1, repeat=1, repeat_after_ms=0, pair=False)
    first = wamid(simulator.send(to=PHONE, type="template", template=TEMPLATE))
    wait_until(lambda: sorted(receiver.statuses(first)) == ["read", "read", "sent", "sent"])
    simulator.post("settings", skip_delivered=0, repeat=0, before_answer=True)
    second = wamid(simulator.send(to=PHONE, type="template", template=TEMPLATE))
    assert receiver.statuses(second)[:1] == ["sent"]
    wait_until(lambda: "read" in receiver.statuses(second))
    simulator.post("settings", before_answer=False, batch_max=100, batch_wait_ms=300, read_after_ms=20)
    posts = len(receiver.posts)
    third = wamid(simulator.send(to=PHONE, type="template", template=TEMPLATE))
    wait_until(lambda: len(receiver.statuses(third)) == 3)
    assert len(receiver.posts) == posts + 1


def test_a_shuffled_status_keeps_its_timestamp(
    simulator: SimulatorProcess, receiver: WebhookReceiver
) -> None:
    simulator.post("settings", shuffle=1, sent_after_ms=0, delivered_after_ms=50, read_after_ms=1100)
    sent = [
        wamid(simulator.send(to=f"+1650555{i:04d}", type="template", template=TEMPLATE)) for i in range(12)
    ]
    wait_until(lambda: all(len(receiver.statuses(one)) == 3 for one in sent))
    assert len({tuple(receiver.statuses(one)) for one in sent}) > 1
    times = {(item["id"], item["status"]): int(item["timestamp"]) for item in receiver.items("statuses")}
    assert all(times[one, "sent"] < times[one, "read"] for one in sent)


def test_identities_can_be_user_ids(simulator: SimulatorProcess, receiver: WebhookReceiver) -> None:
    user = "US.13491208655302741918"
    simulator.post("customer", user_id=user, text="hi", number=NUMBER, name="Hidden")
    (message,) = receiver.items("messages")
    assert message["from_user_id"] == user
    assert "from" not in message
    answer = simulator.send(recipient=user, type="text", text={"body": "hello"})
    assert answer.json()["contacts"] == [{"input": user, "user_id": user}]
    wait_until(lambda: len(receiver.statuses(wamid(answer))) == 3)
    assert all(item["recipient_user_id"] == user for item in receiver.items("statuses"))
    assert not any("recipient_id" in item for item in receiver.items("statuses"))
    simulator.post("settings", identity="both")
    by_phone = wamid(simulator.send(to=PHONE, type="template", template=TEMPLATE))
    wait_until(lambda: len(receiver.statuses(by_phone)) == 3)
    status = receiver.items("statuses")[-1]
    assert status["recipient_id"] == "16505551234"
    assert status["recipient_user_id"].startswith("US.")


def test_a_customer_changes_number_and_preference_and_deletes(
    simulator: SimulatorProcess, receiver: WebhookReceiver
) -> None:
    simulator.post("customer", phone=PHONE, text="hi", number=NUMBER)
    simulator.post("customer", phone=PHONE, type="number_change", payload={"new_phone": "+16505559999"})
    system = receiver.items("messages")[-1]
    assert (system["from"], system["system"]["wa_id"]) == ("16505551234", "16505559999")
    simulator.post("customer", phone="+16505559999", type="preference", payload={"value": "stop"})
    (preference,) = receiver.items("user_preferences", "user_preferences")
    assert (preference["wa_id"], preference["value"]) == ("16505559999", "stop")
    simulator.post("settings", window="sync")
    assert simulator.send(to="+16505559999", type="text", text={"body": "x"}).status_code == 200
    simulator.post("customer", phone=PHONE, type="revoke", payload={"original_message_id": "wamid.x"})
    assert receiver.items("messages")[-1]["revoke"] == {"original_message_id": "wamid.x"}


def test_inbound_media_can_be_fetched(simulator: SimulatorProcess, receiver: WebhookReceiver) -> None:
    simulator.post(
        "customer", phone=PHONE, type="image", payload={"base64": "aGVsbG8=", "caption": "c"}, number=NUMBER
    )
    image = receiver.items("messages")[0]["image"]
    described = simulator.client.get(f"/v25.0/{image['id']}").json()
    assert simulator.client.get(described["url"]).content == b"hello"
    assert httpx.get(described["url"]).status_code == 401


def test_held_templates_are_released_or_dropped(
    simulator: SimulatorProcess, receiver: WebhookReceiver
) -> None:
    simulator.post("settings", hold_templates=1, pair=False)
    held = [simulator.send(to=PHONE, type="template", template=TEMPLATE) for _ in range(2)]
    assert held[0].json()["messages"][0]["message_status"] == "held_for_quality_assessment"
    first, second = map(wamid, held)
    assert simulator.post("held", wamid=first, action="release") == {"changed": 1}
    assert simulator.post("held", action="drop") == {"changed": 1}
    wait_until(lambda: receiver.statuses(first)[-1:] == ["read"] and receiver.statuses(second) == ["failed"])


def test_the_journal_and_the_window_survive_a_kill(
    simulator: SimulatorProcess, receiver: WebhookReceiver
) -> None:
    receiver.answer = lambda body: 500 if "statuses" in json.dumps(body) else 200
    simulator.post("customer", phone=PHONE, text="hi", number=NUMBER)
    sent = wamid(simulator.send(to=PHONE, type="text", text={"body": "x"}, biz_opaque_callback_data="q:7:1"))
    simulator.kill()
    with (simulator.state_dir / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"time": 17')
    receiver.answer = lambda body: 200
    receiver.posts.clear()
    simulator.start()
    assert [entry["wamid"] for entry in simulator.get("journal")["entries"]] == [sent]
    wait_until(lambda: sorted(receiver.statuses(sent)) == ["delivered", "read", "sent"])
    again = wamid(simulator.send(to=PHONE, type="text", text={"body": "x"}, biz_opaque_callback_data="q:7:2"))
    wait_until(lambda: receiver.statuses(again) == ["sent", "delivered", "read"])
    assert simulator.get("journal", format="summary")["duplicates"] == {"q:7": 2}
    assert simulator.stop() == 0
    simulator.start()
    assert simulator.get("stats")["webhooks"]["pending"] == 0


def test_what_was_answered_before_a_kill_is_in_the_journal(simulator: SimulatorProcess) -> None:
    simulator.post("settings", throughput=False)
    answered: list[str] = []

    def send(worker: int) -> None:
        with contextlib.suppress(httpx.TransportError):
            for i in range(100_000):
                answer = simulator.send(to=f"+1650{worker}{i:06d}", type="template", template=TEMPLATE)
                answered.append(wamid(answer))

    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(send, worker) for worker in range(4)]
        wait_until(lambda: len(answered) > 200)
        simulator.process.kill()
        for sender in senders:
            sender.result(timeout=120)
    simulator.kill()
    simulator.start()
    summary = simulator.get("journal", format="summary")
    kept = {entry["wamid"] for entry in simulator.get("journal", limit=10_000)["entries"]}
    assert set(answered) <= kept
    assert summary["accepted"] - len(answered) <= 4, "only what was in flight may be there without an answer"


def test_two_simulators_cannot_share_a_state_directory(simulator: SimulatorProcess) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "pg_whatsapp", "simulate", "--port", "0", "--state-dir", simulator.state_dir],
        env={**os.environ, "PYTHONPATH": str(BIN)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert second.returncode == 1
    assert b"state_directory_unusable" in second.stderr
    assert second.stdout == b""


def test_reset_forgets_everything(simulator: SimulatorProcess) -> None:
    simulator.post("settings", window="sync", throttle_status=429)
    simulator.post("customer", phone=PHONE, text="hi", number=NUMBER)
    assert simulator.send(to=PHONE, type="text", text={"body": "x"}).status_code == 200
    simulator.post("reset")
    assert simulator.get("journal")["total"] == 0
    assert simulator.get("settings")["throttle_status"] == 400
    simulator.post("settings", window="sync")
    assert code(simulator.send(to=PHONE, type="text", text={"body": "x"})) == 131047


def test_wrong_control_requests_are_explained(simulator: SimulatorProcess) -> None:
    for name, body in (
        ("faults", {"mode": "explode"}),
        ("faults", {"mode": "slow", "every": 2, "next": 1}),
        ("settings", {"window": "sometimes"}),
        ("settings", {"colour": 1}),
        ("customer", {"text": "who?"}),
        ("customer", {"phone": "12", "number": NUMBER}),
        ("customer", {"phone": PHONE, "number": NUMBER, "repeat": "often"}),
        ("numbers", {"phone_number_id": "1", "throughput": 0}),
        ("held", {"action": "keep"}),
        ("reset", {"what": ["time"]}),
    ):
        answer = simulator.client.post(f"/_simulator/{name}", json=body)
        assert answer.status_code == 400, (name, body, answer.text)
        assert answer.json()["error"]
    assert simulator.client.post("/_simulator/nothing").status_code == 404
    assert simulator.client.delete("/_simulator/journal").status_code == 405
