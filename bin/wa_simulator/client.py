"""An HTTP/1.1 client that posts webhooks over kept-alive connections, as fast as statuses are made."""

from __future__ import annotations

from datetime import timedelta

from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.response import Response


class NoAnswerError(Exception):
    """No connection was had, it broke, or the time was up."""


class Client:
    """Posts bodies and returns the status of the answer."""

    def __init__(self) -> None:
        self._client = (
            ClientBuilder().http1_only().follow_redirects(False).no_proxy().tcp_nodelay(True).build()
        )

    async def post(self, url: str, body: bytes, headers: dict[str, str], within_s: float) -> int:
        """POST ``body`` to ``url`` within ``within_s`` seconds: the status. Raises NoAnswerError."""
        return (await self._request("POST", url, body, headers, within_s)).status

    async def get(self, url: str, within_s: float) -> tuple[int, bytes]:
        """GET ``url``: status and body. Raises NoAnswerError."""
        answer = await self._request("GET", url, b"", {}, within_s)
        return answer.status, bytes(await answer.bytes())

    async def _request(
        self, method: str, url: str, body: bytes, headers: dict[str, str], within_s: float
    ) -> Response:
        try:
            request = self._client.request(method, url).headers(headers).body_bytes(body)
            return await request.timeout(timedelta(seconds=within_s)).build().send()
        except (PyreqwestError, ValueError) as error:
            raise NoAnswerError(str(error)) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
