"""Events arrive where they are subscribed: signed, in order, at least once, and past receivers that fail.

Tests bin/pg_whatsapp/pusher.py and companion.py as processes, with receivers on sockets.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from event_sink import Got, Reply, Sink, allow_local, deliveries, drain, happen, subscribe
from harness import CHECKOUT, Database
from simulated import NUMBER, SimulatorProcess, wait_until
from standardwebhooks.webhooks import Webhook
from wa_process import KEY, WaProcess, wa
from webhook_bodies import message, status

pytestmark = pytest.mark.slow


@pytest.fixture
def push(db: Database, make_role: Callable[..., str]) -> Iterator[Callable[..., WaProcess]]:
    """Starts `wa dispatch`, with more arguments; ended by SIGKILL at the end of the test."""
    allow_local(db)
    role = make_role("wa_dispatcher")
    made: list[WaProcess] = []

    def start(*arguments: str, **env: str) -> WaProcess:
        env = {"WA_SECRET_KEY": KEY} | env
        made.append(WaProcess("dispatch", *arguments, database=db, user=role, **env))
        return made[-1]

    yield start
    for process in made:
        process.kill()
    # A companion ends by itself, and the database cannot be dropped before.
    wait_until(lambda: not sessions(db))


def sessions(database: Database) -> list[int]:
    """The server processes that pushing processes are connected to."""
    rows = database.query(
        "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'wa events%%' AND datname = %s",
        database.name,
    )
    return [row["pid"] for row in rows]


def test_what_happens_is_pushed_signed_with_a_secret_that_nobody_else_has(
    db: Database, push: Callable[..., WaProcess]
) -> None:
    db.query("SELECT register_wa_phone_number(%s, '+15550783881', '102290129340398')", NUMBER)
    with Sink() as sink:
        subscription = subscribe(db, sink.url)
        process = push()
        now = int(time.time())
        for body in (
            message("wamid.1", "16505550101", now, content="Grüße 🙂", number=NUMBER),
            status("wamid.unknown", "read", now, number=NUMBER),
        ):
            db.query("SELECT ingest_wa_webhook(%s)", body)
        db.query("SELECT process_wa_webhooks()")
        wait_until(lambda: sink.got)
        (got,) = sink.got
        told = Webhook(subscription.secret).verify(got.raw, got.headers)
        assert told["type"] == "message.received"
        assert told["data"]["content_text"] == "Grüße 🙂"
        assert told["data"]["phone_e164"] == "+16505550101"
        assert got.headers["content-type"] == "application/json"

        done = wa("events", "rotate", subscription.id, database=db, WA_SECRET_KEY=KEY)
        assert done.returncode == 0, done.stderr
        new = done.stdout.split()[1]
        db.query("SELECT test_wa_event_subscription(%s)", subscription.id)
        wait_until(lambda: len(sink.got) == 2)
        for secret in (subscription.secret, new):
            assert Webhook(secret).verify(sink.got[1].raw, sink.got[1].headers)["type"] == "test"
        wait_until(lambda: deliveries(db, subscription.id) == {"delivered": 2})
        process.signal()
        assert process.wait() == 0
    everything = json.dumps(
        [
            db.query(f"SELECT t::text AS row FROM {row['name']} t")
            for row in db.query(
                "SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                " AND relkind = 'r'"
            )
        ]
    )
    for secret in (subscription.secret, new):
        assert secret.removeprefix("whsec_") not in everything + "".join(process.raw)
    assert "16505550101" not in "".join(process.raw)
    listed = wa("events", "list", database=db)
    assert subscription.id in listed.stdout
    assert "active" in listed.stdout


def test_without_the_key_nothing_is_pushed_and_nobody_is_blamed(db: Database) -> None:
    allow_local(db)
    with Sink() as sink:
        subscription = subscribe(db, sink.url)
        happen(db)
        done = wa("dispatch", "--only", "events", "--drain", database=db)
        assert done.returncode == 1
        assert "WA_SECRET_KEY" in done.stderr
        drain(db, WA_SECRET_KEY="11" * 32)
        assert sink.got == []
        [row] = db.query("SELECT state, failures, last_error FROM wa_event_subscriptions")
        assert row == {"state": "active", "failures": 0, "last_error": None}
        assert (
            "BAD  master key: 1 older keys missing"
            in wa("doctor", database=db, WA_SECRET_KEY="11" * 32).stdout
        )
        drain(db)
        assert deliveries(db, subscription.id) == {"delivered": 1}


def test_a_conversation_waits_for_what_failed_and_the_others_go_on(db: Database) -> None:
    allow_local(db)
    refused = threading.Event()

    def answer(got: Got) -> Reply:
        if got.contact == 1 and not refused.is_set():
            refused.set()
            return Reply(500)
        return Reply()

    with Sink(answer) as sink:
        subscription = subscribe(db, sink.url)
        happen(db, contacts=20, each=5)
        drain(db)
        assert sink.texts(1) == ["1"]
        assert deliveries(db, subscription.id) == {"delivered": 95, "waiting": 5}
        db.query("UPDATE wa_event_deliveries SET next_attempt_at = now() WHERE next_attempt_at < 'infinity'")
        drain(db)
        assert deliveries(db, subscription.id) == {"delivered": 100}
        assert sink.texts(1) == ["1", "1", "2", "3", "4", "5"]
        assert len({got.id for got in sink.got if got.contact == 1 and got.text == "1"}) == 1
        for contact in range(2, 21):
            assert sink.texts(contact) == ["1", "2", "3", "4", "5"]


def test_an_event_that_commits_late_is_pushed_all_the_same(db: Database) -> None:
    """Its number is lower than that of one that was pushed already."""
    allow_local(db)
    with Sink() as sink:
        subscription = subscribe(db, sink.url)
        with psycopg.connect(db.dsn) as late:
            late.execute(
                "INSERT INTO wa_events (organization_id, kind, status, occurred_at)"
                " VALUES (current_wa_organization(), 'message', 'received', now())"
            )
            happen(db)
            drain(db)
            assert deliveries(db, subscription.id) == {"delivered": 1}
            late.commit()
        drain(db)
        assert deliveries(db, subscription.id) == {"delivered": 2}
        first, second = (got.body["data"]["position"] for got in sink.got)
        assert first < second


def test_the_manual_shows_what_is_pushed(db: Database) -> None:
    allow_local(db)
    manual = (CHECKOUT / "docs/events.md").read_text()
    shown = {one["type"]: one for one in map(json.loads, re.findall(r"```json\n(.*?)```", manual, re.DOTALL))}
    with Sink() as sink:
        subscription = subscribe(db, sink.url, "--kinds", "message,status,conversation")
        for name in [*shown, *re.findall(r"`((?:status|conversation)\.\w+)`", manual)]:
            if name == "test":
                db.query("SELECT test_wa_event_subscription(%s)", subscription.id)
                continue
            kind, _, what = name.partition(".")
            state = {"received": "received", "echo": "sent"}.get(what, what)
            db.query(
                "INSERT INTO wa_events (organization_id, kind, status, occurred_at)"
                " VALUES (current_wa_organization(), %s, %s, now())",
                kind,
                state,
            )
        drain(db)
        pushed = {got.body["type"]: got.body for got in sink.got}
    [row] = db.query("SELECT _wa_event_types() AS types")
    assert set(pushed) == {*row["types"], "test"}
    for name, one in shown.items():
        assert one.keys() == pushed[name].keys()
        assert one["data"].keys() == pushed[name]["data"].keys()
        assert (one["data"].get("kind"), one["data"].get("status")) == (
            pushed[name]["data"].get("kind"),
            pushed[name]["data"].get("status"),
        )


def test_two_processes_push_everything_once_and_in_order(
    db: Database, push: Callable[..., WaProcess]
) -> None:
    with Sink() as sink:
        subscription = subscribe(db, sink.url)
        happen(db, contacts=40, each=15)
        for _ in range(2):
            push("--only", "events")
        wait_until(lambda: deliveries(db, subscription.id) == {"delivered": 600})
        assert max(Counter(sink.ids()).values()) == 1
        for contact in range(1, 41):
            assert sink.texts(contact) == [str(n) for n in range(1, 16)]


def test_a_killed_dispatcher_loses_nothing_and_doubles_only_what_was_under_way(
    db: Database, push: Callable[..., WaProcess]
) -> None:
    go_on = threading.Event()
    arrived = itertools.count(1)

    def answer(got: Got) -> Reply:
        # What comes later hangs, so that the kill meets it.
        if next(arrived) > 100:
            go_on.wait(30)
        return Reply()

    with Sink(answer) as sink:
        subscription = subscribe(db, sink.url)
        happen(db, contacts=60, each=5)
        process = push()
        wait_until(lambda: len(sink.got) >= 105)
        process.process.kill()
        # With it goes its companion, once what it has under way has ended.
        go_on.set()
        process.wait()
        wait_until(lambda: not sessions(db))
        before = deliveries(db, subscription.id)
        assert sum(before.values()) >= 105

        db.query("UPDATE wa_event_deliveries SET next_attempt_at = now() WHERE state = 'sending'")
        drain(db)
        assert deliveries(db, subscription.id) == {"delivered": 300}
        times = Counter(sink.ids())
        assert len(times) == 300
        assert sum(times.values()) <= 310
        for contact in range(1, 61):
            assert list(dict.fromkeys(sink.texts(contact))) == ["1", "2", "3", "4", "5"]


def test_a_killed_companion_is_started_again_and_what_it_had_is_pushed_again(
    db: Database, push: Callable[..., WaProcess]
) -> None:
    go_on = threading.Event()

    def answer(got: Got) -> Reply:
        go_on.wait(30)
        return Reply()

    with Sink(answer) as sink:
        subscription = subscribe(db, sink.url)
        happen(db, contacts=3)
        process = push()
        wait_until(lambda: len(sink.got) == 3)
        (pid,) = {line["pid"] for line in process.log if line["event"] == "pushing events"}
        os.kill(pid, signal.SIGKILL)
        process.logged("a companion ended, to be started again")
        go_on.set()
        wait_until(lambda: len([line for line in process.log if line["event"] == "pushing events"]) == 2)
        assert deliveries(db, subscription.id) == {"sending": 3}
        db.query("UPDATE wa_event_deliveries SET next_attempt_at = now() WHERE state = 'sending'")
        wait_until(lambda: deliveries(db, subscription.id) == {"delivered": 3})
        assert set(Counter(sink.ids()).values()) == {2}


def test_410_ends_a_subscription(db: Database) -> None:
    allow_local(db)
    with Sink(lambda got: Reply(410)) as sink, Sink() as other:
        gone, stays = subscribe(db, sink.url), subscribe(db, other.url)
        happen(db, contacts=3)
        drain(db)
        [row] = db.query("SELECT state, state_reason FROM wa_event_subscriptions WHERE id = %s", gone.id)
        assert row == {"state": "gone", "state_reason": "gone"}
        happen(db, contacts=3)
        drain(db)
        assert len(sink.got) == 3
        assert deliveries(db, stays.id) == {"delivered": 6}


def test_what_fails_for_days_is_disabled_and_told(db: Database) -> None:
    allow_local(db)
    with Sink(lambda got: Reply(500)) as sink:
        subscription = subscribe(db, sink.url)
        happen(db)
        drain(db)
        assert "ok   event subscriptions" in wa("doctor", database=db).stdout
        db.query("UPDATE wa_event_subscriptions SET failing_since = failing_since - interval '2 hours'")
        failing = wa("doctor", database=db)
        assert re.search(r"BAD  event subscriptions: 1 of 1 .*HTTP 500", failing.stdout)
        db.query("UPDATE wa_event_subscriptions SET failing_since = failing_since - interval '5 days'")
        db.query("UPDATE wa_event_deliveries SET next_attempt_at = now()")
        drain(db)
        [row] = db.query("SELECT state, state_reason FROM wa_event_subscriptions")
        assert row == {"state": "disabled", "state_reason": "failing"}
        assert db.query("SELECT 1 FROM audit_log WHERE event = 'event_subscription_failing'")
        assert re.search(r"BAD  event subscriptions: 1 of 1 .*failing", wa("doctor", database=db).stdout)
        sink.answer = lambda got: Reply()
        db.query("SELECT resume_wa_event_subscription(%s)", subscription.id)
        drain(db)
        assert deliveries(db, subscription.id) == {"delivered": 1}
        assert "ok   event subscriptions" in wa("doctor", database=db).stdout


def drip() -> Iterator[bytes]:
    for _ in range(600):
        yield b"."
        time.sleep(0.05)


def test_slow_receivers_delay_nobody_else(db: Database, push: Callable[..., WaProcess]) -> None:
    with Sink(lambda got: Reply(200, (), drip())) as slow, Sink() as quick:
        hostile = [subscribe(db, slow.url) for _ in range(3)]
        fair = subscribe(db, quick.url)
        happen(db, contacts=30, each=4)
        push("--only", "events")
        wait_until(lambda: deliveries(db, fair.id) == {"delivered": 120})
        assert not any(deliveries(db, one.id).get("delivered") for one in hostile)


def test_ten_thousand_events_pass_by_a_dead_subscription(
    db: Database, push: Callable[..., WaProcess]
) -> None:
    with Sink() as dead:
        url = dead.url
    with Sink() as sink:
        gone, fair = subscribe(db, url), subscribe(db, sink.url)
        happen(db, contacts=1000, each=10)
        push("--only", "events")
        wait_until(lambda: deliveries(db, fair.id) == {"delivered": 10_000}, 180)
        assert len(set(sink.ids())) == len(sink.ids()) == 10_000
        # What waits there stays in the feed, and is hardly tried.
        [row] = db.query(
            "SELECT count(*) AS made, coalesce(sum(attempts), 0) AS tried FROM wa_event_deliveries"
            " WHERE subscription_id = %s",
            gone.id,
        )
        assert row["made"] <= 3000
        assert row["tried"] <= 60
        [row] = db.query("SELECT state, last_error FROM wa_event_subscriptions WHERE id = %s", gone.id)
        assert row == {"state": "active", "last_error": "no connection"}


def test_whoever_holds_a_lock_delays_his_own_only(db: Database, push: Callable[..., WaProcess]) -> None:
    [row] = db.query("SELECT current_wa_organization()::text AS a, create_wa_organization('b')::text AS b")
    with Sink() as first, Sink() as second:
        held = subscribe(db, first.url, "--organization", row["a"])
        free = subscribe(db, second.url, "--organization", row["b"])
        with psycopg.connect(db.dsn) as holder:
            holder.execute("SELECT set_config('wa.organization_id', %s, false)", (row["a"],))
            holder.execute("SELECT * FROM read_wa_events('slow')")
            holder.execute("SELECT pause_wa_event_subscription(%s)", (held.id,))
            for organization in (row["a"], row["b"]):
                happen(db, contacts=5, organization=organization)
            push("--only", "events")
            wait_until(lambda: deliveries(db, free.id) == {"delivered": 5})
            assert first.got == []
            holder.rollback()
        wait_until(lambda: deliveries(db, held.id) == {"delivered": 5})


def test_an_answer_that_meets_a_lock_is_recorded_later(db: Database, push: Callable[..., WaProcess]) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def answer(got: Got) -> Reply:
        asked.set()
        go_on.wait(30)
        return Reply()

    with Sink(answer) as sink:
        subscription = subscribe(db, sink.url)
        happen(db)
        push("--only", "events")
        assert asked.wait(20)
        with psycopg.connect(db.dsn) as holder:
            holder.execute("SELECT pause_wa_event_subscription(%s)", (subscription.id,))
            go_on.set()
            wait_until(lambda: db.query("SELECT 1 FROM pg_stat_activity WHERE query ~ 'complete_wa_event'"))
            assert deliveries(db, subscription.id) == {"sending": 1}
            holder.rollback()
        wait_until(lambda: deliveries(db, subscription.id) == {"delivered": 1})
        assert len(sink.got) == 1


def test_receivers_that_hang_do_not_touch_sending(
    db: Database, push: Callable[..., WaProcess], tmp_path: Path
) -> None:
    hang = threading.Event()

    def answer(got: Got) -> Reply:
        hang.wait(60)
        return Reply()

    options = {"pair": False, "throughput": False, "window": "off"}
    token = "EAAG-test-token"
    with (
        Sink(answer) as sink,
        SimulatorProcess(
            tmp_path, waba_id="102290129340398", phone_number_id=NUMBER, access_token=token, settings=options
        ) as simulator,
    ):
        db.query(
            "SELECT register_wa_phone_number(%s, '+15550783881', '102290129340398', throughput => 1000)",
            NUMBER,
        )
        db.query(
            "INSERT INTO wa_templates (name, language, category, status, body_text, waba_id)"
            " VALUES ('hello_world', 'en_US', 'UTILITY', 'APPROVED', 'Hello World', '102290129340398')"
        )
        subscribe(db, sink.url)
        push(WHATSAPP_API_BASE_URL=simulator.url, WHATSAPP_ACCESS_TOKEN=token)
        happen(db, contacts=20)
        wait_until(lambda: sink.got)
        db.query(
            "INSERT INTO wa_outbound_queue (phone, template_name)"
            " SELECT '+1555' || (1000000 + g), 'hello_world' FROM generate_series(1, 300) g"
        )
        wait_until(
            lambda: (
                db.query("SELECT count(*) FROM wa_outbound_queue WHERE status = 'sent'")[0]["count"] == 300
            )
        )
        hang.set()
