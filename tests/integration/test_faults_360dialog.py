"""Nothing is lost and nothing is sent twice by 360dialog either, whatever dies: test_faults.py, but shorter.

Tests bin/pg_whatsapp/provider_calls.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import (
    MODES,
    TEMPLATES,
    WABA,
    Chaos,
    Fleet,
    Producer,
    draw_balance,
    is_settled,
    let_customers_write,
    let_it_fail,
    make_messages,
    prepare,
    wrong_states,
)
from harness import Database, Server, free_port
from simulated import SimulatorProcess, wait_until
from wa_process import KEY, wa

MESSAGES = 900
NUMBER = "106540352242360"
HEADER = {"X-Webhook-Secret": "that-of-the-number-0123456789"}
API_KEY = "key-of-the-number"
# Those that hang outlast the test.
ROUGH = (
    *(mode for mode in MODES if mode["mode"] not in ("hang_before", "hang_after", "throttle")),
    # Each lowers the pace of the only number by a fifth, for twenty seconds.
    {"mode": "throttle", "every": 150},
)
SIMULATOR = {
    "answer_delay_ms": 30, "webhook_delay_ms": 50, "webhook_jitter_ms": 1000, "shuffle": 0.5, "repeat": 0.3,
    "batch_max": 8, "batch_wait_ms": 20, "retry_max_ms": 300,
}  # fmt: skip


@pytest.mark.xdist_group("load")
def test_nothing_is_lost_or_doubled_by_360dialog(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server(fsync="on", full_page_writes="on")
    database = server.create_database(template=server.template())
    prepare(database, grace="20 seconds", numbers=(NUMBER,), provider="360dialog")
    database.query("UPDATE wa_phone_numbers SET throughput = 60")
    port = free_port()
    url = f"http://127.0.0.1:{port}/api/whatsapp/webhook"
    with SimulatorProcess(tmp_path, waba_id=WABA, settings=SIMULATOR | {"webhook_url": url}) as simulator:
        run(simulator, database, port)


def run(simulator: SimulatorProcess, database: Database, port: int) -> None:
    chance = random.Random("360dialog")  # noqa: S311 (a test that can be repeated)
    simulator.post(
        "numbers", phone_number_id=NUMBER, display_phone="15550783880", waba_id=WABA, api_key=API_KEY,
        webhook_headers=HEADER,
    )  # fmt: skip
    for template in TEMPLATES:
        simulator.post("templates", waba_id=WABA, **template)
    ((name, value),) = HEADER.items()
    for secret, text in (("access_token", API_KEY), ("webhook_header", f"{name}: {value}")):
        stored = wa(
            "secrets", "set", secret, "--number", NUMBER, database=database, stdin=text, WA_SECRET_KEY=KEY
        )
        assert stored.returncode == 0, stored.stderr
    env = {
        "WHATSAPP_PROVIDER": "360dialog", "WHATSAPP_API_BASE_URL": simulator.url, "WA_SECRET_KEY": KEY,
    }  # fmt: skip
    synced = wa("templates", "sync", database=database, **env)
    assert synced.returncode == 0, synced.stderr
    commands = {
        "dispatcher 1": (("dispatch",), env),
        "dispatcher 2": (("dispatch",), env),
        "receiver": (("serve", "--port", str(port)), env),
    }
    fleet = Fleet(database, commands)
    producer = Producer(database, make_messages(MESSAGES, chance, (NUMBER,)))
    with fleet:
        let_customers_write(simulator, database, (NUMBER,))
        let_it_fail(simulator, 32, ROUGH)
        chaos = Chaos(simulator, fleet, chance)
        producer.start()
        chaos.kill_each(chance.sample([*commands] * 2, 6))
        database.server.restart("immediate")
        chaos.kill_each(chance.sample([*commands], 3))
        producer.finish()
        wait_until(lambda: simulator.get("stats")["accepted"] > MESSAGES // 2)
        hits = simulator.get("faults")["hits"]
        simulator.client.delete("/_simulator/faults").raise_for_status()
        assert wait_until(lambda: is_settled(simulator, database), 120)
        balance = draw_balance(database, simulator)
    print(f"{len(balance.accepted)} accepted, failed by code {balance.codes()}; hits {hits}")
    assert set(hits) >= {mode["mode"] for mode in ROUGH}
    assert len(balance.rows) == MESSAGES
    assert balance.lost == balance.doubled == balance.unfinished == balance.disagreeing == []
    assert wrong_states(database, balance) == []
    assert database.faults() == []
