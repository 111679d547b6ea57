"""Rows that cannot go, by cause: how they are queued, and what makes them wait or fail.

Wherever there is a door for applications or operators it is taken; where only time or a webhook would do it
(a window that closed, a restriction of Meta's), the row is written that these would leave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import time

from harness import Database

from bench import by_hand
from bench.ground import ACCOUNT, CONTACTS, KNOWN, NO_QUEUE, Ground, as_role

NUMBER_2 = "106540352242923"
FIRST_NUMBER = f"phone_number_id <> '{NUMBER_2}'"
#: Contacts without a window; they are numbered on from those that have one.
STRANGERS = 100_000
#: Contacts that have their window at the second number too, the last of the known ones.
GUESTS = 1000
FIRST_GUEST = KNOWN - GUESTS

SETUP = f"""
SELECT register_wa_phone_number('{NUMBER_2}', '+1 650 555 0101', '{ACCOUNT}', throughput => 100000);
"""
GUEST_WINDOWS = f"""
INSERT INTO wa_conversation_windows (organization_id, number_id, contact_id, last_customer_message_at)
SELECT c.organization_id, n.id, c.id, clock_timestamp() FROM wa_contacts c
JOIN wa_phone_numbers n ON n.organization_id = c.organization_id AND n.phone_number_id = '{NUMBER_2}'
WHERE c.phone_e164 BETWEEN '+1{6502000000 + FIRST_GUEST}' AND '+1{6502000000 + KNOWN - 1}'
"""

# {who} is the contact's number, reckoned from the row's n. Contacts below 10,000 get what may go.
_TEXTS = """
INSERT INTO wa_outbound_queue (phone, text_body{columns})
SELECT '+1' || 6502000000 + {who}, 'Hello, thank you for your order. It will leave our house today.'{values}
FROM generate_series(0, %(rows)s - 1) n
"""
_TEMPLATES = """
INSERT INTO wa_outbound_queue (phone, template_name, template_params{columns})
SELECT '+1' || 6502000000 + {who}, 'order_update', '["Ann", "A-1042"]'{values}
FROM generate_series(0, %(rows)s - 1) n
"""
OTHER = "10000 + n %% 80000"
STRANGER = f"{KNOWN} + n %% {STRANGERS}"
_QUARTER = "10000 + n %% greatest(1, %(rows)s / 4)"


def texts(who: str = OTHER, columns: str = "", values: str = "") -> str:
    """INSERT of texts; columns and values are more of them, each with its comma before it."""
    return _TEXTS.format(who=who, columns=columns, values=values)


def templates(who: str = OTHER, columns: str = "", values: str = "") -> str:
    """INSERT of templates, likewise."""
    return _TEMPLATES.format(who=who, columns=columns, values=values)


SENDABLE_TEXTS = texts("n", ", reference", ", 'sendable'")
SENDABLE_TEMPLATES = templates("n", ", reference", ", 'sendable'")
SENDABLE_CAMPAIGN = templates(f"{KNOWN} + n", ", reference", ", 'sendable'")
_OF_SECOND_NUMBER = templates(OTHER, ", phone_number_id", f", '{NUMBER_2}'")

CLOSE_WINDOWS = """
UPDATE wa_conversation_windows w SET last_customer_message_at = clock_timestamp() - interval '25 hours'
FROM wa_contacts c
WHERE c.organization_id = w.organization_id AND c.id = w.contact_id
    AND c.phone_e164 BETWEEN '+16502010000' AND '+16502089999'
