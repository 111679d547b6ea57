"""What those do to the HTTP API who mean no good, or whose programs are broken.

Tests bin/pg_whatsapp/api/bodies.py, bin/pg_whatsapp/api/shares.py, bin/pg_whatsapp/api/tokens.py.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from itertools import product
from pathlib import Path

import httpx
import jwt
import psycopg
import pytest
from api_server import BASE, EVERY_SCOPE, ApiServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from harness import Database
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from simulated import wait_until

Serve = Callable[..., ApiServer]
HELLO = {"phone": "+15551234567", "template_name": "hello"}
IN_JSON = {"content-type": "application/json"}


@pytest.fixture
def serve_api(world: Database, make_role: Callable[..., str]) -> Iterator[Serve]:
    made: list[ApiServer] = []

    def start(*only: str, **env: str) -> ApiServer:
        made.append(ApiServer(world, make_role, *only, **env))
        return made[-1]

    yield start
    for server in made:
        server.process.kill()
        server.client.close()
        world.query("DELETE FROM wa_organization_roles")


@pytest.fixture
def api(serve_api: Serve) -> ApiServer:
    return serve_api()


def refused(response: httpx.Response, status: int) -> str:
    """Of a refusal, what it says."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return str(response.json()["detail"])


# Where a text stands, in the body of an operation.
TEXTS = [
    ("send", '{"phone": "+15551234567", "message": "%s"}', "message"),
    ("send", '{"phone": "+15551234567", "metadata": {"a": ["", "%s"]}}', "metadata.a.1"),
    ("send", '{"phone": "+15551234567", "metadata": {"%s": 1}}', "metadata"),
    ("messages/batch", '[{"phone": "+15551234567", "template_name": "hello"}, {"phone": "%s"}]', "1.phone"),
    ("queue", '{"recipients": ["+15551234567", "%s"], "templateName": "hello"}', "recipients.1"),
    ("templates", '{"name": "x", "body_text": "%s"}', "body_text"),
    ("templates", '{"name": "x", "body_text": "y", "buttons": [{"text": "%s"}]}', "buttons.0.text"),
    ("opt-outs", '{"phone": "+15551234567", "reason": "%s"}', "reason"),
    ("normalize-phone", '{"phone": "%s"}', "phone"),
]


def test_a_text_that_no_database_holds_is_refused_with_its_place(api: ApiServer) -> None:
    for text, (path, body, place) in product(("\\ud83d", "\\uDE00 alone", "\\u0000"), TEXTS):
        answer = api.client.post(f"{BASE}/{path}", content=body % text, headers=IN_JSON)
        assert refused(answer, 422).startswith(f"{place}: a text holds"), text
    raw = b'{"phone": "+15551234567", "message": "\xed\xa0\xbd"}'
    assert refused(api.client.post(f"{BASE}/send", content=raw, headers=IN_JSON), 422).startswith("message:")
    # A pair is a letter like any other.
    sent = api.client.post(f"{BASE}/send", json=HELLO | {"reference": "\U0001f600"})
    assert sent.json()["reference"] == "\U0001f600"
    assert api.db.query("SELECT count(*) AS n FROM wa_outbound_queue") == [{"n": 1}]


def test_a_number_is_kept_or_refused_and_never_becomes_null(api: ApiServer) -> None:
    for number, status in (
        ("1e400", 422), ("-1e400", 422), ("NaN", 400), ("Infinity", 400), ("9" * 5000, 400), ("1e308", 200),
    ):  # fmt: skip
        one = f'{{"phone": "+15551234567", "template_name": "hello", "metadata": {{"a": {number}}}}}'
        for path, body in (("send", one), ("messages/batch", f"[{one}]")):
            answer = api.client.post(f"{BASE}/{path}", content=body, headers=IN_JSON)
            assert answer.status_code == status, answer.text
    rows = api.db.query("SELECT metadata FROM wa_outbound_queue")
    assert [float(row["metadata"]["a"]) for row in rows] == [1e308] * 2


