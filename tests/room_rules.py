"""The rules of rooms: only a room writes its tables, and calls go down in the order of sql/rooms.

tests/rooms.toml names the exceptions with their reasons; one that nothing needs any more is an error, too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

from room_facts import UNKNOWN, Fact, SourceError, read_sources, resolved


@dataclass
class Exceptions:
    """What tests/rooms.toml states, by Fact.key, with the reasons."""

    writes: dict[str, str] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)
    still_to_be_moved: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Exceptions:
        """The exceptions in that file."""
        return cls(**tomllib.loads(path.read_text()))

    def keys(self, kind: str) -> list[str]:
        """All that are excepted of 'writes' or 'calls'."""
        return [*getattr(self, kind), *self.still_to_be_moved.get(kind, ())]


def read_promises(root: Path) -> dict[str, str]:
    """What each room is for, in the order of sql/rooms: from the bottom up."""
    lines = (line.split("#")[0].split(None, 1) for line in (root / "sql/rooms").read_text().splitlines())
    return {line[0]: line[1].strip() for line in lines if line}


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
        """Calls of a room above the caller's. As long as there are none, calls form no circle."""
        rank = self.order.index
        return [fact for fact in self.foreign("call") if rank(self.home(fact)) > rank(fact.room)]

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
            excepted: Container[str] = exceptions.keys(kind)
            lines += [self.said(fact) for fact in found if fact.key not in excepted]
            needed = {fact.key for fact in found}
            lines += [
                f"tests/rooms.toml: nothing needs the exception of {kind} '{key}' any more"
                for key in exceptions.keys(kind)
                if key not in needed
            ]
        return lines
