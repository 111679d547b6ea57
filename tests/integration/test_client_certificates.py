"""Webhooks from those with a client certificate only: seen by the server, or by a proxy that is trusted."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import Authority
from harness import Database
from pg_whatsapp.client_certificates import PEER, ProxyWord, names_of
from pg_whatsapp.errors import ConfigError
from test_serve import ENV, PATH, message, prepare, signature
from wa_process import WaProcess, wa

META = "client.webhooks.example"


@pytest.fixture
def started(db: Database) -> Iterator[Callable[..., tuple[str, int]]]:
    processes: list[WaProcess] = []
    prepare(db)

    def start(*arguments: str, **env: str) -> tuple[str, int]:
        processes.append(WaProcess("serve", "--port", "0", *arguments, database=db, **(ENV | env)))
        line = processes[-1].logged("serving")
        return line["host"], line["port"]

    yield start
    for process in processes:
        process.kill()


def client(authority: Authority, certificate: Path | None) -> ssl.SSLContext:
    context = authority.client()
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def post(url: str, context: ssl.SSLContext | None = None, **headers: str) -> int:
    body = message("wamid.1")
    with httpx.Client(verify=context or True) as http:
        return http.post(url + PATH, content=body, headers=signature(body) | headers).status_code


def test_the_server_asks_for_them_itself(started: Callable[..., tuple[str, int]], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours, others = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    host, port = started(
        *("--tls-cert", str(ours.certificate("localhost")), "--client-ca", str(ours.path)),
        *("--client-name", META.upper()),
    )
    url = f"https://localhost:{port}"
    assert host == "127.0.0.1"
    assert post(url, client(ours, ours.certificate(META))) == 200
    # Another that the same authority signed, one that another authority signed, and none.
    assert post(url, client(ours, ours.certificate("somebody.example"))) == 403
    for certificate in (others.certificate(META), None):
        with pytest.raises(httpx.TransportError):
            post(url, client(ours, certificate))
    with pytest.raises(httpx.TransportError):
        post(f"http://localhost:{port}")


def test_without_an_authority_it_is_plain_https(
    started: Callable[..., tuple[str, int]], tmp_path: Path
) -> None:
    ours = Authority(tmp_path)
    _, port = started("--tls-cert", str(ours.certificate("localhost")))
    assert post(f"https://localhost:{port}", client(ours, None)) == 200


def test_a_trusted_proxy_tells(started: Callable[..., tuple[str, int]], db: Database) -> None:
    word = "x-ssl-client-verify: SUCCESS"
    host, port = started(WA_WEBHOOK_CLIENT_HEADER=word, WA_TRUSTED_PROXIES="127.0.0.1")
    url = f"http://{host}:{port}"
    assert post(url, **{"X-SSL-Client-Verify": "SUCCESS"}) == 200
    assert post(url, **{"X-SSL-Client-Verify": "SUCCESS", "X-Forwarded-For": "192.0.2.1"}) == 200
    for headers in ({}, {"X-SSL-Client-Verify": "NONE"}, {"X-SSL-Client-Verify": "SUCCESS, NONE"}):
        assert post(url, **headers) == 403
    query = {"hub.mode": "subscribe", "hub.verify_token": "verify-me", "hub.challenge": "1"}
    assert httpx.get(url + PATH, params=query).status_code == 403
    assert httpx.get(url + PATH, params=query, headers={"x-ssl-client-verify": "SUCCESS"}).status_code == 200
    # Health and the like are nobody's secret.
    assert httpx.get(url + "/healthz").status_code == 200


def test_from_others_the_header_is_nothing(started: Callable[..., tuple[str, int]]) -> None:
    """Also with an X-Forwarded-For that names the proxy."""
    host, port = started(
        WA_WEBHOOK_CLIENT_HEADER="x-ssl-client-verify: SUCCESS", WA_TRUSTED_PROXIES="192.0.2.0/24"
    )
    for forged in ({}, {"X-Forwarded-For": "192.0.2.1"}, {"Forwarded": "for=192.0.2.1"}):
        assert post(f"http://{host}:{port}", **{"X-SSL-Client-Verify": "SUCCESS", **forged}) == 403


def test_two_headers_are_none() -> None:
    word = ProxyWord("x-verify: SUCCESS", "2001:db8::/32, 192.0.2.7")
    good = (b"x-verify", b"SUCCESS")

    def scope(peer: Any, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
        return {PEER: peer, "headers": list(headers)}

    assert word.is_given(scope("192.0.2.7", good))
    assert word.is_given(scope("2001:db8::1", good))
    assert word.is_given(scope("::ffff:192.0.2.7", good))
    assert not word.is_given(scope("::ffff:192.0.2.8", good))
    for wrong in (
        scope("192.0.2.7", good, good),
        scope("192.0.2.7", (b"x-verify", b"FAILED"), good),
        scope("192.0.2.8", good),
        scope("/run/socket", good),
        scope(None, good),
        scope("192.0.2.7"),
    ):
        assert not word.is_given(wrong)


@pytest.mark.parametrize(
    ("line", "proxies"),
    [("no header", "127.0.0.1"), ("x: y", None), ("x: y", "*"), ("x: y", "proxy.example"), ("x:", "::1")],
)
def test_what_makes_no_sense_is_refused(line: str, proxies: str | None) -> None:
    with pytest.raises(ConfigError, match="WA_WEBHOOK_CLIENT_HEADER"):
        ProxyWord(line, proxies)


def test_names_of_no_certificate() -> None:
    assert names_of(None) == names_of({}) == set()
    assert names_of(
        {"subject": ((("commonName", "A.b"),),), "subjectAltName": (("DNS", "C"), ("URI", "d"))}
    ) == {
        "a.b",
        "c",
    }


def test_certificates_that_are_none(db: Database, tmp_path: Path) -> None:
    file = tmp_path / "nothing.pem"
    file.write_text("nothing")
    done = wa("serve", "--port", "0", "--tls-cert", str(file), database=db, **ENV)
    assert (done.returncode, "certificates cannot be used" in done.stderr) == (1, True)
    done = wa("serve", "--client-ca", str(file), database=db, **ENV)
    assert (done.returncode, "need --tls-cert" in done.stderr) == (2, True)
