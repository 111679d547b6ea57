"""The webhook receiver: verifies, stores durably, answers 200. Parsing happens afterwards, in SQL."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import Coroutine
from typing import Any, LiteralString

import psycopg
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pg_whatsapp import errors, log
from pg_whatsapp.client_certificates import load_proxy_word
from pg_whatsapp.config import Settings
from pg_whatsapp.db import Link
from pg_whatsapp.lately import Lately
from pg_whatsapp.providers import PROVIDERS, Provider
from pg_whatsapp.providers.base import Webhook
from pg_whatsapp.secrets import SecretBox
from pg_whatsapp.webhook_batcher import NotStoredError, OverreachError, WebhookBatcher
from pg_whatsapp.webhook_processor import Rejections, WebhookProcessor, WebhookSecrets

PATH = "/api/whatsapp/webhook"
HEALTH_PATH = "/healthz"
LARGEST_BODY = 10 * 1024 * 1024
HEALTH_TIMEOUT_S = 5.0
# Whoever asks, and however often: its connection reads secrets and records refusals, too.
HEALTH_GOOD_FOR_S = 1.0
# A wrong verify token is answered after so long, and so many wait for that at most.
GUESS_S = 1.0
MOST_GUESSES = 10
_MAY_RECEIVE: LiteralString = (
    "SELECT has_function_privilege('ingest_wa_webhooks(bytea[], text[], text, text[])', 'EXECUTE')"
    " AND has_function_privilege('process_wa_webhooks(integer)', 'EXECUTE'), pg_is_in_recovery()"
)
_logger = log.get("receiver")
_STORED = Response(status_code=200)
_GONE = Response(status_code=400)
_UNSIGNED = PlainTextResponse("signature missing", 401)
_FORGED = PlainTextResponse("signature wrong", 401)
_UNVOUCHED = PlainTextResponse("no client certificate", 403)
_OVERREACHING = PlainTextResponse("not the secret of this number", 401)
_TOO_LARGE = PlainTextResponse("body too large", 413)
_LATER = PlainTextResponse("too many at once", 429, headers={"retry-after": "10"})
_REPEAT = PlainTextResponse("not stored, please repeat", 503, headers={"retry-after": "5"})


class Receiver:
    """The webhook's endpoints and what runs beside them."""

    def __init__(self, settings: Settings, box: SecretBox | None) -> None:
        self._store_link = Link(settings.conninfo, "serve store")
        self._process_link = Link(settings.conninfo, "serve process")
        # Refusals, secrets and health: nothing that a webhook waits for.
        self._other_link = Link(settings.conninfo, "serve other")
        self._processor = WebhookProcessor(self._process_link)
        self._batcher = WebhookBatcher(self._store_link, self._processor.wake)
        self._rejections = Rejections(
            self._other_link, "SELECT record_wa_webhook_rejection(%s, %s)", "webhook refused"
        )
        self._secrets = WebhookSecrets(settings, box, self._other_link)
        self._may_receive = Lately(self._ask_health, HEALTH_GOOD_FOR_S)
        self._proxy_word = load_proxy_word(settings)
        self._most_per_source = settings.most_per_source
        self._per_source: Counter[str] = Counter()
        self._guessing = 0
        self._one_guess = asyncio.Lock()

    def routes(self) -> list[BaseRoute]:
        """Its endpoints."""
        webhook = _Webhook(self)
        return [
            route
            # Whoever configured the URL may have ended it with a slash.
            for end in ("", "/")
            for route in (
                Route(PATH + end, self.verify_endpoint, methods=["GET"]),
                Route(PATH + end, webhook, methods=["POST"]),
                Route(HEALTH_PATH + end, self.health, methods=["GET"]),
            )
        ]

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What runs beside them until it is cancelled."""
        parts = (self._processor, self._rejections, self._secrets)
        return [self._batcher.run(), self._batcher.give_up(), *(part.run() for part in parts)]

    async def close(self) -> None:
        """Give up its connections."""
        for link in (self._store_link, self._process_link, self._other_link):
            await link.drop()

    async def verify_endpoint(self, request: Request) -> Response:
        """Meta's verification: echoes hub.challenge when hub.verify_token is one of ours."""
        if not self.has_certificate(request.scope):
            return self.refuse_stranger(_source(request))
        query = request.query_params
        given = query.get("hub.verify_token", "").encode()
        is_asked = query.get("hub.mode") == "subscribe" and bool(given)
        if is_asked and (self._is_token(given) or (await self._refresh_secrets() and self._is_token(given))):
            return PlainTextResponse(query.get("hub.challenge", ""))
        self._rejections.add(_source(request), "verify_token")
        if self._guessing >= MOST_GUESSES:
            return _LATER
        # One after the other: what tries tokens gets through one a second, however many it sends.
        self._guessing += 1
        try:
            async with self._one_guess:
                await asyncio.sleep(GUESS_S)
        finally:
            self._guessing -= 1
        return PlainTextResponse("wrong verify token", 403)

    def _is_token(self, given: bytes) -> bool:
        matches = [
            hmac.compare_digest(given, token.encode()) for token in self._secrets.named("verify_token")
        ]
        return any(matches)

    def has_certificate(self, scope: Scope) -> bool:
        """Whether a proxy says so, or none was asked to."""
        return self._proxy_word is None or self._proxy_word.is_given(scope)

    def refuse_stranger(self, source: str) -> Response:
        """The answer to a webhook without the proxy's word."""
        self._rejections.add(source, "no client certificate")
        return _UNVOUCHED

    async def take_of(self, scope: Scope, source: str, receive: Receive) -> Response:
        """One webhook, unless its source has too many under way."""
        if self._most_per_source is None:
            return await self.take(scope, source, receive)
        if self._per_source[source] >= self._most_per_source:
            return _LATER
        self._per_source[source] += 1
        try:
            return await self.take(scope, source, receive)
        finally:
            self._per_source[source] -= 1
            if not self._per_source[source]:
                del self._per_source[source]

    async def take(self, scope: Scope, source: str, receive: Receive) -> Response:
        """One webhook: 200 only after its body is committed."""
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > LARGEST_BODY:
            return _TOO_LARGE
        try:
            body = await _read(receive)
        except ClientDisconnect:
            return _GONE
        if body is None:
            return _TOO_LARGE
        webhook = Webhook(headers, body, scope["scheme"], _target(scope))
        provider, secrets = self._vouch(webhook)
        if provider is None and await self._refresh_secrets():
            provider, secrets = self._vouch(webhook)
        if provider is None:
            return self._refuse(headers, source)
        try:
            await self._batcher.store(provider.kept(webhook), source, secrets, provider)
        except NotStoredError:
            return _REPEAT
        except OverreachError:
            self._rejections.add(source, "not the secret of this number")
            return _OVERREACHING
        return _STORED

    def _vouch(self, webhook: Webhook) -> tuple[Provider | None, list[str]]:
        """Whose webhook it is, and the ids of the secrets that vouch for it."""
        for provider in PROVIDERS.values():
            signers = provider.signers(webhook, self._secrets)
            if signers:
                return provider, signers
        return None, []

    def _refuse(self, headers: dict[bytes, bytes], source: str) -> Response:
        if not any(one.signature_header in headers for one in PROVIDERS.values()):
            self._rejections.add(source, "signature missing")
            return _UNSIGNED
        has_secret = bool(self._secrets.named("app_secret"))
        self._rejections.add(source, "signature wrong" if has_secret else "no app secret known")
        return _FORGED

    async def _refresh_secrets(self) -> bool:
        try:
            return await self._secrets.refresh()
        except (psycopg.Error, errors.WaError):
            return False

    async def health(self, _request: Request) -> Response:
        """200 while webhooks can be stored and processed, 503 and why otherwise."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                may, is_standby = await self._may_receive.get()
        except psycopg.errors.UndefinedFunction:
            return PlainTextResponse("database not migrated: bin/wa migrate", 503)
        except (psycopg.Error, errors.WaError, TimeoutError):
            return PlainTextResponse("database away", 503)
        if is_standby:
            return PlainTextResponse("database is a standby", 503)
        return PlainTextResponse("ok") if may else PlainTextResponse("role may not receive webhooks", 503)

    async def _ask_health(self) -> tuple[Any, ...]:
        [answer] = await self._other_link.fetch(_MAY_RECEIVE)
        return answer


class _Webhook:
    """The POST endpoint as a bare ASGI application: Request and Response cost as much as all that it does."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        source = client[0] if client else "unknown"
        if self._receiver.has_certificate(scope):
            response = await self._receiver.take_of(scope, source, receive)
        else:
            response = self._receiver.refuse_stranger(source)
        await response(scope, receive, send)


def _target(scope: Scope) -> str:
    """Path and query as they came."""
    path, query = scope.get("raw_path") or scope["path"].encode(), scope["query_string"]
    target: str = (path + b"?" + query if query else path).decode("latin-1")
    return target


async def _read(receive: Receive) -> bytes | None:
    """The body as received, None if it is larger than we take. Raises ClientDisconnect."""
    parts: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientDisconnect
        part = event.get("body", b"")
        size += len(part)
        if size > LARGEST_BODY:
            return None
        parts.append(part)
        if not event.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _source(request: Request) -> str:
    return request.client.host if request.client else "unknown"
