"""The way over HTTP, to `bin/wa serve`."""

from __future__ import annotations

from typing import Any, TypeVar

import httpx

from pg_whatsapp.client import failures
from pg_whatsapp.client.call import Call

R = TypeVar("R")
PREFIX = "/api/whatsapp"


class _Requests:
    """Requests for calls, and results out of answers."""

    def __init__(self, url: str, key: str, user: str | None) -> None:
        self._url = url.rstrip("/") + PREFIX
        self._headers = {"authorization": f"Bearer {key}"} | ({"x-user-id": user} if user else {})

    def of(self, call: Call[Any]) -> dict[str, Any]:
        headers = dict(self._headers)
        if call.body is not None:
            headers["content-type"] = "application/json"
        if call.idempotency_key is not None:
            headers["idempotency-key"] = call.idempotency_key
        return {
            "method": call.method,
            "url": self._url + call.path,
            "params": dict(call.query) or None,
            "content": call.body,
            "headers": headers,
        }

    @staticmethod
    def result(call: Call[R], answer: httpx.Response) -> R:
        if not answer.is_success:
            raise failures.of_answer(answer)
        return call.read(failures.read(answer.content))


class Http:
    """Calls with an API key."""

    def __init__(
        self, url: str, key: str, user: str | None, timeout_s: float, client: httpx.Client | None
    ) -> None:
        self._requests = _Requests(url, key, user)
        self._is_own = client is None
        self._client = client or httpx.Client(timeout=timeout_s)

    def run(self, call: Call[R]) -> R:
        """The result of a call; raises WaError."""
        with failures.of_network():
            answer = self._client.request(**self._requests.of(call))
        return self._requests.result(call, answer)

    def close(self) -> None:
        """Close the connections, unless the HTTP client was given."""
        if self._is_own:
            self._client.close()


class AsyncHttp:
    """As Http."""

    def __init__(
        self, url: str, key: str, user: str | None, timeout_s: float, client: httpx.AsyncClient | None
    ) -> None:
        self._requests = _Requests(url, key, user)
        self._is_own = client is None
        self._client = client or httpx.AsyncClient(timeout=timeout_s)

    async def run(self, call: Call[R]) -> R:
        """The result of a call; raises WaError."""
        with failures.of_network():
            answer = await self._client.request(**self._requests.of(call))
        return self._requests.result(call, answer)

    async def close(self) -> None:
        """Close the connections, unless the HTTP client was given."""
        if self._is_own:
            await self._client.aclose()
