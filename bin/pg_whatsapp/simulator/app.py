"""Puts the parts together and routes requests."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Final

from .client import Client
from .control import Control
from .customer import Customers
from .emitter import Emitter
from .errors import GraphError
from .faults import Faults
from .http import Answer, Request, json_response
from .journal import Journal
from .limits import Limits
from .management import Management
from .media import MediaStore
from .send import Sender
from .settings import Settings
from .state import DEFAULT_WABA, State, Template, unknown_object
from .statuses import Statuses
from .webhooks import Atom

_VERSION: Final = re.compile(r"v(\d+)(?:\.\d+)?")
NEWEST_VERSION: Final = 26


class Simulator:
    """The simulated platform: all state, the endpoints and the control API."""

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
        self.media = MediaStore(self.state, self.settings)
        self.management = Management(self.state, self.settings, self.tell_template)
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
        self.customers = Customers(self.state, self.settings, self.emitter, self.media)
        self.control = Control(self)

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

    # requests

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """Route a request."""
        self.requests += 1
        segments = request.path.strip("/").split("/")
        version = NEWEST_VERSION
        if match := _VERSION.fullmatch(segments[0]):
            version = int(match.group(1))
            segments = segments[1:]
        if segments[-1:] == ["messages"] and request.method == "POST" and len(segments) <= 2:
            return self.sender.handle(request, segments[0] if len(segments) == 2 else None, version)
        if segments[:1] == ["_simulator"] and len(segments) == 2:
            return self.control.handle(request, segments[1])
        try:
            return self._graph(request, segments, version)
        except GraphError as error:
            return error.response()

    def _graph(self, request: Request, segments: list[str], version: int) -> Answer | Awaitable[Answer]:
        method = request.method
        match segments:
            case [number_id, "marketing_messages"] if method == "POST":
                return self.sender.handle(request, number_id, version, marketing=True)
            case ["_media", media_id] if method == "GET":
                self.sender.authorize(request)
                return self.media.download(request, media_id)
            case [number_id, "media"] if method == "POST":
                self.sender.number_of(request, number_id)
                return self.media.upload(request)
            case [object_id, *edge] if object_id and len(edge) <= 1:
                self.sender.authorize(request, self.state.numbers.get(object_id))
                return self._object(request, object_id, edge[0] if edge else None)
        raise unknown_object("/".join(segments))

    def _object(self, request: Request, object_id: str, edge: str | None) -> Answer:
        management = self.management
        match request.method, edge:
            case "GET", None if object_id in self.state.media:
                return self.media.describe(self.state.media[object_id], self.base_url(request))
            case "GET" | "POST", None:
                return management.node(request, object_id)
            case "DELETE", None:
                return self.media.delete(object_id)
            case "GET", "message_templates":
                return management.list_templates(request, object_id)
            case "POST", "message_templates":
                return management.create_template(request, object_id)
            case "DELETE", "message_templates":
                return management.delete_templates(request, object_id)
            case "GET", "phone_numbers":
                return management.phone_numbers(request, object_id)
            case "POST", "subscribed_apps":
                self.state.waba(object_id)
                return json_response({"success": True})
            case "POST", "unpause":
                return management.unpause(object_id)
        raise unknown_object(f"{object_id}/{edge}" if edge else object_id)

    @staticmethod
    def base_url(request: Request) -> str:
        """The address under which the caller reached us."""
        return f"http://{request.headers.get('host', 'localhost')}"

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
            "webhooks": {"pending": self.emitter.pending, **self.emitter.counters},
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
        kept = self.settings.as_dict()
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
        self.settings.update(Settings().as_dict())
        self.settings.update(self._options)
        self.state.change("settings", **self.settings.as_dict())

    async def close(self) -> None:
        """Stop sending webhooks and close the files."""
        await self.emitter.close()
        self.journal.close()
        self.state.close()