def test_what_is_nested_without_end_or_holds_too_much_is_refused(api: ApiServer) -> None:
    def nested(depth: int) -> str:
        return '{"a":' * depth + "1" + "}" * depth

    for depth in (100, 300, 900, 100_000):
        body = f'{{"phone": "+15551234567", "template_name": "hello", "metadata": {nested(depth)}}}'
        assert "nested" in refused(api.client.post(f"{BASE}/send", content=body, headers=IN_JSON), 422)
    body = f'{{"phone": "+15551234567", "template_name": "hello", "metadata": {nested(90)}}}'
    assert api.client.post(f"{BASE}/send", content=body, headers=IN_JSON).status_code == 200
    many = b'[{"content": [' + b",".join([b"{}"] * 1_000_001) + b"]}]"
    answer = api.client.post(f"{BASE}/messages/batch", content=many, headers=IN_JSON)
    assert "values" in refused(answer, 413)


def test_a_time_has_a_year_that_every_program_reads(api: ApiServer) -> None:
    for time in ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"):
        answer = api.client.post(f"{BASE}/send", json=HELLO | {"scheduled_at": time})
        assert "scheduled_at" in refused(answer, 422)


def test_a_name_that_whoever_asks_chose_is_told_in_part(api: ApiServer) -> None:
    answer = api.client.post(f"{BASE}/send", json=HELLO | {"x" * 1_000_000: 1})
    assert refused(answer, 422).endswith("x: there is no such field")
    assert len(answer.content) < 2000


def test_without_a_key_no_large_body_is_awaited(api: ApiServer) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    heads = ("content-length: 16000000\r\n", "transfer-encoding: chunked\r\n")
    for key, head in product(("", "wa_live_nobody_has_this"), heads):
        with socket.create_connection((host, int(port)), timeout=120) as client:
            client.sendall(
                f"POST {BASE}/messages/batch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
                f"content-type: application/json\r\n{head}\r\n".encode()
            )
            assert response(client) == 401


def response(client: socket.socket) -> int:
    """The status of one response, which is read to its end."""
    with HTTPResponse(client) as answer:
        answer.begin()
        answer.read()
        return answer.status


def test_who_is_answered_before_the_end_of_a_body_may_go_on(api: ApiServer) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    body = b"[" + b"null, " * 50_000 + b"null]"
    post = f"POST {BASE}/messages/batch HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    get = f"GET {BASE}/templates HTTP/1.1\r\nhost: x\r\napikey: {api.key}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=120) as client:
        client.sendall(post.encode() + body[:100])
        assert response(client) == 401
        client.sendall(body[100:] + get.encode())
        assert response(client) == 200


def test_a_key_without_the_scope_has_no_large_body_awaited(api: ApiServer) -> None:
    big = [HELLO | {"metadata": {"a": "x" * 100_000}}]
    with api.client_of(api.make_key("read")) as client:
        assert "scope" in refused(client.post(f"{BASE}/messages/batch", json=big), 403)
    assert api.client.post(f"{BASE}/messages/batch", json=big).json()["queued"] == 1


def key_of_another_organization(api: ApiServer, make_role: Callable[..., str]) -> str:
    role = make_role("wa_app", login=False)
    api.db.query(f"GRANT {role} TO {api.login}")
    [row] = api.db.query("SELECT create_wa_organization('other')::text AS id")
    api.db.query("SELECT add_wa_organization_role(%s, %s)", row["id"], role)
    with api.db.connect() as connection:
        connection.execute("SELECT set_config('wa.organization_id', %s, false)", (row["id"],))
        [(key,)] = connection.execute(
            "SELECT api_key FROM create_wa_api_key('other', %s, %s)", (role, EVERY_SCOPE)
        ).fetchall()
    return str(key)


def test_slow_requests_of_one_organization_leave_room_for_others(
    serve_api: Serve, make_role: Callable[..., str], session: Callable[[], psycopg.Connection[object]]
) -> None:
    api = serve_api(WA_API_TIMEOUT="60", WA_API_CONNECTIONS="4")
    other = key_of_another_organization(api, make_role)
    ids = [api.client.post(f"{BASE}/send", json=HELLO).json()["id"] for _ in range(12)]
    locker = session()
    locker.execute("SELECT FROM wa_outbound_queue FOR UPDATE")

    def cancel(message: str) -> int:
        with api.client_of(api.key) as client:
            return client.delete(f"{BASE}/messages/{message}").status_code

    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(cancel, message) for message in ids]
        # Long before the time-out of the others, who have all connections that they may have.
        with httpx.Client(base_url=api.url, timeout=120, headers={"apikey": other}) as client:
            for _ in range(3):
                assert client.get(f"{BASE}/templates").status_code == 200
        assert not any(one.done() for one in asked)
        locker.rollback()
        assert {one.result() for one in asked} == {200}


