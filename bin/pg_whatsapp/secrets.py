"""Sealing of tokens and app secrets with a key that is not in the database.

A sealed value is version (1 byte), nonce (12 bytes) and AES-256-GCM ciphertext. Organization, name and number
are bound in as associated data: a ciphertext copied to another row opens nowhere. Version 1, of releases
before 0.3, had the number inside, in the JSON [phone_number_id, value], and it is compared after opening.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pg_whatsapp import log
from pg_whatsapp.config import Settings
from pg_whatsapp.errors import SealError, SecretKeyError

#: What is sealed now; rotation seals anew what is older.
VERSION = 2
_FIRST_VERSION = 1
_NONCE_BYTES = 12
_KEY_BYTES = 32
_COMMAND_TIMEOUT_S = 30.0
# A key that is nowhere must not have its file read, or its command run, with every row that names it.
_LEARN_AT_MOST_EVERY_S = 10.0
_HOW = "Make one with: openssl rand -base64 32. Keep it outside the database and its backups."
_logger = log.get("secrets")


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
        self.anchor_key = _derive(master, b"anchor")


def _derive(master: bytes, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), _KEY_BYTES, salt=None, info=b"pg_whatsapp " + purpose).derive(master)


class SecretBox:
    """Seals with the first key, opens with any of them: that is how a key is changed.

    read: where the keys come from, asked again when something was sealed with one that is not at hand; None
    where that cannot change while the process runs.
    """

    def __init__(self, keys: list[bytes], read: Callable[[], list[bytes]] | None = None) -> None:
        self._read = read
        self._learned_at = 0.0
        #: Ids of all keys that open; the same list for good, so that whoever was given it sees later ones.
        self.key_id_list: list[str] = []
        self._take(keys)

    def _take(self, keys: list[bytes]) -> None:
        self._keys = [_Key(key) for key in keys]
        self._by_id = {key.id: key for key in self._keys}
        self.key_id_list[:] = sorted(self._by_id)

    @property
    def key_ids(self) -> set[str]:
        """Ids of all keys that open."""
        return set(self._by_id)

    @property
    def first_key_id(self) -> str:
        """The id of the key that seals."""
        return self._keys[0].id

    async def learn(self, key_ids: Iterable[str] | None = None) -> None:
        """Read the keys again where one of these (or, without any, perhaps one) is not at hand.

        What cannot be read leaves the keys as they are.
        """
        if self._read is None or (key_ids is not None and self._by_id.keys() >= set(key_ids)):
            return
        if monotonic() - self._learned_at < _LEARN_AT_MOST_EVERY_S:
            return
        self._learned_at = monotonic()
        try:
            # A command takes its time, and sending goes on meanwhile.
            keys = await asyncio.to_thread(self._read)
        except SecretKeyError as error:
            _logger.warning("master keys not read again", **log.describe(error))
            return
        before = self.key_ids
        self._take(keys)
        if self.key_ids != before:
            _logger.info("master keys read again", count=len(keys))

    def seal(self, organization_id: str, name: str, number: str | None, value: str) -> Sealed:
        """Seal a value for a row; number: its phone_number_id (or what else it belongs to) or None."""
        key = self._keys[0]
        nonce = os.urandom(_NONCE_BYTES)
        sealed = key.cipher.encrypt(nonce, value.encode(), _associated(organization_id, name, number))
        # Keyed, so that nobody can try likely values against it.
        mark = hmac.new(key.fingerprint_key, value.encode(), sha256).hexdigest()[:16]
        return Sealed(bytes([VERSION]) + nonce + sealed, key.id, mark)

    def open(
        self, organization_id: str, name: str, number: str | None, ciphertext: bytes, key_id: str
    ) -> str:
        """The value of a sealed secret, for the row that it was sealed for; raises SealError otherwise."""
        key = self._by_id.get(key_id)
        if key is None:
            raise SealError(
                f"a stored {name} was sealed with a key that is not among those at hand",
                "Add that key to WA_SECRET_KEY_FILE on a line of its own, or set the secret again.",
                key_id,
            )
        version, nonce, sealed = (
            ciphertext[:1],
            ciphertext[1 : 1 + _NONCE_BYTES],
            ciphertext[1 + _NONCE_BYTES :],
        )
        try:
            if version == bytes([VERSION]):
                return key.cipher.decrypt(nonce, sealed, _associated(organization_id, name, number)).decode()
            if version != bytes([_FIRST_VERSION]):
                raise InvalidTag
            sealed_for, value = orjson.loads(
                key.cipher.decrypt(nonce, sealed, f"{organization_id.lower()}|{name}".encode())
            )
            if sealed_for != number:
                raise InvalidTag
        except (InvalidTag, ValueError):
            raise SealError(
                f"a stored {name} does not open: its row was changed, or it was sealed for another one",
                "Set the secret again with bin/wa secrets set.",
                key_id,
            ) from None
        return str(value)

    def anchor_keys(self) -> list[tuple[str, bytes]]:
        """Id and key of the signature of audit anchors, for each master key; the first signs."""
        return [(key.id, key.anchor_key) for key in self._keys]


def _associated(organization_id: str, name: str, number: str | None) -> bytes:
    # JSON, so that no two rows make the same text.
    return orjson.dumps([organization_id.lower(), name, number])


def _decode(text: str) -> bytes:
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    try:
        key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    # Not only what is no base64: letters that are not ASCII, such as a mark before the first line.
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise SecretKeyError("the master key is not 32 bytes in base64 or hexadecimal", _HOW)
    return key


def _decode_all(text: str) -> list[bytes]:
    keys = [_decode(line) for line in text.split()]
    if not keys:
        raise SecretKeyError("the master key is empty", _HOW)
    return keys


def _run(command: str) -> str:
    """What a command prints; of its error output nothing is shown, for a secret may be in it."""
    try:
        done = subprocess.run(
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_COMMAND_TIMEOUT_S,
            check=True,
        )
        return done.stdout.decode()
    except subprocess.CalledProcessError as error:
        raise SecretKeyError(f"WA_SECRET_KEY_COMMAND ended with status {error.returncode}", _HOW) from None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise SecretKeyError(f"WA_SECRET_KEY_COMMAND failed: {type(error).__name__}", _HOW) from None


def load_box(settings: Settings) -> SecretBox | None:
    """The box for the master keys of WA_SECRET_KEY, _FILE or _COMMAND, None where none of them is set.

    Several keys, one a line: the first seals, all open. Raises SecretKeyError if one cannot be read.
    """
    if settings.secret_key is not None:
        return SecretBox(_decode_all(settings.secret_key.get_secret_value()))
    file, command = settings.secret_key_file, settings.secret_key_command

    def read() -> list[bytes]:
        if file is None:
            return _decode_all(_run(command or ""))
        try:
            return _decode_all(file.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise SecretKeyError(f"WA_SECRET_KEY_FILE cannot be read: {type(error).__name__}", _HOW) from None

    return None if file is None and command is None else SecretBox(read(), read)


def require_box(settings: Settings) -> SecretBox:
    """As load_box(), but raises SecretKeyError where no key is set."""
    box = load_box(settings)
    if box is None:
        raise SecretKeyError(
            "no master key: set WA_SECRET_KEY, WA_SECRET_KEY_FILE or WA_SECRET_KEY_COMMAND", _HOW
        )
    return box
