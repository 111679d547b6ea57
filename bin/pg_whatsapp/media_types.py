"""What bytes are, by what they begin with. Whether that is good enough is said in sql/media/types.sql."""

from __future__ import annotations

import mimetypes

import filetype

#: How much of a file has to be looked at.
HEAD = 8192


def found_type(head: bytes) -> str | None:
    """The MIME type that the first bytes of a file (HEAD of them, or all) tell; None if they tell none."""
    # Two that the library does not know of: third generation's video, and what is in an Ogg file.
    if head[4:10] == b"ftyp3g":
        return "video/3gpp"
    if head.startswith(b"OggS") and b"OpusHead" in head[:256]:
        return "audio/ogg; codecs=opus"
    found: str | None = filetype.guess_mime(head)
    return found


def likely_type(found: str | None, filename: str | None) -> str | None:
    """The MIME type of a file whose bytes tell one (or none), and that has a name (or none)."""
    named = mimetypes.guess_type(filename)[0] if filename else None
    if found is None or named is None:
        return found or named
    # Office documents are archives, and sound comes in containers of video: which it is, the name tells.
    if found == "video/mp4" and named.startswith("audio/"):
        return "audio/mp4"
    return named if found == "application/zip" else found
