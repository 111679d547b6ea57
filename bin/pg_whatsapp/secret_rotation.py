"""`wa secrets rotate`: everything that is sealed, sealed anew with the first master key, while all runs."""

from __future__ import annotations

from typing import Any, LiteralString, NamedTuple

from pg_whatsapp import db
from pg_whatsapp.config import Settings
from pg_whatsapp.errors import SealError
from pg_whatsapp.secrets import VERSION, SecretBox

# What is set meanwhile by somebody with an older key is found by the next look.
_MOST_LOOKS = 10


class Stored(NamedTuple):
    """A sealed secret; number: what it belongs to besides its organization."""

    organization: str
    id: str
    name: str
    number: str | None
    ciphertext: bytes
    key_id: str


class Rotation(NamedTuple):
    """What was done: how many were sealed anew, and which do not open."""

    resealed: int
    unopened: list[tuple[Stored, SealError]]


_FIND: LiteralString = (
    "SELECT organization_id::text, secret_id::text, name, belongs_to, ciphertext, key_id"
    " FROM get_wa_sealed_secrets(%s, %s)"
)
_REPLACE: LiteralString = "SELECT reseal_wa_secret(%s, %s, %s, %s, %s, %s)"


async def rotate(settings: Settings, box: SecretBox, organization: str | None = None) -> Rotation:
    """Seal anew what another key than the first one sealed; safe to stop at any time and to repeat.

    Each secret is one short transaction, and stays what it was until that commits. Raises WaError.
    """

    async def work(connection: db.Connection) -> Rotation:
        resealed = 0
        unopened: list[tuple[Stored, SealError]] = []
        for _ in range(_MOST_LOOKS):
            cursor = await connection.execute(_FIND, (box.first_key_id, VERSION))
            found = [_stored(row) for row in await cursor.fetchall()]
            opened = [(one, _open(box, one)) for one in found]
            done = 0
            for one, value in opened:
                if isinstance(value, str):
                    done += await _reseal(connection, box, one, value)
            resealed += done
            unopened = [(one, value) for one, value in opened if isinstance(value, SealError)]
            if not done:
                break
        return Rotation(resealed, unopened)

    return await db.once(settings.conninfo, "secrets", work, organization=organization)


def _stored(row: tuple[Any, ...]) -> Stored:
    organization, secret_id, name, number, ciphertext, key_id = row
    return Stored(organization, secret_id, name, number, bytes(ciphertext), key_id)


def _open(box: SecretBox, one: Stored) -> str | SealError:
    try:
        return box.open(one.organization, one.name, one.number, one.ciphertext, one.key_id)
    except SealError as error:
        return error


async def _reseal(connection: db.Connection, box: SecretBox, one: Stored, value: str) -> bool:
    sealed = box.seal(one.organization, one.name, one.number, value)
    cursor = await connection.execute(
        _REPLACE,
        (one.organization, one.id, one.ciphertext, sealed.ciphertext, sealed.key_id, sealed.fingerprint),
    )
    [row] = await cursor.fetchall()
    return bool(row[0])
