"""The SQL of the requirement documents beside the checkout, statement by statement."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from harness import CHECKOUT

FOLDER = CHECKOUT.parent / "shared" / "requirements"
# What may hold a semicolon that ends nothing.
_PIECES = re.compile(r"--[^\n]*|'(?:[^']|'')*'|(\$\w*\$).*?\1|;|[^;'$-]+|.", re.DOTALL)


@dataclass(frozen=True)
class Statement:
    """One statement of an SQL block, with the comments before it, exactly as written."""

    document: str
    line: int
    text: str

    @property
    def key(self) -> str:
        """The document and a digest of the statement's words: whoever changes a word changes the key."""
        words = " ".join(re.sub(r"--[^\n]*", " ", self.text).split())
        return f"{self.document}-{sha256(words.encode()).hexdigest()[:8]}"

    @property
    def title(self) -> str:
        """Where it stands and how it begins, for people."""
        words = re.sub(r"--[^\n]*", " ", self.text).split()
        return f"{self.document}:{self.line} {' '.join(words[:5])} ({self.key})"


def documents(folder: Path = FOLDER) -> list[Path]:
    """The requirement documents; none where the folder is absent."""
    return sorted(folder.glob("*.txt"))


def split(script: str) -> list[tuple[int, str]]:
    """The statements of a script, each with the offset at which it starts."""
    found = []
    start = 0
    for piece in _PIECES.finditer(script):
        if piece[0] == ";":
            found.append((start, script[start : piece.start()]))
            start = piece.end()
    if re.sub(r"--[^\n]*", "", script[start:]).strip():
        found.append((start, script[start:]))
    return [(offset + len(text) - len(text.lstrip()), text.strip()) for offset, text in found]


def statements(folder: Path = FOLDER) -> list[Statement]:
    """Every statement of every block marked as SQL."""
    found = []
    for path in documents(folder):
        text = path.read_text()
        for block in re.finditer(r"^```sql\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            for offset, statement in split(block[1]):
                line = text.count("\n", 0, block.start(1) + offset) + 1
                found.append(Statement(path.name[:3], line, statement))
    return found
