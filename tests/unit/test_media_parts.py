"""Small parts of files: what bytes are, where a provider's may be, names and parts of them over HTTP."""

from __future__ import annotations

import asyncio
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from media_world import JPEG, PDF, VOICE
from pg_whatsapp.media_hosts import ElsewhereError, is_of_api, located, require_provider
from pg_whatsapp.media_http import disposition
from pg_whatsapp.media_stores import Place, StoreError, Stores
from pg_whatsapp.media_transfer import Bounds, Site, TransferError, Ways, download
from pg_whatsapp.media_types import found_type, likely_type
from pg_whatsapp.outside import OutsideTransport, read_rules

META = "https://graph.facebook.com"


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (JPEG, "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "image/png"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (PDF, "application/pdf"),
        (VOICE, "audio/ogg; codecs=opus"),
        (b"OggS\x00\x02" + bytes(20) + b"\x01\x1e\x01vorbis", "audio/ogg"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "video/mp4"),
        (b"\x00\x00\x00\x14ftyp3gp5\x00\x00\x00\x003gp5", "video/3gpp"),
        (b"#!AMR\n" + bytes(20), "audio/amr"),
        (b"MZ" + bytes(100), "application/x-msdownload"),
        (b"<!DOCTYPE html><script>", None),
        (b"just words", None),
        (b"", None),
    ],
)
def test_bytes_tell_what_they_are(head: bytes, found: str | None) -> None:
    assert found_type(head) == found


@pytest.mark.parametrize(
    ("found", "filename", "likely"),
    [
        ("application/pdf", "a.docx", "application/pdf"),
        (
            "application/zip",
            "a.docx",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
        ("application/zip", "a", "application/zip"),
        ("video/mp4", "a.m4a", "audio/mp4"),
        (None, "a.txt", "text/plain"),
        (None, None, None),
    ],
)
def test_a_name_helps_where_bytes_say_little(
    found: str | None, filename: str | None, likely: str | None
) -> None:
    assert likely_type(found, filename) == likely


@pytest.mark.parametrize(
    "url",
    [
        "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1",
        "https://scontent.xx.fbcdn.net/v/t1?x=1",
        "https://mmg.whatsapp.net./x",
    ],
)
def test_a_file_may_be_at_the_providers_hosts(url: str) -> None:
    require_provider(httpx.URL(url), "meta")


@pytest.mark.parametrize(
    "url",
    [
        "http://lookaside.fbsbx.com/x",
        "https://lookaside.fbsbx.com:8443/x",
        "https://user@lookaside.fbsbx.com/x",
        "https://fbsbx.com.example/x",
        "https://notfbsbx.com/x",
        "https://157.240.0.1/x",
        "https://[::1]/x",
        "ftp://lookaside.fbsbx.com/x",
        "/x",
    ],
)
def test_and_nowhere_else(url: str) -> None:
    with pytest.raises(ElsewhereError):
        require_provider(httpx.URL(url), "meta")


def test_where_the_api_is_may_be_anywhere() -> None:
    base = "http://127.0.0.1:8801"
    assert is_of_api(httpx.URL(f"{base}/_media/1"), base)
    assert not is_of_api(httpx.URL("http://127.0.0.1:8802/_media/1"), base)


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "127.0.0.1", "fe80::1"])
def test_a_name_of_the_provider_that_leads_inside_is_not_followed(address: str) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return [address]

    async def fetch() -> str:
        inner = ["10.0.0.0/8", "169.254.0.0/16", "127.0.0.0/8", "fe80::/10"]
        door = OutsideTransport(read_rules(False, [], inner), resolver=resolver)
        url = httpx.URL("https://lookaside.fbsbx.com/x")
        site = Site("meta", META, httpx.Headers({"authorization": "Bearer x"}))
        with pytest.raises(TransferError) as refusal:
            await download(Ways(door, door), url, site, Bounds(100, 5, 1), BytesIO())
        return str(refusal.value)

    assert asyncio.run(fetch()) == "the file is where nobody may go: the address is not allowed"


def test_360dialog_gives_metas_address_of_a_file_and_has_it_at_its_own() -> None:
    told = "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1"
    at_360dialog = located(told, "360dialog", "https://waba-v2.360dialog.io")
    assert str(at_360dialog) == "https://waba-v2.360dialog.io/whatsapp_business/attachments/?mid=1"
    assert str(located(told, "meta", META)) == told
    with pytest.raises(ElsewhereError):
        located("https://\x00", "meta", META)


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("a.pdf", "filename=\"a.pdf\"; filename*=UTF-8''a.pdf"),
        ("../../etc/passwd", "filename=\"passwd\"; filename*=UTF-8''passwd"),
        ("C:\\Users\\x\\a b.pdf", "filename=\"a b.pdf\"; filename*=UTF-8''a%20b.pdf"),
        (
            'x"; filename=evil.exe',
            "filename=\"x__ filename=evil.exe\"; filename*=UTF-8''x%22%3B%20filename%3Devil.exe",
        ),
        ("a\r\nSet-Cookie: x", "filename=\"aSet-Cookie: x\"; filename*=UTF-8''aSet-Cookie%3A%20x"),
        ("cod\u202efdp.exe", "filename=\"codfdp.exe\"; filename*=UTF-8''codfdp.exe"),
        ("год.pdf", "filename=\"___.pdf\"; filename*=UTF-8''%D0%B3%D0%BE%D0%B4.pdf"),
    ],
)
def test_a_name_leads_nowhere(filename: str, header: str) -> None:
    assert disposition("attachment", filename) == f"attachment; {header}"


@pytest.mark.parametrize("filename", [None, "", "..", "/", "\u202e"])
def test_no_name_is_no_name(filename: str | None) -> None:
    assert disposition("inline", filename) == "inline"


@pytest.mark.parametrize("key", ["../../etc/passwd", "/etc/passwd", "x/y", "a" * 36])
def test_a_key_that_is_none_of_ours_is_not_read(key: str) -> None:
    with pytest.raises(StoreError):
        asyncio.run(Stores().read(Place("directory", "/", key), 0, 1))


def test_a_store_follows_no_link_that_somebody_planted(tmp_path: Path) -> None:
    key = "00000000-0000-0000-0000-00000000000a/00000000-0000-0000-0000-00000000000b"
    place = Place("directory", str(tmp_path / "store"), key)
    path = tmp_path / "store" / key
    path.parent.mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    path.symlink_to(secret)
    path.with_name(f".{path.name}.part").symlink_to(secret)
    with pytest.raises(StoreError):
        asyncio.run(Stores().read(place, 0, 6))
    with pytest.raises(StoreError):
        asyncio.run(Stores().put(place, BytesIO(b"other")))
    assert secret.read_bytes() == b"secret"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "InvalidAccessKeyId"),
        (403, "RequestTimeTooSkewed"),
        (400, "ExpiredToken"),
        (404, "NoSuchBucket"),
    ],
)
def test_a_bucket_that_refuses_is_quoted_with_its_code_alone(
    status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bucket(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(f"<Error><Code>{code}</Code><Message>key {self.path}</Message></Error>".encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        key = "00000000-0000-0000-0000-00000000000a/00000000-0000-0000-0000-00000000000b"
        with pytest.raises(StoreError) as caught:
            asyncio.run(Stores().put(Place("s3", f"s3://files-{code.lower()}", key), BytesIO(b"bytes")))
        server.shutdown()
    assert str(caught.value) == f"the bucket does not do it: {code}"
