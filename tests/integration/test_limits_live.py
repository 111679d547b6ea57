"""Limits hold and are used up with several dispatchers, numbers and organizations at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults import journal
from harness import Database
from pg_whatsapp.secrets import SecretBox
from simulated import SimulatorProcess, wait_until
from wa_process import KEY, WaProcess

pytestmark = pytest.mark.slow

TOKEN = "EAAG-test-token"
# Two numbers of one account, and so of one portfolio, and one of another.
NUMBERS = {"111": "7001", "112": "7001", "113": "7002"}
RATE = 50
TIER = 100
# A developer's patience; the promise is for a million.
BACKLOG = 100_000


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path, access_token=TOKEN, settings={"window": "off"}) as made:
        made.client.headers["authorization"] = f"Bearer {TOKEN}"
        yield made


def register(database: Database, simulator: SimulatorProcess, numbers: dict[str, str], **more: Any) -> None:
    """The same numbers on both sides, with a template; more is what the simulator enforces."""
    database.query("SELECT adopt_wa_database()")
    for number, account in numbers.items():
        database.query("SELECT register_wa_phone_number(%s, %s, %s)", number, f"+1555078{number}", account)
        simulator.post(
            "numbers", phone_number_id=number, display_phone=f"1555078{number}", waba_id=account,
            portfolio=account, **more,
        )  # fmt: skip
    database.query(
        "INSERT INTO wa_templates (name, language, category, status, body_text, waba_id)"
        " SELECT 'hello_world', 'en_US', 'UTILITY', 'APPROVED', 'Hello World', a FROM unnest(%s::text[]) a",
        sorted(set(numbers.values())),
    )


def queue(database: Database, number: str, count: int, recipients: int, first: int = 3000000) -> None:
    """Queue so many templates of one number, going round so many recipients."""
    database.query(
        "INSERT INTO wa_outbound_queue (phone_number_id, phone, template_name)"
        " SELECT %s, '+1555' || (%s + g %% %s), 'hello_world' FROM generate_series(1, %s) g",
        number, first, recipients, count,
    )  # fmt: skip


@contextmanager
def dispatchers(database: Database, simulator: SimulatorProcess, count: int) -> Iterator[None]:
    """So many dispatchers, at work."""
    settings = {
        "WHATSAPP_API_BASE_URL": simulator.url, "WHATSAPP_ACCESS_TOKEN": TOKEN, "WA_SECRET_KEY": KEY
    }  # fmt: skip
    with ExitStack() as stack:
        made = [
            stack.enter_context(WaProcess("dispatch", database=database, **settings)) for _ in range(count)
        ]
        for process in made:
            process.logged("dispatching")
        yield


def claimed(database: Database) -> int:
    return int(database.query("SELECT count(claimed_at) AS n FROM wa_outbound_queue")[0]["n"])


def most_within(database: Database, window: str) -> int:
    """The most messages that were claimed in any window of that length, by the claims of all."""
    [row] = database.query(
        "SELECT max(n) AS most FROM (SELECT count(*) OVER (ORDER BY claimed_at"
        " RANGE BETWEEN %s::interval PRECEDING AND CURRENT ROW) AS n FROM wa_outbound_queue"
        " WHERE claimed_at IS NOT NULL) w",
        window,
    )
    return int(row["most"])


def refusals(simulator: SimulatorProcess) -> dict[str, int]:
    return {name: count for name, count in simulator.get("stats")["limits"].items() if count}


def accepted(simulator: SimulatorProcess) -> int:
    return int(simulator.get("stats")["accepted"])


def test_the_rate_of_an_organization_is_exact_and_reached(db: Database, simulator: SimulatorProcess) -> None:
    register(db, simulator, NUMBERS)
    db.query("UPDATE wa_organizations SET rate_limit_per_minute = %s", RATE)
    for number in NUMBERS:
        queue(db, number, RATE, 20)
    with dispatchers(db, simulator, 4):
        wait_until(lambda: claimed(db) == 2 * RATE, 300)
        wait_until(lambda: accepted(simulator) == 2 * RATE)
    assert most_within(db, "60 seconds") == RATE
    [row] = db.query("SELECT max(claimed_at) - min(claimed_at) > '60 s' AS apart FROM wa_outbound_queue")
    assert row["apart"]
    assert refusals(simulator) == {}


def test_a_portfolio_shares_its_messaging_limit(db: Database, simulator: SimulatorProcess) -> None:
    register(db, simulator, NUMBERS, tier=TIER)
    simulator.post("settings", tier=True)
    db.query("UPDATE wa_portfolios SET tier_limit = %s", TIER)
    for place, number in enumerate(NUMBERS):
        # Half of their recipients the numbers share: who was written to by one costs the other nothing.
        queue(db, number, 3 * TIER, 2 * TIER, first=3000000 + place * TIER)
    with dispatchers(db, simulator, 4):
        wait_until(
            lambda: db.query(
                "SELECT 1 FROM wa_outbound_queue q JOIN wa_queue_due d ON d.queue_id = q.id"
                " HAVING count(*) FILTER (WHERE d.hold_reason IS DISTINCT FROM 'messaging_limit') = 0"
            ),
            60,
        )
        wait_until(lambda: db.query("SELECT 1 FROM wa_queue_inflight") == [])
    recipients = db.query(
        "SELECT n.portfolio_id, count(DISTINCT q.phone) AS n FROM wa_outbound_queue q"
        " JOIN wa_phone_numbers n USING (phone_number_id) WHERE q.status = 'sent' GROUP BY 1 ORDER BY 1"
    )
    assert recipients == [{"portfolio_id": "7001", "n": TIER}, {"portfolio_id": "7002", "n": TIER}]
    assert refusals(simulator) == {}


def test_throughput_and_pair_rate_never_meet_a_refusal(db: Database, simulator: SimulatorProcess) -> None:
    register(db, simulator, NUMBERS)
    for number in NUMBERS:
        queue(db, number, 400, 400)
        # More to each than may be borrowed: the rest has to wait until the debt is paid.
        queue(db, number, 240, 4, first=4000000)
    with dispatchers(db, simulator, 4):
        wait_until(lambda: accepted(simulator) == len(NUMBERS) * (400 + 4 * 45), 240)
        reasons = (
            "SELECT DISTINCT e.reason FROM wa_outbound_queue q, explain_wa_message(q.id) e"
            " WHERE q.status = 'pending' AND e.held_until > clock_timestamp() + interval '1 minute'"
        )
        wait_until(lambda: db.query(reasons) == [{"reason": "recipient_rate"}])
    assert refusals(simulator) == {}


@pytest.mark.xdist_group("load")
def test_a_large_backlog_of_one_organization_delays_no_other(
    db: Database, simulator: SimulatorProcess, make_role: Callable[..., str]
) -> None:
    db.query("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
    simulator.post("settings", throughput=False, pair=False)
    register(db, simulator, {"111": "7001"})
    db.query("UPDATE wa_phone_numbers SET throughput = 1000")
    others = [str(number) for number in range(201, 211)]
    box = SecretBox([bytes.fromhex(KEY)])
    with db.connect() as connection:
        for number in others:
            [(organization,)] = connection.execute(
                "SELECT set_config('wa.organization_id', create_wa_organization(%s)::text, false)", (number,)
            ).fetchall()
            # The token of the environment is the default organization's.
            sealed = box.seal(organization, "access_token", None, TOKEN)
            connection.execute(
                "SELECT set_wa_secret('access_token', NULL, %s, %s, %s)",
                (sealed.ciphertext, sealed.key_id, sealed.fingerprint),
            )
            connection.execute(
                "SELECT register_wa_phone_number(%s, %s, %s)", (number, f"+1555078{number}", f"8{number}")
            )
            connection.execute(
                "INSERT INTO wa_templates (name, language, category, status, body_text, waba_id)"
                " VALUES ('hello_world', 'en_US', 'UTILITY', 'APPROVED', 'Hello World', %s)", (f"8{number}",)
            )  # fmt: skip
        connection.execute(
            "SELECT set_config('wa.organization_id', id::text, false) FROM wa_organizations WHERE is_default"
        )
        connection.execute(
            "INSERT INTO wa_outbound_queue (phone, template_name)"
            " SELECT '+1555' || (2000000 + g), 'hello_world' FROM generate_series(1, %s) g", (BACKLOG,)
        )  # fmt: skip
        with dispatchers(db, simulator, 2):
            wait_until(lambda: accepted(simulator) > 500)
            for number in others:
                connection.execute(
                    "SELECT set_config('wa.organization_id', organization_id::text, false)"
                    " FROM wa_phone_numbers WHERE phone_number_id = %s", (number,)
                )  # fmt: skip
                connection.execute(
                    "INSERT INTO wa_outbound_queue (phone, template_name)"
                    " VALUES ('+15559998877', 'hello_world')"
                )
            sent = (
                "SELECT count(*) AS n FROM wa_outbound_queue WHERE phone = '+15559998877' AND status = 'sent'"
            )
            wait_until(lambda: db.query(sent) == [{"n": len(others)}])
            [left] = db.query("SELECT count(*) AS n FROM wa_queue_due")
    assert left["n"] > BACKLOG / 2
    entries = journal(simulator)
    served = {entry["number"]: entry["time"] for entry in entries if entry["to"] == "+15559998877"}
    queued = db.query(
        "SELECT n.phone_number_id AS number, extract(epoch FROM q.created_at)::double precision AS at"
        " FROM wa_outbound_queue q JOIN wa_organizations o ON o.id = q.organization_id"
        " JOIN wa_phone_numbers n ON n.id = o.default_number_id WHERE q.phone = '+15559998877'"
    )
    overtaken = {
        row["number"]: sum(row["at"] < entry["time"] < served[row["number"]] for entry in entries)
        for row in queued
    }
    assert set(overtaken) == set(others)
    # Counted in messages, not in time, which a busy machine stretches: what the backlog may send in a second.
    assert max(overtaken.values()) < 1000, overtaken
