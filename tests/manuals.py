"""Manuals as tests read them: their fenced blocks, and psql as a user types into it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from harness import Server

_BLOCK = re.compile(r"(?:^<!-- (.*?) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block; ``note`` is the comment above it: `as ROLE`, `raises SQLSTATE`, `not run: why`."""

    language: str
    text: str
    note: str

    @property
    def role(self) -> str:
        found = re.search(r"as (\w+)", self.note)
        return found[1] if found else "postgres"

    @property
    def sqlstate(self) -> str | None:
        found = re.search(r"raises (\w+)", self.note)
        return found[1] if found else None


def blocks(manual: Path) -> list[Block]:
    """The fenced blocks of a manual."""
    return [Block(language, text, note) for note, language, text in _BLOCK.findall(manual.read_text())]


def psql(server: Server, script: str, user: str = "postgres") -> str:
    """Run a script as a user types it, without stopping at errors; each error is told with its SQLSTATE."""
    done = subprocess.run(
        [server.bindir / "psql", "-X", "-q", "-v", "VERBOSITY=verbose", "-v", "SHOW_CONTEXT=never"],
        input=script,
        env=server.env | {"PGUSER": user, "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.stdout


def errors(output: str) -> list[str]:
    """The SQLSTATEs of the errors in what psql printed."""
    assert "psql: error" not in output, output
    return re.findall(r"^ERROR:  (\w{5}): ", output, re.MULTILINE)
