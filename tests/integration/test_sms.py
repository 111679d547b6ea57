"""SMS through Twilio where WhatsApp cannot deliver: one message, one SMS, never against an opt-out.

Tests sql/sms/fallback.sql, sql/sms/ground.sql.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Database
from simulated import wait_until
from twilio_world import ACCOUNT, CUSTOMER, DAYTIME, HELLO, NIGHT, NUMBER, SMS_NUMBER, TwilioWorld

CODE = "HX" + "c" * 32


@pytest.fixture
def world(db: Database, tmp_path: Path) -> Iterator[TwilioWorld]:
    with TwilioWorld(db, tmp_path, statuses=[]) as made:
        made.simulator.post("twilio", sid=ACCOUNT, contents={HELLO: [], CODE: ["1"]})
        db.query(
            "SELECT register_wa_phone_number(%s, %s, %s, 'twilio', throughput => 10)",
            SMS_NUMBER, SMS_NUMBER, ACCOUNT,
        )  # fmt: skip
        db.query("UPDATE wa_organizations SET sms_fallback = true")
        db.query(
            "INSERT INTO wa_templates"
            " (name, language, category, status, body_text, waba_id, provider_template_id) VALUES"
            " ('hello', 'en', 'UTILITY', 'APPROVED', 'Hello', %(account)s, %(hello)s),"
            " ('offer', 'en', 'MARKETING', 'APPROVED', 'Offer', %(account)s, %(hello)s),"
            " ('code', 'en', 'AUTHENTICATION', 'APPROVED', 'Your code is {{1}}', %(account)s, %(code)s)"
            .replace("%(account)s", f"'{ACCOUNT}'").replace("%(hello)s", f"'{HELLO}'")
            .replace("%(code)s", f"'{CODE}'")
        )  # fmt: skip
        agree(made, CUSTOMER)
        yield made


def agree(world: TwilioWorld, phone: str) -> None:
    """The customer has agreed to SMS, and lives where it is day."""
    world.db.query("SELECT opt_in_wa_contact(%s, 'sms', 'form')", phone)
    world.db.query(f"SELECT set_wa_contact_time_zone(%s, ({DAYTIME}))", phone)


def offer(world: TwilioWorld, phone: str = CUSTOMER, **columns: Any) -> str:
    """Queue a template that has an SMS in reserve; its id, once it was sent."""
    queue_id = world.queue(**{
        "phone": phone, "template_name": "hello", "sms_fallback_text": "As SMS", **columns
    })  # fmt: skip
    world.until(queue_id, status="sent")
    return queue_id


def tell(world: TwilioWorld, queue_id: str, status: str, code: int | None = None) -> None:
    """Twilio tells what became of the message."""
    fields = {"ErrorCode": str(code)} if code else {}
    sid = world.row(queue_id)["wa_message_id"]
    assert world.simulator.post("twilio_status", sid=sid, status=status, fields=fields)["status"] == 200


def fallback(world: TwilioWorld, queue_id: str) -> dict[str, Any] | None:
    """What became of the SMS in reserve, once that is decided."""
    rows = world.db.query(
        "SELECT f.cause, f.state, f.reason, q.status, q.error_code, q.id::text AS sms, q.phone_number_id"
        " FROM wa_sms_fallbacks f"
        " LEFT JOIN wa_outbound_queue q ON q.id = f.sms_id"
        " WHERE f.queue_id = %s::uuid AND f.state <> 'waiting'",
        queue_id,
    )
    return rows[0] if rows else None


def sms(world: TwilioWorld, queue_id: str) -> dict[str, Any]:
    """The SMS once it has gone, or failed."""

    def ended() -> dict[str, Any] | None:
        row = fallback(world, queue_id)
        return row if row is not None and row["status"] not in ("pending", "sending") else None

    found: dict[str, Any] = wait_until(ended)
    return found


def texts(world: TwilioWorld) -> list[dict[str, str]]:
    """The SMS that Twilio took."""
    return [one for one in world.sent().values() if not one["To"].startswith("whatsapp:")]


def test_what_failed_for_good_goes_once_as_sms(world: TwilioWorld) -> None:
    queue_id = offer(world)
    tell(world, queue_id, "undelivered", 63024)
    found = sms(world, queue_id)
    assert (found["cause"], found["state"], found["status"]) == ("failed", "queued", "sent")
    assert found["phone_number_id"] == SMS_NUMBER
    assert [(one["From"], one["To"], one["Body"]) for one in texts(world)] == [
        (SMS_NUMBER, CUSTOMER, "As SMS")
    ]
    # However late, however often, and whatever WhatsApp says then.
    for status, code in (("undelivered", 63024), ("failed", 63003), ("delivered", None), ("read", None)):
        tell(world, queue_id, status, code)
    world.until(queue_id, state="read")
    after = offer(world, phone="+16505550109", sms_fallback_text=None)
    world.until(after, status="sent")
    assert len(texts(world)) == 1
    # Its own statuses are told of it.
    sms_id = found["sms"]
    tell(world, sms_id, "delivered")
    world.until(sms_id, state="delivered")


def test_only_where_it_is_wanted_and_the_failure_allows_it(world: TwilioWorld) -> None:
    kept = {
        "blocked": (offer(world), 63014),
        "policy": (offer(world), 63013),
        "no text": (offer(world, sms_fallback_text=None), 63024),
    }
    for queue_id, code in kept.values():
        tell(world, queue_id, "undelivered", code)
        world.until(queue_id, state="failed")
    world.db.query("UPDATE wa_organizations SET sms_fallback = false")
    off = offer(world)
    tell(world, off, "undelivered", 63024)
    world.until(off, state="failed")
    assert world.db.query("SELECT 1 FROM wa_sms_fallbacks") == []
    world.db.query("UPDATE wa_organizations SET sms_fallback = true")
    # The answer says so, and the queue itself.
    world.simulator.post("faults", mode="error", code=63003, next=1)
    refused = world.queue(template_name="hello", sms_fallback_text="As SMS")
    assert sms(world, refused)["status"] == "sent"
    closed = world.queue(
        phone="+16505550103", text_body="Hi", on_refusal="record", sms_fallback_text="As SMS"
    )
    assert sms(world, closed)["error_code"] == "no_opt_in"
    assert len(texts(world)) == 1


def test_an_unknown_outcome_is_no_failure(world: TwilioWorld) -> None:
    world.db.query("UPDATE wa_organizations SET unknown_grace = '0', unknown_grace_silent = '0'")
    world.simulator.post("faults", mode="cut_before", next=1)
    queue_id = world.queue(template_name="hello", sms_fallback_text="As SMS")
    assert world.until(queue_id, status="failed")["error_code"] == "outcome_unknown"
    assert world.db.query("SELECT 1 FROM wa_sms_fallbacks") == []


def test_what_is_worth_nothing_any_more_goes_no_other_way_either(world: TwilioWorld) -> None:
    queue_id = offer(world)
    # As if it had been queued so: what is sent cannot be changed.
    with world.db.connect(options="-c session_replication_role=replica") as clock:
        clock.execute("UPDATE wa_outbound_queue SET expires_at = clock_timestamp()")
    tell(world, queue_id, "undelivered", 63024)
    assert wait_until(lambda: fallback(world, queue_id))["reason"] == "too_late"
    assert texts(world) == []


def test_an_sms_whose_answer_is_lost_goes_no_second_time(world: TwilioWorld) -> None:
    world.db.query(
        "UPDATE wa_organizations SET on_unknown = 'retry', unknown_grace = '0', unknown_grace_silent = '0'"
    )
    queue_id = offer(world)
    world.simulator.post("faults", mode="cut_after", number=SMS_NUMBER)
    tell(world, queue_id, "undelivered", 63024)
    assert sms(world, queue_id)["error_code"] == "outcome_unknown"
    assert len(texts(world)) == 1


def test_an_authentication_that_is_late_goes_as_sms(world: TwilioWorld) -> None:
    world.db.query("UPDATE wa_organizations SET sms_authentication_after = '10 minutes'")
    values = {"template_name": "code", "template_params": '["123"]', "sms_fallback_text": "Code 123"}
    late, early = offer(world, **values), offer(world, **values)
    other = offer(world)
    tell(world, early, "delivered")
    world.until(early, state="delivered")
    world.db.query("UPDATE wa_sms_fallbacks SET due_at = now()")
    found = sms(world, late)
    assert (found["cause"], found["status"]) == ("late", "sent")
    assert wait_until(lambda: fallback(world, early))["reason"] == "delivered"
    assert fallback(world, other) is None
    # Its failure comes late: it was sent already.
    tell(world, late, "undelivered", 63024)
    world.until(late, state="failed")
    assert [one["Body"] for one in texts(world)] == ["Code 123"]


def test_stop_by_either_way_stops_both(world: TwilioWorld) -> None:
    # By WhatsApp.
    queue_id = offer(world)
    world.say("STOP")
    wait_until(lambda: world.db.query("SELECT is_wa_opted_out(%s, 'utility') AS out", CUSTOMER)[0]["out"])
    tell(world, queue_id, "undelivered", 63024)
    assert sms(world, queue_id)["error_code"] == "opted_out"
    # By SMS.
    second = "+16505550102"
    agree(world, second)
    queue_id = offer(world, second)
    world.say("Stop", sender=second)
    wait_until(lambda: world.db.query("SELECT is_wa_opted_out(%s, 'utility') AS out", second)[0]["out"])
    refused = world.queue(phone=second, template_name="hello", on_refusal="record")
    assert world.until(refused, status="failed")["error_code"] == "opted_out"
    tell(world, queue_id, "undelivered", 63024)
    assert sms(world, queue_id)["error_code"] == "opted_out"
    # An SMS opens no window, and START takes the word back.
    [may] = world.db.query("SELECT can_send_freeform_wa(%s) AS may", second)
    assert may == {"may": False}
    world.say("START", sender=second)
    wait_until(lambda: not world.db.query("SELECT is_wa_opted_out(%s, 'utility') AS out", second)[0]["out"])
    # Twilio has heard STOP and we have not: its answer tells it.
    third = "+16505550104"
    agree(world, third)
    queue_id = offer(world, third)
    world.simulator.post("faults", mode="error", code=21610, to=third, next=1)
    tell(world, queue_id, "undelivered", 63024)
    assert sms(world, queue_id)["error_code"] == "21610"
    assert world.db.query("SELECT is_wa_opted_out(%s, 'utility') AS out", third) == [{"out": True}]
    assert texts(world) == []


def test_sms_rest_at_night_except_codes(world: TwilioWorld) -> None:
    world.db.query(f"SELECT set_wa_contact_time_zone(%s, ({NIGHT}))", CUSTOMER)
    world.db.query("UPDATE wa_organizations SET sms_authentication_after = '5 seconds'")
    night = offer(world)
    code = offer(world, template_name="code", template_params='["9"]', sms_fallback_text="Code 9")
    tell(world, night, "undelivered", 63024)
    tell(world, code, "undelivered", 63024)
    assert sms(world, code)["status"] == "sent"
    row = wait_until(lambda: fallback(world, night))
    assert row["status"] == "pending"
    due = "SELECT hold_reason FROM wa_queue_due WHERE queue_id = %s::uuid"
    wait_until(lambda: world.db.query(due, row["sms"]) == [{"hold_reason": "quiet_hours"}])


def test_a_row_for_the_sms_number_is_an_sms(world: TwilioWorld) -> None:
    queue_id = world.queue(text_body="Directly", phone_number_id=SMS_NUMBER)
    world.until(queue_id, status="sent")
    assert [one["Body"] for one in texts(world)] == ["Directly"]
    # It makes no conversation: what names no number goes by WhatsApp as before.
    other = offer(world)
    assert world.sent()[world.row(other)["wa_message_id"]]["From"] == NUMBER


def held(world: TwilioWorld, queue_id: str) -> str:
    """The SMS of the message, once it is queued; `pause()` keeps it there."""
    found = wait_until(lambda: (row := fallback(world, queue_id)) and row["sms"])
    return str(found)


def pause(world: TwilioWorld) -> None:
    """No SMS goes until `resume()`."""
    world.db.query(
        "UPDATE wa_phone_numbers SET pause_scope = 'number', pause_reason = 'test', paused_at = now()"
        " WHERE phone_number_id = %s",
        SMS_NUMBER,
    )


def resume(world: TwilioWorld) -> None:
    world.db.query("SELECT resume_wa_number(%s)", SMS_NUMBER)


def test_an_sms_is_of_the_category_of_what_went(world: TwilioWorld) -> None:
    """Another template of the name, or none any more, makes no utility of an offer."""
    world.db.query(
        "INSERT INTO wa_templates (name, language, category, status, body_text, waba_id, created_at)"
        " VALUES ('offer', 'en', 'UTILITY', 'APPROVED', 'Offer', '102290129340398', '2020-01-01')"
    )
    phones = [f"+1650555{2100 + n}" for n in range(4)]
    for phone in phones:
        agree(world, phone)
    reserve = world.queue(
        phone=phones[0], text_body="Great!", fallback_template_name="offer", sms_fallback_text="Great"
    )
    ids = [reserve, *(offer(world, phone, template_name="offer") for phone in phones[1:])]
    world.until(reserve, status="sent")
    for phone in phones:
        world.db.query("SELECT opt_out_wa_contact(%s, 'marketing')", phone)
    for queue_id in ids[:2]:
        tell(world, queue_id, "undelivered", 63024)
        assert sms(world, queue_id)["error_code"] == "opted_out"
    world.db.query(
        "INSERT INTO wa_templates"
        " (name, language, category, status, body_text, waba_id, provider_template_id)"
        " VALUES ('offer', 'es', 'UTILITY', 'APPROVED', 'Oferta', %s, %s)",
        ACCOUNT, HELLO,
    )  # fmt: skip
    world.db.query("UPDATE wa_templates SET status = 'PAUSED' WHERE name = 'offer' AND language = 'en'")
    tell(world, ids[2], "undelivered", 63041)
    assert sms(world, ids[2])["error_code"] == "opted_out"
    world.db.query("DELETE FROM wa_templates WHERE name = 'offer' AND category = 'MARKETING'")
    tell(world, ids[3], "undelivered", 63024)
    assert sms(world, ids[3])["error_code"] == "opted_out"
    assert texts(world) == []


def test_an_opt_out_takes_what_waits_as_sms(world: TwilioWorld) -> None:
    pause(world)
    queue_id = offer(world, template_name="offer")
    tell(world, queue_id, "undelivered", 63024)
    sms_id = held(world, queue_id)
    world.db.query("SELECT opt_out_wa_contact(%s, 'marketing')", CUSTOMER)
    assert world.row(sms_id)["status"] == "cancelled"


def test_an_sms_takes_a_place_under_a_cap(world: TwilioWorld) -> None:
    world.db.query("INSERT INTO wa_contact_caps (purpose, messages, days) VALUES ('marketing', 1, 7)")
    first = offer(world, template_name="offer")
    tell(world, first, "undelivered", 63024)
    assert sms(world, first)["status"] == "sent"
    second = world.queue(template_name="offer", sms_fallback_text="Again", on_refusal="record")
    assert world.until(second, status="failed")["error_code"] == "contact_cap"
    assert len(texts(world)) == 1


def test_what_whatsapp_tells_while_its_sms_waits_counts(world: TwilioWorld) -> None:
    world.db.query("UPDATE wa_organizations SET sms_authentication_after = '5 seconds'")
    pause(world)
    values = {"template_name": "code", "template_params": '["9"]', "sms_fallback_text": "Code 9"}
    arrived, blocked = offer(world, **values), offer(world, **values)
    failed = offer(world)
    tell(world, failed, "undelivered", 63024)
    for queue_id in (arrived, blocked, failed):
        held(world, queue_id)
    for status in ("delivered", "read"):
        tell(world, arrived, status)
        tell(world, failed, status)
    tell(world, blocked, "undelivered", 63014)
    world.until(blocked, state="failed")
    world.until(arrived, state="read")
    world.until(failed, state="read")
    resume(world)
    assert sms(world, arrived)["error_code"] == "delivered"
    assert sms(world, failed)["error_code"] == "delivered"
    assert sms(world, blocked)["error_code"] == "failed_otherwise"
    assert texts(world) == []


def test_what_went_as_sms_is_not_queued_again(world: TwilioWorld) -> None:
    world.simulator.post("faults", mode="error", code=63003, next=1)
    queue_id = world.queue(template_name="hello", sms_fallback_text="As SMS")
    assert sms(world, queue_id)["status"] == "sent"
    told: list[str | None] = []
    with world.db.connect() as connection:
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
        row = connection.execute("SELECT retry_wa_messages(ARRAY[%s::uuid])", (queue_id,)).fetchone()
    assert row == (0,)
    assert told == ["1 of these messages went as SMS and are not queued again"]
    assert world.row(queue_id)["status"] == "failed"
    # Told to have failed, it went no way at all.
    tell(world, sms(world, queue_id)["sms"], "undelivered", 30005)
    world.until(sms(world, queue_id)["sms"], state="failed")
    assert world.db.query("SELECT retry_wa_messages(ARRAY[%s::uuid]) AS n", queue_id) == [{"n": 1}]
    world.until(queue_id, status="sent")


def test_what_is_queued_again_goes_one_way_only(world: TwilioWorld) -> None:
    pause(world)
    world.simulator.post("faults", mode="error", code=63003, next=2)
    ids = [world.queue(template_name="hello", sms_fallback_text=f"SMS {n}") for n in (0, 1)]
    waiting = [held(world, queue_id) for queue_id in ids]
    # No claim takes the SMS while it is decided.
    with world.db.connect(autocommit=False) as connection:
        connection.execute("SELECT retry_wa_messages(%s::uuid[])", (ids,))
        free = "SELECT 1 FROM wa_outbound_queue WHERE id = ANY (%s::uuid[]) FOR NO KEY UPDATE SKIP LOCKED"
        assert world.db.query(free, waiting) == []
    resume(world)
    for queue_id in ids:
        world.until(queue_id, status="sent")
    due = "SELECT hold_reason FROM wa_queue_due WHERE queue_id = ANY (%s::uuid[])"
    wait_until(lambda: world.db.query(due, waiting) == [{"hold_reason": "in_reserve"}] * 2)
    [why] = world.db.query("SELECT reason FROM explain_wa_message(%s::uuid)", waiting[0])
    assert why == {"reason": "in_reserve"}
    tell(world, ids[0], "delivered")
    tell(world, ids[1], "undelivered", 63024)
    world.until(ids[0], state="delivered")
    world.until(ids[1], state="failed")
    # As if the minute had passed.
    world.db.query("SELECT reschedule_wa_messages(now(), ids => %s::uuid[])", waiting)
    assert sms(world, ids[0])["error_code"] == "delivered"
    assert sms(world, ids[1])["status"] == "sent"
    assert [one["Body"] for one in texts(world)] == ["SMS 1"]


def test_who_cancels_a_message_cancels_its_sms(world: TwilioWorld) -> None:
    world.db.query("UPDATE wa_organizations SET sms_authentication_after = '10 minutes'")
    pause(world)
    queue_id = offer(world)
    tell(world, queue_id, "undelivered", 63024)
    sms_id = held(world, queue_id)
    cancel = "SELECT cancel_wa_messages(ARRAY[%s::uuid]) AS n"
    assert world.db.query(cancel, queue_id) == [{"n": 1}]
    assert world.row(sms_id)["status"] == "cancelled"
    # What is only noted, too, however it is meant.
    for meant in ("ids => ARRAY[%s::uuid]", "reference => %s", "phone => %s"):
        code = offer(
            world, template_name="code", template_params='["9"]', sms_fallback_text="9", reference=meant
        )
        value = {"i": code, "r": meant, "p": CUSTOMER}[meant[0]]
        world.db.query(f"SELECT cancel_wa_messages({meant})", value)
        assert (fallback(world, code) or {}).get("reason") == "cancelled"
    resume(world)
    after = world.queue(text_body="Directly", phone_number_id=SMS_NUMBER)
    world.until(after, status="sent")
    assert [one["Body"] for one in texts(world)] == ["Directly"]


def test_whatever_a_message_brings_along_its_sms_goes(world: TwilioWorld) -> None:
    ids = [offer(world, metadata=metadata) for metadata in ("[]", '"x"', "null", '{"role": "bot"}')]
    world.queue(text_body="Mine", phone_number_id=SMS_NUMBER, idempotency_key=f"sms:{ids[0]}")
    for queue_id in ids:
        tell(world, queue_id, "undelivered", 63024)
        assert sms(world, queue_id)["status"] == "sent"
    found = world.db.query("SELECT metadata FROM wa_outbound_queue WHERE metadata ? 'sms_of' ORDER BY id")
    assert {"metadata": {"role": "bot", "sms_of": ids[3]}} in found
    assert world.db.query("SELECT error FROM wa_faults") == []


def test_no_sms_for_an_sms_nor_for_who_sends_no_templates(world: TwilioWorld) -> None:
    world.simulator.post("faults", mode="error", code=21408, next=1)
    direct = world.queue(text_body="Directly", phone_number_id=SMS_NUMBER, sms_fallback_text="Again")
    world.until(direct, status="failed")
    world.db.query("UPDATE wa_organizations SET sends_templates = false")
    off = world.queue(template_name="hello", sms_fallback_text="As SMS", on_refusal="record")
    assert world.until(off, status="failed")["error_code"] == "template_unavailable"
    assert world.db.query("SELECT 1 FROM wa_sms_fallbacks") == []


@pytest.mark.parametrize("scopes", ["{marketing,utility}", "{all}"])
def test_stop_by_sms_stays_until_start_by_sms(world: TwilioWorld, scopes: str) -> None:
    """Twilio holds to it: what it refuses later is no news, and stops no WhatsApp."""
    world.db.query("UPDATE wa_organizations SET stop_scopes = %s", scopes)
    out = "SELECT is_wa_opted_out(%s, 'utility') AS said, is_wa_opted_out(%s, 'sms') AS sms"

    def stands(said: bool, by_sms: bool) -> None:
        wanted = [{"said": said, "sms": by_sms}]
        wait_until(lambda: world.db.query(out, CUSTOMER, CUSTOMER) == wanted)

    world.say("STOP", sender=CUSTOMER)
    stands(True, True)
    world.say("START")
    stands(False, True)
    queue_id = offer(world)
    tell(world, queue_id, "undelivered", 63024)
    assert sms(world, queue_id)["error_code"] == "opted_out"
    # A form said otherwise, which Twilio knows nothing of.
    world.db.query("SELECT opt_in_wa_contact(%s, 'sms', 'form')", CUSTOMER)
    queue_id = offer(world)
    tell(world, queue_id, "undelivered", 63024)
    assert sms(world, queue_id)["error_code"] == "21610"
    stands(False, True)
    world.say("START", sender=CUSTOMER)
    stands(False, False)
    queue_id = offer(world)
    tell(world, queue_id, "undelivered", 63024)
    assert sms(world, queue_id)["status"] == "sent"
    assert len(texts(world)) == 1


def test_whatsapps_figures_know_nothing_of_sms(world: TwilioWorld) -> None:
    queue_id = offer(world)
    tell(world, queue_id, "undelivered", 63024)
    direct = world.queue(text_body="Directly", phone_number_id=SMS_NUMBER)
    world.until(direct, status="sent")
    for one in (direct, sms(world, queue_id)["sms"]):
        tell(world, one, "delivered")
        world.until(one, state="delivered")
    violations = (
        "SELECT 1 FROM wa_message_compliance WHERE compliance_status NOT IN ('COMPLIANT', 'NOT_SENT')"
    )
    assert world.db.query(violations) == []
    report = world.db.query(
        "SELECT topic, item, row_count AS n FROM report_wa_compliance(now() - interval '1 hour')"
        " WHERE topic IN ('window', 'template_sent')"
    )
    assert report == [{"topic": "window", "item": "broken", "n": 0}]
    # The number may be given up.
    world.db.query("DELETE FROM wa_phone_numbers WHERE phone_number_id = %s", SMS_NUMBER)
    assert world.db.query("SELECT * FROM wa_service_allowances") == []
    assert world.db.query("SELECT * FROM wa_daily_costs") == []
