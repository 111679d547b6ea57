"""Sealing of tokens and app secrets with a key that is not in the database.

A sealed value is version (1 byte), nonce (12 bytes) and AES-256-GCM ciphertext of the JSON [phone_number_id,
value]. Organization and name are bound in as associated data, the number inside: a ciphertext copied to
another row opens nowhere.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from dataclasses import dataclass
from hashlib import sha256

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pg_whatsapp.config import Settings
from pg_whatsapp.errors import SealError, SecretKeyError

_VERSION = b"\x01"
_NONCE_BYTES = 12
_KEY_BYTES = 32
_HOW = "Make one with: openssl rand -base64 32. Keep it outside the database and its backups."


@dataclass(frozen=True)
class Sealed:
    """A secret as the database keeps it."""

    ciphertext: bytes
    key_id: str
    fingerprint: str


class _Key:
    """One master key and what is derived from it."""

    def __init__(self, master: bytes) -> None:
        self.id = hmac.digest(master, b"pg_whatsapp key id", "sha256").hex()[:16]
        self.cipher = AESGCM(_derive(master, b"seal"))
        self.fingerprint_key = _derive(master, b"fingerprint")


def _derive(master: bytes, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), _KEY_BYTES, salt=None, info=b"pg_whatsapp " + purpose).derive(master)


class SecretBox:
    """Seals with the first key, opens with any of them: that is how a key is changed."""

    def __init__(self, keys: list[bytes]) -> None:
        self._keys = [_Key(key) for key in keys]
        self._by_id = {key.id: key for key in self._keys}

    @property
    def key_ids(self) -> set[str]:
        """Ids of all keys that open."""
        return set(self._by_id)

    def seal(self, organization_id: str, name: str, number: str | None, value: str) -> Sealed:
        """Seal a value for a row of wa_secrets; number: its phone_number_id or None."""
        key = self._keys[0]
        nonce = os.urandom(_NONCE_BYTES)
        inside = orjson.dumps([number, value])
        sealed = key.cipher.encrypt(nonce, inside, _associated(organization_id, name))
        # Keyed, so that nobody can try likely values against it.
        mark = hmac.new(key.fingerprint_key, value.encode(), sha256).hexdigest()[:16]
        return Sealed(_VERSION + nonce + sealed, key.id, mark)

    def open(self, organization_id: str, name: str, ciphertext: bytes, key_id: str) -> tuple[str | None, str]:
        """The number and value of a sealed secret; raises SealError if it does not open."""
        key = self._by_id.get(key_id)
        if key is None:
            raise SealError(
                f"a stored {name} was sealed with a key that is not among those at hand",
                "Add that key to WA_SECRET_KEY_FILE on a line of its own, or set the secret again.",
                key_id,
            )
        nonce, sealed = ciphertext[1 : 1 + _NONCE_BYTES], ciphertext[1 + _NONCE_BYTES :]
        try:
            if ciphertext[:1] != _VERSION:
                raise InvalidTag
            number, value = orjson.loads(
                key.cipher.decrypt(nonce, sealed, _associated(organization_id, name))
            )
        except (InvalidTag, ValueError):
            raise SealError(
                f"a stored {name} does not open: its row was changed or belongs to another organization",
                "Set the secret again with bin/wa secrets set.",
                key_id,
            ) from None
        return number, value


def _associated(organization_id: str, name: str) -> bytes:
    return f"{organization_id.lower()}|{name}".encode()


def _decode(text: str) -> bytes:
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    try:
        key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != _KEY_BYTES:
        raise SecretKeyError("the master key is not 32 bytes in base64 or hexadecimal", _HOW)
    return key


def load_box(settings: Settings) -> SecretBox | None:
    """The box for the master key in WA_SECRET_KEY or WA_SECRET_KEY_FILE, None where neither is set.

    Several keys, one a line: the first seals, all open. Raises SecretKeyError if one cannot be read.
    """
    if settings.secret_key is not None:
        text = settings.secret_key.get_secret_value()
    elif settings.secret_key_file is not None:
        try:
            text = settings.secret_key_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SecretKeyError(f"WA_SECRET_KEY_FILE cannot be read: {type(error).__name__}", _HOW) from None
    else:
        return None
    keys = [_decode(line) for line in text.split()]
    if not keys:
        raise SecretKeyError("the master key is empty", _HOW)
    return SecretBox(keys)


def require_box(settings: Settings) -> SecretBox:
    """As load_box(), but raises SecretKeyError where no key is set."""
    box = load_box(settings)
    if box is None:
        raise SecretKeyError("no master key: set WA_SECRET_KEY or WA_SECRET_KEY_FILE", _HOW)
    return box
