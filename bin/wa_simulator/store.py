"""Append-only files of JSON lines.

Each record is one ``write`` to a file opened for appending, so that it is with the operating system when the
call returns: it survives the simulator being killed, though not the machine losing power.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson


class LineFile:
    """A file of JSON objects, one a line, which one process has at a time.

    Raises OSError where the file cannot be opened or another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._buffer: list[bytes] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        # 0600: the records name phone numbers
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._end_torn_line()

    def _end_torn_line(self) -> None:
        """Drop a last line that a kill left unfinished."""
        size = os.fstat(self._fd).st_size
        if not size:
            return
        start = max(0, size - (1 << 20))
        tail = os.pread(self._fd, size - start, start)
        if not tail.endswith(b"\n"):
            os.ftruncate(self._fd, start + tail.rfind(b"\n") + 1)

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record from the start of the file."""
        with self.path.open("rb") as lines:
            for line in lines:
                yield orjson.loads(line)

    def append(self, record: dict[str, Any]) -> None:
        """Write ``record`` before returning."""
        os.write(self._fd, orjson.dumps(record) + b"\n")

    def append_later(self, record: dict[str, Any]) -> None:
        """Keep ``record`` until the next :meth:`flush`; for records that may be lost to a kill."""
        self._buffer.append(orjson.dumps(record) + b"\n")

    def flush(self) -> None:
        """Write what :meth:`append_later` kept."""
        if self._buffer:
            os.write(self._fd, b"".join(self._buffer))
            self._buffer.clear()

    def clear(self) -> None:
        """Forget every record."""
        self._buffer.clear()
        os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        os.close(self._fd)
