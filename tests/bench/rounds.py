"""Rounds: contenders take turns, so that a slow minute of the machine hits all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.ground import Ground


@dataclass
class Bench:
    """One run of the benchmark."""

    ground: Ground
    runs: int
    #: Divides the sizes; 1 is the full size.
    scale: int
    #: Messages that went through the queue before, for the figure of that name.
    history: int
    #: The only cases of the figures that have some; none means all.
    cases: tuple[str, ...] = ()
    #: Every single measurement, in the order in which they were made.
    raw: list[dict[str, Any]] = field(default_factory=list)

    def size(self, full: int) -> int:
        """A number of messages, rows or samples, scaled."""
        return max(1, full // self.scale)

    def wants(self, case: str) -> bool:
        """Whether that case is to be measured."""
        return not self.cases or case in self.cases

    def note(self, contender: str, **facts: Any) -> None:
        """Keep a measurement beside the table; what is short is printed too."""
        self.raw.append({"contender": contender, **facts})
        short = (f"{name} {fact}" for name, fact in facts.items() if not isinstance(fact, list))
        print(f"   {contender}: " + ", ".join(short), flush=True)

    def rounds(
        self, contenders: Mapping[str, Callable[[], float]], *, warm_up: bool = False
    ) -> dict[str, list[float]]:
        """The values of each contender, one a round; every other round goes backwards.

        With a warm-up each is measured once before, for nothing.
        """
        values: dict[str, list[float]] = {name: [] for name in contenders}
        if warm_up:
            for name, measure in contenders.items():
                self.note(name, warm_up=round(measure(), 3))
        for run in range(self.runs):
            order = list(contenders.items())
            for name, measure in order if run % 2 == 0 else reversed(order):
                value = measure()
                values[name].append(value)
                self.note(name, run=run + 1, value=round(value, 3))
        return values
