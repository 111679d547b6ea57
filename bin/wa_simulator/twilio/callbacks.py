"""What Twilio posts to us: forms, signed over the address and every field."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from wa_simulator.client import Client, NoAnswerError
from wa_simulator.emitter import Delivery
from wa_simulator.settings import Settings


def signature(token: str, url: str, fields: dict[str, str]) -> str:
    """The value of X-Twilio-Signature for a form that is posted to ``url``."""
    text = url + "".join(name + fields[name] for name in sorted(fields))
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


class Callbacks:
    """Posts forms. ``routes`` has, for the beginning of an address, where that is: what a proxy does."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self._settings = settings
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()
        self.routes: dict[str, str] = {}
        self.pending = 0
        self.counters: Counter[str] = Counter()

    def schedule(
        self, url: str, fields: dict[str, str], token: str, delay_s: float, taken: Callable[[], None]
    ) -> None:
        """Post in ``delay_s`` seconds; ``taken`` is called once the receiver answered 200."""

        async def later() -> None:
            try:
                await asyncio.sleep(delay_s)
                if (await self.post(url, fields, token)).delivered:
                    taken()
            finally:
                self.pending -= 1

        self.pending += 1
        task = asyncio.get_running_loop().create_task(later())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def post(
        self,
        url: str,
        fields: dict[str, str],
        token: str,
        *,
        signed: str = "valid",
        as_url: str | None = None,
    ) -> Delivery:
        """Post now, and again as often as the address asks for (#rc=5).

        ``signed``: valid, wrong or missing; ``as_url``: sign another address than the one that is asked.
        """
        plain, _, overrides = url.partition("#")
        tries = 1 + min(5, int(dict(parse_qsl(overrides)).get("rc", "0")))
        headers = {
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            "User-Agent": "TwilioProxy/1.1",
        }
        if signed == "valid":
            headers["X-Twilio-Signature"] = signature(token, as_url or plain, fields)
        elif signed == "wrong":
            headers["X-Twilio-Signature"] = base64.b64encode(secrets.token_bytes(20)).decode()
        delivery = Delivery()
        for attempt in range(tries):
            if attempt:
                wait_ms = self._settings.retry_first_ms * 4 ** (attempt - 1)
                await asyncio.sleep(min(wait_ms, self._settings.retry_max_ms) / 1000)
                self.counters["retries"] += 1
            delivery.attempts += 1
            self.counters["posts"] += 1
            try:
                delivery.status = await self._client.post(
                    self._reached(plain),
                    urlencode(fields).encode(),
                    headers,
                    self._settings.webhook_timeout_s,
                )
            except NoAnswerError:
                delivery.status = None
            if delivery.status == 200:
                delivery.delivered = True
                self.counters["delivered"] += 1
                break
        else:
            self.counters["given_up"] += 1
        return delivery

    def _reached(self, url: str) -> str:
        parts = urlsplit(url)
        base = urlunsplit(parts._replace(path="", query=""))
        for start, there in self.routes.items():
            if base == start:
                return there + url.removeprefix(start)
        return url

    async def close(self) -> None:
        """Stop posting."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