"""
LOW_TIER = "UPDATE wa_portfolios SET tier_limit = 10"
LOW_MINUTE = "UPDATE wa_organizations SET rate_limit_per_minute = 10"
IN_ORDER_OF_DELIVERY = "UPDATE wa_organizations SET order_mode = 'delivered', order_wait = '1 day'"
BLOCK_TEMPLATES = "UPDATE wa_phone_numbers SET templates_blocked_until = clock_timestamp() + interval '1 day'"
BLOCK_REPLIES = "UPDATE wa_phone_numbers SET replies_blocked_until = clock_timestamp() + interval '1 day'"
PAUSE_TEMPLATE = "UPDATE wa_templates SET status = 'PAUSED' WHERE name = 'order_update'"
PAUSE_SECOND_NUMBER = f"""
UPDATE wa_phone_numbers SET pause_scope = 'number', pause_reason = 'bench', paused_at = clock_timestamp()
WHERE phone_number_id = '{NUMBER_2}'
"""


@dataclass(frozen=True)
class Cause:
    """Rows that stand in front of those that may go, and what stops them."""

    name: str
    #: In words, for the table.
    what: str
    #: How many rows there are, at full size.
    rows: int
    #: INSERT as an application; parameters `rows` and `moment`, a Unix time.
    front: str = ""
    #: As the owner, before anything is queued.
    before: str = ""
    #: As the owner, when all is queued.
    cause: str = ""
    #: What else is done first, with the number of rows and the moment.
    prepare: Callable[[Database, int, float], None] | None = None
    #: Runs in a transaction that stays open.
    lock: str = ""
    #: How many of the rows in front may go after all, at full size.
    goes: int = 0
    #: INSERT of what may go, and of what it is compared with, alone.
    sendable: str = SENDABLE_TEXTS
    alone: str = SENDABLE_TEXTS
    #: Seconds from the first INSERT to the moment.
    moment_in: float = 0


def queue(database: Database, insert: str, rows: int, moment: float = 0) -> None:
    """Queue so many rows, as an application does."""
    with as_role(database, "bench_app") as connection:
        connection.execute(insert.encode(), {"rows": rows, "moment": moment})


def _await_delivery(database: Database, rows: int, moment: float) -> None:
    queue(database, texts("10000 + n"), rows // 4)
    by_hand.send_all(database, rows // 4, lambda: by_hand.ACCEPTED)


def _leave_in_flight(database: Database, rows: int, moment: float) -> None:
    queue(database, texts("10000 + n"), rows // 4)
    by_hand.send_all(database, rows // 4, None)


def _leave_unknown(database: Database, rows: int, moment: float) -> None:
    queue(database, texts("n"), rows)
    by_hand.send_all(database, rows, lambda: by_hand.UNKNOWN)


def _leave_to_retry(database: Database, rows: int, moment: float) -> None:
    queue(database, texts(), rows)
    by_hand.send_all(database, rows, lambda: by_hand.UNAVAILABLE | {"retry_after": max(1.0, moment - time())})


CAUSES = [
    Cause(
        "tier",
        "50,000 templates over the messaging limit",
        50_000,
        templates(STRANGER),
        cause=LOW_TIER,
        goes=10,
    ),
    Cause("pair", "20,000 texts to one recipient", 20_000, texts("95000 + n * 0"), goes=45),
    Cause(
        "campaign",
        "nothing, but they are templates to contacts without a window",
        0,
        sendable=SENDABLE_CAMPAIGN,
    ),
    Cause(
        "spread",
        "3,000 over the pair rate, 30 to each recipient",
        7500,
        texts("10000 + n %% greatest(1, %(rows)s / 75)"),
        goes=4500,
    ),
    Cause(
        "order",
        "20,000 texts after messages whose delivery nobody reports",
        20_000,
        texts(_QUARTER),
        before=IN_ORDER_OF_DELIVERY,
        prepare=_await_delivery,
    ),
    Cause("template", "50,000 of a template paused meanwhile", 50_000, templates(), cause=PAUSE_TEMPLATE),
    Cause(
        "templates-blocked",
        "50,000 templates while Meta restricts templates",
        50_000,
        templates(),
        cause=BLOCK_TEMPLATES,
    ),
    Cause(
        "replies-blocked",
        "50,000 texts while Meta restricts replies",
        50_000,
        texts(),
        cause=BLOCK_REPLIES,
        sendable=SENDABLE_TEMPLATES,
        alone=SENDABLE_TEMPLATES,
    ),
    Cause(
        "panic",
        "50,000 of another number, which is in panic",
        50_000,
        _OF_SECOND_NUMBER,
        cause=f"SELECT trigger_wa_panic('bench', NULL, '{NUMBER_2}')",
    ),
    Cause(
        "paused",
        "50,000 of another number, which is paused",
        50_000,
        _OF_SECOND_NUMBER,
        cause=PAUSE_SECOND_NUMBER,
    ),
    Cause(
        "expiry",
        "50,000 that expire at that moment",
        50_000,
        templates(STRANGER, ", expires_at", ", to_timestamp(%(moment)s)"),
        moment_in=15,
    ),
    Cause(
        "retry",
        "20,000 whose time to be tried again comes at that moment",
        20_000,
        prepare=_leave_to_retry,
        goes=20_000,
        moment_in=25,
    ),
    Cause(
        "minute",
        "50,000 templates over the organization's minute",
        50_000,
        templates(),
        before=LOW_MINUTE,
        goes=10,
    ),
    Cause(
        "in-flight",
        "20,000 texts after messages that another dispatcher holds",
        20_000,
        texts(_QUARTER),
        prepare=_leave_in_flight,
    ),
    Cause(
        "unknown",
        "10,000 of unknown outcome, to the same recipients",
        10_000,
        prepare=_leave_unknown,
    ),
    Cause(
        "scheduled",
        "50,000 templates for later",
        50_000,
        templates(STRANGER, ", scheduled_at", ", clock_timestamp() + interval '1 hour'"),
    ),
    Cause("closed", "50,000 texts whose window closed meanwhile", 50_000, texts(), cause=CLOSE_WINDOWS),
    Cause(
        "fallback",
        "20,000 fall-back templates over the messaging limit",
        20_000,
        texts(
            columns=", fallback_template_name, fallback_template_params",
            values=""", 'order_update', '["Ann", "A-1042"]'""",
        ),
        cause=f"{CLOSE_WINDOWS}; {LOW_TIER}",
        goes=10,
    ),
    Cause(
        "locked",
        "20,000 texts that their owner changes in an open transaction",
        20_000,
        texts(),
        lock="""UPDATE wa_outbound_queue SET metadata = '{"seen": true}' WHERE reference IS NULL""",
    ),
]


def base(ground: Ground) -> Database:
    """The ground's base with a second number, its contacts with a window, and contacts without any."""

    def make(database: Database) -> None:
        with database.connect() as connection:
            connection.execute(SETUP.encode())
            connection.execute(CONTACTS.encode(), (KNOWN, KNOWN + STRANGERS - 1))
            connection.execute(NO_QUEUE)
            connection.execute(GUEST_WINDOWS.encode())
            connection.execute("VACUUM FULL")
            connection.execute("VACUUM ANALYZE")

    return ground.derived("waiting", make)
