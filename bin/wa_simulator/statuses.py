"""Which statuses follow an accepted message, and when."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from .emitter import Emitter
from .errors import webhook_error
from .journal import Entry
from .settings import Settings
from .state import Number, State
from .webhooks import Atom, contact_of, status_item

_ORDER = ("sent", "delivered", "read", "played")


class Statuses:
    """Plans the statuses of accepted messages and hands them to the emitter."""

    def __init__(self, state: State, settings: Settings, emitter: Emitter) -> None:
        self._state = state
        self._settings = settings
        self._emitter = emitter
        self._random = random.Random()  # noqa: S311 (chance, not secrets)

    def plan(self, kind: str, *, voice: bool = False) -> list[str]:
        """The statuses of a message of this type that goes through; a reaction only ever gets ``sent``."""
        settings = self._settings
        planned: list[str] = [status for status in _ORDER if status in settings.statuses]
        if kind == "reaction":
            return [status for status in planned if status == "sent"]
        if (
            "delivered" in planned
            and settings.skip_delivered
            and self._random.random() < settings.skip_delivered
        ):
            planned.remove("delivered")
        if voice and "read" in planned:
            planned.append("played")
        return planned

    def failure(self) -> int | None:
        """The code with which a message fails after it was accepted, if chance says so."""
        if self._settings.fail and self._random.random() < self._settings.fail:
            return self._settings.fail_code
        return None

    def held(self) -> bool:
        """Whether a template message is held for a look at its quality."""
        return bool(self._settings.hold_templates) and self._random.random() < self._settings.hold_templates

    def emit(self, entry: Entry, number: Number, statuses: list[str]) -> None:
        """Schedule ``statuses`` of ``entry``, each with its delay."""
        delays = self.delays(statuses)
        shown = list(delays)
        if self._settings.shuffle and self._random.random() < self._settings.shuffle:
            # the timestamps stay in order, only the deliveries do not
            self._random.shuffle(shown)
        build = self._builder(entry, number)
        now = time.time()
        for status, natural, delay in zip(statuses, delays, shown, strict=True):
            self._emitter.schedule(build(status, now + natural), delay)

    def atom(self, entry: Entry, number: Number, status: str) -> Atom:
        """One status as of now."""
        return self._builder(entry, number)(status, time.time())

    def delays(self, statuses: list[str]) -> list[float]:
        """Seconds from acceptance to each of ``statuses``."""
        settings = self._settings
        after = {
            "sent": settings.sent_after_ms,
            "delivered": settings.delivered_after_ms,
            "read": settings.read_after_ms,
            "played": settings.read_after_ms + 50,
            "failed": settings.sent_after_ms,
        }
        jitter = settings.webhook_jitter_ms
        return [
            (after[status] + settings.webhook_delay_ms + (self._random.uniform(0, jitter) if jitter else 0))
            / 1000
            for status in statuses
        ]

    def _builder(self, entry: Entry, number: Number) -> Callable[[str, float], Atom]:
        state, settings = self._state, self._settings
        customer = state.find_customer(entry.wa_id, entry.recipient)
        if settings.identity != "phone" and entry.wa_id is not None:
            customer = state.with_user_id(customer or state.customer(entry.wa_id, entry.recipient))
        waba_id = state.waba_of(number)
        in_window = state.window_open(number, entry.wa_id, entry.recipient)

        def build(status: str, at: float) -> Atom:
            errors = [webhook_error(code) for code in entry.errors] if status == "failed" else None
            item = status_item(entry, status, at, settings, customer, in_window=in_window, errors=errors)
            contact = None
            if customer is not None and status != "failed":
                contact = contact_of(customer, settings.identity)
            return Atom(waba_id, "messages", "statuses", item, number, contact, entry.wamid, status)

        return build
