"""Sealing of secrets with a key outside the database."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pg_whatsapp import config
from pg_whatsapp.errors import SealError, SecretKeyError
from pg_whatsapp.secrets import SecretBox, load_box, require_box

ORGANIZATION = "0192f0c1-1111-7222-8333-444455556666"
OTHER = "0192f0c1-9999-7222-8333-444455556666"
KEY = bytes(range(32))
BOX = SecretBox([KEY])
OF_0_2_0 = "01bba8a408be2106a4b3988e7dc4ee33e65b885c345f404098d861cd96fbd9c32790747db50077d5"


@given(value=st.text(min_size=1), number=st.none() | st.text(min_size=1, max_size=20))
def test_what_was_sealed_opens(value: str, number: str | None) -> None:
    try:
        value.encode()
        (number or "").encode()
    except UnicodeEncodeError:
        return
    sealed = BOX.seal(ORGANIZATION, "access_token", number, value)
    for organization in (ORGANIZATION, ORGANIZATION.upper()):
        assert BOX.open(organization, "access_token", number, sealed.ciphertext, sealed.key_id) == value


def test_nothing_of_the_value_shows() -> None:
    first, second = (BOX.seal(ORGANIZATION, "app_secret", None, "0123456789abcdef") for _ in range(2))
    assert b"0123456789" not in first.ciphertext
    assert first.ciphertext != second.ciphertext
    assert first.fingerprint == second.fingerprint
    assert (
        first.fingerprint
        != SecretBox([os.urandom(32)]).seal(ORGANIZATION, "app_secret", None, "0123456789abcdef").fingerprint
    )
    assert KEY.hex()[:8] not in first.key_id


OTHER_ROWS = (
    (OTHER, "access_token", "1"),
    (ORGANIZATION, "app_secret", "1"),
    (ORGANIZATION, "access_token", "2"),
    (ORGANIZATION, "access_token", None),
    (ORGANIZATION, 'access_token","1', None),
)


def test_it_opens_for_no_other_organization_name_or_number() -> None:
    sealed = BOX.seal(ORGANIZATION, "access_token", "1", "EAA")
    for row in OTHER_ROWS:
        with pytest.raises(SealError, match="does not open"):
            BOX.open(*row, sealed.ciphertext, sealed.key_id)


def test_what_releases_before_sealed_opens_for_its_row_only() -> None:
    """Made by 0.2.0 with the same key: SecretBox([KEY]).seal(ORGANIZATION, 'access_token', '1', 'EAA')."""
    ciphertext, key_id = bytes.fromhex(OF_0_2_0), BOX.first_key_id
    assert BOX.open(ORGANIZATION, "access_token", "1", ciphertext, key_id) == "EAA"
    for row in OTHER_ROWS:
        with pytest.raises(SealError, match="does not open"):
            BOX.open(*row, ciphertext, key_id)


@given(position=st.integers(min_value=0), flip=st.integers(1, 255))
def test_a_changed_byte_is_noticed(position: int, flip: int) -> None:
    sealed = BOX.seal(ORGANIZATION, "access_token", None, "EAA")
    changed = bytearray(sealed.ciphertext)
    changed[position % len(changed)] ^= flip
    with pytest.raises(SealError):
        BOX.open(ORGANIZATION, "access_token", None, bytes(changed), sealed.key_id)


@pytest.mark.parametrize("ciphertext", [b"", b"\x01", b"\x01" + bytes(12), bytes(100)], ids=len)
def test_garbage_does_not_open(ciphertext: bytes) -> None:
    with pytest.raises(SealError):
        BOX.open(ORGANIZATION, "access_token", None, ciphertext, BOX.key_ids.pop())


def test_a_new_key_seals_while_the_older_still_opens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = BOX.seal(ORGANIZATION, "access_token", None, "EAA")
    new_key = base64.b64encode(os.urandom(32)).decode()
    file = tmp_path / "keys"
    file.write_text(f"{new_key}\n{KEY.hex()}\n")
    monkeypatch.setenv("WA_SECRET_KEY_FILE", str(file))
    box = require_box(config.load())
    assert box.open(ORGANIZATION, "access_token", None, old.ciphertext, old.key_id) == "EAA"
    new = box.seal(ORGANIZATION, "access_token", None, "EAA")
    assert new.key_id != old.key_id
    with pytest.raises(SealError) as refused:
        BOX.open(ORGANIZATION, "access_token", None, new.ciphertext, new.key_id)
    assert refused.value.key_id == new.key_id


def test_no_key_is_no_error_until_one_is_needed() -> None:
    assert load_box(config.load()) is None
    with pytest.raises(SecretKeyError) as raised:
        require_box(config.load())
    assert "openssl" in (raised.value.hint or "")


@pytest.mark.parametrize(
    "key",
    [
        "short",
        "x" * 44,
        base64.b64encode(bytes(31)).decode(),
        "   ",
        "\ufeff" + base64.b64encode(bytes(32)).decode(),
        "schlüssel",
    ],
)
def test_a_malformed_key_is_refused_without_quoting_it(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WA_SECRET_KEY", key)
    with pytest.raises(SecretKeyError) as raised:
        load_box(config.load())
    assert key not in str(raised.value)


def test_a_key_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WA_SECRET_KEY_FILE", "/nonexistent/key")
    with pytest.raises(SecretKeyError, match="WA_SECRET_KEY_FILE"):
        load_box(config.load())
