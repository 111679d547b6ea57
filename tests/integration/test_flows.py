"""Flows where sessions and processes meet: payments against reminders, cancels against steps, two engines.

And definitions and events that nobody would think of.

Tests sql/flows/engine.sql, sql/flows/events.sql, sql/flows/runs.sql, bin/pg_whatsapp/flow_runner.py.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonschema
import psycopg
import pytest
from faults import journal
from harness import CHECKOUT, Database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated import SimulatorProcess, wait_until
from wa_process import WaProcess, wa

PAY = {
    "name": "pay",
    "key": "order",
    "interrupts": {"payment": "thanks"},
    "steps": [
        {"name": "link", "type": "send", "template_name": "hello"},
        {"name": "wait", "type": "wait", "interval": "1 day"},
        {"name": "reminder", "type": "send", "template_name": "sale"},
        {"name": "more", "type": "wait", "interval": "1 day"},
        {"name": "unpaid", "type": "end", "outcome": "unpaid"},
        {"name": "thanks", "type": "send", "template_name": "hello"},
        {"name": "paid", "type": "end", "outcome": "paid"},
    ],
}
PAID = "SELECT _wa_add_flow_event(current_wa_organization(), 'payment', %s, NULL, '{}', %s)"
LATER = "SELECT process_wa_flows(500, clock_timestamp() + interval '25 hours')"


def store(db: Database, definition: dict[str, Any]) -> None:
    db.query("SELECT store_wa_flow(%s)", json.dumps(definition))


def together(*work: Callable[[], Any]) -> None:
    """All at the same moment, each in a thread."""
    gate, failed = threading.Barrier(len(work)), []

    def run(one: Callable[[], Any]) -> None:
        gate.wait()
        try:
            one()
        except psycopg.Error as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.mark.slow
def test_a_payment_and_a_reminder_at_the_same_moment_end_in_a_paid_run_without_a_reminder(
    world: Database,
) -> None:
    store(world, PAY)
    world.query("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
    reminded = 0
    with world.connect() as engine, world.connect() as bank:
        for n in range(200):
            world.query(
                "SELECT start_wa_flow('pay', world.customer(%s), %s)", n, json.dumps({"order": f"O{n}"})
            )
            world.query("SELECT process_wa_flows()")
            together(lambda: engine.execute(LATER), lambda n=n: bank.execute(PAID, (f"O{n}", f"e{n}")))
            world.query("SELECT process_wa_flows()")
            [row] = world.query(
                "SELECT f.status, f.outcome,"
                " (SELECT array_agg(q.template_name || ' ' || q.status ORDER BY q.id)"
                " FROM wa_outbound_queue q WHERE q.reference = 'flow:' || f.id) AS queued"
                " FROM wa_automation_flows f WHERE f.run_key = %s",
                f"O{n}",
            )
            assert (row["status"], row["outcome"]) == ("completed", "paid")
            reminded += len(row["queued"]) == 3
            # What was queued before the payment is taken back; nothing but thanks comes after it.
            assert row["queued"][-1] == "hello pending"
            assert {"hello cancelled", "sale cancelled"} >= set(row["queued"][:-1])
    assert 0 < reminded < 200, "they never met"


@pytest.mark.slow
def test_a_cancel_and_a_step_at_the_same_moment_leave_nothing_behind(world: Database) -> None:
    store(world, PAY)
    with world.connect() as engine, world.connect() as dba:
        for n in range(100):
            world.query(
                "SELECT start_wa_flow('pay', world.customer(%s), %s)", n, json.dumps({"order": f"O{n}"})
            )
            together(
                lambda: engine.execute("SELECT process_wa_flows()"),
                lambda: dba.execute(
                    "UPDATE wa_automation_flows SET status = 'cancelled' WHERE status = 'active'"
                ),
            )
    assert world.query("SELECT DISTINCT status FROM wa_automation_flows") == [{"status": "cancelled"}]
    assert world.query("SELECT 1 FROM wa_outbound_queue WHERE status <> 'cancelled'") == []
    assert world.query("SELECT process_wa_flows(500, clock_timestamp() + interval '9 days') AS n") == [
        {"n": 0}
    ]


@pytest.mark.slow
def test_engines_beside_each_other_carry_each_step_out_once(world: Database) -> None:
    """Some sessions are killed in the middle of it: what they had begun is as if it never was."""
    store(world, PAY)
    world.query("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
    world.query(
        "INSERT INTO wa_automation_flows (phone_e164, flow_type, trigger_data)"
        " SELECT world.customer(n), 'pay', jsonb_build_object('order', n) FROM generate_series(1, 600) n"
    )
    random_one = random.Random(7)  # noqa: S311

    def work() -> None:
        for _ in range(400):
            with world.connect() as engine:
                pid = engine.info.backend_pid
                if random_one.random() < 0.2:
                    threading.Timer(
                        random_one.random() / 20,
                        lambda p=pid: world.query("SELECT pg_terminate_backend(%s)", p),
                    ).start()
                try:
                    (count,) = engine.execute(
                        "SELECT process_wa_flows(23, clock_timestamp() + interval '9 days')"
                    ).fetchone() or (0,)
                except psycopg.OperationalError:
                    continue
            if count == 0:
                return

    together(work, work)
    world.query("SELECT process_wa_flows(5000, clock_timestamp() + interval '9 days')")
    world.query("SELECT process_wa_flows(5000, clock_timestamp() + interval '19 days')")
    world.query("SELECT process_wa_flows(5000, clock_timestamp() + interval '29 days')")
    assert world.query(
        "SELECT status, outcome, count(*) AS n FROM wa_automation_flows GROUP BY status, outcome"
    ) == [{"status": "completed", "outcome": "unpaid", "n": 600}]
    assert world.query(
        "SELECT count(*) AS n, count(DISTINCT idempotency_key) AS k FROM wa_outbound_queue"
    ) == [{"n": 1200, "k": 1200}]
    assert world.query(
        "SELECT max(n) AS n FROM (SELECT count(*) AS n FROM wa_flow_steps GROUP BY flow_id, step, visit) s"
    ) == [{"n": 1}]


def test_an_event_that_comes_while_its_run_is_locked_is_brought_to_it_later(
    world: Database, session: Callable[[], psycopg.Connection[Any]]
) -> None:
    store(
        world,
        {
            "name": "ask",
            "steps": [
                {"name": "w", "type": "wait", "for": "reply", "timeout": "1 day", "on_timeout": "late"},
                {"name": "good", "type": "end", "outcome": "replied"},
                {"name": "late", "type": "end", "outcome": "late"},
            ],
        },
    )
    world.query("SELECT start_wa_flow('ask', world.customer(1))")
    world.query("SELECT process_wa_flows()")
    holder = session()
    holder.execute("UPDATE wa_automation_flows SET last_error = 'looked at'")
    [row] = world.query(
        "SELECT _wa_add_flow_event(f.organization_id, 'reply', NULL, f.contact_id, '{\"text\": \"x\"}', 'm1')"
        " AS id"
        " FROM wa_automation_flows f"
    )
    assert row["id"]
    assert world.query("SELECT process_wa_flows() AS n") == [{"n": 0}]
    holder.rollback()
    assert world.query("SELECT process_wa_flows() AS n") == [{"n": 1}]
    assert world.query("SELECT outcome FROM wa_automation_flows") == [{"outcome": "replied"}]


NAMES = ["a", "b", "c", "d"]
TARGET = st.sampled_from([*NAMES, "end"])
# Mostly on to the following step: what goes round without a wait is refused.
NEXT = st.one_of(st.just({}), st.just({}), st.just({}), st.builds(lambda t: {"next": t}, TARGET))
REFUSED = st.one_of(st.just({}), st.builds(lambda t: {"on_refused": t}, st.sampled_from(["d", "end"])))
VALUE = st.sampled_from(["{{x}}", "{{reply.text|none}}", "plain", '"quoted" \\ {{x|}}'])
WAIT = st.one_of(
    st.builds(lambda i: {"type": "wait", "interval": f"{i} minutes"}, st.integers(1, 90)),
    st.builds(
        lambda f, t: {"type": "wait", "for": f, "timeout": "2 hours", "on_timeout": t},
        st.sampled_from(["reply", "payment", "status", "button"]), TARGET,
    ),
    st.just({"type": "wait", "at": "09:00"}),
)  # fmt: skip
STEP = st.one_of(
    st.builds(
        lambda t, r: r
        | {"type": "send", "text_body": t, "template_name": "order", "template_params": [t, "y"]},
        VALUE, REFUSED,
    ),
    st.builds(lambda r: {"type": "send", "text_body": "Hi"} | r, REFUSED),
    st.builds(lambda w, t: w | {"next": t}, WAIT, TARGET),
    WAIT,
    st.builds(lambda g: {"type": "branch", "cases": [{"when": {"path": "x", "is": "1"}, "goto": g}]}, TARGET),
    st.builds(lambda v: {"type": "set", "values": {"x": v}}, VALUE),
    st.builds(lambda t: {"type": "goto", "next": t}, TARGET),
)  # fmt: skip
ANY_STEP = st.builds(lambda s, n: n | s if s["type"] != "branch" else s, STEP, NEXT)
DEFINITION = st.builds(
    lambda steps, interrupts, visits: {
        "name": "any",
        "key": "k",
        "interrupts": interrupts,
        "limits": {"visits": visits, "age": "20 days", "sends_per_hour": 9},
        "steps": [{"name": name} | step for name, step in zip(NAMES, steps, strict=False)],
    },
    st.lists(ANY_STEP, min_size=2, max_size=4),
    st.dictionaries(st.sampled_from(["reply", "payment", "event:x"]), TARGET, max_size=2),
    st.integers(1, 6),
)
#: How many steps the flows had that were run.
RUNS: list[int] = []
EVENT = st.sampled_from(["reply", "payment", "event:x", "status", "pause", "resume", "nothing"])
SENT = "SELECT count(*) AS n FROM wa_outbound_queue WHERE reference = 'flow:' || %s"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(definition=DEFINITION, events=st.lists(EVENT, max_size=8), is_open=st.booleans())
def check_a_flow(world: Database, definition: dict[str, Any], events: list[str], is_open: bool) -> None:
    with world.connect(autocommit=False) as made:

        def one(statement: str, *args: Any) -> Any:
            row = made.execute(statement.encode(), args or None).fetchone()
            return row[0] if row else None

        made.execute("SET LOCAL statement_timeout = '20s'")
        while True:
            try:
                with made.transaction():
                    one("SELECT store_wa_flow(%s)", json.dumps(definition))
                break
            except psycopg.Error as refusal:
                # Unreachable steps, and loops without a wait: said before anything runs.
                if refusal.sqlstate != "WA701":
                    raise
                unreached = re.search("step (.): no step leads here", str(refusal))
                if unreached is None:
                    made.rollback()
                    return
                definition["steps"] = [s for s in definition["steps"] if s["name"] != unreached[1]]
                if not definition["steps"]:
                    made.rollback()
                    return
        RUNS.append(len(definition["steps"]))
        if is_open:
            made.execute("SELECT world.wrote(1)")
        run = one('SELECT (start_wa_flow(\'any\', world.customer(1), \'{"k": "K", "x": 1}\')).id')
        contact = one("SELECT contact_id FROM wa_automation_flows WHERE id = %s", run)
        hours = 0
        for n, event in enumerate([*events, *["nothing"] * 60]):
            hours += 3 if n < len(events) else 24
            if event in ("pause", "resume"):
                status, former = ("paused", "active") if event == "pause" else ("active", "paused")
                made.execute(
                    "UPDATE wa_automation_flows SET status = %s WHERE id = %s AND status = %s",
                    (status, run, former),
                )
            elif event != "nothing":
                one(
                    "SELECT _wa_add_flow_event(current_wa_organization(), %s, %s, %s, %s, %s)",
                    event,
                    str(one("SELECT last_queue_id FROM wa_automation_flows WHERE id = %s", run) or "x")
                    if event == "status"
                    else "K"
                    if event != "reply"
                    else None,
                    contact,
                    json.dumps({"status": "failed"} if event == "status" else {"text": "1", "button": "b"}),
                    f"e{n}",
                )
            for _ in range(50):
                if not one(
                    "SELECT process_wa_flows(10, clock_timestamp() + make_interval(hours => %s))", hours
                ):
                    break
            else:
                raise AssertionError("it is due again and again")
        status = one("SELECT status FROM wa_automation_flows WHERE id = %s", run)
        assert status != "active"
        keys = one("SELECT count(DISTINCT idempotency_key) FROM wa_outbound_queue")
        sends = one("SELECT count(*) FROM wa_flow_steps WHERE queue_id IS NOT NULL")
        assert one(SENT, run) == keys == sends
        ended = one("SELECT ended_at IS NOT NULL FROM wa_automation_flows WHERE id = %s", run)
        if ended:
            one("SELECT _wa_add_flow_event(current_wa_organization(), 'payment', 'K', NULL, '{}', 'late')")
            one("SELECT process_wa_flows(10, clock_timestamp() + interval '400 days')")
            assert one(SENT, run) == sends
        made.rollback()


@pytest.mark.slow
def test_no_flow_goes_round_for_ever_sends_twice_or_does_anything_after_its_end(world: Database) -> None:
    check_a_flow(world)
    assert sum(steps > 1 for steps in RUNS) > 40


@pytest.mark.slow
def test_a_dispatcher_carries_flows_out_at_once_and_sends_nothing_after_a_payment(
    db: Database, tmp_path: Path
) -> None:
    token = "token-of-ours"
    db.query("SELECT register_wa_phone_number('111', '+1 555 078 0111', '7001'), adopt_wa_database('keep')")
    db.query(
        "INSERT INTO wa_templates (name, category, status, language, body_text) VALUES"
        " ('hello_world', 'UTILITY', 'APPROVED', 'en_US', 'Hello World')"
    )
    steps = json.loads(json.dumps(PAY).replace('"hello"', '"hello_world"').replace('"sale"', '"hello_world"'))
    steps["steps"][1]["interval"] = steps["steps"][3]["interval"] = "3 seconds"
    store(db, steps)
    with ExitStack() as stack:
        simulator = stack.enter_context(
            SimulatorProcess(tmp_path, access_token=token, settings={"window": "off"})
        )
        simulator.client.headers["authorization"] = f"Bearer {token}"
        simulator.post(
            "numbers", phone_number_id="111", display_phone="15550780111", waba_id="7001", portfolio="7001"
        )
        stack.enter_context(
            WaProcess(
                "dispatch", database=db, WHATSAPP_API_BASE_URL=simulator.url, WHATSAPP_ACCESS_TOKEN=token
            )
        ).logged("dispatching")
        db.query("SELECT start_wa_flow('pay', '+15554000001', '{\"order\": \"A\"}')")
        db.query("SELECT start_wa_flow('pay', '+15554000002', '{\"order\": \"B\"}')")
        wait_until(lambda: len(journal(simulator)) >= 2)
        db.query(PAID, "A", "e1")
        ended = "SELECT count(*) AS n FROM wa_automation_flows WHERE status = 'completed'"
        wait_until(lambda: db.query(ended) == [{"n": 2}])
        wait_until(
            lambda: db.query("SELECT 1 FROM wa_outbound_queue WHERE status IN ('pending', 'sending')") == []
        )
        # Link and thanks; link and reminder.
        assert len(journal(simulator)) == 4
    assert db.query("SELECT run_key, outcome FROM wa_automation_flows ORDER BY run_key") == [
        {"run_key": "A", "outcome": "paid"},
        {"run_key": "B", "outcome": "unpaid"},
    ]


def test_definitions_come_from_files_and_go_into_them(world: Database, tmp_path: Path) -> None:
    file = tmp_path / "flows.json"
    file.write_text(
        json.dumps([PAY, {"name": "x", "steps": [{"name": "a", "type": "wait", "interval": "1 day"}]}])
    )
    done = wa("flows", "import", str(file), database=world)
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["pay", "1", "active"],
        ["x", "1", "active"],
    ]
    assert json.loads(wa("flows", "export", "pay", database=world).stdout) == PAY | {"category": "utility"}
    [run] = world.query("SELECT (start_wa_flow('x', world.customer(1))).id")
    listed = wa("flows", "list", "--status", "active", database=world)
    assert str(run["id"]) in listed.stdout
    assert world.query("SELECT world.customer(1) AS c")[0]["c"] not in listed.stdout
    assert wa("flows", "cancel", str(run["id"]), database=world).stdout == "cancelled\n"
    again = wa("flows", "cancel", str(run["id"]), database=world)
    assert (again.returncode, "is cancelled" in again.stderr) == (1, True)
    file.write_text(json.dumps({"name": "x", "steps": [{"name": "a", "type": "sing"}]}))
    bad = wa("flows", "import", str(file), database=world)
    assert bad.returncode == 1
    assert 'flow "x", step a: there is no type "sing"' in bad.stderr
    file.write_text("{")
    assert "is not JSON" in wa("flows", "import", str(file), database=world).stderr


def test_the_schema_and_the_database_take_the_same(world: Database) -> None:
    schema = jsonschema.Draft202012Validator(json.loads((CHECKOUT / "docs/flows.schema.json").read_text()))
    shipped = [row["f"] for row in world.query("SELECT f FROM _wa_default_flows() f")]
    assert len(shipped) == 6
    for definition in [*shipped, PAY]:
        schema.validate(definition)
        assert world.query("SELECT _wa_flow_problem(%s) AS p", json.dumps(definition)) == [{"p": None}]
    text = (CHECKOUT / "tests/pgtap/flows/definitions.sql").read_text()
    bad = re.findall(r"^    \('(\[\{.*?\])', ?\n? *'WA701", text, re.MULTILINE)
    # What no schema can say: which names there are, what is reached, what goes round, which times there are.
    beyond = re.compile(r'"b"\}\]|"a", "type": "end"\}, |"next": "a"|soon|"0"|25:00|"for": "event"')
    found = [steps for steps in bad if not beyond.search(steps)]
    assert len(found) > 15
    for steps in found:
        assert not schema.is_valid({"name": "f", "steps": json.loads(steps)}), steps
