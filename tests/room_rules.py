"""The rules of rooms: only a room writes its tables, and calls go down in the order of sql/rooms.

tests/rooms.toml names the exceptions with their reasons; one that nothing needs any more is an error, too.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from room_facts import UNKNOWN, Fact, SourceError, read_sources, resolved


@dataclass
class Exceptions:
    """What tests/rooms.toml states, by Fact.key, with the reasons."""

    writes: dict[str, str] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Exceptions:
        """The exceptions in that file."""
        try:
            sections = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as error:
            raise SourceError(f"{path}: {error}") from error
        for name, stated in sections.items():
            if name not in ("writes", "calls") or not isinstance(stated, dict):
                raise SourceError(f"{path}: [writes] and [calls] are all its sections, not '{name}'")
            for key, reason in stated.items():
                if key.count(" -> ") != 1:
                    raise SourceError(f"{path}: '{key}' is no exception: who -> what")
                if not isinstance(reason, str) or not reason.strip():
                    raise SourceError(f"{path}: the exception '{key}' has no reason")
        return cls(**sections)


def read_promises(root: Path) -> dict[str, str]:
    """What each room is for, in the order of sql/rooms: from the bottom up."""
    promises: dict[str, str] = {}
    for number, line in enumerate((root / "sql/rooms").read_text().splitlines(), 1):
        room, _, promise = line.split("#")[0].strip().partition(" ")
        if room in promises:
            raise SourceError(f"sql/rooms:{number}: {room} stands here twice")
        if room and not promise:
            raise SourceError(f"sql/rooms:{number}: {room} has no promise")
        if room:
            promises[room] = promise.strip()
    return promises


class Rooms:
    """The sources of a tree as rooms that write, read and call each other."""

    def __init__(self, root: Path) -> None:
        self.sources = read_sources(root)
        self.facts = resolved(self.sources)
        self.promises = read_promises(root)
        self.order = list(self.promises)
        if set(self.order) != set(self.sources.files):
            odd = ", ".join(sorted(set(self.order) ^ set(self.sources.files)))
            raise SourceError(f"sql/rooms and sql/manifest differ in the rooms that there are: {odd}")

    def home(self, fact: Fact) -> str:
        """The room of what a fact acts on."""
        owners = self.sources.functions if fact.kind == "call" else self.sources.relations
        return owners.get(fact.target, UNKNOWN)

    def foreign(self, kind: str) -> list[Fact]:
        """The facts of a kind that lead from one room to another."""
        return [fact for fact in self.facts if fact.kind == kind and self.home(fact) != fact.room]

    def upward(self) -> list[Fact]:
        """What a room calls of rooms above it. As long as there is nothing, calls form no circle.

        A view is code: who reads one calls it.
        """
        views = [fact for fact in self.foreign("read") if fact.target in self.sources.views]
        rank = self.order.index
        return [f for f in [*self.foreign("call"), *views] if rank(self.home(f)) > rank(f.room)]

    def said(self, fact: Fact) -> str:
        """A fact as a line that leads to its place."""
        home = "" if fact.target == UNKNOWN else f" of room {self.home(fact)}"
        return (
            f"{fact.file}:{fact.line}: {fact.actor} of room {fact.room} {fact.kind}s {fact.target}{home}"
            f" ({fact.how})"
        )

    def complaints(self, exceptions: Exceptions) -> list[str]:
        """What breaks the rules, and the exceptions that nothing needs, a line each."""
        lines: list[str] = []
        for kind, found in (("writes", self.foreign("write")), ("calls", self.upward())):
            excepted: dict[str, str] = getattr(exceptions, kind)
            lines += [self.said(fact) for fact in found if fact.key not in excepted]
            needed = {fact.key for fact in found}
            lines += [
                f"tests/rooms.toml: nothing needs the exception of {kind} '{key}' any more"
                for key in excepted
                if key not in needed
            ]
        return lines
