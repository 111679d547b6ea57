"""Nothing is lost and nothing is sent twice, whatever dies."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import (
    MODES,
    NUMBERS,
    SECRET,
    TEMPLATES,
    TOKEN,
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
from wa_process import wa

MESSAGES = 5000
# The longest that a webhook is away: delay, jitter, and the retries while a receiver or the server is down.
GRACE = "45 seconds"
SIMULATOR = {
    "answer_delay_ms": 50,
    "webhook_delay_ms": 100,
    "webhook_jitter_ms": 2000,
    "shuffle": 0.5,
    "repeat": 0.3,
    "batch_max": 8,
    "batch_wait_ms": 20,
    "retry_max_ms": 500,
}
HITS = 50
# Each rule sees what those before it let pass, and all of them at least the messages.
EVERY = 64


@pytest.mark.xdist_group("load")
def test_nothing_is_lost_or_doubled(
    make_server: Callable[..., Server], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Half of the messages fail with an unknown outcome, half are sent again."""
    server = make_server(fsync="on", full_page_writes="on")
    database = server.create_database(template=server.template())
    prepare(database, grace=GRACE)
    port = free_port()
    simulator = SimulatorProcess(
        tmp_path,
        access_token=TOKEN,
        app_secret=SECRET,
        waba_id=WABA,
        settings={**SIMULATOR, "webhook_url": f"http://127.0.0.1:{port}/api/whatsapp/webhook"},
    )
    with simulator:
        run(simulator, database, port, record_property)


def run(
    simulator: SimulatorProcess,
    database: Database,
    port: int,
    record_property: Callable[[str, object], None],
) -> None:
    chance = random.Random("faults")  # noqa: S311 (a test that can be repeated)
    for place, number in enumerate(NUMBERS):
        simulator.post("numbers", phone_number_id=number, display_phone=f"1555078388{place}", waba_id=WABA)
    for template in TEMPLATES:
        simulator.post("templates", waba_id=WABA, **template)
    sending = {"WHATSAPP_API_BASE_URL": simulator.url, "WHATSAPP_ACCESS_TOKEN": TOKEN}
    synced = wa("templates", "sync", database=database, **sending)
    assert synced.returncode == 0, synced.stderr
    fleet = Fleet(
        database,
        {
            "dispatcher 1": (("dispatch",), sending),
            "dispatcher 2": (("dispatch",), sending),
            "receiver": (("serve", "--port", str(port)), {"WHATSAPP_APP_SECRET": SECRET}),
        },
    )
    messages = [
        message | {"on_unknown": ("fail", "retry")[n // 10 % 2]}
        for n, message in enumerate(make_messages(MESSAGES, chance))
    ]
    producer = Producer(database, messages)
    with fleet:
        let_customers_write(simulator, database)
        let_it_fail(simulator, EVERY)
        chaos = Chaos(simulator, fleet, chance)
        producer.start()
        for _ in range(2):
            chaos.kill_each(chance.sample(["dispatcher 1", "dispatcher 2", "receiver"] * 4, 12)[:9])
            chaos.let_pass(20, 120)
            database.server.restart("immediate")
        chaos.kill_each(chance.sample(["dispatcher 1", "dispatcher 2", "receiver"] * 2, 6))
        producer.finish()
        hits = wait_until(lambda: all_hit(simulator), 120)
        simulator.client.delete("/_simulator/faults").raise_for_status()
        assert wait_until(lambda: is_settled(simulator, database), 240)
        balance = draw_balance(database, simulator)
    codes = {on_unknown: balance.codes(on_unknown) for on_unknown in ("fail", "retry")}
    told = (
        f"{len(balance.rows)} queued, {len(balance.accepted)} accepted, failed by code {codes};"
        f" SIGKILLs {dict(fleet.kills)}; hits {hits}; webhooks {simulator.get('stats')['webhooks']}"
    )
    print(told)
    record_property("told", told)
    assert sum(fleet.kills.values()) >= 20
    assert len(balance.rows) == MESSAGES
    assert balance.lost == []
    assert balance.doubled == []
    assert balance.unfinished == []
    assert balance.disagreeing == []
    assert wrong_states(database, balance) == []
    assert database.faults() == []
    # Told apart by the same words: what was never accepted, and what nobody can know about.
    assert {on_unknown: set(found) for on_unknown, found in codes.items()} == {
        "fail": {"131026", "outcome_unknown"},
        "retry": {"131026"},
    }


def all_hit(simulator: SimulatorProcess) -> dict[str, int] | None:
    """How often each way to fail was hit, once it was often enough."""
    hits: dict[str, int] = simulator.get("faults")["hits"]
    return hits if all(hits.get(mode["mode"], 0) >= HITS for mode in MODES) else None
