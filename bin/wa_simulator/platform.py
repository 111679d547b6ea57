"""The simulated platform: its parts, put together."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .client import Client
from .customer import Customers
from .emitter import Emitter
from .faults import Faults
from .journal import Journal
from .limits import Limits
from .management import Management
from .media import MediaStore
from .numbers import Numbers
from .send import Sender
from .settings import Settings
from .state import DEFAULT_WABA, State, Template
from .statuses import Statuses
from .twilio import Twilio
from .webhooks import Atom


class Platform:
    """All state and what acts on it; knows nothing of the addresses under which it is asked."""

    def __init__(
        self,
        state_dir: Path,
        *,
        settings: dict[str, Any] | None = None,
        access_token: str | None = None,
        app_secret: str | None = None,
        verify_token: str | None = None,
        phone_number_id: str | None = None,
        waba_id: str | None = None,
    ) -> None:
        self._options = settings or {}
        self.settings = Settings()
        self.settings.update(self._options)
        self.verify_token = verify_token
        self.started = time.time()
        self.requests = 0
        self.journal = Journal(state_dir)
        self.state = State(state_dir, self.settings, waba_id or DEFAULT_WABA)
        # What the command line says wins over what was set in an earlier run.
        self.settings.update(self._options)
        self._phone_number_id = phone_number_id
        self._register()
        self.faults = Faults()
        self.limits = Limits()
        self.client = Client()
        self.emitter = Emitter(self.settings, app_secret, self.client, self._delivered)
        self.statuses = Statuses(self.state, self.settings, self.emitter)
        self.media = MediaStore(self.state, self.settings, self.faults)
        self.management = Management(self.state, self.settings, self.tell_template)
        self.numbers = Numbers(self.state, self.client)
        self.sender = Sender(
            self.state,
            self.settings,
            self.journal,
            self.faults,
            self.limits,
            self.statuses,
            self.emitter,
            access_token,
        )
        self.twilio = Twilio(self.settings, self.journal, self.faults, self.client)
        self.customers = Customers(self.state, self.settings, self.emitter, self.media)

    def _register(self) -> None:
        if self._phone_number_id and self._phone_number_id not in self.state.numbers:
            self.state.register_number({"phone_number_id": self._phone_number_id})

    def resume(self) -> int:
        """Send the statuses that an earlier run left undelivered; returns of how many messages."""
        count = 0
        for entry, missing in self.journal.undelivered():
            number = self.state.numbers.get(entry.number)
            if number is not None and missing != ["held"]:
                self.statuses.emit(entry, number, missing)
                count += 1
        return count

    def _delivered(self, atom: Atom) -> None:
        if atom.wamid is not None and atom.status is not None:
            self.journal.delivered(atom.wamid, atom.status)

    # webhooks that are not about one message

    def tell_template(self, template: Template, reason: str | None) -> None:
        """Send the webhook for the present status of ``template``."""
        value: dict[str, Any] = {
            "event": template.status,
            "message_template_id": int(template.id) if template.id.isdigit() else template.id,
            "message_template_name": template.name,
            "message_template_language": template.language,
            "message_template_category": template.category,
            "reason": reason or "NONE",
        }
        atom = Atom(template.waba_id, "message_template_status_update", None, value)
        self.emitter.schedule(atom, 0.0)

    # house-keeping

    def stats(self) -> dict[str, Any]:
        """Counters of everything."""
        return {
            "uptime_s": round(time.time() - self.started, 3),
            "requests": self.requests,
            "answers": dict(self.sender.answers),
            "accepted": len(self.journal.entries),
            "faults": dict(self.faults.hits),
            "limits": dict(self.limits.refused),
            "webhooks": {
                "pending": self.emitter.pending + self.twilio.callbacks.pending,
                **(self.emitter.counters + self.twilio.callbacks.counters),
            },
        }

    def reset(self, what: list[Any]) -> list[Any]:
        """Forget parts of the state; returns what is no part of it (then nothing is forgotten)."""
        parts = {
            "webhooks": self.emitter.clear,
            "journal": self._reset_journal,
            "state": self._reset_state,
            "faults": self._reset_faults,
            "limits": self._reset_limits,
            "settings": self._reset_settings,
        }
        unknown = [name for name in what if name not in parts]
        if not unknown:
            for name, action in parts.items():
                if name in what:
                    action()
        return unknown

    def _reset_journal(self) -> None:
        self.journal.clear()
        self.sender.answers.clear()
        self.requests = 0

    def _reset_state(self) -> None:
        kept = self.settings.model_dump()
        self.state.clear()
        self.state.change("settings", **kept)
        self._register()

    def _reset_faults(self) -> None:
        self.faults.remove()
        self.faults.hits.clear()

    def _reset_limits(self) -> None:
        fresh = Limits()
        self.limits.throughput, self.limits.pair, self.limits.tier = fresh.throughput, fresh.pair, fresh.tier
        self.limits.refused.update(fresh.refused)

    def _reset_settings(self) -> None:
        self.settings.update(Settings().model_dump())
        self.settings.update(self._options)
        self.state.change("settings", **self.settings.model_dump())

    async def close(self) -> None:
        """Stop sending webhooks and close the files."""
        await self.twilio.callbacks.close()
        await self.emitter.close()
        self.journal.close()
        self.state.close()
