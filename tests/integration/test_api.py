"""The HTTP API as those who use it see it: keys, messages, conversations, errors.

Tests bin/pg_whatsapp/api/, bin/pg_whatsapp/readiness.py, bin/pg_whatsapp/web.py, bin/pg_whatsapp/keys.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import jwt
import pytest
from api_server import BASE, EVERY_SCOPE, ApiServer
from harness import Database
from simulated import wait_until
from wa_process import WaProcess, wa

SECRET = "a secret that the issuer and we share, long enough"
HELLO = {"phone": "+15551234567", "template_name": "hello"}
Serve = Callable[..., ApiServer]


@pytest.fixture
def serve_api(world: Database, make_role: Callable[..., str]) -> Iterator[Serve]:
    made: list[ApiServer] = []

    def start(*only: str, **env: str) -> ApiServer:
        made.append(ApiServer(world, make_role, *only, **env))
        return made[-1]

    yield start
    for server in made:
        if server.process.process.poll() is None:
            assert server.stop() == 0
        world.query("DELETE FROM wa_organization_roles")


@pytest.fixture
def api(serve_api: Serve) -> ApiServer:
    return serve_api()


def problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"].endswith(code)
    return dict(document)


def send(client: httpx.Client, **message: object) -> httpx.Response:
    return client.post(f"{BASE}/send", json=message)


def test_a_message_is_queued_shown_and_taken_back(api: ApiServer) -> None:
    sent = send(api.client, **HELLO, reference="r", metadata={"a": 1})
    assert sent.status_code == 200
    message = sent.json()
    assert (message["status"], message["phone"], message["reference"]) == ("pending", "+15551234567", "r")
    assert message["created_at"].endswith("+00:00")
    assert sent.headers["cache-control"] == "no-store"
    shown = api.client.get(f"{BASE}/messages/{message['id']}").json()
    assert shown["queued"] == message
    assert shown["explanation"]["hint"]
    assert api.client.delete(f"{BASE}/messages/{message['id']}").json()["status"] == "cancelled"
    [row] = api.db.query("SELECT status, metadata FROM wa_outbound_queue")
    assert row == {"status": "cancelled", "metadata": {"a": 1}}
    problem(api.client.get(f"{BASE}/messages/7"), 404, "P0002")
    problem(api.client.delete(f"{BASE}/messages/7"), 422, "request")


def test_a_claimed_message_cannot_be_taken_back(api: ApiServer) -> None:
    message = send(api.client, **HELLO).json()
    assert api.db.query("SELECT world.claimed() AS n") == [{"n": 1}]
    problem(api.client.delete(f"{BASE}/messages/{message['id']}"), 409, "WA201")


def test_text_outside_of_the_window_is_told_what_may_go(api: ApiServer) -> None:
    refused = problem(send(api.client, phone="+5491140000001", message="Hi"), 409, "WA101")
    assert refused["window_closed_at"] is None
    assert {t["name"] for t in refused["templates"]} == {"code", "hello", "order", "sale"}  # type: ignore[attr-defined]
    api.db.query("SELECT world.wrote(1, '25 hours')")
    refused = problem(send(api.client, phone="+5491140000001", message="Hi"), 409, "WA101")
    assert refused["window_closed_at"] is not None
    api.db.query("SELECT world.wrote(1)")
    assert send(api.client, phone="+5491140000001", message="Hi").json()["text_body"] == "Hi"


# Bodies, and how each is refused.
NONSENSE: list[tuple[bytes, int, str, str]] = [
    (b"{", 400, "json", "no JSON"),
    (b"[]", 422, "request", "body"),
    (b"{}", 422, "request", "phone"),
    (b'{"phone": "+15551234567", "massage": "x"}', 422, "request", "massage: there is no such field"),
    (b'{"phone": 7, "message": "x"}', 422, "request", "phone"),
    (b'{"phone": "nobody", "message": "x"}', 422, "WA001", "not a phone number"),
    (b'{"phone": "+15551234567", "template_name": "none"}', 422, "WA002", "none"),
    (b'{"phone": "+15551234567", "message": "x", "scheduled_at": "soon"}', 422, "request", "scheduled"),
    (b'{"phone": "+15551234567", "message": "x", "scheduled_at": "2030-01-01T00:00"}', 422, "request", ""),
    (b'{"phone": "+15551234567", "template_name": "hello", "phone_number_id": "9"}', 422, "WA010", "9"),
    (b'{"phone": "+15551234567", "template_name": "draft"}', 409, "WA103", "not approved"),
    (b'{"phone": "+15551234567\\u0000", "template_name": "hello"}', 422, "22P05", "phone: "),
]  # fmt: skip


def test_what_makes_no_sense_is_refused(api: ApiServer) -> None:
    for body, status, code, words in NONSENSE:
        headers = {"content-type": "application/json"}
        document = problem(api.client.post(f"{BASE}/send", content=body, headers=headers), status, code)
        assert words in str(document["detail"])
    # A good one as curl -d sends it.
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = b'{"phone": "+15551234567", "template_name": "hello"}'
    document = problem(api.client.post(f"{BASE}/send", content=body, headers=headers), 422, "request")
    assert "Content-Type: application/json" in str(document["detail"])
    assert api.db.query("SELECT count(*) AS n FROM wa_outbound_queue") == [{"n": 0}]


def test_a_body_has_a_largest_size(api: ApiServer) -> None:
    problem(send(api.client, **HELLO, reference="x" * 17 * 1024 * 1024), 413, "size")
    parts = (b" " * 1024**2 for _ in range(17))
    problem(api.client.post(f"{BASE}/send", content=parts), 413, "size")


def test_repetitions_do_nothing_more(api: ApiServer) -> None:
    def once(number: int) -> httpx.Response:
        with api.client_of(api.key, **{"idempotency-key": "order-42"}) as client:
            return client.post(f"{BASE}/send", json={**HELLO, "reference": "x"})

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(once, range(20)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    ids = {answer.json()["id"] for answer in answers if answer.status_code == 200}
    assert len(ids) == 1
    assert all(a.json()["code"] == "WA607" for a in answers if a.status_code == 409)
    assert api.db.query("SELECT count(*) AS n FROM wa_outbound_queue") == [{"n": 1}]
    assert once(0).json()["id"] in ids
    other = api.client.post(f"{BASE}/send", json=HELLO, headers={"idempotency-key": "order-42"})
    problem(other, 422, "WA606")
    # Another key of ours is another caller.
    with api.client_of(api.make_key(), **{"idempotency-key": "order-42"}) as client:
        assert client.post(f"{BASE}/send", json=HELLO).status_code == 200


def test_a_batch_has_a_verdict_for_each(api: ApiServer) -> None:
    batch = [HELLO, {"phone": "x", "message": "y"}, 7, HELLO | {"colour": "red"}, None]
    done = api.client.post(f"{BASE}/messages/batch", json=batch).json()
    assert (done["queued"], done["refused"]) == (1, 4)
    assert [verdict["n"] for verdict in done["messages"]] == [1, 2, 3, 4, 5]
    assert done["messages"][1]["error_sqlstate"] == "WA001"
    problem(api.client.post(f"{BASE}/messages/batch", json=[]), 422, "request")
    problem(api.client.post(f"{BASE}/messages/batch", json=[1] * 10_001), 422, "request")


def test_hosts_queue_under_the_paths_that_they_know(api: ApiServer) -> None:
    body = {"eventId": "e", "recipients": ["+15551234567", "+0987654321"], "templateName": "hello"}
    with httpx.Client(base_url=api.url, headers={"apikey": api.key}) as client:
        for path in (f"{BASE}/queue", "/functions/v1/queue-whatsapp"):
            done = client.post(path, json=body)
            assert done.json()["queued"] == 1
            assert [v["recipient"] for v in done.json()["verdicts"]] == body["recipients"]
        assert done.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-headers" in client.options("/functions/v1/queue-whatsapp").headers
        wrong = client.post("/functions/v1/queue-whatsapp", json={})
        assert wrong.json()["error"] == wrong.json()["detail"]
        assert wrong.headers["access-control-allow-origin"] == "*"
        ran = client.post("/functions/v1/process-whatsapp-queue", json={}).json()
        assert ran == {"processed": 0, "sent": 0, "failed": 0}


def test_conversations_are_found_and_read(api: ApiServer) -> None:
    for n in (1, 2):
        api.db.query("SELECT world.wrote(%s::integer)", n)
        api.db.query(
            "INSERT INTO wa_messages (number_id, phone_number_id, contact_id, phone_e164, wa_message_id,"
            " direction, message_type, status, state, content_text) SELECT n.id, n.phone_number_id,"
            " c.id, c.phone_e164, 'wamid.' || c.id, 'inbound', 'text', 'received', 'received', 'Where is it?'"
            " FROM wa_phone_numbers n, wa_contacts c WHERE c.phone_e164 = world.customer(%s::integer)",
            n,
        )
    page = api.client.get(f"{BASE}/conversations", params={"limit": 1}).json()
    assert [c["phone"] for c in page["conversations"]] == ["+5491140000002"]
    page = api.client.get(f"{BASE}/conversations", params={"limit": 1, "cursor": page["next"]}).json()
    assert [c["phone"] for c in page["conversations"]] == ["+5491140000001"]
    assert page["next"] is None
    found = api.client.get(
        f"{BASE}/conversations", params={"search": "where is", "closing_within_minutes": 1440}
    )
    assert len(found.json()["conversations"]) == 2
    thread = api.client.get(f"{BASE}/conversations/+5491140000001", params={"limit": 20}).json()
    assert [m["text"] for m in thread["messages"]] == ["Where is it?"]
    problem(api.client.get(f"{BASE}/conversations/+5491140000099"), 404, "P0002")
    problem(api.client.get(f"{BASE}/conversations", params={"limit": 201}), 422, "request")
    problem(api.client.get(f"{BASE}/conversations", params={"cursor": "x"}), 422, "22023")
    problem(api.client.get(f"{BASE}/conversations", params={"state": "gone"}), 422, "request")


def test_templates_and_consent(api: ApiServer) -> None:
    made = api.client.post(f"{BASE}/templates", json={"name": "new", "body_text": "Hi {{1}}"})
    assert (made.status_code, made.json()["approval_status"]) == (201, "pending")
    problem(api.client.post(f"{BASE}/templates", json={"name": "new", "body_text": "Hi {{1}}"}), 409, "23505")
    listed = api.client.get(f"{BASE}/templates", params={"approval_status": "pending"}).json()["templates"]
    assert [template["name"] for template in listed] == ["draft", "new"]
    phone = "+15551234567"
    assert api.client.post(f"{BASE}/opt-outs", json={"phone": phone, "scope": "all"}).json() == {
        "changed": True
    }
    assert api.client.get(f"{BASE}/opt-outs/{phone}").json()["is_opted_out"] is True
    problem(send(api.client, **HELLO), 409, "WA102")
    assert [o["phone"] for o in api.client.get(f"{BASE}/opt-outs").json()["opt_outs"]] == [phone]
    assert api.client.delete(f"{BASE}/opt-outs/{phone}").json() == {"changed": True}
    assert send(api.client, **HELLO).status_code == 200
    # No SMS is no word about WhatsApp.
    assert api.client.post(f"{BASE}/opt-outs", json={"phone": phone, "scope": "sms"}).status_code == 200
    [sms] = api.client.get(f"{BASE}/opt-outs").json()["opt_outs"]
    assert sms["scope"] == "sms"
    assert send(api.client, **HELLO).status_code == 200
    lifted = api.client.delete(f"{BASE}/opt-outs/{phone}", params={"scope": "sms"})
    assert lifted.json() == {"changed": True}


def test_keys_open_what_they_are_for(api: ApiServer) -> None:
    with httpx.Client(base_url=api.url) as client:
        missing = client.get(f"{BASE}/templates")
        problem(missing, 401, "WA601")
        assert missing.headers["www-authenticate"] == "Bearer"
    with api.client_of("wa_live_wrong") as client:
        problem(client.get(f"{BASE}/templates"), 401, "WA601")
    with api.client_of(api.make_key("read")) as client:
        assert client.get(f"{BASE}/templates").status_code == 200
        problem(send(client, **HELLO), 403, "WA602")
        problem(client.get(f"{BASE}/metrics"), 403, "WA602")
    assert api.db.query("SELECT get_wa_rejections(now() - interval '1 hour') AS n") == [{"n": 2}]
    # Changes count at once.
    api.db.query("UPDATE wa_api_keys SET revoked_at = clock_timestamp()")
    problem(api.client.get(f"{BASE}/templates"), 401, "WA601")


def test_a_key_has_no_more_rights_than_its_role(api: ApiServer, make_role: Callable[..., str]) -> None:
    analyst = make_role("wa_analyst", login=False)
    stranger = make_role("wa_app", login=False)
    api.db.query(f"GRANT {analyst} TO {api.login}")
    with api.client_of(api.make_key(role=analyst)) as client:
        problem(send(client, **HELLO), 403, "42501")
    # The server's login is no member of this one.
    with api.client_of(api.make_key(role=stranger)) as client:
        refused = problem(client.get(f"{BASE}/templates"), 403, "42501")
        assert stranger not in str(refused)
    api.db.query(f"ALTER ROLE {api.role} BYPASSRLS")
    problem(api.client.get(f"{BASE}/templates"), 403, "WA603")
    api.db.query(f"ALTER ROLE {api.role} NOBYPASSRLS")
    api.db.query("DELETE FROM wa_organization_roles")


def test_a_key_of_one_organization_sees_nothing_of_another(
    api: ApiServer, make_role: Callable[..., str]
) -> None:
    message = send(api.client, **HELLO).json()
    other = make_role("wa_app", login=False)
    api.db.query(f"GRANT {other} TO {api.login}")
    [row] = api.db.query("SELECT create_wa_organization('b')::text AS id")
    api.db.query("SELECT add_wa_organization_role(%s, %s)", row["id"], other)
    with api.db.connect() as connection:
        connection.execute("SELECT set_config('wa.organization_id', %s, false)", (row["id"],))
        [(key,)] = connection.execute(
            "SELECT api_key FROM create_wa_api_key('b', %s, %s)", (other, EVERY_SCOPE)
        ).fetchall()
    with api.client_of(key) as client:
        problem(client.get(f"{BASE}/messages/{message['id']}"), 404, "P0002")
        problem(client.delete(f"{BASE}/messages/{message['id']}"), 404, "P0002")
        assert client.get(f"{BASE}/templates").json()["templates"] == []
        problem(send(client, **HELLO), 422, "WA002")
    api.db.query("DELETE FROM wa_organization_roles")


def test_a_limit_of_requests_is_told_and_held(api: ApiServer) -> None:
    with api.client_of(api.make_key("read", p_requests_per_minute=3)) as client:
        seen = [client.get(f"{BASE}/templates") for _ in range(5)]
    assert [r.status_code for r in seen[:3]] == [200] * 3 or 429 not in {r.status_code for r in seen}
    assert seen[0].headers["ratelimit-policy"] == '"key";q=3;w=60'
    assert re.fullmatch(r'"key";r=\d;t=\d+', seen[0].headers["ratelimit"])
    for late in (r for r in seen if r.status_code == 429):
        assert int(late.headers["retry-after"]) <= 60
        problem(late, 429, "too-many-requests")


def test_test_keys_reach_test_numbers_only(api: ApiServer) -> None:
    api.db.query("SELECT register_wa_phone_number('101', '+1 555 123 4568', '200', is_test => true)")
    with api.client_of(api.make_key(p_is_test=True)) as client:
        problem(send(client, **HELLO), 403, "WA605")
        mine = send(client, **HELLO, phone_number_id="101").json()["id"]
        live = send(api.client, **HELLO).json()["id"]
        problem(client.get(f"{BASE}/messages/{live}"), 404, "P0002")
        problem(client.delete(f"{BASE}/messages/{live}"), 403, "WA605")
        assert client.get(f"{BASE}/messages/{mine}").json()["queued"]["id"] == mine
        assert client.delete(f"{BASE}/messages/{mine}").json()["status"] == "cancelled"
    assert api.client.get(f"{BASE}/messages/{live}").json()["queued"]["status"] == "pending"


def test_the_acting_user_is_in_the_audit_log(api: ApiServer) -> None:
    with api.client_of(api.key, **{"x-user-id": "admin-user"}) as client:
        client.post(f"{BASE}/opt-outs", json={"phone": "+15551234567"})
        message = send(client, phone="+15551234568", template_name="hello").json()
        client.delete(f"{BASE}/messages/{message['id']}")
    rows = api.db.query(
        "SELECT event, meta, session_role, client_address FROM audit_log WHERE meta ? 'acting_user'"
    )
    assert {(row["session_role"], row["client_address"]) for row in rows} == {(api.login, "127.0.0.1")}
    assert rows
    assert {row["meta"]["acting_user"] for row in rows} == {"admin-user"}
    assert all(row["meta"]["caller"].startswith("key:") for row in rows)


def test_tokens_of_a_trusted_issuer(serve_api: Serve) -> None:
    api = serve_api(WA_JWT_SECRET=SECRET, WA_JWT_AUDIENCE="here", WA_JWT_ISSUER="us")
    good = {"sub": "u", "exp": 4102444800, "aud": "here", "iss": "us", "role": api.role, "scope": "read"}

    def ask(claims: dict[str, object], secret: str = SECRET, algorithm: str = "HS256") -> httpx.Response:
        token = jwt.encode(claims, secret, algorithm)
        with api.client_of(token) as client:
            return client.get(f"{BASE}/templates")

    assert ask(good).status_code == 200
    assert ask(good | {"role": "postgres"}).json()["code"] == "WA603"
    assert ask(good | {"scope": "send"}).json()["code"] == "WA602"
    for bad in ({"exp": 1}, {"aud": "there"}, {"iss": "them"}, {"role": 7}, {"organization": "none"}):
        problem(ask(good | bad), 401, "WA601")
    problem(ask(good, "another secret that is long enough, too"), 401, "WA601")
    problem(ask(good, "", "none"), 401, "WA601")
    problem(ask({k: v for k, v in good.items() if k != "exp"}), 401, "WA601")
    assert api.client.get(f"{BASE}/templates").status_code == 200


def test_no_database_is_503(api: ApiServer) -> None:
    api.db.query("REVOKE EXECUTE ON FUNCTION open_wa_api_request FROM wa_api")
    problem(api.client.get(f"{BASE}/templates"), 403, "42501")
    api.db.query("GRANT EXECUTE ON FUNCTION open_wa_api_request TO wa_api")
    api.db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", api.login)
    wait_until(lambda: api.client.get(f"{BASE}/templates").status_code == 200)


def test_readiness_tells_how_it_stands(api: ApiServer) -> None:
    told = api.client.get("/readyz")
    assert (told.status_code, told.json()["schema_version"]) == (200, told.json()["extension_version"])
    assert api.client.get("/healthz").status_code == 200
    api.db.query("UPDATE wa_migrations SET version = '0.0.1'")
    # What was told is good for a second.
    wait_until(lambda: api.client.get("/readyz").status_code == 503)


def test_paths_that_are_not_there(api: ApiServer) -> None:
    problem(api.client.get(f"{BASE}/nothing"), 404, "path")
    problem(api.client.get(f"{BASE}/send"), 405, "method")
    problem(api.client.post(f"{BASE}/payment-link"), 501, "not-implemented")


def test_browsers_of_other_origins_only_where_a_setting_says_so(serve_api: Serve) -> None:
    origin = {"origin": "https://shop.example"}
    plain = serve_api()
    assert "access-control-allow-origin" not in plain.client.get(f"{BASE}/templates", headers=origin).headers
    plain.stop()
    api = serve_api(WA_CORS_ORIGINS="https://shop.example")
    answer = api.client.get(f"{BASE}/templates", headers=origin)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"


def test_one_process_serves_all_where_one_login_may(serve_api: Serve) -> None:
    api = serve_api("--host", "127.0.0.1")
    assert api.client.get(f"{BASE}/templates").status_code == 200
    verify = api.client.get(f"{BASE}/webhook", params={"hub.mode": "subscribe", "hub.verify_token": "x"})
    assert verify.status_code == 403
    api.process.logged("webhooks and HTTP API share a login that may take other roles: for development only")


def test_what_faces_webhooks_alone_may_become_nobody_else(
    world: Database, make_role: Callable[..., str]
) -> None:
    login = make_role("wa_receiver", "wa_app")
    refused = wa("serve", "--only", "webhook", "--port", "0", database=world, user=login)
    assert refused.returncode == 1
    assert "may take other roles (wa_app)" in refused.stderr
    with WaProcess(
        "serve", "--only", "webhook", "--port", "0", database=world, user=make_role("wa_receiver")
    ) as process:
        line = process.logged("serving")
        url = f"http://{line['host']}:{line['port']}"
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert httpx.post(f"{url}{BASE}/send", json=HELLO).status_code == 404
        process.signal()
        assert process.wait() == 0


def test_no_log_holds_a_phone_number_or_a_key(api: ApiServer) -> None:
    api.client.get(f"{BASE}/conversations/+15551234567")
    send(api.client, phone="+15551234567", message="a word")
    with api.client_of("wa_live_" + "y" * 43) as client:
        client.get(f"{BASE}/conversations/+15551234567")
    assert api.stop() == 0
    text = "".join(api.process.raw)
    assert "15551234567" not in text
    assert api.key not in text
    assert "y" * 20 not in text
    assert "a word" not in text


def test_keys_by_command(world: Database, make_role: Callable[..., str]) -> None:
    role = make_role("wa_app", login=False)
    made = wa(
        "keys", "create", "shop", "--role", role, "--scope", "read", "--expires", "2100-01-01", database=world
    )
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key.startswith("wa_live_")
    key_id = made.stderr.split()[1].rstrip(";")
    listed = wa("keys", "list", database=world).stdout
    assert "shop" in listed
    assert key not in listed
    assert wa("keys", "revoke", key_id, database=world).stdout == "revoked\n"
    again = wa("keys", "revoke", key_id, database=world)
    assert (again.returncode, f"no key {key_id}" in again.stderr) == (1, True)
    wrong = wa("keys", "create", "shop", "--role", "postgres", database=world)
    assert (wrong.returncode, "superuser" in wrong.stderr) == (1, True)
    assert "WA603" not in wrong.stderr
    world.query("DELETE FROM wa_organization_roles")


def test_the_document_names_every_operation() -> None:
    from pg_whatsapp.api.app import describe, make_app
    from pg_whatsapp.api.service import Service
    from pg_whatsapp.config import Settings

    document = describe(make_app(Service(Settings())))
    assert document["openapi"] == "3.1.0"
    assert {"/metrics", "/functions/v1/queue-whatsapp"} | {
        f"{BASE}/{name}"
        for name in (
            "send", "messages/batch", "messages/{message_id}", "queue", "conversations",
            "conversations/{phone}", "templates", "opt-outs", "opt-outs/{phone}", "metrics", "payment-link",
            "process-flows", "process-queue",
        )
    } <= document["paths"].keys()  # fmt: skip
    for name, path in document["paths"].items():
        for method, operation in path.items():
            assert operation["description"]
            if name.endswith("/media/{media_id}") and method in ("get", "head"):
                continue  # of links, which people open: text
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"]
                    assert "example" in answer["content"]["application/problem+json"]


def test_monitors_get_figures(api: ApiServer, make_role: Callable[..., str]) -> None:
    send(api.client, **HELLO)
    assert api.client.get(f"{BASE}/metrics").json()["queue"]["due"] == 1
    scraped = api.client.get("/metrics")
    assert scraped.headers["content-type"].startswith("text/plain")
    assert 'wa_queue_due{organization="default",phone_number_id="100"} 1.0' in scraped.text
    with httpx.Client(base_url=api.url) as client:
        problem(client.get("/metrics"), 401, "WA601")
    # On a port of its own for the whole installation, at most ten seconds old.
    login = make_role("wa_api")
    with WaProcess("serve", "--only", "metrics", "--port", "0", database=api.db, user=login) as process:
        line = process.logged("serving")
        url = f"http://{line['host']}:{line['port']}"
        text = httpx.get(f"{url}/metrics").text
        assert "# TYPE wa_queue_due gauge" in text
        send(api.client, **HELLO)
        assert httpx.get(f"{url}/metrics").text == text
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}{BASE}/metrics").status_code == 404
        process.signal()
        assert process.wait() == 0


def test_a_page_shows_the_document(api: ApiServer) -> None:
    with httpx.Client(base_url=api.url) as client:
        shown = client.get(f"{BASE}/docs")
        assert shown.headers["content-type"].startswith("text/html")
        assert "script-src 'self';" in shown.headers["content-security-policy"]
        loaded = re.findall(r'(?:src|href)="([^"]+)"', shown.text)
        assert len(loaded) == 3
        for path in loaded:
            # Relative, so that it comes from here and under whatever path a proxy gives us.
            assert re.fullmatch(r"docs/[\w.-]+", path)
            assert client.get(f"{BASE}/{path}").status_code == 200
        assert client.get(f"{BASE}/docs/other.js").status_code == 404
