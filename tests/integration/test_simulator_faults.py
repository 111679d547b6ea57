"""Each way to fail, as a client sees it, and whether the message was accepted all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from simulated import NUMBER, SimulatorProcess

PHONE = "+16505551234"
TEMPLATE = {"name": "hello_world", "language": {"code": "en_US"}}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator")) as made:
        yield made


@pytest.fixture
def simulator(shared: SimulatorProcess) -> SimulatorProcess:
    shared.post("reset")
    return shared


def send(simulator: SimulatorProcess, to: str = PHONE, **more: Any) -> httpx.Response:
    return simulator.send(to=to, type="template", template=TEMPLATE, **more)


def accepted(simulator: SimulatorProcess) -> int:
    return int(simulator.get("journal")["total"])


@pytest.mark.parametrize(
    ("rule", "status", "code"),
    [
        ({"mode": "http_500_json"}, 500, 131000),
        ({"mode": "throttle"}, 400, 130429),
        ({"mode": "throttle", "status": 429, "retry_after": 7}, 429, 130429),
        ({"mode": "pair"}, 400, 131056),
        ({"mode": "error", "code": 190}, 401, 190),
        ({"mode": "error", "code": 131042}, 400, 131042),
        ({"mode": "error", "code": 424242, "status": 418}, 418, 424242),
    ],
)
def test_error_answers_are_not_accepted(
    simulator: SimulatorProcess, rule: dict[str, Any], status: int, code: int
) -> None:
    simulator.post("faults", next=1, **rule)
    answer = send(simulator)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get("retry-after") == ("7" if "retry_after" in rule else None)
    assert accepted(simulator) == 0
    assert send(simulator).status_code == 200
    assert simulator.get("faults") == {"faults": [], "hits": {rule["mode"]: 1}}


def test_an_html_page_instead_of_json(simulator: SimulatorProcess) -> None:
    simulator.post("faults", mode="http_503_html")
    answer = send(simulator)
    assert answer.status_code == 503
    assert answer.headers["content-type"].startswith("text/html")
    assert accepted(simulator) == 0


@pytest.mark.parametrize(("mode", "count"), [("cut_before", 0), ("cut_after", 1)])
def test_a_cut_socket(simulator: SimulatorProcess, mode: str, count: int) -> None:
    simulator.post("faults", mode=mode, next=1)
    with pytest.raises(httpx.TransportError):
        send(simulator)
    assert accepted(simulator) == count


@pytest.mark.parametrize(("mode", "count"), [("hang_before", 0), ("hang_after", 1)])
def test_no_answer_within_the_timeout_of_the_client(
    simulator: SimulatorProcess, mode: str, count: int
) -> None:
    simulator.post("faults", mode=mode, next=1)
    with pytest.raises(httpx.ReadTimeout):
        simulator.client.post(
            f"/v25.0/{NUMBER}/messages",
            json={"messaging_product": "whatsapp", "to": PHONE, "type": "template", "template": TEMPLATE},
            timeout=0.3,
        )
    assert accepted(simulator) == count


def test_garbage_and_slow_answers_are_accepted(simulator: SimulatorProcess) -> None:
    simulator.post(
        "faults", faults=[{"mode": "garbage", "next": 1}, {"mode": "slow", "seconds": 0.05, "next": 1}]
    )
    answer = send(simulator)
    assert answer.status_code == 200
    with pytest.raises(ValueError, match=r"decode|Expecting"):
        answer.json()
    assert "messages" in send(simulator).json()
    assert accepted(simulator) == 2
    assert simulator.get("stats")["faults"] == {"garbage": 1, "slow": 1}


def test_an_accepted_message_can_fail_later(simulator: SimulatorProcess) -> None:
    simulator.post("faults", mode="fail_status", code=131026, next=1)
    assert send(simulator).status_code == 200
    (entry,) = simulator.get("journal")["entries"]
    assert (entry["statuses"], entry["errors"]) == (["failed"], [131026])


def test_rules_hit_every_nth_with_a_chance_or_one_number_or_recipient(simulator: SimulatorProcess) -> None:
    simulator.post("settings", pair=False, throughput=False)
    simulator.post("faults", mode="http_500_json", every=3)
    assert [send(simulator).status_code for _ in range(6)] == [200, 200, 500] * 2
    assert simulator.client.delete("/_simulator/faults").json() == {"removed": 1}
    simulator.post("faults", mode="error", code=131026, to="+1 650 555-0001", seed=1)
    simulator.post("faults", mode="error", code=131031, subcode=42, number="200")
    assert send(simulator, "+16505550001").json()["error"]["code"] == 131026
    assert send(simulator, "+16505550002").status_code == 200
    other = send(simulator, path="/v25.0/200/messages").json()["error"]
    assert (other["code"], other["error_subcode"]) == (131031, 42)
    simulator.client.delete("/_simulator/faults")
    simulator.post("faults", mode="pair", probability=0.5, seed=3)
    statuses = {send(simulator).status_code for _ in range(40)}
    assert statuses == {200, 400}


def test_limits_are_enforced_and_counted(simulator: SimulatorProcess) -> None:
    simulator.post("settings", limit_jitter_ms=0)
    simulator.post("numbers", phone_number_id="300", throughput=5)
    codes = [send(simulator, f"+1650556{i:04d}", path="/v25.0/300/messages").status_code for i in range(9)]
    assert codes[:5] == [200] * 5
    assert 400 in codes
    simulator.post("settings", throughput=False, throttle_status=429)
    answers = [send(simulator) for _ in range(46)]
    assert [answer.status_code for answer in answers] == [200] * 45 + [429]
    assert answers[-1].json()["error"]["code"] == 131056
    simulator.post("settings", tier=True)
    simulator.post("numbers", phone_number_id="400", tier=2)
    tier = [send(simulator, f"+1650557000{i}", path="/v25.0/400/messages") for i in range(3)]
    assert [answer.status_code for answer in tier] == [200, 200, 429]
    limits = simulator.get("stats")["limits"]
    assert (limits["pair"], limits["tier"]) == (1, 1)
    assert limits["throughput"] >= 1


def test_a_sink_takes_anything(tmp_path: Path) -> None:
    with SimulatorProcess(tmp_path, sink=True, latency_ms=5) as sink:
        answer = send(sink, biz_opaque_callback_data="q:1:1")
        assert answer.json()["contacts"] == [{"input": PHONE, "wa_id": "16505551234"}]
        assert sink.client.post("/v25.0/1/messages", content=b"nonsense").status_code == 200
        assert sink.get("stats")["accepted"] == 2
        assert sink.get("arrivals")["arrivals"][0]["callback"] == "q:1:1"
        assert sink.stop() == 0
