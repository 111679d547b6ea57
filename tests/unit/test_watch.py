"""What a dispatcher tells of its work: changes once, and a summary.

Tests bin/pg_whatsapp/watch.py.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest
from pg_whatsapp import watch
from pg_whatsapp.sender import Sender


class Sending:
    """A sender of which only the counts are looked at."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()


class Log:
    """What was logged."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def _add(self, event: str, **facts: Any) -> None:
        self.told.append((event, facts))

    info = warning = error = _add


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    log = Log()
    monkeypatch.setattr(watch, "_logger", log)
    return log.told


Told = list[tuple[str, dict[str, Any]]]


def test_each_change_is_told_once(told: Told) -> None:
    watching = watch.Watch(cast(Sender, Sending()))

    def look(*stops: tuple[Any, ...]) -> list[str]:
        told.clear()
        watching.look(list(stops))
        return [event for event, _ in told]

    paused = ("100", "paused", None, "(#190) token expired")
    assert look() == []
    assert look(paused) == ["number stopped"]
    assert look(paused) == []
    assert look(("100", "panic", None, None)) == ["number stopped"]
    assert look((None, "sending_disabled", None, "asked")) == ["sending is switched off", "number goes on"]
    assert look() == ["sending goes on"]


def test_a_provider_that_is_away_and_back_is_told_once(told: Told) -> None:
    sending = Sending()
    watching = watch.Watch(cast(Sender, sending))
    for outcome in ("accepted", "unanswered", "unanswered", "refused", "accepted"):
        sending.outcomes[outcome] += 1
        watching.look([])
    assert [event for event, _ in told] == ["the provider does not answer", "the provider answers again"]


def test_minutes_with_work_are_summed_up(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SUMMARY_EVERY_S", 0.0)
    sending = Sending()
    watching = watch.Watch(cast(Sender, sending))
    watching.look([])
    assert told == []
    sending.outcomes.update(accepted=3, refused=1)
    watching.look([])
    watching.look([])
    assert told == [("last minute", {"accepted": 3, "refused": 1})]
