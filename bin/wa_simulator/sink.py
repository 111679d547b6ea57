"""A sink for benchmarks: accepts every message at once, or after a latency, and remembers when each came."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable
from typing import Any, Final

import orjson

from .http import Answer, Request, Response, json_response

_REMEMBERED: Final = 100_000


class Sink:
    """Validates nothing, sends no webhooks and keeps no journal."""

    def __init__(self, latency_ms: float) -> None:
        self.latency_s = latency_ms / 1000
        self.count = 0
        self.in_flight = 0
        self.most_in_flight = 0
        # Not reset: a message id is given once.
        self._ids = itertools.count(1)
        self.arrivals: deque[tuple[float, str | None]] = deque(maxlen=_REMEMBERED)

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answer a send request as if it was accepted, or a control request."""
        if request.method == "POST" and request.path.endswith("messages"):
            answer = self._accept(request)
            return self._later(answer) if self.latency_s else answer
        return self._control(request)

    def _accept(self, request: Request) -> Response:
        now = time.time()
        self.count += 1
        to: Any = None
        callback: Any = None
        try:
            body = orjson.loads(request.body)
            to, callback = body.get("to"), body.get("biz_opaque_callback_data")
        except (orjson.JSONDecodeError, AttributeError):
            pass  # a sink takes anything
        self.arrivals.append((now, callback if isinstance(callback, str) else None))
        wa_id = to.lstrip("+") if isinstance(to, str) else None
        return json_response(
            {
                "messaging_product": "whatsapp",
                "contacts": [{"input": to, "wa_id": wa_id}],
                "messages": [{"id": f"wamid.SINK{next(self._ids):020d}"}],
            }
        )

    async def _later(self, answer: Response) -> Answer:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.latency_s)
        self.in_flight -= 1
        return answer

    def _control(self, request: Request) -> Response:
        match request.method, request.path:
            case "GET", "/_simulator/health":
                return json_response({"status": "ok"})
            case "GET", "/_simulator/stats":
                return json_response({"accepted": self.count, "most_in_flight": self.most_in_flight})
            case "GET", "/_simulator/arrivals":
                return json_response(
                    {"arrivals": [{"time": at, "callback": data} for at, data in self.arrivals]}
                )
            case "POST", "/_simulator/reset":
                self.count = self.most_in_flight = 0
                self.arrivals.clear()
                return json_response({"reset": ["journal"]})
        return json_response({"error": "a sink has health, stats, arrivals and reset"}, 404)
