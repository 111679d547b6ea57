"""Every error that has a rule, met on its way: in an answer, and in a status of what had been accepted.

One run for each provider: all codes at once, each with a business number, an account and a token of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from harness import Database, free_port
from pg_whatsapp.secrets import SecretBox
from simulated import SimulatorProcess, wait_until
from wa_process import KEY, WaProcess

APP_SECRET = "app-secret"
HEADER = ("X-Webhook-Secret", "that-of-the-numbers-0123456789")
CONTENT = "HX" + "a" * 32
LONG = timedelta(hours=1)
#: Added to the place of a case: another number with the same token, and account where there is one of both.
BESIDE = 5000


class Case(NamedTuple):
    """A message that meets an error: in the answer, or (told) in a status."""

    place: int
    told: bool
    code: int
    subcode: int
    http_status: int
    action: str
    wait: timedelta | None
    allows_sms: bool

    @property
    def name(self) -> str:
        """For the eye, and as the reference of the message."""
        return f"{self.code}/{self.subcode} {'told' if self.told else 'answered'}"

    @property
    def phone(self) -> str:
        """The recipient, of this case alone."""
        return f"+1650555{1000 + self.place}"

    @property
    def is_long(self) -> bool:
        """Whether what waits is not seen to go on."""
        return self.wait is not None and self.wait >= LONG


class Meta:
    """How a stand-in is told of a number, and of a customer who writes."""

    provider = "meta"
    token_at = "access_token"
    more: ClassVar[dict[str, Any]] = {}
    secrets: ClassVar[dict[str, Any]] = {}
    options: ClassVar[dict[str, Any]] = {"app_secret": APP_SECRET}

    def number(self, place: int) -> str:
        return f"1065403522{place:05}"

    def account(self, place: int) -> str:
        return f"1022901293{place:05}"

    def token(self, place: int) -> str:
        return f"token-of-{place % BESIDE}"

    def add(self, simulator: SimulatorProcess, place: int, port: int) -> None:
        simulator.post(
            "numbers", phone_number_id=self.number(place), waba_id=self.account(place),
            display_phone=f"1415{5550000 + place}", **{self.token_at: self.token(place)}, **self.more,
        )  # fmt: skip

    def speak(self, simulator: SimulatorProcess, case: Case) -> None:
        simulator.post("customer", number=self.number(case.place), phone=case.phone, text="Hello?")


class Dialog360(Meta):
    provider = "360dialog"
    token_at = "api_key"
    more: ClassVar[dict[str, Any]] = {"webhook_headers": dict([HEADER])}
    secrets: ClassVar[dict[str, Any]] = {"webhook_header": ": ".join(HEADER)}


class Twilio(Meta):
    provider = "twilio"
    secrets: ClassVar[dict[str, Any]] = {"app_secret": APP_SECRET}
    options: ClassVar[dict[str, Any]] = {}

    def number(self, place: int) -> str:
        return f"whatsapp:+1415{5550000 + place}"

    def account(self, place: int) -> str:
        return f"AC{place % BESIDE:032x}"

    def token(self, place: int) -> str:
        return f"{self.account(place)}:{APP_SECRET}"

    def add(self, simulator: SimulatorProcess, place: int, port: int) -> None:
        url = f"http://127.0.0.1:{port}"
        simulator.post(
            "twilio", sid=self.account(place), auth_token=APP_SECRET, contents={CONTENT: []},
            inbound_url=f"{url}/api/whatsapp/webhook",
        )  # fmt: skip

    def speak(self, simulator: SimulatorProcess, case: Case) -> None:
        simulator.post(
            "twilio_customer", account=self.account(case.place), to=self.number(case.place), text="Hello?",
            **{"from": f"whatsapp:{case.phone}"},
        )  # fmt: skip


def expected(case: Case) -> dict[str, Any]:
    """What becomes of the message and its recipient, as the action of the rule has it."""
    action, code = case.action, str(case.code)
    fate = {
        "case": case.name, "status": "sent", "code": None, "failed": False, "tries": 0,
        "stopped": action == "stop_template", "opt_outs": [], "cool_off": action == "cool_off",
        "denied": action == "need_template",
    }  # fmt: skip
    if action == "opt_out":
        fate["opt_outs"] = ["marketing"]
    elif action == "opt_out_word":
        fate["opt_outs"] = ["marketing", "sms", "utility"]
    if case.told:
        # It had been accepted: it is not sent again, whatever the action is.
        fate |= {"code": code, "failed": True}
    elif action == "unknown":
        fate |= {"status": "failed", "code": "outcome_unknown", "failed": True}
    elif action == "need_template":
        fate |= {"status": "failed", "code": "window_closed", "failed": True}
    elif action.startswith("pause") or (case.is_long and action.startswith(("retry", "wait"))):
        fate |= {"status": "pending", "tries": 1}
    elif action.startswith(("retry", "wait")):
        fate |= {"tries": 1}
    else:
        fate |= {"status": "failed", "code": code, "failed": True}
    return fate | {"sms": fate["failed"] and case.allows_sms}


def paused(case: Case, side: Meta) -> dict[str, str]:
    """The numbers that stand still, each with what is at fault."""
    kind, _, scope = case.action.partition("_")
    waits = kind == "wait" and scope in ("number", "account") and case.is_long and not case.told
    if kind != "pause" and not waits:
        return {}
    numbers = [side.number(case.place)]
    if scope == "token" or (scope == "account" and side.account(BESIDE) == side.account(0)):
        numbers.append(side.number(case.place + BESIDE))
    return dict.fromkeys(numbers, scope)


SEEN = """
    SELECT q.reference AS case, q.status, coalesce(q.error_code, m.error_code::text) AS code,
        coalesce(m.state = 'failed', false) AS failed, q.retry_count AS tries,
        t.blocked_at IS NOT NULL AS stopped,
        ARRAY(SELECT o.scope FROM wa_opt_outs o WHERE o.contact_id = c.id ORDER BY o.scope) AS opt_outs,
        EXISTS (SELECT FROM wa_contact_cool_offs f WHERE f.contact_id = c.id) AS cool_off,
        EXISTS (
            SELECT FROM wa_conversation_windows w WHERE w.contact_id = c.id AND w.window_denied_at IS NOT NULL
        ) AS denied,
        EXISTS (SELECT FROM wa_sms_fallbacks s WHERE s.queue_id = q.id) AS sms
    FROM wa_outbound_queue q
    JOIN wa_phone_numbers n USING (phone_number_id)
    JOIN wa_templates t ON t.waba_id = n.waba_id
    LEFT JOIN wa_contacts c ON c.phone_e164 = q.phone
    LEFT JOIN wa_messages m ON m.queue_id = q.id"""
PAUSED = """
    SELECT phone_number_id, pause_scope FROM wa_phone_numbers
    WHERE pause_scope IS NOT NULL AND coalesce(paused_until > clock_timestamp(), true)"""


def cases_of(db: Database, provider: str) -> list[Case]:
    """Each rule twice, but for one by a subcode, which no status has."""
    # A wait is either not waited for, or too short to be seen.
    db.query("UPDATE wa_error_rules SET wait = greatest(wait, '1 hour') WHERE wait > '5 seconds'")
    rules = db.query(
        "SELECT r.code, r.subcode, coalesce(r.http_status, 400) AS http_status, r.action, r.wait,"
        " r.allows_sms FROM wa_error_rules r JOIN wa_providers p ON r.provider IN (p.name, p.errors_of)"
        " WHERE p.name = %s ORDER BY r.code, r.subcode",
        provider,
    )
    ways = [(rule, told) for rule in rules for told in (False, True) if not (told and rule["subcode"])]
    return [Case(place, told, **rule) for place, (rule, told) in enumerate(ways)]


def set_up(db: Database, simulator: SimulatorProcess, side: Meta, cases: list[Case], port: int) -> None:
    """The numbers, on both sides, with their secrets, templates, and errors to come."""
    box = SecretBox([bytes.fromhex(KEY)])
    [row] = db.query("SELECT id::text FROM wa_organizations")
    places = [case.place for case in cases]
    places += [case.place + BESIDE for case in cases if case.action.endswith(("_account", "_token"))]
    secrets = [("access_token", side.number(place), side.token(place)) for place in places]
    secrets += [(name, None, value) for name, value in side.secrets.items()]
    with db.connect() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "SELECT register_wa_phone_number(%s, %s, %s, %s)",
            [
                (side.number(place), f"+1415{5550000 + place}", side.account(place), side.provider)
                for place in places
            ],
        )
        for name, number, value in secrets:
            sealed = box.seal(row["id"], name, number, value)
            cursor.execute(
                "SELECT set_wa_secret(%s, %s, %s, %s, %s)",
                (name, number, sealed.ciphertext, sealed.key_id, sealed.fingerprint),
            )
    db.query(
        "INSERT INTO wa_templates"
        " (name, language, category, status, body_text, waba_id, provider_template_id)"
        " SELECT 'hello_world', 'en_US', 'UTILITY', 'APPROVED', 'Hello', w, %s"
        " FROM (SELECT DISTINCT waba_id FROM wa_phone_numbers) n (w)",
        CONTENT,
    )
    for place in places:
        side.add(simulator, place, port)
    simulator.post(
        "faults",
        faults=[
            {"mode": "fail_status", "code": case.code, "to": case.phone, "next": 1}
            if case.told
            else {"mode": "error", "code": case.code, "status": case.http_status, "to": case.phone, "next": 1}
            | ({"subcode": case.subcode} if case.subcode else {})
            for case in cases
        ],
    )


def until_as_wanted(see: Callable[[], dict[str, Any]], wanted: dict[str, Any]) -> None:
    """Wait until it is; else say where it is not, and what is there."""
    try:
        wait_until(lambda: see() == wanted)
    except AssertionError:
        seen = see()
        lines = [
            f"{name}: {seen.get(name)}, not {wanted.get(name)}"
            for name in sorted(seen.keys() | wanted.keys())
            if seen.get(name) != wanted.get(name)
        ]
        raise AssertionError("\n".join(lines)) from None


@pytest.fixture
def simulator(tmp_path: Path, side: Meta) -> Iterator[SimulatorProcess]:
    settings = {"statuses": ["sent"]}
    with SimulatorProcess(tmp_path, settings=settings, **side.options) as made:
        yield made


@pytest.mark.parametrize("side", [Meta(), Dialog360(), Twilio()], ids=lambda side: side.provider)
def test_what_follows_from_each_error(db: Database, simulator: SimulatorProcess, side: Meta) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    simulator.post("settings", webhook_url=f"{url}/api/whatsapp/webhook")
    db.query("SELECT adopt_wa_database()")
    db.query("UPDATE wa_installations SET public_url = %s", url)
    db.query(
        "UPDATE wa_organizations SET rate_limit_per_minute = NULL, sms_fallback = true,"
        " unknown_grace = '0', unknown_grace_silent = '0'"
    )
    cases = cases_of(db, side.provider)
    set_up(db, simulator, side, cases, port)
    env = {
        "WHATSAPP_PROVIDER": side.provider, "WHATSAPP_API_BASE_URL": simulator.url,
        "WHATSAPP_APP_SECRET": APP_SECRET, "WA_SECRET_KEY": KEY,
    }  # fmt: skip
    with (
        WaProcess("serve", "--port", str(port), database=db, **env) as serving,
        WaProcess("dispatch", database=db, **env) as dispatching,
    ):
        serving.logged("serving")
        dispatching.logged("dispatching")
        # What is no template needs a customer who has written.
        writers = [case for case in cases if case.action == "need_template"]
        for case in writers:
            side.speak(simulator, case)
        opened = "SELECT 1 FROM wa_conversation_windows WHERE last_customer_message_at IS NOT NULL"
        wait_until(lambda: len(db.query(opened)) == len(writers))
        with db.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO wa_outbound_queue"
                " (reference, phone, phone_number_id, text_body, template_name, sms_fallback_text)"
                " VALUES (%s, %s, %s, %s, %s, 'As SMS')",
                [
                    (case.name, case.phone, side.number(case.place), "Hi" if case in writers else None,
                     None if case in writers else "hello_world")
                    for case in cases
                ],
            )  # fmt: skip
        wanted = {case.name: expected(case) for case in cases}
        still = {number: scope for case in cases for number, scope in paused(case, side).items()}
        until_as_wanted(lambda: {row["case"]: row for row in db.query(SEEN)}, wanted)
        until_as_wanted(lambda: {r["phone_number_id"]: r["pause_scope"] for r in db.query(PAUSED)}, still)
        # What a pause held goes once it is over.
        db.query("SELECT resume_wa_number(phone_number_id) FROM wa_phone_numbers")
        held = [case.name for case in cases if case.action.startswith("pause") and not case.told]
        waiting = "SELECT 1 FROM wa_outbound_queue WHERE reference = ANY (%s) AND status <> 'sent'"
        wait_until(lambda: not db.query(waiting, held))
    # What met a lock is tried again.
    assert db.faults() == []
    taken = [entry["to"] for entry in simulator.get("journal", limit=10_000)["entries"]]
    assert len(taken) == len(set(taken)), "sent twice"
