"""No sequence of consent and sending reaches whoever opted out, whatever the path and however many sessions.

A model beside the database keeps what each customer asked for, by rules written down a second time; four
sessions queue, opt out and claim, some in transactions that end later. `make test` tries a dozen sequences,
FUZZ_EXAMPLES more. Tests sql/consent/consent.sql, sql/consent/keywords.sql, sql/consent/merge.sql,
sql/queue/policy.sql, sql/packs/events/tasks.sql.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar, LiteralString
from uuid import UUID

import psycopg
import pytest
from harness import Database
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.types.json import Jsonb
from webhook_bodies import ACCOUNT_ID, DISPLAY_PHONE, NUMBER_ID, message, preference

pytestmark = pytest.mark.slow

SESSIONS = 4
DISPATCHER = "00000000-0000-0000-0000-00000000000{}"
KINDS = ["text", "person", "sale", "hello", "code"]
CATEGORIES = {"sale": "marketing", "hello": "utility", "code": "authentication", "text": "utility"}
SCOPES = ["marketing", "utility", "authentication", "all"]
WORDS = {
    "STOP": ("marketing", "utility"),
    "Отписаться!": ("marketing", "utility"),
    # In full-width letters.
    "\uff23\uff41\uff4e\uff43\uff45\uff4c": ("marketing", "utility"),
    "stop promotions": ("marketing",),
}
seldom = st.sampled_from([False, False, False, True])
#: Later than any message of a test: what was asked for by hand is asked now, messages are of before.
BY_HAND = 10**12


@dataclass
class Customer:
    """What a customer asked for: by scope, and whether a word did it, when last; and when they last wrote."""

    phone: str | None
    user_id: str | None = None
    opted_out: dict[tuple[str, bool], int] = field(default_factory=dict)
    wrote_at: int = 0
    confirmations: int = 0

    @property
    def address(self) -> str:
        return self.phone or self.user_id or ""

    def stopping(self, category: str) -> list[int]:
        return [at for (scope, _), at in self.opted_out.items() if scope in ("all", category)]

    def may_get(self, kind: str) -> bool:
        if kind == "person":
            return all(at < self.wrote_at for at in self.stopping("utility"))
        return not self.stopping(CATEGORIES[kind])

    def opt_out(self, scope: str, is_keyword: bool, at: int) -> bool:
        is_new = (scope, is_keyword) not in self.opted_out
        self.opted_out[scope, is_keyword] = max(at, self.opted_out.get((scope, is_keyword), 0))
        return is_new

    def opt_in(self, scope: str, before: int = BY_HAND + 1) -> None:
        self.opted_out = {
            k: at for k, at in self.opted_out.items() if scope not in ("all", k[0]) or at >= before
        }


class Paths(RuleBasedStateMachine):
    """Four sessions and three customers, one of whom is known by a user id only."""

    db: Database
    examples = 0
    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        Paths.examples += 1
        self.now = int(time.time()) - 3600
        first = 10 * Paths.examples
        self.customers = [
            Customer(f"+1650555{first:04}"),
            Customer(f"+1650555{first + 1:04}"),
            Customer(None, f"US.1000000{first:06}"),
        ]
        self.owner = self.db.connect(autocommit=True)
        self.owner.execute("SET lock_timeout = '5s'")
        self.sessions = [self.db.connect(autocommit=True) for _ in range(SESSIONS)]
        for session in self.sessions:
            # What waits here waits for good: one thread plays them all.
            session.execute("SET lock_timeout = '5s'")
        #: Opt-outs of transactions that are open, by session.
        self.open: dict[int, list[tuple[Customer, str]]] = {}
        self.messages = 0
        for customer in self.customers:
            self.say(customer, "Hello")

    def teardown(self) -> None:
        for session in self.sessions:
            session.close()
        self.ask("UPDATE wa_outbound_queue SET status = 'cancelled' WHERE status = 'pending'")
        self.owner.close()

    # Helpers.

    def say(self, customer: Customer, words: str, also_as: str | None = None) -> None:
        self.now += 1
        self.messages += 1
        wamid = f"wamid.{Paths.examples}.{self.messages}"
        sender = customer.phone[1:] if customer.phone else None
        self.take_in(message(wamid, sender, self.now, content=words, user_id=also_as or customer.user_id))
        customer.wrote_at = self.now

    def take_in(self, body: bytes) -> None:
        self.ask("SELECT ingest_wa_webhooks(%s::bytea[], NULL)", [body])
        self.ask("SELECT process_wa_webhooks()")
        assert self.ask("SELECT error FROM wa_webhook_errors") == []

    def ask(self, statement: LiteralString, *values: Any) -> list[tuple[Any, ...]]:
        cursor = self.owner.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []

    def is_free(self, customer: Customer) -> bool:
        """Whether no open transaction holds rows of the customer, for which a change would wait."""
        return all(customer is not other for done in self.open.values() for other, _ in done)

    def free(self, n: int) -> Customer | None:
        customer = self.customers[n % len(self.customers)]
        return customer if self.is_free(customer) else None

    # What customers say and press, and what is done by hand.

    @rule(n=st.integers(0, 2), words=st.sampled_from([*WORDS, "Hello", "please stop it", "START"]))
    def customer_writes(self, n: int, words: str) -> None:
        customer = self.free(n)
        if customer is None:
            return
        stopped_before = bool(customer.stopping("utility"))
        self.say(customer, words)
        if words in WORDS:
            new = [customer.opt_out(scope, True, self.now) for scope in WORDS[words]]
            customer.confirmations += any(new) and not stopped_before
        elif words == "START":
            customer.opted_out = {k: at for k, at in customer.opted_out.items() if not k[1]}

    @rule(n=st.integers(0, 1), choice=st.sampled_from(["stop", "resume"]))
    def customer_chooses(self, n: int, choice: str) -> None:
        customer = self.free(n)
        if customer is None:
            return
        self.now += 1
        self.take_in(preference((customer.phone or "")[1:], self.now, choice))
        if choice == "stop":
            customer.opt_out("marketing", False, self.now)
        else:
            # What was asked for after the choice stands.
            customer.opt_in("marketing", self.now)

    @rule(
        n=st.integers(0, 2),
        scope=st.sampled_from(SCOPES),
        way=st.sampled_from(["function", "row", "file"]),
        session=st.integers(0, SESSIONS - 1),
        stays_open=seldom,
    )
    def opted_out_by_hand(self, n: int, scope: str, way: str, session: int, stays_open: bool) -> None:
        customer = self.free(n)
        if customer is None or session in self.open:
            return
        on = self.sessions[session]
        if stays_open:
            on.execute("BEGIN")
        if way == "function":
            on.execute("SELECT opt_out_wa_contact(%s, %s)", (customer.address, scope))
        elif way == "file":
            line = {"phone" if customer.phone else "user_id": customer.address, "scope": scope}
            on.execute("SELECT import_wa_opt_outs(%s)", (Jsonb([line]),))
        else:
            on.execute(
                "INSERT INTO wa_opt_outs (contact_id, scope)"
                " SELECT _wa_find_contact(current_wa_organization(), %s), %s"
                " ON CONFLICT (organization_id, contact_id, scope, is_keyword) WHERE revoked_at IS NULL"
                " DO NOTHING",
                (customer.address, scope),
            )
        if stays_open:
            self.open[session] = [(customer, scope)]
        else:
            customer.opt_out(scope, False, BY_HAND)

    @rule(n=st.integers(0, 2), scope=st.sampled_from(SCOPES))
    def opted_in_by_hand(self, n: int, scope: str) -> None:
        customer = self.free(n)
        if customer is not None:
            self.ask("SELECT opt_in_wa_contact(%s, %s)", customer.address, scope)
            customer.opt_in(scope)

    @precondition(lambda self: len(self.customers) == 3)
    @rule()
    def two_turn_out_to_be_one(self) -> None:
        by_phone, by_user_id = self.customers[1], self.customers[2]
        if not (self.is_free(by_phone) and self.is_free(by_user_id)):
            return
        self.say(by_phone, "It is me", also_as=by_user_id.user_id)
        for key, at in by_user_id.opted_out.items():
            by_phone.opt_out(*key, at)
        by_phone.user_id = by_user_id.user_id
        by_phone.confirmations += by_user_id.confirmations
        self.customers.pop()

    # Sending, by every path.

    @rule(
        n=st.integers(0, 2),
        kind=st.sampled_from(KINDS),
        path=st.sampled_from(
            ["insert", "copy", "function", "functions", "http", "view", "scheduled", "pack"]
        ),
        session=st.integers(0, SESSIONS - 1),
        stays_open=seldom,
    )
    def queue(self, n: int, kind: str, path: str, session: int, stays_open: bool) -> None:
        customer = self.customers[n % len(self.customers)]
        row: dict[str, Any] = {"phone": customer.address, "reference": kind}
        if kind in ("text", "person"):
            row |= {"text_body": "Hello"} | ({"sent_by": "ann"} if kind == "person" else {})
        else:
            row |= {"template_name": kind} | ({"template_params": ["1"]} if kind == "code" else {})
        on = self.sessions[session]
        if stays_open and session not in self.open:
            on.execute("BEGIN")
            self.open[session] = []
        try:
            with on.transaction():
                self.queue_by(on, path, row)
        except psycopg.Error as refusal:
            if refusal.sqlstate not in ("WA101", "WA102"):
                raise
            self.seen["refused"] += 1

    def queue_by(self, on: psycopg.Connection[Any], path: str, row: dict[str, Any]) -> None:
        if path == "function":
            row = {k: Jsonb(v) if k == "template_params" else v for k, v in row.items()}
            names = ", ".join(f"{name} => %({name})s" for name in row)
            on.execute(f"SELECT enqueue_wa_message({names})".encode(), row)
        elif path == "functions":
            on.execute("SELECT enqueue_wa_messages(%s)", (Jsonb([row, row]),))
        elif path == "http":
            on.execute("SELECT send_wa_message(%s)", (Jsonb(row),))
        elif path == "pack" and "template_name" in row and "template_params" not in row:
            self.queue_by_event(on, row)
        elif path == "view" and "template_name" in row:
            on.execute(
                "INSERT INTO whatsapp_queue (recipient_phone, template_name, template_variables) VALUES"
                " (%s, %s, %s)",
                (row["phone"], row["template_name"], Jsonb(row.get("template_params", []))),
            )
        else:
            row = {k: json.dumps(v) if k == "template_params" else v for k, v in row.items()}
            if path == "scheduled":
                # Due in a moment: judged when it is inserted, and again when it is claimed.
                row["scheduled_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
            columns = ", ".join(row)
            if path == "copy":
                with on.cursor().copy(f"COPY wa_outbound_queue ({columns}) FROM STDIN".encode()) as copy:
                    copy.write_row(tuple(row.values()))
            else:
                places = ", ".join(["%s"] * len(row))
                on.execute(
                    f"INSERT INTO wa_outbound_queue ({columns}) VALUES ({places})".encode(),
                    list(row.values()),
                )

    def queue_by_event(self, on: psycopg.Connection[Any], row: dict[str, Any]) -> None:
        """The message of an event's task to its one attendee, of tables that somebody else fills."""
        (event,) = on.execute(
            "INSERT INTO ai_events (name, start_date, reminders)"
            " VALUES ('Fair', now() + interval '30 days', '{}') RETURNING id"
        ).fetchall()
        on.execute(
            "WITH o AS (INSERT INTO orders (event_id) VALUES (%s) RETURNING id)"
            " INSERT INTO attendees (order_id, attendee_info) SELECT id, %s FROM o",
            (event[0], Jsonb({"phone": row["phone"]})),
        )
        on.execute(
            "INSERT INTO ai_tasks (event_id, task_type, scheduled_for, template_name)"
            " VALUES (%s, 'send_update', clock_timestamp(), %s)",
            (event[0], row["template_name"]),
        )
        on.execute("SELECT run_wa_event_tasks()")

    @rule(
        kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=4), session=st.integers(0, SESSIONS - 1)
    )
    def queue_and_claim(self, kinds: list[str], session: int) -> None:
        for n, kind in enumerate(kinds):
            self.queue(n, kind, "insert", session, False)
        self.claim(session, False, True)

    @rule(n=st.integers(0, 2), what=st.sampled_from(["retry", "reschedule", "hurry"]))
    def send_again(self, n: int, what: str) -> None:
        customer = self.free(n)
        if customer is None or self.open:
            return
        statement = {
            "retry": b"SELECT retry_wa_messages(phone => %s)",
            "reschedule": b"SELECT reschedule_wa_messages(clock_timestamp(), phone => %s)",
            "hurry": b"UPDATE wa_outbound_queue SET priority = 'high' WHERE phone = %s AND status ="
            b" 'pending'",
        }[what]
        try:
            self.sessions[0].execute(statement, (customer.address,))
        except psycopg.Error as refusal:
            if refusal.sqlstate not in ("WA101", "WA102"):
                raise
            self.seen["refused again"] += 1

    @rule(session=st.integers(0, SESSIONS - 1), commit=st.booleans())
    def end(self, session: int, commit: bool) -> None:
        done = self.open.pop(session, None)
        if done is None:
            return
        self.sessions[session].execute(b"COMMIT" if commit else b"ROLLBACK")
        if commit:
            for customer, scope in done:
                customer.opt_out(scope, False, BY_HAND)

    @rule(session=st.integers(0, SESSIONS - 1), later=st.booleans(), accepted=st.booleans())
    def claim(self, session: int, later: bool, accepted: bool) -> None:
        if session in self.open:
            return
        if later and not self.open:
            self.ask("SELECT world.later('2 seconds')")
        on = self.sessions[session]
        rows = on.execute(
            "SELECT c.queue_id, c.organization_id, c.attempt, c.body::jsonb, q.template_name, q.sent_by,"
            " q.metadata"
            " FROM claim_wa_messages(%s, 50) c JOIN wa_outbound_queue q ON q.id = c.queue_id",
            (DISPATCHER.format(session),),
        ).fetchall()
        results = []
        for queue_id, org, attempt, body, template, sent_by, metadata in rows:
            customer = self.recipient_of(queue_id)
            if customer is not None:
                if metadata.get("confirms"):
                    assert customer.confirmations > 0, "a confirmation that nobody is due"
                    customer.confirmations -= accepted
                    self.seen["confirmed"] += 1
                else:
                    kind = template or ("person" if sent_by else "text")
                    assert customer.may_get(kind), f"{kind} to one who asked for {customer.opted_out}: {body}"
                    self.seen[kind] += 1
                    self.seen["pack"] += "task_id" in metadata
            answer = (
                {"messages": [{"id": f"wamid.{queue_id}.{attempt}"}]}
                if accepted
                else {"error": {"code": 131000}}
            )
            results.append(
                {
                    "id": str(queue_id),
                    "org": str(org),
                    "attempt": attempt,
                    "outcome": "answered",
                    "status": 200 if accepted else 500,
                    "answer": answer,
                }
            )
        if results:
            on.execute("SELECT complete_wa_messages(%s, %s)", (DISPATCHER.format(session), Jsonb(results)))

    def recipient_of(self, queue_id: UUID) -> Customer | None:
        """Who gets a message in flight; None for one of an earlier sequence."""
        for customer in self.customers:
            if self.ask(
                "SELECT 1 FROM wa_queue_inflight WHERE queue_id = %s"
                " AND contact_id = _wa_find_contact(current_wa_organization(), %s)",
                queue_id,
                customer.address,
            ):
                return customer
        return None

    @invariant()
    def the_database_knows_what_was_asked(self) -> None:
        for customer in self.customers:
            rows = self.ask(
                "SELECT scope, is_keyword FROM wa_opt_outs WHERE revoked_at IS NULL"
                " AND contact_id = _wa_find_contact(current_wa_organization(), %s)",
                customer.address,
            )
            assert set(rows) == set(customer.opted_out)


