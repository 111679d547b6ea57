"""`wa audit`: the heads of the audit log's chains, signed and kept elsewhere, and whether they still fit.

An anchor is a line of JSON: heads (organization_id, name, position, hash), taken_at, database, public_key,
and signature, of Ed25519 over the same JSON without the signature: keys sorted, no spaces, UTF-8. The private
key is derived from the master key; whoever has the public one can check anchors without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pg_whatsapp import db
from pg_whatsapp.config import Settings
from pg_whatsapp.errors import ConfigError
from pg_whatsapp.secrets import SecretBox

FORMAT = "pg_whatsapp audit anchor 1"


def public_keys(box: SecretBox) -> list[str]:
    """Those of all master keys at hand, in hexadecimal; the first is that of new anchors."""
    return [_private(key).public_key().public_bytes_raw().hex() for _, key in box.anchor_keys()]


def _private(key: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(key)


def _signed_part(anchor: dict[str, Any]) -> bytes:
    signed = {name: value for name, value in anchor.items() if name != "signature"}
    return orjson.dumps(signed, option=orjson.OPT_SORT_KEYS)


def sign(box: SecretBox, heads: list[dict[str, Any]], database: str) -> bytes:
    """An anchor of these heads, as a line without its end."""
    key = _private(box.anchor_keys()[0][1])
    anchor: dict[str, Any] = {
        "format": FORMAT,
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "database": database,
        "heads": heads,
        "public_key": key.public_key().public_bytes_raw().hex(),
    }
    anchor["signature"] = key.sign(_signed_part(anchor)).hex()
    return orjson.dumps(anchor, option=orjson.OPT_SORT_KEYS)


def read(text: bytes, trusted: Iterable[str]) -> list[dict[str, Any]]:
    """The anchors of a file, a line each, the oldest first.

    trusted: public keys in hexadecimal. Raises ConfigError for what is no anchor or signed by none of them.
    """
    known = {key.lower() for key in trusted}
    anchors = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            anchor = orjson.loads(line)
            key, signature = anchor["public_key"], bytes.fromhex(anchor["signature"])
            if anchor["format"] != FORMAT:
                raise ValueError
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, _signed_part(anchor))
        except InvalidSignature:
            raise ConfigError(
                f"line {number} of the anchors was changed: its signature does not fit",
                "Take the anchor from another place where it was kept.",
            ) from None
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"line {number} is no anchor of bin/wa audit anchor") from None
        if key.lower() not in known:
            raise ConfigError(
                f"line {number} of the anchors is signed with a key that is not trusted here",
                "Anybody has a key of his own. --public-key names yours, where the master key changed.",
            )
        anchors.append(anchor)
    if not anchors:
        raise ConfigError("the file holds no anchor", "bin/wa audit anchor --file FILE adds one.")
    return anchors


async def anchor(settings: Settings, box: SecretBox, organization: str | None = None) -> bytes:
    """Seal what waits, and sign where the chains end now. Raises WaError."""

    async def work(connection: db.Connection) -> bytes:
        await connection.execute("SELECT seal_wa_audit_log()")
        cursor = await connection.execute(
            "SELECT organization_id::text, name, position, hash FROM get_wa_audit_health() WHERE position > 0"
        )
        names = ("organization_id", "name", "position", "hash")
        heads = [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
        row = await (
            await connection.execute(
                "SELECT current_database() || ' of ' || system_identifier FROM wa_installations"
            )
        ).fetchone()
        return sign(box, heads, row[0] if row else "")

    return await db.once(settings.conninfo, "audit", work, organization=organization)


async def verify(
    settings: Settings, anchors: list[dict[str, Any]], organization: str | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What verify_wa_audit_log() finds, with anchors as read() gives them, and where the chains end.

    Raises WaError.
    """
    # In their order, by which the newest are known; an organization's name may change.
    heads = [
        {name: head.get(name) for name in ("organization_id", "position", "hash")}
        for anchor in anchors
        for head in anchor["heads"]
    ]

    async def work(connection: db.Connection) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        cursor = await connection.execute(
            "SELECT organization_id::text, position, audit_id, problem, detail FROM verify_wa_audit_log(%s)",
            (orjson.dumps(heads).decode(),),
        )
        names = [column.name for column in cursor.description or ()]
        found = [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
        cursor = await connection.execute(
            "SELECT organization_id::text, name, position, unsealed FROM get_wa_audit_health()"
        )
        names = [column.name for column in cursor.description or ()]
        ends = [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
        return found, ends

    return await db.once(settings.conninfo, "audit", work, organization=organization)
