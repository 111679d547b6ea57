"""The logs of proxies that are set up as docs/api.md shows: no phone number, no token of a file."""

from __future__ import annotations

import re
from urllib.parse import unquote

from harness import CHECKOUT

TEXT = (CHECKOUT / "docs/api.md").read_text()
PHONE = "15551234567"
TOKEN = "c0ffee" * 10
REQUESTS = {
    f"/api/whatsapp/conversations/+{PHONE}": "/api/whatsapp/conversations/***",
    f"/api/whatsapp/conversations/%2B{PHONE}/read": "/api/whatsapp/conversations/***/read",
    f"/api/whatsapp/conversations/{PHONE}/send-options?phone_number_id=7": None,
    f"/api/whatsapp/conversations/+{PHONE}/read%0a": None,
    f"/api/whatsapp/%63onversations/+{PHONE}": None,
    f"/api/whatsapp/conversations/%2b%31%35%35%35{PHONE[4:]}": None,
    f"/api/whatsapp/opt-outs/+{PHONE}?scope=all": None,
    "/api/whatsapp/conversations/US.AbCdEfGhIjKl": None,
    f"/api/whatsapp/conversations?search=%2B{PHONE}": "/api/whatsapp/conversations",
    f"/api/whatsapp/media/0190a1b2-0000-7000-8000-000000000001?token={TOKEN}": None,
    "/api/whatsapp/messages/batch": "/api/whatsapp/messages/batch",
}


def tells_nothing(shown: str) -> bool:
    return not any(word in unquote(shown) for word in (PHONE, PHONE[4:], TOKEN[:20], "AbCdEf", "scope"))


def test_nginx() -> None:
    found = re.search(r'^    "~(.+)" "(.+)";$', TEXT, re.MULTILINE)
    assert found
    pattern = re.compile(re.sub(r"\(\?<(?=\w)", "(?P<", found[1]))
    for request, expected in REQUESTS.items():
        # What nginx calls $uri: decoded, without the query.
        uri = unquote(request.partition("?")[0])
        match = pattern.search(uri)
        parts = match.groupdict("") if match else {}
        shown = re.sub(r"\$(\w+)", lambda name, parts=parts: parts[name[1]], found[2]) if match else uri
        assert tells_nothing(shown), shown
        assert shown == (expected or shown)
    assert "$request_uri" not in TEXT
    assert '"$request"' not in TEXT


def test_caddy() -> None:
    found = re.search(r"request>uri regexp `(.+)` (\S+)$", TEXT, re.MULTILINE)
    assert found
    for request in REQUESTS:
        shown = re.sub(found[1], found[2], request)
        assert tells_nothing(shown), shown
    assert re.sub(found[1], found[2], "/api/whatsapp/messages/batch") == "/api/whatsapp/messages/batch"
