"""For the fault test: processes that are killed and started again, a producer, and the balance drawn."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg
from harness import Database
from simulated import SimulatorProcess, wait_until
from wa_process import WaProcess

WABA = "102290129340398"
TOKEN = "EAAG-test-token"
SECRET = "app-secret"
NUMBERS = tuple(f"10654035224292{digit}" for digit in range(4))
TEMPLATES: tuple[dict[str, Any], ...] = (
    {
        "name": "order_ready",
        "category": "UTILITY",
        "components": [{"type": "BODY", "text": "Order {{1}} is ready."}],
    },
    {
        "name": "login_code",
        "category": "AUTHENTICATION",
        "components": [
            {"type": "BODY", "text": "*{{1}}* is your code."},
            {"type": "BUTTONS", "buttons": [{"type": "OTP", "otp_type": "COPY_CODE", "text": "Copy"}]},
        ],
    },
)
# Mode and what it needs to know. A hang outlasts the 30 s that the dispatcher waits for an answer.
MODES: tuple[dict[str, Any], ...] = (
    {"mode": "hang_before", "seconds": 40},
    {"mode": "hang_after", "seconds": 40},
    {"mode": "http_500_json"},
    {"mode": "http_503_html"},
    {"mode": "throttle"},
    {"mode": "pair"},
    {"mode": "error", "code": 131026},
    {"mode": "cut_before"},
    {"mode": "cut_after"},
    {"mode": "garbage"},
    {"mode": "slow", "seconds": 1},
    {"mode": "fail_status", "code": 131026},
)
_BATCH = 50
# So that there is work for as long as processes are killed.
THROUGHPUT = 30
# Who gets free-form messages has written before; both get several messages.
WRITERS = 600
RECIPIENTS = 2000
_STATES = {"sent": 1, "delivered": 2, "read": 3, "failed": 4}


class Fleet:
    """Dispatchers and a receiver by name; each can be killed and started again."""

    def __init__(
        self, database: Database, commands: dict[str, tuple[tuple[str, ...], dict[str, str]]]
    ) -> None:
        self._database = database
        self._commands = commands
        self._running: dict[str, WaProcess] = {}
        #: SIGKILLs so far, by name.
        self.kills: Counter[str] = Counter()

    def start(self, name: str) -> None:
        """Start one and return without waiting."""
        arguments, env = self._commands[name]
        role = "fault_receiver" if arguments[0] == "serve" else "fault_dispatcher"
        self._running[name] = WaProcess(*arguments, database=self._database, user=role, **env)

    def wait_until_up(self, name: str) -> None:
        """Wait until it says that it works."""
        self._running[name].logged("serving" if self._commands[name][0][0] == "serve" else "dispatching")

    def kill(self, name: str) -> None:
        """SIGKILL one that runs, then start it again."""
        process = self._running[name]
        assert process.process.poll() is None, f"{name} ended by itself: {''.join(process.raw[-5:])}"
        process.kill()
        self.kills[name] += 1
        self.start(name)

    def __enter__(self) -> Fleet:
        for name in self._commands:
            self.start(name)
        for name in self._commands:
            self.wait_until_up(name)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.kill()


@dataclass
class Producer:
    """An application that queues messages in batches and repeats a batch whose commit it did not see."""

    database: Database
    messages: list[dict[str, Any]]
    queued: int = 0
    _failure: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """Wait for the end; raises what went wrong."""
        self._thread.join(120)
        if self._failure:
            raise self._failure[0]
        assert self.queued == len(self.messages)

    def _run(self) -> None:
        try:
            for batch in _batches(self.messages):
                wait_until(partial(self._queue, batch))
                self.queued += len(batch)
        except BaseException as error:
            self._failure.append(error)

    def _queue(self, batch: list[dict[str, Any]]) -> bool:
        try:
            with self.database.connect(user="fault_app") as connection:
                connection.execute(
                    "INSERT INTO wa_outbound_queue (idempotency_key, phone_number_id, phone, text_body,"
                    " template_name, template_language, template_params, on_unknown, expires_at)"
                    " SELECT m.key, m.number, m.phone, m.text, m.template, m.language, m.params,"
                    " m.on_unknown, 'infinity'"
                    " FROM jsonb_to_recordset(%s) AS m (key text, number text, phone text, text text,"
                    " template text, language text, params jsonb, on_unknown text)"
                    " ON CONFLICT (organization_id, idempotency_key) DO NOTHING",
                    (json.dumps(batch),),
                )
        except psycopg.OperationalError as error:
            # The server was stopped; anything else is a mistake.
            if error.sqlstate is not None and not error.sqlstate.startswith(("57P", "08")):
                raise
            return False
        return True


def _batches(messages: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(messages), _BATCH):
        yield messages[start : start + _BATCH]


def make_messages(
    count: int, chance: random.Random, numbers: tuple[str, ...] = NUMBERS
) -> list[dict[str, Any]]:
    """That many messages: six in ten templates, three free-form, one a code; recipients get several."""
    messages: list[dict[str, Any]] = []
    for n in range(count):
        kind = n % 10
        place = chance.randrange(WRITERS if kind < 3 else RECIPIENTS)
        number = numbers[place % len(numbers)]
        message: dict[str, Any] = {
            "key": f"message-{n}",
            "number": number,
            "phone": f"+1555{2000000 + place}",
        }
        if kind < 3:
            message |= {"phone": writer(place), "text": f"Hello {n}"}
        elif kind < 9:
            message |= {"template": "order_ready", "language": "en_US", "params": [str(n)]}
        else:
            message |= {"template": "login_code", "language": "en_US", "params": [str(100000 + n)]}
        messages.append(message)
    return messages


def writer(place: int) -> str:
    """The number of a customer who has written, of those whom free-form messages go to."""
    return f"+1555{3000000 + place}"


def prepare(
    database: Database,
    *,
    grace: str,
    numbers: tuple[str, ...] = NUMBERS,
    provider: str = "meta",
) -> None:
    """Register numbers and roles; an unknown outcome fails after the grace, unless a message says else."""
    for group in ("wa_app", "wa_dispatcher", "wa_receiver"):
        database.query(f"CREATE ROLE fault_{group.removeprefix('wa_')} LOGIN IN ROLE {group}")
    database.query("SELECT adopt_wa_database()")
    for place, number in enumerate(numbers):
        database.query(
            "SELECT register_wa_phone_number(%s, %s, %s, %s, throughput => %s)",
            number, f"+1555078388{place}", WABA, provider, THROUGHPUT,
        )  # fmt: skip
    database.query(
        "UPDATE wa_organizations SET rate_limit_per_minute = NULL, on_unknown = 'fail', unknown_grace = %s,"
        " unknown_grace_silent = interval '10 minutes'",
        grace,
    )  # fmt: skip


def let_customers_write(
    simulator: SimulatorProcess, database: Database, numbers: tuple[str, ...] = NUMBERS
) -> None:
    """Open the windows that free-form messages need, by webhooks."""
    for place in range(WRITERS):
        number = numbers[place % len(numbers)]
        said = simulator.post("customer", number=number, phone=writer(place), text="Hello?")
        assert said["delivered"]
    opened = "SELECT count(*) AS n FROM wa_conversation_windows"
    wait_until(lambda: database.query(opened)[0]["n"] == WRITERS)


def let_it_fail(simulator: SimulatorProcess, every: int, modes: tuple[dict[str, Any], ...] = MODES) -> None:
    """Put every way to fail in force, each for one request in so many unless it says itself."""
    simulator.post("faults", faults=[{"every": every, **mode} for mode in modes])


def journal(simulator: SimulatorProcess) -> list[dict[str, Any]]:
    """All that the provider accepted."""
    entries: list[dict[str, Any]] = []
    while True:
        page = simulator.get("journal", limit=10_000, after=len(entries))
        entries += page["entries"]
        if len(entries) >= page["total"]:
            return entries


def tolerant(database: Database, statement: str) -> list[dict[str, Any]] | None:
    """The rows of a query, None while the server is away."""
    try:
        return database.query(statement)
    except psycopg.OperationalError:
        return None


@dataclass
class Balance:
    """What became of the messages, by the database and by the provider."""

    rows: dict[str, dict[str, Any]]
    accepted: dict[str, list[dict[str, Any]]]

    @property
    def lost(self) -> list[str]:
        """Neither accepted nor failed with a reason."""
        return [
            key
            for key, row in self.rows.items()
            if key not in self.accepted
            and not (row["status"] == "failed" and row["error_code"] and row["last_error"])
        ]

    @property
    def doubled(self) -> list[str]:
        """Accepted more than once."""
        return [key for key, entries in self.accepted.items() if len(entries) > 1]

    @property
    def unfinished(self) -> list[str]:
        """In no final state."""
        return [key for key, row in self.rows.items() if row["status"] not in ("sent", "failed")]

    @property
    def disagreeing(self) -> list[str]:
        """Where the queue tells another story than the provider: sent or not, under which id."""
        return [
            key
            for key, row in self.rows.items()
            if [row["wa_message_id"]] != [entry["wamid"] for entry in self.accepted.get(key, [])][:1]
            and (key in self.accepted or row["status"] == "sent")
        ]

    def codes(self, on_unknown: str | None = None) -> dict[str, int]:
        """Failed rows that ask for this with an unknown outcome, by reason."""
        return dict(
            Counter(
                row["error_code"]
                for row in self.rows.values()
                if row["status"] == "failed" and row["on_unknown"] == on_unknown
            )
        )


def draw_balance(database: Database, simulator: SimulatorProcess) -> Balance:
    """Compare the queue with the journal."""
    accepted: dict[str, list[dict[str, Any]]] = {}
    for entry in journal(simulator):
        accepted.setdefault(entry["callback"].split(":")[1], []).append(entry)
    rows = database.query(
        "SELECT id::text, status, error_code, last_error, wa_message_id, on_unknown FROM wa_outbound_queue"
    )
    return Balance({row["id"]: row for row in rows}, accepted)


def wrong_states(database: Database, balance: Balance) -> list[tuple[str, str, str]]:
    """Messages (wamid, state, expected) whose state is not the furthest that the provider reported."""
    rows = database.query("SELECT wa_message_id, state FROM wa_messages WHERE wa_message_id IS NOT NULL")
    known = {row["wa_message_id"]: row["state"] for row in rows}
    return [
        (entry["wamid"], str(known.get(entry["wamid"])), expected)
        for entries in balance.accepted.values()
        for entry in entries
        for expected in [max(entry["statuses"], key=_STATES.__getitem__)]
        if known.get(entry["wamid"]) != expected
    ]


class Chaos:
    """Kills at random moments, told by the number of messages that were accepted meanwhile."""

    def __init__(self, simulator: SimulatorProcess, fleet: Fleet, chance: random.Random) -> None:
        self._simulator = simulator
        self._fleet = fleet
        self._chance = chance

    def _accepted(self) -> int:
        return int(self._simulator.get("stats")["accepted"])

    def let_pass(self, fewest: int, most: int, seconds: float = 2.0) -> None:
        """Return once some more messages were accepted, a random number; or after so many seconds."""
        until = self._accepted() + self._chance.randint(fewest, most)
        deadline = time.monotonic() + seconds
        wait_until(lambda: self._accepted() >= until or time.monotonic() > deadline, seconds + 20)

    def kill_each(self, names: list[str]) -> None:
        """Kill these one after the other, each while it works."""
        for name in names:
            self._fleet.wait_until_up(name)
            self.let_pass(20, 120)
            self._fleet.kill(name)


def is_settled(simulator: SimulatorProcess, database: Database) -> bool:
    """Nothing is queued, in flight or unknown, and every webhook has been taken and processed."""
    rows = tolerant(
        database,
        "SELECT (SELECT count(*) FROM wa_queue_due) + (SELECT count(*) FROM wa_queue_inflight)"
        " + (SELECT count(*) FROM wa_webhook_logs WHERE status = 'pending')"
        " + (SELECT count(*) FROM wa_late_results)"
        " + (SELECT count(*) FROM wa_webhook_errors WHERE sqlstate = '55P03' AND resolved_at IS NULL)"
        " + (SELECT count(*) FROM wa_message_statuses WHERE message_id IS NULL) AS open",
    )
    return rows == [{"open": 0}] and simulator.get("stats")["webhooks"]["pending"] == 0
