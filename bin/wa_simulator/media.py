"""Media: upload, look-up, download by a URL that expires, deletion."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from typing import Any, Final

from .errors import GraphError
from .faults import Faults
from .http import Answer, Request, Response, Trickle, json_response
from .settings import Settings
from .state import Media, State, unknown_object

# MIME type or its main part: greatest size in bytes. Documents may be of other types.
_LIMITS: Final = {
    "audio/": 16 << 20,
    "image/webp": 500 << 10,
    "image/": 5 << 20,
    "video/": 16 << 20,
    "": 100 << 20,
}
_MIME_TYPES: Final = frozenset(
    {
        "audio/aac",
        "audio/amr",
        "audio/mpeg",
        "audio/mp4",
        "audio/ogg",
        "image/jpeg",
        "image/png",
        "image/webp",
        "video/mp4",
        "video/3gpp",
    }
)
_DISPOSITION: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


# 360dialog tells Meta's address of a file, and gives it out at its own.
META_FILES: Final = "https://lookaside.fbsbx.com"


class MediaStore:
    """The files in the state directory and their URLs."""

    def __init__(self, state: State, settings: Settings, faults: Faults) -> None:
        self._state = state
        self._settings = settings
        self._faults = faults
        self._url_key = secrets.token_bytes(32)

    def add(self, content: bytes, mime_type: str, filename: str | None = None) -> Media:
        """Keep ``content`` under a new id."""
        media_id = str(self._state.new_id())
        self._state.media_directory.mkdir(exist_ok=True)
        (self._state.media_directory / media_id).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        self._state.change(
            "media", id=media_id, mime_type=mime_type, sha256=digest, size=len(content), filename=filename
        )
        return self._state.media[media_id]

    def inbound(self, kind: str, payload: dict[str, Any], base_url: str) -> dict[str, Any]:
        """The media object of a customer's message: of an uploaded file by its id, else a file is made.

        What is told of it (``mime_type``, ``sha256``, ...) may be told otherwise than it is.
        """
        payload = dict(payload)
        if "id" in payload and payload["id"] not in self._state.media:
            return payload
        if "id" in payload:
            media = self._state.media[payload["id"]]
            mime_type = payload.pop("mime_type", media.mime_type)
        else:
            mime_type = payload.pop("mime_type", _INBOUND_TYPES[kind])
            encoded = payload.pop("base64", None)
            content = base64.b64decode(encoded) if encoded is not None else _SAMPLES[kind]
            media = self.add(content, mime_type.partition(";")[0], payload.get("filename"))
        digest = base64.b64encode(bytes.fromhex(media.sha256)).decode()
        return {
            "id": media.id,
            "mime_type": mime_type,
            "sha256": digest,
            "url": self.url(media, base_url),
            **payload,
        }

    def url(self, media: Media, base_url: str) -> str:
        """The URL of the bytes, below base_url, valid for as long as the settings say."""
        expires = int(time.time()) + self._settings.media_url_ttl_s
        return f"{base_url}/_media/{media.id}?ext={expires}&hash={self._hash(media.id, str(expires))}"

    def _hash(self, media_id: str, expires: str) -> str:
        return hmac.new(self._url_key, f"{media_id}:{expires}".encode(), hashlib.sha256).hexdigest()[:32]

    # endpoints

    def upload(self, request: Request) -> Response:
        """POST /{phone_number_id}/media."""
        self._maybe_fail()
        parts = _multipart(request)
        if parts.get("messaging_product", ("", "", b""))[2] != b"whatsapp":
            raise GraphError(100, "The parameter messaging_product is required and must be 'whatsapp'.")
        if "file" not in parts:
            raise GraphError(131008, "The parameter file is required.")
        filename, part_type, content = parts["file"]
        mime_type = parts["type"][2].decode("latin-1") if "type" in parts else part_type
        plain = mime_type.partition(";")[0].strip().lower()
        if plain.startswith(("audio/", "image/", "video/")) and plain not in _MIME_TYPES:
            raise GraphError(131053, f"Media of type {plain} is not supported.")
        maximum = next(size for prefix, size in _LIMITS.items() if plain.startswith(prefix))
        if not content or len(content) > maximum:
            raise GraphError(
                131053, f"The file has {len(content)} bytes; 1 to {maximum} are allowed for {plain}."
            )
        return json_response(
            {"id": self.add(content, plain or "application/octet-stream", filename or None).id}
        )

    def _maybe_fail(self) -> None:
        rule = self._faults.pick_media("media_error")
        if rule is not None:
            raise GraphError(rule.code, rule.details, subcode=rule.subcode, status=rule.status)

    def describe(self, media: Media, base_url: str) -> Response:
        """GET /{media_id}."""
        self._maybe_fail()
        return json_response(
            {
                "messaging_product": "whatsapp",
                "url": self.url(media, base_url),
                "mime_type": media.mime_type,
                "sha256": media.sha256,
                "file_size": media.size,
                "id": media.id,
            }
        )

    def download(self, request: Request, media_id: str) -> Answer:
        """GET of the URL that :meth:`describe` gave; 404 once it has expired."""
        query = request.query
        media = self._state.media.get(media_id)
        expires = query.get("ext", "")
        genuine = hmac.compare_digest(query.get("hash", "").encode(), self._hash(media_id, expires).encode())
        if media is None or not genuine or int(expires) < time.time():
            return Response(404, b"", "text/plain")
        rule = self._faults.pick_media("media_gone", "media_redirect", "media_drip", "media_cut")
        content = (self._state.media_directory / media_id).read_bytes()
        if rule is None:
            return Response(200, content, media.mime_type)
        if rule.mode == "media_gone":
            return Response(404, b"", "text/plain")
        if rule.mode == "media_redirect":
            # Where nothing is said, to itself: as a content network that moves a request on.
            place = rule.location or f"{request.path}?{request.raw_query}"
            return Response(302, b"", "text/plain", {"Location": place})
        if rule.mode == "media_cut":
            return Trickle(200, content, media.mime_type, 1e9, stop_after=len(content) // 2)
        return Trickle(200, content, media.mime_type, rule.bytes_per_s)

    def delete(self, media_id: str) -> Response:
        """DELETE /{media_id}."""
        if media_id not in self._state.media:
            raise unknown_object(media_id)
        (self._state.media_directory / media_id).unlink(missing_ok=True)
        self._state.change("media_delete", id=media_id)
        return json_response({"success": True})


_INBOUND_TYPES: Final = {
    "image": "image/jpeg",
    "video": "video/mp4",
    "audio": "audio/ogg; codecs=opus",
    "document": "application/pdf",
    "sticker": "image/webp",
}
# The least that is known for what it is by its first bytes.
_SAMPLES: Final = {
    "image": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00simulated image",
    "video": b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isomsimulated video",
    "audio": b"OggS\x00\x02" + bytes(20) + b"\x01\x13OpusHead\x01\x01simulated audio",
    "document": b"%PDF-1.4\n% simulated document\n%%EOF\n",
    "sticker": b"RIFF\x2c\x00\x00\x00WEBPVP8 simulated sticker",
}
INBOUND_KINDS: Final = frozenset(_INBOUND_TYPES)


def _multipart(request: Request) -> dict[str, tuple[str, str, bytes]]:
    """The parts of a form: name to file name, type and bytes."""
    content_type = request.headers.get("content-type", "")
    match = re.search(r'boundary="?([^";]+)"?', content_type)
    if not content_type.startswith("multipart/form-data") or match is None:
        raise GraphError(100, "The request must be multipart/form-data.")
    delimiter = b"--" + match.group(1).encode("latin-1")
    parts: dict[str, tuple[str, str, bytes]] = {}
    for section in (b"\r\n" + request.body).split(b"\r\n" + delimiter)[1:]:
        head, found, content = section.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        if not found or section.startswith(b"--"):
            continue
        name = filename = part_type = ""
        for line in head.decode("utf-8", "replace").split("\r\n"):
            header, _, value = line.partition(":")
            if header.lower() == "content-disposition":
                attributes = dict(_DISPOSITION.findall(value))
                name, filename = attributes.get("name", ""), attributes.get("filename", "")
            elif header.lower() == "content-type":
                part_type = value.strip()
        parts[name] = (filename, part_type, content)
    return parts