def test_no_sequence_reaches_who_opted_out(db: Database) -> None:
    with db.connect() as connection:
        connection.execute("CREATE SCHEMA world")
        connection.execute(
            "SELECT register_wa_phone_number(%s, %s, %s)", (NUMBER_ID, DISPLAY_PHONE, ACCOUNT_ID)
        )
        connection.execute("UPDATE wa_phone_numbers SET throughput = 100000")
        connection.execute("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
        connection.execute("SELECT adopt_wa_database('keep')")
        connection.execute("SELECT install_wa_pack('events')")
        connection.execute(
            "INSERT INTO wa_templates (name, category, status, body_text) VALUES"
            " ('hello', 'UTILITY', 'APPROVED', 'Hello'), ('sale', 'MARKETING', 'APPROVED', 'Sale'),"
            " ('code', 'AUTHENTICATION', 'APPROVED', '{{1}} is your code')"
        )
        for n in range(SESSIONS):
            connection.execute(
                "SELECT start_wa_dispatcher(%s, 'here', 1, (SELECT schema_version FROM wa_version()))",
                (DISPATCHER.format(n),),
            )
        # What waits, for a try or a turn, waits no more.
        connection.execute(
            "CREATE FUNCTION world.later(interval) RETURNS void LANGUAGE sql AS $$"
            " UPDATE wa_outbound_queue SET scheduled_at = scheduled_at - $1, change_no = change_no + 1"
            " WHERE status = 'pending';"
            " UPDATE wa_queue_due SET due_at = least(due_at, clock_timestamp()), hold_id = NULL,"
            " hold_reason = NULL;"
            " DELETE FROM wa_queue_holds; DELETE FROM wa_pair_rates $$"
        )
    Paths.db = db
    run_state_machine_as_test(
        Paths,
        settings=settings(
            max_examples=int(os.environ.get("FUZZ_EXAMPLES", "12")),
            stateful_step_count=40,
            deadline=None,
            derandomize="FUZZ_EXAMPLES" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
    # Not a test of nothing: everything was sent, and refused, some time.
    assert {*KINDS, "confirmed", "refused", "pack"} <= {name for name, count in Paths.seen.items() if count}
