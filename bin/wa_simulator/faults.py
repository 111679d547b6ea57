"""Ways to fail, as rules that are set while the simulator runs.

A rule has a mode and says which requests it hits: with a ``probability``, ``every`` n-th, or the ``next`` n;
of all of them or those of one business ``number`` or one recipient (``to``). The first rule that hits wins.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from .checked import checked
from .ids import USER_ID

# How long these modes take where the rule does not say.
_SECONDS: Final = {"hang_before": 60.0, "hang_after": 60.0, "slow": 2.0}


class Wanted(BaseModel):
    """A rule as it is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    mode: Literal[
        # These act before the message is accepted: it is not journaled and no status follows.
        "http_500_json",
        "http_503_html",
        "throttle",
        "pair",
        "error",
        "edge_error",
        "cut_before",
        "hang_before",
        # These act on the answer to an accepted message: it is journaled and its statuses are sent.
        "cut_after",
        "hang_after",
        "garbage",
        "slow",
        "fail_status",
        # These act on files: on the look-up and the upload, the others on the download.
        "media_error",
        "media_gone",
        "media_redirect",
        "media_drip",
        "media_cut",
    ]
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    every: PositiveInt | None = None
    next: PositiveInt | None = None
    number: str | None = None
    to: str | None = None
    code: int = 131000
    subcode: int | None = None
    status: int | None = None
    retry_after: float | None = None
    seconds: float = Field(default_factory=lambda given: _SECONDS.get(given.get("mode"), 0.0))
    details: str = "Injected by the simulator."
    location: Annotated[str, Field(pattern=r"^(https?://|/)")] | None = None
    bytes_per_s: PositiveInt = 1000

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if sum(one is not None for one in (self.probability, self.every, self.next)) > 1:
            raise ValueError("give one of probability, every and next")
        if self.to is not None and not USER_ID.fullmatch(self.to):
            self.to = "".join(c for c in self.to if c.isdigit())
        return self


class Rule(Wanted):
    """A rule with what it has seen and done so far."""

    id: int
    seen: int = 0
    hits: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The rule as the control API shows it."""
        return self.model_dump(exclude_none=True)


class Faults:
    """The rules in force and how often each mode was hit since the start."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.hits: Counter[str] = Counter()
        self._random = random.Random()  # noqa: S311 (chance, not secrets)
        self._last_id = 0

    def add(self, values: dict[str, Any]) -> Rule:
        """Put a rule in force; raises ControlError where ``values`` is not one."""
        wanted = checked(Wanted, values)
        self._last_id += 1
        rule = Rule(id=self._last_id, **wanted.model_dump())
        self.rules.append(rule)
        return rule

    def remove(self, rule_id: int | None = None) -> int:
        """Lift one rule or all; returns how many were lifted. The counters stay."""
        before = len(self.rules)
        self.rules = [] if rule_id is None else [rule for rule in self.rules if rule.id != rule_id]
        return before - len(self.rules)

    def seed(self, seed: int) -> None:
        """Make the probabilities repeatable."""
        self._random.seed(seed)

    def pick(self, number: str, to: str | None) -> Rule | None:
        """The rule that hits this request; the caller counts it with :meth:`hit` when it takes effect."""
        for rule in self.rules:
            if rule.mode.startswith("media_"):
                continue
            if (rule.number is not None and rule.number != number) or (rule.to is not None and rule.to != to):
                continue
            if self._is_due(rule):
                return rule
        return None

    def pick_media(self, *modes: str) -> Rule | None:
        """The rule of one of these modes that hits a request for a file; it is counted as taking effect."""
        for rule in list(self.rules):
            if rule.mode in modes and self._is_due(rule):
                self.hit(rule)
                return rule
        return None

    def _is_due(self, rule: Rule) -> bool:
        rule.seen += 1
        if rule.probability is not None:
            return self._random.random() < rule.probability
        if rule.every is not None:
            return rule.seen % rule.every == 0
        return rule.next is None or rule.hits < rule.next

    def hit(self, rule: Rule) -> None:
        """Count that ``rule`` took effect; a rule for the next n goes when it is used up."""
        rule.hits += 1
        self.hits[rule.mode] += 1
        if rule.next is not None and rule.hits >= rule.next and rule in self.rules:
            self.rules.remove(rule)
