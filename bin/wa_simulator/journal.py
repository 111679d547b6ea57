"""What the simulator accepted, on disk and in memory.

``journal.jsonl`` has a record for each accepted message, written before the answer leaves.
``deliveries.jsonl`` has a record for each status webhook that was answered with 200, written a moment later;
at the next start what is missing there is sent (again). ``reads.jsonl`` has what was marked as read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from .store import LineFile

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


def queue_key(callback: str) -> str:
    """The sender's queue id in its callback data.

    Senders number their attempts, so this is the UUID in it, else what stands before the last colon, else
    all.
    """
    found = _UUID.search(callback)
    if found:
        return found.group().lower()
    return callback.rpartition(":")[0] or callback


@dataclass(slots=True)
class Entry:
    """An accepted message. ``time`` is Unix time; ``statuses`` is what its webhooks will say."""

    time: float
    number: str
    to: str | None
    recipient: str | None
    wa_id: str | None
    wamid: str
    callback: str | None
    type: str
    category: str | None
    template: str | None
    sha256: str
    statuses: list[str]
    errors: list[int] = field(default_factory=list)
    delivered: set[str] = field(default_factory=set)

    def record(self) -> dict[str, Any]:
        """The line in the file."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "delivered"}


@dataclass(slots=True)
class Read:
    """A message of a customer that was marked as read; whether with a typing indicator."""

    time: float
    number: str
    wamid: str
    typing: bool


class Journal:
    """The journal with its indexes."""

    def __init__(self, directory: Path) -> None:
        self._file = LineFile(directory / "journal.jsonl")
        self._deliveries = LineFile(directory / "deliveries.jsonl")
        self._reads = LineFile(directory / "reads.jsonl")
        self.reads = [Read(**record) for record in self._reads.records()]
        self.entries: list[Entry] = []
        self.by_wamid: dict[str, Entry] = {}
        for record in self._file.records():
            self._index(Entry(**record))
        for record in self._deliveries.records():
            self._note(record)

    def _index(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.by_wamid[entry.wamid] = entry

    def _note(self, record: dict[str, Any]) -> None:
        entry = self.by_wamid.get(record["wamid"])
        if entry is None:
            return
        if "planned" in record:
            entry.statuses = record["planned"]
            entry.errors = record["errors"]
        else:
            entry.delivered.add(record["status"])

    def accept(self, entry: Entry) -> None:
        """Record ``entry``; it is on its way to the disk when this returns."""
        self._file.append(entry.record())
        self._index(entry)

    def mark_read(self, read: Read) -> None:
        """Record that a message was marked as read."""
        self._reads.append(asdict(read))
        self.reads.append(read)

    def replan(self, entry: Entry, statuses: list[str], errors: list[int]) -> None:
        """Change what the webhooks of ``entry`` will say (a held message was released or dropped)."""
        record = {"wamid": entry.wamid, "planned": statuses, "errors": errors}
        self._deliveries.append(record)
        self._note(record)

    def delivered(self, wamid: str, status: str) -> None:
        """The receiver has answered 200 to this status."""
        entry = self.by_wamid.get(wamid)
        if entry is not None and status not in entry.delivered:
            entry.delivered.add(status)
            self._deliveries.append_later({"wamid": wamid, "status": status})

    def undelivered(self) -> Iterator[tuple[Entry, list[str]]]:
        """Messages with statuses that no receiver has taken yet."""
        for entry in self.entries:
            missing = [status for status in entry.statuses if status not in entry.delivered]
            if missing:
                yield entry, missing

    def find(
        self,
        *,
        callback_prefix: str | None = None,
        to: str | None = None,
        number: str | None = None,
        since: float | None = None,
        wamid: str | None = None,
    ) -> Iterable[Entry]:
        """Entries that match all filters, oldest first; ``to`` is a phone number or a user id."""
        digits = "".join(c for c in to if c.isdigit()) if to is not None else None
        for entry in self.entries:
            if callback_prefix is not None and not (entry.callback or "").startswith(callback_prefix):
                continue
            if to is not None and to != entry.recipient and digits not in (_digits(entry.to), entry.wa_id):
                continue
            if number is not None and entry.number != number:
                continue
            if since is not None and entry.time < since:
                continue
            if wamid is not None and entry.wamid != wamid:
                continue
            yield entry

    def summary(self, entries: Iterable[Entry]) -> dict[str, Any]:
        """Counts by number, type and template, and the queue ids that were accepted more than once."""
        total, without = 0, 0
        by_number: Counter[str] = Counter()
        by_type: Counter[str] = Counter()
        by_template: Counter[str] = Counter()
        keys: Counter[str] = Counter()
        callbacks: Counter[str] = Counter()
        for entry in entries:
            total += 1
            by_number[entry.number] += 1
            by_type[entry.type] += 1
            if entry.template is not None:
                by_template[entry.template] += 1
            if entry.callback:
                keys[queue_key(entry.callback)] += 1
                callbacks[entry.callback] += 1
            else:
                without += 1
        return {
            "accepted": total,
            "distinct": len(keys) + without,
            "without_callback": without,
            "by_number": dict(by_number),
            "by_type": dict(by_type),
            "by_template": dict(by_template),
            "duplicates": {key: count for key, count in keys.items() if count > 1},
            "same_attempt_twice": {key: count for key, count in callbacks.items() if count > 1},
        }

    def flush(self) -> None:
        """Write the delivery records that wait."""
        self._deliveries.flush()

    def clear(self) -> None:
        """Forget everything."""
        self._file.clear()
        self._deliveries.clear()
        self._reads.clear()
        self.reads.clear()
        self.entries.clear()
        self.by_wamid.clear()

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        self._deliveries.close()
        self._reads.close()


def _digits(text: str | None) -> str | None:
    return None if text is None else "".join(c for c in text if c.isdigit())
