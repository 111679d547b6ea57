"""What `wa doctor` says of one thing, and what it looks at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, LiteralString, NamedTuple

from pg_whatsapp import db
from pg_whatsapp.config import Settings

# Longer than that, and nothing moves: somebody should look.
DUE_TOO_LONG_S = 120.0


class Finding(NamedTuple):
    """One line of the report; hint is the way out of what is wrong. warns: it is good, but look at it."""

    name: str
    is_good: bool
    text: str
    hint: str | None = None
    warns: bool = False

    @property
    def mark(self) -> str:
        """What the line begins with."""
        return ("WARN" if self.warns else "ok  ") if self.is_good else "BAD "


@dataclass
class Patient:
    """What is examined; skews: what the provider's clock is ahead of ours, in seconds, per answer."""

    connection: db.Connection
    settings: Settings
    skews: list[float] = field(default_factory=list)

    async def ask(self, statement: LiteralString, *params: Any) -> tuple[Any, ...]:
        """The one row of a query."""
        return (await self.list(statement, *params))[0]

    async def list(self, statement: LiteralString, *params: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return await (await self.connection.execute(statement, params)).fetchall()


Check = Callable[[Patient], Awaitable[Finding]]


def lasted(seconds: float) -> str:
    """A time span for people: 40 s, 12 min, 5 h, 3 days."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
