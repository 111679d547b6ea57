"""What one tenant keeps beside another that is hostile, and beside one that is only as busy."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from os import environ, pathsep

import httpx
from harness import Database
from wa_process import KEY, WaProcess, wa
from webhook_bodies import message

from bench import neighbour
from bench.ground import Sink, as_role, dispatcher, fill, settle
from bench.http_load import SECRET, signature
from bench.rounds import Bench
from bench.table import Line

#: Slices of hostility, each followed by one of good behaviour with as much processor time.
SLICES = 10
SLICE_S = 60
AT_LEAST = 0.8
MOST_PICKUP_MS = 2000
#: The queue of the tenant that is measured is never emptier.
FULL = 3000
CLIENTS = 4
SECOND_TENANT = f"""
DO $$
DECLARE
    v_org uuid := create_wa_organization('hostile');
BEGIN
    PERFORM add_wa_organization_role(id, 'bench_app') FROM wa_organizations WHERE is_default;
    CREATE ROLE bench_hostile LOGIN IN ROLE wa_app;
    PERFORM add_wa_organization_role(v_org, 'bench_hostile');
    PERFORM set_config('wa.organization_id', v_org::text, true);
    PERFORM register_wa_phone_number(
        '{neighbour.NUMBER}', '+1 702 555 0100', '102290129349999', throughput => 100000);
    UPDATE wa_organizations SET rate_limit_per_minute = NULL WHERE id = v_org;
    INSERT INTO wa_templates (organization_id, waba_id, name, language, category, status, body_text)
    VALUES (v_org, '102290129349999', 'own_words', 'en', 'UTILITY', 'APPROVED', 'Hello');
END
$$
"""
DONE = """
SELECT (SELECT count(*) FROM wa_outbound_queue q WHERE q.organization_id = o.id AND q.status = 'sent'
        AND q.processed_at BETWEEN to_timestamp(%s) AND to_timestamp(%s)) AS sent,
    (SELECT count(*) FROM wa_messages m WHERE m.organization_id = o.id AND m.direction = 'inbound'
        AND m.created_at BETWEEN to_timestamp(%s) AND to_timestamp(%s)) AS received
