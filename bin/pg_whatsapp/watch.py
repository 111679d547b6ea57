"""What a dispatcher tells of its work: each change of a state once, each minute with work in a line."""

from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import Any

from pg_whatsapp import log
from pg_whatsapp.sender import Sender

_logger = log.get("dispatcher")
SUMMARY_EVERY_S = 60.0


class Watch:
    """Compares what is with what was; look() is called every few seconds."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._seen: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._tell_at = monotonic() + SUMMARY_EVERY_S
        self._is_reachable = True
        self._stops: dict[str | None, str] = {}

    def look(self, stops: list[tuple[Any, ...]]) -> None:
        """stops: rows of get_wa_stops()."""
        self._compare_stops({number: tuple(rest) for number, *rest in stops})
        outcomes = self._sender.outcomes.copy()
        latest = outcomes - self._seen
        self._seen = outcomes
        self._compare_reach(latest)
        if monotonic() >= self._tell_at:
            self._tell_at = monotonic() + SUMMARY_EVERY_S
            if work := outcomes - self._told:
                _logger.info("last minute", **work)
            self._told = outcomes

    def _compare_stops(self, stops: dict[str | None, tuple[Any, ...]]) -> None:
        for number, (reason, held_until, detail) in stops.items():
            if self._stops.get(number) != reason:
                what = "number stopped" if number else "sending is switched off"
                _logger.warning(what, phone_number_id=number, reason=reason, until=held_until, detail=detail)
        for number in self._stops.keys() - stops.keys():
            _logger.info("number goes on" if number else "sending goes on", phone_number_id=number)
        self._stops = {number: reason for number, (reason, *_) in stops.items()}

    def _compare_reach(self, latest: Counter[str]) -> None:
        answered = latest["accepted"] + latest["refused"]
        if self._is_reachable and latest["unanswered"] and not answered:
            self._is_reachable = False
            _logger.error("the provider does not answer", unanswered=latest["unanswered"])
        elif not self._is_reachable and answered:
            self._is_reachable = True
            _logger.info("the provider answers again")
