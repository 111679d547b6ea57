"""Meta's webhook signature."""

from __future__ import annotations

import hashlib
import hmac

import plpython_source
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

source = plpython_source.load("verify_wa_signature")
BODY = b'{"name":"\\u00e4"}'


def header(body: bytes, secret: str) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def test_any_of_several_secrets_will_do() -> None:
    assert source.verify_signature(BODY, header(BODY, "old"), ["new", "old"])
    assert source.verify_signature(BODY, header(BODY, "new").upper().replace("SHA", "sha"), ["new", "old"])
    assert not source.verify_signature(BODY, header(BODY, "other"), ["new", "old"])


def test_one_changed_byte_is_noticed() -> None:
    assert not source.verify_signature(BODY + b" ", header(BODY, "k"), ["k"])


def test_an_empty_secret_signs_nothing() -> None:
    assert not source.verify_signature(BODY, "sha256=" + hmac.digest(b"", BODY, "sha256").hex(), ["", None])


@pytest.mark.parametrize(
    "garbage", [None, "", "sha256=", "sha1=00", "sha256=" + "g" * 64, "sha256=" + "ä" * 64]
)
def test_garbage_is_merely_wrong(garbage: str | None) -> None:
    assert source.verify_signature(BODY, garbage, ["k"]) is False


def test_without_secrets_nothing_is_right() -> None:
    assert source.verify_signature(BODY, header(BODY, "k"), None) is False
    assert source.verify_signature(BODY, header(BODY, "k"), []) is False
    assert source.verify_signature(None, header(BODY, "k"), ["k"]) is False


@settings(deadline=None)
@given(st.binary(), st.text(), st.lists(st.none() | st.text()))
def test_never_raises(body: bytes, given_header: str, secrets: list[str | None]) -> None:
    assert source.verify_signature(body, given_header, secrets) is False


@settings(deadline=None)
@given(st.binary(), st.text(min_size=1))
def test_what_the_helper_signs_is_verified(body: bytes, secret: str) -> None:
    assert source.verify_signature(body, "sha256=" + source.hmac_sha256_hex(body, secret), ["x", secret])
