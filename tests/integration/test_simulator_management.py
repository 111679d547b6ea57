"""Numbers, templates, media and credentials, as the management calls of the Graph API show them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from simulated import NUMBER, SimulatorProcess, WebhookReceiver, wait_until

WABA = "102290129340398"
PHONE = "+16505551234"
PNG = b"\x89PNG\r\n\x1a\n\r\n--frame\r\n\x00" * 3


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    made = WebhookReceiver()
    yield made
    made.close()


@pytest.fixture
def simulator(tmp_path: Path, receiver: WebhookReceiver) -> Iterator[SimulatorProcess]:
    settings = {"webhook_url": receiver.url, "pair": False}
    with SimulatorProcess(tmp_path, waba_id=WABA, phone_number_id=NUMBER, settings=settings) as made:
        yield made


def graph(simulator: SimulatorProcess, method: str, path: str, **more: Any) -> dict[str, Any]:
    answer = simulator.client.request(method, f"/v25.0/{path}", **more)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def refused(answer: httpx.Response) -> tuple[int, int, int | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error.get("error_subcode")


def test_templates_are_listed_in_pages(simulator: SimulatorProcess) -> None:
    for i in range(7):
        status = "PAUSED" if i == 3 else "APPROVED"
        simulator.post("templates", waba_id=WABA, name=f"t{i}", language="de", status=status)
    names, url = [], f"/v25.0/{WABA}/message_templates?limit=3&fields=name,status"
    while url:
        page = simulator.client.get(url).json()
        assert len(page["data"]) <= 3
        assert all(set(template) == {"id", "name", "status"} for template in page["data"])
        names += [template["name"] for template in page["data"]]
        url = page["paging"].get("next")
    assert names == ["hello_world", *(f"t{i}" for i in range(7))]
    found = graph(simulator, "GET", f"{WABA}/message_templates", params={"status": "paused"})
    assert [template["name"] for template in found["data"]] == ["t3"]
    bad = simulator.client.get(f"/v25.0/{WABA}/message_templates?after=nonsense")
    assert refused(bad) == (400, 131059, None)


def test_a_template_is_created_reviewed_edited_paused_and_deleted(
    simulator: SimulatorProcess, receiver: WebhookReceiver
) -> None:
    body = {
        "name": "greeting",
        "language": "en_US",
        "category": "utility",
        "components": [
            {
                "type": "body",
                "text": "Hello {{1}}, welcome to our shop.",
                "example": {"body_text": [["Ann"]]},
            }
        ],
    }
    made = graph(simulator, "POST", f"{WABA}/message_templates", json=body)
    assert (made["status"], made["category"]) == ("PENDING", "UTILITY")
    message = {
        "to": PHONE,
        "type": "template",
        "template": {
            "name": "greeting",
            "language": {"code": "en_US"},
            "components": [{"type": "body", "parameters": [{"type": "text", "text": "Eva"}]}],
        },
    }
    assert refused(simulator.send(**message)) == (404, 132001, None)
    simulator.post("templates", waba_id=WABA, name="greeting", status="APPROVED", webhook=True)
    wait_until(lambda: receiver.posts)
    (change,) = receiver.bodies()[0]["entry"][0]["changes"]
    assert change["field"] == "message_template_status_update"
    assert (change["value"]["event"], change["value"]["message_template_id"]) == ("APPROVED", int(made["id"]))
    assert simulator.send(**message).status_code == 200
    edited = {"components": [{"type": "BODY", "text": "Hello."}]}
    assert graph(simulator, "POST", made["id"], json=edited) == {"success": True}
    assert refused(simulator.send(**message)) == (400, 132000, None)
    simulator.post("templates", waba_id=WABA, name="greeting", status="PAUSED")
    assert refused(simulator.send(**message)) == (400, 132015, None)
    assert graph(simulator, "POST", f"{made['id']}/unpause") == {"success": True}
    assert graph(simulator, "GET", made["id"], params={"fields": "status"})["status"] == "APPROVED"
    simulator.post("templates", waba_id=WABA, name="greeting", status="DISABLED")
    assert refused(simulator.send(**message)) == (400, 132016, None)
    assert graph(simulator, "DELETE", f"{WABA}/message_templates?name=greeting") == {"success": True}
    assert refused(simulator.send(**message)) == (404, 132001, None)


def test_marketing_messages_take_marketing_templates(simulator: SimulatorProcess) -> None:
    simulator.post("templates", name="sale", category="MARKETING")
    path = f"/v25.0/{NUMBER}/marketing_messages"
    sale = {"name": "sale", "language": {"code": "en_US"}}
    hello = {"name": "hello_world", "language": {"code": "en_US"}}
    assert simulator.send(path, to=PHONE, type="template", template=sale).status_code == 200
    assert refused(simulator.send(path, to=PHONE, type="template", template=hello)) == (400, 131055, None)
    assert simulator.get("journal")["entries"][0]["category"] == "marketing_lite"


def test_numbers_show_their_fields(simulator: SimulatorProcess) -> None:
    simulator.post(
        "numbers",
        phone_number_id="555",
        waba_id=WABA,
        display_phone="+1 555-078-3881",
        throughput=500,
        tier=2000,
    )
    fields = "display_phone_number,throughput,whatsapp_business_manager_messaging_limit,status"
    shown = graph(simulator, "GET", "555", params={"fields": fields})
    assert shown == {
        "id": "555",
        "display_phone_number": "+15550783881",
        "throughput": {"level": "HIGH"},
        "whatsapp_business_manager_messaging_limit": "TIER_2K",
        "status": "CONNECTED",
    }
    listed = graph(simulator, "GET", f"{WABA}/phone_numbers")
    assert [number["id"] for number in listed["data"]] == [NUMBER, "555"]
    assert "access_token" not in simulator.client.get("/_simulator/numbers").text
    simulator.post("numbers", phone_number_id="555", status="BANNED")
    hello = {"name": "hello_world", "language": {"code": "en_US"}}
    answer = simulator.send("/v25.0/555/messages", to=PHONE, type="template", template=hello)
    assert refused(answer) == (400, 133010, None)


def test_media_go_up_and_down_with_a_url_that_expires(simulator: SimulatorProcess) -> None:
    answer = simulator.client.post(
        f"/v25.0/{NUMBER}/media",
        data={"messaging_product": "whatsapp", "type": "image/png"},
        files={"file": ("a.png", PNG, "image/png")},
    )
    media_id = answer.json()["id"]
    shown = graph(simulator, "GET", media_id)
    assert (shown["mime_type"], shown["file_size"]) == ("image/png", len(PNG))
    assert simulator.client.get(shown["url"]).content == PNG
    assert refused(httpx.get(shown["url"]))[:2] == (401, 190)
    simulator.post("settings", media_url_ttl_s=0, check_media_ids=True, window="off")
    assert simulator.client.get(graph(simulator, "GET", media_id)["url"]).status_code == 404
    assert simulator.send(to=PHONE, type="image", image={"id": media_id}).status_code == 200
    assert graph(simulator, "DELETE", media_id) == {"success": True}
    assert refused(simulator.client.get(f"/v25.0/{media_id}x")) == (400, 100, 33)
    assert refused(simulator.send(to=PHONE, type="image", image={"id": media_id})) == (400, 100, None)
    wrong = simulator.client.post(
        f"/v25.0/{NUMBER}/media",
        data={"messaging_product": "whatsapp"},
        files={"file": ("a.bmp", PNG, "image/bmp")},
    )
    assert refused(wrong) == (400, 131053, None)


def test_credentials_and_unknown_objects(simulator: SimulatorProcess) -> None:
    hello: dict[str, Any] = {"messaging_product": "whatsapp", "to": PHONE, "type": "template"}
    hello["template"] = {"name": "hello_world", "language": {"code": "en_US"}}
    path = f"{simulator.url}/v25.0/{NUMBER}/messages"
    assert refused(httpx.post(path, json=hello)) == (401, 190, None)
    simulator.post("numbers", phone_number_id=NUMBER, access_token="right", api_key="d360")
    for token, status in (("wrong", 401), ("right", 200)):
        answer = httpx.post(path, json=hello, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status
    for key, status in (("d360", 200), ("", 401)):
        answer = httpx.post(f"{simulator.url}/messages", json=hello, headers={"D360-API-KEY": key})
        assert answer.status_code == status
    assert simulator.get("journal", format="summary")["by_number"] == {NUMBER: 2}
    simulator.post("settings", auto_register=False)
    right = {"Authorization": "Bearer right"}
    other = httpx.post(f"{simulator.url}/v25.0/999/messages", json=hello, headers=right)
    assert refused(other) == (400, 100, 33)
    unknown = httpx.get(f"{simulator.url}/v25.0/888/message_templates", headers=right)
    assert refused(unknown) == (400, 100, 33)


def test_reading_reactions_and_rewritten_numbers(
    simulator: SimulatorProcess, receiver: WebhookReceiver
) -> None:
    said = simulator.post("customer", phone=PHONE, text="hi")
    read = {"status": "read", "message_id": said["message_id"], "typing_indicator": {"type": "text"}}
    assert simulator.send(**read).json() == {"success": True}
    assert refused(simulator.send(status="read", message_id="wamid.other")) == (400, 131009, None)
    for target, expected in ((said["message_id"], ["sent"]), ("wamid.other", ["failed"])):
        reaction = {"message_id": target, "emoji": "👍"}
        wamid = simulator.send(to=PHONE, type="reaction", reaction=reaction).json()["messages"][0]["id"]
        wait_until(lambda wamid=wamid, expected=expected: receiver.statuses(wamid) == expected)
    simulator.post("customer", phone="+553198765432", text="oi")
    text = {"type": "text", "text": {"body": "olá"}}
    answer = simulator.send(to="+5531998765432", **text).json()
    assert answer["contacts"] == [{"input": "+5531998765432", "wa_id": "553198765432"}]
    wait_until(lambda: receiver.statuses(answer["messages"][0]["id"])[:1] == ["sent"])
    assert refused(simulator.send(to="+12", **text))[1] == 131009


def test_files_fail_on_purpose(simulator: SimulatorProcess) -> None:
    upload: dict[str, Any] = {
        "url": f"/v25.0/{NUMBER}/media",
        "data": {"messaging_product": "whatsapp"},
        "files": {"file": ("a.pdf", b"%PDF-1.4" + bytes(2000), "application/pdf")},
    }
    simulator.post("faults", mode="media_error", code=131016, next=1)
    assert refused(simulator.client.post(**upload)) == (500, 131016, None)
    media_id = simulator.client.post(**upload).json()["id"]
    simulator.post("faults", mode="media_error", code=100, subcode=33, next=1)
    assert refused(simulator.client.get(f"/v25.0/{media_id}")) == (400, 100, 33)
    url = graph(simulator, "GET", media_id)["url"]
    simulator.post("faults", mode="media_gone", next=1)
    assert simulator.client.get(url).status_code == 404
    simulator.post("faults", mode="media_redirect", next=1)
    moved = simulator.client.get(url, follow_redirects=False)
    assert (moved.status_code, simulator.client.get(moved.headers["location"]).status_code) == (302, 200)
    simulator.post("faults", mode="media_redirect", location="https://elsewhere.example/x", next=1)
    moved = simulator.client.get(url, follow_redirects=False)
    assert moved.headers["location"] == "https://elsewhere.example/x"
    simulator.post("faults", mode="media_cut", next=1)
    with pytest.raises(httpx.TransportError):
        simulator.client.get(url)
    simulator.post("faults", mode="media_drip", bytes_per_s=10_000, next=1)
    assert len(simulator.client.get(url).content) == 2008
    # No message was hit by any of these.
    assert simulator.get("faults")["hits"] == {
        "media_error": 2,
        "media_gone": 1,
        "media_redirect": 2,
        "media_cut": 1,
        "media_drip": 1,
    }


def test_files_of_360dialog_are_asked_for_at_its_own_address(simulator: SimulatorProcess) -> None:
    simulator.post("numbers", phone_number_id="777", api_key="d360")
    key = {"D360-API-KEY": "d360"}
    with httpx.Client(base_url=simulator.url, headers=key) as client:
        made = client.post(
            "/media",
            data={"messaging_product": "whatsapp"},
            files={"file": ("a.pdf", b"%PDF-1.4", "application/pdf")},
        ).json()
        told = client.get(f"/{made['id']}").json()["url"]
        assert told.startswith("https://lookaside.fbsbx.com/")
        assert client.get(told.removeprefix("https://lookaside.fbsbx.com")).content == b"%PDF-1.4"
        simulator.post("settings", auto_register=False)
        assert client.get(f"/{made['id']}", headers={"D360-API-KEY": "wrong"}).status_code == 401
