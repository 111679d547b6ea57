"""The files of an archive: JSON lines, compressed, the rows of each person sealed with the person's own key.

The first line says what the file is. Each other one is {"key": ID, "rows": N, "box": "…"}: base64 of a nonce
and of AES-256-GCM over compressed JSON lines {"table": "…", "row": {…}}, bound to the file's name and the
key's id; or {"rows": N, "lines": […]}: what belongs to nobody. A manifest stands beside it.
"""

from __future__ import annotations

import base64
import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pg_whatsapp.errors import WaError

FORMAT = "pg_whatsapp archive 1"
_NONCE_BYTES = 12


class ArchiveError(WaError):
    """A file of the archive is not what was written."""


@dataclass(frozen=True)
class Row:
    """A row that is to be archived, as the database hands it out."""

    place: str
    at: datetime
    key_id: int | None
    table: str
    body: bytes

    def line(self) -> bytes:
        """As it stands in a file."""
        return b'{"table":' + orjson.dumps(self.table) + b',"row":' + self.body + b"}"


@dataclass(frozen=True)
class Written:
    """A file, and what its manifest says of it."""

    data: bytes
    manifest: dict[str, Any]

    def manifest_text(self) -> bytes:
        """The manifest as it is stored."""
        return orjson.dumps(self.manifest, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"


def write(name: str, kind: str, rows: list[Row], keys: Mapping[int, bytes]) -> Written:
    """The file of some rows, which are not none. keys: by id, those of all rows that have one."""
    by_key: dict[int | None, list[Row]] = {}
    for row in rows:
        by_key.setdefault(row.key_id, []).append(row)
    buffer = io.BytesIO()
    # Without the time, so that the same rows make files of the same size.
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(orjson.dumps({"format": FORMAT, "name": name, "kind": kind}) + b"\n")
        for key_id, theirs in by_key.items():
            file.write(_line(name, key_id, [row.line() for row in theirs], keys) + b"\n")
    data = buffer.getvalue()
    return Written(
        data,
        {
            "format": FORMAT,
            "name": name,
            "kind": kind,
            "rows": len(rows),
            "tables": {
                table: sum(row.table == table for row in rows) for table in {row.table for row in rows}
            },
            "persons": len(by_key.keys() - {None}),
            "bytes": len(data),
            "sha256": sha256(data).hexdigest(),
            "place": rows[-1].place,
            "first_at": min(row.at for row in rows),
            "last_at": max(row.at for row in rows),
        },
    )


def _line(name: str, key_id: int | None, lines: list[bytes], keys: Mapping[int, bytes]) -> bytes:
    if key_id is None:
        return b'{"rows":%d,"lines":[%b]}' % (len(lines), b",".join(lines))
    nonce = os.urandom(_NONCE_BYTES)
    box = nonce + AESGCM(keys[key_id]).encrypt(nonce, zlib.compress(b"\n".join(lines)), _bound(name, key_id))
    return orjson.dumps({"key": key_id, "rows": len(lines), "box": base64.b64encode(box).decode()})


def _bound(name: str, key_id: int) -> bytes:
    return f"{name} {key_id}".encode()


def check(name: str, data: bytes, expected_sha256: bytes) -> list[dict[str, Any]]:
    """The lines of a file after the first. Raises ArchiveError if it is not what was written."""
    if sha256(data).digest() != expected_sha256:
        raise ArchiveError(f"{name} was changed, or is cut off: its checksum does not fit")
    lines = [orjson.loads(line) for line in gzip.decompress(data).splitlines()]
    if lines[0]["format"] != FORMAT or lines[0]["name"] != name:
        raise ArchiveError(f"{name} is not the file that stood under this name")
    return lines[1:]


def key_ids(lines: Iterable[dict[str, Any]]) -> list[int]:
    """Those that open the lines of a file."""
    return [line["key"] for line in lines if "key" in line]


def read(name: str, lines: Iterable[dict[str, Any]], keys: Mapping[int, bytes]) -> Iterator[dict[str, Any]]:
    """The rows of a file, {"table": …, "row": …}, without those whose keys are gone."""
    for line in lines:
        if "key" not in line:
            yield from line["lines"]
            continue
        if (key := keys.get(line["key"])) is None:
            continue
        box = base64.b64decode(line["box"])
        try:
            opened = AESGCM(key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], _bound(name, line["key"]))
        except InvalidTag:
            raise ArchiveError(f"{name} holds rows that another key sealed, or another file's") from None
        yield from (orjson.loads(row) for row in zlib.decompress(opened).split(b"\n"))
