"""Twilio for WhatsApp, from a queued row to "read" and back, against a stand-in that checks what it checks.

Tests sql/provider/twilio.sql, sql/provider/seam.sql.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Database
from simulated import wait_until
from twilio_world import (
    ACCOUNT,
    CUSTOMER,
    HELLO,
    NUMBER,
    PATH,
    PUBLIC,
    SMS_NUMBER,
    TOKEN,
    TwilioWorld,
    signed,
)
from wa_process import wa

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


@pytest.fixture
def world(db: Database, tmp_path: Path) -> Iterator[TwilioWorld]:
    with TwilioWorld(db, tmp_path) as made:
        made.say("Hello?")
        wait_until(lambda: made.db.query("SELECT 1 FROM wa_messages WHERE content_text = 'Hello?'"))
        yield made


def content(number: int, name: str, status: str = "approved", **types: dict[str, Any]) -> dict[str, Any]:
    """A resource of the Content API, with its review."""
    kind = list(types)[-1].replace("_", "/", 1).replace("_", "-")
    review = {"name": name, "category": "UTILITY", "content_type": kind, "status": status}
    return {
        "sid": f"HX{number:032x}", "friendly_name": name, "language": "en", "variables": {},
        "types": {one.replace("_", "/", 1).replace("_", "-"): value for one, value in types.items()},
        "approval_requests": review,
    }  # fmt: skip


def test_templates_are_read_and_filled_by_their_own_names(world: TwilioWorld) -> None:
    url = {"type": "URL", "title": "Track", "url": "https://shop.example/{{3}}"}
    call = {"type": "PHONE_NUMBER", "title": "Call", "phone": "+14155238886"}
    card = {"header_text": "For {{2}}", "body": "Order {{1}} of {{when}}", "actions": [url, call]}
    code = {"add_security_recommendation": True, "actions": [{"type": "COPY_CODE", "copy_code_text": "Copy"}]}
    yes = {"body": "Come?", "actions": [{"title": "Yes", "id": "y"}]}
    many = [content(n, f"text_{n}", twilio_text={"body": f"Text {n}"}) for n in range(100, 200)]
    templates = [
        content(1, "card", twilio_text={"body": "Order {{1}}"}, whatsapp_card=card),
        content(2, "code", whatsapp_authentication=code),
        content(3, "yes", twilio_quick_reply=yes),
        content(4, "no", "rejected", twilio_text={"body": "No"}),
        content(5, "new", "unsubmitted", twilio_text={"body": "New"}),
        content(6, "photo", twilio_media={"body": "Look", "media": ["https://shop.example/{{1}}"]}),
    ]
    templates[1]["approval_requests"]["category"] = "AUTHENTICATION"
    world.simulator.post("twilio", sid=ACCOUNT, templates=[*many, *templates])
    synced = wa("templates", "sync", database=world.db, **world.env)
    assert synced.stdout == f"account {ACCOUNT}: 106 templates\n", synced.stderr
    rows = world.db.query("SELECT name, status FROM wa_templates WHERE name NOT LIKE 'text%'")
    assert {row["name"]: row["status"] for row in rows} == {
        "card": "APPROVED", "code": "APPROVED", "yes": "APPROVED", "no": "REJECTED", "new": "PENDING",
        "photo": "UNSUPPORTED",
    }  # fmt: skip
    values = {
        "card": {"header": ["Ann"], "body": ["7", "today"], "buttons": ["track/7"]},
        "code": ["123456"],
        "yes": None,
        "text_150": None,
    }
    wanted = {
        "card": {"1": "7", "2": "Ann", "3": "track/7", "when": "today"},
        "code": {"1": "123456"},
        "yes": None,
        "text_150": None,
    }
    for name, params in values.items():
        queue_id = world.queue(template_name=name, template_params=json.dumps(params) if params else None)
        sid = world.until(queue_id, state="read", status="sent")["wa_message_id"]
        sent = world.sent()[sid]
        assert json.loads(sent.get("ContentVariables", "null")) == wanted[name]
    # Asked for by an application, a dispatcher reads them.
    world.simulator.post("twilio", sid=ACCOUNT, templates=many[:1])
    world.db.query("SELECT request_wa_template_sync()")
    missing = "SELECT 1 FROM wa_templates WHERE name = 'card' AND status = 'MISSING'"
    wait_until(lambda: world.db.query(missing))


def test_contents_that_are_drafts_or_others_change_nothing(world: TwilioWorld) -> None:
    order = {"body": "Order {{1}}"}
    unnamed = content(3, "", "unsubmitted", twilio_text=order) | {"friendly_name": None}
    templates = [
        content(1, "order", twilio_text=order),
        content(2, "order", "unsubmitted", twilio_text=order),
        unnamed | {"approval_requests": {}},
    ]
    stored = "SELECT name, status, provider_template_id AS sid FROM wa_templates WHERE waba_id = %s"
    wanted = [{"name": "order", "status": "APPROVED", "sid": f"HX{1:032x}"}]
    for listed in (templates, templates[::-1]):
        world.simulator.post("twilio", sid=ACCOUNT, templates=listed)
        synced = wa("templates", "sync", database=world.db, **world.env)
        assert synced.returncode == 0, synced.stderr
        assert world.db.query(stored, ACCOUNT) == wanted
    # The token of another account, which reads that account's.
    foreign = content(9, "order", twilio_text=order) | {"account_sid": "AC" + "9" * 32}
    world.simulator.post("twilio", sid=ACCOUNT, templates=[foreign])
    synced = wa("templates", "sync", database=world.db, **world.env)
    assert (synced.returncode, world.db.query(stored, ACCOUNT)) == (1, wanted)
    assert "AC" + "9" * 32 in synced.stderr


def test_each_type_of_message_goes_and_is_read(world: TwilioWorld) -> None:
    world.db.query(
        "INSERT INTO wa_templates"
        " (name, language, category, status, body_text, waba_id, provider_template_id)"
        " VALUES ('order', 'en', 'UTILITY', 'APPROVED', 'Hi {{1}}, order {{2}}', %s, %s)",
        ACCOUNT, HELLO,
    )  # fmt: skip
    link = "https://shop.example/a.jpg"
    wanted: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({"text_body": "Grüße & 50 % = ½"}, {"Body": "Grüße & 50 % = ½"}),
        (
            {"template_name": "order", "template_params": '["Ann", "7"]'},
            {"ContentSid": HELLO, "ContentVariables": '{"1": "Ann", "2": "7"}'},
        ),
        (
            {"type": "image", "content": json.dumps({"link": link, "caption": "Look"})},
            {"MediaUrl": link, "Body": "Look"},
        ),
        ({"type": "document", "content": json.dumps({"link": link})}, {"MediaUrl": link}),
        (
            {
                "type": "location",
                "content": json.dumps({"latitude": 37.4, "longitude": -122.1, "name": "Office"}),
            },
            {"Body": "Office", "PersistentAction": "geo:37.4,-122.1|Office"},
        ),
    ]
    ids = [world.queue(**columns) for columns, _ in wanted]
    for queue_id, (_, fields) in zip(ids, wanted, strict=True):
        row = world.until(queue_id, state="read", status="sent")
        assert world.sent()[row["wa_message_id"]] == fields | {
            "From": NUMBER,
            "To": f"whatsapp:{CUSTOMER}",
            "StatusCallback": f"{PUBLIC}{PATH}?callback=q:{queue_id}:1#rc=5&rp=all",
        }
    [preview] = world.db.query("SELECT preview_wa_request(%s::uuid) AS body", ids[0])
    assert preview["body"]["Body"] == "Grüße & 50 % = ½"


def test_what_it_cannot_send_is_told_and_never_leaves(world: TwilioWorld) -> None:
    contact = [
        {"name": {"formatted_name": "Ann", "first_name": "Ann"}, "phones": [{"phone": "+16505550102"}]}
    ]
    refused = {
        world.queue(type="contacts", content=json.dumps(contact)): 'provider "twilio" cannot send',
        world.queue(text_body="x" * 1601): "1600 characters",
        world.queue(type="image", content='{"id": "123"}'): "give a link",
    }
    for queue_id, why in refused.items():
        row = world.until(queue_id, status="failed")
        assert row["error_code"] == "unsupported"
        assert why in row["last_error"]
    after = world.queue(text_body="still goes")
    world.until(after, status="sent")
    assert len(world.sent()) == 1


def test_files_of_ours_go_by_a_link(world: TwilioWorld, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(JPEG)
    done = wa("media", "upload", str(file), database=world.db)
    assert done.returncode == 0, done.stderr
    media_id = done.stdout.split()[0]
    queue_id = world.queue(type="image", content=json.dumps({"media_id": media_id}))
    row = world.until(queue_id, status="sent")
    link = world.sent()[row["wa_message_id"]]["MediaUrl"]
    assert link.startswith(PUBLIC + "/api/whatsapp/media/")
    there = world.client.get(link.replace(PUBLIC, f"http://127.0.0.1:{world.port}"))
    assert there.content == JPEG


def test_statuses_in_any_order_and_repeated(world: TwilioWorld) -> None:
    world.simulator.post("settings", statuses=[])
    queue_id = world.queue(text_body="x")
    sid = world.until(queue_id, status="sent")["wa_message_id"]
    for status in ("read", "sent", "queued", "delivered", "read", "undelivered", "sending"):
        told = world.simulator.post("twilio_status", sid=sid, status=status)
        assert told["status"] == 200
    states = "SELECT status FROM wa_message_statuses WHERE wa_message_id = %s ORDER BY status"
    wanted = ["accepted", "delivered", "failed", "read", "sent"]
    wait_until(lambda: [row["status"] for row in world.db.query(states, sid)] == wanted)
    assert world.row(queue_id)["state"] == "read"
    assert world.db.faults() == []


def test_what_customers_send(world: TwilioWorld) -> None:
    said = [
        world.say(fields={"ButtonText": "Yes", "ButtonPayload": "yes-1", "MessageType": "button"}),
        world.say(fields={"ListId": "row-1", "ListTitle": "First"}),
        world.say(fields={"Latitude": "37.4", "Longitude": "-122.1", "Label": "Office"}),
        world.say("as it is", fields={"ButtonText": "", "ListId": "", "Latitude": ""}),
        world.say("Look", media_type="image/jpeg", media_base64=base64.b64encode(JPEG).decode()),
        world.say("about that", fields={"OriginalRepliedMessageSid": "SM" + "1" * 32}),
        world.say(sender="whatsapp:US.13491208655302741918", text="by user id", fields={"WaId": ""}),
    ]
    assert {told["status"] for told in said} == {200}
    query = (
        "SELECT message_type, content_text, reply_to, phone_e164, user_id FROM wa_messages"
        " WHERE wa_message_id = ANY (%s) ORDER BY id"
    )
    sids = [told["sid"] for told in said]
    rows = wait_until(lambda: (found := world.db.query(query, sids)) and len(found) == 7 and found)
    assert [(row["message_type"], row["content_text"]) for row in rows] == [
        ("button", "Yes"),
        ("interactive", "First"),
        ("location", "Office"),
        ("text", "as it is"),
        ("image", "Look"),
        ("text", "about that"),
        ("text", "by user id"),
    ]
    assert rows[5]["reply_to"] == "SM" + "1" * 32
    assert (rows[6]["phone_e164"], rows[6]["user_id"]) == (None, "US.13491208655302741918")
    assert {row["phone_e164"] for row in rows[:6]} == {CUSTOMER}
    [profile] = world.db.query("SELECT profile_name FROM wa_contacts WHERE phone_e164 = %s", CUSTOMER)
    assert profile["profile_name"] == "Customer"
    # The file is fetched with the account's name and token, which go nowhere else.
    media = "SELECT status, encode(sha256, 'hex') FROM wa_media WHERE mime_type = 'image/jpeg'"
    wait_until(lambda: [row["status"] for row in world.db.query(media)] == ["stored"])
    world.say("STOP")
    wait_until(lambda: world.db.query("SELECT is_wa_opted_out(%s) AS out", CUSTOMER)[0]["out"])


def test_words_that_only_twilio_knows_opt_out(world: TwilioWorld) -> None:
    world.db.query("SELECT register_wa_phone_number(%s, %s, %s, 'twilio')", SMS_NUMBER, SMS_NUMBER, ACCOUNT)
    is_out = "SELECT is_wa_opted_out(%s) AS out"
    image = base64.b64encode(JPEG).decode()
    ways: list[dict[str, Any]] = [
        {"text": "No mas", "fields": {"OptOutType": "STOP"}},
        {"text": "STOP", "media_type": "audio/amr", "media_base64": image},
        {"text": "STOP", "media_type": "image/webp", "media_base64": image},
    ]
    for place, said in enumerate(ways):
        phone = f"+1650555030{place}"
        assert world.say(sender=phone, **said)["status"] == 200
        wait_until(lambda phone=phone: world.db.query(is_out, phone) == [{"out": True}])
    proof = (
        "SELECT m.content_text, o.proof ->> 'text' AS shown FROM wa_messages m"
        " JOIN wa_opt_outs o USING (organization_id, contact_id)"
        " WHERE m.phone_e164 = '+16505550300' AND m.direction = 'inbound' LIMIT 1"
    )
    assert world.db.query(proof) == [{"content_text": "No mas", "shown": "No mas"}]
    world.say(sender="+16505550300", text="De vuelta", fields={"OptOutType": "START"})
    wait_until(lambda: world.db.query(is_out, "+16505550300") == [{"out": False}])


def test_of_several_files_none_is_lost(world: TwilioWorld) -> None:
    url = f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages/MM{1:032x}/Media/ME{1:032x}"
    more = {"NumMedia": "2", "MediaUrl1": url, "MediaContentType1": "application/pdf"}
    told = world.say(
        "Both", media_type="image/jpeg", media_base64=base64.b64encode(JPEG).decode(), fields=more
    )
    query = (
        "SELECT message_type, content_text, content ->> 'id' AS media FROM wa_messages"
        " WHERE wa_message_id LIKE %s ORDER BY id"
    )
    rows = wait_until(
        lambda: (found := world.db.query(query, told["sid"] + "%")) and len(found) == 2 and found
    )
    assert [(row["message_type"], row["content_text"]) for row in rows] == [
        ("image", "Both"),
        ("document", None),
    ]
    assert rows[1]["media"] == f"MM{1:032x}:ME{1:032x}"


def test_a_signature_is_of_this_very_address_and_body(world: TwilioWorld) -> None:
    fields = {"AccountSid": ACCOUNT, "MessageSid": "SM" + "2" * 32, "From": f"whatsapp:{CUSTOMER}"}
    fields |= {"To": NUMBER, "Body": "", "WaId": CUSTOMER[1:], "Später": "ü+&="}
    right = signed(PUBLIC + PATH, fields)
    before = world.db.query("SELECT count(*) AS n FROM wa_webhook_logs")[0]["n"]
    refused = {
        "wrong": signed(PUBLIC + PATH, fields, "another-token"),
        "of another address": signed("https://chat.other.example" + PATH, fields),
        "of another path": signed(PUBLIC + "/elsewhere", fields),
        "of another query": signed(PUBLIC + PATH + "?callback=x", fields),
        "of less": signed(PUBLIC + PATH, {k: v for k, v in fields.items() if k != "Body"}),
        "none at all": "",
        "missing": None,
    }
    for why, signature in refused.items():
        assert world.post(fields, signature=signature) == 401, why
    assert world.post(fields | {"Body": "x"}, signature=right) == 401
    assert world.post(fields, signature=right, query="?callback=q") == 401
    # Read no further than what Twilio could have sent.
    for large in ({str(n): "" for n in range(2000)}, {"Body": "x" * 300_000}):
        assert world.post(large, signature=signed(PUBLIC + PATH, large)) == 401
    assert world.db.query("SELECT count(*) AS n FROM wa_webhook_logs")[0]["n"] == before
    assert world.post(fields, signature=right) == 200
    # With the usual port, with a query, and as the address calls itself where no proxy is.
    assert world.post(fields, signature=signed(PUBLIC + ":443" + PATH, fields)) == 200
    assert world.post(fields, signature=signed(f"{PUBLIC}{PATH}?a=%20b", fields), query="?a=%20b") == 200
    assert world.post(fields, signature=signed(world.url, fields)) == 200
    # Of what is one address: a question mark that is not passed on, a host in capitals.
    assert world.post(fields, signature=signed(f"{PUBLIC}{PATH}?", fields)) == 200
    world.db.query("UPDATE wa_installations SET public_url = 'https://CHAT.elsewhere.example'")
    elsewhere = signed("https://chat.elsewhere.example" + PATH, fields)
    wait_until(lambda: world.post(fields, signature=elsewhere) == 200)
    assert TOKEN not in "".join("".join(process.raw) for process in world.processes)


def test_a_token_speaks_for_its_own_numbers(world: TwilioWorld) -> None:
    other = world.db.query("SELECT create_wa_organization('other')::text AS id")[0]["id"]
    with world.db.connect() as connection:
        connection.execute("SELECT set_config('wa.organization_id', %s, false)", (other,))
        connection.execute(
            "SELECT register_wa_phone_number('whatsapp:+14155230000', '+14155230000', %s, 'twilio')",
            ("AC" + "f" * 32,),
        )
    fields = {"AccountSid": ACCOUNT, "MessageSid": "SM" + "3" * 32, "From": f"whatsapp:{CUSTOMER}"}
    fields |= {"To": "whatsapp:+14155230000", "Body": "forged"}
    assert world.post(fields, signature=signed(PUBLIC + PATH, fields)) == 200
    errors = "SELECT sqlstate FROM wa_webhook_errors"
    assert wait_until(lambda: world.db.query(errors)) == [{"sqlstate": "WA503"}]
    assert world.db.query("SELECT 1 FROM wa_messages WHERE content_text = 'forged'") == []


def test_an_account_that_another_organization_names_is_not_its_own(world: TwilioWorld) -> None:
    """It may register numbers of the account, and neither sends with our token nor changes our templates."""
    home = world.db.query("SELECT current_wa_organization()::text AS id")[0]["id"]
    other = world.db.query("SELECT create_wa_organization('other')::text AS id")[0]["id"]
    templates = [content(1, "order", twilio_text={"body": "Order"})]
    world.simulator.post("twilio", sid=ACCOUNT, templates=templates)
    chosen = {"WA_ORGANIZATION": home}
    assert wa("templates", "sync", database=world.db, **world.env, **chosen).returncode == 0
    with world.db.connect() as connection:
        connection.execute("SELECT set_config('wa.organization_id', %s, false)", (other,))
        connection.execute(
            "SELECT register_wa_phone_number('whatsapp:+14155230000', '+14155230000', %s, 'twilio')",
            (ACCOUNT,),
        )
        # A token of its own account, which has none of these templates.
        connection.execute("SELECT begin_wa_template_sync(%s)", (ACCOUNT,))
        connection.execute("SELECT finish_wa_template_sync(%s)", (ACCOUNT,))
        found = connection.execute(
            "SELECT organization_id::text, status FROM wa_templates WHERE name = 'order'"
        ).fetchall()
        assert found == [(home, "APPROVED")]
        connection.execute(
            "INSERT INTO wa_templates (name, category, status, body_text, waba_id, provider_template_id)"
            " VALUES ('bill', 'UTILITY', 'APPROVED', 'On your bill', %s, %s)",
            (ACCOUNT, HELLO),
        )
        connection.execute(
            "INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('+16505550777', 'bill')"
        )
    env = {**world.env, "WHATSAPP_ACCESS_TOKEN": f"{ACCOUNT}:{TOKEN}"}
    refused = wa("templates", "sync", database=world.db, WA_ORGANIZATION=other, **env)
    assert "no access token" in refused.stderr
    world.processes[-1].logged("no access token, messages wait")
    assert world.sent() == {}


def test_a_lost_answer_is_settled_by_the_callback(world: TwilioWorld) -> None:
    world.simulator.post("settings", sent_after_ms=500, delivered_after_ms=600, read_after_ms=700)
    world.simulator.post("faults", mode="cut_after", next=1)
    queue_id = world.queue(text_body="cut")
    row = world.until(queue_id, status="sent", state="read")
    assert list(world.sent()) == [row["wa_message_id"]]


# What a code means to us, whether the answer brought it or a status: (code, where, what follows).
FOLLOWS = [
    (20003, "error", "token"),
    (20429, "error", "sent"),
    (21211, "error", "failed"),
    (21610, "error", "opted_out"),
    (21617, "error", "failed"),
    (21655, "error", "failed"),
    (63007, "error", "number"),
    (63016, "error", "window_closed"),
    (63018, "error", "sent"),
    (63003, "fail_status", "failed"),
    (63016, "fail_status", "window_closed"),
    (63024, "fail_status", "failed"),
    (63049, "fail_status", "failed"),
    (30003, "fail_status", "failed"),
]


def test_errors_are_of_our_classes(world: TwilioWorld) -> None:
    for place, (code, mode, follows) in enumerate(FOLLOWS):
        phone = f"+1650555{1000 + place}"
        world.say("Hello?", sender=f"whatsapp:{phone}")
        wait_until(
            lambda phone=phone: world.db.query("SELECT can_send_freeform_wa(%s) AS may", phone)[0]["may"]
        )
        world.simulator.post("faults", mode=mode, code=code, next=1)
        queue_id = world.queue(phone=phone, text_body="x")
        if follows in ("token", "number"):
            # One that is over may stand there still, of another code.
            scope = wait_until(
                lambda code=code: world.db.query(
                    "SELECT pause_scope FROM wa_phone_numbers WHERE pause_reason LIKE %s", f"%(code {code})"
                )
            )
            assert scope == [{"pause_scope": follows}], code
            world.db.query("SELECT resume_wa_number(%s)", NUMBER)
            world.until(queue_id, status="sent")
        elif follows == "sent":
            world.until(queue_id, status="sent")
        elif mode == "fail_status":
            assert world.until(queue_id, state="failed")["code"] == code
        else:
            assert world.until(queue_id, status="failed")["error_code"] in (str(code), follows)
        if follows == "window_closed":
            wait_until(
                lambda phone=phone: (
                    not world.db.query("SELECT can_send_freeform_wa(%s) AS may", phone)[0]["may"]
                )
            )
        if follows == "opted_out":
            assert world.db.query("SELECT is_wa_opted_out(%s) AS out", phone) == [{"out": True}]


def test_erasing_a_person_takes_the_forms_too(world: TwilioWorld) -> None:
    world.say("my secret")
    wait_until(lambda: world.db.query("SELECT 1 FROM wa_messages WHERE content_text = 'my secret'"))
    [erasure] = world.db.query("SELECT state FROM erase_wa_contact(%s, 'asked for it')", CUSTOMER)
    assert erasure == {"state": "done"}
    kept = "SELECT body FROM wa_webhook_logs"
    for row in world.db.query(kept):
        assert CUSTOMER[1:].encode() not in bytes(row["body"])
        assert b"secret" not in bytes(row["body"])