def test_a_key_whose_requests_are_refused_is_no_stranger(
    serve_api: Serve, session: Callable[[], psycopg.Connection[object]]
) -> None:
    api = serve_api(WA_API_TIMEOUT="60", WA_API_CONNECTIONS="4")
    api.db.query("SELECT world.queue(n) FROM generate_series(1, 6) n")
    ids = [row["id"] for row in api.db.query("SELECT id FROM wa_outbound_queue")]
    unknown = HELLO | {"template_name": "none"}
    assert "none" in refused(api.client.post(f"{BASE}/send", json=unknown), 422)
    locker = session()
    locker.execute("SELECT FROM wa_outbound_queue FOR UPDATE")
    waiting = (
        "SELECT count(*) AS n FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(api.client.delete, f"{BASE}/messages/{message}") for message in ids]
        wait_until(lambda: api.db.query(waiting) == [{"n": 3}])
        locker.rollback()
        assert {one.result().status_code for one in asked} == {200}


def token_of(header: dict[str, object]) -> str:
    parts = (header, {"sub": "a", "exp": 4102444800, "role": "wa_app"})
    coded = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode() for one in parts]
    return ".".join([*coded, "AAAA"])


def test_a_token_for_another_kind_of_key_is_a_wrong_token(serve_api: Serve, tmp_path: Path) -> None:
    pair = rsa.generate_private_key(65537, 2048)
    keys = [
        RSAAlgorithm.to_jwk(pair.public_key(), as_dict=True) | {"kid": "rsa"},
        ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)
        | {"kid": "ec"},
    ]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    api = serve_api(WA_JWT_JWKS_FILE=str(tmp_path / "keys.json"))
    kids = ("rsa", "ec", "none", None, 7, ["rsa"])
    algorithms = ("none", "HS256", "RS256", "PS256", "ES256", "EdDSA", None, ["RS256"])

    def status_of(header: dict[str, object]) -> int:
        with api.client_of(token_of(header)) as client:
            return client.get(f"{BASE}/templates").status_code

    # All at once: wrong ones wait their turn, some are told to come later.
    with ThreadPoolExecutor(len(kids) * len(algorithms)) as pool:
        wrong = [{"alg": algorithm, "kid": kid} for kid, algorithm in product(kids, algorithms)]
        assert {*pool.map(status_of, wrong)} <= {401, 429}
    good = {"sub": "a", "exp": 4102444800, "role": api.role}
    for claims, status in (
        ({}, 200),
        ({"sub": "\ud800"}, 401),
        ({"sub": "a\0"}, 401),
        ({"role": "\ud800"}, 401),
        ({"organization": "\0"}, 401),
        ({"scope": ["read", "\ud800"]}, 401),
        ({"exp": 1e400}, 401),
        ({"role": "none"}, 403),
        ({"role": "wa_admin"}, 403),
    ):
        with api.client_of(jwt.encode(good | claims, pair, "RS256", {"kid": "rsa"})) as client:
            assert client.get(f"{BASE}/templates").status_code == status, claims


def test_pages_of_other_origins_are_shown_nothing_unless_a_setting_names_them(serve_api: Serve) -> None:
    origin = "https://desk.example"
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,idempotency-key",
    }

    def shown(api: ApiServer, origin: str) -> list[str | None]:
        headers = {"origin": origin}
        with httpx.Client(base_url=api.url, headers=headers) as nobody:
            answers = [
                nobody.options(f"{BASE}/send", headers=asked),
                api.client.get(f"{BASE}/templates", headers=headers),
                # What goes wrong, too, or nobody learns why.
                api.client.get(f"{BASE}/messages/7", headers=headers),
                nobody.get(f"{BASE}/templates"),
            ]
        return [answer.headers.get("access-control-allow-origin") for answer in answers]

    assert shown(serve_api(), origin) == [None] * 4
    api = serve_api(WA_CORS_ORIGINS=f"https://other.example, {origin}")
    assert shown(api, origin) == [origin] * 4
    assert shown(api, "https://evil.example") == [None] * 4
