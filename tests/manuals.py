"""Manuals as tests read them: their fenced blocks, links and headings, and a shell for the blocks."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from harness import CHECKOUT, Server, free_port

_BLOCK = re.compile(r"(?:^ *<!-- (.*?) -->\n)?^( *)```(\w+)\n(.*?)^\2```$", re.MULTILINE | re.DOTALL)
# What the manuals let programs listen on; a test takes ports that are free.
_PORTS = ("8800", "8801", "8802")
_PSQL = "psql -X -q -v VERBOSITY=verbose -v SHOW_CONTEXT=never"
_BLOCK_S = 90.0


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

    @property
    def why_not(self) -> str | None:
        """Why it is not run; None if it is."""
        return self.note.removeprefix("not run: ") if self.note.startswith("not run: ") else None

    @property
    def is_run(self) -> bool:
        return self.language in ("sql", "sh", "python") and self.why_not is None


def manuals() -> list[Path]:
    """What is read by people: the pages at the top of the checkout, and docs/."""
    return [*sorted(CHECKOUT.glob("*.md")), *sorted((CHECKOUT / "docs").glob("*.md"))]


def blocks(manual: Path) -> list[Block]:
    """The fenced blocks of a manual."""
    found = _BLOCK.findall(manual.read_text())
    return [Block(language, textwrap.dedent(text), note) for note, _, language, text in found]


def prose(manual: Path) -> str:
    """A manual without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", manual.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(manual: Path) -> set[str]:
    """What a link may name behind `#`: the headings in the form that GitHub gives them."""
    headings = re.findall(r"^#+ (.*)$", prose(manual), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def errors(output: str) -> list[str]:
    """The SQLSTATEs of the errors in what psql printed."""
    assert "psql: error" not in output, output
    return re.findall(r"^ERROR:  (\w{5}): ", output, re.MULTILINE)


class Reader:
    """Somebody who types the blocks of manuals into one shell; what that starts ends with it."""

    def __init__(self, server: Server, home: Path) -> None:
        self._home = home
        self._ports = {port: str(free_port()) for port in _PORTS}
        self._process = subprocess.Popen(
            ["bash"],
            cwd=CHECKOUT,
            env=server.env | {"PATH": f"{server.bindir}:/usr/bin:/bin", "HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._say("set -e")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def enter(self, block: Block) -> str:
        """Run a block and return what it printed; fails if a command does, or SQL other than announced."""
        text = block.text
        for port, free in self._ports.items():
            text = text.replace(port, free)
        script, log = self._home / "block", self._home / "log"
        script.write_text(text)
        # Programs that an earlier block started go on writing to the log of that block.
        log.unlink(missing_ok=True)
        if block.language == "sql":
            self._say(f"PGUSER={block.role} {_PSQL} <{script} >{log} 2>&1")
        elif block.language == "python":
            self._say(f"PGUSER={block.role} {sys.executable} {script} </dev/null >{log} 2>&1")
        else:
            self._say(f". {script} </dev/null >{log} 2>&1")
        self._say("echo done")
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _BLOCK_S)
        done = ready and os.read(self._process.stdout.fileno(), 100)
        output = log.read_text(errors="replace")
        assert done, f"{'failed' if ready else 'no end'}:\n{text}\n{output}"
        if block.language == "sql":
            expected = [block.sqlstate] if block.sqlstate else []
            assert errors(output) == expected, f"{text}\n{output}"
        return output

    def read(self, manual: Path) -> str:
        """Run all blocks of a manual that are run; returns what the last one printed."""
        output = ""
        for block in blocks(manual):
            if block.is_run:
                output = self.enter(block)
        return output

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._say("set +e; kill $(jobs -p) 2>/dev/null; wait; exit 0")
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process.stdout.close()
