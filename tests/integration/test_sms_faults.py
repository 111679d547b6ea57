"""An SMS in reserve goes once or not at all, whatever dies and whichever answer is lost on either way."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness import Database
from simulated import wait_until
from twilio_world import ACCOUNT, DAYTIME, HELLO, NUMBER, SMS_NUMBER, TwilioWorld

pytestmark = pytest.mark.slow

MESSAGES = 120
KILLS = (5, 2)
Told = tuple[tuple[str, int | None], ...]
#: What WhatsApp tells of messages, in turn, and later once more; what goes as SMS, and what never.
TOLD: tuple[tuple[Told, Told], ...] = (
    ((("undelivered", 63024),), (("undelivered", 63024), ("failed", 63003))),
    ((("undelivered", 63024), ("undelivered", 63024)), (("delivered", None), ("read", None))),
    ((("delivered", None),), (("undelivered", 63024),)),
    ((("undelivered", 63014),), ()),
    ((("undelivered", 63024),), ()),
    ((), ()),
)
GOES = (0, 1)
#: Who opts out before anything is told.
OPTED_OUT = 4
BY_WHATSAPP: tuple[dict[str, Any], ...] = (
    {"mode": "cut_before", "every": 13},
    {"mode": "cut_after", "every": 7},
    {"mode": "garbage", "every": 11},
)
BY_SMS: tuple[dict[str, Any], ...] = (
    {"mode": "cut_before", "every": 7},
    {"mode": "cut_after", "every": 5},
    {"mode": "garbage", "every": 8},
    {"mode": "http_500_json", "every": 9},
    {"mode": "throttle", "every": 10},
    {"mode": "error", "code": 21211, "every": 11},
)


def phone(place: int) -> str:
    return f"+1650555{1000 + place}"


def set_up(db: Database) -> None:
    """The number for SMS, and customers who have agreed to it and live where it is day."""
    db.query("SELECT register_wa_phone_number(%s, %s, %s, 'twilio')", SMS_NUMBER, SMS_NUMBER, ACCOUNT)
    db.query(
        "UPDATE wa_organizations SET sms_fallback = true, rate_limit_per_minute = NULL,"
        " unknown_grace = '5 s', unknown_grace_silent = '5 s'"
    )
    db.query(
        "INSERT INTO wa_templates"
        " (name, language, category, status, body_text, waba_id, provider_template_id)"
        " VALUES ('hello', 'en', 'UTILITY', 'APPROVED', 'Hello', %s, %s)",
        ACCOUNT, HELLO,
    )  # fmt: skip
    db.query(
        f"SELECT opt_in_wa_contact(p, 'sms', 'form'), set_wa_contact_time_zone(p, ({DAYTIME}))"
        " FROM unnest(%s::text[]) p",
        [phone(place) for place in range(MESSAGES)],
    )


def queue(db: Database) -> None:
    """A message to each, with its place as reference."""
    with db.connect() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO wa_outbound_queue (reference, phone, phone_number_id, template_name,"
            " sms_fallback_text, expires_at) VALUES (%s, %s, %s, 'hello', 'As SMS', 'infinity')",
            [(str(place), phone(place), NUMBER) for place in range(MESSAGES)],
        )


def settled(db: Database) -> bool:
    """Nothing waits, is on its way, or is to be decided."""
    return not db.is_waiting() and not db.query(
        "SELECT 1 FROM wa_queue_due UNION ALL SELECT 1 FROM wa_queue_inflight"
        " UNION ALL SELECT 1 FROM wa_webhook_logs WHERE status = 'pending'"
        " UNION ALL SELECT 1 FROM wa_sms_fallbacks WHERE state = 'waiting'"
    )


def test_an_sms_goes_once_or_not_at_all(db: Database, tmp_path: Path) -> None:
    chance = random.Random("sms")  # noqa: S311 (a test that can be repeated)
    with TwilioWorld(db, tmp_path, statuses=[]) as world:
        world.simulator.post("twilio", sid=ACCOUNT, contents={HELLO: []})
        set_up(db)
        rules = [rule | {"number": NUMBER} for rule in BY_WHATSAPP]
        rules += [rule | {"number": SMS_NUMBER} for rule in BY_SMS]
        world.simulator.post("faults", faults=rules)
        commands = [("serve", "--port", str(world.port)), ("dispatch",)]

        def kill(place: int) -> None:
            world.processes[place].kill()
            world.start(*commands[place])
            world.processes[place] = world.processes.pop()

        queue(db)
        wait_until(lambda: len(world.sent()) > MESSAGES // 3)
        kill(1)
        wait_until(lambda: not db.query("SELECT 1 FROM wa_queue_due"))
        # Those of the killed one are leased for a minute.
        wait_until(lambda: not db.query("SELECT 1 FROM wa_queue_inflight"), 240)
        by_whatsapp = {one["To"]: sid for sid, one in world.sent().items()}
        db.query(
            "SELECT opt_out_wa_contact(p, 'sms') FROM unnest(%s::text[]) p",
            [phone(place) for place in range(OPTED_OUT, MESSAGES, len(TOLD))],
        )
        told = [
            (by_whatsapp[f"whatsapp:{phone(place)}"], TOLD[place % len(TOLD)])
            for place in range(MESSAGES)
            if f"whatsapp:{phone(place)}" in by_whatsapp
        ]
        chance.shuffle(told)
        for late in (0, 1):
            deaths = chance.sample(range(len(told)), KILLS[late])
            for n, (sid, statuses) in enumerate(told):
                if n in deaths:
                    kill(chance.choice((0, 1, 1)))
                for status, code in statuses[late]:
                    tell(world, sid, status, code)
            wait_until(lambda: settled(db), 120)
        sms = Counter(one["To"] for one in world.sent().values() if not one["To"].startswith("whatsapp:"))
        hits = world.simulator.get("faults")["hits"]
    assert set(hits) == {rule["mode"] for rule in (*BY_WHATSAPP, *BY_SMS)}
    assert set(sms.values()) == {1}, "two for a message"
    goes = {phone(place) for place in range(MESSAGES) if place % len(TOLD) in GOES}
    assert set(sms) <= goes
    rows = db.query(
        "SELECT q.phone, s.status, coalesce(s.error_code, '') AS code, f.reason"
        " FROM wa_outbound_queue q LEFT JOIN wa_sms_fallbacks f ON f.queue_id = q.id"
        " LEFT JOIN wa_outbound_queue s ON s.id = f.sms_id WHERE q.phone_number_id = %s",
        NUMBER,
    )
    ended = {row["phone"]: row for row in rows}
    # None is lost either: what WhatsApp could not deliver is an SMS that went, or failed and says why.
    for row in (ended[one] for one in goes if f"whatsapp:{one}" in by_whatsapp):
        assert row["status"] == "sent" or row["code"] in ("21211", "outcome_unknown"), row
        assert (row["phone"] in sms) >= (row["status"] == "sent"), row
    assert db.faults() == []


def tell(world: TwilioWorld, sid: str, status: str, code: int | None) -> None:
    """Twilio tells it until somebody hears."""
    told = {"sid": sid, "status": status, "fields": {"ErrorCode": str(code)} if code else {}}
    wait_until(lambda: world.simulator.post("twilio_status", **told)["status"] == 200)