FROM wa_organizations o WHERE o.is_default
"""
WAITING = """
SELECT count(*) AS n FROM (
    SELECT FROM wa_queue_due d JOIN wa_organizations o ON o.id = d.organization_id AND o.is_default
    WHERE d.hold_id IS NULL LIMIT 10000
) d
"""


@dataclass
class Load:
    """What the tenant that is measured does all the time: a full queue, webhooks, and a text now and then."""

    database: Database
    url: str
    started: dict[str, float] = field(default_factory=dict)
    failed: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> list[threading.Thread]:
        """Start all of it."""
        work = [self._feed, self._write, *[lambda n=n: self._post(n) for n in range(CLIENTS)]]
        threads = [threading.Thread(target=one, daemon=True) for one in work]
        for thread in threads:
            thread.start()
        return threads

    def _feed(self) -> None:
        first = 0
        with self.database.connect() as connection:
            while not self.is_over.is_set():
                (waiting,) = connection.execute(WAITING).fetchone() or (0,)
                if waiting < FULL:
                    fill(self.database, FULL, first % 90_000)
                    first += FULL
                time.sleep(0.1)

    def _write(self) -> None:
        n = 0
        with as_role(self.database, "bench_app") as connection:
            while not self.is_over.wait(0.2):
                at, n = time.time(), n + 1
                row = connection.execute(
                    "INSERT INTO wa_outbound_queue (phone, text_body, priority) VALUES (%s, 'Now', 'high')"
                    " RETURNING id",
                    (f"+1{6502095000 + n % 5000}",),
                ).fetchone()
                assert row is not None
                self.started[f"q:{row[0]}"] = at

    def _post(self, client_number: int) -> None:
        n = 0
        with httpx.Client(timeout=10) as client:
            while not self.is_over.is_set():
                n += 1
                body = message(
                    f"wamid.bench{client_number}.{n}",
                    f"1{6502000000 + n % 50_000}",
                    int(time.time()),
                    content="Hi",
                )
                try:
                    answer = client.post(
                        self.url, content=body, headers={"x-hub-signature-256": signature(SECRET, body)}
                    )
                    self.failed += answer.status_code != 200
                except httpx.HTTPError:
                    self.failed += 1


def slice_of(
    bench: Bench, database: Database, url: str, mode: str, share: float, seconds: float
) -> tuple[float, float, float]:
    """Messages and webhooks a second beside a neighbour, and the share of a processor that this one used."""
    command = [
        sys.executable,
        "-m",
        "bench.neighbour",
        mode,
        f"{database.dsn} user=bench_hostile",
        url,
        str(share),
    ]
    process = subprocess.Popen(
        command, env={**environ, "PYTHONPATH": pathsep.join(sys.path)}, stdout=subprocess.PIPE, text=True
    )
    used: list[float] = []

    def read() -> None:
        assert process.stdout is not None
        used.extend(json.loads(line)["used"] for line in process.stdout)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        time.sleep(3)
        began = time.time()
        time.sleep(seconds)
        ended = time.time()
    finally:
        process.kill()
        process.wait()
        reader.join(5)
    database.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bench_hostile'")
    # What was committed last is there.
    time.sleep(1)
    row = database.query(DONE, began, ended, began, ended)[0]
    taken = (used[-1] - used[0]) / max(1, len(used) - 1) if used else 0.0
    bench.note(mode, sent=row["sent"], received=row["received"], neighbours_processor=round(taken, 2))
    return row["sent"] / seconds, row["received"] / seconds, taken


def hostile(bench: Bench) -> Iterator[Line]:
    """Drain, webhooks and pick-up of a tenant beside a hostile one, in turn with a well-behaved one."""
    seconds = max(5, bench.size(SLICE_S))
    sink = bench.ground.sink(0)
    with bench.ground.database() as database, ExitStack() as stack:
        database.query(SECOND_TENANT)
        keyed = {"WA_SECRET_KEY": KEY}
        for name in ("app_secret", "access_token"):
            done = wa(
                "secrets", "set", name, "--organization", "hostile",
                database=database, stdin=neighbour.SECRET, **keyed,
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(done.stderr)
        settle(database)
        stack.enter_context(dispatcher(database, sink, **keyed)).logged("dispatching")
        receiver = stack.enter_context(
            WaProcess(
                "serve", "--port", "0", database=database, user="bench_receiver",
                WHATSAPP_APP_SECRET=SECRET, **keyed,
            )
        )  # fmt: skip
        url = "http://{host}:{port}{path}".format(**receiver.logged("serving"))
        load = Load(database, url)
        threads = load.run()
        values: dict[str, list[tuple[float, float, float]]] = {"hostile": [], "behaved": []}
        pickups: list[float] = []
        slice_of(bench, database, url, "behaved", 0.2, seconds / 4)
        for _ in range(max(1, SLICES // bench.scale)):
            load.started.clear()
            values["hostile"].append(slice_of(bench, database, url, "hostile", 0, seconds))
            pickups += _pickups(load, sink)
            values["behaved"].append(
                slice_of(bench, database, url, "behaved", values["hostile"][-1][2], seconds)
            )
        load.is_over.set()
        for thread in threads:
            thread.join(30)
        doubled = database.query(
            "SELECT count(wa_message_id) - count(DISTINCT wa_message_id) AS n FROM wa_messages"
        )[0]["n"]
        bench.note("hostile", webhooks_refused=load.failed, doubled=doubled)
    for place, what, unit in ((0, "drain", "msg/s"), (1, "webhooks", "POST/s")):
        mine, theirs = ([one[place] for one in values[mode]] for mode in values)
        yield Line(
            f"{what} beside a hostile tenant",
            mine,
            unit,
            "a busy one",
            theirs,
            at_least=AT_LEAST,
            is_paired=True,
        )
    pickups.sort()
    yield Line(
        "pick-up beside a hostile tenant, p99",
        [pickups[int(len(pickups) * 0.99)]],
        "ms",
        at_most=MOST_PICKUP_MS,
    )


def _pickups(load: Load, sink: Sink) -> list[float]:
    """Milliseconds until each text arrived; one that has not come counts as if it came now."""
    # One that came with a later attempt came, too.
    arrived = {a["callback"].rpartition(":")[0]: a["time"] for a in sink.call("GET", "arrivals")["arrivals"]}
    now = time.time()
    # The youngest are on their way.
    waited = {callback: at for callback, at in load.started.items() if at < now - 2}
    return [(arrived.get(callback, now) - at) * 1000 for callback, at in waited.items()]
