"""Ways to fail, as rules that are set while the simulator runs.

A rule has a mode and says which requests it hits: with a ``probability``, ``every`` n-th, or the ``next`` n;
of all of them or those of one business ``number`` or one recipient (``to``). The first rule that hits wins.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from .errors import ControlError
from .ids import USER_ID

# Modes that act before the message is accepted: it is not journaled and no status follows.
BEFORE: Final = frozenset(
    {"http_500_json", "http_503_html", "throttle", "pair", "error", "cut_before", "hang_before"}
)
# Modes that act on the answer to an accepted message: it is journaled and its statuses are sent.
AFTER: Final = frozenset({"cut_after", "hang_after", "garbage", "slow", "fail_status"})
MODES: Final = BEFORE | AFTER


@dataclass(slots=True)
class Rule:
    """A rule with what it has seen and done so far."""

    id: int
    mode: str
    probability: float | None = None
    every: int | None = None
    next: int | None = None
    number: str | None = None
    to: str | None = None
    code: int = 131000
    status: int | None = None
    retry_after: float | None = None
    seconds: float = 0.0
    details: str = "Injected by the simulator."
    seen: int = 0
    hits: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The rule as the control API shows it."""
        return {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}


# How long these modes take where the rule does not say.
_SECONDS: Final = {"hang_before": 60.0, "hang_after": 60.0, "slow": 2.0}
_FIELDS: Final[dict[str, tuple[type, ...]]] = {
    "probability": (int, float),
    "every": (int,),
    "next": (int,),
    "number": (str,),
    "to": (str,),
    "code": (int,),
    "status": (int,),
    "retry_after": (int, float),
    "seconds": (int, float),
    "details": (str,),
}


class Faults:
    """The rules in force and how often each mode was hit since the start."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.hits: Counter[str] = Counter()
        self._random = random.Random()  # noqa: S311 (chance, not secrets)
        self._last_id = 0

    def add(self, values: dict[str, Any]) -> Rule:
        """Put a rule in force; raises ControlError where ``values`` is not one."""
        values = dict(values)
        mode = values.pop("mode", None)
        if mode not in MODES:
            raise ControlError(f"unknown mode {mode!r}; there are: {', '.join(sorted(MODES))}")
        for name, value in values.items():
            if name not in _FIELDS:
                raise ControlError(f"a fault has no {name!r}; it has: mode, {', '.join(_FIELDS)}")
            if not isinstance(value, _FIELDS[name]) or isinstance(value, bool):
                raise ControlError(f"{name} does not take {value!r}")
        if sum(name in values for name in ("probability", "every", "next")) > 1:
            raise ControlError("give one of probability, every and next")
        if (
            not 0 <= values.get("probability", 0) <= 1
            or values.get("every", 1) < 1
            or values.get("next", 1) < 1
        ):
            raise ControlError("probability is between 0 and 1; every and next are at least 1")
        values.setdefault("seconds", _SECONDS.get(mode, 0.0))
        if "to" in values and not USER_ID.fullmatch(values["to"]):
            values["to"] = "".join(c for c in values["to"] if c.isdigit())
        self._last_id += 1
        rule = Rule(id=self._last_id, mode=mode, **values)
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
            if (rule.number is not None and rule.number != number) or (rule.to is not None and rule.to != to):
                continue
            rule.seen += 1
            if rule.probability is not None:
                due = self._random.random() < rule.probability
            elif rule.every is not None:
                due = rule.seen % rule.every == 0
            elif rule.next is not None:
                due = rule.hits < rule.next
            else:
                due = True
            if due:
                return rule
        return None

    def hit(self, rule: Rule) -> None:
        """Count that ``rule`` took effect; a rule for the next n goes when it is used up."""
        rule.hits += 1
        self.hits[rule.mode] += 1
        if rule.next is not None and rule.hits >= rule.next and rule in self.rules:
            self.rules.remove(rule)
