"""What the figures yield, and how they are printed and kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Line:
    """One line of the table: our values and those beside them, one each per round."""

    figure: str
    ours: list[float]
    unit: str
    #: What stands beside it, and its values; without values `ours` itself is held against the target.
    beside: str = ""
    theirs: list[float] = field(default_factory=list)
    at_least: float | None = None
    at_most: float | None = None
    #: Whether each round has a ratio of its own, of which the median counts.
    is_paired: bool = False

    @property
    def ratios(self) -> list[float]:
        """The ratio of each round; values of one round were measured one right after the other."""
        return [mine / its for mine, its in zip(self.ours, self.theirs, strict=True)]

    @property
    def reached(self) -> float:
        """Ratio of the medians or median of the ratios; our median where nothing stands beside it."""
        if self.is_paired:
            return median(self.ratios)
        return median(self.ours) / median(self.theirs) if self.theirs else median(self.ours)

    @property
    def is_good(self) -> bool:
        """Whether the target is reached; True where there is none."""
        return (self.at_least is None or self.reached >= self.at_least) and (
            self.at_most is None or self.reached <= self.at_most
        )

    @property
    def target(self) -> str:
        """The target in words."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"

    def cells(self) -> list[str]:
        """The line of the printed table."""
        verdict = "" if not self.target else "yes" if self.is_good else "NO"
        reached = spread(self.ratios) if self.is_paired else f"{self.reached:.2f}" if self.theirs else ""
        return [
            self.figure,
            spread(self.ours, self.unit),
            self.beside,
            spread(self.theirs, self.unit) if self.theirs else "",
            reached,
            self.target,
            verdict,
        ]

    def record(self) -> dict[str, Any]:
        """The line for the JSON file."""
        return {
            "figure": self.figure,
            "unit": self.unit,
            "ours": self.ours,
            "beside": self.beside,
            "theirs": self.theirs,
            "ratios": self.ratios if self.is_paired else [],
            "reached": self.reached,
            "target": self.target,
            "is_good": self.is_good,
        }


def spread(values: list[float], unit: str = "") -> str:
    """Median and range of some values."""
    digits = 0 if median(values) >= 100 else 2
    middle, low, high = (f"{v:,.{digits}f}" for v in (median(values), min(values), max(values)))
    return (middle if len(values) == 1 else f"{middle} ({low} to {high})") + (f" {unit}" if unit else "")


def render(lines: list[Line]) -> str:
    """The table as Markdown, columns aligned."""
    head = ["figure", "ours: median (range)", "beside it", "its median (range)", "ratio", "target", "reached"]
    rows = [head, *(line.cells() for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )
