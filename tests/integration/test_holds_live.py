"""What has to wait keeps nobody waiting: one test a cause, with dispatchers at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faults import journal
from harness import Database
from simulated import SimulatorProcess, wait_until
from wa_process import WaProcess

pytestmark = pytest.mark.slow

TOKEN = "EAAG-test-token"
HELD = 600
REPLIES = 20
TEMPLATES = """
    INSERT INTO wa_outbound_queue (phone, template_name, reference)
    SELECT '+1555' || 4000000 + n, 'hello_world', 'held' FROM generate_series(1, %s) n
"""
TEMPLATES_TO_ONE = """
    INSERT INTO wa_outbound_queue (phone, template_name, reference, expires_at)
    SELECT '+15554000900', 'hello_world', 'held', clock_timestamp() + interval '10 days'
    FROM generate_series(1, %s) n
"""
TEXTS = """
    INSERT INTO wa_outbound_queue (phone, text_body, reference)
    SELECT '+1555' || 3000100 + n, 'Hello', 'held' FROM generate_series(1, %s) n
"""
TO_ONE = """
    INSERT INTO wa_outbound_queue (phone, text_body, reference)
    SELECT '+15553000900', 'Hello', 'held' FROM generate_series(1, %s) n
"""
OTHER_NUMBER = """
    INSERT INTO wa_outbound_queue (phone, template_name, reference, phone_number_id)
    SELECT '+1555' || 4000000 + n, 'hello_world', 'held', '112' FROM generate_series(1, %s) n
"""
#: Answers inside open windows, queued after all that is held.
ANSWERS = """
    INSERT INTO wa_outbound_queue (phone, text_body, reference, phone_number_id)
    SELECT '+1555' || 3000000 + n, 'Hello', 'reply', '111' FROM generate_series(1, %s) n
"""
WINDOWS = """
    INSERT INTO wa_conversation_windows (contact_id, number_id, last_customer_message_at)
    SELECT r.contact_id, n.id, clock_timestamp()
    FROM wa_phone_numbers n
    CROSS JOIN (SELECT array_agg('+1555' || 3000000 + p) AS phones FROM generate_series(1, 999) p) w
    CROSS JOIN LATERAL _wa_resolve_contacts(
        current_wa_organization(), w.phones, array_fill(NULL::text, ARRAY[999]), 'test') r
"""


@dataclass(frozen=True)
class Cause:
    """What is queued, and what then keeps it from going; how many of it may go all the same."""

    rows: str
    cause: str = "SELECT"
    goes: int = 0
    #: What its rows say while they wait, or the code that they fail with.
    says: str = ""


CAUSES = {
    "messaging limit": Cause(
        TEMPLATES, "UPDATE wa_portfolios SET tier_limit = 1", goes=1, says="messaging_limit"
    ),
    "pair rate": Cause(TO_ONE, goes=45, says="recipient_rate"),
    "order": Cause(
        TO_ONE,
        "UPDATE wa_organizations SET order_mode = 'delivered', order_wait = '1 hour'",
        goes=1,
        says="in_order",
    ),
    "template state": Cause(
        TEMPLATES, "UPDATE wa_templates SET status = 'PAUSED'", says="template_unavailable"
    ),
    "templates restricted": Cause(
        TEMPLATES,
        "UPDATE wa_phone_numbers SET templates_blocked_until = clock_timestamp() + interval '1 hour'",
        says="restricted",
    ),
    "panic of another number": Cause(
        OTHER_NUMBER, "SELECT trigger_wa_panic('wrong text', NULL, '112')", says="panic"
    ),
    "window closed": Cause(
        TEXTS,
        "UPDATE wa_conversation_windows w SET window_denied_at = clock_timestamp() FROM wa_contacts c"
        " WHERE c.id = w.contact_id AND c.phone_e164 > '+15553000100'",
        says="window_closed",
    ),
    "expiry": Cause(
        TEMPLATES,
        "UPDATE wa_outbound_queue SET expires_at = clock_timestamp() WHERE reference = 'held'",
        says="expired",
    ),
    "quiet hours": Cause(
        TEMPLATES,
        "INSERT INTO wa_quiet_hours (from_time, to_time) VALUES ('00:00', '24:00')",
        says="quiet_hours",
    ),
    "cap": Cause(
        TEMPLATES_TO_ONE,
        "INSERT INTO wa_contact_caps VALUES (DEFAULT, 'all', 2, 7)",
        goes=2,
        says="contact_cap",
    ),
    "retry": Cause(
        TEMPLATES,
        "UPDATE wa_queue_due SET due_at = clock_timestamp() + interval '1 hour', hold_reason = 'retry'",
        says="retry",
    ),
}


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path, access_token=TOKEN, settings={"window": "off"}) as made:
        made.client.headers["authorization"] = f"Bearer {TOKEN}"
        yield made


def arrivals(db: Database, simulator: SimulatorProcess) -> list[str]:
    """The references of the messages that the provider accepted, in its order."""
    references = {
        str(row["id"]): row["reference"] for row in db.query("SELECT id, reference FROM wa_outbound_queue")
    }
    return [references[entry["callback"].split(":")[1]] for entry in journal(simulator)]


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_answers_arrive_before_what_has_to_wait(
    db: Database, simulator: SimulatorProcess, cause: Cause
) -> None:
    db.query("SELECT adopt_wa_database()")
    for number in ("111", "112"):
        db.query("SELECT register_wa_phone_number(%s, %s, '7001', 'meta', 1000)", number, f"+1555078{number}")
        simulator.post(
            "numbers", phone_number_id=number, display_phone=f"1555078{number}", waba_id="7001",
            portfolio="7001", throughput=1000,
        )  # fmt: skip
    db.query("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
    db.query(
        "INSERT INTO wa_templates (name, language, category, status, body_text, waba_id)"
        " VALUES ('hello_world', 'en_US', 'UTILITY', 'APPROVED', 'Hello World', '7001')"
    )
    db.query(WINDOWS)
    db.query(cause.rows, HELD)
    db.query(cause.cause)
    db.query(ANSWERS, REPLIES)
    settings: dict[str, Any] = {"WHATSAPP_API_BASE_URL": simulator.url, "WHATSAPP_ACCESS_TOKEN": TOKEN}
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(WaProcess("dispatch", database=db, **settings)).logged("dispatching")
        wait_until(lambda: arrivals(db, simulator).count("reply") == REPLIES)
        waiting = (
            "SELECT DISTINCT coalesce(q.error_code, e.reason) AS says"
            " FROM wa_outbound_queue q, explain_wa_message(q.id) e"
            " WHERE q.reference = 'held' AND q.status IN ('pending', 'failed')"
        )
        # What fails does so while the answers go, a few at a time, and all of it in the end.
        wait_until(lambda: db.query(waiting) == [{"says": cause.says}])
    assert arrivals(db, simulator).count("held") == cause.goes
